//! DDL of captured tables in the log: the layout that holds from here on (D-1 to D-17).
//!
//! The statement's text is applied to the layout in force. Where the text does not say for certain what it did, the catalog
//! is asked, but its answer counts only if it is provably the one in force here: the statement had ended before the answer
//! was taken, and no further statement about the table is in the log up to where the server stood after that. To see that,
//! the log is read ahead, and what was read waits for its turn. If that proves nothing, the table stops.

use mysql_common::binlog::events::Event as BinlogEvent;
use tokio::time::{Duration, timeout};

use crate::schema::{Layout, TableName};
use crate::source::{Error, Position, TransactionId};

use super::super::connection::{Session, quoted};
use super::super::ddl::{self, Applied, Effect, Spec, Unclear};
use super::super::marker::{MariaDbGtid, Query, mysql_gtid};
use super::super::statement::{Statement, Words};
use super::super::transport::Transport;
use super::super::wire::Fault;
use super::super::{layout, position};
use super::{RELOAD, Reader, event, tagged};

/// How much of the log is read ahead to prove a layout.
const AHEAD_BYTES_MAX: usize = 64 << 20;
const AHEAD_TIME_MAX: Duration = Duration::from_secs(30);

const STRICT_TRANS_TABLES: u64 = 1 << 21;
const STRICT_ALL_TABLES: u64 = 1 << 22;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// A captured table that a statement changes.
struct Change {
    table: TableName,
    applied: Result<Applied, Unclear>,
    strict: bool,
    /// Rows may have been dropped because they did not fit a new key.
    drops_rows: bool,
}

impl Reader {
    /// The captured tables with a known layout that the statement changes, and how.
    fn changes(&self, query: &Query<'_>) -> Vec<Change> {
        // A statement that failed changed nothing (D-12).
        if query.error_code != 0 {
            return Vec::new();
        }
        let strict = query.sql_mode & (STRICT_TRANS_TABLES | STRICT_ALL_TABLES) != 0;
        let ambiguous = query.sql_mode & NO_BACKSLASH_ESCAPES != 0 && query.text.contains('\\');
        let read = if ambiguous { Err(Unclear) } else { ddl::read(&query.text, self.vendor) };
        match read {
            Ok(None) => Vec::new(),
            Ok(Some(alter)) => {
                let Some(table) = self.resolve(&alter.table, &query.schema) else { return Vec::new() };
                let Some(layout) = self.counted(&table).and_then(|followed| followed.layout.as_ref()) else {
                    return Vec::new();
                };
                let drops_rows = alter.ignore
                    && alter
                        .specs
                        .as_ref()
                        .is_ok_and(|specs| specs.iter().any(|spec| matches!(spec, Spec::Unique { .. })));
                let strict = strict && !alter.ignore;
                let applied = alter.specs.and_then(|specs| ddl::apply(layout, &specs, self.vendor));
                vec![Change { table, applied, strict, drops_rows }]
            }
            // Not even its table is certain: any that it names.
            Err(Unclear) => {
                let text = query.text.to_ascii_uppercase();
                if !text.contains("ALTER") && !text.contains("INDEX") {
                    return Vec::new();
                }
                let words = Words::of(&query.text, &query.schema);
                let mentioned = |name: &&TableName| {
                    words.mention(&name.schema, &name.table)
                        && self.counted(name).is_some_and(|followed| followed.layout.is_some())
                };
                let tables = self.tables.keys().filter(mentioned).cloned();
                tables.map(|table| Change { table, applied: Err(Unclear), strict: false, drops_rows: false }).collect()
            }
        }
    }

