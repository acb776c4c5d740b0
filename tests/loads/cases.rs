//! Single rules of loading in chunks, each in a case of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use lakeward::lake::{
    Applied, ChunkWriter, Error, Lake, LoadNote, Merged, Picture, Place, StagedChunk, Table, TableChange,
};
use lakeward::schema::{LakeType, Op, RowIdentity, Step, TableSchema};
use serde_json::{Value, json};
use url::Url;

use crate::support::Scratch;
use crate::support::columns::*;
use crate::support::oracle::Reader;

pub const COLUMNS: [(&str, LakeType); 3] =
    [("id", LakeType::Integer), ("n", LakeType::Integer), ("s", LakeType::String)];

pub fn row(id: i64, n: i64, s: &str) -> Vec<Value> {
    vec![json!(id), json!(n), json!(s)]
}

/// A lake with one table that is loading.
pub struct World {
    _scratch: Scratch,
    pub lake: Lake,
    pub table: Table,
    pub reader: Reader,
}

impl World {
    /// `None` without the reader.
    pub async fn new(place: Place) -> Option<Self> {
        Self::of(schema(&COLUMNS, RowIdentity::Key), place).await
    }

    pub async fn of(schema: TableSchema, place: Place) -> Option<Self> {
        let reader = Reader::start(None)?;
        let scratch = Scratch::new("chunks");
        let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
        let table = Table::create(&lake, "booking", Arc::new(schema), "pg:0/1".into(), LoadNote::begin(), place).await;
        Some(Self { _scratch: scratch, table: table.expect("created"), lake, reader })
    }

    pub fn url(&self) -> Url {
        self.lake.table_url("booking", self.table.name())
    }

    pub fn rows(&self, images: &[Vec<Value>]) -> RecordBatch {
        let inserts: Vec<(Op, Vec<Value>)> = images.iter().map(|image| (Op::Insert, image.clone())).collect();
        rows(self.table.schema(), &inserts).rows
    }

    pub async fn change(&mut self, changes: &[(Op, Vec<Value>)]) -> Applied {
        let rows = rows(self.table.schema(), changes);
        self.apply(&[TableChange::Rows(rows)]).await
    }

    pub async fn apply(&mut self, changes: &[TableChange]) -> Applied {
        self.table.apply(changes, "pg:0/2").await.expect("applied")
    }

    pub async fn stage(&self, images: &[Vec<Value>]) -> StagedChunk {
        let mut writer = ChunkWriter::begin(&self.table).expect("begun");
        writer.write(&self.rows(images)).await.expect("written");
        writer.finish().await.expect("closed")
    }

    pub async fn merge(&mut self, staged: StagedChunk) -> Merged {
        let note = self.table.load().expect("it is loading").clone();
        self.table.merge_chunk(staged, note, "pg:0/2").await.expect("merged")
    }

    pub async fn chunk(&mut self, images: &[Vec<Value>]) -> Applied {
        let staged = self.stage(images).await;
        match self.merge(staged).await {
            Merged::Applied(applied) => applied,
            Merged::Void => panic!("nothing happened since"),
        }
    }

    pub fn all(&mut self) -> Vec<Value> {
        let rows = self.reader.rows(self.url().as_str(), None, "SELECT * FROM t ORDER BY 1");
        rows.into_iter().map(|row| json!(row)).collect()
    }

    /// Data files and objects of deletion vectors in the table's folder.
    pub fn objects(&self) -> usize {
        let folder = self.url().to_file_path().expect("local");
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file())).count()
    }

    pub async fn reopen(&mut self) {
        self.table.finish().await;
        self.table = Table::open(&self.lake, "booking", self.table.name()).await.expect("readable").expect("there");
    }

    pub async fn picture(&self) -> Picture {
        Picture::open(&self.lake, "booking", self.table.name()).await.expect("readable").expect("there")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_said_of_a_key_wins_over_a_chunk() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    world.change(&[(Op::Insert, row(1, 11, "stream")), (Op::Delete, row(2, 0, ""))]).await;
    world.change(&[(Op::UpdateOldKey, row(3, 0, "")), (Op::UpdateNewKey, row(4, 41, "moved"))]).await;
    let images: Vec<_> = (1..=5).map(|id| row(id, 0, "chunk")).collect();
    let applied = world.chunk(&images).await;
    assert_eq!((applied.version, applied.rows_written), (Some(3), 1));
    assert_eq!(world.all(), [json!([1, 11, "stream"]), json!([4, 41, "moved"]), json!([5, 0, "chunk"])]);
    // The same chunk once more brings nothing, and its file does not stay.
    let objects = world.objects();
    assert_eq!(world.chunk(&images).await.rows_written, 0);
    assert_eq!((world.all().len(), world.objects()), (3, objects));
}

