//! The reports about schemas as text for people.

use super::super::output::{Align::Left, columns, grouped};
use crate::pipeline::schema_report::{
    ColumnReport, DecisionReport, DiffReport, HistoryEntry, HistoryReport, LakeWork, Pending, PendingKind, PlanOutcome,
    PlanReport, ShowReport, ShownAs,
};
use crate::schema::{Outcome, Verdict};

pub(super) fn show(report: &ShowReport) -> String {
    let mut text = format!("{} of source {}", report.table, report.source);
    if let Some(state) = &report.state {
        text.push_str(&format!(", {state}"));
    }
    if let Some(reason) = &report.reason {
        text.push_str(&format!(": {reason}"));
    }
    text.push_str(&format!(
        "\nversion {} at {}: {} rows, {} files, {}\n\n",
        report.version,
        report.position,
        grouped(report.rows),
        grouped(report.files),
        size(report.bytes)
    ));
    let header = [("LAKE", Left), ("TYPE", Left), ("SOURCE", Left), ("DECLARED", Left), ("", Left)];
    let rows: Vec<Vec<String>> = report.columns.iter().map(column_row).collect();
    text.push_str(&columns(&header, &rows));
    text.push_str(&pending(&report.pending));
    text
}

fn column_row(column: &ColumnReport) -> Vec<String> {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut notes: Vec<String> = Vec::new();
    if column.key {
        notes.push("key".to_owned());
    }
    if column.partition {
        notes.push("partition".to_owned());
    }
    match column.shown_as {
        ShownAs::Shown => {}
        ShownAs::Hidden => notes.push("not shown yet".to_owned()),
        ShownAs::Kept => notes.push("kept: gone at the source".to_owned()),
        ShownAs::Ignored => notes.push("ignored: not in the lake".to_owned()),
    }
    if let Some(change) = column.held {
        notes.push(format!("change {change} waits for a decision"));
    }
    vec![
        known(&column.name),
        known(&column.lake_type),
        known(&column.source_name),
        known(&column.source_type),
        notes.join(", "),
    ]
}

fn pending(pending: &[Pending]) -> String {
    let mut text = String::new();
    for change in pending {
        let goes_on = match change.kind {
            PendingKind::Held => "the table goes on meanwhile",
            PendingKind::Waits => "the table waits for it",
        };
        text.push_str(&format!("\n\nchange {} waits for a decision ({goes_on}):", change.change));
        for step in &change.steps {
            text.push_str(&format!("\n  {step}"));
        }
        if let Some(statement) = &change.statement {
            text.push_str(&format!("\n  by: {}", on_one_line(statement)));
        }
        if let Some(at) = change.at {
            text.push_str(&format!("\n  at {} ({})", at.format("%F %T UTC"), change.place));
        }
        match &change.decided {
            Some(decided) => text.push_str(&format!("\n  {decided}; lakeward has not acted on it yet")),
            None => text.push_str(&format!("\n  {}\n  {}", change.approve, change.reject)),
        }
    }
    text
}

pub(super) fn history(report: &HistoryReport) -> String {
    if report.changes.is_empty() {
        return format!("{} of source {} has kept its columns since it was loaded", report.table, report.source);
    }
    changes(&report.changes)
}

fn changes(changes: &[HistoryEntry]) -> String {
    let lines: Vec<String> = changes
        .iter()
        .map(|change| {
            let mut text = format!("{}  {}", change.at.format("%F %T UTC"), change.change);
            match change.version {
                Some(version) => text.push_str(&format!("  version {version}")),
                None => text.push_str("  not in the lake"),
            }
            if let Some(statement) = &change.statement {
                text.push_str(&format!("\n  {}", on_one_line(statement)));
            }
            for step in &change.steps {
                text.push_str(&format!("\n  {}: {}", outcome(step.outcome), step.description));
            }
            text
        })
        .collect();
    lines.join("\n")
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::Kept => "kept",
        Outcome::Ignored => "ignored",
        Outcome::Held => "held",
        Outcome::Approved => "approved",
        Outcome::Rejected => "rejected",
        Outcome::Refused => "refused",
        Outcome::Resync => "loaded again",
    }
}

pub(super) fn diff(report: &DiffReport) -> String {
    let mut text = if report.differences.is_empty() {
        format!("{}: {} and {} have the same columns", report.table, report.left, report.right)
    } else {
        let (left, right) = (report.left.to_uppercase(), report.right.to_uppercase());
        let header = [("COLUMN", Left), (left.as_str(), Left), (right.as_str(), Left), ("WHY", Left)];
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<Vec<String>> = report
            .differences
            .iter()
            .map(|found| {
                let column = found.column.clone().unwrap_or_else(|| "(table)".to_owned());
                vec![column, known(&found.left), known(&found.right), found.why.clone()]
            })
            .collect();
        columns(&header, &rows)
    };
    if !report.changes.is_empty() {
        text.push_str(&format!("\n\n{}", changes(&report.changes)));
    }
    text
}

