//! Samples of every kind of event: what `lakeward notify test` sends.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ledger::OutboxEntry;
use crate::schema::{ChangeKind, ChangeRecord, ColumnView, Outcome, StepRecord, TableName, change_id};

/// A sample of a kind. Always the same, but for what the caller says.
pub fn entry(kind: &str, source: &str, table: &str) -> OutboxEntry {
    let at = DateTime::<Utc>::from_timestamp(1_772_414_400, 0).unwrap_or_default();
    let name = table.split_once('.').map_or_else(|| TableName::new("", table), |(a, b)| TableName::new(a, b));
    let id = change_id(source, &name, kind, 0);
    let record = |statement: &str, after: Vec<ColumnView>, steps: Vec<StepRecord>| {
        Some(ChangeRecord {
            id,
            table: table.to_owned(),
            place: "mariadb:0-1-4711".to_owned(),
            at: Some(at),
            statement: Some(statement.to_owned()),
            before: vec![column("id", "bigint", "long", true), column("price", "int", "integer", false)],
            after,
            steps,
        })
    };
    let (record, lake_version, detail) = match kind {
        "schema.changed" => (
            record(
                "ALTER TABLE coupons ADD COLUMN grade varchar(20) DEFAULT 'bronze', RENAME COLUMN price TO amount",
                vec![
                    column("id", "bigint", "long", true),
                    column("amount", "int", "integer", false),
                    column("grade", "varchar(20)", "string", false),
                ],
                vec![
                    step(
                        ChangeKind::Add,
                        "grade",
                        None,
                        "column `grade` (varchar(20)) is new, with `bronze` in the old rows",
                        Outcome::Applied,
                    ),
                    step(
                        ChangeKind::Rename,
                        "price",
                        Some("amount"),
                        "column `price` is now `amount`",
                        Outcome::Applied,
                    ),
                ],
            ),
            Some(42),
            json!({}),
        ),
        "schema.held" => (
            record(
                "ALTER TABLE coupons DROP COLUMN price",
                vec![column("id", "bigint", "long", true)],
                vec![step(ChangeKind::Drop, "price", None, "column `price` is gone", Outcome::Held)],
            ),
            Some(42),
            json!({}),
        ),
        "schema.refused" => (
            record(
                "ALTER TABLE coupons MODIFY price date",
                vec![column("id", "bigint", "long", true), column("price", "date", "date", false)],
                vec![step(
                    ChangeKind::Change,
                    "price",
                    None,
                    "column `price`: int becomes date (integer to date in the lake)",
                    Outcome::Refused,
                )],
            ),
            None,
            json!({"reason": "the rows that the lake has can't be carried over", "remedy": "load the table again"}),
        ),
        "table.added" => (None, Some(0), json!({"rows": 1200})),
        "table.stopped" => {
            (None, None, json!({"reason": "its key is gone", "remedy": "give the table a key, then load it again"}))
        }
        "table.resynced" => (None, Some(43), json!({"reason": "the type of a column had changed"})),
        "value.policy_applied" => (None, Some(42), json!({"values": {"valid_until": {"impossible_date": 12}}})),
        "source.lagging" => (None, None, json!({"lag_seconds": 1200, "limit_seconds": 900})),
        _ => (None, None, Value::Object(serde_json::Map::new())),
    };
    OutboxEntry {
        id,
        kind: kind.to_owned(),
        at,
        source: source.to_owned(),
        table: (kind != "source.lagging").then(|| table.to_owned()),
        position: "mariadb:0-1-4711".to_owned(),
        record,
        lake_version,
        detail,
    }
}

/// As it is sent by `notify test`: happened just now, and no two of them have the same id.
pub fn fresh_entry(kind: &str, source: &str, table: &str) -> OutboxEntry {
    let now = Utc::now();
    let mut entry = OutboxEntry { id: Uuid::new_v4(), at: now, ..entry(kind, source, table) };
    if let Some(record) = &mut entry.record {
        record.at = Some(now);
    }
    entry
}

fn column(name: &str, source_type: &str, lake_type: &str, key: bool) -> ColumnView {
    ColumnView { name: name.to_owned(), source_type: source_type.to_owned(), lake_type: lake_type.to_owned(), key }
}

fn step(kind: ChangeKind, column: &str, new_name: Option<&str>, description: &str, outcome: Outcome) -> StepRecord {
    StepRecord {
        kind,
        column: Some(column.to_owned()),
        new_name: new_name.map(str::to_owned),
        description: description.to_owned(),
        outcome,
    }
}
