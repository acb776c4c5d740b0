#!/usr/bin/env python3
"""Records the seed corpus of the fuzz targets: what real servers write for tables of all types.

Runs beside the servers of scripts/with-servers.sh (`make fuzz-seeds`). Binlog events come from the binlog files, which hold
what a replica is sent; pgoutput messages from pg_logical_slot_get_binary_changes(). Each seed is one statement or one
transaction, small, and named after what it holds. The formats of the inputs are told at the entry points
(src/source/mysql/fuzz.rs, src/source/postgres/fuzz.rs).
"""

import os
import pathlib
import struct

import psycopg
import pymysql

CORPUS = pathlib.Path(__file__).parent / "corpus"
SERVERS = pathlib.Path(os.environ["LAKEWARD_TEST_SERVERS"])
SEED_MAX = 4096

TABLE_MAP = 19
ROWS = {23: 0, 24: 1, 25: 2, 30: 0, 31: 1, 32: 2}


def save(target, name, data):
    if len(data) > SEED_MAX:
        return
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------

# (name, declaration, values as SQL); one table each.
BOTH = [
    ("tinyint", "tinyint", "-128, 0, 127"),
    ("tinyint_unsigned", "tinyint unsigned", "0, 255"),
    ("smallint", "smallint", "-32768, 32767"),
    ("mediumint", "mediumint", "-8000000, 8388607"),
    ("mediumint_unsigned", "mediumint unsigned", "16777215"),
    ("int", "int", "-2147483648, 2147483647"),
    ("bigint_unsigned", "bigint unsigned", "18446744073709551615"),
    ("float", "float", "-1.5, 3.4e38"),
    ("double", "double", "-1.5e-300, 1.7e308"),
    ("decimal_12_2", "decimal(12,2)", "-1234567890.12, 0, 99999999.99"),
    ("decimal_38_20", "decimal(38,20)", "-1.00000000000000000001"),
    ("decimal_65_30", "decimal(65,30)", "99999999999999999999999999999999999.999999999999999999999999999999"),
    ("bit1", "bit(1)", "b'0', b'1'"),
    ("bit17", "bit(17)", "b'10000000000000001'"),
    ("date", "date", "'2024-02-29', '1000-01-01', '9999-12-31', '0000-00-00', '2024-00-15'"),
    ("datetime", "datetime", "'2024-02-29 13:05:06', '0000-00-00 00:00:00'"),
    ("datetime6", "datetime(6)", "'2024-02-29 13:05:06.123456'"),
    ("timestamp", "timestamp null", "'2024-02-29 13:05:06', '0000-00-00 00:00:00'"),
    ("timestamp3", "timestamp(3) null", "'2024-02-29 13:05:06.123'"),
    ("time", "time", "'-838:59:59', '838:59:59'"),
    ("time2", "time(2)", "'-00:00:01.50', '12:00:00.25'"),
    ("time6", "time(6)", "'-00:00:00.000001'"),
    ("year", "year", "0, 1901, 2155"),
    ("char", "char(5) character set latin1", "'é', ''"),
    ("char_wide", "char(200) character set utf8mb4", "'예약 🍣'"),
    ("varchar", "varchar(20) character set utf8mb4", "'예약', ''"),
    ("varchar_long", "varchar(300) character set utf8mb4", "repeat('é', 300)"),
    ("varchar_euckr", "varchar(20) character set euckr", "'예약'"),
    ("varchar_sjis", "varchar(20) character set sjis", "'予約'"),
    ("varchar_utf16", "varchar(20) character set utf16", "'🍣'"),
    ("varchar_utf32", "varchar(20) character set utf32", "'🍣'"),
    ("text", "text character set cp1250", "'žluťoučký'"),
    ("longtext", "longtext character set utf8mb4", "repeat('a', 300)"),
    ("binary", "binary(4)", "x'01000000', x''"),
    ("varbinary", "varbinary(300)", "x'0100', x''"),
    ("tinyblob", "tinyblob", "x'00ff'"),
    ("longblob", "longblob", "x'00ff'"),
    ("enum", "enum('a','b,c','é') character set latin1", "'a', 'é'"),
    ("set", "set('x','y','z')", "'', 'x,z'"),
    ("geometry", "geometry", "ST_GeomFromText('POINT(1 2)'), ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"),
]
MARIADB = [
    ("uuid", "uuid", "'12345678-2e1b-11eb-9a9d-0242ac130002', '00000000-0000-0000-0000-000000000000'"),
    ("inet4", "inet4", "'192.0.2.0'"),
    ("inet6", "inet6", "'1::', '::ffff:192.0.2.1'"),
    ("text_compressed", "text compressed", "repeat('a', 300)"),
    ("varchar_compressed", "varchar(500) compressed", "repeat('b', 400), 'short'"),
    ("versioned", "int, period for system_time(s, e), s timestamp(6) generated always as row start, "
                  "e timestamp(6) generated always as row end", None),
]
MYSQL = [
    ("vector", "vector(3)", "string_to_vector('[1,2,3]')"),
]
JSON = [
    "null", "true", "false", "0", "-1", "32767", "32768", "-32769", "2147483648", "4294967296",
    "18446744073709551615", "1.5", "1e100", "-0.0", '""', '"예약 \\u0001\\n\\""', "[]", "{}", "[1, 2, 3]",
    '{"a": 1, "b": [true, null, {"c": "d"}], "예": 2.5}', "[[[[[[[[]]]]]]]]", '{"": ""}',
    '{"id": 1, "tags": ["x", "y"], "price": 12.50, "nested": {"deep": {"deeper": [1, 2, [3]]}}}',
]
JSON_SQL = [
    "cast(cast(12.50 as decimal(10,2)) as json)", "cast(cast('2024-02-29' as date) as json)",
    "cast(cast('2024-02-29 13:05:06.5' as datetime(6)) as json)", "cast(cast('-12:00:00' as time) as json)",
    "cast(x'00ff10' as json)", "json_array(cast(x'00ff' as json), cast(1.5 as decimal(5,3)))",
    "json_object('d', cast('2024-01-01' as date), 'n', null)", "json_array(repeat('a', 200))",
]


