//! The publication: which tables' changes the server sends.
//!
//! lakeward's own one (`lakeward_<source>`, owned by its role) holds exactly the captured tables; one that the
//! configuration names is checked and never changed: its column lists and row filters say what of a table is captured
//! (P-17). A table without replica identity is never added: the application's own UPDATE and DELETE would fail from that
//! moment on (P-21).

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tracing::info;

use super::catalog::{self, CatalogTable, Published, parse};
use super::connection::{query_error, quote_identifier};
use crate::config::{Contracts, SourceConfig, WithoutKey};
use crate::schema::TableName;
use crate::source::{Error, Position, Problem, ProblemKind};

/// A publication as the catalog has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Publication {
    all_tables: bool,
    schemas: i64,
    inserts: bool,
    updates: bool,
    deletes: bool,
    truncates: bool,
    pub via_root: bool,
    /// Since 18 it may send generated columns; before, the catalog lists them though they are never sent (P-16).
    may_send_generated: bool,
    owned: bool,
    /// Tables named by themselves.
    members: Vec<Member>,
    /// What it publishes after all, under the names that the log uses.
    published: Vec<PublishedTable>,
}

#[derive(Clone, Debug, Deserialize)]
struct Member {
    schema: String,
    table: String,
    /// Its list of columns, if it has one.
    columns: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PublishedTable {
    schema: String,
    table: String,
    columns: Vec<String>,
    filter: Option<String>,
}

impl Member {
    fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

const PUBLICATION: &str = "
    SELECT json_build_object(
        'all_tables', p.puballtables,
        'schemas', (SELECT count(*) FROM pg_publication_namespace s WHERE s.pnpubid = p.oid),
        'inserts', p.pubinsert, 'updates', p.pubupdate, 'deletes', p.pubdelete, 'truncates', p.pubtruncate,
        'via_root', p.pubviaroot,
        'may_send_generated', current_setting('server_version_num')::int4 >= 180000,
        'owned', pg_has_role(p.pubowner, 'USAGE'),
        'members', coalesce((
            SELECT json_agg(json_build_object('schema', n.nspname, 'table', c.relname,
                'columns', (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                    WHERE a.attrelid = r.prrelid AND a.attnum = ANY(r.prattrs))))
            FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE r.prpubid = p.oid), '[]'),
        'published', coalesce((
            SELECT json_agg(json_build_object('schema', t.schemaname, 'table', t.tablename,
                'columns', coalesce(t.attnames, '{}'), 'filter', t.rowfilter))
            FROM pg_publication_tables t WHERE t.pubname = p.pubname), '[]')
    )::text
    FROM pg_publication p WHERE p.pubname = $1";

/// Tables as the catalog has them, and what the source's publication sends of them. Both of one moment, if the connection is
/// in a transaction that reads repeatably.
pub async fn described(
    connection: &mut PgConnection,
    config: &SourceConfig,
    tables: &[TableName],
) -> Result<Vec<CatalogTable>, Error> {
    let mut described = catalog::described(connection, tables).await?;
    if let Some(publication) = find(connection, &config.publication).await? {
        publication.mark(&mut described);
    }
    Ok(described)
}

pub async fn find(connection: &mut PgConnection, name: &str) -> Result<Option<Publication>, Error> {
    let row: Option<String> = sqlx::query_scalar(PUBLICATION)
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(|error| query_error("reading pg_publication", &error))?;
    row.map(|row| parse("pg_publication", &row)).transpose()
}

/// Whether the configuration leaves the publication to lakeward.
fn is_ours(config: &SourceConfig) -> bool {
    config.publication == crate::config::default_slot(&config.name)
}

/// A table as `CREATE PUBLICATION … FOR TABLE` wants it. Without ONLY the tables that inherit from it would be
/// published too; a partitioned table stands for its partitions by itself.
fn member_clause(table: &CatalogTable) -> String {
    table.relation()
}

fn create_statement(config: &SourceConfig, tables: &[&CatalogTable]) -> String {
    let name = quote_identifier(&config.publication);
    let members: Vec<String> = tables.iter().map(|table| member_clause(table)).collect();
    let for_tables = if members.is_empty() { String::new() } else { format!(" FOR TABLE {}", members.join(", ")) };
    format!("CREATE PUBLICATION {name}{for_tables} WITH (publish_via_partition_root = true)")
}

impl Publication {
    /// Notes on each table what the log holds of it.
    pub fn mark(&self, tables: &mut [CatalogTable]) {
        for table in tables {
            table.published = self.publishing(table);
        }
    }

