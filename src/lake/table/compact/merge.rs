//! The result of a compaction becomes part of the table.
//!
//! The commit says that it changes no data, and has the table's own position: readers see the same rows before and after,
//! and a cut through several tables may be made at either version.
//!
//! What died meanwhile is marked in the new files by deletion vectors. In a table that is written copy-on-write the groups of which rows
//! died are given up instead: their other rows lie in newer files by then, which have been written anew with them.

use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use deltalake::kernel::{Action, Remove};
use roaring::RoaringTreemap;

use super::super::super::commit::{Outcome, Stretch};
use super::super::super::data_file::{self, DataFile, WrittenFile};
use super::super::super::locator::{FileId, KeyHash, RowAddress};
use super::super::super::{Error, step};
use super::super::apply::hidden_columns;
use super::super::removal::remove;
use super::super::{REBASE_MAX, Table};
use super::job::{Compacted, Input};
use crate::config::WriteMode;
use crate::schema::RowIdentity;

/// What became of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMerged {
    Applied {
        version: u64,
        files_before: u64,
        files_after: u64,
        /// Dead rows that no file has any more.
        rows_purged: u64,
        bytes_before: u64,
        bytes_after: u64,
    },
    /// All files that were to be replaced are gone, the table has another shape or was opened anew, or rows are being put
    /// right. What was written is removed.
    Void,
}

/// A group's files in the table as it is now.
struct Placed {
    /// By the ids that the old files have: where their live rows begin among the rows written, and what was deleted when
    /// the job began.
    old: BTreeMap<FileId, (u64, RoaringTreemap)>,
    /// Where each new file begins among the rows written, and those of its rows that are dead by now.
    new: Vec<(u64, RoaringTreemap)>,
}

impl Placed {
    /// Whether all the rows written are live still.
    fn is_whole(&self) -> bool {
        self.new.iter().all(|(_, dead)| dead.is_empty())
    }

    /// Which of the rows written an old row became: their file, as a number in the group, and the row there.
    fn moved(&self, address: RowAddress) -> Option<(usize, u32)> {
        let (base, deleted) = self.old.get(&address.file)?;
        let row = u64::from(address.row);
        let written = base + row - deleted.rank(row);
        let file = self.new.partition_point(|(begins, _)| *begins <= written).checked_sub(1)?;
        Some((file, (written - self.new[file].0) as u32))
    }
}

/// The commit's actions, and what it makes of each new file; `None` where no row is left.
#[derive(Default)]
struct Replaced {
    actions: Vec<Action>,
    files: Vec<Vec<Option<DataFile>>>,
    /// The deletion vectors' object.
    vectors: Option<String>,
}

impl Table {
    /// Puts what a job wrote in the place of the files it read, with one commit. When this fails, the table may or may not
    /// be so: open it again.
    pub async fn merge_compaction(&mut self, mut compacted: Compacted) -> Result<CompactionMerged, Error> {
        for attempt in 0..=REBASE_MAX {
            if attempt > 0 {
                self.reload().await?;
            }
            let Some(placed) = self.place_groups(&mut compacted).await else {
                compacted.discard().await;
                return Ok(CompactionMerged::Void);
            };
            let replaced = self.replace(&compacted, &placed).await?;
            // Nothing was committed at the source between the table's position and itself.
            let stretch = Stretch { after: Some(self.position().to_owned()), ..self.note.stretch.clone() };
            let note = self.next_note(stretch);
            step::reached("compact.written").await;
            match self.put(&note, "OPTIMIZE", None, &replaced.actions).await? {
                Outcome::Landed => {
                    step::reached("compact.committed").await;
                    let merged = tally(&compacted, &replaced, self.version + 1);
                    let unused = self.settle_compaction(compacted, &placed, replaced).await?;
                    self.landed(note);
                    self.tend_index().await?;
                    self.discard(&unused).await;
                    return Ok(merged);
                }
                Outcome::Taken { theirs } => {
                    self.discard(&replaced.vectors.into_iter().collect::<Vec<_>>()).await;
                    self.give_way(&theirs)?;
                }
            }
        }
        Err(self.overtaken())
    }

