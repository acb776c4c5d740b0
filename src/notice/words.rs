//! An event in words that need no explanation: what changed, since when, whose table it is, what became of the old rows,
//! and what is to be done.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use crate::ledger::OutboxEntry;
use crate::schema::{ChangeKind, ChangeRecord, Outcome, StepRecord, ValueCounts};

/// Longer titles are cut: they become the subject of a mail, and Slack takes 150 characters.
const TITLE_MAX: usize = 140;

const WAITS: &str = "The table waits there: its rows from then on are kept, and applied after the decision.";

/// See the module text. Every format is made from these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub title: String,
    /// What changed, one line each.
    pub changes: Vec<String>,
    /// What became of rows and queries, one line each.
    pub consequences: Vec<String>,
    pub to_do: String,
    /// Name and value: table, since when, owners, …
    pub facts: Vec<(&'static str, String)>,
    /// The DDL.
    pub statement: Option<String>,
}

impl Words {
    pub fn of(entry: &OutboxEntry, owners: &[String], zone: Tz) -> Self {
        let place = entry.table.as_deref().unwrap_or(&entry.source);
        let mut words = match (entry.kind.as_str(), &entry.record) {
            ("schema.changed", Some(record)) => changed(place, record),
            ("schema.held", Some(record)) => held(place, record, &entry.detail),
            ("schema.refused", Some(record)) => refused(place, record, &entry.detail),
            (kind, record) => told(kind, place, record.as_ref(), &entry.detail),
        };
        words.title = one_line(&words.title, TITLE_MAX);
        let at = entry.record.as_ref().and_then(|record| record.at).unwrap_or(entry.at);
        words.facts.push(("Source", entry.source.clone()));
        if let Some(table) = &entry.table {
            words.facts.push(("Table", table.clone()));
            let owners = if owners.is_empty() { "nobody is named".to_owned() } else { owners.join(", ") };
            words.facts.push(("Owner", owners));
        }
        words.facts.push(("Since", moment(at, zone)));
        if let Some(verdict) = entry.detail["decision"]["verdict"].as_str() {
            let verdict = if verdict == "approve" { "approved" } else { "rejected" };
            let by = entry.detail["decision"]["by"].as_str().unwrap_or("somebody");
            words.facts.push(("Decided", format!("{verdict} by {by}")));
        }
        if let Some(version) = entry.lake_version {
            words.facts.push(("Lake version", version.to_string()));
        }
        words
    }

    /// As plain text, the title left out.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for (heading, lines) in [("What changed", &self.changes), ("What it means", &self.consequences)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "{heading}:");
                for line in lines {
                    let _ = writeln!(text, "- {line}");
                }
            }
        }
        let _ = writeln!(text, "What to do:\n- {}", self.to_do);
        for (name, value) in &self.facts {
            let _ = writeln!(text, "{name}: {value}");
        }
        if let Some(statement) = &self.statement {
            let _ = writeln!(text, "Statement: {statement}");
        }
        text
    }

    fn new(title: String) -> Self {
        Self {
            title,
            changes: Vec::new(),
            consequences: Vec::new(),
            to_do: "Nothing.".to_owned(),
            facts: Vec::new(),
            statement: None,
        }
    }

    fn with_record(mut self, record: &ChangeRecord) -> Self {
        self.changes = record.steps.iter().map(|step| format!("{}: {}", step.description, outcome(step))).collect();
        self.consequences = record.steps.iter().map(consequence).collect();
        // What is said of all steps alike is said once.
        self.consequences.dedup();
        self.statement.clone_from(&record.statement);
        self
    }
}

/// On one line, and no longer than so many characters.
pub fn one_line(text: &str, characters_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= characters_max {
        return line;
    }
    let mut short: String = line.chars().take(characters_max - 1).collect();
    short.push('…');
    short
}

/// `2026-03-01 10:20 KST`
pub fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z").to_string()
}

