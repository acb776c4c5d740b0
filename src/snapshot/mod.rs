//! Tables that the lake does not have yet, or is to have anew.
//!
//! Those with a key are loaded in chunks while their changes come by the stream: see [`Loader`] and
//! docs/decisions/011-loads-beside-the-stream.md. The others can't be merged by key, and a table of less than a chunk need not
//! be: [`first_load`] reads them whole, each as of one exact log position, before the stream begins. There the source reads, [`FirstLoad`] writes; the channel between them
//! is bounded, so memory stays at a few batches. Such a table becomes visible when its last row is written. A crash or an
//! error leaves the tables already complete, which the next start keeps, and nothing of the one under way.

mod chunk;
mod gate;
mod loader;
mod progress;
mod repair;
mod throttle;
pub mod verify;

pub use chunk::Staged;
pub use loader::{ChunkPlace, Loader, Merged, Ready};
pub use repair::{ReadyRepair, Repairer};

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::lake::{self, FirstLoad, Lake, Table};
use crate::ledger::{self, History, Version};
use crate::schema::{Layout, TableName, ValueCounts};
use crate::source::{self, Position, SnapshotEvent, Source, UnreadablePosition};
use chunk::Misfit;
use progress::Progress;

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
    #[error(transparent)]
    Position(#[from] UnreadablePosition),
    #[error("a task of this process failed: {0}")]
    Task(tokio::task::JoinError),
}

impl From<Misfit> for Error {
    fn from(Misfit { table, cause }: Misfit) -> Self {
        Self::Lake(lake::Error::Arrow { table, source: cause })
    }
}

impl Error {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) => error.class() == source::Class::Transient,
            Self::Lake(error) => error.class() == lake::Class::Transient,
            Self::Ledger(error) => error.is_transient(),
            Self::Position(_) | Self::Task(_) => false,
        }
    }
}

/// A table just loaded.
pub struct Loaded {
    pub table: Table,
    /// Values that have no faithful lake form.
    pub values: ValueCounts,
}

/// Loads `tables` and adds them, open, to `loaded`: also those that were complete before an error came. Their layouts are in
/// the history before they are in the lake. Those that are `hidden` are built beside the ones that are there.
pub async fn first_load<S: Source>(
    source: &S,
    source_name: &str,
    lake: &Lake,
    history: &mut History,
    tables: &[TableName],
    hidden: &BTreeMap<TableName, Uuid>,
    loaded: &mut Vec<Loaded>,
) -> Result<(), Error> {
    if tables.is_empty() {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
    let (read, written) =
        tokio::join!(source.snapshot(tables, sender), write(receiver, source_name, lake, history, hidden, loaded));
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
    hidden: &BTreeMap<TableName, Uuid>,
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
                let place = hidden.get(&schema.name).map_or(lake::Place::Open, |id| lake::Place::Hidden(*id));
                let again = place != lake::Place::Open;
                let progress = Progress::start(source_name, &schema.name, rows_estimate, 0, again);
                values = ValueCounts::default();
                open = Some((FirstLoad::begin_at(lake, source_name, schema, position.to_string(), place)?, progress));
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
pub async fn remember(
    history: &mut History,
    table: &TableName,
    position: &Position,
    layout: &Layout,
) -> Result<(), ledger::Error> {
    let version = Version { position: position.to_string(), statement: None, layout: layout.clone() };
    history.begin(&table.to_string(), version);
    history.write().await
}
