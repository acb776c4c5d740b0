//! DDL in the logs of real servers: what MySqlSource tells of each statement, and that what it says old rows have in a new
//! column is what the server itself shows there.
//!
//! Needs `LAKEWARD_TEST_MARIADB_PORT` and `LAKEWARD_TEST_MYSQL_PORT` (scripts/with-servers.sh starts such servers).

mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use lakeward::config::{Contract, Contracts, DatabaseKind, Secret, SourceConfig, TableSelection, Tls};
use lakeward::schema::{ChangeKind, Fill, SchemaChange, Step, TableName};
use lakeward::source::mysql::MySqlSource;
use lakeward::source::{CollectorLimits, Event, Position, SnapshotEvent, Source, StreamRequest, TableStart};
use support::server::OwnServer;
use support::source::{Database, Kind, Session};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn mariadb() {
                super::$test(super::Kind::MariaDb).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mysql() {
                super::$test(super::Kind::MySql).await;
            }
        }
    )+};
}

on_both!(
    fills_are_what_the_server_shows_in_old_rows,
    what_can_not_be_known_is_not_guessed,
    every_statement_comes_to_its_steps,
    rows_have_the_schema_of_their_place,
    tables_come_and_go,
    online_schema_changes_go_on_under_the_tables_name,
    contracts_hold_for_new_columns,
);

/// A database of one test, followed as the daemon would.
struct Bed {
    kind: Kind,
    database: Database,
    session: Session,
    source: MySqlSource,
}

/// Where tables stand.
#[derive(Clone, Default)]
struct Starts(HashMap<TableName, TableStart>);

impl Bed {
    async fn new(kind: Kind, test: &str) -> Option<Self> {
        Self::with_contracts(kind, test, |_| Vec::new()).await
    }

    async fn with_contracts(
        kind: Kind,
        test: &str,
        contracts: impl FnOnce(&Database) -> Vec<Contract>,
    ) -> Option<Self> {
        let variable = if kind == Kind::MariaDb { "LAKEWARD_TEST_MARIADB_PORT" } else { "LAKEWARD_TEST_MYSQL_PORT" };
        let port = support::setting(variable)?.parse().expect("a port");
        Some(Self::on(kind, port, test, contracts).await)
    }

    async fn on(kind: Kind, port: u16, test: &str, contracts: impl FnOnce(&Database) -> Vec<Contract>) -> Self {
        let database = Database::create_on(kind, port, test).await;
        let session = database.session().await;
        let config = SourceConfig {
            name: "test".into(),
            kind: DatabaseKind::MySql,
            host: "127.0.0.1".into(),
            port,
            user: "cdc".into(),
            password: Some(Secret::new("cdc")),
            database: String::new(),
            tls: Tls::Prefer,
            tls_ca_file: None,
            tables: TableSelection::parse(&[format!("{}.*", database.name)]).expect("a pattern"),
            server_id: 2_000_000 + rand::random::<u32>() % 1_000_000,
            slot: String::new(),
            publication: String::new(),
            on_lost_position: lakeward::config::OnLostPosition::Stop,
        };
        let contracts = Contracts::new(contracts(&database));
        let source = MySqlSource::new(config, contracts).expect("a valid config");
        Self { kind, database, session, source }
    }

    fn name(&self, table: &str) -> TableName {
        TableName::new(self.database.name.as_str(), table)
    }

    /// Loads these tables; their rows.
    async fn load(&self, tables: &[&str]) -> (Starts, HashMap<String, RecordBatch>) {
        let names: Vec<TableName> = tables.iter().map(|table| self.name(table)).collect();
        let (out, mut events) = mpsc::channel(4);
        let gather = async {
            let mut starts = Starts::default();
            let mut rows = HashMap::new();
            let mut now = String::new();
            while let Some(event) = events.recv().await {
                match event {
                    SnapshotEvent::Table { schema, position, layout, .. } => {
                        now.clone_from(&schema.name.table);
                        let start = TableStart { schema: schema.clone(), position, layout, ignored: BTreeSet::new() };
                        starts.0.insert(schema.name.clone(), start);
                    }
                    SnapshotEvent::Rows { rows: batch, .. } => drop(rows.insert(now.clone(), batch)),
                    SnapshotEvent::TableDone => {}
                }
            }
            (starts, rows)
        };
        let (loaded, gathered) = tokio::join!(self.source.snapshot(&names, out), gather);
        loaded.expect("a first load");
        gathered
    }

    /// Everything since, until the log is where it is now.
    async fn follow(&self, starts: &Starts) -> Vec<Event> {
        let from = starts.0.values().next().expect("a table").position.clone();
        self.follow_from(starts, from).await
    }

    async fn follow_from(&self, starts: &Starts, from: Position) -> Vec<Event> {
        let head = self.source.head().await.expect("a head");
        let (_durable, durable) = watch::channel(from.clone());
        let stop = CancellationToken::new();
        let request = StreamRequest {
            from,
            tables: starts.0.clone(),
            durable,
            limits: CollectorLimits::default(),
            stop: stop.clone(),
        };
        let (out, mut events) = mpsc::channel(16);
        let gather = async {
            let mut gathered = Vec::new();
            while let Some(event) = events.recv().await {
                let done = matches!(&event, Event::Boundary { position, .. } if position.covers(&head));
                gathered.push(event);
                if done {
                    break;
                }
            }
            stop.cancel();
            gathered
        };
        let both = async { tokio::join!(self.source.stream(request, out), gather) };
        let (ended, gathered) = tokio::time::timeout(Duration::from_secs(90), both).await.expect("the stream goes on");
        ended.expect("the stream ends well");
        gathered
    }
}

