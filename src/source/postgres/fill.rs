//! What old rows hold in a column that is new.
//!
//! PostgreSQL adds a column with a constant default without touching a row: the catalog keeps the value that rows have
//! which are older than the column (`pg_attribute.attmissingval`; `StoreAttrMissingVal` in heap.c), whatever the default
//! becomes later. A default that differs from row to row rewrites the table, and so does VACUUM FULL, after which the
//! catalog's value is gone, as every row has its own: then the log does not tell what rows hold. Without either, they hold
//! NULL.

use std::collections::BTreeMap;

use super::array;
use super::attributes::{Attribute, Description};
use super::catalog::Missing;
use super::text::{self, Outcome};
use super::types;
use crate::schema::{Column, ColumnBuilder, Fill, Policy};

/// How it is known whether rows were rewritten.
#[derive(Clone, Copy, Debug)]
pub enum Rewrites<'a> {
    /// By comparing with the files that the table had before the column; `None` where they are not known.
    Files(Option<&'a BTreeMap<u32, u32>>),
    /// The statement told.
    Told {
        rewritten: bool,
        /// Its text may declare a default.
        defaults: bool,
    },
}

/// What old rows have in this column of the lake, by the catalog or the statement's message. The error is for a value that
/// has no form in the lake and must not be replaced.
pub fn fill(
    there: &Description,
    attribute: &Attribute,
    column: &Column,
    rewrites: Rewrites<'_>,
) -> Result<Fill, String> {
    let unknown = |why: &str| Ok(Fill::Unknown(why.to_owned()));
    let Some(now) = there.attributes.numbered(attribute.number) else {
        return unknown("the column is gone again, and with it what the catalog knew");
    };
    if !now.has_type_of(attribute) {
        return unknown("its type was changed again since");
    }
    let mut values: Vec<Option<&str>> = Vec::new();
    for Missing { oid, value } in there.missing.get(&attribute.number).into_iter().flatten() {
        let untouched = match rewrites {
            // A partition that was made since has told all its rows.
            Rewrites::Files(Some(files)) if *oid != 0 && !files.contains_key(oid) => continue,
            Rewrites::Files(Some(files)) => files.get(oid) == there.attributes.files.get(oid),
            Rewrites::Files(None) => false,
            Rewrites::Told { rewritten, .. } => !rewritten,
        };
        // A domain may have a default of its own.
        let plain = attribute.type_oid == attribute.found.base_oid && !there.has_default.contains(&attribute.number);
        let no_default = plain && matches!(rewrites, Rewrites::Told { defaults: false, .. });
        match value {
            Some(value) => values.push(Some(value)),
            None if untouched || no_default => values.push(None),
            None => {
                return unknown(
                    "the table was rewritten, or may have been, and each row may have a value of its own (a default that \
                     is computed, or VACUUM FULL after the column was added)",
                );
            }
        }
    }
    values.dedup();
    match values.as_slice() {
        [] | [None] => Ok(Fill::Null),
        [Some(value)] => decoded(value, attribute, column),
        _ => unknown("rows of different partitions have different values"),
    }
}

