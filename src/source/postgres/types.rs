//! PostgreSQL types, as they are declared, and what the lake holds for them.
//!
//! A type is an oid and a modifier. Domains are looked through to their base type (P-14); of the base types only the
//! ones below have a lake form of their own, all others keep PostgreSQL's text form in a string column, so that no
//! column is ever dropped (P-15). An array of one dimension is a list of its elements' forms (P-11). The oids of
//! built-in types are constants of PostgreSQL's `pg_type.dat`.
//!
//! [`natural`] says what a column becomes by itself; [`decode_for`] how a value gets into the lake's type whatever that is:
//! the natural one, one that a contract asks for, or one from when the contract was another. So the lake's own schema
//! always decides how rows are read.

use serde::{Deserialize, Serialize};

use crate::schema::{Column, LakeType, Policy};

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
    pub const XML: u32 = 142;
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

/// A type as the catalog describes it, domains looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedType {
    /// `format_type()` of what is declared.
    pub name: String,
    pub base_oid: u32,
    pub base_typmod: i32,
    /// Of an array: what it holds.
    pub element: Option<Element>,
    /// Declared dimensions, 0 where none are known: the log does not tell them.
    #[serde(default)]
    pub dimensions: i32,
    /// `pg_type.typtype` of the base type: `e` for an enum.
    #[serde(default)]
    pub kind: char,
    /// What stands between two values of it in an array.
    #[serde(default)]
    pub delimiter: char,
}

/// What an array holds, domains looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    pub base_oid: u32,
    pub base_typmod: i32,
    /// Between two elements: a comma, a semicolon for boxes.
    pub delimiter: char,
}

/// How a column is held in the lake, and how its text gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub lake_type: LakeType,
    pub decode: Decode,
    /// The type has no lake form of its own: the string column holds PostgreSQL's text for it.
    pub as_text: bool,
}

/// What a column of this type becomes when no contract says otherwise.
pub fn natural(found: &ResolvedType) -> Mapping {
    match found.element {
        // What was declared as a matrix most likely is one, and a list of lists of unknown depth has no lake type.
        Some(element) if found.dimensions <= 1 => array(element)
            .map(|(lake_type, decode)| Mapping { lake_type, decode, as_text: false })
            .unwrap_or_else(text_only),
        Some(_) => text_only(),
        None => mapping(found.base_oid, found.base_typmod),
    }
}

fn text_only() -> Mapping {
    Mapping { lake_type: LakeType::String, decode: Decode::Text, as_text: true }
}

/// The list of an element's own form.
fn array(element: Element) -> Option<(LakeType, Decode)> {
    let held = mapping(element.base_oid, element.base_typmod);
    let decode = Decode::Array { element: Box::new(held.decode), delimiter: delimiter(element)? };
    Some((LakeType::Array(held.lake_type.element()?), decode))
}

fn delimiter(element: Element) -> Option<u8> {
    u8::try_from(element.delimiter).ok().filter(u8::is_ascii)
}

/// How a value of this type gets into a column of `wanted`; `None` where no value, or not every value, could be
/// exact or told as out of range.
pub fn decode_for(found: &ResolvedType, wanted: LakeType) -> Option<Decode> {
    if let (Some(element), LakeType::Array(held)) = (found.element, wanted) {
        let decode = scalar_decode(element.base_oid, element.base_typmod, held.lake_type())?;
        return Some(Decode::Array { element: Box::new(decode), delimiter: delimiter(element)? });
    }
    match found.element {
        Some(_) => (wanted == LakeType::String).then_some(Decode::Text),
        None => scalar_decode(found.base_oid, found.base_typmod, wanted),
    }
}

fn scalar_decode(base_oid: u32, typmod: i32, wanted: LakeType) -> Option<Decode> {
    let natural = mapping(base_oid, typmod);
    if natural.lake_type == wanted {
        return Some(natural.decode);
    }
    match (base_oid, wanted) {
        (_, LakeType::String) => Some(Decode::Text),
        (oid::NUMERIC | oid::INT2 | oid::INT4 | oid::INT8 | oid::OID, LakeType::Decimal { precision, scale }) => {
            Some(Decode::Decimal { precision, scale })
        }
        (oid::NUMERIC, LakeType::Byte | LakeType::Short | LakeType::Integer | LakeType::Long) => Some(Decode::Whole),
        (oid::INT2, LakeType::Integer | LakeType::Long) | (oid::INT4, LakeType::Long) => Some(Decode::Whole),
        _ => None,
    }
}

