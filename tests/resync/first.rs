//! First loads in chunks beside the stream: under load and kill -9, in the open and out of sight.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::delta_log;
use crate::support::oracle::Reader;
use crate::support::source::Kind;
use crate::writers::Writers;
use crate::{Case, PATIENCE, QUIET, assert_code, on_each, text};

/// `[snapshot]`, how many chunks there must be at least, and how often it is looked. LAKEWARD_ROW_CHUNKS, which `make soak` sets,
/// makes each row a chunk: on a busy machine that takes long, for each has connections of its own.
fn chunks() -> (&'static str, usize, Duration) {
    if std::env::var("LAKEWARD_ROW_CHUNKS").is_ok() {
        ("chunk_rows = 1", 1000, Duration::from_secs(3))
    } else {
        ("chunk_rows = 20\nrows_per_second_max = 80", 50, Duration::from_millis(700))
    }
}

/// How long a load of so many chunks may take on a busy machine.
const MANY_CHUNKS_MAX: Duration = Duration::from_secs(1800);

/// lakeward's notes in a table's log, by version.
fn notes(table: &Path) -> Vec<Value> {
    delta_log::entries(table).iter().map(|actions| delta_log::commit_info(actions)["lakeward"].clone()).collect()
}

/// How many events of this kind about a table are in the outbox.
fn told(case: &Case, kind: &str, table: &str) -> usize {
    let folder = case.scratch.path().join("lake/_lakeward/src/notice");
    let table = case.database.table(table);
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let is_meant = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        event["kind"] == kind && event["table"] == table.as_str()
    };
    entries.iter().filter(|entry| is_meant(&entry.path())).count()
}

/// The rows of `goods` that nobody changes, and whether any key is there twice.
fn quiet(case: &Case, reader: &mut Reader) -> i64 {
    let folder = case.folder("goods").display().to_string();
    let sql = "SELECT count(*) FILTER (id < 0), count(*) - count(DISTINCT id) FROM t";
    let rows = reader.rows(&folder, None, sql);
    assert_eq!(rows[0][1], json!(0), "a key is there twice");
    rows[0][0].as_i64().expect("a count")
}

/// Six writers change rows at the edges of chunks; the table grows before the eyes of a reader, and a
/// kill -9 in the middle costs no chunk that was merged.
async fn a_first_load_goes_on_beside_everything_else(kind: Kind) {
    let (snapshot, chunks_min, look_every) = chunks();
    let Some(mut case) = Case::new(kind, "first", snapshot).await else { return };
    let Some(mut reader) = Reader::start(None) else { return };
    let mut session = case.database.session().await;
    session.run("DELETE FROM goods WHERE id >= 900").await;
    let writers = Writers::start(&case.database, 6, Duration::from_millis(250), 3).await;
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.wait_for_state("other", "streaming", &daemon);

    let (mut seen, mut versions, mut id, mut killed) = (vec![0], BTreeSet::new(), 10, false);
    let begun = Instant::now();
    while case.state("goods") != "streaming" {
        assert!(begun.elapsed() < MANY_CHUNKS_MAX, "the load does not end:\n{}", daemon.log());
        let report = case.report("goods");
        // It may have become whole just now.
        let tells = report["state"] == "streaming" || report["lag_seconds"].is_null();
        assert!(tells, "nobody can say how fresh it is: {report}");
        seen.push(quiet(&case, &mut reader));
        assert!(seen.is_sorted(), "rows that nobody deletes went away: {seen:?}");
        session.run(&format!("INSERT INTO other VALUES ({id}, 1)")).await;
        id += 1;
        let version = case.report("other")["version"].as_u64().expect("a version");
        // What was read beside the end of the load proves nothing.
        if case.state("goods") != "streaming" {
            versions.insert(version);
        }
        if !killed && *seen.last().expect("one at least") > QUIET / 2 {
            let status = text(&case.command(&["snapshot", "--status"]));
            assert!(status.contains(&case.database.table("goods")) && status.contains("loading"), "{status}");
            daemon.kill();
            daemon = case.lakeward.start();
            daemon.wait_for_log("first load goes on");
            killed = true;
        }
        tokio::time::sleep(look_every).await;
    }
    let transactions = writers.stop().await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);

    let notes = notes(&case.folder("goods"));
    assert!(notes[0]["load"].is_object(), "version 0 says that a load begins: {}", notes[0]);
    let through: Vec<&Value> = notes.iter().filter_map(|note| note.pointer("/load/through")).collect();
    let mut chunks: Vec<&Value> = through.clone();
    chunks.dedup();
    let steps = chunks.len();
    chunks.sort_by_key(|bound| bound.to_string());
    chunks.dedup();
    let again = notes.iter().any(|note| note.pointer("/load/again") == Some(&json!(true)));
    assert!(chunks.len() >= chunks_min, "only {} chunks", chunks.len());
    // PostgreSQL's updates that leave large values out may ask for a second pass.
    assert!(steps == chunks.len() || again, "{steps} steps for {} chunks: some were merged twice", chunks.len());
    assert!(killed && seen.len() > 4 && transactions > 100, "{seen:?}, {transactions} transactions prove nothing");
    assert_eq!(told(&case, "table.added", "goods"), 0, "the first tables of a source are no news");
    assert!(versions.len() > 3, "the other table waited for the load: {versions:?}");
    println!(
        "{kind:?}: {steps} chunks, {transactions} transactions, rows seen {seen:?}, {} versions of the other table",
        versions.len()
    );
    case.database.drop().await;
}
on_each!(a_first_load_goes_on_beside_everything_else);

