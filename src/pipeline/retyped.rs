//! Whether the lake holds a table with the types that its contract asks for now.

use crate::schema::{LakeType, TableSchema};

/// Why a table can't go on under its contract of today: a column has another type in the lake than the contract asks for.
/// (Where the source's declaration changed as well, the log tells from which row on.)
pub fn retyped(in_lake: &TableSchema, wanted: &TableSchema) -> Option<String> {
    wanted.columns.iter().find_map(|column| {
        let held = in_lake.columns.iter().find(|held| held.name == column.name)?;
        // A list that is held as text was loaded before lists had a type of their own: it stays text.
        let older = held.lake_type == LakeType::String && matches!(column.lake_type, LakeType::Array(_));
        let differs = held.source_type == column.source_type && held.lake_type != column.lake_type && !older;
        differs.then(|| {
            format!(
                "column `{}` is {} in the lake, and its contract makes it {}; set `types`, `tinyint1` and the value policy \
                 back, or load it again with `lakeward resync`",
                column.name, held.lake_type, column.lake_type
            )
        })
    })
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
        assert!(told.contains("`c` is double in the lake, and its contract makes it string"), "{told}");
        assert_eq!(retyped(&double, &table("float", LakeType::Float)), None);
        let list = table("integer[]", LakeType::Array(ElementType::Integer));
        assert_eq!(retyped(&table("integer[]", LakeType::String), &list), None);
    }
}