class MySql:
    def __init__(self, kind, port):
        self.kind, self.flag = kind, int(kind == "mariadb")
        self.session = pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True, charset="utf8mb4")
        self.run("set global binlog_checksum = NONE")
        self.run("set sql_mode = ''")
        self.run("drop database if exists seed")
        self.run("create database seed character set utf8mb4")
        self.run("use seed")
        if kind == "mysql":
            self.run("set session sql_generate_invisible_primary_key = off")

    def run(self, sql):
        with self.session.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def rotate(self):
        self.run("flush binary logs")

    def events(self, wanted=None):
        """(type, whole event) of everything in the newest binlog file."""
        files = self.run("show binary logs")
        data = (SERVERS / self.kind / "data" / files[-1][0]).read_bytes()[4:]
        found = []
        while len(data) >= 19:
            size = struct.unpack_from("<I", data, 9)[0]
            found.append((data[4], data[:size]))
            data = data[size:]
        return found

    def record(self, name, statements):
        """The events of the statements as a log, and each row event with its table map."""
        self.rotate()
        for statement in statements:
            self.run(statement)
        events = [(kind, event) for kind, event in self.events() if kind not in (15, 35, 163, 161)]
        label = f"{self.kind}-{name}"
        for by_offset in (0, 2) if name in ("plain", "ddl", "tinyint") else (0,):
            log = bytes([self.flag | by_offset]) + b"".join(event for _, event in events)
            save("binlog_events", f"{label}-{'offset' if by_offset else 'gtid'}", log)
        # With the table's layout known.
        if name in ("plain", "ddl_plain", "metadata_minimal", "metadata_no_log", "minimal_image"):
            save("binlog_events", f"{label}-layout", bytes([self.flag | 4]) + log[1:])
        table_map = None
        for index, (kind, event) in enumerate(events):
            if kind == TABLE_MAP:
                table_map = event[19:]
            elif kind in ROWS and table_map:
                flags = self.flag | (2 if kind >= 30 else 0)
                head = struct.pack("<BBH", flags, ROWS[kind], len(table_map))
                save("row_images", f"{label}-{index}", head + table_map + event[19:])
        return events

    def all_types(self):
        types = BOTH + (MARIADB if self.kind == "mariadb" else MYSQL)
        for name, declaration, values in types:
            create = f"create table t_{name} (id int auto_increment primary key, c {declaration})"
            if name == "versioned":
                create += " with system versioning"
                values = "1"
            self.run(create)
            rows = ", ".join(f"({value})" for value in split(values))
            statements = [f"insert into t_{name} (c) values {rows}, (null)"]
            if name in ("tinyint", "varchar", "decimal_12_2", "datetime6", "enum", "versioned"):
                statements += [f"update t_{name} set id = id + 100 where id = 1", f"delete from t_{name} where id = 2"]
            self.record(name, statements)

    def plain(self):
        self.run("create table plain (id int primary key, name varchar(20), price decimal(10,2), at datetime(3))")
        self.record("plain", [
            "insert into plain values (1, '예약', 12.50, '2024-02-29 13:05:06.123'), (2, null, null, null)",
            "update plain set price = price + 1, id = 3 where id = 1",
            "delete from plain where id = 2",
            "truncate table plain",
        ])
        self.record("many_rows", ["insert into plain values " + ", ".join(f"({n}, 'n{n}', {n}, null)" for n in range(40))])
        self.record("savepoint", [
            "begin", "insert into plain values (100, 'a', 1, null)", "savepoint s",
            "insert into plain values (101, 'b', 1, null)", "rollback to s", "commit",
        ])
        self.record("xa", [
            "xa start 'g','b',1", "insert into plain values (102, 'xa', 1, null)", "xa end 'g','b',1",
            "xa prepare 'g','b',1", "xa commit 'g','b',1",
        ])
        self.record("xa_rollback", [
            "xa start 'h'", "insert into plain values (103, 'xa', 1, null)", "xa end 'h'", "xa prepare 'h'", "xa rollback 'h'",
        ])
        self.record("xa_one_phase", [
            "xa start 'i'", "insert into plain values (104, 'xa', 1, null)", "xa end 'i'", "xa commit 'i' one phase",
        ])
        self.run("set session binlog_format = STATEMENT")
        self.record("statement", ["insert into plain values (105, 'statement', rand(), now())"])
        self.run("set session binlog_format = ROW")
        self.run("set session binlog_row_image = MINIMAL")
        self.record("minimal_image", ["update plain set name = 'm' where id = 105"])
        self.run("set session binlog_row_image = FULL")
        for level in ("MINIMAL", "NO_LOG") if self.kind == "mariadb" else ("MINIMAL",):
            self.run(f"set global binlog_row_metadata = {level}")
            self.run("flush tables")
            self.record(f"metadata_{level.lower()}", [f"insert into plain values ({106 + len(level)}, 'x', 1, null)"])
        self.run("set global binlog_row_metadata = FULL")
        self.run("flush tables")
        if self.kind == "mariadb":
            self.run("set global log_bin_compress = ON")
            self.run("set global log_bin_compress_min_len = 10")
            self.record("compressed", ["insert into plain values (120, repeat('c', 20), 1, null)",
                                       "update plain set name = repeat('d', 20) where id = 120",
                                       "create table compressed_ddl (id int comment 'long enough to be compressed')"])
            self.run("set global log_bin_compress = OFF")
        else:
            self.run("set session binlog_transaction_compression = ON")
            self.record("payload", ["insert into plain values (121, repeat('c', 20), 1, null)",
                                    "insert into plain values (122, repeat('c', 20), 1, null)"])
            self.run("set session binlog_transaction_compression = OFF")
            self.run("create table documents (id int primary key, j json)")
            self.run("insert into documents values (1, '{\"a\": 1, \"b\": \"long enough to be worth a partial update\"}')")
            self.run("set session binlog_row_value_options = PARTIAL_JSON")
            self.record("partial_json", ["update documents set j = json_set(j, '$.a', 2)"])
            self.run("set session binlog_row_value_options = ''")
            self.run("set session gtid_next = 'AUTOMATIC:nightly'")
            self.record("tagged", ["insert into plain values (123, 'tagged', 1, null)"])
            self.run("set session gtid_next = 'AUTOMATIC'")

    def ddl(self):
        self.record("ddl", [
            "create table d (id int primary key) /* 예약 */",
            "alter table d add column c varchar(20) character set latin1 default 'é', add key (c)",
            "rename table d to `d``2`", "drop table `d``2`",
            "create table p (id int) partition by hash (id) partitions 2", "alter table p truncate partition p0",
            "create view v as select 1", "drop view v", "drop table p",
        ])
        self.record("ddl_plain", ["alter table plain rename column name to label", "alter table plain rename to plainer",
                                  "drop table plainer"])
        if self.kind == "mysql":
            self.record("create_select", ["create table copied as select 1 as a, 'x' as b"])
        else:
            self.record("create_select", ["create or replace table copied as select 1 as a, 'x' as b"])
            self.run("set session binlog_alter_two_phase = 1")
            self.record("two_phase_alter", ["alter table copied add column c int"])

    def json(self):
        if self.kind != "mysql":
            return
        self.run("create table j (j json)")
        documents = [f"'{document.replace(chr(92), chr(92) * 2)}'" for document in JSON] + JSON_SQL
        for number, document in enumerate(documents):
            self.run("truncate table j")
            events = self.record(f"json-{number}", [f"insert into j values ({document})"])
            rows = [event for kind, event in events if kind == 30]
            # Header, table id and flags, extra data, width, present columns, NULLs; then the length in four bytes.
            save("jsonb", f"document-{number}", rows[0][19 + 8 + 2 + 1 + 1 + 1 + 4:])
        for keys in (3, 40):
            self.run("truncate table j")
            pairs = ", ".join(f"'key{n}', json_array({n}, repeat('v', 20), {n}.5)" for n in range(keys))
            events = self.record(f"json-object{keys}", [f"insert into j values (json_object({pairs}))"])
            save("jsonb", f"object-{keys}", [event for kind, event in events if kind == 30][0][36:])
        # Offsets of four bytes begin above 64 KiB. Such a document is too long for a seed; its head is not, and shows
        # the layout.
        self.rotate()
        self.run("insert into j values (json_object('a', 1, 'b', json_array(2, 'x'), 'long', repeat('z', 70000)))")
        large = [event for kind, event in self.events() if kind == 30][0][36:]
        save("jsonb", "large-head", large[:200])


