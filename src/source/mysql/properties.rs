//! What is encoded as the server encodes it decodes to the same value: a property test for every wire type.
//!
//! The encoders are written from the same public descriptions as the decoders, and are kept apart from them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use proptest::prelude::*;
use serde_json::Value;

use super::declared::Declared;
use super::fuzz::collations;
use super::plan::{Plan, RowsKind};
use super::table_map::{MapColumn, RowsEvent, TableMap, kind};
use super::{decimal, json, temporal};
use crate::schema::{Column, Policy, RowIdentity, TableName, TableSchema};
use crate::source::{Collector, CollectorLimits, Position};

/// The rows of a table of one column, each with the field's bytes or NULL, through a plan.
fn decoded(declaration: &str, column: MapColumn, rows: &[Option<Vec<u8>>]) -> ArrayRef {
    let schema = Arc::new(TableSchema {
        name: TableName::new("seed", "one"),
        columns: vec![Column {
            name: "c".to_owned(),
            source_type: declaration.to_owned(),
            lake_type: Declared::parse(declaration).lake_type(),
            nullable: true,
            policy: Policy::default(),
        }],
        key: vec![],
        partition_by: vec![],
        identity: RowIdentity::Key,
    });
    let column = MapColumn { name: Some("c".to_owned()), ..column };
    let map = TableMap { table_id: 1, schema: "seed".to_owned(), table: "one".to_owned(), columns: vec![column] };
    let plan = Plan::compile(&map, &schema, &collations(), |_| false).expect("the column matches its declaration");
    let mut wire = Vec::new();
    for row in rows {
        wire.push(u8::from(row.is_none()));
        wire.extend(row.iter().flatten());
    }
    let (out, _kept) = tokio::sync::mpsc::channel(1);
    let mut collector = Collector::new(Position::Lsn(0), CollectorLimits::default(), out);
    let sink = collector.rows(&schema);
    let event = RowsEvent { table_id: 1, width: 1, complete: true, present: [&[1], &[1]], rows: &wire };
    let count = plan.decode(RowsKind::Write, &event, sink).expect("well formed");
    assert_eq!(count, rows.len());
    sink.builder.finish().expect("one column of the schema's type").column(0).clone()
}

fn one(declaration: &str, column: MapColumn, field: Vec<u8>) -> ArrayRef {
    decoded(declaration, column, &[Some(field)])
}

fn of(kind: u8) -> MapColumn {
    MapColumn { kind, ..MapColumn::default() }
}

/// (declaration, log type, bytes)
const INTEGERS: [(&str, u8, usize); 5] = [
    ("tinyint", kind::TINY, 1),
    ("smallint", kind::SHORT, 2),
    ("mediumint", kind::INT24, 3),
    ("int", kind::LONG, 4),
    ("bigint", kind::LONGLONG, 8),
];

fn number(array: &ArrayRef) -> i128 {
    use arrow::datatypes::DataType;
    match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(0).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(0).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(0).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(0).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(0),
        other => panic!("{other} is no number"),
    }
}

/// `decimal2bin`: nine digits in four bytes, the rest in as few as hold them; the sign bit inverted, all bits when negative.
fn packed(negative: bool, integer: &str, fraction: &str) -> Vec<u8> {
    let bytes_of = |digits: usize| [0, 1, 1, 2, 2, 3, 3, 4, 4, 4][digits];
    let mut out = Vec::new();
    let mut push = |digits: &str| {
        let value: u32 = if digits.is_empty() { 0 } else { digits.parse().expect("digits") };
        out.extend(&value.to_be_bytes()[4 - bytes_of(digits.len())..]);
    };
    let (head, groups) = integer.split_at(integer.len() % 9);
    push(head);
    for group in groups.as_bytes().chunks(9).chain(fraction.as_bytes().chunks(9)) {
        push(std::str::from_utf8(group).expect("ASCII"));
    }
    out[0] ^= 0x80;
    if negative {
        for byte in &mut out {
            *byte ^= 0xFF;
        }
    }
    out
}

/// Big endian fraction of `precision` digits, from microseconds.
fn fraction(micro: u32, precision: u8) -> Vec<u8> {
    let size = usize::from(precision).div_ceil(2);
    let scaled = micro / 10_u32.pow(6 - 2 * size as u32);
    scaled.to_be_bytes()[4 - size..].to_vec()
}

