//! The compiled decode plan of one table map: each row goes from the wire straight into the Arrow builders.
//!
//! A plan is made once per distinct `TABLE_MAP` and table schema. It matches columns by name and compares each one's
//! lake type with the table's schema, so that rows under another schema never reach a builder (D-17): they are a
//! [`Fault`] that says which column differs. A row is first cut into its fields, which also gives the raw bytes of the
//! key for the before and after image of an update, then every field is appended by its own step.

mod rows;

use std::sync::Arc;

use crate::schema::{ElementType, LakeType, RowBuilder, TableSchema};

use super::cell::Cell;
use super::charset::{BINARY_COLLATION, Charset, Collations};
use super::compressed;
use super::declared::{self, Declared, Family};
use super::image::Images;
use super::table_map::{MapColumn, TableMap, kind};
use super::wire::{Fault, little_endian};
use super::{decimal, json, temporal, value};

/// Row events by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsKind {
    Write,
    Update,
    Delete,
}

const VECTOR: LakeType = LakeType::Array(ElementType::Float);

/// How many bytes a field has.
#[derive(Clone, Copy, Debug)]
enum Extent {
    Fixed(usize),
    /// A little-endian length of so many bytes goes before.
    Prefixed(usize),
}

/// What a field's bytes mean.
#[derive(Debug)]
enum Form {
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    DecimalText {
        precision: u8,
        scale: u8,
    },
    Year,
    Date,
    Datetime {
        precision: u8,
    },
    DatetimeOld,
    Timestamp {
        precision: u8,
    },
    TimestampOld,
    Time {
        precision: u8,
    },
    TimeOld,
    Bits,
    Enum(Vec<Label>),
    Set(Vec<Label>),
    Text(Charset),
    Binary,
    /// Trailing zeros are not in the log (B6).
    PaddedBinary {
        width: usize,
    },
    Uuid,
    Inet4,
    Inet6,
    Json,
    Geometry,
    Vector,
    Hex,
}

/// A label of ENUM or SET, and whether it is broken in its character set.
#[derive(Debug)]
struct Label {
    text: String,
    broken: bool,
}

#[derive(Debug)]
struct Step {
    extent: Extent,
    form: Form,
    /// Where the value lands; `None` for columns that don't reach the lake.
    cell: Option<Cell>,
    key: bool,
    /// MariaDB's `COMPRESSED`: unpacked before all else.
    compressed: bool,
}

/// See the module text.
#[derive(Debug)]
pub struct Plan {
    pub schema: Arc<TableSchema>,
    steps: Vec<Step>,
    /// What to do with images that lack columns, and with rows of the past.
    images: Images,
}

impl Plan {
    /// `is_excluded` tells the columns that the contract keeps out of the lake.
    pub fn compile(
        map: &TableMap,
        schema: &Arc<TableSchema>,
        collations: &Collations,
        is_excluded: impl Fn(&str) -> bool,
    ) -> Result<Self, Fault> {
        if !map.has_names() {
            return Err(Fault::new(
                "the log does not name the columns: it was written without binlog_row_metadata=FULL",
            ));
        }
        let mut seen = vec![false; schema.columns.len()];
        let mut steps = Vec::with_capacity(map.columns.len());
        for column in &map.columns {
            let name = column.name.as_deref().unwrap_or_default();
            let target = schema.column_index(name);
            match target {
                Some(index) => seen[index] = true,
                // MariaDB keeps the hash of a long unique key in a column of its own that no catalog lists (M-24).
                None if column.hidden || name.starts_with("DB_ROW_HASH_") || is_excluded(name) => {}
                None => return Err(Fault(format!("column `{name}` is new in the log"))),
            }
            let declared = target.map(|index| Declared::parse(&schema.columns[index].source_type));
            let (extent, form, lake_type) = form(column, declared.as_ref(), collations, target.is_some())
                .map_err(|fault| Fault(format!("column `{name}`: {fault}")))?;
            // The lake may hold it in another type, by the contract; what counts is what it was declared as.
            if let Some(declared) = &declared
                && declared.lake_type() != lake_type
            {
                let expected = declared.lake_type();
                return Err(Fault(format!("column `{name}` is {lake_type} in the log and {expected} in the lake")));
            }
            let cell = target.map(|index| Cell::new(schema, index));
            let key = cell.as_ref().is_some_and(Cell::is_key);
            let compressed = matches!(column.kind, kind::BLOB_COMPRESSED | kind::VARCHAR_COMPRESSED);
            steps.push(Step { extent, form, cell, key, compressed });
        }
        if let Some(index) = seen.iter().position(|seen| !seen) {
            return Err(Fault(format!("column `{}` is gone from the log", schema.columns[index].name)));
        }
        Ok(Self { schema: schema.clone(), steps, images: Images::default() })
    }

