//! MySQL 8/9 and MariaDB: the binlog, snapshots, and what has to be right before either.
//!
//! The way of a change: [`transport`] carries checked events, [`stream`] follows transactions, [`table_map`] and [`plan`]
//! turn row events into Arrow columns, with the value decoders ([`temporal`], [`decimal`], [`json`], [`charset`],
//! [`value`]) and the last step, [`cell`], that [`snapshot`] shares, so that a value read and a value streamed are the same bytes. The server is told
//! nothing about what is durable: binlogs are kept by time, not by readers.
//!
//! The way of a load: [`hand_over`] says where it begins (where it is read in one piece, [`snapshot`]), [`visibility`] when chunks may be opened, [`chunk`] reads them between
//! bounds of the [`key`].

mod catalog;
mod cell;
mod charset;
mod chunk;
mod column_definition;
mod compressed;
mod connection;
mod ddl;
mod decimal;
mod declared;
mod default;
mod event;
mod fill;
mod flavor;
mod foretell;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hand_over;
mod image;
mod json;
mod key;
mod layout;
mod literal;
mod log_state;
mod marker;
mod moment;
mod plan;
mod position;
mod preflight;
mod pressure;
#[cfg(test)]
mod properties;
mod snapshot;
mod sql_mode;
mod statement;
mod stream;
mod subject;
mod table_map;
mod temporal;
mod transport;
mod value;
mod visibility;
mod wire;
mod xid;

use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Contracts, SourceConfig};
use crate::schema::{Shape, TableName, TableSchema};

use super::{
    Chunk, ChunkEvent, ChunkRead, Error, Event, Foretold, Identity, KeyBound, LoadStart, LogState, Position, Problem,
    SnapshotEvent, Source, StreamRequest,
};
use connection::Session;

/// A MySQL or MariaDB server; which one is asked at connect.
#[derive(Debug)]
pub struct MySqlSource {
    config: SourceConfig,
    contracts: Contracts,
}

impl MySqlSource {
    pub fn new(config: SourceConfig, contracts: Contracts) -> Result<Self, Error> {
        if config.server_id == 0 {
            return Err(Error::Setting {
                subject: "server_id".to_owned(),
                finding: "0 is no replica's id".to_owned(),
                remedy: "give the source a `server_id` between 1 and 4294967295 in config.toml".to_owned(),
            });
        }
        Ok(Self { config, contracts })
    }

    /// How its log stands. Changes nothing.
    pub async fn log_state(&self) -> Result<LogState, Error> {
        log_state::read(&self.config).await
    }
}

impl Source for MySqlSource {
    async fn identity(&self) -> Result<Identity, Error> {
        let mut session = Session::open(&self.config).await?;
        let server = session.flavor.to_string();
        let statement = if session.flavor.is_mariadb() {
            "SELECT CONCAT('domain ', @@global.gtid_domain_id, ', server ', @@global.server_id)"
        } else {
            "SELECT @@global.server_uuid"
        };
        let answer = session.query(statement).await?;
        Ok(Identity { server, history: answer.scalar().unwrap_or_default().to_owned() })
    }

    async fn preflight(&self) -> Result<Vec<Problem>, Error> {
        preflight::problems(&self.config, &self.contracts).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>, Error> {
        let mut session = Session::open(&self.config).await?;
        let collations = catalog::collations(&mut session).await?;
        let tables = catalog::tables(&mut session, &self.config, &self.contracts, &collations).await?;
        let mut schemas = Vec::with_capacity(tables.len());
        for table in tables {
            match table.refusal {
                Some(refusal) => tracing::error!(table = %table.schema.name, "not followed: {refusal}"),
                None => schemas.push(table.schema),
            }
        }
        Ok(schemas)
    }

    async fn foretell(&self, shape: &Shape, statement: &str) -> Result<Foretold, Error> {
        foretell::foretell(&self.config, &self.contracts, shape, statement).await
    }

    fn declares_alike(&self, one: &str, other: &str) -> bool {
        column_definition::same_type(one, other)
    }

    async fn head(&self) -> Result<Position, Error> {
        position::head(&mut Session::open(&self.config).await?).await
    }

    async fn prepare(&self, _tables: &[TableName], durable: Option<&Position>) -> Result<Position, Error> {
        let mut session = Session::open(&self.config).await?;
        match durable {
            None => {
                // MariaDB's log runs ahead of what transactions see: a later first load must not come out older than this.
                let position = if session.flavor.is_mariadb() {
                    snapshot::begin(&self.config, &[]).await?.1
                } else {
                    position::head(&mut session).await?
                };
                // The log is read from here on. Rows that were prepared before would be missed at their decision. Asked after
                // the position, so that none slips between.
                let undecided = position::undecided(&mut session).await?.unwrap_or_default();
                if !undecided.is_empty() {
                    return Err(Error::Query {
                        statement: "first start".to_owned(),
                        cause: format!(
                            "XA transactions are prepared and undecided, so what they change can't be read: {}; decide them \
                             by XA COMMIT or XA ROLLBACK",
                            undecided.join("; ")
                        ),
                    });
                }
                Ok(position)
            }
            Some(durable) => {
                position::check_available(&mut session, durable).await?;
                Ok(durable.clone())
            }
        }
    }

    async fn snapshot(&self, tables: &[TableName], out: mpsc::Sender<SnapshotEvent>) -> Result<(), Error> {
        let mut opened = snapshot::open(&self.config, &self.contracts, tables).await?;
        for index in 0..opened.tables.len() {
            snapshot::read(&mut opened, index, &out).await?;
        }
        opened.session.execute("COMMIT").await
    }

    async fn begin_load(&self, tables: &[TableName]) -> Result<Vec<LoadStart>, Error> {
        let mut starts = Vec::with_capacity(tables.len());
        for name in tables {
            starts.push(hand_over::begin(&self.config, &self.contracts, name).await?);
        }
        Ok(starts)
    }

    async fn visible(&self, position: &Position) -> Result<(), Error> {
        visibility::wait(&self.config, &self.contracts, position).await
    }

    async fn running(&self) -> Result<u64, Error> {
        pressure::running(&self.config).await
    }

    async fn replica_lag(&self) -> Result<Option<Duration>, Error> {
        pressure::replica_lag(&self.config).await
    }

    async fn next_chunk(&self, table: &TableSchema, after: Option<&KeyBound>, rows: u64) -> Result<Chunk, Error> {
        chunk::next(&self.config, &self.contracts, table, after, rows).await
    }

    async fn read_chunk(
        &self,
        table: &TableName,
        chunk: &Chunk,
        filter: Option<&str>,
        out: mpsc::Sender<ChunkEvent>,
    ) -> Result<ChunkRead, Error> {
        chunk::read(&self.config, &self.contracts, table, chunk, filter, &out).await
    }

    async fn stream(&self, request: StreamRequest, out: mpsc::Sender<Event>) -> Result<(), Error> {
        stream::follow(&self.config, &self.contracts, request, out).await
    }
}
