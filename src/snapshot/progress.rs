//! How far a load is, for people: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::schema::TableName;

/// Between two log lines about one table.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(10);

/// A table's bar, if there is a terminal.
pub(super) fn bar(source: &str, table: &TableName, rows: u64) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = "{msg} {bar:30} {human_pos}/{human_len} rows {per_sec} eta {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(rows).with_style(style).with_message(format!("{source} {table}"))
    })
}

/// See the module text.
pub struct Progress {
    table: String,
    source: String,
    started: Instant,
    /// Rows that an earlier process loaded.
    before: u64,
    rows_estimate: Option<u64>,
    bar: Option<ProgressBar>,
    told: Instant,
    words: Words,
}

/// What it is called.
struct Words {
    begins: &'static str,
    goes_on: &'static str,
    done: &'static str,
}

const FIRST: Words = Words { begins: "first load begins", goes_on: "first load goes on", done: "first load done" };
const AGAIN: Words = Words { begins: "resync begins", goes_on: "resync goes on", done: "resync done" };

impl Progress {
    /// `before`: rows that an earlier process loaded. `again`: it goes into a table beside the one that is there.
    pub fn start(source: &str, table: &TableName, rows_estimate: Option<u64>, before: u64, again: bool) -> Self {
        let words = if again { AGAIN } else { FIRST };
        match before {
            0 => tracing::info!(source, %table, rows_estimate, "{}", words.begins),
            rows => tracing::info!(source, %table, rows_estimate, rows, "{}", words.goes_on),
        }
        let bar = bar(source, table, rows_estimate.unwrap_or(0)).map(|bar| bar.with_position(before));
        let now = Instant::now();
        let (source, table) = (source.to_owned(), table.to_string());
        Self { table, source, started: now, before, rows_estimate, bar, told: now, words }
    }

    pub fn advance(&mut self, rows: u64) {
        match &self.bar {
            Some(bar) => {
                // Estimates are often low; a bar beyond its end helps nobody.
                if bar.length().is_some_and(|length| length < rows) {
                    bar.set_length(rows);
                }
                bar.set_position(rows);
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                self.told = Instant::now();
                let rate = rows.saturating_sub(self.before) as f64 / self.started.elapsed().as_secs_f64();
                let left = self.rows_estimate.map(|estimate| estimate.saturating_sub(rows) as f64);
                let eta_seconds = left.filter(|_| rate > 0.0).map(|left| (left / rate).round());
                tracing::info!(
                    source = self.source,
                    table = self.table,
                    rows,
                    rows_estimate = self.rows_estimate,
                    rows_per_second = rate.round(),
                    eta_seconds,
                    "{}",
                    self.words.goes_on
                );
            }
            None => {}
        }
    }

    pub fn finish(self, rows: u64) {
        let seconds = self.started.elapsed().as_secs_f64();
        tracing::info!(source = self.source, table = self.table, rows, seconds, "{}", self.words.done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
