//! Changes through which the lake's rows can't be carried: the table is loaded again, by itself where policy lets it, while
//! readers see it as it was and everything else goes on.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Case;
use crate::support::daemon::Daemon;
use crate::support::source::Kind;

const KINDS: [Kind; 2] = [Kind::MariaDb, Kind::Postgres];

/// A table of its own for each: name, statement, and what is written after it.
struct Reload {
    name: &'static str,
    statement: &'static str,
    after: &'static str,
}

const fn reload(name: &'static str, statement: &'static str, after: &'static str) -> Reload {
    Reload { name, statement, after }
}

const MYSQL: &[Reload] = &[
    reload("narrower", "MODIFY a SMALLINT", "INSERT INTO {t} VALUES (3, 3, 'z')"),
    reload("text", "MODIFY a VARCHAR(20)", "INSERT INTO {t} VALUES (3, 'three', 'z')"),
    reload("computed", "ADD n INT NOT NULL DEFAULT (id * 7)", "UPDATE {t} SET b = 'w' WHERE id = 2"),
    reload("counted", "ADD n INT UNIQUE AUTO_INCREMENT", "INSERT INTO {t} (id, a) VALUES (3, 3)"),
    reload("keyed", "DROP PRIMARY KEY, ADD PRIMARY KEY (a)", "UPDATE {t} SET a = 9 WHERE id = 2"),
    reload("several", "ADD z INT DEFAULT 1, MODIFY a SMALLINT", "INSERT INTO {t} VALUES (3, 3, 'z', 4)"),
    reload("twice", "MODIFY a SMALLINT; ALTER TABLE {t} MODIFY b INT", "INSERT INTO {t} VALUES (3, 3, 3)"),
];

const POSTGRES: &[Reload] = &[
    reload("narrower", "ALTER a TYPE SMALLINT", "INSERT INTO {t} VALUES (3, 3, 'z')"),
    reload("text", "ALTER a TYPE TEXT USING 'n' || a", "INSERT INTO {t} VALUES (3, 'three', 'z')"),
    reload("computed", "ADD n UUID DEFAULT gen_random_uuid()", "UPDATE {t} SET b = 'w' WHERE id = 2"),
    reload("counted", "ADD n BIGSERIAL", "INSERT INTO {t} (id, a) VALUES (3, 3)"),
    reload("keyed", "DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (a)", "UPDATE {t} SET a = 9 WHERE id = 2"),
    reload("several", "ADD z INT DEFAULT 1, ALTER a TYPE SMALLINT", "INSERT INTO {t} VALUES (3, 3, 'z', 4)"),
    reload(
        "twice",
        "ALTER a TYPE SMALLINT; ALTER TABLE {t} ALTER b TYPE CHAR(3)",
        "INSERT INTO {t} VALUES (3, 3, 'z')",
    ),
];

fn reloads(kind: Kind) -> &'static [Reload] {
    if kind == Kind::Postgres { POSTGRES } else { MYSQL }
}

