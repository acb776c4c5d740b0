//! `lakeward verify`: proves that tables of the lake are what their sources have.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::schema::who;
use super::{Exit, load_config, loading, output};
use crate::config::Config;
use crate::ledger::WrongRows;
use crate::pipeline::load_request::Asking;
use crate::pipeline::verify::{self, Outcome, TableVerdict, VerifyRequest};
use crate::snapshot::verify::{Difference, Kind, Options, Proof};

/// Rows of a table that are put right one by one.
const REPAIRED_MAX: usize = 100_000;

/// How often: rows that only the lake has are named by their places, which a compaction may change meanwhile.
const REPAIRS_MAX: u32 = 3;

/// Differences that the text shows.
const SHOWN: usize = 20;

#[derive(Debug, Default, Args)]
pub struct Verify {
    /// database.table or schema.table; after its source's name and a slash where several sources have it [default: all]
    #[arg(value_name = "[SOURCE/]TABLE")]
    tables: Vec<String>,
    /// Only tables of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Look at about this many rows in places picked at random, instead of at all
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "condition")]
    sample: Option<u64>,
    /// Look only at rows that meet this SQL condition at the source
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Put right what differs, row by row, and compare again
    #[arg(long)]
    repair: bool,
    /// Read no more than this many rows a second at the source [default: no limit]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    rows_per_second: Option<u64>,
    /// Rows read in one transaction at the source
    #[arg(long, value_name = "ROWS", default_value_t = Options::default().chunk_rows, value_parser = clap::value_parser!(u64).range(1..))]
    chunk_rows: u64,
    /// How long to wait while the lake does not move on
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().patience.as_secs())]
    patience: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    equal: bool,
    exit_code: u8,
    tables: &'a [TableVerdict],
    /// How those tables were found that were put right since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repaired: Vec<TableVerdict>,
}

impl Verify {
    /// For `lakeward resync --where`: rows for which the condition holds are put right.
    pub(super) fn repairing(tables: Vec<String>, condition: String, json: bool) -> Self {
        let options = Options::default();
        Self {
            tables,
            condition: Some(condition),
            repair: true,
            chunk_rows: options.chunk_rows,
            patience: options.patience.as_secs(),
            json,
            ..Self::default()
        }
    }

    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        let options = Options {
            chunk_rows: self.chunk_rows,
            rows_per_second: self.rows_per_second,
            sample: self.sample,
            filter: self.condition,
            patience: Duration::from_secs(self.patience),
            ..Options::default()
        };
        let request = VerifyRequest { tables: self.tables, source: self.source, options };
        let mut verdicts = verify::verify(&config, &request).await?;
        let mut repaired = Vec::new();
        if self.repair && verdicts.iter().any(|verdict| verdict.outcome == Outcome::Differs) {
            if !self.json {
                output::print(&as_text(&verdicts, &request.options))?;
            }
            repaired = repair(&config, &request, &mut verdicts).await?;
        }
        let exit = exit_of(&verdicts);
        if self.json {
            let equal = verdicts.iter().all(|verdict| verdict.outcome == Outcome::Equal);
            output::print_json(&Answer { equal, exit_code: exit.code(), tables: &verdicts, repaired })?;
        } else {
            output::print(&as_text(&verdicts, &request.options))?;
        }
        Ok(exit)
    }
}

