//! Chunks become part of a table that is loading, and a load ends.
//!
//! A chunk's files are in the store already. What the stream has said anything about is left out of them (`removal.rs`),
//! updates that waited for a row of the chunk are applied to it, and all of that is one commit.

use std::collections::BTreeMap;

use deltalake::kernel::Action;
use roaring::RoaringTreemap;

use super::super::changes::{ChangeSet, TableChange};
use super::super::commit::{CommitNote, Outcome};
use super::super::data_file::{self, DataFile, WrittenFile};
use super::super::load_note::LoadNote;
use super::super::locator::{FileId, KeyHash, KeySet, RowAddress};
use super::super::row_index::RowIndex;
use super::super::{Error, step};
use super::apply::{MEMORY_BYTES, Written, hidden_columns};
use super::chunk::StagedChunk;
use super::loading::Loading;
use super::removal::{Left, paths};
use super::{Applied, REBASE_MAX, Table, View};

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    Applied(Applied),
    /// Since its writer was begun the table has changed in a way that the chunk knows nothing of: its columns, a TRUNCATE,
    /// or it was opened anew. The chunk's files are removed; it is to be read again.
    Void,
}

/// A chunk, ready to be committed.
#[derive(Default)]
struct Chosen {
    actions: Vec<Action>,
    /// The chunk's files as they are added, with what is left out; `None` where no row is left, or the file was written anew.
    files: Vec<Option<DataFile>>,
    rewritten: Vec<WrittenFile>,
    /// What waiting updates made of rows of the chunk.
    completed: Vec<WrittenFile>,
    /// The keys of those.
    waited: Vec<KeyHash>,
    /// Objects made on the way.
    made: Vec<String>,
    rows: u64,
}

impl Table {
    /// Makes a chunk's rows part of the table, where it has nothing newer of them, with one commit that has `load` in its
    /// note ([`LoadNote::pending`] is filled in). When this fails, the table may or may not hold them: open it again.
    pub async fn merge_chunk(&mut self, staged: StagedChunk, load: LoadNote, position: &str) -> Result<Merged, Error> {
        if self.loading.is_none() {
            return Err(Error::Table {
                table: self.name().to_string(),
                finding: "a chunk was to be merged into a table that is loaded already".to_owned(),
                remedy: "report this as a defect of lakeward".to_owned(),
            });
        }
        if staged.ticket != self.ticket() {
            staged.discard(self).await;
            return Ok(Merged::Void);
        }
        for attempt in 0..=REBASE_MAX {
            if attempt > 0 {
                self.reload().await?;
            }
            let chosen = self.choose(&staged.files).await?;
            let pending = self.loading.as_ref().is_some_and(|loading| loading.pending.len() > chosen.waited.len());
            let note = CommitNote { load: Some(LoadNote { pending, ..load.clone() }), ..self.next_note(position) };
            step::reached("chunk.staged").await;
            match self.put(&note, "STREAMING UPDATE", None, &chosen.actions).await? {
                Outcome::Landed => {
                    step::reached("chunk.merged").await;
                    return self.settle_chunk(staged, chosen, note).await.map(Merged::Applied);
                }
                Outcome::Taken { theirs } => {
                    self.discard(&chosen.made).await;
                    self.give_way(&theirs)?;
                }
            }
        }
        Err(self.overtaken())
    }

    /// Ends the load with one commit; does nothing when it is ended already.
    pub async fn finish_load(&mut self, position: &str) -> Result<Applied, Error> {
        let (Some(load), Some(loading)) = (&self.note.load, &self.loading) else { return Ok(Applied::default()) };
        let id = load.id;
        if !loading.pending.is_empty() {
            return Err(Error::Table {
                table: self.name().to_string(),
                finding: format!(
                    "{} updates still wait for rows that no chunk has brought, such as those of {}",
                    loading.pending.len(),
                    loading.pending.told(3)
                ),
                remedy: "all chunks must be read once more before its load can end".to_owned(),
            });
        }
        for attempt in 0..=REBASE_MAX {
            if attempt > 0 {
                self.reload().await?;
            }
            let note = CommitNote { load: None, loaded: Some(id), ..self.next_note(position) };
            match self.put(&note, "STREAMING UPDATE", None, &[]).await? {
                Outcome::Landed => {
                    self.landed(note);
                    self.loading = None;
                    return Ok(Applied { version: Some(self.version), ..Applied::default() });
                }
                Outcome::Taken { theirs } => self.give_way(&theirs)?,
            }
        }
        Err(self.overtaken())
    }

    /// Decides which rows of a chunk go in, and writes what that needs.
    async fn choose(&self, files: &[WrittenFile]) -> Result<Chosen, Error> {
        let Some(loading) = &self.loading else { return Ok(Chosen::default()) };
        let mut chosen = Chosen::default();
        let (mut left_out, bases) = self.left_out(loading, files, &mut chosen.waited).await?;
        let done = async {
            if !chosen.waited.is_empty() {
                let written = self.complete_waiting(loading, files, &bases, &chosen.waited, &mut left_out).await?;
                chosen.made.extend(paths(&written.files));
                chosen.completed = written.files;
            }
            self.choose_files(files, left_out, &mut chosen).await
        };
        if let Err(error) = done.await {
            self.discard(&chosen.made).await;
            return Err(error);
        }
        Ok(chosen)
    }

