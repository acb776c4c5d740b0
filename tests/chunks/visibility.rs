//! What a chunk sees, beside the log, while six sessions write: everything up to a position that was waited for, and nothing
//! beyond `high`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use lakeward::config::Contracts;
use lakeward::schema::TableName;
use lakeward::source::postgres::PostgresSource;
use lakeward::source::{Chunk, CollectorLimits, Event, LoadStart, Position, Source, StreamRequest, TableStart};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support::postgres::{Bed, PATIENCE, admin, run};
use super::support::server::OwnServer;
use super::support::source::Kind;
use super::{mysql, read};

const WRITERS: i64 = 6;
const CHUNKS: usize = 25;

pub type Ids = BTreeSet<i64>;

/// What the log told so far: each boundary with the rows before it.
pub type Told = Arc<Mutex<Vec<(Position, Ids)>>>;

fn ids(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    batch.column(0).as_primitive::<Int64Type>().values().iter().copied()
}

/// Follows the table from where its load begins; a table that stops is a panic.
pub fn follow<S: Source>(source: &Arc<S>, start: &LoadStart, told: &Told, stop: &CancellationToken) -> JoinHandle<()> {
    let table = TableStart {
        schema: start.schema.clone(),
        position: start.position.clone(),
        layout: start.layout.clone(),
        ignored: BTreeSet::new(),
    };
    let (durable, durable_receiver) = watch::channel(start.position.clone());
    let request = StreamRequest {
        from: start.position.clone(),
        tables: HashMap::from([(start.schema.name.clone(), table)]),
        durable: durable_receiver,
        // A boundary for each transaction.
        limits: CollectorLimits { rows_max: 1, ..CollectorLimits::default() },
        stop: stop.clone(),
    };
    let (source, told) = (source.clone(), told.clone());
    tokio::spawn(async move {
        let _durable = durable;
        let (out, mut events) = mpsc::channel(64);
        let gather = async {
            let mut open = Ids::new();
            while let Some(event) = events.recv().await {
                match event {
                    Event::Rows(rows) => open.extend(ids(&rows.rows)),
                    Event::Boundary { position, .. } => {
                        told.lock().expect("whole").push((position, std::mem::take(&mut open)));
                    }
                    Event::TableStopped { error, .. } => panic!("stopped: {error}"),
                    _ => {}
                }
            }
        };
        let (ended, ()) = tokio::join!(source.stream(request, out), gather);
        ended.expect("the stream ends well");
    })
}

