//! Statements about tables as a whole: dropped, created, renamed (K-6, K-7, D-8).
//!
//! A captured table that goes away takes its history with it: whatever has its name later is another table, which is loaded
//! before it is followed. Renames of one statement take effect one after the other; what counts is which table has each
//! name at the end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::schema::{Layout, LayoutColumn, TableName};
use crate::source::{Error, Event};

use super::super::catalog::SYSTEM_SCHEMAS;
use super::super::marker::Query;
use super::super::statement::Named;
use super::super::subject::Became;
use super::ghost::replaces;
use super::{Ghost, Reader, spelling};

/// By the log's spelling.
type Key = (String, String);

/// Names that a statement moved: what each is called as written, and the table that has it now, by its name before.
type Moved = BTreeMap<Key, (TableName, Option<TableName>)>;

impl Reader {
    fn written(&self, named: &Named, default_schema: &str) -> (Key, TableName) {
        let schema = named.schema.as_deref().unwrap_or(default_schema);
        (spelling(self.names_ignore_case, schema, &named.table), TableName::new(schema, named.table.as_str()))
    }

    pub(super) async fn dropped(
        &mut self,
        tables: &[Named],
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        for named in tables {
            let (key, _) = self.written(named, &query.schema);
            self.ghosts.remove(&key);
            let Some(name) = self.names.get(&key).cloned() else { continue };
            if self.counted(&name).is_none() {
                continue;
            }
            if query.error_code == 0 {
                self.table_gone(&name, query, time).await?;
            } else {
                let finding = "a DROP TABLE that failed on its way names it".to_owned();
                self.stop_untold(&name, finding).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn dropped_database(
        &mut self,
        schema: &str,
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        let (wanted, _) = spelling(self.names_ignore_case, schema, "");
        self.ghosts.retain(|(schema, _), _| *schema != wanted);
        let mut dropped: Vec<TableName> =
            self.names.iter().filter(|((schema, _), _)| *schema == wanted).map(|(_, name)| name.clone()).collect();
        dropped.sort_unstable();
        for name in dropped {
            if self.counted(&name).is_some() {
                self.table_gone(&name, query, time).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn created(
        &mut self,
        named: &Named,
        replace: bool,
        if_not_exists: bool,
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        if query.error_code != 0 {
            return Ok(());
        }
        let (key, written) = self.written(named, &query.schema);
        if let Some(name) = self.names.get(&key).cloned()
            && self.counted(&name).is_some()
        {
            if if_not_exists && !replace {
                return Ok(());
            }
            // It can't have been there any more.
            self.table_gone(&name, query, time).await?;
        }
        self.create_ghost(&written, if_not_exists, query);
        self.table_appears(&key, &written, query, time).await
    }

    /// Which table has each of the names after a RENAME.
    fn moved(&self, pairs: &[(Named, Named)], default_schema: &str) -> Moved {
        let mut moved = Moved::new();
        for (from, to) in pairs {
            let (from_key, from) = self.written(from, default_schema);
            let (to_key, to) = self.written(to, default_schema);
            let table = moved.get(&from_key).map_or_else(|| Some(from.clone()), |(_, table)| table.clone());
            moved.insert(from_key, (from, None));
            moved.insert(to_key, (to, table));
        }
        moved
    }

    /// The captured table whose place another takes in this RENAME, if that is as online schema changes do it.
    fn replacement(&self, key: &Key, moved: &Moved) -> Option<(TableName, TableName)> {
        let (_, Some(table)) = moved.get(key)? else { return None };
        let name = self.names.get(key)?;
        self.counted(name)?;
        let other = spelling(self.names_ignore_case, &table.schema, &table.table) != *key;
        (other && replaces(table, name)).then(|| (name.clone(), table.clone()))
    }

    /// A captured table that is replaced in this RENAME by one that is not known from the log.
    pub(super) fn unknown_ghost(&self, pairs: &[(Named, Named)], default_schema: &str) -> Option<TableName> {
        let moved = self.moved(pairs, default_schema);
        moved.keys().find_map(|key| {
            let (name, ghost) = self.replacement(key, &moved)?;
            self.counted(&name)?.layout.as_ref()?;
            let ghost = spelling(self.names_ignore_case, &ghost.schema, &ghost.table);
            let followed = self.names.get(&ghost).and_then(|name| self.counted(name));
            let known = self.ghosts.contains_key(&ghost) || followed.is_some_and(|ghost| ghost.layout.is_some());
            (!known).then_some(name)
        })
    }

    pub(super) async fn renamed(
        &mut self,
        pairs: &[(Named, Named)],
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        if query.error_code != 0 {
            return Ok(());
        }
        let moved = self.moved(pairs, &query.schema);
        // All is asked before anything changes.
        let replacements: Vec<Option<(TableName, TableName)>> =
            moved.keys().map(|key| self.replacement(key, &moved)).collect();
        let became: Vec<Option<Result<Became, String>>> = replacements
            .iter()
            .map(|replacement| replacement.as_ref().map(|(name, ghost)| self.of_ghost(name, ghost)))
            .collect();
        let ignore_case = self.names_ignore_case;
        let key_of = |name: &TableName| spelling(ignore_case, &name.schema, &name.table);
        let sources: Vec<(Key, Key)> =
            moved.iter().filter_map(|(key, (_, table))| Some((key_of(table.as_ref()?), key.clone()))).collect();
        let mut ghosts: Vec<(Key, Ghost)> = Vec::new();
        for (from, to) in sources {
            let Some(ghost) = self.ghosts.remove(&from) else { continue };
            let still = moved.get(&to).is_some_and(|(name, _)| self.tables.keys().any(|table| replaces(name, table)));
            ghosts.extend(still.then_some((to, ghost)));
        }
        self.ghosts.extend(ghosts);

        let mut appeared = Vec::new();
        for ((key, (written, table)), became) in moved.iter().zip(became) {
            let unmoved = table.as_ref().is_some_and(|table| key_of(table) == *key);
            if unmoved {
                continue;
            }
            let captured = self.names.get(key).filter(|name| self.counted(name).is_some()).cloned();
            match (captured, table, became) {
                (Some(name), _, Some(Ok(became))) => self.turn_into(&name, became, query, time).await?,
                (Some(name), _, Some(Err(finding))) => {
                    self.stop_untold(&name, finding).await?;
                }
                (Some(name), None, None) => self.table_gone(&name, query, time).await?,
                (Some(name), Some(table), None) => {
                    let finding = format!(
                        "`{table}` was renamed into its place, and the log does not tell the rows of that table"
                    );
                    self.stop_untold(&name, finding).await?;
                }
                (None, Some(_), _) => appeared.push((key.clone(), written.clone())),
                (None, None, _) => {}
            }
        }
        for (key, written) in appeared {
            self.table_appears(&key, &written, query, time).await?;
        }
        Ok(())
    }

    /// What a captured table becomes when this one takes its place.
    fn of_ghost(&self, name: &TableName, ghost: &TableName) -> Result<Became, String> {
        let old = self.counted(name).and_then(|followed| followed.layout.clone());
        let Some(old) = old else {
            return Err(format!("`{ghost}` was renamed into its place, and the ledger has no schema history of it"));
        };
        // By its layout alone, a column that is missing may be there under another name.
        let plain = |new: &Layout| {
            let missing = |column: &LayoutColumn| new.columns.iter().all(|other| other.name != column.name);
            Became::by_layout(new.clone(), !old.columns.iter().any(missing), BTreeMap::new())
        };
        let key = spelling(self.names_ignore_case, &ghost.schema, &ghost.table);
        let followed = self.names.get(&key).and_then(|name| self.counted(name));
        let mut became = if let Some(Ghost { layout, other }) = self.ghosts.get(&key) {
            Became::by_layout(layout.clone(), true, other.clone())
        } else if let Some(layout) = followed.and_then(|followed| followed.layout.as_deref()) {
            plain(layout)
        } else {
            match &self.reread {
                Some((table, Ok(layout))) if table == name => plain(layout),
                Some((table, Err(why))) if table == name => {
                    return Err(format!(
                        "`{ghost}` was renamed into its place, and its schema is not certain: the log was not read from \
                         the beginning of that table, and {why}"
                    ));
                }
                _ => return Err(format!("`{ghost}` was renamed into its place, and its schema is not known")),
            }
        };
        if became.layout.columns != old.columns {
            // From what the tool copied.
            let why = "it is generated, and an online schema change computed it anew";
            for column in became.layout.columns.iter().filter(|column| column.generated) {
                became.rewritten.entry(column.name.clone()).or_insert_with(|| why.to_owned());
            }
        }
        Ok(became)
    }

    async fn table_gone(
        &mut self,
        name: &TableName,
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        if let Some(followed) = self.tables.get_mut(name) {
            followed.stopped = true;
            followed.gone = true;
        }
        let event = Event::TableDropped {
            table: name.clone(),
            statement: Some(query.text.chars().take(4_000).collect()),
            place: self.transaction(),
            at: self.at(time),
        };
        self.collector.tell(event).await
    }

    /// A table has this name now that had not.
    async fn table_appears(
        &mut self,
        key: &Key,
        written: &TableName,
        query: &Query<'_>,
        time: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        let mut name = written.clone();
        if let Some(known) = self.names.get(key) {
            let followed = self.tables.get(known);
            // One that is followed already, or was loaded since.
            if followed.is_some_and(|followed| !followed.gone || !self.wants(followed)) {
                return Ok(());
            }
            name = known.clone();
        }
        let Some(selection) = &self.selection else { return Ok(()) };
        // Servers that ignore case keep names as written or in lower case.
        let lower = TableName::new(key.0.as_str(), key.1.as_str());
        let selected = selection.selects(&name.to_string()) || selection.selects(&lower.to_string());
        if !selected || SYSTEM_SCHEMAS.contains(&key.0.as_str()) || self.is_helper(&name) {
            return Ok(());
        }
        let event = Event::TableAppeared {
            table: name,
            statement: Some(query.text.chars().take(4_000).collect()),
            place: self.transaction(),
            at: self.at(time),
        };
        self.collector.tell(event).await
    }
}
