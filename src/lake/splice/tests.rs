//! Every operation alone, then many at random: a spliced file reads, cell by cell, as the rewritten one.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use deltalake::kernel::{Add, DeletionVectorDescriptor, StorageType};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use url::Url;

use super::{How, SplicedFile, Splicer, rewrite, splice_file};
use crate::lake::Error;
use crate::lake::data_file::{Roll, TableWriter, read_columns};
use crate::lake::upgrade::upgrade;
use crate::schema::{
    Column, ElementType, LakeOp, LakeType, OneValue, Policy, RowIdentity, TableName, TableSchema, widens,
};

const DECIMAL: LakeType = LakeType::Decimal { precision: 9, scale: 2 };

fn column(name: &str, lake_type: LakeType) -> Column {
    Column { name: name.into(), source_type: "test".into(), lake_type, nullable: true, policy: Policy::default() }
}

/// `id` first, which is the key.
fn schema(columns: &[(&str, LakeType)]) -> TableSchema {
    let mut columns: Vec<Column> = columns.iter().map(|(name, lake_type)| column(name, *lake_type)).collect();
    columns[0].nullable = false;
    TableSchema {
        name: TableName::new("shop", "goods"),
        columns,
        key: vec![0],
        partition_by: vec![],
        identity: RowIdentity::Key,
    }
}

/// All lake types, the nested ones in the middle.
fn wide() -> TableSchema {
    use LakeType::*;
    schema(&[
        ("id", Integer),
        ("flag", Boolean),
        ("tiny", Byte),
        ("small", Short),
        ("tags", Array(ElementType::String)),
        ("big", Long),
        ("float", Float),
        ("double", Double),
        ("place", Geometry),
        ("price", DECIMAL),
        ("sum", Decimal { precision: 18, scale: 4 }),
        ("huge", Decimal { precision: 30, scale: 10 }),
        ("name", String),
        ("blob", Binary),
        ("day", Date),
        ("at", Timestamp),
        ("local", TimestampNtz),
        ("numbers", Array(ElementType::Decimal { precision: 12, scale: 2 })),
    ])
}

fn values(lake_type: LakeType, count: usize, nulls: bool, random: &mut StdRng) -> ArrayRef {
    let numbers = |random: &mut StdRng| -> Int64Array {
        (0..count)
            .map(|_| if nulls && random.random_bool(0.2) { None } else { Some(random.random_range(-100..100)) })
            .collect()
    };
    let validity = numbers(random).nulls().cloned();
    match lake_type {
        LakeType::String => {
            let texts = numbers(random);
            let text = |n: i64| format!("값 {n}{}", "x".repeat(n.unsigned_abs() as usize));
            Arc::new(texts.iter().map(|n| n.map(text)).collect::<StringArray>())
        }
        LakeType::Binary => {
            let bytes: Vec<Option<Vec<u8>>> =
                numbers(random).iter().map(|n| n.map(|n| vec![n as u8; n.unsigned_abs() as usize % 7])).collect();
            Arc::new(BinaryArray::from_iter(bytes))
        }
        LakeType::Date => {
            cast(&cast(&numbers(random), &DataType::Int32).expect("small"), &DataType::Date32).expect("days")
        }
        LakeType::Array(element) => {
            let lengths: Vec<usize> = (0..count).map(|_| random.random_range(0..4)).collect();
            let inner = values(element.lake_type(), lengths.iter().sum(), true, random);
            let DataType::List(field) = lake_type.arrow() else { panic!("a list") };
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), inner, validity))
        }
        LakeType::Geometry => {
            let srid = values(LakeType::Integer, count, true, random);
            let wkb = values(LakeType::Binary, count, true, random);
            let DataType::Struct(fields) = lake_type.arrow() else { panic!("a struct") };
            Arc::new(StructArray::new(fields, vec![srid, wkb], validity))
        }
        other => cast(&numbers(random), &other.arrow()).expect("small numbers fit every type"),
    }
}

fn one(lake_type: LakeType, random: &mut StdRng) -> OneValue {
    OneValue(values(lake_type, 1, false, random))
}

