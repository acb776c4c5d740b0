//! X-5: what may happen between the preparation of an XA transaction and its decision.

use crate::support::server::OwnServer;
use crate::support::source::{Database, Kind};
use crate::{Followed, run};

const SERVERS: [Kind; 2] = [Kind::MariaDb, Kind::MySql];

/// On a server of its own: a transaction that is undecided there keeps every other first start waiting.
async fn followed(kind: Kind, test: &str) -> Option<(OwnServer, Followed)> {
    let server = OwnServer::start(kind, test, &[])?;
    let database = Database::create_on(kind, server.port, test).await;
    let tables =
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40)); CREATE TABLE late (id INT PRIMARY KEY, v VARCHAR(40))";
    run(&mut database.session().await, tables).await;
    Some((server, Followed::new(database).await?))
}

/// In a session that is then left, as a transaction manager's that died. Names are the server's, so they hold the database's.
async fn prepare(followed: &Followed, name: &str, statements: &str) -> String {
    let xid = format!("'{}-{name}'", followed.database.name);
    let sql = format!("XA START {xid}; {statements}; XA END {xid}; XA PREPARE {xid}");
    run(&mut followed.database.session().await, &sql).await;
    xid
}

async fn decide(followed: &Followed, decision: &str, xid: &str) {
    run(&mut followed.database.session().await, &format!("XA {decision} {xid}")).await;
}

