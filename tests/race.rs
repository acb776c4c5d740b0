//! S-4: first loads while six writers insert, update, delete and change keys. A hand-over that reads a position beside
//! its snapshot instead of with it loses or doubles changes here within a few rounds.

mod support;

use std::time::Duration;

use support::Scratch;
use support::daemon::Lakeward;
use support::load::{self, Load, TABLES};
use support::oracle::Oracle;
use support::source::{Database, Kind};

const ROUNDS: u64 = 12;
const WRITERS: u32 = 6;

async fn hand_over_is_exact(kind: Kind) {
    let Some(database) = Database::create(kind, "race").await else { return };
    let Some(mut oracle) = Oracle::start(None) else { return };
    load::create_tables(&database).await;
    if kind != Kind::Postgres {
        // The gap between writing the binlog and making rows visible is widest with both synced.
        let mut session = database.session().await;
        session.run("SET GLOBAL sync_binlog = 1; SET GLOBAL innodb_flush_log_at_trx_commit = 1").await;
    }
    let tables = TABLES.map(|table| database.table(table));
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    for round in 0..ROUNDS {
        let scratch = Scratch::new("race");
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        // A source of its own each round: new slot, new position, new first load.
        let source = database.source_toml().replace("slot = \"", &format!("slot = \"r{round}_"));
        let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{source}");
        let mut lakeward = Lakeward::new(scratch.path(), &config);
        let writers = Load::start(&database, WRITERS, Duration::from_millis(1), 100 + round).await;
        lakeward.catch_up();
        writers.stop().await;
        lakeward.catch_up();
        let lake = scratch.path().join("lake/src").display().to_string();
        if let Some(differences) = oracle.differences(&database.oracle_url(), &lake, &names) {
            panic!("round {round}: source and lake differ:\n{differences}");
        }
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_hand_over_is_exact_under_six_writers() {
    hand_over_is_exact(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_hand_over_is_exact_under_six_writers() {
    hand_over_is_exact(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_hand_over_is_exact_under_six_writers() {
    hand_over_is_exact(Kind::Postgres).await;
}
