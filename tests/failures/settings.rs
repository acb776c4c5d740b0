//! Wrong settings, on servers of the tests' own.

use super::*;

on_each!(every_wrong_setting_is_named_at_once_and_its_remedy_mends_it);

async fn every_wrong_setting_is_named_at_once_and_its_remedy_mends_it(kind: Kind) {
    match kind {
        Kind::MariaDb | Kind::MySql => mysql(kind).await,
        Kind::Postgres => postgres().await,
    }
}

fn subjects(found: &[Found]) -> Vec<&str> {
    let mut subjects: Vec<&str> = found.iter().map(|problem| problem.subject.as_str()).collect();
    subjects.sort_unstable();
    subjects
}

async fn mysql(kind: Kind) {
    // The last two are worth a warning, no more.
    let wrong = ["binlog_format=STATEMENT", "binlog_row_image=MINIMAL", "binlog_row_metadata=MINIMAL"];
    let options = [&wrong[..], &["skip-log-bin"]].concat();
    let Some(server) = OwnServer::start(kind, "settings", &options) else { return };
    let Some(mut case) = Case::on(&server, "settings").await else { return };

    let remedies = ["log_bin=binlog", "SET GLOBAL binlog_format=ROW"];
    every_command_says(&case.lakeward, 5, &remedies);
    let (_, report) = check(&case.lakeward);
    let found = problems(&report);
    assert_eq!(subjects(&found), ["binlog_format", "log_bin"]);
    assert!(found.iter().all(|problem| problem.kind == "setting"), "{found:?}");
    assert!(!case.lake().exists(), "nothing is loaded before all is right");

    // The binlog needs a restart, as its remedy says; the rest can be changed while the server runs.
    server.stop();
    server.start_again(&wrong);
    every_command_says(&case.lakeward, 5, &remedies[1..]);
    let (_, report) = check(&case.lakeward);
    let found = problems(&report);
    assert_eq!(subjects(&found), ["binlog_format"]);
    let mut admin = case.database.admin().await;
    for problem in &found {
        let (statement, rest) = problem.remedy.split_once(';').unwrap_or_else(|| panic!("{problem:?}"));
        assert!(rest.contains("my.cnf"), "{problem:?}");
        admin.run(statement).await;
    }
    let (code, report) = check(&case.lakeward);
    assert_eq!(code, 0, "{report:#}");
    let text = report.to_string();
    assert!(text.contains("SET GLOBAL binlog_row_image=FULL"), "{report:#}");
    assert!(text.contains("SET GLOBAL binlog_row_metadata=FULL"), "{report:#}");

    // Sessions opened before keep the old values, as the remedy says.
    case.session = case.database.session().await;
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

async fn postgres() {
    let options = ["wal_level = replica", "max_replication_slots = 0"];
    let Some(server) = OwnServer::start(Kind::Postgres, "settings", &options) else { return };
    let Some(mut case) = Case::on(&server, "settings").await else { return };

    let remedies = ["ALTER SYSTEM SET wal_level = 'logical'", "ALTER SYSTEM SET max_replication_slots = <more>"];
    every_command_says(&case.lakeward, 5, &remedies);
    let (_, report) = check(&case.lakeward);
    let found = problems(&report);
    assert_eq!(subjects(&found), ["max_replication_slots", "wal_level"]);
    assert!(found.iter().all(|problem| problem.kind == "setting"), "{found:?}");
    assert!(!case.lake().exists(), "nothing is loaded before all is right");

    let mut admin = case.database.admin().await;
    for problem in &found {
        let (statement, rest) = problem.remedy.split_once(", then restart the server").expect("a restart");
        assert!(statement.starts_with("ALTER SYSTEM"), "{rest}");
        admin.run(&statement.replace("<more>", "10")).await;
    }
    drop(admin);
    server.stop();
    // What ALTER SYSTEM wrote goes before these.
    server.start_again(&options);
    case.session = case.database.session().await;
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

/// No session is left for the log: told as the setting that it is, although not even a replication session can be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_without_wal_senders_is_told_which_setting_to_change() {
    let options = ["max_wal_senders = 0"];
    let Some(server) = OwnServer::start(Kind::Postgres, "senders", &options) else { return };
    let Some(case) = Case::on(&server, "senders").await else { return };
    every_command_says(&case.lakeward, 5, &["ALTER SYSTEM SET max_wal_senders = <more>"]);
}
