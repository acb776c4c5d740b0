//! lakeward keeps Delta Lake tables equal to tables in MySQL, MariaDB and PostgreSQL.
//!
//! The rooms, and the way of the data through them: `source` (logs to columnar changes) → `pipeline` (per source:
//! batches cut at transaction boundaries) → `lake` (Delta tables), with `ledger` (durable positions, leases) beside.
//! See ARCHITECTURE.md.

pub mod cli;
pub mod config;
pub mod lake;
pub mod ledger;
pub mod pipeline;
pub mod schema;
pub mod snapshot;
pub mod source;