    /// What the log holds of the table now. A partitioned table whose partitions are published under their own names is
    /// one that has all of them published alike.
    fn publishing(&self, table: &CatalogTable) -> Option<Published> {
        let named = |name: &TableName| {
            let found = self.published.iter().find(|found| found.schema == name.schema && found.table == name.table)?;
            let inserts_only = !self.updates && !self.deletes;
            let list =
                self.members.iter().find(|member| &member.name() == name).and_then(|member| member.columns.clone());
            let listed = list.is_some();
            let columns = list.unwrap_or_else(|| self.complete(table, &found.columns));
            Some(Published { columns, filter: found.filter.clone(), inserts_only, listed })
        };
        let sent = |mut published: Published| {
            let generated = |name: &String| table.columns.iter().any(|column| column.generated && &column.name == name);
            published.columns.retain(|name| self.may_send_generated || !generated(name));
            published
        };
        if let Some(published) = named(&table.name()) {
            return Some(sent(published));
        }
        let mut leaves = table.leaves.iter().map(|leaf| {
            let mut published = named(&leaf.name())?;
            // The order of a partition's columns may be another than its root's.
            published.columns.sort_unstable();
            Some(published)
        });
        let first = leaves.next()??;
        // A filter of one partition would have to be applied to this partition alone.
        let alike = first.filter.is_none() && leaves.all(|published| published.as_ref() == Some(&first));
        alike.then(|| sent(first))
    }

    /// `pg_publication_tables` does not read as of the moment that the catalog is read at: it may lack a column that was dropped
    /// just now. Without lists of columns all are sent that are not generated.
    fn complete(&self, table: &CatalogTable, found: &[String]) -> Vec<String> {
        let mut columns = found.to_vec();
        if self.members.iter().all(|member| member.columns.is_none()) {
            let lacking = table.columns.iter().filter(|column| !column.generated && !found.contains(&column.name));
            columns.extend(lacking.map(|column| column.name.clone()));
        }
        columns
    }

    /// Lakeward may bring the members in line.
    fn alterable(&self, config: &SourceConfig) -> bool {
        is_ours(config) && self.owned && !self.all_tables && self.schemas == 0
    }

    fn statements(&self, config: &SourceConfig, wanted: &[&CatalogTable]) -> Vec<String> {
        let name = quote_identifier(&config.publication);
        let current: BTreeSet<TableName> = self.members.iter().map(Member::name).collect();
        let wanted_names: BTreeSet<TableName> = wanted.iter().map(|table| table.name()).collect();
        let added: Vec<String> =
            wanted.iter().filter(|table| !current.contains(&table.name())).map(|table| member_clause(table)).collect();
        let dropped: Vec<String> = current
            .difference(&wanted_names)
            .map(|table| format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.table)))
            .collect();
        let mut statements = Vec::new();
        if !added.is_empty() {
            statements.push(format!("ALTER PUBLICATION {name} ADD TABLE {}", added.join(", ")));
        }
        if !dropped.is_empty() {
            statements.push(format!("ALTER PUBLICATION {name} DROP TABLE {}", dropped.join(", ")));
        }
        statements
    }
}

