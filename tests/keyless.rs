//! K-1: tables without a key, followed as multisets of whole rows or as logs that only grow.

mod support;

use std::fs;

use support::Scratch;
use support::daemon::Lakeward;
use support::oracle::Oracle;
use support::source::{Database, Kind};

struct Case {
    database: Database,
    scratch: Scratch,
    oracle: Oracle,
    lakeward: Lakeward,
}

impl Case {
    async fn new(kind: Kind, test: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let oracle = Oracle::start(None)?;
        let scratch = Scratch::new(test);
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        Some(Self { database, scratch, oracle, lakeward })
    }

    fn assert_equal(&mut self, tables: &[&str]) {
        let lake = self.scratch.path().join("lake/src").display().to_string();
        let tables: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &tables);
    }
}

async fn a_table_without_a_key_stays_equal_as_a_multiset(kind: Kind) {
    let Some(mut case) = Case::new(kind, "bag").await else { return };
    let mut session = case.database.session().await;
    session
        .run(
            "CREATE TABLE visits (guest INT, room VARCHAR(20), score DOUBLE, price DECIMAL(12,2), note TEXT);
             CREATE TABLE nullable_unique (a INT, b INT, UNIQUE (a));
             CREATE TABLE bare (id BIGINT PRIMARY KEY, v INT);
             INSERT INTO visits VALUES (1, 'a', 0.1, 1.10, 'x'), (1, 'a', 0.1, 1.10, 'x'), (1, 'a', 0.1, 1.10, 'x'),
                (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL), (2, '', -0.5, 0, '');
             INSERT INTO nullable_unique VALUES (1, 1), (NULL, 2), (NULL, 2);
             INSERT INTO bare VALUES (1, 1)",
        )
        .await;
    let tables = ["visits", "nullable_unique", "bare"];
    case.lakeward.catch_up();
    case.assert_equal(&tables);

    session
        .run(
            "INSERT INTO visits VALUES (2, '', -0.5, 0, ''), (3, '예약', 2.5, 99.99, NULL);
             DELETE FROM visits WHERE guest = 1 LIMIT 1;
             DELETE FROM visits WHERE guest IS NULL LIMIT 1;
             UPDATE visits SET guest = 2, room = '', score = -0.5, price = 0, note = '' WHERE guest = 1 LIMIT 1;
             UPDATE visits SET note = note WHERE guest = 1;
             DELETE FROM nullable_unique WHERE b = 2 LIMIT 1;
             BEGIN;
             INSERT INTO visits VALUES (7, 'temporary', 1, 1, NULL), (7, 'temporary', 1, 1, NULL);
             UPDATE visits SET room = 'kept' WHERE guest = 7 LIMIT 1;
             DELETE FROM visits WHERE room = 'temporary';
             UPDATE bare SET v = 2;
             COMMIT",
        )
        .await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);

    // Rows become equal, a few of many go, everything at once, with a restart before and after.
    session.run("UPDATE visits SET guest = 9, room = 'same', score = 1, price = 1, note = 'all alike'").await;
    for _ in 0..5 {
        session.run("INSERT INTO visits SELECT * FROM visits").await;
    }
    session.run("DELETE FROM visits WHERE guest = 9 LIMIT 37").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);
    session
        .run("TRUNCATE TABLE visits; INSERT INTO visits VALUES (1, 'new', 1, 1, NULL), (1, 'new', 1, 1, NULL)")
        .await;
    session.run("DELETE FROM visits LIMIT 1").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);

    let output = case.lakeward.command(&["check", "--json"]).output().expect("lakeward starts");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && report.contains("multiset"), "{report}");
    case.database.drop().await;
}

async fn an_append_only_table_grows_and_stops_at_the_first_update(kind: Kind) {
    let Some(mut case) = Case::new(kind, "append").await else { return };
    let mut session = case.database.session().await;
    session
        .run("CREATE TABLE clicks (at_time DATETIME(3), page VARCHAR(20)); CREATE TABLE bare (id INT PRIMARY KEY)")
        .await;
    session.run("INSERT INTO clicks VALUES (NULL, 'a'), (NULL, 'a'), ('2026-01-01', NULL)").await;
    let contracts = case.scratch.path().join("schemas");
    fs::create_dir(&contracts).expect("writable");
    let clicks = case.database.table("clicks");
    let contract = format!("table = \"{clicks}\"\nwithout_key = \"append\"\n");
    fs::write(contracts.join("clicks.toml"), contract).expect("writable");
    let tables = ["clicks", "bare"];
    case.lakeward.catch_up();
    session.run("INSERT INTO clicks VALUES (NULL, 'a'), (NULL, 'b'); INSERT INTO bare VALUES (1)").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);
    session.run("TRUNCATE TABLE clicks; INSERT INTO clicks VALUES (NULL, 'c')").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);

    session.run("UPDATE clicks SET page = 'd'; INSERT INTO bare VALUES (2)").await;
    let (_, log) = case.lakeward.try_catch_up();
    assert!(log.contains("without_key") && log.contains(&clicks), "{log}");
    case.assert_equal(&["bare"]);

    // As the remedy says.
    fs::remove_file(contracts.join("clicks.toml")).expect("there");
    fs::remove_dir_all(case.scratch.path().join("lake/src").join(clicks.replace('.', "/"))).expect("there");
    case.lakeward.catch_up();
    session.run("UPDATE clicks SET page = 'e'").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_a_table_without_a_key_stays_equal_as_a_multiset() {
    a_table_without_a_key_stays_equal_as_a_multiset(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql_a_table_without_a_key_stays_equal_as_a_multiset() {
    a_table_without_a_key_stays_equal_as_a_multiset(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_an_append_only_table_grows_and_stops_at_the_first_update() {
    an_append_only_table_grows_and_stops_at_the_first_update(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql_an_append_only_table_grows_and_stops_at_the_first_update() {
    an_append_only_table_grows_and_stops_at_the_first_update(Kind::MySql).await;
}