    /// `None` where the job is void. Groups that can't be merged are left out of it.
    async fn place_groups(&self, compacted: &mut Compacted) -> Option<Vec<Placed>> {
        if compacted.ticket != self.ticket() || !self.may_be_compacted() {
            return None;
        }
        let by_path: HashMap<&str, FileId> =
            self.files.iter().map(|(&id, file)| (file.add.path.as_str(), id)).collect();
        let groups = compacted.groups.iter();
        let placed: Option<Vec<Placed>> =
            groups.map(|(inputs, written)| self.place_group(inputs, written, &by_path)).collect();
        let mut placed = placed?;
        if self.terms.mode == WriteMode::CopyOnWrite {
            compacted.retain(&placed.iter().map(Placed::is_whole).collect::<Vec<bool>>()).await;
            placed.retain(Placed::is_whole);
        }
        placed.iter().any(|group| !group.old.is_empty()).then_some(placed)
    }

    fn place_group(
        &self,
        inputs: &[Input],
        written: &[WrittenFile],
        by_path: &HashMap<&str, FileId>,
    ) -> Option<Placed> {
        let (mut old, mut dead, mut base) = (BTreeMap::new(), RoaringTreemap::new(), 0);
        for input in inputs {
            let Some(&id) = by_path.get(input.add.path.as_str()) else {
                // Each of its rows was deleted, or lies in another file by now.
                dead.insert_range(base..base + input.live_rows());
                base += input.live_rows();
                continue;
            };
            let file = self.files.get(&id).filter(|file| file.rows == input.rows)?;
            // Rows come back when another engine restores a table.
            if !input.deleted.is_subset(&file.deleted) {
                return None;
            }
            for row in &file.deleted - &input.deleted {
                dead.insert(base + row - input.deleted.rank(row));
            }
            old.insert(id, (base, input.deleted.clone()));
            base += input.live_rows();
        }
        let mut new = Vec::with_capacity(written.len());
        let mut begins = 0;
        let mut dead = dead.into_iter().peekable();
        for file in written {
            let mut of_file = RoaringTreemap::new();
            while let Some(row) = dead.next_if(|row| *row < begins + file.rows) {
                of_file.insert(row - begins);
            }
            new.push((begins, of_file));
            begins += file.rows;
        }
        Some(Placed { old, new })
    }

    /// Makes the commit's actions, and the deletion vectors that it needs.
    async fn replace(&self, compacted: &Compacted, placed: &[Placed]) -> Result<Replaced, Error> {
        let now = Utc::now().timestamp_millis();
        let mut replaced = Replaced::default();
        let (mut shrunk_places, mut shrunk) = (Vec::new(), Vec::new());
        for (group, (placed, (_, written))) in placed.iter().zip(&compacted.groups).enumerate() {
            for file in placed.old.keys().filter_map(|id| self.files.get(id)) {
                let gone = Remove { data_change: false, ..remove(&file.add, now) };
                replaced.actions.push(Action::Remove(gone));
            }
            let mut files = Vec::with_capacity(written.len());
            for (place, (file, (_, dead))) in written.iter().zip(&placed.new).enumerate() {
                let mut add = file.add.clone();
                data_file::leave_out(&mut add, hidden_columns(&self.shape));
                let file = DataFile { add, rows: file.rows, deleted: dead.clone() };
                files.push(None);
                if dead.is_empty() {
                    files[place] = Some(file);
                } else if file.live_rows() > 0 {
                    shrunk_places.push((group, place));
                    shrunk.push(file);
                }
            }
            replaced.files.push(files);
        }
        if !shrunk.is_empty() {
            let (files, vectors) = self.view(None).mark(shrunk).await?;
            replaced.vectors = Some(vectors);
            for ((group, place), file) in shrunk_places.into_iter().zip(files) {
                replaced.files[group][place] = Some(file);
            }
        }
        for file in replaced.files.iter_mut().flatten().flatten() {
            file.add.data_change = false;
            replaced.actions.push(Action::Add(file.add.clone()));
        }
        Ok(replaced)
    }