/// What keeps the publication from publishing `tables` whole.
pub fn problems(
    config: &SourceConfig,
    contracts: &Contracts,
    publication: Option<&Publication>,
    tables: &[&CatalogTable],
    may_create: bool,
) -> Vec<Problem> {
    let subject = format!("publication {}", config.publication);
    let name = quote_identifier(&config.publication);
    let user = quote_identifier(&config.user);
    let Some(publication) = publication else {
        let not_owned: Vec<&&CatalogTable> = tables.iter().filter(|table| !table.owned).collect();
        let create = create_statement(config, tables);
        if !is_ours(config) {
            return vec![Problem::new(ProblemKind::Setting, subject, "does not exist", format!("run: {create}"))];
        }
        if may_create && not_owned.is_empty() {
            return Vec::new();
        }
        let mut lacks = Vec::new();
        if !may_create {
            lacks.push("it lacks CREATE on the database".to_owned());
        }
        if let Some(table) = not_owned.first() {
            lacks.push(format!("it does not own {} of the tables, for example {}", not_owned.len(), table.name()));
        }
        let mut grants = format!("GRANT CREATE ON DATABASE {} TO {user}", quote_identifier(&config.database));
        let owners: BTreeSet<&str> = not_owned.iter().map(|table| table.owner.as_str()).collect();
        for owner in owners {
            grants.push_str(&format!("; GRANT {} TO {user}", quote_identifier(owner)));
        }
        return vec![Problem::new(
            ProblemKind::Privilege,
            subject,
            format!("does not exist, and user `{}` may not create it: {}", config.user, lacks.join(" and ")),
            format!("as a superuser run: {create}; or let lakeward manage it: {grants}"),
        )];
    };
    let mut problems = Vec::new();
    let mut setting = |finding: String, remedy: String| {
        problems.push(Problem::new(ProblemKind::Setting, subject.clone(), finding, remedy));
    };
    // A table whose rows are only ever added needs no more than the rest of `if` says.
    let changed = tables.iter().filter(|table| table.has_identity()).find(|table| {
        let contract = contracts.get(&config.name, &table.name().to_string());
        contract.is_none_or(|contract| contract.without_key != WithoutKey::Append || !table.key.is_empty())
    });
    if !publication.inserts {
        setting(
            "does not publish inserts".into(),
            format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
        );
    } else if let Some(table) = changed
        && !(publication.updates && publication.deletes && publication.truncates)
    {
        setting(
            format!("does not publish all of insert, update, delete and truncate, which table {} needs", table.name()),
            format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
        );
    }
    if publication.alterable(config) {
        let current: BTreeSet<TableName> = publication.members.iter().map(Member::name).collect();
        let not_owned: Vec<&&CatalogTable> =
            tables.iter().filter(|table| !table.owned && !current.contains(&table.name())).collect();
        if !not_owned.is_empty() {
            let clauses: Vec<String> = not_owned.iter().map(|table| member_clause(table)).collect();
            problems.push(Problem::new(
                ProblemKind::Privilege,
                subject,
                format!(
                    "user `{}` may not add tables that it does not own, for example {}",
                    config.user,
                    not_owned[0].name()
                ),
                format!("as a superuser run: ALTER PUBLICATION {name} ADD TABLE {}", clauses.join(", ")),
            ));
        }
    } else {
        let missing: Vec<&&CatalogTable> = tables.iter().filter(|table| table.published.is_none()).collect();
        if !missing.is_empty() {
            let clauses: Vec<String> = missing.iter().map(|table| member_clause(table)).collect();
            setting(
                format!(
                    "does not publish {} of the selected tables, for example {} (of a partitioned table: all its \
                     partitions, alike and without row filters, or the table itself)",
                    missing.len(),
                    missing[0].name()
                ),
                format!(
                    "as its owner run: ALTER PUBLICATION {name} ADD TABLE {}; or leave the tables out of `tables`",
                    clauses.join(", ")
                ),
            );
        }
    }
    problems
}

