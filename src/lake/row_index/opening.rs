//! What a table finds in the cache when it is opened, and where it looks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringTreemap;
use serde_json::Value;
use twox_hash::XxHash3_128;
use url::Url;

use super::super::key::KeyHasher;
use super::super::locator::FileId;
use super::cache::{Folder, IndexCache, Share};
use super::manifest::Manifest;
use super::segment::Segment;
use super::{Disk, RowIndex};
use crate::schema::{Shape, TableName};

/// What makes the hashes of two openings of a table comparable: where it lies, which Delta table it is, and what its rows
/// are told apart by.
#[derive(Clone, Debug)]
pub(in crate::lake) struct Identity(String);

impl Identity {
    pub fn of(url: &Url, metadata: &Value, shape: &Shape) -> Self {
        Self(format!("{url}\n{}\n{}", metadata["id"], KeyHasher::described(shape)))
    }

    pub(super) fn sum(&self) -> u128 {
        XxHash3_128::oneshot(self.0.as_bytes())
    }
}

/// A data file that the index has already.
#[derive(Debug)]
pub(in crate::lake) struct Known {
    pub id: FileId,
    pub rows: u64,
    /// Rows that it may lack.
    pub deleted: RoaringTreemap,
}

/// See the module text.
#[derive(Debug)]
pub(in crate::lake) struct Opened {
    pub index: RowIndex,
    /// Of the hashes.
    pub seed: u64,
    /// By path.
    pub known: HashMap<String, Known>,
    /// Files get this number and higher ones.
    pub next_file: FileId,
}

impl Opened {
    /// An empty index, all in memory.
    pub fn in_memory(seed: u64) -> Self {
        Self { index: RowIndex::default(), seed, known: HashMap::new(), next_file: 0 }
    }

    /// An empty index that goes with the process.
    pub fn scratch(cache: &Arc<IndexCache>, seed: u64) -> Self {
        let index =
            RowIndex { disk: Some(Disk::new(cache, Arc::new(Folder::scratch(cache)), seed)), ..RowIndex::default() };
        Self { index, ..Self::in_memory(seed) }
    }

    /// What the cache has of a table, or an empty index that will be kept there; `seed` is for the latter.
    pub async fn from_cache(
        cache: &Arc<IndexCache>,
        url: &Url,
        table: &TableName,
        identity: &Identity,
        seed: u64,
    ) -> Self {
        let path = folder_of(cache, url, table);
        let folder = match Folder::lock(path.clone()).await {
            Ok(Some(folder)) => Arc::new(folder),
            Ok(None) => {
                let folder = path.display();
                tracing::warn!(%table, %folder, "another process uses the table's key index; this one makes its own");
                return Self::scratch(cache, seed);
            }
            Err(error) => {
                tracing::warn!(%table, %error, "the key index is not kept; the next start makes it anew");
                return Self::scratch(cache, seed);
            }
        };
        let (of, cache_of, sum) = (folder.clone(), cache.clone(), identity.sum());
        let read = tokio::task::spawn_blocking(move || read(&cache_of, &of, sum)).await;
        let found = match read.unwrap_or_else(|cause| Found::Unfit(cause.to_string())) {
            Found::Nothing => None,
            Found::Unfit(why) => {
                tracing::info!(%table, why, "the key index in the cache does not fit; it is made anew");
                None
            }
            Found::Fit(manifest, segments) => Some((manifest, segments)),
        };
        let named: Vec<String> = found.iter().flat_map(|(_, segments)| segments).filter_map(name_of).collect();
        folder.sweep(|name| named.iter().any(|named| named == name));
        let mut disk = Disk::new(cache, folder, seed);
        (disk.identity, disk.in_force) = (identity.sum(), true);
        let mut opened = Self::in_memory(seed);
        if let Some((manifest, segments)) = found {
            (disk.lineage, disk.seed) = (manifest.lineage, manifest.seed);
            opened.seed = manifest.seed;
            opened.next_file = manifest.next_file;
            opened.index.next_file = manifest.next_file;
            opened.index.covered = manifest.files.iter().map(|file| file.id).collect();
            let mut segments: Vec<Arc<Segment>> = segments.into_iter().map(Arc::new).collect();
            segments.sort_by_key(|segment| segment.entries());
            opened.index.segments = segments;
            let known = manifest.files.into_iter();
            opened.known =
                known.map(|file| (file.path, Known { id: file.id, rows: file.rows, deleted: file.deleted })).collect();
        }
        opened.index.disk = Some(disk);
        opened
    }
}

