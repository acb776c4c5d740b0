//! Tables keep themselves in shape while a daemon runs, on real servers under load: files are compacted, a kill -9 before or
//! after the commit changes nothing, folders are swept, and source and lake are equal all the same.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::Scratch;
use support::daemon::Lakeward;
use support::load::{self, Load, TABLES};
use support::oracle::{Oracle, Readers};
use support::source::{Database, Kind};

/// Everything in a table's folder, its log included.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found
}

/// The log's versions that are compactions.
fn compactions(folder: &Path) -> usize {
    let entries = objects(folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "json"));
    entries.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"OPTIMIZE\""))).count()
}

fn data_files(folder: &Path) -> usize {
    let of_table = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !path.components().any(|part| part.as_os_str() == "_delta_log")
            && (name.ends_with(".parquet") || name.ends_with(".bin"))
    };
    objects(folder).iter().filter(|path| of_table(path)).count()
}

async fn stays_in_shape(kind: Kind, seed: u64) {
    let Some(database) = Database::create(kind, "upkeep").await else { return };
    let (Some(mut oracle), Some(mut readers)) = (Oracle::start(None), Readers::start()) else { return };
    let scratch = Scratch::new("upkeep");
    load::create_tables(&database).await;
    fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!(
        "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n\
         [maintenance]\ntarget_file_size = \"1MiB\"\nretention = \"1h\"\nvacuum_every = \"1m\"\n{}",
        database.source_toml()
    );
    let mut lakeward = Lakeward::new(scratch.path(), &config);
    let lake = scratch.path().join("lake/src");
    let folder = |table: &str| lake.join(database.table(table).replace('.', "/"));
    let tables = TABLES.map(|table| database.table(table));
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let writers = Load::start(&database, 3, Duration::from_millis(30), seed).await;

    // Killed with the new files written, and with the commit made and nothing else.
    for step in ["compact.written", "compact.committed"] {
        let mut daemon = lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
        daemon.wait_for_log(&format!("waiting at {step}"));
        daemon.kill();
    }
    let mut daemon = lakeward.start();
    for _ in 0..600 {
        if TABLES.iter().all(|table| compactions(&folder(table)) > 1) {
            break;
        }
        assert!(daemon.is_running(), "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for table in TABLES {
        assert!(compactions(&folder(table)) > 1, "{table} is never compacted:\n{}", daemon.log());
    }
    // Somebody asks beside it.
    let compact = |arguments: &[&str]| {
        let output = lakeward.command(&[&["compact"], arguments].concat()).output().expect("lakeward starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let (code, _, told) = compact(&[names[0]]);
    assert_eq!(code, Some(9), "{}", String::from_utf8_lossy(&told));
    assert!(String::from_utf8_lossy(&told).contains("compacts its tables by itself"));
    let (code, text, _) = compact(&[names[0], "--dry-run", "--json"]);
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, plan[0]["table"].as_str()), (Some(0), Some(names[0])), "{plan}");
    writers.stop().await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake.display().to_string(), &names);

    // Nobody runs the source now.
    let output = lakeward.command(&["compact", names[0], names[1], "--json"]).output().expect("lakeward starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    oracle.assert_equal(&database.oracle_url(), &lake.display().to_string(), &names);

    // Two days go by, and the daemon sweeps.
    let before: Vec<usize> = TABLES.iter().map(|table| data_files(&folder(table))).collect();
    let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for path in TABLES.iter().flat_map(|table| objects(&folder(table))) {
        File::options().write(true).open(path).expect("ours").set_modified(old).expect("a time");
    }
    let told = lakeward.command(&["vacuum", names[1], "--dry-run", "--json"]).output().expect("lakeward starts");
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert!(told[0]["objects"].as_u64().is_some_and(|count| count > 5), "{told}");
    assert_eq!(data_files(&folder(TABLES[1])), before[1], "only told");
    let mut daemon = lakeward.start();
    let started = std::time::Instant::now();
    while daemon.log().matches("swept what nothing needs").count() < TABLES.len() {
        assert!(daemon.is_running() && started.elapsed() < Duration::from_secs(150), "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (table, before) in TABLES.iter().zip(before) {
        let after = data_files(&folder(table));
        assert!(after < before, "{table}: {before} objects, and {after} after a sweep\n{}", daemon.log());
    }
    let mut session = database.session().await;
    session.run("UPDATE accounts SET balance = balance + 1; DELETE FROM bookings WHERE id < 500000").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake.display().to_string(), &names);
    lakeward.assert_verified();
    for table in TABLES {
        readers.assert_agree(&folder(table).display().to_string());
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_tables_keep_themselves_in_shape() {
    stays_in_shape(Kind::MariaDb, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_tables_keep_themselves_in_shape() {
    stays_in_shape(Kind::MySql, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tables_keep_themselves_in_shape() {
    stays_in_shape(Kind::Postgres, 3).await;
}
