//! What a statement would do to a table, told from its text and the catalog before it runs.
//!
//! The statement is not tried in a transaction that is rolled back: that would take its locks on a live table. Types are
//! resolved by the server (`to_regtype`), defaults that are literals are turned into values by their type's own input
//! function; nothing else of the statement is evaluated. All of it in a read-only transaction.

mod apply;
mod statement;

use std::collections::HashMap;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use self::apply::{Applied, UniqueIndex, apply};
use self::statement::{Change, Default, Statement, Unclear};
use super::attributes::Description;
use super::catalog::Missing;
use super::connection::{self, query_error, quote_identifier, quote_literal};
use super::difference::{Known, by_description};
use super::types::{ResolvedType, oid};
use super::{catalog, ddl, publication};
use crate::config::{Contracts, SourceConfig};
use crate::schema::{Shape, TableName};
use crate::source::{Error, Foretold, without};

/// A type as the statement declares it.
#[derive(Clone, Debug)]
pub struct DeclaredType {
    pub oid: u32,
    pub typmod: i32,
    /// Domains looked through.
    pub found: ResolvedType,
    /// A domain may bring a default of its own.
    pub has_default: bool,
}

const UNIQUE_INDEXES: &str = "
    SELECT json_build_object('name', x.relname, 'primary', i.indisprimary, 'columns', coalesce((
        SELECT json_agg(a.attname ORDER BY k.place)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.place <= i.indnkeyatts), '[]'))::text
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indisvalid";

/// See the module text.
pub async fn foretell(
    config: &SourceConfig,
    contracts: &Contracts,
    shape: &Shape,
    statement: &str,
) -> Result<Foretold, Error> {
    let name = &shape.lake.name;
    let mut connection = connection::connect(config).await?;
    let mut described = publication::described(&mut connection, config, std::slice::from_ref(name)).await?;
    let Some(table) = described.pop() else {
        return Ok(Foretold::Misfit(format!("{name} is not at the source")));
    };
    let changes = match of_table(statement::read(statement), name) {
        Ok(changes) => changes,
        Err(told) => return Ok(told),
    };
    let mut declared = HashMap::new();
    for change in &changes {
        if let Change::Add { declared: text, .. } | Change::Retype { declared: text, .. } = change
            && !declared.contains_key(text)
        {
            match declared_type(&mut connection, name, text).await? {
                Ok(found) => drop(declared.insert(text.clone(), found)),
                Err(finding) => return Ok(Foretold::Misfit(finding)),
            }
        }
    }
    let indexes: Vec<String> = sqlx::query_scalar(UNIQUE_INDEXES)
        .bind(&name.schema)
        .bind(&name.table)
        .fetch_all(&mut connection)
        .await
        .map_err(|error| query_error("reading pg_index", &error))?;
    let indexes: Vec<UniqueIndex> =
        indexes.iter().map(|index| catalog::parse("pg_index", index)).collect::<Result<_, _>>()?;

    let before = match table.schema(&config.name, contracts) {
        Ok(before) => without(before, &shape.ignored),
        Err(finding) => return Ok(Foretold::Stops(finding)),
    };
    let attributes = Description::from(&table).attributes;
    let Applied { table: mut after, added, mut rewritten } = match apply(table, indexes, &changes, &declared) {
        Ok(applied) => applied,
        Err(told) => return Ok(told),
    };
    if !after.capturable(&config.name, contracts) {
        return Ok(Foretold::Stops(format!(
            "the log would not tell any more which row a change is about; {}",
            publication::identity_remedy(&after)
        )));
    }
    let mut notes = Vec::new();
    for (column, default, declared_as) in &added {
        let declared = (declared_as.as_str(), &declared[declared_as]);
        let value = match kept_value(&mut connection, name, column, declared, default).await? {
            Ok(value) => value,
            Err(finding) => return Ok(Foretold::Misfit(finding)),
        };
        if let Kept::Unknown = value {
            let note = "column `{}`: old rows get the value that its default has when the statement runs";
            notes.push(note.replace("{}", column));
        }
        rewritten |= value == Kept::Each;
        let found = after.columns.iter_mut().find(|found| found.name == *column);
        if let (Some(found), Kept::Value(value)) = (found, value) {
            found.missing = vec![Missing { oid: 0, value: Some(value) }];
        }
    }
    let none = crate::config::Contract::default();
    let contract = contracts.get(&config.name, &name.to_string()).unwrap_or(&none);
    let known = Known { schema: &before, attributes: Some(&attributes), contract, ignored: &shape.ignored };
    let told = ddl::Statement::foretold(statement, after.oid, rewritten);
    // From here on as the stream does it.
    Ok(match by_description(known, &Description::from(&after), Some(&told)) {
        Ok(found) => {
            notes.extend(found.assumed);
            Foretold::of(&before, &found.after, found.steps, statement, notes)
        }
        Err(finding) => Foretold::Untold(finding),
    })
}

