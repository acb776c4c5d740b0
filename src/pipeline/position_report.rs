//! What `lakeward position` tells: how far each source's tables are in its log, how much of the log the source still has,
//! and which versions of its tables belong together.
//!
//! Only reads, and takes no lease: a daemon may run meanwhile. So the order matters. The source is asked before the ledger is
//! read, and the ledger before the tables: each may be further than what was asked before it, and never less far.

mod cut;
mod meeting;
mod moment;
mod reading;

pub use cut::{Cut, CutTable, SourceCut, cuts};
pub use moment::Moment;
pub use reading::Reading;

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::Serialize;

use super::schema_report::{ReportError, source_named};
use super::source_run::parse_position;
use super::{AnySource, Error, table_name, why};
use crate::config::{Config, SourceConfig};
use crate::lake::{Lake, TableLog};
use crate::ledger::{Entry, Ledger, TableState};
use crate::source::{self, Distance, Identity, Kept, LogState, Position};

/// How long a source may take for all its answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How a source and its tables stand.
#[derive(Debug, Serialize)]
pub struct SourcePosition {
    pub source: String,
    pub address: String,
    /// `MariaDB 10.11.19`; as it was when the ledger was written where the source can't be asked.
    pub server: Option<String>,
    /// The last transaction committed at the source.
    pub head: Option<String>,
    /// What the ledger says: everything up to here is in the tables that stream, and the log is read from here after a restart.
    pub position: Option<String>,
    /// While tables wait and hold `position`: how far the others are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// From where the tables are to the head.
    pub lag: Option<Distance>,
    /// Age of the newest moment up to which everything committed at the source is in the lake; 0 when it has caught up.
    pub lag_seconds: Option<f64>,
    /// What the source has of its log.
    pub kept: Option<Kept>,
    /// How much of the log before `position` the source still has: so much may be removed before the position is lost.
    pub spare: Option<Distance>,
    /// Why what comes after `position` can't be read any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Why the source could not be asked.
    #[serde(serialize_with = "error_text", skip_serializing_if = "Option::is_none")]
    pub error: Option<source::Error>,
    pub tables: Vec<TablePosition>,
}

/// How a table stands.
#[derive(Debug, Serialize)]
pub struct TablePosition {
    pub table: String,
    /// As `lakeward tables` says it.
    pub state: &'static str,
    /// Delta version.
    pub version: Option<u64>,
    /// Of its last commit.
    pub position: Option<String>,
    /// It has everything up to here: a table that nobody changes has no commits.
    pub holds: Option<String>,
    /// From there to the source's head.
    pub lag: Option<Distance>,
    pub error: Option<String>,
}

fn error_text<W: serde::Serializer>(error: &Option<source::Error>, serializer: W) -> Result<W::Ok, W::Error> {
    serializer.collect_str(&error.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Every source of the configuration, or the one that is named.
pub async fn positions(config: &Config, named: Option<&str>) -> Result<Vec<SourcePosition>, ReportError> {
    let reports = join_all(sources(config, named)?.into_iter().map(|source| position(config, source))).await;
    reports.into_iter().collect()
}

fn sources<'c>(config: &'c Config, named: Option<&str>) -> Result<Vec<&'c SourceConfig>, ReportError> {
    match named {
        Some(named) => Ok(vec![source_named(config, named)?]),
        None => Ok(config.sources.iter().collect()),
    }
}

async fn position(config: &Config, source: &SourceConfig) -> Result<SourcePosition, ReportError> {
    let asked = ask(config, source).await;
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let entry = Ledger::read(lake.ledger_store(&source.name)?).await?;
    let (log, identity, error) = match asked {
        Ok((log, identity)) => (Some(log), Some(identity), None),
        Err(error) => (None, None, Some(error)),
    };
    let mut report = SourcePosition {
        source: source.name.clone(),
        address: source.address(),
        server: identity.as_ref().map(|identity| identity.server.clone()),
        head: log.as_ref().map(|log| log.head.to_string()),
        position: None,
        reached: None,
        lag: None,
        lag_seconds: None,
        spare: None,
        lost: None,
        kept: None,
        error,
        tables: Vec::new(),
    };
    if let Some(entry) = &entry {
        report.server = report.server.or_else(|| Some(entry.server.clone()));
        compare(&mut report, entry, log.as_ref(), identity.as_ref())?;
        for (table, state) in &entry.tables {
            report.tables.push(table_position(&lake, entry, table, state, log.as_ref()).await?);
        }
    }
    report.kept = log.map(|log| log.kept);
    Ok(report)
}

async fn ask(config: &Config, source: &SourceConfig) -> Result<(LogState, Identity), source::Error> {
    let answers = async {
        let database = AnySource::new(source.clone(), config.contracts.clone())?;
        let identity = database.identity().await?;
        Ok((database.log_state().await?, identity))
    };
    tokio::time::timeout(ANSWER_WITHIN, answers).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} seconds", ANSWER_WITHIN.as_secs());
        Err(source::Error::Connect { address: source.address(), cause })
    })
}

