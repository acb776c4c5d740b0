//! A table's log, read as the JSON it is.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the log has this version of the table.
pub fn entry_path(table: &Path, version: u64) -> PathBuf {
    table.join(format!("_delta_log/{version:020}.json"))
}

/// The actions of each version of a table, from the first.
pub fn entries(table: &Path) -> Vec<Vec<Value>> {
    (0..).map_while(|version| entry(table, version)).collect()
}

/// The actions of a version, by kind.
pub fn actions(table: &Path, version: u64, kind: &str) -> Vec<Value> {
    let actions = entry(table, version).expect("a log entry");
    actions.into_iter().filter_map(|mut action| action.get_mut(kind).map(Value::take)).collect()
}

fn entry(table: &Path, version: u64) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(entry_path(table, version)).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

/// What a commit says of itself.
pub fn commit_info(actions: &[Value]) -> &Value {
    actions.iter().find_map(|action| action.get("commitInfo")).expect("each commit has a commitInfo")
}
