//! What rows that were there have in a column that a statement adds: its default, exactly as the server stores it.
//!
//! A constant is read as the server converts it into the column's type and goes through the same last step as a value of the
//! log ([`Cell`]), contract and value policy included. The conversions here are those that MySQL 9.7 and MariaDB 10.11 were
//! seen to make (tests/mysql_schema.rs compares them with the servers' own rows); whatever is written otherwise is
//! [`Fill::Unknown`], never a guess. A constant that does not fit its column needs no care: servers refuse it.

mod written;

use std::sync::Arc;

use crate::schema::{Column, Fill, LayoutColumn, RowBuilder, RowIdentity, TableName, TableSchema};

use super::cell::Cell;
use super::charset::{Charset, Collations};
use super::decimal::{self, LAKE_DIGITS_MAX};
use super::declared::{Declared, Family};
use super::flavor::Vendor;
use super::layout::labels;
use super::literal::Literal;
use super::marker::SessionState;
use super::sql_mode::{EMPTY_STRING_IS_NULL, STRICT};
use super::temporal::Civil;
use super::value;
use super::wire::Fault;
use written::{Exact, clock, date, time, year_of};

/// What only the server's time zone tables tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// When this wall clock shows `micros` since 1970, in microseconds since 1970 in UTC.
    Instant { zone: String, micros: i64 },
    /// What this wall clock shows then, in microseconds since 1970.
    Clock { zone: String, micros: i64 },
}

/// What the meaning of a constant depends on besides its column.
pub struct Circumstances<'a> {
    pub vendor: Vendor,
    pub sql_mode: u64,
    /// `None`: the constant is one of the catalog's, not of a statement.
    pub session: Option<&'a SessionState>,
    /// The statement's NOW(), in seconds since 1970.
    pub now: Option<i64>,
    pub collations: &'a Collations,
    /// What the server answered, in microseconds.
    pub moment: &'a dyn Fn(&Moment) -> Option<i64>,
}

/// Why it is not known, in words.
struct Doubt(String);

