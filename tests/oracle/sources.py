"""MySQL, MariaDB and PostgreSQL tables as canonical Python values, and what each column must look like in the lake.

A *kind* is the contract for one column: the DuckDB type it must have, how DuckDB selects it, and how the values of both
sides become one canonical form. Canonical: int (numbers, days since 1970, microseconds), decimals and floats as text,
str, bytes, bool, or None.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlparse

import psycopg
import pymysql
import pymysql.converters
import pymysql.cursors

DECIMAL_PRECISION_MAX = 38  # Delta's; wider decimals are strings


def double_quoted(name):
    return '"' + name.replace('"', '""') + '"'


def double(value):
    # As text: NaN must be equal to itself, and -0.0 not to 0.0. Python prints the shortest text that is exact.
    return repr(float(value))


@dataclass(frozen=True)
class Kind:
    lake_type: str
    lake_template: str = "{}"
    lake_canon: Callable | None = None
    is_json: bool = False

    def lake_sql(self, column):
        return self.lake_template.format(column)


def integer(lake_type):
    return Kind(lake_type, lake_canon=int if lake_type.startswith("DECIMAL") else None)


def decimal(precision, scale):
    if precision > DECIMAL_PRECISION_MAX:
        return TEXT
    return Kind(f"DECIMAL({precision},{scale})", lake_canon=lambda value: format(value, "f"))


BOOLEAN = Kind("BOOLEAN")
TEXT = Kind("VARCHAR")
JSON = Kind("VARCHAR", is_json=True)
BINARY = Kind("BLOB", lake_canon=bytes)
FLOAT = Kind("FLOAT", "{}::DOUBLE", double)
DOUBLE = Kind("DOUBLE", lake_canon=double)
DATE = Kind("DATE", "({} - DATE '1970-01-01')")
TIMESTAMP = Kind("TIMESTAMP", "epoch_us({})")
INSTANT = Kind("TIMESTAMP WITH TIME ZONE", "epoch_us({})")
TIME_US = Kind("BIGINT")
GEOMETRY = Kind(
    "STRUCT(srid INTEGER, wkb BLOB)",
    lake_canon=lambda shape: f"{shape['srid']}:{bytes(shape['wkb']).hex().upper()}",
)
VECTOR = Kind("FLOAT[]", lake_canon=lambda numbers: struct.pack(f"<{len(numbers)}f", *numbers).hex().upper())


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    select: str  # the expression in the source's SQL
    canon: Callable | None  # of what the driver returns for it; never called with None


def connect(url):
    scheme = urlparse(url).scheme
    if scheme in ("mysql", "mariadb"):
        return MySql(url)
    if scheme in ("postgres", "postgresql"):
        return Postgres(url)
    raise ValueError(f"a source URL begins with mysql:// or postgres://, this one with {scheme}://")


# --- calendar --------------------------------------------------------------------------------------------------------


def days_from_civil(year, month, day):
    """Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's algorithm); None if no such day."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1]:
        return None
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


def microseconds(fraction):
    return int((fraction or "").ljust(6, "0")[:6])


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------


def mysql_date(text):
    # '0000-00-00', '2024-00-15' and '2024-02-31' are days MySQL can store and the lake cannot: NULL.
    return days_from_civil(*map(int, text.decode().split("-")))


def mysql_datetime(text):
    date, clock = text.decode().split(" ")
    days = mysql_date(date.encode())
    return None if days is None else days * 86_400_000_000 + mysql_time(clock.encode())


def mysql_time(text):
    sign, hours, minutes, seconds, fraction = re.fullmatch(r"(-?)(\d+):(\d+):(\d+)(?:\.(\d+))?", text.decode()).groups()
    total = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1_000_000 + microseconds(fraction)
    return -total if sign else total


def mysql_decimal(text):
    # A ZEROFILL column prints leading zeros.
    sign, digits = ("-", text[1:]) if text.startswith(b"-") else ("", text)
    whole, point, fraction = digits.decode().partition(".")
    return sign + (whole.lstrip("0") or "0") + point + fraction


MYSQL_INTEGERS = {  # signed, unsigned
    "tinyint": ("TINYINT", "SMALLINT"),
    "smallint": ("SMALLINT", "INTEGER"),
    "mediumint": ("INTEGER", "INTEGER"),
    "int": ("INTEGER", "BIGINT"),
    "bigint": ("BIGINT", "DECIMAL(20,0)"),
}
MYSQL_GEOMETRIES = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
    "geometrycollection",
}  # fmt: skip


