//! A chunk of a table that is being loaded, written to the store beside everything the table does meanwhile.
//!
//! A [`ChunkWriter`] belongs to nobody and may run in another task. It is to be begun before the chunk is opened at the
//! source: what happens to the table after that and would make the chunk void is noticed when it is merged.

use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::logstore::LogStoreRef;
use uuid::Uuid;

use super::super::Error;
use super::super::data_file::{Roll, TableWriter, WrittenFile};
use super::super::key::KeyHasher;
use super::Table;
use crate::schema::{Shape, TableSchema};

/// What a chunk was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    session: Uuid,
    voids: u64,
    schema_version: u64,
}

/// See the module text.
pub struct ChunkWriter {
    shape: Arc<Shape>,
    hasher: Arc<KeyHasher>,
    ticket: Ticket,
    log_store: LogStoreRef,
    writer: TableWriter,
    rows: u64,
}

/// A chunk's files, which nothing refers to yet, with the keys of their rows: 16 bytes each.
#[derive(Debug)]
pub struct StagedChunk {
    pub(super) files: Vec<WrittenFile>,
    pub(super) ticket: Ticket,
    rows: u64,
}

impl ChunkWriter {
    pub fn begin(table: &Table) -> Result<Self, Error> {
        let store = table.log_store.object_store(None);
        Ok(Self {
            shape: table.shape.clone(),
            hasher: table.hasher.clone(),
            ticket: table.ticket(),
            log_store: table.log_store.clone(),
            writer: TableWriter::new(table.shape.lake.clone(), store, Roll::SNAPSHOT)?,
            rows: 0,
        })
    }

    /// The shape that rows must come in.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes rows that have all the table's columns.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let schema = &self.shape.lake;
        check_columns(schema, rows)?;
        let arrow = |source| Error::Arrow { table: schema.name.to_string(), source };
        let keys = self.hasher.hash_batch(rows).map_err(arrow)?;
        self.writer.write(rows, &keys).await?;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Closes the files.
    pub async fn finish(self) -> Result<StagedChunk, Error> {
        Ok(StagedChunk { files: self.writer.close().await?, ticket: self.ticket, rows: self.rows })
    }

    /// Gives up; what is written is removed.
    pub async fn abort(self) {
        let (log_store, table) = (self.log_store, self.shape.lake.name.to_string());
        // Only closing them tells which files there are.
        match self.writer.close().await {
            Ok(files) => {
                let paths: Vec<String> = files.into_iter().map(|file| file.add.path).collect();
                super::evolve::remove_objects(&log_store, &table, &paths).await;
            }
            Err(cause) => tracing::warn!(table, %cause, "files of a chunk that was given up are left behind"),
        }
    }
}

impl StagedChunk {
    /// A chunk without rows: there is only a note to make.
    pub fn empty(table: &Table) -> Self {
        Self { files: Vec::new(), ticket: table.ticket(), rows: 0 }
    }

    /// Rows that the chunk has, before it is merged.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Removes its files.
    pub async fn discard(self, table: &Table) {
        let paths: Vec<String> = self.files.into_iter().map(|file| file.add.path).collect();
        table.discard(&paths).await;
    }
}

impl Table {
    /// What a chunk that is begun now is written for.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { session: self.session, voids: self.truncations(), schema_version: self.note.schema_version }
    }
}

fn check_columns(schema: &TableSchema, rows: &RecordBatch) -> Result<(), Error> {
    let (wanted, found) = (schema.arrow(), rows.schema());
    let same = wanted.fields().len() == found.fields().len()
        && wanted
            .fields()
            .iter()
            .zip(found.fields())
            .all(|(wanted, found)| wanted.name() == found.name() && wanted.data_type() == found.data_type());
    if same {
        return Ok(());
    }
    Err(Error::Table {
        table: schema.name.to_string(),
        finding: format!("a chunk's rows come with other columns ({found}) than the lake's ({wanted})"),
        remedy: "report this as a defect of lakeward".to_owned(),
    })
}
