//! MySqlSource on real servers: what a snapshot reads and what the log tells are the same values, column by column,
//! and the events of transactions are what the source promises.
//!
//! Needs `LAKEWARD_TEST_MARIADB_PORT` and `LAKEWARD_TEST_MYSQL_PORT` (scripts/server.sh starts such servers).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use lakeward::config::{Contract, Contracts, DatabaseKind, Secret, SourceConfig, TableSelection, Tls};
use lakeward::schema::{TableName, TableSchema};
use lakeward::source::mysql::MySqlSource;
use lakeward::source::{
    CollectorLimits, Error, Event, Op, Position, ProblemKind, SnapshotEvent, Source, StreamRequest, TableStart,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Tests that change the whole server (settings, purged logs) hold it alone, the others together.
static SERVERS: RwLock<()> = RwLock::const_new(());

#[derive(Clone, Copy, PartialEq)]
enum Server {
    MariaDb(u16),
    MySql(u16),
}

impl Server {
    fn port(self) -> u16 {
        match self {
            Self::MariaDb(port) | Self::MySql(port) => port,
        }
    }

    fn is_mariadb(self) -> bool {
        matches!(self, Self::MariaDb(_))
    }

    async fn app(self) -> Conn {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port())
            .user(Some("app"))
            .pass(Some("app"))
            .prefer_socket(false);
        Conn::new(options).await.expect("the test server answers app/app")
    }

    fn config(self, patterns: &[&str], server_id: u32) -> SourceConfig {
        SourceConfig {
            name: "test".into(),
            kind: DatabaseKind::MySql,
            host: "127.0.0.1".into(),
            port: self.port(),
            user: "cdc".into(),
            password: Some(Secret::new("cdc")),
            database: String::new(),
            tls: Tls::Prefer,
            tls_ca_file: None,
            tables: TableSelection::parse(patterns).expect("valid patterns"),
            server_id,
            slot: String::new(),
            publication: String::new(),
            on_lost_position: lakeward::config::OnLostPosition::Stop,
        }
    }
}

fn servers(test: &str) -> Vec<Server> {
    let port = |name: &str| match std::env::var(name).ok().and_then(|port| port.parse().ok()) {
        Some(port) => Some(port),
        None => {
            eprintln!("SKIPPED {test}: {name} is not set; start a server with scripts/server.sh");
            None
        }
    };
    let mariadb = port("LAKEWARD_TEST_MARIADB_PORT").map(Server::MariaDb);
    let mysql = port("LAKEWARD_TEST_MYSQL_PORT").map(Server::MySql);
    mariadb.into_iter().chain(mysql).collect()
}

async fn run(conn: &mut Conn, statement: &str) {
    if let Err(error) = conn.query_drop(statement).await {
        let start: String = statement.chars().take(300).collect();
        panic!("{start}: {error}");
    }
}

fn source(server: Server, patterns: &[&str], server_id: u32) -> MySqlSource {
    MySqlSource::new(server.config(patterns, server_id), Contracts::default()).expect("a valid config")
}

async fn snapshot(source: &MySqlSource, table: &TableName) -> (RecordBatch, Position) {
    let (out, mut events) = mpsc::channel(4);
    let tables = [table.clone()];
    let load = source.snapshot(&tables, out);
    let gather = async {
        let mut batches = Vec::new();
        let mut start = None;
        while let Some(event) = events.recv().await {
            match event {
                SnapshotEvent::Table { schema, position, .. } => start = Some((schema, position)),
                SnapshotEvent::Rows { rows, .. } => batches.push(rows),
                SnapshotEvent::TableDone => {}
            }
        }
        (start, batches)
    };
    let (loaded, (start, batches)) = tokio::join!(load, gather);
    loaded.expect("the snapshot succeeds");
    let (schema, position) = start.expect("a table was announced");
    (concat_batches(&schema.arrow(), &batches).expect("one schema"), position)
}

/// Streams one table until the log is as far as it was at the call.
async fn stream(source: &MySqlSource, schema: &TableSchema, from: Position, limits: CollectorLimits) -> Vec<Event> {
    let head = source.head().await.expect("a head");
    let start = TableStart {
        schema: Arc::new(schema.clone()),
        position: from.clone(),
        layout: None,
        ignored: Default::default(),
    };
    let (_durable, durable) = watch::channel(from.clone());
    let stop = CancellationToken::new();
    let request = StreamRequest {
        from: from.clone(),
        tables: HashMap::from([(schema.name.clone(), start)]),
        durable,
        limits,
        stop: stop.clone(),
    };
    let (out, mut events) = mpsc::channel(16);
    let reading = source.stream(request, out);
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
    let both = async { tokio::join!(reading, gather) };
    let (ended, gathered) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("the stream goes on");
    ended.expect("the stream ends well");
    gathered
}

fn rows(events: &[Event], schema: &TableSchema) -> (RecordBatch, Vec<Op>) {
    let mut batches = Vec::new();
    let mut ops = Vec::new();
    for event in events {
        match event {
            Event::Rows(rows) => {
                batches.push(rows.rows.clone());
                ops.extend(&rows.ops);
            }
            Event::TableStopped { error, .. } => panic!("stopped: {error}"),
            _ => {}
        }
    }
    (concat_batches(&schema.arrow(), &batches).expect("one schema"), ops)
}

async fn schema_of(source: &MySqlSource, table: &str) -> TableSchema {
    let tables = source.discover().await.expect("discover");
    tables.into_iter().find(|schema| schema.name.table == table).expect("the table is found")
}