def mysql_column(name, data_type, column_type, precision, scale, is_mariadb):
    quoted = "`" + name.replace("`", "``") + "`"
    unsigned = "unsigned" in column_type

    def column(kind, canon, select=quoted):
        return Column(name, kind, select, canon)

    if data_type in MYSQL_INTEGERS:
        return column(integer(MYSQL_INTEGERS[data_type][unsigned]), int)
    if data_type == "year":
        return column(integer("INTEGER"), int)
    # The text form of FLOAT has six digits; as a double it is exact. (Times one, not plus zero, which would lose -0.)
    if data_type == "float":
        return column(FLOAT, double, f"{quoted} * 1E0")
    if data_type == "double":
        return column(DOUBLE, double, f"{quoted} * 1E0")
    if data_type == "decimal":
        return column(decimal(precision, scale), mysql_decimal)
    if data_type == "bit":
        return column(BOOLEAN, lambda raw: raw != b"\0") if precision == 1 else column(BINARY, bytes)
    if data_type == "date":
        return column(DATE, mysql_date)
    if data_type == "datetime":
        return column(TIMESTAMP, mysql_datetime)
    if data_type == "timestamp":
        return column(INSTANT, mysql_datetime)
    if data_type == "time":
        return column(TIME_US, mysql_time)
    if data_type in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"):
        return column(BINARY, bytes)
    if data_type == "json":
        return column(JSON, bytes.decode)
    if data_type in MYSQL_GEOMETRIES:
        order = "" if is_mariadb else ", 'axis-order=long-lat'"
        return column(GEOMETRY, bytes.decode, f"CONCAT(ST_SRID({quoted}), ':', HEX(ST_AsWKB({quoted}{order})))")
    if data_type == "vector":
        return column(VECTOR, bytes.decode, f"HEX({quoted})")
    # char, varchar, text, enum, set, MariaDB's uuid and inet: what the server prints, in UTF-8.
    return column(TEXT, bytes.decode)


