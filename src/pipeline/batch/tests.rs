use std::collections::HashMap;

use super::*;
use crate::config::ChangePolicies;
use crate::schema::{
    Column, ColumnBuilder, Fill, LakeType, Op, Policy, RowBuilder, RowIdentity, SchemaChange, Shape, Step, TableRows,
    TableSchema, Verdict,
};

fn name() -> TableName {
    TableName::new("booking", "coupons")
}

fn other() -> TableName {
    TableName::new("booking", "other")
}

fn column(name: &str, lake_type: LakeType) -> Column {
    let source_type = lake_type.to_string();
    Column { name: name.into(), source_type, lake_type, nullable: name != "id", policy: Policy::default() }
}

fn table(columns: &[(&str, LakeType)]) -> Arc<TableSchema> {
    Arc::new(TableSchema {
        name: name(),
        columns: columns.iter().map(|(name, lake_type)| column(name, *lake_type)).collect(),
        key: vec![0],
        partition_by: vec![],
        identity: RowIdentity::Key,
    })
}

fn plain() -> Arc<TableSchema> {
    table(&[("id", LakeType::Long)])
}

/// Follows the table of [`plain`], and another one, from position 1 on.
fn following(policies: &[(ChangeKind, ChangePolicy)], verdicts: HashMap<Uuid, Verdict>) -> Gatherer {
    let mut following = Following::new("booking", verdicts);
    following.follow(name(), Arc::new(Shape::of(plain())), ChangePolicies::stated(policies));
    let second = TableSchema { name: other(), ..TableSchema::clone(&plain()) };
    following.follow(other(), Arc::new(Shape::of(Arc::new(second))), ChangePolicies::default());
    following.leave_out(TableName::new("booking", "stopped"));
    let spill = Spill::new(std::env::temp_dir(), 1 << 30, 1 << 20);
    Gatherer::new(spill, 1, Position::Lsn(1), PreparedSets::new(), following)
}

fn gatherer() -> Gatherer {
    following(&[], HashMap::new())
}

fn truncate() -> Event {
    Event::Truncate(name())
}

fn boundary(lsn: u64) -> Event {
    Event::Boundary {
        position: Position::Lsn(lsn),
        committed_at: None,
        first_committed_at: None,
        transactions: 1,
        caught_up: false,
        told_at: Utc::now(),
    }
}

#[test]
fn a_batch_ends_at_a_boundary() {
    let mut gatherer = gatherer();
    gatherer.add(truncate());
    assert!(gatherer.complete().is_empty(), "the transaction is still open");
    gatherer.add(boundary(7));
    gatherer.add(truncate());
    let batch = gatherer.cut();
    assert_eq!(batch.position, Some(Position::Lsn(7)));
    assert_eq!(batch.durable, Some(Position::Lsn(7)));
    assert_eq!(changes(&batch), ["truncate", "truncate applied"]);
    gatherer.add(boundary(9));
    assert_eq!(gatherer.cut().tables.len(), 1, "the open transaction came with the next batch");
}

/// Every commit of the batch says so, for whoever looks where versions of several tables meet.
#[test]
fn a_batch_tells_where_its_changes_begin_and_when_they_were_committed() {
    let at = |seconds: i64| chrono::DateTime::from_timestamp(seconds, 0);
    let boundary = |lsn: u64, first: i64, last: i64| {
        let Event::Boundary { position, transactions, caught_up, told_at, .. } = boundary(lsn) else { unreachable!() };
        let (committed_at, first_committed_at) = (at(last), at(first));
        Event::Boundary { position, committed_at, first_committed_at, transactions, caught_up, told_at }
    };
    let mut gatherer = gatherer();
    gatherer.add(boundary(5, 1, 2));
    gatherer.add(truncate());
    gatherer.add(boundary(7, 3, 4));
    gatherer.add(boundary(9, 5, 6));
    let batch = gatherer.cut();
    assert_eq!(batch.after, Some(Position::Lsn(5)), "what came before concerns none of the tables");
    assert_eq!(batch.committed.map(|committed| (committed.first, committed.last)), at(3).zip(at(6)));

    gatherer.add(truncate());
    gatherer.add(boundary(12, 7, 7));
    let batch = gatherer.cut();
    assert_eq!(batch.after, Some(Position::Lsn(9)));
    assert_eq!(batch.committed.map(|committed| (committed.first, committed.last)), at(7).zip(at(7)));
}