impl From<&str> for Doubt {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<Fault> for Doubt {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

/// What old rows have in `column`, whose default is `literal`. `told`: whether it takes NULL is told by the definition or the
/// catalog.
pub fn fill(
    column: &Column,
    key: bool,
    known: &LayoutColumn,
    literal: &Literal,
    told: bool,
    circumstances: &Circumstances<'_>,
) -> Fill {
    match constant(column, key, known, literal, told, circumstances) {
        Ok(fill) => fill,
        Err(Doubt(why)) => Fill::Unknown(why),
    }
}

fn constant(
    column: &Column,
    key: bool,
    known: &LayoutColumn,
    literal: &Literal,
    told: bool,
    circumstances: &Circumstances<'_>,
) -> Result<Fill, Doubt> {
    if known.generated {
        return Err("it is generated for each row".into());
    }
    if known.auto_increment {
        return Err("it counts by itself".into());
    }
    let declared = Declared::parse(&known.declaration);
    let target = Target { known, family: declared.family(), declared: &declared, circumstances };
    // What TIMESTAMP without more words means depends on explicit_defaults_for_timestamp.
    let explicit = circumstances.session.is_none_or(|session| session.explicit_timestamps == Some(true));
    let doubtful = target.family == Family::Timestamp && !explicit && !(told && known.nullable);
    match literal {
        Literal::Absent if doubtful => {
            return Err(
                "it is a TIMESTAMP, and the log does not tell what its session makes of one without a default".into()
            );
        }
        Literal::Null => return Ok(Fill::Null),
        Literal::Absent if known.nullable => return Ok(Fill::Null),
        Literal::Computed => return Err("its default is computed for each row".into()),
        _ => {}
    }
    let schema = TableSchema {
        name: TableName::new("", ""),
        columns: vec![column.clone()],
        key: if key { vec![0] } else { Vec::new() },
        partition_by: Vec::new(),
        identity: RowIdentity::Key,
    };
    let cell = Cell::new(&schema, 0);
    let mut rows = RowBuilder::new(Arc::new(schema));
    match literal {
        Literal::Absent => target.implicit(&cell, &mut rows)?,
        literal => target.land(literal, &cell, &mut rows)?,
    }
    let broken = |error: crate::source::Error| Doubt(error.to_string());
    rows.end_row().map_err(|error| broken(error.into()))?;
    let batch = rows.finish().map_err(|error| broken(error.into()))?;
    let value = batch.column(0).clone();
    // A zero date, for example, whose policy is "null".
    Ok(if value.is_null(0) { Fill::Null } else { Fill::Value(value) })
}

const FORM: &str = "its default is a constant in a form that this release does not read";

struct Target<'a> {
    known: &'a LayoutColumn,
    family: Family,
    declared: &'a Declared,
    circumstances: &'a Circumstances<'a>,
}

impl Target<'_> {
    /// What the type has for a column without default that takes no NULL.
    fn implicit(&self, cell: &Cell, rows: &mut RowBuilder) -> Result<(), Doubt> {
        let width = self.declared.arguments.first().map_or(1, |width| *width as usize);
        match self.family {
            Family::Integer => cell.integer(rows, 0)?,
            Family::Float => cell.float(rows, 0.0)?,
            Family::Double => cell.double(rows, 0.0)?,
            Family::Decimal => self.decimal(&Exact::parse("0").ok_or(FORM)?, cell, rows)?,
            Family::Bit => cell.bits(rows, &vec![0; width.div_ceil(8).min(8)])?,
            Family::Date => cell.date(rows, &Civil::default())?,
            Family::Datetime => cell.datetime(rows, &Civil::default())?,
            Family::Timestamp => cell.timestamp(rows, None)?,
            Family::Time => cell.time(rows, 0)?,
            Family::Year => cell.year(rows, 0)?,
            Family::Text | Family::Set => cell.text(rows, "", false)?,
            Family::Binary if self.declared.name == "binary" => cell.bytes(rows, &vec![0; width.min(255)])?,
            Family::Binary => cell.bytes(rows, &[])?,
            Family::Enum => {
                let labels = labels(&self.known.declaration).ok_or(FORM)?;
                cell.text(rows, labels.first().ok_or(FORM)?, false)?;
            }
            // MySQL's; MariaDB's is a text.
            Family::Json => cell.text(rows, "null", false)?,
            Family::Uuid => cell.text(rows, &value::uuid(&[0; 16])?, false)?,
            Family::Inet4 => cell.text(rows, &value::inet4(&[0; 4])?, false)?,
            Family::Inet6 => cell.text(rows, &value::inet6(&[0; 16])?, false)?,
            Family::Geometry | Family::Vector | Family::Other => {
                return Err("what its type has in place of NULL is not known".into());
            }
        }
        Ok(())
    }

