//! The tables that the configuration selects, from information_schema.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::config::{Contract, Contracts, SourceConfig};
use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName, TableSchema};
use crate::source::Error;

use super::charset::{Collations, Shape, Table, Tables};
use super::connection::{Session, literal};
use super::declared::{Declared, Family};

pub const SYSTEM_SCHEMAS: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// A selected table and what snapshots and preflight need to know besides its schema.
#[derive(Clone, Debug)]
pub struct CatalogTable {
    pub schema: TableSchema,
    pub engine: String,
    pub rows_estimate: Option<u64>,
    /// Character set by column.
    pub charsets: HashMap<String, String>,
    /// Collation by column.
    pub collations: HashMap<String, String>,
    /// Columns that may hold NULL.
    pub nullable: HashSet<String>,
    /// Why it can't be captured, in words.
    pub refusal: Option<String>,
}

/// Reads the server's collations and its tables of one-byte character sets.
pub async fn collations(session: &mut Session) -> Result<Collations, Error> {
    // MariaDB 10.10 and later list the ids of its newest collations there only.
    let applicability = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY";
    let plain = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS";
    let answer = if session.flavor.is_mariadb() && session.flavor.version >= (10, 10, 1) {
        session.query(applicability).await?
    } else {
        session.query(plain).await?
    };
    let pairs = answer.rows.into_iter().filter_map(|row| {
        let mut values = row.into_iter();
        Some((values.next()??.parse().ok()?, values.next()??))
    });
    let pairs: Vec<(u64, String)> = pairs.collect();
    Ok(Collations::new(pairs, tables_of_charsets(session).await?))
}

/// A server's tables by its host, port and version: they never change while it runs.
static CHARSET_TABLES: Mutex<BTreeMap<String, Arc<Tables>>> = Mutex::new(BTreeMap::new());

/// The server's own tables of all character sets that need one; asked once per process.
async fn tables_of_charsets(session: &mut Session) -> Result<Arc<Tables>, Error> {
    let server = session.query("SELECT CONCAT_WS(' ', @@hostname, @@port, @@version)").await?;
    let server = server.scalar().unwrap_or_default().to_owned();
    let known = || CHARSET_TABLES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(tables) = known().get(&server) {
        return Ok(tables.clone());
    }
    let answer = session.query("SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS").await?;
    let mut tables = Tables::new();
    for row in answer.rows {
        let [Some(name), Some(bytes_max)] = take(row) else { continue };
        let Some(shape) = Shape::of(&name, bytes_max.parse().unwrap_or(0)) else { continue };
        let characters: String = shape.characters().concat().iter().map(|byte| format!("{byte:02X}")).collect();
        let conversion = format!("SELECT HEX(CONVERT(_{name} X'{characters}' USING utf32))");
        let answer = session.query(&conversion).await?;
        match answer.scalar().and_then(|hex| Table::new(shape, hex)) {
            Some(table) => drop(tables.insert(name, Arc::new(table))),
            None => tracing::warn!(charset = %name, "the server's table of this character set can't be read"),
        }
    }
    let tables = Arc::new(tables);
    known().insert(server, tables.clone());
    Ok(tables)
}

/// All selected tables in order of name, refused ones among them.
pub async fn tables(
    session: &mut Session,
    config: &SourceConfig,
    contracts: &Contracts,
    collations: &Collations,
) -> Result<Vec<CatalogTable>, Error> {
    described(session, config, contracts, collations, None).await
}

/// One selected table; `None` when it is not there.
pub async fn table(
    session: &mut Session,
    config: &SourceConfig,
    contracts: &Contracts,
    collations: &Collations,
    name: &TableName,
) -> Result<Option<CatalogTable>, Error> {
    described(session, config, contracts, collations, Some(name)).await.map(|tables| tables.into_iter().next())
}