///
#[test]
fn a_rolled_back_transaction_leaves_nothing() {
    let mut gatherer = gatherer();
    gatherer.add(truncate());
    gatherer.add(boundary(7));
    gatherer.add(truncate());
    gatherer.add(Event::Rollback);
    gatherer.add(boundary(9));
    assert_eq!(changes(&gatherer.cut()), ["truncate", "truncate applied"]);
}

#[test]
fn a_stopped_table_keeps_its_complete_transactions_only() {
    let mut gatherer = gatherer();
    gatherer.add(truncate());
    gatherer.add(boundary(7));
    gatherer.add(truncate());
    gatherer.add(Event::TableStopped { table: name(), error: Error::ReceiverGone, by_change: false });
    gatherer.add(truncate());
    gatherer.add(boundary(9));
    let batch = gatherer.cut();
    assert_eq!(changes(&batch), ["truncate", "truncate applied"]);
    assert_eq!(batch.leaving[&name()].position, Position::Lsn(7), "the others go on to 9");
    assert_eq!((batch.position, batch.durable), (Some(Position::Lsn(9)), Some(Position::Lsn(9))));
}

/// What the log does not tell of a table's change: loaded again by policy `change`, and nothing else.
#[test]
fn a_table_with_a_change_that_is_not_told_is_loaded_again_by_policy() {
    let untold = || {
        let error = Error::Table {
            table: name().to_string(),
            finding: "its partition p was dropped".into(),
            position: "0-1-7".into(),
            remedy: "load it again".into(),
        };
        Event::TableStopped { table: name(), error, by_change: true }
    };
    for (policies, verdict) in [
        (&[][..], "reload"),
        (&[(ChangeKind::Change, ChangePolicy::Fail)], "stopped"),
        (&[(ChangeKind::Change, ChangePolicy::Hold)], "stopped"),
        (&[(ChangeKind::Truncate, ChangePolicy::Keep)], "stopped"),
    ] {
        let mut gatherer = following(policies, HashMap::new());
        for event in [row(), boundary(7), row(), untold(), boundary(9)] {
            gatherer.add(event);
        }
        let batch = gatherer.cut();
        assert_eq!(changes(&batch).len(), 1, "what was complete before is committed");
        let leaving = &batch.leaving[&name()];
        assert_eq!(leaving.position, Position::Lsn(7));
        match (&leaving.why, verdict) {
            (Left::Reload { record, error }, "reload") => {
                assert_eq!(record.steps[0].outcome, Outcome::Resync);
                assert_eq!((record.place.as_str(), record.table.as_str()), ("0-1-7", "booking.coupons"));
                assert!(error.to_string().contains("its partition p was dropped"), "{error}");
            }
            (Left::Stopped(_), "stopped") => {}
            (other, _) => panic!("{policies:?}: {other:?}"),
        }
    }
}

/// One row of these columns, numbers each.
fn row_of(schema: &Arc<TableSchema>) -> Event {
    let mut builder = RowBuilder::new(schema.clone());
    for column in &mut builder.columns {
        match column {
            ColumnBuilder::Long(values) => values.append_value(7),
            ColumnBuilder::Integer(values) => values.append_value(7),
            other => panic!("{other:?}"),
        }
    }
    builder.end_row().expect("whole");
    Event::Rows(TableRows {
        schema: builder.schema().clone(),
        rows: builder.finish().expect("valid"),
        ops: vec![Op::Insert],
        unchanged: Vec::new(),
        unfaithful: Vec::new(),
    })
}

fn row() -> Event {
    row_of(&plain())
}

/// What a batch holds of the table, in words.
fn changes(batch: &Batch) -> Vec<String> {
    let outcomes = |record: &ChangeRecord| -> Vec<String> {
        record.steps.iter().map(|step| format!("{} {:?}", step.kind, step.outcome).to_lowercase()).collect()
    };
    let in_words = |change: &TableChange| match change {
        TableChange::Rows(rows) => {
            let names: Vec<&str> = rows.schema.columns.iter().map(|column| column.name.as_str()).collect();
            format!("row of {}", names.join(" "))
        }
        TableChange::Spilled(_) => "spilled".to_owned(),
        TableChange::Truncate => "truncate".to_owned(),
        TableChange::Evolve(evolution) => outcomes(&evolution.record).join(", "),
    };
    batch.tables.get(&name()).map(|changes| changes.iter().map(in_words).collect()).unwrap_or_default()
}

