//! Loads in chunks: what a load begins with, and what tells its chunks apart.
//!
//! A chunk is a range of the key. Where it ends is found and compared by the database alone: only the database knows how it
//! orders texts, enums or NaN. To everybody else a bound is a text that is kept and given back. Inside it are values, not
//! SQL, for it comes back from the lake, where others may write: the literals are made anew, and quoted, each time.
//!
//! A bound also holds by what its columns were ordered (type family, collation). Once a column of the key is ordered
//! otherwise, "after this value" means other rows than before, and some would be in no chunk: such a bound is refused by
//! [`Error::BoundsVoid`], and the load begins anew at its first chunk. Which chunks a row was read in does not matter,
//! only that it was in one (docs/decisions/011-loads-beside-the-stream.md).

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Error, Position};
use crate::schema::{Layout, TableName, TableSchema, Unfaithful};

/// Where a load of a table begins: empty, at `position`; every change that `position` does not contain comes by the
/// stream.
#[derive(Clone, Debug)]
pub struct LoadStart {
    pub schema: Arc<TableSchema>,
    pub position: Position,
    /// How rows lie in the log at that position, for sources that tell.
    pub layout: Option<Arc<Layout>>,
    /// The planner's estimate, for progress.
    pub rows_estimate: Option<u64>,
}

/// A value of the key; see the module text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyBound(String);

/// A column's part of a bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPart {
    pub column: String,
    /// By what its values are ordered, in the source's words.
    pub order: String,
    pub value: String,
}

impl KeyBound {
    pub fn new(parts: &[BoundPart]) -> Self {
        let parts: Vec<[&str; 3]> = parts.iter().map(|part| [&*part.column, &*part.order, &*part.value]).collect();
        Self(serde_json::json!(parts).to_string())
    }

    /// `None` for a text that is no bound.
    pub fn parts(&self) -> Option<Vec<BoundPart>> {
        let parts: Vec<[String; 3]> = serde_json::from_str(&self.0).ok()?;
        Some(parts.into_iter().map(|[column, order, value]| BoundPart { column, order, value }).collect())
    }
}

impl std::fmt::Display for KeyBound {
    /// `column = value, …`, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = self.parts().unwrap_or_default();
        let parts: Vec<String> = parts.iter().map(|part| format!("{} = {}", part.column, part.value)).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Rows whose key is after `after` and not after `to`; open ends are `None`. Rows with a NULL in their key, which only a
/// contract's key allows, are in the first chunk: they can't be taken over, and must not be passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub after: Option<KeyBound>,
    pub to: Option<KeyBound>,
}

/// What comes of a chunk while it is read: its schema first, then its rows.
#[derive(Debug)]
pub enum ChunkEvent {
    Schema(Arc<TableSchema>),
    Rows(ChunkRows),
}

/// Rows, and those of their values that have no faithful lake form.
#[derive(Debug)]
pub struct ChunkRows {
    pub rows: RecordBatch,
    pub unfaithful: Vec<Unfaithful>,
}

/// A chunk that was read to its end.
#[derive(Clone, Debug)]
pub struct ChunkRead {
    /// As the catalog had it inside the chunk's transaction.
    pub schema: Arc<TableSchema>,
    /// No transaction that the chunk sees is beyond it.
    pub high: Position,
    pub rows: u64,
}

