//! The lake layer alone: tables whose files are written anew where rows of them go, and tables that change their mode.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use lakeward::config::WriteMode;
use lakeward::lake::{
    ChunkWriter, CompactionMerged, CompactionTerms, Eagerness, FirstLoad, Lake, LoadNote, Merged, Place, Repair,
    Repaired, Table, TableChange, VacuumTerms, vacuum,
};
use lakeward::schema::{LakeType, Op, RowIdentity, TableSchema};
use serde_json::{Value, json};
use support::Scratch;
use support::columns::*;
use support::delta_log;
use support::oracle::{Reader, Readers};
use tokio_util::sync::CancellationToken;
use url::Url;

const COLUMNS: [(&str, LakeType); 3] = [("id", LakeType::Integer), ("p", LakeType::Integer), ("s", LakeType::String)];

/// A lake with one table.
struct World {
    scratch: Scratch,
    lake: Lake,
    schema: Arc<TableSchema>,
    table: Table,
    reader: Reader,
    position: u32,
}

fn lake_in(scratch: &Scratch, mode: WriteMode) -> Lake {
    let url = Url::from_directory_path(scratch.path()).expect("absolute");
    Lake::new(&url, &BTreeMap::new()).with_write_terms(support::terms(mode))
}

fn layout(partitioned: bool) -> TableSchema {
    let mut layout = schema(&COLUMNS, RowIdentity::Key);
    layout.partition_by = if partitioned { vec![1] } else { vec![] };
    layout
}

fn row(id: i64, s: &str) -> Vec<Value> {
    vec![json!(id), json!(id % 2), json!(s)]
}

fn delete(id: i64) -> (Op, Vec<Value>) {
    (Op::Delete, vec![json!(id), json!(id % 2), Value::Null])
}

fn update(id: i64, s: &str) -> (Op, Vec<Value>) {
    (Op::Update, row(id, s))
}

impl World {
    /// `None` without the reader.
    async fn new(layout: TableSchema, mode: WriteMode) -> Option<Self> {
        let reader = Reader::start(None)?;
        let scratch = Scratch::new("copy-on-write");
        let (lake, schema) = (lake_in(&scratch, mode), Arc::new(layout));
        let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
        let table = load.commit().await.expect("created");
        Some(Self { scratch, lake, schema, table, reader, position: 1 })
    }

    /// With rows 0 to 29 in three files.
    async fn with_rows(mode: WriteMode) -> Option<Self> {
        let mut world = Self::new(layout(false), mode).await?;
        for ids in [0..10, 10..20, 20..30] {
            world.change(&ids.map(|id| (Op::Insert, row(id, "new"))).collect::<Vec<_>>()).await;
        }
        Some(world)
    }

    async fn apply(&mut self, changes: &[TableChange]) {
        self.position += 1;
        let position = format!("pg:0/{:X}", self.position);
        self.table.apply(changes, &position).await.expect("applied");
    }

    async fn change(&mut self, changes: &[(Op, Vec<Value>)]) {
        let rows = rows(self.table.schema(), changes);
        self.apply(&[TableChange::Rows(rows)]).await;
    }

    /// A start with another mode.
    async fn reopen(&mut self, mode: WriteMode) {
        self.table.finish().await;
        self.lake = lake_in(&self.scratch, mode);
        self.table = Table::open(&self.lake, "booking", &self.schema.name).await.expect("readable").expect("there");
    }

    fn folder(&self) -> PathBuf {
        self.lake.table_url("booking", &self.schema.name).to_file_path().expect("local")
    }

    fn seen(&mut self, sql: &str) -> Vec<Vec<Value>> {
        let url = self.lake.table_url("booking", &self.schema.name);
        self.reader.rows(url.as_str(), None, sql)
    }

