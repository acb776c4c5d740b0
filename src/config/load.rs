//! From config.toml and schemas/*.toml to a [`Config`], or to every problem of both.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::change_policy::read_change_policies;
use super::maintenance::read_maintenance;
use super::read_contract::{LoadedContract, read_contracts};
use super::read_notice::{read_channels, read_notices};
use super::read_source::read_source;
use super::reader::{Findings, Found, Source, TableReader};
use super::snapshot::read_snapshot;
use super::write_mode::read_write_mode;
use super::{Commit, Config, ConfigError, Contracts, DatabaseKind, Lake, Memory, SourceConfig};

/// An environment variable by name; injected so that tests need not change the process.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const LAKE_URL: &str = "file:///folder, s3://bucket/prefix, or a path beside config.toml";
const INTERVAL: &str = "seconds from 1 to 3600";
const ROWS: &str = "a number of rows, at least 1";
const BYTES: &str = "a size such as \"256MiB\"";
const BUDGET: &str = "a size of at least 64MiB, such as \"512MiB\"";
const FOLDER: &str = "a folder, relative to config.toml";
const SPILL: &str = "a size of at least 64MiB, such as \"64GiB\"";
const INDEX: &str = "a size of at least 64KiB, such as \"256MiB\"";
pub(super) const MEBIBYTE: u64 = 1 << 20;

impl Config {
    /// Reads `path` and the contracts beside it. The error holds every problem of all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &|name| std::env::var_os(name))
    }

    pub(super) fn load_with(path: &Path, environment: Environment) -> Result<Self, ConfigError> {
        let findings = Findings::default();
        let config = read_config(path, environment, &findings);
        let warnings = findings.into_result()?;
        // Whoever returns `None` has reported why.
        config
            .map(|config| Self { warnings, ..config })
            .ok_or_else(|| ConfigError { problems: vec![unreadable(path, "is not readable".to_owned())] })
    }
}

fn unreadable(path: &Path, finding: String) -> super::ConfigProblem {
    super::ConfigProblem {
        file: path.to_owned(),
        line: None,
        key: String::new(),
        finding,
        expected: None,
        nearest: None,
    }
}

/// The file's text; a problem when it can't be read.
pub(super) fn read_text(path: &Path, findings: &Findings) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            findings.problem(unreadable(path, format!("can't be read: {error}")));
            None
        }
    }
}

/// The file's tables; a problem when it isn't TOML. The parser's own words are used without its excerpt of the text,
/// which could hold a secret.
pub(super) fn parse<'t>(source: Source<'t>) -> Option<toml_edit::Document<&'t str>> {
    match toml_edit::Document::parse(source.text) {
        Ok(document) => Some(document),
        Err(error) => {
            let line = error.span().map(|span| source.line_of(span.start));
            let finding = format!("is not TOML: {}", error.message().lines().collect::<Vec<_>>().join(" "));
            source.findings.problem(source.describe(line, String::new(), finding));
            None
        }
    }
}

fn read_config(path: &Path, environment: Environment, findings: &Findings) -> Option<Config> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let text = read_text(&path, findings)?;
    let source = Source { file: &path, text: &text, findings };
    let document = parse(source)?;
    let root = TableReader::root(source, document.as_table());

    let lake = read_lake(&root, &folder);
    let commit = read_commit(&root);
    let memory = read_memory(&root, &folder, environment);
    let snapshot = read_snapshot(&root);
    let maintenance = read_maintenance(&root);
    let sources = read_sources(&root, &folder, environment);
    let (schemas_dir, readable) = read_schemas_dir(&root, &folder);
    let schema_changes = read_change_policies(&root);
    let notices = read_notices(&root);
    let channels = read_channels(&root, &folder, environment, &sources);
    root.finish();

    let names: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
    let contracts = if readable { read_contracts(&schemas_dir, &names, findings) } else { Vec::new() };
    let sources: Vec<SourceConfig> = sources.into_iter().filter_map(|(_, source)| source).collect();
    warn_of_idle_contracts(&contracts, &sources, findings);
    let contracts = Contracts::new(contracts.into_iter().map(|loaded| loaded.contract).collect());
    Some(Config {
        path: path.clone(),
        schemas_dir,
        lake: lake?,
        commit,
        memory,
        snapshot,
        maintenance,
        sources,
        contracts,
        schema_changes,
        notices,
        channels,
        warnings: Vec::new(),
    })
}

