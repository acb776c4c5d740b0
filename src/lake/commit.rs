//! One Delta commit: the log entry's text, the conditional PUT, and finding out what became of it.
//!
//! "Error" does not mean "not committed": a PUT may be retried under our feet and meet itself, or time out after it
//! landed. So every entry carries an id of its own, and after any error the entry that is there, if any, decides.

use chrono::{DateTime, Utc};
use deltalake::kernel::Action;
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Error;
use super::load_note::LoadNote;
use super::store::cause_text;
use super::vanished::Vanished;
use crate::schema::{ChangeRecord, TableName};

/// Key of our part of a commitInfo action.
const LAKEWARD: &str = "lakeward";

/// Which stretch of its source's log a commit holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Log position that the table holds with this commit.
    pub position: String,
    /// Where the batch began: nothing of the table was committed at the source between the table's position before this commit
    /// and here. `None` for a load, and in what an earlier lakeward wrote.
    pub after: Option<String>,
    /// When the batch's transactions were committed; `None` when the source did not tell, and for a load.
    pub committed: Option<Committed>,
}

/// When the transactions of a batch were committed, by the source's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
}

impl Committed {
    /// Of both together.
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl From<&str> for Stretch {
    /// Where only the position is known.
    fn from(position: &str) -> Self {
        Self { position: position.to_owned(), ..Self::default() }
    }
}

impl From<&String> for Stretch {
    fn from(position: &String) -> Self {
        Self::from(position.as_str())
    }
}

/// What a commit says about itself, beside its actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitNote {
    /// `<source>/<database or schema>.<table>`: the `txn` action's app id.
    pub app_id: String,
    /// The `txn` action's version: 0 for the first load, then one more each commit.
    pub batch: i64,
    pub stretch: Stretch,
    /// Counts the table's schemas, from 1.
    pub schema_version: u64,
    /// The changes of the table's columns that this commit makes.
    pub changes: Vec<ChangeRecord>,
    /// Keys that came and went within this commit.
    pub vanished: Option<Vanished>,
    /// Of a table that is not loaded whole yet; every commit repeats it.
    pub load: Option<LoadNote>,
    /// The last load that was finished here or swapped in; every later commit repeats it.
    pub loaded: Option<Uuid>,
}

/// What became of a PUT.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Landed,
    /// Somebody else's entry has this version.
    Taken {
        theirs: String,
    },
}

/// The name under which a source table's commits are counted.
pub fn app_id(source: &str, table: &TableName) -> String {
    format!("{source}/{table}")
}

/// The whole text of a log entry; `metadata` is the table's new `metaData` action, if it gets one.
pub fn entry(
    note: &CommitNote,
    id: Uuid,
    operation: &str,
    metadata: Option<&Value>,
    actions: &[Action],
    now: DateTime<Utc>,
) -> Result<String, serde_json::Error> {
    let mut ours = json!({
        "table": note.app_id,
        "batch": note.batch,
        "position": note.stretch.position,
        "schemaVersion": note.schema_version,
    });
    if let Some(after) = &note.stretch.after {
        ours["after"] = json!(after);
    }
    if let Some(committed) = &note.stretch.committed {
        ours["committed"] = serde_json::to_value(committed)?;
    }
    if !note.changes.is_empty() {
        ours["changes"] = serde_json::to_value(&note.changes)?;
    }
    if let Some(vanished) = &note.vanished {
        ours["vanished"] = serde_json::to_value(vanished)?;
    }
    if let Some(load) = &note.load {
        ours["load"] = serde_json::to_value(load)?;
    }
    if let Some(loaded) = note.loaded {
        ours["loaded"] = json!(loaded);
    }
    let info = json!({"commitInfo": {
        "timestamp": now.timestamp_millis(),
        "operation": operation,
        "operationParameters": {"outputMode": "Update", "epochId": note.batch.to_string()},
        "isBlindAppend": false,
        "engineInfo": concat!("lakeward/", env!("CARGO_PKG_VERSION")),
        "txnId": id.to_string(),
        LAKEWARD: ours,
    }});
    let mut text = info.to_string();
    let transaction = json!({"txn": {
        "appId": note.app_id,
        "version": note.batch,
        "lastUpdated": now.timestamp_millis(),
    }});
    text.push('\n');
    text.push_str(&transaction.to_string());
    if let Some(metadata) = metadata {
        text.push('\n');
        text.push_str(&json!({"metaData": metadata}).to_string());
    }
    for action in actions {
        text.push('\n');
        text.push_str(&serde_json::to_string(action)?);
    }
    text.push('\n');
    Ok(text)
}

