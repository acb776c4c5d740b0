//! A table's way to another shape: its files first, and in memory beside the old ones until the commit has landed.
//!
//! Every live file gets its new columns by a splice, which leaves rows at their places, so that deletion vectors and the
//! index stay valid. The index is built anew only where rows hash otherwise: when a key column grows to a type of another
//! kind, and, in a table whose rows are told apart by all their columns, with nearly every change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltalake::logstore::LogStoreRef;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;

use super::super::changes::TableChange;
use super::super::data_file;
use super::super::key::KeyHasher;
use super::super::locator::FileId;
use super::super::row_index::{Files, RowIndex};
use super::super::splice::{SplicedFile, Splicer, splice_file};
use super::super::store::cause_text;
use super::super::{Error, delta_schema, upgrade};
use super::Table;
use super::apply::hidden_columns;
use super::index::{check_keys, index_rows};
use super::pending::Pending;
use crate::schema::{Evolution, LakeOp, Shape};

/// Files spliced at the same time.
const PARALLEL: usize = 4;

/// What came of a file's splice.
type Outcome = (FileId, Result<SplicedFile, Error>);

/// The table as it will be, before the rows of the batch.
pub(super) struct Evolved {
    pub shape: Arc<Shape>,
    /// The `metaData` action that says so; `None` when the one in force does.
    pub metadata: Option<Value>,
    pub hasher: Arc<KeyHasher>,
    pub files: Files,
    /// `None` where the present one stays valid.
    pub locator: Option<RowIndex>,
    /// Paths of the new objects.
    pub made: Vec<String>,
    /// Of a table that is loading.
    pub pending: Option<Pending>,
}

impl Table {
    /// Makes what the evolutions among `changes` need; `None` when there are none. On an error nothing of it is left.
    pub(super) async fn evolve(&self, changes: &[TableChange]) -> Result<Option<Evolved>, Error> {
        let evolutions = TableChange::evolutions(changes);
        let Some(last) = evolutions.clone().next_back() else { return Ok(None) };
        let ops: Vec<LakeOp> = evolutions.flat_map(|evolution| evolution.ops.iter().cloned()).collect();
        let (shape, metadata) = self.described(last)?;
        let hasher = self.hasher.of_shape(&shape).map_err(|source| self.arrow(source))?;
        let moved = upgrade::moved(self.schema(), &ops, &shape.lake).map_err(|source| self.arrow(source))?;
        // Rows that a truncate takes need not be carried anywhere.
        let truncated = changes.iter().any(|change| matches!(change, TableChange::Truncate));
        let shape = Arc::new(shape);
        let pending = match &self.loading {
            Some(loading) if truncated => Some(loading.pending.clone()),
            Some(loading) => {
                let upgraded = loading.pending.upgraded(&shape.lake, &ops, &hasher);
                Some(upgraded.map_err(|source| self.arrow(source))?)
            }
            None => None,
        };
        let mut evolved = Evolved {
            metadata: (metadata != self.metadata).then_some(metadata),
            locator: None,
            files: self.files.clone(),
            made: Vec::new(),
            shape,
            hasher: Arc::new(hasher),
            pending,
        };
        let made = async {
            if !truncated && !ops.is_empty() {
                self.splice_files(&ops, &mut evolved).await?;
            }
            if !self.hasher.agrees(&evolved.hasher, &moved) {
                evolved.locator = Some(self.index_anew(&evolved, truncated).await?);
            }
            Ok(())
        };
        match made.await {
            Ok(()) => Ok(Some(evolved)),
            Err(error) => {
                self.discard(&evolved.made).await;
                Err(error)
            }
        }
    }

    /// The commit has landed.
    pub(super) fn take_over(&mut self, evolved: Evolved) {
        self.shape = evolved.shape;
        if let Some(metadata) = evolved.metadata {
            self.metadata = metadata;
        }
        self.hasher = evolved.hasher;
        self.files = evolved.files;
        if let Some(loading) = &mut self.loading {
            loading.pending = evolved.pending.unwrap_or_default();
            // Tombstones of keys that hash otherwise now say nothing any more.
            if evolved.locator.is_some() {
                loading.void();
            }
        }
        if let Some(locator) = evolved.locator {
            self.locator.give_way_to(locator);
        }
        let identity = self.index_identity();
        self.locator.belongs_to(&identity);
    }

