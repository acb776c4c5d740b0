//! The changes of a statement applied to what the catalog says about a table.

use std::collections::HashMap;

use serde::Deserialize;

use super::super::catalog::{CatalogColumn, CatalogTable, Missing};
use super::super::types::oid;
use super::DeclaredType;
use super::statement::{Change, Default, Identity};
use crate::source::Foretold;

/// A unique index; a constraint has the name of its index.
#[derive(Clone, Debug, Deserialize)]
pub struct UniqueIndex {
    pub name: String,
    pub primary: bool,
    pub columns: Vec<String>,
}

/// The table after the changes.
#[derive(Debug)]
pub struct Applied {
    pub table: CatalogTable,
    /// New columns: name, default, declared type.
    pub added: Vec<(String, Default, String)>,
    /// The server writes every row anew.
    pub rewritten: bool,
}

/// The order of several changes in one statement does not matter to the server but for columns that are dropped first
/// (`ATExecCmd` passes in tablecmds.c); none of them can name a column that another one adds, but for keys.
pub fn apply(
    mut table: CatalogTable,
    mut indexes: Vec<UniqueIndex>,
    changes: &[Change],
    declared: &HashMap<String, DeclaredType>,
) -> Result<Applied, Foretold> {
    let mut added: Vec<(String, Default, String)> = Vec::new();
    let mut rewritten = false;
    let missing = |name: &str| Foretold::Misfit(format!("the table has no column `{name}`"));
    let taken = |name: &str| Foretold::Misfit(format!("the table has a column `{name}` already"));
    for change in changes {
        match change {
            Change::Add { name, declared: declared_as, default, if_not_exists } => {
                if table.columns.iter().any(|column| column.name == *name) {
                    if *if_not_exists {
                        continue;
                    }
                    return Err(taken(name));
                }
                let declared = &declared[declared_as];
                let generated = matches!(default, Default::Each(how) if how.starts_with("it is generated"));
                table.width += 1;
                table.columns.push(CatalogColumn {
                    number: table.width,
                    name: name.clone(),
                    type_oid: declared.oid,
                    typmod: declared.typmod,
                    has_default: !matches!(default, Default::None | Default::Null),
                    // What it is, the caller finds out.
                    missing: vec![Missing { oid: 0, value: None }],
                    found: declared.found.clone(),
                    generated,
                });
                if let Some(published) = table.published.as_mut().filter(|published| !published.listed && !generated) {
                    published.columns.push(name.clone());
                }
                rewritten |= matches!(default, Default::Each(_));
                added.push((name.clone(), default.clone(), declared_as.clone()));
            }
            Change::Drop { name, if_exists } => {
                let Some(at) = table.columns.iter().position(|column| column.name == *name) else {
                    if *if_exists {
                        continue;
                    }
                    return Err(missing(name));
                };
                table.columns.remove(at);
                added.retain(|(column, ..)| column != name);
                // An index goes with the first of its columns.
                indexes.retain(|index| !index.columns.contains(name));
                if table.key.contains(name) {
                    table.key.clear();
                }
                if let Some(published) = &mut table.published {
                    published.columns.retain(|column| column != name);
                }
            }
            Change::Rename { from, to } => {
                if table.columns.iter().any(|column| column.name == *to) {
                    return Err(taken(to));
                }
                let column =
                    table.columns.iter_mut().find(|column| column.name == *from).ok_or_else(|| missing(from))?;
                column.name.clone_from(to);
                let published = table.published.iter_mut().flat_map(|published| &mut published.columns);
                let everywhere = table
                    .key
                    .iter_mut()
                    .chain(published)
                    .chain(added.iter_mut().map(|(column, ..)| column))
                    .chain(indexes.iter_mut().flat_map(|index| &mut index.columns));
                for name in everywhere.filter(|name| *name == from) {
                    name.clone_from(to);
                }
            }
            Change::Retype { name, declared: declared_as, using } => {
                let column =
                    table.columns.iter_mut().find(|column| column.name == *name).ok_or_else(|| missing(name))?;
                let declared = &declared[declared_as];
                // Those that are the same bytes.
                let carried = column.type_oid == declared.oid
                    || matches!((column.type_oid, declared.oid), (oid::VARCHAR, oid::TEXT) | (oid::TEXT, oid::VARCHAR));
                rewritten |= *using || !carried;
                (column.type_oid, column.typmod) = (declared.oid, declared.typmod);
                column.found = declared.found.clone();
            }
            Change::PrimaryKey(columns) => {
                if let Some(name) = columns.iter().find(|name| table.columns.iter().all(|column| column.name != **name))
                {
                    return Err(missing(name));
                }
                indexes.push(UniqueIndex { name: String::new(), primary: true, columns: columns.clone() });
                settle_key(&mut table, &indexes);
            }
            Change::PrimaryKeyOfIndex(name) => {
                let index = indexes.iter_mut().find(|index| index.name == *name);
                index.ok_or_else(|| Foretold::Misfit(format!("the table has no unique index `{name}`")))?.primary =
                    true;
                settle_key(&mut table, &indexes);
            }
            Change::DropConstraint(name) => {
                let primary = indexes.iter().any(|index| index.name == *name && index.primary);
                indexes.retain(|index| index.name != *name);
                if primary {
                    settle_key(&mut table, &indexes);
                }
            }
            Change::Identity(identity) => {
                match identity {
                    Identity::Full => "f".clone_into(&mut table.identity),
                    Identity::Nothing => "n".clone_into(&mut table.identity),
                    Identity::Default => "d".clone_into(&mut table.identity),
                    Identity::Index(name) => {
                        "i".clone_into(&mut table.identity);
                        let index = indexes.iter().find(|index| index.name == *name);
                        let none = || Foretold::Misfit(format!("the table has no unique index `{name}`"));
                        table.key = index.ok_or_else(none)?.columns.clone();
                    }
                }
                settle_key(&mut table, &indexes);
                for leaf in &mut table.leaves {
                    leaf.identity.clone_from(&table.identity);
                }
            }
            Change::RenameTable(_) => {}
        }
    }
    Ok(Applied { table, added, rewritten })
}

