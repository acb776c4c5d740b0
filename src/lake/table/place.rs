//! Where a table lies: in its folder, or in one inside it, out of sight, until it is swapped in.

use url::Url;
use uuid::Uuid;

use super::super::Error;
use super::super::creation::Creation;
use super::super::load_note::LoadNote;
use super::super::store::Lake;
use super::Table;
use super::index::Opening;
use crate::schema::{RowIdentity, TableName, TableSchema};
use std::sync::Arc;

/// See the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Open,
    /// A whole Delta table of its own, with its own log, in the folder of that build.
    Hidden(Uuid),
}

impl Place {
    pub(in crate::lake) fn url(self, lake: &Lake, source: &str, name: &TableName) -> Url {
        let mut url = lake.table_url(source, name);
        if let (Self::Hidden(id), Ok(mut segments)) = (self, url.path_segments_mut()) {
            segments.push(&folder(id));
        }
        url
    }
}

/// How the folders of hidden builds begin.
pub(in crate::lake) const HIDDEN: &str = "resync-";

/// A hidden build's folder in the table's.
pub(super) fn folder(id: Uuid) -> String {
    format!("{HIDDEN}{id}")
}

impl Table {
    /// Makes an empty table that is to be loaded in chunks: version 0, of which `position` is the exact state as long as
    /// no row has changed since. Fails when there is one.
    pub async fn create(
        lake: &Lake,
        source: &str,
        schema: Arc<TableSchema>,
        position: String,
        load: LoadNote,
        place: Place,
    ) -> Result<Self, Error> {
        let name = schema.name.clone();
        if schema.identity != RowIdentity::Key || schema.key.is_empty() {
            return Err(Error::Table {
                table: name.to_string(),
                finding: "it has no key, so it cannot be loaded in chunks".to_owned(),
                remedy: "load it in one piece, or name its `key` in its contract".to_owned(),
            });
        }
        let log_store = lake.log_store(&place.url(lake, source, &name))?;
        let mode = lake.write_terms(source, &name).mode;
        let creation = Creation { source, schema: &schema, mode, position, load: Some(load) };
        creation.commit(&log_store, Vec::new()).await?;
        let opened = Self::open_at(lake, source, &name, place, Opening::First).await?;
        opened.ok_or_else(|| Error::Table {
            table: name.to_string(),
            finding: format!("the table at {} vanished just after it was created", place.url(lake, source, &name)),
            remedy: "see who else writes to this folder".to_owned(),
        })
    }

    pub fn place(&self) -> Place {
        self.place
    }
}
