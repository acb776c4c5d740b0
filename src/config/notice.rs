//! `[[notice]]` and `[notices]`: who is told about what happens to tables, and when.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveTime;
use chrono_tz::Tz;
use globset::GlobMatcher;

use super::{Secret, TableSelection};

/// What a channel can be told of: `events` names them, by pattern.
pub const EVENT_KINDS: [&str; 9] = [
    "schema.changed",
    "schema.held",
    "schema.refused",
    "table.added",
    "table.dropped",
    "table.stopped",
    "table.resynced",
    "value.policy_applied",
    "source.lagging",
];

/// `[notices]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notices {
    /// A source that is further behind than this is told of (`source.lagging`).
    pub lag: Duration,
}

impl Default for Notices {
    fn default() -> Self {
        Self { lag: Duration::from_secs(900) }
    }
}

/// One `[[notice]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeChannel {
    /// `[a-z0-9_-]+`; part of the path of what the channel was told already.
    pub name: String,
    pub route: Route,
    pub transport: Transport,
    /// For one try.
    pub timeout: Duration,
    /// In which times are written for people, and the digest's day is counted.
    pub timezone: Tz,
    pub digest: Option<Digest>,
}

/// Which events a channel gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Of kinds that are sent at once.
    pub events: Patterns,
    /// Only of tables that one of these owns; of all tables when empty.
    pub owners: Vec<String>,
    /// Only of these sources; of all when empty.
    pub sources: Patterns,
    /// Only of these tables.
    pub tables: Option<TableSelection>,
}

impl Route {
    /// Whether the channel is for events of this place at all. An event of a whole source has no table and no owners.
    pub fn covers(&self, source: &str, table: Option<&str>, owners: &[String]) -> bool {
        (self.sources.is_empty() || self.sources.matches(source))
            && self.tables.as_ref().is_none_or(|tables| table.is_some_and(|table| tables.selects(table)))
            && (self.owners.is_empty() || owners.iter().any(|owner| self.owners.contains(owner)))
    }
}

/// Globs over plain names; any of them may match.
#[derive(Clone, Default)]
pub struct Patterns(pub(super) Vec<(String, GlobMatcher)>);

impl Patterns {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|(_, matcher)| matcher.is_match(name))
    }

    /// As written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }
}

/// By their texts: the matchers are made of these.
impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for Patterns {}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

/// What changed the day before, told each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// By the clocks of the channel's time zone.
    pub at: NaiveTime,
    /// Also when nothing happened.
    pub when_empty: bool,
}

/// How a channel is reached. Urls are secrets: whoever has one can post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Webhook {
        url: Secret,
        /// Signs what is sent.
        secret: Option<Secret>,
        ca_file: Option<PathBuf>,
    },
    /// An incoming webhook of Slack, or of what understands its messages (Mattermost, Rocket.Chat, Discord's `/slack`).
    Slack {
        url: Secret,
        ca_file: Option<PathBuf>,
    },
    /// A program and its arguments; the first is not taken through a shell.
    Command {
        arguments: Vec<String>,
    },
    Email(Email),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub host: String,
    pub port: u16,
    pub security: SmtpSecurity,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub ca_file: Option<PathBuf>,
    /// `name@host`, or `Name <name@host>`.
    pub from: String,
    pub to: Vec<String>,
    /// Owners of the table that are addresses get it too.
    pub to_owners: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// TLS from the first byte (`smtps://`).
    Tls,
    /// STARTTLS, or no mail.
    StartTls,
    /// STARTTLS when the server offers it.
    StartTlsIfOffered,
    /// In the clear.
    None,
}

impl Transport {
    /// Its word in `kind = "…"`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Command { .. } => "command",
            Self::Email(_) => "email",
        }
    }

    /// Where it leads, for people: without what could let others post there.
    pub fn address(&self) -> String {
        match self {
            Self::Webhook { url, .. } | Self::Slack { url, .. } => {
                let parsed = url::Url::parse(url.expose()).ok();
                let host = parsed.as_ref().and_then(url::Url::host_str).unwrap_or_default();
                let scheme = parsed.as_ref().map_or("https", url::Url::scheme);
                match parsed.as_ref().and_then(url::Url::port) {
                    Some(port) => format!("{scheme}://{host}:{port}"),
                    None => format!("{scheme}://{host}"),
                }
            }
            Self::Command { arguments } => arguments.first().cloned().unwrap_or_default(),
            Self::Email(email) => {
                let mut to = email.to.clone();
                if email.to_owners {
                    to.push("owners".to_owned());
                }
                format!("{} by {}:{}", to.join(", "), email.host, email.port)
            }
        }
    }
}

/// Whether it has the form of a mail address, `name@host`.
pub fn is_mail_address(text: &str) -> bool {
    let forbidden =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';' | '"' | '(' | ')');
    match text.split_once('@') {
        Some((name, host)) => !name.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(forbidden),
        None => false,
    }
}
