//! `lakeward run`: the daemon, and its one-shot form for schedulers.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::output::Align::{Left, Right};
use super::{Exit, exit, load_config, output};
use crate::pipeline::{self, RunOptions, RunSummary, SourceSummary};

#[derive(Debug, Args)]
pub struct Run {
    /// Load what is new, read the log up to where the sources stand now, commit, and end: for schedulers
    #[arg(long)]
    until_caught_up: bool,
    /// Print a summary as one JSON document at the end
    #[arg(long, requires = "until_caught_up")]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    exit_code: u8,
    /// What ended the run as a whole.
    error: Option<String>,
    sources: &'a [SourceSummary],
}

impl Run {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        info!(version = env!("CARGO_PKG_VERSION"), config = %config.path.display(), lake = %config.lake.url, "starting");
        let stop = CancellationToken::new();
        let signals = Signals::listen()?;
        let listener = tokio::spawn(signals.stop_on_first_exit_on_second(stop.clone()));
        let options = RunOptions { until_caught_up: self.until_caught_up };
        let reread = Arc::new(Notify::new());
        // One pass has nothing to read again: there the signal ends it, as it ends other commands.
        let hangups = if self.until_caught_up { None } else { Some(tokio::spawn(hangups(reread.clone())?)) };
        let result = pipeline::run(config, options, reread, stop.clone()).await;
        listener.abort();
        if let Some(hangups) = hangups {
            hangups.abort();
        }
        let mut exit = exit::of_run(&result, self.until_caught_up);
        if self.until_caught_up && stop.is_cancelled() && exit == Exit::Ok {
            // Whoever waits for a complete lake must not take this for one.
            exit = Exit::Interrupted;
        }
        if self.json {
            output::print_json(&report(&result, exit))?;
        } else if let (true, Ok(summary)) = (self.until_caught_up, &result) {
            output::print(&as_text(summary))?;
        }
        // A source that failed has said so in the log, when it did.
        if let Err(error) = result {
            output::complain(&format!("error: {error}"));
        }
        Ok(exit)
    }
}

/// Hands SIGHUP on. Listening begins when it is called.
fn hangups(reread: Arc<Notify>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            reread.notify_one();
        }
    })
}

/// SIGINT and SIGTERM. Listening begins when it is made, so that no signal is missed.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Ends when the process is told twice to stop; the process with it.
    pub(super) async fn stop_on_first_exit_on_second(mut self, stop: CancellationToken) {
        self.next().await;
        warn!("stopping: what is complete is committed first; a second signal ends at once");
        stop.cancel();
        self.next().await;
        warn!("ended at once; the next start goes on from the last commit");
        std::process::exit(Exit::Interrupted.code().into());
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn report<'a>(result: &'a Result<RunSummary, pipeline::Error>, exit: Exit) -> Report<'a> {
    Report {
        ok: exit == Exit::Ok,
        exit_code: exit.code(),
        error: result.as_ref().err().map(ToString::to_string),
        sources: result.as_ref().map(|summary| summary.sources.as_slice()).unwrap_or_default(),
    }
}

fn as_text(summary: &RunSummary) -> String {
    let header = [("SOURCE", Left), ("TABLE", Left), ("STATE", Left), ("ROWS CHANGED", Right), ("VERSION", Right)];
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    for source in &summary.sources {
        for table in &source.tables {
            rows.push(vec![
                source.name.clone(),
                table.table.clone(),
                table.state.clone(),
                output::grouped(table.rows_changed),
                table.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            ]);
            errors.extend(table.error.as_ref().map(|error| format!("{} {}: {error}", source.name, table.table)));
        }
        errors.extend(source.error.as_ref().map(|error| format!("{}: {error}", source.name)));
    }
    let mut lines = if rows.is_empty() { Vec::new() } else { vec![output::columns(&header, &rows)] };
    lines.extend(errors);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::TableSummary;

    fn summary(table_error: Option<&str>) -> RunSummary {
        let table = TableSummary {
            table: "booking.coupons".into(),
            state: "streaming".into(),
            rows_changed: 1200,
            version: Some(4),
            error: table_error.map(str::to_owned),
        };
        let source = SourceSummary {
            name: "booking".into(),
            position: Some("mariadb:0-1-9".into()),
            transactions: 7,
            rows: 1200,
            tables: vec![table],
            error: None,
        };
        RunSummary { sources: vec![source] }
    }

    #[test]
    fn a_summary_lists_tables_and_then_what_went_wrong() {
        let expected = "\
SOURCE   TABLE            STATE      ROWS CHANGED  VERSION
booking  booking.coupons  streaming         1 200        4
booking booking.coupons: a column is new";
        assert_eq!(as_text(&summary(Some("a column is new"))), expected);
    }

    #[test]
    fn the_json_form_carries_the_exit_code() {
        let result = Ok(summary(Some("a column is new")));
        let exit = exit::of_run(&result, true);
        let json = serde_json::to_value(report(&result, exit)).expect("json");
        assert_eq!((json["ok"].as_bool(), json["exit_code"].as_u64()), (Some(false), Some(13)));
        assert_eq!(json["sources"][0]["tables"][0]["rows_changed"], 1200);
    }
}
