//! A change of a table's schema: what the source says, and what it comes to in the lake.
//!
//! A [`SchemaChange`] stands in the stream of events at its exact place: rows before it have the schema `before`, rows
//! after it `after`. Its steps turn one into the other. What of it the lake does is decided by policy
//! ([`super::decision`]); the result is an [`Evolution`], a list of operations that leave every row where it is.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decision::ASIDE;
use super::{Column, LakeType, Shape, TableName, TableSchema};
use crate::config::ChangeKind;

/// What old rows have in a column that is new.
#[derive(Clone, Debug)]
pub enum Fill {
    Null,
    /// This value, an array of one row in the column's lake type.
    Value(ArrayRef),
    /// Each row may have another, or the log does not tell which; why, in words.
    Unknown(String),
}

impl PartialEq for Fill {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Value(ours), Self::Value(theirs)) => ours.to_data() == theirs.to_data(),
            (Self::Unknown(ours), Self::Unknown(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

/// One step of a schema change. Columns are named as they are at that step: after the steps before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Add {
        column: Column,
        fill: Fill,
    },
    Drop {
        column: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// The lake type grows; every old value is a value of the new type.
    Widen {
        column: String,
        from: LakeType,
        to: Column,
    },
    /// The source declares it otherwise, and the lake holds both alike (`varchar(10)` to `varchar(20)`).
    Redeclare {
        column: String,
        to: Column,
    },
    /// The type changes in a way that old values do not survive unseen; or values changed that the log does not tell.
    Change {
        column: String,
        how: String,
    },
    /// What identifies a row.
    Key {
        from: Vec<String>,
        to: Vec<String>,
    },
}

impl Step {
    pub fn kind(&self) -> ChangeKind {
        match self {
            // What the old rows hold is not known: no operation on the lake's columns makes it right.
            Self::Add { fill: Fill::Unknown(_), .. } | Self::Change { .. } => ChangeKind::Change,
            Self::Add { .. } => ChangeKind::Add,
            Self::Drop { .. } => ChangeKind::Drop,
            Self::Rename { .. } => ChangeKind::Rename,
            Self::Widen { .. } | Self::Redeclare { .. } => ChangeKind::Widen,
            Self::Key { .. } => ChangeKind::Key,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { column, fill } => {
                write!(f, "column `{}` ({}) is new", column.name, column.source_type)?;
                match fill {
                    Fill::Null => Ok(()),
                    Fill::Value(value) => write!(f, ", with {} in the old rows", in_words(value)),
                    Fill::Unknown(why) => write!(f, ", and what old rows hold is not known: {why}"),
                }
            }
            Self::Drop { column } => write!(f, "column `{column}` is gone"),
            Self::Rename { from, to } => write!(f, "column `{from}` is now `{to}`"),
            Self::Widen { column, from, to } => {
                write!(f, "column `{column}` grows to {} ({from} to {} in the lake)", to.source_type, to.lake_type)
            }
            Self::Redeclare { column, to } => write!(f, "column `{column}` is declared {}", to.source_type),
            Self::Change { column, how } => write!(f, "column `{column}`: {how}"),
            Self::Key { from, to } => write!(f, "the key was ({}) and is ({})", from.join(", "), to.join(", ")),
        }
    }
}

/// The one value of an array, for people.
fn in_words(value: &ArrayRef) -> String {
    arrow::util::display::array_value_to_string(value, 0)
        .map_or_else(|_| "a value".to_owned(), |text| format!("`{text}`"))
}

/// What a source says. See the module text.
#[derive(Clone, Debug)]
pub struct SchemaChange {
    pub table: TableName,
    pub before: Arc<TableSchema>,
    pub after: Arc<TableSchema>,
    /// Never empty.
    pub steps: Vec<Step>,
    /// The DDL's text, where the log tells it.
    pub statement: Option<String>,
    /// Where in the log; the same whenever this place is read. Part of the change's id.
    pub place: String,
    /// Tells changes of one table at the same place apart.
    pub ordinal: u32,
    /// When, by the source's clock.
    pub at: Option<DateTime<Utc>>,
}

/// What the source knows about a change beyond the two schemas.
pub struct Hints<'a> {
    /// Columns of `before` and what they are called in `after`; all others keep their names.
    pub renamed: &'a [(String, String)],
    /// What old rows hold in a column that is new.
    pub fill: &'a dyn Fn(&Column) -> Fill,
    /// Why values of a column that is in both (named as after) may differ from what the log told; `None` when they do not.
    pub rewritten: &'a dyn Fn(&Column) -> Option<String>,
}

