//! What a batch holds for one table: changes in log order, in memory or on disk.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::Error;
use super::merge::{CollapseError, ROWS_MAX, RowNumber};
use super::spill::{Spill, SpillError, SpilledRows};
use super::upgrade::upgrade_changes;
use crate::schema::{Evolution, LakeOp, TableRows, TableSchema, ValueCounts};

/// One step in a table's life.
#[derive(Clone, Debug)]
pub enum TableChange {
    /// In the shape that the lake's table has at this point.
    Rows(TableRows),
    Spilled(SpilledRows),
    Truncate,
    /// The table has another shape from here on.
    Evolve(Arc<Evolution>),
}

impl TableChange {
    /// The values among them that have no faithful lake form.
    pub fn add_values(&self, counts: &mut ValueCounts) {
        match self {
            Self::Rows(rows) => counts.add(&rows.schema, &rows.unfaithful),
            Self::Spilled(rows) => counts.merge(&rows.values),
            Self::Truncate | Self::Evolve(_) => {}
        }
    }

    /// The evolutions among `changes`, in order.
    pub fn evolutions(changes: &[Self]) -> impl DoubleEndedIterator<Item = &Arc<Evolution>> + Clone {
        changes.iter().filter_map(|change| match change {
            Self::Evolve(evolution) => Some(evolution),
            Self::Rows(_) | Self::Spilled(_) | Self::Truncate => None,
        })
    }
}

/// The changes that count: those after the last truncate, their rows numbered through and in the shape that the table has
/// in the end.
pub struct ChangeSet<'a> {
    pub truncated: bool,
    schema: Arc<TableSchema>,
    parts: Vec<Part<'a>>,
    /// The number of each part's first row, and the number of all rows.
    starts: Vec<RowNumber>,
}

enum Part<'a> {
    Memory(Cow<'a, TableRows>),
    /// With what happened to the columns since.
    Disk(&'a SpilledRows, Arc<[LakeOp]>),
}

impl<'a> ChangeSet<'a> {
    /// `schema` is the table's after all changes.
    pub fn new(changes: &'a [TableChange], schema: &Arc<TableSchema>) -> Result<Self, Error> {
        let arrow = |source| Error::Arrow { table: schema.name.to_string(), source };
        let last_truncate = changes.iter().rposition(|change| matches!(change, TableChange::Truncate));
        let counting = &changes[last_truncate.map_or(0, |at| at + 1)..];
        let mut parts: Vec<Part> = Vec::with_capacity(counting.len());
        // Backwards: what comes later happens to each part.
        let mut later: Arc<[LakeOp]> = Arc::new([]);
        for change in counting.iter().rev() {
            match change {
                TableChange::Rows(rows) if later.is_empty() => check_columns(&rows.schema, schema)?,
                TableChange::Spilled(rows) if later.is_empty() => check_columns(rows.schema(), schema)?,
                _ => {}
            }
            match change {
                TableChange::Rows(rows) if later.is_empty() => parts.push(Part::Memory(Cow::Borrowed(rows))),
                TableChange::Rows(rows) => {
                    parts.push(Part::Memory(Cow::Owned(upgrade_changes(rows, schema, &later).map_err(arrow)?)));
                }
                TableChange::Spilled(rows) => parts.push(Part::Disk(rows, later.clone())),
                TableChange::Truncate => {}
                TableChange::Evolve(evolution) => later = evolution.ops.iter().chain(later.iter()).cloned().collect(),
            }
        }
        parts.reverse();
        let mut starts = vec![0];
        let mut rows = 0_u64;
        for part in &parts {
            rows += match part {
                Part::Memory(part) => part.ops.len() as u64,
                Part::Disk(part, _) => u64::from(part.rows()),
            };
            if rows > ROWS_MAX {
                return Err(CollapseError::TooMany.of(schema));
            }
            starts.push(rows as RowNumber);
        }
        Ok(Self { truncated: last_truncate.is_some(), schema: schema.clone(), parts, starts })
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
            Part::Disk(rows, _) => rows.bytes(),
        }
    }

    pub fn has_unchanged(&self) -> bool {
        (0..self.parts.len()).any(|part| self.part_has_unchanged(part))
    }

    pub fn part_has_unchanged(&self, part: usize) -> bool {
        match &self.parts[part] {
            Part::Memory(rows) => !rows.unchanged.is_empty(),
            Part::Disk(rows, _) => rows.has_unchanged(),
        }
    }

    /// Where the parts on disk are; `None` when all are in memory.
    pub fn spill(&self) -> Option<&Arc<Spill>> {
        self.parts.iter().find_map(|part| match part {
            Part::Memory(_) => None,
            Part::Disk(rows, _) => Some(rows.spill()),
        })
    }

    pub async fn load(&self, part: usize) -> Result<Cow<'_, TableRows>, Error> {
        match &self.parts[part] {
            Part::Memory(rows) => Ok(Cow::Borrowed(rows)),
            Part::Disk(rows, later) => {
                let (rows, later, schema) = (SpilledRows::clone(rows), later.clone(), self.schema.clone());
                let read = tokio::task::spawn_blocking(move || {
                    let rows = rows.read()?;
                    if later.is_empty() { Ok(rows) } else { Ok(upgrade_changes(&rows, &schema, &later)?) }
                });
                let read: Result<TableRows, SpillError> = read.await.map_err(|_| SpillError::Damaged)?;
                Ok(Cow::Owned(read?))
            }
        }
    }
}

/// That rows come in the table's shape; anything else would land in the wrong columns.
fn check_columns(rows: &TableSchema, table: &TableSchema) -> Result<(), Error> {
    let like = |schema: &TableSchema| -> Vec<String> {
        schema.columns.iter().map(|column| format!("{} {}", column.name, column.lake_type)).collect()
    };
    let same = rows.columns.len() == table.columns.len()
        && rows
            .columns
            .iter()
            .zip(&table.columns)
            .all(|(row, column)| row.name == column.name && row.lake_type == column.lake_type);
    if same {
        return Ok(());
    }
    Err(Error::Table {
        table: table.name.to_string(),
        finding: format!(
            "rows come with the columns ({}), and the lake has ({})",
            like(rows).join(", "),
            like(table).join(", ")
        ),
        remedy: "report this as a defect of lakeward".to_owned(),
    })
}
