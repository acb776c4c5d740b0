//! What a column's declaration (`COLUMN_TYPE` of information_schema) means, and its type in the lake.
//!
//! This is the only mapping: discovery, snapshots and the log all ask it.

use crate::schema::LakeType;

use super::decimal::LAKE_DIGITS_MAX;

/// A declaration taken apart: `decimal(12,2) unsigned` is `decimal`, [12, 2], unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub arguments: Vec<u32>,
    pub unsigned: bool,
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
    /// No lake type in this release: the bytes in hex.
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
            _ => Family::Other,
        }
    }

    pub fn lake_type(&self) -> LakeType {
        match self.family() {
            Family::Integer => integer(&self.name, self.unsigned),
            Family::Float => LakeType::Float,
            Family::Double => LakeType::Double,
            Family::Decimal => {
                let (precision, scale) = self.decimal();
                decimal(precision, scale)
            }
            Family::Bit if self.arguments.first().is_none_or(|bits| *bits == 1) => LakeType::Boolean,
            Family::Bit | Family::Binary => LakeType::Binary,
            Family::Date => LakeType::Date,
            Family::Datetime => LakeType::TimestampNtz,
            Family::Timestamp => LakeType::Timestamp,
            Family::Time => LakeType::Long,
            Family::Year => LakeType::Integer,
            Family::Text
            | Family::Enum
            | Family::Set
            | Family::Json
            | Family::Uuid
            | Family::Inet4
            | Family::Inet6
            | Family::Other => LakeType::String,
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

/// Unsigned integers widen by one step, so that every value fits.
fn integer(name: &str, unsigned: bool) -> LakeType {
    match (name, unsigned) {
        ("tinyint", false) => LakeType::Byte,
        ("tinyint", true) | ("smallint", false) => LakeType::Short,
        ("smallint", true) | ("mediumint", _) | ("int" | "integer", false) => LakeType::Integer,
        ("int" | "integer", true) | (_, false) => LakeType::Long,
        (_, true) => LakeType::Decimal { precision: 20, scale: 0 },
    }
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
            ("point", "string"),
            ("vector(3)", "string"),
        ];
        for (declaration, lake_type) in cases {
            assert_eq!(Declared::parse(declaration).lake_type().to_string(), lake_type, "{declaration}");
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
