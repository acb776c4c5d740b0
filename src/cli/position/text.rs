//! `lakeward position` in words.

use chrono::SecondsFormat;

use super::super::output::Align::{Left, Right};
use super::super::output::{columns, duration, grouped};
use crate::pipeline::position_report::{Cut, CutTable, SourceCut, SourcePosition, TablePosition};
use crate::source::{Distance, Kept, Unit};

pub(super) fn positions(sources: &[SourcePosition]) -> String {
    sources.iter().map(source).collect::<Vec<_>>().join("\n")
}

fn source(report: &SourcePosition) -> String {
    let server = report.server.as_deref().map(|server| format!("{server} at ")).unwrap_or_default();
    let mut lines = vec![format!("{} ({server}{})", report.source, report.address)];
    let mut line = |name: &str, text: &str| lines.push(format!("  {name:<9}{text}"));
    if let Some(error) = &report.error {
        line("source", &error.to_string());
    }
    if let Some(head) = &report.head {
        line("head", head);
    }
    match &report.position {
        Some(position) => line("durable", position),
        None => line("durable", "nothing yet: lakeward has not run for this source"),
    }
    if let Some(reached) = &report.reached {
        line("reached", &format!("{reached} (tables that wait hold the durable position)"));
    }
    let lag = [report.lag.map(distance), report.lag_seconds.map(duration)];
    let lag: Vec<String> = lag.into_iter().flatten().collect();
    if !lag.is_empty() {
        line("lag", &lag.join(", "));
    }
    if let Some(lost) = &report.lost {
        line("lost", &format!("{lost} (see README, \"When a position is lost\")"));
    }
    if let Some(kept) = &report.kept {
        line("log", &self::kept(kept, report.spare));
    }
    if !report.tables.is_empty() {
        lines.push(indented(&tables(&report.tables)));
    }
    for table in &report.tables {
        if let Some(error) = &table.error {
            lines.push(format!("  {}: {error}", table.table));
        }
    }
    lines.join("\n")
}

fn tables(tables: &[TablePosition]) -> String {
    let header = [("TABLE", Left), ("STATE", Left), ("VERSION", Right), ("LAG", Right), ("LAST COMMIT", Left)];
    let row = |table: &TablePosition| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            table.table.clone(),
            table.state.to_owned(),
            known(table.version.map(|version| version.to_string())),
            known(table.lag.map(distance)),
            known(table.position.clone()),
        ]
    };
    columns(&header, &tables.iter().map(row).collect::<Vec<_>>())
}

fn kept(kept: &Kept, spare: Option<Distance>) -> String {
    let mut parts = Vec::new();
    if let Some(oldest) = kept.files.first() {
        // Nothing was removed yet when there is no transaction before it.
        let since = kept.since.as_ref().map(ToString::to_string).filter(|since| !since.ends_with(':'));
        let since = since.map(|since| format!(", after {since}")).unwrap_or_default();
        parts.push(format!("kept from {}{since}", oldest.name));
    }
    if let Some(spare) = spare {
        parts.push(format!("{} before the durable position can still be read", distance(spare)));
    }
    match kept.expire_seconds {
        Some(0) => parts.push("binlogs do not expire".to_owned()),
        // Seconds of years are exact in an f64.
        Some(seconds) => parts.push(format!("binlogs expire after {}", duration(seconds as f64))),
        None => {}
    }
    if let Some(slot) = &kept.slot {
        let status = kept.wal_status.as_deref().unwrap_or("missing");
        parts.push(format!("slot {slot} is {status}"));
    }
    if let Some(restart) = &kept.restart_lsn {
        parts.push(format!("WAL is kept from {restart}"));
    }
    if kept.wal_status.is_some() {
        parts.push(match kept.safe_wal_bytes {
            Some(bytes) => {
                let left = grouped(u64::try_from(bytes).unwrap_or(0));
                format!("{left} bytes may be written before the slot is in danger")
            }
            None => "without a limit".to_owned(),
        });
    }
    parts.join("; ")
}