fn assert_same(label: &str, snapshot: &RecordBatch, streamed: &RecordBatch) {
    assert_eq!(snapshot.num_rows(), streamed.num_rows(), "{label}: rows");
    for (index, field) in snapshot.schema().fields().iter().enumerate() {
        let (left, right) = (snapshot.column(index), streamed.column(index));
        if left == right {
            continue;
        }
        for row in 0..left.len() {
            assert_eq!(
                left.slice(row, 1).as_ref(),
                right.slice(row, 1).as_ref(),
                "{label}: column {} of row {row}: snapshot left, stream right",
                field.name()
            );
        }
    }
}

/// (column definition, values as SQL); each value list cycles.
fn columns(server: Server) -> Vec<(&'static str, Vec<String>)> {
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let mut columns = vec![
        ("t1 tinyint", list(&["-128", "127", "0", "NULL"])),
        ("t1u tinyint unsigned", list(&["0", "255", "NULL"])),
        ("t1b tinyint(1)", list(&["0", "1", "NULL"])),
        ("t2 smallint", list(&["-32768", "32767", "NULL"])),
        ("t2u smallint unsigned zerofill", list(&["0", "65535"])),
        ("t3 mediumint", list(&["-8388608", "-8000000", "8388607", "-1", "NULL"])),
        ("t3u mediumint unsigned", list(&["0", "16777215"])),
        ("t4 int", list(&["-2147483648", "2147483647", "NULL"])),
        ("t4u int unsigned", list(&["0", "4294967295"])),
        ("t8 bigint", list(&["-9223372036854775808", "9223372036854775807", "NULL"])),
        ("t8u bigint unsigned", list(&["0", "18446744073709551615", "NULL"])),
        ("f float", list(&["0", "-0.0e0", "3.4028234e38", "1.17549435e-38", "0.1", "16777217", "NULL"])),
        ("fs float(7,3)", list(&["1234.567", "-0.001"])),
        ("d double", list(&["0", "-0.0e0", "1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "NULL"])),
        ("n1 decimal(5,2)", list(&["-999.99", "0.01", "0", "NULL"])),
        ("n2 decimal(38,10)", list(&["9999999999999999999999999999.9999999999", "-0.0000000001"])),
        (
            "n3 decimal(65,30)",
            list(&["99999999999999999999999999999999999.999999999999999999999999999999", "-123.45", "0"]),
        ),
        ("n4 decimal(18,0) unsigned zerofill", list(&["12", "999999999999999999"])),
        ("b1 bit(1)", list(&["b'0'", "b'1'", "NULL"])),
        ("b9 bit(9)", list(&["b'100000001'", "b'0'"])),
        ("b64 bit(64)", list(&["b'1'", "0xFFFFFFFFFFFFFFFF", "NULL"])),
        (
            "da date",
            list(&[
                "'1000-01-01'",
                "'9999-12-31'",
                "'2024-02-29'",
                "'0000-00-00'",
                "'2024-00-15'",
                "'2024-02-31'",
                "NULL",
            ]),
        ),
        (
            "dt datetime",
            list(&["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'", "'0001-01-01 00:00:01'"]),
        ),
        ("dt3 datetime(3)", list(&["'2024-03-02 13:05:06.123'", "'1969-12-31 23:59:59.999'", "NULL"])),
        ("dt6 datetime(6)", list(&["'2024-03-02 13:05:06.000001'", "'9999-12-31 23:59:59.999999'"])),
        ("ts timestamp NULL", list(&["'1970-01-01 09:00:01'", "'2038-01-19 12:14:07'", "0", "NULL"])),
        ("ts6 timestamp(6) NULL", list(&["'2038-01-19 12:14:07.999999'", "'2024-11-03 01:30:00.5'", "NULL"])),
        ("ti time", list(&["'838:59:59'", "'-838:59:59'", "'00:00:00'", "'-00:00:01'"])),
        ("ti2 time(2)", list(&["'-00:00:01.50'", "'12:34:56.78'", "NULL"])),
        ("ti6 time(6)", list(&["'-00:00:00.001'", "'838:59:58.999999'", "'-838:59:58.000001'"])),
        ("y year", list(&["1901", "2155", "0", "NULL"])),
        ("c char(10) character set utf8mb4", list(&["'ab'", "''", "'é🍣 '", "NULL"])),
        ("cl char(100) character set utf8mb4", list(&["'long one'", "repeat('é', 100)"])),
        ("vu varchar(300) character set utf8mb4 collate utf8mb4_bin", list(&["'예약 🏨'", "''", "repeat('x', 300)"])),
        ("v3 varchar(20) character set utf8mb3", list(&["'é'", "NULL"])),
        ("vl varchar(20) character set latin1", list(&["X'636166E980'", "X'818D8F909D'", "''"])),
        ("vk varchar(20) character set euckr", list(&["'예약'", "'abc'"])),
        ("vj varchar(20) character set cp932", list(&["'予約～－'", "'ｱ'"])),
        ("vg varchar(20) character set gbk", list(&["'预订'", "'a'"])),
        ("v2 varchar(20) character set ucs2", list(&["'é'", "'예약'"])),
        ("v16 varchar(20) character set utf16", list(&["'é🍣'", "''"])),
        ("v32 varchar(20) character set utf32", list(&["'é🍣'", "''"])),
        ("v1250 varchar(20) character set cp1250", list(&["'žluťoučký'", "X'80'"])),
        ("vgr varchar(20) character set greek", list(&["'αβγ'", "''"])),
        ("va varchar(20) character set ascii", list(&["'abc'", "''"])),
        ("te text character set utf8mb4", list(&["'text'", "''", "repeat('예', 30000)", "NULL"])),
        ("tl longtext character set latin1", list(&["X'E9'", "repeat('a', 70000)"])),
        ("tt tinytext", list(&["'t'"])),
        ("bi binary(4)", list(&["X'01000000'", "X'00000000'", "X'FFFFFFFF'", "X'01'", "NULL"])),
        ("vb varbinary(10)", list(&["X'0100'", "X''"])),
        ("bl blob", list(&["X''", "X'00FF00'", "repeat(X'00', 60000)"])),
        ("lb longblob", list(&["repeat('z', 200000)", "NULL"])),
        (
            "e enum('a','b,c','d''e','') character set utf8mb4",
            list(&["'a'", "'b,c'", "'d''e'", "''", "'bogus'", "NULL"]),
        ),
        ("el enum('é','ü') character set latin1", list(&["'é'", "'ü'"])),
        ("s set('x','y','é') character set latin1", list(&["''", "'x,é'", "'y'", "'x,y,é'", "NULL"])),
        ("gv int generated always as (t4 % 100) virtual", vec![]),
        ("gs varchar(30) generated always as (concat('n', t2)) stored", vec![]),
        ("`select ``q``` int", list(&["1"])),
        ("g geometry", list(&["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')", "NULL"])),
    ];
    let labels: Vec<String> = (0..64).map(|index| format!("'m{index}'")).collect();
    columns
        .push((Box::leak(format!("s64 set({})", labels.join(",")).into_boxed_str()), list(&["'m0,m63'", "-1", "0"])));
    let labels: Vec<String> = (0..300).map(|index| format!("'e{index}'")).collect();
    columns.push((Box::leak(format!("e300 enum({})", labels.join(",")).into_boxed_str()), list(&["'e0'", "'e299'"])));
    if server.is_mariadb() {
        columns.extend([
            ("inv int invisible", list(&["7", "NULL"])),
            ("j json", list(&["'{\"a\":  1}'", "'[1,2]'", "NULL"])),
            (
                "u uuid",
                list(&[
                    "'12345678-2e1b-11eb-9a9d-0242ac130002'",
                    "'00000000-0000-0000-0000-000000000000'",
                    "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                    "'f47ac10b-58cc-4372-a567-0e02b2c3d400'",
                    "'018f3b2e-9c4a-7def-8abc-0123456789ab'",
                    "'320c3d4d-cc00-875b-8ec9-32d5f69181c0'",
                    "'12345678-0000-1000-8000-000000000000'",
                    "'00000001-0000-4000-0000-000000000000'",
                    "NULL",
                ]),
            ),
            (
                "i6 inet6",
                list(&[
                    "'1::'",
                    "'::1'",
                    "'2001:db8::ff00:42:8329'",
                    "'::ffff:192.0.2.1'",
                    "'::1.2.3.4'",
                    "'1:0:2:3:0:0:4:5'",
                    "'1:0:3:4:5:6:7:8'",
                    "'0:1:2:3:4:5:6:0'",
                    "'::'",
                    "NULL",
                ]),
            ),
            ("i4 inet4", list(&["'192.0.2.0'", "'0.0.0.0'", "'255.255.255.255'", "NULL"])),
        ]);
    } else {
        columns.extend([
            ("inv int invisible", list(&["7", "NULL"])),
            ("j json", json_values()),
            ("vec vector(3)", list(&["string_to_vector('[1,2,3.5]')", "NULL"])),
            ("g4 point srid 4326", list(&["ST_GeomFromText('POINT(10 20)', 4326)", "NULL"])),
        ]);
    }
    columns
}

fn json_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "NULL",
        "'null'",
        "'true'",
        "'[]'",
        "'{}'",
        "'[1, -1, 32767, 65535, -2147483648, 4294967295, -9223372036854775808, 18446744073709551615]'",
        "'\"\"'",
        r#"'{"b": 1, "aa": "x\\"y\\\\z\\n\\t\\u0001\\u007f", "a": [{}, {"é": "🍣"}]}'"#,
        "'[1e300, 1.0, 0.1, -0.0, 1e15, 1e14, 123456789012345680, 1e-15, 1e-16, 5e-324, 2.2250738585072014e-308]'",
        "json_object('d', cast('123.4500' as decimal(10,4)), 'n', cast('-0.5' as decimal(10,4)), 'w', cast(12345678901234567890123456789 as decimal(40,5)))",
        "json_array(cast('2024-02-29' as date), cast('-12:34:56.5' as time(1)), cast('2024-03-02 13:05:06.000001' as datetime(6)), cast('838:59:59' as time))",
        "json_array(cast('abc' as binary), cast(repeat('x', 200) as binary), st_geomfromtext('POINT(1 2)'))",
        "json_array(b'101', cast(2024 as year))",
        "json_object('k', repeat('y', 70000), 'n', 70000, 'm', -70000, 'big', 5000000000)",
        "json_array(from_unixtime(1700000000), from_unixtime(1700000000.25))",
    ]
    .iter()
    .map(|value| (*value).to_owned())
    .collect();
    let deep = format!("'{}{}'", "[".repeat(99), "]".repeat(99));
    values.push(deep);
    let wide: Vec<String> =
        (0..3000).map(|index| format!("\\\"key{index}\\\": [{index}, {}]", index * 100_000)).collect();
    values.push(format!("'{{{}}}'", wide.join(", ").replace("\\\"", "\"")));
    values
}

fn insert(table: &str, id: usize, columns: &[(&str, Vec<String>)]) -> String {
    let mut names = vec!["id".to_owned()];
    let mut values = vec![id.to_string()];
    for (definition, list) in columns {
        if list.is_empty() {
            continue;
        }
        let name = if definition.starts_with('`') {
            "`select ``q```"
        } else {
            definition.split(' ').next().unwrap_or_default()
        };
        names.push(name.to_owned());
        values.push(list[id % list.len()].clone());
    }
    format!("insert into {table} ({}) values ({})", names.join(", "), values.join(", "))
}

/// T-0 over M-1 to M-24: every type, snapshot equals stream, array by array. (Values and lake: tests/types/.)
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_row_equals_the_same_row_read_by_a_snapshot() {
    let _held = SERVERS.read().await;
    for server in servers("types") {
        let label = if server.is_mariadb() { "MariaDB" } else { "MySQL" };
        let mut app = server.app().await;
        run(&mut app, "drop database if exists lw_types").await;
        run(&mut app, "create database lw_types character set utf8mb4").await;
        run(&mut app, "use lw_types").await;
        run(&mut app, "set sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+09:00'").await;
        let columns = columns(server);
        let definitions: Vec<&str> = columns.iter().map(|(definition, _)| *definition).collect();
        for table in ["loaded", "streamed"] {
            run(&mut app, &format!("create table {table} (id int primary key, {})", definitions.join(", "))).await;
        }
        let rows_count = 40;
        for id in 0..rows_count {
            run(&mut app, &insert("loaded", id, &columns)).await;
        }
        let source = source(server, &["lw_types.*"], 70_001);
        let (loaded, _) = snapshot(&source, &TableName::new("lw_types", "loaded")).await;
        assert_eq!(loaded.num_rows(), rows_count, "{label}");

        let from = source.head().await.expect("a head");
        for id in 0..rows_count {
            run(&mut app, &insert("streamed", id, &columns)).await;
        }
        let schema = schema_of(&source, "streamed").await;
        let events = stream(&source, &schema, from, CollectorLimits::default()).await;
        let (streamed, ops) = rows(&events, &schema);
        assert!(ops.iter().all(|op| *op == Op::Insert), "{label}");
        assert_same(label, &loaded, &streamed);
        // Both could be wrong in the same way: some values as they must be.
        let shown = arrow::util::display::ArrayFormatter::try_new(
            streamed.column_by_name("vl").expect("the column").as_ref(),
            &Default::default(),
        );
        assert_eq!(shown.expect("formats").value(0).to_string(), "café€", "{label}");

        // Deletes carry the whole old row, updates the new one: the same decoders, the same values.
        let from = source.head().await.expect("a head");
        run(&mut app, "update streamed set inv = 8").await;
        run(&mut app, "delete from streamed").await;
        let events = stream(&source, &schema, from, CollectorLimits::default()).await;
        let (changed, ops) = rows(&events, &schema);
        assert_eq!(ops.iter().filter(|op| **op == Op::Update).count(), rows_count, "{label}");
        assert_eq!(ops.iter().filter(|op| **op == Op::Delete).count(), rows_count, "{label}");
        assert_eq!(changed.slice(0, rows_count).columns()[..40], changed.slice(rows_count, rows_count).columns()[..40]);
        run(&mut app, "drop database lw_types").await;
    }
}

/// M-17: doubles in JSON print as the server prints them.
#[tokio::test(flavor = "multi_thread")]
async fn random_doubles_in_json_print_as_the_server_prints_them() {
    let _held = SERVERS.read().await;
    for server in servers("JSON doubles").into_iter().filter(|server| !server.is_mariadb()) {
        let mut app = server.app().await;
        run(&mut app, "drop database if exists lw_json").await;
        run(&mut app, "create database lw_json").await;
        run(&mut app, "use lw_json").await;
        run(&mut app, "create table streamed (id int primary key, j json)").await;
        let source = source(server, &["lw_json.*"], 70_003);
        let from = source.head().await.expect("a head");
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut doubles = Vec::new();
        while doubles.len() < 2000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let value = match doubles.len() % 4 {
                0 => f64::from_bits(random),
                1 => (random as f64) / 1e9,
                2 => (random % 1_000_000) as f64 / 1000.0,
                _ => (random as u32 as f64) * 10_f64.powi((random >> 58) as i32 - 32),
            };
            if value.is_finite() {
                doubles.push(value);
            }
        }
        let values: Vec<String> =
            doubles.iter().enumerate().map(|(id, value)| format!("({id}, json_array({value:e}))")).collect();
        run(&mut app, &format!("insert into streamed values {}", values.join(","))).await;
        let schema = schema_of(&source, "streamed").await;
        let events = stream(&source, &schema, from, CollectorLimits::default()).await;
        let (streamed, _) = rows(&events, &schema);
        let (loaded, _) = snapshot(&source, &schema.name).await;
        assert_same("JSON doubles", &loaded, &streamed);
        run(&mut app, "drop database lw_json").await;
    }
}

