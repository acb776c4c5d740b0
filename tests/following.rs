//! Tables that wait, decisions, tables that come and go, on real servers: the others go on, nothing is doubled by a restart,
//! and everything is told once (docs/decisions/010-waiting-tables.md).

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Scratch;
use support::daemon::{Daemon, Lakeward};
use support::on_each;
use support::oracle::{Oracle, Reader};
use support::source::{Database, Kind, Session};

struct Case {
    database: Database,
    session: Session,
    oracle: Oracle,
    reader: Reader,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    /// A database with the tables `bookings` and `log`; `log` has no key, so that a row too many shows.
    async fn new(kind: Kind, test: &str, policies: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let (oracle, reader) = (Oracle::start(None)?, Reader::start(None)?);
        let scratch = Scratch::new(test);
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let mut session = database.session().await;
        // Without a key its log tells whole rows only when it is told to.
        let identity = if kind == Kind::Postgres { "ALTER TABLE log REPLICA IDENTITY FULL;" } else { "" };
        session
            .run(&format!(
                "CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(80), nights INT);
                 CREATE TABLE log (n INT, what VARCHAR(80)); {identity}
                 INSERT INTO bookings VALUES (1, '김하늘', 1), (2, 'Ann', NULL);
                 INSERT INTO log VALUES (1, 'a'), (2, 'b')"
            ))
            .await;
        let config = format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[schema_changes]\n{policies}\n{}",
            database.source_toml()
        );
        let lakeward = Lakeward::new(scratch.path(), &config);
        Some(Self { database, session, oracle, reader, lakeward, scratch })
    }

    fn ledger(&self) -> PathBuf {
        self.scratch.path().join("lake/_lakeward/src")
    }

    fn differences(&mut self, tables: &[&str]) -> Option<String> {
        let lake = self.scratch.path().join("lake/src");
        let names: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.oracle.differences(&self.database.oracle_url(), &lake.to_string_lossy(), &names)
    }

    /// Waits for the daemon to bring everything to the lake; the source must be at rest.
    fn becomes_equal(&mut self, daemon: &mut Daemon, tables: &[&str]) {
        let started = Instant::now();
        while let Some(differences) = self.differences(tables) {
            let log = daemon.log();
            assert!(daemon.is_running(), "lakeward ended:\n{log}");
            assert!(started.elapsed() < Duration::from_secs(60), "still not equal: {differences}\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until `lakeward tables` says so of the table, and returns its line.
    fn becomes(&self, daemon: &mut Daemon, table: &str, state: &str) -> Value {
        let started = Instant::now();
        loop {
            let found = self.state(table);
            if found["state"] == state {
                return found;
            }
            assert!(daemon.is_running(), "lakeward ended:\n{}", daemon.log());
            assert!(started.elapsed() < Duration::from_secs(60), "{table} is {found}, not {state}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn state(&self, table: &str) -> Value {
        let name = self.database.table(table);
        let tables = self.lakeward.tables();
        tables.as_array().expect("a list").iter().find(|found| found["table"] == name).cloned().unwrap_or_default()
    }

    /// The newest entry of the ledger.
    fn entry(&self) -> Value {
        let mut files: Vec<PathBuf> = fs::read_dir(self.ledger().join("position"))
            .expect("there")
            .map(|file| file.expect("one").path())
            .collect();
        files.sort();
        serde_json::from_slice(&fs::read(files.last().expect("one")).expect("readable")).expect("JSON")
    }

    /// What was told, in order: kind and table.
    fn told(&self) -> Vec<(String, String)> {
        let entries = self.outbox();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut told: Vec<(String, String)> =
            entries.iter().map(|entry| (text(&entry["kind"]), text(&entry["table"]))).collect();
        told.iter_mut().for_each(|(_, table)| *table = table.split('.').next_back().unwrap_or_default().to_owned());
        told
    }

    fn outbox(&self) -> Vec<Value> {
        let Ok(folder) = fs::read_dir(self.ledger().join("notice")) else { return Vec::new() };
        let mut files: Vec<PathBuf> = folder.map(|file| file.expect("one").path()).collect();
        files.sort();
        let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
        files.iter().map(read).collect()
    }

    /// As `lakeward schema approve` writes it, about the change that was held last.
    fn decide(&self, verdict: &str) {
        let outbox = self.outbox();
        let held = outbox.iter().rfind(|entry| entry["kind"] == "schema.held").expect("something is held");
        let change = held["record"]["id"].as_str().expect("an id");
        let decided = json!({
            "format": 1, "change": change, "table": held["table"], "verdict": verdict, "by": "ann@test",
            "at": "2026-01-01T00:00:00Z",
        });
        fs::create_dir_all(self.ledger().join("decision")).expect("writable");
        fs::write(self.ledger().join(format!("decision/{change}.json")), decided.to_string()).expect("writable");
    }

    /// Rows of a query over a lake table, `t`.
    fn rows(&mut self, table: &str, sql: &str) -> Vec<Vec<Value>> {
        let name = self.database.table(table).replace('.', "/");
        let url = self.scratch.path().join("lake/src").join(name);
        self.reader.rows(&url.to_string_lossy(), None, sql)
    }
}

fn pair(kind: &str, table: &str) -> (String, String) {
    (kind.to_owned(), table.to_owned())
}

on_each!(
    changes_are_followed_between_rows_and_told_once,
    a_table_that_waits_holds_the_log_and_nobody_else,
    a_rejected_change_stops_its_table_and_releases_the_log,
    held_columns_are_decided_while_it_runs,
    tables_come_and_go,
    rows_and_tables_that_are_gone_at_the_source_can_be_kept,
);

fn widen(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "ALTER TABLE bookings ALTER COLUMN nights TYPE BIGINT",
        Kind::MariaDb | Kind::MySql => "ALTER TABLE bookings MODIFY nights BIGINT",
    }
}

async fn changes_are_followed_between_rows_and_told_once(kind: Kind) {
    let Some(mut case) = Case::new(kind, "follow", "drop = \"apply\"").await else { return };
    case.lakeward.catch_up();
    assert_eq!(case.told(), [], "a first start tells nobody of its tables");
    let change = |number: u32| {
        format!(
            "INSERT INTO bookings (id, guest) VALUES ({number}, 'row {number}');
             INSERT INTO log VALUES ({number}, 'same'), ({number}0, 'same')"
        )
    };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run(&change(10)).await;
    case.session.run("ALTER TABLE bookings ADD COLUMN grade VARCHAR(20) DEFAULT 'bronze'").await;
    case.session.run(&change(11)).await;
    case.session.run(&change(12)).await;
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    // Between two commits, or with the daemon down: several at once.
    daemon.kill();
    case.session.run("UPDATE bookings SET grade = 'gold' WHERE id = 10").await;
    case.session.run("ALTER TABLE bookings RENAME COLUMN guest TO visitor").await;
    case.session.run("INSERT INTO bookings (id, visitor) VALUES (13, 'later')").await;
    case.session.run("ALTER TABLE bookings DROP COLUMN grade").await;
    case.session.run("DELETE FROM bookings WHERE id = 11; INSERT INTO log VALUES (1, 'a')").await;
    let mut daemon = case.lakeward.start();
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    let told = case.told();
    assert_eq!(told, vec![pair("schema.changed", "bookings"); 3]);
    let entries = case.outbox();
    assert!(entries.iter().all(|entry| entry["lake_version"].is_u64() && entry["record"]["steps"].is_array()));
    case.database.drop().await;
}

async fn a_table_that_waits_holds_the_log_and_nobody_else(kind: Kind) {
    let Some(mut case) = Case::new(kind, "wait", "widen = \"hold\"").await else { return };
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run("INSERT INTO bookings VALUES (10, 'before', 3); INSERT INTO log VALUES (3, 'c')").await;
    case.session.run(widen(kind)).await;
    case.session
        .run("INSERT INTO bookings VALUES (11, 'behind', 3000000000); INSERT INTO log VALUES (3, 'c'), (4, 'd')")
        .await;
    let waiting = case.becomes(&mut daemon, "bookings", "waiting");
    let why = waiting["error"].as_str().unwrap_or_default();
    assert!(why.contains("nights") && why.contains("lakeward schema approve"), "{why}");
    case.becomes_equal(&mut daemon, &["log"]);
    let names = case.rows("bookings", "SELECT guest FROM t ORDER BY id");
    assert_eq!(names.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), ["김하늘", "Ann", "before"]);
    let held = case.entry();
    assert_ne!(held["reached"], Value::Null, "{held:#}");
    assert_eq!(held["position"], held["tables"][case.database.table("bookings")]["position"]);

    // It outlives the process, and the other table gets nothing twice.
    for _ in 0..2 {
        daemon.kill();
        case.session.run("INSERT INTO log VALUES (3, 'c'), (5, 'e'); DELETE FROM log WHERE n = 4").await;
        case.session.run("INSERT INTO log VALUES (4, 'd'); DELETE FROM log WHERE n = 5").await;
        daemon = case.lakeward.start();
        case.becomes_equal(&mut daemon, &["log"]);
        case.becomes(&mut daemon, "bookings", "waiting");
        assert_eq!(case.entry()["position"], held["position"], "the log is kept from the change on");
        assert_eq!(case.told(), [pair("schema.held", "bookings")], "told once");
    }
    let (status, log) = case.lakeward_catch_up_beside(daemon);
    assert_eq!(status, Some(13), "{log}");

    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.decide("approve");
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    case.becomes(&mut daemon, "bookings", "streaming");
    assert_eq!(case.entry()["reached"], Value::Null);
    case.session.run("INSERT INTO bookings VALUES (12, 'on', 4000000000); INSERT INTO log VALUES (3, 'c')").await;
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    assert_eq!(case.told(), [pair("schema.held", "bookings"), pair("schema.changed", "bookings")]);
    assert_eq!(case.outbox()[1]["detail"]["decision"]["by"], "ann@test");
    case.database.drop().await;
}

impl Case {
    /// Ends the daemon, and runs until caught up.
    fn lakeward_catch_up_beside(&mut self, daemon: Daemon) -> (Option<i32>, String) {
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        let (status, log) = self.lakeward.try_catch_up();
        (status.code(), log)
    }
}

async fn a_rejected_change_stops_its_table_and_releases_the_log(kind: Kind) {
    let Some(mut case) = Case::new(kind, "reject", "widen = \"hold\"").await else { return };
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run(widen(kind)).await;
    case.session.run("INSERT INTO bookings VALUES (11, 'behind', 3); INSERT INTO log VALUES (3, 'c')").await;
    case.becomes(&mut daemon, "bookings", "waiting");
    // Nobody asked about this one.
    fs::create_dir_all(case.ledger().join("decision")).expect("writable");
    fs::write(case.ledger().join("decision/no-id.json"), "{}").expect("writable");
    case.decide("reject");
    let stopped = case.becomes(&mut daemon, "bookings", "stopped");
    assert!(stopped["error"].as_str().is_some_and(|why| why.contains("rejected")), "{stopped}");
    case.session.run("INSERT INTO log VALUES (3, 'c')").await;
    case.becomes_equal(&mut daemon, &["log"]);
    let entry = case.entry();
    assert_eq!(entry["reached"], Value::Null, "{entry:#}");
    daemon.kill();
    let mut daemon = case.lakeward.start();
    case.session.run("INSERT INTO log VALUES (6, 'f')").await;
    case.becomes_equal(&mut daemon, &["log"]);
    assert_eq!(case.told(), [pair("schema.held", "bookings"), pair("schema.refused", "bookings")]);
    drop(daemon);
    case.database.drop().await;
}

async fn held_columns_are_decided_while_it_runs(kind: Kind) {
    let policies = "add = \"hold\"\ndrop = \"hold\"\nrename = \"hold\"";
    let Some(mut case) = Case::new(kind, "hold", policies).await else { return };
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run("ALTER TABLE bookings ADD COLUMN grade VARCHAR(20) DEFAULT 'bronze'").await;
    case.session.run("INSERT INTO bookings VALUES (10, 'x', 1, 'gold'); INSERT INTO log VALUES (3, 'c')").await;
    case.becomes_equal(&mut daemon, &["log"]);
    let started = Instant::now();
    while case.rows("bookings", "SELECT id FROM t").len() < 3 {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    let shown = |case: &mut Case| case.rows("bookings", "SELECT column_name FROM (DESCRIBE t)");
    assert_eq!(shown(&mut case), [[json!("id")], [json!("guest")], [json!("nights")]]);
    assert_eq!(case.state("bookings")["state"], "streaming");
    case.decide("approve");
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    // A rename that is rejected after a restart, a drop that is approved before it.
    case.session.run("ALTER TABLE bookings RENAME COLUMN guest TO visitor").await;
    case.session.run("INSERT INTO bookings VALUES (11, 'y', 2, 'silver')").await;
    let started = Instant::now();
    while case.rows("bookings", "SELECT guest FROM t WHERE id = 11") != [[json!("y")]] {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.kill();
    case.decide("reject");
    let daemon = case.lakeward.start();
    case.session.run("ALTER TABLE bookings DROP COLUMN nights").await;
    case.session.run("INSERT INTO bookings VALUES (12, 'z', 'none')").await;
    let started = Instant::now();
    while case.rows("bookings", "SELECT guest, nights FROM t WHERE id = 12") != [[json!("z"), Value::Null]] {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    case.decide("approve");
    let started = Instant::now();
    while shown(&mut case) != [[json!("id")], [json!("guest")], [json!("grade")]] {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    let told: Vec<String> = case.told().into_iter().map(|(kind, _)| kind).collect();
    let twice = ["schema.held", "schema.changed"];
    assert_eq!(told, [twice, twice, twice].concat());
    case.database.drop().await;
}

async fn tables_come_and_go(kind: Kind) {
    let Some(mut case) = Case::new(kind, "come", "").await else { return };
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session
        .run(
            "CREATE TABLE guests (id INT PRIMARY KEY, name VARCHAR(20));
             INSERT INTO guests VALUES (1, 'Ann'), (2, 'Bo');
             INSERT INTO log VALUES (3, 'c'), (3, 'c')",
        )
        .await;
    case.becomes_equal(&mut daemon, &["bookings", "log", "guests"]);
    case.session.run("INSERT INTO guests VALUES (3, 'Cy'); UPDATE guests SET name = 'An' WHERE id = 1").await;
    case.becomes_equal(&mut daemon, &["bookings", "log", "guests"]);
    case.session.run("INSERT INTO guests VALUES (4, 'Di'); DROP TABLE guests; INSERT INTO log VALUES (4, 'd')").await;
    case.becomes(&mut daemon, "guests", "dropped");
    case.becomes_equal(&mut daemon, &["bookings", "log"]);
    assert_eq!(case.rows("guests", "SELECT id FROM t ORDER BY id").len(), 4, "the lake keeps it");
    daemon.kill();
    // It is another table that has its name now.
    case.session.run("CREATE TABLE guests (id INT PRIMARY KEY, other INT); INSERT INTO guests VALUES (1, 1)").await;
    case.session.run("INSERT INTO log VALUES (4, 'd')").await;
    let mut daemon = case.lakeward.start();
    case.becomes_equal(&mut daemon, &["bookings", "log", "guests"]);
    case.becomes(&mut daemon, "guests", "streaming");
    let (_, log) = daemon.terminate();
    assert!(log.matches("INFO streaming").count() <= 3, "it must not begin anew for it again and again:\n{log}");
    let told: Vec<String> = case.told().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(told, ["table.added", "table.dropped", "table.resynced"]);
    case.database.drop().await;
}

async fn rows_and_tables_that_are_gone_at_the_source_can_be_kept(kind: Kind) {
    let policies = "truncate = \"keep\"\ndrop_table = \"apply\"";
    let Some(mut case) = Case::new(kind, "kept", policies).await else { return };
    case.lakeward.catch_up();
    case.session.run("TRUNCATE TABLE bookings; INSERT INTO bookings VALUES (1, 'new', 9)").await;
    case.lakeward.catch_up();
    assert_eq!(
        case.rows("bookings", "SELECT id, guest FROM t ORDER BY id"),
        [[json!(1), json!("new")], [json!(2), json!("Ann")]]
    );
    case.session.run("DROP TABLE bookings").await;
    case.session.run("INSERT INTO log VALUES (3, 'c')").await;
    if kind == Kind::Postgres {
        // Its log does not tell; the catalog is looked at now and then while the daemon runs.
        let mut daemon = case.lakeward.start();
        case.becomes(&mut daemon, "bookings", "dropped");
        daemon.terminate();
    } else {
        case.lakeward.catch_up();
    }
    assert!(case.rows("bookings", "SELECT id FROM t").is_empty());
    assert_eq!(case.state("bookings")["state"], "dropped");
    case.lakeward.catch_up();
    assert_eq!(case.state("bookings")["state"], "dropped");
    assert_eq!(case.told(), [pair("schema.changed", "bookings"), pair("table.dropped", "bookings")]);
    case.database.drop().await;
}
