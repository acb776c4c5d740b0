//! What can go wrong at the lake.

use super::row_index::IndexError;
use super::spill::SpillError;

/// Messages name the table or the place; `class` says whether trying again can help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the object store at {url} ignores conditional writes (If-None-Match): a second PUT of the same new object succeeded, so two writers could overwrite each other's commits; use a store that honours them (AWS S3, MinIO, a local directory)"
    )]
    Unsafe { url: String },

    #[error("cannot reach the lake at {url}: {cause}; check `[lake] url`, `[lake.storage]` and the credentials")]
    Unreachable { url: String, cause: String },

    #[error("lake table {table}: {finding}; {remedy}")]
    Table { table: String, finding: String, remedy: String },

    /// Another process, or an earlier try of this one that landed late, committed changes of the same source table.
    /// Reading the table again tells what it holds now; the lease tells whether this process may go on.
    #[error("lake table {table}: version {version} was written by another lakeward, or by an earlier try of this one")]
    Fenced { table: String, version: u64 },

    /// It is not known whether the commit landed; the next attempt finds out.
    #[error("lake table {table}: commit of version {version} did not succeed: {cause}")]
    Commit { table: String, version: u64, cause: String },

    #[error("lake table {table}: {source}")]
    Delta { table: String, source: Box<deltalake::DeltaTableError> },

    #[error("{context}: {source}")]
    Store { context: String, source: object_store::Error },

    #[error("lake table {table}: {source}")]
    Arrow { table: String, source: arrow::error::ArrowError },

    #[error("lake table {table}, file {file}: {source}")]
    Parquet { table: String, file: String, source: parquet::errors::ParquetError },

    #[error(transparent)]
    Spill(#[from] SpillError),

    #[error("lake table {table}: {source}")]
    Index { table: String, source: IndexError },
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Transient,
    Definite,
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Unsafe { .. }
            | Self::Table { .. }
            | Self::Arrow { .. }
            | Self::Spill(SpillError::Full { .. } | SpillError::Arrow(_)) => Class::Definite,
            Self::Unreachable { .. }
            | Self::Fenced { .. }
            | Self::Commit { .. }
            | Self::Delta { .. }
            | Self::Store { .. }
            | Self::Parquet { .. }
            | Self::Index { .. }
            | Self::Spill(SpillError::Io { .. } | SpillError::Damaged) => Class::Transient,
        }
    }
}
