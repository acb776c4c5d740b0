//! Every form a transaction takes in the logs, on real servers: the source's SQL on the left, what the lake must hold on the
//! right. IDs (X-1, K-2, …) are those of the semantics checklist.
//!
//! All cases of a server run beside one daemon: their tables are made and loaded first, then each case's statements run,
//! then every table is read by DuckDB, compared with what the case says, and with the source.

#[path = "../support/mod.rs"]
mod support;

mod mysql;
mod postgres;
mod restart;
mod xa;

use std::path::Path;
use std::time::{Duration, Instant};

use support::Scratch;
use support::daemon::{Daemon, Lakeward};
use support::oracle::{Oracle, Reader};
use support::source::{Database, Kind, Session};

/// One line of a table of cases. `{t}` stands for the case's table, `{u}` for a second one.
pub struct Case {
    /// Checklist IDs, and what is shown.
    pub name: &'static str,
    /// Before the first load. `{db}` stands for the database, `{file}` for a file with two rows, 7 and 8.
    pub before: &'static str,
    /// While the daemon follows. `-- new session` goes on in another session, `-- wait` until all so far is in the lake.
    pub sql: &'static str,
    /// Rows of `{t}`, ordered, as JSON; or the reason for which it stops, after `stops: `. In any case `{t}` must equal the
    /// source, where it does not stop.
    pub lake: &'static str,
    /// Where the log has this form.
    pub servers: &'static [Kind],
}

/// Values too long to be written down.
pub const AS_THE_SOURCE: &str = "as the source";

/// Made before every case, if it does not make them itself.
const TABLES: &str =
    "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(40)); CREATE TABLE {u} (id INT PRIMARY KEY, v VARCHAR(40))";

fn named(sql: &str, number: usize, followed: &Followed) -> String {
    let file = followed.scratch.path().join("rows.tsv");
    sql.replace("{t}", &format!("t{number}"))
        .replace("{u}", &format!("u{number}"))
        .replace("{db}", &followed.database.name)
        .replace("{file}", &file.display().to_string())
}

/// A lake that follows one database.
pub struct Followed {
    pub database: Database,
    pub lakeward: Lakeward,
    pub scratch: Scratch,
    reader: Reader,
    oracle: Oracle,
    marks: u32,
}

impl Followed {
    /// With a table `marks` by which [`Followed::wait`] knows how far the lake is.
    pub async fn new(database: Database) -> Option<Self> {
        let (reader, oracle) = (Reader::start(None)?, Oracle::start(None)?);
        let scratch = Scratch::new("transactions");
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        std::fs::write(scratch.path().join("rows.tsv"), "7\tseven\n8\teight\n").expect("writable");
        let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        database.session().await.run("CREATE TABLE marks (id INT PRIMARY KEY)").await;
        Some(Self { database, lakeward, scratch, reader, oracle, marks: 0 })
    }

