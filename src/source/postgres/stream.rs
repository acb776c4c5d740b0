//! Follows the log: transactions into the collector, positions back to the server.
//!
//! Why nothing is lost or repeated: the server sends each transaction after its commit, in commit order, and starts at
//! the first whose commit record is at or after the position asked for; the position moves at commit markers,
//! or between transactions to where a keepalive says that everything before was sent; a table that already holds
//! a transaction skips it; the server is told a position only when the caller calls it durable. What changes a table
//! without a trace in the log is found by [`watch`] beside.
//!
//! Where the publication sends partitions under their own names, their rows go to the captured root, each partition by a
//! plan of its own: its columns may be in another order (K-4).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tracing::{info, warn};

use super::catalog::{self, CatalogTable};
use super::connection::{WAL_SENDER_TIMEOUT, connect};
use super::pgoutput::{self, Message, Relation};
use super::plan::{Plan, RowError};
use super::slot;
use super::types::ResolvedType;
use super::wal::{Wal, WalEvent};
use super::watch::{self, Look, Notes, Verdict};
use crate::config::{Contracts, SourceConfig};
use crate::schema::TableName;
use crate::source::{Collector, Error, Event, Position, RowSink, StreamRequest, TableStart, TransactionId};

/// Nothing more came for this long after a transaction: what is gathered is handed on.
const QUIET: Duration = Duration::from_millis(15);

/// A position that moved without a transaction is told no more often than this.
const MOVE_INTERVAL: Duration = Duration::from_millis(200);

/// The server breaks its silence after half of its timeout; after this it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(WAL_SENDER_TIMEOUT.as_secs() + 15);

const REMEDY: &str = "schema changes are applied from the next release on; remove the table's folder in the lake and \
                      restart to load it again";

const VALUE_REMEDY: &str = "mend it at the source, or say in the table's contract what becomes of it, then remove the table's \
                            folder in the lake and restart to load it again";

const RELOAD: &str = "remove the table's folder in the lake and restart to load it again";

/// How much longer than asked a stream goes on to settle what a look found.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// Seconds from 1970 to 2000, PostgreSQL's epoch.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// See [`crate::source::Source::stream`].
pub async fn follow(
    config: &SourceConfig,
    contracts: &Contracts,
    notes: &Notes,
    mut request: StreamRequest,
    out: mpsc::Sender<Event>,
) -> Result<(), Error> {
    let from = lsn(&request.from)?;
    let mut connection = connect(config).await?;
    slot::check(&mut connection, config, from).await?;
    let Some(publication) = super::publication::find(&mut connection, &config.publication).await? else {
        return Err(Error::PositionLost {
            position: request.from.clone(),
            cause: format!(
                "publication `{}` does not exist, and changes made without it are not in the stream",
                config.publication
            ),
        });
    };
    let names: Vec<TableName> = request.tables.keys().cloned().collect();
    let mut described = catalog::described(&mut connection, &names).await?;
    publication.mark(&mut described);
    let first_look = watch::look(&mut connection, config, notes, &names).await?;
    drop(connection);
    let mut wal = Wal::start(config, from).await?;
    info!(source = config.name, slot = config.slot, position = %request.from, "following the log");
    let mut follower = Follower {
        config,
        contracts,
        tables: std::mem::take(&mut request.tables),
        collector: Collector::new(request.from.clone(), request.limits, out),
        relations: HashMap::new(),
        stopped: HashSet::new(),
        open: None,
        xid: 0,
        catalog: None,
        notes,
        unsettled: Vec::new(),
        by_leaves: !publication.via_root && described.iter().any(|table| table.kind == "p"),
        roots: HashMap::new(),
    };
    if follower.by_leaves {
        for table in &described {
            let leaves = table.leaves.iter().map(|leaf| (leaf.name(), Some(table.name())));
            follower.roots.extend(leaves);
        }
    }
    let (out, mut looks) = mpsc::channel(1);
    let looking = tokio::spawn(watch::keep_looking(config.clone(), notes.clone(), names, out));
    let following = async {
        follower.stop_unpublished(&described).await?;
        follower.consider(first_look).await?;
        follower.run(&mut wal, &mut looks, &mut request).await
    };
    let followed = following.await;
    looking.abort();
    wal.close().await;
    followed
}

