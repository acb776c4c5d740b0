//! What people ask for that the process running the source is to do: load tables again, look for new ones, or put rows right.
//!
//! A numbered series, `request/<n>.json`, in which every number counts, written put-if-absent by the commands on any machine
//! that reaches the lake. The position entry says up to which number they have been taken ([`Entry::requests_taken`]): what
//! becomes of one from then on is in the entry itself, in the states of its tables. So each is carried out once, whatever
//! crashes between.
//!
//! [`Entry::requests_taken`]: super::Entry::requests_taken

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::series::{Put, Series};
use super::{Error, FORMAT, check_format};

/// How often a number that another command took is followed by a try at the next.
const TRIES: u32 = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Load the tables anew beside the lake's, and put them in their place.
    Resync,
    /// Give up loading them anew.
    Cancel,
    /// Look for tables that the configuration selects and the lake lacks.
    Snapshot,
    /// Read rows anew that are not as the source has them.
    Repair,
}

/// Rows of one table that a comparison found to be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongRows {
    /// The chunks in which those are that the source has, in its words.
    pub chunks: Vec<String>,
    /// Their keys, by the names that commits give them.
    pub names: Vec<u64>,
    /// Rows that only the lake has: path and number in the file.
    pub extra: Vec<(String, u32)>,
}

impl WrongRows {
    pub fn len(&self) -> usize {
        self.names.len() + self.extra.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which one it is, once it is entered.
    #[serde(skip)]
    pub number: u64,
    /// Names the hidden tables as well.
    pub id: Uuid,
    pub wish: Wish,
    /// By `database.table` or `schema.table`.
    pub tables: Vec<String>,
    /// Of a repair, which is of one table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<WrongRows>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks, as far as it is known: `user@host`.
    pub by: String,
    pub at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    #[serde(flatten)]
    request: Request,
}

/// The requests to one source.
#[derive(Clone)]
pub struct Requests {
    series: Series,
}

impl Requests {
    /// `store` is rooted at the source's ledger folder.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { series: Series::new(store, "request") }
    }

    /// Enters a request after all others, those up to `taken` among them; returns its number.
    pub async fn enter(&self, request: &Request, taken: u64) -> Result<u64, Error> {
        let document = Document { format: FORMAT, request: request.clone() };
        let text = serde_json::to_string_pretty(&document).map_err(|cause| Error::Unreadable {
            path: self.series.path(taken + 1).to_string(),
            cause: cause.to_string(),
        })?;
        let newest = self.series.numbers().await?.pop().unwrap_or(0);
        let mut number = newest.max(taken) + 1;
        for _ in 0..TRIES {
            match self.series.put(number, &text).await? {
                Put::Landed => return Ok(number),
                Put::Taken => number += 1,
            }
        }
        Err(Error::Overtaken { path: self.series.path(number).to_string() })
    }

    /// Those after number `taken`, in order, and the last number. One that can't be read is told of and passed over.
    pub async fn after(&self, taken: u64) -> Result<(Vec<Request>, u64), Error> {
        let mut requests = Vec::new();
        let mut last = taken;
        while let Some(text) = self.series.read(last + 1).await? {
            last += 1;
            match self.parse(last, &text) {
                Ok(request) => requests.push(request),
                Err(error) => tracing::warn!(%error, "a request can't be read, and is passed over"),
            }
        }
        Ok((requests, last))
    }

    /// The one of this number; `None` when it is gone.
    pub async fn read(&self, number: u64) -> Result<Option<Request>, Error> {
        let text = self.series.read(number).await?;
        text.map(|text| self.parse(number, &text)).transpose()
    }

    /// Whether there are any after number `taken`. Costs one GET.
    pub async fn any_after(&self, taken: u64) -> Result<bool, Error> {
        Ok(self.series.read(taken + 1).await?.is_some())
    }

    fn parse(&self, number: u64, text: &str) -> Result<Request, Error> {
        let path = self.series.path(number).to_string();
        let document: Document = serde_json::from_str(text)
            .map_err(|cause| Error::Unreadable { path: path.clone(), cause: cause.to_string() })?;
        check_format(&path, document.format)?;
        Ok(Request { number, ..document.request })
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn request(table: &str, id: u128) -> Request {
        Request {
            number: id as u64,
            id: Uuid::from_u128(id),
            wish: Wish::Resync,
            tables: vec![table.to_owned()],
            rows: None,
            reason: Some("in doubt".into()),
            by: "ann@a".into(),
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn requests_are_read_in_order_after_those_that_were_taken() {
        let requests = Requests::new(Arc::new(InMemory::new()));
        assert!(!requests.any_after(0).await.expect("a store") && requests.after(0).await.expect("none").0.is_empty());
        assert_eq!(requests.enter(&request("shop.a", 1), 0).await.expect("put"), 1);
        assert_eq!(requests.enter(&request("shop.b", 2), 0).await.expect("put"), 2);
        assert!(requests.any_after(1).await.expect("a store") && !requests.any_after(2).await.expect("a store"));
        let after = requests.after(0).await.expect("readable");
        assert_eq!(after, (vec![request("shop.a", 1), request("shop.b", 2)], 2));
        requests.series.put(3, "{}").await.expect("put");
        assert_eq!(requests.after(1).await.expect("readable"), (vec![request("shop.b", 2)], 3));
        // Somebody tidied the folder up: numbers go on all the same.
        let tidied = Requests::new(Arc::new(InMemory::new()));
        assert_eq!(tidied.enter(&request("shop.c", 3), 7).await.expect("put"), 8);
        assert_eq!(tidied.after(7).await.expect("readable"), (vec![Request { number: 8, ..request("shop.c", 3) }], 8));
    }
}
