//! One daemon per source.

use super::*;

on_each!(a_second_daemon_is_refused_and_told_who_holds_the_source, a_killed_daemon_does_not_keep_the_next_one_out);

async fn a_second_daemon_is_refused_and_told_who_holds_the_source(kind: Kind) {
    let Some(mut case) = Case::new(kind, "second").await else { return };
    let mut first = case.lakeward.start();
    first.wait_for_log("streaming");
    let host = hostname::get().expect("a host name").to_string_lossy().into_owned();
    let holder = format!("process {} on host {host}", first.id());

    case.change(10).await;
    every_run_says(&case.lakeward, 9, &["source `src` is run by another lakeward", &holder]);
    assert!(first.is_running(), "{}", first.log());
    case.change(11).await;

    first.wait_for_log("committed");
    let (status, log) = first.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.database.drop().await;
}

async fn a_killed_daemon_does_not_keep_the_next_one_out(kind: Kind) {
    let Some(mut case) = Case::new(kind, "killed").await else { return };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.change(10).await;
    daemon.kill();
    let started = Instant::now();
    case.lakeward.catch_up();
    // A lease lasts for a minute; this one died with its process.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    case.assert_equal(&BOTH);
    case.database.drop().await;
}

/// Two lakes must not share a slot: what one has read, the other would never see.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_another_lake_reads_is_refused() {
    let Some(mut case) = Case::new(Kind::Postgres, "shared").await else { return };
    let mut first = case.lakeward.start();
    first.wait_for_log("streaming");
    let other = Scratch::new("shared-other");
    let second = lakeward(other.path(), &case.database.source_toml());
    let (code, output) = ended(&second, &["run", "--until-caught-up"]);
    assert_eq!(code, 9, "{output}");
    let slot = format!("replication slot `{}` is in use by process", case.database.name);
    assert!(output.contains(&slot) && output.contains("another `slot`"), "{output}");
    case.change(10).await;
    let (status, log) = first.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.database.drop().await;
}
