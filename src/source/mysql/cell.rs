//! Where a value lands: one column of the table's rows, under the contract.
//!
//! The last step of both ways a value comes, log and snapshot, so that they can't differ: each hands over what it read in
//! one neutral form (a number, a [`Civil`] date, bytes, text), and the cell puts it into the builder of the column's lake
//! type. That type is the declaration's own or the one that the contract asks for; which are possible, `declared.rs`
//! checks before anything is read. A value that the lake type cannot hold is dealt with by the column's policy, in
//! [`Cell::unfaithful`] and nowhere else. What does not fit the builder at all is a [`Fault`]: schema and decoder disagree,
//! which no default may hide.

use crate::schema::{ColumnBuilder, LakeType, Policy, Reason, RowBuilder, TableSchema};

use super::decimal;
use super::declared::Declared;
use super::temporal::{self, Civil};
use super::wire::{Fault, big_endian};

/// See the module text.
#[derive(Debug)]
pub struct Cell {
    /// Of the column in the table's rows.
    pub index: usize,
    column: String,
    key: bool,
    policy: Policy,
    lake: LakeType,
    declared: Declared,
}

impl Cell {
    /// `schema` has the lake's types; `index` is one of its columns.
    pub fn new(schema: &TableSchema, index: usize) -> Self {
        let column = &schema.columns[index];
        Self {
            index,
            column: column.name.clone(),
            key: schema.is_key(index),
            policy: column.policy,
            lake: column.lake_type,
            declared: Declared::parse(&column.source_type),
        }
    }

    pub fn column(&self) -> &str {
        &self.column
    }

    pub fn is_key(&self) -> bool {
        self.key
    }

    /// Digits of fractions of a second.
    fn digits(&self) -> u8 {
        self.declared.arguments.first().map_or(0, |digits| u8::try_from(*digits).unwrap_or(6).min(6))
    }

