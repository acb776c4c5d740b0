//! The lake layer alone: random batches of changes against a model, read back by DuckDB.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward::lake::{FirstLoad, Lake, Table, TableChange};
use lakeward::schema::{
    Column, ColumnBuilder, LakeType, Op, Policy, RowBuilder, RowIdentity, TableName, TableRows, TableSchema,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use support::Scratch;
use support::oracle::Reader;
use url::Url;

/// id → (status, note); the table is partitioned by status when asked for.
type Model = BTreeMap<i64, (String, Option<String>)>;

fn schema(partitioned: bool) -> Arc<TableSchema> {
    let column = |name: &str, lake_type, nullable| Column {
        name: name.into(),
        source_type: "test".into(),
        lake_type,
        nullable,
        policy: Policy::default(),
    };
    Arc::new(TableSchema {
        name: TableName::new("booking", "reservations"),
        columns: vec![
            column("id", LakeType::Long, false),
            column("status", LakeType::String, true),
            column("note", LakeType::String, true),
        ],
        key: vec![0],
        partition_by: if partitioned { vec![1] } else { vec![] },
        identity: RowIdentity::Key,
    })
}

/// One change as the log would tell it; `note` of `None` inside `Some` is NULL, outer `None` is "left out, unchanged".
struct Change {
    op: Op,
    id: i64,
    status: String,
    note: Option<Option<String>>,
}

fn rows(schema: &Arc<TableSchema>, changes: &[Change]) -> TableRows {
    let mut builder = RowBuilder::new(schema.clone());
    let mut unchanged = Vec::new();
    for (row, change) in changes.iter().enumerate() {
        let ColumnBuilder::Long(ids) = &mut builder.columns[0] else { panic!("long") };
        ids.append_value(change.id);
        let ColumnBuilder::String(statuses) = &mut builder.columns[1] else { panic!("string") };
        statuses.append_value(&change.status);
        let ColumnBuilder::String(notes) = &mut builder.columns[2] else { panic!("string") };
        notes.append_option(change.note.clone().flatten());
        if change.note.is_none() {
            unchanged.push((row as u32, 2));
        }
        builder.end_row().expect("three columns");
    }
    TableRows {
        schema: schema.clone(),
        rows: builder.finish().expect("valid"),
        ops: changes.iter().map(|change| change.op).collect(),
        unchanged,
        unfaithful: Vec::new(),
    }
}

/// A random batch and what it does to the model.
fn random_batch(random: &mut StdRng, model: &mut Model) -> Vec<Change> {
    let mut changes = Vec::new();
    // As partition values these end up in paths, encoded once or twice.
    let statuses = ["held", "a b", "서울", "50%", "x/y=z"];
    for _ in 0..random.random_range(1..200) {
        let id = random.random_range(0..300);
        let status = statuses[random.random_range(0..statuses.len())].to_owned();
        let note = random.random_bool(0.8).then(|| format!("메모 {}", random.random::<u32>()));
        match (model.contains_key(&id), random.random_range(0..10)) {
            (false, _) => {
                changes.push(Change { op: Op::Insert, id, status: status.clone(), note: Some(note.clone()) });
                model.insert(id, (status, note));
            }
            (true, 0..=1) => {
                let (status, note) = model.remove(&id).expect("it is there");
                changes.push(Change { op: Op::Delete, id, status, note: Some(note) });
            }
            (true, 2..=3) => {
                let new_id = random.random_range(300..600);
                if model.contains_key(&new_id) {
                    continue;
                }
                let (old_status, old_note) = model.remove(&id).expect("it is there");
                let carried = random.random_bool(0.5);
                changes.push(Change { op: Op::UpdateOldKey, id, status: old_status, note: Some(None) });
                let new_note = if carried { old_note } else { note };
                let told = (!carried).then(|| new_note.clone());
                changes.push(Change { op: Op::UpdateNewKey, id: new_id, status: status.clone(), note: told });
                model.insert(new_id, (status, new_note));
            }
            (true, 4..=5) => {
                let row = model.get_mut(&id).expect("it is there");
                row.0.clone_from(&status);
                changes.push(Change { op: Op::Update, id, status, note: None });
            }
            (true, _) => {
                changes.push(Change { op: Op::Update, id, status: status.clone(), note: Some(note.clone()) });
                model.insert(id, (status, note));
            }
        }
    }
    changes
}

fn assert_same(reader: &mut Reader, url: &Url, model: &Model) {
    let rows = reader.rows(url.as_str(), None, "SELECT id, status, note FROM t ORDER BY id");
    let wanted: Vec<_> = model.iter().map(|(id, (status, note))| vec![json!(id), json!(status), json!(note)]).collect();
    assert_eq!(rows, wanted);
}

async fn walk(seed: u64, partitioned: bool) {
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("lake");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(partitioned);
    let url = lake.table_url("booking", &schema.name);
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::new();

    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let first = random_batch(&mut random, &mut model);
    let only_inserts: Vec<Change> = model
        .iter()
        .map(|(id, (status, note))| Change {
            op: Op::Insert,
            id: *id,
            status: status.clone(),
            note: Some(note.clone()),
        })
        .collect();
    drop(first);
    load.write(&rows(&schema, &only_inserts).rows).await.expect("written");
    let mut table = load.commit().await.expect("created");
    assert_same(&mut reader, &url, &model);

    for batch in 1..=60_u32 {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(1..3) {
            if random.random_bool(0.05) {
                model.clear();
                changes.push(TableChange::Truncate);
            }
            changes.push(TableChange::Rows(rows(&schema, &random_batch(&mut random, &mut model))));
        }
        table.apply(&changes, &format!("pg:0/{batch:X}")).await.expect("applied");
        assert_eq!(table.live_rows(), model.len() as u64, "seed {seed}, batch {batch}");
        if batch % 20 == 0 {
            assert_same(&mut reader, &url, &model);
            // A restart reads deletion vectors and keys back from the lake.
            let position = table.position().to_owned();
            table.finish().await;
            table = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
            assert_eq!(table.position(), position);
            assert_eq!(table.schema(), &schema);
        }
    }
    assert_same(&mut reader, &url, &model);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_leave_the_table_equal_to_a_model() {
    for seed in 1..=3 {
        walk(seed, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_leave_a_partitioned_table_equal_to_a_model() {
    for seed in 11..=12 {
        walk(seed, true).await;
    }
}

/// G7: of two writers of one table the second notices and writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_fenced_off() {
    let scratch = Scratch::new("fence");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(false);
    let insert = |id| {
        let change = Change { op: Op::Insert, id, status: "held".into(), note: Some(None) };
        [TableChange::Rows(rows(&schema, &[change]))]
    };
    let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let mut first = load.commit().await.expect("created");
    let mut second = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
    first.apply(&insert(1), "pg:0/2").await.expect("applied");
    let fenced = second.apply(&insert(2), "pg:0/3").await;
    assert!(matches!(fenced, Err(lakeward::lake::Error::Fenced { version: 1, .. })), "{fenced:?}");
    let reopened = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
    assert_eq!((reopened.live_rows(), reopened.position()), (1, "pg:0/2"));
}

/// Delta's log cannot tell an empty partition value from NULL, so it is refused instead of changed.
#[tokio::test(flavor = "multi_thread")]
async fn empty_text_in_a_partition_column_is_refused() {
    let scratch = Scratch::new("empty");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(true);
    let row = Change { op: Op::Insert, id: 1, status: String::new(), note: Some(None) };
    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let refused = load.write(&rows(&schema, &[row]).rows).await;
    assert!(matches!(refused, Err(lakeward::lake::Error::Table { .. })), "{refused:?}");
}

/// A batch that comes to nothing takes a version all the same: an earlier put that lands late must not be let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_effect_still_shuts_out_a_late_writer() {
    let scratch = Scratch::new("late");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(false);
    let change = |op, id| Change { op, id, status: "held".into(), note: Some(None) };
    let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let mut late = load.commit().await.expect("created");
    let mut table = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
    let nothing = rows(&schema, &[change(Op::Insert, 1), change(Op::Delete, 1)]);
    table.apply(&[TableChange::Rows(nothing)], "pg:0/3").await.expect("applied");
    let fenced = late.apply(&[TableChange::Rows(rows(&schema, &[change(Op::Insert, 1)]))], "pg:0/2").await;
    assert!(matches!(fenced, Err(lakeward::lake::Error::Fenced { .. })), "{fenced:?}");
}

/// An interrupted first load shows nothing, and a later one is not disturbed by what it left.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_first_load_is_no_table() {
    let scratch = Scratch::new("half");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(false);
    let row = Change { op: Op::Insert, id: 1, status: "held".into(), note: Some(None) };
    let batch = rows(&schema, &[row]).rows;
    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    load.write(&batch).await.expect("written");
    load.abort().await;
    assert!(Table::open(&lake, "booking", &schema.name).await.expect("readable").is_none());
    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/2".into()).expect("no table yet");
    load.write(&batch).await.expect("written");
    assert_eq!(load.commit().await.expect("created").live_rows(), 1);
}
