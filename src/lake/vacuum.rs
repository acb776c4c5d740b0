//! Objects that nothing needs any more are removed from a table's folder, and log entries that are too old.
//!
//! An object stays if the newest version refers to it, or a version that was in force within the retention, as a data file or
//! as deletion vectors; so every such version stays readable. It also stays while it is young, for what is written
//! becomes part of the table only later: chunks of a load, a compaction, a batch. A build out of sight that is under way
//! has a log of its own, by which it is known, and stays whole. Whatever is neither a data file nor deletion vectors is none
//! of our business.
//!
//! Only hashes of names are in memory, 16 bytes for each object that is needed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::kernel::{Action, DeletionVectorDescriptor};
use deltalake::logstore::LogStoreRef;
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use twox_hash::XxHash3_128;
use url::Url;

use super::store::{Lake, cause_text, unreachable};
use super::table::{HIDDEN, LOG, find};
use super::{Error, deletion_vector, step};
use crate::schema::TableName;

/// Log entries read at a time.
const ENTRIES_AT_A_TIME: usize = 16;

/// What stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumTerms {
    /// Versions that were in force since then stay readable.
    pub retention: Duration,
    /// What was written since then stays, whether or not anything refers to it.
    pub young: Duration,
}

impl VacuumTerms {
    /// Nothing takes longer from being written to being referred to.
    pub const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);
}

/// What a sweep found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Objects that nothing needs, and their bytes: removed, unless it was only to be told.
    pub objects: u64,
    pub bytes: u64,
    /// Of them, those that could not be removed.
    pub failed: u64,
    /// Objects that stay.
    pub kept: u64,
    /// Log entries and checkpoints that were removed.
    pub log_entries: u64,
}

/// See the module text; `None` where there is no table. With `dry_run`, nothing is removed, and of the log nothing is told.
pub async fn vacuum(
    lake: &Lake,
    source: &str,
    name: &TableName,
    terms: VacuumTerms,
    dry_run: bool,
) -> Result<Option<Vacuumed>, Error> {
    let url = lake.table_url(source, name);
    if url.to_file_path().is_ok_and(|folder| !folder.exists()) {
        return Ok(None);
    }
    let now = Utc::now();
    // Before the log is read: a build that is swapped in later is known as one, and one that was, by the log.
    let builds = builds_under_way(&lake.log_store(&url)?, &url).await?;
    let Some((log_store, loaded)) = find(lake, source, name, &url).await? else { return Ok(None) };
    let mut needed = Needed { folder: folder_of(&url), names: HashSet::new() };
    for add in &loaded.adds {
        needed.file(&add.path, add.deletion_vector.as_ref());
    }
    let since = moment_before(now, terms.retention);
    needed.read_log(&log_store, &url, since, loaded.version).await?;
    let sweep = Sweep { needed, builds, until: moment_before(now, terms.young), counts: Counts::default() };
    let sweep = Arc::new(sweep);
    step::reached("vacuum.known").await;
    sweep.clone().run(log_store.object_store(None), &url, dry_run).await?;
    let mut vacuumed = sweep.counts.told();
    if !dry_run {
        // The entry that has lakeward's last note must stay.
        vacuumed.log_entries = clean_log(&log_store, &url, loaded.noted, since).await?;
    }
    Ok(Some(vacuumed))
}