/// For messages: what a column of this type can be in the lake.
fn possible(found: &ResolvedType) -> String {
    let natural = natural(found).lake_type;
    let mut possible = vec![natural.to_string()];
    match found.element {
        Some(element) => {
            if matches!(element.base_oid, oid::NUMERIC | oid::INT2 | oid::INT4 | oid::INT8 | oid::OID) {
                possible.push("array<decimal(p,s)>".into());
            }
            possible.push("array<string>".into());
        }
        None => match found.base_oid {
            oid::NUMERIC => possible.extend(["decimal(p,s)", "byte", "short", "integer", "long"].map(str::to_owned)),
            oid::INT2 => possible.extend(["integer", "long", "decimal(p,s)"].map(str::to_owned)),
            oid::INT4 => possible.extend(["long", "decimal(p,s)"].map(str::to_owned)),
            oid::INT8 | oid::OID => possible.push("decimal(p,s)".into()),
            _ => {}
        },
    }
    possible.push("string".into());
    possible.dedup();
    possible.join(", ")
}

/// Whether values of this type may lack a form in `held`, so that a policy has work to do.
fn may_be_unfaithful(found: &ResolvedType, held: LakeType) -> bool {
    if held == LakeType::String {
        return false;
    }
    match found.element {
        Some(_) => true,
        None => {
            let integer = matches!(found.base_oid, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID);
            matches!(found.base_oid, oid::NUMERIC | oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ)
                || integer && matches!(held, LakeType::Decimal { .. })
        }
    }
}

/// Gives the column the lake type that its source type, the contract's `types` and its policy lead to. The error says
/// what can't be, in words.
pub fn settle(column: &mut Column, found: &ResolvedType, wanted: Option<&String>) -> Result<(), String> {
    let Some(wanted) = wanted else {
        let natural = natural(found).lake_type;
        // Every value of the other types has a faithful form, which is better than text.
        let as_text = column.policy == Policy::String && may_be_unfaithful(found, natural);
        column.lake_type = if as_text { LakeType::String } else { natural };
        return Ok(());
    };
    let refused = |finding: String| {
        format!("`types` makes column `{}` ({}) {finding}; possible is: {}", column.name, found.name, possible(found))
    };
    let lake_type = LakeType::from_contract(wanted).map_err(|error| refused(format!("{wanted}: {error}")))?;
    if decode_for(found, lake_type).is_none() {
        return Err(refused(format!("{lake_type}, which can't hold its values")));
    }
    if column.policy == Policy::String && may_be_unfaithful(found, lake_type) {
        return Err(format!(
            "`types` makes column `{}` {lake_type}, and the policy \"string\" makes it text; remove the one, or set the other \
             to \"null\" or \"fail\"",
            column.name
        ));
    }
    column.lake_type = lake_type;
    Ok(())
}

/// The mapping of a base type that is no array (never a domain).
fn mapping(base_oid: u32, typmod: i32) -> Mapping {
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
        _ => text_only(),
    }
}

/// Whether `ALTER COLUMN … TYPE` without USING leaves every value what it is, as far as the lake can tell: what the lake has
/// of it is cast, or stays. `as_text`: the lake holds the text form of both.
pub fn carries(from: &ResolvedType, to: &ResolvedType, as_text: bool) -> bool {
    match (from.element, to.element) {
        (Some(held), Some(holds)) => {
            let held = (held.base_oid, held.base_typmod, ' ');
            scalar_carries(held, (holds.base_oid, holds.base_typmod), as_text)
        }
        (None, None) => {
            scalar_carries((from.base_oid, from.base_typmod, from.kind), (to.base_oid, to.base_typmod), as_text)
        }
        _ => false,
    }
}

