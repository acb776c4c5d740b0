//! A [`Shape`] as a Delta table's metadata and back.
//!
//! The table's metadata is the one durable home of its shape, so that it changes with the very commit that changes the
//! table and a restart decodes with exactly the shape the lake has. Readers see the shown columns in `schemaString`; each
//! field's metadata keeps the source's declaration (`lakeward.sourceType`), the source's name where it is another
//! (`lakeward.source`), that the source dropped it (`lakeward.dropped`), and a key column's place in the merge key
//! (`lakeward.key`, from 1). What readers must not see is in the table's configuration: hidden columns with their places
//! (`lakeward.hidden`), columns left out (`lakeward.ignored`), held changes (`lakeward.held`), each as JSON and absent when
//! empty. Format: Delta protocol, "Schema Serialization Format".

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::schema::{Column, LakeType, Origin, Policy, RowIdentity, Shape, TableName, TableSchema};

/// The table property that says what tells rows apart where there is no key.
const ROW_IDENTITY: &str = "lakeward.rowIdentity";

const HIDDEN: &str = "lakeward.hidden";
const IGNORED: &str = "lakeward.ignored";
const HELD: &str = "lakeward.held";

/// Every table property that [`encode`] decides about.
const PROPERTIES: [&str; 4] = [ROW_IDENTITY, HIDDEN, IGNORED, HELD];

const SOURCE_TYPE: &str = "lakeward.sourceType";
const SOURCE: &str = "lakeward.source";
const DROPPED: &str = "lakeward.dropped";
const KEY: &str = "lakeward.key";
/// A hidden column's place among all columns.
const PLACE: &str = "lakeward.place";

/// Writes a shape into a `metaData` action; whatever else the action says stays.
pub fn encode(shape: &Shape, metadata: &mut Value) -> Result<(), serde_json::Error> {
    let schema = &shape.lake;
    let (mut shown, mut hidden) = (Vec::new(), Vec::new());
    for index in 0..schema.columns.len() {
        let mut field = field(shape, index);
        if shape.hidden[index] {
            field["metadata"][PLACE] = json!(index);
            hidden.push(field);
        } else {
            shown.push(field);
        }
    }
    let partition_by: Vec<&str> =
        schema.partition_by.iter().map(|&index| schema.columns[index].name.as_str()).collect();
    metadata["schemaString"] = json!(json!({"type": "struct", "fields": shown}).to_string());
    metadata["partitionColumns"] = json!(partition_by);
    if !metadata["configuration"].is_object() {
        metadata["configuration"] = json!({});
    }
    let properties = [
        row_identity(schema.identity).map(str::to_owned),
        (!hidden.is_empty()).then(|| Value::Array(hidden).to_string()),
        if shape.ignored.is_empty() { None } else { Some(serde_json::to_string(&shape.ignored)?) },
        if shape.held.is_empty() { None } else { Some(serde_json::to_string(&shape.held)?) },
    ];
    if let Some(configuration) = metadata["configuration"].as_object_mut() {
        for (name, value) in PROPERTIES.into_iter().zip(properties) {
            match value {
                Some(value) => configuration.insert(name.to_owned(), json!(value)),
                None => configuration.remove(name),
            };
        }
    }
    Ok(())
}

fn field(shape: &Shape, index: usize) -> Value {
    let column = &shape.lake.columns[index];
    let mut metadata = Map::new();
    metadata.insert(SOURCE_TYPE.into(), json!(column.source_type));
    match &shape.origins[index] {
        Origin::Source(name) if *name == column.name => {}
        Origin::Source(name) => {
            metadata.insert(SOURCE.into(), json!(name));
        }
        Origin::Dropped => {
            metadata.insert(DROPPED.into(), json!(true));
        }
    }
    if let Some(place) = shape.lake.key.iter().position(|&key| key == index) {
        metadata.insert(KEY.into(), json!(place + 1));
    }
    json!({
        "name": column.name,
        "type": type_json(column.lake_type),
        "nullable": column.nullable,
        "metadata": metadata,
    })
}