fn summary(place: &str, record: &ChangeRecord) -> String {
    match record.steps.as_slice() {
        [] => format!("{place} has changed"),
        [step] => format!("{place}: {}", step.description),
        [first, rest @ ..] => format!("{place}: {}, and {} more", first.description, count(rest.len(), "change")),
    }
}

fn changed(place: &str, record: &ChangeRecord) -> Words {
    let mut words = Words::new(summary(place, record)).with_record(record);
    let mut to_do = Vec::new();
    for step in &record.steps {
        let Some(column) = &step.column else { continue };
        let in_force = matches!(step.outcome, Outcome::Applied | Outcome::Approved | Outcome::Resync);
        match (step.kind, &step.new_name) {
            (ChangeKind::Rename, Some(to)) if in_force => {
                to_do.push(format!("Write `{to}` instead of `{column}` in your queries."));
            }
            (ChangeKind::Drop, _) if in_force => to_do.push(format!("Take `{column}` out of your queries.")),
            (ChangeKind::Drop, _) => {
                to_do.push(format!("See whether your queries can do without `{column}`: it gets no new values."));
            }
            _ => {}
        }
    }
    if !to_do.is_empty() {
        words.to_do = to_do.join(" ");
    }
    words
}

fn held(place: &str, record: &ChangeRecord, detail: &Value) -> Words {
    let mut words = Words::new(format!("Decide: {}", summary(place, record))).with_record(record);
    if detail["waiting"] == Value::Bool(true) {
        words.consequences = vec![WAITS.to_owned()];
    }
    words.to_do = format!(
        "Decide: `lakeward schema approve {place} {id}` or `lakeward schema reject {place} {id}`.",
        id = record.id
    );
    words
}

fn refused(place: &str, record: &ChangeRecord, detail: &Value) -> Words {
    let mut words = Words::new(format!("Stopped: {}", summary(place, record))).with_record(record);
    words.consequences.push(reason(detail).unwrap_or_else(|| "The table follows its source no longer.".to_owned()));
    words.to_do = remedy(detail);
    words
}

/// What has no record, or needs none.
fn told(kind: &str, place: &str, record: Option<&ChangeRecord>, detail: &Value) -> Words {
    let title = match kind {
        "table.added" => format!("{place} is new in the lake"),
        "table.dropped" => format!("{place} is gone at its source"),
        "table.stopped" => format!("{place} has stopped"),
        "table.resynced" => format!("{place} was loaded again"),
        "value.policy_applied" => format!("{place} has values that the lake can't hold"),
        "source.lagging" => lag_title(place, detail),
        other => format!("{place}: {other}"),
    };
    let mut words = Words::new(title);
    if let Some(record) = record {
        words = words.with_record(record);
    }
    let because = reason(detail);
    match kind {
        "table.added" => words.consequences.push("It follows its source from now on.".to_owned()),
        "table.dropped" => {
            if words.consequences.is_empty() {
                words.consequences.push("The lake keeps the table as it was last.".to_owned());
            }
        }
        "table.stopped" => {
            words.changes.extend(because);
            words.consequences.push("The lake keeps the table as it was; the other tables go on.".to_owned());
            words.to_do = remedy(detail);
        }
        "table.resynced" => {
            words.changes.extend(because);
            words
                .consequences
                .push("It is equal to its source again. Older versions have the rows from before.".to_owned());
        }
        "value.policy_applied" => {
            words.changes = values(detail);
            words.consequences.push("Each was treated as its column's policy says (`value_policy`).".to_owned());
            words.to_do = "Correct them at the source, or choose another policy in the contract.".to_owned();
        }
        "source.lagging" => {
            words.changes.extend(because);
            words.consequences.push("The lake's tables are right, but older than usual.".to_owned());
            words.to_do = "See lakeward's log, and whether the source writes more than usual.".to_owned();
        }
        _ => words.changes.extend(because),
    }
    words
}

/// Why, as the writer of the entry put it.
fn reason(detail: &Value) -> Option<String> {
    ["reason", "finding", "why"].into_iter().find_map(|key| detail[key].as_str()).map(sentence)
}

