//! What a column's declaration (`COLUMN_TYPE` of information_schema) means, and its type in the lake.
//!
//! Discovery, snapshots and the log all ask here; the types themselves are rows of [`mapping::MYSQL`]. Which other type a
//! contract may ask for is checked here too ([`Declared::under_contract`]), before anything is read.

use crate::config::Contract;
use crate::schema::mapping::{self, Lake, Mapping, Override};
use crate::schema::{LakeType, Policy};

use super::decimal::LAKE_DIGITS_MAX;

/// A declaration taken apart: `decimal(12,2) unsigned` is `decimal`, [12, 2], unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub arguments: Vec<u32>,
    pub unsigned: bool,
    /// The server prints it with zeros before, as many as its width leaves.
    pub zerofill: bool,
    /// MariaDB's compressed column storage, which the log carries compressed.
    pub compressed: bool,
}

/// How values of a declaration are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Integer,
    Float,
    Double,
    Decimal,
    Bit,
    Date,
    Datetime,
    Timestamp,
    Time,
    Year,
    Text,
    Binary,
    Enum,
    Set,
    Json,
    Uuid,
    Inet4,
    Inet6,
    Geometry,
    Vector,
    /// A type that this release does not know: the bytes in hex.
    Other,
}

impl Declared {
    pub fn parse(declaration: &str) -> Self {
        let lower = declaration.trim().to_ascii_lowercase();
        let name_end = lower.find(|c: char| c == '(' || c.is_whitespace()).unwrap_or(lower.len());
        let (name, rest) = lower.split_at(name_end);
        let labels = matches!(name, "enum" | "set");
        let arguments = match (rest.strip_prefix('('), labels) {
            (Some(inner), false) => inner
                .split(')')
                .next()
                .unwrap_or_default()
                .split(',')
                .filter_map(|argument| argument.trim().parse().ok())
                .collect(),
            _ => Vec::new(),
        };
        let attribute = |wanted: &str| !labels && rest.split([' ', ')', '/', '*']).any(|word| word == wanted);
        Self {
            name: name.to_owned(),
            arguments,
            unsigned: attribute("unsigned") || attribute("zerofill"),
            zerofill: attribute("zerofill"),
            compressed: attribute("compressed"),
        }
    }

