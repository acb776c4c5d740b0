//! Keys as hashes, rows as places, and the map in memory from the one to the other.
//!
//! Keys come as 128-bit hashes of their encoded columns under a secret seed, so two keys of one table meet with a
//! probability of about n²/2¹²⁹ (10⁻²¹ for 100 million rows), and nobody outside can choose colliding keys.
//! [`RowIndex`](super::row_index::RowIndex) is what a table asks; this map is its part in memory.

use std::hash::{Hash, Hasher};

use hashbrown::{HashMap, HashSet};

/// Hash of an encoded key. Two words, not a `u128`, whose alignment would cost every index entry eight bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash([u64; 2]);

impl KeyHash {
    pub const BYTES: usize = 16;

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        u128::from(self).to_le_bytes()
    }

    /// The order in which keys lie on disk. That of the maps' shards agrees with it.
    pub fn order(self) -> u128 {
        self.into()
    }

    /// One of `count` parts of the keys; independent of what the maps use of the hash.
    pub fn part(self, count: usize) -> usize {
        (self.0[1] as u32 as usize) % count.max(1)
    }
}

impl From<u128> for KeyHash {
    fn from(hash: u128) -> Self {
        Self([hash as u64, (hash >> 64) as u64])
    }
}

impl From<KeyHash> for u128 {
    fn from(key: KeyHash) -> Self {
        Self::from(key.0[0]) | Self::from(key.0[1]) << 64
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// A map by key.
pub type KeyMap<V> = HashMap<KeyHash, V, std::hash::BuildHasherDefault<Prehashed>>;

/// A set of keys.
pub type KeySet = HashSet<KeyHash, std::hash::BuildHasherDefault<Prehashed>>;

/// The keys are hashes already: their low half serves as it is.
#[derive(Default)]
pub struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A data file's number within an open table; never used again once the file is gone.
pub type FileId = u32;

/// A row's place: physical row number in a data file, deleted rows counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowAddress {
    pub file: FileId,
    pub row: u32,
}

/// Maps that the memory locator spreads its keys over.
const SHARDS: usize = 32;

/// Slots by which keys are dealt out to the shards.
const SLOTS: usize = 1024;

/// All keys in memory: exact, no I/O, about 40 bytes a key.
///
/// One map would need up to 57 bytes a key just after it doubled, and for that moment half as much again. The shards are
/// of unequal size, from 1 to 2, so that they double one after the other while the table grows.
#[derive(Debug)]
pub struct MemoryLocator {
    shards: Vec<KeyMap<RowAddress>>,
    /// Shard by slot.
    slots: Vec<u8>,
}

impl Default for MemoryLocator {
    fn default() -> Self {
        let weight = |shard: usize| (shard as f64 / SHARDS as f64).exp2();
        let total: f64 = (0..SHARDS).map(weight).sum();
        let mut slots = Vec::with_capacity(SLOTS);
        let mut ends = 0.0;
        for shard in 0..SHARDS {
            ends += weight(shard) / total * SLOTS as f64;
            slots.resize((ends.round() as usize).min(SLOTS), shard as u8);
        }
        slots.resize(SLOTS, SHARDS as u8 - 1);
        Self { shards: vec![KeyMap::default(); SHARDS], slots }
    }
}

impl MemoryLocator {
    fn shard(&self, key: KeyHash) -> usize {
        usize::from(self.slots[(key.0[1] >> 54) as usize % SLOTS])
    }

    /// Where a key was put last.
    pub fn find(&self, key: KeyHash) -> Option<RowAddress> {
        self.shards[self.shard(key)].get(&key).copied()
    }

    /// These keys are gone.
    pub fn remove(&mut self, keys: &[KeyHash]) {
        for &key in keys {
            let shard = self.shard(key);
            self.shards[shard].remove(&key);
        }
    }

    /// Only the rows that `keep` holds for are left. Costs a walk over all keys: for batches as large as the table.
    pub fn retain(&mut self, keep: impl Fn(RowAddress) -> bool) {
        for shard in &mut self.shards {
            shard.retain(|_, address| keep(*address));
        }
    }

    /// A key that was known moves here; returns where it was.
    pub fn insert(&mut self, key: KeyHash, address: RowAddress) -> Option<RowAddress> {
        let shard = self.shard(key);
        self.shards[shard].insert(key, address)
    }

    pub fn clear(&mut self) {
        self.shards.iter_mut().for_each(|shard| *shard = KeyMap::default());
    }

    /// Keys known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(KeyMap::len).sum()
    }

    /// Memory that they take.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.allocation_size() as u64).sum()
    }

    /// All of it, as maps of which each has only keys that come, in the order of [`KeyHash::order`], before those of the next.
    pub fn shards(&self) -> impl Iterator<Item = &KeyMap<RowAddress>> {
        self.shards.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hash: u128) -> KeyHash {
        KeyHash::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn a_key_is_found_where_it_was_last_written() {
        let mut locator = MemoryLocator::default();
        let at = |file, row| RowAddress { file, row };
        locator.insert(key(7), at(0, 0));
        locator.insert(key(8), at(0, 1));
        locator.insert(key(7), at(1, 5));
        let found = |locator: &MemoryLocator| [7, 8, 9].map(|hash| locator.find(key(hash)));
        assert_eq!(found(&locator), [Some(at(1, 5)), Some(at(0, 1)), None]);
        locator.remove(&[key(8)]);
        assert_eq!(found(&locator), [Some(at(1, 5)), None, None]);
        locator.retain(|address| address.file != 1);
        assert_eq!(locator.len(), 0);
        locator.insert(key(1), at(2, 2));
        locator.clear();
        assert_eq!(locator.len(), 0);
    }

    #[test]
    fn shards_follow_the_order_on_disk() {
        let mut locator = MemoryLocator::default();
        for hash in 0..5000 {
            locator.insert(key(hash), RowAddress { file: 0, row: 0 });
        }
        let mut last = None;
        for shard in locator.shards() {
            let (first, end) = (shard.keys().map(|key| key.order()).min(), shard.keys().map(|key| key.order()).max());
            assert!(first.is_none() || last < first);
            last = end.or(last);
        }
    }

    /// What the README states as the cost of a key in memory.
    #[test]
    fn a_key_costs_about_forty_bytes_at_every_size() {
        let mut locator = MemoryLocator::default();
        let mut next = 0_u128;
        for keys in [100_000_u128, 130_000, 160_000, 200_000, 240_000, 300_000] {
            for hash in next..keys {
                locator.insert(key(hash), RowAddress { file: 0, row: 0 });
            }
            next = keys;
            let bytes = locator.bytes() as f64 / keys as f64;
            assert!((33.0..47.0).contains(&bytes), "{bytes} bytes a key at {keys} keys");
        }
    }
}
