//! The binlog, event by event: transactions, rows, and statements that matter to captured tables.
//!
//! Every transaction moves the position, also one that touched nothing captured. Rows reach the collector as they
//! come and count only at the commit marker: XID, or a `COMMIT` query, or the one statement of a DDL group. What would make
//! the lake differ from the source (DDL, statement-format DML, partial row images, prepared XA transactions) stops the
//! tables it concerns with a definite error and leaves the others running; an event of a kind that could carry rows
//! unseen stops the source. Nothing is skipped silently.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use mysql_common::binlog::events::{Event as BinlogEvent, GtidEvent};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::{Contracts, SourceConfig, TableSelection};
use crate::schema::{Layout, TableName};
use crate::source::{Collector, Error, Event, Mark, Position, StreamRequest, TransactionId};

use super::charset::Collations;
use super::compressed::{self, Head};
use super::event;
use super::fill::Moment;
use super::flavor::Vendor;
use super::layout;
use super::marker::{MariaDbGtid, Query, gtid_sequence, micros_time, mysql_gtid};
use super::plan::{Plan, RowsKind};
use super::statement::{Named, Statement, Words};
use super::table_map::{self, RowsEvent, TableMap};
use super::transport::{SEARCH_SILENCE_MAX, SILENCE_MAX, Transport};
use super::wire::Fault;

mod followed;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod ghost;
mod packed;
mod reread;
mod rotation;
mod savepoint;
mod schema_change;
mod tables;
#[cfg(test)]
mod tests;
mod xa;

use followed::Followed;
use ghost::Ghost;
use rotation::offset_after;

/// When nothing came for this long, what was gathered is handed on.
const PAUSE: Duration = Duration::from_millis(15);

const RELOAD: &str = "load it again with `lakeward resync`";

/// A table map in force.
struct CachedMap {
    bytes: Vec<u8>,
    /// `None`: not captured.
    table: Option<TableName>,
    /// Compiled at the first rows that count.
    plan: Option<Arc<Plan>>,
}

/// The transaction whose events are coming.
struct Open {
    id: Option<TransactionId>,
    committed_at: Option<DateTime<Utc>>,
    /// A commit marker follows; else the next statement is all of it.
    begun: bool,
    /// Statements in it have no effect here (MariaDB's two-phase ALTER).
    ineffective: bool,
    /// Captured tables whose rows it holds.
    touched: Vec<TableName>,
    /// An XA transaction, which ends with its preparation.
    xa: bool,
    /// Of an XA transaction: tables whose rows were not handed on.
    unsent: Vec<TableName>,
    savepoints: Vec<(String, Mark)>,
}

impl Open {
    fn new(id: Option<TransactionId>, committed_at: Option<DateTime<Utc>>, begun: bool) -> Self {
        Self {
            id,
            committed_at,
            begun,
            ineffective: false,
            touched: Vec::new(),
            xa: false,
            unsent: Vec::new(),
            savepoints: Vec::new(),
        }
    }
}

struct Reader {
    collector: Collector,
    collations: Collations,
    vendor: Vendor,
    names_ignore_case: bool,
    tables: HashMap<TableName, Followed>,
    /// From the log's spelling to the captured table.
    names: HashMap<(String, String), TableName>,
    maps: HashMap<u64, CachedMap>,
    open: Option<Open>,
    /// Where the log is read, for positions without GTIDs and for messages.
    file: String,
    offset: u64,
    by_offset: bool,
    all_past: bool,
    /// The server found the position: its silence is a bad sign from now on.
    found: bool,
    /// Events read ahead of their turn.
    ahead: VecDeque<BinlogEvent>,
    /// What the catalog says of a table whose statement is the next event, or why that proves nothing.
    reread: Option<(TableName, Result<Layout, String>)>,
    /// What the server says of moments that the next event's statement depends on.
    moments: BTreeMap<Moment, Option<i64>>,
    /// Which tables are to be followed besides those that are; `None`: no others.
    selection: Option<TableSelection>,
    /// Tables that may take a captured one's place, by the log's spelling.
    ghosts: HashMap<(String, String), Ghost>,
}