def split(values):
    """At commas outside of quotes and parentheses."""
    out, depth, quote, start = [], 0, None, 0
    for at, character in enumerate(values):
        if quote:
            quote = None if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            out.append(values[start:at])
            start = at + 1
    return [value.strip() for value in out + [values[start:]]]


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

# (name, declaration, values as SQL). `Decode` of src/source/postgres/fuzz.rs by its number, for text_values;
# 15 more for a list.
POSTGRES = [
    ("boolean", "boolean", "true, false", [0]),
    ("smallint", "smallint", "-32768, 32767", [1, 2, 3]),
    ("integer", "integer", "-2147483648, 2147483647", [2, 3]),
    ("bigint", "bigint", "-9223372036854775808, 9223372036854775807", [3]),
    ("real", "real", "'NaN', '-Infinity', 1.5e-40, 3.4e38", [4]),
    ("double", "double precision", "'NaN', 'Infinity', 1e308, 0.1", [5]),
    ("numeric_38_4", "numeric(38,4)", "-1234.5, 'NaN', 0, 9999999999999999999999999999999999.9999", [6]),
    ("numeric_5", "numeric(5,-2)", "-12345, 9999949", [7]),
    ("numeric", "numeric", "1e-30, 'Infinity', 12345678901234567890123456789012345678901234567890", [6, 9]),
    ("money", "money", "'-$92,233,720,368,547,758.08', 0.01", [8]),
    ("text", "text", "'예약', '', E'tab\\tline\\nback\\\\slash'", [9]),
    ("char", "char(5)", "'a', '예'", [9]),
    ("uuid", "uuid", "'12345678-2e1b-11eb-9a9d-0242ac130002'", [9]),
    ("json", "json", "'{\"a\": [1, null]}'", [9]),
    ("jsonb", "jsonb", "'{\"a\": [1, null]}'", [9]),
    ("bytea", "bytea", "'\\x00ff', ''", [10]),
    ("date", "date", "'2024-02-29', 'infinity', '0044-03-15 BC', '12345-01-01'", [11]),
    ("timestamp", "timestamp", "'2024-02-29 13:05:06.123456', '-infinity', '0001-01-01 00:00:00'", [12, 13]),
    ("timestamptz", "timestamptz", "'2024-02-29 13:05:06.5+09', '1900-01-01 00:00:00+08:27:52'", [12]),
    ("time", "time", "'24:00:00', '13:05:06.5'", [14]),
    ("timetz", "timetz", "'13:05:06+09'", [9]),
    ("interval", "interval", "'1 year 2 days 03:04:05.6', '-1 mon'", [9]),
    ("int_array", "integer[]", "'{1,NULL,3}', '{}', '[2:3]={1,2}', '{{1,2},{3,4}}'", [9, 17, 18]),
    ("text_array", "text[]", "'{\"a,b\",\"c\\\"d\",NULL,\"NULL\",\"\"}'", [9, 24]),
    ("numeric_array", "numeric(10,2)[]", "'{1.50,NaN}'", [9, 21]),
    ("timestamptz_array", "timestamptz[]", "'{\"2024-02-29 13:05:06+09\",infinity}'", [9, 27]),
    ("inet", "inet", "'192.0.2.0/24', '::1'", [9]),
    ("macaddr", "macaddr", "'08:00:2b:01:02:03'", [9]),
    ("bit", "bit varying(20)", "B'1011'", [9]),
    ("int4range", "int4range", "'[1,5)', 'empty'", [9]),
    ("int4multirange", "int4multirange", "'{[1,2),[5,9)}'", [9]),
    ("point", "point", "'(1,2)'", [9]),
    ("tsvector", "tsvector", "'a:1 b:2'", [9]),
    ("xml", "xml", "'<a>b</a>'", [9]),
    ("oid", "oid", "4294967295", [3]),
]


