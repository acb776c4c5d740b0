//! Reading a table's log: what it holds, without looking into its files.

use std::time::Duration;

use deltalake::DeltaTableError;
use deltalake::kernel::Add;
use deltalake::logstore::LogStoreRef;
use serde_json::Value;
use url::Url;

use super::super::commit::{self, CommitNote, app_id};
use super::super::store::{Lake, cause_text, unreachable};
use super::super::{Error, delta_schema};
use crate::schema::{Shape, TableName};

/// A folder's listing is no snapshot of it: an entry that is written meanwhile may be missing where the one after it is not.
/// That is how the kernel words it; the next listing has both.
const GAP: &str = "found gap";
const GAP_TRIES: u32 = 5;
const GAP_PAUSE: Duration = Duration::from_millis(50);

/// A table's log, read but not indexed.
pub(in crate::lake) struct Loaded {
    pub version: u64,
    /// Of lakeward's own last commit, and that commit's version.
    pub note: CommitNote,
    pub noted: u64,
    pub shape: Shape,
    /// The `metaData` action in force.
    pub metadata: Value,
    /// The `protocol` action in force.
    pub protocol: Value,
    pub adds: Vec<Add>,
}

/// Reads a table's log: version (the newest, unless one is named), live files, and the note of lakeward's own last commit.
pub(in crate::lake) async fn load(
    lake: &Lake,
    source: &str,
    name: &TableName,
    url: &Url,
    log_store: &LogStoreRef,
    version: Option<u64>,
) -> Result<Option<Loaded>, Error> {
    let table_error = |finding: String| Error::Table {
        table: name.to_string(),
        finding,
        remedy: format!("{url} must hold only what lakeward writes: move what is there away"),
    };
    let mut tries = 0;
    let read = loop {
        let builder = lake.builder(url)?;
        let builder = match version {
            Some(version) => builder.with_version(version),
            None => builder,
        };
        match builder.load().await {
            Err(cause) if tries < GAP_TRIES && cause_text(&cause).contains(GAP) => {
                tries += 1;
                tokio::time::sleep(GAP_PAUSE).await;
            }
            read => break read,
        }
    };
    let table = match read {
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
    let (noted, note) = last_note(log_store, version, &app_id).await?.ok_or_else(|| {
        table_error(format!("the folder {url} holds a Delta table that lakeward did not make for {app_id}"))
    })?;
    let metadata = serde_json::to_value(state.metadata())
        .map_err(|cause| table_error(format!("its metadata cannot be written down: {cause}")))?;
    let protocol = serde_json::to_value(state.protocol())
        .map_err(|cause| table_error(format!("its protocol cannot be written down: {cause}")))?;
    let shape = delta_schema::decode(name, &metadata).map_err(table_error)?;
    #[allow(deprecated)] // the successor works on Arrow columns and has no way back to an action
    let adds: Vec<Add> = state.log_data().iter().map(|file| file.add_action()).collect();
    Ok(Some(Loaded { version, note, noted, shape, metadata, protocol, adds }))
}

/// A table's log as of its newest version, where there is one. A folder that is not there is not made.
pub(in crate::lake) async fn find(
    lake: &Lake,
    source: &str,
    name: &TableName,
    url: &Url,
) -> Result<Option<(LogStoreRef, Loaded)>, Error> {
    if url.to_file_path().is_ok_and(|folder| !folder.exists()) {
        return Ok(None);
    }
    let log_store = lake.log_store(url)?;
    let loaded = load(lake, source, name, url, &log_store, None).await?;
    Ok(loaded.map(|loaded| (log_store, loaded)))
}

/// Walks back from the newest entry to the last one of ours: usually the first looked at.
async fn last_note(log_store: &LogStoreRef, newest: u64, app_id: &str) -> Result<Option<(u64, CommitNote)>, Error> {
    for version in (0..=newest).rev() {
        let entry =
            log_store.read_commit_entry(version).await.map_err(|cause| unreachable(log_store.root_url(), &cause))?;
        let Some(entry) = entry else { return Ok(None) };
        if let Some(note) = commit::note(&String::from_utf8_lossy(&entry)).filter(|note| note.app_id == app_id) {
            return Ok(Some((version, note)));
        }
    }
    Ok(None)
}
