//! PostgreSQL's transactions, keys, partitions and publications, K-2, K-4, K-5, P-17, P-20 to P-22.
//!
//! A case is the SQL before the first load, the SQL that the daemon follows, and the rows that the lake must hold then, as
//! DuckDB reads them. `{t}` is the case's own table.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Scratch;
use crate::support::daemon::{Daemon, Lakeward};
use crate::support::oracle::{Oracle, Reader};
use crate::support::source::{Database, Kind, Session};

struct Case {
    id: &'static str,
    before: &'static str,
    followed: &'static str,
    rows: Value,
}

/// Larger than what PostgreSQL keeps in the row; `EXTERNAL` is not compressed.
const PLAIN: &str =
    "CREATE TABLE {t} (id int PRIMARY KEY, v text, n int); ALTER TABLE {t} ALTER v SET STORAGE EXTERNAL;";

fn long(letter: &str) -> Value {
    json!(letter.repeat(3000))
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let case = |id, before, followed, rows| Case { id, before, followed, rows };
    vec![
        case("X-3 rolled back to a savepoint", "",
            "BEGIN; INSERT INTO {t} VALUES (1); SAVEPOINT s; INSERT INTO {t} VALUES (2); ROLLBACK TO s;
             INSERT INTO {t} VALUES (3); RELEASE s; COMMIT",
            json!([[1, null, null], [3, null, null]])),
        case("X-3 an exception inside", "",
            "DO $$ BEGIN INSERT INTO {t} VALUES (1);
               BEGIN INSERT INTO {t} VALUES (2); INSERT INTO {t} VALUES (1); EXCEPTION WHEN unique_violation THEN NULL; END;
             END $$",
            json!([[1, null, null]])),
        case("X-4 rolled back", "INSERT INTO {t} VALUES (1, 'a', 1);",
            "BEGIN; DELETE FROM {t}; INSERT INTO {t} VALUES (2); ROLLBACK; UPDATE {t} SET n = 2",
            json!([[1, "a", 2]])),
        case("X-6 prepared, with another in between, then committed", "",
            "BEGIN; INSERT INTO {t} VALUES (1, 'prepared', 1); PREPARE TRANSACTION '{t}';
             INSERT INTO {t} VALUES (2, 'meanwhile', 2); COMMIT PREPARED '{t}'",
            json!([[1, "prepared", 1], [2, "meanwhile", 2]])),
        case("X-6 prepared, then rolled back", "",
            "BEGIN; INSERT INTO {t} VALUES (1); PREPARE TRANSACTION '{t}'; INSERT INTO {t} VALUES (2);
             ROLLBACK PREPARED '{t}'",
            json!([[2, null, null]])),
        case("X-7 a key goes on from row to row", "INSERT INTO {t} VALUES (1, 'a', 1), (2, 'b', 2);",
            "UPDATE {t} SET id = 10 WHERE id = 1; UPDATE {t} SET id = 11 WHERE id = 10; UPDATE {t} SET id = 1 WHERE id = 2",
            json!([[1, "b", 2], [11, "a", 1]])),
        case("X-7 two rows swap their keys", "INSERT INTO {t} VALUES (1, 'a', 1), (2, 'b', 2);",
            "BEGIN; UPDATE {t} SET id = 0 WHERE id = 1; UPDATE {t} SET id = 1 WHERE id = 2; UPDATE {t} SET id = 2 WHERE id = 0;
             COMMIT",
            json!([[1, "b", 2], [2, "a", 1]])),
        case("X-8 many changes of one key", "INSERT INTO {t} VALUES (1, 'a', 1);",
            "DELETE FROM {t}; INSERT INTO {t} VALUES (1, 'b', 2); UPDATE {t} SET n = 3; INSERT INTO {t} VALUES (2);
             DELETE FROM {t} WHERE id = 2; INSERT INTO {t} VALUES (3); DELETE FROM {t} WHERE id = 3; INSERT INTO {t} VALUES (3)",
            json!([[1, "b", 3], [3, null, null]])),
        case("X-9 insert or update", "INSERT INTO {t} VALUES (1, 'a', 1);",
            "INSERT INTO {t} VALUES (1, 'x', 5), (2, 'y', 6) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
             MERGE INTO {t} USING (VALUES (2), (3)) AS s(id) ON s.id = {t}.id
               WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged', 7)",
            json!([[1, "a", 5], [3, "merged", 7]])),
        case("X-10 an update that changes nothing", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "UPDATE {t} SET n = n; UPDATE {t} SET id = id, v = v", json!([[1, long("a"), 1]])),
        case("X-14 messages that applications put into the log", "",
            "BEGIN; SELECT pg_logical_emit_message(true, 'p', 'in'); INSERT INTO {t} VALUES (1);
             SELECT pg_logical_emit_message(false, 'p', repeat('x', 100000)); COMMIT;
             SELECT pg_logical_emit_message(true, '', ''); SELECT pg_logical_emit_message(false, 'alone', '\\x00'::bytea)",
            json!([[1, null, null]])),
        case("X-11 session_replication_role hides nothing from the log", "",
            "SET session_replication_role = replica; INSERT INTO {t} VALUES (1); RESET session_replication_role",
            json!([[1, null, null]])),
        case("P-20 the index is the key, not the primary key",
            "ALTER TABLE {t} ADD code text NOT NULL DEFAULT ''; CREATE UNIQUE INDEX {t}_code ON {t} (code);
             ALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_code; INSERT INTO {t} VALUES (1, 'a', 1, 'x'), (2, 'b', 2, 'y');",
            "UPDATE {t} SET id = 7 WHERE code = 'x'; UPDATE {t} SET code = 'z' WHERE id = 2; DELETE FROM {t} WHERE code = 'z';
             INSERT INTO {t} VALUES (2, 'c', 3, 'y')",
            json!([[2, "c", 3, "y"], [7, "a", 1, "x"]])),
        case("P-20 whole old rows beside a primary key",
            "ALTER TABLE {t} REPLICA IDENTITY FULL; INSERT INTO {t} VALUES (1, 'a', 1), (2, 'b', NULL), (3, NULL, 3);",
            "UPDATE {t} SET n = 5 WHERE id = 1; UPDATE {t} SET id = 9 WHERE id = 2; DELETE FROM {t} WHERE id = 3",
            json!([[1, "a", 5], [9, "b", null]])),
        case("P-22 an update beside an unchanged long value", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "UPDATE {t} SET n = 2", json!([[1, long("a"), 2]])),
        case("P-22 the key changes beside it", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "UPDATE {t} SET id = 5", json!([[5, long("a"), 1]])),
        case("P-22 the key and more change, twice, in one transaction", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "BEGIN; UPDATE {t} SET id = 5, n = 2; UPDATE {t} SET id = 6; UPDATE {t} SET n = 3; COMMIT",
            json!([[6, long("a"), 3]])),
        case("P-22 inserted and updated in one batch", "",
            "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1); UPDATE {t} SET n = 2; UPDATE {t} SET id = 2",
            json!([[2, long("a"), 2]])),
        case("P-22 replaced, then kept", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "UPDATE {t} SET v = repeat('b', 3000); UPDATE {t} SET n = 2; UPDATE {t} SET v = NULL WHERE n = 1",
            json!([[1, long("b"), 2]])),
        case("P-22 whole old rows", "ALTER TABLE {t} REPLICA IDENTITY FULL; INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "UPDATE {t} SET n = 2; UPDATE {t} SET id = 4; UPDATE {t} SET n = 3", json!([[4, long("a"), 3]])),
        case("P-22 the long value is the key",
            "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey; UPDATE {t} SET v = ''; ALTER TABLE {t} ALTER v SET NOT NULL;
             ALTER TABLE {t} ADD PRIMARY KEY (v); INSERT INTO {t} VALUES (1, repeat('k', 2500), 1);",
            "UPDATE {t} SET n = 2; UPDATE {t} SET v = repeat('l', 2500); UPDATE {t} SET n = 3",
            json!([[1, "l".repeat(2500), 3]])),
        case("P-22 deleted and inserted again", "INSERT INTO {t} VALUES (1, repeat('a', 3000), 1);",
            "BEGIN; DELETE FROM {t}; INSERT INTO {t} VALUES (1, repeat('c', 3000), 2); UPDATE {t} SET n = 3; COMMIT",
            json!([[1, long("c"), 3]])),
        case("K-2 between other changes", "INSERT INTO {t} VALUES (1, 'a', 1), (2, 'b', 2);",
            "BEGIN; INSERT INTO {t} VALUES (3); TRUNCATE {t} RESTART IDENTITY; INSERT INTO {t} VALUES (2, 'c', 3); COMMIT;
             UPDATE {t} SET n = 4",
            json!([[2, "c", 4]])),
        case("K-2 several tables, one by CASCADE",
            "CREATE TABLE {t}_child (id int PRIMARY KEY, parent int REFERENCES {t}); INSERT INTO {t} VALUES (1);
             INSERT INTO {t}_child VALUES (1, 1);",
            "TRUNCATE {t} CASCADE; INSERT INTO {t} VALUES (2); INSERT INTO {t}_child VALUES (2, 2)",
            json!([[2, null, null]])),
        case("K-2 rolled back", "INSERT INTO {t} VALUES (1);", "BEGIN; TRUNCATE {t}; ROLLBACK; UPDATE {t} SET n = 1",
            json!([[1, null, 1]])),
    ]
}

/// A database, its lake, and who reads both.
struct Bed {
    database: Database,
    session: Session,
    admin: Session,
    scratch: Scratch,
    lakeward: Lakeward,
    reader: Reader,
    oracle: Oracle,
}

impl Bed {
    async fn new(test: &str, more: &str) -> Option<Self> {
        let database = Database::create(Kind::Postgres, test).await?;
        let (reader, oracle) = (Reader::start(None)?, Oracle::start(None)?);
        let scratch = Scratch::new(test);
        fs::create_dir(scratch.path().join("schemas")).expect("writable");
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let source = database.source_toml();
        let config = format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{source}{more}\n");
        let lakeward = Lakeward::new(scratch.path(), &config);
        let (session, admin) = (database.session().await, database.admin().await);
        Some(Self { database, session, admin, scratch, lakeward, reader, oracle })
    }

    fn rows(&mut self, table: &str) -> Value {
        let folder = self.scratch.path().join("lake/src/public").join(table);
        json!(self.reader.rows(&folder.to_string_lossy(), None, "SELECT * FROM t ORDER BY 1"))
    }

    /// Waits until the lake's table holds these rows.
    fn becomes(&mut self, daemon: &mut Daemon, table: &str, case: &str, expected: &Value) {
        let started = Instant::now();
        loop {
            let found = self.rows(table);
            if found == *expected {
                return;
            }
            if started.elapsed() > Duration::from_secs(180) || !daemon.is_running() {
                panic!("{case}: the lake holds {found}, expected is {expected}\n{}", daemon.log());
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    fn assert_equal(&mut self, tables: &[&str]) {
        let names: Vec<String> = tables.iter().map(|table| self.database.table(table)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lake = self.scratch.path().join("lake/src");
        self.oracle.assert_equal(&self.database.oracle_url(), &lake.to_string_lossy(), &names);
    }

    /// Catches up and expects the table to be stopped for this reason, now and at the next start.
    fn stops(&mut self, table: &str, reason: &str) {
        for _ in 0..2 {
            let (status, log) = self.lakeward.try_catch_up();
            assert_eq!(status.code(), Some(13), "{reason}: {log}");
            assert!(log.contains(&format!("public.{table}")) && log.contains(reason), "{reason}: {log}");
        }
    }

    /// As the message says.
    fn load_again(&mut self, table: &str) {
        fs::remove_dir_all(self.scratch.path().join("lake/src/public").join(table)).expect("the table's folder");
        self.lakeward.catch_up();
        self.assert_equal(&[table]);
    }
}

/// P-20, P-22, K-2
#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_leaves_in_the_lake_what_it_leaves_at_the_source() {
    let Some(mut bed) = Bed::new("pgcases", "").await else { return };
    let cases = cases();
    let table = |index: usize| format!("c{index}");
    for (index, case) in cases.iter().enumerate() {
        bed.session.run(&format!("{PLAIN}{}", case.before).replace("{t}", &table(index))).await;
    }
    bed.session.run("CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)").await;
    bed.lakeward.catch_up();
    let mut daemon = bed.lakeward.start();
    daemon.wait_for_log("streaming");
    for (index, case) in cases.iter().enumerate() {
        let sql = case.followed.replace("{t}", &table(index));
        // One by one: together they would be one transaction, and some may not be inside of one. The superuser may set
        // everything.
        if sql.contains("$$") {
            bed.admin.run(&sql).await;
        } else {
            for statement in sql.split(';') {
                bed.admin.run(statement).await;
            }
        }
    }
    // what is not in the log.
    bed.session.run("INSERT INTO unlogged VALUES (1); CREATE TEMP TABLE passing (id int PRIMARY KEY); INSERT INTO passing VALUES (1)").await;
    for (index, case) in cases.iter().enumerate() {
        bed.becomes(&mut daemon, &table(index), case.id, &case.rows);
    }
    let (status, log) = daemon.terminate();
    assert!(status.success() && !log.contains("stopped;"), "{log}");
    let names: Vec<String> = (0..cases.len()).map(table).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.assert_equal(&names);
    assert!(!bed.scratch.path().join("lake/src/public/unlogged").exists());
    bed.database.drop().await;
}

/// a slot that sends transactions before their commit is not used.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_for_two_phase_decoding_is_refused() {
    let Some(mut bed) = Bed::new("pgtwophase", "").await else { return };
    bed.session.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let slot = bed.database.name.clone();
    bed.admin.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)")).await;
    let (status, log) = bed.lakeward.try_catch_up();
    assert!(!status.success() && log.contains("two-phase") && log.contains("pg_drop_replication_slot"), "{log}");
    bed.admin.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    bed.lakeward.catch_up();
    bed.database.drop().await;
}

/// P-17: a row filter and a column list say what of the table is in the lake, from the first load on; a changed filter
/// stops the table, while lakeward runs and while it does not.
#[tokio::test(flavor = "multi_thread")]
async fn row_filters_and_column_lists_are_honoured() {
    let Some(mut bed) = Bed::new("pgfilter", "publication = \"picked\"\n[schema_changes]\nchange = \"fail\"").await
    else {
        return;
    };
    bed.session
        .run(
            "CREATE TABLE people (id int PRIMARY KEY, secret text, region text NOT NULL);
             CREATE UNIQUE INDEX people_both ON people (id, region);
             ALTER TABLE people REPLICA IDENTITY USING INDEX people_both;
             INSERT INTO people VALUES (1, 's', 'eu'), (2, 's', 'us'), (3, 's', 'eu')",
        )
        .await;
    bed.admin.run("CREATE PUBLICATION picked FOR TABLE people (id, region) WHERE (region = 'eu')").await;
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("people"), json!([[1, "eu"], [3, "eu"]]));
    let mut daemon = bed.lakeward.start();
    // Into the filter, out of it, within, and outside.
    bed.session
        .run(
            "UPDATE people SET region = 'eu' WHERE id = 2; UPDATE people SET region = 'us' WHERE id = 1;
             UPDATE people SET secret = 'x'; INSERT INTO people VALUES (4, 's', 'us'), (5, 's', 'eu');
             DELETE FROM people WHERE id = 4",
        )
        .await;
    bed.becomes(&mut daemon, "people", "P-17", &json!([[2, "eu"], [3, "eu"], [5, "eu"]]));
    bed.admin.run("ALTER PUBLICATION picked SET TABLE people (id, region) WHERE (region <> 'eu')").await;
    daemon.wait_for_log(
        "its row filter in publication `picked` changed from (region = 'eu'::text) to (region <> 'eu'::text)",
    );
    daemon.terminate();
    fs::remove_dir_all(bed.scratch.path().join("lake/src/public/people")).expect("the remedy");
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("people"), json!([[1, "us"]]));
    bed.admin.run("ALTER PUBLICATION picked SET TABLE people (id, region)").await;
    bed.stops("people", "changed from (region <> 'eu'::text) to none");
    bed.database.drop().await;
}

