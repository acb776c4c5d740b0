//! The lake layer alone: tables whose files are compacted beside their batches, and folders that are swept, against a
//! model, read back by DuckDB.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lakeward::config::WriteMode;
use lakeward::lake::{
    ChunkWriter, Compacted, Compaction, CompactionMerged, CompactionTerms, Eagerness, FirstLoad, Lake, LoadNote, Place,
    Spill, Table, TableChange, TableLog, VacuumTerms, Vacuumed, vacuum,
};
use lakeward::schema::{LakeType, Op, RowIdentity, Shape, TableSchema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::Scratch;
use support::columns::*;
use support::delta_log;
use support::oracle::{Reader, Readers, S3};
use support::parts::in_parts;
use tokio_util::sync::CancellationToken;
use url::Url;

const COLUMNS: [(&str, LakeType); 4] =
    [("id", LakeType::Integer), ("p", LakeType::Integer), ("n", LakeType::Integer), ("s", LakeType::String)];

/// Sweeps whatever nothing refers to, however young.
const AT_ONCE: VacuumTerms = VacuumTerms { retention: Duration::ZERO, young: Duration::ZERO };

/// A lake with one table.
struct World {
    scratch: Scratch,
    lake: Lake,
    url: Url,
    table: Table,
    reader: Reader,
}

impl World {
    /// `None` without the reader.
    async fn new(schema: TableSchema) -> Option<Self> {
        Self::written(schema, WriteMode::MergeOnRead).await
    }

    /// The same in a mode.
    async fn written(schema: TableSchema, mode: WriteMode) -> Option<Self> {
        let scratch = Scratch::new("compaction");
        let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
        Self::at(scratch, lake.with_write_terms(support::terms(mode)), Reader::start(None)?, schema).await
    }

    /// In an object store; `None` without one.
    async fn at_store(schema: TableSchema) -> Option<Self> {
        let s3 = S3::at("LAKEWARD_TEST_S3_PORT")?;
        let url = Url::parse(&format!("s3://lake/compaction-{}/", uuid::Uuid::new_v4())).expect("a url");
        let options = [
            ("aws_endpoint_url", s3.endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", &s3.key),
            ("aws_secret_access_key", &s3.secret),
        ];
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lake = Lake::new(&url, &options.collect());
        Self::at(Scratch::new("compaction"), lake, Reader::start(Some(s3))?, schema).await
    }

    async fn at(scratch: Scratch, lake: Lake, reader: Reader, schema: TableSchema) -> Option<Self> {
        let schema = Arc::new(schema);
        let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
        let table = load.commit().await.expect("created");
        Some(Self { url: lake.table_url("booking", &schema.name), scratch, lake, table, reader })
    }

    async fn change(&mut self, changes: &[(Op, Vec<Value>)]) {
        let rows = rows(self.table.schema(), changes);
        self.table.apply(&[TableChange::Rows(rows)], "pg:0/2").await.expect("applied");
    }

    fn seen(&mut self, version: Option<u64>, sql: &str) -> Vec<Vec<Value>> {
        self.reader.rows(self.url.as_str(), version, sql)
    }

    async fn restart(&mut self) {
        let (shape, rows, version) = (self.table.shape().clone(), self.table.live_rows(), self.table.version());
        self.table.finish().await;
        self.table = Table::open(&self.lake, "booking", self.table.name()).await.expect("readable").expect("a table");
        assert_eq!((self.table.shape(), self.table.live_rows(), self.table.version()), (&shape, rows, version));
    }

    async fn sweep(&self, terms: VacuumTerms, dry_run: bool) -> Vacuumed {
        let swept = vacuum(&self.lake, "booking", self.table.name(), terms, dry_run).await;
        swept.expect("swept").expect("a table")
    }

    fn folder(&self) -> PathBuf {
        self.url.to_file_path().expect("local")
    }

    /// The actions of a version, by kind.
    fn actions(&self, version: u64, kind: &str) -> Vec<Value> {
        delta_log::actions_at(&self.folder(), version, kind)
    }

    /// Everything in the folder that is not the log's.
    fn objects(&self) -> BTreeSet<String> {
        let folder = self.folder();
        let mut folders = vec![folder.clone()];
        let mut found = BTreeSet::new();
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).expect("a folder") {
                let path = entry.expect("readable").path();
                if !path.is_dir() {
                    found.insert(path.strip_prefix(&folder).expect("inside").to_string_lossy().into_owned());
                } else if !path.ends_with("_delta_log") {
                    folders.push(path);
                }
            }
        }
        found
    }

    /// Files and objects of deletion vectors that the newest version refers to.
    fn referred(&self) -> usize {
        let table = self.table.version();
        let mut live: BTreeMap<String, Value> = BTreeMap::new();
        for version in 0..=table {
            for remove in self.actions(version, "remove") {
                live.remove(remove["path"].as_str().expect("a path"));
            }
            for add in self.actions(version, "add") {
                live.insert(add["path"].as_str().expect("a path").to_owned(), add["deletionVector"].clone());
            }
        }
        let vectors: BTreeSet<&str> = live.values().filter_map(|vector| vector["pathOrInlineDv"].as_str()).collect();
        live.len() + vectors.len()
    }

    /// Another engine commits a version that changes nothing, or that moves a file to another name.
    fn foreign(&mut self, moved: Option<(Value, String)>) {
        let mut entry = "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"OPTIMIZE\"}}\n".to_owned();
        if let Some((mut add, to)) = moved {
            let from = add["path"].as_str().expect("a path").to_owned();
            std::fs::copy(self.folder().join(&from), self.folder().join(&to)).expect("copied");
            let remove = json!({"remove": {"path": from, "dataChange": false, "deletionTimestamp": 1,
                "deletionVector": add["deletionVector"], "extendedFileMetadata": true,
                "partitionValues": add["partitionValues"], "size": add["size"]}});
            add["path"] = json!(to);
            add["dataChange"] = json!(false);
            entry.push_str(&format!("{remove}\n{}\n", json!({"add": add})));
        }
        std::fs::write(delta_log::entry_path(&self.folder(), self.table.version() + 1), entry).expect("written");
    }
}

