//! What becomes of tables, told in order with their rows.
//!
//! Three tell of it: a Relation message whose columns differ ([`super::relations`]), a DDL statement's own message, if the
//! event trigger is installed ([`ddl`]), and the catalog, which is looked at every few seconds ([`super::Watch`]). What the
//! catalog says is acted on when the log was read up to where it ended at the look: whatever the log tells of it comes first,
//! and a change that no row followed is told then, between two transactions.
//!
//! Ids are stable: a change in the log is at the commit of its transaction, counted by table; one that only the catalog tells
//! is where the stream stood.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use tracing::{info, warn};

use super::{Follower, RELOAD, REMEDY, lsn};
use crate::config::ChangeKind;
use crate::schema::{SchemaChange, TableName};
use crate::source::postgres::attributes::Description;
use crate::source::postgres::ddl::{self, DroppedTable, Statement, ToldTable};
use crate::source::postgres::difference::{self, Found, Known};
use crate::source::postgres::newcomers;
use crate::source::postgres::watch::{Look, Verdict};
use crate::source::{Error, Event, Position, TransactionId};

/// What was found beside the log.
pub(super) enum Pending {
    /// Partitions lost their rows.
    Emptied(Verdict),
    /// The table as it looked; see [`Look::shows_before`].
    Described {
        description: Box<Description>,
        shows_before: u64,
    },
    Gone(Option<TableName>),
    Appeared,
}

