//! A table's Delta log, for questions about its past: which version was in force when, and what changed its columns.
//!
//! Reads as few entries as it can, for there may be one for every ten seconds of years: times, positions and the count of
//! schemas only grow, so that what is looked for is found by halving.

use chrono::{DateTime, Utc};
use deltalake::logstore::LogStoreRef;
use url::Url;

use super::commit::{self, Committed, app_id};
use super::store::{Lake, unreachable};
use super::table::{LoadedTable, find, load};
use super::{Error, data_file};
use crate::schema::{ChangeRecord, Shape, TableName};

/// One commit of lakeward's.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    pub version: u64,
    /// When, by the clock of the process that wrote it.
    pub at: DateTime<Utc>,
    /// Of the source's log: up to where the table is with this commit.
    pub position: String,
    /// Of the source's log: from where on it holds something new.
    pub after: Option<String>,
    /// When its transactions were committed at the source.
    pub committed: Option<Committed>,
    /// The table was being loaded, and not whole.
    pub loading: bool,
    schema_version: u64,
    /// What this commit changed of the table's columns.
    pub changes: Vec<ChangeRecord>,
}

/// A table as of one version.
#[derive(Clone, Debug)]
pub struct TableState {
    pub version: u64,
    /// Of the source's log.
    pub position: String,
    pub shape: Shape,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    /// Sizes of the files, for whoever counts what becomes of them.
    pub file_bytes: Vec<u64>,
}

/// See the module text.
pub struct TableLog {
    lake: Lake,
    source: String,
    name: TableName,
    url: Url,
    log_store: LogStoreRef,
    app_id: String,
    newest: LoadedTable,
}

impl TableLog {
    /// `None` when the lake has no such table.
    pub async fn open(lake: &Lake, source: &str, name: &TableName) -> Result<Option<Self>, Error> {
        let url = lake.table_url(source, name);
        let Some((log_store, newest)) = find(lake, source, name, &url).await? else { return Ok(None) };
        Ok(Some(Self {
            lake: lake.clone(),
            source: source.to_owned(),
            name: name.clone(),
            url,
            log_store,
            app_id: app_id(source, name),
            newest,
        }))
    }

    pub fn newest(&self) -> u64 {
        self.newest.version
    }

    /// Of the source's log, after lakeward's last commit.
    pub fn position(&self) -> &str {
        &self.newest.note.stretch.position
    }

    /// The table as of this version.
    pub async fn state(&self, version: u64) -> Result<TableState, Error> {
        let earlier;
        let LoadedTable { version, note, shape, adds, .. } = if version == self.newest.version {
            &self.newest
        } else {
            let loaded = load(&self.lake, &self.source, &self.name, &self.url, &self.log_store, Some(version)).await?;
            earlier = loaded.ok_or_else(|| Error::Table {
                table: self.name.to_string(),
                finding: format!("its log does not reach back to version {version}"),
                remedy: "ask about a later version".to_owned(),
            })?;
            &earlier
        };
        let file_bytes: Vec<u64> = adds.iter().map(|add| u64::try_from(add.size).unwrap_or(0)).collect();
        let rows = adds.iter().map(data_file::live_rows_told).sum();
        Ok(TableState {
            version: *version,
            position: note.stretch.position.clone(),
            shape: shape.clone(),
            files: adds.len() as u64,
            bytes: file_bytes.iter().sum(),
            rows,
            file_bytes,
        })
    }

    /// The last commit that was made at or before this moment.
    pub async fn at_time(&self, time: DateTime<Utc>) -> Result<Option<LogEntry>, Error> {
        self.last_where(|entry| entry.at <= time).await
    }

    /// The last commit that this holds of, which holds of all earlier ones.
    pub async fn last_where(&self, holds: impl Fn(&LogEntry) -> bool) -> Result<Option<LogEntry>, Error> {
        let mut found = None;
        let (mut low, mut high) = (0, self.newest() + 1);
        // Everything before `low` holds, nothing from `high` on does.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.own(middle).await? {
                // Removed entries, and other engines' before the first of ours there is, are the oldest.
                None => low = middle + 1,
                Some(entry) if holds(&entry) => {
                    found = Some(entry);
                    low = middle + 1;
                }
                Some(entry) => high = entry.version,
            }
        }
        Ok(found)
    }

    /// Every commit up to `last` that changed the table's columns, oldest first, as far as the log reaches back.
    pub async fn changes(&self, last: u64) -> Result<Vec<LogEntry>, Error> {
        let mut found = Vec::new();
        let Some(end) = self.own(last).await? else { return Ok(found) };
        // Stretches of the log: after the version `low`, where the count of schemas was so, up to the entry `high`.
        let mut stretches: Vec<(Option<u64>, u64, LogEntry)> = vec![(None, 1, end)];
        while let Some((low, count, high)) = stretches.pop() {
            if high.schema_version == count {
                continue;
            }
            let first = low.map_or(0, |low| low + 1);
            if first >= high.version {
                found.push(high);
                continue;
            }
            let middle = first + (high.version - 1 - first) / 2;
            match self.own(middle).await?.filter(|entry| low.is_none_or(|low| entry.version > low)) {
                // Nothing of ours up to there.
                None => stretches.push((Some(middle), count, high)),
                Some(entry) => {
                    stretches.push((Some(middle), entry.schema_version, high));
                    stretches.push((low, count, entry));
                }
            }
        }
        // One that was removed from the log has left its count behind, and nothing else.
        found.retain(|entry| !entry.changes.is_empty());
        found.sort_by_key(|entry| entry.version);
        Ok(found)
    }

    /// The last commit of lakeward's up to this version; `None` where the log does not reach back that far.
    pub async fn own(&self, version: u64) -> Result<Option<LogEntry>, Error> {
        for version in (0..=version).rev() {
            let Some(text) = self.read(version).await? else { return Ok(None) };
            if let Some(entry) = self.entry(version, &text) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The first commit of lakeward's after this version.
    pub async fn next(&self, version: u64) -> Result<Option<LogEntry>, Error> {
        for version in version + 1..=self.newest() {
            if let Some(entry) = self.read(version).await?.and_then(|text| self.entry(version, &text)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Whether the log still has its beginning.
    pub async fn is_whole(&self) -> Result<bool, Error> {
        Ok(self.read(0).await?.is_some())
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    async fn read(&self, version: u64) -> Result<Option<String>, Error> {
        let read = self.log_store.read_commit_entry(version).await;
        let text = read.map_err(|cause| unreachable(&self.url, &cause))?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// What an entry says of itself, if it is lakeward's.
    fn entry(&self, version: u64, text: &str) -> Option<LogEntry> {
        let note = commit::note(text).filter(|note| note.app_id == self.app_id)?;
        Some(LogEntry {
            version,
            at: commit::committed_at(text).unwrap_or(DateTime::UNIX_EPOCH),
            position: note.stretch.position,
            after: note.stretch.after,
            committed: note.stretch.committed,
            loading: commit::is_loading(text),
            schema_version: note.schema_version,
            changes: note.changes,
        })
    }
}
