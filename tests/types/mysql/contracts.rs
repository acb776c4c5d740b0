//! What a contract says about types: value policies, counters, and other lake types than the declaration's own.

use serde_json::{Value, json};

use super::run;
use crate::support::Scratch;
use crate::support::daemon::Lakeward;
use crate::support::oracle::Reader;
use crate::support::source::{Database, Kind, Session};

/// A database, a lake, and contracts.
struct Case {
    database: Database,
    session: Session,
    lakeward: Lakeward,
    reader: Reader,
    scratch: Scratch,
}

impl Case {
    async fn new(kind: Kind, test: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let reader = Reader::start(None)?;
        let scratch = Scratch::new(test);
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        std::fs::create_dir(scratch.path().join("schemas")).expect("writable");
        let config = format!("[lake]\nurl = \"lake\"\n{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        let mut session = database.session().await;
        run(&mut session, "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+09:00'").await;
        Some(Self { database, session, lakeward, reader, scratch })
    }

    fn contract(&self, table: &str, text: &str) {
        let file = self.scratch.path().join(format!("schemas/{table}.toml"));
        std::fs::write(file, format!("table = \"{}\"\n{text}", self.database.table(table))).expect("writable");
    }

    async fn run(&mut self, statement: &str) {
        run(&mut self.session, statement).await;
    }

    fn rows(&mut self, table: &str, sql: &str) -> Vec<Vec<Value>> {
        let url = format!("{}/lake/src/{}/{table}", self.scratch.path().display(), self.database.name);
        self.reader.rows(&url, None, sql)
    }

    /// One table of `lakeward tables --json`.
    fn report(&self, table: &str) -> Value {
        let name = self.database.table(table);
        let tables = self.lakeward.tables();
        let found = tables.as_array().expect("tables").iter().find(|report| report["table"] == json!(name));
        found.unwrap_or_else(|| panic!("no {name} in {tables}")).clone()
    }
}

const SERVERS: [Kind; 2] = [Kind::MariaDb, Kind::MySql];

/// M-9, M-13: under each policy, from a first load and from the log.
#[tokio::test(flavor = "multi_thread")]
async fn values_without_a_form_in_the_lake_follow_the_policy_and_are_counted() {
    for kind in SERVERS {
        let Some(mut case) = Case::new(kind, "policies").await else { continue };
        let tables = ["by_null", "by_string", "by_fail", "fails_at_load"];
        for table in tables {
            case.run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, d DATE, m DATETIME(3), s TIMESTAMP(1) NULL,
                 t VARCHAR(9) CHARACTER SET sjis)"
            ))
            .await;
        }
        case.contract("by_string", "value_policy = \"string\"\n");
        case.contract("by_fail", "value_policies = { d = \"fail\", t = \"fail\" }\n");
        case.contract("fails_at_load", "value_policy = \"fail\"\n");
        // 8540 is a character of sjis that stands for nothing.
        let bad = "'2024-02-31', '0000-00-00 00:00:00', 0, X'6185406263'";
        let good = "'2024-02-28', '2024-03-02 13:05:06.123', '2024-03-02 13:05:06.5', 'ok'";
        for table in &tables[..2] {
            case.run(&format!("INSERT INTO {table} VALUES (1, {bad}), (2, {good}), (3, NULL, NULL, NULL, NULL)")).await;
        }
        case.run(&format!("INSERT INTO by_fail VALUES (2, {good})")).await;
        case.run(&format!("INSERT INTO fails_at_load VALUES (1, {bad})")).await;
        let (_, log) = case.lakeward.try_catch_up();
        for told in ["zero or impossible date", "broken in its character set", "see docs/types.md"] {
            assert!(log.contains(told), "{kind:?}: no {told:?} in\n{log}");
        }
        assert!(log.contains("`2024-02-31`") && log.contains("column `d`"), "{kind:?}: {log}");
        assert_eq!(case.report("fails_at_load")["state"], json!("stopped"), "{kind:?}");

        // The same from the log.
        for table in &tables[..2] {
            case.run(&format!("INSERT INTO {table} VALUES (11, {bad}), (12, {good}), (13, NULL, NULL, NULL, NULL)"))
                .await;
            case.run(&format!("UPDATE {table} SET m = '2023-02-29 01:02:03' WHERE id = 13")).await;
        }
        case.run(&format!("INSERT INTO by_fail VALUES (12, {good})")).await;
        // A table that stops stays as it was at the last commit.
        case.lakeward.try_catch_up();
        case.run(&format!("INSERT INTO by_fail VALUES (11, {bad})")).await;
        let (_, log) = case.lakeward.try_catch_up();
        assert!(log.contains("2024-02-31"), "{kind:?}: {log}");

        let instant = "2024-03-02 04:05:06.5+00";
        let nulls = case.rows("by_null", "SELECT id, d::VARCHAR, m::VARCHAR, s::VARCHAR, t FROM t ORDER BY id");
        let row = |id: i32| {
            [
                json!([id, null, null, null, "a\u{FFFD}bc"]),
                json!([id + 1, "2024-02-28", "2024-03-02 13:05:06.123", instant, "ok"]),
                json!([id + 2, null, null, null, null]),
            ]
        };
        assert_eq!(json!(nulls), json!([row(1), row(11)].concat()), "{kind:?}");
        assert_eq!(
            case.report("by_null")["values"],
            json!({
                "d": {"impossible_date": 2}, "m": {"impossible_date": 3}, "s": {"impossible_date": 2},
                "t": {"broken_text": 2}
            }),
            "{kind:?}"
        );

        let texts = case.rows("by_string", "SELECT id, d, m, s, t FROM t ORDER BY id");
        let row = |id: i32, third: Option<&str>| {
            [
                json!([id, "2024-02-31", "0000-00-00 00:00:00.000", "0000-00-00 00:00:00.0", "a\u{FFFD}bc"]),
                json!([id + 1, "2024-02-28", "2024-03-02 13:05:06.123", "2024-03-02 04:05:06.5", "ok"]),
                json!([id + 2, null, third, null, null]),
            ]
        };
        assert_eq!(json!(texts), json!([row(1, None), row(11, Some("2023-02-29 01:02:03.000"))].concat()), "{kind:?}");
        assert_eq!(case.report("by_string")["values"], json!({"t": {"broken_text": 2}}), "{kind:?}");

        let stopped = case.report("by_fail");
        assert_eq!(stopped["state"], json!("stopped"), "{kind:?}");
        let reason = stopped["error"].as_str().expect("a reason");
        for told in ["by_fail", "column `d`", "`2024-02-31`", " at ", "value policy is \"fail\""] {
            assert!(reason.contains(told), "{kind:?}: no {told:?} in {reason}");
        }
        assert_eq!(json!(case.rows("by_fail", "SELECT id FROM t ORDER BY id")), json!([[2], [12]]), "{kind:?}");
    }
}

