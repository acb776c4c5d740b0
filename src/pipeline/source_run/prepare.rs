//! What an attempt finds out before it streams: how source, lake and ledger stand, which tables are to be loaded, where
//! each begins and in which shape.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::super::commit::{Committer, note_values};
use super::super::following::Following;
use super::super::prepared::{self, PreparedSets};
use super::super::retyped::retyped;
use super::super::telling::{self, ValueTally};
use super::super::{Error, table_name};
use super::loads::{ToBegin, in_chunks, rewind};
use super::reloads::is_position_lost;
use super::{SourceRun, locked, parse_position, verdicts};
use crate::lake::Table;
use crate::ledger::{Entry, History, Ledger, LoadReason, OutboxEntry, TableState};
use crate::schema::{ChangeKind, Outcome, RESYNC, StepRecord, TableName, TableSchema, ValueCounts};
use crate::snapshot::{self, Loaded};
use crate::source::{Position, ProblemKind, Source, TableStart};

/// Everything an attempt has found out before it streams.
pub(super) struct Prepared {
    pub from: Position,
    pub committer: Committer,
    pub starts: HashMap<TableName, TableStart>,
    /// Transactions that wait for their decision at `from`.
    pub undecided: PreparedSets,
    pub following: Following,
    /// Changes about which it is known what was decided.
    pub known_verdicts: HashSet<Uuid>,
    /// When another attempt is to begin, for loads that wait.
    pub again_at: Option<DateTime<Utc>>,
}

/// What there is of the tables.
#[derive(Default)]
pub(super) struct Found {
    pub(super) open: HashMap<TableName, Table>,
    /// To be loaded.
    missing: Vec<TableName>,
    /// To be loaded in chunks.
    pub(super) to_begin: Vec<ToBegin>,
    pub(super) states: BTreeMap<String, TableState>,
    /// To be loaded again without anybody asking, and what becomes of each if that is given up.
    pub(super) again: Vec<(TableName, TableState)>,
    /// When the first of the loads may begin that may not yet.
    pub(super) again_at: Option<DateTime<Utc>>,
    /// What the last commits of tables hold and the ledger does not: the last run ended between the two.
    pub(super) untold: Vec<OutboxEntry>,
}

impl Found {
    /// Those of the source's tables that are followed from now on.
    fn followed(&self, discovered: &[TableSchema]) -> Vec<TableName> {
        let is_followed = |name: &&TableName| {
            self.open.contains_key(name)
                || self.missing.contains(name)
                || self.to_begin.iter().any(|one| one.name == **name)
        };
        discovered.iter().map(|schema| &schema.name).filter(is_followed).cloned().collect()
    }

    pub(super) fn stop(&mut self, source: &str, table: &TableName, reason: String, position: String) {
        let reason = telling::with_command(&reason, source, &table.to_string());
        tracing::error!(source, %table, reason, position, "table is stopped");
        self.states.insert(table.to_string(), TableState::Stopped { reason, position });
    }
}

