//! The commands: what they refuse, what they join, what they give up.

use serde_json::Value;

use crate::support::source::Kind;
use crate::{Case, assert_code, on_each, text};

async fn what_can_not_be_loaded_again_is_refused_and_nothing_changes(kind: Kind) {
    let Some(mut case) = Case::new(kind, "refused", "").await else { return };
    let config = case.scratch.path().join("config.toml");
    let other = case.database.table("other");
    let captured = std::fs::read_to_string(&config).expect("config.toml");
    std::fs::write(&config, captured.replace(".*\"]", &format!(".*\", \"!{other}\"]"))).expect("writable");
    case.lakeward.catch_up();
    let schema = other.split('.').next().expect("a schema").to_owned();
    for (table, expected) in [
        (format!("{schema}.godos"), format!("did you mean {schema}.goods?")),
        (other, "`tables` of source `src` does not select it".to_owned()),
        (format!("nowhere/{schema}.goods"), "there is no source `nowhere`".to_owned()),
        ("goods".to_owned(), "it is named database.table or schema.table".to_owned()),
    ] {
        for command in ["resync", "snapshot"] {
            let refused = case.command(&[command, &table]);
            assert_code(&refused, 2);
            assert!(text(&refused).contains(&expected), "{table}: {}", text(&refused));
        }
    }
    let refused = case.resync("goods", &["--cancel"]);
    assert_code(&refused, 2);
    assert!(text(&refused).contains("nothing to cancel"), "{}", text(&refused));
    assert!(!case.scratch.path().join("lake/_lakeward/src/request").exists(), "nothing was asked for");
    let there = case.command(&["snapshot", &case.database.table("goods")]);
    assert_code(&there, 0);
    assert!(text(&there).contains("is in the lake"), "{}", text(&there));
    case.database.drop().await;
}
on_each!(what_can_not_be_loaded_again_is_refused_and_nothing_changes);

async fn a_resync_is_joined_and_can_be_given_up(kind: Kind) {
    let Some(mut case) = Case::loaded(kind, "joined", "chunk_rows = 20\nrows_per_second_max = 150").await else {
        return;
    };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.wait_for_state("goods", "streaming", &daemon);
    assert_code(&case.resync("goods", &["--no-wait"]), 0);
    let again = case.resync("goods", &["--no-wait"]);
    assert_code(&again, 0);
    assert!(text(&again).contains("is being resynced already"), "{}", text(&again));
    daemon.wait_for_log("resync begins");
    case.wait_for_state("goods", "loading", &daemon);
    let again = case.resync("goods", &["--no-wait"]);
    assert!(text(&again).contains("is being resynced already"), "{}", text(&again));
    let status = case.command(&["resync", "--status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((&status[0]["state"], status.as_array().map(Vec::len)), (&"loading".into(), Some(1)), "{status}");
    assert_eq!(std::fs::read_dir(case.scratch.path().join("lake/_lakeward/src/request")).expect("requests").count(), 1);

    // The table stays as it is, and says what has become of it; nothing is left of what was built.
    let given_up = case.resync("goods", &["--cancel"]);
    assert_code(&given_up, 0);
    assert_eq!(case.state("goods"), "stopped");
    assert!(case.report("goods")["error"].as_str().is_some_and(|error| error.contains("its resync was given up")));
    let builds = std::fs::read_dir(case.folder("goods")).expect("its folder");
    let left = builds
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("resync-")));
    assert_eq!(left.count(), 0, "what was built is left behind");

    let mut session = case.database.session().await;
    session.run("DELETE FROM goods WHERE id < 1000 AND id >= 0").await;
    assert_code(&case.resync("goods", &[]), 0);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);
    case.database.drop().await;
}
on_each!(a_resync_is_joined_and_can_be_given_up);