async fn described(
    session: &mut Session,
    config: &SourceConfig,
    contracts: &Contracts,
    collations: &Collations,
    only: Option<&TableName>,
) -> Result<Vec<CatalogTable>, Error> {
    let system = SYSTEM_SCHEMAS.map(literal).join(", ");
    let one = only.map(|name| format!(" AND TABLE_NAME = {}", literal(&name.table))).unwrap_or_default();
    let scope = match only {
        None => format!("TABLE_SCHEMA NOT IN ({system})"),
        Some(name) => format!("TABLE_SCHEMA = {}{one}", literal(&name.schema)),
    };
    let answer = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS FROM information_schema.TABLES \
             WHERE {scope} ORDER BY TABLE_SCHEMA, TABLE_NAME"
        ))
        .await?;
    let mut found: Vec<CatalogTable> = Vec::new();
    for row in answer.rows {
        let [Some(schema), Some(table), Some(kind), engine, rows] = take(row) else { continue };
        let name = TableName::new(schema, table);
        // The catalog may compare names without case.
        if !config.tables.selects(&name.to_string()) || only.is_some_and(|only| *only != name) {
            continue;
        }
        if kind != "BASE TABLE" && kind != "SYSTEM VERSIONED" {
            tracing::info!(table = %name, kind = %kind, "not followed: it is no table");
            continue;
        }
        found.push(CatalogTable {
            schema: TableSchema {
                name,
                columns: Vec::new(),
                key: Vec::new(),
                partition_by: Vec::new(),
                identity: RowIdentity::default(),
            },
            engine: engine.unwrap_or_default(),
            rows_estimate: rows.and_then(|rows| rows.parse().ok()),
            charsets: HashMap::new(),
            collations: HashMap::new(),
            nullable: HashSet::new(),
            refusal: None,
        });
    }
    if found.is_empty() {
        return Ok(found);
    }
    let mut schemas: Vec<String> = found.iter().map(|table| literal(&table.schema.name.schema)).collect();
    schemas.dedup();
    let schemas = schemas.join(", ");
    let index: HashMap<TableName, usize> =
        found.iter().enumerate().map(|(index, table)| (table.schema.name.clone(), index)).collect();

    // K-8: the end of a row's period is part of the primary key, but among present rows it is always the same.
    let mut period_ends: HashMap<usize, String> = HashMap::new();
    let answer = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, GENERATION_EXPRESSION, \
             COLLATION_NAME, IS_NULLABLE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({schemas}){one} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ))
        .await?;
    for row in answer.rows {
        let [Some(schema), Some(table), Some(name), Some(source_type), charset, expression, collation, nullable] =
            take(row)
        else {
            continue;
        };
        let Some(&at) = index.get(&TableName::new(schema, table)) else { continue };
        if expression.as_deref() == Some("ROW END") {
            if !source_type.starts_with("timestamp") {
                found[at].refusal.get_or_insert(
                    "it is system-versioned by transaction, and the server writes changes of such tables to its log as \
                     statements"
                        .to_owned(),
                );
            }
            period_ends.insert(at, name.clone());
        }
        if nullable.is_some_and(|nullable| nullable == "YES") {
            found[at].nullable.insert(name.clone());
        }
        found[at].collations.extend(collation.map(|collation| (name.clone(), collation)));
        add_column(&mut found[at], name, source_type, charset);
    }

    let answer = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE \
             FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA IN ({schemas}){one} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
        ))
        .await?;
    let mut keys: HashMap<usize, Vec<UniqueKey>> = HashMap::new();
    for row in answer.rows {
        let [Some(schema), Some(table), Some(name), column, sub_part, nullable] = take(row) else { continue };
        let Some(&at) = index.get(&TableName::new(schema, table)) else { continue };
        let keys = keys.entry(at).or_default();
        if keys.last().is_none_or(|key| key.name != name) {
            keys.push(UniqueKey { name, columns: Vec::new(), identifies: true });
        }
        let Some(key) = keys.last_mut() else { continue };
        let primary = key.name == "PRIMARY";
        // A functional part has no column; NULLs and prefixes let two rows share the same values.
        key.identifies &= column.is_some() && (primary || (sub_part.is_none() && nullable.as_deref() != Some("YES")));
        key.columns.extend(column);
    }
    for (at, keys) in keys {
        let key = keys.iter().find(|key| key.name == "PRIMARY").or_else(|| keys.iter().find(|key| key.identifies));
        let schema = &mut found[at].schema;
        schema.key = key
            .filter(|key| key.identifies)
            .map(|key| {
                let present = key.columns.iter().filter(|name| period_ends.get(&at) != Some(name));
                present.filter_map(|column| schema.column_index(column)).collect()
            })
            .unwrap_or_default();
    }
    for table in &mut found {
        let schema = &mut table.schema;
        let none = Contract::default();
        let contract = contracts.get(&config.name, &schema.name.to_string()).unwrap_or(&none);
        *schema = under_contract(schema.clone(), contract).map_err(|finding| Error::Setting {
            subject: format!("table {}", schema.name),
            finding,
            remedy: "correct the table's contract".to_owned(),
        })?;
        let refusal = refusal(schema, |column| table.charsets.get(column).map(String::as_str), collations);
        // What was found before goes first.
        table.refusal = table.refusal.take().or(refusal);
    }
    Ok(found)
}

