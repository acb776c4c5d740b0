//! From a database's log to ordered, columnar changes.
//!
//! A [`Source`] promises: events come in commit order; a [`Event::Boundary`] closes whole transactions only; every
//! committed transaction at or after the requested position that touched a captured table is reported, none twice; a
//! value is decoded with the schema in force at its own log position; nothing is acknowledged to the database beyond
//! what the caller says is durable.
//!
//! Knows databases, knows nothing of Delta. MySQL and MariaDB live in [`mysql`], PostgreSQL in [`postgres`].

pub mod chunk;
mod collector;
mod distance;
mod error;
mod foretold;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod log_state;
pub mod mysql;
mod position;
pub mod postgres;
mod problem;

pub use chunk::{Chunk, ChunkEvent, ChunkRead, ChunkRows, KeyBound, LoadStart};
pub use collector::{Collector, CollectorLimits, Mark, RowSink};
pub use distance::{Distance, Unit};
pub use error::{Class, Error};
pub use foretold::{Foretold, without};
pub use log_state::{Kept, LogFile, LogState};
pub use position::{GtidSet, Position, TransactionId, UnreadablePosition};
pub use problem::{Problem, ProblemKind};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::schema::{Layout, SchemaChange, Shape, TableName, TableSchema, Unfaithful};
pub use crate::schema::{Op, TableRows};

/// What a source tells, in order.
#[derive(Debug)]
pub enum Event {
    Rows(TableRows),
    /// All rows of the table are gone.
    Truncate(TableName),
    /// All transactions up to `position` are complete: everything sent before belongs to them. Also sent, with
    /// `transactions` 0, when only the position moved (idle database, changes of other tables).
    Boundary {
        position: Position,
        /// When the last of these transactions was committed, by the source's clock; `None` when unknown.
        committed_at: Option<DateTime<Utc>>,
        /// When the first of them was.
        first_committed_at: Option<DateTime<Utc>>,
        transactions: u64,
        /// The log had nothing more to read when this was told.
        caught_up: bool,
        told_at: DateTime<Utc>,
    },
    /// How rows of this table lie in the log from here on; every row sent before lies as it did. To be kept no later than
    /// the position of the boundary that follows. Also told before a table stops over the change.
    Layout {
        table: TableName,
        layout: Arc<Layout>,
        statement: String,
    },
    /// The table's columns are others from here on: rows before it have the schema `before`, rows after it `after`. Told for
    /// every change of columns, types or key that concerns what is captured. On sources with transactions around DDL it may
    /// stand between rows of one transaction.
    SchemaChange(Box<SchemaChange>),
    /// The table is gone from the source; no more rows of it come.
    TableDropped {
        table: TableName,
        statement: Option<String>,
        place: String,
        at: Option<DateTime<Utc>>,
    },
    /// A table that the configuration selects was created, or renamed into place. It is not followed before it was loaded.
    TableAppeared {
        table: TableName,
        statement: Option<String>,
        place: String,
        at: Option<DateTime<Utc>>,
    },
    /// Forget every change since the last boundary: their transaction was rolled back after all.
    Rollback,
    /// What came of the open transaction is not part of it: it belongs to the transaction of this name (`X'67',X'62',1`), which
    /// is only prepared and waits for its decision. Rows of it come for every captured table, also for those whose own
    /// position has this transaction already: whether a table wants them is known at the decision.
    Prepared {
        xid: String,
        /// Tables it changed whose rows were not sent: not captured then, stopped, or unreadable.
        unsent: Vec<TableName>,
    },
    /// The transaction that was prepared under this name becomes part of the open one, for the `wanting` tables (the others have
    /// the decision already), or, rolled back, never happened.
    Decided {
        xid: String,
        commit: bool,
        wanting: Vec<TableName>,
        /// Where in the log, for messages.
        place: String,
    },
    /// This table can't be followed any further; its changes since the last boundary must not be applied, and no more
    /// will come. The others go on.
    TableStopped {
        table: TableName,
        error: Error,
        /// It is a change of the table itself, and the log only does not tell what it did: loaded again as it is now, the
        /// table can be followed.
        by_change: bool,
    },
}

/// Where a table stands when streaming begins.
#[derive(Clone, Debug)]
pub struct TableStart {
    pub schema: Arc<TableSchema>,
    /// Transactions this position contains are in the lake already and are skipped for this table.
    pub position: Position,
    /// How its rows lie in the log at that position, where the source tells such things and they are known.
    pub layout: Option<Arc<Layout>>,
    /// Columns at the source that are left out by policy, besides those that the contract excludes.
    pub ignored: BTreeSet<String>,
}

/// What to stream.
#[derive(Debug)]
pub struct StreamRequest {
    /// Read everything after this position.
    pub from: Position,
    pub tables: HashMap<TableName, TableStart>,
    /// The position that is durable in the lake: the source acknowledges up to here, never further.
    pub durable: watch::Receiver<Position>,
    pub limits: CollectorLimits,
    /// Ends the stream soon and with `Ok`.
    pub stop: CancellationToken,
}