fn schema_change(before: &Arc<TableSchema>, after: &Arc<TableSchema>, step: Step) -> Event {
    Event::SchemaChange(Box::new(SchemaChange {
        table: name(),
        before: before.clone(),
        after: after.clone(),
        steps: vec![step],
        statement: Some("ALTER".into()),
        place: "place".into(),
        ordinal: 0,
        at: None,
    }))
}

fn with_new_column() -> (Arc<TableSchema>, Event) {
    let after = table(&[("id", LakeType::Long), ("a", LakeType::Integer)]);
    let step = Step::Add { column: after.columns[1].clone(), fill: Fill::Null };
    let event = schema_change(&plain(), &after, step);
    (after, event)
}

/// Between integers only: `id` is a key column.
fn widened(before: &Arc<TableSchema>) -> Event {
    let after = table(&[("id", LakeType::Long), ("a", LakeType::Long)]);
    let step = Step::Widen { column: "a".into(), from: LakeType::Integer, to: after.columns[1].clone() };
    schema_change(before, &after, step)
}

///
#[tokio::test]
async fn an_open_transaction_waits_on_disk_and_comes_back_whole() {
    let mut gatherer = gatherer();
    for _ in 0..3 {
        gatherer.add(row());
        gatherer.make_room().await.expect("room on disk");
        assert_eq!(gatherer.bytes(), 0, "nothing stays in memory");
    }
    assert!(gatherer.complete().is_empty() && gatherer.spill.used() > 0);
    gatherer.add(boundary(7));
    let batch = gatherer.cut();
    assert_eq!((batch.rows, batch.spilled), (3, true));
    for change in batch.tables.values().flatten() {
        let TableChange::Spilled(rows) = change else { panic!("on disk") };
        assert_eq!(rows.read().expect("readable").ops, [Op::Insert]);
    }
    drop(batch);
    assert_eq!(gatherer.spill.used(), 0, "the files are gone with their batch");
}

///
#[tokio::test]
async fn what_never_happened_leaves_the_disk_at_once() {
    let stopped = || Event::TableStopped { table: name(), error: Error::ReceiverGone, by_change: false };
    for (end, left) in [(Event::Rollback, 0), (stopped(), 0), (truncate(), 2)] {
        let mut gatherer = gatherer();
        gatherer.add(row());
        gatherer.make_room().await.expect("room on disk");
        gatherer.add(end);
        assert_eq!(gatherer.spill.used(), 0);
        gatherer.add(boundary(7));
        assert_eq!(changes(&gatherer.cut()).len(), left);
    }
}

#[test]
fn a_change_comes_between_the_rows_and_each_row_in_the_shape_of_its_time() {
    let mut gatherer = gatherer();
    let (after, change) = with_new_column();
    for event in [row(), change, row_of(&after), boundary(7)] {
        gatherer.add(event);
    }
    let batch = gatherer.cut();
    assert_eq!(changes(&batch), ["row of id", "add applied", "row of id a"]);
    assert_eq!(batch.rows, 2);
    // The next row comes in another batch, in the same shape.
    gatherer.add(row_of(&after));
    gatherer.add(boundary(9));
    assert_eq!(changes(&gatherer.cut()), ["row of id a"]);
}

/// PostgreSQL: changes are part of their transactions.
#[test]
fn a_change_that_is_rolled_back_never_was() {
    let mut gatherer = gatherer();
    let (_, change) = with_new_column();
    for event in [change, Event::Rollback, row(), boundary(7)] {
        gatherer.add(event);
    }
    assert_eq!(changes(&gatherer.cut()), ["row of id"]);
}

#[test]
fn rows_that_do_not_fit_stop_their_table() {
    let mut gatherer = gatherer();
    gatherer.add(row_of(&table(&[("id", LakeType::Integer)])));
    gatherer.add(boundary(7));
    let batch = gatherer.cut();
    assert!(changes(&batch).is_empty());
    assert!(matches!(&batch.leaving[&name()].why, Left::Stopped(Error::Table { .. })));
}

