//! A PostgreSQL database of one test and the stream that follows it: `LAKEWARD_TEST_POSTGRES_PORT` names the port of a server
//! with superuser postgres/postgres and role cdc/cdc (LOGIN REPLICATION), as `scripts/server.sh start postgres` makes it.
//!
//! The role cdc has hostile defaults (P-0), and each test has a database of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use lakeward::config::{Contracts, DatabaseKind, Secret, SourceConfig, TableSelection, Tls};
use lakeward::schema::{TableName, TableRows, TableSchema};
use lakeward::source::postgres::PostgresSource;
use lakeward::source::{CollectorLimits, Error, Event, Position, SnapshotEvent, Source, StreamRequest, TableStart};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// `None`, and a loud line, when no server is given.
pub fn port(test: &str) -> Option<u16> {
    let port = std::env::var("LAKEWARD_TEST_POSTGRES_PORT").ok().and_then(|port| port.parse().ok());
    if port.is_none() {
        eprintln!("SKIPPED {test}: LAKEWARD_TEST_POSTGRES_PORT is not set");
    }
    port
}

pub async fn admin(port: u16, database: &str) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("postgres")
        .password("postgres")
        .database(database);
    PgConnection::connect_with(&options).await.expect("the superuser connects")
}

pub async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A fresh database and the source that follows it.
pub struct Bed {
    pub port: u16,
    pub database: String,
    pub admin: PgConnection,
    pub config: SourceConfig,
    pub contracts: Contracts,
}

impl Bed {
    /// `None` without a server. `setup` runs as the superuser; its tables then belong to cdc.
    pub async fn new(test: &str, setup: &str) -> Option<Self> {
        let port = port(test)?;
        let database = format!("lw_{test}");
        let database = database[..database.len().min(50)].to_owned();
        let mut root = admin(port, "postgres").await;
        // Tests run side by side, and ALTER ROLE on one role can't: one transaction, so the lock lasts until it is done.
        run(
            &mut root,
            "SELECT pg_advisory_xact_lock(7); DO $$ BEGIN
            ALTER ROLE cdc SET datestyle = 'SQL, DMY';
            ALTER ROLE cdc SET timezone = 'Asia/Tokyo';
            ALTER ROLE cdc SET intervalstyle = 'postgres_verbose';
            ALTER ROLE cdc SET bytea_output = 'escape';
            ALTER ROLE cdc SET extra_float_digits = 0;
            END $$",
        )
        .await;
        let slots: Vec<String> = sqlx::query_scalar(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1 AND NOT temporary",
        )
        .bind(&database)
        .fetch_all(&mut root)
        .await
        .expect("slots");
        for slot in slots {
            run(&mut root, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        }
        run(&mut root, &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await;
        run(&mut root, &format!("CREATE DATABASE {database}")).await;
        let mut admin = admin(port, &database).await;
        // So that what was committed is in the log's written part at once, whatever the server's setting.
        run(&mut admin, "SET synchronous_commit = on").await;
        run(
            &mut admin,
            &format!(
                "GRANT CREATE ON DATABASE {database} TO cdc; CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO cdc"
            ),
        )
        .await;
        run(&mut admin, setup).await;
        run(
            &mut admin,
            "DO $$ DECLARE t regclass; BEGIN
            FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'p') LOOP
                EXECUTE format('ALTER TABLE %s OWNER TO cdc', t);
            END LOOP; END $$",
        )
        .await;
        let config = SourceConfig {
            name: test.to_owned(),
            kind: DatabaseKind::Postgres,
            host: "127.0.0.1".into(),
            port,
            user: "cdc".into(),
            password: Some(Secret::new("cdc")),
            database: database.clone(),
            tls: Tls::Prefer,
            tls_ca_file: None,
            tables: TableSelection::parse(&["shop.*"]).expect("valid"),
            server_id: 1,
            slot: format!("lakeward_{test}"),
            publication: format!("lakeward_{test}"),
            on_lost_position: lakeward::config::OnLostPosition::Stop,
        };
        Some(Self { port, database, admin, config, contracts: Contracts::default() })
    }

    pub fn source(&self) -> PostgresSource {
        PostgresSource::new(self.config.clone(), self.contracts.clone()).expect("a PostgreSQL source")
    }

    pub async fn sql(&mut self, sql: &str) {
        run(&mut self.admin, sql).await;
    }

    /// Discovers, prepares and reads all tables.
    pub async fn load(&mut self) -> (Position, HashMap<TableName, Loaded>) {
        let source = self.source();
        let schemas = source.discover().await.expect("discover");
        let names: Vec<TableName> = schemas.iter().map(|schema| schema.name.clone()).collect();
        let from = source.prepare(&names, None).await.expect("prepare");
        (from, snapshot(&source, &names).await.expect("snapshot"))
    }

    pub async fn stream(&self, from: &Position, tables: &HashMap<TableName, Loaded>) -> Stream {
        Stream::start(self.source(), from, tables)
    }
}

pub struct Loaded {
    pub schema: Arc<TableSchema>,
    pub position: Position,
    pub rows: RecordBatch,
}

pub async fn snapshot(source: &PostgresSource, names: &[TableName]) -> Result<HashMap<TableName, Loaded>, Error> {
    let (out, mut events) = mpsc::channel(4);
    let collecting = async {
        let mut tables = HashMap::new();
        let mut open: Option<(Arc<TableSchema>, Position, Vec<RecordBatch>)> = None;
        while let Some(event) = events.recv().await {
            match event {
                SnapshotEvent::Table { schema, position, .. } => open = Some((schema, position, Vec::new())),
                SnapshotEvent::Rows { rows, .. } => open.as_mut().expect("a table first").2.push(rows),
                SnapshotEvent::TableDone => {
                    let (schema, position, batches) = open.take().expect("a table first");
                    let rows = concat_batches(&schema.arrow(), &batches).expect("one schema");
                    tables.insert(schema.name.clone(), Loaded { schema, position, rows });
                }
            }
        }
        assert!(open.is_none(), "a table without its end");
        tables
    };
    let (result, tables) = tokio::join!(source.snapshot(names, out), collecting);
    result.map(|()| tables)
}

/// A running stream and what came out of it.
pub struct Stream {
    pub events: mpsc::Receiver<Event>,
    pub durable: watch::Sender<Position>,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), Error>>,
    pub source: PostgresSource,
}