    fn land(&self, literal: &Literal, cell: &Cell, rows: &mut RowBuilder) -> Result<(), Doubt> {
        match self.family {
            Family::Integer => Ok(cell.integer(rows, self.integer(literal)?)?),
            Family::Float => Ok(cell.float(rows, self.real(literal)? as f32)?),
            Family::Double => Ok(cell.double(rows, self.real(literal)?)?),
            Family::Decimal => {
                let exact = Exact::of(literal).ok_or(FORM)?;
                if exact.floating && exact.scale() > usize::from(self.declared.decimal().1) {
                    return Err(FORM.into());
                }
                self.decimal(&exact, cell, rows)
            }
            Family::Bit => {
                let size = self.declared.arguments.first().map_or(1, |width| *width as usize).div_ceil(8);
                let value = match literal {
                    Literal::Bytes { bytes, .. } => bytes.clone(),
                    // Its bytes are the bits.
                    Literal::Text { text, .. } if text.is_ascii() => self.plain(literal)?.into_bytes(),
                    Literal::Number(number) => number.parse::<u64>().map_err(|_| FORM)?.to_be_bytes().to_vec(),
                    _ => return Err(FORM.into()),
                };
                let value: Vec<u8> = value.into_iter().skip_while(|byte| *byte == 0).collect();
                let missing = size.checked_sub(value.len()).ok_or(FORM)?;
                Ok(cell.bits(rows, &[vec![0; missing], value].concat())?)
            }
            Family::Year => {
                let year = match literal {
                    Literal::Number(number) => year_of(number, false),
                    Literal::Text { .. } => year_of(&self.plain(literal)?, true),
                    _ => None,
                };
                Ok(cell.year(rows, year.ok_or(FORM)?)?)
            }
            Family::Date => {
                let date = match literal {
                    Literal::Date(text) => date(text),
                    Literal::Text { .. } => date(&self.plain(literal)?),
                    Literal::Number(number) if number.len() == 8 => date(number),
                    _ => None,
                };
                Ok(cell.date(rows, &date.ok_or(FORM)?)?)
            }
            Family::Datetime => {
                if let Literal::Now { digits } = literal {
                    let micros = self.now(*digits)?;
                    let clock = self.shifted(micros, |zone| Moment::Clock { zone, micros }, 1)?;
                    return Ok(cell.datetime(rows, &Civil::of_micros(clock))?);
                }
                Ok(cell.datetime(rows, &self.clock(literal)?)?)
            }
            Family::Timestamp => {
                if let Literal::Now { digits } = literal {
                    return Ok(cell.timestamp(rows, Some(self.now(*digits)?))?);
                }
                let clock = self.clock(literal)?;
                if clock == Civil::default() {
                    return Ok(cell.timestamp(rows, None)?);
                }
                let micros = clock.micros().ok_or(FORM)?;
                let instant = self.shifted(micros, |zone| Moment::Instant { zone, micros }, -1)?;
                Ok(cell.timestamp(rows, Some(instant))?)
            }
            Family::Time => {
                let micros = match literal {
                    Literal::Time(text) => time(text, self.digits()),
                    Literal::Text { .. } => time(&self.plain(literal)?, self.digits()),
                    _ => None,
                };
                Ok(cell.time(rows, micros.ok_or(FORM)?)?)
            }
            Family::Text => {
                let mut text = self.text(literal)?;
                if self.declared.name == "char" {
                    text.truncate(text.trim_end_matches(' ').len());
                }
                let room = self.declared.arguments.first().map_or(usize::MAX, |room| *room as usize);
                if text.chars().count() > room {
                    return Err(FORM.into());
                }
                Ok(cell.text(rows, &text, false)?)
            }
            Family::Binary => {
                let mut bytes = self.bytes(literal)?;
                let room = self.declared.arguments.first().map_or(usize::MAX, |room| *room as usize);
                if bytes.len() > room {
                    return Err(FORM.into());
                }
                if self.declared.name == "binary" {
                    bytes.resize(self.declared.arguments.first().map_or(1, |width| *width as usize).min(255), 0);
                }
                Ok(cell.bytes(rows, &bytes)?)
            }
            Family::Enum => {
                let labels = labels(&self.known.declaration).ok_or(FORM)?;
                Ok(cell.text(rows, self.label(&labels, &self.plain(literal)?)?, false)?)
            }
            Family::Set => {
                let labels = labels(&self.known.declaration).ok_or(FORM)?;
                let text = self.plain(literal)?;
                let mut chosen = Vec::new();
                for member in text.split(',').filter(|_| !text.is_empty()) {
                    chosen.push(self.label(&labels, member)?);
                }
                let in_order: Vec<&str> =
                    labels.iter().map(String::as_str).filter(|label| chosen.contains(label)).collect();
                Ok(cell.text(rows, &in_order.join(","), false)?)
            }
            Family::Json => {
                let text = self.plain(literal)?;
                // Others the server puts into an order and spelling of its own.
                let number = text.len() < 16 && text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
                if !number && !["{}", "[]", "null", "true", "false", "\"\""].contains(&text.as_str()) {
                    return Err(FORM.into());
                }
                Ok(cell.text(rows, &text, false)?)
            }
            Family::Uuid => {
                let text = self.plain(literal)?;
                let uuid = uuid::Uuid::try_parse(&text).ok().filter(|_| matches!(text.len(), 32 | 36)).ok_or(FORM)?;
                Ok(cell.text(rows, &uuid.hyphenated().to_string(), false)?)
            }
            Family::Inet4 => {
                let address: std::net::Ipv4Addr = self.plain(literal)?.parse().map_err(|_| FORM)?;
                Ok(cell.text(rows, &value::inet4(&address.octets())?, false)?)
            }
            Family::Inet6 => {
                let address: std::net::Ipv6Addr = self.plain(literal)?.parse().map_err(|_| FORM)?;
                Ok(cell.text(rows, &value::inet6(&address.octets())?, false)?)
            }
            Family::Geometry | Family::Vector | Family::Other => Err(FORM.into()),
        }
    }

    fn digits(&self) -> usize {
        self.declared.arguments.first().map_or(0, |digits| *digits as usize).min(6)
    }