    pub fn family(&self) -> Family {
        match self.name.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => Family::Integer,
            "float" => Family::Float,
            "double" | "real" => Family::Double,
            "decimal" | "numeric" => Family::Decimal,
            "bit" => Family::Bit,
            "date" => Family::Date,
            "datetime" => Family::Datetime,
            "timestamp" => Family::Timestamp,
            "time" => Family::Time,
            "year" => Family::Year,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Family::Text,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Family::Binary,
            "enum" => Family::Enum,
            "set" => Family::Set,
            "json" => Family::Json,
            "uuid" => Family::Uuid,
            "inet4" => Family::Inet4,
            "inet6" => Family::Inet6,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geomcollection" | "geometrycollection" => Family::Geometry,
            "vector" => Family::Vector,
            _ => Family::Other,
        }
    }

    fn mapping(&self) -> Option<&'static Mapping> {
        Mapping::of(mapping::MYSQL, &self.name, self.unsigned)
    }

    /// The lake type where no contract asks for another.
    pub fn lake_type(&self) -> LakeType {
        match self.mapping().map(|row| row.lake) {
            Some(Lake::Is(lake_type)) => lake_type,
            Some(Lake::Decimal) => {
                let (precision, scale) = self.decimal();
                decimal(precision, scale)
            }
            Some(Lake::Bits) if self.bits() == 1 => LakeType::Boolean,
            Some(Lake::Bits) => LakeType::Binary,
            Some(Lake::Array | Lake::Base) | None => LakeType::String,
        }
    }

    fn bits(&self) -> u32 {
        self.arguments.first().copied().unwrap_or(1)
    }

    /// The lake type of `column` under its table's contract. The error says in words what the contract can ask for.
    pub fn under_contract(&self, column: &str, contract: &Contract) -> Result<LakeType, String> {
        let natural = self.lake_type();
        let policy = contract.value_policy_of(column);
        let dates = matches!(self.family(), Family::Date | Family::Datetime | Family::Timestamp);
        let wanted = match contract.types.get(column) {
            Some(text) => LakeType::from_contract(text).map_err(|unknown| {
                format!("`types.{column}`: {unknown}; a `{}` can be {}", self.name, self.possible())
            })?,
            None if contract.tinyint1_is_bool && self.is_tinyint1() => LakeType::Boolean,
            // The source's own words, for every value of the column.
            None if dates && policy == Policy::String => return Ok(LakeType::String),
            None => return Ok(natural),
        };
        let Some(every_value_fits) = self.becomes(wanted) else {
            return Err(format!(
                "`types.{column}` asks for {wanted}, but the column is `{}`, which can be {}",
                self.spelled(),
                self.possible()
            ));
        };
        if !every_value_fits && policy == Policy::String {
            return Err(format!(
                "column `{column}` is to be {wanted}, and its value policy \"string\" wants text; give it \"null\" or \
                 \"fail\" in `value_policies`, or string in `types`"
            ));
        }
        Ok(wanted)
    }

    /// Whether values of this declaration can become that lake type, and if so, whether all of them.
    fn becomes(&self, wanted: LakeType) -> Option<bool> {
        let dates = matches!(self.family(), Family::Date | Family::Datetime | Family::Timestamp);
        if wanted == self.lake_type() {
            return Some(!dates);
        }
        self.mapping()?.overrides.iter().find_map(|possible| match (possible, wanted) {
            (Override::BooleanOfOne, LakeType::Boolean) if self.is_tinyint1() => Some(false),
            (Override::WiderInteger, wider) => {
                (integer_digits(wider)? > integer_digits(self.lake_type())?).then_some(true)
            }
            (Override::Long, LakeType::Long) => match self.lake_type() {
                LakeType::Decimal { scale, .. } if scale > 0 => None,
                LakeType::String if self.decimal().1 > 0 => None,
                LakeType::Boolean => Some(true),
                LakeType::Binary => Some(self.bits() < 64),
                LakeType::Decimal { precision, .. } => Some(precision < 19),
                _ => Some(false),
            },
            (Override::WiderDecimal, LakeType::Decimal { precision, scale }) => {
                let digits = match self.lake_type() {
                    LakeType::Decimal { precision, .. } => precision,
                    other => integer_digits(other)?,
                };
                (precision - scale >= digits).then_some(true)
            }
            (Override::Decimal, LakeType::Decimal { precision, scale }) => {
                let (own_precision, own_scale) = self.decimal();
                let room = scale >= own_scale && precision - scale >= own_precision.saturating_sub(own_scale);
                Some(room)
            }
            (Override::Double, LakeType::Double) | (Override::Text, LakeType::String) => Some(true),
            _ => None,
        })
    }

    /// What a contract may ask for, in words.
    fn possible(&self) -> String {
        let mut words = vec![format!("`{}`", self.lake_type())];
        let overrides = self.mapping().map_or(&[][..], |row| row.overrides);
        let applies = |possible: &&Override| match possible {
            Override::BooleanOfOne => self.is_tinyint1(),
            Override::Long => self.becomes(LakeType::Long).is_some(),
            _ => true,
        };
        words.extend(overrides.iter().filter(applies).map(|possible| possible.words().to_owned()));
        match words.split_last() {
            Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
            _ => format!("{} only", words.concat()),
        }
    }

    /// What MySQL and MariaDB call a boolean.
    pub fn is_tinyint1(&self) -> bool {
        self.name == "tinyint" && self.arguments == [1] && !self.unsigned
    }

    fn spelled(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(",")) };
        format!("{}{arguments}{}", self.name, if self.unsigned { " unsigned" } else { "" })
    }

    /// A whole number as the server prints it.
    pub fn integer_text(&self, value: i128) -> String {
        let width = if self.zerofill { self.arguments.first().map_or(0, |width| *width as usize) } else { 0 };
        format!("{value:0width$}", width = width.min(255))
    }

    /// A decimal as the server prints it. Columns of more than 38 digits are text in any case, without those zeros.
    pub fn decimal_text(&self, canonical: &str) -> String {
        let (precision, scale) = self.decimal();
        let width = usize::from(precision) + usize::from(scale > 0);
        if self.zerofill && precision <= LAKE_DIGITS_MAX {
            format!("{canonical:0>width$}")
        } else {
            canonical.to_owned()
        }
    }

    /// Precision and scale, with the server's defaults.
    pub fn decimal(&self) -> (u8, u8) {
        let argument = |index: usize, default: u8| {
            self.arguments.get(index).map_or(default, |value| u8::try_from(*value).unwrap_or(u8::MAX))
        };
        (argument(0, 10), argument(1, 0))
    }
}

