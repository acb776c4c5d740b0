//! What a statement would do to a table, before anybody runs it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::schema::{SchemaChange, Step, TableName, TableSchema};

/// The answer of [`super::Source::foretell`].
#[derive(Debug)]
pub enum Foretold {
    /// The statement leaves everything as it is that the lake has of the table.
    Nothing,
    Change {
        change: Box<SchemaChange>,
        /// What is not certain about it before the statement runs, in words.
        notes: Vec<String>,
    },
    /// All rows go.
    Truncate,
    /// The table goes.
    Drop,
    /// The table gets another name: under its old one it is gone.
    Rename { to: TableName },
    /// What it does can't be told from its text and the catalog; why, in words.
    Unclear(String),
    /// The log would not tell what becomes of the table's rows; why, in words.
    Untold(String),
    /// The table could not be followed any more, whatever the policies are; why, in words.
    Stops(String),
    /// The statement is not about this table, or the server would refuse it; why, in words.
    Misfit(String),
}

impl Foretold {
    /// These steps, if there are any.
    pub fn of(
        before: &TableSchema,
        after: &TableSchema,
        steps: Vec<Step>,
        statement: &str,
        notes: Vec<String>,
    ) -> Self {
        if steps.is_empty() {
            return Self::Nothing;
        }
        let change = Box::new(SchemaChange {
            table: before.name.clone(),
            before: Arc::new(before.clone()),
            after: Arc::new(after.clone()),
            steps,
            statement: Some(statement.to_owned()),
            place: "plan".to_owned(),
            ordinal: 0,
            at: None,
        });
        Self::Change { change, notes }
    }
}

/// The schema without the columns that the lake leaves out by policy.
pub fn without(mut schema: TableSchema, ignored: &BTreeSet<String>) -> TableSchema {
    let name_of = |schema: &TableSchema, index: &usize| schema.columns[*index].name.clone();
    let key: Vec<String> = schema.key.iter().map(|index| name_of(&schema, index)).collect();
    let partition_by: Vec<String> = schema.partition_by.iter().map(|index| name_of(&schema, index)).collect();
    schema.columns.retain(|column| !ignored.contains(&column.name));
    let indexes = |names: &[String]| names.iter().filter_map(|name| schema.column_index(name)).collect();
    (schema.key, schema.partition_by) = (indexes(&key), indexes(&partition_by));
    schema
}
