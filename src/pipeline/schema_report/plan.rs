//! What a statement would do to the lake's table if it were run now: the same decision that the stream takes.

use serde::Serialize;

use super::super::telling::with_command;
use super::show::state_of;
use super::{Place, ReportError};
use crate::config::{ChangeKind, ChangePolicies, ChangePolicy, Config, EVENT_KINDS};
use crate::lake::TableState;
use crate::schema::{
    ChangeRecord, Decision, Fill, Hints, LakeOp, Outcome, SchemaChange, Shape, Step, Verdict, decide, kept_from_load,
    steps_between,
};
use crate::source::Foretold;

/// Of smaller files an S3 store copies no parts (AWS: "Amazon S3 multipart upload limits"): they are written anew.
const SPLICED_BYTES_MIN: u64 = 5 << 20;

/// What `lakeward schema plan` tells.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    pub source: String,
    pub table: String,
    pub statement: String,
    pub outcome: PlanOutcome,
    /// In words, where the outcome alone does not say it.
    pub why: Option<String>,
    pub remedy: Option<String>,
    pub steps: Vec<PlannedStep>,
    pub lake: LakeWork,
    /// Who is told.
    pub owners: Vec<String>,
    pub told: Vec<Told>,
    /// What is not certain, or stands in the way.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanOutcome {
    /// It does not concern the lake.
    Nothing,
    /// The table goes on; each step says how.
    Applied,
    /// The table goes on, and a part of the change waits for a decision.
    Held,
    /// The table is loaded again, beside the one that is there.
    Resynced,
    /// The table waits for a decision.
    Waits,
    /// The table stops.
    Stops,
    /// Can't be told before it runs.
    Unclear,
}

#[derive(Clone, Debug, Serialize)]
pub struct PlannedStep {
    pub kind: ChangeKind,
    pub policy: String,
    pub description: String,
    pub outcome: Outcome,
}

/// What happens to the table's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LakeWork {
    /// `none`, `metadata` (no file is touched), `splice` (files get another layout, rows stay where they are), `reload`
    /// (the table is, or would have to be, loaded again).
    pub how: &'static str,
    /// Once the change is approved, where it waits.
    pub files: u64,
    pub bytes: u64,
    /// Of these bytes, those of files that are written anew: too small to be copied within an object store, or
    /// `column_splice` is off.
    pub rewritten_bytes: u64,
    pub rows: u64,
}

/// A channel that hears of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub channel: String,
    pub kind: String,
    pub address: String,
    /// What it is told at once, and of `digest` the next day.
    pub events: Vec<String>,
}

/// Runs nothing; reads the source's catalog and the lake.
pub async fn plan(config: &Config, table: &str, statement: &str) -> Result<PlanReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let state = place.state(&log, None).await?;
    let entry = place.entry().await?;
    let (standing, reason) = state_of(entry.as_ref(), &place.name.to_string());
    let foretold = place.database()?.foretell(&state.shape, statement).await?;
    if let Foretold::Misfit(finding) = foretold {
        return Err(ReportError::Question(finding));
    }
    let name = place.name.to_string();
    let policies = config.change_policies(&place.source.name, &name);
    let mut planned = planned(&place.source.name, &state, foretold, &policies);
    if standing != "streaming" {
        let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        planned.notes.push(format!("the table is {standing} now{why}: the plan is for when it streams"));
    }
    let owners = place.owners();
    let events = match planned.outcome {
        PlanOutcome::Nothing | PlanOutcome::Unclear => &[][..],
        PlanOutcome::Applied if planned.dropped => &["table.dropped"],
        PlanOutcome::Applied => &["schema.changed"],
        PlanOutcome::Resynced => &["schema.changed", "table.resynced"],
        PlanOutcome::Held | PlanOutcome::Waits => &["schema.held"],
        PlanOutcome::Stops => &["schema.refused", "table.stopped"],
    };
    let copied_from = match (place.lake.url().scheme(), config.lake.column_splice) {
        (_, false) => u64::MAX,
        ("file", true) => 0,
        (_, true) => SPLICED_BYTES_MIN,
    };
    Ok(PlanReport {
        source: place.source.name.clone(),
        table: name.clone(),
        statement: statement.to_owned(),
        outcome: planned.outcome,
        why: planned.why,
        remedy: planned.remedy.map(|remedy| with_command(&remedy, &place.source.name, &place.name.to_string())),
        steps: planned.steps,
        lake: work(planned.work, &state, copied_from),
        told: told(config, &place.source.name, &name, &owners, events),
        owners,
        notes: planned.notes,
    })
}