impl Follower<'_> {
    /// Takes in what was found beside the log.
    pub(super) async fn consider(&mut self, look: Look) -> Result<(), Error> {
        self.told = look.told;
        // Before the verdicts, which depend on it.
        for (name, description) in look.described {
            self.pending.retain(|(_, other, pending)| *other != name || !matches!(pending, Pending::Described { .. }));
            let pending = Pending::Described { description: Box::new(description), shows_before: look.shows_before };
            self.pending.push((look.described_at, name, pending));
        }
        for (name, verdict) in look.verdicts {
            let waits =
                self.pending.iter().any(|(_, other, pending)| *other == name && matches!(pending, Pending::Emptied(_)));
            if waits || self.stopped.contains(&name) || !self.tables.contains_key(&name) {
                continue;
            }
            match verdict {
                Verdict::Fine(notes) => {
                    self.notes.set(&name, notes);
                    self.note(&name);
                    if let Some(followed) = self.tables.get_mut(&name) {
                        followed.found_fine = true;
                        followed.rewrote = false;
                    }
                }
                Verdict::Changed(finding) => self.stop_untold(&name, finding, RELOAD).await?,
                Verdict::Unpublished(finding) => self.stop_table(&name, finding, RELOAD).await?,
                emptied @ Verdict::Emptied { .. } => {
                    self.pending.push((look.log_end, name, Pending::Emptied(emptied)));
                }
            }
        }
        for (name, now) in look.gone {
            let waits =
                self.pending.iter().any(|(_, other, pending)| *other == name && matches!(pending, Pending::Gone(_)));
            if !waits && !self.stopped.contains(&name) {
                self.pending.push((look.log_end, name, Pending::Gone(now)));
            }
        }
        self.pending.extend(look.appeared.into_iter().map(|name| (look.log_end, name, Pending::Appeared)));
        if self.open.is_none() { self.settle().await } else { Ok(()) }
    }

    /// Something is open whose outcome would be lost with the stream's end, or come a whole run later.
    pub(super) fn waits_to_settle(&self) -> bool {
        self.pending.iter().any(|(_, _, pending)| matches!(pending, Pending::Emptied(_) | Pending::Gone(_)))
    }

    /// Decides what the log had to be read for first. Between transactions only.
    pub(super) async fn settle(&mut self) -> Result<(), Error> {
        let reached = lsn(self.collector.position())?;
        let (due, waiting) = self.pending.drain(..).partition(|(log_end, _, _)| *log_end <= reached);
        self.pending = waiting;
        let due: Vec<(u64, TableName, Pending)> = due;
        for (log_end, name, pending) in due {
            match pending {
                Pending::Appeared => self.appear(&name, None).await?,
                Pending::Described { description, shows_before } => {
                    self.settle_description(shows_before.min(log_end), &name, &description).await?;
                }
                _ if self.stopped.contains(&name) => {}
                Pending::Gone(None) => self.drop_table(&name, None).await?,
                Pending::Gone(Some(now)) => self.renamed(&name, &now, None).await?,
                Pending::Emptied(Verdict::Emptied { notes, by, altered, finding }) => {
                    let rewritten =
                        self.tables.get(&name).is_some_and(|followed| followed.found_fine && followed.rewrote);
                    if self.notes.was_truncated_by(&name, &by) || altered && rewritten {
                        self.notes.set(&name, notes);
                    } else {
                        self.stop_untold(&name, finding, RELOAD).await?;
                    }
                }
                Pending::Emptied(_) => {}
            }
        }
        Ok(())
    }

    /// The log was read up to where it ended when the table looked like this; what it tells from `shows_before` on need not
    /// be in it.
    async fn settle_description(
        &mut self,
        shows_before: u64,
        name: &TableName,
        description: &Description,
    ) -> Result<(), Error> {
        let Some(followed) = self.tables.get(name) else { return Ok(()) };
        let another = followed.attributes.as_ref().is_some_and(|known| known.oid != description.attributes.oid);
        if self.gone.contains(name) && another {
            return self.appear(name, None).await;
        }
        // The log may have told of a later state.
        let told = followed.changed_at != 0 && followed.changed_at >= shows_before;
        if self.stopped.contains(name) || told {
            return Ok(());
        }
        if another {
            let finding = "it was dropped and created again, or another table took its name";
            return self.stop_untold(name, finding.into(), RELOAD).await;
        }
        self.compare(name, description, None).await
    }

    /// Compares a followed table with an exact description.
    async fn compare(
        &mut self,
        name: &TableName,
        description: &Description,
        statement: Option<&Statement>,
    ) -> Result<(), Error> {
        let contract = self.contract(name);
        let Some(followed) = self.tables.get(name) else { return Ok(()) };
        let known = Known {
            schema: &followed.schema,
            attributes: followed.attributes.as_ref(),
            contract: &contract,
            ignored: &followed.ignored,
        };
        match difference::by_description(known, description, statement) {
            Ok(found) => self.adopt(name, found, statement.and_then(|statement| statement.text.clone())).await,
            Err(finding) => self.stop_untold(name, finding, REMEDY).await,
        }
    }

    /// Goes on with the table as it was found, telling what changed.
    pub(super) async fn adopt(
        &mut self,
        name: &TableName,
        found: Found,
        statement: Option<String>,
    ) -> Result<(), Error> {
        let Found { after, attributes, steps, assumed } = found;
        let (place, at) = (self.place(), self.committed_at.filter(|_| self.open.is_some()));
        let commit = match &self.open {
            Some(TransactionId::Lsn { commit, .. }) => *commit,
            _ => lsn(self.collector.position())?,
        };
        let Some(followed) = self.tables.get_mut(name) else { return Ok(()) };
        followed.attributes = attributes;
        if steps.is_empty() {
            self.note(name);
            return Ok(());
        }
        let before = std::mem::replace(&mut followed.schema, Arc::new(after));
        let after = followed.schema.clone();
        followed.changed_at = commit;
        followed.rewrote |= steps.iter().any(|step| matches!(step.kind(), ChangeKind::Widen | ChangeKind::Change));
        self.note(name);
        // Rows that are laid out as before have to be announced again.
        for announced in self.relations.values_mut().flatten().filter(|announced| announced.name == *name) {
            announced.plan = None;
        }
        let ordinal = match self.ordinals.entry(name.clone()) {
            Entry::Occupied(mut told) => {
                *told.get_mut() += 1;
                *told.get()
            }
            Entry::Vacant(first) => *first.insert(0),
        };
        let told: Vec<String> = steps.iter().map(ToString::to_string).collect();
        info!(source = self.config.name, table = %name, place, "the table changed: {}", told.join("; "));
        let statement = match (statement, assumed) {
            (Some(text), Some(assumed)) => Some(format!("{text}\n-- {assumed}")),
            (None, Some(assumed)) => Some(format!("-- the log does not tell the statement; {assumed}")),
            (statement, None) => statement,
        };
        let table = name.clone();
        let change = SchemaChange { table, before, after, steps, statement, place, ordinal, at };
        self.collector.schema_change(change).await
    }

    /// Keeps the table's columns for the next start.
    fn note(&self, name: &TableName) {
        let Some(followed) = self.tables.get(name) else { return };
        let Some(attributes) = &followed.attributes else { return };
        let durable = lsn(&self.durable.borrow()).unwrap_or_default();
        let from = match &self.open {
            // A position that has the transaction is behind its commit.
            Some(TransactionId::Lsn { commit, .. }) => commit + 1,
            _ if followed.changed_at == 0 => lsn(&followed.position).unwrap_or_default(),
            _ => lsn(self.collector.position()).unwrap_or_default(),
        };
        self.notes.record(name, from, attributes, durable);
    }

    /// Where the stream stands, for events.
    fn place(&self) -> String {
        match &self.open {
            Some(TransactionId::Lsn { commit, .. }) => Position::Lsn(*commit).to_string(),
            _ => self.collector.position().to_string(),
        }
    }

    /// A DDL statement's own message.
    pub(super) async fn told_ddl(&mut self, content: &[u8]) -> Result<(), Error> {
        let told = match ddl::read(content) {
            Ok(told) => told,
            Err(error) => {
                warn!(
                    source = self.config.name,
                    place = self.place(),
                    error,
                    "a message about a DDL statement is unreadable \
                    and counts as not there"
                );
                return Ok(());
            }
        };
        for dropped in &told.dropped {
            self.told_drop(dropped, &told.statement).await?;
        }
        for table in told.tables {
            self.told_table(table, &told.statement).await?;
        }
        Ok(())
    }

    async fn told_drop(&mut self, dropped: &DroppedTable, statement: &Statement) -> Result<(), Error> {
        let name = dropped.name();
        match self.followed_as(dropped.oid) {
            Some(followed) if followed == name => self.drop_table(&name, statement.text.clone()).await,
            _ => Ok(()),
        }
    }

    async fn told_table(&mut self, table: ToldTable, statement: &Statement) -> Result<(), Error> {
        let found = table.name();
        let Some(name) = self.followed_as(table.oid) else {
            // One that is followed, or was, under this name is another table.
            let stranger = !self.tables.contains_key(&found) || self.gone.contains(&found);
            return if stranger { self.appear(&found, statement.text.as_ref()).await } else { Ok(()) };
        };
        if found != name {
            return self.renamed(&name, &found, statement.text.clone()).await;
        }
        let types = self.types(&table.types()).await?;
        let Some(followed) = self.tables.get(&name) else { return Ok(()) };
        let description = table.described(types, followed.attributes.as_ref(), followed.listed);
        self.compare(&name, &description, Some(statement)).await
    }

    /// The followed table of this oid, unless it has the open transaction already.
    fn followed_as(&self, oid: u32) -> Option<TableName> {
        let own = |name: &TableName| self.tables[name].attributes.as_ref().is_some_and(|known| known.oid == oid);
        self.tables.keys().find(|name| own(name) && !self.stopped.contains(*name) && !self.skips(name)).cloned()
    }

    /// The table goes on under another name.
    pub(super) async fn renamed(
        &mut self,
        name: &TableName,
        now: &TableName,
        statement: Option<String>,
    ) -> Result<(), Error> {
        let text =
            statement.unwrap_or_else(|| format!("-- the log does not tell the statement; it is called {now} now"));
        self.drop_table(name, Some(text.clone())).await?;
        self.appear(now, Some(&text)).await
    }

    /// No more rows come of a table. Its notes stay: a table that takes its name is told apart by them.
    async fn drop_table(&mut self, name: &TableName, statement: Option<String>) -> Result<(), Error> {
        let (place, at) = (self.place(), self.committed_at.filter(|_| self.open.is_some()));
        info!(source = self.config.name, table = %name, place, "the table is gone");
        self.let_go(name);
        self.gone.insert(name.clone());
        self.collector.tell(Event::TableDropped { table: name.clone(), statement, place, at }).await
    }

    /// A table came that nobody follows. Told once, when it is selected and can be followed.
    async fn appear(&mut self, name: &TableName, statement: Option<&String>) -> Result<(), Error> {
        // Whoever chose the tables knows of it, also if it does not follow it.
        let known = self.tables.contains_key(name) || self.known.contains(name);
        let followed = known && !self.gone.contains(name);
        if followed || self.appeared.contains(name) || !self.config.tables.selects(&name.to_string()) {
            return Ok(());
        }
        let (config, contracts) = (self.config, self.contracts);
        let names = std::slice::from_ref(name);
        let ready = newcomers::ready(self.catalog().await?, config, contracts, names, |_| false).await?;
        // Otherwise the next look says why not.
        if ready.is_empty() {
            return Ok(());
        }
        self.appeared.insert(name.clone());
        let (place, at) = (self.place(), self.committed_at.filter(|_| self.open.is_some()));
        info!(source = self.config.name, table = %name, place, "a table came that is selected");
        self.collector
            .tell(Event::TableAppeared { table: name.clone(), statement: statement.cloned(), place, at })
            .await
    }
}
