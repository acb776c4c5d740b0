//! Proves that a table of the lake is what its source has, while both go on changing.
//!
//! A round takes a picture of the lake's table (version A), reads the source's rows, waits until the lake has everything
//! that was read, and takes the picture of then (version B). A row that lies at the same place in A and B was the same at
//! every position between, and the source was read at a moment between: so the two must be equal, and if they are not, that
//! is a difference. Rows that a commit touched in between are looked at again in the next round, which is shorter, as it
//! reads only where such rows are. What is told as a difference is one, by construction; what never holds still long enough
//! is counted as unsettled.
//!
//! Takes no lease and no lock, writes nothing.

mod bags;
mod chunks;
mod detail;
mod follow;
mod progress;
mod seen;
mod sight;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::chunk::{ChunkReader, Misfit, Reading};
use super::throttle::Throttle;
use crate::lake::{self, Lake, Picture};
use crate::ledger::{self, WrongRows};
use crate::schema::{RowIdentity, TableName};
use crate::source::{self, Chunk, Position, Source, UnreadablePosition};
pub use detail::{ColumnDifference, Difference, KeyPart, Kind};
pub use follow::Follower;
use follow::Reached;
use progress::Progress;
use seen::Seen;
use sight::{Found, Open};

/// Rounds before what is left counts as unsettled.
const ROUNDS_MAX: u32 = 10;

/// Rounds that settle next to nothing before it is left at that: what changes all the time never holds still.
const FRUITLESS_MAX: u32 = 2;

/// Of those, how many may read the whole table again for rows of which it is not known where they would be.
const WHOLE_ROUNDS_MAX: u32 = 4;

/// How long columns of source and lake may be others, as they are while a change of columns is on its way.
const COLUMNS_WITHIN: Duration = Duration::from_secs(60);

/// How often a question to the source is asked again that could not be answered.
const TRIES_MAX: u32 = 3;

/// Chunks read at a time.
const PARALLEL: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Lake(#[from] lake::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Position(#[from] UnreadablePosition),
    #[error("table {0}: its rows can't be arranged as the lake has them: {1}")]
    Rows(String, arrow::error::ArrowError),
    /// Nothing can be said of the table, and it is known why.
    #[error("table {table} can't be compared: {why}")]
    Unfit { table: String, why: String },
    /// Rows are different, which changes on their way may explain.
    #[error("{0}")]
    Behind(String),
}

impl From<Misfit> for Error {
    fn from(Misfit { table, cause }: Misfit) -> Self {
        Self::Rows(table, cause)
    }
}

/// How to go about it.
#[derive(Clone, Debug)]
pub struct Options {
    pub chunk_rows: u64,
    /// At the source.
    pub rows_per_second: Option<u64>,
    /// About how many rows to look at, in chunks picked at random, instead of all.
    pub sample: Option<u64>,
    /// Only rows that this condition holds for, in the source's words.
    pub filter: Option<String>,
    /// How long the lake may stand still before it is given up.
    pub patience: Duration,
    /// How many differences are told row by row.
    pub details_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunk_rows: 10_000,
            rows_per_second: None,
            sample: None,
            filter: None,
            patience: Duration::from_secs(60),
            details_max: 200,
        }
    }
}

/// What came of it for one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Rows of the source that were compared.
    pub rows: u64,
    pub chunks: u64,
    /// Of all chunks, where only some were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_of: Option<u64>,
    pub rounds: u32,
    /// Whether rows were looked for that only the lake has.
    pub extra_looked_for: bool,
    /// The version of the lake's table that the comparison ended with.
    pub version: u64,
    /// The lake's table was equal to its source's, but for what is told here, at positions from this one…
    pub from: String,
    /// …to this one.
    pub to: String,
    /// Nothing moved the lake on: it was compared with what the source had while it was read.
    pub lake_stood_still: bool,
    pub differing: u64,
    pub missing: u64,
    pub extra: u64,
    /// Rows that changed whenever they were looked at.
    pub unsettled: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// All of them, for whoever puts them right.
    #[serde(skip)]
    pub wrong: WrongRows,
    pub began_at: DateTime<Utc>,
    pub seconds: f64,
}

impl Proof {
    pub fn is_equal(&self) -> bool {
        self.differing + self.missing + self.extra == 0
    }

    fn count(&mut self, found: &[Found]) {
        for found in found {
            match found.kind {
                Kind::Differs => self.differing += 1,
                Kind::Missing => self.missing += 1,
                Kind::Extra => self.extra += 1,
            }
        }
    }
}

/// Compares a table of the lake with its source's.
pub async fn prove<S: Source>(
    source: &S,
    source_name: &str,
    follower: &Follower,
    lake: &Lake,
    table: &TableName,
    options: &Options,
) -> Result<Proof, Error> {
    follower.check(table).await?;
    let unfit = |why: &str| Error::Unfit { table: table.to_string(), why: why.to_owned() };
    let picture = Picture::open(lake, source_name, table).await?;
    let picture = picture.ok_or_else(|| unfit("the lake has no such table; `lakeward run` loads it"))?;
    if picture.is_loading() {
        return Err(unfit("it is being loaded; verify it when that is done"));
    }
    Prover { source, table, options, follower, picture, throttle: Throttle::new(options.rows_per_second.unwrap_or(0)) }
        .run(source_name)
        .await
}