fn read_lake(root: &TableReader, folder: &Path) -> Option<Lake> {
    let Some(lake) = root.table("lake") else {
        if !root.has("lake") {
            root.missing("lake", "a table `[lake]` with `url`");
        }
        return None;
    };
    let url = lake.required_text("url", LAKE_URL).and_then(|url| match lake_url(&url.value, folder) {
        Ok(url) => Some(url),
        Err(finding) => {
            lake.problem("url", finding, LAKE_URL);
            None
        }
    });
    let storage = lake.table("storage").map(|storage| read_storage(&storage)).unwrap_or_default();
    let column_splice = lake.flag("column_splice").unwrap_or(true);
    let write_mode = read_write_mode(&lake).unwrap_or_default();
    lake.finish();
    Some(Lake { url: url?, column_splice, write_mode, storage })
}

/// Options are the object store's own and not ours to judge; only their form is.
fn read_storage(storage: &TableReader) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for key in storage.keys() {
        if key.eq_ignore_ascii_case("aws_secret_access_key") {
            storage
                .warning(key, "a secret stands in the file; the environment variable AWS_SECRET_ACCESS_KEY works too");
        }
        if let Some(value) = storage.any_text(key) {
            options.insert(key.to_owned(), value);
        }
    }
    options
}

/// `text` as an absolute url without trailing slash. Never repeats the text: it may hold credentials.
pub(crate) fn lake_url(text: &str, folder: &Path) -> Result<Url, String> {
    let plain = !text.contains("://");
    let mut url = if plain {
        let path = normal(&folder.join(text));
        Url::from_file_path(&path).map_err(|()| "is not a path that can be made absolute".to_owned())?
    } else {
        Url::parse(text).map_err(|error| format!("is not a url ({error})"))?
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials; they belong into [lake.storage] or the environment".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has parameters; options belong into [lake.storage]".to_owned());
    }
    match url.scheme() {
        "file" if url.host_str().is_some_and(|host| !host.is_empty()) => {
            return Err("names a host; a local folder needs three slashes".to_owned());
        }
        "file" | "s3" => {}
        other => return Err(format!("has the scheme `{other}`, which is not supported")),
    }
    if url.scheme() == "s3" && url.host_str().is_none_or(str::is_empty) {
        return Err("names no bucket".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.is_empty() && url.scheme() == "file" {
        return Err("is the root of the file system".to_owned());
    }
    url.set_path(&path);
    Ok(url)
}

/// Without `.` and `..`, as text: the folder need not exist yet.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn read_commit(root: &TableReader) -> Commit {
    let default = Commit { interval: Duration::from_secs(10), rows_max: 1_000_000, bytes_max: 256 * MEBIBYTE };
    let Some(commit) = root.table("commit") else { return default };
    let read = Commit {
        interval: commit.integer("interval_seconds", 1..=3600, INTERVAL).map_or(default.interval, Duration::from_secs),
        rows_max: commit.integer("rows_max", 1..=u64::MAX, ROWS).unwrap_or(default.rows_max),
        bytes_max: commit.bytes("bytes_max", 1, BYTES).unwrap_or(default.bytes_max),
    };
    commit.finish();
    read
}

