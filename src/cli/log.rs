//! The log, on stderr.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// `2026-11-23T14:41:31.123Z`
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// Other crates' messages stay out, unless asked for by name: what they report as errors (a table that does not exist
/// yet, say) lakeward decides about and tells itself.
const OTHERS: &str = "warn,buoyant_kernel=off,deltalake_core=error,sqlx=error,pgwire_replication=off";

/// Begins logging. `level` is a level of our own messages, or a list of filters for everybody's; the error says why it
/// is neither.
pub fn start_log(level: &str, format: LogFormat) -> Result<(), String> {
    let filters = match level.parse::<LevelFilter>() {
        Ok(LevelFilter::OFF) => "off".to_owned(),
        Ok(own) => format!("{OTHERS},lakeward={own}"),
        Err(_) => level.to_owned(),
    };
    let filter = EnvFilter::try_new(filters).map_err(|error| {
        format!("`{level}` is no log level: {error}; expected off, error, warn, info, debug, trace or filters")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_timer(Utc);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("cannot log: {error}"))
}
