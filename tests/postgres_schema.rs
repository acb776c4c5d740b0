//! Schema changes on PostgreSQL: what the source tells of them, with and without the event trigger.
//!
//! Each case is a statement and what it comes to. A small lake, kept by the events alone, must hold at the end what the
//! server shows: old rows included.

mod support;

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::cast;
use lakeward::config::{ChangeKind, Contract, Contracts};
use lakeward::schema::{Fill, SchemaChange, Step, TableName};
use lakeward::source::postgres::{EVENT_TRIGGER, PostgresSource};
use lakeward::source::{Event, Op, Position, Source};

use support::postgres::{Bed, Loaded, PATIENCE, Stream, admin, cell, run, snapshot, told};

/// A table of the lake, as events make it: by id, by column.
#[derive(Default)]
struct Lake {
    rows: BTreeMap<i64, BTreeMap<String, ArrayRef>>,
    columns: Vec<String>,
}

impl Lake {
    fn of(loaded: &Loaded) -> Self {
        let columns: Vec<String> = loaded.schema.columns.iter().map(|column| column.name.clone()).collect();
        let mut lake = Self { rows: BTreeMap::new(), columns };
        for row in 0..loaded.rows.num_rows() {
            let values = loaded.rows.columns().iter().map(|column| column.slice(row, 1));
            lake.rows.insert(id(loaded.rows.column(0), row), lake.columns.iter().cloned().zip(values).collect());
        }
        lake
    }

    fn apply(&mut self, events: &[Event], table: &str) {
        for event in events {
            match event {
                Event::Rows(rows) if rows.schema.name.to_string() == table => {
                    for row in 0..rows.rows.num_rows() {
                        let key = id(rows.rows.column(rows.schema.key[0]), row);
                        match rows.ops[row] {
                            Op::Delete | Op::UpdateOldKey => {
                                self.rows.remove(&key);
                            }
                            _ => {
                                let values = rows.rows.columns().iter().map(|column| column.slice(row, 1));
                                let names = rows.schema.columns.iter().map(|column| column.name.clone());
                                self.rows.insert(key, names.zip(values).collect());
                            }
                        }
                    }
                }
                Event::SchemaChange(change) if change.table.to_string() == table => self.change(change),
                Event::Truncate(name) if name.to_string() == table => self.rows.clear(),
                _ => {}
            }
        }
    }

    fn change(&mut self, change: &SchemaChange) {
        for step in &change.steps {
            for row in self.rows.values_mut() {
                match step {
                    Step::Add { column, fill } => {
                        let value = match fill {
                            Fill::Value(value) => value.clone(),
                            _ => new_null_array(&column.lake_type.arrow(), 1),
                        };
                        row.insert(column.name.clone(), value);
                    }
                    Step::Drop { column } => {
                        row.remove(column);
                    }
                    Step::Rename { from, to } => {
                        let value = row.remove(from).expect("was there");
                        row.insert(to.clone(), value);
                    }
                    Step::Widen { column, to, .. } => {
                        let value = row.get_mut(column).expect("is there");
                        *value = cast(value, &to.lake_type.arrow()).expect("widens");
                    }
                    Step::Redeclare { .. } | Step::Change { .. } | Step::Key { .. } => {}
                }
            }
        }
        self.columns = change.after.columns.iter().map(|column| column.name.clone()).collect();
    }

    /// `1: a=5 b=-`
    fn lines(&self) -> Vec<String> {
        let line = |(id, row): (&i64, &BTreeMap<String, ArrayRef>)| {
            let values: Vec<String> = row.iter().map(|(name, value)| format!("{name}={}", cell(value, 0))).collect();
            format!("{id}: {}", values.join(" "))
        };
        self.rows.iter().map(line).collect()
    }
}

fn id(column: &ArrayRef, row: usize) -> i64 {
    cell(column, row).parse().expect("keys are whole numbers")
}

/// Every change of a table, in order.
fn changes<'a>(events: &'a [Event], table: &str) -> Vec<&'a SchemaChange> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::SchemaChange(change) if change.table.to_string() == table => Some(&**change),
            _ => None,
        })
        .collect()
}

fn steps(events: &[Event], table: &str) -> Vec<String> {
    changes(events, table).iter().flat_map(|change| &change.steps).map(ToString::to_string).collect()
}

fn stopped(events: &[Event], table: &str) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::TableStopped { table: name, error, .. } if name.to_string() == table => Some(error.to_string()),
        _ => None,
    })
}

/// Loads all tables as the daemon does: with notes of them.
async fn load(bed: &Bed) -> (PostgresSource, Position, HashMap<TableName, Loaded>) {
    let source = bed.source();
    let schemas = source.discover().await.expect("discover");
    let names: Vec<TableName> = schemas.iter().map(|schema| schema.name.clone()).collect();
    let from = source.prepare(&names, None).await.expect("prepare");
    source.observe(&names).await.expect("observe");
    let tables = snapshot(&source, &names).await.expect("snapshot");
    (source, from, tables)
}

/// The source of a daemon that was started again with what the ledger kept.
fn restarted(bed: &Bed, before: &PostgresSource) -> PostgresSource {
    let source = bed.source();
    source.recall(&before.notes());
    source
}

