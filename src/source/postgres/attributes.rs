//! A table's columns by PostgreSQL's own numbers.
//!
//! A column keeps its number (`pg_attribute.attnum`) whatever it is called and whatever its type becomes, and no number is
//! ever given twice. So numbers tell a renamed column from one that was dropped while another was added. The log has none:
//! they are read from the catalog, kept with the table's notes in the ledger, and compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::catalog::{CatalogTable, Missing};
use super::types::ResolvedType;
use crate::schema::{TableName, TableSchema};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// 0 where it is not known.
    pub number: i16,
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    #[serde(rename = "type")]
    pub found: ResolvedType,
    pub generated: bool,
    /// The log holds it.
    pub sent: bool,
    /// Left out by policy under an earlier name.
    #[serde(default)]
    pub left_out: bool,
}

/// All columns of a table at one place of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub oid: u32,
    /// The highest number that was ever given.
    pub width: i16,
    /// `pg_class.relreplident`
    pub identity: String,
    /// The columns of the key that `identity` names; of the primary key for `f`.
    pub key: Vec<String>,
    /// Of the table or its leaves, by oid; a rewrite makes another.
    pub files: BTreeMap<u32, u32>,
    /// By their numbers.
    pub columns: Vec<Attribute>,
}

/// A table as the catalog, or a DDL statement's message, describes it.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: TableName,
    pub attributes: Attributes,
    /// By number: what rows have that are older than the column.
    pub missing: BTreeMap<i16, Vec<Missing>>,
    /// Numbers of columns with a default of their own.
    pub has_default: BTreeSet<i16>,
    /// The publication lists the columns that it sends.
    pub listed: bool,
    pub published: bool,
    pub partitioned: bool,
    pub leaves: Vec<TableName>,
}

impl Attribute {
    pub fn has_type_of(&self, other: &Self) -> bool {
        (self.type_oid, self.typmod) == (other.type_oid, other.typmod)
    }
}

impl Attributes {
    pub fn named(&self, name: &str) -> Option<&Attribute> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn numbered(&self, number: i16) -> Option<&Attribute> {
        self.columns.iter().find(|column| number != 0 && column.number == number)
    }

    pub fn sent(&self) -> impl Iterator<Item = &Attribute> {
        self.columns.iter().filter(|column| column.sent)
    }

    /// Whether these are the columns of a table that has this schema in the lake, which may leave some out.
    pub fn fit(&self, schema: &TableSchema) -> bool {
        schema
            .columns
            .iter()
            .all(|column| self.named(&column.name).is_some_and(|own| own.sent && own.found.name == column.source_type))
    }

    /// Every number is known.
    pub fn numbers_known(&self) -> bool {
        self.columns.iter().all(|column| column.number != 0)
    }
}

impl From<&CatalogTable> for Description {
    fn from(table: &CatalogTable) -> Self {
        let columns = table.columns.iter().map(|column| Attribute {
            number: column.number,
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            found: column.found.clone(),
            generated: column.generated,
            sent: table.sends(column),
            left_out: false,
        });
        Self {
            name: table.name(),
            attributes: Attributes {
                oid: table.oid,
                width: table.width,
                identity: table.identity.clone(),
                key: table.key.clone(),
                files: table.files.clone(),
                columns: columns.collect(),
            },
            missing: table.columns.iter().map(|column| (column.number, column.missing.clone())).collect(),
            has_default: table.columns.iter().filter(|c| c.has_default).map(|column| column.number).collect(),
            listed: table.published.as_ref().is_some_and(|published| published.listed),
            published: table.published.is_some(),
            partitioned: table.kind == "p",
            leaves: table.leaves.iter().map(super::catalog::Leaf::name).collect(),
        }
    }
}