fn read_memory(root: &TableReader, folder: &Path, environment: Environment) -> Memory {
    // systemd separates several folders by colons.
    let given = |name| Some(PathBuf::from(environment(name)?.to_str()?.split(':').next()?));
    let spill_dir = given("CACHE_DIRECTORY").or_else(|| given("STATE_DIRECTORY")).unwrap_or_else(std::env::temp_dir);
    let users = || {
        let cache = environment("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let cache = cache.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".cache")))?;
        cache.is_absolute().then(|| cache.join("lakeward"))
    };
    let cache = given("CACHE_DIRECTORY").or_else(users).unwrap_or_else(|| std::env::temp_dir().join("lakeward"));
    let default = Memory {
        budget_bytes: 512 * MEBIBYTE,
        spill_dir,
        spill_bytes_max: 64 << 30,
        index_bytes: 256 * MEBIBYTE,
        index_dir: cache.join("index"),
    };
    let Some(memory) = root.table("memory") else { return default };
    let read = Memory {
        budget_bytes: memory.bytes("budget", 64 * MEBIBYTE, BUDGET).unwrap_or(default.budget_bytes),
        spill_dir: memory.text("spill_dir", FOLDER).map_or(default.spill_dir, |text| normal(&folder.join(text.value))),
        spill_bytes_max: memory.bytes("spill_max", 64 * MEBIBYTE, SPILL).unwrap_or(default.spill_bytes_max),
        index_bytes: memory.bytes("index_budget", 64 << 10, INDEX).unwrap_or(default.index_bytes),
        index_dir: memory.text("index_dir", FOLDER).map_or(default.index_dir, |text| normal(&folder.join(text.value))),
    };
    memory.finish();
    read
}

/// Each `[[source]]` by name; `None` when it has problems, so that contracts can still be checked against the name.
fn read_sources(root: &TableReader, folder: &Path, environment: Environment) -> Vec<(String, Option<SourceConfig>)> {
    let tables = root.tables("source");
    if tables.is_empty() && !root.has("source") {
        root.missing("source", "at least one `[[source]]` with `name`, `url` and `tables`");
    }
    let mut lines: HashMap<String, Option<usize>> = HashMap::new();
    let mut sources: Vec<(String, Option<SourceConfig>)> = Vec::new();
    for table in tables {
        let (name, source) = read_source(&table, folder, environment);
        if let Some(Found { value, line }) = &name {
            if let Some(first) = lines.get(value) {
                let first = first.map(|line| format!(" in line {line}")).unwrap_or_default();
                table.problem("name", format!("`{value}` is taken by another source{first}"), "a name of its own");
            } else {
                lines.insert(value.clone(), *line);
            }
        }
        if let Some(source) = &source {
            check_not_shared(&table, source, sources.iter().filter_map(|(_, other)| other.as_ref()));
        }
        table.finish();
        sources.push((name.map(|name| name.value).unwrap_or_default(), source));
    }
    sources
}

/// Two readers with one replica id, or one slot, throw each other out again and again.
fn check_not_shared<'s>(table: &TableReader, source: &SourceConfig, others: impl Iterator<Item = &'s SourceConfig>) {
    let same_server = |other: &&SourceConfig| other.kind == source.kind && other.address() == source.address();
    for other in others.filter(same_server) {
        match source.kind {
            DatabaseKind::MySql if other.server_id == source.server_id => {
                let finding =
                    format!("{} is also that of source `{}` at the same server", source.server_id, other.name);
                table.problem("server_id", finding, "another id");
            }
            DatabaseKind::Postgres if other.slot == source.slot => {
                let finding = format!("`{}` is also that of source `{}` at the same server", source.slot, other.name);
                table.problem("slot", finding, "another slot");
            }
            DatabaseKind::MySql | DatabaseKind::Postgres => {}
        }
    }
}

/// The folder of contracts, and whether it can be read.
fn read_schemas_dir(root: &TableReader, folder: &Path) -> (PathBuf, bool) {
    let default = folder.join("schemas");
    // Asked for in any case, so that it counts as a known key.
    let given = root.text("schemas_dir", FOLDER);
    if !root.has("schemas_dir") {
        let readable = default.is_dir();
        return (default, readable);
    }
    let Some(given) = given else { return (default, false) };
    let given = normal(&folder.join(given.value));
    let readable = given.is_dir();
    if !readable {
        root.problem("schemas_dir", format!("there is no folder {}", given.display()), FOLDER);
    }
    (given, readable)
}

fn warn_of_idle_contracts(contracts: &[LoadedContract], sources: &[SourceConfig], findings: &Findings) {
    for LoadedContract { file, line, contract } in contracts {
        let meant = |source: &&SourceConfig| contract.source.as_ref().is_none_or(|name| *name == source.name);
        if !sources.iter().filter(meant).any(|source| source.tables.selects(&contract.table)) {
            findings.warning(super::ConfigProblem {
                file: file.clone(),
                line: *line,
                key: "table".to_owned(),
                finding: format!("no source's `tables` selects {}: the contract has no effect", contract.table),
                expected: None,
                nearest: None,
            });
        }
    }
}