/// Delta's JSON form of a type.
fn type_json(lake_type: LakeType) -> Value {
    match lake_type {
        LakeType::Array(element) => {
            json!({"type": "array", "elementType": element.lake_type().to_string(), "containsNull": true})
        }
        LakeType::Geometry => {
            let field = |name: &str, kind: &str| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
            json!({"type": "struct", "fields": [field("srid", "integer"), field("wkb", "binary")]})
        }
        primitive => json!(primitive.to_string()),
    }
}

/// The type of Delta's JSON form, if lakeward writes it.
fn type_of(json: &Value) -> Result<LakeType, String> {
    let text = match json {
        Value::String(text) => text.clone(),
        nested if *nested == type_json(LakeType::Geometry) => return Ok(LakeType::Geometry),
        nested => format!("array<{}>", nested["elementType"].as_str().unwrap_or_default()),
    };
    text.parse().map_err(|error: crate::schema::UnknownLakeType| error.to_string())
}

/// The value of [`ROW_IDENTITY`]; none for tables that have a key.
fn row_identity(identity: RowIdentity) -> Option<&'static str> {
    match identity {
        RowIdentity::Key => None,
        RowIdentity::WholeRow => Some("whole_row"),
        RowIdentity::AppendOnly => Some("append_only"),
    }
}

/// Reads what [`encode`] wrote. The error says what is not ours.
pub fn decode(name: &TableName, metadata: &Value) -> Result<Shape, String> {
    let schema = metadata["schemaString"].as_str().ok_or("its metadata has no schema")?;
    let schema: Value = serde_json::from_str(schema).map_err(|error| format!("schema is not JSON: {error}"))?;
    let mut fields = schema["fields"].as_array().ok_or("schema has no fields")?.clone();
    let configuration = &metadata["configuration"];
    let hidden: Vec<Value> = property(configuration, HIDDEN)?;
    let mut hidden_places = HashSet::new();
    // In the order of their places, so that each is inserted where it ends up.
    for field in hidden {
        let place = field["metadata"][PLACE].as_u64().and_then(|place| usize::try_from(place).ok());
        let place = place.filter(|place| *place <= fields.len()).ok_or("a hidden column has no place")?;
        hidden_places.insert(place);
        fields.insert(place, field);
    }
    let mut columns = Vec::with_capacity(fields.len());
    let mut origins = Vec::with_capacity(fields.len());
    let mut key: Vec<(u64, usize)> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let column = field["name"].as_str().ok_or_else(|| format!("field {index} has no name"))?;
        let lake_type = type_of(&field["type"]).map_err(|error| format!("column `{column}`: {error}"))?;
        let about = &field["metadata"];
        let source_type = about[SOURCE_TYPE]
            .as_str()
            .ok_or_else(|| format!("column `{column}` was not written by lakeward (no `{SOURCE_TYPE}`)"))?;
        if let Some(place) = about[KEY].as_u64() {
            key.push((place, index));
        }
        origins.push(if about[DROPPED].as_bool() == Some(true) {
            Origin::Dropped
        } else {
            Origin::Source(about[SOURCE].as_str().unwrap_or(column).to_owned())
        });
        columns.push(Column {
            name: column.to_owned(),
            source_type: source_type.to_owned(),
            lake_type,
            nullable: field["nullable"].as_bool().unwrap_or(true),
            policy: Policy::default(),
        });
    }
    key.sort_unstable();
    let mut schema = TableSchema {
        name: name.clone(),
        columns,
        key: key.into_iter().map(|(_, index)| index).collect(),
        partition_by: Vec::new(),
        identity: match configuration[ROW_IDENTITY].as_str() {
            None => RowIdentity::Key,
            Some("whole_row") => RowIdentity::WholeRow,
            Some("append_only") => RowIdentity::AppendOnly,
            Some(other) => return Err(format!("its {ROW_IDENTITY} is `{other}`, which this lakeward does not know")),
        },
    };
    let partition_by = metadata["partitionColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    for partition in partition_by.iter().filter_map(Value::as_str) {
        let index =
            schema.column_index(partition).ok_or_else(|| format!("partition column `{partition}` is missing"))?;
        schema.partition_by.push(index);
    }
    Ok(Shape {
        hidden: (0..schema.columns.len()).map(|index| hidden_places.contains(&index)).collect(),
        lake: Arc::new(schema),
        origins,
        ignored: property::<BTreeSet<String>>(configuration, IGNORED)?,
        held: property(configuration, HELD)?,
    })
}