async fn chunks_see_what_they_should<S: Source>(
    source: S,
    name: TableName,
    writers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
) {
    let source = Arc::new(source);
    let names = [name.clone()];
    source.prepare(&names, None).await.expect("prepares");
    let start = source.begin_load(&names).await.expect("a beginning").remove(0);
    let told = Told::default();
    let stop_stream = CancellationToken::new();
    let stream = follow(&source, &start, &told, &stop_stream);
    let mut chunks = Vec::new();
    for _ in 0..CHUNKS {
        let last = told.lock().expect("whole").last().map_or(start.position.clone(), |(position, _)| position.clone());
        source.visible(&last).await.expect("visible");
        let (read, batch) = read(&*source, &name, &Chunk::default(), None).await.expect("reads");
        chunks.push((last, ids(&batch).collect::<Ids>(), read.high));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("writes");
    }
    let (end, all) = read(&*source, &name, &Chunk::default(), None).await.expect("reads");
    let all: Ids = ids(&all).collect();
    let begun = Instant::now();
    while !told.lock().expect("whole").last().is_some_and(|(position, _)| position.covers(&end.high)) {
        assert!(begun.elapsed() < PATIENCE, "the log does not reach {}", end.high);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop_stream.cancel();
    stream.await.expect("ends");

    let told = told.lock().expect("whole");
    let streamed: Ids = told.iter().flat_map(|(_, ids)| ids).copied().collect();
    let before: Ids = all.difference(&streamed).copied().collect();
    assert!(streamed.len() > CHUNKS && told.len() > CHUNKS, "{} rows, {} boundaries", streamed.len(), told.len());
    let mut seen_more = 0;
    for (waited_for, seen, high) in &chunks {
        let mut lowest = before.clone();
        lowest.extend(told.iter().filter(|(position, _)| waited_for.covers(position)).flat_map(|(_, ids)| ids));
        let missed: Vec<&i64> = lowest.difference(seen).collect();
        assert!(missed.is_empty(), "not seen, but at or before {waited_for}: {missed:?}");
        let mut highest = before.clone();
        for (position, ids) in told.iter() {
            highest.extend(ids);
            if position.covers(high) {
                break;
            }
        }
        let beyond: Vec<&i64> = seen.difference(&highest).collect();
        assert!(beyond.is_empty(), "seen, but beyond {high}: {beyond:?}");
        seen_more += usize::from(seen.len() > lowest.len());
    }
    eprintln!("{name}: {} rows, {seen_more} of {CHUNKS} chunks saw more than the log had told", streamed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_sees_all_up_to_what_was_waited_for_and_nothing_beyond_its_high_mysql() {
    for (kind, options) in [
        (Kind::MariaDb, &["sync_binlog=1"][..]),
        (Kind::MySql, &["sync_binlog=1"]),
        (Kind::MySql, &["gtid_mode=OFF", "enforce_gtid_consistency=OFF"]),
    ] {
        let Some(server) = OwnServer::start(kind, "visibility", options) else { continue };
        let mut app = mysql::database(server.port, "writers").await;
        mysql::run(&mut app, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR(50))").await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (stop, port) = (stop.clone(), server.port);
            writers.push(tokio::spawn(async move {
                let mut app = mysql::connect(port, "app").await;
                let mut id = writer * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    id += 1;
                    mysql::run(&mut app, &format!("INSERT INTO writers.t VALUES ({id}, 'x')")).await;
                }
            }));
        }
        let source = mysql::source(server.port, "cdc", "writers", Contracts::default());
        chunks_see_what_they_should(source, TableName::new("writers", "t"), writers, stop).await;

        // A transaction that is open is not in the log.
        mysql::run(&mut app, "BEGIN;\nINSERT INTO t VALUES (-1, 'open')").await;
        let source = mysql::source(server.port, "cdc", "writers", Contracts::default());
        let head = source.head().await.expect("a head");
        tokio::time::timeout(Duration::from_secs(20), source.visible(&head)).await.expect("soon").expect("visible");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_sees_all_up_to_what_was_waited_for_and_nothing_beyond_its_high_postgres() {
    let setup = "CREATE TABLE shop.t (id int8 PRIMARY KEY, pad text)";
    let Some(mut bed) = Bed::new("chunks_visible", setup).await else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (stop, port, database) = (stop.clone(), bed.port, bed.database.clone());
        writers.push(tokio::spawn(async move {
            let mut session = admin(port, &database).await;
            // Visible before it is on disk, half of the time.
            let mode = if writer % 2 == 0 { "on" } else { "off" };
            run(&mut session, &format!("SET synchronous_commit = {mode}")).await;
            let mut id = writer * 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                id += 1;
                run(&mut session, &format!("INSERT INTO shop.t VALUES ({id}, 'x')")).await;
            }
        }));
    }
    chunks_see_what_they_should(bed.source(), TableName::new("shop", "t"), writers, stop).await;

    // A session that waits for its client is not committing; one that is busy may be.
    bed.sql("BEGIN").await;
    bed.sql("INSERT INTO shop.t VALUES (-1, 'open')").await;
    let source = bed.source();
    let head = source.head().await.expect("a head");
    // Who may not see what others do has to wait.
    tokio::time::timeout(Duration::from_secs(1), source.visible(&head)).await.expect_err("too early");
    let mut watching = admin(bed.port, &bed.database).await;
    run(
        &mut watching,
        "DO $$ BEGIN CREATE ROLE chunkswatcher LOGIN PASSWORD 'cdc'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT pg_read_all_stats TO chunkswatcher",
    )
    .await;
    let mut config = bed.config.clone();
    config.user = "chunkswatcher".into();
    let source = PostgresSource::new(config, Contracts::default()).expect("a source");
    tokio::time::timeout(Duration::from_secs(20), source.visible(&head)).await.expect("soon").expect("visible");
    let mut busy = admin(bed.port, &bed.database).await;
    let ended = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn({
        let ended = ended.clone();
        async move {
            run(&mut busy, "BEGIN; INSERT INTO shop.t VALUES (-2, 'busy')").await;
            run(&mut busy, "SELECT pg_sleep(3)").await;
            ended.store(true, Ordering::Relaxed);
            run(&mut busy, "COMMIT").await;
        }
    });
    loop {
        let asleep: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        )
        .fetch_one(&mut watching)
        .await
        .expect("answers");
        if asleep == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::timeout(Duration::from_secs(20), source.visible(&head)).await.expect("soon").expect("visible");
    assert!(ended.load(Ordering::Relaxed), "a busy transaction was not waited for");
    working.await.expect("works");
    bed.sql("ROLLBACK").await;
}
