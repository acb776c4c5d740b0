//! Loads tables in chunks while their changes come by the stream (docs/decisions/011-loads-beside-the-stream.md).
//!
//! The loader plans chunks, reads several of several tables at once, and has each of them in files that nobody sees yet. It
//! hands them on in the order of each table's keys, when the stream has passed everything that a chunk can have seen; who
//! merges them says what came of it. So nothing here waits for the stream, and the stream waits for nothing here.
//!
//! What it holds is bounded: so many chunks are being read, and so many wait to be merged. Where a load stands is in the
//! table's own note, not here: when an attempt ends, what is not merged is read again by the next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::task::{JoinError, JoinSet};

use super::Error;
use super::chunk::{self, Outcome, Staged};
use super::gate::Gate;
use super::progress::Progress;
use super::throttle::Throttle;
use crate::config;
use crate::lake::{self, ChunkWriter, Table};
use crate::schema::{TableName, TableSchema};
use crate::source::{self, Chunk, KeyBound, Position, Source};

/// Chunks that are read or wait to be merged, for each one that may be read at a time.
const HELD_FACTOR: usize = 3;

/// Merged in one go, so that batches of changes do not wait for long.
const MERGED_AT_ONCE: usize = 16;

/// How often a chunk that fails by itself is read again before the attempt ends.
const TRIES: usize = 8;

/// How often a chunk may show other columns than the stream has reached, after the stream passed what it saw; and how long
/// the stream has each time to tell why.
const OTHER_COLUMNS_MAX: u32 = 10;
const OTHER_COLUMNS_PAUSE: Duration = Duration::from_secs(1);

/// See the module text.
pub struct Loader<S> {
    source: Arc<S>,
    source_name: String,
    settings: config::Snapshot,
    throttle: Arc<Throttle>,
    gate: Arc<Gate<S>>,
    tables: BTreeMap<TableName, Load>,
    tasks: JoinSet<Done>,
    reading: usize,
    stopped: Vec<(TableName, Error)>,
    /// Their sources have had other columns for a while, of which the log tells nothing.
    unfitting: Vec<(TableName, String)>,
}

/// The load of one table.
struct Load {
    /// The source shows to new snapshots what the table has had by the stream: before that no chunk is opened.
    visible: bool,
    /// All chunks are to be read once more after this pass: updates waited for their rows when the process ended.
    again: bool,
    /// As the stream has left the table, and the version of its schema.
    schema: Arc<TableSchema>,
    opened: u64,
    /// Chunks of another pass are not this one's.
    pass: u64,
    planned: Option<KeyBound>,
    planning: bool,
    planned_all: bool,
    slots: VecDeque<Slot>,
    numbers: u64,
    rows: u64,
    progress: Progress,
    pauses: ExponentialBackoff,
    not_before: Option<Instant>,
    other_columns: u32,
}

/// A chunk that is planned and not merged.
struct Slot {
    number: u64,
    chunk: Chunk,
    state: SlotState,
}

enum SlotState {
    /// To be read, when the stream has passed this position.
    Waiting(Option<Position>),
    /// To be read, into files that the table as it is now could take.
    Ready(Box<ChunkWriter>),
    Reading,
    Staged(Box<Staged>),
    Merging,
}

enum Done {
    /// Of one table, or of all that there are.
    Visible {
        table: Option<(TableName, u64)>,
        seen: Result<(), source::Error>,
    },
    Planned {
        table: TableName,
        pass: u64,
        chunk: Result<Chunk, Error>,
    },
    Read {
        table: TableName,
        pass: u64,
        number: u64,
        outcome: Result<Outcome, Error>,
    },
}

/// A chunk that is to be merged now.
pub struct Ready {
    pub table: TableName,
    pub staged: Staged,
    /// Everything up to here is merged with it, as the table's note has it; `None`: as it was, since it is the last.
    pub through: Option<String>,
    /// Rows to be counted: a second pass brings none.
    pub rows: u64,
    pub again: bool,
    pub last: bool,
    number: u64,
    pass: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    Done,
    /// It was the last, and the table is whole.
    Finished,
    /// It was the last, and everything has to be read once more.
    Again,
    /// Void: to be read again.
    Void,
    /// The table is not there any more.
    Gone,
}

/// Where a chunk has its place, to tell the loader of it.
#[derive(Clone, Debug)]
pub struct ChunkPlace {
    table: TableName,
    number: u64,
    pass: u64,
}

