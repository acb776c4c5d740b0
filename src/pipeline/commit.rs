//! Commits one batch: every table it touches, then the ledger.
//!
//! Tables commit side by side, each in a task of its own. The ledger is written only when all of them hold the batch, so
//! its position is never ahead of a table; a table that got ahead of the ledger knows so itself and skips what it has.
//! In between what happened is written to the outbox: after a crash it may be there twice, under one id, but is never lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Error;
use super::batch::{Batch, Leaving, Left};
use super::source_run::parse_position;
use super::telling::{self, Trouble, ValueTally};
use super::{how_to_decide, prepared};
use crate::lake::{self, Applied, Lake, Stretch, Table, TableChange};
use crate::ledger::{Entry, History, Ledger, LoadReason, OutboxEntry, TableState};
use crate::schema::{ChangeRecord, Outcome, TableName, ValueCounts};
use crate::source::Position;

/// Tables written at the same time.
const PARALLEL: usize = 4;

/// How often the log says that tables wait and the source has to keep its own log.
const WAITING_TOLD_EVERY: Duration = Duration::from_secs(600);

/// What a source's commits work on.
pub struct Committer {
    pub source: String,
    pub lake: Lake,
    pub tables: HashMap<TableName, Table>,
    pub ledger: Ledger,
    pub history: History,
    pub entry: Entry,
    pub totals: HashMap<TableName, TableTotals>,
    pub values: ValueTally,
    /// Tables that could not take their part of a batch; whoever gathers the next one has to know.
    pub failed: Vec<TableName>,
    pub rows: u64,
    pub transactions: u64,
    /// When the attempt is to end, for a load begins.
    pub begin_anew: Option<DateTime<Utc>>,
    /// Loads that nobody asked for keep a distance. Not in a run that ends by itself.
    pub paced: bool,
    /// Builds out of sight that nobody goes on with.
    pub abandoned: Vec<(TableName, Uuid)>,
    /// When the log last said that tables wait.
    pub waiting_told: Option<Instant>,
}

/// What came of a table's part of a batch.
enum Part {
    Applied { records: Vec<ChangeRecord>, version: u64, position: String },
    Failed(Trouble),
}

/// Since the process started.
#[derive(Clone, Debug, Default)]
pub struct TableTotals {
    pub rows: u64,
}

/// The values of a batch that have no faithful lake form, by table.
fn value_counts(changes: &HashMap<TableName, Vec<TableChange>>) -> Vec<(TableName, ValueCounts)> {
    let mut found = Vec::new();
    for (name, changes) in changes {
        let mut counts = ValueCounts::default();
        for change in changes {
            change.add_values(&mut counts);
        }
        if !counts.is_empty() {
            found.push((name.clone(), counts));
        }
    }
    found
}

/// Adds to the ledger's counters, and says so: no value is replaced unseen.
pub fn note_values(entry: &mut Entry, source: &str, table: &TableName, counts: &ValueCounts) {
    for (column, reason, count) in counts.iter() {
        tracing::warn!(source, %table, column, count, %reason, "values without a faithful form in the lake; see docs/types.md");
    }
    entry.values.entry(table.to_string()).or_default().merge(counts);
}

impl Committer {
    /// Commits the batch and writes the ledger.
    pub async fn commit(&mut self, mut batch: Batch) -> Result<(), Error> {
        let before = self.entry.streamed().to_owned();
        let position = batch.position.as_ref().map_or_else(|| before.clone(), ToString::to_string);
        let values = value_counts(&batch.tables);
        // Before any table or the ledger is at a position where it counts.
        let layouts = std::mem::take(&mut batch.layouts);
        super::history::append(&mut self.history, layouts, &position, &self.entry.position).await?;
        let decided = match &batch.prepared {
            Some(sets) => prepared::persist(self.ledger.prepared(), sets, &mut self.entry).await?,
            None => Vec::new(),
        };
        let mut events = Vec::new();
        let tables = std::mem::take(&mut batch.tables);
        let stretch = Stretch {
            position: position.clone(),
            after: batch.after.as_ref().map(ToString::to_string),
            committed: batch.committed,
        };
        for (table, part) in self.commit_tables(tables, &stretch, &batch.leaving).await? {
            match part {
                Part::Applied { records, version, position } => {
                    for record in &records {
                        events.push(self.told(record, &position, version).await?);
                    }
                }
                Part::Failed(trouble) => {
                    let trouble = trouble.named(&self.source, &table.to_string());
                    // It does not hold this batch; where exactly it stands, its own last commit says.
                    batch.leaving.remove(&table);
                    events.push(telling::stopped(&self.source, &table.to_string(), &before, &trouble));
                    self.stop(&table, trouble, before.clone());
                    self.failed.push(table);
                }
            }
        }
        for (table, leaving) in std::mem::take(&mut batch.leaving) {
            events.extend(self.leave(table, leaving));
        }
        self.resume(batch.position.as_ref())?;
        for (table, counts) in values {
            if self.tables.contains_key(&table) {
                note_values(&mut self.entry, &self.source, &table, &counts);
                self.values.add(&table, &counts);
            }
        }
        events.extend(self.values.take_due(&self.source, &position, false));
        self.rows += batch.rows;
        self.transactions += batch.transactions;
        self.move_on(&batch, position)?;
        self.entry.fresh_until = batch.fresh_until.or(self.entry.fresh_until);
        self.entry.written_at = Utc::now();
        for event in &events {
            self.ledger.outbox_mut().append(event).await?;
        }
        if self.begin_anew.is_some() {
            lake::reached("reload.told").await;
        }
        self.ledger.append(&self.entry).await?;
        if self.begin_anew.is_some() {
            lake::reached("reload.entered").await;
        }
        self.ledger.prepared().forget(&decided).await;
        self.tidy_up().await;
        self.tell_waiting();
        Ok(())
    }

