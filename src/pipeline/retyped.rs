//! Whether the lake holds a table with the types that its contract asks for now.

use crate::schema::{LakeType, TableSchema};

/// Why a table can't go on: a contract gave columns another lake type than they were loaded with. Where the source itself
/// declares the column differently now, the log tells from which row on, so that is not looked at here.
pub fn retyped(lake: &TableSchema, wanted: &TableSchema) -> Option<String> {
    let differing: Vec<String> = wanted
        .columns
        .iter()
        .filter_map(|column| {
            let held = lake.columns.iter().find(|held| held.name == column.name)?;
            // A list that is held as text was loaded before lists had a type of their own: it stays text.
            let older = held.lake_type == LakeType::String && matches!(column.lake_type, LakeType::Array(_));
            let differs = held.source_type == column.source_type && held.lake_type != column.lake_type && !older;
            differs.then(|| {
                format!("column `{}` is {} there and should be {}", column.name, held.lake_type, column.lake_type)
            })
        })
        .collect();
    if differing.is_empty() {
        return None;
    }
    Some(format!(
        "its contract asks for other types than the lake holds: {}; undo that in the contract, or remove the table's folder \
         in the lake and restart to load it again",
        differing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ElementType, Policy, RowIdentity, TableName};

    fn table(source_type: &str, lake_type: LakeType) -> TableSchema {
        let column = Column {
            name: "c".into(),
            source_type: source_type.into(),
            lake_type,
            nullable: true,
            policy: Policy::Null,
        };
        TableSchema {
            name: TableName::new("shop", "t"),
            columns: vec![column],
            key: vec![],
            partition_by: vec![],
            identity: RowIdentity::WholeRow,
        }
    }

    #[test]
    fn another_type_by_contract_is_told_and_another_declaration_is_not() {
        let double = table("double", LakeType::Double);
        assert_eq!(retyped(&double, &double), None);
        let told = retyped(&double, &table("double", LakeType::String)).expect("told");
        assert!(told.contains("`c` is double there and should be string") && told.contains("remove"), "{told}");
        assert_eq!(retyped(&double, &table("float", LakeType::Float)), None);
        let list = table("integer[]", LakeType::Array(ElementType::Integer));
        assert_eq!(retyped(&table("integer[]", LakeType::String), &list), None);
    }
}
