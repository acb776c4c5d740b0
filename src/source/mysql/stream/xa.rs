//! XA transactions: rows come when they are prepared, and count when a later transaction says so.
//!
//! A table that is loaded between the two sees the source without the rows and must get them at the decision; one that is
//! loaded after the decision must not. So rows are handed on for every captured table, and [`Reader::decide`] names the tables
//! whose position does not have the decision. Whoever gathers keeps the rows until then.

use super::super::wire::Fault;
use super::super::xid;
use super::{DateTime, Error, Reader, TableName, Utc};

impl Reader {
    pub(super) fn is_xa(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.xa)
    }

    /// In an XA transaction, remembers a table whose rows are not handed on.
    pub(super) fn note_unsent(&mut self, name: TableName) {
        if let Some(open) = &mut self.open
            && open.xa
            && !open.unsent.contains(&name)
        {
            open.unsent.push(name);
        }
    }

    /// The transaction is prepared, or, in one phase, prepared and committed.
    pub(super) async fn xa_prepare(&mut self, body: &[u8], time: Option<DateTime<Utc>>) -> Result<(), Error> {
        let (one_phase, xid) = xid::prepare_event(body).map_err(|fault| self.protocol("XA PREPARE", &fault))?;
        let Some(open) = self.open.as_mut().filter(|open| open.xa) else {
            return Err(self.protocol("XA PREPARE", &Fault::new("it ends no XA transaction")));
        };
        open.xa = false;
        open.touched.clear();
        let unsent = std::mem::take(&mut open.unsent);
        tracing::debug!(xid, one_phase, "an XA transaction is prepared");
        self.collector.prepared(xid.clone(), unsent).await?;
        if one_phase {
            self.decide(xid, true).await?;
        }
        self.commit(time).await
    }

    pub(super) async fn decide(&mut self, xid: String, commit: bool) -> Result<(), Error> {
        let wanting = self.tables.iter().filter(|(_, table)| !table.stopped && self.wants(table));
        let wanting: Vec<TableName> = wanting.map(|(name, _)| name.clone()).collect();
        tracing::debug!(xid, commit, "a prepared XA transaction is decided");
        self.collector.decided(xid, commit, wanting, self.place()).await
    }
}