/// Has whoever runs the source put right what differs, and compares those tables again: their verdicts take the place of the
/// ones that are returned.
async fn repair(
    config: &Config,
    request: &VerifyRequest,
    verdicts: &mut [TableVerdict],
) -> anyhow::Result<Vec<TableVerdict>> {
    let mut before = Vec::new();
    for verdict in verdicts {
        for attempt in 0..REPAIRS_MAX {
            let Some(wrong) = to_repair(verdict) else { break };
            let name = format!("{}/{}", verdict.source, verdict.table);
            output::complain(&format!("{name}: {} to be put right", counted(wrong.len() as u64, "row")));
            let mut asking = Asking::repair(config, &verdict.source, &verdict.table, wrong);
            asking.enter(Some("lakeward verify --repair".to_owned()), who()).await?;
            if loading::settle(config, &[asking]).await? == Exit::Interrupted {
                return Ok(before);
            }
            let again = VerifyRequest { tables: vec![name], ..request.clone() };
            for after in verify::verify(config, &again).await? {
                let found = std::mem::replace(verdict, after);
                if attempt == 0 {
                    before.push(found);
                }
            }
        }
    }
    Ok(before)
}

/// What of a table is to be put right row by row; says so where that can't be.
fn to_repair(verdict: &mut TableVerdict) -> Option<WrongRows> {
    let proof = verdict.proof.as_mut().filter(|_| verdict.outcome == Outcome::Differs)?;
    let wrong = std::mem::take(&mut proof.wrong);
    let why = if wrong.is_empty() {
        "rows of a table without a key can't be put right one by one".to_owned()
    } else if wrong.len() > REPAIRED_MAX {
        let (rows, max) = (counted(wrong.len() as u64, "row"), output::grouped(REPAIRED_MAX as u64));
        format!("{rows} can't be put right one by one, which {max} can at most")
    } else {
        return Some(wrong);
    };
    let name = format!("{}/{}", verdict.source, verdict.table);
    output::complain(&format!("{name}: {why}; load the table again: `lakeward resync {name}`"));
    None
}

fn exit_of(verdicts: &[TableVerdict]) -> Exit {
    Exit::most_urgent(verdicts.iter().map(|verdict| match (&verdict.error, verdict.outcome) {
        (Some(error), _) => error.into(),
        (None, Outcome::Differs) => Exit::Differ,
        (None, _) => Exit::Ok,
    }))
}

fn as_text(verdicts: &[TableVerdict], options: &Options) -> String {
    verdicts.iter().map(|verdict| table_text(verdict, options)).collect::<Vec<_>>().join("\n")
}

fn table_text(verdict: &TableVerdict, options: &Options) -> String {
    let head = format!("{} {}: ", verdict.source, verdict.table);
    let Some(proof) = &verdict.proof else {
        let error = verdict.error.as_ref().map(ToString::to_string).unwrap_or_default();
        return format!("{head}not compared: {error}");
    };
    let mut lines = vec![format!("{head}{}", finding(proof))];
    let chunks = match proof.chunks_of {
        Some(all) => format!("{} of {} chunks", output::grouped(proof.chunks), output::grouped(all)),
        None => counted(proof.chunks, "chunk"),
    };
    let rows = counted(proof.rows, "row");
    let (rounds, seconds) = (counted(u64::from(proof.rounds), "round"), output::duration(proof.seconds));
    lines.push(format!("  {rows} in {chunks}, {rounds}, {seconds}; version {} of the table", proof.version));
    lines.push(if proof.lake_stood_still {
        format!("  at {}; nothing moved the lake on, so it was compared with what the source had just now", proof.from)
    } else {
        format!("  from {} to {}", proof.from, proof.to)
    });
    if options.filter.is_some() {
        lines.push("  only rows that meet the condition; not those that only the lake has".to_owned());
    } else if options.sample.is_some() {
        lines.push("  only a sample; rows that only the lake has were not looked for".to_owned());
    }
    if proof.unsettled > 0 {
        let rows = counted(proof.unsettled, "row");
        lines.push(format!("  {rows} unsettled: changed again whenever they were looked at"));
    }
    lines.extend(proof.differences.iter().take(SHOWN).map(difference_text));
    let shown = proof.differences.len().min(SHOWN) as u64;
    let more = (proof.differing + proof.missing + proof.extra).saturating_sub(shown);
    if more > 0 {
        lines.push(format!("  and {} more", output::grouped(more)));
    }
    lines.join("\n")
}

