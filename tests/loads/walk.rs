//! Loads in random order beside a random stream, with crashes, foreign commits and second readings in between.
//!
//! What must hold at every step: each row of the lake is the source's at the lake's position, and what is missing is in a
//! chunk still to come, or waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lakeward::config::WriteMode;
use lakeward::lake::{ChunkWriter, Lake, LoadNote, Merged, Place, Spill, StagedChunk, Table, TableChange};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::database::{Database, IDS};
use crate::support::Scratch;
use crate::support::columns::shown_names;
use crate::support::delta_log;
use crate::support::oracle::Reader;

const CHUNKS: usize = 8;

fn ids(chunk: usize) -> Range<i64> {
    let size = IDS / CHUNKS as i64;
    chunk as i64 * size..(chunk as i64 + 1) * size
}

/// A chunk that is read and not merged yet.
struct Read {
    chunk: usize,
    staged: StagedChunk,
    /// Transactions that it saw.
    high: usize,
}

/// How often the rarer things happened.
#[derive(Debug, Default)]
pub struct Seen {
    void: usize,
    again: usize,
    waited: usize,
    reopened: usize,
    foreign: usize,
}

/// What kinds of table and stream.
#[derive(Clone, Copy)]
pub struct Kinds {
    partitioned: bool,
    evolves: bool,
    spilled: bool,
}

pub struct Walk {
    lake: Lake,
    url: Url,
    reader: Reader,
    random: StdRng,
    database: Database,
    table: Table,
    place: Place,
    mode: WriteMode,
    load: Uuid,
    merged: BTreeSet<usize>,
    read: Vec<Read>,
    /// Chunks see at least so many transactions.
    floor: usize,
    pub seen: Seen,
    _scratch: Scratch,
}

impl Walk {
    pub async fn begin(seed: u64, of: Kinds, place: Place, mode: WriteMode) -> Option<Self> {
        let Kinds { partitioned, evolves, spilled } = of;
        let reader = Reader::start(None)?;
        let scratch = Scratch::new("loads");
        let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
        let lake = lake.with_write_terms(crate::support::terms(mode));
        let mut random = StdRng::seed_from_u64(seed);
        // Memory so small that each batch on disk takes many passes.
        let spill = spilled.then(|| Spill::new(scratch.path().join("spill"), 1 << 30, 8 << 10));
        let database = Database::new(&mut random, partitioned, evolves, spill);
        let schema = database.states[0].shape.lake.clone();
        let mut url = lake.table_url("booking", &schema.name);
        let note = LoadNote::begin();
        let load = note.id;
        if let Place::Hidden(id) = place {
            url.path_segments_mut().expect("a path").push(&format!("resync-{id}"));
        }
        let table = Table::create(&lake, "booking", schema, "pg:0/0".into(), note, place).await.expect("created");
        Some(Self {
            lake,
            url,
            reader,
            random,
            database,
            table,
            place,
            mode,
            load,
            merged: BTreeSet::new(),
            read: Vec::new(),
            floor: 0,
            seen: Seen::default(),
            _scratch: scratch,
        })
    }

    /// Transactions that the table has.
    fn applied(&self) -> usize {
        let position = self.table.position().strip_prefix("pg:0/").expect("a position of this test");
        usize::from_str_radix(position, 16).expect("a number")
    }

    fn note(&self, again: bool) -> LoadNote {
        let through: Vec<usize> = self.merged.iter().copied().collect();
        let load = self.table.load().expect("it is loading").clone();
        LoadNote { through: Some(json!(through).to_string()), again, ..load }
    }

    async fn stream(&mut self) {
        let applied = self.applied();
        let upto = (applied + self.random.random_range(1..4)).min(self.database.log.len());
        let changes: Vec<TableChange> = self.database.log[applied..upto].concat();
        self.table.apply(&changes, &format!("pg:0/{upto:X}")).await.expect("applied");
        let truncated = self.database.states[applied].truncates < self.database.states[upto].truncates;
        if truncated {
            self.floor = self.floor.max(upto);
        }
        self.seen.waited += usize::from(self.table.pending_rows() > 0);
    }

