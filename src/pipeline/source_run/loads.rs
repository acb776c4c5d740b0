//! Tables that are loaded in chunks: how an attempt begins them, and finds them again after a restart.
//!
//! The order of things is what makes a crash harmless. The position entry says first that a table is to be loaded and under
//! which id; then the empty table is made, at its own exact position; then the stream begins, at or before that, and the entry
//! says that the table follows it. Whoever finds the entry without the table makes the table; whoever finds both goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use chrono::{DateTime, Utc};

use super::super::commit::Committer;
use super::super::telling::with_command;
use super::super::{Error, table_name};
use super::prepare::Found;
use super::{SourceRun, parse_position};
use crate::config::DuringSnapshot;
use crate::lake::{LoadNote, Place, Table};
use crate::ledger::{Entry, History, LoadReason, Requests, TableState, Wish};
use crate::schema::{RESYNC, RowIdentity, TableName, TableSchema};
use crate::snapshot::{self, Loader, Repairer};
use crate::source::{LoadStart, Position, Source};

/// A table to be begun.
#[derive(Debug)]
pub(super) struct ToBegin {
    pub name: TableName,
    pub place: Place,
}

impl<S: Source> SourceRun<S> {
    /// What loads the tables that are not whole, for the time of an attempt.
    pub(super) fn loader(&self, from: &Position, committer: &Committer) -> Result<Loader<S>, Error> {
        let loading: Vec<&Table> = committer.tables.values().filter(|table| table.load().is_some()).collect();
        let mut known = Vec::new();
        for table in &loading {
            known.push(parse_position(table.position())?);
        }
        if !loading.is_empty() {
            known.push(from.clone());
        }
        let mut loader = Loader::new(self.source.clone(), &self.name, self.config.snapshot.clone(), known);
        for table in loading {
            let state = committer.entry.tables.get(&table.name().to_string());
            let estimate = match state {
                Some(TableState::Loading { rows_estimate, .. }) => *rows_estimate,
                _ => None,
            };
            loader.add(table, estimate, state.is_some_and(TableState::is_resync));
        }
        Ok(loader)
    }

    /// What puts rows right that are wrong, for the time of an attempt.
    pub(super) async fn repairer(&self, committer: &Committer) -> Result<Repairer<S>, Error> {
        let requests = Requests::new(self.lake.ledger_store(&self.name)?);
        let mut repairer = Repairer::new(self.source.clone(), &self.name, self.config.snapshot.rows_per_second_max);
        for &number in &committer.entry.repairs {
            let request = requests.read(number).await?;
            let table = request.as_ref().and_then(|request| table_name(request.tables.first()?));
            let rows = request.and_then(|request| request.rows).unwrap_or_default();
            match table {
                Some(table) => {
                    tracing::info!(source = self.name, %table, rows = rows.len(), "rows are to be put right");
                    repairer.add(number, table, rows);
                }
                None => repairer.give_up(number),
            }
        }
        Ok(repairer)
    }

