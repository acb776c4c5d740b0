//! The replication slot: what keeps the server from throwing away log that the lake does not hold yet.
//!
//! The slot is made once, when nothing is durable yet, and never again (R-12): a new slot starts at the present, and
//! what was committed before would be missing without a trace. It must never be ahead of the lake either (R-11): the
//! server silently starts at the slot's own position when asked for an older one.

use serde::Deserialize;
use sqlx::postgres::PgConnection;
use tokio::time::{Duration, Instant, interval_at};
use tracing::{info, warn};

use super::catalog::parse;
use super::connection::{parse_lsn, query_error, quote_literal, replication_privilege};
use crate::config::SourceConfig;
use crate::source::{Error, Position};

/// A row of `pg_replication_slots`; columns that a version lacks are `None`.
#[derive(Clone, Debug, Deserialize)]
pub struct Slot {
    pub plugin: Option<String>,
    pub slot_type: String,
    pub database: Option<String>,
    pub temporary: bool,
    pub active_pid: Option<i32>,
    /// Transactions would come when they are prepared, before anybody knows whether they are committed.
    #[serde(default)]
    two_phase: bool,
    confirmed_flush_lsn: Option<String>,
    /// From here on the server keeps its log.
    #[serde(default)]
    pub restart_lsn: Option<String>,
    /// With `max_slot_wal_keep_size`: so many bytes may be written before the slot is in danger.
    #[serde(default)]
    pub safe_wal_size: Option<i64>,
    pub wal_status: Option<String>,
    /// Since 16.
    pub conflicting: Option<bool>,
    /// Since 17.
    pub invalidation_reason: Option<String>,
}

impl Slot {
    pub fn confirmed(&self) -> Option<u64> {
        self.confirmed_flush_lsn.as_deref().and_then(parse_lsn)
    }

    /// Why it can't be read from any more.
    pub fn lost(&self) -> Option<String> {
        if let Some(reason) = &self.invalidation_reason {
            return Some(format!("was invalidated by the server ({reason})"));
        }
        if self.wal_status.as_deref() == Some("lost") {
            return Some("was invalidated: the log it needs is gone (`max_slot_wal_keep_size` was exceeded)".into());
        }
        if self.conflicting == Some(true) {
            return Some("was invalidated: it conflicts with recovery".into());
        }
        None
    }

    /// Why it is not a slot that this source could use.
    pub fn foreign(&self, config: &SourceConfig) -> Option<String> {
        if self.slot_type != "logical" || self.plugin.as_deref() != Some("pgoutput") {
            return Some(format!(
                "is a {} slot of plugin {}, a logical one of pgoutput is needed",
                self.slot_type,
                self.plugin.as_deref().unwrap_or("-")
            ));
        }
        if self.two_phase {
            return Some("was made for two-phase decoding, which sends transactions before their commit".into());
        }
        if self.temporary {
            return Some("is a temporary slot of another session".into());
        }
        match self.database.as_deref() {
            Some(database) if database == config.database => None,
            other => Some(format!("belongs to database `{}`", other.unwrap_or("-"))),
        }
    }
}

pub async fn find(connection: &mut PgConnection, name: &str) -> Result<Option<Slot>, Error> {
    let row: Option<String> =
        sqlx::query_scalar("SELECT to_jsonb(s)::text FROM pg_replication_slots s WHERE slot_name = $1")
            .bind(name)
            .fetch_optional(connection)
            .await
            .map_err(|error| query_error("reading pg_replication_slots", &error))?;
    row.map(|row| parse("pg_replication_slots", &row)).transpose()
}

/// Where streaming starts: at `durable`, or, when nothing is durable yet, where the slot stands, making it if needed.
pub async fn ensure(connection: &mut PgConnection, config: &SourceConfig, durable: Option<u64>) -> Result<u64, Error> {
    let Some(durable) = durable else {
        return match find(connection, &config.slot).await? {
            Some(slot) => first_position(config, &slot),
            None => create(connection, config).await,
        };
    };
    check(connection, config, durable).await?;
    Ok(durable)
}

