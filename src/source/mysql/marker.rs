//! The events that delimit transactions: GTIDs of both servers, and `QUERY_EVENT` with its statement's text.
//!
//! Public sources: MariaDB KB "GTID_EVENT" and `log_event.h` (event 162, `flags2`, `flags_extra`); MySQL's
//! `libbinlogevents/include/control_events.h` (`Gtid_event`) and `statement_events.h` (`Query_event`, status variables).

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::source::TransactionId;

use super::charset::Collations;
use super::wire::{Fault, Wire};

/// MariaDB's `GTID_EVENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariaDbGtid {
    pub domain: u32,
    pub sequence: u64,
    /// One event follows, and no commit marker.
    pub standalone: bool,
    /// The group is an XA transaction that is only prepared here.
    pub prepared_xa: bool,
    /// One half of a two-phase ALTER TABLE that does not take effect here: its start, or its rollback (D-11).
    pub ineffective_alter: bool,
}

const STANDALONE: u8 = 1;
const GROUP_COMMIT_ID: u8 = 2;
const PREPARED_XA: u8 = 64;
const COMPLETED_XA: u8 = 128;
const EXTRA_START_ALTER: u8 = 2;
const EXTRA_ROLLBACK_ALTER: u8 = 8;

impl MariaDbGtid {
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut wire = Wire::new(body);
        let sequence = wire.u64()?;
        let domain = wire.u32()?;
        let flags = wire.u8()?;
        if flags & GROUP_COMMIT_ID != 0 {
            wire.u64()?;
        }
        if flags & (PREPARED_XA | COMPLETED_XA) != 0 {
            wire.u32()?;
            let (global, branch) = (wire.u8()?, wire.u8()?);
            wire.take(usize::from(global) + usize::from(branch))?;
        }
        // What follows is padding, all zero, or the extra flags.
        let extra = if wire.is_empty() { 0 } else { wire.u8()? };
        Ok(Self {
            domain,
            sequence,
            standalone: flags & STANDALONE != 0,
            prepared_xa: flags & PREPARED_XA != 0,
            ineffective_alter: extra & (EXTRA_START_ALTER | EXTRA_ROLLBACK_ALTER) != 0,
        })
    }
}

/// MySQL's `GTID_LOG_EVENT` (type 33): the transaction, and when it was committed.
pub fn mysql_gtid(body: &[u8]) -> Result<(TransactionId, Option<DateTime<Utc>>), Fault> {
    let mut wire = Wire::new(body);
    wire.u8()?;
    let source = Uuid::from_slice(wire.take(16)?).map_err(|error| Fault(error.to_string()))?;
    let sequence = gtid_sequence(wire.u64()?)?;
    // Since 5.7 the logical clock follows (a type byte 2 and two numbers), since 8.0.1 the time of the commit.
    let mut committed_at = || {
        if wire.u8().ok()? != 2 {
            return None;
        }
        wire.take(16).ok()?;
        let micros = wire.unsigned(7).ok()? & ((1 << 55) - 1);
        micros_time(micros)
    };
    let committed_at = committed_at();
    Ok((TransactionId::MySqlGtid { source, tag: String::new(), sequence }, committed_at))
}

/// The server counts from 1 to 2^63 - 2 (`GNO_END`); what else there is could not be told back to it.
pub fn gtid_sequence(sequence: u64) -> Result<u64, Fault> {
    if (1..i64::MAX as u64).contains(&sequence) {
        Ok(sequence)
    } else {
        Err(Fault(format!("{sequence} is no transaction's number")))
    }
}

pub fn micros_time(micros: u64) -> Option<DateTime<Utc>> {
    i64::try_from(micros).ok().and_then(DateTime::from_timestamp_micros)
}

/// `QUERY_EVENT`: a statement in the client's character set, and the database it ran in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub schema: String,
    pub text: Cow<'a, str>,
    /// Not 0: the statement failed, maybe half way.
    pub error_code: u16,
    /// `sql_mode` of its session, as the server's bits; 0 when the log does not tell.
    pub sql_mode: u64,
    pub session: SessionState,
}