fn name_of(segment: &Segment) -> Option<String> {
    segment.name().map(str::to_owned)
}

enum Found {
    Nothing,
    /// And why.
    Unfit(String),
    Fit(Manifest, Vec<Segment>),
}

/// Looks into a folder. Blocks.
fn read(cache: &Arc<IndexCache>, folder: &Arc<Folder>, identity: u128) -> Found {
    let bytes = match folder.read_manifest() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Found::Nothing,
        Err(cause) => return Found::Unfit(format!("its manifest cannot be read: {cause}")),
    };
    let Some(manifest) = Manifest::of_bytes(&bytes) else {
        return Found::Unfit("its manifest is damaged or of another version".to_owned());
    };
    if manifest.identity != identity {
        return Found::Unfit("it is another table's, or the table's key was another".to_owned());
    }
    let mut segments = Vec::with_capacity(manifest.segments.len());
    for &id in &manifest.segments {
        let name = Segment::name_of(id);
        match Segment::open(cache, folder, &name, manifest.lineage, id) {
            Ok(Some(segment)) => segments.push(segment),
            Ok(None) => return Found::Unfit(format!("{name} is damaged or another index's")),
            Err(cause) => return Found::Unfit(format!("{name} cannot be read: {cause}")),
        }
    }
    Found::Fit(manifest, segments)
}

/// The folder of a table: a name for people, and one that is unique.
fn folder_of(cache: &IndexCache, url: &Url, table: &TableName) -> PathBuf {
    let plain = |byte: char| if byte.is_ascii_alphanumeric() || byte == '.' { byte } else { '_' };
    let told: String = table.to_string().chars().map(plain).take(64).collect();
    cache.folder().join(format!("{told}-{:032x}", XxHash3_128::oneshot(url.as_str().as_bytes())))
}

/// Removes what the cache has of a table that is gone.
pub(in crate::lake) fn forget(cache: &IndexCache, url: &Url, table: &TableName) {
    let folder = folder_of(cache, url, table);
    if let Err(cause) = Folder::remove(&folder) {
        tracing::debug!(folder = %folder.display(), %cause, "a key index that nobody needs is left behind");
    }
}

impl Disk {
    fn new(cache: &Arc<IndexCache>, folder: Arc<Folder>, seed: u64) -> Self {
        Self {
            cache: cache.clone(),
            folder,
            share: Share::new(cache),
            identity: 0,
            lineage: uuid::Uuid::new_v4().as_u128(),
            seed,
            in_force: false,
            stale: false,
            doomed: Vec::new(),
            unchecked: false,
        }
    }
}

impl RowIndex {
    /// An empty one beside this one, for the table's next shape; it is in force when [`RowIndex::belongs_to`] says so.
    pub(in crate::lake) fn successor(&self) -> Self {
        let disk = self.disk.as_ref().map(|disk| Disk::new(&disk.cache, disk.folder.clone(), disk.seed));
        Self { disk, ..Self::default() }
    }

    /// The table is as its successor has it: that one takes its place.
    pub(in crate::lake) fn give_way_to(&mut self, mut successor: Self) {
        let segments = std::mem::take(&mut self.segments);
        if let (Some(before), Some(disk)) = (&mut self.disk, &mut successor.disk) {
            disk.doomed.append(&mut before.doomed);
            disk.doomed.extend(segments);
        }
        *self = successor;
    }

    /// The table that was built out of sight has taken the place of another one, whose index goes.
    pub(in crate::lake) fn move_to(&mut self, url: &Url, table: &TableName, identity: &Identity) {
        if let Some(disk) = &self.disk {
            let to = folder_of(&disk.cache, url, table);
            if let Err(cause) = disk.folder.move_to(&to) {
                let folder = to.display();
                tracing::warn!(%table, %folder, %cause, "the key index stays elsewhere; the next start makes it anew");
            }
        }
        self.belongs_to(identity);
    }
}
