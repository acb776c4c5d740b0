//! Follows the log: transactions into the collector, positions back to the server.
//!
//! Why nothing is lost or repeated: the server sends each transaction after its commit, in commit order, and starts at
//! the first whose commit record is at or after the position asked for; the position moves at commit markers,
//! or between transactions to where a keepalive says that everything before was sent; a table that already holds
//! a transaction skips it; the server is told a position only when the caller calls it durable. What changes a table
//! without a trace in the log is found by [`watch`] beside.
//!
//! [`relations`] makes of the log's relations tables, and of their layout plans to decode rows; [`changes`] tells what
//! becomes of tables, in order with their rows.

mod changes;
mod relations;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tracing::info;

use super::attributes::{Attributes, Description};
use super::catalog;
use super::connection::{WAL_SENDER_TIMEOUT, connect};
use super::newcomers::{Chosen, Newcomers};
use super::pgoutput::{self, Message};
use super::plan::{Plan, RowError};
use super::wal::{Wal, WalEvent};
use super::watch::{Look, Notes, Watch};
use super::{ddl, slot};
use crate::config::{Contract, Contracts, SourceConfig};
use crate::schema::{TableName, TableSchema};
use crate::source::{Collector, Error, Event, Position, RowSink, StreamRequest, TableStart, TransactionId};
use changes::Pending;
use relations::Announced;

/// Nothing more came for this long after a transaction: what is gathered is handed on.
const QUIET: Duration = Duration::from_millis(15);

/// A position that moved without a transaction is told no more often than this.
const MOVE_INTERVAL: Duration = Duration::from_millis(200);

/// The server breaks its silence after half of its timeout; after this it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(WAL_SENDER_TIMEOUT.as_secs() + 15);

const REMEDY: &str = "load it again with `lakeward resync`; with lakeward's event trigger \
                      (docs/event-trigger.md) such changes are told exactly";

const VALUE_REMEDY: &str = "mend it at the source, or say in the table's contract what becomes of it, then load it again with \
                            `lakeward resync`";

const RELOAD: &str = "load it again with `lakeward resync`";

/// How much longer than asked a stream goes on to settle what a look found.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// Seconds from 1970 to 2000, PostgreSQL's epoch.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// See [`crate::source::Source::stream`].
pub async fn follow(
    config: &SourceConfig,
    contracts: &Contracts,
    notes: &Notes,
    chosen: Option<Chosen>,
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
    let known = chosen.as_ref().map(|chosen| chosen.taken.clone()).unwrap_or_default();
    let mut watch = Watch {
        config: config.clone(),
        contracts: contracts.clone(),
        notes: notes.clone(),
        tables: request.tables.keys().cloned().collect(),
        newcomers: Newcomers::new(chosen),
        prints: HashMap::new(),
        fresh: HashMap::new(),
        last: 0,
    };
    let first_look = watch.look(&mut connection).await?;
    drop(connection);
    let mut wal = Wal::start(config, from).await?;
    info!(source = config.name, slot = config.slot, position = %request.from, "following the log");
    let described = &first_look.described;
    let by_leaves = !publication.via_root && described.iter().any(|(_, table)| table.partitioned);
    let mut follower = Follower {
        config,
        contracts,
        tables: HashMap::new(),
        collector: Collector::new(request.from.clone(), request.limits, out),
        relations: HashMap::new(),
        stopped: HashSet::new(),
        gone: HashSet::new(),
        appeared: HashSet::new(),
        known,
        open: None,
        xid: 0,
        committed_at: None,
        ordinals: HashMap::new(),
        catalog: None,
        notes,
        durable: request.durable.clone(),
        pending: Vec::new(),
        told: first_look.told,
        by_leaves,
        roots: HashMap::new(),
    };
    for (name, start) in std::mem::take(&mut request.tables) {
        let description = described.iter().find(|(described, _)| *described == name).map(|(_, table)| table);
        follower.take_up(name, start, description)?;
    }
    if by_leaves {
        for (name, table) in described {
            follower.roots.extend(table.leaves.iter().map(|leaf| (leaf.clone(), Some(name.clone()))));
        }
    }
    let (out, mut looks) = mpsc::channel(1);
    let looking = tokio::spawn(watch.keep_looking(out));
    let following = async {
        follower.stop_unpublished(&first_look).await?;
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

fn utc(postgres_micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(postgres_micros.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000))
}

struct Follower<'a> {
    config: &'a SourceConfig,
    contracts: &'a Contracts,
    tables: HashMap<TableName, Followed>,
    collector: Collector,
    /// By the ids of this session's messages; `None` for what is not captured.
    relations: HashMap<u32, Option<Announced>>,
    stopped: HashSet<TableName>,
    /// Of the stopped, those that were dropped or renamed.
    gone: HashSet<TableName>,
    /// Told already.
    appeared: HashSet<TableName>,
    /// Those that were there when the tables were chosen.
    known: BTreeSet<TableName>,
    /// The transaction between Begin and Commit; its `end` is known at Commit only.
    open: Option<TransactionId>,
    /// Of the open transaction.
    xid: u32,
    committed_at: Option<DateTime<Utc>>,
    /// How many changes of a table were told since the last commit.
    ordinals: HashMap<TableName, u32>,
    /// For what the log does not tell of relations; opened when first needed.
    catalog: Option<PgConnection>,
    notes: &'a Notes,
    durable: watch::Receiver<Position>,
    /// What was found beside the log, and where the log ended then: up to there it is read first, since it may tell more.
    pending: Vec<(u64, TableName, Pending)>,
    /// An event trigger tells DDL.
    told: bool,
    /// Partitions come under their own names, and a root is captured.
    by_leaves: bool,
    /// Partitions and the captured root of each; `None` for other tables that were asked about.
    roots: HashMap<TableName, Option<TableName>>,
}

