//! The key of a table as bounds of chunks: how its values are asked for, written down, and compared.
//!
//! What is written down says the value exactly, whatever the type: numbers in digits (FLOAT as the double that it is, so
//! that it equals itself), texts and bytes in hex of the column's own character set, labels by their number, for that
//! is how ENUM and SET are ordered. The server compares, by the column's own collation: a literal with the column's
//! character set takes it on (MySQL manual 12.8.4 "Collation Coercibility in Expressions").

use mysql_async::Value;

use crate::schema::TableName;
use crate::source::chunk::{self, Beside, BoundPart, Operators};
use crate::source::{Error, KeyBound};

use super::catalog::CatalogTable;
use super::connection::quoted;
use super::declared::{Declared, Family};

/// See the module text.
pub struct Key {
    table: TableName,
    columns: Vec<KeyColumn>,
}

struct KeyColumn {
    name: String,
    family: Family,
    charset: String,
    order: String,
    nullable: bool,
}

impl Key {
    /// Of columns of `table`. `None` where one of them is missing or of a type without an order that bounds could follow.
    pub fn new<'a>(table: &CatalogTable, columns: impl Iterator<Item = &'a str>) -> Option<Self> {
        let column = |name: &'a str| {
            let column = table.schema.columns.iter().find(|column| column.name == name)?;
            let family = Declared::parse(&column.source_type).family();
            let charset = table.charsets.get(name).cloned().unwrap_or_default();
            let order = match family {
                // Its order is that of the labels.
                Family::Enum | Family::Set => column.source_type.clone(),
                Family::Text => format!("text {}", table.collations.get(name)?),
                Family::Json | Family::Geometry | Family::Vector | Family::Other => return None,
                other => format!("{other:?}").to_ascii_lowercase(),
            };
            let known = family != Family::Text || is_word(&charset);
            let nullable = table.nullable.contains(name);
            known.then(|| KeyColumn { name: name.to_owned(), family, charset, order, nullable })
        };
        let columns: Vec<KeyColumn> = columns.map(column).collect::<Option<_>>()?;
        (!columns.is_empty()).then(|| Self { table: table.schema.name.clone(), columns })
    }

    /// What asks for a bound: a SELECT list whose values [`Key::bound`] takes.
    pub fn select_list(&self) -> String {
        let list: Vec<String> = self.columns.iter().map(KeyColumn::asked).collect();
        list.join(", ")
    }

    pub fn order_by(&self) -> String {
        let list: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        list.join(", ")
    }

    pub fn bound(&self, row: Vec<Value>) -> Result<KeyBound, Error> {
        let mut parts = Vec::with_capacity(self.columns.len());
        for (column, value) in self.columns.iter().zip(row) {
            let unreadable = || Error::Query {
                statement: format!("looking for the next chunk of table {}", self.table),
                cause: format!("column `{}` came in a form that is no bound", column.name),
            };
            let value = text(value).filter(|value| column.literal(value).is_some()).ok_or_else(unreadable)?;
            parts.push(BoundPart { column: column.name.clone(), order: column.order.clone(), value });
        }
        Ok(KeyBound::new(&parts))
    }

    fn beside(&self, bound: &KeyBound) -> Result<Vec<Beside>, Error> {
        let columns: Vec<(&str, &str)> =
            self.columns.iter().map(|column| (column.name.as_str(), column.order.as_str())).collect();
        let parts = chunk::parts_of(&self.table, bound, &columns)?;
        let beside = |(column, part): (&KeyColumn, BoundPart)| {
            let value = column.literal(&part.value)?;
            Some(Beside { column: quoted(&column.name), value, operators: Operators::plain() })
        };
        let besides: Option<Vec<Beside>> = self.columns.iter().zip(parts).map(beside).collect();
        besides.ok_or_else(|| Error::BoundsVoid { table: self.table.to_string() })
    }

    /// What rows after `bound` have in common; of those that have a whole key.
    pub fn after(&self, bound: Option<&KeyBound>) -> Result<Option<String>, Error> {
        let mut conditions: Vec<String> = self.nullable().map(|name| format!("{name} IS NOT NULL")).collect();
        if let Some(bound) = bound {
            conditions.insert(0, format!("({})", chunk::after(&self.beside(bound)?)));
        }
        Ok((!conditions.is_empty()).then(|| conditions.join(" AND ")))
    }

    /// What the rows of a chunk have in common; `None`: they are all.
    pub fn between(&self, after: Option<&KeyBound>, to: Option<&KeyBound>) -> Result<Option<String>, Error> {
        let to = to.map(|to| self.beside(to)).transpose()?;
        let to = to.map(|to| format!("({})", chunk::not_after(&to)));
        let Some(after) = after else {
            // Not IS NULL: that is true for a zero date in a column that is NOT NULL.
            let nulls: Vec<String> = self.nullable().map(|name| format!(" OR {name} <=> NULL")).collect();
            return Ok(to.map(|to| format!("({to}{})", nulls.concat())));
        };
        let mut conditions: Vec<String> = self.after(Some(after))?.into_iter().collect();
        conditions.extend(to);
        Ok(Some(conditions.join(" AND ")))
    }

    fn nullable(&self) -> impl Iterator<Item = String> {
        self.columns.iter().filter(|column| column.nullable).map(|column| quoted(&column.name))
    }
}

impl KeyColumn {
    fn asked(&self) -> String {
        let name = quoted(&self.name);
        match self.family {
            Family::Bit | Family::Enum | Family::Set | Family::Year => format!("CAST({name} AS UNSIGNED)"),
            Family::Text | Family::Binary => format!("HEX({name})"),
            Family::Integer | Family::Float | Family::Double => name,
            _ => format!("CAST({name} AS CHAR)"),
        }
    }