/// One line per event that matters: `insert 1 a`, `boundary`, …
fn story(events: &[Event]) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        match event {
            Event::Rows(rows) => {
                for (row, op) in rows.ops.iter().enumerate() {
                    let shown: Vec<String> = rows
                        .rows
                        .columns()
                        .iter()
                        .map(|column| {
                            let formatter =
                                arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &Default::default());
                            formatter.expect("formats").value(row).to_string()
                        })
                        .collect();
                    lines.push(format!("{op:?} {}", shown.join(" ")));
                }
            }
            Event::Truncate(table) => lines.push(format!("Truncate {table}")),
            Event::SchemaChange(change) => {
                let steps: Vec<String> = change.steps.iter().map(ToString::to_string).collect();
                lines.push(format!("SchemaChange {}: {}", change.table, steps.join("; ")));
            }
            Event::TableDropped { table, .. } => lines.push(format!("Dropped {table}")),
            Event::TableAppeared { table, .. } => lines.push(format!("Appeared {table}")),
            Event::Rollback => lines.push("Rollback".to_owned()),
            Event::Prepared { xid, .. } => lines.push(format!("Prepared {xid}")),
            Event::Decided { xid, commit, .. } => lines.push(format!("Decided {xid} {commit}")),
            Event::TableStopped { error, .. } => lines.push(format!("Stopped {error}")),
            Event::Layout { .. } | Event::Boundary { .. } => {}
        }
    }
    lines
}

