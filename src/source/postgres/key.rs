//! The key of a table as bounds of chunks: how its values are asked for, written down, and compared.
//!
//! A value is written down as its text, which the type's input function takes back as the same value, for the session pins
//! what texts depend on (P-0). It is compared by the operators of the index that the key has, and by that index's collation:
//! both by their full names, for the session's `search_path` is pinned, and citext's `>` is in the extension's schema. An
//! expression like `(a, b) > (1, 2)` is what the planner makes one range of an index from (manual 9.25.5 "Row
//! Constructor Comparison").

use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::catalog::{CatalogTable, parse};
use super::connection::{query_error, quote_identifier, quote_literal};
use crate::schema::{TableName, TableSchema};
use crate::source::chunk::{self, Beside, BoundPart, Operators};
use crate::source::{Error, KeyBound};

/// See the module text.
pub struct Key {
    table: TableName,
    columns: Vec<KeyColumn>,
}

struct KeyColumn {
    name: String,
    order: ColumnOrder,
}

#[derive(Debug, Deserialize)]
struct ColumnOrder {
    /// To make a value of a text; without a modifier.
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
    collation: Option<String>,
    /// `<`, `<=`, `=`, `>=`, `>`, with their schemas; none where the type has no order.
    operators: Option<[String; 5]>,
}

/// How the columns with these numbers and base types are ordered: by the index that identifies rows, or else by what their
/// type is ordered by (as `GetDefaultOpClass` in indexcmds.c finds it).
const ORDERS: &str = "
    SELECT json_build_object(
        'type', format_type(w.base::oid, -1),
        'nullable', NOT a.attnotnull,
        'collation', (
            SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname)
            FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
            WHERE c.oid = coalesce(i.collation, a.attcollation)),
        'operators', (
            SELECT json_agg('OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')' ORDER BY o.amopstrategy)
            FROM pg_opclass f JOIN pg_amop o ON o.amopfamily = f.opcfamily AND o.amoppurpose = 's'
                AND o.amoplefttype = f.opcintype AND o.amoprighttype = f.opcintype
            JOIN pg_operator p ON p.oid = o.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace
            WHERE f.oid = coalesce(i.operators, (
                SELECT d.oid FROM pg_opclass d JOIN pg_am m ON m.oid = d.opcmethod
                WHERE m.amname = 'btree' AND d.opcdefault AND d.opcintype = CASE
                    WHEN t.typtype = 'e' THEN 'anyenum'::regtype
                    WHEN t.typtype = 'r' THEN 'anyrange'::regtype
                    WHEN t.typtype = 'm' THEN 'anymultirange'::regtype
                    WHEN t.typtype = 'c' THEN 'record'::regtype
                    WHEN t.typoutput = 'array_out'::regproc THEN 'anyarray'::regtype
                    WHEN t.oid = 'varchar'::regtype THEN 'text'::regtype
                    WHEN t.oid = 'cidr'::regtype THEN 'inet'::regtype
                    ELSE t.oid END)))
    )::text
    FROM unnest($2::int2[], $3::int8[]) WITH ORDINALITY AS w(number, base, place)
    JOIN pg_attribute a ON a.attrelid = $1::int8::oid AND a.attnum = w.number
    JOIN pg_type t ON t.oid = w.base::oid
    LEFT JOIN LATERAL (
        SELECT x.indclass[k.place - 1] AS operators, nullif(x.indcollation[k.place - 1], 0) AS collation
        FROM pg_index x JOIN pg_class r ON r.oid = x.indrelid JOIN pg_class xc ON xc.oid = x.indexrelid
        JOIN pg_am m ON m.oid = xc.relam
        CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k(number, place)
        WHERE x.indrelid = $1::int8::oid AND k.number = w.number AND x.indisvalid AND m.amname = 'btree'
            AND k.place <= x.indnkeyatts
            AND CASE r.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END
        LIMIT 1) i ON true
    ORDER BY w.place";

impl Key {
    /// Of the key's columns in `schema`. `None` where there is no key, a column of it is missing, or has a type without an
    /// order.
    pub async fn new(
        connection: &mut PgConnection,
        table: &CatalogTable,
        schema: &TableSchema,
    ) -> Result<Option<Self>, Error> {
        let names: Vec<&str> = schema.key.iter().map(|&index| schema.columns[index].name.as_str()).collect();
        let found = names.iter().map(|name| table.columns.iter().find(|column| column.name == **name));
        let Some(found) = found.collect::<Option<Vec<_>>>().filter(|found| !found.is_empty()) else {
            return Ok(None);
        };
        let numbers: Vec<i16> = found.iter().map(|column| column.number).collect();
        let bases: Vec<i64> = found.iter().map(|column| i64::from(column.found.base_oid)).collect();
        let rows: Vec<String> = sqlx::query_scalar(ORDERS)
            .bind(i64::from(table.oid))
            .bind(numbers)
            .bind(bases)
            .fetch_all(connection)
            .await
            .map_err(|error| query_error("reading how the key is ordered", &error))?;
        let mut columns = Vec::with_capacity(found.len());
        for (column, row) in found.iter().zip(&rows) {
            let order: ColumnOrder = parse("how the key is ordered", row)?;
            if order.operators.is_none() {
                return Ok(None);
            }
            columns.push(KeyColumn { name: column.name.clone(), order });
        }
        Ok((columns.len() == names.len()).then(|| Self { table: table.name(), columns }))
    }

