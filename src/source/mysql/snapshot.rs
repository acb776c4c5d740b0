//! First loads: every table read inside one consistent snapshot whose exact log position is known.
//!
//! A log position next to a SELECT does not say what the SELECT sees. These combinations do (facts measured under six
//! writers): MariaDB tells the position of a `START TRANSACTION WITH CONSISTENT SNAPSHOT` itself, in
//! `Binlog_snapshot_file` and `_position` (MariaDB KB "Enhancements for START TRANSACTION WITH CONSISTENT SNAPSHOT").
//! On MySQL nobody can commit while the snapshot is opened and the position read: under `FLUSH TABLES WITH READ LOCK`, or,
//! without the RELOAD privilege, under `LOCK TABLES … READ` of the captured tables. The lock is held for these two
//! statements only.
//!
//! Rows come by the binary protocol (the text protocol rounds FLOAT), text in each column's own character set, so that
//! the decoders of the log make the same values of them.

use std::sync::Arc;

use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Row, Value};
use tokio::sync::mpsc;

use crate::config::SourceConfig;
use crate::schema::{Layout, RowBuilder, TableName, TableSchema};
use crate::source::{Error, Position, SnapshotEvent};

use super::catalog::CatalogTable;
use super::cell::Cell;
use super::charset::{Charset, Collations};
use super::connection::{Session, quoted};
use super::declared::{Declared, Family};
use super::position::{self, head};
use super::temporal::Civil;
use super::wire::Fault;
use super::{decimal, temporal, value};

const BATCH_ROWS_MAX: usize = 8_192;
const BATCH_BYTES_MAX: usize = 8 << 20;

const LOCK_TRIES: usize = 4;
const LOCK_WAIT_SECONDS: u32 = 5;

/// Server error for a lock that was not granted in time.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// Opens a consistent snapshot on a new connection; the position is exactly what it sees.
pub async fn begin(config: &SourceConfig, tables: &[TableName]) -> Result<(Session, Position), Error> {
    let mut session = Session::open(config).await?;
    for statement in [
        "SET SESSION time_zone = '+00:00'",
        "SET SESSION sql_mode = ''",
        "SET NAMES utf8mb4",
        // Text stays in the column's character set.
        "SET SESSION character_set_results = NULL",
        "SET SESSION net_write_timeout = 3600",
        "SET SESSION wait_timeout = 28800",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ] {
        session.execute(statement).await?;
    }
    let position = if session.flavor.is_mariadb() {
        session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        mariadb_position(&mut session).await?
    } else {
        locked(config, &mut session, tables).await?
    };
    Ok((session, position))
}

async fn mariadb_position(session: &mut Session) -> Result<Position, Error> {
    let answer = session.query("SHOW STATUS LIKE 'Binlog_snapshot_%'").await?;
    let status = |wanted: &str| {
        answer
            .rows
            .iter()
            .find(|row| {
                row.first().is_some_and(|name| name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(wanted)))
            })
            .and_then(|row| row.get(1)?.clone())
            .unwrap_or_default()
    };
    let (file, offset) = (status("Binlog_snapshot_file"), status("Binlog_snapshot_position"));
    let missing = || Error::Setting {
        subject: "log_bin".to_owned(),
        finding: "the server tells no binlog position for a consistent snapshot".to_owned(),
        remedy: "add log_bin=binlog to the server's configuration and restart it".to_owned(),
    };
    if file.is_empty() || offset.parse::<u64>().is_err() {
        return Err(missing());
    }
    let statement = format!("SELECT BINLOG_GTID_POS({}, {offset})", super::connection::literal(&file));
    let answer = session.query(&statement).await?;
    position::mariadb(answer.scalar().ok_or_else(missing)?)
}

