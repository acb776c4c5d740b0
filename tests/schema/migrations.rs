//! Online migrations as gh-ost and pt-online-schema-change do them: a copy of the table under another name takes its place by
//! one atomic rename.

use std::time::Duration;

use crate::support::source::Kind;
use crate::{Case, FOLLOW};

const CREATE: &str = "CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(20), nights SMALLINT, gone INT)";

async fn start(kind: Kind, test: &str) -> Option<Case> {
    // The tools' own tables are nobody's business.
    let mut case = Case::start(kind, test, FOLLOW).await?;
    case.session.run(CREATE).await;
    let rows: Vec<String> = (0..300).map(|id| format!("({id}, 'guest {id}', {}, 1)", id % 9)).collect();
    case.session.run(&format!("INSERT INTO bookings VALUES {}", rows.join(","))).await;
    Some(case)
}

const ALTER: &str = "ADD status VARCHAR(10) NOT NULL DEFAULT 'open', MODIFY nights INT, DROP gone";

/// What changes while the copy is made.
const WRITES: [&str; 3] = [
    "INSERT INTO bookings (id, guest, nights) VALUES (1000, 'late', 3)",
    "UPDATE bookings SET nights = 8 WHERE id BETWEEN 10 AND 20",
    "DELETE FROM bookings WHERE id = 30",
];

async fn finish(mut case: Case) {
    case.session.run("INSERT INTO bookings (id, guest, nights, status) VALUES (2000, 'after', 100000, 'paid')").await;
    case.session.run("UPDATE bookings SET status = 'paid' WHERE id = 5").await;
    case.lakeward.catch_up();
    case.assert_equal(&["bookings"]);
    case.session.run("DELETE FROM bookings WHERE id = 6").await;
    case.lakeward.catch_up();
    case.assert_equal(&["bookings"]);
}

/// Reads the log itself and repeats each change on the ghost table (here the test does); the tables change places by one RENAME.
async fn gh_ost(kind: Kind) {
    let Some(mut case) = start(kind, "ghost").await else { return };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session
        .run(&format!(
            "CREATE TABLE _bookings_gho LIKE bookings; ALTER TABLE _bookings_gho {ALTER};
             CREATE TABLE _bookings_ghc (id INT PRIMARY KEY, hint VARCHAR(64)); INSERT INTO _bookings_ghc VALUES (1, 'state')"
        ))
        .await;
    let copy = "INSERT IGNORE INTO _bookings_gho (id, guest, nights) SELECT id, guest, nights FROM bookings WHERE id";
    case.session.run(&format!("{copy} < 150")).await;
    for write in WRITES {
        case.session.run(write).await;
        case.session.run(&write.replace("bookings", "_bookings_gho").replace("INSERT INTO", "REPLACE INTO")).await;
    }
    case.session.run(&format!("{copy} >= 150")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    case.session
        .run(
            "CREATE TABLE _bookings_del (id INT PRIMARY KEY); DROP TABLE _bookings_del;
             RENAME TABLE bookings TO _bookings_del, _bookings_gho TO bookings;
             DROP TABLE _bookings_del; DROP TABLE _bookings_ghc",
        )
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    finish(case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_like_gh_ost_s_ends_equal_mariadb() {
    gh_ost(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_like_gh_ost_s_ends_equal_mysql() {
    gh_ost(Kind::MySql).await;
}

/// Triggers repeat each change on the new table.
async fn pt_osc(kind: Kind) {
    let Some(mut case) = start(kind, "ptosc").await else { return };
    case.lakeward.catch_up();
    case.session.run(&format!("CREATE TABLE _bookings_new LIKE bookings; ALTER TABLE _bookings_new {ALTER}")).await;
    let row = "REPLACE INTO _bookings_new (id, guest, nights) VALUES (NEW.id, NEW.guest, NEW.nights)";
    case.session
        .run(&format!(
            "CREATE TRIGGER pt_del AFTER DELETE ON bookings FOR EACH ROW DELETE IGNORE FROM _bookings_new WHERE id <=> OLD.id;
             CREATE TRIGGER pt_upd AFTER UPDATE ON bookings FOR EACH ROW {row};
             CREATE TRIGGER pt_ins AFTER INSERT ON bookings FOR EACH ROW {row}"
        ))
        .await;
    case.session
        .run("INSERT LOW_PRIORITY IGNORE INTO _bookings_new (id, guest, nights) SELECT id, guest, nights FROM bookings WHERE id < 150")
        .await;
    for write in WRITES {
        case.session.run(write).await;
    }
    case.session
        .run("INSERT LOW_PRIORITY IGNORE INTO _bookings_new (id, guest, nights) SELECT id, guest, nights FROM bookings WHERE id >= 150")
        .await;
    case.session
        .run(
            "RENAME TABLE bookings TO _bookings_old, _bookings_new TO bookings; DROP TABLE IF EXISTS _bookings_old;
             DROP TRIGGER IF EXISTS pt_del; DROP TRIGGER IF EXISTS pt_upd; DROP TRIGGER IF EXISTS pt_ins",
        )
        .await;
    finish(case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_like_pt_online_schema_change_s_ends_equal_mariadb() {
    pt_osc(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_like_pt_online_schema_change_s_ends_equal_mysql() {
    pt_osc(Kind::MySql).await;
}
