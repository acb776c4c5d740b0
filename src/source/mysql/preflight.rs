//! Everything that would keep tables from being captured, at once, each with the statement that mends it.

use std::collections::{HashMap, HashSet};

use crate::config::{Contracts, SourceConfig, TableSelection};
use crate::schema::RowIdentity;
use crate::source::{Error, Problem, ProblemKind};

use super::catalog::{self, CatalogTable};
use super::connection::{Session, literal, quoted};
use super::flavor::{Flavor, Vendor};

/// Less retention than this loses changes over a long weekend's outage.
const RETENTION_SECONDS_MIN: u64 = 24 * 3600;

/// Asks the server everything. Changes nothing.
pub async fn problems(config: &SourceConfig, contracts: &Contracts) -> Result<Vec<Problem>, Error> {
    let mut session = Session::open(config).await?;
    let answer = session.query("SHOW GLOBAL VARIABLES").await?;
    let variables: HashMap<String, String> = answer
        .rows
        .into_iter()
        .filter_map(|row| {
            let mut values = row.into_iter();
            Some((values.next()??.to_ascii_lowercase(), values.next().flatten().unwrap_or_default()))
        })
        .collect();
    let mut problems = settings(&session.flavor, &variables, config.server_id);
    let grants = grants(&mut session).await?;
    let missing = missing_privileges(&session.flavor, &session.account, &grants);
    // Good to have, so told where nothing that is needed is missing.
    if missing.is_empty() && super::position::undecided(&mut session).await?.is_none() {
        problems.push(Problem::new(
            ProblemKind::Warning,
            "privilege XA_RECOVER_ADMIN",
            "is missing: at the first start, XA transactions that are prepared already go unnoticed, and their commit stops \
             the tables",
            format!("GRANT XA_RECOVER_ADMIN ON *.* TO {}", session.account),
        ));
    }
    problems.extend(missing);

    let collations = catalog::collations(&mut session).await?;
    let tables = catalog::tables(&mut session, config, contracts, &collations).await?;
    let mut all_readable = true;
    for pattern in config.tables.patterns().filter(|pattern| !pattern.starts_with('!')) {
        let alone = TableSelection::parse(&[pattern]);
        let matches = |name: &str| alone.as_ref().is_ok_and(|alone| alone.selects(name));
        if !tables.iter().any(|table| matches(&table.schema.name.to_string()))
            && let Some(problem) = invisible(pattern, &session.account, &grants)
        {
            all_readable = false;
            problems.push(problem);
        }
    }
    if tables.is_empty() && all_readable {
        let patterns: Vec<&str> = config.tables.patterns().collect();
        problems.push(Problem::new(
            ProblemKind::Table,
            "tables",
            format!("no table matches {patterns:?}, or the user may not see it"),
            format!("correct `tables` in config.toml, or GRANT SELECT ON *.* TO {}", session.account),
        ));
    }
    for table in &tables {
        problems.extend(readable(&mut session, table).await?);
        problems.extend(table_problems(table));
    }
    if !session.flavor.logs_cascades() || variables.get("innodb_native_foreign_keys").is_some_and(|value| value == "ON")
    {
        problems.extend(cascades(&mut session, &tables).await?);
    }
    Ok(problems)
}