    /// That the table has these rows.
    fn assert_rows(&mut self, wanted: &BTreeMap<i64, &str>) {
        let wanted: Vec<Vec<Value>> = wanted.iter().map(|(id, s)| vec![json!(id), json!(s)]).collect();
        assert_eq!(self.seen("SELECT id, s FROM t ORDER BY id"), wanted);
        assert_eq!(self.table.live_rows(), wanted.len() as u64);
    }

    /// Data files and vectors in the folder.
    fn objects(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.folder()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("readable").path();
                if !path.is_dir() {
                    found.insert(path.display().to_string());
                } else if !path.ends_with("_delta_log") {
                    folders.push(path);
                }
            }
        }
        found
    }

    async fn sweep(&self, dry_run: bool) -> u64 {
        let at_once = VacuumTerms { retention: std::time::Duration::ZERO, young: std::time::Duration::ZERO };
        let swept = vacuum(&self.lake, "booking", &self.schema.name, at_once, dry_run).await;
        swept.expect("swept").expect("a table").objects
    }

    async fn compact(&mut self, eagerness: Eagerness) -> Option<CompactionMerged> {
        let job = self.table.begin_compaction(&terms(eagerness))?;
        let done = job.run(&CancellationToken::new()).await.expect("readable").expect("not stopped");
        Some(self.table.merge_compaction(done).await.expect("merged"))
    }

    /// Another engine commits a version that changes nothing.
    fn foreign(&self) {
        let entry = self.folder().join(format!("_delta_log/{:020}.json", self.table.version() + 1));
        std::fs::write(entry, "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"OPTIMIZE\"}}\n").expect("written");
    }

    fn assert_readers_agree(&self) {
        Readers::start().expect("python").assert_agree(self.folder().to_str().expect("UTF-8"));
    }
}

fn terms(eagerness: Eagerness) -> CompactionTerms {
    CompactionTerms { target_bytes: 1 << 20, memory_bytes: 64 << 20, eagerness }
}

