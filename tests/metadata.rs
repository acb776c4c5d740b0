//! Logs that say less: every level of `binlog_row_metadata`, row images that lack columns, statements that change how rows
//! lie in the log, rows of the past. The lake read by DuckDB equals the source, every column of every row; where the log
//! can't be followed the table stops with a reason.

mod support;

use support::Scratch;
use support::daemon::Lakeward;
use support::oracle::Oracle;
use support::server::OwnServer;
use support::source::{Database, Kind, Session};

/// A server of its own, a daemon, and the oracle.
struct Case {
    _server: OwnServer,
    database: Database,
    session: Session,
    oracle: Oracle,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    async fn start(kind: Kind, test: &str, options: &[&str]) -> Option<Self> {
        let server = OwnServer::start(kind, test, options)?;
        let database = Database::create_on(kind, server.port, test).await;
        let session = database.session().await;
        let oracle = Oracle::start(None)?;
        let scratch = Scratch::new(test);
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        // Stopped, a table tells why it can't go on; else it would be loaded again.
        let policies = "[schema_changes]\nchange = \"fail\"\nkey = \"fail\"\n";
        let config =
            format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{policies}{}", database.source_toml());
        let lakeward = Lakeward::new(scratch.path(), &config);
        Some(Self { _server: server, database, session, oracle, lakeward, scratch })
    }

    fn assert_equal(&mut self, tables: &[&str]) {
        let tables: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let lake = self.scratch.path().join("lake/src");
        self.oracle.assert_equal(&self.database.oracle_url(), lake.to_str().expect("UTF-8"), &tables);
    }

    /// Reads what is new; the lake then equals the source in these tables.
    fn follow(&mut self, tables: &[&str]) {
        self.lakeward.catch_up();
        self.assert_equal(tables);
    }

    /// Reads what is new; this table stops for a reason that says all of `texts`.
    fn stops(&mut self, table: &str, texts: &[&str]) {
        let (status, log) = self.lakeward.try_catch_up();
        assert_eq!(status.code(), Some(13), "{table} did not stop:\n{log}");
        let tables = self.lakeward.tables();
        let name = self.database.table(table);
        let found = tables.as_array().expect("a list").iter().find(|found| found["table"] == name).expect("listed");
        let reason = found["error"].as_str().unwrap_or_default();
        for text in texts {
            assert!(reason.contains(text), "{table} stopped without {text:?}: {reason}");
        }
    }
}

