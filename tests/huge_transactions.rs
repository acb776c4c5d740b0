//! a transaction several times the memory budget is applied in one Delta commit, with memory within the budget and
//! a stated overhead; a crash in the middle of it changes nothing.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::Scratch;
use support::daemon::{Daemon, Lakeward};
use support::delta_log;
use support::oracle::Oracle;
use support::source::{Database, Kind, Session};

const BUDGET_MIB: u64 = 64;

/// README, "Limits known today": the process itself, and the key index.
const PROCESS_MIB: u64 = 96;
const INDEX_BYTES_PER_ROW: u64 = 40;

/// Rows a transaction inserts, of about 1.7 kB.
const ROWS: u64 = 130_000;

const KILLS: u64 = 4;

fn numbers(kind: Kind, first: u64, count: u64) -> String {
    match kind {
        Kind::Postgres => format!("generate_series({first}::bigint, {}) AS s(seq)", first + count - 1),
        Kind::MariaDb | Kind::MySql => format!("seq_{first}_to_{}", first + count - 1),
    }
}

/// `length` characters that do not compress away, other ones for each row.
fn text(kind: Kind, length: u64) -> String {
    match kind {
        // Longer than a page quarter even when compressed: stored out of line, and left out of the log when unchanged.
        Kind::Postgres if length > 5000 => {
            format!("(SELECT string_agg(md5((seq * 1000 + n)::text), '') FROM generate_series(1, {}) n)", length / 32)
        }
        Kind::Postgres => format!("repeat(md5(seq::text), {})", length / 32),
        Kind::MariaDb | Kind::MySql => format!("REPEAT(MD5(seq), {})", length / 32),
    }
}

async fn create(kind: Kind, session: &mut Session) {
    session
        .run(&format!(
            "CREATE TABLE big (id BIGINT PRIMARY KEY, k INT, note TEXT, doc TEXT);
             CREATE TABLE small (id INT PRIMARY KEY, v INT);
             INSERT INTO big SELECT seq, 0, {}, {} FROM {};
             INSERT INTO small VALUES (1, 1)",
            text(kind, 64),
            text(kind, 9000),
            numbers(kind, 1, 3000)
        ))
        .await;
}

/// Inserts, updates of old and new rows, key changes of both, deletes of both, a row that is touched many times.
fn transaction(kind: Kind, round: u64) -> String {
    let first = round * 10_000_000;
    let mut sql = format!(
        "BEGIN;
         INSERT INTO big SELECT seq, 1, {}, 'short' FROM {};
         UPDATE big SET k = k + 1 WHERE id <= 2000;
         UPDATE big SET k = k + 1 WHERE id % 10 = 0;
         UPDATE big SET id = id + 1000000 WHERE id % 7 = 0;
         UPDATE big SET k = 7 WHERE id % 13 = 0;
         DELETE FROM big WHERE id % 11 = 0;
         INSERT INTO small VALUES ({}, 2);",
        text(kind, 1600),
        numbers(kind, first, ROWS),
        round + 10
    );
    for _ in 0..50 {
        sql.push_str("UPDATE big SET k = k + 1 WHERE id = 5;");
    }
    sql + "COMMIT"
}

struct Case {
    database: Database,
    session: Session,
    scratch: Scratch,
    oracle: Oracle,
    lakeward: Lakeward,
}

impl Case {
    fn lake(&self) -> PathBuf {
        self.scratch.path().join("lake/src")
    }

    fn spill(&self) -> PathBuf {
        self.scratch.path().join("spill")
    }

    /// How many commits brought changes to `big`; others are compactions.
    fn changes(&self) -> usize {
        let log = delta_log::entries(&self.lake().join(self.database.table("big").replace('.', "/")));
        log.iter().filter(|actions| delta_log::commit_info(actions)["operation"] == "STREAMING UPDATE").count()
    }

    fn assert_equal(&mut self) {
        let tables = ["big", "small"].map(|table| self.database.table(table));
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let lake = self.lake().display().to_string();
        self.oracle.assert_equal(&self.database.oracle_url(), &lake, &tables);
    }

    fn wait_for_changes(&self, daemon: &mut Daemon, commits: usize) {
        let started = Instant::now();
        while self.changes() < commits {
            assert!(daemon.is_running(), "lakeward ended:\n{}", daemon.log());
            assert!(started.elapsed() < Duration::from_secs(400), "commit {commits} did not come:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The most memory the process ever held, in MiB, as the kernel counts it.
fn peak_mib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") / 1024
}

async fn stays_within_its_budget(kind: Kind) {
    let Some(database) = Database::create(kind, "huge").await else { return };
    let Some(oracle) = Oracle::start(None) else { return };
    let scratch = Scratch::new("huge");
    let session = database.session().await;
    fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let config = format!(
        "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n[memory]\nbudget = \"{BUDGET_MIB}MiB\"\nspill_dir = \"spill\"\n{}",
        database.source_toml()
    );
    let lakeward = Lakeward::new(scratch.path(), &config);
    let mut case = Case { database, session, scratch, oracle, lakeward };
    create(kind, &mut case.session).await;
    case.lakeward.catch_up();

    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let before = peak_mib(&daemon);
    case.session.run(&transaction(kind, 1)).await;
    case.wait_for_changes(&mut daemon, 1);
    std::thread::sleep(Duration::from_secs(2));
    let peak = peak_mib(&daemon);
    println!("{kind:?}: peak memory {peak} MiB ({before} MiB before), budget {BUDGET_MIB} MiB");
    let allowed = BUDGET_MIB + PROCESS_MIB + ((2 * ROWS * INDEX_BYTES_PER_ROW) >> 20);
    assert!(peak < allowed, "peak memory {peak} MiB, allowed {allowed} MiB");
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.assert_equal();
    assert_eq!(case.changes(), 1, "one transaction, one commit");

    // Killed at several moments of the next one: while it comes, while it is applied.
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run(&transaction(kind, 2)).await;
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(400 + 1200 * kill));
        daemon.kill();
        let left = fs::read_dir(case.spill()).map_or(0, |folder| folder.count());
        assert_eq!(left, 0, "a crash leaves nothing on disk");
        daemon = case.lakeward.start();
        daemon.wait_for_log("streaming");
    }
    case.wait_for_changes(&mut daemon, 2);
    std::thread::sleep(Duration::from_secs(2));
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.assert_equal();
    assert_eq!(case.changes(), 2, "one transaction, one commit");
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_a_huge_transaction_stays_within_the_budget_and_survives_kills() {
    stays_within_its_budget(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_huge_transaction_stays_within_the_budget_and_survives_kills() {
    stays_within_its_budget(Kind::Postgres).await;
}
