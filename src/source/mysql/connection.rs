//! Connections to the server: options, TLS, and what the server's refusals mean.
//!
//! One driver (mysql_async) serves catalog, snapshots and log alike, so that what can be checked can be streamed: the
//! same TLS, the same authentication plugins.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Opts, OptsBuilder, Row, SslOpts, Value};

use crate::config::{SourceConfig, Tls};
use crate::source::Error;

use super::flavor::Flavor;

/// A row event may be larger than the server's own `max_allowed_packet`: one update of a 20 MB blob is 40 MB.
const PACKET_BYTES_MAX: usize = 1 << 30;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection, and whom it is to.
pub struct Session {
    pub conn: Conn,
    pub flavor: Flavor,
    /// As the server knows the user, in a form for GRANT: `'cdc'@'%'`.
    pub account: String,
    /// `lower_case_table_names` is not 0: names compare without case.
    pub names_ignore_case: bool,
    address: String,
}

/// The answer to a statement, as text.
#[derive(Debug, Default)]
pub struct Answer {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    /// The value in the first row, by column name without case.
    pub fn value(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.rows.first()?.get(index)?.as_deref()
    }

    /// The first value of the first row.
    pub fn scalar(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

impl Session {
    pub async fn open(config: &SourceConfig) -> Result<Self, Error> {
        let conn = connect(config).await?;
        let mut session = Self {
            conn,
            flavor: Flavor::parse(""),
            account: format!("'{}'", config.user),
            names_ignore_case: false,
            address: config.address(),
        };
        let answer = session.query("SELECT VERSION(), CURRENT_USER(), @@lower_case_table_names").await?;
        let row = answer.rows.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        session.flavor = Flavor::parse(&values.next().unwrap_or_default());
        if let Some((user, host)) = values.next().unwrap_or_default().rsplit_once('@') {
            session.account = format!("'{user}'@'{host}'");
        }
        session.names_ignore_case = values.next().is_some_and(|value| value != "0");
        Ok(session)
    }

    /// Runs a statement and gives its answer as text.
    pub async fn query(&mut self, statement: &str) -> Result<Answer, Error> {
        let result = self.conn.query::<Row, _>(statement).await;
        let rows = result.map_err(|error| self.error(statement, &error))?;
        let columns = rows
            .first()
            .map(|row| row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect())
            .unwrap_or_default();
        let text = |value: Value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
        };
        let rows = rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect();
        Ok(Answer { columns, rows })
    }

    pub async fn execute(&mut self, statement: &str) -> Result<(), Error> {
        let result = self.conn.query_drop(statement).await;
        result.map_err(|error| self.error(statement, &error))
    }

    /// What a failed statement means.
    pub fn error(&self, statement: &str, error: &mysql_async::Error) -> Error {
        match error {
            mysql_async::Error::Server(server) => match server.code {
                1044 | 1142 | 1143 | 1227 | 1370 | 3619 => self.privilege(&server.message),
                _ => Error::Query { statement: statement.to_owned(), cause: server.to_string() },
            },
            other => Error::Query {
                statement: statement.to_owned(),
                cause: format!("{} (connection to {})", plain(other), self.address),
            },
        }
    }

    /// "Access denied; you need (at least one of) the X privilege(s) …", "SELECT command denied to user … for table …".
    fn privilege(&self, message: &str) -> Error {
        let account = &self.account;
        let remedy = if let Some((_, rest)) = message.split_once("the ")
            && let Some((privileges, _)) = rest.split_once(" privilege")
        {
            format!("GRANT {} ON *.* TO {account}", privileges.split(',').next().unwrap_or(privileges).trim())
        } else if let Some((privilege, rest)) = message.split_once(" command denied") {
            let table = rest.split_once("for table ").map(|(_, table)| table.replace('\'', "`"));
            format!("GRANT {privilege} ON {} TO {account}", table.unwrap_or_else(|| "*.*".to_owned()))
        } else {
            format!("GRANT SELECT ON *.* TO {account}")
        };
        Error::Privilege { need: message.to_owned(), remedy }
    }
}

/// `` `name` `` with backticks doubled.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `'text'` for a statement.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The driver's message without its wrapping.
pub fn plain(error: &mysql_async::Error) -> String {
    match error {
        mysql_async::Error::Driver(error) => error.to_string(),
        mysql_async::Error::Io(IoError::Io(error)) => error.to_string(),
        mysql_async::Error::Io(error) => error.to_string(),
        mysql_async::Error::Server(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// A connection without a session, for the log.
pub async fn connect(config: &SourceConfig) -> Result<Conn, Error> {
    // The driver asks for the process's default; ring is the one provider that is built in everywhere. Whoever was
    // quicker installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let attempt = |ssl: Option<SslOpts>| async {
        match tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options(config, ssl))).await {
            Ok(result) => result,
            Err(_) => Err(mysql_async::Error::Io(IoError::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    };
    let result = match attempt(tls_options(config)?).await {
        Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)) if config.tls == Tls::Prefer => {
            attempt(None).await
        }
        result => result,
    };
    result.map_err(|error| connect_error(config, &error))
}

fn options(config: &SourceConfig, ssl: Option<SslOpts>) -> Opts {
    OptsBuilder::default()
        .ip_or_hostname(config.host.clone())
        .tcp_port(config.port)
        .user(Some(config.user.clone()))
        .pass(config.password.as_ref().map(|password| password.expose().to_owned()))
        .ssl_opts(ssl)
        .max_allowed_packet(Some(PACKET_BYTES_MAX))
        .wait_timeout(Some(28_800))
        .tcp_keepalive(Some(Duration::from_secs(30)))
        // A loopback address must not quietly become a socket, where the server knows the user by another host.
        .prefer_socket(false)
        .into()
}

fn tls_options(config: &SourceConfig) -> Result<Option<SslOpts>, Error> {
    let options = match config.tls {
        Tls::Disable => return Ok(None),
        Tls::Prefer | Tls::Require => {
            SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
        }
        Tls::VerifyCa => SslOpts::default().with_danger_skip_domain_validation(true),
        Tls::VerifyFull => SslOpts::default(),
    };
    let roots = match &config.tls_ca_file {
        Some(file) => vec![file.clone().into()],
        None if matches!(config.tls, Tls::VerifyCa | Tls::VerifyFull) => {
            rustls_native_certs::load_native_certs().certs.into_iter().map(|der| der.as_ref().to_vec().into()).collect()
        }
        // Nothing is verified; the built-in authorities keep the verifier happy.
        None => return Ok(Some(options)),
    };
    Ok(Some(options.with_disable_built_in_roots(true).with_root_certs(roots)))
}

fn connect_error(config: &SourceConfig, error: &mysql_async::Error) -> Error {
    match error {
        // Access denied; host not allowed; plugin refusals; expired or locked accounts.
        mysql_async::Error::Server(server)
            if matches!(
                server.code,
                1044 | 1045 | 1130 | 1251 | 1275 | 1524 | 1698 | 1820 | 1862 | 3118 | 3159 | 4151
            ) =>
        {
            Error::Authentication {
                address: config.address(),
                user: config.user.clone(),
                cause: server.message.clone(),
            }
        }
        mysql_async::Error::Driver(
            error @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled),
        ) => Error::Authentication { address: config.address(), user: config.user.clone(), cause: error.to_string() },
        other => Error::Connect { address: config.address(), cause: plain(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
        assert_eq!(literal("it's \\"), "'it''s \\\\'");
    }
}
