//! Slack's message form (Block Kit), for people who never see a log.
//!
//! Limits are Slack's: 150 characters in a header, 3000 in a section, 2000 in a field, ten fields, 50 blocks. In its text
//! `&`, `<` and `>` are written as entities; without that a column name could mention a whole channel.

use serde_json::{Value, json};
use uuid::Uuid;

use super::words::{Words, one_line};

const SECTION_MAX: usize = 2900;
const FIELD_MAX: usize = 1900;
const FIELDS_MAX: usize = 10;
const HEADER_MAX: usize = 150;
pub const BLOCKS_MAX: usize = 50;

/// The blocks of an event.
pub fn event_blocks(words: &Words, id: Uuid) -> Vec<Value> {
    let mut blocks = vec![header(&words.title)];
    let list = |lines: &[String]| lines.iter().map(|line| format!("• {line}")).collect::<Vec<_>>().join("\n");
    for (heading, lines) in [("What changed", &words.changes), ("What it means", &words.consequences)] {
        if !lines.is_empty() {
            blocks.push(section(&format!("*{heading}*\n{}", escaped(&list(lines)))));
        }
    }
    blocks.push(section(&format!("*What to do*\n{}", escaped(&words.to_do))));
    let field = |(name, value): &(&str, String)| json!({"type": "mrkdwn", "text": format!("*{name}*\n{}", cut(&escaped(value), FIELD_MAX))});
    let fields: Vec<Value> = words.facts.iter().take(FIELDS_MAX).map(field).collect();
    blocks.push(json!({"type": "section", "fields": fields}));
    if let Some(statement) = &words.statement {
        // Its own fence would end the block.
        let statement = cut(&escaped(statement).replace("```", "'''"), SECTION_MAX - 10);
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": format!("```{statement}```")}}));
    }
    blocks.push(context(&format!("lakeward · {id}")));
    blocks
}

/// The whole message. `text` is what notifications show.
pub fn message(title: &str, blocks: &[Value]) -> Value {
    json!({"text": escaped(title), "blocks": &blocks[..blocks.len().min(BLOCKS_MAX)]})
}

pub fn header(title: &str) -> Value {
    json!({"type": "header", "text": {"type": "plain_text", "text": one_line(title, HEADER_MAX), "emoji": false}})
}

/// `text` is in Slack's markup.
pub fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(text, SECTION_MAX)}})
}

pub fn context(text: &str) -> Value {
    json!({"type": "context", "elements": [{"type": "mrkdwn", "text": escaped(text)}]})
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Cuts between characters, and not inside an entity.
fn cut(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(characters_max - 1).collect();
    if let Some(start) = short.rfind('&')
        && !short[start..].contains(';')
    {
        short.truncate(start);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::notice::sample;

    #[test]
    fn a_change_reads_well_in_slack() {
        let entry = sample::entry("schema.changed", "booking", "booking.coupons");
        let owners = ["marketing@example.org".to_owned()];
        let words = Words::of(&entry, &owners, chrono_tz::Asia::Seoul);
        let message = message(&words.title, &event_blocks(&words, Uuid::nil()));
        let told = serde_json::to_string_pretty(&message).expect("JSON");
        assert_eq!(told.trim(), include_str!("slack/changed.json").trim());
    }

    #[test]
    fn nothing_in_a_name_becomes_markup_and_nothing_is_too_long() {
        let mut entry = sample::entry("schema.changed", "booking", "booking.<!channel>&");
        if let Some(record) = &mut entry.record {
            record.statement = Some(format!("ALTER TABLE x ``` {}", "<&>".repeat(5000)));
            record.steps[0].description = "예약".repeat(3000);
        }
        let words = Words::of(&entry, &[], Tz::UTC);
        let blocks = event_blocks(&words, Uuid::nil());
        let message = message(&words.title, &blocks);
        assert!(!message["blocks"][2]["text"]["text"].as_str().unwrap_or_default().contains("<!channel>"));
        assert!(!message["text"].as_str().unwrap_or_default().contains('<'));
        for block in &blocks {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            assert!(text.chars().count() <= 3000, "{text}");
            assert!(!text.trim_end_matches('…').ends_with("&l"), "{text}");
        }
        let mut texts = blocks.iter().filter_map(|block| block["text"]["text"].as_str());
        let statement = texts.find(|text| text.contains("```")).expect("the statement is shown");
        assert_eq!(statement.matches("```").count(), 2, "{statement}");
    }
}
