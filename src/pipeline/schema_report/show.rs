//! A table's columns, in the lake's words and in the source's.

use serde::Serialize;
use uuid::Uuid;

use super::pending::{Pending, pending};
use super::{At, Place, ReportError};
use crate::config::Config;
use crate::ledger::Entry;
use crate::schema::{HeldAction, Origin, Shape};

/// What `lakeward schema show` tells.
#[derive(Clone, Debug, Serialize)]
pub struct ShowReport {
    pub source: String,
    pub table: String,
    /// As in `lakeward tables`; absent where the past was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the Delta table.
    pub version: u64,
    pub position: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub columns: Vec<ColumnReport>,
    pub pending: Vec<Pending>,
}

/// How the lake treats a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShownAs {
    Shown,
    /// It is in the files, and readers do not see it before it is approved.
    Hidden,
    /// The source dropped it, and the lake keeps it.
    Kept,
    /// The lake leaves it out.
    Ignored,
}

#[derive(Clone, Debug, Serialize)]
pub struct ColumnReport {
    /// In the lake.
    pub name: Option<String>,
    pub lake_type: Option<String>,
    /// At the source; none for one that the source dropped.
    pub source_name: Option<String>,
    pub source_type: Option<String>,
    pub key: bool,
    pub partition: bool,
    pub shown_as: ShownAs,
    /// The change that waits for a decision about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Uuid>,
}

/// The table's columns now, or as of a moment of the past.
pub async fn show(config: &Config, table: &str, at: Option<&At>) -> Result<ShowReport, ReportError> {
    let place = Place::find(config, table)?;
    let log = place.log().await?;
    let state = place.state(&log, at).await?;
    let (decisions, entry) = (place.decisions()?, place.entry().await?);
    let waiting =
        if at.is_none() { pending(&place, &state.shape, &decisions, entry.as_ref()).await? } else { Vec::new() };
    let now = at.is_none().then(|| state_of(entry.as_ref(), &place.name.to_string()));
    Ok(ShowReport {
        source: place.source.name.clone(),
        table: place.name.to_string(),
        state: now.as_ref().map(|(state, _)| (*state).to_owned()),
        reason: now.and_then(|(_, reason)| reason),
        version: state.version,
        position: state.position,
        rows: state.rows,
        files: state.files,
        bytes: state.bytes,
        columns: columns(&state.shape),
        pending: waiting,
    })
}

/// As in `lakeward tables`.
pub(super) fn state_of(entry: Option<&Entry>, table: &str) -> (&'static str, Option<String>) {
    match entry.and_then(|entry| entry.tables.get(table)) {
        None => ("not captured", None),
        Some(state) => (state.word(), state.reason().map(str::to_owned)),
    }
}

fn columns(shape: &Shape) -> Vec<ColumnReport> {
    let held = |name: &str| {
        let concerns = |action: &HeldAction| action.column() == name;
        shape.held.iter().find(|held| held.actions.iter().any(concerns)).map(|held| held.id)
    };
    let in_lake = shape.lake.columns.iter().enumerate().map(|(index, column)| {
        let source_name = match &shape.origins[index] {
            Origin::Source(name) => Some(name.clone()),
            Origin::Dropped => None,
        };
        ColumnReport {
            name: Some(column.name.clone()),
            lake_type: Some(column.lake_type.to_string()),
            shown_as: match (shape.hidden[index], &source_name) {
                (true, _) => ShownAs::Hidden,
                (false, None) => ShownAs::Kept,
                (false, Some(_)) => ShownAs::Shown,
            },
            source_name,
            source_type: Some(column.source_type.clone()),
            key: shape.lake.is_key(index),
            partition: shape.lake.partition_by.contains(&index),
            held: held(&column.name),
        }
    });
    let ignored = shape.ignored.iter().map(|name| ColumnReport {
        name: None,
        lake_type: None,
        source_name: Some(name.clone()),
        source_type: None,
        key: false,
        partition: false,
        shown_as: ShownAs::Ignored,
        held: None,
    });
    in_lake.chain(ignored).collect()
}
