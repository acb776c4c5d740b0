//! How each table lies to its source at the point that the stream has reached, and what becomes of a change there.
//!
//! Rows are brought into the lake's shape as they come in, so that whatever is gathered is already as the lake will have
//! it. A change is decided by the table's policies and by what people decided so far, from nothing but the change and the
//! shape: so the same log read again comes out the same, unless somebody has decided meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::config::{ChangeKind, ChangePolicies, ChangePolicy};
use crate::schema::{
    ChangeRecord, ColumnView, Decision, Evolution, Outcome, RESYNC, SchemaChange, Shape, StepRecord, TableName,
    TableRows, Verdict, change_id, decide, kept_from_load, settle,
};
use crate::source::{Error, Position};

/// The tables that stream.
#[derive(Debug, Default)]
pub struct Following {
    source: String,
    tables: HashMap<TableName, Followed>,
    verdicts: HashMap<Uuid, Verdict>,
    /// Tables that are known and do not stream for good.
    stopped: HashSet<TableName>,
}

#[derive(Debug)]
struct Followed {
    /// At the point the stream has reached, and at the last boundary.
    shape: Arc<Shape>,
    settled: Arc<Shape>,
    policies: ChangePolicies,
}

/// What becomes of a change.
#[derive(Debug)]
pub enum Answer {
    /// These, in order.
    Evolve(Vec<Arc<Evolution>>),
    Wait {
        record: ChangeRecord,
        why: String,
    },
    /// Loaded again, the table can be followed; `error` is why it can't go on as it is.
    Reload {
        record: ChangeRecord,
        error: Error,
    },
    Stop {
        record: ChangeRecord,
        error: Error,
    },
}

impl Following {
    pub fn new(source: &str, verdicts: HashMap<Uuid, Verdict>) -> Self {
        Self { source: source.to_owned(), verdicts, ..Self::default() }
    }

    pub fn follow(&mut self, table: TableName, shape: Arc<Shape>, policies: ChangePolicies) {
        self.tables.insert(table, Followed { settled: shape.clone(), shape, policies });
    }

    /// A table that waits for a person, or for its load, and will not stream before the next attempt.
    pub fn leave_out(&mut self, table: TableName) {
        self.stopped.insert(table);
    }

    /// Whether it streams, or has stopped: it is no new table.
    pub fn knows(&self, table: &TableName) -> bool {
        self.tables.contains_key(table) || self.stopped.contains(table)
    }

    pub fn shape(&self, table: &TableName) -> Option<&Arc<Shape>> {
        self.tables.get(table).map(|followed| &followed.shape)
    }

    pub fn policy(&self, table: &TableName, kind: ChangeKind) -> Option<ChangePolicy> {
        self.tables.get(table).map(|followed| followed.policies.of(kind))
    }

    /// The source's rows as rows of the lake; `place` is where they are in the log, roughly.
    pub fn project(&self, rows: TableRows, place: &Position) -> Result<TableRows, Error> {
        let Some(shape) = self.shape(&rows.schema.name) else { return Ok(rows) };
        let table = rows.schema.name.to_string();
        shape.project(rows).map_err(|cause| Error::Table {
            table,
            finding: format!("its rows do not fit the lake's table ({cause})"),
            position: format!("the transactions after {place}"),
            remedy: RESYNC.to_owned(),
        })
    }

    /// What becomes of the change; the table's shape is another one from here on. `None`: the table does not stream.
    pub fn change(&mut self, change: &SchemaChange) -> Option<Answer> {
        let followed = self.tables.get_mut(&change.table)?;
        let id = change.id(&self.source);
        let verdict = self.verdicts.get(&id).copied();
        Some(match decide(&self.source, &followed.shape, change, &followed.policies, verdict) {
            Decision::Evolve(evolution) => {
                followed.shape = evolution.shape.clone();
                let mut all = vec![Arc::from(evolution)];
                // It was decided before the stream came by here.
                if let Some(evolution) = verdict.and_then(|verdict| settle(&followed.shape, id, verdict)) {
                    followed.shape = evolution.shape.clone();
                    all.push(Arc::new(evolution));
                }
                Answer::Evolve(all)
            }
            Decision::Wait { record, why } => Answer::Wait { record, why },
            Decision::Reload { record, why } => {
                Answer::Reload { record, error: stopped_at(change, why, RESYNC.to_owned()) }
            }
            Decision::Stop { record, finding, remedy } => {
                Answer::Stop { record, error: stopped_at(change, finding, remedy) }
            }
        })
    }

