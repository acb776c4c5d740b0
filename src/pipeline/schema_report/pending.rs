//! Changes of a table that wait for a decision.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Place, ReportError};
use crate::ledger::{self, Decided, Decisions, Entry, Outbox};
use crate::schema::{ChangeRecord, Outcome, Shape};

/// How far back the outbox is searched for what a waiting change was.
const SEARCHED: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingKind {
    /// The table goes on meanwhile.
    Held,
    /// The table waits.
    Waits,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct Pending {
    pub change: Uuid,
    pub kind: PendingKind,
    pub at: Option<DateTime<Utc>>,
    pub place: String,
    pub statement: Option<String>,
    /// What of it is undecided, in words.
    pub steps: Vec<String>,
    /// It is decided, and the daemon has not acted on it yet.
    pub decided: Option<String>,
    /// What to type.
    pub approve: String,
    pub reject: String,
}

/// All pending changes of the table, oldest first.
pub(super) async fn pending(
    place: &Place<'_>,
    shape: &Shape,
    decisions: &Decisions,
    entry: Option<&Entry>,
) -> Result<Vec<Pending>, ReportError> {
    let mut found: Vec<(PendingKind, Uuid, Option<ChangeRecord>, String)> =
        shape.held.iter().map(|held| (PendingKind::Held, held.id, Some(held.record.clone()), String::new())).collect();
    if let Some(ledger::TableState::Waiting { change, reason, .. }) =
        entry.and_then(|entry| entry.tables.get(&place.name.to_string()))
    {
        let record = record_of(&Outbox::open(place.store()?).await?, *change).await?;
        found.push((PendingKind::Waits, *change, record, reason.clone()));
    }
    let several = found.len() > 1;
    let mut all = Vec::with_capacity(found.len());
    for (kind, change, record, reason) in found {
        let decided: Option<Decided> = decisions.read(change).await?;
        let command = |verdict: &str| {
            let change = if several { format!(" {change}") } else { String::new() };
            format!("lakeward schema {verdict} {}{change}", place.argument())
        };
        let undecided = |record: &ChangeRecord| {
            let steps = record.steps.iter().filter(|step| step.outcome == Outcome::Held);
            steps.map(|step| step.description.clone()).collect()
        };
        all.push(Pending {
            change,
            kind,
            at: record.as_ref().and_then(|record| record.at),
            place: record.as_ref().map(|record| record.place.clone()).unwrap_or_default(),
            statement: record.as_ref().and_then(|record| record.statement.clone()),
            steps: record.as_ref().map_or_else(|| vec![reason], undecided),
            decided: decided.map(|decided| decided.to_string()),
            approve: command("approve"),
            reject: command("reject"),
        });
    }
    Ok(all)
}

/// What the outbox says about a change.
async fn record_of(outbox: &Outbox, change: Uuid) -> Result<Option<ChangeRecord>, ReportError> {
    for number in outbox.numbers().await?.into_iter().rev().take(SEARCHED) {
        let record = outbox.read(number).await?.and_then(|entry| entry.record);
        if let Some(record) = record.filter(|record| record.id == change) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}