/// Reads until `request.stop`, or an error.
pub async fn follow(
    config: &SourceConfig,
    contracts: &Contracts,
    request: StreamRequest,
    out: mpsc::Sender<Event>,
) -> Result<(), Error> {
    let mut session = super::connection::Session::open(config).await?;
    super::position::check_available(&mut session, &request.from).await?;
    let collations = super::catalog::collations(&mut session).await?;
    let names_ignore_case = session.names_ignore_case;
    let vendor = session.flavor.vendor;
    let transport = Transport::open(config, session, &request.from).await?;

    let contract = |table: &TableName| contracts.get(&config.name, &table.to_string()).cloned().unwrap_or_default();
    let tables: HashMap<TableName, Followed> = request
        .tables
        .into_iter()
        .map(|(name, start)| {
            let contract = contract(&name);
            (name, Followed::new(start, contract))
        })
        .collect();
    let out = Collector::new(request.from, request.limits, out);
    let mut reader = Reader::new(out, tables, collations, vendor, names_ignore_case);
    reader.selection = Some(config.tables.clone());
    reader.run(transport, request.stop).await
}

fn spelling(ignore_case: bool, schema: &str, table: &str) -> (String, String) {
    if ignore_case { (schema.to_lowercase(), table.to_lowercase()) } else { (schema.to_owned(), table.to_owned()) }
}

impl Reader {
    /// Begins at the collector's position.
    fn new(
        collector: Collector,
        tables: HashMap<TableName, Followed>,
        collations: Collations,
        vendor: Vendor,
        names_ignore_case: bool,
    ) -> Self {
        let (file, offset, by_offset) = match collector.position() {
            Position::BinlogOffset { file, offset } => (file.clone(), *offset, true),
            _ => (String::new(), 0, false),
        };
        let spelled = |name: &TableName| spelling(names_ignore_case, &name.schema, &name.table);
        let mut reader = Self {
            names: tables.keys().map(|name| (spelled(name), name.clone())).collect(),
            tables,
            collector,
            collations,
            vendor,
            names_ignore_case,
            maps: HashMap::new(),
            open: None,
            file,
            offset,
            by_offset,
            all_past: false,
            found: false,
            ahead: VecDeque::new(),
            reread: None,
            moments: BTreeMap::new(),
            selection: None,
            ghosts: HashMap::new(),
        };
        reader.pass_tables();
        reader
    }

