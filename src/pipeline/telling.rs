//! What becomes an event of the outbox: which kind, under which id, with what detail.
//!
//! Ids are made of what happened, never of when it was noticed, so that an event that is written again is known again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::how_to_decide;
use crate::ledger::{OutboxEntry, TableState, kind};
use crate::schema::{ChangeKind, ChangeRecord, Outcome, Reason, TableName, ValueCounts};
use crate::{lake, source};

/// How often a column's values without a faithful form are told of.
const VALUES_EVERY: Duration = Duration::from_secs(600);

/// A definite error, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// All of it, as the ledger keeps it.
    pub text: String,
    finding: String,
    remedy: Option<String>,
}

impl Trouble {
    /// Why a table stops that waits for nobody's decision.
    pub fn of_text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { finding: text.clone(), text, remedy: None }
    }

    /// With the command as it is to be typed for this table.
    pub fn named(self, source: &str, table: &str) -> Self {
        let named = |text: String| with_command(&text, source, table);
        Self { text: named(self.text), finding: named(self.finding), remedy: self.remedy.map(named) }
    }

    fn detail(&self) -> Value {
        match &self.remedy {
            Some(remedy) => json!({ "reason": self.finding, "remedy": remedy }),
            None => json!({ "reason": self.finding }),
        }
    }
}

/// A text with `lakeward resync` in it, as it is to be typed for this table.
pub fn with_command(text: &str, source: &str, table: &str) -> String {
    let name = format!("{source}/{table}");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let argument = if name.bytes().all(plain) { name } else { format!("'{}'", name.replace('\'', "'\\''")) };
    text.replace("`lakeward resync`", &format!("`lakeward resync {argument}`"))
}

impl From<&source::Error> for Trouble {
    fn from(error: &source::Error) -> Self {
        match error {
            source::Error::Table { finding, remedy, .. } => {
                let finding = finding.trim_end_matches(',').to_owned();
                Self { text: error.to_string(), finding, remedy: Some(remedy.clone()) }
            }
            other => Self::of_text(other.to_string()),
        }
    }
}

impl From<&lake::Error> for Trouble {
    fn from(error: &lake::Error) -> Self {
        match error {
            lake::Error::Table { finding, remedy, .. } => {
                Self { text: error.to_string(), finding: finding.clone(), remedy: Some(remedy.clone()) }
            }
            other => Self::of_text(other.to_string()),
        }
    }
}

/// A change that is in the lake's table, as of this version.
pub fn changed(source: &str, record: &ChangeRecord, position: &str, version: u64) -> OutboxEntry {
    let has = |outcome| record.steps.iter().any(|step| step.outcome == outcome);
    let dropped = record.steps.iter().any(|step| step.kind == ChangeKind::DropTable);
    let kind = match () {
        () if dropped => kind::TABLE_DROPPED,
        () if has(Outcome::Held) => kind::SCHEMA_HELD,
        () => kind::SCHEMA_CHANGED,
    };
    // One that was held is told of again when it is decided.
    let phase = if has(Outcome::Approved) || has(Outcome::Rejected) { "decided" } else { "" };
    let mut entry = of_record(kind, source, record, position, phase);
    entry.lake_version = Some(version);
    if kind == kind::SCHEMA_HELD {
        entry.detail = json!({ "waiting": false });
    }
    if dropped && has(Outcome::Applied) {
        entry.detail = json!({ "reason": "its rows are gone from the lake as well, as the policy says" });
    }
    entry
}

/// A change at which the table waits.
pub fn waiting(source: &str, record: &ChangeRecord, position: &str, why: &str) -> OutboxEntry {
    let mut entry = of_record(kind::SCHEMA_HELD, source, record, position, "");
    let remedy = how_to_decide(&record.table);
    entry.detail = json!({ "waiting": true, "reason": why, "remedy": remedy });
    entry
}

/// A change that stopped the table.
pub fn refused(source: &str, record: &ChangeRecord, position: &str, trouble: &Trouble) -> OutboxEntry {
    let mut entry = of_record(kind::SCHEMA_REFUSED, source, record, position, "");
    entry.detail = trouble.detail();
    entry
}

/// A change for which the table is loaded again.
pub fn reloaded(source: &str, record: &ChangeRecord, position: &str) -> OutboxEntry {
    of_record(kind::SCHEMA_CHANGED, source, record, position, "resync")
}

