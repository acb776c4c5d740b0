//! Decisions of people about schema changes, found in the ledger while the source runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::ledger::{Decided, Decisions, Error};
use crate::schema::Verdict;

/// How often new ones are looked for, while anything waits for one.
const EVERY: Duration = Duration::from_secs(5);

/// Read at the same time.
const PARALLEL: usize = 16;

/// All decisions so far.
pub(super) async fn so_far(decisions: &Decisions) -> Result<HashMap<Uuid, Verdict>, Error> {
    let changes = decisions.changes().await?;
    let read: Vec<Option<Decided>> =
        stream::iter(changes).map(|change| decisions.read(change)).buffer_unordered(PARALLEL).try_collect().await?;
    Ok(read.into_iter().flatten().map(|decided| (decided.change, decided.verdict)).collect())
}

/// Hands on decisions that are not among the `known`, while `asked` is true. Trouble with the store is waited out; one that
/// can't be read is told once and passed over.
pub(super) async fn look_out(
    decisions: Decisions,
    mut known: HashSet<Uuid>,
    asked: watch::Receiver<bool>,
    found: mpsc::Sender<Decided>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !*asked.borrow() {
            continue;
        }
        let changes = match decisions.changes().await {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!(%error, "decisions could not be looked for");
                continue;
            }
        };
        for change in changes.into_iter().filter(|change| !known.contains(change)).collect::<Vec<_>>() {
            match decisions.read(change).await {
                Ok(Some(decided)) => {
                    known.insert(change);
                    tracing::info!(table = decided.table, %change, "a schema change was {decided}");
                    if found.send(decided).await.is_err() {
                        return;
                    }
                }
                Err(error @ Error::Unreadable { .. }) => {
                    known.insert(change);
                    tracing::warn!(%error, "a decision can't be read, and is passed over");
                }
                Ok(None) | Err(_) => {}
            }
        }
    }
}
