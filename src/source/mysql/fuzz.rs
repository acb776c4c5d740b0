//! The decoders of this folder for any bytes (see `source::fuzz`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName, TableSchema};
use crate::source::fuzz::check_rows;
use crate::source::{Collector, CollectorLimits, Position};

use super::charset::{Collations, Shape, Table};
use super::declared::Declared;
use super::flavor::Vendor;
use super::plan::{Plan, RowsKind};
use super::table_map::{self, MapColumn, TableMap, kind};
use super::{decimal, json, temporal};

pub use super::stream::fuzz::binlog_events;

/// Some of each way in which text is decoded.
static COLLATIONS: LazyLock<Collations> = LazyLock::new(|| {
    let sets = [
        (8, "latin1"),
        (11, "ascii"),
        (13, "sjis"),
        (19, "euckr"),
        (26, "cp1250"),
        (28, "gbk"),
        (33, "utf8mb3"),
        (35, "ucs2"),
        (45, "utf8mb4"),
        (54, "utf16"),
        (56, "utf16le"),
        (60, "utf32"),
        (63, "binary"),
        (95, "cp932"),
        (224, "utf8mb4"),
        (255, "utf8mb4"),
    ];
    let table: String = (0..256_u32).map(|byte| format!("{:08X}", byte + u32::from(byte > 127) * 0x100)).collect();
    let shape = Shape::of("cp1250", 1).expect("one byte a character");
    let table = Table::new(shape, &table).expect("256 characters");
    let tables = HashMap::from([("cp1250".to_owned(), Arc::new(table))]);
    Collations::new(sets.map(|(id, name)| (id, name.to_owned())), Arc::new(tables))
});

/// Made once: it takes longer than most inputs.
pub(super) fn collations() -> Collations {
    COLLATIONS.clone()
}

/// How a column that the log lays out like this could be declared.
fn declaration(column: &MapColumn) -> String {
    let unsigned = if column.unsigned { " unsigned" } else { "" };
    let fraction = |name: &str| format!("{name}({})", column.length);
    let binary = column.collation == Some(super::charset::BINARY_COLLATION);
    match column.kind {
        kind::TINY => format!("tinyint{unsigned}"),
        kind::SHORT => format!("smallint{unsigned}"),
        kind::INT24 => format!("mediumint{unsigned}"),
        kind::LONG => format!("int{unsigned}"),
        kind::LONGLONG => format!("bigint{unsigned}"),
        kind::FLOAT => "float".to_owned(),
        kind::DOUBLE => "double".to_owned(),
        kind::NEWDECIMAL => format!("decimal({},{})", column.length, column.scale),
        kind::YEAR => "year".to_owned(),
        kind::DATE | kind::NEWDATE => "date".to_owned(),
        kind::DATETIME2 => fraction("datetime"),
        kind::TIMESTAMP2 => fraction("timestamp"),
        kind::TIME2 => fraction("time"),
        kind::DATETIME => "datetime".to_owned(),
        kind::TIMESTAMP => "timestamp".to_owned(),
        kind::TIME => "time".to_owned(),
        kind::BIT => format!("bit({})", usize::from(column.length) * 8 + usize::from(column.scale)),
        kind::ENUM => "enum('a')".to_owned(),
        kind::SET => "set('a')".to_owned(),
        kind::JSON => "json".to_owned(),
        kind::GEOMETRY => "geometry".to_owned(),
        kind::VECTOR => "vector(3)".to_owned(),
        // MariaDB's types that are strings in the log, told apart by their width.
        kind::STRING if binary && column.length == 16 => "uuid".to_owned(),
        kind::STRING if binary && column.length == 4 => "inet4".to_owned(),
        kind::STRING if binary => format!("binary({})", column.length),
        kind::STRING => format!("char({})", column.length),
        kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED if binary => "varbinary(9)".to_owned(),
        kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED => "varchar(9)".to_owned(),
        _ if binary => "longblob".to_owned(),
        _ => "longtext".to_owned(),
    }
}

/// The table that a table map could be of.
fn schema_of(map: &TableMap) -> Arc<TableSchema> {
    let columns = map.columns.iter().map(|column| {
        let source_type = declaration(column);
        let lake_type = Declared::parse(&source_type).lake_type();
        let name = column.name.clone().unwrap_or_default();
        Column { name, source_type, lake_type, nullable: true, policy: Policy::default() }
    });
    let mut columns: Vec<Column> = columns.collect();
    let key: Vec<usize> = if columns.is_empty() { vec![] } else { vec![0] };
    for index in &key {
        columns[*index].nullable = false;
    }
    Arc::new(TableSchema {
        name: TableName::new("seed", "derived"),
        columns,
        key,
        partition_by: vec![],
        identity: RowIdentity::Key,
    })
}

