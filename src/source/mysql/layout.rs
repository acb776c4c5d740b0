//! Layouts: what the catalog says of a table's columns, and what they mean for the rows in the log.
//!
//! A table map says as much as the server's `binlog_row_metadata` lets it: with FULL names, signs, character sets and labels,
//! with MINIMAL signs and some character sets, with NO_LOG (and before MySQL 8.0) nothing. [`complete`] adds the rest from the
//! layout in force at that position, after it has compared everything that both tell: the number of columns, their types,
//! lengths, digits, signs, character sets, names. Any difference is a [`Fault`], so that values are never read as
//! another column's (D-17).

use std::collections::HashMap;

use crate::schema::{ColumnDefault, Layout, LayoutColumn, PRIMARY, Period, TableName, UniqueKey};
use crate::source::Error;

use super::charset::{Collations, character_bytes_max, same_charset};
use super::connection::{Session, literal};
use super::declared::{Declared, Family};
use super::flavor::Vendor;
use super::image::{Filler, Images};
use super::table_map::{MapColumn, TableMap, kind};
use super::wire::Fault;

/// Reads the layouts of these tables as the catalog has them now; one that is not there is left out.
pub async fn read(session: &mut Session, tables: &[TableName]) -> Result<HashMap<TableName, Layout>, Error> {
    if tables.is_empty() {
        return Ok(HashMap::new());
    }
    let mut schemas: Vec<String> = tables.iter().map(|name| literal(&name.schema)).collect();
    schemas.sort_unstable();
    schemas.dedup();
    let schemas = schemas.join(", ");
    let mariadb = session.flavor.is_mariadb();
    let mut layouts: HashMap<TableName, Layout> = HashMap::new();
    // Their hash indexes are no columns of the log.
    let mut in_memory = Vec::new();

    let answer = session
        .query(&format!(
            "SELECT T.TABLE_SCHEMA, T.TABLE_NAME, T.TABLE_TYPE, T.ENGINE, T.TABLE_COLLATION, C.CHARACTER_SET_NAME \
             FROM information_schema.TABLES T LEFT JOIN information_schema.COLLATION_CHARACTER_SET_APPLICABILITY C \
             ON C.{} = T.TABLE_COLLATION WHERE T.TABLE_SCHEMA IN ({schemas})",
            // The ids of MariaDB's newest collations have their full names in another column.
            if mariadb && session.flavor.version >= (10, 10, 1) { "FULL_COLLATION_NAME" } else { "COLLATION_NAME" },
        ))
        .await?;
    for row in answer.rows {
        let [Some(schema), Some(table), Some(kind), engine, collation, charset] = take(row) else { continue };
        let name = TableName::new(schema, table);
        if !tables.contains(&name) {
            continue;
        }
        if engine.is_some_and(|engine| engine.eq_ignore_ascii_case("MEMORY")) {
            in_memory.push(name.clone());
        }
        let period = if kind == "SYSTEM VERSIONED" { Period::Implicit } else { Period::None };
        let (charset, collation) = (charset.unwrap_or_default(), collation.unwrap_or_default());
        layouts.insert(name, Layout { charset, collation, period, ..Layout::default() });
    }

    let answer = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, \
             IS_NULLABLE, COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({schemas}) \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ))
        .await?;
    for row in answer.rows {
        let [
            Some(schema),
            Some(table),
            Some(name),
            Some(declaration),
            charset,
            collation,
            nullable,
            default,
            extra,
            expression,
        ] = take(row)
        else {
            continue;
        };
        let Some(layout) = layouts.get_mut(&TableName::new(schema, table)) else { continue };
        let extra = extra.unwrap_or_default().to_ascii_uppercase();
        let expression = expression.unwrap_or_default();
        if expression == "ROW END" {
            layout.period = Period::Column(name.clone());
        }
        let declared = Declared::parse(&declaration);
        let default = match default {
            None => ColumnDefault::None,
            Some(text) if mariadb => mariadb_default(&text),
            // The catalog shows bytes up to the first zero only.
            Some(_) if extra.contains("DEFAULT_GENERATED") || declared.family() == Family::Binary => {
                ColumnDefault::Computed
            }
            Some(text) => ColumnDefault::Constant(text),
        };
        layout.columns.push(LayoutColumn {
            name,
            charset,
            collation,
            nullable: nullable.as_deref() == Some("YES"),
            default,
            generated: (extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED")) || !expression.is_empty(),
            invisible: extra.contains("INVISIBLE"),
            auto_increment: extra.contains("AUTO_INCREMENT"),
            declaration,
        });
    }

    let answer = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE \
             FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA IN ({schemas}) \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
        ))
        .await?;
    for row in answer.rows {
        let [Some(schema), Some(table), Some(name), column, sub_part, index_type] = take(row) else { continue };
        let name_of_table = TableName::new(schema, table);
        let Some(layout) = layouts.get_mut(&name_of_table) else { continue };
        if layout.uniques.last().is_none_or(|unique| unique.name != name) {
            let hashed = mariadb && index_type.as_deref() == Some("HASH") && !in_memory.contains(&name_of_table);
            layout.uniques.push(UniqueKey { name, columns: Vec::new(), partial: false, hashed });
        }
        if let Some(unique) = layout.uniques.last_mut() {
            unique.partial |= column.is_none() || (sub_part.is_some() && unique.name != PRIMARY);
            unique.columns.extend(column);
        }
    }
    Ok(layouts)
}