/// G6: kill -9 after the preparation; the next daemon has nothing but the lake, and the log of the preparation is gone.
#[tokio::test(flavor = "multi_thread")]
async fn prepared_rows_survive_a_kill_and_a_purge_of_their_log() {
    for kind in SERVERS {
        let Some(server) = OwnServer::start(kind, "xa-kill", &[]) else { continue };
        let database = Database::create_on(kind, server.port, "xa_kill").await;
        run(&mut database.session().await, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40))").await;
        let Some(mut followed) = Followed::new(database).await else { return };
        let mut daemon = followed.start();
        let kept = prepare(&followed, "kept", "INSERT INTO t VALUES (1, 'kept'), (2, 'kept')").await;
        let dropped = prepare(&followed, "dropped", "INSERT INTO t VALUES (3, 'dropped')").await;
        run(&mut followed.database.session().await, "INSERT INTO t VALUES (4, 'meanwhile')").await;
        followed.wait(&mut daemon).await;
        assert_eq!(followed.rows("t"), r#"[[4,"meanwhile"]]"#);
        daemon.kill();

        // The lake is all that is left: the binlogs before now are gone, and the server restarts with its transactions.
        server.stop();
        server.start_again(&[]);
        let mut session = followed.database.session().await;
        run(&mut session, "FLUSH BINARY LOGS").await;
        let statement = if kind == Kind::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
        let file = session.value(statement).await.expect("a file");
        run(&mut session, &format!("PURGE BINARY LOGS TO '{file}'")).await;

        let mut daemon = followed.start();
        decide(&followed, "COMMIT", &kept).await;
        decide(&followed, "ROLLBACK", &dropped).await;
        followed.wait(&mut daemon).await;
        assert_eq!(followed.rows("t"), r#"[[1,"kept"],[2,"kept"],[4,"meanwhile"]]"#, "{}", kind.word());
        followed.assert_equal(&["t".to_owned()]);
        // Killed again: what was decided is decided once.
        daemon.kill();
        let mut daemon = followed.start();
        run(&mut followed.database.session().await, "DELETE FROM t WHERE id = 1").await;
        followed.wait(&mut daemon).await;
        followed.assert_equal(&["t".to_owned()]);
        let left = std::fs::read_dir(followed.scratch.path().join("lake/_lakeward/src/prepared"));
        assert_eq!(left.map_or(0, Iterator::count), 0, "decided transactions leave nothing behind");
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
    }
}

/// A table that is loaded between preparation and decision has neither; one loaded after the decision has both.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_loaded_between_preparation_and_decision_gets_the_rows_once() {
    for kind in SERVERS {
        let Some((_server, mut followed)) = followed(kind, "xa_load").await else { continue };
        let mut daemon = followed.start();
        let both =
            prepare(&followed, "both", "INSERT INTO t VALUES (1, 'xa'); INSERT INTO late VALUES (1, 'xa')").await;
        followed.wait(&mut daemon).await;
        assert!(daemon.terminate().0.success());
        // Loaded anew now, while undecided.
        let folder = followed.scratch.path().join(format!("lake/src/{}/late", followed.database.name));
        std::fs::remove_dir_all(&folder).expect("it was loaded");
        let mut daemon = followed.start();
        run(&mut followed.database.session().await, "INSERT INTO late VALUES (2, 'after')").await;
        followed.wait(&mut daemon).await;
        assert_eq!(followed.rows("late"), r#"[[2,"after"]]"#);
        decide(&followed, "COMMIT", &both).await;
        followed.wait(&mut daemon).await;
        followed.assert_equal(&["t".to_owned(), "late".to_owned()]);
        assert_eq!(followed.rows("late"), r#"[[1,"xa"],[2,"after"]]"#);

        // Prepared and committed while nobody follows, and loaded anew after that: the rows are in the first load.
        assert!(daemon.terminate().0.success());
        let third = prepare(&followed, "third", "UPDATE t SET v = 'x3'; INSERT INTO late VALUES (3, 'x3')").await;
        decide(&followed, "COMMIT", &third).await;
        run(&mut followed.database.session().await, "UPDATE late SET v = 'newer' WHERE id = 3").await;
        std::fs::remove_dir_all(&folder).expect("it was loaded");
        let mut daemon = followed.start();
        followed.wait(&mut daemon).await;
        followed.assert_equal(&["t".to_owned(), "late".to_owned()]);
        assert!(daemon.terminate().0.success());
        followed.database.drop().await;
    }
}

/// What was prepared before the log is read can't be known: the first start waits for its decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_waits_for_undecided_transactions() {
    for kind in SERVERS {
        // A server of its own: others prepare transactions there, too.
        let Some(server) = OwnServer::start(kind, "xa-first", &[]) else { continue };
        let database = Database::create_on(kind, server.port, "xa_first").await;
        run(&mut database.session().await, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40))").await;
        let Some(mut followed) = Followed::new(database).await else { return };
        let early = prepare(&followed, "early", "INSERT INTO t VALUES (1, 'early')").await;
        let mut daemon = followed.lakeward.start();
        daemon.wait_for_log("XA transactions are prepared and undecided");
        decide(&followed, "COMMIT", &early).await;
        daemon.wait_for_log("streaming");
        followed.wait(&mut daemon).await;
        assert_eq!(followed.rows("t"), r#"[[1,"early"]]"#);
        followed.assert_equal(&["t".to_owned()]);
        assert!(daemon.terminate().0.success());
    }
}

/// A table that was not followed when a transaction changed it can't get its rows at the commit: it stops, and is whole again
/// after another load.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_not_followed_at_the_preparation_stops_at_the_commit() {
    for kind in SERVERS {
        let Some((_server, mut followed)) = followed(kind, "xa_new").await else { continue };
        let mut daemon = followed.start();
        run(&mut followed.database.session().await, "CREATE TABLE fresh (id INT PRIMARY KEY, v VARCHAR(40))").await;
        let xid = prepare(&followed, "new", "INSERT INTO t VALUES (1, 'xa'); INSERT INTO fresh VALUES (1, 'xa')").await;
        followed.wait(&mut daemon).await;
        assert!(daemon.terminate().0.success());
        let mut daemon = followed.start();
        decide(&followed, "COMMIT", &xid).await;
        followed.wait(&mut daemon).await;
        assert!(followed.state("fresh").contains("while it was not followed"), "{}", followed.state("fresh"));
        followed.assert_equal(&["t".to_owned()]);
        daemon.terminate();
        let folder = followed.scratch.path().join(format!("lake/src/{}/fresh", followed.database.name));
        std::fs::remove_dir_all(&folder).expect("it was loaded");
        let mut daemon = followed.start();
        followed.wait(&mut daemon).await;
        followed.assert_equal(&["t".to_owned(), "fresh".to_owned()]);
        assert!(daemon.terminate().0.success());
        followed.database.drop().await;
    }
}
