//! Whether the lake has what was read at the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use object_store::ObjectStore;

use super::Error;
use crate::lake::{self, Lake};
use crate::ledger::{Lease, Ledger, TableState};
use crate::schema::TableName;
use crate::source::Position;

const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long the lake may stand still when no lakeward runs that could move it: one may be starting again.
const ALONE_PATIENCE: Duration = Duration::from_secs(10);

/// See [`Follower::reach`].
pub enum Reached {
    At(String),
    StoodStill { at: String, nobody: bool },
}

/// Looks at a source's ledger; holds nothing in it. One serves all tables of the source.
pub struct Follower {
    store: Arc<dyn ObjectStore>,
    source: String,
    patience: Duration,
    /// Nobody followed the source when that was last asked, after a while in which somebody might have begun to.
    alone: AtomicBool,
}

impl Follower {
    /// `patience`: how long the lake may stand still before it is given up.
    pub fn new(lake: &Lake, source: &str, patience: Duration) -> Result<Self, lake::Error> {
        let store: Arc<dyn ObjectStore> = lake.ledger_store(source)?;
        Ok(Self { store, source: source.to_owned(), patience, alone: AtomicBool::new(false) })
    }

    /// Fails for a table that does not follow its source.
    pub async fn check(&self, table: &TableName) -> Result<(), Error> {
        self.position(table).await.map(drop)
    }

    /// What the table is known to hold.
    async fn position(&self, table: &TableName) -> Result<String, Error> {
        let unfit = |why: String| Error::Unfit { table: table.to_string(), why };
        let entry = Ledger::read(self.store.clone()).await?;
        let entry = entry.ok_or_else(|| {
            unfit(format!("nothing of source `{}` is in the lake yet; `lakeward run` loads it", self.source))
        })?;
        match entry.tables.get(&table.to_string()) {
            // One that waited is behind the others for a while.
            Some(TableState::Streaming) if entry.behind.contains(&table.to_string()) => Ok(entry.position),
            Some(TableState::Streaming) => Ok(entry.streamed().to_owned()),
            Some(TableState::Loading { .. }) => {
                Err(unfit("it is being loaded; verify it when that is done".to_owned()))
            }
            Some(TableState::Stopped { reason, .. }) => Err(unfit(format!("it has stopped: {reason}"))),
            Some(TableState::Waiting { reason, .. }) => {
                Err(unfit(format!("it waits for a decision: {reason}; see `lakeward schema show {}`", table)))
            }
            Some(TableState::Dropped { .. }) => Err(unfit("it was dropped at the source".to_owned())),
            None => Err(unfit(format!(
                "source `{}` does not follow it; `lakeward tables` lists those it follows",
                self.source
            ))),
        }
    }

    /// Waits until the lake's table has all of `highs`, as long as the lake moves at all. `held`: what the table itself says.
    pub async fn reach(&self, table: &TableName, highs: &[Position], held: &str) -> Result<Reached, Error> {
        let covers = |position: &Position| highs.iter().all(|high| position.covers(high));
        if covers(&held.parse()?) {
            return Ok(Reached::At(held.to_owned()));
        }
        let mut at = String::new();
        let mut moved = Instant::now();
        loop {
            let now = self.position(table).await?;
            if covers(&now.parse()?) {
                return Ok(Reached::At(now));
            }
            if now != at {
                (at, moved) = (now, Instant::now());
            }
            let still = moved.elapsed();
            let alone = self.alone.load(Ordering::Relaxed);
            if alone || still >= ALONE_PATIENCE.min(self.patience) {
                let nobody = Lease::holder(self.store.clone()).await?.is_none();
                self.alone.store(nobody, Ordering::Relaxed);
                if nobody || still >= self.patience {
                    return Ok(Reached::StoodStill { at, nobody });
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
