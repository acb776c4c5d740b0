//! MySQL and MariaDB.

use std::sync::Arc;
use std::time::Duration;

use lakeward::config::{Contract, Contracts, DatabaseKind, Secret, SourceConfig, TableSelection, Tls};
use lakeward::schema::{LakeType, TableName};
use lakeward::source::mysql::MySqlSource;
use lakeward::source::{Chunk, Error, Source};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio_util::sync::CancellationToken;

use super::support::server::OwnServer;
use super::support::setting;
use super::support::source::Kind;
use super::visibility::{Told, follow};
use super::{chunks_are_the_snapshot, conditions_hold, read, rows, schema, snapshot, walk};

pub const KINDS: [Kind; 2] = [Kind::MariaDb, Kind::MySql];

/// The port of this run's server, or `SKIPPED`.
pub fn port(kind: Kind) -> Option<u16> {
    let variable = if kind == Kind::MariaDb { "LAKEWARD_TEST_MARIADB_PORT" } else { "LAKEWARD_TEST_MYSQL_PORT" };
    setting(variable)?.parse().ok()
}

pub async fn connect(port: u16, user: &str) -> Conn {
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some(user))
        .pass(Some(user))
        .prefer_socket(false);
    Conn::new(options).await.expect("the server answers")
}

pub async fn run(conn: &mut Conn, statements: &str) {
    for statement in statements.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// A database of one test with a table `seq` of the numbers from 1 to 100, and an application's session in it.
pub async fn database(port: u16, name: &str) -> Conn {
    let mut app = connect(port, "app").await;
    run(
        &mut app,
        &format!(
            "SET SESSION sql_mode = '', time_zone = '+00:00';\nSET NAMES utf8mb4;\nDROP DATABASE IF EXISTS {name};\n\
             CREATE DATABASE {name} CHARACTER SET utf8mb4;\nUSE {name};\nCREATE TABLE seq (i INT PRIMARY KEY);\n\
             INSERT INTO seq WITH RECURSIVE g (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 100) SELECT i FROM g"
        ),
    )
    .await;
    app
}

pub fn source(port: u16, user: &str, database: &str, contracts: Contracts) -> MySqlSource {
    let config = SourceConfig {
        name: "test".into(),
        kind: DatabaseKind::MySql,
        host: "127.0.0.1".into(),
        port,
        user: user.into(),
        password: Some(Secret::new(user)),
        database: String::new(),
        // Each chunk has connections of its own, and a debug build's TLS is slow.
        tls: Tls::Disable,
        tls_ca_file: None,
        tables: TableSelection::parse(&[&format!("{database}.*")]).expect("a pattern"),
        server_id: 990_017,
        slot: String::new(),
        publication: String::new(),
        on_lost_position: lakeward::config::OnLostPosition::Stop,
    };
    MySqlSource::new(config, contracts).expect("a valid config")
}

/// Name, columns of the key, what each is for `i` from 1 to 100 (in this order), and what else.
struct Case(&'static str, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    Case("whole", "k INT", "(i - 50) * 1000", ""),
    Case("composite", "a VARCHAR(10), b INT UNSIGNED, c SMALLINT", "CONCAT('t', i DIV 30), i DIV 10, -i", ""),
    Case("beyond_signed", "k BIGINT UNSIGNED", "18446744073709551615 - i", ""),
    Case(
        "accents",
        "k VARCHAR(30) COLLATE utf8mb4_general_ci",
        "CONCAT(ELT(i % 5 + 1, 'é', 'E', 'ß', 'Ö', 'z'), i)",
        "",
    ),
    Case(
        "padded",
        "k VARCHAR(30) CHARACTER SET latin1",
        "CONCAT(ELT(i % 4 + 1, 'a', 'A\\t', 'a!', 'é '), i DIV 4, IF(i % 3, '\\t', ''))",
        "",
    ),
    Case("fixed", "k CHAR(5) CHARACTER SET latin1 COLLATE latin1_bin", "CHAR(60 + i USING latin1)", ""),
    Case("wide", "k VARCHAR(20) CHARACTER SET utf16", "CONCAT(_utf8mb4 X'F09F8FA8', i)", ""),
    Case("two_bytes", "k VARCHAR(20) CHARACTER SET ucs2 COLLATE ucs2_bin", "CONCAT('日', i)", ""),
    Case(
        "quotes",
        "k VARCHAR(50) COLLATE utf8mb4_bin",
        "CONCAT(ELT(i % 6 + 1, '''', '\\\\', '\"', '\\n', '%_', _utf8mb4 X'F09F8FA8'), i, '\\\\')",
        "",
    ),
    Case("decimals", "k DECIMAL(40,10)", "(i - 50) * 123456789012345678901234567890 / 1000", ""),
    Case("floats", "a FLOAT, b DOUBLE", "(i DIV 10) / 10 - 3, (i - 50) * 1.1e300 / 3", ""),
    Case("bits", "k BIT(64)", "18446744073709551615 - i * 1000", ""),
    Case(
        "bytes",
        "k VARBINARY(20)",
        "CONCAT(IF(i = 1, '', CHAR(i % 3)), IF(i = 1, '', X'00275C'), IF(i = 1, '', i))",
        "",
    ),
    Case("binary16", "k BINARY(16)", "UNHEX(LEFT(SHA2(i, 256), 32))", ""),
    Case("dates", "k DATE", "'2024-02-01' + INTERVAL i DAY", ""),
    Case("datetimes", "k DATETIME(6)", "'0001-01-01' + INTERVAL i * 3456789012 MICROSECOND", ""),
    Case("instants", "k TIMESTAMP(3)", "'2024-10-27 00:00:00.5' + INTERVAL i * 15 MINUTE", ""),
    Case("times", "k TIME(2)", "SEC_TO_TIME((i - 50) * 60000.25)", ""),
    Case("years", "k YEAR, n TINYINT", "IF(i < 8, 0, 1901 + i), i", ""),
    Case("labels", "k ENUM('zebra','Ant','mule','bee'), n INT", "i % 4 + 1, i", ""),
    Case("sets", "k SET('z','a','m','b','y','c','x')", "i", ""),
    Case("prefixed", "k TEXT", "CONCAT(i, LPAD('', 300, 'x'))", "k(10)"),
];

const OF_MARIADB: &[Case] = &[
    Case("uuids", "k UUID", "CONCAT(SUBSTR(MD5(i), 1, 8), '-0000-1000-8000-', SUBSTR(MD5(i), 9, 12))", ""),
    Case("addresses", "k INET6", "CONCAT('2001:db8::', HEX(i * 7))", ""),
    Case("old_addresses", "k INET4", "CONCAT('10.', i, '.0.255')", ""),
];

/// S-7, with settings that make other statements of the same words. The servers are others' too, so it has one of its own.
#[tokio::test]
async fn chunks_hold_each_row_once_whatever_the_key_is_made_of() {
    for kind in KINDS {
        let modes =
            "sql_mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT,HIGH_NOT_PRECEDENCE";
        let Some(server) = OwnServer::start(kind, "chunks", &[modes]) else { continue };
        let mut app = database(server.port, "lw_keys").await;
        let of_mariadb = OF_MARIADB.iter().filter(|_| kind == Kind::MariaDb);
        let cases: Vec<&Case> = CASES.iter().chain(of_mariadb).collect();
        for Case(name, columns, values, key) in &cases {
            let names: Vec<&str> = columns.split(", ").filter_map(|column| column.split(' ').next()).collect();
            let key = if key.is_empty() { names.join(", ") } else { (*key).to_owned() };
            run(
                &mut app,
                &format!(
                    "CREATE TABLE {name} ({columns}, payload VARCHAR(20), PRIMARY KEY ({key}));\n\
                     INSERT INTO {name} SELECT {values}, CONCAT('row ', i) FROM seq"
                ),
            )
            .await;
        }
        let source = source(server.port, "cdc", "lw_keys", Contracts::default());
        for Case(name, ..) in cases {
            chunks_are_the_snapshot(&source, &TableName::new("lw_keys", *name)).await;
        }
    }
}

#[tokio::test]
async fn tables_of_their_own_kind_come_in_chunks_as_they_do_whole() {
    for kind in KINDS {
        let Some(port) = port(kind) else { continue };
        let mut app = database(port, "chunks_kinds").await;
        run(&mut app, "CREATE TABLE nothing (k INT PRIMARY KEY);\nCREATE TABLE keyless (n INT);\nINSERT INTO keyless SELECT i FROM seq").await;
        run(
            &mut app,
            "CREATE TABLE made (k INT PRIMARY KEY, secret INT, twice INT AS (k * 2) STORED, thrice INT AS (k * 3) VIRTUAL);\n\
             INSERT INTO made (k, secret) SELECT i, 7 FROM seq",
        )
        .await;
        // A key that only the contract knows may hold NULL: rows that can't be taken over, but are not passed over.
        run(
            &mut app,
            "CREATE TABLE named (a INT, b DATE, payload INT);\n\
             INSERT INTO named SELECT NULLIF(i DIV 10, 3), IF(i % 5 = 0, NULL, '2024-01-01' + INTERVAL i DAY), i FROM seq",
        )
        .await;
        if kind == Kind::MariaDb {
            run(&mut app, "CREATE TABLE versioned (k INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING;\n\
                 INSERT INTO versioned SELECT i, 1 FROM seq;\nUPDATE versioned SET v = 2 WHERE k % 2 = 0;\nDELETE FROM versioned WHERE k > 95").await;
        } else {
            run(
                &mut app,
                "SET SESSION sql_generate_invisible_primary_key = ON;\nCREATE TABLE invisible (v INT);\n\
                 INSERT INTO invisible SELECT 7 FROM seq",
            )
            .await;
        }
        let contracts = Contracts::new(vec![
            Contract { table: "chunks_kinds.made".into(), exclude: vec!["secret".into()], ..Contract::default() },
            Contract { table: "chunks_kinds.named".into(), key: vec!["a".into(), "b".into()], ..Contract::default() },
        ]);
        let source = source(port, "cdc", "chunks_kinds", contracts);
        let name = |table: &str| TableName::new("chunks_kinds", table);
        chunks_are_the_snapshot(&source, &name("nothing")).await;
        chunks_are_the_snapshot(&source, &name("made")).await;
        chunks_are_the_snapshot(&source, &name(if kind == Kind::MariaDb { "versioned" } else { "invisible" })).await;

        let named = schema(&source, &name("named")).await;
        let chunks = walk(&source, &named, 7).await;
        assert!(chunks.len() > 5);
        let error = read(&source, &name("named"), &chunks[0], None).await.expect_err("a key is never NULL");
        assert!(matches!(&error, Error::Table { finding, .. } if finding.contains("NULL")), "{error}");
        for chunk in &chunks[1..] {
            read(&source, &name("named"), chunk, None).await.expect("reads");
        }
        run(&mut app, "DELETE FROM named WHERE a IS NULL OR b IS NULL").await;
        chunks_are_the_snapshot(&source, &name("named")).await;

        let keyless = schema(&source, &name("keyless")).await;
        let whole = source.next_chunk(&keyless, None, 7).await.expect("a chunk");
        assert_eq!(whole, Chunk::default());
        let (_, batch) = read(&source, &name("keyless"), &whole, None).await.expect("reads");
        assert_eq!(rows(&[batch]), rows(&[snapshot(&source, &name("keyless")).await]));
    }
}

#[tokio::test]
async fn a_condition_is_one_condition_or_refused() {
    for kind in KINDS {
        let Some(port) = port(kind) else { continue };
        let mut app = database(port, "chunks_filter").await;
        run(&mut app, "CREATE TABLE numbers (n INT PRIMARY KEY, note VARCHAR(20));\nINSERT INTO numbers SELECT i, CONCAT('it''s ', i) FROM seq").await;
        let source = source(port, "cdc", "chunks_filter", Contracts::default());
        let unusable = [
            "n >",
            "nowhere = 1",
            "1) OR (1",
            "1; DROP TABLE numbers",
            "1 = 1; SELECT 1",
            "n = ?",
            "n = :n",
            "1 = 1 LIMIT 3",
            "1 = 1 UNION SELECT 1, 2",
            "1 = 1 /*",
            "",
        ];
        conditions_hold(&source, &TableName::new("chunks_filter", "numbers"), &unusable).await;
    }
}

#[tokio::test]
async fn a_table_that_changes_between_bounds_and_rows_is_read_as_it_is() {
    for kind in KINDS {
        let Some(port) = port(kind) else { continue };
        let mut app = database(port, "chunks_ddl").await;
        run(&mut app, "CREATE TABLE goods (k INT PRIMARY KEY, v INT);\nINSERT INTO goods SELECT i, i FROM seq").await;
        let source = source(port, "cdc", "chunks_ddl", Contracts::default());
        let name = TableName::new("chunks_ddl", "goods");
        let start = source.begin_load(std::slice::from_ref(&name)).await.expect("a beginning");
        assert_eq!(start[0].schema.columns.len(), 2);
        assert!(start[0].layout.is_some());
        let before = source.next_chunk(&start[0].schema, None, 10).await.expect("a chunk");
        run(&mut app, "ALTER TABLE goods ADD COLUMN w INT NOT NULL DEFAULT 5, RENAME COLUMN v TO x").await;
        let (told, batch) = read(&source, &name, &before, None).await.expect("reads");
        let names: Vec<&str> = told.schema.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["k", "x", "w"]);
        let mut wanted: Vec<String> = (1..=10).map(|k| format!("\"{k}\"|\"{k}\"|\"5\"")).collect();
        wanted.sort();
        assert_eq!(rows(&[batch]), wanted);

        // Longer numbers are ordered alike, texts are not.
        run(&mut app, "ALTER TABLE goods MODIFY k BIGINT").await;
        let (told, batch) = read(&source, &name, &before, None).await.expect("reads");
        assert_eq!((told.schema.columns[0].lake_type, batch.num_rows()), (LakeType::Long, 10));
        run(&mut app, "ALTER TABLE goods MODIFY k VARCHAR(20)").await;
        let error = read(&source, &name, &before, None).await.expect_err("other bounds");
        assert!(matches!(error, Error::BoundsVoid { .. }), "{error}");
        let table = schema(&source, &name).await;
        let error = source.next_chunk(&table, before.to.as_ref(), 10).await.expect_err("other bounds");
        assert!(matches!(error, Error::BoundsVoid { .. }), "{error}");

        // While its definition changes all the time, what a chunk says of itself stays true.
        let altering = tokio::spawn(async move {
            for round in 0..40 {
                let change = if round % 2 == 0 { "DROP COLUMN w" } else { "ADD COLUMN w INT NOT NULL DEFAULT 5" };
                run(&mut app, &format!("ALTER TABLE goods {change}")).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            app
        });
        let mut both = [0, 0];
        while !altering.is_finished() {
            let (told, batch) = read(&source, &name, &Chunk::default(), None).await.expect("reads");
            let with = told.schema.columns.len() == 3;
            both[usize::from(with)] += 1;
            let end = if with { "|\"5\"" } else { "" };
            let mut wanted: Vec<String> = (1..=100).map(|k| format!("\"{k}\"|\"{k}\"{end}")).collect();
            wanted.sort();
            assert_eq!(rows(&[batch]), wanted);
        }
        eprintln!("{kind:?}: read without and with the column: {both:?}");
        let mut app = altering.await.expect("alters");
        run(&mut app, "DROP TABLE goods").await;
        let error = read(&source, &name, &Chunk::default(), None).await.expect_err("gone");
        assert!(matches!(error, Error::Table { .. }), "{error}");
    }
}

/// Columns come and go all the time: with another definition than that of its position, a change that comes by the log would
/// drop a column that is not there, or add one that is, and the table would stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_begins_with_the_definition_of_its_position() {
    for kind in KINDS {
        let Some(port) = port(kind) else { continue };
        let mut app = database(port, "chunks_begin").await;
        run(&mut app, "CREATE TABLE goods (k BIGINT PRIMARY KEY, v INT)").await;
        let source = Arc::new(source(port, "cdc", "chunks_begin", Contracts::default()));
        let name = TableName::new("chunks_begin", "goods");
        let stop_altering = CancellationToken::new();
        let altering = tokio::spawn({
            let stop = stop_altering.clone();
            async move {
                for change in ["ADD COLUMN w INT", "DROP COLUMN w"].iter().cycle() {
                    if stop.is_cancelled() {
                        break;
                    }
                    run(&mut app, &format!("ALTER TABLE goods {change}")).await;
                }
            }
        });
        let mut both = [0, 0];
        while both.iter().sum::<i32>() < 12 {
            let start = source.begin_load(std::slice::from_ref(&name)).await.expect("a beginning").remove(0);
            both[usize::from(start.schema.columns.len() == 3)] += 1;
            let (told, stop) = (Told::default(), CancellationToken::new());
            let stream = follow(&source, &start, &told, &stop);
            tokio::time::sleep(Duration::from_millis(150)).await;
            stop.cancel();
            stream.await.expect("the table does not stop");
        }
        stop_altering.cancel();
        altering.await.expect("alters");
        eprintln!("{kind:?}: begun without and with the column: {both:?}");
    }
}

#[tokio::test]
async fn a_missing_privilege_names_its_grant() {
    for kind in KINDS {
        let Some(port) = port(kind) else { continue };
        let mut app = database(port, "chunks_poor").await;
        run(
            &mut app,
            "CREATE TABLE hidden (k INT PRIMARY KEY);\nDROP USER IF EXISTS chunkspoor@'%';\n\
             CREATE USER chunkspoor@'%' IDENTIFIED BY 'chunkspoor';\nGRANT SELECT ON chunks_poor.seq TO chunkspoor@'%'",
        )
        .await;
        let source = source(port, "chunkspoor", "chunks_poor", Contracts::default());
        let error = read(&source, &TableName::new("chunks_poor", "hidden"), &Chunk::default(), None).await;
        let error = error.expect_err("refused");
        assert!(matches!(&error, Error::Privilege { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains("GRANT SELECT ON") && told.contains("hidden"), "{told}");
        run(&mut app, "DROP USER chunkspoor@'%'").await;
    }
}
