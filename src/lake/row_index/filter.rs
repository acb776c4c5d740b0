//! A filter in memory that says of most keys that a segment does not have them, so that no block is read for them.
//!
//! A split block Bloom filter (as Parquet's): a key sets eight bits within one block of 32 bytes. Which block is told by
//! the *upper* bits of the key, so that a writer that comes by in the order of keys fills one block after the other and
//! needs memory for one only.

use std::io::Write;

/// A block of the filter.
const BLOCK_WORDS: usize = 8;
pub(super) const FILTER_BLOCK_BYTES: u64 = BLOCK_WORDS as u64 * 4;

/// Bits for each key: one key in a hundred, about, is let through that the segment does not have.
const BITS_PER_KEY: u64 = 10;

/// Odd numbers that spread a key's bits (Parquet's specification of the filter).
const SALT: [u32; BLOCK_WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Blocks of a filter for so many keys.
pub(super) fn filter_blocks(keys: u64) -> u64 {
    (keys * BITS_PER_KEY).div_ceil(FILTER_BLOCK_BYTES * 8)
}

fn block_of(key: u128, blocks: u64) -> u64 {
    (((key >> 64) * u128::from(blocks)) >> 64) as u64
}

/// The bits of a key within its block. They come of the lower half: the upper one chose the block.
fn bits_of(key: u128) -> [u32; BLOCK_WORDS] {
    let spread = (key as u64 >> 32) as u32 ^ key as u32;
    SALT.map(|salt| 1 << (spread.wrapping_mul(salt) >> 27))
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Filter(Vec<[u32; BLOCK_WORDS]>);

impl Filter {
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let block = |bytes: &[u8]| {
            let mut words = [0; BLOCK_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            }
            words
        };
        Self(bytes.chunks_exact(FILTER_BLOCK_BYTES as usize).map(block).collect())
    }

    /// Whether the segment may have the key.
    pub fn may_have(&self, key: u128) -> bool {
        let Some(block) = self.0.get(block_of(key, self.0.len() as u64) as usize) else { return true };
        block.iter().zip(bits_of(key)).all(|(word, bit)| word & bit != 0)
    }
}

/// Writes a filter while keys come by in their order.
pub(super) struct FilterWriter<W> {
    out: W,
    blocks: u64,
    at: u64,
    block: [u32; BLOCK_WORDS],
}

impl<W: Write> FilterWriter<W> {
    pub fn new(out: W, blocks: u64) -> Self {
        Self { out, blocks, at: 0, block: [0; BLOCK_WORDS] }
    }

    pub fn add(&mut self, key: u128) -> std::io::Result<()> {
        if self.blocks == 0 {
            return Ok(());
        }
        self.go_to(block_of(key, self.blocks))?;
        for (word, bit) in self.block.iter_mut().zip(bits_of(key)) {
            *word |= bit;
        }
        Ok(())
    }

    fn go_to(&mut self, block: u64) -> std::io::Result<()> {
        while self.at < block {
            for word in std::mem::take(&mut self.block) {
                self.out.write_all(&word.to_le_bytes())?;
            }
            self.at += 1;
        }
        Ok(())
    }

    pub fn finish(mut self) -> std::io::Result<W> {
        self.go_to(self.blocks)?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> u128 {
        twox_hash::XxHash3_128::oneshot(&number.to_le_bytes())
    }

    #[test]
    fn every_key_passes_and_few_others() {
        let mut keys: Vec<u128> = (0..20_000).map(key).collect();
        keys.sort_unstable();
        let mut writer = FilterWriter::new(Vec::new(), filter_blocks(keys.len() as u64));
        for &key in &keys {
            writer.add(key).expect("to memory");
        }
        let filter = Filter::of_bytes(&writer.finish().expect("to memory"));
        assert!(keys.iter().all(|&key| filter.may_have(key)));
        let passed = (20_000..120_000).filter(|&number| filter.may_have(key(number))).count();
        assert!(passed < 3000, "{passed} of 100000 strangers pass");
    }
}