fn changes(events: &[Event]) -> Vec<&SchemaChange> {
    let change = |event: &'_ Event| matches!(event, Event::SchemaChange(_));
    events
        .iter()
        .filter(|event| change(event))
        .map(|event| match event {
            Event::SchemaChange(change) => &**change,
            _ => unreachable!("filtered"),
        })
        .collect()
}

/// What happened to tables, in order, without positions.
fn story(events: &[Event]) -> Vec<String> {
    let mut story = Vec::new();
    for event in events {
        story.push(match event {
            Event::SchemaChange(change) => {
                let steps: Vec<String> = change.steps.iter().map(ToString::to_string).collect();
                format!("{}: {}", change.table.table, steps.join("; "))
            }
            Event::TableDropped { table, .. } => format!("{} dropped", table.table),
            Event::TableAppeared { table, .. } => format!("{} appeared", table.table),
            Event::TableStopped { table, error, .. } => format!("{} stopped: {error}", table.table),
            Event::Truncate(table) => format!("{} truncated", table.table),
            Event::Rows(rows) => {
                let names: Vec<&str> = rows.schema.columns.iter().map(|column| column.name.as_str()).collect();
                let mut texts = Vec::new();
                for row in 0..rows.rows.num_rows() {
                    let value = |column: &ArrayRef| match column.is_null(row) {
                        true => "NULL".to_owned(),
                        false => array_value_to_string(column, row).expect("a value"),
                    };
                    let values: Vec<String> = rows.rows.columns().iter().map(value).collect();
                    texts.push(values.join(" "));
                }
                format!("{} ({}): {}", rows.schema.name.table, names.join(" "), texts.join(", "))
            }
            Event::Layout { .. } | Event::Boundary { .. } => continue,
            other => panic!("{other:?}"),
        });
    }
    story
}

