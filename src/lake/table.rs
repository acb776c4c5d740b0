//! An open Delta table: its live files, where each key lies, and how a batch of changes is applied.
//!
//! The state in memory is that of one version and changes only when a commit has landed. A batch goes collapse →
//! locate → carry → write → commit → settle (see design in ARCHITECTURE.md); an error on the way leaves the state as it
//! was and unreferenced objects in the folder. When another engine committed in between (an OPTIMIZE, say), the table is
//! read again and the same batch is located and written anew on top of it.

mod apply;
mod carry;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use deltalake::DeltaTableError;
use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove};
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use url::Url;
use uuid::Uuid;

use super::changes::TableChange;
use super::commit::{self, CommitNote, Outcome, app_id};
use super::data_file::{self, DataFile};
use super::deletion_vector;
use super::key::KeyHasher;
use super::locator::{FileId, KeyHash, MemoryLocator, RowAddress, RowLocator};
use super::store::{Lake, cause_text, unreachable};
use super::{Error, delta_schema};
use crate::schema::{RowIdentity, TableName, TableSchema};
use apply::{Gone, Staged};

/// How often the log gets a checkpoint, in commits.
const CHECKPOINT_EVERY: u64 = 50;

/// How often a batch is written anew because another engine committed first.
const REBASE_MAX: u32 = 5;

/// See the module text.
pub struct Table {
    lake: Lake,
    source: String,
    url: Url,
    log_store: LogStoreRef,
    schema: Arc<TableSchema>,
    hasher: KeyHasher,
    version: u64,
    note: CommitNote,
    files: BTreeMap<FileId, DataFile>,
    next_file: FileId,
    locator: Box<dyn RowLocator>,
    checkpoint: Option<tokio::task::JoinHandle<()>>,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// `None` when there was nothing to apply.
    pub version: Option<u64>,
    pub rows_written: u64,
    pub rows_removed: u64,
}

/// A table as a report shows it.
#[derive(Clone, Debug)]
pub struct TableSummary {
    pub version: u64,
    pub position: String,
    pub rows: u64,
}

/// A table's log, read but not indexed.
struct Loaded {
    version: u64,
    note: CommitNote,
    schema: TableSchema,
    adds: Vec<Add>,
}

impl Table {
    /// Opens the table of a source, or `None` when there is none yet. Reads the log and every file's key columns.
    pub async fn open(lake: &Lake, source: &str, name: &TableName) -> Result<Option<Self>, Error> {
        let url = lake.table_url(source, name);
        let log_store = lake.log_store(&url)?;
        let Some(loaded) = load(lake, source, name, &url, &log_store).await? else { return Ok(None) };
        let schema = Arc::new(loaded.schema);
        let mut table = Self {
            lake: lake.clone(),
            source: source.to_owned(),
            url,
            log_store,
            hasher: KeyHasher::new(&schema).map_err(|source| Error::Arrow { table: name.to_string(), source })?,
            schema,
            version: loaded.version,
            note: loaded.note,
            files: BTreeMap::new(),
            next_file: 0,
            locator: Box::new(MemoryLocator::default()),
            checkpoint: None,
        };
        for add in loaded.adds {
            table.index_file(add).await?;
        }
        let (rows, keys) = (table.live_rows(), table.locator.len() as u64);
        if rows != keys && table.schema.identity != RowIdentity::AppendOnly {
            return Err(Error::Table {
                table: name.to_string(),
                finding: format!("{rows} rows but {keys} keys: rows share a key"),
                remedy: "correct `key` in its contract, remove the table's folder in the lake and restart".to_owned(),
            });
        }
        Ok(Some(table))
    }

