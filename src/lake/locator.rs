//! Where a key's row lies: the index that turns "update this row" into a data file and a row number.
//!
//! A [`RowLocator`] is told of every file and every removed row and answers for whole batches. Keys come as 128-bit
//! hashes of their encoded columns under a seed of this process, so two keys of one table meet with a probability
//! of about n²/2¹²⁹ (10⁻²¹ for 100 million rows), and nobody outside can choose colliding keys.

use hashbrown::HashMap;

/// Hash of an encoded key.
pub type KeyHash = u128;

/// A data file's number within an open table; never used again once the file is gone.
pub type FileId = u32;

/// A row's place: physical row number in a data file, deleted rows counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowAddress {
    pub file: FileId,
    pub row: u32,
}

/// See the module text.
pub trait RowLocator: Send + Sync {
    /// The live row of each key, in the order asked; `None` where the table has no such key.
    fn locate(&self, keys: &[KeyHash]) -> Vec<Option<RowAddress>>;

    /// The rows of these keys are gone.
    fn remove(&mut self, keys: &[KeyHash]);

    /// A file's live rows: their keys and row numbers. A key that was known moves here.
    fn insert(&mut self, file: FileId, rows: &mut dyn Iterator<Item = (KeyHash, u32)>);

    /// Every row is gone.
    fn clear(&mut self);

    /// Keys known.
    fn len(&self) -> usize;
}

/// All keys in memory: exact, no I/O, about 28 to 56 bytes a key.
#[derive(Debug, Default)]
pub struct MemoryLocator {
    rows: HashMap<KeyHash, RowAddress, PrehashedBuilder>,
}

impl RowLocator for MemoryLocator {
    fn locate(&self, keys: &[KeyHash]) -> Vec<Option<RowAddress>> {
        keys.iter().map(|key| self.rows.get(key).copied()).collect()
    }

    fn remove(&mut self, keys: &[KeyHash]) {
        for key in keys {
            self.rows.remove(key);
        }
    }

    fn insert(&mut self, file: FileId, rows: &mut dyn Iterator<Item = (KeyHash, u32)>) {
        self.rows.reserve(rows.size_hint().0);
        for (key, row) in rows {
            self.rows.insert(key, RowAddress { file, row });
        }
    }

    fn clear(&mut self) {
        self.rows = HashMap::default();
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The keys are hashes already: their low half serves as it is.
type PrehashedBuilder = std::hash::BuildHasherDefault<Prehashed>;

#[derive(Default)]
pub struct Prehashed(u64);

impl std::hash::Hasher for Prehashed {
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

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_was_last_written() {
        let mut locator = MemoryLocator::default();
        locator.insert(0, &mut [(7, 0), (8, 1)].into_iter());
        locator.insert(1, &mut [(7, 5)].into_iter());
        assert_eq!(
            locator.locate(&[7, 8, 9]),
            [Some(RowAddress { file: 1, row: 5 }), Some(RowAddress { file: 0, row: 1 }), None]
        );
        locator.remove(&[8]);
        assert_eq!(locator.locate(&[8]), [None]);
        locator.clear();
        assert_eq!(locator.len(), 0);
    }
}
