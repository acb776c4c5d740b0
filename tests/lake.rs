//! The lake layer alone: random batches of changes against a model, read back by DuckDB.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward::config::WriteMode;
use lakeward::lake::{FirstLoad, Lake, Spill, SpillFile, SpilledRows, Table, TableChange};
use lakeward::schema::{
    Column, ColumnBuilder, ElementType, LakeType, Op, Policy, RowBuilder, RowIdentity, TableName, TableRows,
    TableSchema,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use support::delta_log::assert_plain;
use support::oracle::Reader;
use support::parts::in_parts;
use support::{Scratch, terms};
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

/// Memory so small that each batch on disk takes many passes and many chunks.
fn spill(scratch: &Scratch) -> Arc<Spill> {
    Spill::new(scratch.path().join("spill"), 1 << 30, 8 << 10)
}

/// A lake in a folder, whose tables are written in one mode.
fn lake_in(scratch: &Scratch, mode: WriteMode) -> Lake {
    let url = Url::from_directory_path(scratch.path()).expect("absolute");
    Lake::new(&url, &BTreeMap::new()).with_write_terms(terms(mode))
}

async fn walk(seed: u64, partitioned: bool, spilled: bool, mode: WriteMode) {
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("lake");
    let spill = spilled.then(|| spill(&scratch));
    let lake = lake_in(&scratch, mode);
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
            let rows = rows(&schema, &random_batch(&mut random, &mut model));
            changes.extend(in_parts(&mut random, spill.as_ref(), rows));
        }
        table.apply(&changes, &format!("pg:0/{batch:X}")).await.expect("applied");
        assert_eq!(table.live_rows(), model.len() as u64, "seed {seed}, batch {batch}");
        if mode == WriteMode::CopyOnWrite {
            assert_plain(&url.to_file_path().expect("local"), &format!("seed {seed}, batch {batch}"));
        }
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
    assert_eq!(spill.map_or(0, |spill| spill.used()), 0, "nothing is left on disk when the batches are done");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_leave_the_table_equal_to_a_model() {
    for seed in 1..=3 {
        walk(seed, false, false, WriteMode::MergeOnRead).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_leave_a_table_equal_to_a_model_that_is_written_anew() {
    for seed in 31..=33 {
        walk(seed, seed == 33, false, WriteMode::CopyOnWrite).await;
    }
}

/// rows that are written anew are read back into the index where they are many.
#[tokio::test(flavor = "multi_thread")]
async fn random_batches_on_disk_leave_a_table_equal_to_a_model_that_is_written_anew() {
    for seed in 34..=37 {
        walk(seed, seed >= 36, true, WriteMode::CopyOnWrite).await;
    }
}

/// the same workload in bounded memory.
#[tokio::test(flavor = "multi_thread")]
async fn random_batches_on_disk_leave_the_table_equal_to_a_model() {
    for seed in 1..=4 {
        walk(seed, seed == 4, true, WriteMode::MergeOnRead).await;
    }
}

/// memory is bounded, so disk must be too.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_share_is_a_definite_error_that_names_both_keys() {
    let scratch = Scratch::new("full");
    let spill = Spill::new(scratch.path().join("spill"), 1000, 8 << 10);
    let file = Arc::new(SpillFile::create(&spill).expect("a temporary file"));
    let change = Change { op: Op::Insert, id: 1, status: "x".repeat(2000), note: Some(None) };
    let refused = SpilledRows::write(&file, &rows(&schema(false), &[change])).expect_err("too much");
    let text = refused.to_string();
    assert!(text.contains("spill_max") && text.contains("spill_dir"), "{text}");
    assert_eq!(lakeward::lake::Error::from(refused).class(), lakeward::lake::Class::Definite);
    assert_eq!(spill.used(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_batches_leave_a_partitioned_table_equal_to_a_model() {
    for seed in 11..=12 {
        walk(seed, true, false, WriteMode::MergeOnRead).await;
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

/// A listing of a folder is no snapshot of it: an entry that it lacks while the one after it is there makes no gap in the log.
#[tokio::test]
async fn an_entry_that_a_listing_lacks_is_looked_for_again() {
    let scratch = Scratch::new("listing");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = schema(false);
    let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let mut table = load.commit().await.expect("created");
    for id in 1..=2 {
        let insert = Change { op: Op::Insert, id, status: "new".into(), note: Some(None) };
        let changes = [TableChange::Rows(rows(&schema, &[insert]))];
        table.apply(&changes, format!("pg:0/{}", id + 1).as_str()).await.expect("applied");
    }
    let log = lake.table_url("booking", &schema.name).to_file_path().expect("local").join("_delta_log");
    let (entry, away) = (log.join(format!("{:020}.json", 1)), scratch.path().join("away"));
    std::fs::rename(&entry, &away).expect("it is there");
    let back = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(80));
        std::fs::rename(&away, &entry).expect("it comes back");
    });
    let summary = Table::summary(&lake, "booking", &schema.name).await.expect("readable").expect("there");
    back.join().expect("done");
    assert_eq!((summary.version, summary.rows), (2, 2));
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

/// A row of a table without a key: number, double, text, list of decimals, shape.
#[derive(Clone, Debug, PartialEq)]
struct Loose {
    a: Option<i64>,
    d: Option<f64>,
    s: Option<String>,
    tags: Option<Vec<Option<i128>>>,
    place: Option<(i32, Vec<u8>)>,
}

fn loose_schema(identity: RowIdentity) -> Arc<TableSchema> {
    let column = |name: &str, lake_type| Column {
        name: name.into(),
        source_type: "test".into(),
        lake_type,
        nullable: true,
        policy: Policy::default(),
    };
    Arc::new(TableSchema {
        name: TableName::new("booking", "visits"),
        columns: vec![
            column("a", LakeType::Long),
            column("d", LakeType::Double),
            column("s", LakeType::String),
            column("tags", LakeType::Array(ElementType::Decimal { precision: 30, scale: 2 })),
            column("place", LakeType::Geometry),
        ],
        key: vec![],
        partition_by: vec![],
        identity,
    })
}

fn loose_rows(schema: &Arc<TableSchema>, changes: &[(Op, Loose)]) -> TableRows {
    let mut builder = RowBuilder::new(schema.clone());
    for (_, row) in changes {
        let [a, d, s, tags, place] = &mut builder.columns[..] else { panic!("five columns") };
        let ColumnBuilder::Long(a) = a else { panic!("long") };
        a.append_option(row.a);
        let ColumnBuilder::Double(d) = d else { panic!("double") };
        d.append_option(row.d);
        let ColumnBuilder::String(s) = s else { panic!("string") };
        s.append_option(row.s.as_deref());
        match &row.tags {
            None => tags.append_null(),
            Some(values) => {
                let ColumnBuilder::Array(list) = tags else { panic!("list") };
                let ColumnBuilder::Decimal(elements) = &mut list.elements else { panic!("decimals") };
                values.iter().for_each(|value| elements.append_option(*value));
                assert!(list.end(true));
            }
        }
        match &row.place {
            None => place.append_null(),
            Some((srid, wkb)) => {
                let ColumnBuilder::Geometry(shapes) = place else { panic!("shapes") };
                shapes.append_value(*srid, wkb);
            }
        }
        builder.end_row().expect("five columns");
    }
    TableRows {
        schema: schema.clone(),
        rows: builder.finish().expect("valid"),
        ops: changes.iter().map(|(op, _)| *op).collect(),
        unchanged: Vec::new(),
        unfaithful: Vec::new(),
    }
}

/// Few different rows, so that many are equal; all-NULL, NaN and negative zero among them.
fn loose_row(random: &mut StdRng) -> Loose {
    if random.random_bool(0.1) {
        return Loose { a: None, d: None, s: None, tags: None, place: None };
    }
    let d = [1.5, 0.0, -0.0, f64::NAN][random.random_range(0..4)];
    let tags = match random.random_range(0..4) {
        0 => None,
        1 => Some(vec![]),
        2 => Some(vec![None, Some(12_345_678_901_234_567_890_123_456_789)]),
        _ => Some(vec![Some(-1), Some(250)]),
    };
    Loose {
        a: random.random_bool(0.8).then(|| random.random_range(0..3)),
        d: random.random_bool(0.8).then_some(d),
        s: random.random_bool(0.5).then(|| "예약".to_owned()),
        tags,
        place: random.random_bool(0.3).then(|| (4326, vec![1, 1, 0, 0, 0, random.random_range(0..2)])),
    }
}

/// As DuckDB prints it.
fn printed(row: &Loose) -> String {
    let number = |value: f64| if value.is_nan() { json!("nan") } else { json!(value) };
    let decimal = |value: &Option<i128>| {
        value.map(|value| {
            let sign = if value < 0 { "-" } else { "" };
            format!("{sign}{}.{:02}", value.abs() / 100, value.abs() % 100)
        })
    };
    let tags = row.tags.as_ref().map(|tags| tags.iter().map(decimal).collect::<Vec<_>>());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (srid, wkb) =
        (row.place.as_ref().map(|(srid, _)| srid), row.place.as_ref().map(|(_, wkb)| format!("\\x{}", hex(wkb))));
    json!([row.a, row.d.map(number), row.s, tags, srid, wkb]).to_string()
}

fn assert_same_bag(reader: &mut Reader, url: &Url, model: &[Loose]) {
    let rows = reader.rows(url.as_str(), None, "SELECT a, d, s, tags, place.srid, place.wkb FROM t");
    let mut found: Vec<String> = rows.into_iter().map(|row| json!(row).to_string()).collect();
    let mut wanted: Vec<String> = model.iter().map(printed).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let shapes = model.iter().filter(|row| row.place.is_some()).count();
    let lists = model.iter().filter(|row| row.tags.as_ref().is_some_and(|tags| tags.contains(&Some(250)))).count();
    // With conditions that a reader may push down to the files' statistics.
    let counts = "SELECT count(*) FILTER (place.srid = 4326), count(*) FILTER (list_contains(tags, 2.5)) FROM t";
    assert_eq!(reader.rows(url.as_str(), None, counts), [[json!(shapes), json!(lists)]]);
    let shaped = reader.rows(url.as_str(), None, "SELECT count(*) FROM t WHERE place.srid = 4326");
    assert_eq!(shaped, [[json!(shapes)]]);
}

/// K-1: duplicates, NULLs, NaN, lists and shapes; a row taken away takes one of its equals.
async fn walk_without_a_key(seed: u64, spilled: bool, mode: WriteMode) {
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("bag");
    let spill = spilled.then(|| spill(&scratch));
    let lake = lake_in(&scratch, mode);
    let schema = loose_schema(RowIdentity::WholeRow);
    let url = lake.table_url("booking", &schema.name);
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: Vec<Loose> = (0..100).map(|_| loose_row(&mut random)).collect();
    let first: Vec<_> = model.iter().map(|row| (Op::Insert, row.clone())).collect();
    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    load.write(&loose_rows(&schema, &first).rows).await.expect("written");
    let mut table = load.commit().await.expect("created");
    assert_same_bag(&mut reader, &url, &model);
    for batch in 1..=40_u32 {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(1..3) {
            if random.random_bool(0.05) {
                model.clear();
                changes.push(TableChange::Truncate);
            }
            let mut log = Vec::new();
            for _ in 0..random.random_range(1..100) {
                let at = (!model.is_empty()).then(|| random.random_range(0..model.len()));
                match (random.random_range(0..3), at) {
                    (1, Some(at)) => log.push((Op::Delete, model.swap_remove(at))),
                    (2, Some(at)) => {
                        let new = loose_row(&mut random);
                        log.push((Op::UpdateOldKey, std::mem::replace(&mut model[at], new.clone())));
                        log.push((Op::UpdateNewKey, new));
                    }
                    _ => {
                        let new = loose_row(&mut random);
                        model.push(new.clone());
                        log.push((Op::Insert, new));
                    }
                }
            }
            changes.extend(in_parts(&mut random, spill.as_ref(), loose_rows(&schema, &log)));
        }
        table.apply(&changes, &format!("pg:0/{batch:X}")).await.expect("applied");
        assert_eq!(table.live_rows(), model.len() as u64, "seed {seed}, batch {batch}");
        if mode == WriteMode::CopyOnWrite {
            assert_plain(&url.to_file_path().expect("local"), &format!("seed {seed}, batch {batch}"));
        }
        if batch % 10 == 0 {
            assert_same_bag(&mut reader, &url, &model);
            table.finish().await;
            table = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
            assert_eq!(table.schema(), &schema);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_a_multiset_of_whole_rows() {
    for seed in 1..=3 {
        walk_without_a_key(seed, false, WriteMode::MergeOnRead).await;
    }
}

/// Which of equal rows is which stays known, in whatever file they lie.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_a_multiset_that_is_written_anew() {
    for seed in 31..=35 {
        walk_without_a_key(seed, seed >= 33, WriteMode::CopyOnWrite).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_a_multiset_on_disk_too() {
    for seed in 4..=5 {
        walk_without_a_key(seed, true, WriteMode::MergeOnRead).await;
    }
}

/// K-1: source and lake differ, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_not_there_cannot_be_deleted_from_a_multiset() {
    let scratch = Scratch::new("nosuch");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = loose_schema(RowIdentity::WholeRow);
    let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let mut table = load.commit().await.expect("created");
    let row = loose_row(&mut StdRng::seed_from_u64(1));
    let changes = [(Op::Insert, row.clone()), (Op::Delete, row.clone()), (Op::Delete, row)];
    let refused = table.apply(&[TableChange::Rows(loose_rows(&schema, &changes))], "pg:0/2").await;
    assert!(matches!(refused, Err(lakeward::lake::Error::Table { .. })), "{refused:?}");
    assert_eq!(table.version(), 0);
}

/// K-1: no index, no updates.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_table_takes_inserts_and_truncates_and_nothing_else() {
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("append");
    let spill = spill(&scratch);
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = loose_schema(RowIdentity::AppendOnly);
    let url = lake.table_url("booking", &schema.name);
    let mut random = StdRng::seed_from_u64(1);
    let load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    let mut table = load.commit().await.expect("created");
    let mut model = Vec::new();
    for batch in 0..6 {
        let new: Vec<_> = (0..50).map(|_| (Op::Insert, loose_row(&mut random))).collect();
        let mut changes = in_parts(&mut random, (batch % 2 == 0).then_some(&spill), loose_rows(&schema, &new));
        if batch == 3 {
            model.clear();
            changes.insert(0, TableChange::Truncate);
        }
        model.extend(new.into_iter().map(|(_, row)| row));
        table.apply(&changes, "pg:0/2").await.expect("applied");
        table = Table::open(&lake, "booking", &schema.name).await.expect("readable").expect("there");
        assert_eq!(table.live_rows(), model.len() as u64);
    }
    assert_same_bag(&mut reader, &url, &model);
    for op in [Op::Update, Op::Delete] {
        let change = [(op, model[0].clone())];
        let refused = table.apply(&[TableChange::Rows(loose_rows(&schema, &change))], "pg:0/3").await;
        let text = refused.expect_err("not an insert").to_string();
        assert!(text.contains("without_key"), "{text}");
    }
}

/// Bounds of decimals go through an f64 in the writer; a reader must never skip a file by them.
#[tokio::test(flavor = "multi_thread")]
async fn decimals_inside_lists_have_no_bounds_in_the_log() {
    let scratch = Scratch::new("bounds");
    let lake = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
    let schema = loose_schema(RowIdentity::WholeRow);
    let mut random = StdRng::seed_from_u64(1);
    let rows: Vec<_> = (0..50).map(|_| (Op::Insert, loose_row(&mut random))).collect();
    let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
    load.write(&loose_rows(&schema, &rows).rows).await.expect("written");
    load.commit().await.expect("created");
    let folder = lake.table_url("booking", &schema.name).to_file_path().expect("local");
    let log = std::fs::read_to_string(folder.join("_delta_log/00000000000000000000.json")).expect("version 0");
    let add = log.lines().find(|line| line.starts_with("{\"add\"")).expect("a file");
    let add: serde_json::Value = serde_json::from_str(add).expect("JSON");
    let stats: serde_json::Value = serde_json::from_str(add["add"]["stats"].as_str().expect("stats")).expect("JSON");
    assert_eq!(stats["minValues"]["a"], json!(0), "{stats}");
    for bounds in ["minValues", "maxValues"] {
        assert!(stats[bounds].get("tags").is_none(), "{stats}");
    }
}