/// What else the log tells of the session that ran a statement; `None` is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// `SYSTEM`, `+02:00`, `Europe/Berlin`; told where the statement's effect depends on it.
    pub time_zone: Option<String>,
    /// Microseconds of the moment that NOW() was, besides the seconds in the event's header.
    pub micros: Option<u32>,
    /// Ids of `character_set_client` and `collation_connection`.
    pub client: Option<u64>,
    pub connection: Option<u64>,
    /// `explicit_defaults_for_timestamp`; of MariaDB only told when it is on.
    pub explicit_timestamps: Option<bool>,
}

/// MariaDB's bit of `explicit_defaults_for_timestamp` among a session's flags (`OPTION_EXPLICIT_DEF_TIMESTAMP`).
const EXPLICIT_TIMESTAMPS: u32 = 1 << 24;

impl<'a> Query<'a> {
    /// `extra` bytes of header go before the status variables: 13 in `EXECUTE_LOAD_QUERY_EVENT`.
    pub fn parse(body: &'a [u8], extra: usize, collations: &Collations) -> Result<Self, Fault> {
        let mut wire = Wire::new(body);
        wire.take(8)?;
        let schema_length = usize::from(wire.u8()?);
        let error_code = wire.u16()?;
        let status_length = usize::from(wire.u16()?);
        wire.take(extra)?;
        let status = wire.take(status_length)?;
        let schema = String::from_utf8_lossy(wire.take(schema_length)?).into_owned();
        wire.u8()?;
        let text = wire.rest();
        // Names in a statement are in the client's character set (D-13).
        let (sql_mode, session) = session_of(Wire::new(status));
        let text = match session.client.map(|id| collations.by_id(id)) {
            // What it cannot decode stands in literals: the server accepts no name that is not well formed.
            Some(Ok(charset)) => charset.decode(text).0,
            // A name read wrongly would match no table, and its TRUNCATE go unseen. Without other characters than ASCII's
            // none is.
            Some(Err(_)) | None if text.is_ascii() => String::from_utf8_lossy(text),
            Some(Err(fault)) => return Err(Fault(format!("it is in the client's character set, and {fault}"))),
            // The server's own statements are in its system character set, UTF-8.
            None => {
                let text = std::str::from_utf8(text);
                Cow::Borrowed(text.map_err(|_| Fault::new("it does not tell its character set, and is not UTF-8"))?)
            }
        };
        Ok(Self { schema, text, error_code, sql_mode, session })
    }
}

