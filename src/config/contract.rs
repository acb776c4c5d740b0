//! Table contracts: what the team states about a table that the database can't say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ChangePolicies, DuringSnapshot, WriteMode};

/// What becomes of a column's values that its lake type cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValuePolicy {
    /// NULL stands in the lake, the value is counted. Text with broken characters keeps the rest of it, with U+FFFD for
    /// each broken one.
    #[default]
    Null,
    /// The column is text in the lake and holds the source's own words, so that every value is faithful.
    String,
    /// The table stops at that row.
    Fail,
}

/// How a table is captured that neither the source nor `key` gives a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutKey {
    /// As a multiset of whole rows.
    #[default]
    WholeRow,
    /// Rows are only ever added.
    Append,
}

/// One `schemas/*.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// The source it is for; every source when `None`.
    pub source: Option<String>,
    pub table: String,
    /// Merge key, only where the source has none.
    pub key: Vec<String>,
    pub partition_by: Vec<String>,
    /// Columns that never reach the lake.
    pub exclude: Vec<String>,
    pub owners: Vec<String>,
    pub description: Option<String>,
    /// Column to Delta type, in the contract's spelling; whether the source's type can become it, the source says.
    pub types: BTreeMap<String, String>,
    /// MySQL's `tinyint(1)` columns are booleans.
    pub tinyint1_is_bool: bool,
    /// For columns that `value_policies` does not name.
    pub value_policy: ValuePolicy,
    pub value_policies: BTreeMap<String, ValuePolicy>,
    pub without_key: WithoutKey,
    pub during_snapshot: Option<DuringSnapshot>,
    pub write_mode: Option<WriteMode>,
    /// What its files come to when they are compacted.
    pub target_file_bytes: Option<u64>,
    /// For how long its versions stay readable.
    pub retention: Option<Duration>,
    /// `[schema_changes]`
    pub schema_changes: ChangePolicies,
}

impl Contract {
    /// The policy for values of this column that its lake type cannot hold.
    pub fn value_policy_of(&self, column: &str) -> ValuePolicy {
        self.value_policies.get(column).copied().unwrap_or(self.value_policy)
    }
}

/// All contracts of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contracts {
    contracts: Vec<Contract>,
}

impl Contracts {
    pub fn new(contracts: Vec<Contract>) -> Self {
        Self { contracts }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Contract> {
        self.contracts.iter()
    }

    /// What a table's contract states of something, if it does.
    pub fn stated<T>(&self, source: &str, table: &str, of: impl Fn(&Contract) -> Option<T>) -> Option<T> {
        self.get(source, table).and_then(of)
    }

    /// The contract of a table: one that names the source goes before one that does not.
    pub fn get(&self, source: &str, table: &str) -> Option<&Contract> {
        let matching = |contract: &&Contract| contract.table == table;
        self.contracts
            .iter()
            .filter(matching)
            .find(|contract| contract.source.as_deref() == Some(source))
            .or_else(|| self.contracts.iter().filter(matching).find(|contract| contract.source.is_none()))
    }
}