fn of_record(kind: &str, source: &str, record: &ChangeRecord, position: &str, phase: &str) -> OutboxEntry {
    let what = format!("{} {phase}", record.id);
    let entry = OutboxEntry::new(kind, source, Some(&record.table), position, &what);
    OutboxEntry { record: Some(record.clone()), ..entry }
}

pub fn stopped(source: &str, table: &str, position: &str, trouble: &Trouble) -> OutboxEntry {
    let what = format!("{position} {}", trouble.text);
    let entry = OutboxEntry::new(kind::TABLE_STOPPED, source, Some(table), position, &what);
    OutboxEntry { detail: trouble.detail(), ..entry }
}

/// Tables that have stopped, of which `before` did not say so for the same reason.
pub fn newly_stopped(
    source: &str,
    states: &BTreeMap<String, TableState>,
    before: &BTreeMap<String, TableState>,
) -> Vec<OutboxEntry> {
    let mut entries = Vec::new();
    for (table, state) in states {
        let TableState::Stopped { reason, position } = state else { continue };
        let known = matches!(before.get(table), Some(TableState::Stopped { reason: known, .. }) if known == reason);
        if !known {
            entries.push(stopped(source, table, position, &Trouble::of_text(reason)));
        }
    }
    entries
}

/// A table that is in the lake for the first time, or, `again`, was loaded once more.
pub fn loaded(source: &str, table: &lake::Table, again: bool) -> OutboxEntry {
    let kind = if again { kind::TABLE_RESYNCED } else { kind::TABLE_ADDED };
    let name = table.name().to_string();
    let mut entry = OutboxEntry::new(kind, source, Some(&name), table.position(), table.position());
    entry.lake_version = Some(table.version());
    entry.detail = json!({ "rows": table.live_rows() });
    entry
}

/// Values without a faithful form, summed up so that nobody is told of each batch.
#[derive(Debug, Default)]
pub struct ValueTally {
    untold: BTreeMap<(String, String), BTreeMap<Reason, u64>>,
    told: HashMap<(String, String), Instant>,
}

impl ValueTally {
    pub fn add(&mut self, table: &TableName, counts: &ValueCounts) {
        for (column, reason, count) in counts.iter() {
            let of_column = self.untold.entry((table.to_string(), column.to_owned())).or_default();
            *of_column.entry(reason).or_default() += count;
        }
    }

    /// What is due, one event a table; all of it when it is the `last` time.
    pub fn take_due(&mut self, source: &str, position: &str, last: bool) -> Vec<OutboxEntry> {
        let now = Instant::now();
        let is_due = |column: &(String, String), told: &HashMap<(String, String), Instant>| {
            last || told.get(column).is_none_or(|told| now.duration_since(*told) >= VALUES_EVERY)
        };
        let mut due: BTreeMap<String, BTreeMap<String, BTreeMap<Reason, u64>>> = BTreeMap::new();
        for (place, counts) in std::mem::take(&mut self.untold) {
            if is_due(&place, &self.told) {
                self.told.insert(place.clone(), now);
                due.entry(place.0).or_default().insert(place.1, counts);
            } else {
                self.untold.insert(place, counts);
            }
        }
        let entry = |(table, values): (String, BTreeMap<String, BTreeMap<Reason, u64>>)| {
            let columns: Vec<&str> = values.keys().map(String::as_str).collect();
            let what = format!("{position} {}", columns.join(" "));
            let entry = OutboxEntry::new(kind::VALUE_POLICY_APPLIED, source, Some(&table), position, &what);
            OutboxEntry { detail: json!({ "values": values }), ..entry }
        };
        due.into_iter().map(entry).collect()
    }
}

/// Whether a source is further behind than it may be, told once each time.
#[derive(Debug)]
pub struct Lag {
    limit: Duration,
    fresh_until: Option<DateTime<Utc>>,
    position: String,
    told: bool,
}

impl Lag {
    pub fn new(limit: Duration) -> Self {
        Self { limit, fresh_until: None, position: String::new(), told: false }
    }

    /// How far the lake is.
    pub fn note(&mut self, fresh_until: Option<DateTime<Utc>>, position: &str) {
        self.fresh_until = fresh_until;
        position.clone_into(&mut self.position);
    }

    /// The event that is due, if any.
    pub fn due(&mut self, source: &str, now: DateTime<Utc>) -> Option<OutboxEntry> {
        let fresh_until = self.fresh_until?;
        let behind = (now - fresh_until).as_seconds_f64();
        if behind < self.limit.as_secs_f64() {
            self.told = false;
            return None;
        }
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let entry = OutboxEntry::new(kind::SOURCE_LAGGING, source, None, &self.position, &fresh_until.to_rfc3339());
        let detail = json!({ "lag_seconds": behind.round(), "limit_seconds": self.limit.as_secs() });
        Some(OutboxEntry { detail, ..entry })
    }