fn lsn(position: &Position) -> Result<u64, Error> {
    match position {
        Position::Lsn(lsn) => Ok(*lsn),
        other => Err(Error::PositionLost {
            position: other.clone(),
            cause: "it is a position of another kind of database".into(),
        }),
    }
}

struct Follower<'a> {
    config: &'a SourceConfig,
    contracts: &'a Contracts,
    tables: HashMap<TableName, TableStart>,
    collector: Collector,
    /// By the ids of this session's messages; `None` for what is not captured.
    relations: HashMap<u32, Option<Announced>>,
    stopped: HashSet<TableName>,
    /// The transaction between Begin and Commit; its `end` is known at Commit only.
    open: Option<TransactionId>,
    /// Of the open transaction.
    xid: u32,
    /// For the types of relations; opened when first needed.
    catalog: Option<PgConnection>,
    notes: &'a Notes,
    /// Tables with partitions that lost their rows, and the end of the log then: up to there it may tell why.
    unsettled: Vec<(TableName, Verdict, u64)>,
    /// Partitions come under their own names, and a root is captured.
    by_leaves: bool,
    /// Partitions and the captured root of each; `None` for other tables that were asked about.
    roots: HashMap<TableName, Option<TableName>>,
}

/// A captured table, or a partition of one, as its last Relation message describes it.
struct Announced {
    /// The captured table.
    name: TableName,
    /// As the message names it.
    relation: TableName,
    message: Bytes,
    /// Made with the first row that is not skipped: a table loaded later may have looked different here.
    plan: Option<Plan>,
}