    /// A change of the table of which the log does not tell what it did: whether it is loaded again, as which change, or
    /// stops, why.
    pub fn untold(&self, table: &TableName, error: Error) -> Result<(ChangeRecord, Error), Error> {
        let Some(followed) = self.tables.get(table) else { return Err(error) };
        if followed.policies.of(ChangeKind::Change) != ChangePolicy::Apply {
            return Err(error);
        }
        let Error::Table { table: name, finding, position, remedy } = error else { return Err(error) };
        if let Some(kept) = kept_from_load(&followed.shape, &followed.policies) {
            return Err(Error::Table {
                table: name,
                finding: format!("{finding}; by a load, {kept}"),
                position,
                remedy,
            });
        }
        let columns = ColumnView::all(&followed.shape.source_schema());
        let record = ChangeRecord {
            id: change_id(&self.source, table, &position, 0),
            table: name.clone(),
            place: position.clone(),
            at: None,
            statement: None,
            before: columns.clone(),
            after: columns,
            steps: vec![StepRecord {
                kind: ChangeKind::Change,
                column: None,
                new_name: None,
                description: finding.clone(),
                outcome: Outcome::Resync,
            }],
        };
        Ok((record, Error::Table { table: name, finding, position, remedy: RESYNC.to_owned() }))
    }

    /// An evolution that only says what happened to the whole table.
    pub fn remark(&self, table: &TableName, record: ChangeRecord) -> Option<Arc<Evolution>> {
        Some(Arc::new(Evolution { shape: self.shape(table)?.clone(), ops: Vec::new(), record }))
    }

    /// What happened to the whole table, as a record.
    pub fn table_record(&self, table: &TableName, event: &TableEvent, outcome: Outcome) -> Option<ChangeRecord> {
        let columns = ColumnView::all(&self.shape(table)?.source_schema());
        let dropped = event.kind == ChangeKind::DropTable;
        Some(ChangeRecord {
            id: change_id(&self.source, table, &event.place, event.ordinal),
            table: table.to_string(),
            place: event.place.clone(),
            at: event.at,
            statement: event.statement.clone(),
            before: columns.clone(),
            after: if dropped { Vec::new() } else { columns },
            steps: vec![StepRecord {
                kind: event.kind,
                column: None,
                new_name: None,
                description: if dropped { "the table is gone" } else { "all rows are gone" }.to_owned(),
                outcome,
            }],
        })
    }

    /// Somebody decided. Returns the table in whose shape the change is held.
    pub fn decided(&mut self, change: Uuid, verdict: Verdict) -> Option<TableName> {
        self.verdicts.insert(change, verdict);
        let holds = |followed: &Followed| followed.shape.held.iter().any(|held| held.id == change);
        self.tables.iter().find(|(_, followed)| holds(followed)).map(|(table, _)| table.clone())
    }

    /// Held changes that are decided already.
    pub fn decided_before(&self) -> Vec<(TableName, Uuid)> {
        let held = |(table, followed): (&TableName, &Followed)| -> Vec<(TableName, Uuid)> {
            let ids = followed.shape.held.iter().map(|held| held.id);
            ids.filter(|id| self.verdicts.contains_key(id)).map(|id| (table.clone(), id)).collect()
        };
        self.tables.iter().flat_map(held).collect()
    }

    /// Makes good what was decided. Only between transactions: it is no part of one.
    pub fn settle(&mut self, table: &TableName, change: Uuid) -> Option<Arc<Evolution>> {
        let verdict = *self.verdicts.get(&change)?;
        let followed = self.tables.get_mut(table)?;
        let evolution = settle(&followed.shape, change, verdict)?;
        followed.shape = evolution.shape.clone();
        followed.settled = evolution.shape.clone();
        Some(Arc::new(evolution))
    }

    /// Whether anything of it waits for a decision.
    pub fn holds(&self) -> bool {
        self.tables.values().any(|followed| !followed.shape.held.is_empty())
    }

    /// The open transaction is complete.
    pub fn boundary(&mut self) {
        for followed in self.tables.values_mut() {
            followed.settled = followed.shape.clone();
        }
    }

    /// The open transaction never happened.
    pub fn rollback(&mut self) {
        for followed in self.tables.values_mut() {
            followed.shape = followed.settled.clone();
        }
    }
}

fn stopped_at(change: &SchemaChange, finding: String, remedy: String) -> Error {
    Error::Table { table: change.table.to_string(), finding, position: change.place.clone(), remedy }
}

/// What happens to a whole table.
#[derive(Clone, Debug)]
pub struct TableEvent {
    /// `Truncate` or `DropTable`.
    pub kind: ChangeKind,
    pub place: String,
    /// Tells events of one table at the same place apart.
    pub ordinal: u32,
    pub at: Option<DateTime<Utc>>,
    pub statement: Option<String>,
}

impl TableEvent {
    /// Why a table stops whose policy for this is `fail`.
    pub fn forbidden(&self, table: &TableName) -> Error {
        let finding = match self.kind {
            ChangeKind::DropTable => "it was dropped at the source",
            _ => "it was truncated at the source",
        };
        Error::Table {
            table: table.to_string(),
            finding: format!("{finding}, and the policy for `{}` is `fail`,", self.kind),
            position: self.place.clone(),
            remedy: format!(
                "set `schema_changes.{}` to another policy in its contract or in config.toml; then {RESYNC}",
                self.kind
            ),
        }
    }
}
