//! Merge keys as hashes.

use std::hash::{BuildHasher, RandomState};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use twox_hash::XxHash3_128;

use super::locator::KeyHash;
use crate::schema::TableSchema;

/// Turns the key columns of rows into hashes. One per table and process: the seed is random, and never stored.
#[derive(Debug)]
pub struct KeyHasher {
    converter: RowConverter,
    seed: u64,
}

impl KeyHasher {
    pub fn new(schema: &TableSchema) -> Result<Self, ArrowError> {
        let fields = schema.key.iter().map(|&index| SortField::new(schema.columns[index].lake_type.arrow())).collect();
        Ok(Self { converter: RowConverter::new(fields)?, seed: RandomState::new().hash_one(0_u8) })
    }

    /// One hash per row; `key_columns` in the order of the schema's key.
    pub fn hash(&self, key_columns: &[ArrayRef]) -> Result<Vec<KeyHash>, ArrowError> {
        let rows = self.converter.convert_columns(key_columns)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot_with_seed(self.seed, row.as_ref())).collect())
    }

    /// One hash per row of a batch that has all the table's columns.
    pub fn hash_batch(&self, schema: &TableSchema, rows: &RecordBatch) -> Result<Vec<KeyHash>, ArrowError> {
        let columns: Vec<ArrayRef> = schema.key.iter().map(|&index| rows.column(index).clone()).collect();
        self.hash(&columns)
    }
}