/// Makes the publication hold exactly `tables` where it is lakeward's own; checks it otherwise.
pub async fn ensure(
    connection: &mut PgConnection,
    config: &SourceConfig,
    contracts: &Contracts,
    tables: &mut [CatalogTable],
    durable: Option<u64>,
) -> Result<(), Error> {
    let publication = find(connection, &config.publication).await?;
    if let Some(publication) = &publication {
        publication.mark(tables);
    }
    if let Some(table) = tables.iter().find(|table| !table.capturable(&config.name, contracts)) {
        return Err(Error::Table {
            table: table.name().to_string(),
            finding: "it has no usable replica identity; publishing it would make the application's UPDATE and DELETE \
                      fail"
                .into(),
            position: "its present definition".into(),
            remedy: identity_remedy(table),
        });
    }
    let wanted: Vec<&CatalogTable> = tables.iter().collect();
    if let (None, Some(durable)) = (&publication, durable) {
        // Changes made while it was missing were not decoded, and a new one does not bring them back.
        return Err(Error::PositionLost {
            position: Position::Lsn(durable),
            cause: format!(
                "publication `{}` was dropped, and changes made without it are not in the stream",
                config.publication
            ),
        });
    }
    let may_create = may_create(connection).await?;
    if let Some(problem) = problems(config, contracts, publication.as_ref(), &wanted, may_create).into_iter().next() {
        return Err(as_error(problem));
    }
    let statements = match &publication {
        None => vec![create_statement(config, &wanted)],
        Some(publication) if publication.alterable(config) => publication.statements(config, &wanted),
        Some(_) => Vec::new(),
    };
    if statements.is_empty() {
        return Ok(());
    }
    let failed = |statement: &str, error: sqlx::Error| query_error(statement, &error);
    let mut transaction = connection.begin().await.map_err(|error| failed("BEGIN", error))?;
    // It locks each table for a moment, and whoever queues behind it must not wait long.
    for statement in ["SET LOCAL lock_timeout = '5s'", "SET LOCAL statement_timeout = '30s'"] {
        sqlx::query(statement).execute(&mut *transaction).await.map_err(|error| failed(statement, error))?;
    }
    for statement in &statements {
        sqlx::query(AssertSqlSafe(statement.clone()))
            .execute(&mut *transaction)
            .await
            .map_err(|error| failed(statement, error))?;
    }
    transaction.commit().await.map_err(|error| failed("COMMIT", error))?;
    for statement in &statements {
        info!(source = config.name, statement, "changed the publication");
    }
    Ok(())
}

pub async fn may_create(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT has_database_privilege(current_database(), 'CREATE')")
        .fetch_one(connection)
        .await
        .map_err(|error| query_error("reading privileges", &error))
}

pub fn identity_remedy(table: &CatalogTable) -> String {
    let quoted = format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.table));
    if table.generated_identity {
        return format!("give it a primary key and run: ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT");
    }
    if table.kind == "p" {
        return format!("give {quoted} a primary key and leave it and its partitions at REPLICA IDENTITY DEFAULT");
    }
    if table.published.is_some() && (table.unsent_key() || table.unsent_identity()) {
        return format!(
            "add the columns of its replica identity to the publication's column list, or take {quoted} out of it"
        );
    }
    format!(
        "add a primary key; or run: ALTER TABLE {quoted} REPLICA IDENTITY USING INDEX <a unique index over NOT NULL \
         columns>; or: ALTER TABLE {quoted} REPLICA IDENTITY FULL, with `key` in the table's contract if some columns do \
         identify a row; or, where rows are only ever added, say `without_key = \"append\"` in the contract and give the \
         source a `publication` of its own made WITH (publish = 'insert')"
    )
}

fn as_error(problem: Problem) -> Error {
    match problem.kind {
        ProblemKind::Privilege => {
            Error::Privilege { need: format!("{}: {}", problem.subject, problem.finding), remedy: problem.remedy }
        }
        _ => Error::Setting { subject: problem.subject, finding: problem.finding, remedy: problem.remedy },
    }
}
