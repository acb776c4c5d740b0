//! The loop between a source's events and its commits: what a batch takes in, and when it is due; and when, between
//! batches, chunks of tables that are being loaded are merged, rows put right, and compacted files put in place.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::super::batch::Gatherer;
use super::super::commit::Committer;
use super::super::leased::FAREWELL_MAX;
use super::super::loading::Outcome;
use super::super::telling::Trouble;
use super::super::upkeep::Upkeep;
use super::{Ended, SourceRun, locked, parse_position};
use crate::lake::Committed;
use crate::ledger::Decided;
use crate::schema::TableName;
use crate::snapshot::{Loader, Repairer};
use crate::source::{Event, Position, Source};

/// How often the ledger follows a position that moves without changes of our tables.
const IDLE_LEDGER_EVERY: Duration = Duration::from_secs(10);

/// How often the ledger is written when not even the position moves: says that lakeward is alive and up to date.
const STILL_LEDGER_EVERY: Duration = Duration::from_secs(60);

/// For tables that turn up, an attempt begins at most so often.
const APPEARED_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether the source is too far behind. Also how long a start has to catch up in.
const LAG_EVERY: Duration = Duration::from_secs(30);

/// How soon after a commit another is due because a chunk waits for it.
const LOAD_COMMIT_EVERY: Duration = Duration::from_millis(300);

/// How often the ledger is written to say how far loads are.
const LOAD_TOLD_EVERY: Duration = Duration::from_secs(5);

/// While the source is caught up with, a batch is committed when it has one in so many parts of what it may have and nothing else is being
/// committed: the log is read on meanwhile, and the next batch is as large as that takes.
const CATCH_UP_PART: u64 = 4;

/// What the committer was sent for, and came back with.
pub(super) enum Work {
    Batch,
    Chunks(Vec<Outcome>),
    /// `void`: it came to nothing.
    Repair {
        void: bool,
    },
    Compaction {
        table: TableName,
        void: bool,
    },
}