def postgres(port):
    session = psycopg.connect(f"host=127.0.0.1 port={port} user=postgres password=postgres dbname=postgres", autocommit=True)
    run = session.execute
    run("drop database if exists seed")
    run("create database seed")
    session.close()
    session = psycopg.connect(f"host=127.0.0.1 port={port} user=postgres password=postgres dbname=seed", autocommit=True)
    run = session.execute
    run("set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres'; set lc_monetary = 'C'")
    run("create publication p for all tables")
    run("select pg_create_logical_replication_slot('seed', 'pgoutput')")

    def record(name, statements):
        for statement in statements:
            run(statement)
        options = "'proto_version', '1', 'publication_names', 'p', 'messages', 'true'"
        changes = run(f"select data from pg_logical_slot_get_binary_changes('seed', null, null, {options})").fetchall()
        save("pgoutput", name, b"".join(struct.pack(">H", len(data)) + data for (data,) in changes if len(data) < 60000))

    for name, declaration, values, decodes in POSTGRES:
        run(f"create table t_{name} (id serial primary key, c {declaration})")
        rows = ", ".join(f"(({value})::{declaration})" for value in split(values))
        record(name, [f"insert into t_{name} (c) values {rows}, (null)"])
        texts = run(f"select c::text from t_{name} where c is not null").fetchall()
        for number, (text,) in enumerate(texts):
            for decode in decodes:
                save("text_values", f"{name}-{number}-{decode}", bytes([decode]) + text.encode())

    run("create table plain (id int primary key, name text, doc text)")
    run("alter table plain alter column doc set storage external")
    record("plain", [
        "insert into plain values (1, 'a', repeat('x', 3000)), (2, null, null)",
        "update plain set name = 'b' where id = 1", "update plain set id = 3 where id = 2",
        "delete from plain where id = 3", "truncate plain",
    ])
    run("alter table plain replica identity full")
    record("full", ["insert into plain values (4, 'a', 'short')", "update plain set name = 'b'", "delete from plain"])
    run("create type mood as enum ('sad', 'happy'); create domain posint as int check (value > 0)")
    run("create table custom (id posint primary key, m mood, a mood[])")
    record("custom", ["insert into custom values (1, 'sad', '{sad,happy}')"])
    record("message", ["select pg_logical_emit_message(true, 'prefix', 'content')"])
    record("savepoint", ["begin; insert into plain values (5); savepoint s; insert into plain values (6); "
                         "rollback to s; commit"])
    record("multi", ["begin; insert into plain values (7, 'x', 'y'); insert into custom values (2, 'happy', null); "
                     "truncate plain, custom; commit"])
    run("select pg_drop_replication_slot('seed')")


