//! Changes of the table itself while it is loaded again.

use std::time::Duration;

use crate::support::source::Kind;
use crate::writers::Writers;
use crate::{Case, assert_code, on_each};

/// A load that takes a few seconds, and what is done to the table in the middle of it.
async fn in_the_middle_of_a_load(kind: Kind, test: &str, statements: &[&str]) {
    let Some(mut case) = Case::loaded(kind, test, "chunk_rows = 20\nrows_per_second_max = 300").await else { return };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.wait_for_state("goods", "streaming", &daemon);
    let writers = Writers::start(&case.database, 3, Duration::from_millis(40), 3).await;
    assert_code(&case.resync("goods", &["--no-wait"]), 0);
    daemon.wait_for_log("resync begins");
    let mut session = case.database.session().await;
    for (number, statement) in statements.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        // After the first one little may be left to load.
        assert!(number > 0 || !daemon.log().contains("resync done"), "the load was too quick:\n{}", daemon.log());
        session.run(statement).await;
    }
    daemon.wait_for_log("resync done");
    writers.stop().await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    assert_eq!(case.state("goods"), "streaming", "{log}");
    case.assert_equal(&["goods", "other"]);
    case.database.drop().await;
}

async fn columns_that_change_during_a_load_are_followed(kind: Kind) {
    let statements = ["ALTER TABLE goods ADD COLUMN extra INT", "UPDATE goods SET extra = 7 WHERE id > 700"];
    in_the_middle_of_a_load(kind, "ddl", &statements).await;
}
on_each!(columns_that_change_during_a_load_are_followed);

async fn rows_from_before_a_truncate_do_not_come_back(kind: Kind) {
    let statements = ["TRUNCATE TABLE goods", "INSERT INTO goods VALUES (-5, 'after', 1, 'it')"];
    in_the_middle_of_a_load(kind, "emptied", &statements).await;
}
on_each!(rows_from_before_a_truncate_do_not_come_back);