/// A first load, table by table: `Table`, its `Rows`, `TableDone`, then the next table.
#[derive(Debug)]
pub enum SnapshotEvent {
    Table {
        schema: Arc<TableSchema>,
        /// The rows that follow are exactly the effect of the transactions this position contains.
        position: Position,
        /// How rows lie in the log at that position, for sources that tell ([`Event::Layout`]).
        layout: Option<Arc<Layout>>,
        /// The planner's estimate, for progress bars.
        rows_estimate: Option<u64>,
    },
    /// Rows, and those of their values that have no faithful lake form.
    Rows {
        rows: RecordBatch,
        unfaithful: Vec<Unfaithful>,
    },
    TableDone,
}

/// How a source was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `MariaDB 10.11.19`, `MySQL 9.7.4`, `PostgreSQL 15.18`.
    pub server: String,
    /// What tells this history of changes from another server's: `server_uuid` on MySQL, the system identifier and
    /// timeline on PostgreSQL, the GTID domain and server id on MariaDB.
    pub history: String,
}

/// A database whose tables are followed.
pub trait Source: Send + Sync + 'static {
    fn identity(&self) -> impl Future<Output = Result<Identity, Error>> + Send;

    /// Everything that would keep `tables` from being captured, each with its remedy. Changes nothing.
    fn preflight(&self) -> impl Future<Output = Result<Vec<Problem>, Error>> + Send;

    /// The tables that the configuration selects, as the catalog describes them now, contracts applied. The caller
    /// refuses those that [`TableSchema::can_be_followed`] does not hold for.
    fn discover(&self) -> impl Future<Output = Result<Vec<TableSchema>, Error>> + Send;

    /// What `statement` would do to the table that has this shape in the lake, as far as its text and the catalog say.
    /// Runs nothing but reads of the catalog, and takes no lock.
    fn foretell(&self, shape: &Shape, statement: &str) -> impl Future<Output = Result<Foretold, Error>> + Send;

    /// Whether two declarations of a column mean the same type to the source.
    fn declares_alike(&self, one: &str, other: &str) -> bool {
        one == other
    }

    /// The position of the last transaction committed so far.
    fn head(&self) -> impl Future<Output = Result<Position, Error>> + Send;

    /// Those of `tables` whose changes are not in the log this source reads at present (PostgreSQL: not in the
    /// publication). Changes nothing.
    fn unpublished(&self, _tables: &[TableName]) -> impl Future<Output = Result<Vec<TableName>, Error>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Makes the source ready to be followed (slot, publication) and says where streaming starts: `durable` where it is
    /// still available, the present position when there is none yet. Idempotent.
    fn prepare(
        &self,
        tables: &[TableName],
        durable: Option<&Position>,
    ) -> impl Future<Output = Result<Position, Error>> + Send;

    /// The position is lost, and all tables are loaded anew: what the source keeps that could only be read from there goes.
    /// [`Source::prepare`] without a position follows. Idempotent.
    fn give_up_position(&self) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// `tables` are about to be loaded: whatever changes them from here on without a trace in the log is noticed, and
    /// stops them.
    fn observe(&self, _tables: &[TableName]) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// What has to outlive this process besides positions, by table and in the source's own words: it is kept in the ledger.
    fn notes(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Takes back what [`Source::notes`] gave, before anything else is asked.
    fn recall(&self, _notes: &BTreeMap<String, String>) {}

    /// Reads `tables` whole, each exactly as of the position it reports. Changes nothing; starting again is safe.
    fn snapshot(
        &self,
        tables: &[TableName],
        out: mpsc::Sender<SnapshotEvent>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Where a load of each of `tables` begins: a position of the log, and the table as it is defined there. No row is read
    /// and nothing stays open; what is read later sees everything up to there once it is [`Source::visible`]. Changes nothing.
    fn begin_load(&self, tables: &[TableName]) -> impl Future<Output = Result<Vec<LoadStart>, Error>> + Send;

    /// Returns when everything in `position`, which has been in the log already, is visible to whatever is read from now on:
    /// the log may be ahead of what the database shows. It may take as long as a transaction takes; says so after a while.
    fn visible(&self, position: &Position) -> impl Future<Output = Result<(), Error>> + Send;

    /// The chunk of `rows` rows after `after`, as the table is now; `to` is open when it is the last one. The whole table
    /// where it has no key, or one that the database has no order for.
    fn next_chunk(
        &self,
        table: &TableSchema,
        after: Option<&KeyBound>,
        rows: u64,
    ) -> impl Future<Output = Result<Chunk, Error>> + Send;

    /// Reads a chunk in a short transaction of its own, which sees everything that is visible at the call. Several may be
    /// read at once. `filter`: an SQL condition in the source's words, which rows have to meet. Changes nothing.
    ///
    /// [`Error::BoundsVoid`]: the key is ordered otherwise than when the bounds were found; begin at the first chunk.
    fn read_chunk(
        &self,
        table: &TableName,
        chunk: &Chunk,
        filter: Option<&str>,
        out: mpsc::Sender<ChunkEvent>,
    ) -> impl Future<Output = Result<ChunkRead, Error>> + Send;

    /// How many statements run at the source now.
    fn running(&self) -> impl Future<Output = Result<u64, Error>> + Send;

    /// How far the source's replication is behind, as far as it knows.
    fn replica_lag(&self) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;

    /// Streams changes until `request.stop`, or until an error; on a transient one the caller starts again.
    fn stream(
        &self,
        request: StreamRequest,
        out: mpsc::Sender<Event>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}