    /// What a report needs to know of a table, without opening it.
    pub async fn summary(lake: &Lake, source: &str, name: &TableName) -> Result<Option<TableSummary>, Error> {
        let url = lake.table_url(source, name);
        let log_store = lake.log_store(&url)?;
        let loaded = load(lake, source, name, &url, &log_store).await?;
        Ok(loaded.map(|loaded| {
            let rows = loaded.adds.iter().map(|add| {
                let deleted = add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality.max(0) as u64);
                data_file::record_count(add).unwrap_or(0).saturating_sub(deleted)
            });
            TableSummary { version: loaded.version, position: loaded.note.position, rows: rows.sum() }
        }))
    }

    pub fn name(&self) -> &TableName {
        &self.schema.name
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// The log position of the last commit that changed this table.
    pub fn position(&self) -> &str {
        &self.note.position
    }

    pub fn live_rows(&self) -> u64 {
        self.files.values().map(DataFile::live_rows).sum()
    }

    /// Makes `changes`, whole transactions up to `position`, part of the table with one commit. When this fails, the
    /// table may or may not hold them: open it again and compare positions before trying again.
    pub async fn apply(&mut self, changes: &[TableChange], position: &str) -> Result<Applied, Error> {
        if changes.is_empty() {
            return Ok(Applied::default());
        }
        for attempt in 0..=REBASE_MAX {
            if attempt > 0 {
                self.reload().await?;
            }
            // A batch that comes to nothing is committed all the same: it takes the version, and so shuts out an earlier
            // put that is still under way.
            let staged = self.stage(changes).await?;
            let note = CommitNote { batch: self.note.batch + 1, position: position.to_owned(), ..self.note.clone() };
            let id = Uuid::new_v4();
            let version = self.version + 1;
            let text = commit::entry(&note, id, "STREAMING UPDATE", &staged.actions, Utc::now()).map_err(|cause| {
                Error::Commit { table: self.schema.name.to_string(), version, cause: cause.to_string() }
            })?;
            let table = self.schema.name.to_string();
            match commit::put(&self.log_store, &table, version, id, &text).await? {
                Outcome::Landed => return self.settle(staged, version, note).await,
                Outcome::Taken { theirs } => {
                    if commit::note(&theirs).is_some_and(|theirs| theirs.app_id == self.note.app_id) {
                        return Err(Error::Fenced { table, version });
                    }
                    tracing::info!(table, version, "another engine committed first; writing the batch on top of it");
                }
            }
        }
        Err(Error::Commit {
            table: self.schema.name.to_string(),
            version: self.version + 1,
            cause: format!("other engines committed first, {REBASE_MAX} times in a row"),
        })
    }

    fn file(&self, id: FileId) -> Result<&DataFile, Error> {
        self.files.get(&id).ok_or_else(|| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("the key index names file {id}, which the table does not have"),
            remedy: "report this as a defect of lakeward; a restart rebuilds the index".to_owned(),
        })
    }

    /// The commit has landed: what was staged is now the table.
    async fn settle(&mut self, staged: Staged, version: u64, note: CommitNote) -> Result<Applied, Error> {
        let applied = Applied {
            version: Some(version),
            rows_written: staged.written.iter().map(|file| file.rows).sum(),
            rows_removed: staged.rows_removed,
        };
        if staged.truncated {
            self.locator.clear();
        }
        let listed = match &staged.gone {
            Gone::Keys(keys) => {
                self.locator.remove(keys);
                true
            }
            Gone::Rows(dying) => {
                if !dying.is_empty() {
                    let dies = |address: RowAddress| {
                        dying.get(&address.file).is_some_and(|rows| rows.contains(u64::from(address.row)))
                    };
                    self.locator.retain(&|address| !dies(address));
                }
                false
            }
        };
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
        self.version = version;
        self.note = note;
        for file in staged.written {
            if !listed {
                self.index_file(file.add).await?;
                continue;
            }
            let id = self.take_file_id();
            for (key, row) in file.keys.into_iter().zip(0..) {
                self.locator.insert(key, RowAddress { file: id, row });
            }
            self.files.insert(id, DataFile { add: file.add, rows: file.rows, deleted: RoaringTreemap::new() });
        }
        if version.is_multiple_of(CHECKPOINT_EVERY) {
            self.start_checkpoint();
        }
        Ok(applied)
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
        let (lake, url, table) = (self.lake.clone(), self.url.clone(), self.schema.name.to_string());
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

    /// Waits for background work, so that a process may end.
    pub async fn finish(&mut self) {
        if let Some(running) = self.checkpoint.take()
            && let Err(cause) = running.await
        {
            tracing::warn!(table = %self.schema.name, %cause, "the checkpoint task failed");
        }
    }

    /// Reads the table anew after a foreign commit. Our own batch number must not have moved.
    async fn reload(&mut self) -> Result<(), Error> {
        let fresh = Self::open(&self.lake, &self.source, &self.schema.name).await?.ok_or_else(|| Error::Table {
            table: self.schema.name.to_string(),
            finding: format!("the table at {} is gone", self.url),
            remedy: "restart to load it again".to_owned(),
        })?;
        if fresh.note.batch != self.note.batch {
            return Err(Error::Fenced { table: self.schema.name.to_string(), version: fresh.version });
        }
        if fresh.schema != self.schema {
            return Err(Error::Table {
                table: self.schema.name.to_string(),
                finding: format!("another engine changed its schema in version {}", fresh.version),
                remedy: "remove the table's folder in the lake and restart to load it again".to_owned(),
            });
        }
        let checkpoint = self.checkpoint.take();
        *self = fresh;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// Adds a file of the log to the state: its deletion vector and the keys of its live rows.
    async fn index_file(&mut self, add: Add) -> Result<(), Error> {
        let deleted = match add.deletion_vector.clone() {
            Some(descriptor) => self.read_deletion_vector(descriptor).await?,
            None => RoaringTreemap::new(),
        };
        let store = self.log_store.object_store(None);
        let id = self.take_file_id();
        let mut rows = 0;
        if self.hasher.columns().is_empty() {
            rows = data_file::count_rows(&store, &self.schema, &add).await?;
        } else {
            let schema = self.schema.clone();
            let columns = self.hasher.columns().to_vec();
            let mut stream = data_file::stream_columns(&store, &schema, &add, &columns, None).await?;
            while let Some(batch) = stream.try_next().await? {
                let keys = self.hasher.hash(batch.columns()).map_err(|source| self.arrow(source))?;
                for key in keys {
                    if !deleted.contains(rows) {
                        self.index_row(key, RowAddress { file: id, row: rows as u32 });
                    }
                    rows += 1;
                }
            }
            drop(stream);
        }
        self.files.insert(id, DataFile { add, rows, deleted });
        Ok(())
    }

    /// Equal rows of a table without a key are told apart by their number.
    fn index_row(&mut self, key: KeyHash, address: RowAddress) {
        let key = match self.schema.identity {
            RowIdentity::WholeRow => self.hasher.occurrence(key, self.hasher.occurrences(key, self.locator.as_ref())),
            RowIdentity::Key | RowIdentity::AppendOnly => key,
        };
        self.locator.insert(key, address);
    }

    async fn read_deletion_vector(&self, descriptor: DeletionVectorDescriptor) -> Result<RoaringTreemap, Error> {
        let (log_store, url) = (self.log_store.clone(), self.url.clone());
        let read = tokio::task::spawn_blocking(move || deletion_vector::read(&log_store, &url, descriptor)).await;
        let cause = match read {
            Ok(Ok(deleted)) => return Ok(deleted),
            Ok(Err(delta_kernel::Error::FileNotFound(name))) => {
                return Err(Error::Table {
                    table: self.schema.name.to_string(),
                    finding: format!("its deletion vectors {name} are gone; did a foreign VACUUM remove them?"),
                    remedy: "remove the table's folder in the lake and restart to load it again".to_owned(),
                });
            }
            Ok(Err(cause)) => cause_text(&cause),
            Err(cause) => cause.to_string(),
        };
        Err(Error::Unreachable { url: self.url.to_string(), cause: format!("reading a deletion vector: {cause}") })
    }
}

fn remove(add: &Add, now: i64) -> Remove {
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

/// Reads a table's log: newest version, live files, and the note of lakeward's own last commit.
async fn load(
    lake: &Lake,
    source: &str,
    name: &TableName,
    url: &Url,
    log_store: &LogStoreRef,
) -> Result<Option<Loaded>, Error> {
    let table_error = |finding: String| Error::Table {
        table: name.to_string(),
        finding,
        remedy: format!("{url} must hold only what lakeward writes: move what is there away"),
    };
    let table = match lake.builder(url)?.load().await {
        Ok(table) => table,
        Err(DeltaTableError::NotATable(_)) => return Ok(None),
        Err(cause) => {
            // Where there is no log entry at all, there is no table: deltalake words this in several ways.
            if let Ok(None) = log_store.read_commit_entry(0).await
                && !log_store.is_delta_table_location().await.unwrap_or(true)
            {
                return Ok(None);
            }
            return Err(unreachable(url, &cause));
        }
    };
    let delta = |cause: DeltaTableError| Error::Delta { table: name.to_string(), source: Box::new(cause) };
    let state = table.snapshot().map_err(delta)?;
    let version = state.version();
    let app_id = app_id(source, name);
    let note = last_note(log_store, version, &app_id).await?.ok_or_else(|| {
        table_error(format!("the folder {url} holds a Delta table that lakeward did not make for {app_id}"))
    })?;
    let metadata = state.metadata();
    let schema_string = serde_json::to_value(metadata)
        .ok()
        .and_then(|value| value["schemaString"].as_str().map(str::to_owned))
        .ok_or_else(|| table_error("its metadata has no schema".to_owned()))?;
    let identity = metadata.configuration().get(delta_schema::ROW_IDENTITY).map(String::as_str);
    let schema =
        delta_schema::decode(name, &schema_string, metadata.partition_columns(), identity).map_err(table_error)?;
    #[allow(deprecated)] // the successor works on Arrow columns and has no way back to an action
    let adds: Vec<Add> = state.log_data().iter().map(|file| file.add_action()).collect();
    Ok(Some(Loaded { version, note, schema, adds }))
}

/// Walks back from the newest entry to the last one of ours: usually the first looked at.
async fn last_note(log_store: &LogStoreRef, newest: u64, app_id: &str) -> Result<Option<CommitNote>, Error> {
    for version in (0..=newest).rev() {
        let entry =
            log_store.read_commit_entry(version).await.map_err(|cause| unreachable(log_store.root_url(), &cause))?;
        let Some(entry) = entry else { return Ok(None) };
        if let Some(note) = commit::note(&String::from_utf8_lossy(&entry)).filter(|note| note.app_id == app_id) {
            return Ok(Some(note));
        }
    }
    Ok(None)
}