    async fn run(&mut self, mut transport: Transport, stop: tokio_util::sync::CancellationToken) -> Result<(), Error> {
        let mut heard = Instant::now();
        loop {
            if stop.is_cancelled() {
                return Ok(());
            }
            let next = self.ahead.pop_front().map(Ok).or_else(|| transport.ready(self.collector.position()));
            let event = match next {
                Some(event) => event?,
                None => {
                    let silence_max = if self.found { SILENCE_MAX } else { SEARCH_SILENCE_MAX };
                    let waiting = self.open.is_none() && self.collector.is_dirty();
                    let until = if waiting { Instant::now() + PAUSE } else { heard + silence_max };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        event = transport.next(self.collector.position()) => event?,
                        () = tokio::time::sleep_until(until) => {
                            if waiting {
                                self.collector.idle().await?;
                                continue;
                            }
                            return Err(Error::Disconnected {
                                position: self.collector.position().to_string(),
                                cause: format!("the server has been silent for {} s", silence_max.as_secs()),
                            });
                        }
                    }
                }
            };
            heard = Instant::now();
            self.foresee(&event, &mut transport).await?;
            self.handle(&event).await?;
        }
    }

    async fn handle(&mut self, event: &BinlogEvent) -> Result<(), Error> {
        if !event.footer().get_checksum_enabled() {
            // Out of a compressed transaction, by the driver, which drops what it can't read. `payload` read it already.
            return Ok(());
        }
        let header = event.header();
        let head = Head {
            kind: header.event_type_raw(),
            flags: header.flags_raw(),
            server_id: header.server_id(),
            timestamp: header.timestamp(),
            log_pos: header.log_pos(),
        };
        let body = event.data();
        let artificial = head.flags & event::FLAG_ARTIFICIAL != 0 || head.log_pos == 0;
        if !artificial && !matches!(head.kind, event::HEARTBEAT | event::HEARTBEAT_V2 | event::ROTATE) {
            self.offset = offset_after(self.offset, head.log_pos);
        }
        match head.kind {
            event::TRANSACTION_PAYLOAD => self.payload(body).await,
            event::GTID_TAGGED => {
                let open = tagged(event).map_err(|fault| self.protocol("a tagged GTID", &fault))?;
                self.begin(open).await
            }
            event::ROTATE => self.rotate(body, artificial).await,
            event::FORMAT_DESCRIPTION | event::STOP if artificial => Ok(()),
            event::FORMAT_DESCRIPTION | event::STOP => self.file_boundary().await,
            _ => self.event(head, body).await,
        }
    }

    async fn event(&mut self, head: Head, body: &[u8]) -> Result<(), Error> {
        let time = DateTime::from_timestamp(i64::from(head.timestamp), 0).filter(|_| head.timestamp != 0);
        match head.kind {
            event::TABLE_MAP => self.table_map(body),
            event::WRITE_ROWS => self.rows(RowsKind::Write, true, body).await,
            event::UPDATE_ROWS => self.rows(RowsKind::Update, true, body).await,
            event::DELETE_ROWS => self.rows(RowsKind::Delete, true, body).await,
            event::WRITE_ROWS_V1 => self.rows(RowsKind::Write, false, body).await,
            event::UPDATE_ROWS_V1 => self.rows(RowsKind::Update, false, body).await,
            event::DELETE_ROWS_V1 => self.rows(RowsKind::Delete, false, body).await,
            event::WRITE_ROWS_COMPRESSED => self.compressed_rows(RowsKind::Write, true, body).await,
            event::UPDATE_ROWS_COMPRESSED => self.compressed_rows(RowsKind::Update, true, body).await,
            event::DELETE_ROWS_COMPRESSED => self.compressed_rows(RowsKind::Delete, true, body).await,
            event::WRITE_ROWS_COMPRESSED_V1 => self.compressed_rows(RowsKind::Write, false, body).await,
            event::UPDATE_ROWS_COMPRESSED_V1 => self.compressed_rows(RowsKind::Update, false, body).await,
            event::DELETE_ROWS_COMPRESSED_V1 => self.compressed_rows(RowsKind::Delete, false, body).await,
            event::XID => self.commit(time).await,
            event::QUERY => {
                let query =
                    Query::parse(body, 0, &self.collations).map_err(|fault| self.protocol("a statement", &fault))?;
                self.query(&query, time).await
            }
            event::QUERY_COMPRESSED => {
                let body = compressed::query(body).map_err(|fault| self.protocol("a compressed statement", &fault))?;
                let query =
                    Query::parse(&body, 0, &self.collations).map_err(|fault| self.protocol("a statement", &fault))?;
                self.query(&query, time).await
            }
            event::EXECUTE_LOAD_QUERY => {
                let query =
                    Query::parse(body, 13, &self.collations).map_err(|fault| self.protocol("LOAD DATA", &fault))?;
                self.query(&query, time).await
            }
            event::MARIADB_GTID => {
                let gtid = MariaDbGtid::parse(body).map_err(|fault| self.protocol("a GTID", &fault))?;
                let id =
                    TransactionId::MariaDbGtid { domain: gtid.domain, server: head.server_id, sequence: gtid.sequence };
                let mut open = Open::new(Some(id), None, !gtid.standalone);
                open.ineffective = gtid.ineffective_alter;
                open.xa = gtid.prepared_xa;
                self.begin(open).await
            }
            event::GTID => {
                let (id, committed_at) = mysql_gtid(body).map_err(|fault| self.protocol("a GTID", &fault))?;
                self.begin(Open::new(Some(id), committed_at, false)).await
            }
            event::ANONYMOUS_GTID => self.begin(Open::new(None, None, false)).await,
            event::XA_PREPARE => self.xa_prepare(body, time).await,
            event::HEARTBEAT | event::HEARTBEAT_V2 => {
                self.found = true;
                if self.open.is_some() {
                    return Ok(());
                }
                if self.by_offset && !self.file.is_empty() {
                    // Between transactions everything before this offset is complete: a rotation moves the position too.
                    let position = Position::BinlogOffset { file: self.file.clone(), offset: self.offset };
                    self.collector.moved_to(position);
                }
                self.collector.idle().await
            }
            event::INCIDENT => Err(self.protocol(
                "an incident",
                &Fault::new("the server says that events are missing from its log; load the tables again"),
            )),
            event::PARTIAL_UPDATE_ROWS => self.partial_rows(body).await,
            event::INTVAR
            | event::RAND
            | event::USER_VAR
            | event::APPEND_BLOCK
            | event::DELETE_FILE
            | event::BEGIN_LOAD_QUERY
            | event::IGNORABLE
            | event::ROWS_QUERY
            | event::PREVIOUS_GTIDS
            | event::TRANSACTION_CONTEXT
            | event::VIEW_CHANGE
            | event::ANNOTATE_ROWS
            | event::BINLOG_CHECKPOINT
            | event::GTID_LIST
            | event::START_ENCRYPTION => Ok(()),
            _ if head.flags & event::FLAG_IGNORABLE != 0 => Ok(()),
            other => Err(self.protocol("the log", &Fault(format!("event type {other} is unknown to this release")))),
        }
    }

    async fn begin(&mut self, open: Open) -> Result<(), Error> {
        self.found = true;
        // A group of one statement that had none, or a transaction without rows: it ends where the next begins.
        if let Some(before) = &self.open {
            if !before.touched.is_empty() || before.xa {
                let finding = Fault::new("a transaction begins before the last one ended");
                return Err(self.protocol("the log", &finding));
            }
            self.commit(None).await?;
        }
        if open.id.is_none() && !self.by_offset {
            return Err(self.setting(
                "gtid_mode",
                "a transaction without GTID is in the log, which is read by GTIDs",
                "run SET GLOBAL gtid_mode=ON (by its steps), then load the tables again",
            ));
        }
        if let Some(id) = open.id.as_ref().filter(|id| !self.by_offset && !self.collector.position().counts(id)) {
            let finding = Fault(format!("{id:?} is a transaction of another kind of server"));
            return Err(self.protocol("a GTID", &finding));
        }
        self.open = Some(open);
        Ok(())
    }

    async fn commit(&mut self, time: Option<DateTime<Utc>>) -> Result<(), Error> {
        let Some(open) = self.open.take() else {
            let finding = Fault::new("a commit marker without a transaction");
            return Err(self.protocol("the log", &finding));
        };
        if open.xa {
            return Err(self.protocol("the log", &Fault::new("an XA transaction ends without its preparation")));
        }
        let id = match open.id {
            Some(id) if !self.by_offset => id,
            _ => TransactionId::BinlogOffset { file: self.file.clone(), end: self.offset },
        };
        self.collector.commit(&id, open.committed_at.or(time)).await?;
        self.pass_tables();
        Ok(())
    }

    fn table_map(&mut self, body: &[u8]) -> Result<(), Error> {
        let fault = |reader: &Self, fault: Fault| reader.protocol("a table map", &fault);
        let id = table_map::table_id(body).map_err(|error| fault(self, error))?;
        if self.maps.get(&id).is_some_and(|map| map.bytes == body) {
            return Ok(());
        }
        let (schema, table) = TableMap::name(body).map_err(|error| fault(self, error))?;
        let table = self.names.get(&spelling(self.names_ignore_case, &schema, &table)).cloned();
        // Nothing of tables that are not captured is kept but that they are not.
        self.maps.insert(id, CachedMap { bytes: body.to_vec(), table, plan: None });
        Ok(())
    }

    async fn rows(&mut self, kind: RowsKind, version_2: bool, body: &[u8]) -> Result<(), Error> {
        let event = table_map::rows_event(body, version_2, kind == RowsKind::Update)
            .map_err(|fault| self.protocol("a row event", &fault))?;
        self.decode_rows(kind, event, body.len()).await
    }

    async fn decode_rows(&mut self, kind: RowsKind, event: RowsEvent<'_>, bytes: usize) -> Result<(), Error> {
        if event.width == 0 {
            return Ok(());
        }
        let Some(map) = self.maps.get(&event.table_id) else {
            return Err(self.protocol("a row event", &Fault(format!("table id {} has no table map", event.table_id))));
        };
        if self.open.is_none() {
            return Err(self.protocol("a row event", &Fault::new("rows outside of a transaction")));
        }
        let Some(name) = map.table.clone() else {
            let name = TableMap::name(&map.bytes);
            let (schema, table) = name.map_err(|fault| self.protocol("a table map", &fault))?;
            self.note_unsent(TableName::new(schema, table));
            return Ok(());
        };
        let Some(table) = self.counted(&name) else {
            self.note_unsent(name);
            return Ok(());
        };
        let plan = match &map.plan {
            Some(plan) => plan.clone(),
            None => {
                let compiled = TableMap::parse(&map.bytes, self.vendor).and_then(|mut map| {
                    let layout = table.layout.as_deref();
                    layout::complete(&mut map, layout, &self.collations, self.vendor)?;
                    let excluded = |column: &str| table.excludes(column);
                    let plan = Plan::compile(&map, &table.schema, &self.collations, excluded)?;
                    Ok(match layout {
                        Some(layout) => plan.with_images(layout::images(&map, layout, &self.collations, self.vendor)),
                        None => plan,
                    })
                });
                match compiled {
                    Ok(plan) => {
                        let plan = Arc::new(plan);
                        if let Some(map) = self.maps.get_mut(&event.table_id) {
                            map.plan = Some(plan.clone());
                        }
                        plan
                    }
                    Err(fault) => {
                        let finding = format!("its rows are not as its schema says: {fault}");
                        if self.is_xa() {
                            // An old transaction may meet a table that was loaded anew since. The decision tells.
                            tracing::warn!(table = %name, finding, "rows of an XA transaction can't be read");
                            self.note_unsent(name);
                            return Ok(());
                        }
                        return self.stop_table(&name, finding, RELOAD.to_owned()).await;
                    }
                }
            }
        };
        let decoded = plan.decode(kind, &event, self.collector.rows(&plan.schema));
        match decoded {
            Ok(rows) => {
                if let Some(open) = &mut self.open
                    && !open.touched.contains(&name)
                {
                    open.touched.push(name);
                }
                self.collector.decoded(rows, bytes).await
            }
            Err(fault) => {
                self.stop_table(&name, fault.to_string(), format!("mend it at the source, then {RELOAD}")).await
            }
        }
    }

    async fn query(&mut self, query: &Query<'_>, time: Option<DateTime<Utc>>) -> Result<(), Error> {
        let statement = Statement::recognise(&query.text);
        if self.open.is_none() {
            if !self.by_offset {
                return Err(self.protocol("a statement", &Fault::new("it belongs to no transaction")));
            }
            // Servers of before 5.7 write no GTID event where GTIDs are off.
            self.open = Some(Open::new(None, None, false));
        }
        let (begun, ineffective) = self.open.as_ref().map_or((false, false), |open| (open.begun, open.ineffective));
        let statement = if ineffective { Statement::Harmless } else { statement };
        match statement {
            Statement::CreateTransactional(named) => {
                self.created(&named, false, false, query, time).await?;
                if let Some(open) = &mut self.open {
                    open.begun = true;
                }
                return Ok(());
            }
            Statement::Begin | Statement::XaStart => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                    open.xa |= statement == Statement::XaStart;
                }
                return Ok(());
            }
            Statement::XaEnd => return Ok(()),
            Statement::Savepoint(name) => {
                self.savepoint(name);
                return Ok(());
            }
            Statement::Commit => return self.commit(time).await,
            Statement::Rollback => {
                self.collector.rollback().await?;
                return self.commit(time).await;
            }
            Statement::RollbackTo(name) => return self.rollback_to(&name).await,
            Statement::XaDecide { xid, commit } => {
                self.decide(xid, commit).await?;
                return self.commit(time).await;
            }
            Statement::Truncate(named) => {
                if let Some(name) = self.resolve(&named, &query.schema)
                    && self.counted(&name).is_some()
                {
                    self.collector.truncate(&name).await?;
                }
            }
            Statement::Replaced { tables, what } => {
                for named in tables {
                    if let Some(name) = self.resolve(&named, &query.schema)
                        && self.counted(&name).is_some()
                    {
                        self.stop_untold(&name, format!("it {what}")).await?;
                    }
                }
            }
            Statement::Drop(tables) => self.dropped(&tables, query, time).await?,
            Statement::DropDatabase(schema) => self.dropped_database(&schema, query, time).await?,
            Statement::Rename(pairs) => self.renamed(&pairs, query, time).await?,
            Statement::Create { table, replace, if_not_exists } => {
                self.created(&table, replace, if_not_exists, query, time).await?;
            }
            Statement::Harmless => {
                if !ineffective {
                    self.schema_change(query, time).await?;
                }
            }
            Statement::Other => {
                let words = Words::of(&query.text, &query.schema);
                let mentioned: Vec<TableName> =
                    self.tables.keys().filter(|name| words.mention(&name.schema, &name.table)).cloned().collect();
                for name in mentioned {
                    if self.counted(&name).is_some() {
                        let finding = "a statement that may change its rows is in the log instead of the rows \
                                       (binlog_format was not ROW)"
                            .to_owned();
                        let remedy = format!("set binlog_format=ROW in all sessions, then {RELOAD}");
                        self.stop_table(&name, finding, remedy).await?;
                    }
                }
            }
        }
        if begun { Ok(()) } else { self.commit(time).await }
    }

    fn resolve(&self, named: &Named, default_schema: &str) -> Option<TableName> {
        let schema = named.schema.as_deref().unwrap_or(default_schema);
        self.names.get(&spelling(self.names_ignore_case, schema, &named.table)).cloned()
    }

    async fn stop_table(&mut self, name: &TableName, finding: String, remedy: String) -> Result<(), Error> {
        self.end_table(name, finding, remedy, false).await
    }

    /// For a change of the table of which the log does not tell what it did.
    async fn stop_untold(&mut self, name: &TableName, finding: String) -> Result<(), Error> {
        self.end_table(name, finding, RELOAD.to_owned(), true).await
    }

    async fn end_table(
        &mut self,
        name: &TableName,
        finding: String,
        remedy: String,
        by_change: bool,
    ) -> Result<(), Error> {
        self.note_unsent(name.clone());
        if let Some(table) = self.tables.get_mut(name) {
            table.stopped = true;
        }
        let error = Error::Table { table: name.to_string(), finding, position: self.place(), remedy };
        self.collector.stop_table(name, error, by_change).await
    }

    /// Where in the log this is, for messages.
    fn place(&self) -> String {
        let position = self.transaction();
        if self.file.is_empty() || self.by_offset {
            return position;
        }
        format!("{position} ({}:{})", self.file, self.offset)
    }

    /// The open transaction: the same each time it is read.
    fn transaction(&self) -> String {
        match self.open.as_ref().and_then(|open| open.id.as_ref()) {
            _ if self.by_offset => format!("{}:{}", self.file, self.offset),
            Some(TransactionId::MariaDbGtid { domain, server, sequence }) => format!("{domain}-{server}-{sequence}"),
            Some(TransactionId::MySqlGtid { source, tag, sequence }) if tag.is_empty() => {
                format!("{source}:{sequence}")
            }
            Some(TransactionId::MySqlGtid { source, tag, sequence }) => format!("{source}:{tag}:{sequence}"),
            _ => format!("{}:{}", self.file, self.offset),
        }
    }

    fn protocol(&self, what: &str, fault: &Fault) -> Error {
        Error::Protocol { position: self.place(), finding: format!("{what}: {fault}") }
    }

    fn setting(&self, subject: &str, finding: &str, remedy: &str) -> Error {
        Error::Setting {
            subject: subject.to_owned(),
            finding: format!("{finding} (at {})", self.place()),
            remedy: remedy.to_owned(),
        }
    }
}

/// MySQL's `GTID_TAGGED_LOG_EVENT`, whose self-describing form mysql_common reads.
fn tagged(event: &BinlogEvent) -> Result<Open, Fault> {
    let gtid = event.read_event::<GtidEvent>().map_err(|error| Fault(error.to_string()))?;
    let tag = gtid.tag().map(|tag| tag.to_string()).unwrap_or_default();
    let sequence = gtid_sequence(gtid.gno())?;
    let id = TransactionId::MySqlGtid { source: Uuid::from_bytes(gtid.sid()), tag, sequence };
    let micros = gtid.immediate_commit_timestamp();
    Ok(Open::new(Some(id), micros_time(micros).filter(|_| micros != 0), false))
}