    /// Reads a chunk that nobody has, as of a state that the table need not have reached.
    async fn read(&mut self) {
        let known = |chunk: &usize| self.merged.contains(chunk) || self.read.iter().any(|read| read.chunk == *chunk);
        let open: Vec<usize> = (0..CHUNKS).filter(|chunk| !known(chunk)).collect();
        if open.is_empty() {
            return;
        }
        let chunk = open[self.random.random_range(0..open.len())];
        let mut writer = ChunkWriter::begin(&self.table).expect("begun");
        let high = self.random.random_range(self.floor..=self.database.log.len());
        let state = &self.database.states[high];
        if state.evolutions != self.database.states[self.applied()].evolutions {
            return writer.abort().await;
        }
        let rows = state.chunk(&ids(chunk));
        let mut at = 0;
        while at < rows.num_rows() {
            let count = self.random.random_range(1..=rows.num_rows() - at);
            writer.write(&rows.slice(at, count)).await.expect("written");
            at += count;
        }
        let staged = writer.finish().await.expect("closed");
        self.read.push(Read { chunk, staged, high });
    }

    async fn merge(&mut self) {
        let applied = self.applied();
        let Some(place) = self.read.iter().position(|read| read.high <= applied) else { return };
        let read = self.read.swap_remove(place);
        self.merged.insert(read.chunk);
        let again = self.table.load().expect("it is loading").again;
        let mut note = self.note(again);
        note.rows += read.staged.rows();
        let position = self.table.position().to_owned();
        match self.table.merge_chunk(read.staged, note.clone(), &position).await.expect("merged") {
            Merged::Applied(applied) => {
                assert_eq!(applied.version, Some(self.table.version()));
                assert_eq!(self.table.load().map(|load| &load.through), Some(&note.through));
            }
            Merged::Void => {
                self.merged.remove(&read.chunk);
                self.seen.void += 1;
            }
        }
    }

    /// A crash: what is in memory is lost, files of chunks stay behind.
    async fn reopen(&mut self) {
        let (version, rows) = (self.table.version(), self.table.live_rows());
        self.table.finish().await;
        let name = self.table.name().clone();
        let opened = match self.place {
            Place::Open => Table::open(&self.lake, "booking", &name).await,
            Place::Hidden(id) => Table::open_hidden(&self.lake, "booking", &name, id).await,
        };
        self.table = opened.expect("readable").expect("there");
        // Another engine may have committed meanwhile.
        assert!(self.table.version() >= version && self.table.live_rows() == rows);
        self.seen.reopened += 1;
        let Some(load) = self.table.load().cloned() else { return };
        assert_eq!((load.id, self.table.loaded()), (self.load, None));
        let through: Vec<usize> =
            load.through.as_deref().map_or(Vec::new(), |through| serde_json::from_str(through).expect("ours"));
        assert_eq!(through.into_iter().collect::<BTreeSet<usize>>(), self.merged);
        self.floor = self.applied();
        // One that somebody still holds belongs to the table as it was open before.
        for read in std::mem::take(&mut self.read) {
            let merged = self.table.merge_chunk(read.staged, load.clone(), "pg:0/0").await;
            assert_eq!(merged.expect("refused"), Merged::Void);
        }
    }

    /// Another engine's commit that changes nothing.
    fn foreign(&mut self) {
        let folder = self.url.to_file_path().expect("local");
        let entry = delta_log::entry_path(&folder, self.table.version() + 1);
        if !entry.exists() {
            std::fs::write(entry, "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"OPTIMIZE\"}}\n").expect("written");
            self.seen.foreign += 1;
        }
    }

    /// See the module text. Returns how many rows are missing.
    fn check(&mut self, told: &str) -> usize {
        let state = &self.database.states[self.applied()];
        assert_eq!(self.table.schema(), &state.shape.lake, "{told}");
        let names = shown_names(&state.shape);
        let key = &state.shape.lake.columns[state.shape.lake.key[0]].name;
        let found = self.reader.rows(self.url.as_str(), None, &format!("SELECT {key}, {} FROM t", names.join(", ")));
        assert_eq!(found.len() as u64, self.table.live_rows(), "{told}");
        if self.mode == WriteMode::CopyOnWrite {
            delta_log::assert_plain(&self.url.to_file_path().expect("local"), told);
        }
        let mut missing = state.rows.clone();
        for row in found {
            let id = row[0].as_i64().expect("a key");
            let wanted = missing.remove(&id).unwrap_or_else(|| panic!("{told}: {row:?} is not at the source"));
            let wanted: Vec<Value> = names.iter().map(|name| wanted[name].clone()).collect();
            assert_eq!(row[1..], wanted, "{told}: row {id}");
        }
        let of_chunks = |id: &i64| self.merged.iter().any(|chunk| ids(*chunk).contains(id));
        let lost = missing.keys().filter(|id| of_chunks(id)).count();
        let load = self.table.load();
        if load.is_none_or(|load| !load.again) {
            assert!(lost <= self.table.pending_rows(), "{told}: {lost} rows are missing");
        }
        missing.len()
    }

