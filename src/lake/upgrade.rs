//! Rows of an earlier shape of a table as rows of a later one.
//!
//! The same for rows of a batch in memory and for those of a data file that is rewritten: the operations say for each
//! later column where its values come from, and the later schema says in which type.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::schema::{LakeOp, OneValue, TableRows, TableSchema, Unfaithful};

/// Where a later column's values come from.
#[derive(Clone, Copy)]
enum Values<'a> {
    /// The earlier column at this place.
    Column(usize),
    /// The same in every row; `None` is NULL.
    Constant(Option<&'a OneValue>),
}

/// The columns that `ops` make of those called `names`.
fn course<'a>(
    names: impl Iterator<Item = &'a String>,
    ops: &'a [LakeOp],
) -> Result<Vec<(&'a str, Values<'a>)>, ArrowError> {
    let mut columns: Vec<(&str, Values)> =
        names.enumerate().map(|(index, name)| (name.as_str(), Values::Column(index))).collect();
    let place = |columns: &[(&str, Values)], wanted: &str| {
        let found = columns.iter().position(|(name, _)| *name == wanted);
        found.ok_or_else(|| ArrowError::SchemaError(format!("there is no column `{wanted}` to change")))
    };
    for op in ops {
        match op {
            LakeOp::Add { column, fill } => {
                if place(&columns, &column.name).is_ok() {
                    return Err(ArrowError::SchemaError(format!("column `{}` is there already", column.name)));
                }
                columns.push((&column.name, Values::Constant(fill.as_ref())));
            }
            LakeOp::Drop { name } => {
                let index = place(&columns, name)?;
                columns.remove(index);
            }
            LakeOp::Rename { from, to } => {
                let index = place(&columns, from)?;
                columns[index].0 = to;
            }
            LakeOp::Widen { name, .. } => {
                place(&columns, name)?;
            }
        }
    }
    Ok(columns)
}

/// For each column of `after` where its values come from.
fn values_of<'a>(course: Vec<(&'a str, Values<'a>)>, after: &TableSchema) -> Result<Vec<Values<'a>>, ArrowError> {
    let stray = || ArrowError::SchemaError(format!("the changes of {} do not lead to its columns", after.name));
    if course.len() != after.columns.len() {
        return Err(stray());
    }
    let found = after.columns.iter().map(|column| {
        let found = course.iter().find(|(name, _)| *name == column.name);
        found.map(|(_, values)| *values).ok_or_else(stray)
    });
    found.collect()
}

/// Where each column of `before` is in `after`, to which `ops` lead.
pub fn moved(before: &TableSchema, ops: &[LakeOp], after: &TableSchema) -> Result<Vec<Option<usize>>, ArrowError> {
    let mut moved = vec![None; before.columns.len()];
    let names = before.columns.iter().map(|column| &column.name);
    for (place, values) in values_of(course(names, ops)?, after)?.into_iter().enumerate() {
        if let Values::Column(index) = values {
            moved[index] = Some(place);
        }
    }
    Ok(moved)
}

