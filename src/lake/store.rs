//! The object store a lake lives in: where things lie, how it is reached, and the proof that it is safe to commit to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Once};

use deltalake::DeltaTableBuilder;
use deltalake::logstore::LogStoreRef;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;
use uuid::Uuid;

use super::Error;
use super::row_index::IndexCache;
use crate::config::{AllWriteTerms, WriteMode, WriteTerms};
use crate::schema::TableName;

/// A lake's root and how to reach it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lake {
    url: Url,
    options: HashMap<String, String>,
    splices: bool,
    index: Option<Arc<IndexCache>>,
    terms: AllWriteTerms,
}

/// What a table's files are written by where nobody says anything.
const DEFAULT_TERMS: WriteTerms = WriteTerms { mode: WriteMode::MergeOnRead, target_file_bytes: 128 << 20 };

impl Lake {
    /// `url` without a trailing slash; `options` as deltalake knows them.
    pub fn new(url: &Url, options: &BTreeMap<String, String>) -> Self {
        static HANDLERS: Once = Once::new();
        HANDLERS.call_once(|| deltalake::aws::register_handlers(None));
        let options = options.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Self { url: url.clone(), options, splices: true, index: None, terms: DEFAULT_TERMS.into() }
    }

    /// Whether schema changes splice columns into data files, which is the default, or rewrite them.
    pub fn with_splices(self, splices: bool) -> Self {
        Self { splices, ..self }
    }

    /// Where tables that are opened keep their key indexes, and the memory for these. Without it they are in memory, whole.
    pub fn with_index(self, cache: Arc<IndexCache>) -> Self {
        Self { index: Some(cache), ..self }
    }

    /// How the files of each table are written. By default as merge-on-read has it.
    pub fn with_write_terms(self, terms: impl Into<AllWriteTerms>) -> Self {
        Self { terms: terms.into(), ..self }
    }

    pub(super) fn write_terms(&self, source: &str, table: &TableName) -> WriteTerms {
        self.terms.of(source, &table.to_string())
    }

    pub(super) fn index(&self) -> Option<&Arc<IndexCache>> {
        self.index.as_ref()
    }

    pub(super) fn splices(&self) -> bool {
        self.splices
    }

    pub(super) fn options(&self) -> &HashMap<String, String> {
        &self.options
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where a table lies: `<lake>/<source>/<database or schema>/<table>`.
    pub fn table_url(&self, source: &str, table: &TableName) -> Url {
        self.below(&[source, &path_segment(&table.schema), &path_segment(&table.table)])
    }

    /// The store rooted at the source's ledger, `<lake>/_lakeward/<source>`.
    pub fn ledger_store(&self, source: &str) -> Result<Arc<dyn ObjectStore>, Error> {
        Ok(self.log_store(&self.below(&["_lakeward", source]))?.object_store(None))
    }

    /// The store rooted at what channels of notices share, whatever the source: `<lake>/_lakeward/notices`.
    pub fn notices_store(&self) -> Result<Arc<dyn ObjectStore>, Error> {
        Ok(self.log_store(&self.below(&["_lakeward", "notices"]))?.object_store(None))
    }

    /// deltalake's handle on a table's folder.
    pub(super) fn log_store(&self, url: &Url) -> Result<LogStoreRef, Error> {
        if let Ok(folder) = url.to_file_path() {
            std::fs::create_dir_all(&folder).map_err(|cause| unreachable(url, &cause))?;
        }
        self.builder(url)?.build_storage().map_err(|cause| unreachable(url, &cause))
    }

    pub(super) fn builder(&self, url: &Url) -> Result<DeltaTableBuilder, Error> {
        let builder = DeltaTableBuilder::from_url(url.clone()).map_err(|cause| unreachable(url, &cause))?;
        Ok(builder.with_storage_options(self.options.clone()))
    }

    pub(super) fn below(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        url.path_segments_mut().expect("file and s3 urls have paths").pop_if_empty().extend(segments);
        url
    }

    /// Proves that the store can be written to and honours put-if-absent, on which every commit rests.
    ///
    /// Writes one small object twice and removes it again.
    pub async fn probe(&self) -> Result<(), Error> {
        let store = self.log_store(&self.below(&["_lakeward"]))?.object_store(None);
        let path = Path::from(format!("probe-{}", Uuid::new_v4()));
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "first".into(), create()).await.map_err(|cause| unreachable(&self.url, &cause))?;
        let second = store.put_opts(&path, "second".into(), create()).await;
        let verdict = match second {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
            Ok(_) => Err(Error::Unsafe { url: self.url.to_string() }),
            Err(cause) => Err(unreachable(&self.url, &cause)),
        };
        if let Err(cause) = store.delete(&path).await {
            tracing::warn!(object = %path, cause = cause_text(&cause), "the probe's object could not be removed");
        }
        verdict
    }
}

/// That a place of the lake can't be read or written just now.
pub(super) fn unreachable(url: &Url, cause: &dyn std::error::Error) -> Error {
    Error::Unreachable { url: url.to_string(), cause: cause_text(cause) }
}

/// An error and its sources on one line.
pub(crate) fn cause_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A database identifier as one path segment that every object store and reader takes: ASCII letters, digits, `_`, `-`,
/// `.` and `$` stay, all other bytes become `~hh`, as does a leading dot.
fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"_-$".contains(&byte) || (byte == b'.' && index > 0);
        if plain {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("~{byte:02x}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lake(url: &str) -> Lake {
        Lake::new(&Url::parse(url).expect("a constant"), &BTreeMap::new())
    }

    #[test]
    fn hostile_names_stay_inside_their_folder() {
        let table = TableName::new("..", "a/b ~");
        assert_eq!(
            lake("s3://bucket/p").table_url("booking", &table).as_str(),
            "s3://bucket/p/booking/~2e./a~2fb~20~7e"
        );
    }

    #[tokio::test]
    async fn a_local_folder_is_a_safe_store() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = Url::from_directory_path(folder.path()).expect("absolute");
        Lake::new(&url, &BTreeMap::new()).probe().await.expect("local files honour put-if-absent");
        assert_eq!(std::fs::read_dir(folder.path().join("_lakeward")).expect("made by the probe").count(), 0);
    }
}
