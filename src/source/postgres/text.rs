//! PostgreSQL's text form of a value, straight into an Arrow builder.
//!
//! The same functions read the log (pgoutput sends text) and the snapshot (`COPY … TO STDOUT` sends the same text), so
//! a value can't differ between the two (T-0). They rely on the session settings of `connection.rs` (P-0): ISO dates,
//! UTC, hex bytea, shortest exact floats, the C locale's money. Formats: PostgreSQL manual, chapter 8 "Data Types",
//! and the output functions it describes (`timestamp_out`, `EncodeDateTime` in datetime.c, `cash_out`).
//!
//! Every append function adds exactly one value, or none and an error.

use crate::schema::{ColumnBuilder, ListColumn, Reason};

use super::array::{self, Shape};

/// How the text of one column is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decode {
    Boolean,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// A number without a fraction, into whatever integer type the column has.
    Whole,
    Money,
    Text,
    Bytea,
    Date,
    /// With or without a zone; the session's zone is UTC.
    Timestamp,
    /// Microseconds since midnight, up to and including 24:00:00.
    Time,
    /// A list; `element` is not an array.
    Array {
        element: Box<Decode>,
        delimiter: u8,
    },
}

/// Whether the lake holds the value as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exact,
    /// NULL was appended, or in a list in the element's place; broken text with U+FFFD for what is broken.
    Unfaithful(Reason),
}

/// Text that PostgreSQL can't have written for this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not have the text form of its type")]
pub struct Malformed;

/// Reads `text` into `builder`, which the plan made for the same type.
pub fn append(decode: &Decode, text: &[u8], builder: &mut ColumnBuilder) -> Result<Outcome, Malformed> {
    match (decode, &mut *builder) {
        (Decode::Boolean, ColumnBuilder::Boolean(b)) => b.append_value(match text {
            b"t" => true,
            b"f" => false,
            _ => return Err(Malformed),
        }),
        (Decode::Short, ColumnBuilder::Short(b)) => b.append_value(integer(text)?.try_into().map_err(|_| Malformed)?),
        (Decode::Integer, ColumnBuilder::Integer(b)) => {
            b.append_value(integer(text)?.try_into().map_err(|_| Malformed)?);
        }
        (Decode::Long, ColumnBuilder::Long(b)) => b.append_value(integer(text)?),
        (Decode::Float, ColumnBuilder::Float(b)) => b.append_value(utf8(text)?.parse().map_err(|_| Malformed)?),
        (Decode::Double, ColumnBuilder::Double(b)) => b.append_value(utf8(text)?.parse().map_err(|_| Malformed)?),
        (Decode::Decimal { precision, scale }, ColumnBuilder::Decimal(b)) => {
            match decimal(text, *precision, *scale, &[])? {
                Ok(value) => b.append_value(value),
                Err(reason) => return Ok(replaced(builder, reason)),
            }
        }
        (Decode::Whole, builder) => return whole(text, builder),
        (Decode::Money, ColumnBuilder::Decimal(b)) => match decimal(text, 19, 2, b"$,")? {
            Ok(value) => b.append_value(value),
            Err(_) => return Err(Malformed),
        },
        (Decode::Text, ColumnBuilder::String(b)) => match std::str::from_utf8(text) {
            Ok(text) => b.append_value(text),
            // The type "char" holds any byte, and up to PostgreSQL 15 writes it as it is.
            Err(_) => {
                b.append_value(String::from_utf8_lossy(text));
                return Ok(Outcome::Unfaithful(Reason::BrokenText));
            }
        },
        (Decode::Bytea, ColumnBuilder::Binary(b)) => append_hex(text, b)?,
        (Decode::Date, ColumnBuilder::Date(b)) => match date(text)? {
            Some(days) => b.append_value(days),
            None => return Ok(replaced(builder, Reason::OutOfRange)),
        },
        (Decode::Timestamp, ColumnBuilder::Timestamp(b)) => match timestamp(text)? {
            Some(micros) => b.append_value(micros),
            None => return Ok(replaced(builder, Reason::OutOfRange)),
        },
        (Decode::Time, ColumnBuilder::Long(b)) => b.append_value(time(&mut Reader(text), true)?),
        (Decode::Array { element, delimiter }, ColumnBuilder::Array(list)) => {
            return match append_list(element, *delimiter, text, list)? {
                Some(outcome) => Ok(outcome),
                None => Ok(replaced(builder, Reason::ArrayShape)),
            };
        }
        // The plan pairs both; a pair that does not fit is told as unreadable, not as a panic.
        _ => return Err(Malformed),
    }
    Ok(Outcome::Exact)
}