def mysql_values():
    """Values of dates, times and decimals: the selector's highest bit says MySQL, the next byte is the precision."""
    seeds = {
        "date": (0, b"\x00" + bytes([0x5D, 0xD0, 0x0F])),
        "datetime": (1, b"\x00" + bytes([0x99, 0xB2, 0xC4, 0xD1, 0x46])),
        "datetime6": (1, b"\x06" + bytes([0x99, 0xB2, 0xC4, 0xD1, 0x46, 0x01, 0xE2, 0x40])),
        "timestamp": (2, b"\x00\x7f\xff\xff\xff"),
        "timestamp6": (2, b"\x06\x7f\xff\xff\xff\x0f\x42\x3f"),
        "time": (3, b"\x00\x80\x00\x01"),
        "time2": (3, b"\x02\x7f\xff\xfe\xce"),
        "time6": (3, b"\x06\x7f\xff\xff\xff\xff\xff"),
        "time_old": (4, b"\x00\x19\x0a\x80"),
        "datetime_old": (5, b"\x00" + struct.pack("<Q", 20240302130506)),
        "timestamp_old": (6, b"\x00\x01\x00\x00\x00"),
        "decimal": (7, b"\x0e\x04" + bytes([0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2])),
        "decimal_negative": (7, b"\x0e\x04" + bytes([0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D])),
        "decimal_38": (7, b"\x26\x14" + bytes([0x80] + [0] * 16)),
        "decimal_text": (8, b"\x0a-00123.4500"),
        "declaration": (8, b"\x0adecimal(12,2) unsigned"),
        "declaration_enum": (8, b"\x0aenum('a','b)')"),
    }
    for name, (selector, value) in seeds.items():
        save("text_values", f"mysql-{name}", bytes([0x80 | selector]) + value)


for kind, variable in (("mariadb", "LAKEWARD_TEST_MARIADB_PORT"), ("mysql", "LAKEWARD_TEST_MYSQL_PORT")):
    if os.environ.get(variable):
        server = MySql(kind, int(os.environ[variable]))
        server.all_types()
        server.plain()
        server.json()
        server.ddl()
postgres(int(os.environ["LAKEWARD_TEST_POSTGRES_PORT"]))
mysql_values()
total = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
print(f"{sum(1 for path in CORPUS.rglob('*') if path.is_file())} seeds, {total} bytes")