/// Column, and values for three rows.
fn columns(kind: Kind) -> Vec<(&'static str, [&'static str; 3])> {
    let mut columns = vec![
        ("a1 TINYINT", ["-128", "127", "NULL"]),
        ("a2 TINYINT UNSIGNED", ["0", "255", "NULL"]),
        ("a3 SMALLINT UNSIGNED ZEROFILL", ["0", "65535", "NULL"]),
        ("a4 MEDIUMINT", ["-8388608", "-1", "NULL"]),
        ("a5 MEDIUMINT UNSIGNED", ["16777215", "1", "NULL"]),
        ("a6 INT UNSIGNED", ["4294967295", "1", "NULL"]),
        ("a7 BIGINT", ["-9223372036854775808", "1", "NULL"]),
        ("a8 BIGINT UNSIGNED", ["18446744073709551615", "1", "NULL"]),
        ("b1 FLOAT", ["0.1", "-3.5", "NULL"]),
        ("b2 DOUBLE UNSIGNED", ["0.1", "3.5", "NULL"]),
        ("b3 DECIMAL(12,2) DEFAULT 1.5", ["-0.01", "9999999999.99", "NULL"]),
        ("b4 DECIMAL(65,30)", ["-0.01", "12345678901234567890.5", "NULL"]),
        ("b5 BIT(1)", ["b'1'", "b'0'", "NULL"]),
        ("b6 BIT(9)", ["b'100000001'", "b'1'", "NULL"]),
        ("c1 DATE", ["'2024-02-29'", "'0001-01-01'", "NULL"]),
        ("c2 DATETIME(3)", ["'2024-02-29 12:13:14.567'", "'1969-12-31 23:59:59.999'", "NULL"]),
        ("c3 TIMESTAMP(6) NULL", ["'2024-02-29 12:13:14.567891'", "'2038-01-19 03:14:07'", "NULL"]),
        ("c4 TIME(2)", ["'-00:00:01.50'", "'838:59:58'", "NULL"]),
        ("c5 YEAR", ["2024", "0", "NULL"]),
        ("d1 VARCHAR(20) CHARACTER SET latin1", ["'café €'", "''", "NULL"]),
        ("d2 VARCHAR(100) CHARACTER SET utf16", ["'예약 🍣'", "'a'", "NULL"]),
        ("d3 CHAR(70)", ["'예약'", "'a'", "NULL"]),
        ("d4 MEDIUMTEXT", ["'🍣'", "'a'", "NULL"]),
        ("d5 BINARY(4)", ["x'01000000'", "x'00'", "NULL"]),
        ("d6 VARBINARY(300)", ["x'0100'", "''", "NULL"]),
        ("d7 BLOB", ["x'FF00'", "''", "NULL"]),
        ("e1 ENUM('b','é','it''s') CHARACTER SET latin1", ["'é'", "'it''s'", "NULL"]),
        ("e2 SET('x','y','z')", ["'x,z'", "''", "NULL"]),
        ("e3 INT AS (a1 + 1) VIRTUAL", ["DEFAULT", "DEFAULT", "DEFAULT"]),
        ("e4 INT AS (a1 + 2) STORED", ["DEFAULT", "DEFAULT", "DEFAULT"]),
        ("e5 INT INVISIBLE DEFAULT 5", ["1", "2", "NULL"]),
    ];
    match kind {
        Kind::MariaDb => columns.extend([
            ("f1 UUID", ["'12345678-2e1b-11eb-9a9d-0242ac130000'", "UUID()", "NULL"]),
            ("f2 INET6", ["'1::'", "'::1'", "NULL"]),
            ("f3 INET4", ["'192.0.2.0'", "'10.0.0.1'", "NULL"]),
            ("f4 TEXT UNIQUE", ["'hashed'", "'by the server'", "NULL"]),
        ]),
        _ => columns.push(("f1 JSON", ["'{\"a\": [1, 2.5, null]}'", "'[]'", "NULL"])),
    }
    columns
}