/// The steps that turn `before` into `after`; none where both are alike.
pub fn steps_between(before: &TableSchema, after: &TableSchema, hints: &Hints<'_>) -> Vec<Step> {
    let new_name = |name: &str| {
        let renamed = hints.renamed.iter().find(|(from, _)| from == name);
        renamed.map_or_else(|| name.to_owned(), |(_, to)| to.clone())
    };
    let mut steps = Vec::new();
    let old: Vec<(&Column, String)> = before.columns.iter().map(|column| (column, new_name(&column.name))).collect();
    for (column, name) in &old {
        if after.column_index(name).is_none() {
            steps.push(Step::Drop { column: column.name.clone() });
        }
    }
    steps.extend(rename_steps(&old, after));
    for (column, name) in &old {
        let Some(now) = after.column_index(name).map(|index| &after.columns[index]) else { continue };
        if let Some(how) = (hints.rewritten)(now) {
            steps.push(Step::Change { column: now.name.clone(), how });
        } else if column.lake_type != now.lake_type {
            steps.push(if widens(column.lake_type, now.lake_type) {
                Step::Widen { column: now.name.clone(), from: column.lake_type, to: now.clone() }
            } else {
                Step::Change {
                    column: now.name.clone(),
                    how: format!(
                        "{} becomes {} ({} to {} in the lake)",
                        column.source_type, now.source_type, column.lake_type, now.lake_type
                    ),
                }
            });
        } else if column.source_type != now.source_type {
            steps.push(Step::Redeclare { column: now.name.clone(), to: now.clone() });
        }
    }
    for column in &after.columns {
        if !old.iter().any(|(_, name)| *name == column.name) {
            steps.push(Step::Add { column: column.clone(), fill: (hints.fill)(column) });
        }
    }
    let key = |schema: &TableSchema| -> Vec<String> {
        schema.key.iter().map(|&index| schema.columns[index].name.clone()).collect()
    };
    let kept: Vec<String> = key(before).iter().map(|name| new_name(name)).collect();
    if kept != key(after) || before.identity != after.identity {
        steps.push(Step::Key { from: key(before), to: key(after) });
    }
    steps
}

/// Renames in an order in which none meets a name that is still taken; names that are exchanged go by way of a third.
fn rename_steps(old: &[(&Column, String)], after: &TableSchema) -> Vec<Step> {
    let mut left: Vec<(String, String)> = old
        .iter()
        .filter(|(column, name)| column.name != *name && after.column_index(name).is_some())
        .map(|(column, name)| (column.name.clone(), name.clone()))
        .collect();
    let mut steps = Vec::new();
    while !left.is_empty() {
        let free = left.iter().position(|(_, to)| !left.iter().any(|(from, _)| from == to));
        match free {
            Some(index) => {
                let (from, to) = left.remove(index);
                steps.push(Step::Rename { from, to });
            }
            None => {
                let aside = format!("{}{ASIDE}", left[0].0);
                steps.push(Step::Rename { from: left[0].0.clone(), to: aside.clone() });
                left[0].0 = aside;
            }
        }
    }
    steps
}

