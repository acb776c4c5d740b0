//! M-13 in full: every character set of each server, over its whole code space, as the server itself converts it.

use serde_json::json;

use super::run;
use crate::support::Scratch;
use crate::support::daemon::Lakeward;
use crate::support::oracle::Oracle;
use crate::support::source::{Database, Kind, Session};

/// How the bytes of a sequence are made of a number `n` from 0 to 65535, in SQL.
fn code_space(charset: &str, bytes_max: u64) -> Vec<&'static str> {
    let one = "IF(n < 256, CHAR(n), NULL)";
    let two = "UNHEX(LPAD(HEX(n), 4, '0'))";
    match charset {
        "ucs2" => vec!["IF(n BETWEEN 55296 AND 57343, NULL, UNHEX(LPAD(HEX(n), 4, '0')))"],
        // Every 128th character above the basic plane.
        "utf16" => vec![
            "IF(n BETWEEN 55296 AND 57343, NULL, UNHEX(LPAD(HEX(n), 4, '0')))",
            "IF(n % 8, NULL, UNHEX(CONCAT(HEX(0xD800 + n DIV 64), HEX(0xDC00 + n % 64 * 16))))",
        ],
        "utf16le" => vec![
            "IF(n BETWEEN 55296 AND 57343, NULL, CHAR(n % 256, n DIV 256))",
            "IF(n % 8, NULL, CHAR(n DIV 64 % 256, 0xD8 + n DIV 16384, n % 64 * 16 % 256, 0xDC + n % 64 DIV 16))",
        ],
        "utf32" => vec![
            "IF(n BETWEEN 55296 AND 57343, NULL, UNHEX(LPAD(HEX(n), 8, '0')))",
            "IF(n % 8, NULL, UNHEX(LPAD(HEX(0x10000 + n * 16), 8, '0')))",
        ],
        "utf8mb3" | "utf8mb4" => vec![one, two, "UNHEX(CONCAT('E4', LPAD(HEX(n), 4, '0')))"],
        "ujis" | "eucjpms" => vec![one, two, "UNHEX(CONCAT('8F', LPAD(HEX(n), 4, '0')))"],
        "gb18030" => vec![
            one,
            two,
            "CHAR(0x81 + n DIV 12600, 0x30 + n DIV 1260 % 10, 0x81 + n DIV 10 % 126, 0x30 + n % 10)",
            "IF(n % 8, NULL, CHAR(0x90 + n * 16 DIV 12600, 0x30 + n * 16 DIV 1260 % 10, 0x81 + n * 16 DIV 10 % 126, 0x30 + n * 16 % 10))",
        ],
        _ if bytes_max == 1 => vec![one],
        _ => vec![one, two],
    }
}

async fn all(session: &mut Session, sql: &str) -> Vec<(String, u64)> {
    use mysql_async::prelude::Queryable;
    let Session::MySql(conn) = session else { panic!("a session of MySQL or MariaDB") };
    conn.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What the server takes as one character and can convert must be the same character in the lake, from the first load
/// and from the log.
async fn character_sets_are_the_servers_own(kind: Kind) {
    let Some(database) = Database::create(kind, "charsets").await else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    let scratch = Scratch::new("charsets");
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!("[lake]\nurl = \"lake\"\n{}", database.source_toml());
    let mut lakeward = Lakeward::new(scratch.path(), &config);
    let mut session = database.session().await;
    run(&mut session, "SET sql_mode = ''").await;
    run(&mut session, "CREATE TABLE digits (d INT PRIMARY KEY)").await;
    run(
        &mut session,
        "INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9),(10),(11),(12),(13),(14),(15)",
    )
    .await;
    run(
        &mut session,
        "CREATE TABLE numbers (n INT PRIMARY KEY) SELECT a.d * 4096 + b.d * 256 + c.d * 16 + e.d AS n
         FROM digits a, digits b, digits c, digits e",
    )
    .await;
    let sets = "SELECT character_set_name, maxlen FROM information_schema.character_sets
                WHERE character_set_name NOT IN ('binary', 'filename') ORDER BY 1";
    let sets = all(&mut session, sets).await;
    assert!(sets.len() >= 39, "{sets:?}");
    let mut tables = Vec::new();
    for (charset, bytes_max) in &sets {
        let table = format!("t_{charset}");
        run(
            &mut session,
            &format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, raw VARBINARY(4), v VARCHAR(4) CHARACTER SET {charset})"
            ),
        )
        .await;
        for (place, bytes) in code_space(charset, *bytes_max).into_iter().enumerate() {
            let insert = format!(
                "INSERT IGNORE INTO {table} SELECT n + {place} * 65536, b, b FROM
                 (SELECT n, {bytes} AS b FROM numbers) AS space WHERE b IS NOT NULL"
            );
            run(&mut session, &insert).await;
        }
        // Left are the bytes that the server took as they are, as one character that it knows.
        run(
            &mut session,
            &format!(
                "DELETE FROM {table} WHERE v IS NULL OR HEX(v) <> HEX(raw) OR CHAR_LENGTH(v) <> 1
                 OR (HEX(CONVERT(v USING utf8mb4)) = '3F' AND id NOT IN (63, 16128))"
            ),
        )
        .await;
        let count = session.value(&format!("SELECT COUNT(*) FROM {table}")).await.expect("a number");
        let at_least = match charset.as_str() {
            "swe7" | "ascii" => 127,
            _ if *bytes_max == 1 => 180,
            _ => 6000,
        };
        assert!(count.parse::<u64>().is_ok_and(|count| count >= at_least), "{charset}: only {count} characters");
        tables.push(database.table(&table));
    }
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let lake = format!("{}/lake/src", scratch.path().display());
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &names);
    for (charset, _) in &sets {
        run(
            &mut session,
            &format!("INSERT INTO t_{charset} SELECT id + 1000000, raw, v FROM t_{charset} WHERE id % 16 = 0"),
        )
        .await;
    }
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &names);
    lakeward.assert_verified();
    // U+FFFD in the lake is counted: the server's own tables have it for bytes that stand for nothing.
    let reports = lakeward.tables();
    for (charset, _) in &sets {
        let name = json!(database.table(&format!("t_{charset}")));
        let report = reports.as_array().and_then(|tables| tables.iter().find(|report| report["table"] == name));
        let counted = report.and_then(|report| report["values"]["v"]["broken_text"].as_u64()).unwrap_or(0);
        let replaced = format!("SELECT COUNT(*) FROM t_{charset} WHERE HEX(CONVERT(v USING utf8mb4)) = 'EFBFBD'");
        let replaced = session.value(&replaced).await.and_then(|count| count.parse::<u64>().ok());
        let is_unicode = charset.starts_with("utf") || charset == "ucs2";
        assert_eq!(Some(counted), replaced.filter(|_| !is_unicode).or(Some(0)), "{charset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn character_sets_of_mariadb_are_the_servers_own() {
    character_sets_are_the_servers_own(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn character_sets_of_mysql_are_the_servers_own() {
    character_sets_are_the_servers_own(Kind::MySql).await;
}