impl ChunkPlace {
    pub fn table(&self) -> &TableName {
        &self.table
    }
}

impl Ready {
    pub fn place(&self) -> ChunkPlace {
        ChunkPlace { table: self.table.clone(), number: self.number, pass: self.pass }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(60))
        .with_max_times(TRIES)
        .with_jitter()
        .build()
}

impl<S: Source> Loader<S> {
    /// `known`: positions that the tables have; nothing is read before new snapshots see all of them.
    pub fn new(source: Arc<S>, source_name: &str, settings: config::Snapshot, known: Vec<Position>) -> Self {
        let gate = Arc::new(Gate::new(source.clone(), source_name, &settings));
        let mut loader = Self {
            source,
            gate,
            source_name: source_name.to_owned(),
            throttle: Arc::new(Throttle::new(settings.rows_per_second_max)),
            settings,
            tables: BTreeMap::new(),
            tasks: JoinSet::new(),
            reading: 0,
            stopped: Vec::new(),
            unfitting: Vec::new(),
        };
        loader.await_visible(None, known);
        loader
    }

    /// No chunk is opened before everything in these positions is visible.
    fn await_visible(&mut self, table: Option<(TableName, u64)>, known: Vec<Position>) {
        let source = self.source.clone();
        self.tasks.spawn(async move {
            let mut seen = Ok(());
            for position in known {
                seen = seen.and(source.visible(&position).await);
            }
            Done::Visible { table, seen }
        });
    }

    /// Takes up a table where its note says. A resync goes into a table beside the one that is there.
    pub fn add(&mut self, table: &Table, rows_estimate: Option<u64>, resync: bool) {
        let Some(note) = table.load() else { return };
        let through = note.through.as_deref().and_then(|text| match serde_json::from_str::<KeyBound>(text) {
            Ok(bound) => Some(bound),
            Err(error) => {
                tracing::warn!(source = self.source_name, table = %table.name(), %error,
                    "where its load stands can't be read: all of it is read again");
                None
            }
        });
        let progress = Progress::start(&self.source_name, table.name(), rows_estimate, note.rows, resync);
        let load = Load {
            visible: false,
            schema: Arc::new(table.shape().source_schema()),
            opened: table.schema_version(),
            again: note.again || note.pending,
            pass: 0,
            planned: through,
            planning: false,
            planned_all: false,
            slots: VecDeque::new(),
            numbers: 0,
            rows: note.rows,
            progress,
            pauses: pauses(),
            not_before: None,
            other_columns: 0,
        };
        self.tables.insert(table.name().clone(), load);
    }