    /// A literal that is text, as characters of ASCII or whatever its character sets keep.
    fn plain(&self, literal: &Literal) -> Result<String, Doubt> {
        let Literal::Text { text, introducer } = literal else { return Err(FORM.into()) };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err("its default has characters that can't be read".into());
        }
        if text.is_empty()
            && self.circumstances.vendor == Vendor::MariaDb
            && self.circumstances.sql_mode & EMPTY_STRING_IS_NULL != 0
        {
            return Err(FORM.into());
        }
        let collations = self.circumstances.collations;
        let wide = |name: &str| matches!(name, "ucs2" | "utf16" | "utf16le" | "utf32");
        let Some(session) = self.circumstances.session else { return Ok(text.clone()) };
        let set = |id: Option<u64>| id.and_then(|id| collations.charset_name(id));
        match introducer {
            // The bytes are the client's, and this is what they are taken for.
            Some(introducer) => {
                let unicode = |name: &str| name.starts_with("utf8");
                let same = unicode(introducer) && set(session.client).is_some_and(unicode);
                if wide(introducer) || !(text.is_ascii() || same) {
                    return Err(FORM.into());
                }
            }
            // On its way through the session's character set it may lose what that does not have.
            None if !text.is_ascii() => {
                let connection = set(session.connection).ok_or(FORM)?;
                if !collations.can_hold(connection, text) {
                    return Err("its default has characters that its session's character set does not have".into());
                }
            }
            None => {}
        }
        Ok(text.clone())
    }

    fn text(&self, literal: &Literal) -> Result<String, Doubt> {
        let charset = self.known.charset.as_deref().ok_or(FORM)?;
        let text = match literal {
            Literal::Text { .. } => self.plain(literal)?,
            Literal::Number(number) => Exact::parse(number).filter(|exact| !exact.floating).ok_or(FORM)?.to_string(),
            Literal::Bytes { bytes, .. } => {
                let (text, broken) = self.circumstances.collations.by_name(charset)?.decode(bytes);
                if broken {
                    return Err(FORM.into());
                }
                return Ok(text.into_owned());
            }
            _ => return Err(FORM.into()),
        };
        if !self.circumstances.collations.can_hold(charset, &text) {
            return Err("its default has characters that its character set does not have".into());
        }
        Ok(text)
    }

    fn bytes(&self, literal: &Literal) -> Result<Vec<u8>, Doubt> {
        let collations = self.circumstances.collations;
        match literal {
            Literal::Bytes { bytes, .. } => Ok(bytes.clone()),
            Literal::Number(number) => {
                Ok(Exact::parse(number).filter(|exact| !exact.floating).ok_or(FORM)?.to_string().into_bytes())
            }
            Literal::Text { introducer: None, .. } => {
                let text = self.plain(literal)?;
                // The bytes that the session's character set has for it.
                let session = self.circumstances.session.and_then(|session| session.connection);
                let charset = collations.by_name(session.and_then(|id| collations.charset_name(id)).ok_or(FORM)?)?;
                let same = match charset {
                    Charset::Utf8 => true,
                    Charset::Ascii | Charset::Latin1 => text.is_ascii(),
                    _ => false,
                };
                if same { Ok(text.into_bytes()) } else { Err(FORM.into()) }
            }
            _ => Err(FORM.into()),
        }
    }

    fn integer(&self, literal: &Literal) -> Result<i128, Doubt> {
        if let Literal::Bytes { bytes, hex } = literal {
            // In MariaDB x'3136' is the text `16` and 0x3136 a number: they look alike here.
            let text = *hex && self.circumstances.vendor == Vendor::MariaDb && bytes.iter().all(u8::is_ascii_graphic);
            if text || bytes.len() > 8 {
                return Err(FORM.into());
            }
            return Ok(bytes.iter().fold(0, |value, byte| value << 8 | i128::from(*byte)));
        }
        let exact = Exact::of(literal).ok_or(FORM)?;
        // A number with an exponent is a double, whose halves go to the even neighbour.
        if exact.floating && matches!(literal, Literal::Number(_)) && exact.scale() > 0 {
            return Err(FORM.into());
        }
        exact.rounded(0).to_string().parse().map_err(|_| FORM.into())
    }

    fn real(&self, literal: &Literal) -> Result<f64, Doubt> {
        let text = match literal {
            Literal::Number(number) => number.as_str(),
            Literal::Text { text, .. } => text.as_str(),
            _ => return Err(FORM.into()),
        };
        Exact::parse(text).ok_or(FORM)?;
        let number: f64 = text.parse().map_err(|_| FORM)?;
        if !number.is_finite() || (self.family == Family::Float && !(number as f32).is_finite()) {
            return Err(FORM.into());
        }
        let number = match self.declared.arguments.as_slice() {
            [_, digits] if *digits <= 30 => {
                // Field_real::truncate
                let power = 10_f64.powi(*digits as i32);
                number.floor() + ((number - number.floor()) * power).round_ties_even() / power
            }
            _ => number,
        };
        // -0 is kept by some versions only.
        if number == 0.0 && text.starts_with('-') { Err(FORM.into()) } else { Ok(number) }
    }

    fn decimal(&self, exact: &Exact, cell: &Cell, rows: &mut RowBuilder) -> Result<(), Doubt> {
        let (precision, scale) = self.declared.decimal();
        let text = exact.rounded(usize::from(scale)).to_string();
        if precision > LAKE_DIGITS_MAX {
            return Ok(cell.decimal_text(rows, &decimal::text_canonical(&text)?)?);
        }
        Ok(cell.decimal(rows, decimal::text_value(&text, precision, scale)?, scale)?)
    }

    fn clock(&self, literal: &Literal) -> Result<Civil, Doubt> {
        let clock = match literal {
            Literal::Datetime(text) => clock(text, self.digits()),
            Literal::Date(text) => date(text),
            Literal::Text { .. } => clock(&self.plain(literal)?, self.digits()),
            Literal::Number(number) if number.len() == 8 => date(number),
            Literal::Number(number) if number.len() == 14 && number.bytes().all(|byte| byte.is_ascii_digit()) => clock(
                &format!(
                    "{}-{}-{} {}:{}:{}",
                    &number[..4],
                    &number[4..6],
                    &number[6..8],
                    &number[8..10],
                    &number[10..12],
                    &number[12..]
                ),
                0,
            ),
            _ => None,
        };
        Ok(clock.ok_or(FORM)?)
    }

    /// NOW(digits), in microseconds since 1970.
    fn now(&self, digits: u8) -> Result<i64, Doubt> {
        let session = self.circumstances.session.ok_or("its default is the moment of the statement")?;
        let seconds = self.circumstances.now.ok_or("the log does not tell the moment of the statement")?;
        let digits = u32::from(digits).min(self.digits() as u32);
        let micros = match (digits, session.micros) {
            (0, _) => 0,
            (_, Some(micros)) => micros - micros % 10_u32.pow(6 - digits),
            (_, None) => return Err("the log does not tell the moment of the statement to the microsecond".into()),
        };
        seconds.checked_mul(1_000_000).and_then(|moment| moment.checked_add(micros.into())).ok_or_else(|| FORM.into())
    }

    /// `micros` moved by the offset of the session's time zone, in the direction of `sign`; of a zone that is not just an
    /// offset, what the server answered.
    fn shifted(&self, micros: i64, question: impl FnOnce(String) -> Moment, sign: i64) -> Result<i64, Doubt> {
        let session = self.circumstances.session.ok_or("its default depends on a time zone")?;
        let zone = session.time_zone.as_ref().ok_or("the log does not tell the time zone of its session")?;
        let moved = match offset_micros(zone) {
            Some(offset) => micros.checked_add(sign * offset),
            None => (self.circumstances.moment)(&question(zone.clone())),
        };
        moved.ok_or_else(|| Doubt(format!("its default depends on the time zone {zone} of its session")))
    }

    /// The label that the server takes for this text.
    fn label<'a>(&self, labels: &'a [String], text: &str) -> Result<&'a str, Doubt> {
        let lower = text.to_lowercase();
        let alike: Vec<&String> = labels.iter().filter(|label| label.to_lowercase() == lower).collect();
        match alike.as_slice() {
            [only] => Ok(only),
            // The first that is equal by the collation.
            [first, ..] if first.as_str() == text && self.circumstances.sql_mode & STRICT != 0 => Ok(first),
            _ => Err("which label its default is depends on the collation".into()),
        }
    }
}

/// `+02:00`, in microseconds.
pub fn offset_micros(zone: &str) -> Option<i64> {
    let (negative, rest) = match zone.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, zone.strip_prefix('+')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let micros = (hours * 60 + minutes) * 60_000_000;
    (hours <= 14 && minutes <= 59).then_some(if negative { -micros } else { micros })
}

#[cfg(test)]
mod tests;
