//! How the rows of one relation become rows of one lake table: compiled once per Relation message.
//!
//! Columns are matched by name and compared with the schema the lake has: type, order-independent presence, and key
//! (P-20). A difference is told instead of guessed at, since the log says nothing about what an ALTER TABLE did to the
//! rows that were there before (D-1 to D-7).

use std::sync::Arc;

use super::pgoutput::{OldKind, Relation, Tuple, Value};
use super::text::{self, Decode, Outcome};
use super::types::{self, ResolvedType};
use crate::schema::{Op, Policy, RowBuilder, RowIdentity, TableSchema};
use crate::source::{Error, RowSink};

/// See the module text.
#[derive(Debug)]
pub struct Plan {
    schema: Arc<TableSchema>,
    /// One per column of the relation; `None` where the contract excludes it.
    columns: Vec<Option<Planned>>,
}

#[derive(Debug)]
struct Planned {
    /// In the table's schema, and in its builders.
    index: usize,
    decode: Decode,
    key: bool,
}

/// A larger value would have to be held several times over in memory on its way, and PostgreSQL's own limit of 1 GB is
/// near (P-18).
const VALUE_BYTES_MAX: usize = 512 << 20;

/// A row that can't be taken over.
#[derive(Debug)]
pub enum RowError {
    /// This table has to stop; in words.
    Value(String),
    Source(Error),
}

