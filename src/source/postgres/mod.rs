//! PostgreSQL 15 to 18, by logical replication.
//!
//! The way of a change: [`wal`] (transport) → [`pgoutput`] (messages) → [`plan`] (which column goes where) → [`text`]
//! (values into Arrow builders) → the shared collector. The first load takes the same last two steps behind [`copy`].
//! A load takes them too, in chunks ([`chunk`]) between bounds of the [`key`], once [`visibility`] allows.
//! Around them: [`catalog`] and [`types`] (what tables look like), [`publication`] and [`slot`] (what the server sends
//! and keeps), [`preflight`] (what is missing), [`watch`] (what happens to tables without a trace in the log), [`newcomers`]
//! (tables that came).
//!
//! The way of a schema change: a Relation message, a DDL statement's message ([`ddl`]) or a look at the catalog → the
//! table's columns by number ([`attributes`], [`numbering`]) → the steps from what is known to that ([`difference`], with
//! [`fill`] for what old rows hold in new columns) → [`stream`] tells it in order with the rows.

mod array;
mod attributes;
mod catalog;
mod chunk;
mod connection;
mod copy;
mod ddl;
mod difference;
mod fill;
mod foretell;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod key;
mod log_state;
mod newcomers;
mod numbering;
mod pgoutput;
mod plan;
mod preflight;
mod pressure;
#[cfg(test)]
mod properties;
mod publication;
mod sessions;
mod slot;
mod snapshot;
mod stream;
mod text;
mod types;
mod visibility;
mod wal;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgwire_replication::ReplicationClient;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{
    Chunk, ChunkEvent, ChunkRead, Error, Event, Foretold, Identity, KeyBound, LoadStart, LogState, Position, Problem,
    SnapshotEvent, Source, StreamRequest,
};
use crate::config::{Contracts, DatabaseKind, SourceConfig};
use crate::schema::{Shape, TableName, TableSchema};
use sessions::Sessions;

/// One database of a PostgreSQL server. Each call opens its own session, but for those that are asked often.
#[derive(Clone, Debug)]
pub struct PostgresSource {
    config: SourceConfig,
    contracts: Contracts,
    sessions: Sessions,
    /// What tables were like; see [`watch`].
    notes: watch::Notes,
    /// By the last discovery.
    chosen: Arc<Mutex<Option<newcomers::Chosen>>>,
}

pub use ddl::EVENT_TRIGGER;

impl PostgresSource {
    pub fn new(config: SourceConfig, contracts: Contracts) -> Result<Self, Error> {
        if config.kind != DatabaseKind::Postgres || config.database.is_empty() {
            return Err(Error::Setting {
                subject: format!("url of source `{}`", config.name),
                finding: "names no PostgreSQL database".into(),
                remedy: "write it as postgres://user@host:5432/database".into(),
            });
        }
        Ok(Self {
            config,
            contracts,
            sessions: Sessions::default(),
            notes: watch::Notes::default(),
            chosen: Arc::default(),
        })
    }

    /// How its log stands. Changes nothing.
    pub async fn log_state(&self) -> Result<LogState, Error> {
        log_state::read(&self.config).await
    }

    /// Whether the optional event trigger tells the log about DDL ([`EVENT_TRIGGER`]).
    pub async fn has_event_trigger(&self) -> Result<bool, Error> {
        let mut connection = connection::connect(&self.config).await?;
        watch::is_told(&mut connection).await
    }
}

impl Source for PostgresSource {
    async fn identity(&self) -> Result<Identity, Error> {
        let mut session = connection::connect_replication(&self.config, 0).await?;
        let failed = |statement: &str, error: &pgwire_replication::PgWireError| Error::Query {
            statement: statement.to_owned(),
            cause: connection::wire_text(error),
        };
        let system = session.identify_system().await.map_err(|error| failed("IDENTIFY_SYSTEM", &error))?;
        let version =
            show(&mut session, "server_version").await.map_err(|error| failed("SHOW server_version", &error))?;
        // Debian adds its package: `15.18 (Debian 15.18-0+deb12u1)`.
        let version = version.split(' ').next().unwrap_or_default();
        Ok(Identity {
            server: format!("PostgreSQL {version}"),
            history: format!("{}/{}", system.system_id, system.timeline),
        })
    }

    async fn preflight(&self) -> Result<Vec<Problem>, Error> {
        preflight::examine(&self.config, &self.contracts).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>, Error> {
        let mut connection = connection::connect(&self.config).await?;
        let mut schemas = Vec::new();
        let mut chosen = newcomers::Chosen::default();
        let mut tables = catalog::selected(&mut connection, &self.config).await?;
        if let Some(publication) = publication::find(&mut connection, &self.config.publication).await? {
            publication.mark(&mut tables);
        }
        for table in tables {
            if table.persistence != "p" {
                chosen.passed_over.insert(table.name());
                warn!(source = self.config.name, table = %table.name(), "left out: unlogged, so its changes are not in the log");
                continue;
            }
            if !table.capturable(&self.config.name, &self.contracts) {
                chosen.passed_over.insert(table.name());
                error!(source = self.config.name, table = %table.name(),
                    "not captured: the log would not tell which row a change is about, and publishing it would make the \
                     application's UPDATE and DELETE fail; {}", publication::identity_remedy(&table));
                continue;
            }
            for column in table.as_text() {
                info!(
                    source = self.config.name,
                    table = %table.name(),
                    column = column.name,
                    "type {} is held as text",
                    column.found.name
                );
            }
            let schema = table.contracted(&self.config, &self.contracts)?;
            chosen.taken.insert(table.name());
            schemas.push(schema);
        }
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen);
        Ok(schemas)
    }