/// Puts the entry if its version is free and says what became of it. Tries again where it is not known: putting the
/// same entry twice is harmless, because the id tells whether the one that is there is ours.
pub async fn put(log_store: &LogStoreRef, table: &str, version: u64, id: Uuid, text: &str) -> Result<Outcome, Error> {
    const ATTEMPTS: u32 = 4;
    let mut cause = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(200 << attempt)).await;
        }
        let bytes = CommitOrBytes::LogBytes(text.to_owned().into());
        match log_store.write_commit_entry(version, bytes, id).await {
            Ok(()) => return Ok(Outcome::Landed),
            Err(error) => cause = cause_text(&error),
        }
        match log_store.read_commit_entry(version).await {
            Ok(Some(theirs)) => {
                let theirs = String::from_utf8_lossy(&theirs).into_owned();
                return Ok(if commit_info(&theirs).is_some_and(|info| info["txnId"] == json!(id.to_string())) {
                    Outcome::Landed
                } else {
                    Outcome::Taken { theirs }
                });
            }
            Ok(None) => {}
            Err(error) => cause = format!("{cause}; reading it back: {}", cause_text(&error)),
        }
    }
    Err(Error::Commit { table: table.to_owned(), version, cause })
}

/// The note of an entry, if lakeward wrote it.
pub fn note(entry: &str) -> Option<CommitNote> {
    let info = commit_info(entry)?;
    let ours = info.get(LAKEWARD)?;
    Some(CommitNote {
        app_id: ours["table"].as_str()?.to_owned(),
        batch: ours["batch"].as_i64()?,
        stretch: Stretch {
            position: ours["position"].as_str()?.to_owned(),
            after: ours.get("after").and_then(Value::as_str).map(str::to_owned),
            committed: ours.get("committed").and_then(|committed| Committed::deserialize(committed).ok()),
        },
        schema_version: ours["schemaVersion"].as_u64()?,
        changes: ours
            .get("changes")
            .and_then(|changes| serde_json::from_value(changes.clone()).ok())
            .unwrap_or_default(),
        vanished: ours.get("vanished").map(|vanished| {
            // What can't be read is some, and it is not known which.
            serde_json::from_value(vanished.clone()).unwrap_or_else(|_| Vanished::unnamed(1))
        }),
        // A table that is not whole must never pass for one that is.
        load: match ours.get("load") {
            Some(load) => Some(serde_json::from_value(load.clone()).ok()?),
            None => None,
        },
        loaded: ours.get("loaded").and_then(|loaded| serde_json::from_value(loaded.clone()).ok()),
    })
}

/// Whether an entry belongs to a load that is under way: the table is not whole yet.
pub fn is_loading(entry: &str) -> bool {
    commit_info(entry).is_some_and(|info| info[LAKEWARD].get("load").is_some())
}

/// When an entry was written, by its writer's clock.
pub fn committed_at(entry: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(commit_info(entry)?["timestamp"].as_i64()?)
}

fn commit_info(entry: &str) -> Option<Value> {
    entry.lines().find_map(|line| {
        let mut action: Value = serde_json::from_str(line).ok()?;
        action.get_mut("commitInfo").map(Value::take)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_its_note() {
        let wanted = CommitNote {
            app_id: "booking/booking.coupons".into(),
            batch: 7,
            stretch: Stretch {
                position: "mariadb:0-1-100".into(),
                after: Some("mariadb:0-1-90".into()),
                committed: DateTime::from_timestamp_micros(7).map(|first| Committed { first, last: Utc::now() }),
            },
            schema_version: 2,
            changes: vec![ChangeRecord {
                id: Uuid::from_u128(7),
                table: "booking.coupons".into(),
                place: "0-1-99".into(),
                at: Some(Utc::now()),
                statement: Some("ALTER TABLE coupons ADD a int".into()),
                before: vec![],
                after: vec![],
                steps: vec![],
            }],
            vanished: Some(Vanished::named(&[1, 2])),
            load: Some(LoadNote { through: Some("[7]".into()), pending: true, ..LoadNote::begin() }),
            loaded: Some(Uuid::from_u128(8)),
        };
        let text = entry(&wanted, Uuid::new_v4(), "STREAMING UPDATE", None, &[], Utc::now()).expect("serializable");
        assert_eq!(note(&text), Some(wanted));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn an_entry_of_an_earlier_lakeward_has_a_note_too() {
        let ours = json!({"table": "a/b.c", "batch": 1, "position": "pg:0/1", "schemaVersion": 1});
        let text = json!({"commitInfo": {LAKEWARD: ours}}).to_string();
        assert_eq!(note(&text).map(|note| note.stretch), Some(Stretch::from("pg:0/1")));
        assert!(!is_loading(&text));
        assert!(is_loading(&text.replace("\"batch\"", "\"load\":{},\"batch\"")));
    }

    #[test]
    fn a_foreign_entry_has_no_note() {
        assert_eq!(note("{\"commitInfo\":{\"operation\":\"OPTIMIZE\"}}\n{\"remove\":{}}\nnot json"), None);
    }
}
