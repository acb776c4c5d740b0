//! The binlog as a stream of checked events.
//!
//! mysql_async and mysql_common carry and frame the events; what they leave out is done here: the checksum is compared,
//! a dead connection is noticed by missing heartbeats, a panic of the framing on malformed bytes becomes an error, and
//! the server's refusals get their meaning.
//!
//! Public sources: MySQL manual "COM_BINLOG_DUMP", "COM_BINLOG_DUMP_GTID"; MariaDB KB "Replica registration"
//! (`@slave_connect_state`, `@mariadb_slave_capability`).

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use mysql_async::{BinlogStream, BinlogStreamRequest, DriverError, GnoInterval, Sid};
use mysql_common::binlog::consts::BinlogChecksumAlg;
use mysql_common::binlog::events::Event;
use mysql_common::packets::Tag;

use crate::config::SourceConfig;
use crate::source::{Error, Position};

use super::connection::{Session, plain};

/// How often the server speaks when it has nothing to say.
pub const HEARTBEAT: Duration = Duration::from_secs(3);

/// Silence after which the connection counts as dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The same while the server still looks for the position in its files, during which it says nothing.
pub const SEARCH_SILENCE_MAX: Duration = Duration::from_secs(120);

/// The server's "fatal error 1236 when reading the binlog".
const FATAL_READING: u16 = 1236;

pub struct Transport {
    stream: BinlogStream,
    pub config: SourceConfig,
    pub account: String,
}

impl Transport {
    /// Asks for everything after `from`.
    pub async fn open(config: &SourceConfig, mut session: Session, from: &Position) -> Result<Self, Error> {
        let heartbeat = HEARTBEAT.as_nanos();
        session
            .execute(&format!("SET @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}"))
            .await?;
        // A slow lake must not make the server hang up.
        session.execute("SET SESSION net_write_timeout = 3600").await?;
        if session.flavor.is_mariadb() {
            // Level 4 knows GTID events; below it the server disguises them.
            session.execute("SET @mariadb_slave_capability = 4").await?;
        }
        let mut request = BinlogStreamRequest::new(config.server_id);
        let mut file = String::new();
        match from {
            Position::MariaDbGtid(_) => {
                let text = from.to_string();
                let gtids = text.strip_prefix("mariadb:").unwrap_or_default();
                session.execute(&format!("SET @slave_connect_state = '{gtids}'")).await?;
                session.execute("SET @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0").await?;
            }
            Position::MySqlGtid(set) => {
                let mut sids = Vec::new();
                for (source, tag, intervals) in set.iter() {
                    let mut sid = Sid::new(source.into_bytes()).with_intervals(
                        intervals.iter().map(|(start, end)| GnoInterval::new(*start, end + 1)).collect(),
                    );
                    if !tag.is_empty() {
                        let tag = Tag::new(tag.to_owned()).map_err(|error| Error::Protocol {
                            position: from.to_string(),
                            finding: format!("{error:?}"),
                        })?;
                        sid = sid.with_tag(tag);
                    }
                    sids.push(sid);
                }
                request = request.with_gtid().with_gtid_set(sids);
            }
            Position::BinlogOffset { file: name, offset } => {
                let (name, offset) = reachable(&mut session, name, *offset).await?;
                file = name;
                request = request.with_pos(offset);
            }
            Position::Lsn(_) => {
                return Err(Error::Protocol {
                    position: from.to_string(),
                    finding: "this position is PostgreSQL's".to_owned(),
                });
            }
        }
        let account = session.account.clone();
        let request = request.with_filename(file.as_bytes());
        let stream = session.conn.get_binlog_stream(request).await;
        match stream {
            Ok(stream) => Ok(Self { stream, config: config.clone(), account }),
            Err(error) => Err(failure(&error, from, config, &account)),
        }
    }

    /// The next event that is there already, without waiting.
    pub fn ready(&mut self, position: &Position) -> Option<Result<Event, Error>> {
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind().now_or_never()?;
        Some(self.checked(next, position))
    }

    /// Waits for the next event. Giving up waiting loses nothing: the state of a half-read packet stays in the stream.
    pub async fn next(&mut self, position: &Position) -> Result<Event, Error> {
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind().await;
        self.checked(next, position)
    }

