//! Delivers a source's outbox to every channel.
//!
//! Each channel has a task of its own beside the source's run, so that one that is dead holds up neither the data nor the
//! others. It reads the outbox in order. An event is delivered before the cursor moves past it: at least once. Events of
//! one table never overtake each other: where nothing gets through ([`Failure::Away`]) the channel waits as a whole; where
//! it does not want one event ([`Failure::Refused`]) that event's table waits, and the others go on. Both are tried again
//! for ever, with growing pauses, until somebody has mended the receiver or the configuration.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use chrono::{TimeDelta, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::channel::{Channel, Failure};
use super::digest;
use super::event::Notice;
use super::history::Feed;
use crate::config::{Config, Contracts, NoticeChannel};
use crate::lake::Lake;
use crate::ledger::{self, Cursor, FIRST, Outbox, OutboxEntry};

/// Entries that all channels have passed are removed when they are older.
const KEPT_DAYS: i64 = 30;

const TIDIED_EVERY: Duration = Duration::from_secs(6 * 3600);

/// A channel that stays away is told of in the log so often.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// How patient deliveries are.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Between looks at the outbox when nobody says that there is something new. Each is a request to the store.
    pub poll: Duration,
    /// Shortest and longest pause when nothing gets through.
    pub away: (Duration, Duration),
    /// The same for an event that is not wanted as it is.
    pub refused: (Duration, Duration),
}

impl Default for Pauses {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { poll: seconds(60), away: (seconds(1), seconds(300)), refused: (seconds(5), seconds(3600)) }
    }
}

pub(super) fn growing((shortest, longest): (Duration, Duration)) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(shortest).with_max_delay(longest);
    builder.with_jitter().without_max_times().build()
}

/// Where a channel is in an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything below is delivered, not for this channel, or waiting.
    pub next: u64,
    /// Not wanted as they are, and those of the same tables behind them; ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<u64>,
}

impl Progress {
    /// Below it nothing is needed any more.
    fn passed(&self) -> u64 {
        self.waiting.first().copied().unwrap_or(self.next)
    }
}

/// The deliveries of one source; ended when dropped.
pub struct Deliveries {
    source: String,
    tasks: JoinSet<()>,
    /// Ended last: it only tidies up.
    tidying: JoinSet<()>,
    ending: CancellationToken,
    /// The newest entry of the outbox.
    news: watch::Sender<Option<u64>>,
    lost_any: bool,
}

impl Deliveries {
    /// Begins to deliver for a source whose lease this process has. Call it before anything is entered into the outbox:
    /// a channel that is new begins behind what is there.
    pub async fn start(lake: &Lake, config: &Config, source: &str, pauses: Pauses) -> Result<Self, Error> {
        let store = lake.ledger_store(source)?;
        let outbox = Outbox::open(store.clone()).await?;
        let numbers = outbox.numbers().await?;
        let ending = CancellationToken::new();
        let news = watch::Sender::new(numbers.last().copied());
        let mut tasks = JoinSet::new();
        let mut passed: Vec<Arc<AtomicU64>> = Vec::new();

        for channel in config.channels.iter().filter(|channel| !channel.route.events.is_empty()) {
            // Nothing is removed while it is not known how far a channel is.
            let counter = Arc::new(AtomicU64::new(0));
            passed.push(counter.clone());
            let Some((channel, cursor, progress)) = open(store.clone(), channel, source, &numbers).await? else {
                continue;
            };
            counter.store(progress.passed(), Ordering::Relaxed);
            let worker = Worker {
                source: source.to_owned(),
                store: store.clone(),
                channel,
                contracts: config.contracts.clone(),
                outbox: outbox.clone(),
                cursor,
                saved: progress.clone(),
                progress,
                queues: BTreeMap::new(),
                pauses,
                pause: growing(pauses.away),
                trouble: None,
                passed: counter,
            };
            tasks.spawn(worker.run(ending.clone(), news.subscribe()));
        }

        let counter = Arc::new(AtomicU64::new(0));
        passed.push(counter.clone());
        let feed = Feed::new(lake, source, outbox.clone(), counter, pauses);
        tasks.spawn(feed.run(ending.clone(), news.subscribe()));

        let mut tidying = JoinSet::new();
        let digests: Vec<String> = digest::channels(config, source).map(|channel| channel.name.clone()).collect();
        let tidier =
            Tidier { lake: lake.clone(), source: source.to_owned(), outbox, passed, digests, ending: ending.clone() };
        tidying.spawn(tidier.run());
        Ok(Self { source: source.to_owned(), tasks, tidying, ending, news, lost_any: false })
    }

