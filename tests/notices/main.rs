//! Notices, to real receivers: every kind in its form, in order, whatever happens to the receiver or to lakeward.
//!
//! Most cases deliver an outbox that the test fills itself; no database is needed for them.

#[path = "../support/mod.rs"]
mod support;

mod daemon;
mod delivery;
mod digest;
mod forms;
mod history;
mod servers;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use lakeward::config::Config;
use lakeward::lake::Lake;
use lakeward::ledger::{Outbox, OutboxEntry};
use lakeward::notice::{Deliveries, Pauses, sample};
use support::Scratch;
use uuid::Uuid;

/// A configuration with a lake beside it. Its sources are never reached.
struct Place {
    scratch: Scratch,
    config: Arc<Config>,
    lake: Lake,
}

const SOURCES: &str = r#"
[lake]
url = "lake"
[[source]]
name = "booking"
url = "mysql://cdc@127.0.0.1:1"
tables = ["booking.*"]
[[source]]
name = "loyalty"
url = "mysql://cdc@127.0.0.1:2"
tables = ["loyalty.*"]
"#;

impl Place {
    fn new(test: &str) -> Self {
        let scratch = Scratch::new(test);
        let mut place = Self { config: Arc::new(load(scratch.path(), "")), lake: lake(scratch.path()), scratch };
        place.configure("");
        place
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// `channels` are the `[[notice]]` of config.toml.
    fn configure(&mut self, channels: &str) {
        self.config = Arc::new(load(self.scratch.path(), channels));
    }

    fn contract(&self, table: &str, owners: &[&str]) {
        let folder = self.path().join("schemas");
        fs::create_dir_all(&folder).expect("writable");
        let text = format!("table = \"{table}\"\nowners = {owners:?}\n");
        fs::write(folder.join(format!("{table}.toml")), text).expect("writable");
    }

    async fn start(&self, source: &str) -> Deliveries {
        Deliveries::start(&self.lake, &self.config, source, QUICK).await.expect("the lake is a folder")
    }

    async fn outbox(&self, source: &str) -> Outbox {
        Outbox::open(self.lake.ledger_store(source).expect("a folder")).await.expect("readable")
    }
}

fn load(folder: &Path, channels: &str) -> Config {
    fs::write(folder.join("config.toml"), format!("{SOURCES}{channels}")).expect("writable");
    Config::load(&folder.join("config.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn lake(folder: &Path) -> Lake {
    let config = Config::load(&folder.join("config.toml")).unwrap_or_else(|error| panic!("{error}"));
    Lake::new(&config.lake.url, &config.lake.storage)
}

const QUICK: Pauses = Pauses {
    poll: Duration::from_millis(50),
    away: (Duration::from_millis(20), Duration::from_millis(200)),
    refused: (Duration::from_millis(50), Duration::from_millis(300)),
};

/// Each one its own event.
fn entry(kind: &str, source: &str, table: &str) -> OutboxEntry {
    OutboxEntry { id: Uuid::new_v4(), at: Utc::now(), ..sample::entry(kind, source, table) }
}

fn entry_at(at: DateTime<Utc>, kind: &str, source: &str, table: &str) -> OutboxEntry {
    OutboxEntry { at, ..entry(kind, source, table) }
}
