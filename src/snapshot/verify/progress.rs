//! Telling how far a comparison is.

use std::time::Instant;

use indicatif::ProgressBar;

use super::super::progress::{LINE_EVERY, bar};
use super::Proof;
use crate::schema::TableName;

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
        let bar = bar(source, table, rows);
        Self { source: source.to_owned(), table: table.to_string(), bar, rows: 0, told: Instant::now() }
    }

    pub fn advance(&mut self, rows: u64) {
        self.rows += rows;
        match &self.bar {
            Some(bar) => bar.set_position(self.rows),
            None if self.told.elapsed() >= LINE_EVERY => {
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
