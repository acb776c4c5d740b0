//! Holds loads up while their source has enough to do: too many statements run there, or its replication is behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config;
use crate::source::{Error, Source};

/// How often the source is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How often the log says why loads wait.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// See the module text.
pub struct Gate<S> {
    source: Arc<S>,
    source_name: String,
    running_max: u64,
    replica_lag_max: Duration,
    /// Until when what the source said last holds.
    open_until: Mutex<Option<Instant>>,
}

impl<S: Source> Gate<S> {
    pub fn new(source: Arc<S>, source_name: &str, settings: &config::Snapshot) -> Self {
        Self {
            source,
            source_name: source_name.to_owned(),
            running_max: settings.running_max,
            replica_lag_max: settings.replica_lag_max,
            open_until: Mutex::new(None),
        }
    }

    /// Returns when a chunk may be read.
    pub async fn pass(&self) -> Result<(), Error> {
        if self.running_max == 0 && self.replica_lag_max.is_zero() {
            return Ok(());
        }
        // Whoever comes meanwhile waits for the same answer.
        let mut open_until = self.open_until.lock().await;
        let mut told: Option<Instant> = None;
        loop {
            if open_until.is_some_and(|until| Instant::now() < until) {
                return Ok(());
            }
            match self.finding().await? {
                None => *open_until = Some(Instant::now() + EVERY),
                Some(finding) => {
                    if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                        told = Some(Instant::now());
                        tracing::info!(source = self.source_name, "loads wait: {finding}");
                    }
                    tokio::time::sleep(EVERY).await;
                }
            }
        }
    }

    /// Why nothing may be read now.
    async fn finding(&self) -> Result<Option<String>, Error> {
        if self.running_max > 0 {
            let running = self.source.running().await?;
            if running > self.running_max {
                let max = self.running_max;
                return Ok(Some(format!(
                    "{running} statements run at the source, more than `snapshot.running_max` = {max}"
                )));
            }
        }
        if self.replica_lag_max.is_zero() {
            return Ok(None);
        }
        let lag = self.source.replica_lag().await?;
        Ok(lag.filter(|lag| *lag > self.replica_lag_max).map(|lag| {
            let (lag, max) = (lag.as_secs(), self.replica_lag_max.as_secs());
            format!("replication is {lag} s behind, more than `snapshot.replica_lag_seconds_max` = {max}")
        }))
    }
}