#[test]
fn a_table_that_waits_holds_the_ledger_and_nobody_else() {
    let mut gatherer = following(&[(ChangeKind::Widen, ChangePolicy::Hold)], HashMap::new());
    let (after, change) = with_new_column();
    for event in [change, row_of(&after), boundary(7), widened(&after), Event::Truncate(other())] {
        gatherer.add(event);
    }
    for event in [row_of(&after), boundary(9), Event::Truncate(other()), boundary(11)] {
        gatherer.add(event);
    }
    let batch = gatherer.cut();
    assert_eq!(changes(&batch), ["add applied", "row of id a"], "nothing from the change on");
    assert_eq!(batch.tables[&other()].len(), 4);
    assert_eq!((&batch.position, &batch.durable), (&Some(Position::Lsn(11)), &Some(Position::Lsn(7))));
    let leaving = &batch.leaving[&name()];
    assert_eq!(leaving.position, Position::Lsn(7));
    let Left::Waiting { record, .. } = &leaving.why else { panic!("{leaving:?}") };
    assert!(gatherer.asks() && !gatherer.is_overtaken());
    gatherer.add(boundary(13));
    assert_eq!(gatherer.cut().durable, None, "still held");

    let decided = |change| Decided {
        change,
        table: name().to_string(),
        verdict: Verdict::Approve,
        by: "ann@a".into(),
        at: DateTime::UNIX_EPOCH,
    };
    gatherer.decided(&decided(Uuid::from_u128(1)));
    assert!(!gatherer.is_overtaken(), "a decision about something else");
    gatherer.decided(&decided(record.id));
    assert!(gatherer.is_overtaken(), "the log is to be read again from 7 on");

    // The next attempt knows the decision.
    let verdicts = HashMap::from([(record.id, Verdict::Approve)]);
    let mut gatherer = following(&[(ChangeKind::Widen, ChangePolicy::Hold)], verdicts);
    let (after, change) = with_new_column();
    for event in [change, widened(&after), boundary(9)] {
        gatherer.add(event);
    }
    let batch = gatherer.cut();
    assert_eq!(changes(&batch), ["add applied", "widen approved"]);
    assert_eq!(batch.durable, Some(Position::Lsn(9)));
}

#[test]
fn a_table_that_waits_and_then_stops_is_read_no_further_and_releases_the_ledger() {
    let mut gatherer = following(&[(ChangeKind::Widen, ChangePolicy::Hold)], HashMap::new());
    let (after, change) = with_new_column();
    for event in [change, boundary(7), widened(&after), boundary(9)] {
        gatherer.add(event);
    }
    gatherer.cut();
    gatherer.add(Event::TableStopped { table: name(), error: Error::ReceiverGone, by_change: false });
    gatherer.add(boundary(11));
    let batch = gatherer.cut();
    assert!(matches!(batch.leaving[&name()].why, Left::Stopped(_)));
    assert!(gatherer.is_overtaken());
    assert_eq!(batch.durable, None, "this attempt can't know what else it missed");
}

#[test]
fn a_held_change_is_made_good_between_transactions() {
    let policies = [(ChangeKind::Add, ChangePolicy::Hold)];
    let mut gatherer = following(&policies, HashMap::new());
    let (after, change) = with_new_column();
    gatherer.add(change);
    gatherer.add(boundary(7));
    let batch = gatherer.cut();
    assert_eq!(changes(&batch), ["add held"]);
    assert_eq!(batch.durable, Some(Position::Lsn(7)), "it holds nobody");
    assert!(gatherer.asks());
    let change = match &batch.tables[&name()][..] {
        [TableChange::Evolve(evolution)] => evolution.record.id,
        other => panic!("{other:?}"),
    };
    let decided = Decided {
        change,
        table: name().to_string(),
        verdict: Verdict::Approve,
        by: "ann@a".into(),
        at: DateTime::UNIX_EPOCH,
    };
    // In the middle of a transaction it has to wait for the end.
    gatherer.add(row_of(&after));
    gatherer.decided(&decided);
    assert!(changes(gatherer.complete()).is_empty());
    gatherer.add(boundary(9));
    assert_eq!(changes(&gatherer.cut()), ["row of id a", "add approved"]);
    assert!(!gatherer.asks());
    gatherer.decided(&decided);
    assert!(gatherer.cut().is_empty(), "once");

    // While nothing comes, at once and as of where the log was read to.
    let mut gatherer = following(&policies, HashMap::new());
    let (_, change) = with_new_column();
    gatherer.add(change);
    gatherer.add(boundary(7));
    gatherer.cut();
    gatherer.decided(&decided);
    let batch = gatherer.cut();
    assert_eq!((changes(&batch), batch.position), (vec!["add approved".to_owned()], Some(Position::Lsn(7))));

    // And right behind it where the decision is known when the change comes by.
    let mut gatherer = following(&policies, HashMap::from([(decided.change, Verdict::Reject)]));
    let (after, change) = with_new_column();
    for event in [change, row_of(&after), boundary(7)] {
        gatherer.add(event);
    }
    assert_eq!(changes(&gatherer.cut()), ["add held", "add rejected", "row of id"]);
}

