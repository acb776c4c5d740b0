//! Keeps the sources of the configuration running, one task each, through edits of the configuration.
//!
//! An edit takes effect at a commit boundary: a source whose part of the configuration changed is told to stop, commits
//! what is complete, gives its lease back, and starts anew with the new one, the way every start takes. Sources whose part
//! is the same go on undisturbed. New ones start only when the ones that stop have ended, for they may need the same
//! slot or replica id.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::SourceSummary;
use crate::config::{Config, Effective, SourceConfig};

/// See the module text. `start` runs one source until its token is cancelled.
pub(super) struct Supervisor<F> {
    start: F,
    stop: CancellationToken,
    wanted: Arc<Config>,
    running: HashMap<String, Running>,
    /// Those that ended by themselves: an error, or caught up.
    ended: HashMap<String, Ended>,
    tasks: JoinSet<SourceSummary>,
    names: HashMap<Id, String>,
}

struct Running {
    effective: Effective,
    stop: CancellationToken,
    /// It was told to stop, for its configuration is another one now.
    leaving: bool,
}

struct Ended {
    effective: Effective,
    summary: SourceSummary,
}

impl<F, R> Supervisor<F>
where
    F: Fn(Arc<Config>, SourceConfig, CancellationToken) -> R,
    R: Future<Output = SourceSummary> + Send + 'static,
{
    pub(super) fn new(config: Config, stop: CancellationToken, start: F) -> Self {
        Self {
            start,
            stop,
            wanted: Arc::new(config),
            running: HashMap::new(),
            ended: HashMap::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Runs until `stop`, or until every source has ended by itself. `edited` hears of each edit that is taken.
    pub(super) async fn run(
        mut self,
        mut edits: mpsc::Receiver<Config>,
        mut edited: impl FnMut(&Arc<Config>),
    ) -> Vec<SourceSummary> {
        let mut edits_come = true;
        self.start_wanted();
        while !self.tasks.is_empty() {
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.note_end(ended);
                    self.start_wanted();
                }
                edit = edits.recv(), if edits_come && !self.stop.is_cancelled() => match edit {
                    Some(config) => {
                        self.take(config);
                        edited(&self.wanted);
                    }
                    None => edits_come = false,
                },
            }
        }
        let mut summaries: Vec<SourceSummary> = self.ended.into_values().map(|ended| ended.summary).collect();
        summaries.sort_by(|a, b| a.name.cmp(&b.name));
        summaries
    }

    /// A valid edit of the configuration.
    fn take(&mut self, config: Config) {
        let wanted: HashMap<&str, Effective> =
            config.sources.iter().map(|source| (source.name.as_str(), Effective::of(&config, source))).collect();
        for (name, running) in self.running.iter_mut().filter(|(_, running)| !running.leaving) {
            match wanted.get(name.as_str()) {
                Some(effective) if *effective == running.effective => continue,
                Some(effective) => {
                    let changed = running.effective.differences(effective).join(", ");
                    tracing::info!(
                        source = name,
                        changed,
                        "the configuration has changed: restarting the source at the \
                        next commit boundary"
                    );
                }
                None => tracing::info!(source = name, "no longer in the configuration: stopping the source"),
            }
            running.leaving = true;
            running.stop.cancel();
        }
        self.ended.retain(|name, _| wanted.contains_key(name.as_str()));
        for name in wanted.keys().filter(|name| !self.running.contains_key(**name)) {
            match self.ended.get(*name) {
                Some(ended) if ended.effective == wanted[*name] => {}
                Some(_) => tracing::info!(source = name, "the configuration has changed: starting the source again"),
                None => tracing::info!(source = name, "new in the configuration: starting the source"),
            }
        }
        drop(wanted);
        self.wanted = Arc::new(config);
        self.start_wanted();
    }

    /// Starts what is wanted and neither runs nor has ended by itself with this very configuration.
    fn start_wanted(&mut self) {
        if self.stop.is_cancelled() || self.running.values().any(|running| running.leaving) {
            return;
        }
        for source in &self.wanted.sources {
            let effective = Effective::of(&self.wanted, source);
            let ended = self.ended.get(&source.name).is_some_and(|ended| ended.effective == effective);
            if ended || self.running.contains_key(&source.name) {
                continue;
            }
            self.ended.remove(&source.name);
            let stop = self.stop.child_token();
            let task = self.tasks.spawn((self.start)(self.wanted.clone(), source.clone(), stop.clone()));
            self.names.insert(task.id(), source.name.clone());
            self.running.insert(source.name.clone(), Running { effective, stop, leaving: false });
        }
    }

    fn note_end(&mut self, ended: Result<(Id, SourceSummary), tokio::task::JoinError>) {
        let (id, summary) = match ended {
            Ok((id, summary)) => (id, Ok(summary)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(name) = self.names.remove(&id) else { return };
        let Some(running) = self.running.remove(&name) else { return };
        let summary = summary.unwrap_or_else(|error| {
            // A defect that ended one source must not end the others.
            tracing::error!(source = name, %error, "source stopped");
            SourceSummary { name: name.clone(), error: Some(Arc::new(error.into())), ..Default::default() }
        });
        // One that is to start anew has not ended; one that was taken out is nobody's concern.
        if !running.leaving || self.stop.is_cancelled() {
            self.ended.insert(name, Ended { effective: running.effective, summary });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    fn config(commit: &str, sources: &[(&str, &str)]) -> Config {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        let sources: String = sources
            .iter()
            .map(|(name, tables)| {
                format!("[[source]]\nname = \"{name}\"\nurl = \"mysql://u@{name}\"\ntables = [\"{tables}\"]\n")
            })
            .collect();
        fs::write(&path, format!("[lake]\nurl = \"/lake\"\n[commit]\ninterval_seconds = {commit}\n{sources}"))
            .expect("written");
        let mut config = Config::load(&path).expect("valid");
        // The folder is another one each time.
        config.path = "config.toml".into();
        config
    }

    type Log = Arc<Mutex<Vec<String>>>;

    /// Sources that say when they start and end, and run until they are stopped; `broken` ends at once.
    fn supervised(
        first: Config,
        stop: CancellationToken,
    ) -> (mpsc::Sender<Config>, Log, tokio::task::JoinHandle<Vec<SourceSummary>>) {
        let log = Log::default();
        let said = log.clone();
        let say = move |text: String| said.lock().expect("not poisoned").push(text);
        let supervisor = Supervisor::new(first, stop, move |_, source: SourceConfig, stop| {
            let say = say.clone();
            async move {
                say(format!("+{}", source.name));
                if source.name != "broken" {
                    stop.cancelled().await;
                    say(format!("-{}", source.name));
                }
                SourceSummary { name: source.name, ..SourceSummary::default() }
            }
        });
        let (edits, received) = mpsc::channel(1);
        let running = tokio::spawn(supervisor.run(received, |_| ()));
        (edits, log, running)
    }

    async fn settled(log: &Log) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut said = std::mem::take(&mut *log.lock().expect("not poisoned"));
        // What starts or ends at once has no order.
        said.sort_unstable();
        said
    }

    #[tokio::test]
    async fn an_edit_disturbs_only_the_sources_that_it_concerns() {
        let stop = CancellationToken::new();
        let (edits, log, running) = supervised(config("10", &[("a", "a.*"), ("b", "b.*")]), stop.clone());
        assert_eq!(settled(&log).await, ["+a", "+b"]);
        // The same again.
        edits.send(config("10", &[("a", "a.*"), ("b", "b.*")])).await.expect("taken");
        assert!(settled(&log).await.is_empty());
        // Other tables of one, a new one.
        edits.send(config("10", &[("a", "a.x"), ("b", "b.*"), ("c", "c.*")])).await.expect("taken");
        assert_eq!(settled(&log).await, ["+a", "+c", "-a"]);
        // One is gone.
        edits.send(config("10", &[("a", "a.x"), ("c", "c.*")])).await.expect("taken");
        assert_eq!(settled(&log).await, ["-b"]);
        // Of all.
        edits.send(config("20", &[("a", "a.x"), ("c", "c.*")])).await.expect("taken");
        assert_eq!(settled(&log).await, ["+a", "+c", "-a", "-c"]);
        stop.cancel();
        let summaries = running.await.expect("no panic");
        assert_eq!(summaries.iter().map(|summary| summary.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[tokio::test]
    async fn a_source_that_failed_starts_again_only_when_its_configuration_changes() {
        let stop = CancellationToken::new();
        let (edits, log, running) = supervised(config("10", &[("a", "a.*"), ("broken", "b.*")]), stop.clone());
        assert_eq!(settled(&log).await, ["+a", "+broken"]);
        edits.send(config("10", &[("a", "a.x"), ("broken", "b.*")])).await.expect("taken");
        assert_eq!(settled(&log).await, ["+a", "-a"]);
        edits.send(config("10", &[("a", "a.x"), ("broken", "b.x")])).await.expect("taken");
        assert_eq!(settled(&log).await, ["+broken"]);
        drop(edits);
        stop.cancel();
        assert_eq!(running.await.expect("no panic").len(), 2);
    }
}