impl<S: Source> SourceRun<S> {
    pub(super) async fn prepare(&self) -> Result<Prepared, Error> {
        let begun = Utc::now();
        // First, so that every problem is told at once: a missing privilege also refuses the next question.
        let mut lost = self.check_ready().await?;
        let identity = self.source.identity().await?;
        let (mut ledger, entry) = Ledger::open(self.lake.ledger_store(&self.name)?).await?;
        self.source.recall(&entry.as_ref().map(|entry| entry.source_notes.clone()).unwrap_or_default());
        if let Some(entry) = &entry {
            locked(&self.lag).note(entry.fresh_until, &entry.position);
        }
        let other_history =
            entry.as_ref().map(|entry| entry.history.clone()).filter(|known| *known != identity.history);
        let mut history = History::open(self.lake.ledger_store(&self.name)?).await?;
        let mut durable = entry.as_ref().map(|entry| parse_position(&entry.position)).transpose()?;
        let mut undecided = prepared::load(&ledger, entry.as_ref()).await?;
        let verdicts = verdicts::so_far(ledger.decisions()).await?;
        let discovered = self.discover().await?;
        let known = self.known(&discovered, entry.as_ref());
        if known.is_empty() {
            return Err(Error::NoTables);
        }

        let before = entry.as_ref().map(|entry| entry.tables.clone()).unwrap_or_default();
        let mut entry = entry;
        let taken = match &mut entry {
            Some(entry) => self.take_requests(entry, &discovered).await?,
            None => false,
        };

        // What the lake has of these tables decides what is to be loaded.
        let mut found = self.look_at(&known, &discovered, entry.as_ref()).await?;
        if durable.is_none() && !found.open.is_empty() {
            let tables: Vec<String> = found.open.keys().map(ToString::to_string).collect();
            return Err(Error::LedgerGone { tables: tables.join(", ") });
        }
        // Before anything is written.
        let is_needed = !found.open.is_empty() || !taken && found.to_begin.is_empty();
        if let Some(error) = lost.take_if(|error| is_needed && !self.loads_anew_after(error)) {
            return Err(error.into());
        }
        let is_first = entry.is_none();
        if let Some(entry) = &mut entry {
            self.begin_again(entry, &mut found);
            self.stop_unpublished(&mut found, &discovered, entry, &mut ledger).await?;
        }
        let followed = found.followed(&discovered);
        // Where all that is followed is loaded anew, nothing is needed of the log up to now.
        let needs_nothing = found.open.is_empty() && (taken || !found.to_begin.is_empty());
        let seen_lost = durable.clone().zip(locked(&self.lost).take());
        let from = match (other_history, lost, seen_lost) {
            (Some(expected), ..) => {
                Err(crate::source::Error::OtherHistory { expected, found: identity.history.clone() })
            }
            (None, Some(lost), _) => Err(lost),
            (None, None, Some((position, cause))) => Err(crate::source::Error::PositionLost { position, cause }),
            (None, None, None) => self.source.prepare(&followed, durable.as_ref()).await,
        };
        let mut from = match from {
            Ok(from) => from,
            Err(error) if is_position_lost(&error) && (needs_nothing || self.loads_anew_after(&error)) => {
                tracing::warn!(source = self.name, cause = %error, "all tables are loaded anew, from the source as it is now");
                self.source.give_up_position().await?;
                if let Some(entry) = &mut entry {
                    self.load_all_again(entry, &discovered, &mut found);
                }
                let from = self.source.prepare(&found.followed(&discovered), None).await?;
                if let Some(entry) = &mut entry {
                    begin_history_anew(entry, &identity.history, &from);
                }
                (durable, undecided) = (None, PreparedSets::default());
                from
            }
            Err(error) => return Err(error.into()),
        };
        let to_begin: Vec<TableName> = found.to_begin.iter().map(|one| one.name.clone()).collect();
        let mut entry =
            entry.unwrap_or_else(|| Entry::new(&self.name, &identity.server, &identity.history, from.to_string()));
        entry.server = identity.server;
        if durable.is_none() {
            // The first loads will show everything committed before this moment.
            entry.fresh_until = Some(begun);
        }
        let loaded_now: Vec<TableName> = found.missing.iter().chain(&to_begin).cloned().collect();
        if !loaded_now.is_empty() {
            self.source.observe(&loaded_now).await?;
            entry.source_notes = self.source.notes();
        }
        let large = self.large(&found.missing, &discovered).await?;
        for name in std::mem::take(&mut found.missing) {
            let reason = match before.get(&name.to_string()) {
                _ if is_first => LoadReason::First,
                None => LoadReason::Added,
                Some(TableState::Loading { reason, .. }) => *reason,
                Some(_) => LoadReason::Again,
            };
            if large.contains(&name) {
                let (state, to_begin) = self.to_load(&name, reason);
                entry.tables.insert(name.to_string(), state);
                found.to_begin.push(to_begin);
            } else {
                entry.tables.insert(name.to_string(), TableState::to_load(reason));
                found.missing.push(name);
            }
        }
        if durable.is_none() || taken || !loaded_now.is_empty() {
            // Before any table appears, so that a crash during the first load goes on from here.
            ledger.append(&entry).await?;
        }
        let mut values = ValueTally::default();
        let missing = std::mem::take(&mut found.missing);
        let (to_begin, whole) = in_chunks(std::mem::take(&mut found.to_begin), &discovered);
        for Loaded { table, values: counts } in
            self.load_missing(missing, &whole, &mut history, &from, &mut found.states).await?
        {
            let table = if whole.contains_key(table.name()) { self.swap(table).await? } else { table };
            // A table loaded anew starts its counters anew.
            entry.values.remove(&table.name().to_string());
            if !counts.is_empty() {
                note_values(&mut entry, &self.name, table.name(), &counts);
                values.add(table.name(), &counts);
            }
            found.open.insert(table.name().clone(), table);
        }
        self.begin_loads(to_begin, &mut history, &mut entry, &mut found).await?;
        if rewind(&mut from, &found, &entry.tables)? {
            // The next start must begin here too.
            entry.position = from.to_string();
        }

        // Only what is captured has a history.
        history.retain(|table, versions| {
            let captured = known.iter().any(|name| name.to_string() == table);
            if captured { versions } else { Vec::new() }
        });
        let events = self.events(&mut found, &entry, &before);
        let known_verdicts = verdicts.keys().copied().collect();
        let mut following = Following::new(&self.name, verdicts);
        let mut starts = HashMap::new();
        for (name, table) in &found.open {
            // One that waits shows whether it still does when its change comes by again.
            let state = self.state_of(table, entry.tables.get(&name.to_string()));
            found.states.insert(name.to_string(), state);
            let declared = discovered.iter().find(|schema| schema.name == *name);
            let start = self.start_of(table, declared, &mut history, &from)?;
            starts.insert(name.clone(), start);
            let policies = self.config.change_policies(&self.name, &name.to_string());
            following.follow(name.clone(), table.shape().clone(), policies);
        }
        // They are no new tables, whatever the source says.
        for name in known {
            let state = found.states.get(&name.to_string());
            let stands = matches!(state, Some(TableState::Stopped { .. } | TableState::Loading { .. }));
            if stands && !found.open.contains_key(&name) {
                following.leave_out(name);
            }
        }
        entry.tables = found.states;
        entry.source_notes = self.source.notes();
        entry.written_at = Utc::now();
        let leftovers = ledger.prepared().leftovers(&entry.prepared).await?;
        for event in &events {
            ledger.outbox_mut().append(event).await?;
        }
        ledger.append(&entry).await?;
        ledger.prepared().forget(&leftovers).await;
        self.tidy_up(&before, &entry.tables).await;
        let committer = Committer {
            source: self.name.clone(),
            lake: self.lake.clone(),
            tables: found.open,
            ledger,
            history,
            entry,
            totals: HashMap::new(),
            values,
            failed: Vec::new(),
            begin_anew: None,
            paced: !self.options.until_caught_up,
            abandoned: Vec::new(),
            rows: 0,
            transactions: 0,
            waiting_told: None,
        };
        let again_at = found.again_at;
        Ok(Prepared { from, committer, starts, undecided, following, known_verdicts, again_at })
    }

