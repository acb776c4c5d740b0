//! The commits of a load: chunks that are merged, and the moment when a table is whole.
//!
//! A chunk is merged when everything that it can have seen has been committed, so rows never go back in time. Its commit
//! has the position that the table holds by then, and says how far the load is: a restart goes on from there. A table that
//! was built beside another takes its place in one commit.

use chrono::Utc;

use super::Error;
use super::commit::{Committer, is_ahead, note_values};
use super::telling::{self, Trouble};
use crate::lake::{self, LoadNote, Stretch, Table};
use crate::ledger::{LoadReason, TableState};
use crate::schema::{RESYNC, TableName};
use crate::snapshot::{ChunkPlace, Merged, Ready, ReadyRepair};

/// What came of a chunk: where it has its place, and its rows.
pub type Outcome = (ChunkPlace, u64, Merged);

impl Committer {
    /// Merges chunks, each table's in order; a table that becomes whole by it streams from then on.
    pub async fn merge(&mut self, chunks: Vec<Ready>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(chunks.len());
        let mut void: Vec<TableName> = Vec::new();
        for chunk in chunks {
            let (place, rows, name) = (chunk.place(), chunk.rows, chunk.table.clone());
            // What follows a chunk that is void may not be called merged before it.
            let merged = if void.contains(&name) {
                if let Some(table) = self.tables.get(&name) {
                    chunk.staged.chunk.discard(table).await;
                }
                Merged::Void
            } else {
                self.merge_one(chunk).await?
            };
            if merged == Merged::Void {
                void.push(name);
            }
            outcomes.push((place, rows, merged));
        }
        Ok(outcomes)
    }

    async fn merge_one(&mut self, chunk: Ready) -> Result<Merged, Error> {
        let Ready { table: name, staged, through, rows, again, last, .. } = chunk;
        let Some(table) = self.tables.get_mut(&name) else { return Ok(Merged::Gone) };
        let Some(before) = table.load().cloned() else { return Ok(Merged::Gone) };
        let position = held_position(table, self.entry.streamed())?;
        let rows_loaded = before.rows + rows;
        let note = LoadNote { through: through.or(before.through.clone()), rows: rows_loaded, again, ..before };
        match table.merge_chunk(staged.chunk, note, &position).await {
            Ok(lake::Merged::Applied(_)) => {}
            Ok(lake::Merged::Void) => return Ok(Merged::Void),
            Err(error) => return self.load_failed(&name, error).await,
        }
        let again = again || table.load().is_some_and(|note| note.pending);
        if last && again {
            // They are visible by the time when the next chunk is opened.
            table.forget_tombstones();
        }
        if !staged.values.is_empty() {
            note_values(&mut self.entry, &self.source, &name, &staged.values);
            self.values.add(&name, &staged.values);
        }
        if let Some(TableState::Loading { rows, .. }) = self.entry.tables.get_mut(&name.to_string()) {
            *rows = rows_loaded;
        }
        match (last, again) {
            (false, _) => Ok(Merged::Done),
            (true, true) => Ok(Merged::Again),
            (true, false) => self.finish_load(&name).await,
        }
    }

    /// Puts rows right that a comparison found to be wrong. Says whether it came to nothing.
    pub async fn repair(&mut self, ready: ReadyRepair) -> Result<bool, Error> {
        let ReadyRepair { table: name, repair, values, completes } = ready;
        let void = match self.tables.get_mut(&name) {
            None => false,
            Some(table) => {
                let position = held_position(table, self.entry.streamed())?;
                let stretch = Stretch { after: Some(position.clone()), ..Stretch::from(&position) };
                match table.repair(repair, stretch).await {
                    Err(error @ (lake::Error::Table { .. } | lake::Error::Arrow { .. })) => {
                        tracing::warn!(source = self.source, table = %name, %error, "rows could not be put right");
                        false
                    }
                    Err(error) => return Err(error.into()),
                    Ok(lake::Repaired::Void) => true,
                    Ok(lake::Repaired::Applied { applied, left }) => {
                        tracing::info!(source = self.source, table = %name, version = applied.version,
                            written = applied.rows_written, removed = applied.rows_removed, changed_since = left,
                            "rows are put right");
                        if !values.is_empty() {
                            note_values(&mut self.entry, &self.source, &name, &values);
                            self.values.add(&name, &values);
                        }
                        false
                    }
                }
            }
        };
        if let Some(number) = completes.filter(|_| !void) {
            self.entry.repairs.remove(&number);
            self.write_entry().await?;
        }
        Ok(void)
    }

    /// All chunks are merged, and nothing waits for another: the table is as its source at its position.
    async fn finish_load(&mut self, name: &TableName) -> Result<Merged, Error> {
        let Some(mut table) = self.tables.remove(name) else { return Ok(Merged::Gone) };
        let position = held_position(&table, self.entry.streamed())?;
        let state = self.entry.tables.get(&name.to_string());
        let hidden = state.and_then(TableState::hidden);
        let resynced = matches!(state, Some(TableState::Loading { reason: LoadReason::Again, .. }));
        let told = !matches!(state, Some(TableState::Loading { reason: LoadReason::First, .. }));
        let finished = match table.finish_load(&position).await {
            Ok(_) if hidden.is_some() => {
                lake::reached("load.finished").await;
                self.swap(table, &position).await
            }
            finished => finished.map(|_| table),
        };
        let table = match finished {
            Ok(table) => table,
            Err(error) => return self.load_failed(name, error).await,
        };
        let (version, rows) = (table.version(), table.live_rows());
        tracing::info!(source = self.source, table = %name, version, rows, position, "the table is whole");
        if told {
            self.ledger.outbox_mut().append(&telling::loaded(&self.source, &table, resynced)).await?;
        }
        self.tables.insert(name.clone(), table);
        self.entry.tables.insert(name.to_string(), TableState::Streaming);
        self.write_entry().await?;
        Ok(Merged::Finished)
    }

