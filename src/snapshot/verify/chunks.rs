//! The source's table in chunks.

use std::hash::{BuildHasher, RandomState};

use super::Error;
use crate::schema::TableSchema;
use crate::source::{self, Chunk, Source};

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