/// The changes of this table in all the statements together.
fn of_table(read: Result<Vec<Statement>, Unclear>, name: &TableName) -> Result<Vec<Change>, Foretold> {
    let statements = read.map_err(|Unclear(why)| Foretold::Unclear(why))?;
    let mut all = Vec::new();
    let mut others = Vec::new();
    let mut concerned = false;
    for statement in statements {
        match statement {
            Statement::Alter { table, changes } if table.is(name) => {
                concerned = true;
                all.extend(changes);
            }
            Statement::Truncate(tables) if tables.iter().any(|table| table.is(name)) => return Err(Foretold::Truncate),
            Statement::Drop(tables) if tables.iter().any(|table| table.is(name)) => return Err(Foretold::Drop),
            Statement::Alter { table, .. } => others.push(table.table),
            Statement::Truncate(tables) | Statement::Drop(tables) => {
                others.extend(tables.into_iter().map(|table| table.table));
            }
        }
    }
    if !concerned && !others.is_empty() {
        return Err(Foretold::Misfit(format!("the statement is about `{}`, not about {name}", others.join("`, `"))));
    }
    if let Some(Change::RenameTable(to)) = all.iter().find(|change| matches!(change, Change::RenameTable(_))) {
        return Err(Foretold::Rename { to: TableName::new(&name.schema, to) });
    }
    Ok(all)
}

/// What the server makes of a type's text. The inner error says why it is none.
async fn declared_type(
    connection: &mut PgConnection,
    table: &TableName,
    declared: &str,
) -> Result<Result<DeclaredType, String>, Error> {
    let text = match declared.to_lowercase().as_str() {
        "serial" | "serial4" => "integer".to_owned(),
        "bigserial" | "serial8" => "bigint".to_owned(),
        "smallserial" | "serial2" => "smallint".to_owned(),
        _ => declared.to_owned(),
    };
    begin(connection, table).await?;
    let found = type_and_modifier(connection, &text).await;
    end(connection).await?;
    let (oid, typmod, has_default) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Err(format!("the source has no type `{declared}`"))),
        Err(error) => match error.as_database_error() {
            Some(error) => return Ok(Err(format!("`{declared}` is no type at the source: {}", error.message()))),
            None => return Err(query_error("reading types", &error)),
        },
    };
    let mut resolved = catalog::resolved(connection, &[(oid, typmod)]).await?;
    let Some(mut found) = resolved.pop() else { return Ok(Err(format!("the source has no type `{declared}`"))) };
    if found.element.is_some() {
        found.dimensions = text.matches('[').count().max(1) as i32;
    }
    Ok(Ok(DeclaredType { oid, typmod, found, has_default }))
}

/// Names without a schema are looked for where the table is; nothing can be written.
async fn begin(connection: &mut PgConnection, table: &TableName) -> Result<(), Error> {
    let statement = format!("BEGIN READ ONLY; SET LOCAL search_path TO {}, public", quote_identifier(&table.schema));
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| query_error("BEGIN READ ONLY", &error))
}

async fn end(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop).map_err(|error| query_error("ROLLBACK", &error))
}

async fn type_and_modifier(connection: &mut PgConnection, text: &str) -> Result<Option<(u32, i32, bool)>, sqlx::Error> {
    let row: Option<(i64, String, bool)> = sqlx::query_as(
        "SELECT t.oid::int8, CASE WHEN t.typmodin::oid <> 0 THEN t.typmodin::text ELSE '' END,
            t.typtype = 'd' AND t.typdefault IS NOT NULL
         FROM pg_catalog.pg_type t WHERE t.oid = to_regtype($1)::oid",
    )
    .bind(text)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((found, reader, has_default)) = row else { return Ok(None) };
    let found = u32::try_from(found).unwrap_or_default();
    let mut modifiers = modifiers(text);
    // `char` is `char(1)`, `bit` is `bit(1)`: the grammar's own addition.
    let one = found == oid::BPCHAR && text.to_lowercase().starts_with("char") || found == BIT;
    if modifiers.is_empty() && one {
        modifiers.push("1".to_owned());
    }
    if modifiers.is_empty() || reader.is_empty() || found == INTERVAL {
        return Ok(Some((found, -1, has_default)));
    }
    // The reader's name is the catalog's, quoted by it where it has to be.
    let list = quote_literal(&format!("{{{}}}", modifiers.join(",")));
    let typmod = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {reader}({list}::cstring[])")));
    Ok(Some((found, typmod.fetch_one(connection).await?, has_default)))
}