fn terms(target_bytes: u64, eagerness: Eagerness) -> CompactionTerms {
    CompactionTerms { target_bytes, memory_bytes: 64 << 20, eagerness }
}

async fn run(job: Compaction) -> Compacted {
    job.run(&CancellationToken::new()).await.expect("readable").expect("not stopped")
}

fn row(id: i64, n: i64) -> Vec<Value> {
    vec![json!(id), json!(id % 2), json!(n), json!(format!("값 {n}"))]
}

fn delete(id: i64) -> (Op, Vec<Value>) {
    (Op::Delete, vec![json!(id), json!(id % 2), Value::Null, Value::Null])
}

/// Ten batches of ten rows.
async fn ten_files() -> Option<World> {
    let mut world = World::new(schema(&COLUMNS, RowIdentity::Key)).await?;
    for batch in 0..10 {
        let changes: Vec<(Op, Vec<Value>)> = (batch * 10..batch * 10 + 10).map(|id| (Op::Insert, row(id, 0))).collect();
        world.change(&changes).await;
    }
    Some(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_while_their_files_are_compacted_come_out_right() {
    let Some(mut world) = ten_files().await else { return };
    world.change(&[delete(3), (Op::Update, row(15, 1))]).await;
    let job = world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("ten small files");
    let told: Vec<(u64, u64, u64)> = job.groups().map(|group| (group.files, group.rows, group.dead_rows)).collect();
    assert_eq!(told, [(11, 101, 2)]);
    world.change(&[delete(4), (Op::Update, row(16, 1)), (Op::Insert, row(200, 0))]).await;
    let done = run(job).await;
    world.change(&[delete(5), (Op::Update, row(17, 1)), (Op::Insert, row(3, 7))]).await;
    let version = world.table.version();
    let merged = world.table.merge_compaction(done).await.expect("merged");
    let CompactionMerged::Applied { version: at, files_before, files_after, rows_purged, .. } = merged else {
        panic!("{merged:?}")
    };
    assert_eq!((at, files_before, files_after, rows_purged), (version + 1, 11, 1, 2));

    // The commit says what it is.
    let info = world.actions(at, "commitInfo").remove(0);
    assert_eq!((&info["operation"], &info["lakeward"]["position"]), (&json!("OPTIMIZE"), &json!("pg:0/2")));
    assert_eq!(info["lakeward"]["after"], json!("pg:0/2"));
    let (added, removed) = (world.actions(at, "add"), world.actions(at, "remove"));
    assert_eq!((added.len(), removed.len()), (1, 11));
    assert!(added.iter().chain(&removed).all(|action| action["dataChange"] == json!(false)));
    assert_eq!(added[0]["deletionVector"]["cardinality"], json!(4), "what died meanwhile: 4, 5, and the old 16 and 17");

    let mut wanted: BTreeMap<i64, i64> = (0..100).map(|id| (id, 0)).collect();
    wanted.extend([(3, 7), (15, 1), (16, 1), (17, 1), (200, 0)]);
    wanted.retain(|id, _| ![4, 5].contains(id));
    let read = |world: &mut World, version| world.seen(version, "SELECT id, n FROM t ORDER BY id");
    let expected: Vec<Vec<Value>> = wanted.iter().map(|(id, n)| vec![json!(id), json!(n)]).collect();
    assert_eq!(read(&mut world, None), expected);
    assert_eq!(read(&mut world, Some(version)), expected, "the version before is the same table");
    // Every row is found, in memory and after a restart.
    for restart in [false, true] {
        if restart {
            world.restart().await;
        }
        let changes: Vec<(Op, Vec<Value>)> = wanted.keys().map(|&id| (Op::Update, row(id, 9))).collect();
        world.change(&changes).await;
        let expected: Vec<Vec<Value>> = wanted.keys().map(|id| vec![json!(id), json!(9)]).collect();
        assert_eq!(read(&mut world, None), expected);
    }
    if let Some(mut readers) = Readers::start() {
        readers.assert_agree(world.folder().to_str().expect("UTF-8"));
    }
}

/// Whatever takes a job's ground away makes it void, and nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_files_are_gone_is_void_and_leaves_nothing() {
    for case in ["truncate", "evolve", "restart", "another job", "watch"] {
        let Some(mut world) = ten_files().await else { return };
        let begin =
            |world: &World| world.table.begin_compaction(&terms(1 << 20, Eagerness::Asked)).expect("small files");
        let done = run(begin(&world)).await;
        match case {
            "truncate" => drop(world.table.apply(&[TableChange::Truncate], "pg:0/3").await.expect("applied")),
            "evolve" => {
                let steps = vec![add("x", LakeType::Integer, None)];
                let evolution = evolution(world.table.shape(), steps, &[]);
                world.table.apply(&[TableChange::Evolve(evolution)], "pg:0/3").await.expect("applied");
            }
            "restart" => world.restart().await,
            "another job" => {
                let other = run(begin(&world)).await;
                let merged = world.table.merge_compaction(other).await.expect("merged");
                assert!(matches!(merged, CompactionMerged::Applied { files_before: 10, files_after: 1, .. }));
            }
            _ => drop(world.table.watch()),
        }
        let live = world.table.live_rows();
        let (before, written) = (world.objects(), done);
        assert_eq!(world.table.merge_compaction(written).await.expect("no error"), CompactionMerged::Void, "{case}");
        let after = world.objects();
        assert_eq!(before.difference(&after).count(), 1, "{case}: the job's one file is gone");
        assert!(after.is_subset(&before), "{case}");
        assert_eq!(world.seen(None, "SELECT count(*) FROM t")[0], [json!(live)], "{case}");
        world.restart().await;
    }
}

/// One of ten files is gone: whatever became of its rows, those that the job copied are not theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_takes_its_rows_along() {
    for died in [true, false] {
        let Some(mut world) = ten_files().await else { return };
        let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Asked)).expect("small files")).await;
        if died {
            world.change(&(0..10).map(delete).collect::<Vec<_>>()).await;
        } else {
            let add = world.actions(1, "add").remove(0);
            world.foreign(Some((add, "moved.parquet".into())));
        }
        let merged = world.table.merge_compaction(done).await.expect("no error");
        assert!(matches!(merged, CompactionMerged::Applied { files_after: 1, .. }), "{merged:?}");
        let rows = if died { 90 } else { 100 };
        let sql = "SELECT count(*), count(DISTINCT id) FROM t";
        assert_eq!(world.seen(None, sql), [[json!(rows), json!(rows)]]);
        world.change(&[(Op::Update, row(5, 7)), (Op::Update, row(55, 7))]).await;
        let rows = if died { rows + 1 } else { rows };
        assert_eq!(world.seen(None, sql), [[json!(rows), json!(rows)]]);
        assert_eq!(world.table.live_rows(), rows);
        world.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_merged_on_top_of_another_engines_commit() {
    let Some(mut world) = ten_files().await else { return };
    let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("small files")).await;
    world.change(&[delete(1), (Op::Insert, row(100, 0))]).await;
    world.foreign(None);
    let merged = world.table.merge_compaction(done).await.expect("merged");
    assert!(matches!(merged, CompactionMerged::Applied { version: 13, files_after: 1, .. }), "{merged:?}");
    world.change(&[(Op::Update, row(2, 5)), (Op::Update, row(100, 5))]).await;
    world.restart().await;
    assert_eq!(world.seen(None, "SELECT id FROM t WHERE n = 5 ORDER BY 1"), [[json!(2)], [json!(100)]]);
    assert_eq!(world.table.live_rows(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_told_to_stop_leaves_nothing() {
    let Some(world) = ten_files().await else { return };
    let before = world.objects();
    let job = world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("small files");
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(job.run(&stop).await.expect("no error").is_none());
    assert_eq!(world.objects(), before);
    // Nor does one that fails in the middle.
    let job = world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("small files");
    let gone = world.actions(10, "add").remove(0)["path"].as_str().expect("a path").to_owned();
    std::fs::rename(world.folder().join(&gone), world.scratch.path().join("away")).expect("moved");
    let failed = job.run(&CancellationToken::new()).await.expect_err("a file is gone");
    assert!(failed.to_string().contains("is gone"), "{failed}");
    std::fs::rename(world.scratch.path().join("away"), world.folder().join(&gone)).expect("moved back");
    assert_eq!(world.objects(), before);
}

/// Versions within the retention stay readable, with their deletion vectors; the rest goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_keeps_what_retained_versions_need_and_nothing_else() {
    let Some(mut world) = ten_files().await else { return };
    world.change(&[delete(0)]).await;
    world.change(&[delete(1)]).await;
    let old = world.table.version();
    for version in 0..=old {
        let entry = std::fs::File::options()
            .write(true)
            .open(delta_log::entry_path(&world.folder(), version))
            .expect("an entry");
        entry.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
    }
    let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("small files")).await;
    world.change(&[delete(2)]).await;
    world.table.merge_compaction(done).await.expect("merged");
    std::fs::write(world.folder().join("notes.txt"), "not ours").expect("written");
    std::fs::write(world.folder().join("part-left-behind.parquet"), "of a crash").expect("written");
    let all = world.objects();

    // Everything is young.
    let young = VacuumTerms { retention: Duration::ZERO, young: VacuumTerms::YOUNG };
    assert_eq!((world.sweep(young, false).await.objects, world.objects()), (0, all.clone()));
    // The version of an hour ago was in force within the last half: it does not need the vectors of the version before it,
    // and nothing needs what a crash left.
    let terms = VacuumTerms { retention: Duration::from_secs(1800), young: Duration::ZERO };
    let told = world.sweep(terms, true).await;
    assert_eq!((told.objects, world.objects()), (2, all.clone()), "only told");
    assert_eq!(world.sweep(terms, false).await.objects, 2);
    assert_eq!(world.objects().len(), all.len() - 2);
    let count = "SELECT count(*), sum(id) FROM t";
    let sum = |without: i64| json!((0..100).sum::<i64>() - without);
    assert_eq!(world.seen(Some(old), count), [[json!(98), sum(1)]]);
    assert_eq!(world.seen(Some(old + 1), count), [[json!(97), sum(3)]]);
    assert_eq!(world.seen(None, count), [[json!(97), sum(3)]]);

    assert!(world.sweep(AT_ONCE, false).await.objects > 10);
    assert_eq!(world.objects().len(), world.referred() + 1, "and what is none of ours");
    assert!(world.objects().contains("notes.txt"));
    assert_eq!(world.seen(None, count), [[json!(97), sum(3)]]);
    world.restart().await;
    if let Some(mut readers) = Readers::start() {
        readers.assert_agree(world.folder().to_str().expect("UTF-8"));
    }
}

