//! A table's first load: all its files, then one commit that creates the table complete.
//!
//! Version 0 holds protocol, metadata, every file and the position, so that a crash on the way leaves unreferenced
//! files and no table; the next start loads it again. The entry is written by hand because deltalake's `create` adds
//! table features that it then refuses to write to.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::Utc;
use deltalake::kernel::Action;
use deltalake::logstore::LogStoreRef;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::commit::{self, CommitNote, Outcome, app_id};
use super::data_file::{Roll, TableWriter};
use super::store::Lake;
use super::table::Table;
use super::{Error, delta_schema};
use crate::schema::{Shape, TableName, TableSchema};

/// A load under way. Nothing of it is visible before [`FirstLoad::commit`].
pub struct FirstLoad {
    lake: Lake,
    source: String,
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
        let url = lake.table_url(source, &schema.name);
        let log_store = lake.log_store(&url)?;
        let writer = TableWriter::new(schema.clone(), log_store.object_store(None), Roll::SNAPSHOT)?;
        Ok(Self { lake: lake.clone(), source: source.to_owned(), url, log_store, schema, position, writer, rows: 0 })
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
        let table = self.schema.name.to_string();
        let files = self.writer.close().await?;
        let note = CommitNote {
            app_id: app_id(&self.source, &self.schema.name),
            batch: 0,
            position: self.position,
            schema_version: 1,
            changes: Vec::new(),
            vanished: None,
        };
        let id = Uuid::new_v4();
        let now = Utc::now();
        let serialize =
            |cause: serde_json::Error| Error::Commit { table: table.clone(), version: 0, cause: cause.to_string() };
        let actions: Vec<Action> = files.into_iter().map(|file| Action::Add(file.add)).collect();
        let protocol = json!({"protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors", "timestampNtz"],
            "writerFeatures": ["deletionVectors", "timestampNtz", "appendOnly"],
        }});
        let mut metadata = json!({
            "id": Uuid::new_v4().to_string(),
            "name": self.schema.name.table,
            "description": format!("{} of source {}, kept by lakeward", self.schema.name, self.source),
            "format": {"provider": "parquet", "options": {}},
            "configuration": {"delta.enableDeletionVectors": "true"},
            "createdTime": now.timestamp_millis(),
        });
        delta_schema::encode(&Shape::of(self.schema.clone()), &mut metadata).map_err(serialize)?;
        let text = format!(
            "{protocol}\n{}",
            commit::entry(&note, id, "CREATE TABLE AS SELECT", Some(&metadata), &actions, now).map_err(serialize)?
        );
        match commit::put(&self.log_store, &table, 0, id, &text).await? {
            Outcome::Landed => {}
            Outcome::Taken { .. } => return Err(Error::Fenced { table, version: 0 }),
        }
        Table::open(&self.lake, &self.source, &self.schema.name).await?.ok_or_else(|| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("the table at {} vanished just after it was created", self.url),
            remedy: "see who else writes to this folder".to_owned(),
        })
    }
}
