//! What ends the run of a source.

use crate::source::Problem;
use crate::{lake, ledger, notice, snapshot, source};

/// Of one source; the caller adds the source's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),

    #[error(transparent)]
    Lake(#[from] lake::Error),

    #[error(transparent)]
    Ledger(#[from] ledger::Error),

    /// What the lake does not have can't be read any more. With the source's name in the command that helps.
    #[error("{text}")]
    PositionLost { text: String },

    #[error("the source is not ready:\n{}", list(.0))]
    NotReady(Vec<Problem>),

    #[error(
        "the ledger says {position}, which this lakeward cannot read; was it written for another kind of database?"
    )]
    Position { position: String },

    #[error(
        "the lake has tables of this source ({tables}) but the ledger that says how far they are is gone; remove the tables' folders to load them again, or bring `_lakeward/` back"
    )]
    LedgerGone { tables: String },

    #[error("no table of the source matches `tables`, or none can be captured; see the warnings above")]
    NoTables,

    #[error("a task of this process failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) => error.class() == source::Class::Transient,
            Self::Lake(error) => error.class() == lake::Class::Transient,
            Self::Ledger(error) => error.is_transient(),
            Self::NotReady(_)
            | Self::PositionLost { .. }
            | Self::Position { .. }
            | Self::LedgerGone { .. }
            | Self::NoTables
            | Self::Task(_) => false,
        }
    }
}

impl From<snapshot::Error> for Error {
    fn from(error: snapshot::Error) -> Self {
        match error {
            snapshot::Error::Source(error) => Self::Source(error),
            snapshot::Error::Lake(error) => Self::Lake(error),
            snapshot::Error::Ledger(error) => error.into(),
            snapshot::Error::Position(error) => Self::Position { position: error.0 },
            snapshot::Error::Task(error) => error.into(),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("  {}: {}; fix: {}", problem.subject, problem.finding, problem.remedy))
        .collect();
    lines.join("\n")
}

impl From<notice::Error> for Error {
    fn from(error: notice::Error) -> Self {
        match error {
            notice::Error::Lake(error) => Self::Lake(error),
            notice::Error::Ledger(error) => error.into(),
        }
    }
}
