//! The point of a source that somebody asks about: a time, or a position in one of the forms that people have at hand.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

use super::super::schema_report::time;
use crate::source::Position;

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Time(DateTime<Utc>),
    Position(Position),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if is_day(text) {
            return Err(format!(
                "`{text}` may be a day or a GTID: write a time of that day (`{text} 14:00`), or `mariadb:{text}`"
            ));
        }
        let position = text.parse().ok().or_else(|| bare(text));
        let moment = position.map(Self::Position).or_else(|| time(text).map(Self::Time));
        moment.ok_or_else(|| {
            format!(
                "`{text}` is neither a time (2026-01-31 14:00:00, in UTC, or with a zone as in RFC 3339), nor a log position: \
                 1A/16B3748 or pg:1A/16B3748 (PostgreSQL), 0-1-100 or mariadb:0-1-100 (MariaDB), UUID:1-100 or mysql:UUID:1-100 \
                 (MySQL), binlog.000004:1234 or binlog:binlog.000004:1234 (MySQL without GTIDs)"
            )
        })
    }
}

/// `2026-01-31`, which could be a GTID of domain 2026; servers write no zeros before numbers.
fn is_day(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([4, 2, 2]) && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

/// As the server itself writes it.
fn bare(text: &str) -> Option<Position> {
    if text.is_empty() {
        return None;
    }
    let read = |kind: &str| format!("{kind}:{text}").parse::<Position>().ok();
    // A file's name ends in a number.
    let is_file = text
        .rsplit_once(':')
        .and_then(|(file, _)| file.rsplit_once('.'))
        .is_some_and(|(name, number)| !name.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    let in_file = || if is_file { read("binlog") } else { None };
    read("pg").or_else(|| read("mysql")).or_else(|| read("mariadb")).or_else(in_file)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Position(position) => position.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_in_the_servers_forms_and_in_ours() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (text, position) in [
            ("1A/16B3748".to_owned(), "pg:1A/16B3748".to_owned()),
            ("pg:1A/16B3748".to_owned(), "pg:1A/16B3748".to_owned()),
            ("0-1-100".to_owned(), "mariadb:0-1-100".to_owned()),
            ("0-1-15".to_owned(), "mariadb:0-1-15".to_owned()),
            ("0-1-100,7-2-9".to_owned(), "mariadb:0-1-100,7-2-9".to_owned()),
            (format!("{uuid}:1-5:7"), format!("mysql:{uuid}:1-5:7")),
            ("mysql-bin.000004:1234".to_owned(), "binlog:mysql-bin.000004:1234".to_owned()),
            ("binlog:binlog.000004:1234".to_owned(), "binlog:binlog.000004:1234".to_owned()),
        ] {
            let moment: Moment = text.parse().expect(&text);
            assert!(matches!(moment, Moment::Position(_)), "{text}");
            assert_eq!(moment.to_string(), position);
        }
    }

    #[test]
    fn times_have_a_zone_or_are_utc() {
        for (text, time) in [
            ("2026-01-31T14:05:06+02:00", "2026-01-31T12:05:06Z"),
            ("2026-01-31 14:05:06.25Z", "2026-01-31T14:05:06.250Z"),
            ("2026-01-31 14:05", "2026-01-31T14:05:00Z"),
            ("2026-01-31 14:05:06.5", "2026-01-31T14:05:06.500Z"),
        ] {
            let moment: Moment = text.parse().expect(text);
            assert_eq!(moment.to_string(), time, "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_told_with_the_forms_there_are() {
        for text in ["yesterday", "", "12", "1A/", "0-1", "1-2-3-x", "binlog.000004", "x:1", "2026-13-01 00:00"] {
            let refused = text.parse::<Moment>();
            assert!(refused.as_ref().is_err_and(|told| told.contains("1A/16B3748")), "{text}: {refused:?}");
        }
        let day = "2026-01-31".parse::<Moment>();
        assert!(day.is_err_and(|told| told.contains("mariadb:2026-01-31") && told.contains("14:00")));
    }
}
