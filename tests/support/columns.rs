//! Tables whose columns change, as a model: rows by column name, and random changes of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use lakeward::config::{ChangeKind, ChangePolicies, ChangePolicy};
use lakeward::schema::{
    Column, ColumnBuilder, Decision, Evolution, Fill, LakeOp, LakeType, Op, Origin, Policy, RowBuilder, RowIdentity,
    SchemaChange, Shape, Step, TableName, TableRows, TableSchema, Verdict, decide, settle,
};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

pub fn column(name: &str, lake_type: LakeType) -> Column {
    Column {
        name: name.into(),
        source_type: lake_type.to_string(),
        lake_type,
        nullable: true,
        policy: Policy::default(),
    }
}

/// `id` is the key, if there is one.
pub fn schema(columns: &[(&str, LakeType)], identity: RowIdentity) -> TableSchema {
    let mut columns: Vec<Column> = columns.iter().map(|(name, lake_type)| column(name, *lake_type)).collect();
    columns[0].nullable = identity != RowIdentity::Key;
    TableSchema {
        name: TableName::new("booking", "stays"),
        columns,
        key: if identity == RowIdentity::Key { vec![0] } else { vec![] },
        partition_by: vec![],
        identity,
    }
}

/// Stands for a value that the log left out.
pub const UNCHANGED: &str = "~";

/// Changes as rows of the lake, whose columns `schema` has.
pub fn rows(schema: &Arc<TableSchema>, changes: &[(Op, Vec<Value>)]) -> TableRows {
    let mut builder = RowBuilder::new(schema.clone());
    let mut unchanged = Vec::new();
    for (row, (_, values)) in changes.iter().enumerate() {
        assert_eq!(values.len(), schema.columns.len());
        for (index, value) in values.iter().enumerate() {
            let column = &mut builder.columns[index];
            if *value == json!(UNCHANGED) {
                unchanged.push((row as u32, index as u16));
            }
            match (column, value) {
                (column, Value::Null) => column.append_null(),
                (column, value) if *value == json!(UNCHANGED) => column.append_null(),
                (ColumnBuilder::Integer(builder), value) => {
                    builder.append_value(value.as_i64().and_then(|n| n.try_into().ok()).expect("an integer"));
                }
                (ColumnBuilder::Long(builder), value) => builder.append_value(value.as_i64().expect("a number")),
                (ColumnBuilder::String(builder), value) => builder.append_value(value.as_str().expect("text")),
                (ColumnBuilder::Decimal(builder), value) => {
                    let digits = value.as_str().expect("text").replace('.', "");
                    builder.append_value(digits.parse().expect("digits"));
                }
                (column, value) => panic!("{value} in {column:?}"),
            }
        }
        builder.end_row().expect("all columns");
    }
    TableRows {
        schema: schema.clone(),
        rows: builder.finish().expect("valid"),
        ops: changes.iter().map(|(op, _)| *op).collect(),
        unchanged,
        unfaithful: Vec::new(),
    }
}

pub fn change_of(shape: &Shape, steps: Vec<Step>) -> SchemaChange {
    let source = Arc::new(shape.source_schema());
    SchemaChange {
        table: shape.lake.name.clone(),
        before: source.clone(),
        // Only shown to people here.
        after: source,
        steps,
        statement: Some("ALTER TABLE stays …".into()),
        place: format!("0-1-{}", rand::random::<u32>()),
        ordinal: 0,
        at: Some(chrono::Utc::now()),
    }
}

pub fn evolution(shape: &Shape, steps: Vec<Step>, policies: &[(ChangeKind, ChangePolicy)]) -> Arc<Evolution> {
    match decide("booking", shape, &change_of(shape, steps), &ChangePolicies::stated(policies), None) {
        Decision::Evolve(evolution) => Arc::from(evolution),
        other => panic!("{other:?}"),
    }
}

pub fn add(name: &str, lake_type: LakeType, fill: Option<ArrayRef>) -> Step {
    Step::Add { column: column(name, lake_type), fill: fill.map_or(Fill::Null, Fill::Value) }
}

pub fn rename(from: &str, to: &str) -> Step {
    Step::Rename { from: from.into(), to: to.into() }
}

pub fn drop_column(name: &str) -> Step {
    Step::Drop { column: name.into() }
}

pub fn widen(name: &str, from: LakeType, to: LakeType) -> Step {
    Step::Widen { column: name.into(), from, to: column(name, to) }
}

pub fn number(value: i32) -> Option<ArrayRef> {
    Some(Arc::new(Int32Array::from(vec![value])))
}

pub fn text(value: &str) -> Option<ArrayRef> {
    Some(Arc::new(StringArray::from(vec![value])))
}

pub const DROP: &[(ChangeKind, ChangePolicy)] = &[(ChangeKind::Drop, ChangePolicy::Apply)];
pub const HOLD_ADD: &[(ChangeKind, ChangePolicy)] = &[(ChangeKind::Add, ChangePolicy::Hold)];