/// M-9, M-13: in a key no policy helps, since two rows could become one; but text can be a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_a_form_in_the_lake_stops_the_table() {
    for kind in SERVERS {
        let Some(mut case) = Case::new(kind, "keys").await else { continue };
        case.run("CREATE TABLE dates (d DATE PRIMARY KEY, v INT)").await;
        case.run("CREATE TABLE dates_as_text (d DATE PRIMARY KEY, v INT)").await;
        case.run("CREATE TABLE texts (t VARCHAR(9) CHARACTER SET sjis PRIMARY KEY, v INT)").await;
        case.contract("dates_as_text", "value_policies = { d = \"string\" }\n");
        case.lakeward.catch_up();
        for table in ["dates", "dates_as_text"] {
            case.run(&format!("INSERT INTO {table} VALUES ('2024-02-28', 1)")).await;
        }
        case.run("INSERT INTO texts VALUES ('a', 1)").await;
        case.lakeward.catch_up();
        for table in ["dates", "dates_as_text"] {
            case.run(&format!("INSERT INTO {table} VALUES ('0000-00-00', 2), ('2024-02-31', 3)")).await;
        }
        case.run("UPDATE dates_as_text SET v = 30 WHERE v = 3").await;
        case.run("INSERT INTO texts VALUES (X'8540', 2)").await;
        case.lakeward.try_catch_up();
        for (table, told) in [("dates", "`0000-00-00` in a key column"), ("texts", "in a key column")] {
            let report = case.report(table);
            assert_eq!(report["state"], json!("stopped"), "{kind:?} {table}");
            assert!(report["error"].as_str().is_some_and(|error| error.contains(told)), "{kind:?}: {report}");
            assert_eq!(case.rows(table, "SELECT v FROM t"), [[json!(1)]], "{kind:?} {table}");
        }
        let rows = case.rows("dates_as_text", "SELECT d, v FROM t ORDER BY v");
        assert_eq!(json!(rows), json!([["2024-02-28", 1], ["0000-00-00", 2], ["2024-02-31", 30]]), "{kind:?}");
    }
}

