//! The one table of types: what each type of a source is in the lake, how it is encoded there, what becomes of values that
//! do not fit, and what else a contract may ask for.
//!
//! `source/mysql/declared.rs` takes lake types and possible overrides of MySQL and MariaDB from here; `source/postgres`
//! knows its types by oid and is checked against the rows here; `docs/types.md` is rendered from them (`tests/docs.rs`). The
//! IDs are those of the test tables in `tests/types/`.

mod mysql;
mod postgres;

pub use mysql::MYSQL;
pub use postgres::POSTGRES;

use super::{ElementType, LakeType};

/// The lake type of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lake {
    Is(LakeType),
    /// `decimal(p,s)` of the declaration, up to 38 digits; `string` above.
    Decimal,
    /// `boolean` for one bit, `binary` for more.
    Bits,
    /// An array of the element's lake type.
    Array,
    /// The lake type of another source type: a domain's base.
    Base,
}

impl std::fmt::Display for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(lake_type) => write!(f, "{lake_type}"),
            Self::Decimal => f.write_str("decimal(p,s)"),
            Self::Bits => f.write_str("boolean, binary"),
            Self::Array => f.write_str("array<…>"),
            Self::Base => f.write_str("the base type's"),
        }
    }
}

/// Another lake type that a contract's `[types]` may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// `boolean`, of `tinyint(1)` only.
    BooleanOfOne,
    /// An integer type that holds at least as much.
    WiderInteger,
    /// Any integer type; what does not fit it exactly is out of range.
    Integer,
    /// `long`; larger values are out of range.
    Long,
    /// `decimal(P,S)` that has room for every value.
    WiderDecimal,
    /// `decimal(P,S)`; values that do not fit it exactly are out of range.
    Decimal,
    Double,
    /// `string`: the text the server prints.
    Text,
}

impl Override {
    /// In a sentence that lists what is possible.
    pub fn words(self) -> &'static str {
        match self {
            Self::BooleanOfOne => "`boolean` for `tinyint(1)`",
            Self::WiderInteger => "a wider integer",
            Self::Integer => "an integer",
            Self::Long => "`long`",
            Self::WiderDecimal => "a `decimal` with room for every value",
            Self::Decimal => "`decimal(P,S)`",
            Self::Double => "`double`",
            Self::Text => "`string`",
        }
    }
}

/// One row.
#[derive(Debug)]
pub struct Mapping {
    pub ids: &'static str,
    /// The source's names of the type, in its catalog's spelling.
    pub names: &'static [&'static str],
    /// For MySQL's numbers: whether the row is the `unsigned` one.
    pub unsigned: bool,
    pub lake: Lake,
    /// How the value is written down in that lake type.
    pub encoding: &'static str,
    /// Which values do not fit, and what they count as; empty when every value fits.
    pub beyond: &'static str,
    pub overrides: &'static [Override],
}

impl Mapping {
    /// The row of a type by its name in the source's catalog.
    pub fn of(table: &'static [Self], name: &str, unsigned: bool) -> Option<&'static Self> {
        let mut named = table.iter().filter(|row| row.names.contains(&name));
        let first = named.clone().next()?;
        Some(named.find(|row| row.unsigned == unsigned).unwrap_or(first))
    }
}

const fn is(lake_type: LakeType) -> Lake {
    Lake::Is(lake_type)
}

const VECTOR: Lake = Lake::Is(LakeType::Array(ElementType::Float));
