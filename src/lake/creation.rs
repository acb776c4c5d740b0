//! Version 0 of a table: protocol, metadata, note and files in one entry.
//!
//! It is written by hand because deltalake's `create` adds table features that it then refuses to write to.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use deltalake::kernel::{Action, Add};
use deltalake::logstore::LogStoreRef;
use serde_json::{Value, json};
use uuid::Uuid;

use super::commit::{self, CommitNote, Outcome, Stretch, app_id};
use super::load_note::LoadNote;
use super::{Error, delta_schema, protocol};
use crate::config::WriteMode;
use crate::schema::{Shape, TableSchema};

/// What is told of a table when it is made.
pub struct Creation<'a> {
    pub source: &'a str,
    pub schema: &'a Arc<TableSchema>,
    pub mode: WriteMode,
    pub position: String,
    pub load: Option<LoadNote>,
}

impl Creation<'_> {
    /// Puts version 0; fails when there is one.
    pub async fn commit(self, log_store: &LogStoreRef, adds: Vec<Add>) -> Result<(), Error> {
        let table = self.schema.name.to_string();
        let (id, now) = (Uuid::new_v4(), Utc::now());
        let actions: Vec<Action> = adds.into_iter().map(Action::Add).collect();
        let serialize =
            |cause: serde_json::Error| Error::Commit { table: table.clone(), version: 0, cause: cause.to_string() };
        let metadata = self.metadata(now).map_err(serialize)?;
        let note = CommitNote {
            app_id: app_id(self.source, &self.schema.name),
            batch: 0,
            stretch: Stretch { position: self.position, ..Stretch::default() },
            schema_version: 1,
            changes: Vec::new(),
            vanished: None,
            load: self.load,
            loaded: None,
        };
        let entry = commit::entry(&note, id, "CREATE TABLE AS SELECT", Some(&metadata), &actions, now);
        let protocol = protocol::action(&protocol::lowest(&protocol::features(&metadata, &actions)));
        let text = format!("{protocol}\n{}", entry.map_err(serialize)?);
        match commit::put(log_store, &table, 0, id, &text).await? {
            Outcome::Landed => Ok(()),
            Outcome::Taken { .. } => Err(Error::Fenced { table, version: 0 }),
        }
    }

    fn metadata(&self, now: DateTime<Utc>) -> Result<Value, serde_json::Error> {
        let mut metadata = json!({
            "id": Uuid::new_v4().to_string(),
            "name": self.schema.name.table,
            "description": format!("{} of source {}, kept by lakeward", self.schema.name, self.source),
            "format": {"provider": "parquet", "options": {}},
            "configuration": {},
            "createdTime": now.timestamp_millis(),
        });
        protocol::declare(self.mode, &mut metadata);
        delta_schema::encode(&Shape::of(self.schema.clone()), &mut metadata)?;
        Ok(metadata)
    }
}