/// Whether everything after `durable` can still be read through the slot (R-11, R-12).
pub async fn check(connection: &mut PgConnection, config: &SourceConfig, durable: u64) -> Result<(), Error> {
    let lost = |cause: String| Error::SlotLost { slot: config.slot.clone(), cause, position: Position::Lsn(durable) };
    let Some(slot) = find(connection, &config.slot).await? else {
        return Err(lost("does not exist any more".into()));
    };
    if let Some(cause) = slot.foreign(config).or_else(|| slot.lost()) {
        return Err(lost(cause));
    }
    let Some(confirmed) = slot.confirmed() else {
        return Err(lost("is not ready: its creation was not finished".into()));
    };
    if confirmed > durable {
        return Err(Error::PositionLost {
            position: Position::Lsn(durable),
            cause: format!(
                "replication slot `{}` was advanced to {}: by another reader, or the lake was set back",
                config.slot,
                Position::Lsn(confirmed)
            ),
        });
    }
    let end = log_end(connection).await?;
    if durable > end {
        return Err(Error::PositionLost {
            position: Position::Lsn(durable),
            cause: format!(
                "the server's log ends at {} already: it is another server, or was restored from a backup",
                Position::Lsn(end)
            ),
        });
    }
    if let Some(pid) = slot.active_pid {
        return Err(Error::SlotInUse { slot: config.slot.clone(), pid: pid.to_string() });
    }
    Ok(())
}

/// Drops the source's own slot if nobody can read through it any more: the server has given it up, or it begins before its
/// publication, which is not there (`published`) and will be made anew.
pub async fn drop_useless(connection: &mut PgConnection, config: &SourceConfig, published: bool) -> Result<(), Error> {
    let Some(slot) = find(connection, &config.slot).await? else { return Ok(()) };
    let older = || (!published).then(|| "is older than its publication, without which it can't be decoded".to_owned());
    let cause = slot.lost().or_else(older).filter(|_| slot.foreign(config).is_none());
    let Some(cause) = cause else { return Ok(()) };
    let statement = "SELECT pg_drop_replication_slot($1)";
    sqlx::query(statement)
        .bind(&config.slot)
        .execute(connection)
        .await
        .map_err(|error| query_error(&format!("dropping replication slot `{}`", config.slot), &error))?;
    info!(slot = config.slot, cause, "dropped the replication slot, for nobody can read through it any more");
    Ok(())
}

/// A slot that a start before this one left behind, with nothing durable since.
fn first_position(config: &SourceConfig, slot: &Slot) -> Result<u64, Error> {
    let unusable = |finding: String| Error::Setting {
        subject: format!("replication slot `{}`", config.slot),
        finding,
        remedy: format!(
            "give the source another `slot`, or, if nobody needs this one, run: SELECT pg_drop_replication_slot({})",
            quote_literal(&config.slot)
        ),
    };
    if let Some(finding) = slot.foreign(config).or_else(|| slot.lost()) {
        return Err(unusable(finding));
    }
    if let Some(pid) = slot.active_pid {
        return Err(Error::SlotInUse { slot: config.slot.clone(), pid: pid.to_string() });
    }
    slot.confirmed().ok_or_else(|| unusable("is not ready: its creation was not finished".into()))
}

/// Makes the slot; the server waits for the transactions that are open now.
async fn create(connection: &mut PgConnection, config: &SourceConfig) -> Result<u64, Error> {
    let statement = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
    let creating = sqlx::query_scalar::<_, String>(statement).bind(&config.slot).fetch_one(connection);
    let made = patiently(&config.slot, creating).await;
    match made {
        Ok(text) => {
            let lsn = parse_lsn(&text).ok_or_else(|| Error::Query {
                statement: format!("creating replication slot `{}`", config.slot),
                cause: format!("`{text}` is not an LSN"),
            })?;
            info!(slot = config.slot, position = %Position::Lsn(lsn), "created the replication slot");
            Ok(lsn)
        }
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
            Err(match code.as_deref() {
                Some("42501") => replication_privilege(config),
                Some("53400") => slots_exhausted(),
                _ => query_error(&format!("creating replication slot `{}`", config.slot), &error),
            })
        }
    }
}