async fn fresh(server: Server, database: &str) -> Conn {
    let mut app = server.app().await;
    run(&mut app, &format!("drop database if exists {database}")).await;
    run(&mut app, &format!("create database {database}")).await;
    run(&mut app, &format!("use {database}")).await;
    run(&mut app, "create table t (id int primary key, v varchar(20)) engine=InnoDB").await;
    run(&mut app, "create table other (id int primary key, v varchar(20)) engine=InnoDB").await;
    app
}

/// X-1 to X-8, K-2: what transactions, savepoints, key changes and TRUNCATE come as.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_come_whole_and_in_order() {
    let _held = SERVERS.read().await;
    for server in servers("transactions") {
        let mut app = fresh(server, "lw_events").await;
        let source = source(server, &["lw_events.t"], 70_004);
        let from = source.head().await.expect("a head");
        for statement in [
            "insert into t values (1, 'a'), (2, 'b')",
            "update t set v = 'A' where id = 1",
            "update t set id = 3 where id = 2",
            "insert into other values (1, 'x')",
            "begin",
            "insert into t values (4, 'd')",
            "insert into other values (2, 'y')",
            "savepoint s",
            "insert into t values (5, 'lost')",
            "rollback to s",
            "insert into t values (6, 'f')",
            "commit",
            "begin",
            "insert into t values (7, 'lost')",
            "rollback",
            "delete from t where id = 1",
            "truncate table t",
            "insert into t values (1, 'z')",
            "TRUNCATE other",
            "/* x */ truncate `lw_events`.`t`",
            "alter table t comment 'no effect'",
            "insert into t values (9, 'last')",
            "flush tables",
            "insert into t values (10, 'after flush')",
        ] {
            run(&mut app, statement).await;
        }
        let schema = schema_of(&source, "t").await;
        let events = stream(&source, &schema, from.clone(), CollectorLimits::default()).await;
        let expected = [
            "Insert 1 a",
            "Insert 2 b",
            "Update 1 A",
            "UpdateOldKey 2 b",
            "UpdateNewKey 3 b",
            "Insert 4 d",
            "Insert 6 f",
            "Delete 1 A",
            "Truncate lw_events.t",
            "Insert 1 z",
            "Truncate lw_events.t",
            "Insert 9 last",
            "Insert 10 after flush",
        ];
        assert_eq!(story(&events), expected);
        let transactions: u64 = events
            .iter()
            .map(|event| if let Event::Boundary { transactions, .. } = event { *transactions } else { 0 })
            .sum();
        assert!(transactions >= 12, "transactions of other tables count too: {transactions}");

        // Tiny limits tear transactions apart, and change nothing else.
        let limits = CollectorLimits { rows_max: 1, bytes_max: 1, age_max: Duration::ZERO };
        assert_eq!(story(&stream(&source, &schema, from.clone(), limits).await), expected);

        // From every boundary on, the rest and only the rest comes.
        let mut seen = 0;
        let torn = stream(&source, &schema, from, limits).await;
        for (index, event) in torn.iter().enumerate() {
            if let Event::Boundary { position, .. } = event {
                seen += 1;
                let rest = stream(&source, &schema, position.clone(), CollectorLimits::default()).await;
                assert_eq!(story(&rest), story(&torn[index + 1..]), "after {position}");
                if seen > 12 {
                    break;
                }
            }
        }
        run(&mut app, "drop database lw_events").await;
    }
}