/// What the ledger says, beside what the source said.
fn compare(
    report: &mut SourcePosition,
    entry: &Entry,
    log: Option<&LogState>,
    identity: Option<&Identity>,
) -> Result<(), Error> {
    let (position, streamed) = (parse_position(&entry.position)?, parse_position(entry.streamed())?);
    report.position = Some(entry.position.clone());
    report.reached = entry.reached.clone();
    report.lag_seconds = entry.fresh_until.map(|fresh| seconds_since(fresh, Utc::now()));
    if let Some(identity) = identity.filter(|identity| identity.history != entry.history) {
        let other = source::Error::OtherHistory { expected: entry.history.clone(), found: identity.history.clone() };
        report.lost = Some(other.for_source(&report.source));
        return Ok(());
    }
    let Some(log) = log else { return Ok(()) };
    if streamed.covers(&log.head) {
        report.lag_seconds = Some(0.0);
    }
    report.lag = log.head.beyond(&streamed, &log.kept.files);
    report.lost = log.kept.lost(&position);
    // Of a slot the server keeps all that was not acknowledged, however long it takes.
    if log.kept.slot.is_none() {
        report.spare = log.kept.since.as_ref().and_then(|since| position.beyond(since, &log.kept.files));
    }
    Ok(())
}

fn seconds_since(then: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    (now - then).as_seconds_f64().max(0.0)
}

async fn table_position(
    lake: &Lake,
    entry: &Entry,
    table: &str,
    state: &TableState,
    log: Option<&LogState>,
) -> Result<TablePosition, ReportError> {
    let mut report = TablePosition {
        table: table.to_owned(),
        state: state.word(),
        version: None,
        position: None,
        holds: None,
        lag: None,
        error: why(table, state),
    };
    let Some(name) = table_name(table) else { return Ok(report) };
    match TableLog::open(lake, &entry.source, &name).await {
        Ok(Some(found)) => {
            let holds = holds(entry, table, found.position())?;
            report.version = Some(found.newest());
            report.position = Some(found.position().to_owned());
            report.lag = log.and_then(|log| log.head.beyond(&holds, &log.kept.files));
            report.holds = Some(holds.to_string());
        }
        Ok(None) => {}
        Err(error @ crate::lake::Error::Table { .. }) => report.error = Some(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(report)
}

/// Up to where a table is known to have everything: at least to its last commit.
fn holds(entry: &Entry, table: &str, committed: &str) -> Result<Position, Error> {
    let committed = parse_position(committed)?;
    let behind = entry.behind.contains(table);
    let told = match entry.tables.get(table) {
        Some(TableState::Streaming) if behind => &entry.position,
        Some(TableState::Streaming) => entry.streamed(),
        Some(TableState::Waiting { position, .. } | TableState::Dropped { position, .. }) => position,
        Some(TableState::Stopped { position, .. }) if !behind => position,
        Some(TableState::Stopped { .. } | TableState::Loading { .. }) | None => return Ok(committed),
    };
    let told = parse_position(told)?;
    Ok(if told.covers(&committed) { told } else { committed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LoadReason;

    #[test]
    fn a_table_holds_what_the_ledger_says_of_its_state() {
        let mut entry = Entry::new("src", "PostgreSQL 15", "h", "pg:0/20".into());
        entry.reached = Some("pg:0/90".into());
        let waiting =
            TableState::Waiting { change: uuid::Uuid::nil(), reason: String::new(), position: "pg:0/20".into() };
        let stopped = TableState::Stopped { reason: String::new(), position: "pg:0/40".into() };
        for (table, state) in [
            ("s.streams", TableState::Streaming),
            ("s.again", TableState::Streaming),
            ("s.waits", waiting),
            ("s.stopped", stopped.clone()),
            ("s.stopped_again", stopped),
            ("s.loads", TableState::to_load(LoadReason::Added)),
        ] {
            entry.tables.insert(table.into(), state);
        }
        entry.behind = ["s.again", "s.stopped_again"].map(str::to_owned).into();
        let holds = |table: &str, committed: &str| holds(&entry, table, committed).expect("positions").to_string();
        assert_eq!(holds("s.streams", "pg:0/10"), "pg:0/90");
        assert_eq!(holds("s.streams", "pg:0/95"), "pg:0/95", "ahead of the ledger");
        assert_eq!(holds("s.again", "pg:0/10"), "pg:0/20", "not as far as the others yet");
        assert_eq!(holds("s.waits", "pg:0/10"), "pg:0/20");
        assert_eq!(holds("s.stopped", "pg:0/10"), "pg:0/40");
        assert_eq!(holds("s.stopped_again", "pg:0/10"), "pg:0/10");
        assert_eq!(holds("s.loads", "pg:0/10"), "pg:0/10");
        assert_eq!(holds("s.unknown", "pg:0/10"), "pg:0/10");
    }
}
