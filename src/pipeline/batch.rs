//! Gathers a source's events into batches of whole transactions.
//!
//! Events since the last boundary belong to an open transaction and wait apart; a boundary moves them over to the batch.
//! So whatever is cut and committed ends exactly at a transaction's end, for all tables of the source alike.
//!
//! An open transaction that outgrows its share of memory is put on disk as it comes ([`Gatherer::make_room`]); a rollback
//! or a crash drops it there too. Complete changes never are: they are committed instead.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::Error as RunError;
use super::prepared::{Decision, Prepared, PreparedSets};
use crate::lake::{self, Spill, SpillFile, SpilledRows, TableChange};
use crate::schema::{Layout, RESYNC, TableName};
use crate::source::{Error, Event, Position};

/// Changes of whole transactions, ready to be committed.
#[derive(Debug, Default)]
pub struct Batch {
    pub tables: HashMap<TableName, Vec<TableChange>>,
    pub rows: u64,
    /// Memory held by the rows.
    pub bytes: u64,
    /// Some of it is on disk.
    pub spilled: bool,
    pub transactions: u64,
    /// The position that the tables will hold; `None` while no boundary came.
    pub position: Option<Position>,
    /// Everything committed at the source before this moment is in the batch or was before.
    pub fresh_until: Option<DateTime<Utc>>,
    /// How rows of these tables lie in the log from the batch's position on, and by which statements; in order.
    pub layouts: Vec<(TableName, Arc<Layout>, String)>,
    /// When its first event came.
    pub since: Option<Instant>,
    /// The prepared transactions that are undecided at `position`, if they changed.
    pub prepared: Option<PreparedSets>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.layouts.is_empty()
    }
}

/// A change of the open transaction.
#[derive(Debug)]
struct Pending {
    table: TableName,
    change: TableChange,
    rows: u64,
    /// In memory.
    bytes: u64,
}

/// See the module text.
#[derive(Debug)]
pub struct Gatherer {
    complete: Batch,
    open: Vec<Pending>,
    prepared: Prepared,
    spill: Arc<Spill>,
    /// What the open transaction may have in memory.
    open_bytes_max: u64,
    /// Of the open transaction.
    files: HashMap<TableName, Arc<SpillFile>>,
    open_layouts: Vec<(TableName, Arc<Layout>, String)>,
    /// Tables that left the stream, with the reason, not yet taken.
    stopped: BTreeMap<TableName, Error>,
    /// Tables that left the stream at any time: a source may have sent more of them before it noticed.
    gone: HashSet<TableName>,
}

impl Gatherer {
    /// Begins where `prepared` are prepared and undecided.
    pub fn new(spill: Arc<Spill>, open_bytes_max: u64, prepared: PreparedSets) -> Self {
        Self {
            complete: Batch::default(),
            open: Vec::new(),
            prepared: Prepared::new(prepared),
            spill,
            open_bytes_max,
            files: HashMap::new(),
            open_layouts: Vec::new(),
            stopped: BTreeMap::new(),
            gone: HashSet::new(),
        }
    }

    pub fn complete(&self) -> &Batch {
        &self.complete
    }

    /// Memory held, open transaction included.
    pub fn bytes(&self) -> u64 {
        self.complete.bytes + self.open_bytes()
    }

    fn open_bytes(&self) -> u64 {
        self.open.iter().map(|pending| pending.bytes).sum()
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
            Event::Rows(rows) => self.push(rows.schema.name.clone(), TableChange::Rows(rows)),
            Event::Truncate(table) => self.push(table, TableChange::Truncate),
            Event::Layout { table, layout, statement } => self.open_layouts.push((table, layout, statement)),
            // Until the lake follows them, a change of columns stops its table, and new tables wait for a restart.
            Event::SchemaChange(change) => {
                let how: Vec<String> = change.steps.iter().map(ToString::to_string).collect();
                let error = Error::Table {
                    table: change.table.to_string(),
                    position: change.place.clone(),
                    finding: format!("its columns changed: {}", how.join("; ")),
                    remedy: RESYNC.to_owned(),
                };
                self.stop(change.table, error);
            }
            Event::TableDropped { .. } | Event::TableAppeared { .. } => {}
            Event::Rollback => self.drop_open(),
            Event::TableStopped { table, error } => self.stop(table, error),
            Event::Prepared { xid, unsent } => {
                let changes = std::mem::take(&mut self.open);
                self.drop_open();
                let changes = changes.into_iter().map(|pending| (pending.table, pending.change)).collect();
                self.prepared.hold(xid, changes, unsent);
            }
            Event::Decided { xid, commit, wanting, place } => {
                let Decision { changes, lost } = self.prepared.decide(&xid, commit, &wanting, &place);
                for (table, change) in changes {
                    self.push(table, change);
                }
                for (table, error) in lost {
                    self.stop(table, error);
                }
            }
            Event::Boundary { position, committed_at, transactions, caught_up, told_at } => {
                for Pending { table, change, rows, bytes } in self.open.drain(..) {
                    self.complete.rows += rows;
                    self.complete.bytes += bytes;
                    self.complete.spilled |= matches!(change, TableChange::Spilled(_));
                    self.complete.tables.entry(table).or_default().push(change);
                }
                // The next transaction gets files of its own, so that these are gone when the batch is done.
                self.files.clear();
                self.complete.layouts.append(&mut self.open_layouts);
                self.complete.transactions += transactions;
                self.complete.position = Some(position);
                self.complete.prepared = self.prepared.take_changed().or(self.complete.prepared.take());
                self.complete.since.get_or_insert_with(Instant::now);
                let fresh_until = if caught_up { Some(told_at) } else { committed_at };
                self.complete.fresh_until = fresh_until.or(self.complete.fresh_until);
            }
        }
    }

    fn stop(&mut self, table: TableName, error: Error) {
        self.forget(&table);
        self.gone.insert(table.clone());
        self.stopped.insert(table, error);
    }

    fn push(&mut self, table: TableName, change: TableChange) {
        if self.gone.contains(&table) {
            return;
        }
        let (rows, bytes) = match &change {
            TableChange::Rows(rows) => (rows.ops.len() as u64, rows.memory_bytes()),
            TableChange::Spilled(rows) => (u64::from(rows.rows()), 0),
            TableChange::Truncate => {
                // What came before it is of no effect, and need not wait for the end of the transaction.
                self.forget(&table);
                (0, 0)
            }
        };
        self.open.push(Pending { table, change, rows, bytes });
    }

    /// Drops a table's part of the open transaction.
    fn forget(&mut self, table: &TableName) {
        self.open.retain(|pending| pending.table != *table);
        self.files.remove(table);
    }

    /// Forgets the open transaction.
    fn drop_open(&mut self) {
        self.open.clear();
        self.files.clear();
        self.open_layouts.clear();
    }

    /// Puts the open transaction on disk when it holds more memory than it may.
    pub async fn make_room(&mut self) -> Result<(), RunError> {
        if self.open_bytes() < self.open_bytes_max {
            return Ok(());
        }
        let (open, files, spill) =
            (std::mem::take(&mut self.open), std::mem::take(&mut self.files), self.spill.clone());
        let spilled = tokio::task::spawn_blocking(move || put_on_disk(open, files, &spill)).await?;
        (self.open, self.files) = spilled.map_err(lake::Error::from)?;
        Ok(())
    }
}