    /// The same plan for a table whose layout is known.
    pub fn with_images(mut self, images: Images) -> Self {
        self.images = images;
        self
    }

    fn append(&self, fields: &[Option<&[u8]>], builder: &mut RowBuilder) -> Result<(), Fault> {
        for (step, field) in self.steps.iter().zip(fields) {
            let Some(cell) = &step.cell else { continue };
            let landed = match field {
                Some(bytes) if step.compressed => {
                    compressed::value(bytes).and_then(|plain| step.form.append(&plain, cell, builder))
                }
                Some(bytes) => step.form.append(bytes, cell, builder),
                None => cell.null(builder),
            };
            landed.map_err(|fault| Fault(format!("column `{}`: {fault}", cell.column())))?;
        }
        Ok(())
    }
}

/// Extent, form and lake type of a column.
fn form(
    column: &MapColumn,
    declared: Option<&Declared>,
    collations: &Collations,
    wanted: bool,
) -> Result<(Extent, Form, LakeType), Fault> {
    let unsigned = column.unsigned;
    let integer = |size, signed_type, unsigned_type| {
        if unsigned {
            (Extent::Fixed(size), Form::Unsigned, unsigned_type)
        } else {
            (Extent::Fixed(size), Form::Signed, signed_type)
        }
    };
    let family = declared.map(Declared::family);
    let precision = column.length.min(6) as u8;
    let fraction = temporal::fraction_bytes(precision);
    // MariaDB's fractional types of before its 10.1 have lengths that the log does not tell.
    if matches!(column.kind, kind::TIME | kind::DATETIME | kind::TIMESTAMP)
        && declared.is_some_and(|declared| declared.arguments.first().is_some_and(|digits| *digits > 0))
    {
        return Err(Fault::new(
            "is stored in the old temporal format, which the log does not describe; run ALTER TABLE … FORCE with mysql56_temporal_format=ON",
        ));
    }
    let text_or_binary = |extent: Extent, width: Option<usize>| -> Result<(Extent, Form, LakeType), Fault> {
        if !wanted {
            return Ok((extent, Form::Binary, LakeType::Binary));
        }
        let collation = column.collation.ok_or_else(|| Fault::new("the log does not tell its character set"))?;
        if collation != BINARY_COLLATION {
            return Ok((extent, Form::Text(collations.by_id(collation)?), LakeType::String));
        }
        Ok(match (family, width) {
            (Some(Family::Uuid), Some(_)) => (extent, Form::Uuid, LakeType::String),
            (Some(Family::Inet4), Some(_)) => (extent, Form::Inet4, LakeType::String),
            (Some(Family::Inet6), Some(_)) => (extent, Form::Inet6, LakeType::String),
            // MariaDB's.
            (Some(Family::Vector), _) => (extent, Form::Vector, VECTOR),
            (Some(Family::Other), _) => (extent, Form::Hex, LakeType::String),
            (_, Some(width)) => (extent, Form::PaddedBinary { width }, LakeType::Binary),
            (_, None) => (extent, Form::Binary, LakeType::Binary),
        })
    };
    let labels = || -> Result<Vec<Label>, Fault> {
        if !wanted {
            return Ok(Vec::new());
        }
        let labels = column.labels.as_ref().ok_or_else(|| Fault::new("the log does not tell its labels"))?;
        let collation = column.collation.ok_or_else(|| Fault::new("the log does not tell its character set"))?;
        let charset = collations.by_id(collation)?;
        let decoded = labels.iter().map(|label| charset.decode(label));
        Ok(decoded.map(|(text, broken)| Label { text: text.into_owned(), broken }).collect())
    };
    let blob_prefix = || match column.length {
        1..=4 => Ok(usize::from(column.length)),
        other => Err(Fault(format!("length prefix of {other} bytes"))),
    };
    let string_prefix = if column.length > 255 { 2 } else { 1 };
    Ok(match column.kind {
        kind::TINY => integer(1, LakeType::Byte, LakeType::Short),
        kind::SHORT => integer(2, LakeType::Short, LakeType::Integer),
        kind::INT24 => integer(3, LakeType::Integer, LakeType::Integer),
        kind::LONG => integer(4, LakeType::Integer, LakeType::Long),
        kind::LONGLONG => integer(8, LakeType::Long, LakeType::Decimal { precision: 20, scale: 0 }),
        kind::FLOAT => (Extent::Fixed(4), Form::Float, LakeType::Float),
        kind::DOUBLE => (Extent::Fixed(8), Form::Double, LakeType::Double),
        kind::NEWDECIMAL => {
            let (precision, scale) = (column.length as u8, column.scale);
            let extent = Extent::Fixed(decimal::packed_size(precision, scale));
            match declared::decimal(precision, scale) {
                LakeType::String => (extent, Form::DecimalText { precision, scale }, LakeType::String),
                lake_type => (extent, Form::Decimal { precision, scale }, lake_type),
            }
        }
        kind::YEAR => (Extent::Fixed(1), Form::Year, LakeType::Integer),
        kind::DATE | kind::NEWDATE => (Extent::Fixed(3), Form::Date, LakeType::Date),
        kind::DATETIME2 => (Extent::Fixed(5 + fraction), Form::Datetime { precision }, LakeType::TimestampNtz),
        kind::TIMESTAMP2 => (Extent::Fixed(4 + fraction), Form::Timestamp { precision }, LakeType::Timestamp),
        kind::TIME2 => (Extent::Fixed(3 + fraction), Form::Time { precision }, LakeType::Long),
        kind::DATETIME => (Extent::Fixed(8), Form::DatetimeOld, LakeType::TimestampNtz),
        kind::TIMESTAMP => (Extent::Fixed(4), Form::TimestampOld, LakeType::Timestamp),
        kind::TIME => (Extent::Fixed(3), Form::TimeOld, LakeType::Long),
        kind::BIT => {
            let bits = usize::from(column.length) * 8 + usize::from(column.scale);
            let extent = Extent::Fixed(bits.div_ceil(8));
            (extent, Form::Bits, if bits == 1 { LakeType::Boolean } else { LakeType::Binary })
        }
        kind::ENUM => match column.length {
            size @ (1 | 2) => (Extent::Fixed(usize::from(size)), Form::Enum(labels()?), LakeType::String),
            other => return Err(Fault(format!("ENUM of {other} bytes"))),
        },
        kind::SET => match column.length {
            size @ 1..=8 => (Extent::Fixed(usize::from(size)), Form::Set(labels()?), LakeType::String),
            other => return Err(Fault(format!("SET of {other} bytes"))),
        },
        kind::STRING => text_or_binary(Extent::Prefixed(string_prefix), Some(usize::from(column.length)))?,
        kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED => {
            text_or_binary(Extent::Prefixed(string_prefix), None)?
        }
        kind::TINY_BLOB | kind::MEDIUM_BLOB | kind::LONG_BLOB | kind::BLOB | kind::BLOB_COMPRESSED => {
            text_or_binary(Extent::Prefixed(blob_prefix()?), None)?
        }
        kind::JSON => (Extent::Prefixed(blob_prefix()?), Form::Json, LakeType::String),
        kind::GEOMETRY => (Extent::Prefixed(blob_prefix()?), Form::Geometry, LakeType::Geometry),
        kind::VECTOR => (Extent::Prefixed(blob_prefix()?), Form::Vector, VECTOR),
        other => return Err(Fault(format!("column type {other} is unknown"))),
    })
}

