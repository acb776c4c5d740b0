//! `lakeward position`: how far tables are, and versions of several tables that belong together, on real servers.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use lakeward::source::Position;
use serde_json::Value;
use support::Scratch;
use support::daemon::Lakeward;
use support::oracle::Reader;
use support::source::{Database, Kind, Session};

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int);
    CREATE TABLE c (id int PRIMARY KEY, n int); CREATE TABLE quiet (id int PRIMARY KEY, n int);
    INSERT INTO a VALUES (1, 0); INSERT INTO b VALUES (1, 0); INSERT INTO c VALUES (1, 0); INSERT INTO quiet VALUES (1, 7)";

struct Case {
    database: Database,
    session: Session,
    lakeward: Lakeward,
    scratch: Scratch,
}

/// The state of the source at a moment between transactions.
#[derive(Debug)]
struct Noted {
    position: String,
    time: String,
    counter: u64,
    /// Nothing happened for a while before and after.
    at_rest: bool,
}

impl Case {
    async fn start(kind: Kind, test: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let mut session = database.session().await;
        session.run(TABLES).await;
        let scratch = Scratch::new(test);
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let source = database.source_toml();
        let config = format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[schema_changes]\nchange = \"fail\"\n{source}"
        );
        let mut lakeward = Lakeward::new(scratch.path(), &config);
        lakeward.catch_up();
        Some(Self { database, session, lakeward, scratch })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.lakeward.command(&[&["position"], arguments].concat()).output().expect("lakeward starts")
    }

    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let code = output.status.code().expect("it exits");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (code, serde_json::from_slice(&output.stdout).unwrap_or(Value::String(told)))
    }

    /// The source, as `lakeward position` tells of it.
    fn source(&self) -> Value {
        let (code, told) = self.json(&[]);
        assert_eq!((code, &told["exit_code"]), (0, &0.into()), "{told:#}");
        told["sources"][0].clone()
    }

    /// Where the source is, in its own words.
    async fn head(&mut self) -> String {
        let question = match self.database.kind {
            Kind::MariaDb => "SELECT @@global.gtid_binlog_pos",
            Kind::MySql => "SELECT @@global.gtid_executed",
            Kind::Postgres => "SELECT pg_current_wal_insert_lsn()",
        };
        self.session.value(question).await.expect("a position")
    }

    async fn time(&mut self) -> String {
        let question = match self.database.kind {
            Kind::Postgres => {
                r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#
            }
            _ => "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')",
        };
        self.session.value(question).await.expect("a time")
    }

    async fn note(&mut self, counter: u64, at_rest: bool) -> Noted {
        Noted { position: self.head().await, time: self.time().await, counter, at_rest }
    }

    /// One transaction that touches all three tables, and one that touches one.
    async fn count(&mut self, n: u64) {
        let all = format!(
            "UPDATE a SET n = {n} WHERE id = 1; UPDATE b SET n = {n} WHERE id = 1; UPDATE c SET n = {n} WHERE id = 1"
        );
        self.session.run(&format!("BEGIN; {all}; COMMIT")).await;
        let alone = ["a", "b", "c"][n as usize % 3];
        self.session.run(&format!("INSERT INTO {alone} VALUES ({}, {n})", 100 + n)).await;
    }

    /// Waits until the ledger holds that position.
    fn wait_for(&self, position: &str) {
        let wanted = parsed(self.database.kind, position);
        let started = Instant::now();
        while !position_of(&self.source()["position"]).covers(&wanted) {
            assert!(started.elapsed() < Duration::from_secs(120), "{position} is not reached: {:#}", self.source());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn tables(&self) -> Vec<String> {
        ["a", "b", "c"].iter().map(|table| self.database.table(table)).collect()
    }
}

fn parsed(kind: Kind, bare: &str) -> Position {
    let word = match kind {
        Kind::MariaDb => "mariadb",
        Kind::MySql => "mysql",
        Kind::Postgres => "pg",
    };
    format!("{word}:{bare}").parse().expect("a position")
}

fn position_of(value: &Value) -> Position {
    value.as_str().unwrap_or_default().parse().unwrap_or_else(|_| panic!("{value} is no position"))
}

/// (n of row 1, all the others) of each table of a cut, by the very statements that were told.
fn read(reader: &mut Reader, cut: &Value) -> Vec<(u64, Vec<u64>)> {
    let tables = cut["tables"].as_array().expect("tables").iter();
    tables
        .map(|table| {
            let (statement, url) = (table["duckdb"].as_str().expect("SQL"), table["url"].as_str().expect("a url"));
            let mut numbers = |condition: &str| -> Vec<u64> {
                let sql = format!("SELECT n FROM ({statement}) WHERE {condition} ORDER BY n");
                let rows = reader.rows(url, None, &sql);
                rows.iter().map(|row| row[0].as_u64().expect("a number")).collect()
            };
            let counter = numbers("id = 1");
            (counter[0], numbers("id > 1"))
        })
        .collect()
}

/// What is in the lake at a cut was the source's state at some one moment.
fn assert_one_state(found: &[(u64, Vec<u64>)], context: &dyn std::fmt::Debug) -> u64 {
    let counter = found[0].0;
    assert!(found.iter().all(|(n, _)| *n == counter), "the tables are of several moments: {found:?} of {context:?}");
    let mut alone: Vec<u64> = found.iter().flat_map(|(_, others)| others.clone()).collect();
    alone.sort_unstable();
    // The transaction after the last one may be in, or not yet.
    let last = alone.last().copied().unwrap_or(0);
    assert_eq!(alone, (1..=last).collect::<Vec<_>>(), "{found:?} of {context:?}");
    assert!(last == counter || last + 1 == counter, "{found:?} of {context:?}");
    counter
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tables_are_read_as_they_were_at_one_moment() {
    for kind in Kind::ALL {
        let Some(mut case) = Case::start(kind, "cut").await else { continue };
        let Some(mut reader) = Reader::start(None) else { return };
        let mut daemon = Some(case.lakeward.start());
        let mut noted = Vec::new();
        let mut n = 0;
        for round in 0..4 {
            for _ in 0..12 {
                n += 1;
                case.count(n).await;
                if n % 4 == 0 {
                    let now = case.note(n, false).await;
                    noted.push(now);
                }
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            if round == 1 {
                // In the middle of whatever it does: tables may have committed where others have not.
                daemon.take().expect("it runs").kill();
                daemon = Some(case.lakeward.start());
                continue;
            }
            tokio::time::sleep(Duration::from_millis(2100)).await;
            let now = case.note(n, true).await;
            case.wait_for(&now.position);
            noted.push(now);
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        let (status, log) = daemon.take().expect("it runs").terminate();
        assert!(status.success(), "{log}");
        case.session.run("CREATE TABLE late (id int PRIMARY KEY, n int); INSERT INTO late VALUES (1, 1)").await;
        case.lakeward.catch_up();

        let tables = case.tables();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        for moment in &noted {
            for at in [&moment.position, &moment.time] {
                let (code, told) = case.json(&[&["--at", at], tables.as_slice()].concat());
                assert_eq!(code, 0, "{moment:?}: {told:#}");
                let cut = &told["cuts"][0];
                let found = read(&mut reader, cut);
                let counter = assert_one_state(&found, &(moment, cut));
                assert!(counter <= moment.counter, "{moment:?} has what came later: {cut:#}");
                let exact = cut["exact"] == true;
                if exact {
                    assert_eq!(counter, moment.counter, "{moment:?}: {cut:#}");
                }
                assert!(exact || !moment.at_rest, "nothing happened around {moment:?}: {cut:#}");
                if at == &moment.position {
                    assert!(parsed(kind, at).covers(&position_of(&cut["position"])), "{moment:?}: {cut:#}");
                }
            }
        }

        // All tables of the source; one was not there yet.
        let early = &noted[0];
        let (code, told) = case.json(&["--at", &early.position]);
        assert_eq!(code, 0, "{told:#}");
        let of = |name: &str| {
            let tables = told["cuts"][0]["tables"].as_array().expect("tables");
            tables.iter().find(|table| table["table"] == case.database.table(name)).expect(name).clone()
        };
        assert_eq!((&of("late")["version"], &of("late")["why"]), (&Value::Null, &"loaded later".into()), "{told:#}");
        assert_eq!((&of("quiet")["version"], &of("quiet")["rows"]), (&0.into(), &1.into()), "{told:#}");
        let late = case.database.table("late");
        assert_eq!(case.json(&["--at", &early.position, &late]).0, 2, "there is nothing to read");
        assert_eq!(case.json(&["--at", &early.position, &late, tables[0]]).0, 13, "one that was named is not there");

        // In words.
        let output = case.run(&["--at", &early.position]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["boundary", "delta_scan('file://", ", version => ", " VERSION AS OF ", "loaded later"] {
            assert!(words.contains(word), "no {word:?} in:\n{words}");
        }
        for (at, word) in [("2000-01-01 00:00", "loaded later"), ("1-2-3x", "is neither a time")] {
            let output = case.run(&["--at", at]);
            assert_eq!(output.status.code(), Some(2));
            assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{at}: {output:?}");
        }
        let other = if kind == Kind::Postgres { "0-1-100" } else { "1A/16B3748" };
        let output = case.run(&["--at", other]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("is no position of source `src`"), "{output:?}");
        let missing = case.database.table("missing");
        let (code, told) = case.json(&["--at", &early.position, &missing]);
        assert_eq!(code, 2);
        assert!(told.to_string().contains("the lake has no table"), "{told}");
        case.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_tables_are_is_told_while_lakeward_runs_and_while_it_does_not() {
    for kind in Kind::ALL {
        let Some(mut case) = Case::start(kind, "lag").await else { continue };
        let loaded = case.source();
        let tables = loaded["tables"].as_array().expect("tables");
        assert_eq!(tables.len(), 4, "{loaded:#}");
        assert!(tables.iter().all(|table| table["state"] == "streaming" && table["version"] == 0), "{loaded:#}");

        // It lags.
        for n in 1..=5 {
            case.count(n).await;
        }
        let head = case.head().await;
        let behind = case.source();
        assert!(position_of(&behind["head"]).covers(&parsed(kind, &head)), "{behind:#}");
        assert!(!position_of(&behind["position"]).covers(&parsed(kind, &head)), "{behind:#}");
        let unit = match kind {
            Kind::MariaDb => "sequence_numbers",
            Kind::MySql => "transactions",
            Kind::Postgres => "bytes",
        };
        let lag = behind["lag"]["amount"].as_u64().expect("a number");
        // Others may write to the same server.
        assert!(behind["lag"]["unit"] == unit && lag >= 10, "{behind:#}");
        assert!(behind["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{behind:#}");
        assert_eq!(behind["tables"][0]["lag"]["amount"].as_u64(), Some(lag), "{behind:#}");
        let kept = &behind["kept"];
        match kind {
            Kind::Postgres => {
                assert_eq!(
                    (&kept["slot"], &kept["wal_status"]),
                    (&case.database.name.clone().into(), &"reserved".into())
                );
                assert!(kept["restart_lsn"].is_string(), "{kept:#}");
            }
            _ => {
                assert!(kept["expire_seconds"].is_number() && behind["spare"]["unit"] == unit, "{behind:#}");
                assert!(position_of(&behind["position"]).covers(&position_of(&kept["since"])), "{behind:#}");
            }
        }
        let words = String::from_utf8_lossy(&case.run(&[]).stdout).into_owned();
        assert!(
            words.contains("  head     ") && words.contains("  durable  ") && words.contains("  lag      "),
            "{words}"
        );

        // It has caught up, and runs; the lease is its own.
        let daemon = case.lakeward.start();
        case.wait_for(&head);
        let there = case.source();
        assert!(position_of(&there["tables"][0]["holds"]).covers(&parsed(kind, &head)), "{there:#}");
        assert!(there["tables"][0]["version"].as_u64() >= Some(1) && there["tables"][3]["version"] == 0, "{there:#}");
        if kind != Kind::Postgres && there["position"] == there["head"] {
            assert_eq!((&there["lag"]["amount"], &there["lag_seconds"]), (&0.into(), &0.0.into()), "{there:#}");
        }
        let (status, log) = daemon.terminate();
        assert!(status.success() && !log.contains("lease on source"), "{log}");

        // Nobody answers: the lake is told all the same.
        let config = std::fs::read_to_string(case.scratch.path().join("config.toml")).expect("readable");
        let port =
            case.database.oracle_url().rsplit(':').next().expect("a port").split('/').next().expect("it").to_owned();
        let elsewhere = config.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:1");
        std::fs::write(case.scratch.path().join("config.toml"), elsewhere).expect("writable");
        let (code, told) = case.json(&[]);
        assert_eq!((code, &told["exit_code"]), (7, &7.into()), "{told:#}");
        let alone = &told["sources"][0];
        assert!(alone["error"].as_str().is_some_and(|error| error.contains("cannot connect")), "{alone:#}");
        assert!(alone["position"].is_string() && alone["head"].is_null(), "{alone:#}");
        assert_eq!(alone["tables"].as_array().map(Vec::len), Some(4), "{alone:#}");
        case.database.drop().await;
    }
}

/// The newest files of a folder that were not there before.
fn added(folder: &Path, before: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = files(folder);
    files.retain(|file| !before.contains(file));
    files
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("readable").path()).collect()
}

/// The log is read again then, and cut elsewhere: where the one table is, the others have no version.
#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_that_a_crash_left_to_one_table_is_none() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        let Some(mut case) = Case::start(kind, "between").await else { continue };
        let Some(mut reader) = Reader::start(None) else { return };
        let lake = case.scratch.path().join("lake");
        let log = |table: &str| lake.join("src").join(&case.database.name).join(table).join("_delta_log");
        let places = [lake.join("_lakeward/src/position"), log("b"), log("c")];
        let before = places.clone().map(|place| files(&place));
        case.count(1).await;
        let point = case.head().await;
        case.lakeward.catch_up();
        // As if it had been killed when only table a was committed.
        for (place, before) in places.iter().zip(&before) {
            let new = added(place, before);
            assert!(!new.is_empty(), "{}", place.display());
            for file in new {
                std::fs::remove_file(file).expect("removed");
            }
        }
        case.count(2).await;
        let end = case.head().await;
        case.lakeward.catch_up();

        let tables = case.tables();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let (_, told) = case.json(&[&["--at", &point], tables.as_slice()].concat());
        let cut = &told["cuts"][0];
        assert_eq!((&cut["exact"], assert_one_state(&read(&mut reader, cut), &told)), (&false.into(), 0), "{told:#}");
        // Alone, table a is there.
        let (_, told) = case.json(&["--at", &point, tables[0]]);
        let cut = &told["cuts"][0];
        assert_eq!((&cut["exact"], read(&mut reader, cut)[0].0), (&true.into(), 1), "{told:#}");
        let (_, told) = case.json(&[&["--at", &end], tables.as_slice()].concat());
        let cut = &told["cuts"][0];
        assert_eq!((&cut["exact"], assert_one_state(&read(&mut reader, cut), &told)), (&true.into(), 2), "{told:#}");
        case.database.drop().await;
    }
}

/// A slot that is gone, beside a server that answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_lost_is_told_with_its_exit_code() {
    let Some(mut case) = Case::start(Kind::Postgres, "lost").await else { return };
    let mut admin = case.database.admin().await;
    admin.run(&format!("SELECT pg_drop_replication_slot('{}')", case.database.name)).await;
    case.count(1).await;
    let (code, told) = case.json(&[]);
    assert_eq!((code, &told["exit_code"]), (10, &10.into()), "{told:#}");
    let lost = told["sources"][0]["lost"].as_str().unwrap_or_default();
    assert!(lost.contains("does not exist any more"), "{told:#}");
    case.database.drop().await;
}

/// A table that stopped keeps none of the others back, unless it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_keeps_the_others_back_only_when_it_is_named() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let Some(mut case) = Case::start(kind, "stopped").await else { continue };
        let Some(mut reader) = Reader::start(None) else { return };
        case.count(1).await;
        case.lakeward.catch_up();
        let change = match kind {
            Kind::Postgres => "ALTER TABLE b ALTER n TYPE text USING 'x'",
            _ => "ALTER TABLE b MODIFY n varchar(20)",
        };
        case.session.run(change).await;
        case.session
            .run("UPDATE a SET n = 2 WHERE id = 1; UPDATE c SET n = 2 WHERE id = 1; UPDATE b SET n = '2' WHERE id = 1")
            .await;
        let (_, log) = case.lakeward.try_catch_up();
        let head = case.head().await;
        let (a, b, c) = (case.database.table("a"), case.database.table("b"), case.database.table("c"));

        let (code, told) = case.json(&["--at", &head]);
        let cut = &told["cuts"][0];
        let of = |name: &str| {
            let tables = cut["tables"].as_array().expect("tables");
            tables.iter().find(|table| table["table"] == name).expect(name).clone()
        };
        assert_eq!(code, 13, "{told:#}\n{log}");
        assert!(of(&b)["why"].as_str().is_some_and(|why| why.starts_with("stopped at ")), "{cut:#}");
        assert_eq!((&of(&b)["version"], of(&a)["version"].is_u64()), (&Value::Null, true), "{cut:#}");

        let (code, told) = case.json(&["--at", &head, &a, &c]);
        assert_eq!(code, 0, "{told:#}");
        let found = read(&mut reader, &told["cuts"][0]);
        assert_eq!((found[0].0, found[1].0), (2, 2), "{told:#}");

        let (code, told) = case.json(&["--at", &head, &a, &b, &c]);
        assert_eq!((code, &told["cuts"][0]["exact"]), (0, &false.into()), "{told:#}");
        assert_eq!(assert_one_state(&read(&mut reader, &told["cuts"][0]), &told), 1);
        case.database.drop().await;
    }
}