fn replaced(builder: &mut ColumnBuilder, reason: Reason) -> Outcome {
    builder.append_null();
    Outcome::Unfaithful(reason)
}

/// Appends a list, or `None` and nothing where the array has another shape. Elements of a malformed array may have been
/// appended, but no list: its table stops.
fn append_list(
    element: &Decode,
    delimiter: u8,
    text: &[u8],
    list: &mut ListColumn,
) -> Result<Option<Outcome>, Malformed> {
    if array::shape(text)? == Shape::Other {
        return Ok(None);
    }
    let mut outcome = Outcome::Exact;
    array::for_each(text, delimiter, |text| {
        match text {
            Some(text) => {
                if let unfaithful @ Outcome::Unfaithful(_) = append(element, text, &mut list.elements)? {
                    outcome = unfaithful;
                }
            }
            None => list.elements.append_null(),
        }
        Ok(())
    })?;
    // A batch is handed on long before it holds 2^31 elements.
    if list.end(true) { Ok(Some(outcome)) } else { Err(Malformed) }
}

/// A number without a fraction, into an integer column of any width.
fn whole(text: &[u8], builder: &mut ColumnBuilder) -> Result<Outcome, Malformed> {
    let value = match decimal(text, 38, 0, &[])? {
        Ok(value) => value,
        Err(reason) => return Ok(replaced(builder, reason)),
    };
    let fits = match builder {
        ColumnBuilder::Byte(b) => value.try_into().map(|value| b.append_value(value)).is_ok(),
        ColumnBuilder::Short(b) => value.try_into().map(|value| b.append_value(value)).is_ok(),
        ColumnBuilder::Integer(b) => value.try_into().map(|value| b.append_value(value)).is_ok(),
        ColumnBuilder::Long(b) => value.try_into().map(|value| b.append_value(value)).is_ok(),
        _ => return Err(Malformed),
    };
    Ok(if fits { Outcome::Exact } else { replaced(builder, Reason::OutOfRange) })
}

fn utf8(text: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(text).map_err(|_| Malformed)
}

/// `-9223372036854775808` to `9223372036854775807`.
fn integer(text: &[u8]) -> Result<i64, Malformed> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(Malformed);
    }
    // Negative numbers reach one further than positive ones, so the sum is kept negative.
    let mut value: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Malformed);
        }
        value = value.checked_mul(10).and_then(|value| value.checked_sub(i64::from(digit - b'0'))).ok_or(Malformed)?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(Malformed) }
}

