//! An open Delta table: its live files, where each key lies, and how a batch of changes is applied.
//!
//! The state in memory is that of one version and changes only when a commit has landed. A batch goes (evolve →) collapse →
//! locate → carry → write → commit → settle (see design in ARCHITECTURE.md); an error on the way leaves the state as it
//! was and unreferenced objects in the folder. When another engine committed in between (an OPTIMIZE, say), the table is
//! read again and the same batch is located and written anew on top of it.
//!
//! A table with a key may be loaded in chunks while its changes go on ([`Table::create`], [`ChunkWriter`],
//! [`Table::merge_chunk`], [`Table::finish_load`]), in the open or out of sight until it is swapped in ([`Table::swap`]):
//! docs/decisions/011-loads-beside-the-stream.md. One that is whole may be put right row by row ([`Table::repair`]), and its
//! files may be written anew ([`Table::begin_compaction`]): docs/decisions/012-tables-in-shape.md.

mod apply;
mod carry;
mod chunk;
mod compact;
mod copy;
mod evolve;
mod index;
mod load;
mod loading;
mod merge_chunk;
mod pending;
mod place;
mod removal;
mod repair;
mod swap;
mod vanish;

use std::sync::Arc;

use chrono::Utc;
use deltalake::kernel::{Action, Add};
use deltalake::logstore::LogStoreRef;
use roaring::RoaringTreemap;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::changes::TableChange;
use super::commit::{self, CommitNote, Outcome, Stretch};
use super::data_file::{self, DataFile, WrittenFile};
use super::key::KeyHasher;
use super::load_note::LoadNote;
use super::locator::{FileId, RowAddress};
use super::row_index::{Files, Opened, RowIndex};
use super::store::{Lake, cause_text, unreachable};
use super::{Error, protocol, step};
use crate::config::{WriteMode, WriteTerms};
use crate::schema::{ChangeRecord, RowIdentity, Shape, TableName, TableSchema};
use apply::{Gone, Staged};
pub use chunk::{ChunkWriter, StagedChunk};
pub use compact::{Compacted, Compaction, CompactionGroup, CompactionMerged, CompactionTerms, Eagerness};
use evolve::Evolved;
pub(super) use index::read_deleted;
use index::{KnownFiles, Opening, open_index};
pub(super) use load::{Loaded as LoadedTable, find, load};
use loading::Loading;
pub use merge_chunk::Merged;
use pending::Pending;
pub(super) use place::HIDDEN;
pub use place::Place;
use repair::Watch;
pub use repair::{Repair, Repaired};
pub(super) use swap::LOG;

/// How often the log gets a checkpoint, in commits.
const CHECKPOINT_EVERY: u64 = 50;

/// How often a batch is written anew because another engine committed first.
const REBASE_MAX: u32 = 5;

/// See the module text.
pub struct Table {
    lake: Lake,
    source: String,
    place: Place,
    url: Url,
    log_store: LogStoreRef,
    shape: Arc<Shape>,
    /// How its files are written.
    terms: WriteTerms,
    /// The log's `metaData` action in force, but for the write mode, which is that of `terms`.
    metadata: Value,
    /// The log has another mode: the next commit brings `metadata`.
    untold: bool,
    /// The log's `protocol` action in force.
    protocol: Value,
    hasher: Arc<KeyHasher>,
    /// Of this opening of the table: what was made for another one is void.
    session: Uuid,
    version: u64,
    /// Of lakeward's own last commit, and that commit's version.
    note: CommitNote,
    noted: u64,
    files: Files,
    next_file: FileId,
    locator: RowIndex,
    checkpoint: Option<tokio::task::JoinHandle<()>>,
    /// While the note has a load.
    loading: Option<Loading>,
    /// While somebody reads rows at the source to put them right.
    watch: Option<Watch>,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// `None` when there was nothing to apply.
    pub version: Option<u64>,
    pub rows_written: u64,
    pub rows_removed: u64,
    /// Whether the table has another shape since.
    pub evolved: bool,
}

/// A table as a report shows it.
#[derive(Clone, Debug)]
pub struct TableSummary {
    pub version: u64,
    pub position: String,
    pub rows: u64,
    /// Of a table that is not whole yet.
    pub load: Option<LoadNote>,
    /// The last load that was finished or swapped in.
    pub loaded: Option<Uuid>,
}