    /// The event could not be written.
    pub fn forget_told(&mut self) {
        self.told = false;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::schema::StepRecord;

    fn record(kind: ChangeKind, outcome: Outcome) -> ChangeRecord {
        ChangeRecord {
            id: Uuid::from_u128(7),
            table: "shop.goods".into(),
            place: "0-1-7".into(),
            at: None,
            statement: None,
            before: vec![],
            after: vec![],
            steps: vec![StepRecord { kind, column: None, new_name: None, description: String::new(), outcome }],
        }
    }

    #[test]
    fn what_came_of_a_change_is_its_kind_and_each_phase_has_its_own_id() {
        let mut ids = Vec::new();
        for (what, outcome, expected) in [
            (ChangeKind::Add, Outcome::Applied, "schema.changed"),
            (ChangeKind::Add, Outcome::Held, "schema.held"),
            (ChangeKind::Add, Outcome::Approved, "schema.changed"),
            (ChangeKind::DropTable, Outcome::Kept, "table.dropped"),
        ] {
            let entry = changed("booking", &record(what, outcome), "mariadb:0-1-9", 4);
            assert_eq!((entry.kind.as_str(), entry.lake_version), (expected, Some(4)));
            assert_eq!(entry.id, changed("booking", &record(what, outcome), "mariadb:0-1-8", 5).id, "told again");
            ids.push(entry.id);
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        let held = waiting("booking", &record(ChangeKind::Widen, Outcome::Held), "p", "it grows");
        assert!(held.detail["remedy"].as_str().is_some_and(|text| text.contains("schema approve shop.goods")));
        let error = source::Error::Table {
            table: "shop.goods".into(),
            finding: "it was dropped, and the policy is `fail`,".into(),
            position: "0-1-7".into(),
            remedy: "load it again".into(),
        };
        let refused = refused("booking", &record(ChangeKind::Key, Outcome::Refused), "p", &Trouble::from(&error));
        assert_eq!(refused.detail["reason"], "it was dropped, and the policy is `fail`");
        assert_eq!(refused.detail["remedy"], "load it again");
    }

    #[test]
    fn a_table_that_stays_stopped_is_told_of_once() {
        let stopped = |reason: &str| {
            let state = TableState::Stopped { reason: reason.into(), position: "p".into() };
            BTreeMap::from([("shop.goods".to_owned(), state)])
        };
        assert_eq!(newly_stopped("booking", &stopped("a"), &BTreeMap::new()).len(), 1);
        assert_eq!(newly_stopped("booking", &stopped("a"), &stopped("a")).len(), 0);
        assert_eq!(newly_stopped("booking", &stopped("b"), &stopped("a")).len(), 1);
    }

    #[test]
    fn values_are_summed_between_events() {
        let table = TableName::new("shop", "goods");
        let counts = |count: u64| {
            let text = format!("{{\"seen\":{{\"impossible_date\":{count}}}}}");
            serde_json::from_str::<ValueCounts>(&text).expect("valid")
        };
        let mut tally = ValueTally::default();
        tally.add(&table, &counts(3));
        let due = tally.take_due("booking", "p", false);
        assert_eq!(due[0].detail["values"]["seen"]["impossible_date"], 3);
        tally.add(&table, &counts(4));
        tally.add(&table, &counts(5));
        assert!(tally.take_due("booking", "q", false).is_empty(), "too soon");
        let due = tally.take_due("booking", "r", true);
        assert_eq!(due[0].detail["values"]["seen"]["impossible_date"], 9);
        assert!(tally.take_due("booking", "s", true).is_empty());
    }

    #[test]
    fn being_behind_is_told_of_once_each_time() {
        let mut lag = Lag::new(Duration::from_secs(900));
        let now = Utc::now();
        assert!(lag.due("booking", now).is_none(), "nothing is known yet");
        lag.note(Some(now - TimeDelta::seconds(1000)), "p");
        let told = lag.due("booking", now).expect("due");
        assert_eq!(told.detail["lag_seconds"], 1000.0);
        assert_eq!(told.table, None);
        assert!(lag.due("booking", now).is_none());
        lag.note(Some(now), "q");
        assert!(lag.due("booking", now).is_none());
        lag.note(Some(now), "q");
        assert!(lag.due("booking", now + TimeDelta::seconds(901)).is_some(), "another time");
    }
}
