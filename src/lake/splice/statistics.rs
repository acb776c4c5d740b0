//! A file's statistics in the log after operations on its columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use deltalake::kernel::Add;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::{Map, Value, json};

use super::column::repeated;
use crate::lake::Error;
use crate::lake::data_file::{BOUND_DIGITS_MAX, Roll, TableWriter};
use crate::schema::{Column, LakeOp, LakeType, OneValue, RowIdentity, TableSchema};

const BOUNDS: [&str; 2] = ["minValues", "maxValues"];
const NULL_COUNT: &str = "nullCount";

/// `add.stats` as the new file has them: columns that were not touched keep theirs.
pub async fn after(add: &Add, rows: u64, before: &TableSchema, ops: &[LakeOp]) -> Result<String, Error> {
    let parsed = add.stats.as_deref().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let mut stats = parsed.unwrap_or_default();
    stats.insert("numRecords".to_owned(), json!(rows));
    for op in ops {
        match op {
            LakeOp::Add { fill: None, .. } => {}
            LakeOp::Add { column, fill: Some(value) } => {
                let constant = of_constant(before, column, value).await?;
                for part in BOUNDS.into_iter().chain([NULL_COUNT]) {
                    if let Some(value) = constant.get(part).and_then(|of_columns| of_columns.get(&column.name)) {
                        of_columns(&mut stats, part).insert(column.name.clone(), value.clone());
                    }
                }
                if let Some(count) = of_columns(&mut stats, NULL_COUNT).get_mut(&column.name) {
                    times(count, rows);
                }
            }
            LakeOp::Drop { name } => each(&mut stats, |of_columns| {
                of_columns.remove(name);
            }),
            LakeOp::Rename { from, to } => each(&mut stats, |of_columns| {
                if let Some(value) = of_columns.remove(from) {
                    of_columns.insert(to.clone(), value);
                }
            }),
            LakeOp::Widen { name, to } => {
                for part in BOUNDS {
                    let bounds = of_columns(&mut stats, part);
                    let widened = bounds.remove(name).and_then(|bound| widen(&bound, *to));
                    if let Some(bound) = widened {
                        bounds.insert(name.clone(), bound);
                    }
                }
            }
        }
    }
    Ok(Value::Object(stats).to_string())
}

fn of_columns<'a>(stats: &'a mut Map<String, Value>, part: &str) -> &'a mut Map<String, Value> {
    let entry = stats.entry(part).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut().expect("made one above")
}

fn each(stats: &mut Map<String, Value>, mut change: impl FnMut(&mut Map<String, Value>)) {
    for part in BOUNDS.into_iter().chain([NULL_COUNT]) {
        if let Some(of_columns) = stats.get_mut(part).and_then(Value::as_object_mut) {
            change(of_columns);
        }
    }
}

/// A bound as one of the wider type; `None` where the log could not hold it exactly.
fn widen(bound: &Value, to: LakeType) -> Option<Value> {
    match to {
        LakeType::Decimal { precision, .. } if precision > BOUND_DIGITS_MAX => None,
        LakeType::Decimal { scale: 0, .. } | LakeType::Short | LakeType::Integer | LakeType::Long => {
            Some(bound.clone())
        }
        _ => Some(json!(bound.as_f64()?)),
    }
}

/// The counts of one row as those of `rows` like it; nested columns have an object of them.
fn times(count: &mut Value, rows: u64) {
    match count {
        Value::Object(parts) => parts.values_mut().for_each(|part| times(part, rows)),
        one => *one = json!(one.as_u64().unwrap_or(0) * rows),
    }
}

/// The statistics that a file of one row with this value would have: a table's own writer tells.
async fn of_constant(before: &TableSchema, column: &Column, value: &OneValue) -> Result<Map<String, Value>, Error> {
    let schema = Arc::new(TableSchema {
        name: before.name.clone(),
        columns: vec![column.clone()],
        key: Vec::new(),
        partition_by: Vec::new(),
        identity: RowIdentity::AppendOnly,
    });
    let arrow = |source| Error::Arrow { table: before.name.to_string(), source };
    let values = repeated(&value.0, 1).map_err(arrow)?;
    let row = RecordBatch::try_new(Arc::new(Schema::clone(&schema.arrow())), vec![values]).map_err(arrow)?;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut writer = TableWriter::new(schema, store, Roll::Never)?;
    writer.write(&row, &[]).await?;
    let files = writer.close().await?;
    let stats = files.first().and_then(|file| file.add.stats.as_deref());
    Ok(stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}
