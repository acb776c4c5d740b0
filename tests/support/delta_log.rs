//! A local table's log, read as the JSON it is.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the log has this version of the table.
pub fn entry_path(table: &Path, version: u64) -> PathBuf {
    table.join(format!("_delta_log/{version:020}.json"))
}

/// The text of each entry that the log has still, oldest first.
fn texts(table: &Path) -> impl Iterator<Item = String> {
    let listed = std::fs::read_dir(table.join("_delta_log")).into_iter().flatten();
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read_to_string(path).expect("readable"))
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The actions of each entry that the log has still, oldest first; none of a table that is not there.
pub fn entries(table: &Path) -> Vec<Vec<Value>> {
    texts(table).map(|text| parsed(&text)).collect()
}

/// Each action of a kind, oldest first.
pub fn actions(table: &Path, kind: &str) -> Vec<Value> {
    of_kind(entries(table).into_iter().flatten(), kind)
}

/// The actions of a version, by kind.
pub fn actions_at(table: &Path, version: u64, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(entry_path(table, version)).expect("a log entry");
    of_kind(parsed(&text).into_iter(), kind)
}

fn of_kind(actions: impl Iterator<Item = Value>, kind: &str) -> Vec<Value> {
    actions.filter_map(|mut action| action.get_mut(kind).map(Value::take)).collect()
}

/// What a commit says of itself.
pub fn commit_info(actions: &[Value]) -> &Value {
    actions.iter().find_map(|action| action.get("commitInfo")).expect("each commit has a commitInfo")
}

/// Whether the newest protocol in the log asks readers for deletion vectors.
pub fn asks_for_vectors(table: &Path) -> bool {
    actions(table, "protocol").last().expect("a protocol").to_string().contains("deletionVectors")
}

/// Live files that have deletion vectors; of a log with all its entries.
pub fn files_with_vectors(table: &Path) -> usize {
    let mut live = std::collections::BTreeMap::new();
    for entry in entries(table) {
        for path in entry.iter().filter_map(|action| action.pointer("/remove/path")) {
            live.remove(path.as_str().expect("a path"));
        }
        for add in entry.iter().filter_map(|action| action.get("add")) {
            live.insert(add["path"].as_str().expect("a path").to_owned(), !add["deletionVector"].is_null());
        }
    }
    live.values().filter(|has_vector| **has_vector).count()
}

/// No file has or ever had a deletion vector, and no reader is asked to know them.
pub fn assert_plain(table: &Path, told: &str) {
    // A commit that takes a vector away or declares none may name it; none of these tables has had any.
    for text in texts(table) {
        for word in ["\"deletionVector\":{", "deletionVectors", "enableDeletionVectors"] {
            assert!(!text.contains(word), "{told}: {word} in {text}");
        }
    }
    let objects = std::fs::read_dir(table).expect("a folder");
    let vectors = |path: PathBuf| path.extension().is_some_and(|end| end == "bin");
    assert!(!objects.into_iter().any(|entry| vectors(entry.expect("readable").path())), "{told}");
}
