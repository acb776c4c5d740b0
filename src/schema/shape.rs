//! How a lake table lies to its source's table.
//!
//! At first both have the same columns. Then policies may keep a dropped column, leave a new one out, hold it back, or
//! leave a renamed one its old name; the [`Shape`] says so, and the lake keeps it in the table's own metadata, so that it
//! changes with the very commit that changes the table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ChangeRecord, Column, TableRows, TableSchema};

/// Where a lake column's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The source's column of this name.
    Source(String),
    /// A column that the source dropped and the lake keeps: NULL from then on.
    Dropped,
}

/// What waits for a decision while the table goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChange {
    /// Of the schema change.
    pub id: Uuid,
    pub actions: Vec<HeldAction>,
    pub record: ChangeRecord,
}

/// What an approval does. Columns by their names in the lake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum HeldAction {
    /// A new column that the data files have already.
    Show {
        column: String,
    },
    Drop {
        column: String,
    },
    Rename {
        column: String,
        to: String,
    },
}

impl HeldAction {
    pub fn column(&self) -> &str {
        match self {
            Self::Show { column } | Self::Drop { column } | Self::Rename { column, .. } => column,
        }
    }

    pub(super) fn column_mut(&mut self) -> &mut String {
        match self {
            Self::Show { column } | Self::Drop { column } | Self::Rename { column, .. } => column,
        }
    }
}

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Every column of the data files, in Delta's names.
    pub lake: Arc<TableSchema>,
    /// One for each column of `lake`.
    pub origins: Vec<Origin>,
    /// One for each column of `lake`: in the files, but not in the schema that readers see.
    pub hidden: Vec<bool>,
    /// Columns of the source that the lake leaves out by policy.
    pub ignored: BTreeSet<String>,
    pub held: Vec<HeldChange>,
}

impl Shape {
    /// Lake and source alike.
    pub fn of(schema: Arc<TableSchema>) -> Self {
        Self {
            origins: schema.columns.iter().map(|column| Origin::Source(column.name.clone())).collect(),
            hidden: vec![false; schema.columns.len()],
            lake: schema,
            ignored: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    /// The place in `lake` of a source's column.
    pub fn index_of_source(&self, name: &str) -> Option<usize> {
        self.origins.iter().position(|origin| matches!(origin, Origin::Source(source) if source == name))
    }

    /// The source's table as this shape takes it in: its columns that the lake holds, by the source's names.
    pub fn source_schema(&self) -> TableSchema {
        let mut columns = Vec::new();
        let mut places = HashMap::new();
        for (index, (column, origin)) in self.lake.columns.iter().zip(&self.origins).enumerate() {
            if let Origin::Source(name) = origin {
                places.insert(index, columns.len());
                columns.push(Column { name: name.clone(), ..column.clone() });
            }
        }
        let moved = |indexes: &[usize]| indexes.iter().filter_map(|index| places.get(index).copied()).collect();
        TableSchema {
            name: self.lake.name.clone(),
            columns,
            key: moved(&self.lake.key),
            partition_by: moved(&self.lake.partition_by),
            identity: self.lake.identity,
        }
    }

    /// The table as its readers see it.
    pub fn shown(&self) -> TableSchema {
        let mut schema = TableSchema::clone(&self.lake);
        let places: Vec<usize> = (0..self.lake.columns.len()).filter(|&index| !self.hidden[index]).collect();
        let moved = |indexes: &[usize]| {
            indexes.iter().filter_map(|index| places.iter().position(|place| place == index)).collect()
        };
        schema.columns = places.iter().map(|&index| self.lake.columns[index].clone()).collect();
        schema.key = moved(&self.lake.key);
        schema.partition_by = moved(&self.lake.partition_by);
        schema
    }

    /// Whether source rows are lake rows as they are.
    pub fn is_plain(&self) -> bool {
        self.ignored.is_empty()
            && self
                .lake
                .columns
                .iter()
                .zip(&self.origins)
                .all(|(column, origin)| matches!(origin, Origin::Source(name) if *name == column.name))
    }

    /// The source's rows as rows of the lake: columns matched by name, NULL where the source has none.
    pub fn project(&self, rows: TableRows) -> Result<TableRows, ArrowError> {
        if self.is_plain() && rows.schema.columns.len() == self.lake.columns.len() {
            let same = |(ours, theirs): (&Column, &Column)| ours.name == theirs.name;
            if self.lake.columns.iter().zip(&rows.schema.columns).all(same) {
                return Ok(TableRows { schema: self.lake.clone(), ..rows });
            }
        }
        let count = rows.rows.num_rows();
        let mut to_lake: HashMap<usize, usize> = HashMap::new();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.lake.columns.len());
        for (place, (column, origin)) in self.lake.columns.iter().zip(&self.origins).enumerate() {
            let found = match origin {
                Origin::Source(name) => rows.schema.column_index(name),
                Origin::Dropped => None,
            };
            arrays.push(match found {
                Some(index) => {
                    to_lake.insert(index, place);
                    rows.rows.column(index).clone()
                }
                None => new_null_array(&column.lake_type.arrow(), count),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.lake.arrow(), arrays, &options)?;
        let mut unchanged: Vec<(u32, u16)> = rows
            .unchanged
            .iter()
            .filter_map(|(row, column)| Some((*row, *to_lake.get(&usize::from(*column))? as u16)))
            .collect();
        unchanged.sort_unstable();
        let unfaithful = rows
            .unfaithful
            .into_iter()
            .filter_map(|value| {
                let column = *to_lake.get(&usize::from(value.column))? as u16;
                Some(super::Unfaithful { column, ..value })
            })
            .collect();
        Ok(TableRows { schema: self.lake.clone(), rows: batch, ops: rows.ops, unchanged, unfaithful })
    }
}