/// A row of the model by the lake's column names, hidden columns among them.
pub type ModelRow = BTreeMap<String, Value>;

pub fn value_of(array: &ArrayRef) -> Value {
    match array.data_type() {
        _ if array.is_null(0) => Value::Null,
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(0)),
        _ => json!(array.as_string::<i32>().value(0)),
    }
}

pub fn evolve_model<'a>(rows: impl Iterator<Item = &'a mut ModelRow>, ops: &[LakeOp]) {
    for row in rows {
        for op in ops {
            match op {
                LakeOp::Add { column, fill } => {
                    let value = fill.as_ref().map_or(Value::Null, |fill| value_of(&fill.0));
                    row.insert(column.name.clone(), value);
                }
                LakeOp::Drop { name } => {
                    row.remove(name);
                }
                LakeOp::Rename { from, to } => {
                    let value = row.remove(from).expect("a column");
                    row.insert(to.clone(), value);
                }
                LakeOp::Widen { .. } => {}
            }
        }
    }
}

/// `keeps`: a dropped column may stay in the lake.
pub fn random_evolution(random: &mut StdRng, shape: &Shape, next: &mut u32, keeps: bool) -> Arc<Evolution> {
    let source = shape.source_schema();
    let held = |index: usize| source.is_key(index) || source.partition_by.contains(&index);
    let mut steps = Vec::new();
    let at = random.random_range(0..source.columns.len());
    let name = source.columns[at].name.clone();
    *next += 1;
    match random.random_range(0..5) {
        0 if !held(at) && source.columns.len() > 4 => steps.push(drop_column(&name)),
        1 => steps.push(rename(&name, &format!("c{next}"))),
        2 if source.columns[at].lake_type == LakeType::Integer => {
            steps.push(widen(&name, LakeType::Integer, LakeType::Long));
        }
        _ => {
            let fill = random.random_bool(0.5);
            steps.push(if random.random_bool(0.5) {
                add(&format!("c{next}"), LakeType::Integer, fill.then(|| number(7)).flatten())
            } else {
                add(&format!("c{next}"), LakeType::String, fill.then(|| text("채움")).flatten())
            });
        }
    }
    let add_policy = if random.random_bool(0.3) { ChangePolicy::Hold } else { ChangePolicy::Apply };
    let drop_policy = if keeps && random.random_bool(0.5) { ChangePolicy::Keep } else { ChangePolicy::Apply };
    if let Some(held) = shape.held.first().filter(|_| random.random_bool(0.3)) {
        let verdict = if random.random_bool(0.5) { Verdict::Approve } else { Verdict::Reject };
        return Arc::new(settle(shape, held.id, verdict).expect("held"));
    }
    evolution(shape, steps, &[(ChangeKind::Add, add_policy), (ChangeKind::Drop, drop_policy)])
}

/// What happens next to the row of this key: it comes if it is not there, else it goes or becomes another.
pub fn random_change(
    random: &mut StdRng,
    shape: &Shape,
    model: &mut BTreeMap<i64, ModelRow>,
    id: i64,
    goes: bool,
) -> (Op, Vec<Value>) {
    let old = model.remove(&id);
    if old.is_some() && goes {
        return (Op::Delete, random_row(random, shape, Some(id), None).0);
    }
    let (image, row) = random_row(random, shape, Some(id), old.as_ref());
    model.insert(id, row);
    (if old.is_some() { Op::Update } else { Op::Insert }, image)
}

/// A new image; `old` is there when values may be left out.
pub fn random_row(
    random: &mut StdRng,
    shape: &Shape,
    id: Option<i64>,
    old: Option<&ModelRow>,
) -> (Vec<Value>, ModelRow) {
    let mut image = Vec::new();
    let mut model = ModelRow::new();
    for (index, column) in shape.lake.columns.iter().enumerate() {
        let (told, kept) = if shape.lake.is_key(index) {
            (json!(id), json!(id))
        } else if shape.origins[index] == Origin::Dropped {
            (Value::Null, Value::Null)
        } else if let Some(old) = old.filter(|_| !shape.lake.partition_by.contains(&index) && random.random_bool(0.3)) {
            (json!(UNCHANGED), old[&column.name].clone())
        } else {
            let value = match (random.random_range(0..8), column.lake_type) {
                (0, _) => Value::Null,
                (_, LakeType::String) => json!(format!("값 {}", random.random_range(0..4))),
                (_, LakeType::Long) => json!(random.random_range(0..3_i64) << 33),
                (_, _) => json!(random.random_range(0..3)),
            };
            (value.clone(), value)
        };
        image.push(told);
        model.insert(column.name.clone(), kept);
    }
    (image, model)
}

pub fn shown_names(shape: &Shape) -> Vec<String> {
    shape.shown().columns.iter().map(|column| column.name.clone()).collect()
}