/// P-17: rows of before went by another list.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_column_list_stops_the_table() {
    let Some(mut bed) = Bed::new("pglist", "publication = \"picked\"\n[schema_changes]\nchange = \"fail\"").await
    else {
        return;
    };
    bed.session.run("CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t VALUES (1, 1, 1)").await;
    bed.admin.run("CREATE PUBLICATION picked FOR TABLE t (id, a)").await;
    bed.lakeward.catch_up();
    assert_eq!(bed.rows("t"), json!([[1, 1]]));
    bed.admin.run("ALTER PUBLICATION picked SET TABLE t (id, b)").await;
    bed.session.run("INSERT INTO t VALUES (2, 2, 2)").await;
    bed.stops("t", "its list of columns in publication `picked` was changed");
    bed.database.drop().await;
}

/// P-21: rows that are only ever added need no key, where the publication does not ask the application for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_identity_is_refused_or_by_contract_appended_to() {
    let Some(mut bed) = Bed::new("pgappend", "publication = \"inserts\"").await else { return };
    bed.session.run("CREATE TABLE events (at int, what text); CREATE TABLE keyed (id int PRIMARY KEY)").await;
    bed.admin.run("CREATE PUBLICATION inserts FOR TABLE events, keyed WITH (publish = 'insert')").await;
    let (_, log) = bed.lakeward.try_catch_up();
    assert!(
        log.contains("does not publish all of insert, update, delete and truncate, which table public.keyed needs"),
        "{log}"
    );
    bed.admin.run("ALTER PUBLICATION inserts SET (publish = 'insert, update, delete, truncate')").await;
    fs::write(bed.scratch.path().join("schemas/events.toml"), "table = \"public.events\"\nwithout_key = \"append\"\n")
        .expect("writable");
    let (_, log) = bed.lakeward.try_catch_up();
    assert!(log.contains("public.events") && log.contains("publish = 'insert'"), "{log}");
    // That is what publishing it all does to the application.
    let refused = bed.session.try_run("INSERT INTO events VALUES (1, 'a'); UPDATE events SET at = 1").await;
    assert!(refused.is_err_and(|error| error.contains("replica identity")));
    bed.database.drop().await;
}

