//! A hidden build takes the place of the table, and everything goes on from there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lakeward::lake::{ChunkWriter, Error, FirstLoad, Lake, LoadNote, Merged, Place, Table, TableChange, TableLog};
use lakeward::schema::{LakeType, Op, RowIdentity, TableName, TableSchema};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::support::Scratch;
use crate::support::columns::*;
use crate::support::delta_log;
use crate::support::oracle::{Reader, Readers};

/// Partitioned by `p`, if asked for.
fn layout(partitioned: bool) -> Arc<TableSchema> {
    let columns = [("id", LakeType::Integer), ("p", LakeType::String), ("s", LakeType::String)];
    Arc::new(TableSchema {
        partition_by: if partitioned { vec![1] } else { vec![] },
        ..schema(&columns, RowIdentity::Key)
    })
}

/// As partition values, those of `p` end up in paths, encoded once or twice.
fn row(id: i64, s: &str) -> Vec<Value> {
    let p = ["a b", "서울", "50%", "x/y=z"][id as usize % 4];
    vec![json!(id), json!(p), json!(s)]
}

struct World {
    _scratch: Scratch,
    lake: Lake,
    schema: Arc<TableSchema>,
    reader: Reader,
    readers: Readers,
}

impl World {
    fn new(partitioned: bool) -> Option<Self> {
        let (reader, readers) = (Reader::start(None)?, Readers::start()?);
        let scratch = Scratch::new("swap");
        let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
        Some(Self { _scratch: scratch, lake, schema: layout(partitioned), reader, readers })
    }

    fn name(&self) -> &TableName {
        &self.schema.name
    }

    fn folder(&self) -> PathBuf {
        self.lake.table_url("booking", self.name()).to_file_path().expect("local")
    }

    async fn open(&self) -> Table {
        Table::open(&self.lake, "booking", self.name()).await.expect("readable").expect("there")
    }

    /// A table as a first load leaves it, one row updated.
    async fn main(&self) -> Table {
        let mut load = FirstLoad::begin(&self.lake, "booking", self.schema.clone(), "pg:0/1".into()).expect("begun");
        let first: Vec<_> = (0..8).map(|id| (Op::Insert, row(id, "old"))).collect();
        load.write(&rows(&self.schema, &first).rows).await.expect("written");
        let mut table = load.commit().await.expect("created");
        change(&mut table, &[(Op::Update, row(1, "older"))]).await;
        table
    }

    /// A hidden build: rows 0 to 11 but 3, some of them in files with deletion vectors.
    async fn hidden(&self, id: Uuid, s: &str) -> Table {
        let note = LoadNote { id, ..LoadNote::begin() };
        let schema = self.schema.clone();
        let place = Place::Hidden(id);
        let table = Table::create(&self.lake, "booking", schema, "pg:0/5".into(), note.clone(), place).await;
        let mut table = table.expect("created");
        change(&mut table, &[(Op::Insert, row(2, s)), (Op::Delete, row(3, ""))]).await;
        for ids in [0..6, 6..12] {
            let mut writer = ChunkWriter::begin(&table).expect("begun");
            let images: Vec<_> = ids.map(|id| (Op::Insert, row(id, if id == 2 { "stale" } else { s }))).collect();
            writer.write(&rows(table.schema(), &images).rows).await.expect("written");
            let staged = writer.finish().await.expect("closed");
            let merged = table.merge_chunk(staged, note.clone(), "pg:0/6").await.expect("merged");
            assert!(matches!(merged, Merged::Applied(_)));
        }
        change(&mut table, &[(Op::Update, row(7, s))]).await;
        table.finish_load("pg:0/7").await.expect("finished");
        let table = Table::open_hidden(&self.lake, "booking", self.name(), id).await;
        table.expect("readable").expect("there")
    }

