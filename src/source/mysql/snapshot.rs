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

use crate::config::{Contracts, SourceConfig};
use crate::schema::{Layout, RowBuilder, TableName};
use crate::source::{ChunkRows, Error, Position, SnapshotEvent};

use super::catalog::{self, CatalogTable};
use super::cell::Cell;
use super::charset::{Charset, Collations};
use super::connection::{Session, quoted};
use super::declared::{Declared, Family};
use super::position::{self, head};
use super::temporal::Civil;
use super::wire::Fault;
use super::{decimal, layout, temporal, value};

const BATCH_ROWS_MAX: usize = 8_192;
const BATCH_BYTES_MAX: usize = 8 << 20;

const LOCK_TRIES: usize = 4;
const LOCK_WAIT_SECONDS: u32 = 5;

/// Server error for a lock that was not granted in time.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// A connection whose settings make values come as the decoders want them.
pub async fn session(config: &SourceConfig) -> Result<Session, Error> {
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
    Ok(session)
}

/// Opens a consistent snapshot on a new connection; the position is exactly what it sees.
pub async fn begin(config: &SourceConfig, tables: &[TableName]) -> Result<(Session, Position), Error> {
    let mut session = session(config).await?;
    let position = if session.flavor.is_mariadb() {
        session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        mariadb_position(&mut session).await?
    } else {
        locked(config, &mut session, tables).await?
    };
    Ok((session, position))
}

/// Of the consistent snapshot that is open.
pub async fn mariadb_position(session: &mut Session) -> Result<Position, Error> {
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

/// Tables at the position of one snapshot.
pub struct Opened {
    pub session: Session,
    pub position: Position,
    pub collations: Collations,
    pub tables: Vec<(CatalogTable, Option<Layout>)>,
}

/// Opens a snapshot and describes `tables` as they are in it.
pub async fn open(config: &SourceConfig, contracts: &Contracts, tables: &[TableName]) -> Result<Opened, Error> {
    let mut catalog = Session::open(config).await?;
    let layouts_before = layout::read(&mut catalog, tables).await?;
    let (session, position) = begin(config, tables).await?;
    // Read after the snapshot began: DDL since then makes the server refuse the SELECT, DDL before is seen here.
    // What the server would not refuse (labels, defaults) must have been the same before, or else the layout is not
    // known to be the one at the snapshot's position.
    let layouts = layout::read(&mut catalog, tables).await?;
    if layouts != layouts_before {
        return Err(Error::Query {
            statement: "reading the tables' columns".to_owned(),
            cause: "they changed in the moment before the first load".to_owned(),
        });
    }
    let collations = catalog::collations(&mut catalog).await?;
    let known = catalog::tables(&mut catalog, config, contracts, &collations).await?;
    let mut found = Vec::with_capacity(tables.len());
    for name in tables {
        let table = known.iter().find(|table| table.schema.name == *name);
        found.push((followable(name, table, &position)?, layouts.get(name).cloned()));
    }
    Ok(Opened { session, position, collations, tables: found })
}

/// The table, unless something keeps it from being read.
pub fn followable(
    name: &TableName,
    table: Option<&CatalogTable>,
    position: &impl ToString,
) -> Result<CatalogTable, Error> {
    let table = table.ok_or_else(|| unreadable(name, position, "it is not in the catalog"))?;
    match &table.refusal {
        Some(refusal) => Err(unreadable(name, position, refusal)),
        None => Ok(table.clone()),
    }
}

pub fn unreadable(name: &TableName, position: &impl ToString, finding: &str) -> Error {
    Error::Table {
        table: name.to_string(),
        finding: finding.to_owned(),
        position: position.to_string(),
        remedy: "exclude the column in the table's contract, or the table from the source's `tables`".to_owned(),
    }
}

/// Reads one table whole.
pub async fn read(opened: &mut Opened, index: usize, out: &mpsc::Sender<SnapshotEvent>) -> Result<(), Error> {
    let Some((table, layout)) = opened.tables.get(index) else { return Ok(()) };
    let begun = SnapshotEvent::Table {
        schema: Arc::new(table.schema.clone()),
        position: opened.position.clone(),
        layout: layout.clone().map(Arc::new),
        rows_estimate: table.rows_estimate,
    };
    let whole = Rows { table, collations: &opened.collations, condition: None, place: &opened.position };
    let rows = |ChunkRows { rows, unfaithful }| SnapshotEvent::Rows { rows, unfaithful };
    whole.read(&mut opened.session, begun, rows, out).await.map_err(|interruption| interruption.error)?;
    send(out, SnapshotEvent::TableDone).await
}

/// Rows of a table to be read in the transaction that is open.
pub struct Rows<'a, P> {
    pub table: &'a CatalogTable,
    pub collations: &'a Collations,
    /// What stands after WHERE.
    pub condition: Option<String>,
    /// For messages: the log position, or what goes for it.
    pub place: &'a P,
}