/// Thirty rows that say this, but for some.
fn thirty<'a>(s: &'a str, others: &[(i64, Option<&'a str>)]) -> BTreeMap<i64, &'a str> {
    let mut wanted: BTreeMap<i64, &str> = (0..30).map(|id| (id, s)).collect();
    for (id, other) in others {
        match other {
            Some(other) => drop(wanted.insert(*id, other)),
            None => drop(wanted.remove(id)),
        }
    }
    wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_rows_go_is_written_anew_and_others_are_left_alone() {
    let Some(mut world) = World::with_rows(WriteMode::CopyOnWrite).await else { return };
    let protocol = delta_log::actions(&world.folder(), "protocol");
    assert_eq!(protocol, [json!({"minReaderVersion": 1, "minWriterVersion": 2})]);
    world.change(&[delete(3), update(15, "changed"), update(16, "changed")]).await;
    let entry = delta_log::entries(&world.folder()).pop().expect("the last one");
    let of_kind = |kind: &str| entry.iter().filter_map(|action| action.get(kind).cloned()).collect::<Vec<Value>>();
    let (added, removed) = (of_kind("add"), of_kind("remove"));
    assert_eq!((added.len(), removed.len()), (2, 2), "what is left of two files is one, and the new rows are one");
    assert!(added.iter().chain(&removed).all(|action| action["dataChange"] == json!(true)));
    let count = |add: &Value| {
        let stats: Value = serde_json::from_str(add["stats"].as_str().expect("stats")).expect("JSON");
        assert_ne!(stats["tightBounds"], json!(false));
        stats["numRecords"].as_u64().expect("a count")
    };
    assert_eq!(added.iter().map(count).collect::<BTreeSet<u64>>(), BTreeSet::from([17, 2]));
    let wanted = thirty("new", &[(3, None), (15, Some("changed")), (16, Some("changed"))]);
    world.assert_rows(&wanted);
    // Every row is found where it lies now, in memory and after a restart.
    for s in ["again", "restarted"] {
        if s == "restarted" {
            world.reopen(WriteMode::CopyOnWrite).await;
        }
        world.change(&(0..30).filter(|id| *id != 3).map(|id| update(id, s)).collect::<Vec<_>>()).await;
        world.assert_rows(&thirty(s, &[(3, None)]));
        world.change(&[update(7, "once more"), delete(8), (Op::Insert, row(8, s))]).await;
        world.assert_rows(&thirty(s, &[(3, None), (7, Some("once more"))]));
    }
    delta_log::assert_plain(&world.folder(), "always");
    world.assert_readers_agree();
    world.sweep(false).await;
    world.assert_readers_agree();
}

/// Many rows that are written anew come to files of the target size, and what a file had is found in whatever file it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_anew_comes_to_files_of_the_target_size() {
    let Some(mut world) = World::new(layout(false), WriteMode::CopyOnWrite).await else { return };
    let text = |id: i64| format!("{:x}", (id as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let all: Vec<_> = (0..60_000).map(|id| (Op::Insert, row(id, &text(id)))).collect();
    world.change(&all).await;
    world.change(&[delete(1), delete(59_999)]).await;
    let entry = delta_log::entries(&world.folder()).pop().expect("the last one");
    let added = entry.iter().filter(|action| action.get("add").is_some()).count();
    assert!(added > 1, "{added} files");
    let updates: Vec<_> = (0..600).map(|n| update(n * 100, "found")).collect();
    world.change(&updates).await;
    let sql = "SELECT count(*), count(DISTINCT id), count(*) FILTER (s = 'found') FROM t";
    assert_eq!(world.seen(sql), [[json!(59_998), json!(59_998), json!(600)]]);
    world.reopen(WriteMode::CopyOnWrite).await;
    assert_eq!(world.table.live_rows(), 59_998);
}

/// A table that had deletion vectors gets no others and is rid of them by and by; its protocol stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_becomes_copy_on_write() {
    let Some(mut world) = World::with_rows(WriteMode::MergeOnRead).await else { return };
    world.change(&[delete(1), delete(11), delete(21)]).await;
    assert_eq!(delta_log::files_with_vectors(&world.folder()), 3);
    world.reopen(WriteMode::CopyOnWrite).await;
    world.change(&[update(2, "changed")]).await;
    assert_eq!(delta_log::files_with_vectors(&world.folder()), 2, "the file that was touched has none any more");
    let metadata = delta_log::actions(&world.folder(), "metaData").pop().expect("another one");
    assert!(metadata["configuration"].get("delta.enableDeletionVectors").is_none(), "{metadata}");
    let wanted = thirty("new", &[(1, None), (11, None), (21, None), (2, Some("changed"))]);
    world.assert_rows(&wanted);
    // A file with a vector is reason enough.
    let plan = Table::compaction_plan(&world.lake, "booking", &world.schema.name, &terms(Eagerness::Routine)).await;
    let planned: u64 = plan.expect("readable").expect("a table").iter().map(|group| group.files).sum();
    assert_eq!(planned, 2);
    let merged = world.compact(Eagerness::Routine).await.expect("files have vectors");
    assert!(matches!(merged, CompactionMerged::Applied { files_before: 2, rows_purged: 2, .. }), "{merged:?}");
    assert_eq!(delta_log::files_with_vectors(&world.folder()), 0);
    assert!(world.compact(Eagerness::Routine).await.is_none());
    world.assert_rows(&wanted);
    assert!(delta_log::asks_for_vectors(&world.folder()), "no feature is ever taken back");
    // The same mode at the next start is no news.
    let before = delta_log::actions(&world.folder(), "metaData").len();
    world.reopen(WriteMode::CopyOnWrite).await;
    world.change(&[delete(2)]).await;
    assert_eq!(delta_log::actions(&world.folder(), "metaData").len(), before);
    assert_eq!(delta_log::actions(&world.folder(), "protocol").len(), 1);
    world.assert_readers_agree();
}

/// The other way round, with the next commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_becomes_merge_on_read() {
    let Some(mut world) = World::with_rows(WriteMode::CopyOnWrite).await else { return };
    world.change(&[delete(1)]).await;
    world.reopen(WriteMode::MergeOnRead).await;
    let version = world.table.version();
    // Another engine comes first: the protocol comes with what is committed in the end.
    world.foreign();
    world.change(&[delete(2), delete(12)]).await;
    assert_eq!(world.table.version(), version + 2);
    let entry = delta_log::entries(&world.folder()).pop().expect("the last one");
    let find = |kind: &str| entry.iter().find_map(|action| action.get(kind)).expect("it is there").clone();
    assert_eq!(find("protocol")["readerFeatures"], json!(["deletionVectors", "timestampNtz"]));
    assert_eq!(find("metaData")["configuration"]["delta.enableDeletionVectors"], json!("true"));
    assert_eq!(delta_log::files_with_vectors(&world.folder()), 2);
    world.change(&[delete(3)]).await;
    assert_eq!(delta_log::actions(&world.folder(), "protocol").len(), 2, "told once");
    let wanted = thirty("new", &[(1, None), (2, None), (3, None), (12, None)]);
    world.assert_rows(&wanted);
    world.assert_readers_agree();
    // And back, and there again.
    for mode in [WriteMode::CopyOnWrite, WriteMode::MergeOnRead] {
        world.reopen(mode).await;
        world.change(&[update(20, "changed")]).await;
        world.change(&[update(20, "new")]).await;
        world.assert_rows(&wanted);
    }
    assert_eq!(delta_log::actions(&world.folder(), "protocol").len(), 2);
    world.assert_readers_agree();
}

/// A type that is a feature of its own comes with the column.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_needs_a_feature_brings_it() {
    let Some(mut world) = World::with_rows(WriteMode::CopyOnWrite).await else { return };
    for (name, kind) in [("plain", LakeType::Long), ("at", LakeType::TimestampNtz), ("more", LakeType::TimestampNtz)] {
        let evolution = evolution(world.table.shape(), vec![add(name, kind, None)], &[]);
        let mut after = row(5, name);
        after.resize(evolution.shape.lake.columns.len(), Value::Null);
        let changed = rows(&evolution.shape.lake, &[(Op::Update, after)]);
        world.apply(&[TableChange::Evolve(evolution), TableChange::Rows(changed)]).await;
        let entry = delta_log::entries(&world.folder()).pop().expect("the last one");
        let protocol = entry.iter().find_map(|action| action.get("protocol"));
        match name {
            "at" => assert_eq!(protocol.expect("lifted")["readerFeatures"], json!(["timestampNtz"])),
            _ => assert_eq!(protocol, None),
        }
        world.assert_rows(&thirty("new", &[(5, Some(name))]));
        world.reopen(WriteMode::CopyOnWrite).await;
    }
    delta_log::assert_plain(&world.folder(), "always");
    world.assert_readers_agree();
    // A table that begins with such a column has the feature from the start.
    let layout = schema(&[("id", LakeType::Integer), ("at", LakeType::TimestampNtz)], RowIdentity::Key);
    let Some(world) = World::new(layout, WriteMode::CopyOnWrite).await else { return };
    let protocol = delta_log::actions(&world.folder(), "protocol").remove(0);
    assert_eq!(protocol["readerFeatures"], json!(["timestampNtz"]));
    assert_eq!(protocol["writerFeatures"], json!(["timestampNtz", "appendOnly"]));
}

/// What another engine's commit overtakes is written again, and nothing of the first try stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_overtaken_leaves_nothing_behind() {
    let Some(mut world) = World::with_rows(WriteMode::CopyOnWrite).await else { return };
    world.foreign();
    world.change(&[delete(3), update(15, "changed")]).await;
    world.assert_rows(&thirty("new", &[(3, None), (15, Some("changed"))]));
    assert_eq!(world.sweep(true).await, 2, "the two old files, and nothing else");
}

