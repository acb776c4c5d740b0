//! What PostgreSQL's catalog says about tables: columns, types, replica identity, privileges.
//!
//! Each query gives one JSON document per row, so that it is described once, here, by the struct that reads it. The
//! same queries serve discovery and, inside the snapshot's own transaction, the first load.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::connection::{query_error, quote_identifier};
use super::types::{self, ResolvedType};
use crate::config::{Contract, Contracts, SourceConfig, WithoutKey};
use crate::schema::{Column, Policy, RowIdentity, TableName, TableSchema};
use crate::source::Error;

/// A table or a partitioned table.
#[derive(Clone, Debug, Deserialize)]
pub struct CatalogTable {
    pub oid: u32,
    /// How many columns it ever had: the highest number of one.
    pub width: i16,
    /// Of itself, or of its leaves, by oid: each rewrite makes another.
    pub files: BTreeMap<u32, u32>,
    pub schema: String,
    pub table: String,
    /// `r`: table, `p`: partitioned.
    pub kind: String,
    /// `p`: permanent, `u`: unlogged, `t`: temporary.
    pub persistence: String,
    /// `pg_class.relreplident`: `d`, `i`, `f`, `n`.
    pub identity: String,
    /// The columns of the key that `identity` names; of the primary key for `f`.
    pub key: Vec<String>,
    /// A partitioned table's leaves.
    pub leaves: Vec<Leaf>,
    /// The whole row is its identity, and a generated column, which is not published, is part of it: PostgreSQL 18
    /// refuses UPDATE and DELETE then (`CheckCmdReplicaIdentity` in execReplication.c).
    pub generated_identity: bool,
    /// `schema.table` of the tables this one is a partition of.
    pub ancestors: Vec<String>,
    pub rows_estimate: Option<u64>,
    pub owner: String,
    /// This role owns it, or is a member of the role that does.
    pub owned: bool,
    pub readable: bool,
    pub schema_usable: bool,
    /// Row-level security would hide rows from this role.
    pub row_security: bool,
    pub columns: Vec<CatalogColumn>,
    /// What the publication sends of it; see [`super::publication::Publication::mark`].
    #[serde(skip)]
    pub published: Option<Published>,
}

/// A partition that holds rows itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Leaf {
    pub schema: String,
    pub table: String,
    /// `pg_class.relreplident`
    pub identity: String,
}

impl Leaf {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

/// What a publication sends of a table (P-17).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub columns: Vec<String>,
    /// The row filter, as SQL.
    pub filter: Option<String>,
    /// Neither updates nor deletes.
    pub inserts_only: bool,
    /// Only the columns that it lists: new ones are not sent.
    pub listed: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct CatalogColumn {
    /// `pg_attribute.attnum`
    pub number: i16,
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// A default is declared, or it is an identity column.
    pub has_default: bool,
    /// What rows have that were there before the column; one for each leaf of a partitioned table.
    pub missing: Vec<Missing>,
    #[serde(rename = "type")]
    pub found: ResolvedType,
    /// Generated: not in the log up to PostgreSQL 17, later where the publication says so (P-16).
    pub generated: bool,
}

/// The value of a column in rows that were written before it was added (`pg_attribute.attmissingval`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Missing {
    /// The table or partition; 0 for each.
    pub oid: u32,
    /// As an array of one element; `None` where there is none: rows have their own, or NULL.
    pub value: Option<String>,
}

/// The base type, modifier and dimensions of a type (P-14), as `getBaseTypeAndTypmod` in lsyscache.c finds them, with the
/// SQL expressions to start from.
macro_rules! base_type {
    ($oid:literal, $typmod:literal, $dimensions:literal) => {
        concat!(
            "(WITH RECURSIVE base(oid, typmod, dimensions, depth) AS (
                SELECT ",
            $oid,
            "::oid, ",
            $typmod,
            "::int4, ",
            $dimensions,
            "::int4, 0
                UNION ALL
                SELECT t.typbasetype, t.typtypmod, greatest(dimensions, t.typndims), depth + 1
                FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')
            SELECT oid, typmod, dimensions FROM base ORDER BY depth DESC LIMIT 1)"
        )
    };
}