/// The unscaled value at `scale`, or why there is none: NaN, an infinity, or more digits than the type has (in a column
/// that a contract gave another type). `ignored` are the characters that money's text has besides its digits.
fn decimal(text: &[u8], precision: u8, scale: u8, ignored: &[u8]) -> Result<Result<i128, Reason>, Malformed> {
    match text {
        b"NaN" => return Ok(Err(Reason::NotANumber)),
        b"Infinity" | b"-Infinity" => return Ok(Err(Reason::OutOfRange)),
        _ => {}
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    // `None` once it does not fit; the rest of the text is still checked.
    let mut value: Option<i128> = Some(0);
    let mut any = false;
    // Digits behind the point, once it was seen.
    let mut fraction: Option<u8> = None;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                any = true;
                if let Some(seen) = &mut fraction {
                    if *seen == scale {
                        value = value.filter(|_| byte == b'0');
                        continue;
                    }
                    *seen += 1;
                }
                value = value
                    .and_then(|value| value.checked_mul(10))
                    .and_then(|value| value.checked_add(i128::from(byte - b'0')));
            }
            b'.' if fraction.is_none() => fraction = Some(0),
            _ if ignored.contains(&byte) => {}
            _ => return Err(Malformed),
        }
    }
    if !any {
        return Err(Malformed);
    }
    for _ in fraction.unwrap_or(0)..scale {
        value = value.and_then(|value| value.checked_mul(10));
    }
    // 10^38 fits an i128, and precision is at most 38.
    let limit = 10i128.pow(u32::from(precision.min(38)));
    let value = value.filter(|value| *value < limit).map(|value| if negative { -value } else { value });
    Ok(value.ok_or(Reason::OutOfRange))
}

/// `\xdeadbeef`
fn append_hex(text: &[u8], builder: &mut arrow::array::BinaryBuilder) -> Result<(), Malformed> {
    let hex = text.strip_prefix(b"\\x").ok_or(Malformed)?;
    if hex.len() % 2 != 0 {
        return Err(Malformed);
    }
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(Malformed),
    };
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    for pair in hex.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    builder.append_value(bytes);
    Ok(())
}

