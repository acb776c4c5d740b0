//! The first load of tables, exact by construction (S-5, S-6).
//!
//! A temporary logical slot is made after the publication holds the tables. Its creation waits for every transaction
//! that was open before, and exports a snapshot that holds exactly the transactions committed before its consistent
//! point. So a transaction is either in the snapshot, or its commit record is at or after that point and all of its
//! changes were made while the tables were published: reading the tables in this snapshot and then following the log
//! from that point misses nothing and repeats nothing. (A position read beside a query has no such guarantee.)

use std::sync::Arc;

use futures::TryStreamExt;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tracing::info;
use uuid::Uuid;

use super::attributes::Description;
use super::catalog::CatalogTable;
use super::connection::{
    connect, connect_replication, parse_lsn, query_error, quote_identifier, quote_literal, replication_privilege,
    sqlstate, wire_text,
};
use super::copy::{self, Lines, for_each_value};
use super::plan::{Plan, RowError};
use super::types;
use super::watch::Notes;
use super::{key, publication, slot};
use crate::config::{Contracts, SourceConfig};
use crate::schema::{RowBuilder, TableName, TableSchema};
use crate::source::chunk::unusable_filter;
use crate::source::{ChunkRows, Error, Position, SnapshotEvent};

const BATCH_ROWS_MAX: usize = 8192;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Tables as of one consistent point, and a session in which they can be read as such.
pub struct Opened {
    pub connection: PgConnection,
    pub position: u64,
    pub tables: Vec<CatalogTable>,
}

/// Describes `tables` inside the snapshot of a temporary slot.
pub async fn open(config: &SourceConfig, notes: &Notes, tables: &[TableName]) -> Result<Opened, Error> {
    let (mut connection, position) = exported(config).await?;
    // As of the snapshot, so that the first load holds what the log goes on from.
    let described = publication::described(&mut connection, config, tables).await?;
    let mut found = Vec::with_capacity(tables.len());
    for name in tables {
        let Some(table) = described.iter().find(|table| &table.name() == name) else {
            let place = Position::Lsn(position).to_string();
            return Err(table_error(name, &place, "it does not exist any more", "leave it out of `tables`"));
        };
        // The columns that go with the rows; nothing older is needed any more.
        notes.record(name, position, &Description::from(table).attributes, position);
        found.push(table.clone());
    }
    Ok(Opened { connection, position, tables: found })
}

/// Reads `tables` one after another, all as of the same position.
pub async fn read(
    config: &SourceConfig,
    contracts: &Contracts,
    notes: &Notes,
    tables: &[TableName],
    out: &mpsc::Sender<SnapshotEvent>,
) -> Result<(), Error> {
    if tables.is_empty() {
        return Ok(());
    }
    let mut opened = open(config, notes, tables).await?;
    let place = Position::Lsn(opened.position).to_string();
    let send = async |event| out.send(event).await.map_err(|_| Error::ReceiverGone);
    for table in &opened.tables {
        let schema = Arc::new(table.contracted(config, contracts)?);
        let position = Position::Lsn(opened.position);
        let rows_estimate = table.rows_estimate;
        send(SnapshotEvent::Table { schema: schema.clone(), position, layout: None, rows_estimate }).await?;
        let whole = Rows { config, table, schema, condition: None, filter: None, place: &place };
        let rows = |ChunkRows { rows, unfaithful }| SnapshotEvent::Rows { rows, unfaithful };
        whole.read(&mut opened.connection, rows, out).await?;
        send(SnapshotEvent::TableDone).await?;
    }
    // Only reads: there is nothing to commit.
    Ok(())
}

/// A session inside the snapshot of a temporary slot, and that slot's consistent point.
async fn exported(config: &SourceConfig) -> Result<(PgConnection, u64), Error> {
    let mut exporter = connect_replication(config, 0).await?;
    let slot_name = format!("lakeward_load_{}", Uuid::new_v4().simple());
    let create = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')",
        quote_identifier(&slot_name)
    );
    let rows =
        slot::patiently(&slot_name, exporter.simple_query(&create)).await.map_err(|error| match sqlstate(&error) {
            Some("42501") => replication_privilege(config),
            Some("53400") => slot::slots_exhausted(),
            _ => Error::Query { statement: "creating a temporary replication slot".into(), cause: wire_text(&error) },
        })?;
    let field = |index: usize| {
        let value = rows.first().and_then(|row| row.get(index)).and_then(|value| value.as_deref());
        value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned)
    };
    let (Some(consistent_point), Some(snapshot)) = (field(1).as_deref().and_then(parse_lsn), field(2)) else {
        return Err(Error::Query {
            statement: "creating a temporary replication slot".into(),
            cause: "the answer holds no position and snapshot".into(),
        });
    };
    let mut connection = connect(config).await?;
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        format!("SET TRANSACTION SNAPSHOT {}", quote_literal(&snapshot)),
        // The load may take long, and so may its consumer.
        "SET LOCAL statement_timeout = 0".to_owned(),
        "SET LOCAL idle_in_transaction_session_timeout = 0".to_owned(),
        // Since 17.
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'".to_owned(),
    ] {
        execute(&mut connection, &statement).await?;
    }
    // The snapshot lives on in this session; with the replication session the slot goes, and with it the log it held.
    drop(exporter);
    info!(source = config.name, position = %Position::Lsn(consistent_point), "reading tables in an exported snapshot");
    Ok((connection, consistent_point))
}

