//! How the WAL stands: its end, and what the slot keeps of it.

use super::connection;
use super::slot::{self, Slot};
use crate::config::SourceConfig;
use crate::source::{Error, Kept, LogState, Position};

pub async fn read(config: &SourceConfig) -> Result<LogState, Error> {
    let mut connection = connection::connect(config).await?;
    let head = Position::Lsn(slot::log_end(&mut connection).await?);
    let kept = kept(config, slot::find(&mut connection, &config.slot).await?);
    Ok(LogState { head, kept })
}

fn kept(config: &SourceConfig, slot: Option<Slot>) -> Kept {
    let name = Some(config.slot.clone());
    let Some(slot) = slot else {
        return Kept { slot: name, slot_lost: Some("does not exist any more".into()), ..Kept::default() };
    };
    Kept {
        slot: name,
        // Until then the reader has told that it has everything; the server sends no more of it.
        since: slot.confirmed().map(Position::Lsn),
        slot_lost: slot.foreign(config).or_else(|| slot.lost()),
        restart_lsn: slot.restart_lsn,
        wal_status: slot.wal_status,
        safe_wal_bytes: slot.safe_wal_size,
        ..Kept::default()
    }
}
