//! A table as of one version, row by row: for comparing it with what it is a copy of.
//!
//! A picture knows of every live row its key, its place and a print of its values, and moves on to the newest version
//! without reading again what it knows. Moving on it says which keys the commits in between touched ([`Since`]): a row
//! stays at its place in its file until a commit changes it, so whatever has the same place before and after was the same
//! at every version between the two.
//!
//! In a table without a key a row's key is all that it holds, and equal rows have the same; [`Picture::find`] is of no use then.
//!
//! Needs about 70 bytes of memory a row. Writes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use deltalake::kernel::{Action, Add};
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use url::Url;
use uuid::Uuid;

use super::key::KeyHasher;
use super::locator::{FileId, KeyHash, MemoryLocator, RowAddress};
use super::row_hash::hash_rows;
use super::store::unreachable;
use super::table::{LoadedTable, find, load, read_deleted};
use super::{Error, Lake, commit, data_file};
use crate::schema::{Column, Origin, RowIdentity, Shape, TableName, TableSchema};

/// Which commits may lie between two pictures; beyond that nothing is said of the rows.
const COMMITS_MAX: u64 = 20_000;

/// See the module text.
pub struct Picture {
    lake: Lake,
    source: String,
    url: Url,
    log_store: LogStoreRef,
    shape: Arc<Shape>,
    hasher: KeyHasher,
    version: u64,
    position: String,
    loading: bool,
    /// The load that was finished last.
    loaded: Option<Uuid>,
    files: BTreeMap<FileId, PictureFile>,
    /// By path in the log.
    ids: HashMap<String, FileId>,
    /// Files of the version before this one.
    retired: BTreeMap<FileId, PictureFile>,
    next_file: FileId,
    locator: MemoryLocator,
}

struct PictureFile {
    add: Add,
    deleted: RoaringTreemap,
    keys: Vec<KeyHash>,
    prints: Vec<u64>,
    /// Of a table without a key: what commits call each row's content.
    names: Vec<u64>,
}

/// A row as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPrint {
    pub key: KeyHash,
    pub print: u64,
}

/// What the commits since the version before did.
#[derive(Debug, Default)]
pub struct Since {
    /// Nothing can be said: the table's columns changed, or its log does not tell.
    pub unknown: bool,
    /// Keys that got a row, whether or not it is there still.
    came: HashSet<KeyHash>,
    /// Keys that came and went within one commit, by their names.
    vanished: HashSet<u64>,
    /// There are others whose names were not kept.
    vanished_unnamed: bool,
}

impl Since {
    /// Whether a key that had no row before may have had one since; `name` as [`Picture::names`] has it. In a table without a key:
    /// whether there may have been other numbers of these rows, though none has gone.
    pub fn may_have_come(&self, key: KeyHash, name: u64) -> bool {
        self.unknown || self.vanished_unnamed || self.came.contains(&key) || self.vanished.contains(&name)
    }
}

