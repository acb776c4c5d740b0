//! What must outlive the machine, kept beside the tables in `<lake>/_lakeward/<source>/`.
//!
//! Numbered series of small JSON objects, each written put-if-absent, of which the highest number is in force:
//!
//! * `position/`: up to which log position every table of the source is in the lake, and which tables stopped. The
//!   source is acknowledged only up to here.
//! * `prepared/`: not numbered; changes of transactions that are prepared and wait for their decision.
//! * `schema/`: how the rows of each table lie in the source's log, from which position on (see [`History`]).
//! * `lease/`: which process runs the source (see [`Lease`]).
//! * `notice/`: what is to be told to people (see [`Outbox`]), and in `notice-cursor/<channel>/` how far each channel is.
//!   Of this series every number counts.
//! * `request/`: what people ask for, such as a resync (see [`Requests`]). Here too every number counts.
//! * `decision/`: not numbered; what people decided about schema changes (see [`Decisions`]).
//!
//! Nothing is ever overwritten, so two writers can't both believe they wrote number n. The ledger knows positions as
//! text only.

mod cursor;
mod decisions;
mod history;
mod lease;
mod outbox;
mod prepared;
mod reloads;
mod requests;
mod series;

pub use cursor::Cursor;
pub use decisions::{Decided, Decisions};
pub use history::{History, Version};
pub use lease::{Holder, Lease, RENEW_EVERY};
pub use outbox::{FIRST, Outbox, OutboxEntry, kind};
pub use prepared::{PreparedEntry, PreparedObjects};
pub use reloads::Reloads;
pub use requests::{Request, Requests, Wish, WrongRows};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::schema::ValueCounts;
use series::Series;

/// The only format so far; a reader refuses others.
const FORMAT: u32 = 1;

/// Of the position series.
const FOLDER: &str = "position";

/// Messages name the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "source `{source_name}` is run by another lakeward: {holder}, lease until {expires_at}; stop that one, or wait until its lease has ended"
    )]
    Held { source_name: String, holder: String, expires_at: DateTime<Utc> },

    #[error("the lease on source `{source_name}` was lost: {cause}; this process stops writing for it")]
    Lost { source_name: String, cause: String },

    /// Another process, or an earlier try of this one that landed late; the lease tells whether this process may go on.
    #[error("ledger object {path} was written by another process, or by an earlier try of this one")]
    Overtaken { path: String },

    #[error("ledger object {path} is unreadable: {cause}; a newer lakeward may have written it, or it was edited")]
    Unreadable { path: String, cause: String },

    #[error("ledger object {path}: {cause}")]
    Store { path: String, cause: String },
}

impl Error {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        // Whether somebody else has a lost lease, the next try to take it will tell.
        matches!(self, Self::Store { .. } | Self::Overtaken { .. } | Self::Lost { .. })
    }
}

/// Why a table is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadReason {
    /// With the source's first start.
    First,
    /// It is new.
    Added,
    /// It was there before.
    Again,
}

/// How a table stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TableState {
    /// It is being loaded, or was when the process ended. How far that is, the table's own commits say.
    Loading {
        reason: LoadReason,
        /// The load goes into a table of this id that readers do not see, until it is whole. One that they see stands still
        /// meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hidden: Option<Uuid>,
        /// The planner's estimate of its rows, and how many are loaded: for whoever watches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows_estimate: Option<u64>,
        #[serde(default, skip_serializing_if = "is_zero")]
        rows: u64,
        /// Its changes come by the stream, and it has them up to the entry's position. Before that only its own position says
        /// where it stands.
        #[serde(default, skip_serializing_if = "is_false")]
        follows: bool,
        /// What becomes of the table that readers see if the load is given up; `None` where this is the table's first load.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Box<TableState>>,
    },
    /// Follows the log.
    Streaming,
    /// Left the log at `position` for `reason`; needs a person.
    Stopped { reason: String, position: String },
    /// Has everything up to `position`, where the change of this id needs a decision. The ledger's own position does not go
    /// beyond it, so that the log is read again from there.
    Waiting { change: Uuid, reason: String, position: String },
    /// The source's table is gone; the lake's stays as it was at `position`.
    Dropped { position: String, at: Option<DateTime<Utc>> },
}

