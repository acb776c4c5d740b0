//! Runs one source: lease, preflight, first loads, then the stream until it is told to stop.
//!
//! Any trouble ends an *attempt*: everything in memory is dropped and the next attempt reads ledger and tables again, so
//! there is one way to recover and it is the way every start takes. Transient errors are tried again with growing pauses,
//! definite ones end the run of this source; other sources do not notice.

mod commit_loop;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::batch::Gatherer;
use super::commit::{Committer, note_values};
use super::prepared::{self, PreparedSets};
use super::retyped::retyped;
use super::{Error, RunOptions, SourceSummary, TableSummary};
use crate::config::{Commit, Config};
use crate::lake::{Lake, Spill, Table};
use crate::ledger::{self, Entry, History, Holder, Lease, Ledger, TableState};
use crate::schema::{TableName, TableSchema, ValueCounts};
use crate::snapshot::{self, Loaded};
use crate::source::{CollectorLimits, Position, ProblemKind, Source, StreamRequest, TableStart};
use commit_loop::Loop;

/// Events between the reader and the gatherer; each is a batch of rows or smaller.
const CHANNEL_EVENTS: usize = 8;

/// Rows leave the reader when so much of the budget has been decoded into them: those in the channel, the ones being
/// built and the one being taken come to an eighth of it.
const EVENT_SHARE: u64 = 128;

/// What a batch may hold in memory, as a share of the budget: one is gathered while another is written, which needs it a
/// second time in columns of its own and, encoded, a third.
const BATCH_SHARE: u64 = 4;

/// With `--until-caught-up`, how often a transient error is tried again before the run fails.
const ONE_SHOT_RETRIES: usize = 4;

/// How long the end of a run waits for what is good to have but not needed.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// One source and what it needs.
pub struct SourceRun<S> {
    pub name: String,
    pub source: S,
    pub lake: Lake,
    pub commit: Commit,
    pub memory_budget_bytes: u64,
    spill: Arc<Spill>,
    pub options: RunOptions,
    pub holder: Holder,
    pub stop: CancellationToken,
    progress: Mutex<SourceSummary>,
}

/// Everything an attempt has found out before it streams.
struct Prepared {
    from: Position,
    committer: Committer,
    starts: HashMap<TableName, TableStart>,
    /// Transactions that wait for their decision at `from`.
    undecided: PreparedSets,
}

impl<S: Source> SourceRun<S> {
    pub fn new(
        name: &str,
        source: S,
        config: &Config,
        options: RunOptions,
        holder: &Holder,
        stop: CancellationToken,
    ) -> Self {
        Self {
            name: name.to_owned(),
            source,
            lake: Lake::new(&config.lake.url, &config.lake.storage),
            commit: config.commit.clone(),
            memory_budget_bytes: config.memory.budget_bytes,
            spill: Spill::new(
                config.memory.spill_dir.clone(),
                config.memory.spill_bytes_max,
                config.memory.budget_bytes / BATCH_SHARE,
            ),
            options,
            holder: holder.clone(),
            stop,
            progress: Mutex::new(SourceSummary { name: name.to_owned(), ..SourceSummary::default() }),
        }
    }

