//! Gathers decoded rows per table and hands them on in batches, whole transactions together.
//!
//! Both kinds of log use it the same way: append rows through [`Collector::rows`], then [`Collector::commit`] at each
//! commit marker. Rows leave when a limit is reached, when the log has nothing more to read just now
//! ([`Collector::idle`]), or, inside a very large transaction, in the middle of it: then without a boundary, so that
//! the pipeline can't cut there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::{Error, Event, Position, TransactionId};
use crate::schema::{Layout, Op, RowBuilder, SchemaChange, TableName, TableRows, TableSchema};

/// When gathered rows are handed on.
#[derive(Clone, Copy, Debug)]
pub struct CollectorLimits {
    pub rows_max: usize,
    /// Of log, not of memory.
    pub bytes_max: usize,
    pub age_max: Duration,
}

impl Default for CollectorLimits {
    fn default() -> Self {
        Self { rows_max: 16_384, bytes_max: 8 << 20, age_max: Duration::from_millis(250) }
    }
}

/// Rows of one table that have not been handed on.
#[derive(Debug)]
pub struct RowSink {
    pub builder: RowBuilder,
    pub ops: Vec<Op>,
    pub unchanged: Vec<(u32, u16)>,
    /// Rows of complete transactions; those behind belong to the open one.
    complete: usize,
}

impl RowSink {
    fn new(schema: Arc<TableSchema>) -> Self {
        Self { builder: RowBuilder::new(schema), ops: Vec::new(), unchanged: Vec::new(), complete: 0 }
    }

    /// Closes the row whose columns were just appended.
    pub fn end_row(&mut self, op: Op) -> Result<(), Error> {
        self.builder.end_row()?;
        self.ops.push(op);
        Ok(())
    }

    fn take(&mut self) -> Result<TableRows, Error> {
        self.complete = 0;
        Ok(TableRows {
            schema: self.builder.schema().clone(),
            rows: self.builder.finish()?,
            ops: std::mem::take(&mut self.ops),
            unchanged: std::mem::take(&mut self.unchanged),
            unfaithful: self.builder.take_unfaithful(),
        })
    }
}

/// A point inside the open transaction.
#[derive(Clone, Debug)]
pub struct Mark {
    rows: HashMap<TableName, usize>,
    taken: u64,
}

/// See the module text.
pub struct Collector {
    sinks: HashMap<TableName, RowSink>,
    out: mpsc::Sender<Event>,
    limits: CollectorLimits,
    position: Position,
    /// The position that the last boundary told.
    told: Position,
    committed_at: Option<DateTime<Utc>>,
    /// Of the first transaction since the last boundary.
    first_committed_at: Option<DateTime<Utc>>,
    transactions: u64,
    rows: usize,
    bytes: usize,
    oldest: Option<Instant>,
    /// Events of the open transaction were handed on already.
    torn: bool,
    /// How often the sinks were emptied: marks of before have lost their meaning.
    taken: u64,
}

impl Collector {
    pub fn new(from: Position, limits: CollectorLimits, out: mpsc::Sender<Event>) -> Self {
        Self {
            sinks: HashMap::new(),
            out,
            limits,
            told: from.clone(),
            position: from,
            committed_at: None,
            first_committed_at: None,
            transactions: 0,
            rows: 0,
            bytes: 0,
            oldest: None,
            torn: false,
            taken: 0,
        }
    }

    /// The position after the last complete transaction.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Where rows of this table go. It keeps its schema until [`Collector::schema_change`].
    pub fn rows(&mut self, schema: &Arc<TableSchema>) -> &mut RowSink {
        // `entry` would clone the name for every event.
        if !self.sinks.contains_key(&schema.name) {
            self.sinks.insert(schema.name.clone(), RowSink::new(schema.clone()));
        }
        self.sinks.get_mut(&schema.name).expect("inserted above")
    }