impl Form {
    #[inline]
    fn append(&self, bytes: &[u8], cell: &Cell, rows: &mut RowBuilder) -> Result<(), Fault> {
        match self {
            Self::Signed => {
                let unused = 64 - 8 * bytes.len() as u32;
                let number = ((little_endian(bytes) << unused) as i64) >> unused;
                cell.integer(rows, i128::from(number))
            }
            Self::Unsigned => cell.integer(rows, i128::from(little_endian(bytes))),
            Self::Float => cell.float(rows, f32::from_bits(little_endian(bytes) as u32)),
            Self::Double => cell.double(rows, f64::from_bits(little_endian(bytes))),
            Self::Decimal { precision, scale } => {
                cell.decimal(rows, decimal::packed_value(bytes, *precision, *scale)?, *scale)
            }
            Self::DecimalText { precision, scale } => {
                cell.decimal_text(rows, &decimal::packed_text(bytes, *precision, *scale)?)
            }
            // 1900 is no legal year: zero is the year 0000 (B2).
            Self::Year => {
                let offset = little_endian(bytes) as u16;
                cell.year(rows, if offset == 0 { 0 } else { 1900 + offset })
            }
            Self::Date => cell.date(rows, &temporal::date(bytes)),
            Self::Datetime { precision } => cell.datetime(rows, &temporal::datetime2(bytes, *precision)?),
            Self::DatetimeOld => cell.datetime(rows, &temporal::datetime_old(bytes)),
            Self::Timestamp { precision } => cell.timestamp(rows, temporal::timestamp2(bytes, *precision)?),
            Self::TimestampOld => cell.timestamp(rows, temporal::timestamp_old(bytes)),
            Self::Time { precision } => cell.time(rows, temporal::time2(bytes, *precision)),
            Self::TimeOld => cell.time(rows, temporal::time_old(bytes)),
            Self::Bits => cell.bits(rows, bytes),
            Self::Enum(labels) => match little_endian(bytes) as usize {
                // The error value, which reads as the empty string (B9).
                0 => cell.text(rows, "", false),
                index => match labels.get(index - 1) {
                    Some(label) => cell.text(rows, &label.text, label.broken),
                    None => Err(Fault(format!("ENUM member {index} of {}", labels.len()))),
                },
            },
            Self::Set(labels) => {
                let members = little_endian(bytes);
                if labels.len() < 64 && members >> labels.len() != 0 {
                    return Err(Fault(format!("SET members {members:#b} of {}", labels.len())));
                }
                let chosen = labels.iter().enumerate().filter(|(index, _)| members >> index & 1 == 1);
                let mut text = String::new();
                let mut broken = false;
                for (place, (_, label)) in chosen.enumerate() {
                    if place > 0 {
                        text.push(',');
                    }
                    text.push_str(&label.text);
                    broken |= label.broken;
                }
                cell.text(rows, &text, broken)
            }
            Self::Text(charset) => {
                let (text, broken) = charset.decode(bytes);
                cell.text(rows, &text, broken)
            }
            Self::Binary => cell.bytes(rows, bytes),
            Self::PaddedBinary { width } => match bytes.len() < *width {
                // On the stack: BINARY has at most 255 bytes.
                true => cell.bytes(rows, &padded::<255>(bytes)?[..(*width).min(255)]),
                false => cell.bytes(rows, bytes),
            },
            Self::Uuid => cell.text(rows, &value::uuid(&padded::<16>(bytes)?)?, false),
            Self::Inet4 => cell.text(rows, &value::inet4(&padded::<4>(bytes)?)?, false),
            Self::Inet6 => cell.text(rows, &value::inet6(&padded::<16>(bytes)?)?, false),
            Self::Json => {
                let (text, broken) = json::text(bytes)?;
                cell.text(rows, &text, broken)
            }
            Self::Geometry => cell.geometry(rows, bytes),
            Self::Vector => cell.vector(rows, bytes),
            Self::Hex => cell.text(rows, &value::hex(bytes), false),
        }
    }
}

