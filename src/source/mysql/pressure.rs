//! How much the server has to do, for loads that are to hold back.

use std::time::Duration;

use super::connection::Session;
use crate::config::SourceConfig;
use crate::source::Error;

/// Statements that run now, our own included. Needs no privilege.
pub async fn running(config: &SourceConfig) -> Result<u64, Error> {
    let mut session = Session::open(config).await?;
    let answer = session.query("SHOW GLOBAL STATUS LIKE 'Threads_running'").await?;
    Ok(answer.value("Value").and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// How far a replica is behind its source, the slowest of its channels. `None`: it is none, or its replication does not run. A source
/// does not know how far its replicas are.
pub async fn replica_lag(config: &SourceConfig) -> Result<Option<Duration>, Error> {
    let mut session = Session::open(config).await?;
    let answer = if session.flavor.is_mariadb() {
        session.query("SHOW ALL SLAVES STATUS").await?
    } else {
        match session.query("SHOW REPLICA STATUS").await {
            // Before MySQL 8.0.22.
            Err(Error::Query { .. }) => session.query("SHOW SLAVE STATUS").await?,
            answer => answer?,
        }
    };
    let names = ["Seconds_Behind_Source", "Seconds_Behind_Master"];
    let column = answer.columns.iter().position(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)));
    let Some(column) = column else { return Ok(None) };
    let seconds = answer.rows.iter().filter_map(|row| row.get(column)?.as_deref()?.parse::<u64>().ok()).max();
    Ok(seconds.map(Duration::from_secs))
}