/// Reads all that the server has committed now, and on until the condition holds.
async fn until(stream: &mut Stream, events: &mut Vec<Event>, what: &str, holds: impl Fn(&[Event]) -> bool) {
    let head = stream.source.head().await.expect("head");
    let reading = async {
        let mut reached = false;
        while !(reached && holds(events)) {
            let event = stream.events.recv().await.expect("the stream goes on");
            reached |= matches!(&event, Event::Boundary { position, .. } if position.covers(&head));
            events.push(event);
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        let brief = |event: &Event| match event {
            Event::Rows(rows) => format!("{}: {:?}", rows.schema.name, rows.ops),
            other => format!("{other:?}"),
        };
        panic!("{what}: not told; seen: {:#?}", events.iter().map(brief).collect::<Vec<_>>());
    }
}

async fn equal_to_the_server(bed: &Bed, lake: &Lake, table: &str, case: &str) {
    let name = TableName::new("shop", table);
    let now = snapshot(&bed.source(), std::slice::from_ref(&name)).await.expect("snapshot");
    assert_eq!(lake.lines(), Lake::of(&now[&name]).lines(), "{case}");
}

/// Name, statements with `{t}` for the table, steps without and (where they differ) with the event trigger.
struct Case {
    name: &'static str,
    sql: &'static str,
    steps: &'static [&'static str],
    told: Option<&'static [&'static str]>,
}

const fn case(name: &'static str, sql: &'static str, steps: &'static [&'static str]) -> Case {
    Case { name, sql, steps, told: None }
}

const UNKNOWN: &str = "and what old rows hold is not known: the table was rewritten, or may have been, and each row may have \
                       a value of its own (a default that is computed, or VACUUM FULL after the column was added)";

/// The table before: `id int PRIMARY KEY, a int, b int NOT NULL UNIQUE, v varchar(10), n numeric(10,2), f real, j jsonb`.
const CASES: &[Case] = &[
    case("add", "ALTER TABLE {t} ADD c text", &["column `c` (text) is new"]),
    case(
        "add_value",
        "ALTER TABLE {t} ADD c int NOT NULL DEFAULT 5",
        &["column `c` (integer) is new, with `5` in the old rows"],
    ),
    case(
        "add_text",
        r#"ALTER TABLE {t} ADD c text DEFAULT 'a, "b" {c}', ADD d text DEFAULT 'NULL', ADD e text DEFAULT ''"#,
        &[
            r#"column `c` (text) is new, with `a, "b" {c}` in the old rows"#,
            "column `d` (text) is new, with `NULL` in the old rows",
            "column `e` (text) is new, with `` in the old rows",
        ],
    ),
    case(
        "add_kinds",
        "ALTER TABLE {t} ADD c timestamptz DEFAULT '2024-02-29 13:00+09', ADD d numeric(10,2) DEFAULT 1.5,
            ADD e bool DEFAULT true, ADD g bytea DEFAULT '\\x00ff', ADD h date DEFAULT 'infinity', ADD i box DEFAULT '(1,1),(0,0)',
            ADD k int[] DEFAULT '{1,NULL,3}', ADD l float4 DEFAULT 0.1",
        &[
            "column `c` (timestamp with time zone) is new, with `2024-02-29T04:00:00Z` in the old rows",
            "column `d` (numeric(10,2)) is new, with `1.50` in the old rows",
            "column `e` (boolean) is new, with `true` in the old rows",
            "column `g` (bytea) is new, with `00ff` in the old rows",
            "column `h` (date) is new",
            "column `i` (box) is new, with `(1,1),(0,0)` in the old rows",
            "column `k` (integer[]) is new, with `[1, , 3]` in the old rows",
            "column `l` (real) is new, with `0.1` in the old rows",
        ],
    ),
    case(
        "add_now",
        "ALTER TABLE {t} ADD c timestamptz NOT NULL DEFAULT '2024-01-01+00'; ALTER TABLE {t} ALTER c SET DEFAULT now()",
        &["column `c` (timestamp with time zone) is new, with `2024-01-01T00:00:00Z` in the old rows"],
    ),
    case(
        "default_later",
        "ALTER TABLE {t} ADD c int; ALTER TABLE {t} ALTER c SET DEFAULT 7",
        &["column `c` (integer) is new"],
    ),
    case(
        "default_changed",
        "ALTER TABLE {t} ADD c int DEFAULT 5; ALTER TABLE {t} ALTER c SET DEFAULT 7",
        &["column `c` (integer) is new, with `5` in the old rows"],
    ),
    case("add_random", "ALTER TABLE {t} ADD c float8 DEFAULT random()", &["column `c` (double precision) is new, UNKNOWN"]),
    case("add_serial", "ALTER TABLE {t} ADD c serial", &["column `c` (integer) is new, UNKNOWN"]),
    case("drop", "ALTER TABLE {t} DROP a", &["column `a` is gone"]),
    case("rename", "ALTER TABLE {t} RENAME a TO c", &["column `a` is now `c`"]),
    case("rename_key", "ALTER TABLE {t} RENAME id TO no", &["column `id` is now `no`"]),
    Case {
        name: "exchange",
        sql: "ALTER TABLE {t} RENAME a TO x; ALTER TABLE {t} RENAME b TO a; ALTER TABLE {t} RENAME x TO b",
        steps: &[
            "column `a` is now `a__lakeward_aside`",
            "column `b` is now `a`",
            "column `a__lakeward_aside` is now `b`",
        ],
        told: Some(&["column `a` is now `x`", "column `b` is now `a`", "column `x` is now `b`"]),
    },
    case(
        "widen",
        "ALTER TABLE {t} ALTER a TYPE bigint, ALTER f TYPE float8, ALTER n TYPE numeric(12,4), ALTER v TYPE varchar(20)",
        &[
            "column `a` grows to bigint (integer to long in the lake)",
            "column `v` is declared character varying(20)",
            "column `n` grows to numeric(12,4) (decimal(10,2) to decimal(12,4) in the lake)",
            "column `f` grows to double precision (float to double in the lake)",
        ],
    ),
    case("to_text", "ALTER TABLE {t} ALTER v TYPE text, ALTER j TYPE text", &[
        "column `v` is declared text",
        "column `j` is declared text",
    ]),
    case("narrow", "ALTER TABLE {t} ALTER v TYPE varchar(8)", &["column `v`: character varying(10) becomes character \
        varying(8) (string to string in the lake), and the log does not tell what became of its values"]),
    case("retype", "ALTER TABLE {t} ALTER a TYPE text", &["column `a`: integer becomes text (integer to string in the \
        lake), and the log does not tell what became of its values"]),
    Case {
        name: "using",
        sql: "ALTER TABLE {t} ALTER a TYPE bigint USING a * 2",
        // Not to be seen; the record says what was taken for granted.
        steps: &["column `a` grows to bigint (integer to long in the lake)"],
        told: Some(&["column `a`: its values were computed anew by USING, and the log does not tell them"]),
    },
    Case {
        name: "computed",
        sql: "ALTER TABLE {t} ALTER a TYPE int USING a * 2",
        // Not to be seen at all: documented.
        steps: &[],
        told: Some(&["column `a`: its values were computed anew by USING, and the log does not tell them"]),
    },
    case(
        "other_type",
        "ALTER TABLE {t} DROP a, ADD a text",
        &["column `a` is gone", "column `a` (text) is new"],
    ),
    case(
        "drop_and_add",
        "ALTER TABLE {t} DROP a, ADD c int DEFAULT 3",
        &["column `a` is gone", "column `c` (integer) is new, with `3` in the old rows"],
    ),
    case(
        "rename_onto_dropped",
        "ALTER TABLE {t} DROP a; ALTER TABLE {t} RENAME v TO a",
        &["column `a` is gone", "column `v` is now `a`"],
    ),
    case("key", "ALTER TABLE {t} REPLICA IDENTITY USING INDEX key_b_key", &["the key was (id) and is (b)"]),
    case("full", "ALTER TABLE {t} REPLICA IDENTITY FULL", &[]),
    case("nothing", "ALTER TABLE {t} ALTER a SET DEFAULT 5, ALTER v SET NOT NULL; CREATE INDEX ON {t} (a)", &[]),
];