/// Definitions of a column whose old rows are known, for every type and spelling; a server takes those that it knows.
const DEFAULTS: &[&str] = &[
    "INT",
    "INT DEFAULT NULL",
    "TINYINT DEFAULT 5",
    "INT DEFAULT '5'",
    "INT DEFAULT ' 5'",
    "INT DEFAULT 5.5",
    "INT DEFAULT '-5.5'",
    "INT DEFAULT '2.5e0'",
    "INT DEFAULT -7",
    "INT DEFAULT +7",
    "INT DEFAULT 1e2",
    "BOOL DEFAULT TRUE",
    "BOOL NOT NULL DEFAULT FALSE",
    "INT DEFAULT 0x10",
    "INT DEFAULT b'101'",
    "INT DEFAULT 0b101",
    "INT DEFAULT (5)",
    "INT DEFAULT (-5)",
    "INT NOT NULL",
    "MEDIUMINT UNSIGNED NOT NULL",
    "INT UNSIGNED NOT NULL DEFAULT 4294967295",
    "BIGINT UNSIGNED DEFAULT 18446744073709551615",
    "BIGINT DEFAULT -9223372036854775808",
    "INT(5) ZEROFILL DEFAULT 7",
    "DECIMAL(10,2) DEFAULT 1.255",
    "DECIMAL(10,2) DEFAULT '1.255'",
    "DECIMAL(10,2) DEFAULT -1.255",
    "DECIMAL(10,2) DEFAULT 9.995",
    "DECIMAL(10,2) DEFAULT 1",
    "DECIMAL(10,2) DEFAULT 1e1",
    "DECIMAL(5,0) DEFAULT 0.5",
    "DECIMAL(4,2) UNSIGNED NOT NULL",
    "DECIMAL(65,30) DEFAULT 1.5",
    "FIXED(8,3) DEFAULT 1.5",
    "FLOAT DEFAULT 1.1",
    "FLOAT DEFAULT '1.1'",
    "FLOAT DEFAULT 16777217",
    "FLOAT(7,3) DEFAULT 1.23456",
    "FLOAT(7,3) DEFAULT 1234.567",
    "DOUBLE DEFAULT 1e300",
    "DOUBLE DEFAULT 0.1",
    "DOUBLE(7,3) DEFAULT 1234.5678",
    "DOUBLE(20,3) DEFAULT -123456789.123",
    "DOUBLE PRECISION NOT NULL",
    "BIT DEFAULT 1",
    "BIT(8) DEFAULT b'101'",
    "BIT(9) DEFAULT '1'",
    "BIT(9) DEFAULT 0x101",
    "BIT(64) DEFAULT 18446744073709551615",
    "BIT(17) NOT NULL",
    "CHAR(5) DEFAULT 'ab'",
    "CHAR(5) DEFAULT 'ab  '",
    "CHAR(3) DEFAULT 0x4120",
    "VARCHAR(10) DEFAULT 'ab  '",
    "VARCHAR(10) DEFAULT ''",
    "VARCHAR(10) DEFAULT 5",
    "VARCHAR(10) DEFAULT 005.50",
    "VARCHAR(10) DEFAULT .5",
    "VARCHAR(10) DEFAULT -0",
    "VARCHAR(10) DEFAULT TRUE",
    "VARCHAR(10) DEFAULT 0x414243",
    "VARCHAR(10) DEFAULT b'01000001'",
    "VARCHAR(10) DEFAULT N'abc'",
    "VARCHAR(10) DEFAULT _utf8mb4'äbc'",
    "VARCHAR(10) DEFAULT _latin1'abc'",
    "VARCHAR(10) DEFAULT _binary'abc'",
    "VARCHAR(10) DEFAULT 'Ж🍣'",
    "VARCHAR(10) CHARACTER SET latin1 DEFAULT 'é€'",
    "VARCHAR(10) CHARACTER SET utf16 DEFAULT 'aé🍣'",
    "VARCHAR(10) CHARACTER SET gbk DEFAULT '中'",
    "VARCHAR(10) CHARACTER SET sjis DEFAULT 'あ'",
    "VARCHAR(10) CHARACTER SET cp1251 DEFAULT 'Ж'",
    "VARCHAR(20) DEFAULT 'a\\'b\\\\c\\n\\t\\%\\_\\q'",
    "VARCHAR(20) DEFAULT 'it''s'",
    "VARCHAR(20) DEFAULT 'a' 'b'",
    "VARCHAR(10) DEFAULT ('abc')",
    "VARCHAR(10) NOT NULL",
    "BINARY(4) DEFAULT 'ab'",
    "BINARY(4) DEFAULT 0x4100",
    "BINARY(4) NOT NULL",
    "VARBINARY(4) DEFAULT 'ab '",
    "VARBINARY(4) DEFAULT 0x00FF",
    "VARBINARY(4) DEFAULT 5",
    "VARBINARY(9) DEFAULT 'é'",
    "VARBINARY(4) NOT NULL",
    "TEXT DEFAULT 'abc'",
    "TEXT DEFAULT ('abc')",
    "TEXT NOT NULL",
    "BLOB DEFAULT ('abc')",
    "BLOB DEFAULT (0x00FF)",
    "BLOB NOT NULL",
    "ENUM('a','b') DEFAULT 'b'",
    "ENUM('a','b') DEFAULT 'B'",
    "ENUM('x','it''s') NOT NULL",
    "SET('a','b','c') DEFAULT 'c,a'",
    "SET('a','b','c') DEFAULT ''",
    "SET('a','b') DEFAULT 'B,a'",
    "SET('a','b') NOT NULL",
    "DATE DEFAULT '2020-01-02'",
    "DATE DEFAULT '2020-1-2'",
    "DATE DEFAULT '20200102'",
    "DATE DEFAULT 20200102",
    "DATE DEFAULT '0000-00-00'",
    "DATE DEFAULT '2020-00-00'",
    "DATE DEFAULT DATE'2020-01-02'",
    "DATE NOT NULL",
    "DATETIME DEFAULT '2020-01-02 03:04:05'",
    "DATETIME DEFAULT '2020-01-02'",
    "DATETIME(3) DEFAULT '2020-01-02T03:04:05.678'",
    "DATETIME DEFAULT '2020-01-02 03:04'",
    "DATETIME DEFAULT 20200102030405",
    "DATETIME DEFAULT TIMESTAMP'2020-01-02 03:04:05'",
    "DATETIME NOT NULL",
    "DATETIME DEFAULT CURRENT_TIMESTAMP",
    "DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6)",
    "DATETIME(3) DEFAULT NOW(3)",
    "DATETIME DEFAULT NOW() ON UPDATE NOW()",
    "TIMESTAMP DEFAULT '2020-01-02 03:04:05'",
    "TIMESTAMP(3) NULL DEFAULT '2020-07-02 03:04:05.678'",
    "TIMESTAMP DEFAULT '0000-00-00 00:00:00'",
    "TIMESTAMP NULL",
    "TIMESTAMP NOT NULL",
    "TIMESTAMP",
    "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
    "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
    "TIME DEFAULT '10:11:12'",
    "TIME DEFAULT '-10:11'",
    "TIME DEFAULT '838:59:59'",
    "TIME(3) DEFAULT '1:2:3.25'",
    "TIME DEFAULT TIME'10:11:12'",
    "TIME NOT NULL",
    "YEAR DEFAULT 2020",
    "YEAR DEFAULT '2020'",
    "YEAR DEFAULT 20",
    "YEAR DEFAULT '70'",
    "YEAR DEFAULT 0",
    "YEAR DEFAULT '0'",
    "YEAR DEFAULT '0000'",
    "YEAR NOT NULL",
    "JSON DEFAULT '{}'",
    "JSON DEFAULT ('{}')",
    "JSON DEFAULT (JSON_OBJECT())",
    "JSON DEFAULT (JSON_ARRAY())",
    "JSON DEFAULT ('null')",
    "JSON DEFAULT ('17')",
    "JSON NOT NULL",
    "UUID DEFAULT '123E4567E89B12D3A456426614174000'",
    "UUID NOT NULL",
    "INET4 DEFAULT '1.2.3.4'",
    "INET4 NOT NULL",
    "INET6 DEFAULT '::ffff:1.2.3.4'",
    "INET6 NOT NULL",
    "POINT",
    "GEOMETRY DEFAULT NULL",
];