/// Says every ten seconds what is being waited for.
pub async fn patiently<T>(slot: &str, creating: impl Future<Output = T>) -> T {
    const PATIENCE: Duration = Duration::from_secs(10);
    tokio::pin!(creating);
    let mut ticks = interval_at(Instant::now() + PATIENCE, PATIENCE);
    loop {
        tokio::select! {
            made = &mut creating => return made,
            _ = ticks.tick() => warn!(
                slot,
                "still creating the replication slot: the server waits for every transaction that was open when it \
                 began; see the oldest in pg_stat_activity (xact_start) and pg_prepared_xacts"
            ),
        }
    }
}

pub fn slots_exhausted() -> Error {
    Error::Setting {
        subject: "max_replication_slots".into(),
        finding: "all replication slots of the server are in use; a source needs one, and one more while it loads \
                  tables"
            .into(),
        remedy: "raise max_replication_slots in postgresql.conf and restart the server, or drop a slot nobody reads \
                 (SELECT slot_name, active FROM pg_replication_slots)"
            .into(),
    }
}

/// Up to where the server's log is on its disk, including every transaction that anybody can see now.
pub async fn log_end(connection: &mut PgConnection) -> Result<u64, Error> {
    let (_, inserted) = log_ends(connection).await?;
    flushed(connection, inserted).await
}

/// Up to where the server's log is on its disk, including every transaction that could be seen when it was written up to
/// `inserted`.
pub async fn flushed(connection: &mut PgConnection, inserted: u64) -> Result<u64, Error> {
    // With synchronous_commit = off a transaction is visible up to a few hundred milliseconds before it is flushed,
    // and only flushed log is sent.
    for _ in 0..20 {
        let (flushed, _) = log_ends(connection).await?;
        if flushed >= inserted {
            return Ok(flushed);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The rest belongs to open transactions: nothing that was committed.
    log_ends(connection).await.map(|(flushed, _)| flushed)
}

/// Up to where the log is on disk, and up to where it is written.
pub async fn log_ends(connection: &mut PgConnection) -> Result<(u64, u64), Error> {
    let statement = "SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_insert_lsn()::text";
    let (flushed, inserted): (String, String) = sqlx::query_as(statement)
        .fetch_one(connection)
        .await
        .map_err(|error| query_error("reading the log's end", &error))?;
    match (parse_lsn(&flushed), parse_lsn(&inserted)) {
        (Some(flushed), Some(inserted)) => Ok((flushed, inserted)),
        _ => Err(Error::Query {
            statement: "reading the log's end".into(),
            cause: format!("`{flushed}`, `{inserted}` are not LSNs"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(changes: &str) -> Slot {
        let mut json: serde_json::Value = serde_json::from_str(
            r#"{"slot_type":"logical","plugin":"pgoutput","database":"shop","temporary":false,
                "confirmed_flush_lsn":"0/100","wal_status":"reserved"}"#,
        )
        .expect("valid");
        let changes: serde_json::Value = serde_json::from_str(changes).expect("valid");
        for (name, value) in changes.as_object().expect("an object") {
            json[name] = value.clone();
        }
        serde_json::from_value(json).expect("a slot")
    }

    /// R-12, in the words of PostgreSQL 15, 16, 17 and 18.
    #[test]
    fn an_invalidated_slot_is_lost() {
        assert!(slot("{}").lost().is_none());
        assert_eq!(slot("{}").confirmed(), Some(0x100));
        for changes in [
            r#"{"wal_status":"lost"}"#,
            r#"{"conflicting":true}"#,
            r#"{"invalidation_reason":"rows_removed"}"#,
            r#"{"invalidation_reason":"idle_timeout"}"#,
        ] {
            assert!(slot(changes).lost().is_some(), "{changes}");
        }
        assert!(slot(r#"{"wal_status":"unreserved","conflicting":false,"invalidation_reason":null}"#).lost().is_none());
    }
}
