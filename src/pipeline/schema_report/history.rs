//! Every change of a table's columns that the lake knows of.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{At, Place, ReportError};
use crate::config::Config;
use crate::ledger::{Outbox, kind};

use crate::schema::{ChangeRecord, Outcome, StepRecord};

/// What `lakeward schema history` tells.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryReport {
    pub source: String,
    pub table: String,
    /// Oldest first.
    pub changes: Vec<HistoryEntry>,
}

/// A change, and what was done about it at one time: a held one has two.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryEntry {
    pub change: Uuid,
    /// When it was done at the source, or decided.
    pub at: DateTime<Utc>,
    /// In the source's log.
    pub place: String,
    pub statement: Option<String>,
    pub steps: Vec<StepRecord>,
    /// The Delta version that has it; none where the lake has not followed.
    pub version: Option<u64>,
    pub position: String,
}

/// All changes up to a moment, or up to now: those that the lake's log holds, and from the outbox those of the last weeks
/// that it does not hold since they wait, were refused or made lakeward load the table again.
pub async fn history(config: &Config, table: &str, at: Option<&At>) -> Result<HistoryReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let last = place.version(&log, at).await?;
    let mut changes = Vec::new();
    for entry in log.changes(last).await? {
        for record in entry.changes {
            // A decision is younger than what it is about.
            let at = if changes.iter().any(|earlier: &HistoryEntry| earlier.change == record.id) {
                entry.at
            } else {
                record.at.unwrap_or(entry.at)
            };
            // The source's clock and ours differ; the log's order is right.
            let at = changes.last().map_or(at, |before: &HistoryEntry| at.max(before.at));
            changes.push(of(record, at, Some(entry.version), entry.position.clone()));
        }
    }
    if at.is_none() {
        changes.extend(unfollowed(&place, &changes).await?);
    }
    changes.sort_by_key(|change| change.at);
    Ok(HistoryReport { source: place.source.name.clone(), table: place.name.to_string(), changes })
}

fn of(record: ChangeRecord, at: DateTime<Utc>, version: Option<u64>, position: String) -> HistoryEntry {
    let ChangeRecord { id, place, statement, steps, .. } = record;
    HistoryEntry { change: id, at, place, statement, steps, version, position }
}

/// Changes that the outbox tells of and the lake's log does not have.
async fn unfollowed(place: &Place<'_>, known: &[HistoryEntry]) -> Result<Vec<HistoryEntry>, ReportError> {
    let outbox = Outbox::open(place.store()?).await?;
    let table = place.name.to_string();
    let followed: HashSet<Uuid> = known.iter().map(|change| change.change).collect();
    // The same event may be there twice.
    let mut seen: HashSet<Uuid> = HashSet::new();
    let mut found = Vec::new();
    for number in outbox.numbers().await? {
        let Some(entry) = outbox.read(number).await? else { continue };
        let of_this = entry.table.as_deref() == Some(table.as_str());
        let Some(record) = entry.record.filter(|_| of_this) else { continue };
        let loaded_again = record.steps.iter().any(|step| step.outcome == Outcome::Resync);
        let is_told = loaded_again || matches!(entry.kind.as_str(), kind::SCHEMA_HELD | kind::SCHEMA_REFUSED);
        if is_told && !followed.contains(&record.id) && seen.insert(entry.id) {
            let at = record.at.unwrap_or(entry.at);
            found.push(of(record, at, entry.lake_version, entry.position));
        }
    }
    Ok(found)
}