/// Decimal digits that hold every value of an integer type.
fn integer_digits(lake_type: LakeType) -> Option<u8> {
    Some(match lake_type {
        LakeType::Byte => 3,
        LakeType::Short => 5,
        LakeType::Integer => 10,
        LakeType::Long => 19,
        _ => return None,
    })
}

/// A decimal with more digits than the lake's is kept whole, as text.
pub fn decimal(precision: u8, scale: u8) -> LakeType {
    if precision == 0 || precision > LAKE_DIGITS_MAX || scale > precision {
        LakeType::String
    } else {
        LakeType::Decimal { precision, scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-1 to M-21: declaration on the left, lake type on the right.
    #[test]
    fn every_declaration_has_its_lake_type() {
        let cases = [
            ("tinyint(4)", "byte"),
            ("tinyint", "byte"),
            ("tinyint(1)", "byte"),
            ("tinyint(3) unsigned", "short"),
            ("smallint(6)", "short"),
            ("smallint(5) unsigned zerofill", "integer"),
            ("mediumint(9)", "integer"),
            ("mediumint unsigned", "integer"),
            ("int(11)", "integer"),
            ("int(10) unsigned", "long"),
            ("bigint(20)", "long"),
            ("bigint unsigned", "decimal(20,0)"),
            ("float", "float"),
            ("float(7,3)", "float"),
            ("double unsigned", "double"),
            ("decimal(12,2)", "decimal(12,2)"),
            ("decimal(38,38)", "decimal(38,38)"),
            ("decimal(39,0)", "string"),
            ("bit(1)", "boolean"),
            ("bit(9)", "binary"),
            ("date", "date"),
            ("datetime(6)", "timestamp_ntz"),
            ("timestamp", "timestamp"),
            ("time(3)", "long"),
            ("year(4)", "integer"),
            ("char(3)", "string"),
            ("varchar(0)", "string"),
            ("longtext", "string"),
            ("binary(16)", "binary"),
            ("mediumblob", "binary"),
            ("enum('a','b unsigned')", "string"),
            ("set('x','y')", "string"),
            ("json", "string"),
            ("uuid", "string"),
            ("inet6", "string"),
            ("point", "struct<srid:integer,wkb:binary>"),
            ("geomcollection", "struct<srid:integer,wkb:binary>"),
            ("vector(3)", "array<float>"),
            ("a type of the future", "string"),
        ];
        for (declaration, lake_type) in cases {
            assert_eq!(Declared::parse(declaration).lake_type().to_string(), lake_type, "{declaration}");
        }
    }

    /// Declaration, what `[types]` asks for, value policy; the lake type, or a part of the error.
    #[test]
    fn contracts_get_the_types_that_are_possible() {
        let cases = [
            ("tinyint(1)", "bool", Policy::Null, "boolean"),
            ("tinyint(4)", "bool", Policy::Null, "can be `byte`, a wider integer"),
            ("tinyint(1)", "bool", Policy::String, "wants text"),
            ("tinyint", "int", Policy::String, "integer"),
            ("int", "smallint", Policy::Null, "asks for short"),
            ("int unsigned", "decimal(19,0)", Policy::Null, "decimal(19,0)"),
            ("int", "decimal(11,2)", Policy::Null, "asks for decimal(11,2)"),
            ("bigint unsigned", "bigint", Policy::Fail, "long"),
            ("bigint unsigned", "decimal(22,2)", Policy::Fail, "decimal(22,2)"),
            ("bigint", "string", Policy::Null, "string"),
            ("float", "double", Policy::Null, "double"),
            ("float", "string", Policy::Null, "can be `float` or `double`"),
            ("double", "float", Policy::Null, "can be `double` only"),
            ("decimal(12,2)", "decimal(20,4)", Policy::String, "decimal(20,4)"),
            ("decimal(12,2)", "decimal(4,1)", Policy::Null, "decimal(4,1)"),
            ("decimal(12,2)", "long", Policy::Null, "can be `decimal(12,2)`, `decimal(P,S)` or `string`"),
            ("decimal(12,0)", "long", Policy::Null, "long"),
            ("decimal(65,30)", "decimal(38,10)", Policy::Null, "decimal(38,10)"),
            ("bit(1)", "long", Policy::Null, "long"),
            ("bit(64)", "long", Policy::Null, "long"),
            ("bit(8)", "boolean", Policy::Null, "asks for boolean"),
            ("date", "string", Policy::Null, "string"),
            ("date", "date", Policy::String, "wants text"),
            ("datetime(3)", "timestamp", Policy::Null, "can be `timestamp_ntz` or `string`"),
            ("time", "string", Policy::Null, "string"),
            ("year", "string", Policy::Null, "string"),
            ("text", "binary", Policy::Null, "can be `string` only"),
            ("json", "string", Policy::Null, "string"),
            ("point", "string", Policy::Null, "asks for string"),
            ("int", "number", Policy::Null, "`number` is not a Delta type"),
        ];
        for (declaration, wanted, policy, expected) in cases {
            let contract = Contract {
                types: [("c".to_owned(), wanted.to_owned())].into(),
                value_policy: policy,
                ..Contract::default()
            };
            match Declared::parse(declaration).under_contract("c", &contract) {
                Ok(lake_type) => assert_eq!(lake_type.to_string(), expected, "{declaration} as {wanted}"),
                Err(error) => assert!(error.contains(expected), "{declaration} as {wanted}: {error}"),
            }
        }
    }

    #[test]
    fn without_types_the_policy_and_tinyint1_decide() {
        let under = |declaration: &str, contract: &Contract| {
            Declared::parse(declaration).under_contract("c", contract).map(|lake_type| lake_type.to_string())
        };
        let strings = Contract { value_policy: Policy::String, ..Contract::default() };
        for (declaration, expected) in
            [("date", "string"), ("timestamp(6)", "string"), ("time", "long"), ("bigint unsigned", "decimal(20,0)")]
        {
            assert_eq!(under(declaration, &strings).as_deref(), Ok(expected));
        }
        let booleans = Contract { tinyint1_is_bool: true, ..Contract::default() };
        for (declaration, expected) in [("tinyint(1)", "boolean"), ("tinyint(4)", "byte"), ("tinyint", "byte")] {
            assert_eq!(under(declaration, &booleans).as_deref(), Ok(expected));
        }
        let bytes = Contract { types: [("c".to_owned(), "byte".to_owned())].into(), ..booleans };
        assert_eq!(under("tinyint(1)", &bytes).as_deref(), Ok("byte"));
    }

    #[test]
    fn every_name_of_the_table_is_known_here() {
        for row in mapping::MYSQL {
            for name in row.names {
                assert_ne!(Declared::parse(name).family(), Family::Other, "{name}");
            }
        }
    }

    #[test]
    fn attributes_are_words_of_their_own() {
        assert!(Declared::parse("varchar(100) /*M!100301 COMPRESSED*/").compressed);
        assert!(!Declared::parse("enum('unsigned','compressed')").unsigned);
        assert!(!Declared::parse("enum('unsigned','compressed')").compressed);
        assert_eq!(Declared::parse("decimal(5,2)").decimal(), (5, 2));
    }
}
