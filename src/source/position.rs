//! Log positions: which transactions a reader, or a lake table, already has.
//!
//! A position is the *set of transactions it contains*, in the form each server gives: MySQL's executed GTID set,
//! MariaDB's last GTID of each replication domain, a binlog file and offset where GTIDs are off, a WAL LSN. Only
//! [`Position::contains`] decides whether a transaction is applied already; positions are never compared as text.
//!
//! Sources: MySQL manual 19.1.3.1 "GTID Format and Storage"; MariaDB KB "Global Transaction ID"; PostgreSQL
//! `SnapBuildXactNeedsSkip` in snapbuild.c (a transaction is decoded if its commit record starts at or after the start
//! point).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The name of one transaction in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionId {
    /// MySQL `source_id[:tag]:sequence`.
    MySqlGtid { source: Uuid, tag: String, sequence: u64 },
    /// MariaDB `domain-server-sequence`.
    MariaDbGtid { domain: u32, server: u32, sequence: u64 },
    /// Binlog file and the offset just after the transaction.
    BinlogOffset { file: String, end: u64 },
    /// WAL address where the commit record starts, and just after it.
    Lsn { commit: u64, end: u64 },
}

/// A set of transactions; see the module text. The text form is `kind:value` and survives a round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// `mysql:uuid:1-5:7,uuid:tag:1-3`
    MySqlGtid(GtidSet),
    /// `mariadb:0-1-100,1-1-7`: domain to (server id, sequence).
    MariaDbGtid(BTreeMap<u32, (u32, u64)>),
    /// `binlog:binlog.000004:1234`
    BinlogOffset { file: String, offset: u64 },
    /// `pg:0/16B3748`
    Lsn(u64),
}

impl Position {
    /// Whether the transaction is part of this position.
    pub fn contains(&self, transaction: &TransactionId) -> bool {
        match (self, transaction) {
            (Self::MySqlGtid(set), TransactionId::MySqlGtid { source, tag, sequence }) => {
                set.contains(*source, tag, *sequence)
            }
            (Self::MariaDbGtid(domains), TransactionId::MariaDbGtid { domain, sequence, .. }) => {
                domains.get(domain).is_some_and(|(_, last)| sequence <= last)
            }
            (Self::BinlogOffset { file, offset }, TransactionId::BinlogOffset { file: other, end }) => {
                (file_number(other), *end) <= (file_number(file), *offset)
            }
            (Self::Lsn(lsn), TransactionId::Lsn { commit, .. }) => commit < lsn,
            // Another kind of log: nothing of it is in here.
            _ => false,
        }
    }

    /// Whether transactions named like this one are what the position counts.
    pub fn counts(&self, transaction: &TransactionId) -> bool {
        matches!(
            (self, transaction),
            (Self::MySqlGtid(_), TransactionId::MySqlGtid { .. })
                | (Self::MariaDbGtid(_), TransactionId::MariaDbGtid { .. })
                | (Self::BinlogOffset { .. }, TransactionId::BinlogOffset { .. })
                | (Self::Lsn(_), TransactionId::Lsn { .. })
        )
    }

    /// Adds the transaction.
    pub fn advance(&mut self, transaction: &TransactionId) {
        match (self, transaction) {
            (Self::MySqlGtid(set), TransactionId::MySqlGtid { source, tag, sequence }) => {
                set.insert(*source, tag, *sequence);
            }
            (Self::MariaDbGtid(domains), TransactionId::MariaDbGtid { domain, server, sequence }) => {
                let last = domains.entry(*domain).or_insert((*server, *sequence));
                if *sequence >= last.1 {
                    *last = (*server, *sequence);
                }
            }
            (Self::BinlogOffset { file, offset }, TransactionId::BinlogOffset { file: other, end }) => {
                if (file_number(other), *end) > (file_number(file), *offset) {
                    other.clone_into(file);
                    *offset = *end;
                }
            }
            (Self::Lsn(lsn), TransactionId::Lsn { end, .. }) => *lsn = (*lsn).max(*end),
            _ => debug_assert!(false, "a transaction of another kind of log"),
        }
    }