/// Rows before `ops` as rows of `after`, to which they lead. Columns are found by name.
pub fn upgrade(rows: &RecordBatch, after: &TableSchema, ops: &[LakeOp]) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let values = values_of(course(schema.fields().iter().map(|field| field.name()), ops)?, after)?;
    let count = rows.num_rows();
    let arrays = values.into_iter().zip(&after.columns).map(|(values, column)| {
        let wanted = column.lake_type.arrow();
        match values {
            Values::Column(index) => exact_cast(rows.column(index), &wanted),
            Values::Constant(Some(OneValue(value))) => {
                take(&exact_cast(value, &wanted)?, &UInt32Array::from(vec![0; count]), None)
            }
            Values::Constant(None) => Ok(new_null_array(&wanted, count)),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(after.arrow(), arrays.collect::<Result<_, _>>()?, &options)
}

fn exact_cast(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    // What does not fit is an error, never NULL.
    cast_with_options(array, wanted, &CastOptions { safe: false, ..CastOptions::default() })
}

/// [`upgrade`] for changes.
pub fn upgrade_changes(rows: &TableRows, after: &Arc<TableSchema>, ops: &[LakeOp]) -> Result<TableRows, ArrowError> {
    let moved = moved(&rows.schema, ops, after)?;
    let place = |column: u16| moved.get(usize::from(column)).copied().flatten().map(|index| index as u16);
    let mut unchanged: Vec<(u32, u16)> =
        rows.unchanged.iter().filter_map(|&(row, column)| Some((row, place(column)?))).collect();
    unchanged.sort_unstable();
    let unfaithful = rows
        .unfaithful
        .iter()
        .filter_map(|value| Some(Unfaithful { column: place(value.column)?, ..*value }))
        .collect();
    Ok(TableRows {
        rows: upgrade(&rows.rows, after, ops)?,
        schema: after.clone(),
        ops: rows.ops.clone(),
        unchanged,
        unfaithful,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, LakeType, Op, Policy, Reason, RowIdentity, TableName};
    use arrow::array::{AsArray, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    fn table(columns: &[(&str, LakeType)]) -> Arc<TableSchema> {
        let columns = columns.iter().map(|(name, lake_type)| column(name, *lake_type)).collect();
        Arc::new(TableSchema {
            name: TableName::new("a", "b"),
            columns,
            key: vec![],
            partition_by: vec![],
            identity: RowIdentity::WholeRow,
        })
    }

    fn column(name: &str, lake_type: LakeType) -> Column {
        Column { name: name.into(), source_type: String::new(), lake_type, nullable: true, policy: Policy::Null }
    }

    #[test]
    fn rows_and_what_is_noted_of_them_move_along() {
        use LakeType::{Integer, Long, String};
        let before = table(&[("gone", Integer), ("n", Integer), ("s", String)]);
        let after = table(&[("m", Long), ("t", String), ("old", Long), ("new", String)]);
        let ops = [
            LakeOp::Drop { name: "gone".into() },
            LakeOp::Rename { from: "n".into(), to: "m".into() },
            LakeOp::Widen { name: "m".into(), to: Long },
            LakeOp::Rename { from: "s".into(), to: "t".into() },
            LakeOp::Add { column: column("gone", Integer), fill: Some(OneValue(Arc::new(Int32Array::from(vec![9])))) },
            LakeOp::Add { column: column("new", String), fill: None },
            // Filled in the type that it had then.
            LakeOp::Rename { from: "gone".into(), to: "old".into() },
            LakeOp::Widen { name: "old".into(), to: Long },
        ];
        let unfaithful = |row, column| Unfaithful { row, column, reason: Reason::OutOfRange };
        let rows = TableRows {
            rows: RecordBatch::try_new(
                before.arrow(),
                vec![
                    Arc::new(Int32Array::from(vec![1, 2])),
                    Arc::new(Int32Array::from(vec![Some(3), None])),
                    Arc::new(StringArray::from(vec!["x", "y"])),
                ],
            )
            .expect("valid"),
            schema: before,
            ops: vec![Op::Insert, Op::Update],
            unchanged: vec![(0, 0), (1, 1), (1, 2)],
            unfaithful: vec![unfaithful(0, 0), unfaithful(1, 2)],
        };
        let upgraded = upgrade_changes(&rows, &after, &ops).expect("upgraded");
        assert_eq!(upgraded.unchanged, [(1, 0), (1, 1)]);
        assert_eq!(upgraded.unfaithful, [unfaithful(1, 1)]);
        assert_eq!(upgraded.rows.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(3), None]));
        assert_eq!(upgraded.rows.column(2).as_primitive::<Int64Type>(), &Int64Array::from(vec![9, 9]));
        assert_eq!(upgraded.rows.column(3).null_count(), 2);
        assert_eq!(moved(&rows.schema, &ops, &after).expect("a course"), [None, Some(0), Some(1)]);
    }

    #[test]
    fn changes_that_do_not_lead_to_the_columns_are_refused() {
        let before = table(&[("a", LakeType::Integer)]);
        let rows = RecordBatch::new_empty(before.arrow());
        let drop = LakeOp::Drop { name: "b".into() };
        assert!(upgrade(&rows, &before, &[drop]).is_err());
        assert!(upgrade(&rows, &table(&[("b", LakeType::Integer)]), &[]).is_err());
    }
}