/// Fixed-width values come without their trailing zeros (B6).
fn padded<const WIDTH: usize>(bytes: &[u8]) -> Result<[u8; WIDTH], Fault> {
    let mut padded = [0; WIDTH];
    padded
        .get_mut(..bytes.len())
        .ok_or_else(|| Fault(format!("{} bytes in a column of {WIDTH}", bytes.len())))?
        .copy_from_slice(bytes);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::super::table_map::RowsEvent;
    use super::*;
    use crate::schema::{Column, Op, Policy, RowIdentity, TableName};
    use crate::source::{Collector, CollectorLimits, Position};
    use arrow::array::RecordBatch;
    use arrow::util::display::ArrayFormatter;

    fn collations() -> Collations {
        let ids = [(8, "latin1"), (45, "utf8mb4"), (63, "binary")].map(|(id, name)| (id, name.to_owned()));
        Collations::new(ids, Arc::default())
    }

    fn schema(columns: &[(&str, &str)], key: Vec<usize>) -> Arc<TableSchema> {
        let column = |(index, (name, source_type)): (usize, &(&str, &str))| Column {
            name: (*name).to_owned(),
            source_type: (*source_type).to_owned(),
            lake_type: Declared::parse(source_type).lake_type(),
            nullable: !key.contains(&index),
            policy: Policy::default(),
        };
        Arc::new(TableSchema {
            name: TableName::new("shop", "goods"),
            columns: columns.iter().enumerate().map(column).collect(),
            key: key.clone(),
            partition_by: vec![],
            identity: RowIdentity::Key,
        })
    }

    fn column(name: &str, kind: u8) -> MapColumn {
        MapColumn { kind, name: Some(name.to_owned()), ..MapColumn::default() }
    }

    fn map(columns: Vec<MapColumn>) -> TableMap {
        TableMap { table_id: 7, schema: "shop".to_owned(), table: "goods".to_owned(), columns }
    }

    fn collector() -> Collector {
        let (out, _) = tokio::sync::mpsc::channel(1);
        Collector::new(Position::Lsn(0), CollectorLimits::default(), out)
    }

    fn decode(plan: &Plan, kind: RowsKind, rows: &[u8]) -> Result<(RecordBatch, Vec<Op>), Fault> {
        let event = RowsEvent { table_id: 7, width: plan.steps.len(), complete: true, present: [&[], &[]], rows };
        let mut collector = collector();
        let sink = collector.rows(&plan.schema);
        plan.decode(kind, &event, sink)?;
        let batch = sink.builder.finish().map_err(|error| Fault(error.to_string()))?;
        Ok((batch, sink.ops.clone()))
    }

    fn shown(batch: &RecordBatch, column: usize, row: usize) -> String {
        let array = batch.column(column);
        if array.is_null(row) {
            return "NULL".to_owned();
        }
        ArrayFormatter::try_new(array.as_ref(), &Default::default()).expect("formats").value(row).to_string()
    }

    /// One value on the wire, under a declaration and a log type, and what the lake must hold.
    #[test]
    fn every_type_decodes_from_its_wire_bytes() {
        let text = |kind, length, collation| MapColumn { length, collation: Some(collation), ..column("c", kind) };
        let long = |kind, length| MapColumn { length, ..column("c", kind) };
        let unsigned = |kind| MapColumn { unsigned: true, ..column("c", kind) };
        let labels = |kind, length| MapColumn {
            labels: Some(vec![b"a,b".to_vec(), b"\xE9".to_vec(), b"c".to_vec()]),
            ..text(kind, length, 8)
        };
        let cases: Vec<(&str, &str, MapColumn, &[u8], &str)> = vec![
            ("M-1", "tinyint", column("c", kind::TINY), &[0x80], "-128"),
            ("M-1", "smallint", column("c", kind::SHORT), &[0xFF, 0xFF], "-1"),
            ("M-1 B1", "mediumint", column("c", kind::INT24), &[0x00, 0xEE, 0x85], "-8000000"),
            ("M-1", "int", column("c", kind::LONG), &[0, 0, 0, 0x80], "-2147483648"),
            ("M-1", "bigint", column("c", kind::LONGLONG), &[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808"),
            ("M-2", "tinyint unsigned", unsigned(kind::TINY), &[0xFF], "255"),
            ("M-2", "mediumint unsigned", unsigned(kind::INT24), &[0xFF, 0xFF, 0xFF], "16777215"),
            ("M-2", "bigint unsigned", unsigned(kind::LONGLONG), &[0xFF; 8], "18446744073709551615"),
            ("M-4", "float", long(kind::FLOAT, 4), &[0, 0, 0, 0x80], "-0.0"),
            ("M-4", "double", long(kind::DOUBLE, 8), &[0, 0, 0, 0, 0, 0, 0xF8, 0x3F], "1.5"),
            (
                "M-5",
                "decimal(14,4)",
                MapColumn { length: 14, scale: 4, ..column("c", kind::NEWDECIMAL) },
                &[0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D],
                "-1234567890.1234",
            ),
            ("M-7", "bit(1)", MapColumn { scale: 1, ..column("c", kind::BIT) }, &[1], "true"),
            ("M-7", "bit(9)", MapColumn { length: 1, scale: 1, ..column("c", kind::BIT) }, &[1, 2], "0102"),
            ("M-8", "date", column("c", kind::DATE), &[0x5D, 0xD0, 0x0F], "2024-02-29"),
            ("M-9", "date", column("c", kind::DATE), &[0, 0, 0], "NULL"),
            ("M-9 B5", "timestamp", column("c", kind::TIMESTAMP2), &[0, 0, 0, 0], "NULL"),
            ("M-10", "timestamp", column("c", kind::TIMESTAMP2), &[0, 0, 0, 1], "1970-01-01T00:00:01Z"),
            ("M-11 B3", "time(2)", long(kind::TIME2, 2), &[0x7F, 0xFF, 0xFE, 0xCE], "-1500000"),
            ("M-12 B2", "year", column("c", kind::YEAR), &[0], "0"),
            ("M-12", "year", column("c", kind::YEAR), &[255], "2155"),
            ("M-13", "varchar(9)", text(kind::VARCHAR, 9, 8), b"\x02\xE9\x80", "é€"),
            ("M-13", "varchar(300)", text(kind::VARCHAR, 1200, 45), b"\x02\x00\xC3\xA9", "é"),
            ("M-13", "text", text(kind::BLOB, 2, 45), b"\x01\x00x", "x"),
            ("M-14 B6", "binary(4)", text(kind::STRING, 4, 63), b"\x01\x01", "01000000"),
            ("M-14", "varbinary(4)", text(kind::VARCHAR, 4, 63), b"\x02\x01\x00", "0100"),
            ("M-14", "blob", text(kind::BLOB, 2, 63), b"\x00\x00", ""),
            ("M-15 B9", "enum('…')", labels(kind::ENUM, 1), &[2], "é"),
            ("M-15 B9", "enum('…')", labels(kind::ENUM, 1), &[0], ""),
            ("M-15", "enum('…')", labels(kind::ENUM, 2), &[1, 0], "a,b"),
            ("M-16 B9", "set('…')", labels(kind::SET, 1), &[0b110], "é,c"),
            ("M-17", "json", long(kind::JSON, 4), &[3, 0, 0, 0, 5, 1, 0], "1"),
            ("M-21 B6", "inet6", text(kind::STRING, 16, 63), &[2, 0, 1], "1::"),
            ("M-21", "inet4", text(kind::STRING, 4, 63), &[3, 192, 0, 2], "192.0.2.0"),
            ("M-19", "point", long(kind::GEOMETRY, 4), &[5, 0, 0, 0, 3, 0, 0, 0, 0xAB], "{srid: 3, wkb: ab}"),
            ("M-20", "vector(1)", long(kind::VECTOR, 4), &[4, 0, 0, 0, 0, 0, 0x80, 0x3F], "[1.0]"),
        ];
        for (id, declaration, column, wire, expected) in cases {
            let schema = schema(&[("c", declaration)], vec![]);
            let plan = Plan::compile(&map(vec![column]), &schema, &collations(), |_| false);
            let plan = plan.unwrap_or_else(|fault| panic!("{id} {declaration}: {fault}"));
            let mut row = vec![0];
            row.extend(wire);
            let (batch, _) = decode(&plan, RowsKind::Write, &row).unwrap_or_else(|fault| panic!("{id}: {fault}"));
            assert_eq!(shown(&batch, 0, 0), expected, "{id} {declaration}");
            for end in 1..row.len() {
                assert!(decode(&plan, RowsKind::Write, &row[..end]).is_err(), "{id} cut at {end}");
            }
        }
    }

    fn goods() -> Plan {
        let schema = schema(&[("name", "varchar(9)"), ("id", "int")], vec![1]);
        let name = MapColumn { length: 36, collation: Some(45), ..column("name", kind::VARCHAR) };
        let columns = vec![column("id", kind::LONG), column("DB_ROW_HASH_1", kind::LONGLONG), name];
        Plan::compile(&map(columns), &schema, &collations(), |_| false).expect("the columns match")
    }

    fn row(id: u8, name: Option<&str>) -> Vec<u8> {
        let mut row = vec![if name.is_some() { 0b010 } else { 0b110 }, id, 0, 0, 0];
        if let Some(name) = name {
            row.push(name.len() as u8);
            row.extend(name.as_bytes());
        }
        row
    }

    /// M-24, D-1: columns are matched by name, hidden ones dropped.
    #[test]
    fn columns_are_matched_by_name() {
        let (batch, ops) = decode(&goods(), RowsKind::Write, &row(5, Some("é"))).expect("well formed");
        assert_eq!((shown(&batch, 0, 0).as_str(), shown(&batch, 1, 0).as_str()), ("é", "5"));
        assert_eq!(ops, [Op::Insert]);
    }

    ///
    #[test]
    fn an_update_that_moves_the_key_is_two_rows() {
        let mut rows = row(5, None);
        rows.extend(row(5, Some("same key")));
        rows.extend(row(5, Some("a")));
        rows.extend(row(6, Some("b")));
        let (batch, ops) = decode(&goods(), RowsKind::Update, &rows).expect("well formed");
        assert_eq!(ops, [Op::Update, Op::UpdateOldKey, Op::UpdateNewKey]);
        assert_eq!(shown(&batch, 0, 0), "same key");
        assert_eq!((shown(&batch, 1, 1), shown(&batch, 1, 2)), ("5".to_owned(), "6".to_owned()));
        assert!(decode(&goods(), RowsKind::Update, &row(5, None)).is_err());
    }

    /// D-17
    #[test]
    fn other_columns_than_the_schema_s_are_named() {
        let id = || column("id", kind::LONG);
        let schema = schema(&[("id", "int"), ("name", "varchar(9)")], vec![0]);
        let compile = |columns| match Plan::compile(&map(columns), &schema, &collations(), |name| name == "secret") {
            Ok(_) => "compiled".to_owned(),
            Err(fault) => fault.0,
        };
        let name = || MapColumn { length: 36, collation: Some(45), ..column("name", kind::VARCHAR) };
        assert_eq!(compile(vec![id(), name()]), "compiled");
        assert_eq!(compile(vec![id(), name(), column("secret", kind::LONG)]), "compiled");
        assert!(compile(vec![id()]).contains("`name` is gone"));
        assert!(compile(vec![id(), name(), column("x", kind::LONG)]).contains("`x` is new"));
        assert!(compile(vec![column("id", kind::LONGLONG), name()]).contains("`id` is long in the log and integer"));
        assert!(compile(vec![id(), MapColumn { collation: Some(63), ..name() }]).contains("`name` is binary"));
        assert!(compile(vec![id(), MapColumn { collation: Some(999), ..name() }]).contains("collation 999"));
        assert!(compile(vec![id(), MapColumn { name: None, ..name() }]).contains("binlog_row_metadata=FULL"));
    }

    /// M-9: what would be NULL in a merge key is a fault.
    #[test]
    fn a_key_is_never_null() {
        let schema = schema(&[("day", "date")], vec![0]);
        let plan = Plan::compile(&map(vec![column("day", kind::DATE)]), &schema, &collations(), |_| false).expect("ok");
        assert!(decode(&plan, RowsKind::Write, &[0, 0, 0, 0]).is_err());
        assert!(decode(&plan, RowsKind::Write, &[1]).is_err());
    }

    #[test]
    fn labels_out_of_range_are_faults() {
        let schema = schema(&[("e", "enum('a')"), ("s", "set('a')")], vec![]);
        let labelled = |name, kind| MapColumn {
            length: 1,
            collation: Some(45),
            labels: Some(vec![b"a".to_vec()]),
            ..column(name, kind)
        };
        let columns = vec![labelled("e", kind::ENUM), labelled("s", kind::SET)];
        let plan = Plan::compile(&map(columns), &schema, &collations(), |_| false).expect("ok");
        assert!(decode(&plan, RowsKind::Write, &[0, 1, 1]).is_ok());
        assert!(decode(&plan, RowsKind::Write, &[0, 2, 1]).is_err());
        assert!(decode(&plan, RowsKind::Write, &[0, 1, 2]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_rows_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let plan = goods();
            for kind in [RowsKind::Write, RowsKind::Update, RowsKind::Delete] {
                let _ = decode(&plan, kind, &bytes);
            }
        }

        #[test]
        fn random_values_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            for (declaration, column) in [
                ("datetime(6)", MapColumn { length: 6, ..column("c", kind::DATETIME2) }),
                ("timestamp(3)", MapColumn { length: 3, ..column("c", kind::TIMESTAMP2) }),
                ("time(6)", MapColumn { length: 6, ..column("c", kind::TIME2) }),
                ("time", column("c", kind::TIME)),
                ("datetime", column("c", kind::DATETIME)),
                ("date", column("c", kind::DATE)),
                ("decimal(38,20)", MapColumn { length: 38, scale: 20, ..column("c", kind::NEWDECIMAL) }),
                ("decimal(65,30)", MapColumn { length: 65, scale: 30, ..column("c", kind::NEWDECIMAL) }),
                ("json", MapColumn { length: 1, ..column("c", kind::JSON) }),
                ("uuid", MapColumn { length: 16, collation: Some(63), ..column("c", kind::STRING) }),
            ] {
                let schema = schema(&[("c", declaration)], vec![]);
                let plan = Plan::compile(&map(vec![column]), &schema, &collations(), |_| false).expect("ok");
                let _ = decode(&plan, RowsKind::Write, &bytes);
            }
        }
    }
}