impl Case {
    async fn create(&mut self, table: &str) {
        self.session
            .run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, a INT NOT NULL, b VARCHAR(20));
                 INSERT INTO {table} VALUES (1, 1, '7'), (2, 2, NULL)"
            ))
            .await;
    }

    async fn change(&mut self, reload: &Reload) {
        let named = |text: &str| text.replace("{t}", reload.name);
        self.session.run(&format!("ALTER TABLE {} {}", reload.name, named(reload.statement))).await;
        self.session.run(&named(reload.after)).await;
    }

    /// What was told of a table, in order: kind, and the outcomes of its steps.
    fn told(&self, table: &str) -> Vec<String> {
        let folder = self.scratch.path().join("lake/_lakeward/src/notice");
        let mut files: Vec<_> =
            fs::read_dir(folder).expect("an outbox").map(|file| file.expect("readable").path()).collect();
        files.sort();
        let entries = files
            .iter()
            .map(|file| -> Value { serde_json::from_slice(&fs::read(file).expect("readable")).expect("JSON") });
        let name = self.database.table(table);
        let of_this = entries.filter(|entry| entry["table"] == name.as_str());
        of_this
            .map(|entry| {
                let steps = entry["record"]["steps"].as_array().cloned().unwrap_or_default();
                let outcomes: Vec<&str> = steps.iter().filter_map(|step| step["outcome"].as_str()).collect();
                format!("{} {}", entry["kind"].as_str().unwrap_or_default(), outcomes.join(","))
            })
            .collect()
    }

    fn wait_until(&self, daemon: &Daemon, table: &str, state: &str, what: &str) {
        let started = Instant::now();
        while self.report(table)["state"] != state || !daemon.log().contains(what) {
            let report = self.report(table);
            assert!(started.elapsed() < Duration::from_secs(120), "{table} is {report}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

async fn each_is_loaded_again(kind: Kind) {
    let Some(mut case) = Case::start(kind, "reload", "").await else { return };
    let mut tables: Vec<&str> = reloads(kind).iter().map(|reload| reload.name).collect();
    for table in &tables {
        case.create(table).await;
    }
    case.session.run("CREATE TABLE other (id INT PRIMARY KEY, v INT); INSERT INTO other VALUES (1, 1)").await;
    tables.push("other");
    case.lakeward.catch_up();
    for reload in reloads(kind) {
        case.change(reload).await;
    }
    case.session.run("INSERT INTO other VALUES (2, 2)").await;
    case.lakeward.catch_up();
    case.assert_equal(&tables);
    for reload in reloads(kind) {
        let told = case.told(reload.name);
        assert_eq!(told.len(), 2, "{}: {told:?}", reload.name);
        assert!(told[0].starts_with("schema.changed resync"), "{}: {told:?}", reload.name);
        assert!(told[1].starts_with("table.resynced"), "{}: {told:?}", reload.name);
        let (code, out, err) = case.lakeward(&["schema", "history", &case.database.table(reload.name), "--json"]);
        assert!(code == 0 && out.contains("\"resync\""), "{}: {out}{err}", reload.name);
        case.session.run(&format!("DELETE FROM {} WHERE id = 1", reload.name)).await;
    }
    case.lakeward.catch_up();
    case.assert_equal(&tables);
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rows_can_not_be_carried_through_is_loaded_again_mariadb() {
    each_is_loaded_again(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rows_can_not_be_carried_through_is_loaded_again_mysql() {
    each_is_loaded_again(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rows_can_not_be_carried_through_is_loaded_again_postgres() {
    each_is_loaded_again(Kind::Postgres).await;
}

/// Killed before the ledger says that the table is to be loaded, after that, and when the load is whole: nothing is lost, and
/// it is told as one change.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_it_is_harmless() {
    for kind in KINDS {
        for step in ["reload.told", "reload.entered", "load.finished"] {
            let Some(mut case) = Case::start(kind, "reloadkill", "").await else { return };
            case.create("t").await;
            case.create("other").await;
            case.lakeward.catch_up();
            let change = &reloads(kind)[0];
            let statement = format!("ALTER TABLE t {}; INSERT INTO t VALUES (3, 3, 'z')", change.statement);
            case.session.run(&statement).await;
            let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
            daemon.wait_for_log(&format!("waiting at {step}"));
            daemon.kill();
            case.session.run("UPDATE t SET a = 4 WHERE id = 1; INSERT INTO other VALUES (5, 5, 'o')").await;
            case.lakeward.catch_up();
            case.assert_equal(&["t", "other"]);
            assert_eq!(case.report("t")["state"], "streaming", "{kind:?} {step}");
            let mut told = case.told("t");
            told.dedup();
            assert_eq!(told, ["schema.changed resync", "table.resynced "], "{kind:?} {step}");
            case.database.drop().await;
        }
    }
}

/// With `hold` nobody loads anything before somebody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_change_is_a_load_when_it_is_approved_and_a_stop_when_it_is_not() {
    for kind in KINDS {
        for (verdict, code) in [("approve", 0), ("reject", 13)] {
            let Some(mut case) = Case::start(kind, "holdchange", "[schema_changes]\nchange = \"hold\"").await else {
                return;
            };
            case.create("t").await;
            case.create("other").await;
            case.lakeward.catch_up();
            case.change(&Reload { name: "t", ..reload("", reloads(kind)[0].statement, reloads(kind)[0].after) }).await;
            case.session.run("INSERT INTO other VALUES (5, 5, 'o')").await;
            let _ = case.lakeward.try_catch_up();
            let report = case.report("t");
            assert_eq!(report["state"], "waiting", "{report}");
            let why = report["error"].as_str().unwrap_or_default();
            assert!(why.contains("when it is approved, the table is loaded again"), "{why}");
            case.assert_equal(&["other"]);
            let (decided, out, err) = case.lakeward(&["schema", verdict, &case.database.table("t")]);
            assert_eq!(decided, 0, "{out}{err}");
            let (status, log) = case.lakeward.try_catch_up();
            assert_eq!(status.code(), Some(code), "{verdict}: {log}");
            if verdict == "approve" {
                case.assert_equal(&["t", "other"]);
                assert_eq!(case.told("t"), ["schema.held held", "schema.changed resync", "table.resynced "]);
            } else {
                assert_eq!(case.report("t")["state"], "stopped");
            }
            case.database.drop().await;
        }
    }
}

/// What only the lake has would be gone by a load that nobody asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_dropped_columns_are_kept_is_not_loaded_unasked() {
    for kind in KINDS {
        let Some(mut case) = Case::start(kind, "reloadkept", "").await else { return };
        case.create("t").await;
        case.lakeward.catch_up();
        case.session.run("ALTER TABLE t DROP COLUMN b").await;
        case.lakeward.catch_up();
        case.session.run(&format!("ALTER TABLE t {}", reloads(kind)[0].statement)).await;
        case.session.run("INSERT INTO t VALUES (3, 3)").await;
        let (status, log) = case.lakeward.try_catch_up();
        assert_eq!(status.code(), Some(13), "{log}");
        let why = case.report("t")["error"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains("column `b`, which the lake keeps, would be gone") && why.contains("resync"), "{why}");
        let (code, out, err) = case.lakeward(&["resync", &format!("src/{}", case.database.table("t"))]);
        assert_eq!(code, 0, "{out}{err}");
        case.assert_equal(&["t"]);
        case.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_and_created_again_is_loaded_again() {
    for kind in KINDS {
        for policy in ["apply", "fail"] {
            let settings = format!("[schema_changes]\nchange = \"{policy}\"");
            let Some(mut case) = Case::start(kind, "recreated", &settings).await else { return };
            case.create("t").await;
            case.create("other").await;
            case.lakeward.catch_up();
            case.session
                .run("DROP TABLE t; CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (4, 40)")
                .await;
            case.session.run("INSERT INTO other VALUES (5, 5, 'o')").await;
            let (status, log) = case.lakeward.try_catch_up();
            case.assert_equal(&["other"]);
            if policy == "apply" {
                assert!(status.success(), "{log}");
                case.session.run("UPDATE t SET v = 41 WHERE id = 4").await;
                case.lakeward.catch_up();
                case.assert_equal(&["t", "other"]);
            } else {
                assert_eq!(case.report("t")["state"], "stopped", "{log}");
            }
            case.database.drop().await;
        }
    }
}

/// K-3: what happens to partitions beside the log.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_go_beside_the_log_load_the_table_again() {
    for kind in KINDS {
        let Some(mut case) = Case::start(kind, "partitions", "").await else { return };
        let (create, changes): (&str, &[&str]) = match kind {
            Kind::Postgres => (
                "CREATE TABLE t (id INT, region INT, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
                 CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2)",
                &[
                    "TRUNCATE t_2",
                    "ALTER TABLE t DETACH PARTITION t_1",
                    "INSERT INTO t_1 VALUES (7, 1); ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES IN (1)",
                    "DROP TABLE t_2",
                ],
            ),
            _ => (
                "CREATE TABLE t (id INT, region INT, PRIMARY KEY (id, region)) PARTITION BY LIST (region)
                 (PARTITION t_1 VALUES IN (1), PARTITION t_2 VALUES IN (2))",
                &["ALTER TABLE t TRUNCATE PARTITION t_2", "ALTER TABLE t DROP PARTITION t_2"],
            ),
        };
        case.session.run(create).await;
        case.create("other").await;
        // Detached, a partition would be a table of its own.
        let path = case.scratch.path().join("config.toml");
        let config = fs::read_to_string(&path).expect("just written");
        fs::write(&path, config.replace("\"public.*\"", "\"public.t\", \"public.other\"")).expect("writable");
        case.session.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 1)").await;
        case.lakeward.catch_up();
        for (number, change) in changes.iter().enumerate() {
            case.session.run(change).await;
            let detached = change.contains("DETACH");
            case.session.run(&format!("INSERT INTO other VALUES ({}, 5, 'o')", number + 10)).await;
            case.session
                .run(&format!("INSERT INTO t VALUES ({}, {})", number + 10, if detached { 2 } else { 1 }))
                .await;
            case.lakeward.catch_up();
            assert_eq!(case.report("t")["state"], "streaming", "{change}: {}", case.report("t"));
            case.assert_equal(&["t", "other"]);
        }
        case.database.drop().await;
    }
}

/// A table that is changed again and again is not read again and again; a person who asks need not wait.
#[tokio::test(flavor = "multi_thread")]
async fn loads_soon_after_one_another_keep_a_distance() {
    for kind in KINDS {
        let Some(mut case) = Case::start(kind, "paced", "").await else { return };
        case.create("t").await;
        case.create("other").await;
        case.lakeward.catch_up();
        let mut daemon = case.lakeward.start();
        daemon.wait_for_log("streaming");
        let types = match kind {
            Kind::Postgres => ["ALTER a TYPE SMALLINT", "ALTER a TYPE TEXT", "ALTER b TYPE CHAR(9)"],
            _ => ["MODIFY a SMALLINT", "MODIFY a VARCHAR(9)", "MODIFY b CHAR(9)"],
        };
        case.session.run(&format!("ALTER TABLE t {}; UPDATE t SET a = a + 1", types[0])).await;
        case.wait_until(&daemon, "t", "streaming", "the table is whole");
        case.session.run(&format!("ALTER TABLE t {}; UPDATE t SET b = 'c'", types[1])).await;
        let started = Instant::now();
        daemon.wait_for_log("the load waits");
        // The others go on, and the source's attempt with them.
        case.session.run("INSERT INTO other VALUES (5, 5, 'o')").await;
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(case.report("t")["state"], "loading", "{}", daemon.log());
        case.assert_equal(&["other"]);
        case.wait_until(&daemon, "t", "streaming", "the load waits");
        assert!(started.elapsed() > Duration::from_secs(7), "{}", daemon.log());
        // The third would wait for longer.
        case.session.run(&format!("ALTER TABLE t {}; UPDATE t SET b = 'd'", types[2])).await;
        let asked = Instant::now();
        while daemon.log().matches("the load waits").count() < 2 {
            assert!(asked.elapsed() < Duration::from_secs(60), "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let (code, out, err) = case.lakeward(&["resync", &format!("src/{}", case.database.table("t"))]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(asked.elapsed() < Duration::from_secs(35), "{}", daemon.log());
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        case.lakeward.catch_up();
        case.assert_equal(&["t", "other"]);
        assert_eq!(case.rows("SELECT count(*) FROM t"), [vec![json!(2)]]);
        case.database.drop().await;
    }
}
