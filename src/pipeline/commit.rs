//! Commits one batch: every table it touches, then the ledger.
//!
//! Tables commit side by side, each in a task of its own. The ledger is written only when all of them hold the batch, so
//! its position is never ahead of a table; a table that got ahead of the ledger knows so itself and skips what it has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::Utc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Error;
use super::batch::Batch;
use super::prepared;
use crate::lake::{self, Applied, Table, TableChange};
use crate::ledger::{Entry, History, Ledger, TableState};
use crate::schema::{TableName, ValueCounts};
use crate::source;

/// Tables written at the same time.
const PARALLEL: usize = 4;

/// What a source's commits work on.
pub struct Committer {
    pub source: String,
    pub tables: HashMap<TableName, Table>,
    pub ledger: Ledger,
    pub history: History,
    pub entry: Entry,
    pub totals: HashMap<TableName, TableTotals>,
    pub rows: u64,
    pub transactions: u64,
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
    /// Commits the batch and writes the ledger. `stopped` leave the stream with this batch.
    pub async fn commit(&mut self, batch: Batch, stopped: BTreeMap<TableName, source::Error>) -> Result<(), Error> {
        let position = batch.position.as_ref().map_or_else(|| self.entry.position.clone(), ToString::to_string);
        let values = value_counts(&batch.tables);
        // Before any table or the ledger is at a position where it counts.
        super::history::append(&mut self.history, batch.layouts, &position, &self.entry.position).await?;
        let decided = match &batch.prepared {
            Some(sets) => prepared::persist(self.ledger.prepared(), sets, &mut self.entry).await?,
            None => Vec::new(),
        };
        let mut failed = self.commit_tables(batch.tables, &position).await?;
        failed.extend(stopped.into_iter().map(|(table, error)| (table, error.to_string())));
        // Those that failed do not hold this batch; where exactly they stand, their own last commit says.
        let before = self.entry.position.clone();
        for (table, reason) in failed {
            tracing::error!(source = self.source, %table, reason, "table stopped; the others go on");
            self.tables.remove(&table);
            let state = TableState::Stopped { reason, position: before.clone() };
            self.entry.tables.insert(table.to_string(), state);
        }
        for (table, counts) in values {
            if self.tables.contains_key(&table) {
                note_values(&mut self.entry, &self.source, &table, &counts);
            }
        }
        self.rows += batch.rows;
        self.transactions += batch.transactions;
        self.entry.position = position;
        self.entry.fresh_until = batch.fresh_until.or(self.entry.fresh_until);
        self.entry.written_at = Utc::now();
        self.ledger.append(&self.entry).await?;
        self.ledger.prepared().forget(&decided).await;
        Ok(())
    }

    /// Applies each table's changes; returns the tables that can't go on, with the reason.
    async fn commit_tables(
        &mut self,
        changes: HashMap<TableName, Vec<TableChange>>,
        position: &str,
    ) -> Result<Vec<(TableName, String)>, Error> {
        let limit = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks: JoinSet<(TableName, Table, Result<Applied, lake::Error>)> = JoinSet::new();
        for (name, changes) in changes {
            // A table that stopped earlier may still have changes underway.
            let Some(mut table) = self.tables.remove(&name) else { continue };
            let (limit, position) = (limit.clone(), position.to_owned());
            tasks.spawn(async move {
                let _permit = limit.acquire_owned().await;
                let applied = table.apply(&changes, &position).await;
                (name, table, applied)
            });
        }
        let mut failed = Vec::new();
        let mut error = None;
        // Every task is waited for, whatever the others say: an abandoned commit could land later.
        while let Some(done) = tasks.join_next().await {
            let (name, table, applied) = match done {
                Ok(done) => done,
                Err(cause) => {
                    error = Some(Error::from(cause));
                    continue;
                }
            };
            match applied {
                Ok(applied) => {
                    tracing::debug!(source = self.source, table = %name, version = applied.version,
                        rows_written = applied.rows_written, rows_removed = applied.rows_removed, "committed");
                    self.totals.entry(name.clone()).or_default().rows += applied.rows_written;
                    self.tables.insert(name, table);
                }
                Err(cause @ (lake::Error::Table { .. } | lake::Error::Arrow { .. })) => {
                    failed.push((name, cause.to_string()))
                }
                Err(cause) => error = Some(cause.into()),
            }
        }
        match error {
            Some(cause) => Err(cause),
            None => Ok(failed),
        }
    }

    /// Waits for the tables' background work.
    pub async fn finish(&mut self) {
        for table in self.tables.values_mut() {
            table.finish().await;
        }
    }
}
