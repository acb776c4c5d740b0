//! Kill -9 at each step of a splice, with readers that poll: they never see a mixed schema or miss a row.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::daemon::Lakeward;
use crate::support::oracle::{Oracle, Reader, S3};
use crate::support::source::{Database, Kind};
use crate::support::{Scratch, root, setting};
use crate::{Case, FOLLOW};

const ROWS: i64 = 60_000;

/// The steps at which a debug build waits when it is told to.
const STEPS: [&str; 3] = ["evolve.spliced", "evolve.staged", "evolve.committed"];

struct Poller(Child);

impl Poller {
    fn start(engine: &str, table: &str) -> Option<Self> {
        let child = Command::new(setting("LAKEWARD_TEST_PYTHON")?)
            .arg(root().join("tests/oracle/poll.py"))
            .args([engine, table, &ROWS.to_string(), &(ROWS * (ROWS - 1) / 2).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        Some(Self(child))
    }

    fn end(mut self) -> Value {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        self.0.wait().expect("our child");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("the poller said {text:?}: {error}"))
    }
}

async fn killed_at_each_step(kind: Kind) {
    for step in STEPS {
        let Some(mut case) = Case::start(kind, "splice", FOLLOW).await else { return };
        case.session.run("CREATE TABLE t (id INT PRIMARY KEY, v INT, w VARCHAR(20))").await;
        for part in 0..6 {
            let rows: Vec<String> =
                (0..ROWS / 6).map(|row| row + part * ROWS / 6).map(|id| format!("({id},{id},'w{id}')")).collect();
            for chunk in rows.chunks(5000) {
                case.session.run(&format!("INSERT INTO t VALUES {}", chunk.join(","))).await;
            }
            // A file for each part, and deletion vectors in some.
            case.lakeward.catch_up();
            case.session.run(&format!("UPDATE t SET w = 'changed' WHERE id < {} AND id % 50 = 0", part * 1000)).await;
        }
        case.lakeward.catch_up();
        let folder = case.folder("t");
        let pollers =
            [Poller::start("duckdb", &folder).expect("python"), Poller::start("polars", &folder).expect("python")];
        case.session.run("ALTER TABLE t ADD n INT DEFAULT 7").await;
        case.session.run("UPDATE t SET w = 'after' WHERE id % 1000 = 0").await;
        let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
        daemon.wait_for_log(&format!("waiting at {step}"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        daemon.kill();
        case.lakeward.catch_up();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for poller in pollers {
            let seen = poller.end();
            assert_eq!(seen["violations"], json!([]), "{step}: {seen}");
            assert!(seen["reads"].as_u64().is_some_and(|reads| reads > 2), "{step}: {seen}");
            assert!(seen["with_n"].as_u64().is_some_and(|reads| reads > 0), "{step}: {seen}");
        }
        case.assert_equal(&["t"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splice_that_is_killed_at_any_step_is_whole_or_not_there_mariadb() {
    killed_at_each_step(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splice_that_is_killed_at_any_step_is_whole_or_not_there_postgres() {
    killed_at_each_step(Kind::Postgres).await;
}

/// On S3, with a file that the store copies by parts and one that is too small for that: whoever is killed between the parts
/// and the commit leaves nothing that a reader sees.
async fn killed_at_each_step_on_s3(kind: Kind) {
    let Some(s3) = S3::at("LAKEWARD_TEST_S3_PORT") else { return };
    let Some(database) = Database::create(kind, "s3splice").await else { return };
    let (Some(mut oracle), Some(mut reader)) = (Oracle::start(Some(s3.clone())), Reader::start(Some(s3.clone())))
    else {
        return;
    };
    let scratch = Scratch::new("s3splice");
    std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let lake = format!("s3://lake/{}", database.name);
    let settings = format!("{}\n[commit]\ninterval_seconds = 1\n{FOLLOW}\n", s3.storage());
    let config = format!("[lake]\nurl = \"{lake}\"\n{settings}{}", database.source_toml());
    let mut lakeward = Lakeward::new(scratch.path(), &config);
    let mut session = database.session().await;
    session.run("CREATE TABLE t (id INT PRIMARY KEY, v INT, w TEXT)").await;
    // What does not compress: more than two of the store's smallest parts.
    let mut random = StdRng::seed_from_u64(7);
    let mut id = 0;
    for _ in 0..25 {
        let mut rows = Vec::new();
        for _ in 0..100 {
            let text: String = (0..12_000).map(|_| char::from(random.random_range(b'A'..=b'z').max(b'_'))).collect();
            id += 1;
            rows.push(format!("({id},{id},'{text}')"));
        }
        session.run(&format!("INSERT INTO t VALUES {}", rows.join(","))).await;
    }
    lakeward.catch_up();
    session.run("INSERT INTO t VALUES (10001, 1, 'small'), (10002, 2, NULL); DELETE FROM t WHERE id % 100 = 7").await;
    lakeward.catch_up();
    let table = database.table("t");
    let url = format!("{lake}/src/{}", table.replace('.', "/"));
    let rows = |reader: &mut Reader, version| reader.rows(&url, version, "SELECT count(*), max(v), sum(id) FROM t");
    let before = rows(&mut reader, None);
    for (number, step) in STEPS.into_iter().enumerate() {
        session.run(&format!("ALTER TABLE t ADD n{number} INT DEFAULT 7")).await;
        session.run(&format!("UPDATE t SET v = v + 0, n{number} = 8 WHERE id % 100 = 3")).await;
        let version = |lakeward: &Lakeward| lakeward.tables()[0]["version"].as_u64().expect("a version");
        let first = version(&lakeward);
        let mut daemon = lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
        daemon.wait_for_log(&format!("waiting at {step}"));
        assert_eq!(rows(&mut reader, None), before, "{step}");
        daemon.kill();
        assert_eq!(rows(&mut reader, None), before, "{step}");
        lakeward.catch_up();
        for version in first..=version(&lakeward) {
            assert_eq!(rows(&mut reader, Some(version)), before, "{step}: version {version}");
        }
        oracle.assert_equal(&database.oracle_url(), &format!("{lake}/src"), &[&table]);
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splice_on_s3_that_is_killed_at_any_step_is_whole_or_not_there_mariadb() {
    killed_at_each_step_on_s3(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splice_on_s3_that_is_killed_at_any_step_is_whole_or_not_there_postgres() {
    killed_at_each_step_on_s3(Kind::Postgres).await;
}
