//! Numbered objects of which the highest is in force; each is written once.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::Error;

/// Older entries kept for whoever looks, and so that a writer that slept meets its number taken.
const KEPT: u64 = 16;

/// The number of the first entry there ever is.
pub const FIRST: u64 = 1;

/// What became of a put.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    Landed,
    /// Another text has this number.
    Taken,
}

/// See the module text.
#[derive(Clone)]
pub struct Series {
    store: Arc<dyn ObjectStore>,
    folder: String,
}

impl Series {
    pub fn new(store: Arc<dyn ObjectStore>, folder: impl Into<String>) -> Self {
        Self { store, folder: folder.into() }
    }

    pub fn path(&self, number: u64) -> Path {
        Path::from(format!("{}/{number:020}.json", self.folder))
    }

    /// The entry in force.
    pub async fn latest(&self) -> Result<Option<(u64, String)>, Error> {
        let Some(number) = self.numbers().await?.pop() else { return Ok(None) };
        let text = self.read(number).await?.ok_or_else(|| Error::Store {
            path: self.path(number).to_string(),
            cause: "it vanished while it was read".to_owned(),
        })?;
        Ok(Some((number, text)))
    }

    /// All that are there, ascending.
    pub async fn numbers(&self) -> Result<Vec<u64>, Error> {
        let folder = Path::from(self.folder.as_str());
        let objects: Vec<_> =
            self.store.list(Some(&folder)).try_collect().await.map_err(|cause| self.error(&folder, &cause))?;
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = objects.iter().filter_map(|object| number(&object.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub async fn read(&self, number: u64) -> Result<Option<String>, Error> {
        let path = self.path(number);
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|cause| self.error(&path, &cause))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(self.error(&path, &cause)),
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes an entry if its number is free. Texts must differ between writers (they name a process or a time), for
    /// a put that meets its own text has landed: the store's client may have tried twice.
    pub async fn put(&self, number: u64, text: &str) -> Result<Put, Error> {
        let path = self.path(number);
        let put = self.store.put_opts(&path, text.to_owned().into(), PutOptions::from(PutMode::Create)).await;
        let Err(cause) = put else { return Ok(Put::Landed) };
        match self.read(number).await? {
            Some(theirs) if theirs == text => Ok(Put::Landed),
            Some(_) => Ok(Put::Taken),
            None => Err(self.error(&path, &cause)),
        }
    }

    /// Writes the entry behind `latest`, and says which number it has. [`Error::Overtaken`] when somebody else has written
    /// that one.
    pub async fn append(&self, latest: &mut Option<u64>, text: serde_json::Result<String>) -> Result<u64, Error> {
        let number = latest.map_or(FIRST, |latest| latest + 1);
        let path = || self.path(number).to_string();
        let text = text.map_err(|cause| Error::Unreadable { path: path(), cause: cause.to_string() })?;
        match self.put(number, &text).await? {
            Put::Landed => {}
            Put::Taken => return Err(Error::Overtaken { path: path() }),
        }
        *latest = Some(number);
        Ok(number)
    }

    /// Removes entries long out of force; failing to is harmless.
    pub async fn forget_before(&self, number: u64) {
        if let Some(old) = number.checked_sub(KEPT) {
            self.remove(old).await;
        }
    }

    /// Failing to is harmless: the object stays.
    pub async fn remove(&self, old: u64) {
        if let Err(cause) = self.store.delete(&self.path(old)).await
            && !matches!(cause, object_store::Error::NotFound { .. })
        {
            tracing::debug!(path = %self.path(old), %cause, "an old ledger entry could not be removed");
        }
    }

    fn error(&self, path: &Path, cause: &object_store::Error) -> Error {
        Error::Store { path: path.to_string(), cause: cause.to_string() }
    }
}