/// What is built out of sight stays as long as it has a log of its own, and from then on what the table's log names of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_builds_under_way_alone_and_keeps_what_was_swapped_in() {
    let Some(mut world) = ten_files().await else { return };
    let (note, schema) = (LoadNote::begin(), world.table.schema().clone());
    let place = Place::Hidden(note.id);
    let hidden = Table::create(&world.lake, "booking", schema.clone(), "pg:0/5".into(), note.clone(), place).await;
    let mut hidden = hidden.expect("made");
    for ids in [0..40, 40..60] {
        let mut writer = ChunkWriter::begin(&hidden).expect("begun");
        let rows = rows(&schema, &ids.map(|id| (Op::Insert, row(id, 1))).collect::<Vec<_>>());
        writer.write(&rows.rows).await.expect("written");
        // The stream knows better of two rows of each chunk.
        let late = [delete(1), delete(41), (Op::Insert, row(100, 1))];
        hidden.apply(&[TableChange::Rows(support::columns::rows(&schema, &late))], "pg:0/6").await.expect("applied");
        let staged = writer.finish().await.expect("finished");
        hidden.merge_chunk(staged, note.clone(), "pg:0/6").await.expect("merged");
    }
    let objects = world.objects();
    let build = |objects: &BTreeSet<String>| objects.iter().filter(|path| path.starts_with("resync-")).count();
    assert!(build(&objects) > 4, "{objects:?}");
    world.sweep(AT_ONCE, false).await;
    assert_eq!(build(&world.objects()), build(&objects), "it is under way");
    hidden.finish_load("pg:0/7").await.expect("finished");
    world.table = Table::swap(Some(world.table), hidden, "pg:0/8").await.expect("swapped");
    let gone = world.sweep(AT_ONCE, false).await;
    assert!(gone.objects >= 10, "the old table's files: {gone:?}");
    assert_eq!(world.objects().len(), world.referred());
    assert!(build(&world.objects()) == world.objects().len(), "{:?}", world.objects());
    let count = "SELECT count(*), count(*) FILTER (n = 1) FROM t";
    assert_eq!(world.seen(None, count), [[json!(59), json!(59)]]);
    // And it is compacted like any other.
    let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Asked)).expect("small files")).await;
    world.change(&[delete(2)]).await;
    world.table.merge_compaction(done).await.expect("merged");
    world.restart().await;
    world.sweep(AT_ONCE, false).await;
    assert_eq!(build(&world.objects()), 0, "{:?}", world.objects());
    assert_eq!(world.seen(None, count), [[json!(58), json!(58)]]);
}