/// A table that already holds later transactions does not get them again.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_a_table_has_are_skipped() {
    let _held = SERVERS.read().await;
    for server in servers("skipping") {
        let mut app = fresh(server, "lw_skip").await;
        let source = source(server, &["lw_skip.t"], 70_005);
        let from = source.head().await.expect("a head");
        run(&mut app, "insert into t values (1, 'in the snapshot')").await;
        run(&mut app, "truncate table t").await;
        run(&mut app, "insert into t values (2, 'in the snapshot too')").await;
        let (loaded, position) = snapshot(&source, &TableName::new("lw_skip", "t")).await;
        assert_eq!(loaded.num_rows(), 1);
        run(&mut app, "insert into t values (3, 'new')").await;
        let schema = schema_of(&source, "t").await;
        let head = source.head().await.expect("a head");
        let start =
            TableStart { schema: Arc::new(schema.clone()), position, layout: None, ignored: Default::default() };
        let (_keep, durable) = watch::channel(from.clone());
        let stop = CancellationToken::new();
        let request = StreamRequest {
            from,
            tables: HashMap::from([(schema.name.clone(), start)]),
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
                    stop.cancel();
                    break;
                }
            }
            gathered
        };
        let (ended, gathered) = tokio::join!(source.stream(request, out), gather);
        ended.expect("the stream ends well");
        assert_eq!(story(&gathered), ["Insert 3 new"]);
        run(&mut app, "drop database lw_skip").await;
    }
}

