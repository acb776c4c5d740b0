//! `[schema_changes]`: what becomes of each kind of schema change, in config.toml for all tables and in a contract for one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::reader::TableReader;

/// What a policy is stated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A new column.
    Add,
    /// A column that is gone.
    Drop,
    /// A column that has another name.
    Rename,
    /// A type that grows: every old value is one of the new type.
    Widen,
    /// Any other change of a type or of values that the log does not tell.
    Change,
    /// What identifies a row.
    Key,
    /// All rows of the table are gone.
    Truncate,
    /// The table is gone.
    DropTable,
}

impl ChangeKind {
    pub const ALL: [Self; 8] =
        [Self::Add, Self::Drop, Self::Rename, Self::Widen, Self::Change, Self::Key, Self::Truncate, Self::DropTable];

    /// Its key in `[schema_changes]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Drop => "drop",
            Self::Rename => "rename",
            Self::Widen => "widen",
            Self::Change => "change",
            Self::Key => "key",
            Self::Truncate => "truncate",
            Self::DropTable => "drop_table",
        }
    }

    /// What may be stated for it; the first is the default.
    pub fn possible(self) -> &'static [ChangePolicy] {
        use ChangePolicy::{Apply, Fail, Hold, Ignore, Keep};
        match self {
            Self::Add | Self::Rename => &[Apply, Hold, Ignore, Fail],
            Self::Drop => &[Keep, Apply, Hold, Ignore, Fail],
            // Values that do not fit can't be left out: the lake would be wrong.
            Self::Widen | Self::Change | Self::Key => &[Apply, Hold, Fail],
            Self::Truncate => &[Apply, Keep, Fail],
            Self::DropTable => &[Keep, Apply, Fail],
        }
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangePolicy {
    /// The lake follows.
    Apply,
    /// Waits for `lakeward schema approve`; the table goes on where that is right.
    Hold,
    /// The lake stays as it is.
    Ignore,
    /// The table stops.
    Fail,
    /// What is gone at the source stays in the lake.
    Keep,
}

impl ChangePolicy {
    /// Its word in `[schema_changes]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Hold => "hold",
            Self::Ignore => "ignore",
            Self::Fail => "fail",
            Self::Keep => "keep",
        }
    }
}

impl fmt::Display for ChangePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The policies that are stated; all others are the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangePolicies(BTreeMap<ChangeKind, ChangePolicy>);

impl ChangePolicies {
    pub fn of(&self, kind: ChangeKind) -> ChangePolicy {
        self.0.get(&kind).copied().unwrap_or(kind.possible()[0])
    }

    /// These, and `others` where these say nothing.
    pub fn or(&self, others: &Self) -> Self {
        let mut all = others.0.clone();
        all.extend(&self.0);
        Self(all)
    }

    pub fn stated(policies: &[(ChangeKind, ChangePolicy)]) -> Self {
        Self(policies.iter().copied().collect())
    }
}

/// Reads `[schema_changes]` of config.toml or of a contract.
pub(super) fn read_change_policies(root: &TableReader) -> ChangePolicies {
    let Some(table) = root.table("schema_changes") else { return ChangePolicies::default() };
    let mut policies = BTreeMap::new();
    for kind in ChangeKind::ALL {
        let possible = kind.possible();
        let words: Vec<String> = possible.iter().map(|policy| format!("\"{policy}\"")).collect();
        let expected = words.join(", ");
        let Some(found) = table.text(kind.key(), &expected) else { continue };
        match possible.iter().find(|policy| policy.to_string() == found.value) {
            Some(policy) => {
                policies.insert(kind, *policy);
            }
            None if found.value == "ignore" && possible.contains(&ChangePolicy::Hold) => {
                table.problem(kind.key(), "can't be ignored, for the lake would be wrong", &expected);
            }
            None => table.problem_near(kind.key(), &found.value, &expected, possible.iter().map(|policy| policy.key())),
        }
    }
    table.finish();
    ChangePolicies(policies)
}
