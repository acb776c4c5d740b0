//! What a batch holds for one table: changes in log order, in memory or on disk.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::merge::{CollapseError, ROWS_MAX, RowNumber};
use super::spill::{Spill, SpillError, SpilledRows};
use crate::schema::{TableRows, ValueCounts};

/// One step in a table's life.
#[derive(Clone, Debug)]
pub enum TableChange {
    Rows(TableRows),
    Spilled(SpilledRows),
    Truncate,
}

impl TableChange {
    /// The values among them that have no faithful lake form.
    pub fn add_values(&self, counts: &mut ValueCounts) {
        match self {
            Self::Rows(rows) => counts.add(&rows.schema, &rows.unfaithful),
            Self::Spilled(rows) => counts.merge(&rows.values),
            Self::Truncate => {}
        }
    }
}

/// The changes that count: those after the last truncate, their rows numbered through.
pub struct ChangeSet<'a> {
    pub truncated: bool,
    parts: Vec<Part<'a>>,
    /// The number of each part's first row, and the number of all rows.
    starts: Vec<RowNumber>,
}

enum Part<'a> {
    Memory(&'a TableRows),
    Disk(&'a SpilledRows),
}

impl<'a> ChangeSet<'a> {
    pub fn new(changes: &'a [TableChange]) -> Result<Self, CollapseError> {
        let last_truncate = changes.iter().rposition(|change| matches!(change, TableChange::Truncate));
        let parts: Vec<Part> = changes[last_truncate.map_or(0, |at| at + 1)..]
            .iter()
            .filter_map(|change| match change {
                TableChange::Rows(rows) => Some(Part::Memory(rows)),
                TableChange::Spilled(rows) => Some(Part::Disk(rows)),
                TableChange::Truncate => None,
            })
            .collect();
        let mut starts = vec![0];
        let mut rows = 0_u64;
        for part in &parts {
            rows += match part {
                Part::Memory(part) => part.ops.len() as u64,
                Part::Disk(part) => u64::from(part.rows()),
            };
            if rows > ROWS_MAX {
                return Err(CollapseError::TooMany);
            }
            starts.push(rows as RowNumber);
        }
        Ok(Self { truncated: last_truncate.is_some(), parts, starts })
    }

    pub fn rows(&self) -> RowNumber {
        self.starts.last().copied().unwrap_or(0)
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The numbers of a part's rows.
    pub fn range(&self, part: usize) -> Range<RowNumber> {
        self.starts[part]..self.starts[part + 1]
    }

    /// The part of a row, and its place in there.
    pub fn place(&self, row: RowNumber) -> (usize, usize) {
        let part = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        (part, (row - self.starts[part]) as usize)
    }

    /// Memory that a part needs.
    pub fn bytes(&self, part: usize) -> u64 {
        match &self.parts[part] {
            Part::Memory(rows) => rows.memory_bytes(),
            Part::Disk(rows) => rows.bytes(),
        }
    }

    pub fn has_unchanged(&self) -> bool {
        (0..self.parts.len()).any(|part| self.part_has_unchanged(part))
    }

    pub fn part_has_unchanged(&self, part: usize) -> bool {
        match &self.parts[part] {
            Part::Memory(rows) => !rows.unchanged.is_empty(),
            Part::Disk(rows) => rows.has_unchanged(),
        }
    }

    /// Where the parts on disk are; `None` when all are in memory.
    pub fn spill(&self) -> Option<&Arc<Spill>> {
        self.parts.iter().find_map(|part| match part {
            Part::Memory(_) => None,
            Part::Disk(rows) => Some(rows.spill()),
        })
    }

    pub async fn load(&self, part: usize) -> Result<Cow<'a, TableRows>, SpillError> {
        match self.parts[part] {
            Part::Memory(rows) => Ok(Cow::Borrowed(rows)),
            Part::Disk(rows) => {
                let rows = rows.clone();
                let read = tokio::task::spawn_blocking(move || rows.read()).await;
                read.map_err(|_| SpillError::Damaged)?.map(Cow::Owned)
            }
        }
    }
}
