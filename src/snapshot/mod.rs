//! First loads: the tables the lake does not have yet, each as of one exact log position.
//!
//! The source reads, [`FirstLoad`] writes; the channel between them is bounded, so memory stays at a few batches. A
//! table becomes visible when its last row is written. A crash or an error leaves the tables already complete, which
//! the next start keeps, and nothing of the one under way.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::lake::{self, FirstLoad, Lake, Table};
use crate::ledger::{self, History, Version};
use crate::schema::{Layout, TableName, ValueCounts};
use crate::source::{self, Position, SnapshotEvent, Source};

/// Batches between the reader and the writer.
const CHANNEL_BATCHES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Lake(#[from] lake::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// A table just loaded.
pub struct Loaded {
    pub table: Table,
    /// Values that have no faithful lake form.
    pub values: ValueCounts,
}

/// Loads `tables` and adds them, open, to `loaded`: also those that were complete before an error came. Their layouts are in the history
/// before they are in the lake.
pub async fn first_load<S: Source>(
    source: &S,
    source_name: &str,
    lake: &Lake,
    history: &mut History,
    tables: &[TableName],
    loaded: &mut Vec<Loaded>,
) -> Result<(), Error> {
    if tables.is_empty() {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
    let (read, written) =
        tokio::join!(source.snapshot(tables, sender), write(receiver, source_name, lake, history, loaded));
    match (read, written) {
        // The reader only notices that the writer is gone; the writer knows why.
        (Err(source::Error::ReceiverGone), Err(cause)) | (Ok(()), Err(cause)) => Err(cause),
        (Err(cause), _) => Err(cause.into()),
        (Ok(()), Ok(())) => Ok(()),
    }
}

async fn write(
    mut events: mpsc::Receiver<SnapshotEvent>,
    source_name: &str,
    lake: &Lake,
    history: &mut History,
    loaded: &mut Vec<Loaded>,
) -> Result<(), Error> {
    let mut open: Option<(FirstLoad, Progress)> = None;
    let mut values = ValueCounts::default();
    while let Some(event) = events.recv().await {
        match event {
            SnapshotEvent::Table { schema, position, layout, rows_estimate } => {
                if let Some(layout) = layout {
                    remember(history, &schema.name, &position, &layout).await?;
                }
                let progress = Progress::start(source_name, &schema.name, rows_estimate);
                values = ValueCounts::default();
                open = Some((FirstLoad::begin(lake, source_name, schema, position.to_string())?, progress));
            }
            SnapshotEvent::Rows { rows, unfaithful } => {
                if let Some((mut load, mut progress)) = open.take() {
                    values.add(load.schema(), &unfaithful);
                    if let Err(error) = load.write(&rows).await {
                        load.abort().await;
                        return Err(error.into());
                    }
                    progress.advance(load.rows());
                    open = Some((load, progress));
                }
            }
            SnapshotEvent::TableDone => {
                if let Some((load, progress)) = open.take() {
                    let rows = load.rows();
                    let table = load.commit().await?;
                    loaded.push(Loaded { table, values: std::mem::take(&mut values) });
                    progress.finish(rows);
                }
            }
        }
    }
    if let Some((load, _)) = open {
        load.abort().await;
    }
    Ok(())
}

/// Begins the table's history anew.
async fn remember(
    history: &mut History,
    table: &TableName,
    position: &Position,
    layout: &Layout,
) -> Result<(), ledger::Error> {
    let version = Version { position: position.to_string(), statement: None, layout: layout.clone() };
    history.begin(&table.to_string(), version);
    history.write().await
}

/// A bar on a terminal, log lines elsewhere.
struct Progress {
    table: String,
    source: String,
    started: Instant,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    fn start(source: &str, table: &TableName, rows_estimate: Option<u64>) -> Self {
        tracing::info!(source, %table, rows_estimate, "first load begins");
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {bar:30} {human_pos}/{human_len} rows {per_sec} eta {eta}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(rows_estimate.unwrap_or(0)).with_style(style).with_message(format!("{source} {table}"))
        });
        let now = Instant::now();
        Self { table: table.to_string(), source: source.to_owned(), started: now, bar, told: now }
    }

    fn advance(&mut self, rows: u64) {
        match &self.bar {
            Some(bar) => {
                // Estimates are often low; a bar beyond its end helps nobody.
                if bar.length().is_some_and(|length| length < rows) {
                    bar.set_length(rows);
                }
                bar.set_position(rows);
            }
            None if self.told.elapsed().as_secs() >= 10 => {
                self.told = Instant::now();
                tracing::info!(source = self.source, table = self.table, rows, "first load goes on");
            }
            None => {}
        }
    }

    fn finish(self, rows: u64) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        tracing::info!(source = self.source, table = self.table, rows, seconds, "first load done");
    }
}
