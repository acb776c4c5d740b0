//! `lakeward resync`: tables are loaded anew beside those that the lake has, and take their place in one commit.

use std::path::Path;

use clap::Args;

use super::exit::Usage;
use super::loading::{self, requested};
use super::output::Align::{Left, Right};
use super::verify::Verify;
use super::{Exit, load_config, output};
use crate::config::Config;
use crate::ledger::Wish;
use crate::pipeline::load_request::{self, LoadReport};

#[derive(Debug, Args)]
pub struct Resync {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = "[SOURCE/]TABLE", required_unless_present_any = ["all", "status"])]
    tables: Vec<String>,
    /// Every table of the source that --source names
    #[arg(long, requires = "source", conflicts_with = "tables")]
    all: bool,
    /// The source whose tables --all means
    #[arg(long, value_name = "NAME", requires = "all")]
    source: Option<String>,
    /// Only rows that meet this SQL condition at the source: those that differ are read again and put right. Rows that only the
    /// lake has are not looked for; `lakeward verify --repair` does
    #[arg(long = "where", value_name = "SQL", requires = "tables", conflicts_with_all = ["all", "cancel", "status", "no_wait"])]
    condition: Option<String>,
    /// Why; kept with the request and in the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Give up resyncs that are asked for or under way: the tables stay as they are, and stopped
    #[arg(long, conflicts_with = "reason")]
    cancel: bool,
    /// Show what is asked for or under way; asks for nothing
    #[arg(long, conflicts_with_all = ["tables", "all", "cancel", "reason", "no_wait"])]
    status: bool,
    /// Only enter the request; whoever runs the source carries it out
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Resync {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        if let Some(condition) = self.condition {
            return Verify::repairing(self.tables, condition, self.json).run(path).await;
        }
        let config = load_config(path)?;
        if self.status {
            return show_under_way(&config, Wish::Resync, self.json).await;
        }
        let wanted = match &self.source {
            Some(source) => load_request::all_of(&config, source).await,
            None => load_request::named(&config, &self.tables).await,
        };
        let wanted = wanted?;
        if wanted.iter().all(|of_source| of_source.tables.is_empty()) {
            return Err(Usage("there is no table to resync".to_owned()).into());
        }
        let wish = if self.cancel { Wish::Cancel } else { Wish::Resync };
        let asking = requested(&config, wanted, wish, self.reason.as_deref()).await?;
        loading::follow(&config, asking, !self.no_wait, self.json).await
    }
}

/// Prints the loads of a kind that are asked for or under way.
pub(super) async fn show_under_way(config: &Config, wish: Wish, json: bool) -> anyhow::Result<Exit> {
    let reports = load_request::under_way(config, wish).await?;
    match (json, wish) {
        (true, _) => output::print_json(&reports)?,
        (false, Wish::Snapshot) if reports.is_empty() => output::print("no table is being loaded for the first time")?,
        (false, _) if reports.is_empty() => output::print("no resync is asked for or under way")?,
        (false, _) => output::print(&as_text(&reports))?,
    }
    Ok(Exit::Ok)
}

pub(super) fn as_text(reports: &[LoadReport]) -> String {
    let header = [("SOURCE", Left), ("TABLE", Left), ("STATE", Left), ("ROWS", Right), ("OF ABOUT", Right)];
    let row = |report: &LoadReport| {
        vec![
            report.source.clone(),
            report.table.clone(),
            report.state.clone(),
            output::grouped(report.rows),
            report.rows_estimate.map_or_else(|| "-".to_owned(), output::grouped),
        ]
    };
    let rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    output::columns(&header, &rows)
}