fn settings(flavor: &Flavor, variables: &HashMap<String, String>, server_id: u32) -> Vec<Problem> {
    let mut problems = Vec::new();
    let value = |name: &str| variables.get(name).map(String::as_str);
    let is = |name: &str, wanted: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
    let mut setting = |kind, name: &str, finding: String, remedy: String| {
        problems.push(Problem::new(kind, name, finding, remedy));
    };
    if !is("log_bin", "ON") && !is("log_bin", "1") {
        setting(
            ProblemKind::Setting,
            "log_bin",
            "the server writes no binlog".to_owned(),
            "add to the server's my.cnf under [mysqld]: log_bin=binlog and server_id=1 (unique), and restart it"
                .to_owned(),
        );
    }
    match value("binlog_format") {
        // MySQL is about to drop it, with ROW as what is left.
        None => {}
        Some(found) if found.eq_ignore_ascii_case("ROW") => {}
        Some(found) => setting(
            ProblemKind::Setting,
            "binlog_format",
            format!("is {found}, needs to be ROW: statements in the log can't be applied"),
            remedy_for("binlog_format", "ROW"),
        ),
    }
    let image = if flavor.is_mariadb() {
        "an update leaves columns out, and where its log can't tell a REPLACE or INSERT … ON DUPLICATE KEY UPDATE from an \
         update that kept them (with NOBLOB: any update of a table with texts or blobs) the table stops, as do tables with \
         virtual generated columns; an inserted row without a column whose default is not a plain constant stops it too"
    } else {
        "an inserted row without a column whose default is not a plain constant stops its table; tables without a key stop \
         at the first update or delete"
    };
    let metadata = "the log does not say all of the tables' columns; what it leaves out is taken from the history of their \
                    schemas in the ledger, and a DDL statement whose effect is not certain stops its table";
    for (name, consequence) in [("binlog_row_image", image), ("binlog_row_metadata", metadata)] {
        // Servers that do not have the variable log whole rows and no metadata.
        if let Some(found) = value(name)
            && !found.eq_ignore_ascii_case("FULL")
        {
            let finding = format!("is {found}: {consequence}");
            setting(ProblemKind::Warning, name, finding, remedy_for(name, "FULL"));
        }
    }
    if value("binlog_row_value_options").is_some_and(|options| !options.is_empty()) {
        setting(
            ProblemKind::Setting,
            "binlog_row_value_options",
            "is PARTIAL_JSON, needs to be empty: JSON changes come without their documents".to_owned(),
            "SET GLOBAL binlog_row_value_options=''; and in my.cnf under [mysqld]: binlog_row_value_options="
                .to_owned(),
        );
    }
    if flavor.vendor == Vendor::MySql && !is("gtid_mode", "ON") {
        setting(
            ProblemKind::Warning,
            "gtid_mode",
            format!(
                "is {}: positions are file and offset, which a failover to another server loses",
                value("gtid_mode").unwrap_or("missing")
            ),
            "in my.cnf under [mysqld]: gtid_mode=ON and enforce_gtid_consistency=ON".to_owned(),
        );
    }
    if flavor.is_mariadb() && !is("gtid_strict_mode", "ON") && !is("gtid_strict_mode", "1") {
        setting(
            ProblemKind::Warning,
            "gtid_strict_mode",
            "is OFF: GTIDs of one domain may come out of order, and a failover may not be exact".to_owned(),
            "SET GLOBAL gtid_strict_mode=ON; and in my.cnf under [mysqld]: gtid_strict_mode=ON".to_owned(),
        );
    }
    if value("server_id").is_some_and(|id| id == server_id.to_string()) {
        setting(
            ProblemKind::Setting,
            "server_id",
            format!("{server_id} is the server's own id, and this source's"),
            "give the source another `server_id` in config.toml".to_owned(),
        );
    }
    let seconds = value("binlog_expire_logs_seconds").and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or(0);
    let days = value("expire_logs_days").and_then(|days| days.parse::<f64>().ok()).unwrap_or(0.0);
    let retention = if seconds > 0 { seconds } else { (days * 86_400.0) as u64 };
    let purges = !is("binlog_expire_logs_auto_purge", "OFF");
    if retention > 0 && retention < RETENTION_SECONDS_MIN && purges {
        setting(
            ProblemKind::Warning,
            "binlog_expire_logs_seconds",
            format!("binlogs are kept for {retention} s only: a longer stop of lakeward means loading everything again"),
            "SET GLOBAL binlog_expire_logs_seconds=259200; and in my.cnf under [mysqld]: binlog_expire_logs_seconds=259200"
                .to_owned(),
        );
    }
    if is("wsrep_on", "ON") {
        setting(
            ProblemKind::Warning,
            "wsrep_on",
            "the server is a Galera node: its GTIDs agree with the other nodes' only with wsrep_gtid_mode=ON"
                .to_owned(),
            "in my.cnf of all nodes under [mysqld]: wsrep_gtid_mode=ON and log_slave_updates=ON".to_owned(),
        );
    }
    problems
}

