//! Changes of a table's rows, columnar, in log order: what a source hands to the lake through the pipeline.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{TableSchema, Unfaithful};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Insert = 0,
    /// The row's new image, under an unchanged key.
    Update = 1,
    /// Key columns hold the deleted row's key; other columns hold its last values where the log carries them.
    Delete = 2,
    /// Removes the row of the old key; the next row of the same batch is its new image, an `UpdateNewKey`.
    UpdateOldKey = 3,
    /// The new image of a row whose key changed; it follows its `UpdateOldKey` directly.
    UpdateNewKey = 4,
}

impl Op {
    /// The operation of a number as above.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete, Self::UpdateOldKey, Self::UpdateNewKey]
            .get(usize::from(byte))
            .copied()
    }
}

/// Consecutive changes of one table under one schema, in log order.
#[derive(Clone, Debug)]
pub struct TableRows {
    pub schema: Arc<TableSchema>,
    pub rows: RecordBatch,
    /// One per row.
    pub ops: Vec<Op>,
    /// Values that the log left out because they did not change (PostgreSQL's unchanged TOAST), as pairs of row and
    /// column, sorted; the value in `rows` is NULL there and must be taken from the row's previous state.
    pub unchanged: Vec<(u32, u16)>,
    /// Values of these rows that have no faithful lake form, in the order of rows; what stands in `rows` there is what the
    /// column's [`super::Policy`] put in their place.
    pub unfaithful: Vec<Unfaithful>,
}

impl TableRows {
    /// Memory that they hold.
    pub fn memory_bytes(&self) -> u64 {
        let unchanged = self.unchanged.capacity() * size_of::<(u32, u16)>();
        let unfaithful = self.unfaithful.capacity() * size_of::<Unfaithful>();
        (self.rows.get_array_memory_size() + self.ops.capacity() + unchanged + unfaithful) as u64
    }

    /// The rows before `row` and those from it on; an empty part is `None`.
    pub fn split_at(mut self, row: usize) -> (Option<Self>, Option<Self>) {
        if row == 0 || row >= self.ops.len() {
            let whole = (!self.ops.is_empty()).then_some(self);
            return if row == 0 { (None, whole) } else { (whole, None) };
        }
        let tail_unchanged = self.unchanged.partition_point(|(unchanged_row, _)| (*unchanged_row as usize) < row);
        let tail_unfaithful = self.unfaithful.partition_point(|value| (value.row as usize) < row);
        let tail = Self {
            schema: self.schema.clone(),
            rows: self.rows.slice(row, self.ops.len() - row),
            ops: self.ops.split_off(row),
            unchanged: self
                .unchanged
                .split_off(tail_unchanged)
                .into_iter()
                .map(|(unchanged_row, column)| (unchanged_row - row as u32, column))
                .collect(),
            unfaithful: self
                .unfaithful
                .split_off(tail_unfaithful)
                .into_iter()
                .map(|value| Unfaithful { row: value.row - row as u32, ..value })
                .collect(),
        };
        self.rows = self.rows.slice(0, row);
        (Some(self), Some(tail))
    }
}
