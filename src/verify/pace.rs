//! How fast the source is read, and telling how far it is.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Proof;
use crate::schema::TableName;

/// How often a line is told where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Holds readers back to so many rows a second, all together.
pub struct Pace {
    rows_per_second: Option<u64>,
    began: Instant,
    rows: AtomicU64,
}

impl Pace {
    pub fn new(rows_per_second: Option<u64>) -> Self {
        Self {
            rows_per_second: rows_per_second.filter(|rows| *rows > 0),
            began: Instant::now(),
            rows: AtomicU64::new(0),
        }
    }

    /// Waits until these rows are due.
    pub async fn spend(&self, rows: u64) {
        let read = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        if let Some(limit) = self.rows_per_second {
            let due = self.began + Duration::from_secs_f64(read as f64 / limit as f64);
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

/// A bar on a terminal, log lines elsewhere.
pub struct Progress {
    source: String,
    table: String,
    bar: Option<ProgressBar>,
    rows: u64,
    told: Instant,
}

impl Progress {
    pub fn start(source: &str, table: &TableName, rows: u64) -> Self {
        tracing::info!(source, %table, rows, "comparison begins");
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {bar:30} {human_pos}/{human_len} rows {per_sec} eta {eta}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(rows).with_style(style).with_message(format!("{source} {table}"))
        });
        Self { source: source.to_owned(), table: table.to_string(), bar, rows: 0, told: Instant::now() }
    }

    pub fn advance(&mut self, rows: u64) {
        self.rows += rows;
        match &self.bar {
            Some(bar) => bar.set_position(self.rows),
            None if self.told.elapsed() >= TELL_EVERY => {
                self.told = Instant::now();
                tracing::info!(source = self.source, table = self.table, rows = self.rows, "comparison goes on");
            }
            None => {}
        }
    }

    pub fn finish(self, proof: &Proof) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (rows, rounds, seconds) = (proof.rows, proof.rounds, proof.seconds);
        tracing::info!(source = self.source, table = self.table, rows, rounds, seconds, "comparison done");
    }
}
