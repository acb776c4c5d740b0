//! An entry of the outbox as it leaves lakeward: CloudEvents 1.0 for machines, words for people.
//!
//! `schemas/events/` has a JSON Schema for each kind.

use chrono::SecondsFormat;
use chrono_tz::Tz;
use serde_json::{Value, json};
use uuid::Uuid;

use super::slack;
use super::words::Words;
use crate::ledger::OutboxEntry;

/// What a channel is given to deliver.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The same at every try.
    pub id: Uuid,
    /// `schema.changed`, or `digest`.
    pub kind: String,
    /// One line.
    pub title: String,
    /// Plain text below the title.
    pub text: String,
    /// The CloudEvent.
    pub event: Value,
    /// Slack's form of it.
    pub blocks: Vec<Value>,
    /// Who owns what it is about.
    pub owners: Vec<String>,
}

impl Notice {
    /// `number` is the entry's in its outbox.
    pub fn of(entry: &OutboxEntry, number: u64, owners: &[String], zone: Tz) -> Self {
        let words = Words::of(entry, owners, zone);
        let id = entry.id;
        // Machines get times in UTC wherever they are.
        let message = Words::of(entry, owners, Tz::UTC);
        Self {
            id,
            kind: entry.kind.clone(),
            text: words.plain(),
            event: event(entry, number, owners, &message),
            blocks: slack::event_blocks(&words, id),
            owners: owners.to_vec(),
            title: words.title,
        }
    }

    /// Marks it as sent to try the channel.
    pub fn as_sample(mut self) -> Self {
        self.title = format!("[TEST] {}", self.title);
        let remark = "This is a sample that `lakeward notify test` sent. Nothing of it happened.";
        self.text = format!("{remark}\n\n{}", self.text);
        self.event["data"]["sample"] = json!(true);
        self.event["data"]["message"] = json!(format!("{}\n{}", self.title, self.text));
        self.blocks.insert(0, slack::section(&format!("*[TEST]* {remark}")));
        self
    }
}

fn event(entry: &OutboxEntry, number: u64, owners: &[String], words: &Words) -> Value {
    let record = entry.record.as_ref();
    let time = record.and_then(|record| record.at).unwrap_or(entry.at);
    json!({
        "specversion": "1.0",
        "id": entry.id,
        "source": format!("lakeward/{}", entry.source),
        "type": format!("io.lakeward.{}", entry.kind),
        "subject": entry.table.as_deref().unwrap_or(&entry.source),
        "time": time.to_rfc3339_opts(SecondsFormat::Micros, true),
        "datacontenttype": "application/json",
        "dataschema": format!("urn:lakeward:events:{}:1#/properties/data", entry.kind),
        // Ordered as text (CloudEvents extension "sequence").
        "sequence": format!("{number:020}"),
        "data": {
            "source": entry.source,
            "table": entry.table,
            "position": entry.position,
            "change": record.map(|record| record.id),
            "statement": record.and_then(|record| record.statement.as_deref()),
            "before": record.map(|record| &record.before),
            "after": record.map(|record| &record.after),
            "steps": record.map(|record| &record.steps),
            "lake_version": entry.lake_version,
            "owners": owners,
            "message": format!("{}\n{}", words.title, words.plain()),
            "detail": if entry.detail.is_object() { entry.detail.clone() } else { json!({}) },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::sample;

    #[test]
    fn a_sample_is_marked_everywhere() {
        let entry = sample::entry("table.added", "booking", "booking.coupons");
        let notice = Notice::of(&entry, 0, &[], Tz::UTC).as_sample();
        assert_eq!(notice.event["data"]["sample"], true);
        assert!(notice.title.starts_with("[TEST]") && notice.text.contains("notify test"));
        assert!(notice.blocks[0].to_string().contains("[TEST]"));
    }
}