    async fn step(&mut self, still: bool) {
        match self.random.random_range(0..20) {
            0..6 if !still => self.database.commit(&mut self.random),
            0..11 => self.stream().await,
            11..14 => self.read().await,
            14..18 => self.merge().await,
            18 if self.random.random_bool(0.3) => self.reopen().await,
            _ if self.random.random_bool(0.3) => self.foreign(),
            _ => {}
        }
    }

    /// Until all is there.
    pub async fn run(&mut self, seed: u64) {
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 3000, "seed {seed}: it comes to no end");
            self.step(steps > 150).await;
            if steps % 7 == 0 {
                self.check(&format!("seed {seed}, step {steps}"));
            }
            if self.merged.len() < CHUNKS || self.applied() < self.database.log.len() || steps <= 150 {
                continue;
            }
            let again = self.table.load().expect("it is loading").again;
            if !again && self.table.pending_rows() == 0 {
                break;
            }
            if self.table.pending_rows() > 0 {
                let refused = self.table.finish_load("pg:0/0").await;
                let told = refused.expect_err("updates wait").to_string();
                assert!(told.contains("still wait") && told.contains(" = "), "{told}");
            }
            self.seen.again += 1;
            self.floor = self.applied();
            self.table.forget_tombstones();
            self.merged.clear();
            let (note, position) = (self.note(false), self.table.position().to_owned());
            let merged = self.table.merge_chunk(StagedChunk::empty(&self.table), note, &position).await;
            assert!(matches!(merged, Ok(Merged::Applied(_))), "{merged:?}");
        }
        let told = format!("seed {seed}, loaded");
        assert_eq!(self.check(&told), 0, "{told}");
        let position = self.table.position().to_owned();
        self.foreign();
        self.table.finish_load(&position).await.expect("finished");
        assert_eq!((self.table.load(), self.table.loaded()), (None, Some(self.load)));
        assert!(self.table.finish_load(&position).await.expect("finished already").version.is_none());
        self.reopen().await;
        assert_eq!((self.table.load(), self.table.loaded()), (None, Some(self.load)));
        // From now on it is a table like any other.
        for _ in 0..6 {
            self.database.commit(&mut self.random);
            self.stream().await;
        }
        assert_eq!((self.check(&told), self.table.pending_rows()), (0, 0), "{told}");
        self.table.finish().await;
    }
}

async fn walks(seeds: Range<u64>, partitioned: bool, evolves: bool, spilled: bool) -> Seen {
    walks_written(seeds, Kinds { partitioned, evolves, spilled }, WriteMode::MergeOnRead).await
}

async fn walks_written(seeds: Range<u64>, of: Kinds, mode: WriteMode) -> Seen {
    let mut seen = Seen::default();
    for seed in seeds {
        let place = if seed % 3 == 0 { Place::Hidden(Uuid::from_u128(seed.into())) } else { Place::Open };
        let Some(mut walk) = Walk::begin(seed, of, place, mode).await else { continue };
        walk.run(seed).await;
        let Seen { void, again, waited, reopened, foreign } = walk.seen;
        seen.void += void;
        seen.again += again;
        seen.waited += waited;
        seen.reopened += reopened;
        seen.foreign += foreign;
    }
    eprintln!("{seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_beside_a_random_stream_come_to_the_sources_rows() {
    let seen = walks(1..9, false, false, false).await;
    let all = seen.void > 0 && seen.again > 0 && seen.waited > 0 && seen.reopened > 0 && seen.foreign > 0;
    assert!(all || std::env::var_os("LAKEWARD_TEST_PYTHON").is_none(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_loaded_in_chunks() {
    walks(20..23, true, false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_may_change_while_a_table_is_loaded() {
    let seen = walks(30..37, false, true, false).await;
    assert!(seen.void > 0 || std::env::var_os("LAKEWARD_TEST_PYTHON").is_none(), "{seen:?}");
    walks(40..42, true, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_on_disk_go_beside_chunks() {
    walks(50..53, false, false, true).await;
    walks(53..56, true, true, true).await;
}

/// Rows that the stream knows better of are in no file, and need no deletion vector.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_to_the_sources_rows_where_files_are_written_anew() {
    let of = |partitioned, evolves, spilled| Kinds { partitioned, evolves, spilled };
    let seen = walks_written(60..65, of(false, false, false), WriteMode::CopyOnWrite).await;
    assert!(seen.waited > 0 || std::env::var_os("LAKEWARD_TEST_PYTHON").is_none(), "{seen:?}");
    walks_written(65..68, of(true, true, false), WriteMode::CopyOnWrite).await;
    walks_written(68..71, of(false, true, true), WriteMode::CopyOnWrite).await;
}
