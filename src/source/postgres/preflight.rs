//! What would keep a database from being captured: every finding at once, each with the statement that mends it.
//!
//! Only reads. The list is PostgreSQL's part of what a logical replication client needs: manual, chapters 31 "Logical
//! Replication" and 49 "Logical Decoding", and `pg_replication_slots`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::catalog::{self, CatalogTable, parse};
use super::connection::{connect, connect_replication, query_error, quote_identifier, quote_literal};
use super::{publication, slot};
use crate::config::{Contracts, SourceConfig, TableSelection};
use crate::source::{Class, Error, Position, Problem, ProblemKind};

const VERSION_MIN: i32 = 150_000;

#[derive(Debug, Deserialize)]
struct Server {
    version: String,
    version_number: i32,
    in_recovery: bool,
    wal_level: String,
    server_encoding: String,
    max_replication_slots: i64,
    slots: i64,
    max_wal_senders: i64,
    senders: i64,
    /// In megabytes; -1 for no limit.
    max_slot_wal_keep_size: i64,
    /// Since 18; in seconds, 0 for none.
    idle_replication_slot_timeout: Option<i64>,
    may_replicate: bool,
    may_create: bool,
}

const SERVER: &str = "
    SELECT json_build_object(
        'version', current_setting('server_version'),
        'version_number', current_setting('server_version_num')::int4,
        'in_recovery', pg_is_in_recovery(),
        'wal_level', current_setting('wal_level'),
        'server_encoding', current_setting('server_encoding'),
        'max_replication_slots', current_setting('max_replication_slots')::int8,
        'slots', (SELECT count(*) FROM pg_replication_slots),
        'max_wal_senders', current_setting('max_wal_senders')::int8,
        'senders', (SELECT count(*) FROM pg_stat_replication),
        'max_slot_wal_keep_size', (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
        'idle_replication_slot_timeout',
            (SELECT setting::int8 FROM pg_settings WHERE name = 'idle_replication_slot_timeout'),
        'may_replicate', (SELECT r.rolreplication OR r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)
            OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ('rds_replication', 'rds_superuser')
                AND pg_has_role(r.oid, 'MEMBER')),
        'may_create', has_database_privilege(current_database(), 'CREATE')
    )::text";

/// See [`crate::source::Source::preflight`].
pub async fn examine(config: &SourceConfig, contracts: &Contracts) -> Result<Vec<Problem>, Error> {
    let mut connection = connect(config).await?;
    let row: String = sqlx::query_scalar(SERVER)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| query_error("reading the server's settings", &error))?;
    let server: Server = parse("the server's settings", &row)?;
    let mut problems = Vec::new();
    examine_server(config, &server, &mut problems);
    if server.version_number < VERSION_MIN {
        // The catalog queries below are for later versions.
        return Ok(problems);
    }
    let lost = examine_slot(&mut connection, config, &server, &mut problems).await?;
    let mut tables = catalog::selected(&mut connection, config).await?;
    let found = publication::find(&mut connection, &config.publication).await?;
    if let Some(found) = &found {
        found.mark(&mut tables);
    }
    examine_selection(config, &tables, &mut problems);
    for table in &tables {
        examine_table(config, contracts, table, &mut problems);
    }
    examine_select(config, &tables, &mut problems);
    let capturable: Vec<&CatalogTable> =
        tables.iter().filter(|table| table.capturable(&config.name, contracts) && table.persistence == "p").collect();
    problems.extend(publication::problems(config, contracts, found.as_ref(), &capturable, server.may_create));
    let settled = problems.iter().all(|problem| matches!(problem.kind, ProblemKind::Warning | ProblemKind::Table));
    if settled {
        if let Some(lost) = lost {
            return Err(lost);
        }
        // pg_hba.conf can't be read from here; only trying tells.
        if let Err(error) = connect_replication(config, 0).await {
            if error.class() == Class::Transient {
                return Err(error);
            }
            problems.push(Problem::new(
                ProblemKind::Privilege,
                "replication session",
                error.to_string(),
                "allow it in pg_hba.conf as for ordinary sessions of this user",
            ));
        }
    }
    Ok(problems)
}

