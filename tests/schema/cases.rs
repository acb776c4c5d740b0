//! Each kind of DDL in each situation.

use std::fs;
use std::time::Duration;

use crate::support::source::Kind;
use crate::{Case, FOLLOW, statements};

/// One table for each kind of DDL.
fn tables(kind: Kind) -> Vec<&'static str> {
    statements::of(kind).iter().map(|ddl| ddl.name).collect()
}

async fn create(case: &mut Case) {
    for ddl in statements::of(case.database.kind) {
        case.session.run(&ddl.create(ddl.name)).await;
    }
}

async fn change(case: &mut Case) {
    for ddl in statements::of(case.database.kind) {
        case.session.run(&ddl.before(ddl.name, 1)).await;
        case.session.run(&ddl.statement(ddl.name)).await;
        case.session.run(&ddl.after(ddl.name)).await;
    }
}

/// D-1: rows, the statement and rows again, read by a running daemon.
async fn between_rows(kind: Kind) {
    let Some(mut case) = Case::start(kind, "between", FOLLOW).await else { return };
    create(&mut case).await;
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    change(&mut case).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&tables(kind));
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_between_two_rows_in_one_run_mariadb() {
    between_rows(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_between_two_rows_in_one_run_mysql() {
    between_rows(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_between_two_rows_in_one_run_postgres() {
    between_rows(Kind::Postgres).await;
}

/// D-15: everything happens while nobody reads, so that all of it lies between two commits; then it is read again from before
/// the statements.
async fn while_down(kind: Kind) {
    let Some(mut case) = Case::start(kind, "down", FOLLOW).await else { return };
    create(&mut case).await;
    case.lakeward.catch_up();
    let ledger = case.scratch.path().join("lake/_lakeward/src/position");
    let known: Vec<_> = fs::read_dir(&ledger).expect("a ledger").map(|entry| entry.expect("readable").path()).collect();
    change(&mut case).await;
    case.lakeward.catch_up();
    case.assert_equal(&tables(kind));
    if kind != Kind::Postgres {
        // As after a crash between the tables' commits and the ledger's. (PostgreSQL's slot would know better; there
        // crash.rs does it.)
        for entry in fs::read_dir(&ledger).expect("a ledger") {
            let path = entry.expect("readable").path();
            if !known.contains(&path) {
                fs::remove_file(path).expect("writable");
            }
        }
        let versions = |case: &Case| -> Vec<String> {
            tables(kind).iter().map(|table| case.report(table)["version"].to_string()).collect()
        };
        let before = versions(&case);
        case.lakeward.catch_up();
        assert_eq!(before, versions(&case), "what was applied is applied again");
        case.assert_equal(&tables(kind));
    }
    for ddl in statements::of(kind).iter().filter(|ddl| !ddl.name.contains("key")) {
        case.session.run(&format!("UPDATE {} SET id = 100 WHERE id = 10", ddl.name)).await;
    }
    case.lakeward.catch_up();
    case.assert_equal(&tables(kind));
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_while_the_daemon_is_down_and_read_again_mariadb() {
    while_down(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_while_the_daemon_is_down_and_read_again_mysql() {
    while_down(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_while_the_daemon_is_down_and_read_again_postgres() {
    while_down(Kind::Postgres).await;
}

/// Writers do not pause for the statements, and the daemon is killed again and again.
async fn under_writers_and_kills(kind: Kind) {
    let Some(mut case) = Case::start(kind, "writers", FOLLOW).await else { return };
    if kind == Kind::Postgres {
        // So many statements while nobody reads can't be told apart by the catalog: without it the table may stop, rightly.
        case.database.admin().await.run(lakeward::source::postgres::EVENT_TRIGGER).await;
    }
    case.session.run("CREATE TABLE t (id INT PRIMARY KEY, v INT, w VARCHAR(20), x INT)").await;
    let rows: Vec<String> = (0..2000).map(|id| format!("({id}, {id}, 'w{id}', 0)")).collect();
    case.session.run(&format!("INSERT INTO t VALUES {}", rows.join(","))).await;
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let mut session = case.database.session().await;
        let stop = stop.clone();
        writers.push(tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let id = 10_000 * (writer + 1) + round;
                let old = (round * 7 + writer) % 2000;
                let all = format!(
                    "BEGIN; INSERT INTO t (id, v) VALUES ({id}, {round}); UPDATE t SET v = v + 1 WHERE id = {old};
                     DELETE FROM t WHERE id = {}; COMMIT",
                    id - 5
                );
                if session.try_run(&all).await.is_err() {
                    let _ = session.try_run("ROLLBACK").await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    let statements: &[&str] = match kind {
        Kind::Postgres => &[
            "ALTER TABLE t ADD a INT DEFAULT 1",
            "ALTER TABLE t RENAME w TO ww",
            "ALTER TABLE t DROP x",
            "ALTER TABLE t ALTER a TYPE BIGINT",
            "ALTER TABLE t ADD b TEXT",
            "ALTER TABLE t ADD c NUMERIC(8,2) DEFAULT 2.5",
            "ALTER TABLE t DROP a",
            "ALTER TABLE t RENAME b TO a",
        ],
        _ => &[
            "ALTER TABLE t ADD a INT DEFAULT 1 FIRST",
            "ALTER TABLE t RENAME COLUMN w TO ww",
            "ALTER TABLE t DROP x",
            "ALTER TABLE t MODIFY a BIGINT",
            "ALTER TABLE t ADD b TEXT",
            "ALTER TABLE t ADD c DECIMAL(8,2) DEFAULT 2.5",
            "ALTER TABLE t DROP a",
            "ALTER TABLE t RENAME COLUMN b TO a, ADD d INT NOT NULL DEFAULT 9",
        ],
    };
    for (index, statement) in statements.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        case.session.run(statement).await;
        if index % 2 == 1 {
            tokio::time::sleep(Duration::from_millis(150 * index as u64)).await;
            daemon.kill();
            daemon = case.lakeward.start();
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    daemon.kill();
    case.lakeward.catch_up();
    case.assert_equal(&["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_under_writers_and_kills_mariadb() {
    under_writers_and_kills(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_under_writers_and_kills_mysql() {
    under_writers_and_kills(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_under_writers_and_kills_postgres() {
    under_writers_and_kills(Kind::Postgres).await;
}

/// DDL is part of a transaction on PostgreSQL: rows before and after it commit with it, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_inside_a_transaction_postgres() {
    let Some(mut case) = Case::start(Kind::Postgres, "inside", FOLLOW).await else { return };
    case.session.run("CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 1), (2, 2)").await;
    case.lakeward.catch_up();
    case.session
        .run(
            "BEGIN; INSERT INTO t VALUES (3, 3); ALTER TABLE t ADD b INT DEFAULT 5; INSERT INTO t VALUES (4, 4, 4);
             UPDATE t SET b = 6 WHERE id = 1; ALTER TABLE t RENAME a TO c; INSERT INTO t (id, c) VALUES (5, 5); COMMIT;
             BEGIN; ALTER TABLE t DROP b; INSERT INTO t VALUES (6, 6); ROLLBACK;
             INSERT INTO t (id, b) VALUES (7, 7)",
        )
        .await;
    case.lakeward.catch_up();
    case.assert_equal(&["t"]);
}
