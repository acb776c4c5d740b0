//! What a statement's text does not tell, asked of the server before the statement is handled.
//!
//! A layout from the catalog counts only if it is provably the one in force at the statement: it had ended before the answer
//! was taken, and no further statement about the table is in the log up to where the server stood after that. To see that,
//! the log is read ahead, and what was read waits for its turn. If that proves nothing, the table stops.

use chrono::{DateTime, Utc};
use mysql_common::binlog::events::Event as BinlogEvent;
use tokio::time::{Duration, timeout};

use crate::schema::{Layout, TableName};
use crate::source::{Error, Position, TransactionId};

use super::super::compressed;
use super::super::connection::{Session, quoted};
use super::super::fill::Moment;
use super::super::marker::{MariaDbGtid, Query, mysql_gtid};
use super::super::statement::{Statement, Words};
use super::super::transport::Transport;
use super::super::wire::Fault;
use super::super::{layout, moment, position};
use super::{Reader, event, tagged};

/// How much of the log is read ahead to prove a layout.
const AHEAD_BYTES_MAX: usize = 64 << 20;
const AHEAD_TIME_MAX: Duration = Duration::from_secs(30);

impl Reader {
    /// Asks the server, if the event is a statement whose effect its text does not tell.
    pub(super) async fn foresee(&mut self, next: &BinlogEvent, transport: &mut Transport) -> Result<(), Error> {
        self.reread = None;
        self.moments.clear();
        let header = next.header();
        let kind = header.event_type_raw();
        if !matches!(kind, event::QUERY | event::QUERY_COMPRESSED)
            || self.open.as_ref().is_some_and(|open| open.begun || open.ineffective)
        {
            return Ok(());
        }
        let unpacked;
        let body = if kind == event::QUERY {
            next.data()
        } else {
            // What can't be read is told when it is handled.
            let Ok(body) = compressed::query(next.data()) else { return Ok(()) };
            unpacked = body;
            &unpacked
        };
        let Ok(query) = Query::parse(body, 0, &self.collations) else { return Ok(()) };
        if query.error_code != 0 {
            return Ok(());
        }
        let table = match Statement::recognise(&query.text) {
            Statement::Harmless => {
                let time = DateTime::from_timestamp(i64::from(header.timestamp()), 0);
                let changes = self.changes(&query);
                let moments = self.unknown_moments(&changes, &query, time);
                self.ask_moments(moments, time, transport).await?;
                changes.into_iter().find(|change| change.applied.is_err()).map(|change| change.table)
            }
            Statement::Rename(pairs) => self.unknown_ghost(&pairs, &query.schema),
            _ => None,
        };
        let Some(table) = table else { return Ok(()) };
        let mut here = self.collector.position().clone();
        match self.open.as_ref().and_then(|open| open.id.as_ref()) {
            Some(id) if !self.by_offset => here.advance(id),
            _ => {
                let offset = (self.offset & !0xFFFF_FFFF) | u64::from(header.log_pos());
                here = Position::BinlogOffset { file: self.file.clone(), offset };
            }
        }
        let read = self.read_again(&table, here, transport).await?;
        self.reread = Some((table, read));
        Ok(())
    }

    async fn ask_moments(
        &mut self,
        moments: Vec<Moment>,
        time: Option<DateTime<Utc>>,
        transport: &Transport,
    ) -> Result<(), Error> {
        if moments.is_empty() {
            return Ok(());
        }
        let mut session = Session::open(&transport.config).await?;
        for wanted in moments {
            let answer = moment::ask(&mut session, &wanted, time).await?;
            self.moments.insert(wanted, answer);
        }
        Ok(())
    }

    /// The table's layout by the catalog, or why that is not known to be the one in force after `here`.
    async fn read_again(
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
                        Statement::Begin | Statement::XaStart | Statement::CreateTransactional(_) => begun = true,
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
}
