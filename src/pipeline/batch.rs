//! Gathers a source's events into batches of whole transactions.
//!
//! Events since the last boundary belong to an open transaction and wait apart; a boundary moves them over to the batch.
//! So whatever is cut and committed ends exactly at a transaction's end, for all tables of the source alike.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::lake::TableChange;
use crate::schema::{Layout, TableName};
use crate::source::{Error, Event, Position};

/// Changes of whole transactions, ready to be committed.
#[derive(Debug, Default)]
pub struct Batch {
    pub tables: HashMap<TableName, Vec<TableChange>>,
    pub rows: u64,
    /// Memory held by the rows.
    pub bytes: u64,
    pub transactions: u64,
    /// The position that the tables will hold; `None` while no boundary came.
    pub position: Option<Position>,
    /// Everything committed at the source before this moment is in the batch or was before.
    pub fresh_until: Option<DateTime<Utc>>,
    /// How rows of these tables lie in the log from the batch's position on, and by which statements; in order.
    pub layouts: Vec<(TableName, Arc<Layout>, String)>,
    /// When its first event came.
    pub since: Option<Instant>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.layouts.is_empty()
    }
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Gatherer {
    complete: Batch,
    open: Vec<(TableName, TableChange)>,
    open_rows: u64,
    open_bytes: u64,
    open_layouts: Vec<(TableName, Arc<Layout>, String)>,
    /// Tables that left the stream, with the reason, not yet taken.
    stopped: BTreeMap<TableName, Error>,
    /// Tables that left the stream at any time: a source may have sent more of them before it noticed.
    gone: HashSet<TableName>,
}

impl Gatherer {
    pub fn complete(&self) -> &Batch {
        &self.complete
    }

    /// Memory held, open transaction included.
    pub fn bytes(&self) -> u64 {
        self.complete.bytes + self.open_bytes
    }

    /// Takes the complete batch and the tables that stopped; the open transaction stays.
    pub fn cut(&mut self) -> (Batch, BTreeMap<TableName, Error>) {
        (std::mem::take(&mut self.complete), std::mem::take(&mut self.stopped))
    }

    pub fn has_stopped_tables(&self) -> bool {
        !self.stopped.is_empty()
    }

    /// Adds the next event of the source.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Rows(rows) => {
                self.open_rows += rows.ops.len() as u64;
                self.open_bytes += rows.rows.get_array_memory_size() as u64;
                self.push(rows.schema.name.clone(), TableChange::Rows(rows));
            }
            Event::Truncate(table) => self.push(table, TableChange::Truncate),
            Event::Layout { table, layout, statement } => self.open_layouts.push((table, layout, statement)),
            Event::Rollback => self.drop_open(),
            Event::TableStopped { table, error } => {
                self.open.retain(|(name, _)| *name != table);
                self.gone.insert(table.clone());
                self.stopped.insert(table, error);
            }
            Event::Boundary { position, committed_at, transactions, caught_up, told_at } => {
                for (table, change) in self.open.drain(..) {
                    self.complete.tables.entry(table).or_default().push(change);
                }
                self.complete.layouts.append(&mut self.open_layouts);
                self.complete.rows += std::mem::take(&mut self.open_rows);
                self.complete.bytes += std::mem::take(&mut self.open_bytes);
                self.complete.transactions += transactions;
                self.complete.position = Some(position);
                self.complete.since.get_or_insert_with(Instant::now);
                let fresh_until = if caught_up { Some(told_at) } else { committed_at };
                self.complete.fresh_until = fresh_until.or(self.complete.fresh_until);
            }
        }
    }

    fn push(&mut self, table: TableName, change: TableChange) {
        if !self.gone.contains(&table) {
            self.open.push((table, change));
        }
    }

    /// Forgets the open transaction.
    fn drop_open(&mut self) {
        self.open.clear();
        self.open_layouts.clear();
        self.open_rows = 0;
        self.open_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truncate() -> Event {
        Event::Truncate(TableName::new("booking", "coupons"))
    }

    fn boundary(lsn: u64) -> Event {
        Event::Boundary {
            position: Position::Lsn(lsn),
            committed_at: None,
            transactions: 1,
            caught_up: false,
            told_at: Utc::now(),
        }
    }

    #[test]
    fn a_batch_ends_at_a_boundary() {
        let mut gatherer = Gatherer::default();
        gatherer.add(truncate());
        assert!(gatherer.complete().is_empty(), "the transaction is still open");
        gatherer.add(boundary(7));
        gatherer.add(truncate());
        let (batch, _) = gatherer.cut();
        assert_eq!(batch.position, Some(Position::Lsn(7)));
        assert_eq!(batch.tables.values().map(Vec::len).sum::<usize>(), 1);
        gatherer.add(boundary(9));
        assert_eq!(gatherer.cut().0.tables.len(), 1, "the open transaction came with the next batch");
    }

    ///
    #[test]
    fn a_rolled_back_transaction_leaves_nothing() {
        let mut gatherer = Gatherer::default();
        gatherer.add(truncate());
        gatherer.add(boundary(7));
        gatherer.add(truncate());
        gatherer.add(Event::Rollback);
        gatherer.add(boundary(9));
        assert_eq!(gatherer.cut().0.tables.values().map(Vec::len).sum::<usize>(), 1);
    }

    #[test]
    fn a_stopped_table_keeps_its_complete_transactions_only() {
        let mut gatherer = Gatherer::default();
        gatherer.add(truncate());
        gatherer.add(boundary(7));
        gatherer.add(truncate());
        gatherer.add(Event::TableStopped { table: TableName::new("booking", "coupons"), error: Error::ReceiverGone });
        gatherer.add(truncate());
        gatherer.add(boundary(9));
        let (batch, stopped) = gatherer.cut();
        assert_eq!(batch.tables.values().map(Vec::len).sum::<usize>(), 1);
        assert_eq!(stopped.len(), 1);
    }
}