/// What identifies rows after the primary key or the replica identity changed.
fn settle_key(table: &mut CatalogTable, indexes: &[UniqueIndex]) {
    match table.identity.as_str() {
        "d" | "f" => {
            let primary = indexes.iter().find(|index| index.primary);
            table.key = primary.map(|index| index.columns.clone()).unwrap_or_default();
        }
        "n" => table.key.clear(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::types::ResolvedType;
    use super::super::statement::{Statement, read};
    use super::*;

    fn found(name: &str, base_oid: u32, base_typmod: i32) -> ResolvedType {
        ResolvedType { name: name.into(), base_oid, base_typmod, ..ResolvedType::default() }
    }

    fn table() -> CatalogTable {
        let column = |name: &str| CatalogColumn {
            number: 1,
            name: name.into(),
            type_oid: oid::INT4,
            typmod: -1,
            has_default: false,
            missing: vec![],
            found: found("integer", oid::INT4, -1),
            generated: false,
        };
        CatalogTable {
            oid: 7,
            width: 3,
            files: [(7, 70)].into(),
            schema: "shop".into(),
            table: "goods".into(),
            kind: "r".into(),
            persistence: "p".into(),
            identity: "d".into(),
            key: vec!["id".into()],
            leaves: vec![],
            generated_identity: false,
            ancestors: vec![],
            rows_estimate: None,
            owner: "o".into(),
            owned: true,
            readable: true,
            schema_usable: true,
            row_security: false,
            columns: vec![column("id"), column("a"), column("b")],
            published: None,
        }
    }

    fn applied(text: &str) -> Result<Applied, Foretold> {
        let statements = read(&format!("ALTER TABLE goods {text}")).expect("readable");
        let [Statement::Alter { changes, .. }] = statements.as_slice() else { panic!("{text}: {statements:?}") };
        let indexes = vec![
            UniqueIndex { name: "goods_pkey".into(), primary: true, columns: vec!["id".into()] },
            UniqueIndex { name: "goods_a".into(), primary: false, columns: vec!["a".into()] },
        ];
        let declared = [("INT", oid::INT4), ("BIGINT", oid::INT8), ("TEXT", oid::TEXT), ("serial", oid::INT4)].map(
            |(text, oid)| {
                (text.to_owned(), DeclaredType { oid, typmod: -1, found: found(text, oid, -1), has_default: false })
            },
        );
        apply(table(), indexes, changes, &declared.into())
    }

    fn columns(text: &str) -> String {
        match applied(text) {
            Ok(applied) => {
                let columns: Vec<&str> = applied.table.columns.iter().map(|column| column.name.as_str()).collect();
                format!("{} key {}", columns.join(" "), applied.table.key.join(" "))
            }
            Err(Foretold::Misfit(why)) => why,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn columns_and_keys_follow_the_statement() {
        for (text, wanted) in [
            ("ADD c int", "id a b c key id"),
            ("ADD IF NOT EXISTS a int", "id a b key id"),
            ("ADD a int", "the table has a column `a` already"),
            ("DROP a, ADD a text", "id b a key id"),
            ("DROP c", "the table has no column `c`"),
            ("DROP IF EXISTS c", "id a b key id"),
            ("RENAME id TO no", "no a b key no"),
            ("DROP id", "a b key "),
            ("DROP CONSTRAINT goods_pkey", "id a b key "),
            ("DROP CONSTRAINT goods_pkey, ADD PRIMARY KEY (a, id)", "id a b key a id"),
            ("REPLICA IDENTITY USING INDEX goods_a", "id a b key a"),
            ("REPLICA IDENTITY NOTHING", "id a b key "),
            ("REPLICA IDENTITY FULL", "id a b key id"),
        ] {
            assert_eq!(columns(text), wanted, "{text}");
        }
        let added = applied("ADD c int DEFAULT 5, RENAME c TO d").expect("fits");
        assert_eq!(added.added[0].0, "d");
        let column = added.table.columns.last().expect("columns");
        assert_eq!((column.number, column.has_default, added.rewritten), (4, true, false));
        for (text, rewritten) in
            [("ALTER a TYPE bigint", true), ("ALTER a TYPE int USING a + 1", true), ("ADD c serial", true)]
        {
            assert_eq!(applied(text).expect("fits").rewritten, rewritten, "{text}");
        }
    }
}
