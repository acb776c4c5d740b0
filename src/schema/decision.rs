//! What the lake does about a schema change: decided by policy, from nothing but the change and the table's shape.
//!
//! Pure, so that `lakeward schema plan` gives the answer that the stream will give.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::evolution::{ColumnView, OneValue, StepRecord};
use super::{
    ChangeRecord, Column, Evolution, Fill, HeldAction, HeldChange, LakeOp, Origin, Outcome, SchemaChange, Shape, Step,
    TableSchema,
};
use crate::config::{ChangeKind, ChangePolicies, ChangePolicy};

/// What the third name ends in, by way of which names are exchanged.
pub(super) const ASIDE: &str = "__lakeward_aside";

/// What a person decided about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approve,
    Reject,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        })
    }
}

/// See the module text.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The table goes on in another shape (which may be the one it has).
    Evolve(Box<Evolution>),
    /// The table can't go on before somebody decides; nothing after this place is applied to it.
    Wait { record: ChangeRecord, why: String },
    /// Its rows can't be carried over: the table is loaded again, from its source as it is then.
    Reload { record: ChangeRecord, why: String },
    /// The table can't go on.
    Stop { record: ChangeRecord, finding: String, remedy: String },
}

/// What a table needs whose rows can't be carried through a change. Whoever knows the source's name adds what it is called.
pub const RESYNC: &str = "load it again with `lakeward resync`";

/// Decides about `change` for a table of this shape. `verdict` is what a person said about it, if anybody did.
pub fn decide(
    source: &str,
    shape: &Shape,
    change: &SchemaChange,
    policies: &ChangePolicies,
    verdict: Option<Verdict>,
) -> Decision {
    let mut work = Work {
        shape: shape.clone(),
        columns: shape.lake.columns.clone(),
        ops: Vec::new(),
        steps: Vec::new(),
        held: Vec::new(),
        after: &change.after,
    };
    let record = |work: &Work<'_>| ChangeRecord {
        id: change.id(source),
        table: change.table.to_string(),
        place: change.place.clone(),
        at: change.at,
        statement: change.statement.clone(),
        before: ColumnView::all(&change.before),
        after: ColumnView::all(&change.after),
        steps: work.steps.clone(),
    };
    let mut refusal =
        strange(shape, &change.before).map(|finding| without_rows(&finding, ChangeKind::Change, policies, verdict));
    let is_strange = refusal.is_some();
    for step in &change.steps {
        // What stops the table says more than what makes it wait.
        if matches!(refusal, Some(Refusal::Stop { .. })) {
            work.note(step, Outcome::Refused);
            continue;
        }
        let taken = if is_strange {
            step_not_let(step, policies, verdict).map_or(Ok(Outcome::Refused), Err)
        } else {
            work.take(step, policies, verdict)
        };
        match taken {
            Ok(outcome) => work.note(step, outcome),
            Err(found) => {
                work.note(step, Outcome::Refused);
                if refusal.as_ref().is_none_or(|known| known.weight() < found.weight()) {
                    refusal = Some(found);
                }
            }
        }
    }
    let refusal = refusal.map(|refusal| work.mind_what_is_kept(refusal, change, policies, verdict));
    // All of a change happens or none of it.
    if let Some(refusal) = &refusal {
        let outcome = match refusal {
            Refusal::Wait(_) => Outcome::Held,
            Refusal::Reload(_) => Outcome::Resync,
            Refusal::Stop { .. } => Outcome::Refused,
        };
        work.steps.iter_mut().for_each(|step| step.outcome = outcome);
    }
    match refusal {
        Some(Refusal::Wait(why)) => return Decision::Wait { record: record(&work), why },
        Some(Refusal::Reload(why)) => return Decision::Reload { record: record(&work), why },
        Some(Refusal::Stop { finding, remedy }) => return Decision::Stop { record: record(&work), finding, remedy },
        None => {}
    }
    let record = record(&work);
    if !work.held.is_empty() {
        let actions = std::mem::take(&mut work.held);
        work.shape.held.push(HeldChange { id: record.id, actions, record: record.clone() });
    }
    Decision::Evolve(Box::new(work.evolution(record)))
}

/// That what the source had before the change is not what the lake takes in.
fn strange(shape: &Shape, before: &TableSchema) -> Option<String> {
    let ours = shape.source_schema();
    let unknown = before
        .columns
        .iter()
        .find(|column| ours.column_index(&column.name).is_none() && !shape.ignored.contains(&column.name));
    let missing = ours.columns.iter().find(|column| before.column_index(&column.name).is_none());
    let column = unknown.or(missing)?;
    Some(format!("its columns changed, and before that its column `{}` was not what the lake has", column.name))
}