    /// Asks the catalog, if the event is a statement whose effect its text does not tell.
    pub(super) async fn foresee(&mut self, next: &BinlogEvent, transport: &mut Transport) -> Result<(), Error> {
        self.reread = None;
        let header = next.header();
        if header.event_type_raw() != event::QUERY
            || self.open.as_ref().is_some_and(|open| open.begun || open.ineffective)
        {
            return Ok(());
        }
        // What can't be read is told when it is handled.
        let Ok(query) = Query::parse(next.data(), 0, &self.collations) else { return Ok(()) };
        if Statement::recognise(&query.text) != Statement::Harmless {
            return Ok(());
        }
        let unclear = self.changes(&query).into_iter().find(|change| change.applied.is_err());
        let Some(Change { table, .. }) = unclear else { return Ok(()) };
        let mut here = self.collector.position().clone();
        match self.open.as_ref().and_then(|open| open.id.as_ref()) {
            Some(id) if !self.by_offset => here.advance(id),
            _ => {
                let offset = (self.offset & !0xFFFF_FFFF) | u64::from(header.log_pos());
                here = Position::BinlogOffset { file: self.file.clone(), offset };
            }
        }
        let read = self.reread(&table, here, transport).await?;
        self.reread = Some((table, read));
        Ok(())
    }

    /// The table's layout by the catalog, or why that is not known to be the one in force after `here`.
    async fn reread(
        &mut self,
        table: &TableName,
        here: Position,
        transport: &mut Transport,
    ) -> Result<Result<Layout, String>, Error> {
        let mut session = Session::open(&transport.config).await?;
        // Waits for the locks of DDL: what the log tells already, the catalog may not show yet.
        let open = format!("SELECT 1 FROM {}.{} LIMIT 0", quoted(&table.schema), quoted(&table.table));
        let mut found = None;
        for _ in 0..2 {
            if let Err(error) = session.query(&open).await {
                return Ok(Err(format!("the table can't be opened any more ({error})")));
            }
            if found.is_none() {
                found = layout::read(&mut session, std::slice::from_ref(table)).await?.remove(table);
            }
        }
        let Some(found) = found else { return Ok(Err("the table is not in the catalog any more".to_owned())) };
        let head = position::head(&mut session).await?;
        if here.covers(&head) {
            return Ok(Ok(found));
        }
        if self.by_offset {
            return Ok(Err("the server has gone on since".to_owned()));
        }
        match timeout(AHEAD_TIME_MAX, self.read_ahead(table, here, &head, transport)).await {
            Ok(proof) => Ok(proof?.map(|()| found)),
            Err(_) => Ok(Err(format!("the log up to {head} was not there in time"))),
        }
    }

    /// Reads the log up to `head`, and says what in it makes the catalog's answer worthless.
    async fn read_ahead(
        &mut self,
        table: &TableName,
        here: Position,
        head: &Position,
        transport: &mut Transport,
    ) -> Result<Result<(), String>, Error> {
        let mut seen = here;
        let mut pending: Option<TransactionId> = None;
        let mut begun = false;
        let mut bytes = 0;
        let mut place = 0;
        while !seen.covers(head) {
            if place == self.ahead.len() {
                let event = transport.next(self.collector.position()).await?;
                self.ahead.push_back(event);
            }
            let Some(next) = self.ahead.get(place) else { break };
            place += 1;
            let body = next.data();
            bytes += body.len();
            if bytes > AHEAD_BYTES_MAX {
                return Ok(Err(format!("the server has gone on by more than {} MiB since", AHEAD_BYTES_MAX >> 20)));
            }
            let fault = |fault: Fault| Error::Protocol { position: seen.to_string(), finding: fault.to_string() };
            let id = match next.header().event_type_raw() {
                event::MARIADB_GTID => {
                    let gtid = MariaDbGtid::parse(body).map_err(fault)?;
                    begun = !gtid.standalone;
                    let server = next.header().server_id();
                    Some(TransactionId::MariaDbGtid { domain: gtid.domain, server, sequence: gtid.sequence })
                }
                event::GTID => {
                    begun = false;
                    Some(mysql_gtid(body).map_err(fault)?.0)
                }
                event::GTID_TAGGED => {
                    begun = false;
                    tagged(next).map_err(fault)?.id
                }
                _ => None,
            };
            if let Some(id) = id {
                if let Some(before) = pending.replace(id) {
                    seen.advance(&before);
                }
                continue;
            }
            let mut ended = false;
            match next.header().event_type_raw() {
                event::XID | event::XA_PREPARE | event::TRANSACTION_PAYLOAD => ended = true,
                event::QUERY => {
                    let query = Query::parse(body, 0, &self.collations).map_err(fault)?;
                    match Statement::recognise(&query.text) {
                        Statement::Begin | Statement::XaStart | Statement::CreateTransactional => begun = true,
                        Statement::Commit | Statement::Rollback => ended = true,
                        _ => {
                            if Words::of(&query.text, &query.schema).mention(&table.schema, &table.table) {
                                let text: String = query.text.chars().take(100).collect();
                                return Ok(Err(format!("another statement about the table followed ({text})")));
                            }
                            ended = !begun;
                        }
                    }
                }
                event::QUERY_COMPRESSED => return Ok(Err("a compressed statement followed".to_owned())),
                // It has nothing more to say just now.
                event::HEARTBEAT | event::HEARTBEAT_V2 => return Ok(Ok(())),
                _ => {}
            }
            if ended && let Some(id) = pending.take() {
                seen.advance(&id);
            }
        }
        Ok(Ok(()))
    }

