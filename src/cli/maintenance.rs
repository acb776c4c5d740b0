//! `lakeward compact` and `lakeward vacuum`: tables are put in shape because somebody asks.

use std::path::Path;

use bytesize::ByteSize;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::output::Align::{Left, Right};
use super::run::Signals;
use super::{Exit, load_config, output};
use crate::pipeline::maintenance::{self, CompactionReport, VacuumReport};

/// What both are asked.
#[derive(Debug, Args)]
struct Asked {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = "[SOURCE/]TABLE", required = true)]
    tables: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Compact {
    #[command(flatten)]
    asked: Asked,
    /// Only say what would be written anew
    #[arg(long)]
    dry_run: bool,
}

impl Compact {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        let Asked { tables, json } = self.asked;
        if self.dry_run {
            let reports = maintenance::compaction_plans(&config, &tables).await?;
            output::answer(json, &reports, |reports| compactions(reports))?;
            return Ok(Exit::Ok);
        }
        let stop = CancellationToken::new();
        let listener = tokio::spawn(Signals::listen()?.stop_on_first_exit_on_second(stop.clone()));
        let reports = maintenance::compact(&config, &tables, &stop).await;
        listener.abort();
        if reports.as_ref().is_err_and(|error| Exit::from(error) == Exit::Busy) {
            output::complain(
                "whoever runs the source compacts its tables by itself (`[maintenance]`); `--dry-run` works beside it",
            );
        }
        output::answer(json, &reports?, |reports| compactions(reports))?;
        Ok(if stop.is_cancelled() { Exit::Interrupted } else { Exit::Ok })
    }
}

#[derive(Debug, Args)]
pub struct Vacuum {
    #[command(flatten)]
    asked: Asked,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Vacuum {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        let Asked { tables, json } = self.asked;
        let reports = maintenance::vacuum(&config, &tables, self.dry_run).await?;
        output::answer(json, &reports, |reports| vacuums(reports))?;
        Ok(Exit::Ok)
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

fn compactions(reports: &[CompactionReport]) -> String {
    let header = [
        ("SOURCE", Left),
        ("TABLE", Left),
        ("FILES", Right),
        ("TO", Right),
        ("BYTES", Right),
        ("TO", Right),
        ("ROWS", Right),
        ("DEAD ROWS", Right),
    ];
    let row = |report: &CompactionReport| {
        vec![
            report.source.clone(),
            report.table.clone(),
            output::grouped(report.files_before),
            report.files_after.map_or_else(|| "-".to_owned(), output::grouped),
            size(report.bytes_before),
            report.bytes_after.map_or_else(|| "-".to_owned(), size),
            output::grouped(report.rows),
            output::grouped(report.dead_rows),
        ]
    };
    output::columns(&header, &reports.iter().map(row).collect::<Vec<_>>())
}

fn vacuums(reports: &[VacuumReport]) -> String {
    let header = [
        ("SOURCE", Left),
        ("TABLE", Left),
        ("OBJECTS", Right),
        ("BYTES", Right),
        ("NOT REMOVED", Right),
        ("KEPT", Right),
        ("LOG ENTRIES", Right),
        ("RETENTION", Right),
    ];
    let row = |report: &VacuumReport| {
        vec![
            report.source.clone(),
            report.table.clone(),
            output::grouped(report.vacuumed.objects),
            size(report.vacuumed.bytes),
            output::grouped(report.vacuumed.failed),
            output::grouped(report.vacuumed.kept),
            output::grouped(report.vacuumed.log_entries),
            output::duration(report.retention_seconds as f64),
        ]
    };
    output::columns(&header, &reports.iter().map(row).collect::<Vec<_>>())
}
