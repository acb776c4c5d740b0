//! The kinds of splices and the files they are made of.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use deltalake::kernel::Add;
use lakeward::lake::Lake;
use lakeward::lake::splice::{How, Splicer, splice_file, upgrade};
use lakeward::schema::{Column, ElementType, LakeOp, LakeType, OneValue, Policy, RowIdentity, TableName, TableSchema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use url::Url;

pub const ROWS: usize = 100_000;
const ROW_GROUP_ROWS: usize = 10_000;

/// Splices that follow one another, each a list of operations.
pub struct Kind {
    pub name: &'static str,
    pub splices: Vec<Vec<LakeOp>>,
}

pub fn all() -> Vec<Kind> {
    use LakeType::{Array, Date, Decimal, Double, Geometry, Integer, Long, String, Timestamp};
    let one = |name, ops| Kind { name, splices: vec![ops] };
    let others = ["small", "ratio", "price", "sum", "name", "blob", "day", "at", "local", "flag", "amounts", "place"];
    vec![
        one("add_integer", vec![add("n", Integer)]),
        one("add_string", vec![add("n", String)]),
        one("add_nested", vec![add("l", Array(ElementType::String)), add("g", Geometry)]),
        one("add_null", vec![add_null("n", Long), rename("name", "title")]),
        one("rename", vec![rename("name", "title"), rename("tags", "labels"), rename("place", "where")]),
        one("drop", vec![drop_("price"), drop_("place")]),
        one("drop_first", vec![drop_("id")]),
        one("widen", vec![widen("small", Long), widen("ratio", Double)]),
        one("widen_first", vec![widen("id", Long)]),
        one(
            "widen_decimal",
            vec![
                widen("price", Decimal { precision: 14, scale: 4 }),
                widen("sum", Decimal { precision: 30, scale: 6 }),
                widen("id", Decimal { precision: 22, scale: 1 }),
            ],
        ),
        one("widen_then_drop_first", vec![widen("small", Integer), drop_("id"), drop_("tags")]),
        one(
            "only_new_columns",
            ["id", "tags"].into_iter().chain(others).map(drop_).chain([add("n", Integer), add("s", String)]).collect(),
        ),
        one(
            "composed",
            vec![
                widen("small", Integer),
                add("n", Integer),
                widen("n", Long),
                rename("n", "m"),
                drop_("day"),
                rename("small", "day"),
                add_null("later", Timestamp),
                add("since", Date),
                widen("day", Long),
                drop_("blob"),
            ],
        ),
        Kind {
            name: "one_after_another",
            splices: vec![
                vec![add("n", Integer)],
                vec![widen("n", Long), drop_("price")],
                vec![widen("id", Long), rename("n", "price")],
                vec![drop_("tags"), add("tags", Decimal { precision: 20, scale: 3 })],
                vec![drop_("small"), widen("price", Decimal { precision: 25, scale: 2 })],
            ],
        },
    ]
}

fn column(name: &str, lake_type: LakeType) -> Column {
    Column { name: name.into(), source_type: "test".into(), lake_type, nullable: true, policy: Policy::default() }
}

pub fn add(name: &str, lake_type: LakeType) -> LakeOp {
    let value = values(lake_type, 1, false, &mut StdRng::seed_from_u64(11));
    LakeOp::Add { column: column(name, lake_type), fill: Some(OneValue(value)) }
}

fn add_null(name: &str, lake_type: LakeType) -> LakeOp {
    LakeOp::Add { column: column(name, lake_type), fill: None }
}

fn drop_(name: &str) -> LakeOp {
    LakeOp::Drop { name: name.into() }
}

pub fn rename(from: &str, to: &str) -> LakeOp {
    LakeOp::Rename { from: from.into(), to: to.into() }
}

pub fn widen(name: &str, to: LakeType) -> LakeOp {
    LakeOp::Widen { name: name.into(), to }
}

pub fn schema() -> TableSchema {
    let mut columns = vec![
        column("id", LakeType::Integer),
        column("tags", LakeType::Array(ElementType::String)),
        column("small", LakeType::Short),
        column("ratio", LakeType::Float),
        column("price", LakeType::Decimal { precision: 9, scale: 2 }),
        column("sum", LakeType::Decimal { precision: 18, scale: 4 }),
        column("name", LakeType::String),
        column("blob", LakeType::Binary),
        column("day", LakeType::Date),
        column("at", LakeType::Timestamp),
        column("local", LakeType::TimestampNtz),
        column("flag", LakeType::Boolean),
        column("amounts", LakeType::Array(ElementType::Decimal { precision: 12, scale: 2 })),
        column("place", LakeType::Geometry),
    ];
    columns[0].nullable = false;
    TableSchema {
        name: TableName::new("shop", "goods"),
        columns,
        key: vec![0],
        partition_by: vec![],
        identity: RowIdentity::Key,
    }
}

/// Values that do not compress away, every ninth NULL.
fn values(lake_type: LakeType, count: usize, nulls: bool, random: &mut StdRng) -> ArrayRef {
    let numbers = |range: std::ops::Range<i64>, random: &mut StdRng| -> Int64Array {
        let number =
            |random: &mut StdRng| (!nulls || random.random_range(0..9) > 0).then(|| random.random_range(range.clone()));
        (0..count).map(|_| number(random)).collect()
    };
    let of = |range: std::ops::Range<i64>, through: DataType, random: &mut StdRng| {
        let numbers = cast(&numbers(range, random), &through).expect("in range");
        cast(&numbers, &lake_type.arrow()).expect("in range")
    };
    match lake_type {
        LakeType::String => {
            let text = |n: i64| format!("손님 {n:x}{:x}", n.wrapping_mul(0x9e37_79b9));
            Arc::new(numbers(0..i64::MAX, random).iter().map(|n| n.map(text)).collect::<StringArray>())
        }
        LakeType::Binary => {
            let bytes: Vec<_> =
                numbers(0..i64::MAX, random).iter().map(|n| n.map(|n| n.to_le_bytes().to_vec())).collect();
            Arc::new(BinaryArray::from_iter(bytes))
        }
        LakeType::Boolean => Arc::new(numbers(0..2, random).iter().map(|n| n.map(|n| n > 0)).collect::<BooleanArray>()),
        LakeType::Short => of(-30_000..30_000, DataType::Int64, random),
        LakeType::Integer => of(-2_000_000_000..2_000_000_000, DataType::Int64, random),
        LakeType::Date => of(0..40_000, DataType::Int32, random),
        LakeType::Timestamp | LakeType::TimestampNtz => of(0..4_000_000_000_000_000, DataType::Int64, random),
        LakeType::Float | LakeType::Double => of(-100_000..100_000, DataType::Int64, random),
        LakeType::Array(element) => {
            let lengths: Vec<usize> = (0..count).map(|_| random.random_range(0..3)).collect();
            let inner = values(element.lake_type(), lengths.iter().sum(), true, random);
            let DataType::List(field) = lake_type.arrow() else { panic!("a list") };
            let validity = numbers(0..2, random).nulls().cloned();
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), inner, validity))
        }
        LakeType::Geometry => {
            let srid = values(LakeType::Integer, count, true, random);
            let wkb = values(LakeType::Binary, count, true, random);
            let DataType::Struct(fields) = lake_type.arrow() else { panic!("a struct") };
            Arc::new(StructArray::new(fields, vec![srid, wkb], numbers(0..2, random).nulls().cloned()))
        }
        _ => of(-1_000_000..1_000_000, DataType::Int64, random),
    }
}