fn scalar_carries((from, typmod, kind): (u32, i32, char), (to, new_typmod): (u32, i32), as_text: bool) -> bool {
    use oid::{
        FLOAT4, FLOAT8, INT2, INT4, INT8, JSON, JSONB, NAME, NUMERIC, OID, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ, UUID,
        VARCHAR, XML,
    };
    if from == to && typmod == new_typmod {
        return true;
    }
    // Precision of fractions of seconds, or a length: none is the most.
    let grows = new_typmod < 0 || (typmod >= 0 && new_typmod >= typmod);
    match (from, to) {
        (INT2, INT4 | INT8) | (INT4 | OID, INT8) => true,
        (FLOAT4, FLOAT8) | (INT2 | INT4, FLOAT8) | (INT2, FLOAT4) => !as_text,
        // A whole number's text has no point only where no scale is declared.
        (INT2 | INT4 | INT8, NUMERIC) => !as_text || new_typmod < 0,
        (NUMERIC, NUMERIC) => match (digits(typmod), digits(new_typmod)) {
            (_, None) => true,
            (Some((whole, scale)), Some((wider, finer))) => {
                wider >= whole && if as_text { finer == scale } else { finer >= scale }
            }
            (None, Some(_)) => false,
        },
        (VARCHAR | TEXT, VARCHAR | TEXT) => grows,
        // Through the text form that the lake has already.
        (NAME | JSON | JSONB | UUID | XML, TEXT | VARCHAR) => new_typmod < 0,
        (_, TEXT | VARCHAR) if kind == 'e' => new_typmod < 0,
        (TIME, TIME) | (TIMESTAMP, TIMESTAMP) | (TIMESTAMPTZ, TIMESTAMPTZ) => grows,
        _ => false,
    }
}