    async fn foretell(&self, shape: &Shape, statement: &str) -> Result<Foretold, Error> {
        foretell::foretell(&self.config, &self.contracts, shape, statement).await
    }

    async fn head(&self) -> Result<Position, Error> {
        let mut connection = connection::connect(&self.config).await?;
        slot::log_end(&mut connection).await.map(Position::Lsn)
    }

    async fn unpublished(&self, tables: &[TableName]) -> Result<Vec<TableName>, Error> {
        let mut connection = connection::connect(&self.config).await?;
        // That the publication is gone is told by `prepare`.
        let Some(publication) = publication::find(&mut connection, &self.config.publication).await? else {
            return Ok(Vec::new());
        };
        let mut described = catalog::described(&mut connection, tables).await?;
        publication.mark(&mut described);
        let published: Vec<TableName> =
            described.iter().filter(|table| table.published.is_some()).map(|table| table.name()).collect();
        Ok(tables.iter().filter(|name| !published.contains(name)).cloned().collect())
    }

    async fn prepare(&self, tables: &[TableName], durable: Option<&Position>) -> Result<Position, Error> {
        let durable = match durable {
            None => None,
            Some(Position::Lsn(lsn)) => Some(*lsn),
            Some(other) => {
                return Err(Error::PositionLost {
                    position: other.clone(),
                    cause: "it is a position of another kind of database".into(),
                });
            }
        };
        let mut connection = connection::connect(&self.config).await?;
        // First what is definite: a lost slot must be told before anything is changed at the server.
        if let Some(durable) = durable {
            slot::check(&mut connection, &self.config, durable).await?;
        }
        let mut described = catalog::described(&mut connection, tables).await?;
        if let Some(missing) = tables.iter().find(|name| !described.iter().any(|table| &&table.name() == name)) {
            return Err(Error::Table {
                table: missing.to_string(),
                finding: "it does not exist any more".into(),
                position: durable.map_or("the start".into(), |lsn| Position::Lsn(lsn).to_string()),
                remedy: "leave it out of `tables`".into(),
            });
        }
        // The publication first: a slot that begins before its publication can't be decoded.
        publication::ensure(&mut connection, &self.config, &self.contracts, &mut described, durable).await?;
        slot::ensure(&mut connection, &self.config, durable).await.map(Position::Lsn)
    }

    async fn give_up_position(&self) -> Result<(), Error> {
        let mut connection = connection::connect(&self.config).await?;
        let published = publication::find(&mut connection, &self.config.publication).await?.is_some();
        slot::drop_useless(&mut connection, &self.config, published).await
    }

    async fn observe(&self, tables: &[TableName]) -> Result<(), Error> {
        let mut connection = connection::connect(&self.config).await?;
        watch::observe(&mut connection, &self.config, &self.notes, tables).await
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.notes.written()
    }

    fn recall(&self, notes: &BTreeMap<String, String>) {
        self.notes.read(notes);
    }

    async fn snapshot(&self, tables: &[TableName], out: mpsc::Sender<SnapshotEvent>) -> Result<(), Error> {
        snapshot::read(&self.config, &self.contracts, &self.notes, tables, &out).await
    }

    async fn begin_load(&self, tables: &[TableName]) -> Result<Vec<LoadStart>, Error> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let opened = snapshot::open(&self.config, &self.notes, tables).await?;
        let start = |table: &catalog::CatalogTable| {
            Ok(LoadStart {
                schema: Arc::new(table.contracted(&self.config, &self.contracts)?),
                position: Position::Lsn(opened.position),
                layout: None,
                rows_estimate: table.rows_estimate,
            })
        };
        opened.tables.iter().map(start).collect()
    }

    async fn visible(&self, _position: &Position) -> Result<(), Error> {
        visibility::wait(&self.sessions, &self.config).await
    }

    async fn running(&self) -> Result<u64, Error> {
        pressure::running(&self.sessions, &self.config).await
    }

    async fn replica_lag(&self) -> Result<Option<Duration>, Error> {
        pressure::replica_lag(&self.sessions, &self.config).await
    }

    async fn next_chunk(&self, table: &TableSchema, after: Option<&KeyBound>, rows: u64) -> Result<Chunk, Error> {
        chunk::next(&self.sessions, &self.config, table, after, rows).await
    }

    async fn read_chunk(
        &self,
        table: &TableName,
        chunk: &Chunk,
        filter: Option<&str>,
        out: mpsc::Sender<ChunkEvent>,
    ) -> Result<ChunkRead, Error> {
        chunk::read(&self.sessions, &self.config, &self.contracts, table, chunk, filter, &out).await
    }

    async fn stream(&self, request: StreamRequest, out: mpsc::Sender<Event>) -> Result<(), Error> {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stream::follow(&self.config, &self.contracts, &self.notes, chosen, request, out).await
    }
}

async fn show(session: &mut ReplicationClient, name: &str) -> Result<String, pgwire_replication::PgWireError> {
    let rows = session.simple_query(&format!("SHOW {name}")).await?;
    let value = rows.first().and_then(|row| row.first()).and_then(|value| value.as_deref()).unwrap_or_default();
    Ok(String::from_utf8_lossy(value).into_owned())
}
