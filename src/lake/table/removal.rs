//! Rows die: the one place that says what becomes of their files.
//!
//! *Merge on read*: a file stays as it is and gets a deletion vector, which says what of it is gone. *Copy on write*: its other
//! rows are written to a new file, in the order in which they were, and the file itself goes. Files of one partition
//! become new ones of the target size together; one partition is written at a time, so that however many files are touched, memory is
//! that of one writer and 16 bytes for each row, or none where there are too many: then the index reads the new files' keys
//! (docs/write-modes.md).

use std::collections::BTreeMap;

use chrono::Utc;
use deltalake::kernel::{Action, Add, Remove};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::super::data_file::{self, DataFile, Roll, TableWriter, WrittenFile};
use super::super::locator::{FileId, KeyHash, RowAddress};
use super::super::{Error, deletion_vector};
use super::View;
use super::apply::hidden_columns;
use super::copy::{self, BATCH_BYTES, hashes, staying};
use super::evolve::remove_objects;
use crate::config::WriteMode;
use crate::schema::RowIdentity;

/// Old rows that go, by file.
pub(super) type Dying = BTreeMap<FileId, RoaringTreemap>;

/// A file that has lost rows and has others, by its number.
pub(super) type Shrunk = (FileId, DataFile);

/// Of the memory for rows written anew, the share for their keys, and the bytes of each.
const KEYS_SHARE: u64 = 4;

/// A row of the lake goes.
pub(super) fn mark_dying(at: RowAddress, dying: &mut Dying) {
    dying.entry(at.file).or_default().insert(u64::from(at.row));
}

/// Which old files change, and how.
#[derive(Default)]
pub(super) struct Removal {
    /// What each is from now on; `None` for those that go.
    pub touched: Vec<(FileId, Option<DataFile>)>,
    /// Files with rows of those that go.
    pub rewritten: Vec<WrittenFile>,
    pub rows: u64,
    pub actions: Vec<Action>,
}

/// What is left of files that have lost rows, written and not committed.
pub(super) enum Left {
    /// The same files in their order, and the object that has their vectors.
    Marked { files: Vec<DataFile>, vectors: String },
    /// New ones in their place.
    Rewritten(Vec<WrittenFile>),
}