/// The schema that operations lead to.
fn after(before: &TableSchema, ops: &[LakeOp]) -> TableSchema {
    let mut after = before.clone();
    let key: Vec<String> = before.key.iter().map(|&index| before.columns[index].name.clone()).collect();
    let partitions: Vec<String> = before.partition_by.iter().map(|&index| before.columns[index].name.clone()).collect();
    let (mut key, mut partitions) = (key, partitions);
    for op in ops {
        match op {
            LakeOp::Add { column, .. } => after.columns.push(column.clone()),
            LakeOp::Drop { name } => {
                after.columns.retain(|column| column.name != *name);
                key.retain(|own| own != name);
                partitions.retain(|own| own != name);
            }
            LakeOp::Rename { from, to } => {
                let renamed = after.columns.iter_mut().find(|column| column.name == *from);
                renamed.expect("it is there").name.clone_from(to);
                for name in key.iter_mut().chain(&mut partitions).filter(|name| *name == from) {
                    name.clone_from(to);
                }
            }
            LakeOp::Widen { name, to } => {
                after.columns.iter_mut().find(|column| column.name == *name).expect("it is there").lake_type = *to;
            }
        }
    }
    let index = |names: &[String]| names.iter().filter_map(|name| after.column_index(name)).collect::<Vec<usize>>();
    (after.key, after.partition_by) = (index(&key), index(&partitions));
    after
}

/// A table's folder, local or in memory.
struct Place {
    splicer: Splicer,
    folder: Option<tempfile::TempDir>,
}

impl Place {
    fn local() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = Url::from_directory_path(folder.path()).expect("absolute");
        let lake = super::Lake::new(&url, &std::collections::BTreeMap::new());
        Self { splicer: Splicer::new(&lake, &url).expect("a folder"), folder: Some(folder) }
    }

    fn memory() -> Self {
        let splicer = Splicer {
            url: Url::parse("memory:///").expect("a constant"),
            store: Arc::new(InMemory::new()),
            folder: None,
            options: HashMap::new(),
            copier: OnceCell::new(),
            no_copies: AtomicBool::new(true),
            rewrites_all: false,
        };
        Self { splicer, folder: None }
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.splicer.store
    }

    /// One file of several row groups.
    async fn write(&self, schema: &TableSchema, rows: &RecordBatch) -> Add {
        let roll = Roll::At { file_bytes: NonZeroU64::MAX, row_group_bytes: 16 << 10 };
        let mut writer = TableWriter::new(Arc::new(schema.clone()), self.store().clone(), roll).expect("a writer");
        for start in (0..rows.num_rows()).step_by(200) {
            let part = rows.slice(start, 200.min(rows.num_rows() - start));
            writer.write(&part, &[]).await.expect("written");
        }
        writer.close().await.expect("closed").remove(0).add
    }

    async fn read(&self, schema: &TableSchema, add: &Add) -> RecordBatch {
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        read_columns(self.store(), schema, add, &columns, None).await.expect("read")
    }

    async fn bytes(&self, add: &Add) -> bytes::Bytes {
        let path = Path::parse(&add.path).expect("a path");
        self.store().get(&path).await.expect("it is there").bytes().await.expect("read")
    }

    async fn objects(&self) -> usize {
        self.store().list(None).try_collect::<Vec<_>>().await.expect("listed").len()
    }

    async fn splice(&self, add: &Add, before: &TableSchema, ops: &[LakeOp]) -> SplicedFile {
        splice_file(&self.splicer, add, before, &after(before, ops), ops).await.expect("spliced")
    }

    /// Splices, and holds the result against the rows and against a rewritten file.
    async fn check(&self, add: &Add, before: &TableSchema, ops: &[LakeOp], how: How) -> (Add, TableSchema) {
        let wanted = after(before, ops);
        let old = self.read(before, add).await;
        let done = self.splice(add, before, ops).await;
        assert_eq!(done.how, how, "{ops:?}");
        assert_eq!(done.rows, old.num_rows() as u64);
        let expected = upgrade(&old, &wanted, ops).expect("in memory");
        assert_same(&self.read(&wanted, &done.add).await, &expected, ops);
        if how == How::Unchanged {
            assert_eq!(done.add, *add);
            return (done.add, wanted);
        }
        assert_ne!(done.add.path, add.path);
        assert_eq!(self.bytes(&done.add).await.len() as i64, done.add.size);
        self.check_file(&done.add, &wanted).await;
        let (rewritten, rows) = rewrite::rewrite(self.store(), add, before, &wanted, ops).await.expect("rewritten");
        assert_eq!(rows, done.rows);
        assert_same(&self.read(&wanted, &rewritten).await, &expected, ops);
        assert_statistics(&done.add, &rewritten, ops);
        // The old file is as it was.
        assert_same(&self.read(before, add).await, &old, ops);
        (done.add, wanted)
    }

    /// What readers rely on.
    async fn check_file(&self, add: &Add, schema: &TableSchema) {
        let bytes = self.bytes(add).await;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options).expect("a footer");
        let metadata = reader.metadata().clone();
        let offsets = metadata.offset_index().expect("page indexes");
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let starts: Vec<u64> = group.columns().iter().map(|chunk| chunk.byte_range().0).collect();
            assert_eq!(starts.first(), starts.iter().min(), "row group {number} begins with its first column");
            assert_eq!(group.file_offset(), Some(starts[0] as i64));
            assert!(starts[0] + group.compressed_size() as u64 / 2 < bytes.len() as u64, "its middle is in the file");
            for (leaf, chunk) in group.columns().iter().enumerate() {
                let (start, length) = chunk.byte_range();
                taken.push((start, start + length));
                let pages = offsets[number][leaf].page_locations();
                assert_eq!(pages.first().map(|page| page.first_row_index), Some(0));
                for page in pages {
                    let (from, to) = (page.offset as u64, page.offset as u64 + page.compressed_page_size as u64);
                    assert!(start <= from && to <= start + length, "pages lie in their chunk");
                }
            }
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two chunks share bytes");
        // Fields as the table has them, whatever their order.
        for field in reader.schema().fields() {
            let index = schema.column_index(field.name()).expect("a column of the table");
            assert_eq!(*field.data_type(), schema.columns[index].lake_type.arrow());
        }
        let read: Vec<RecordBatch> =
            reader.build().expect("a reader").collect::<Result<_, _>>().expect("every page decodes");
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>() as i64, metadata.file_metadata().num_rows());
    }
}

