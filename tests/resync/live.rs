//! A resync under load, watched by a reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::oracle::Reader;
use crate::support::source::Kind;
use crate::writers::Writers;
use crate::{Case, QUIET, assert_code, on_each};

/// Reads the table all the time: each read must show every row that nobody changes once, and no key twice.
struct Watcher {
    stop: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<u32>,
}

impl Watcher {
    fn start(mut reader: Reader, table: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watching = std::thread::spawn(move || {
            let mut reads = 0;
            let sql = "SELECT count(*) FILTER (id < 0), count(*) - count(DISTINCT id), count(*) > 300 FROM t";
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(reader.rows(&table, None, sql), [[json!(QUIET), json!(0), json!(true)]], "read {reads}");
                reads += 1;
                // A reader that never rests would leave the machine to nobody else.
                std::thread::sleep(Duration::from_millis(500));
            }
            reads
        });
        Self { stop, watching }
    }

    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().expect("every read was whole")
    }
}

/// `other` is followed all the while; after the load both are equal to their sources.
async fn a_resync_goes_on_beside_everything_else(kind: Kind) {
    let Some(mut case) = Case::loaded(kind, "live", "chunk_rows = 25\nparallelism = 3").await else { return };
    let Some(reader) = Reader::start(None) else { return };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.wait_for_state("goods", "streaming", &daemon);
    let writers = Writers::start(&case.database, 6, Duration::from_millis(50), 1).await;
    let watcher = Watcher::start(reader, case.folder("goods").display().to_string());
    let asked = case.resync("goods", &["--no-wait", "--reason", "in doubt"]);
    assert_code(&asked, 0);
    daemon.wait_for_log("resync begins");

    // The other table does not wait for the load: it is committed to again and again meanwhile.
    let mut session = case.database.session().await;
    let mut versions = BTreeSet::new();
    let mut id = 10;
    while !daemon.log().contains("resync done") {
        session.run(&format!("INSERT INTO other VALUES ({id}, 1)")).await;
        id += 1;
        let version = case.report("other")["version"].as_u64().expect("a version");
        // What was read beside the end of the load proves nothing.
        if !daemon.log().contains("resync done") {
            versions.insert(version);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(id < 1000, "the load does not end:\n{}", daemon.log());
    }
    assert!(versions.len() > 3, "the other table waited: {versions:?}\n{}", daemon.log());
    // One that is done is told by a command that waits for it.
    assert_code(&case.resync("other", &[]), 0);
    let reads = watcher.stop();
    let transactions = writers.stop().await;
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&["goods", "other"]);
    assert!(reads > 3 && transactions > 50, "{reads} reads, {transactions} transactions prove nothing");
    println!("{kind:?}: {transactions} transactions, {reads} reads, {} versions of the other table", versions.len());
    case.database.drop().await;
}
on_each!(a_resync_goes_on_beside_everything_else);
