//! Tables are kept in shape while their source runs: compactions, and sweeps of what nothing needs any more.
//!
//! Both run beside the commits, one compaction and one sweep at a time in the whole process. A compaction's result is merged
//! between two batches; a sweep touches nothing that a commit could need. Neither is ever waited for: when the run ends they are given up, and
//! another run begins them anew.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use super::commit::{Committer, is_ahead};
use crate::config::Config;
use crate::lake::{
    self, Compacted, Compaction, CompactionMerged, CompactionTerms, Eagerness, Lake, Table, VacuumTerms, Vacuumed,
};
use crate::ledger::TableState;
use crate::schema::TableName;

/// One compaction at a time, of all sources: memory, processors and the store are for the data first.
static COMPACTIONS: Semaphore = Semaphore::const_new(1);

/// Likewise.
static SWEEPS: Semaphore = Semaphore::const_new(1);

/// What a job may hold in memory, as a share of the budget, beside it.
const MEMORY_SHARE: u64 = 4;

/// How often it is looked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The first sweeps after a start are spread over so long, if they are that far apart.
const FIRST_SWEEPS: Duration = Duration::from_secs(60 * 60);

/// After a job that failed or came to nothing, the table is left alone for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a run waits for a job to remove what it has written.
const GIVE_UP_MAX: Duration = Duration::from_secs(5);

type Worked = Result<Option<Compacted>, lake::Error>;

/// When tables were swept or are to be, over all attempts of a run.
pub type SweepTimes = HashMap<TableName, Instant>;

/// A compaction that is under way.
struct Job {
    table: TableName,
    task: AbortOnDropHandle<Worked>,
    _turn: SemaphorePermit<'static>,
}

/// See the module text.
pub struct Upkeep {
    source: String,
    lake: Lake,
    config: Config,
    stop: CancellationToken,
    job: Option<Job>,
    ready: Option<(TableName, Compacted)>,
    /// When it was last looked what is due.
    started: Option<Instant>,
    /// The version up to which nothing was found to do.
    looked: HashMap<TableName, u64>,
    /// Not before then.
    paused: HashMap<TableName, Instant>,
    sweep: Option<AbortOnDropHandle<()>>,
}

impl Upkeep {
    /// `stop`: of the attempt.
    pub fn new(source: &str, lake: &Lake, config: &Config, stop: CancellationToken) -> Self {
        Self {
            source: source.to_owned(),
            lake: lake.clone(),
            config: config.clone(),
            stop,
            job: None,
            ready: None,
            started: None,
            looked: HashMap::new(),
            paused: HashMap::new(),
            sweep: None,
        }
    }

    /// Begins what is due. May be called often.
    pub fn start(&mut self, committer: &Committer, swept: &mut SweepTimes) {
        if self.started.is_some_and(|started| started.elapsed() < LOOK_EVERY) {
            return;
        }
        self.started = Some(Instant::now());
        if self.config.maintenance.compact && self.job.is_none() && self.ready.is_none() {
            self.start_job(committer);
        }
        if self.config.maintenance.vacuum && self.sweep.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            self.start_sweep(committer, swept);
        }
    }

    fn start_job(&mut self, committer: &Committer) {
        let now = Instant::now();
        for (name, table) in &committer.tables {
            let seen = self.looked.get(name) == Some(&table.version());
            let paused = self.paused.get(name).is_some_and(|until| now < *until);
            if seen || paused || !is_streaming(committer, name) {
                continue;
            }
            let Ok(turn) = COMPACTIONS.try_acquire() else { return };
            let terms = terms(&self.config, &self.source, name, Eagerness::Routine);
            match table.begin_compaction(&terms) {
                Some(job) => {
                    self.job = Some(self.spawn(name.clone(), job, turn));
                    return;
                }
                None => drop(self.looked.insert(name.clone(), table.version())),
            }
        }
    }

    fn spawn(&self, table: TableName, job: Compaction, turn: SemaphorePermit<'static>) -> Job {
        let stop = self.stop.clone();
        for group in job.groups() {
            tracing::debug!(source = self.source, %table, files = group.files, bytes = group.bytes, rows = group.rows,
                dead_rows = group.dead_rows, "files are being compacted");
        }
        let task = AbortOnDropHandle::new(tokio::spawn(async move { job.run(&stop).await }));
        Job { table, task, _turn: turn }
    }

    /// Waits until a job has come to an end.
    pub async fn next(&mut self) {
        let Some(job) = &mut self.job else { return std::future::pending().await };
        let worked = (&mut job.task).await;
        let Some(Job { table, .. }) = self.job.take() else { return };
        match worked {
            Ok(Ok(Some(compacted))) => self.ready = Some((table, compacted)),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(source = self.source, %table, %error, "files could not be compacted; they stay as they are");
                self.pause(table);
            }
            Err(error) => {
                tracing::error!(source = self.source, %table, %error, "a compaction ended by a defect of lakeward");
                self.pause(table);
            }
        }
    }

    /// What may be merged now.
    pub fn take_ready(&mut self) -> Option<(TableName, Compacted)> {
        self.ready.take()
    }

    /// A job of this table's came to nothing: it is left alone for a while.
    pub fn pause(&mut self, table: TableName) {
        self.paused.insert(table, Instant::now() + PAUSE);
    }

    fn start_sweep(&mut self, committer: &Committer, swept: &mut SweepTimes) {
        let now = Instant::now();
        let every = self.config.maintenance.vacuum_every;
        for name in committer.tables.keys().filter(|name| is_streaming(committer, name)) {
            let due = swept.entry(name.clone()).or_insert_with(|| now + spread(name, every.min(FIRST_SWEEPS)));
            if *due > now {
                continue;
            }
            let Ok(turn) = SWEEPS.try_acquire() else { return };
            *due = now + every;
            let terms = VacuumTerms {
                retention: self.config.retention(&self.source, &name.to_string()),
                young: VacuumTerms::YOUNG,
            };
            let (lake, source, table) = (self.lake.clone(), self.source.clone(), name.clone());
            let sweep = tokio::spawn(async move {
                let _turn = turn;
                tell_sweep(&source, &table, lake::vacuum(&lake, &source, &table, terms, false).await);
            });
            self.sweep = Some(AbortOnDropHandle::new(sweep));
            return;
        }
    }

    /// The run ends: nothing is left behind, if that does not take long.
    pub async fn give_up(&mut self) {
        self.stop.cancel();
        let done = async {
            if self.job.is_some() {
                self.next().await;
            }
            if let Some((_, compacted)) = self.ready.take() {
                compacted.discard().await;
            }
        };
        if tokio::time::timeout(GIVE_UP_MAX, done).await.is_err() {
            tracing::debug!(
                source = self.source,
                "a compaction was given up in the middle; a sweep removes what it wrote"
            );
        }
    }
}