const PARTED: &str =
    "CREATE TABLE parted (id int, region int, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
    CREATE TABLE parted_2 (v text, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
    ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2);
    INSERT INTO parted VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 1, 'c'), (4, 2, 'd');";

const PARTED_CHANGES: &str =
    "INSERT INTO parted VALUES (5, 1, 'e'), (6, 2, 'f'); UPDATE parted SET v = v || '!' WHERE id < 3;
    UPDATE parted SET region = 2 WHERE id = 3; UPDATE parted SET id = 7 WHERE id = 4; DELETE FROM parted WHERE id = 1;
    CREATE TABLE parted_3 PARTITION OF parted FOR VALUES IN (3) ; INSERT INTO parted VALUES (8, 3, 'h');
    CREATE TABLE parted_4 (LIKE parted INCLUDING ALL); ALTER TABLE parted ATTACH PARTITION parted_4 FOR VALUES IN (4);
    INSERT INTO parted VALUES (9, 3, 'i')";

/// K-4: partitions under their own names, columns in another order, rows that move between them.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_published_under_their_own_names_are_one_table() {
    let Some(mut bed) = Bed::new("pgleaves", "publication = \"leaves\"").await else { return };
    bed.session.run(PARTED).await;
    bed.admin.run("CREATE PUBLICATION leaves FOR TABLE parted WITH (publish_via_partition_root = false)").await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted"]);
    bed.session.run(PARTED_CHANGES).await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted"]);
    // K-2: the whole table.
    let mut daemon = bed.lakeward.start();
    bed.session.run("BEGIN; INSERT INTO parted VALUES (20, 1, 'x'); TRUNCATE parted; INSERT INTO parted VALUES (21, 2, 'y'); COMMIT").await;
    bed.becomes(&mut daemon, "parted", "K-2", &json!([[21, 2, "y"]]));
    // The catalog is looked at meanwhile, and finds nothing wrong.
    std::thread::sleep(Duration::from_secs(7));
    bed.session.run("INSERT INTO parted VALUES (22, 1, 'z')").await;
    bed.becomes(&mut daemon, "parted", "K-2", &json!([[21, 2, "y"], [22, 1, "z"]]));
    bed.session.run("TRUNCATE parted_2").await;
    daemon.wait_for_log("its partition public.parted_2 was truncated");
    daemon.terminate();
    assert_eq!(bed.rows("parted"), json!([[21, 2, "y"], [22, 1, "z"]]), "the root was not emptied");
    bed.load_again("parted");
    bed.database.drop().await;
}