/// What a batch is staged against: the table, or what an evolution makes of it.
#[derive(Clone, Copy)]
struct View<'a> {
    terms: WriteTerms,
    shape: &'a Shape,
    schema: &'a Arc<TableSchema>,
    hasher: &'a KeyHasher,
    files: &'a Files,
    locator: &'a RowIndex,
    log_store: &'a LogStoreRef,
    /// The files as the log has them, where that is not how `files` has them.
    logged: Option<&'a Files>,
    /// Updates that wait, of a table that is loading.
    waiting: Option<&'a Pending>,
    /// Whether anybody asks for keys that no row is left under.
    heeds_gone: bool,
}

impl Table {
    /// Opens the table of a source, or `None` when there is none yet. Reads the log and the key columns of every file that
    /// the cached index does not cover. Of a table that is not loaded whole yet, [`Table::load`] tells how far it is.
    pub async fn open(lake: &Lake, source: &str, name: &TableName) -> Result<Option<Self>, Error> {
        Self::open_at(lake, source, name, Place::Open, Opening::First).await
    }

    /// [`Table::open`] for one that is built out of sight.
    pub async fn open_hidden(lake: &Lake, source: &str, name: &TableName, id: Uuid) -> Result<Option<Self>, Error> {
        Self::open_at(lake, source, name, Place::Hidden(id), Opening::First).await
    }

    async fn open_at(
        lake: &Lake,
        source: &str,
        name: &TableName,
        place: Place,
        opening: Opening<'_>,
    ) -> Result<Option<Self>, Error> {
        let first = matches!(opening, Opening::First);
        let Some((mut table, adds, known)) = Self::of_log(lake, source, name, place, opening).await? else {
            return Ok(None);
        };
        if first {
            table.tell_mode(&adds);
        }
        table.take_up(adds, known).await?;
        Ok(Some(table))
    }

    /// [`Table::open`] for [`Table::swap`]: nothing is asked of its rows, so nothing of its files is read. They may be
    /// damaged.
    pub async fn open_to_replace(lake: &Lake, source: &str, name: &TableName) -> Result<Option<Self>, Error> {
        let Some((mut table, adds, _)) = Self::of_log(lake, source, name, Place::Open, Opening::Bare).await? else {
            return Ok(None);
        };
        for add in adds {
            let id = table.take_file_id();
            table.files.insert(id, DataFile { add, rows: 0, deleted: RoaringTreemap::new() });
        }
        Ok(Some(table))
    }

    /// A table as its log describes it, and its files, of which nothing is read yet.
    async fn of_log(
        lake: &Lake,
        source: &str,
        name: &TableName,
        place: Place,
        opening: Opening<'_>,
    ) -> Result<Option<(Self, Vec<Add>, KnownFiles)>, Error> {
        let url = place.url(lake, source, name);
        let Some((log_store, loaded)) = find(lake, source, name, &url).await? else { return Ok(None) };
        let shape = Arc::new(loaded.shape);
        let terms = lake.write_terms(source, name);
        let mut metadata = loaded.metadata;
        let untold = protocol::declare(terms.mode, &mut metadata);
        let session = match &opening {
            Opening::Again(before) => before.session,
            Opening::First | Opening::Bare => Uuid::new_v4(),
        };
        let Opened { index, seed, known, next_file } = open_index(opening, lake, &url, &shape, &metadata).await;
        let hasher = KeyHasher::with_seed(&shape, seed);
        let mut note = loaded.note;
        if let Some(load) = &mut note.load {
            // What waited is lost; a second reading of all chunks finds it.
            load.again |= load.pending;
            load.pending = false;
        }
        let table = Self {
            lake: lake.clone(),
            source: source.to_owned(),
            place,
            url,
            log_store,
            hasher: Arc::new(hasher.map_err(|source| Error::Arrow { table: name.to_string(), source })?),
            session,
            shape,
            terms,
            metadata,
            untold,
            protocol: loaded.protocol,
            version: loaded.version,
            loading: note.load.is_some().then(Loading::default),
            note,
            noted: loaded.noted,
            files: Files::new(),
            next_file,
            locator: index,
            checkpoint: None,
            watch: None,
        };
        Ok(Some((table, loaded.adds, known)))
    }

