//! The whole way on every kind of server: snapshot, stream, restart; the lake read by DuckDB equals the source.

mod support;

use support::Scratch;
use support::daemon::Lakeward;
use support::oracle::{Oracle, S3};
use support::server::OwnServer;
use support::source::{Database, Kind, Session};

/// config.toml with one source and a lake below `folder` or on S3.
fn config(database: &Database, lake: &str, storage: &str) -> String {
    format!("[lake]\nurl = \"{lake}\"\n{storage}\n[commit]\ninterval_seconds = 1\n{}", database.source_toml())
}

fn lakeward(scratch: &Scratch, config: &str) -> Lakeward {
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    Lakeward::new(scratch.path(), config)
}

async fn create_tables(session: &mut Session) {
    session
        .run(
            "CREATE TABLE reservations (id BIGINT PRIMARY KEY, guest VARCHAR(80), price DECIMAL(12,2), note TEXT);
             CREATE TABLE coupons (code VARCHAR(20), region INT, discount DOUBLE PRECISION, PRIMARY KEY (region, code));
             CREATE TABLE empty_table (id INT PRIMARY KEY, v INT)",
        )
        .await;
    session
        .run(
            "INSERT INTO reservations VALUES (1, '김하늘', 120000.50, 'late'), (2, 'Ann', 80.00, NULL), (3, 'Bo', 0, '');
             INSERT INTO coupons VALUES ('A', 1, 0.1), ('A', 2, 0.25), ('b', 1, NULL)",
        )
        .await;
}

/// Inserts, updates, deletes, key changes, several tables in one transaction, rollbacks, savepoints, truncate.
async fn change(session: &mut Session) {
    session
        .run(
            "INSERT INTO reservations VALUES (4, 'Cy', 10.10, 'x'), (5, 'Di', 11.11, 'y');
             UPDATE reservations SET price = price + 1 WHERE id IN (1, 4);
             DELETE FROM reservations WHERE id = 2;
             UPDATE reservations SET id = 20 WHERE id = 3;
             BEGIN;
             INSERT INTO reservations VALUES (6, 'Ed', 1, 'multi');
             UPDATE coupons SET discount = 0.5 WHERE code = 'A';
             UPDATE coupons SET region = 9 WHERE code = 'b';
             COMMIT;
             BEGIN;
             INSERT INTO reservations VALUES (7, 'rolled back', 1, NULL);
             DELETE FROM coupons;
             ROLLBACK;
             BEGIN;
             INSERT INTO reservations VALUES (8, 'kept', 1, NULL);
             SAVEPOINT one;
             INSERT INTO reservations VALUES (9, 'undone', 1, NULL);
             ROLLBACK TO SAVEPOINT one;
             UPDATE reservations SET note = 'after savepoint' WHERE id = 8;
             COMMIT",
        )
        .await;
    // Swapped keys, delete and insert again, many updates of one row, all in one transaction.
    session
        .run(
            "BEGIN;
             UPDATE reservations SET id = 100 WHERE id = 1;
             UPDATE reservations SET id = 1 WHERE id = 4;
             UPDATE reservations SET id = 4 WHERE id = 100;
             DELETE FROM reservations WHERE id = 5;
             INSERT INTO reservations VALUES (5, 'again', 5.55, 'new');
             UPDATE reservations SET price = 6 WHERE id = 5;
             UPDATE reservations SET price = 7 WHERE id = 5;
             COMMIT;
             INSERT INTO empty_table VALUES (1, 1), (2, NULL)",
        )
        .await;
}

