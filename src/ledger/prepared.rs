//! Changes that wait for a decision, one object per prepared transaction: `prepared/<id>`.
//!
//! An object is written before the position entry that lists it, and removed after the first entry that does not; so
//! every listed object is there, and one that is not listed is a crash's leftover. The ledger does not look inside.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::Error;

const FOLDER: &str = "prepared";

/// A prepared transaction in a position entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedEntry {
    /// The transaction's name at the source. It may be used again after a decision.
    pub xid: String,
    /// The object's name; never used twice.
    pub id: String,
}

/// The objects of one source.
#[derive(Clone)]
pub struct PreparedObjects {
    store: Arc<dyn ObjectStore>,
}

impl PreparedObjects {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Ids are unique and an object is written by one process only, so writing it again writes the same.
    pub async fn put(&self, id: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = path(id);
        self.store.put(&path, bytes.into()).await.map_err(|cause| error(&path, &cause))?;
        Ok(())
    }

    pub async fn get(&self, id: &str) -> Result<Vec<u8>, Error> {
        let path = path(id);
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => {
                let cause = "a position entry lists it, and it is not there".to_owned();
                return Err(Error::Unreadable { path: path.to_string(), cause });
            }
            found => found.map_err(|cause| error(&path, &cause))?,
        };
        Ok(found.bytes().await.map_err(|cause| error(&path, &cause))?.to_vec())
    }

    /// That an object can't be read as what it should be.
    pub fn unreadable(&self, id: &str, cause: String) -> Error {
        Error::Unreadable { path: path(id).to_string(), cause }
    }

    /// Objects that the entry does not list: leftovers of a crash. Ask before the entry is appended and remove after it
    /// was: then no other process can have listed one of them since.
    pub async fn leftovers(&self, listed: &[PreparedEntry]) -> Result<Vec<String>, Error> {
        let folder = Path::from(FOLDER);
        let objects: Vec<_> =
            self.store.list(Some(&folder)).try_collect().await.map_err(|cause| error(&folder, &cause))?;
        let names = objects.iter().filter_map(|object| object.location.filename());
        Ok(names.filter(|name| !listed.iter().any(|entry| entry.id == *name)).map(str::to_owned).collect())
    }

    /// Failing to is harmless.
    pub async fn forget(&self, ids: &[String]) {
        for id in ids {
            let path = path(id);
            if let Err(cause) = self.store.delete(&path).await
                && !matches!(cause, object_store::Error::NotFound { .. })
            {
                tracing::debug!(%path, %cause, "a decided transaction's rows could not be removed");
            }
        }
    }
}

fn path(id: &str) -> Path {
    Path::from(format!("{FOLDER}/{id}"))
}

fn error(path: &Path, cause: &object_store::Error) -> Error {
    Error::Store { path: path.to_string(), cause: cause.to_string() }
}