    /// What a report needs to know of a table, without opening it.
    pub async fn summary(lake: &Lake, source: &str, name: &TableName) -> Result<Option<TableSummary>, Error> {
        let found = find(lake, source, name, &lake.table_url(source, name)).await?;
        Ok(found.map(|(_, loaded)| {
            let rows = loaded.adds.iter().map(data_file::live_rows_told).sum();
            let (load, finished) = (loaded.note.load, loaded.note.loaded);
            let position = loaded.note.stretch.position;
            TableSummary { version: loaded.version, position, rows, load, loaded: finished }
        }))
    }

    pub fn name(&self) -> &TableName {
        &self.shape.lake.name
    }

    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Every column of the data files.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.shape.lake
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// The log position of the last commit that changed this table.
    pub fn position(&self) -> &str {
        &self.note.stretch.position
    }

    /// The changes of the table's columns that lakeward's last commit made, and that commit's version.
    pub fn last_changes(&self) -> (u64, &[ChangeRecord]) {
        (self.noted, &self.note.changes)
    }

    /// Counts the table's schemas, from 1.
    pub fn schema_version(&self) -> u64 {
        self.note.schema_version
    }

    pub fn live_rows(&self) -> u64 {
        self.files.values().map(DataFile::live_rows).sum()
    }

    /// Makes `changes`, whole transactions up to the end of `stretch`, part of the table with one commit. When this fails,
    /// the table may or may not hold them: open it again and compare positions before trying again.
    pub async fn apply(&mut self, changes: &[TableChange], stretch: impl Into<Stretch>) -> Result<Applied, Error> {
        let stretch = stretch.into();
        if changes.is_empty() {
            return Ok(Applied::default());
        }
        for attempt in 0..=REBASE_MAX {
            if attempt > 0 {
                self.reload().await?;
            }
            let evolved = self.evolve(changes).await?;
            if evolved.is_some() {
                step::reached("evolve.spliced").await;
            }
            // A batch that comes to nothing is committed all the same: it takes the version, and so shuts out an earlier
            // put that is still under way.
            let staged = match self.view(evolved.as_ref()).stage(changes).await {
                Ok(staged) => staged,
                Err(error) => {
                    self.discard(&evolved.map(|evolved| evolved.made).unwrap_or_default()).await;
                    return Err(error);
                }
            };
            let note = self.note_of_batch(changes, &staged, &stretch);
            if evolved.is_some() {
                step::reached("evolve.staged").await;
            }
            let metadata = evolved.as_ref().and_then(|evolved| evolved.metadata.as_ref());
            match self.put(&note, "STREAMING UPDATE", metadata, &staged.actions).await? {
                Outcome::Landed => {
                    if evolved.is_some() {
                        step::reached("evolve.committed").await;
                    }
                    return self.settle(evolved, staged, note).await;
                }
                Outcome::Taken { theirs } => {
                    // The version is another's, so nothing can refer to them any more.
                    let mut made = evolved.map(|evolved| evolved.made).unwrap_or_default();
                    made.extend(staged.rewritten.into_iter().chain(staged.written).map(|file| file.add.path));
                    self.discard(&made).await;
                    self.give_way(&theirs)?;
                }
            }
        }
        Err(self.overtaken())
    }

    /// Puts the entry of the next version; `metadata` where the table gets another one.
    async fn put(
        &mut self,
        note: &CommitNote,
        operation: &str,
        metadata: Option<&Value>,
        actions: &[Action],
    ) -> Result<Outcome, Error> {
        let (table, version, id) = (self.name().to_string(), self.version + 1, Uuid::new_v4());
        let features = protocol::features(metadata.unwrap_or(&self.metadata), actions);
        let metadata = metadata.or(self.untold.then_some(&self.metadata));
        let mut text = commit::entry(note, id, operation, metadata, actions, Utc::now())
            .map_err(|cause| Error::Commit { table: table.clone(), version, cause: cause.to_string() })?;
        let lifted = protocol::lifted(&self.protocol, &features);
        if let Some(protocol) = &lifted {
            text = format!("{}\n{text}", protocol::action(protocol));
        }
        let outcome = commit::put(&self.log_store, &table, version, id, &text).await?;
        if outcome == Outcome::Landed {
            self.untold = false;
            if let Some(protocol) = lifted {
                self.protocol = protocol;
            }
        }
        Ok(outcome)
    }

