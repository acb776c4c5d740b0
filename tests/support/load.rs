//! Writers that keep a database busy the way applications do, with invariants that a torn transaction would break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::source::{Database, Kind};

/// Money moved around among these accounts; its sum never changes.
pub const ACCOUNTS: i64 = 400;
pub const TOTAL: i64 = ACCOUNTS * 1000;
/// Rows each transaction adds to `audit`.
pub const AUDIT_ROWS: i64 = 3;
pub const TABLES: [&str; 3] = ["accounts", "audit", "bookings"];

/// Writers under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    committed: Arc<AtomicU64>,
}

pub async fn create_tables(database: &Database) {
    let mut session = database.session().await;
    session
        .run(
            "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
             CREATE TABLE audit (writer INT, txn BIGINT, line INT, note VARCHAR(40), PRIMARY KEY (writer, txn, line));
             CREATE TABLE bookings (id BIGINT PRIMARY KEY, guest VARCHAR(40), price DECIMAL(12,2), note TEXT)",
        )
        .await;
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 1000)")).collect();
    session.run(&format!("INSERT INTO accounts VALUES {}", accounts.join(","))).await;
    let bookings: Vec<String> =
        (0..3000).map(|id| format!("({}, 'guest {id}', {id}.25, 'loaded before')", id * 1000)).collect();
    session.run(&format!("INSERT INTO bookings VALUES {}", bookings.join(","))).await;
}

impl Load {
    /// Starts `writers` sessions, each committing one transaction after the other with `pause` between.
    pub async fn start(database: &Database, writers: u32, pause: std::time::Duration, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let mut handles = Vec::new();
        for writer in 0..writers {
            let mut session = database.session().await;
            let (stop, committed, kind) = (stop.clone(), committed.clone(), database.kind);
            let mut random = StdRng::seed_from_u64(seed * 1000 + u64::from(writer));
            // Unique across restarts of the load on one database.
            let writer_id = i64::from(writer) + (seed as i64 % 10_000) * 100;
            handles.push(tokio::spawn(async move {
                let mut txn = 0_i64;
                while !stop.load(Ordering::Relaxed) {
                    txn += 1;
                    let statements = transaction(&mut random, kind, writer_id, txn);
                    // Two writers may lock each other out or meet on a key; their transaction rolls back, as it should.
                    if session.try_run(&statements).await.is_err() {
                        session.run("ROLLBACK").await;
                    } else {
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(pause).await;
                }
            }));
        }
        Self { stop, writers: handles, committed }
    }

    /// Transactions committed (or rolled back on purpose) so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Ends the writers after their transactions.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer");
        }
    }
}

/// Money moves, three audit lines, and something happens to bookings: insert, update, delete, key change.
fn transaction(random: &mut StdRng, kind: Kind, writer: i64, txn: i64) -> String {
    let (from, to) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
    let amount = random.random_range(1..50);
    // In the order of ids, else writers deadlock all the time.
    let (first, second) = if from < to { (from, to) } else { (to, from) };
    let sign = |id: i64| if id == from { -amount } else { amount };
    let transfer = if from == to {
        String::new()
    } else {
        format!(
            "UPDATE accounts SET balance = balance + ({}) WHERE id = {first};
             UPDATE accounts SET balance = balance + ({}) WHERE id = {second};",
            sign(first),
            sign(second)
        )
    };
    let lines: Vec<String> = (0..AUDIT_ROWS).map(|line| format!("({writer}, {txn}, {line}, '예약 {txn}')")).collect();
    let booking = random.random_range(0..3000) * 1000 + random.random_range(0..3);
    let change = match random.random_range(0..10) {
        0..=3 => match kind {
            Kind::Postgres => format!(
                "INSERT INTO bookings VALUES ({booking}, 'new', {txn}.5, NULL) ON CONFLICT (id) DO UPDATE SET note = 'met'"
            ),
            _ => format!("REPLACE INTO bookings VALUES ({booking}, 'new', {txn}.5, NULL)"),
        },
        4..=6 => format!("UPDATE bookings SET price = price + 1, note = 'w{writer} t{txn}' WHERE id = {booking}"),
        7 => format!("DELETE FROM bookings WHERE id = {booking}"),
        8 => format!("UPDATE bookings SET id = id + 1 WHERE id = {booking} AND id % 1000 < 500"),
        _ => format!("UPDATE bookings SET guest = 'many' WHERE id BETWEEN {booking} AND {booking} + 20000"),
    };
    let end = if random.random_bool(0.05) { "ROLLBACK" } else { "COMMIT" };
    format!("BEGIN; {transfer} INSERT INTO audit VALUES {}; {change}; {end}", lines.join(","))
}