/// A [`ResolvedType`] as JSON, of `b` (from [`base_type`]) and the SQL expression of its name. int2vector and oidvector are
/// arrays too, but do not look like them.
macro_rules! resolved_type {
    ($name:literal) => {
        concat!(
            "json_build_object('name', ",
            $name,
            ", 'base_oid', b.oid::int8, 'base_typmod', b.typmod, 'dimensions', b.dimensions,
                'kind', coalesce((SELECT k.typtype::text FROM pg_type k WHERE k.oid = b.oid), ' '),
                'delimiter', coalesce((SELECT k.typdelim::text FROM pg_type k WHERE k.oid = b.oid), ','),
                'element', (
                    SELECT json_build_object('base_oid', eb.oid::int8, 'base_typmod', eb.typmod, 'delimiter', e.typdelim)
                    FROM pg_type list JOIN pg_type e ON e.oid = list.typelem CROSS JOIN LATERAL ",
            base_type!("e.oid", "b.typmod", "0"),
            " eb WHERE list.oid = b.oid AND list.typoutput = 'array_out'::regproc))"
        )
    };
}

const TABLE_NAMES: &str = "
    SELECT n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND n.nspname !~ '^pg_(toast|temp)'
    ORDER BY 1, 2";

const TABLES: &str = concat!(
    "
    SELECT json_build_object(
        'oid', c.oid::int8, 'width', c.relnatts,
        'files', coalesce((
            SELECT json_object_agg(f.oid::int8, f.relfilenode::int8)
            FROM pg_class f
            WHERE f.oid = c.oid AND c.relkind = 'r' OR c.relkind = 'p'
                AND f.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf AND relid <> c.oid)), '{}'),
        'schema', n.nspname, 'table', c.relname, 'kind', c.relkind::text, 'persistence', c.relpersistence::text,
        'identity', c.relreplident::text,
        'key', coalesce((
            SELECT json_agg(a.attname ORDER BY k.place)
            FROM pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.place <= i.indnkeyatts
                AND CASE c.relreplident
                    WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END), '[]'),
        'leaves', coalesce((
            SELECT json_agg(json_build_object('schema', ln.nspname, 'table', leaf.relname,
                'identity', leaf.relreplident::text) ORDER BY leaf.oid)
            FROM pg_partition_tree(c.oid) tree JOIN pg_class leaf ON leaf.oid = tree.relid
            JOIN pg_namespace ln ON ln.oid = leaf.relnamespace
            WHERE c.relkind = 'p' AND tree.isleaf AND leaf.oid <> c.oid), '[]'),
        'generated_identity',
            c.relreplident = 'f' AND current_setting('server_version_num')::int4 >= 180000 AND EXISTS (
                SELECT FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''),
        'ancestors', coalesce((
            SELECT json_agg(an.nspname || '.' || a.relname)
            FROM pg_partition_ancestors(c.oid) AS up(oid) JOIN pg_class a ON a.oid = up.oid
            JOIN pg_namespace an ON an.oid = a.relnamespace
            WHERE a.oid <> c.oid), '[]'),
        'rows_estimate', CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END,
        'owner', pg_get_userbyid(c.relowner),
        'owned', pg_has_role(c.relowner, 'USAGE'),
        'readable', has_table_privilege(c.oid, 'SELECT'),
        'schema_usable', has_schema_privilege(n.oid, 'USAGE'),
        'row_security', row_security_active(c.oid),
        'columns', coalesce((
            SELECT json_agg(json_build_object(
                'number', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'typmod', a.atttypmod,
                'generated', a.attgenerated <> '', 'has_default', a.atthasdef OR a.attidentity <> '',
                'missing', CASE WHEN c.relkind = 'r'
                    THEN json_build_array(json_build_object('oid', c.oid::int8, 'value', a.attmissingval::text))
                    ELSE coalesce((
                        SELECT json_agg(json_build_object('oid', tree.relid::int8, 'value', l.attmissingval::text))
                        FROM pg_partition_tree(c.oid) tree JOIN pg_attribute l ON l.attrelid = tree.relid
                        WHERE tree.isleaf AND tree.relid <> c.oid AND l.attname = a.attname AND l.attnum > 0), '[]')
                    END,
                'type', ",
    resolved_type!("format_type(a.atttypid, a.atttypmod)"),
    ") ORDER BY a.attnum)
            FROM pg_attribute a CROSS JOIN LATERAL ",
    base_type!("a.atttypid", "a.atttypmod", "a.attndims"),
    " b
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')
    )::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN unnest($1::text[], $2::text[]) AS wanted(schema, name)
        ON n.nspname = wanted.schema AND c.relname = wanted.name
    WHERE c.relkind IN ('r', 'p') AND (wanted.name IS NOT NULL OR c.oid = $3::int8::oid)
    ORDER BY n.nspname, c.relname"
);

const TYPES: &str = concat!(
    "
    SELECT ",
    resolved_type!("format_type(w.oid, w.typmod)"),
    "::text
    FROM unnest($1::int8[], $2::int4[]) WITH ORDINALITY AS w(oid, typmod, place) CROSS JOIN LATERAL ",
    base_type!("w.oid", "w.typmod", "0"),
    " b
    ORDER BY w.place"
);

/// The tables that the configuration selects; a partition of a selected table is part of that one.
pub async fn selected(connection: &mut PgConnection, config: &SourceConfig) -> Result<Vec<CatalogTable>, Error> {
    let mut wanted = names(connection).await?;
    wanted.retain(|name| config.tables.selects(&name.to_string()));
    let mut tables = described(connection, &wanted).await?;
    tables.retain(|table| !table.ancestors.iter().any(|ancestor| config.tables.selects(ancestor)));
    Ok(tables)
}

/// These tables, in the order of their names; one that does not exist is left out.
pub async fn described(connection: &mut PgConnection, names: &[TableName]) -> Result<Vec<CatalogTable>, Error> {
    let (schemas, tables): (Vec<_>, Vec<_>) =
        names.iter().map(|name| (name.schema.clone(), name.table.clone())).unzip();
    let rows: Vec<String> = sqlx::query_scalar(TABLES)
        .bind(schemas)
        .bind(tables)
        .bind(0_i64)
        .fetch_all(connection)
        .await
        .map_err(|error| query_error("reading the columns of tables", &error))?;
    rows.iter().map(|row| parse("the columns of tables", row)).collect()
}

/// The table with this oid, whatever it is called now.
pub async fn described_by_oid(connection: &mut PgConnection, oid: u32) -> Result<Option<CatalogTable>, Error> {
    let row: Option<String> = sqlx::query_scalar(TABLES)
        .bind(Vec::<String>::new())
        .bind(Vec::<String>::new())
        .bind(i64::from(oid))
        .fetch_optional(connection)
        .await
        .map_err(|error| query_error("reading the columns of a table", &error))?;
    row.map(|row| parse("the columns of a table", &row)).transpose()
}

/// The names of all tables.
pub async fn names(connection: &mut PgConnection) -> Result<Vec<TableName>, Error> {
    let names: Vec<(String, String)> = sqlx::query_as(TABLE_NAMES)
        .fetch_all(connection)
        .await
        .map_err(|error| query_error("reading the names of tables", &error))?;
    Ok(names.into_iter().map(|(schema, table)| TableName { schema, table }).collect())
}

/// The tables that the one with this oid is a partition of.
pub async fn ancestors(connection: &mut PgConnection, oid: u32) -> Result<Vec<TableName>, Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_class leaf CROSS JOIN LATERAL pg_partition_ancestors(leaf.oid) AS up(oid)
         JOIN pg_class c ON c.oid = up.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE leaf.oid = $1::int8::oid AND up.oid <> leaf.oid",
    )
    .bind(i64::from(oid))
    .fetch_all(connection)
    .await
    .map_err(|error| query_error("reading what a partition belongs to", &error))?;
    Ok(rows.into_iter().map(|(schema, table)| TableName { schema, table }).collect())
}

/// The name of a type that was dropped.
pub const NO_TYPE: &str = "???";

/// What the catalog says about these types and modifiers, in the same order.
pub async fn resolved(connection: &mut PgConnection, wanted: &[(u32, i32)]) -> Result<Vec<ResolvedType>, Error> {
    let (oids, typmods): (Vec<i64>, Vec<i32>) = wanted.iter().map(|&(oid, typmod)| (i64::from(oid), typmod)).unzip();
    let rows: Vec<String> = sqlx::query_scalar(TYPES)
        .bind(oids)
        .bind(typmods)
        .fetch_all(connection)
        .await
        .map_err(|error| query_error("reading types", &error))?;
    rows.iter().map(|row| parse("types", row)).collect()
}

/// Reads the JSON that a query of ours built.
pub fn parse<T: for<'de> Deserialize<'de>>(what: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::Query { statement: format!("reading {what}"), cause: error.to_string() })
}

impl CatalogTable {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// Whether the log tells which row an UPDATE or DELETE is about. Without it PostgreSQL refuses both statements as
    /// soon as the table is published (P-21).
    pub fn has_identity(&self) -> bool {
        let leaves_agree = self.leaves.iter().all(|leaf| leaf.identity == self.identity);
        if self.unsent_key() || self.unsent_identity() {
            return false;
        }
        match self.identity.as_str() {
            "f" => leaves_agree,
            // An index of the parent that is a leaf's identity can't be told from here.
            "i" if self.kind == "p" => false,
            "d" | "i" => !self.key.is_empty() && leaves_agree,
            _ => false,
        }
    }

    /// Whether the log holds the column: all but generated ones, unless the publication says otherwise.
    pub fn sends(&self, column: &CatalogColumn) -> bool {
        match &self.published {
            Some(published) => published.columns.contains(&column.name),
            None => !column.generated,
        }
    }

    /// The log does not hold the whole key: a column of it is generated, or not in the publication's column list.
    pub fn unsent_key(&self) -> bool {
        self.columns.iter().any(|column| self.key.contains(&column.name) && !self.sends(column))
    }

    /// The whole row is the identity, and the log does not hold the whole row.
    pub fn unsent_identity(&self) -> bool {
        self.identity == "f"
            && self.columns.iter().any(|column| (!column.generated || self.generated_identity) && !self.sends(column))
    }

    /// Rows are only ever added, says the contract, and the publication sends nothing else, so that the application's
    /// UPDATE and DELETE need no identity (P-21).
    fn append_only(&self, contract: &Contract) -> bool {
        contract.key.is_empty()
            && contract.without_key == WithoutKey::Append
            && self.published.as_ref().is_some_and(|published| published.inserts_only)
    }

    /// Whether it may be published and followed.
    pub fn capturable(&self, source: &str, contracts: &Contracts) -> bool {
        self.has_identity()
            || contracts.get(source, &self.name().to_string()).is_some_and(|contract| self.append_only(contract))
    }

    /// As the lake will hold it, the contract applied. The error says in words what does not fit.
    pub fn schema(&self, source: &str, contracts: &Contracts) -> Result<TableSchema, String> {
        let columns: Vec<Column> = self
            .columns
            .iter()
            .filter(|column| self.sends(column))
            .map(|column| Column {
                name: column.name.clone(),
                source_type: column.found.name.clone(),
                lake_type: types::natural(&column.found).lake_type,
                nullable: true,
                policy: Policy::default(),
            })
            .collect();
        let identified = self.has_identity();
        let key = if identified { self.key.as_slice() } else { &[] };
        let key = key.iter().filter_map(|name| columns.iter().position(|column| &column.name == name)).collect();
        let name = self.name();
        let schema = TableSchema { name, columns, key, partition_by: Vec::new(), identity: RowIdentity::default() };
        let mut contract = contracts.get(source, &schema.name.to_string()).cloned().unwrap_or_default();
        if !identified {
            // The contract can't make up for what the log does not tell.
            contract.key.clear();
        }
        let mut schema = schema.with_contract(&contract)?;
        for column in &mut schema.columns {
            if let Some(found) = self.columns.iter().find(|found| found.name == column.name) {
                types::settle(column, &found.found, contract.types.get(&column.name))
                    .map_err(|finding| format!("contract of {}: {finding}", schema.name))?;
            }
        }
        Ok(schema)
    }

    /// The same, for whoever can't go on without it.
    pub fn contracted(&self, config: &SourceConfig, contracts: &Contracts) -> Result<TableSchema, Error> {
        self.schema(&config.name, contracts).map_err(|finding| Error::Setting {
            subject: format!("contract of {}", self.name()),
            finding,
            remedy: "mend the table's contract".into(),
        })
    }

    /// What stands after FROM. Children that inherit from a table are tables of their own.
    pub fn relation(&self) -> String {
        let only = if self.kind == "p" { "" } else { "ONLY " };
        format!("{only}{}.{}", quote_identifier(&self.schema), quote_identifier(&self.table))
    }

    /// Columns whose type has no lake form of its own.
    pub fn as_text(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| self.sends(column) && types::natural(&column.found).as_text)
    }
}
