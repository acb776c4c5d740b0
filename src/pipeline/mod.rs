//! From sources to the lake: one run per source, batches cut at transaction boundaries, commits, the ledger.
//!
//! The pipeline promises: a Delta commit holds whole source transactions; the source is acknowledged only what the ledger
//! holds; the ledger never runs ahead of a table; memory is bounded by the batch limits and bounded channels, whatever a
//! transaction's size; a source in trouble does not touch the others.

mod any_source;
mod batch;
mod commit;
mod error;
mod following;
mod history;
mod leased;
pub mod load_request;
mod loading;
pub mod maintenance;
pub mod position_report;
mod prepared;
mod reload;
mod retyped;
pub mod schema_report;
mod source_run;
mod supervisor;
mod telling;
mod upkeep;
pub mod verify;

pub use any_source::AnySource;
pub use error::Error;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DatabaseKind, SourceConfig};
use crate::lake::{self, IndexCache, Lake};
use crate::ledger::{Holder, Ledger, TableState};
use crate::notice::{Digests, Pauses};
use crate::schema::{TableName, ValueCounts};
use crate::source::mysql::MySqlSource;
use crate::source::postgres::PostgresSource;
use reload::Reloader;
use source_run::SourceRun;
use supervisor::Supervisor;

/// How long the end of a run waits for digests that are due; the next run sends what is left.
const DIGESTS_MAX: Duration = Duration::from_secs(3);
const DIGESTS_ONE_SHOT_MAX: Duration = Duration::from_secs(30);

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
    /// `loading`, `streaming`, `stopped`, `waiting` or `dropped`.
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
    /// `loading`, `streaming`, `stopped`, `waiting` (for a decision), `dropped` (at the source) or `not loaded`.
    pub state: String,
    pub rows: Option<u64>,
    /// How much of it is loaded, while it is loading, as far as the source can guess. `rows` are those that readers see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_percent: Option<u8>,
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

/// The lake as whoever has a source's lease opens it: with the key indexes in the cache.
fn lake_to_write(config: &Config) -> Lake {
    Lake::new(&config.lake.url, &config.lake.storage)
        .with_splices(config.lake.column_splice)
        .with_write_terms(config.write_terms())
        .with_index(IndexCache::shared(&config.memory.index_dir, config.memory.index_bytes))
}

/// Runs every source of the configuration until `stop`, or until all have caught up or failed. A daemon follows edits of the
/// configuration, and reads it again when `reread` is notified; one that ends when it has caught up does not. Fails itself
/// only when the lake is unsafe or out of reach at the start.
pub async fn run(
    config: Config,
    options: RunOptions,
    reread: Arc<Notify>,
    stop: CancellationToken,
) -> Result<RunSummary, Error> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    lake.probe().await?;
    let (edits, received) = mpsc::channel(1);
    let reloader = (!options.until_caught_up).then(|| Reloader::new(config.clone(), reread, edits));
    let reloading = reloader.map(|reloader| tokio::spawn(reloader.run()));
    let holder = Holder::this_process();
    let digests_of = {
        let holder = holder.clone();
        move |config: &Arc<Config>| Digests::start(&lake, config, &holder, Pauses::default())
    };
    let mut digests = digests_of(&Arc::new(config.clone()));
    let start = move |config: Arc<Config>, source: SourceConfig, stop| {
        let holder = holder.clone();
        async move { run_source(&config, source, options, &holder, stop).await }
    };
    let sources = Supervisor::new(config, stop, start).run(received, |config| digests = digests_of(config)).await;
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    digests.finish(if options.until_caught_up { DIGESTS_ONE_SHOT_MAX } else { DIGESTS_MAX }).await;
    Ok(RunSummary { sources })
}

/// Runs one source until it has caught up and its loads are done.
pub async fn run_one(config: &Config, name: &str, stop: CancellationToken) -> Option<SourceSummary> {
    let source = config.sources.iter().find(|source| source.name == name)?.clone();
    let options = RunOptions { until_caught_up: true };
    Some(run_source(config, source, options, &Holder::this_process(), stop).await)
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
        let entry = Ledger::read(lake.ledger_store(&source.name)?).await?;
        let Some(entry) = entry else {
            for pattern in source.tables.patterns().filter(|pattern| !pattern.starts_with('!')) {
                reports.push(not_loaded(&source.name, pattern));
            }
            continue;
        };
        let lag_seconds = entry.fresh_until.map(|fresh| (Utc::now() - fresh).as_seconds_f64().max(0.0));
        for (table, state) in &entry.tables {
            let summary = match table_name(table) {
                Some(name) => lake::Table::summary(&lake, &source.name, &name).await?,
                None => None,
            };
            let loaded_percent = match state {
                TableState::Loading { rows, rows_estimate: Some(estimate), .. } if *estimate > 0 => {
                    Some((rows.saturating_mul(100) / estimate).min(99) as u8)
                }
                _ => None,
            };
            reports.push(TableReport {
                source: source.name.clone(),
                table: table.clone(),
                state: state.word().to_owned(),
                rows: summary.as_ref().map(|summary| summary.rows),
                loaded_percent,
                version: summary.as_ref().map(|summary| summary.version),
                position: Some(state.position().unwrap_or(entry.streamed()).to_owned()),
                lag_seconds: lag_seconds.filter(|_| *state == TableState::Streaming),
                error: why(table, state),
                values: entry.values.get(table).cloned().unwrap_or_default(),
            });
        }
    }
    Ok(reports)
}

/// Why a table does not stream, and what to do about it.
fn why(table: &str, state: &TableState) -> Option<String> {
    match state {
        TableState::Waiting { reason, .. } => Some(format!("{reason}; {}", how_to_decide(table))),
        state => state.reason().map(str::to_owned),
    }
}

/// The name of a table as the ledger writes it.
fn table_name(text: &str) -> Option<TableName> {
    text.split_once('.').map(|(schema, table)| TableName::new(schema, table))
}

/// What to type about a table that waits.
fn how_to_decide(table: &str) -> String {
    format!("decide with `lakeward schema approve {table}` or `lakeward schema reject {table}`")
}

fn not_loaded(source: &str, pattern: &str) -> TableReport {
    TableReport {
        source: source.to_owned(),
        table: pattern.to_owned(),
        state: "not loaded".to_owned(),
        rows: None,
        loaded_percent: None,
        version: None,
        position: None,
        lag_seconds: None,
        error: None,
        values: ValueCounts::default(),
    }
}
