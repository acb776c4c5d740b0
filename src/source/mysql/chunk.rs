//! Chunks: a range of the key, read in a short transaction of its own.
//!
//! The table is touched before the catalog is asked about it. From then on the transaction's metadata lock keeps its
//! definition as it is (MySQL manual 10.11.4 "Metadata Locking"), and a definition that is newer than the snapshot makes
//! the server refuse to read ("Table definition has changed", 1412): then all is begun again. So the schema that is told
//! is the one that the rows have.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{DriverError, Row};
use tokio::sync::mpsc;

use crate::config::{Contracts, SourceConfig};
use crate::schema::{TableName, TableSchema};
use crate::source::{Chunk, ChunkEvent, ChunkRead, Error, KeyBound, chunk};

use super::catalog::{self, CatalogTable};
use super::connection::{Session, plain, quoted};
use super::key::Key;
use super::snapshot::{self, Interruption, Rows};
use super::visibility;

/// How often a table may be changed between a chunk's snapshot and its first row.
const TRIES: usize = 5;

/// What is read in a snapshot of now, for messages.
const PLACE: &str = "the present";

/// The key by which `table` is cut into chunks, as the catalog has it.
fn key_of(table: &CatalogTable, schema: &TableSchema) -> Option<Key> {
    Key::new(table, schema.key.iter().filter_map(|&index| Some(schema.columns.get(index)?.name.as_str())))
}

/// A connection for the questions of one chunk. Dates that no calendar has can be in keys.
async fn session(config: &SourceConfig) -> Result<Session, Error> {
    let mut session = snapshot::session(config).await?;
    session.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'").await?;
    Ok(session)
}

fn named(table: &TableName) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.table))
}

/// See [`crate::source::Source::next_chunk`].
pub async fn next(
    config: &SourceConfig,
    contracts: &Contracts,
    table: &TableSchema,
    after: Option<&KeyBound>,
    rows: u64,
) -> Result<Chunk, Error> {
    let mut session = session(config).await?;
    let collations = catalog::collations(&mut session).await?;
    let known = catalog::table(&mut session, config, contracts, &collations, &table.name).await?;
    let known = snapshot::followable(&table.name, known.as_ref(), &PLACE)?;
    let Some(key) = key_of(&known, table) else {
        return match after {
            // The first chunk was the whole table then.
            None => Ok(Chunk::default()),
            Some(_) => Err(Error::BoundsVoid { table: table.name.to_string() }),
        };
    };
    let condition = key.after(after)?.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let statement = format!(
        "SELECT {} FROM {}{condition} ORDER BY {} LIMIT 1 OFFSET {}",
        key.select_list(),
        named(&table.name),
        key.order_by(),
        rows.max(1) - 1
    );
    // By the binary protocol, which tells floating numbers as they are.
    let found = session.conn.exec_first::<Row, _, _>(statement.as_str(), ()).await;
    let found = found.map_err(|error| session.error(&statement, &error))?;
    let to = found.map(|row| key.bound(row.unwrap())).transpose()?;
    Ok(Chunk { after: after.cloned(), to })
}

/// See [`crate::source::Source::read_chunk`].
pub async fn read(
    config: &SourceConfig,
    contracts: &Contracts,
    table: &TableName,
    chunk: &Chunk,
    filter: Option<&str>,
    out: &mpsc::Sender<ChunkEvent>,
) -> Result<ChunkRead, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt(config, contracts, table, chunk, filter, out).await {
            Ok(read) => return Ok(read),
            Err(Interruption { changed: true, .. }) if tries < TRIES => {
                tracing::info!(%table, "changed while a chunk of it was opened; opening it again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(Interruption { error, .. }) => return Err(error),
        }
    }
}

async fn attempt(
    config: &SourceConfig,
    contracts: &Contracts,
    name: &TableName,
    chunk: &Chunk,
    filter: Option<&str>,
    out: &mpsc::Sender<ChunkEvent>,
) -> Result<ChunkRead, Interruption> {
    let mut session = session(config).await?;
    session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    touch(&mut session, name).await?;
    // On a connection of its own, which sees what is there now.
    let mut catalog = Session::open(config).await?;
    let collations = catalog::collations(&mut catalog).await?;
    let table = catalog::table(&mut catalog, config, contracts, &collations, name).await?;
    let table = snapshot::followable(name, table.as_ref(), &PLACE)?;
    let mut conditions = Vec::new();
    if chunk.after.is_some() || chunk.to.is_some() {
        let void = || Error::BoundsVoid { table: name.to_string() };
        let key = key_of(&table, &table.schema).ok_or_else(void)?;
        conditions.extend(key.between(chunk.after.as_ref(), chunk.to.as_ref())?);
    }
    if let Some(filter) = filter {
        check_filter(&mut session, name, filter).await?;
        conditions.push(chunk::enclosed(filter));
    }
    let condition = (!conditions.is_empty()).then(|| conditions.join(" AND "));
    let schema = Arc::new(table.schema.clone());
    let rows = Rows { table: &table, collations: &collations, condition, place: &PLACE };
    let begun = ChunkEvent::Schema(schema.clone());
    let rows = rows.read(&mut session, begun, ChunkEvent::Rows, out).await?;
    session.execute("COMMIT").await?;
    let high = visibility::ceiling(&mut catalog).await?;
    Ok(ChunkRead { schema, high, rows })
}

/// Opens the table, so that it stays as it is.
pub async fn touch(session: &mut Session, table: &TableName) -> Result<(), Interruption> {
    let statement = format!("SELECT 1 FROM {} LIMIT 1", named(table));
    match session.conn.query_drop(&statement).await {
        Ok(()) => Ok(()),
        Err(mysql_async::Error::Server(server)) if matches!(server.code, 1049 | 1146) => {
            Err(snapshot::unreadable(table, &PLACE, "it does not exist any more").into())
        }
        Err(error) => Err(Interruption {
            changed: snapshot::definition_changed(&error),
            error: session.error(&statement, &error),
        }),
    }
}

/// It must be one condition, and nothing but a condition. A prepared statement can't have another behind it. Without
/// parentheses it can't close those that it will stand in, and with them nothing that belongs behind a condition can be
/// in it.
async fn check_filter(session: &mut Session, table: &TableName, filter: &str) -> Result<(), Error> {
    for condition in [filter, &chunk::enclosed(filter)] {
        let statement = format!("SELECT 1 FROM {} WHERE {condition}\nLIMIT 0", named(table));
        let Err(error) = session.conn.exec_drop(statement.as_str(), ()).await else { continue };
        return Err(match session.error(&statement, &error) {
            Error::Query { .. } if is_about_statement(&error) => chunk::unusable_filter(table, filter, plain(&error)),
            other => other,
        });
    }
    Ok(())
}

/// Rather than about the server or the connection.
fn is_about_statement(error: &mysql_async::Error) -> bool {
    match error {
        // Lock wait timeout, execution time exceeded (MySQL, MariaDB); then: connection, interrupted, deadlock.
        mysql_async::Error::Server(server) => {
            !matches!(server.code, 1205 | 3024 | 1969)
                && !["08", "70", "40"].iter().any(|class| server.state.starts_with(class))
        }
        // It has places for parameters.
        mysql_async::Error::Driver(error) => {
            matches!(error, DriverError::StmtParamsMismatch { .. } | DriverError::Params(_) | DriverError::MixedParams)
        }
        _ => false,
    }
}