struct Prover<'a, S> {
    source: &'a S,
    table: &'a TableName,
    options: &'a Options,
    follower: &'a Follower,
    picture: Picture,
    throttle: Throttle,
}

/// A round's chunks, read.
struct Looked {
    seen: Seen,
    highs: Vec<Position>,
    rows: u64,
}

/// Tries once more what failed for a reason that may pass.
async fn again<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        match ask().await {
            Err(Error::Source(error))
                if tries < TRIES_MAX
                    && error.class() == source::Class::Transient
                    && !matches!(error, source::Error::BoundsVoid { .. }) =>
            {
                tries += 1;
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(Duration::from_secs(1 << tries)).await;
            }
            other => return other,
        }
    }
}

impl<S: Source> Prover<'_, S> {
    async fn run(mut self, source_name: &str) -> Result<Proof, Error> {
        let began = Instant::now();
        let mut proof = Proof {
            rows: 0,
            chunks: 0,
            chunks_of: None,
            rounds: 0,
            extra_looked_for: self.options.sample.is_none() && self.options.filter.is_none(),
            version: self.picture.version(),
            from: self.picture.position().to_owned(),
            to: self.picture.position().to_owned(),
            lake_stood_still: false,
            differing: 0,
            missing: 0,
            extra: 0,
            unsettled: 0,
            differences: Vec::new(),
            wrong: WrongRows::default(),
            began_at: Utc::now(),
            seconds: 0.0,
        };
        let mut progress = Progress::start(source_name, self.table, self.picture.live_rows());
        let (chunks, all) = self.chunks().await?;
        proof.chunks = chunks.len() as u64;
        proof.chunks_of = self.options.sample.is_some().then_some(all);
        let mut open: Option<Open> = None;
        let mut wrong_chunks = BTreeSet::new();
        let (mut whole_rounds, mut fruitless) = (0, 0);
        let mut other_columns: Option<Instant> = None;
        while proof.rounds < ROUNDS_MAX {
            let whole = whole_rounds < WHOLE_ROUNDS_MAX && open.as_ref().is_none_or(sight::needs_all);
            let wanted = sight::chunks_of(open.as_ref(), whole, chunks.len());
            if wanted.is_empty() {
                break;
            }
            let looked = match self.look(&chunks, &wanted, open.clone(), whole, &mut progress).await? {
                Ok(looked) => looked,
                Err(difference) => {
                    // The picture may be of before the change, or the source's change is not in the lake yet.
                    let since = *other_columns.get_or_insert_with(Instant::now);
                    if since.elapsed() > COLUMNS_WITHIN {
                        return Err(self.columns_differ(&difference));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    self.picture.advance().await?;
                    self.follower.check(self.table).await?;
                    continue;
                }
            };
            other_columns = None;
            proof.rounds += 1;
            whole_rounds += u32::from(whole);
            if open.is_none() {
                proof.rows = looked.rows;
            }
            let reached = self.follower.reach(self.table, &looked.highs, self.picture.position()).await?;
            let position = match reached {
                Reached::At(position) => position,
                Reached::StoodStill { at, nobody } => {
                    let different = looked.seen.different(&self.picture);
                    if different > 0 {
                        return Err(self.behind(different, &at, nobody, &looked.highs));
                    }
                    // All rows that are open were found equal, as the lake is now.
                    proof.lake_stood_still = true;
                    open = Some(Open::default());
                    break;
                }
            };
            let since = self.picture.advance().await?;
            (proof.to, proof.version) = (position, self.picture.version());
            if since.unknown {
                // All of it again.
                whole_rounds -= u32::from(whole);
                continue;
            }
            let (found, still) = looked.seen.judge(&self.picture, &since, self.options.filter.is_some());
            proof.count(&found);
            self.note_wrong(&found, &mut proof.wrong, &mut wrong_chunks);
            let room = self.options.details_max.saturating_sub(proof.differences.len());
            let found = &found[..found.len().min(room)];
            let tell = || detail::tell(self.source, self.table, &self.picture, &chunks, found);
            proof.differences.extend(again(tell).await?);
            tracing::debug!(table = %self.table, round = proof.rounds, open = still.len(), "compared");
            let before = open.as_ref().map_or(usize::MAX, Open::len);
            fruitless = if still.len() > before / 10 * 9 { fruitless + 1 } else { 0 };
            let settled = still.is_empty();
            open = Some(still);
            if settled || fruitless >= FRUITLESS_MAX {
                break;
            }
            // A fresh picture begins the next round.
            self.picture.advance().await?;
        }
        let Some(open) = open else {
            let why =
                "its columns changed whenever it was looked at; verify it again when no change of columns is under way";
            return Err(Error::Unfit { table: self.table.to_string(), why: why.to_owned() });
        };
        let in_chunks = wrong_chunks.into_iter().filter_map(|number: u32| chunks.get(number as usize));
        proof.wrong.chunks = in_chunks.filter_map(|chunk| serde_json::to_string(chunk).ok()).collect();
        proof.unsettled = open.len() as u64;
        proof.seconds = began.elapsed().as_secs_f64();
        progress.finish(&proof);
        Ok(proof)
    }

    /// What it takes to put these rows right, where they can be told apart.
    fn note_wrong(&self, found: &[Found], wrong: &mut WrongRows, chunks: &mut BTreeSet<u32>) {
        if self.picture.shape().lake.identity != RowIdentity::Key {
            return;
        }
        for found in found {
            let path = found.address.and_then(|address| Some((self.picture.path(address.file)?, address.row)));
            match (found.kind, found.name, path) {
                (Kind::Extra, _, Some((path, row))) => wrong.extra.push((path.to_owned(), row)),
                (Kind::Differs | Kind::Missing, Some(name), _) => {
                    wrong.names.push(name);
                    chunks.extend(found.chunk);
                }
                _ => {}
            }
        }
    }

    /// The chunks to look at, and how many there are.
    async fn chunks(&self) -> Result<(Vec<Chunk>, u64), Error> {
        let schema = self.picture.shape().source_schema();
        let rows = match self.options.sample {
            Some(sample) => (sample / 8).clamp(100, self.options.chunk_rows),
            None => self.options.chunk_rows,
        };
        let all = again(|| chunks::list(self.source, &schema, rows)).await?;
        let count = all.len() as u64;
        Ok(match self.options.sample {
            Some(sample) => (chunks::pick(all, usize::try_from(sample.div_ceil(rows)).unwrap_or(usize::MAX)), count),
            None => (all, count),
        })
    }

    /// Reads chunks beside the picture. The inner error is how the source's columns differ from the lake's.
    async fn look(
        &self,
        chunks: &[Chunk],
        wanted: &[u32],
        open: Option<Open>,
        whole: bool,
        progress: &mut Progress,
    ) -> Result<Result<Looked, String>, Error> {
        let held: Position = self.picture.position().parse()?;
        again(|| async { Ok(self.source.visible(&held).await?) }).await?;
        let whole = whole && self.options.sample.is_none() && self.options.filter.is_none();
        let first = open.is_none();
        let seen = std::sync::Mutex::new(Seen::new(&self.picture, open, whole));
        let read = |&number: &u32| {
            let seen = &seen;
            let chunk = &chunks[number as usize];
            async move {
                let filter = self.options.filter.as_deref();
                let (source, table, shape) = (self.source, self.table, self.picture.shape());
                let reader = ChunkReader { source, table, shape, throttle: &self.throttle };
                let lock = move || seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                again(|| {
                    lock().begin();
                    reader.read(chunk, filter, move |rows| {
                        Ok::<_, Error>(lock().take(&self.picture, number, &rows.rows)?)
                    })
                })
                .await
            }
        };
        let mut reading = futures::stream::iter(wanted).map(read).buffer_unordered(PARALLEL);
        let mut highs: Vec<Position> = Vec::new();
        let mut rows_read = 0;
        while let Some(read) = reading.try_next().await? {
            match read {
                Reading::OtherColumns(difference) => return Ok(Err(difference)),
                Reading::Done { high, rows } => {
                    highs.retain(|known| !high.covers(known));
                    if !highs.iter().any(|known| known.covers(&high)) {
                        highs.push(high);
                    }
                    rows_read += rows;
                    if first {
                        progress.advance(rows);
                    }
                }
            }
        }
        drop(reading);
        let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Ok(Looked { seen, highs, rows: rows_read }))
    }

    fn columns_differ(&self, difference: &str) -> Error {
        let seconds = COLUMNS_WITHIN.as_secs();
        let why = format!(
            "its columns at the source are not those of the lake, and have not been for {seconds} seconds: {difference}; \
             see `lakeward schema diff {}`",
            self.table
        );
        Error::Unfit { table: self.table.to_string(), why }
    }

    fn behind(&self, different: u64, at: &str, nobody: bool, highs: &[Position]) -> Error {
        let highs: Vec<String> = highs.iter().map(ToString::to_string).collect();
        let rows = if different == 1 { "1 row is".to_owned() } else { format!("{different} rows are") };
        let (table, highs) = (self.table, highs.join(" and "));
        Error::Behind(if nobody {
            format!(
                "table {table}: {rows} not as the source has them, which changes on their way may explain: the lake is at {at}, \
                 the source was read at {highs}, and no lakeward follows it; start `lakeward run` and verify beside it, or \
                 bring the lake up to date first with `lakeward run --until-caught-up`"
            )
        } else {
            format!(
                "table {table}: {rows} not as the source has them, which changes on their way may explain: the lake has stood \
                 at {at} for {} seconds, and the source was read at {highs}; see the log of the running lakeward and `lakeward tables`, \
                 and verify again when it moves",
                self.options.patience.as_secs()
            )
        })
    }
}