    /// Whether every transaction of `other` is part of this position.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySqlGtid(mine), Self::MySqlGtid(theirs)) => mine.covers(theirs),
            (Self::MariaDbGtid(mine), Self::MariaDbGtid(theirs)) => {
                theirs.iter().all(|(domain, (_, sequence))| mine.get(domain).is_some_and(|(_, last)| sequence <= last))
            }
            (Self::BinlogOffset { file, offset }, Self::BinlogOffset { file: other, offset: theirs }) => {
                (file_number(other), theirs) <= (file_number(file), offset)
            }
            (Self::Lsn(mine), Self::Lsn(theirs)) => theirs <= mine,
            _ => false,
        }
    }
}

/// The number that orders binlog files: servers append it after the last dot and let it outgrow six digits.
fn file_number(file: &str) -> u64 {
    file.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySqlGtid(set) => write!(f, "mysql:{set}"),
            Self::MariaDbGtid(domains) => {
                f.write_str("mariadb:")?;
                for (index, (domain, (server, sequence))) in domains.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{domain}-{server}-{sequence}")?;
                }
                Ok(())
            }
            Self::BinlogOffset { file, offset } => write!(f, "binlog:{file}:{offset}"),
            Self::Lsn(lsn) => write!(f, "pg:{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a log position (expected mysql:…, mariadb:…, binlog:FILE:OFFSET or pg:X/Y)")]
pub struct UnreadablePosition(pub String);

impl FromStr for Position {
    type Err = UnreadablePosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || UnreadablePosition(text.to_owned());
        let (kind, value) = text.split_once(':').ok_or_else(unreadable)?;
        match kind {
            "mysql" => value.parse().map(Self::MySqlGtid).map_err(|_| unreadable()),
            "mariadb" => parse_mariadb(value).map(Self::MariaDbGtid).ok_or_else(unreadable),
            "binlog" => {
                let (file, offset) = value.rsplit_once(':').ok_or_else(unreadable)?;
                let offset = offset.parse().map_err(|_| unreadable())?;
                Ok(Self::BinlogOffset { file: file.to_owned(), offset })
            }
            "pg" => {
                let (high, low) = value.split_once('/').ok_or_else(unreadable)?;
                let high = u32::from_str_radix(high, 16).map_err(|_| unreadable())?;
                let low = u32::from_str_radix(low, 16).map_err(|_| unreadable())?;
                Ok(Self::Lsn((u64::from(high) << 32) | u64::from(low)))
            }
            _ => Err(unreadable()),
        }
    }
}

/// `0-1-100,1-1-7`; empty text is the empty set.
fn parse_mariadb(text: &str) -> Option<BTreeMap<u32, (u32, u64)>> {
    let mut domains = BTreeMap::new();
    for gtid in text.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()) {
        let mut parts = gtid.splitn(3, '-');
        let domain = parts.next()?.parse().ok()?;
        let server = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        domains.insert(domain, (server, sequence));
    }
    Some(domains)
}

