//! What goes wrong, on real servers: each failure has its own message and exit code, loses nothing, and the remedy that
//! lakeward or the README names mends it.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod lease;
mod outage;
mod position;
mod settings;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Scratch;
use support::daemon::{Daemon, Lakeward};
use support::on_each;
use support::oracle::Oracle;
use support::server::OwnServer;
use support::source::{Database, Kind, Session};

/// One database with the tables `bookings` and `coupons`, and a lake of its own.
struct Case {
    database: Database,
    session: Session,
    oracle: Oracle,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    async fn new(kind: Kind, test: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        Self::with(database, test).await
    }

    async fn on(server: &OwnServer, test: &str) -> Option<Self> {
        let database = Database::create_on(server.kind, server.port, test).await;
        Self::with(database, test).await
    }

    async fn with(database: Database, test: &str) -> Option<Self> {
        let oracle = Oracle::start(None)?;
        let scratch = Scratch::new(test);
        let mut session = database.session().await;
        session
            .run(
                "CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(80), price DECIMAL(12,2));
                 CREATE TABLE coupons (code VARCHAR(20) PRIMARY KEY, discount DOUBLE PRECISION);
                 INSERT INTO bookings VALUES (1, '김하늘', 120000.50), (2, 'Ann', 80.00), (3, NULL, 0);
                 INSERT INTO coupons VALUES ('A', 0.1), ('B', NULL)",
            )
            .await;
        let lakeward = lakeward(scratch.path(), &database.source_toml());
        Some(Self { database, session, oracle, lakeward, scratch })
    }

    /// A change of each sort; `number` must be new.
    async fn change(&mut self, number: u32) {
        self.session
            .run(&format!(
                "INSERT INTO bookings VALUES ({number}, 'guest {number}', {number}.25);
                 UPDATE bookings SET price = price + 1 WHERE id = 1;
                 DELETE FROM coupons WHERE code = 'B';
                 INSERT INTO coupons VALUES ('C{number}', 0.5), ('B', {number})"
            ))
            .await;
    }

    /// The source's folder in the lake.
    fn lake(&self) -> PathBuf {
        self.scratch.path().join("lake/src")
    }

    fn differences(&mut self, tables: &[&str]) -> Option<String> {
        let lake = self.lake();
        let names: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.oracle.differences(&self.database.oracle_url(), &lake.to_string_lossy(), &names)
    }

    fn assert_equal(&mut self, tables: &[&str]) {
        if let Some(differences) = self.differences(tables) {
            panic!("source and lake differ:\n{differences}");
        }
    }

    /// Waits for the daemon to bring everything to the lake; the source must be at rest.
    fn becomes_equal(&mut self, daemon: &mut Daemon) {
        let started = Instant::now();
        while let Some(differences) = self.differences(&BOTH) {
            let log = daemon.log();
            assert!(daemon.is_running(), "lakeward ended:\n{log}");
            assert!(started.elapsed() < Duration::from_secs(60), "still not equal: {differences}\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Further lines at the end of config.toml, which is the source's block.
    fn configure(&self, lines: &str) {
        let path = self.scratch.path().join("config.toml");
        let config = fs::read_to_string(&path).expect("just written");
        fs::write(path, format!("{config}{lines}\n")).expect("writable");
    }

    /// Everything anew, ledger included.
    async fn forget_the_source(&mut self) {
        fs::remove_dir_all(self.lake()).expect("the lake's folder of the source");
        fs::remove_dir_all(self.scratch.path().join("lake/_lakeward/src")).expect("its ledger");
        if self.database.kind == Kind::Postgres {
            let slot = &self.database.name;
            let drop = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}'"
            );
            self.database.admin().await.run(&drop).await;
        }
    }
}

/// A configuration with one source and a lake, both below `folder`.
fn lakeward(folder: &Path, source: &str) -> Lakeward {
    fs::write(folder.join("password"), "cdc\n").expect("writable");
    Lakeward::new(folder, &format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{source}"))
}

const BOTH: [&str; 2] = ["bookings", "coupons"];

/// How a command ended and all it printed.
fn ended(lakeward: &Lakeward, arguments: &[&str]) -> (i32, String) {
    let output = lakeward.command(arguments).output().expect("lakeward starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("it ended by itself"), text.into_owned())
}

/// `check --json`, its exit code agreeing with what it says.
fn check(lakeward: &Lakeward) -> (i32, Value) {
    let output = lakeward.command(&["check", "--json"]).output().expect("lakeward starts");
    let code = output.status.code().expect("it ended by itself");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("check --json: {error}\n{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(report["exit_code"], code, "{report:#}");
    (code, report)
}

/// A problem that `check` named.
#[derive(Debug)]
struct Found {
    kind: String,
    subject: String,
    remedy: String,
}

/// What `check` found at the only source, warnings left out.
fn problems(report: &Value) -> Vec<Found> {
    let found = report["sources"][0]["problems"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    found
        .iter()
        .map(|problem| Found {
            kind: text(problem, "kind"),
            subject: text(problem, "subject"),
            remedy: text(problem, "remedy"),
        })
        .filter(|problem| problem.kind != "warning")
        .collect()
}

/// `check` in both forms and `run` in both forms end with `code`, and all of them say every one of `texts`.
fn every_command_says(lakeward: &Lakeward, code: i32, texts: &[&str]) {
    for arguments in [
        &["check"][..],
        &["check", "--json"],
        &["run", "--until-caught-up"],
        &["run", "--until-caught-up", "--json"],
        &["run"],
    ] {
        let (ended, output) = ended(lakeward, arguments);
        assert_eq!(ended, code, "{arguments:?}: {output}");
        for text in texts {
            let text = if arguments.contains(&"--json") { text.replace('"', "\\\"") } else { (*text).to_owned() };
            assert!(output.contains(&text), "{arguments:?} lacks {text:?}: {output}");
        }
    }
}

/// `run` in both forms ends with `code` and says every one of `texts`.
fn every_run_says(lakeward: &Lakeward, code: i32, texts: &[&str]) {
    for arguments in [&["run", "--until-caught-up"][..], &["run"]] {
        let (ended, output) = ended(lakeward, arguments);
        assert_eq!(ended, code, "{arguments:?}: {output}");
        for text in texts {
            assert!(output.contains(text), "{arguments:?} lacks {text:?}: {output}");
        }
    }
}

/// Every file below `folder` with its length: what a refused run must leave as it was.
fn contents(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable").map(|entry| entry.expect("readable")) {
            if entry.file_type().expect("known").is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), entry.metadata().expect("known").len());
            }
        }
    }
    found
}