    /// Runs until stopped, caught up, or a definite error; says how it ended.
    pub async fn run(self) -> SourceSummary {
        let pauses = || {
            let builder = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(60))
                .with_jitter();
            if self.options.until_caught_up {
                builder.with_max_times(ONE_SHOT_RETRIES).build()
            } else {
                builder.without_max_times().build()
            }
        };
        let mut pause = pauses();
        let error = loop {
            let before = self.position();
            let Err(error) = self.leased_attempt().await else { break None };
            if self.stop.is_cancelled() && error.is_transient() {
                tracing::warn!(source = self.name, %error, "stopped while an error was being dealt with");
                break None;
            }
            if self.position() != before {
                pause = pauses();
            }
            let Some(delay) = pause.next().filter(|_| error.is_transient()) else { break Some(error) };
            tracing::warn!(source = self.name, %error, seconds = delay.as_secs_f64(), "trying again after a pause");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => break None,
            }
        };
        if let Some(error) = &error {
            tracing::error!(source = self.name, %error, "source stopped");
        }
        let mut summary = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        summary.error = error.map(Arc::new);
        summary
    }

    /// What is durable, as far as this run knows.
    fn position(&self) -> Option<String> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).position.clone()
    }

    /// One attempt under the lease.
    async fn leased_attempt(&self) -> Result<(), Error> {
        let store = self.lake.ledger_store(&self.name)?;
        let lease = async { Ok(Lease::acquire(store, &self.name, &self.holder).await?) };
        let Some(lease) = self.until_stopped(lease).await? else { return Ok(()) };
        let lost = CancellationToken::new();
        let done = CancellationToken::new();
        let keeper = tokio::spawn(keep(lease, lost.clone(), done.clone()));
        // The attempt is dropped where it stands when the lease is lost.
        let result = tokio::select! {
            result = self.attempt() => Some(result),
            () = lost.cancelled() => None,
        };
        done.cancel();
        let kept = keeper.await?;
        match result {
            Some(result) => {
                if let Err(error) = kept {
                    tracing::warn!(source = self.name, %error, "the lease could not be given back");
                }
                result
            }
            None => Err(kept.err().map_or_else(
                || {
                    let cause = "it ended without a reason".to_owned();
                    ledger::Error::Lost { source_name: self.name.clone(), cause }.into()
                },
                Error::from,
            )),
        }
    }

    async fn attempt(&self) -> Result<(), Error> {
        let Some(prepared) = self.until_stopped(self.prepare()).await? else { return Ok(()) };
        let target = if self.options.until_caught_up {
            let Some(head) = self.until_stopped(async { Ok(self.source.head().await?) }).await? else {
                return Ok(());
            };
            tracing::info!(source = self.name, position = %head, "will stop when this position is in the lake");
            Some(head)
        } else {
            None
        };
        self.stream(prepared, target).await
    }

    /// Runs `work` unless the daemon is told to stop first.
    async fn until_stopped<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
        tokio::select! {
            result = work => result.map(Some),
            () = self.stop.cancelled() => Ok(None),
        }
    }

    async fn prepare(&self) -> Result<Prepared, Error> {
        let begun = chrono::Utc::now();
        // First, so that every problem is told at once: a missing privilege also refuses the next question.
        self.check_ready().await?;
        let identity = self.source.identity().await?;
        let (mut ledger, entry) = Ledger::open(self.lake.ledger_store(&self.name)?).await?;
        self.source.recall(&entry.as_ref().map(|entry| entry.source_notes.clone()).unwrap_or_default());
        if let Some(entry) = &entry
            && entry.history != identity.history
        {
            return Err(crate::source::Error::OtherHistory {
                expected: entry.history.clone(),
                found: identity.history,
            }
            .into());
        }
        let mut history = History::open(self.lake.ledger_store(&self.name)?).await?;
        let durable = entry.as_ref().map(|entry| parse_position(&entry.position)).transpose()?;
        let undecided = prepared::load(&ledger, entry.as_ref()).await?;
        let discovered = self.discover().await?;

        for table in entry.iter().flat_map(|entry| entry.tables.keys()) {
            if !discovered.iter().any(|schema| schema.name.to_string() == *table) {
                tracing::warn!(
                    source = self.name,
                    table,
                    "no longer captured: it is not at the source, or not selected; its lake table stays as it is"
                );
            }
        }

        // What the lake has of these tables decides what is to be loaded.
        let mut open: HashMap<TableName, Table> = HashMap::new();
        let mut missing: Vec<TableName> = Vec::new();
        let mut states: BTreeMap<String, TableState> = BTreeMap::new();
        for schema in &discovered {
            let name = &schema.name;
            let stopped = entry.as_ref().and_then(|entry| match entry.tables.get(&name.to_string()) {
                Some(TableState::Stopped { reason, position }) => Some((reason.clone(), position.clone())),
                _ => None,
            });
            let table = match Table::open(&self.lake, &self.name, name).await {
                Err(error @ crate::lake::Error::Table { .. }) => {
                    tracing::error!(source = self.name, table = %name, reason = %error, "table is stopped");
                    let position = entry.as_ref().map(|entry| entry.position.clone()).unwrap_or_default();
                    let state = TableState::Stopped { reason: error.to_string(), position };
                    states.insert(name.to_string(), state);
                    continue;
                }
                opened => opened?,
            };
            match (table, stopped) {
                (None, _) => missing.push(name.clone()),
                (Some(_), Some((reason, position))) => {
                    tracing::error!(source = self.name, table = %name, reason, position, "table is stopped");
                    states.insert(name.to_string(), TableState::Stopped { reason, position });
                }
                (Some(table), None) => {
                    let gap = unfollowed(&table, entry.as_ref(), durable.as_ref())?;
                    if let Some(gap) = gap.or_else(|| retyped(table.schema(), schema)) {
                        tracing::error!(source = self.name, table = %name, reason = gap, "table is stopped");
                        let position = table.position().to_owned();
                        states.insert(name.to_string(), TableState::Stopped { reason: gap, position });
                    } else {
                        open.insert(name.clone(), table);
                    }
                }
            }
        }
        if durable.is_none() && !open.is_empty() {
            let tables: Vec<String> = open.keys().map(ToString::to_string).collect();
            return Err(Error::LedgerGone { tables: tables.join(", ") });
        }

        let followed: Vec<TableName> = discovered
            .iter()
            .map(|schema| &schema.name)
            .filter(|name| !states.contains_key(&name.to_string()))
            .cloned()
            .collect();
        if let (Some(entry), Some(_)) = (&entry, &durable) {
            self.stop_unpublished(&mut open, &mut states, entry, &mut ledger).await?;
        }
        let from = self.source.prepare(&followed, durable.as_ref()).await?;
        let mut entry =
            entry.unwrap_or_else(|| Entry::new(&self.name, &identity.server, &identity.history, from.to_string()));
        entry.server = identity.server;
        if durable.is_none() {
            // The first loads will show everything committed before this moment.
            entry.fresh_until = Some(begun);
        }
        if !missing.is_empty() {
            self.source.observe(&missing).await?;
            entry.source_notes = self.source.notes();
        }
        if durable.is_none() || !missing.is_empty() {
            // Before any table appears, so that a crash during the first load goes on from here.
            ledger.append(&entry).await?;
        }
        let mut from = from;
        for Loaded { table, values } in self.load_missing(missing, &mut history, &from, &mut states).await? {
            // A table loaded anew starts its counters anew.
            entry.values.remove(&table.name().to_string());
            if !values.is_empty() {
                note_values(&mut entry, &self.name, table.name(), &values);
            }
            // A log may run ahead of what snapshots see. Tables that have more than `from` skip it by themselves.
            let loaded = parse_position(table.position())?;
            if !loaded.covers(&from) && from.covers(&loaded) {
                from = loaded;
                // The next start must begin here too.
                entry.position = from.to_string();
            }
            open.insert(table.name().clone(), table);
        }

        // Only what is captured has a history.
        history.retain(|table, versions| {
            let captured = discovered.iter().any(|schema| schema.name.to_string() == table);
            if captured { versions } else { Vec::new() }
        });
        let mut starts = HashMap::new();
        for (name, table) in &open {
            states.insert(name.to_string(), TableState::Streaming);
            let position = parse_position(table.position())?;
            // The lake does not keep the value policies: they are the contract's of today.
            let policies = discovered.iter().find(|schema| schema.name == *name);
            let mut schema = TableSchema::clone(table.schema());
            if policies.is_some_and(|declared| declared.identity != schema.identity) {
                tracing::warn!(source = self.name, table = %name, lake = ?schema.identity, "what identifies its rows has \
                    changed at the source or in its contract; the lake goes on as it was loaded, until the table's folder is \
                    removed and it is loaded again");
            }
            for column in &mut schema.columns {
                let declared =
                    policies.and_then(|schema| schema.columns.iter().find(|other| other.name == column.name));
                column.policy = declared.map(|declared| declared.policy).unwrap_or_default();
            }
            let layout = super::history::in_force(&history, name, &position, &from)?;
            super::history::forget_later(&mut history, name, |at| position.covers(at) || from.covers(at))?;
            starts.insert(
                name.clone(),
                TableStart { schema: Arc::new(schema), position, layout, ignored: BTreeSet::new() },
            );
        }
        entry.tables = states;
        entry.source_notes = self.source.notes();
        entry.written_at = chrono::Utc::now();
        let leftovers = ledger.prepared().leftovers(&entry.prepared).await?;
        ledger.append(&entry).await?;
        ledger.prepared().forget(&leftovers).await;
        let committer = Committer {
            source: self.name.clone(),
            tables: open,
            ledger,
            history,
            entry,
            totals: HashMap::new(),
            rows: 0,
            transactions: 0,
        };
        Ok(Prepared { from, committer, starts, undecided })
    }

    /// Tables that have been out of the source's publication have a gap. That is written down before
    /// [`Source::prepare`] publishes them again and so wipes the trace.
    async fn stop_unpublished(
        &self,
        open: &mut HashMap<TableName, Table>,
        states: &mut BTreeMap<String, TableState>,
        entry: &Entry,
        ledger: &mut Ledger,
    ) -> Result<(), Error> {
        let names: Vec<TableName> = open.keys().cloned().collect();
        let unpublished = self.source.unpublished(&names).await?;
        if unpublished.is_empty() {
            return Ok(());
        }
        for name in unpublished {
            let Some(table) = open.remove(&name) else { continue };
            let reason = "it was not in the publication for a while, and its changes of that time are not in the log \
                          that lakeward reads; remove its folder in the lake and restart to load it again";
            tracing::error!(source = self.name, table = %name, reason, "table is stopped");
            let state = TableState::Stopped { reason: reason.to_owned(), position: table.position().to_owned() };
            states.insert(name.to_string(), state);
        }
        let mut entry = entry.clone();
        entry.tables.extend(states.clone());
        entry.written_at = chrono::Utc::now();
        ledger.append(&entry).await?;
        Ok(())
    }

    /// First loads. A table that can't be loaded is stopped; the others are loaded without it.
    async fn load_missing(
        &self,
        mut missing: Vec<TableName>,
        history: &mut History,
        from: &Position,
        states: &mut BTreeMap<String, TableState>,
    ) -> Result<Vec<Loaded>, Error> {
        let mut loaded = Vec::new();
        loop {
            let load = snapshot::first_load(&self.source, &self.name, &self.lake, history, &missing, &mut loaded).await;
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
            let state = TableState::Stopped { reason: error.to_string(), position: from.to_string() };
            states.insert(table.clone(), state);
            // Those that were complete before the error came are there.
            missing.retain(|name| !loaded.iter().any(|done| done.table.name() == name));
            let mut still_missing = Vec::new();
            for name in missing {
                match Table::open(&self.lake, &self.name, &name).await? {
                    Some(table) => loaded.push(Loaded { table, values: ValueCounts::default() }),
                    None => still_missing.push(name),
                }
            }
            missing = still_missing;
        }
    }

    /// Preflight: settings and privileges must be right, a table that can't be captured is left out.
    async fn check_ready(&self) -> Result<(), Error> {
        let mut fatal = Vec::new();
        for problem in self.source.preflight().await? {
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
        if fatal.is_empty() { Ok(()) } else { Err(Error::NotReady(fatal)) }
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
        if schemas.is_empty() { Err(Error::NoTables) } else { Ok(schemas) }
    }

    /// Streams and commits until stopped or, with a target, until the target is in the lake.
    async fn stream(&self, prepared: Prepared, target: Option<Position>) -> Result<(), Error> {
        let Prepared { from, committer, starts, undecided } = prepared;
        let (durable, durable_seen) = watch::channel(from.clone());
        let stream_stop = self.stop.child_token();
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        tracing::info!(source = self.name, position = %from, tables = starts.len(), "streaming");
        let reached = target.as_ref().is_some_and(|target| from.covers(target));
        let request = StreamRequest {
            from,
            tables: starts,
            durable: durable_seen,
            limits: self.collector_limits(),
            stop: stream_stop.clone(),
        };
        let state = Loop {
            run: self,
            // A transaction that fills half of what a batch may hold goes to disk, so that there is room for the rest.
            gatherer: Gatherer::new(self.spill.clone(), self.batch_bytes_max() / 2, undecided),
            committer: Some(committer),
            committing: None,
            durable,
            target,
            stream_stop,
            draining: false,
            last_ledger: Instant::now(),
        };
        if reached {
            state.stream_stop.cancel();
        }
        // A quiet source would not notice that nobody takes its events any more.
        let end_stream = state.stream_stop.clone();
        let committing = async {
            let result = state.run(receiver).await;
            end_stream.cancel();
            result
        };
        let (streamed, committed) = tokio::join!(self.source.stream(request, sender), committing);
        // A failed commit closes the channel, which the reader can only report as such.
        committed?;
        match streamed {
            Err(crate::source::Error::ReceiverGone) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a batch may hold in memory.
    fn batch_bytes_max(&self) -> u64 {
        self.commit.bytes_max.min(self.memory_budget_bytes / BATCH_SHARE)
    }

    fn collector_limits(&self) -> CollectorLimits {
        let default = CollectorLimits::default();
        let share = usize::try_from(self.memory_budget_bytes / EVENT_SHARE).unwrap_or(usize::MAX);
        CollectorLimits { bytes_max: default.bytes_max.min(share), ..default }
    }

    fn report(&self, committer: &Committer) {
        let mut summary = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        summary.position = Some(committer.entry.position.clone());
        summary.rows = committer.rows;
        summary.transactions = committer.transactions;
        summary.tables = committer
            .entry
            .tables
            .iter()
            .map(|(name, state)| {
                let open = committer.tables.iter().find(|(table, _)| &table.to_string() == name);
                let (state, error) = match state {
                    TableState::Streaming => ("streaming", None),
                    TableState::Stopped { reason, .. } => ("stopped", Some(reason.clone())),
                };
                TableSummary {
                    table: name.clone(),
                    state: state.to_owned(),
                    rows_changed: open
                        .and_then(|(table, _)| committer.totals.get(table))
                        .map_or(0, |totals| totals.rows),
                    version: open.map(|(_, table)| table.version()),
                    error,
                }
            })
            .collect();
    }
}

/// Renews the lease until `done`, then gives it back; cancels `lost` when it is lost.
async fn keep(mut lease: Lease, lost: CancellationToken, done: CancellationToken) -> Result<(), ledger::Error> {
    // Nobody may write for the last seconds of a lease: a PUT takes time.
    const MARGIN: Duration = Duration::from_secs(5);
    let mut pause = ledger::RENEW_EVERY;
    loop {
        tokio::select! {
            () = done.cancelled() => {
                // Not given back, it ends by itself.
                return tokio::time::timeout(FAREWELL_MAX, lease.release()).await.unwrap_or(Ok(()));
            }
            () = tokio::time::sleep(pause) => {}
        }
        let remaining = lease.remaining().saturating_sub(MARGIN);
        let error = match tokio::time::timeout(remaining, lease.renew()).await {
            Ok(Ok(())) => {
                pause = ledger::RENEW_EVERY;
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => lease.lost("the store did not answer before it ended"),
        };
        if !matches!(error, ledger::Error::Store { .. }) || lease.remaining() < MARGIN {
            lost.cancel();
            return Err(error);
        }
        tracing::warn!(%error, "the lease could not be renewed; trying again");
        pause = Duration::from_secs(2);
    }
}

/// Why an existing table can't go on: the ledger moved on without it while it was not captured.
fn unfollowed(table: &Table, entry: Option<&Entry>, durable: Option<&Position>) -> Result<Option<String>, Error> {
    let (Some(entry), Some(durable)) = (entry, durable) else { return Ok(None) };
    let listed = entry.tables.contains_key(&table.name().to_string());
    if listed || parse_position(table.position())?.covers(durable) {
        return Ok(None);
    }
    Ok(Some(format!(
        "it was not captured between {} and {}; remove its folder in the lake and restart to load it again",
        table.position(),
        entry.position
    )))
}

pub(super) fn parse_position(text: &str) -> Result<Position, Error> {
    text.parse().map_err(|_| Error::Position { position: text.to_owned() })
}
