//! Rows that are not as the source has them are put right.
//!
//! A comparison has found them (`lakeward verify --repair`); they are read at the source again, and replace the table's unless
//! the stream has said anything about their keys meanwhile. That is what a *watch* is for, which begins before the rows
//! are read: a row of a file that is newer than the watch was written by the stream (copy-on-write, where files are new for
//! other reasons too, the keys of what it writes are noted), and a key that the stream deleted is noted. What neither concerns
//! is as it was when the watch began, and so the source's row of then is the right one, by the argument of
//! docs/decisions/011-loads-beside-the-stream.md.
//!
//! A row that only the lake has is named by its place: while it lies there, no commit has touched its key since it was found.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use deltalake::kernel::Action;
use uuid::Uuid;

use super::super::commit::{Outcome, Stretch};
use super::super::data_file::{self, Roll, TableWriter, WrittenFile};
use super::super::locator::{FileId, KeyHash, KeySet, RowAddress};
use super::super::{Error, step};
use super::apply::{Gone, MEMORY_BYTES, Staged, Traces, hidden_columns};
use super::removal::{Dying, paths};
use super::{Applied, Table};
use crate::config::WriteMode;

/// What the stream did since it began.
pub(super) struct Watch {
    id: Uuid,
    wrote: Wrote,
    /// Keys that the stream deleted.
    gone: KeySet,
}

/// Which rows the stream wrote.
enum Wrote {
    /// Those of this file and of later ones.
    Since(FileId),
    /// Those of these keys: where files are written anew, a file's number says nothing of its rows.
    Keys(KeySet),
}

impl Watch {
    /// A batch is part of the table that wrote these files and left these keys without a row. Says whether the watch goes on:
    /// not when it can't be known which rows were written.
    pub fn settle(&mut self, gone: &[KeyHash], written: &[WrittenFile]) -> bool {
        self.gone.extend(gone);
        let Wrote::Keys(keys) = &mut self.wrote else { return true };
        keys.extend(written.iter().flat_map(|file| &file.keys));
        written.iter().all(|file| !file.keys.is_empty())
    }

    /// Whether the stream has said anything of a key, whose row is there now.
    fn is_streamed(&self, key: &KeyHash, held: Option<&RowAddress>) -> bool {
        let wrote = match &self.wrote {
            Wrote::Since(first) => held.is_some_and(|address| address.file >= *first),
            Wrote::Keys(keys) => keys.contains(key),
        };
        wrote || self.gone.contains(key)
    }
}

/// What a table is to be put right by.
#[derive(Debug)]
pub struct Repair {
    /// As [`Table::watch`] returned it.
    pub watch: Uuid,
    /// The source's rows, with the table's columns, read after the watch began.
    pub rows: Vec<RecordBatch>,
    /// Rows that only the lake has: path and number in the file.
    pub extra: Vec<(String, u32)>,
}

/// What became of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// `left`: rows that the stream has changed since, so that there is nothing to put right.
    Applied { applied: Applied, left: u64 },
    /// The table's columns have changed since the watch began, it was truncated, or another engine wrote: read it again.
    Void,
}

impl Table {
    /// Begins a watch in place of the one before.
    pub fn watch(&mut self) -> Uuid {
        let id = Uuid::new_v4();
        let wrote = match self.terms.mode {
            WriteMode::MergeOnRead => Wrote::Since(self.next_file),
            WriteMode::CopyOnWrite => Wrote::Keys(KeySet::default()),
        };
        self.watch = Some(Watch { id, wrote, gone: KeySet::default() });
        id
    }

    /// Puts rows right with one commit, and ends the watch. When this fails, the table may or may not hold them: open it again.
    pub async fn repair(&mut self, repair: Repair, position: impl Into<Stretch>) -> Result<Repaired, Error> {
        let Some(watch) = self.watch.take().filter(|watch| watch.id == repair.watch) else {
            return Ok(Repaired::Void);
        };
        let mut left = 0;
        let (mut dying, mut kept) = (Dying::new(), Vec::new());
        let mut seen = KeySet::default();
        for rows in &repair.rows {
            let keys = self.view(None).hash(rows)?;
            let places = self.view(None).locate(&keys).await?;
            let mut keep = Vec::with_capacity(keys.len());
            for &key in &keys {
                let held = places.get(&key);
                let streamed = watch.is_streamed(&key, held);
                let take = !streamed && seen.insert(key);
                left += u64::from(streamed);
                keep.push(take);
                if let Some(address) = held.filter(|_| take) {
                    dying.entry(address.file).or_default().insert(u64::from(address.row));
                }
            }
            let rows = filter_record_batch(rows, &BooleanArray::from(keep.clone()))
                .map_err(|source| Error::Arrow { table: self.name().to_string(), source })?;
            let keys: Vec<KeyHash> = keys.into_iter().zip(keep).filter_map(|(key, take)| take.then_some(key)).collect();
            kept.push((rows, keys));
        }
        for (path, row) in &repair.extra {
            let file = self.files.iter().find(|(_, file)| file.add.path == *path);
            let live = file.filter(|(_, file)| !file.deleted.contains(u64::from(*row)) && u64::from(*row) < file.rows);
            match live {
                Some((&id, _)) => drop(dying.entry(id).or_default().insert(u64::from(*row))),
                None => left += 1,
            }
        }
        if dying.is_empty() && kept.iter().all(|(_, keys)| keys.is_empty()) {
            return Ok(Repaired::Applied { applied: Applied::default(), left });
        }
        let written = self.write_repaired(&kept).await?;
        let removal = self.view(None).remove_rows(&dying, MEMORY_BYTES).await?;
        let mut actions = removal.actions;
        actions.extend(written.iter().map(|file| Action::Add(file.add.clone())));
        let note = self.next_note(position);
        step::reached("repair.staged").await;
        match self.put(&note, "STREAMING UPDATE", None, &actions).await? {
            Outcome::Landed => {
                step::reached("repair.committed").await;
                let staged = Staged {
                    actions,
                    truncated: false,
                    touched: removal.touched,
                    gone: Gone::Rows(dying),
                    rewritten: removal.rewritten,
                    written,
                    rows_removed: removal.rows,
                    traces: Traces::default(),
                };
                let applied = self.settle(None, staged, note).await?;
                Ok(Repaired::Applied { applied, left })
            }
            Outcome::Taken { theirs } => {
                self.discard(&[paths(&removal.rewritten), paths(&written)].concat()).await;
                self.give_way(&theirs)?;
                self.reload().await?;
                Ok(Repaired::Void)
            }
        }
    }

    async fn write_repaired(&self, kept: &[(RecordBatch, Vec<KeyHash>)]) -> Result<Vec<WrittenFile>, Error> {
        let mut writer = TableWriter::new(self.schema().clone(), self.log_store.object_store(None), Roll::SNAPSHOT)?;
        for (rows, keys) in kept {
            if let Err(error) = writer.write(rows, keys).await {
                writer.abort().await;
                return Err(error);
            }
        }
        let mut files = writer.close().await?;
        for file in &mut files {
            data_file::leave_out(&mut file.add, hidden_columns(&self.shape));
        }
        Ok(files)
    }
}
