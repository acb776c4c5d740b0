//! Gathers a source's events into batches of whole transactions.
//!
//! Events since the last boundary belong to an open transaction and wait apart; a boundary moves them over to the batch.
//! So whatever is cut and committed ends exactly at a transaction's end, for all tables of the source alike.
//!
//! An open transaction that outgrows its share of memory is put on disk as it comes ([`Gatherer::make_room`]); a rollback
//! or a crash drops it there too. Complete changes never are: they are committed instead.
//!
//! A table may leave: it stops, waits for a decision, or is gone at the source. What of it was complete before is committed,
//! and counts for the table as the position before. While one waits, the batch says up to where the ledger may go: the
//! boundary before the change that waits, however far the other tables are (docs/decisions/010-waiting-tables.md).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Error as RunError;
use super::following::{Answer, Following, TableEvent};
use super::prepared::{Decision, Prepared, PreparedSets};
use crate::config::{ChangeKind, ChangePolicy};
use crate::lake::{self, Committed, Spill, SpillFile, SpilledRows, TableChange};
use crate::ledger::Decided;
use crate::schema::{ChangeRecord, Layout, Outcome, TableName};
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
    /// The position where it begins: the end of the batch before, or of what was read anew.
    pub after: Option<Position>,
    /// When its transactions were committed, as far as the source tells.
    pub committed: Option<Committed>,
    /// How far the ledger may go with this batch: `position`, unless a table waits. `None`: no further than it is.
    pub durable: Option<Position>,
    /// Everything committed at the source before this moment is in the batch or was before.
    pub fresh_until: Option<DateTime<Utc>>,
    /// How rows of these tables lie in the log from the batch's position on, and by which statements; in order.
    pub layouts: Vec<(TableName, Arc<Layout>, String)>,
    /// When its first event came.
    pub since: Option<Instant>,
    /// The prepared transactions that are undecided at `durable`, if they changed.
    pub prepared: Option<PreparedSets>,
    /// Tables that go no further.
    pub leaving: BTreeMap<TableName, Leaving>,
}

/// A table that leaves the stream.
#[derive(Debug)]
pub struct Leaving {
    /// It has everything up to here.
    pub position: Position,
    pub why: Left,
}

#[derive(Debug)]
pub enum Left {
    /// It can't be followed.
    Stopped(Error),
    /// A change through which its rows can't be carried: it is to be loaded again.
    Reload { record: ChangeRecord, error: Error },
    /// A change that is not to be, or can't be, followed.
    Refused { record: ChangeRecord, error: Error },
    /// A change that somebody has to decide about.
    Waiting { record: ChangeRecord, why: String },
    /// It is gone at the source.
    Dropped { at: Option<DateTime<Utc>> },
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.layouts.is_empty() && self.leaving.is_empty()
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
    /// What happened to whole tables in the open transaction; how it ends is seen at the boundary.
    open_events: Vec<(TableName, TableEvent)>,
    following: Following,
    /// The last boundary.
    at: Position,
    /// Tables that left the stream at any time: a source may have sent more of them before it noticed.
    gone: HashSet<TableName>,
    /// Those of them that are gone at the source.
    dropped: HashSet<TableName>,
    /// Those that wait, and for the decision about which change. From the first one on the ledger stays where it is.
    waiting: HashMap<TableName, Uuid>,
    /// Decided changes that are made good at the next boundary.
    settling: Vec<(TableName, Uuid)>,
    /// Tables that are new, by the places where the log tells of them; not yet taken.
    appeared: Vec<(TableName, String)>,
    /// The log has to be read again from where the ledger is.
    overtaken: bool,
}

