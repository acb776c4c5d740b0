//! What can go wrong at a source, in two families: transient errors are tried again, definite ones wait for a person.

use super::Position;

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Connection lost, server restarting: try again with backoff.
    Transient,
    /// Permanent until somebody acts; the message says what to do.
    Definite,
}

/// A source's error. Messages name the place and the remedy; the caller adds the source's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to {address}: {cause}; check that the server runs and that host, port and `tls` are right")]
    Connect { address: String, cause: String },

    #[error(
        "{address} refused user `{user}`: {cause}; check `password_file` or `password_env` and that the user may connect from this host"
    )]
    Authentication { address: String, user: String, cause: String },

    #[error("missing privilege: {need}; run: {remedy}")]
    Privilege { need: String, remedy: String },

    #[error("{subject}: {finding}; {remedy}")]
    Setting { subject: String, finding: String, remedy: String },

    #[error(
        "position {position} is no longer available at the source: {cause}; changes since then can't be read any more: load the tables again (`lakeward resync --all --source NAME`; see README, \"When a position is lost\")"
    )]
    PositionLost { position: Position, cause: String },

    #[error(
        "replication slot `{slot}` {cause}; changes since {position} can't be read any more: load the tables again (`lakeward resync --all --source NAME`; see README, \"When a position is lost\")"
    )]
    SlotLost { slot: String, cause: String, position: Position },

    #[error(
        "replication slot `{slot}` is in use by process {pid} of the server; stop that reader, or give this source another `slot`"
    )]
    SlotInUse { slot: String, pid: String },

    #[error(
        "the server's history is {found}, the lake was loaded from {expected}; after a failover to a server with another history load the tables again (`lakeward resync --all --source NAME`; see README, \"When a position is lost\")"
    )]
    OtherHistory { expected: String, found: String },

    #[error("table {table}: {finding} at {position}; {remedy}")]
    Table { table: String, finding: String, position: String, remedy: String },

    /// The caller begins the table's chunks anew.
    #[error(
        "table {table}: its key is ordered otherwise than when the load began; its chunks are read from the first one again"
    )]
    BoundsVoid { table: String },

    #[error("unreadable log at {position}: {finding}")]
    Protocol { position: String, finding: String },

    #[error("connection lost at {position}: {cause}")]
    Disconnected { position: String, cause: String },

    #[error("{statement}: {cause}")]
    Query { statement: String, cause: String },

    #[error("the receiver of changes is gone")]
    ReceiverGone,

    #[error("decoded rows do not form a batch: {0}")]
    Batch(#[from] arrow::error::ArrowError),

    #[error(transparent)]
    Rows(#[from] crate::schema::TypeMismatch),
}

impl Error {
    /// The message, with the command that helps as it is to be typed for this source.
    pub fn for_source(&self, name: &str) -> String {
        self.to_string().replace("--source NAME`", &format!("--source {name}`"))
    }

    pub fn class(&self) -> Class {
        match self {
            // A slot stays "in use" for a while after its reader died.
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Query { .. }
            | Self::BoundsVoid { .. }
            | Self::SlotInUse { .. }
            | Self::ReceiverGone => Class::Transient,
            Self::Authentication { .. }
            | Self::Privilege { .. }
            | Self::Setting { .. }
            | Self::PositionLost { .. }
            | Self::SlotLost { .. }
            | Self::OtherHistory { .. }
            | Self::Table { .. }
            | Self::Protocol { .. }
            | Self::Batch(_)
            | Self::Rows(_) => Class::Definite,
        }
    }
}