pub async fn execute(connection: &mut PgConnection, statement: &str) -> Result<(), Error> {
    let executed = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await;
    executed.map(drop).map_err(|error| query_error(statement, &error))
}

/// Rows of a table to be read in the transaction that is open.
pub struct Rows<'a> {
    pub config: &'a SourceConfig,
    pub table: &'a CatalogTable,
    /// Of that table, the contract applied.
    pub schema: Arc<TableSchema>,
    /// What stands after WHERE, besides what the publication says.
    pub condition: Option<String>,
    /// What of it people gave.
    pub filter: Option<&'a str>,
    /// For messages: the log position, or what goes for it.
    pub place: &'a str,
}

impl Rows<'_> {
    /// Sends what `event` makes of the rows. How many there were.
    pub async fn read<E>(
        &self,
        connection: &mut PgConnection,
        event: impl Fn(ChunkRows) -> E,
        out: &mpsc::Sender<E>,
    ) -> Result<u64, Error> {
        let (name, schema) = (self.table.name(), &self.schema);
        let mut decodes = Vec::with_capacity(schema.columns.len());
        for wanted in &schema.columns {
            let found = self.table.columns.iter().find(|column| column.name == wanted.name);
            // `schema` took its types from these columns.
            decodes.extend(found.and_then(|column| types::decode_for(&column.found, wanted.lake_type)));
        }
        let plan = Plan::for_snapshot(schema, decodes);
        let send = async |rows| out.send(event(rows)).await.map_err(|_| Error::ReceiverGone);
        let statement = self.statement();
        let failed = |error: sqlx::Error| {
            let about_filter = self.filter.and_then(|filter| filter_error(&name, filter, &error));
            about_filter.unwrap_or_else(|| table_privilege(self.config, &name, query_error(&statement, &error)))
        };
        let unreadable = |error: RowError| match error {
            RowError::Value(finding) => {
                let remedy = "exclude the column in the table's contract, or mend the row";
                table_error(&name, self.place, &finding, remedy)
            }
            RowError::Source(error) => error,
        };
        let mut pieces = connection.copy_out_raw(&statement).await.map_err(failed)?;
        let mut lines = Lines::default();
        let mut rows = RowBuilder::new(schema.clone());
        let mut unescaped = Vec::new();
        let (mut bytes, mut total) = (0, 0);
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            lines.push(piece);
            while let Some(line) = lines.next_line() {
                let count =
                    for_each_value(&line, &mut unescaped, |place, value| plan.append(&mut rows, place, value, false))
                        .map_err(unreadable)?;
                plan.check_length(count).map_err(unreadable)?;
                rows.end_row()?;
                total += 1;
                bytes += line.len();
                if rows.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
                    bytes = 0;
                    send(ChunkRows { rows: rows.finish()?, unfaithful: rows.take_unfaithful() }).await?;
                }
            }
        }
        lines.finish().map_err(|error| unreadable(error.into()))?;
        if rows.rows() > 0 {
            send(ChunkRows { rows: rows.finish()?, unfaithful: rows.take_unfaithful() }).await?;
        }
        Ok(total)
    }

    /// `SELECT` with the columns in the schema's order.
    fn statement(&self) -> String {
        let columns: Vec<String> = self.schema.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        // What the publication filters out of the log is not in the first load either (P-17).
        let published = self.table.published.as_ref().and_then(|published| published.filter.clone());
        let condition = key::all(published.into_iter().chain(self.condition.clone()).collect());
        let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        format!("COPY (SELECT {} FROM {}{condition}) TO STDOUT", columns.join(", "), self.table.relation())
    }
}

/// That it is a condition's fault, if the error is about a statement at all rather than about the server or the connection
/// (manual, appendix A "PostgreSQL Error Codes").
pub fn filter_error(table: &TableName, filter: &str, error: &sqlx::Error) -> Option<Error> {
    let code = error.as_database_error()?.code()?;
    let elsewhere = ["08", "25", "40", "53", "55", "57", "58", "XX"];
    // A parameter in it is a "protocol violation" in class 08.
    if code == "42501" || (code != "08P01" && elsewhere.iter().any(|class| code.starts_with(class))) {
        return None;
    }
    match query_error("", error) {
        Error::Query { cause, .. } => Some(unusable_filter(table, filter, cause)),
        _ => None,
    }
}

/// A privilege that is missing, with the statement that grants it.
pub fn table_privilege(config: &SourceConfig, table: &TableName, error: Error) -> Error {
    let Error::Privilege { need, .. } = error else { return error };
    let (schema, name, user) =
        (quote_identifier(&table.schema), quote_identifier(&table.table), quote_identifier(&config.user));
    Error::Privilege { need, remedy: format!("GRANT SELECT ON {schema}.{name} TO {user}") }
}

impl From<copy::Unreadable> for RowError {
    fn from(error: copy::Unreadable) -> Self {
        Self::Value(error.to_string())
    }
}

pub fn table_error(table: &TableName, place: &str, finding: &str, remedy: &str) -> Error {
    Error::Table {
        table: table.to_string(),
        finding: finding.to_owned(),
        position: place.to_owned(),
        remedy: remedy.to_owned(),
    }
}
