//! Updates that wait for the row they change.
//!
//! While a table is loaded in chunks, a change may leave values out (unchanged TOAST, partial row images) of a row that no
//! chunk has brought yet. What the log did tell is kept here, one image a key: a later change of the key takes it up where
//! otherwise it would take the lake's row, and a chunk's row fills in what is missing. An image that is whole, or a delete,
//! makes it moot.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::key::KeyHasher;
use super::super::locator::{KeyHash, KeyMap};
use super::super::upgrade::upgrade_changes;
use crate::schema::{LakeOp, Op, TableRows, TableSchema};

/// Images that are not complete, and what each one's key is.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub rows: TableRows,
    pub keys: Vec<KeyHash>,
}

/// See the module text.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    parts: Vec<TableRows>,
    /// Part and row.
    places: KeyMap<(usize, u32)>,
    /// Rows in the parts, those that are moot counted.
    stored: usize,
    bytes: u64,
}

/// Rows that are moot are tolerated up to so many, and to as many as the others.
const MOOT_ROWS: usize = 1024;

impl Partial {
    /// Of `rows`, complete but for `missing` (row and column, sorted), those rows that something is missing in.
    pub fn new(schema: &Arc<TableSchema>, rows: RecordBatch, unchanged: Vec<(u32, u16)>, keys: Vec<KeyHash>) -> Self {
        let ops = vec![Op::Update; rows.num_rows()];
        Self { rows: TableRows { schema: schema.clone(), rows, ops, unchanged, unfaithful: Vec::new() }, keys }
    }
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Memory that they hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn contains(&self, key: KeyHash) -> bool {
        self.places.contains_key(&key)
    }

    /// Where the image of a key is, for [`Pending::value`].
    pub fn place(&self, key: KeyHash) -> Option<(usize, u32)> {
        self.places.get(&key).copied()
    }

    /// The column that has the image's value; `None` where it was left out.
    pub fn column(&self, (part, row): (usize, u32), column: u16) -> Option<&ArrayRef> {
        let rows = self.parts.get(part)?;
        if rows.unchanged.binary_search(&(row, column)).is_ok() { None } else { Some(rows.rows.column(column.into())) }
    }

    pub fn add(&mut self, partial: Partial) {
        let part = self.parts.len();
        self.stored += partial.keys.len();
        self.bytes += partial.rows.memory_bytes();
        self.parts.push(partial.rows);
        self.places.extend(partial.keys.into_iter().zip(0..).map(|(key, row)| (key, (part, row))));
    }

    pub fn forget(&mut self, keys: &[KeyHash]) {
        for key in keys {
            self.places.remove(key);
        }
        if self.stored > MOOT_ROWS + 2 * self.places.len() {
            let keys: Vec<KeyHash> = self.places.keys().copied().collect();
            // Where rows can't be gathered, they stay where they are.
            if let Ok(Some(partial)) = self.select(keys) {
                *self = Self::default();
                self.add(partial);
            }
        }
    }

    /// The images of these keys, where they have one.
    pub fn select(&self, keys: Vec<KeyHash>) -> Result<Option<Partial>, ArrowError> {
        let mut found: Vec<((usize, u32), KeyHash)> =
            keys.into_iter().filter_map(|key| Some((self.place(key)?, key))).collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        let Some(((part, _), _)) = found.first() else { return Ok(None) };
        let schema = self.parts[*part].schema.clone();
        let batches: Vec<&RecordBatch> = self.parts.iter().map(|part| &part.rows).collect();
        let indices: Vec<(usize, usize)> = found.iter().map(|((part, row), _)| (*part, *row as usize)).collect();
        let rows = interleave_record_batch(&batches, &indices)?;
        let mut unchanged = Vec::new();
        for (((part, row), _), out) in found.iter().zip(0_u32..) {
            let left_out = &self.parts[*part].unchanged;
            unchanged.extend(left_out[of_row(left_out, *row)].iter().map(|(_, column)| (out, *column)));
        }
        Ok(Some(Partial::new(&schema, rows, unchanged, found.into_iter().map(|(_, key)| key).collect())))
    }

    /// The same after operations on the table's columns.
    pub fn upgraded(&self, after: &Arc<TableSchema>, ops: &[LakeOp], hasher: &KeyHasher) -> Result<Self, ArrowError> {
        let mut upgraded = Self::default();
        let Some(partial) = self.select(self.places.keys().copied().collect())? else { return Ok(upgraded) };
        let rows = upgrade_changes(&partial.rows, after, ops)?;
        let keys = hasher.hash_batch(&rows.rows)?;
        upgraded.add(Partial { rows, keys });
        Ok(upgraded)
    }

    /// The first few keys, for people.
    pub fn told(&self, count: usize) -> String {
        let mut told = Vec::new();
        for &(part, row) in self.places.values().take(count) {
            let rows = &self.parts[part];
            let values = rows.schema.key.iter().map(|&index| {
                let options = FormatOptions::default().with_null("NULL");
                let value = ArrayFormatter::try_new(rows.rows.column(index).as_ref(), &options)
                    .map_or_else(|_| "?".to_owned(), |formatter| formatter.value(row as usize).to_string());
                format!("{} = {value}", rows.schema.columns[index].name)
            });
            told.push(values.collect::<Vec<_>>().join(", "));
        }
        told.sort_unstable();
        told.join("; ")
    }
}

/// Where the pairs of a row are among sorted pairs.
fn of_row(pairs: &[(u32, u16)], row: u32) -> Range<usize> {
    pairs.partition_point(|(of, _)| *of < row)..pairs.partition_point(|(of, _)| *of <= row)
}
