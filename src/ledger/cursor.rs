//! How far a reader of the outbox is, kept so that a restart goes on where it was.
//!
//! A numbered series of which the newest is in force. It is written after something was delivered, so a crash between the
//! two delivers it again; never is anything left out.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::series::Series;
use super::{Error, FORMAT, check_format};

#[derive(Serialize, Deserialize)]
struct Document<T> {
    format: u32,
    /// These two differ for every write, so that no two writers put the same text.
    written_at: DateTime<Utc>,
    writer: Uuid,
    state: T,
}

/// See the module text. `T` is what the reader remembers.
pub struct Cursor {
    series: Series,
    latest: Option<u64>,
    writer: Uuid,
}

impl Cursor {
    /// The cursor of a channel, and where it stands; `None` when it has none yet. `store` is rooted at the source's
    /// ledger folder.
    pub async fn open<T: DeserializeOwned>(
        store: Arc<dyn ObjectStore>,
        channel: &str,
    ) -> Result<(Self, Option<T>), Error> {
        let series = Series::new(store, format!("notice-cursor/{channel}"));
        let Some((number, text)) = series.latest().await? else {
            return Ok((Self { series, latest: None, writer: Uuid::new_v4() }, None));
        };
        let path = series.path(number).to_string();
        let document: Document<T> = serde_json::from_str(&text)
            .map_err(|cause| Error::Unreadable { path: path.clone(), cause: cause.to_string() })?;
        check_format(&path, document.format)?;
        Ok((Self { series, latest: Some(number), writer: Uuid::new_v4() }, Some(document.state)))
    }

    /// [`Error::Overtaken`] when another process has moved it.
    pub async fn write<T: Serialize>(&mut self, state: &T) -> Result<(), Error> {
        let document = Document { format: FORMAT, written_at: Utc::now(), writer: self.writer, state };
        let number = self.series.append(&mut self.latest, serde_json::to_string(&document)).await?;
        self.series.forget_before(number).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_cursor_stands_where_it_was_and_has_one_owner() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (mut first, none) = Cursor::open::<u64>(store.clone(), "ops").await.expect("empty");
        assert_eq!(none, None);
        for place in 1..=40_u64 {
            first.write(&place).await.expect("put");
        }
        let (mut second, place) = Cursor::open::<u64>(store.clone(), "ops").await.expect("readable");
        assert_eq!(place, Some(40));
        second.write(&41_u64).await.expect("the next number is free");
        assert!(matches!(first.write(&41_u64).await, Err(Error::Overtaken { .. })));
        assert_eq!(Cursor::open::<u64>(store, "other").await.expect("empty").1, None);
    }
}
