//! PostgreSQL types, as they are declared, and what the lake holds for them.
//!
//! A type is an oid and a modifier. Domains are looked through to their base type (P-14); of the base types only the
//! ones below have a lake form of their own, all others keep PostgreSQL's text form in a string column, so that no
//! column is ever dropped (P-15). The oids of built-in types are constants of PostgreSQL's `pg_type.dat`.

use crate::schema::LakeType;

use super::text::Decode;

pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const MONEY: u32 = 790;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const TIMETZ: u32 = 1266;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// How a column is held in the lake, and how its text gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub lake_type: LakeType,
    pub decode: Decode,
    /// The type has no lake form of its own: the string column holds PostgreSQL's text for it.
    pub as_text: bool,
}

/// The mapping of a base type (never a domain).
pub fn mapping(base_oid: u32, typmod: i32) -> Mapping {
    let exact = |lake_type, decode| Mapping { lake_type, decode, as_text: false };
    match base_oid {
        oid::BOOL => exact(LakeType::Boolean, Decode::Boolean),
        oid::INT2 => exact(LakeType::Short, Decode::Short),
        oid::INT4 => exact(LakeType::Integer, Decode::Integer),
        oid::INT8 | oid::OID => exact(LakeType::Long, Decode::Long),
        oid::FLOAT4 => exact(LakeType::Float, Decode::Float),
        oid::FLOAT8 => exact(LakeType::Double, Decode::Double),
        oid::NUMERIC => match numeric_shape(typmod) {
            Some((precision, scale)) => {
                exact(LakeType::Decimal { precision, scale }, Decode::Decimal { precision, scale })
            }
            None => exact(LakeType::String, Decode::Text),
        },
        oid::MONEY => exact(LakeType::Decimal { precision: 19, scale: 2 }, Decode::Money),
        oid::BYTEA => exact(LakeType::Binary, Decode::Bytea),
        oid::DATE => exact(LakeType::Date, Decode::Date),
        oid::TIMESTAMP => exact(LakeType::TimestampNtz, Decode::Timestamp),
        oid::TIMESTAMPTZ => exact(LakeType::Timestamp, Decode::Timestamp),
        oid::TIME => exact(LakeType::Long, Decode::Time),
        oid::TEXT
        | oid::VARCHAR
        | oid::BPCHAR
        | oid::NAME
        | oid::CHAR
        | oid::UUID
        | oid::JSON
        | oid::JSONB
        | oid::TIMETZ => exact(LakeType::String, Decode::Text),
        _ => Mapping { lake_type: LakeType::String, decode: Decode::Text, as_text: true },
    }
}

/// Precision and scale of the decimal that holds every value of a `numeric(p,s)`; `None` where there is no such
/// decimal of 38 digits (P-2, P-3). The modifier holds `((p << 16) | (s & 0x7ff)) + 4`, the scale as an 11-bit two's
/// complement number (`numeric_typmod_scale` in numeric.c): `numeric(5,-2)` counts hundreds and has seven digits.
fn numeric_shape(typmod: i32) -> Option<(u8, u8)> {
    if typmod < 4 {
        return None;
    }
    let packed = typmod - 4;
    let precision = (packed >> 16) & 0xffff;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let (precision, scale) = if scale < 0 {
        (precision - scale, 0)
    } else {
        // numeric(2,5) holds 0.00012: PostgreSQL allows more digits behind the point than there are digits.
        (precision.max(scale), scale)
    };
    (1..=38).contains(&precision).then_some((precision as u8, scale as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typmod(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    /// P-2: 329730 was seen on a real server for numeric(5,-2).
    #[test]
    fn numeric_of_up_to_38_digits_is_a_decimal() {
        assert_eq!(typmod(5, -2), 329_730);
        assert_eq!(numeric_shape(329_730), Some((7, 0)));
        assert_eq!(numeric_shape(typmod(12, 2)), Some((12, 2)));
        assert_eq!(numeric_shape(typmod(38, 38)), Some((38, 38)));
        assert_eq!(numeric_shape(typmod(2, 5)), Some((5, 5)));
    }

    /// P-3
    #[test]
    fn wider_or_unconstrained_numeric_is_text() {
        for typmod in [-1, typmod(39, 0), typmod(38, -1), typmod(1000, 1000)] {
            assert_eq!(numeric_shape(typmod), None);
            assert_eq!(mapping(oid::NUMERIC, typmod).lake_type, LakeType::String);
        }
    }

    /// P-15
    #[test]
    fn unknown_types_become_text() {
        let mapping = mapping(999_999, -1);
        assert_eq!((mapping.lake_type, mapping.as_text), (LakeType::String, true));
    }
}