/// D-17, X-12, X-13, K-3, K-6: what can't be applied stops the table with a definite error, and only it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_stops_the_table() {
    let _held = SERVERS.read().await;
    for server in servers("stopping") {
        let cases: Vec<(&str, &[&str], &str)> = vec![
            (
                "added column",
                &["alter table t add column n int", "insert into t values (1,'a',1)"],
                "column `n` is new",
            ),
            ("dropped column", &["alter table t drop column v", "insert into t values (1)"], "column `v` is gone"),
            (
                "changed type",
                &["alter table t modify id bigint", "insert into t values (1,'a')"],
                "column `id` is long",
            ),
            ("dropped", &["drop table t"], "Dropped lw_stop.t"),
            ("renamed", &["rename table t to t2"], "Dropped lw_stop.t"),
            ("renamed by alter", &["alter table t rename to t2"], "Dropped lw_stop.t"),
            (
                "minimal image",
                &["insert into t values (1,'a')", "set session binlog_row_image = minimal", "update t set v = 'b'"],
                "binlog_row_image",
            ),
            ("statement", &["set session binlog_format = statement", "insert into t values (1,'a')"], "binlog_format"),
            ("database", &["drop database lw_stop"], "Dropped lw_stop.t"),
        ];
        for (case, statements, wanted) in cases {
            let mut app = fresh(server, "lw_stop").await;
            let source = source(server, &["lw_stop.t"], 70_006);
            let schema = schema_of(&source, "t").await;
            let from = source.head().await.expect("a head");
            let mut app_other = server.app().await;
            for statement in statements {
                run(&mut app, statement).await;
            }
            if case != "database" {
                run(&mut app_other, "insert into lw_stop.other values (1, 'goes on')").await;
            }
            let events = stream(&source, &schema, from, CollectorLimits::default()).await;
            let story = story(&events);
            let last = story.last().cloned().unwrap_or_default();
            if wanted.starts_with("Dropped") {
                assert_eq!(last, wanted, "{case}: {story:#?}");
            } else {
                assert!(last.starts_with("Stopped") && last.contains(wanted), "{case}: {story:#?}");
                assert!(last.contains("lakeward resync"), "{case}: {last}");
            }
            run(&mut app, "drop database if exists lw_stop").await;
        }
    }
}