const COLUMNS: &str =
    "(id int PRIMARY KEY, a int, b int NOT NULL UNIQUE, v varchar(10), n numeric(10,2), f real, j jsonb)";

const ROWS: &str = "VALUES (1, 1, 1, 'eins', 1.25, 0.5, '{\"a\": 1}'), (2, NULL, 2, '', -1, NULL, NULL)";

/// Each case, seen by the row that follows (`followed`) or by a look at the catalog or the statement's message.
async fn every_case(test: &str, trigger: bool, followed: bool) {
    let mut setup = String::new();
    for case in CASES {
        setup.push_str(&format!("CREATE TABLE shop.{} {COLUMNS}; INSERT INTO shop.{} {ROWS};", case.name, case.name));
    }
    let Some(mut bed) = Bed::new(test, &setup).await else { return };
    if trigger {
        bed.sql(EVENT_TRIGGER).await;
    }
    let (source, from, tables) = load(&bed).await;
    let mut stream = Stream::start(source, &from, &tables);
    let mut events = Vec::new();
    for case in CASES {
        let table = format!("shop.{}", case.name);
        bed.sql(&format!("INSERT INTO {table} VALUES (3, 3, 3, 'drei', 3, 3, '3')")).await;
        bed.sql(&case.sql.replace("{t}", &table)).await;
        if followed {
            let sql = format!("UPDATE {table} SET n = 8 WHERE n = 3; DELETE FROM {table} WHERE n = -1");
            bed.sql(&sql).await;
        }
        // Mostly so that the catalog is not ahead of the log.
        if !trigger {
            events.extend(stream.caught_up().await.0);
        }
    }
    let expected = |case: &Case| -> Vec<String> {
        let steps = if trigger { case.told.unwrap_or(case.steps) } else { case.steps };
        steps.iter().map(|step| step.replace("UNKNOWN", UNKNOWN)).collect()
    };
    until(&mut stream, &mut events, test, |events| {
        CASES.iter().all(|case| steps(events, &format!("shop.{}", case.name)).len() >= expected(case).len())
    })
    .await;
    for case in CASES {
        let table = format!("shop.{}", case.name);
        assert_eq!(steps(&events, &table), expected(case), "{}", case.sql);
        assert_eq!(stopped(&events, &table), None, "{}", case.sql);
        let told = changes(&events, &table);
        for change in &told {
            let text = change.statement.clone().unwrap_or_default();
            if trigger {
                assert!(text.starts_with("ALTER TABLE"), "{text}");
                assert!(change.at.is_some(), "{}", case.sql);
            } else if case.name == "using" {
                assert!(text.contains("values are taken as cast: `a` from integer to bigint"), "{text}");
            }
        }
        let kinds: Vec<ChangeKind> = told.iter().flat_map(|change| change.kinds()).collect();
        let unknown = kinds.iter().any(|kind| matches!(kind, ChangeKind::Change | ChangeKind::Key));
        if unknown || !trigger && matches!(case.name, "using" | "computed") {
            continue;
        }
        let mut lake = Lake::of(&tables[&TableName::new("shop", case.name)]);
        lake.apply(&events, &table);
        equal_to_the_server(&bed, &lake, case.name, case.sql).await;
    }
    stream.end().await.expect("ends well");
}