/// What the decision comes to.
#[derive(Debug)]
struct Planned {
    outcome: PlanOutcome,
    why: Option<String>,
    remedy: Option<String>,
    steps: Vec<PlannedStep>,
    work: Work,
    notes: Vec<String>,
    dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    None,
    Metadata,
    Splice,
    Reload,
}

impl Planned {
    fn of(outcome: PlanOutcome) -> Self {
        let (steps, notes) = (Vec::new(), Vec::new());
        Self { outcome, why: None, remedy: None, steps, work: Work::None, notes, dropped: false }
    }
}

fn planned(source: &str, state: &TableState, foretold: Foretold, policies: &ChangePolicies) -> Planned {
    match foretold {
        Foretold::Nothing => Planned::of(PlanOutcome::Nothing),
        Foretold::Change { change, notes } => {
            let mut planned = planned_change(source, &state.shape, &change, policies);
            planned.notes.extend(notes);
            planned
        }
        Foretold::Truncate => whole_table(ChangeKind::Truncate, "all rows go", policies),
        Foretold::Drop => whole_table(ChangeKind::DropTable, "the table goes", policies),
        Foretold::Rename { to } => {
            let mut planned = whole_table(ChangeKind::DropTable, &format!("the table is {to} from then on"), policies);
            planned.notes.push(format!("{to} is loaded as a table of its own where `tables` selects it"));
            planned
        }
        Foretold::Unclear(why) => Planned {
            why: Some(why),
            remedy: Some(
                "when it runs, the log and the catalog are asked; if they do not tell either, the table stops"
                    .to_owned(),
            ),
            ..Planned::of(PlanOutcome::Unclear)
        },
        Foretold::Untold(why) => untold(&state.shape, why, policies),
        Foretold::Stops(why) => Planned {
            why: Some(why),
            remedy: Some(crate::schema::RESYNC.to_owned()),
            work: Work::Reload,
            ..Planned::of(PlanOutcome::Stops)
        },
        // Told before.
        Foretold::Misfit(why) => Planned { why: Some(why), ..Planned::of(PlanOutcome::Unclear) },
    }
}

/// What policy `change` makes of it.
fn untold(shape: &Shape, why: String, policies: &ChangePolicies) -> Planned {
    let policy = policies.of(ChangeKind::Change);
    let kept = kept_from_load(shape, policies);
    let resynced = policy == ChangePolicy::Apply && kept.is_none();
    let (planned, outcome, remedy) = if resynced {
        (PlanOutcome::Resynced, Outcome::Resync, None)
    } else {
        (PlanOutcome::Stops, Outcome::Refused, Some(crate::schema::RESYNC.to_owned()))
    };
    Planned {
        steps: vec![PlannedStep {
            kind: ChangeKind::Change,
            policy: policy.to_string(),
            description: why.clone(),
            outcome,
        }],
        why: Some(kept.map_or(why.clone(), |kept| format!("{why}; by a load, {kept}"))),
        remedy,
        work: Work::Reload,
        ..Planned::of(planned)
    }
}

fn planned_change(source: &str, shape: &Shape, change: &SchemaChange, policies: &ChangePolicies) -> Planned {
    let mut notes = Vec::new();
    let mut shape = shape.clone();
    if let Some(missing) = missing(&shape, change) {
        let steps: Vec<String> = missing.steps.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "the lake has not followed the source's present columns yet ({}): the plan is for when it has",
            steps.join("; ")
        ));
        if let Decision::Evolve(evolution) = decide(source, &shape, &missing, policies, None) {
            shape = Shape::clone(&evolution.shape);
        }
    }
    let decide = |verdict| decide(source, &shape, change, policies, verdict);
    let mut planned = match decide(None) {
        Decision::Evolve(evolution) => {
            let held = evolution.record.steps.iter().any(|step| step.outcome == Outcome::Held);
            Planned {
                steps: steps(&evolution.record, policies),
                work: work_of(&evolution.ops),
                ..Planned::of(if held { PlanOutcome::Held } else { PlanOutcome::Applied })
            }
        }
        Decision::Wait { record, why } => {
            let work = match decide(Some(Verdict::Approve)) {
                Decision::Evolve(evolution) => work_of(&evolution.ops),
                Decision::Wait { .. } | Decision::Reload { .. } | Decision::Stop { .. } => Work::Reload,
            };
            Planned { steps: steps(&record, policies), work, why: Some(why), ..Planned::of(PlanOutcome::Waits) }
        }
        Decision::Reload { record, why } => Planned {
            steps: steps(&record, policies),
            work: Work::Reload,
            why: Some(why),
            ..Planned::of(PlanOutcome::Resynced)
        },
        Decision::Stop { record, finding, remedy } => Planned {
            steps: steps(&record, policies),
            work: Work::Reload,
            why: Some(finding),
            remedy: Some(remedy),
            ..Planned::of(PlanOutcome::Stops)
        },
    };
    planned.notes = notes;
    planned
}

