//! Tells people what happened to tables.
//!
//! What happens is entered into the source's outbox ([`ledger::Outbox`](crate::ledger::Outbox)) by the pipeline, before
//! the position moves past it. From there it goes three ways, none of which the data waits for:
//!
//! * to each channel of config.toml, event by event ([`Deliveries`]), at least once and in order for each table;
//! * once a day as a summary to channels that want one ([`Digests`]);
//! * into the Delta table `_lakeward/schema_changes`, exactly once, for whoever asks later.
//!
//! The formats are described in docs/notices.md and, for machines, in schemas/events/.

mod channel;
mod command;
mod delivery;
mod digest;
mod email;
mod event;
mod history;
mod report;
pub mod sample;
mod slack;
mod web;
mod words;

pub use channel::{Channel, Failure, Receipt};
pub use delivery::{Deliveries, Pauses, Progress};
pub use digest::{Digests, sample_digest};
pub use event::Notice;
pub use history::schema_changes_url;
pub use report::{ChannelReport, report};

use crate::{lake, ledger};

/// What is wrong with the lake that the notices are kept in; a channel's trouble is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lake(#[from] lake::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}
