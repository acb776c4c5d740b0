//! An immutable file of sorted index entries.
//!
//! ```text
//! filter    blocks of 32 bytes (filter.rs), padded to a whole block
//! blocks    4 KiB each: 170 entries of 24 bytes (key, file, row; big-endian), then a checksum of 8 bytes
//! fences    of each block the upper half of its first key, 8 bytes
//! footer    what the file is, and checksums of filter and fences and of the footer itself
//! ```
//!
//! Every checksum is taken under a seed that is made of the segment's id and the block's number: a block from elsewhere is
//! as wrong as one with a flipped bit. Fences are in memory, a twentieth of a byte for each key; the filter is where the
//! budget has room. A lookup of many keys comes in their order and reads each block once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use twox_hash::XxHash3_128;

use super::super::locator::RowAddress;
use super::cache::{Counters, Folder, IndexCache, Reserved};
use super::error::IndexError;
use super::filter::{FILTER_BLOCK_BYTES, Filter};

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const ENTRY_BYTES: usize = 24;
pub(super) const SUM_BYTES: usize = 8;
/// Entries of a block.
pub(super) const BLOCK_ENTRIES: usize = (BLOCK_BYTES - SUM_BYTES) / ENTRY_BYTES;
pub(super) const MAGIC: [u8; 8] = *b"lkwdidx1";
pub(super) const FOOTER_BYTES: usize = 8 + 16 + 16 + 5 * 8 + SUM_BYTES;

/// A key and its row, dead or alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: u128,
    pub at: RowAddress,
}

impl Entry {
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(&self.key.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.at.file.to_be_bytes());
        bytes[20..].copy_from_slice(&self.at.row.to_be_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            key: number(&bytes[..16]),
            at: RowAddress { file: number(&bytes[16..20]) as u32, row: number(&bytes[20..ENTRY_BYTES]) as u32 },
        }
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

/// What a file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Of the table's index as a whole: what makes hashes comparable.
    pub lineage: u128,
    pub id: u128,
    pub entries: u64,
    pub filter_blocks: u64,
    pub filter_sum: u64,
    pub fences_sum: u64,
}

impl Footer {
    pub fn seed(lineage: u128, id: u128) -> u64 {
        XxHash3_128::oneshot_with_seed(lineage as u64, &[lineage.to_be_bytes(), id.to_be_bytes()].concat()) as u64
    }

    pub fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK_ENTRIES as u64)
    }

    pub fn filter_bytes(&self) -> u64 {
        padded_filter_bytes(self.filter_blocks)
    }

    fn file_bytes(&self) -> Option<u64> {
        let blocks = self.blocks().checked_mul(BLOCK_BYTES as u64 + 8)?;
        blocks.checked_add(self.filter_blocks.checked_mul(FILTER_BLOCK_BYTES)?)?;
        Some(self.filter_bytes() + blocks + FOOTER_BYTES as u64)
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.lineage.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        for word in [self.entries, self.blocks(), self.filter_blocks, self.filter_sum, self.fences_sum] {
            bytes.extend(word.to_be_bytes());
        }
        let sum = checksum(Self::seed(self.lineage, self.id), &bytes);
        bytes.extend(sum.to_be_bytes());
        bytes
    }

    /// `None` where these bytes are no footer.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (told, sum) = bytes.split_at_checked(FOOTER_BYTES - SUM_BYTES)?;
        let word = |place: usize| number(&told[40 + place * 8..48 + place * 8]) as u64;
        let footer = Self {
            lineage: number(&told[8..24]),
            id: number(&told[24..40]),
            entries: word(0),
            filter_blocks: word(2),
            filter_sum: word(3),
            fences_sum: word(4),
        };
        let whole = told[..8] == MAGIC
            && word(1) == footer.blocks()
            && number(sum) as u64 == checksum(Self::seed(footer.lineage, footer.id), told);
        whole.then_some(footer)
    }
}

pub(super) fn padded_filter_bytes(blocks: u64) -> u64 {
    (blocks * FILTER_BLOCK_BYTES).next_multiple_of(BLOCK_BYTES as u64)
}