/// A column of the key beside a bound's value, both as SQL, and the operators that order it.
pub struct Beside {
    pub column: String,
    pub value: String,
    pub operators: Operators,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operators {
    pub less: String,
    pub at_most: String,
    pub equal: String,
    pub at_least: String,
    pub greater: String,
}

impl Operators {
    pub fn plain() -> Self {
        let [less, at_most, equal, at_least, greater] = ["<", "<=", "=", ">=", ">"].map(str::to_owned);
        Self { less, at_most, equal, at_least, greater }
    }
}

/// The condition that a row is after the bound. With a condition on the first column alone before it, so that an index can
/// be used by databases that don't look into the rest.
pub fn after(key: &[Beside]) -> String {
    let Some(first) = key.first() else { return "1 = 0".to_owned() };
    let inner = beyond(key, |operators| &operators.greater, |operators| &operators.greater);
    if key.len() == 1 {
        return inner;
    }
    format!("{} {} {} AND ({inner})", first.column, first.operators.at_least, first.value)
}

/// The condition that a row is at the bound or before it.
pub fn not_after(key: &[Beside]) -> String {
    let Some(first) = key.first() else { return "1 = 1".to_owned() };
    let inner = beyond(key, |operators| &operators.less, |operators| &operators.at_most);
    if key.len() == 1 {
        return inner;
    }
    format!("{} {} {} AND ({inner})", first.column, first.operators.at_most, first.value)
}

/// `a > 1 OR (a = 1 AND (b > 2 OR (b = 2 AND c > 3)))`, with `last` between the last column and its value.
fn beyond(
    key: &[Beside],
    strictly: impl Fn(&Operators) -> &String + Copy,
    last: impl Fn(&Operators) -> &String + Copy,
) -> String {
    let Some((first, rest)) = key.split_first() else { return String::new() };
    let Beside { column, value, operators } = first;
    if rest.is_empty() {
        return format!("{column} {} {value}", last(operators));
    }
    let rest = beyond(rest, strictly, last);
    format!("{column} {} {value} OR ({column} {} {value} AND ({rest}))", strictly(operators), operators.equal)
}

/// The parts of a bound, if it is one of a key with these columns and orders.
pub fn parts_of(table: &TableName, bound: &KeyBound, key: &[(&str, &str)]) -> Result<Vec<BoundPart>, Error> {
    let void = || Error::BoundsVoid { table: table.to_string() };
    let parts = bound.parts().ok_or_else(void)?;
    let known = parts.iter().map(|part| (part.column.as_str(), part.order.as_str()));
    if known.eq(key.iter().copied()) { Ok(parts) } else { Err(void()) }
}

/// A condition that people gave can't be used.
pub fn unusable_filter(table: &TableName, filter: &str, finding: String) -> Error {
    Error::Setting {
        subject: format!("condition `{filter}` on table {table}"),
        finding,
        remedy: "correct it: one SQL condition on the table's columns, as it would stand after WHERE".to_owned(),
    }
}

/// The condition alone between its parentheses, whatever comment it ends with.
pub fn enclosed(filter: &str) -> String {
    format!("({filter}\n)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(columns: &[(&str, &str)]) -> Vec<Beside> {
        let beside = |(column, value): &(&str, &str)| Beside {
            column: (*column).to_owned(),
            value: (*value).to_owned(),
            operators: Operators::plain(),
        };
        columns.iter().map(beside).collect()
    }

    #[test]
    fn a_chunk_is_a_range_of_the_whole_key() {
        let one = key(&[("a", "1")]);
        assert_eq!((after(&one), not_after(&one)), ("a > 1".to_owned(), "a <= 1".to_owned()));
        let three = key(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(after(&three), "a >= 1 AND (a > 1 OR (a = 1 AND (b > 2 OR (b = 2 AND (c > 3)))))");
        assert_eq!(not_after(&three), "a <= 1 AND (a < 1 OR (a = 1 AND (b < 2 OR (b = 2 AND (c <= 3)))))");
    }

    #[test]
    fn a_bound_survives_its_way_through_the_lake_and_is_void_for_another_key() {
        let part = |value: &str| BoundPart { column: "c".into(), order: "text".into(), value: value.into() };
        let bound = KeyBound::new(&[part("it's \"7\"\\ 🏨")]);
        let chunk = Chunk { after: Some(bound.clone()), to: None };
        let text = serde_json::to_string(&chunk).expect("writes");
        let back: Chunk = serde_json::from_str(&text).expect("reads");
        assert_eq!(back, chunk);
        assert_eq!(back.after.expect("kept").parts().expect("a bound"), [part("it's \"7\"\\ 🏨")]);

        let table = TableName::new("shop", "goods");
        assert!(parts_of(&table, &bound, &[("c", "text")]).is_ok());
        for other in [&[("c", "number")][..], &[("d", "text")], &[], &[("c", "text"), ("d", "text")]] {
            assert!(matches!(parts_of(&table, &bound, other), Err(Error::BoundsVoid { .. })), "{other:?}");
        }
    }
}