impl Stream {
    pub fn start(source: PostgresSource, from: &Position, tables: &HashMap<TableName, Loaded>) -> Self {
        let (out, events) = mpsc::channel(64);
        let (durable, durable_receiver) = watch::channel(from.clone());
        let stop = CancellationToken::new();
        let request = StreamRequest {
            from: from.clone(),
            tables: tables
                .iter()
                .map(|(name, table)| {
                    (
                        name.clone(),
                        TableStart {
                            schema: table.schema.clone(),
                            position: table.position.clone(),
                            layout: None,
                            ignored: Default::default(),
                        },
                    )
                })
                .collect(),
            durable: durable_receiver,
            limits: CollectorLimits::default(),
            stop: stop.clone(),
        };
        let streaming = source.clone();
        let task = tokio::spawn(async move { streaming.stream(request, out).await });
        Self { events, durable, stop, task, source }
    }

    /// Everything up to a boundary that covers what the server has committed now.
    pub async fn caught_up(&mut self) -> (Vec<Event>, Position) {
        let head = self.source.head().await.expect("head");
        let mut seen = Vec::new();
        let reading = async {
            loop {
                let Some(event) = self.events.recv().await else { break None };
                let reached = match &event {
                    Event::Boundary { position, .. } if position.covers(&head) => Some(position.clone()),
                    _ => None,
                };
                seen.push(event);
                if reached.is_some() {
                    break reached;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Some(position)) => (seen, position),
            Ok(None) => panic!("the stream ended: {:?}", (&mut self.task).await),
            Err(_) => panic!("no boundary covers {head}; seen: {seen:?}"),
        }
    }

    /// What a stream that ends by itself ends with.
    pub async fn refused(self) -> Result<(), Error> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("ends by itself").expect("does not panic")
    }

    pub async fn end(self) -> Result<(), Error> {
        self.stop.cancel();
        drop(self.events);
        match tokio::time::timeout(PATIENCE, self.task).await.expect("ends soon").expect("does not panic") {
            // It had something to tell while nobody listened any more.
            Err(Error::ReceiverGone) => Ok(()),
            ended => ended,
        }
    }
}

pub fn rows_of(events: &[Event]) -> Vec<&TableRows> {
    events.iter().filter_map(|event| if let Event::Rows(rows) = event { Some(rows) } else { None }).collect()
}

/// Each row as `op: value | value`, in order.
pub fn told(events: &[Event], table: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        match event {
            Event::Rows(rows) if rows.schema.name.to_string() == table => {
                for row in 0..rows.rows.num_rows() {
                    let values: Vec<String> = rows
                        .rows
                        .columns()
                        .iter()
                        .enumerate()
                        .map(|(column, values)| {
                            if rows.unchanged.contains(&(row as u32, column as u16)) {
                                assert!(values.is_null(row), "an unchanged value is NULL");
                                return "unchanged".into();
                            }
                            cell(values, row)
                        })
                        .collect();
                    lines.push(format!("{:?}: {}", rows.ops[row], values.join(" | ")));
                }
            }
            Event::Truncate(name) if name.to_string() == table => lines.push("Truncate".into()),
            _ => {}
        }
    }
    lines
}

pub fn cell(values: &ArrayRef, row: usize) -> String {
    if values.is_null(row) {
        return "-".into();
    }
    let text = arrow::util::display::array_value_to_string(values, row).expect("displayable");
    if text.len() > 40 { format!("{} characters", text.len()) } else { text }
}