/// Why a table of this shape is not to be loaded again unasked, in words.
pub fn kept_from_load(shape: &Shape, policies: &ChangePolicies) -> Option<String> {
    let rows = (policies.of(ChangeKind::Truncate) == ChangePolicy::Keep)
        .then(|| "rows that a TRUNCATE took from the source, and that the lake keeps, would be gone".to_owned());
    let undone: Vec<String> = shape.undone_by_load().into_iter().chain(rows).collect();
    (!undone.is_empty()).then(|| undone.join("; "))
}

/// What a decision about a held change of this table comes to; `None` when nothing of this id is held.
pub fn settle(shape: &Shape, id: Uuid, verdict: Verdict) -> Option<Evolution> {
    let index = shape.held.iter().position(|held| held.id == id)?;
    let mut shape = shape.clone();
    let held = shape.held.remove(index);
    let mut work = Work {
        columns: shape.lake.columns.clone(),
        after: &shape.lake.clone(),
        shape,
        ops: Vec::new(),
        steps: Vec::new(),
        held: Vec::new(),
    };
    let refused = work.settle(&held.actions, verdict);
    let outcome = if verdict == Verdict::Approve { Outcome::Approved } else { Outcome::Rejected };
    let mut record = held.record;
    for step in record.steps.iter_mut().filter(|step| step.outcome == Outcome::Held) {
        let is_this = |action: &&HeldAction| match action {
            HeldAction::Rename { to, .. } => step.new_name.as_ref() == Some(to),
            HeldAction::Drop { .. } => step.kind == ChangeKind::Drop,
            HeldAction::Show { .. } => false,
        };
        step.outcome = if refused.iter().any(is_this) { Outcome::Refused } else { outcome };
    }
    Some(work.evolution(record))
}

enum Refusal {
    Reload(String),
    Wait(String),
    Stop { finding: String, remedy: String },
}

impl Refusal {
    /// Which of several goes before the others.
    fn weight(&self) -> u8 {
        match self {
            Self::Reload(_) => 0,
            Self::Wait(_) => 1,
            Self::Stop { .. } => 2,
        }
    }
}

fn stop(finding: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal::Stop { finding: finding.into(), remedy: remedy.into() }
}

/// Why a policy, or a person, does not let this through as it comes.
fn not_let(what: &str, kind: ChangeKind, policies: &ChangePolicies, verdict: Option<Verdict>) -> Option<Refusal> {
    let policy = policies.of(kind);
    if policy == ChangePolicy::Fail {
        return Some(stop(
            format!("{what}, and the policy for `{kind}` is `fail`"),
            format!("set `schema_changes.{kind}` to another policy in its contract or in config.toml; then {RESYNC}"),
        ));
    }
    let asks = matches!(kind, ChangeKind::Widen | ChangeKind::Change | ChangeKind::Key);
    match verdict {
        _ if !asks || policy != ChangePolicy::Hold => None,
        None => Some(Refusal::Wait(format!("{what}, and the policy for `{kind}` is `hold`"))),
        Some(Verdict::Reject) => Some(stop(
            format!("{what}, and this change was rejected"),
            format!("change it back at the source, then {RESYNC}"),
        )),
        Some(Verdict::Approve) => None,
    }
}

fn step_not_let(step: &Step, policies: &ChangePolicies, verdict: Option<Verdict>) -> Option<Refusal> {
    // A redeclaration changes nothing for readers: nobody needs to be asked.
    let asks_nobody = matches!(step, Step::Redeclare { .. });
    if asks_nobody { None } else { not_let(&step.to_string(), step.kind(), policies, verdict) }
}

/// What becomes of a change through which the lake's rows can't be carried.
fn without_rows(what: &str, kind: ChangeKind, policies: &ChangePolicies, verdict: Option<Verdict>) -> Refusal {
    not_let(what, kind, policies, verdict)
        .unwrap_or_else(|| Refusal::Reload(format!("{what}; the rows that the lake has can't be carried over")))
}

/// The shape on its way.
struct Work<'a> {
    shape: Shape,
    columns: Vec<Column>,
    ops: Vec<LakeOp>,
    steps: Vec<StepRecord>,
    held: Vec<HeldAction>,
    after: &'a TableSchema,
}