/// D-1 to D-7.
#[tokio::test]
async fn a_row_that_follows_shows_what_became_of_its_table() {
    every_case("schema_rows", false, true).await;
}

#[tokio::test]
async fn the_catalog_shows_what_no_row_followed() {
    every_case("schema_quiet", false, false).await;
}

#[tokio::test]
async fn the_event_trigger_tells_every_statement() {
    every_case("schema_told", true, true).await;
}

#[tokio::test]
async fn the_event_trigger_tells_statements_that_no_row_follows() {
    every_case("schema_told_quiet", true, false).await;
}

/// In the order in which it happened, inside of one transaction; D-15: read again, and read late, it is the same.
#[tokio::test]
async fn changes_stand_between_the_rows_of_their_transaction_whenever_they_are_read() {
    for trigger in [false, true] {
        let test = format!("schema_order_{trigger}");
        let setup = format!("CREATE TABLE shop.t {COLUMNS}; INSERT INTO shop.t {ROWS};");
        let Some(mut bed) = Bed::new(&test, &setup).await else { return };
        if trigger {
            bed.sql(EVENT_TRIGGER).await;
        }
        let (source, from, tables) = load(&bed).await;
        bed.sql(
            "BEGIN;
            INSERT INTO shop.t (id, b) VALUES (10, 10);
            ALTER TABLE shop.t ADD c int DEFAULT 5; INSERT INTO shop.t (id, b) VALUES (11, 11);
            ALTER TABLE shop.t RENAME c TO d; INSERT INTO shop.t (id, b) VALUES (12, 12);
            ALTER TABLE shop.t DROP a; UPDATE shop.t SET d = 6 WHERE id = 10;
            COMMIT;
            ALTER TABLE shop.t ADD e text DEFAULT 'e', DROP j; DELETE FROM shop.t WHERE id = 1;
            ALTER TABLE shop.t RENAME e TO g; ALTER TABLE shop.t DROP f; INSERT INTO shop.t (id, b) VALUES (13, 13)",
        )
        .await;
        let read = async |source: PostgresSource| {
            let mut stream = Stream::start(source, &from, &tables);
            let mut events = Vec::new();
            until(&mut stream, &mut events, &test, |events| steps(events, "shop.t").len() >= 7).await;
            stream.end().await.expect("ends well");
            events
        };
        let events = read(source.clone()).await;
        bed_free(&mut bed).await;
        assert_eq!(stopped(&events, "shop.t"), None);
        let order: Vec<String> = events
            .iter()
            .flat_map(|event| match event {
                Event::Rows(rows) => rows.ops.iter().map(|op| format!("{op:?}")).collect(),
                Event::SchemaChange(change) => change.steps.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            })
            .collect();
        let mut expected = vec![
            "Insert",
            "column `c` (integer) is new, with `5` in the old rows",
            "Insert",
            "column `c` is now `d`",
            "Insert",
            "column `a` is gone",
            "Update",
            "column `j` is gone",
            "column `e` (text) is new, with `e` in the old rows",
            "Delete",
        ];
        // Two statements without a row between them are one change where only rows tell.
        expected.extend(if trigger {
            ["column `e` is now `g`", "column `f` is gone"]
        } else {
            ["column `f` is gone", "column `e` is now `g`"]
        });
        expected.push("Insert");
        assert_eq!(order, expected);
        let mut lake = Lake::of(&tables[&TableName::new("shop", "t")]);
        lake.apply(&events, "shop.t");
        equal_to_the_server(&bed, &lake, "t", &test).await;

        let ids = |events: &[Event]| -> Vec<_> {
            let told = changes(events, "shop.t");
            told.iter().map(|change| (change.id("shop"), change.place.clone(), change.ordinal)).collect()
        };
        let told = ids(&events);
        let mut distinct = told.clone();
        distinct.dedup();
        assert_eq!(told, distinct);
        // By the same daemon, by one that was started again, and by one without notes.
        for source in [restarted(&bed, &source), source] {
            assert_eq!(ids(&read(source).await), told);
            bed_free(&mut bed).await;
        }
    }
}