/// A captured table at the place where the stream stands.
struct Followed {
    schema: Arc<TableSchema>,
    /// Transactions in here are in the lake already.
    position: Position,
    ignored: BTreeSet<String>,
    /// Its columns by number; `None` where they are not known for certain.
    attributes: Option<Attributes>,
    /// The publication lists its columns: new ones are not sent.
    listed: bool,
    /// The commit of its last schema change.
    changed_at: u64,
    /// The catalog was looked at, and all was in order.
    found_fine: bool,
    /// Since then a change was told that rewrites rows.
    rewrote: bool,
}

impl Follower<'_> {
    /// Begins to follow a table from where the lake has it.
    fn take_up(&mut self, name: TableName, start: TableStart, description: Option<&Description>) -> Result<(), Error> {
        let at = lsn(&start.position)?;
        let contract = self.contract(&name);
        let left_out = |name: &String| contract.exclude.contains(name) || start.ignored.contains(name);
        let attributes = self.notes.in_force(&name, at, &start.schema).or_else(|| {
            let now = &description?.attributes;
            let all = now.sent().all(|own| start.schema.column_index(&own.name).is_some() || left_out(&own.name));
            // The catalog may be ahead; where it looks the same, it is taken to be the same.
            (all && now.fit(&start.schema)).then(|| now.clone())
        });
        let listed = description.is_some_and(|description| description.listed);
        let TableStart { schema, position, ignored, .. } = start;
        let (changed_at, found_fine, rewrote) = (0, false, false);
        let followed = Followed { schema, position, ignored, attributes, listed, changed_at, found_fine, rewrote };
        self.tables.insert(name, followed);
        Ok(())
    }

    fn contract(&self, name: &TableName) -> Contract {
        self.contracts.get(&self.config.name, &name.to_string()).cloned().unwrap_or_default()
    }

    /// Stops the tables whose changes are not in the stream. What is gone, or is another table now, the log tells first.
    async fn stop_unpublished(&mut self, look: &Look) -> Result<(), Error> {
        for (name, table) in &look.described {
            let followed = self.tables.get(name).and_then(|followed| followed.attributes.as_ref());
            let another = followed.is_some_and(|followed| followed.oid != table.attributes.oid);
            if !table.published && !another {
                let finding = format!("it is not in publication `{}`", self.config.publication);
                self.stop_table(name, finding, RELOAD).await?;
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
            if self.open.is_none() && !self.pending.is_empty() {
                self.settle().await?;
            }
            if stop.is_cancelled() {
                let since = *stopping.get_or_insert_with(Instant::now);
                if !self.waits_to_settle() || since.elapsed() >= SETTLE_MAX {
                    // What was told between transactions, such as that a table is gone, has no boundary yet.
                    if self.open.is_none() && self.collector.is_torn() {
                        self.collector.idle().await?;
                    }
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
                Some(WalEvent::Begin { commit_lsn, xid, commit_time_micros }) => {
                    self.begin(commit_lsn, xid)?;
                    self.committed_at = utc(commit_time_micros);
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
                Some(WalEvent::Message { prefix, content }) if prefix == ddl::PREFIX => {
                    self.told_ddl(&content).await?;
                }
                Some(WalEvent::Message { .. } | WalEvent::Other) => {}
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
        self.ordinals.clear();
        let transaction = TransactionId::Lsn { commit: commit_lsn, end: end_lsn };
        self.collector.commit(&transaction, utc(commit_time_micros)).await
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
            self.stop_untold(&name, finding, RELOAD).await?;
        }
        for name in whole {
            self.notes.truncated(&name, self.xid);
            self.collector.truncate(&name).await?;
        }
        Ok(())
    }

    /// Whether the table already holds the open transaction.
    fn skips(&self, name: &TableName) -> bool {
        match (self.tables.get(name), &self.open) {
            (Some(followed), Some(transaction)) => followed.position.contains(transaction),
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
                self.stop_table(&name, finding, VALUE_REMEDY).await
            }
            Err(RowError::Source(error)) => Err(error),
        }
    }

    async fn stop_table(&mut self, name: &TableName, finding: String, remedy: &str) -> Result<(), Error> {
        self.end_table(name, finding, remedy, false).await
    }

    /// For a change of the table of which neither log nor catalog tells what it did.
    async fn stop_untold(&mut self, name: &TableName, finding: String, remedy: &str) -> Result<(), Error> {
        self.end_table(name, finding, remedy, true).await
    }

    async fn end_table(
        &mut self,
        name: &TableName,
        finding: String,
        remedy: &str,
        by_change: bool,
    ) -> Result<(), Error> {
        let position = match &self.open {
            Some(TransactionId::Lsn { commit, .. }) => Position::Lsn(*commit),
            _ => self.collector.position().clone(),
        };
        let error =
            Error::Table { table: name.to_string(), finding, position: position.to_string(), remedy: remedy.into() };
        self.notes.forget(name);
        self.let_go(name);
        self.collector.stop_table(name, error, by_change).await
    }

    /// No row of the table is wanted any more.
    fn let_go(&mut self, name: &TableName) {
        self.stopped.insert(name.clone());
        self.pending.retain(|(_, waiting, _)| waiting != name);
        for announced in self.relations.values_mut() {
            if announced.as_ref().is_some_and(|announced| &announced.name == name) {
                *announced = None;
            }
        }
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
            on_lost_position: crate::config::OnLostPosition::Stop,
        };
        let (out, _events) = mpsc::channel(8);
        let mut follower = Follower {
            config: &config,
            contracts: &Contracts::default(),
            tables: HashMap::new(),
            collector: Collector::new(Position::Lsn(0), CollectorLimits::default(), out),
            relations: HashMap::new(),
            stopped: HashSet::new(),
            gone: HashSet::new(),
            appeared: HashSet::new(),
            known: BTreeSet::new(),
            open: None,
            xid: 0,
            committed_at: None,
            ordinals: HashMap::new(),
            catalog: None,
            notes: &Notes::default(),
            durable: watch::channel(Position::Lsn(0)).1,
            pending: Vec::new(),
            told: false,
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
