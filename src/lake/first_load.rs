//! A table's first load: all its files, then one commit that creates the table complete.
//!
//! Version 0 holds protocol, metadata, every file and the position, so that a crash on the way leaves unreferenced
//! files and no table; the next start loads it again. Tables with a key may be loaded in chunks instead (`table/merge.rs`).

use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::logstore::LogStoreRef;
use url::Url;

use super::Error;
use super::creation::Creation;
use super::data_file::{Roll, TableWriter};
use super::store::Lake;
use super::table::{Place, Table};
use crate::schema::{TableName, TableSchema};

/// A load under way. Nothing of it is visible before [`FirstLoad::commit`].
pub struct FirstLoad {
    lake: Lake,
    source: String,
    place: Place,
    url: Url,
    log_store: LogStoreRef,
    schema: Arc<TableSchema>,
    position: String,
    writer: TableWriter,
    rows: u64,
}

impl FirstLoad {
    /// `position` is the log position of which the rows are the exact state.
    pub fn begin(lake: &Lake, source: &str, schema: Arc<TableSchema>, position: String) -> Result<Self, Error> {
        Self::begin_at(lake, source, schema, position, Place::Open)
    }

    /// The same, maybe out of sight until it is swapped in.
    pub fn begin_at(
        lake: &Lake,
        source: &str,
        schema: Arc<TableSchema>,
        position: String,
        place: Place,
    ) -> Result<Self, Error> {
        let url = place.url(lake, source, &schema.name);
        let log_store = lake.log_store(&url)?;
        let writer = TableWriter::new(schema.clone(), log_store.object_store(None), Roll::SNAPSHOT)?;
        let (lake, source) = (lake.clone(), source.to_owned());
        Ok(Self { lake, source, place, url, log_store, schema, position, writer, rows: 0 })
    }

    pub fn table(&self) -> &TableName {
        &self.schema.name
    }

    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        // Opening the table indexes its keys; until then nobody asks for them.
        self.writer.write(rows, &[]).await?;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Gives up and cleans what can be cleaned.
    pub async fn abort(self) {
        self.writer.abort().await;
    }

    /// Makes the table visible and opens it.
    pub async fn commit(self) -> Result<Table, Error> {
        let adds = self.writer.close().await?.into_iter().map(|file| file.add).collect();
        let mode = self.lake.write_terms(&self.source, &self.schema.name).mode;
        let (source, schema) = (self.source.as_str(), &self.schema);
        let creation = Creation { source, schema, mode, position: self.position, load: None };
        creation.commit(&self.log_store, adds).await?;
        let opened = match self.place {
            Place::Open => Table::open(&self.lake, &self.source, &self.schema.name).await?,
            Place::Hidden(id) => Table::open_hidden(&self.lake, &self.source, &self.schema.name, id).await?,
        };
        opened.ok_or_else(|| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("the table at {} vanished just after it was created", self.url),
            remedy: "see who else writes to this folder".to_owned(),
        })
    }
}
