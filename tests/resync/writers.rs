//! Sessions that change `goods` the way applications do: inserts, updates that leave the large text alone, deletes, moved keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use crate::BUSY;
use crate::support::source::Database;

/// So large, and so hard to compress, that PostgreSQL keeps it out of line.
pub fn large_text(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    (0..300).map(|_| format!("{:08x}", random.random::<u32>())).collect()
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    committed: Arc<AtomicU64>,
}

impl Writers {
    pub async fn start(database: &Database, writers: u64, pause: Duration, seed: u64) -> Self {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut handles = Vec::new();
        for writer in 0..writers {
            let mut session = database.session().await;
            let (stop, committed) = (stop.clone(), committed.clone());
            let mut random = StdRng::seed_from_u64(seed * 100 + writer);
            handles.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let statements = transaction(&mut random);
                    // Two writers may meet on a key, or lock each other out.
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

    /// Ends them after their transactions; returns how many they committed.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer");
        }
        self.committed.load(Ordering::Relaxed)
    }
}

fn transaction(random: &mut StdRng) -> String {
    let id = random.random_range(0..BUSY * 2);
    let other = random.random_range(0..BUSY * 2);
    let number: u32 = random.random_range(0..100_000);
    let change = match random.random_range(0..12) {
        0..=2 => format!("INSERT INTO goods VALUES ({id}, 'new', {number}.5, '{}')", large_text(u64::from(number))),
        3..=5 => format!("UPDATE goods SET price = price + 1 WHERE id = {id}"),
        6 => format!("UPDATE goods SET note = '{}' WHERE id = {id}", large_text(u64::from(number))),
        7..=8 => format!("DELETE FROM goods WHERE id = {id}"),
        9 => format!("UPDATE goods SET id = {other} WHERE id = {id}"),
        10 => format!("UPDATE goods SET id = {other}, name = 'moved' WHERE id = {id}"),
        _ => format!("UPDATE goods SET name = 'many' WHERE id BETWEEN {id} AND {id} + 30"),
    };
    let end = if random.random_bool(0.05) { "ROLLBACK" } else { "COMMIT" };
    format!("BEGIN; {change}; {end}")
}