/// Keys by contract and by unique index, excluded columns, hidden hash columns (M-24), generated and invisible columns.
#[tokio::test(flavor = "multi_thread")]
async fn discovery_finds_keys_and_applies_contracts() {
    let _held = SERVERS.read().await;
    for server in servers("discovery") {
        let mut app = fresh(server, "lw_find").await;
        run(&mut app, "create table u (a int, b int not null, c varchar(9) not null, s varchar(9), unique k1 (a), unique k2 (b, c))").await;
        run(&mut app, "create table nokey (a int, secret int)").await;
        run(&mut app, "create view w as select 1 as x").await;
        let contract = |table: &str, key: &[&str], exclude: &[&str]| Contract {
            table: table.into(),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
            ..Contract::default()
        };
        let contracts =
            Contracts::new(vec![contract("lw_find.u", &[], &["s"]), contract("lw_find.nokey", &["a"], &["secret"])]);
        let source =
            MySqlSource::new(server.config(&["lw_find.*", "!lw_find.other"], 70_007), contracts).expect("valid");
        let found = source.discover().await.expect("discover");
        let names: Vec<&str> = found.iter().map(|schema| schema.name.table.as_str()).collect();
        assert_eq!(names, ["nokey", "t", "u"]);
        assert_eq!(found[2].key, [1, 2]);
        assert!(!found[2].columns[1].nullable && found[2].columns[0].nullable);
        assert_eq!(found[0].key, [0]);
        let from = source.head().await.expect("a head");
        run(&mut app, "insert into u values (1, 2, 'c', 'hidden')").await;
        run(&mut app, "update u set c = 'd'").await;
        let events = stream(&source, &found[2], from, CollectorLimits::default()).await;
        assert_eq!(story(&events), ["Insert 1 2 c", "UpdateOldKey 1 2 c", "UpdateNewKey 1 2 d"]);
        if server.is_mariadb() {
            run(&mut app, "create table h (id int primary key, x text, unique (x) using hash)").await;
            let schema = schema_of(&source, "h").await;
            let from = source.head().await.expect("a head");
            run(&mut app, "insert into h values (1, 'long')").await;
            let events = stream(&source, &schema, from, CollectorLimits::default()).await;
            assert_eq!(story(&events), ["Insert 1 long"]);
        }
        run(&mut app, "drop database lw_find").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_names_every_problem_and_its_remedy() {
    let _held = SERVERS.read().await;
    for server in servers("preflight") {
        let mut app = fresh(server, "lw_pre").await;
        let good = source(server, &["lw_pre.t"], 70_008);
        let problems = good.preflight().await.expect("preflight");
        assert!(problems.iter().all(|problem| problem.kind == ProblemKind::Warning), "{problems:#?}");

        run(&mut app, "create table nokey (a int) engine=MyISAM").await;
        run(
            &mut app,
            "create table child (id int primary key, p int, foreign key fk (p) references t (id) on delete cascade)",
        )
        .await;
        run(&mut app, "create user if not exists lw_weak identified by 'weak'").await;
        run(&mut app, "grant select on lw_pre.nokey to lw_weak").await;
        let problems = source(server, &["lw_pre.*"], 70_008).preflight().await.expect("preflight");
        assert!(
            problems.iter().any(|p| p.subject.contains("nokey") && p.finding.contains("multiset")),
            "{problems:#?}"
        );
        assert!(problems.iter().any(|p| p.finding.contains("MyISAM")), "{problems:#?}");
        let cascade = problems.iter().any(|p| p.finding.contains("ON DELETE CASCADE"));
        assert_eq!(cascade, server.is_mariadb(), "{problems:#?}");

        let mut config = server.config(&["lw_pre.*"], 70_008);
        config.user = "lw_weak".into();
        config.password = Some(Secret::new("weak"));
        let weak = MySqlSource::new(config.clone(), Contracts::default()).expect("valid");
        let problems = weak.preflight().await.expect("preflight");
        assert!(
            problems.iter().any(|p| p.remedy.contains("GRANT REPLICATION SLAVE ON *.* TO 'lw_weak'@'%'")),
            "{problems:#?}"
        );

        config.password = Some(Secret::new("wrong"));
        let wrong = MySqlSource::new(config.clone(), Contracts::default()).expect("valid");
        let error = wrong.head().await.expect_err("a wrong password");
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        config.port = 1;
        let nobody = MySqlSource::new(config, Contracts::default()).expect("valid");
        let error = nobody.head().await.expect_err("nobody there");
        assert!(matches!(error, Error::Connect { .. }), "{error}");
        run(&mut app, "drop user lw_weak").await;
        run(&mut app, "drop database lw_pre").await;
    }
}

/// R-4, R-5, R-6, R-7: positions that can't be read any more are told as lost.
#[tokio::test(flavor = "multi_thread")]
async fn lost_positions_are_definite() {
    let _held = SERVERS.read().await;
    for server in servers("positions") {
        let mut app = fresh(server, "lw_lost").await;
        let source = source(server, &["lw_lost.t"], 70_009);
        let head = source.head().await.expect("a head");
        assert!(source.prepare(&[], None).await.expect("prepare").covers(&head));
        assert_eq!(source.prepare(&[], Some(&head)).await.expect("prepare"), head);
        let unknown: Vec<&str> = if server.is_mariadb() {
            vec!["mariadb:7-1-5", "mariadb:0-1-999999999", "mysql:", "binlog:binlog.999999:4"]
        } else {
            vec!["mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "mariadb:0-1-1", "binlog:binlog.999999:4"]
        };
        for position in unknown {
            let position: Position = position.parse().expect("well formed");
            let error = source.prepare(&[], Some(&position)).await.expect_err("lost");
            assert!(matches!(error, Error::PositionLost { .. }), "{position}: {error}");
        }
        run(&mut app, "insert into t values (1, 'a')").await;
        run(&mut app, "drop database lw_lost").await;
    }
}

/// R-3, R-6: rotation, tagged GTIDs, every way to connect; a transaction larger than the limits.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_followed_over_rotations_and_by_every_connection() {
    let _held = SERVERS.read().await;
    for server in servers("connections") {
        let mut app = fresh(server, "lw_ways").await;
        let plain = source(server, &["lw_ways.t"], 70_011);
        let from = plain.head().await.expect("a head");
        run(&mut app, "insert into t values (1, 'a')").await;
        run(&mut app, "flush binary logs").await;
        run(&mut app, "insert into t values (2, 'b')").await;
        let gtids = if server.is_mariadb() {
            String::new()
        } else {
            app.query_first("select @@global.gtid_mode").await.expect("a mode").unwrap_or_default()
        };
        if gtids == "ON" {
            run(&mut app, "set gtid_next = 'AUTOMATIC:nightly'").await;
        }
        run(&mut app, "insert into t values (3, 'c')").await;
        if gtids == "ON" {
            run(&mut app, "set gtid_next = 'AUTOMATIC'").await;
        }
        run(&mut app, "begin").await;
        for id in 10..60 {
            run(&mut app, &format!("insert into t values ({id}, repeat('x', 20))")).await;
        }
        run(&mut app, "commit").await;
        let schema = schema_of(&plain, "t").await;
        let mut stories = Vec::new();
        for tls in [Tls::Disable, Tls::Prefer, Tls::Require] {
            if tls == Tls::Require && server.is_mariadb() {
                continue;
            }
            let mut config = server.config(&["lw_ways.t"], 70_012);
            config.tls = tls;
            let source = MySqlSource::new(config, Contracts::default()).expect("valid");
            let limits = CollectorLimits { rows_max: 20, ..CollectorLimits::default() };
            let events = stream(&source, &schema, from.clone(), limits).await;
            let (loaded, position) = snapshot(&source, &schema.name).await;
            assert_eq!(loaded.num_rows(), 53);
            let rest = stream(&source, &schema, position.clone(), limits).await;
            assert_eq!(story(&rest), Vec::<String>::new(), "after {position}");
            stories.push(story(&events));
        }
        assert_eq!(stories[0].len(), 53);
        assert_eq!(stories[0][..3], ["Insert 1 a", "Insert 2 b", "Insert 3 c"]);
        assert!(stories.iter().all(|story| *story == stories[0]));
        run(&mut app, "drop database lw_ways").await;
    }
}

/// R-4, R-9, R-10: an idle server is heard by its heartbeats, a second reader with the same id is told apart from a lost
/// connection, a purged log is told as lost.
#[tokio::test(flavor = "multi_thread")]
async fn idle_kicked_and_purged_readers_know_why() {
    let _held = SERVERS.write().await;
    for server in servers("readers") {
        let mut app = fresh(server, "lw_idle").await;
        let source = source(server, &["lw_idle.t"], 70_015);
        let schema = schema_of(&source, "t").await;
        let from = source.head().await.expect("a head");
        let reading = |out: mpsc::Sender<Event>, stop: CancellationToken| {
            let start = TableStart {
                schema: Arc::new(schema.clone()),
                position: from.clone(),
                layout: None,
                ignored: Default::default(),
            };
            let (_, durable) = watch::channel(from.clone());
            let request = StreamRequest {
                from: from.clone(),
                tables: HashMap::from([(schema.name.clone(), start)]),
                durable,
                limits: CollectorLimits::default(),
                stop,
            };
            source.stream(request, out)
        };
        let (out, mut events) = mpsc::channel(1000);
        let caught_up = async {
            loop {
                if let Some(Event::Boundary { caught_up: true, .. }) = events.recv().await {
                    return true;
                }
            }
        };
        tokio::select! {
            ended = reading(out, CancellationToken::new()) => panic!("{ended:?}"),
            heard = tokio::time::timeout(Duration::from_secs(15), caught_up) => assert!(heard.expect("a heartbeat")),
        }

        let (out, _events) = mpsc::channel(1000);
        let (second_out, _second_events) = mpsc::channel(1000);
        let later = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            reading(second_out, CancellationToken::new()).await
        };
        let kicked = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                first = reading(out, CancellationToken::new()) => first,
                second = later => second,
            }
        });
        let error = kicked.await.expect("one of them ends").expect_err("kicked");
        assert!(error.to_string().contains("server_id"), "{error}");

        run(&mut app, "insert into t values (1, 'a')").await;
        run(&mut app, "flush binary logs").await;
        let logs: Vec<mysql_async::Row> = app.query("show binary logs").await.expect("logs");
        let last: String = logs.last().and_then(|row| row.get(0)).expect("a log");
        // A log that a reader still holds is not purged, without an error.
        for _ in 0..40 {
            run(&mut app, &format!("purge binary logs to '{last}'")).await;
            let logs: Vec<mysql_async::Row> = app.query("show binary logs").await.expect("logs");
            if logs.first().and_then(|row| row.get::<String, _>(0)).as_ref() == Some(&last) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let (out, _events) = mpsc::channel(1000);
        let ended = tokio::time::timeout(Duration::from_secs(20), reading(out, CancellationToken::new())).await;
        let error = ended.expect("it ends").expect_err("purged");
        assert!(matches!(error, Error::PositionLost { .. }), "{error}");
        run(&mut app, "drop database lw_idle").await;
    }
}