impl TableState {
    /// The beginning of a load, of which nothing is there yet.
    pub fn to_load(reason: LoadReason) -> Self {
        Self::Loading { reason, hidden: None, rows_estimate: None, rows: 0, follows: false, before: None }
    }

    /// The same, of a table that appears only when it is whole.
    pub fn to_load_hidden(reason: LoadReason, id: Uuid) -> Self {
        Self::Loading { reason, hidden: Some(id), rows_estimate: None, rows: 0, follows: false, before: None }
    }

    /// The beginning of a load beside the table that is there; `before` is what becomes of that if the load is given up.
    pub fn to_resync(id: Uuid, before: Self) -> Self {
        Self::Loading {
            reason: LoadReason::Again,
            hidden: Some(id),
            rows_estimate: None,
            rows: 0,
            follows: false,
            before: Some(Box::new(before)),
        }
    }

    /// The same, with its changes coming by the stream.
    pub fn following(mut self) -> Self {
        if let Self::Loading { follows, .. } = &mut self {
            *follows = true;
        }
        self
    }

    /// Where a table stands that does not stream.
    pub fn position(&self) -> Option<&str> {
        match self {
            Self::Stopped { position, .. } | Self::Waiting { position, .. } | Self::Dropped { position, .. } => {
                Some(position)
            }
            Self::Loading { .. } | Self::Streaming => None,
        }
    }

    /// In one word, for people and scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::Streaming => "streaming",
            Self::Stopped { .. } => "stopped",
            Self::Waiting { .. } => "waiting",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// Why it does not stream, if somebody has to do something about that.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Stopped { reason, .. } | Self::Waiting { reason, .. } => Some(reason),
            Self::Loading { .. } | Self::Streaming | Self::Dropped { .. } => None,
        }
    }

    /// Whether it is loaded anew beside the table that readers see.
    pub fn is_resync(&self) -> bool {
        matches!(self, Self::Loading { before: Some(_), .. })
    }

    /// The id of the table that is being built where readers do not see it.
    pub fn hidden(&self) -> Option<Uuid> {
        match self {
            Self::Loading { hidden, .. } => *hidden,
            _ => None,
        }
    }
}

/// One entry of the position series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub format: u32,
    pub source: String,
    /// `MariaDB 10.11.19`
    pub server: String,
    /// What tells the server's history of changes from another's.
    pub history: String,
    /// All transactions it contains are in the tables that stream. The log is read from here.
    pub position: String,
    /// While tables wait and hold `position`: how far the others are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// Since when they do, by lakeward's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<DateTime<Utc>>,
    /// Tables that have waited and stream again, but are not as far as `reached` yet: they hold what `position` says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub behind: BTreeSet<String>,
    /// Everything committed at the source before this moment is in the lake.
    pub fresh_until: Option<DateTime<Utc>>,
    pub written_at: DateTime<Utc>,
    /// By `database.table` or `schema.table`.
    pub tables: BTreeMap<String, TableState>,
    /// By table: values without a faithful lake form that were met since the table was loaded, the load included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, ValueCounts>,
    /// Transactions that are prepared at this position and wait for their decision; their changes are kept in objects of
    /// their own (see [`PreparedObjects`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<PreparedEntry>,
    /// By table: what the source wants to know again after a restart, in its own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_notes: BTreeMap<String, String>,
    /// Up to which number [`Requests`] have been taken.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_taken: u64,
    /// Those of them that are still to be carried out: repairs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub repairs: BTreeSet<u64>,
    /// Loads that were begun without anybody asking.
    #[serde(default, skip_serializing_if = "Reloads::is_empty")]
    pub reloads: Reloads,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A source's position series, open for appending.