    /// The tables to be followed: those that the source has, and those that the ledger has and are still selected. The
    /// latter may be gone by now, but the log tells of them up to that point.
    fn known(&self, discovered: &[TableSchema], entry: Option<&Entry>) -> Vec<TableName> {
        let mut known: Vec<TableName> = discovered.iter().map(|schema| schema.name.clone()).collect();
        let selection = self.source_config().map(|source| &source.tables);
        for table in entry.iter().flat_map(|entry| entry.tables.keys()) {
            let Some(name) = table_name(table).filter(|name| !known.contains(name)) else { continue };
            if selection.is_some_and(|selection| selection.selects(table)) {
                known.push(name);
            } else {
                tracing::warn!(source = self.name, table, "no longer selected; its lake table stays as it is");
            }
        }
        known
    }

    async fn look_at(
        &self,
        known: &[TableName],
        discovered: &[TableSchema],
        entry: Option<&Entry>,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        for name in known {
            let declared = discovered.iter().find(|schema| schema.name == *name);
            let state = entry.and_then(|entry| entry.tables.get(&name.to_string()));
            if let Some((state, id)) = state.and_then(|state| Some((state, state.hidden()?))) {
                let waits = entry.and_then(|entry| self.waits_until(entry, name));
                self.look_at_hidden(name, id, (state, waits), declared.is_some(), &mut found).await?;
                continue;
            }
            let table = match Table::open(&self.lake, &self.name, name).await {
                Err(error @ crate::lake::Error::Table { .. }) => {
                    let position = entry.map(|entry| entry.position.clone()).unwrap_or_default();
                    found.stop(&self.name, name, error.to_string(), position);
                    continue;
                }
                opened => opened?,
            };
            let Some(table) = table else {
                match declared {
                    Some(_) => found.missing.push(name.clone()),
                    None => tracing::info!(source = self.name, table = %name, "gone from the source and from the lake"),
                }
                continue;
            };
            if let Some(entry) = entry
                && !parse_position(entry.streamed())?.covers(&parse_position(table.position())?)
            {
                let (version, records) = table.last_changes();
                let told = |record| telling::changed(&self.name, record, table.position(), version);
                found.untold.extend(records.iter().map(told));
            }
            let dropped = match state {
                Some(TableState::Stopped { reason, position }) => {
                    found.stop(&self.name, name, reason.clone(), position.clone());
                    continue;
                }
                Some(TableState::Dropped { position, at }) => Some((position.clone(), *at)),
                _ => dropped_by_last_commit(&table),
            };
            if let Some((position, at)) = dropped {
                if declared.is_some() {
                    let reason = format!(
                        "it was dropped at the source (after {position}), and a table of its name is there again, whose rows \
                         are not those that the lake has; {RESYNC}"
                    );
                    if self.loads_recreated(name) && entry.is_some() {
                        let reason = telling::with_command(&reason, &self.name, &name.to_string());
                        found.again.push((name.clone(), TableState::Stopped { reason, position }));
                    } else {
                        found.stop(&self.name, name, reason, position);
                    }
                } else {
                    found.states.insert(name.to_string(), TableState::Dropped { position, at });
                }
                continue;
            }
            let gap = unfollowed(&table, entry)?;
            let reason = gap.or_else(|| retyped(&table.shape().source_schema(), declared?));
            match reason {
                Some(reason) => found.stop(&self.name, name, reason, table.position().to_owned()),
                None => {
                    if declared.is_none() {
                        tracing::warn!(source = self.name, table = %name, "it is not at the source any more, or can't be \
                            captured as it is now; followed up to where the log says why");
                    }
                    found.open.insert(name.clone(), table);
                }
            }
        }
        Ok(found)
    }

