//! The source's table in chunks, and reading one as rows of the lake.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::{Error, Pace};
use crate::lake;
use crate::schema::{Op, Shape, TableName, TableRows, TableSchema};
use crate::source::{self, Chunk, ChunkEvent, Position, Source};

/// Batches between the reader and whoever looks at them.
const CHANNEL_BATCHES: usize = 2;

/// How often the list of chunks is begun anew.
const LISTS_MAX: usize = 5;

/// All chunks of a table, from the first to the last.
pub async fn list<S: Source>(source: &S, schema: &TableSchema, rows: u64) -> Result<Vec<Chunk>, Error> {
    let mut tries = 0;
    'again: loop {
        tries += 1;
        let mut chunks: Vec<Chunk> = Vec::new();
        loop {
            let after = chunks.last().and_then(|chunk| chunk.to.as_ref());
            match source.next_chunk(schema, after, rows).await {
                Err(source::Error::BoundsVoid { .. }) if tries < LISTS_MAX => continue 'again,
                Err(error) => return Err(error.into()),
                Ok(chunk) => {
                    let last = chunk.to.is_none();
                    chunks.push(chunk);
                    if last {
                        return Ok(chunks);
                    }
                }
            }
        }
    }
}

/// Some of the chunks, at random.
pub fn pick(mut chunks: Vec<Chunk>, count: usize) -> Vec<Chunk> {
    let random = RandomState::new();
    let mut number = 0_u64;
    let mut next = |below: usize| {
        number += 1;
        (random.hash_one(number) % below.max(1) as u64) as usize
    };
    let count = count.min(chunks.len());
    for place in 0..count {
        let other = place + next(chunks.len() - place);
        chunks.swap(place, other);
    }
    chunks.truncate(count);
    chunks
}

/// What came of reading a chunk.
pub enum Reading {
    Done {
        high: Position,
        rows: u64,
    },
    /// The source's table has other columns than the lake's.
    OtherColumns(String),
}

/// Reads a chunk and hands its rows on in the lake's columns.
pub async fn read<S: Source>(
    source: &S,
    table: &TableName,
    chunk: &Chunk,
    filter: Option<&str>,
    shape: &Shape,
    pace: &Pace,
    mut take: impl FnMut(&RecordBatch) -> Result<(), lake::Error>,
) -> Result<Reading, Error> {
    let (sender, mut events) = mpsc::channel(CHANNEL_BATCHES);
    let rows_wrong = |cause| Error::Rows(table.to_string(), cause);
    let look = async move {
        let mut schema: Option<Arc<TableSchema>> = None;
        while let Some(event) = events.recv().await {
            match event {
                ChunkEvent::Schema(told) => {
                    if let Some(difference) = other_columns(shape, &told) {
                        return Ok(Some(difference));
                    }
                    schema = Some(told);
                }
                ChunkEvent::Rows(rows) => {
                    let Some(schema) = schema.clone() else { continue };
                    let count = rows.rows.num_rows();
                    let (ops, unchanged, unfaithful) = (vec![Op::Insert; count], Vec::new(), rows.unfaithful);
                    let rows = TableRows { schema, rows: rows.rows, ops, unchanged, unfaithful };
                    take(&shape.project(rows).map_err(rows_wrong)?.rows)?;
                    pace.spend(count as u64).await;
                }
            }
        }
        Ok::<_, Error>(None)
    };
    let (read, looked) = tokio::join!(source.read_chunk(table, chunk, filter, sender), look);
    if let Some(difference) = looked? {
        return Ok(Reading::OtherColumns(difference));
    }
    let read = read?;
    Ok(Reading::Done { high: read.high, rows: read.rows })
}

/// How the source's columns differ from those that the lake's table takes in.
fn other_columns(shape: &Shape, source: &TableSchema) -> Option<String> {
    let known = shape.source_schema();
    for column in &known.columns {
        let Some(found) = source.column_index(&column.name).map(|index| &source.columns[index]) else {
            return Some(format!("the lake has `{}` and the source does not", column.name));
        };
        if found.lake_type != column.lake_type {
            let (lake, source) = (column.lake_type, found.lake_type);
            return Some(format!("`{}` is {lake} in the lake and {source} from the source", column.name));
        }
    }
    let new = source
        .columns
        .iter()
        .find(|column| known.column_index(&column.name).is_none() && !shape.ignored.contains(&column.name));
    if let Some(new) = new {
        return Some(format!("the source has `{}` and the lake does not", new.name));
    }
    let key = |schema: &TableSchema| -> Vec<String> {
        schema.key.iter().map(|&index| schema.columns[index].name.clone()).collect()
    };
    let (lake, source) = (key(&known), key(source));
    (lake != source)
        .then(|| format!("the key is ({}) in the lake and ({}) at the source", lake.join(", "), source.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_no_chunk_twice() {
        let chunk = |number: u32| Chunk { after: None, to: serde_json::from_str(&format!("\"{number}\"")).ok() };
        let all: Vec<Chunk> = (0..50).map(chunk).collect();
        let mut picked = pick(all.clone(), 20);
        assert_eq!(picked.len(), 20);
        picked.dedup();
        assert!(picked.iter().all(|one| picked.iter().filter(|other| *other == one).count() == 1 && all.contains(one)));
        assert_eq!(pick(all, 99).len(), 50);
    }
}
