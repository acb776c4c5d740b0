//! A small Delta table of lakeward's own that rows are only ever added to, by several writers.
//!
//! It asks for no table feature, so that every Delta reader has it. Each writer counts its appends by a `txn` of its own;
//! an append that landed already is known by that and not made twice. Rows depend on nothing that is there, so when
//! another writer's commit has the version, the same entry is put behind it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::Utc;
use deltalake::kernel::Action;
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::Error;
use super::commit::{self, Outcome};
use super::data_file::{Roll, TableWriter};
use super::store::{Lake, cause_text, unreachable};
use crate::schema::TableSchema;

/// Writers that meet at one version give way so often.
const CONFLICTS_MAX: u64 = 50;

/// How often the log gets a checkpoint, in commits.
const CHECKPOINT_EVERY: u64 = 50;

/// See the module text.
pub struct AppendTable {
    lake: Lake,
    url: Url,
    log_store: LogStoreRef,
    schema: Arc<TableSchema>,
    description: &'static str,
}

impl AppendTable {
    /// The table at `<lake>/<folders>`; it is made by the first append. The schema's columns are of primitive types.
    pub fn new(
        lake: &Lake,
        folders: &[&str],
        schema: Arc<TableSchema>,
        description: &'static str,
    ) -> Result<Self, Error> {
        let url = lake.below(folders);
        let log_store = lake.log_store(&url)?;
        Ok(Self { lake: lake.clone(), url, log_store, schema, description })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What this writer counted last; `None` when it has appended nothing yet.
    pub async fn counted(&self, writer: &str) -> Result<Option<i64>, Error> {
        let Some(table) = self.load().await? else { return Ok(None) };
        self.count_of(&table, writer).await
    }

    /// Adds rows, which have all columns, unless this writer has counted so far already.
    pub async fn append(&self, rows: &RecordBatch, writer: &str, count: i64) -> Result<(), Error> {
        let mut version = match self.load().await? {
            None => 0,
            Some(table) => {
                if self.count_of(&table, writer).await?.is_some_and(|counted| counted >= count) {
                    return Ok(());
                }
                table.version().map_or(0, |version| version + 1)
            }
        };
        let mut files = TableWriter::new(self.schema.clone(), self.log_store.object_store(None), Roll::Never)?;
        files.write(rows, &[]).await?;
        let adds: Vec<Action> = files.close().await?.into_iter().map(|file| Action::Add(file.add)).collect();
        for _ in 0..CONFLICTS_MAX {
            let id = Uuid::new_v4();
            let text = self.entry(version, id, writer, count, &adds).map_err(|cause| Error::Commit {
                table: self.name(),
                version,
                cause: cause.to_string(),
            })?;
            match commit::put(&self.log_store, &self.name(), version, id, &text).await? {
                Outcome::Landed => {
                    if version > 0 && version.is_multiple_of(CHECKPOINT_EVERY) {
                        self.checkpoint().await;
                    }
                    return Ok(());
                }
                Outcome::Taken { theirs } => {
                    match counted_in(&theirs, writer) {
                        None => version += 1,
                        Some(counted) if counted >= count => return Ok(()),
                        // An earlier try of this writer that landed late has some of these rows.
                        Some(_) => return Err(Error::Fenced { table: self.name(), version }),
                    }
                }
            }
        }
        let cause = format!("other writers came first, {CONFLICTS_MAX} times in a row");
        Err(Error::Commit { table: self.name(), version, cause })
    }

    fn name(&self) -> String {
        self.schema.name.to_string()
    }

    async fn load(&self) -> Result<Option<DeltaTable>, Error> {
        let table = match self.lake.builder(&self.url)?.load().await {
            Ok(table) => table,
            Err(DeltaTableError::NotATable(_)) => return Ok(None),
            Err(cause) => {
                // Where there is no log entry at all, there is no table: deltalake words this in several ways.
                if let Ok(None) = self.log_store.read_commit_entry(0).await
                    && !self.log_store.is_delta_table_location().await.unwrap_or(true)
                {
                    return Ok(None);
                }
                return Err(unreachable(&self.url, &cause));
            }
        };
        let state = table.snapshot().map_err(|cause| self.delta(cause))?;
        let metadata = serde_json::to_value(state.metadata()).unwrap_or_default();
        let theirs = metadata["schemaString"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let names_and_types = |schema: &Value| -> Vec<(Value, Value)> {
            let fields = schema["fields"].as_array().cloned().unwrap_or_default();
            fields.into_iter().map(|field| (field["name"].clone(), field["type"].clone())).collect()
        };
        if theirs.as_ref().map(names_and_types) != Some(names_and_types(&self.schema_json())) {
            return Err(Error::Table {
                table: self.name(),
                finding: format!("the table at {} has other columns than this lakeward writes", self.url),
                remedy: "move it away; a new one is made".to_owned(),
            });
        }
        Ok(Some(table))
    }

    async fn count_of(&self, table: &DeltaTable, writer: &str) -> Result<Option<i64>, Error> {
        let state = table.snapshot().map_err(|cause| self.delta(cause))?;
        state.transaction_version(self.log_store.as_ref(), writer).await.map_err(|cause| self.delta(cause))
    }

    fn delta(&self, cause: DeltaTableError) -> Error {
        Error::Delta { table: self.name(), source: Box::new(cause) }
    }

    fn schema_json(&self) -> Value {
        let fields: Vec<Value> = self
            .schema
            .columns
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.lake_type.to_string(),
                    "nullable": column.nullable,
                    "metadata": {"comment": column.source_type},
                })
            })
            .collect();
        json!({"type": "struct", "fields": fields})
    }

    fn entry(
        &self,
        version: u64,
        id: Uuid,
        writer: &str,
        count: i64,
        adds: &[Action],
    ) -> Result<String, serde_json::Error> {
        let now = Utc::now().timestamp_millis();
        let info = json!({"commitInfo": {
            "timestamp": now,
            "operation": "WRITE",
            "operationParameters": {"mode": "Append"},
            "isBlindAppend": true,
            "engineInfo": concat!("lakeward/", env!("CARGO_PKG_VERSION")),
            "txnId": id.to_string(),
        }});
        let mut lines = vec![info.to_string()];
        if version == 0 {
            lines.push(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}).to_string());
            let metadata = json!({"metaData": {
                "id": Uuid::new_v4().to_string(),
                "name": self.schema.name.table,
                "description": self.description,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": self.schema_json().to_string(),
                "partitionColumns": [],
                "configuration": {"delta.appendOnly": "true"},
                "createdTime": now,
            }});
            lines.push(metadata.to_string());
        }
        lines.push(json!({"txn": {"appId": writer, "version": count, "lastUpdated": now}}).to_string());
        for add in adds {
            lines.push(serde_json::to_string(add)?);
        }
        Ok(lines.join("\n") + "\n")
    }

    /// The table is right without.
    async fn checkpoint(&self) {
        let written = async {
            let loaded = self.lake.builder(&self.url)?.load().await.map_err(|cause| unreachable(&self.url, &cause))?;
            let written = deltalake::checkpoints::create_checkpoint(&loaded, None).await;
            written.map_err(|cause| unreachable(&self.url, &cause))
        };
        if let Err(cause) = written.await {
            tracing::warn!(
                table = self.name(),
                cause = cause_text(&cause),
                "checkpoint not written; the next one will be"
            );
        }
    }
}

