//! Runs one source: lease, preflight, first loads, then the stream until it is told to stop.
//!
//! Any trouble ends an *attempt*: everything in memory is dropped and the next attempt reads ledger and tables again, so
//! there is one way to recover and it is the way every start takes. Transient errors are tried again with growing pauses,
//! definite ones end the run of this source; other sources do not notice.

mod commit_loop;
mod loads;
mod prepare;
mod reloads;
mod requested;
mod verdicts;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::commit_loop::instant_of;
use super::batch::Gatherer;
use super::commit::Committer;
use super::lake_to_write;
use super::leased::under_lease;
use super::telling::Lag;
use super::upkeep::{SweepTimes, Upkeep};
use super::{Error, RunOptions, SourceSummary, TableSummary};
use crate::config::{Commit, Config};
use crate::lake::{Lake, Spill, Table};
use crate::ledger::{Holder, Lease, Outbox, Requests};
use crate::notice::{Deliveries, Pauses};
use crate::schema::TableName;
use crate::source::{CollectorLimits, Position, Source, StreamRequest};
use commit_loop::Loop;
use prepare::Prepared;

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

/// Between attempts that begin because of the same table.
const TURNED_UP_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// How long the end of a run waits for notices; what is left is delivered by the next run.
const NOTICES_MAX: Duration = Duration::from_secs(3);

/// The same, where the next run may be an hour away.
const NOTICES_ONE_SHOT_MAX: Duration = Duration::from_secs(30);

/// One source and what it needs.
pub struct SourceRun<S> {
    pub name: String,
    pub source: Arc<S>,
    pub lake: Lake,
    pub commit: Commit,
    pub memory_budget_bytes: u64,
    /// For what is stated about its tables.
    config: Config,
    spill: Arc<Spill>,
    pub options: RunOptions,
    pub holder: Holder,
    pub stop: CancellationToken,
    progress: Mutex<SourceSummary>,
    lag: Mutex<Lag>,
    /// From the first lease on, whatever becomes of attempts: a source that can't be reached is worth telling.
    deliveries: Mutex<Option<Deliveries>>,
    turned_up: Mutex<HashMap<TableName, TurnedUp>>,
    /// That, and why, the stream found the position to be lost, for the next attempt.
    lost: Mutex<Option<String>>,
    swept: Mutex<SweepTimes>,
}

/// Attempts that began because a table turned up.
#[derive(Default)]
struct TurnedUp {
    /// Where the log told of it: whatever came of the attempt, the same place is no reason for another.
    places: HashSet<String>,
    /// Since it was last seen to stream.
    tries: u32,
}

