//! DDL of captured tables in the log: the layout and the schema that hold from here on (D-1 to D-17).
//!
//! The statement's text is applied to the layout in force; where the text does not say for certain what it did, the catalog
//! was asked (`reread.rs`). What it comes to for the lake is told as [`SchemaChange`], after all rows that lie as before:
//! nothing of it depends on when or how often this place of the log is read, as long as the layout before is known.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::schema::{Layout, LayoutColumn, SchemaChange, TableName};
use crate::source::Error;

use super::super::ddl::{self, Applied, Spec, Unclear};
use super::super::fill::Moment;
use super::super::flavor::Vendor;
use super::super::marker::Query;
use super::super::sql_mode;
use super::super::statement::Words;
use super::super::subject::{Became, StatementSession, Subject};
use super::{Followed, Reader};

const CONTRACT: &str = "correct the table's contract and start again; if it stays stopped, load it again with \
                        `lakeward resync`";

/// A captured table that a statement changes.
pub(super) struct Change {
    pub table: TableName,
    pub applied: Result<Applied, Unclear>,
    session: ddl::Session,
    /// Rows may have been dropped because they did not fit a new key.
    drops_rows: bool,
}

impl Reader {
    /// Reads a statement, unless its session's mode makes its words mean others.
    pub(super) fn read<T>(
        &self,
        query: &Query<'_>,
        read: impl FnOnce(&str, Vendor) -> Result<T, Unclear>,
    ) -> Result<T, Unclear> {
        if sql_mode::is_ambiguous(query.sql_mode, &query.text, self.vendor) {
            return Err(Unclear);
        }
        read(&query.text, self.vendor)
    }

    /// The captured tables with a known layout that the statement changes, and how.
    pub(super) fn changes(&self, query: &Query<'_>) -> Vec<Change> {
        // A statement that failed changed nothing (D-12).
        if query.error_code != 0 {
            return Vec::new();
        }
        let session = sql_mode::session(query.sql_mode);
        match self.read(query, ddl::read) {
            Ok(None) => Vec::new(),
            Ok(Some(alter)) => {
                let Some(table) = self.resolve(&alter.table, &query.schema) else { return Vec::new() };
                let Some(layout) = self.counted(&table).and_then(|followed| followed.layout.as_ref()) else {
                    return Vec::new();
                };
                let drops_rows = alter.ignore
                    && alter
                        .specs
                        .as_ref()
                        .is_ok_and(|specs| specs.iter().any(|spec| matches!(spec, Spec::Unique { .. })));
                let session = ddl::Session { strict: session.strict && !alter.ignore, ..session };
                let explicit = query.session.explicit_timestamps == Some(true);
                let bare = |spec: &Spec| match spec {
                    Spec::Add { definition, .. } | Spec::Change { definition, .. } => definition.is_bare_timestamp(),
                    _ => false,
                };
                let applied = match alter.specs {
                    Ok(specs) if !explicit && specs.iter().any(bare) => Err(Unclear),
                    specs => specs.and_then(|specs| ddl::apply(layout, &specs, self.vendor)),
                };
                vec![Change { table, applied, session, drops_rows }]
            }
            // Not even its table is certain: any that it names.
            Err(Unclear) => {
                let text = query.text.to_ascii_uppercase();
                if !text.contains("ALTER") && !text.contains("INDEX") {
                    return Vec::new();
                }
                let words = Words::of(&query.text, &query.schema);
                let mentioned = |name: &&TableName| {
                    words.mention(&name.schema, &name.table)
                        && self.counted(name).is_some_and(|followed| followed.layout.is_some())
                };
                let tables = self.tables.keys().filter(mentioned).cloned();
                let change = |table| Change {
                    table,
                    applied: Err(Unclear),
                    session: ddl::Session::default(),
                    drops_rows: false,
                };
                tables.map(change).collect()
            }
        }
    }

