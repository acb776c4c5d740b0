//! Every policy with every kind of step, and the names that get in each other's way. A lake table is written as its
//! columns, `lake<source`: `a` comes from the source's `a`, `a<b` from its `b`, `a<-` from none any more, `?a` is hidden.

use std::sync::Arc;

use arrow::array::Int32Array;

use super::*;
use crate::config::ChangeKind::{self, Add, Change, Drop, Key, Rename, Widen};
use crate::config::ChangePolicy::{self, Apply, Fail, Hold, Ignore, Keep};
use crate::schema::{Hints, LakeType, Policy, RowIdentity, TableName, steps_between};

fn column(name: &str, lake_type: LakeType) -> Column {
    let source_type = if lake_type == LakeType::Long { "bigint" } else { "int" };
    Column {
        name: name.into(),
        source_type: source_type.into(),
        lake_type,
        nullable: name != "id",
        policy: Policy::Null,
    }
}

/// Columns by name; `name:long` is wider.
fn table(names: &str) -> Arc<TableSchema> {
    let columns = names.split_whitespace().map(|name| match name.split_once(':') {
        Some((name, _)) => column(name, LakeType::Long),
        None => column(name, LakeType::Integer),
    });
    Arc::new(TableSchema {
        name: TableName::new("shop", "goods"),
        columns: columns.collect(),
        key: vec![0],
        partition_by: vec![],
        identity: RowIdentity::Key,
    })
}

fn lies(shape: &Shape) -> String {
    let column = |index: usize| {
        let name = &shape.lake.columns[index].name;
        let origin = match &shape.origins[index] {
            Origin::Source(source) if source == name => String::new(),
            Origin::Source(source) => format!("<{source}"),
            Origin::Dropped => "<-".to_owned(),
        };
        let hidden = if shape.hidden[index] { "?" } else { "" };
        let wide = if shape.lake.columns[index].lake_type == LakeType::Long { ":long" } else { "" };
        format!("{hidden}{name}{wide}{origin}")
    };
    let columns: Vec<String> = (0..shape.lake.columns.len()).map(column).collect();
    let ignored: Vec<&str> = shape.ignored.iter().map(String::as_str).collect();
    let ignored = if ignored.is_empty() { String::new() } else { format!(" -{}", ignored.join(" -")) };
    format!("{}{ignored}", columns.join(" "))
}

/// A table followed through changes of its source.
struct Followed {
    source: Arc<TableSchema>,
    shape: Shape,
    changes: u32,
    ops: Vec<LakeOp>,
}

impl Followed {
    fn new(names: &str) -> Self {
        let source = table(names);
        Self { shape: Shape::of(source.clone()), source, changes: 0, ops: Vec::new() }
    }

    fn decide(
        &mut self,
        after: &str,
        renamed: &[(&str, &str)],
        policies: &[(ChangeKind, ChangePolicy)],
        verdict: Option<Verdict>,
    ) -> Decision {
        let renamed: Vec<(String, String)> = renamed.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let seven = |_: &Column| Fill::Value(Arc::new(Int32Array::from(vec![7])));
        let hints = Hints { renamed: &renamed, fill: &seven, rewritten: &|_| None };
        let after = table(after);
        self.changes += 1;
        let change = SchemaChange {
            table: after.name.clone(),
            before: self.source.clone(),
            after: after.clone(),
            steps: steps_between(&self.source, &after, &hints),
            statement: None,
            place: format!("0-1-{}", self.changes),
            ordinal: 0,
            at: None,
        };
        assert!(!change.steps.is_empty());
        let decision = decide("booking", &self.shape, &change, &ChangePolicies::stated(policies), verdict);
        if let Decision::Evolve(evolution) = &decision {
            self.shape = Shape::clone(&evolution.shape);
            self.ops = evolution.ops.clone();
            self.source = after;
            // What the stream decodes must be what the lake takes in, whatever became of it.
            let mut ours: Vec<String> = self.shape.source_schema().columns.into_iter().map(|c| c.name).collect();
            ours.extend(self.shape.ignored.iter().cloned());
            ours.sort_unstable();
            let mut theirs: Vec<String> = self.source.columns.iter().map(|c| c.name.clone()).collect();
            theirs.sort_unstable();
            assert_eq!(ours, theirs);
            assert_eq!(self.shape.lake.columns.len(), self.shape.origins.len());
            assert_eq!(self.shape.lake.columns.len(), self.shape.hidden.len());
            assert_eq!(self.shape.lake.same_name(), None);
        }
        decision
    }

