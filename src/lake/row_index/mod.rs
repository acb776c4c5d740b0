//! Where a key's row lies: the index that turns "update this row" into a data file and a row number.
//!
//! Keys of rows that were written lately are in a map in memory, the *layer*. When layers have grown to their share of the
//! budget ([`IndexCache`]) one is written to disk as a *segment*: an immutable file of sorted entries (`segment.rs`).
//! Segments are merged in the background so that a lookup touches few of them (`merging.rs`).
//!
//! **An entry proves nothing by itself.** It counts only if its data file is live and its row is not deleted there, which the
//! table knows. So deleting a row costs nothing here, segments never change, and it does not matter in which order layers and
//! segments are asked: a key has one live row at most.
//!
//! **Nothing here is needed.** All of it can be made from the data files. A *manifest* in the table's folder of the cache says
//! which segments are in force and which data files they cover, so that the next start need not read those; whatever does
//! not fit, be it another table's, cut short or damaged, is noticed by checksums and made anew.
//! docs/decisions/013-row-locator.md says why it is done like this.

mod cache;
mod error;
mod filter;
mod manifest;
mod merging;
mod opening;
mod segment;
mod segment_writer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::data_file::DataFile;
use super::locator::{FileId, KeyHash, KeyMap, MemoryLocator, RowAddress};
pub use cache::{Counters, IndexCache};
use cache::{Folder, Share};
pub use error::IndexError;
use manifest::{CoveredFile, Manifest};
use merging::{Liveness, Merged};
pub(super) use opening::{Identity, Known, Opened, forget};
use segment::{Entry, Segment};

/// The live files of a table.
pub(super) type Files = BTreeMap<FileId, DataFile>;

/// Whether a row is part of the table.
pub(super) fn is_live(files: &Files, at: RowAddress) -> bool {
    files.get(&at.file).is_some_and(|file| !file.deleted.contains(u64::from(at.row)))
}

/// See the module text.
#[derive(Debug, Default)]
pub struct RowIndex {
    layer: MemoryLocator,
    /// Files whose rows are in the index, and those of the rows that are not on disk yet in the layer.
    layer_files: BTreeSet<FileId>,
    frozen: Option<Frozen>,
    segments: Vec<Arc<Segment>>,
    /// Files whose rows are in segments.
    covered: BTreeSet<FileId>,
    merging: Option<Merging>,
    /// Files of this number or a higher one have no entry, not even a dead one.
    next_file: FileId,
    disk: Option<Disk>,
    closed: bool,
}

/// What there is beside memory.
#[derive(Debug)]
struct Disk {
    cache: Arc<IndexCache>,
    folder: Arc<Folder>,
    share: Share,
    identity: u128,
    lineage: u128,
    seed: u64,
    /// Whether a manifest may be written: not of an index that is only being made for a table's next shape.
    in_force: bool,
    /// The manifest on disk is not how things are.
    stale: bool,
    /// Segments that are in no use any more; their files go when the manifest no longer names them.
    doomed: Vec<Arc<Segment>>,
    /// Segments that were written since it was opened may have keys of others.
    unchecked: bool,
}

/// A layer that is being written to disk.
#[derive(Debug)]
struct Frozen {
    layer: Arc<MemoryLocator>,
    bytes: u64,
    files: BTreeSet<FileId>,
    writing: JoinHandle<Result<Segment, IndexError>>,
}