/// The log begins later then, and says so; what it has left is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_beginning_is_read_as_far_as_it_reaches() {
    let Some(mut world) = World::new(schema(&COLUMNS, RowIdentity::Key)).await else { return };
    for id in 0..55 {
        if id == 10 {
            let evolution = evolution(world.table.shape(), vec![widen("n", LakeType::Integer, LakeType::Long)], &[]);
            world.table.apply(&[TableChange::Evolve(evolution)], "pg:0/2").await.expect("applied");
        }
        world.change(&[(Op::Insert, row(id, 0))]).await;
        if world.table.version() == 50 {
            // The checkpoint is of this version, and not of a later one that is the newest when it is written.
            world.table.finish().await;
        }
    }
    let log = |world: &World| {
        let (lake, name) = (world.lake.clone(), world.table.name().clone());
        async move { TableLog::open(&lake, "booking", &name).await.expect("readable").expect("a table") }
    };
    let whole = log(&world).await;
    assert!(whole.is_whole().await.expect("readable"));
    assert_eq!(whole.changes(56).await.expect("readable").len(), 1);
    // Another engine's entries are the newest: lakeward's last one must stay.
    world.foreign(None);
    assert_eq!(world.sweep(AT_ONCE, false).await.log_entries, 50);

    let short = log(&world).await;
    assert!(!short.is_whole().await.expect("readable"));
    assert_eq!(short.own(40).await.expect("readable"), None);
    assert_eq!(short.last_where(|entry| entry.version < 40).await.expect("readable"), None);
    assert_eq!(
        short.last_where(|entry| entry.version <= 52).await.expect("readable").map(|entry| entry.version),
        Some(52)
    );
    assert!(short.changes(56).await.expect("readable").is_empty(), "which is not known any more");
    assert!(short.state(20).await.is_err());
    assert_eq!(short.state(55).await.expect("readable").rows, 54);
    world.table = Table::open(&world.lake, "booking", world.table.name()).await.expect("readable").expect("a table");
    world.change(&[(Op::Update, row(3, 7)), delete(4)]).await;
    let count = "SELECT count(*), sum(n)::BIGINT FROM t";
    assert_eq!(world.seen(None, count), [[json!(54), json!(7)]]);
    assert_eq!(world.seen(Some(56), count), [[json!(55), json!(0)]]);
    world.restart().await;
}

