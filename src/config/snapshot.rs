//! `[snapshot]`: how tables are loaded beside the stream.

use std::time::Duration;

use super::reader::TableReader;

const DURING: &str = "\"partial\" or \"hidden\"";
const DURING_WORDS: [(&str, DuringSnapshot); 2] =
    [("partial", DuringSnapshot::Partial), ("hidden", DuringSnapshot::Hidden)];
const PARALLELISM: &str = "a number of chunks from 1 to 64";
const CHUNK_ROWS: &str = "a number of rows from 1 to 10000000";
const RATE: &str = "a number of rows a second; 0 for no limit";

const RUNNING: &str = "a number of statements; 0 for no limit";
const LAG: &str = "a number of seconds up to 86400; 0 for no limit";

/// What readers see of a table with a key while it is loaded for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuringSnapshot {
    /// The table, as far as it is loaded.
    #[default]
    Partial,
    /// Nothing, until it is whole.
    Hidden,
}

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Chunks of a source that are read at the same time.
    pub parallelism: usize,
    pub chunk_rows: u64,
    /// Over all tables of a source; 0: no limit.
    pub rows_per_second_max: u64,
    /// While more statements than that run at the source, no chunk is begun; 0: no limit.
    pub running_max: u64,
    /// While the source's replication is further behind, no chunk is begun; zero: no limit.
    pub replica_lag_max: Duration,
    /// For tables whose contracts say nothing.
    pub during_snapshot: DuringSnapshot,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            parallelism: 4,
            chunk_rows: 100_000,
            rows_per_second_max: 0,
            running_max: 0,
            replica_lag_max: Duration::ZERO,
            during_snapshot: DuringSnapshot::default(),
        }
    }
}

pub(super) fn read_snapshot(root: &TableReader) -> Snapshot {
    let default = Snapshot::default();
    let Some(snapshot) = root.table("snapshot") else { return default };
    let parallelism = snapshot.integer("parallelism", 1..=64, PARALLELISM);
    let read = Snapshot {
        parallelism: parallelism.map_or(default.parallelism, |number| number as usize),
        chunk_rows: snapshot.integer("chunk_rows", 1..=10_000_000, CHUNK_ROWS).unwrap_or(default.chunk_rows),
        rows_per_second_max: snapshot.integer("rows_per_second_max", 0..=u64::MAX, RATE).unwrap_or(0),
        running_max: snapshot.integer("running_max", 0..=u64::MAX, RUNNING).unwrap_or(0),
        replica_lag_max: Duration::from_secs(snapshot.integer("replica_lag_seconds_max", 0..=86_400, LAG).unwrap_or(0)),
        during_snapshot: read_during_snapshot(&snapshot).unwrap_or_default(),
    };
    snapshot.finish();
    read
}

/// In `[snapshot]` and in a contract.
pub(super) fn read_during_snapshot(table: &TableReader) -> Option<DuringSnapshot> {
    table.word("during_snapshot", DURING, &DURING_WORDS)
}
