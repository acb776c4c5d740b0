//! The types a lake column can have, and their Arrow and Delta forms.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// A type of a lake column (Delta protocol, "Primitive Types", and the two nested forms that sources need); the only types
/// lakeward writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LakeType {
    Boolean,
    /// 8-bit signed.
    Byte,
    /// 16-bit signed.
    Short,
    /// 32-bit signed.
    Integer,
    /// 64-bit signed.
    Long,
    Float,
    Double,
    /// At most 38 digits.
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Binary,
    Date,
    /// Microseconds since the epoch, UTC.
    Timestamp,
    /// Microseconds of a wall clock without a zone.
    TimestampNtz,
    /// A list of values, each of which may be NULL.
    Array(ElementType),
    /// `struct<srid: integer, wkb: binary>`: a shape as OGC well-known binary, and its reference system.
    Geometry,
}

/// What an array holds: any [`LakeType`] that is not nested itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    Boolean,
    Byte,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    String,
    Binary,
    Date,
    Timestamp,
    TimestampNtz,
}

impl ElementType {
    /// The type of one element on its own.
    pub fn lake_type(self) -> LakeType {
        match self {
            Self::Boolean => LakeType::Boolean,
            Self::Byte => LakeType::Byte,
            Self::Short => LakeType::Short,
            Self::Integer => LakeType::Integer,
            Self::Long => LakeType::Long,
            Self::Float => LakeType::Float,
            Self::Double => LakeType::Double,
            Self::Decimal { precision, scale } => LakeType::Decimal { precision, scale },
            Self::String => LakeType::String,
            Self::Binary => LakeType::Binary,
            Self::Date => LakeType::Date,
            Self::Timestamp => LakeType::Timestamp,
            Self::TimestampNtz => LakeType::TimestampNtz,
        }
    }
}

/// Arrow's name of an array's elements, as Parquet and Delta readers expect it.
pub const ELEMENT_FIELD: &str = "element";

/// The fields of [`LakeType::Geometry`] in Arrow.
pub fn geometry_fields() -> Fields {
    Fields::from(vec![Field::new("srid", DataType::Int32, true), Field::new("wkb", DataType::Binary, true)])
}

impl LakeType {
    /// The type as an array's element, unless it is nested.
    pub fn element(self) -> Option<ElementType> {
        Some(match self {
            Self::Boolean => ElementType::Boolean,
            Self::Byte => ElementType::Byte,
            Self::Short => ElementType::Short,
            Self::Integer => ElementType::Integer,
            Self::Long => ElementType::Long,
            Self::Float => ElementType::Float,
            Self::Double => ElementType::Double,
            Self::Decimal { precision, scale } => ElementType::Decimal { precision, scale },
            Self::String => ElementType::String,
            Self::Binary => ElementType::Binary,
            Self::Date => ElementType::Date,
            Self::Timestamp => ElementType::Timestamp,
            Self::TimestampNtz => ElementType::TimestampNtz,
            Self::Array(_) | Self::Geometry => return None,
        })
    }

    /// Reads a type as people write it in a contract: Delta's names, and SQL's for the same (`bool`, `int`, `bigint`).
    pub fn from_contract(text: &str) -> Result<Self, UnknownLakeType> {
        let lower = text.trim().to_ascii_lowercase();
        match lower.as_str() {
            "bool" => Ok(Self::Boolean),
            "tinyint" => Ok(Self::Byte),
            "smallint" => Ok(Self::Short),
            "int" => Ok(Self::Integer),
            "bigint" => Ok(Self::Long),
            other => other.parse().map_err(|_| UnknownLakeType(text.to_owned())),
        }
    }

    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Byte => DataType::Int8,
            Self::Short => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            // Delta's scale is never negative and at most 38, so it fits an i8.
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Array(element) => {
                DataType::List(Arc::new(Field::new(ELEMENT_FIELD, element.lake_type().arrow(), true)))
            }
            Self::Geometry => DataType::Struct(geometry_fields()),
        }
    }
}

/// How [`LakeType::Geometry`] is spelled.
const GEOMETRY: &str = "struct<srid:integer,wkb:binary>";

/// Delta's own spelling, as in the `schemaString` of a table; nested types as Spark's DDL spells them.
impl fmt::Display for LakeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Byte => f.write_str("byte"),
            Self::Short => f.write_str("short"),
            Self::Integer => f.write_str("integer"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampNtz => f.write_str("timestamp_ntz"),
            Self::Array(element) => write!(f, "array<{}>", element.lake_type()),
            Self::Geometry => f.write_str(GEOMETRY),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a Delta type that lakeward writes")]
pub struct UnknownLakeType(pub String);

impl FromStr for LakeType {
    type Err = UnknownLakeType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "boolean" => Self::Boolean,
            "byte" => Self::Byte,
            "short" => Self::Short,
            "integer" => Self::Integer,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "string" => Self::String,
            "binary" => Self::Binary,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "timestamp_ntz" => Self::TimestampNtz,
            GEOMETRY => Self::Geometry,
            _ => {
                let unknown = || UnknownLakeType(text.to_owned());
                if let Some(element) = text.strip_prefix("array<").and_then(|rest| rest.strip_suffix('>')) {
                    return element.parse::<Self>()?.element().map(Self::Array).ok_or_else(unknown);
                }
                let inner =
                    text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(unknown)?;
                let (precision, scale) = inner.split_once(',').ok_or_else(unknown)?;
                let precision: u8 = precision.trim().parse().map_err(|_| unknown())?;
                let scale: u8 = scale.trim().parse().map_err(|_| unknown())?;
                if precision == 0 || precision > 38 || scale > precision {
                    return Err(unknown());
                }
                Self::Decimal { precision, scale }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_its_delta_spelling() {
        let types = [
            LakeType::Boolean,
            LakeType::Byte,
            LakeType::Short,
            LakeType::Integer,
            LakeType::Long,
            LakeType::Float,
            LakeType::Double,
            LakeType::Decimal { precision: 38, scale: 9 },
            LakeType::String,
            LakeType::Binary,
            LakeType::Date,
            LakeType::Timestamp,
            LakeType::TimestampNtz,
            LakeType::Array(ElementType::Decimal { precision: 12, scale: 2 }),
            LakeType::Geometry,
        ];
        for lake_type in types {
            assert_eq!(lake_type.to_string().parse::<LakeType>().ok(), Some(lake_type));
        }
    }

    #[test]
    fn types_that_lakeward_does_not_write_are_refused() {
        for text in
            ["decimal(39,0)", "decimal(5,6)", "decimal(0,0)", "decimal(5)", "struct<a:int>", "array<array<int>>"]
        {
            assert!(text.parse::<LakeType>().is_err(), "{text}");
        }
    }
}