/// A MySQL GTID set: for each source id and tag, disjoint inclusive intervals in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    sources: BTreeMap<(Uuid, String), Vec<(u64, u64)>>,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// (source id, tag, inclusive intervals), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &str, &[(u64, u64)])> {
        self.sources.iter().map(|((source, tag), intervals)| (*source, tag.as_str(), intervals.as_slice()))
    }

    pub fn contains(&self, source: Uuid, tag: &str, sequence: u64) -> bool {
        // A borrowed key would need a second lookup type; the tag is almost always empty, so this does not allocate.
        self.sources.get(&(source, tag.to_owned())).is_some_and(|intervals| {
            let after = intervals.partition_point(|(start, _)| *start <= sequence);
            after > 0 && intervals[after - 1].1 >= sequence
        })
    }

    pub fn insert(&mut self, source: Uuid, tag: &str, sequence: u64) {
        self.insert_interval(source, tag, sequence, sequence);
    }

    /// Adds the inclusive interval, merging neighbours.
    pub fn insert_interval(&mut self, source: Uuid, tag: &str, start: u64, end: u64) {
        let intervals = self.sources.entry((source, tag.to_owned())).or_default();
        // The common case: the next transaction of the same server.
        if let Some(last) = intervals.last_mut()
            && last.1.checked_add(1) == Some(start)
        {
            last.1 = end;
            return;
        }
        let first = intervals.partition_point(|(_, other_end)| other_end.saturating_add(1) < start);
        let mut merged = (start, end);
        let mut beyond = first;
        while beyond < intervals.len() && intervals[beyond].0 <= merged.1.saturating_add(1) {
            merged.0 = merged.0.min(intervals[beyond].0);
            merged.1 = merged.1.max(intervals[beyond].1);
            beyond += 1;
        }
        intervals.splice(first..beyond, [merged]);
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.sources.iter().all(|(key, intervals)| {
            let mine = self.sources.get(key).map(Vec::as_slice).unwrap_or_default();
            intervals.iter().all(|(start, end)| {
                let after = mine.partition_point(|(my_start, _)| my_start <= start);
                after > 0 && mine[after - 1].1 >= *end
            })
        })
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((source, tag), intervals)) in self.sources.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{source}")?;
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (start, end) in intervals {
                if start == end {
                    write!(f, ":{start}")?;
                } else {
                    write!(f, ":{start}-{end}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = UnreadablePosition;

    /// Reads the server's own text: `uuid:1-5:7, uuid:tag:1-3:othertag:9`, with or without line breaks.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || UnreadablePosition(text.to_owned());
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let source = pieces.next().and_then(|uuid| Uuid::parse_str(uuid).ok()).ok_or_else(unreadable)?;
            let mut tag = "";
            for piece in pieces {
                if !piece.starts_with(|c: char| c.is_ascii_digit()) {
                    tag = piece;
                    continue;
                }
                let (start, end) = piece.split_once('-').unwrap_or((piece, piece));
                let start: u64 = start.trim().parse().map_err(|_| unreadable())?;
                let end: u64 = end.trim().parse().map_err(|_| unreadable())?;
                if start == 0 || end < start {
                    return Err(unreadable());
                }
                set.insert_interval(source, tag, start, end);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().expect(text)
    }

    #[test]
    fn positions_survive_their_text_form() {
        for text in [
            format!("mysql:{SOURCE}:1-5:7,{SOURCE}:nightly:2-3"),
            "mysql:".to_owned(),
            "mariadb:0-1-100,7-2-9".to_owned(),
            "mariadb:".to_owned(),
            "binlog:binlog.000004:1234".to_owned(),
            "pg:1A/16B3748".to_owned(),
        ] {
            let position: Position = text.parse().expect(&text);
            assert_eq!(position.to_string(), text);
        }
    }

    #[test]
    fn garbage_is_not_a_position() {
        for text in ["", "mysql", "mysql:x:1", "mariadb:0-1", "binlog:f", "pg:1", "oracle:1", "mysql:x:5-1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    /// gaps stay gaps until they are filled.
    #[test]
    fn gtid_gaps_are_kept() {
        let mut gtids = set(&format!("{SOURCE}:1-7:9-10"));
        let source = Uuid::parse_str(SOURCE).expect("a constant");
        assert!(!gtids.contains(source, "", 8));
        assert!(gtids.contains(source, "", 9));
        assert!(!gtids.contains(source, "tag", 9));
        assert!(!gtids.covers(&set(&format!("{SOURCE}:7-9"))));
        gtids.insert(source, "", 8);
        assert_eq!(gtids.to_string(), format!("{SOURCE}:1-10"));
        assert!(gtids.covers(&set(&format!("{SOURCE}:7-9"))));
    }

    #[test]
    fn intervals_merge_in_any_order() {
        let source = Uuid::parse_str(SOURCE).expect("a constant");
        let mut gtids = GtidSet::default();
        for sequence in [5, 1, 3, 2, 9, 4, 8] {
            gtids.insert(source, "", sequence);
        }
        assert_eq!(gtids.to_string(), format!("{SOURCE}:1-5:8-9"));
        gtids.insert_interval(source, "", 3, 20);
        assert_eq!(gtids.to_string(), format!("{SOURCE}:1-20"));
    }

    /// a transaction that begins where the last one ended is new.
    #[test]
    fn an_lsn_contains_the_transactions_before_it_only() {
        let mut position = Position::Lsn(100);
        assert!(position.contains(&TransactionId::Lsn { commit: 60, end: 100 }));
        let next = TransactionId::Lsn { commit: 100, end: 140 };
        assert!(!position.contains(&next));
        position.advance(&next);
        assert!(position.contains(&next));
    }

    #[test]
    fn binlog_files_are_ordered_by_number_not_by_text() {
        let position = Position::BinlogOffset { file: "binlog.1000000".into(), offset: 4 };
        assert!(position.contains(&TransactionId::BinlogOffset { file: "binlog.999999".into(), end: 9000 }));
        assert!(!position.contains(&TransactionId::BinlogOffset { file: "binlog.1000000".into(), end: 5 }));
    }

    /// a domain the position does not know is not contained.
    #[test]
    fn mariadb_domains_are_independent() {
        let mut position: Position = "mariadb:0-1-10".parse().expect("valid");
        assert!(position.contains(&TransactionId::MariaDbGtid { domain: 0, server: 2, sequence: 9 }));
        let other = TransactionId::MariaDbGtid { domain: 7, server: 1, sequence: 1 };
        assert!(!position.contains(&other));
        position.advance(&other);
        assert_eq!(position.to_string(), "mariadb:0-1-10,7-1-1");
    }

    proptest::proptest! {
        /// a GTID set is the set of what was put in, whatever the order, and survives its text.
        #[test]
        fn gtid_sets_hold_what_was_put_in(
            intervals in proptest::collection::vec((0..3_usize, 1..60_u64, 0..12_u64), 0..40),
            others in proptest::collection::vec((0..3_usize, 1..60_u64, 0..12_u64), 0..4),
        ) {
            let names = [(Uuid::from_u128(1), ""), (Uuid::from_u128(1), "nightly"), (Uuid::from_u128(2), "")];
            let mut model = std::collections::BTreeSet::new();
            let mut gtids = GtidSet::default();
            for (name, start, length) in intervals {
                gtids.insert_interval(names[name].0, names[name].1, start, start + length);
                model.extend((start..=start + length).map(|sequence| (name, sequence)));
            }
            for (name, (source, tag)) in names.into_iter().enumerate() {
                for sequence in 1..80 {
                    proptest::prop_assert_eq!(gtids.contains(source, tag, sequence), model.contains(&(name, sequence)));
                }
            }
            for (_, _, intervals) in gtids.iter() {
                let apart = intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
                proptest::prop_assert!(apart, "{:?} are disjoint, ascending, and never touch", intervals);
            }
            let position = Position::MySqlGtid(gtids.clone());
            proptest::prop_assert_eq!(position.to_string().parse::<Position>().ok(), Some(position));
            let mut wanted = GtidSet::default();
            let mut all = true;
            for (name, start, length) in others {
                wanted.insert_interval(names[name].0, names[name].1, start, start + length);
                all &= (start..=start + length).all(|sequence| model.contains(&(name, sequence)));
            }
            proptest::prop_assert_eq!(gtids.covers(&wanted), all);
        }

        #[test]
        fn every_position_survives_its_text(
            domains in proptest::collection::btree_map(proptest::prelude::any::<u32>(), proptest::prelude::any::<(u32, u64)>(), 0..4),
            lsn in proptest::prelude::any::<u64>(),
            file in "[a-z:.\\-]{1,10}\\.[0-9]{6,8}",
        ) {
            for position in
                [Position::MariaDbGtid(domains), Position::Lsn(lsn), Position::BinlogOffset { file, offset: lsn }]
            {
                proptest::prop_assert_eq!(position.to_string().parse::<Position>().ok(), Some(position.clone()));
                proptest::prop_assert!(position.covers(&position));
            }
        }
    }

    /// The largest number has no next one.
    #[test]
    fn the_end_of_the_numbers_is_no_overflow() {
        let source = Uuid::parse_str(SOURCE).expect("a constant");
        let mut gtids = GtidSet::default();
        for sequence in [u64::MAX, u64::MAX, u64::MAX - 1, 1] {
            gtids.insert(source, "", sequence);
        }
        assert_eq!(gtids.to_string(), format!("{SOURCE}:1:{}-{}", u64::MAX - 1, u64::MAX));
    }
}