fn assert_same(found: &RecordBatch, wanted: &RecordBatch, ops: &[LakeOp]) {
    assert_eq!(found.num_rows(), wanted.num_rows(), "{ops:?}");
    for (field, values) in wanted.schema().fields().iter().zip(wanted.columns()) {
        let read = found.column_by_name(field.name()).expect("same columns");
        assert_eq!(read.as_ref(), values.as_ref(), "column {} after {ops:?}", field.name());
    }
}

/// Bounds and counts are those of a rewritten file; a missing column's count of NULLs may be left out.
fn assert_statistics(spliced: &Add, rewritten: &Add, ops: &[LakeOp]) {
    let parse = |add: &Add| -> Value { serde_json::from_str(add.stats.as_deref().expect("statistics")).expect("JSON") };
    let (spliced, rewritten) = (parse(spliced), parse(rewritten));
    assert_eq!(spliced["numRecords"], rewritten["numRecords"]);
    for part in ["minValues", "maxValues", "nullCount"] {
        let of = |stats: &Value| stats[part].as_object().cloned().unwrap_or_default();
        let (ours, theirs) = (of(&spliced), of(&rewritten));
        for (name, value) in &ours {
            let same = match (value.as_f64(), theirs.get(name).and_then(Value::as_f64)) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => theirs.get(name) == Some(value),
            };
            // A column of the rewritten file may stand beyond the first 32.
            assert!(
                same || !theirs.contains_key(name),
                "{part} of {name} after {ops:?}: {value} {:?}",
                theirs.get(name)
            );
        }
        for (name, value) in theirs {
            let all_null = match &value {
                Value::Object(parts) => parts.values().all(|count| *count == rewritten["numRecords"]),
                count => part == "nullCount" && *count == rewritten["numRecords"],
            };
            assert!(all_null || ours.contains_key(&name), "{part} of {name} after {ops:?}");
        }
    }
}

fn rows(schema: &TableSchema, count: usize, random: &mut StdRng) -> RecordBatch {
    let arrays = schema
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            if index == 0 {
                let ids = Int64Array::from_iter_values(0..count as i64);
                return cast(&ids, &column.lake_type.arrow()).expect("numbers");
            }
            values(column.lake_type, count, true, random)
        })
        .collect();
    RecordBatch::try_new(schema.arrow(), arrays).expect("as declared")
}

