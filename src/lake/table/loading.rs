//! What a table keeps in mind while it is loaded in chunks.
//!
//! A chunk's row goes in unless the stream has said anything about its key since the load began: then the table has the
//! key, or it is a *tombstone*. Neither tombstones nor updates that wait ([`Pending`]) outlive the process
//! (docs/decisions/011-loads-beside-the-stream.md says why that is right).

use super::super::locator::{KeyHash, KeySet};
use super::Table;
use super::apply::Traces;
use super::pending::Pending;
use crate::lake::LoadNote;

/// Of a table whose load is under way.
#[derive(Default)]
pub(super) struct Loading {
    pub pending: Pending,
    /// Keys that the stream deleted since the table was opened.
    pub tombstones: KeySet,
    /// How often all chunks became void that had been opened before.
    pub voids: u64,
}

impl Loading {
    /// Whether updates will wait once `traces` are settled.
    pub fn waits_after(&self, traces: &Traces, truncated: bool) -> bool {
        let moot = if truncated { self.pending.len() } else { traces.moot.len() };
        !traces.partial.is_empty() || self.pending.len() > moot
    }

    /// The batch of `traces` is part of the table.
    pub fn settle(&mut self, traces: Traces, truncated: bool) {
        if truncated {
            self.pending = Pending::default();
            self.void();
        }
        self.pending.forget(&traces.moot);
        self.tombstones.extend(traces.gone);
        for partial in traces.partial {
            self.pending.add(partial);
        }
    }

    /// What chunks that are opened already have read counts no more.
    pub fn void(&mut self) {
        self.tombstones = KeySet::default();
        self.voids += 1;
    }
}

impl Table {
    /// The load that is under way, as the last commit has it.
    pub fn load(&self) -> Option<&LoadNote> {
        self.note.load.as_ref()
    }

    /// The last load that was finished here or swapped in.
    pub fn loaded(&self) -> Option<uuid::Uuid> {
        self.note.loaded
    }

    /// Counts what makes all chunks void that were opened before: a TRUNCATE, a key that hashes otherwise since its column
    /// changed, [`Table::forget_tombstones`]. [`Table::merge_chunk`] knows of it by itself, if the chunk's writer was begun
    /// before the chunk was opened.
    pub fn truncations(&self) -> u64 {
        self.loading.as_ref().map_or(0, |loading| loading.voids)
    }

    /// Before all chunks are read a second time: what the table holds is visible to chunks that are opened from now on, so
    /// that those bring no row that is deleted here already. Chunks that were opened before are void.
    pub fn forget_tombstones(&mut self) {
        if let Some(loading) = &mut self.loading {
            loading.void();
        }
    }

    /// Updates that wait for rows of chunks to come.
    pub fn pending_rows(&self) -> usize {
        self.loading.as_ref().map_or(0, |loading| loading.pending.len())
    }

    /// Memory that updates hold which wait, and the keys that were deleted.
    pub fn loading_bytes(&self) -> u64 {
        self.loading.as_ref().map_or(0, |loading| {
            loading.pending.bytes() + (loading.tombstones.capacity() * (KeyHash::BYTES + 1)) as u64
        })
    }
}