/// Microseconds as a column of `precision` digits keeps them.
fn kept(micro: u32, precision: u8) -> u32 {
    let unit = 10_u32.pow(6 - u32::from(precision));
    micro / unit * unit
}

/// A calendar date; the years from 1 to 9999.
fn date() -> impl Strategy<Value = chrono::NaiveDate> {
    (-719_162_i32..=2_932_896)
        .prop_map(|days| chrono::NaiveDate::from_num_days_from_ce_opt(days + 719_163).expect("within chrono's years"))
}

/// A document, not deeper than the server's own would be in practice.
fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-40_000_i64..40_000).prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        "[\\x00-\\x1F\"\\\\a]{0,8}".prop_map(Value::from),
        "a{0,300}".prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// MySQL's binary JSON, with offsets of four bytes where asked or needed (`json_binary.cc`).
fn binary_json(value: &Value, large: bool) -> (u8, Vec<u8>) {
    match value {
        Value::Null => (4, vec![0]),
        Value::Bool(truth) => (4, vec![if *truth { 1 } else { 2 }]),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) if i16::try_from(signed).is_ok() => (5, (signed as i16).to_le_bytes().to_vec()),
            (_, Some(unsigned)) if u16::try_from(unsigned).is_ok() => (6, (unsigned as u16).to_le_bytes().to_vec()),
            (Some(signed), _) if i32::try_from(signed).is_ok() => (7, (signed as i32).to_le_bytes().to_vec()),
            (_, Some(unsigned)) if u32::try_from(unsigned).is_ok() => (8, (unsigned as u32).to_le_bytes().to_vec()),
            (Some(signed), _) => (9, signed.to_le_bytes().to_vec()),
            (None, Some(unsigned)) => (10, unsigned.to_le_bytes().to_vec()),
            (None, None) => (11, number.as_f64().expect("a double").to_le_bytes().to_vec()),
        },
        Value::String(text) => {
            let mut out = length(text.len());
            out.extend(text.as_bytes());
            (12, out)
        }
        Value::Array(values) => {
            let values: Vec<&Value> = values.iter().collect();
            (if large { 3 } else { 2 }, container(&[], &values, large))
        }
        Value::Object(members) => {
            let keys: Vec<&str> = members.keys().map(String::as_str).collect();
            let values: Vec<&Value> = members.values().collect();
            (if large { 1 } else { 0 }, container(&keys, &values, large))
        }
    }
}

fn length(mut length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (length & 0x7F) as u8;
        length >>= 7;
        if length == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn container(keys: &[&str], values: &[&Value], large: bool) -> Vec<u8> {
    let size = if large { 4 } else { 2 };
    let put = |out: &mut Vec<u8>, number: usize| out.extend(&(number as u32).to_le_bytes()[..size]);
    let head = 2 * size + keys.len() * (size + 2) + values.len() * (size + 1);
    let mut tail = Vec::new();
    let mut entries = Vec::new();
    for key in keys {
        put(&mut entries, head + tail.len());
        entries.extend((key.len() as u16).to_le_bytes());
        tail.extend(key.as_bytes());
    }
    for value in values {
        let (kind, bytes) = binary_json(value, large);
        entries.push(kind);
        let inlined = matches!(kind, 4..=6) || (large && matches!(kind, 7 | 8));
        if inlined {
            let mut padded = bytes;
            padded.resize(size, 0);
            entries.extend(padded);
        } else {
            put(&mut entries, head + tail.len());
            tail.extend(bytes);
        }
    }
    let mut out = Vec::new();
    put(&mut out, values.len());
    put(&mut out, head + tail.len());
    out.extend(entries);
    out.extend(tail);
    out
}

fn same_json(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same_json(a, b))
        }
        // serde_json reads doubles to the last bit but one; `doubles_inside_json_keep_their_bits` is about that bit.
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let bits = |number: &serde_json::Number| number.as_f64().unwrap_or_default().to_bits();
            bits(a).abs_diff(bits(b)) <= 2
        }
        (a, b) => a == b,
    }
}