/// Readers never see a value that is older than what they saw of others: the update is in the chunk's own commit.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_its_row_waits_for_the_chunk() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let left_out = |id: i64, n: Value| (Op::Update, vec![json!(id), n, json!(UNCHANGED)]);
    world.change(&[left_out(1, json!(11)), left_out(2, json!(21)), left_out(3, json!(31))]).await;
    world.change(&[left_out(1, json!(12)), (Op::Update, row(2, 22, "whole")), (Op::Delete, row(3, 0, ""))]).await;
    assert_eq!((world.table.pending_rows(), world.table.load().map(|load| load.pending)), (1, Some(true)));
    assert!(world.table.loading_bytes() > 0);
    // 5 waits under the key that it moves to, and further values that are told are kept.
    world.change(&[left_out(5, json!(51))]).await;
    let moved = vec![json!(6), json!(UNCHANGED), json!(UNCHANGED)];
    world.change(&[(Op::UpdateOldKey, row(5, 0, "")), (Op::UpdateNewKey, moved)]).await;
    let refused = world.table.finish_load("pg:0/3").await.expect_err("two wait").to_string();
    assert!(refused.contains("2 updates still wait") && refused.contains("id = 1; id = 6"), "{refused}");
    assert_eq!(world.all(), [json!([2, 22, "whole"])]);
    let version = world.table.version();
    let applied = world.chunk(&[row(1, 10, "base"), row(2, 20, "old"), row(3, 30, "old"), row(6, 7, "six")]).await;
    assert_eq!((applied.version, applied.rows_written), (Some(version + 1), 2));
    assert_eq!(world.all(), [json!([1, 12, "base"]), json!([2, 22, "whole"]), json!([6, 51, "six"])]);
    assert_eq!((world.table.pending_rows(), world.table.load().map(|load| load.pending)), (0, Some(false)));
    world.reopen().await;
    assert_eq!(world.table.load().map(|load| load.again), Some(false));
    world.table.finish_load("pg:0/3").await.expect("finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_wait_when_the_process_dies_ask_for_a_second_reading() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    world.change(&[(Op::Update, vec![json!(1), json!(2), json!(UNCHANGED)])]).await;
    world.reopen().await;
    let load = world.table.load().expect("loading").clone();
    assert_eq!((load.pending, load.again, world.table.pending_rows()), (false, true, 0));
    // Every commit from now on says so.
    world.change(&[(Op::Insert, row(2, 2, "x"))]).await;
    world.reopen().await;
    assert!(world.table.load().is_some_and(|load| load.again && !load.pending));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_know_nothing_of_a_change_are_void() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let staged = world.stage(&[row(1, 1, "a")]).await;
    world.apply(&[TableChange::Truncate]).await;
    assert_eq!((world.table.truncations(), world.merge(staged).await), (1, Merged::Void));
    let staged = world.stage(&[row(1, 1, "a")]).await;
    let added = evolution(world.table.shape(), vec![add("x", LakeType::Integer, number(9))], &[]);
    world.apply(&[TableChange::Evolve(added)]).await;
    assert_eq!(world.merge(staged).await, Merged::Void);
    let staged = world.stage(&[[row(1, 1, "a"), vec![json!(1)]].concat()]).await;
    world.reopen().await;
    assert_eq!(world.merge(staged).await, Merged::Void);
    assert_eq!((world.all(), world.objects()), (Vec::new(), 0));
    let writer = ChunkWriter::begin(&world.table).expect("begun");
    writer.abort().await;
    let staged = world.stage(&[[row(1, 1, "a"), vec![json!(1)]].concat()]).await;
    assert_eq!((staged.rows(), world.objects()), (1, 1));
    staged.discard(&world.table).await;
    assert_eq!(world.objects(), 0);
}

/// The index hashes decimals otherwise than whole numbers, so tombstones say nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_hashes_otherwise_makes_chunks_void_and_keeps_what_waits() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    world.change(&[(Op::Update, vec![json!(1), json!(11), json!(UNCHANGED)]), (Op::Delete, row(2, 0, ""))]).await;
    let to = LakeType::Decimal { precision: 12, scale: 2 };
    let steps: Vec<Step> = vec![widen("id", LakeType::Integer, to), add("x", LakeType::Integer, number(9))];
    let evolution = evolution(world.table.shape(), steps, &[]);
    world.apply(&[TableChange::Evolve(evolution)]).await;
    assert_eq!((world.table.truncations(), world.table.pending_rows()), (1, 1));
    world.chunk(&[vec![json!("1.00"), json!(10), json!("base"), json!(8)]]).await;
    assert_eq!(world.all(), [json!(["1.00", 11, "base", 9])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_a_key_are_not_dropped_unseen() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let staged = world.stage(&[row(1, 1, "a"), row(1, 2, "b")]).await;
    let note = world.table.load().expect("loading").clone();
    let refused = world.table.merge_chunk(staged, note, "pg:0/2").await.expect_err("two rows of a key");
    assert!(refused.to_string().contains("share a key"), "{refused}");
    assert_eq!((world.table.version(), world.table.live_rows()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_key_are_not_loaded_in_chunks() {
    let scratch = Scratch::new("keyless");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    for identity in [RowIdentity::WholeRow, RowIdentity::AppendOnly] {
        let schema = Arc::new(schema(&COLUMNS, identity));
        let created =
            Table::create(&lake, "booking", schema.clone(), "pg:0/1".into(), LoadNote::begin(), Place::Open).await;
        assert!(matches!(created, Err(Error::Table { .. })));
        assert!(Table::open(&lake, "booking", &schema.name).await.expect("readable").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_table_takes_no_chunks_and_a_loading_one_is_not_made_twice() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let schema = world.table.schema().clone();
    let twice = Table::create(&world.lake, "booking", schema, "pg:0/1".into(), LoadNote::begin(), Place::Open).await;
    assert!(matches!(twice, Err(Error::Fenced { version: 0, .. })));
    let (staged, note) = (world.stage(&[row(1, 1, "a")]).await, world.table.load().expect("loading").clone());
    let mut late = Table::open(&world.lake, "booking", world.table.name()).await.expect("readable").expect("there");
    world.table.finish_load("pg:0/2").await.expect("finished");
    let refused = world.table.merge_chunk(staged, note.clone(), "pg:0/2").await;
    assert!(matches!(refused, Err(Error::Table { .. })), "{refused:?}");
    // G7
    let fenced = late.merge_chunk(StagedChunk::empty(&late), note, "pg:0/2").await;
    assert!(matches!(fenced, Err(Error::Fenced { version: 1, .. })), "{fenced:?}");
}