/// What a log entry says of a writer's count.
fn counted_in(entry: &str, writer: &str) -> Option<i64> {
    entry.lines().find_map(|line| {
        let action: Value = serde_json::from_str(line).ok()?;
        let txn = action.get("txn")?;
        (txn["appId"].as_str() == Some(writer)).then(|| txn["version"].as_i64()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::Int64Array;

    use super::*;
    use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName};

    fn table(lake: &Lake) -> AppendTable {
        let schema = TableSchema {
            name: TableName::new("_lakeward", "numbers"),
            columns: vec![Column {
                name: "n".into(),
                source_type: "a number".into(),
                lake_type: LakeType::Long,
                nullable: true,
                policy: Policy::default(),
            }],
            key: Vec::new(),
            partition_by: Vec::new(),
            identity: RowIdentity::AppendOnly,
        };
        AppendTable::new(lake, &["_lakeward", "numbers"], Arc::new(schema), "numbers").expect("a folder")
    }

    fn rows(table: &AppendTable, number: i64) -> RecordBatch {
        RecordBatch::try_new(table.schema.arrow(), vec![Arc::new(Int64Array::from(vec![number]))]).expect("one column")
    }

    async fn row_count(table: &AppendTable) -> u64 {
        let loaded = table.load().await.expect("readable").expect("there");
        #[allow(deprecated)] // as in table.rs
        let adds =
            loaded.snapshot().expect("loaded").log_data().iter().map(|file| file.add_action()).collect::<Vec<_>>();
        adds.iter().filter_map(super::super::data_file::record_count).sum()
    }

    #[tokio::test]
    async fn an_append_counts_once_and_writers_give_way_to_each_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lake = Lake::new(&Url::from_directory_path(folder.path()).expect("absolute"), &BTreeMap::new());
        let first = table(&lake);
        assert_eq!(first.counted("a").await.expect("readable"), None);
        let writers = ["a", "b", "c"].map(|writer| {
            let lake = lake.clone();
            tokio::spawn(async move {
                let table = table(&lake);
                for count in 1..=20 {
                    table.append(&rows(&table, count), writer, count).await.expect("appended");
                    // As after a crash between the commit and what follows it.
                    table.append(&rows(&table, count), writer, count).await.expect("known");
                }
            })
        });
        for writer in writers {
            writer.await.expect("no panic");
        }
        assert_eq!(row_count(&first).await, 60);
        for writer in ["a", "b", "c"] {
            assert_eq!(first.counted(writer).await.expect("readable"), Some(20), "{writer}, by a checkpoint");
        }
    }
}