/// Of a compaction the groups of which rows died are given up; the others are merged.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_gives_up_what_changed_meanwhile() {
    let Some(mut world) = World::new(layout(true), WriteMode::CopyOnWrite).await else { return };
    for batch in 0..8 {
        let rows: Vec<_> = (batch * 4..batch * 4 + 4).map(|id| (Op::Insert, row(id, "new"))).collect();
        world.change(&rows).await;
    }
    let begin = |world: &World| world.table.begin_compaction(&terms(Eagerness::Routine)).expect("eight small files");
    let run = async |world: &World| {
        begin(world).run(&CancellationToken::new()).await.expect("readable").expect("not stopped")
    };
    let done = run(&world).await;
    world.change(&[update(4, "changed")]).await;
    let before = world.objects();
    let merged = world.table.merge_compaction(done).await.expect("merged");
    assert!(matches!(merged, CompactionMerged::Applied { files_before: 8, files_after: 1, .. }), "{merged:?}");
    let mut wanted: BTreeMap<i64, &str> = (0..32).map(|id| (id, "new")).collect();
    wanted.insert(4, "changed");
    world.assert_rows(&wanted);
    assert_eq!(before.difference(&world.objects()).count(), 1, "what was written of the other group is gone");
    // Where nothing is left of a job, it is void.
    let done = run(&world).await;
    world.change(&[delete(6)]).await;
    let version = world.table.version();
    assert_eq!(world.table.merge_compaction(done).await.expect("no error"), CompactionMerged::Void);
    assert_eq!(world.table.version(), version);
    // Rows that only came are no reason.
    let done = run(&world).await;
    world.change(&[(Op::Insert, row(40, "new"))]).await;
    let merged = world.table.merge_compaction(done).await.expect("merged");
    assert!(matches!(merged, CompactionMerged::Applied { .. }), "{merged:?}");
    wanted.remove(&6);
    wanted.insert(40, "new");
    world.assert_rows(&wanted);
    world.change(&wanted.keys().map(|id| update(*id, "end")).collect::<Vec<_>>()).await;
    let ends: BTreeMap<i64, &str> = wanted.keys().map(|id| (*id, "end")).collect();
    world.assert_rows(&ends);
    delta_log::assert_plain(&world.folder(), "always");
    world.sweep(false).await;
    world.assert_readers_agree();
}

