//! `lakeward verify`: which tables are compared, and with which database.

use serde::Serialize;

use super::AnySource;
use super::schema_report::{Place, ReportError, question, source_named};
use super::table_name;
use crate::config::{Config, SourceConfig, nearest};
use crate::lake::{Lake, Table};
use crate::ledger::{Ledger, TableState};
use crate::schema::TableName;
use crate::snapshot::verify::{self, Error, Follower, Options, Proof};
use crate::source;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct VerifyRequest {
    /// `[source/]schema.table`; all that are followed, when there are none.
    pub tables: Vec<String>,
    /// Only of this source.
    pub source: Option<String>,
    pub options: Options,
}

/// What came of it for one table.
#[derive(Debug, Serialize)]
pub struct TableVerdict {
    pub source: String,
    pub table: String,
    pub outcome: Outcome,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why nothing was proven.
    #[serde(serialize_with = "error_text", skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Equal,
    Differs,
    NotCompared,
}

fn error_text<W: serde::Serializer>(error: &Option<Error>, serializer: W) -> Result<W::Ok, W::Error> {
    serializer.collect_str(&error.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Compares tables one after the other.
pub async fn verify(config: &Config, request: &VerifyRequest) -> Result<Vec<TableVerdict>, ReportError> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let mut verdicts = Vec::new();
    for (source, tables) in asked(config, &lake, request).await? {
        let database = AnySource::new(source.clone(), config.contracts.clone())?;
        let follower = Follower::new(&lake, &source.name, request.options.patience)?;
        let mut tables = tables.into_iter();
        for table in tables.by_ref() {
            let proof = match &database {
                AnySource::MySql(source_of) => {
                    verify::prove(source_of, &source.name, &follower, &lake, &table, &request.options).await
                }
                AnySource::Postgres(source_of) => {
                    verify::prove(source_of, &source.name, &follower, &lake, &table, &request.options).await
                }
            };
            let verdict = TableVerdict::new(source, &table, proof);
            let out_of_reach = verdict.error.as_ref().is_some_and(is_out_of_reach);
            verdicts.push(verdict);
            if out_of_reach {
                break;
            }
        }
        // The others would only wait for the same answer.
        for table in tables {
            let why = format!("source `{}` is out of reach", source.name);
            verdicts.push(TableVerdict::new(source, &table, Err(Error::Unfit { table: table.to_string(), why })));
        }
    }
    Ok(verdicts)
}

impl TableVerdict {
    fn new(source: &SourceConfig, table: &TableName, proof: Result<Proof, Error>) -> Self {
        let outcome = match &proof {
            Ok(proof) if proof.is_equal() => Outcome::Equal,
            Ok(_) => Outcome::Differs,
            Err(_) => Outcome::NotCompared,
        };
        let (proof, error) = match proof {
            Ok(proof) => (Some(proof), None),
            Err(error) => (None, Some(error)),
        };
        Self { source: source.name.clone(), table: table.to_string(), outcome, proof, error }
    }
}

fn is_out_of_reach(error: &Error) -> bool {
    use source::Error as Cause;
    matches!(error, Error::Source(Cause::Connect { .. } | Cause::Disconnected { .. } | Cause::Authentication { .. }))
}

/// The tables, by source.
async fn asked<'a>(
    config: &'a Config,
    lake: &Lake,
    request: &VerifyRequest,
) -> Result<Vec<(&'a SourceConfig, Vec<TableName>)>, ReportError> {
    if let Some(named) = &request.source {
        source_named(config, named)?;
    }
    let wanted = |source: &SourceConfig| request.source.as_ref().is_none_or(|named| source.name == *named);
    let mut asked: Vec<(&SourceConfig, Vec<TableName>)> = Vec::new();
    if request.tables.is_empty() {
        for source in config.sources.iter().filter(|source| wanted(source)) {
            asked.push((source, followed(lake, source).await?));
        }
        if asked.iter().all(|(_, tables)| tables.is_empty()) {
            return Err(question("nothing is in the lake yet; `lakeward run` loads it"));
        }
        return Ok(asked);
    }
    for text in &request.tables {
        let named = match &request.source {
            Some(source) if !text.contains('/') => format!("{source}/{text}"),
            _ => text.clone(),
        };
        let place = Place::find(config, &named)?;
        let (source, name) = (place.source, place.name);
        if !wanted(source) {
            return Err(question(format!("{text} is of source `{}`, and --source names another", source.name)));
        }
        let followed = followed(lake, source).await?;
        if !followed.contains(&name) && Table::summary(lake, &source.name, &name).await?.is_none() {
            return Err(question(unknown(&source.name, &name, &followed)));
        }
        match asked.iter_mut().find(|(known, _)| known.name == source.name) {
            Some((_, tables)) if tables.contains(&name) => {}
            Some((_, tables)) => tables.push(name),
            None => asked.push((source, vec![name])),
        }
    }
    Ok(asked)
}

/// What the ledger has of a source, and the source has still.
async fn followed(lake: &Lake, source: &SourceConfig) -> Result<Vec<TableName>, ReportError> {
    let entry = Ledger::read(lake.ledger_store(&source.name)?).await?;
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let there = entry.tables.iter().filter(|(_, state)| !matches!(state, TableState::Dropped { .. }));
    Ok(there.filter_map(|(table, _)| table_name(table)).collect())
}

fn unknown(source: &str, name: &TableName, followed: &[TableName]) -> String {
    let names: Vec<String> = followed.iter().map(ToString::to_string).collect();
    let in_another_schema = || followed.iter().find(|table| table.table == name.table).map(ToString::to_string);
    let near = nearest(&name.to_string(), names.iter().map(String::as_str)).or_else(in_another_schema);
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`lakeward tables` lists those it has".to_owned(),
    };
    format!("the lake has no table {name} of source `{source}`; {hint}")
}
