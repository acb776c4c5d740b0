//! The outbox: what is to be told to people, in the order in which it happened.
//!
//! A numbered series like the others, written by the process that has the source's lease; but here every entry counts,
//! not only the newest. Whoever reads it keeps its own [`Cursor`](super::Cursor); entries that all have passed are
//! removed after a while.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Error;
pub use super::series::FIRST;
use super::series::Series;
use crate::schema::ChangeRecord;

/// The kinds of entries; the same words as in [`EVENT_KINDS`](crate::config::EVENT_KINDS).
pub mod kind {
    pub const SCHEMA_CHANGED: &str = "schema.changed";
    pub const SCHEMA_HELD: &str = "schema.held";
    pub const SCHEMA_REFUSED: &str = "schema.refused";
    pub const TABLE_ADDED: &str = "table.added";
    pub const TABLE_DROPPED: &str = "table.dropped";
    pub const TABLE_STOPPED: &str = "table.stopped";
    pub const TABLE_RESYNCED: &str = "table.resynced";
    pub const VALUE_POLICY_APPLIED: &str = "value.policy_applied";
    pub const SOURCE_LAGGING: &str = "source.lagging";
}

/// Never removed, so that a writer finds its number.
const KEPT: usize = 16;

/// One thing to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The same when it is entered again after a crash.
    pub id: Uuid,
    /// `schema.changed`; see [`EVENT_KINDS`](crate::config::EVENT_KINDS).
    pub kind: String,
    /// When it was entered.
    pub at: DateTime<Utc>,
    pub source: String,
    /// `None` where it concerns the whole source.
    pub table: Option<String>,
    pub position: String,
    /// Of schema changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<ChangeRecord>,
    /// The Delta version that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake_version: Option<u64>,
    /// What is particular to the kind.
    #[serde(default)]
    pub detail: Value,
}

impl OutboxEntry {
    /// Without record, version and detail. `what` tells entries of one kind and table apart, and has to be the same when
    /// the entry is written again.
    pub fn new(kind: &str, source: &str, table: Option<&str>, position: &str, what: &str) -> Self {
        let name = [source, table.unwrap_or_default(), kind, what].join("\u{0}");
        Self {
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            kind: kind.to_owned(),
            at: Utc::now(),
            source: source.to_owned(),
            table: table.map(str::to_owned),
            position: position.to_owned(),
            record: None,
            lake_version: None,
            detail: Value::Object(serde_json::Map::new()),
        }
    }
}

/// A source's outbox.
#[derive(Clone)]
pub struct Outbox {
    series: Series,
    latest: Option<u64>,
}

impl Outbox {
    /// `store` is rooted at the source's ledger folder.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let series = Series::new(store, "notice");
        let latest = series.numbers().await?.pop();
        Ok(Self { series, latest })
    }

    /// The number of the newest entry that this one knows of.
    pub fn newest(&self) -> Option<u64> {
        self.latest
    }

    /// Enters it behind the others; only the holder of the source's lease may.
    pub async fn append(&mut self, entry: &OutboxEntry) -> Result<(), Error> {
        self.series.append(&mut self.latest, serde_json::to_string_pretty(entry)).await?;
        Ok(())
    }

    /// The numbers of all entries that are there, ascending and without gaps.
    pub async fn numbers(&self) -> Result<Vec<u64>, Error> {
        self.series.numbers().await
    }

    /// `None` where there is none yet, or none any more.
    pub async fn read(&self, number: u64) -> Result<Option<OutboxEntry>, Error> {
        let Some(text) = self.series.read(number).await? else { return Ok(None) };
        let entry = serde_json::from_str(&text).map_err(|cause| Error::Unreadable {
            path: self.series.path(number).to_string(),
            cause: cause.to_string(),
        })?;
        Ok(Some(entry))
    }

    /// Removes entries that were entered before `time` and whose numbers are below `passed`.
    pub async fn forget(&self, passed: u64, time: DateTime<Utc>) -> Result<(), Error> {
        let numbers = self.numbers().await?;
        let removable = numbers.len().saturating_sub(KEPT);
        // From the front, so that no gap is ever seen.
        for &number in numbers[..removable].iter().take_while(|number| **number < passed) {
            match self.read(number).await {
                Ok(Some(entry)) if entry.at >= time => break,
                Ok(_) | Err(Error::Unreadable { .. }) => self.series.remove(number).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use serde_json::json;

    use super::*;

    fn entry(at: DateTime<Utc>) -> OutboxEntry {
        OutboxEntry {
            id: Uuid::new_v4(),
            kind: "table.added".into(),
            at,
            source: "booking".into(),
            table: Some("booking.coupons".into()),
            position: "mariadb:0-1-7".into(),
            record: None,
            lake_version: Some(0),
            detail: json!({}),
        }
    }

    #[test]
    fn the_kinds_are_those_that_channels_can_ask_for() {
        use crate::config::EVENT_KINDS;
        assert_eq!(EVENT_KINDS[..3], [kind::SCHEMA_CHANGED, kind::SCHEMA_HELD, kind::SCHEMA_REFUSED]);
        assert_eq!(
            EVENT_KINDS[3..7],
            [kind::TABLE_ADDED, kind::TABLE_DROPPED, kind::TABLE_STOPPED, kind::TABLE_RESYNCED]
        );
        assert_eq!(EVENT_KINDS[7..], [kind::VALUE_POLICY_APPLIED, kind::SOURCE_LAGGING]);
    }

    #[test]
    fn an_entry_that_is_written_again_has_the_same_id() {
        let id = |what| OutboxEntry::new(kind::TABLE_STOPPED, "booking", Some("shop.t"), "mariadb:0-1-1", what).id;
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
    }

    #[tokio::test]
    async fn entries_are_read_by_number_and_forgotten_from_the_front() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut outbox = Outbox::open(store.clone()).await.expect("empty");
        let long_ago = Utc::now() - chrono::TimeDelta::days(40);
        let mut entered = Vec::new();
        for number in 0..40 {
            entered.push(entry(if number < 30 { long_ago } else { Utc::now() }));
            outbox.append(&entered[number]).await.expect("put");
        }
        let outbox = Outbox::open(store).await.expect("readable");
        assert_eq!(outbox.read(FIRST).await.expect("readable").as_ref(), Some(&entered[0]));
        assert_eq!(outbox.read(41).await.expect("readable"), None);

        let recent = Utc::now() - chrono::TimeDelta::days(30);
        outbox.forget(11, recent).await.expect("reachable");
        assert_eq!(outbox.numbers().await.expect("listed").first(), Some(&11), "what nobody has passed stays");
        outbox.forget(41, recent).await.expect("reachable");
        assert_eq!(outbox.numbers().await.expect("listed"), (25..=40).collect::<Vec<_>>(), "the last ones stay");
    }
}
