//! What each policy makes of a change: applied, kept, held, ignored, refused; and what an approval or a rejection does.

use crate::Case;
use crate::support::source::Kind;
use serde_json::{Value, json};

const KINDS: [Kind; 2] = [Kind::MariaDb, Kind::Postgres];

/// A running case with one table of two rows.
async fn start(kind: Kind, test: &str, policies: &str) -> Option<Case> {
    let mut case = Case::start(kind, test, &format!("[schema_changes]\n{policies}")).await?;
    case.session
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(20)); INSERT INTO t VALUES (1, 1, 'x'), (2, 2, NULL)",
        )
        .await;
    case.session.run("CREATE TABLE other (id INT PRIMARY KEY, v INT); INSERT INTO other VALUES (1, 1)").await;
    case.lakeward.catch_up();
    Some(case)
}

impl Case {
    /// Rows of the lake's table `t`, as DuckDB reads them.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let mut reader = crate::support::oracle::Reader::start(None).expect("the first reader started");
        reader.rows(&self.folder("t"), None, sql)
    }

    fn names(&self) -> Vec<String> {
        let rows = self.rows("SELECT name FROM (DESCRIBE SELECT * FROM t) AS d(name, kind, n, k, e, x)");
        rows.iter().map(|row| row[0].as_str().expect("a name").to_owned()).collect()
    }

    fn decide(&self, verdict: &str) {
        let (code, out, err) = self.lakeward(&["schema", verdict, &self.database.table("t")]);
        assert_eq!(code, 0, "{out}{err}");
    }
}

/// The default: the lake keeps the column, NULL from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_kept_by_default() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "keep", "").await else { return };
        case.session
            .run("ALTER TABLE t DROP COLUMN b; INSERT INTO t VALUES (3, 3); UPDATE t SET a = 9 WHERE id = 2")
            .await;
        case.lakeward.catch_up();
        assert_eq!(
            case.rows("SELECT id, a, b FROM t ORDER BY id"),
            [
                vec![json!(1), json!(1), json!("x")],
                vec![json!(2), json!(9), Value::Null],
                vec![json!(3), json!(3), Value::Null]
            ]
        );
        // The name comes back as another column: the kept values stay, under another name.
        case.session.run("ALTER TABLE t ADD COLUMN b INT DEFAULT 5").await;
        case.session.run("INSERT INTO t (id, a) VALUES (4, 4)").await;
        case.lakeward.catch_up();
        assert_eq!(
            case.rows("SELECT id, b, b_dropped FROM t WHERE id IN (1, 4) ORDER BY id"),
            [vec![json!(1), json!(5), json!("x")], vec![json!(4), json!(5), Value::Null]]
        );
    }
}

/// A held column is not shown, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_column_appears_whole_when_it_is_approved() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "hold_add", "add = \"hold\"").await else { return };
        case.session.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 7").await;
        case.session.run("INSERT INTO t (id, a, n) VALUES (3, 3, 8)").await;
        case.lakeward.catch_up();
        assert_eq!(case.names(), ["id", "a", "b"]);
        let (code, out, _) = case.lakeward(&["schema", "show", &case.database.table("t"), "--json"]);
        assert_eq!(code, 0, "{out}");
        case.decide("approve");
        case.session.run("UPDATE t SET n = 9 WHERE id = 2").await;
        case.lakeward.catch_up();
        case.assert_equal(&["t", "other"]);
        assert_eq!(case.rows("SELECT n FROM t ORDER BY id"), [vec![json!(7)], vec![json!(9)], vec![json!(8)]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_column_that_is_rejected_is_left_out() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "reject_add", "add = \"hold\"").await else { return };
        case.session.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 7").await;
        case.session.run("INSERT INTO t (id, a, n) VALUES (3, 3, 8)").await;
        case.lakeward.catch_up();
        case.decide("reject");
        case.session.run("INSERT INTO t (id, a, n) VALUES (4, 4, 8)").await;
        case.lakeward.catch_up();
        case.session.run("UPDATE t SET n = 1, a = 5 WHERE id = 4").await;
        case.lakeward.catch_up();
        assert_eq!(case.names(), ["id", "a", "b"]);
        assert_eq!(
            case.rows("SELECT a FROM t ORDER BY id"),
            [vec![json!(1)], vec![json!(2)], vec![json!(3)], vec![json!(5)]]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_column_is_left_out() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "ignore_add", "add = \"ignore\"").await else { return };
        case.session.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 7").await;
        case.session.run("INSERT INTO t (id, a, n) VALUES (3, 3, 8)").await;
        case.lakeward.catch_up();
        case.session.run("UPDATE t SET n = 1, a = 5 WHERE id = 1").await;
        case.lakeward.catch_up();
        assert_eq!(case.names(), ["id", "a", "b"]);
        assert_eq!(case.rows("SELECT a FROM t ORDER BY id"), [vec![json!(5)], vec![json!(2)], vec![json!(3)]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_rename_keeps_the_old_name_until_it_is_approved() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "hold_rename", "rename = \"hold\"").await else { return };
        case.session.run("ALTER TABLE t RENAME COLUMN a TO aa").await;
        case.session.run("INSERT INTO t (id, aa) VALUES (3, 3)").await;
        case.lakeward.catch_up();
        assert_eq!(case.names(), ["id", "a", "b"]);
        assert_eq!(case.rows("SELECT a FROM t ORDER BY id"), [vec![json!(1)], vec![json!(2)], vec![json!(3)]]);
        case.session.run("UPDATE t SET aa = 4 WHERE id = 1").await;
        case.lakeward.catch_up();
        case.decide("approve");
        case.session.run("INSERT INTO t (id, aa) VALUES (5, 5)").await;
        case.lakeward.catch_up();
        case.assert_equal(&["t", "other"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_drop_goes_when_it_is_approved() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "hold_drop", "drop = \"hold\"").await else { return };
        case.session.run("ALTER TABLE t DROP COLUMN a; INSERT INTO t VALUES (3, 'z')").await;
        case.lakeward.catch_up();
        assert_eq!(case.rows("SELECT a FROM t ORDER BY id"), [vec![json!(1)], vec![json!(2)], vec![Value::Null]]);
        case.decide("approve");
        case.session.run("INSERT INTO t VALUES (4, 'z')").await;
        case.lakeward.catch_up();
        case.assert_equal(&["t", "other"]);
    }
}

/// A held widening makes its table wait, with everything after it; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_waits_for_a_held_widening_and_loses_nothing() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "hold_widen", "widen = \"hold\"").await else { return };
        let widen = match kind {
            Kind::Postgres => "ALTER TABLE t ALTER a TYPE BIGINT",
            _ => "ALTER TABLE t MODIFY a BIGINT",
        };
        case.session.run("INSERT INTO t VALUES (3, 3, 'before')").await;
        case.session.run(widen).await;
        case.session.run("INSERT INTO t VALUES (4, 5000000000, 'after')").await;
        for round in 2..5 {
            case.session
                .run(&format!("INSERT INTO other VALUES ({round}, {round}); UPDATE t SET b = '{round}' WHERE id = 4"))
                .await;
            let _ = case.lakeward.try_catch_up();
            case.assert_equal(&["other"]);
            assert_eq!(case.report("t")["state"], "waiting", "{}", case.report("t"));
            assert_eq!(case.rows("SELECT id FROM t ORDER BY id").len(), 3);
        }
        case.decide("approve");
        case.lakeward.catch_up();
        case.assert_equal(&["t", "other"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_must_fail_stops_its_table_only() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "fail", "add = \"fail\"").await else { return };
        case.session.run("ALTER TABLE t ADD COLUMN n INT").await;
        case.session.run("INSERT INTO t (id, n) VALUES (3, 3); INSERT INTO other VALUES (2, 2)").await;
        let (status, log) = case.lakeward.try_catch_up();
        assert_eq!(status.code(), Some(13), "{log}");
        let reason = case.report("t")["error"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("column `n`") && reason.contains("`fail`"), "{reason}");
        case.assert_equal(&["other"]);
    }
}

