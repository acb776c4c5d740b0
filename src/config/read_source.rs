//! Reads one `[[source]]`: its url, its password, its tables and what is particular to its kind of database.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::load::Environment;
use super::reader::{Found, TableReader};
use super::{DatabaseKind, OnLostPosition, Secret, SourceConfig, TableSelection, Tls};

const NAME: &str = "small letters, digits, `_` and `-`";
const URL: &str = "mysql://user@host:port or postgres://user@host:port/database";
const TABLES: &str = "a list of database.table or schema.table, `*` stands for any name, `!` excludes";
const TLS: &str = "disable, prefer, require, verify-ca or verify-full";
const SLOT: &str = "1 to 63 small letters, digits and `_`";
const PUBLICATION: &str = "a name of at most 63 bytes without quotes and commas";

const LOST: &str = "stop or resync";

const LOST_WORDS: [(&str, OnLostPosition); 2] = [("stop", OnLostPosition::Stop), ("resync", OnLostPosition::Resync)];

const TLS_WORDS: [(&str, Tls); 5] = [
    ("disable", Tls::Disable),
    ("prefer", Tls::Prefer),
    ("require", Tls::Require),
    ("verify-ca", Tls::VerifyCa),
    ("verify-full", Tls::VerifyFull),
];

/// What a source's url says.
pub struct SourceUrl {
    pub kind: DatabaseKind,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
}

impl SourceUrl {
    /// The error says what is wrong without repeating the url, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a url ({error})"))?;
        let (kind, default_port) = match url.scheme() {
            "mysql" | "mariadb" => (DatabaseKind::MySql, 3306),
            "postgres" | "postgresql" => (DatabaseKind::Postgres, 5432),
            other => return Err(format!("has the scheme `{other}`, which is no database known here")),
        };
        let decode = |part: &str, what: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(String::from).map_err(|_| format!("has a {what} that is not UTF-8 after percent-decoding"))
        };
        let host = decode(url.host_str().unwrap_or_default(), "host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("names no host".to_owned());
        }
        let user = decode(url.username(), "user")?;
        if user.is_empty() {
            return Err("names no user".to_owned());
        }
        let password = url.password().map(|password| decode(password, "password")).transpose()?.map(Secret::new);
        let database = decode(url.path().trim_matches('/'), "database")?;
        match kind {
            DatabaseKind::MySql if !database.is_empty() => {
                return Err("names a database; for MySQL and MariaDB `tables` does that (\"database.*\")".to_owned());
            }
            DatabaseKind::Postgres if database.is_empty() => return Err("names no database".to_owned()),
            DatabaseKind::MySql | DatabaseKind::Postgres => {}
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has parameters, which are not read; TLS is set by `tls` and `tls_ca_file`".to_owned());
        }
        Ok(Self { kind, host, port: url.port().unwrap_or(default_port), user, password, database })
    }
}

/// The source and its name; either is `None` when it has problems.
pub(super) fn read_source(
    table: &TableReader,
    folder: &Path,
    environment: Environment,
) -> (Option<Found<String>>, Option<SourceConfig>) {
    let name = table.required_text("name", NAME).and_then(|name| {
        let valid = is_source_name(&name.value);
        if !valid {
            table.problem("name", format!("`{}` is not a source's name", name.value), NAME);
        }
        valid.then_some(name)
    });
    let url = read_url(table);
    let password = read_password(table, folder, environment);
    let tls = read_tls(table);
    let tls_ca_file = read_tls_ca_file(table, folder, tls);
    let tables = read_tables(table);
    let kind = url.as_ref().map(|url| url.kind);
    let own_name = name.as_ref().map(|name| name.value.as_str()).unwrap_or_default();
    let server_id = read_server_id(table, kind, own_name);
    let default = default_slot(own_name);
    let slot = read_slot(table, kind, &default);
    let publication = read_publication(table, kind, &default);
    let on_lost_position = read_on_lost_position(table);
    let source = || {
        let url = url?;
        Some(SourceConfig {
            name: own_name.to_owned(),
            kind: url.kind,
            host: url.host,
            port: url.port,
            user: url.user,
            password: password.or(url.password),
            database: url.database,
            tls: tls?,
            tls_ca_file,
            tables: tables?,
            server_id,
            slot,
            publication,
            on_lost_position: on_lost_position?,
        })
    };
    let source = if name.is_some() { source() } else { None };
    (name, source)
}

/// Whether it may be a source's name, and so a part of the lake's paths. What has a place of its own there is taken: the
/// ledger's folder, and beside the sources in it the history of schema changes and what channels of notices share.
pub fn is_source_name(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "_lakeward" | "schema_changes" | "notices")
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn read_url(table: &TableReader) -> Option<SourceUrl> {
    let url = table.required_text("url", URL)?;
    match SourceUrl::parse(&url.value) {
        Ok(url) => {
            if url.password.is_some() {
                let other = if table.has("password_file") || table.has("password_env") {
                    "and `password_file` or `password_env` goes before it; remove it from the url"
                } else {
                    "where everybody who may read the file sees it; use `password_file` or `password_env`"
                };
                table.warning("url", format!("a password stands in the url, {other}"));
            }
            Some(url)
        }
        Err(finding) => {
            table.problem("url", finding, URL);
            None
        }
    }
}