proptest! {
    /// M-1, M-2, B1: every width, signed and unsigned.
    #[test]
    fn integers_decode_to_themselves(value in any::<i64>(), which in 0..5_usize, unsigned in any::<bool>()) {
        let (declaration, kind, size) = INTEGERS[which];
        let bits = 8 * size as u32;
        let bytes = value.to_le_bytes()[..size].to_vec();
        let expected = if unsigned {
            i128::from(value as u64 & (u64::MAX >> (64 - bits)))
        } else {
            i128::from(value << (64 - bits) >> (64 - bits))
        };
        let declaration = if unsigned { format!("{declaration} unsigned") } else { declaration.to_owned() };
        let array = one(&declaration, MapColumn { unsigned, ..of(kind) }, bytes);
        prop_assert_eq!(number(&array), expected);
    }

    /// M-4: every bit, NaN's included.
    #[test]
    fn floats_keep_their_bits(float in any::<u32>(), double in any::<u64>()) {
        let array = one("float", MapColumn { length: 4, ..of(kind::FLOAT) }, float.to_le_bytes().to_vec());
        prop_assert_eq!(array.as_primitive::<Float32Type>().value(0).to_bits(), float);
        let array = one("double", MapColumn { length: 8, ..of(kind::DOUBLE) }, double.to_le_bytes().to_vec());
        prop_assert_eq!(array.as_primitive::<Float64Type>().value(0).to_bits(), double);
    }

    /// M-5, M-6: all digits the server allows.
    #[test]
    fn decimals_keep_every_digit(
        negative in any::<bool>(),
        digits in prop::collection::vec(0..10_u8, 1..=65),
        scale in any::<prop::sample::Index>(),
    ) {
        let precision = digits.len();
        let scale = scale.index(precision.min(30) + 1);
        let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let (integer, fraction) = text.split_at(precision - scale);
        let bytes = packed(negative, integer, fraction);
        let (precision, scale) = (precision as u8, scale as u8);
        prop_assert_eq!(bytes.len(), decimal::packed_size(precision, scale));
        let canonical = decimal::packed_text(&bytes, precision, scale).expect("packed");
        let written = format!("{}{integer}.{fraction}0", if negative { "-" } else { "" });
        let mut expected = decimal::text_canonical(&written).expect("a decimal");
        expected.pop();
        prop_assert_eq!(&canonical, expected.trim_end_matches('.'));
        if precision <= 38 {
            let value: i128 = text.parse().expect("38 digits fit");
            let value = if negative { -value } else { value };
            prop_assert_eq!(decimal::packed_value(&bytes, precision, scale), Ok(value));
            prop_assert_eq!(decimal::text_value(&canonical, precision, scale), Ok(value));
            let column = MapColumn { length: precision.into(), scale, ..of(kind::NEWDECIMAL) };
            prop_assert_eq!(number(&one(&format!("decimal({precision},{scale})"), column, bytes)), value);
        }
    }

    /// M-8
    #[test]
    fn dates_decode_to_themselves(date in date()) {
        use chrono::Datelike;
        let packed = (date.year() as u32) << 9 | date.month() << 5 | date.day();
        let array = one("date", of(kind::DATE), packed.to_le_bytes()[..3].to_vec());
        prop_assert_eq!(array.as_primitive::<Date32Type>().value(0), date.num_days_from_ce() - 719_163);
    }

    /// M-8, M-10: every precision.
    #[test]
    fn datetimes_and_timestamps_decode_to_themselves(
        date in date(),
        second in 0..86_400_u32,
        micro in 0..1_000_000_u32,
        precision in 0..=6_u8,
        epoch in 1..=u32::MAX,
    ) {
        use chrono::Datelike;
        let micro = kept(micro, precision);
        let year_month = u64::from(date.year() as u32 * 13 + date.month());
        let (hour, minute, rest) = (second / 3600, second / 60 % 60, second % 60);
        let whole = (year_month << 22)
            | u64::from(date.day()) << 17 | u64::from(hour) << 12 | u64::from(minute) << 6 | u64::from(rest);
        let mut bytes = (whole | 1 << 39).to_be_bytes()[3..].to_vec();
        bytes.extend(fraction(micro, precision));
        let column = |kind| MapColumn { length: precision.into(), ..of(kind) };
        let array = one(&format!("datetime({precision})"), column(kind::DATETIME2), bytes);
        let days = i64::from(date.num_days_from_ce() - 719_163);
        let expected = (days * 86_400 + i64::from(second)) * 1_000_000 + i64::from(micro);
        prop_assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), expected);

        let mut bytes = epoch.to_be_bytes().to_vec();
        bytes.extend(fraction(micro, precision));
        let array = one(&format!("timestamp({precision})"), column(kind::TIMESTAMP2), bytes);
        let expected = i64::from(epoch) * 1_000_000 + i64::from(micro);
        prop_assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), expected);
    }

    /// M-11, B3: both signs, every precision.
    #[test]
    fn times_decode_to_themselves(
        negative in any::<bool>(),
        second in 0..=3_020_399_u32,
        micro in 0..1_000_000_u32,
        precision in 0..=6_u8,
    ) {
        let micro = kept(micro, precision);
        let size = 3 + temporal::fraction_bytes(precision);
        let shift = 8 * (size - 3);
        let whole = i64::from(second / 3600) << 12 | i64::from(second / 60 % 60) << 6 | i64::from(second % 60);
        let unit = 10_u32.pow(6 - 2 * (size as u32 - 3));
        let magnitude = whole << shift | i64::from(micro / unit);
        let signed = if negative { -magnitude } else { magnitude };
        let bytes = (signed + (1 << (23 + shift))).to_be_bytes()[8 - size..].to_vec();
        let column = MapColumn { length: precision.into(), ..of(kind::TIME2) };
        let expected = i128::from(second) * 1_000_000 + i128::from(micro);
        let expected = if negative { -expected } else { expected };
        prop_assert_eq!(number(&one(&format!("time({precision})"), column, bytes)), expected);
    }

    /// M-13: lengths of one and two bytes, the column's character set, NULLs between.
    #[test]
    fn strings_decode_to_themselves(texts in prop::collection::vec(prop::option::of("\\PC{0,40}"), 1..5), wide in any::<bool>()) {
        let width: u16 = if wide { 1200 } else { 200 };
        let rows: Vec<Option<Vec<u8>>> = texts
            .iter()
            .map(|text| {
                text.as_ref().map(|text| {
                    let mut field = (text.len() as u16).to_le_bytes()[..1 + usize::from(wide)].to_vec();
                    field.extend(text.as_bytes());
                    field
                })
            })
            .collect();
        let column = MapColumn { length: width, collation: Some(45), ..of(kind::VARCHAR) };
        let array = decoded("varchar(50)", column, &rows);
        let decoded: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
        prop_assert_eq!(decoded, texts.iter().map(Option::as_deref).collect::<Vec<_>>());
    }

    /// M-13: what the character set holds comes back. (Sets of one to four bytes come as tables of the server's:
    /// tests/types/mysql/charsets.rs.)
    #[test]
    fn text_of_every_wide_character_set_decodes_to_itself(text in "[a-z가-힣ぁ-ん一-龥é]{0,20}") {
        let utf16: Vec<u16> = text.encode_utf16().collect();
        let big: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let utf32: Vec<u8> = text.chars().flat_map(|character| (character as u32).to_be_bytes()).collect();
        for (name, bytes) in [("utf16", &big), ("ucs2", &big), ("utf16le", &little), ("utf32", &utf32)] {
            let charset = collations().by_name(name).expect(name);
            prop_assert_eq!(charset.decode(bytes), (text.as_str().into(), false), "{}", name);
        }
    }

    /// M-14, B6: length prefixes of one to four bytes; BINARY(n) gets its stripped zeros back.
    #[test]
    fn bytes_decode_to_themselves(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in 1..=4_u16, width in 1..=255_u16) {
        let mut field = (bytes.len() as u32).to_le_bytes()[..usize::from(prefix)].to_vec();
        field.extend(&bytes);
        let array = one("longblob", MapColumn { length: prefix, collation: Some(63), ..of(kind::BLOB) }, field);
        prop_assert_eq!(array.as_binary::<i32>().value(0), bytes.as_slice());

        let mut stored = bytes;
        stored.resize(usize::from(width), 0);
        let end = stored.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut field = vec![end as u8];
        field.extend(&stored[..end]);
        let column = MapColumn { length: width, collation: Some(63), ..of(kind::STRING) };
        // Sixteen and four bytes are MariaDB's UUID and INET4 only under those declarations.
        let array = one(&format!("binary({width})"), column, field);
        prop_assert_eq!(array.as_binary::<i32>().value(0), stored.as_slice());
    }

    /// M-7
    #[test]
    fn bits_decode_to_themselves(value in any::<u64>(), bits in 1..=64_u32) {
        let value = value & (u64::MAX >> (64 - bits));
        let size = bits.div_ceil(8) as usize;
        let bytes = value.to_be_bytes()[8 - size..].to_vec();
        let column = MapColumn { length: (bits / 8) as u16, scale: (bits % 8) as u8, ..of(kind::BIT) };
        let array = one(&format!("bit({bits})"), column, bytes.clone());
        if bits == 1 {
            prop_assert_eq!(array.as_boolean().value(0), value == 1);
        } else {
            prop_assert_eq!(array.as_binary::<i32>().value(0), bytes.as_slice());
        }
    }

    /// M-15, M-16, B9
    #[test]
    fn enums_and_sets_decode_to_their_labels(count in 1..=64_usize, member in any::<prop::sample::Index>(), members in any::<u64>()) {
        let labels: Vec<Vec<u8>> = (0..count).map(|index| format!("label {index}é").into_bytes()).collect();
        let text = |index: usize| format!("label {index}é");
        let column = |kind, length| MapColumn { length, collation: Some(45), labels: Some(labels.clone()), ..of(kind) };
        let member = member.index(count);
        let array = one("enum('…')", column(kind::ENUM, 2), (member as u16 + 1).to_le_bytes().to_vec());
        prop_assert_eq!(array.as_string::<i32>().value(0), text(member));
        let members = members & (u64::MAX >> (64 - count));
        let size = count.div_ceil(8);
        let array = one("set('…')", column(kind::SET, size as u16), members.to_le_bytes()[..size].to_vec());
        let chosen: Vec<String> = (0..count).filter(|index| members >> index & 1 == 1).map(text).collect();
        prop_assert_eq!(array.as_string::<i32>().value(0), chosen.join(","));
    }

    /// M-17: scalars, arrays and objects, with offsets of two and of four bytes.
    #[test]
    fn json_documents_decode_to_themselves(document in document(), large in any::<bool>()) {
        let (kind, bytes) = binary_json(&document, large);
        if !large && bytes.len() > usize::from(u16::MAX) {
            return Ok(());
        }
        let mut binary = vec![kind];
        binary.extend(bytes);
        let (text, broken) = json::text(&binary).expect("well formed");
        prop_assert!(!broken);
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert!(same_json(&parsed, &document), "{} is not {}", text, document);
    }

    /// M-17
    #[test]
    fn doubles_inside_json_keep_their_bits(double in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
        let mut document = vec![11];
        document.extend(double.to_le_bytes());
        let (text, _) = json::text(&document).expect("well formed");
        prop_assert_eq!(text.parse::<f64>().expect("a double").to_bits(), double.to_bits(), "{}", text);
    }

    /// M-17: the types that JSON does not have.
    #[test]
    fn decimals_inside_json_keep_their_digits(negative in any::<bool>(), integer in "[0-9]{1,20}", fraction in "[0-9]{0,10}") {
        let (precision, scale) = (integer.len() + fraction.len(), fraction.len());
        let mut value = vec![precision as u8, scale as u8];
        value.extend(packed(negative, &integer, &fraction));
        let mut document = vec![15, 246];
        document.extend(length(value.len()));
        document.extend(value);
        let written = format!("{}{integer}{}{fraction}", if negative { "-" } else { "" }, if scale > 0 { "." } else { "" });
        prop_assert_eq!(json::text(&document).map(|(text, _)| text), decimal::text_canonical(&written));
    }
}

/// M-17: a document whose offsets need four bytes.
#[test]
fn json_of_more_than_64_kibibytes_decodes_to_itself() {
    let members =
        (0..3000).map(|index| (format!("key {index:04}"), Value::from(format!("value {index} {}", "x".repeat(30)))));
    let document = Value::Object(members.collect());
    let (kind, bytes) = binary_json(&document, true);
    assert!(bytes.len() > 1 << 16);
    let mut binary = vec![kind];
    binary.extend(bytes);
    let parsed: Value = serde_json::from_str(&json::text(&binary).expect("well formed").0).expect("JSON");
    assert_eq!(parsed, document);
}
