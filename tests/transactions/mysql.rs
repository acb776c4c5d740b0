//! The transactions of MySQL and MariaDB, in plain logs and in compressed ones.

use mysql_async::prelude::Queryable;

use crate::support::server::OwnServer;
use crate::support::source::{Database, Kind, Session};
use crate::{AS_THE_SOURCE, Case, run_cases};

const BOTH: &[Kind] = &[Kind::MariaDb, Kind::MySql];
const MARIADB: &[Kind] = &[Kind::MariaDb];
const MYSQL: &[Kind] = &[Kind::MySql];

const CASES: &[Case] = &[
    Case {
        name: "X-1: several tables and statements in one transaction",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "BEGIN; UPDATE {t} SET v = 'b' WHERE id = 1; INSERT INTO {u} VALUES (7, 'u'); INSERT INTO {t} VALUES (2, 'c');
              UPDATE {u} SET v = 'w'; DELETE FROM {t} WHERE id = 1; COMMIT",
        lake: r#"[[2,"c"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-3: rows after a savepoint that was rolled back to are undone",
        before: "",
        sql: "BEGIN; INSERT INTO {t} VALUES (1, 'kept'); SAVEPOINT s; INSERT INTO {t} VALUES (2, 'undone');
              SAVEPOINT r; INSERT INTO {t} VALUES (3, 'undone'); ROLLBACK TO SAVEPOINT r; ROLLBACK TO SAVEPOINT s;
              INSERT INTO {t} VALUES (4, 'kept'); RELEASE SAVEPOINT s; COMMIT",
        lake: r#"[[1,"kept"],[4,"kept"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-3: beside a table without transactions the log holds the undone rows",
        before: "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(40)); CREATE TABLE {u} (id INT PRIMARY KEY) ENGINE=MyISAM",
        sql: "BEGIN; INSERT INTO {t} VALUES (1, 'kept'); INSERT INTO {u} VALUES (1); SAVEPOINT s;
              INSERT INTO {t} VALUES (2, 'undone'); INSERT INTO {u} VALUES (2); ROLLBACK TO SAVEPOINT s;
              INSERT INTO {t} VALUES (3, 'kept'); COMMIT",
        lake: r#"[[1,"kept"],[3,"kept"]]"#,
        servers: MARIADB,
    },
    Case {
        name: "X-4: a rollback leaves nothing",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "BEGIN; INSERT INTO {t} VALUES (2, 'b'); DELETE FROM {t} WHERE id = 1; ROLLBACK; INSERT INTO {t} VALUES (3, 'c')",
        lake: r#"[[1,"a"],[3,"c"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-4: of a rollback beside a table without transactions, that table's rows stay",
        before: "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=MyISAM; CREATE TABLE {u} (id INT PRIMARY KEY)",
        sql: "BEGIN; INSERT INTO {u} VALUES (1); INSERT INTO {t} VALUES (1, 'stays'); ROLLBACK",
        lake: r#"[[1,"stays"]]"#,
        servers: MARIADB,
    },
    Case {
        name: "X-5: XA prepared, others go on, then committed",
        before: "",
        sql: "XA START 'g{t}'; INSERT INTO {t} VALUES (1, 'xa'); XA END 'g{t}'; XA PREPARE 'g{t}'
              -- new session
              INSERT INTO {t} VALUES (2, 'meanwhile')
              -- wait
              XA COMMIT 'g{t}'; UPDATE {t} SET v = 'after' WHERE id = 1",
        lake: r#"[[1,"after"],[2,"meanwhile"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-5: XA rolled back after its preparation, and before it",
        before: "",
        sql: "XA START 'r{t}'; INSERT INTO {t} VALUES (1, 'xa'); XA END 'r{t}'; XA PREPARE 'r{t}'
              -- new session
              INSERT INTO {t} VALUES (2, 'meanwhile')
              XA ROLLBACK 'r{t}'; XA START 'r{t}'; INSERT INTO {t} VALUES (3, 'xa'); XA END 'r{t}'; XA ROLLBACK 'r{t}'",
        lake: r#"[[2,"meanwhile"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-5: XA in one phase",
        before: "",
        sql: "XA START 'o{t}'; INSERT INTO {t} VALUES (1, 'one'); XA END 'o{t}'; XA COMMIT 'o{t}' ONE PHASE",
        lake: r#"[[1,"one"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-5: binary names, branches, several prepared at once, decided in another order, a name used again",
        before: "INSERT INTO {t} VALUES (9, 'old')",
        sql: "XA START X'00ff2727', X'3b', 5; INSERT INTO {t} VALUES (1, 'first'); XA END X'00ff2727', X'3b', 5;
              XA PREPARE X'00ff2727', X'3b', 5
              -- new session
              XA START X'00ff2727', X'3c', 5; INSERT INTO {t} VALUES (2, 'second'); DELETE FROM {t} WHERE id = 9;
              XA END X'00ff2727', X'3c', 5; XA PREPARE X'00ff2727', X'3c', 5
              -- new session
              XA START X'00ff2727', X'3d', 6; INSERT INTO {t} VALUES (3, 'never'); XA END X'00ff2727', X'3d', 6;
              XA PREPARE X'00ff2727', X'3d', 6
              -- new session
              XA COMMIT X'00ff2727', X'3c', 5; XA ROLLBACK X'00ff2727', X'3d', 6
              -- wait
              XA COMMIT X'00ff2727', X'3b', 5; XA START X'00ff2727', X'3b', 5; UPDATE {t} SET id = 5 WHERE id = 1;
              XA END X'00ff2727', X'3b', 5; XA PREPARE X'00ff2727', X'3b', 5
              -- new session
              XA COMMIT X'00ff2727', X'3b', 5",
        lake: r#"[[2,"second"],[5,"first"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-3, X-5: savepoints in XA; rows of several tables",
        before: "INSERT INTO {u} VALUES (1, 'u')",
        sql: "XA START 's{t}'; INSERT INTO {t} VALUES (1, 'kept'); SAVEPOINT s; INSERT INTO {t} VALUES (2, 'undone');
              ROLLBACK TO SAVEPOINT s; DELETE FROM {u}; XA END 's{t}'; XA PREPARE 's{t}'
              -- new session
              XA COMMIT 's{t}'",
        lake: r#"[[1,"kept"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-7: keys change in a chain, and are swapped",
        before: "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        sql: "BEGIN; UPDATE {t} SET id = 10 WHERE id = 1; UPDATE {t} SET id = 11 WHERE id = 10; UPDATE {t} SET id = 12 WHERE id = 11; COMMIT
              BEGIN; UPDATE {t} SET id = 100 WHERE id = 2; UPDATE {t} SET id = 2 WHERE id = 3; UPDATE {t} SET id = 3 WHERE id = 100; COMMIT
              INSERT INTO {t} VALUES (1, 'again')",
        lake: r#"[[1,"again"],[2,"c"],[3,"b"],[12,"a"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-8: inserted and deleted, deleted and inserted, updated many times in one batch",
        before: "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')",
        sql: "BEGIN; INSERT INTO {t} VALUES (3, 'gone'); DELETE FROM {t} WHERE id = 3; DELETE FROM {t} WHERE id = 1;
              INSERT INTO {t} VALUES (1, 'new'); UPDATE {t} SET v = 'x' WHERE id = 2; UPDATE {t} SET v = 'y' WHERE id = 2;
              UPDATE {t} SET v = 'z' WHERE id = 2; COMMIT; DELETE FROM {t} WHERE id = 2; INSERT INTO {t} VALUES (2, 'end')",
        lake: r#"[[1,"new"],[2,"end"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-9: REPLACE, INSERT … ON DUPLICATE KEY UPDATE, INSERT … SELECT, multi-table UPDATE and DELETE",
        before: "INSERT INTO {t} VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO {u} VALUES (1, 'one'), (2, 'two'), (8, 'eight')",
        sql: "REPLACE INTO {t} VALUES (1, 'replaced'), (4, 'new')
              INSERT INTO {t} VALUES (2, 'x'), (5, 'five') ON DUPLICATE KEY UPDATE v = CONCAT(v, '+')
              INSERT INTO {t} SELECT id, v FROM {u} WHERE id = 8
              UPDATE {t} JOIN {u} ON {t}.id = {u}.id SET {t}.v = CONCAT({t}.v, {u}.v), {u}.v = 'touched'
              DELETE {t}, {u} FROM {t} JOIN {u} ON {t}.id = {u}.id WHERE {t}.id = 8; DELETE FROM {t} WHERE id = 3 LIMIT 1",
        lake: r#"[[1,"replacedone"],[2,"b+two"],[4,"new"],[5,"five"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-9: CREATE TABLE … SELECT beside it: MariaDB gives both one GTID, MySQL one transaction",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "CREATE TABLE {t}_copy AS SELECT * FROM {t}; INSERT INTO {t} VALUES (2, 'b')",
        lake: r#"[[1,"a"],[2,"b"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-10: an update that changes nothing",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "UPDATE {t} SET v = 'a'; UPDATE {t} SET v = 'b' WHERE id = 5",
        lake: r#"[[1,"a"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-11: temporary tables never reach the lake",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "CREATE TEMPORARY TABLE {t} (id INT PRIMARY KEY, v VARCHAR(40)); INSERT INTO {t} VALUES (5, 'hidden'); DROP TEMPORARY TABLE {t}; INSERT INTO {t} VALUES (2, 'b')",
        lake: r#"[[1,"a"],[2,"b"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-12: INSERT in statement format",
        before: "",
        sql: "SET SESSION binlog_format = STATEMENT; INSERT INTO {t} VALUES (1, 'a')",
        lake: "stops: binlog_format",
        servers: BOTH,
    },
    Case {
        name: "X-12: UPDATE in statement format, the name qualified by another default database",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "SET SESSION binlog_format = STATEMENT; USE mysql; UPDATE `{db}`.`{t}` AS x SET v = 'b'",
        lake: "stops: binlog_format",
        servers: BOTH,
    },
    Case {
        name: "X-12: DELETE with a condition in statement format",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "SET SESSION binlog_format = STATEMENT; DELETE FROM {t} WHERE id < 5",
        lake: "stops: binlog_format",
        servers: BOTH,
    },
    Case {
        name: "X-12: REPLACE in statement format",
        before: "",
        sql: "SET SESSION binlog_format = STATEMENT; REPLACE INTO {t} VALUES (1, 'a')",
        lake: "stops: binlog_format",
        servers: BOTH,
    },
    Case {
        name: "X-12: statements that only mention other tables don't stop it",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "SET SESSION binlog_format = STATEMENT; INSERT INTO {u} VALUES (1, 'a'); UPDATE {u} SET v = 'b'; DELETE FROM {u} WHERE id = 1
              -- new session
              INSERT INTO {t} VALUES (2, 'b')",
        lake: r#"[[1,"a"],[2,"b"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-12: DELETE of all rows in statement format is a truncation",
        before: "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')",
        sql: "SET SESSION binlog_format = STATEMENT; DELETE FROM {t}
              -- new session
              INSERT INTO {t} VALUES (3, 'c')",
        lake: r#"[[3,"c"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-13: partial JSON",
        before: "CREATE TABLE {t} (id INT PRIMARY KEY, v JSON); INSERT INTO {t} VALUES (1, '{\"a\": 1, \"b\": \"long enough to be worth a partial update of it\"}')",
        sql: "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'; UPDATE {t} SET v = JSON_SET(v, '$.a', 2)",
        lake: "stops: PARTIAL_JSON",
        servers: MYSQL,
    },
    Case {
        name: "K-2: TRUNCATE between rows",
        before: "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')",
        sql: "INSERT INTO {t} VALUES (3, 'c'); TRUNCATE TABLE {t}; INSERT INTO {t} VALUES (2, 'again'), (4, 'd')",
        lake: r#"[[2,"again"],[4,"d"]]"#,
        servers: BOTH,
    },
    Case {
        name: "K-6: a dropped table",
        before: "INSERT INTO {t} VALUES (1, 'a')",
        sql: "DROP TABLE {t}",
        lake: "stops: dropped",
        servers: BOTH,
    },
    Case {
        name: "X-9: LOAD DATA",
        before: "",
        sql: "LOAD DATA INFILE '{file}' INTO TABLE {t}",
        lake: r#"[[7,"seven"],[8,"eight"]]"#,
        servers: BOTH,
    },
    Case {
        name: "X-12: LOAD DATA in statement format",
        before: "",
        sql: "SET SESSION binlog_format = STATEMENT; LOAD DATA INFILE '{file}' INTO TABLE {t}",
        lake: "stops: binlog_format",
        servers: BOTH,
    },
    Case {
        name: "M-25: COMPRESSED columns, short, long, empty and NULL; updated and deleted",
        before: "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(2000) COMPRESSED, x TEXT COMPRESSED, s VARCHAR(40) CHARACTER SET latin1 COMPRESSED, l LONGTEXT COMPRESSED);
                 INSERT INTO {t} VALUES (1, REPEAT('예약', 300), REPEAT('x', 5000), 'é', REPEAT('l', 70000)), (2, '', '', '', '')",
        sql: "INSERT INTO {t} VALUES (3, REPEAT('예약', 300), REPEAT('x', 5000), REPEAT('é', 40), REPEAT('l', 70000)), (4, '', 'short', 'é', NULL)
              UPDATE {t} SET v = REPEAT('y', 900) WHERE id = 1; DELETE FROM {t} WHERE id = 2
              UPDATE {t} SET v = LEFT(v, 2), x = LEFT(x, 3), s = LEFT(s, 3), l = LENGTH(l)",
        lake: r#"[[1,"yy","xxx","é","70000"],[3,"예약","xxx","ééé","70000"],[4,"","sho","é",null]]"#,
        servers: MARIADB,
    },
    Case {
        name: "M-25: COMPRESSED columns that are never plain",
        before: "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(2000) COMPRESSED, x MEDIUMTEXT COMPRESSED, b BLOB COMPRESSED, s VARBINARY(300) COMPRESSED);
                 INSERT INTO {t} VALUES (1, REPEAT('예약', 300), REPEAT('x', 99000), REPEAT(X'00FF', 2000), REPEAT(X'00', 300))",
        sql: "INSERT INTO {t} VALUES (2, REPEAT('예약', 300), REPEAT('y', 99000), REPEAT(X'00FF', 2000), X'00'), (3, NULL, '', X'', X'20'), (4, 'a', 'b', X'00', '')
              UPDATE {t} SET s = REPEAT(X'FF00', 150), id = id + 10",
        lake: AS_THE_SOURCE,
        servers: MARIADB,
    },
];