/// Digits before and behind the point of a `numeric(p,s)`, the latter negative for hundreds.
fn digits(typmod: i32) -> Option<(i32, i32)> {
    if typmod < 4 {
        return None;
    }
    let packed = typmod - 4;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    Some((((packed >> 16) & 0xffff) - scale, scale))
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

    fn plain(base_oid: u32, base_typmod: i32) -> ResolvedType {
        ResolvedType { base_oid, base_typmod, ..ResolvedType::default() }
    }

    fn array_of(base_oid: u32, base_typmod: i32, dimensions: i32) -> ResolvedType {
        let element = Some(Element { base_oid, base_typmod, delimiter: ',' });
        ResolvedType { element, dimensions, ..ResolvedType::default() }
    }

    /// P-11
    #[test]
    fn an_array_is_a_list_of_its_elements_form() {
        let lake = |found: &ResolvedType| natural(found).lake_type.to_string();
        assert_eq!(lake(&array_of(oid::INT4, -1, 1)), "array<integer>");
        assert_eq!(lake(&array_of(oid::NUMERIC, typmod(7, 3), 0)), "array<decimal(7,3)>");
        assert_eq!(lake(&array_of(oid::NUMERIC, -1, 1)), "array<string>");
        assert_eq!(lake(&array_of(999_999, -1, 1)), "array<string>");
        assert_eq!(lake(&array_of(oid::INT4, -1, 2)), "string");
        // What was declared with two dimensions is text in the lake, and the log does not tell the dimensions.
        assert_eq!(decode_for(&array_of(oid::INT4, -1, 0), LakeType::String), Some(Decode::Text));
    }

    /// What ALTER COLUMN TYPE does by itself; D-5.
    #[test]
    fn only_types_that_keep_every_value_carry_over() {
        let shape = |found: u32, typmod: i32| plain(found, typmod);
        let label = ResolvedType { kind: 'e', ..plain(99_999, -1) };
        let numeric = |precision, scale| shape(oid::NUMERIC, typmod(precision, scale));
        for (from, to) in [
            (shape(oid::INT4, -1), shape(oid::INT8, -1)),
            (shape(oid::VARCHAR, 14), shape(oid::VARCHAR, 24)),
            (shape(oid::VARCHAR, 14), shape(oid::TEXT, -1)),
            (numeric(10, 2), numeric(12, 2)),
            (numeric(10, 2), numeric(12, 4)),
            (shape(oid::TIMESTAMP, 3), shape(oid::TIMESTAMP, -1)),
            (shape(oid::JSONB, -1), shape(oid::TEXT, -1)),
            (label.clone(), shape(oid::TEXT, -1)),
            (array_of(oid::INT2, -1, 1), array_of(oid::INT4, -1, 1)),
        ] {
            assert!(carries(&from, &to, false), "{from:?} to {to:?}");
        }
        for (from, to) in [
            (shape(oid::INT8, -1), shape(oid::INT4, -1)),
            (shape(oid::INT4, -1), shape(oid::OID, -1)),
            (shape(oid::TIMESTAMP, -1), shape(oid::TIMESTAMP, 3)),
            (shape(oid::BPCHAR, 9), shape(oid::BPCHAR, 14)),
            (shape(oid::JSON, -1), shape(oid::JSONB, -1)),
            (shape(oid::TEXT, -1), shape(oid::UUID, -1)),
            (shape(oid::VARCHAR, 24), shape(oid::VARCHAR, 14)),
            (numeric(10, 2), numeric(10, 4)),
            (numeric(5, -2), numeric(5, -1)),
            (shape(oid::INT4, -1), array_of(oid::INT4, -1, 1)),
        ] {
            assert!(!carries(&from, &to, false), "{from:?} to {to:?}");
        }
        // 1 is not 1.00 as text.
        assert!(!carries(&numeric(40, 2), &numeric(42, 4), true) && carries(&numeric(40, 2), &numeric(42, 2), true));
    }

    #[test]
    fn a_contract_changes_types_only_where_every_value_is_exact_or_told() {
        let settled = |found: &ResolvedType, wanted: &str, policy| {
            let mut column = Column {
                name: "c".into(),
                source_type: String::new(),
                lake_type: LakeType::Boolean,
                nullable: true,
                policy,
            };
            let wanted = (!wanted.is_empty()).then(|| wanted.to_owned());
            settle(&mut column, found, wanted.as_ref()).map(|()| column.lake_type.to_string())
        };
        let numeric = plain(oid::NUMERIC, typmod(12, 2));
        let is = |found: &ResolvedType, wanted: &str| settled(found, wanted, Policy::Null).ok();
        assert_eq!(is(&numeric, "decimal(20,4)").as_deref(), Some("decimal(20,4)"));
        assert_eq!(is(&numeric, "bigint").as_deref(), Some("long"));
        assert_eq!(is(&numeric, "string").as_deref(), Some("string"));
        assert_eq!(is(&plain(oid::INT2, -1), "long").as_deref(), Some("long"));
        assert_eq!(is(&array_of(oid::NUMERIC, -1, 1), "array<decimal(20,4)>").as_deref(), Some("array<decimal(20,4)>"));
        assert_eq!(is(&array_of(oid::INT4, -1, 2), "array<integer>").as_deref(), Some("array<integer>"));
        for (found, wanted) in [
            (&numeric, "double"),
            (&plain(oid::INT8, -1), "integer"),
            (&plain(oid::TEXT, -1), "long"),
            (&plain(oid::FLOAT4, -1), "double"),
            (&plain(oid::DATE, -1), "timestamp"),
            (&numeric, "varchar(3)"),
        ] {
            let refused = settled(found, wanted, Policy::Null).expect_err(wanted);
            assert!(refused.contains("possible is: ") && refused.contains("string"), "{refused}");
        }
        // The policy: text where a value could lack a form, and nowhere else.
        assert_eq!(settled(&numeric, "", Policy::String).as_deref(), Ok("string"));
        assert_eq!(settled(&plain(oid::DATE, -1), "", Policy::String).as_deref(), Ok("string"));
        assert_eq!(settled(&array_of(oid::INT4, -1, 1), "", Policy::String).as_deref(), Ok("string"));
        assert_eq!(settled(&plain(oid::INT4, -1), "", Policy::String).as_deref(), Ok("integer"));
        assert!(settled(&numeric, "decimal(20,4)", Policy::String).is_err_and(|error| error.contains("policy")));
    }
}