/// M-1 to M-24, D-17: the log says nothing, something, everything, and changes in mid-stream.
async fn every_kind_of_column_is_read_at_every_level(kind: Kind, levels: &[&str]) {
    let option = format!("binlog_row_metadata={}", levels[0]);
    let Some(mut case) = Case::start(kind, "levels", &[&option]).await else { return };
    let columns = columns(kind);
    let declared: Vec<&str> = columns.iter().map(|(declared, _)| *declared).collect();
    let names: Vec<&str> = declared.iter().filter_map(|declared| declared.split(' ').next()).collect();
    let insert = |id: usize, row: usize| {
        let values: Vec<&str> = columns.iter().map(|(_, values)| values[row]).collect();
        let unique =
            if row < 2 { format!(", CONCAT('row {id} ', {})", values.last().expect("one")) } else { String::new() };
        let values = match kind {
            // The unique text must differ in every row.
            Kind::MariaDb if row < 2 => format!("{}{unique}", values[..values.len() - 1].join(", ")),
            _ => values.join(", "),
        };
        format!("INSERT INTO kinds (id, {}) VALUES ({id}, {values})", names.join(", "))
    };
    case.session.run("SET SESSION sql_mode = ''").await;
    case.session.run(&format!("CREATE TABLE kinds (id INT UNSIGNED PRIMARY KEY, {})", declared.join(", "))).await;
    for row in 0..3 {
        case.session.run(&insert(row, row)).await;
    }
    case.follow(&["kinds"]);
    for (at, level) in levels.iter().chain(levels).enumerate() {
        let id = 10 * (at + 1);
        case.session.run(&format!("SET GLOBAL binlog_row_metadata = {level}")).await;
        for row in 0..3 {
            case.session.run(&insert(id + row, row)).await;
        }
        case.session
            .run(&format!(
                "UPDATE kinds SET a1 = a1 - 1, d4 = CONCAT(d4, '{level}') WHERE id IN ({}, 1);
                 UPDATE kinds SET id = id + 5 WHERE id = {id};
                 DELETE FROM kinds WHERE id = {}",
                id + 1,
                id + 2
            ))
            .await;
        if at % 2 == 0 {
            case.follow(&["kinds"]);
        }
    }
    case.follow(&["kinds"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_column_is_read_at_every_level_of_metadata_mariadb() {
    every_kind_of_column_is_read_at_every_level(Kind::MariaDb, &["NO_LOG", "MINIMAL", "FULL"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_column_is_read_at_every_level_of_metadata_mysql() {
    every_kind_of_column_is_read_at_every_level(Kind::MySql, &["MINIMAL", "FULL"]).await;
}

/// D-1, D-6, D-15, M-15, M-16: rows are read with the layout of their own time, whatever the catalog says today.
async fn rows_before_a_statement_are_read_as_they_lay(kind: Kind) {
    let Some(mut case) = Case::start(kind, "ddl", &["binlog_row_metadata=MINIMAL"]).await else { return };
    if kind == Kind::MariaDb {
        case.session.run("SET GLOBAL binlog_row_metadata = NO_LOG").await;
    }
    case.session
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, e ENUM('a','b','c'), s SET('x','y'), v VARCHAR(30) CHARACTER SET latin1,
                a INT, b INT, n VARCHAR(10));
             CREATE TABLE other (id INT PRIMARY KEY, v INT);
             INSERT INTO t VALUES (1, 'a', 'x', 'café', 1, 2, 'n')",
        )
        .await;
    case.follow(&["t", "other"]);
    // All of it while nobody reads: the catalog is the last one when the first row is decoded.
    case.session
        .run(
            "INSERT INTO t VALUES (2, 'b', 'y', 'é', 3, 4, 'm');
             ALTER TABLE t MODIFY e ENUM('c','b','new','a');
             INSERT INTO t VALUES (3, 'b', 'x,y', 'ü', 5, 6, NULL), (4, 'new', '', '', 0, 0, '');
             ALTER TABLE t MODIFY b INT AFTER id, MODIFY s SET('x','y','z');
             UPDATE t SET a = a * 10, s = 'y' WHERE id <= 3;
             ALTER TABLE t MODIFY v VARCHAR(30) CHARACTER SET utf8mb4 FIRST;
             INSERT INTO t (id, e, v, a, b) VALUES (5, 'c', '예약', 7, 8);
             ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4, ALTER n SET DEFAULT 'dflt', ADD INDEX (a), COMMENT 'x';
             DELETE FROM t WHERE id = 1;
             INSERT INTO t (id, e) VALUES (6, 'a')",
        )
        .await;
    case.follow(&["t", "other"]);
    // A restart between a statement and its first row.
    case.session.run("ALTER TABLE t MODIFY e ENUM('a','b','c','new') NOT NULL DEFAULT 'new', MODIFY a INT FIRST").await;
    case.follow(&["t", "other"]);
    case.session.run("INSERT INTO t (id, b) VALUES (7, 1); UPDATE t SET e = 'c' WHERE id = 2").await;
    case.follow(&["t", "other"]);
    // A statement that failed, and one that changes nothing.
    assert!(case.session.try_run("ALTER TABLE t ADD UNIQUE (e)").await.is_err());
    case.session.run("ALTER TABLE t ENGINE=InnoDB; INSERT INTO t (id, b) VALUES (8, 1)").await;
    case.follow(&["t", "other"]);

    // The text does not tell what this one does; the catalog does, though other tables went on.
    let label = if kind == Kind::MariaDb { "_utf8mb4'q'" } else { "0x71" };
    let unclear = format!("ALTER TABLE t MODIFY e ENUM('c','a','b','new',{label})");
    let unclear = if case.session.try_run(&unclear).await.is_ok() {
        unclear
    } else {
        let other = "ALTER TABLE t MODIFY e ENUM('c','a','b','new','q\\\\')".to_owned();
        case.session.run(&other).await;
        other
    };
    for id in 0..20 {
        case.session.run(&format!("INSERT INTO other VALUES ({id}, {id}); UPDATE t SET e = 'a' WHERE id = {id}")).await;
    }
    case.session.run("BEGIN; INSERT INTO t (id, e) VALUES (40, 'c'); INSERT INTO other VALUES (40, 1); COMMIT").await;
    case.follow(&["t", "other"]);
    // Two of them: the catalog tells the last, and nobody the first.
    case.session.run(&unclear.replace("'c','a'", "'a','c'")).await;
    case.session.run("INSERT INTO t (id, e) VALUES (41, 'c'); ALTER TABLE t COMMENT 'later'").await;
    case.session.run("INSERT INTO other VALUES (41, 1)").await;
    case.stops("t", &["is not certain", "another statement about the table", "lakeward resync"]);
    case.assert_equal(&["other"]);
    // As the reason says.
    let folder = case.scratch.path().join("lake/src").join(case.database.table("t").replace('.', "/"));
    std::fs::remove_dir_all(folder).expect("the table's folder");
    case.follow(&["t", "other"]);
    case.session.run("INSERT INTO t (id, e) VALUES (42, 'c')").await;
    case.follow(&["t", "other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_a_statement_are_read_as_they_lay_then_mariadb() {
    rows_before_a_statement_are_read_as_they_lay(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_a_statement_are_read_as_they_lay_then_mysql() {
    rows_before_a_statement_are_read_as_they_lay(Kind::MySql).await;
}

/// D-3, D-5, D-7: what changes the lake's columns, its key, or rows that the log does not tell.
async fn statements_that_the_lake_cannot_follow_stop_the_table(kind: Kind) {
    let Some(mut case) = Case::start(kind, "stops", &["binlog_row_metadata=MINIMAL"]).await else { return };
    let cases = [
        (
            "ALTER TABLE t ADD n INT UNIQUE AUTO_INCREMENT",
            "column `n` (int) is new, and what old rows hold is not known",
        ),
        ("ALTER TABLE t MODIFY v INT", "column `v`: varchar(20) becomes int"),
        ("ALTER TABLE t MODIFY a SMALLINT", "becomes smallint"),
        ("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (a)", "the key was (id) and is (a)"),
        ("SET SESSION sql_mode = ''; ALTER TABLE t MODIFY v VARCHAR(2)", "texts were cut"),
        ("ALTER TABLE t MODIFY d DATETIME(0)", "fractions were rounded"),
    ];
    let create = "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL, v VARCHAR(20), d DATETIME(3));
                  CREATE TABLE other (id INT PRIMARY KEY, v INT);
                  INSERT INTO t VALUES (1, 1, '12345', '2024-01-02 03:04:05.678'), (2, 2, NULL, NULL)";
    for (statement, told) in cases {
        case.session.run("DROP TABLE IF EXISTS t, other; SET SESSION sql_mode = DEFAULT").await;
        let _ = std::fs::remove_dir_all(case.scratch.path().join("lake"));
        case.session.run(create).await;
        case.follow(&["t", "other"]);
        case.session.run(statement).await;
        case.session.run("INSERT INTO other VALUES (1, 1)").await;
        case.stops("t", &[told, "lakeward resync"]);
        case.assert_equal(&["other"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_lake_cannot_follow_stop_the_table_mariadb() {
    statements_that_the_lake_cannot_follow_stop_the_table(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_lake_cannot_follow_stop_the_table_mysql() {
    statements_that_the_lake_cannot_follow_stop_the_table(Kind::MySql).await;
}

/// images without all columns, with no metadata besides; switched by sessions in mid-stream.
async fn row_images_that_lack_columns_are_applied(kind: Kind) {
    let metadata = if kind == Kind::MariaDb { "binlog_row_metadata=NO_LOG" } else { "binlog_row_metadata=MINIMAL" };
    let Some(mut case) = Case::start(kind, "images", &[metadata, "binlog_row_image=MINIMAL"]).await else { return };
    // MariaDB leaves virtual columns out of these images.
    let computed = if kind == Kind::MariaDb { "STORED" } else { "VIRTUAL" };
    case.session
        .run(&format!(
            "CREATE TABLE t (id INT PRIMARY KEY, a INT DEFAULT 7, v VARCHAR(20) DEFAULT 'dé', d DECIMAL(10,2) DEFAULT -1.5,
                e ENUM('x','y') DEFAULT 'y', u TINYINT UNSIGNED NOT NULL DEFAULT 200, day DATE DEFAULT '2024-02-29',
                at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, n INT, j TEXT, f DOUBLE DEFAULT 0.1,
                g INT AS (a + 1) {computed}, h INT AS (a + 2) STORED);
             CREATE TABLE pair (a INT, b INT, c INT DEFAULT 3, t TEXT, PRIMARY KEY (b, a));
             CREATE TABLE uk (k INT NOT NULL, v INT DEFAULT 3, w TEXT, UNIQUE (k));
             INSERT INTO t (id) VALUES (1), (2), (3), (4)",
        ))
        .await;
    let all = ["t", "pair", "uk"];
    case.follow(&all);
    let changes = |base: u32| {
        format!(
            "INSERT INTO t (id) VALUES ({base}), ({base} + 1), ({base} + 2), ({base} + 3);
             INSERT INTO t (id, v, j) VALUES ({base} + 4, 'text', 'long');
             UPDATE t SET a = 8 WHERE id = {base};
             UPDATE t SET j = 'blob' WHERE id IN ({base}, 1);
             UPDATE t SET n = NULL, v = NULL WHERE id = {base} + 1;
             UPDATE t SET id = id + 100 WHERE id = {base} + 2;
             UPDATE t SET id = id + 100, a = 9, j = NULL WHERE id = {base} + 4;
             DELETE FROM t WHERE id = {base} + 3;
             INSERT INTO pair (a, b) VALUES ({base}, 1), ({base}, 2);
             UPDATE pair SET b = 5 WHERE a = {base} AND b = 1;
             UPDATE pair SET t = 'x' WHERE a = {base};
             DELETE FROM pair WHERE a = {base} AND b = 2;
             INSERT INTO uk (k) VALUES ({base}), ({base} + 1);
             UPDATE uk SET v = 9 WHERE k = {base};
             UPDATE uk SET k = k + 50 WHERE k = {base} + 1;
             BEGIN; UPDATE t SET a = 1 WHERE id = 2; UPDATE t SET v = 'two' WHERE id = 2; UPDATE t SET n = 3 WHERE id = 2; COMMIT"
        )
    };
    case.session.run(&changes(1000)).await;
    case.follow(&all);
    // Another image in each transaction, read in one go.
    let images: &[&str] = if kind == Kind::MariaDb { &["FULL", "MINIMAL"] } else { &["NOBLOB", "FULL", "MINIMAL"] };
    for (at, image) in images.iter().enumerate() {
        case.session.run(&format!("SET SESSION binlog_row_image = {image}")).await;
        case.session.run(&changes(2000 + 1000 * at as u32)).await;
    }
    case.follow(&all);

    case.session.run("SET SESSION binlog_row_image = MINIMAL").await;
    if kind == Kind::MySql {
        case.session
            .run(
                "REPLACE INTO t (id, v) VALUES (1, 'replaced');
                 INSERT INTO t (id, v) VALUES (2, 'x') ON DUPLICATE KEY UPDATE n = 1;
                 UPDATE t SET id = 1 WHERE id = 1",
            )
            .await;
        case.follow(&all);
        // NOT NULL without a default, where the session's mode lets it: nobody tells which value the row has.
        case.session
            .run("CREATE TABLE lax (id INT PRIMARY KEY, v VARCHAR(9) NOT NULL); INSERT INTO lax VALUES (1, 'x')")
            .await;
        case.follow(&["t", "lax"]);
        case.session.run("SET SESSION sql_mode = ''; INSERT INTO lax (id) VALUES (2)").await;
        case.stops("lax", &["column `v`", "binlog_row_image", "no default"]);
    } else {
        // MariaDB's log does not tell what became of the columns that REPLACE left out.
        case.session.run("REPLACE INTO uk (k, w) VALUES (1000, 'replaced')").await;
        case.stops("uk", &["column `v`", "REPLACE", "binlog_row_image"]);
        case.session.run("SET SESSION binlog_row_image = NOBLOB; UPDATE pair SET c = 4 WHERE a = 1000").await;
        case.stops("pair", &["column `t`", "REPLACE"]);
        case.assert_equal(&["t"]);
        case.session.run("SET SESSION binlog_row_image = FULL").await;
        case.session
            .run("CREATE TABLE virt (id INT PRIMARY KEY, a INT, g INT AS (a + 1) VIRTUAL); INSERT INTO virt (id, a) VALUES (1, 1)")
            .await;
        let _ = case.lakeward.try_catch_up();
        case.assert_equal(&["t", "virt"]);
        case.session.run("SET SESSION binlog_row_image = MINIMAL; UPDATE virt SET a = 2").await;
        case.stops("virt", &["column `g`", "generated"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_images_that_lack_columns_are_applied_mariadb() {
    row_images_that_lack_columns_are_applied(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_images_that_lack_columns_are_applied_mysql() {
    row_images_that_lack_columns_are_applied(Kind::MySql).await;
}

/// K-8, K-9, K-10, M-24: system-versioned tables show their present rows, sequences are ignored, hashes of unique keys are
/// known, names that differ in case are different tables.
#[tokio::test(flavor = "multi_thread")]
async fn only_present_rows_of_system_versioned_tables_are_in_the_lake() {
    for metadata in ["binlog_row_metadata=NO_LOG", "binlog_row_metadata=FULL"] {
        let Some(mut case) = Case::start(Kind::MariaDb, "versioned", &[metadata]).await else { return };
        case.session
            .run(
                "CREATE TABLE hidden (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING;
                 CREATE TABLE shown (id INT PRIMARY KEY, a INT, rs TIMESTAMP(6) GENERATED ALWAYS AS ROW START,
                    re TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (rs, re)) WITH SYSTEM VERSIONING;
                 CREATE TABLE hashed (id INT PRIMARY KEY, x TEXT UNIQUE, y BLOB UNIQUE, v INT INVISIBLE DEFAULT 4);
                 CREATE TABLE Hashed (id INT PRIMARY KEY);
                 CREATE SEQUENCE numbers;
                 INSERT INTO hidden VALUES (1, 1), (2, 2), (3, 3);
                 INSERT INTO shown (id, a) VALUES (1, 1), (2, 2);
                 UPDATE hidden SET a = 9 WHERE id = 1",
            )
            .await;
        let all = ["hidden", "shown", "hashed", "Hashed"];
        case.follow(&all);
        let changes = |base: u32| {
            format!(
                "INSERT INTO hidden (id, a) VALUES ({base}, 1), ({base} + 1, 2);
                 UPDATE hidden SET a = a + 1 WHERE id IN (1, {base});
                 UPDATE hidden SET id = id + 10 WHERE id = {base} + 1;
                 DELETE FROM hidden WHERE id = 2;
                 REPLACE INTO hidden (id, a) VALUES (3, {base});
                 INSERT INTO shown (id, a) VALUES ({base}, 1);
                 UPDATE shown SET a = {base} WHERE id IN (1, {base});
                 DELETE FROM shown WHERE id = 2;
                 DO NEXTVAL(numbers);
                 INSERT INTO hashed (id, x, y) VALUES ({base}, 'x{base}', NULL);
                 UPDATE hashed SET y = 'y{base}', v = 8 WHERE id = {base};
                 INSERT INTO Hashed VALUES ({base})"
            )
        };
        case.session.run(&changes(100)).await;
        case.follow(&all);
        case.session.run("SET SESSION system_versioning_alter_history = KEEP; DELETE HISTORY FROM hidden").await;
        case.session.run("ALTER TABLE hidden ALTER a SET DEFAULT 3").await;
        case.session.run("SET SESSION binlog_row_image = MINIMAL; UPDATE hidden SET a = 77 WHERE id = 1; DELETE FROM hidden WHERE id = 100").await;
        case.session.run("SET SESSION binlog_row_image = FULL").await;
        case.session.run(&changes(200)).await;
        case.follow(&all);
    }
}

/// K-10: names compare without case.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lowers_names_is_followed() {
    let options = ["lower_case_table_names=1", "binlog_row_metadata=NO_LOG"];
    let Some(mut case) = Case::start(Kind::MariaDb, "lower", &options).await else { return };
    case.session.run("CREATE TABLE Mixed (Id INT PRIMARY KEY, V INT); INSERT INTO MIXED VALUES (1, 1)").await;
    case.follow(&["mixed"]);
    case.session.run("INSERT INTO mIXED VALUES (2, 2); ALTER TABLE MIXED MODIFY V INT FIRST; UPDATE Mixed SET v = 3 WHERE ID = 1").await;
    case.follow(&["mixed"]);
}
