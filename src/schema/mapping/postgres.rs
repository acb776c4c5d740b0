//! PostgreSQL: P-1 to P-16.

use super::Override::{Decimal, Integer, Text, WiderInteger};
use super::{Lake, Mapping, is};
use crate::schema::LakeType;

const PLAIN: Mapping = Mapping {
    ids: "",
    names: &[],
    unsigned: false,
    lake: Lake::Is(LakeType::String),
    encoding: "",
    beyond: "",
    overrides: &[],
};

pub static POSTGRES: &[Mapping] = &[
    Mapping { ids: "P-1", names: &["bool"], lake: is(LakeType::Boolean), overrides: &[Text], ..PLAIN },
    Mapping {
        ids: "P-1",
        names: &["int2"],
        lake: is(LakeType::Short),
        overrides: &[WiderInteger, Decimal, Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-1",
        names: &["int4"],
        lake: is(LakeType::Integer),
        overrides: &[WiderInteger, Decimal, Text],
        ..PLAIN
    },
    Mapping { ids: "P-1", names: &["int8", "oid"], lake: is(LakeType::Long), overrides: &[Decimal, Text], ..PLAIN },
    Mapping {
        ids: "P-1",
        names: &["float4"],
        lake: is(LakeType::Float),
        encoding: "NaN and infinities too",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-1",
        names: &["float8"],
        lake: is(LakeType::Double),
        encoding: "NaN and infinities too",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-2, P-3",
        names: &["numeric"],
        lake: Lake::Decimal,
        encoding: "exact; without precision or with more than 38 digits `string`, in PostgreSQL's text",
        beyond: "in a `decimal`: NaN (not a number), infinities, what does not fit without rounding (out of range)",
        overrides: &[Decimal, Integer, Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-9",
        names: &["money"],
        lake: is(LakeType::Decimal { precision: 19, scale: 2 }),
        encoding: "read with `lc_monetary = C`",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-4",
        names: &["date"],
        lake: is(LakeType::Date),
        beyond: "`infinity`, years before 1 and after 9999 (out of range)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-4",
        names: &["timestamp"],
        lake: is(LakeType::TimestampNtz),
        encoding: "the wall clock as written",
        beyond: "as for `date` (out of range)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-4",
        names: &["timestamptz"],
        lake: is(LakeType::Timestamp),
        encoding: "the instant in UTC",
        beyond: "as for `date` (out of range)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "P-5",
        names: &["time"],
        lake: is(LakeType::Long),
        encoding: "microseconds since midnight; `24:00:00` is 86400000000",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping { ids: "P-7", names: &["bytea"], lake: is(LakeType::Binary), overrides: &[Text], ..PLAIN },
    Mapping {
        ids: "P-5, P-6, P-7, P-10",
        names: &["text", "varchar", "bpchar", "uuid", "json", "jsonb", "timetz", "interval", "inet", "cidr"],
        encoding: "PostgreSQL's text; `interval` in ISO 8601, `char(n)` padded, `json` as written",
        ..PLAIN
    },
    Mapping {
        ids: "P-11",
        names: &["array"],
        lake: Lake::Array,
        encoding: "of the element's lake type, NULL elements kept",
        beyond: "several dimensions, or a first index other than 1 (array of another shape)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping { ids: "P-14", names: &["domain"], lake: Lake::Base, ..PLAIN },
    Mapping {
        ids: "P-8, P-12, P-13, P-15",
        names: &["bit", "varbit", "range", "multirange", "enum", "composite", "hstore"],
        encoding: "and every other type: PostgreSQL's text",
        ..PLAIN
    },
];
