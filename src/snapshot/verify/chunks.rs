//! The source's table in chunks, and reading one as rows of the lake.

use std::hash::{BuildHasher, RandomState};

use arrow::array::RecordBatch;

use super::super::chunk::{ChunkRowsInShape, InShape};
use super::super::throttle::Throttle;
use super::Error;
use crate::lake;
use crate::schema::{Shape, TableName, TableSchema};
use crate::source::{self, Chunk, Position, Source};

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
    throttle: &Throttle,
    mut take: impl FnMut(&RecordBatch) -> Result<(), lake::Error>,
) -> Result<Reading, Error> {
    let (sender, mut rows) = ChunkRowsInShape::new(shape, throttle);
    let look = async move {
        loop {
            match rows.next().await.map_err(|cause| Error::Rows(table.to_string(), cause))? {
                InShape::Rows(rows) => take(&rows.rows)?,
                InShape::OtherColumns(finding) => return Ok(Some(finding)),
                InShape::End => return Ok::<_, Error>(None),
            }
        }
    };
    let (read, looked) = tokio::join!(source.read_chunk(table, chunk, filter, sender), look);
    if let Some(difference) = looked? {
        return Ok(Reading::OtherColumns(difference));
    }
    let read = read?;
    Ok(Reading::Done { high: read.high, rows: read.rows })
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
