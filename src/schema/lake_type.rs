//! The types a lake column can have, and their Arrow and Delta forms.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, TimeUnit};

/// A Delta primitive type (Delta protocol, "Primitive Types"); the only types lakeward writes.
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
}

impl LakeType {
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
        }
    }
}

/// Delta's own spelling, as in the `schemaString` of a table.
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
            _ => {
                let unknown = || UnknownLakeType(text.to_owned());
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
        ];
        for lake_type in types {
            assert_eq!(lake_type.to_string().parse::<LakeType>().ok(), Some(lake_type));
        }
    }

    #[test]
    fn impossible_decimals_are_refused() {
        for text in ["decimal(39,0)", "decimal(5,6)", "decimal(0,0)", "decimal(5)", "struct<a:int>"] {
            assert!(text.parse::<LakeType>().is_err(), "{text}");
        }
    }
}