/// MariaDB shows defaults as SQL: `'text'`, numbers, `NULL`, expressions.
fn mariadb_default(text: &str) -> ColumnDefault {
    if text.eq_ignore_ascii_case("NULL") {
        return ColumnDefault::None;
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        // Escapes depend on the session that shows them.
        return if inner.contains(['\'', '\\']) || inner.contains('\0') {
            ColumnDefault::Computed
        } else {
            ColumnDefault::Constant(inner.to_owned())
        };
    }
    let number = text.strip_prefix('-').unwrap_or(text);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return ColumnDefault::Constant(text.to_owned());
    }
    ColumnDefault::Computed
}

/// The first `N` values of a row; missing ones are NULL.
fn take<const N: usize>(row: Vec<Option<String>>) -> [Option<String>; N] {
    let mut values = row.into_iter();
    std::array::from_fn(|_| values.next().flatten())
}

/// The labels of an ENUM or SET declaration as the catalog writes it: in single quotes, which are doubled inside.
/// `None` when it is not that.
pub fn labels(declaration: &str) -> Option<Vec<String>> {
    let open = declaration.find('(')?;
    let mut rest = &declaration[open + 1..];
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start().strip_prefix('\'')?;
        let mut label = String::new();
        loop {
            let quote = rest.find('\'')?;
            label.push_str(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.strip_prefix('\'') {
                Some(after) => {
                    label.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        labels.push(label);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.starts_with(')').then_some(labels),
        }
    }
}

/// Adds to the map what the log does not say, and checks what it says; see the module text. Without a layout the log has
/// to say everything.
pub fn complete(
    map: &mut TableMap,
    layout: Option<&Layout>,
    collations: &Collations,
    vendor: Vendor,
) -> Result<(), Fault> {
    let Some(layout) = layout else {
        if map.has_names() {
            return Ok(());
        }
        return Err(Fault::new(
            "the log does not name the columns (binlog_row_metadata is not FULL), and the ledger has no schema history of \
             the table",
        ));
    };
    let period = if layout.period == Period::Implicit { 2 } else { 0 };
    let listed = layout.columns.len();
    let expected = listed + period + layout.hidden_hashes();
    if map.columns.len() != expected {
        return Err(Fault(format!("the log has {} columns, the schema history {expected}", map.columns.len())));
    }
    for (index, column) in map.columns.iter_mut().enumerate() {
        match layout.columns.get(index) {
            Some(known) => {
                complete_column(column, known, collations, vendor)
                    .map_err(|fault| Fault(format!("column `{}`: {fault}", known.name)))?;
            }
            None => {
                column.hidden = true;
                let (name, wanted) = match index - listed {
                    0 if period > 0 => ("row_start".to_owned(), kind::TIMESTAMP2),
                    1 if period > 0 => ("row_end".to_owned(), kind::TIMESTAMP2),
                    other => (format!("DB_ROW_HASH_{}", other + 1 - period), kind::LONGLONG),
                };
                if column.kind != wanted {
                    return Err(Fault(format!("column {} is not the {name} that it should be", index + 1)));
                }
                // MariaDB 10.11 names two hashes alike.
                column.name.get_or_insert(name);
            }
        }
    }
    Ok(())
}

fn complete_column(
    column: &mut MapColumn,
    known: &LayoutColumn,
    collations: &Collations,
    vendor: Vendor,
) -> Result<(), Fault> {
    if let Some(name) = &column.name
        && *name != known.name
    {
        return Err(Fault(format!("is called `{name}` in the log")));
    }
    let declared = Declared::parse(&known.declaration);
    check_shape(column, known, &declared, vendor)?;
    if column.sign_told && is_integer(&declared) && column.unsigned != declared.unsigned {
        let told = if column.unsigned { "unsigned" } else { "signed" };
        return Err(Fault(format!("is {told} in the log, and {} in the schema history", known.declaration)));
    }
    if !column.sign_told {
        column.unsigned = declared.unsigned;
    }
    let labelled = matches!(declared.family(), Family::Enum | Family::Set);
    let told = column.collation.and_then(|id| collations.charset_name(id));
    if let (Some(told), Some(charset)) = (told, &known.charset)
        && matches!(declared.family(), Family::Text | Family::Enum | Family::Set)
        && !same_charset(told, charset)
    {
        return Err(Fault(format!("has character set {told} in the log, and {charset} in the schema history")));
    }
    if labelled {
        if column.labels.is_none() || column.collation.is_none() {
            let labels = labels(&known.declaration)
                .ok_or_else(|| Fault(format!("its labels can't be read from {}", known.declaration)))?;
            column.labels = Some(labels.into_iter().map(String::into_bytes).collect());
            // As text of the catalog, whatever the column's own character set is.
            column.collation = collations.id_of("utf8mb4");
        }
    } else if column.collation.is_none() {
        column.collation = collations.id_of(known.charset.as_deref().unwrap_or("binary"));
    }
    column.name = Some(known.name.clone());
    Ok(())
}

fn is_integer(declared: &Declared) -> bool {
    declared.family() == Family::Integer
}

/// Whether type, length and digits in the log are those of the declaration.
fn check_shape(column: &MapColumn, known: &LayoutColumn, declared: &Declared, vendor: Vendor) -> Result<(), Fault> {
    let argument = |index: usize, default: u32| declared.arguments.get(index).copied().unwrap_or(default);
    let character_bytes = known.charset.as_deref().map_or(1, character_bytes_max) as u32;
    let length = u32::from(column.length);
    let size_of_blob = |name: &str| match name {
        "tinytext" | "tinyblob" => 1,
        "text" | "blob" => 2,
        "mediumtext" | "mediumblob" => 3,
        _ => 4,
    };
    let labels = || labels(&known.declaration).map_or(0, |labels| labels.len());
    let fits = match (declared.name.as_str(), column.kind) {
        ("tinyint", kind::TINY)
        | ("smallint", kind::SHORT)
        | ("mediumint", kind::INT24)
        | ("int" | "integer", kind::LONG)
        | ("bigint", kind::LONGLONG)
        | ("float", kind::FLOAT)
        | ("double" | "real", kind::DOUBLE)
        | ("date", kind::DATE | kind::NEWDATE)
        | ("year", kind::YEAR) => true,
        ("decimal" | "numeric", kind::NEWDECIMAL) => {
            length == argument(0, 10) && u32::from(column.scale) == argument(1, 0)
        }
        ("bit", kind::BIT) => length * 8 + u32::from(column.scale) == argument(0, 1),
        ("datetime", kind::DATETIME2) | ("timestamp", kind::TIMESTAMP2) | ("time", kind::TIME2) => {
            length == argument(0, 0)
        }
        // The old formats have no fraction that the log would tell.
        ("datetime", kind::DATETIME) | ("timestamp", kind::TIMESTAMP) | ("time", kind::TIME) => true,
        ("char", kind::STRING) => length == argument(0, 1) * character_bytes,
        ("binary", kind::STRING) => length == argument(0, 1),
        ("varchar", kind::VARCHAR | kind::VAR_STRING) => length == argument(0, 0) * character_bytes,
        ("varbinary", kind::VARCHAR | kind::VAR_STRING) => length == argument(0, 0),
        ("varchar" | "varbinary", kind::VARCHAR_COMPRESSED) => declared.compressed,
        ("tinytext" | "text" | "mediumtext" | "longtext", kind::BLOB)
        | ("tinyblob" | "blob" | "mediumblob" | "longblob", kind::BLOB) => length == size_of_blob(&declared.name),
        (name, kind::BLOB_COMPRESSED) => (name.ends_with("text") || name.ends_with("blob")) && declared.compressed,
        ("enum", kind::ENUM) => length == if labels() > 255 { 2 } else { 1 },
        ("set", kind::SET) => match labels().div_ceil(8) {
            bytes @ 1..=4 => length as usize == bytes,
            _ => length == 8,
        },
        ("json", kind::JSON) => true,
        ("uuid" | "inet6", kind::STRING) => length == 16,
        ("inet4", kind::STRING) => length == 4,
        ("vector", kind::VECTOR) => true,
        ("vector", kind::VARCHAR) => vendor == Vendor::MariaDb,
        (_, kind::GEOMETRY) => matches!(declared.family(), Family::Geometry | Family::Other),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Fault(format!(
        "is of type {} and length {} in the log, which is not {} as the schema history says",
        column.kind, column.length, known.declaration
    )))
}

/// How images that lack columns are completed.
pub fn images(map: &TableMap, layout: &Layout, collations: &Collations, vendor: Vendor) -> Images {
    let names = map.columns.iter().map(|column| column.name.clone().unwrap_or_default()).collect();
    let filler = |(index, column): (usize, &MapColumn)| match layout.columns.get(index) {
        Some(known) => super::default::filler(column, known, collations),
        None => Filler::Null,
    };
    Images::new(layout, vendor, names, map.columns.iter().enumerate().map(filler).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::table_map::tests::length_encoded;

    fn column(name: &str, declaration: &str, charset: Option<&str>) -> LayoutColumn {
        LayoutColumn {
            name: name.to_owned(),
            declaration: declaration.to_owned(),
            charset: charset.map(str::to_owned),
            collation: None,
            nullable: true,
            default: ColumnDefault::None,
            generated: false,
            invisible: false,
            auto_increment: false,
        }
    }

    fn goods() -> Layout {
        Layout {
            columns: vec![
                column("id", "int(10) unsigned", None),
                column("name", "varchar(50)", Some("utf8mb4")),
                column("kind", "enum('a','it''s')", Some("latin1")),
                column("price", "decimal(6,2)", None),
                column("flag", "bit(9)", None),
            ],
            ..Layout::default()
        }
    }

    /// As MySQL 5.7 and MariaDB write it: types and lengths, and nothing else.
    fn bare() -> Vec<u8> {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
        body.extend(b"\x04shop\0\x05goods\0");
        body.push(5);
        body.extend([kind::LONG, kind::VARCHAR, kind::STRING, kind::NEWDECIMAL, kind::BIT]);
        body.extend(length_encoded(&[200, 0, kind::ENUM, 1, 6, 2, 1, 1]));
        body.push(0b11110);
        body
    }

    fn collations() -> Collations {
        Collations::new(
            [(8, "latin1".to_owned()), (45, "utf8mb4".to_owned()), (63, "binary".to_owned())],
            Default::default(),
        )
    }

    fn completed(layout: Option<&Layout>) -> Result<TableMap, Fault> {
        let mut map = TableMap::parse(&bare(), Vendor::MySql)?;
        complete(&mut map, layout, &collations(), Vendor::MySql)?;
        Ok(map)
    }

    /// D-15: logs without optional metadata, as MySQL 5.7's.
    #[test]
    fn a_bare_table_map_is_completed_from_the_layout() {
        let map = completed(Some(&goods())).expect("the layout fits");
        let names: Vec<&str> = map.columns.iter().filter_map(|column| column.name.as_deref()).collect();
        assert_eq!(names, ["id", "name", "kind", "price", "flag"]);
        assert!(map.columns[0].unsigned && !map.columns[3].unsigned);
        assert_eq!(map.columns[1].collation, Some(45));
        let labels = map.columns[2].labels.as_ref().expect("labels");
        assert_eq!(labels, &[b"a".to_vec(), b"it's".to_vec()]);
        assert!(completed(None).expect_err("no names").0.contains("binlog_row_metadata"));
    }

    /// D-17
    #[test]
    fn any_difference_from_the_layout_is_a_fault() {
        let with = |change: fn(&mut Layout)| {
            let mut layout = goods();
            change(&mut layout);
            completed(Some(&layout)).expect_err("it differs").0
        };
        assert!(with(|layout| layout.columns.truncate(4)).contains("5 columns"));
        assert!(with(|layout| layout.columns.swap(0, 1)).contains("`name`"));
        for (at, declaration) in [
            (0, "bigint"),
            (1, "varchar(49)"),
            (2, "set('a')"),
            (3, "decimal(6,1)"),
            (4, "bit(8)"),
            (1, "varbinary(50)"),
        ] {
            let mut layout = goods();
            declaration.clone_into(&mut layout.columns[at].declaration);
            assert!(completed(Some(&layout)).is_err(), "{declaration}");
        }
        assert!(with(|layout| layout.columns[1].charset = Some("latin1".to_owned())).contains("`name`"));
        assert!(with(|layout| layout.period = Period::Implicit).contains("7"));
    }

    /// A sign that the log tells and the layout denies is a fault too.
    #[test]
    fn what_the_log_tells_must_agree() {
        let mut map = TableMap::parse(&super::super::table_map::tests::goods(), Vendor::MySql).expect("well formed");
        let mut layout = goods();
        "enum('a','b')".clone_into(&mut layout.columns[2].declaration);
        assert!(complete(&mut map.clone(), Some(&layout), &collations(), Vendor::MySql).is_ok());
        "int".clone_into(&mut layout.columns[0].declaration);
        let fault = complete(&mut map, Some(&layout), &collations(), Vendor::MySql).expect_err("the sign differs");
        assert!(fault.0.contains("unsigned"), "{fault}");
    }

    #[test]
    fn labels_are_read_as_the_catalog_writes_them() {
        let read = |text: &str| labels(text).map(|labels| labels.join("|"));
        assert_eq!(read("enum('a','b,c','it''s','')").as_deref(), Some("a|b,c|it's|"));
        assert_eq!(read("set('x')").as_deref(), Some("x"));
        assert_eq!(read("enum('a"), None);
        assert_eq!(read("int"), None);
    }
}