/// A table of the source, its columns with the source's types and its key, as the contract wants it. The error says what does
/// not fit, in words.
pub fn under_contract(mut schema: TableSchema, contract: &Contract) -> Result<TableSchema, String> {
    for column in &mut schema.columns {
        let lake_type = Declared::parse(&column.source_type).under_contract(&column.name, contract);
        column.lake_type = lake_type.map_err(|finding| format!("contract of {}: {finding}", schema.name))?;
    }
    schema.with_contract(contract)
}

/// Why a table can't be captured though its contract fits.
pub fn refusal<'a>(
    schema: &TableSchema,
    charset: impl Fn(&str) -> Option<&'a str>,
    collations: &Collations,
) -> Option<String> {
    if let Some((one, other)) = schema.same_name() {
        return Some(format!(
            "columns `{one}` and `{other}` have the same name in the lake, where case does not count; rename one of \
             them, or exclude it in the table's contract"
        ));
    }
    schema.columns.iter().find_map(|column| {
        let text = matches!(Declared::parse(&column.source_type).family(), Family::Text | Family::Enum | Family::Set);
        let fault = collations.by_name(charset(&column.name).filter(|_| text)?).err()?;
        Some(format!("column `{}`: {fault}", column.name))
    })
}

struct UniqueKey {
    name: String,
    columns: Vec<String>,
    /// No two rows can be equal in it.
    identifies: bool,
}

fn add_column(table: &mut CatalogTable, name: String, source_type: String, charset: Option<String>) {
    let declared = Declared::parse(&source_type);
    let family = declared.family();
    let lake_type = declared.lake_type();
    if family == Family::Other {
        let table = &table.schema.name;
        tracing::warn!(%table, column = %name, kind = %source_type, "a type unknown to this release: its bytes become text in hex");
    } else if family == Family::Decimal && lake_type == LakeType::String {
        let table = &table.schema.name;
        tracing::warn!(%table, column = %name, kind = %source_type, "more digits than a lake decimal: becomes text");
    }
    if let Some(charset) = charset {
        table.charsets.insert(name.clone(), charset);
    }
    table.schema.columns.push(Column { name, source_type, lake_type, nullable: true, policy: Policy::default() });
}

/// The first `N` values of a row; missing ones are NULL.
fn take<const N: usize>(row: Vec<Option<String>>) -> [Option<String>; N] {
    let mut values = row.into_iter();
    std::array::from_fn(|_| values.next().flatten())
}
