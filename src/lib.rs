//! lakeward keeps Delta Lake tables equal to tables in MySQL, MariaDB and PostgreSQL.
//!
//! The rooms, and the way of the data through them: `source` (logs to columnar changes) → `pipeline` (per source:
//! batches cut at transaction boundaries) → `lake` (Delta tables), with `ledger` (durable positions, leases) beside.
//! See ARCHITECTURE.md.
//!
//! Without the feature `daemon` there are only the sources and what they stand on: for the fuzz targets.

#![forbid(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod cli;
pub mod config;
#[cfg(feature = "daemon")]
pub mod lake;
#[cfg(feature = "daemon")]
pub mod ledger;
#[cfg(feature = "daemon")]
pub mod notice;
#[cfg(feature = "daemon")]
pub mod pipeline;
pub mod schema;
#[cfg(feature = "daemon")]
pub mod snapshot;
pub mod source;