pub(super) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_128::oneshot_with_seed(seed, bytes) as u64
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Segment {
    folder: Arc<Folder>,
    /// In its folder; a file without a name goes with its last handle.
    name: Option<String>,
    file: File,
    footer: Footer,
    seed: u64,
    fences: Vec<u64>,
    filter: OnceLock<(Filter, Reserved)>,
    /// A manifest names it: it outlives the process.
    kept: AtomicBool,
    _held: Reserved,
}

impl Segment {
    pub fn new(
        cache: &Arc<IndexCache>,
        folder: Arc<Folder>,
        name: Option<String>,
        file: File,
        footer: Footer,
        fences: Vec<u64>,
    ) -> Self {
        let seed = Footer::seed(footer.lineage, footer.id);
        let held = cache.hold(fences.len() as u64 * 8);
        let (filter, kept) = (OnceLock::new(), AtomicBool::new(false));
        Self { folder, name, file, footer, seed, fences, filter, kept, _held: held }
    }

    /// Opens a file that a manifest names; `None` when it is not what that says.
    pub fn open(
        cache: &Arc<IndexCache>,
        folder: &Arc<Folder>,
        name: &str,
        lineage: u128,
        id: u128,
    ) -> Result<Option<Self>, std::io::Error> {
        let file = File::open(folder.path().join(name))?;
        let length = file.metadata()?.len();
        let Some(at) = length.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        let mut bytes = vec![0; FOOTER_BYTES];
        file.read_exact_at(&mut bytes, at)?;
        let Some(footer) = Footer::of_bytes(&bytes) else { return Ok(None) };
        if (footer.lineage, footer.id) != (lineage, id) || footer.file_bytes() != Some(length) {
            return Ok(None);
        }
        let mut bytes = vec![0; footer.blocks() as usize * 8];
        file.read_exact_at(&mut bytes, at - footer.blocks() * 8)?;
        if checksum(Footer::seed(lineage, id), &bytes) != footer.fences_sum {
            return Ok(None);
        }
        let fences = bytes.chunks_exact(8).map(|fence| number(fence) as u64).collect();
        let segment = Self::new(cache, folder.clone(), Some(name.to_owned()), file, footer, fences);
        segment.keep();
        Ok(Some(segment))
    }

    /// The name of a segment's file.
    pub fn name_of(id: u128) -> String {
        format!("{id:032x}.segment")
    }

    pub fn entries(&self) -> u64 {
        self.footer.entries
    }

    pub fn id(&self) -> u128 {
        self.footer.id
    }

    pub fn bytes(&self) -> u64 {
        self.footer.file_bytes().unwrap_or(0)
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The file stays when the process ends.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The file goes when nobody reads it any more.
    pub fn doom(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }

    fn place(&self) -> String {
        self.folder.path().join(self.name.as_deref().unwrap_or("a file without a name")).display().to_string()
    }

    fn damaged(&self) -> IndexError {
        IndexError::Damaged { place: self.place() }
    }

    fn io(&self, source: std::io::Error) -> IndexError {
        // That it ends too early is damage, not trouble with the disk.
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            return self.damaged();
        }
        IndexError::Io { place: self.place(), source }
    }