/// So long before `now`, as far as time reaches back.
fn moment_before(now: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    let span = chrono::Duration::from_std(span).unwrap_or(chrono::Duration::MAX);
    now.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// The path of a table's url, to recognise absolute ones by.
fn folder_of(url: &Url) -> String {
    format!("{}/", url.as_str().trim_end_matches('/'))
}

/// Folders of builds that have a log of their own.
async fn builds_under_way(log_store: &LogStoreRef, url: &Url) -> Result<HashSet<String>, Error> {
    let store = log_store.object_store(None);
    let listed = store.list_with_delimiter(None).await.map_err(|cause| unreachable(url, &cause))?;
    let mut builds = HashSet::new();
    for folder in listed.common_prefixes {
        let Some(name) = folder.filename().filter(|name| name.starts_with(HIDDEN)).map(str::to_owned) else { continue };
        let log = folder.clone().join(LOG);
        let first = store.list(Some(&log)).try_next().await.map_err(|cause| unreachable(url, &cause))?;
        if first.is_some() {
            builds.insert(name);
        }
    }
    Ok(builds)
}

/// Removes entries that only versions older than `since` need; at least those from `noted` on stay.
async fn clean_log(log_store: &LogStoreRef, url: &Url, noted: u64, since: DateTime<Utc>) -> Result<u64, Error> {
    let cutoff = since.timestamp_millis().max(0);
    let cleaned = deltalake::checkpoints::cleanup_expired_logs_for(noted, log_store.as_ref(), cutoff, None).await;
    cleaned.map(|count| count as u64).map_err(|cause| unreachable(url, &cause))
}

/// What versions refer to.
struct Needed {
    folder: String,
    names: HashSet<u128>,
}

impl Needed {
    fn name(&mut self, path: &str) {
        let inside = path.strip_prefix(&self.folder).unwrap_or(path);
        self.names.insert(XxHash3_128::oneshot(inside.as_bytes()));
    }

    fn file(&mut self, path: &str, vector: Option<&DeletionVectorDescriptor>) {
        self.name(path);
        if let Some(object) = vector.and_then(deletion_vector::object_of) {
            self.name(&object);
        }
    }

    /// Files and vectors that entries since then name: what they removed was in force before, what they added after.
    async fn read_log(
        &mut self,
        log_store: &LogStoreRef,
        url: &Url,
        since: DateTime<Utc>,
        newest: u64,
    ) -> Result<(), Error> {
        let Some(first) = first_since(log_store, url, since).await? else { return Ok(()) };
        let read = |version| async move { log_store.read_commit_entry(version).await };
        let mut entries = stream::iter(first..=newest).map(read).buffer_unordered(ENTRIES_AT_A_TIME);
        while let Some(entry) = entries.try_next().await.map_err(|cause| unreachable(url, &cause))? {
            // One that somebody else removed already: versions before it can't be read any more.
            let Some(entry) = entry else { continue };
            let text = String::from_utf8_lossy(&entry);
            for line in text.lines().filter(|line| line.starts_with("{\"add\"") || line.starts_with("{\"remove\"")) {
                match serde_json::from_str(line) {
                    Ok(Action::Add(add)) => self.file(&add.path, add.deletion_vector.as_ref()),
                    Ok(Action::Remove(remove)) => self.file(&remove.path, remove.deletion_vector.as_ref()),
                    Ok(_) => {}
                    Err(cause) => {
                        // What can't be read may name anything.
                        let cause = format!("an entry of its log can't be read: {cause}");
                        return Err(Error::Unreachable { url: url.to_string(), cause });
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first version whose entry was written since then, by the store's clock.
async fn first_since(log_store: &LogStoreRef, url: &Url, since: DateTime<Utc>) -> Result<Option<u64>, Error> {
    let store = log_store.object_store(None);
    let mut entries = store.list(Some(&Path::from(LOG)));
    let mut first: Option<u64> = None;
    while let Some(entry) = entries.try_next().await.map_err(|cause| unreachable(url, &cause))? {
        let version = entry.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        if let Some(version) = version.filter(|_| entry.last_modified >= since) {
            first = Some(first.map_or(version, |first: u64| first.min(version)));
        }
    }
    Ok(first)
}

#[derive(Default)]
struct Counts {
    objects: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    kept: AtomicU64,
}

impl Counts {
    fn told(&self) -> Vacuumed {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Vacuumed {
            objects: read(&self.objects),
            bytes: read(&self.bytes),
            failed: read(&self.failed),
            kept: read(&self.kept),
            log_entries: 0,
        }
    }
}

/// A walk through the folder.
struct Sweep {
    needed: Needed,
    builds: HashSet<String>,
    /// What was written since then stays.
    until: DateTime<Utc>,
    counts: Counts,
}

impl Sweep {
    async fn run(self: Arc<Self>, store: Arc<dyn ObjectStore>, url: &Url, dry_run: bool) -> Result<(), Error> {
        let sweep = self.clone();
        let listed = store.list(None).try_filter(move |object| future::ready(sweep.is_needless(object)));
        let mut removed = if dry_run {
            listed.map_ok(|object| object.location).boxed()
        } else {
            store.delete_stream(listed.map_ok(|object| object.location).boxed())
        };
        while let Some(outcome) = removed.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(cause) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%url, cause = cause_text(&cause), "an object that nothing needs is left behind");
                }
            }
        }
        Ok(())
    }

    /// Whether an object is to go; counts it.
    fn is_needless(&self, object: &ObjectMeta) -> bool {
        let path = object.location.as_ref();
        let mut parts = object.location.parts();
        let first = parts.next();
        let first = first.as_ref().map_or("", |part| part.as_ref());
        if first == LOG || self.builds.contains(first) || !is_of_a_table(object) {
            return false;
        }
        let goes =
            object.last_modified < self.until && !self.needed.names.contains(&XxHash3_128::oneshot(path.as_bytes()));
        if goes {
            self.counts.objects.fetch_add(1, Ordering::Relaxed);
            self.counts.bytes.fetch_add(object.size, Ordering::Relaxed);
        } else {
            self.counts.kept.fetch_add(1, Ordering::Relaxed);
        }
        goes
    }
}

/// Whether this is a data file or deletion vectors, by its name.
fn is_of_a_table(object: &ObjectMeta) -> bool {
    let Some(name) = object.location.filename() else { return false };
    if name.starts_with(['_', '.']) {
        return false;
    }
    name.ends_with(".parquet") || deletion_vector::is_object(name)
}

#[cfg(test)]
mod tests {
    use deltalake::kernel::StorageType;

    use super::*;

    #[test]
    fn a_file_and_its_vectors_are_needed_by_their_paths_from_the_folder() {
        let vector = DeletionVectorDescriptor {
            storage_type: StorageType::AbsolutePath,
            path_or_inline_dv: "s3://lake/a/b/c/deletion_vector_1.bin".into(),
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 1,
        };
        let mut needed = Needed { folder: "s3://lake/a/b/c/".into(), names: HashSet::new() };
        needed.file("x.parquet", Some(&vector));
        assert!(
            needed.names.contains(&XxHash3_128::oneshot(b"x.parquet"))
                && needed.names.contains(&XxHash3_128::oneshot(b"deletion_vector_1.bin"))
        );
    }
}