/// D-2: in three kinds of session.
async fn fills_are_what_the_server_shows_in_old_rows(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "fills").await else { return };
    let sessions = [
        ("strict", "SET sql_mode = 'STRICT_TRANS_TABLES', time_zone = '+02:00', timestamp = 1700000000.123456"),
        ("lax", "SET sql_mode = '', time_zone = 'SYSTEM', timestamp = DEFAULT"),
        ("plain", "SET sql_mode = DEFAULT, time_zone = '-05:30', timestamp = DEFAULT"),
    ];
    let tables = sessions.map(|(table, _)| table);
    for table in tables {
        bed.session.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY); INSERT INTO {table} VALUES (1)")).await;
    }
    let (starts, _) = bed.load(&tables).await;
    let mut known: HashMap<(String, String), &str> = HashMap::new();
    for (table, session) in sessions {
        bed.session.run(session).await;
        let mut taken = 0;
        for (index, definition) in DEFAULTS.iter().enumerate() {
            let column = format!("c{index}");
            if bed.session.try_run(&format!("ALTER TABLE {table} ADD {column} {definition}")).await.is_ok() {
                known.insert((table.to_owned(), column), definition);
                taken += 1;
            }
        }
        assert!(taken > 100, "{table}: the server took {taken} definitions only");
    }
    let (_, rows) = bed.load(&tables).await;
    let events = bed.follow(&starts).await;
    let mut told = 0;
    let mut wrong = Vec::new();
    for change in changes(&events) {
        let [Step::Add { column, fill }] = change.steps.as_slice() else { panic!("{:?}", change.steps) };
        let definition = known[&(change.table.table.clone(), column.name.clone())];
        let batch = &rows[&change.table.table];
        let shown = batch.column_by_name(&column.name).expect("the column is there").clone();
        let right = match fill {
            Fill::Null => shown.is_null(0),
            Fill::Value(value) => value.to_data() == shown.to_data(),
            Fill::Unknown(_) => false,
        };
        if !right {
            wrong.push(format!("{}: {definition}: {fill:?}, and the server shows {shown:?}", change.table.table));
        }
        told += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(told, known.len(), "each column is told once");
    assert!(story(&events).iter().all(|line| !line.contains("stopped")));
}

async fn what_can_not_be_known_is_not_guessed(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "doubt").await else { return };
    bed.session.run("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let (starts, _) = bed.load(&["t"]).await;
    let definitions = [
        ("INT AS (id * 2)", "generated"),
        ("INT AS (5) STORED", "generated"),
        ("INT DEFAULT (1 + 1)", "computed"),
        ("INT UNIQUE AUTO_INCREMENT", "counts by itself"),
        ("DATETIME DEFAULT '2020-01-02 03:04:05.6'", "a form that this release does not read"),
        ("VARCHAR(9) DEFAULT 1e3", "a form that this release does not read"),
        ("INT DEFAULT 2.5e0", "a form that this release does not read"),
        // The session makes CURRENT_TIMESTAMP of it, or zero: the catalog is asked, which does not tell what else there was.
        ("TIMESTAMP", "generated anew"),
    ];
    bed.session.run("SET sql_mode = '', explicit_defaults_for_timestamp = OFF").await;
    for (index, (definition, _)) in definitions.iter().enumerate() {
        bed.session.run(&format!("ALTER TABLE t ADD c{index} {definition}")).await;
    }
    let events = bed.follow(&starts).await;
    let changes = changes(&events);
    assert_eq!(changes.len(), definitions.len());
    for (change, (definition, why)) in changes.iter().zip(definitions) {
        let told: Vec<String> = change.steps.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|told| told.contains(why)), "{definition}: {told:?}");
        assert!(change.steps.iter().any(|step| step.kind() == ChangeKind::Change), "{definition}: {told:?}");
    }
}