    /// Where a table begins, in which shape, with today's value policies: the lake does not keep those.
    fn start_of(
        &self,
        table: &Table,
        declared: Option<&TableSchema>,
        history: &mut History,
        from: &Position,
    ) -> Result<TableStart, Error> {
        let name = table.name();
        let position = parse_position(table.position())?;
        let mut schema = table.shape().source_schema();
        if declared.is_some_and(|declared| declared.identity != schema.identity) {
            tracing::warn!(source = self.name, table = %name, lake = ?schema.identity, "what identifies its rows has \
                changed at the source or in its contract; if the log does not tell how, the lake goes on as it was loaded, \
                until it is loaded again with `lakeward resync`");
        }
        let contract = self.config.contracts.get(&self.name, &name.to_string());
        for column in &mut schema.columns {
            column.policy = contract.map(|contract| contract.value_policy_of(&column.name)).unwrap_or_default();
        }
        let layout = super::super::history::in_force(history, name, &position, from)?;
        super::super::history::forget_later(history, name, |at| position.covers(at) || from.covers(at))?;
        let ignored = table.shape().ignored.clone();
        Ok(TableStart { schema: schema.into(), position, layout, ignored })
    }

    /// What is to be told before streaming begins.
    fn events(&self, found: &mut Found, entry: &Entry, before: &BTreeMap<String, TableState>) -> Vec<OutboxEntry> {
        let mut events = std::mem::take(&mut found.untold);
        // Those that were written down on the way here were told of then.
        let mut told = before.clone();
        told.extend(entry.tables.clone());
        events.extend(telling::newly_stopped(&self.name, &found.states, &told));
        for (name, table) in found.open.iter().filter(|(_, table)| table.load().is_none()) {
            match entry.tables.get(&name.to_string()) {
                Some(TableState::Loading { reason: LoadReason::Added, .. }) | None => {
                    events.push(telling::loaded(&self.name, table, false));
                }
                Some(TableState::Loading { reason: LoadReason::Again, .. }) => {
                    events.push(telling::loaded(&self.name, table, true));
                }
                Some(_) => {}
            }
        }
        events
    }

