//! The captured tables, and for which of them a transaction counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Contract;
use crate::schema::{Layout, TableName, TableSchema};
use crate::source::{Position, TableStart, TransactionId};

use super::Reader;

/// A captured table.
pub struct Followed {
    pub schema: Arc<TableSchema>,
    /// How its rows lie in the log here; `None` where the ledger has no history of it.
    pub layout: Option<Arc<Layout>>,
    pub position: Position,
    /// The stream is behind no transaction of this table's position any more.
    pub past: bool,
    pub stopped: bool,
    /// It was dropped or renamed away; what has its name now is another table.
    pub gone: bool,
    pub contract: Contract,
    /// Columns that are left out by policy.
    pub ignored: BTreeSet<String>,
}

impl Followed {
    pub fn new(start: TableStart, contract: Contract) -> Self {
        let TableStart { schema, position, layout, ignored } = start;
        Self { schema, layout, position, past: false, stopped: false, gone: false, contract, ignored }
    }

    /// Whether the column never reaches the lake.
    pub fn excludes(&self, column: &str) -> bool {
        self.ignored.contains(column) || self.contract.exclude.iter().any(|excluded| excluded == column)
    }
}

impl Reader {
    /// Notes which tables the stream has caught up with.
    pub(super) fn pass_tables(&mut self) {
        if self.all_past {
            return;
        }
        let position = self.collector.position();
        for table in self.tables.values_mut() {
            table.past = table.past || position.covers(&table.position);
        }
        self.all_past = self.tables.values().all(|table| table.past);
    }

    /// The captured table of this name, if the open transaction counts for it.
    pub(super) fn counted(&self, name: &TableName) -> Option<&Followed> {
        let table = self.tables.get(name).filter(|table| !table.stopped)?;
        // Whether XA rows count is known at their decision.
        let counts = self.open.as_ref().is_some_and(|open| open.xa) || self.wants(table);
        counts.then_some(table)
    }

    /// Whether the open transaction is new to the table.
    pub(super) fn wants(&self, table: &Followed) -> bool {
        if table.past {
            return true;
        }
        let contained = match self.open.as_ref().and_then(|open| open.id.as_ref()) {
            Some(id) if !self.by_offset => table.position.contains(id),
            // Any offset inside a transaction tells on which side of a boundary it lies.
            _ => table.position.contains(&TransactionId::BinlogOffset { file: self.file.clone(), end: self.offset }),
        };
        !contained
    }
}
