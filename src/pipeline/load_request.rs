//! What `lakeward resync` and `lakeward snapshot` ask for: entered into the ledger of a source, and followed until it is done.
//!
//! Whoever runs the source does the work. Where nobody does, the one who asks may run it: [`run_one`](super::run_one).

use std::collections::BTreeMap;

use chrono::Utc;
use serde::Serialize;
use uuid::Uuid;

use super::schema_report::{Place, ReportError, question, source_named};
use super::{AnySource, table_name};
use crate::config::{Config, SourceConfig, nearest};
use crate::lake::{Lake, Table};
use crate::ledger::{Entry, Holder, Lease, Ledger, Request, Requests, TableState, Wish, WrongRows};
use crate::schema::TableSchema;

/// Tables of one source that are asked about.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub source: String,
    /// By `database.table` or `schema.table`.
    pub tables: Vec<String>,
    /// They are all that the source has.
    pub all: bool,
}

/// How a table stands whose load somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadReport {
    pub source: String,
    pub table: String,
    /// `asked`, `loading`, `streaming`, `stopped`, `waiting`, `dropped` or `not loaded`.
    pub state: String,
    /// Rows that are loaded so far, while it is loading.
    pub rows: u64,
    /// As the source's planner guesses.
    pub rows_estimate: Option<u64>,
    pub error: Option<String>,
}

impl LoadReport {
    /// Whether nothing more is to be waited for.
    pub fn is_settled(&self) -> bool {
        !matches!(self.state.as_str(), "asked" | "loading" | "not loaded")
    }
}