    /// Tables that have been out of the source's publication have a gap. That is written down before
    /// [`Source::prepare`] publishes them again and so wipes the trace.
    async fn stop_unpublished(
        &self,
        found: &mut Found,
        discovered: &[TableSchema],
        entry: &mut Entry,
        ledger: &mut Ledger,
    ) -> Result<(), Error> {
        let names: Vec<TableName> = discovered.iter().map(|schema| schema.name.clone()).collect();
        let names: Vec<TableName> = names.into_iter().filter(|name| found.open.contains_key(name)).collect();
        let unpublished = self.source.unpublished(&names).await?;
        if unpublished.is_empty() {
            return Ok(());
        }
        for name in unpublished {
            let Some(table) = found.open.remove(&name) else { continue };
            let reason = "it was not in the publication for a while, and its changes of that time are not in the log \
                          that lakeward reads; load it again with `lakeward resync`";
            let position = table.position().to_owned();
            if self.loads_unpublished(&table) {
                let reason = telling::with_command(reason, &self.name, &name.to_string());
                found.again.push((name, TableState::Stopped { reason, position }));
            } else {
                found.stop(&self.name, &name, reason.to_owned(), position);
            }
        }
        self.begin_again(entry, found);
        for event in telling::newly_stopped(&self.name, &found.states, &entry.tables) {
            ledger.outbox_mut().append(&event).await?;
        }
        entry.tables.extend(found.states.clone());
        entry.written_at = Utc::now();
        ledger.append(entry).await?;
        Ok(())
    }