type OnDisk = (Vec<Pending>, HashMap<TableName, Arc<SpillFile>>);

fn put_on_disk(
    mut open: Vec<Pending>,
    mut files: HashMap<TableName, Arc<SpillFile>>,
    spill: &Arc<Spill>,
) -> Result<OnDisk, lake::SpillError> {
    for pending in &mut open {
        let TableChange::Rows(rows) = &pending.change else { continue };
        let file = match files.get(&pending.table) {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(SpillFile::create(spill)?);
                files.insert(pending.table.clone(), file.clone());
                file
            }
        };
        pending.change = TableChange::Spilled(SpilledRows::write(&file, rows)?);
        pending.bytes = 0;
    }
    Ok((open, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ColumnBuilder, LakeType, Op, Policy, RowBuilder, RowIdentity, TableRows, TableSchema};

    fn gatherer() -> Gatherer {
        Gatherer::new(Spill::new(std::env::temp_dir(), 1 << 30, 1 << 20), 1, PreparedSets::new())
    }

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
        let mut gatherer = gatherer();
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
        let mut gatherer = gatherer();
        gatherer.add(truncate());
        gatherer.add(boundary(7));
        gatherer.add(truncate());
        gatherer.add(Event::Rollback);
        gatherer.add(boundary(9));
        assert_eq!(gatherer.cut().0.tables.values().map(Vec::len).sum::<usize>(), 1);
    }

    #[test]
    fn a_stopped_table_keeps_its_complete_transactions_only() {
        let mut gatherer = gatherer();
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

    fn row() -> Event {
        let column = Column {
            name: "id".into(),
            source_type: String::new(),
            lake_type: LakeType::Long,
            nullable: false,
            policy: Policy::default(),
        };
        let schema = TableSchema {
            name: TableName::new("booking", "coupons"),
            columns: vec![column],
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        };
        let mut builder = RowBuilder::new(Arc::new(schema));
        let ColumnBuilder::Long(ids) = &mut builder.columns[0] else { panic!("a long column") };
        ids.append_value(7);
        builder.end_row().expect("one column");
        Event::Rows(TableRows {
            schema: builder.schema().clone(),
            rows: builder.finish().expect("valid"),
            ops: vec![Op::Insert],
            unchanged: Vec::new(),
            unfaithful: Vec::new(),
        })
    }

    ///
    #[tokio::test]
    async fn an_open_transaction_waits_on_disk_and_comes_back_whole() {
        let mut gatherer = gatherer();
        for _ in 0..3 {
            gatherer.add(row());
            gatherer.make_room().await.expect("room on disk");
            assert_eq!(gatherer.bytes(), 0, "nothing stays in memory");
        }
        assert!(gatherer.complete().is_empty() && gatherer.spill.used() > 0);
        gatherer.add(boundary(7));
        let (batch, _) = gatherer.cut();
        assert_eq!((batch.rows, batch.spilled), (3, true));
        for change in batch.tables.values().flatten() {
            let TableChange::Spilled(rows) = change else { panic!("on disk") };
            assert_eq!(rows.read().expect("readable").ops, [Op::Insert]);
        }
        drop(batch);
        assert_eq!(gatherer.spill.used(), 0, "the files are gone with their batch");
    }

    ///
    #[tokio::test]
    async fn what_never_happened_leaves_the_disk_at_once() {
        let stopped =
            || Event::TableStopped { table: TableName::new("booking", "coupons"), error: Error::ReceiverGone };
        for (end, changes) in [(Event::Rollback, 0), (stopped(), 0), (truncate(), 1)] {
            let mut gatherer = gatherer();
            gatherer.add(row());
            gatherer.make_room().await.expect("room on disk");
            gatherer.add(end);
            assert_eq!(gatherer.spill.used(), 0);
            gatherer.add(boundary(7));
            assert_eq!(gatherer.cut().0.tables.values().map(Vec::len).sum::<usize>(), changes);
        }
    }
}