    /// Reads the filter into memory, where the budget has room for it. Blocks.
    pub fn load_filter(&self, cache: &Arc<IndexCache>) -> Result<(), IndexError> {
        if self.filter.get().is_some() || self.footer.filter_blocks == 0 {
            return Ok(());
        }
        let Some(reserved) = cache.reserve(self.footer.filter_bytes()) else { return Ok(()) };
        let mut bytes = vec![0; self.footer.filter_bytes() as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(|cause| self.io(cause))?;
        if checksum(self.seed, &bytes) != self.footer.filter_sum {
            return Err(self.damaged());
        }
        bytes.truncate((self.footer.filter_blocks * FILTER_BLOCK_BYTES) as usize);
        // Another thread may have been first; then this one's goes.
        drop(self.filter.set((Filter::of_bytes(&bytes), reserved)));
        Ok(())
    }

    /// Whether it lacks a filter for which there is room.
    pub fn wants_filter(&self, cache: &IndexCache) -> bool {
        let bytes = self.footer.filter_bytes();
        bytes > 0 && self.filter.get().is_none() && cache.has_room(bytes)
    }

    #[cfg(test)]
    pub fn has_filter(&self) -> bool {
        self.filter.get().is_some()
    }

    fn entries_of(&self, block: u64) -> usize {
        (self.footer.entries - block * BLOCK_ENTRIES as u64).min(BLOCK_ENTRIES as u64) as usize
    }

    /// Fills `bytes`, whole blocks, from a block on.
    fn read_blocks(&self, first: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        let offset = self.footer.filter_bytes() + first * BLOCK_BYTES as u64;
        self.file.read_exact_at(bytes, offset).map_err(|cause| self.io(cause))?;
        for (number_in, block) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            let (told, sum) = block.split_at(BLOCK_BYTES - SUM_BYTES);
            if number(sum) as u64 != checksum(self.seed.wrapping_add(number_in), told) {
                return Err(self.damaged());
            }
        }
        Ok(())
    }

    /// Tells `out` every entry of these keys, which are ascending, in file and row of rows that may be dead. Blocks.
    pub fn find(&self, keys: &[u128], counters: &Counters, out: &mut Vec<Entry>) -> Result<(), IndexError> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let mut held = None;
        let mut read = 0;
        for &key in keys {
            if self.filter.get().is_some_and(|(filter, _)| !filter.may_have(key)) {
                continue;
            }
            let fence = (key >> 64) as u64;
            // Keys with the same upper half may begin in the block before the first that begins with it.
            let mut block = self.fences.partition_point(|first| *first < fence).saturating_sub(1) as u64;
            while self.fences.get(block as usize).is_some_and(|first| *first <= fence) {
                if held != Some(block) {
                    self.read_blocks(block, &mut bytes)?;
                    held = Some(block);
                    read += 1;
                }
                let entries = &bytes.as_chunks::<ENTRY_BYTES>().0[..self.entries_of(block)];
                let first = entries.partition_point(|entry| Entry::of_bytes(entry).key < key);
                let found = entries[first..].iter().map(|entry| Entry::of_bytes(entry));
                out.extend(found.take_while(|entry| entry.key == key));
                block += 1;
            }
        }
        counters.blocks_read.fetch_add(read, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let Some(name) = self.name.as_ref().filter(|_| !self.kept.load(Ordering::Relaxed)) else { return };
        let path = self.folder.path().join(name);
        if let Err(cause) = std::fs::remove_file(&path)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(file = %path.display(), %cause, "a file of the key index is left behind");
        }
    }
}

/// Blocks that are read at once by whoever reads all of them.
const READ_BLOCKS: u64 = 64;

/// All entries of a segment in their order.
pub(super) struct Entries<'a> {
    segment: &'a Segment,
    bytes: Vec<u8>,
    /// Of `bytes`.
    first: u64,
    next: u64,
}

impl<'a> Entries<'a> {
    pub fn of(segment: &'a Segment) -> Self {
        Self { segment, bytes: Vec::new(), first: 0, next: 0 }
    }

    pub fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        if self.next == self.segment.entries() {
            return Ok(None);
        }
        let block = self.next / BLOCK_ENTRIES as u64;
        let mut place = (block - self.first) as usize * BLOCK_BYTES;
        if place >= self.bytes.len() {
            let blocks = READ_BLOCKS.min(self.segment.footer.blocks() - block);
            self.bytes.resize(blocks as usize * BLOCK_BYTES, 0);
            self.segment.read_blocks(block, &mut self.bytes)?;
            (self.first, place) = (block, 0);
        }
        place += (self.next % BLOCK_ENTRIES as u64) as usize * ENTRY_BYTES;
        self.next += 1;
        Ok(Some(Entry::of_bytes(&self.bytes[place..])))
    }
}