impl Gatherer {
    /// Begins at position `from`, where `prepared` are prepared and undecided.
    pub fn new(
        spill: Arc<Spill>,
        open_bytes_max: u64,
        from: Position,
        prepared: PreparedSets,
        following: Following,
    ) -> Self {
        let settling = following.decided_before();
        let mut gatherer = Self {
            complete: Batch { after: Some(from.clone()), ..Batch::default() },
            open: Vec::new(),
            prepared: Prepared::new(prepared),
            spill,
            open_bytes_max,
            files: HashMap::new(),
            open_layouts: Vec::new(),
            open_events: Vec::new(),
            following,
            at: from,
            gone: HashSet::new(),
            dropped: HashSet::new(),
            waiting: HashMap::new(),
            settling,
            appeared: Vec::new(),
            overtaken: false,
        };
        gatherer.settle();
        gatherer
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

    /// Takes the complete batch; the open transaction stays.
    pub fn cut(&mut self) -> Batch {
        let next = Batch { after: Some(self.at.clone()), ..Batch::default() };
        std::mem::replace(&mut self.complete, next)
    }

    /// Whether anything waits for somebody's decision.
    pub fn asks(&self) -> bool {
        !self.waiting.is_empty() || self.following.holds()
    }

    /// Takes the tables that turned up since the last call, with the places where the log tells of them.
    pub fn take_appeared(&mut self) -> Vec<(TableName, String)> {
        std::mem::take(&mut self.appeared)
    }

    /// Whether the log has to be read again from where the ledger is: somebody decided about a table that waits.
    pub fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Somebody decided about a change. About one that nobody waits for here, it is remembered.
    pub fn decided(&mut self, decided: &Decided) {
        self.overtaken |= self.waiting.values().any(|change| *change == decided.change);
        if let Some(table) = self.following.decided(decided.change, decided.verdict) {
            self.settling.push((table, decided.change));
            self.settle();
        }
    }

    /// Makes good what was decided, for tables that have nothing in the open transaction.
    fn settle(&mut self) {
        for (table, change) in std::mem::take(&mut self.settling) {
            if self.gone.contains(&table) {
                continue;
            }
            let is_open = self.open.iter().any(|pending| pending.table == table)
                || self.open_events.iter().any(|(other, _)| *other == table);
            if is_open {
                self.settling.push((table, change));
            } else if let Some(evolution) = self.following.settle(&table, change) {
                self.complete.tables.entry(table).or_default().push(TableChange::Evolve(evolution));
                self.complete.position.get_or_insert_with(|| self.at.clone());
                self.complete.since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Adds the next event of the source.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Rows(rows) => {
                let table = rows.schema.name.clone();
                if !self.streams(&table) {
                    return;
                }
                match self.following.project(rows, &self.at) {
                    Ok(rows) => self.push(table, TableChange::Rows(rows)),
                    Err(error) => self.leave(table, Left::Stopped(error)),
                }
            }
            Event::Truncate(table) => {
                if self.following.policy(&table, ChangeKind::Truncate) == Some(ChangePolicy::Apply) {
                    self.push(table.clone(), TableChange::Truncate);
                }
                // Its place is told by the boundary.
                self.happened(table, ChangeKind::Truncate, String::new(), None, None);
            }
            Event::Layout { table, layout, statement } => self.open_layouts.push((table, layout, statement)),
            Event::SchemaChange(change) => {
                if !self.streams(&change.table) {
                    return;
                }
                match self.following.change(&change) {
                    Some(Answer::Evolve(evolutions)) => {
                        for evolution in evolutions {
                            self.push(change.table.clone(), TableChange::Evolve(evolution));
                        }
                    }
                    Some(Answer::Wait { record, why }) => self.leave(change.table, Left::Waiting { record, why }),
                    Some(Answer::Reload { record, error }) => self.leave(change.table, Left::Reload { record, error }),
                    Some(Answer::Stop { record, error }) => self.leave(change.table, Left::Refused { record, error }),
                    None => {}
                }
            }
            Event::TableDropped { table, statement, place, at } => {
                self.happened(table, ChangeKind::DropTable, place, at, statement);
            }
            Event::TableAppeared { table, place, .. } => {
                if self.dropped.contains(&table) || !self.following.knows(&table) {
                    self.appeared.push((table, place));
                }
            }
            Event::Rollback => self.drop_open(),
            Event::TableStopped { table, error, by_change } => {
                // One that waits can't go on there any more either.
                let waited = self.waiting.remove(&table).is_some();
                self.overtaken |= waited;
                if !waited && !self.streams(&table) {
                    return;
                }
                // What nobody has decided is not to be loaded either.
                let left = match by_change && !waited {
                    true => self.following.untold(&table, error),
                    false => Err(error),
                };
                let why = left.map_or_else(Left::Stopped, |(record, error)| Left::Reload { record, error });
                self.leave(table, why);
            }
            Event::Prepared { xid, unsent } => {
                let changes = std::mem::take(&mut self.open);
                let changes = changes.into_iter().map(|pending| (pending.table, pending.change)).collect();
                self.prepared.hold(xid, changes, unsent, &self.following);
                self.drop_open();
            }
            Event::Decided { xid, commit, wanting, place } => {
                let Decision { changes, lost } = self.prepared.decide(&xid, commit, &wanting, &place, &self.following);
                for (table, change) in changes {
                    self.push(table, change);
                }
                for (table, error) in lost {
                    if self.streams(&table) {
                        self.leave(table, Left::Stopped(error));
                    }
                }
            }
            Event::Boundary { position, committed_at, first_committed_at, transactions, caught_up, told_at } => {
                let dropped = self.end_events(&position);
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
                self.complete.position = Some(position.clone());
                self.at = position;
                self.following.boundary();
                for (table, at) in dropped {
                    self.leave(table, Left::Dropped { at });
                }
                if let Some(last) = committed_at.filter(|_| transactions > 0) {
                    let first = first_committed_at.unwrap_or(last);
                    let committed = Committed { first: first.min(last), last: first.max(last) };
                    let before = self.complete.committed;
                    self.complete.committed = Some(before.map_or(committed, |before| before.and(committed)));
                }
                if self.complete.tables.is_empty() {
                    // None of what came so far is about the tables.
                    self.complete.after = Some(self.at.clone());
                    self.complete.committed = None;
                }
                if self.waiting.is_empty() && !self.overtaken {
                    self.complete.durable = Some(self.at.clone());
                    self.complete.prepared = self.prepared.take_changed().or(self.complete.prepared.take());
                }
                self.settle();
                self.complete.since.get_or_insert_with(Instant::now);
                let fresh_until = if caught_up { Some(told_at) } else { committed_at };
                self.complete.fresh_until = fresh_until.or(self.complete.fresh_until);
            }
        }
    }

    /// The lake can't take any more of the table.
    pub fn lost(&mut self, table: &TableName) {
        self.forget(table);
        self.complete.tables.remove(table);
        self.complete.leaving.remove(table);
        self.overtaken |= self.waiting.remove(table).is_some();
        self.gone.insert(table.clone());
    }

    fn streams(&self, table: &TableName) -> bool {
        self.following.shape(table).is_some() && !self.gone.contains(table)
    }

    /// The table has what was complete at the last boundary, and nothing more.
    fn leave(&mut self, table: TableName, why: Left) {
        self.forget(&table);
        self.gone.insert(table.clone());
        match &why {
            Left::Waiting { record, .. } => {
                self.waiting.insert(table.clone(), record.id);
            }
            Left::Dropped { .. } => {
                self.dropped.insert(table.clone());
            }
            Left::Stopped(_) | Left::Refused { .. } | Left::Reload { .. } => {}
        }
        self.complete.leaving.insert(table, Leaving { position: self.at.clone(), why });
    }

    /// Something happened to a whole table in the open transaction.
    fn happened(
        &mut self,
        table: TableName,
        kind: ChangeKind,
        place: String,
        at: Option<DateTime<Utc>>,
        statement: Option<String>,
    ) {
        if !self.streams(&table) {
            return;
        }
        let ordinal = self.open_events.iter().filter(|(other, _)| *other == table).count() as u32;
        self.open_events.push((table, TableEvent { kind, place, ordinal, at, statement }));
    }

    /// What happened to whole tables comes to an end with the transaction: noted in the table's own commit, so that a crash
    /// does not lose it, or a reason to stop. Returns those that are gone with this boundary.
    fn end_events(&mut self, boundary: &Position) -> Vec<(TableName, Option<DateTime<Utc>>)> {
        let mut dropped = Vec::new();
        for (table, mut event) in std::mem::take(&mut self.open_events) {
            if event.place.is_empty() {
                event.place = boundary.to_string();
            }
            let Some(policy) = self.following.policy(&table, event.kind).filter(|_| self.streams(&table)) else {
                continue;
            };
            let outcome = match policy {
                ChangePolicy::Fail => Outcome::Refused,
                ChangePolicy::Keep => Outcome::Kept,
                _ => Outcome::Applied,
            };
            let Some(record) = self.following.table_record(&table, &event, outcome) else { continue };
            if policy == ChangePolicy::Fail {
                let error = event.forbidden(&table);
                self.leave(table, Left::Refused { record, error });
                continue;
            }
            if event.kind == ChangeKind::DropTable {
                if policy == ChangePolicy::Apply {
                    self.push(table.clone(), TableChange::Truncate);
                }
                dropped.push((table.clone(), event.at));
            }
            if let Some(evolution) = self.following.remark(&table, record) {
                self.push(table, TableChange::Evolve(evolution));
            }
        }
        dropped
    }

    fn push(&mut self, table: TableName, change: TableChange) {
        if !self.streams(&table) {
            return;
        }
        let (rows, bytes) = match &change {
            TableChange::Rows(rows) => (rows.ops.len() as u64, rows.memory_bytes()),
            TableChange::Spilled(rows) => (u64::from(rows.rows()), 0),
            TableChange::Evolve(_) => (0, 0),
            TableChange::Truncate => {
                // Rows that came before it are of no effect, and need not wait for the end of the transaction.
                let stays = |pending: &Pending| matches!(pending.change, TableChange::Evolve(_));
                self.open.retain(|pending| pending.table != table || stays(pending));
                self.files.remove(&table);
                (0, 0)
            }
        };
        self.open.push(Pending { table, change, rows, bytes });
    }

    /// Drops a table's part of the open transaction.
    fn forget(&mut self, table: &TableName) {
        self.open.retain(|pending| pending.table != *table);
        self.open_events.retain(|(other, _)| other != table);
        self.files.remove(table);
    }

    /// Forgets the open transaction.
    fn drop_open(&mut self) {
        self.open.clear();
        self.files.clear();
        self.open_layouts.clear();
        self.open_events.clear();
        self.following.rollback();
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
mod tests;