    fn checked(
        &self,
        next: std::thread::Result<Option<mysql_async::Result<Event>>>,
        position: &Position,
    ) -> Result<Event, Error> {
        let event = match next {
            // The driver's framing gave up. The same bytes would come again.
            Err(_) => {
                return Err(Error::Protocol {
                    position: position.to_string(),
                    finding: "an event is cut off, or compressed in a way unknown to this release".to_owned(),
                });
            }
            Ok(None) => {
                return Err(Error::Disconnected {
                    position: position.to_string(),
                    cause: "the server ended the stream".to_owned(),
                });
            }
            Ok(Some(Err(error))) => return Err(failure(&error, position, &self.config, &self.account)),
            Ok(Some(Ok(event))) => event,
        };
        // What the driver unpacked from a compressed transaction has none of its own.
        if event.footer().get_checksum_enabled()
            && let (Ok(Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32)), Some(stored)) =
                (event.footer().get_checksum_alg(), event.checksum())
        {
            let computed = event.calc_checksum(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32);
            if computed != u32::from_le_bytes(stored) {
                return Err(Error::Protocol {
                    position: position.to_string(),
                    finding: format!(
                        "event of type {} with a wrong checksum: the binlog is damaged, or was on its way here",
                        event.header().event_type_raw()
                    ),
                });
            }
        }
        Ok(event)
    }
}

/// The dump command has 32 bits for the offset. A file longer than that ends with one huge transaction, behind which only
/// the next file can follow.
async fn reachable(session: &mut Session, file: &str, offset: u64) -> Result<(String, u64), Error> {
    if u32::try_from(offset).is_ok() {
        return Ok((file.to_owned(), offset));
    }
    let logs = session.query("SHOW BINARY LOGS").await?;
    let next = logs
        .rows
        .iter()
        .skip_while(|row| row.first().and_then(|name| name.as_deref()) != Some(file))
        .nth(1)
        .and_then(|row| row.first().cloned().flatten());
    match next {
        Some(next) => Ok((next, 4)),
        None => Err(Error::Setting {
            subject: "gtid_mode".to_owned(),
            finding: format!("offset {offset} of {file} is out of reach without GTIDs"),
            remedy: "run FLUSH BINARY LOGS; or switch the server to gtid_mode=ON".to_owned(),
        }),
    }
}

/// What an error of the stream means.
fn failure(error: &mysql_async::Error, position: &Position, config: &SourceConfig, account: &str) -> Error {
    let disconnected = |cause: String| Error::Disconnected { position: position.to_string(), cause };
    match error {
        mysql_async::Error::Server(server) => {
            let message = server.message.as_str();
            let says = |wanted: &str| message.contains(wanted);
            if matches!(server.code, 1227 | 1045 | 1142) {
                return Error::Privilege {
                    need: message.to_owned(),
                    remedy: format!("GRANT REPLICATION SLAVE ON *.* TO {account}"),
                };
            }
            if says("same server_uuid/server_id") || says("same server_id") {
                return Error::Setting {
                    subject: format!("server_id {}", config.server_id),
                    finding: format!("another reader with this id took over the log of {}", config.address()),
                    remedy: "stop the other reader, or give this source another `server_id` in config.toml".to_owned(),
                };
            }
            if server.code == FATAL_READING {
                let gone = [
                    "purged",
                    "Could not find first log file",
                    "Could not find GTID state",
                    "not in the master's binlog",
                    "not in the binlog",
                    "impossible position",
                    "more GTIDs than the",
                    "ahead of",
                    "beyond the end",
                ];
                if gone.iter().any(|text| says(text)) {
                    return Error::PositionLost { position: position.clone(), cause: message.to_owned() };
                }
                if says("max_allowed_packet") {
                    return Error::Setting {
                        subject: "max_allowed_packet".to_owned(),
                        finding: message.to_owned(),
                        remedy: "SET GLOBAL max_allowed_packet = 1073741824, and set the same in my.cnf".to_owned(),
                    };
                }
            }
            disconnected(server.to_string())
        }
        mysql_async::Error::Driver(DriverError::PacketTooLarge) => {
            Error::Protocol { position: position.to_string(), finding: "an event of more than 1 GiB".to_owned() }
        }
        other => disconnected(plain(other)),
    }
}
