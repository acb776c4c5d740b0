//! Several segments become one, without what is dead: in the background while a table is in use, and at the end of building
//! an index, where it also tells whether two rows share a key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringTreemap;

use super::super::data_file::DataFile;
use super::super::locator::{FileId, RowAddress};
use super::cache::{Folder, IndexCache};
use super::error::IndexError;
use super::segment::{Entries, Entry, Segment};
use super::segment_writer::SegmentWriter;

/// More are merged whatever their sizes: a lookup may have to ask each.
const SEGMENTS_MAX: usize = 8;

/// So many of about the same size are merged.
const TIER: usize = 4;

/// Entries that are dead are tolerated up to so many, and to as many as rows.
const DEAD_ENTRIES: u64 = 1 << 20;

/// Which rows live.
pub(super) struct Liveness(BTreeMap<FileId, RoaringTreemap>);

impl Liveness {
    pub fn of(files: &BTreeMap<FileId, DataFile>) -> Self {
        Self(files.iter().map(|(&id, file)| (id, file.deleted.clone())).collect())
    }

    fn has(&self, at: RowAddress) -> bool {
        self.0.get(&at.file).is_some_and(|deleted| !deleted.contains(u64::from(at.row)))
    }
}

/// What came of a merge.
#[derive(Debug)]
pub(super) struct Merged {
    /// `None` where nothing lives.
    pub segment: Option<Segment>,
    /// Live rows that have the key of another one.
    pub twice: u64,
}

/// Those of `segments` that are to be merged next; none if it is well as it is.
pub(super) fn choose(segments: &[Arc<Segment>], live_rows: u64) -> Vec<Arc<Segment>> {
    let mut sorted = segments.to_vec();
    sorted.sort_by_key(|segment| segment.entries());
    let entries: u64 = sorted.iter().map(|segment| segment.entries()).sum();
    if entries > 2 * live_rows + DEAD_ENTRIES {
        return sorted;
    }
    let mut sum = 0;
    let mut count = 0;
    for segment in &sorted {
        if count > 1 && segment.entries() > sum {
            break;
        }
        sum += segment.entries();
        count += 1;
    }
    if count >= TIER {
        sorted.truncate(count);
    } else if sorted.len() > SEGMENTS_MAX {
        sorted.truncate(TIER.max(sorted.len() - SEGMENTS_MAX + 1));
    } else {
        sorted.clear();
    }
    sorted
}

/// Merges segments; `None` when it was `cancelled`. Blocks.
pub(super) fn merge(
    cache: &Arc<IndexCache>,
    folder: &Arc<Folder>,
    lineage: u128,
    segments: &[Arc<Segment>],
    liveness: &Liveness,
    cancelled: &AtomicBool,
) -> Result<Option<Merged>, IndexError> {
    let entries = segments.iter().map(|segment| segment.entries()).sum();
    let mut writer = SegmentWriter::create(cache, folder, lineage, entries)?;
    let mut inputs: Vec<(Entries<'_>, Entry)> = Vec::with_capacity(segments.len());
    for segment in segments {
        let mut input = Entries::of(segment);
        if let Some(first) = input.next()? {
            inputs.push((input, first));
        }
    }
    let (mut last, mut read, mut written, mut twice) = (None, 0_u64, 0_u64, 0);
    while let Some(least) = (0..inputs.len()).min_by_key(|&place| inputs[place].1.key) {
        read += 1;
        if read.is_multiple_of(1 << 16) && cancelled.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (input, entry) = &mut inputs[least];
        let taken = *entry;
        match input.next()? {
            Some(next) => *entry = next,
            None => drop(inputs.swap_remove(least)),
        }
        if liveness.has(taken.at) {
            twice += u64::from(last == Some(taken.key));
            last = Some(taken.key);
            writer.add(taken)?;
            written += 1;
        }
    }
    let segment = writer.finish()?;
    Ok(Some(Merged { segment: (written > 0).then_some(segment), twice }))
}
