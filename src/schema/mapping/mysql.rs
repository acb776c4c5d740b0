//! MySQL and MariaDB: M-1 to M-27.

use super::Override::{BooleanOfOne, Decimal, Double, Long, Text, WiderDecimal, WiderInteger};
use super::{Lake, Mapping, VECTOR, is};
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

/// For integers whose every value fits all that may be asked for.
const OF_INTEGER: &[super::Override] = &[WiderInteger, WiderDecimal, Text];

pub static MYSQL: &[Mapping] = &[
    Mapping {
        ids: "M-1, M-3, M-27",
        names: &["tinyint"],
        lake: is(LakeType::Byte),
        encoding: "`bool` is `tinyint(1)`, and a number too; `tinyint1 = \"bool\"` makes such columns `boolean`",
        beyond: "as `boolean`: anything but 0 and 1 (out of range)",
        overrides: &[BooleanOfOne, WiderInteger, WiderDecimal, Text],
        ..PLAIN
    },
    Mapping { ids: "M-1", names: &["smallint"], lake: is(LakeType::Short), overrides: OF_INTEGER, ..PLAIN },
    Mapping {
        ids: "M-1",
        names: &["mediumint", "int", "integer"],
        lake: is(LakeType::Integer),
        overrides: OF_INTEGER,
        ..PLAIN
    },
    Mapping { ids: "M-1", names: &["bigint"], lake: is(LakeType::Long), overrides: &[WiderDecimal, Text], ..PLAIN },
    Mapping {
        ids: "M-2",
        names: &["tinyint"],
        unsigned: true,
        lake: is(LakeType::Short),
        encoding: "`zerofill` makes a column unsigned; its zeros are for display and not in the number",
        overrides: OF_INTEGER,
        ..PLAIN
    },
    Mapping {
        ids: "M-2",
        names: &["smallint", "mediumint"],
        unsigned: true,
        lake: is(LakeType::Integer),
        overrides: OF_INTEGER,
        ..PLAIN
    },
    Mapping {
        ids: "M-2",
        names: &["int", "integer"],
        unsigned: true,
        lake: is(LakeType::Long),
        overrides: OF_INTEGER,
        ..PLAIN
    },
    Mapping {
        ids: "M-2, M-27",
        names: &["bigint"],
        unsigned: true,
        lake: is(LakeType::Decimal { precision: 20, scale: 0 }),
        encoding: "`serial` is this",
        beyond: "as `long`: above 9223372036854775807 (out of range)",
        overrides: &[Long, WiderDecimal, Text],
    },
    Mapping {
        ids: "M-4",
        names: &["float"],
        lake: is(LakeType::Float),
        encoding: "bit by bit",
        overrides: &[Double],
        ..PLAIN
    },
    Mapping { ids: "M-4", names: &["double", "real"], lake: is(LakeType::Double), encoding: "bit by bit", ..PLAIN },
    Mapping {
        ids: "M-5, M-6",
        names: &["decimal", "numeric"],
        lake: Lake::Decimal,
        encoding: "exact; with more than 38 digits `string`, in canonical form (`-0.50`)",
        beyond: "as another `decimal(P,S)` or `long`: what does not fit without rounding (out of range)",
        overrides: &[Decimal, Long, Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-7",
        names: &["bit"],
        lake: Lake::Bits,
        encoding: "`bit(1)`: `boolean`; `bit(n)`: `binary`, the highest bits first",
        beyond: "as `long`: `bit(64)` with the highest bit set (out of range)",
        overrides: &[Long],
        ..PLAIN
    },
    Mapping {
        ids: "M-8, M-9",
        names: &["date"],
        lake: is(LakeType::Date),
        beyond: "`0000-00-00`, days that no calendar has, the year 0 (zero or impossible date)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-8, M-9",
        names: &["datetime"],
        lake: is(LakeType::TimestampNtz),
        encoding: "the wall clock as written, to the microsecond",
        beyond: "as for `date` (zero or impossible date)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-9, M-10",
        names: &["timestamp"],
        lake: is(LakeType::Timestamp),
        encoding: "the instant in UTC, to the microsecond, whatever the server's or a session's time zone; as `string` in UTC",
        beyond: "`0000-00-00 00:00:00` (zero or impossible date)",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-11",
        names: &["time"],
        lake: is(LakeType::Long),
        encoding: "microseconds, signed: a duration of up to ±838:59:59",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-12",
        names: &["year"],
        lake: is(LakeType::Integer),
        encoding: "`0000` is 0",
        overrides: &[Text],
        ..PLAIN
    },
    Mapping {
        ids: "M-13, M-18, M-27",
        names: &["char", "varchar", "tinytext", "text", "mediumtext", "longtext"],
        encoding: "from the column's own character set, by the server's own conversion tables. `nchar` and MariaDB's `json` are these",
        beyond: "bytes that are no character there: U+FFFD stands for each (broken text)",
        ..PLAIN
    },
    Mapping {
        ids: "M-14",
        names: &["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"],
        lake: is(LakeType::Binary),
        encoding: "`binary(n)` always has n bytes",
        ..PLAIN
    },
    Mapping {
        ids: "M-15",
        names: &["enum"],
        encoding: "the label; the empty string for the error value (index 0)",
        beyond: "as for text",
        ..PLAIN
    },
    Mapping {
        ids: "M-16",
        names: &["set"],
        encoding: "the labels in the declaration's order, with commas between",
        beyond: "as for text",
        ..PLAIN
    },
    Mapping { ids: "M-17", names: &["json"], encoding: "MySQL's: the text the server prints", ..PLAIN },
    Mapping {
        ids: "M-19",
        names: &[
            "geometry",
            "point",
            "linestring",
            "polygon",
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geomcollection",
            "geometrycollection",
        ],
        lake: is(LakeType::Geometry),
        encoding: "the SRID, and the shape as OGC well-known binary in the server's axis order",
        beyond: "an SRID above 2147483647 (out of range)",
        ..PLAIN
    },
    Mapping { ids: "M-20", names: &["vector"], lake: VECTOR, encoding: "every element, bit by bit", ..PLAIN },
    Mapping { ids: "M-21", names: &["uuid", "inet4", "inet6"], encoding: "MariaDB's canonical text", ..PLAIN },
];