#[test]
fn a_truncate_goes_by_its_policy() {
    for (policy, expected) in [
        (ChangePolicy::Apply, &["row of id", "truncate", "truncate applied", "row of id"][..]),
        (ChangePolicy::Keep, &["row of id", "row of id", "truncate kept", "row of id"]),
        (ChangePolicy::Fail, &["row of id"]),
    ] {
        let mut gatherer = following(&[(ChangeKind::Truncate, policy)], HashMap::new());
        for event in [row(), boundary(7), row(), truncate(), boundary(9), row(), boundary(11)] {
            gatherer.add(event);
        }
        let batch = gatherer.cut();
        assert_eq!(changes(&batch), expected, "{policy}");
        assert_eq!(batch.leaving.len(), usize::from(policy == ChangePolicy::Fail));
        for leaving in batch.leaving.values() {
            assert_eq!(leaving.position, Position::Lsn(7));
            assert!(matches!(&leaving.why, Left::Refused { record, .. } if record.place == "pg:0/9"));
        }
    }
}

#[test]
fn a_table_that_is_dropped_goes_by_its_policy_and_its_last_commit_says_so() {
    let dropped =
        || Event::TableDropped { table: name(), statement: Some("DROP".into()), place: "place".into(), at: None };
    for (policy, expected, position) in [
        (ChangePolicy::Keep, &["row of id", "drop_table kept"][..], 9),
        (ChangePolicy::Apply, &["truncate", "drop_table applied"], 9),
        (ChangePolicy::Fail, &[], 7),
    ] {
        let mut gatherer = following(&[(ChangeKind::DropTable, policy)], HashMap::new());
        for event in [boundary(7), row(), dropped(), boundary(9), row(), boundary(11)] {
            gatherer.add(event);
        }
        let batch = gatherer.cut();
        assert_eq!(changes(&batch), expected, "{policy}");
        let leaving = &batch.leaving[&name()];
        assert_eq!(leaving.position, Position::Lsn(position));
        assert_eq!(matches!(leaving.why, Left::Dropped { .. }), policy != ChangePolicy::Fail);
        assert_eq!(batch.durable, Some(Position::Lsn(11)));
    }
}

#[test]
fn only_tables_that_nobody_knows_turn_up() {
    let appeared = |table: TableName| Event::TableAppeared { table, statement: None, place: "place".into(), at: None };
    let mut gatherer = gatherer();
    for table in [name(), TableName::new("booking", "stopped"), TableName::new("booking", "new")] {
        gatherer.add(appeared(table));
    }
    assert_eq!(gatherer.take_appeared(), [(TableName::new("booking", "new"), "place".to_owned())]);
    gatherer.add(Event::TableDropped { table: name(), statement: None, place: "place".into(), at: None });
    gatherer.add(boundary(7));
    gatherer.add(appeared(name()));
    assert_eq!(gatherer.take_appeared().len(), 1, "dropped and created again");
}

#[test]
fn a_table_that_the_lake_lost_is_gathered_no_more() {
    let mut gatherer = following(&[(ChangeKind::Widen, ChangePolicy::Hold)], HashMap::new());
    let (after, change) = with_new_column();
    for event in [change, boundary(7), widened(&after), boundary(9)] {
        gatherer.add(event);
    }
    gatherer.lost(&name());
    let batch = gatherer.cut();
    assert!(batch.leaving.is_empty() && changes(&batch).is_empty());
    assert!(gatherer.is_overtaken(), "what it held up is read again without it");
}