fn examine_server(config: &SourceConfig, server: &Server, problems: &mut Vec<Problem>) {
    let mut setting = |subject: &str, finding: String, remedy: &str| {
        problems.push(Problem::new(ProblemKind::Setting, subject, finding, remedy));
    };
    if server.version_number < VERSION_MIN {
        let finding = format!("the server is PostgreSQL {}, 15 or later is needed", server.version);
        setting("server version", finding, "upgrade the server");
    }
    if server.in_recovery {
        setting(
            "server role",
            "the server is a standby; publications and their slots live on the primary".into(),
            "put the primary's address into the source's `url`",
        );
    }
    if server.wal_level != "logical" {
        setting(
            "wal_level",
            format!("is `{}`, `logical` is needed", server.wal_level),
            "ALTER SYSTEM SET wal_level = 'logical', then restart the server (on Amazon RDS: rds.logical_replication = 1)",
        );
    }
    if server.server_encoding == "SQL_ASCII" {
        setting(
            "server_encoding",
            "is SQL_ASCII: the bytes of a text have no known meaning and can't become UTF-8".into(),
            "dump the database and restore it into one with ENCODING 'UTF8'",
        );
    }
    if server.max_wal_senders - server.senders < 2 {
        setting(
            "max_wal_senders",
            format!("{} of {} are in use; this source needs two", server.senders, server.max_wal_senders),
            "ALTER SYSTEM SET max_wal_senders = <more>, then restart the server",
        );
    }
    if !server.may_replicate {
        let user = quote_identifier(&config.user);
        problems.push(Problem::new(
            ProblemKind::Privilege,
            format!("user {}", config.user),
            "has not the REPLICATION attribute, which reading the log needs",
            format!("ALTER ROLE {user} REPLICATION -- on Amazon RDS: GRANT rds_replication TO {user}"),
        ));
    }
    if server.max_slot_wal_keep_size < 0 {
        problems.push(Problem::new(
            ProblemKind::Warning,
            "max_slot_wal_keep_size",
            "is -1: while lakeward does not run, the server keeps all log since then, until its disk is full",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '<what the disk can spare>'; SELECT pg_reload_conf(). A slot \
             that falls further behind is lost, and its tables have to be loaded again",
        ));
    }
    if let Some(seconds @ 1..) = server.idle_replication_slot_timeout {
        problems.push(Problem::new(
            ProblemKind::Warning,
            "idle_replication_slot_timeout",
            format!("the server invalidates the slot when lakeward does not run for {seconds} seconds"),
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
        ));
    }
}

/// Gives back the error of a slot that the server gave up: no setting or privilege brings it back.
async fn examine_slot(
    connection: &mut PgConnection,
    config: &SourceConfig,
    server: &Server,
    problems: &mut Vec<Problem>,
) -> Result<Option<Error>, Error> {
    let subject = format!("replication slot {}", config.slot);
    let found = slot::find(connection, &config.slot).await?;
    let mut setting = |finding: String, remedy: String| {
        problems.push(Problem::new(ProblemKind::Setting, subject.clone(), finding, remedy));
    };
    // `ReplicationSlotValidateName` in slot.c.
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if config.slot.is_empty() || config.slot.len() > 63 || !config.slot.bytes().all(valid) {
        setting(
            "is not a possible name: at most 63 of a-z, 0-9 and _".into(),
            format!("set `slot` of source `{}`, for example \"lakeward_1\"", config.name),
        );
    }
    let needed = if found.is_some() { 1 } else { 2 };
    if server.max_replication_slots - server.slots < needed {
        problems.push(Problem::new(
            ProblemKind::Setting,
            "max_replication_slots",
            format!(
                "{} of {} are in use; this source needs {needed} more, one of them while it loads tables",
                server.slots, server.max_replication_slots
            ),
            "ALTER SYSTEM SET max_replication_slots = <more>, then restart the server; or drop a slot nobody reads",
        ));
        return Ok(None);
    }
    let Some(slot) = found else { return Ok(None) };
    if let Some(finding) = slot.foreign(config) {
        setting(
            finding,
            format!(
                "give the source another `slot`; or, if nobody needs this one, run: SELECT \
                 pg_drop_replication_slot({}), and load the tables again (`lakeward resync --all --source {}`; see README, \"When a position is lost\")",
                quote_literal(&config.slot),
                config.name
            ),
        );
    }
    Ok(slot.lost().map(|cause| Error::SlotLost {
        slot: config.slot.clone(),
        cause,
        position: Position::Lsn(slot.confirmed().unwrap_or_default()),
    }))
}

