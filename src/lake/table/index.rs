//! The key index of an open table, filled from the cache and from what lies in the lake.

use std::collections::{HashMap, HashSet};

use deltalake::kernel::Add;
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use serde_json::Value;
use url::Url;

use super::super::data_file::{self, DataFile};
use super::super::key::KeyHasher;
use super::super::locator::{FileId, KeyHash, KeyMap, RowAddress};
use super::super::row_index::{Files, Identity, IndexError, Known, Opened, RowIndex, is_live};
use super::super::store::{Lake, cause_text};
use super::super::{Error, deletion_vector};
use super::{Table, View};
use crate::schema::{RowIdentity, Shape, TableName, TableSchema};

/// Files that the index has already, by path.
pub(super) type KnownFiles = HashMap<String, Known>;

/// What a table is opened for.
pub(super) enum Opening<'a> {
    First,
    /// Since another engine wrote to it; keys keep their hashes, and what the index has stays.
    Again(&'a mut Table),
    /// Nobody will ask where its rows are.
    Bare,
}

/// The index that an opening begins with.
pub(super) async fn open_index(
    opening: Opening<'_>,
    lake: &Lake,
    url: &Url,
    shape: &Shape,
    metadata: &Value,
) -> Opened {
    let seed = KeyHasher::random_seed();
    match (opening, lake.index(), shape.lake.identity) {
        (Opening::Again(before), ..) => before.hand_over(shape),
        (Opening::First, Some(cache), RowIdentity::Key) => {
            Opened::from_cache(cache, url, &shape.lake.name, &Identity::of(url, metadata, shape), seed).await
        }
        // Equal rows are told apart by a number without a gap, which holds only as long as nobody else writes.
        (Opening::First, Some(cache), RowIdentity::WholeRow) => Opened::scratch(cache, seed),
        (Opening::First | Opening::Bare, ..) => Opened::in_memory(seed),
    }
}

/// Tells `index` the live rows of a file of `files`; returns how many rows it has, deleted ones counted, and how many
/// of them have the key of another row, as far as that is known in memory.
pub(super) async fn index_rows(
    log_store: &LogStoreRef,
    schema: &TableSchema,
    hasher: &KeyHasher,
    index: &mut RowIndex,
    files: &Files,
    id: FileId,
) -> Result<(u64, u64), Error> {
    let Some(DataFile { add, deleted, .. }) = files.get(&id) else { return Ok((0, 0)) };
    let failed = |source| Error::Index { table: schema.name.to_string(), source };
    let store = log_store.object_store(None);
    if hasher.columns().is_empty() {
        return Ok((data_file::count_rows(&store, schema, add).await?, 0));
    }
    let (mut rows, mut twice) = (0, 0);
    let columns = hasher.columns().to_vec();
    let mut stream = data_file::stream_columns(&store, schema, add, &columns, None).await?;
    while let Some(batch) = stream.try_next().await? {
        let keys =
            hasher.hash(batch.columns()).map_err(|source| Error::Arrow { table: schema.name.to_string(), source })?;
        let live: Vec<(KeyHash, u64)> =
            keys.iter().copied().zip(rows..).filter(|(_, row)| !deleted.contains(*row)).collect();
        rows += keys.len() as u64;
        // Equal rows of a table without a key are told apart by their number.
        let mut numbers = match schema.identity {
            RowIdentity::WholeRow => {
                let unlike: HashSet<KeyHash> = live.iter().map(|(key, _)| *key).collect();
                hasher.occurrences(unlike, index, files).await.map_err(failed)?
            }
            RowIdentity::Key | RowIdentity::AppendOnly => KeyMap::default(),
        };
        for (key, row) in live {
            let key = match numbers.get_mut(&key) {
                None => key,
                Some(number) => {
                    *number += 1;
                    hasher.occurrence(key, *number - 1)
                }
            };
            let before = index.insert(key, RowAddress { file: id, row: row as u32 });
            twice += u64::from(before.is_some_and(|before| is_live(files, before)));
        }
        index.tend(files).await.map_err(failed)?;
    }
    index.has_all_of(id);
    Ok((rows, twice))
}

/// That every row has a key of its own; `twice` rows have that of another one.
pub(super) fn check_keys(schema: &TableSchema, rows: u64, twice: u64) -> Result<(), Error> {
    if twice == 0 || schema.identity == RowIdentity::AppendOnly {
        return Ok(());
    }
    let keys = rows.saturating_sub(twice);
    Err(Error::Table {
        table: schema.name.to_string(),
        finding: format!("{rows} rows but {keys} keys: rows share a key"),
        remedy: "correct `key` in its contract, then load it again with `lakeward resync`".to_owned(),
    })
}

