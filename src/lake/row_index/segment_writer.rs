//! Writing a segment: entries come in the order of their keys, and memory is needed for a block and the fences.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use twox_hash::xxhash3_128;

use super::super::locator::{MemoryLocator, RowAddress};
use super::cache::{Folder, IndexCache, make};
use super::error::IndexError;
use super::filter::{FilterWriter, filter_blocks};
use super::segment::{BLOCK_BYTES, BLOCK_ENTRIES, Entry, Footer, SUM_BYTES, Segment, checksum, padded_filter_bytes};

/// Bytes that go to the file at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A part of the file, written from its beginning on.
struct Region {
    file: File,
    offset: u64,
    sum: xxhash3_128::Hasher,
}

impl Write for Region {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        self.sum.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The name that a file has until it is whole. What is still called so in the end goes.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What can't be removed is swept when the table is opened.
        drop(std::fs::remove_file(&self.0));
    }
}

/// See the module text.
pub(super) struct SegmentWriter {
    cache: Arc<IndexCache>,
    folder: Arc<Folder>,
    /// `None` for a file without a name.
    name: Option<String>,
    unfinished: Option<Unfinished>,
    file: File,
    lineage: u128,
    id: u128,
    seed: u64,
    filter: FilterWriter<BufWriter<Region>>,
    filter_blocks: u64,
    blocks: BufWriter<Region>,
    block: Vec<u8>,
    fences: Vec<u64>,
    entries: u64,
}

impl SegmentWriter {
    /// For at most `entries_max` entries.
    pub fn create(
        cache: &Arc<IndexCache>,
        folder: &Arc<Folder>,
        lineage: u128,
        entries_max: u64,
    ) -> Result<Self, IndexError> {
        let id = uuid::Uuid::new_v4().as_u128();
        let name = folder.keeps().then(|| Segment::name_of(id));
        let unfinished = name.as_ref().map(|name| Unfinished(folder.path().join(format!("{name}.unfinished"))));
        let open = || {
            // Somebody may have deleted it while we were running.
            make(&folder.path())?;
            let file = match &unfinished {
                Some(Unfinished(path)) => {
                    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?
                }
                None => tempfile::tempfile_in(folder.path())?,
            };
            let (of_filter, of_blocks) = (file.try_clone()?, file.try_clone()?);
            Ok::<_, std::io::Error>((file, of_filter, of_blocks))
        };
        let opened = match open() {
            // Just now.
            Err(cause) if cause.kind() == ErrorKind::NotFound => open(),
            other => other,
        };
        let (file, of_filter, of_blocks) = opened.map_err(|cause| folder.io(cause))?;
        let seed = Footer::seed(lineage, id);
        let filter_blocks = filter_blocks(entries_max);
        let region = |file, offset| {
            BufWriter::with_capacity(BUFFER_BYTES, Region { file, offset, sum: xxhash3_128::Hasher::with_seed(seed) })
        };
        Ok(Self {
            cache: cache.clone(),
            folder: folder.clone(),
            name,
            unfinished,
            file,
            lineage,
            id,
            seed,
            filter: FilterWriter::new(region(of_filter, 0), filter_blocks),
            filter_blocks,
            blocks: region(of_blocks, padded_filter_bytes(filter_blocks)),
            block: Vec::with_capacity(BLOCK_BYTES),
            fences: Vec::new(),
            entries: 0,
        })
    }

    /// The next entry: its key is not below the last one's.
    pub fn add(&mut self, entry: Entry) -> Result<(), IndexError> {
        self.try_add(entry).map_err(|cause| self.folder.io(cause))
    }

    fn try_add(&mut self, entry: Entry) -> std::io::Result<()> {
        if self.block.is_empty() {
            self.fences.push((entry.key >> 64) as u64);
        }
        self.block.extend(entry.to_bytes());
        self.filter.add(entry.key)?;
        self.entries += 1;
        if self.entries.is_multiple_of(BLOCK_ENTRIES as u64) { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> std::io::Result<()> {
        self.block.resize(BLOCK_BYTES - SUM_BYTES, 0);
        let number = self.fences.len() as u64 - 1;
        let sum = checksum(self.seed.wrapping_add(number), &self.block);
        self.block.extend(sum.to_be_bytes());
        self.blocks.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// The segment, once it is safely on disk. Its file goes with it unless it is kept.
    pub fn finish(self) -> Result<Segment, IndexError> {
        let folder = self.folder.clone();
        self.try_finish().map_err(|cause| folder.io(cause))
    }

    fn try_finish(mut self) -> std::io::Result<Segment> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.blocks.flush()?;
        let mut filter = self.filter.finish()?;
        let padding = padded_filter_bytes(self.filter_blocks) - self.filter_blocks * super::filter::FILTER_BLOCK_BYTES;
        filter.write_all(&vec![0; padding as usize])?;
        filter.flush()?;
        let fences: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_be_bytes()).collect();
        let footer = Footer {
            lineage: self.lineage,
            id: self.id,
            entries: self.entries,
            filter_blocks: self.filter_blocks,
            filter_sum: filter.get_ref().sum.finish_128() as u64,
            fences_sum: checksum(self.seed, &fences),
        };
        let end = self.blocks.get_ref().offset;
        self.file.write_all_at(&fences, end)?;
        self.file.write_all_at(&footer.to_bytes(), end + fences.len() as u64)?;
        if let (Some(name), Some(Unfinished(path))) = (&self.name, &self.unfinished) {
            self.file.sync_data()?;
            match std::fs::rename(path, path.with_file_name(name)) {
                // Somebody has deleted the folder. What we have open goes with the process; a manifest that names it is refused.
                Err(cause) if cause.kind() == ErrorKind::NotFound => self.name = None,
                renamed => renamed?,
            }
        }
        let counters = &self.cache.counters;
        counters.segments_written.fetch_add(1, Ordering::Relaxed);
        counters.bytes_written.fetch_add(self.file.metadata()?.len(), Ordering::Relaxed);
        Ok(Segment::new(&self.cache, self.folder, self.name, self.file, footer, self.fences))
    }
}

/// Writes what is in memory as a segment, without what is dead already. Blocks.
pub(super) fn write_layer(
    cache: &Arc<IndexCache>,
    folder: &Arc<Folder>,
    lineage: u128,
    layer: &MemoryLocator,
) -> Result<Segment, IndexError> {
    let mut writer = SegmentWriter::create(cache, folder, lineage, layer.len() as u64)?;
    let mut sorted: Vec<(u128, RowAddress)> = Vec::new();
    for shard in layer.shards() {
        sorted.clear();
        sorted.extend(shard.iter().map(|(key, at)| (key.order(), *at)));
        sorted.sort_unstable_by_key(|(key, _)| *key);
        for &(key, at) in &sorted {
            writer.add(Entry { key, at })?;
        }
    }
    writer.finish()
}