/// Compactions begun, worked off and merged at any time, and what else may happen to a table from the side.
#[derive(Default)]
struct Side {
    begun: Vec<Compaction>,
    done: Vec<Compacted>,
    applied: usize,
    void: usize,
    sweeps: usize,
}

impl Side {
    async fn act(&mut self, random: &mut StdRng, world: &mut World, told: &str) {
        match random.random_range(0..20) {
            0..6 if self.begun.len() + self.done.len() < 2 => {
                let target = [2 << 10, 64 << 10, 1 << 20][random.random_range(0..3)];
                let eagerness = if random.random_bool(0.5) { Eagerness::Asked } else { Eagerness::Routine };
                self.begun.extend(world.table.begin_compaction(&terms(target, eagerness)));
            }
            6..11 if !self.begun.is_empty() => {
                let job = self.begun.swap_remove(random.random_range(0..self.begun.len()));
                self.done.push(run(job).await);
            }
            11..18 if !self.done.is_empty() => {
                let done = self.done.swap_remove(random.random_range(0..self.done.len()));
                if random.random_bool(0.2) {
                    world.foreign(None);
                }
                match world.table.merge_compaction(done).await.unwrap_or_else(|error| panic!("{told}: {error}")) {
                    CompactionMerged::Applied { .. } => self.applied += 1,
                    CompactionMerged::Void => self.void += 1,
                }
            }
            18 => {
                world.table.finish().await;
                let opened = Table::open(&world.lake, "booking", world.table.name()).await;
                world.table = opened.unwrap_or_else(|error| panic!("{told}: {error}")).expect("a table");
            }
            19 => {
                // What is written and not merged yet would be taken for what a crash left.
                self.begun.clear();
                for done in self.done.drain(..) {
                    done.discard().await;
                }
                world.sweep(AT_ONCE, false).await;
                self.sweeps += 1;
                assert_eq!(world.sweep(AT_ONCE, true).await.objects, 0, "{told}");
            }
            _ => {}
        }
    }
}