    /// Whether a task has ended by a defect; the others go on.
    pub fn has_lost_any(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {
            self.lost_any = true;
        }
        self.lost_any
    }

    /// The newest entry of the outbox is this one.
    pub fn wake(&self, newest: Option<u64>) {
        self.news.send_if_modified(|known| std::mem::replace(known, newest) != newest);
    }

    /// Delivers what is there, as far as it gets in this time, and ends. What is left is delivered by the next run.
    pub async fn finish(mut self, at_most: Duration) {
        self.ending.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(at_most, all).await.is_err() {
            tracing::warn!(
                source = self.source,
                channels = self.tasks.len(),
                "not all notices could be delivered before the end; the next run goes on with them"
            );
        }
        self.tasks.shutdown().await;
        self.tidying.shutdown().await;
    }
}

/// A channel and where it stands; `None` when it can't be served, which has been told.
async fn open(
    store: Arc<dyn ObjectStore>,
    config: &NoticeChannel,
    source: &str,
    numbers: &[u64],
) -> Result<Option<(Channel, Cursor, Progress)>, Error> {
    let unserved = |reason: &str| {
        tracing::error!(source, channel = config.name, reason, "no notices are delivered by this channel");
    };
    let channel = match Channel::open(config) {
        Ok(channel) => channel,
        Err(reason) => {
            unserved(&reason);
            return Ok(None);
        }
    };
    let (mut cursor, known) = match Cursor::open::<Progress>(store, &config.name).await {
        Err(error @ ledger::Error::Unreadable { .. }) => {
            unserved(&error.to_string());
            return Ok(None);
        }
        opened => opened?,
    };
    let progress = match known {
        Some(mut progress) => {
            let first = numbers.first().copied().unwrap_or(FIRST);
            if progress.next < first {
                tracing::warn!(
                    source,
                    channel = config.name,
                    "events from {KEPT_DAYS} days ago and before are not delivered: the channel was not configured then"
                );
                progress.next = first;
            }
            progress.waiting.retain(|number| numbers.binary_search(number).is_ok());
            progress
        }
        None => {
            let progress = Progress { next: numbers.last().map_or(FIRST, |last| last + 1), waiting: Vec::new() };
            cursor.write(&progress).await?;
            progress
        }
    };
    Ok(Some((channel, cursor, progress)))
}

/// Delivers by one channel.
struct Worker {
    source: String,
    store: Arc<dyn ObjectStore>,
    channel: Channel,
    contracts: Contracts,
    outbox: Outbox,
    cursor: Cursor,
    progress: Progress,
    /// What the cursor says.
    saved: Progress,
    /// By table: what waits.
    queues: BTreeMap<String, Queue>,
    pauses: Pauses,
    pause: ExponentialBackoff,
    trouble: Option<Trouble>,
    passed: Arc<AtomicU64>,
}

struct Queue {
    numbers: VecDeque<u64>,
    pause: ExponentialBackoff,
    retry_at: Instant,
}

struct Trouble {
    since: Instant,
    told: Instant,
}

/// Why a pass came to nothing more.
enum Stop {
    Pause(Duration),
    /// Another process has moved the cursor: one that had the lease before, since this one has it now.
    Overtaken,
}

impl Worker {
    async fn run(mut self, ending: CancellationToken, mut news: watch::Receiver<Option<u64>>) {
        let mut resumed = false;
        loop {
            news.mark_unchanged();
            let done = async {
                if !resumed {
                    self.resume().await?;
                    resumed = true;
                }
                self.pass().await
            };
            match done.await {
                Ok(()) if ending.is_cancelled() => return,
                Ok(()) => {
                    let retry = self.queues.values().map(|queue| queue.retry_at).min();
                    let poll = Instant::now() + self.pauses.poll;
                    tokio::select! {
                        () = sleep_until(retry.map_or(poll, |retry| retry.min(poll))) => {}
                        _ = news.changed() => {}
                        () = ending.cancelled() => {}
                    }
                }
                // The end of a run is one more try, and then as many as there is time for.
                Err(Stop::Pause(pause)) if ending.is_cancelled() => sleep(pause).await,
                Err(Stop::Pause(pause)) => tokio::select! {
                    () = sleep(pause) => {}
                    () = ending.cancelled() => {}
                },
                Err(Stop::Overtaken) => {
                    tracing::warn!(
                        source = self.source,
                        channel = self.channel.config.name,
                        "another process was about to deliver by this channel; going on where it says it was"
                    );
                    sleep(self.pauses.away.0).await;
                    if let Ok((cursor, Some(progress))) = self.reopen().await {
                        self.cursor = cursor;
                        self.saved = progress.clone();
                        self.progress = progress;
                        resumed = false;
                    }
                }
            }
        }
    }