/// D-1 to D-11: a statement on the left, its steps on the right; empty when the lake has nothing to do.
async fn every_statement_comes_to_its_steps(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "steps").await else { return };
    let int = if kind == Kind::MariaDb { "int(11)" } else { "int" };
    let grows = "column `a` grows to bigint (integer to long in the lake)".to_owned();
    let mut cases: Vec<(&str, String)> = vec![
        ("ALTER TABLE # ADD n INT DEFAULT 5 FIRST", "column `n` (int) is new, with `5` in the old rows".into()),
        ("ALTER TABLE # ADD (x INT, y VARCHAR(5) NOT NULL)", {
            "column `x` (int) is new; column `y` (varchar(5)) is new, with `` in the old rows".into()
        }),
        ("/* app */ ALTER TABLE # /*!50000 ADD x INT */ -- end", "column `x` (int) is new".into()),
        ("ALTER TABLE # DROP v, DROP COLUMN d", "column `v` is gone; column `d` is gone".into()),
        ("ALTER TABLE # DROP v, ADD v VARCHAR(20)", "column `v` is gone; column `v` (varchar(20)) is new".into()),
        ("ALTER TABLE # DROP v, RENAME COLUMN a TO v", "column `v` is gone; column `a` is now `v`".into()),
        ("ALTER TABLE # CHANGE v w VARCHAR(20)", "column `v` is now `w`".into()),
        ("ALTER TABLE # RENAME COLUMN v TO w, ADD v INT", "column `v` is now `w`; column `v` (int) is new".into()),
        ("ALTER TABLE # CHANGE a b INT, CHANGE b a INT", {
            "column `a` is now `a__lakeward_aside`; column `b` is now `a`; column `a__lakeward_aside` is now `b`".into()
        }),
        ("ALTER TABLE # RENAME COLUMN id TO number", "column `id` is now `number`".into()),
        ("ALTER TABLE # MODIFY a BIGINT", grows.clone()),
        ("ALTER TABLE # CHANGE a a2 BIGINT FIRST", {
            "column `a` is now `a2`; column `a2` grows to bigint (integer to long in the lake)".into()
        }),
        ("ALTER TABLE # MODIFY f DOUBLE", "column `f` grows to double (float to double in the lake)".into()),
        ("ALTER TABLE # MODIFY p DECIMAL(12,4)", {
            "column `p` grows to decimal(12,4) (decimal(8,2) to decimal(12,4) in the lake)".into()
        }),
        ("ALTER TABLE # MODIFY v VARCHAR(30)", "column `v` is declared varchar(30)".into()),
        ("ALTER TABLE # MODIFY e ENUM('b','a','c')", "column `e` is declared enum('b','a','c')".into()),
        ("ALTER TABLE # MODIFY a INT AFTER v, ALTER v SET DEFAULT 'x', ADD INDEX (v), COMMENT 'x'", String::new()),
        ("ALTER TABLE # CONVERT TO CHARACTER SET utf8mb4, ALGORITHM=COPY", String::new()),
        ("ALTER TABLE # ENGINE=InnoDB", String::new()),
        ("CREATE INDEX i ON # (v)", String::new()),
        ("ALTER TABLE # ADD UNIQUE KEY u (v)", String::new()),
        (
            "ALTER TABLE # MODIFY a SMALLINT",
            format!("column `a`: {int} becomes smallint (integer to short in the lake)"),
        ),
        ("ALTER TABLE # MODIFY d DATETIME(0)", {
            "column `d`: it became datetime and was datetime(3): fractions were rounded".into()
        }),
        ("SET sql_mode = ''; ALTER TABLE # MODIFY v VARCHAR(2); SET sql_mode = DEFAULT", {
            "column `v`: it became varchar(2) and was varchar(20): texts were cut".into()
        }),
        ("ALTER TABLE # DROP PRIMARY KEY, ADD PRIMARY KEY (k, id)", "the key was (id) and is (k, id)".into()),
        ("ALTER TABLE # DROP PRIMARY KEY", "the key was (id) and is ()".into()),
        ("ALTER TABLE # MODIFY b BIGINT", {
            "column `b` grows to bigint (integer to long in the lake); column `g`: it is generated, and `b` changed"
                .into()
        }),
        ("TRUNCATE TABLE #", "truncated".into()),
        ("ALTER TABLE # PARTITION BY HASH (id) PARTITIONS 2", String::new()),
        (
            "ALTER TABLE # PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (100)); ALTER TABLE # ADD PARTITION \
          (PARTITION q VALUES LESS THAN (200)); ALTER TABLE # DROP PARTITION p",
            "stopped: partition".into(),
        ),
    ];
    if kind == Kind::MariaDb {
        cases.push(("ALTER TABLE # ADD COLUMN IF NOT EXISTS a INT", String::new()));
        cases.push(("ALTER TABLE # ADD COLUMN IF NOT EXISTS x INT, DROP COLUMN IF EXISTS no_such", {
            "column `x` (int) is new".into()
        }));
        // D-11
        cases
            .push(("SET binlog_alter_two_phase = 1; ALTER TABLE # MODIFY a BIGINT; SET binlog_alter_two_phase = 0", {
                grows.clone()
            }));
        cases.push(("SET STATEMENT max_statement_time=60 FOR ALTER TABLE # MODIFY a BIGINT", grows.clone()));
        cases.push(("ALTER IGNORE TABLE # MODIFY v VARCHAR(2)", {
            "column `v`: it became varchar(2) and was varchar(20): texts were cut".into()
        }));
        // Its text does not tell it.
        cases.push(("ALTER TABLE # ADD x NVARCHAR(3) DEFAULT 'a'", {
            "column `x` (varchar(3)) is new, with `a` in the old rows".into()
        }));
    } else {
        cases.push(("ALTER TABLE # ADD x INT DEFAULT 7, ALGORITHM=INSTANT", {
            "column `x` (int) is new, with `7` in the old rows".into()
        }));
        cases.push(("ALTER TABLE # ADD x NVARCHAR(3) DEFAULT 'a'", {
            "column `x` (varchar(3)) is new, with `a` in the old rows".into()
        }));
    }
    let tables: Vec<String> = (0..cases.len()).map(|index| format!("t{index}")).collect();
    for (table, (statement, _)) in tables.iter().zip(&cases) {
        let generated = if statement.contains("MODIFY b") { ", g INT AS (b + 1) STORED" } else { "" };
        bed.session
            .run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, a INT, b INT, v VARCHAR(20), d DATETIME(3), f FLOAT, \
                 p DECIMAL(8,2), k INT NOT NULL, e ENUM('a','b'){generated}) CHARACTER SET latin1; \
                 INSERT INTO {table} (id, a, b, k) VALUES (1, 2, 3, 4)"
            ))
            .await;
    }
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let (starts, _) = bed.load(&names).await;
    for (table, (statement, _)) in tables.iter().zip(&cases) {
        bed.session.run(&statement.replace('#', table)).await;
    }
    // D-12
    assert!(bed.session.try_run("ALTER TABLE t0 ADD UNIQUE (no_such)").await.is_err());
    let events = bed.follow(&starts).await;
    let lines = story(&events);
    for (table, (statement, expected)) in tables.iter().zip(&cases) {
        let told: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with(&format!("{table}: ")) || line.starts_with(&format!("{table} ")))
            .collect();
        match (expected.as_str(), told.as_slice()) {
            ("", []) => {}
            ("truncated", [line]) if line.ends_with("truncated") => {}
            ("stopped: partition", [line]) if line.contains("stopped") && line.contains("partition") => {}
            (_, [line]) if **line == format!("{table}: {expected}") => {}
            _ => panic!("{statement}\n  came to {told:#?}\n  and not to {expected}"),
        }
    }
    // Read again, it is the same, by position too: what a daemon sees that was down meanwhile.
    let ids = |events: &[Event]| -> Vec<String> {
        let id = |change: &&SchemaChange| format!("{} {} {}", change.id("test"), change.place, change.table);
        changes(events).iter().map(id).collect()
    };
    let again = bed.follow(&starts).await;
    assert_eq!(ids(&again), ids(&events));
    let distinct: BTreeSet<String> = ids(&events).into_iter().collect();
    assert_eq!(distinct.len(), ids(&events).len(), "each change has an id of its own");
    for change in changes(&events) {
        assert!(change.at.is_some() && change.statement.is_some());
        let place = change.place.replace(['-', ':'], "");
        assert!(place.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{} varies", change.place);
    }
}

