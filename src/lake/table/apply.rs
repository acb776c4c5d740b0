//! Staging a batch: collapse → locate → carry → write, everything but the commit.
//!
//! A batch in memory is collapsed in one pass and written as one file a partition, and the keys of its rows are kept for
//! the index. Of a batch on disk ([`Spill`](super::super::spill::Spill)) only a few bytes a row are ever in memory: its
//! keys are dealt out to buckets on disk, each collapsed in a pass of its own; which rows live on and which old rows go
//! are bitmaps; then its parts are read once more, in log order, and written to files of a size; and the index learns
//! their keys by reading them back.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use deltalake::kernel::Action;
use roaring::RoaringBitmap;

use super::super::Error;
use super::super::buckets::Buckets;
use super::super::changes::{ChangeSet, TableChange};
use super::super::data_file::{self, DataFile, Roll, TableWriter, WrittenFile};
use super::super::locator::{FileId, KeyHash};
use super::super::merge::{
    CollapseError, Ending, PASS_BYTES_PER_KEY, Pass, PassError, RowNumber, Trail, check_key_changes,
};
use super::super::spill::Spill;
use super::super::vanished::Vanished;
use super::View;
use super::carry::Completed;
use super::pending::Partial;
use super::removal::{Dying, mark_dying};
use super::vanish::Nowhere;
use crate::schema::{Op, RowIdentity, Shape};

/// A batch written to the store and not yet committed.
pub(super) struct Staged {
    pub actions: Vec<Action>,
    pub truncated: bool,
    /// New deletion state of old files; `None` when no live row is left.
    pub touched: Vec<(FileId, Option<DataFile>)>,
    pub gone: Gone,
    /// Files with rows that were there before.
    pub rewritten: Vec<WrittenFile>,
    pub written: Vec<WrittenFile>,
    pub rows_removed: u64,
    pub traces: Traces,
}

/// What a batch leaves behind beside the table's rows, for whoever keeps it in mind.
#[derive(Default)]
pub(super) struct Traces {
    /// Where somebody heeds them: keys that no row is left under.
    pub gone: Vec<KeyHash>,
    /// Keys whose waiting update the batch took up or made moot.
    pub moot: Vec<KeyHash>,
    /// Rows that wait for values from now on.
    pub partial: Vec<Partial>,
    /// Keys that came and went.
    pub nowhere: Nowhere,
    pub vanished: Option<Vanished>,
}

/// What the index must forget.
pub(super) enum Gone {
    Keys(Vec<KeyHash>),
    /// Too many to list by key.
    Rows(Dying),
}

/// Which rows of the batch are written.
pub(super) enum Live {
    /// With their keys, in log order.
    Listed(Vec<(RowNumber, KeyHash)>),
    Marked(RoaringBitmap),
    All,
}

/// What a batch comes down to.
pub(super) struct Collapsed {
    live: Live,
    pub dying: Dying,
    gone: Vec<KeyHash>,
    trail: Trail,
    traces: Traces,
}

/// What was written of a batch, and what can't be yet.
pub(super) struct Written {
    pub files: Vec<WrittenFile>,
    pub partial: Vec<Partial>,
}