/// Values that can't be carried over, and nobody is to load them again: a definite error that says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_narrowing_that_must_fail_stops_its_table_only() {
    for kind in KINDS {
        let Some(mut case) = start(kind, "narrow", "change = \"fail\"").await else { return };
        let narrow = match kind {
            Kind::Postgres => "ALTER TABLE t ALTER a TYPE SMALLINT",
            _ => "ALTER TABLE t MODIFY a SMALLINT",
        };
        case.session.run(narrow).await;
        case.session.run("INSERT INTO t VALUES (3, 3, 'z'); INSERT INTO other VALUES (2, 2)").await;
        let (status, log) = case.lakeward.try_catch_up();
        assert_eq!(status.code(), Some(13), "{log}");
        let reason = case.report("t")["error"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("resync"), "{reason}");
        case.assert_equal(&["other"]);
        assert_eq!(case.rows("SELECT id FROM t").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_followed_or_kept_or_refused() {
    for kind in KINDS {
        for (policy, rows) in [("apply", 1), ("keep", 3), ("fail", 2)] {
            let Some(mut case) = start(kind, "truncate", &format!("truncate = \"{policy}\"")).await else { return };
            case.session.run("TRUNCATE TABLE t; INSERT INTO t VALUES (3, 3, 'z')").await;
            let (status, log) = case.lakeward.try_catch_up();
            assert_eq!(status.code(), Some(if policy == "fail" { 13 } else { 0 }), "{policy}: {log}");
            assert_eq!(case.rows("SELECT id FROM t").len(), rows, "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_stays_in_the_lake_or_is_emptied() {
    for kind in [Kind::MariaDb] {
        for (policy, rows) in [("keep", 2), ("apply", 0)] {
            let Some(mut case) = start(kind, "drop_table", &format!("drop_table = \"{policy}\"")).await else { return };
            case.session.run("DROP TABLE t; INSERT INTO other VALUES (2, 2)").await;
            case.lakeward.catch_up();
            case.lakeward.catch_up();
            case.assert_equal(&["other"]);
            assert_eq!(case.rows("SELECT id FROM t").len(), rows, "{policy}");
            assert_eq!(case.report("t")["state"], "dropped");
        }
    }
}

/// K-7
#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_loaded_while_the_others_go_on() {
    for kind in Kind::ALL {
        let Some(mut case) = start(kind, "appear", "").await else { return };
        let mut daemon = case.lakeward.start();
        daemon.wait_for_log("streaming");
        case.session
            .run("CREATE TABLE fresh (id INT PRIMARY KEY, v INT); INSERT INTO fresh VALUES (1, 1), (2, 2)")
            .await;
        case.session.run("INSERT INTO other VALUES (2, 2)").await;
        let name = case.database.table("fresh");
        let started = std::time::Instant::now();
        loop {
            let tables = case.lakeward.tables();
            if tables
                .as_array()
                .expect("a list")
                .iter()
                .any(|table| table["table"] == name && table["state"] == "streaming")
            {
                break;
            }
            assert!(started.elapsed().as_secs() < 60, "{kind:?}: not loaded: {tables}\n{}", daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        case.session.run("UPDATE fresh SET v = 3 WHERE id = 2; INSERT INTO fresh VALUES (3, 3)").await;
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        case.lakeward.catch_up();
        case.assert_equal(&["fresh", "t", "other"]);
    }
}