/// How an attempt ended that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was told to stop, or has caught up.
    Done,
    /// The log is to be read again from where the ledger is: there is a new table, or a decision about one that waits.
    Anew,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            source: Arc::new(source),
            lake: lake_to_write(config),
            commit: config.commit.clone(),
            memory_budget_bytes: config.memory.budget_bytes,
            config: config.clone(),
            spill: Spill::new(
                config.memory.spill_dir.clone(),
                config.memory.spill_bytes_max,
                config.memory.budget_bytes / BATCH_SHARE,
            ),
            options,
            holder: holder.clone(),
            stop,
            progress: Mutex::new(SourceSummary { name: name.to_owned(), ..SourceSummary::default() }),
            // What is gathered for so long can't be in the lake sooner.
            lag: Mutex::new(Lag::new(config.notices.lag.max(config.commit.interval * 2))),
            deliveries: Mutex::default(),
            turned_up: Mutex::default(),
            lost: Mutex::default(),
            swept: Mutex::default(),
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
            let error = match self.leased_attempt().await {
                Ok(Ended::Anew) if !self.stop.is_cancelled() => continue,
                Ok(_) => break None,
                Err(error) => error,
            };
            if self.stop.is_cancelled() && error.is_transient() {
                tracing::warn!(source = self.name, %error, "stopped while an error was being dealt with");
                break None;
            }
            if self.position() != before {
                pause = pauses();
            }
            let goes_on = error.is_transient() || self.takes_for_lost(&error);
            let Some(delay) = pause.next().filter(|_| goes_on) else { break Some(self.named(error)) };
            tracing::warn!(source = self.name, %error, seconds = delay.as_secs_f64(), "trying again after a pause");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => break None,
            }
        };
        if let Some(error) = &error {
            tracing::error!(source = self.name, %error, "source stopped");
        }
        let deliveries = locked(&self.deliveries).take();
        if let Some(deliveries) = deliveries {
            deliveries.finish(if self.options.until_caught_up { NOTICES_ONE_SHOT_MAX } else { NOTICES_MAX }).await;
        }
        let mut summary = locked(&self.progress).clone();
        summary.error = error.map(Arc::new);
        summary
    }

    /// What is durable, as far as this run knows.
    fn position(&self) -> Option<String> {
        locked(&self.progress).position.clone()
    }

    /// One attempt under the lease.
    async fn leased_attempt(&self) -> Result<Ended, Error> {
        let store = self.lake.ledger_store(&self.name)?;
        let lease = async { Ok(Lease::acquire(store, &self.name, &self.holder).await?) };
        let Some(lease) = self.until_stopped(lease).await? else { return Ok(Ended::Done) };
        match under_lease(lease, &self.name, Box::pin(self.watched_attempt())).await {
            Ok(result) => result,
            Err(error) => {
                // Whoever has the lease now delivers.
                locked(&self.deliveries).take();
                Err(error)
            }
        }
    }

    /// Begins to deliver notices, unless that is under way. Before anything is entered into the outbox, so that channels
    /// that are new are told of it.
    async fn tell_people(&self) -> Result<(), Error> {
        let under_way = locked(&self.deliveries).as_mut().is_some_and(|deliveries| !deliveries.has_lost_any());
        if !under_way {
            let deliveries = Deliveries::start(&self.lake, &self.config, &self.name, Pauses::default()).await?;
            *locked(&self.deliveries) = Some(deliveries);
        }
        Ok(())
    }

    /// Something may have been entered into the outbox.
    fn wake_deliveries(&self, outbox: &Outbox) {
        if let Some(deliveries) = &*locked(&self.deliveries) {
            deliveries.wake(outbox.newest());
        }
    }

    /// One attempt; that it fails is often why the source is behind.
    async fn watched_attempt(&self) -> Result<Ended, Error> {
        let result = match self.tell_people().await {
            Ok(()) => self.attempt().await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            let told = async {
                let mut outbox = Outbox::open(self.lake.ledger_store(&self.name)?).await?;
                self.tell_lag(&mut outbox).await
            };
            if let Err(error) = told.await {
                tracing::debug!(source = self.name, %error, "that the source is behind could not be told");
            }
        }
        result
    }

    /// Tells that the source is too far behind, if it is.
    async fn tell_lag(&self, outbox: &mut Outbox) -> Result<(), Error> {
        let Some(event) = locked(&self.lag).due(&self.name, chrono::Utc::now()) else { return Ok(()) };
        tracing::warn!(source = self.name, detail = %event.detail, "the source is further behind than it may be");
        let appended = outbox.append(&event).await;
        if appended.is_err() {
            locked(&self.lag).forget_told();
        }
        self.wake_deliveries(outbox);
        Ok(appended?)
    }

    /// After how long an attempt may begin because of a table that turned up; `None` if one has begun already. One that
    /// comes to nothing must not keep the others busy.
    fn pause_before(&self, table: &TableName, place: &str) -> Option<Duration> {
        let mut all = locked(&self.turned_up);
        let turned_up = all.entry(table.clone()).or_default();
        if !turned_up.places.insert(place.to_owned()) {
            return None;
        }
        turned_up.tries += 1;
        let seconds = 4_u64.saturating_pow(turned_up.tries - 1).min(TURNED_UP_PAUSE_MAX.as_secs());
        Some(Duration::from_secs(seconds))
    }

    /// These tables stream: whatever turns up under their names later is another one.
    fn note_streaming<'t>(&self, tables: impl Iterator<Item = &'t TableName>) {
        let mut all = locked(&self.turned_up);
        for table in tables {
            if let Some(turned_up) = all.get_mut(table) {
                turned_up.tries = 0;
            }
        }
    }

    async fn attempt(&self) -> Result<Ended, Error> {
        let Some(prepared) = self.until_stopped(self.prepare()).await? else { return Ok(Ended::Done) };
        let target = if self.options.until_caught_up {
            let Some(head) = self.until_stopped(async { Ok(self.source.head().await?) }).await? else {
                return Ok(Ended::Done);
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

    /// Streams and commits until stopped or, with a target, until the target is in the lake.
    async fn stream(&self, prepared: Prepared, target: Option<Position>) -> Result<Ended, Error> {
        let Prepared { from, committer, starts, undecided, following, known_verdicts, again_at } = prepared;
        self.wake_deliveries(committer.ledger.outbox());
        let loader = self.loader(&from, &committer)?;
        let repairer = self.repairer(&committer).await?;
        let (durable, durable_seen) = watch::channel(from.clone());
        let stream_stop = self.stop.child_token();
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        tracing::info!(source = self.name, position = %from, tables = starts.len(), "streaming");
        self.note_streaming(starts.keys());
        let reached =
            target.as_ref().is_some_and(|target| from.covers(target)) && loader.is_done() && repairer.is_done();
        // A transaction that fills half of what a batch may hold goes to disk, so that there is room for the rest.
        let open_bytes_max = self.batch_bytes_max() / 2;
        let gatherer = Gatherer::new(self.spill.clone(), open_bytes_max, from.clone(), undecided, following);
        let (found, decided) = mpsc::channel(1);
        let (asked, whether_asked) = watch::channel(gatherer.asks());
        let decisions = committer.ledger.decisions().clone();
        let _looking =
            AbortOnDropHandle::new(tokio::spawn(verdicts::look_out(decisions, known_verdicts, whether_asked, found)));
        let (wished, requested) = mpsc::channel(1);
        // A run that ends by itself leaves what is asked for meanwhile to the next.
        let taken = (!self.options.until_caught_up).then_some(committer.entry.requests_taken);
        let requests = Requests::new(self.lake.ledger_store(&self.name)?);
        let _listening = AbortOnDropHandle::new(tokio::spawn(requested::look_out(requests, taken, wished)));
        let request = StreamRequest {
            from: from.clone(),
            tables: starts,
            durable: durable_seen,
            limits: self.collector_limits(),
            stop: stream_stop.clone(),
        };
        let state = Loop {
            run: self,
            gatherer,
            committer: Some(committer),
            committing: None,
            loader,
            repairer,
            upkeep: Upkeep::new(&self.name, &self.lake, &self.config, self.stop.child_token()),
            load_told: Instant::now(),
            chunks_turn: false,
            durable,
            target,
            stream_stop,
            draining: false,
            last_ledger: Instant::now(),
            reached: from,
            decided,
            asked,
            requested,
            started: Instant::now(),
            anew_at: again_at.map(instant_of),
            lag_seen: Instant::now(),
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
        let ended = committed?;
        match streamed {
            Err(crate::source::Error::ReceiverGone) | Ok(()) => Ok(ended),
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
        locked(&self.lag).note(committer.entry.fresh_until, &committer.entry.position);
        self.wake_deliveries(committer.ledger.outbox());
        let mut summary = locked(&self.progress);
        summary.position = Some(committer.entry.streamed().to_owned());
        summary.rows = committer.rows;
        summary.transactions = committer.transactions;
        let open: HashMap<String, &Table> =
            committer.tables.iter().map(|(name, table)| (name.to_string(), table)).collect();
        summary.tables = committer
            .entry
            .tables
            .iter()
            .map(|(name, state)| {
                let open = open.get(name);
                TableSummary {
                    table: name.clone(),
                    state: state.word().to_owned(),
                    rows_changed: open
                        .and_then(|table| committer.totals.get(table.name()))
                        .map_or(0, |totals| totals.rows),
                    version: open.map(|table| table.version()),
                    error: state.reason().map(str::to_owned),
                }
            })
            .collect();
    }
}

pub(super) fn parse_position(text: &str) -> Result<Position, Error> {
    text.parse().map_err(|_| Error::Position { position: text.to_owned() })
}