    /// The ledger's positions after the batch.
    fn move_on(&mut self, batch: &Batch, position: String) -> Result<(), Error> {
        let before = parse_position(self.entry.streamed())?;
        let again = !parse_position(&position)?.covers(&before);
        if let Some(durable) = &batch.durable {
            self.entry.position = durable.to_string();
        }
        // Where the log is read again, the tables are further than the batch.
        let reached = if again { before.to_string() } else { position };
        if !again {
            let tables = &self.entry.tables;
            self.entry.behind.retain(|table| matches!(tables.get(table), Some(TableState::Stopped { .. })));
        }
        self.entry.reached = (reached != self.entry.position).then_some(reached);
        self.entry.held_since = match (&self.entry.reached, self.entry.held_since) {
            (Some(_), None) => Some(Utc::now()),
            (Some(_), since) => since,
            (None, _) => None,
        };
        Ok(())
    }

    /// A change that is in the lake now, for the outbox.
    async fn told(&self, record: &ChangeRecord, position: &str, version: u64) -> Result<OutboxEntry, Error> {
        let mut event = telling::changed(&self.source, record, position, version);
        let is_decided = |outcome| matches!(outcome, Outcome::Approved | Outcome::Rejected);
        if record.steps.iter().any(|step| is_decided(step.outcome))
            && let Some(decided) = self.ledger.decisions().read(record.id).await?
        {
            event.detail["decision"] = serde_json::json!({
                "verdict": decided.verdict, "by": decided.by, "at": decided.at,
            });
        }
        for step in &record.steps {
            tracing::info!(source = self.source, table = record.table, place = record.place, version,
                outcome = ?step.outcome, "{}", step.description);
        }
        Ok(event)
    }

    pub(super) fn stop(&mut self, table: &TableName, trouble: Trouble, position: String) {
        tracing::error!(source = self.source, %table, reason = trouble.text, "table stopped; the others go on");
        self.tables.remove(table);
        self.abandon(table);
        // Readers see the one that was there before.
        let position = match self.entry.tables.get(&table.to_string()) {
            Some(TableState::Loading { before: Some(before), .. }) => before.position().unwrap_or(&position).to_owned(),
            _ => position,
        };
        self.entry.tables.insert(table.to_string(), TableState::Stopped { reason: trouble.text, position });
    }

    /// What was built of the table out of sight is not gone on with.
    fn abandon(&mut self, table: &TableName) {
        let hidden = self.entry.tables.get(&table.to_string()).and_then(TableState::hidden);
        self.abandoned.extend(hidden.map(|id| (table.clone(), id)));
    }

    /// A table leaves the stream: what is told of it.
    fn leave(&mut self, table: TableName, leaving: Leaving) -> Option<OutboxEntry> {
        let (name, position) = (table.to_string(), leaving.position.to_string());
        let unlet = match &leaving.why {
            Left::Refused { error, .. } | Left::Reload { error, .. } => Some(error.to_string()),
            Left::Waiting { why, .. } => Some(why.clone()),
            Left::Stopped(_) | Left::Dropped { .. } => None,
        };
        if unlet.is_some_and(|why| self.begin_load_anew(&table, &why)) {
            return match leaving.why {
                Left::Reload { record, .. } => Some(telling::reloaded(&self.source, &record, &position)),
                _ => None,
            };
        }
        match leaving.why {
            Left::Stopped(error) => {
                let trouble = Trouble::from(&error).named(&self.source, &name);
                let event = telling::stopped(&self.source, &name, &position, &trouble);
                self.stop(&table, trouble, position);
                Some(event)
            }
            Left::Reload { record, error } => {
                let trouble = Trouble::from(&error).named(&self.source, &name);
                self.load_again(&table, trouble, position.clone());
                Some(telling::reloaded(&self.source, &record, &position))
            }
            Left::Refused { record, error } => {
                let trouble = Trouble::from(&error).named(&self.source, &name);
                let event = telling::refused(&self.source, &record, &position, &trouble);
                self.stop(&table, trouble, position);
                Some(event)
            }
            Left::Waiting { record, why } => {
                let known = matches!(self.entry.tables.get(&name),
                    Some(TableState::Waiting { change, .. }) if *change == record.id);
                tracing::warn!(source = self.source, %table, change = %record.id, reason = why,
                    "table waits for a decision; the others go on: {}", how_to_decide(&name));
                self.tables.remove(&table);
                let event = telling::waiting(&self.source, &record, &position, &why);
                let state = TableState::Waiting { change: record.id, reason: why, position };
                self.entry.tables.insert(name, state);
                (!known).then_some(event)
            }
            // The table's last commit tells that.
            Left::Dropped { at } => {
                tracing::warn!(source = self.source, %table, position, "table is gone at the source; the lake's stays");
                self.tables.remove(&table);
                self.abandon(&table);
                self.entry.tables.insert(name, TableState::Dropped { position, at });
                None
            }
        }
    }

