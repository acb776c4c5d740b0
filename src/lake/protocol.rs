//! What readers and writers of a table must know of Delta: its `protocol` action.
//!
//! A table's `metaData` says by which mode it is written, and what types its columns have; from these follows what its protocol
//! must have. Features come with the commit that needs them first, and none is ever taken away: older versions of the log
//! may need it. So a table asks no more of its readers than it has ever needed. Format: Delta protocol, "Protocol
//! Evolution".

use deltalake::kernel::Action;
use serde_json::{Value, json};

use crate::config::WriteMode;

const DELETION_VECTORS: &str = "deletionVectors";
const TIMESTAMP_NTZ: &str = "timestampNtz";
const APPEND_ONLY: &str = "appendOnly";

/// The table property by which writers know whether they may write deletion vectors.
const VECTORS_ENABLED: &str = "delta.enableDeletionVectors";

/// Readers and writers from these versions on go by lists of features.
const READER_LISTS: u64 = 3;
const WRITER_LISTS: u64 = 7;

/// What writers of earlier versions know without a list. `invariants` is left out: no column of ours has any, and writers
/// exist that then refuse the table.
const KNOWN_SINCE: [(u64, &str); 6] = [
    (2, APPEND_ONLY),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

/// The same for readers.
const READ_SINCE: [(u64, &str); 1] = [(2, "columnMapping")];

/// Writes into a `metaData` action by which mode the table is written; says whether that is news.
pub fn declare(mode: WriteMode, metadata: &mut Value) -> bool {
    if !metadata["configuration"].is_object() {
        metadata["configuration"] = json!({});
    }
    let Some(configuration) = metadata["configuration"].as_object_mut() else { return false };
    let before = match mode {
        WriteMode::MergeOnRead => configuration.insert(VECTORS_ENABLED.to_owned(), json!("true")),
        WriteMode::CopyOnWrite => configuration.remove(VECTORS_ENABLED),
    };
    (before == Some(json!("true"))) != (mode == WriteMode::MergeOnRead)
}

/// What a table of this `metaData` needs, and these actions.
pub fn features(metadata: &Value, actions: &[Action]) -> Vec<&'static str> {
    let has_vector = |action: &Action| matches!(action, Action::Add(add) if add.deletion_vector.is_some());
    let mut features = Vec::new();
    let may_have_vectors = metadata["configuration"][VECTORS_ENABLED] == json!("true");
    if may_have_vectors || actions.iter().any(has_vector) {
        features.push(DELETION_VECTORS);
    }
    // Whoever reads vectors goes by lists already: columns that come later don't change what the table asks for.
    if may_have_vectors || has_timestamp_ntz(metadata) {
        features.push(TIMESTAMP_NTZ);
    }
    features
}

fn has_timestamp_ntz(metadata: &Value) -> bool {
    let schema: Option<Value> = metadata["schemaString"].as_str().and_then(|text| serde_json::from_str(text).ok());
    let is = |kind: &Value| kind == "timestamp_ntz" || kind["elementType"] == "timestamp_ntz";
    let fields = schema.as_ref().and_then(|schema| schema["fields"].as_array());
    fields.is_some_and(|fields| fields.iter().any(|field| is(&field["type"])))
}

/// The lowest protocol that has these features: one without lists, which every reader knows, where there are none.
pub fn lowest(features: &[&str]) -> Value {
    if features.is_empty() {
        return json!({"minReaderVersion": 1, "minWriterVersion": 2});
    }
    let writers: Vec<&str> = features.iter().copied().chain([APPEND_ONLY]).collect();
    json!({
        "minReaderVersion": READER_LISTS,
        "minWriterVersion": WRITER_LISTS,
        "readerFeatures": features,
        "writerFeatures": writers,
    })
}

