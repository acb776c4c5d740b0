//! What a table looks like, in the source's words and in the lake's.
//!
//! A [`TableSchema`] is the one description every room shares: sources build it from the database's catalog, decode
//! rows against it, the lake turns it into Delta columns and writes it back into the Delta schema (each field keeps
//! the declared source type as metadata), so that a restart decodes with the schema the lake already has.
//!
//! Imports only `config` (contracts): it reads no database and no lake. What the types of each become is data, in
//! [`mapping`].

mod builder;
mod change;
mod decision;
mod evolution;
mod faithful;
mod lake_type;
mod layout;
pub mod mapping;
mod shape;

pub use crate::config::{ChangeKind, ValuePolicy as Policy};
pub use builder::{ColumnBuilder, GeometryColumn, ListColumn, RowBuilder, TypeMismatch};
pub use change::{Op, TableRows};
pub use decision::{Decision, RESYNC, Verdict, decide, kept_from_load, settle};
pub use evolution::{
    ChangeRecord, ColumnView, Evolution, Fill, Hints, LakeOp, OneValue, Outcome, SchemaChange, Step, StepRecord,
    change_id, steps_between, widens,
};
pub use faithful::{Reason, Unfaithful, ValueCounts};
pub use lake_type::{ElementType, LakeType, UnknownLakeType};
pub use layout::{ColumnDefault, Layout, LayoutColumn, PRIMARY, Period, UniqueKey};
pub use shape::{HeldAction, HeldChange, Origin, Shape};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::config::{Contract, WithoutKey};

/// A table's name at its source: `database.table` on MySQL and MariaDB, `schema.table` on PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// One column: how the source declares it and how the lake holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The source's own declaration (`int(10) unsigned`, `numeric(12,2)`); kept in the Delta field's metadata.
    pub source_type: String,
    pub lake_type: LakeType,
    /// Nullable in the lake. Only merge-key columns are not: a source's NOT NULL may hide values (zero dates) that
    /// have no lake form.
    pub nullable: bool,
    /// For values that `lake_type` cannot hold. From the contract, not kept in the lake.
    pub policy: Policy,
}

/// What tells the rows of a table apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowIdentity {
    /// The columns of [`TableSchema::key`].
    #[default]
    Key,
    /// Nothing: the table is a multiset of whole rows, and `key` is empty. Equal rows are interchangeable; a delete takes
    /// one of them. Deletes and updates need the row's full old image: an update comes as [`Op::UpdateOldKey`] with it and
    /// [`Op::UpdateNewKey`].
    WholeRow,
    /// Nothing, and rows are only ever added, as the contract promises: `key` is empty, an update or delete stops the
    /// table.
    AppendOnly,
}

/// A table's columns in order, its merge key and its partition columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    pub name: TableName,
    pub columns: Vec<Column>,
    /// Indexes into `columns`: the columns that identify a row in the log (primary key or replica identity).
    pub key: Vec<usize>,
    /// Indexes into `columns`, from the contract.
    pub partition_by: Vec<usize>,
    pub identity: RowIdentity,
}

impl TableSchema {
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Whether the log tells enough to follow its rows: `false` where nothing identifies them and their full images are
    /// not there either.
    pub fn can_be_followed(&self) -> bool {
        self.identity != RowIdentity::Key || !self.key.is_empty()
    }

    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    /// Applies what the team states in the table's contract. The error says what does not fit, in words.
    pub fn with_contract(mut self, contract: &Contract) -> Result<Self, String> {
        let name = self.name.to_string();
        let key_names: Vec<String> = self.key.iter().map(|&index| self.columns[index].name.clone()).collect();
        for excluded in &contract.exclude {
            if key_names.contains(excluded) {
                return Err(format!("contract of {name}: `exclude` names the key column `{excluded}`"));
            }
            let index = self
                .column_index(excluded)
                .ok_or_else(|| format!("contract of {name}: `exclude` names `{excluded}`, which is not a column"))?;
            self.columns.remove(index);
        }
        let indexes = |what: &str, names: &[String], columns: &[Column]| {
            names
                .iter()
                .map(|wanted| {
                    columns
                        .iter()
                        .position(|column| &column.name == wanted)
                        .ok_or_else(|| format!("contract of {name}: `{what}` names `{wanted}`, which is not a column"))
                })
                .collect::<Result<Vec<usize>, String>>()
        };
        if !contract.key.is_empty() && !key_names.is_empty() && contract.key != key_names {
            return Err(format!(
                "contract of {name}: `key` is {:?}, but the source identifies rows by {key_names:?}; remove `key`",
                contract.key
            ));
        }
        let key = if key_names.is_empty() { &contract.key } else { &key_names };
        self.key = indexes("key", key, &self.columns)?;
        self.partition_by = indexes("partition_by", &contract.partition_by, &self.columns)?;
        for (what, indexes) in [("key", &self.key), ("partition_by", &self.partition_by)] {
            if let Some(nested) = indexes
                .iter()
                .map(|index| &self.columns[*index])
                .find(|column| matches!(column.lake_type, LakeType::Array(_) | LakeType::Geometry))
            {
                return Err(format!(
                    "contract of {name}: `{what}` names `{}`, which is {} in the lake; only plain types are possible there",
                    nested.name, nested.lake_type
                ));
            }
        }
        if self.partition_by.len() == self.columns.len() && !self.columns.is_empty() {
            return Err(format!("contract of {name}: `partition_by` leaves no column for the data files"));
        }
        self.identity = match (self.key.is_empty(), contract.without_key) {
            (false, _) => RowIdentity::Key,
            (true, WithoutKey::WholeRow) => RowIdentity::WholeRow,
            (true, WithoutKey::Append) => RowIdentity::AppendOnly,
        };
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.nullable = !self.key.contains(&index);
        }
        self.with_policies(contract)
    }

    /// Takes only the contract's value policies: they are not part of what the lake keeps.
    pub fn with_policies(mut self, contract: &Contract) -> Result<Self, String> {
        for column in &mut self.columns {
            column.policy = contract.value_policy_of(&column.name);
        }
        for name in contract.value_policies.keys().chain(contract.types.keys()) {
            if self.column_index(name).is_none() && !contract.exclude.contains(name) {
                return Err(format!("contract of {}: `{name}` is not a column", self.name));
            }
        }
        Ok(self)
    }

    /// Two columns that readers of the lake could not tell apart: Delta's column names ignore case (M-26).
    pub fn same_name(&self) -> Option<(&str, &str)> {
        let mut seen: HashMap<String, &str> = HashMap::with_capacity(self.columns.len());
        self.columns.iter().find_map(|column| {
            let before = seen.insert(column.name.to_lowercase(), &column.name)?;
            Some((before, column.name.as_str()))
        })
    }

    /// The Arrow schema of decoded rows and of the Parquet files.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.lake_type.arrow(), column.nullable))
            .collect();
        Arc::new(Schema::new(fields))
    }
}