fn remedy_for(name: &str, wanted: &str) -> String {
    format!(
        "SET GLOBAL {name}={wanted}; and in my.cnf under [mysqld]: {name}={wanted} (open sessions keep the old value until they reconnect)"
    )
}

/// The account's own grants and those of its roles.
async fn grants(session: &mut Session) -> Result<Vec<String>, Error> {
    let mut statement = "SHOW GRANTS".to_owned();
    if !session.flavor.is_mariadb()
        && session.flavor.version >= (8, 0, 0)
        && let Ok(answer) = session.query("SELECT CURRENT_ROLE()").await
        && let Some(roles) = answer.scalar().filter(|roles| *roles != "NONE" && !roles.is_empty())
    {
        statement = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
    }
    let answer = session.query(&statement).await?;
    Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// A pattern without a table, where the user may read no such database: the server does not show him its tables.
fn invisible(pattern: &str, account: &str, grants: &[String]) -> Option<Problem> {
    let database = pattern.split_once('.').map_or(pattern, |(database, _)| database);
    let is_name = !database.contains(['*', '?', '[', '{', '\\']);
    let readable = grants.iter().any(|grant| {
        let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
            return false;
        };
        let reads = privileges.split(',').any(|name| matches!(name.trim(), "SELECT" | "ALL PRIVILEGES" | "ALL"));
        let of = rest.split_once(".* TO").map(|(of, _)| of.trim_matches('`'));
        reads && of.is_some_and(|of| of == "*" || !is_name || like(of.as_bytes(), database.as_bytes()))
    });
    if readable {
        return None;
    }
    let of = if is_name { quoted(database) } else { "*".to_owned() };
    Some(Problem::new(
        ProblemKind::Privilege,
        format!("pattern {pattern}"),
        "matches no table that the user may see: it has no SELECT there",
        format!("GRANT SELECT ON {of}.* TO {account}"),
    ))
}

/// Whether `name` is meant by the database of a grant, where `%` and `_` stand for others unless escaped.
fn like(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'%', rest @ ..] => (0..=name.len()).any(|skipped| like(rest, &name[skipped..])),
        [b'_', rest @ ..] => !name.is_empty() && like(rest, &name[1..]),
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => name.first() == Some(byte) && like(rest, &name[1..]),
    }
}

fn missing_privileges(flavor: &Flavor, account: &str, grants: &[String]) -> Vec<Problem> {
    let mut held: HashSet<String> = HashSet::new();
    for grant in grants {
        if let Some((privileges, _)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO")) {
            held.extend(privileges.split(',').map(|privilege| privilege.trim().to_ascii_uppercase()));
        }
    }
    if held.contains("ALL PRIVILEGES") || held.contains("ALL") {
        return Vec::new();
    }
    // The same privilege by its other names.
    let holds = |names: &[&str]| names.iter().any(|name| held.contains(*name));
    let monitor = flavor.monitor_privilege();
    let mut problems = Vec::new();
    let mut need = |kind, privilege: &str, finding: &str| {
        let remedy = format!("GRANT {privilege} ON *.* TO {account}");
        problems.push(Problem::new(kind, format!("privilege {privilege}"), finding, remedy));
    };
    if !holds(&["REPLICATION SLAVE", "REPLICATION REPLICA"]) {
        need(ProblemKind::Privilege, "REPLICATION SLAVE", "missing: the log can't be read");
    }
    if !holds(&["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"]) {
        need(ProblemKind::Privilege, monitor, "missing: the log's position can't be asked");
    }
    if !flavor.is_mariadb() && !holds(&["RELOAD", "FLUSH_TABLES", "LOCK TABLES"]) {
        need(
            ProblemKind::Privilege,
            "RELOAD",
            "missing, and LOCK TABLES too: one of them is needed for a moment when tables are loaded",
        );
    }
    problems
}