/// A table map and a row event: vendor (bit 0) and row version (bit 1), what the event does, the length of the table
/// map's body in two bytes little endian, both bodies.
pub fn row_images(input: &[u8]) {
    let Some((&[flags, what, low, high], rest)) = input.split_first_chunk::<4>() else { return };
    let Some((map_body, rows_body)) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high]))) else {
        return;
    };
    let vendor = if flags & 1 == 0 { Vendor::MySql } else { Vendor::MariaDb };
    let rows_kind = [RowsKind::Write, RowsKind::Update, RowsKind::Delete][usize::from(what % 3)];
    let _ = TableMap::name(map_body);
    let Ok(map) = TableMap::parse(map_body, vendor) else { return };
    let Ok(event) = table_map::rows_event(rows_body, flags & 2 != 0, rows_kind == RowsKind::Update) else { return };
    if !event.complete {
        return;
    }
    let schema = schema_of(&map);
    let Ok(plan) = Plan::compile(&map, &schema, &collations(), |_| false) else { return };
    let (out, _kept) = tokio::sync::mpsc::channel(1);
    let mut collector = Collector::new(Position::Lsn(0), CollectorLimits::default(), out);
    let sink = collector.rows(&plan.schema);
    if let Ok(rows) = plan.decode(rows_kind, &event, sink) {
        // A row without columns has no bytes, so it can't be counted by them.
        assert!(rows <= event.rows.len() * 2, "{rows} rows in {} bytes", event.rows.len());
        let ops = sink.ops.len();
        assert_eq!(ops, rows, "every row has an operation");
        let batch = sink.builder.finish().unwrap_or_else(|error| panic!("decoded rows form no batch: {error}"));
        check_rows(&batch, ops, &sink.unchanged);
    }
}

/// MySQL's binary JSON: the text is JSON again, and not much longer than the document.
pub fn jsonb(input: &[u8]) {
    let Ok((text, broken)) = json::text(input) else { return };
    assert!(!broken || text.contains(char::REPLACEMENT_CHARACTER), "{text}");
    // A control character of one byte becomes six; every entry has its punctuation, every number its digits.
    assert!(text.len() <= input.len() * 32 + 512, "{} bytes of text from {}", text.len(), input.len());
    let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&text);
    assert!(parsed.is_ok(), "{parsed:?}: {text}");
}

/// Dates, times and decimals: `selector` chooses the type, the first byte of `input` its precision.
pub fn mysql_values(selector: u8, input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    let precision = first % 7;
    let in_lake = |micros: Option<i64>| {
        if let Some(micros) = micros {
            let year = chrono::DateTime::from_timestamp_micros(micros).map(|time| chrono::Datelike::year(&time));
            assert!(year.is_some_and(|year| (1..=9999).contains(&year)), "{micros} is in the years 1 to 9999");
        }
    };
    match selector % 9 {
        0 => {
            if let Some(days) = temporal::date(bytes).days() {
                in_lake(Some(i64::from(days) * 86_400_000_000));
            }
        }
        1 => in_lake(temporal::datetime2(bytes, precision).ok().and_then(|civil| civil.micros())),
        2 => in_lake(temporal::timestamp2(bytes, precision).ok().flatten()),
        3 => {
            let size = 3 + temporal::fraction_bytes(precision);
            if bytes.len() == size {
                // Ten bits of hours, and what the fraction's bytes hold.
                assert!(temporal::time2(bytes, precision).unsigned_abs() < 1100 * 3_600_000_000);
            } else {
                let _ = temporal::time2(bytes, precision);
            }
        }
        4 => {
            let _ = temporal::time_old(bytes);
        }
        5 => in_lake(temporal::datetime_old(bytes).micros()),
        6 => in_lake(temporal::timestamp_old(bytes)),
        7 => {
            let Some((&scale, packed)) = bytes.split_first() else { return };
            let text = decimal::packed_text(packed, first, scale);
            if let (Ok(value), Ok(text)) = (decimal::packed_value(packed, first, scale), &text) {
                // The log's form and the snapshot's text agree (T-0).
                assert_eq!(decimal::text_value(text, first, scale).ok(), Some(value), "{text}");
            }
            if let Ok(text) = text {
                assert_eq!(decimal::text_canonical(&text).as_ref(), Ok(&text), "canonical already");
            }
        }
        8 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = decimal::text_value(text, first, precision);
                let _ = decimal::text_canonical(text);
                let declared = Declared::parse(text);
                assert!(!matches!(declared.lake_type(), LakeType::Decimal { precision: 39.., .. }), "{text}");
            }
        }
        _ => {}
    }
}