fn add(name: &str, lake_type: LakeType, random: &mut StdRng) -> LakeOp {
    LakeOp::Add { column: column(name, lake_type), fill: Some(one(lake_type, random)) }
}

fn add_null(name: &str, lake_type: LakeType) -> LakeOp {
    LakeOp::Add { column: column(name, lake_type), fill: None }
}

fn drop_(name: &str) -> LakeOp {
    LakeOp::Drop { name: name.into() }
}

fn rename(from: &str, to: &str) -> LakeOp {
    LakeOp::Rename { from: from.into(), to: to.into() }
}

fn widen(name: &str, to: LakeType) -> LakeOp {
    LakeOp::Widen { name: name.into(), to }
}

#[tokio::test]
async fn every_operation_reads_as_the_rewritten_file_does() {
    use LakeType::*;
    let random = &mut StdRng::seed_from_u64(1);
    let before = wide();
    let cases: Vec<(Vec<LakeOp>, How)> = vec![
        (vec![add("n", Integer, random)], How::Spliced),
        (vec![add("n", String, random)], How::Spliced),
        (vec![add("n", Array(ElementType::Integer), random), add("g", Geometry, random)], How::Spliced),
        (vec![add_null("n", Integer)], How::Unchanged),
        (vec![add_null("n", Integer), rename("n", "m"), widen("m", Long), add_null("n", String)], How::Unchanged),
        (vec![add_null("n", Integer), drop_("n")], How::Unchanged),
        (vec![drop_("price")], How::Spliced),
        (vec![drop_("place"), drop_("tags")], How::Spliced),
        (vec![rename("name", "title")], How::Spliced),
        (vec![rename("place", "where"), rename("tags", "labels")], How::Spliced),
        // Names that are exchanged.
        (vec![rename("name", "aside"), rename("blob", "name"), rename("aside", "blob")], How::Spliced),
        (vec![widen("small", Integer)], How::Spliced),
        (vec![widen("price", Decimal { precision: 14, scale: 4 }), widen("float", Double)], How::Spliced),
        (vec![widen("sum", Decimal { precision: 30, scale: 6 }), widen("tiny", DECIMAL)], How::Spliced),
        // The first column's bytes go, or lie behind: Spark's trap.
        (vec![drop_("id")], How::Spliced),
        (vec![widen("id", Long)], How::Spliced),
        (vec![widen("tiny", Integer), drop_("id"), drop_("flag")], How::Spliced),
        (vec![widen("id", Long), drop_("flag"), drop_("tiny"), drop_("small")], How::Spliced),
        // A dropped name that comes back.
        (vec![drop_("name"), add("name", Long, random)], How::Spliced),
        (vec![drop_("name"), add_null("name", Long)], How::Spliced),
        (
            vec![
                widen("tiny", Short),
                add("n", Short, random),
                widen("n", Integer),
                rename("n", "m"),
                widen("tiny", Long),
                drop_("day"),
                rename("tiny", "day"),
                add_null("later", Date),
            ],
            How::Spliced,
        ),
    ];
    let place = Place::local();
    let file = place.write(&before, &rows(&before, 3000, random)).await;
    let groups = ParquetRecordBatchReaderBuilder::try_new(place.bytes(&file).await).expect("a file");
    assert!(groups.metadata().num_row_groups() > 3, "several row groups");
    for (ops, how) in cases {
        place.check(&file, &before, &ops, how).await;
    }
}

/// Only what is new goes over the wire.
#[tokio::test]
async fn a_splice_reads_only_what_it_encodes_anew() {
    let random = &mut StdRng::seed_from_u64(2);
    let before = wide();
    let place = Place::local();
    let file = place.write(&before, &rows(&before, 20_000, random)).await;
    let size = file.size as u64;
    let renamed = place.splice(&file, &before, &[rename("name", "title")]).await;
    let footer = renamed.bytes_sent;
    assert!(renamed.bytes_received < 2 * footer.max(64 << 10) && footer < size / 4, "{renamed:?} of {size}");
    let widened = place.splice(&file, &before, &[widen("small", LakeType::Long)]).await;
    assert!(widened.bytes_received < size / 3 && widened.bytes_sent < size / 3, "{widened:?} of {size}");
    assert!(widened.bytes_received > renamed.bytes_received);
}

