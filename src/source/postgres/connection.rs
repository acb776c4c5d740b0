//! Sessions: ordinary ones for SQL and COPY, replication ones for the log, with the same pinned settings.
//!
//! The text of a value depends on settings that a role or a database may override (P-0), so both kinds of session pin
//! them in the startup packet, which goes before every default (PostgreSQL manual, 20.1.4 "Parameter Interaction via
//! Shell", `options`). TLS follows libpq's `sslmode`.

use std::path::PathBuf;
use std::time::Duration;

use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig, SslMode, TlsConfig};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::config::{SourceConfig, Tls};
use crate::source::Error;

/// What every session pins. Values without spaces: the replication session takes them in one unquoted string.
const PINNED: [(&str, &str); 9] = [
    ("datestyle", "ISO,MDY"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("lc_monetary", "C"),
    // Decides how much of a name regclass and format_type() print.
    ("search_path", "pg_catalog"),
    // A policy that hides rows from this role becomes an error instead of an incomplete first load.
    ("row_security", "off"),
    // Questions to the catalog look expensive to the planner, and compiling them takes longer than answering.
    ("jit", "off"),
];

/// The server asks for a sign of life after half of this without one, so a longer silence means a dead connection.
pub const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a raised acknowledgement is sent at most.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Some of the TLS clients ask for the process's cryptography and panic when there are two to choose from and none was
/// chosen. An earlier choice stays.
fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Messages that wait here to be decoded. Each may be a wide row, so there are few: reading the next ones while these are
/// decoded needs no more, and the rest waits at the server.
const READ_AHEAD_MESSAGES: usize = 16;

/// An ordinary session.
pub async fn connect(config: &SourceConfig) -> Result<PgConnection, Error> {
    choose_cryptography();
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.user)
        .database(&config.database)
        .application_name(&application_name(config))
        .extra_float_digits(3)
        .ssl_mode(match config.tls {
            Tls::Disable => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Require => PgSslMode::Require,
            Tls::VerifyCa => PgSslMode::VerifyCa,
            Tls::VerifyFull => PgSslMode::VerifyFull,
        })
        .options(PINNED)
        .disable_statement_logging();
    if let Some(password) = &config.password {
        options = options.password(password.expose());
    }
    if let Some(file) = &config.tls_ca_file {
        options = options.ssl_root_cert(file);
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let code = error.as_database_error().and_then(|error| error.code());
            Err(refusal(config, code.as_deref(), text_of(&error)))
        }
        Err(_) => Err(no_answer(config)),
    }
}

/// A replication session that waits for commands; [`ReplicationClient::start`] makes it stream.
pub async fn connect_replication(config: &SourceConfig, from: u64) -> Result<ReplicationClient, Error> {
    choose_cryptography();
    let pinned: Vec<String> = PINNED.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
    let timeout = format!("-c wal_sender_timeout={}", WAL_SENDER_TIMEOUT.as_millis());
    let password = config.password.as_ref().map_or("", |password| password.expose());
    let settings = ReplicationConfig::new(
        &config.host,
        &config.user,
        password,
        &config.database,
        quote_identifier(&config.slot),
        // The option's value is a list of identifiers, so that an unquoted one would be folded to lower case.
        quote_identifier(&config.publication),
    )
    .with_port(config.port)
    .with_tls(replication_tls(config))
    .with_options(format!("{} {timeout}", pinned.join(" ")))
    .with_application_name(application_name(config))
    .with_start_lsn(from.into())
    // Nothing is acknowledged until the caller says so. It also makes the server send a keepalive as soon as it has
    // nothing more to read, since it believes that nothing was flushed here.
    .with_ack_lsn(0.into())
    .with_status_interval(STATUS_INTERVAL)
    // Silence is the server's turn to break, with a keepalive that proves that it is there.
    .with_wakeup_interval(WAL_SENDER_TIMEOUT * 10)
    .with_buffer_size(READ_AHEAD_MESSAGES);
    let connecting = async {
        let mut client = ReplicationClient::connect_gated(settings).await?;
        // The session is only known to stand when it answers.
        client.simple_query("SHOW server_version").await?;
        Ok(client)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => {
            let text = wire_text(&error);
            Err(match &error {
                PgWireError::Auth(_) => refusal(config, Some("28P01"), text),
                _ => refusal(config, sqlstate(&error), text.clone()),
            })
        }
        Err(_) => Err(no_answer(config)),
    }
}