/// The loop that takes events in and sends batches off; one commit is under way at a time, the next batch gathers
/// meanwhile.
pub(super) struct Loop<'a, S> {
    pub(super) run: &'a SourceRun<S>,
    pub(super) gatherer: Gatherer,
    /// Away while a commit is under way.
    pub(super) committer: Option<Committer>,
    pub(super) committing: Option<JoinHandle<(Committer, Result<Work, Error>)>>,
    pub(super) loader: Loader<S>,
    pub(super) repairer: Repairer<S>,
    pub(super) upkeep: Upkeep,
    /// When the ledger was last written to say how far loads are.
    pub(super) load_told: Instant,
    /// After each batch it is the chunks' turn: where commits take longer than their interval, the next is always due.
    pub(super) chunks_turn: bool,
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
    /// Somebody asks for something that the next attempt begins with.
    pub(super) requested: mpsc::Receiver<()>,
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
            self.look_after_loads().await?;
            if !self.ending() {
                self.loader.start();
            }
            if self.chunks_turn {
                self.start_merge_if_ready();
                self.start_repair_if_ready();
                self.start_upkeep_if_ready();
            }
            self.start_commit_if_due();
            self.start_merge_if_ready();
            self.start_repair_if_ready();
            self.start_upkeep_if_ready();
            if self.draining && self.committing.is_none() {
                break;
            }
            tokio::select! {
                done = wait(&mut self.committing), if self.committing.is_some() => {
                    let (committer, result) = done?;
                    self.committing = None;
                    let mut committer = committer;
                    let outcome = result.and_then(|work| self.returned(work, &mut committer));
                    self.committer = Some(committer);
                    outcome?;
                }
                event = events.recv(), if !self.draining && self.has_room() => match event {
                    Some(event) => self.take(event).await?,
                    None => self.draining = true,
                },
                read = self.loader.next(), if !self.ending() => read?,
                read = self.repairer.next(), if !self.ending() => read?,
                () = self.upkeep.next(), if !self.ending() => {}
                Some(decided) = self.decided.recv() => self.gatherer.decided(&decided),
                Some(()) = self.requested.recv() => self.anew_at = Some(Instant::now()),
                _ = clock.tick() => self.look_around().await?,
            }
        }
        self.upkeep.give_up().await;
        if let Some(committer) = &mut self.committer {
            if tokio::time::timeout(FAREWELL_MAX, committer.finish()).await.is_err() {
                tracing::warn!(source = self.run.name, "a checkpoint is not finished; the next one will be");
            }
            self.run.report(committer);
            if let Some(at) = committer.begin_anew.take() {
                self.anew_at = earlier(self.anew_at, instant_of(at));
            }
        }
        self.look_for_reasons(Instant::now());
        Ok(if self.anew_at.is_some() { Ended::Anew } else { Ended::Done })
    }

    /// Nothing new is begun any more.
    fn ending(&self) -> bool {
        self.draining || self.stream_stop.is_cancelled()
    }

    /// Begins to read what may be read, and stops the tables that can't be loaded.
    async fn look_after_loads(&mut self) -> Result<(), Error> {
        let Some(committer) = self.committer.as_mut().filter(|_| !self.draining) else { return Ok(()) };
        for (table, error) in self.loader.take_stopped() {
            let trouble = match &error {
                crate::snapshot::Error::Source(error) => Trouble::from(error),
                crate::snapshot::Error::Lake(error) => Trouble::from(error),
                other => Trouble::of_text(other.to_string()),
            };
            committer.stop_load(&table, trouble).await?;
        }
        for (table, finding) in self.loader.take_unfitting() {
            committer.give_up_columns(&table, &finding).await?;
        }
        for table in committer.failed.drain(..) {
            self.gatherer.lost(&table);
            self.loader.forget(&table);
        }
        if let Some(at) = committer.begin_anew.take() {
            self.anew_at = earlier(self.anew_at, instant_of(at));
        }
        if !self.stream_stop.is_cancelled() {
            self.repairer.start(&mut committer.tables, &self.reached)?;
        }
        let given_up = self.repairer.take_given_up();
        if !given_up.is_empty() {
            committer.entry.repairs.retain(|number| !given_up.contains(number));
            committer.write_entry().await?;
        }
        if self.loader.is_done() && self.repairer.is_done() {
            // With a target, nothing else is waited for.
            if self.target.as_ref().is_some_and(|target| self.reached.covers(target)) {
                self.stream_stop.cancel();
            }
            return Ok(());
        }
        if !self.stream_stop.is_cancelled() {
            self.loader.advance(&committer.tables, &self.reached)?;
        }
        if self.load_told.elapsed() >= LOAD_TOLD_EVERY {
            self.load_told = Instant::now();
            committer.write_entry().await?;
        }
        Ok(())
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
            self.run.tell_lag(committer.ledger.outbox_mut()).await?;
        }
        Ok(())
    }

    /// Reasons to begin anew.
    fn look_for_reasons(&mut self, now: Instant) {
        if self.gatherer.is_overtaken() {
            self.anew_at = earlier(self.anew_at, now);
        }
        for (table, place) in self.gatherer.take_appeared() {
            if let Some(pause) = self.run.pause_before(&table, &place) {
                tracing::info!(source = self.run.name, %table, place, "a table turned up, and will be loaded");
                let at = (now + pause).max(self.started + APPEARED_EVERY);
                self.anew_at = earlier(self.anew_at, at);
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        if let Event::Boundary { position, .. } = &event
            && self.target.as_ref().is_some_and(|target| position.covers(target))
            && self.loads_are_done()
        {
            // Nothing after this boundary is waited for.
            self.stream_stop.cancel();
        }
        self.gatherer.add(event);
        self.gatherer.make_room().await
    }

    /// Nothing is being loaded or put right.
    fn loads_are_done(&self) -> bool {
        self.loader.is_done() && self.repairer.is_done()
    }

    /// While a commit is under way, the next batch may grow to the limits but not beyond.
    fn has_room(&self) -> bool {
        self.committing.is_none() || !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.gatherer.complete().spilled || self.holds_one_in(1)
    }

    /// Whether the batch has one in so many parts of what it may have.
    fn holds_one_in(&self, parts: u64) -> bool {
        self.gatherer.complete().rows >= self.run.commit.rows_max / parts
            || self.gatherer.bytes() >= self.run.batch_bytes_max() / parts
    }

    /// What comes was committed at the source a while ago.
    fn catches_up(&self) -> bool {
        let behind = |committed: Committed| {
            (Utc::now() - committed.last).to_std().is_ok_and(|behind| behind > self.run.commit.interval * 2)
        };
        self.target.is_some() || self.gatherer.complete().committed.is_some_and(behind)
    }

    fn is_due(&self) -> bool {
        let complete = self.gatherer.complete();
        let Some(position) = &complete.position else { return !complete.is_empty() };
        let age = complete.since.map_or(Duration::ZERO, |since| since.elapsed());
        let ending = self.ending();
        // A load does not wait for the interval.
        let awaited = self.last_ledger.elapsed() >= LOAD_COMMIT_EVERY
            && (self.loader.waits_for(position, &self.reached)
                || self.repairer.waits_for(position, &self.reached)
                || self.completes_target(position));
        if !complete.is_empty() {
            let worth = self.holds_one_in(CATCH_UP_PART) && self.catches_up();
            return ending || awaited || worth || self.is_full() || age >= self.run.commit.interval;
        }
        let moved = *position != self.reached;
        let still = self.last_ledger.elapsed();
        moved && (ending || awaited || still >= IDLE_LEDGER_EVERY) || still >= STILL_LEDGER_EVERY
    }

    /// The target is reached with this position, and was not before.
    fn completes_target(&self, position: &Position) -> bool {
        self.target.as_ref().is_some_and(|target| position.covers(target) && !self.reached.covers(target))
    }

    /// Merges the chunks that may be merged.
    fn start_merge_if_ready(&mut self) {
        if self.committing.is_some() || self.ending() {
            return;
        }
        let chunks = self.loader.take_ready(&self.reached);
        if chunks.is_empty() {
            return;
        }
        // It is at home, for nothing is under way.
        let Some(mut committer) = self.committer.take() else { return };
        self.committing = Some(tokio::spawn(async move {
            let result = committer.merge(chunks).await.map(Work::Chunks);
            (committer, result)
        }));
    }

    /// Puts rows right that may be.
    fn start_repair_if_ready(&mut self) {
        if self.committing.is_some() || self.ending() {
            return;
        }
        let Some(mut committer) = self.committer.take() else { return };
        let Some(ready) = self.repairer.take_ready(&self.reached) else {
            self.committer = Some(committer);
            return;
        };
        self.committing = Some(tokio::spawn(async move {
            let result = committer.repair(ready).await.map(|void| Work::Repair { void });
            (committer, result)
        }));
    }

    /// Puts compacted files in place; begins what else is due.
    fn start_upkeep_if_ready(&mut self) {
        if self.committing.is_some() || self.ending() {
            return;
        }
        let Some(mut committer) = self.committer.take() else { return };
        let Some((table, compacted)) = self.upkeep.take_ready() else {
            self.upkeep.start(&committer, &mut locked(&self.run.swept));
            self.committer = Some(committer);
            return;
        };
        self.committing = Some(tokio::spawn(async move {
            let merged = committer.merge_compaction(&table, compacted).await;
            let result = merged.map(|applied| Work::Compaction { table, void: !applied });
            (committer, result)
        }));
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
            let result = committer.commit(batch).await.map(|()| Work::Batch);
            if result.is_ok() && rows > 0 {
                let (source, position) = (&committer.source, &committer.entry.position);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(source, rows, transactions, tables, seconds, position, "committed");
            }
            (committer, result)
        }));
    }

    fn returned(&mut self, work: Work, committer: &mut Committer) -> Result<(), Error> {
        for table in committer.failed.drain(..) {
            self.gatherer.lost(&table);
            self.loader.forget(&table);
        }
        self.chunks_turn = matches!(work, Work::Batch);
        match work {
            Work::Batch => self.last_ledger = Instant::now(),
            Work::Repair { void } => self.repairer.returned(void),
            Work::Compaction { table, void } => {
                if void {
                    self.upkeep.pause(table);
                }
            }
            Work::Chunks(outcomes) => {
                for (place, rows, merged) in outcomes {
                    let mut known = vec![self.reached.clone()];
                    if let Some(table) = committer.tables.get(place.table()) {
                        known.push(parse_position(table.position())?);
                    }
                    self.loader.merged(&place, rows, merged, known);
                }
            }
        }
        self.run.report(committer);
        self.durable.send_replace(parse_position(&committer.entry.position)?);
        self.reached = parse_position(committer.entry.streamed())?;
        Ok(())
    }
}

fn earlier(known: Option<Instant>, at: Instant) -> Option<Instant> {
    Some(known.map_or(at, |known| known.min(at)))
}

/// A moment that is due, or to come.
pub(super) fn instant_of(at: DateTime<Utc>) -> Instant {
    Instant::now() + (at - Utc::now()).to_std().unwrap_or_default()
}

/// Waits for the commit under way.
async fn wait(
    committing: &mut Option<JoinHandle<(Committer, Result<Work, Error>)>>,
) -> Result<(Committer, Result<Work, Error>), tokio::task::JoinError> {
    match committing {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