#[tokio::test]
async fn random_operations_in_a_row_read_as_rewritten_files_do() {
    for seed in 0..24 {
        let random = &mut StdRng::seed_from_u64(seed);
        let place = if seed % 2 == 0 { Place::local() } else { Place::memory() };
        let mut schema = wide();
        let mut file = place.write(&schema, &rows(&schema, 700, random)).await;
        let mut names = 0;
        for _ in 0..4 {
            let mut ops = Vec::new();
            let mut reached = schema.clone();
            for _ in 0..random.random_range(1..6) {
                let Some(op) = random_op(&reached, &mut names, random) else { continue };
                reached = after(&reached, std::slice::from_ref(&op));
                ops.push(op);
            }
            let trivial = place.splice(&file, &schema, &ops).await.how;
            assert_ne!(trivial, How::Rewritten, "{ops:?}");
            (file, schema) = place.check(&file, &schema, &ops, trivial).await;
        }
    }
}

fn random_op(schema: &TableSchema, names: &mut u32, random: &mut StdRng) -> Option<LakeOp> {
    let types: Vec<LakeType> = wide().columns.iter().map(|column| column.lake_type).collect();
    let some = random.random_range(0..schema.columns.len());
    let name = schema.columns[some].name.clone();
    *names += 1;
    let lake_type = types[random.random_range(0..types.len())];
    Some(match random.random_range(0..10) {
        0..=2 => add(&format!("new {names}"), lake_type, random),
        3 => add_null(&format!("new {names}"), lake_type),
        4..=5 if schema.columns.len() > 3 => drop_(&name),
        6 => rename(&name, &format!("renamed {names}")),
        _ => {
            let from = schema.columns[some].lake_type;
            let wider = types.into_iter().chain([DECIMAL, LakeType::Decimal { precision: 38, scale: 12 }]);
            let wider: Vec<LakeType> = wider.filter(|to| widens(from, *to)).collect();
            widen(&name, *wider.get(random.random_range(0..wider.len().max(1)))?)
        }
    })
}