/// Holds a lock on a second connection while the snapshot begins and the position is read.
async fn locked(config: &SourceConfig, session: &mut Session, tables: &[TableName]) -> Result<Position, Error> {
    let mut guard = Session::open(config).await?;
    guard.execute(&format!("SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}")).await?;
    let table_list: Vec<String> =
        tables.iter().map(|name| format!("{}.{} READ", quoted(&name.schema), quoted(&name.table))).collect();
    let mut statement = "FLUSH TABLES WITH READ LOCK".to_owned();
    let mut tries = 0;
    loop {
        let result = guard.conn.query_drop(&statement).await;
        let Err(error) = result else { break };
        match &error {
            mysql_async::Error::Server(server) if server.code == LOCK_WAIT_TIMEOUT => {
                tries += 1;
                if tries >= LOCK_TRIES {
                    return Err(Error::Query {
                        statement,
                        cause: format!(
                            "not granted within {LOCK_TRIES} times {LOCK_WAIT_SECONDS} s; a long statement or \
                             transaction holds the tables: SELECT * FROM information_schema.INNODB_TRX shows it"
                        ),
                    });
                }
                // Let those pass that queued behind the attempt.
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            mysql_async::Error::Server(server)
                if server.code == 1227 && statement.starts_with("FLUSH") && !table_list.is_empty() =>
            {
                tracing::info!("no RELOAD privilege: locking the captured tables for a moment instead");
                statement = format!("LOCK TABLES {}", table_list.join(", "));
            }
            _ => return Err(guard.error(&statement, &error)),
        }
    }
    let snapshot = session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
    // The lock's own connection may read its position: nobody commits.
    let position = head(&mut guard).await;
    let unlocked = guard.execute("UNLOCK TABLES").await;
    snapshot?;
    unlocked?;
    position
}

/// Reads one table whole.
pub async fn read(
    session: &mut Session,
    table: &CatalogTable,
    layout: Option<Layout>,
    collations: &Collations,
    position: &Position,
    out: &mpsc::Sender<SnapshotEvent>,
) -> Result<(), Error> {
    let schema = Arc::new(table.schema.clone());
    let forms = forms(table, collations).map_err(|fault| table_error(&schema, position, &fault))?;
    let event = SnapshotEvent::Table {
        schema: schema.clone(),
        position: position.clone(),
        layout: layout.map(Arc::new),
        rows_estimate: table.rows_estimate,
    };
    send(out, event).await?;
    let columns: Vec<String> = schema.columns.iter().map(|column| quoted(&column.name)).collect();
    let statement =
        format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(&schema.name.schema), quoted(&schema.name.table));
    let flavor = session.flavor.clone();
    let failed = |error: &mysql_async::Error| Error::Query {
        statement: format!("reading table {} from {flavor}", schema.name),
        cause: super::connection::plain(error),
    };
    let denied = match session.conn.exec_stream::<Row, _, _>(statement.as_str(), ()).await {
        Ok(mut rows) => {
            let mut builder = RowBuilder::new(schema.clone());
            let mut bytes = 0;
            while let Some(row) = rows.next().await {
                let row = row.map_err(|error| failed(&error))?;
                for (index, value) in row.unwrap().into_iter().enumerate() {
                    let Some(form) = forms.get(index) else { break };
                    bytes += size(&value);
                    form.append(value, &mut builder).map_err(|fault| {
                        let fault = Fault(format!("column `{}`: {fault}", form.cell.column()));
                        table_error(&schema, position, &fault)
                    })?;
                }
                builder.end_row()?;
                if builder.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
                    bytes = 0;
                    send(out, SnapshotEvent::Rows { rows: builder.finish()?, unfaithful: builder.take_unfaithful() })
                        .await?;
                }
            }
            if builder.rows() > 0 {
                send(out, SnapshotEvent::Rows { rows: builder.finish()?, unfaithful: builder.take_unfaithful() })
                    .await?;
            }
            None
        }
        Err(error) => Some(error),
    };
    if let Some(error) = denied {
        return Err(session.error(&statement, &error));
    }
    send(out, SnapshotEvent::TableDone).await
}

fn table_error(schema: &TableSchema, position: &Position, fault: &Fault) -> Error {
    Error::Table {
        table: schema.name.to_string(),
        finding: fault.to_string(),
        position: position.to_string(),
        remedy: "mend the value or column at the source, or exclude the column in the table's contract".to_owned(),
    }
}

async fn send(out: &mpsc::Sender<SnapshotEvent>, event: SnapshotEvent) -> Result<(), Error> {
    out.send(event).await.map_err(|_| Error::ReceiverGone)
}

fn size(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    }
}

