//! Chunks: a range of the key, read in a short transaction of its own.
//!
//! The table is locked (against changes of its definition, not of its rows) before the transaction has a snapshot: LOCK
//! takes none. So what the catalog says in the transaction is what the table is while it is read, and no statement that
//! rewrites it comes between, after which an older snapshot would see it empty (manual 13.6 "Caveats").

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::mpsc;

use super::catalog::{self, CatalogTable};
use super::connection::{query_error, quote_identifier};
use super::key::{Key, all};
use super::sessions::Sessions;
use super::snapshot::{Rows, execute, filter_error, table_error, table_privilege};
use super::{publication, slot};
use crate::config::{Contracts, SourceConfig};
use crate::schema::{TableName, TableSchema};
use crate::source::{Chunk, ChunkEvent, ChunkRead, Error, KeyBound, Position, chunk};

/// What is read in a snapshot of now, for messages.
const PLACE: &str = "the present";

/// A transaction that holds the table as it is.
async fn open(sessions: &Sessions, config: &SourceConfig, name: &TableName) -> Result<PgConnection, Error> {
    let mut connection = sessions.take(config).await?;
    execute(&mut connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    execute(&mut connection, "SET LOCAL statement_timeout = 0").await?;
    execute(&mut connection, "SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    execute(&mut connection, "SET LOCAL lock_timeout = 0").await?;
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", named(name));
    sqlx::raw_sql(AssertSqlSafe(lock.clone())).execute(&mut connection).await.map_err(|error| {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some("42P01" | "3F000") => missing(name),
            _ => table_privilege(config, name, query_error(&lock, &error)),
        }
    })?;
    // Since 17. The first statement that takes a snapshot.
    execute(&mut connection, "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'")
        .await?;
    Ok(connection)
}

fn missing(name: &TableName) -> Error {
    table_error(name, PLACE, "it does not exist any more", "leave it out of `tables`")
}

fn named(name: &TableName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.table))
}

/// See [`crate::source::Source::next_chunk`].
pub async fn next(
    sessions: &Sessions,
    config: &SourceConfig,
    schema: &TableSchema,
    after: Option<&KeyBound>,
    rows: u64,
) -> Result<Chunk, Error> {
    let mut connection = open(sessions, config, &schema.name).await?;
    let described = catalog::described(&mut connection, std::slice::from_ref(&schema.name)).await?;
    let table = described.into_iter().next().ok_or_else(|| missing(&schema.name))?;
    let Some(key) = Key::new(&mut connection, &table, schema).await? else {
        return match after {
            // The first chunk was the whole table then.
            None => Ok(Chunk::default()),
            Some(_) => Err(Error::BoundsVoid { table: schema.name.to_string() }),
        };
    };
    let condition = key.after(after)?.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let statement = format!(
        "SELECT {} FROM {}{condition} ORDER BY {} LIMIT 1 OFFSET {}",
        key.select_list(),
        table.relation(),
        key.order_by(),
        rows.max(1) - 1
    );
    let found = sqlx::query(AssertSqlSafe(statement.clone()))
        .persistent(false)
        .fetch_optional(&mut connection)
        .await
        .map_err(|error| table_privilege(config, &schema.name, query_error(&statement, &error)))?;
    execute(&mut connection, "COMMIT").await?;
    sessions.give_back(connection);
    let Some(row) = found else { return Ok(Chunk { after: after.cloned(), to: None }) };
    let mut values = Vec::with_capacity(row.len());
    for index in 0..row.len() {
        values.push(row.try_get::<String, _>(index).map_err(|error| query_error(&statement, &error))?);
    }
    Ok(Chunk { after: after.cloned(), to: Some(key.bound(values)) })
}

/// See [`crate::source::Source::read_chunk`].
pub async fn read(
    sessions: &Sessions,
    config: &SourceConfig,
    contracts: &Contracts,
    name: &TableName,
    chunk: &Chunk,
    filter: Option<&str>,
    out: &mpsc::Sender<ChunkEvent>,
) -> Result<ChunkRead, Error> {
    let mut connection = open(sessions, config, name).await?;
    // What the snapshot sees was written before this, so what others write while rows are read is not waited for: some of
    // it may stay unflushed for long, such as what reading itself writes (hint bits, pruning).
    let (_, inserted) = slot::log_ends(&mut connection).await?;
    let described = publication::described(&mut connection, config, std::slice::from_ref(name)).await?;
    let table = described.into_iter().next().ok_or_else(|| missing(name))?;
    let schema = table.contracted(config, contracts)?;
    let mut conditions = Vec::new();
    if chunk.after.is_some() || chunk.to.is_some() {
        let void = || Error::BoundsVoid { table: name.to_string() };
        let key = Key::new(&mut connection, &table, &schema).await?.ok_or_else(void)?;
        conditions.extend(key.between(chunk.after.as_ref(), chunk.to.as_ref())?);
    }
    if let Some(filter) = filter {
        check_filter(&mut connection, config, &table, filter).await?;
        conditions.push(chunk::enclosed(filter));
    }
    let schema = Arc::new(schema);
    out.send(ChunkEvent::Schema(schema.clone())).await.map_err(|_| Error::ReceiverGone)?;
    let rows = Rows { config, table: &table, schema: schema.clone(), condition: all(conditions), filter, place: PLACE };
    let rows = rows.read(&mut connection, ChunkEvent::Rows, out).await?;
    execute(&mut connection, "COMMIT").await?;
    // On disk, for nothing else is sent; with every transaction that was visible to the snapshot.
    let high = Position::Lsn(slot::flushed(&mut connection, inserted).await?.min(inserted));
    sessions.give_back(connection);
    Ok(ChunkRead { schema, high, rows })
}

/// It must be one condition, and nothing but a condition. The extended protocol refuses a second statement, and COPY, which
/// can't be asked by it, comes later. Without parentheses it can't close those that it will stand in, and with them nothing
/// that belongs behind a condition can be in it.
async fn check_filter(
    connection: &mut PgConnection,
    config: &SourceConfig,
    table: &CatalogTable,
    filter: &str,
) -> Result<(), Error> {
    for condition in [filter, &chunk::enclosed(filter)] {
        let statement = format!("SELECT 1 FROM {} WHERE {condition}\nLIMIT 0", table.relation());
        if let Err(error) =
            sqlx::query(AssertSqlSafe(statement.clone())).persistent(false).execute(&mut *connection).await
        {
            let other = table_privilege(config, &table.name(), query_error(&statement, &error));
            return Err(filter_error(&table.name(), filter, &error).unwrap_or(other));
        }
    }
    Ok(())
}
