//! Sessions that are used again.
//!
//! Chunks are read one after the other, each in a transaction of its own, and the gate asks every second. A session costs a
//! process at the server, thousands of hashes of the password on both sides, and an empty cache of the catalog, more than a small
//! chunk itself. So who is done with one, outside any transaction, gives it back; who fails just drops it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::connection::connect;
use crate::config::SourceConfig;
use crate::source::Error;

/// How long a session that nobody uses stays open.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// See the module text.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<Vec<Idle>>>);

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

impl Sessions {
    /// One that was given back, or a new one.
    pub async fn take(&self, config: &SourceConfig) -> Result<PgConnection, Error> {
        while let Some(mut connection) = self.newest() {
            // The server may have gone meanwhile, and what comes of a new session is the better error.
            if connection.ping().await.is_ok() {
                return Ok(connection);
            }
        }
        connect(config).await
    }

    /// Outside any transaction.
    pub fn give_back(&self, connection: PgConnection) {
        self.idle().push(Idle { connection, since: Instant::now() });
        let sessions = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_MAX).await;
            if let Some(sessions) = sessions.upgrade() {
                Self(sessions).close_old().await;
            }
        });
    }

    fn newest(&self) -> Option<PgConnection> {
        self.idle().pop().map(|idle| idle.connection)
    }

    async fn close_old(&self) {
        let old: Vec<Idle> = self.idle().extract_if(.., |idle| idle.since.elapsed() >= IDLE_MAX).collect();
        for idle in old {
            // Its end is the server's business if it does not hear of it.
            drop(idle.connection.close().await);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
