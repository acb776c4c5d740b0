//! The `lakeward` command: parses, starts the log, dispatches.

use std::process::ExitCode;

use clap::Parser;
use lakeward::cli::{Cli, Exit, dispatch, start_log};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = cli.global.log_level.as_deref().unwrap_or_else(|| cli.command.default_log_level());
    if let Err(error) = start_log(level, cli.global.log_format) {
        eprintln!("error: {error}");
        return Exit::Configuration.into();
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(cli)).into(),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            Exit::Unexpected.into()
        }
    }
}
