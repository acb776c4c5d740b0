//! Differences, row by row: the key, and which columns are not the same.

use std::sync::Mutex;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::super::chunk::ChunkReader;
use super::super::throttle::Throttle;
use super::Error;
use super::sight::Found;
use crate::lake::{self, KeyMap, KeySet, Picture};
use crate::schema::{TableName, TableRows};
use crate::source::{Chunk, Source};

/// Characters of a value that are told.
const VALUE_CHARS: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The row is another in the lake.
    Differs,
    /// The lake does not have it.
    Missing,
    /// Only the lake has it.
    Extra,
}

/// A row that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    pub key: Vec<KeyPart>,
    /// The columns that differ; empty when the row was changed before they could be looked at.
    pub columns: Vec<ColumnDifference>,
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyPart {
    pub column: String,
    pub value: Option<String>,
}

/// A column that is not the same. `None` stands for NULL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDifference {
    pub column: String,
    pub source: Option<String>,
    pub lake: Option<String>,
}

/// Reads the rows once more, on both sides, and names what differs.
pub async fn tell<S: Source>(
    source: &S,
    table: &TableName,
    picture: &Picture,
    chunks: &[Chunk],
    found: &[Found],
) -> Result<Vec<Difference>, Error> {
    let at_source = source_rows(source, table, picture, chunks, found).await?;
    let mut differences = Vec::with_capacity(found.len());
    for found in found {
        let here = at_source.get(&found.key);
        let lake = match found.address {
            Some(address) => picture.read(address).await?,
            None => None,
        };
        differences.push(compare(table, picture, found.kind, here, lake.as_ref())?);
    }
    Ok(differences)
}

/// The rows of these keys that the source has now.
async fn source_rows<S: Source>(
    source: &S,
    table: &TableName,
    picture: &Picture,
    chunks: &[Chunk],
    found: &[Found],
) -> Result<KeyMap<RecordBatch>, Error> {
    let wanted: KeySet = found.iter().filter(|found| found.kind != Kind::Extra).map(|found| found.key).collect();
    let mut numbers: Vec<u32> =
        found.iter().filter(|found| found.kind != Kind::Extra).filter_map(|found| found.chunk).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let rows: Mutex<KeyMap<RecordBatch>> = Mutex::default();
    let unlimited = Throttle::new(0);
    for number in numbers {
        let Some(chunk) = chunks.get(number as usize) else { continue };
        let take = |TableRows { rows: batch, .. }: &TableRows| -> Result<(), Error> {
            for (row, print) in picture.prints(batch)?.into_iter().enumerate() {
                if wanted.contains(&print.key) {
                    // A copy, so that the batch need not stay.
                    let one = take_record_batch(batch, &UInt32Array::from(vec![row as u32]));
                    let one = one.map_err(|source| lake::Error::Arrow { table: table.to_string(), source })?;
                    rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(print.key, one);
                }
            }
            Ok(())
        };
        // If the columns changed just now, the keys alone are told.
        let reader = ChunkReader { source, table, shape: picture.shape(), throttle: &unlimited };
        reader.read(chunk, None, take).await?;
    }
    Ok(rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn compare(
    table: &TableName,
    picture: &Picture,
    kind: Kind,
    source: Option<&RecordBatch>,
    lake: Option<&RecordBatch>,
) -> Result<Difference, Error> {
    let wrong = |cause| Error::Rows(table.to_string(), cause);
    let shape = picture.shape();
    let schema = &shape.lake;
    let compared = lake::compared(shape);
    let mut key = Vec::new();
    // What has no key is told by all that it holds.
    for &index in if schema.key.is_empty() { &compared } else { &schema.key } {
        let row = source.or(lake);
        let value = match row {
            Some(row) => text(row.column(index)).map_err(wrong)?,
            None => Some("(gone by now)".to_owned()),
        };
        key.push(KeyPart { column: schema.columns[index].name.clone(), value });
    }
    let mut columns = Vec::new();
    if let (Some(source), Some(lake)) = (source, lake) {
        for &index in &compared {
            let (here, there) = (source.column(index), lake.column(index));
            if !picture.same_value(index, here, there)? {
                let column = schema.columns[index].name.clone();
                columns.push(ColumnDifference {
                    column,
                    source: text(here).map_err(wrong)?,
                    lake: text(there).map_err(wrong)?,
                });
            }
        }
    }
    Ok(Difference { kind, key, columns })
}

/// The one value of a column.
fn text(column: &dyn Array) -> Result<Option<String>, arrow::error::ArrowError> {
    if column.is_empty() || column.is_null(0) {
        return Ok(None);
    }
    let options = FormatOptions::default().with_null("NULL");
    let text = ArrayFormatter::try_new(column, &options)?.value(0).to_string();
    if text.chars().count() <= VALUE_CHARS {
        return Ok(Some(text));
    }
    Ok(Some(text.chars().take(VALUE_CHARS).chain(['…']).collect()))
}
