//! The `lakeward` command: parses, starts the log, dispatches.

use std::process::ExitCode;

use clap::Parser;
use lakeward::cli::{Cli, Exit, dispatch, start_log};

/// Allocations of this size and more go back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETURNED_FROM_BYTES: libc::c_int = 256 << 10;

/// Keeps what the process takes near what it uses. By default glibc raises the size above (128 KiB) to that of the largest
/// piece freed so far, up to 32 MiB, and keeps smaller ones for each thread: batches are pieces of a few MiB, built on one
/// thread and dropped on another, and the process came to hold twice what was in use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_memory() {
    // SAFETY: mallopt may be called at any time; it takes plain numbers, and one that it refuses changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_FROM_BYTES);
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    return_memory();
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
