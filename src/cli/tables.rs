//! `lakeward tables`: what the lake holds of each captured table, and how far behind it is.

use std::path::Path;

use clap::Args;

use super::output::Align::{Left, Right};
use super::{Exit, load_config, output};
use crate::pipeline::{self, TableReport};

#[derive(Debug, Args)]
pub struct Tables {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Tables {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        let reports = pipeline::tables(&config).await?;
        if self.json {
            output::print_json(&reports)?;
        } else {
            output::print(&as_text(&reports))?;
        }
        Ok(Exit::Ok)
    }
}

fn as_text(reports: &[TableReport]) -> String {
    let header = [
        ("SOURCE", Left),
        ("TABLE", Left),
        ("STATE", Left),
        ("ROWS", Right),
        ("VERSION", Right),
        ("LAG", Right),
        ("POSITION", Left),
    ];
    let row = |report: &TableReport| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            report.source.clone(),
            report.table.clone(),
            match report.loaded_percent {
                Some(percent) => format!("{} {percent} %", report.state),
                None => report.state.clone(),
            },
            known(report.rows.map(output::grouped)),
            known(report.version.map(|version| version.to_string())),
            known(report.lag_seconds.map(output::duration)),
            known(report.position.as_deref().map(shortened)),
        ]
    };
    let rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    let mut text = output::columns(&header, &rows);
    for report in reports {
        if let Some(error) = &report.error {
            text.push_str(&format!("\n{} {}: {error}", report.source, report.table));
        }
    }
    for report in reports {
        for (column, reason, count) in report.values.iter() {
            let count = output::grouped(count);
            text.push_str(&format!("\n{} {}: column `{column}`: {count} × {reason}", report.source, report.table));
        }
    }
    text
}

/// A GTID set can be very long; its end changes most. `--json` has it whole.
fn shortened(position: &str) -> String {
    const WIDTH: usize = 48;
    let length = position.chars().count();
    if length <= WIDTH {
        return position.to_owned();
    }
    let (kind, rest) = position.split_once(':').unwrap_or(("", position));
    let tail: String = rest.chars().skip(rest.chars().count().saturating_sub(WIDTH - kind.len() - 2)).collect();
    format!("{kind}:…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_listed_with_their_errors_below() {
        let report = |table: &str, state: &str, rows, error: Option<&str>| TableReport {
            source: "booking".into(),
            table: table.into(),
            state: state.into(),
            rows,
            loaded_percent: (state == "loading").then_some(40),
            version: rows.map(|_| 12),
            position: rows.map(|_| "mariadb:0-1-100".to_owned()),
            lag_seconds: rows.map(|_| 3.04),
            error: error.map(str::to_owned),
            values: Default::default(),
        };
        let reports = [
            report("booking.coupons", "streaming", Some(1_234_567), None),
            report("booking.x", "stopped", None, Some("a column was dropped")),
            report("booking.y", "loading", None, None),
        ];
        let expected = "\
SOURCE   TABLE            STATE              ROWS  VERSION   LAG  POSITION
booking  booking.coupons  streaming     1 234 567       12  3.0s  mariadb:0-1-100
booking  booking.x        stopped               -        -     -  -
booking  booking.y        loading 40 %          -        -     -  -
booking booking.x: a column was dropped";
        assert_eq!(as_text(&reports), expected);
    }

    #[test]
    fn a_long_position_keeps_its_kind_and_its_end() {
        let short =
            shortened("mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1-999");
        assert_eq!(short.chars().count(), 48);
        assert!(short.starts_with("mysql:…") && short.ends_with("c80aa9429562:1-999"), "{short}");
    }
}