    async fn reopen(&self) -> Result<(Cursor, Option<Progress>), ledger::Error> {
        Cursor::open(self.store.clone(), &self.channel.config.name).await
    }

    /// Finds out of which tables the events are that wait.
    async fn resume(&mut self) -> Result<(), Stop> {
        let mut queues: BTreeMap<String, Queue> = BTreeMap::new();
        for number in self.progress.waiting.clone() {
            match self.read(number).await? {
                Some(entry) => {
                    let queue = queues.entry(entry.table.unwrap_or_default()).or_insert_with(|| self.queue());
                    queue.numbers.push_back(number);
                }
                None => self.progress.waiting.retain(|waiting| *waiting != number),
            }
        }
        self.queues = queues;
        Ok(())
    }

    fn queue(&self) -> Queue {
        Queue { numbers: VecDeque::new(), pause: growing(self.pauses.refused), retry_at: Instant::now() }
    }

    /// Delivers everything that can be delivered now.
    async fn pass(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        let due = self.queues.iter().filter(|(_, queue)| queue.retry_at <= now).map(|(table, _)| table.clone());
        for table in due.collect::<Vec<_>>() {
            self.retry(&table).await?;
        }
        loop {
            let number = self.progress.next;
            let Some(entry) = self.read(number).await? else {
                // An entry that nobody can read was told of; one that is not there yet is the end.
                if self.progress.next == number {
                    break;
                }
                continue;
            };
            if !self.wants(&entry) {
                self.progress.next += 1;
                continue;
            }
            let table = entry.table.clone().unwrap_or_default();
            if let Some(queue) = self.queues.get_mut(&table) {
                queue.numbers.push_back(number);
                self.progress.waiting.push(number);
            } else if let Err(failure) = self.send(number, &entry).await? {
                let mut queue = self.queue();
                queue.numbers.push_back(number);
                self.put_off(&mut queue, &table, &failure);
                self.queues.insert(table, queue);
                self.progress.waiting.push(number);
            }
            self.progress.next += 1;
            self.save().await?;
        }
        self.save().await
    }