/// D-15, D-16: rows and statements in the order of the log, and a start in the middle.
async fn rows_have_the_schema_of_their_place(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "rows").await else { return };
    bed.session.run("CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 10)").await;
    let (starts, _) = bed.load(&["t"]).await;
    bed.session
        .run(
            "INSERT INTO t VALUES (2, 20);
             ALTER TABLE t ADD b VARCHAR(9) DEFAULT 'x' FIRST;
             UPDATE t SET a = 11 WHERE id = 1;
             INSERT INTO t VALUES ('y', 3, 30);
             ALTER TABLE t DROP a, CHANGE b c VARCHAR(20), MODIFY id BIGINT;
             BEGIN; INSERT INTO t VALUES ('z', 4); DELETE FROM t WHERE id = 2; COMMIT;
             ALTER TABLE t ADD d INT NOT NULL;
             INSERT INTO t VALUES ('w', 5, 50)",
        )
        .await;
    let events = bed.follow(&starts).await;
    let expected = [
        "t (id a): 2 20",
        "t: column `b` (varchar(9)) is new, with `x` in the old rows",
        "t (b id a): x 1 11, y 3 30",
        "t: column `a` is gone; column `b` is now `c`; column `c` is declared varchar(20); \
         column `id` grows to bigint (integer to long in the lake)",
        "t (c id): z 4, x 2",
        "t: column `d` (int) is new, with `0` in the old rows",
        "t (c id d): w 5 50",
    ];
    assert_eq!(story(&events), expected);

    // A restart with what the ledger keeps: the position of the boundary before the second statement, the layout of the
    // first, the schema that the lake has then.
    let second =
        events.iter().rposition(|event| matches!(event, Event::SchemaChange(change) if change.steps.len() > 1));
    let mut resumed = Starts::default();
    let mut start = starts.0[&bed.name("t")].clone();
    for event in &events[..second.expect("it was told")] {
        match event {
            Event::Boundary { position, .. } => start.position = position.clone(),
            Event::Layout { layout, .. } if layout.columns.len() == 3 => start.layout = Some(layout.clone()),
            Event::SchemaChange(change) => start.schema = Arc::clone(&change.after),
            _ => {}
        }
    }
    let from = start.position.clone();
    resumed.0.insert(bed.name("t"), start);
    let told = bed.follow_from(&resumed, from).await;
    assert_eq!(story(&told), expected[3..]);
    let id = |events: &[Event]| changes(events).last().map(|change| change.id("test"));
    assert_eq!(id(&told), id(&events));
}