    /// What the statement's effect depends on and only the server can tell.
    pub(super) fn unknown_moments(
        &self,
        changes: &[Change],
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Vec<Moment> {
        let unknown = RefCell::new(Vec::new());
        for change in changes {
            let Ok(applied) = &change.applied else { continue };
            let became = Became::by_text(applied.clone(), change.session);
            let note = |moment: &Moment| {
                unknown.borrow_mut().push(moment.clone());
                None
            };
            let Some(subject) = self.tables.get(&change.table).map(|followed| self.subject(followed)) else { continue };
            if let Ok(after) = subject.schema_of(&became.layout) {
                subject.steps(&became, &after, &session_of(query, time), &note);
            }
        }
        unknown.into_inner()
    }

    /// A statement that left rows as they are may still have changed how they lie in the log.
    pub(super) async fn schema_change(&mut self, query: &Query<'_>, time: Option<DateTime<Utc>>) -> Result<(), Error> {
        for Change { table, applied, session, drops_rows } in self.changes(query) {
            let Some(old) = self.tables.get(&table).and_then(|followed| followed.layout.clone()) else { continue };
            let became = match applied {
                Ok(applied) => {
                    let same = applied.layout == *old && applied.dropped.is_empty() && applied.recomputed.is_empty();
                    if same && !drops_rows {
                        continue;
                    }
                    Became::by_text(applied, session)
                }
                Err(Unclear) => match self.reread.take() {
                    Some((name, Ok(layout))) if name == table => {
                        let (named, rewritten) = doubtful(&old, &layout, query);
                        if layout == *old && rewritten.is_empty() {
                            continue;
                        }
                        Became::by_layout(layout, named, rewritten)
                    }
                    other => {
                        let why = match other {
                            Some((name, Err(why))) if name == table => why,
                            _ => "the statement names several tables".to_owned(),
                        };
                        let start: String = query.text.chars().take(200).collect();
                        let finding = format!(
                            "its schema after `{start}` is not certain: the text does not tell it for sure, and {why}"
                        );
                        self.stop_untold(&table, finding).await?;
                        continue;
                    }
                },
            };
            self.turn_into(&table, became, query, time).await?;
            if drops_rows {
                let finding =
                    "a statement may have changed its rows, which the log does not tell: ALTER IGNORE dropped \
                               rows that were equal in a new key"
                        .to_owned();
                self.stop_untold(&table, finding).await?;
            }
        }
        self.change_ghost(query);
        Ok(())
    }

    /// The table is another from here on: tells it, and reads its rows so.
    pub(super) async fn turn_into(
        &mut self,
        table: &TableName,
        became: Became,
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        let told = {
            let Some(followed) = self.tables.get(table) else { return Ok(()) };
            let subject = self.subject(followed);
            subject.schema_of(&became.layout).map(|after| {
                let moment = |moment: &Moment| self.moments.get(moment).copied().flatten();
                let steps = subject.steps(&became, &after, &session_of(query, time), &moment);
                (followed.schema.clone(), Arc::new(after), steps)
            })
        };
        let statement: String = query.text.chars().take(4_000).collect();
        let layout = Arc::new(became.layout);
        let changed = self.tables.get(table).is_some_and(|followed| followed.layout.as_ref() != Some(&layout));
        for map in self.maps.values_mut().filter(|map| map.table.as_ref() == Some(table)) {
            map.plan = None;
        }
        if changed {
            if let Some(followed) = self.tables.get_mut(table) {
                followed.layout = Some(layout.clone());
            }
            self.collector.layout(table, layout, statement.clone()).await?;
        }
        let (before, after, steps) = match told {
            Ok(told) => told,
            Err(finding) => {
                let finding = format!("its columns changed, and {finding}");
                return self.stop_table(table, finding, CONTRACT.to_owned()).await;
            }
        };
        if steps.is_empty() {
            return Ok(());
        }
        let change = SchemaChange {
            table: table.clone(),
            before,
            after: after.clone(),
            steps,
            statement: Some(statement),
            place: self.transaction(),
            // A transaction has one statement about a table's columns, and a statement one effect.
            ordinal: 0,
            at: self.at(time),
        };
        self.collector.schema_change(change).await?;
        if let Some(followed) = self.tables.get_mut(table) {
            followed.schema = after;
        }
        Ok(())
    }

    /// When the open transaction was.
    pub(super) fn at(&self, time: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        self.open.as_ref().and_then(|open| open.committed_at).or(time)
    }

    /// A followed table, for questions about what becomes of it.
    fn subject<'a>(&'a self, followed: &'a Followed) -> Subject<'a> {
        Subject {
            schema: &followed.schema,
            layout: followed.layout.as_deref(),
            contract: &followed.contract,
            ignored: &followed.ignored,
            vendor: self.vendor,
            collations: &self.collations,
        }
    }
}

/// What the log tells of the session that ran a statement.
fn session_of<'a>(query: &'a Query<'_>, time: Option<DateTime<Utc>>) -> StatementSession<'a> {
    StatementSession { sql_mode: query.sql_mode, state: &query.session, now: time.map(|time| time.timestamp()) }
}

/// Of a statement that can't be read: whether no column got another's name by it, and columns of both layouts that it may
/// have made anew, or given the values of others. Such a column is named at least twice: where it goes and where it comes.
fn doubtful(old: &Layout, new: &Layout, query: &Query<'_>) -> (bool, BTreeMap<String, String>) {
    let words = Words::of(&query.text, &query.schema);
    let renames = words.count("change") + words.count("rename") > 0;
    let moves = renames || words.count("drop") > 0;
    let why = |column: &&LayoutColumn| {
        let known = old.columns.iter().any(|before| before.name == column.name);
        let why = if column.generated {
            "it may be generated anew"
        } else if moves && words.count(&column.name) > 1 {
            "a statement names it whose text does not tell for sure what it did"
        } else {
            return None;
        };
        known.then(|| (column.name.clone(), why.to_owned()))
    };
    (!renames, new.columns.iter().filter_map(|column| why(&column)).collect())
}