async fn readable(session: &mut Session, table: &CatalogTable) -> Result<Vec<Problem>, Error> {
    let name = &table.schema.name;
    let columns: Vec<String> = table.schema.columns.iter().map(|column| quoted(&column.name)).collect();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let statement =
        format!("SELECT {} FROM {}.{} LIMIT 0", columns.join(", "), quoted(&name.schema), quoted(&name.table));
    match session.execute(&statement).await {
        Ok(()) => Ok(Vec::new()),
        Err(Error::Privilege { need, .. }) => {
            let (schema, table) = (quoted(&name.schema), quoted(&name.table));
            let remedy = format!("GRANT SELECT ON {schema}.{table} TO {}", session.account);
            Ok(vec![Problem::new(ProblemKind::Privilege, format!("table {name}"), need, remedy)])
        }
        Err(error) => Err(error),
    }
}

fn table_problems(table: &CatalogTable) -> Vec<Problem> {
    let subject = format!("table {}", table.schema.name);
    let mut problems = Vec::new();
    if let Some(refusal) = &table.refusal {
        problems.push(Problem::new(
            ProblemKind::Table,
            &subject,
            refusal,
            "name the column in `exclude` of the table's contract, or change its definition",
        ));
    }
    if table.schema.identity == RowIdentity::WholeRow {
        problems.push(Problem::new(
            ProblemKind::Warning,
            &subject,
            "has neither a primary key nor a UNIQUE index without NULLs: it is followed as a multiset of whole rows, which \
             costs about 40 bytes of memory a row and reads the whole table when lakeward starts",
            format!(
                "give it a primary key, or state in its contract (table = \"{}\") what identifies its rows, key = [\"…\"], \
                 or that they are only ever added, without_key = \"append\"",
                table.schema.name
            ),
        ));
    }
    if !table.engine.eq_ignore_ascii_case("InnoDB") {
        problems.push(Problem::new(
            ProblemKind::Warning,
            &subject,
            format!("its engine is {}, whose changes are not part of transactions: a first load under writes may not be exact", table.engine),
            format!("ALTER TABLE {}.{} ENGINE=InnoDB", quoted(&table.schema.name.schema), quoted(&table.schema.name.table)),
        ));
    }
    problems
}