/// K-6, K-7, D-8
async fn tables_come_and_go(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "come").await else { return };
    let tables = ["a", "b", "c", "d", "e", "f"];
    for table in tables {
        bed.session
            .run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT); INSERT INTO {table} VALUES (1, 1)"))
            .await;
    }
    let (starts, _) = bed.load(&tables).await;
    let other = format!("{}_other", bed.database.name);
    bed.session
        .run(&format!(
            "CREATE DATABASE {other};
             INSERT INTO a VALUES (2, 2);
             DROP TABLE a;
             CREATE TABLE a (id INT PRIMARY KEY, w TEXT);
             INSERT INTO a VALUES (3, 'new');
             ALTER TABLE a ADD x INT;
             RENAME TABLE b TO b2;
             INSERT INTO b2 VALUES (2, 2);
             CREATE TABLE IF NOT EXISTS c (id INT PRIMARY KEY);
             RENAME TABLE c TO aside, aside TO c;
             INSERT INTO c VALUES (2, 2);
             RENAME TABLE d TO x, e TO d, x TO e;
             ALTER TABLE f RENAME TO {other}.f;
             CREATE TABLE {other}.g (id INT PRIMARY KEY);
             CREATE TABLE h LIKE c;
             CREATE TABLE i AS SELECT 1 AS id;
             CREATE TEMPORARY TABLE j (id INT);
             DROP TABLE h, i;
             DROP TABLE IF EXISTS no_such"
        ))
        .await;
    let events = bed.follow(&starts).await;
    let stopped = |line: String| match line.split_once("stopped: ") {
        Some((table, why)) if why.contains("was renamed into its place") && why.contains("load it again") => {
            format!("{table}stopped")
        }
        _ => line,
    };
    let mut lines: Vec<String> = story(&events).into_iter().map(stopped).collect();
    let expected = [
        "a (id v): 2 2",
        "a dropped",
        "a appeared",
        "b dropped",
        "b2 appeared",
        "d stopped",
        "e stopped",
        "c (id v): 2 2",
        "f dropped",
        "h appeared",
        "i appeared",
    ];
    assert_eq!(lines, expected);
    bed.session.run(&format!("DROP DATABASE {other}; DROP DATABASE {}", bed.database.name)).await;
    lines = story(&bed.follow(&starts).await);
    assert_eq!(lines.last().map(String::as_str), Some("c dropped"));

    if kind == Kind::MariaDb {
        let Some(mut bed) = Bed::new(kind, "replaced").await else { return };
        bed.session.run("CREATE TABLE a (id INT PRIMARY KEY)").await;
        let (starts, _) = bed.load(&["a"]).await;
        bed.session.run("CREATE OR REPLACE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a VALUES (1, 1)").await;
        assert_eq!(story(&bed.follow(&starts).await), ["a dropped", "a appeared"]);
    }
}

/// D-9: gh-ost and pt-online-schema-change, as they write it.
async fn online_schema_changes_go_on_under_the_tables_name(kind: Kind) {
    let Some(mut bed) = Bed::new(kind, "ghost").await else { return };
    let tables = ["t", "p", "late", "renamed", "plain"];
    for table in tables {
        bed.session
            .run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(9), d INT); \
                 INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', 2)"
            ))
            .await;
    }
    // Begun before the stream: only the catalog knows it.
    bed.session.run("CREATE TABLE _late_gho LIKE late; ALTER TABLE _late_gho ADD n INT DEFAULT 5").await;
    let (starts, _) = bed.load(&tables).await;
    let database = bed.database.name.clone();
    bed.session
        .run(&format!(
            "create /* gh-ost */ table `{database}`.`_t_ghc` (id bigint, primary key(id));
             create /* gh-ost */ table `{database}`.`_t_gho` like `{database}`.`t`;
             alter /* gh-ost */ table `{database}`.`_t_gho` add n int not null default 7, drop d, modify v varchar(20);
             insert /* gh-ost */ ignore into `{database}`.`_t_gho` (id, v) select id, v from `{database}`.`t`;
             INSERT INTO t VALUES (3, 'z', 3);
             INSERT INTO _t_gho (id, v) VALUES (3, 'z');
             create /* gh-ost */ table `{database}`.`_t_del` (id int);
             drop /* gh-ost */ table if exists `{database}`.`_t_del`;
             rename /* gh-ost */ table `{database}`.`t` to `{database}`.`_t_del`, `{database}`.`_t_gho` to `{database}`.`t`;
             INSERT INTO t (id, v) VALUES (4, 'w');
             drop /* gh-ost */ table if exists `{database}`.`_t_ghc`;
             drop /* gh-ost */ table if exists `{database}`.`_t_del`"
        ))
        .await;
    bed.session
        .run(&format!(
            "CREATE TABLE `{database}`.`_p_new` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `v` varchar(9) DEFAULT NULL,\n  \
             `d` int(11) DEFAULT NULL,\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
             ALTER TABLE `{database}`.`_p_new` ADD COLUMN e ENUM('a','b') NOT NULL DEFAULT 'b';
             INSERT LOW_PRIORITY IGNORE INTO `{database}`.`_p_new` (`id`, `v`, `d`) SELECT `id`, `v`, `d` FROM `{database}`.`p`;
             RENAME TABLE `{database}`.`p` TO `{database}`.`_p_old`, `{database}`.`_p_new` TO `{database}`.`p`;
             DROP TABLE IF EXISTS `{database}`.`_p_old`;
             INSERT INTO p (id, e) VALUES (3, 'a');
             CREATE TABLE _renamed_new LIKE renamed;
             ALTER TABLE _renamed_new CHANGE d q INT;
             RENAME TABLE renamed TO _renamed_old, _renamed_new TO renamed;
             CREATE TABLE plain2 LIKE plain;
             RENAME TABLE plain TO plain_old, plain2 TO plain;
             RENAME TABLE late TO _late_del, _late_gho TO late"
        ))
        .await;
    let events = bed.follow(&starts).await;
    let lines = story(&events);
    let about = |table: &str| -> Vec<&String> {
        lines.iter().filter(|line| line.split([' ', ':']).next() == Some(table)).collect()
    };
    assert_eq!(
        about("t"),
        [
            "t (id v d): 3 z 3",
            "t: column `d` is gone; column `v` is declared varchar(20); column `n` (int) is new, with `7` in the old rows",
            "t (id v n): 4 w 7",
        ]
    );
    assert_eq!(
        about("p"),
        ["p: column `e` (enum('a','b')) is new, with `b` in the old rows", "p (id v d e): 3 NULL NULL a"]
    );
    let renamed = about("renamed");
    assert!(
        renamed.len() == 1 && renamed[0].contains("column `d` is gone") && renamed[0].contains("not known"),
        "{renamed:?}"
    );
    let plain = about("plain");
    assert!(plain.len() == 1 && plain[0].contains("plain stopped") && plain[0].contains("plain2"), "{plain:?}");
    assert_eq!(about("late"), [&format!("late: column `n` ({}) is new, with `5` in the old rows", int_of(bed.kind))]);
    for line in &lines {
        assert!(!line.starts_with('_'), "{line}");
    }
}