/// A row that lies in a newer file because that was written anew is put right all the same; one that the stream wrote is not.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_put_right_in_files_that_are_written_anew_meanwhile() {
    let Some(mut world) = World::with_rows(WriteMode::CopyOnWrite).await else { return };
    let watch = world.table.watch();
    world.change(&[update(2, "stream"), delete(3)]).await;
    let images: Vec<_> = (1..=4).map(|id| (Op::Insert, row(id, "source"))).collect();
    let repair = Repair { watch, rows: vec![rows(world.table.schema(), &images).rows], extra: Vec::new() };
    let repaired = world.table.repair(repair, "pg:0/9").await.expect("repaired");
    assert!(matches!(repaired, Repaired::Applied { left: 2, .. }), "{repaired:?}");
    let wanted = thirty("new", &[(1, Some("source")), (2, Some("stream")), (3, None), (4, Some("source"))]);
    world.assert_rows(&wanted);
    world.reopen(WriteMode::CopyOnWrite).await;
    delta_log::assert_plain(&world.folder(), "always");
}

/// A chunk's rows that the stream knows better of are in no file of the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_written_anew_without_what_the_stream_told() {
    let Some(mut world) = World::new(layout(false), WriteMode::CopyOnWrite).await else { return };
    let (note, place) = (LoadNote::begin(), Place::Hidden(uuid::Uuid::from_u128(7)));
    let hidden =
        Table::create(&world.lake, "booking", world.schema.clone(), "pg:0/1".into(), note.clone(), place).await;
    let mut hidden = hidden.expect("created");
    let told = [update(5, "stream"), (Op::Insert, row(6, "stream")), delete(7)];
    hidden.apply(&[TableChange::Rows(rows(&world.schema, &told))], "pg:0/2").await.expect("applied");
    let mut writer = ChunkWriter::begin(&hidden).expect("begun");
    let chunk: Vec<_> = (0..30).map(|id| (Op::Insert, row(id, "new"))).collect();
    writer.write(&rows(&world.schema, &chunk).rows).await.expect("written");
    let staged = writer.finish().await.expect("closed");
    let merged = hidden.merge_chunk(staged, note, "pg:0/2").await.expect("merged");
    let Merged::Applied(applied) = merged else { panic!("{merged:?}") };
    assert_eq!(applied.rows_written, 27);
    hidden.apply(&[TableChange::Rows(rows(&world.schema, &[update(8, "later")]))], "pg:0/3").await.expect("applied");
    hidden.finish_load("pg:0/3").await.expect("finished");
    let Place::Hidden(id) = place else { panic!("hidden") };
    delta_log::assert_plain(&world.folder().join(format!("resync-{id}")), "the build");
    world.table = Table::swap(Some(world.table), hidden, "pg:0/4").await.expect("swapped");
    let wanted = thirty("new", &[(5, Some("stream")), (6, Some("stream")), (7, None), (8, Some("later"))]);
    world.assert_rows(&wanted);
    world.change(&[update(9, "later")]).await;
    delta_log::assert_plain(&world.folder(), "always");
    assert_eq!(delta_log::actions(&world.folder(), "protocol").len(), 1);
    world.reopen(WriteMode::CopyOnWrite).await;
    world.sweep(false).await;
    world.assert_readers_agree();
}