impl Work<'_> {
    fn note(&mut self, step: &Step, outcome: Outcome) {
        // Names that are exchanged go by way of a third, which nobody needs to know of.
        let told;
        let step = match step {
            Step::Rename { to, .. } if to.ends_with(ASIDE) => return,
            Step::Rename { from, to } if from.ends_with(ASIDE) => {
                told = Step::Rename { from: from.trim_end_matches(ASIDE).to_owned(), to: to.clone() };
                &told
            }
            step => step,
        };
        let (column, new_name) = match step {
            Step::Add { column, .. } => (Some(column.name.clone()), None),
            Step::Drop { column }
            | Step::Widen { column, .. }
            | Step::Redeclare { column, .. }
            | Step::Change { column, .. } => (Some(column.clone()), None),
            Step::Rename { from, to } => (Some(from.clone()), Some(to.clone())),
            Step::Key { .. } => (None, None),
        };
        self.steps.push(StepRecord { kind: step.kind(), column, new_name, description: step.to_string(), outcome });
    }

    fn take(&mut self, step: &Step, policies: &ChangePolicies, verdict: Option<Verdict>) -> Result<Outcome, Refusal> {
        if let Some(outcome) = self.take_ignored(step) {
            return Ok(outcome);
        }
        let kind = step.kind();
        let policy = policies.of(kind);
        if let Some(refusal) = step_not_let(step, policies, verdict) {
            return Err(refusal);
        }
        match step {
            Step::Add { fill: Fill::Unknown(_), .. } | Step::Change { .. } | Step::Key { .. } => {
                Err(without_rows(&step.to_string(), kind, policies, verdict))
            }
            Step::Redeclare { column, to } => {
                self.redeclare(column, to)?;
                Ok(Outcome::Applied)
            }
            Step::Add { column, fill } => self.add(column, fill, policy),
            Step::Drop { column } => self.drop_column(column, policy),
            Step::Rename { from, to } => self.rename(from, to, policy),
            Step::Widen { column, to, .. } => {
                let index = self.index(column)?;
                self.ops.push(LakeOp::Widen { name: self.columns[index].name.clone(), to: to.lake_type });
                self.columns[index].lake_type = to.lake_type;
                self.columns[index].source_type.clone_from(&to.source_type);
                Ok(if policy == ChangePolicy::Hold { Outcome::Approved } else { Outcome::Applied })
            }
        }
    }

    /// What only the lake has does not go by itself: a load of the table undoes it, and so a person has to want that.
    fn mind_what_is_kept(
        &self,
        refusal: Refusal,
        change: &SchemaChange,
        policies: &ChangePolicies,
        verdict: Option<Verdict>,
    ) -> Refusal {
        let loads = |step: &Step| matches!(step.kind(), ChangeKind::Change | ChangeKind::Key);
        let lake = Arc::new(TableSchema { columns: self.columns.clone(), ..TableSchema::clone(&self.shape.lake) });
        let undone = kept_from_load(&Shape { lake, ..self.shape.clone() }, policies);
        match (refusal, undone) {
            (Refusal::Reload(why), Some(undone)) if verdict != Some(Verdict::Approve) => {
                stop(format!("{why}; by a load, {undone}"), RESYNC)
            }
            (Refusal::Wait(why), undone) if change.steps.iter().any(loads) => {
                let undone = undone.map(|undone| format!("; {undone}")).unwrap_or_default();
                Refusal::Wait(format!("{why}; when it is approved, the table is loaded again{undone}"))
            }
            (refusal, _) => refusal,
        }
    }

    /// Steps of columns that the lake leaves out.
    fn take_ignored(&mut self, step: &Step) -> Option<Outcome> {
        let ignored = &mut self.shape.ignored;
        match step {
            Step::Drop { column } if ignored.contains(column) => {
                ignored.remove(column);
            }
            Step::Rename { from, to } if ignored.contains(from) => {
                ignored.remove(from);
                ignored.insert(to.clone());
            }
            Step::Widen { column, .. } | Step::Redeclare { column, .. } | Step::Change { column, .. }
                if ignored.contains(column) => {}
            _ => return None,
        }
        Some(Outcome::Ignored)
    }

    fn index(&self, source_name: &str) -> Result<usize, Refusal> {
        self.shape
            .index_of_source(source_name)
            .ok_or_else(|| stop(format!("the lake has no column for the source's `{source_name}`"), RESYNC))
    }

    fn redeclare(&mut self, column: &str, to: &Column) -> Result<(), Refusal> {
        let index = self.index(column)?;
        self.columns[index].source_type.clone_from(&to.source_type);
        Ok(())
    }

    /// Delta's column names ignore case. A kept column of a dropped one makes way; any other does not.
    fn free_name(&mut self, name: &str) -> Result<(), Refusal> {
        let taken = |columns: &[Column], name: &str| {
            columns.iter().position(|column| column.name.to_lowercase() == name.to_lowercase())
        };
        let Some(index) = taken(&self.columns, name) else { return Ok(()) };
        if self.shape.origins[index] != Origin::Dropped {
            return Err(stop(
                format!(
                    "column `{name}` of the source can't have its name in the lake: there it belongs to the source's `{}`",
                    self.source_name(index)
                ),
                format!("approve the rename that is held, if there is one; else {RESYNC}"),
            ));
        }
        let mut aside = format!("{name}_dropped");
        let mut number = 2;
        while taken(&self.columns, &aside).is_some() || self.after.column_index(&aside).is_some() {
            aside = format!("{name}_dropped_{number}");
            number += 1;
        }
        self.rename_at(index, &aside);
        Ok(())
    }

    fn source_name(&self, index: usize) -> &str {
        match &self.shape.origins[index] {
            Origin::Source(name) => name,
            Origin::Dropped => "",
        }
    }

    fn rename_at(&mut self, index: usize, to: &str) {
        let from = self.columns[index].name.clone();
        if from == to {
            return;
        }
        self.ops.push(LakeOp::Rename { from: from.clone(), to: to.to_owned() });
        self.columns[index].name = to.to_owned();
        let held = self.shape.held.iter_mut().flat_map(|held| &mut held.actions);
        for action in held.chain(&mut self.held).filter(|action| action.column() == from) {
            *action.column_mut() = to.to_owned();
        }
    }

    fn add(&mut self, column: &Column, fill: &Fill, policy: ChangePolicy) -> Result<Outcome, Refusal> {
        if policy == ChangePolicy::Ignore {
            self.shape.ignored.insert(column.name.clone());
            return Ok(Outcome::Ignored);
        }
        self.free_name(&column.name)?;
        let column = Column { nullable: true, ..column.clone() };
        let fill = match fill {
            Fill::Value(value) => Some(OneValue(value.clone())),
            Fill::Null | Fill::Unknown(_) => None,
        };
        let hidden = policy == ChangePolicy::Hold;
        self.ops.push(LakeOp::Add { column: column.clone(), fill });
        self.shape.origins.push(Origin::Source(column.name.clone()));
        self.shape.hidden.push(hidden);
        if hidden {
            self.held.push(HeldAction::Show { column: column.name.clone() });
        }
        self.columns.push(column);
        Ok(if hidden { Outcome::Held } else { Outcome::Applied })
    }

    fn drop_column(&mut self, column: &str, policy: ChangePolicy) -> Result<Outcome, Refusal> {
        let index = self.index(column)?;
        let name = self.columns[index].name.clone();
        if self.shape.hidden[index] {
            // Nobody has seen it.
            self.remove(index);
            return Ok(Outcome::Applied);
        }
        if self.shape.lake.partition_by.contains(&index) && policy == ChangePolicy::Apply {
            return Err(stop(
                format!("column `{column}` is gone, by which the lake's table is partitioned"),
                format!("set `schema_changes.drop = \"keep\"` or take it out of `partition_by`, then {RESYNC}"),
            ));
        }
        // A held rename has lost its object.
        for held in &mut self.shape.held {
            held.actions.retain(|action| action.column() != name);
        }
        self.shape.held.retain(|held| !held.actions.is_empty());
        if policy == ChangePolicy::Apply {
            self.remove(index);
            return Ok(Outcome::Applied);
        }
        self.shape.origins[index] = Origin::Dropped;
        if policy == ChangePolicy::Hold {
            self.held.push(HeldAction::Drop { column: name });
            return Ok(Outcome::Held);
        }
        Ok(if policy == ChangePolicy::Ignore { Outcome::Ignored } else { Outcome::Kept })
    }

    fn rename(&mut self, from: &str, to: &str, policy: ChangePolicy) -> Result<Outcome, Refusal> {
        let index = self.index(from)?;
        self.shape.origins[index] = Origin::Source(to.to_owned());
        let name = self.columns[index].name.clone();
        // Hidden columns bear the source's name, whatever the policy.
        if policy == ChangePolicy::Apply || self.shape.hidden[index] {
            if name.to_lowercase() != to.to_lowercase() {
                self.free_name(to)?;
            }
            self.forget_held_rename(&name);
            self.rename_at(index, to);
            return Ok(Outcome::Applied);
        }
        // An earlier rename that is held becomes this one.
        let held = self.forget_held_rename(&name);
        if held || policy == ChangePolicy::Hold {
            if name == to {
                return Ok(Outcome::Applied);
            }
            self.held.push(HeldAction::Rename { column: name, to: to.to_owned() });
            return Ok(Outcome::Held);
        }
        Ok(if policy == ChangePolicy::Ignore { Outcome::Ignored } else { Outcome::Kept })
    }

    /// Whether there was one of this lake column.
    fn forget_held_rename(&mut self, name: &str) -> bool {
        let mut found = false;
        let mut keep = |action: &HeldAction| {
            let is_it = matches!(action, HeldAction::Rename { column, .. } if column == name);
            found |= is_it;
            !is_it
        };
        self.held.retain(&mut keep);
        for held in &mut self.shape.held {
            held.actions.retain(&mut keep);
        }
        self.shape.held.retain(|held| !held.actions.is_empty());
        found
    }

    fn remove(&mut self, index: usize) {
        let name = self.columns.remove(index).name;
        self.shape.origins.remove(index);
        self.shape.hidden.remove(index);
        let moved = |indexes: &mut Vec<usize>| {
            indexes.retain(|&other| other != index);
            for other in indexes.iter_mut().filter(|other| **other > index) {
                *other -= 1;
            }
        };
        let mut lake = TableSchema::clone(&self.shape.lake);
        moved(&mut lake.key);
        moved(&mut lake.partition_by);
        self.shape.lake = Arc::new(lake);
        for held in &mut self.shape.held {
            held.actions.retain(|action| action.column() != name);
        }
        self.shape.held.retain(|held| !held.actions.is_empty());
        self.held.retain(|action| action.column() != name);
        self.ops.push(LakeOp::Drop { name });
    }

    /// Returns what can't be done.
    fn settle<'b>(&mut self, actions: &'b [HeldAction], verdict: Verdict) -> Vec<&'b HeldAction> {
        let mut refused = Vec::new();
        let mut renames = Vec::new();
        for action in actions {
            let Some(index) = self.columns.iter().position(|column| column.name == action.column()) else { continue };
            match (action, verdict) {
                (HeldAction::Show { .. }, Verdict::Approve) => self.shape.hidden[index] = false,
                (HeldAction::Show { .. }, Verdict::Reject) => {
                    if let Origin::Source(name) = self.shape.origins[index].clone() {
                        self.shape.ignored.insert(name);
                    }
                    self.remove(index);
                }
                // By this the lake's folders are told apart.
                (HeldAction::Drop { .. }, Verdict::Approve) if self.shape.lake.partition_by.contains(&index) => {
                    refused.push(action);
                }
                (HeldAction::Drop { .. }, Verdict::Approve) => self.remove(index),
                (HeldAction::Rename { column, to }, Verdict::Approve) => {
                    renames.push((action, column.clone(), to.clone()));
                }
                (HeldAction::Drop { .. } | HeldAction::Rename { .. }, Verdict::Reject) => {}
            }
        }
        // As in a statement's own renames: none may meet a name that another is about to give up.
        while !renames.is_empty() {
            let free = renames.iter().position(|(_, from, to)| {
                !renames.iter().any(|(_, other, _)| other != from && other.to_lowercase() == to.to_lowercase())
            });
            let (place, target) = match free {
                Some(place) => (place, None),
                None => (0, Some(format!("{}{ASIDE}", renames[0].1))),
            };
            let (action, from, to) = renames.remove(place);
            let Some(index) = self.columns.iter().position(|column| column.name == from) else { continue };
            if let Some(aside) = target {
                self.rename_at(index, &aside);
                renames.push((action, aside, to));
            } else if from.to_lowercase() == to.to_lowercase() || self.free_name(&to).is_ok() {
                self.rename_at(index, &to);
            } else {
                refused.push(action);
            }
        }
        refused
    }

    fn evolution(self, record: ChangeRecord) -> Evolution {
        let mut shape = self.shape;
        shape.lake = Arc::new(TableSchema { columns: self.columns, ..TableSchema::clone(&shape.lake) });
        Evolution { shape: Arc::new(shape), ops: self.ops, record }
    }
}

#[cfg(test)]
mod tests;