fn distance(distance: Distance) -> String {
    let unit = match (distance.amount, distance.unit) {
        (1, Unit::Bytes) => "byte",
        (1, Unit::Transactions) => "transaction",
        (1, Unit::SequenceNumbers) => "GTID sequence number",
        (_, unit) => return format!("{} {unit}", grouped(distance.amount)),
    };
    format!("1 {unit}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

pub(super) fn cuts(cuts: &[SourceCut]) -> String {
    let told = cuts.iter().map(|answer| match (&answer.cut, &answer.error) {
        (Some(cut), _) => self::cut(&answer.source, cut),
        (None, error) => format!("{}: {}", answer.source, error.as_deref().unwrap_or("nothing")),
    });
    told.collect::<Vec<_>>().join("\n\n")
}

fn cut(source: &str, cut: &Cut) -> String {
    let mut lines = vec![format!("{source} at {}", cut.at)];
    let committed = cut.committed_at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    let committed = committed.map(|at| format!(", last transaction committed {at}")).unwrap_or_default();
    lines.push(format!("  boundary  {}{committed}", cut.position));
    lines.push(format!("  holds     {}", holds(cut)));
    if cut.not_there_yet {
        lines.push("            the lake has not come to that point yet".to_owned());
    }
    let header = [("TABLE", Left), ("VERSION", Right), ("ROWS", Right), ("LAST COMMIT", Left)];
    let row = |table: &CutTable| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let position = table.why.clone().or_else(|| table.position.clone());
        let version = known(table.version.map(|version| version.to_string()));
        vec![table.table.clone(), version, known(table.rows.map(grouped)), known(position)]
    };
    lines.push(indented(&columns(&header, &cut.tables.iter().map(row).collect::<Vec<_>>())));
    let readings = || cut.tables.iter().filter_map(|table| table.reading.as_ref());
    let engine = |name: &str, statements: Vec<&str>| {
        let statements = statements.iter().map(|statement| format!("\n    {statement};"));
        format!("  {name}{}", statements.collect::<String>())
    };
    lines.push(engine("DuckDB", readings().map(|reading| reading.duckdb.as_str()).collect()));
    lines.push(engine("Spark", readings().map(|reading| reading.spark.as_str()).collect()));
    let trino = "Trino (under the names by which the tables are registered)";
    lines.push(engine(trino, readings().map(|reading| reading.trino.as_str()).collect()));
    lines.join("\n")
}

/// What is in the versions, compared with what was asked for.
fn holds(cut: &Cut) -> String {
    if cut.exact {
        return "exactly what was committed up to that point".to_owned();
    }
    let until = if cut.until == cut.position { "the boundary".to_owned() } else { cut.until.clone() };
    let before = match (cut.before, cut.before_seconds) {
        (Some(before), _) => format!(", {} before that point", distance(before)),
        (None, Some(seconds)) => format!(", whose last transaction is {} before that time", duration(seconds)),
        (None, None) => String::new(),
    };
    format!("exactly what was committed up to {until}{before}; what was committed since is not in it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::position_report::Reading;

    #[test]
    fn a_source_is_told_with_its_tables() {
        let bytes = |amount| Distance { amount, unit: Unit::SequenceNumbers };
        let report = SourcePosition {
            source: "booking".into(),
            address: "db:3306".into(),
            server: Some("MariaDB 10.11.19".into()),
            head: Some("mariadb:0-1-120".into()),
            position: Some("mariadb:0-1-100".into()),
            reached: None,
            lag: Some(bytes(20)),
            lag_seconds: Some(12.0),
            kept: Some(Kept { expire_seconds: Some(864_000), ..Kept::default() }),
            spare: Some(bytes(1)),
            lost: None,
            error: None,
            tables: vec![TablePosition {
                table: "booking.coupons".into(),
                state: "streaming",
                version: Some(7),
                position: Some("mariadb:0-1-98".into()),
                holds: Some("mariadb:0-1-100".into()),
                lag: Some(bytes(20)),
                error: None,
            }],
        };
        let expected = "\
booking (MariaDB 10.11.19 at db:3306)
  head     mariadb:0-1-120
  durable  mariadb:0-1-100
  lag      20 GTID sequence numbers, 12s
  log      1 GTID sequence number before the durable position can still be read; binlogs expire after 10d 0h
  TABLE            STATE      VERSION                       LAG  LAST COMMIT
  booking.coupons  streaming        7  20 GTID sequence numbers  mariadb:0-1-98";
        assert_eq!(positions(&[report]), expected);
    }

    #[test]
    fn a_cut_is_told_with_what_to_type() {
        let reading = Reading { url: "u".into(), duckdb: "d".into(), spark: "s".into(), trino: "t".into() };
        let table = |table: &str, version: Option<u64>, why: Option<&str>| CutTable {
            table: table.into(),
            version,
            position: version.map(|_| "pg:0/10".into()),
            rows: version.map(|_| 1000),
            reading: version.map(|_| reading.clone()),
            why: why.map(str::to_owned),
            missing: false,
        };
        let cut = Cut {
            at: "pg:0/30".into(),
            position: "pg:0/10".into(),
            until: "pg:0/20".into(),
            exact: false,
            committed_at: None,
            before: Some(Distance { amount: 16, unit: Unit::Bytes }),
            before_seconds: None,
            not_there_yet: true,
            tables: vec![table("s.a", Some(3), None), table("s.b", None, Some("loaded later"))],
        };
        let expected = "\
src at pg:0/30
  boundary  pg:0/10
  holds     exactly what was committed up to pg:0/20, 16 bytes before that point; what was committed since is not in it
            the lake has not come to that point yet
  TABLE  VERSION   ROWS  LAST COMMIT
  s.a          3  1 000  pg:0/10
  s.b          -      -  loaded later
  DuckDB
    d;
  Spark
    s;
  Trino (under the names by which the tables are registered)
    t;";
        let answer = SourceCut { source: "src".into(), cut: Some(cut), error: None };
        assert_eq!(cuts(&[answer]), expected);
    }
}