/// A build brings the features that its files need, whatever the table asked for before; and where there was no table, only those.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_brings_the_features_that_its_files_need() {
    for there in [true, false] {
        let Some(mut world) = World::new(layout(false), WriteMode::CopyOnWrite).await else { return };
        if !there {
            std::fs::remove_dir_all(world.folder()).expect("removed");
        }
        let merge_on_read = lake_in(&world.scratch, WriteMode::MergeOnRead);
        let (note, id) = (LoadNote::begin(), uuid::Uuid::from_u128(8));
        let (schema, place) = (world.schema.clone(), Place::Hidden(id));
        let hidden = Table::create(&merge_on_read, "booking", schema, "pg:0/1".into(), note, place).await;
        let mut hidden = hidden.expect("created");
        let inserts: Vec<_> = (0..30).map(|id| (Op::Insert, row(id, "new"))).collect();
        for changes in [inserts, vec![delete(4)]] {
            hidden.apply(&[TableChange::Rows(rows(&world.schema, &changes))], "pg:0/2").await.expect("applied");
        }
        hidden.finish_load("pg:0/2").await.expect("finished");
        hidden.finish().await;
        drop(hidden);
        let hidden = Table::open_hidden(&world.lake, "booking", &world.schema.name, id).await;
        let hidden = hidden.expect("readable").expect("there");
        let main = if there { Some(world.table) } else { None };
        world.table = Table::swap(main, hidden, "pg:0/4").await.expect("swapped");
        assert!(delta_log::asks_for_vectors(&world.folder()));
        world.assert_rows(&thirty("new", &[(4, None)]));
        let merged = world.compact(Eagerness::Routine).await.expect("it has a vector");
        assert!(matches!(merged, CompactionMerged::Applied { .. }), "{merged:?}");
        assert_eq!(delta_log::files_with_vectors(&world.folder()), 0);
        world.reopen(WriteMode::CopyOnWrite).await;
        world.change(&[update(5, "changed")]).await;
        world.assert_rows(&thirty("new", &[(4, None), (5, Some("changed"))]));
        world.assert_readers_agree();
    }
}
