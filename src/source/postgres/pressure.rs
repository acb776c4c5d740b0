//! How much the server has to do, for loads that are to hold back.

use std::time::Duration;

use super::connection::query_error;
use super::sessions::Sessions;
use crate::config::SourceConfig;
use crate::source::Error;

/// Statements that run, and sessions of which that is hidden.
const RUNNING: &str = "
    SELECT count(*) FILTER (WHERE state = 'active' AND backend_type = 'client backend'),
        count(*) FILTER (WHERE query = '<insufficient privilege>')
    FROM pg_stat_activity";

/// Of a standby how far it is behind, of a primary how far its slowest standby is; and whether that is hidden. Readers of logical
/// slots, such as lakeward, are no standbys.
const REPLICA_LAG: &str = "
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN
            (SELECT max(extract(epoch FROM r.replay_lag)) FROM pg_stat_replication r WHERE NOT EXISTS
                (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))
        WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8,
        EXISTS (SELECT FROM pg_stat_replication WHERE state IS NULL)";

pub async fn running(sessions: &Sessions, config: &SourceConfig) -> Result<u64, Error> {
    let mut connection = sessions.take(config).await?;
    let (running, hidden): (i64, i64) = sqlx::query_as(RUNNING)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| query_error("reading how many statements run", &error))?;
    sessions.give_back(connection);
    if hidden > 0 {
        return Err(hidden_from(config, "`snapshot.running_max` is set, and what other sessions do is hidden"));
    }
    Ok(u64::try_from(running).unwrap_or(0))
}

pub async fn replica_lag(sessions: &Sessions, config: &SourceConfig) -> Result<Option<Duration>, Error> {
    let mut connection = sessions.take(config).await?;
    let (seconds, hidden): (Option<f64>, bool) = sqlx::query_as(REPLICA_LAG)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| query_error("reading how far replication is behind", &error))?;
    sessions.give_back(connection);
    if hidden {
        let need = "`snapshot.replica_lag_seconds_max` is set, and how far standbys are is hidden";
        return Err(hidden_from(config, need));
    }
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

fn hidden_from(config: &SourceConfig, need: &str) -> Error {
    let remedy = format!("GRANT pg_read_all_stats TO \"{}\"", config.user.replace('"', "\"\""));
    Error::Privilege { need: format!("{need} from `{}`", config.user), remedy }
}