/// Rows were not read to their end.
pub struct Interruption {
    pub error: Error,
    /// The table was changed since the snapshot, and nothing was sent yet: a new snapshot will do.
    pub changed: bool,
}

impl<E: Into<Error>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self { error: error.into(), changed: false }
    }
}

impl<P: ToString> Rows<'_, P> {
    /// Sends `begun`, as soon as the server gives rows, and then what `event` makes of them. How many there were.
    pub async fn read<E>(
        &self,
        session: &mut Session,
        begun: E,
        event: impl Fn(ChunkRows) -> E,
        out: &mpsc::Sender<E>,
    ) -> Result<u64, Interruption> {
        let schema = Arc::new(self.table.schema.clone());
        let forms = forms(self.table, self.collations).map_err(|fault| self.table_error(&fault))?;
        let columns: Vec<String> = schema.columns.iter().map(|column| quoted(&column.name)).collect();
        let condition = self.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let (database, table) = (quoted(&schema.name.schema), quoted(&schema.name.table));
        let statement = format!("SELECT {} FROM {database}.{table}{condition}", columns.join(", "));
        let flavor = session.flavor.clone();
        let failed = |error: &mysql_async::Error| Error::Query {
            statement: format!("reading table {} from {flavor}", schema.name),
            cause: super::connection::plain(error),
        };
        let denied = match session.conn.exec_stream::<Row, _, _>(statement.as_str(), ()).await {
            Ok(mut rows) => {
                let mut builder = RowBuilder::new(schema.clone());
                let (mut bytes, mut count) = (0, 0);
                let mut begun = Some(begun);
                while let Some(row) = rows.next().await {
                    let row = row.map_err(|error| Interruption {
                        error: failed(&error),
                        changed: begun.is_some() && definition_changed(&error),
                    })?;
                    if let Some(begun) = begun.take() {
                        send(out, begun).await?;
                    }
                    for (index, value) in row.unwrap().into_iter().enumerate() {
                        let Some(form) = forms.get(index) else { break };
                        bytes += size(&value);
                        form.append(value, &mut builder).map_err(|fault| {
                            self.table_error(&Fault(format!("column `{}`: {fault}", form.cell.column())))
                        })?;
                    }
                    builder.end_row()?;
                    count += 1;
                    if builder.rows() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
                        bytes = 0;
                        let rows = ChunkRows { rows: builder.finish()?, unfaithful: builder.take_unfaithful() };
                        send(out, event(rows)).await?;
                    }
                }
                if let Some(begun) = begun.take() {
                    send(out, begun).await?;
                }
                if builder.rows() > 0 {
                    let rows = ChunkRows { rows: builder.finish()?, unfaithful: builder.take_unfaithful() };
                    send(out, event(rows)).await?;
                }
                return Ok(count);
            }
            Err(error) => error,
        };
        Err(Interruption { error: session.error(&statement, &denied), changed: definition_changed(&denied) })
    }

    fn table_error(&self, fault: &Fault) -> Error {
        Error::Table {
            table: self.table.schema.name.to_string(),
            finding: fault.to_string(),
            position: self.place.to_string(),
            remedy: "mend the value or column at the source, or exclude the column in the table's contract".to_owned(),
        }
    }
}

/// "Table definition has changed, please retry transaction"
pub fn definition_changed(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if server.code == 1412)
}

async fn send<E>(out: &mpsc::Sender<E>, event: E) -> Result<(), Error> {
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