fn examine_selection(config: &SourceConfig, tables: &[CatalogTable], problems: &mut Vec<Problem>) {
    let mut unmatched = Vec::new();
    for pattern in config.tables.patterns().filter(|pattern| !pattern.starts_with('!')) {
        let alone = TableSelection::parse(&[pattern]);
        if alone.is_ok_and(|alone| !tables.iter().any(|table| alone.selects(&table.name().to_string()))) {
            unmatched.push(pattern);
        }
    }
    for pattern in unmatched {
        problems.push(Problem::new(
            if tables.is_empty() { ProblemKind::Setting } else { ProblemKind::Warning },
            format!("pattern {pattern}"),
            format!("matches no table of database `{}`", config.database),
            "correct `tables` (schema.table), or create the table",
        ));
    }
    let schemas: BTreeSet<&str> =
        tables.iter().filter(|table| !table.schema_usable).map(|table| table.schema.as_str()).collect();
    for schema in schemas {
        problems.push(Problem::new(
            ProblemKind::Privilege,
            format!("schema {schema}"),
            format!("user `{}` may not use it", config.user),
            format!("GRANT USAGE ON SCHEMA {} TO {}", quote_identifier(schema), quote_identifier(&config.user)),
        ));
    }
}

fn examine_table(config: &SourceConfig, contracts: &Contracts, table: &CatalogTable, problems: &mut Vec<Problem>) {
    let name = table.name();
    let mut problem = |kind, finding: String, remedy: String| {
        problems.push(Problem::new(kind, format!("table {name}"), finding, remedy));
    };
    let quoted = format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.table));
    if table.persistence == "u" {
        problem(
            ProblemKind::Table,
            "is unlogged: its changes are not in the log".into(),
            format!("ALTER TABLE {quoted} SET LOGGED; or leave it out of `tables`"),
        );
        return;
    }
    if !table.capturable(&config.name, contracts) {
        let finding = match table.identity.as_str() {
            _ if table.unsent_key() && table.published.is_some() => {
                "has a column in its key that is not in the publication's column list"
            }
            _ if table.unsent_key() => "has a generated column in its key, which is not in the log",
            _ if table.generated_identity && table.unsent_identity() => {
                "has REPLICA IDENTITY FULL and a generated column, which PostgreSQL 18 does not publish by itself"
            }
            _ if table.unsent_identity() => {
                "has REPLICA IDENTITY FULL, and the publication's column list is not the whole row"
            }
            "n" => "has REPLICA IDENTITY NOTHING",
            "i" if table.kind == "r" => "has REPLICA IDENTITY USING INDEX, but the index is gone or not valid",
            _ if table.kind == "p" => "is partitioned, and it or its partitions lack a common replica identity",
            _ => "has no primary key and no other replica identity",
        };
        problem(
            ProblemKind::Table,
            format!("{finding}; once published, the application's own UPDATE and DELETE would fail"),
            publication::identity_remedy(table),
        );
    }
    match table.schema(&config.name, contracts) {
        Err(finding) => problem(ProblemKind::Setting, finding, "correct the table's contract".into()),
        Ok(schema) if schema.columns.is_empty() => {
            problem(ProblemKind::Table, "has no columns".into(), "leave it out of `tables`".into());
        }
        Ok(schema) => {
            let mut folded: BTreeMap<String, &str> = BTreeMap::new();
            for column in &schema.columns {
                if let Some(other) = folded.insert(column.name.to_lowercase(), &column.name) {
                    problem(
                        ProblemKind::Table,
                        format!(
                            "columns `{other}` and `{}` differ in case only, which the lake can't hold",
                            column.name
                        ),
                        "exclude one of them in the table's contract".into(),
                    );
                }
            }
        }
    }
    if table.row_security {
        problem(
            ProblemKind::Privilege,
            format!("row-level security hides rows from user `{}`", config.user),
            format!("ALTER ROLE {} BYPASSRLS", quote_identifier(&config.user)),
        );
    }
}

/// One statement for all tables of a schema.
fn examine_select(config: &SourceConfig, tables: &[CatalogTable], problems: &mut Vec<Problem>) {
    let mut unreadable: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in tables.iter().filter(|table| !table.readable) {
        let quoted = format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.table));
        unreadable.entry(&table.schema).or_default().push(quoted);
    }
    for (schema, names) in unreadable {
        problems.push(Problem::new(
            ProblemKind::Privilege,
            format!("tables of schema {schema}"),
            format!("user `{}` may not read {} of them", config.user, names.len()),
            format!("GRANT SELECT ON {} TO {}", names.join(", "), quote_identifier(&config.user)),
        ));
    }
}
