//! Reads `[notices]` and each `[[notice]]`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveTime;
use chrono_tz::Tz;
use globset::GlobBuilder;
use percent_encoding::percent_decode_str;
use url::Url;

use super::load::Environment;
use super::notice::{
    Digest, EVENT_KINDS, Email, NoticeChannel, Notices, Patterns, Route, SmtpSecurity, Transport, is_mail_address,
};
use super::problem::nearest;
use super::read_source::read_password_file;
use super::reader::TableReader;
use super::{Secret, SourceConfig, TableSelection};

const NAME: &str = "small letters, digits, `_` and `-`";
const KIND: &str = "\"webhook\", \"slack\", \"command\" or \"email\"";
const KINDS: [&str; 4] = ["webhook", "slack", "command", "email"];
const EVENTS: &str = "a list of kinds of events, `*` stands for anything: \"schema.*\"";
const OWNERS: &str = "a list of owners as the contracts name them";
const SOURCES: &str = "a list of names of sources, `*` stands for anything";
const TABLES: &str = "a list of database.table or schema.table, `*` stands for any name, `!` excludes";
const TIME: &str = "a time of day such as \"09:00\"";
const ZONE: &str = "the name of a time zone such as \"Asia/Seoul\"";
const TIMEOUT: &str = "seconds from 1 to 300";
const WEB: &str = "an http:// or https:// url";
const SMTP: &str = "smtp://host:port or smtps://host:port";
const ADDRESS: &str = "a mail address, name@host or \"Name <name@host>\"";
const ARGUMENTS: &str = "a list: the program, then its arguments";
const LAG: &str = "seconds from 10 to 604800";

const STARTTLS: &str = "\"required\", \"if-offered\" or \"none\"";
const STARTTLS_WORDS: [(&str, SmtpSecurity); 3] = [
    ("required", SmtpSecurity::StartTls),
    ("if-offered", SmtpSecurity::StartTlsIfOffered),
    ("none", SmtpSecurity::None),
];

pub(super) fn read_notices(root: &TableReader) -> Notices {
    let default = Notices::default();
    let Some(table) = root.table("notices") else { return default };
    let lag = table.integer("lag_seconds", 10..=604_800, LAG).map_or(default.lag, Duration::from_secs);
    table.finish();
    Notices { lag }
}