fn replication_tls(config: &SourceConfig) -> TlsConfig {
    let mode = match config.tls {
        Tls::Disable => SslMode::Disable,
        Tls::Prefer => SslMode::Prefer,
        Tls::Require => SslMode::Require,
        Tls::VerifyCa => SslMode::VerifyCa,
        Tls::VerifyFull => SslMode::VerifyFull,
    };
    TlsConfig { mode, ca_pem_path: config.tls_ca_file.clone().or_else(system_authorities), ..TlsConfig::default() }
}

/// The replication client would trust Mozilla's list otherwise, the SQL client trusts the system's: a company's own
/// authority has to work for both.
fn system_authorities() -> Option<PathBuf> {
    let known = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(known.into_iter().map(PathBuf::from))
        .find(|file| file.is_file())
}

fn application_name(config: &SourceConfig) -> String {
    format!("lakeward/{}", config.name)
}

fn no_answer(config: &SourceConfig) -> Error {
    Error::Connect {
        address: config.address(),
        cause: format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()),
    }
}

/// Why a session could not be opened.
fn refusal(config: &SourceConfig, code: Option<&str>, cause: String) -> Error {
    match code {
        Some("28P01" | "28000") => {
            Error::Authentication { address: config.address(), user: config.user.clone(), cause }
        }
        Some("42501") if cause.contains("CONNECT") || cause.contains("permission denied for database") => {
            Error::Privilege {
                need: format!("user `{}` may not connect to database `{}`", config.user, config.database),
                remedy: format!(
                    "GRANT CONNECT ON DATABASE {} TO {}",
                    quote_identifier(&config.database),
                    quote_identifier(&config.user)
                ),
            }
        }
        Some("42501") => replication_privilege(config),
        Some("3D000") => Error::Setting {
            subject: format!("database `{}`", config.database),
            finding: cause,
            remedy: "put the right database at the end of the source's `url`".into(),
        },
        _ => Error::Connect { address: config.address(), cause },
    }
}

/// The role may not start a walsender or make a slot.
pub fn replication_privilege(config: &SourceConfig) -> Error {
    Error::Privilege {
        need: format!("user `{}` needs the REPLICATION attribute to read the log", config.user),
        remedy: format!(
            "ALTER ROLE {} REPLICATION -- on Amazon RDS: GRANT rds_replication TO {}",
            quote_identifier(&config.user),
            quote_identifier(&config.user)
        ),
    }
}

/// An SQL statement failed; `statement` names it for people.
pub fn query_error(statement: &str, error: &sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("42501") => Error::Privilege {
            need: format!("{statement}: {}", text_of(error)),
            remedy: "see `lakeward check` for the statements that grant what this source needs".into(),
        },
        _ => Error::Query { statement: statement.to_owned(), cause: text_of(error) },
    }
}

/// The message, with detail and hint where the server gives them.
fn text_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let postgres = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
            let extra = |text: Option<&str>| text.map(|text| format!("; {text}")).unwrap_or_default();
            match postgres {
                Some(error) => format!("{}{}{}", error.message(), extra(error.detail()), extra(error.hint())),
                None => database.message().to_owned(),
            }
        }
        other => other.to_string(),
    }
}

/// The client's text without its own prefix.
pub fn wire_text(error: &PgWireError) -> String {
    match error {
        PgWireError::Server(text) | PgWireError::Auth(text) | PgWireError::Tls(text) => text.clone(),
        PgWireError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The code in `… (SQLSTATE 42P01)`.
pub fn sqlstate(error: &PgWireError) -> Option<&str> {
    let PgWireError::Server(text) = error else { return None };
    text.rsplit_once("(SQLSTATE ").and_then(|(_, rest)| rest.strip_suffix(')'))
}

/// `name` as an SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL literal; `standard_conforming_strings` is on by default since 9.1, and E'' needs no setting.
pub fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `16/B374D848`
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("a'b\\c"), "E'a\\'b\\\\c'");
    }

    #[test]
    fn an_lsn_is_two_hex_numbers() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        for text in ["", "16", "16/", "/1", "100000000/0", "0/x"] {
            assert_eq!(parse_lsn(text), None, "{text}");
        }
    }

    #[test]
    fn the_code_is_found_in_the_clients_message() {
        let error = PgWireError::Server("slot \"(SQLSTATE x)\" is gone (SQLSTATE 42704)".into());
        assert_eq!(sqlstate(&error), Some("42704"));
        assert_eq!(sqlstate(&PgWireError::Task("x (SQLSTATE 42704)".into())), None);
    }
}