fn remedy(detail: &Value) -> String {
    detail["remedy"].as_str().map_or_else(|| "`lakeward tables` shows why, and what mends it.".to_owned(), sentence)
}

/// Messages inside lakeward begin small and end without a stop.
fn sentence(text: &str) -> String {
    let mut characters = text.trim().chars();
    let mut sentence: String = match characters.next() {
        // A name is left as it is.
        Some(first) if text.split_whitespace().next().is_some_and(|word| word.chars().all(char::is_alphabetic)) => {
            first.to_uppercase().chain(characters).collect()
        }
        Some(first) => std::iter::once(first).chain(characters).collect(),
        None => String::new(),
    };
    if !sentence.ends_with(['.', '!', '?', '…']) {
        sentence.push('.');
    }
    sentence
}

fn lag_title(place: &str, detail: &Value) -> String {
    match detail["lag_seconds"].as_f64() {
        Some(seconds) => format!("{place} is {} behind", duration(seconds)),
        None => format!("{place} is behind"),
    }
}

fn duration(seconds: f64) -> String {
    // Saturates, and is nothing for what is below it.
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0..120 => count(usize::try_from(minutes.max(1)).unwrap_or(1), "minute"),
        120..2880 => count(usize::try_from(minutes / 60).unwrap_or(2), "hour"),
        _ => count(usize::try_from(minutes / 1440).unwrap_or(2), "day"),
    }
}

/// `1 change`, `2 changes`
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn values(detail: &Value) -> Vec<String> {
    let counts: ValueCounts = serde_json::from_value(detail["values"].clone()).unwrap_or_default();
    counts.iter().map(|(column, reason, number)| format!("column `{column}`: {number} × {reason}")).collect()
}

fn outcome(step: &StepRecord) -> &'static str {
    match step.outcome {
        Outcome::Applied => "done in the lake",
        Outcome::Kept => "the lake keeps what it has",
        Outcome::Ignored => "left out of the lake, by policy",
        Outcome::Held => "waits for a decision",
        Outcome::Approved => "approved, and done in the lake",
        Outcome::Rejected => "rejected",
        Outcome::Refused => "not possible in the lake",
        Outcome::Resync => "the table is being loaded again",
    }
}

