//! What snapshots see beside what the log has: a commit is in the log before it is visible.
//!
//! A commit writes its record, leaves the list of running transactions, which makes it visible, and then gives back its locks
//! (`CommitTransaction` in xact.c), the last of which is the lock on its own id. So of all transactions that are in the
//! log by now, those that are not visible yet hold that lock; who holds it now is waited for. `pg_snapshot_xmin` would
//! tell less: `pg_snapshot_xmax` is the id after the last one *completed*, so a commit under way may be beyond it.
//!
//! A transaction whose session waits for its client is not committing, and has not committed: it isn't waited for, or a
//! forgotten one would hold up every load. Only with pg_read_all_stats can this be told of other roles' sessions; without
//! it they are all waited for.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::Instant;
use tracing::info;

use super::connection::query_error;
use super::sessions::Sessions;
use crate::config::SourceConfig;
use crate::source::Error;

const PAUSE: Duration = Duration::from_millis(20);

/// When a wait is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ids of transactions under way, the oldest first, and who they are, for people.
const UNDER_WAY: &str = "
    SELECT l.transactionid::text, coalesce('process ' || l.pid, 'a prepared transaction, see pg_prepared_xacts')
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
        AND coalesce(a.state, '') NOT LIKE 'idle in transaction%'
    ORDER BY age(l.transactionid) DESC";

async fn under_way(connection: &mut PgConnection) -> Result<Vec<(String, String)>, Error> {
    sqlx::query_as(UNDER_WAY)
        .fetch_all(connection)
        .await
        .map_err(|error| query_error("reading which transactions are under way", &error))
}

/// Returns when everything that is in the log at the call is visible.
pub async fn wait(sessions: &Sessions, config: &SourceConfig) -> Result<(), Error> {
    let mut connection = sessions.take(config).await?;
    let mut left: HashSet<String> = under_way(&mut connection).await?.into_iter().map(|(id, _)| id).collect();
    let begun = Instant::now();
    let mut told = begun;
    while !left.is_empty() {
        tokio::time::sleep(PAUSE).await;
        let now = under_way(&mut connection).await?;
        left.retain(|id| now.iter().any(|(other, _)| other == id));
        let oldest = now.iter().find(|(id, _)| left.contains(id));
        if let Some((_, holder)) = oldest
            && told.elapsed() >= PATIENCE
        {
            told = Instant::now();
            info!(
                source = config.name,
                seconds = begun.elapsed().as_secs(),
                "waiting for transactions that are under way, before chunks of tables are read; the oldest: {holder}; \
                 with GRANT pg_read_all_stats to its user lakeward could see which of them only wait for their client"
            );
        }
    }
    sessions.give_back(connection);
    Ok(())
}
