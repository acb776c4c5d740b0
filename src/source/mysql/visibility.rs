//! What snapshots see beside what the log has: a transaction is in the log before it is visible.
//!
//! It is written to the binlog, then committed in the engine, which makes it visible, and then, on MySQL with GTIDs, added to
//! `gtid_executed` (`MYSQL_BIN_LOG::process_commit_stage_queue` in binlog.cc). So:
//!
//! * what `gtid_executed` holds is visible; MariaDB's `gtid_binlog_pos` and the binlog's end run ahead of visibility;
//! * what is visible is in the binlog; it may not be in `gtid_executed` yet, but then its GTID is owned by a session
//!   (`gtid_owned`) until it is, for it goes from the one to the other in one step (`Gtid_state::update_gtids_impl` in
//!   rpl_gtid_state.cc).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Contracts, SourceConfig};
use crate::schema::TableName;
use crate::source::{Error, Position};

use super::connection::Session;
use super::position::{head, uses_gtids};
use super::{catalog, snapshot};

const PAUSE: Duration = Duration::from_millis(20);

/// Commits that are under way take milliseconds. Somebody may hold a GTID for long (`SET gtid_next`) without one.
const OWNED_AT_MOST: Duration = Duration::from_secs(2);

/// When a wait is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// A position that no transaction is beyond that was visible at the call.
pub async fn ceiling(session: &mut Session) -> Result<Position, Error> {
    if !session.flavor.is_mariadb() && uses_gtids(session).await? {
        let first = owned(session).await?;
        let begun = Instant::now();
        let mut left = first.clone();
        while !left.is_empty() && begun.elapsed() < OWNED_AT_MOST {
            tokio::time::sleep(PAUSE).await;
            left = first.intersection(&owned(session).await?).cloned().collect();
        }
    }
    head(session).await
}

/// The GTIDs of transactions under way.
async fn owned(session: &mut Session) -> Result<BTreeSet<String>, Error> {
    let answer = session.query("SELECT @@global.gtid_owned").await?;
    Ok(owned_gtids(answer.scalar().unwrap_or_default()))
}

/// Of `uuid:5#12:7#13,uuid:tag:5#14`: a number is followed by the session that owns it.
fn owned_gtids(text: &str) -> BTreeSet<String> {
    let mut owned = BTreeSet::new();
    for source in text.split(',').map(str::trim) {
        let (server, parts) = source.split_once(':').unwrap_or((source, ""));
        let mut tag = String::new();
        for part in parts.split(':').map(str::trim) {
            match part.split_once('#') {
                Some((number, _)) => drop(owned.insert(format!("{server}:{tag}{number}"))),
                None => tag = format!("{part}:"),
            }
        }
    }
    owned
}

/// Returns when all of `wanted`, which is in the log, is visible.
pub async fn wait(config: &SourceConfig, contracts: &Contracts, wanted: &Position) -> Result<(), Error> {
    let mut session = snapshot::session(config).await?;
    let mariadb = session.flavor.is_mariadb();
    if !mariadb && !uses_gtids(&mut session).await? {
        return locked(config, contracts, &mut session, wanted).await;
    }
    let begun = Instant::now();
    let mut told = begun;
    loop {
        let seen = if mariadb {
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
            let seen = snapshot::mariadb_position(&mut session).await?;
            session.execute("COMMIT").await?;
            seen
        } else {
            head(&mut session).await?
        };
        if seen.covers(wanted) {
            return Ok(());
        }
        if told.elapsed() >= PATIENCE {
            told = Instant::now();
            tracing::info!(
                source = config.name, %wanted, %seen, seconds = begun.elapsed().as_secs(),
                "transactions are in the log and not visible yet (a semi-synchronous replica that does not answer?); waiting"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Without GTIDs nothing tells what is visible, but under a lock nobody is between log and engine.
async fn locked(
    config: &SourceConfig,
    contracts: &Contracts,
    session: &mut Session,
    wanted: &Position,
) -> Result<(), Error> {
    let collations = catalog::collations(session).await?;
    let tables = catalog::tables(session, config, contracts, &collations).await?;
    let tables: Vec<TableName> = tables.into_iter().map(|table| table.schema.name).collect();
    let (_, seen) = snapshot::begin(config, &tables).await?;
    if seen.covers(wanted) {
        return Ok(());
    }
    Err(Error::PositionLost { position: wanted.clone(), cause: format!("the server's log ends at {seen}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_gtids_lose_their_owners() {
        let owned = owned_gtids("a-b:5#12:7#13,\na-b:tag:5#14:6#15");
        assert_eq!(owned.into_iter().collect::<Vec<_>>(), ["a-b:5", "a-b:7", "a-b:tag:5", "a-b:tag:6"]);
        assert!(owned_gtids("").is_empty());
    }
}