/// On a server of its own: a transaction that is undecided there keeps every other first start waiting.
/// `event` is one that its log must have held.
async fn run_on(kind: Kind, options: &[&str], event: &str) {
    let Some(server) = OwnServer::start(kind, "transactions", options) else { return };
    let database = Database::create_on(kind, server.port, "transactions").await;
    let Session::MySql(mut session) = database.session().await else { panic!("not PostgreSQL") };
    run_cases(database, CASES).await;
    let events: Vec<mysql_async::Row> = session.query("SHOW BINLOG EVENTS").await.expect("app may see the log");
    let found = events.iter().any(|row| row.get::<String, _>("Event_type").as_deref() == Some(event));
    assert!(found, "no {event} in the log of {kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_transaction_on_mariadb() {
    run_on(Kind::MariaDb, &[], "Write_rows_v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_transaction_on_mysql() {
    run_on(Kind::MySql, &[], "Write_rows").await;
}

/// Positions are files and offsets.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_transaction_on_mysql_without_gtids() {
    run_on(Kind::MySql, &["gtid_mode=OFF", "enforce_gtid_consistency=OFF"], "Anonymous_Gtid").await;
}

/// `log_bin_compress`: events 165 to 171.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_transaction_in_a_compressed_mariadb_log() {
    run_on(Kind::MariaDb, &["log_bin_compress=ON", "log_bin_compress_min_len=10"], "Write_rows_compressed_v1").await;
}

/// `binlog_transaction_compression`: whole transactions in zstd.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_transaction_in_a_compressed_mysql_log() {
    run_on(Kind::MySql, &["binlog_transaction_compression=ON"], "Transaction_payload").await;
}
