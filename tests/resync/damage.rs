//! Tables whose rows in the lake are not those of the source any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::delta_log;
use crate::support::source::Kind;
use crate::{Case, assert_code, on_each, text};

/// Live files of a table, as its log adds them.
fn live_files(table: &Path) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for action in delta_log::entries(table).into_iter().flatten() {
        if let Some(remove) = action.get("remove") {
            files.remove(remove["path"].as_str().expect("a path"));
        }
        if let Some(add) = action.get("add") {
            files.insert(add["path"].as_str().expect("a path").to_owned(), add.clone());
        }
    }
    files
}

/// Another engine's commit.
fn commit(table: &Path, actions: &[Value]) {
    let next = delta_log::entries(table).len() as u64;
    let info = json!({"commitInfo": {"operation": "WRITE", "timestamp": 1_700_000_000_000_i64}});
    let lines: Vec<String> = [&[info], actions].concat().iter().map(Value::to_string).collect();
    fs::write(delta_log::entry_path(table, next), lines.join("\n") + "\n").expect("writable");
}

fn remove(add: &Value) -> Value {
    let mut remove = json!({
        "path": add["path"], "dataChange": true, "deletionTimestamp": 1_700_000_000_000_i64,
        "extendedFileMetadata": true, "partitionValues": {}, "size": add["size"],
    });
    if let Some(vector) = add.get("deletionVector").filter(|vector| !vector.is_null()) {
        remove["deletionVector"] = vector.clone();
    }
    json!({ "remove": remove })
}

async fn a_damaged_table_is_mended(kind: Kind) {
    let Some(mut case) = Case::loaded(kind, "damage", "chunk_rows = 100").await else { return };
    let mut session = case.database.session().await;
    case.lakeward.catch_up();
    let folder = case.folder("goods");
    let loaded = live_files(&folder);
    // Rows that are changed, and rows of a file of their own.
    session.run("UPDATE goods SET name = 'later' WHERE id < 100; INSERT INTO goods VALUES (70000, 'n', 1, 'n')").await;
    case.lakeward.catch_up();
    case.assert_equal(&["goods"]);
    let now = live_files(&folder);

    // Rows that are missing.
    let newest = now.iter().find(|(path, _)| !loaded.contains_key(*path)).expect("the changed rows").1;
    commit(&folder, &[remove(newest)]);
    // Stale ones: the file as it was before the change.
    let (path, stale) = loaded.iter().next().expect("the first load");
    commit(&folder, &[remove(&now[path]), json!({ "add": stale })]);
    assert!(
        case.oracle
            .differences(
                &case.database.oracle_url(),
                &case.lake().display().to_string(),
                &[&case.database.table("goods")]
            )
            .is_some(),
        "the damage does not show"
    );
    case.lakeward.catch_up();
    let done = case.resync("goods", &[]);
    assert_code(&done, 0);
    assert!(text(&done).contains("nobody runs source `src`"), "{}", text(&done));
    case.assert_equal(&["goods", "other"]);

    // Rows that are there twice: the table stops, and says what to type.
    let (path, add) = live_files(&folder).into_iter().next().expect("a file");
    let copy = folder.join("copied.parquet");
    fs::copy(folder.join(&path), &copy).expect("its file");
    let mut twice = add.clone();
    twice["path"] = json!("copied.parquet");
    commit(&folder, &[json!({ "add": twice })]);
    let (status, log) = case.lakeward.try_catch_up();
    assert_eq!(status.code(), Some(13), "{log}");
    let command = format!("`lakeward resync src/{}`", case.database.table("goods"));
    let report = case.report("goods");
    assert!(report["error"].as_str().is_some_and(|error| error.contains(&command)), "{report}");
    // Of what happens to a table that is stopped, nothing comes by the log.
    session.run("DELETE FROM goods WHERE id BETWEEN 200 AND 300; UPDATE goods SET price = 3 WHERE id > 1400").await;
    case.lakeward.try_catch_up();
    assert_code(&case.resync("goods", &["--json"]), 0);
    assert_eq!(case.state("goods"), "streaming");
    case.assert_equal(&["goods", "other"]);
    session.run("UPDATE goods SET price = 4 WHERE id > 1300").await;
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);
    case.database.drop().await;
}
on_each!(a_damaged_table_is_mended);

async fn a_table_without_a_key_is_loaded_again_in_one_piece(kind: Kind) {
    let Some(mut case) = Case::new(kind, "bag", "").await else { return };
    let mut session = case.database.session().await;
    session
        .run("CREATE TABLE visits (guest INT, room VARCHAR(20)); INSERT INTO visits VALUES (1, 'a'), (1, 'a'), (2, NULL)")
        .await;
    if kind == Kind::Postgres {
        session.run("ALTER TABLE visits REPLICA IDENTITY FULL").await;
    }
    case.lakeward.catch_up();
    let (_, add) = live_files(&case.folder("visits")).into_iter().next().expect("its rows");
    commit(&case.folder("visits"), &[remove(&add)]);
    assert_code(&case.resync("visits", &[]), 0);
    case.assert_equal(&["visits", "goods"]);
    session.run("INSERT INTO visits VALUES (1, 'a'); DELETE FROM visits WHERE guest = 2").await;
    case.lakeward.catch_up();
    case.assert_equal(&["visits"]);
    case.database.drop().await;
}
on_each!(a_table_without_a_key_is_loaded_again_in_one_piece);

/// The log after the lake's position is gone, and with it the changes of that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_got_over_by_a_resync_of_all_tables() {
    let Some(mut case) = Case::loaded(Kind::Postgres, "slotless", "chunk_rows = 100").await else { return };
    case.lakeward.catch_up();
    let mut admin = case.database.admin().await;
    let drop_slot = format!("SELECT pg_drop_replication_slot('{}')", case.database.name);
    admin.run(&drop_slot).await;
    let mut session = case.database.session().await;
    session.run("DELETE FROM goods WHERE id BETWEEN 10 AND 90; UPDATE other SET v = 5").await;
    assert_code(&case.command(&["run", "--until-caught-up"]), 10);
    // One of them alone would leave the other with a gap.
    assert_code(&case.resync("goods", &[]), 10);
    let done = case.command(&["resync", "--all", "--source", "src"]);
    assert_code(&done, 0);
    case.assert_equal(&["goods", "other"]);
    session.run("UPDATE goods SET price = 1 WHERE id < 500; INSERT INTO other VALUES (7, 7)").await;
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);
    case.database.drop().await;
}