impl View<'_> {
    pub(super) async fn stage(&self, changes: &[TableChange]) -> Result<Staged, Error> {
        let set = ChangeSet::new(changes, self.schema)?;
        let spill = set.spill().cloned();
        let _turn = match &spill {
            Some(spill) => Some(spill.turn().await),
            None => None,
        };
        let collapsed = match &spill {
            _ if self.schema.identity == RowIdentity::AppendOnly => self.collapse_additions(&set).await?,
            None => self.collapse_in_memory(&set).await?,
            Some(spill) => self.collapse_on_disk(&set, spill).await?,
        };
        let memory_bytes = spill.as_ref().map_or(MEMORY_BYTES, |spill| spill.memory_bytes());
        let remove = async {
            if set.truncated { Ok(self.remove_all()) } else { self.remove_rows(&collapsed.dying, memory_bytes).await }
        };
        let (Written { files: written, partial }, removal) =
            futures::try_join!(self.write_live(&set, &collapsed, spill.as_deref()), remove)?;
        let mut actions = removal.actions;
        actions.extend(written.iter().map(|file| Action::Add(file.add.clone())));
        Ok(Staged {
            actions,
            truncated: set.truncated,
            touched: removal.touched,
            gone: if spill.is_some() { Gone::Rows(collapsed.dying) } else { Gone::Keys(collapsed.gone) },
            rewritten: removal.rewritten,
            written,
            rows_removed: removal.rows,
            traces: Traces { partial, ..collapsed.traces },
        })
    }

    /// A table whose rows are only ever added needs no index; anything else in its log is an error.
    async fn collapse_additions(&self, set: &ChangeSet<'_>) -> Result<Collapsed, Error> {
        for part in 0..set.parts() {
            let rows = set.load(part).await?;
            if rows.ops.iter().any(|op| *op != Op::Insert) {
                return Err(Error::Table {
                    table: self.schema.name.to_string(),
                    finding: "a row was updated or deleted, which its contract (`without_key = \"append\"`) rules out"
                        .to_owned(),
                    remedy: "remove `without_key` from the contract or give the table a key, then load it \
                             again with `lakeward resync`"
                        .to_owned(),
                });
            }
            if !rows.unchanged.is_empty() {
                return Err(self.misfit(&CollapseError::NothingToFindBy));
            }
        }
        Ok(Collapsed {
            live: Live::All,
            dying: Dying::new(),
            gone: Vec::new(),
            trail: Trail::default(),
            traces: Traces::default(),
        })
    }

    pub(super) async fn collapse_in_memory(&self, set: &ChangeSet<'_>) -> Result<Collapsed, Error> {
        let mut trail = self.trail(set)?;
        let mut pass = Pass::new(self.schema.identity, set.truncated);
        for part in 0..set.parts() {
            let rows = set.load(part).await?;
            check_key_changes(&rows.ops).map_err(|cause| self.misfit(&cause))?;
            let numbered = set.range(part).zip(self.hash(&rows.rows)?).zip(&rows.ops);
            for ((row, key), op) in numbered {
                pass.take(row, key, *op, &mut trail);
            }
        }
        let mut live = Vec::new();
        let (mut dying, mut gone, mut traces) = (Dying::new(), Vec::new(), Traces::default());
        let mut end = |ending| {
            self.trace(ending, &mut traces);
            match ending {
                Ending::Live(row, key) => live.push((row, key)),
                Ending::Touched(key, Some(at)) => {
                    mark_dying(at, &mut dying);
                    gone.push(key);
                }
                Ending::Touched(_, None) | Ending::Gone(..) | Ending::Wavered(_) => {}
            }
        };
        let finished = pass.finish(&trail, self.hasher, self.locator, self.files, &mut end).await;
        finished.map_err(|cause| self.no_outcome(cause))?;
        // The map's order is random; log order keeps neighbours together and commits reproducible.
        live.sort_unstable();
        traces.vanished = self.vanished(set, &traces.nowhere).await?;
        Ok(Collapsed { live: Live::Listed(live), dying, gone, trail, traces })
    }

    async fn collapse_on_disk(&self, set: &ChangeSet<'_>, spill: &std::sync::Arc<Spill>) -> Result<Collapsed, Error> {
        let mut trail = self.trail(set)?;
        let passes = (u64::from(set.rows()) * PASS_BYTES_PER_KEY).div_ceil(spill.memory_bytes() / 4).max(1);
        let mut buckets = Buckets::create(spill, passes as usize)?;
        for part in 0..set.parts() {
            let rows = set.load(part).await?;
            check_key_changes(&rows.ops).map_err(|cause| self.misfit(&cause))?;
            let numbered = set.range(part).zip(self.hash(&rows.rows)?).zip(&rows.ops);
            for ((row, key), op) in numbered {
                buckets.put(row, key, *op)?;
            }
        }
        let mut live = RoaringBitmap::new();
        let (mut dying, mut traces) = (Dying::new(), Traces::default());
        for bucket in buckets.finish()? {
            let mut pass = Pass::new(self.schema.identity, set.truncated);
            for chunk in 0..bucket.chunks() {
                for (row, key, op) in bucket.read(chunk)? {
                    pass.take(row, key, op, &mut trail);
                }
                // Other tasks of this process, the lease's keeper among them, must get their turn.
                tokio::task::yield_now().await;
            }
            let mut end = |ending| {
                self.trace(ending, &mut traces);
                match ending {
                    Ending::Live(row, _) => {
                        live.insert(row);
                    }
                    Ending::Touched(_, Some(at)) => mark_dying(at, &mut dying),
                    Ending::Touched(_, None) | Ending::Gone(..) | Ending::Wavered(_) => {}
                }
            };
            let finished = pass.finish(&trail, self.hasher, self.locator, self.files, &mut end).await;
            finished.map_err(|cause| self.no_outcome(cause))?;
        }
        traces.vanished = self.vanished(set, &traces.nowhere).await?;
        Ok(Collapsed { live: Live::Marked(live), dying, gone: Vec::new(), trail, traces })
    }

    /// Notes of a key's ending what somebody keeps in mind.
    fn trace(&self, ending: Ending, traces: &mut Traces) {
        match ending {
            Ending::Touched(key, _) => {
                if self.waiting.is_some_and(|waiting| waiting.contains(key)) {
                    traces.moot.push(key);
                }
            }
            Ending::Gone(key, held) => {
                if self.heeds_gone {
                    traces.gone.push(key);
                }
                if held.is_none() {
                    traces.nowhere.add(key);
                }
            }
            Ending::Wavered(key) => traces.nowhere.add(key),
            Ending::Live(..) => {}
        }
    }

    /// The trail that this batch needs: of values left out, or of equal rows.
    fn trail(&self, set: &ChangeSet<'_>) -> Result<Trail, Error> {
        match (self.schema.identity, set.has_unchanged()) {
            (RowIdentity::Key, false) => Ok(Trail::default()),
            (RowIdentity::Key, true) | (_, false) => Ok(Trail::new(set.rows() as usize)),
            (_, true) => Err(self.misfit(&CollapseError::NothingToFindBy)),
        }
    }

    pub(super) fn hash(&self, rows: &RecordBatch) -> Result<Vec<KeyHash>, Error> {
        self.hasher.hash_batch(rows).map_err(|source| self.arrow(source))
    }

    pub(super) fn arrow(&self, source: arrow::error::ArrowError) -> Error {
        Error::Arrow { table: self.schema.name.to_string(), source }
    }

    fn misfit(&self, cause: &CollapseError) -> Error {
        cause.of(self.schema)
    }

    fn no_outcome(&self, cause: PassError) -> Error {
        match cause {
            PassError::Collapse(cause) => self.misfit(&cause),
            PassError::Index(cause) => self.index_error(cause),
        }
    }

    pub(super) async fn write_live(
        &self,
        set: &ChangeSet<'_>,
        collapsed: &Collapsed,
        spill: Option<&Spill>,
    ) -> Result<Written, Error> {
        let store = self.log_store.object_store(None);
        let roll = spill.map_or(Roll::Never, |spill| Roll::within(spill.memory_bytes()));
        let mut output = Output { writer: TableWriter::new(self.schema.clone(), store, roll)?, partial: Vec::new() };
        match self.write_rows(set, collapsed, spill, &mut output).await {
            Ok(()) => {
                let mut files = output.writer.close().await?;
                for file in &mut files {
                    data_file::leave_out(&mut file.add, hidden_columns(self.shape));
                }
                Ok(Written { files, partial: output.partial })
            }
            Err(error) => {
                output.writer.abort().await;
                Err(error)
            }
        }
    }

    async fn write_rows(
        &self,
        set: &ChangeSet<'_>,
        collapsed: &Collapsed,
        spill: Option<&Spill>,
        output: &mut Output,
    ) -> Result<(), Error> {
        let memory_bytes = spill.map_or(MEMORY_BYTES, Spill::memory_bytes);
        // Rows whose values are partly elsewhere may be of any size: their number is what one can begin with.
        let mut rows_max = usize::try_from(memory_bytes / FIRST_CARRIED_ROW_BYTES).unwrap_or(usize::MAX).max(1);
        if let Live::Listed(live) = &collapsed.live {
            let (rows, keys): (Vec<RowNumber>, Vec<KeyHash>) = live.iter().copied().unzip();
            let mut at = 0;
            while at < rows.len() {
                let end = if set.has_unchanged() { rows.len().min(at.saturating_add(rows_max)) } else { rows.len() };
                let completed = self.complete_rows(set, &collapsed.trail, &rows[at..end]).await?;
                rows_max = next_rows_max(rows_max, &completed.rows, memory_bytes);
                self.write_completed(completed, &keys[at..end], output).await?;
                at = end;
            }
            return Ok(());
        }
        let bytes_max = spill.map_or(u64::MAX, |spill| spill.memory_bytes() / 16);
        let (mut rows, mut bytes): (Vec<RowNumber>, u64) = (Vec::new(), 0);
        for part in 0..set.parts() {
            let mut of_part: Vec<RowNumber> = match &collapsed.live {
                Live::Marked(live) => live.range(set.range(part)).collect(),
                Live::All | Live::Listed(_) => set.range(part).collect(),
            };
            bytes += set.bytes(part);
            while set.part_has_unchanged(part) && rows.len() + of_part.len() > rows_max {
                let rest = of_part.split_off(rows_max.saturating_sub(rows.len()).min(of_part.len()));
                rows.append(&mut of_part);
                of_part = rest;
                let completed = self.complete_rows(set, &collapsed.trail, &rows).await?;
                rows_max = next_rows_max(rows_max, &completed.rows, memory_bytes);
                self.write_completed(completed, &[], output).await?;
                rows.clear();
            }
            rows.append(&mut of_part);
            if bytes >= bytes_max || part + 1 == set.parts() {
                let completed = self.complete_rows(set, &collapsed.trail, &rows).await?;
                self.write_completed(completed, &[], output).await?;
                rows.clear();
                bytes = 0;
            }
        }
        Ok(())
    }

    /// Writes the rows that are complete and keeps the others; `keys` may be empty.
    async fn write_completed(&self, completed: Completed, keys: &[KeyHash], output: &mut Output) -> Result<(), Error> {
        let Completed { rows, missing } = completed;
        if missing.is_empty() {
            return output.writer.write(&rows, keys).await;
        }
        let mut waiting: Vec<u32> = missing.iter().map(|(row, _)| *row).collect();
        waiting.dedup();
        let whole: Vec<u32> = (0..rows.num_rows() as u32).filter(|row| waiting.binary_search(row).is_err()).collect();
        let keys_of = |picked: &[u32]| -> Vec<KeyHash> {
            picked.iter().filter_map(|&row| keys.get(row as usize)).copied().collect()
        };
        let place = |row| waiting.partition_point(|waiting| *waiting < row) as u32;
        let unchanged = missing.iter().map(|&(row, column)| (place(row), column)).collect();
        let pick = |picked: &[u32]| {
            take_record_batch(&rows, &UInt32Array::from(picked.to_vec())).map_err(|source| self.arrow(source))
        };
        output.writer.write(&pick(&whole)?, &keys_of(&whole)).await?;
        let rows = pick(&waiting)?;
        let keys = if keys.is_empty() { self.hash(&rows)? } else { keys_of(&waiting) };
        output.partial.push(Partial::new(self.schema, rows, unchanged, keys));
        Ok(())
    }
}

/// Where rows go.
struct Output {
    writer: TableWriter,
    partial: Vec<Partial>,
}

/// The columns of a table that readers must not see.
pub(super) fn hidden_columns(shape: &Shape) -> impl Iterator<Item = &str> {
    shape.lake.columns.iter().zip(&shape.hidden).filter(|(_, hidden)| **hidden).map(|(column, _)| column.name.as_str())
}

/// What rows completed from elsewhere may need at a time, or rows written anew, where no batch on disk says so.
pub(super) const MEMORY_BYTES: u64 = 256 << 20;

/// What is assumed of such a row before the first ones have been seen.
const FIRST_CARRIED_ROW_BYTES: u64 = 64 << 10;

/// How many rows to complete next, from how large the last ones were.
fn next_rows_max(rows_max: usize, complete: &RecordBatch, memory_bytes: u64) -> usize {
    if complete.num_rows() == 0 {
        return rows_max;
    }
    let row_bytes = (complete.get_array_memory_size() / complete.num_rows()).max(1) as u64;
    // They are in memory as read, as picked and as merged.
    let fit = usize::try_from(memory_bytes / 16 / row_bytes).unwrap_or(usize::MAX);
    fit.min(rows_max.saturating_mul(8)).max(16)
}