/// All channels that are without problems.
pub(super) fn read_channels(
    root: &TableReader,
    folder: &Path,
    environment: Environment,
    sources: &[(String, Option<SourceConfig>)],
) -> Vec<NoticeChannel> {
    let mut lines: HashMap<String, Option<usize>> = HashMap::new();
    let mut channels = Vec::new();
    for table in root.tables("notice") {
        let name = table.required_text("name", NAME).filter(|name| {
            let valid = is_name(&name.value);
            if !valid {
                table.problem("name", format!("`{}` is not a channel's name", name.value), NAME);
            }
            valid
        });
        if let Some(name) = &name {
            if let Some(first) = lines.get(&name.value) {
                let first = first.map(|line| format!(" in line {line}")).unwrap_or_default();
                let finding = format!("`{}` is taken by another channel{first}", name.value);
                table.problem("name", finding, "a name of its own");
            }
            lines.entry(name.value.clone()).or_insert(name.line);
        }
        let timezone = read_timezone(&table);
        let digest = read_digest(&table);
        let route = read_route(&table, digest.is_some(), sources);
        let timeout =
            table.integer("timeout_seconds", 1..=300, TIMEOUT).map_or(Duration::from_secs(30), Duration::from_secs);
        let kind = table.required_text("kind", KIND);
        let known = kind.as_ref().is_some_and(|kind| KINDS.contains(&kind.value.as_str()));
        let transport = kind.and_then(|kind| read_transport(&table, &kind.value, folder, environment));
        // Which other keys there are depends on the kind.
        if known {
            table.finish();
        }
        if let (Some(name), Some(route), Some(transport), Some(timezone)) = (name, route, transport, timezone) {
            channels.push(NoticeChannel { name: name.value, route, transport, timeout, timezone, digest });
        }
    }
    channels
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn read_timezone(table: &TableReader) -> Option<Tz> {
    let Some(found) = table.text("timezone", ZONE) else {
        return (!table.has("timezone")).then_some(Tz::UTC);
    };
    let zone = found.value.parse().ok();
    if zone.is_none() {
        table.problem_near("timezone", &found.value, ZONE, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
    }
    zone
}

fn read_digest(table: &TableReader) -> Option<Digest> {
    let when_empty = table.boolean("digest_when_empty", "true or false").unwrap_or(false);
    let Some(found) = table.text("digest", TIME) else {
        if table.has("digest_when_empty") && !table.has("digest") {
            table.warning("digest_when_empty", "has no effect without `digest`");
        }
        return None;
    };
    let at = NaiveTime::parse_from_str(&found.value, "%H:%M");
    if at.is_err() {
        table.problem("digest", format!("`{}` is not a time of day", found.value), TIME);
    }
    Some(Digest { at: at.ok()?, when_empty })
}

fn read_route(table: &TableReader, has_digest: bool, sources: &[(String, Option<SourceConfig>)]) -> Option<Route> {
    let events = if table.has("events") {
        let found = table.texts("events", EVENTS)?.value;
        let patterns = read_patterns(table, "events", EVENTS, &found)?;
        for (text, matcher) in &patterns.0 {
            if !EVENT_KINDS.iter().any(|kind| matcher.is_match(kind)) {
                table.problem_near("events", text, &format!("one of {}", EVENT_KINDS.join(", ")), EVENT_KINDS);
            }
        }
        patterns
    } else {
        let _ = table.texts("events", EVENTS);
        // Who wants to be told once a day does not want to be told twice.
        if has_digest { Patterns::default() } else { read_patterns(table, "events", EVENTS, &["*".to_owned()])? }
    };
    if events.is_empty() && !has_digest && !table.has("digest") {
        table.problem("events", "is empty: nothing would ever be sent", EVENTS);
    }
    let owners = match table.has("owners") {
        true => table.texts("owners", OWNERS)?.value,
        false => table.texts("owners", OWNERS).map(|found| found.value).unwrap_or_default(),
    };
    let named = table.texts("sources", SOURCES).map(|found| found.value).unwrap_or_default();
    let patterns = read_patterns(table, "sources", SOURCES, &named)?;
    for (text, matcher) in &patterns.0 {
        if !sources.iter().any(|(name, _)| matcher.is_match(name)) {
            let near = nearest(text, sources.iter().map(|(name, _)| name.as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            table.warning("sources", format!("there is no source `{text}`{near}"));
        }
    }
    let tables = match table.texts("tables", TABLES) {
        None => None,
        Some(found) => match TableSelection::parse(&found.value) {
            Ok(selection) => Some(selection),
            Err(finding) => {
                table.problem("tables", finding, TABLES);
                return None;
            }
        },
    };
    Some(Route { events, owners, sources: patterns, tables })
}

fn read_patterns(table: &TableReader, key: &str, expected: &str, texts: &[String]) -> Option<Patterns> {
    let mut patterns = Vec::with_capacity(texts.len());
    for text in texts {
        match GlobBuilder::new(text).backslash_escape(true).build() {
            Ok(glob) => patterns.push((text.clone(), glob.compile_matcher())),
            Err(error) => table.problem(key, format!("`{text}` is not a pattern: {}", error.kind()), expected),
        }
    }
    (patterns.len() == texts.len()).then_some(Patterns(patterns))
}

fn read_transport(table: &TableReader, kind: &str, folder: &Path, environment: Environment) -> Option<Transport> {
    match kind {
        "webhook" => {
            let url = read_url(table, folder, environment);
            let secret = read_secret(table, &SIGNING_KEYS, folder, environment);
            let ca_file = read_ca_file(table, folder);
            Some(Transport::Webhook { url: url?, secret: secret?, ca_file: ca_file? })
        }
        "slack" => {
            let url = read_url(table, folder, environment);
            let ca_file = read_ca_file(table, folder);
            Some(Transport::Slack { url: url?, ca_file: ca_file? })
        }
        "command" => {
            if !table.has("command") {
                table.missing("command", ARGUMENTS);
                return None;
            }
            let arguments = table.texts("command", ARGUMENTS)?.value;
            if arguments.is_empty() {
                table.problem("command", "is empty", ARGUMENTS);
                return None;
            }
            Some(Transport::Command { arguments })
        }
        "email" => read_email(table, folder, environment).map(Transport::Email),
        other => {
            table.problem_near("kind", other, KIND, KINDS);
            None
        }
    }
}

/// The three keys that one secret can come by.
struct SecretKeys {
    plain: Option<&'static str>,
    file: &'static str,
    variable: &'static str,
}

const URL_KEYS: SecretKeys = SecretKeys { plain: Some("url"), file: "url_file", variable: "url_env" };
const SIGNING_KEYS: SecretKeys = SecretKeys { plain: Some("secret"), file: "secret_file", variable: "secret_env" };
const PASSWORD_KEYS: SecretKeys = SecretKeys { plain: None, file: "password_file", variable: "password_env" };

/// `Some(None)` when none is given; `None` when what is given is of no use.
fn read_secret(
    table: &TableReader,
    keys: &SecretKeys,
    folder: &Path,
    environment: Environment,
) -> Option<Option<Secret>> {
    let plain = keys.plain.and_then(|key| table.text(key, "a text"));
    let file = table.text(keys.file, "the path of a file that holds it and nothing else");
    let variable = table.text(keys.variable, "the name of an environment variable");
    let given: Vec<&str> =
        keys.plain.into_iter().chain([keys.file, keys.variable]).filter(|key| table.has(key)).collect();
    if given.len() > 1 {
        table.problem(given[1], format!("stands beside `{}`", given[0]), "only one of them");
        return None;
    }
    if let Some(plain) = plain {
        if keys.file == SIGNING_KEYS.file {
            table.warning("secret", "a secret stands in the file; use `secret_file` or `secret_env`");
        }
        return Some(Some(Secret::new(plain.value)));
    }
    if let Some(file) = file {
        return match read_password_file(&folder.join(file.value), environment) {
            Ok(secret) => Some(Some(secret)),
            Err(finding) => {
                table.problem(keys.file, finding, "");
                None
            }
        };
    }
    if let Some(variable) = variable {
        let finding = match environment(&variable.value).map(std::ffi::OsString::into_string) {
            Some(Ok(secret)) if !secret.is_empty() => return Some(Some(Secret::new(secret))),
            Some(Ok(_)) => "is empty",
            Some(Err(_)) => "is not UTF-8",
            None => "is not set",
        };
        table.problem(keys.variable, format!("the variable {} {finding}", variable.value), "");
        return None;
    }
    // A key that is there and of no use has been reported.
    given.is_empty().then_some(None)
}

fn read_url(table: &TableReader, folder: &Path, environment: Environment) -> Option<Secret> {
    let Some(url) = read_secret(table, &URL_KEYS, folder, environment)? else {
        table.missing("url", "`url`, `url_file` or `url_env`");
        return None;
    };
    let key = ["url", "url_file", "url_env"].into_iter().find(|key| table.has(key)).unwrap_or("url");
    let finding = match Url::parse(url.expose().trim()) {
        Err(error) => format!("is not a url ({error})"),
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
            format!("has the scheme `{}`", parsed.scheme())
        }
        Ok(parsed) if parsed.host_str().is_none_or(str::is_empty) => "names no host".to_owned(),
        Ok(_) => return Some(Secret::new(url.expose().trim())),
    };
    table.problem(key, finding, WEB);
    None
}

/// `None` when there is a problem.
fn read_ca_file(table: &TableReader, folder: &Path) -> Option<Option<PathBuf>> {
    let Some(found) = table.text("tls_ca_file", "the path of a PEM file") else {
        return (!table.has("tls_ca_file")).then_some(None);
    };
    let path = folder.join(found.value);
    if !path.is_file() {
        table.problem("tls_ca_file", format!("there is no file {}", path.display()), "the path of a PEM file");
        return None;
    }
    Some(Some(path))
}

fn read_email(table: &TableReader, folder: &Path, environment: Environment) -> Option<Email> {
    let server = table.required_text("smtp_url", SMTP).and_then(|url| read_smtp_url(table, &url.value));
    let security = table.word("starttls", STARTTLS, &STARTTLS_WORDS);
    let password = read_secret(table, &PASSWORD_KEYS, folder, environment);
    let user = table.text("user", "the name to log in with").map(|found| found.value);
    let ca_file = read_ca_file(table, folder);
    let to_owners = table.boolean("to_owners", "true or false").unwrap_or(false);
    let from =
        table.required_text("from", ADDRESS).map(|found| found.value).filter(|from| is_mailbox(table, "from", from));
    let to = table.texts("to", ADDRESS).map(|found| found.value).unwrap_or_default();
    let wrong = to.iter().filter(|address| !is_mailbox(table, "to", address)).count();
    if to.is_empty() && !to_owners && !table.has("to") {
        table.missing("to", "a list of mail addresses, or `to_owners = true`");
    }
    let server = server?;
    let security = match (server.security, security) {
        (SmtpSecurity::Tls, None) => SmtpSecurity::Tls,
        (SmtpSecurity::Tls, Some(_)) => {
            table.problem("starttls", "smtps:// is TLS from the first byte", "no such key here");
            return None;
        }
        (given, None) => given,
        (_, Some(stated)) => stated,
    };
    let (user, password) = (user.or(server.user), password?.or(server.password));
    if user.is_none() && password.is_some() {
        table.problem("password_file", "there is a password and no user", "`user`");
        return None;
    }
    if security == SmtpSecurity::None && password.is_some() {
        table.warning("starttls", "the password is sent in the clear");
    }
    if wrong > 0 || (to.is_empty() && !to_owners) {
        return None;
    }
    Some(Email {
        host: server.host,
        port: server.port,
        security,
        user,
        password,
        ca_file: ca_file?,
        from: from?,
        to,
        to_owners,
    })
}

struct SmtpServer {
    host: String,
    port: u16,
    security: SmtpSecurity,
    user: Option<String>,
    password: Option<Secret>,
}

/// Never repeats the url: it may hold a password.
fn read_smtp_url(table: &TableReader, text: &str) -> Option<SmtpServer> {
    let parsed = Url::parse(text).map_err(|error| format!("is not a url ({error})")).and_then(|url| {
        let (security, port) = match url.scheme() {
            "smtp" => (SmtpSecurity::StartTls, 587),
            "smtps" => (SmtpSecurity::Tls, 465),
            other => return Err(format!("has the scheme `{other}`")),
        };
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let host = decode(url.host_str().unwrap_or_default());
        if host.is_empty() {
            return Err("names no host".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
            return Err("has a path or parameters, which are not read; STARTTLS is set by `starttls`".to_owned());
        }
        Ok(SmtpServer {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(port),
            security,
            user: (!url.username().is_empty()).then(|| decode(url.username())),
            password: url.password().map(|password| Secret::new(decode(password))),
        })
    });
    match parsed {
        Ok(server) => {
            if server.password.is_some() {
                table.warning("smtp_url", "a password stands in the url; use `password_file` or `password_env`");
            }
            Some(server)
        }
        Err(finding) => {
            table.problem("smtp_url", finding, SMTP);
            None
        }
    }
}

fn is_mailbox(table: &TableReader, key: &str, text: &str) -> bool {
    let address = match text.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let valid = is_mail_address(address);
    if !valid {
        table.problem(key, format!("`{text}` is not a mail address"), ADDRESS);
    }
    valid
}
