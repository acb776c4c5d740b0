//! What `lakeward schema` tells of a table: its columns, its history, how it differs from its source, what a statement
//! would do to it, and what waits for a decision.
//!
//! All but the decision only reads: the Delta log, the ledger, the source's catalog.

mod decide;
mod diff;
mod history;
mod pending;
mod plan;
mod show;

pub use decide::{DecisionReport, decide_change};
pub use diff::{DiffReport, Difference, diff_points, diff_source};
pub use history::{HistoryEntry, HistoryReport, history};
pub use pending::{Pending, PendingKind};
pub use plan::{LakeWork, PlanOutcome, PlanReport, PlannedStep, Told, plan};
pub use show::{ColumnReport, ShowReport, ShownAs, show};

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use object_store::ObjectStore;

use super::{AnySource, Error};
use crate::config::{Config, SourceConfig};
use crate::lake::{Lake, TableLog, TableState};
use crate::ledger::{Decisions, Entry, Ledger};
use crate::schema::TableName;
use crate::source::Position;
use crate::{lake, ledger, source};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// What was asked has no answer; the text says what could be asked.
    #[error("{0}")]
    Question(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<lake::Error> for ReportError {
    fn from(error: lake::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ledger::Error> for ReportError {
    fn from(error: ledger::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<source::Error> for ReportError {
    fn from(error: source::Error) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) fn question(text: impl Into<String>) -> ReportError {
    ReportError::Question(text.into())
}

fn source_names(config: &Config) -> String {
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    names.join(", ")
}

/// The source of this name.
pub(super) fn source_named<'a>(config: &'a Config, name: &str) -> Result<&'a SourceConfig, ReportError> {
    config.sources.iter().find(|source| source.name == name).ok_or_else(|| {
        question(format!("there is no source `{name}` in the configuration; there are: {}", source_names(config)))
    })
}

/// A moment of a table's past.
#[derive(Clone, Debug, PartialEq)]
pub enum At {
    Time(DateTime<Utc>),
    Position(Position),
    /// Of the Delta table.
    Version(u64),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        let day = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN).and_utc());
        time(text).or_else(day).map(Self::Time).ok_or_else(|| {
            format!(
                "`{text}` is neither a time (2026-01-31 14:00, in UTC, or with a zone as in RFC 3339), nor a log position as \
                 `lakeward tables` shows it, nor a version of the Delta table"
            )
        })
    }
}

/// A time as in RFC 3339, or without a zone, which is UTC.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()).map(|time| time.and_utc())
}

/// A table that was asked about.
pub(super) struct Place<'a> {
    config: &'a Config,
    pub(super) source: &'a SourceConfig,
    pub(super) name: TableName,
    lake: Lake,
}

impl<'a> Place<'a> {
    /// `[source/]schema.table`
    pub(super) fn find(config: &'a Config, text: &str) -> Result<Self, ReportError> {
        let (named, table) = match text.split_once('/') {
            Some((source, table)) => (Some(source), table),
            None => (None, text),
        };
        let Some((schema, name)) =
            table.split_once('.').filter(|(schema, name)| !schema.is_empty() && !name.is_empty())
        else {
            return Err(question(format!("`{table}` is no table: it is named database.table or schema.table")));
        };
        let source = match named {
            Some(named) => source_named(config, named)?,
            None => {
                let mut selecting = config.sources.iter().filter(|source| source.tables.selects(table));
                match (selecting.next(), selecting.next(), config.sources.as_slice()) {
                    (Some(source), None, _) => source,
                    (Some(first), Some(second), _) => {
                        return Err(question(format!(
                            "several sources have {table}: name one, `{}/{table}` or `{}/{table}`",
                            first.name, second.name
                        )));
                    }
                    // The lake may still have it.
                    (None, _, [only]) => only,
                    (None, ..) => {
                        return Err(question(format!(
                            "no source selects {table}; if the lake has it still, name its source: one of {}",
                            source_names(config)
                        )));
                    }
                }
            }
        };
        let lake = Lake::new(&config.lake.url, &config.lake.storage);
        Ok(Self { config, source, name: TableName::new(schema, name), lake })
    }

    /// The table as a command line takes it.
    fn argument(&self) -> String {
        let table = self.name.to_string();
        let selecting = self.config.sources.iter().filter(|source| source.tables.selects(&table)).count();
        let text = if selecting == 1 { table } else { format!("{}/{table}", self.source.name) };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
        if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
    }

