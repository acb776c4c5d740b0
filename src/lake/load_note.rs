//! What a table's commits say of a load that is under way (docs/decisions/011-loads-beside-the-stream.md).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a load is. It is in the same entry as the rows, so it is never ahead of them or behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadNote {
    pub id: Uuid,
    /// Up to where all chunks are merged, in the source's words; `None` is from the beginning.
    pub through: Option<String>,
    /// Rows that chunks have brought.
    pub rows: u64,
    /// The table's own to say: updates wait in memory for rows of chunks still to come.
    pub pending: bool,
    /// All chunks are to be read a second time when the last is merged, since such updates were lost with a process.
    pub again: bool,
    pub begun_at: DateTime<Utc>,
}

impl LoadNote {
    /// A load of which nothing is done yet.
    pub fn begin() -> Self {
        Self { id: Uuid::new_v4(), through: None, rows: 0, pending: false, again: false, begun_at: Utc::now() }
    }
}