impl Picture {
    /// The newest version; `None` where the lake has no such table.
    pub async fn open(lake: &Lake, source: &str, name: &TableName) -> Result<Option<Self>, Error> {
        let url = lake.table_url(source, name);
        let Some((log_store, loaded)) = find(lake, source, name, &url).await? else { return Ok(None) };
        let shape = Arc::new(loaded.shape.clone());
        let arrow = |source| Error::Arrow { table: name.to_string(), source };
        let mut picture = Self {
            lake: lake.clone(),
            source: source.to_owned(),
            hasher: KeyHasher::new(&told_apart(&shape)).map_err(arrow)?,
            url,
            log_store,
            shape,
            version: 0,
            position: String::new(),
            loading: false,
            loaded: None,
            files: BTreeMap::new(),
            ids: HashMap::new(),
            retired: BTreeMap::new(),
            next_file: 0,
            locator: MemoryLocator::default(),
        };
        picture.take_in(loaded, &mut Since::default()).await?;
        Ok(Some(picture))
    }

    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    fn schema(&self) -> &TableSchema {
        &self.shape.lake
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// The log position of lakeward's last commit.
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Whether rows of it are still to be loaded.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    pub fn live_rows(&self) -> u64 {
        self.files.values().map(|file| file.keys.len() as u64 - file.deleted.len()).sum()
    }

    /// Rows that have every column of the lake, as they are compared. Columns that the source no longer has are left out.
    pub fn prints(&self, rows: &RecordBatch) -> Result<Vec<RowPrint>, Error> {
        let keys = self.hasher.hash_batch(rows).map_err(|source| self.arrow(source))?;
        let prints = hash_rows(&self.shape, rows).map_err(|source| self.arrow(source))?;
        Ok(keys.into_iter().zip(prints).map(|(key, print)| RowPrint { key, print }).collect())
    }

    /// What commits call the keys of these rows.
    pub fn names(&self, rows: &RecordBatch) -> Result<Vec<u64>, Error> {
        self.hasher.names(rows).map_err(|source| self.arrow(source))
    }

    /// Whether a column's values are the same, as prints have it.
    pub fn same_value(&self, column: usize, one: &ArrayRef, other: &ArrayRef) -> Result<bool, Error> {
        let schema = self.schema();
        let alone = TableSchema {
            name: schema.name.clone(),
            columns: vec![Column { nullable: true, ..schema.columns[column].clone() }],
            key: Vec::new(),
            partition_by: Vec::new(),
            identity: schema.identity,
        };
        let shape = Shape::of(Arc::new(alone));
        let print = |values: &ArrayRef| {
            let rows = RecordBatch::try_from_iter_with_nullable([("value", values.clone(), true)])?;
            hash_rows(&shape, &rows)
        };
        let compare = || Ok(print(one)? == print(other)?);
        compare().map_err(|source| self.arrow(source))
    }

    /// The row of a key in this version.
    pub fn find(&self, key: KeyHash) -> Option<RowAddress> {
        self.locator.find(key).filter(|address| self.is_live(*address))
    }

    /// Whether the row is part of this version.
    pub fn is_live(&self, address: RowAddress) -> bool {
        self.files.get(&address.file).is_some_and(|file| !file.deleted.contains(u64::from(address.row)))
    }

    /// A row of this version or the one before.
    pub fn row(&self, address: RowAddress) -> Option<RowPrint> {
        let file = self.files.get(&address.file).or_else(|| self.retired.get(&address.file))?;
        let row = address.row as usize;
        Some(RowPrint { key: *file.keys.get(row)?, print: *file.prints.get(row)? })
    }

    /// What commits call the content of a row of this version; of a table without a key.
    pub fn name(&self, address: RowAddress) -> Option<u64> {
        self.files.get(&address.file)?.names.get(address.row as usize).copied()
    }

    /// The files of this version, with how many rows each has, and those that are gone.
    pub fn files(&self) -> BTreeMap<FileId, (u32, RoaringTreemap)> {
        let rows = |file: &PictureFile| u32::try_from(file.keys.len()).unwrap_or(u32::MAX);
        self.files.iter().map(|(&id, file)| (id, (rows(file), file.deleted.clone()))).collect()
    }

    /// The path of a file in the log.
    pub fn path(&self, file: FileId) -> Option<&str> {
        self.files.get(&file).map(|file| file.add.path.as_str())
    }

    /// A live row with all its columns.
    pub async fn read(&self, address: RowAddress) -> Result<Option<RecordBatch>, Error> {
        let Some(file) = self.files.get(&address.file) else { return Ok(None) };
        let columns: Vec<usize> = (0..self.schema().columns.len()).collect();
        let store = self.log_store.object_store(None);
        let rows = [address.row];
        data_file::read_columns(&store, self.schema(), &file.add, &columns, Some(&rows)).await.map(Some)
    }

    /// Moves on to the newest version.
    pub async fn advance(&mut self) -> Result<Since, Error> {
        let name = self.shape.lake.name.clone();
        let loaded = load(&self.lake, &self.source, &name, &self.url, &self.log_store, None).await?;
        let Some(loaded) = loaded else {
            return Err(Error::Table {
                table: name.to_string(),
                finding: format!("the table at {} is gone", self.url),
                remedy: "verify it again when it is loaded".to_owned(),
            });
        };
        let mut since = Since::default();
        self.retired.clear();
        if loaded.shape != *self.shape {
            since.unknown = true;
            self.reshape(&loaded.shape)?;
        } else if loaded.note.loaded != self.loaded {
            // Swapped in: what came and went while it was built is in another log.
            since.unknown = true;
        } else if loaded.version < self.version || loaded.version - self.version > COMMITS_MAX {
            since.unknown = true;
        } else {
            self.follow(loaded.version, &mut since).await?;
        }
        self.take_in(loaded, &mut since).await?;
        Ok(since)
    }

    /// The table has other columns: nothing known of its rows is of use.
    fn reshape(&mut self, shape: &Shape) -> Result<(), Error> {
        self.hasher = self.hasher.of_shape(&told_apart(shape)).map_err(|source| self.arrow(source))?;
        self.shape = Arc::new(shape.clone());
        self.files.clear();
        self.ids.clear();
        self.locator.clear();
        Ok(())
    }

    /// Reads what the entries after this version, up to `newest`, say of keys.
    async fn follow(&self, newest: u64, since: &mut Since) -> Result<(), Error> {
        let mut read: HashSet<String> = HashSet::new();
        for version in self.version + 1..=newest {
            let entry = self.log_store.read_commit_entry(version).await;
            let Some(entry) = entry.map_err(|cause| unreachable(&self.url, &cause))? else {
                since.unknown = true;
                return Ok(());
            };
            let text = String::from_utf8_lossy(&entry);
            if let Some(vanished) = commit::note(&text).and_then(|note| note.vanished) {
                since.vanished_unnamed |= !vanished.is_named();
                since.vanished.extend(vanished.names());
            }
            for line in text.lines().filter(|line| line.starts_with("{\"add\"")) {
                let Ok(Action::Add(add)) = serde_json::from_str(line) else {
                    since.unknown = true;
                    continue;
                };
                // A compaction moves rows that other entries have told of.
                if !add.data_change || self.ids.contains_key(&add.path) || !read.insert(add.path.clone()) {
                    continue;
                }
                self.keys_of(&add, since).await?;
            }
        }
        Ok(())
    }

    /// Every key of a file, of rows that are gone as well.
    async fn keys_of(&self, add: &Add, since: &mut Since) -> Result<(), Error> {
        let store = self.log_store.object_store(None);
        let columns = self.hasher.columns().to_vec();
        let read = async {
            let mut stream = data_file::stream_columns(&store, self.schema(), add, &columns, None).await?;
            while let Some(batch) = stream.try_next().await? {
                since.came.extend(self.hasher.hash(batch.columns()).map_err(|source| self.arrow(source))?);
            }
            Ok(())
        };
        match read.await {
            // It came and went, and somebody has tidied up already.
            Err(Error::Table { .. }) => {
                since.unknown = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Makes this version the picture; files that it has already are not read again.
    async fn take_in(&mut self, loaded: LoadedTable, since: &mut Since) -> Result<(), Error> {
        self.version = loaded.version;
        self.loading = loaded.note.load.is_some();
        self.loaded = loaded.note.loaded;
        self.position = loaded.note.stretch.position;
        let mut known = std::mem::take(&mut self.files);
        let ids = std::mem::take(&mut self.ids);
        for add in loaded.adds {
            match ids.get(&add.path).and_then(|&id| Some((id, known.remove(&id)?))) {
                Some((id, mut file)) => {
                    if file.add.deletion_vector != add.deletion_vector {
                        let deleted = self.deleted(&add).await?;
                        // Rows come back when a table is restored: they were gone in between.
                        for row in &file.deleted - &deleted {
                            since.unknown = true;
                            let Some(&key) = file.keys.get(row as usize) else { continue };
                            self.locator.insert(key, RowAddress { file: id, row: row as u32 });
                        }
                        file.deleted = deleted;
                    }
                    file.add = add;
                    self.ids.insert(file.add.path.clone(), id);
                    self.files.insert(id, file);
                }
                None => self.index(add).await?,
            }
        }
        self.retired = known;
        Ok(())
    }

    async fn index(&mut self, add: Add) -> Result<(), Error> {
        let deleted = self.deleted(&add).await?;
        let id = self.next_file;
        self.next_file += 1;
        let store = self.log_store.object_store(None);
        let columns: Vec<usize> = (0..self.schema().columns.len()).collect();
        let (mut keys, mut prints, mut names) = (Vec::new(), Vec::new(), Vec::new());
        let shape = self.shape.clone();
        let mut stream = data_file::stream_columns(&store, &shape.lake, &add, &columns, None).await?;
        while let Some(batch) = stream.try_next().await? {
            if shape.lake.identity != RowIdentity::Key {
                names.extend(self.names(&batch)?);
            }
            for RowPrint { key, print } in self.prints(&batch)? {
                let row = keys.len() as u32;
                keys.push(key);
                prints.push(print);
                if !deleted.contains(u64::from(row)) {
                    self.locator.insert(key, RowAddress { file: id, row });
                }
            }
        }
        drop(stream);
        self.ids.insert(add.path.clone(), id);
        self.files.insert(id, PictureFile { add, deleted, keys, prints, names });
        Ok(())
    }

    async fn deleted(&self, add: &Add) -> Result<RoaringTreemap, Error> {
        read_deleted(&self.log_store, &self.url, &self.shape.lake.name, add).await
    }

    fn arrow(&self, source: ArrowError) -> Error {
        Error::Arrow { table: self.shape.lake.name.to_string(), source }
    }
}

/// The shape by which rows are told apart here: where there is no key, by all that they hold.
fn told_apart(shape: &Shape) -> Shape {
    let mut shape = shape.clone();
    if shape.lake.identity == RowIdentity::AppendOnly {
        let lake = TableSchema { identity: RowIdentity::WholeRow, ..(*shape.lake).clone() };
        shape.lake = Arc::new(lake);
    }
    shape
}

/// The columns that source and lake both have: what the source dropped and the lake keeps can't be compared.
pub fn compared(shape: &Shape) -> Vec<usize> {
    (0..shape.lake.columns.len()).filter(|&index| shape.origins[index] != Origin::Dropped).collect()
}