/// What is left to read of a date or time.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn digits(&mut self, least: usize, most: usize) -> Result<i64, Malformed> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return Err(Malformed);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        integer(digits)
    }

    fn skip(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.take(expected) { Ok(()) } else { Err(Malformed) }
    }

    fn take(&mut self, expected: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == expected => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

/// Year, month, day; PostgreSQL prints years with at least four digits and up to seven.
fn year_month_day(reader: &mut Reader<'_>) -> Result<(i64, i64, i64), Malformed> {
    let year = reader.digits(4, 7)?;
    reader.skip(b'-')?;
    let month = reader.digits(2, 2)?;
    reader.skip(b'-')?;
    let day = reader.digits(2, 2)?;
    if (1..=12).contains(&month) && (1..=31).contains(&day) { Ok((year, month, day)) } else { Err(Malformed) }
}

/// Whether a date ends here with ` BC`.
fn before_christ(reader: &Reader<'_>) -> Result<bool, Malformed> {
    match reader.0 {
        b"" => Ok(false),
        b" BC" => Ok(true),
        _ => Err(Malformed),
    }
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar, which PostgreSQL, Arrow and Delta all use.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Counts from March, so that the leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level
    // Date Algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn is_infinity(text: &[u8]) -> bool {
    matches!(text, b"infinity" | b"-infinity")
}

fn in_lake_years(year: i64) -> bool {
    // What Spark, Trino and DuckDB all read.
    (1..=9999).contains(&year)
}

fn date(text: &[u8]) -> Result<Option<i32>, Malformed> {
    if is_infinity(text) {
        return Ok(None);
    }
    let mut reader = Reader(text);
    let (year, month, day) = year_month_day(&mut reader)?;
    if before_christ(&reader)? || !in_lake_years(year) {
        return Ok(None);
    }
    i32::try_from(days_from_civil(year, month, day)).map(Some).map_err(|_| Malformed)
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// `13:05:06.123456`
fn time(reader: &mut Reader<'_>, whole: bool) -> Result<i64, Malformed> {
    let hours = reader.digits(2, 2)?;
    reader.skip(b':')?;
    let minutes = reader.digits(2, 2)?;
    reader.skip(b':')?;
    let seconds = reader.digits(2, 2)?;
    let mut micros = ((hours * 60 + minutes) * 60 + seconds) * MICROS_PER_SECOND;
    if reader.take(b'.') {
        let length_before = reader.0.len();
        let fraction = reader.digits(1, 6)?;
        let digits = (length_before - reader.0.len()) as u32;
        micros += fraction * 10i64.pow(6 - digits);
    }
    if minutes > 59 || seconds > 60 || micros > MICROS_PER_DAY || (whole && !reader.0.is_empty()) {
        return Err(Malformed);
    }
    Ok(micros)
}

/// Microseconds since the epoch; an offset, if there is one, is taken off.
fn timestamp(text: &[u8]) -> Result<Option<i64>, Malformed> {
    if is_infinity(text) {
        return Ok(None);
    }
    let mut reader = Reader(text);
    let (year, month, day) = year_month_day(&mut reader)?;
    reader.skip(b' ')?;
    let mut micros = time(&mut reader, false)?;
    let sign = match reader.0.first() {
        Some(b'+') => -1,
        Some(b'-') => 1,
        _ => 0,
    };
    if sign != 0 {
        reader.0 = &reader.0[1..];
        let mut offset = reader.digits(2, 2)? * 3600;
        if reader.take(b':') {
            offset += reader.digits(2, 2)? * 60;
            if reader.take(b':') {
                offset += reader.digits(2, 2)?;
            }
        }
        micros += sign * offset * MICROS_PER_SECOND;
    }
    if before_christ(&reader)? || !in_lake_years(year) {
        return Ok(None);
    }
    Ok(Some(days_from_civil(year, month, day) * MICROS_PER_DAY + micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::LakeType;
    use arrow::array::AsArray;
    use arrow::datatypes::*;
    use proptest::prelude::*;

    fn all() -> Vec<Decode> {
        let list = |element| Decode::Array { element: Box::new(element), delimiter: b',' };
        vec![
            Decode::Boolean,
            Decode::Short,
            Decode::Integer,
            Decode::Long,
            Decode::Float,
            Decode::Double,
            Decode::Decimal { precision: 38, scale: 4 },
            Decode::Money,
            Decode::Text,
            Decode::Bytea,
            Decode::Date,
            Decode::Timestamp,
            Decode::Time,
            Decode::Whole,
            list(Decode::Integer),
            list(Decode::Text),
            list(Decode::Timestamp),
        ]
    }

    fn lake_type(decode: &Decode) -> LakeType {
        match decode {
            Decode::Boolean => LakeType::Boolean,
            Decode::Short => LakeType::Short,
            Decode::Integer => LakeType::Integer,
            Decode::Long | Decode::Time | Decode::Whole => LakeType::Long,
            Decode::Float => LakeType::Float,
            Decode::Double => LakeType::Double,
            Decode::Decimal { precision, scale } => LakeType::Decimal { precision: *precision, scale: *scale },
            Decode::Money => LakeType::Decimal { precision: 19, scale: 2 },
            Decode::Text => LakeType::String,
            Decode::Bytea => LakeType::Binary,
            Decode::Date => LakeType::Date,
            Decode::Timestamp => LakeType::Timestamp,
            Decode::Array { element, .. } => LakeType::Array(lake_type(element).element().expect("not nested")),
        }
    }

    fn appended(decode: Decode, text: &str) -> Result<(Outcome, ColumnBuilder), Malformed> {
        let mut builder = ColumnBuilder::new(lake_type(&decode));
        let outcome = append(&decode, text.as_bytes(), &mut builder)?;
        assert_eq!(builder.len(), 1, "one value for {text}");
        Ok((outcome, builder))
    }

    fn array(decode: Decode, text: &str) -> arrow::array::ArrayRef {
        let (outcome, mut builder) = appended(decode, text).unwrap_or_else(|_| panic!("{text} is readable"));
        assert_eq!(outcome, Outcome::Exact, "{text}");
        use std::sync::Arc;
        match &mut builder {
            ColumnBuilder::Boolean(b) => Arc::new(b.finish()),
            ColumnBuilder::Short(b) => Arc::new(b.finish()),
            ColumnBuilder::Integer(b) => Arc::new(b.finish()),
            ColumnBuilder::Long(b) => Arc::new(b.finish()),
            ColumnBuilder::Float(b) => Arc::new(b.finish()),
            ColumnBuilder::Double(b) => Arc::new(b.finish()),
            ColumnBuilder::Decimal(b) => Arc::new(b.finish()),
            ColumnBuilder::String(b) => Arc::new(b.finish()),
            ColumnBuilder::Binary(b) => Arc::new(b.finish()),
            ColumnBuilder::Date(b) => Arc::new(b.finish()),
            ColumnBuilder::Timestamp(b) => Arc::new(b.finish()),
            ColumnBuilder::Array(_) | ColumnBuilder::Geometry(_) => panic!("no case makes these"),
            ColumnBuilder::Byte(b) => Arc::new(b.finish()),
        }
    }

    fn outcome(decode: Decode, text: &str) -> Outcome {
        appended(decode, text).unwrap_or_else(|_| panic!("{text} is readable")).0
    }

    fn is_null(decode: Decode, text: &str) -> bool {
        outcome(decode, text) == Outcome::Unfaithful(Reason::OutOfRange)
    }

    fn refused(decode: Decode, text: &str) -> bool {
        appended(decode, text).is_err()
    }

    /// P-1
    #[test]
    fn integers_are_exact_to_their_ends() {
        for value in [i64::MIN, -1, 0, 42, i64::MAX] {
            assert_eq!(array(Decode::Long, &value.to_string()).as_primitive::<Int64Type>().value(0), value);
        }
        assert_eq!(array(Decode::Short, "-32768").as_primitive::<Int16Type>().value(0), i16::MIN);
        assert_eq!(array(Decode::Integer, "2147483647").as_primitive::<Int32Type>().value(0), i32::MAX);
        for text in ["", "-", "1.5", "9223372036854775808", "-9223372036854775809", "0x1", " 1", "1 "] {
            assert!(refused(Decode::Long, text), "{text}");
        }
        assert!(refused(Decode::Short, "32768"));
        assert!(refused(Decode::Integer, "-2147483649"));
    }

    /// P-1
    #[test]
    fn floats_are_bit_exact_with_nan_infinities_and_minus_zero() {
        let double = |text: &str| array(Decode::Double, text).as_primitive::<Float64Type>().value(0);
        assert_eq!(double("-0").to_bits(), (-0.0f64).to_bits());
        assert_eq!(double("0.30000000000000004"), 0.1 + 0.2);
        assert_eq!(double("1.7976931348623157e+308"), f64::MAX);
        assert_eq!(double("5e-324"), f64::from_bits(1));
        assert!(double("NaN").is_nan());
        assert_eq!(double("Infinity"), f64::INFINITY);
        assert_eq!(double("-Infinity"), f64::NEG_INFINITY);
        let float = |text: &str| array(Decode::Float, text).as_primitive::<Float32Type>().value(0);
        assert_eq!(float("3.4028235e+38"), f32::MAX);
        assert_eq!(float("1e-45"), f32::from_bits(1));
    }

    /// P-2
    #[test]
    fn decimals_keep_every_digit() {
        let value = |text: &str, precision, scale| {
            array(Decode::Decimal { precision, scale }, text).as_primitive::<Decimal128Type>().value(0)
        };
        assert_eq!(value("-123.4500", 10, 4), -1_234_500);
        assert_eq!(value("0.01", 3, 2), 1);
        assert_eq!(value("7", 5, 2), 700);
        assert_eq!(value("1234500", 7, 0), 1_234_500);
        assert_eq!(value("99999999999999999999999999999999999999", 38, 0), 10i128.pow(38) - 1);
        assert_eq!(value("-0.00000000000000000000000000000000000001", 38, 38), -1);
        // A contract may have made the column smaller.
        assert!(is_null(Decode::Decimal { precision: 5, scale: 2 }, "1000.00"));
        assert!(is_null(Decode::Decimal { precision: 5, scale: 2 }, "1.001"));
        assert!(is_null(Decode::Decimal { precision: 38, scale: 0 }, "100000000000000000000000000000000000000"));
        assert!(is_null(Decode::Decimal { precision: 38, scale: 37 }, &"9".repeat(60)));
        assert!(refused(Decode::Decimal { precision: 5, scale: 2 }, &format!("{}x", "9".repeat(60))));
        for text in ["", "-", ".", "1e5", "1.2.3", "$1"] {
            assert!(refused(Decode::Decimal { precision: 5, scale: 2 }, text), "{text}");
        }
    }

    /// P-3
    #[test]
    fn nan_and_infinity_in_a_decimal_are_null_and_told() {
        let five = Decode::Decimal { precision: 5, scale: 2 };
        assert_eq!(outcome(five.clone(), "NaN"), Outcome::Unfaithful(Reason::NotANumber));
        for text in ["Infinity", "-Infinity"] {
            assert!(is_null(five.clone(), text));
        }
    }

    /// P-4
    #[test]
    fn dates_and_timestamps_from_year_1_to_9999() {
        let days = |text: &str| array(Decode::Date, text).as_primitive::<Date32Type>().value(0);
        assert_eq!(days("1970-01-01"), 0);
        assert_eq!(days("2000-02-29"), 11_016);
        assert_eq!(days("0001-01-01"), -719_162);
        assert_eq!(days("9999-12-31"), 2_932_896);
        let micros = |text: &str| array(Decode::Timestamp, text).as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(micros("1970-01-01 00:00:00"), 0);
        assert_eq!(micros("1969-12-31 23:59:59.999999"), -1);
        assert_eq!(micros("2024-02-03 13:05:06.5+00"), 1_706_965_506_500_000);
        assert_eq!(micros("2024-02-03 13:05:06.5+05:30"), 1_706_965_506_500_000 - 19_800_000_000);
        assert_eq!(micros("2024-02-03 13:05:06.5-00:00:10"), 1_706_965_506_500_000 + 10_000_000);
        assert_eq!(micros("9999-12-31 23:59:59.999999"), 253_402_300_799_999_999);
    }

    /// P-4
    #[test]
    fn what_readers_cannot_hold_is_null_and_told() {
        for text in ["infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31", "10000-01-01"] {
            assert!(is_null(Decode::Date, text), "{text}");
        }
        for text in [
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "0001-01-01 00:00:00+00 BC",
        ] {
            assert!(is_null(Decode::Timestamp, text), "{text}");
        }
        for text in
            ["", "2024-13-01", "2024-00-01", "2024-01-32", "24-01-01", "2024-01-01 AD", "03/02/2024", "2024-01-01x"]
        {
            assert!(refused(Decode::Date, text), "{text}");
        }
        for text in [
            "2024-01-01",
            "2024-01-01 25:00:00",
            "2024-01-01 00:61:00",
            "2024-01-01 00:00:00+",
            "03/02/2024 13:05:06 JST",
        ] {
            assert!(refused(Decode::Timestamp, text), "{text}");
        }
    }

    /// P-5
    #[test]
    fn time_reaches_24_hours() {
        let micros = |text: &str| array(Decode::Time, text).as_primitive::<Int64Type>().value(0);
        assert_eq!(micros("00:00:00"), 0);
        assert_eq!(micros("12:00:00.5"), 43_200_500_000);
        assert_eq!(micros("23:59:59.999999"), MICROS_PER_DAY - 1);
        assert_eq!(micros("24:00:00"), MICROS_PER_DAY);
        assert!(refused(Decode::Time, "24:00:01"));
        assert!(refused(Decode::Time, "12:00:00+05:30"));
    }

    /// P-7
    #[test]
    fn bytea_and_text_are_verbatim() {
        assert_eq!(array(Decode::Bytea, "\\x00ff10").as_binary::<i32>().value(0), [0, 255, 16]);
        assert_eq!(array(Decode::Bytea, "\\x").as_binary::<i32>().value(0), b"");
        for text in ["00", "\\x0", "\\xzz", "\\000\\001"] {
            assert!(refused(Decode::Bytea, text), "{text}");
        }
        assert_eq!(array(Decode::Text, "ab   ").as_string::<i32>().value(0), "ab   ");
        let mut builder = ColumnBuilder::new(LakeType::String);
        let broken = append(&Decode::Text, b"a\xff", &mut builder);
        assert_eq!((broken, builder.len()), (Ok(Outcome::Unfaithful(Reason::BrokenText)), 1));
    }

    /// P-9
    #[test]
    fn money_loses_its_sign_and_commas_only() {
        let cents = |text: &str| array(Decode::Money, text).as_primitive::<Decimal128Type>().value(0);
        assert_eq!(cents("$1,234.56"), 123_456);
        assert_eq!(cents("-$92,233,720,368,547,758.08"), -9_223_372_036_854_775_808);
        assert!(refused(Decode::Money, "1.234,56 €"));
    }

    #[test]
    fn a_whole_number_fits_its_column_or_is_told() {
        let long = |text: &str| array(Decode::Whole, text).as_primitive::<Int64Type>().value(0);
        assert_eq!(long("-9223372036854775808"), i64::MIN);
        assert_eq!(long("7.000"), 7);
        for text in ["9223372036854775808", "1.5", "-Infinity"] {
            assert!(is_null(Decode::Whole, text), "{text}");
        }
        let mut byte = ColumnBuilder::new(LakeType::Byte);
        assert_eq!(append(&Decode::Whole, b"128", &mut byte), Ok(Outcome::Unfaithful(Reason::OutOfRange)));
        assert_eq!(append(&Decode::Whole, b"-128", &mut byte), Ok(Outcome::Exact));
        assert!(refused(Decode::Whole, "x"));
    }

    /// P-11
    #[test]
    fn lists_keep_nulls_and_other_shapes_are_told() {
        let list = |element| Decode::Array { element: Box::new(element), delimiter: b',' };
        assert_eq!(outcome(list(Decode::Integer), "{1,NULL,3}"), Outcome::Exact);
        assert_eq!(outcome(list(Decode::Integer), "{}"), Outcome::Exact);
        for text in ["{{1,2}}", "[0:0]={1}"] {
            assert_eq!(outcome(list(Decode::Integer), text), Outcome::Unfaithful(Reason::ArrayShape), "{text}");
        }
        assert!(is_null(list(Decode::Timestamp), "{\"2024-01-01 00:00:00\",infinity}"));
        assert!(refused(list(Decode::Integer), "{a}"));
    }

    #[test]
    fn booleans_are_t_and_f() {
        assert!(array(Decode::Boolean, "t").as_boolean().value(0));
        assert!(!array(Decode::Boolean, "f").as_boolean().value(0));
        assert!(refused(Decode::Boolean, "true"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_each_adds_one_value_or_none(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            for decode in all() {
                let mut builder = ColumnBuilder::new(lake_type(&decode));
                let result = append(&decode, &text, &mut builder);
                prop_assert_eq!(builder.len(), usize::from(result.is_ok()));
            }
        }

        #[test]
        fn no_almost_right_text_panics(text in "[-+$,.:0-9 BCinfty]{0,40}") {
            for decode in all() {
                let mut builder = ColumnBuilder::new(lake_type(&decode));
                let result = append(&decode, text.as_bytes(), &mut builder);
                prop_assert_eq!(builder.len(), usize::from(result.is_ok()));
            }
        }

        #[test]
        fn every_day_survives(days in -719_162i32..=2_932_896) {
            let text = (chrono::NaiveDate::default() + chrono::Duration::days(days.into())).format("%Y-%m-%d").to_string();
            prop_assert_eq!(date(text.as_bytes()), Ok(Some(days)));
        }
    }
}