fn finding(proof: &Proof) -> String {
    if proof.is_equal() {
        return "equal".to_owned();
    }
    let parts = [
        (proof.differing, "other in the lake"),
        (proof.missing, "missing in the lake"),
        (proof.extra, "only in the lake"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{} {what}", counted(*count, "row"))).collect();
    format!("differs: {}", parts.join(", "))
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", output::grouped(number))
}

fn difference_text(difference: &Difference) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    let key: Vec<String> =
        difference.key.iter().map(|part| format!("{} = {}", part.column, value(&part.value))).collect();
    let key = key.join(", ");
    match difference.kind {
        Kind::Missing => format!("  missing  {key}"),
        Kind::Extra => format!("  extra    {key}"),
        Kind::Differs if difference.columns.is_empty() => format!("  differs  {key} (changed since)"),
        Kind::Differs => {
            let columns = difference.columns.iter().map(|column| {
                let (source, lake) = (value(&column.source), value(&column.lake));
                format!("`{}` is {source} at the source and {lake} in the lake", column.column)
            });
            format!("  differs  {key}: {}", columns.collect::<Vec<_>>().join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::snapshot::verify::{ColumnDifference, Error, KeyPart};

    fn proof() -> Proof {
        Proof {
            rows: 1_234,
            chunks: 1,
            chunks_of: None,
            rounds: 2,
            extra_looked_for: true,
            version: 17,
            from: "pg:0/1".into(),
            to: "pg:0/2".into(),
            lake_stood_still: false,
            differing: 0,
            missing: 0,
            extra: 0,
            unsettled: 0,
            differences: Vec::new(),
            wrong: WrongRows::default(),
            began_at: Utc::now(),
            seconds: 1.5,
        }
    }

    fn verdict(proof: Proof) -> TableVerdict {
        let outcome = if proof.is_equal() { Outcome::Equal } else { Outcome::Differs };
        TableVerdict { source: "shop".into(), table: "public.goods".into(), outcome, proof: Some(proof), error: None }
    }

    #[test]
    fn a_verdict_names_rows_and_columns() {
        let key = |id: &str| vec![KeyPart { column: "id".into(), value: Some(id.into()) }];
        let column = ColumnDifference { column: "note".into(), source: Some("a".into()), lake: None };
        let differences = vec![
            Difference { kind: Kind::Differs, key: key("5"), columns: vec![column] },
            Difference { kind: Kind::Missing, key: key("6"), columns: vec![] },
        ];
        let differing = verdict(Proof { differing: 1, missing: 30, differences, unsettled: 1, ..proof() });
        let loading = TableVerdict {
            outcome: Outcome::NotCompared,
            proof: None,
            error: Some(Error::Unfit { table: "public.log".into(), why: "it is being loaded".into() }),
            ..verdict(proof())
        };
        let expected = "\
shop public.goods: equal
  1 234 rows in 1 chunk, 2 rounds, 1.5s; version 17 of the table
  from pg:0/1 to pg:0/2
shop public.goods: differs: 1 row other in the lake, 30 rows missing in the lake
  1 234 rows in 1 chunk, 2 rounds, 1.5s; version 17 of the table
  from pg:0/1 to pg:0/2
  1 row unsettled: changed again whenever they were looked at
  differs  id = 5: `note` is a at the source and NULL in the lake
  missing  id = 6
  and 29 more";
        let verdicts = [verdict(proof()), differing, loading];
        assert_eq!(as_text(&verdicts[..2], &Options::default()), expected);
        assert!(
            as_text(&verdicts[2..], &Options::default()).contains("not compared: table public.log can't be compared")
        );
        assert_eq!(exit_of(&verdicts[..1]), Exit::Ok);
        assert_eq!(exit_of(&verdicts[..2]), Exit::Differ);
        assert_eq!(exit_of(&verdicts[2..]), Exit::TableStopped);
    }
}
