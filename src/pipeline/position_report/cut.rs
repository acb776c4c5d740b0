//! One consistent cut through the tables of a source: for each the version that holds exactly the transactions up to one point.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::{DateTime, Duration, SubsecRound, Utc};
use serde::Serialize;

use super::super::schema_report::{Place, ReportError, question};
use super::super::source_run::parse_position;
use super::super::table_name;
use super::meeting::{Meeting, Met, Span, latest, meet};
use super::{Moment, Reading, holds, seconds_since, sources};
use crate::config::{Config, SourceConfig};
use crate::lake::{Error as LakeError, Lake, LogEntry, TableLog};
use crate::ledger::{Entry, Ledger, TableState};
use crate::schema::TableName;
use crate::source::{Distance, Position};

/// A source's answer: its cut, or why there is none.
#[derive(Debug, Serialize)]
pub struct SourceCut {
    pub source: String,
    #[serde(flatten)]
    pub cut: Option<Cut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// See the module text.
#[derive(Debug, Serialize)]
pub struct Cut {
    pub at: String,
    /// Exactly the transactions up to here are in the versions.
    pub position: String,
    /// And none of these tables was changed at the source between `position` and here.
    pub until: String,
    /// Nothing that these tables lack was committed at the source up to `at`.
    pub exact: bool,
    /// When the last transaction of the versions was committed, by the source's clock.
    pub committed_at: Option<DateTime<Utc>>,
    /// Of a position asked for: what lies between `until` and it.
    pub before: Option<Distance>,
    /// Of a time asked for: how long before it the last transaction was committed.
    pub before_seconds: Option<f64>,
    /// The lake has not come to what was asked for yet.
    pub not_there_yet: bool,
    pub tables: Vec<CutTable>,
}

/// A table's part of a cut.
#[derive(Debug, Serialize)]
pub struct CutTable {
    pub table: String,
    /// `None` when it has no part; `why` tells.
    pub version: Option<u64>,
    /// Of that version.
    pub position: Option<String>,
    pub rows: Option<u64>,
    #[serde(flatten)]
    pub reading: Option<Reading>,
    pub why: Option<String>,
    /// It should be there, and is not.
    pub missing: bool,
}

/// A table that is asked about.
struct Asked {
    name: TableName,
    log: Option<TableLog>,
    /// It need not have a part in the cut beyond the point where it was left: nobody named it, or it is gone.
    optional: bool,
    /// Why it goes no further than it has come.
    left: Option<String>,
}

/// Why a table has no part in the cut, and whether that is something to mend.
#[derive(Clone, Debug)]
struct Absence {
    why: String,
    missing: bool,
}

/// The cut of each source that is asked about. Tables of two sources have no order in common, so each source has its own.
pub async fn cuts(
    config: &Config,
    moment: &Moment,
    named: Option<&str>,
    tables: &[String],
) -> Result<Vec<SourceCut>, ReportError> {
    let mut asked: Vec<(&SourceConfig, Vec<TableName>)> = Vec::new();
    for text in tables {
        let text = match named {
            Some(source) if !text.contains('/') => format!("{source}/{text}"),
            _ => text.clone(),
        };
        let place = Place::find(config, &text)?;
        if named.is_some_and(|named| named != place.source.name) {
            return Err(question(format!("{text} is no table of source `{}`", named.unwrap_or_default())));
        }
        match asked.iter_mut().find(|(source, _)| source.name == place.source.name) {
            Some((_, names)) if names.contains(&place.name) => {}
            Some((_, names)) => names.push(place.name),
            None => asked.push((place.source, vec![place.name])),
        }
    }
    if asked.is_empty() {
        asked = sources(config, named)?.into_iter().map(|source| (source, Vec::new())).collect();
    }
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let mut entries = Vec::new();
    for (source, names) in asked {
        // Before the tables: what it says must not be newer than what is found of them.
        let entry = Ledger::read(lake.ledger_store(&source.name)?).await?;
        entries.push((source, names, entry));
    }
    if let Moment::Position(position) = moment {
        only_one(&mut entries, position, !tables.is_empty())?;
    }
    let mut answers = Vec::new();
    let only = entries.len() == 1;
    for (source, names, entry) in entries {
        let answer = match entry {
            Some(entry) => cut(&lake, &entry, moment, names).await,
            None => Err(question(format!(
                "the lake has nothing of source `{}` yet: lakeward has not run for it",
                source.name
            ))),
        };
        answers.push(match answer {
            Ok(cut) => SourceCut { source: source.name.clone(), cut: Some(cut), error: None },
            Err(ReportError::Question(error)) if !only => {
                SourceCut { source: source.name.clone(), cut: None, error: Some(error) }
            }
            Err(error) => return Err(error),
        });
    }
    Ok(answers)
}

/// A position means something in one source only.
fn only_one(
    entries: &mut Vec<(&SourceConfig, Vec<TableName>, Option<Entry>)>,
    position: &Position,
    is_chosen: bool,
) -> Result<(), ReportError> {
    let kind = |entry: &Entry| entry.position.parse().is_ok_and(|other: Position| alike(position, &other));
    if !is_chosen && entries.len() > 1 {
        entries.retain(|(_, _, entry)| entry.as_ref().is_some_and(kind));
    }
    match entries.as_slice() {
        [] => Err(question(format!("no source has a log with positions such as {position}"))),
        [(source, _, Some(entry))] if !kind(entry) => Err(question(format!(
            "{position} is no position of source `{}`, which is at {}",
            source.name, entry.position
        ))),
        [_] => Ok(()),
        several => {
            let names: Vec<&str> = several.iter().map(|(source, ..)| source.name.as_str()).collect();
            Err(question(format!(
                "a position means something in one source only: name it with --source; {position} may be of {}",
                names.join(", ")
            )))
        }
    }
}

/// Whether both are of one kind of log.
fn alike(one: &Position, other: &Position) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

async fn cut(lake: &Lake, entry: &Entry, moment: &Moment, names: Vec<TableName>) -> Result<Cut, ReportError> {
    let asked = ask(lake, entry, names).await?;
    let point = match moment {
        Moment::Position(position) => Some(position.clone()),
        Moment::Time(time) => point_of(&asked, *time).await?,
    };
    let nothing = |why: String| {
        question(format!("no table of source `{}` that was asked about has a version of {moment}{why}", entry.source))
    };
    let Some(point) = point else {
        return Err(nothing(reasons(&asked, entry, None).await?));
    };
    let absences: RefCell<BTreeMap<usize, Absence>> = RefCell::default();
    let find = async |table: usize, point: &Position| {
        let found = span(&asked[table], entry, point).await?;
        let mut absences = absences.borrow_mut();
        absences.remove(&table);
        Ok(found.map_err(|absence| absences.insert(table, absence)).ok())
    };
    let meeting = match meet(asked.len(), point.clone(), find).await? {
        Met::At(meeting) => meeting,
        Met::Nothing => return Err(nothing(reasons(&asked, entry, Some(&point)).await?)),
        Met::Apart(position) => {
            return Err(question(format!(
                "the tables of source `{}` have no versions that belong together between {position} and {moment}: they were \
                 written by an earlier lakeward, which did not note where their batches began; ask about a later point, or \
                 about fewer tables",
                entry.source
            )));
        }
    };
    tell(&asked, entry, moment, meeting, &absences.into_inner()).await
}

/// The tables that are asked about: those that were named, or all that the ledger has.
async fn ask(lake: &Lake, entry: &Entry, names: Vec<TableName>) -> Result<Vec<Asked>, ReportError> {
    let named = !names.is_empty();
    let names = if named { names } else { entry.tables.keys().filter_map(|table| table_name(table)).collect() };
    let mut asked = Vec::new();
    for name in names {
        let log = match TableLog::open(lake, &entry.source, &name).await {
            Err(LakeError::Table { finding, .. }) if !named => {
                tracing::warn!(table = %name, finding, "left out");
                None
            }
            opened => opened?,
        };
        if log.is_none() && named {
            return Err(question(format!(
                "the lake has no table {name} of source `{}`: it is not loaded yet, or was removed",
                entry.source
            )));
        }
        let (left, gone) = match entry.tables.get(&name.to_string()) {
            Some(TableState::Stopped { position, .. }) => (Some(format!("stopped at {position}")), false),
            Some(TableState::Waiting { position, .. }) => {
                (Some(format!("waits for a decision since {position}")), false)
            }
            Some(TableState::Dropped { position, .. }) => (Some(format!("dropped at the source at {position}")), true),
            Some(TableState::Streaming | TableState::Loading { .. }) => (None, false),
            None => (Some("not captured any more".to_owned()), false),
        };
        asked.push(Asked { name, log, optional: left.is_some() && (gone || !named), left });
    }
    Ok(asked)
}

/// The position that no table's transactions of after that time are in.
async fn point_of(asked: &[Asked], time: DateTime<Utc>) -> Result<Option<Position>, ReportError> {
    let mut positions = Vec::new();
    for log in asked.iter().filter_map(|table| table.log.as_ref()) {
        if let Some(entry) = log.last_where(|entry| committed_by(entry) <= time).await? {
            positions.push(parse_position(&entry.position)?);
        }
    }
    Ok(latest(positions.iter()).cloned())
}

/// Everything in the commit was committed at the source by then.
fn committed_by(entry: &LogEntry) -> DateTime<Utc> {
    match entry.committed {
        // Some logs tell whole seconds only: somewhere within that second.
        Some(committed) if committed.last == committed.last.trunc_subsecs(0) => committed.last + Duration::seconds(1),
        Some(committed) => committed.last,
        // A load; it was read before it was committed.
        None => entry.at,
    }
}

/// The table's last version up to this point, and how far it holds.
async fn span(table: &Asked, entry: &Entry, point: &Position) -> Result<Result<Span, Absence>, ReportError> {
    let absence = |why: String, missing| Ok(Err(Absence { why, missing }));
    let Some(log) = &table.log else {
        return absence(table.left.clone().unwrap_or_else(|| "not in the lake yet".to_owned()), table.left.is_some());
    };
    let contained = |entry: &LogEntry| entry.position.parse().is_ok_and(|other: Position| point.covers(&other));
    let Some(found) = log.last_where(contained).await? else {
        if log.is_whole().await? {
            return absence("loaded later".to_owned(), false);
        }
        return absence("its log was cleaned up, and does not reach back that far".to_owned(), true);
    };
    if found.loading {
        return absence("was being loaded at that point".to_owned(), false);
    }
    let from = parse_position(&found.position)?;
    let next = log.next(found.version).await?;
    let told = match &next {
        Some(next) => next.after.as_deref().map(parse_position).transpose()?,
        None => Some(holds(entry, &table.name.to_string(), &found.position)?),
    };
    let until = told.filter(|told| told.covers(&from)).unwrap_or_else(|| from.clone());
    if let Some(left) = table.left.as_ref().filter(|_| next.is_none() && table.optional && !until.covers(point)) {
        let is_dropped = matches!(entry.tables.get(&table.name.to_string()), Some(TableState::Dropped { .. }));
        return absence(format!("{left}; its last version is {}", found.version), !is_dropped);
    }
    Ok(Ok(Span { version: found.version, from, until }))
}

/// Why there is nothing, for the message.
async fn reasons(asked: &[Asked], entry: &Entry, point: Option<&Position>) -> Result<String, ReportError> {
    let mut told = Vec::new();
    for table in asked {
        match (point, &table.log) {
            (Some(point), _) => {
                if let Err(absence) = span(table, entry, point).await? {
                    told.push(format!("{}: {}", table.name, absence.why));
                }
            }
            (None, Some(log)) if log.is_whole().await? => told.push(format!("{}: loaded later", table.name)),
            (None, Some(_)) => {
                told.push(format!("{}: its log was cleaned up, and does not reach back that far", table.name));
            }
            (None, None) => told.push(format!("{}: not in the lake yet", table.name)),
        }
    }
    Ok(told.iter().map(|line| format!("\n  {line}")).collect())
}

async fn tell(
    asked: &[Asked],
    entry: &Entry,
    moment: &Moment,
    meeting: Meeting,
    absences: &BTreeMap<usize, Absence>,
) -> Result<Cut, ReportError> {
    let Meeting { spans, from, until } = meeting;
    let mut tables = Vec::new();
    let mut committed_at: Option<DateTime<Utc>> = None;
    // Nothing was committed between the versions and the time that was asked about.
    let mut none_between = true;
    for (index, (table, span)) in asked.iter().zip(spans).enumerate() {
        let mut told = CutTable {
            table: table.name.to_string(),
            version: None,
            position: None,
            rows: None,
            reading: None,
            why: absences.get(&index).map(|absence| absence.why.clone()),
            missing: absences.get(&index).is_some_and(|absence| absence.missing),
        };
        if let (Some(span), Some(log)) = (span, &table.log) {
            if let Moment::Time(time) = moment {
                none_between &= match log.next(span.version).await? {
                    Some(next) => next.committed.is_some_and(|committed| committed.first > *time),
                    None => table.left.is_none() && entry.fresh_until.is_some_and(|fresh| fresh >= *time),
                };
            }
            let held = log.own(span.version).await?.and_then(|held| held.committed);
            committed_at = committed_at.max(held.map(|committed| committed.last));
            told.position = Some(span.from.to_string());
            match log.state(span.version).await {
                Ok(state) => {
                    told.rows = Some(state.rows);
                    told.version = Some(span.version);
                    told.reading = Some(Reading::new(log.url(), &table.name, span.version));
                }
                Err(error @ LakeError::Table { .. }) => {
                    (told.why, told.missing) = (Some(error.to_string()), true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        tables.push(told);
    }
    let streamed = parse_position(entry.streamed())?;
    let (exact, before, before_seconds, not_there_yet) = match moment {
        Moment::Position(asked) => {
            let exact = until.covers(asked);
            (exact, if exact { None } else { asked.beyond(&until, &[]) }, None, !streamed.covers(asked))
        }
        Moment::Time(time) => {
            let before = committed_at.map(|committed| seconds_since(committed, *time));
            (none_between, None, before, entry.fresh_until.is_none_or(|fresh| fresh < *time))
        }
    };
    Ok(Cut {
        at: moment.to_string(),
        position: from.to_string(),
        until: until.to_string(),
        exact,
        committed_at,
        before,
        before_seconds,
        not_there_yet,
        tables,
    })
}