/// How much happens between two batches. Where files are written anew, a batch touches nearly all of so small a table, and what is not
/// merged before it is given up.
fn acts(mode: WriteMode) -> usize {
    if mode == WriteMode::CopyOnWrite { 16 } else { 4 }
}

fn names_of(world: &World) -> Vec<String> {
    shown_names(world.table.shape())
}

async fn walk(seed: u64, partitioned: bool, spilled: bool, mode: WriteMode) -> Side {
    let mut side = Side::default();
    let mut layout = schema(&COLUMNS, RowIdentity::Key);
    layout.partition_by = if partitioned { vec![1] } else { vec![] };
    let Some(mut world) = World::written(layout, mode).await else { return side };
    let spill = spilled.then(|| Spill::new(world.scratch.path().join("spill"), 1 << 30, 8 << 10));
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: BTreeMap<i64, ModelRow> = BTreeMap::new();
    let mut next = 0;
    for batch in 1..=48 {
        let told = format!("seed {seed}, batch {batch}");
        for _ in 0..random.random_range(0..acts(mode)) {
            side.act(&mut random, &mut world, &told).await;
        }
        let mut shape = Shape::clone(world.table.shape());
        let mut changes = Vec::new();
        match random.random_range(0..100) {
            0..2 => {
                changes.push(TableChange::Truncate);
                model.clear();
            }
            2..8 => {
                let evolution = random_evolution(&mut random, &shape, &mut next, true);
                shape = Shape::clone(&evolution.shape);
                evolve_model(model.values_mut(), &evolution.ops);
                changes.push(TableChange::Evolve(evolution));
            }
            _ => {}
        }
        let mut log = Vec::new();
        for _ in 0..random.random_range(1..25) {
            let (id, deleted) = (random.random_range(0..150), random.random_range(0..4) == 0);
            log.push(random_change(&mut random, &shape, &mut model, id, deleted));
        }
        changes.extend(in_parts(&mut random, spill.as_ref(), rows(&shape.lake, &log)));
        world.table.apply(&changes, "pg:0/2").await.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert_eq!(world.table.live_rows(), model.len() as u64, "{told}");
        if mode == WriteMode::CopyOnWrite {
            delta_log::assert_plain(&world.folder(), &told);
        }
        if batch % 4 == 0 {
            let names = names_of(&world);
            let wanted: Vec<Vec<Value>> =
                model.values().map(|row| names.iter().map(|name| row[name].clone()).collect()).collect();
            let key = &shape.lake.columns[shape.lake.key[0]].name;
            let sql = format!("SELECT {} FROM t ORDER BY {key}", names.join(", "));
            assert_eq!(world.seen(None, &sql), wanted, "{told}");
        }
    }
    side
}