    /// The rows of each file that don't go in; notes the keys that updates wait for, and where those rows are.
    async fn left_out(
        &self,
        loading: &Loading,
        files: &[WrittenFile],
        waited: &mut Vec<KeyHash>,
    ) -> Result<(Vec<RoaringTreemap>, RowIndex), Error> {
        let mut seen = KeySet::default();
        seen.reserve(files.iter().map(|file| file.keys.len()).sum());
        let mut bases = RowIndex::default();
        let mut twice = 0_u64;
        let mut left_out = Vec::with_capacity(files.len());
        for (id, file) in (0..).zip(files) {
            let mut rows = RoaringTreemap::new();
            let places = self.view(None).locate(&file.keys).await?;
            for (row, &key) in (0_u32..).zip(&file.keys) {
                if places.contains_key(&key) || loading.tombstones.contains(&key) {
                    rows.insert(u64::from(row));
                } else if !seen.insert(key) {
                    twice += 1;
                } else if loading.pending.contains(key) {
                    bases.insert(key, RowAddress { file: id, row });
                    waited.push(key);
                }
            }
            left_out.push(rows);
            tokio::task::yield_now().await;
        }
        if twice == 0 {
            return Ok((left_out, bases));
        }
        // Left out, they would be missing unseen. One snapshot has no key twice, unless it is none.
        Err(Error::Table {
            table: self.name().to_string(),
            finding: format!("{twice} rows of a chunk have the key of another one: rows share a key"),
            remedy: "correct `key` in its contract, then load it again with `lakeward resync`".to_owned(),
        })
    }

    /// Applies updates that waited to their rows, which are in the chunk's files and left out there from now on.
    async fn complete_waiting(
        &self,
        loading: &Loading,
        files: &[WrittenFile],
        bases: &RowIndex,
        waited: &[KeyHash],
        left_out: &mut [RoaringTreemap],
    ) -> Result<Written, Error> {
        let selected = loading.pending.select(waited.to_vec()).map_err(|source| self.arrow(source))?;
        let Some(partial) = selected else { return Ok(Written { files: Vec::new(), partial: Vec::new() }) };
        let changes = [TableChange::Rows(partial.rows)];
        let of_chunk: BTreeMap<FileId, DataFile> = (0..)
            .zip(files)
            .map(|(id, file)| (id, DataFile { add: file.add.clone(), rows: file.rows, deleted: RoaringTreemap::new() }))
            .collect();
        let view = View { files: &of_chunk, locator: bases, waiting: None, ..self.view(None) };
        let set = ChangeSet::new(&changes, self.schema())?;
        let collapsed = view.collapse_in_memory(&set).await?;
        let written = view.write_live(&set, &collapsed, None).await?;
        for (id, rows) in collapsed.dying {
            if let Some(of_file) = left_out.get_mut(id as usize) {
                *of_file |= rows;
            }
        }
        Ok(written)
    }

    async fn choose_files(
        &self,
        files: &[WrittenFile],
        left_out: Vec<RoaringTreemap>,
        chosen: &mut Chosen,
    ) -> Result<(), Error> {
        // By its place in the chunk.
        let mut shrunk = Vec::new();
        for (place, (file, deleted)) in files.iter().zip(left_out).enumerate() {
            let mut add = file.add.clone();
            data_file::leave_out(&mut add, hidden_columns(&self.shape));
            let file = DataFile { add, rows: file.rows, deleted };
            let live = file.live_rows();
            chosen.rows += live;
            chosen.files.push(None);
            if live > 0 && live < file.rows {
                shrunk.push((place as FileId, file));
            } else if live > 0 {
                chosen.files[place] = Some(file);
            }
        }
        if !shrunk.is_empty() {
            let places: Vec<usize> = shrunk.iter().map(|(place, _)| *place as usize).collect();
            match self.view(None).shrink(shrunk, MEMORY_BYTES).await? {
                Left::Marked { files, vectors } => {
                    chosen.made.push(vectors);
                    for (place, file) in places.into_iter().zip(files) {
                        chosen.files[place] = Some(file);
                    }
                }
                Left::Rewritten(files) => {
                    chosen.made.extend(paths(&files));
                    chosen.rewritten = files;
                }
            }
        }
        chosen.rows += chosen.completed.iter().map(|file| file.rows).sum::<u64>();
        let adds = chosen.files.iter().flatten().map(|file| &file.add);
        let adds = adds.chain(chosen.rewritten.iter().chain(&chosen.completed).map(|file| &file.add));
        chosen.actions = adds.map(|add| Action::Add(add.clone())).collect();
        Ok(())
    }

    /// The commit has landed.
    async fn settle_chunk(&mut self, staged: StagedChunk, chosen: Chosen, note: CommitNote) -> Result<Applied, Error> {
        self.landed(note);
        let applied =
            Applied { version: Some(self.version), rows_written: chosen.rows, rows_removed: 0, evolved: false };
        if let Some(loading) = &mut self.loading {
            loading.pending.forget(&chosen.waited);
        }
        let mut unused = Vec::new();
        for (written, file) in staged.files.into_iter().zip(chosen.files) {
            match file {
                Some(DataFile { add, rows, deleted }) => {
                    self.take_in(WrittenFile { add, rows, keys: written.keys }, deleted);
                }
                None => unused.push(written.add.path),
            }
        }
        for file in chosen.rewritten.into_iter().chain(chosen.completed) {
            self.take_in_whole(file).await?;
        }
        self.discard(&unused).await;
        self.tend_index().await?;
        Ok(applied)
    }
}