const BIT: u32 = 1560;
/// Its modifier holds fields and digits, which the lake does not tell apart.
const INTERVAL: u32 = 1186;

/// `numeric(10, 2)[]` has `10` and `2`.
fn modifiers(text: &str) -> Vec<String> {
    let inner = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inner, _)| inner);
    let pieces = inner.unwrap_or_default().split(',').map(str::trim).filter(|piece| !piece.is_empty());
    let harmless = |piece: &&str| piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte));
    pieces.filter(harmless).map(str::to_owned).collect()
}

/// What the catalog will keep for the rows that are there.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// Nothing: they have NULL.
    Null,
    /// An array of one element, as text.
    Value(String),
    /// One for all, which is not known before.
    Unknown,
    /// Each row has its own.
    Each,
}

/// The inner error says why the server would refuse the default.
async fn kept_value(
    connection: &mut PgConnection,
    table: &TableName,
    column: &str,
    (declared_as, declared): (&str, &DeclaredType),
    default: &Default,
) -> Result<Result<Kept, String>, Error> {
    let expression = match default {
        Default::None if declared.has_default => return Ok(Ok(Kept::Each)),
        Default::None | Default::Null => return Ok(Ok(Kept::Null)),
        Default::Each(_) => return Ok(Ok(Kept::Each)),
        Default::Call { function, .. } => {
            let volatile: Option<bool> =
                sqlx::query_scalar("SELECT bool_or(provolatile = 'v') FROM pg_proc WHERE proname = $1")
                    .bind(function)
                    .fetch_one(connection)
                    .await
                    .map_err(|error| query_error("reading pg_proc", &error))?;
            return Ok(match volatile {
                None => Err(format!("the source has no function `{function}`")),
                Some(true) => Ok(Kept::Each),
                Some(false) => Ok(Kept::Unknown),
            });
        }
        Default::Constant(expression) => expression,
    };
    begin(connection, table).await?;
    // By the type's output function, which is how the catalog has it.
    let statement = format!(
        "SELECT CASE WHEN v IS NOT NULL THEN format('%s', v) END FROM (SELECT ({expression})::{declared_as}) AS one(v)"
    );
    let value: Result<Option<String>, sqlx::Error> =
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *connection).await;
    end(connection).await?;
    Ok(match value {
        Ok(Some(value)) => Ok(Kept::Value(format!("{{\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\"")))),
        Ok(None) => Ok(Kept::Null),
        Err(error) => match error.as_database_error() {
            Some(error) => Err(format!("the default of `{column}` can't be: {}", error.message())),
            None => return Err(query_error("reading a default", &error)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_taken_from_a_types_text() {
        assert_eq!(modifiers("NUMERIC(10, -2)[]"), ["10", "-2"]);
        assert_eq!(modifiers("TIMESTAMP(3) WITH TIME ZONE"), ["3"]);
        assert_eq!(modifiers("geometry(Point,4326)"), ["Point", "4326"]);
        assert!(modifiers("text").is_empty());
        assert!(modifiers("x('}')").is_empty());
    }

    #[test]
    fn only_statements_about_the_table_count() {
        let name = TableName::new("shop", "goods");
        let of = |text: &str| of_table(statement::read(text), &name);
        assert!(
            matches!(of("ALTER TABLE goods ADD a int; ALTER TABLE other DROP b"), Ok(changes) if changes.len() == 1)
        );
        assert!(
            matches!(of("ALTER TABLE shop.goods RENAME TO old"), Err(Foretold::Rename { to }) if to.table == "old")
        );
        assert!(matches!(of("ALTER TABLE other.goods DROP b"), Err(Foretold::Misfit(_))));
        assert!(matches!(of("TRUNCATE goods"), Err(Foretold::Truncate)));
        assert!(matches!(of("CREATE INDEX i ON goods (a)"), Ok(changes) if changes.is_empty()));
        assert!(matches!(of("nonsense"), Err(Foretold::Unclear(_))));
    }
}
