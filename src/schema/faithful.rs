//! Values that the lake cannot hold as they are: what is done with them, and how they are counted.
//!
//! A zero date, an infinity, a NaN in a decimal column, a year beyond 9999 have no faithful form in the lake's type. Each
//! column has a [`Policy`](super::Policy) for them; whichever it is, nothing happens unseen: every such value is noted as an
//! [`Unfaithful`], travels with its row, and is counted when the row's batch is committed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::TableSchema;

/// Why a value has no faithful form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A date that no calendar has: `0000-00-00`, `2024-02-31`.
    ImpossibleDate,
    /// Beyond what the lake type can hold: a year before 1 or after 9999, an infinity, a number with too many digits.
    OutOfRange,
    /// NaN in a decimal column.
    NotANumber,
    /// Bytes that are not valid in the column's character set.
    BrokenText,
    /// An array of several dimensions, or one that does not begin at 1, in a column of plain lists.
    ArrayShape,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImpossibleDate => "zero or impossible date",
            Self::OutOfRange => "out of the lake type's range",
            Self::NotANumber => "not a number",
            Self::BrokenText => "text that is broken in its character set",
            Self::ArrayShape => "array of another shape than a plain list",
        })
    }
}

/// One value that has no faithful lake form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfaithful {
    /// In the batch.
    pub row: u32,
    pub column: u16,
    pub reason: Reason,
}

/// How many values of each column of a table had no faithful form, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueCounts(BTreeMap<String, BTreeMap<Reason, u64>>);

impl ValueCounts {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts the noted values of a batch of rows under this schema.
    pub fn add(&mut self, schema: &TableSchema, values: &[Unfaithful]) {
        for value in values {
            let name = schema.columns.get(usize::from(value.column)).map_or("", |column| column.name.as_str());
            if !self.0.contains_key(name) {
                self.0.insert(name.to_owned(), BTreeMap::new());
            }
            if let Some(reasons) = self.0.get_mut(name) {
                *reasons.entry(value.reason).or_default() += 1;
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (column, reason, count) in other.iter() {
            *self.0.entry(column.to_owned()).or_default().entry(reason).or_default() += count;
        }
    }

    /// (column, reason, how many)
    pub fn iter(&self) -> impl Iterator<Item = (&str, Reason, u64)> {
        self.0
            .iter()
            .flat_map(|(column, reasons)| reasons.iter().map(move |(reason, count)| (column.as_str(), *reason, *count)))
    }

    pub fn total(&self) -> u64 {
        self.iter().map(|(_, _, count)| count).sum()
    }
}