pub fn rows() -> RecordBatch {
    let random = &mut StdRng::seed_from_u64(7);
    let schema = schema();
    let arrays = schema
        .columns
        .iter()
        .map(|column| match column.name.as_str() {
            "id" => cast(&Int64Array::from_iter_values(0..ROWS as i64), &column.lake_type.arrow()).expect("in range"),
            _ => values(column.lake_type, ROWS, true, random),
        })
        .collect();
    RecordBatch::try_new(schema.arrow(), arrays).expect("as declared")
}

/// A file as lakeward writes it, with smaller row groups.
pub fn encode(rows: &RecordBatch, ours: bool) -> Vec<u8> {
    let mark = KeyValue::new("lakeward.writer".to_owned(), "test".to_owned());
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(ours.then(|| vec![mark]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("closed");
    bytes
}

/// What the log says of a file.
pub fn file(path: &str, size: usize) -> Add {
    Add {
        path: path.to_owned(),
        size: size as i64,
        stats: Some(format!("{{\"numRecords\":{ROWS}}}")),
        partition_values: HashMap::new(),
        ..Add::default()
    }
}

/// The schema that operations lead to.
pub fn after(before: &TableSchema, ops: &[LakeOp]) -> TableSchema {
    let mut after = before.clone();
    for op in ops {
        let place = |name: &str, schema: &TableSchema| schema.column_index(name).expect("it is there");
        match op {
            LakeOp::Add { column, .. } => after.columns.push(column.clone()),
            LakeOp::Drop { name } => {
                after.columns.remove(place(name, &after));
            }
            LakeOp::Rename { from, to } => {
                let index = place(from, &after);
                after.columns[index].name.clone_from(to);
            }
            LakeOp::Widen { name, to } => {
                let index = place(name, &after);
                after.columns[index].lake_type = *to;
            }
        }
    }
    after.key = Vec::new();
    after
}

/// The spliced file of a kind and one with the same rows written anew.
pub async fn make(kind: &Kind, folder: &Path) -> (PathBuf, PathBuf) {
    let folder = folder.join(kind.name);
    std::fs::create_dir(&folder).expect("a folder");
    let url = Url::from_directory_path(&folder).expect("absolute");
    let splicer = Splicer::new(&Lake::new(&url, &BTreeMap::new()), &url).expect("a folder");
    let (mut schema, mut rows) = (schema(), rows());
    let bytes = encode(&rows, true);
    assert!(bytes.len() > 8 << 20, "large enough for several splits: {}", bytes.len());
    let mut add = file("old.parquet", bytes.len());
    std::fs::write(folder.join("old.parquet"), bytes).expect("written");
    for ops in &kind.splices {
        let reached = after(&schema, ops);
        let done = splice_file(&splicer, &add, &schema, &reached, ops).await.expect("spliced");
        assert_eq!((done.how, done.rows), (How::Spliced, ROWS as u64), "{}", kind.name);
        rows = upgrade(&rows, &reached, ops).expect("in memory");
        (add, schema) = (done.add, reached);
    }
    let expected = folder.join("expected.parquet");
    std::fs::write(&expected, encode(&rows, false)).expect("written");
    (folder.join(add.path), expected)
}
