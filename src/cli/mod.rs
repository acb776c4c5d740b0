//! The command line: what can be said, and who does it.
//!
//! Results go to stdout, everything else (log, progress, problems of the configuration) to stderr. `--json` prints one
//! JSON document. The exit codes are in [`exit`]. One file per command.

mod check;
pub mod exit;
mod init;
mod loading;
mod log;
mod maintenance;
mod notify;
mod output;
mod position;
mod resync;
mod run;
mod schema;
mod snapshot;
mod tables;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

pub use exit::Exit;
pub use log::{LogFormat, start_log};

use crate::config::{Config, ConfigError};

const CONFIG_PLACES: [&str; 2] = ["./config.toml", "/etc/lakeward/config.toml"];

/// Keeps Delta Lake tables equal to tables in MySQL, MariaDB and PostgreSQL, exactly once.
#[derive(Debug, Parser)]
#[command(name = "lakeward", version, after_long_help = exit::HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The configuration [default: ./config.toml, then /etc/lakeward/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug or trace, or filters by module such as `info,lakeward::lake=debug`
    /// [default: info for `run`, warn otherwise]
    #[arg(long, global = true, env = "LAKEWARD_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How to log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Looks for everything that would keep the sources and the lake from working; changes nothing
    Check(check::Check),
    /// Follows the sources and keeps the lake's tables equal to theirs
    Run(run::Run),
    /// Looks at a database and writes a config.toml and contracts for it
    Init(init::Init),
    /// Shows each table's state, rows, version, position and lag
    Tables(tables::Tables),
    /// Shows how far each source's tables are in its log; with --at, which versions of its tables hold exactly what was
    /// committed up to one point
    Position(position::Position),
    /// Loads tables anew beside those that the lake has, while everything goes on, and puts them in their place in one commit
    Resync(resync::Resync),
    /// Loads tables for the first time that the configuration selects and the lake lacks
    Snapshot(snapshot::Snapshot),
    /// Writes small files and files with many dead rows of tables anew, where no daemon does
    Compact(maintenance::Compact),
    /// Removes what no version within the retention needs from tables' folders; works beside a running daemon
    Vacuum(maintenance::Vacuum),
    /// Proves that tables of the lake are what their sources have, while both go on changing; exits with 3 when they differ
    Verify(verify::Verify),
    /// Tries the channels that notices leave by, or lists them
    Notify(notify::Notify),
    /// Shows a table's columns and their history, plans changes, and decides about those that wait
    Schema(schema::Schema),
}

impl Command {
    /// The level when nothing is said about logging.
    pub fn default_log_level(&self) -> &'static str {
        match self {
            // The latter two may have to run a source.
            Self::Run(_) | Self::Resync(_) | Self::Snapshot(_) => "info",
            // Only how far the comparison is.
            Self::Verify(_) => "warn,lakeward::snapshot::verify=info",
            Self::Check(_)
            | Self::Init(_)
            | Self::Tables(_)
            | Self::Position(_)
            | Self::Schema(_)
            | Self::Compact(_)
            | Self::Vacuum(_)
            | Self::Notify(_) => "warn",
        }
    }
}

/// Does what was asked and says how it ended. Errors have been shown by then.
pub async fn dispatch(cli: Cli) -> Exit {
    let config = cli.global.config.as_deref();
    let done = match cli.command {
        Command::Check(check) => check.run(config).await,
        Command::Run(run) => run.run(config).await,
        Command::Init(init) => init.run().await,
        Command::Tables(tables) => tables.run(config).await,
        Command::Position(position) => position.run(config).await,
        Command::Resync(resync) => resync.run(config).await,
        Command::Snapshot(snapshot) => snapshot.run(config).await,
        Command::Compact(compact) => compact.run(config).await,
        Command::Vacuum(vacuum) => vacuum.run(config).await,
        Command::Verify(verify) => verify.run(config).await,
        Command::Notify(notify) => notify.run(config).await,
        Command::Schema(schema) => schema.run(config).await,
    };
    match done {
        Ok(exit) => exit,
        Err(error) => {
            output::complain(&format!("error: {}", in_words(&error)));
            exit::of_error(&error)
        }
    }
}

/// The error and its causes. Most errors tell their cause themselves, and it need not be told twice.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// The configuration could not be had; each variant's text is all that a person needs.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("there is no configuration: neither {} nor {} exists; write one with `lakeward init`, or name one with --config", CONFIG_PLACES[0], CONFIG_PLACES[1])]
    Nowhere,
    #[error("{}", headed(.0))]
    Problems(ConfigError),
}

impl From<ConfigError> for LoadError {
    fn from(error: ConfigError) -> Self {
        Self::Problems(error)
    }
}

/// Reads the configuration that was named, or the one in the usual places, and tells its warnings.
fn load_config(named: Option<&Path>) -> Result<Config, LoadError> {
    let usual = || CONFIG_PLACES.iter().map(Path::new).find(|path| path.exists());
    let path = named.or_else(usual).ok_or(LoadError::Nowhere)?;
    let config = Config::load(path)?;
    for warning in &config.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    Ok(config)
}

fn headed(error: &ConfigError) -> String {
    match error.problems.len() {
        1 => format!("the configuration has a problem:\n{error}"),
        count => format!("the configuration has {count} problems:\n{error}"),
    }
}
