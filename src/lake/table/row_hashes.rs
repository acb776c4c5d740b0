//! The rows of a table as hashes, for whoever compares it with its source.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::super::Error;
use super::super::data_file::{self, DataFile};
use super::super::key::KeyHasher;
use super::super::locator::{FileId, KeyHash, RowAddress};
use super::super::row_hash::hash_rows;
use super::Table;
use crate::schema::Shape;

/// The files of a table as of one version, to be read one after the other. Belongs to nobody and may run in another task
/// while the table goes on; its files stay readable at least until a VACUUM.
pub struct RowHashes {
    shape: Arc<Shape>,
    log_store: LogStoreRef,
    version: u64,
    files: BTreeMap<FileId, DataFile>,
    /// Files before this one are read.
    next: FileId,
}

/// The rows of one file.
pub struct FileHashes {
    pub file: FileId,
    /// By physical row number, deleted rows too.
    pub hashes: Vec<u64>,
    /// Rows that are no longer part of the table.
    pub deleted: RoaringTreemap,
}

impl RowHashes {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The next file's rows; `None` when all are read. Eight bytes a row of one file are in memory, and a few thousand rows.
    pub async fn next(&mut self) -> Result<Option<FileHashes>, Error> {
        let Some((&id, file)) = self.files.range(self.next..).next() else { return Ok(None) };
        let schema = &self.shape.lake;
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        let store = self.log_store.object_store(None);
        let mut hashes = Vec::with_capacity(usize::try_from(file.rows).unwrap_or(0));
        let mut rows = data_file::stream_columns(&store, schema, &file.add, &columns, None).await?;
        while let Some(rows) = rows.try_next().await? {
            let hashed = hash_rows(&self.shape, &rows);
            hashes.extend(hashed.map_err(|source| Error::Arrow { table: schema.name.to_string(), source })?);
        }
        let found = FileHashes { file: id, hashes, deleted: file.deleted.clone() };
        self.next = id.saturating_add(1);
        Ok(Some(found))
    }

    /// Rows of a file, by their physical numbers (ascending), with all columns.
    pub async fn rows(&self, file: FileId, rows: &[u32]) -> Result<RecordBatch, Error> {
        let schema = &self.shape.lake;
        let Some(file) = self.files.get(&file) else { return Ok(RecordBatch::new_empty(schema.arrow())) };
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        let store = self.log_store.object_store(None);
        data_file::read_columns(&store, schema, &file.add, &columns, Some(rows)).await
    }
}

impl Table {
    /// See [`RowHashes`].
    pub fn row_hashes(&self) -> RowHashes {
        RowHashes {
            shape: self.shape.clone(),
            log_store: self.log_store.clone(),
            version: self.version,
            files: self.files.clone(),
            next: 0,
        }
    }

    /// What turns rows in the lake's columns into keys of this table, as it is open now.
    pub fn hasher(&self) -> Arc<KeyHasher> {
        self.hasher.clone()
    }

    /// Where the live rows of keys are; `None` where the table has no such key.
    pub fn find(&self, keys: &[KeyHash]) -> Vec<Option<RowAddress>> {
        keys.iter().map(|&key| self.locator.find(key)).collect()
    }

    /// The object of a file, in the table's folder.
    pub fn file_path(&self, file: FileId) -> Option<&str> {
        self.files.get(&file).map(|file| file.add.path.as_str())
    }
}