    /// Tells what the table's mode doesn't make good by itself.
    fn tell_mode(&self, adds: &[Add]) {
        let concerns = self.terms.mode == WriteMode::CopyOnWrite && self.place == Place::Open;
        if !concerns || !protocol::asks_for_vectors(&self.protocol) {
            return;
        }
        let files = adds.iter().filter(|add| add.deletion_vector.is_some()).count();
        tracing::warn!(table = %self.name(), files_with_deletion_vectors = files,
            "it gets no deletion vectors any more (write_mode), and files that have some are written anew by and by; but its log \
             goes on asking readers to know them, as that can't be taken back. For readers that don't: stop lakeward, move \
             the folder {} away, and start it again, which loads the table anew", self.url);
    }

    /// The next version is another's: an error if that is a lakeward.
    fn give_way(&self, theirs: &str) -> Result<(), Error> {
        let (table, version) = (self.name().to_string(), self.version + 1);
        if commit::note(theirs).is_some_and(|theirs| theirs.app_id == self.note.app_id) {
            return Err(Error::Fenced { table, version });
        }
        tracing::info!(table, version, "another engine committed first; writing anew on top of it");
        Ok(())
    }

    fn overtaken(&self) -> Error {
        Error::Commit {
            table: self.name().to_string(),
            version: self.version + 1,
            cause: format!("other engines committed first, {REBASE_MAX} times in a row"),
        }
    }

    fn note_of_batch(&self, changes: &[TableChange], staged: &Staged, stretch: &Stretch) -> CommitNote {
        let mut note = self.next_note(stretch.clone());
        note.vanished.clone_from(&staged.traces.vanished);
        note.changes = TableChange::evolutions(changes).map(|evolution| evolution.record.clone()).collect();
        note.schema_version += note.changes.len() as u64;
        if let (Some(load), Some(loading)) = (&mut note.load, &self.loading) {
            load.pending = loading.waits_after(&staged.traces, staged.truncated);
        }
        note
    }

    /// Of a commit that changes nothing but the position.
    fn next_note(&self, stretch: impl Into<Stretch>) -> CommitNote {
        CommitNote {
            batch: self.note.batch + 1,
            stretch: stretch.into(),
            changes: Vec::new(),
            vanished: None,
            ..self.note.clone()
        }
    }

    fn view<'a>(&'a self, evolved: Option<&'a Evolved>) -> View<'a> {
        let shape = evolved.map_or(&self.shape, |evolved| &evolved.shape);
        View {
            terms: self.terms,
            shape,
            schema: &shape.lake,
            hasher: evolved.map_or(&self.hasher, |evolved| &evolved.hasher),
            files: evolved.map_or(&self.files, |evolved| &evolved.files),
            locator: evolved.and_then(|evolved| evolved.locator.as_ref()).unwrap_or(&self.locator),
            log_store: &self.log_store,
            logged: evolved.map(|_| &self.files),
            waiting: match evolved {
                Some(evolved) => evolved.pending.as_ref(),
                None => self.loading.as_ref().map(|loading| &loading.pending),
            },
            heeds_gone: self.loading.is_some() || self.watch.is_some(),
        }
    }

    /// The commit has landed: what was staged is now the table.
    async fn settle(
        &mut self,
        evolved: Option<Evolved>,
        mut staged: Staged,
        note: CommitNote,
    ) -> Result<Applied, Error> {
        let version = self.version + 1;
        if evolved.is_some() || staged.truncated {
            self.watch = None;
        }
        let applied = Applied {
            version: Some(version),
            rows_written: staged.written.iter().map(|file| file.rows).sum(),
            rows_removed: staged.rows_removed,
            evolved: evolved.is_some(),
        };
        if let Some(evolved) = evolved {
            self.take_over(evolved);
        }
        if staged.truncated {
            self.locator.clear();
        }
        let traces = std::mem::take(&mut staged.traces);
        if !self.watch.as_mut().is_none_or(|watch| watch.settle(&traces.gone, &staged.written)) {
            self.watch = None;
        }
        if let Some(loading) = &mut self.loading {
            loading.settle(traces, staged.truncated);
        }
        match &staged.gone {
            Gone::Keys(keys) => self.locator.remove(keys),
            Gone::Rows(dying) if dying.is_empty() => {}
            Gone::Rows(dying) => {
                let dies = |address: RowAddress| {
                    dying.get(&address.file).is_some_and(|rows| rows.contains(u64::from(address.row)))
                };
                self.locator.retain(|address| !dies(address));
            }
        }
        for (id, file) in staged.touched {
            match file {
                Some(file) => {
                    self.files.insert(id, file);
                }
                None => {
                    self.files.remove(&id);
                }
            }
        }
        self.landed(note);
        // Equal rows that were there before have their numbers; those that come get the next ones.
        for file in staged.rewritten.into_iter().chain(staged.written) {
            self.take_in_whole(file).await?;
        }
        self.tend_index().await?;
        Ok(applied)
    }

