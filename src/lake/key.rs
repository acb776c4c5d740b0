//! What tells rows apart, as hashes: the columns of the merge key, or all columns where the table has none.
//!
//! In a table without a key equal rows are interchangeable, so the n-th of them may have a hash of its own, made of the
//! row's and of n. The index holds the hashes of occurrences 0 to n without a gap: how many equal rows there are is found
//! by asking it, and nothing else need be kept.

use std::hash::{BuildHasher, RandomState};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use twox_hash::XxHash3_128;

use super::locator::{KeyHash, RowLocator};
use crate::schema::{RowIdentity, TableSchema};

/// Turns rows into hashes. One per table and process: the seed is random, and never stored.
#[derive(Debug)]
pub struct KeyHasher {
    columns: Vec<usize>,
    converter: RowConverter,
    seed: u64,
}

impl KeyHasher {
    pub fn new(schema: &TableSchema) -> Result<Self, ArrowError> {
        let columns: Vec<usize> = match schema.identity {
            RowIdentity::Key => schema.key.clone(),
            RowIdentity::WholeRow => (0..schema.columns.len()).collect(),
            RowIdentity::AppendOnly => Vec::new(),
        };
        let fields = columns.iter().map(|&index| SortField::new(schema.columns[index].lake_type.arrow())).collect();
        Ok(Self { columns, converter: RowConverter::new(fields)?, seed: RandomState::new().hash_one(0_u8) })
    }

    /// The columns that are hashed, as indexes into the schema.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// One hash per row; `columns` are those of [`KeyHasher::columns`].
    pub fn hash(&self, columns: &[ArrayRef]) -> Result<Vec<KeyHash>, ArrowError> {
        let rows = self.converter.convert_columns(columns)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot_with_seed(self.seed, row.as_ref()).into()).collect())
    }

    /// One hash per row of a batch that has all the table's columns.
    pub fn hash_batch(&self, rows: &RecordBatch) -> Result<Vec<KeyHash>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&index| rows.column(index).clone()).collect();
        self.hash(&columns)
    }

    /// The key of the n-th row (from 0) with this content.
    pub fn occurrence(&self, row: KeyHash, number: u32) -> KeyHash {
        if number == 0 {
            return row;
        }
        let mut bytes = [0; KeyHash::BYTES + 4];
        bytes[..KeyHash::BYTES].copy_from_slice(&row.to_bytes());
        bytes[KeyHash::BYTES..].copy_from_slice(&number.to_le_bytes());
        XxHash3_128::oneshot_with_seed(self.seed, &bytes).into()
    }

    /// How many rows with this content the index knows.
    pub fn occurrences(&self, row: KeyHash, locator: &dyn RowLocator) -> u32 {
        let known = |number| locator.find(self.occurrence(row, number)).is_some();
        // Occurrences below `low` are known, `high` is not.
        let (mut low, mut high) = (0, 1_u32);
        if !known(0) {
            return 0;
        }
        while known(high) {
            low = high;
            high = high.saturating_mul(2);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if known(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::super::locator::{MemoryLocator, RowAddress};
    use super::*;
    use crate::schema::{Column, LakeType, Policy, TableName};

    /// K-1
    #[test]
    fn equal_rows_are_counted_by_asking_the_index() {
        let column = Column {
            name: "a".into(),
            source_type: String::new(),
            lake_type: LakeType::Long,
            nullable: true,
            policy: Policy::default(),
        };
        let schema = TableSchema {
            name: TableName::new("a", "b"),
            columns: vec![column],
            key: vec![],
            partition_by: vec![],
            identity: RowIdentity::WholeRow,
        };
        let hasher = KeyHasher::new(&schema).expect("longs");
        let mut locator = MemoryLocator::default();
        let row = KeyHash::from(77);
        for count in 0..70 {
            assert_eq!(hasher.occurrences(row, &locator), count);
            locator.insert(hasher.occurrence(row, count), RowAddress { file: 0, row: count });
        }
        locator.remove(&[hasher.occurrence(row, 69)]);
        assert_eq!(hasher.occurrences(row, &locator), 69);
    }
}
