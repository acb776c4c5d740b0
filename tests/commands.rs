//! `lakeward schema` and edits of the configuration, as people and scripts use them: the built binary, real servers.

mod support;

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Scratch;
use support::daemon::Lakeward;
use support::source::{Database, Kind, Session};

struct Case {
    database: Database,
    session: Session,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    /// A database with these tables, and a daemon's configuration that ends in `more`.
    async fn start(kind: Kind, test: &str, sql: &str, more: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let mut session = database.session().await;
        session.run(sql).await;
        let scratch = Scratch::new(test);
        fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let lakeward = Lakeward::new(scratch.path(), &config(&database, "*", more));
        Some(Self { database, session, lakeward, scratch })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.lakeward.command(arguments).output().expect("lakeward starts")
    }

    /// What it prints as JSON, with its exit code.
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let code = output.status.code().expect("it exits");
        let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Value::String(text(&output.stderr)));
        (code, value)
    }

    fn edit(&self, config: &str) {
        // As editors do it.
        let place = self.scratch.path().join("config.toml");
        fs::write(place.with_extension("new"), config).expect("writable");
        fs::rename(place.with_extension("new"), place).expect("renamed");
    }

    /// Waits until `lakeward schema show` says so.
    fn wait_for_shown(&self, table: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (_, shown) = self.json(&["schema", "show", table]);
            if holds(&shown) {
                return shown;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{shown:#}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until `lakeward tables` says so of a table.
    fn wait_for(&self, table: &str, holds: impl Fn(Option<&Value>) -> bool) {
        let started = Instant::now();
        let name = self.database.table(table);
        loop {
            let tables = self.lakeward.tables();
            let found = tables.as_array().expect("a list").iter().find(|found| found["table"] == name);
            if holds(found) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name}: {tables:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn config(database: &Database, tables: &str, more: &str) -> String {
    let all = database.table("*");
    let source = database.source_toml().replace(&format!("\"{all}\""), &format!("\"{}\"", database.table(tables)));
    format!("[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{more}\n{source}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const CHANNEL: &str =
    "[[notice]]\nname = \"team\"\nkind = \"command\"\ncommand = [\"true\"]\nevents = [\"schema.*\"]\n";

/// A statement, the exit code of its plan, its outcome, what happens to the files, and a word of the answer.
type Planned = (&'static str, i32, &'static str, &'static str, &'static str);

fn assert_planned(case: &Case, cases: &[Planned]) {
    let table = case.database.table("goods");
    for (statement, code, outcome, how, word) in cases {
        let (found, plan) = case.json(&["schema", "plan", &table, statement]);
        assert_eq!(found, *code, "{statement}: {plan:#}");
        assert_eq!(plan["exit_code"], *code);
        assert_eq!(
            (&plan["outcome"], &plan["lake"]["how"]),
            (&(*outcome).into(), &(*how).into()),
            "{statement}: {plan:#}"
        );
        assert!(plan.to_string().contains(word), "{statement}: no {word:?} in {plan:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_a_statement_would_do_on_postgresql() {
    let tables = "CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE DOMAIN score AS int DEFAULT 5;
        CREATE TABLE goods (id int PRIMARY KEY, name varchar(20), price numeric(10,2), n int, at timestamptz);
        CREATE TABLE other (id int PRIMARY KEY);
        INSERT INTO goods VALUES (1, 'a', 1.50, 7, now())";
    let more = format!("[schema_changes]\nrename = \"hold\"\nkey = \"hold\"\ntruncate = \"fail\"\n{CHANNEL}");
    let Some(mut case) = Case::start(Kind::Postgres, "plan", tables, &more).await else { return };
    case.lakeward.catch_up();
    // Nothing of a plan waits for a lock, or takes one.
    let mut blocker = case.database.session().await;
    blocker.run("BEGIN; LOCK TABLE goods IN ACCESS EXCLUSIVE MODE").await;
    assert_planned(
        &case,
        &[
            ("ALTER TABLE goods ADD COLUMN a int DEFAULT 7", 0, "applied", "splice", "with `7` in the old rows"),
            ("ALTER TABLE goods ADD a text", 0, "applied", "metadata", "column `a` (text) is new"),
            ("ALTER TABLE public.goods ADD a mood DEFAULT 'bad'", 0, "applied", "splice", "with `bad`"),
            ("ALTER TABLE goods ADD a boolean DEFAULT true", 0, "applied", "splice", "with `true`"),
            ("ALTER TABLE goods ADD a numeric(12,3)[] DEFAULT '{1.5}'", 0, "applied", "splice", "numeric(12,3)[]"),
            (
                "ALTER TABLE goods ADD a timestamptz(3) DEFAULT now()",
                0,
                "applied",
                "splice",
                "timestamp(3) with time zone",
            ),
            ("ALTER TABLE goods ADD a uuid DEFAULT gen_random_uuid()", 0, "resynced", "reload", "a value of its own"),
            ("ALTER TABLE goods ADD a score", 0, "resynced", "reload", "a value of its own"),
            ("ALTER TABLE goods ADD a bigserial", 0, "resynced", "reload", "a value of its own"),
            ("ALTER TABLE goods DROP n", 0, "applied", "metadata", "\"outcome\":\"kept\""),
            ("ALTER TABLE goods RENAME n TO m", 4, "held", "metadata", "column `n` is now `m`"),
            ("ALTER TABLE goods ALTER n TYPE bigint", 0, "applied", "splice", "grows to bigint"),
            ("ALTER TABLE goods ALTER n TYPE bigint USING n * 2", 0, "resynced", "reload", "computed anew by USING"),
            ("ALTER TABLE goods ALTER price TYPE numeric(14,4)", 0, "applied", "splice", "decimal(14,4)"),
            (
                "ALTER TABLE goods ALTER name TYPE varchar(40)",
                0,
                "applied",
                "metadata",
                "declared character varying(40)",
            ),
            ("ALTER TABLE goods ALTER name TYPE varchar(10)", 0, "resynced", "reload", "what became of its values"),
            ("ALTER TABLE goods ALTER at TYPE timestamptz(0)", 0, "resynced", "reload", "what became of its values"),
            ("ALTER TABLE goods ALTER n TYPE text", 0, "resynced", "reload", "integer becomes text"),
            ("ALTER TABLE goods DROP CONSTRAINT goods_pkey", 13, "stops", "reload", "which row a change is about"),
            ("ALTER TABLE goods REPLICA IDENTITY FULL", 0, "nothing", "none", "\"told\":[]"),
            (
                "ALTER TABLE goods DROP CONSTRAINT goods_pkey, ADD PRIMARY KEY (id, n)",
                4,
                "waits",
                "reload",
                "key was (id)",
            ),
            ("TRUNCATE goods", 13, "stops", "none", "`truncate` is `fail`"),
            ("DROP TABLE other, goods", 0, "applied", "none", "\"outcome\":\"kept\""),
            ("ALTER TABLE goods RENAME TO sold", 0, "applied", "none", "public.sold"),
            ("CREATE INDEX i ON goods (n); COMMENT ON TABLE goods IS 'x'", 0, "nothing", "none", ""),
            (
                "ALTER TABLE goods ADD a int; ALTER TABLE goods RENAME a TO b",
                0,
                "applied",
                "metadata",
                "column `b` (integer) is new",
            ),
            ("VACUUM FULL goods", 4, "unclear", "none", "no statement whose effect"),
        ],
    );
    let table = case.database.table("goods");
    for (statement, word) in [
        ("ALTER TABLE other ADD a int", "about `other`, not about public.goods"),
        ("ALTER TABLE goods ADD n int", "has a column `n` already"),
        ("ALTER TABLE goods ADD a nothing", "no type"),
        ("ALTER TABLE goods ADD a int DEFAULT 'x'", "can't be"),
        ("ALTER TABLE goods DROP m", "no column `m`"),
    ] {
        let output = case.run(&["schema", "plan", &table, statement]);
        assert_eq!(output.status.code(), Some(2), "{statement}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(word), "{statement}: {}", text(&output.stderr));
    }
    blocker.run("ROLLBACK").await;
    // Nobody has changed anything.
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'goods'";
    assert_eq!(case.session.value(columns).await.as_deref(), Some("5"));
    let output = case.run(&["schema", "plan", &table, "ALTER TABLE goods RENAME n TO m"]);
    let told = text(&output.stdout);
    assert!(told.contains("needs approval") && told.contains("told: team (command true): schema.held"), "{told}");
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_a_statement_would_do_on_mysql_and_mariadb() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        let tables =
            "CREATE TABLE goods (id int PRIMARY KEY, name varchar(20), price decimal(10,2), n int, at datetime(3));
            CREATE TABLE other (id int PRIMARY KEY);
            INSERT INTO goods VALUES (1, 'a', 1.50, 7, now(3))";
        let more = format!("[schema_changes]\nrename = \"hold\"\nkey = \"hold\"\ntruncate = \"fail\"\n{CHANNEL}");
        let Some(mut case) = Case::start(kind, "plan", tables, &more).await else { continue };
        case.lakeward.catch_up();
        assert_planned(
            &case,
            &[
                ("ALTER TABLE goods ADD COLUMN a int DEFAULT 7", 0, "applied", "splice", "with `7` in the old rows"),
                ("ALTER TABLE goods ADD a varchar(10)", 0, "applied", "metadata", "column `a` (varchar(10)) is new"),
                ("ALTER TABLE goods ADD a int NOT NULL", 0, "applied", "splice", "with `0`"),
                ("ALTER TABLE goods ADD a decimal(8,2) NOT NULL DEFAULT 1.5", 0, "applied", "splice", "with `1.50`"),
                ("ALTER TABLE goods ADD a datetime DEFAULT CURRENT_TIMESTAMP", 0, "applied", "splice", "with `20"),
                ("ALTER TABLE goods ADD a int AUTO_INCREMENT UNIQUE", 0, "resynced", "reload", "it counts by itself"),
                ("ALTER TABLE goods ADD a int AS (n * 2)", 0, "resynced", "reload", "generated"),
                ("ALTER TABLE goods DROP n", 0, "applied", "metadata", "\"outcome\":\"kept\""),
                ("ALTER TABLE goods RENAME COLUMN n TO m", 4, "held", "metadata", "column `n` is now `m`"),
                ("ALTER TABLE goods CHANGE n m bigint", 4, "held", "splice", "grows to bigint"),
                ("ALTER TABLE goods MODIFY n bigint", 0, "applied", "splice", "grows to bigint"),
                ("ALTER TABLE goods MODIFY price decimal(14,4)", 0, "applied", "splice", "decimal(14,4)"),
                ("ALTER TABLE goods MODIFY name varchar(40)", 0, "applied", "metadata", "declared varchar(40)"),
                ("ALTER TABLE goods MODIFY n varchar(20)", 0, "resynced", "reload", "column `n`"),
                ("ALTER TABLE goods MODIFY at datetime", 0, "resynced", "reload", "rounded"),
                ("ALTER TABLE goods DROP PRIMARY KEY, ADD PRIMARY KEY (id, n)", 4, "waits", "reload", "key was (id)"),
                ("TRUNCATE TABLE goods", 13, "stops", "none", "`truncate` is `fail`"),
                ("DROP TABLE other, goods", 0, "applied", "none", "\"outcome\":\"kept\""),
                ("RENAME TABLE goods TO sold", 0, "applied", "none", ".sold"),
                ("CREATE INDEX i ON goods (n)", 0, "nothing", "none", ""),
                ("ALTER TABLE goods ADD INDEX i (n), COMMENT = 'x'", 0, "nothing", "none", ""),
                ("ALTER TABLE goods ADD a int REFERENCES other (id)", 4, "unclear", "none", "not tell for certain"),
                ("ALTER TABLE goods ADD a int; ALTER TABLE goods DROP n", 4, "unclear", "none", "one after the other"),
            ],
        );
        let table = case.database.table("goods");
        for (statement, word) in [
            ("ALTER TABLE other ADD a int", "about `other`, not about"),
            ("INSERT INTO goods VALUES (2)", "not about the columns"),
        ] {
            let output = case.run(&["schema", "plan", &table, statement]);
            assert_eq!(output.status.code(), Some(2), "{statement}: {}", text(&output.stdout));
            assert!(text(&output.stderr).contains(word), "{statement}: {}", text(&output.stderr));
        }
        let columns =
            "SELECT count(*) FROM information_schema.columns WHERE table_name = 'goods' AND table_schema = database()";
        assert_eq!(case.session.value(columns).await.as_deref(), Some("5"));
    }
}

/// The way that docs/schema-changes.md walks.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_shown_decided_and_remembered() {
    for kind in Kind::ALL {
        let tables = "CREATE TABLE goods (id int PRIMARY KEY, name varchar(20)); INSERT INTO goods VALUES (1, 'a')";
        let more = "[schema_changes]\nadd = \"hold\"";
        let Some(mut case) = Case::start(kind, "held", tables, more).await else { continue };
        case.lakeward.catch_up();
        let daemon = case.lakeward.start();
        let table = case.database.table("goods");
        let column = |shown: &Value, name: &str| {
            let columns = shown["columns"].as_array().expect("columns").iter();
            let found: Vec<&Value> =
                columns.filter(|column| column["source_name"] == name).map(|column| &column["shown_as"]).collect();
            found.first().map(|found| (*found).clone()).unwrap_or_default()
        };
        case.session.run("ALTER TABLE goods ADD stock int DEFAULT 5; INSERT INTO goods VALUES (2, 'b', 6)").await;
        let shown = case.wait_for_shown(&table, |shown| shown["pending"].as_array().is_some_and(|all| all.len() == 1));
        assert_eq!(column(&shown, "stock"), "hidden", "{shown:#}");
        let change = shown["pending"][0]["change"].as_str().expect("an id").to_owned();
        assert!(shown["pending"][0]["approve"].as_str().is_some_and(|text| text.contains(&table)), "{shown:#}");
        let (_, diff) = case.json(&["schema", "diff", &table]);
        assert!(diff["differences"][0]["why"].as_str().is_some_and(|why| why.contains(&change)), "{diff:#}");
        let (code, decided) = case.json(&["schema", "approve", &table]);
        assert_eq!(
            (code, &decided["running"], &decided["change"]),
            (0, &true.into(), &change.as_str().into()),
            "{decided:#}"
        );
        case.wait_for_shown(&table, |shown| column(shown, "stock") == "shown");
        let again = case.run(&["schema", "reject", &table, &change[..8]]);
        assert_eq!(again.status.code(), Some(2));

        // The other way, by the beginning of the id, while lakeward does not run.
        case.session.run("ALTER TABLE goods ADD margin int; INSERT INTO goods VALUES (3, 'c', 7, 8)").await;
        let shown = case.wait_for_shown(&table, |shown| column(shown, "margin") == "hidden");
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        let other = shown["pending"][0]["change"].as_str().expect("an id").to_owned();
        let (code, decided) = case.json(&["schema", "reject", &table, &other[..8]]);
        assert_eq!((code, &decided["running"]), (0, &false.into()), "{decided:#}");
        let (_, shown) = case.json(&["schema", "show", &table]);
        assert!(
            shown["pending"][0]["decided"].as_str().is_some_and(|text| text.starts_with("rejected by")),
            "{shown:#}"
        );
        case.lakeward.catch_up();
        let (_, shown) = case.json(&["schema", "show", &table]);
        assert_eq!(
            (column(&shown, "margin"), &shown["pending"]),
            ("ignored".into(), &Value::Array(vec![])),
            "{shown:#}"
        );

        let (_, history) = case.json(&["schema", "history", &table]);
        let outcomes: Vec<(&str, &str)> = history["changes"]
            .as_array()
            .expect("changes")
            .iter()
            .map(|entry| {
                (
                    entry["change"].as_str().unwrap_or_default(),
                    entry["steps"][0]["outcome"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        let wanted = [(&change, "held"), (&change, "approved"), (&other, "held"), (&other, "rejected")];
        assert_eq!(outcomes, wanted.map(|(id, outcome)| (id.as_str(), outcome)), "{history:#}");
        let (_, then) = case.json(&["schema", "show", &table, "--at", "0"]);
        assert_eq!(then["columns"].as_array().map(Vec::len), Some(2), "{then:#}");
        let (_, diff) = case.json(&["schema", "diff", &table, "--at", "0"]);
        assert_eq!(
            (&diff["differences"][0]["column"], &diff["changes"][0]["change"]),
            (&"stock".into(), &change.as_str().into())
        );
        case.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_shown_and_compared_now_and_then() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let tables = "CREATE TABLE goods (id int PRIMARY KEY, name varchar(20)); INSERT INTO goods VALUES (1, 'a')";
        let Some(mut case) = Case::start(kind, "show", tables, "").await else { continue };
        case.lakeward.catch_up();
        let table = case.database.table("goods");
        let (code, shown) = case.json(&["schema", "show", &table]);
        assert_eq!((code, &shown["state"], &shown["rows"]), (0, &"streaming".into(), &1.into()), "{shown:#}");
        let columns: Vec<&str> =
            shown["columns"].as_array().expect("columns").iter().filter_map(|column| column["name"].as_str()).collect();
        assert_eq!(columns, ["id", "name"]);
        assert_eq!((&shown["columns"][0]["key"], &shown["columns"][1]["lake_type"]), (&true.into(), &"string".into()));
        let (_, diff) = case.json(&["schema", "diff", &table]);
        assert_eq!(diff["differences"], Value::Array(vec![]), "{diff:#}");

        // At the source and not in the lake yet.
        case.session.run("ALTER TABLE goods ADD COLUMN stock int").await;
        let (_, diff) = case.json(&["schema", "diff", &table]);
        assert_eq!(
            (&diff["differences"][0]["column"], &diff["differences"][0]["right"]),
            (&"stock".into(), &Value::Null)
        );
        assert!(
            diff["differences"][0]["why"].as_str().is_some_and(|why| why.starts_with("not followed yet")),
            "{diff:#}"
        );

        let position = shown["position"].as_str().expect("a position").to_owned();
        for at in [position.as_str(), "0", "2999-01-01"] {
            let (code, then) = case.json(&["schema", "show", &table, "--at", at]);
            assert_eq!((code, &then["version"]), (0, &0.into()), "{at}: {then:#}");
        }
        for (at, word) in [("2000-01-01", "had no table"), ("99", "the newest is 0")] {
            let output = case.run(&["schema", "show", &table, "--at", at]);
            assert_eq!(output.status.code(), Some(2));
            assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        }
        let (_, history) = case.json(&["schema", "history", &table]);
        assert_eq!(history["changes"], Value::Array(vec![]));
        let output = case.run(&["schema", "approve", &table]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("nothing of"), "{}", text(&output.stderr));
        case.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_the_configuration_take_effect_while_it_runs() {
    for kind in Kind::ALL {
        let tables = "CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (1);
            CREATE TABLE two (id int PRIMARY KEY, x int); INSERT INTO two VALUES (1, 1), (2, 2)";
        let Some(mut case) = Case::start(kind, "reload", tables, "").await else { continue };
        let source = config(&case.database, "one", "");
        case.edit(&source);
        let mut daemon = case.lakeward.start();
        case.wait_for("one", |found| found.is_some_and(|found| found["rows"] == 1));
        case.wait_for("two", |found| found.is_none());

        // With problems: told, and nothing changes.
        case.edit(&source.replace("interval_seconds = 1", "interval_seconds = 0\ninterval = 5"));
        daemon.wait_for_log("the edited configuration is refused");
        let log = daemon.log();
        assert!(
            log.contains("commit.interval_seconds: 0 is out of range") && log.contains("commit.interval: unknown key")
        );
        case.edit(&source.replace("url = \"lake\"", "url = \"elsewhere\""));
        daemon.wait_for_log("needs a restart");
        case.edit(&source);
        case.session.run("INSERT INTO one VALUES (2)").await;
        case.wait_for("one", |found| found.is_some_and(|found| found["rows"] == 2));

        // Another table, by pattern: loaded at once, while the other one goes on.
        let both = config(&case.database, "*", "");
        case.edit(&keep_ids(&source, &both));
        case.wait_for("two", |found| found.is_some_and(|found| found["rows"] == 2));
        case.session.run("INSERT INTO two VALUES (3, 3); INSERT INTO one VALUES (3)").await;
        case.wait_for("two", |found| found.is_some_and(|found| found["rows"] == 3));
        case.wait_for("one", |found| found.is_some_and(|found| found["rows"] == 3));

        // A contract that excludes no more than it names.
        fs::create_dir(case.scratch.path().join("schemas")).expect("made");
        let contract = format!("table = \"{}\"\nowners = [\"ann\"]\n", case.database.table("two"));
        fs::write(case.scratch.path().join("schemas/two.toml"), contract).expect("written");
        daemon.wait_for_log(&format!("contract of {}", case.database.table("two")));

        // SIGHUP asks for the same, and says so where there is nothing to do.
        let hangup = std::process::Command::new("kill").args(["-HUP", &daemon.id().to_string()]).status();
        assert!(hangup.expect("kill").success());
        daemon.wait_for_log("nothing has changed");

        // Taken out: it is no longer captured, and stays in the lake.
        case.edit(&source);
        case.wait_for("two", |found| found.is_none());
        case.session.run("INSERT INTO one VALUES (4)").await;
        case.wait_for("one", |found| found.is_some_and(|found| found["rows"] == 4));
        let (status, log) = daemon.terminate();
        assert!(status.success(), "{log}");
        assert!(case.scratch.path().join("lake/src").exists());
        case.database.drop().await;
    }
}

/// `text` with the ids of the source that `like` has: they differ each time they are made.
fn keep_ids(like: &str, text: &str) -> String {
    let id = |text: &str| text.lines().find(|line| line.starts_with("server_id")).map(str::to_owned);
    match (id(like), id(text)) {
        (Some(kept), Some(made)) => text.replace(&made, &kept),
        _ => text.to_owned(),
    }
}