    /// A statement that left rows as they are may still have changed how they lie in the log.
    pub(super) async fn schema_change(&mut self, query: &Query<'_>) -> Result<(), Error> {
        for Change { table, applied, strict, drops_rows } in self.changes(query) {
            let Some(old) = self.tables.get(&table).and_then(|followed| followed.layout.clone()) else { continue };
            let statement: String = query.text.chars().take(4_000).collect();
            let (layout, mut values) = match applied {
                Ok(applied) => (applied.layout, applied.recomputed),
                Err(Unclear) => match self.reread.take() {
                    Some((name, Ok(layout))) if name == table => {
                        let generated = layout.columns.iter().find(|column| column.generated);
                        let values = generated.map(|column| format!("column `{}` may be generated anew", column.name));
                        (layout, values)
                    }
                    other => {
                        let why = match other {
                            Some((name, Err(why))) if name == table => why,
                            _ => "the statement names several tables".to_owned(),
                        };
                        let start: String = statement.chars().take(200).collect();
                        let finding = format!(
                            "its schema after `{start}` is not certain: the text does not tell it for sure, and {why}"
                        );
                        self.stop_table(&table, finding, RELOAD.to_owned()).await?;
                        continue;
                    }
                },
            };
            if drops_rows {
                values.get_or_insert("ALTER IGNORE dropped rows that were equal in a new key".to_owned());
            }
            if layout == *old && values.is_none() {
                continue;
            }
            let effect = {
                let Some(followed) = self.tables.get(&table) else { continue };
                let excluded = |column: &str| followed.excluded.iter().any(|excluded| excluded == column);
                match ddl::effect(&old, &layout, strict, excluded) {
                    Effect::None => values.map_or(Effect::None, Effect::Values),
                    effect => effect,
                }
            };
            let layout = std::sync::Arc::new(layout);
            if let Some(followed) = self.tables.get_mut(&table) {
                followed.layout = Some(layout.clone());
            }
            for map in self.maps.values_mut().filter(|map| map.table.as_ref() == Some(&table)) {
                map.plan = None;
            }
            self.collector.layout(&table, layout, statement).await?;
            let finding = match effect {
                Effect::None => continue,
                Effect::Columns(how) => {
                    format!("its columns changed: {how}; this release does not apply schema changes yet")
                }
                Effect::Values(how) => {
                    format!("a statement may have changed its rows, which the log does not tell: {how}")
                }
            };
            self.stop_table(&table, finding, RELOAD.to_owned()).await?;
        }
        Ok(())
    }
}