/// The tables of these names, `[source/]schema.table`: they must be captured, at their sources, now.
pub async fn named(config: &Config, names: &[String]) -> Result<Vec<Wanted>, ReportError> {
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut known: BTreeMap<&str, Vec<TableSchema>> = BTreeMap::new();
    for text in names {
        let place = Place::find(config, text)?;
        let (source, table) = (place.source, place.name.to_string());
        if !known.contains_key(source.name.as_str()) {
            known.insert(&source.name, discovered(config, source).await?);
        }
        let captured = known.get(source.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        check(source, &table, captured)?;
        let tables = wanted.entry(source.name.as_str()).or_default();
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    let wanted = wanted.into_iter().map(|(source, tables)| Wanted { source: source.to_owned(), tables, all: false });
    Ok(wanted.collect())
}

/// All tables of a source.
pub async fn all_of(config: &Config, name: &str) -> Result<Vec<Wanted>, ReportError> {
    let source = source_named(config, name)?;
    let captured = discovered(config, source).await?;
    let tables: Vec<String> = captured.iter().map(|schema| schema.name.to_string()).collect();
    if tables.is_empty() {
        return Err(question(format!("source `{name}` has no table that is captured")));
    }
    Ok(vec![Wanted { source: source.name.clone(), tables, all: true }])
}

async fn discovered(config: &Config, source: &SourceConfig) -> Result<Vec<TableSchema>, ReportError> {
    let mut captured = AnySource::new(source.clone(), config.contracts.clone())?.discover().await?;
    captured.retain(TableSchema::can_be_followed);
    Ok(captured)
}

/// Why a table can't be loaded, with what may have been meant.
fn check(source: &SourceConfig, table: &str, captured: &[TableSchema]) -> Result<(), ReportError> {
    if captured.iter().any(|schema| schema.name.to_string() == table) {
        return Ok(());
    }
    let names: Vec<String> = captured.iter().map(|schema| schema.name.to_string()).collect();
    let meant = nearest(table, names.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    Err(question(if source.tables.selects(table) {
        format!("source `{}` has no table {table} that can be captured{meant}", source.name)
    } else {
        format!("{table} is not captured: `tables` of source `{}` does not select it{meant}", source.name)
    }))
}

/// One source's part of what is asked: the ledger it is entered into, and read from.
pub struct Asking {
    pub wanted: Wanted,
    pub wish: Wish,
    /// What is to be put right, of a table.
    rows: Option<WrongRows>,
    lake: Lake,
    /// Of the request, once it is entered.
    number: Option<u64>,
}

impl Asking {
    pub fn new(config: &Config, wanted: Wanted, wish: Wish) -> Self {
        Self { wanted, wish, rows: None, lake: Lake::new(&config.lake.url, &config.lake.storage), number: None }
    }

    /// Rows of a table are to be put right.
    pub fn repair(config: &Config, source: &str, table: &str, rows: WrongRows) -> Self {
        let wanted = Wanted { source: source.to_owned(), tables: vec![table.to_owned()], all: false };
        Self { rows: Some(rows), ..Self::new(config, wanted, Wish::Repair) }
    }

    async fn entry(&self) -> Result<Option<Entry>, ReportError> {
        Ok(Ledger::read(self.lake.ledger_store(&self.wanted.source)?).await?)
    }

    fn requests(&self) -> Result<Requests, ReportError> {
        Ok(Requests::new(self.lake.ledger_store(&self.wanted.source)?))
    }

    /// Enters the request for those tables that it changes something for, and says which: a table that is being loaded again
    /// is not loaded again twice, one that is there needs no first load.
    pub async fn enter(&mut self, reason: Option<String>, by: String) -> Result<Vec<String>, ReportError> {
        let entry = self.entry().await?;
        let taken = entry.as_ref().map_or(0, |entry| entry.requests_taken);
        let (open, _) = self.requests()?.after(taken).await?;
        let mut tables = Vec::new();
        for table in &self.wanted.tables {
            let state = entry.as_ref().and_then(|entry| entry.tables.get(table));
            let is_asked = asked_for(&open, table, Wish::Resync);
            let needed = match self.wish {
                Wish::Resync => match state {
                    // One that is to begin later begins at once when a person asks.
                    Some(state) if state.is_resync() => {
                        let begins = entry.as_ref().and_then(|entry| entry.reloads.waits_until(table, Utc::now()));
                        begins.is_some() && !is_asked
                    }
                    // Where the position is lost, first loads begin once more too.
                    Some(TableState::Loading { .. }) if !self.wanted.all => {
                        return Err(question(format!(
                            "{table} is being loaded for the first time: there is nothing to resync"
                        )));
                    }
                    _ => !is_asked,
                },
                Wish::Cancel => {
                    let under_way = state.is_some_and(TableState::is_resync);
                    if !under_way && !is_asked {
                        return Err(question(format!("no resync of {table} is under way: there is nothing to cancel")));
                    }
                    true
                }
                Wish::Snapshot => {
                    let Some(name) = table_name(table) else { continue };
                    let there = Table::summary(&self.lake, &self.wanted.source, &name).await?.is_some();
                    !there && !asked_for(&open, table, Wish::Snapshot)
                }
                Wish::Repair => true,
            };
            if needed {
                tables.push(table.clone());
            }
        }
        if !tables.is_empty() {
            let (id, at) = (Uuid::new_v4(), Utc::now());
            let (wish, rows) = (self.wish, self.rows.take());
            let request = Request { number: 0, id, wish, tables: tables.clone(), rows, reason, by, at };
            self.number = Some(self.requests()?.enter(&request, taken).await?);
        }
        Ok(tables)
    }

    /// Who runs the source now.
    pub async fn holder(&self) -> Result<Option<Holder>, ReportError> {
        Ok(Lease::holder(self.lake.ledger_store(&self.wanted.source)?).await?)
    }

    /// How the tables stand.
    pub async fn reports(&self) -> Result<Vec<LoadReport>, ReportError> {
        let entry = self.entry().await?;
        let taken = entry.as_ref().map_or(0, |entry| entry.requests_taken);
        let (open, _) = self.requests()?.after(taken).await?;
        // Whatever the entry says is from before the request.
        let is_repair_open = |number: &u64| entry.as_ref().is_some_and(|entry| entry.repairs.contains(number));
        let is_open = self.number.is_some_and(|number| taken < number || is_repair_open(&number));
        let report = |table: &String| {
            let state = entry.as_ref().and_then(|entry| entry.tables.get(table));
            let asked = is_open || self.wish != Wish::Repair && asked_for(&open, table, self.wish);
            load_report(&self.wanted.source, table, state, asked)
        };
        Ok(self.wanted.tables.iter().map(report).collect())
    }
}

fn asked_for(open: &[Request], table: &str, wish: Wish) -> bool {
    let last = open.iter().rev().find(|request| {
        let concerns =
            matches!(request.wish, Wish::Resync | Wish::Cancel) == matches!(wish, Wish::Resync | Wish::Cancel);
        concerns && request.tables.iter().any(|name| name == table)
    });
    last.is_some_and(|request| request.wish == wish)
}

fn load_report(source: &str, table: &str, state: Option<&TableState>, asked: bool) -> LoadReport {
    let (mut rows, mut rows_estimate, mut error) = (0, None, None);
    let word = match state {
        Some(TableState::Loading { rows: loaded, rows_estimate: estimate, .. }) => {
            (rows, rows_estimate) = (*loaded, *estimate);
            "loading"
        }
        _ if asked => "asked",
        None => "not loaded",
        Some(state) => {
            error = state.reason().map(str::to_owned);
            state.word()
        }
    };
    LoadReport {
        source: source.to_owned(),
        table: table.to_owned(),
        state: word.to_owned(),
        rows,
        rows_estimate,
        error,
    }
}

/// Every load of a kind that is asked for or under way: resyncs, or first loads.
pub async fn under_way(config: &Config, wish: Wish) -> Result<Vec<LoadReport>, ReportError> {
    let mut reports = Vec::new();
    for source in &config.sources {
        let wanted = Wanted { source: source.name.clone(), tables: Vec::new(), all: false };
        let asking = Asking::new(config, wanted, wish);
        let entry = asking.entry().await?;
        let taken = entry.as_ref().map_or(0, |entry| entry.requests_taken);
        let (open, _) = asking.requests()?.after(taken).await?;
        let mut tables: BTreeMap<String, bool> = BTreeMap::new();
        for (table, state) in entry.iter().flat_map(|entry| &entry.tables) {
            let loads = matches!(state, TableState::Loading { .. });
            if loads && state.is_resync() == (wish == Wish::Resync) {
                tables.insert(table.clone(), false);
            }
        }
        for table in open.iter().flat_map(|request| &request.tables) {
            if asked_for(&open, table, wish) {
                tables.entry(table.clone()).or_insert(true);
            }
        }
        for (table, asked) in tables {
            let state = entry.as_ref().and_then(|entry| entry.tables.get(&table));
            reports.push(load_report(&source.name, &table, state, asked));
        }
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(wish: Wish, table: &str) -> Request {
        let (id, tables, at) = (Uuid::new_v4(), vec![table.to_owned()], Utc::now());
        Request { number: 0, id, wish, tables, rows: None, reason: None, by: "a@b".into(), at }
    }

    #[test]
    fn the_last_request_about_a_table_counts() {
        let mut open = vec![request(Wish::Resync, "shop.a"), request(Wish::Snapshot, "shop.a")];
        assert!(asked_for(&open, "shop.a", Wish::Resync) && !asked_for(&open, "shop.b", Wish::Resync));
        assert!(asked_for(&open, "shop.a", Wish::Snapshot));
        open.push(request(Wish::Cancel, "shop.a"));
        assert!(!asked_for(&open, "shop.a", Wish::Resync) && asked_for(&open, "shop.a", Wish::Cancel));
    }

    #[test]
    fn a_table_that_waits_for_its_turn_is_not_settled() {
        let streaming = TableState::Streaming;
        let asked = load_report("src", "shop.a", Some(&streaming), true);
        assert_eq!((asked.state.as_str(), asked.is_settled()), ("asked", false));
        assert!(load_report("src", "shop.a", Some(&streaming), false).is_settled());
        let stopped = TableState::Stopped { reason: "why".into(), position: "p".into() };
        let loading = TableState::to_resync(Uuid::new_v4(), stopped.clone());
        assert!(!load_report("src", "shop.a", Some(&loading), false).is_settled());
        let report = load_report("src", "shop.a", Some(&stopped), false);
        assert!(report.is_settled() && report.error.as_deref() == Some("why"));
    }
}