pub(super) fn plan(report: &PlanReport) -> String {
    let heading = match report.outcome {
        PlanOutcome::Nothing => "does not concern the lake",
        PlanOutcome::Applied => "is followed",
        PlanOutcome::Held => "needs approval; the table goes on meanwhile",
        PlanOutcome::Waits => "needs approval; the table waits for it",
        PlanOutcome::Resynced => "the table is loaded again, beside the one that readers see until that is done",
        PlanOutcome::Stops => "would stop the table",
        PlanOutcome::Unclear => "can't be told before it runs",
    };
    let mut text = format!("{} of source {}: the statement {heading}", report.table, report.source);
    if let Some(why) = &report.why {
        text.push_str(&format!("\n  {why}"));
    }
    if let Some(remedy) = &report.remedy {
        text.push_str(&format!("\n  {remedy}"));
    }
    for step in &report.steps {
        text.push_str(&format!(
            "\n  {}: {} (policy of `{}`: {})",
            outcome(step.outcome),
            step.description,
            step.kind,
            step.policy
        ));
    }
    text.push_str(&format!("\nlake: {}", lake_work(&report.lake)));
    for told in &report.told {
        let events = told.events.join(", ");
        text.push_str(&format!("\ntold: {} ({} {}): {events}", told.channel, told.kind, told.address));
    }
    if report.told.is_empty() && report.outcome != PlanOutcome::Nothing {
        text.push_str("\ntold: nobody, for no [[notice]] is for it");
    }
    if !report.owners.is_empty() {
        text.push_str(&format!("\nowners: {}", report.owners.join(", ")));
    }
    for note in &report.notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    text
}

fn lake_work(work: &LakeWork) -> String {
    let what = || format!("{} files, {}, {} rows", grouped(work.files), size(work.bytes), grouped(work.rows));
    match work.how {
        "splice" if work.rewritten_bytes > 0 => format!(
            "spliced: {}; {} of it in files that are written anew (too small to be copied, or column_splice is off)",
            what(),
            size(work.rewritten_bytes)
        ),
        "splice" => format!("spliced: {}; rows stay where they are", what()),
        "reload" => format!("to be loaded again: {}", what()),
        "metadata" => "only the table's metadata changes".to_owned(),
        _ => "nothing changes".to_owned(),
    }
}

pub(super) fn decided(report: &DecisionReport) -> String {
    let verdict = match report.verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    };
    let mut text = format!("change {} of {} is {verdict} ({})", report.change, report.table, report.decided);
    for effect in &report.effect {
        text.push_str(&format!("\n  {effect}"));
    }
    text.push_str(&format!("\n{}", report.when));
    text
}

fn on_one_line(statement: &str) -> String {
    const WIDTH: usize = 200;
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChangeKind;
    use crate::pipeline::schema_report::{PlannedStep, Told};
    use uuid::Uuid;

    fn column(name: &str, shown_as: ShownAs) -> ColumnReport {
        ColumnReport {
            name: (shown_as != ShownAs::Ignored).then(|| name.to_owned()),
            lake_type: (shown_as != ShownAs::Ignored).then(|| "integer".to_owned()),
            source_name: (shown_as != ShownAs::Kept).then(|| name.to_owned()),
            source_type: Some("int".to_owned()),
            key: name == "id",
            partition: false,
            shown_as,
            held: None,
        }
    }

    #[test]
    fn a_tables_columns_are_shown_with_what_waits() {
        let report = ShowReport {
            source: "booking".into(),
            table: "shop.goods".into(),
            state: Some("streaming".into()),
            reason: None,
            version: 7,
            position: "mariadb:0-1-7".into(),
            rows: 1234,
            files: 2,
            bytes: 3 << 20,
            columns: vec![
                column("id", ShownAs::Shown),
                column("old", ShownAs::Kept),
                column("new", ShownAs::Hidden),
                column("left", ShownAs::Ignored),
            ],
            pending: vec![Pending {
                change: Uuid::nil(),
                kind: PendingKind::Held,
                at: None,
                place: String::new(),
                statement: Some("ALTER TABLE goods\n  ADD new int".into()),
                steps: vec!["column `new` (int) is new".into()],
                decided: None,
                approve: "lakeward schema approve shop.goods".into(),
                reject: "lakeward schema reject shop.goods".into(),
            }],
        };
        let expected = "\
shop.goods of source booking, streaming
version 7 at mariadb:0-1-7: 1 234 rows, 2 files, 3.0 MiB

LAKE  TYPE     SOURCE  DECLARED
id    integer  id      int       key
old   integer  -       int       kept: gone at the source
new   integer  new     int       not shown yet
-     -        left    int       ignored: not in the lake

change 00000000-0000-0000-0000-000000000000 waits for a decision (the table goes on meanwhile):
  column `new` (int) is new
  by: ALTER TABLE goods ADD new int
  lakeward schema approve shop.goods
  lakeward schema reject shop.goods";
        assert_eq!(show(&report), expected);
    }

    #[test]
    fn a_plan_says_what_why_how_much_and_to_whom() {
        let report = PlanReport {
            source: "booking".into(),
            table: "shop.goods".into(),
            statement: "ALTER …".into(),
            outcome: PlanOutcome::Held,
            why: None,
            remedy: None,
            steps: vec![PlannedStep {
                kind: ChangeKind::Add,
                policy: "hold".into(),
                description: "column `new` (int) is new".into(),
                outcome: Outcome::Held,
            }],
            lake: LakeWork { how: "splice", files: 2, bytes: 6 << 20, rewritten_bytes: 0, rows: 10 },
            owners: vec!["ann".into()],
            told: vec![Told {
                channel: "team".into(),
                kind: "slack".into(),
                address: "https://hooks.example".into(),
                events: vec!["schema.held".into()],
            }],
            notes: vec!["a note".into()],
        };
        let expected = "\
shop.goods of source booking: the statement needs approval; the table goes on meanwhile
  held: column `new` (int) is new (policy of `add`: hold)
lake: spliced: 2 files, 6.0 MiB, 10 rows; rows stay where they are
told: team (slack https://hooks.example): schema.held
owners: ann
note: a note";
        assert_eq!(plan(&report), expected);
    }
}
