//! From sources to the lake: one run per source, batches cut at transaction boundaries, commits, the ledger.
//!
//! The pipeline promises: a Delta commit holds whole source transactions; the source is acknowledged only what the ledger
//! holds; the ledger never runs ahead of a table; memory is bounded by the batch limits and bounded channels; a source
//! in trouble does not touch the others.

mod batch;
mod commit;
mod error;
mod prepared;
mod source_run;

pub use error::Error;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DatabaseKind, SourceConfig};
use crate::lake::{self, Lake};
use crate::ledger::{Holder, Ledger, TableState};
use crate::schema::{TableName, ValueCounts};
use crate::source::mysql::MySqlSource;
use crate::source::postgres::PostgresSource;
use source_run::SourceRun;

/// How `run` is to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// End when everything committed at the source before the start is in the lake.
    pub until_caught_up: bool,
}

/// How each source ended.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    pub sources: Vec<SourceSummary>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceSummary {
    pub name: String,
    /// In the lake, durably.
    pub position: Option<String>,
    pub transactions: u64,
    /// Changes read from the log; first loads are not counted.
    pub rows: u64,
    pub tables: Vec<TableSummary>,
    /// Why it ended, unless it was told to or caught up.
    #[serde(serialize_with = "error_text", skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<Error>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    pub table: String,
    /// `streaming` or `stopped`.
    pub state: String,
    /// Rows written to the lake by changes.
    pub rows_changed: u64,
    pub version: Option<u64>,
    pub error: Option<String>,
}

/// One line of `lakeward tables`.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    pub source: String,
    pub table: String,
    /// `streaming`, `stopped` or `not loaded`.
    pub state: String,
    pub rows: Option<u64>,
    /// Delta version.
    pub version: Option<u64>,
    /// The log position that the table is known to hold.
    pub position: Option<String>,
    /// Age of the newest moment up to which everything committed at the source is in the table.
    pub lag_seconds: Option<f64>,
    pub error: Option<String>,
    /// Values without a faithful lake form since the table was loaded: by column, by reason.
    #[serde(skip_serializing_if = "ValueCounts::is_empty")]
    pub values: ValueCounts,
}

fn error_text<W: serde::Serializer>(error: &Option<Arc<Error>>, serializer: W) -> Result<W::Ok, W::Error> {
    serializer.collect_str(&error.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Runs every source of the configuration until `stop`, or until all have caught up or failed. Fails itself only when
/// the lake is unsafe or out of reach at the start.
pub async fn run(config: Config, options: RunOptions, stop: CancellationToken) -> Result<RunSummary, Error> {
    Lake::new(&config.lake.url, &config.lake.storage).probe().await?;
    let holder = Holder::this_process();
    let mut runs: JoinSet<SourceSummary> = JoinSet::new();
    let mut names = HashMap::new();
    let config = Arc::new(config);
    for source in config.sources.clone() {
        let (config, holder, stop) = (config.clone(), holder.clone(), stop.clone());
        let name = source.name.clone();
        let run = runs.spawn(async move { run_source(&config, source, options, &holder, stop).await });
        names.insert(run.id(), name);
    }
    let mut sources = Vec::new();
    while let Some(ended) = runs.join_next_with_id().await {
        sources.push(ended.map(|(_, summary)| summary).unwrap_or_else(|error| {
            // A defect that ended one source must not end the others.
            let name = names.get(&error.id()).cloned().unwrap_or_default();
            tracing::error!(source = name, %error, "source stopped");
            SourceSummary { name, error: Some(Arc::new(error.into())), ..Default::default() }
        }));
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(RunSummary { sources })
}

async fn run_source(
    config: &Config,
    source: SourceConfig,
    options: RunOptions,
    holder: &Holder,
    stop: CancellationToken,
) -> SourceSummary {
    let name = source.name.clone();
    let contracts = config.contracts.clone();
    let result = match source.kind {
        DatabaseKind::MySql => match MySqlSource::new(source, contracts) {
            Ok(source) => Ok(SourceRun::new(&name, source, config, options, holder, stop).run().await),
            Err(error) => Err(error),
        },
        DatabaseKind::Postgres => match PostgresSource::new(source, contracts) {
            Ok(source) => Ok(SourceRun::new(&name, source, config, options, holder, stop).run().await),
            Err(error) => Err(error),
        },
    };
    result.unwrap_or_else(|error| SourceSummary { name, error: Some(Arc::new(error.into())), ..Default::default() })
}

/// Every table of every source as ledger and lake know it. Asks no database.
pub async fn tables(config: &Config) -> Result<Vec<TableReport>, Error> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let mut reports = Vec::new();
    for source in &config.sources {
        let (_, entry) = Ledger::open(lake.ledger_store(&source.name)?).await?;
        let Some(entry) = entry else {
            for pattern in source.tables.patterns().filter(|pattern| !pattern.starts_with('!')) {
                reports.push(not_loaded(&source.name, pattern));
            }
            continue;
        };
        let lag_seconds = entry.fresh_until.map(|fresh| (Utc::now() - fresh).as_seconds_f64().max(0.0));
        for (table, state) in &entry.tables {
            let summary = match table.split_once('.') {
                Some((schema, name)) => {
                    lake::Table::summary(&lake, &source.name, &TableName::new(schema, name)).await?
                }
                None => None,
            };
            let (state, position, error, lag_seconds) = match state {
                TableState::Streaming => ("streaming", entry.position.clone(), None, lag_seconds),
                TableState::Stopped { reason, position } => ("stopped", position.clone(), Some(reason.clone()), None),
            };
            reports.push(TableReport {
                source: source.name.clone(),
                table: table.clone(),
                state: state.to_owned(),
                rows: summary.as_ref().map(|summary| summary.rows),
                version: summary.as_ref().map(|summary| summary.version),
                position: Some(position),
                lag_seconds,
                error,
                values: entry.values.get(table).cloned().unwrap_or_default(),
            });
        }
    }
    Ok(reports)
}

fn not_loaded(source: &str, pattern: &str) -> TableReport {
    TableReport {
        source: source.to_owned(),
        table: pattern.to_owned(),
        state: "not loaded".to_owned(),
        rows: None,
        version: None,
        position: None,
        lag_seconds: None,
        error: None,
        values: ValueCounts::default(),
    }
}
