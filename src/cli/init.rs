//! `lakeward init`: looks at a database and writes a first config.toml with a contract for each table.
//!
//! The password never reaches a file: config.toml names where it is read from. Nothing is overwritten without
//! `--force`, and nothing is changed at the database.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::exit::Usage;
use super::{Exit, output};
use crate::config::{
    Contracts, DatabaseKind, Secret, SourceConfig, SourceUrl, TableSelection, Tls, default_server_id, default_slot,
    is_source_name, lake_url, read_password_file,
};
use crate::pipeline::AnySource;
use crate::schema::TableSchema;
use crate::source::postgres::EVENT_TRIGGER;

mod text;

#[derive(Debug, Args)]
pub struct Init {
    /// mysql://user@host:port (MariaDB too) or postgres://user@host:port/database
    #[arg(long, value_name = "URL")]
    source: String,
    /// Where the lake is: file:///folder, s3://bucket/prefix or a path
    #[arg(long, value_name = "URL")]
    lake: String,
    /// The source's name, a part of the lake's paths [default: the PostgreSQL database, or the host's first label]
    #[arg(long)]
    name: Option<String>,
    /// The folder to write into
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// A file that holds the password only; config.toml will name it
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// An environment variable that holds the password; config.toml will name it
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// Tables to take, as in `tables` of config.toml; all when absent
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    tables: Vec<String>,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

/// Where config.toml says that the password is.
enum PasswordPlace {
    File(PathBuf),
    Variable(String),
    /// The server asks for none.
    Nowhere,
}

/// Everything that goes into the files.
struct Plan {
    name: String,
    kind: DatabaseKind,
    server: String,
    /// Without password.
    url: String,
    user: String,
    database: String,
    lake: String,
    password: PasswordPlace,
    /// The patterns of `--tables`; empty when none were given.
    patterns: Vec<String>,
    tables: Vec<TableSchema>,
}

impl Init {
    pub async fn run(self) -> anyhow::Result<Exit> {
        let out = std::path::absolute(&self.out).context("the folder to write into has no absolute path")?;
        let plan = self.look(&out).await?;
        if plan.tables.is_empty() {
            let finding = "no table was found; grant SELECT to the user (or widen --tables) and start again";
            output::complain(&format!("{finding}:\n\n{}", text::grants(&plan)));
            return Ok(Exit::Privilege);
        }
        let files = files(&plan, &out);
        if !self.force {
            refuse_to_overwrite(&files)?;
        }
        for (path, content) in &files {
            write(path, content)?;
        }
        let contracts = files.iter().filter(|(path, _)| path.starts_with(out.join("schemas"))).count();
        output::print(&text::next_steps(&plan, &out, contracts))?;
        Ok(Exit::Ok)
    }

    /// Connects and asks; all that can be checked before goes first.
    async fn look(&self, out: &Path) -> anyhow::Result<Plan> {
        let usage = |option: &str, finding: String| Usage(format!("{option} {finding}"));
        let url = SourceUrl::parse(&self.source).map_err(|finding| usage("--source", finding))?;
        lake_url(&self.lake, out).map_err(|finding| usage("--lake", finding))?;
        let name = self.name.clone().unwrap_or_else(|| default_name(&url));
        if !is_source_name(&name) {
            let finding = format!("`{name}` is not a source's name; small letters, digits, `_` and `-` are allowed");
            return Err(usage("--name", finding).into());
        }
        let everything = ["*.*".to_owned()];
        let patterns: &[String] = if self.tables.is_empty() { &everything } else { &self.tables };
        let tables = TableSelection::parse(patterns).map_err(|finding| usage("--tables", finding))?;
        let (password, place) = self.password(&url, &name)?;
        let config = SourceConfig {
            name: name.clone(),
            kind: url.kind,
            host: url.host,
            port: url.port,
            user: url.user,
            password,
            database: url.database,
            tls: Tls::Prefer,
            tls_ca_file: None,
            tables,
            server_id: default_server_id(&name),
            slot: default_slot(&name),
            publication: default_slot(&name),
            on_lost_position: crate::config::OnLostPosition::Stop,
        };
        let url = text::url_without_password(&config);
        let source = AnySource::new(config.clone(), Contracts::default())?;
        let server = source.identity().await?.server;
        let mut tables = source.discover().await?;
        tables.retain(|table| !is_system_schema(&table.name.schema));
        tables.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(Plan {
            name,
            kind: config.kind,
            server,
            url,
            user: config.user,
            database: config.database,
            lake: self.lake_as_written(out),
            password: place,
            patterns: self.tables.clone(),
            tables,
        })
    }

