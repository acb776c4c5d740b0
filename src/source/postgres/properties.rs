//! What PostgreSQL writes for a value decodes to that value: a property test for every decoder.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};
use proptest::prelude::*;
use std::sync::Arc;

use super::pgoutput::{self, Message, OldKind, Value};
use super::text::{self, Decode, Outcome};
use crate::schema::{Column, LakeType, Policy, RowBuilder, RowIdentity, TableName, TableSchema};

/// The text's value in a column of one row.
fn decoded(decode: Decode, lake_type: LakeType, text: &str) -> ArrayRef {
    let schema = TableSchema {
        name: TableName::new("public", "one"),
        columns: vec![Column {
            name: "c".to_owned(),
            source_type: String::new(),
            lake_type,
            nullable: true,
            policy: Policy::default(),
        }],
        key: vec![],
        partition_by: vec![],
        identity: RowIdentity::Key,
    };
    let mut rows = RowBuilder::new(Arc::new(schema));
    let outcome = text::append(&decode, text.as_bytes(), &mut rows.columns[0]);
    assert!(matches!(outcome, Ok(Outcome::Exact)), "{text}: {outcome:?}");
    rows.end_row().expect("one value");
    rows.finish().expect("of the column's type").column(0).clone()
}

/// `numeric_out` of an unscaled value.
fn numeric(value: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale == 0 { "" } else { "." };
    format!("{}{integer}{point}{fraction}", if value < 0 { "-" } else { "" })
}

/// `array_out` of elements' texts.
fn array(elements: &[Option<String>], delimiter: u8) -> String {
    let delimiter = char::from(delimiter);
    let written = elements.iter().map(|element| match element {
        None => "NULL".to_owned(),
        Some(text) => {
            let special = |c: char| "{}\"\\".contains(c) || c == delimiter || matches!(c, ' ' | '\t'..='\r');
            if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            } else {
                text.clone()
            }
        }
    });
    format!("{{{}}}", written.collect::<Vec<_>>().join(&delimiter.to_string()))
}

/// The one list of a column of arrays.
fn decoded_list(element: Decode, lake_type: LakeType, delimiter: u8, elements: &[Option<String>]) -> ArrayRef {
    let decode = Decode::Array { element: Box::new(element), delimiter };
    let lake_type = LakeType::Array(lake_type.element().expect("lists hold it"));
    decoded(decode, lake_type, &array(elements, delimiter)).as_list::<i32>().value(0)
}

/// Microseconds in the years 1 to 9999.
fn instants() -> impl Strategy<Value = DateTime<chrono::Utc>> {
    (-62_135_596_800_000_000_i64..=253_402_300_799_999_999)
        .prop_map(|micros| DateTime::from_timestamp_micros(micros).expect("within chrono's years"))
}