/// What a step means for the rows that were there before and for whoever queries them.
fn consequence(step: &StepRecord) -> String {
    let column = step.column.as_deref().unwrap_or_default();
    let new_name = step.new_name.as_deref().unwrap_or_default();
    match (step.kind, step.outcome) {
        (_, Outcome::Resync) => {
            "The table is being loaded again from its source. Until that is done, readers see it as it \
                                 was before the change."
                .to_owned()
        }
        (ChangeKind::Add, Outcome::Applied | Outcome::Approved) if step.description.ends_with(" in the old rows") => {
            format!("Old rows have the same value in `{column}` as at the source.")
        }
        (ChangeKind::Add, Outcome::Applied | Outcome::Approved) => {
            format!("Old rows are empty (NULL) in `{column}`.")
        }
        (ChangeKind::Add, Outcome::Held) => {
            format!("`{column}` is not shown yet. Its values are kept, so nothing is lost either way.")
        }
        (ChangeKind::Add, Outcome::Ignored | Outcome::Rejected | Outcome::Kept) => {
            format!("The lake's table has no `{column}`.")
        }
        (ChangeKind::Drop, Outcome::Applied | Outcome::Approved) => {
            format!("`{column}` is gone from the lake's table too. Older versions of the table have it.")
        }
        (ChangeKind::Drop, Outcome::Held | Outcome::Kept | Outcome::Ignored | Outcome::Rejected) => {
            format!(
                "`{column}` stays in the lake: old rows keep their values, rows written from now on are empty (NULL)."
            )
        }
        (ChangeKind::Rename, Outcome::Applied | Outcome::Approved) => {
            format!(
                "`{new_name}` has the values of `{column}`, in old rows too. Nothing answers to `{column}` any more."
            )
        }
        (ChangeKind::Rename, Outcome::Held | Outcome::Kept | Outcome::Ignored | Outcome::Rejected) => {
            format!("The lake goes on with the name `{column}`.")
        }
        (ChangeKind::Widen, Outcome::Applied | Outcome::Approved) => "Old rows keep their values.".to_owned(),
        (ChangeKind::Change | ChangeKind::Key, Outcome::Applied | Outcome::Approved) => {
            "The table is loaded again from its source.".to_owned()
        }
        (ChangeKind::Truncate, Outcome::Applied) => {
            "All rows are gone from the lake's table too. Older versions of the table have them.".to_owned()
        }
        (ChangeKind::Truncate, Outcome::Kept | Outcome::Ignored) => "The lake keeps the rows from before.".to_owned(),
        (ChangeKind::DropTable, Outcome::Applied | Outcome::Approved) => {
            "Its rows are gone from the lake too. Older versions of the table have them.".to_owned()
        }
        (ChangeKind::DropTable, Outcome::Kept | Outcome::Ignored) => {
            "The lake keeps the table as it was last.".to_owned()
        }
        (_, Outcome::Held) => WAITS.to_owned(),
        (_, Outcome::Rejected | Outcome::Refused) => {
            "The lake keeps the table as it was before. Nothing from then on is applied.".to_owned()
        }
        (_, Outcome::Kept | Outcome::Ignored) => "The lake's table stays as it is.".to_owned(),
        (ChangeKind::Truncate, Outcome::Approved) => "All rows are gone from the lake's table too.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::sample;

    #[test]
    fn a_new_column_reads_as_one_would_tell_it() {
        let entry = sample::entry("schema.changed", "booking", "booking.coupons");
        let words = Words::of(&entry, &["marketing".to_owned()], chrono_tz::Asia::Seoul);
        assert_eq!(
            words.title,
            "booking.coupons: column `grade` (varchar(20)) is new, with `bronze` in the old rows, and 1 change more"
        );
        assert_eq!(
            words.plain(),
            "\
What changed:
- column `grade` (varchar(20)) is new, with `bronze` in the old rows: done in the lake
- column `price` is now `amount`: done in the lake
What it means:
- Old rows have the same value in `grade` as at the source.
- `amount` has the values of `price`, in old rows too. Nothing answers to `price` any more.
What to do:
- Write `amount` instead of `price` in your queries.
Source: booking
Table: booking.coupons
Owner: marketing
Since: 2026-03-02 10:20 KST
Lake version: 42
Statement: ALTER TABLE coupons ADD COLUMN grade varchar(20) DEFAULT 'bronze', RENAME COLUMN price TO amount
"
        );
    }

    #[test]
    fn what_waits_says_how_to_decide_and_what_stopped_how_to_mend() {
        let entry = sample::entry("schema.held", "booking", "booking.coupons");
        let words = Words::of(&entry, &[], Tz::UTC);
        let id = entry.record.as_ref().map(|record| record.id).unwrap_or_default();
        assert!(words.to_do.contains(&format!("lakeward schema approve booking.coupons {id}")), "{}", words.to_do);
        assert!(words.plain().contains("Owner: nobody is named"), "{}", words.plain());

        let words = Words::of(&sample::entry("table.stopped", "booking", "booking.coupons"), &[], Tz::UTC);
        assert_eq!(words.to_do, "Give the table a key, then load it again.");
        let words = Words::of(&sample::entry("source.lagging", "booking", ""), &[], Tz::UTC);
        assert_eq!(words.title, "booking is 20 minutes behind");
        let words = Words::of(&sample::entry("value.policy_applied", "booking", "booking.coupons"), &[], Tz::UTC);
        assert_eq!(words.changes, ["column `valid_until`: 12 × zero or impossible date"]);
    }

    #[test]
    fn a_title_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\n b\r\nc", 10), "a b c");
        assert_eq!(one_line(&"예약 ".repeat(100), 5), "예약 예…");
        assert_eq!(
            [30.0, 5_000.0, 90_000.0, 400_000.0].map(duration),
            ["1 minute", "83 minutes", "25 hours", "4 days"]
        );
    }
}