    /// The shape as the log will hold it, so that memory has what a restart would read, and the log's action.
    fn described(&self, evolution: &Evolution) -> Result<(Shape, Value), Error> {
        let defect = |finding: String| Error::Table {
            table: self.name().to_string(),
            finding: format!("its new shape cannot be written down: {finding}"),
            remedy: "report this as a defect of lakeward".to_owned(),
        };
        let mut metadata = self.metadata.clone();
        delta_schema::encode(&evolution.shape, &mut metadata).map_err(|cause| defect(cause.to_string()))?;
        let shape = delta_schema::decode(self.name(), &metadata).map_err(defect)?;
        Ok((shape, metadata))
    }

    async fn splice_files(&self, ops: &[LakeOp], evolved: &mut Evolved) -> Result<(), Error> {
        let splicer = Splicer::new(&self.lake, &self.url)?;
        let (before, after) = (self.schema(), evolved.shape.lake.clone());
        // Splices under way are finished even when another has failed, so that it is known which objects there are.
        let failed = AtomicBool::new(false);
        let mut splices: Vec<BoxFuture<'_, Option<Outcome>>> = Vec::new();
        for (&id, file) in &self.files {
            let (splicer, after, failed) = (&splicer, &after, &failed);
            splices.push(Box::pin(async move {
                if failed.load(Ordering::Relaxed) {
                    return None;
                }
                let spliced = splice_file(splicer, &file.add, before, after, ops).await;
                failed.fetch_or(spliced.is_err(), Ordering::Relaxed);
                Some((id, spliced))
            }));
        }
        let spliced: Vec<_> = stream::iter(splices).buffer_unordered(PARALLEL).collect().await;
        let mut outcome = Ok(());
        let (mut objects, mut sent, mut received) = (0_u64, 0, 0);
        for (id, spliced) in spliced.into_iter().flatten() {
            let spliced = match spliced {
                Ok(spliced) => spliced,
                Err(error) => {
                    outcome = outcome.and(Err(error));
                    continue;
                }
            };
            let Some(file) = evolved.files.get_mut(&id) else { continue };
            tracing::trace!(table = %before.name, file = file.add.path, how = ?spliced.how, "file has its new columns");
            let mut add = spliced.add;
            add.deletion_vector.clone_from(&file.add.deletion_vector);
            if add.path != file.add.path {
                evolved.made.push(add.path.clone());
                objects += 1;
                sent += spliced.bytes_sent;
                received += spliced.bytes_received;
                add.data_change = true;
                data_file::leave_out(&mut add, hidden_columns(&evolved.shape));
                if add.deletion_vector.is_some() {
                    data_file::loosen_bounds(&mut add);
                }
                if spliced.rows != file.rows {
                    outcome = outcome.and(Err(Error::Table {
                        table: before.name.to_string(),
                        finding: format!("file {} has {} rows and came to {}", file.add.path, file.rows, spliced.rows),
                        remedy: "report this as a defect of lakeward".to_owned(),
                    }));
                }
            }
            file.add = add;
        }
        tracing::debug!(table = %before.name, objects, sent, received, "files have their new columns");
        outcome
    }

    async fn index_anew(&self, evolved: &Evolved, truncated: bool) -> Result<RowIndex, Error> {
        let mut index = self.locator.successor();
        if truncated {
            return Ok(index);
        }
        let (schema, files, hasher) = (&evolved.shape.lake, &evolved.files, &evolved.hasher);
        let (mut live_rows, mut twice) = (0, 0);
        for (&id, file) in files {
            twice += index_rows(&self.log_store, schema, hasher, &mut index, files, id).await?.1;
            live_rows += file.live_rows();
        }
        let failed = |source| Error::Index { table: schema.name.to_string(), source };
        twice += index.count_twice(files).await.map_err(failed)?;
        check_keys(schema, live_rows, twice)?;
        Ok(index)
    }

    pub(super) fn arrow(&self, source: arrow::error::ArrowError) -> Error {
        Error::Arrow { table: self.name().to_string(), source }
    }

    /// Removes objects that no log entry names. Those that can't be removed now are left to a VACUUM.
    pub(super) async fn discard(&self, paths: &[String]) {
        remove_objects(&self.log_store, &self.name().to_string(), paths).await;
    }
}

/// Removes objects of a table's folder, as far as that is possible; paths are as in the log.
pub(super) async fn remove_objects(log_store: &LogStoreRef, table: &str, paths: &[String]) {
    let store = log_store.object_store(None);
    for path in paths {
        // As in the log, so it is decoded already.
        let Ok(object) = Path::parse(path) else { continue };
        if let Err(cause) = store.delete(&object).await {
            tracing::warn!(table, path, cause = cause_text(&cause), "an unused object is left behind");
        }
    }
}