async fn bed_free(bed: &mut Bed) {
    for _ in 0..100 {
        let active: Option<bool> = sqlx::query_scalar("SELECT active FROM pg_replication_slots WHERE slot_name = $1")
            .bind(&bed.config.slot)
            .fetch_optional(&mut bed.admin)
            .await
            .expect("slots");
        if active != Some(true) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the slot stays in use");
}

/// A rename is told from drop and add by the numbers in the notes, also when nobody was there.
#[tokio::test]
async fn what_happened_while_nobody_read_is_told_by_numbers_or_not_at_all() {
    let mut setup = String::new();
    for table in ["renamed", "replaced", "anew", "twice", "quiet"] {
        setup.push_str(&format!("CREATE TABLE shop.{table} {COLUMNS}; INSERT INTO shop.{table} {ROWS};"));
    }
    let Some(mut bed) = Bed::new("schema_down", &setup).await else { return };
    let (source, from, tables) = load(&bed).await;
    bed.sql(
        "ALTER TABLE shop.renamed RENAME j TO k; ALTER TABLE shop.replaced DROP j, ADD k jsonb DEFAULT '7';
        ALTER TABLE shop.anew DROP j, ADD j jsonb; ALTER TABLE shop.quiet RENAME j TO k;
        ALTER TABLE shop.twice RENAME a TO x",
    )
    .await;
    for table in ["renamed", "replaced", "anew", "twice"] {
        bed.sql(&format!("INSERT INTO shop.{table} (id, b) VALUES (9, 9)")).await;
    }
    // The catalog goes on; which of its columns the row had is certain all the same.
    bed.sql(
        "ALTER TABLE shop.twice RENAME x TO y; ALTER TABLE shop.twice ALTER y TYPE bigint;
        INSERT INTO shop.twice (id, b) VALUES (10, 10)",
    )
    .await;
    let mut stream = Stream::start(restarted(&bed, &source), &from, &tables);
    let mut events = Vec::new();
    until(&mut stream, &mut events, "quiet", |events| !steps(events, "shop.quiet").is_empty()).await;
    for (table, expected) in [
        ("renamed", vec!["column `j` is now `k`"]),
        ("quiet", vec!["column `j` is now `k`"]),
        ("replaced", vec!["column `j` is gone", "column `k` (jsonb) is new, with `7` in the old rows"]),
        (
            "twice",
            vec![
                "column `a` is now `x`",
                "column `x` is now `y`",
                "column `y` grows to bigint (integer to long in the lake)",
            ],
        ),
        ("anew", vec![]),
    ] {
        let name = format!("shop.{table}");
        assert_eq!(steps(&events, &name), expected, "{table}");
        if table != "anew" {
            assert_eq!(stopped(&events, &name), None);
            let mut lake = Lake::of(&tables[&TableName::new("shop", table)]);
            lake.apply(&events, &name);
            equal_to_the_server(&bed, &lake, table, table).await;
        }
    }
    let error = stopped(&events, "shop.anew").expect("stopped");
    assert!(error.contains("column `j` was dropped and another of the same name and type was added"), "{error}");
    assert!(error.contains("docs/event-trigger.md"), "{error}");
    stream.end().await.expect("ends well");
}

/// Types of one's own: renamed, grown, gone before anybody read the rows that have them.
#[tokio::test]
async fn types_of_ones_own_may_change_too() {
    let setup = "CREATE TYPE shop.mood AS ENUM ('ok'); CREATE TYPE shop.brief AS ENUM ('x');
        CREATE TABLE shop.t (id int PRIMARY KEY, m shop.mood, b shop.brief); INSERT INTO shop.t VALUES (1, 'ok', 'x');";
    let Some(mut bed) = Bed::new("schema_types", setup).await else { return };
    let (source, from, tables) = load(&bed).await;
    bed.sql(
        "INSERT INTO shop.t VALUES (2, 'ok', 'x'); ALTER TABLE shop.t DROP b; DROP TYPE shop.brief;
        INSERT INTO shop.t VALUES (3, 'ok')",
    )
    .await;
    let mut stream = Stream::start(source, &from, &tables);
    let (mut events, _) = stream.caught_up().await;
    bed.sql("ALTER TYPE shop.mood RENAME TO temper; ALTER TYPE shop.temper ADD VALUE 'new'").await;
    bed.sql("INSERT INTO shop.t VALUES (4, 'new')").await;
    events.extend(stream.caught_up().await.0);
    bed.sql("ALTER TABLE shop.t ALTER m TYPE text; DROP TYPE shop.temper; INSERT INTO shop.t VALUES (5, 'any')").await;
    events.extend(stream.caught_up().await.0);
    assert_eq!(stopped(&events, "shop.t"), None);
    assert_eq!(
        steps(&events, "shop.t"),
        ["column `b` is gone", "column `m` is declared shop.temper", "column `m` is declared text"]
    );
    let mut lake = Lake::of(&tables[&TableName::new("shop", "t")]);
    lake.apply(&events, "shop.t");
    equal_to_the_server(&bed, &lake, "t", "types").await;
    stream.end().await.expect("ends well");
}

/// K-5: a partition that an ALTER TABLE rewrote has lost no row.
#[tokio::test]
async fn partitions_that_are_rewritten_are_not_taken_for_emptied() {
    let setup = "CREATE TABLE shop.p (id int, r int, a int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
        CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES IN (1); CREATE TABLE shop.p2 PARTITION OF shop.p FOR VALUES IN (2);
        INSERT INTO shop.p VALUES (1, 1, 1);";
    let Some(mut bed) = Bed::new("schema_rewritten", setup).await else { return };
    let (source, from, tables) = load(&bed).await;
    let mut stream = Stream::start(source, &from, &tables);
    let (mut events, _) = stream.caught_up().await;
    bed.sql("ALTER TABLE shop.p ALTER a TYPE bigint").await;
    until(&mut stream, &mut events, "widened", |events| !steps(events, "shop.p").is_empty()).await;
    // Long enough for two more looks.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    bed.sql("INSERT INTO shop.p VALUES (2, 2, 1099511627776)").await;
    events.extend(stream.caught_up().await.0);
    assert_eq!(stopped(&events, "shop.p"), None);
    let mut lake = Lake::of(&tables[&TableName::new("shop", "p")]);
    lake.apply(&events, "shop.p");
    equal_to_the_server(&bed, &lake, "p", "rewritten").await;
    stream.end().await.expect("ends well");
}

/// The event trigger knows when.
#[tokio::test]
async fn a_column_made_anew_is_told_by_the_event_trigger() {
    let Some(mut bed) =
        Bed::new("schema_anew", &format!("CREATE TABLE shop.t {COLUMNS}; INSERT INTO shop.t {ROWS};")).await
    else {
        return;
    };
    bed.sql(EVENT_TRIGGER).await;
    let (source, from, tables) = load(&bed).await;
    bed.sql(
        "INSERT INTO shop.t (id, b, j) VALUES (8, 8, '8'); ALTER TABLE shop.t DROP j, ADD j jsonb;
        INSERT INTO shop.t (id, b, j) VALUES (9, 9, '9')",
    )
    .await;
    let mut stream = Stream::start(source, &from, &tables);
    let (events, _) = stream.caught_up().await;
    assert_eq!(steps(&events, "shop.t"), ["column `j` is gone", "column `j` (jsonb) is new"]);
    let mut lake = Lake::of(&tables[&TableName::new("shop", "t")]);
    lake.apply(&events, "shop.t");
    equal_to_the_server(&bed, &lake, "t", "made anew").await;
    stream.end().await.expect("ends well");
}

/// K-6, K-7, D-8
#[tokio::test]
async fn tables_come_and_go() {
    for trigger in [false, true] {
        let test = format!("schema_tables_{trigger}");
        let mut setup = String::new();
        for table in ["dropped", "renamed", "quietly", "kept"] {
            setup.push_str(&format!("CREATE TABLE shop.{table} {COLUMNS};"));
        }
        let Some(mut bed) = Bed::new(&test, &setup).await else { return };
        if trigger {
            bed.sql(EVENT_TRIGGER).await;
        }
        let (source, from, tables) = load(&bed).await;
        let mut stream = Stream::start(source, &from, &tables);
        for table in ["dropped", "renamed", "quietly", "kept"] {
            bed.sql(&format!("INSERT INTO shop.{table} (id, b) VALUES (1, 1)")).await;
        }
        bed.sql(
            "DROP TABLE shop.dropped; ALTER TABLE shop.renamed RENAME TO renamed_away;
            INSERT INTO shop.renamed_away (id, b) VALUES (2, 2); ALTER TABLE shop.quietly RENAME TO quietly_away;
            SET ROLE cdc; GRANT USAGE ON SCHEMA shop TO cdc; RESET ROLE; GRANT CREATE ON SCHEMA shop TO cdc; SET ROLE cdc;
            CREATE TABLE shop.came (id int PRIMARY KEY); CREATE TABLE shop.keyless (id int); RESET ROLE;
            CREATE TABLE shop.foreign_one (id int PRIMARY KEY);
            INSERT INTO shop.kept (id, b) VALUES (2, 2)",
        )
        .await;
        let gone = |events: &[Event]| -> Vec<String> {
            let dropped = events.iter().filter_map(|event| match event {
                Event::TableDropped { table, statement, .. } => Some((table.to_string(), statement.clone())),
                _ => None,
            });
            let mut dropped: Vec<String> = dropped
                .map(|(table, statement)| {
                    let told = statement.as_ref().is_some_and(|text| text.contains("shop.dropped"));
                    assert!(!trigger || told, "{table}: {statement:?}");
                    table
                })
                .collect();
            dropped.sort();
            dropped
        };
        let came = |events: &[Event]| -> Vec<String> {
            let came = events.iter().filter_map(|event| match event {
                Event::TableAppeared { table, .. } => Some(table.to_string()),
                _ => None,
            });
            let mut came: Vec<String> = came.collect();
            came.sort();
            came
        };
        let mut events = Vec::new();
        until(&mut stream, &mut events, &test, |events| gone(events).len() >= 3 && came(events).len() >= 3).await;
        assert_eq!(gone(&events), ["shop.dropped", "shop.quietly", "shop.renamed"]);
        // Those without a key, and those that the user may not publish, are not.
        assert_eq!(came(&events), ["shop.came", "shop.quietly_away", "shop.renamed_away"]);
        for table in ["dropped", "renamed", "quietly"] {
            assert_eq!(told(&events, &format!("shop.{table}")).len(), 1, "{table}: rows of before are told, once");
            assert_eq!(stopped(&events, &format!("shop.{table}")), None);
        }
        assert_eq!(told(&events, "shop.kept").len(), 2);
        stream.end().await.expect("ends well");
    }
}

/// K-4: partitions under their own names, whose columns have an order of their own.
#[tokio::test]
async fn a_change_of_a_partitioned_table_is_told_once() {
    for via_root in [true, false] {
        for trigger in [false, true] {
            let test = format!("schema_parts_{via_root}_{trigger}");
            let setup = format!(
                "CREATE TABLE shop.p (id int, r int, v varchar(10), PRIMARY KEY (id, r)) PARTITION BY LIST (r);
                CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES IN (1);
                CREATE TABLE shop.p2 (v varchar(10), gone int, r int NOT NULL, id int NOT NULL, PRIMARY KEY (id, r));
                ALTER TABLE shop.p2 DROP gone; ALTER TABLE shop.p ATTACH PARTITION shop.p2 FOR VALUES IN (2);
                INSERT INTO shop.p VALUES (1, 1, 'a'), (2, 2, 'b');
                CREATE PUBLICATION parts_of FOR TABLE shop.p WITH (publish_via_partition_root = {via_root});"
            );
            let Some(mut bed) = Bed::new(&test, &setup).await else { return };
            bed.config.publication = "parts_of".into();
            if trigger {
                bed.sql(EVENT_TRIGGER).await;
            }
            let (source, from, tables) = load(&bed).await;
            assert_eq!(tables.len(), 1);
            let mut stream = Stream::start(source, &from, &tables);
            bed.sql(
                "INSERT INTO shop.p VALUES (3, 1, 'c'), (4, 2, 'd');
                ALTER TABLE shop.p ADD x int DEFAULT 7; INSERT INTO shop.p (id, r) VALUES (5, 2), (6, 1);
                ALTER TABLE shop.p RENAME v TO w; INSERT INTO shop.p (id, r, w) VALUES (7, 1, 'e'), (8, 2, 'f')",
            )
            .await;
            let (mut events, _) = stream.caught_up().await;
            assert_eq!(stopped(&events, "shop.p"), None, "{test}");
            bed.sql("ALTER TABLE shop.p ALTER w TYPE text, ADD y text DEFAULT 'y'").await;
            until(&mut stream, &mut events, &test, |events| steps(events, "shop.p").len() >= 4).await;
            assert_eq!(
                steps(&events, "shop.p"),
                [
                    "column `x` (integer) is new, with `7` in the old rows",
                    "column `v` is now `w`",
                    "column `w` is declared text",
                    "column `y` (text) is new, with `y` in the old rows",
                ],
                "{test}"
            );
            let mut lake = Lake::of(&tables[&TableName::new("shop", "p")]);
            lake.apply(&events, "shop.p");
            equal_to_the_server(&bed, &lake, "p", &test).await;
            stream.end().await.expect("ends well");
        }
    }
}

/// What a contract leaves out stays out, whatever it is called.
#[tokio::test]
async fn columns_that_are_left_out_leave_no_step() {
    let setup = format!("CREATE TABLE shop.t {COLUMNS}; CREATE TABLE shop.leak {COLUMNS};");
    let Some(mut bed) = Bed::new("schema_excluded", &setup).await else { return };
    let contract = |table: &str| Contract {
        table: format!("shop.{table}"),
        exclude: vec!["v".into(), "later".into()],
        ..Contract::default()
    };
    // A column that is not there yet can't be excluded when the table is chosen.
    let early = |table: &str| Contract { exclude: vec!["v".into()], ..contract(table) };
    bed.contracts = Contracts::new(vec![early("t"), early("leak")]);
    let (source, from, tables) = load(&bed).await;
    let notes = source.notes();
    bed.contracts = Contracts::new(vec![contract("t"), contract("leak")]);
    let source = bed.source();
    source.recall(&notes);
    let mut stream = Stream::start(source, &from, &tables);
    bed.sql(
        "ALTER TABLE shop.t ALTER v TYPE int USING 1, ADD later text DEFAULT 'x'; INSERT INTO shop.t (id, b, v) VALUES (1, 1, 2);
        ALTER TABLE shop.t DROP v; INSERT INTO shop.t (id, b) VALUES (2, 2);
        ALTER TABLE shop.leak RENAME v TO open; INSERT INTO shop.leak (id, b, open) VALUES (1, 1, 'secret')",
    )
    .await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(steps(&events, "shop.t"), Vec::<String>::new());
    assert_eq!(stopped(&events, "shop.t"), None);
    assert_eq!(told(&events, "shop.t"), ["Insert: 1 | - | 1 | - | - | -", "Insert: 2 | - | 2 | - | - | -"]);
    let error = stopped(&events, "shop.leak").expect("stopped");
    assert!(error.contains("column `v`, which its contract excludes, is called `open` now"), "{error}");
    assert_eq!(told(&events, "shop.leak"), Vec::<String>::new());
    stream.end().await.expect("ends well");
}

/// Whatever happens to the event trigger, the application's statement runs.
#[tokio::test]
async fn the_event_trigger_never_fails_a_statement() {
    let Some(mut bed) = Bed::new("schema_trigger", &format!("CREATE TABLE shop.t {COLUMNS};")).await else { return };
    let database = bed.database.clone();
    assert!(!bed.source().has_event_trigger().await.expect("readable"));
    // Twice: installing it again is harmless.
    bed.sql(EVENT_TRIGGER).await;
    bed.sql(EVENT_TRIGGER).await;
    assert!(bed.source().has_event_trigger().await.expect("readable"));
    let (source, from, tables) = load(&bed).await;
    let mut stream = Stream::start(source, &from, &tables);
    bed.sql(&format!(
        "DO $$ BEGIN CREATE ROLE lw_app LOGIN PASSWORD 'app'; EXCEPTION WHEN duplicate_object THEN END $$;
        GRANT CREATE ON DATABASE {database} TO lw_app; CREATE SCHEMA app AUTHORIZATION lw_app"
    ))
    .await;
    // A role without any right to lakeward's schema, in a session with hostile settings, and as a replica.
    let mut app = admin(bed.port, &database).await;
    run(
        &mut app,
        "SET session_replication_role = replica; SET SESSION AUTHORIZATION lw_app; SET datestyle = 'SQL, DMY';
        SET search_path = app; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ADD a date DEFAULT '01/02/2024';
        CREATE TABLE u AS SELECT 1 AS id; ALTER TABLE u ADD b float8 DEFAULT random(); ALTER TABLE t RENAME TO v;
        CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE v ADD m mood; DROP TYPE mood CASCADE; CREATE TEMP TABLE w (id int);
        ALTER TABLE w ADD b int; DROP TABLE w; DROP TABLE u, v",
    )
    .await;
    // The function can do nothing any more: its message is refused.
    // Its arguments differ between the versions.
    let of_all = |what: &str, to: &str| {
        format!(
            "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP
                 EXECUTE format('{what} EXECUTE ON FUNCTION %s {to} PUBLIC', f); END LOOP; END $$"
        )
    };
    bed.sql(&of_all("REVOKE", "FROM")).await;
    run(&mut app, "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ADD b int; DROP TABLE t; DROP SCHEMA app").await;
    bed.sql(&of_all("GRANT", "TO")).await;

    // Messages that are none count as not there, and those about other tables are not believed.
    let forged = r#"{"version": 1, "tag": "DROP TABLE", "statement": "x", "tables": [], "rewritten": [],
        "dropped": [{"oid": 1, "schema": "shop", "table": "t"}]}"#;
    for content in ["{", "", "[1]", forged] {
        bed.sql(&format!("SELECT pg_logical_emit_message(true, 'lakeward.ddl', '{content}')")).await;
        bed.sql(&format!("SELECT pg_logical_emit_message(false, 'lakeward.ddl', '{content}')")).await;
    }
    bed.sql("INSERT INTO shop.t (id, b) VALUES (1, 1); ALTER TABLE shop.t ADD c int; INSERT INTO shop.t (id, b) VALUES (2, 2)")
        .await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(steps(&events, "shop.t"), ["column `c` (integer) is new"]);
    assert_eq!(told(&events, "shop.t").len(), 2);
    stream.end().await.expect("ends well");
    bed.sql("DROP SCHEMA lakeward CASCADE").await;
    assert!(!bed.source().has_event_trigger().await.expect("readable"));
}

