//! How far one log position is from another, in the unit that the kind of log counts exactly.
//!
//! MySQL's GTID sets count transactions. MariaDB's GTIDs count sequence numbers: one for each transaction, unless somebody
//! set the counter forward. PostgreSQL's and file-and-offset positions count bytes of log.

use std::fmt;

use serde::Serialize;

use super::{GtidSet, LogFile, Position};

/// What a distance counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Bytes,
    Transactions,
    SequenceNumbers,
}

/// So much of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Distance {
    pub amount: u64,
    pub unit: Unit,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Transactions => "transactions",
            Self::SequenceNumbers => "GTID sequence numbers",
        })
    }
}

impl Position {
    /// How much of the log this position holds and `other` does not. `None` for positions of two kinds of log, and for binlog
    /// files that `files`, the server's in order, does not list.
    pub fn beyond(&self, other: &Self, files: &[LogFile]) -> Option<Distance> {
        let (amount, unit) = match (self, other) {
            (Self::Lsn(mine), Self::Lsn(theirs)) => (mine.saturating_sub(*theirs), Unit::Bytes),
            (Self::MySqlGtid(mine), Self::MySqlGtid(theirs)) => (lacking(mine, theirs), Unit::Transactions),
            (Self::MariaDbGtid(mine), Self::MariaDbGtid(theirs)) => {
                let theirs = |domain| theirs.get(domain).map_or(0, |(_, sequence)| *sequence);
                let each = mine.iter().map(|(domain, (_, sequence))| sequence.saturating_sub(theirs(domain)));
                (each.sum(), Unit::SequenceNumbers)
            }
            (Self::BinlogOffset { .. }, Self::BinlogOffset { .. }) if other.covers(self) => (0, Unit::Bytes),
            (Self::BinlogOffset { file, offset }, Self::BinlogOffset { file: from, offset: start }) => {
                let bytes = if file == from {
                    offset.checked_sub(*start)?
                } else {
                    let place = |name: &str| files.iter().position(|file| file.name == name);
                    let between = files.get(place(from)?..place(file)?)?;
                    between.iter().map(|file| file.bytes).sum::<u64>().checked_sub(*start)? + offset
                };
                (bytes, Unit::Bytes)
            }
            _ => return None,
        };
        Some(Distance { amount, unit })
    }
}

/// How many transactions of the first set the second lacks.
fn lacking(all: &GtidSet, some: &GtidSet) -> u64 {
    let count = |set: &GtidSet| set.iter().map(|(_, _, intervals)| length(intervals)).sum::<u64>();
    let mut both = some.clone();
    for (source, tag, intervals) in all.iter() {
        for (start, end) in intervals {
            both.insert_interval(source, tag, *start, *end);
        }
    }
    count(&both).saturating_sub(count(some))
}

fn length(intervals: &[(u64, u64)]) -> u64 {
    intervals.iter().map(|(start, end)| end - start + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn beyond(one: &str, other: &str) -> Option<(u64, Unit)> {
        let file = |name: &str, bytes| LogFile { name: name.into(), bytes };
        let files = [file("b.000008", 500), file("b.000009", 300), file("b.000010", 200)];
        let [one, other] = [one, other].map(|text| text.parse::<Position>().expect(text));
        one.beyond(&other, &files).map(|distance| (distance.amount, distance.unit))
    }

    #[test]
    fn each_kind_of_log_counts_in_its_own_unit() {
        assert_eq!(beyond("pg:1/10", "pg:0/FFFFFFF0"), Some((32, Unit::Bytes)));
        assert_eq!(beyond("mariadb:0-1-10,7-1-3", "mariadb:0-2-4"), Some((9, Unit::SequenceNumbers)));
        let set = |text: &str| format!("mysql:{SOURCE}:{text}");
        assert_eq!(beyond(&set("1-10:15-20"), &set("1-4:16")), Some((11, Unit::Transactions)));
        assert_eq!(beyond(&set("1-10"), "mysql:"), Some((10, Unit::Transactions)));
        assert_eq!(beyond("binlog:b.000010:50", "binlog:b.000010:20"), Some((30, Unit::Bytes)));
        assert_eq!(beyond("binlog:b.000010:50", "binlog:b.000008:400"), Some((450, Unit::Bytes)));
    }

    #[test]
    fn what_is_further_lacks_nothing() {
        assert_eq!(beyond("pg:0/10", "pg:0/20"), Some((0, Unit::Bytes)));
        assert_eq!(beyond("binlog:b.000008:9", "binlog:b.000010:1"), Some((0, Unit::Bytes)));
        assert_eq!(beyond("mariadb:0-1-4", "mariadb:0-1-10"), Some((0, Unit::SequenceNumbers)));
    }

    #[test]
    fn what_can_not_be_told_is_not_told() {
        assert_eq!(beyond("pg:0/10", "mariadb:0-1-4"), None);
        assert_eq!(beyond("binlog:b.000010:50", "binlog:b.000007:4"), None, "that file is not listed");
    }
}