    /// The commit has landed: rows move in memory as well. Returns the files of which no row is left.
    async fn settle_compaction(
        &mut self,
        compacted: Compacted,
        placed: &[Placed],
        replaced: Replaced,
    ) -> Result<Vec<String>, Error> {
        let mut unused = Vec::new();
        for (((_, written), placed), files) in compacted.groups.into_iter().zip(placed).zip(replaced.files) {
            let ids: Vec<FileId> = files.iter().map(|_| self.take_file_id()).collect();
            let keys: Vec<Vec<KeyHash>> = written
                .into_iter()
                .zip(&files)
                .map(|(file, kept)| {
                    if kept.is_none() {
                        unused.push(file.add.path);
                    }
                    file.keys
                })
                .collect();
            self.move_keys(placed, &ids, keys).await?;
            ids.iter().for_each(|&id| self.locator.has_all_of(id));
            for id in placed.old.keys() {
                self.files.remove(id);
            }
            self.files.extend(ids.into_iter().zip(files).filter_map(|(id, file)| Some((id, file?))));
        }
        Ok(unused)
    }

    /// Tells the index where the group's rows lie from now on; all that a compaction asks of it.
    async fn move_keys(&mut self, placed: &Placed, ids: &[FileId], keys: Vec<Vec<KeyHash>>) -> Result<(), Error> {
        match self.schema().identity {
            RowIdentity::AppendOnly => Ok(()),
            RowIdentity::Key => {
                for ((keys, &file), (_, dead)) in keys.into_iter().zip(ids).zip(&placed.new) {
                    for (row, key) in (0_u32..).zip(keys) {
                        if !dead.contains(u64::from(row)) {
                            self.locator.insert(key, RowAddress { file, row });
                        }
                    }
                }
                Ok(())
            }
            RowIdentity::WholeRow => self.move_equal_rows(placed, ids, keys).await,
        }
    }

    /// Which of equal rows is which only the index knows: it is asked for all that lie in the old files.
    async fn move_equal_rows(&mut self, placed: &Placed, ids: &[FileId], keys: Vec<Vec<KeyHash>>) -> Result<(), Error> {
        let found = self.view(None).equal_rows(keys.concat()).await?;
        let moved = |(key, address): (KeyHash, RowAddress)| {
            let (file, row) = placed.moved(address)?;
            Some((key, RowAddress { file: ids[file], row }))
        };
        let moves: Vec<(KeyHash, RowAddress)> = found.into_iter().filter_map(moved).collect();
        let live: u64 = placed.old.keys().filter_map(|id| self.files.get(id)).map(DataFile::live_rows).sum();
        if moves.len() as u64 != live {
            return Err(Error::Table {
                table: self.name().to_string(),
                finding: format!("{live} rows were compacted, and the index knows {} of them", moves.len()),
                remedy: "report this as a defect of lakeward; a restart rebuilds the index".to_owned(),
            });
        }
        for (key, address) in moves {
            self.locator.insert(key, address);
        }
        Ok(())
    }
}

fn tally(compacted: &Compacted, replaced: &Replaced, version: u64) -> CompactionMerged {
    let inputs = || compacted.groups.iter().flat_map(|(inputs, _)| inputs);
    let kept = || replaced.files.iter().flatten().flatten();
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    CompactionMerged::Applied {
        version,
        files_before: inputs().count() as u64,
        files_after: kept().count() as u64,
        rows_purged: inputs().map(|input| input.deleted.len()).sum(),
        bytes_before: inputs().map(|input| bytes(input.add.size)).sum(),
        bytes_after: kept().map(|file| bytes(file.add.size)).sum(),
    }
}