#[tokio::test]
async fn deletion_vectors_and_loose_bounds_are_kept() {
    let random = &mut StdRng::seed_from_u64(3);
    let before = wide();
    let place = Place::local();
    let mut file = place.write(&before, &rows(&before, 500, random)).await;
    file.deletion_vector = Some(DeletionVectorDescriptor {
        storage_type: StorageType::Inline,
        path_or_inline_dv: "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L".into(),
        offset: None,
        size_in_bytes: 40,
        cardinality: 6,
    });
    crate::lake::data_file::loosen_bounds(&mut file);
    let ops = [widen("id", LakeType::Long), add("n", LakeType::Integer, random)];
    let wanted = after(&before, &ops);
    let spliced = place.splice(&file, &before, &ops).await;
    let (rewritten, _) = rewrite::rewrite(place.store(), &file, &before, &wanted, &ops).await.expect("rewritten");
    for new in [spliced.add, rewritten] {
        assert_eq!(new.deletion_vector, file.deletion_vector);
        assert!(new.data_change);
        assert!(new.stats.as_deref().is_some_and(|stats| stats.contains(r#""tightBounds":false"#)), "{:?}", new.stats);
    }
}

#[tokio::test]
async fn statistics_follow_the_operations() {
    let before = schema(&[("id", LakeType::Integer), ("qty", LakeType::Short), ("gone", LakeType::Integer)]);
    let numbers = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let batch = RecordBatch::try_new(
        before.arrow(),
        vec![
            cast(&numbers(vec![Some(1), Some(2), Some(3)]), &DataType::Int32).expect("ints"),
            cast(&numbers(vec![Some(-5), None, Some(9)]), &DataType::Int16).expect("shorts"),
            cast(&numbers(vec![None, None, None]), &DataType::Int32).expect("ints"),
        ],
    );
    let place = Place::local();
    let file = place.write(&before, &batch.expect("three columns")).await;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["new"]));
    let ops = [
        widen("qty", LakeType::Decimal { precision: 12, scale: 2 }),
        rename("qty", "amount"),
        drop_("gone"),
        LakeOp::Add { column: column("note", LakeType::String), fill: Some(OneValue(text)) },
        LakeOp::Add {
            column: column("parts", LakeType::Geometry),
            fill: Some(OneValue(values(LakeType::Geometry, 1, false, &mut StdRng::seed_from_u64(0)))),
        },
    ];
    let (new, _) = place.check(&file, &before, &ops, How::Spliced).await;
    let stats: Value = serde_json::from_str(new.stats.as_deref().expect("statistics")).expect("JSON");
    assert_eq!(stats["numRecords"], json!(3));
    assert_eq!(stats["minValues"]["amount"], json!(-5.0));
    assert_eq!(stats["maxValues"]["amount"], json!(9.0));
    assert_eq!(stats["maxValues"]["note"], json!("new"));
    assert_eq!(stats["nullCount"]["amount"], json!(1));
    assert_eq!(stats["nullCount"]["note"], json!(0));
    assert!(stats["nullCount"]["parts"]["srid"].as_u64().is_some_and(|nulls| nulls == 0 || nulls == 3), "{stats}");
    assert_eq!(stats["nullCount"].get("gone").or(stats["nullCount"].get("qty")), None);
}

#[tokio::test]
async fn partition_columns_change_only_the_partition_values() {
    let random = &mut StdRng::seed_from_u64(4);
    let mut before = schema(&[
        ("id", LakeType::Long),
        ("ratio", LakeType::Float),
        ("status", LakeType::String),
        ("n", LakeType::Integer),
    ]);
    before.partition_by = vec![2, 1];
    let count = 300;
    let mut batch = rows(&before, count, random);
    let one_value = |value: ArrayRef| super::column::repeated(&value, count).expect("repeated");
    let mut arrays = batch.columns().to_vec();
    arrays[1] = one_value(cast(&StringArray::from(vec!["0.1"]), &DataType::Float32).expect("a float"));
    arrays[2] = one_value(Arc::new(StringArray::from(vec!["a b/서울 50%"])));
    batch = RecordBatch::try_new(before.arrow(), arrays).expect("as declared");
    let place = Place::local();
    let file = place.write(&before, &batch).await;
    let folder = |add: &Add| add.path.rsplit_once('/').map(|(folder, _)| folder.to_owned());

    let ops = [rename("status", "state"), widen("ratio", LakeType::Double)];
    let (new, _) = place.check(&file, &before, &ops, How::Spliced).await;
    assert_eq!(folder(&new), folder(&file));
    assert_eq!(new.partition_values.get("state"), Some(&Some("a b/서울 50%".to_owned())));
    assert_eq!(new.partition_values.get("ratio"), Some(&Some("0.10000000149011612".to_owned())));
    assert_eq!(new.partition_values.len(), 2);
}

#[tokio::test]
async fn files_of_others_and_of_other_types_are_rewritten() {
    let random = &mut StdRng::seed_from_u64(5);
    let before = schema(&[("id", LakeType::Integer), ("n", LakeType::Integer)]);
    let place = Place::local();
    let batch = rows(&before, 100, random);
    let mut foreign = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut foreign, before.arrow(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let mut file = place.write(&before, &batch).await;
    file.path = "foreign.parquet".into();
    file.size = foreign.len() as i64;
    place.store().put(&Path::from("foreign.parquet"), foreign.into()).await.expect("put");
    place.check(&file, &before, &[rename("n", "m")], How::Rewritten).await;
    place.check(&file, &before, &[add_null("m", LakeType::Long)], How::Unchanged).await;

    // Ours, but the file has another type than the table.
    let ours = place.write(&before, &batch).await;
    let mut other = before.clone();
    other.columns[1].lake_type = LakeType::Long;
    place.check(&ours, &other, &[rename("n", "m")], How::Rewritten).await;
    // No column of the file is left.
    place.check(&ours, &before, &[add_null("m", LakeType::Long), drop_("n"), drop_("id")], How::Rewritten).await;
}

#[tokio::test]
async fn a_file_without_rows_takes_every_operation() {
    let before = schema(&[("id", LakeType::Integer), ("n", LakeType::Integer)]);
    let place = Place::local();
    let mut file = place.write(&before, &rows(&before, 10, &mut StdRng::seed_from_u64(6))).await;
    for mark in [true, false] {
        let mut bytes = Vec::new();
        let properties = mark.then(crate::lake::data_file::column_properties);
        let writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, before.arrow(), properties).expect("a writer");
        writer.close().expect("closed");
        (file.path, file.size) = (format!("empty-{mark}.parquet"), bytes.len() as i64);
        file.stats = Some(r#"{"numRecords":0}"#.into());
        place.store().put(&Path::from(file.path.as_str()), bytes.into()).await.expect("put");
        let ops = [widen("id", LakeType::Long), add("m", LakeType::String, &mut StdRng::seed_from_u64(7)), drop_("n")];
        let done = place.splice(&file, &before, &ops).await;
        assert_eq!((done.how, done.rows), (if mark { How::Spliced } else { How::Rewritten }, 0));
        assert_eq!(place.read(&after(&before, &ops), &done.add).await.num_rows(), 0);
    }
}

#[tokio::test]
async fn a_splice_that_fails_half_way_leaves_nothing_behind() {
    let random = &mut StdRng::seed_from_u64(8);
    let before = wide();
    for place in [Place::local(), Place::memory()] {
        let file = place.write(&before, &rows(&before, 3000, random)).await;
        // The last row group's `small` is damaged: the ones before it are encoded and written by then.
        let mut bytes = place.bytes(&file).await.to_vec();
        let reader = ParquetRecordBatchReaderBuilder::try_new(place.bytes(&file).await).expect("a file");
        let group = reader.metadata().row_groups().last().expect("row groups");
        let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == "small").expect("small");
        let (start, length) = chunk.byte_range();
        bytes[start as usize..(start + length) as usize].fill(0xff);
        place.store().put(&Path::parse(&file.path).expect("a path"), bytes.into()).await.expect("put");
        let objects = place.objects().await;
        let ops = [add("n", LakeType::Integer, random), widen("small", LakeType::Long)];
        let failed = splice_file(&place.splicer, &file, &before, &after(&before, &ops), &ops).await;
        assert!(matches!(failed, Err(Error::Parquet { .. })), "{failed:?}");
        assert_eq!(place.objects().await, objects, "only the old file");
        if let Some(folder) = &place.folder {
            assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), objects);
        }
    }
}