fn int_of(kind: Kind) -> &'static str {
    if kind == Kind::MariaDb { "int(11)" } else { "int" }
}

async fn contracts_hold_for_new_columns(kind: Kind) {
    let contracts = |database: &Database| {
        vec![
            Contract {
                table: format!("{}.t", database.name),
                exclude: vec!["secret".into()],
                types: [("n".to_owned(), "string".to_owned())].into(),
                tinyint1_is_bool: true,
                ..Contract::default()
            },
            Contract { table: format!("{}.p", database.name), partition_by: vec!["v".into()], ..Contract::default() },
        ]
    };
    let Some(mut bed) = Bed::with_contracts(kind, "contract", contracts).await else { return };
    bed.session
        .run("CREATE TABLE t (id INT PRIMARY KEY, secret INT, n INT); CREATE TABLE p (id INT PRIMARY KEY, v INT)")
        .await;
    let (mut starts, _) = bed.load(&["t", "p"]).await;
    starts.0.get_mut(&bed.name("t")).expect("loaded").ignored.insert("left".to_owned());
    bed.session
        .run(
            "SET sql_mode = '';
             ALTER TABLE t MODIFY secret BIGINT, DROP n;
             ALTER TABLE t ADD n INT DEFAULT 5, ADD ok BOOL DEFAULT 1, ADD at DATETIME(3) NOT NULL;
             ALTER TABLE t ADD `left` INT;
             INSERT INTO t VALUES (1, 2, 3, 0, '2020-01-02 03:04:05', 4);
             ALTER TABLE t CHANGE `left` `right` INT;
             ALTER TABLE t DROP secret;
             ALTER TABLE p RENAME COLUMN v TO w;
             INSERT INTO p VALUES (1, 1)",
        )
        .await;
    let lines = story(&bed.follow(&starts).await);
    assert_eq!(
        lines[..3],
        [
            "t: column `n` is gone",
            "t: column `n` (int) is new, with `5` in the old rows; column `ok` (tinyint(1)) is new, with `true` in the old \
             rows; column `at` (datetime(3)) is new",
            "t (id n ok at): 1 3 false 2020-01-02T03:04:05",
        ]
    );
    assert!(lines[3].contains("`right`") && lines[3].contains("left out of the lake"), "{}", lines[3]);
    assert!(lines[4].starts_with("p stopped") && lines[4].contains("`partition_by` names `v`"), "{}", lines[4]);
    assert_eq!(lines.len(), 5);
}

/// Read by offsets: the place of a change is where its statement ends.
#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_a_change_has_a_place_too() {
    let options = ["gtid_mode=OFF", "enforce_gtid_consistency=OFF"];
    let Some(server) = OwnServer::start(Kind::MySql, "offsets", &options) else { return };
    let mut bed = Bed::on(Kind::MySql, server.port, "offsets", |_| Vec::new()).await;
    bed.session.run("CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 1)").await;
    let (starts, _) = bed.load(&["t"]).await;
    bed.session
        .run(
            "INSERT INTO t VALUES (2, 2); ALTER TABLE t ADD b INT DEFAULT 3; INSERT INTO t VALUES (3, 3, 3);
             ALTER TABLE t DROP a; DROP TABLE t; CREATE TABLE t (id INT PRIMARY KEY)",
        )
        .await;
    let events = bed.follow(&starts).await;
    let expected = [
        "t (id a): 2 2",
        "t: column `b` (int) is new, with `3` in the old rows",
        "t (id a b): 3 3 3",
        "t: column `a` is gone",
        "t dropped",
        "t appeared",
    ];
    assert_eq!(story(&events), expected);
    let places =
        |events: &[Event]| -> Vec<String> { changes(events).iter().map(|change| change.place.clone()).collect() };
    let first = places(&events);
    assert!(first.iter().all(|place| place.starts_with("binlog.") && place.contains(':')), "{first:?}");
    assert_eq!(places(&bed.follow(&starts).await), first);
}