/// Walks the status variables; one that is unknown here ends the walk, since its length is unknown too.
fn session_of(mut wire: Wire<'_>) -> (u64, SessionState) {
    let mut sql_mode = 0;
    let mut session = SessionState::default();
    let mut walk = || -> Result<(), Fault> {
        while !wire.is_empty() {
            match wire.u8()? {
                // Q_FLAGS2. MySQL tells the same by a variable of its own, and has another meaning for the bit.
                0 if wire.u32()? & EXPLICIT_TIMESTAMPS != 0 => session.explicit_timestamps = Some(true),
                0 => {}
                1 => sql_mode = wire.u64()?,
                // Q_CATALOG, which ends with a zero.
                2 => {
                    let length = wire.u8()?;
                    wire.take(usize::from(length) + 1)?;
                }
                // Q_AUTO_INCREMENT, Q_MASTER_DATA_WRITTEN
                3 | 10 => drop(wire.take(4)?),
                4 => {
                    session.client = Some(u64::from(wire.u16()?));
                    session.connection = Some(u64::from(wire.u16()?));
                    wire.take(2)?;
                }
                5 => {
                    let length = wire.u8()?;
                    let name = wire.take(usize::from(length))?;
                    session.time_zone = String::from_utf8(name.to_vec()).ok();
                }
                // Q_CATALOG_NZ
                6 => {
                    let length = wire.u8()?;
                    wire.take(usize::from(length))?;
                }
                // Q_LC_TIME_NAMES, Q_CHARSET_DATABASE, Q_DEFAULT_COLLATION_FOR_UTF8MB4
                7 | 8 | 18 => drop(wire.take(2)?),
                // Q_TABLE_MAP_FOR_UPDATE, Q_DDL_LOGGED_WITH_XID, MariaDB's Q_XID
                9 | 17 | 129 => drop(wire.take(8)?),
                // Q_INVOKER: user and host.
                11 => {
                    for _ in 0..2 {
                        let length = wire.u8()?;
                        wire.take(usize::from(length))?;
                    }
                }
                // Q_UPDATED_DB_NAMES; 254 stands for too many.
                12 => {
                    let names = wire.u8()?;
                    for _ in 0..if names == 254 { 0 } else { names } {
                        while wire.u8()? != 0 {}
                    }
                }
                // Q_MICROSECONDS and MariaDB's Q_HRNOW
                13 | 128 => session.micros = Some(wire.unsigned(3)? as u32).filter(|micros| *micros < 1_000_000),
                16 => session.explicit_timestamps = Some(wire.u8()? != 0),
                // Q_SQL_REQUIRE_PRIMARY_KEY, Q_DEFAULT_TABLE_ENCRYPTION
                19 | 20 => drop(wire.take(1)?),
                _ => break,
            }
        }
        Ok(())
    };
    // What was read before a fault is told all the same.
    let _ = walk();
    (sql_mode, session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mariadb(flags: u8, tail: &[u8]) -> Vec<u8> {
        let mut body = 42_u64.to_le_bytes().to_vec();
        body.extend(7_u32.to_le_bytes());
        body.push(flags);
        body.extend(tail);
        body
    }

    #[test]
    fn mariadb_gtids_tell_what_ends_the_group() {
        let gtid = MariaDbGtid::parse(&mariadb(0x0C, &[0; 6])).expect("well formed");
        assert_eq!((gtid.domain, gtid.sequence, gtid.standalone), (7, 42, false));
        assert!(MariaDbGtid::parse(&mariadb(0x29, &[0; 6])).expect("well formed").standalone);
        let committed = MariaDbGtid::parse(&mariadb(0x0E, &[1, 2, 3, 4, 5, 6, 7, 8])).expect("well formed");
        assert!(!committed.standalone && !committed.ineffective_alter);
    }

    ///
    #[test]
    fn a_prepared_xa_group_is_told_by_its_gtid() {
        let gtid = MariaDbGtid::parse(&mariadb(0x40, &[1, 0, 0, 0, 2, 1, b'g', b't', b'b', 0])).expect("well formed");
        assert!(gtid.prepared_xa && !gtid.ineffective_alter);
    }

    /// D-11
    #[test]
    fn a_started_or_rolled_back_alter_has_no_effect() {
        for (extra, ineffective) in [(2, true), (4, false), (8, true)] {
            let gtid = MariaDbGtid::parse(&mariadb(0x29, &[extra, 0, 0, 0, 0, 0, 0, 0, 0])).expect("well formed");
            assert_eq!(gtid.ineffective_alter, ineffective, "{extra}");
        }
    }

    #[test]
    fn mysql_gtids_carry_the_commit_time() {
        let mut body = vec![1];
        body.extend([0x11; 16]);
        body.extend(9_u64.to_le_bytes());
        let (bare, no_time) = mysql_gtid(&body).expect("well formed");
        assert_eq!(no_time, None);
        body.push(2);
        body.extend([0; 16]);
        body.extend(&1_700_000_000_123_456_u64.to_le_bytes()[..7]);
        let (id, time) = mysql_gtid(&body).expect("well formed");
        assert_eq!(id, bare);
        assert_eq!(time.map(|time| time.timestamp_micros()), Some(1_700_000_000_123_456));
        assert!(matches!(id, TransactionId::MySqlGtid { sequence: 9, .. }));
    }

    pub fn query(schema: &str, status: &[u8], text: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.push(schema.len() as u8);
        body.extend([0, 0]);
        body.extend((status.len() as u16).to_le_bytes());
        body.extend(status);
        body.extend(schema.as_bytes());
        body.push(0);
        body.extend(text);
        body
    }

    /// D-13
    #[test]
    fn statements_are_in_the_clients_character_set() {
        let collations = Collations::new([(8, "latin1".to_owned()), (45, "utf8mb4".to_owned())], Default::default());
        let mut status = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4];
        status.extend([8, 0, 8, 0, 8, 0]);
        status[6] = 0x20;
        let body = query("shop", &status, b"TRUNCATE t\xE9");
        let parsed = Query::parse(&body, 0, &collations).expect("well formed");
        assert_eq!((parsed.schema.as_str(), &*parsed.text), ("shop", "TRUNCATE té"));
        assert_eq!((parsed.sql_mode, parsed.error_code), (0x20, 0));
        let session = SessionState { client: Some(8), connection: Some(8), ..SessionState::default() };
        assert_eq!(parsed.session, session);
        for end in 0..body.len() {
            let _ = Query::parse(&body[..end], 0, &collations);
        }
    }

    /// As MySQL 9.7 and MariaDB 10.11 write them.
    #[test]
    fn the_state_of_a_statements_session_is_read() {
        let collations = Collations::new([(45, "utf8mb4".to_owned())], Default::default());
        let state = |status: &[u8]| {
            let body = query("x", status, b"ALTER TABLE t ADD c TIMESTAMP");
            Query::parse(&body, 0, &collations).expect("well formed").session
        };
        let charset = [4, 45, 0, 45, 0, 255, 0];
        let zone = [&[5, 6], b"+02:00".as_slice()].concat();
        let mysql = [
            &[0, 0, 0, 0, 0, 1, 0x20, 0, 0xA0, 0x45, 0, 0, 0, 0, 6, 3, b's', b't', b'd'],
            charset.as_slice(),
            &zone,
            &[12, 1, b'x', 0, 13, 0x40, 0xE2, 1, 16, 1, 17, 1, 2, 3, 4, 5, 6, 7, 8, 18, 255, 0, 19, 0],
        ];
        let told = SessionState {
            time_zone: Some("+02:00".to_owned()),
            micros: Some(123_456),
            client: Some(45),
            connection: Some(45),
            explicit_timestamps: Some(true),
        };
        assert_eq!(state(&mysql.concat()), told);
        let mariadb = [&[0, 0, 0, 0, 1], charset.as_slice(), &zone, &[128, 0x40, 0xE2, 1, 129, 1, 2, 3, 4, 5, 6, 7, 8]];
        assert_eq!(state(&mariadb.concat()), told);
        assert_eq!(state(&[&charset, [99, 5, 6].as_slice()].concat()).client, Some(45));
        let off = state(&[0, 0, 0, 0, 0]);
        assert_eq!(off.explicit_timestamps, None);
    }

    /// D-13: a name that can't be read must not count as that of a table which is not followed.
    #[test]
    fn statements_in_a_character_set_that_cannot_be_decoded_are_refused() {
        let collations = Collations::new([(13, "sjis".to_owned())], Default::default());
        let parsed = |collation: Option<u8>, text: &[u8]| {
            let status = collation.map_or(vec![], |id| vec![4, id, 0, id, 0, id, 0]);
            let body = query("shop", &status, text);
            Query::parse(&body, 0, &collations).map(|query| query.text.into_owned())
        };
        for collation in [Some(13), Some(200), None] {
            assert_eq!(parsed(collation, b"TRUNCATE t").as_deref(), Ok("TRUNCATE t"), "{collation:?}");
        }
        let refusal = |collation| parsed(collation, b"TRUNCATE \x95\x5C").expect_err("no name can be told").0;
        assert!(refusal(Some(13)).contains("`sjis`"), "{}", refusal(Some(13)));
        assert!(refusal(Some(200)).contains("collation 200"), "{}", refusal(Some(200)));
        assert!(refusal(None).contains("not UTF-8"), "{}", refusal(None));
        assert_eq!(parsed(None, "TRUNCATE té".as_bytes()).as_deref(), Ok("TRUNCATE té"));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _ = MariaDbGtid::parse(&bytes);
            let _ = mysql_gtid(&bytes);
            let _ = Query::parse(&bytes, 0, &Collations::default());
            let _ = Query::parse(&bytes, 13, &Collations::default());
        }
    }
}