    /// The password to connect with, and where config.toml will say it is.
    fn password(&self, url: &SourceUrl, name: &str) -> anyhow::Result<(Option<Secret>, PasswordPlace)> {
        let environment = |variable: &str| std::env::var_os(variable);
        if let Some(file) = &self.password_file {
            let file = std::path::absolute(file).context("--password-file has no absolute path")?;
            let password = read_password_file(&file, &environment)
                .map_err(|finding| Usage(format!("--password-file: {finding}")))?;
            return Ok((Some(password), PasswordPlace::File(file)));
        }
        if let Some(variable) = &self.password_env {
            let password = std::env::var(variable)
                .map_err(|_| Usage(format!("--password-env: the variable {variable} is not set, or not UTF-8")))?;
            return Ok((Some(Secret::new(password)), PasswordPlace::Variable(variable.clone())));
        }
        if url.password.is_some() {
            let variable = format!("LAKEWARD_{}_PASSWORD", name.replace('-', "_").to_uppercase());
            return Ok((url.password.clone(), PasswordPlace::Variable(variable)));
        }
        Ok((None, PasswordPlace::Nowhere))
    }

    /// A relative path means the same folder in config.toml as on the command line.
    fn lake_as_written(&self, out: &Path) -> String {
        if self.lake.contains("://") || Path::new(&self.lake).is_absolute() {
            return self.lake.clone();
        }
        let here = std::path::absolute(".").unwrap_or_default();
        if here == out { self.lake.clone() } else { here.join(&self.lake).display().to_string() }
    }
}

/// The database of PostgreSQL, else the first label of the host's name, as far as it can be a source's name.
fn default_name(url: &SourceUrl) -> String {
    let numeric = url.host.parse::<std::net::IpAddr>().is_ok();
    let wish = match url.kind {
        DatabaseKind::Postgres => url.database.as_str(),
        DatabaseKind::MySql if numeric => "mysql",
        DatabaseKind::MySql => url.host.split('.').next().unwrap_or_default(),
    };
    let name: String = wish
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-') { c } else { '_' })
        .collect();
    if name.is_empty() { "source".to_owned() } else { name }
}

fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "mysql" | "sys" | "information_schema" | "performance_schema" | "pg_catalog")
        || schema.starts_with("pg_toast")
}

/// Beside config.toml, for whoever wants to install it.
const EVENT_TRIGGER_FILE: &str = "lakeward-event-trigger.sql";

/// config.toml first, then the contracts, then what a superuser may install.
fn files(plan: &Plan, out: &Path) -> Vec<(PathBuf, String)> {
    let mut files = vec![(out.join("config.toml"), text::config(plan))];
    // A contract for a table that `tables` leaves out would only be warned about.
    let captured = |table: &&TableSchema| table.can_be_followed() || !plan.patterns.is_empty();
    for table in plan.tables.iter().filter(captured) {
        let safe = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
        let name: String = table.name.to_string().chars().map(safe).collect();
        let mut path = out.join("schemas").join(format!("{name}.toml"));
        let mut number = 2;
        while files.iter().any(|(taken, _)| *taken == path) {
            path = out.join("schemas").join(format!("{name}-{number}.toml"));
            number += 1;
        }
        files.push((path, text::contract(plan, table)));
    }
    if plan.kind == DatabaseKind::Postgres {
        files.push((out.join(EVENT_TRIGGER_FILE), EVENT_TRIGGER.to_owned()));
    }
    files
}

fn refuse_to_overwrite(files: &[(PathBuf, String)]) -> Result<(), Usage> {
    let existing: Vec<String> =
        files.iter().filter(|(path, _)| path.exists()).map(|(path, _)| path.display().to_string()).collect();
    if existing.is_empty() {
        return Ok(());
    }
    let names = existing.join("\n  ");
    Err(Usage(format!("nothing was written, for these files exist (--force overwrites them):\n  {names}")))
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_a_speaking_name() {
        for (url, name) in [
            ("postgres://u@h/Shop.EU", "shop_eu"),
            ("mysql://u@db-1.example.org", "db-1"),
            ("mysql://u@127.0.0.1", "mysql"),
        ] {
            assert_eq!(default_name(&SourceUrl::parse(url).expect(url)), name);
        }
    }
}