async fn first_light(kind: Kind) {
    let Some(database) = Database::create(kind, "light").await else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    let scratch = Scratch::new("light");
    let mut session = database.session().await;
    create_tables(&mut session).await;
    let mut lakeward = lakeward(&scratch, &config(&database, "lake", ""));
    let lake = format!("{}/lake/src", scratch.path().display());
    let tables = ["reservations", "coupons", "empty_table"].map(|table| database.table(table));
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();

    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);

    change(&mut session).await;
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);

    // Nothing happened: nothing changes.
    let before = lakeward.tables();
    lakeward.catch_up();
    let versions = |tables: &serde_json::Value| {
        let tables = tables.as_array().expect("a list of tables");
        tables.iter().map(|table| table["version"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(versions(&before), versions(&lakeward.tables()));

    // As a daemon, with a truncate in the middle, ended by SIGTERM.
    let mut daemon = lakeward.start();
    daemon.wait_for_log("streaming");
    session
        .run(
            "TRUNCATE TABLE coupons;
             INSERT INTO coupons VALUES ('new', 1, 1.5);
             DELETE FROM reservations WHERE id = 20;
             INSERT INTO empty_table VALUES (3, 3)",
        )
        .await;
    session.run("TRUNCATE TABLE empty_table").await;
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (status, log) = daemon.terminate();
    assert!(status.success(), "SIGTERM ends with {status}:\n{log}");
    lakeward.catch_up();
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_tables_live_in_the_lake() {
    first_light(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_tables_live_in_the_lake() {
    first_light(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tables_live_in_the_lake() {
    first_light(Kind::Postgres).await;
}

/// a log named by files and offsets; rotations without a transaction move the position too.
#[tokio::test(flavor = "multi_thread")]
async fn mysql_without_gtids_is_followed_by_offsets() {
    let options = ["gtid_mode=OFF", "enforce_gtid_consistency=OFF"];
    let Some(server) = OwnServer::start(Kind::MySql, "offsets", &options) else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    let database = Database::create_on(Kind::MySql, server.port, "offsets").await;
    let scratch = Scratch::new("offsets");
    let mut session = database.session().await;
    create_tables(&mut session).await;
    let mut lakeward = lakeward(&scratch, &config(&database, "lake", ""));
    lakeward.catch_up();
    assert!(lakeward.tables()[0]["position"].as_str().is_some_and(|position| position.starts_with("binlog:")));
    change(&mut session).await;
    lakeward.catch_up();
    session.run("FLUSH BINARY LOGS; FLUSH BINARY LOGS").await;
    lakeward.catch_up();
    session.run("INSERT INTO empty_table VALUES (7, 7)").await;
    server.stop();
    server.start_again(&options);
    lakeward.catch_up();
    let tables = ["reservations", "coupons", "empty_table"].map(|table| database.table(table));
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let lake = format!("{}/lake/src", scratch.path().display());
    oracle.assert_equal(&database.oracle_url(), &lake, &tables);
}

/// The same on an object store with conditional writes.
#[tokio::test(flavor = "multi_thread")]
async fn tables_live_in_a_lake_on_s3() {
    let Some(s3) = S3::at("LAKEWARD_TEST_S3_PORT") else { return };
    for kind in Kind::ALL {
        let Some(database) = Database::create(kind, "s3").await else { continue };
        let Some(mut oracle) = Oracle::start(Some(s3.clone())) else { return };
        let scratch = Scratch::new("s3");
        let mut session = database.session().await;
        create_tables(&mut session).await;
        let lake = format!("s3://lake/{}", database.name);
        let mut lakeward = lakeward(&scratch, &config(&database, &lake, &s3.storage()));
        lakeward.catch_up();
        change(&mut session).await;
        lakeward.catch_up();
        let tables = ["reservations", "coupons", "empty_table"].map(|table| database.table(table));
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        oracle.assert_equal(&database.oracle_url(), &format!("{lake}/src"), &tables);
        database.drop().await;
    }
}

/// A store that ignores If-None-Match is refused before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_writes_is_refused() {
    let Some(s3) = S3::at("LAKEWARD_TEST_S3_UNSAFE_PORT") else { return };
    let Some(database) = Database::create(Kind::Postgres, "unsafe").await else { return };
    let scratch = Scratch::new("unsafe");
    let mut lakeward = lakeward(&scratch, &config(&database, "s3://lake/unsafe", &s3.storage()));
    for command in ["check", "run"] {
        let output = lakeward.command(&[command]).output().expect("lakeward starts");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(11), "{command}: {text}");
        assert!(text.contains("ignores conditional writes"), "{command}: {text}");
    }
    let (status, _) = lakeward.try_catch_up();
    assert_eq!(status.code(), Some(11));
}
