//! Where a load in chunks begins, without a lock that anybody but DDL would notice.
//!
//! Rows need no snapshot at that position: chunks see it or more, once it is visible (docs/decisions/011). Only the table's
//! definition has to be the one in force there. A transaction that has touched the table holds its metadata lock, which a
//! statement that changes the definition needs alone from before it is written to the log until the catalog shows it (MySQL
//! manual 10.11.4 "Metadata Locking"; MariaDB KB "Metadata Locking"). So while it is held, log and catalog agree.

use std::sync::Arc;

use crate::config::{Contracts, SourceConfig};
use crate::schema::TableName;
use crate::source::{Error, LoadStart};

use super::connection::Session;
use super::position::head;
use super::{catalog, chunk, layout, snapshot};

/// Of one table: the log's end, and the table as it is there.
pub async fn begin(config: &SourceConfig, contracts: &Contracts, name: &TableName) -> Result<LoadStart, Error> {
    let mut holder = snapshot::session(config).await?;
    holder.execute("START TRANSACTION READ ONLY").await?;
    chunk::touch(&mut holder, name).await.map_err(|interruption| interruption.error)?;
    let mut session = Session::open(config).await?;
    let position = head(&mut session).await?;
    let mut layouts = layout::read(&mut session, std::slice::from_ref(name)).await?;
    let collations = catalog::collations(&mut session).await?;
    let table = catalog::table(&mut session, config, contracts, &collations, name).await?;
    let table = snapshot::followable(name, table.as_ref(), &position)?;
    holder.execute("COMMIT").await?;
    Ok(LoadStart {
        schema: Arc::new(table.schema),
        position,
        layout: layouts.remove(name).map(Arc::new),
        rows_estimate: table.rows_estimate,
    })
}