    /// `None` for what is no value of this column.
    fn literal(&self, value: &str) -> Option<String> {
        let made_of = |allowed: &str| !value.is_empty() && value.chars().all(|c| allowed.contains(c));
        let hex = || value.chars().all(|c| c.is_ascii_hexdigit());
        match self.family {
            Family::Integer => made_of("-0123456789").then(|| value.to_owned()),
            Family::Bit | Family::Enum | Family::Set => made_of("0123456789").then(|| value.to_owned()),
            Family::Decimal => made_of("-.0123456789").then(|| value.to_owned()),
            Family::Float | Family::Double => made_of("-.e0123456789").then(|| value.to_owned()),
            // Four digits: two would mean another century.
            Family::Year => made_of("0123456789").then(|| format!("'{value:0>4}'")),
            Family::Date | Family::Datetime | Family::Timestamp | Family::Time => {
                made_of("-:. 0123456789").then(|| format!("'{value}'"))
            }
            Family::Uuid | Family::Inet4 | Family::Inet6 => {
                made_of("-:.0123456789abcdefABCDEF").then(|| format!("'{value}'"))
            }
            Family::Text => hex().then(|| format!("_{} X'{value}'", self.charset)),
            Family::Binary => hex().then(|| format!("X'{value}'")),
            Family::Json | Family::Geometry | Family::Vector | Family::Other => None,
        }
    }
}

/// A name that can stand in SQL as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        // The shortest digits that mean this very number, with an exponent: a literal without one is a DECIMAL.
        Value::Float(number) => Some(format!("{:e}", f64::from(number))),
        Value::Double(number) => Some(format!("{number:e}")),
        Value::Bytes(bytes) => String::from_utf8(bytes).ok(),
        Value::NULL | Value::Date(..) | Value::Time(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, LakeType, Policy, RowIdentity, TableSchema};

    fn table(columns: &[(&str, &str)], nullable: &[&str]) -> CatalogTable {
        let column = |(name, source_type): &(&str, &str)| Column {
            name: (*name).to_owned(),
            source_type: (*source_type).to_owned(),
            lake_type: LakeType::String,
            nullable: true,
            policy: Policy::default(),
        };
        let named = |value: &str| columns.iter().map(|(name, _)| ((*name).to_owned(), value.to_owned())).collect();
        CatalogTable {
            schema: TableSchema {
                name: TableName::new("shop", "goods"),
                columns: columns.iter().map(column).collect(),
                key: Vec::new(),
                partition_by: Vec::new(),
                identity: RowIdentity::Key,
            },
            engine: "InnoDB".into(),
            rows_estimate: None,
            charsets: named("latin1"),
            collations: named("latin1_swedish_ci"),
            nullable: nullable.iter().map(|name| (*name).to_owned()).collect(),
            refusal: None,
        }
    }

    #[test]
    fn values_are_written_so_that_they_equal_themselves() {
        let columns = [("a", "float"), ("b", "varchar(9)"), ("c", "enum('x','y')"), ("d", "bigint unsigned")];
        let key = Key::new(&table(&columns, &[]), columns.iter().map(|(name, _)| *name)).expect("a key");
        assert_eq!(key.select_list(), "`a`, HEX(`b`), CAST(`c` AS UNSIGNED), `d`");
        let row = vec![
            Value::Float(0.1),
            Value::Bytes(b"E927".to_vec()),
            Value::UInt(2),
            Value::UInt(18_446_744_073_709_551_615),
        ];
        let bound = key.bound(row).expect("a bound");
        let condition = key.between(None, Some(&bound)).expect("its own").expect("a condition");
        assert!(condition.starts_with("((`a` <= 1.0000000149011612e-1 AND ("), "{condition}");
        assert!(condition.contains("`b` = _latin1 X'E927'"), "{condition}");
        assert!(condition.ends_with("`c` = 2 AND (`d` <= 18446744073709551615)))))))"), "{condition}");
    }

    #[test]
    fn rows_with_a_null_in_their_key_are_in_the_first_chunk_alone() {
        let key = Key::new(&table(&[("a", "int")], &["a"]), std::iter::once("a")).expect("a key");
        let bound = key.bound(vec![Value::Int(-5)]).expect("a bound");
        let between = |after, to| key.between(after, to).expect("its own");
        assert_eq!(between(None, None), None);
        assert_eq!(between(None, Some(&bound)).as_deref(), Some("((`a` <= -5) OR `a` <=> NULL)"));
        assert_eq!(between(Some(&bound), None).as_deref(), Some("(`a` > -5) AND `a` IS NOT NULL"));
    }

    /// They come back from the lake.
    #[test]
    fn a_bound_cannot_bring_sql_along() {
        for (kind, order) in
            [("int", "integer"), ("varchar(9)", "text latin1_swedish_ci"), ("datetime", "datetime"), ("uuid", "uuid")]
        {
            let key = Key::new(&table(&[("a", kind)], &[]), std::iter::once("a")).expect("a key");
            for value in ["1 OR 1", "'", "1'--", ""] {
                let part = BoundPart { column: "a".into(), order: order.into(), value: value.into() };
                let after = key.after(Some(&KeyBound::new(&[part])));
                let empty_text = value.is_empty() && kind.starts_with("varchar");
                assert!(empty_text || matches!(after, Err(Error::BoundsVoid { .. })), "{kind} {value}: {after:?}");
            }
        }
        assert!(Key::new(&table(&[("a", "json")], &[]), std::iter::once("a")).is_none());
    }
}
