//! Loads in many small chunks, while the source and everything else go on. First loads, in the open or out of sight, and
//! resyncs: a table is loaded anew beside the one that is there, and then takes that one's place.

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod commands;
mod crash;
mod damage;
mod first;
mod gate;
mod live;
mod writers;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Scratch;
use support::daemon::{Daemon, Lakeward};
pub(crate) use support::on_each;
use support::oracle::Oracle;
use support::source::{Database, Kind, Session};

/// Rows that nobody changes, under ids below 0, and those that writers change.
pub const QUIET: i64 = 300;
pub const BUSY: i64 = 1500;

pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Case {
    pub database: Database,
    pub scratch: Scratch,
    pub oracle: Oracle,
    pub lakeward: Lakeward,
}

impl Case {
    /// A database with the tables `goods` and `other`, and lakeward, which has not run yet. `snapshot`: keys of `[snapshot]`.
    pub async fn new(kind: Kind, test: &str, snapshot: &str) -> Option<Self> {
        Self::on(Database::create(kind, test).await?, test, snapshot).await
    }

    /// The same for a database that is there.
    pub async fn on(database: Database, test: &str, snapshot: &str) -> Option<Self> {
        let oracle = Oracle::start(None)?;
        let scratch = Scratch::new(test);
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let config = format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[snapshot]\n{snapshot}\n{}",
            database.source_toml()
        );
        let lakeward = Lakeward::new(scratch.path(), &config);
        let mut session = database.session().await;
        fill(&mut session).await;
        Some(Self { database, scratch, oracle, lakeward })
    }

    /// The same with its tables in the lake, which were read in one piece.
    pub async fn loaded(kind: Kind, test: &str, snapshot: &str) -> Option<Self> {
        let mut case = Self::new(kind, test, "").await?;
        case.lakeward.catch_up();
        let path = case.scratch.path().join("config.toml");
        let config = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, config.replace("[snapshot]\n", &format!("[snapshot]\n{snapshot}\n"))).expect("writable");
        Some(case)
    }

    pub fn lake(&self) -> PathBuf {
        self.scratch.path().join("lake/src")
    }

    pub fn folder(&self, table: &str) -> PathBuf {
        self.lake().join(self.database.table(table).replace('.', "/"))
    }

    pub fn assert_equal(&mut self, tables: &[&str]) {
        let lake = self.lake().display().to_string();
        let tables: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &tables);
    }

    /// `lakeward` with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.lakeward.command(arguments).output().expect("lakeward starts")
    }

    /// `lakeward resync` of a table, with further arguments.
    pub fn resync(&self, table: &str, arguments: &[&str]) -> Output {
        let table = format!("src/{}", self.database.table(table));
        self.command(&[&["resync", table.as_str()], arguments].concat())
    }

    /// What `lakeward tables` says of a table.
    pub fn report(&self, table: &str) -> Value {
        let name = self.database.table(table);
        let tables = self.lakeward.tables();
        let found = tables.as_array().expect("a list").iter().find(|found| found["table"] == name.as_str());
        found.cloned().unwrap_or_else(|| panic!("{name} is not listed: {tables}"))
    }

    pub fn state(&self, table: &str) -> String {
        self.report(table)["state"].as_str().unwrap_or_default().to_owned()
    }

    pub fn wait_for_state(&self, table: &str, state: &str, daemon: &Daemon) {
        let started = Instant::now();
        while self.state(table) != state {
            assert!(started.elapsed() < PATIENCE, "{table} is {} not {state}:\n{}", self.report(table), daemon.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// Fails with what the command said unless it ended with this code.
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", text(output), "see above");
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn fill(session: &mut Session) {
    session
        .run(
            "CREATE TABLE goods (id BIGINT PRIMARY KEY, name VARCHAR(40), price DECIMAL(12,2), note TEXT);
             CREATE TABLE other (id BIGINT PRIMARY KEY, v INT)",
        )
        .await;
    let ids: Vec<i64> = (-QUIET..0).chain(0..BUSY).collect();
    for ids in ids.chunks(100) {
        let rows: Vec<String> = ids
            .iter()
            .map(|id| format!("({id}, '객실 {id}', {id}.25, '{}')", writers::large_text(*id as u64)))
            .collect();
        session.run(&format!("INSERT INTO goods VALUES {}", rows.join(","))).await;
    }
    session.run("INSERT INTO other VALUES (1, 1)").await;
}
