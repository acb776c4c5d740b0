//! A source of either kind, for the commands that ask each one the same questions.

use crate::config::{Contracts, DatabaseKind, SourceConfig};
use crate::schema::TableSchema;
use crate::source::mysql::MySqlSource;
use crate::source::postgres::PostgresSource;
use crate::source::{Error, Identity, Problem, Source};

pub(super) enum AnySource {
    MySql(MySqlSource),
    Postgres(PostgresSource),
}

impl AnySource {
    pub(super) fn new(config: SourceConfig, contracts: Contracts) -> Result<Self, Error> {
        match config.kind {
            DatabaseKind::MySql => MySqlSource::new(config, contracts).map(Self::MySql),
            DatabaseKind::Postgres => PostgresSource::new(config, contracts).map(Self::Postgres),
        }
    }

    pub(super) async fn identity(&self) -> Result<Identity, Error> {
        match self {
            Self::MySql(source) => source.identity().await,
            Self::Postgres(source) => source.identity().await,
        }
    }

    pub(super) async fn preflight(&self) -> Result<Vec<Problem>, Error> {
        match self {
            Self::MySql(source) => source.preflight().await,
            Self::Postgres(source) => source.preflight().await,
        }
    }

    pub(super) async fn discover(&self) -> Result<Vec<TableSchema>, Error> {
        match self {
            Self::MySql(source) => source.discover().await,
            Self::Postgres(source) => source.discover().await,
        }
    }
}