    /// Counts log bytes just decoded; hands rows on when a transaction outgrows the limits.
    pub async fn decoded(&mut self, rows: usize, bytes: usize) -> Result<(), Error> {
        self.rows += rows;
        self.bytes += bytes;
        self.oldest.get_or_insert_with(Instant::now);
        if self.rows >= self.limits.rows_max || self.bytes >= self.limits.bytes_max {
            self.hand_on_rows(true).await?;
        }
        Ok(())
    }

    /// Empties the table at this point of the log.
    pub async fn truncate(&mut self, table: &TableName) -> Result<(), Error> {
        self.hand_on_rows(true).await?;
        self.torn = true;
        self.send(Event::Truncate(table.clone())).await
    }

    /// Tells that the table has another schema from here on; its rows so far go first.
    pub async fn schema_change(&mut self, change: SchemaChange) -> Result<(), Error> {
        let table = change.table.clone();
        self.tell(Event::SchemaChange(Box::new(change))).await?;
        self.sinks.remove(&table);
        Ok(())
    }

    /// Sends what stands between rows, at its place.
    pub async fn tell(&mut self, event: Event) -> Result<(), Error> {
        self.hand_on_rows(true).await?;
        self.torn = true;
        self.send(event).await
    }

    /// Where the open transaction stands now.
    pub fn mark(&self) -> Mark {
        let rows = self.sinks.iter().map(|(name, sink)| (name.clone(), sink.builder.rows())).collect();
        Mark { rows, taken: self.taken }
    }

    /// Undoes what came since the mark. `false` when it can't: some of it was handed on already.
    pub async fn rollback_to(&mut self, mark: &Mark) -> Result<bool, Error> {
        if mark.taken != self.taken {
            return Ok(false);
        }
        self.taken += 1;
        let mut complete_batches = Vec::new();
        let mut batches = Vec::new();
        for (name, sink) in self.sinks.iter_mut().filter(|(_, sink)| sink.builder.rows() > 0) {
            let complete = sink.complete;
            let (kept, _) = sink.take()?.split_at(mark.rows.get(name).copied().unwrap_or(0));
            let Some(kept) = kept else { continue };
            let (head, tail) = kept.split_at(complete);
            complete_batches.extend(head);
            batches.extend(tail);
        }
        for batch in complete_batches {
            self.send(Event::Rows(batch)).await?;
        }
        if self.transactions > 0 {
            let boundary = self.take_boundary(false);
            self.send(boundary).await?;
        }
        self.torn |= !batches.is_empty();
        for batch in batches {
            self.send(Event::Rows(batch)).await?;
        }
        self.rows = 0;
        self.bytes = 0;
        self.oldest = None;
        Ok(true)
    }

    /// The open transaction's rows are those of a prepared one. Its end follows at once.
    pub async fn prepared(&mut self, xid: String, unsent: Vec<TableName>) -> Result<(), Error> {
        self.hand_on_rows(true).await?;
        self.torn = true;
        self.send(Event::Prepared { xid, unsent }).await
    }

    /// A prepared transaction is decided in the open one. Its end follows at once.
    pub async fn decided(
        &mut self,
        xid: String,
        commit: bool,
        wanting: Vec<TableName>,
        place: String,
    ) -> Result<(), Error> {
        self.hand_on_rows(true).await?;
        self.torn = true;
        self.send(Event::Decided { xid, commit, wanting, place }).await
    }

    /// Tells that rows of the table lie otherwise in the log from here on; the transaction under way did that.
    pub async fn layout(&mut self, table: &TableName, layout: Arc<Layout>, statement: String) -> Result<(), Error> {
        self.hand_on_rows(true).await?;
        self.torn = true;
        self.send(Event::Layout { table: table.clone(), layout, statement }).await
    }

    /// Drops what is gathered of a table and tells that it stops here.
    pub async fn stop_table(&mut self, table: &TableName, error: Error, by_change: bool) -> Result<(), Error> {
        self.sinks.remove(table);
        self.send(Event::TableStopped { table: table.clone(), error, by_change }).await
    }

