//! kill -9 while a table is loaded again: at each step, and at random moments.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::source::Kind;
use crate::writers::Writers;
use crate::{Case, assert_code, on_each};

const STEPS: [&str; 5] = ["chunk.staged", "chunk.merged", "load.finished", "swap.staged", "swap.committed"];

async fn killed_at_any_step_it_ends_equal(kind: Kind) {
    let Some(mut case) = Case::loaded(kind, "steps", "chunk_rows = 200").await else { return };
    case.lakeward.catch_up();
    let mut session = case.database.session().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let loaded_before = case.report("goods")["version"].as_u64().expect("a version");
        assert_code(&case.resync("goods", &["--no-wait"]), 0);
        let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
        daemon.wait_for_log(&format!("waiting at {step}"));
        session
            .run(&format!(
                "UPDATE goods SET price = {number} WHERE id < 200; DELETE FROM goods WHERE id = 50{number};
                 UPDATE goods SET id = 90000{number} WHERE id = 60{number}; INSERT INTO other VALUES (10{number}, 1)"
            ))
            .await;
        daemon.kill();
        case.lakeward.catch_up();
        assert_eq!(case.state("goods"), "streaming", "{step}");
        case.assert_equal(&["goods", "other"]);
        assert!(case.report("goods")["version"].as_u64() > Some(loaded_before), "{step}: the old table is still there");
        // What was built has no log of its own any more.
        let builds = std::fs::read_dir(case.folder("goods")).expect("its folder");
        let left: Vec<_> = builds
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.join("_delta_log").exists())
            .collect();
        assert!(left.is_empty(), "{step}: left behind: {left:?}");
    }
    case.database.drop().await;
}
on_each!(killed_at_any_step_it_ends_equal);

async fn killed_at_random_moments_it_ends_equal(kind: Kind) {
    let Some(mut case) = Case::loaded(kind, "kills", "chunk_rows = 10\nparallelism = 3").await else { return };
    case.lakeward.catch_up();
    let mut random = StdRng::seed_from_u64(7);
    let writers = Writers::start(&case.database, 6, Duration::from_millis(25), 2).await;
    assert_code(&case.resync("goods", &["--no-wait"]), 0);
    let mut rounds_under_way = 0;
    for _ in 0..14 {
        let daemon = case.lakeward.start();
        tokio::time::sleep(Duration::from_millis(random.random_range(400..5000))).await;
        daemon.kill();
        if case.state("goods") == "loading" {
            rounds_under_way += 1;
        } else {
            assert_code(&case.resync("goods", &["--no-wait"]), 0);
        }
    }
    let transactions = writers.stop().await;
    case.lakeward.catch_up();
    assert_eq!(case.state("goods"), "streaming");
    case.assert_equal(&["goods", "other"]);
    assert!(rounds_under_way > 2, "only {rounds_under_way} kills met a load");
    println!("{kind:?}: {rounds_under_way} kills met a load, {transactions} transactions");
    case.database.drop().await;
}
on_each!(killed_at_random_moments_it_ends_equal);
