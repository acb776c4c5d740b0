//! P-0 to P-18: PostgreSQL's types, in first load and log alike (T-0).
//!
//! A case is a declaration, an excerpt of a contract, the lake's type, and pairs of an SQL literal and what DuckDB reads in
//! the lake. Each case is a table of its own, under the role settings that would change every text (P-0). Its values go
//! four ways: loaded with the first load, inserted, set by an UPDATE, and taken away again by an UPDATE or DELETE.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Scratch;
use crate::support::daemon::{Daemon, Lakeward};
use crate::support::oracle::Reader;
use crate::support::source::{Database, Kind, Session};

struct Case {
    id: &'static str,
    declaration: &'static str,
    /// Lines of the table's contract about column `v`.
    contract: &'static str,
    lake: &'static str,
    values: Vec<(&'static str, Value)>,
}

fn case<const N: usize>(
    id: &'static str,
    declaration: &'static str,
    lake: &'static str,
    values: [(&'static str, Value); N],
) -> Case {
    by_contract(id, declaration, "", lake, values)
}

fn by_contract<const N: usize>(
    id: &'static str,
    declaration: &'static str,
    contract: &'static str,
    lake: &'static str,
    values: [(&'static str, Value); N],
) -> Case {
    Case { id, declaration, contract, lake, values: values.into() }
}

const TEXT_POLICY: &str = "value_policies.v = \"string\"";
const NULL: Value = Value::Null;

/// As the reader writes it: what JSON's numbers become here is not always the nearest.
fn number(text: &str) -> Value {
    serde_json::from_str(text).expect("a number")
}

/// Types that the cases declare.
const SETUP: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'ha"ppy, very');
    CREATE TYPE point3 AS (x int, y float8, label text);
    CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0);
    CREATE DOMAIN discounted AS price;
    CREATE DOMAIN code AS varchar(20);
    CREATE DOMAIN scores AS int[];
    CREATE DOMAIN matrix AS int[][];
"#;

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("P-1", "bool", "boolean", [("true", json!(true)), ("false", json!(false))]),
        case("P-1", "int2", "short", [("-32768", json!(-32768)), ("32767", json!(32767))]),
        case("P-1", "int4", "integer", [("-2147483648", json!(i32::MIN)), ("2147483647", json!(i32::MAX))]),
        case("P-1", "int8", "long", [("-9223372036854775808", json!(i64::MIN)), ("9223372036854775807", json!(i64::MAX))]),
        case("P-1", "serial", "integer", [("7", json!(7))]),
        case("P-1", "oid", "long", [("4294967295", json!(4_294_967_295_u32)), ("0", json!(0))]),
        case("P-1", "float4", "float", [
            ("0.1", number("0.10000000149011612")), ("3.4028235e38", number("3.4028234663852886e+38")), ("'NaN'", json!("nan")),
            ("'-Infinity'", json!("-inf")), ("'-0'", json!(-0.0)),
        ]),
        case("P-1", "float8", "double", [
            ("0.30000000000000004", number("0.30000000000000004")), ("1.7976931348623157e308", number("1.7976931348623157e+308")),
            ("5e-324", number("5e-324")), ("'NaN'", json!("nan")), ("'Infinity'", json!("inf")),
        ]),
        case("P-2", "numeric(12,4)", "decimal(12,4)", [
            ("12345678.1234", json!("12345678.1234")), ("-99999999.9999", json!("-99999999.9999")), ("0", json!("0.0000")),
        ]),
        case("P-2", "numeric(38,10)", "decimal(38,10)", [
            ("1234567890123456789012345678.0123456789", json!("1234567890123456789012345678.0123456789")),
        ]),
        case("P-2", "numeric(5,-2)", "decimal(7,0)", [("1234549", json!("1234500")), ("-9999900", json!("-9999900"))]),
        case("P-2", "numeric(2,5)", "decimal(5,5)", [("0.00012", json!("0.00012")), ("-0.00099", json!("-0.00099"))]),
        case("P-3", "numeric", "string", [
            ("123456789.000100", json!("123456789.000100")), ("'NaN'", json!("NaN")), ("'-Infinity'", json!("-Infinity")),
            ("1e40", json!("10000000000000000000000000000000000000000")),
        ]),
        case("P-3", "numeric(50,5)", "string", [
            ("123456789012345678901234567890.12345", json!("123456789012345678901234567890.12345")),
        ]),
        case("P-3 NaN has no decimal form", "numeric(10,2)", "decimal(10,2)", [("'NaN'", NULL), ("1.5", json!("1.50"))]),
        by_contract("P-3 as text", "numeric(10,2)", TEXT_POLICY, "string", [("'NaN'", json!("NaN")), ("1.5", json!("1.50"))]),
        case("P-4", "date", "date", [
            ("'2024-02-29'", json!("2024-02-29")), ("'0001-01-01'", json!("0001-01-01")),
            ("'9999-12-31'", json!("9999-12-31")), ("'infinity'", NULL), ("'-infinity'", NULL),
            ("'4713-01-01 BC'", NULL), ("'5874897-12-31'", NULL), ("'10000-01-01'", NULL),
        ]),
        by_contract("P-4 as text", "date", TEXT_POLICY, "string", [
            ("'2024-02-29'", json!("2024-02-29")), ("'infinity'", json!("infinity")),
            ("'0044-03-15 BC'", json!("0044-03-15 BC")), ("'5874897-12-31'", json!("5874897-12-31")),
        ]),
        case("P-4", "timestamp", "timestamp_ntz", [
            ("'2024-02-03 13:05:06.123456'", json!("2024-02-03 13:05:06.123456")),
            ("'0001-01-01 00:00:00'", json!("0001-01-01 00:00:00")), ("'infinity'", NULL),
            ("'0044-03-15 12:00:00 BC'", NULL), ("'294276-12-31 23:59:59.999999'", NULL),
        ]),
        case("P-4", "timestamp(3)", "timestamp_ntz", [("'2024-02-03 13:05:06.7894'", json!("2024-02-03 13:05:06.789000"))]),
        case("P-0 P-4", "timestamptz", "timestamp", [
            ("'2024-02-03 13:05:06.5+09'", json!("2024-02-03 04:05:06.500000+00:00")),
            ("'2024-10-27 02:30:00 Europe/Berlin'", json!("2024-10-27 01:30:00+00:00")), ("'-infinity'", NULL),
            ("'4713-01-01 00:00:00+00 BC'", NULL),
        ]),
        by_contract("P-0 P-4 as text", "timestamptz", TEXT_POLICY, "string", [
            ("'2024-02-03 13:05:06.5+09'", json!("2024-02-03 04:05:06.5+00")), ("'infinity'", json!("infinity")),
        ]),
        case("P-5 microseconds", "time", "long", [
            ("'00:00'", json!(0)), ("'12:00:00.5'", json!(43_200_500_000_i64)), ("'24:00:00'", json!(86_400_000_000_i64)),
        ]),
        case("P-5", "timetz", "string", [
            ("'12:00:00.5+05:30'", json!("12:00:00.5+05:30")), ("'24:00:00-15:59'", json!("24:00:00-15:59")),
        ]),
        case("P-0 P-6", "interval", "string", [
            ("'1 year 2 mons -3 days +04:05:06.789'", json!("P1Y2M-3DT4H5M6.789S")), ("'-1 sec'", json!("PT-1S")),
            ("'0'", json!("PT0S")),
        ]),
        case("P-0 P-7", "bytea", "binary", [("'\\x00ff10275c'", json!("\\x00ff10275c")), ("''", json!("\\x"))]),
        case("P-7", "uuid", "string", [
            ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ]),
        case("P-7", "text", "string", [
            ("E'tab\\t newline\\n return\\r backslash\\\\ quote\\' \\\\N é 日本 🏨'",
                json!("tab\t newline\n return\r backslash\\ quote' \\N é 日本 🏨")),
            ("''", json!("")), ("E'\\\\.'", json!("\\.")),
        ]),
        case("P-7", "varchar(40)", "string", [("' a '", json!(" a "))]),
        case("P-7", "char(5)", "string", [("'ab'", json!("ab   "))]),
        case("P-7", "\"char\"", "string", [("'x'", json!("x"))]),
        case("P-7", "name", "string", [("' s '", json!(" s "))]),
        case("P-7", "inet", "string", [
            ("'10.0.0.1/32'", json!("10.0.0.1")), ("'1.2.3.4/24'", json!("1.2.3.4/24")), ("'::1'", json!("::1")),
        ]),
        case("P-7", "cidr", "string", [("'10.0.0.0/8'", json!("10.0.0.0/8"))]),
        case("P-7", "macaddr", "string", [("'08:00:2B:01:02:03'", json!("08:00:2b:01:02:03"))]),
        case("P-7", "macaddr8", "string", [("'08002b0102030405'", json!("08:00:2b:01:02:03:04:05"))]),
        case("P-7", "xml", "string", [("'<a>é &amp;</a>'", json!("<a>é &amp;</a>"))]),
        case("P-7", "tsvector", "string", [("'a:1A b:2'", json!("'a':1A 'b':2"))]),
        case("P-7", "tsquery", "string", [("'fat & rat'", json!("'fat' & 'rat'"))]),
        case("P-7", "pg_lsn", "string", [("'16/B374D848'", json!("16/B374D848"))]),
        case("P-7", "xid8", "string", [("'18446744073709551615'", json!("18446744073709551615"))]),
        case("P-7", "regclass", "string", [("'pg_class'", json!("pg_class"))]),
        case("P-8", "bit(5)", "string", [("B'10101'", json!("10101")), ("B'00000'", json!("00000"))]),
        case("P-8", "varbit", "string", [("B'1'", json!("1")), ("B''", json!(""))]),
        case("P-0 P-9", "money", "decimal(19,2)", [
            ("'$1,234.56'", json!("1234.56")), ("'-92233720368547758.08'", json!("-92233720368547758.08")),
        ]),
        case("P-10 verbatim", "json", "string", [
            ("'{\"a\": 1, \"a\":  2, \"t\": \"x\\ny\"}'", json!("{\"a\": 1, \"a\":  2, \"t\": \"x\\ny\"}")),
        ]),
        case("P-10 normalised", "jsonb", "string", [
            ("'{\"b\": [1, null], \"a\": 1.50}'", json!("{\"a\": 1.50, \"b\": [1, null]}")), ("'null'", json!("null")),
        ]),
        case("P-11", "int[]", "array<integer>", [
            ("'{1,NULL,3}'", json!([1, null, 3])), ("'{}'", json!([])), ("'[0:1]={1,NULL}'", NULL),
            ("'{{1,2},{3,4}}'", NULL),
        ]),
        case("P-11", "text[]", "array<string>", [
            ("'{\"null\",NULL,\"a,b\",\"q\\\"uote\",\"back\\\\slash\",\"\",\"{}\"}'",
                json!(["null", null, "a,b", "q\"uote", "back\\slash", "", "{}"])),
            ("ARRAY[repeat('x', 9)]", json!(["xxxxxxxxx"])),
        ]),
        case("P-11", "numeric(7,3)[]", "array<decimal(7,3)>", [("'{1.5,NaN,-2}'", json!(["1.500", null, "-2.000"]))]),
        case("P-11", "float8[]", "array<double>", [("'{0.1,NaN}'", json!([0.1, "nan"]))]),
        case("P-0 P-11", "timestamptz[]", "array<timestamp>", [
            ("'{\"2024-02-03 13:05:06+09\",infinity}'", json!(["2024-02-03 04:05:06+00:00", null])),
        ]),
        case("P-11", "date[]", "array<date>", [("'{2024-02-29}'", json!(["2024-02-29"]))]),
        case("P-0 P-11", "bytea[]", "array<binary>", [("'{\"\\\\x00ff\",NULL}'", json!(["\\x00ff", null]))]),
        case("P-11", "bool[]", "array<boolean>", [("'{t,f,NULL}'", json!([true, false, null]))]),
        case("P-11", "uuid[]", "array<string>", [
            ("'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'", json!(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"])),
        ]),
        case("P-0 P-11", "interval[]", "array<string>", [("'{1 day}'", json!(["P1D"]))]),
        case("P-11", "box[]", "array<string>", [("'{(1,1),(0,0);(2,2),(1,1)}'", json!(["(1,1),(0,0)", "(2,2),(1,1)"]))]),
        case("P-11", "mood[]", "array<string>", [("'{ok,\"ha\\\"ppy, very\"}'", json!(["ok", "ha\"ppy, very"]))]),
        case("P-11 several dimensions", "int[][]", "string", [
            ("'{{1,2},{3,NULL}}'", json!("{{1,2},{3,NULL}}")), ("'{1}'", json!("{1}")),
        ]),
        by_contract("P-11 as text", "int[]", TEXT_POLICY, "string", [
            ("'[0:1]={1,NULL}'", json!("[0:1]={1,NULL}")), ("'{1}'", json!("{1}")),
        ]),
        case("P-12", "int4range", "string", [("'[1,5]'", json!("[1,6)")), ("'empty'", json!("empty")), ("'(,)'", json!("(,)"))]),
        case("P-0 P-12", "tstzmultirange", "string", [
            ("'{[\"2024-01-01 00:00+00\",\"2024-02-01 00:00+00\")}'",
                json!("{[\"2024-01-01 00:00:00+00\",\"2024-02-01 00:00:00+00\")}")),
        ]),
        case("P-13", "mood", "string", [("'ha\"ppy, very'", json!("ha\"ppy, very")), ("'sad'", json!("sad"))]),
        case("P-14", "discounted", "decimal(12,2)", [("9999999999.99", json!("9999999999.99"))]),
        case("P-14", "code", "string", [("'code 1'", json!("code 1"))]),
        case("P-11 P-14", "scores", "array<integer>", [("'{1,2}'", json!([1, 2]))]),
        case("P-11 P-14", "matrix", "string", [("'{{1,2}}'", json!("{{1,2}}"))]),
        case("P-11 P-14", "discounted[]", "array<decimal(12,2)>", [("'{1.5}'", json!(["1.50"]))]),
        case("P-15", "point3", "string", [("'(1,2.5,\"x, \"\"y\"\"\")'", json!("(1,2.5,\"x, \"\"y\"\"\")"))]),
        case("P-15", "point", "string", [("'(1.5,-2)'", json!("(1.5,-2)")), ("'(1e300,0)'", json!("(1e+300,0)"))]),
        case("P-15", "box", "string", [("'(0,0),(1,1)'", json!("(1,1),(0,0)"))]),
        case("P-15", "path", "string", [("'[(0,0),(1,1)]'", json!("[(0,0),(1,1)]"))]),
        case("P-15", "circle", "string", [("'<(1,2),3>'", json!("<(1,2),3>"))]),
        case("P-15", "int2vector", "string", [("'1 2 3'", json!("1 2 3"))]),
        case("P-15 extension", "citext", "string", [("'CiText'", json!("CiText"))]),
        case("P-15 extension", "ltree", "string", [("'a.b.c'", json!("a.b.c"))]),
        case("P-15 extension", "hstore", "string", [
            ("'\"a\"=>\"1\",\"b\"=>NULL'", json!("\"a\"=>\"1\", \"b\"=>NULL")), ("'k=>\"v\\\"v\"'", json!("\"k\"=>\"v\\\"v\"")),
        ]),
        by_contract("contract: wider", "numeric(12,2)", "types.v = \"decimal(20,4)\"", "decimal(20,4)", [
            ("1.5", json!("1.5000")), ("'NaN'", NULL),
        ]),
        by_contract("contract: smaller, what does not fit is told", "numeric(20,4)", "types.v = \"decimal(6,2)\"",
            "decimal(6,2)", [("1.25", json!("1.25")), ("1.255", NULL), ("10000", NULL)]),
        by_contract("contract: a number", "numeric", "types.v = \"bigint\"", "long", [
            ("42", json!(42)), ("42.5", NULL), ("9223372036854775808", NULL),
        ]),
        by_contract("contract: a wider integer", "int2", "types.v = \"long\"", "long", [("-32768", json!(-32768))]),
        by_contract("contract: text", "bool", "types.v = \"string\"", "string", [("true", json!("t"))]),
        by_contract("contract: a list", "int[]", "types.v = \"array<decimal(10,2)>\"", "array<decimal(10,2)>", [
            ("'{1,NULL}'", json!(["1.00", null])),
        ]),
    ]
}

fn table(index: usize) -> String {
    format!("t{index}")
}

/// A lake of one database whose role has hostile settings (P-0).
struct Bed {
    database: Database,
    session: Session,
    scratch: Scratch,
    lakeward: Lakeward,
    reader: Reader,
}

impl Bed {
    async fn new(test: &str) -> Option<Self> {
        let database = Database::create(Kind::Postgres, test).await?;
        let reader = Reader::start(None)?;
        let scratch = Scratch::new(test);
        fs::create_dir(scratch.path().join("schemas")).expect("writable");
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        let mut admin = database.admin().await;
        for setting in [
            "datestyle = 'SQL, DMY'",
            "timezone = 'Asia/Tokyo'",
            "intervalstyle = 'postgres_verbose'",
            "bytea_output = 'escape'",
            "extra_float_digits = -10",
            "xmloption = 'document'",
            "search_path = 'nowhere'",
        ] {
            admin.run(&format!("ALTER ROLE cdc IN DATABASE {} SET {setting}", database.name)).await;
        }
        // Not every machine has it.
        let money = format!("ALTER ROLE cdc IN DATABASE {} SET lc_monetary = 'de_DE.UTF-8'", database.name);
        if let Err(error) = admin.try_run(&money).await {
            eprintln!("SKIPPED: no hostile lc_monetary: {error}");
        }
        let session = database.session().await;
        Some(Self { database, session, scratch, lakeward, reader })
    }

    fn contract(&self, table: &str, text: &str) {
        let file = self.scratch.path().join(format!("schemas/{table}.toml"));
        fs::write(file, format!("table = \"public.{table}\"\n{text}\n")).expect("writable");
    }

    fn folder(&self, table: &str) -> String {
        self.scratch.path().join("lake/src/public").join(table).to_string_lossy().into_owned()
    }

    /// The rows of a table, `id` and `v`.
    fn rows(&mut self, table: &str) -> Vec<Vec<Value>> {
        let folder = self.folder(table);
        self.reader.rows(&folder, None, "SELECT id, v FROM t ORDER BY id")
    }

    /// Waits until the lake's table holds these rows.
    fn becomes(&mut self, daemon: &mut Daemon, table: &str, case: &str, expected: &[Vec<Value>]) {
        let started = Instant::now();
        loop {
            let found = self.rows(table);
            if found == expected {
                return;
            }
            if started.elapsed() > Duration::from_secs(180) || !daemon.is_running() {
                panic!("{case}: the lake holds {found:#?}, expected is {expected:#?}\n{}", daemon.log());
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

/// The lake's type of column `v`, from the Delta log.
fn lake_type(folder: &str, column: &str) -> Option<String> {
    let log = fs::read_to_string(Path::new(folder).join("_delta_log/00000000000000000000.json")).expect("version 0");
    let metadata = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .find(|action| action.get("metaData").is_some());
    let schema = metadata.expect("metadata")["metaData"]["schemaString"].as_str().expect("text").to_owned();
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let field = schema["fields"].as_array().expect("fields").iter().find(|field| field["name"] == column)?.clone();
    Some(match &field["type"] {
        Value::String(text) => text.clone(),
        list => format!("array<{}>", list["elementType"].as_str().expect("a plain element")),
    })
}

/// T-0, P-0 to P-15.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_is_by_load_insert_update_and_delete() {
    let Some(mut bed) = Bed::new("pgtypes").await else { return };
    let mut admin = bed.database.admin().await;
    bed.session.run(SETUP).await;
    let mut cases = cases();
    for extension in ["citext", "ltree", "hstore"] {
        if let Err(error) = admin.try_run(&format!("CREATE EXTENSION {extension}")).await {
            eprintln!("SKIPPED: type {extension}: {error}");
            cases.retain(|case| case.declaration != extension);
        }
    }
    let mut setup = String::new();
    for (index, case) in cases.iter().enumerate() {
        let table = table(index);
        bed.contract(&table, case.contract);
        writeln!(setup, "CREATE TABLE {table} (id int PRIMARY KEY, v {});", case.declaration).expect("a string");
        writeln!(setup, "ALTER TABLE {table} ALTER v DROP NOT NULL;").expect("a string");
        // The old images of every second type are read, too.
        if index % 2 == 0 {
            writeln!(setup, "ALTER TABLE {table} REPLICA IDENTITY FULL;").expect("a string");
        }
        for (number, (literal, _)) in case.values.iter().enumerate() {
            writeln!(
                setup,
                "INSERT INTO {table} VALUES ({number}, {literal}), ({}, NULL), ({}, {literal}), ({}, {literal});",
                2000 + number,
                3000 + number,
                4000 + number
            )
            .expect("a string");
        }
    }
    bed.session.run(&setup).await;

    bed.lakeward.catch_up();
    for (index, case) in cases.iter().enumerate() {
        let name = format!("{} {}", case.id, case.declaration);
        assert_eq!(lake_type(&bed.folder(&table(index)), "v").as_deref(), Some(case.lake), "{name}");
        let expected: Vec<Vec<Value>> = [0, 2000, 3000, 4000]
            .iter()
            .flat_map(|&first| {
                case.values.iter().enumerate().map(move |(number, (_, value))| {
                    vec![json!(first + number), if first == 2000 { NULL } else { value.clone() }]
                })
            })
            .collect();
        assert_eq!(bed.rows(&table(index)), expected, "first load of {name}");
    }

    let mut daemon = bed.lakeward.start();
    let mut changes = String::new();
    for (index, case) in cases.iter().enumerate() {
        for (number, (literal, _)) in case.values.iter().enumerate() {
            let table = table(index);
            writeln!(
                changes,
                "INSERT INTO {table} VALUES ({}, {literal}); UPDATE {table} SET v = {literal} WHERE id = {};
                 UPDATE {table} SET v = NULL WHERE id = {}; DELETE FROM {table} WHERE id = {};",
                1000 + number,
                2000 + number,
                3000 + number,
                4000 + number
            )
            .expect("a string");
        }
    }
    bed.session.run(&changes).await;
    for (index, case) in cases.iter().enumerate() {
        let expected: Vec<Vec<Value>> = [0, 1000, 2000, 3000]
            .iter()
            .flat_map(|&first| {
                case.values.iter().enumerate().map(move |(number, (_, value))| {
                    vec![json!(first + number), if first == 3000 { NULL } else { value.clone() }]
                })
            })
            .collect();
        bed.becomes(&mut daemon, &table(index), &format!("{} {}", case.id, case.declaration), &expected);
    }
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    bed.lakeward.assert_verified();

    // Nothing was replaced unseen: each such value came three times, once loaded twice more.
    let tables = bed.lakeward.tables();
    let dates = cases.iter().position(|case| case.declaration == "date" && case.contract.is_empty()).expect("a case");
    let told =
        tables.as_array().expect("a list").iter().find(|found| found["table"] == format!("public.{}", table(dates)));
    // Five of its values have no form; loaded under three ids, inserted, and set.
    assert_eq!(told.expect("told")["values"]["v"]["out_of_range"], json!(25), "{tables:#}");
    bed.database.drop().await;
}

/// P-3, P-4: the policy `fail` stops the table at the value, wherever it comes from, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_fail_stops_the_table_and_says_where() {
    let Some(mut bed) = Bed::new("pgfail").await else { return };
    bed.session
        .run(
            "CREATE TABLE loaded (id int PRIMARY KEY, v date); INSERT INTO loaded VALUES (1, 'infinity');
             CREATE TABLE streamed (id int PRIMARY KEY, v numeric(5,2)); INSERT INTO streamed VALUES (1, 1);
             CREATE TABLE fine (id int PRIMARY KEY, v date)",
        )
        .await;
    for table in ["loaded", "streamed"] {
        bed.contract(table, "value_policy = \"fail\"");
    }
    let (_, log) = bed.lakeward.try_catch_up();
    assert!(log.contains("public.loaded") && log.contains("`infinity` of column `v` (date)"), "{log}");
    bed.session.run("INSERT INTO streamed VALUES (2, 2); INSERT INTO streamed VALUES (3, 'NaN'); INSERT INTO fine VALUES (1, 'infinity')").await;
    let (status, log) = bed.lakeward.try_catch_up();
    assert_eq!(status.code(), Some(13), "{log}");
    assert!(log.contains("public.streamed") && log.contains("`NaN` of column `v` (numeric(5,2))"), "{log}");
    assert!(log.contains("not a number") && log.contains("policy"), "{log}");
    assert_eq!(bed.rows("fine"), [[json!(1), NULL]]);
    let rows = bed.rows("streamed");
    assert!(!rows.iter().any(|row| row[0] == json!(3)), "{rows:?}");
    bed.database.drop().await;
}

/// A contract that asks for what can't be is refused at the start, and one that changes what is loaded stops the table.
#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_type_is_refused_and_a_changed_one_stops_its_table() {
    let Some(mut bed) = Bed::new("pgretype").await else { return };
    bed.session
        .run("CREATE TABLE prices (id int PRIMARY KEY, v numeric(12,2)); INSERT INTO prices VALUES (1, 1.5)")
        .await;
    bed.contract("prices", "types.v = \"double\"");
    let (status, log) = bed.lakeward.try_catch_up();
    assert!(!status.success(), "{log}");
    for text in ["contract of public.prices", "`v` (numeric(12,2)) double", "possible is: decimal(12,2), decimal(p,s)"]
    {
        assert!(log.contains(text), "{text} in {log}");
    }
    bed.contract("prices", "");
    bed.lakeward.catch_up();
    bed.contract("prices", "types.v = \"decimal(20,4)\"");
    let (status, log) = bed.lakeward.try_catch_up();
    assert_eq!(status.code(), Some(13), "{log}");
    assert!(log.contains("`v` is decimal(12,2) in the lake, and its contract makes it decimal(20,4)"), "{log}");
    fs::remove_dir_all(bed.folder("prices")).expect("the remedy");
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("prices"), [[json!(1), json!("1.5000")]]);
    bed.database.drop().await;
}

/// P-13: a new label is a new value; a renamed one changes rows that the log does not show.
#[tokio::test(flavor = "multi_thread")]
async fn enum_labels_may_be_added_and_a_renamed_one_loads_the_table_again() {
    let Some(mut bed) = Bed::new("pgenum").await else { return };
    bed.session
        .run("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (id int PRIMARY KEY, v mood); INSERT INTO moods VALUES (1, 'sad')")
        .await;
    bed.lakeward.catch_up();
    bed.session.run("ALTER TYPE mood ADD VALUE 'happy'").await;
    bed.session.run("INSERT INTO moods VALUES (2, 'happy')").await;
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("moods"), [[json!(1), json!("sad")], [json!(2), json!("happy")]]);
    bed.session.run("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'").await;
    let (status, log) = bed.lakeward.try_catch_up();
    assert!(status.success(), "{log}");
    assert!(log.contains("enum value `sad` was renamed to `blue`"), "{log}");
    assert_eq!(bed.rows("moods"), [[json!(1), json!("blue")], [json!(2), json!("happy")]], "{log}");
    bed.database.drop().await;
}

/// P-16: a stored generated column is not in the log, so it is not in the lake, from the first load on.
#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_is_not_in_the_lake() {
    let Some(mut bed) = Bed::new("pggenerated").await else { return };
    bed.session
        .run(
            "CREATE TABLE generated (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, v text);
             INSERT INTO generated (id, v) VALUES (1, 'a')",
        )
        .await;
    bed.lakeward.catch_up();
    bed.session.run("INSERT INTO generated (id, v) VALUES (2, 'b'); UPDATE generated SET v = 'c' WHERE id = 1").await;
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("generated"), [[json!(1), json!("c")], [json!(2), json!("b")]]);
    assert_eq!(lake_type(&bed.folder("generated"), "g"), None);
    bed.database.drop().await;
}

/// P-18: one value of 40 MB, by load and by log.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_forty_megabytes_arrives_whole() {
    let Some(mut bed) = Bed::new("pglarge").await else { return };
    bed.session
        .run(
            "CREATE TABLE large (id int PRIMARY KEY, v text);
             INSERT INTO large SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, 1250000) g",
        )
        .await;
    bed.lakeward.catch_up();
    bed.session
        .run("INSERT INTO large SELECT 2, v || 'x' FROM large WHERE id = 1; UPDATE large SET id = 3 WHERE id = 1")
        .await;
    bed.lakeward.catch_up();
    let folder = bed.folder("large");
    let found = bed.reader.rows(&folder, None, "SELECT id, length(v), md5(v) FROM t ORDER BY id");
    let hash = |value: Option<String>| json!(value.expect("a row"));
    let two = hash(bed.session.value("SELECT md5(v) FROM large WHERE id = 2").await);
    let three = hash(bed.session.value("SELECT md5(v) FROM large WHERE id = 3").await);
    assert_eq!(found, [[json!(2), json!(40_000_001), two], [json!(3), json!(40_000_000), three]]);
    bed.database.drop().await;
}