/// Rows told apart by all their columns, of which many are equal.
async fn walk_without_a_key(seed: u64, spilled: bool, mode: WriteMode) -> Side {
    let mut side = Side::default();
    let columns = [("a", LakeType::Integer), ("b", LakeType::Integer)];
    let Some(mut world) = World::written(schema(&columns, RowIdentity::WholeRow), mode).await else { return side };
    let spill = spilled.then(|| Spill::new(world.scratch.path().join("spill"), 1 << 30, 8 << 10));
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: Vec<(i64, i64)> = Vec::new();
    for batch in 1..=48 {
        let told = format!("seed {seed}, batch {batch}");
        for _ in 0..random.random_range(0..acts(mode)) {
            side.act(&mut random, &mut world, &told).await;
        }
        let mut log = Vec::new();
        for _ in 0..random.random_range(1..25) {
            if !model.is_empty() && random.random_bool(0.45) {
                let (a, b) = model.swap_remove(random.random_range(0..model.len()));
                log.push((Op::Delete, vec![json!(a), json!(b)]));
            } else {
                let row = (random.random_range(0..3), random.random_range(0..4));
                log.push((Op::Insert, vec![json!(row.0), json!(row.1)]));
                model.push(row);
            }
        }
        let changes = in_parts(&mut random, spill.as_ref(), rows(world.table.schema(), &log));
        world.table.apply(&changes, "pg:0/2").await.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert_eq!(world.table.live_rows(), model.len() as u64, "{told}");
        if mode == WriteMode::CopyOnWrite {
            delta_log::assert_plain(&world.folder(), &told);
        }
        if batch % 4 == 0 {
            let mut wanted = model.clone();
            wanted.sort_unstable();
            let wanted: Vec<Vec<Value>> = wanted.into_iter().map(|(a, b)| vec![json!(a), json!(b)]).collect();
            assert_eq!(world.seen(None, "SELECT a, b FROM t ORDER BY a, b"), wanted, "{told}");
        }
    }
    side
}

