//! A hash of all that the source tells of a row, the same whether the row comes from there or from the lake.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use twox_hash::XxHash3_128;

use crate::schema::{Origin, Shape};

/// One hash a row of a batch that has all the columns of `shape`. Columns that the source dropped don't count. Values are
/// alike when they are the same bit by bit, but for NaN, of which there is one: NULL is not empty, -0.0 is not 0.0.
pub fn hash_rows(shape: &Shape, rows: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for ((column, origin), values) in shape.lake.columns.iter().zip(&shape.origins).zip(rows.columns()) {
        if *origin == Origin::Dropped {
            continue;
        }
        let wanted = column.lake_type.arrow();
        columns.push(canonical(values, &wanted)?);
        fields.push(SortField::new(wanted));
    }
    if columns.is_empty() {
        return Ok(vec![0; rows.num_rows()]);
    }
    let encoded = RowConverter::new(fields)?.convert_columns(&columns)?;
    Ok(encoded.iter().map(|row| XxHash3_128::oneshot(row.as_ref()) as u64).collect())
}

/// Values in a type's own form.
fn canonical(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    Ok(match wanted {
        DataType::Float32 => {
            let values = cast(values, wanted)?;
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value };
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let values = cast(values, wanted)?;
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::List(element) => {
            let values =
                if matches!(values.data_type(), DataType::List(_)) { values.clone() } else { cast(values, wanted)? };
            let list = values.as_list::<i32>();
            let elements = canonical(list.values(), element.data_type())?;
            Arc::new(ListArray::try_new(element.clone(), list.offsets().clone(), elements, list.nulls().cloned())?)
        }
        DataType::Struct(fields) => {
            let values = values.as_struct();
            let children = fields.iter().zip(values.columns());
            let children = children.map(|(field, child)| canonical(child, field.data_type()));
            let children = children.collect::<Result<Vec<_>, _>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), children, values.nulls().cloned(), values.len())?)
        }
        _ if values.data_type() == wanted => values.clone(),
        _ => cast(values, wanted)?,
    })
}