    /// What asks for a bound: a SELECT list of texts that [`Key::bound`] takes.
    pub fn select_list(&self) -> String {
        let list: Vec<String> =
            self.columns.iter().map(|column| format!("{}::text", quote_identifier(&column.name))).collect();
        list.join(", ")
    }

    /// By the table's columns: a bare name would mean the text of the same name in the SELECT list.
    pub fn order_by(&self) -> String {
        let (schema, table) = (quote_identifier(&self.table.schema), quote_identifier(&self.table.table));
        let column =
            |column: &KeyColumn| format!("{schema}.{table}.{} USING {}", column.collated(), column.operators().less);
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    pub fn bound(&self, row: Vec<String>) -> KeyBound {
        let part = |(column, value): (&KeyColumn, String)| BoundPart {
            column: column.name.clone(),
            order: column.written(),
            value,
        };
        KeyBound::new(&self.columns.iter().zip(row).map(part).collect::<Vec<_>>())
    }

    fn beside(&self, bound: &KeyBound) -> Result<Vec<Beside>, Error> {
        let written: Vec<String> = self.columns.iter().map(KeyColumn::written).collect();
        let columns: Vec<(&str, &str)> =
            self.columns.iter().zip(&written).map(|(column, order)| (column.name.as_str(), order.as_str())).collect();
        let parts = chunk::parts_of(&self.table, bound, &columns)?;
        let beside = |(column, part): (&KeyColumn, BoundPart)| Beside {
            column: column.collated(),
            value: format!("{}::{}", quote_literal(&part.value), column.order.kind),
            operators: column.operators(),
        };
        Ok(self.columns.iter().zip(parts).map(beside).collect())
    }

    /// What rows after `bound` have in common; of those that have a whole key.
    pub fn after(&self, bound: Option<&KeyBound>) -> Result<Option<String>, Error> {
        let mut conditions: Vec<String> = self.nullable().map(|name| format!("{name} IS NOT NULL")).collect();
        if let Some(bound) = bound {
            let beside = self.beside(bound)?;
            conditions
                .insert(0, as_rows(&beside, |operators| &operators.greater).unwrap_or_else(|| chunk::after(&beside)));
        }
        Ok(all(conditions))
    }

    /// What the rows of a chunk have in common; `None`: they are all.
    pub fn between(&self, after: Option<&KeyBound>, to: Option<&KeyBound>) -> Result<Option<String>, Error> {
        let to = to.map(|to| self.beside(to)).transpose()?;
        let to = to.map(|to| as_rows(&to, |operators| &operators.at_most).unwrap_or_else(|| chunk::not_after(&to)));
        let Some(after) = after else {
            let nulls: Vec<String> = self.nullable().map(|name| format!(" OR {name} IS NULL")).collect();
            return Ok(to.map(|to| if nulls.is_empty() { to } else { format!("({to}){}", nulls.concat()) }));
        };
        let mut conditions: Vec<String> = self.after(Some(after))?.into_iter().collect();
        conditions.extend(to);
        Ok(all(conditions))
    }

    fn nullable(&self) -> impl Iterator<Item = String> {
        self.columns.iter().filter(|column| column.order.nullable).map(|column| quote_identifier(&column.name))
    }
}

/// `ROW(a, b) > ROW(1, 2)`, where all columns are ordered by operators of the same names.
fn as_rows(key: &[Beside], operator: impl Fn(&Operators) -> &String) -> Option<String> {
    let first = &key.first()?.operators;
    if key.iter().any(|beside| beside.operators != *first) {
        return None;
    }
    let columns: Vec<&str> = key.iter().map(|beside| beside.column.as_str()).collect();
    let values: Vec<&str> = key.iter().map(|beside| beside.value.as_str()).collect();
    Some(format!("ROW({}) {} ROW({})", columns.join(", "), operator(first), values.join(", ")))
}

/// All of the conditions at once, each in its parentheses.
pub fn all(conditions: Vec<String>) -> Option<String> {
    let conditions: Vec<String> = conditions.iter().map(|condition| format!("({condition})")).collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}

impl KeyColumn {
    fn collated(&self) -> String {
        let name = quote_identifier(&self.name);
        match &self.order.collation {
            Some(collation) => format!("{name} COLLATE {collation}"),
            None => name,
        }
    }

    fn operators(&self) -> Operators {
        match self.order.operators.clone() {
            Some([less, at_most, equal, at_least, greater]) => Operators { less, at_most, equal, at_least, greater },
            None => Operators::plain(),
        }
    }

    /// By what values are ordered: type, operators and collation.
    fn written(&self) -> String {
        let collation = self.order.collation.as_deref().unwrap_or("-");
        format!("{} {} {collation}", self.order.kind, self.operators().less)
    }
}
