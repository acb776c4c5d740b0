//! G1: kill -9 at random moments under load. At the end source and lake are equal, no transaction was applied twice, and
//! every Delta version ever visible holds whole transactions.

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::Scratch;
use support::daemon::Lakeward;
use support::load::{self, AUDIT_ROWS, Load, TABLES, TOTAL};
use support::oracle::{Oracle, Reader};
use support::source::{Database, Kind};

const KILLS: u32 = 50;
/// Delta versions looked at one by one.
const VERSIONS_READ: usize = 25;

async fn survives_kills(kind: Kind, seed: u64) {
    let Some(database) = Database::create(kind, "crash").await else { return };
    let (Some(mut oracle), Some(mut reader)) = (Oracle::start(None), Reader::start(None)) else { return };
    let scratch = Scratch::new("crash");
    load::create_tables(&database).await;
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{}", database.source_toml());
    let mut lakeward = Lakeward::new(scratch.path(), &config);
    let mut random = StdRng::seed_from_u64(seed);
    let writers = Load::start(&database, 3, Duration::from_millis(15), seed).await;

    for _ in 0..KILLS {
        let daemon = lakeward.start();
        // From before the lease is taken to after a few commits.
        tokio::time::sleep(Duration::from_millis(random.random_range(50..2600))).await;
        daemon.kill();
    }
    let transactions = writers.committed();
    writers.stop().await;
    assert!(transactions > 500, "only {transactions} transactions: the load is too light to prove anything");
    lakeward.catch_up();

    let lake = scratch.path().join("lake/src");
    let tables = TABLES.map(|table| database.table(table));
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    oracle.assert_equal(&database.oracle_url(), &lake.display().to_string(), &names);

    let folder = |table: &str| lake.join(database.table(table).replace('.', "/"));
    let audit = log_entries(&folder("audit"));
    assert_written_once(&audit, &mut reader, &folder("audit"));
    let versions = audit.len();
    for version in spread(audit.len()) {
        let sql =
            format!("SELECT count(*) FROM (SELECT writer, txn FROM t GROUP BY ALL HAVING count(*) <> {AUDIT_ROWS})");
        let torn = reader.rows(&folder("audit").display().to_string(), Some(version), &sql);
        assert_eq!(torn, [[json!(0)]], "version {version} of audit holds part of a transaction");
    }
    for version in spread(log_entries(&folder("accounts")).len()) {
        let sum =
            reader.rows(&folder("accounts").display().to_string(), Some(version), "SELECT sum(balance)::BIGINT FROM t");
        assert_eq!(sum, [[json!(TOTAL)]], "version {version} of accounts holds part of a transaction");
    }
    println!("{kind:?}: {KILLS} kills, {transactions} transactions, {versions} versions of audit");
    database.drop().await;
}

/// The actions of each version of a table.
fn log_entries(table: &Path) -> Vec<Vec<Value>> {
    let mut entries = Vec::new();
    while let Ok(text) = std::fs::read_to_string(table.join(format!("_delta_log/{:020}.json", entries.len()))) {
        entries.push(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect());
    }
    entries
}

/// `audit` only grows, so a row written twice would show: as a second copy in the files ever added, or as a removal.
fn assert_written_once(entries: &[Vec<Value>], reader: &mut Reader, table: &Path) {
    let mut written = 0;
    let mut positions = HashSet::new();
    for action in entries.iter().flatten() {
        assert!(action.get("remove").is_none(), "audit only grows, yet a file was replaced: {action}");
        if let Some(add) = action.get("add") {
            let stats: Value = serde_json::from_str(add["stats"].as_str().expect("stats")).expect("JSON");
            written += stats["numRecords"].as_i64().expect("a count");
        }
        if let Some(info) = action.get("commitInfo") {
            let position = info["lakeward"]["position"].as_str().expect("a position").to_owned();
            assert!(positions.insert(position.clone()), "two commits say they hold {position}");
        }
    }
    let rows = reader.rows(&table.display().to_string(), None, "SELECT count(*) FROM t");
    assert_eq!(rows, [[json!(written)]], "rows written over all versions, against rows in the table");
}

/// Version numbers spread evenly over the table's life, first and last included.
fn spread(count: usize) -> impl Iterator<Item = u64> {
    let steps = count.min(VERSIONS_READ);
    (0..steps).map(move |step| ((count - 1) * step / steps.saturating_sub(1).max(1)) as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_survives_kill_9_at_random_moments() {
    survives_kills(Kind::MariaDb, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_survives_kill_9_at_random_moments() {
    survives_kills(Kind::MySql, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_kill_9_at_random_moments() {
    survives_kills(Kind::Postgres, 3).await;
}