/// S-1: without RELOAD the captured tables are locked for the moment instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_needs_no_reload_privilege() {
    let _held = SERVERS.read().await;
    for server in servers("privileges") {
        let mut app = fresh(server, "lw_modest").await;
        run(&mut app, "insert into t values (1, 'a')").await;
        run(&mut app, "create user if not exists lw_modest identified by 'modest'").await;
        let monitor = if server.is_mariadb() { "binlog monitor" } else { "replication client" };
        run(&mut app, &format!("grant select, lock tables, replication slave, {monitor} on *.* to lw_modest")).await;
        let mut config = server.config(&["lw_modest.t"], 70_014);
        config.user = "lw_modest".into();
        config.password = Some(Secret::new("modest"));
        let modest = MySqlSource::new(config, Contracts::default()).expect("valid");
        let (loaded, position) = snapshot(&modest, &TableName::new("lw_modest", "t")).await;
        assert_eq!(loaded.num_rows(), 1);
        run(&mut app, "insert into t values (2, 'b')").await;
        let schema = schema_of(&modest, "t").await;
        let events = stream(&modest, &schema, position, CollectorLimits::default()).await;
        assert_eq!(story(&events), ["Insert 2 b"]);
        assert!(modest.preflight().await.expect("preflight").iter().all(|p| p.kind == ProblemKind::Warning));
        run(&mut app, "drop user lw_modest").await;
        run(&mut app, "drop database lw_modest").await;
    }
}

/// S-4 in small: under six writers the snapshot and the log after its position together are the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_writers_meets_the_log_exactly() {
    let _held = SERVERS.read().await;
    for server in servers("hand-off") {
        let mut app = fresh(server, "lw_race").await;
        for id in 0..50 {
            run(&mut app, &format!("insert into t values ({id}, '0')")).await;
        }
        let stop = CancellationToken::new();
        let mut writers = Vec::new();
        for writer in 0..6_u32 {
            let stop = stop.clone();
            writers.push(tokio::spawn(async move {
                let mut conn = server.app().await;
                let mut step = 0_u32;
                while !stop.is_cancelled() {
                    step += 1;
                    let id = 1000 * (writer + 1) + step % 50;
                    let _ = conn.query_drop(format!("replace into lw_race.t values ({id}, '{step}')")).await;
                    if step.is_multiple_of(5) {
                        let _ = conn.query_drop(format!("delete from lw_race.t where id = {id}")).await;
                    }
                }
            }));
        }
        let source = source(server, &["lw_race.t"], 70_010);
        let name = TableName::new("lw_race", "t");
        let mut snapshots = Vec::new();
        for _ in 0..10 {
            snapshots.push(snapshot(&source, &name).await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        stop.cancel();
        for writer in writers {
            writer.await.expect("writers end");
        }
        let (end, _) = snapshot(&source, &name).await;
        let schema = schema_of(&source, "t").await;
        let lines = |batch: &RecordBatch| {
            let formatters: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| {
                    arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &Default::default())
                        .expect("formats")
                })
                .collect();
            (0..batch.num_rows())
                .map(|row| (formatters[0].value(row).to_string(), formatters[1].value(row).to_string()))
                .collect::<Vec<_>>()
        };
        let expected: HashMap<String, String> = lines(&end).into_iter().collect();
        for (start, position) in snapshots {
            let mut table: HashMap<String, String> = lines(&start).into_iter().collect();
            let events = stream(&source, &schema, position.clone(), CollectorLimits::default()).await;
            for event in &events {
                let Event::Rows(rows) = event else { continue };
                for ((id, value), op) in lines(&rows.rows).into_iter().zip(&rows.ops) {
                    match op {
                        Op::Insert => assert!(table.insert(id, value).is_none(), "inserted twice after {position}"),
                        Op::Update => assert!(table.insert(id, value).is_some(), "update of nothing after {position}"),
                        Op::Delete => assert!(table.remove(&id).is_some(), "delete of nothing after {position}"),
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(table, expected, "after {position}");
        }
        run(&mut app, "drop database lw_race").await;
    }
}
