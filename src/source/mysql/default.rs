//! Constant defaults as the log would carry them, for columns that inserted rows come without.
//!
//! Only forms that are exact are made; everything else is [`Filler::Unknown`], which stops the table rather than guess:
//! expressions, moments (they depend on a time zone), bytes (the catalog cuts them at the first zero).

use crate::schema::{ColumnDefault, LayoutColumn};

use super::charset::{Charset, Collations};
use super::decimal;
use super::declared::{Declared, Family};
use super::image::Filler;
use super::layout::labels;
use super::table_map::{MapColumn, kind};

/// What fills this column of the log in a row that was inserted without it.
pub fn filler(column: &MapColumn, known: &LayoutColumn, collations: &Collations) -> Filler {
    if known.generated {
        return Filler::Generated;
    }
    match &known.default {
        ColumnDefault::None if known.nullable => Filler::Null,
        ColumnDefault::None => Filler::Unknown("it has no default"),
        ColumnDefault::Computed => Filler::Unknown("its default is not a plain constant"),
        ColumnDefault::Constant(text) => match bytes(column, known, text, collations) {
            Some(bytes) => Filler::Bytes(bytes),
            None => Filler::Unknown("its default has no exact form that this release makes"),
        },
    }
}

fn bytes(column: &MapColumn, known: &LayoutColumn, text: &str, collations: &Collations) -> Option<Vec<u8>> {
    let declared = Declared::parse(&known.declaration);
    match declared.family() {
        Family::Integer => {
            let size = match column.kind {
                kind::TINY => 1,
                kind::SHORT => 2,
                kind::INT24 => 3,
                kind::LONG => 4,
                kind::LONGLONG => 8,
                _ => return None,
            };
            let number: i128 = text.parse().ok()?;
            let bits = 8 * size as u32;
            let (least, most) =
                if declared.unsigned { (0, (1_i128 << bits) - 1) } else { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) };
            (least..=most).contains(&number).then(|| number.to_le_bytes()[..size].to_vec())
        }
        Family::Decimal => {
            let (precision, scale) = (u8::try_from(column.length).ok()?, column.scale);
            decimal::pack(text, precision, scale)
        }
        Family::Float => text.parse::<f32>().ok().filter(|value| value.is_finite()).map(|v| v.to_le_bytes().to_vec()),
        Family::Double => text.parse::<f64>().ok().filter(|value| value.is_finite()).map(|v| v.to_le_bytes().to_vec()),
        Family::Year => match text.parse::<u16>().ok()? {
            0 => Some(vec![0]),
            year => Some(vec![u8::try_from(year.checked_sub(1900)?).ok()?]),
        },
        Family::Date => {
            let (year, month, day) = date(text)?;
            let packed = (year << 9) | (month << 5) | day;
            Some(packed.to_le_bytes()[..3].to_vec())
        }
        Family::Text => {
            let charset = collations.by_name(known.charset.as_deref()?).ok()?;
            // The same bytes in all these.
            let same = match charset {
                Charset::Utf8 => true,
                Charset::Ascii | Charset::Latin1 => text.is_ascii(),
                _ => false,
            };
            same.then(|| text.as_bytes().to_vec())
        }
        Family::Enum => {
            let index = labels(&known.declaration)?.iter().position(|label| label == text)? + 1;
            Some(index.to_le_bytes()[..usize::from(column.length).min(8)].to_vec())
        }
        Family::Set => {
            let labels = labels(&known.declaration)?;
            let mut members = 0_u64;
            for wanted in text.split(',').filter(|wanted| !wanted.is_empty()) {
                members |= 1 << labels.iter().position(|label| label == wanted)?;
            }
            Some(members.to_le_bytes()[..usize::from(column.length).min(8)].to_vec())
        }
        Family::Bit => {
            let digits = text.strip_prefix("b'")?.strip_suffix('\'')?;
            let value = u64::from_str_radix(digits, 2).ok()?;
            let size = usize::from(column.length) + usize::from(column.scale > 0);
            Some(value.to_be_bytes()[8_usize.checked_sub(size)?..].to_vec())
        }
        Family::Binary
        | Family::Datetime
        | Family::Timestamp
        | Family::Time
        | Family::Json
        | Family::Uuid
        | Family::Inet4
        | Family::Inet6
        | Family::Geometry
        | Family::Vector
        | Family::Other => None,
    }
}

fn date(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && year <= 9999 && month <= 12 && day <= 31).then_some((year, month, day))
}
