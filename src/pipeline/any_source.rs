//! A source of either kind, for whoever asks each one the same questions and streams nothing.

use crate::config::{Contracts, DatabaseKind, SourceConfig};
use crate::schema::{Shape, TableSchema};
use crate::source::mysql::MySqlSource;
use crate::source::postgres::PostgresSource;
use crate::source::{Error, Foretold, Identity, LogState, Problem, Source};

/// See the module text.
pub enum AnySource {
    MySql(MySqlSource),
    Postgres(PostgresSource),
}

impl AnySource {
    pub fn new(config: SourceConfig, contracts: Contracts) -> Result<Self, Error> {
        match config.kind {
            DatabaseKind::MySql => MySqlSource::new(config, contracts).map(Self::MySql),
            DatabaseKind::Postgres => PostgresSource::new(config, contracts).map(Self::Postgres),
        }
    }

    pub async fn identity(&self) -> Result<Identity, Error> {
        match self {
            Self::MySql(source) => source.identity().await,
            Self::Postgres(source) => source.identity().await,
        }
    }

    pub async fn preflight(&self) -> Result<Vec<Problem>, Error> {
        match self {
            Self::MySql(source) => source.preflight().await,
            Self::Postgres(source) => source.preflight().await,
        }
    }

    pub async fn log_state(&self) -> Result<LogState, Error> {
        match self {
            Self::MySql(source) => source.log_state().await,
            Self::Postgres(source) => source.log_state().await,
        }
    }

    pub async fn discover(&self) -> Result<Vec<TableSchema>, Error> {
        match self {
            Self::MySql(source) => source.discover().await,
            Self::Postgres(source) => source.discover().await,
        }
    }

    pub async fn foretell(&self, shape: &Shape, statement: &str) -> Result<Foretold, Error> {
        match self {
            Self::MySql(source) => source.foretell(shape, statement).await,
            Self::Postgres(source) => source.foretell(shape, statement).await,
        }
    }

    pub fn declares_alike(&self, one: &str, other: &str) -> bool {
        match self {
            Self::MySql(source) => source.declares_alike(one, other),
            Self::Postgres(source) => source.declares_alike(one, other),
        }
    }
}