    /// Tries a table that waits.
    async fn retry(&mut self, table: &str) -> Result<(), Stop> {
        let Some(mut queue) = self.queues.remove(table) else { return Ok(()) };
        while let Some(&number) = queue.numbers.front() {
            let sent = match self.read(number).await {
                Ok(Some(entry)) => self.send(number, &entry).await,
                Ok(None) => Ok(Ok(())),
                Err(stop) => Err(stop),
            };
            match sent {
                Ok(Ok(())) => {
                    queue.numbers.pop_front();
                    queue.pause = growing(self.pauses.refused);
                    self.progress.waiting.retain(|waiting| *waiting != number);
                    if let Err(stop) = self.save().await {
                        self.queues.insert(table.to_owned(), queue);
                        return Err(stop);
                    }
                }
                Ok(Err(failure)) => {
                    self.put_off(&mut queue, table, &failure);
                    self.queues.insert(table.to_owned(), queue);
                    return Ok(());
                }
                Err(stop) => {
                    self.queues.insert(table.to_owned(), queue);
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    fn put_off(&self, queue: &mut Queue, table: &str, failure: &str) {
        let pause = queue.pause.next().unwrap_or(self.pauses.refused.1);
        queue.retry_at = Instant::now() + pause;
        tracing::warn!(
            source = self.source,
            channel = self.channel.config.name,
            table,
            reason = failure,
            seconds = pause.as_secs_f64(),
            "a notice was refused; it is tried again, and later ones of this table wait behind it"
        );
    }

    /// `None` where there is none; one that can't be read is told of and passed.
    async fn read(&mut self, number: u64) -> Result<Option<OutboxEntry>, Stop> {
        match self.outbox.read(number).await {
            Ok(entry) => Ok(entry),
            Err(error @ ledger::Error::Unreadable { .. }) => {
                tracing::error!(source = self.source, channel = self.channel.config.name, %error, "a notice is left out");
                if number == self.progress.next {
                    self.progress.next += 1;
                }
                Ok(None)
            }
            Err(error) => Err(self.ledger_trouble(&error)),
        }
    }

    fn owners(&self, entry: &OutboxEntry) -> Vec<String> {
        owners(&self.contracts, &self.source, entry.table.as_deref())
    }

    fn wants(&self, entry: &OutboxEntry) -> bool {
        let route = &self.channel.config.route;
        route.events.matches(&entry.kind) && route.covers(&self.source, entry.table.as_deref(), &self.owners(entry))
    }

    /// The inner error says why the channel does not want this one.
    async fn send(&mut self, number: u64, entry: &OutboxEntry) -> Result<Result<(), String>, Stop> {
        let config = &self.channel.config;
        let notice = Notice::of(entry, number, &self.owners(entry), config.timezone);
        match self.channel.send(&notice).await {
            Ok(receipt) => {
                tracing::info!(
                    source = self.source,
                    channel = config.name,
                    event = %notice.id,
                    kind = notice.kind,
                    table = entry.table,
                    answer = receipt.said,
                    "notice delivered"
                );
                self.reached();
                Ok(Ok(()))
            }
            Err(Failure::Refused { cause }) => {
                self.reached();
                Ok(Err(cause))
            }
            Err(Failure::Away { cause, after }) => {
                let pause = self.pause.next().unwrap_or(self.pauses.away.1).max(after.unwrap_or_default());
                self.away(&cause, pause).await;
                Err(Stop::Pause(pause))
            }
        }
    }

    /// Tells the log at first, and then now and then.
    async fn away(&mut self, cause: &str, pause: Duration) {
        let now = Instant::now();
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        if self.trouble.as_ref().is_some_and(|trouble| trouble.told.elapsed() < TOLD_EVERY) {
            return;
        }
        self.trouble = Some(Trouble { since, told: now });
        let waiting =
            self.outbox.numbers().await.map(|numbers| numbers.iter().filter(|n| **n >= self.progress.next).count());
        tracing::warn!(
            source = self.source,
            channel = self.channel.config.name,
            reason = cause,
            since_seconds = since.elapsed().as_secs(),
            waiting = waiting.unwrap_or_default(),
            seconds = pause.as_secs_f64(),
            "a channel does not take notices; they wait and are tried again"
        );
    }

    fn reached(&mut self) {
        self.pause = growing(self.pauses.away);
        if let Some(trouble) = self.trouble.take() {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(
                source = self.source,
                channel = self.channel.config.name,
                seconds,
                "the channel takes notices again"
            );
        }
    }

    async fn save(&mut self) -> Result<(), Stop> {
        if self.progress != self.saved {
            if let Err(error) = self.cursor.write(&self.progress).await {
                return Err(self.ledger_trouble(&error));
            }
            self.saved = self.progress.clone();
            self.passed.store(self.saved.passed(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn ledger_trouble(&mut self, error: &ledger::Error) -> Stop {
        if matches!(error, ledger::Error::Overtaken { .. }) {
            return Stop::Overtaken;
        }
        let pause = self.pause.next().unwrap_or(self.pauses.away.1);
        tracing::warn!(source = self.source, channel = self.channel.config.name, %error, seconds = pause.as_secs_f64(), "notices wait for the ledger");
        Stop::Pause(pause)
    }
}

/// Of a table, as its contract names them.
pub(super) fn owners(contracts: &Contracts, source: &str, table: Option<&str>) -> Vec<String> {
    table.and_then(|table| contracts.get(source, table)).map(|contract| contract.owners.clone()).unwrap_or_default()
}

/// Removes from the outbox what everybody has passed.
struct Tidier {
    lake: Lake,
    source: String,
    outbox: Outbox,
    passed: Vec<Arc<AtomicU64>>,
    /// Channels whose digests read it too.
    digests: Vec<String>,
    ending: CancellationToken,
}

impl Tidier {
    async fn run(self) {
        // Not at once: the channels say first how far they are.
        let mut pause = Duration::from_secs(60);
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.ending.cancelled() => return,
            }
            if let Err(error) = self.tidy().await {
                tracing::debug!(source = self.source, %error, "the outbox could not be tidied up");
            }
            pause = TIDIED_EVERY;
        }
    }

    async fn tidy(&self) -> Result<(), Error> {
        let mut passed = self.passed.iter().map(|counter| counter.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        for channel in &self.digests {
            passed = passed.min(digest::passed(&self.lake, channel, &self.source).await?);
        }
        Ok(self.outbox.forget(passed, Utc::now() - TimeDelta::days(KEPT_DAYS)).await?)
    }
}