/// The one element of the catalog's array, as the lake holds it.
fn decoded(value: &str, attribute: &Attribute, column: &Column) -> Result<Fill, String> {
    let unreadable = || format!("what old rows have in new column `{}` can't be read: `{value}`", column.name);
    let decode = types::decode_for(&attribute.found, column.lake_type).ok_or_else(unreadable)?;
    let delimiter = u8::try_from(attribute.found.delimiter).unwrap_or(b',');
    let mut builder = ColumnBuilder::new(column.lake_type);
    let mut refused = None;
    array::for_each(value.as_bytes(), delimiter, |element| {
        match element {
            None => builder.append_null(),
            Some(element) => {
                if let Outcome::Unfaithful(reason) = text::append(&decode, element, &mut builder)? {
                    refused = Some(reason);
                }
            }
        }
        Ok(())
    })
    .map_err(|_| unreadable())?;
    if let (Some(reason), Policy::Fail) = (refused, column.policy) {
        return Err(format!(
            "old rows have `{value}` in new column `{}` ({}), which has no form in the lake's type {}: {reason}; the \
             contract's policy for it is \"fail\"",
            column.name, column.source_type, column.lake_type
        ));
    }
    let array = builder.finish();
    if array.len() != 1 {
        return Err(unreadable());
    }
    Ok(if array.is_null(0) { Fill::Null } else { Fill::Value(array) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::LakeType;
    use crate::schema::TableName;
    use crate::source::postgres::attributes::Attributes;
    use crate::source::postgres::types::{ResolvedType, oid};

    fn attribute(type_oid: u32, delimiter: char) -> Attribute {
        let found = ResolvedType {
            name: "t".into(),
            base_oid: type_oid,
            base_typmod: -1,
            delimiter,
            ..ResolvedType::default()
        };
        let name = "new".to_owned();
        Attribute { number: 3, name, type_oid, typmod: -1, found, generated: false, sent: true, left_out: false }
    }

    fn filled(
        attribute: &Attribute,
        lake_type: LakeType,
        missing: &[(u32, Option<&str>)],
        default: bool,
        rewrites: Rewrites<'_>,
    ) -> String {
        let there = Description {
            name: TableName::new("shop", "t"),
            attributes: Attributes {
                files: [(1, 10), (2, 20), (9, 90)].into(),
                columns: vec![attribute.clone()],
                ..Attributes::default()
            },
            missing: [(
                3,
                missing.iter().map(|(oid, value)| Missing { oid: *oid, value: value.map(str::to_owned) }).collect(),
            )]
            .into(),
            has_default: default.then_some(3).into_iter().collect(),
            listed: false,
            published: true,
            partitioned: false,
            leaves: Vec::new(),
        };
        let column =
            Column { name: "new".into(), source_type: "t".into(), lake_type, nullable: true, policy: Policy::Null };
        match fill(&there, attribute, &column, rewrites).expect("readable") {
            Fill::Null => "null".into(),
            Fill::Value(value) => arrow::util::display::array_value_to_string(&value, 0).expect("displayable"),
            Fill::Unknown(_) => "unknown".into(),
        }
    }

    /// D-2
    #[test]
    fn old_rows_have_what_the_catalog_keeps_for_them_or_null_or_nobody_knows() {
        let integer = attribute(oid::INT4, ',');
        let known: BTreeMap<u32, u32> = [(1, 10), (2, 20)].into();
        let rewritten: BTreeMap<u32, u32> = [(1, 11), (2, 20)].into();
        let is = |missing: &[(u32, Option<&str>)], files: Option<&BTreeMap<u32, u32>>| {
            filled(&integer, LakeType::Integer, missing, true, Rewrites::Files(files))
        };
        assert_eq!(is(&[(1, Some("{5}"))], Some(&known)), "5");
        assert_eq!(is(&[(1, Some("{5}"))], None), "5");
        assert_eq!(is(&[(1, None)], Some(&known)), "null");
        assert_eq!(is(&[(1, None)], Some(&rewritten)), "unknown");
        assert_eq!(is(&[(1, None)], None), "unknown");
        // Partition 9 was made since.
        assert_eq!(is(&[(1, Some("{5}")), (2, Some("{5}")), (9, None)], Some(&known)), "5");
        assert_eq!(is(&[(1, Some("{5}")), (2, None)], Some(&known)), "unknown");
        assert_eq!(is(&[], Some(&known)), "null");

        let told = |missing, default, rewritten, defaults| {
            let rewrites = Rewrites::Told { rewritten, defaults };
            filled(&integer, LakeType::Integer, &[(0, missing)], default, rewrites)
        };
        assert_eq!(told(Some("{5}"), true, false, true), "5");
        assert_eq!(told(None, true, false, true), "null");
        assert_eq!(told(None, true, true, true), "unknown");
        assert_eq!(told(None, false, true, false), "null");
        assert_eq!(told(None, false, true, true), "unknown");
    }

    #[test]
    fn the_catalogs_value_is_read_like_any_other() {
        let is = |type_oid, delimiter, lake_type, text| {
            filled(&attribute(type_oid, delimiter), lake_type, &[(0, Some(text))], true, Rewrites::Files(None))
        };
        assert_eq!(is(oid::TEXT, ',', LakeType::String, r#"{"a, \"b\" {c}"}"#), "a, \"b\" {c}");
        assert_eq!(is(603, ';', LakeType::String, "{(1,1),(0,0)}"), "(1,1),(0,0)");
        assert_eq!(is(oid::DATE, ',', LakeType::Date, "{2024-02-29}"), "2024-02-29");
        assert_eq!(is(oid::DATE, ',', LakeType::Date, "{infinity}"), "null");
    }
}