    /// The open transaction is complete.
    pub async fn commit(
        &mut self,
        transaction: &TransactionId,
        committed_at: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        self.position.advance(transaction);
        self.transactions += 1;
        self.committed_at = committed_at.or(self.committed_at);
        self.first_committed_at = self.first_committed_at.or(committed_at);
        for sink in self.sinks.values_mut() {
            sink.complete = sink.builder.rows();
        }
        let due = self.torn
            || self.rows >= self.limits.rows_max
            || self.bytes >= self.limits.bytes_max
            || self.oldest.is_some_and(|oldest| oldest.elapsed() >= self.limits.age_max)
            || self.transactions >= self.limits.rows_max as u64;
        if due { self.boundary(false).await } else { Ok(()) }
    }

    /// The position moved though no transaction of ours ended: an idle database's heartbeat.
    pub fn moved_to(&mut self, position: Position) {
        self.position = position;
    }

    /// The log has nothing more to read just now. Call only between transactions.
    pub async fn idle(&mut self) -> Result<(), Error> {
        self.boundary(true).await
    }

    /// Whether something was told since the last boundary.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Whether anything waits to be told by [`Collector::idle`].
    pub fn is_dirty(&self) -> bool {
        self.rows > 0 || self.transactions > 0 || self.torn || self.position != self.told
    }

    /// The open transaction never happened.
    pub async fn rollback(&mut self) -> Result<(), Error> {
        if self.torn {
            self.torn = false;
            self.taken += 1;
            self.sinks.clear();
            self.rows = 0;
            return self.send(Event::Rollback).await;
        }
        self.taken += 1;
        let mut kept = Vec::new();
        for sink in self.sinks.values_mut().filter(|sink| sink.builder.rows() > 0) {
            let complete = sink.complete;
            let (head, _) = sink.take()?.split_at(complete);
            kept.extend(head);
        }
        for batch in kept {
            self.send(Event::Rows(batch)).await?;
        }
        self.rows = 0;
        // What was kept belongs to complete transactions, so their boundary has to follow it.
        if self.transactions > 0 { self.boundary(false).await } else { Ok(()) }
    }

    async fn boundary(&mut self, caught_up: bool) -> Result<(), Error> {
        self.hand_on_rows(false).await?;
        self.torn = false;
        let boundary = self.take_boundary(caught_up);
        self.send(boundary).await
    }

    /// Sends all gathered rows. In the middle of a transaction the complete ones before it get their boundary first.
    async fn hand_on_rows(&mut self, inside_transaction: bool) -> Result<(), Error> {
        self.taken += 1;
        let split = inside_transaction && self.transactions > 0;
        let mut complete_batches = Vec::new();
        let mut batches = Vec::new();
        for sink in self.sinks.values_mut().filter(|sink| sink.builder.rows() > 0) {
            let complete = if split { sink.complete } else { 0 };
            let (head, tail) = sink.take()?.split_at(complete);
            complete_batches.extend(head);
            batches.extend(tail);
        }
        if split {
            for batch in complete_batches {
                self.send(Event::Rows(batch)).await?;
            }
            let boundary = self.take_boundary(false);
            self.send(boundary).await?;
        }
        self.torn |= inside_transaction && !batches.is_empty();
        for batch in batches {
            self.send(Event::Rows(batch)).await?;
        }
        self.rows = 0;
        self.bytes = 0;
        self.oldest = None;
        Ok(())
    }

    fn take_boundary(&mut self, caught_up: bool) -> Event {
        self.told = self.position.clone();
        Event::Boundary {
            position: self.position.clone(),
            committed_at: self.committed_at,
            first_committed_at: self.first_committed_at.take(),
            transactions: std::mem::take(&mut self.transactions),
            caught_up,
            told_at: Utc::now(),
        }
    }

    async fn send(&self, event: Event) -> Result<(), Error> {
        self.out.send(event).await.map_err(|_| Error::ReceiverGone)
    }
}
