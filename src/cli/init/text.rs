//! The words that `init` writes: config.toml, contracts, and what to do next.

use std::fmt::Write;
use std::path::Path;

use toml_edit::Value;
use url::Url;

use super::{PasswordPlace, Plan};
use crate::config::{DatabaseKind, SourceConfig, default_slot};
use crate::schema::TableSchema;

/// As a TOML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as a pattern that matches it only.
fn escaped_glob(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

pub(super) fn url_without_password(source: &SourceConfig) -> String {
    let (scheme, path) = match source.kind {
        DatabaseKind::MySql => ("mysql", ""),
        DatabaseKind::Postgres => ("postgres", source.database.as_str()),
    };
    let host = if source.host.contains(':') { format!("[{}]", source.host) } else { source.host.clone() };
    let address = format!("{scheme}://{host}:{}", source.port);
    let Ok(mut url) = Url::parse(&address) else { return address };
    // Both only fail for urls without a host.
    let _ = url.set_username(&source.user);
    if !path.is_empty() {
        url.set_path(path);
    }
    url.to_string()
}

pub(super) fn config(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        r#"# Written by `lakeward init` for {server}. Every key is described in the README, "Configuration".

[lake]
# file:///folder, s3://bucket/prefix, or a path beside this file. A table lands at
# <url>/<source name>/<database or schema>/<table>.
url = {lake}

# Options of the object store, by their usual names. Keys may come from the environment instead (AWS_ACCESS_KEY_ID, …).
# [lake.storage]
# aws_region = "eu-central-1"
# aws_endpoint_url = "https://s3.example.org"

# When the changes of a table become a commit of its Delta table; whichever comes first.
[commit]
interval_seconds = 10
rows_max = 1_000_000
bytes_max = "256MiB"

[memory]
budget = "512MiB"

# What becomes of changes of the tables' columns (docs/schema-changes.md); a contract may have its own.
# apply, hold (waits for `lakeward schema approve`), ignore, keep, fail
[schema_changes]
add = "apply"
drop = "keep"
rename = "apply"
widen = "apply"

[[source]]
name = {name}
url = {url}
"#,
        server = plan.server,
        lake = quoted(&plan.lake),
        name = quoted(&plan.name),
        url = quoted(&plan.url),
    );
    let _ = match &plan.password {
        PasswordPlace::File(file) => writeln!(text, "password_file = {}", quoted(&file.display().to_string())),
        PasswordPlace::Variable(variable) => writeln!(text, "password_env = {}", quoted(variable)),
        PasswordPlace::Nowhere => writeln!(text, "# password_file = \"/run/secrets/{}\"", plan.name),
    };
    text.push_str("# disable, prefer, require, verify-ca or verify-full\ntls = \"prefer\"\n");
    text.push_str("# Names or patterns (`*`); `!` before one excludes; the last one that matches decides.\n");
    text.push_str("tables = [\n");
    if plan.patterns.is_empty() {
        for table in &plan.tables {
            let line = quoted(&escaped_glob(&table.name.to_string()));
            let _ = if table.can_be_followed() {
                writeln!(text, "  {line},")
            } else {
                writeln!(text, "  # {line}, # has no key: give it a primary key, or a contract with `key`")
            };
        }
    } else {
        for pattern in &plan.patterns {
            let _ = writeln!(text, "  {},", quoted(pattern));
        }
    }
    text.push_str("]\n");
    text.push_str(NOTICES);
    text
}

const NOTICES: &str = r#"
# Who is told of schema changes, stopped tables and the like: a webhook, Slack, a program or people by e-mail, at once or
# once a day. See docs/notices.md; `lakeward notify test NAME` tries one.
# [[notice]]
# name = "team"
# kind = "slack"
# url_file = "/run/secrets/slack"
# events = ["schema.*", "table.*"]
# digest = "09:00"
# timezone = "UTC"
"#;

pub(super) fn contract(plan: &Plan, table: &TableSchema) -> String {
    let name = table.name.to_string();
    let mut text = format!(
        "# What the team states about {} and the database can't say.\nsource = {}\ntable = {}\n",
        name.replace('\n', " "),
        quoted(&plan.name),
        quoted(&name),
    );
    text.push_str("# Who is asked about this table.\nowners = []\n# description = \"\"\n");
    if table.key.is_empty() {
        text.push_str("# The source has no key: name the columns that together are different in every row.\n");
        text.push_str("# key = [\"…\"]\n");
        if table.can_be_followed() {
            text.push_str(
                "# Without one it is followed as a multiset of whole rows, unless rows are only ever added:\n",
            );
            text.push_str("# without_key = \"append\"\n");
        }
    }
    text.push_str("# partition_by = [\"…\"]\n# Columns that never reach the lake.\n# exclude = [\"…\"]\n");
    text.push_str(
        "# New columns of this table wait for `lakeward schema approve`:\n# [schema_changes]\n# add = \"hold\"\n",
    );
    text
}