/// Whether every value of `from` is one of `to`, and re-encoding it needs no more than a cast.
pub fn widens(from: LakeType, to: LakeType) -> bool {
    use LakeType::{Byte, Decimal, Double, Float, Integer, Long, Short};
    let whole_digits = |lake_type| match lake_type {
        Byte => Some(3),
        Short => Some(5),
        Integer => Some(10),
        Long => Some(19),
        _ => None,
    };
    match (from, to) {
        (Byte, Short | Integer | Long) | (Short, Integer | Long) | (Integer, Long) | (Float, Double) => true,
        (Byte | Short | Integer, Double) | (Byte | Short, Float) => true,
        (Decimal { precision, scale }, Decimal { precision: wider, scale: finer }) => {
            finer >= scale && wider - finer >= precision - scale
        }
        (whole, Decimal { precision, scale }) => {
            whole_digits(whole).is_some_and(|digits| u32::from(precision - scale) >= digits)
        }
        _ => false,
    }
}

impl SchemaChange {
    /// Stable: the same each time this change is read, and no other's.
    pub fn id(&self, source: &str) -> Uuid {
        change_id(source, &self.table, &self.place, self.ordinal)
    }

    /// The kinds of its steps, each once.
    pub fn kinds(&self) -> Vec<ChangeKind> {
        let mut kinds: Vec<ChangeKind> = self.steps.iter().map(Step::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// See [`SchemaChange::id`]; also of what happens to whole tables.
pub fn change_id(source: &str, table: &TableName, place: &str, ordinal: u32) -> Uuid {
    let name = [source, &table.schema, &table.table, place, &ordinal.to_string()].join("\u{0}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// One operation on the columns of a lake table. Rows stay where they are.
#[derive(Clone, Debug, PartialEq)]
pub enum LakeOp {
    /// A new last column; `None` is NULL in every row.
    Add {
        column: Column,
        fill: Option<OneValue>,
    },
    Drop {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Widen {
        name: String,
        to: LakeType,
    },
}

/// An array of one row.
#[derive(Clone, Debug)]
pub struct OneValue(pub ArrayRef);

impl PartialEq for OneValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_data() == other.0.to_data()
    }
}

/// What the lake does about a change: the shape that the table has afterwards and the operations that lead there, in
/// order. None of them when only the table's metadata changes.
#[derive(Clone, Debug)]
pub struct Evolution {
    pub shape: Arc<Shape>,
    pub ops: Vec<LakeOp>,
    pub record: ChangeRecord,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Applied,
    /// A dropped column that stays in the lake, a renamed one that keeps its name there.
    Kept,
    Ignored,
    Held,
    /// A held change was approved, or rejected.
    Approved,
    Rejected,
    Refused,
    /// The table is loaded again: with the columns and values that its source has then.
    Resync,
}

/// A change as history and notices tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    pub id: Uuid,
    pub table: String,
    pub place: String,
    pub at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    pub before: Vec<ColumnView>,
    pub after: Vec<ColumnView>,
    pub steps: Vec<StepRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub kind: ChangeKind,
    /// The column as it was called before, and afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    pub description: String,
    pub outcome: Outcome,
}

/// A column for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnView {
    pub name: String,
    pub source_type: String,
    pub lake_type: String,
    pub key: bool,
}

impl ColumnView {
    pub fn all(schema: &TableSchema) -> Vec<Self> {
        let view = |(index, column): (usize, &Column)| Self {
            name: column.name.clone(),
            source_type: column.source_type.clone(),
            lake_type: column.lake_type.to_string(),
            key: schema.is_key(index),
        };
        schema.columns.iter().enumerate().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Policy, RowIdentity};
    use arrow::array::Int32Array;

    fn column(name: &str, source_type: &str, lake_type: LakeType) -> Column {
        Column { name: name.into(), source_type: source_type.into(), lake_type, nullable: true, policy: Policy::Null }
    }

    fn table(columns: Vec<Column>) -> TableSchema {
        TableSchema {
            name: TableName::new("shop", "goods"),
            columns,
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        }
    }

    fn steps(
        before: &[(&str, &str, LakeType)],
        after: &[(&str, &str, LakeType)],
        renamed: &[(&str, &str)],
    ) -> Vec<String> {
        let of = |columns: &[(&str, &str, LakeType)]| {
            table(columns.iter().map(|(name, declared, lake)| column(name, declared, *lake)).collect())
        };
        let renamed: Vec<(String, String)> = renamed.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let seven = |_: &Column| Fill::Value(Arc::new(Int32Array::from(vec![7])));
        let hints = Hints { renamed: &renamed, fill: &seven, rewritten: &|_| None };
        steps_between(&of(before), &of(after), &hints).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_difference_becomes_a_step() {
        use LakeType::{Integer, Long, String, Timestamp};
        let before = [
            ("id", "int", Integer),
            ("a", "int", Integer),
            ("b", "varchar(10)", String),
            ("gone", "int", Integer),
            ("t", "int", Integer),
        ];
        let after = [
            ("id", "int", Integer),
            ("c", "bigint", Long),
            ("b", "varchar(20)", String),
            ("t", "timestamp", Timestamp),
            ("new", "int", Integer),
        ];
        assert_eq!(
            steps(&before, &after, &[("a", "c")]),
            [
                "column `gone` is gone",
                "column `a` is now `c`",
                "column `c` grows to bigint (integer to long in the lake)",
                "column `b` is declared varchar(20)",
                "column `t`: int becomes timestamp (integer to timestamp in the lake)",
                "column `new` (int) is new, with `7` in the old rows",
            ]
        );
        assert!(steps(&before, &before, &[]).is_empty());
    }

    #[test]
    fn exchanged_names_go_by_way_of_a_third() {
        use LakeType::Integer;
        let columns = [("id", "int", Integer), ("a", "int", Integer), ("b", "int", Integer)];
        assert_eq!(
            steps(&columns, &columns, &[("a", "b"), ("b", "a")]),
            ["column `a` is now `a__lakeward_aside`", "column `b` is now `a`", "column `a__lakeward_aside` is now `b`"]
        );
        let after = [("id", "int", Integer), ("b", "int", Integer), ("c", "int", Integer)];
        assert_eq!(
            steps(&columns, &after, &[("a", "b"), ("b", "c")]),
            ["column `b` is now `c`", "column `a` is now `b`"]
        );
    }

    #[test]
    fn a_renamed_key_is_no_other_key() {
        use LakeType::Integer;
        assert_eq!(
            steps(&[("id", "int", Integer)], &[("no", "int", Integer)], &[("id", "no")]),
            ["column `id` is now `no`"]
        );
        let told = steps(&[("id", "int", Integer)], &[("no", "int", Integer)], &[]);
        assert!(told.contains(&"the key was (id) and is (no)".to_owned()), "{told:?}");
    }

    #[test]
    fn only_growing_types_widen() {
        use LakeType::{Double, Float, Integer, Long, Short};
        let decimal = |precision, scale| LakeType::Decimal { precision, scale };
        for (from, to) in [
            (Short, Long),
            (Float, Double),
            (decimal(10, 2), decimal(12, 2)),
            (decimal(10, 2), decimal(12, 4)),
            (Integer, decimal(12, 2)),
        ] {
            assert!(widens(from, to), "{from} to {to}");
        }
        for (from, to) in [
            (Long, Integer),
            (Long, Double),
            (Integer, Float),
            (decimal(10, 2), decimal(10, 4)),
            (Integer, decimal(11, 2)),
        ] {
            assert!(!widens(from, to), "{from} to {to}");
        }
    }

    #[test]
    fn the_id_of_a_change_is_stable_and_its_own() {
        let name = TableName::new("shop", "goods");
        let id = change_id("a", &name, "0-1-7", 0);
        assert_eq!(id, change_id("a", &name, "0-1-7", 0));
        assert_ne!(id, change_id("a", &name, "0-1-7", 1));
        assert_ne!(id, change_id("a", &name, "0-1-8", 0));
    }
}