fn read_password(table: &TableReader, folder: &Path, environment: Environment) -> Option<Secret> {
    let file = table.text("password_file", "the path of a file that holds the password only");
    let variable = table.text("password_env", "the name of an environment variable");
    if table.has("password_file") && table.has("password_env") {
        table.problem("password_env", "stands beside `password_file`", "only one of the two");
        return None;
    }
    if let Some(file) = file {
        return match read_password_file(&folder.join(file.value), environment) {
            Ok(password) => Some(password),
            Err(finding) => {
                table.problem("password_file", finding, "");
                None
            }
        };
    }
    let variable = variable?.value;
    match environment(&variable).map(std::ffi::OsString::into_string) {
        Some(Ok(password)) if !password.is_empty() => return Some(Secret::new(password)),
        Some(Ok(_)) => table.problem("password_env", format!("the variable {variable} is empty"), ""),
        Some(Err(_)) => table.problem("password_env", format!("the variable {variable} is not UTF-8"), ""),
        None => table.problem("password_env", format!("the variable {variable} is not set"), ""),
    }
    None
}

/// The file, or the file of its name among systemd's credentials (systemd.exec(5), `LoadCredential=`).
pub(crate) fn read_password_file(path: &Path, environment: Environment) -> Result<Secret, String> {
    let credential = || Some(PathBuf::from(environment("CREDENTIALS_DIRECTORY")?).join(path.file_name()?));
    let path = if path.exists() {
        path.to_owned()
    } else {
        credential().filter(|credential| credential.exists()).unwrap_or_else(|| path.to_owned())
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(Secret::new(password))
}

fn read_tls(table: &TableReader) -> Option<Tls> {
    if !table.has("tls") {
        let _ = table.text("tls", TLS);
        return Some(Tls::Prefer);
    }
    table.word("tls", TLS, &TLS_WORDS)
}

fn read_tls_ca_file(table: &TableReader, folder: &Path, tls: Option<Tls>) -> Option<PathBuf> {
    let path = folder.join(table.text("tls_ca_file", "the path of a PEM file")?.value);
    if !path.is_file() {
        table.problem("tls_ca_file", format!("there is no file {}", path.display()), "the path of a PEM file");
        return None;
    }
    if tls.is_some_and(|tls| !matches!(tls, Tls::VerifyCa | Tls::VerifyFull)) {
        table.warning("tls_ca_file", "has no effect unless `tls` is verify-ca or verify-full");
    }
    Some(path)
}

fn read_tables(table: &TableReader) -> Option<TableSelection> {
    if !table.has("tables") {
        table.missing("tables", TABLES);
        return None;
    }
    let patterns = table.texts("tables", TABLES)?.value;
    if patterns.iter().all(|pattern| pattern.starts_with('!')) {
        table.problem("tables", "selects nothing", TABLES);
        return None;
    }
    // One at a time: each wrong pattern is a problem of its own.
    let findings: Vec<String> = patterns.iter().filter_map(|pattern| TableSelection::parse(&[pattern]).err()).collect();
    for finding in &findings {
        table.problem("tables", finding.clone(), "");
    }
    if findings.is_empty() { TableSelection::parse(&patterns).ok() } else { None }
}

fn read_server_id(table: &TableReader, kind: Option<DatabaseKind>, name: &str) -> u32 {
    let given = table.integer("server_id", 1..=u64::from(u32::MAX), "a number from 1 to 4294967295");
    only_for(table, "server_id", kind, DatabaseKind::MySql);
    given.and_then(|id| u32::try_from(id).ok()).unwrap_or_else(|| default_server_id(name))
}

/// High enough to stay clear of the ids that people give, and always the same for the same name.
pub fn default_server_id(name: &str) -> u32 {
    1_000_000_000 + crc32fast::hash(name.as_bytes()) % 1_000_000_000
}

/// The slot, and the publication, of a PostgreSQL source that names none.
pub fn default_slot(name: &str) -> String {
    format!("lakeward_{}", name.replace('-', "_"))
}

/// PostgreSQL: "Each replication slot has a name, which can contain lower-case letters, numbers, and the underscore
/// character" (manual 26.2.6.1), in at most NAMEDATALEN - 1 bytes.
fn read_slot(table: &TableReader, kind: Option<DatabaseKind>, default: &str) -> String {
    let given = table.text("slot", SLOT);
    only_for(table, "slot", kind, DatabaseKind::Postgres);
    let slot = given.map(|slot| slot.value).unwrap_or_else(|| default.to_owned());
    let valid = slot.len() <= 63 && slot.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !valid && kind == Some(DatabaseKind::Postgres) {
        table.problem("slot", format!("`{slot}` is not a slot's name"), SLOT);
    }
    slot
}

fn read_publication(table: &TableReader, kind: Option<DatabaseKind>, default: &str) -> String {
    let given = table.text("publication", PUBLICATION);
    only_for(table, "publication", kind, DatabaseKind::Postgres);
    let publication = given.map(|publication| publication.value).unwrap_or_else(|| default.to_owned());
    let forbidden = |c: char| c.is_control() || matches!(c, '"' | '\'' | ',' | '\\');
    if (publication.len() > 63 || publication.contains(forbidden)) && kind == Some(DatabaseKind::Postgres) {
        table.problem("publication", format!("`{publication}` is not a publication's name"), PUBLICATION);
    }
    publication
}

fn read_on_lost_position(table: &TableReader) -> Option<OnLostPosition> {
    let found = table.word("on_lost_position", LOST, &LOST_WORDS);
    if table.has("on_lost_position") { found } else { Some(OnLostPosition::default()) }
}

fn only_for(table: &TableReader, key: &str, kind: Option<DatabaseKind>, needed: DatabaseKind) {
    let meant = match needed {
        DatabaseKind::MySql => "mysql",
        DatabaseKind::Postgres => "postgres",
    };
    if table.has(key) && kind.is_some_and(|kind| kind != needed) {
        table.problem(key, format!("only a {meant} source has one"), "no such key here");
    }
}
