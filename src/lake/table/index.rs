//! The key index of an open table, filled from what lies in the lake.

use deltalake::kernel::{Add, DeletionVectorDescriptor};
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use url::Url;

use super::super::data_file::{self, DataFile};
use super::super::key::KeyHasher;
use super::super::locator::{FileId, KeyHash, RowAddress, RowLocator};
use super::super::store::cause_text;
use super::super::{Error, deletion_vector};
use super::Table;
use crate::schema::{RowIdentity, TableName, TableSchema};

/// Tells `locator` the live rows of a file; returns how many rows it has, deleted ones counted.
pub(super) async fn index_rows(
    log_store: &LogStoreRef,
    schema: &TableSchema,
    hasher: &KeyHasher,
    locator: &mut dyn RowLocator,
    id: FileId,
    add: &Add,
    deleted: &RoaringTreemap,
) -> Result<u64, Error> {
    let store = log_store.object_store(None);
    if hasher.columns().is_empty() {
        return data_file::count_rows(&store, schema, add).await;
    }
    let mut rows = 0;
    let columns = hasher.columns().to_vec();
    let mut stream = data_file::stream_columns(&store, schema, add, &columns, None).await?;
    while let Some(batch) = stream.try_next().await? {
        let keys =
            hasher.hash(batch.columns()).map_err(|source| Error::Arrow { table: schema.name.to_string(), source })?;
        for key in keys {
            if !deleted.contains(rows) {
                index_row(schema, hasher, locator, key, RowAddress { file: id, row: rows as u32 });
            }
            rows += 1;
        }
    }
    Ok(rows)
}

/// Equal rows of a table without a key are told apart by their number.
fn index_row(
    schema: &TableSchema,
    hasher: &KeyHasher,
    locator: &mut dyn RowLocator,
    key: KeyHash,
    address: RowAddress,
) {
    let key = match schema.identity {
        RowIdentity::WholeRow => hasher.occurrence(key, hasher.occurrences(key, locator)),
        RowIdentity::Key | RowIdentity::AppendOnly => key,
    };
    locator.insert(key, address);
}

/// That every row has a key of its own.
pub(super) fn check_keys(schema: &TableSchema, rows: u64, locator: &dyn RowLocator) -> Result<(), Error> {
    let keys = locator.len() as u64;
    if rows == keys || schema.identity == RowIdentity::AppendOnly {
        return Ok(());
    }
    Err(Error::Table {
        table: schema.name.to_string(),
        finding: format!("{rows} rows but {keys} keys: rows share a key"),
        remedy: "correct `key` in its contract, then load it again with `lakeward resync`".to_owned(),
    })
}

impl Table {
    /// Adds a file of the log to the state: its deletion vector and the keys of its live rows.
    pub(super) async fn index_file(&mut self, add: Add) -> Result<(), Error> {
        let deleted = match add.deletion_vector.clone() {
            Some(descriptor) => {
                read_deletion_vector(&self.log_store, &self.url, &self.shape.lake.name, descriptor).await?
            }
            None => RoaringTreemap::new(),
        };
        let id = self.take_file_id();
        let schema = &self.shape.lake;
        let locator = self.locator.as_mut();
        let rows = index_rows(&self.log_store, schema, &self.hasher, locator, id, &add, &deleted).await?;
        self.files.insert(id, DataFile { add, rows, deleted });
        Ok(())
    }
}

/// Which rows of a file are gone.
pub(in crate::lake) async fn read_deletion_vector(
    log_store: &LogStoreRef,
    url: &Url,
    name: &TableName,
    descriptor: DeletionVectorDescriptor,
) -> Result<RoaringTreemap, Error> {
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
