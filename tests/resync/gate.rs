//! Loads that hold back while their source has enough to do.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::support::daemon::Daemon;
use crate::support::server::OwnServer;
use crate::support::source::{Database, Kind};
use crate::{Case, assert_code, on_each, text};

async fn a_load_waits_while_too_much_runs_at_the_source(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "busy", &[]) else { return };
    let database = Database::create_on(kind, server.port, "busy").await;
    let Some(mut case) = Case::on(database, "busy", "chunk_rows = 200\nrunning_max = 8").await else { return };
    let (mut daemon, mut session) = (case.lakeward.start(), case.database.admin().await);
    daemon.wait_for_log("streaming");
    if kind == Kind::Postgres {
        // What others do is hidden from it, in the first load as later.
        daemon.wait_for_log("GRANT pg_read_all_stats TO");
        let output = case.resync("goods", &[]);
        assert_code(&output, 13);
        assert!(text(&output).contains("GRANT pg_read_all_stats TO \"cdc\""), "{}", text(&output));
        session.run("GRANT pg_read_all_stats TO cdc").await;
        assert_code(&case.resync("goods", &[]), 0);
    }
    case.wait_for_state("goods", "streaming", &daemon);
    let resyncs_before = daemon.log().matches("resync done").count();
    let (mut sleepers, busy) = (Vec::new(), CancellationToken::new());
    for _ in 0..12 {
        let (mut session, busy) = (case.database.admin().await, busy.clone());
        sleepers.push(tokio::spawn(async move {
            while !busy.is_cancelled() {
                session.run(if kind == Kind::Postgres { "SELECT pg_sleep(3)" } else { "DO SLEEP(3)" }).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_code(&case.resync("goods", &["--no-wait"]), 0);
    daemon.wait_for_log("loads wait: ");
    assert!(daemon.log().contains("more than `snapshot.running_max` = 8"), "{}", daemon.log());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let resyncs = |daemon: &Daemon| daemon.log().matches("resync done").count();
    assert_eq!(resyncs(&daemon), resyncs_before, "it did not wait:\n{}", daemon.log());
    busy.cancel();
    let begun = Instant::now();
    while resyncs(&daemon) == resyncs_before {
        assert!(begun.elapsed() < Duration::from_secs(120), "it waits for ever:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for sleeper in sleepers {
        sleeper.await.expect("it sleeps");
    }
    session.run("UPDATE goods SET price = 7 WHERE id < 100").await;
    daemon.terminate();
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);
}
on_each!(a_load_waits_while_too_much_runs_at_the_source);

/// The source is a replica that is told to stay behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_waits_while_replication_is_behind() {
    let kind = Kind::MariaDb;
    let Some(primary) = OwnServer::start(kind, "primary", &[]) else { return };
    let Some(replica) = OwnServer::start(kind, "replica", &["server-id=2", "gtid_domain_id=2", "log_slave_updates=ON"])
    else {
        return;
    };
    let first = Database::create_on(kind, primary.port, "behind").await;
    let database = Database { kind, name: first.name.clone(), port: replica.port };
    let mut at_replica = Database::create_on(kind, replica.port, "unused").await.admin().await;
    let source = format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'app', MASTER_PASSWORD = 'app',
         MASTER_USE_GTID = slave_pos",
        primary.port
    );
    at_replica.run(&format!("GRANT SLAVE MONITOR ON *.* TO cdc; {source}; START SLAVE")).await;
    let begun = Instant::now();
    let exists = format!("SELECT count(*) FROM information_schema.schemata WHERE schema_name = '{}'", first.name);
    while at_replica.value(&exists).await.as_deref() != Some("1") {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not replicate");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Written at the replica; what comes from the primary is another table's.
    let Some(mut case) = Case::on(database, "behind", "replica_lag_seconds_max = 2").await else { return };
    let (mut daemon, mut at_primary) = (case.lakeward.start(), first.session().await);
    daemon.wait_for_log("streaming");
    case.wait_for_state("goods", "streaming", &daemon);
    at_replica.run("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 600; START SLAVE").await;
    at_primary.run("CREATE TABLE late (id INT PRIMARY KEY); INSERT INTO late VALUES (1)").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_code(&case.resync("goods", &["--no-wait"]), 0);
    daemon.wait_for_log("loads wait: replication is ");
    assert!(!daemon.log().contains("resync done"), "it did not wait:\n{}", daemon.log());
    at_replica.run("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 0; START SLAVE").await;
    daemon.wait_for_log("resync done");
    daemon.terminate();
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other", "late"]);
}