/// How a column's values come by the binary protocol.
struct SnapshotForm {
    family: Family,
    declared: Declared,
    charset: Charset,
    cell: Cell,
}

fn forms(table: &CatalogTable, collations: &Collations) -> Result<Vec<SnapshotForm>, Fault> {
    let schema = &table.schema;
    let form = |(index, column): (usize, &crate::schema::Column)| {
        let declared = Declared::parse(&column.source_type);
        let charset = match table.charsets.get(&column.name) {
            Some(name) => collations.by_name(name)?,
            None => Charset::Utf8,
        };
        Ok(SnapshotForm { family: declared.family(), declared, charset, cell: Cell::new(schema, index) })
    };
    schema.columns.iter().enumerate().map(form).collect()
}

impl SnapshotForm {
    fn append(&self, value: Value, rows: &mut RowBuilder) -> Result<(), Fault> {
        let cell = &self.cell;
        match (self.family, value) {
            (_, Value::NULL) => cell.null(rows),
            (Family::Year, Value::Int(year)) => cell.year(rows, u16::try_from(year).unwrap_or(0)),
            (Family::Year, Value::UInt(year)) => cell.year(rows, u16::try_from(year).unwrap_or(0)),
            (Family::Integer, Value::Int(number)) => cell.integer(rows, number.into()),
            (Family::Integer, Value::UInt(number)) => cell.integer(rows, number.into()),
            (Family::Float, Value::Float(number)) => cell.float(rows, number),
            (Family::Double, Value::Double(number)) => cell.double(rows, number),
            (Family::Decimal, Value::Bytes(bytes)) => {
                let text = std::str::from_utf8(&bytes).map_err(|_| Fault::new("a decimal that is no text"))?;
                let (precision, scale) = self.declared.decimal();
                if precision > decimal::LAKE_DIGITS_MAX {
                    cell.decimal_text(rows, &decimal::text_canonical(text)?)
                } else {
                    cell.decimal(rows, decimal::text_value(text, precision, scale)?, scale)
                }
            }
            (Family::Bit, Value::Bytes(bytes)) => cell.bits(rows, &bytes),
            (Family::Date, Value::Date(year, month, day, ..)) => {
                let date = Civil { year: year.into(), month: month.into(), day: day.into(), ..Civil::default() };
                cell.date(rows, &date)
            }
            (Family::Datetime | Family::Timestamp, Value::Date(year, month, day, hour, minute, second, micro)) => {
                let time = Civil {
                    year: year.into(),
                    month: month.into(),
                    day: day.into(),
                    hour: hour.into(),
                    minute: minute.into(),
                    second: second.into(),
                    micro,
                };
                match self.family {
                    Family::Datetime => cell.datetime(rows, &time),
                    // The session's time zone is UTC.
                    _ if time == Civil::default() => cell.timestamp(rows, None),
                    _ => match time.micros() {
                        Some(micros) => cell.timestamp(rows, Some(micros)),
                        None => Err(Fault(format!("a timestamp that is no instant: {}", time.text(6)))),
                    },
                }
            }
            (Family::Time, Value::Time(negative, days, hours, minutes, seconds, micros)) => {
                let hours = days * 24 + u32::from(hours);
                let magnitude = temporal::clock_micros(hours, minutes.into(), seconds.into(), micros);
                cell.time(rows, if negative { -magnitude } else { magnitude })
            }
            (Family::Text | Family::Enum | Family::Set | Family::Json, Value::Bytes(bytes)) => {
                let (text, broken) = self.charset.decode(&bytes);
                cell.text(rows, &text, broken)
            }
            (Family::Uuid | Family::Inet4 | Family::Inet6, Value::Bytes(bytes)) => {
                cell.text(rows, &String::from_utf8_lossy(&bytes), false)
            }
            (Family::Binary, Value::Bytes(bytes)) => cell.bytes(rows, &bytes),
            (Family::Geometry, Value::Bytes(bytes)) => cell.geometry(rows, &bytes),
            (Family::Vector, Value::Bytes(bytes)) => cell.vector(rows, &bytes),
            (Family::Other, Value::Bytes(bytes)) => cell.text(rows, &value::hex(&bytes), false),
            (family, _) => Err(Fault(format!("a {family:?} came in another form"))),
        }
    }
}