/// What lies between the lake's columns and those that the source has before the statement.
fn missing(shape: &Shape, change: &SchemaChange) -> Option<SchemaChange> {
    let known = shape.source_schema();
    let hints = Hints { renamed: &[], fill: &|_| Fill::Null, rewritten: &|_| None };
    let mut steps = steps_between(&known, &change.before, &hints);
    // The same type may be spelled in two ways.
    steps.retain(|step| !matches!(step, Step::Redeclare { .. }));
    (!steps.is_empty()).then(|| SchemaChange {
        before: known.into(),
        after: change.before.clone(),
        steps,
        place: "before the plan".to_owned(),
        statement: None,
        ..change.clone()
    })
}

fn steps(record: &ChangeRecord, policies: &ChangePolicies) -> Vec<PlannedStep> {
    let planned = |step: &crate::schema::StepRecord| PlannedStep {
        kind: step.kind,
        policy: policies.of(step.kind).to_string(),
        description: step.description.clone(),
        outcome: step.outcome,
    };
    record.steps.iter().map(planned).collect()
}

fn work_of(ops: &[LakeOp]) -> Work {
    // A column that a file lacks reads NULL.
    let touches = |op: &LakeOp| !matches!(op, LakeOp::Add { fill: None, .. });
    if ops.iter().any(touches) { Work::Splice } else { Work::Metadata }
}

/// TRUNCATE, DROP TABLE, and a table that is renamed away.
fn whole_table(kind: ChangeKind, description: &str, policies: &ChangePolicies) -> Planned {
    let policy = policies.of(kind);
    let (outcome, step) = match policy {
        ChangePolicy::Fail => (PlanOutcome::Stops, Outcome::Refused),
        ChangePolicy::Apply => (PlanOutcome::Applied, Outcome::Applied),
        _ => (PlanOutcome::Applied, Outcome::Kept),
    };
    let stops = outcome == PlanOutcome::Stops;
    Planned {
        why: stops.then(|| format!("{description}, and the policy for `{kind}` is `fail`")),
        steps: vec![PlannedStep {
            kind,
            policy: policy.to_string(),
            description: description.to_owned(),
            outcome: step,
        }],
        work: if step == Outcome::Applied { Work::Metadata } else { Work::None },
        dropped: kind == ChangeKind::DropTable,
        ..Planned::of(outcome)
    }
}

/// `copied_from`: the size from which on files are spliced.
fn work(work: Work, state: &TableState, copied_from: u64) -> LakeWork {
    let how = match work {
        Work::None => "none",
        Work::Metadata => "metadata",
        Work::Splice => "splice",
        Work::Reload => "reload",
    };
    if matches!(work, Work::None | Work::Metadata) {
        return LakeWork { how, files: 0, bytes: 0, rewritten_bytes: 0, rows: 0 };
    }
    let small = state.file_bytes.iter().filter(|bytes| **bytes < copied_from);
    LakeWork {
        how,
        files: state.files,
        bytes: state.bytes,
        rewritten_bytes: if work == Work::Splice { small.sum() } else { state.bytes },
        rows: state.rows,
    }
}