impl Plan {
    /// For rows as the log lays them out; `types` are the resolved types of the relation's columns. The error says
    /// what differs from `schema`, in words.
    pub fn for_relation(
        relation: &Relation<'_>,
        types: &[ResolvedType],
        schema: &Arc<TableSchema>,
        excluded: &[String],
    ) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        let mut differences = Vec::new();
        for (column, found) in relation.columns.iter().zip(types) {
            let Some(index) = schema.column_index(column.name) else {
                if !excluded.iter().any(|name| name == column.name) {
                    differences.push(format!("column `{}` ({}) was added", column.name, found.name));
                }
                columns.push(None);
                continue;
            };
            let known = &schema.columns[index];
            let decode = types::decode_for(found, known.lake_type).filter(|_| found.name == known.source_type);
            let Some(decode) = decode else {
                differences.push(format!(
                    "column `{}` changed its type from {} to {}",
                    column.name, known.source_type, found.name
                ));
                columns.push(None);
                continue;
            };
            columns.push(Some(Planned { index, decode, key: schema.is_key(index) }));
        }
        for known in &schema.columns {
            if !relation.columns.iter().any(|column| column.name == known.name) {
                differences.push(format!("column `{}` was dropped or renamed", known.name));
            }
        }
        if schema.identity == RowIdentity::WholeRow && relation.replica_identity != b'f' {
            differences.push("the replica identity is not FULL any more, and the table has no key".into());
        }
        // FULL flags every column; the table's key is then its primary key or the contract's, or there is none.
        if relation.replica_identity != b'f' && schema.identity == RowIdentity::Key {
            let mut flagged: Vec<&str> =
                relation.columns.iter().filter(|column| column.key).map(|column| column.name).collect();
            let mut key: Vec<&str> = schema.key.iter().map(|&index| schema.columns[index].name.as_str()).collect();
            flagged.sort_unstable();
            key.sort_unstable();
            if flagged != key {
                differences.push(format!(
                    "the replica identity changed from ({}) to ({})",
                    key.join(", "),
                    flagged.join(", ")
                ));
            }
        }
        if differences.is_empty() { Ok(Self { schema: schema.clone(), columns }) } else { Err(differences.join(", ")) }
    }

    /// For rows that hold exactly the columns of `schema`, in its order.
    pub fn for_snapshot(schema: &Arc<TableSchema>, decodes: impl IntoIterator<Item = Decode>) -> Self {
        let columns = decodes
            .into_iter()
            .enumerate()
            .map(|(index, decode)| Some(Planned { index, decode, key: schema.is_key(index) }))
            .collect();
        Self { schema: schema.clone(), columns }
    }

    /// Without a key an old image has to be the whole row, and a table of which the contract says that rows are only
    /// ever added has none.
    fn check_old_image(&self, kind: Option<OldKind>) -> Result<(), RowError> {
        match (self.schema.identity, kind) {
            (RowIdentity::AppendOnly, _) => Err(RowError::Value(
                "a row was changed or deleted, and its contract says that rows are only ever added".into(),
            )),
            (RowIdentity::WholeRow, None | Some(OldKind::Key)) => {
                Err(RowError::Value("the log does not hold the whole old row, and the table has no key".into()))
            }
            _ => Ok(()),
        }
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn insert(&self, sink: &mut RowSink, new: &Tuple<'_>) -> Result<(), RowError> {
        self.row(sink, Op::Insert, new, None)
    }

    /// Gives the number of rows appended.
    pub fn update(
        &self,
        sink: &mut RowSink,
        old: Option<(OldKind, Tuple<'_>)>,
        new: &Tuple<'_>,
    ) -> Result<usize, RowError> {
        let old = old.as_ref().map(|(kind, tuple)| (*kind, tuple));
        self.check_old_image(old.map(|(kind, _)| kind))?;
        let whole = self.schema.identity == RowIdentity::WholeRow;
        match old {
            Some((_, tuple)) if whole || self.key_differs(tuple, new) => {
                self.row(sink, Op::UpdateOldKey, tuple, None)?;
                self.row(sink, Op::UpdateNewKey, new, old)?;
                Ok(2)
            }
            _ => {
                self.row(sink, Op::Update, new, old)?;
                Ok(1)
            }
        }
    }

    pub fn delete(&self, sink: &mut RowSink, (kind, old): (OldKind, &Tuple<'_>)) -> Result<(), RowError> {
        self.check_old_image(Some(kind))?;
        self.row(sink, Op::Delete, old, None)
    }

    fn key_differs(&self, old: &Tuple<'_>, new: &Tuple<'_>) -> bool {
        let values = old.values().zip(new.values());
        self.columns.iter().zip(values).any(|(planned, (old, new))| {
            planned.as_ref().is_some_and(|planned| planned.key) && new != Value::Unchanged && old != new
        })
    }

    fn row(
        &self,
        sink: &mut RowSink,
        op: Op,
        image: &Tuple<'_>,
        old: Option<(OldKind, &Tuple<'_>)>,
    ) -> Result<(), RowError> {
        self.check_length(image.len())?;
        // What is gone needs no policy: it was counted, or refused, when it came.
        let gone = matches!(op, Op::Delete | Op::UpdateOldKey);
        let row = sink.builder.rows() as u32;
        let unchanged_before = sink.unchanged.len();
        let mut old_values = old.map(|(kind, tuple)| (kind, tuple.values()));
        for (position, mut value) in image.values().enumerate() {
            let old_value = old_values.as_mut().and_then(|(kind, values)| Some((*kind, values.next()?)));
            let Some((index, key)) = self.columns[position].as_ref().map(|planned| (planned.index, planned.key)) else {
                continue;
            };
            if value == Value::Unchanged {
                // An old image of the key has NULL for every other column, which says nothing about them.
                match old_value {
                    Some((kind, old)) if kind == OldKind::Full || key => value = old,
                    _ => {}
                }
            }
            match value {
                Value::Text(text) => self.append(&mut sink.builder, position, Some(text), gone)?,
                Value::Null => self.append(&mut sink.builder, position, None, gone)?,
                Value::Unchanged if key => {
                    return Err(RowError::Value(format!(
                        "the log leaves out the value of key column `{}`",
                        self.schema.columns[index].name
                    )));
                }
                Value::Unchanged => {
                    sink.builder.columns[index].append_null();
                    // A table has at most 1600 columns.
                    sink.unchanged.push((row, index as u16));
                }
            }
        }
        sink.unchanged[unchanged_before..].sort_unstable();
        sink.end_row(op).map_err(RowError::Source)
    }

    /// A row of another length than the relation's would shift values (D-17).
    pub fn check_length(&self, found: usize) -> Result<(), RowError> {
        if found == self.columns.len() {
            Ok(())
        } else {
            Err(RowError::Value(format!("a row has {found} values, the table {} columns", self.columns.len())))
        }
    }

    /// Appends one value to its column, so that it holds one more than before. `gone`: the row is an old image.
    pub fn append(
        &self,
        rows: &mut RowBuilder,
        position: usize,
        text: Option<&[u8]>,
        gone: bool,
    ) -> Result<(), RowError> {
        let Some(Some(planned)) = self.columns.get(position) else { return Ok(()) };
        let column = &self.schema.columns[planned.index];
        let Some(text) = text else {
            if planned.key {
                return Err(RowError::Value(format!("key column `{}` is NULL", column.name)));
            }
            rows.columns[planned.index].append_null();
            return Ok(());
        };
        if text.len() > VALUE_BYTES_MAX {
            return Err(RowError::Value(format!(
                "a value of column `{}` has {} bytes, more than the {VALUE_BYTES_MAX} that can be taken over",
                column.name,
                text.len()
            )));
        }
        match text::append(&planned.decode, text, &mut rows.columns[planned.index]) {
            Ok(Outcome::Exact) => Ok(()),
            Ok(Outcome::Unfaithful(reason)) if planned.key => Err(RowError::Value(format!(
                "value `{}` of key column `{}` ({}) has no form in the lake's type {}: {reason}",
                shortened(text),
                column.name,
                column.source_type,
                column.lake_type
            ))),
            Ok(Outcome::Unfaithful(_)) if gone => Ok(()),
            Ok(Outcome::Unfaithful(reason)) if column.policy == Policy::Fail => Err(RowError::Value(format!(
                "value `{}` of column `{}` ({}) has no form in the lake's type {}: {reason}; the contract's policy for it \
                 is \"fail\"",
                shortened(text),
                column.name,
                column.source_type,
                column.lake_type
            ))),
            Ok(Outcome::Unfaithful(reason)) => {
                rows.note(planned.index, reason);
                Ok(())
            }
            Err(_) => Err(RowError::Value(format!(
                "value `{}` of column `{}` is not what PostgreSQL writes for {}",
                shortened(text),
                column.name,
                column.source_type
            ))),
        }
    }
}

/// For messages: the beginning of a value.
fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