    fn seen(&mut self, version: Option<u64>) -> Vec<Value> {
        let url = self.lake.table_url("booking", self.name());
        let rows = self.reader.rows(url.as_str(), version, "SELECT * FROM t ORDER BY id");
        rows.into_iter().map(|row| json!(row)).collect()
    }

    /// But for a partitioned table: Polars (2.1) does not apply deletion vectors to files with encoded characters in their
    /// paths, in whatever table; such a one is only DuckDB's to read.
    fn assert_readers_agree(&mut self) {
        if !self.schema.partition_by.is_empty() {
            return;
        }
        let folder = self.folder();
        self.readers.assert_agree(folder.to_str().expect("UTF-8"));
    }
}

async fn change(table: &mut Table, changes: &[(Op, Vec<Value>)]) {
    let rows = rows(table.schema(), changes);
    table.apply(&[TableChange::Rows(rows)], "pg:0/6").await.expect("applied");
}

fn wanted(s: &str) -> Vec<Value> {
    (0..12).filter(|id| *id != 3).map(|id| json!(row(id, s))).collect()
}

async fn goes_on(partitioned: bool) {
    let Some(mut world) = World::new(partitioned) else { return };
    let main = world.main().await;
    let metadata_id = |world: &World, version: u64| {
        delta_log::actions_at(&world.folder(), version, "metaData").first().map(|metadata| metadata["id"].clone())
    };
    let old = world.seen(None);
    let id = Uuid::from_u128(7);
    let mut hidden = world.hidden(id, "new").await;
    // The build went through a change of columns that the table does not know.
    let added = evolution(hidden.shape(), vec![add("x", LakeType::Integer, number(9))], &[]);
    hidden.apply(&[TableChange::Evolve(added)], "pg:0/7").await.expect("applied");
    let with_x =
        |rows: Vec<Value>| -> Vec<Value> { rows.into_iter().map(|row| json!([row[0], row[1], row[2], 9])).collect() };
    let (version, shape) = (main.version(), hidden.shape().clone());
    let mut table = Table::swap(Some(main), hidden, "pg:0/8").await.expect("swapped");
    assert_eq!((table.version(), table.position(), table.loaded()), (version + 1, "pg:0/8", Some(id)));
    assert_eq!(metadata_id(&world, 0), metadata_id(&world, version + 1), "it is the same table");
    assert_eq!(table.shape(), &shape);
    let reopened = world.open().await;
    assert_eq!((reopened.version(), reopened.live_rows(), reopened.shape()), (version + 1, 11, &shape));
    assert_eq!(reopened.schema_version(), table.schema_version());
    assert_eq!(world.seen(None), with_x(wanted("new")));
    world.assert_readers_agree();
    assert_eq!(world.seen(Some(version)), old, "old versions stay readable");
    let build = world.folder().join(format!("resync-{id}"));
    assert!(build.exists() && !build.join("_delta_log").exists());

    // Rows of the build's files change, and a checkpoint is passed.
    for batch in 0..55 {
        let mut image = row(batch % 6, "later");
        image.push(json!(batch));
        if image[0] == json!(3) {
            image = [row(9, "later"), vec![json!(batch)]].concat();
        }
        change(&mut table, &[(Op::Update, image)]).await;
    }
    change(&mut table, &[(Op::Delete, [row(11, ""), vec![json!(null)]].concat())]).await;
    table.finish().await;
    assert!(world.folder().join("_delta_log/_last_checkpoint").exists());
    let later = world.seen(None);
    assert_eq!((later.len(), &later[8][2]), (10, &json!("later")));
    world.assert_readers_agree();
    let mut table = world.open().await;
    assert_eq!((table.live_rows(), table.loaded()), (10, Some(id)));
    // A splice of files of the build, with vectors of its own and of the table.
    let widened = evolution(table.shape(), vec![widen("x", LakeType::Integer, LakeType::Long), rename("s", "t")], &[]);
    table.apply(&[TableChange::Evolve(widened)], "pg:0/9").await.expect("applied");
    assert_eq!(world.seen(None), later);
    world.assert_readers_agree();

    // What the log refers to is no garbage; what it does not is.
    Table::discard_hidden(&world.lake, "booking", world.name(), id).await.expect("kept");
    assert_eq!(world.seen(None), later);
    let abandoned = Uuid::from_u128(8);
    drop(world.hidden(abandoned, "never").await);
    Table::discard_hidden(&world.lake, "booking", world.name(), abandoned).await.expect("removed");
    assert!(!world.folder().join(format!("resync-{abandoned}")).exists());
    Table::discard_hidden(&world.lake, "booking", world.name(), abandoned).await.expect("nothing to do");

    // Once more, with another engine's commit in between.
    let next = Uuid::from_u128(9);
    let hidden = world.hidden(next, "next").await;
    let main = world.open().await;
    let (version, schemas) = (main.version(), main.schema_version());
    let foreign = delta_log::entry_path(&world.folder(), version + 1);
    std::fs::write(foreign, "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"OPTIMIZE\"}}\n").expect("written");
    let mut table = Table::swap(Some(main), hidden, "pg:0/A").await.expect("swapped");
    assert_eq!((table.version(), table.loaded(), table.schema_version()), (version + 2, Some(next), schemas + 1));
    assert_eq!(world.seen(None), wanted("next"));
    world.assert_readers_agree();
    assert_eq!(world.seen(Some(version)), later);
    // Nothing live is in the first build's folder, but older versions are.
    Table::discard_hidden(&world.lake, "booking", world.name(), id).await.expect("kept");
    assert_eq!(world.seen(Some(version)), later);
    change(&mut table, &[(Op::Update, row(0, "last"))]).await;
    assert_eq!(world.open().await.live_rows(), 11);
    let log = TableLog::open(&world.lake, "booking", world.name()).await.expect("readable").expect("there");
    assert_eq!(log.changes(log.newest()).await.expect("readable").len(), 1, "the widening");
    assert_eq!(log.state(version).await.expect("readable").rows, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_takes_the_tables_place_and_everything_goes_on() {
    goes_on(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_build_takes_the_tables_place() {
    goes_on(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_becomes_the_table_where_there_is_none() {
    let Some(mut world) = World::new(true) else { return };
    let id = Uuid::from_u128(1);
    let hidden = world.hidden(id, "first").await;
    assert!(Table::open(&world.lake, "booking", world.name()).await.expect("readable").is_none(), "out of sight");
    let mut table = Table::swap(None, hidden, "pg:0/8").await.expect("swapped");
    assert_eq!((table.version(), table.loaded(), world.seen(None)), (0, Some(id), wanted("first")));
    change(&mut table, &[(Op::Update, row(0, "second"))]).await;
    world.assert_readers_agree();
    let reopened = world.open().await;
    assert_eq!((reopened.version(), reopened.live_rows(), reopened.loaded()), (1, 11, Some(id)));
    // G7: of two that would make the table one does.
    let late = world.hidden(Uuid::from_u128(2), "late").await;
    let refused = Table::swap(None, late, "pg:0/8").await.map(|_| ());
    assert!(matches!(refused, Err(Error::Fenced { version: 0, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_is_not_swapped_in() {
    let Some(world) = World::new(false) else { return };
    let id = Uuid::from_u128(1);
    let place = Place::Hidden(id);
    let table =
        Table::create(&world.lake, "booking", world.schema.clone(), "pg:0/5".into(), LoadNote::begin(), place).await;
    let refused = Table::swap(None, table.expect("created"), "pg:0/8").await.map(|_| ());
    assert!(matches!(refused, Err(Error::Table { .. })), "{refused:?}");
    let main = world.main().await;
    let refused = Table::swap(None, main, "pg:0/8").await.map(|_| ());
    assert!(matches!(refused, Err(Error::Table { .. })), "{refused:?}");
}