    /// Whether all tables are whole.
    pub fn is_done(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether the next chunk of any table waits for the stream to pass a position that `position` covers and `reached` does
    /// not.
    pub fn waits_for(&self, position: &Position, reached: &Position) -> bool {
        self.tables.values().any(|load| {
            let high = match load.slots.front().map(|slot| &slot.state) {
                Some(SlotState::Staged(staged)) => &staged.high,
                Some(SlotState::Waiting(Some(before))) => before,
                _ => return false,
            };
            position.covers(high) && !reached.covers(high)
        })
    }

    /// Takes the tables that can't be loaded.
    pub fn take_stopped(&mut self) -> Vec<(TableName, Error)> {
        std::mem::take(&mut self.stopped)
    }

    /// Takes the tables whose chunks show columns that the log does not tell of, with what they show. PostgreSQL's log, for
    /// one, tells of a new column with the next change of a row only.
    pub fn take_unfitting(&mut self) -> Vec<(TableName, String)> {
        std::mem::take(&mut self.unfitting)
    }

    /// A table is not to be loaded any more.
    pub fn forget(&mut self, table: &TableName) {
        self.tables.remove(table);
    }

    /// Makes chunks ready to be read: `tables` are as the stream has left them at `reached`. What passes them after that and
    /// makes a chunk void is noticed when it is merged.
    pub fn advance(&mut self, tables: &HashMap<TableName, Table>, reached: &Position) -> Result<(), Error> {
        self.tables.retain(|name, _| tables.contains_key(name));
        for (name, load) in &mut self.tables {
            let Some(table) = tables.get(name) else { continue };
            if load.opened != table.schema_version() {
                load.opened = table.schema_version();
                load.schema = Arc::new(table.shape().source_schema());
            }
            for slot in &mut load.slots {
                if let SlotState::Waiting(until) = &slot.state
                    && until.as_ref().is_none_or(|until| reached.covers(until))
                {
                    slot.state = SlotState::Ready(Box::new(ChunkWriter::begin(table)?));
                }
            }
        }
        Ok(())
    }

    /// Begins to plan and to read whatever may begin.
    pub fn start(&mut self) {
        let now = Instant::now();
        let held_max = self.settings.parallelism * HELD_FACTOR;
        let mut held: usize = self.tables.values().map(Load::held).sum();
        // Those that have the least under way go first.
        let mut order: Vec<(&TableName, &mut Load)> = self.tables.iter_mut().collect();
        order.sort_by_key(|(_, load)| load.held());
        for (name, load) in order {
            if !load.visible || load.not_before.is_some_and(|at| at > now) {
                continue;
            }
            load.not_before = None;
            if !load.planning && !load.planned_all && load.slots.len() < held_max {
                load.planning = true;
                let (source, schema, after) = (self.source.clone(), load.schema.clone(), load.planned.clone());
                let (name, pass, rows) = (name.clone(), load.pass, self.settings.chunk_rows);
                self.tasks.spawn(async move {
                    let chunk = source.next_chunk(&schema, after.as_ref(), rows).await.map_err(Error::from);
                    Done::Planned { table: name, pass, chunk }
                });
            }
            for (place, slot) in load.slots.iter_mut().enumerate() {
                // The first of a table must never wait for later ones.
                let room = self.reading < self.settings.parallelism && (held < held_max || place == 0);
                if !room {
                    break;
                }
                if !matches!(slot.state, SlotState::Ready(_)) {
                    continue;
                }
                let state = std::mem::replace(&mut slot.state, SlotState::Reading);
                let SlotState::Ready(writer) = state else { break };
                held += 1;
                self.reading += 1;
                let (source, throttle, chunk) = (self.source.clone(), self.throttle.clone(), slot.chunk.clone());
                let gate = self.gate.clone();
                let (name, pass, number) = (name.clone(), load.pass, slot.number);
                self.tasks.spawn(async move {
                    let outcome = match gate.pass().await {
                        Ok(()) => chunk::read(source.as_ref(), &name, &chunk, *writer, &throttle).await,
                        Err(error) => {
                            writer.abort().await;
                            Err(error.into())
                        }
                    };
                    Done::Read { table: name, pass, number, outcome }
                });
            }
        }
    }

    /// Waits for whatever ends next, and takes it in. An error ends the attempt. Never returns while nothing is under way.
    pub async fn next(&mut self) -> Result<(), Error> {
        match self.tasks.join_next().await {
            Some(done) => self.take(done),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, done: Result<Done, JoinError>) -> Result<(), Error> {
        match done.map_err(Error::Task)? {
            Done::Visible { table, seen } => {
                seen?;
                for (name, load) in &mut self.tables {
                    let is_meant = table.as_ref().is_none_or(|(table, pass)| table == name && *pass == load.pass);
                    load.visible |= is_meant && (table.is_some() || load.pass == 0);
                }
            }
            Done::Planned { table, pass, chunk } => {
                let Some(load) = self.tables.get_mut(&table).filter(|load| load.pass == pass) else { return Ok(()) };
                load.planning = false;
                match chunk {
                    Ok(chunk) => {
                        load.pauses = pauses();
                        load.planned_all = chunk.to.is_none();
                        load.planned.clone_from(&chunk.to);
                        load.numbers += 1;
                        load.slots.push_back(Slot { number: load.numbers, chunk, state: SlotState::Waiting(None) });
                    }
                    Err(error) => return self.failed(table, error),
                }
            }
            Done::Read { table, pass, number, outcome } => {
                self.reading -= 1;
                let Some(load) = self.tables.get_mut(&table).filter(|load| load.pass == pass) else { return Ok(()) };
                let Some(slot) = load.slots.iter_mut().find(|slot| slot.number == number) else { return Ok(()) };
                match outcome {
                    Ok(Outcome::Staged(staged)) => {
                        load.pauses = pauses();
                        load.other_columns = 0;
                        slot.state = SlotState::Staged(Box::new(staged));
                    }
                    Ok(Outcome::OtherColumns { before, finding }) => {
                        tracing::info!(source = self.source_name, %table, position = %before, finding,
                            "its columns have changed: a chunk is read again when the log has been read up to there");
                        slot.state = SlotState::Waiting(Some(before));
                        load.other_columns += 1;
                        load.not_before = Some(Instant::now() + OTHER_COLUMNS_PAUSE);
                        if load.other_columns > OTHER_COLUMNS_MAX {
                            self.tables.remove(&table);
                            self.unfitting.push((table, finding));
                        }
                    }
                    Err(error) => {
                        slot.state = SlotState::Waiting(None);
                        return self.failed(table, error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Something of this table's load failed: it is tried again after a pause, or the table stops, or the attempt ends.
    fn failed(&mut self, table: TableName, error: Error) -> Result<(), Error> {
        let Some(load) = self.tables.get_mut(&table) else { return Ok(()) };
        if matches!(error, Error::Source(source::Error::BoundsVoid { .. })) {
            tracing::warn!(source = self.source_name, %table, %error, "the load begins at its first chunk again");
            load.begin_again();
            return Ok(());
        }
        match (error.is_transient(), &error) {
            (true, _) => {
                let Some(pause) = load.pauses.next() else { return Err(error) };
                tracing::warn!(source = self.source_name, %table, %error, seconds = pause.as_secs_f64(),
                    "a chunk could not be read; trying again after a pause");
                let at = Instant::now() + pause;
                load.not_before = Some(load.not_before.map_or(at, |before| before.max(at)));
                Ok(())
            }
            (false, Error::Source(_) | Error::Lake(lake::Error::Table { .. } | lake::Error::Arrow { .. })) => {
                self.tables.remove(&table);
                self.stopped.push((table, error));
                Ok(())
            }
            (false, _) => Err(error),
        }
    }

    /// Takes the chunks that may be merged, now that the stream has passed `reached`.
    pub fn take_ready(&mut self, reached: &Position) -> Vec<Ready> {
        let mut ready = Vec::new();
        for (name, load) in &mut self.tables {
            let count = load.slots.len();
            for (place, slot) in load.slots.iter_mut().enumerate() {
                let is_covered = matches!(&slot.state, SlotState::Staged(staged) if reached.covers(&staged.high));
                if !is_covered || ready.len() >= MERGED_AT_ONCE {
                    break;
                }
                let SlotState::Staged(staged) = std::mem::replace(&mut slot.state, SlotState::Merging) else { break };
                let last = load.planned_all && place + 1 == count;
                ready.push(Ready {
                    table: name.clone(),
                    rows: if load.pass == 0 { staged.rows } else { 0 },
                    staged: *staged,
                    through: slot.chunk.to.as_ref().and_then(|bound| serde_json::to_string(bound).ok()),
                    again: load.again,
                    last,
                    number: slot.number,
                    pass: load.pass,
                });
            }
        }
        ready
    }

    /// What came of a chunk that was taken. `known`: positions that its table has.
    pub fn merged(&mut self, place: &ChunkPlace, rows: u64, merged: Merged, known: Vec<Position>) {
        let Some(load) = self.tables.get_mut(&place.table).filter(|load| load.pass == place.pass) else { return };
        match merged {
            Merged::Done => {
                load.slots.retain(|slot| slot.number != place.number);
                load.rows += rows;
                load.progress.advance(load.rows);
            }
            Merged::Void => {
                if let Some(slot) = load.slots.iter_mut().find(|slot| slot.number == place.number) {
                    slot.state = SlotState::Waiting(None);
                }
            }
            Merged::Again => {
                tracing::info!(source = self.source_name, table = %place.table,
                    "updates wait for the rest of their rows: all chunks are read once more");
                load.rows += rows;
                load.again = false;
                load.begin_again();
                load.visible = false;
                let pass = load.pass;
                self.await_visible(Some((place.table.clone(), pass)), known);
            }
            Merged::Finished => {
                if let Some(load) = self.tables.remove(&place.table) {
                    load.progress.finish(load.rows + rows);
                }
            }
            Merged::Gone => drop(self.tables.remove(&place.table)),
        }
    }
}

impl Load {
    /// Chunks are read from the first one again; what is under way of others comes to nothing.
    fn begin_again(&mut self) {
        self.slots.clear();
        self.pass += 1;
        (self.planned, self.planned_all, self.planning) = (None, false, false);
    }

    /// Chunks that are read or wait to be merged.
    fn held(&self) -> usize {
        let held = |slot: &&Slot| !matches!(slot.state, SlotState::Waiting(_) | SlotState::Ready(_));
        self.slots.iter().filter(held).count()
    }
}
