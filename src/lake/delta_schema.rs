//! A [`TableSchema`] as Delta's `schemaString` and back.
//!
//! The Delta schema is the one durable home of a table's schema: each field's metadata keeps the source's declaration
//! (`lakeward.sourceType`) and a key column's place in the merge key (`lakeward.key`, from 1), so a restart decodes with
//! exactly the schema the lake has. Format: Delta protocol, "Schema Serialization Format".

use serde_json::{Map, Value, json};

use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName, TableSchema};

/// The table property that says what tells rows apart where there is no key.
pub const ROW_IDENTITY: &str = "lakeward.rowIdentity";

const SOURCE_TYPE: &str = "lakeward.sourceType";
const KEY: &str = "lakeward.key";

/// The `schemaString` of a table's metadata.
pub fn encode(schema: &TableSchema) -> String {
    let fields: Vec<Value> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let mut metadata = Map::new();
            metadata.insert(SOURCE_TYPE.into(), json!(column.source_type));
            if let Some(place) = schema.key.iter().position(|&key| key == index) {
                metadata.insert(KEY.into(), json!(place + 1));
            }
            json!({
                "name": column.name,
                "type": type_json(column.lake_type),
                "nullable": column.nullable,
                "metadata": metadata,
            })
        })
        .collect();
    json!({"type": "struct", "fields": fields}).to_string()
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
pub fn row_identity(identity: RowIdentity) -> Option<&'static str> {
    match identity {
        RowIdentity::Key => None,
        RowIdentity::WholeRow => Some("whole_row"),
        RowIdentity::AppendOnly => Some("append_only"),
    }
}

/// Reads what [`encode`] wrote, with the table's partition columns and its [`ROW_IDENTITY`]. The error says what is not
/// ours.
pub fn decode(
    name: &TableName,
    schema_string: &str,
    partition_by: &[String],
    identity: Option<&str>,
) -> Result<TableSchema, String> {
    let schema: Value = serde_json::from_str(schema_string).map_err(|error| format!("schema is not JSON: {error}"))?;
    let fields = schema["fields"].as_array().ok_or("schema has no fields")?;
    let mut columns = Vec::with_capacity(fields.len());
    let mut key: Vec<(u64, usize)> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let column = field["name"].as_str().ok_or_else(|| format!("field {index} has no name"))?;
        let lake_type = type_of(&field["type"]).map_err(|error| format!("column `{column}`: {error}"))?;
        let source_type = field["metadata"][SOURCE_TYPE]
            .as_str()
            .ok_or_else(|| format!("column `{column}` was not written by lakeward (no `{SOURCE_TYPE}`)"))?;
        if let Some(place) = field["metadata"][KEY].as_u64() {
            key.push((place, index));
        }
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
        identity: match identity {
            None => RowIdentity::Key,
            Some("whole_row") => RowIdentity::WholeRow,
            Some("append_only") => RowIdentity::AppendOnly,
            Some(other) => return Err(format!("its {ROW_IDENTITY} is `{other}`, which this lakeward does not know")),
        },
    };
    for partition in partition_by {
        let index =
            schema.column_index(partition).ok_or_else(|| format!("partition column `{partition}` is missing"))?;
        schema.partition_by.push(index);
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ElementType;

    #[test]
    fn a_schema_survives_the_lake() {
        let column = |name: &str, source_type: &str, lake_type, nullable| Column {
            name: name.into(),
            source_type: source_type.into(),
            lake_type,
            nullable,
            policy: Policy::default(),
        };
        let schema = TableSchema {
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
        };
        let decoded = decode(&schema.name, &encode(&schema), &["state".to_owned()], None);
        assert_eq!(decoded, Ok(schema));
    }

    #[test]
    fn a_foreign_table_is_told_apart() {
        let foreign = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{}}]}"#;
        let error = decode(&TableName::new("a", "b"), foreign, &[], None).expect_err("no lakeward metadata");
        assert!(error.contains("not written by lakeward"), "{error}");
    }
}
