//! A captured table that a statement changes: its schema and the steps that lead there, the same for a statement in the log
//! and for one that has not run yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Contract;
use crate::schema::{
    Column, Fill, Hints, LakeType, Layout, LayoutColumn, Policy, RowIdentity, Step, TableSchema, steps_between,
};

use super::catalog;
use super::charset::Collations;
use super::column_definition::{Definition, same_type};
use super::ddl::{self, Applied};
use super::fill::{self, Circumstances, Moment};
use super::flavor::Vendor;
use super::literal::Literal;
use super::marker::SessionState;

/// The table before, and what its meaning depends on.
pub struct Subject<'a> {
    pub schema: &'a TableSchema,
    /// How its rows lie in the log.
    pub layout: Option<&'a Layout>,
    pub contract: &'a Contract,
    /// Columns that are left out by policy.
    pub ignored: &'a BTreeSet<String>,
    pub vendor: Vendor,
    pub collations: &'a Collations,
}

/// The session that runs the statement.
pub struct StatementSession<'a> {
    pub sql_mode: u64,
    pub state: &'a SessionState,
    /// Its NOW(), in seconds since 1970.
    pub now: Option<i64>,
}

/// What a table became.
pub struct Became {
    pub layout: Layout,
    pub renamed: Vec<(String, String)>,
    pub dropped: Vec<String>,
    /// As they were defined; `None`: by the layout only.
    added: Option<Vec<Definition>>,
    /// No column has another's values under another name, but for those in `rewritten`.
    named: bool,
    /// Columns, as they are called now, whose values may not be what the log told, and why.
    pub rewritten: BTreeMap<String, String>,
    session: ddl::Session,
}

impl Became {
    /// Known by its layout only.
    pub fn by_layout(layout: Layout, named: bool, rewritten: BTreeMap<String, String>) -> Self {
        let (renamed, dropped) = (Vec::new(), Vec::new());
        Self { layout, renamed, dropped, added: None, named, rewritten, session: ddl::Session::default() }
    }

    pub fn by_text(applied: Applied, session: ddl::Session) -> Self {
        let Applied { layout, renamed, dropped, added, recomputed } = applied;
        Self { layout, renamed, dropped, added: Some(added), named: true, rewritten: recomputed, session }
    }
}

impl Subject<'_> {
    /// The schema of a followed table with this layout, as discovery would give it. The error says why there is none.
    pub fn schema_of(&self, layout: &Layout) -> Result<TableSchema, String> {
        let left_out = |column: &&LayoutColumn| !self.ignored.contains(&column.name);
        // A type that is the same stays in the words that the lake has, whose width may mean nothing.
        let spelled = |column: &LayoutColumn| {
            let before = self.schema.columns.iter().find(|before| before.name == column.name);
            let same = before.filter(|before| same_type(&before.source_type, &column.declaration));
            same.map_or_else(|| column.declaration.clone(), |before| before.source_type.clone())
        };
        let columns = layout.columns.iter().filter(left_out).map(|column| Column {
            name: column.name.clone(),
            source_type: spelled(column),
            lake_type: LakeType::String,
            nullable: true,
            policy: Policy::default(),
        });
        let mut schema = TableSchema {
            name: self.schema.name.clone(),
            columns: columns.collect(),
            key: Vec::new(),
            partition_by: Vec::new(),
            identity: RowIdentity::default(),
        };
        for name in layout.key() {
            let column = layout.column(name).map_or(name, |column| column.name.as_str());
            let index = schema.column_index(column);
            schema.key.push(index.ok_or_else(|| format!("`{column}` of its key is left out of the lake by policy"))?);
        }
        // The contract of today may name columns that come later in the log, or were there before.
        let mut contract = self.contract.clone();
        let there = |name: &String| layout.columns.iter().any(|column| column.name == *name);
        contract.exclude.retain(there);
        contract.types.retain(|name, _| there(name));
        contract.value_policies.retain(|name, _| there(name));
        let schema = catalog::under_contract(schema, &contract)?;
        let charset = |column: &str| layout.columns.iter().find(|known| known.name == column)?.charset.as_deref();
        match catalog::refusal(&schema, charset, self.collations) {
            Some(refusal) => Err(refusal),
            None => Ok(schema),
        }
    }

    /// What leads from the table to what it became; `after` is its schema then. `moment` knows what only the server can tell.
    pub fn steps(
        &self,
        became: &Became,
        after: &TableSchema,
        session: &StatementSession<'_>,
        moment: &dyn Fn(&Moment) -> Option<i64>,
    ) -> Vec<Step> {
        let before = self.schema;
        let none = Layout::default();
        let old = self.layout.unwrap_or(&none);
        let mut renamed = became.renamed.clone();
        // A dropped column is none that has its name again.
        renamed.extend(became.dropped.iter().map(|name| (name.clone(), format!("{name}\0"))));
        let former = |name: &str| -> Option<String> {
            match renamed.iter().find(|(_, to)| to == name) {
                Some((from, _)) => Some(from.clone()),
                None if renamed.iter().any(|(from, _)| from == name) => None,
                None => Some(name.to_owned()),
            }
        };
        let lake = |had: &str, has: &str| {
            let had = before.columns.iter().find(|column| column.name == had)?;
            let has = after.columns.iter().find(|column| column.name == has)?;
            Some((had.lake_type, has.lake_type))
        };
        let mut rewritten = ddl::rewritten(old, &became.layout, became.session, former, lake);
        rewritten.extend(became.rewritten.clone());
        let of_statement = Circumstances {
            vendor: self.vendor,
            sql_mode: session.sql_mode,
            session: Some(session.state),
            now: session.now,
            collations: self.collations,
            moment,
        };
        let of_catalog = Circumstances { session: None, ..of_statement };
        let fill = |column: &Column| -> Fill {
            let unknown = |why: String| Fill::Unknown(why);
            let Some(known) = became.layout.columns.iter().find(|known| known.name == column.name) else {
                return unknown("it is not in the table's layout".to_owned());
            };
            let key = after.column_index(&column.name).is_some_and(|index| after.is_key(index));
            if !became.named {
                return unknown("it may be one that was there under another name".to_owned());
            }
            if let Some(why) = became.rewritten.get(&column.name) {
                return unknown(why.clone());
            }
            match &became.added {
                Some(added) => match added.iter().find(|added| added.name == column.name) {
                    Some(added) => fill::fill(column, key, known, &added.literal, added.nullable_told, &of_statement),
                    None => unknown("it was there before, and left out of the lake".to_owned()),
                },
                None if old.columns.iter().any(|known| known.name == column.name) => {
                    unknown("it was there before, and left out of the lake".to_owned())
                }
                None => fill::fill(column, key, known, &Literal::of_default(&known.default), true, &of_catalog),
            }
        };
        let hints = Hints {
            renamed: &renamed,
            fill: &fill,
            rewritten: &|column: &Column| rewritten.get(&column.name).cloned(),
        };
        steps_between(before, after, &hints)
    }
}