pub struct Ledger {
    prepared: PreparedObjects,
    outbox: Outbox,
    decisions: Decisions,
    series: Series,
    latest: Option<u64>,
}

impl Ledger {
    /// Reads the newest entry. `store` is rooted at the source's ledger folder.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<(Self, Option<Entry>), Error> {
        let prepared = PreparedObjects::new(store.clone());
        let outbox = Outbox::open(store.clone()).await?;
        let decisions = Decisions::new(store.clone());
        let series = Series::new(store, FOLDER);
        let (latest, entry) = newest(&series).await?.unzip();
        Ok((Self { prepared, outbox, decisions, series, latest }, entry))
    }

    /// The newest entry, for whoever only reads: the rest of the ledger is not looked at.
    pub async fn read(store: Arc<dyn ObjectStore>) -> Result<Option<Entry>, Error> {
        Ok(newest(&Series::new(store, FOLDER)).await?.map(|(_, entry)| entry))
    }

    /// Where the changes of prepared transactions are.
    pub fn prepared(&self) -> &PreparedObjects {
        &self.prepared
    }

    /// What is to be told. Written before the position entry that has what it tells of.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// What people decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Appends an entry. An error of the store leaves it open whether it landed: open the ledger again.
    pub async fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        let number = self.series.append(&mut self.latest, serde_json::to_string_pretty(entry)).await?;
        self.series.forget_before(number).await;
        Ok(())
    }
}

async fn newest(series: &Series) -> Result<Option<(u64, Entry)>, Error> {
    let Some((number, text)) = series.latest().await? else { return Ok(None) };
    let path = series.path(number).to_string();
    let entry: Entry = serde_json::from_str(&text)
        .map_err(|cause| Error::Unreadable { path: path.clone(), cause: cause.to_string() })?;
    check_format(&path, entry.format)?;
    Ok(Some((number, entry)))
}

fn check_format(path: &str, format: u32) -> Result<(), Error> {
    if format == FORMAT {
        return Ok(());
    }
    Err(Error::Unreadable { path: path.to_owned(), cause: format!("its format is {format}, not {FORMAT}") })
}

impl Entry {
    /// How far the tables are that stream.
    pub fn streamed(&self) -> &str {
        self.reached.as_ref().unwrap_or(&self.position)
    }

    pub fn new(source: &str, server: &str, history: &str, position: String) -> Self {
        Self {
            format: FORMAT,
            source: source.to_owned(),
            server: server.to_owned(),
            history: history.to_owned(),
            position,
            reached: None,
            held_since: None,
            behind: BTreeSet::new(),
            fresh_until: None,
            written_at: Utc::now(),
            tables: BTreeMap::new(),
            values: BTreeMap::new(),
            prepared: Vec::new(),
            source_notes: BTreeMap::new(),
            requests_taken: 0,
            repairs: BTreeSet::new(),
            reloads: Reloads::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_last_entry_is_read_back_and_a_second_writer_is_noticed() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (mut first, none) = Ledger::open(store.clone()).await.expect("empty");
        assert_eq!(none, None);
        let mut entry = Entry::new("booking", "MariaDB", "h", "mariadb:0-1-1".into());
        for sequence in 1..=30 {
            entry.position = format!("mariadb:0-1-{sequence}");
            first.append(&entry).await.expect("put");
        }
        let (mut second, read) = Ledger::open(store.clone()).await.expect("readable");
        assert_eq!(read.as_ref(), Some(&entry));
        second.append(&entry).await.expect("the next number is free");
        entry.position = "mariadb:0-1-31".into();
        assert!(matches!(first.append(&entry).await, Err(Error::Overtaken { .. })));
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (mut ledger, _) = Ledger::open(store.clone()).await.expect("empty");
        let mut entry = Entry::new("booking", "MariaDB", "h", "mariadb:0-1-1".into());
        entry.format = 2;
        ledger.append(&entry).await.expect("put");
        assert!(matches!(Ledger::open(store).await, Err(Error::Unreadable { .. })));
    }
}