impl View<'_> {
    pub(super) fn file(&self, id: FileId) -> Result<&DataFile, Error> {
        self.files.get(&id).ok_or_else(|| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("the key index names file {id}, which the table does not have"),
            remedy: "report this as a defect of lakeward; a restart rebuilds the index".to_owned(),
        })
    }

    /// A file's action as the log has it.
    fn logged<'a>(&'a self, id: FileId, file: &'a DataFile) -> &'a Add {
        &self.logged.and_then(|files| files.get(&id)).unwrap_or(file).add
    }

    /// Drops every file.
    pub(super) fn remove_all(&self) -> Removal {
        let now = Utc::now().timestamp_millis();
        Removal {
            actions: self.files.iter().map(|(id, file)| Action::Remove(remove(self.logged(*id, file), now))).collect(),
            touched: self.files.keys().map(|&id| (id, None)).collect(),
            rows: self.files.values().map(DataFile::live_rows).sum(),
            ..Removal::default()
        }
    }

    /// Takes rows out of the table, file by file; writing others anew may use so much memory.
    pub(super) async fn remove_rows(&self, dying: &Dying, memory_bytes: u64) -> Result<Removal, Error> {
        let mut removal = Removal { rows: dying.values().map(RoaringTreemap::len).sum(), ..Removal::default() };
        let now = Utc::now().timestamp_millis();
        let mut shrunk = Vec::new();
        for (&id, rows) in dying {
            let file = self.file(id)?;
            removal.actions.push(Action::Remove(remove(self.logged(id, file), now)));
            let deleted = &file.deleted | rows;
            if deleted.len() >= file.rows {
                removal.touched.push((id, None));
            } else {
                shrunk.push((id, DataFile { add: file.add.clone(), rows: file.rows, deleted }));
            }
        }
        self.replace_others(dying, now, &mut removal.actions);
        if shrunk.is_empty() {
            return Ok(removal);
        }
        let ids: Vec<FileId> = shrunk.iter().map(|(id, _)| *id).collect();
        match self.shrink(shrunk, memory_bytes).await? {
            Left::Marked { files, .. } => {
                removal.actions.extend(files.iter().map(|file| Action::Add(file.add.clone())));
                removal.touched.extend(ids.into_iter().zip(files.into_iter().map(Some)));
            }
            Left::Rewritten(files) => {
                removal.actions.extend(files.iter().map(|file| Action::Add(file.add.clone())));
                removal.touched.extend(ids.into_iter().map(|id| (id, None)));
                removal.rewritten = files;
            }
        }
        Ok(removal)
    }

    /// The files that no row leaves, where an evolution made others of them.
    fn replace_others(&self, dying: &Dying, now: i64, actions: &mut Vec<Action>) {
        let Some(logged) = self.logged else { return };
        for (id, file) in self.files.iter().filter(|(id, _)| !dying.contains_key(id)) {
            let Some(before) = logged.get(id).filter(|before| before.add != file.add) else { continue };
            // An action for the same object replaces the one before it.
            if before.add.path != file.add.path {
                actions.push(Action::Remove(remove(&before.add, now)));
            }
            actions.push(Action::Add(file.add.clone()));
        }
    }

    /// Writes what is left of `files`: of each some rows are gone, as `deleted` has it, and others are not.
    pub(super) async fn shrink(&self, files: Vec<Shrunk>, memory_bytes: u64) -> Result<Left, Error> {
        match self.terms.mode {
            WriteMode::MergeOnRead => {
                let (files, vectors) = self.mark(files.into_iter().map(|(_, file)| file).collect()).await?;
                Ok(Left::Marked { files, vectors })
            }
            WriteMode::CopyOnWrite => self.write_anew(&files, memory_bytes).await.map(Left::Rewritten),
        }
    }

    /// Gives files vectors of what is deleted in them, and writes these; returns their object as well.
    pub(super) async fn mark(&self, mut files: Vec<DataFile>) -> Result<(Vec<DataFile>, String), Error> {
        let (vectors, bytes) = deletion_vector::attach(&mut files).map_err(|cause| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("its deletion vectors cannot be written: {cause}"),
            remedy: "report this as a defect of lakeward".to_owned(),
        })?;
        let written = self.log_store.object_store(None).put(&Path::from(vectors.as_str()), bytes.into()).await;
        match written {
            Ok(_) => Ok((files, vectors)),
            Err(source) => {
                let context = format!("lake table {}: writing {vectors}", self.schema.name);
                // It may be there all the same.
                self.discard(&[vectors]).await;
                Err(Error::Store { context, source })
            }
        }
    }

    async fn write_anew(&self, files: &[Shrunk], memory_bytes: u64) -> Result<Vec<WrittenFile>, Error> {
        let mut partitions: BTreeMap<BTreeMap<&str, Option<&str>>, Vec<&Shrunk>> = BTreeMap::new();
        for file in files {
            let values = file.1.add.partition_values.iter();
            let values = values.map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            partitions.entry(values).or_default().push(file);
        }
        let rows: u64 = files.iter().map(|(_, file)| file.live_rows()).sum();
        // Which of equal rows is which can't be read from a file.
        let keeps_keys =
            rows * KeyHash::BYTES as u64 <= memory_bytes / KEYS_SHARE || self.schema.identity == RowIdentity::WholeRow;
        let rewriting = Rewriting { view: self, keeps_keys, memory_bytes };
        let mut written = Vec::new();
        for files in partitions.into_values() {
            match rewriting.write_partition(&files).await {
                Ok(files) => written.extend(files),
                Err(error) => {
                    self.discard(&paths(&written)).await;
                    return Err(error);
                }
            }
        }
        Ok(written)
    }

    async fn discard(&self, paths: &[String]) {
        remove_objects(self.log_store, &self.schema.name.to_string(), paths).await;
    }
}

pub(super) fn paths(files: &[WrittenFile]) -> Vec<String> {
    files.iter().map(|file| file.add.path.clone()).collect()
}

/// Files of which the rows that stay are written to others.
struct Rewriting<'a> {
    view: &'a View<'a>,
    keeps_keys: bool,
    memory_bytes: u64,
}