    /// The builder of this column.
    fn builder<'a>(&self, rows: &'a mut RowBuilder) -> Result<&'a mut ColumnBuilder, Fault> {
        rows.columns.get_mut(self.index).ok_or_else(|| Fault(format!("column {} has no builder", self.index)))
    }

    #[cold]
    fn mismatch(&self, what: &str) -> Fault {
        Fault(format!("{what} does not fit a column of type {}", self.lake))
    }

    /// A value that the lake type cannot hold: the column's policy decides. In a key it is an error whatever the policy,
    /// since two rows could become one.
    #[cold]
    fn unfaithful(&self, rows: &mut RowBuilder, reason: Reason, value: impl FnOnce() -> String) -> Result<(), Fault> {
        if self.key {
            let value = value();
            return Err(Fault(format!("{reason}: `{value}` in a key column has no form in the lake ({})", self.lake)));
        }
        if self.policy == Policy::Fail {
            return Err(Fault(format!(
                "{reason}: `{}` has no form in the lake ({}), and the contract's value policy is \"fail\"",
                value(),
                self.lake
            )));
        }
        self.builder(rows)?.append_null();
        rows.note(self.index, reason);
        Ok(())
    }

    pub fn null(&self, rows: &mut RowBuilder) -> Result<(), Fault> {
        if self.key {
            return Err(Fault::new("NULL in a key column"));
        }
        self.builder(rows)?.append_null();
        Ok(())
    }

    #[inline]
    pub fn integer(&self, rows: &mut RowBuilder, value: i128) -> Result<(), Fault> {
        let fits = match self.builder(rows)? {
            ColumnBuilder::Byte(b) => i8::try_from(value).map(|value| b.append_value(value)).is_ok(),
            ColumnBuilder::Short(b) => i16::try_from(value).map(|value| b.append_value(value)).is_ok(),
            ColumnBuilder::Integer(b) => i32::try_from(value).map(|value| b.append_value(value)).is_ok(),
            ColumnBuilder::Long(b) => i64::try_from(value).map(|value| b.append_value(value)).is_ok(),
            // tinyint(1) as the contract wants it.
            ColumnBuilder::Boolean(b) => {
                if matches!(value, 0 | 1) {
                    b.append_value(value == 1);
                }
                matches!(value, 0 | 1)
            }
            ColumnBuilder::Decimal(_) => return self.decimal(rows, value, 0),
            ColumnBuilder::String(b) => {
                b.append_value(self.declared.integer_text(value));
                true
            }
            _ => return Err(self.mismatch(&format!("the number {value}"))),
        };
        if fits { Ok(()) } else { self.unfaithful(rows, Reason::OutOfRange, || value.to_string()) }
    }

    #[inline]
    pub fn float(&self, rows: &mut RowBuilder, value: f32) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Float(b) => b.append_value(value),
            ColumnBuilder::Double(b) => b.append_value(f64::from(value)),
            _ => return Err(self.mismatch("a float")),
        }
        Ok(())
    }

    #[inline]
    pub fn double(&self, rows: &mut RowBuilder, value: f64) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Double(b) => b.append_value(value),
            _ => return Err(self.mismatch("a double")),
        }
        Ok(())
    }

    /// An unscaled value and its scale.
    #[inline]
    pub fn decimal(&self, rows: &mut RowBuilder, unscaled: i128, scale: u8) -> Result<(), Fault> {
        let fits = match self.builder(rows)? {
            ColumnBuilder::Decimal(b) => {
                let LakeType::Decimal { precision, scale: lake_scale } = self.lake else {
                    return Err(self.mismatch("a decimal"));
                };
                let value = decimal::rescaled(unscaled, scale, precision, lake_scale);
                value.map(|value| b.append_value(value)).is_some()
            }
            ColumnBuilder::Long(b) => {
                let value = decimal::rescaled(unscaled, scale, decimal::LAKE_DIGITS_MAX, 0);
                value.and_then(|value| i64::try_from(value).ok()).map(|value| b.append_value(value)).is_some()
            }
            ColumnBuilder::String(_) => return self.decimal_text(rows, &decimal::unscaled_text(unscaled, scale)),
            _ => return Err(self.mismatch("a decimal")),
        };
        if fits {
            Ok(())
        } else {
            self.unfaithful(rows, Reason::OutOfRange, || decimal::unscaled_text(unscaled, scale))
        }
    }

    /// A decimal with more digits than the lake's, in canonical text.
    pub fn decimal_text(&self, rows: &mut RowBuilder, text: &str) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::String(b) => {
                b.append_value(self.declared.decimal_text(text));
                Ok(())
            }
            ColumnBuilder::Decimal(_) | ColumnBuilder::Long(_) => match decimal::text_value_any(text) {
                Some((unscaled, scale)) => self.decimal(rows, unscaled, scale),
                None => self.unfaithful(rows, Reason::OutOfRange, || text.to_owned()),
            },
            _ => Err(self.mismatch("a decimal")),
        }
    }

    /// `BIT(n)`, the highest bits first.
    #[inline]
    pub fn bits(&self, rows: &mut RowBuilder, bytes: &[u8]) -> Result<(), Fault> {
        let value = big_endian(bytes);
        let fits = match self.builder(rows)? {
            ColumnBuilder::Boolean(b) => {
                if value <= 1 {
                    b.append_value(value == 1);
                }
                value <= 1
            }
            ColumnBuilder::Long(b) => i64::try_from(value).map(|value| b.append_value(value)).is_ok(),
            ColumnBuilder::Binary(b) => {
                b.append_value(bytes);
                true
            }
            _ => return Err(self.mismatch("bits")),
        };
        if fits { Ok(()) } else { self.unfaithful(rows, Reason::OutOfRange, || format!("b'{value:b}'")) }
    }

    pub fn year(&self, rows: &mut RowBuilder, year: u16) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::String(b) => {
                b.append_value(format!("{year:04}"));
                Ok(())
            }
            _ => self.integer(rows, i128::from(year)),
        }
    }

    #[inline]
    pub fn date(&self, rows: &mut RowBuilder, date: &Civil) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Date(b) => match date.days() {
                Some(days) => b.append_value(days),
                None => return self.unfaithful(rows, Reason::ImpossibleDate, || date.date_text()),
            },
            ColumnBuilder::String(b) => b.append_value(date.date_text()),
            _ => return Err(self.mismatch("a date")),
        }
        Ok(())
    }

    #[inline]
    pub fn datetime(&self, rows: &mut RowBuilder, time: &Civil) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Timestamp(b) => match time.micros() {
                Some(micros) => b.append_value(micros),
                None => return self.unfaithful(rows, Reason::ImpossibleDate, || time.text(self.digits())),
            },
            ColumnBuilder::String(b) => b.append_value(time.text(self.digits())),
            _ => return Err(self.mismatch("a date and time")),
        }
        Ok(())
    }

    /// Microseconds since 1970; `None` is the server's `0000-00-00 00:00:00`.
    #[inline]
    pub fn timestamp(&self, rows: &mut RowBuilder, micros: Option<i64>) -> Result<(), Fault> {
        let text = || micros.map_or(Civil::default(), Civil::of_micros).text(self.digits());
        match (self.builder(rows)?, micros) {
            (ColumnBuilder::Timestamp(b), Some(micros)) => b.append_value(micros),
            (ColumnBuilder::Timestamp(_), None) => return self.unfaithful(rows, Reason::ImpossibleDate, text),
            (ColumnBuilder::String(b), _) => b.append_value(text()),
            _ => return Err(self.mismatch("a timestamp")),
        }
        Ok(())
    }

    /// Signed microseconds.
    #[inline]
    pub fn time(&self, rows: &mut RowBuilder, micros: i64) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Long(b) => b.append_value(micros),
            ColumnBuilder::String(b) => b.append_value(temporal::time_text(micros, self.digits())),
            _ => return Err(self.mismatch("a time")),
        }
        Ok(())
    }

    /// `broken`: some of it could not be decoded and stands as U+FFFD.
    #[inline]
    pub fn text(&self, rows: &mut RowBuilder, text: &str, broken: bool) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::String(b) if !broken => b.append_value(text),
            ColumnBuilder::String(_) => return self.broken_text(rows, text),
            _ => return Err(self.mismatch("a text")),
        }
        Ok(())
    }

    /// Broken text keeps what could be decoded; only a key or the policy "fail" refuses it.
    #[cold]
    fn broken_text(&self, rows: &mut RowBuilder, text: &str) -> Result<(), Fault> {
        let shown = || text.chars().take(100).collect::<String>();
        if self.key || self.policy == Policy::Fail {
            return self.unfaithful(rows, Reason::BrokenText, shown);
        }
        match self.builder(rows)? {
            ColumnBuilder::String(b) => b.append_value(text),
            _ => return Err(self.mismatch("a text")),
        }
        rows.note(self.index, Reason::BrokenText);
        Ok(())
    }

    #[inline]
    pub fn bytes(&self, rows: &mut RowBuilder, bytes: &[u8]) -> Result<(), Fault> {
        match self.builder(rows)? {
            ColumnBuilder::Binary(b) => b.append_value(bytes),
            _ => return Err(self.mismatch("a byte string")),
        }
        Ok(())
    }

    /// The server's own form: the SRID in four bytes, the lowest first, then well-known binary.
    pub fn geometry(&self, rows: &mut RowBuilder, stored: &[u8]) -> Result<(), Fault> {
        let ColumnBuilder::Geometry(shapes) = self.builder(rows)? else { return Err(self.mismatch("a shape")) };
        let Some((srid, wkb)) = stored.split_first_chunk::<4>() else {
            return Err(Fault(format!("{} bytes are not a shape", stored.len())));
        };
        let srid = u32::from_le_bytes(*srid);
        match i32::try_from(srid) {
            Ok(srid) => shapes.append_value(srid, wkb),
            Err(_) => return self.unfaithful(rows, Reason::OutOfRange, || format!("SRID {srid}")),
        }
        Ok(())
    }

    /// Four bytes for each number, the lowest first.
    pub fn vector(&self, rows: &mut RowBuilder, stored: &[u8]) -> Result<(), Fault> {
        if !stored.len().is_multiple_of(4) {
            return Err(Fault(format!("{} bytes are not a vector", stored.len())));
        }
        let ColumnBuilder::Array(list) = self.builder(rows)? else { return Err(self.mismatch("a vector")) };
        let ColumnBuilder::Float(elements) = &mut list.elements else { return Err(self.mismatch("a vector")) };
        for number in stored.as_chunks::<4>().0 {
            elements.append_value(f32::from_le_bytes(*number));
        }
        if list.end(true) { Ok(()) } else { Err(Fault::new("the vectors of one batch hold too many numbers")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, RowIdentity, TableName, Unfaithful};
    use std::sync::Arc;

    fn cell(source_type: &str, lake_type: &str, policy: Policy, key: bool) -> (Cell, RowBuilder) {
        let schema = TableSchema {
            name: TableName::new("shop", "goods"),
            columns: vec![Column {
                name: "c".into(),
                source_type: source_type.into(),
                lake_type: lake_type.parse().expect("a lake type"),
                nullable: !key,
                policy,
            }],
            key: if key { vec![0] } else { vec![] },
            partition_by: vec![],
            identity: RowIdentity::Key,
        };
        (Cell::new(&schema, 0), RowBuilder::new(Arc::new(schema)))
    }

    /// What stands in the lake, and why if it is not the source's value.
    fn lands(rows: &mut RowBuilder) -> (String, Option<Reason>) {
        rows.end_row().expect("one value");
        let noted = rows.take_unfaithful();
        let batch = rows.finish().expect("a batch");
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let shown = arrow::util::display::ArrayFormatter::try_new(batch.column(0).as_ref(), &options);
        assert!(noted.iter().all(|Unfaithful { row, column, .. }| (*row, *column) == (0, 0)));
        (shown.expect("formats").value(0).to_string(), noted.first().map(|noted| noted.reason))
    }

    /// Declaration, type under the contract, number; what the lake holds.
    #[test]
    fn numbers_land_in_the_types_that_contracts_ask_for() {
        let out = Some(Reason::OutOfRange);
        let cases = [
            ("tinyint(1)", "boolean", 1, "true", None),
            ("tinyint(1)", "boolean", 2, "NULL", out),
            ("tinyint(1)", "boolean", -1, "NULL", out),
            ("tinyint", "long", -128, "-128", None),
            ("bigint unsigned", "long", i128::from(i64::MAX), "9223372036854775807", None),
            ("bigint unsigned", "long", i128::from(u64::MAX), "NULL", out),
            ("int", "decimal(12,2)", -7, "-7.00", None),
            ("int(5) unsigned zerofill", "string", 42, "00042", None),
            ("bigint", "string", -42, "-42", None),
        ];
        for (declaration, lake_type, value, shown, reason) in cases {
            let (cell, mut rows) = cell(declaration, lake_type, Policy::Null, false);
            cell.integer(&mut rows, value).expect("it lands");
            assert_eq!(lands(&mut rows), (shown.to_owned(), reason), "{declaration} as {lake_type}: {value}");
        }
        let (byte, mut rows) = cell("tinyint", "byte", Policy::Null, false);
        assert!(byte.text(&mut rows, "x", false).is_err());
        assert!(byte.double(&mut rows, 1.0).is_err());
    }

    #[test]
    fn decimals_and_bits_land_in_the_types_that_contracts_ask_for() {
        let out = Some(Reason::OutOfRange);
        let cases = [
            ("decimal(12,2)", "decimal(20,4)", "123456.78", "123456.7800", None),
            ("decimal(12,4)", "decimal(6,2)", "1234.5600", "1234.56", None),
            ("decimal(12,4)", "decimal(6,2)", "0.0001", "NULL", out),
            ("decimal(12,4)", "decimal(6,2)", "-10000.0000", "NULL", out),
            ("decimal(18,0)", "long", "-99", "-99", None),
            ("decimal(30,0)", "long", "9223372036854775808", "NULL", out),
            ("decimal(5,2)", "string", "-0.50", "-0.50", None),
            ("decimal(7,2) unsigned zerofill", "string", "12.50", "00012.50", None),
            ("decimal(65,30)", "decimal(38,10)", "1.500000000000000000000000000000", "1.5000000000", None),
            ("decimal(65,30)", "decimal(38,10)", "1.000000000000000000000000000001", "NULL", out),
        ];
        for (declaration, lake_type, value, shown, reason) in cases {
            let (cell, mut rows) = cell(declaration, lake_type, Policy::Null, false);
            let (precision, scale) = Declared::parse(declaration).decimal();
            if precision > decimal::LAKE_DIGITS_MAX {
                cell.decimal_text(&mut rows, value).expect("it lands");
            } else {
                let unscaled = decimal::text_value(value, precision, scale).expect("a decimal");
                cell.decimal(&mut rows, unscaled, scale).expect("it lands");
            }
            assert_eq!(lands(&mut rows), (shown.to_owned(), reason), "{declaration} as {lake_type}: {value}");
        }
        type Bits<'a> = (&'a str, &'a str, &'a [u8], &'a str, Option<Reason>);
        let cases: [Bits; 4] = [
            ("bit(1)", "long", &[1], "1", None),
            ("bit(9)", "long", &[1, 2], "258", None),
            ("bit(64)", "long", &[0xFF; 8], "NULL", out),
            ("bit(9)", "binary", &[1, 2], "0102", None),
        ];
        for (declaration, lake_type, value, shown, reason) in cases {
            let (cell, mut rows) = cell(declaration, lake_type, Policy::Null, false);
            cell.bits(&mut rows, value).expect("it lands");
            assert_eq!(lands(&mut rows), (shown.to_owned(), reason), "{declaration} as {lake_type}");
        }
    }

    /// M-9: each policy, and a key, where no policy helps.
    #[test]
    fn impossible_dates_follow_the_policy() {
        let zero = Civil::default();
        let (null, mut rows) = cell("date", "date", Policy::Null, false);
        null.date(&mut rows, &zero).expect("it lands");
        assert_eq!(lands(&mut rows), ("NULL".to_owned(), Some(Reason::ImpossibleDate)));
        let (string, mut rows) = cell("datetime(3)", "string", Policy::String, false);
        string.datetime(&mut rows, &zero).expect("it lands");
        assert_eq!(lands(&mut rows), ("0000-00-00 00:00:00.000".to_owned(), None));
        string.timestamp(&mut rows, Some(1_700_000_000_250_000)).expect("it lands");
        assert_eq!(lands(&mut rows), ("2023-11-14 22:13:20.250".to_owned(), None));
        for (policy, key) in [(Policy::Fail, false), (Policy::Null, true)] {
            let (refusing, mut rows) = cell("timestamp", "timestamp", policy, key);
            let fault = refusing.timestamp(&mut rows, None).expect_err("refused").0;
            assert!(fault.contains("`0000-00-00 00:00:00`"), "{fault}");
        }
    }

    /// M-13
    #[test]
    fn broken_text_keeps_the_rest() {
        for policy in [Policy::Null, Policy::String] {
            let (cell, mut rows) = cell("text", "string", policy, false);
            cell.text(&mut rows, "a\u{FFFD}b", true).expect("it lands");
            assert_eq!(lands(&mut rows), ("a\u{FFFD}b".to_owned(), Some(Reason::BrokenText)));
        }
        let (refusing, mut rows) = cell("text", "string", Policy::Fail, false);
        assert!(refusing.text(&mut rows, "a\u{FFFD}b", true).is_err());
        let (key, mut rows) = cell("varchar(9)", "string", Policy::Null, true);
        assert!(key.text(&mut rows, "a\u{FFFD}b", true).is_err());
    }

    /// M-19, M-20
    #[test]
    fn shapes_and_vectors_land_whole() {
        let lake = LakeType::Geometry.to_string();
        let (shape, mut rows) = cell("point", &lake, Policy::Null, false);
        shape.geometry(&mut rows, &[0xE6, 0x10, 0, 0, 1, 2]).expect("it lands");
        assert_eq!(lands(&mut rows), ("{srid: 4326, wkb: 0102}".to_owned(), None));
        shape.geometry(&mut rows, &[0, 0, 0, 0x80, 1]).expect("it lands");
        assert_eq!(lands(&mut rows).1, Some(Reason::OutOfRange));
        assert!(shape.geometry(&mut rows, &[1, 2, 3]).is_err());
        let (vector, mut rows) = cell("vector(2)", "array<float>", Policy::Null, false);
        vector.vector(&mut rows, &[0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0]).expect("it lands");
        assert_eq!(lands(&mut rows), ("[1.0, -2.0]".to_owned(), None));
        vector.vector(&mut rows, &[]).expect("it lands");
        assert_eq!(lands(&mut rows), ("[]".to_owned(), None));
        assert!(vector.vector(&mut rows, &[1, 2, 3]).is_err());
    }
}