proptest! {
    /// P-1
    #[test]
    fn integers_decode_to_themselves(long in any::<i64>(), integer in any::<i32>(), short in any::<i16>()) {
        let array = decoded(Decode::Long, LakeType::Long, &long.to_string());
        prop_assert_eq!(array.as_primitive::<Int64Type>().value(0), long);
        let array = decoded(Decode::Integer, LakeType::Integer, &integer.to_string());
        prop_assert_eq!(array.as_primitive::<Int32Type>().value(0), integer);
        let array = decoded(Decode::Short, LakeType::Short, &short.to_string());
        prop_assert_eq!(array.as_primitive::<Int16Type>().value(0), short);
    }

    /// P-4: the shortest digits that read back as the same number.
    #[test]
    fn floats_keep_their_bits(float in prop::num::f32::ANY, double in prop::num::f64::ANY) {
        if !float.is_nan() {
            let array = decoded(Decode::Float, LakeType::Float, &format!("{float:e}"));
            prop_assert_eq!(array.as_primitive::<Float32Type>().value(0).to_bits(), float.to_bits());
        }
        if !double.is_nan() {
            let array = decoded(Decode::Double, LakeType::Double, &format!("{double}"));
            prop_assert_eq!(array.as_primitive::<Float64Type>().value(0).to_bits(), double.to_bits());
        }
    }

    /// P-2: every precision and scale.
    #[test]
    fn numerics_keep_every_digit(value in any::<i128>(), precision in 1..=38_u8, scale in any::<prop::sample::Index>()) {
        let scale = scale.index(usize::from(precision) + 1) as u8;
        let value = value % 10_i128.pow(precision.into());
        let lake_type = LakeType::Decimal { precision, scale };
        let array = decoded(Decode::Decimal { precision, scale }, lake_type, &numeric(value, scale));
        prop_assert_eq!(array.as_primitive::<Decimal128Type>().value(0), value);
    }

    /// P-5: as the C locale prints it, `-$1,234.56`.
    #[test]
    fn money_keeps_every_cent(cents in any::<i64>()) {
        let plain = numeric(i128::from(cents.unsigned_abs()), 2);
        let (integer, fraction) = plain.split_once('.').expect("two digits behind the point");
        let groups: Vec<&str> = integer.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("ASCII")).collect();
        let text = format!("{}${}.{fraction}", if cents < 0 { "-" } else { "" }, groups.join(","));
        let array = decoded(Decode::Money, LakeType::Decimal { precision: 19, scale: 2 }, &text);
        prop_assert_eq!(array.as_primitive::<Decimal128Type>().value(0), i128::from(cents));
    }

    #[test]
    fn text_and_bytes_decode_to_themselves(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let array = decoded(Decode::Text, LakeType::String, &text);
        prop_assert_eq!(array.as_string::<i32>().value(0), text);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let array = decoded(Decode::Bytea, LakeType::Binary, &format!("\\x{hex}"));
        prop_assert_eq!(array.as_binary::<i32>().value(0), bytes.as_slice());
    }

    /// P-7, P-8: the year has four digits at least, the fraction no zeros at its end, the zone may be anything.
    #[test]
    fn dates_and_timestamps_decode_to_themselves(instant in instants(), offset in -15 * 3600..=15 * 3600_i32) {
        let date: NaiveDate = instant.date_naive();
        let array = decoded(Decode::Date, LakeType::Date, &date.format("%Y-%m-%d").to_string());
        prop_assert_eq!(array.as_primitive::<Date32Type>().value(0), date.num_days_from_ce() - 719_163);

        let micros = instant.timestamp_micros();
        let printed = |time: &chrono::NaiveDateTime| {
            let text = time.format("%Y-%m-%d %H:%M:%S.%6f").to_string();
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let text = printed(&instant.naive_utc());
        let array = decoded(Decode::Timestamp, LakeType::TimestampNtz, &text);
        prop_assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), micros);

        // Local years outside of 1 to 9999 have no lake form, even where the instant has one.
        let local = (instant + chrono::Duration::seconds(offset.into())).naive_utc();
        if (1..=9999).contains(&local.year()) {
            let away = offset.unsigned_abs();
            let mut zone = format!("{}{:02}", if offset < 0 { '-' } else { '+' }, away / 3600);
            if away % 3600 != 0 {
                zone.push_str(&format!(":{:02}", away / 60 % 60));
            }
            if away % 60 != 0 {
                zone.push_str(&format!(":{:02}", away % 60));
            }
            let array = decoded(Decode::Timestamp, LakeType::Timestamp, &format!("{}{zone}", printed(&local)));
            prop_assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), micros);
        }
    }

    /// P-9
    #[test]
    fn times_decode_to_themselves(micros in 0..=86_400_000_000_i64) {
        let (second, micro) = (micros / 1_000_000, micros % 1_000_000);
        let text = format!("{:02}:{:02}:{:02}.{micro:06}", second / 3600, second / 60 % 60, second % 60);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        // The zeros of whole minutes belong to the value.
        let text = if micro == 0 { format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60) } else { text.to_owned() };
        prop_assert_eq!(decoded(Decode::Time, LakeType::Long, &text).as_primitive::<Int64Type>().value(0), micros);
    }

    /// P-11: what needs quotes, what only looks like NULL, NULL itself, either delimiter.
    #[test]
    fn arrays_of_texts_decode_to_themselves(
        texts in prop::collection::vec(
            prop::option::of(prop_oneof!["[a-cN\\\\\"{},; \n\t]{0,6}", "\\PC{0,10}", "(?i:null)"]), 0..8),
        semicolon in any::<bool>(),
    ) {
        let list = decoded_list(Decode::Text, LakeType::String, if semicolon { b';' } else { b',' }, &texts);
        let found: Vec<Option<String>> = list.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        prop_assert_eq!(found, texts);
    }

    /// P-11: elements by the decoders of their own types; bytea's backslash needs quotes.
    #[test]
    fn arrays_of_numbers_and_bytes_decode_to_themselves(
        numbers in prop::collection::vec(prop::option::of(any::<i64>()), 0..20),
        unscaled in prop::collection::vec(prop::option::of(-9_999_999_999_i128..=9_999_999_999), 0..20),
        bytes in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..8),
    ) {
        let texts: Vec<Option<String>> = numbers.iter().map(|number| number.map(|number| number.to_string())).collect();
        let list = decoded_list(Decode::Long, LakeType::Long, b',', &texts);
        prop_assert_eq!(list.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), numbers);

        let (precision, scale) = (10, 3);
        let texts: Vec<Option<String>> = unscaled.iter().map(|value| value.map(|value| numeric(value, scale))).collect();
        let list =
            decoded_list(Decode::Decimal { precision, scale }, LakeType::Decimal { precision, scale }, b',', &texts);
        prop_assert_eq!(list.as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), unscaled);

        let hex = |bytes: &Vec<u8>| format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let texts: Vec<Option<String>> = bytes.iter().map(|bytes| bytes.as_ref().map(hex)).collect();
        let list = decoded_list(Decode::Bytea, LakeType::Binary, b',', &texts);
        let found: Vec<Option<Vec<u8>>> = list.as_binary::<i32>().iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(found, bytes);
    }

    /// The messages of rows, value by value.
    #[test]
    fn rows_of_pgoutput_decode_to_themselves(
        relation in any::<u32>(),
        values in prop::collection::vec(prop_oneof![
            Just(None),
            Just(Some(None)),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|text| Some(Some(text))),
        ], 0..12),
        kind in 0..4_u8,
    ) {
        let mut tuple = (values.len() as u16).to_be_bytes().to_vec();
        for value in &values {
            match value {
                None => tuple.push(b'n'),
                Some(None) => tuple.push(b'u'),
                Some(Some(text)) => {
                    tuple.push(b't');
                    tuple.extend((text.len() as u32).to_be_bytes());
                    tuple.extend(text);
                }
            }
        }
        let images: &[u8] = [b"N".as_slice(), b"KN", b"ON", b"O"][usize::from(kind)];
        let mut message = vec![[b'I', b'U', b'U', b'D'][usize::from(kind)]];
        message.extend(relation.to_be_bytes());
        for image in images {
            message.push(*image);
            message.extend(&tuple);
        }
        let expected: Vec<Value<'_>> = values
            .iter()
            .map(|value| match value {
                None => Value::Null,
                Some(None) => Value::Unchanged,
                Some(Some(text)) => Value::Text(text),
            })
            .collect();
        let decoded = pgoutput::decode(&message).expect("well formed");
        let (id, images) = match decoded {
            Message::Insert { relation, new } => (relation, vec![new]),
            Message::Update { relation, old: Some((old_kind, old)), new } => {
                prop_assert_eq!(old_kind == OldKind::Key, kind == 1);
                (relation, vec![old, new])
            }
            Message::Delete { relation, old: (OldKind::Full, old) } => (relation, vec![old]),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(id, relation);
        for image in images {
            prop_assert_eq!(image.values().collect::<Vec<_>>(), expected.clone());
        }
    }
}