impl Rewriting<'_> {
    /// Files that have the rows that are left of these, which are of one partition.
    async fn write_partition(&self, files: &[&Shrunk]) -> Result<Vec<WrittenFile>, Error> {
        let view = self.view;
        let roll = Roll::to_size(view.terms.target_file_bytes, self.memory_bytes);
        let mut writer = TableWriter::new(view.schema.clone(), view.log_store.object_store(None), roll)?;
        if let Err(error) = self.copy(files, &mut writer).await {
            writer.abort().await;
            return Err(error);
        }
        let mut written = writer.close().await?;
        for file in &mut written {
            data_file::leave_out(&mut file.add, hidden_columns(view.shape));
        }
        match self.check(files, &mut written).await {
            Ok(()) => Ok(written),
            Err(error) => {
                view.discard(&paths(&written)).await;
                Err(error)
            }
        }
    }

    async fn copy(&self, files: &[&Shrunk], writer: &mut TableWriter) -> Result<(), Error> {
        let view = self.view;
        let store = view.log_store.object_store(None);
        for (_, file) in files {
            let mut stream = data_file::stream_rows(&store, view.schema, &file.add, BATCH_BYTES).await?;
            let mut first = 0;
            while let Some(batch) = stream.try_next().await? {
                let rows = staying(view.schema, &batch, first, &file.deleted).map_err(|source| view.arrow(source))?;
                let keys = if self.keeps_keys { hashes(view.hasher, &rows) } else { Ok(Vec::new()) };
                writer.write(&rows, &keys.map_err(|source| view.arrow(source))?).await?;
                first += batch.num_rows() as u64;
                // Other tasks of this process, the lease's keeper among them, must get their turn.
                tokio::task::yield_now().await;
            }
            if first != file.rows {
                let told = file.rows;
                return Err(self.defect(format!("file {} has {first} rows, and not {told}", file.add.path)));
            }
        }
        Ok(())
    }

    /// That every row is there, in one partition; and equal rows get the keys that they have.
    async fn check(&self, files: &[&Shrunk], written: &mut [WrittenFile]) -> Result<(), Error> {
        let live: u64 = files.iter().map(|(_, file)| file.live_rows()).sum();
        copy::check(live, files.len(), written).map_err(|finding| self.defect(finding))?;
        if self.view.schema.identity == RowIdentity::WholeRow {
            self.tell_equal_rows_apart(files, written).await?;
        }
        Ok(())
    }

    /// Puts the key of each row in the place of its content's hash. Which of equal rows is which only the index knows: it is
    /// asked for all of them, and those that lie in the old files are found in the new ones by their rank.
    async fn tell_equal_rows_apart(&self, files: &[&Shrunk], written: &mut [WrittenFile]) -> Result<(), Error> {
        let mut begins = BTreeMap::new();
        let mut rows = 0;
        for (id, file) in files {
            begins.insert(*id, (rows, &file.deleted));
            rows += file.live_rows();
        }
        let mut keys: Vec<KeyHash> = written.iter_mut().flat_map(|file| std::mem::take(&mut file.keys)).collect();
        let mut named = 0;
        for (key, at) in self.view.equal_rows(keys.clone()).await? {
            let row = u64::from(at.row);
            let Some((begin, gone)) = begins.get(&at.file).filter(|(_, gone)| !gone.contains(row)) else { continue };
            if let Some(place) = keys.get_mut((begin + row - gone.rank(row)) as usize) {
                *place = key;
                named += 1;
            }
        }
        if named != rows {
            return Err(self.defect(format!("of {rows} rows the index knows {named}")));
        }
        for file in written.iter_mut().rev() {
            file.keys = keys.split_off(keys.len().saturating_sub(file.rows as usize));
        }
        Ok(())
    }

    fn defect(&self, finding: String) -> Error {
        Error::Table {
            table: self.view.schema.name.to_string(),
            finding: format!("its files could not be written anew: {finding}"),
            remedy: "report this as a defect of lakeward; a restart reads the table again".to_owned(),
        }
    }
}

/// The action that takes a file out of the table.
pub(super) fn remove(add: &Add, now: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
        ..Remove::default()
    }
}
