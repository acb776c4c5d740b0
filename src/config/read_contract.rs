//! Reads the contracts of a folder, one `*.toml` per table.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::change_policy::read_change_policies;
use super::load::{parse, read_text};
use super::maintenance::{read_retention, read_target_file_size};
use super::problem::nearest;
use super::reader::{Findings, Source, TableReader};
use super::snapshot::read_during_snapshot;
use super::write_mode::read_write_mode;
use super::{Contract, ValuePolicy, WithoutKey};

const TABLE: &str = "database.table or schema.table";
const COLUMNS: &str = "an array of column names";
const TYPE: &str = "a Delta type such as \"decimal(20,4)\"";
const POLICY: &str = "\"null\", \"string\" or \"fail\"";
const WITHOUT_KEY: &str = "\"whole_row\" or \"append\"";
const OWNERS: &str = "an array of names or addresses";

/// A contract and where its table is named.
pub(super) struct LoadedContract {
    pub(super) file: PathBuf,
    pub(super) line: Option<usize>,
    pub(super) contract: Contract,
}

/// All contracts of `folder`, in the order of file names. `sources` are the names that a contract may give.
pub(super) fn read_contracts(folder: &Path, sources: &[&str], findings: &Findings) -> Vec<LoadedContract> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) => {
            let source = Source { file: folder, text: "", findings };
            findings.problem(source.describe(None, String::new(), format!("can't be listed: {error}")));
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut taken: HashMap<(Option<String>, String), PathBuf> = HashMap::new();
    let mut contracts = Vec::with_capacity(files.len());
    for file in files {
        let Some(text) = read_text(&file, findings) else { continue };
        let source = Source { file: &file, text: &text, findings };
        let Some(document) = parse(source) else { continue };
        let root = TableReader::root(source, document.as_table());
        let Some((contract, line)) = read_contract(&root, sources) else { continue };
        let place = (contract.source.clone(), contract.table.clone());
        if let Some(other) = taken.get(&place) {
            let finding = format!("{} has a contract already, {}", contract.table, other.display());
            root.problem("table", finding, "one contract for each source and table");
            continue;
        }
        taken.insert(place, file.clone());
        contracts.push(LoadedContract { file, line, contract });
    }
    contracts
}

fn read_contract(root: &TableReader, sources: &[&str]) -> Option<(Contract, Option<usize>)> {
    let source = root.text("source", "the name of a source");
    if let Some(source) = &source
        && !sources.contains(&source.value.as_str())
    {
        let known = sources.iter().copied().filter(|name| !name.is_empty());
        match nearest(&source.value, known.clone()) {
            Some(_) => root.problem_near("source", &source.value, "the name of a source", known),
            None => root.problem("source", format!("there is no source `{}`", source.value), "the name of a source"),
        }
    }
    let table = root.required_text("table", TABLE).and_then(|table| {
        let named = table.value.split_once('.').is_some_and(|(schema, name)| !schema.is_empty() && !name.is_empty());
        if !named {
            root.problem("table", format!("`{}` names no database or schema", table.value), TABLE);
        }
        named.then_some(table)
    });
    let key = columns(root, "key");
    let partition_by = columns(root, "partition_by");
    let exclude = columns(root, "exclude");
    for excluded in &exclude {
        for (name, list) in [("key", &key), ("partition_by", &partition_by)] {
            if list.contains(excluded) {
                root.problem("exclude", format!("`{excluded}` also stands in `{name}`"), "columns that nothing needs");
            }
        }
    }
    let owners = root.texts("owners", OWNERS).map(|owners| owners.value).unwrap_or_default();
    let description = root.text("description", "a sentence").map(|description| description.value);
    let types =
        root.table("types").map(|types| column_texts(&types, TYPE, |text| Some(text.to_owned()))).unwrap_or_default();
    let tinyint1_is_bool = root.text("tinyint1", "\"bool\" or \"byte\"").is_some_and(|found| {
        if !matches!(found.value.as_str(), "bool" | "byte") {
            root.problem("tinyint1", format!("is `{}`", found.value), "\"bool\" or \"byte\"");
        }
        found.value == "bool"
    });
    let value_policy = root.text("value_policy", POLICY).map_or(ValuePolicy::default(), |found| {
        policy(&found.value).unwrap_or_else(|| {
            root.problem("value_policy", format!("is `{}`", found.value), POLICY);
            ValuePolicy::default()
        })
    });
    let value_policies =
        root.table("value_policies").map(|policies| column_texts(&policies, POLICY, policy)).unwrap_or_default();
    let without_key =
        root.text("without_key", WITHOUT_KEY).map_or(WithoutKey::default(), |found| match found.value.as_str() {
            "whole_row" => WithoutKey::WholeRow,
            "append" => WithoutKey::Append,
            other => {
                root.problem("without_key", format!("is `{other}`"), WITHOUT_KEY);
                WithoutKey::default()
            }
        });
    let during_snapshot = read_during_snapshot(root);
    let write_mode = read_write_mode(root);
    let target_file_bytes = read_target_file_size(root);
    let retention = read_retention(root);
    let schema_changes = read_change_policies(root);
    root.finish();
    let table = table?;
    let contract = Contract {
        source: source.map(|source| source.value),
        table: table.value,
        key,
        partition_by,
        exclude,
        owners,
        description,
        types,
        tinyint1_is_bool,
        value_policy,
        value_policies,
        without_key,
        during_snapshot,
        write_mode,
        target_file_bytes,
        retention,
        schema_changes,
    };
    Some((contract, table.line))
}

fn columns(root: &TableReader, key: &'static str) -> Vec<String> {
    let columns = root.texts(key, COLUMNS).map(|columns| columns.value).unwrap_or_default();
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].contains(column) {
            root.problem(key, format!("names `{column}` twice"), COLUMNS);
        }
    }
    columns
}

fn policy(text: &str) -> Option<ValuePolicy> {
    match text {
        "null" => Some(ValuePolicy::Null),
        "string" => Some(ValuePolicy::String),
        "fail" => Some(ValuePolicy::Fail),
        _ => None,
    }
}

/// A table whose keys are columns; each value is a text that `read` understands.
fn column_texts<T>(table: &TableReader, expected: &str, read: impl Fn(&str) -> Option<T>) -> BTreeMap<String, T> {
    let mut columns = BTreeMap::new();
    for column in table.keys() {
        match table.any_text(column).as_deref().map(&read) {
            Some(Some(value)) => drop(columns.insert(column.to_owned(), value)),
            _ => table.problem(column, "is something else", expected),
        }
    }
    columns
}
