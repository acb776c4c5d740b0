//! What a restart of the server leaves in the log.

use crate::support::server::OwnServer;
use crate::support::source::{Database, Kind};
use crate::{Followed, run};

/// X-12: a MEMORY table is empty after a restart; the server says so by a statement when the table is first used.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_table_emptied_by_a_restart_is_empty_in_the_lake() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        let Some(server) = OwnServer::start(kind, "memory", &[]) else { continue };
        let database = Database::create_on(kind, server.port, "memory").await;
        let table =
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=MEMORY; INSERT INTO t VALUES (1, 'a'), (2, 'b')";
        run(&mut database.session().await, table).await;
        let Some(mut followed) = Followed::new(database).await else { return };
        let daemon = followed.start();
        assert_eq!(followed.rows("t"), r#"[[1,"a"],[2,"b"]]"#);
        assert!(daemon.terminate().0.success());
        server.stop();
        server.start_again(&[]);
        run(&mut followed.database.session().await, "INSERT INTO t VALUES (3, 'c')").await;
        let mut daemon = followed.start();
        followed.wait(&mut daemon).await;
        assert_eq!(followed.rows("t"), r#"[[3,"c"]]"#, "{}: {}", kind.word(), followed.state("t"));
        followed.assert_equal(&["t".to_owned()]);
        assert!(daemon.terminate().0.success());
    }
}
