//! The keys of a batch on disk, dealt out to buckets so that each can be collapsed in memory on its own.
//!
//! All buckets share one file; a bucket is a list of chunks in it, and its records keep log order.

use std::sync::Arc;

use super::locator::KeyHash;
use super::merge::RowNumber;
use super::spill::{Spill, SpillError, SpillFile};
use crate::schema::Op;

/// Row, key, operation.
const RECORD_BYTES: usize = 4 + KeyHash::BYTES + 1;

/// Records a bucket gathers before they are written.
const CHUNK_RECORDS: usize = 2048;

/// Being filled.
pub struct Buckets {
    file: SpillFile,
    buckets: Vec<Open>,
}

#[derive(Default)]
struct Open {
    gathered: Vec<u8>,
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy)]
struct Chunk {
    offset: u64,
    bytes: usize,
}

/// One bucket, full.
pub struct Bucket {
    file: Arc<SpillFile>,
    chunks: Vec<Chunk>,
}

impl Buckets {
    pub fn create(spill: &Arc<Spill>, count: usize) -> Result<Self, SpillError> {
        let buckets = std::iter::repeat_with(Open::default).take(count.max(1)).collect();
        Ok(Self { file: SpillFile::create(spill)?, buckets })
    }

    pub fn put(&mut self, row: RowNumber, key: KeyHash, op: Op) -> Result<(), SpillError> {
        let count = self.buckets.len();
        let bucket = &mut self.buckets[key.part(count)];
        bucket.gathered.extend_from_slice(&row.to_le_bytes());
        bucket.gathered.extend_from_slice(&key.to_bytes());
        bucket.gathered.push(op as u8);
        if bucket.gathered.len() >= CHUNK_RECORDS * RECORD_BYTES { bucket.write(&self.file) } else { Ok(()) }
    }

    pub fn finish(mut self) -> Result<Vec<Bucket>, SpillError> {
        for bucket in &mut self.buckets {
            bucket.write(&self.file)?;
        }
        let file = Arc::new(self.file);
        Ok(self.buckets.into_iter().map(|bucket| Bucket { file: file.clone(), chunks: bucket.chunks }).collect())
    }
}

impl Open {
    fn write(&mut self, file: &SpillFile) -> Result<(), SpillError> {
        if !self.gathered.is_empty() {
            self.chunks.push(Chunk { offset: file.append(&self.gathered)?, bytes: self.gathered.len() });
            self.gathered.clear();
        }
        Ok(())
    }
}

impl Bucket {
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    pub fn read(&self, chunk: usize) -> Result<Vec<(RowNumber, KeyHash, Op)>, SpillError> {
        let Chunk { offset, bytes } = self.chunks[chunk];
        let mut records = vec![0; bytes];
        self.file.read(offset, &mut records)?;
        records
            .chunks_exact(RECORD_BYTES)
            .map(|record| {
                let (row, rest) = record.split_first_chunk::<4>().ok_or(SpillError::Damaged)?;
                let (key, op) = rest.split_first_chunk::<16>().ok_or(SpillError::Damaged)?;
                let op = op.first().and_then(|byte| Op::from_byte(*byte)).ok_or(SpillError::Damaged)?;
                Ok((RowNumber::from_le_bytes(*row), u128::from_le_bytes(*key).into(), op))
            })
            .collect()
    }
}
