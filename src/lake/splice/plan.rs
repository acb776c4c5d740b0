//! What a list of operations comes to for one file: where each of its columns comes from afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use delta_kernel::expressions::Scalar;
use deltalake::kernel::scalars::ScalarExt;

use crate::schema::{LakeOp, LakeType, TableSchema};

/// Where a column's values are.
#[derive(Clone, Debug)]
pub enum Values {
    /// In the file's column at this place among its top-level columns.
    Carried(usize),
    /// There, in a narrower type.
    Widened(usize),
    /// One value for all rows.
    Constant(ArrayRef),
    /// Nowhere: the column reads NULL.
    Missing,
}

/// A column that the new file has, unless its values are missing.
#[derive(Clone, Debug)]
pub struct PlannedColumn {
    pub name: String,
    pub lake_type: LakeType,
    pub nullable: bool,
    pub values: Values,
}

/// The columns of a file after all operations. `places` tells where the file has the columns of `before`. The error says
/// which operation does not fit.
pub fn compose(
    before: &TableSchema,
    ops: &[LakeOp],
    places: &HashMap<String, usize>,
) -> Result<Vec<PlannedColumn>, String> {
    let mut partitions = partition_names(before);
    let stored = before.columns.iter().filter(|column| !partitions.contains(&column.name));
    let mut columns: Vec<PlannedColumn> = stored
        .map(|column| PlannedColumn {
            name: column.name.clone(),
            lake_type: column.lake_type,
            nullable: column.nullable,
            values: places.get(&column.name).map_or(Values::Missing, |&root| Values::Carried(root)),
        })
        .collect();
    for op in ops {
        let taken = |name: &str, columns: &[PlannedColumn], partitions: &HashSet<String>| {
            partitions.contains(name) || columns.iter().any(|column| column.name == name)
        };
        let place = |name: &str, columns: &[PlannedColumn]| {
            let found = columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| format!("column `{name}` is not there"))
        };
        match op {
            LakeOp::Add { column, fill } => {
                if taken(&column.name, &columns, &partitions) {
                    return Err(format!("column `{}` is there already", column.name));
                }
                columns.push(PlannedColumn {
                    name: column.name.clone(),
                    lake_type: column.lake_type,
                    nullable: column.nullable,
                    values: fill.as_ref().map_or(Values::Missing, |value| Values::Constant(value.0.clone())),
                });
            }
            LakeOp::Drop { name } => {
                if !partitions.remove(name) {
                    columns.remove(place(name, &columns)?);
                }
            }
            LakeOp::Rename { from, to } => {
                if taken(to, &columns, &partitions) {
                    return Err(format!("column `{to}` is there already"));
                }
                if partitions.remove(from) {
                    partitions.insert(to.clone());
                } else {
                    let place = place(from, &columns)?;
                    columns[place].name.clone_from(to);
                }
            }
            LakeOp::Widen { name, to } => {
                if partitions.contains(name) {
                    continue;
                }
                let place = place(name, &columns)?;
                let column = &mut columns[place];
                column.lake_type = *to;
                column.values = match std::mem::replace(&mut column.values, Values::Missing) {
                    Values::Carried(root) | Values::Widened(root) => Values::Widened(root),
                    Values::Constant(value) => {
                        Values::Constant(cast_exactly(&value, &to.arrow()).map_err(|cause| cause.to_string())?)
                    }
                    Values::Missing => Values::Missing,
                };
            }
        }
    }
    Ok(columns)
}

fn partition_names(schema: &TableSchema) -> HashSet<String> {
    schema.partition_by.iter().map(|&index| schema.columns[index].name.clone()).collect()
}

/// Whether the columns are those of `after`.
pub fn reaches(columns: &[PlannedColumn], after: &TableSchema) -> bool {
    let partitions = partition_names(after);
    let wanted: HashMap<&str, LakeType> = after
        .columns
        .iter()
        .filter(|column| !partitions.contains(&column.name))
        .map(|column| (column.name.as_str(), column.lake_type))
        .collect();
    wanted.len() == columns.len()
        && columns.iter().all(|column| wanted.get(column.name.as_str()) == Some(&column.lake_type))
}

/// A file's partition values after the operations.
pub fn partition_values(
    before: &TableSchema,
    ops: &[LakeOp],
    values: &HashMap<String, Option<String>>,
) -> Result<HashMap<String, Option<String>>, ArrowError> {
    let mut types: HashMap<String, LakeType> = before
        .partition_by
        .iter()
        .map(|&index| &before.columns[index])
        .map(|c| (c.name.clone(), c.lake_type))
        .collect();
    let mut values = values.clone();
    for op in ops {
        match op {
            LakeOp::Add { .. } => {}
            LakeOp::Drop { name } => {
                if types.remove(name).is_some() {
                    values.remove(name);
                }
            }
            LakeOp::Rename { from, to } => {
                if let Some(lake_type) = types.remove(from) {
                    types.insert(to.clone(), lake_type);
                    if let Some(value) = values.remove(from) {
                        values.insert(to.clone(), value);
                    }
                }
            }
            LakeOp::Widen { name, to } => {
                let Some(lake_type) = types.get_mut(name) else { continue };
                let from = std::mem::replace(lake_type, *to);
                if let Some(value) = values.get_mut(name) {
                    *value = value.as_deref().map(|text| widen_text(text, from, *to)).transpose()?;
                }
            }
        }
    }
    Ok(values)
}

fn widen_text(text: &str, from: LakeType, to: LakeType) -> Result<String, ArrowError> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let value = cast_exactly(&cast_exactly(&text, &from.arrow())?, &to.arrow())?;
    let scalar = Scalar::from_array(value.as_ref(), 0)
        .ok_or_else(|| ArrowError::CastError(format!("{to} cannot be a partition value")))?;
    Ok(scalar.serialize())
}

/// A cast that fails rather than loses a value.
pub fn cast_exactly(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if values.data_type() == to {
        return Ok(values.clone());
    }
    if values.len() == values.null_count() {
        return cast(values, to);
    }
    cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })
}