/// When a table's first sweep is due: tables of one source come one after the other, and alike after each start.
fn spread(name: &TableName, over: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    over.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

/// What a table's files are to come to.
pub(super) fn terms(config: &Config, source: &str, table: &TableName, eagerness: Eagerness) -> CompactionTerms {
    CompactionTerms {
        target_bytes: config.target_file_bytes(source, &table.to_string()),
        memory_bytes: config.memory.budget_bytes / MEMORY_SHARE,
        eagerness,
    }
}

fn is_streaming(committer: &Committer, name: &TableName) -> bool {
    matches!(committer.entry.tables.get(&name.to_string()), Some(TableState::Streaming))
}

fn tell_sweep(source: &str, table: &TableName, swept: Result<Option<Vacuumed>, lake::Error>) {
    match swept {
        Ok(Some(Vacuumed { objects, bytes, failed, kept, log_entries })) => {
            tracing::info!(source, %table, objects, bytes, failed, kept, log_entries, "swept what nothing needs any more");
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(source, %table, %error, "its folder could not be swept; the next sweep tries again");
        }
    }
}

impl Committer {
    /// Merges a compaction; says whether it came to something.
    pub async fn merge_compaction(&mut self, name: &TableName, compacted: Compacted) -> Result<bool, Error> {
        let fits = match self.tables.get(name) {
            // What its last commit tells must be in the outbox before another commit hides it.
            Some(table) => is_streaming(self, name) && !is_ahead(table, self.entry.streamed())?,
            None => false,
        };
        let Some(table) = self.tables.get_mut(name).filter(|_| fits) else {
            compacted.discard().await;
            return Ok(false);
        };
        let merged = merge_told(&self.source, table, compacted).await?;
        Ok(matches!(merged, Some(CompactionMerged::Applied { .. })))
    }
}

/// Merges a compaction and tells of it; `None` where the table could not take it, and stays as it is.
pub(super) async fn merge_told(
    source: &str,
    table: &mut Table,
    compacted: Compacted,
) -> Result<Option<CompactionMerged>, Error> {
    let name = table.name().clone();
    let merged = table.merge_compaction(compacted).await;
    match &merged {
        Ok(CompactionMerged::Applied {
            version,
            files_before,
            files_after,
            rows_purged,
            bytes_before,
            bytes_after,
        }) => {
            tracing::info!(source, table = %name, version, files_before, files_after, bytes_before, bytes_after,
                rows_purged, "files compacted");
        }
        Ok(CompactionMerged::Void) => {
            tracing::debug!(source, table = %name, "a compaction is void: its files have changed");
        }
        Err(error @ (lake::Error::Table { .. } | lake::Error::Arrow { .. })) => {
            tracing::warn!(source, table = %name, %error, "compacted files could not be merged");
            return Ok(None);
        }
        Err(_) => {}
    }
    Ok(Some(merged?))
}
