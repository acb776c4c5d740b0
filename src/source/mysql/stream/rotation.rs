//! From one file of the log to the next, and where in a file the reader is.

use super::super::wire::Wire;
use super::Reader;
use crate::source::Error;

impl Reader {
    pub(super) async fn rotate(&mut self, body: &[u8], artificial: bool) -> Result<(), Error> {
        let mut wire = Wire::new(body);
        let offset = wire.u64().map_err(|fault| self.protocol("a rotation", &fault))?;
        let name = wire.rest();
        if artificial {
            // The first one comes before the format is known, so its checksum may hang on to the name. A later one names
            // the next file where the log has no rotation of its own, after a restart of the server.
            let numbered = |name: &[u8]| {
                let number = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
                !number.is_empty() && number.iter().all(u8::is_ascii_digit)
            };
            let without_checksum = &name[..name.len().saturating_sub(4)];
            if [name, without_checksum].contains(&self.file.as_bytes()) {
                return Ok(());
            }
            let name = if numbered(name) { name } else { without_checksum };
            self.file = String::from_utf8_lossy(name).into_owned();
            self.offset = offset;
            return Ok(());
        }
        self.file_boundary().await?;
        self.file = String::from_utf8_lossy(name).into_owned();
        self.offset = offset;
        self.maps.clear();
        Ok(())
    }

    /// No transaction spans two files: one that is open here was cut off by a crash of the server, and never happened.
    pub(super) async fn file_boundary(&mut self) -> Result<(), Error> {
        self.maps.clear();
        match &self.open {
            None => Ok(()),
            Some(open) if open.touched.is_empty() && !open.xa => self.commit(None).await,
            Some(_) => {
                tracing::warn!(position = %self.collector.position(), "the log ends inside a transaction; it is dropped");
                self.open = None;
                self.collector.rollback().await
            }
        }
    }
}

/// Follows the offset in a file; the log's own field has 32 bits and starts over in longer files. No event is so
/// long that it could start over twice.
pub(super) fn offset_after(offset: u64, log_pos: u32) -> u64 {
    // A rotation may name any offset.
    offset.saturating_add(u64::from(log_pos.wrapping_sub(offset as u32)))
}
