//! Reads the configuration again when it was edited, or when somebody asks for it (SIGHUP).
//!
//! A valid edit goes to the [supervisor](super::supervisor). An invalid one is told with all its problems, and what was in
//! force stays in force; so does a changed `[lake]`, since another lake is another run.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::config::{Config, Watch};

/// See the module text.
pub(super) struct Reloader {
    in_force: Config,
    /// Somebody wants the configuration to be read again.
    asked: Arc<Notify>,
    edits: mpsc::Sender<Config>,
    refused_total: u64,
}

impl Reloader {
    pub(super) fn new(in_force: Config, asked: Arc<Notify>, edits: mpsc::Sender<Config>) -> Self {
        Self { in_force, asked, edits, refused_total: 0 }
    }

    /// Works until nobody takes edits any more.
    pub(super) async fn run(mut self) {
        let mut watch = self.watch();
        loop {
            let asked = tokio::select! {
                () = changed(watch.as_ref()) => false,
                () = self.asked.notified() => true,
            };
            // Before reading: an edit from here on is seen by the new one.
            watch = self.watch();
            if let Some(config) = self.read(asked)
                && self.edits.send(config).await.is_err()
            {
                return;
            }
        }
    }

    fn watch(&self) -> Option<Watch> {
        Watch::start(&self.in_force)
            .inspect_err(|error| {
                tracing::warn!(%error, "edits of the configuration can't be noticed; send SIGHUP after one");
            })
            .ok()
    }

    /// The configuration, if it is valid and another one than before.
    fn read(&mut self, asked: bool) -> Option<Config> {
        let config = match Config::load(&self.in_force.path) {
            Ok(config) => config,
            Err(error) => {
                for problem in &error.problems {
                    tracing::error!("{problem}");
                }
                self.refuse(&format!("it has {} problem(s), see above", error.problems.len()));
                return None;
            }
        };
        if config == self.in_force {
            if asked {
                tracing::info!("the configuration was read again: nothing has changed");
            }
            return None;
        }
        if config.lake != self.in_force.lake {
            self.refuse("[lake] has changed, which needs a restart");
            return None;
        }
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        self.in_force = config.clone();
        Some(config)
    }

    fn refuse(&mut self, why: &str) {
        self.refused_total += 1;
        tracing::error!(
            refused_total = self.refused_total,
            "the edited configuration is refused, and the one before stays in force: {why}"
        );
    }
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn write(folder: &Path, lake: &str, interval: &str) {
        let text = format!(
            "[lake]\nurl = \"{lake}\"\n[commit]\ninterval_seconds = {interval}\n\
             [[source]]\nname = \"a\"\nurl = \"mysql://u@h\"\ntables = [\"a.*\"]\n"
        );
        fs::write(folder.join("config.toml"), text).expect("written");
    }

    #[tokio::test]
    async fn a_valid_edit_is_handed_on_and_others_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "lake", "10");
        let config = Config::load(&folder.path().join("config.toml")).expect("valid");
        let (edits, mut handed_on) = mpsc::channel(1);
        let asked = Arc::new(Notify::new());
        let mut reloader = Reloader::new(config, asked.clone(), edits);
        write(folder.path(), "lake", "0");
        assert!(reloader.read(false).is_none());
        write(folder.path(), "elsewhere", "10");
        assert!(reloader.read(false).is_none());
        assert_eq!(reloader.refused_total, 2);
        write(folder.path(), "lake", "10");
        assert!(reloader.read(true).is_none());
        assert_eq!(reloader.refused_total, 2);

        let running = tokio::spawn(reloader.run());
        tokio::task::yield_now().await;
        write(folder.path(), "lake", "20");
        asked.notify_one();
        let handed = tokio::time::timeout(Duration::from_secs(5), handed_on.recv()).await;
        assert_eq!(handed.expect("in time").expect("handed on").commit.interval, Duration::from_secs(20));
        write(folder.path(), "lake", "30");
        let handed = tokio::time::timeout(Duration::from_secs(5), handed_on.recv()).await;
        assert_eq!(handed.expect("noticed").expect("handed on").commit.interval, Duration::from_secs(30));
        running.abort();
    }
}