    async fn swap(&self, hidden: Table, position: &str) -> Result<Table, lake::Error> {
        let main = Table::open_to_replace(&self.lake, &self.source, hidden.name()).await?;
        Table::swap(main, hidden, position).await
    }

    /// The lake can't take the load any further: the table stops, or the attempt ends.
    async fn load_failed(&mut self, name: &TableName, error: lake::Error) -> Result<Merged, Error> {
        if !matches!(error, lake::Error::Table { .. } | lake::Error::Arrow { .. }) {
            return Err(error.into());
        }
        self.stop_load(name, Trouble::from(&error)).await?;
        Ok(Merged::Gone)
    }

    /// A table that is being loaded stops.
    pub async fn stop_load(&mut self, name: &TableName, trouble: Trouble) -> Result<(), Error> {
        let trouble = trouble.named(&self.source, &name.to_string());
        let position = self.entry.streamed().to_owned();
        let event = telling::stopped(&self.source, &name.to_string(), &position, &trouble);
        self.ledger.outbox_mut().append(&event).await?;
        self.stop(name, trouble, position);
        self.failed.push(name.clone());
        self.write_entry().await?;
        self.tidy_up().await;
        Ok(())
    }

    /// Removes builds that nobody goes on with; no entry names them any more. Failing to is harmless.
    pub(super) async fn tidy_up(&mut self) {
        for (table, id) in std::mem::take(&mut self.abandoned) {
            if let Err(error) = Table::discard_hidden(&self.lake, &self.source, &table, id).await {
                tracing::warn!(source = self.source, %table, %error, "what was built of it is left behind");
            }
        }
    }

    /// The source's table has had other columns for a while than the log tells.
    pub async fn give_up_columns(&mut self, name: &TableName, finding: &str) -> Result<(), Error> {
        let why = format!("{finding} at the source, and the log does not say why");
        if self.begin_load_anew(name, &why) {
            self.write_entry().await?;
            self.tidy_up().await;
            return Ok(());
        }
        self.stop_load(name, Trouble::of_text(format!("{why}; {RESYNC}"))).await
    }

    /// A change that policy does not let through, for a table that is being built out of sight: its source has it already, so
    /// the load begins once more, with the table as it is now.
    pub fn begin_load_anew(&mut self, name: &TableName, why: &str) -> bool {
        let Some(TableState::Loading { reason, hidden: Some(id), before, .. }) =
            self.entry.tables.get(&name.to_string())
        else {
            return false;
        };
        tracing::warn!(source = self.source, table = %name, why, "its columns changed while it was loaded: the load \
            begins once more");
        self.abandoned.push((name.clone(), *id));
        match before.as_deref().cloned() {
            Some(before) => self.load_anew(name, before),
            None => {
                let anew = TableState::to_load_hidden(*reason, uuid::Uuid::new_v4());
                self.tables.remove(name);
                self.entry.tables.insert(name.to_string(), anew);
                self.begin_anew = Some(Utc::now());
            }
        }
        true
    }

    /// A table that streamed up to `position` is loaded again; `trouble` is why, and what stops it if that is given up.
    pub(super) fn load_again(&mut self, name: &TableName, trouble: Trouble, position: String) {
        tracing::warn!(source = self.source, table = %name, why = trouble.text, "the table is loaded again; the others go on");
        self.load_anew(name, TableState::Stopped { reason: trouble.text, position });
    }

    /// From the entry with this state on, the next attempt that may makes the table anew, beside the one that is there.
    fn load_anew(&mut self, name: &TableName, before: TableState) {
        let text = name.to_string();
        let now = Utc::now();
        let begins_at = self.entry.reloads.ask(&text, now);
        if begins_at > now && self.paced {
            tracing::warn!(source = self.source, table = text, %begins_at, "it was loaded again a short while ago: the load waits");
        }
        self.tables.remove(name);
        self.failed.push(name.clone());
        self.entry.tables.insert(text, TableState::to_resync(uuid::Uuid::new_v4(), before));
        let begins_at = if self.paced { begins_at } else { now };
        self.begin_anew = Some(self.begin_anew.map_or(begins_at, |before| before.min(begins_at)));
    }

    pub(super) async fn write_entry(&mut self) -> Result<(), Error> {
        self.entry.written_at = Utc::now();
        Ok(self.ledger.append(&self.entry).await?)
    }
}

/// What a table holds when the stream has been committed up to `streamed`: its own last commit may be far behind, or, where
/// the log is read again, ahead.
fn held_position(table: &Table, streamed: &str) -> Result<String, Error> {
    Ok(if is_ahead(table, streamed)? { table.position() } else { streamed }.to_owned())
}