/// The protocol in force with these features; `None` where it has them.
pub fn lifted(in_force: &Value, features: &[&str]) -> Option<Value> {
    let mut readers = listed(in_force, "readerFeatures", "minReaderVersion", READER_LISTS, &READ_SINCE);
    let mut writers = listed(in_force, "writerFeatures", "minWriterVersion", WRITER_LISTS, &KNOWN_SINCE);
    let lacks = |list: &[String], feature: &str| !list.iter().any(|known| known == feature);
    let mut news = false;
    for feature in features {
        for list in [&mut readers, &mut writers] {
            if lacks(list, feature) {
                list.push((*feature).to_owned());
                news = true;
            }
        }
    }
    news.then(|| {
        json!({
            "minReaderVersion": READER_LISTS,
            "minWriterVersion": WRITER_LISTS,
            "readerFeatures": readers,
            "writerFeatures": writers,
        })
    })
}

/// What a protocol asks for, as a list.
fn listed(protocol: &Value, list: &str, version: &str, lists: u64, known: &[(u64, &str)]) -> Vec<String> {
    let version = protocol[version].as_u64().unwrap_or(1);
    if version >= lists {
        let features = protocol[list].as_array().map(Vec::as_slice).unwrap_or_default();
        return features.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    known.iter().filter(|(since, _)| *since <= version).map(|(_, feature)| (*feature).to_owned()).collect()
}

/// Whether readers of the table must know deletion vectors.
pub fn asks_for_vectors(protocol: &Value) -> bool {
    let features = protocol["readerFeatures"].as_array();
    features.is_some_and(|features| features.iter().any(|feature| feature == DELETION_VECTORS))
}

/// As a line of the log.
pub fn action(protocol: &Value) -> Value {
    json!({"protocol": protocol})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(mode: WriteMode, kinds: &[Value]) -> Value {
        let fields: Vec<Value> = kinds.iter().map(|kind| json!({"name": "timestamp_ntz", "type": kind})).collect();
        let mut metadata = json!({"schemaString": json!({"fields": fields}).to_string(), "configuration": {}});
        assert_eq!(declare(mode, &mut metadata), mode == WriteMode::MergeOnRead);
        assert!(!declare(mode, &mut metadata));
        metadata
    }

    #[test]
    fn a_table_asks_for_what_it_needs_and_no_more() {
        let of = |mode, kinds: &[Value]| features(&metadata(mode, kinds), &[]);
        assert_eq!(of(WriteMode::MergeOnRead, &[json!("long")]), [DELETION_VECTORS, TIMESTAMP_NTZ]);
        assert!(of(WriteMode::CopyOnWrite, &[json!("long"), json!("timestamp")]).is_empty());
        assert_eq!(of(WriteMode::CopyOnWrite, &[json!("long"), json!("timestamp_ntz")]), [TIMESTAMP_NTZ]);
        let array = json!({"type": "array", "elementType": "timestamp_ntz", "containsNull": true});
        assert_eq!(of(WriteMode::CopyOnWrite, &[array]), [TIMESTAMP_NTZ]);
        assert_eq!(lowest(&[]), json!({"minReaderVersion": 1, "minWriterVersion": 2}));
    }

    #[test]
    fn a_protocol_is_lifted_once_and_keeps_what_it_has() {
        let lifted_once = lifted(&lowest(&[]), &[TIMESTAMP_NTZ]).expect("it lacks it");
        let wanted = json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["timestampNtz"],
            "writerFeatures": ["appendOnly", "timestampNtz"]});
        assert_eq!(lifted_once, wanted);
        assert_eq!(lifted(&lifted_once, &[TIMESTAMP_NTZ]), None);
        assert_eq!(lifted(&lifted_once, &[]), None);
        let both = lifted(&lifted_once, &[DELETION_VECTORS, TIMESTAMP_NTZ]).expect("it lacks one");
        assert!(asks_for_vectors(&both) && !asks_for_vectors(&lifted_once));
        // Another engine's.
        let foreign = json!({"minReaderVersion": 2, "minWriterVersion": 5});
        let lifted = lifted(&foreign, &[DELETION_VECTORS]).expect("it lacks it");
        assert_eq!(lifted["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(lifted["writerFeatures"].as_array().map(Vec::len), Some(6));
    }
}
