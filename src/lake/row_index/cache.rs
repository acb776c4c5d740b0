//! Where the indexes of a process are kept, and the memory that all of them share.
//!
//! Half of the budget is for layers (keys of rows that were written lately), half for fences and filters of segments. A
//! table writes its layer to disk when all layers together have a quarter of the budget and its own has more than its share
//! of an eighth: so tables at rest can't hold up those that work, and a sixty-fourth table costs no more than the first.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::error::IndexError;

/// What looking up costs; of all tables together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Keys that were asked for.
    pub lookups: AtomicU64,
    /// Those that layers in memory did not answer.
    pub disk_lookups: AtomicU64,
    pub blocks_read: AtomicU64,
    /// Written, merges included.
    pub bytes_written: AtomicU64,
    pub segments_written: AtomicU64,
}

/// See the module text.
#[derive(Debug)]
pub struct IndexCache {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes of layers, and how many there are.
    layers: AtomicU64,
    layer_count: AtomicU64,
    /// Of fences and filters.
    held: AtomicU64,
    pub counters: Counters,
}

/// Sources of a process that are configured alike share one.
static SHARED: Mutex<Vec<Weak<IndexCache>>> = Mutex::new(Vec::new());

impl IndexCache {
    /// `folder` need not exist yet.
    pub fn new(folder: PathBuf, bytes_max: u64) -> Arc<Self> {
        let (layers, layer_count, held) = Default::default();
        Arc::new(Self { folder, bytes_max, layers, layer_count, held, counters: Counters::default() })
    }

    /// The one of this process: its budget is for all of it, however many sources ask.
    pub fn shared(folder: &Path, bytes_max: u64) -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|cache| cache.strong_count() > 0);
        let mut alive = shared.iter().filter_map(Weak::upgrade);
        if let Some(cache) = alive.find(|cache| cache.folder == folder && cache.bytes_max == bytes_max) {
            return cache;
        }
        let cache = Self::new(folder.to_owned(), bytes_max);
        shared.push(Arc::downgrade(&cache));
        cache
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Memory that is held at present.
    pub fn bytes(&self) -> u64 {
        self.layers.load(Ordering::Relaxed) + self.held.load(Ordering::Relaxed)
    }

    /// Memory that must be had.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Reserved {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Reserved { cache: self.clone(), bytes }
    }

    /// Whether [`IndexCache::reserve`] would succeed just now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Relaxed) + bytes <= self.bytes_max / 2
    }

    /// Memory that is good to have.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        let reserved = self.hold(bytes);
        (self.held.load(Ordering::Relaxed) <= self.bytes_max / 2).then_some(reserved)
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    cache: Arc<IndexCache>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.cache.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one index has in layers.
#[derive(Debug)]
pub(super) struct Share {
    cache: Arc<IndexCache>,
    bytes: u64,
}

impl Share {
    pub fn new(cache: &Arc<IndexCache>) -> Self {
        cache.layer_count.fetch_add(1, Ordering::Relaxed);
        Self { cache: cache.clone(), bytes: 0 }
    }

    pub fn set(&mut self, bytes: u64) {
        self.cache.layers.fetch_add(bytes, Ordering::Relaxed);
        self.cache.layers.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Whether a layer of this size is to be written to disk.
    pub fn is_due(&self, layer_bytes: u64) -> bool {
        let all = self.cache.layers.load(Ordering::Relaxed);
        let fair = self.cache.bytes_max / 8 / self.cache.layer_count.load(Ordering::Relaxed).max(1);
        let least = LAYER_BYTES_MIN.min(self.cache.bytes_max / 8).max(1);
        all > self.cache.bytes_max / 4 && layer_bytes >= fair.max(least)
    }
}

/// A smaller layer is not worth a file.
const LAYER_BYTES_MIN: u64 = 16 << 10;

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.cache.layer_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where one table's segments are.
#[derive(Debug)]
pub(super) struct Folder {
    /// Changes when a table that was built out of sight is swapped in.
    path: Mutex<PathBuf>,
    /// Held as long as this is; without it nothing outlives the process.
    lock: Option<File>,
    /// Damage was found: nothing in it is to be trusted by the next opening.
    condemned: AtomicBool,
}

/// What is in force in a folder, and the file by which its owner is told.
const MANIFEST: &str = "manifest";
const MANIFEST_UNFINISHED: &str = "manifest.unfinished";
const LOCK: &str = "lock";

/// How long the last owner, who may be just about to let go, is waited for.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

impl Folder {
    /// For files without names, which go with the process.
    pub fn scratch(cache: &IndexCache) -> Self {
        Self { path: Mutex::new(cache.folder.clone()), lock: None, condemned: AtomicBool::new(false) }
    }

    /// The folder of a table; `None` where it is another's.
    pub async fn lock(path: PathBuf) -> Result<Option<Self>, IndexError> {
        for _ in 0..LOCK_TRIES {
            let file =
                make_and_lock(&path).map_err(|source| IndexError::Io { place: path.display().to_string(), source })?;
            if let Some(file) = file {
                return Ok(Some(Self { path: Mutex::new(path), lock: Some(file), condemned: AtomicBool::new(false) }));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(None)
    }

    pub fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what is in it outlives the process.
    pub fn keeps(&self) -> bool {
        self.lock.is_some() && !self.condemned.load(Ordering::Relaxed)
    }

    pub fn io(&self, source: std::io::Error) -> IndexError {
        IndexError::Io { place: self.path().display().to_string(), source }
    }

    /// What it has is not to be opened again.
    pub fn condemn(&self) {
        if self.lock.is_none() {
            return;
        }
        self.condemned.store(true, Ordering::Relaxed);
        let path = self.path().join(MANIFEST);
        if let Err(cause) = std::fs::remove_file(&path)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %cause, "a damaged key index cannot be removed; remove it by hand");
        }
    }

    /// The manifest's bytes; `None` where there is none.
    pub fn read_manifest(&self) -> Result<Option<Vec<u8>>, std::io::Error> {
        match std::fs::read(self.path().join(MANIFEST)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Puts a manifest in the place of the last one. It holds the secret of the hashes: only the owner may read it.
    pub fn write_manifest(&self, bytes: &[u8]) -> Result<(), std::io::Error> {
        if !self.keeps() {
            return Ok(());
        }
        let path = self.path();
        make(&path)?;
        let unfinished = path.join(MANIFEST_UNFINISHED);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(unfinished, path.join(MANIFEST))
    }

    /// Removes what earlier processes left that no manifest names.
    pub fn sweep(&self, named: impl Fn(&str) -> bool) {
        if !self.keeps() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(self.path()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != LOCK && name != MANIFEST && !named(&name) {
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }

    /// Takes the place of another folder, whose content goes; does nothing when that one is in use.
    pub fn move_to(&self, to: &Path) -> Result<(), std::io::Error> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock.is_none() || *path == to || make_and_lock(to)?.is_none() {
            return Ok(());
        }
        std::fs::remove_dir_all(to)?;
        std::fs::rename(&*path, to)?;
        *path = to.to_owned();
        Ok(())
    }

    /// Removes the folder of a table that is gone, unless it is in use.
    pub fn remove(path: &Path) -> Result<(), std::io::Error> {
        if !path.exists() || make_and_lock(path)?.is_none() {
            return Ok(());
        }
        std::fs::remove_dir_all(path)
    }
}

pub(super) fn make(path: &Path) -> Result<(), std::io::Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The lock goes with the file's last handle.
fn make_and_lock(path: &Path) -> Result<Option<File>, std::io::Error> {
    make(path)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}