    /// Takes what people asked for since the last attempt: from here on it is in the states of the tables. Says whether
    /// anything was taken.
    pub(super) async fn take_requests(&self, entry: &mut Entry, discovered: &[TableSchema]) -> Result<bool, Error> {
        let requests = Requests::new(self.lake.ledger_store(&self.name)?);
        let (asked, last) = requests.after(entry.requests_taken).await?;
        if last == entry.requests_taken {
            return Ok(false);
        }
        entry.requests_taken = last;
        let states = entry.tables.clone();
        for request in asked {
            if request.wish == Wish::Repair {
                entry.repairs.insert(request.number);
            }
            for text in &request.tables {
                let declared = discovered.iter().find(|schema| schema.name.to_string() == *text);
                match (request.wish, declared) {
                    (Wish::Snapshot | Wish::Repair, _) => {}
                    (Wish::Cancel, _) => self.cancel(entry, text, states.get(text)),
                    (Wish::Resync, None) => tracing::warn!(
                        source = self.name,
                        table = text,
                        "a resync was asked for, but the table is not at the source, or is not captured"
                    ),
                    (Wish::Resync, Some(schema)) => {
                        tracing::info!(
                            source = self.name,
                            table = text,
                            by = request.by,
                            reason = request.reason,
                            "a resync was asked for"
                        );
                        self.begin_resync(entry, &schema.name, request.id).await?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// The table is to be built anew. One that is being loaded again is on its way already; a first load begins once more.
    async fn begin_resync(&self, entry: &mut Entry, name: &TableName, id: uuid::Uuid) -> Result<(), Error> {
        let text = name.to_string();
        entry.reloads.forget(&text);
        let state = entry.tables.get(&text);
        if state.is_some_and(TableState::is_resync) {
            tracing::info!(source = self.name, table = text, "it is being loaded already");
            return Ok(());
        }
        if let Some(TableState::Loading { reason, hidden: Some(_), .. }) = state {
            let anew = TableState::to_load_hidden(*reason, id);
            entry.tables.insert(text, anew);
            return Ok(());
        }
        let held = match Table::summary(&self.lake, &self.name, name).await {
            Ok(None) => return Ok(()), // It is loaded for the first time now.
            Ok(Some(summary)) => Some(summary.position),
            // A table that can't be read is a reason for a resync, not against one.
            Err(crate::lake::Error::Table { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let stood = match state {
            Some(stopped @ (TableState::Stopped { .. } | TableState::Dropped { .. })) => stopped.clone(),
            _ => {
                let position = held.unwrap_or_else(|| entry.position.clone());
                let reason = format!("its resync was given up, and it has had no changes since {position}; {RESYNC}");
                let reason = with_command(&reason, &self.name, &text);
                TableState::Stopped { reason, position }
            }
        };
        entry.tables.insert(text, TableState::to_resync(id, stood));
        Ok(())
    }

    /// `stood`: how the table was before anything of this was asked for.
    fn cancel(&self, entry: &mut Entry, table: &str, stood: Option<&TableState>) {
        let Some(state) = entry.tables.get_mut(table) else { return };
        let Some(id) = state.hidden() else { return };
        tracing::warn!(source = self.name, table, "its resync is cancelled");
        match (&*state, stood) {
            // It was never begun.
            (_, Some(stood)) if stood.hidden() != Some(id) => *state = stood.clone(),
            (TableState::Loading { before: Some(before), .. }, _) => *state = TableState::clone(before),
            _ => {}
        }
    }

    /// Removes what is left of builds that `before` knows and `now` does not. Failing to is harmless.
    pub(super) async fn tidy_up(&self, before: &BTreeMap<String, TableState>, now: &BTreeMap<String, TableState>) {
        for (table, state) in before {
            let (Some(id), Some(name)) = (state.hidden(), table_name(table)) else { continue };
            if now.get(table).and_then(TableState::hidden) == Some(id) {
                continue;
            }
            if let Err(error) = Table::discard_hidden(&self.lake, &self.name, &name, id).await {
                tracing::warn!(source = self.name, table, %error, "what was built of it is left behind");
            }
        }
    }

    /// Finds a table that is, or is to be, built where readers do not see it.
    pub(super) async fn look_at_hidden(
        &self,
        name: &TableName,
        id: uuid::Uuid,
        (state, waits_until): (&TableState, Option<DateTime<Utc>>),
        is_declared: bool,
        found: &mut Found,
    ) -> Result<(), Error> {
        let seen = match Table::summary(&self.lake, &self.name, name).await {
            Err(crate::lake::Error::Table { .. }) => None,
            seen => seen?,
        };
        if seen.is_some_and(|seen| seen.loaded == Some(id)) {
            // It has changed places already, just before the last run ended.
            if let Some(table) = Table::open(&self.lake, &self.name, name).await? {
                found.open.insert(name.clone(), table);
            }
            return Ok(());
        }
        match Table::open_hidden(&self.lake, &self.name, name, id).await? {
            // It is whole and was about to change places, or is keyless and was loaded in one piece.
            Some(table) if table.load().is_none() => {
                let table = self.swap(table).await?;
                found.open.insert(name.clone(), table);
            }
            Some(table) => drop(found.open.insert(name.clone(), table)),
            None if is_declared => match waits_until {
                Some(at) => found.wait(name, state.clone(), at),
                None => found.to_begin.push(ToBegin { name: name.clone(), place: Place::Hidden(id) }),
            },
            None => {
                tracing::warn!(source = self.name, table = %name, "it is gone from the source: its load is given up");
                if let TableState::Loading { before: Some(before), .. } = state {
                    found.states.insert(name.to_string(), TableState::clone(before));
                }
            }
        }
        Ok(())
    }

    /// Those of the missing tables that are loaded in chunks beside the stream: they have a key, and at least as many rows as a
    /// chunk. What is less than a chunk is as soon read in one piece, with one commit. Estimates would not do: they can be
    /// missing, or off by any factor.
    pub(super) async fn large(
        &self,
        missing: &[TableName],
        discovered: &[TableSchema],
    ) -> Result<Vec<TableName>, Error> {
        let limit = Arc::new(Semaphore::new(self.config.snapshot.parallelism));
        let mut asked = JoinSet::new();
        for schema in discovered.iter().filter(|schema| missing.contains(&schema.name) && has_key(schema)) {
            let (source, schema, limit) = (self.source.clone(), schema.clone(), limit.clone());
            let rows = self.config.snapshot.chunk_rows;
            asked.spawn(async move {
                let _permit = limit.acquire_owned().await;
                let first = source.next_chunk(&schema, None, rows).await;
                (schema.name, first)
            });
        }
        let mut large = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer? {
                (name, Ok(chunk)) => large.extend(chunk.to.is_some().then_some(name)),
                // Whoever reads it finds that too, and stops the table.
                (_, Err(crate::source::Error::Table { .. })) => {}
                (_, Err(error)) => return Err(error.into()),
            }
        }
        Ok(large)
    }

    /// How the first load of a large table begins.
    pub(super) fn to_load(&self, name: &TableName, reason: LoadReason) -> (TableState, ToBegin) {
        let (state, place) = match self.config.during_snapshot(&self.name, &name.to_string()) {
            DuringSnapshot::Partial => (TableState::to_load(reason), Place::Open),
            DuringSnapshot::Hidden => {
                let id = uuid::Uuid::new_v4();
                (TableState::to_load_hidden(reason, id), Place::Hidden(id))
            }
        };
        (state, ToBegin { name: name.clone(), place })
    }

    /// Puts a table that is whole in the place of the one that readers see, if there is one.
    pub(super) async fn swap(&self, hidden: Table) -> Result<Table, Error> {
        let main = Table::open_to_replace(&self.lake, &self.name, hidden.name()).await?;
        let position = hidden.position().to_owned();
        let table = Table::swap(main, hidden, &position).await?;
        let rows = table.live_rows();
        tracing::info!(source = self.name, table = %table.name(), version = table.version(), rows, position,
            "the table is whole");
        Ok(table)
    }

    /// Makes the tables that are to be begun, empty, each at an exact position of its own. One that can't be begun stops;
    /// the others are begun without it.
    pub(super) async fn begin_loads(
        &self,
        mut to_begin: Vec<ToBegin>,
        history: &mut History,
        entry: &mut Entry,
        found: &mut Found,
    ) -> Result<(), Error> {
        while !to_begin.is_empty() {
            let names: Vec<TableName> = to_begin.iter().map(|one| one.name.clone()).collect();
            let starts = match self.source.begin_load(&names).await {
                Ok(starts) => starts,
                Err(error) => {
                    let crate::source::Error::Table { table, .. } = &error else { return Err(error.into()) };
                    let count = to_begin.len();
                    to_begin.retain(|one| one.name.to_string() != *table);
                    if to_begin.len() == count {
                        return Err(error.into());
                    }
                    found.stop_load(&self.name, table, error.to_string(), entry);
                    continue;
                }
            };
            for start in starts {
                let Some(at) = to_begin.iter().position(|one| one.name == start.schema.name) else { continue };
                let one = to_begin.swap_remove(at);
                self.begin_load(one, start, history, entry, found).await?;
            }
            for one in std::mem::take(&mut to_begin) {
                let reason = format!("the source does not say where its load begins; {RESYNC}");
                found.stop_load(&self.name, &one.name.to_string(), reason, entry);
            }
        }
        Ok(())
    }

    async fn begin_load(
        &self,
        one: ToBegin,
        start: LoadStart,
        history: &mut History,
        entry: &mut Entry,
        found: &mut Found,
    ) -> Result<(), Error> {
        let ToBegin { name, place } = one;
        if let Some(layout) = &start.layout {
            snapshot::remember(history, &name, &start.position, layout).await?;
        }
        let id = match place {
            Place::Open => uuid::Uuid::new_v4(),
            Place::Hidden(id) => id,
        };
        let note = LoadNote { id, ..LoadNote::begin() };
        let position = start.position.to_string();
        match Table::create(&self.lake, &self.name, start.schema, position, note, place).await {
            Ok(table) => {
                crate::lake::reached("load.begun").await;
                // A table loaded anew starts its counters anew.
                entry.values.remove(&name.to_string());
                if let Some(TableState::Loading { rows_estimate, .. }) = entry.tables.get_mut(&name.to_string()) {
                    *rows_estimate = start.rows_estimate;
                }
                found.open.insert(name, table);
            }
            Err(error @ crate::lake::Error::Table { .. }) => {
                found.stop_load(&self.name, &name.to_string(), error.to_string(), entry);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The states of tables that stream, while those are not whole that are being loaded.
    pub(super) fn state_of(&self, table: &Table, before: Option<&TableState>) -> TableState {
        let waiting = before.filter(|state| matches!(state, TableState::Waiting { .. }));
        match (table.load(), waiting, before) {
            (_, Some(waiting), _) => waiting.clone(),
            (None, None, _) => TableState::Streaming,
            (Some(note), None, Some(loading @ TableState::Loading { .. })) => {
                let mut state = loading.clone().following();
                if let TableState::Loading { rows, .. } = &mut state {
                    *rows = note.rows;
                }
                state
            }
            (Some(_), None, _) => TableState::to_load(LoadReason::Added).following(),
        }
    }
}

impl Found {
    /// A table whose load can't begin, or go on, stops; what readers see of it stays as it was.
    pub(super) fn stop_load(&mut self, source: &str, table: &str, reason: String, entry: &Entry) {
        let before = match entry.tables.get(table) {
            Some(TableState::Loading { before: Some(before), .. }) => before.position(),
            _ => None,
        };
        let position = before.unwrap_or(&entry.position).to_owned();
        let reason = with_command(&reason, source, table);
        tracing::error!(source, table, reason, position, "table can't be loaded; the others go on");
        self.states.insert(table.to_owned(), TableState::Stopped { reason, position });
    }
}

fn has_key(schema: &TableSchema) -> bool {
    schema.identity == RowIdentity::Key && !schema.key.is_empty()
}

/// Which tables are loaded in chunks, and which in one piece: those without a key can't be merged by it.
pub(super) fn in_chunks(
    to_begin: Vec<ToBegin>,
    discovered: &[TableSchema],
) -> (Vec<ToBegin>, BTreeMap<TableName, uuid::Uuid>) {
    let mut whole = BTreeMap::new();
    let mut chunked = Vec::new();
    for one in to_begin {
        let schema = discovered.iter().find(|schema| schema.name == one.name);
        let keyless = schema.is_some_and(|schema| !has_key(schema));
        match one.place {
            Place::Hidden(id) if keyless => drop(whole.insert(one.name, id)),
            _ => chunked.push(one),
        }
    }
    (chunked, whole)
}

/// A log may run ahead of what snapshots see: it is read from where the tables begin that were just loaded, or are just being
/// loaded. Those that have more skip it by themselves. Says whether that is further back than `from`.
pub(super) fn rewind(from: &mut Position, found: &Found, states: &BTreeMap<String, TableState>) -> Result<bool, Error> {
    let mut rewound = false;
    for (name, table) in &found.open {
        let begins = matches!(states.get(&name.to_string()), Some(TableState::Loading { follows: false, .. }));
        let position = parse_position(table.position())?;
        if begins && !position.covers(from) && from.covers(&position) {
            *from = position;
            rewound = true;
        }
    }
    Ok(rewound)
}
