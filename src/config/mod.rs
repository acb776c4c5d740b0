//! `config.toml` and `schemas/*.toml` as typed, validated values.
//!
//! [`Config::load`] reads both and reports every problem at once, each with file, line, key, what was expected and the
//! nearest valid key. Everything below works with these values only; no other room reads a file or the environment for
//! its settings.

mod change_policy;
mod contract;
mod effective;
mod load;
mod maintenance;
mod notice;
mod problem;
mod read_contract;
mod read_notice;
mod read_source;
mod reader;
mod secret;
mod selection;
mod snapshot;
#[cfg(test)]
mod tests;
#[cfg(feature = "daemon")]
mod watch;
mod write_mode;

pub use change_policy::{ChangeKind, ChangePolicies, ChangePolicy};
pub use contract::{Contract, Contracts, ValuePolicy, WithoutKey};
pub use effective::Effective;
pub(crate) use load::lake_url;
pub use maintenance::Maintenance;
pub use notice::{
    Digest, EVENT_KINDS, Email, NoticeChannel, Notices, Patterns, Route, SmtpSecurity, Transport, is_mail_address,
};
pub(crate) use problem::nearest;
pub use problem::{ConfigError, ConfigProblem};
pub(crate) use read_source::read_password_file;
pub use read_source::{SourceUrl, default_server_id, default_slot, is_source_name};
pub use secret::Secret;
pub use selection::TableSelection;
pub use snapshot::{DuringSnapshot, Snapshot};
#[cfg(feature = "daemon")]
pub use watch::Watch;
pub use write_mode::{AllWriteTerms, WriteMode, WriteTerms};

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The folder of contracts, which need not exist unless `schemas_dir` names it.
    pub schemas_dir: PathBuf,
    pub lake: Lake,
    pub commit: Commit,
    pub memory: Memory,
    pub snapshot: Snapshot,
    pub maintenance: Maintenance,
    pub sources: Vec<SourceConfig>,
    pub contracts: Contracts,
    /// `[schema_changes]`: for tables whose contracts say nothing.
    pub schema_changes: ChangePolicies,
    /// `[notices]`
    pub notices: Notices,
    /// Each `[[notice]]`.
    pub channels: Vec<NoticeChannel>,
    /// What works but should change, such as a password in a url.
    pub warnings: Vec<ConfigProblem>,
}

/// `[lake]`. Its `Debug` form hides the values of `storage`: they may be keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Lake {
    /// Absolute, `file:///…` or `s3://bucket/prefix`, without a trailing slash. A plain path in the file is taken
    /// relative to the folder of config.toml.
    pub url: Url,
    /// Schema changes splice columns into data files instead of writing every row anew.
    pub column_splice: bool,
    /// For tables whose contracts say nothing.
    pub write_mode: WriteMode,
    /// `[lake.storage]`: object-store options by name, as deltalake and object_store know them (`aws_region`, …).
    pub storage: BTreeMap<String, String>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&str> = self.storage.keys().map(String::as_str).collect();
        f.debug_struct("Lake").field("url", &self.url.as_str()).field("storage", &options).finish()
    }
}

/// `[commit]`: when a table's gathered changes become a Delta commit, whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub interval: Duration,
    pub rows_max: u64,
    pub bytes_max: u64,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub budget_bytes: u64,
    /// Where transactions larger than memory wait: `spill_dir`, relative to config.toml; else the folder that the service
    /// manager gives (CACHE_DIRECTORY, STATE_DIRECTORY), else the system's for temporary files.
    pub spill_dir: PathBuf,
    /// Of disk, for each source.
    pub spill_bytes_max: u64,
    /// For the key indexes of all tables of the process.
    pub index_bytes: u64,
    /// Where they are kept: `index_dir`, relative to config.toml; else the service manager's folder for caches
    /// (CACHE_DIRECTORY), the user's, or the system's for temporary files.
    pub index_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// MySQL or MariaDB; which one is asked at connect.
    MySql,
    Postgres,
}

/// How TLS is used; the words and their meaning are libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Disable,
    /// TLS when the server offers it, unverified.
    Prefer,
    /// TLS, unverified.
    Require,
    /// TLS, certificate chain verified.
    VerifyCa,
    /// TLS, certificate chain and host name verified.
    VerifyFull,
}

/// What becomes of a source when changes that the lake does not have can't be read from its log any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLostPosition {
    /// Its run ends with an error that says what to do.
    #[default]
    Stop,
    /// All its tables are loaded anew.
    Resync,
}

/// One `[[source]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// `[a-z0-9_-]+`; part of the lake path.
    pub name: String,
    pub kind: DatabaseKind,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    /// PostgreSQL: the database of the url. MySQL: empty.
    pub database: String,
    pub tls: Tls,
    /// PEM file with the authorities to trust instead of the system's (`tls_ca_file`).
    pub tls_ca_file: Option<PathBuf>,
    pub tables: TableSelection,
    /// MySQL: this reader's replica id, unique among the server's replicas; default derived from the source's name.
    pub server_id: u32,
    /// PostgreSQL: default [`default_slot`].
    pub slot: String,
    /// PostgreSQL: default [`default_slot`]; created when missing.
    pub publication: String,
    pub on_lost_position: OnLostPosition,
}

impl Config {
    /// What becomes of schema changes of a table.
    pub fn change_policies(&self, source: &str, table: &str) -> ChangePolicies {
        match self.contracts.get(source, table) {
            Some(contract) => contract.schema_changes.or(&self.schema_changes),
            None => self.schema_changes.clone(),
        }
    }

    /// What a table's files come to when they are compacted.
    pub fn target_file_bytes(&self, source: &str, table: &str) -> u64 {
        let stated = self.contracts.stated(source, table, |contract| contract.target_file_bytes);
        stated.unwrap_or(self.maintenance.target_file_bytes)
    }

    /// For how long a table's versions stay readable.
    pub fn retention(&self, source: &str, table: &str) -> Duration {
        let stated = self.contracts.stated(source, table, |contract| contract.retention);
        stated.unwrap_or(self.maintenance.retention)
    }

    /// What readers see of a table while it is loaded for the first time.
    pub fn during_snapshot(&self, source: &str, table: &str) -> DuringSnapshot {
        let stated = self.contracts.stated(source, table, |contract| contract.during_snapshot);
        stated.unwrap_or(self.snapshot.during_snapshot)
    }
}

impl SourceConfig {
    /// `host:port`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