/// A table property in JSON; its absence is the empty value.
fn property<T: Default + serde::de::DeserializeOwned>(configuration: &Value, name: &str) -> Result<T, String> {
    match configuration[name].as_str() {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|error| format!("its {name} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ChangeRecord, ElementType, HeldAction, HeldChange};
    use uuid::Uuid;

    fn column(name: &str, source_type: &str, lake_type: LakeType, nullable: bool) -> Column {
        Column { name: name.into(), source_type: source_type.into(), lake_type, nullable, policy: Policy::default() }
    }

    fn schema() -> TableSchema {
        TableSchema {
            name: TableName::new("booking", "reservations"),
            columns: vec![
                column("state", "enum('held','paid')", LakeType::String, true),
                column("room \"no\"", "int unsigned", LakeType::Long, false),
                column("id", "bigint(20)", LakeType::Long, false),
                column("price", "decimal(12,2)", LakeType::Decimal { precision: 12, scale: 2 }, true),
                column("tags", "text[]", LakeType::Array(ElementType::String), true),
                column("place", "point", LakeType::Geometry, true),
            ],
            key: vec![2, 1],
            partition_by: vec![0],
            identity: RowIdentity::Key,
        }
    }

    fn there_and_back(shape: &Shape) -> Value {
        let mut metadata = json!({"id": "7", "configuration": {"a": "b", "lakeward.held": "[]"}});
        encode(shape, &mut metadata).expect("serializable");
        assert_eq!(decode(&shape.lake.name, &metadata).as_ref(), Ok(shape));
        assert_eq!((&metadata["id"], &metadata["configuration"]["a"]), (&json!("7"), &json!("b")));
        metadata
    }

    #[test]
    fn a_schema_survives_the_lake() {
        let metadata = there_and_back(&Shape::of(Arc::new(schema())));
        assert_eq!(metadata["configuration"], json!({"a": "b"}), "what is empty is absent");
        let loose = TableSchema { key: vec![], identity: RowIdentity::WholeRow, ..schema() };
        there_and_back(&Shape::of(Arc::new(loose)));
    }

    #[test]
    fn a_shape_survives_the_lake() {
        let mut shape = Shape::of(Arc::new(schema()));
        shape.origins[3] = Origin::Source("cost".into());
        shape.origins[5] = Origin::Dropped;
        // The first one and two in a row.
        let mut lake = schema();
        lake.partition_by = vec![3];
        shape.lake = Arc::new(lake);
        shape.hidden = vec![true, false, false, false, true, true];
        shape.ignored.insert("비고".into());
        let record = ChangeRecord {
            id: Uuid::from_u128(7),
            table: "booking.reservations".into(),
            place: "0-1-7".into(),
            at: Some(chrono::Utc::now()),
            statement: None,
            before: vec![],
            after: vec![],
            steps: vec![],
        };
        let actions = vec![HeldAction::Show { column: "tags".into() }];
        shape.held.push(HeldChange { id: record.id, actions, record });
        let metadata = there_and_back(&shape);
        let seen = metadata["schemaString"].as_str().expect("text");
        assert!(seen.contains("price") && !seen.contains("tags"), "{seen}");
    }

    #[test]
    fn a_foreign_table_is_told_apart() {
        let foreign = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{}}]}"#;
        let error = decode(&TableName::new("a", "b"), &json!({"schemaString": foreign})).expect_err("not ours");
        assert!(error.contains("not written by lakeward"), "{error}");
    }
}