#[derive(Debug)]
struct Merging {
    inputs: Vec<u128>,
    cancelled: Arc<AtomicBool>,
    work: JoinHandle<Result<Option<Merged>, IndexError>>,
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl RowIndex {
    /// One that has moved elsewhere: it answers nothing.
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// The live rows of these keys; those without one are not in the map.
    pub async fn locate(&self, keys: &[KeyHash], files: &Files) -> Result<KeyMap<RowAddress>, IndexError> {
        if self.closed {
            return Err(IndexError::Closed);
        }
        let mut found = KeyMap::default();
        let mut open = Vec::new();
        for &key in keys {
            let layers = [Some(&self.layer), self.frozen.as_ref().map(|frozen| frozen.layer.as_ref())];
            let at = layers.into_iter().flatten().filter_map(|layer| layer.find(key)).find(|at| is_live(files, *at));
            match at {
                Some(at) => drop(found.insert(key, at)),
                None if self.segments.is_empty() => {}
                None => open.push(key.order()),
            }
        }
        let Some(disk) = self.disk.as_ref() else { return Ok(found) };
        disk.cache.counters.lookups.fetch_add(keys.len() as u64, Ordering::Relaxed);
        if open.is_empty() {
            return Ok(found);
        }
        open.sort_unstable();
        open.dedup();
        disk.cache.counters.disk_lookups.fetch_add(open.len() as u64, Ordering::Relaxed);
        for Entry { key, at } in disk.find(&self.segments, open).await? {
            if is_live(files, at) {
                found.insert(KeyHash::from(key), at);
            }
        }
        Ok(found)
    }

    /// A live row of a file. A key that was known moves here; returns where it was, if that is in memory.
    pub fn insert(&mut self, key: KeyHash, at: RowAddress) -> Option<RowAddress> {
        self.next_file = self.next_file.max(at.file.saturating_add(1));
        self.layer.insert(key, at)
    }

    /// Every live row of the file has been inserted.
    pub fn has_all_of(&mut self, file: FileId) {
        self.layer_files.insert(file);
    }

    /// These keys have no row any more. Need not be told; it spares memory.
    pub fn remove(&mut self, keys: &[KeyHash]) {
        self.layer.remove(keys);
    }

    /// The same for rows that `keep` does not hold for.
    pub fn retain(&mut self, keep: impl Fn(RowAddress) -> bool) {
        self.layer.retain(keep);
    }

    /// Every row is gone.
    pub fn clear(&mut self) {
        self.layer.clear();
        self.layer_files.clear();
        self.frozen = None;
        self.merging = None;
        self.covered.clear();
        let segments = std::mem::take(&mut self.segments);
        if let Some(disk) = &mut self.disk {
            disk.doomed.extend(segments);
            disk.stale = true;
        }
    }

    /// Starts and takes up work in the background; to be called when rows were inserted and `files` are the table's. Waits
    /// where memory would not be bounded otherwise.
    pub async fn tend(&mut self, files: &Files) -> Result<(), IndexError> {
        self.take_up(false).await?;
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let bytes = self.layer.bytes();
        disk.share.set(bytes + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes));
        if disk.share.is_due(bytes) {
            self.take_up_frozen(true).await?;
            self.freeze();
        }
        self.start_merge(files);
        self.write_manifest(files).await;
        self.load_filters();
        Ok(())
    }

    /// Takes up what work in the background has come to; with `wait`, all of it.
    async fn take_up(&mut self, wait: bool) -> Result<(), IndexError> {
        self.take_up_frozen(wait).await?;
        if let Some(mut merging) = self.merging.take_if(|merging| wait || merging.work.is_finished()) {
            let merged = (&mut merging.work).await.unwrap_or_else(|cause| Err(lost(&cause)));
            let merged = match &self.disk {
                Some(disk) => disk.checked(merged)?,
                None => merged?,
            };
            if let Some(merged) = merged {
                self.replace(&merging.inputs, merged.segment);
            }
        }
        Ok(())
    }

