//! Notices that config.toml or a contract was edited.
//!
//! Folders are watched, not files: editors and deployments put a new file in the old one's place. Kubernetes swaps a link
//! (`..data`) beside the files, so names of that form count as well, and where config.toml or the folder of contracts is
//! a link, what it leads to is watched too. Hints only: that something may have changed. Whoever gets one reads the
//! configuration and compares; and makes a new watch before reading, for the folders may be others now.
//!
//! File systems that tell no changes (NFS, some mounts of containers) give no hints: there is SIGHUP for those.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Config;

/// An edit is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(500);

/// Where something always happens, the configuration is read this often all the same.
const NOISY_MAX: Duration = Duration::from_secs(5);

/// See the module text.
pub struct Watch {
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
    hint: Arc<Notify>,
}

/// The places that matter.
struct Places {
    config: PathBuf,
    schemas_dir: PathBuf,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches this configuration's files. Changes from now on are seen.
    pub fn start(config: &Config) -> Result<Self, notify::Error> {
        let places = Places::of(&config.path, &config.schemas_dir);
        let folders = places.folders.clone();
        let hint = Arc::new(Notify::new());
        let told = hint.clone();
        let mut watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
            Ok(event) if places.concern(&event) => told.notify_one(),
            Ok(_) => {}
            // What was missed is not known.
            Err(_) => told.notify_one(),
        })?;
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, hint })
    }

    /// Returns when something was edited and has been quiet since.
    pub async fn changed(&self) {
        self.hint.notified().await;
        let begun = Instant::now();
        while timeout(QUIET, self.hint.notified()).await.is_ok() && begun.elapsed() < NOISY_MAX {}
    }
}

impl Places {
    fn of(config: &Path, schemas_dir: &Path) -> Self {
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        let target = |path: &Path| path.canonicalize().ok();
        let places = [
            parent(config),
            target(config).as_deref().and_then(parent),
            Some(schemas_dir.to_owned()),
            target(schemas_dir),
            // Where the folder itself may be put in place.
            parent(schemas_dir),
        ];
        Self {
            config: config.to_owned(),
            schemas_dir: schemas_dir.to_owned(),
            folders: places.into_iter().flatten().filter(|folder| folder.is_dir()).collect(),
        }
    }

    /// Whether an event may mean an edit. The folder may hold other things, among them the log of this very process.
    fn concern(&self, event: &Event) -> bool {
        let read_only = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        event.need_rescan() || (!read_only && event.paths.iter().any(|path| self.concerns(path)))
    }

    fn concerns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        Some(name) == self.config.file_name()
            || path.extension().is_some_and(|extension| extension == "toml")
            || name.to_str().is_some_and(|name| name.starts_with(".."))
            || path == self.schemas_dir
            || self.folders.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const CONFIG: &str =
        "[lake]\nurl = \"lake\"\n[[source]]\nname = \"a\"\nurl = \"mysql://u@h\"\ntables = [\"a.*\"]\n";

    /// Whether `edit` is noticed.
    async fn noticed(config: &Path, edit: impl FnOnce()) -> bool {
        let config = Config::load(config).unwrap_or_else(|error| panic!("{error}"));
        let watch = Watch::start(&config).expect("folders can be watched");
        edit();
        timeout(Duration::from_secs(2), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn edits_of_every_form_are_noticed_and_other_files_are_not() {
        let folder = tempfile::tempdir().expect("folder");
        let config = folder.path().join("config.toml");
        fs::write(&config, CONFIG).expect("written");
        assert!(noticed(&config, || fs::write(&config, CONFIG).expect("in place")).await);
        let replace = || {
            fs::write(folder.path().join(".config.toml.swp"), CONFIG).expect("written");
            fs::rename(folder.path().join(".config.toml.swp"), &config).expect("renamed");
        };
        assert!(noticed(&config, replace).await);
        let schemas = folder.path().join("schemas");
        assert!(noticed(&config, || fs::create_dir(&schemas).expect("made")).await);
        let contract = schemas.join("a.toml");
        assert!(noticed(&config, || fs::write(&contract, "table = \"a.b\"\n").expect("written")).await);
        assert!(noticed(&config, || fs::remove_file(&contract).expect("removed")).await);
        let other = || {
            fs::write(folder.path().join("run.log"), "line").expect("written");
            fs::read(&config).expect("read");
        };
        assert!(!noticed(&config, other).await);
    }

    #[tokio::test]
    async fn a_swapped_config_map_and_an_edited_target_of_a_link_are_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        for version in ["..one", "..two"] {
            fs::create_dir(path(version)).expect("made");
            fs::write(path(version).join("config.toml"), CONFIG).expect("written");
        }
        symlink("..one", path("..data")).expect("linked");
        symlink("..data/config.toml", path("config.toml")).expect("linked");
        let swap = || {
            symlink("..two", path("..data_tmp")).expect("linked");
            fs::rename(path("..data_tmp"), path("..data")).expect("renamed");
        };
        assert!(noticed(&path("config.toml"), swap).await);
        let elsewhere = tempfile::tempdir().expect("folder");
        let linked = elsewhere.path().join("lakeward.toml");
        symlink(path("..two").join("config.toml"), &linked).expect("linked");
        let edit = || fs::write(path("..two").join("config.toml"), CONFIG).expect("written");
        assert!(noticed(&linked, edit).await);
    }
}
