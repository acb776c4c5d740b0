//! Puts rows right that a comparison found to be wrong, while their table streams (`lakeward verify --repair`).
//!
//! A repair begins with a watch on the lake's table, reads the chunks at the source in which the rows are, keeps those rows, and
//! hands them on when the stream has passed everything that was read: what the stream has said anything about meanwhile is
//! left alone then (see [`lake::Repair`]). One after the other, so that what they hold is bounded. A repair that does not come to its end
//! is in the ledger still, and begins anew with the next attempt; done twice it changes nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use tokio::task::JoinSet;

use super::Error;
use super::chunk::{ChunkReader, Reading};
use super::throttle::Throttle;
use crate::lake::{self, KeyHasher, Repair, Table};
use crate::ledger::WrongRows;
use crate::schema::{Shape, TableName, TableRows, ValueCounts};
use crate::source::{self, Chunk, Position, Source};

/// Rows that are put right in one commit, in memory until then.
const HELD_BYTES_MAX: usize = 64 << 20;

/// How often a repair begins anew before it is given up.
const TRIES_MAX: u32 = 20;

/// How long it waits before that.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module text.
pub struct Repairer<S> {
    source: Arc<S>,
    source_name: String,
    throttle: Arc<Throttle>,
    waiting: VecDeque<Job>,
    reading: JoinSet<(Job, Result<Outcome, Error>)>,
    staged: Option<Staged>,
    away: Option<Away>,
    given_up: Vec<u64>,
    not_before: Option<Instant>,
}

/// A request that is being carried out.
#[derive(Clone)]
struct Job {
    number: u64,
    table: TableName,
    /// Those that are not read yet, in the source's words.
    chunks: VecDeque<String>,
    names: Arc<HashSet<u64>>,
    extra: Vec<(String, u32)>,
    tries: u32,
}

/// What came of reading.
enum Outcome {
    Read(Read),
    /// The source's table has other columns than the lake's.
    OtherColumns(String),
}

/// Some chunks of a job, read.
struct Read {
    repair: Repair,
    values: ValueCounts,
    highs: Vec<Position>,
    /// How many chunks it is of.
    chunks: usize,
}

/// Rows to be put right now.
pub struct ReadyRepair {
    pub table: TableName,
    pub repair: Repair,
    /// Values without a faithful lake form among them.
    pub values: ValueCounts,
    /// The request that is carried out by it; `None` while there are others to come.
    pub completes: Option<u64>,
}

/// A repair that is read.
struct Staged {
    ready: ReadyRepair,
    highs: Vec<Position>,
    away: Away,
}

/// How to go on with a request part of which is with whoever commits.
struct Away {
    /// If nothing comes of that.
    before: Job,
    after: Job,
}

impl<S: Source> Repairer<S> {
    pub fn new(source: Arc<S>, source_name: &str, rows_per_second_max: u64) -> Self {
        Self {
            source,
            source_name: source_name.to_owned(),
            throttle: Arc::new(Throttle::new(rows_per_second_max)),
            waiting: VecDeque::new(),
            reading: JoinSet::new(),
            staged: None,
            away: None,
            given_up: Vec::new(),
            not_before: None,
        }
    }

    pub fn add(&mut self, number: u64, table: TableName, rows: WrongRows) {
        let WrongRows { chunks, names, extra } = rows;
        let names = Arc::new(names.into_iter().collect());
        self.waiting.push_back(Job { number, table, chunks: chunks.into(), names, extra, tries: 0 });
    }

    /// A request that can't be read.
    pub fn give_up(&mut self, number: u64) {
        self.given_up.push(number);
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && !self.is_busy()
    }

    fn is_busy(&self) -> bool {
        !self.reading.is_empty() || self.staged.is_some() || self.away.is_some()
    }

