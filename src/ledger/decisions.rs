//! What people decided about schema changes, one object per change: `decision/<change id>.json`.
//!
//! Written once by whoever decides first, on any machine that reaches the lake; the process that runs the source looks
//! for new ones every few seconds. They are kept: the log may be read again from before the change.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, FORMAT, check_format};
use crate::schema::Verdict;

const FOLDER: &str = "decision";

/// A decision about one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub change: Uuid,
    /// `database.table` or `schema.table`
    pub table: String,
    pub verdict: Verdict,
    /// Who, as far as it is known: `user@host`.
    pub by: String,
    pub at: DateTime<Utc>,
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Approve => "approved",
            Verdict::Reject => "rejected",
        };
        write!(f, "{verdict} by {} at {}", self.by, self.at.format("%F %T UTC"))
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    #[serde(flatten)]
    decided: Decided,
}

/// The decisions of one source.
#[derive(Clone)]
pub struct Decisions {
    store: Arc<dyn ObjectStore>,
}

impl Decisions {
    /// `store` is rooted at the source's ledger folder.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Writes the decision unless there is one about this change already; returns the one that is in force.
    pub async fn write(&self, decided: &Decided) -> Result<Decided, Error> {
        let path = path(decided.change);
        let document = Document { format: FORMAT, decided: decided.clone() };
        let text = serde_json::to_string_pretty(&document)
            .map_err(|cause| Error::Unreadable { path: path.to_string(), cause: cause.to_string() })?;
        let put = self.store.put_opts(&path, text.into(), PutOptions::from(PutMode::Create)).await;
        let Err(cause) = put else { return Ok(decided.clone()) };
        // Whatever the error: what is there counts, and it may be this very one, put a second time by the store's client.
        self.read(decided.change).await?.ok_or_else(|| error(&path, &cause))
    }

    /// The decision about a change.
    pub async fn read(&self, change: Uuid) -> Result<Option<Decided>, Error> {
        let path = path(change);
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|cause| error(&path, &cause))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(error(&path, &cause)),
        };
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|cause| Error::Unreadable { path: path.to_string(), cause: cause.to_string() })?;
        check_format(path.as_ref(), document.format)?;
        Ok(Some(document.decided))
    }

    /// The changes that are decided. Names that are no change's id are passed over.
    pub async fn changes(&self) -> Result<Vec<Uuid>, Error> {
        let folder = Path::from(FOLDER);
        let objects: Vec<_> =
            self.store.list(Some(&folder)).try_collect().await.map_err(|cause| error(&folder, &cause))?;
        let names = objects.iter().filter_map(|object| object.location.filename()?.strip_suffix(".json"));
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}

fn path(change: Uuid) -> Path {
    Path::from(format!("{FOLDER}/{change}.json"))
}

fn error(path: &Path, cause: &object_store::Error) -> Error {
    Error::Store { path: path.to_string(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_first_decision_about_a_change_stands() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let decisions = Decisions::new(store.clone());
        let change = Uuid::from_u128(7);
        assert_eq!(decisions.read(change).await.expect("nothing yet"), None);
        let decided = |verdict, by: &str| Decided {
            change,
            table: "shop.t".to_owned(),
            verdict,
            by: by.to_owned(),
            at: DateTime::UNIX_EPOCH,
        };
        let first = decided(Verdict::Approve, "ann@a");
        assert_eq!(decisions.write(&first).await.expect("put"), first);
        assert_eq!(decisions.write(&decided(Verdict::Reject, "bob@b")).await.expect("there"), first);
        store.put(&Path::from("decision/note.txt"), "x".into()).await.expect("put");
        assert_eq!(decisions.changes().await.expect("a list"), [change]);
        assert_eq!(decisions.read(change).await.expect("readable"), Some(first.clone()));
        assert_eq!(first.to_string(), "approved by ann@a at 1970-01-01 00:00:00 UTC");
    }
}
