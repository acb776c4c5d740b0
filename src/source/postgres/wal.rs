//! The replication stream: a thin seam over the transport, so that nothing above it knows which crate reads the socket.

use bytes::Bytes;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationEvent};
use tokio::time::{Duration, timeout};

use super::connection::{connect_replication, replication_privilege, sqlstate, wire_text};
use crate::config::SourceConfig;
use crate::source::{Error, Position};

/// What the server sends, in order.
#[derive(Debug)]
pub enum WalEvent {
    /// Everything committed before `wal_end` has been sent.
    KeepAlive { wal_end: u64 },
    Begin {
        commit_lsn: u64,
        xid: u32,
        /// Since 2000-01-01, UTC.
        commit_time_micros: i64,
    },
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        /// Since 2000-01-01, UTC.
        commit_time_micros: i64,
    },
    /// A pgoutput message of another kind.
    Change(Bytes),
    /// From `pg_logical_emit_message`, as part of the transaction that wrote it.
    Message { prefix: String, content: Bytes },
    /// Of no interest.
    Other,
}

/// An open stream.
pub struct Wal {
    client: ReplicationClient,
}

impl Wal {
    /// Starts to read at `from`; the slot must not have been confirmed further than that (see `slot.rs`).
    pub async fn start(config: &SourceConfig, from: u64) -> Result<Self, Error> {
        let mut client = connect_replication(config, from).await?;
        let started = async {
            client.start().await?;
            client.wait_started().await
        };
        match started.await {
            Ok(()) => Ok(Self { client }),
            Err(error) => Err(start_error(config, from, &error)),
        }
    }

    /// Waits for the next event. `position` is where the stream stands, for messages.
    pub async fn next(&mut self, position: &Position) -> Result<WalEvent, Error> {
        match self.client.recv().await {
            Ok(Some(event)) => Ok(match event {
                ReplicationEvent::KeepAlive { wal_end, .. } => WalEvent::KeepAlive { wal_end: wal_end.into() },
                ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                    WalEvent::Begin { commit_lsn: final_lsn.into(), xid, commit_time_micros }
                }
                ReplicationEvent::Commit { lsn, end_lsn, commit_time_micros } => {
                    WalEvent::Commit { commit_lsn: lsn.into(), end_lsn: end_lsn.into(), commit_time_micros }
                }
                ReplicationEvent::XLogData { data, .. } => WalEvent::Change(data),
                ReplicationEvent::Message { transactional: true, prefix, content, .. } => {
                    WalEvent::Message { prefix, content }
                }
                ReplicationEvent::Message { .. } => WalEvent::Other,
                ReplicationEvent::StoppedAt { .. } => {
                    return Err(disconnected(position, "the stream ended by itself"));
                }
            }),
            Ok(None) => Err(disconnected(position, "the server ended the stream")),
            Err(error @ (PgWireError::Protocol(_) | PgWireError::MessageTooLarge { .. })) => {
                Err(Error::Protocol { position: position.to_string(), finding: error.to_string() })
            }
            // The server could not put a row together in the 1 GB that it allows for it, and never will (P-18).
            Err(error) if sqlstate(&error) == Some("54000") || wire_text(&error).contains("invalid memory alloc") => {
                let finding = format!("the server can't send a row this large: {}", wire_text(&error));
                Err(Error::Protocol { position: position.to_string(), finding })
            }
            Err(error) => Err(disconnected(position, wire_text(&error))),
        }
    }

    /// Lets the server forget the log before `lsn`. Only ever called with what is durable in the lake.
    pub fn acknowledge(&self, lsn: u64) {
        self.client.update_applied_lsn(lsn.into());
    }

    /// Ends the stream and waits until the slot is free again, within reason.
    pub async fn close(mut self) {
        if timeout(Duration::from_secs(5), self.client.shutdown()).await.is_err() {
            self.client.abort();
        }
    }
}

fn disconnected(position: &Position, cause: impl Into<String>) -> Error {
    Error::Disconnected { position: position.to_string(), cause: cause.into() }
}

fn start_error(config: &SourceConfig, from: u64, error: &PgWireError) -> Error {
    let cause = wire_text(error);
    match sqlstate(error) {
        Some("55006") => {
            // "replication slot "x" is active for PID 123"
            let pid = cause.split_once("PID ").map_or("?", |(_, rest)| rest);
            let pid: String = pid.chars().take_while(char::is_ascii_digit).collect();
            Error::SlotInUse { slot: config.slot.clone(), pid: if pid.is_empty() { "?".into() } else { pid } }
        }
        Some("42704" | "55000") if cause.contains("slot") => {
            Error::SlotLost { slot: config.slot.clone(), cause, position: Position::Lsn(from) }
        }
        Some("42501") => replication_privilege(config),
        _ => disconnected(&Position::Lsn(from), cause),
    }
}