    /// Starts the daemon and waits until it follows the log.
    pub fn start(&mut self) -> Daemon {
        let mut daemon = self.lakeward.start();
        // Many tables are loaded first, which takes its time on a busy machine.
        let started = Instant::now();
        while !daemon.log().contains("streaming") {
            assert!(daemon.is_running(), "lakeward ended:\n{}", daemon.log());
            assert!(started.elapsed() < Duration::from_secs(300), "it does not start to stream:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    fn folder(&self, table: &str) -> String {
        let schema = match self.database.kind {
            Kind::Postgres => "public",
            _ => &self.database.name,
        };
        format!("{}/lake/src/{schema}/{table}", self.scratch.path().display())
    }

    /// All rows in the order of the first column, as JSON.
    pub fn rows(&mut self, table: &str) -> String {
        let rows = self.reader.rows(&self.folder(table), None, "SELECT * FROM t ORDER BY 1");
        serde_json::to_string(&rows).expect("JSON")
    }

    /// Waits until everything that was committed before is in the lake.
    pub async fn wait(&mut self, daemon: &mut Daemon) {
        self.marks += 1;
        let mark = self.marks;
        self.database.session().await.run(&format!("INSERT INTO marks VALUES ({mark})")).await;
        let started = Instant::now();
        let folder = self.folder("marks");
        loop {
            if Path::new(&folder).join("_delta_log").exists() {
                let found = self.reader.rows(&folder, None, &format!("SELECT 1 FROM t WHERE id = {mark}"));
                if !found.is_empty() {
                    return;
                }
            }
            assert!(daemon.is_running(), "lakeward ended:\n{}", daemon.log());
            assert!(started.elapsed() < Duration::from_secs(90), "the lake does not follow:\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// `streaming`, or `stopped: ` and the reason.
    pub fn state(&self, table: &str) -> String {
        let tables = self.lakeward.tables();
        let name = self.database.table(table);
        let tables = tables.as_array().expect("a list of tables");
        let table = tables.iter().find(|found| found["table"] == name.as_str()).unwrap_or_else(|| panic!("{tables:?}"));
        match table["state"].as_str() {
            Some("stopped") => format!("stopped: {table}"),
            Some(state) => state.to_owned(),
            None => panic!("{table}"),
        }
    }

    /// Every column of every row is the source's.
    pub fn assert_equal(&mut self, tables: &[String]) {
        let names: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lake = format!("{}/lake/src", self.scratch.path().display());
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &names);
    }
}

/// Runs statements one by one. A prepared transaction that another session has just left is waited for.
pub async fn run(session: &mut Session, sql: &str) {
    for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        let started = Instant::now();
        while let Err(error) = session.try_run(statement).await {
            let left = error.contains("XAER_NOTA") && started.elapsed() < Duration::from_secs(10);
            assert!(left, "{statement}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs all cases for this kind of server on one database.
pub async fn run_cases(database: Database, cases: &[Case]) {
    let kind = database.kind;
    let Some(mut followed) = Followed::new(database).await else { return };
    let cases: Vec<(usize, &Case)> =
        cases.iter().enumerate().filter(|(_, case)| case.servers.contains(&kind)).collect();
    for (number, case) in &cases {
        let mut session = followed.database.session().await;
        let before = named(case.before, *number, &followed);
        if !before.contains("CREATE TABLE") {
            run(&mut session, &named(TABLES, *number, &followed)).await;
        }
        run(&mut session, &before).await;
    }
    let mut daemon = followed.start();
    for (number, case) in &cases {
        let mut session = followed.database.session().await;
        for line in named(case.sql, *number, &followed).lines() {
            match line.trim() {
                "-- new session" => session = followed.database.session().await,
                "-- wait" => followed.wait(&mut daemon).await,
                statements => run(&mut session, statements).await,
            }
        }
    }
    followed.wait(&mut daemon).await;
    let mut wrong = Vec::new();
    let mut equal = Vec::new();
    for (number, case) in &cases {
        let table = format!("t{number}");
        let state = followed.state(&table);
        let found = match case.lake.strip_prefix("stops: ") {
            Some(reason) if state.contains(reason) => continue,
            Some(_) => state,
            None if state.starts_with("stopped") => state,
            None => {
                equal.push(table.clone());
                if case.lake == AS_THE_SOURCE {
                    continue;
                }
                followed.rows(&table)
            }
        };
        let expected: String = case.lake.split_whitespace().collect();
        if found.split_whitespace().collect::<String>() != expected {
            wrong.push(format!("{} ({table}): expected {}, found {found}", case.name, case.lake));
        }
    }
    assert!(wrong.is_empty(), "on {}:\n{}\n{}", kind.word(), wrong.join("\n"), daemon.log());
    followed.assert_equal(&equal);
    let (status, log) = daemon.terminate();
    assert!(status.success() || cases.iter().any(|(_, case)| case.lake.starts_with("stops")), "{status}\n{log}");
    followed.database.drop().await;
}