    async fn take_up_frozen(&mut self, wait: bool) -> Result<(), IndexError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let Some(frozen) = self.frozen.as_mut().filter(|frozen| wait || frozen.writing.is_finished()) else {
            return Ok(());
        };
        let written = (&mut frozen.writing).await.unwrap_or_else(|cause| Err(lost(&cause)));
        let Some(frozen) = self.frozen.take() else { return Ok(()) };
        match written {
            Ok(segment) => {
                self.covered.extend(frozen.files);
                disk.stale = true;
                self.segments.push(Arc::new(segment));
                disk.unchecked |= self.segments.len() > 1;
            }
            Err(cause) => {
                // The map must not be lost, or the index would lack these rows: nobody may ask it any more.
                self.closed = true;
                return Err(cause);
            }
        }
        disk.share.set(self.layer.bytes());
        Ok(())
    }

    /// Begins to write the layer to disk.
    fn freeze(&mut self) {
        let Some(disk) = &self.disk else { return };
        let bytes = self.layer.bytes();
        let layer = Arc::new(std::mem::take(&mut self.layer));
        let files = std::mem::take(&mut self.layer_files);
        let (cache, folder, lineage, of) = (disk.cache.clone(), disk.folder.clone(), disk.lineage, layer.clone());
        let writing = tokio::task::spawn_blocking(move || segment_writer::write_layer(&cache, &folder, lineage, &of));
        self.frozen = Some(Frozen { layer, bytes, files, writing });
    }

    fn start_merge(&mut self, files: &Files) {
        let Some(disk) = self.disk.as_ref().filter(|_| self.merging.is_none()) else { return };
        let live_rows = files.values().map(DataFile::live_rows).sum();
        let chosen = merging::choose(&self.segments, live_rows);
        if chosen.is_empty() {
            return;
        }
        let inputs = chosen.iter().map(|segment| segment.id()).collect();
        let (cache, folder, lineage) = (disk.cache.clone(), disk.folder.clone(), disk.lineage);
        let (liveness, cancelled) = (Liveness::of(files), Arc::new(AtomicBool::new(false)));
        let stop = cancelled.clone();
        let work =
            tokio::task::spawn_blocking(move || merging::merge(&cache, &folder, lineage, &chosen, &liveness, &stop));
        self.merging = Some(Merging { inputs, cancelled, work });
    }

    /// Puts what a merge made in the place of its inputs.
    fn replace(&mut self, inputs: &[u128], merged: Option<Segment>) {
        let Some(disk) = &mut self.disk else { return };
        let (gone, mut left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.segments).into_iter().partition(|segment| inputs.contains(&segment.id()));
        disk.doomed.extend(gone);
        if let Some(segment) = merged {
            left.push(Arc::new(segment));
            // The small ones first: each filter spares as many reads as a large one.
            left.sort_by_key(|segment| segment.entries());
        }
        self.segments = left;
        disk.stale = true;
    }

    /// After an index was built or opened: how many live rows have the key of another one, as far as they are not in the layer
    /// together. What was written meanwhile becomes one segment.
    pub async fn count_twice(&mut self, files: &Files) -> Result<u64, IndexError> {
        self.take_up_frozen(true).await?;
        self.merging = None;
        let Some(disk) = self.disk.as_ref().filter(|_| !self.segments.is_empty()) else { return Ok(0) };
        let mut twice = 0;
        if disk.unchecked {
            let (cache, folder, lineage) = (disk.cache.clone(), disk.folder.clone(), disk.lineage);
            let (segments, liveness) = (self.segments.clone(), Liveness::of(files));
            let merge = move || merging::merge(&cache, &folder, lineage, &segments, &liveness, &AtomicBool::new(false));
            let inputs: Vec<u128> = self.segments.iter().map(|segment| segment.id()).collect();
            if let Some(merged) = disk.checked(blocking(merge).await)? {
                twice += merged.twice;
                self.replace(&inputs, merged.segment);
            }
        }
        let Some(disk) = &self.disk else { return Ok(twice) };
        let layer: Vec<u128> = self.layer.shards().flatten().map(|(key, _)| key.order()).collect();
        for keys in layer.chunks(KEYS_AT_ONCE) {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            let live = |entry: &Entry| {
                let in_layer = self.layer.find(KeyHash::from(entry.key));
                is_live(files, entry.at) && in_layer.is_some_and(|at| at != entry.at && is_live(files, at))
            };
            let entries = disk.find(&self.segments, keys).await?;
            twice += entries.iter().filter(|entry| live(entry)).count() as u64;
        }
        self.write_manifest(files).await;
        self.load_filters();
        Ok(twice)
    }

    /// The table is what these describe now: after a change of its columns, or a swap.
    pub(super) fn belongs_to(&mut self, identity: &Identity) {
        if let Some(disk) = &mut self.disk {
            disk.identity = identity.sum();
            disk.stale = true;
            disk.in_force = true;
        }
    }

    /// Writes down what the next start can use. Failing to costs it time only.
    pub async fn finish(&mut self, files: &Files) {
        if !self.disk.as_ref().is_some_and(|disk| disk.folder.keeps()) || self.closed {
            return;
        }
        self.merging = None;
        let mut done = self.take_up_frozen(true).await;
        if done.is_ok() && !self.layer_files.is_empty() {
            self.freeze();
            done = self.take_up_frozen(true).await;
        }
        match done {
            Ok(()) => self.write_manifest(files).await,
            Err(error) => tracing::warn!(%error, "the key index is not kept; the next start makes it anew"),
        }
    }

    /// Failing to write it costs the next start time only.
    async fn write_manifest(&mut self, files: &Files) {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.stale && disk.in_force && disk.folder.keeps()) else {
            return;
        };
        disk.stale = false;
        self.covered.retain(|id| files.contains_key(id));
        let covered = |id: &FileId| {
            let file = files.get(id)?;
            let (path, deleted) = (file.add.path.clone(), file.deleted.clone());
            Some(CoveredFile { id: *id, path, rows: file.rows, deleted })
        };
        let manifest = Manifest {
            identity: disk.identity,
            lineage: disk.lineage,
            seed: disk.seed,
            next_file: self.next_file,
            segments: self.segments.iter().map(|segment| segment.id()).collect(),
            files: self.covered.iter().filter_map(covered).collect(),
        };
        self.segments.iter().for_each(|segment| segment.keep());
        let folder = disk.folder.clone();
        let written = blocking(move || {
            let bytes = manifest.to_bytes().map_err(|cause| folder.io(cause))?;
            folder.write_manifest(&bytes).map_err(|cause| folder.io(cause))
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "what the key index has is not written down; the next start makes it anew");
        }
        // Where the old manifest is still there, it names a file that is not: that is noticed.
        disk.doomed.drain(..).for_each(|segment| segment.doom());
    }

    /// Begins to read filters for which there is room. Without one it only costs more to ask.
    fn load_filters(&self) {
        let Some(disk) = &self.disk else { return };
        for segment in self.segments.iter().filter(|segment| segment.wants_filter(&disk.cache)) {
            let (segment, cache) = (segment.clone(), disk.cache.clone());
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = segment.load_filter(&cache) {
                    tracing::warn!(%error, "a filter of the key index is not used");
                }
            }));
        }
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// On disk.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }
}

/// Keys that are looked up at once by whoever looks up very many.
const KEYS_AT_ONCE: usize = 1 << 18;

impl Disk {
    /// What segments have of these keys, which are ascending, dead or alive.
    async fn find(&self, segments: &[Arc<Segment>], keys: Vec<u128>) -> Result<Vec<Entry>, IndexError> {
        let (segments, cache) = (segments.to_vec(), self.cache.clone());
        let read = blocking(move || {
            let mut entries = Vec::new();
            for segment in &segments {
                segment.find(&keys, &cache.counters, &mut entries)?;
            }
            Ok(entries)
        });
        self.checked(read.await)
    }

    /// Damage that was found is not to be found again by the next opening.
    fn checked<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Damaged { .. }) = &result {
            self.folder.condemn();
        }
        result
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
) -> Result<T, IndexError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|cause| Err(lost(&cause)))
}

fn lost(cause: &tokio::task::JoinError) -> IndexError {
    IndexError::Lost { cause: cause.to_string() }
}