impl View<'_> {
    /// The live rows of these keys; those without one are not in the map.
    pub(super) async fn locate(&self, keys: &[KeyHash]) -> Result<KeyMap<RowAddress>, Error> {
        self.locator.locate(keys, self.files).await.map_err(|source| self.index_error(source))
    }

    /// Where all live rows of these contents lie, by their keys; of a table without a key.
    pub(super) async fn equal_rows(&self, mut contents: Vec<KeyHash>) -> Result<KeyMap<RowAddress>, Error> {
        contents.sort_unstable();
        contents.dedup();
        let held = self.hasher.occurrences(contents.iter().copied(), self.locator, self.files).await;
        let held = held.map_err(|source| self.index_error(source))?;
        let equal = |content: KeyHash| {
            let count = held.get(&content).copied().unwrap_or(0);
            (0..count).map(move |number| self.hasher.occurrence(content, number))
        };
        let known: Vec<KeyHash> = contents.into_iter().flat_map(equal).collect();
        self.locate(&known).await
    }

    pub(super) fn index_error(&self, source: IndexError) -> Error {
        Error::Index { table: self.schema.name.to_string(), source }
    }
}

impl Table {
    /// Files of the log become the table's: those that the index does not have are read.
    pub(super) async fn take_up(&mut self, adds: Vec<Add>, mut known: KnownFiles) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for add in adds {
            let deleted = self.deleted(&add).await?;
            match known.remove(&add.path) {
                Some(Known { id, rows, deleted: before }) if before.is_subset(&deleted) => {
                    self.files.insert(id, DataFile { add, rows, deleted });
                }
                _ => unknown.push((add, deleted)),
            }
        }
        let mut twice = 0;
        let (kept, read) = (self.files.len(), unknown.len());
        for (add, deleted) in unknown {
            twice += self.index_new(add, deleted).await?;
        }
        twice += self.locator.count_twice(&self.files).await.map_err(|source| self.index_error(source))?;
        tracing::debug!(table = %self.name(), kept, read, "files whose keys were known, and those that were read");
        check_keys(self.schema(), self.live_rows(), twice)
    }

    /// Adds a file of the log to the state: its deletion vector and the keys of its live rows.
    pub(super) async fn index_file(&mut self, add: Add) -> Result<(), Error> {
        let deleted = self.deleted(&add).await?;
        self.index_new(add, deleted).await.map(drop)
    }

    /// Returns how many of its rows have the key of another one.
    async fn index_new(&mut self, add: Add, deleted: RoaringTreemap) -> Result<u64, Error> {
        let id = self.take_file_id();
        self.files.insert(id, DataFile { add, rows: 0, deleted });
        let (schema, hasher) = (&self.shape.lake, &self.hasher);
        let indexed = index_rows(&self.log_store, schema, hasher, &mut self.locator, &self.files, id).await;
        if indexed.is_err() {
            self.files.remove(&id);
        }
        let (rows, twice) = indexed?;
        if let Some(file) = self.files.get_mut(&id) {
            file.rows = rows;
        }
        Ok(twice)
    }

    async fn deleted(&self, add: &Add) -> Result<RoaringTreemap, Error> {
        read_deleted(&self.log_store, &self.url, self.name(), add).await
    }

    /// Background work of the index, after rows were added.
    pub(super) async fn tend_index(&mut self) -> Result<(), Error> {
        let tended = self.locator.tend(&self.files).await;
        tended.map_err(|source| self.index_error(source))
    }

    pub(super) fn index_error(&self, source: IndexError) -> Error {
        Error::Index { table: self.name().to_string(), source }
    }

    /// What makes the index in the cache this table's.
    pub(super) fn index_identity(&self) -> Identity {
        Identity::of(&self.url, &self.metadata, &self.shape)
    }

    /// What the index has, for another opening of the same table. This one can't ask it any more.
    fn hand_over(&mut self, shape: &Shape) -> Opened {
        let seed = self.hasher.seed();
        if *shape != *self.shape || shape.lake.identity != RowIdentity::Key {
            return Opened { index: self.locator.successor(), ..Opened::in_memory(seed) };
        }
        let known = self
            .files
            .iter()
            .map(|(&id, file)| (file.add.path.clone(), Known { id, rows: file.rows, deleted: file.deleted.clone() }));
        Opened {
            known: known.collect(),
            seed,
            next_file: self.next_file,
            index: std::mem::replace(&mut self.locator, RowIndex::closed()),
        }
    }
}

/// Which rows of a file are gone.
pub(in crate::lake) async fn read_deleted(
    log_store: &LogStoreRef,
    url: &Url,
    name: &TableName,
    add: &Add,
) -> Result<RoaringTreemap, Error> {
    let Some(descriptor) = add.deletion_vector.clone() else { return Ok(RoaringTreemap::new()) };
    let (store, folder) = (log_store.clone(), url.clone());
    let read = tokio::task::spawn_blocking(move || deletion_vector::read(&store, &folder, descriptor)).await;
    let cause = match read {
        Ok(Ok(deleted)) => return Ok(deleted),
        Ok(Err(delta_kernel::Error::FileNotFound(object))) => {
            return Err(Error::Table {
                table: name.to_string(),
                finding: format!("its deletion vectors {object} are gone; did a foreign VACUUM remove them?"),
                remedy: "load it again with `lakeward resync`".to_owned(),
            });
        }
        Ok(Err(cause)) => cause_text(&cause),
        Err(cause) => cause.to_string(),
    };
    Err(Error::Unreachable { url: url.to_string(), cause: format!("reading a deletion vector: {cause}") })
}