    /// The entry of the next version is in the log.
    fn landed(&mut self, note: CommitNote) {
        self.version += 1;
        self.note = note;
        self.noted = self.version;
        if self.version.is_multiple_of(CHECKPOINT_EVERY) {
            self.start_checkpoint();
        }
    }

    /// A file that was written with its keys, and those of its rows that are deleted already.
    fn take_in(&mut self, file: WrittenFile, deleted: RoaringTreemap) {
        let id = self.take_file_id();
        for (key, row) in file.keys.into_iter().zip(0..) {
            if !deleted.contains(u64::from(row)) {
                self.locator.insert(key, RowAddress { file: id, row });
            }
        }
        self.locator.has_all_of(id);
        self.files.insert(id, DataFile { add: file.add, rows: file.rows, deleted });
    }

    /// A file of which every row is live. Where its keys were too many to keep, they are read.
    async fn take_in_whole(&mut self, file: WrittenFile) -> Result<(), Error> {
        if file.keys.is_empty() && self.schema().identity != RowIdentity::AppendOnly {
            return self.index_file(file.add).await;
        }
        self.take_in(file, RoaringTreemap::new());
        Ok(())
    }

    fn take_file_id(&mut self) -> FileId {
        let id = self.next_file;
        self.next_file += 1;
        id
    }

    /// Writes a checkpoint in the background; the commit's path does not wait for it, and the table is right without.
    fn start_checkpoint(&mut self) {
        if self.checkpoint.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        let (lake, url, table) = (self.lake.clone(), self.url.clone(), self.shape.lake.name.to_string());
        self.checkpoint = Some(tokio::spawn(async move {
            let written = async {
                let loaded = lake.builder(&url)?.load().await.map_err(|cause| unreachable(&url, &cause))?;
                deltalake::checkpoints::create_checkpoint(&loaded, None)
                    .await
                    .map_err(|cause| unreachable(&url, &cause))
            };
            if let Err(cause) = written.await {
                tracing::warn!(table, cause = cause_text(&cause), "checkpoint not written; the next one will be");
            }
        }));
    }

    /// Waits for background work, so that a process may end, and writes down what the next start can use.
    pub async fn finish(&mut self) {
        if let Some(running) = self.checkpoint.take()
            && let Err(cause) = running.await
        {
            tracing::warn!(table = %self.shape.lake.name, %cause, "the checkpoint task failed");
        }
        self.locator.finish(&self.files).await;
    }

    /// Reads the table anew after a foreign commit. Our own batch number must not have moved. When this fails, the table must
    /// be opened again.
    async fn reload(&mut self) -> Result<(), Error> {
        let (lake, source, name) = (self.lake.clone(), self.source.clone(), self.name().clone());
        let opened = Self::open_at(&lake, &source, &name, self.place, Opening::Again(self)).await?;
        let mut fresh = opened.ok_or_else(|| Error::Table {
            table: self.shape.lake.name.to_string(),
            finding: format!("the table at {} is gone", self.url),
            remedy: "restart to load it again".to_owned(),
        })?;
        if fresh.note.batch != self.note.batch {
            return Err(Error::Fenced { table: self.shape.lake.name.to_string(), version: fresh.version });
        }
        if fresh.shape != self.shape {
            return Err(Error::Table {
                table: self.shape.lake.name.to_string(),
                finding: format!("another engine changed its schema in version {}", fresh.version),
                remedy: "load it again with `lakeward resync`".to_owned(),
            });
        }
        // What is in mind only: no commit but ours changes it.
        fresh.note.clone_from(&self.note);
        fresh.loading = self.loading.take();
        fresh.checkpoint = self.checkpoint.take();
        *self = fresh;
        Ok(())
    }
}
