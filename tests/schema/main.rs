//! Schema changes (D-1 to D-17): each kind of DDL on each server, between rows, with the daemon down, many between two commits,
//! under writers, under kills, replayed, and as a long random walk. At the end every column of every row equals the source, rows
//! of before the change included, read by DuckDB; Polars and deltalake read the same.

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod crash;
mod migrations;
mod policies;
mod reloads;
mod statements;
mod walk;

use std::path::PathBuf;

use support::Scratch;
use support::daemon::Lakeward;
use support::oracle::{Oracle, Readers};
use support::source::{Database, Kind, Session};

/// A database, a daemon that follows all of it, and the readers.
struct Case {
    database: Database,
    session: Session,
    oracle: Oracle,
    readers: Readers,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    /// `settings` are further lines of config.toml.
    async fn start(kind: Kind, test: &str, settings: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let mut session = database.session().await;
        if kind == Kind::Postgres {
            // What every session of the application has.
            session.run("SET TIME ZONE 'Asia/Seoul'").await;
        }
        let (oracle, readers) = (Oracle::start(None)?, Readers::start()?);
        let scratch = Scratch::new(test);
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let config =
            format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{settings}\n{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        Some(Self { database, session, oracle, readers, lakeward, scratch })
    }

    fn lake(&self) -> PathBuf {
        self.scratch.path().join("lake/src")
    }

    /// Where the lake has a table.
    fn folder(&self, table: &str) -> String {
        let name = self.database.table(table);
        let (schema, table) = name.split_once('.').expect("two parts");
        self.lake().join(schema).join(table).display().to_string()
    }

    /// Every column of every row, and by every reader.
    fn assert_equal(&mut self, tables: &[impl AsRef<str>]) {
        let names: Vec<String> = tables.iter().map(|table| self.database.table(table.as_ref())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lake = self.lake().display().to_string();
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &names);
        for table in tables {
            let folder = self.folder(table.as_ref());
            self.readers.assert_agree(&folder);
        }
    }

    /// What `lakeward tables` says of a table.
    fn report(&self, table: &str) -> serde_json::Value {
        let name = self.database.table(table);
        let tables = self.lakeward.tables();
        let found = tables.as_array().expect("a list").iter().find(|found| found["table"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {tables}")).clone()
    }

    /// `lakeward` with these arguments: exit code, stdout, stderr.
    fn lakeward(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.lakeward.command(arguments).output().expect("lakeward starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

/// The lake has dropped columns too, so that it can be compared with the source.
const FOLLOW: &str = "[schema_changes]\ndrop = \"apply\"";