class MySql:
    def __init__(self, url):
        parts = urlparse(url)
        # No conversions by the driver: it would lose zero dates, and its dates end at year 9999 and begin at 1.
        self.connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            charset="utf8mb4",
            use_unicode=False,
            conv={},
            autocommit=True,
            init_command="SET SESSION time_zone = '+00:00', sql_mode = ''",
        )
        self.is_mariadb = "MariaDB" in self.connection.get_server_info()

    def alive(self):
        try:
            self.connection.ping(reconnect=False)
            return True
        except Exception:
            return False

    def query(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def in_catalog(self, table):
        database, name = (pymysql.converters.escape_string(part) for part in table.split(".", 1))
        return f"table_schema = '{database}' AND table_name = '{name}'"

    def columns(self, table):
        """All of them: invisible and generated ones are in the binlog like others."""
        rows = self.query(
            "SELECT column_name, data_type, column_type, numeric_precision, numeric_scale "
            f"FROM information_schema.columns WHERE {self.in_catalog(table)} ORDER BY ordinal_position"
        )
        return [
            mysql_column(
                name.decode(), kind.decode(), full.decode(), int(precision or 0), int(scale or 0), self.is_mariadb
            )
            for name, kind, full, precision, scale in rows
        ]

    def key(self, table):
        rows = self.query(
            "SELECT column_name FROM information_schema.key_column_usage "
            f"WHERE {self.in_catalog(table)} AND constraint_name = 'PRIMARY' ORDER BY ordinal_position"
        )
        return [row[0].decode() for row in rows]

    def rows(self, table, columns):
        canons = [column.canon for column in columns]
        fields = ", ".join(column.select for column in columns)
        quoted = ".".join("`" + part.replace("`", "``") + "`" for part in table.split(".", 1))
        with self.connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(f"SELECT {fields} FROM {quoted}")
            while batch := cursor.fetchmany(10_000):
                for row in batch:
                    yield tuple(None if value is None else canon(value) for canon, value in zip(canons, row))


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

# What the text of a value depends on.
POSTGRES_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
}
POSTGRES_INTEGERS = {"int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "oid": "BIGINT"}


def postgres_numeric(typmod):
    """The lake's decimal for numeric(p,s), or None where it is a string: no precision given, or too large."""
    if typmod < 0:
        return None
    precision = ((typmod - 4) >> 16) & 0xFFFF
    scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024
    if scale < 0:  # numeric(5,-2) counts hundreds: up to seven digits
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return decimal(precision, scale) if precision <= DECIMAL_PRECISION_MAX else None


def postgres_list(type_name, typmod):
    """The kind, the array type to select and the canonical element of a list; None where elements have no form here."""
    if type_name in POSTGRES_INTEGERS:
        return POSTGRES_INTEGERS[type_name], "int8[]", int
    if type_name == "bool":
        return "BOOLEAN", "bool[]", bool
    if type_name in ("float4", "float8"):
        return "FLOAT" if type_name == "float4" else "DOUBLE", "float8[]", double
    if type_name == "numeric" and (kind := postgres_numeric(typmod)):
        return kind.lake_type, "numeric[]", lambda value: format(value, "f")
    if type_name in ("text", "varchar", "bpchar", "name"):
        return "VARCHAR", "text[]", str
    return None


def postgres_column(name, type_name, typmod):
    quoted = double_quoted(name)
    if type_name.startswith("_") and (found := postgres_list(type_name[1:], typmod)):
        lake_type, select, element = found

        def canon(values):
            return tuple(None if value is None else element(value) for value in values)

        return Column(name, Kind(f"{lake_type}[]", lake_canon=canon), f"{quoted}::{select}", canon)

    def column(kind, select=quoted, canon=None):
        return Column(name, kind, select, canon)

    def within(low, high, expression):
        # Infinite, and before year 1 or after 9999, is NULL in the lake.
        return f"CASE WHEN {quoted} >= '{low}' AND {quoted} < '{high}' THEN {expression} END"

    # What the type's output function prints, which the log has too; `::text` is another thing for char(n) and inet.
    text = f"CASE WHEN num_nulls({quoted}) = 0 THEN format('%s', {quoted}) END"

    if type_name in POSTGRES_INTEGERS:
        return column(integer(POSTGRES_INTEGERS[type_name]), f"{quoted}::int8")
    if type_name == "bool":
        return column(BOOLEAN)
    if type_name in ("float4", "float8"):
        return column(FLOAT if type_name == "float4" else DOUBLE, f"{quoted}::float8", double)
    if type_name == "numeric":
        kind = postgres_numeric(typmod)
        if kind is None:
            return column(TEXT, text)
        # NaN and the infinities are no decimals: NULL.
        return column(kind, f"CASE WHEN {quoted} NOT IN ('NaN', 'Infinity', '-Infinity') THEN {quoted}::text END")
    if type_name == "bytea":
        return column(BINARY, canon=bytes)
    if type_name == "date":
        return column(DATE, within("0001-01-01", "10000-01-01", f"{quoted} - DATE '1970-01-01'"))
    if type_name in ("timestamp", "timestamptz"):
        kind = TIMESTAMP if type_name == "timestamp" else INSTANT
        micros = f"(extract(epoch FROM {quoted}) * 1000000)::int8"
        return column(kind, within("0001-01-01", "10000-01-01", micros))
    if type_name == "time":
        return column(TIME_US, f"(extract(epoch FROM {quoted}) * 1000000)::int8")
    if type_name in ("json", "jsonb"):
        return column(JSON, text)
    return column(TEXT, text)


class Postgres:
    def __init__(self, url):
        options = " ".join(f"-c {name}={value}" for name, value in POSTGRES_SETTINGS.items())
        self.connection = psycopg.connect(url, options=options, autocommit=True)

    def alive(self):
        try:
            self.connection.execute("SELECT 1")
            return True
        except Exception:
            return False

    def query(self, sql, *parameters):
        return self.connection.execute(sql, parameters).fetchall()

    def columns(self, table):
        """Without generated columns: the log of PostgreSQL up to 17 does not have them."""
        # A domain arrives as its base type; its length or precision is the domain's.
        rows = self.query(
            """
            WITH RECURSIVE col AS (
                SELECT a.attnum, a.attname::text AS name, a.atttypid AS type, a.atttypmod AS typmod
                FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                UNION ALL
                SELECT col.attnum, col.name, t.typbasetype, CASE WHEN col.typmod < 0 THEN t.typtypmod ELSE col.typmod END
                FROM col JOIN pg_type t ON t.oid = col.type AND t.typtype = 'd'
            )
            SELECT col.name, t.typname::text, col.typmod FROM col JOIN pg_type t ON t.oid = col.type AND t.typtype <> 'd'
            ORDER BY col.attnum
            """,
            *table.split(".", 1),
        )
        return [postgres_column(*row) for row in rows]

    def key(self, table):
        rows = self.query(
            """
            SELECT a.attname::text FROM pg_index i
            JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
            WHERE n.nspname = %s AND c.relname = %s AND i.indisprimary
            ORDER BY a.attnum
            """,
            *table.split(".", 1),
        )
        return [row[0] for row in rows]

    def rows(self, table, columns):
        canons = [column.canon for column in columns]
        fields = ", ".join(column.select for column in columns)
        quoted = ".".join(map(double_quoted, table.split(".", 1)))
        # A server-side cursor: a client-side one would hold the whole table.
        with self.connection.transaction(), self.connection.cursor(name="oracle") as cursor:
            cursor.itersize = 10_000
            # '%' is psycopg's placeholder sign, in format('%s') too; without parameters it is not read.
            cursor.execute(f"SELECT {fields} FROM {quoted}")
            for row in cursor:
                yield tuple(
                    value if canon is None or value is None else canon(value) for canon, value in zip(canons, row)
                )
