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
use super::catalog::{self, CatalogTable};
use super::connection::{
    connect, connect_replication, parse_lsn, query_error, quote_identifier, quote_literal, replication_privilege,
    sqlstate, wire_text,
};
use super::copy::{self, Lines, for_each_value};
use super::plan::{Plan, RowError};
use super::types;
use super::watch::Notes;
use super::{publication, slot};
use crate::config::{Contracts, SourceConfig};
use crate::schema::{RowBuilder, TableName, TableSchema};
use crate::source::{Error, Position, SnapshotEvent};

const BATCH_ROWS_MAX: usize = 8192;
const BATCH_BYTES_MAX: usize = 8 << 20;

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
    let (mut connection, consistent_point) = open(config).await?;
    let mut described = catalog::described(&mut connection, tables).await?;
    // As of the snapshot, so that the first load holds what the log goes on from.
    if let Some(publication) = publication::find(&mut connection, &config.publication).await? {
        publication.mark(&mut described);
    }
    for name in tables {
        let Some(table) = described.iter().find(|table| &table.name() == name) else {
            return Err(table_error(name, consistent_point, "it does not exist any more", "leave it out of `tables`"));
        };
        // The columns that go with the rows; nothing older is needed any more.
        notes.record(name, consistent_point, &Description::from(table).attributes, consistent_point);
        read_table(&mut connection, config, contracts, table, consistent_point, out).await?;
    }
    // Only reads: there is nothing to commit.
    Ok(())
}

/// A session inside the snapshot of a temporary slot, and that slot's consistent point.
async fn open(config: &SourceConfig) -> Result<(PgConnection, u64), Error> {
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
    let failed = |statement: &str, error: sqlx::Error| query_error(statement, &error);
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        format!("SET TRANSACTION SNAPSHOT {}", quote_literal(&snapshot)),
        // The load may take long, and so may its consumer.
        "SET LOCAL statement_timeout = 0".to_owned(),
        "SET LOCAL idle_in_transaction_session_timeout = 0".to_owned(),
        // Since 17.
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'".to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut connection)
            .await
            .map_err(|error| failed(&statement, error))?;
    }
    // The snapshot lives on in this session; with the replication session the slot goes, and with it the log it held.
    drop(exporter);
    info!(source = config.name, position = %Position::Lsn(consistent_point), "reading tables in an exported snapshot");
    Ok((connection, consistent_point))
}

async fn read_table(
    connection: &mut PgConnection,
    config: &SourceConfig,
    contracts: &Contracts,
    table: &CatalogTable,
    position: u64,
    out: &mpsc::Sender<SnapshotEvent>,
) -> Result<(), Error> {
    let name = table.name();
    let schema = Arc::new(table.schema(&config.name, contracts).map_err(|finding| Error::Setting {
        subject: format!("contract of {name}"),
        finding,
        remedy: "mend the table's contract".into(),
    })?);
    let mut decodes = Vec::with_capacity(schema.columns.len());
    for wanted in &schema.columns {
        let found = table.columns.iter().find(|column| column.name == wanted.name);
        // `schema` took its types from these columns.
        decodes.extend(found.and_then(|column| types::decode_for(&column.found, wanted.lake_type)));
    }
    let plan = Plan::for_snapshot(&schema, decodes);
    let send = async |event| out.send(event).await.map_err(|_| Error::ReceiverGone);
    send(SnapshotEvent::Table {
        schema: schema.clone(),
        position: Position::Lsn(position),
        layout: None,
        rows_estimate: table.rows_estimate,
    })
    .await?;

    let statement = copy_statement(table, &schema);
    let failed = |error: sqlx::Error| match query_error(&statement, &error) {
        Error::Privilege { need, .. } => Error::Privilege {
            need,
            remedy: format!(
                "GRANT SELECT ON {}.{} TO {}",
                quote_identifier(&name.schema),
                quote_identifier(&name.table),
                quote_identifier(&config.user)
            ),
        },
        other => other,
    };
    let unreadable = |error: RowError| match error {
        RowError::Value(finding) => {
            table_error(&name, position, &finding, "exclude the column in the table's contract, or mend the row")
        }
        RowError::Source(error) => error,
    };
    let mut pieces = connection.copy_out_raw(&statement).await.map_err(failed)?;
    let mut lines = Lines::default();
    let mut rows = RowBuilder::new(schema.clone());
    let mut unescaped = Vec::new();
    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await.map_err(failed)? {
        lines.push(piece);
        while let Some(line) = lines.next_line() {
            let count =
                for_each_value(&line, &mut unescaped, |place, value| plan.append(&mut rows, place, value, false))
                    .map_err(unreadable)?;
            plan.check_length(count).map_err(unreadable)?;
            rows.end_row()?;
            bytes += line.len();
            if rows.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
                bytes = 0;
                send(SnapshotEvent::Rows { rows: rows.finish()?, unfaithful: rows.take_unfaithful() }).await?;
            }
        }
    }
    lines.finish().map_err(|error| unreadable(error.into()))?;
    if rows.rows() > 0 {
        send(SnapshotEvent::Rows { rows: rows.finish()?, unfaithful: rows.take_unfaithful() }).await?;
    }
    send(SnapshotEvent::TableDone).await
}

impl From<copy::Unreadable> for RowError {
    fn from(error: copy::Unreadable) -> Self {
        Self::Value(error.to_string())
    }
}

/// `SELECT` with the columns in the schema's order. Children that inherit from a table are tables of their own.
fn copy_statement(table: &CatalogTable, schema: &TableSchema) -> String {
    let columns: Vec<String> = schema.columns.iter().map(|column| quote_identifier(&column.name)).collect();
    let only = if table.kind == "p" { "" } else { "ONLY " };
    // What the publication filters out of the log is not in the first load either (P-17).
    let filter = table.published.as_ref().and_then(|published| published.filter.as_ref());
    let filter = filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
    format!(
        "COPY (SELECT {} FROM {only}{}.{}{filter}) TO STDOUT",
        columns.join(", "),
        quote_identifier(&table.schema),
        quote_identifier(&table.table)
    )
}

fn table_error(table: &TableName, position: u64, finding: &str, remedy: &str) -> Error {
    Error::Table {
        table: table.to_string(),
        finding: finding.to_owned(),
        position: Position::Lsn(position).to_string(),
        remedy: remedy.to_owned(),
    }
}
