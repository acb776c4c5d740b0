//! Tables that are written copy-on-write by their contracts, on real servers under load and kill -9: source and lake are equal,
//! readers without deletion vectors read the lake, and a table goes from one mode to the other and back.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::daemon::{Daemon, Lakeward};
use support::load::{self, Load, TABLES};
use support::oracle::{Oracle, Readers};
use support::source::{Database, Kind};
use support::{Scratch, delta_log, on_each};

const KILLS: usize = 8;

struct Case {
    database: Database,
    scratch: Scratch,
    lakeward: Lakeward,
    oracle: Oracle,
    readers: Readers,
}

impl Case {
    async fn new(kind: Kind) -> Option<Self> {
        let database = Database::create(kind, "modes").await?;
        let (oracle, readers) = (Oracle::start(None)?, Readers::start()?);
        let scratch = Scratch::new("modes");
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        fs::create_dir(scratch.path().join("schemas")).expect("writable");
        let config = format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[snapshot]\nchunk_rows = 100\n{}",
            database.source_toml()
        );
        let lakeward = Lakeward::new(scratch.path(), &config);
        load::create_tables(&database).await;
        Some(Self { database, scratch, lakeward, oracle, readers })
    }

    fn contract(&self, table: &str, mode: &str) {
        let text = format!("table = \"{}\"\nwrite_mode = \"{mode}\"\n", self.database.table(table));
        fs::write(self.scratch.path().join(format!("schemas/{table}.toml")), text).expect("writable");
    }

    fn folder(&self, table: &str) -> PathBuf {
        self.scratch.path().join("lake/src").join(self.database.table(table).replace('.', "/"))
    }

    /// That the lake is what the source has, for every reader.
    fn assert_equal(&mut self) {
        let tables = TABLES.map(|table| self.database.table(table));
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let lake = self.scratch.path().join("lake/src").display().to_string();
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &names);
        for table in TABLES {
            self.readers.assert_agree(&self.folder(table).display().to_string());
        }
    }

    /// Waits until `done` says so.
    fn wait(&self, daemon: &Daemon, done: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < Duration::from_secs(180), "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A daemon that runs meanwhile, until `done` says so; returns its log.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> String {
        let daemon = self.lakeward.start();
        self.wait(&daemon, done);
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        log
    }
}

async fn tables_are_written_by_their_modes(kind: Kind) {
    let Some(mut case) = Case::new(kind).await else { return };
    case.contract("accounts", "copy_on_write");
    case.contract("bookings", "copy_on_write");
    let seed = kind as u64 + 1;
    let mut random = StdRng::seed_from_u64(seed);
    let writers = Load::start(&case.database, 3, Duration::from_millis(20), seed).await;
    let rewritten = |case: &Case, table: &str| {
        let folder = case.folder(table);
        if folder.join("_delta_log").exists() { delta_log::actions(&folder, "remove").len() } else { 0 }
    };
    // Each time a few files more are written anew, and it dies at whatever it does then.
    for kill in 1..=KILLS {
        let daemon = case.lakeward.start();
        case.wait(&daemon, |case| ["accounts", "bookings"].iter().all(|table| rewritten(case, table) >= kill));
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        daemon.kill();
    }
    writers.stop().await;
    case.lakeward.catch_up();
    case.assert_equal();
    case.lakeward.assert_verified();
    for table in ["accounts", "bookings"] {
        delta_log::assert_plain(&case.folder(table), table);
    }
    assert!(delta_log::asks_for_vectors(&case.folder("audit")), "it has no contract");

    // One begins to have deletion vectors …
    case.contract("bookings", "merge_on_read");
    let mut session = case.database.session().await;
    session.run("UPDATE bookings SET guest = 'marked' WHERE id < 300000; DELETE FROM bookings WHERE id < 20000").await;
    case.lakeward.catch_up();
    case.assert_equal();
    assert!(
        delta_log::asks_for_vectors(&case.folder("bookings"))
            && delta_log::files_with_vectors(&case.folder("bookings")) > 0
    );

    // … is rid of them again, and says what is left of them …
    case.contract("bookings", "copy_on_write");
    session
        .run("UPDATE bookings SET guest = 'written anew' WHERE id > 2900000; DELETE FROM accounts WHERE id = 5")
        .await;
    let log = case.run_until(|case| delta_log::files_with_vectors(&case.folder("bookings")) == 0);
    assert!(log.contains("goes on asking readers to know them"), "{log}");
    case.lakeward.catch_up();
    case.assert_equal();
    assert!(delta_log::asks_for_vectors(&case.folder("bookings")));

    // … which goes as it is told there.
    fs::rename(case.folder("bookings"), case.scratch.path().join("away")).expect("moved");
    session.run("UPDATE bookings SET guest = 'loaded anew' WHERE id < 500000").await;
    case.lakeward.catch_up();
    session.run("UPDATE bookings SET note = 'changed' WHERE id < 600000; DELETE FROM bookings WHERE id < 40000").await;
    case.lakeward.catch_up();
    case.assert_equal();
    delta_log::assert_plain(&case.folder("bookings"), "loaded anew");
    case.lakeward.assert_verified();
    case.database.drop().await;
}
on_each!(tables_are_written_by_their_modes);
