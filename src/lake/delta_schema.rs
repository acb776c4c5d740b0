//! A [`TableSchema`] as Delta's `schemaString` and back.
//!
//! The Delta schema is the one durable home of a table's schema: each field's metadata keeps the source's declaration
//! (`lakeward.sourceType`) and a key column's place in the merge key (`lakeward.key`, from 1), so a restart decodes with
//! exactly the schema the lake has. Format: Delta protocol, "Schema Serialization Format".

use serde_json::{Map, Value, json};

use crate::schema::{Column, LakeType, TableName, TableSchema};

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
                "type": column.lake_type.to_string(),
                "nullable": column.nullable,
                "metadata": metadata,
            })
        })
        .collect();
    json!({"type": "struct", "fields": fields}).to_string()
}

/// Reads what [`encode`] wrote. The error says what is not ours.
pub fn decode(name: &TableName, schema_string: &str, partition_by: &[String]) -> Result<TableSchema, String> {
    let schema: Value = serde_json::from_str(schema_string).map_err(|error| format!("schema is not JSON: {error}"))?;
    let fields = schema["fields"].as_array().ok_or("schema has no fields")?;
    let mut columns = Vec::with_capacity(fields.len());
    let mut key: Vec<(u64, usize)> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let column = field["name"].as_str().ok_or_else(|| format!("field {index} has no name"))?;
        let type_text = field["type"].as_str().ok_or_else(|| format!("column `{column}` has a nested type"))?;
        let lake_type: LakeType = type_text.parse().map_err(|error| format!("column `{column}`: {error}"))?;
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
        });
    }
    key.sort_unstable();
    let mut schema = TableSchema {
        name: name.clone(),
        columns,
        key: key.into_iter().map(|(_, index)| index).collect(),
        partition_by: Vec::new(),
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

    #[test]
    fn a_schema_survives_the_lake() {
        let column = |name: &str, source_type: &str, lake_type, nullable| Column {
            name: name.into(),
            source_type: source_type.into(),
            lake_type,
            nullable,
        };
        let schema = TableSchema {
            name: TableName::new("booking", "reservations"),
            columns: vec![
                column("state", "enum('held','paid')", LakeType::String, true),
                column("room \"no\"", "int unsigned", LakeType::Long, false),
                column("id", "bigint(20)", LakeType::Long, false),
                column("price", "decimal(12,2)", LakeType::Decimal { precision: 12, scale: 2 }, true),
            ],
            key: vec![2, 1],
            partition_by: vec![0],
        };
        let decoded = decode(&schema.name, &encode(&schema), &["state".to_owned()]);
        assert_eq!(decoded, Ok(schema));
    }

    #[test]
    fn a_foreign_table_is_told_apart() {
        let foreign = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{}}]}"#;
        let error = decode(&TableName::new("a", "b"), foreign, &[]).expect_err("no lakeward metadata");
        assert!(error.contains("not written by lakeward"), "{error}");
    }
}
