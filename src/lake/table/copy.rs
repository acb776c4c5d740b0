//! Rows of a data file on their way to another one.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use roaring::RoaringTreemap;

use super::super::data_file::WrittenFile;
use super::super::key::KeyHasher;
use super::super::locator::KeyHash;
use crate::schema::TableSchema;

/// What a batch of rows may come to when it is decoded, as its file estimates it.
pub(super) const BATCH_BYTES: u64 = 8 << 20;

/// Of a batch as read that begins with row `first` of its file, the rows that are not `gone`.
pub(super) fn staying(
    schema: &TableSchema,
    batch: &RecordBatch,
    first: u64,
    gone: &RoaringTreemap,
) -> Result<RecordBatch, ArrowError> {
    let rows = first..first + batch.num_rows() as u64;
    let columns = if gone.range_cardinality(rows.clone()) == 0 {
        batch.columns().to_vec()
    } else {
        let stays: BooleanArray = rows.map(|row| Some(!gone.contains(row))).collect();
        filter_record_batch(batch, &stays)?.columns().to_vec()
    };
    // What is read from a file may be NULL as far as its reader knows, a key as well.
    RecordBatch::try_new(schema.arrow(), columns)
}

/// A hash of each row, where the table's rows are told apart; of its content where there is no key.
pub(super) fn hashes(hasher: &KeyHasher, rows: &RecordBatch) -> Result<Vec<KeyHash>, ArrowError> {
    if hasher.columns().is_empty() { Ok(Vec::new()) } else { hasher.hash_batch(rows) }
}

/// That files written in the place of `files` others hold as many rows as were live in those, all in one partition: so their
/// order is that of the old ones. The error says what is not so.
pub(super) fn check(live: u64, files: usize, written: &[WrittenFile]) -> Result<(), String> {
    let rows: u64 = written.iter().map(|file| file.rows).sum();
    if live != rows {
        return Err(format!("{live} rows of {files} files came to {rows}"));
    }
    if written.windows(2).any(|pair| pair[0].add.partition_values != pair[1].add.partition_values) {
        return Err("rows of one partition came to lie in several".to_owned());
    }
    Ok(())
}