fn told(config: &Config, source: &str, table: &str, owners: &[String], events: &[&str]) -> Vec<Told> {
    debug_assert!(events.iter().all(|event| EVENT_KINDS.contains(event)));
    let told = config.channels.iter().filter(|channel| channel.route.covers(source, Some(table), owners));
    let told = told.filter_map(|channel| {
        let at_once = events.iter().filter(|event| channel.route.events.matches(event));
        let mut events: Vec<String> = at_once.map(|event| (*event).to_owned()).collect();
        if channel.digest.is_some() && !events.is_empty() {
            events.push("digest".to_owned());
        }
        (!events.is_empty()).then(|| Told {
            channel: channel.name.clone(),
            kind: channel.transport.kind().to_owned(),
            address: channel.transport.address(),
            events,
        })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int32Array;

    use super::*;
    use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName, TableSchema};

    fn schema(columns: &[(&str, LakeType)]) -> Arc<TableSchema> {
        let column = |(name, lake_type): &(&str, LakeType)| Column {
            name: (*name).into(),
            source_type: lake_type.to_string(),
            lake_type: *lake_type,
            nullable: true,
            policy: Policy::Null,
        };
        Arc::new(TableSchema {
            name: TableName::new("shop", "goods"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        })
    }

    fn state(columns: &[(&str, LakeType)]) -> TableState {
        TableState {
            version: 7,
            position: "mariadb:0-1-7".into(),
            shape: Shape::of(schema(columns)),
            files: 2,
            bytes: (6 << 20) + 100,
            rows: 1000,
            file_bytes: vec![6 << 20, 100],
        }
    }

    fn foretold(before: &[(&str, LakeType)], after: &[(&str, LakeType)], fill: &Fill) -> Foretold {
        let hints = Hints { renamed: &[], fill: &|_| fill.clone(), rewritten: &|_| None };
        let (before, after) = (schema(before), schema(after));
        Foretold::of(&before, &after, steps_between(&before, &after, &hints), "ALTER …", Vec::new())
    }

    #[test]
    fn the_plan_is_what_the_stream_would_decide() {
        use ChangePolicy::{Apply, Hold};
        use LakeType::{Integer, Long, String};
        let seven = Fill::Value(Arc::new(Int32Array::from(vec![7])));
        let old = [("id", Integer), ("a", Integer)];
        #[allow(clippy::type_complexity)] // a table of cases
        let cases: [(&[(&str, LakeType)], &Fill, ChangeKind, ChangePolicy, PlanOutcome, Work); 9] = [
            (
                &[old[0], old[1], ("b", Integer)],
                &Fill::Null,
                ChangeKind::Add,
                Apply,
                PlanOutcome::Applied,
                Work::Metadata,
            ),
            (&[old[0], old[1], ("b", Integer)], &seven, ChangeKind::Add, Apply, PlanOutcome::Applied, Work::Splice),
            (&[old[0], old[1], ("b", Integer)], &seven, ChangeKind::Add, Hold, PlanOutcome::Held, Work::Splice),
            (&[old[0]], &Fill::Null, ChangeKind::Drop, ChangePolicy::Keep, PlanOutcome::Applied, Work::Metadata),
            (&[old[0], ("a", Long)], &Fill::Null, ChangeKind::Widen, Hold, PlanOutcome::Waits, Work::Splice),
            (&[old[0], ("a", String)], &Fill::Null, ChangeKind::Change, Hold, PlanOutcome::Waits, Work::Reload),
            (&[old[0], ("a", String)], &Fill::Null, ChangeKind::Change, Apply, PlanOutcome::Resynced, Work::Reload),
            (
                &[old[0], ("a", String)],
                &Fill::Null,
                ChangeKind::Change,
                ChangePolicy::Fail,
                PlanOutcome::Stops,
                Work::Reload,
            ),
            (&old, &Fill::Null, ChangeKind::Add, Apply, PlanOutcome::Nothing, Work::None),
        ];
        for (after, fill, kind, policy, outcome, work) in cases {
            let policies = ChangePolicies::stated(&[(kind, policy)]);
            let planned = planned("booking", &state(&old), foretold(&old, after, fill), &policies);
            assert_eq!((planned.outcome, planned.work), (outcome, work), "{kind} {policy}: {planned:?}");
            assert!(planned.notes.is_empty(), "{planned:?}");
        }
    }

    #[test]
    fn a_lake_that_is_behind_is_told() {
        use LakeType::Integer;
        let source = [("id", Integer), ("a", Integer), ("b", Integer)];
        let lake = state(&source[..2]);
        let policies = ChangePolicies::stated(&[(ChangeKind::Drop, ChangePolicy::Apply)]);
        let planned = planned("booking", &lake, foretold(&source, &source[..2], &Fill::Null), &policies);
        assert_eq!(planned.outcome, PlanOutcome::Applied);
        assert!(planned.notes[0].contains("column `b`"), "{planned:?}");
    }

    #[test]
    fn whole_tables_go_by_their_policies() {
        let state = state(&[("id", LakeType::Integer)]);
        let outcome = |foretold, policies: &[(ChangeKind, ChangePolicy)]| {
            planned("booking", &state, foretold, &ChangePolicies::stated(policies)).outcome
        };
        assert_eq!(outcome(Foretold::Truncate, &[]), PlanOutcome::Applied);
        assert_eq!(outcome(Foretold::Truncate, &[(ChangeKind::Truncate, ChangePolicy::Fail)]), PlanOutcome::Stops);
        assert_eq!(outcome(Foretold::Drop, &[]), PlanOutcome::Applied);
        assert_eq!(outcome(Foretold::Drop, &[(ChangeKind::DropTable, ChangePolicy::Fail)]), PlanOutcome::Stops);
    }

    #[test]
    fn small_files_of_an_object_store_are_written_anew() {
        let state = state(&[("id", LakeType::Integer)]);
        assert_eq!(work(Work::Splice, &state, SPLICED_BYTES_MIN).rewritten_bytes, 100);
        assert_eq!(work(Work::Splice, &state, 0).rewritten_bytes, 0);
        assert_eq!(work(Work::Reload, &state, 0).rewritten_bytes, state.bytes);
        assert_eq!(work(Work::Metadata, &state, u64::MAX).files, 0);
    }
}
