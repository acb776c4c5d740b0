//! Collapse: a batch of changes in log order becomes, per key, at most one row to write and one old row to remove.
//!
//! Rows are applied one after the other to a map from key to its newest image, exactly as a database would; so a key
//! change, a swap of keys, delete and insert again, or a hundred updates of one row all come out as their last state.
//! Values the log left out ([`TableRows::unchanged`]) are traced to where they are known: an earlier image in the same
//! batch, or the row the lake holds under the key the row had before the batch.

use std::hash::BuildHasherDefault;

use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::key::KeyHasher;
use super::locator::{KeyHash, Prehashed};
use crate::schema::{Op, TableRows};

/// One step in a table's life.
#[derive(Clone, Debug)]
pub enum TableChange {
    Rows(TableRows),
    Truncate,
}

/// A row of the batch: which `TableChange::Rows` (counted without truncates) and which row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRef {
    pub part: u32,
    pub row: u32,
}

/// Where a value that the log left out is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// In another row of the batch.
    Batch(RowRef),
    /// In the lake's row of this key.
    Lake(KeyHash),
}

/// What a batch comes down to.
#[derive(Debug, Default)]
pub struct Collapsed {
    /// The table was emptied before the rows below.
    pub truncated: bool,
    /// Every key the batch touched after the last truncate; the lake's rows of these keys are replaced or gone.
    pub touched: Vec<KeyHash>,
    /// The newest image of each key that lives on, in log order, with its key.
    pub live: Vec<(RowRef, KeyHash)>,
    pub carried: HashMap<(RowRef, u16), Carried>,
}

#[derive(Debug, thiserror::Error)]
pub enum CollapseError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(
        "an update of a row leaves column `{column}` out as unchanged, but neither the batch nor the table has a value for it"
    )]
    NothingToCarry { column: String },
    #[error("a key change came without the row's new image")]
    TornKeyChange,
}

/// A key's state inside the batch; keys not in the map are as the lake has them.
#[derive(Clone, Copy)]
enum State {
    Live(RowRef),
    Gone,
}

type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<Prehashed>>;

/// See the module text.
pub fn collapse(changes: &[TableChange], hasher: &KeyHasher) -> Result<Collapsed, CollapseError> {
    let mut states: KeyMap<State> = KeyMap::default();
    let mut collapsed = Collapsed::default();
    let mut part = 0;
    for change in changes {
        match change {
            TableChange::Truncate => {
                states.clear();
                collapsed.truncated = true;
            }
            TableChange::Rows(batch) => {
                collapse_part(part, batch, hasher, &mut states, &mut collapsed)?;
                part += 1;
            }
        }
    }
    collapsed.touched = states.keys().copied().collect();
    collapsed.live = states
        .iter()
        .filter_map(|(key, state)| match state {
            State::Live(row) => Some((*row, *key)),
            State::Gone => None,
        })
        .collect();
    // The map's order is random; log order keeps neighbours together and commits reproducible.
    collapsed.live.sort_unstable();
    Ok(collapsed)
}

