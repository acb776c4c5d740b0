//! Lost positions: never a gap, and the README's way back ("When a position is lost").

use super::*;

on_each!(a_server_with_another_history_is_refused);
on_each!(a_server_with_another_history_is_loaded_anew_where_that_is_set);

const README: &str = "When a position is lost";

/// As it is to be typed.
const COMMAND: &str = "`lakeward resync --all --source src`";

async fn purged(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "purged", &[]) else { return };
    let Some(mut case) = Case::on(&server, "purged").await else { return };
    let before = purge(&mut case).await;
    every_run_says(&case.lakeward, 10, &["is no longer available at the source", "purged", README, COMMAND]);
    assert_eq!(contents(&case.lake()), before, "the lake was touched");

    case.forget_the_source().await;
    case.lakeward.catch_up();
    case.change(13).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

/// Loads the tables, and purges a log that was not read. What the lake had before.
async fn purge(case: &mut Case) -> BTreeMap<PathBuf, u64> {
    let kind = case.database.kind;
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    let before = contents(&case.lake());

    case.change(11).await;
    case.session.run("FLUSH BINARY LOGS").await;
    let status = if kind == Kind::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let newest = case.session.value(status).await.expect("a binlog");
    // MariaDB keeps a log for recovery until its checkpoint, a moment later, and says nothing.
    while case.session.value("SHOW BINARY LOGS").await.as_ref() != Some(&newest) {
        case.session.run(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
    }
    case.change(12).await;
    before
}

/// `on_lost_position = "resync"`: it is got over by itself, and readers see the old tables until the new ones are whole.
async fn is_got_over(case: &mut Case, number: u32) {
    case.configure("on_lost_position = \"resync\"");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.change(number).await;
    let mut daemon = case.lakeward.start();
    case.becomes_equal(&mut daemon);
    let (status, log) = daemon.terminate();
    assert!(status.success() && !log.contains("all tables are loaded anew"), "{log}");
    case.lakeward.assert_verified();
}

async fn purged_and_loaded_anew(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "purgedanew", &[]) else { return };
    let Some(mut case) = Case::on(&server, "purgedanew").await else { return };
    let before = purge(&mut case).await;
    is_got_over(&mut case, 13).await;
    let now = contents(&case.lake());
    assert!(before.keys().all(|path| now.contains_key(path)), "files of old versions are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_binlog_is_got_over_where_that_is_set_mariadb() {
    purged_and_loaded_anew(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_binlog_is_got_over_where_that_is_set_mysql() {
    purged_and_loaded_anew(Kind::MySql).await;
}

/// A slot that is gone, one that went on without us, and a publication that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_got_over_where_that_is_set() {
    for (name, harm) in [
        ("dropanew", "SELECT pg_drop_replication_slot('{slot}')"),
        ("moveanew", "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"),
        ("publanew", "DROP PUBLICATION lakeward_src"),
    ] {
        let Some(mut case) = Case::new(Kind::Postgres, name).await else { return };
        case.lakeward.catch_up();
        case.session.run("SET synchronous_commit = on").await;
        case.change(11).await;
        case.database.admin().await.run(&harm.replace("{slot}", &case.database.name)).await;
        case.change(12).await;
        is_got_over(&mut case, 13).await;
        case.database.drop().await;
    }
}

/// It happens while lakeward runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_goes_while_it_is_read_is_got_over_where_that_is_set() {
    let Some(mut case) = Case::new(Kind::Postgres, "runanew").await else { return };
    case.configure("on_lost_position = \"resync\"");
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let mut admin = case.database.admin().await;
    let slot = &case.database.name;
    // Whoever reads it comes back soon.
    let drop = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active_pid IS NOT \
         NULL; SELECT pg_drop_replication_slot('{slot}')"
    );
    while admin.try_run(&drop).await.is_err() {}
    case.change(11).await;
    daemon.wait_for_log("all tables are loaded anew");
    case.becomes_equal(&mut daemon);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_binlog_is_told_and_the_readme_leads_back_mariadb() {
    purged(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_binlog_is_told_and_the_readme_leads_back_mysql() {
    purged(Kind::MySql).await;
}

/// Loaded, then `harm` done with changes before and after, then refused, then led back.
async fn postgres_position_lost(case: &mut Case, harm: &str, texts: &[&str]) {
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    let before = contents(&case.lake());
    let mut admin = case.database.admin().await;
    let slots = format!(
        "SELECT coalesce(string_agg(confirmed_flush_lsn::text, ','), 'none') FROM pg_replication_slots
         WHERE database = '{}'",
        case.database.name
    );

    case.change(11).await;
    admin.run(harm).await;
    case.change(12).await;
    let slots_before = admin.value(&slots).await;

    every_run_says(&case.lakeward, 10, &[texts, &[README, COMMAND]].concat());
    assert_eq!(contents(&case.lake()), before, "the lake was touched");
    assert_eq!(admin.value(&slots).await, slots_before, "a slot was made or moved");

    case.forget_the_source().await;
    case.lakeward.catch_up();
    case.change(13).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

///
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_told_and_never_made_again_by_itself() {
    let Some(mut case) = Case::new(Kind::Postgres, "dropped").await else { return };
    let slot = case.database.name.clone();
    let harm = format!("SELECT pg_drop_replication_slot('{slot}')");
    let text = format!("replication slot `{slot}` does not exist any more");
    postgres_position_lost(&mut case, &harm, &[&text]).await;
    case.database.drop().await;
}

///
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_advanced_by_somebody_else_is_told() {
    let Some(mut case) = Case::new(Kind::Postgres, "advanced").await else { return };
    let slot = case.database.name.clone();
    // A slot does not go where the log is not on disk yet.
    case.session.run("SET synchronous_commit = on").await;
    let harm = format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())");
    let text = format!("replication slot `{slot}` was advanced to");
    postgres_position_lost(&mut case, &harm, &[&text]).await;
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_publication_is_told() {
    let Some(mut case) = Case::new(Kind::Postgres, "unpublished").await else { return };
    postgres_position_lost(&mut case, "DROP PUBLICATION lakeward_src", &["publication `lakeward_src` was dropped"])
        .await;
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_told() {
    let Some(server) = OwnServer::start(Kind::Postgres, "givenup", &["max_slot_wal_keep_size = '1MB'"]) else {
        return;
    };
    let Some(mut case) = Case::on(&server, "givenup").await else { return };
    case.lakeward.catch_up();
    let before = contents(&case.lake());
    let mut admin = case.database.admin().await;
    for number in 10..14 {
        case.change(number).await;
        admin.run("SELECT pg_switch_wal()").await;
    }
    admin.run("CHECKPOINT").await;
    let slot = &case.database.name;
    let status = admin.value(&format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
    assert_eq!(status.as_deref(), Some("lost"));

    let text = format!("replication slot `{slot}` was invalidated");
    every_command_says(&case.lakeward, 10, &[&text, README, COMMAND]);
    assert_eq!(contents(&case.lake()), before, "the lake was touched");
    // Of no use to anybody, it goes with the position.
    is_got_over(&mut case, 14).await;
}

/// A restore or a failover to a server that knows nothing of ours. MariaDB's log is told by its numbers only: a server
/// of the same ids that has counted further can't be told from ours (README, "Limits known today").
async fn a_server_with_another_history_is_refused(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "history", &[]) else { return };
    let Some(mut case) = Case::on(&server, "history").await else { return };
    let before = replace(&mut case, &server).await;
    every_run_says(&case.lakeward, 10, &[README, COMMAND]);
    assert_eq!(contents(&case.lake()), before, "the lake was touched");

    case.forget_the_source().await;
    case.lakeward.catch_up();
    case.change(31).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

async fn a_server_with_another_history_is_loaded_anew_where_that_is_set(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "historyanew", &[]) else { return };
    let Some(mut case) = Case::on(&server, "historyanew").await else { return };
    replace(&mut case, &server).await;
    is_got_over(&mut case, 31).await;
}

/// Puts another server in the place of the one that was read. What the lake had before.
async fn replace(case: &mut Case, server: &OwnServer) -> BTreeMap<PathBuf, u64> {
    for number in 10..30 {
        case.change(number).await;
    }
    case.lakeward.catch_up();
    let before = contents(&case.lake());

    server.replace();
    // The same names as before: only the history differs.
    let fresh = Database::create_as(server.kind, server.port, case.database.name.clone()).await;
    case.session = fresh.session().await;
    case.session
        .run(
            "CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(80), price DECIMAL(12,2));
             CREATE TABLE coupons (code VARCHAR(20) PRIMARY KEY, discount DOUBLE PRECISION)",
        )
        .await;
    before
}
