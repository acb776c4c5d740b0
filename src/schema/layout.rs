//! How a table's rows lie in the source's log: the columns in their order there, with what the log itself may not say.
//!
//! MySQL's and MariaDB's logs name neither columns nor labels nor character sets unless told to, so rows can only be read
//! with the layout in force at their own position. The ledger keeps one version for each statement that changed it. This
//! type knows no database: it holds the catalog's words, and the source gives them their meaning.

use serde::{Deserialize, Serialize};

/// A table's columns, as the log numbers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// In the order of the catalog, invisible and generated ones among them.
    pub columns: Vec<LayoutColumn>,
    pub uniques: Vec<UniqueKey>,
    /// The table's default character set and collation: those of columns added without one of their own.
    pub charset: String,
    pub collation: String,
    /// Rows of the past are in the table too, told by the end of their period.
    #[serde(default)]
    pub period: Period,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutColumn {
    pub name: String,
    /// `int(10) unsigned`, `enum('a','b')`
    pub declaration: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    pub nullable: bool,
    #[serde(default)]
    pub default: ColumnDefault,
    /// Its value is computed from other columns.
    #[serde(default)]
    pub generated: bool,
    #[serde(default)]
    pub invisible: bool,
    #[serde(default)]
    pub auto_increment: bool,
}

/// What a row gets that was inserted without a value for the column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnDefault {
    /// None is declared: NULL, or an error, or what the type has for that.
    #[default]
    None,
    Constant(String),
    /// Computed for each row, or a constant that the catalog does not tell exactly.
    Computed,
}

/// A primary key or a unique index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    /// `PRIMARY` is the primary key.
    pub name: String,
    pub columns: Vec<String>,
    /// It covers only the beginning of some column, or an expression.
    #[serde(default)]
    pub partial: bool,
    /// Kept by the hash of its columns, in a column of its own that only the log has.
    #[serde(default)]
    pub hashed: bool,
}

pub const PRIMARY: &str = "PRIMARY";

/// Where a system-versioned table keeps the period of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// The table is not system-versioned.
    #[default]
    None,
    /// In two columns at the end of each row that no catalog lists.
    Implicit,
    /// In this column is the end.
    Column(String),
}

impl Layout {
    pub fn index(&self, name: &str) -> Option<usize> {
        // Column names compare without case on every server.
        let wanted = name.to_lowercase();
        self.columns.iter().position(|column| column.name.to_lowercase() == wanted)
    }

    pub fn column(&self, name: &str) -> Option<&LayoutColumn> {
        self.index(name).map(|index| &self.columns[index])
    }

    /// The columns that identify a row: those of the primary key, or of the first unique key, by name, that lets no two
    /// rows be equal. Empty when there is none.
    pub fn key(&self) -> Vec<&str> {
        let identifies = |unique: &&UniqueKey| {
            unique.name == PRIMARY
                || (!unique.partial
                    && unique.columns.iter().all(|name| self.column(name).is_some_and(|column| !column.nullable)))
        };
        let mut candidates: Vec<&UniqueKey> = self.uniques.iter().filter(identifies).collect();
        candidates.sort_by_key(|unique| (unique.name != PRIMARY, unique.name.to_lowercase()));
        let period_end = match &self.period {
            Period::Column(name) => Some(name.as_str()),
            _ => None,
        };
        candidates.first().map_or_else(Vec::new, |unique| {
            // The end of a period tells a row from its own past; among present rows it is always the same.
            unique.columns.iter().map(String::as_str).filter(|name| Some(*name) != period_end).collect()
        })
    }

    /// Columns that only the log has, behind all others: hashes of unique keys.
    pub fn hidden_hashes(&self) -> usize {
        self.uniques.iter().filter(|unique| unique.hashed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, nullable: bool) -> LayoutColumn {
        LayoutColumn {
            name: name.to_owned(),
            declaration: "int".to_owned(),
            charset: None,
            collation: None,
            nullable,
            default: ColumnDefault::default(),
            generated: false,
            invisible: false,
            auto_increment: false,
        }
    }

    fn unique(name: &str, columns: &[&str]) -> UniqueKey {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        UniqueKey { name: name.to_owned(), columns, partial: false, hashed: false }
    }

    /// K-1
    #[test]
    fn the_primary_key_goes_before_unique_keys_and_these_need_all_their_values() {
        let mut layout = Layout {
            columns: vec![column("a", true), column("b", false), column("c", false)],
            uniques: vec![unique("a_first", &["a"]), unique("c", &["c"]), unique("b", &["B"])],
            ..Layout::default()
        };
        assert_eq!(layout.key(), ["B"]);
        layout.uniques.push(unique(PRIMARY, &["c", "b"]));
        assert_eq!(layout.key(), ["c", "b"]);
        layout.period = Period::Column("b".to_owned());
        assert_eq!(layout.key(), ["c"]);
        layout.uniques.clear();
        assert!(layout.key().is_empty());
    }

    #[test]
    fn a_layout_survives_its_json() {
        let layout = Layout {
            columns: vec![LayoutColumn { default: ColumnDefault::Constant("7".to_owned()), ..column("a", false) }],
            uniques: vec![unique(PRIMARY, &["a"])],
            charset: "utf8mb4".to_owned(),
            collation: "utf8mb4_bin".to_owned(),
            period: Period::Column("row_end".to_owned()),
        };
        let text = serde_json::to_string(&layout).expect("serialisable");
        assert_eq!(serde_json::from_str::<Layout>(&text).expect("readable"), layout);
    }
}