    async fn log(&self) -> Result<TableLog, ReportError> {
        TableLog::open(&self.lake, &self.source.name, &self.name).await?.ok_or_else(|| {
            question(format!(
                "the lake has no table {} of source `{}`: it is not loaded yet, or was removed",
                self.name, self.source.name
            ))
        })
    }

    /// The table at this moment, or now.
    async fn state(&self, log: &TableLog, at: Option<&At>) -> Result<TableState, ReportError> {
        Ok(log.state(self.version(log, at).await?).await?)
    }

    async fn version(&self, log: &TableLog, at: Option<&At>) -> Result<u64, ReportError> {
        let none = |when: String| {
            question(format!("the lake had no table {} {when}, or its log does not reach back", self.name))
        };
        match at {
            None => Ok(log.newest()),
            Some(At::Version(version)) if *version <= log.newest() => Ok(*version),
            Some(At::Version(version)) => {
                Err(question(format!("{} has no version {version}: the newest is {}", self.name, log.newest())))
            }
            Some(At::Time(time)) => {
                let entry = log.at_time(*time).await?;
                entry.map(|entry| entry.version).ok_or_else(|| none(format!("at {}", time.format("%F %T UTC"))))
            }
            Some(At::Position(position)) => {
                let holds = |text: &str| text.parse().is_ok_and(|other: Position| position.covers(&other));
                let entry = log.last_where(|entry| holds(&entry.position)).await?;
                entry.map(|entry| entry.version).ok_or_else(|| none(format!("at {position}")))
            }
        }
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>, ReportError> {
        Ok(self.lake.ledger_store(&self.source.name)?)
    }

    async fn entry(&self) -> Result<Option<Entry>, ReportError> {
        Ok(Ledger::read(self.store()?).await?)
    }

    fn decisions(&self) -> Result<Decisions, ReportError> {
        Ok(Decisions::new(self.store()?))
    }

    fn database(&self) -> Result<AnySource, ReportError> {
        Ok(AnySource::new(self.source.clone(), self.config.contracts.clone())?)
    }

    fn owners(&self) -> Vec<String> {
        let contract = self.config.contracts.get(&self.source.name, &self.name.to_string());
        contract.map(|contract| contract.owners.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config() -> Config {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        let source = |name: &str, tables: &str| {
            format!("[[source]]\nname = \"{name}\"\nurl = \"mysql://u@{name}\"\ntables = [{tables}]\n")
        };
        let text = format!(
            "[lake]\nurl = \"/lake\"\n{}{}",
            source("a", "\"shop.*\", \"odd.*\""),
            source("b", "\"shop.goods\", \"more.*\"")
        );
        fs::write(&path, text).expect("written");
        Config::load(&path).expect("valid")
    }

    #[test]
    fn a_table_is_found_by_its_name_or_by_its_sources() {
        let config = config();
        let find = |text: &str| match Place::find(&config, text) {
            Ok(place) => format!("{} {}", place.source.name, place.argument()),
            Err(error) => error.to_string(),
        };
        assert_eq!(find("shop.orders"), "a shop.orders");
        assert_eq!(find("more.x"), "b more.x");
        assert_eq!(find("b/shop.goods"), "b b/shop.goods");
        assert_eq!(find("odd.it's"), "a 'odd.it'\\''s'");
        assert!(find("shop.goods").contains("`a/shop.goods` or `b/shop.goods`"));
        assert!(find("other.x").contains("one of a, b") && find("c/x.y").contains("there are: a, b"));
        assert!(find("goods").contains("database.table"));
    }

    #[test]
    fn moments_are_times_positions_and_versions() {
        let time = |text: &str| match text.parse() {
            Ok(At::Time(time)) => time.format("%F %T").to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(time("2026-01-31"), "2026-01-31 00:00:00");
        assert_eq!(time("2026-01-31 14:05"), "2026-01-31 14:05:00");
        assert_eq!(time("2026-01-31T14:05:06+02:00"), "2026-01-31 12:05:06");
        assert_eq!("17".parse(), Ok(At::Version(17)));
        assert!(matches!("mariadb:0-1-7".parse(), Ok(At::Position(_))));
        assert!("yesterday".parse::<At>().is_err_and(|error| error.contains("yesterday")));
    }
}
