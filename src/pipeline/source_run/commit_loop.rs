//! The loop between a source's events and its commits: what a batch takes in, and when it is due.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::super::batch::Gatherer;
use super::super::commit::Committer;
use super::{Ended, FAREWELL_MAX, SourceRun, parse_position};
use crate::ledger::Decided;
use crate::source::{Event, Position, Source};

/// How often the ledger follows a position that moves without changes of our tables.
const IDLE_LEDGER_EVERY: Duration = Duration::from_secs(10);

/// How often the ledger is written when not even the position moves: says that lakeward is alive and up to date.
const STILL_LEDGER_EVERY: Duration = Duration::from_secs(60);

/// For tables that turn up, an attempt begins at most so often.
const APPEARED_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether the source is too far behind. Also how long a start has to catch up in.
const LAG_EVERY: Duration = Duration::from_secs(30);

/// The loop that takes events in and sends batches off; one commit is under way at a time, the next batch gathers
/// meanwhile.
pub(super) struct Loop<'a, S> {
    pub(super) run: &'a SourceRun<S>,
    pub(super) gatherer: Gatherer,
    /// Away while a commit is under way.
    pub(super) committer: Option<Committer>,
    pub(super) committing: Option<JoinHandle<(Committer, Result<(), Error>)>>,
    pub(super) durable: watch::Sender<Position>,
    pub(super) target: Option<Position>,
    pub(super) stream_stop: CancellationToken,
    /// The source has ended; what is complete is committed and then the loop ends.
    pub(super) draining: bool,
    pub(super) last_ledger: Instant,
    /// How far the tables are that stream; `durable` stays behind it while others wait.
    pub(super) reached: Position,
    /// What people decide meanwhile, and whether anything waits for that.
    pub(super) decided: mpsc::Receiver<Decided>,
    pub(super) asked: watch::Sender<bool>,
    pub(super) started: Instant,
    /// When the attempt is to end and another to begin.
    pub(super) anew_at: Option<Instant>,
    pub(super) lag_seen: Instant,
}

impl<S: Source> Loop<'_, S> {
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>) -> Result<Ended, Error> {
        let mut clock = tokio::time::interval(Duration::from_millis(100));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.start_commit_if_due();
            if self.draining && self.committing.is_none() {
                break;
            }
            tokio::select! {
                done = wait(&mut self.committing), if self.committing.is_some() => {
                    let (committer, result) = done?;
                    self.committing = None;
                    let mut committer = committer;
                    let outcome = result.and_then(|()| self.committed(&mut committer));
                    self.committer = Some(committer);
                    outcome?;
                }
                event = events.recv(), if !self.draining && self.has_room() => match event {
                    Some(event) => self.take(event).await?,
                    None => self.draining = true,
                },
                Some(decided) = self.decided.recv() => self.gatherer.decided(&decided),
                _ = clock.tick() => self.look_around().await?,
            }
        }
        if let Some(committer) = &mut self.committer {
            if tokio::time::timeout(FAREWELL_MAX, committer.finish()).await.is_err() {
                tracing::warn!(source = self.run.name, "a checkpoint is not finished; the next one will be");
            }
            self.run.report(committer);
        }
        self.look_for_reasons(Instant::now());
        Ok(if self.anew_at.is_some() { Ended::Anew } else { Ended::Done })
    }

    /// What is looked at now and then rather than with each event.
    async fn look_around(&mut self) -> Result<(), Error> {
        self.asked.send_if_modified(|asked| std::mem::replace(asked, self.gatherer.asks()) != *asked);
        let now = Instant::now();
        self.look_for_reasons(now);
        if self.anew_at.is_some_and(|at| at <= now) && !self.stream_stop.is_cancelled() {
            tracing::info!(source = self.run.name, "reading the log anew from the last commit");
            self.stream_stop.cancel();
        }
        if now.duration_since(self.lag_seen) >= LAG_EVERY
            && let Some(committer) = &mut self.committer
        {
            self.lag_seen = now;
            self.run.tell_lag(committer.ledger.outbox()).await?;
        }
        Ok(())
    }

    /// Reasons to begin anew.
    fn look_for_reasons(&mut self, now: Instant) {
        if self.gatherer.is_overtaken() {
            self.anew_at = Some(now);
        }
        for (table, place) in self.gatherer.take_appeared() {
            if let Some(pause) = self.run.pause_before(&table, &place) {
                tracing::info!(source = self.run.name, %table, place, "a table turned up, and will be loaded");
                let at = (now + pause).max(self.started + APPEARED_EVERY);
                self.anew_at = Some(self.anew_at.map_or(at, |before| before.min(at)));
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        if let Event::Boundary { position, .. } = &event
            && self.target.as_ref().is_some_and(|target| position.covers(target))
        {
            // Nothing after this boundary is waited for.
            self.stream_stop.cancel();
        }
        self.gatherer.add(event);
        self.gatherer.make_room().await
    }

    /// While a commit is under way, the next batch may grow to the limits but not beyond.
    fn has_room(&self) -> bool {
        self.committing.is_none() || !self.is_full()
    }

    fn is_full(&self) -> bool {
        let complete = self.gatherer.complete();
        let rows_max = complete.rows >= self.run.commit.rows_max;
        rows_max || complete.spilled || self.gatherer.bytes() >= self.run.batch_bytes_max()
    }

    fn is_due(&self) -> bool {
        let complete = self.gatherer.complete();
        let Some(position) = &complete.position else { return !complete.is_empty() };
        let age = complete.since.map_or(Duration::ZERO, |since| since.elapsed());
        let ending = self.draining || self.stream_stop.is_cancelled();
        if !complete.is_empty() {
            return ending || self.is_full() || age >= self.run.commit.interval;
        }
        let moved = *position != self.reached;
        let still = self.last_ledger.elapsed();
        moved && (ending || still >= IDLE_LEDGER_EVERY) || still >= STILL_LEDGER_EVERY
    }

    fn start_commit_if_due(&mut self) {
        if self.committing.is_some() || !self.is_due() {
            return;
        }
        let Some(mut committer) = self.committer.take() else { return };
        let batch = self.gatherer.cut();
        committer.entry.source_notes = self.run.source.notes();
        self.committing = Some(tokio::spawn(async move {
            let (rows, transactions, tables) = (batch.rows, batch.transactions, batch.tables.len());
            let started = Instant::now();
            let result = committer.commit(batch).await;
            if result.is_ok() && rows > 0 {
                let (source, position) = (&committer.source, &committer.entry.position);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(source, rows, transactions, tables, seconds, position, "committed");
            }
            (committer, result)
        }));
    }

    fn committed(&mut self, committer: &mut Committer) -> Result<(), Error> {
        self.last_ledger = Instant::now();
        for table in committer.failed.drain(..) {
            self.gatherer.lost(&table);
        }
        self.run.report(committer);
        self.durable.send_replace(parse_position(&committer.entry.position)?);
        self.reached = parse_position(committer.entry.streamed())?;
        Ok(())
    }
}

/// Waits for the commit under way.
async fn wait(
    committing: &mut Option<JoinHandle<(Committer, Result<(), Error>)>>,
) -> Result<(Committer, Result<(), Error>), tokio::task::JoinError> {
    match committing {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