/// The statements that give the user what lakeward needs.
pub(super) fn grants(plan: &Plan) -> String {
    let mut schemas: Vec<&str> = plan.tables.iter().map(|table| table.name.schema.as_str()).collect();
    schemas.dedup();
    match plan.kind {
        DatabaseKind::MySql => mysql_grants(plan, &schemas),
        DatabaseKind::Postgres => postgres_grants(plan, &schemas),
    }
}

fn mysql_grants(plan: &Plan, schemas: &[&str]) -> String {
    let user = format!("'{}'@'%'", plan.user.replace('\'', "''"));
    // MySQL has no lock-free way to read a table's rows and the log position that belongs to them.
    let rights = if plan.server.starts_with("MariaDB") {
        "REPLICATION SLAVE, BINLOG MONITOR"
    } else {
        "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, XA_RECOVER_ADMIN"
    };
    let mut text = format!("  CREATE USER {user} IDENTIFIED BY '…';\n  GRANT {rights} ON *.* TO {user};\n");
    for schema in schemas {
        let _ = writeln!(text, "  GRANT SELECT ON `{}`.* TO {user};", schema.replace('`', "``"));
    }
    text
}

fn postgres_grants(plan: &Plan, schemas: &[&str]) -> String {
    let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let user = identifier(&plan.user);
    let mut text = format!("  CREATE ROLE {user} LOGIN REPLICATION PASSWORD '…';\n");
    let _ = writeln!(text, "  GRANT CONNECT ON DATABASE {} TO {user};", identifier(&plan.database));
    for schema in schemas {
        let schema = identifier(schema);
        let _ = writeln!(text, "  GRANT USAGE ON SCHEMA {schema} TO {user};");
        let _ = writeln!(text, "  GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user};");
        let _ = writeln!(text, "  ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {user};");
    }
    let keyed: Vec<String> = plan
        .tables
        .iter()
        .filter(|table| table.can_be_followed())
        .map(|table| format!("ONLY {}.{}", identifier(&table.name.schema), identifier(&table.name.table)))
        .collect();
    let publication = identifier(&default_slot(&plan.name));
    text.push_str("  -- The publication: make it once as a superuser or as the tables' owner,\n");
    let _ = writeln!(
        text,
        "  CREATE PUBLICATION {publication} FOR TABLE\n    {}\n    WITH (publish_via_partition_root = true);",
        keyed.join(",\n    ")
    );
    let _ = writeln!(
        text,
        "  -- or let lakeward make and keep it:\n  -- GRANT CREATE ON DATABASE {} TO {user}; GRANT <the tables' owner> TO {user};",
        identifier(&plan.database)
    );
    text
}