/// what foreign keys change in child tables is not in the binlog.
async fn cascades(session: &mut Session, tables: &[CatalogTable]) -> Result<Vec<Problem>, Error> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let mut schemas: Vec<String> = tables.iter().map(|table| literal(&table.schema.name.schema)).collect();
    schemas.dedup();
    let answer = session
        .query(&format!(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA IN ({}) \
             AND (UPDATE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT')) \
             ORDER BY 1, 2, 3",
            schemas.join(", ")
        ))
        .await?;
    let mut problems = Vec::new();
    for row in answer.rows {
        let value = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
        let (schema, table, constraint) = (value(0), value(1), value(2));
        if !tables.iter().any(|known| known.schema.name.schema == schema && known.schema.name.table == table) {
            continue;
        }
        problems.push(Problem::new(
            ProblemKind::Warning,
            format!("table {schema}.{table}"),
            format!(
                "foreign key {constraint} is ON UPDATE {} ON DELETE {}: the rows it changes are not in this server's binlog, \
                 so the lake keeps their old state",
                value(3),
                value(4)
            ),
            "let the application change the child rows itself, or use MySQL 9.6 or later",
        ));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HashMap<String, String> {
        [
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("binlog_row_value_options", ""),
            ("binlog_transaction_compression", "ON"),
            ("log_bin_compress", "ON"),
            ("gtid_mode", "ON"),
            ("gtid_strict_mode", "1"),
            ("server_id", "1"),
            ("binlog_expire_logs_seconds", "2592000"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    fn mysql() -> Flavor {
        Flavor::parse("9.7.4")
    }

    #[test]
    fn a_server_set_up_well_has_no_problem() {
        assert_eq!(settings(&mysql(), &good(), 4711), []);
        assert_eq!(settings(&Flavor::parse("10.11.19-MariaDB"), &good(), 4711), []);
    }

    #[test]
    fn every_wrong_setting_is_found_with_its_remedy() {
        for (name, value, kind, remedy) in [
            ("log_bin", "OFF", ProblemKind::Setting, "log_bin=binlog"),
            ("binlog_format", "MIXED", ProblemKind::Setting, "SET GLOBAL binlog_format=ROW"),
            ("binlog_row_image", "MINIMAL", ProblemKind::Warning, "SET GLOBAL binlog_row_image=FULL"),
            ("binlog_row_metadata", "NO_LOG", ProblemKind::Warning, "SET GLOBAL binlog_row_metadata=FULL"),
            ("binlog_row_value_options", "PARTIAL_JSON", ProblemKind::Setting, "binlog_row_value_options=''"),
            ("gtid_mode", "OFF", ProblemKind::Warning, "gtid_mode=ON"),
            ("server_id", "4711", ProblemKind::Setting, "config.toml"),
            ("binlog_expire_logs_seconds", "3600", ProblemKind::Warning, "binlog_expire_logs_seconds=259200"),
        ] {
            let mut variables = good();
            variables.insert(name.to_owned(), value.to_owned());
            let problems = settings(&mysql(), &variables, 4711);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert_eq!((problems[0].subject.as_str(), problems[0].kind), (name, kind));
            assert!(problems[0].remedy.contains(remedy), "{}", problems[0].remedy);
        }
    }

    #[test]
    fn a_database_that_the_user_may_not_read_comes_with_its_grant() {
        let remedy = |pattern: &str, grant: &str| {
            invisible(pattern, "'cdc'@'%'", &[grant.to_owned()]).map(|problem| problem.remedy)
        };
        for readable in [
            "GRANT SELECT, RELOAD ON *.* TO `cdc`@`%`",
            "GRANT ALL PRIVILEGES ON *.* TO `cdc`@`%` WITH GRANT OPTION",
            "GRANT INSERT, SELECT ON `booking\\_1`.* TO `cdc`@`%`",
            "GRANT SELECT ON `book%`.* TO `cdc`@`%`",
        ] {
            assert_eq!(remedy("booking_1.*", readable), None, "{readable}");
        }
        let grant = Some("GRANT SELECT ON `booking`.* TO 'cdc'@'%'".to_owned());
        for unreadable in [
            "GRANT RELOAD ON *.* TO `cdc`@`%`",
            "GRANT INSERT ON `booking`.* TO `cdc`@`%`",
            "GRANT SELECT ON `other`.* TO `cdc`@`%`",
            "GRANT SELECT ON `booking`.`coupons` TO `cdc`@`%`",
        ] {
            assert_eq!(remedy("booking.*", unreadable), grant, "{unreadable}");
        }
        let everywhere = Some("GRANT SELECT ON *.* TO 'cdc'@'%'".to_owned());
        assert_eq!(remedy("*.coupons", "GRANT USAGE ON *.* TO `cdc`@`%`"), everywhere);
    }

    #[test]
    fn missing_privileges_come_with_their_grant() {
        let mariadb = Flavor::parse("10.11.19-MariaDB");
        let grant = |text: &str| vec![text.to_owned()];
        let problems = missing_privileges(&mariadb, "'cdc'@'%'", &grant("GRANT SELECT ON *.* TO `cdc`@`%`"));
        let remedies: Vec<&str> = problems.iter().map(|problem| problem.remedy.as_str()).collect();
        assert_eq!(
            remedies,
            ["GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'", "GRANT BINLOG MONITOR ON *.* TO 'cdc'@'%'"]
        );
        let enough = grant("GRANT SELECT, RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`%`");
        assert_eq!(missing_privileges(&mysql(), "'cdc'@'%'", &enough), []);
        assert_eq!(missing_privileges(&mysql(), "x", &grant("GRANT ALL PRIVILEGES ON *.* TO `a`@`b`")), []);
    }
}