/// (declaration, what the contract asks for, DuckDB's name of it, values as SQL, what the lake holds)
type Override = (&'static str, &'static str, &'static str, [&'static str; 2], [&'static str; 2]);

#[rustfmt::skip]
const OVERRIDES: [Override; 22] = [
    ("tinyint(1)", "boolean", "BOOLEAN", ["1", "0"], ["true", "false"]),
    ("tinyint(1)", "boolean", "BOOLEAN", ["2", "-1"], ["NULL", "NULL"]),
    ("tinyint", "long", "BIGINT", ["-128", "NULL"], ["-128", "NULL"]),
    ("smallint unsigned", "long", "BIGINT", ["65535", "0"], ["65535", "0"]),
    ("int", "decimal(12,2)", "DECIMAL(12,2)", ["-2147483648", "7"], ["-2147483648.00", "7.00"]),
    ("bigint unsigned", "long", "BIGINT", ["9223372036854775807", "18446744073709551615"], ["9223372036854775807", "NULL"]),
    ("bigint unsigned", "string", "VARCHAR", ["18446744073709551615", "0"], ["18446744073709551615", "0"]),
    ("int(6) zerofill", "string", "VARCHAR", ["42", "1234567"], ["000042", "1234567"]),
    ("float", "double", "DOUBLE", ["0.5", "0.1"], ["0.5", "0.10000000149011612"]),
    ("decimal(12,2)", "decimal(20,4)", "DECIMAL(20,4)", ["-123456.78", "0"], ["-123456.7800", "0.0000"]),
    ("decimal(12,4)", "decimal(6,2)", "DECIMAL(6,2)", ["1234.56", "0.0001"], ["1234.56", "NULL"]),
    ("decimal(18,0)", "long", "BIGINT", ["-99", "999999999999999999"], ["-99", "999999999999999999"]),
    ("decimal(65,30)", "decimal(38,10)", "DECIMAL(38,10)", ["1.5", "99999999999999999999999999999999999"], ["1.5000000000", "NULL"]),
    ("decimal(5,2)", "string", "VARCHAR", ["-0.5", "12"], ["-0.50", "12.00"]),
    ("decimal(7,2) zerofill", "string", "VARCHAR", ["12.5", "0"], ["00012.50", "00000.00"]),
    ("bit(1)", "long", "BIGINT", ["b'1'", "b'0'"], ["1", "0"]),
    ("bit(64)", "long", "BIGINT", ["258", "-1"], ["258", "NULL"]),
    ("date", "string", "VARCHAR", ["'2024-02-29'", "'2024-02-31'"], ["2024-02-29", "2024-02-31"]),
    ("datetime(2)", "string", "VARCHAR", ["'2024-02-29 01:02:03.4'", "0"], ["2024-02-29 01:02:03.40", "0000-00-00 00:00:00.00"]),
    ("timestamp null", "string", "VARCHAR", ["'2024-02-29 01:02:03'", "0"], ["2024-02-28 16:02:03", "0000-00-00 00:00:00"]),
    ("time(3)", "string", "VARCHAR", ["'-838:59:58.5'", "'1:02:03'"], ["-838:59:58.500", "01:02:03.000"]),
    ("year", "string", "VARCHAR", ["'0000'", "2155"], ["0000", "2155"]),
];

/// From a first load, an INSERT and an UPDATE; strings are what the server itself prints.
#[tokio::test(flavor = "multi_thread")]
async fn contracts_choose_other_lake_types() {
    for kind in SERVERS {
        let Some(mut case) = Case::new(kind, "overrides").await else { continue };
        let columns: Vec<String> =
            OVERRIDES.iter().enumerate().map(|(index, (declaration, ..))| format!("c{index} {declaration}")).collect();
        case.run(&format!("CREATE TABLE t (id INT PRIMARY KEY, flag TINYINT(1), {})", columns.join(", "))).await;
        let types: Vec<String> =
            OVERRIDES.iter().enumerate().map(|(index, (_, lake, ..))| format!("c{index} = \"{lake}\"")).collect();
        case.contract("t", &format!("tinyint1 = \"bool\"\n[types]\n{}\n", types.join("\n")));
        let values = |row: usize| OVERRIDES.map(|(_, _, _, values, _)| values[row]).join(", ");
        for row in 0..2 {
            case.run(&format!("INSERT INTO t VALUES ({row}, {row}, {})", values(row))).await;
        }
        case.lakeward.catch_up();
        for row in 0..2 {
            case.run(&format!("INSERT INTO t VALUES ({}, {row}, {})", row + 2, values(row))).await;
            case.run(&format!("INSERT INTO t (id) VALUES ({})", row + 4)).await;
            let sets: Vec<String> = OVERRIDES
                .iter()
                .enumerate()
                .map(|(index, (_, _, _, sql, _))| format!("c{index} = {}", sql[row]))
                .collect();
            case.run(&format!("UPDATE t SET flag = {row}, {} WHERE id = {}", sets.join(", "), row + 4)).await;
        }
        case.lakeward.catch_up();
        let fields: Vec<String> = (0..OVERRIDES.len())
            .flat_map(|index| [format!("typeof(c{index})"), format!("COALESCE(c{index}::VARCHAR, 'NULL')")])
            .collect();
        let rows = case.rows("t", &format!("SELECT flag, {} FROM t ORDER BY id", fields.join(", ")));
        assert_eq!(rows.len(), 6, "{kind:?}");
        for (place, found) in rows.iter().enumerate() {
            assert_eq!(found[0], json!(place % 2 == 1), "{kind:?}");
            for (index, (declaration, asked, lake, sql, expected)) in OVERRIDES.iter().enumerate() {
                let (sql, expected) = (sql[place % 2], expected[place % 2]);
                let found = (&found[1 + 2 * index], &found[2 + 2 * index]);
                assert_eq!(
                    found,
                    (&json!(lake), &json!(expected)),
                    "{kind:?}: {declaration} as {asked}, row {place}: {sql}"
                );
            }
        }
        // What the server prints of the same columns (the session's time zone must be UTC for it).
        case.run("SET time_zone = '+00:00'").await;
        for (index, (declaration, lake, _, _, expected)) in OVERRIDES.iter().enumerate() {
            if *lake == "string" {
                for (row, expected) in expected.iter().enumerate() {
                    let sql = format!("SELECT CONCAT(c{index}) FROM t WHERE id = {row}");
                    let printed = case.session.value(&sql).await;
                    assert_eq!(printed.as_deref(), Some(*expected), "{kind:?}: the server's {declaration}");
                }
            }
        }
        let counted = case.report("t")["values"].clone();
        let expected = json!({
            "c1": {"out_of_range": 6}, "c5": {"out_of_range": 3}, "c10": {"out_of_range": 3},
            "c12": {"out_of_range": 3}, "c16": {"out_of_range": 3}
        });
        assert_eq!(counted, expected, "{kind:?}");

        // Another contract than the one the table was loaded under: it waits, with the remedy, until it is loaded again.
        case.contract("t", "");
        case.lakeward.try_catch_up();
        let report = case.report("t");
        assert_eq!(report["state"], json!("stopped"), "{kind:?}");
        let error = report["error"].as_str().expect("a reason");
        assert!(error.contains("is boolean in the lake, and its contract makes it byte"), "{kind:?}: {error}");
        assert!(error.contains("lakeward resync"), "{kind:?}: {error}");
        std::fs::remove_dir_all(case.scratch.path().join(format!("lake/src/{}/t", case.database.name))).expect("there");
        case.lakeward.catch_up();
        assert_eq!(json!(case.rows("t", "SELECT typeof(c0), count(*) FROM t GROUP BY 1")), json!([["TINYINT", 6]]));
    }
}

/// An override that can't be is told by `check` and `run`, with contract, column, declaration and what is possible.
#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_override_is_told_at_start() {
    for kind in SERVERS {
        let Some(mut case) = Case::new(kind, "impossible").await else { continue };
        case.run("CREATE TABLE t (id INT PRIMARY KEY, price DECIMAL(12,2), day DATE)").await;
        let cases = [
            ("types = { price = \"boolean\" }\n", "`types.price` asks for boolean, but the column is `decimal(12,2)`"),
            ("types = { price = \"money\" }\n", "`money` is not a Delta type"),
            ("types = { nothing = \"long\" }\n", "`nothing` is not a column"),
            ("value_policy = \"string\"\n[types]\nday = \"date\"\n", "wants text"),
        ];
        for (contract, told) in cases {
            case.contract("t", contract);
            for command in [&["check"][..], &["run", "--until-caught-up"]] {
                let output = case.lakeward.command(command).output().expect("lakeward starts");
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success(), "{kind:?} {contract}: {text}");
                let name = case.database.table("t");
                assert!(text.contains(told) && text.contains(&name), "{kind:?} {command:?} {contract}: {text}");
            }
        }
    }
}