impl Follower<'_> {
    /// Stops the tables whose changes are not in the stream.
    async fn stop_unpublished(&mut self, described: &[CatalogTable]) -> Result<(), Error> {
        let published =
            |name: &TableName| described.iter().any(|table| &table.name() == name && table.published.is_some());
        let unpublished: Vec<TableName> = self.tables.keys().filter(|name| !published(name)).cloned().collect();
        for name in unpublished {
            let finding = format!("it is not in publication `{}`", self.config.publication);
            self.stop_table_with(&name, finding, RELOAD).await?;
        }
        Ok(())
    }

    /// Acts on what was found beside the log.
    async fn consider(&mut self, look: Look) -> Result<(), Error> {
        for (name, verdict) in look.verdicts {
            let waits = self.unsettled.iter().any(|(other, _, _)| *other == name);
            if waits || self.stopped.contains(&name) || !self.tables.contains_key(&name) {
                continue;
            }
            match verdict {
                Verdict::Fine(notes) => self.notes.set(&name, notes),
                Verdict::Changed(finding) => self.stop_table_with(&name, finding, RELOAD).await?,
                emptied @ Verdict::Emptied { .. } => self.unsettled.push((name, emptied, look.log_end)),
            }
        }
        self.settle().await
    }

    /// Decides what the log had to be read for first.
    async fn settle(&mut self) -> Result<(), Error> {
        let reached = lsn(self.collector.position())?;
        let (due, waiting) = self.unsettled.drain(..).partition(|(_, _, log_end)| *log_end <= reached);
        self.unsettled = waiting;
        let due: Vec<(TableName, Verdict, u64)> = due;
        for (name, verdict, _) in due {
            if let Verdict::Emptied { notes, by, finding } = verdict {
                if self.notes.was_truncated_by(&name, &by) {
                    self.notes.set(&name, notes);
                } else {
                    self.stop_table_with(&name, finding, RELOAD).await?;
                }
            }
        }
        Ok(())
    }

    async fn run(
        &mut self,
        wal: &mut Wal,
        looks: &mut mpsc::Receiver<Look>,
        request: &mut StreamRequest,
    ) -> Result<(), Error> {
        let stop = request.stop.clone();
        let from = request.from.clone();
        let durable = &mut request.durable;
        let mut durable_open = true;
        // The first keepalive says that the server has nothing more to read, even when the position does not move.
        let mut tell = false;
        let mut last_change = Instant::now();
        let mut last_told = Instant::now();
        let mut moved_only = true;
        let mut first_keepalive = true;
        let mut stopping: Option<Instant> = None;
        loop {
            if self.open.is_none() && !self.unsettled.is_empty() {
                self.settle().await?;
            }
            if stop.is_cancelled() {
                let since = *stopping.get_or_insert_with(Instant::now);
                if self.unsettled.is_empty() || since.elapsed() >= SETTLE_MAX {
                    return Ok(());
                }
            }
            let waiting = Instant::now();
            let pending = self.open.is_none() && (tell || self.collector.is_dirty());
            let deadline = if pending {
                let quiet = last_change + QUIET;
                if moved_only && !tell { quiet.max(last_told + MOVE_INTERVAL) } else { quiet }
            } else if stopping.is_some() {
                waiting + QUIET
            } else {
                waiting + SILENCE_MAX
            };
            // The deadline of what is pending may be over already while keepalives keep coming.
            let event = if pending && deadline <= waiting {
                None
            } else {
                tokio::select! {
                    biased;
                    event = wal.next(self.collector.position()) => Some(event?),
                    () = stop.cancelled(), if stopping.is_none() => continue,
                    Some(look) = looks.recv() => {
                        self.consider(look).await?;
                        continue;
                    }
                    changed = durable.changed(), if durable_open => {
                        durable_open = changed.is_ok();
                        let position = durable.borrow_and_update().clone();
                        // Confirming where the stream began says nothing new, and would keep the server from sending
                        // the first keepalive.
                        if !first_keepalive || position != from {
                            acknowledge(wal, &position);
                        }
                        continue;
                    }
                    () = sleep_until(deadline) => None,
                }
            };
            match event {
                Some(WalEvent::Begin { commit_lsn, xid }) => {
                    self.begin(commit_lsn, xid)?;
                    last_change = Instant::now();
                }
                Some(WalEvent::Change(message)) => {
                    self.change(message).await?;
                    last_change = Instant::now();
                }
                Some(WalEvent::Commit { commit_lsn, end_lsn, commit_time_micros }) => {
                    self.commit(commit_lsn, end_lsn, commit_time_micros).await?;
                    last_change = Instant::now();
                    moved_only = false;
                    // Under load no keepalive comes for long, and the watch is only polled when nothing does.
                    if durable.has_changed().unwrap_or(false) {
                        acknowledge(wal, &durable.borrow_and_update());
                    }
                }
                Some(WalEvent::KeepAlive { wal_end }) => {
                    if self.open.is_none() {
                        if lsn(self.collector.position())? < wal_end {
                            self.collector.moved_to(Position::Lsn(wal_end));
                        }
                        tell |= std::mem::take(&mut first_keepalive);
                    }
                    acknowledge(wal, &durable.borrow_and_update());
                }
                Some(WalEvent::Message) => {}
                None if pending => {
                    self.collector.idle().await?;
                    last_told = Instant::now();
                    moved_only = true;
                    tell = false;
                }
                None if stopping.is_some() => {}
                None => {
                    return Err(Error::Disconnected {
                        position: self.collector.position().to_string(),
                        cause: format!("nothing came from the server for {} seconds", SILENCE_MAX.as_secs()),
                    });
                }
            }
        }
    }

    fn begin(&mut self, commit_lsn: u64, xid: u32) -> Result<(), Error> {
        let transaction = TransactionId::Lsn { commit: commit_lsn, end: commit_lsn };
        // Going on would commit the first one's rows with the second.
        if let Some(open) = self.open.replace(transaction) {
            return Err(self.unreadable(format!("commit {} begins inside {open:?}", Position::Lsn(commit_lsn))));
        }
        self.xid = xid;
        Ok(())
    }

    async fn commit(&mut self, commit_lsn: u64, end_lsn: u64, commit_time_micros: i64) -> Result<(), Error> {
        match self.open.take() {
            Some(TransactionId::Lsn { commit, .. }) if commit == commit_lsn && commit < end_lsn => {}
            other => {
                return Err(self.unreadable(format!("commit {} does not close {other:?}", Position::Lsn(commit_lsn))));
            }
        }
        let committed_at = DateTime::<Utc>::from_timestamp_micros(
            commit_time_micros.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000),
        );
        self.collector.commit(&TransactionId::Lsn { commit: commit_lsn, end: end_lsn }, committed_at).await
    }

    fn unreadable(&self, finding: impl Into<String>) -> Error {
        Error::Protocol { position: self.collector.position().to_string(), finding: finding.into() }
    }

    async fn change(&mut self, bytes: Bytes) -> Result<(), Error> {
        let length = bytes.len();
        let unreadable = |error: pgoutput::Unreadable| {
            let kind = bytes.first().map_or_else(|| "nothing".to_owned(), |&kind| format!("`{}`", kind.escape_ascii()));
            self.unreadable(format!("{error}; message type {kind}"))
        };
        match pgoutput::decode(&bytes).map_err(unreadable)? {
            Message::Relation(relation) => self.announce(&relation, &bytes).await,
            Message::Insert { relation, new } => {
                self.rows(relation, length, |plan, sink| plan.insert(sink, &new).map(|()| 1)).await
            }
            Message::Update { relation, old, new } => {
                self.rows(relation, length, |plan, sink| plan.update(sink, old, &new)).await
            }
            Message::Delete { relation, old: (kind, old) } => {
                self.rows(relation, length, |plan, sink| plan.delete(sink, (kind, &old)).map(|()| 1)).await
            }
            Message::Truncate { relations } => self.truncate(&relations).await,
            Message::Origin | Message::Type | Message::Logical => Ok(()),
            // The transport tells these apart.
            Message::Begin { .. } | Message::Commit { .. } => Err(self.unreadable("a transaction inside another")),
        }
    }

    /// A message names every table it empties: a root by its own name, or by those of its partitions, all of them.
    async fn truncate(&mut self, relations: &[u32]) -> Result<(), Error> {
        let mut whole = Vec::new();
        let mut parts: HashMap<TableName, Vec<TableName>> = HashMap::new();
        for &relation in relations {
            if !self.captures(relation)? {
                continue;
            }
            let Some(Some(announced)) = self.relations.get(&relation) else { continue };
            if announced.relation == announced.name {
                whole.push(announced.name.clone());
            } else {
                parts.entry(announced.name.clone()).or_default().push(announced.relation.clone());
            }
        }
        parts.retain(|name, _| !whole.contains(name));
        for (name, emptied) in parts {
            // The catalog may be ahead: a partition made since counts as one that was not emptied, and the table stops.
            let mut connection = connect(self.config).await?;
            let described = catalog::described(&mut connection, std::slice::from_ref(&name)).await?;
            let all =
                described.first().is_some_and(|table| table.leaves.iter().all(|leaf| emptied.contains(&leaf.name())));
            if all {
                whole.push(name);
                continue;
            }
            let emptied: Vec<String> = emptied.iter().map(ToString::to_string).collect();
            let finding = format!(
                "its partition {} was truncated, and the log does not tell which rows it held",
                emptied.join(", ")
            );
            self.stop_table_with(&name, finding, RELOAD).await?;
        }
        for name in whole {
            self.notes.truncated(&name, self.xid);
            self.collector.truncate(&name).await?;
        }
        Ok(())
    }

    /// Takes note of how the rows of a relation are laid out from here on.
    async fn announce(&mut self, relation: &Relation<'_>, message: &Bytes) -> Result<(), Error> {
        let found = TableName::new(relation.namespace, relation.name);
        let before = self.relations.get(&relation.id).and_then(Option::as_ref);
        let renamed = before.filter(|before| before.relation != found).map(|before| before.name.clone());
        if let Some(before) = renamed {
            // Its rows would go unseen under the new name.
            if !self.skips(&before) {
                self.stop_table(&before, format!("it, or a partition of it, was renamed to {found}")).await?;
            }
        }
        let name = if self.tables.contains_key(&found) || !self.by_leaves {
            found.clone()
        } else {
            self.root_of(relation.id, &found).await?.unwrap_or_else(|| found.clone())
        };
        let captured = self.tables.contains_key(&name) && !self.stopped.contains(&name);
        let announced = captured.then(|| Announced { name, relation: found, message: message.clone(), plan: None });
        self.relations.insert(relation.id, announced);
        Ok(())
    }

    /// The captured table that this one is a partition of.
    async fn root_of(&mut self, id: u32, leaf: &TableName) -> Result<Option<TableName>, Error> {
        if let Some(root) = self.roots.get(leaf) {
            return Ok(root.clone());
        }
        let known = self.tables.keys().find(|name| self.notes.has_leaf(name, leaf)).cloned();
        let root = match known {
            Some(root) => Some(root),
            // Made since: the catalog knows. One that is gone again already has left no rows behind.
            None => {
                let ancestors = match &mut self.catalog {
                    Some(connection) => catalog::ancestors(connection, id).await.ok(),
                    None => None,
                };
                let ancestors = match ancestors {
                    Some(ancestors) => ancestors,
                    None => {
                        let connection = self.catalog.insert(connect(self.config).await?);
                        catalog::ancestors(connection, id).await?
                    }
                };
                ancestors.into_iter().find(|ancestor| self.tables.contains_key(ancestor))
            }
        };
        self.roots.insert(leaf.clone(), root.clone());
        Ok(root)
    }

    /// Whether the table already holds the open transaction.
    fn skips(&self, name: &TableName) -> bool {
        match (self.tables.get(name), &self.open) {
            (Some(start), Some(transaction)) => start.position.contains(transaction),
            _ => false,
        }
    }

    /// Whether the open transaction's changes of this relation are wanted.
    fn captures(&self, relation: u32) -> Result<bool, Error> {
        if self.open.is_none() {
            return Err(self.unreadable("a change outside of a transaction"));
        }
        match self.relations.get(&relation) {
            Some(Some(announced)) => Ok(!self.skips(&announced.name)),
            Some(None) => Ok(false),
            None => Err(self.unreadable(format!("a row of relation {relation}, which was not announced"))),
        }
    }

    async fn rows(
        &mut self,
        relation: u32,
        bytes: usize,
        append: impl FnOnce(&Plan, &mut RowSink) -> Result<usize, RowError>,
    ) -> Result<(), Error> {
        if !self.captures(relation)? {
            return Ok(());
        }
        if let Some(Some(Announced { plan: None, .. })) = self.relations.get(&relation) {
            self.plan(relation).await?;
        }
        let Some(Some(Announced { name, plan: Some(plan), .. })) = self.relations.get(&relation) else {
            return Ok(());
        };
        let sink = self.collector.rows(&plan.schema().clone());
        match append(plan, sink) {
            Ok(rows) => self.collector.decoded(rows, bytes).await,
            Err(RowError::Value(finding)) => {
                let name = name.clone();
                self.stop_table_with(&name, finding, VALUE_REMEDY).await
            }
            Err(RowError::Source(error)) => Err(error),
        }
    }

    /// Makes the decode plan of a relation, or stops its table.
    async fn plan(&mut self, id: u32) -> Result<(), Error> {
        let Some(Some(announced)) = self.relations.get(&id) else { return Ok(()) };
        let (name, found) = (announced.name.clone(), announced.relation.clone());
        let message = announced.message.clone();
        let Ok(Message::Relation(relation)) = pgoutput::decode(&message) else {
            return Err(self.unreadable("a relation that can't be read again"));
        };
        let Some(start) = self.tables.get(&name) else { return Ok(()) };
        let schema = start.schema.clone();
        let another = self.relations.iter().any(|(&other, announced)| {
            other != id && announced.as_ref().is_some_and(|other| other.relation == found && other.plan.is_some())
        });
        if another {
            return self.stop_table(&name, "it was dropped and created again, or another table took its name").await;
        }
        let wanted: Vec<(u32, i32)> = relation.columns.iter().map(|column| (column.type_oid, column.typmod)).collect();
        let types = self.types(&wanted).await?;
        let excluded = self
            .contracts
            .get(&self.config.name, &name.to_string())
            .map(|contract| contract.exclude.as_slice())
            .unwrap_or_default();
        match Plan::for_relation(&relation, &types, &schema, excluded) {
            Ok(plan) => {
                if let Some(Some(announced)) = self.relations.get_mut(&id) {
                    announced.plan = Some(plan);
                }
                Ok(())
            }
            Err(finding) => self.stop_table(&name, finding).await,
        }
    }

    async fn types(&mut self, wanted: &[(u32, i32)]) -> Result<Vec<ResolvedType>, Error> {
        // A session that was idle for long may be gone: one more try on a fresh one.
        if let Some(connection) = &mut self.catalog {
            match catalog::resolved(connection, wanted).await {
                Ok(types) => return Ok(types),
                Err(error) => warn!(%error, "the catalog session failed, opening another"),
            }
        }
        let connection = self.catalog.insert(connect(self.config).await?);
        catalog::resolved(connection, wanted).await
    }

    async fn stop_table(&mut self, name: &TableName, finding: impl Into<String>) -> Result<(), Error> {
        self.stop_table_with(name, finding.into(), REMEDY).await
    }

    async fn stop_table_with(&mut self, name: &TableName, finding: String, remedy: &str) -> Result<(), Error> {
        let position = match &self.open {
            Some(TransactionId::Lsn { commit, .. }) => Position::Lsn(*commit),
            _ => self.collector.position().clone(),
        };
        let error =
            Error::Table { table: name.to_string(), finding, position: position.to_string(), remedy: remedy.into() };
        self.stopped.insert(name.clone());
        self.notes.forget(name);
        self.unsettled.retain(|(waiting, _, _)| waiting != name);
        for announced in self.relations.values_mut() {
            if announced.as_ref().is_some_and(|announced| &announced.name == name) {
                *announced = None;
            }
        }
        self.collector.stop_table(name, error).await
    }
}