/// K-4: a partition on its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_can_be_captured_without_its_root() {
    let Some(mut bed) = Bed::new("pgleaf", "").await else { return };
    bed.session.run(PARTED).await;
    let config = fs::read_to_string(bed.scratch.path().join("config.toml")).expect("readable");
    bed.lakeward = Lakeward::new(bed.scratch.path(), &config.replace("public.*", "public.parted_2"));
    bed.lakeward.catch_up();
    bed.session.run(PARTED_CHANGES).await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted_2"]);
    bed.session.run("TRUNCATE parted_2; INSERT INTO parted VALUES (30, 2, 'after')").await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted_2"]);
    bed.database.drop().await;
}

/// K-5: under the root's name, what happens to a partition leaves no trace in the log, and is found in the catalog.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_partition_beside_the_log_stops_the_table() {
    let Some(mut bed) = Bed::new("pgroot", "[schema_changes]\nchange = \"fail\"").await else { return };
    // A partition that is detached would be captured on its own.
    let config = bed.scratch.path().join("config.toml");
    let text = std::fs::read_to_string(&config).expect("just written");
    std::fs::write(&config, text.replace("\"public.*\"", "\"public.parted\"")).expect("writable");
    bed.session.run(PARTED).await;
    bed.lakeward.catch_up();
    bed.session.run(PARTED_CHANGES).await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted"]);

    // Rewritten, and truncated as a whole: nothing is lost, so nothing stops.
    bed.session.run("VACUUM FULL parted_1").await;
    bed.session.run("INSERT INTO parted VALUES (10, 1, 'j')").await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted"]);
    bed.session.run("TRUNCATE parted").await;
    bed.session.run("INSERT INTO parted VALUES (11, 1, 'k'), (12, 2, 'l')").await;
    bed.lakeward.catch_up();
    bed.assert_equal(&["parted"]);

    // While it runs, with rows that came meanwhile.
    let mut daemon = bed.lakeward.start();
    bed.session.run("INSERT INTO parted VALUES (13, 2, 'm')").await;
    bed.becomes(&mut daemon, "parted", "K-5", &json!([[11, 1, "k"], [12, 2, "l"], [13, 2, "m"]]));
    std::thread::sleep(Duration::from_secs(4));
    bed.session.run("TRUNCATE parted_2").await;
    bed.session.run("INSERT INTO parted VALUES (14, 2, 'n')").await;
    daemon.wait_for_log("its partition public.parted_2 was truncated, or rewritten");
    daemon.terminate();
    bed.load_again("parted");

    // While it does not run.
    bed.session.run("TRUNCATE parted_1").await;
    bed.stops("parted", "its partition public.parted_1 was truncated, or rewritten");
    bed.load_again("parted");
    bed.session.run("ALTER TABLE parted DETACH PARTITION parted_1").await;
    bed.stops("parted", "its partition public.parted_1 was detached or dropped");
    bed.load_again("parted");
    bed.session.run("INSERT INTO parted_1 VALUES (40, 1, 'q')").await;
    bed.session.run("ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES IN (1)").await;
    bed.stops("parted", "partition public.parted_1 was attached with rows in it");
    bed.load_again("parted");
    bed.session.run("DROP TABLE parted_2").await;
    bed.stops("parted", "its partition public.parted_2 was detached or dropped");
    bed.load_again("parted");
    // In one transaction: made, filled, attached.
    bed.session
        .run(
            "BEGIN; CREATE TABLE parted_5 (LIKE parted INCLUDING ALL); INSERT INTO parted_5 VALUES (50, 5, 'r');
             ALTER TABLE parted ATTACH PARTITION parted_5 FOR VALUES IN (5); INSERT INTO parted VALUES (51, 5, 's'); COMMIT",
        )
        .await;
    bed.stops("parted", "partition public.parted_5 was attached with rows in it");
    bed.load_again("parted");
    bed.database.drop().await;
}