fn check(sides: &[Side]) {
    let sum = |of: fn(&Side) -> usize| sides.iter().map(of).sum::<usize>();
    let (applied, void, sweeps) = (sum(|side| side.applied), sum(|side| side.void), sum(|side| side.sweeps));
    if Reader::start(None).is_some() {
        assert!(applied >= 10 && void > 5 && sweeps > 10, "{applied} merged, {void} void, {sweeps} sweeps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_leave_the_table_equal_to_a_model() {
    let mut sides = Vec::new();
    for seed in 1..=10 {
        sides.push(walk(seed, false, false, WriteMode::MergeOnRead).await);
    }
    check(&sides);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_leave_a_partitioned_table_equal_to_a_model() {
    let mut sides = Vec::new();
    for seed in 21..=26 {
        sides.push(walk(seed, true, seed % 2 == 0, WriteMode::MergeOnRead).await);
    }
    check(&sides);
}

///
#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_between_batches_on_disk_leave_the_table_equal_to_a_model() {
    let mut sides = Vec::new();
    for seed in 31..=34 {
        sides.push(walk(seed, false, true, WriteMode::MergeOnRead).await);
    }
    check(&sides);
}

/// K-1
#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_leave_a_table_without_a_key_equal_to_a_model() {
    let mut sides = Vec::new();
    for seed in 41..=48 {
        sides.push(walk_without_a_key(seed, seed % 2 == 0, WriteMode::MergeOnRead).await);
    }
    check(&sides);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_leave_a_table_equal_to_a_model_that_is_written_anew() {
    let mut sides = Vec::new();
    for seed in 51..=60 {
        sides.push(walk(seed, seed > 56, seed % 2 == 0, WriteMode::CopyOnWrite).await);
    }
    check(&sides);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_compactions_leave_a_multiset_equal_to_a_model_that_is_written_anew() {
    let mut sides = Vec::new();
    for seed in 61..=68 {
        sides.push(walk_without_a_key(seed, seed % 2 == 0, WriteMode::CopyOnWrite).await);
    }
    check(&sides);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_are_only_added_is_compacted_without_an_index() {
    let Some(mut world) = World::new(schema(&COLUMNS, RowIdentity::AppendOnly)).await else { return };
    for batch in 0..9 {
        world.change(&(batch * 10..batch * 10 + 10).map(|id| (Op::Insert, row(id, 0))).collect::<Vec<_>>()).await;
    }
    let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Routine)).expect("small files")).await;
    world.change(&[(Op::Insert, row(90, 0))]).await;
    let merged = world.table.merge_compaction(done).await.expect("merged");
    assert!(matches!(merged, CompactionMerged::Applied { files_before: 9, files_after: 1, .. }), "{merged:?}");
    world.restart().await;
    let ids: Vec<Vec<Value>> = (0..=90).map(|id| vec![json!(id)]).collect();
    assert_eq!(world.seen(None, "SELECT id FROM t ORDER BY id"), ids);
}

/// Values of partitions are in the names of folders, in the log encoded once more than in the store: a file must not seem to be
/// needless for its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_knows_files_by_whatever_their_partition_is_called() {
    let mut layout = schema(&[("id", LakeType::Integer), ("place", LakeType::String)], RowIdentity::Key);
    layout.partition_by = vec![1];
    for world in [World::new(layout.clone()).await, World::at_store(layout).await].into_iter().flatten() {
        sweep_strange_names(world).await;
    }
}

async fn sweep_strange_names(mut world: World) {
    let places =
        ["Seoul", "a b", "c:d", "서울", "100%", "100%25", "x/y", "..", "=", "a+b", "#?&", "'\"", " ", "~~", "\\"];
    let mut wanted: Vec<Vec<Value>> = Vec::new();
    for (place, first) in places.iter().map(|place| json!(place)).chain([Value::Null]).zip((0..).step_by(10)) {
        let rows: Vec<Vec<Value>> = (first..first + 3).map(|id| vec![json!(id), place.clone()]).collect();
        world.change(&rows.iter().map(|row| (Op::Insert, row.clone())).collect::<Vec<_>>()).await;
        // A deletion vector each.
        world.change(&[(Op::Delete, rows[0].clone())]).await;
        wanted.extend_from_slice(&rows[1..]);
    }
    let all = "SELECT id, place FROM t ORDER BY id";
    assert_eq!(world.seen(None, all), wanted);
    world.sweep(AT_ONCE, false).await;
    assert_eq!(world.seen(None, all), wanted);
    world.restart().await;
    let done = run(world.table.begin_compaction(&terms(1 << 20, Eagerness::Asked)).expect("dead rows")).await;
    let merged = world.table.merge_compaction(done).await.expect("merged");
    assert!(matches!(merged, CompactionMerged::Applied { .. }), "{merged:?}");
    let swept = world.sweep(AT_ONCE, false).await;
    assert!(swept.objects >= places.len() as u64 && swept.failed == 0, "{swept:?}");
    assert_eq!(world.seen(None, all), wanted);
    world.restart().await;
}
