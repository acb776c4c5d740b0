//! `lakeward verify` on real servers: never a false difference while writers and the daemon go on, and every difference
//! that was planted behind lakeward's back is found, with its key and its column, and nothing else.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Scratch;
use support::daemon::{Daemon, Lakeward};
use support::load::{self, Load};
use support::on_each;
use support::source::{Database, Kind, Session};

/// LAKEWARD_VERIFICATIONS asks for others; `make soak` does.
const VERIFICATIONS: usize = 3;
const WRITERS: u32 = 6;

/// LAKEWARD_QUIET_ROWS asks for others; `make soak` does.
const QUIET_ROWS: u32 = 300;

/// Where repairs are counted: no compaction may come between a finding and its repair, which is another one then.
const IN_PLACE: &str = "[maintenance]\ncompact = false";

struct Case {
    database: Database,
    session: Session,
    lakeward: Lakeward,
    scratch: Scratch,
}

impl Case {
    async fn new(kind: Kind, test: &str, settings: &str) -> Option<Self> {
        Self::with_interval(kind, test, 1, settings).await
    }

    async fn with_interval(kind: Kind, test: &str, seconds: u32, settings: &str) -> Option<Self> {
        let database = Database::create(kind, test).await?;
        let scratch = Scratch::new(test);
        std::fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
        let config = format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = {seconds}\n{settings}\n{}",
            database.source_toml()
        );
        let lakeward = Lakeward::new(scratch.path(), &config);
        let session = database.session().await;
        Some(Self { database, session, lakeward, scratch })
    }

    /// `lakeward` with these arguments: exit code, stdout, stderr.
    fn lakeward(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.lakeward.command(arguments).output().expect("lakeward starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// `lakeward verify --json` and its exit code.
    fn verify(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, out, error) = self.lakeward(&[&["verify", "--json"], arguments].concat());
        let answer = serde_json::from_str(&out).unwrap_or_else(|cause| panic!("{cause}: {code} {out:?}\n{error}"));
        (code, answer)
    }

    fn assert_equal(&self, arguments: &[&str]) -> Value {
        let (code, answer) = self.verify(arguments);
        assert_eq!((code, &answer["equal"]), (0, &json!(true)), "{answer:#}");
        answer
    }

    fn table(&self, table: &str) -> String {
        self.database.table(table)
    }

    /// Changes the lake's table by a commit that lakeward knows nothing of.
    fn plant(&self, table: &str, change: Value) -> bool {
        let Some(python) = support::setting("LAKEWARD_TEST_PYTHON") else { return false };
        let name = self.table(table);
        let (schema, short) = name.split_once('.').expect("two parts");
        let folder = self.scratch.path().join("lake/src").join(schema).join(short);
        let mut request = change;
        request["table"] = json!(folder);
        let script = support::root().join("tests/oracle/plant.py");
        let output = Command::new(python).arg(script).arg(request.to_string()).output().expect("python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        true
    }

    /// Waits until the lake has what the source has now, while nobody writes.
    fn catches_up(&self, daemon: &mut Daemon) {
        let started = Instant::now();
        while self.lakeward(&["verify", "--patience", "5"]).0 != 0 {
            assert!(daemon.is_running() && started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
        }
    }
}

/// (kind, key, columns) of every difference.
fn differences(answer: &Value, table: &str) -> BTreeSet<(String, String, String)> {
    let tables = answer["tables"].as_array().expect("a list");
    let found = tables.iter().find(|found| found["table"] == table).expect("it was compared");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = found["differences"].as_array().expect("a list").iter().map(|difference| {
        let key = text(&difference["key"][0]["value"]);
        let columns: Vec<String> =
            difference["columns"].as_array().expect("a list").iter().map(|column| text(&column["column"])).collect();
        (text(&difference["kind"]), key, columns.join(" "))
    });
    told.collect()
}

/// Text that PostgreSQL keeps out of line, and so leaves out of the log when it did not change.
fn long_note(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "(SELECT string_agg(md5((bookings.id * 7 + n)::text), '') FROM generate_series(1, 120) n)",
        _ => "REPEAT(SHA2(id, 256), 50)",
    }
}

async fn nothing_is_found_that_is_not_there(kind: Kind) {
    let asked = std::env::var("LAKEWARD_QUIET_ROWS").ok();
    let quiet_rows = asked.map_or(QUIET_ROWS, |asked| asked.parse().expect("a number"));
    // Who plants something needs some time between two commits to write the table anew.
    let interval = if quiet_rows > QUIET_ROWS { 10 } else { 1 };
    let Some(mut case) = Case::with_interval(kind, "verify", interval, IN_PLACE).await else { return };
    load::create_tables(&case.database).await;
    // Rows that no writer touches.
    let quiet: Vec<String> =
        (0..quiet_rows).map(|n| format!("({}, 'quiet {n}', {n}.5, 'one')", 10_000_000 + n)).collect();
    for rows in quiet.chunks(10_000) {
        case.session.run(&format!("INSERT INTO bookings VALUES {}", rows.join(","))).await;
    }
    case.session.run(&format!("UPDATE bookings SET note = {} WHERE id < 10000300", long_note(kind))).await;
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let writers = Load::start(&case.database, WRITERS, Duration::from_millis(40), 77).await;
    let (mut rows, mut rounds, mut unsettled) = (0, 0, 0);
    let asked = std::env::var("LAKEWARD_VERIFICATIONS").ok();
    let verifications = asked.map_or(VERIFICATIONS, |asked| asked.parse().expect("a number"));
    for number in 0..verifications {
        let chunk = ["1000", "5000", "100000"][number % 3];
        let answer = case.assert_equal(&["--chunk-rows", chunk]);
        assert!(daemon.is_running(), "{}", daemon.log());
        for table in answer["tables"].as_array().expect("a list") {
            let number = |what: &str| table[what].as_u64().expect("a number");
            assert!(!table["lake_stood_still"].as_bool().expect("told"), "{table:#}");
            rows += number("rows");
            rounds += number("rounds");
            unsettled += number("unsettled");
        }
    }
    eprintln!("{kind:?}: {verifications} verifications, {rows} rows, {rounds} rounds, {unsettled} unsettled");
    assert!(writers.committed() > 100 && rows > 3000 * verifications as u64, "the writers write");

    // Every kind of difference, among rows that others change all the time.
    case.session.run("UPDATE bookings SET note = 'two', price = price + 1 WHERE id = 10000003").await;
    case.catches_up_while_writing(&daemon).await;
    let planted = case.plant(
        "bookings",
        json!({
            "key": "id",
            "set": {"10000001": {"guest": "quiet 2"}, "10000003": {"note": "one"}},
            "remove": [10_000_007],
            "copy": {"10000009": 20_000_555},
        }),
    );
    if planted {
        for chunk in ["2000", "100000"] {
            let (code, answer) = case.verify(&["--chunk-rows", chunk]);
            assert_eq!(code, 3, "{answer:#}\n{}", daemon.log());
            let bookings = case.table("bookings");
            let found = differences(&answer, &bookings);
            let is = |kind: &str, key: &str, columns: &str| (kind.to_owned(), key.to_owned(), columns.to_owned());
            let expected = BTreeSet::from([
                is("differs", "10000001", "guest"),
                is("differs", "10000003", "note"),
                is("missing", "10000007", ""),
                is("extra", "20000555", ""),
            ]);
            assert_eq!(found, expected, "{answer:#}");
            for other in ["accounts", "audit"] {
                assert!(differences(&answer, &case.table(other)).is_empty(), "{answer:#}");
            }
        }
        let (code, text, _) = case.lakeward(&["verify", &case.table("bookings")]);
        assert!(code == 3 && text.contains("missing  id = 10000007"), "{text}");
        assert!(
            text.contains("differs  id = 10000001: `guest` is quiet 1 at the source and quiet 2 in the lake"),
            "{text}"
        );
        // What differs is put right, and nothing else.
        let answer = case.assert_equal(&["--repair", &case.table("bookings")]);
        assert_eq!(differences(&json!({"tables": answer["repaired"]}), &case.table("bookings")).len(), 4);
        assert_eq!(case.put_right(&daemon), [(3, 3, 0)], "{}", daemon.log());
        case.assert_equal(&[]);

        // Of two rows, the one that the condition holds for.
        let wrong = json!({"10000001": {"guest": "z"}, "10000002": {"guest": "z"}});
        assert!(case.plant("bookings", json!({"key": "id", "set": wrong})));
        let (code, text, error) = case.lakeward(&["resync", &case.table("bookings"), "--where", "id <= 10000001"]);
        assert_eq!(code, 0, "{text}{error}\n{}", daemon.log());
        assert_eq!(case.put_right(&daemon)[1..], [(1, 1, 0)], "{}", daemon.log());
        let (_, answer) = case.verify(&[&case.table("bookings")]);
        let left = ("differs".to_owned(), "10000002".to_owned(), "guest".to_owned());
        assert_eq!(differences(&answer, &case.table("bookings")), BTreeSet::from([left]), "{answer:#}");
        case.assert_equal(&["--repair"]);
    }
    writers.stop().await;
    case.catches_up(&mut daemon);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.database.drop().await;
}

impl Case {
    /// Of every repair: rows written, rows removed, and rows that the stream had changed since.
    fn put_right(&self, daemon: &Daemon) -> Vec<(u64, u64, u64)> {
        let log = daemon.log();
        let number = |line: &str, name: &str| -> u64 {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{name} in {line}"));
            let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
        };
        let lines = log.lines().filter(|line| line.contains("rows are put right"));
        lines.map(|line| (number(line, "written"), number(line, "removed"), number(line, "changed_since"))).collect()
    }

    /// Waits for more than a commit's interval: what was written before is in the lake then.
    async fn catches_up_while_writing(&self, daemon: &Daemon) {
        let version = || self.lakeward.tables()[0]["version"].as_u64().expect("a version");
        let (before, started) = (version(), Instant::now());
        while version() < before + 4 {
            assert!(started.elapsed() < Duration::from_secs(120), "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_nothing_is_found_that_is_not_there() {
    nothing_is_found_that_is_not_there(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_nothing_is_found_that_is_not_there() {
    nothing_is_found_that_is_not_there(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_nothing_is_found_that_is_not_there() {
    if std::env::var("LAKEWARD_VERIFICATIONS").is_err() {
        eprintln!("SKIPPED: verifications on PostgreSQL under load take minutes; `make soak` runs them");
        return;
    }
    nothing_is_found_that_is_not_there(Kind::Postgres).await;
}

/// K-1: rows without a key are counted, by all that they hold; none is told as missing for having come and gone.
async fn a_table_without_a_key_is_compared(kind: Kind) {
    let Some(mut case) = Case::new(kind, "verifykeyless", "").await else { return };
    let identity = if kind == Kind::Postgres { "ALTER TABLE log REPLICA IDENTITY FULL;" } else { "" };
    let quiet: Vec<String> = (0..50).map(|n| format!("({n}, 'quiet', 1.5)")).collect();
    case.session
        .run(&format!(
            "CREATE TABLE log (n INT, what VARCHAR(80), price DECIMAL(9,2)); {identity}
             INSERT INTO log VALUES {}, (7, 'quiet', 1.5), (7, 'quiet', 1.5), (NULL, NULL, NULL), (NULL, NULL, NULL)",
            quiet.join(",")
        ))
        .await;
    let log = case.table("log");
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (stop, mut session) = (stop.clone(), case.database.session().await);
        writers.push(tokio::spawn(async move {
            let mut turn = 0_u32;
            while !stop.is_cancelled() {
                turn += 1;
                // Equal rows of several writers, and own ones, whose updates never wait for each other; rows of one content that come and go, and go and come back.
                session
                    .run(&format!(
                        "INSERT INTO log VALUES (100, 'all', 2), ({}, 'own {writer}', {writer})",
                        1000 + turn
                    ))
                    .await;
                session.run(&format!("INSERT INTO log VALUES ({writer}, 'short', 3)")).await;
                session.run(&format!("DELETE FROM log WHERE n = {writer} AND what = 'short'")).await;
                session
                    .run(&format!(
                        "UPDATE log SET price = price + 1 WHERE what = 'own {writer}' AND n = {}",
                        1000 + turn / 2
                    ))
                    .await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            turn
        }));
    }
    for _ in 0..4 {
        let answer = case.assert_equal(&[&log]);
        assert!(answer["tables"][0]["rows"].as_u64() > Some(50), "{answer:#}");
    }
    let planted = case
        .plant("log", json!({"key": "n", "set": {"3": {"what": "loud"}}, "remove": [5], "copy": {"7": 77, "9": 9}}));
    if planted {
        let (code, answer) = case.verify(&[&log]);
        assert_eq!(code, 3, "{answer:#}\n{}", daemon.log());
        let told = answer["tables"][0]["differences"].as_array().expect("a list").iter().map(|difference| {
            let values = difference["key"].as_array().expect("a list").iter();
            let values: Vec<&str> = values.map(|part| part["value"].as_str().unwrap_or("NULL")).collect();
            (difference["kind"].as_str().unwrap_or_default().to_owned(), values.join(" "))
        });
        let mut told: Vec<(String, String)> = told.collect();
        told.sort();
        let is = |kind: &str, values: &str| (kind.to_owned(), values.to_owned());
        let expected = [
            is("extra", "3 loud 1.50"),
            is("extra", "77 quiet 1.50"),
            is("extra", "9 quiet 1.50"),
            is("missing", "3 quiet 1.50"),
            is("missing", "5 quiet 1.50"),
        ];
        assert_eq!(told, expected, "{answer:#}");
        let (code, _, error) = case.lakeward(&["verify", &log, "--repair"]);
        assert!(code == 3 && error.contains(&format!("lakeward resync src/{log}")), "{code} {error}");
    }
    let (code, answer) = case.verify(&[&log, "--where", "what = 'quiet' AND n > 10"]);
    assert_eq!((code, &answer["tables"][0]["rows"]), (0, &json!(39)), "{answer:#}");
    stop.cancel();
    for writer in writers {
        assert!(writer.await.expect("it writes") > 20);
    }
    assert!(daemon.is_running(), "{}", daemon.log());
    case.database.drop().await;
}
on_each!(a_table_without_a_key_is_compared);

/// Without a daemon: what is in the lake is compared; what is not says what to do; and so does what can't be compared.
async fn questions_have_clear_answers(kind: Kind) {
    let Some(mut case) = Case::new(kind, "verifyask", IN_PLACE).await else { return };
    let identity = if kind == Kind::Postgres { "ALTER TABLE log REPLICA IDENTITY FULL;" } else { "" };
    case.session
        .run(&format!(
            "CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(80), nights INT);
             CREATE TABLE pairs (a INT, b VARCHAR(20), c INT, PRIMARY KEY (b, a));
             CREATE TABLE log (n INT, what VARCHAR(80)); {identity}
             INSERT INTO bookings VALUES (1, '김하늘', 1), (2, 'Ann', NULL), (3, '', 3);
             INSERT INTO pairs VALUES (1, 'x', 1), (2, 'x', 2), (1, 'y', 3);
             INSERT INTO log VALUES (1, 'a')"
        ))
        .await;
    let bookings = case.table("bookings");
    let (code, _, error) = case.lakeward(&["verify"]);
    assert!(code == 2 && error.contains("lakeward run"), "{code} {error}");
    case.lakeward.catch_up();

    // Nothing is on its way, so nobody need run.
    let answer = case.assert_equal(&["--chunk-rows", "1", &bookings, &case.table("pairs")]);
    assert_eq!((&answer["tables"][0]["rows"], &answer["tables"][1]["rows"]), (&json!(3), &json!(3)));
    let (code, text, _) = case.lakeward(&["verify"]);
    assert!(code == 0 && text.matches(": equal").count() == 3, "{code} {text}");
    let (code, _, error) = case.lakeward(&["verify", &case.table("bokings")]);
    assert!(code == 2 && error.contains(&format!("did you mean `{bookings}`?")), "{code} {error}");
    let (code, _, error) = case.lakeward(&["verify", "--source", "other"]);
    assert!(code == 2 && error.contains("there are: src"), "{code} {error}");
    let (code, text, error) = case.lakeward(&["verify", &bookings, "--where", "guest = = 1"]);
    assert!(code == 5 && (text + &error).contains("guest = = 1"), "{code} {error}");
    let answer = case.assert_equal(&[&bookings, "--where", "guest = 'Ann'"]);
    assert_eq!((&answer["tables"][0]["rows"], &answer["tables"][0]["extra_looked_for"]), (&json!(1), &json!(false)));
    let answer = case.assert_equal(&[&bookings, "--sample", "1"]);
    assert_eq!(answer["tables"][0]["chunks_of"], answer["tables"][0]["chunks"]);

    // A change that is not in the lake is no difference, but nothing is proven either.
    case.session.run("UPDATE bookings SET nights = 9 WHERE id = 2").await;
    let (code, text, _) = case.lakeward(&["verify", &bookings]);
    assert!(
        code == 15 && text.contains("1 row is") && text.contains("lakeward run --until-caught-up"),
        "{code} {text}"
    );
    case.lakeward.catch_up();
    case.assert_equal(&[&bookings]);
    // With a daemon the change is waited for.
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    for nights in 20..24 {
        case.session
            .run(&format!("UPDATE bookings SET nights = {nights} WHERE id < 3; UPDATE pairs SET a = a + 10"))
            .await;
        case.assert_equal(&[&bookings, &case.table("pairs")]);
    }
    if case.plant("bookings", json!({"key": "id", "set": {"2": {"guest": "Bob"}}, "remove": [1], "copy": {"3": 77}})) {
        let (code, answer) = case.verify(&[&bookings]);
        assert_eq!(code, 3, "{answer:#}\n{}", daemon.log());
        let answer = case.assert_equal(&["--repair", &bookings]);
        assert_eq!(differences(&json!({"tables": answer["repaired"]}), &bookings).len(), 3, "{answer:#}");
        assert_eq!(case.put_right(&daemon), [(2, 2, 0)], "{}", daemon.log());
    }
    case.catches_up(&mut daemon);
    case.database.drop().await;
}
on_each!(questions_have_clear_answers);

/// Columns that are hidden, kept, left out or called otherwise in the lake; and a change while it is compared.
async fn columns_need_not_be_the_same(kind: Kind) {
    let settings = "[schema_changes]\nadd = \"hold\"\ndrop = \"keep\"\nrename = \"ignore\"";
    let Some(mut case) = Case::new(kind, "verifycolumns", settings).await else { return };
    case.session
        .run(
            "CREATE TABLE goods (id INT PRIMARY KEY, name VARCHAR(40), price INT, old INT);
             INSERT INTO goods VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3)",
        )
        .await;
    let goods = case.table("goods");
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let changes = [
        "ALTER TABLE goods ADD COLUMN hidden INT",
        "ALTER TABLE goods RENAME COLUMN price TO cost",
        "ALTER TABLE goods DROP COLUMN old",
    ];
    for (number, change) in changes.iter().enumerate() {
        case.session.run(change).await;
        case.session
            .run(&format!(
                "UPDATE goods SET hidden = {number} WHERE id = 2; INSERT INTO goods (id, hidden) VALUES ({}, 7)",
                10 + number
            ))
            .await;
        case.assert_equal(&[&goods]);
    }
    if case.plant("goods", json!({"key": "id", "set": {"1": {"price": 5}, "3": {"old": 5}}})) {
        let (code, answer) = case.verify(&[&goods]);
        // What the source no longer has can't be compared.
        let differs = ("differs".to_owned(), "1".to_owned(), "price".to_owned());
        assert!(code == 3 && differences(&answer, &goods).contains(&differs), "{answer:#}\n{}", daemon.log());
        assert!(daemon.is_running(), "{}", daemon.log());
    }
    case.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_columns_need_not_be_the_same() {
    columns_need_not_be_the_same(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_columns_need_not_be_the_same() {
    columns_need_not_be_the_same(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_one_table() {
    let Some(mut case) = Case::new(Kind::Postgres, "verifyparts", "").await else { return };
    case.session
        .run(
            "CREATE TABLE stays (id INT, day INT, guest TEXT, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE stays_1 PARTITION OF stays FOR VALUES FROM (0) TO (10);
             CREATE TABLE stays_2 PARTITION OF stays FOR VALUES FROM (10) TO (20);
             INSERT INTO stays SELECT n, n % 20, 'g' || n FROM generate_series(1, 500) n",
        )
        .await;
    case.lakeward.catch_up();
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.session.run("UPDATE stays SET day = (day + 10) % 20 WHERE id % 7 = 0; DELETE FROM stays WHERE id < 5").await;
    let answer = case.assert_equal(&["--chunk-rows", "60", "public.stays"]);
    assert_eq!(answer["tables"][0]["rows"], json!(496));
    if case.plant("stays", json!({"key": "id", "remove": [200]})) {
        let (code, answer) = case.verify(&["public.stays"]);
        let expected = BTreeSet::from([("missing".to_owned(), "200".to_owned(), String::new())]);
        assert!(code == 3 && differences(&answer, "public.stays") == expected, "{answer:#}\n{}", daemon.log());
    }
    assert!(daemon.is_running());
    drop(daemon);
    case.database.drop().await;
}

/// The stream changes rows between the moment when a repair has read them and when it puts them right; and kill -9 at every
/// step of a repair.
async fn a_repair_meets_changes_and_ends(kind: Kind) {
    let Some(mut case) = Case::new(kind, "verifyrepair", IN_PLACE).await else { return };
    case.session.run("CREATE TABLE bookings (id INT PRIMARY KEY, guest VARCHAR(80), note VARCHAR(8000))").await;
    let rows: Vec<String> = (1..=300).map(|id| format!("({id}, 'guest {id}', 'x')")).collect();
    case.session.run(&format!("INSERT INTO bookings VALUES {}", rows.join(","))).await;
    case.session.run(&format!("UPDATE bookings SET note = {}", long_note(kind))).await;
    case.lakeward.catch_up();
    let bookings = case.table("bookings");
    let wrong = json!({
        "key": "id",
        "set": {"1": {"guest": "z"}, "2": {"guest": "z"}, "3": {"guest": "z"}, "4": {"note": "z"}},
        "remove": [5, 6, 7],
        "copy": {"8": 1001, "9": 1002},
    });
    let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", "repair.read"), ("LAKEWARD_WAIT_SECONDS", "15")]);
    daemon.wait_for_log("streaming");
    if !case.plant("bookings", wrong.clone()) {
        eprintln!("SKIPPED: LAKEWARD_TEST_PYTHON is not set, so nothing can be planted");
        return;
    }
    let mut repair = case.lakeward.command(&["verify", "--repair", "--json", &bookings]);
    let repair = tokio::task::spawn_blocking(move || repair.output());
    daemon.wait_for_log("waiting at repair.read");
    // Of each kind of wrong row, one that the stream has to say something about.
    case.session
        .run(
            "UPDATE bookings SET guest = 'new', note = 'y' WHERE id IN (1, 5); DELETE FROM bookings WHERE id IN (2, 6);
             INSERT INTO bookings VALUES (1001, 'came', 'short')",
        )
        .await;
    let output = repair.await.expect("waited for").expect("lakeward starts");
    assert_eq!(output.status.code(), Some(0), "{}\n{}", String::from_utf8_lossy(&output.stdout), daemon.log());
    let told = case.put_right(&daemon);
    // Left to the stream: 1 and 5, which it wrote, 2 and 6, which it deleted, and 1001, which it replaced.
    assert_eq!(told, [(3, 3, 5)], "{}", daemon.log());
    case.assert_equal(&[&bookings]);
    daemon.kill();

    for step in ["repair.read", "repair.staged", "repair.committed"] {
        let mut daemon = case.lakeward.start_with(&[("LAKEWARD_WAIT_AT", step)]);
        daemon.wait_for_log("streaming");
        let set = json!({"10": {"guest": step}, "11": {"note": step}});
        assert!(case.plant("bookings", json!({"key": "id", "set": set, "remove": [12], "copy": {"13": 2000}})));
        let mut repair = case.lakeward.command(&["verify", "--repair", &bookings]).spawn().expect("lakeward starts");
        daemon.wait_for_log(&format!("waiting at {step}"));
        repair.kill().expect("it runs");
        repair.wait().expect("it ended");
        daemon.kill();
        // The request is in the ledger.
        let mut daemon = case.lakeward.start();
        case.catches_up(&mut daemon);
        daemon.kill();
    }
    case.database.drop().await;
}
on_each!(a_repair_meets_changes_and_ends);
