//! G1: kill -9 at random moments under load, first loads in small chunks included. At the end source and lake are equal, no
//! transaction was applied twice, and every Delta version ever visible holds whole transactions, from that on with which
//! its load ended.

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::Scratch;
use support::daemon::Lakeward;
use support::delta_log;
use support::load::{self, AUDIT_ROWS, Load, TABLES, TOTAL};
use support::oracle::{Oracle, Reader};
use support::source::{Database, Kind};

const KILLS: u32 = 50;
/// So that the tables with rows at the start are loaded beside the stream.
const CHUNK_ROWS: u32 = 100;
/// Delta versions looked at one by one.
const VERSIONS_READ: usize = 25;

async fn survives_kills(kind: Kind, seed: u64, memory: &str) {
    let Some(database) = Database::create(kind, "crash").await else { return };
    let (Some(mut oracle), Some(mut reader)) = (Oracle::start(None), Reader::start(None)) else { return };
    let scratch = Scratch::new("crash");
    load::create_tables(&database).await;
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!(
        "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[snapshot]\nchunk_rows = {CHUNK_ROWS}\n{memory}{}",
        database.source_toml()
    );
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
    let audit = delta_log::entries(&folder("audit"));
    assert_written_once(&audit, &mut reader, &folder("audit"));
    let versions = audit.len();
    for version in whole_versions(&audit) {
        let sql =
            format!("SELECT count(*) FROM (SELECT writer, txn FROM t GROUP BY ALL HAVING count(*) <> {AUDIT_ROWS})");
        let torn = reader.rows(&folder("audit").display().to_string(), Some(version), &sql);
        assert_eq!(torn, [[json!(0)]], "version {version} of audit holds part of a transaction");
    }
    let accounts = delta_log::entries(&folder("accounts"));
    assert!(load_of(&accounts[0]).is_some(), "it has more rows than a chunk, and was not loaded beside the stream");
    for version in whole_versions(&accounts) {
        let sum =
            reader.rows(&folder("accounts").display().to_string(), Some(version), "SELECT sum(balance)::BIGINT FROM t");
        assert_eq!(sum, [[json!(TOTAL)]], "version {version} of accounts holds part of a transaction");
    }
    if !memory.is_empty() {
        let segments = segments_below(&scratch.path().join("index"));
        assert!(segments > 0, "no key index came to disk");
    }
    println!("{kind:?}: {KILLS} kills, {transactions} transactions, {versions} versions of audit");
    database.drop().await;
}

/// Segments of key indexes that were kept.
fn segments_below(cache: &Path) -> usize {
    let tables = std::fs::read_dir(cache).expect("a folder for each table");
    let files = tables.flat_map(|table| std::fs::read_dir(table.expect("readable").path()).expect("a folder"));
    files
        .filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|kind| kind == "segment")))
        .count()
}

fn note(actions: &[Value]) -> Option<&Value> {
    actions.iter().find_map(|action| action.pointer("/commitInfo/lakeward"))
}

/// How far the table's load is in this version, while it is not whole.
fn load_of(actions: &[Value]) -> Option<&Value> {
    note(actions)?.get("load")
}

/// `audit` only grows, so a row written twice would show: as a second copy in the files ever added, or as a removal. What a
/// chunk brings that the stream had brought is left out by a deletion vector that comes with the file.
fn assert_written_once(entries: &[Vec<Value>], reader: &mut Reader, table: &Path) {
    let mut written = 0;
    let mut positions = HashSet::new();
    let mut progress = None;
    // A compaction writes nothing that was not there.
    let changes = |actions: &&Vec<Value>| {
        !actions.iter().any(|action| action.pointer("/commitInfo/operation").is_some_and(|name| name == "OPTIMIZE"))
    };
    for actions in entries.iter().filter(changes) {
        for action in actions {
            assert!(action.get("remove").is_none(), "audit only grows, yet a file was replaced: {action}");
            if let Some(add) = action.get("add") {
                let stats: Value = serde_json::from_str(add["stats"].as_str().expect("stats")).expect("JSON");
                written += stats["numRecords"].as_i64().expect("a count");
                written -= add.pointer("/deletionVector/cardinality").map_or(0, |rows| rows.as_i64().expect("a count"));
            }
        }
        let note = note(actions).expect("every version is lakeward's");
        let position = note["position"].as_str().expect("a position").to_owned();
        // A chunk is merged at the position that the table has by then, and there a load ends; a batch has one of its own.
        let load = load_of(actions).map(|load| (load["through"].clone(), load["rows"].clone()));
        let of_load = progress != load || !actions.iter().any(|action| action.get("add").is_some());
        progress = load;
        assert!(positions.insert(position.clone()) || of_load, "two commits say they hold {position}");
    }
    let rows = reader.rows(&table.display().to_string(), None, "SELECT count(*) FROM t");
    assert_eq!(rows, [[json!(written)]], "rows written over all versions, against rows in the table");
}

/// Version numbers spread evenly over the table's life since it is whole, first and last included.
fn whole_versions(entries: &[Vec<Value>]) -> Vec<u64> {
    let loading = entries.iter().take_while(|actions| load_of(actions).is_some()).count();
    let later = &entries[loading..];
    assert!(!later.is_empty() && later.iter().all(|actions| load_of(actions).is_none()), "a load ends once");
    let steps = later.len().min(VERSIONS_READ);
    (0..steps).map(|step| (loading + (later.len() - 1) * step / (steps - 1).max(1)) as u64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_survives_kill_9_at_random_moments() {
    survives_kills(Kind::MariaDb, 1, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_survives_kill_9_at_random_moments() {
    survives_kills(Kind::MySql, 2, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_kill_9_at_random_moments() {
    // With key indexes that hardly fit into memory.
    survives_kills(Kind::Postgres, 3, "[memory]\nindex_budget = \"64KiB\"\nindex_dir = \"index\"\n").await;
}