fn wait_at(case: &mut Case, step: &str) -> Daemon {
    let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
    daemon.wait_for_log(&format!("waiting at {step}"));
    daemon
}

/// One load, killed at every step of its way.
async fn killed_at_each_step(kind: Kind, during_snapshot: &str, steps: &[&str]) {
    let snapshot = format!("chunk_rows = 200\nduring_snapshot = \"{during_snapshot}\"");
    let Some(mut case) = Case::new(kind, "steps", &snapshot).await else { return };
    let mut session = case.database.session().await;
    let log = case.folder("goods").join("_delta_log");
    for (number, step) in steps.iter().enumerate() {
        let daemon = wait_at(&mut case, step);
        session
            .run(&format!(
                "UPDATE goods SET price = {number} WHERE id < 200; DELETE FROM goods WHERE id = 50{number};
                 UPDATE goods SET id = 90000{number} WHERE id = 60{number}; INSERT INTO other VALUES (10{number}, 1)"
            ))
            .await;
        daemon.kill();
        let is_there = during_snapshot == "partial" || *step == "swap.committed";
        assert_eq!(log.exists(), is_there, "{step}");
        // Only what is hidden and whole is gone on with otherwise.
        assert_eq!(case.state("goods"), "loading", "{step}");
    }
    let asked = case.resync("goods", &["--no-wait"]);
    assert_code(&asked, 2);
    assert!(text(&asked).contains("is being loaded for the first time"), "{}", text(&asked));
    let cancelled = case.resync("goods", &["--cancel", "--no-wait"]);
    assert_code(&cancelled, 2);
    case.lakeward.catch_up();
    assert_eq!(case.state("goods"), "streaming");
    case.assert_equal(&["goods", "other"]);
    let first = &notes(&case.folder("goods"))[0];
    assert_eq!(first["load"].is_object(), during_snapshot == "partial", "{first}");
    assert_eq!(first["loaded"].is_string(), during_snapshot == "hidden", "{first}");
    let builds = fs::read_dir(case.folder("goods")).expect("its folder");
    let logs = builds.flatten().filter(|entry| entry.path().join("_delta_log").exists()).count();
    assert_eq!(logs, 0, "the log of a build is left behind");
    case.database.drop().await;
}

