//! A local table's log, as its entries have it.

use std::path::{Path, PathBuf};

use lakeward::config::{WriteMode, WriteTerms};
use serde_json::Value;

/// With files so small that tests have several.
pub fn terms(mode: WriteMode) -> WriteTerms {
    WriteTerms { mode, target_file_bytes: 4 << 10 }
}

/// The text of each entry that the log has still, oldest first.
fn texts(table: &Path) -> impl Iterator<Item = String> {
    let listed = std::fs::read_dir(table.join("_delta_log")).expect("a log");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read_to_string(path).expect("readable"))
}

/// The actions of each entry that the log has still, oldest first.
pub fn entries(table: &Path) -> Vec<Vec<Value>> {
    let parsed = |text: String| text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    texts(table).map(parsed).collect()
}

/// Each action of a kind, oldest first.
pub fn actions(table: &Path, kind: &str) -> Vec<Value> {
    entries(table).into_iter().flatten().filter_map(|action| action.get(kind).cloned()).collect()
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
