//! The history of layouts: how the rows of each captured table lie in the source's log, from which position on.
//!
//! One document holds the versions of all tables; each change of it is a new object of the series. It is bounded: only
//! captured tables are in it, and of each the versions from the one in force at the durable position on. A version is written
//! before the position moves past the statement that made it, so that whatever position a start begins at, the version
//! in force there is known. Which version that is only its owner can tell: positions are text here.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

use super::series::Series;
use super::{Error, FORMAT, check_format};
use crate::schema::Layout;

/// A table's layout from a position on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The first position at which it holds.
    pub position: String,
    /// The statement that made it; `None` for the table's first load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    pub layout: Layout,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    format: u32,
    /// Differs for every write, so that no two writers put the same text.
    written_at: DateTime<Utc>,
    writer: uuid::Uuid,
    /// By `database.table`; oldest version first.
    tables: BTreeMap<String, Vec<Version>>,
}

/// A source's history, open for appending.
pub struct History {
    series: Series,
    latest: Option<u64>,
    document: Document,
}

impl History {
    /// Reads the newest document. `store` is rooted at the source's ledger folder.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let series = Series::new(store, "schema");
        let Some((number, text)) = series.latest().await? else {
            let document = Document {
                format: FORMAT,
                written_at: Utc::now(),
                writer: uuid::Uuid::new_v4(),
                tables: BTreeMap::new(),
            };
            return Ok(Self { series, latest: None, document });
        };
        let path = series.path(number).to_string();
        let mut document: Document = serde_json::from_str(&text)
            .map_err(|cause| Error::Unreadable { path: path.clone(), cause: cause.to_string() })?;
        check_format(&path, document.format)?;
        document.writer = uuid::Uuid::new_v4();
        Ok(Self { series, latest: Some(number), document })
    }

    /// Oldest first.
    pub fn versions(&self, table: &str) -> &[Version] {
        self.document.tables.get(table).map_or(&[], Vec::as_slice)
    }

    /// Forgets what is known of the table and begins with this version. Not durable before [`History::write`].
    pub fn begin(&mut self, table: &str, version: Version) {
        self.document.tables.insert(table.to_owned(), vec![version]);
    }

    /// Adds a version behind the others. Not durable before [`History::write`].
    pub fn push(&mut self, table: &str, version: Version) {
        self.document.tables.entry(table.to_owned()).or_default().push(version);
    }

    /// Keeps of each table the versions that `keep` takes from it.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, Vec<Version>) -> Vec<Version>) {
        let tables = std::mem::take(&mut self.document.tables);
        self.document.tables = tables
            .into_iter()
            .map(|(table, versions)| {
                let kept = keep(&table, versions);
                (table, kept)
            })
            .filter(|(_, versions)| !versions.is_empty())
            .collect();
    }

    /// Writes the document. An error of the store leaves it open whether it landed: open the history again.
    pub async fn write(&mut self) -> Result<(), Error> {
        self.document.written_at = Utc::now();
        let number = self.series.append(&mut self.latest, serde_json::to_string(&self.document)).await?;
        self.series.forget_before(number).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn version(position: &str) -> Version {
        Version { position: position.to_owned(), statement: None, layout: Layout::default() }
    }

    /// D-15
    #[tokio::test]
    async fn versions_are_read_back_in_order_and_a_second_writer_is_noticed() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut first = History::open(store.clone()).await.expect("empty");
        assert!(first.versions("a.t").is_empty());
        first.begin("a.t", version("1"));
        first.push("a.t", version("2"));
        first.push("a.gone", version("1"));
        first.write().await.expect("put");
        first.retain(|table, versions| if table == "a.gone" { Vec::new() } else { versions });
        first.write().await.expect("put");
        let mut second = History::open(store).await.expect("readable");
        assert_eq!(second.versions("a.t"), [version("1"), version("2")]);
        assert!(second.versions("a.gone").is_empty());
        second.begin("a.t", version("3"));
        second.write().await.expect("the next number is free");
        assert!(matches!(first.write().await, Err(Error::Overtaken { .. })));
    }
}