/// Without notes (a ledger of before they held numbers) a column is known by its name, and what can't be known is not said.
#[tokio::test]
async fn without_notes_nothing_is_guessed() {
    let mut setup = String::new();
    for table in ["added", "valued", "renamed"] {
        setup.push_str(&format!("CREATE TABLE shop.{table} {COLUMNS}; INSERT INTO shop.{table} {ROWS};"));
    }
    let Some(mut bed) = Bed::new("schema_notes", &setup).await else { return };
    let (_, from, tables) = load(&bed).await;
    bed.sql(
        "ALTER TABLE shop.added ADD c int; ALTER TABLE shop.valued ADD c int DEFAULT 5; ALTER TABLE shop.renamed RENAME a TO c",
    )
    .await;
    for table in ["added", "valued", "renamed"] {
        bed.sql(&format!("INSERT INTO shop.{table} (id, b) VALUES (9, 9)")).await;
    }
    let mut stream = Stream::start(bed.source(), &from, &tables);
    let (events, _) = stream.caught_up().await;
    assert_eq!(steps(&events, "shop.valued"), ["column `c` (integer) is new, with `5` in the old rows"]);
    assert_eq!(steps(&events, "shop.added"), [format!("column `c` (integer) is new, {UNKNOWN}")]);
    assert_eq!(
        steps(&events, "shop.renamed"),
        ["column `a` is gone".to_owned(), format!("column `c` (integer) is new, {UNKNOWN}")]
    );
    let said = changes(&events, "shop.renamed")[0].statement.clone().expect("said");
    assert!(said.contains("a renamed column would look dropped and added"), "{said}");
    stream.end().await.expect("ends well");
}