    /// Loads in one piece: tables that are missing, and those that are built anew out of sight. A table that can't be loaded
    /// is stopped; the others are loaded without it.
    async fn load_missing(
        &self,
        mut missing: Vec<TableName>,
        hidden: &BTreeMap<TableName, Uuid>,
        history: &mut History,
        from: &Position,
        states: &mut BTreeMap<String, TableState>,
    ) -> Result<Vec<Loaded>, Error> {
        let mut loaded = Vec::new();
        missing.extend(hidden.keys().cloned());
        loop {
            let source = self.source.as_ref();
            let load =
                snapshot::first_load(source, &self.name, &self.lake, history, &missing, hidden, &mut loaded).await;
            let Err(error) = load else { return Ok(loaded) };
            let (snapshot::Error::Source(crate::source::Error::Table { table, .. })
            | snapshot::Error::Lake(crate::lake::Error::Table { table, .. })) = &error
            else {
                return Err(error.into());
            };
            let before = missing.len();
            missing.retain(|name| name.to_string() != *table);
            if missing.len() == before {
                return Err(error.into());
            }
            tracing::error!(source = self.name, table, reason = %error, "table can't be loaded; the others go on");
            let reason = telling::with_command(&error.to_string(), &self.name, table);
            let state = TableState::Stopped { reason, position: from.to_string() };
            states.insert(table.clone(), state);
            // Those that were complete before the error came are there.
            missing.retain(|name| !loaded.iter().any(|done| done.table.name() == name));
            let mut still_missing = Vec::new();
            for name in missing {
                if hidden.contains_key(&name) {
                    still_missing.push(name);
                    continue;
                }
                match Table::open(&self.lake, &self.name, &name).await? {
                    Some(table) => loaded.push(Loaded { table, values: ValueCounts::default() }),
                    None => still_missing.push(name),
                }
            }
            missing = still_missing;
        }
    }

    /// Preflight: settings and privileges must be right, a table that can't be captured is left out. Returns that the
    /// position is lost, where that is seen already.
    async fn check_ready(&self) -> Result<Option<crate::source::Error>, Error> {
        let mut fatal = Vec::new();
        let problems = match self.source.preflight().await {
            Err(error) if is_position_lost(&error) => return Ok(Some(error)),
            problems => problems?,
        };
        for problem in problems {
            match problem.kind {
                ProblemKind::Warning | ProblemKind::Table => {
                    tracing::warn!(
                        source = self.name,
                        subject = problem.subject,
                        fix = problem.remedy,
                        "{}",
                        problem.finding
                    );
                }
                ProblemKind::Setting | ProblemKind::Privilege => fatal.push(problem),
            }
        }
        if fatal.is_empty() { Ok(None) } else { Err(Error::NotReady(fatal)) }
    }

    /// The selected tables that can be followed.
    async fn discover(&self) -> Result<Vec<TableSchema>, Error> {
        let mut schemas = self.source.discover().await?;
        schemas.retain(|schema| {
            let followed = schema.can_be_followed();
            if !followed {
                tracing::error!(source = self.name, table = %schema.name,
                    "not captured: it has no key; add a primary key, or `key` to its contract");
            }
            followed
        });
        Ok(schemas)
    }
}

/// Where and when the source dropped the table, if that is what its last commit says.
fn dropped_by_last_commit(table: &Table) -> Option<(String, Option<DateTime<Utc>>)> {
    let (_, records) = table.last_changes();
    let drops = |step: &StepRecord| step.kind == ChangeKind::DropTable && step.outcome != Outcome::Refused;
    let record = records.iter().find(|record| record.steps.iter().any(drops))?;
    Some((table.position().to_owned(), record.at))
}

/// Nothing that the entry says of the log counts any more.
fn begin_history_anew(entry: &mut Entry, history: &str, from: &Position) {
    history.clone_into(&mut entry.history);
    entry.position = from.to_string();
    (entry.reached, entry.held_since) = (None, None);
    entry.prepared.clear();
    entry.source_notes.clear();
}

/// Why an existing table can't go on: the ledger moved on without it while it was not captured.
fn unfollowed(table: &Table, entry: Option<&Entry>) -> Result<Option<String>, Error> {
    let Some(entry) = entry else { return Ok(None) };
    // Of one that was just loaded only its own position says where it stands.
    let state = entry.tables.get(&table.name().to_string());
    let listed = match state {
        Some(TableState::Loading { follows, .. }) => *follows,
        state => state.is_some(),
    };
    if listed || parse_position(table.position())?.covers(&parse_position(&entry.position)?) {
        return Ok(None);
    }
    Ok(Some(format!(
        "it was not captured between {} and {}; load it again with `lakeward resync`",
        table.position(),
        entry.position
    )))
}