fn acknowledge(wal: &Wal, durable: &Position) {
    if let Position::Lsn(lsn) = durable {
        wal.acknowledge(*lsn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatabaseKind, TableSelection, Tls};
    use crate::source::CollectorLimits;

    /// Their rows would be committed as one transaction, at the second one's position.
    #[tokio::test]
    async fn a_transaction_inside_another_is_refused() {
        let config = SourceConfig {
            name: "shop".into(),
            kind: DatabaseKind::Postgres,
            host: String::new(),
            port: 0,
            user: String::new(),
            password: None,
            database: String::new(),
            tls: Tls::Prefer,
            tls_ca_file: None,
            tables: TableSelection::parse(&["*.*"]).expect("valid"),
            server_id: 0,
            slot: String::new(),
            publication: String::new(),
        };
        let (out, _events) = mpsc::channel(8);
        let mut follower = Follower {
            config: &config,
            contracts: &Contracts::default(),
            tables: HashMap::new(),
            collector: Collector::new(Position::Lsn(0), CollectorLimits::default(), out),
            relations: HashMap::new(),
            stopped: HashSet::new(),
            open: None,
            xid: 0,
            catalog: None,
            notes: &Notes::default(),
            unsettled: Vec::new(),
            by_leaves: false,
            roots: HashMap::new(),
        };
        follower.begin(0x100, 7).expect("nothing is open");
        follower.commit(0x100, 0x120, 0).await.expect("it closes what is open");
        follower.begin(0x200, 8).expect("nothing is open");
        let error = follower.begin(0x300, 9).expect_err("a transaction is open");
        assert!(matches!(&error, Error::Protocol { finding, .. } if finding.contains("0/300")), "{error}");
    }
}