fn collapse_part(
    part: u32,
    batch: &TableRows,
    hasher: &KeyHasher,
    states: &mut KeyMap<State>,
    collapsed: &mut Collapsed,
) -> Result<(), CollapseError> {
    let keys = hasher.hash_batch(&batch.schema, &batch.rows)?;
    let mut unchanged = batch.unchanged.as_slice();
    // The old key of a key change and what was known of it, until its new image comes.
    let mut moving: Option<(KeyHash, Option<State>)> = None;
    for (row, (&key, &op)) in keys.iter().zip(&batch.ops).enumerate() {
        let here = RowRef { part, row: row as u32 };
        let left_out = unchanged.partition_point(|(unchanged_row, _)| *unchanged_row as usize <= row);
        let (columns, rest) = unchanged.split_at(left_out);
        unchanged = rest;
        if moving.is_some() != (op == Op::UpdateNewKey) {
            return Err(CollapseError::TornKeyChange);
        }
        let (source_key, before) = match op {
            Op::UpdateNewKey => moving.take().ok_or(CollapseError::TornKeyChange)?,
            _ => (key, if columns.is_empty() { None } else { states.get(&key).copied() }),
        };
        for &(_, column) in columns {
            let carried = match before {
                Some(State::Live(earlier)) => {
                    collapsed.carried.get(&(earlier, column)).copied().unwrap_or(Carried::Batch(earlier))
                }
                None if !collapsed.truncated => Carried::Lake(source_key),
                _ => {
                    let column = batch.schema.columns[column as usize].name.clone();
                    return Err(CollapseError::NothingToCarry { column });
                }
            };
            collapsed.carried.insert((here, column), carried);
        }
        match op {
            Op::Insert | Op::Update | Op::UpdateNewKey => {
                states.insert(key, State::Live(here));
            }
            Op::Delete => {
                states.insert(key, State::Gone);
            }
            Op::UpdateOldKey => moving = Some((key, states.insert(key, State::Gone))),
        }
    }
    if moving.is_some() { Err(CollapseError::TornKeyChange) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::{Column, ColumnBuilder, LakeType, Policy, RowBuilder, RowIdentity, TableName, TableSchema};

    fn schema() -> Arc<TableSchema> {
        let column = |name: &str, lake_type, nullable| Column {
            name: name.into(),
            source_type: String::new(),
            lake_type,
            nullable,
            policy: Policy::default(),
        };
        Arc::new(TableSchema {
            name: TableName::new("public", "points"),
            columns: vec![column("id", LakeType::Long, false), column("note", LakeType::Long, true)],
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        })
    }

    /// (op, id, note); a note of `None` is a value the log left out.
    fn rows(changes: &[(Op, i64, Option<i64>)]) -> TableChange {
        let mut builder = RowBuilder::new(schema());
        let mut unchanged = Vec::new();
        for (row, (_, id, note)) in changes.iter().enumerate() {
            for (column, value) in [(0, Some(*id)), (1, *note)] {
                let ColumnBuilder::Long(values) = &mut builder.columns[column] else { panic!("long columns") };
                values.append_option(value);
            }
            if note.is_none() {
                unchanged.push((row as u32, 1));
            }
            builder.end_row().expect("two columns");
        }
        TableChange::Rows(TableRows {
            schema: schema(),
            rows: builder.finish().expect("valid"),
            ops: changes.iter().map(|(op, ..)| *op).collect(),
            unchanged,
            unfaithful: Vec::new(),
        })
    }

    fn collapsed(changes: &[TableChange]) -> (Collapsed, KeyHasher) {
        let hasher = KeyHasher::new(&schema()).expect("longs are hashable");
        (collapse(changes, &hasher).expect("consistent changes"), hasher)
    }

    fn at(part: u32, row: u32) -> RowRef {
        RowRef { part, row }
    }

    fn live(collapsed: &Collapsed) -> Vec<RowRef> {
        collapsed.live.iter().map(|(row, _)| *row).collect()
    }

    ///
    #[test]
    fn the_last_state_of_a_key_wins() {
        let (result, _) = collapsed(&[
            rows(&[(Op::Insert, 1, Some(1)), (Op::Update, 1, Some(2)), (Op::Insert, 2, Some(1))]),
            rows(&[
                (Op::Delete, 2, Some(0)),
                (Op::Insert, 3, Some(1)),
                (Op::Delete, 1, Some(0)),
                (Op::Insert, 1, Some(9)),
            ]),
        ]);
        assert_eq!(live(&result), [at(1, 1), at(1, 3)]);
        assert_eq!(result.touched.len(), 3);
    }

    /// 1→9, 2→1, 9→2 swaps two rows.
    #[test]
    fn swapped_keys_keep_their_own_rows() {
        let (result, _) = collapsed(&[rows(&[
            (Op::UpdateOldKey, 1, Some(10)),
            (Op::UpdateNewKey, 9, Some(10)),
            (Op::UpdateOldKey, 2, Some(20)),
            (Op::UpdateNewKey, 1, Some(20)),
            (Op::UpdateOldKey, 9, Some(10)),
            (Op::UpdateNewKey, 2, Some(10)),
        ])]);
        assert_eq!(live(&result), [at(0, 3), at(0, 5)]);
        assert_eq!(result.touched.len(), 3);
    }

    /// P-22
    #[test]
    fn a_left_out_value_is_traced_through_updates_and_key_changes_to_the_lake() {
        let (result, hasher) = collapsed(&[rows(&[
            (Op::Update, 1, None),
            (Op::UpdateOldKey, 1, Some(0)),
            (Op::UpdateNewKey, 2, None),
            (Op::Update, 2, None),
        ])]);
        let TableChange::Rows(first) = rows(&[(Op::Update, 1, None)]) else { panic!("rows") };
        let key_of_1 = hasher.hash_batch(&schema(), &first.rows).expect("hashable")[0];
        assert_eq!(result.carried.get(&(at(0, 3), 1)), Some(&Carried::Lake(key_of_1)));
    }

    #[test]
    fn a_left_out_value_is_taken_from_an_earlier_image_of_the_batch() {
        let (result, _) = collapsed(&[
            rows(&[(Op::Insert, 1, Some(5))]),
            TableChange::Rows(match rows(&[(Op::Update, 1, None)]) {
                TableChange::Rows(batch) => batch,
                TableChange::Truncate => unreachable!("rows() makes rows"),
            }),
        ]);
        assert_eq!(result.carried.get(&(at(1, 0), 1)), Some(&Carried::Batch(at(0, 0))));
    }

    /// K-2
    #[test]
    fn truncate_forgets_what_came_before_it() {
        let (result, _) =
            collapsed(&[rows(&[(Op::Insert, 1, Some(1))]), TableChange::Truncate, rows(&[(Op::Insert, 2, Some(1))])]);
        assert!(result.truncated);
        assert_eq!(live(&result), [at(1, 0)]);
        assert_eq!(result.touched.len(), 1);
    }

    #[test]
    fn inconsistent_changes_are_refused() {
        let hasher = KeyHasher::new(&schema()).expect("longs are hashable");
        let left_out_after_truncate = [TableChange::Truncate, rows(&[(Op::Update, 1, None)])];
        assert!(matches!(collapse(&left_out_after_truncate, &hasher), Err(CollapseError::NothingToCarry { .. })));
        for torn in [rows(&[(Op::UpdateOldKey, 1, Some(1))]), rows(&[(Op::UpdateNewKey, 1, Some(1))])] {
            assert!(matches!(collapse(&[torn], &hasher), Err(CollapseError::TornKeyChange)));
        }
    }
}