    /// Requests that nothing comes of.
    pub fn take_given_up(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.given_up)
    }

    /// Begins the next one, if none is under way. `reached`: how far the tables are that stream.
    pub fn start(&mut self, tables: &mut HashMap<TableName, Table>, reached: &Position) -> Result<(), Error> {
        if self.is_busy() || self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let Some(job) = self.waiting.pop_front() else { return Ok(()) };
        let Some(table) = tables.get_mut(&job.table).filter(|table| table.load().is_none()) else {
            self.abandon(&job, "it does not stream: resync it");
            return Ok(());
        };
        let held = table.position().parse::<Position>()?;
        let (watch, shape) = (table.watch(), table.shape().clone());
        let (source, throttle, known) = (self.source.clone(), self.throttle.clone(), vec![held, reached.clone()]);
        self.reading.spawn(async move {
            let read = read(source.as_ref(), &job, watch, &shape, &known, &throttle).await;
            (job, read)
        });
        Ok(())
    }

    /// Waits for what is being read, and takes it in. Never returns while nothing is.
    pub async fn next(&mut self) -> Result<(), Error> {
        let Some(done) = self.reading.join_next().await else { return std::future::pending().await };
        let (job, read) = done.map_err(Error::Task)?;
        match read {
            Ok(Outcome::Read(read)) => {
                let mut after = Job { extra: Vec::new(), tries: 0, ..job.clone() };
                after.chunks.drain(..read.chunks);
                let ready = ReadyRepair {
                    table: job.table.clone(),
                    repair: read.repair,
                    values: read.values,
                    completes: after.chunks.is_empty().then_some(job.number),
                };
                self.staged = Some(Staged { ready, highs: read.highs, away: Away { before: job, after } });
                Ok(())
            }
            // The stream has not come to that change yet.
            Ok(Outcome::OtherColumns(finding)) => {
                tracing::info!(source = self.source_name, table = %job.table, finding, "a repair waits for a change of columns");
                self.try_again(job);
                Ok(())
            }
            Err(Error::Source(error @ source::Error::BoundsVoid { .. })) => {
                self.abandon(&job, &format!("{error}; compare it again"));
                Ok(())
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(source = self.source_name, table = %job.table, %error, "a repair begins anew");
                self.try_again(job);
                Ok(())
            }
            Err(error @ (Error::Source(_) | Error::Lake(lake::Error::Table { .. } | lake::Error::Arrow { .. }))) => {
                self.abandon(&job, &error.to_string());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes what may be put right, now that the stream has passed `reached`.
    pub fn take_ready(&mut self, reached: &Position) -> Option<ReadyRepair> {
        let Staged { ready, away, .. } =
            self.staged.take_if(|staged| staged.highs.iter().all(|high| reached.covers(high)))?;
        self.away = Some(away);
        Some(ready)
    }

    /// Whether a commit up to `position` lets one be put right that `reached` does not.
    pub fn waits_for(&self, position: &Position, reached: &Position) -> bool {
        self.staged.as_ref().is_some_and(|staged| {
            let covered = |by: &Position| staged.highs.iter().all(|high| by.covers(high));
            covered(position) && !covered(reached)
        })
    }

    /// What was taken is committed, or, when `void`, to be read again.
    pub fn returned(&mut self, void: bool) {
        match self.away.take() {
            Some(Away { before, .. }) if void => self.try_again(before),
            Some(Away { after, .. }) if !after.chunks.is_empty() => self.waiting.push_front(after),
            _ => {}
        }
    }

    fn try_again(&mut self, mut job: Job) {
        job.tries += 1;
        if job.tries > TRIES_MAX {
            self.abandon(&job, "it came to nothing too often; compare it again");
            return;
        }
        self.not_before = Some(Instant::now() + PAUSE);
        self.waiting.push_front(job);
    }

    fn abandon(&mut self, job: &Job, why: &str) {
        tracing::warn!(source = self.source_name, table = %job.table, why, "a repair is given up");
        self.given_up.push(job.number);
    }
}

/// Reads chunks until enough rows of them are wrong, or to the last.
async fn read<S: Source>(
    source: &S,
    job: &Job,
    watch: uuid::Uuid,
    shape: &Shape,
    known: &[Position],
    throttle: &Throttle,
) -> Result<Outcome, Error> {
    for position in known {
        source.visible(position).await?;
    }
    let arrow = |source| lake::Error::Arrow { table: job.table.to_string(), source };
    let reader = ChunkReader { source, table: &job.table, shape, throttle };
    let hasher = KeyHasher::new(shape).map_err(arrow)?;
    let mut read = Read {
        repair: Repair { watch, rows: Vec::new(), extra: job.extra.clone() },
        values: ValueCounts::default(),
        highs: Vec::new(),
        chunks: 0,
    };
    let mut bytes = 0;
    while let Some(text) = job.chunks.get(read.chunks).filter(|_| bytes < HELD_BYTES_MAX) {
        // One that says nothing has no rows that could be wrong.
        read.chunks += 1;
        let Ok(chunk) = serde_json::from_str::<Chunk>(text) else { continue };
        let take = |rows: &TableRows| -> Result<(), Error> {
            let names = hasher.names(&rows.rows).map_err(arrow)?;
            let wrong: Vec<bool> = names.iter().map(|name| job.names.contains(name)).collect();
            if wrong.contains(&true) {
                read.values.add(&rows.schema, &rows.unfaithful);
                let wrong = filter_record_batch(&rows.rows, &BooleanArray::from(wrong)).map_err(arrow)?;
                bytes += wrong.get_array_memory_size();
                read.repair.rows.push(wrong);
            }
            Ok(())
        };
        match reader.read(&chunk, None, take).await? {
            Reading::Done { high, .. } => read.highs.push(high),
            Reading::OtherColumns(finding) => return Ok(Outcome::OtherColumns(finding)),
        }
    }
    lake::reached("repair.read").await;
    Ok(Outcome::Read(read))
}