    /// The shape after the change, and what became of its steps.
    fn follow(
        &mut self,
        after: &str,
        renamed: &[(&str, &str)],
        policies: &[(ChangeKind, ChangePolicy)],
    ) -> (String, Vec<Outcome>) {
        match self.decide(after, renamed, policies, None) {
            Decision::Evolve(evolution) => {
                (lies(&self.shape), evolution.record.steps.iter().map(|step| step.outcome).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, verdict: Verdict) -> (String, Vec<Outcome>) {
        let id = self.shape.held.last().expect("something is held").id;
        let evolution = settle(&self.shape, id, verdict).expect("it is held");
        self.shape = Shape::clone(&evolution.shape);
        self.ops = evolution.ops.clone();
        assert!(settle(&self.shape, id, verdict).is_none(), "once");
        assert_eq!(self.shape.lake.same_name(), None);
        (lies(&self.shape), evolution.record.steps.iter().map(|step| step.outcome).collect())
    }
}

#[test]
fn every_policy_of_columns_that_come_go_and_are_renamed() {
    #[allow(clippy::type_complexity)] // a table of cases
    let cases: [(&str, &[(&str, &str)], ChangeKind, ChangePolicy, &str, Outcome, usize); 11] = [
        ("id a b", &[], Add, Apply, "id a b", Outcome::Applied, 1),
        ("id a b", &[], Add, Hold, "id a ?b", Outcome::Held, 1),
        ("id a b", &[], Add, Ignore, "id a -b", Outcome::Ignored, 0),
        ("id", &[], Drop, Apply, "id", Outcome::Applied, 1),
        ("id", &[], Drop, Keep, "id a<-", Outcome::Kept, 0),
        ("id", &[], Drop, Hold, "id a<-", Outcome::Held, 0),
        ("id", &[], Drop, Ignore, "id a<-", Outcome::Ignored, 0),
        ("id b", &[("a", "b")], Rename, Apply, "id b", Outcome::Applied, 1),
        ("id b", &[("a", "b")], Rename, Hold, "id a<b", Outcome::Held, 0),
        ("id b", &[("a", "b")], Rename, Ignore, "id a<b", Outcome::Ignored, 0),
        ("id a:long", &[], Widen, Apply, "id a:long", Outcome::Applied, 1),
    ];
    for (after, renamed, kind, policy, expected, outcome, ops) in cases {
        let mut followed = Followed::new("id a");
        let found = followed.follow(after, renamed, &[(kind, policy)]);
        assert_eq!(found, (expected.to_owned(), vec![outcome]), "{kind} {policy}");
        assert_eq!(followed.ops.len(), ops, "{kind} {policy}");
        assert_eq!(followed.shape.held.len(), usize::from(policy == Hold), "{kind} {policy}");
    }
}

#[test]
fn fail_stops_whatever_the_kind_and_says_how_to_go_on() {
    for (after, renamed, kind) in
        [("id a b", &[][..], Add), ("id", &[], Drop), ("id b", &[("a", "b")], Rename), ("id a:long", &[], Widen)]
    {
        match Followed::new("id a").decide(after, renamed, &[(kind, Fail)], None) {
            Decision::Stop { record, finding, remedy } => {
                assert!(finding.contains("`fail`") && remedy.contains(&format!("schema_changes.{kind}")), "{remedy}");
                assert!(record.steps.iter().all(|step| step.outcome == Outcome::Refused));
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
}

#[test]
fn what_would_leave_the_lake_wrong_waits_when_held() {
    for verdict in [None, Some(Verdict::Approve), Some(Verdict::Reject)] {
        let decision = Followed::new("id a").decide("id a:long b", &[], &[(Widen, Hold)], verdict);
        match (verdict, decision) {
            (None, Decision::Wait { record, why }) => {
                assert!(why.contains("`widen` is `hold`"), "{why}");
                // None of it has happened, the column that is new included.
                assert!(record.steps.iter().all(|step| step.outcome == Outcome::Held), "{record:?}");
            }
            (Some(Verdict::Approve), Decision::Evolve(evolution)) => {
                assert_eq!(lies(&evolution.shape), "id a:long b");
                assert_eq!(evolution.record.steps[0].outcome, Outcome::Approved);
            }
            (Some(Verdict::Reject), Decision::Stop { finding, .. }) => assert!(finding.contains("rejected")),
            (verdict, other) => panic!("{verdict:?}: {other:?}"),
        }
    }
    // A narrower type and another key wait as well; the way on is to load the table again.
    for kind in [Change, Key] {
        let mut followed = Followed::new("id a:long");
        let after = if kind == Change { "id a" } else { "no a:long" };
        let policies = [(kind, Hold)];
        let waits = followed.decide(after, &[], &policies, None);
        assert!(matches!(&waits, Decision::Wait { why, .. } if why.contains("is loaded again")), "{kind}: {waits:?}");
        let approved = followed.decide(after, &[], &policies, Some(Verdict::Approve));
        assert!(matches!(approved, Decision::Reload { .. }), "{kind}: {approved:?}");
        let rejected = followed.decide(after, &[], &policies, Some(Verdict::Reject));
        assert!(matches!(rejected, Decision::Stop { .. }), "{kind}: {rejected:?}");
    }
}

#[test]
fn what_rows_can_not_be_carried_through_is_a_load() {
    for (after, policies, expected) in [
        ("id a b", &[][..], Some(Outcome::Resync)),
        ("no a:long b", &[(Drop, Apply)], Some(Outcome::Resync)),
        ("id a b c", &[], Some(Outcome::Resync)),
        ("id a b", &[(Change, Fail)], None),
        ("id a b c", &[(Add, Fail)], None),
        // Somebody has to be asked about another part of it first.
        ("id a b:long", &[(Widen, Hold)], Some(Outcome::Held)),
    ] {
        match (Followed::new("id a:long b").decide(after, &[], policies, None), expected) {
            (Decision::Reload { record, why }, Some(Outcome::Resync)) => {
                assert!(why.contains("can't be carried over"), "{why}");
                assert!(record.steps.iter().all(|step| step.outcome == Outcome::Resync), "{record:?}");
            }
            (Decision::Stop { finding, .. }, None) => assert!(finding.contains("`fail`"), "{finding}"),
            (Decision::Wait { .. }, Some(Outcome::Held)) => {}
            (other, _) => panic!("{after}: {other:?}"),
        }
    }
}

#[test]
fn what_only_the_lake_has_is_not_loaded_away_unasked() {
    for (first, renamed, policy, text) in [
        ("id a:long", &[][..], (Drop, Keep), "column `b`, which the lake keeps, would be gone"),
        ("id a:long b c", &[], (Add, Hold), "column `c`, which waits for a decision, would be shown"),
        ("id a:long b c", &[], (Add, Ignore), "column `c`, which is left out, would be shown"),
        ("id a:long d", &[("b", "d")], (Rename, Ignore), "column `b`, which keeps its name in the lake, would be `d`"),
    ] {
        let mut followed = Followed::new("id a:long b");
        followed.follow(first, renamed, &[policy]);
        let after = first.replace("a:long", "a");
        match followed.decide(&after, &[], &[policy], None) {
            Decision::Stop { finding, remedy, .. } => assert!(finding.contains(text) && remedy == RESYNC, "{finding}"),
            other => panic!("{first}: {other:?}"),
        }
        // In one statement as well.
        match Followed::new("id a:long b").decide(&after, renamed, &[policy], None) {
            Decision::Stop { finding, .. } => assert!(finding.contains(text), "{finding}"),
            other => panic!("{first}: {other:?}"),
        }
        match followed.decide(&after, &[], &[policy, (Change, Hold)], None) {
            Decision::Wait { why, .. } => assert!(why.contains(text), "{why}"),
            other => panic!("{first}: {other:?}"),
        }
        let approved = followed.decide(&after, &[], &[policy, (Change, Hold)], Some(Verdict::Approve));
        assert!(matches!(approved, Decision::Reload { .. }), "{first}: {approved:?}");
    }
    let kept = Followed::new("id a:long").decide("id a", &[], &[(ChangeKind::Truncate, Keep)], None);
    assert!(matches!(&kept, Decision::Stop { finding, .. } if finding.contains("TRUNCATE")), "{kept:?}");
}

#[test]
fn what_stops_goes_before_what_waits() {
    let policies = [(Widen, Hold), (Add, Fail)];
    match Followed::new("id a").decide("id a:long b", &[], &policies, None) {
        Decision::Stop { record, .. } => assert_eq!(record.steps.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redeclaration_asks_nobody() {
    let mut followed = Followed::new("id a");
    let mut after = TableSchema::clone(&followed.source);
    after.columns[1].source_type = "mediumint".into();
    let step = Step::Redeclare { column: "a".into(), to: after.columns[1].clone() };
    let change = SchemaChange {
        table: after.name.clone(),
        before: followed.source.clone(),
        after: Arc::new(after),
        steps: vec![step],
        statement: None,
        place: "0-1-1".into(),
        ordinal: 0,
        at: None,
    };
    for policy in [Apply, Hold, Fail] {
        match decide("booking", &followed.shape, &change, &ChangePolicies::stated(&[(Widen, policy)]), None) {
            Decision::Evolve(evolution) => {
                assert_eq!(evolution.shape.lake.columns[1].source_type, "mediumint");
                assert!(evolution.ops.is_empty());
            }
            other => panic!("{policy}: {other:?}"),
        }
    }
    // Also not about a column that the lake leaves out.
    followed.shape.ignored.insert("a".into());
    let ignoring = decide("booking", &followed.shape, &change, &ChangePolicies::default(), None);
    assert!(matches!(ignoring, Decision::Evolve(evolution) if evolution.record.steps[0].outcome == Outcome::Ignored));
}

#[test]
fn held_columns_are_shown_or_left_out() {
    let mut followed = Followed::new("id a");
    followed.follow("id a b", &[], &[(Add, Hold)]);
    let held = Followed { shape: followed.shape.clone(), source: followed.source.clone(), ops: vec![], changes: 1 };
    assert_eq!(followed.settle(Verdict::Approve), ("id a b".to_owned(), vec![Outcome::Approved]));
    assert!(followed.ops.is_empty(), "the files have it already");
    let mut followed = held;
    assert_eq!(followed.settle(Verdict::Reject), ("id a -b".to_owned(), vec![Outcome::Rejected]));
    assert_eq!(followed.ops, [LakeOp::Drop { name: "b".into() }]);
    // What the lake leaves out may change as it likes.
    assert_eq!(followed.follow("id a c", &[("b", "c")], &[(Rename, Fail)]).0, "id a -c");
    assert_eq!(followed.follow("id a c:long", &[], &[(Widen, Fail)]).0, "id a -c");
    assert_eq!(followed.follow("id a", &[], &[(Drop, Fail)]).0, "id a");
}

#[test]
fn a_held_column_that_is_dropped_again_was_never_there() {
    let mut followed = Followed::new("id a");
    followed.follow("id a b", &[], &[(Add, Hold)]);
    assert_eq!(followed.follow("id a c", &[("b", "c")], &[(Rename, Hold)]).0, "id a ?c");
    assert_eq!(followed.shape.held.len(), 1, "the hidden column follows its source, and waits as before");
    assert_eq!(followed.follow("id a", &[], &[]), ("id a".to_owned(), vec![Outcome::Applied]));
    assert!(followed.shape.held.is_empty());
}

#[test]
fn held_drops_go_or_stay() {
    for (verdict, expected) in [(Verdict::Approve, "id"), (Verdict::Reject, "id a<-")] {
        let mut followed = Followed::new("id a");
        followed.follow("id", &[], &[(Drop, Hold)]);
        assert_eq!(followed.settle(verdict).0, expected);
    }
    // The lake's folders are made by it.
    let mut followed = Followed::new("id a");
    followed.shape.lake = Arc::new(TableSchema { partition_by: vec![1], ..TableSchema::clone(&followed.shape.lake) });
    assert!(matches!(followed.decide("id", &[], &[(Drop, Apply)], None), Decision::Stop { .. }));
    followed.follow("id", &[], &[(Drop, Hold)]);
    assert_eq!(followed.settle(Verdict::Approve), ("id a<-".to_owned(), vec![Outcome::Refused]));
}

#[test]
fn held_renames_are_made_up_for_or_dropped() {
    for (verdict, expected) in [(Verdict::Approve, "id b"), (Verdict::Reject, "id a<b")] {
        let mut followed = Followed::new("id a");
        followed.follow("id b", &[("a", "b")], &[(Rename, Hold)]);
        assert_eq!(followed.settle(verdict).0, expected);
    }
    // Renamed again: one decision is about both.
    let mut followed = Followed::new("id a");
    followed.follow("id b", &[("a", "b")], &[(Rename, Hold)]);
    assert_eq!(followed.follow("id c", &[("b", "c")], &[(Rename, Hold)]).0, "id a<c");
    assert_eq!(followed.shape.held.len(), 1);
    assert_eq!(followed.settle(Verdict::Approve).0, "id c");
    // Renamed back: nothing is left to decide.
    followed.follow("id d", &[("c", "d")], &[(Rename, Hold)]);
    assert_eq!(followed.follow("id c", &[("d", "c")], &[(Rename, Hold)]), ("id c".into(), vec![Outcome::Applied]));
    assert!(followed.shape.held.is_empty());
    // The policy changed meanwhile: what was held would name the wrong column.
    followed.follow("id d", &[("c", "d")], &[(Rename, Hold)]);
    assert_eq!(followed.follow("id e", &[("d", "e")], &[]).0, "id e");
    assert!(followed.shape.held.is_empty());
    // The column went away.
    followed.follow("id f", &[("e", "f")], &[(Rename, Hold)]);
    assert_eq!(followed.follow("id", &[], &[]).0, "id e<-");
    assert!(followed.shape.held.is_empty());
}

#[test]
fn exchanged_names_are_exchanged_under_every_policy() {
    let swap = [("a", "b"), ("b", "a")];
    let mut followed = Followed::new("id a b");
    // The order of columns is the lake's.
    assert_eq!(followed.follow("id a b", &swap, &[]), ("id b a".to_owned(), vec![Outcome::Applied; 2]));
    let mut followed = Followed::new("id a b");
    assert_eq!(followed.follow("id a b", &swap, &[(Rename, Ignore)]).0, "id a<b b<a");
    let mut followed = Followed::new("id a b");
    assert_eq!(followed.follow("id a b", &swap, &[(Rename, Hold)]), ("id a<b b<a".to_owned(), vec![Outcome::Held; 2]));
    assert!(followed.shape.held[0].record.steps.iter().all(|step| !step.description.contains("lakeward")));
    assert_eq!(followed.settle(Verdict::Approve), ("id b a".to_owned(), vec![Outcome::Approved; 2]));
}

#[test]
fn a_kept_column_makes_way_for_one_of_its_name() {
    let mut followed = Followed::new("id a");
    followed.follow("id", &[], &[]);
    assert_eq!(followed.follow("id a:long", &[], &[]).0, "id a_dropped<- a:long");
    followed.follow("id", &[], &[]);
    assert_eq!(followed.follow("id A", &[], &[]).0, "id a_dropped<- A_dropped_2:long<- A", "Delta's names ignore case");
    // A rename onto it, and one that is held to begin with.
    let mut followed = Followed::new("id a b");
    followed.follow("id b", &[], &[]);
    assert_eq!(followed.follow("id a", &[("b", "a")], &[]).0, "id a_dropped<- a");
    let mut followed = Followed::new("id a b");
    followed.follow("id b", &[], &[(Drop, Hold)]);
    followed.follow("id a", &[("b", "a")], &[(Rename, Hold)]);
    assert_eq!(followed.settle(Verdict::Approve).0, "id a_dropped<- a");
    assert_eq!(followed.settle(Verdict::Approve).0, "id a", "the held drop has followed the name");
    // The new name is another new column's too.
    let mut followed = Followed::new("id a");
    followed.follow("id", &[], &[]);
    assert_eq!(followed.follow("id a a_dropped", &[], &[]).0, "id a_dropped_2<- a a_dropped");
}

#[test]
fn a_name_that_a_held_rename_keeps_is_taken() {
    let mut followed = Followed::new("id a");
    followed.follow("id b", &[("a", "b")], &[(Rename, Hold)]);
    match followed.decide("id b a", &[], &[], None) {
        Decision::Stop { finding, remedy, .. } => {
            assert!(
                finding.contains("belongs to the source's `b`") && remedy.contains("approve"),
                "{finding}; {remedy}"
            );
        }
        other => panic!("{other:?}"),
    }
    // The name is wanted by a column that came later: this rename can't be made up for any more.
    let mut followed = Followed::new("id a x");
    followed.follow("id b x", &[("a", "b")], &[(Rename, Ignore)]);
    followed.follow("id c x", &[("b", "c")], &[(Rename, Hold)]);
    followed.follow("id c C_", &[("x", "C_")], &[]);
    assert_eq!(lies(&followed.shape), "id a<c C_");
    assert_eq!(followed.settle(Verdict::Approve).0, "id c C_");
}

#[test]
fn an_approved_rename_whose_name_is_taken_is_refused() {
    let mut followed = Followed::new("id a b");
    followed.follow("id a c", &[("b", "c")], &[(Rename, Ignore)]);
    followed.follow("id b c", &[("a", "b")], &[(Rename, Hold)]);
    // In the lake, `b` is what the source calls `c`.
    assert_eq!(followed.settle(Verdict::Approve), ("id a<b b<c".to_owned(), vec![Outcome::Refused]));
}

#[test]
fn a_change_of_several_kinds_is_one_change() {
    let mut followed = Followed::new("id a b");
    let policies = [(Add, Hold), (Rename, Apply), (Drop, Keep)];
    let (shape, outcomes) = followed.follow("id c d", &[("a", "c")], &policies);
    assert_eq!(shape, "id c b<- ?d");
    assert_eq!(outcomes, [Outcome::Kept, Outcome::Applied, Outcome::Held]);
    assert_eq!(followed.shape.held[0].id, followed.shape.held[0].record.id);
    let (_, outcomes) = followed.settle(Verdict::Approve);
    assert_eq!(outcomes, [Outcome::Kept, Outcome::Applied, Outcome::Approved]);
}

#[test]
fn a_table_that_was_not_as_the_lake_has_it_is_loaded_again() {
    for before in ["id a x", "id"] {
        let mut followed = Followed::new("id a");
        followed.source = table(before);
        match followed.decide("id b", &[], &[], None) {
            Decision::Reload { record, why } => {
                assert!(why.contains("was not what the lake has"), "{why}");
                assert!(record.steps.iter().all(|step| step.outcome == Outcome::Resync));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn key_and_partition_columns_keep_their_places() {
    let mut followed = Followed::new("id a b");
    followed.shape.lake = Arc::new(TableSchema { partition_by: vec![2], ..TableSchema::clone(&followed.shape.lake) });
    followed.follow("id b", &[], &[(Drop, Apply)]);
    assert_eq!((&followed.shape.lake.key, &followed.shape.lake.partition_by), (&vec![0], &vec![1]));
    followed.follow("no b", &[("id", "no")], &[]);
    assert_eq!(lies(&followed.shape), "no b");
    assert!(!followed.shape.lake.columns[0].nullable && followed.shape.lake.is_key(0));
}