async fn killed_at_any_step_a_table_in_the_open_ends_equal(kind: Kind) {
    killed_at_each_step(kind, "partial", &["load.begun", "chunk.staged", "chunk.merged"]).await;
}
on_each!(killed_at_any_step_a_table_in_the_open_ends_equal);

async fn killed_at_any_step_a_hidden_table_appears_whole(kind: Kind) {
    let steps = ["load.begun", "chunk.staged", "chunk.merged", "load.finished", "swap.staged", "swap.committed"];
    killed_at_each_step(kind, "hidden", &steps).await;
}
on_each!(killed_at_any_step_a_hidden_table_appears_whole);

/// `lakeward resync --all` is the remedy where the log is lost: first loads that are under way begin once more with it.
async fn all_begins_first_loads_once_more(kind: Kind) {
    for during_snapshot in ["partial", "hidden"] {
        let snapshot = format!("chunk_rows = 200\nduring_snapshot = \"{during_snapshot}\"");
        let Some(mut case) = Case::new(kind, "all", &snapshot).await else { return };
        wait_at(&mut case, "chunk.merged").kill();
        assert_eq!(case.state("goods"), "loading");
        let mut session = case.database.session().await;
        session.run("DELETE FROM goods WHERE id < -100; UPDATE goods SET name = 'later' WHERE id < 0").await;
        assert_code(&case.command(&["resync", "--all", "--source", "src", "--no-wait"]), 0);
        case.lakeward.catch_up();
        assert_eq!(case.state("goods"), "streaming");
        case.assert_equal(&["goods", "other"]);
        case.database.drop().await;
    }
}
on_each!(all_begins_first_loads_once_more);

/// A table that turns up is loaded like those that were there, and told of once, when it is whole; so is a hidden one, and one
/// that was removed from the lake comes again.
async fn a_table_that_turns_up_is_loaded_beside_the_others(kind: Kind) {
    let Some(mut case) = Case::new(kind, "added", "chunk_rows = 20").await else { return };
    fs::create_dir_all(case.scratch.path().join("schemas")).expect("writable");
    let contract = format!("table = \"{}\"\nduring_snapshot = \"hidden\"\n", case.database.table("late_hidden"));
    fs::write(case.scratch.path().join("schemas/late_hidden.toml"), contract).expect("writable");
    case.lakeward.catch_up();
    fs::remove_dir_all(case.folder("other")).expect("it is there");
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let writers = Writers::start(&case.database, 2, Duration::from_millis(50), 5).await;
    let mut session = case.database.session().await;
    for table in ["late", "late_hidden"] {
        let rows: Vec<String> = (0..500).map(|id| format!("({id}, 'row {id}')")).collect();
        session
            .run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, v VARCHAR(40)); INSERT INTO {table} VALUES {}",
                rows.join(",")
            ))
            .await;
    }
    let begun = Instant::now();
    let is_listed = |case: &Case, table: &str| case.lakeward.tables().to_string().contains(&case.database.table(table));
    while !is_listed(&case, "late") || !is_listed(&case, "late_hidden") {
        assert!(begun.elapsed() < PATIENCE, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(300));
    }
    case.wait_for_state("late", "streaming", &daemon);
    case.wait_for_state("late_hidden", "streaming", &daemon);
    session.run("UPDATE late SET v = 'new' WHERE id < 30; DELETE FROM late_hidden WHERE id > 470").await;
    writers.stop().await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other", "late", "late_hidden"]);
    for table in ["late", "late_hidden"] {
        assert_eq!(told(&case, "table.added", table), 1, "{table}");
    }
    assert_eq!(told(&case, "table.added", "goods"), 0);
    assert!(notes(&case.folder("late")).iter().filter_map(|note| note.pointer("/load/through")).count() > 20);
    assert!(notes(&case.folder("late_hidden")).iter().all(|note| note["load"].is_null()));
    case.database.drop().await;
}
on_each!(a_table_that_turns_up_is_loaded_beside_the_others);