    /// Tables that waited at the last start and have come past that place stream.
    fn resume(&mut self, position: Option<&Position>) -> Result<(), Error> {
        let Some(position) = position else { return Ok(()) };
        for (name, table) in &self.tables {
            let name = name.to_string();
            let Some(state) = self.entry.tables.get_mut(&name) else { continue };
            if let TableState::Waiting { position: waited, .. } = state
                && !parse_position(waited)?.covers(position)
            {
                *state = match table.load() {
                    None => TableState::Streaming,
                    Some(_) => TableState::to_load(LoadReason::Added).following(),
                };
                self.entry.behind.insert(name);
            }
        }
        Ok(())
    }

    /// Says now and then that the source has to keep its log for tables that wait.
    fn tell_waiting(&mut self) {
        let Some(since) = self.entry.held_since else { return };
        if self.waiting_told.is_some_and(|told| told.elapsed() < WAITING_TOLD_EVERY) {
            return;
        }
        self.waiting_told = Some(Instant::now());
        let waits = |(_, state): &(&String, &TableState)| matches!(state, TableState::Waiting { .. });
        let tables: Vec<&str> = self.entry.tables.iter().filter(waits).map(|(table, _)| table.as_str()).collect();
        if tables.is_empty() {
            return;
        }
        tracing::warn!(
            source = self.source,
            tables = tables.join(", "),
            position = self.entry.position,
            minutes = (Utc::now() - since).num_minutes(),
            "tables wait for a decision, and the source has to keep its log from there on: see `lakeward tables`"
        );
    }

    /// Applies each table's changes; says what came of each.
    async fn commit_tables(
        &mut self,
        changes: HashMap<TableName, Vec<TableChange>>,
        stretch: &Stretch,
        leaving: &BTreeMap<TableName, Leaving>,
    ) -> Result<Vec<(TableName, Part)>, Error> {
        let limit = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks: JoinSet<(Table, Vec<ChangeRecord>, Result<Applied, lake::Error>)> = JoinSet::new();
        for (name, changes) in changes {
            // A table that stopped earlier may still have changes underway.
            let Some(mut table) = self.tables.remove(&name) else { continue };
            let mut stretch = stretch.clone();
            if let Some(leaves) = leaving.get(&name) {
                stretch.position = leaves.position.to_string();
            }
            // Where the log is read again it is ahead already, and a decision may still change its shape.
            if is_ahead(&table, &stretch.position)? {
                table.position().clone_into(&mut stretch.position);
            }
            let records = TableChange::evolutions(&changes).map(|evolution| evolution.record.clone()).collect();
            let limit = limit.clone();
            tasks.spawn(async move {
                let _permit = limit.acquire_owned().await;
                let applied = table.apply(&changes, stretch).await;
                (table, records, applied)
            });
        }
        let mut parts = Vec::new();
        let mut error = None;
        // Every task is waited for, whatever the others say: an abandoned commit could land later.
        while let Some(done) = tasks.join_next().await {
            let (table, records, applied) = match done {
                Ok(done) => done,
                Err(cause) => {
                    error = Some(Error::from(cause));
                    continue;
                }
            };
            let name = table.name().clone();
            match applied {
                Ok(applied) => {
                    tracing::debug!(source = self.source, table = %name, version = applied.version,
                        rows_written = applied.rows_written, rows_removed = applied.rows_removed, "committed");
                    self.totals.entry(name.clone()).or_default().rows += applied.rows_written;
                    let (version, position) = (table.version(), table.position().to_owned());
                    self.tables.insert(name.clone(), table);
                    parts.push((name, Part::Applied { records, version, position }));
                }
                Err(cause @ (lake::Error::Table { .. } | lake::Error::Arrow { .. })) => {
                    parts.push((name, Part::Failed(Trouble::from(&cause))));
                }
                Err(cause) => error = Some(cause.into()),
            }
        }
        match error {
            Some(cause) => Err(cause),
            None => Ok(parts),
        }
    }

    /// Waits for the tables' background work, and tells what was kept to be told later.
    pub async fn finish(&mut self) {
        for event in self.values.take_due(&self.source, self.entry.streamed(), true) {
            if let Err(error) = self.ledger.outbox_mut().append(&event).await {
                tracing::warn!(source = self.source, %error, "an event could not be written");
            }
        }
        for table in self.tables.values_mut() {
            table.finish().await;
        }
    }
}

/// Whether the table has more than that.
pub(super) fn is_ahead(table: &Table, position: &str) -> Result<bool, Error> {
    Ok(table.position() != position && parse_position(table.position())?.covers(&parse_position(position)?))
}