pub(super) fn next_steps(plan: &Plan, out: &Path, contracts: usize) -> String {
    let mut text = format!("{}: {} tables found\n", plan.server, plan.tables.len());
    let _ = writeln!(
        text,
        "wrote {} and {contracts} contracts in {}",
        out.join("config.toml").display(),
        out.join("schemas").display()
    );
    let keyless: Vec<String> =
        plan.tables.iter().filter(|table| !table.can_be_followed()).map(|table| table.name.to_string()).collect();
    if !keyless.is_empty() {
        let _ = writeln!(text, "\nwithout a key, and so left out until they have one: {}", keyless.join(", "));
    }
    text.push_str("\nNext:\n1. The user needs these rights; leave out what it has:\n");
    text.push_str(&grants(plan));
    match &plan.password {
        PasswordPlace::Variable(variable) => {
            let _ = writeln!(text, "2. Put the password into the environment variable {variable} (it is in no file).");
        }
        PasswordPlace::File(file) => {
            let _ = writeln!(text, "2. Keep {} readable for lakeward's user only.", file.display());
        }
        PasswordPlace::Nowhere => text.push_str("2. Set `password_file` or `password_env` if the server wants one.\n"),
    }
    let config = out.join("config.toml");
    let _ = writeln!(text, "3. lakeward --config {} check    # everything that is still missing", config.display());
    let _ = write!(text, "4. lakeward --config {} run", config.display());
    if plan.kind == DatabaseKind::Postgres {
        let _ = write!(
            text,
            "\n\nOptional, and your decision: with an event trigger the log tells every schema change exactly, with the text of \
             the statement. It makes a schema `lakeward` in database {}, reads the catalog at each DDL statement and writes to \
             the log only; it never makes a statement fail (docs/event-trigger.md). A superuser installs it with\n  psql -f {} {}\nand \
             removes it with DROP SCHEMA lakeward CASCADE.",
            plan.database,
            out.join(super::EVENT_TRIGGER_FILE).display(),
            plan.database
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SourceUrl};
    use crate::schema::{Column, LakeType, Policy, RowIdentity, TableName};

    fn plan(kind: DatabaseKind) -> Plan {
        let table = |schema: &str, table: &str, key: Vec<usize>| TableSchema {
            name: TableName::new(schema, table),
            columns: vec![Column {
                name: "id".into(),
                source_type: "int".into(),
                lake_type: LakeType::Integer,
                nullable: false,
                policy: Policy::default(),
            }],
            key,
            partition_by: Vec::new(),
            identity: RowIdentity::Key,
        };
        Plan {
            name: "shop-eu".into(),
            kind,
            server: "MariaDB 10.11.19".into(),
            url: match kind {
                DatabaseKind::MySql => "mysql://cdc@h:3306".into(),
                DatabaseKind::Postgres => "postgres://cdc@h:5432/shop".into(),
            },
            user: "cdc".into(),
            database: "shop".into(),
            lake: "s3://bucket/\"odd\"".into(),
            password: PasswordPlace::Nowhere,
            patterns: Vec::new(),
            tables: vec![table("a", "with key", vec![0]), table("a", "odd[1]", vec![0]), table("b", "keyless", vec![])],
        }
    }

    #[test]
    fn what_init_writes_is_a_valid_configuration() {
        for kind in [DatabaseKind::MySql, DatabaseKind::Postgres] {
            let folder = tempfile::tempdir().expect("folder");
            let plan = plan(kind);
            for (path, content) in super::super::files(&plan, folder.path()) {
                super::super::write(&path, &content).expect("written");
            }
            let config = Config::load(&folder.path().join("config.toml")).unwrap_or_else(|error| panic!("{error}"));
            let source = &config.sources[0];
            assert!(source.tables.selects("a.with key") && source.tables.selects("a.odd[1]"));
            assert!(!source.tables.selects("b.keyless"));
            assert_eq!(config.contracts.iter().count(), 2);
            assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        }
    }

    #[test]
    fn the_event_trigger_is_offered_where_there_is_one() {
        let steps = |kind| next_steps(&plan(kind), Path::new("/etc/lakeward"), 2);
        let offered = steps(DatabaseKind::Postgres);
        assert!(offered.contains("psql -f /etc/lakeward/lakeward-event-trigger.sql shop"), "{offered}");
        assert!(offered.contains("DROP SCHEMA lakeward CASCADE"), "{offered}");
        assert!(!steps(DatabaseKind::MySql).contains("event trigger"));
    }

    #[test]
    fn grants_quote_names() {
        let mut odd = plan(DatabaseKind::Postgres);
        odd.user = "c\"dc".into();
        let text = grants(&odd);
        assert!(text.contains("CREATE ROLE \"c\"\"dc\" LOGIN REPLICATION"), "{text}");
        assert!(text.contains("FOR TABLE\n    ONLY \"a\".\"with key\",\n    ONLY \"a\".\"odd[1]\"\n"), "{text}");
    }

    #[test]
    fn a_url_is_written_without_its_password() {
        for (url, written) in [
            ("mysql://c%40dc:secret@h", "mysql://c%40dc@h:3306"),
            ("postgres://cdc:secret@[::1]:6000/sh%20op", "postgres://cdc@[::1]:6000/sh%20op"),
        ] {
            let parsed = SourceUrl::parse(url).expect(url);
            let source = SourceConfig {
                name: "a".into(),
                kind: parsed.kind,
                host: parsed.host,
                port: parsed.port,
                user: parsed.user,
                password: parsed.password,
                database: parsed.database,
                tls: crate::config::Tls::Prefer,
                tls_ca_file: None,
                tables: crate::config::TableSelection::parse(&["*.*"]).expect("valid"),
                server_id: 1,
                slot: String::new(),
                publication: String::new(),
                on_lost_position: crate::config::OnLostPosition::Stop,
            };
            assert_eq!(url_without_password(&source), written);
        }
    }
}
