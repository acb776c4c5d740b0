//! M-1 to M-27: the types of MySQL and MariaDB.
//!
//! Each case is a column: its declaration, its type in the lake as DuckDB tells it, and values as SQL on the left with what
//! the lake must hold on the right. All of them go through a first load, an INSERT, an UPDATE of the row, an UPDATE of its
//! key and a DELETE, on a plain server and on a hostile one. What the table expects is compared with what DuckDB reads, and
//! lake and source are compared by the oracle besides; where the right side is `=`, by the oracle only.
//! (M-25, compressed columns, is in `tests/transactions/`.)

mod charsets;
mod contracts;

use crate::support::Scratch;
use crate::support::daemon::Lakeward;
use crate::support::oracle::{Oracle, Reader};
use crate::support::server::OwnServer;
use crate::support::source::{Database, Kind, Session};

/// Rows of each table; a case with fewer values starts over.
const ROWS: usize = 6;

/// One column.
struct Case {
    ids: &'static str,
    name: String,
    declaration: String,
    lake: &'static str,
    values: Vec<(String, String)>,
}

impl Case {
    fn value(&self, row: usize) -> &(String, String) {
        &self.values[row % self.values.len()]
    }
}

/// For all servers, then for MariaDB, then for MySQL.
#[rustfmt::skip]
fn cases(kind: Kind) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |ids, declaration: &str, lake, values: &[(&str, &str)]| {
        let name = format!("c{}", cases.len());
        let values = values.iter().map(|(sql, expected)| ((*sql).to_owned(), (*expected).to_owned())).collect();
        cases.push(Case { ids, name, declaration: declaration.to_owned(), lake, values });
    };
    add("M-1", "tinyint", "TINYINT", &[("-128", "-128"), ("127", "127"), ("NULL", "NULL")]);
    add("M-1", "smallint", "SMALLINT", &[("-32768", "-32768"), ("32767", "32767")]);
    add("M-1", "mediumint", "INTEGER", &[("-8388608", "-8388608"), ("-8000000", "-8000000"), ("8388607", "8388607"), ("-1", "-1")]);
    add("M-1", "int", "INTEGER", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647"), ("NULL", "NULL")]);
    add("M-1", "bigint", "BIGINT", &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")]);
    add("M-2", "tinyint unsigned", "SMALLINT", &[("0", "0"), ("255", "255")]);
    add("M-2", "smallint unsigned", "INTEGER", &[("65535", "65535"), ("NULL", "NULL")]);
    add("M-2", "mediumint unsigned", "INTEGER", &[("16777215", "16777215")]);
    add("M-2", "int unsigned", "BIGINT", &[("4294967295", "4294967295")]);
    add("M-2", "bigint unsigned", "DECIMAL(20,0)", &[("18446744073709551615", "18446744073709551615"), ("0", "0"), ("NULL", "NULL")]);
    add("M-3", "tinyint(1)", "TINYINT", &[("true", "1"), ("false", "0"), ("-5", "-5"), ("NULL", "NULL")]);
    add("M-4", "float", "FLOAT", &[("0.1", "0.1"), ("-0.0e0", "="), ("16777217", "16777216.0"), ("3.4028234e38", "="), ("1.17549435e-38", "="), ("NULL", "NULL")]);
    add("M-4", "float(7,3)", "FLOAT", &[("1234.567", "1234.567"), ("-0.001", "-0.001")]);
    add("M-4", "double", "DOUBLE", &[("0.1", "0.1"), ("-0.0e0", "="), ("1.7976931348623157e308", "="), ("2.2250738585072014e-308", "="), ("1e15", "="), ("NULL", "NULL")]);
    add("M-5", "decimal(5,2)", "DECIMAL(5,2)", &[("-999.99", "-999.99"), ("0.01", "0.01"), ("0", "0.00"), ("NULL", "NULL")]);
    add("M-5", "decimal(38,10)", "DECIMAL(38,10)", &[("9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"), ("-0.0000000001", "-0.0000000001")]);
    add("M-5", "decimal(10,10)", "DECIMAL(10,10)", &[("0.9999999999", ".9999999999")]);
    add("M-6", "decimal(65,30)", "VARCHAR", &[
        ("99999999999999999999999999999999999.999999999999999999999999999999", "99999999999999999999999999999999999.999999999999999999999999999999"),
        ("-123.45", "-123.450000000000000000000000000000"), ("0", "0.000000000000000000000000000000"), ("NULL", "NULL"),
    ]);
    add("M-7", "bit(1)", "BOOLEAN", &[("b'0'", "false"), ("b'1'", "true"), ("NULL", "NULL")]);
    add("M-7", "bit(9)", "BLOB", &[("b'100000001'", "x0101"), ("b'0'", "x0000")]);
    add("M-7", "bit(64)", "BLOB", &[("X'FFFFFFFFFFFFFFFF'", "xFFFFFFFFFFFFFFFF"), ("b'1'", "x0000000000000001"), ("NULL", "NULL")]);
    add("M-8", "date", "DATE", &[("'1000-01-01'", "1000-01-01"), ("'9999-12-31'", "9999-12-31"), ("'2024-02-29'", "2024-02-29"), ("'0001-01-01'", "0001-01-01"), ("NULL", "NULL")]);
    add("M-8", "datetime", "TIMESTAMP", &[("'9999-12-31 23:59:59'", "9999-12-31 23:59:59"), ("'1969-12-31 23:59:59'", "1969-12-31 23:59:59")]);
    add("M-8", "datetime(3)", "TIMESTAMP", &[("'2024-03-02 13:05:06.123'", "2024-03-02 13:05:06.123"), ("NULL", "NULL")]);
    add("M-8", "datetime(6)", "TIMESTAMP", &[("'2024-03-02 13:05:06.000001'", "2024-03-02 13:05:06.000001")]);
    add("M-9", "date", "DATE", &[("'0000-00-00'", "NULL"), ("'2024-00-15'", "NULL"), ("'2024-02-31'", "NULL"), ("'2024-02-28'", "2024-02-28")]);
    add("M-9", "datetime(1)", "TIMESTAMP", &[("'0000-00-00 00:00:00'", "NULL"), ("'2023-02-29 10:00:00.5'", "NULL"), ("'2023-02-28 10:00:00.5'", "2023-02-28 10:00:00.5")]);
    add("M-9", "timestamp null", "TIMESTAMP WITH TIME ZONE", &[("0", "NULL"), ("'1970-01-01 09:00:01'", "1970-01-01 00:00:01+00")]);
    add("M-10", "timestamp(6) null", "TIMESTAMP WITH TIME ZONE", &[
        ("'2038-01-19 12:14:07.999999'", "2038-01-19 03:14:07.999999+00"), ("'2024-11-03 14:30:00.5'", "2024-11-03 05:30:00.5+00"),
        ("'2024-11-03 15:30:00.5'", "2024-11-03 06:30:00.5+00"), ("NULL", "NULL"),
    ]);
    add("M-11", "time", "BIGINT", &[("'838:59:59'", "3020399000000"), ("'-838:59:59'", "-3020399000000"), ("'00:00:00'", "0"), ("'-00:00:01'", "-1000000")]);
    add("M-11", "time(2)", "BIGINT", &[("'-00:00:01.50'", "-1500000"), ("'12:34:56.78'", "45296780000"), ("NULL", "NULL")]);
    add("M-11", "time(6)", "BIGINT", &[("'-00:00:00.001'", "-1000"), ("'838:59:58.999999'", "3020398999999"), ("'-838:59:58.000001'", "-3020398000001")]);
    add("M-12", "year", "INTEGER", &[("1901", "1901"), ("2155", "2155"), ("'0000'", "0"), ("NULL", "NULL")]);
    add("M-13", "char(10) character set utf8mb4", "VARCHAR", &[("'é🍣 '", "é🍣"), ("''", ""), ("NULL", "NULL")]);
    add("M-13", "char(255) character set utf8mb4", "VARCHAR", &[("repeat('é', 255)", "="), ("'x'", "x")]);
    add("M-13", "varchar(300) character set utf8mb4 collate utf8mb4_bin", "VARCHAR", &[("'예약 🏨  '", "예약 🏨  "), ("repeat('x', 300)", "=")]);
    add("M-13", "varchar(9) character set utf8mb3", "VARCHAR", &[("'é예'", "é예")]);
    add("M-13", "varchar(9) character set latin1", "VARCHAR", &[("X'636166E980'", "café€"), ("X'818D8F909D'", "\u{81}\u{8d}\u{8f}\u{90}\u{9d}")]);
    add("M-13", "varchar(9) character set sjis", "VARCHAR", &[("X'5C7E815C8160'", "\\~―〜"), ("'予約ｱ'", "予約ｱ")]);
    add("M-13", "varchar(9) character set cp932", "VARCHAR", &[("X'5C7E815C8160'", "\\~―～"), ("X'8740'", "①")]);
    add("M-13", "varchar(9) character set ujis", "VARCHAR", &[("'予約'", "予約"), ("X'8EB18FB0A1'", "ｱ丂")]);
    add("M-13", "varchar(9) character set eucjpms", "VARCHAR", &[("'予約'", "予約"), ("X'ADA1'", "①")]);
    add("M-13", "varchar(9) character set euckr", "VARCHAR", &[("'예약'", "예약")]);
    add("M-13", "varchar(9) character set big5", "VARCHAR", &[("'預訂'", "預訂"), ("X'A15A'", "=")]);
    add("M-13", "varchar(9) character set gbk", "VARCHAR", &[("'预订'", "预订")]);
    add("M-13", "varchar(9) character set gb2312", "VARCHAR", &[("'预订'", "预订")]);
    add("M-13", "varchar(9) character set ucs2", "VARCHAR", &[("'é예'", "é예"), ("''", "")]);
    add("M-13", "varchar(9) character set utf16", "VARCHAR", &[("'é🍣'", "é🍣")]);
    add("M-13", "varchar(9) character set utf16le", "VARCHAR", &[("'é🍣'", "é🍣")]);
    add("M-13", "char(9) character set utf32", "VARCHAR", &[("'é🍣'", "é🍣")]);
    add("M-13", "varchar(9) character set cp1250", "VARCHAR", &[("'žluťoučký'", "žluťoučký")]);
    add("M-13", "varchar(9) character set koi8r", "VARCHAR", &[("'Привет'", "Привет")]);
    add("M-13", "varchar(9) character set greek", "VARCHAR", &[("'αβγ'", "αβγ")]);
    add("M-13", "varchar(9) character set hebrew", "VARCHAR", &[("'שלום'", "שלום")]);
    add("M-13", "varchar(9) character set tis620", "VARCHAR", &[("'สวัสดี'", "สวัสดี")]);
    add("M-13", "varchar(9) character set ascii", "VARCHAR", &[("'abc'", "abc")]);
    add("M-13", "text character set utf8mb4", "VARCHAR", &[("repeat('예', 20000)", "="), ("''", ""), ("NULL", "NULL")]);
    add("M-13", "longtext character set latin1", "VARCHAR", &[("X'E9'", "é"), ("repeat('a', 70000)", "=")]);
    add("M-14", "binary(4)", "BLOB", &[("X'01000000'", "x01000000"), ("X'00000000'", "x00000000"), ("X'01'", "x01000000"), ("NULL", "NULL")]);
    add("M-14", "binary(255)", "BLOB", &[("X'AB'", "="), ("repeat(X'FF', 255)", "=")]);
    add("M-14", "varbinary(10)", "BLOB", &[("X'0100'", "x0100"), ("X''", "x")]);
    add("M-14", "blob", "BLOB", &[("X''", "x"), ("X'00FF00'", "x00FF00"), ("repeat(X'00', 60000)", "=")]);
    add("M-14", "longblob", "BLOB", &[("repeat('z', 17000000)", "="), ("X'00'", "x00"), ("NULL", "NULL"), ("NULL", "NULL"), ("NULL", "NULL"), ("NULL", "NULL")]);
    add("M-15", "enum('a','b,c','d''e','') character set utf8mb4", "VARCHAR", &[("'a'", "a"), ("'b,c'", "b,c"), ("'d''e'", "d'e"), ("''", ""), ("'bogus'", ""), ("NULL", "NULL")]);
    add("M-15", "enum('é','ü') character set latin1", "VARCHAR", &[("'é'", "é"), ("2", "ü")]);
    let labels: Vec<String> = (1..=300).map(|index| format!("'e{index}'")).collect();
    add("M-15", &format!("enum({})", labels.join(",")), "VARCHAR", &[("'e1'", "e1"), ("'e300'", "e300"), ("256", "e256")]);
    add("M-16", "set('x','y','é') character set latin1", "VARCHAR", &[("''", ""), ("'é,x'", "x,é"), ("'y'", "y"), ("NULL", "NULL")]);
    let labels: Vec<String> = (0..64).map(|index| format!("'m{index}'")).collect();
    add("M-16", &format!("set({})", labels.join(",")), "VARCHAR", &[("'m63,m0'", "m0,m63"), ("-1", "="), ("0", "")]);
    add("M-19", "geometry", "STRUCT(srid INTEGER, wkb BLOB)", &[
        ("ST_GeomFromText('POINT(1 2)')", "0 0101000000000000000000F03F0000000000000040"),
        ("ST_GeomFromText('GEOMETRYCOLLECTION EMPTY')", "0 010700000000000000"),
        ("ST_GeomFromText('LINESTRING(0 0,1 1)')", "="), ("NULL", "NULL"),
    ]);
    add("M-19", "polygon", "STRUCT(srid INTEGER, wkb BLOB)", &[("ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0))')", "="), ("NULL", "NULL")]);
    add("M-22", "int generated always as (40 + 2) virtual", "INTEGER", &[("", "42")]);
    add("M-22", "varchar(30) generated always as (concat('n', 1)) stored", "VARCHAR", &[("", "n1")]);
    add("M-23", "int invisible", "INTEGER", &[("7", "7"), ("NULL", "NULL")]);
    add("M-27", "int(7) zerofill", "BIGINT", &[("42", "42")]);
    add("M-27", "decimal(18,0) zerofill", "DECIMAL(18,0)", &[("12", "12"), ("999999999999999999", "999999999999999999")]);
    add("M-27", "national varchar(9)", "VARCHAR", &[("'é'", "é")]);
    add("M-27", "varchar(0)", "VARCHAR", &[("''", ""), ("NULL", "NULL")]);
    add("M-27", "serial", "DECIMAL(20,0)", &[("101", "101"), ("102", "102"), ("103", "103"), ("104", "104"), ("105", "105"), ("106", "106")]);
    if kind == Kind::MariaDb {
        add("M-10", "timestamp(3) null", "TIMESTAMP WITH TIME ZONE", &[("'1970-01-01 09:00:00.5'", "1970-01-01 00:00:00.5+00")]);
        add("M-18", "json", "VARCHAR", &[("'{\"a\":  1}'", "{\"a\":  1}"), ("'[1,2]'", "[1,2]"), ("NULL", "NULL")]);
        add("M-19", "point", "STRUCT(srid INTEGER, wkb BLOB)", &[("ST_GeomFromText('POINT(1 2)', 4326)", "4326 0101000000000000000000F03F0000000000000040")]);
        add("M-21", "uuid", "VARCHAR", &[
            ("'12345678-2e1b-11eb-9a9d-0242ac130002'", "12345678-2e1b-11eb-9a9d-0242ac130002"), ("'12345678-0000-1000-8000-000000000000'", "12345678-0000-1000-8000-000000000000"),
            ("'018f3b2e-9c4a-7def-8abc-0123456789ab'", "018f3b2e-9c4a-7def-8abc-0123456789ab"), ("'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000"),
            ("'f47ac10b-58cc-4372-a567-0e02b2c3d400'", "f47ac10b-58cc-4372-a567-0e02b2c3d400"), ("NULL", "NULL"),
        ]);
        add("M-21", "inet6", "VARCHAR", &[("'1::'", "1::"), ("'::1'", "::1"), ("'2001:db8::ff00:42:8329'", "2001:db8::ff00:42:8329"), ("'::ffff:192.0.2.1'", "::ffff:192.0.2.1"), ("'1:0:3:4:5:6:7:8'", "="), ("NULL", "NULL")]);
        add("M-21", "inet4", "VARCHAR", &[("'192.0.2.0'", "192.0.2.0"), ("'0.0.0.0'", "0.0.0.0"), ("NULL", "NULL")]);
        // A UNIQUE of its length is kept in a hidden column DB_ROW_HASH_1.
        add("M-24", "text character set utf8mb4 unique", "VARCHAR", &[("'r1'", "r1"), ("'r2'", "r2"), ("'r3'", "r3"), ("'r4'", "r4"), ("'r5'", "r5"), ("NULL", "NULL")]);
    } else {
        add("M-13", "varchar(9) character set gb18030", "VARCHAR", &[("'预订🍣é'", "预订🍣é"), ("X'81308130'", "\u{80}")]);
        add("M-17", "json", "VARCHAR", &[
            ("'{\"b\": 1, \"aa\": [true, null]}'", "{\"b\": 1, \"aa\": [true, null]}"), ("json_array(18446744073709551615, -1, 1.5e0)", "[18446744073709551615, -1, 1.5]"),
            ("json_array(cast('123.4500' as decimal(10,4)), cast('2024-02-29' as date), cast('abc' as binary))", "="),
            ("json_object('k', repeat('y', 70000), 'n', 70000)", "="), ("cast(concat(repeat('[', 99), repeat(']', 99)) as json)", "="), ("NULL", "NULL"),
        ]);
        add("M-19", "point srid 4326", "STRUCT(srid INTEGER, wkb BLOB)", &[("ST_GeomFromText('POINT(10 20)', 4326)", "4326 010100000000000000000034400000000000002440"), ("NULL", "NULL")]);
        add("M-20", "vector(3)", "FLOAT[]", &[("string_to_vector('[1,2,3.5]')", "[1.0, 2.0, 3.5]"), ("NULL", "NULL")]);
    }
    for (number, name) in ["예약 no.1", "select", "a`b", "x y", "ä.b", "c\"d'e", "Ünïque"].into_iter().enumerate() {
        let value = number.to_string();
        cases.push(Case { ids: "M-26", name: name.to_owned(), declaration: "int".into(), lake: "INTEGER", values: vec![(value.clone(), value)] });
    }
    cases
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn double_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How DuckDB shows a column of this type.
fn shown(name: &str, lake: &str) -> String {
    let column = double_quoted(name);
    let text = match lake {
        "BLOB" => format!("'x' || hex({column})"),
        "STRUCT(srid INTEGER, wkb BLOB)" => format!("{column}.srid || ' ' || hex({column}.wkb)"),
        _ => format!("CAST({column} AS VARCHAR)"),
    };
    format!("COALESCE({text}, 'NULL')")
}

/// Statements that may hold semicolons in their literals.
async fn run(session: &mut Session, statement: &str) {
    use mysql_async::prelude::Queryable;
    let Session::MySql(conn) = session else { panic!("a session of MySQL or MariaDB") };
    if let Err(error) = conn.query_drop(statement).await {
        let start: String = statement.chars().take(400).collect();
        panic!("{start}: {error}");
    }
}

async fn create(session: &mut Session, table: &str, cases: &[Case]) {
    let columns: Vec<String> =
        cases.iter().map(|case| format!("{} {}", quoted(&case.name), case.declaration)).collect();
    run(session, &format!("CREATE TABLE {table} (id INT PRIMARY KEY, {})", columns.join(", "))).await;
}

async fn insert(session: &mut Session, table: &str, cases: &[Case]) {
    for row in 0..ROWS {
        let given: Vec<&Case> = cases.iter().filter(|case| !case.value(row).0.is_empty()).collect();
        let names: Vec<String> = given.iter().map(|case| quoted(&case.name)).collect();
        let values: Vec<&str> = given.iter().map(|case| case.value(row).0.as_str()).collect();
        let statement = format!("INSERT INTO {table} (id, {}) VALUES ({row}, {})", names.join(", "), values.join(", "));
        run(session, &statement).await;
    }
}

async fn update(session: &mut Session, table: &str, cases: &[Case]) {
    for row in 0..ROWS {
        let given = cases.iter().filter(|case| !case.value(row).0.is_empty());
        let sets: Vec<String> = given.map(|case| format!("{} = {}", quoted(&case.name), case.value(row).0)).collect();
        run(session, &format!("UPDATE {table} SET {} WHERE id = {row}", sets.join(", "))).await;
    }
}

/// Type and values of every column, as the case says. `id_offset`: what was added to the ids.
fn assert_expected(reader: &mut Reader, url: &str, cases: &[Case], id_offset: usize) {
    let fields: Vec<String> = cases
        .iter()
        .flat_map(|case| [format!("typeof({})", double_quoted(&case.name)), shown(&case.name, case.lake)])
        .collect();
    let rows = reader.rows(url, None, &format!("SELECT id, {} FROM t ORDER BY id", fields.join(", ")));
    assert_eq!(rows.len(), ROWS, "{url}");
    let mut wrong = Vec::new();
    for (row, found) in rows.iter().enumerate() {
        assert_eq!(found[0], serde_json::json!(row + id_offset));
        for (index, case) in cases.iter().enumerate() {
            let (lake, value) = (&found[1 + 2 * index], &found[2 + 2 * index]);
            let (sql, expected) = case.value(row);
            let place = format!("{} {} = {sql}", case.ids, case.declaration);
            if lake != case.lake {
                wrong.push(format!("{place}: lake type {lake}, expected {}", case.lake));
            } else if expected != "=" && value != expected {
                wrong.push(format!("{place}: lake holds {value}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{url}:\n{}", wrong.join("\n"));
}

/// All cases on one server, in all ways that values come.
async fn every_type_comes_in_every_way(database: Database) {
    let Some(mut oracle) = Oracle::start(None) else { return };
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("types");
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!("[lake]\nurl = \"lake\"\n{}", database.source_toml());
    let mut lakeward = Lakeward::new(scratch.path(), &config);
    let cases = cases(database.kind);
    let mut session = database.session().await;
    run(&mut session, "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+09:00'").await;
    for table in ["loaded", "inserted", "updated"] {
        create(&mut session, table, &cases).await;
    }
    insert(&mut session, "loaded", &cases).await;
    for row in 0..ROWS {
        run(&mut session, &format!("INSERT INTO updated (id) VALUES ({row})")).await;
    }
    let tables = ["loaded", "inserted", "updated"].map(|table| database.table(table));
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let lake = format!("{}/lake/src", scratch.path().display());
    let url = |table: &str| format!("{lake}/{}/{table}", database.name);

    lakeward.catch_up();
    assert_expected(&mut reader, &url("loaded"), &cases, 0);
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);

    insert(&mut session, "inserted", &cases).await;
    update(&mut session, "updated", &cases).await;
    lakeward.catch_up();
    assert_expected(&mut reader, &url("inserted"), &cases, 0);
    assert_expected(&mut reader, &url("updated"), &cases, 0);
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);

    // Another key: the old image says which row goes, the new one comes whole.
    run(&mut session, "UPDATE updated SET id = id + 100").await;
    run(&mut session, "DELETE FROM inserted WHERE id < 5").await;
    lakeward.catch_up();
    assert_expected(&mut reader, &url("updated"), &cases, 100);
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);
    lakeward.assert_verified();
    run(&mut session, "DELETE FROM inserted").await;
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_mariadb_comes_in_every_way() {
    let Some(database) = Database::create(Kind::MariaDb, "types").await else { return };
    every_type_comes_in_every_way(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_mysql_comes_in_every_way() {
    let Some(database) = Database::create(Kind::MySql, "types").await else { return };
    every_type_comes_in_every_way(database).await;
}

/// A time zone with summer time, named `Test/Dst`: an hour ahead from March to November of 2024.
async fn make_zone_with_summer_time(session: &mut Session) {
    run(session, "SET SESSION sql_log_bin = 0").await;
    run(session, "INSERT INTO mysql.time_zone (Use_leap_seconds) VALUES ('N')").await;
    run(session, "SET @zone = LAST_INSERT_ID()").await;
    run(session, "INSERT INTO mysql.time_zone_name VALUES ('Test/Dst', @zone)").await;
    run(
        session,
        "INSERT INTO mysql.time_zone_transition_type VALUES (@zone, 0, -18000, 0, 'EST'), (@zone, 1, -14400, 1, 'EDT')",
    )
    .await;
    run(session, "INSERT INTO mysql.time_zone_transition VALUES (@zone, 1710054000, 1), (@zone, 1730613600, 0)").await;
    run(session, "SET SESSION sql_log_bin = 1").await;
}

/// Settings of the server that a careless reader's session would take over.
async fn on_a_hostile_server(kind: Kind) {
    let options = ["character-set-server=latin1", "sql_mode=ANSI_QUOTES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH"];
    let Some(server) = OwnServer::start(kind, "hostile", &options) else { return };
    let database = Database::create_on(kind, server.port, "hostile").await;
    let mut session = database.session().await;
    make_zone_with_summer_time(&mut session).await;
    run(&mut session, "SET GLOBAL time_zone = 'Test/Dst'").await;
    summer_time(Database::create_on(kind, server.port, "summer").await).await;
    every_type_comes_in_every_way(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_settings_of_mariadb_change_nothing() {
    on_a_hostile_server(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_settings_of_mysql_change_nothing() {
    on_a_hostile_server(Kind::MySql).await;
}

/// M-10: both hours that summer time's end makes of one wall clock, written in several time zones and by clients that speak
/// sjis.
async fn summer_time(database: Database) {
    let Some(mut reader) = Reader::start(None) else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    let scratch = Scratch::new("summer");
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let mut lakeward = Lakeward::new(scratch.path(), &format!("[lake]\nurl = \"lake\"\n{}", database.source_toml()));
    let mut session = database.session().await;
    run(
        &mut session,
        "CREATE TABLE clocks (id INT PRIMARY KEY, t TIMESTAMP NULL, d DATETIME, j VARCHAR(9) CHARACTER SET sjis)",
    )
    .await;
    let rows = |from: u32| {
        [
            ("Test/Dst", "2024-11-03 00:59:59"),
            ("+00:00", "2024-11-03 05:30:00"),
            ("+00:00", "2024-11-03 06:30:00"),
            ("Test/Dst", "2024-07-01 12:00:00"),
            ("+13:00", "2024-03-11 00:00:00"),
        ]
        .into_iter()
        .zip(from..)
    };
    let fill = async |session: &mut Session, from: u32| {
        for ((zone, clock), id) in rows(from) {
            run(session, &format!("SET time_zone = '{zone}'")).await;
            run(session, "SET NAMES sjis").await;
            run(session, &format!("INSERT INTO clocks VALUES ({id}, '{clock}', '{clock}', X'975C96F1')")).await;
        }
    };
    fill(&mut session, 0).await;
    lakeward.catch_up();
    fill(&mut session, 5).await;
    lakeward.catch_up();
    let lake = format!("{}/lake/src", scratch.path().display());
    oracle.assert_equal(&database.oracle_url(), &lake, &[&database.table("clocks")]);
    let found = reader.rows(
        &format!("{lake}/{}/clocks", database.name),
        None,
        "SELECT DISTINCT id % 5, t::VARCHAR, d::VARCHAR, j FROM t ORDER BY 1",
    );
    let expected = [
        "2024-11-03 04:59:59+00",
        "2024-11-03 05:30:00+00",
        "2024-11-03 06:30:00+00",
        "2024-07-01 16:00:00+00",
        "2024-03-10 11:00:00+00",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (((id, instant), row), (_, clock)) in expected.iter().enumerate().zip(&found).zip(rows(0).map(|(row, _)| row)) {
        assert_eq!(*row, [serde_json::json!(id), (*instant).into(), clock.into(), "予約".into()]);
    }
}

/// B8: MariaDB's temporal types in the forms of before MySQL 5.6.
#[tokio::test(flavor = "multi_thread")]
async fn old_temporal_formats_of_mariadb_are_read_or_refused() {
    let Some(server) = OwnServer::start(Kind::MariaDb, "old-formats", &["mysql56_temporal_format=OFF"]) else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    let database = Database::create_on(Kind::MariaDb, server.port, "old").await;
    let scratch = Scratch::new("old");
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let mut lakeward = Lakeward::new(scratch.path(), &format!("[lake]\nurl = \"lake\"\n{}", database.source_toml()));
    let mut session = database.session().await;
    run(&mut session, "SET sql_mode = '', time_zone = '+09:00'").await;
    run(&mut session, "CREATE TABLE old (id INT PRIMARY KEY, d DATETIME, t TIME, s TIMESTAMP NULL)").await;
    let fill = "INSERT INTO old SELECT id + @from, d, t, s FROM (
        SELECT 1 id, '2024-03-02 13:05:06' d, '-838:59:59' t, '2038-01-19 12:14:07' s UNION ALL
        SELECT 2, '0000-00-00 00:00:00', '-00:00:01', 0 UNION ALL SELECT 3, NULL, '12:34:56', NULL) v";
    run(&mut session, "SET @from = 0").await;
    run(&mut session, fill).await;
    lakeward.catch_up();
    run(&mut session, "SET @from = 10").await;
    run(&mut session, fill).await;
    lakeward.catch_up();
    let lake = format!("{}/lake/src", scratch.path().display());
    oracle.assert_equal(&database.oracle_url(), &lake, &[&database.table("old")]);
}
