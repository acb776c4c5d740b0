//! `[maintenance]`: how tables are kept in shape.

use std::time::Duration;

use super::load::MEBIBYTE;
use super::reader::TableReader;

const FILE_SIZE: &str = "a size of at least 1MiB, such as \"128MiB\"";
const RETENTION: &str = "a span of at least an hour, such as \"7d\" or \"36h\"";
const EVERY: &str = "a span of at least a minute, such as \"1d\"";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// Small files and files with many dead rows are written anew.
    pub compact: bool,
    /// What files come to by that, for tables whose contracts say nothing.
    pub target_file_bytes: u64,
    /// Objects that nothing needs any more are removed.
    pub vacuum: bool,
    /// How often, for each table.
    pub vacuum_every: Duration,
    /// Versions that were in force since then stay readable, for tables whose contracts say nothing.
    pub retention: Duration,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { compact: true, target_file_bytes: 128 * MEBIBYTE, vacuum: true, vacuum_every: DAY, retention: DAY * 7 }
    }
}

pub(super) fn read_maintenance(root: &TableReader) -> Maintenance {
    let default = Maintenance::default();
    let Some(maintenance) = root.table("maintenance") else { return default };
    let read = Maintenance {
        compact: maintenance.flag("compact").unwrap_or(default.compact),
        target_file_bytes: read_target_file_size(&maintenance).unwrap_or(default.target_file_bytes),
        vacuum: maintenance.flag("vacuum").unwrap_or(default.vacuum),
        vacuum_every: maintenance.span("vacuum_every", Duration::from_secs(60), EVERY).unwrap_or(default.vacuum_every),
        retention: read_retention(&maintenance).unwrap_or(default.retention),
    };
    maintenance.finish();
    read
}

/// In `[maintenance]` and in a contract.
pub(super) fn read_target_file_size(table: &TableReader) -> Option<u64> {
    table.bytes("target_file_size", MEBIBYTE, FILE_SIZE)
}

/// In `[maintenance]` and in a contract.
pub(super) fn read_retention(table: &TableReader) -> Option<Duration> {
    table.span("retention", Duration::from_secs(60 * 60), RETENTION)
}