#[tokio::test]
async fn a_cast_that_would_lose_a_value_is_an_error() {
    let before = schema(&[("id", LakeType::Integer), ("n", LakeType::Long)]);
    let place = Place::local();
    let wide = Int64Array::from(vec![1, i64::MAX]);
    let batch = RecordBatch::try_new(before.arrow(), vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(wide)]);
    let file = place.write(&before, &batch.expect("two columns")).await;
    // No widening: nobody may ask for it, and it is refused all the same.
    let ops = [widen("n", LakeType::Integer)];
    let failed = splice_file(&place.splicer, &file, &before, &after(&before, &ops), &ops).await;
    assert!(matches!(failed, Err(Error::Arrow { .. })), "{failed:?}");
}

/// Lakeward's own reader goes by names and fills in what a file lacks.
#[tokio::test]
async fn columns_are_found_by_name_and_missing_ones_read_null() {
    let random = &mut StdRng::seed_from_u64(9);
    let before = wide();
    let place = Place::local();
    let file = place.write(&before, &rows(&before, 400, random)).await;
    let ops = [widen("id", LakeType::Long), add_null("late", LakeType::Geometry)];
    let (new, schema) = place.check(&file, &before, &ops, How::Spliced).await;
    // `id` lies behind the others now, and `flag` comes first.
    let index = |name: &str| schema.column_index(name).expect("a column");
    let late_only = read_columns(place.store(), &schema, &new, &[index("late")], None).await.expect("read");
    assert_eq!((late_only.num_rows(), late_only.column(0).null_count()), (400, 400));
    let some =
        read_columns(place.store(), &schema, &new, &[index("late"), index("id"), index("small")], Some(&[3, 399]))
            .await
            .expect("read");
    assert_eq!(some.column(1).as_primitive::<Int64Type>().values(), &[3, 399]);
    let old = read_columns(place.store(), &before, &file, &[0], None).await.expect("read");
    assert_eq!(old.column(0).as_primitive::<Int32Type>().value(399), 399);
}

#[test]
fn futures_can_move_between_threads() {
    fn movable<T: Send>(_: impl Fn() -> T) {}
    let (schema, place) = (wide(), Place::memory());
    let file = Add::default();
    movable(|| splice_file(&place.splicer, &file, &schema, &schema, &[]));
}
