//! How a source's log stands, for whoever compares positions with it.

use serde::Serialize;

use super::Position;

/// What one look at the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The position of the last transaction committed so far.
    pub head: Position,
    pub kept: Kept,
}

/// One of the server's binlog files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogFile {
    pub name: String,
    pub bytes: u64,
}

/// How much of its log the server still has, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// MySQL, MariaDB: the binlog files, oldest first.
    #[serde(skip)]
    pub files: Vec<LogFile>,
    /// Everything after this position can be read.
    #[serde(serialize_with = "position_text", skip_serializing_if = "Option::is_none")]
    pub since: Option<Position>,
    /// MySQL, MariaDB: after how many seconds a binlog file is removed; 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_seconds: Option<u64>,
    /// PostgreSQL: the replication slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// PostgreSQL: from where on the server keeps its log for the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_lsn: Option<String>,
    /// PostgreSQL: `reserved`, `extended`, `unreserved` or `lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_status: Option<String>,
    /// PostgreSQL, with `max_slot_wal_keep_size`: how many bytes of log may be written before the slot is in danger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_wal_bytes: Option<i64>,
    /// PostgreSQL: why nothing can be read through the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_lost: Option<String>,
}

impl Kept {
    /// Why what comes after `position` can't be read any more, if that is so.
    pub fn lost(&self, position: &Position) -> Option<String> {
        if let (Some(slot), Some(cause)) = (&self.slot, &self.slot_lost) {
            return Some(format!("replication slot `{slot}` {cause}"));
        }
        let since = self.since.as_ref().filter(|since| !position.covers(since))?;
        Some(format!("the source's log is kept only since {since}"))
    }
}

fn position_text<W: serde::Serializer>(position: &Option<Position>, serializer: W) -> Result<W::Ok, W::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_lost_when_the_log_begins_after_it_or_the_slot_is() {
        let position = |text: &str| text.parse::<Position>().expect(text);
        let kept = Kept { since: Some(position("mariadb:0-1-50")), ..Kept::default() };
        assert_eq!(kept.lost(&position("mariadb:0-1-50")), None);
        assert!(kept.lost(&position("mariadb:0-1-49")).is_some_and(|cause| cause.contains("mariadb:0-1-50")));
        let slot =
            Kept { slot: Some("s".into()), slot_lost: Some("does not exist any more".into()), ..Kept::default() };
        assert!(slot.lost(&position("pg:0/1")).is_some_and(|cause| cause.contains("`s` does not exist")));
        assert_eq!(Kept::default().lost(&position("pg:0/1")), None);
    }
}
