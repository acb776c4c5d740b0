//! Online schema changes: gh-ost and pt-online-schema-change (D-9).
//!
//! Both make a table beside the captured one, change that, copy all rows into it while they keep up with changes, and
//! then exchange the names in one `RENAME TABLE`. By what these tools promise, the new table has at that moment the rows of
//! the old one, with the defaults of columns that only it has; the captured table goes on under its name, with the other's
//! columns. A rename that does not look like theirs may bring any rows.

use std::collections::BTreeMap;

use crate::schema::{Layout, TableName};

use super::super::ddl::{self, Created};
use super::super::marker::Query;
use super::super::statement::Named;
use super::{Reader, spelling};

/// Names in MySQL and MariaDB have so many characters; tools cut longer ones.
const NAME_MAX: usize = 64;

/// A table that may take the place of a captured one.
pub(super) struct Ghost {
    /// How it is by the statements of this very log.
    pub layout: Layout,
    /// Columns that do not have the values of the captured table's columns of their name, and why.
    pub other: BTreeMap<String, String>,
}

/// The table that `_x_gho`, `_x_new`, `__x_new` is made for.
fn base(name: &str) -> Option<&str> {
    let rest = name.strip_prefix('_')?;
    rest.strip_suffix("_gho").or_else(|| rest.trim_start_matches('_').strip_suffix("_new"))
}

/// The table that another one of such a tool belongs to: its log, the old table, the new one.
fn belongs_to(name: &str) -> Option<&str> {
    if let Some(base) = base(name) {
        return Some(base);
    }
    let rest = name.strip_prefix('_')?;
    if let Some(base) = rest.strip_suffix("_ghc") {
        return Some(base);
    }
    if let Some(base) = rest.strip_suffix("_del") {
        // gh-ost's --timestamp-old-table
        let timestamped = base.rsplit_once('_').filter(|(_, time)| time.len() == 14);
        let timestamped = timestamped.filter(|(_, time)| time.bytes().all(|byte| byte.is_ascii_digit()));
        return Some(timestamped.map_or(base, |(base, _)| base));
    }
    rest.trim_start_matches('_').strip_suffix("_old")
}

fn same(base: &str, name: &str, table: &str) -> bool {
    base == table || (name.chars().count() == NAME_MAX && !base.is_empty() && table.starts_with(base))
}

/// Whether a table of this name takes the place of `table` at the end of an online schema change.
pub(super) fn replaces(name: &TableName, table: &TableName) -> bool {
    name.schema == table.schema && base(&name.table).is_some_and(|base| same(base, &name.table, &table.table))
}

impl Reader {
    /// Whether the table is only part of a captured table's online schema change.
    pub(super) fn is_helper(&self, name: &TableName) -> bool {
        let Some(base) = belongs_to(&name.table) else { return false };
        self.tables.iter().any(|(table, followed)| {
            !followed.gone && table.schema == name.schema && same(base, &name.table, &table.table)
        })
    }

    /// Remembers how a table begins that may take a captured one's place.
    pub(super) fn create_ghost(&mut self, name: &TableName, if_not_exists: bool, query: &Query<'_>) {
        let key = spelling(self.names_ignore_case, &name.schema, &name.table);
        let known = self.ghosts.remove(&key);
        if if_not_exists || !self.tables.keys().any(|table| replaces(name, table)) {
            // One that was there is as it was.
            self.ghosts.extend(known.map(|ghost| (key, ghost)));
            return;
        }
        let layout = match self.read(query, ddl::created) {
            Ok(Created::Of(layout)) => Some(layout),
            Ok(Created::Like(named)) => self.known_layout(&named, &query.schema),
            Err(_) => None,
        };
        self.ghosts.extend(layout.map(|layout| (key, Ghost { layout, other: BTreeMap::new() })));
    }

    fn known_layout(&self, named: &Named, default_schema: &str) -> Option<Layout> {
        if let Some(table) = self.resolve(named, default_schema) {
            return self.counted(&table)?.layout.as_deref().cloned();
        }
        let schema = named.schema.as_deref().unwrap_or(default_schema);
        let ghost = self.ghosts.get(&spelling(self.names_ignore_case, schema, &named.table))?;
        Some(ghost.layout.clone())
    }

    /// `ALTER TABLE` of such a table. What is not certain is forgotten; the catalog will be asked.
    pub(super) fn change_ghost(&mut self, query: &Query<'_>) {
        if self.ghosts.is_empty() || query.error_code != 0 {
            return;
        }
        let alter = match self.read(query, ddl::read) {
            Ok(None) => return,
            Ok(Some(alter)) => alter,
            Err(_) => return self.ghosts.clear(),
        };
        let schema = alter.table.schema.as_deref().unwrap_or(&query.schema);
        let key = spelling(self.names_ignore_case, schema, &alter.table.table);
        let Some(ghost) = self.ghosts.get_mut(&key) else { return };
        let applied = alter.specs.and_then(|specs| ddl::apply(&ghost.layout, &specs, self.vendor));
        let Ok(applied) = applied else {
            self.ghosts.remove(&key);
            return;
        };
        ghost.layout = applied.layout;
        for (old, new) in applied.renamed {
            let why = format!("it was `{old}` before an online schema change, which may or may not have copied it");
            ghost.other.remove(&old);
            ghost.other.insert(new, why);
        }
        for definition in applied.added.iter().filter(|added| applied.dropped.contains(&added.name)) {
            let why = "it was dropped and made anew in an online schema change, which may or may not have copied it";
            ghost.other.insert(definition.name.clone(), why.to_owned());
        }
        ghost.other.extend(applied.recomputed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_tools_are_known_by_their_names() {
        let table = |name: &str| TableName::new("shop", name);
        for name in ["_orders_gho", "_orders_new", "__orders_new", "___orders_new"] {
            assert!(replaces(&table(name), &table("orders")), "{name}");
        }
        for name in ["orders_new", "_orders_old", "_orders_del", "_orders_ghc", "_order_gho", "_orders2_new"] {
            assert!(!replaces(&table(name), &table("orders")), "{name}");
        }
        assert!(!replaces(&TableName::new("other", "_orders_gho"), &table("orders")));
        let long = "x".repeat(NAME_MAX);
        let cut = format!("_{}_gho", &long[..NAME_MAX - 5]);
        assert!(replaces(&table(&cut), &table(&long)));
        assert!(!replaces(&table(&format!("_{}_gho", &long[..40])), &table(&long)));
        for name in ["_orders_ghc", "_orders_del", "_orders_20240131120000_del", "_orders_old", "__orders_old"] {
            assert_eq!(belongs_to(name), Some("orders"), "{name}");
        }
        assert_eq!(belongs_to("_orders_deleted"), None);
    }
}
