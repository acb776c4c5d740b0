//! Asking for loads, and following them until they are done: by whoever runs the source, or by this process where nobody does.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::exit;
use super::run::Signals;
use super::schema::who;
use super::{Exit, output};
use crate::config::Config;
use crate::ledger::Wish;
use crate::pipeline::load_request::{Asking, LoadReport, Wanted};
use crate::pipeline::{self};

/// How often the ledger is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a line tells of it, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    exit_code: u8,
    tables: Vec<LoadReport>,
}

/// Enters requests, and says which tables need none.
pub(super) async fn requested(
    config: &Config,
    wanted: Vec<Wanted>,
    wish: Wish,
    reason: Option<&str>,
) -> anyhow::Result<Vec<Asking>> {
    let mut all = Vec::new();
    for of_source in wanted {
        let mut asking = Asking::new(config, of_source, wish);
        let entered = asking.enter(reason.map(str::to_owned), who()).await?;
        for table in asking.wanted.tables.iter().filter(|table| !entered.contains(table)) {
            output::complain(&match wish {
                Wish::Resync => format!("{table} is being resynced already"),
                Wish::Snapshot => format!("{table} is in the lake, or its load is asked for already"),
                Wish::Cancel => format!("{table}: its resync is being cancelled already"),
                Wish::Repair => format!("{table}: nothing is wrong"),
            });
        }
        all.push(asking);
    }
    Ok(all)
}

/// Follows what was asked for to its end, unless nobody wants to `wait`; says how the tables stand then.
pub(super) async fn follow(config: &Config, asking: Vec<Asking>, wait: bool, json: bool) -> anyhow::Result<Exit> {
    let exit = if wait { settle(config, &asking).await? } else { Exit::Ok };
    let mut reports = Vec::new();
    for one in &asking {
        reports.extend(one.reports().await?);
    }
    if exit == Exit::Interrupted {
        output::complain("`lakeward resync --status` tells how far it is, `lakeward resync --cancel` gives it up");
    }
    if json {
        output::print_json(&Report { ok: exit == Exit::Ok, exit_code: exit.code(), tables: reports })?;
    } else {
        output::print(&super::resync::as_text(&reports))?;
        for report in &reports {
            if let Some(error) = &report.error {
                output::print(&format!("{} {}: {error}", report.source, report.table))?;
            }
        }
    }
    Ok(exit)
}

/// Waits until what was asked for is done, or a signal comes.
pub(super) async fn settle(config: &Config, asking: &[Asking]) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    let listener = tokio::spawn(Signals::listen()?.stop_on_first_exit_on_second(stop.clone()));
    let mut exit = Exit::Ok;
    for one in asking {
        let ended = one_source(config, one, &stop).await?;
        exit = Exit::most_urgent([exit, ended]);
    }
    listener.abort();
    if stop.is_cancelled() && exit == Exit::Interrupted {
        output::complain("interrupted: the request stays in force, and whoever runs the source carries it out");
    }
    Ok(exit)
}

/// Waits until all tables are settled; runs the source where nobody does.
async fn one_source(config: &Config, asking: &Asking, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let mut teller = Teller::default();
    loop {
        let reports = asking.reports().await?;
        if reports.iter().all(LoadReport::is_settled) {
            let whole = |report: &LoadReport| report.state == "streaming" || asking.wish == Wish::Cancel;
            let stopped = !reports.iter().all(whole);
            return Ok(if stopped { Exit::TableStopped } else { Exit::Ok });
        }
        if stop.is_cancelled() {
            return Ok(Exit::Interrupted);
        }
        match asking.holder().await? {
            Some(_) => teller.tell(&reports),
            None => {
                output::complain(&format!("nobody runs source `{}`: running it here", asking.wanted.source));
                let summary = pipeline::run_one(config, &asking.wanted.source, stop.child_token()).await;
                // A process that took the lease in between does it.
                let error = summary.and_then(|summary| summary.error);
                let error = error.filter(|error| exit::of_held(error).is_none());
                if let Some(error) = error {
                    output::complain(&format!("error: {error}"));
                    return Ok(Exit::from(error.as_ref()));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Tells how far it is: a line that is written over on a terminal, now and then a line elsewhere.
#[derive(Default)]
struct Teller {
    told: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, reports: &[LoadReport]) {
        let terminal = std::io::stderr().is_terminal();
        let pause = if terminal { LOOK_EVERY / 2 } else { LINE_EVERY };
        if self.told.is_some_and(|told| told.elapsed() < pause) {
            return;
        }
        self.told = Some(Instant::now());
        for report in reports.iter().filter(|report| !report.is_settled()) {
            output::complain(&line(report));
        }
    }
}

fn line(report: &LoadReport) -> String {
    let of = match report.rows_estimate {
        Some(estimate) if estimate > 0 => {
            let percent = (report.rows as f64 / estimate as f64 * 100.0).min(99.0);
            format!(" of about {} ({percent:.0} %)", output::grouped(estimate))
        }
        _ => String::new(),
    };
    let rows = output::grouped(report.rows);
    format!("{} {}: {}, {rows} rows{of}", report.source, report.table, report.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_a_load_is() {
        let mut report = LoadReport {
            source: "src".into(),
            table: "shop.goods".into(),
            state: "loading".into(),
            rows: 25_000,
            rows_estimate: Some(100_000),
            error: None,
        };
        assert_eq!(line(&report), "src shop.goods: loading, 25 000 rows of about 100 000 (25 %)");
        // Estimates are often low.
        report.rows = 300_000;
        assert!(line(&report).ends_with("(99 %)"));
        report.rows_estimate = None;
        assert_eq!(line(&report), "src shop.goods: loading, 300 000 rows");
    }
}
