//! Constants as written: numbers, years, dates and times, in the forms whose meaning is certain.

use super::super::literal::Literal;
use super::super::temporal::{self, Civil};

pub fn year_of(text: &str, quoted: bool) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let year: u16 = text.parse().ok()?;
    match (text.len(), year) {
        // The number 0 is the year 0000, the text `0` is 2000.
        (1 | 2, 0) if !quoted => Some(0),
        (1 | 2, 0..=69) => Some(2000 + year),
        (1 | 2, _) => Some(1900 + year),
        (4, 0) if quoted => Some(0),
        (4, 1901..=2155) => Some(year),
        _ => None,
    }
}

/// Digits between these bounds of length.
fn digits(text: &str, least: usize, most: usize) -> Option<u32> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// `2020-01-02`, `2020-1-2`, `20200102`; also dates that no calendar has.
pub fn date(text: &str) -> Option<Civil> {
    let (year, month, day) = match text.split('-').collect::<Vec<&str>>().as_slice() {
        [year, month, day] => (digits(year, 4, 4)?, digits(month, 1, 2)?, digits(day, 1, 2)?),
        [all] => {
            digits(all, 8, 8)?;
            (digits(&all[..4], 4, 4)?, digits(&all[4..6], 2, 2)?, digits(&all[6..], 2, 2)?)
        }
        _ => return None,
    };
    (month <= 12 && day <= 31).then(|| Civil { year, month, day, ..Civil::default() })
}

/// Microseconds of `25` with `digits` behind the point; `None` when there are more that would be rounded or cut.
fn fraction(text: &str, room: usize) -> Option<u32> {
    let kept = text.trim_end_matches('0');
    if kept.len() > room || text.len() > 6 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{kept:0<6}").parse().ok()
}

/// `2020-01-02 03:04:05.678`, also with `T`, without seconds, without a clock.
pub fn clock(text: &str, room: usize) -> Option<Civil> {
    let Some((day, clock)) = text.split_once([' ', 'T']) else { return date(text) };
    if !day.contains('-') {
        return None;
    }
    let day = date(day)?;
    let (whole, micro) = match clock.split_once('.') {
        Some((whole, part)) => (whole, fraction(part, room)?),
        None => (clock, 0),
    };
    let (hour, minute, second) = match whole.split(':').collect::<Vec<&str>>().as_slice() {
        [hour, minute, second] => (digits(hour, 1, 2)?, digits(minute, 1, 2)?, digits(second, 1, 2)?),
        [hour, minute] if micro == 0 && !clock.contains('.') => (digits(hour, 1, 2)?, digits(minute, 1, 2)?, 0),
        _ => return None,
    };
    (hour <= 23 && minute <= 59 && second <= 59).then_some(Civil { hour, minute, second, micro, ..day })
}

/// `-838:59:59.5`, `10:11`, in microseconds.
pub fn time(text: &str, room: usize) -> Option<i64> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, micro) = match rest.split_once('.') {
        Some((whole, part)) => (whole, fraction(part, room)?),
        None => (rest, 0),
    };
    let (hours, minutes, seconds) = match whole.split(':').collect::<Vec<&str>>().as_slice() {
        [hours, minutes, seconds] => (digits(hours, 1, 3)?, digits(minutes, 1, 2)?, digits(seconds, 1, 2)?),
        [hours, minutes] if !rest.contains('.') => (digits(hours, 1, 3)?, digits(minutes, 1, 2)?, 0),
        _ => return None,
    };
    if hours > 838 || minutes > 59 || seconds > 59 {
        return None;
    }
    let micros = temporal::clock_micros(hours, minutes, seconds, micro);
    Some(if negative { -micros } else { micros })
}

/// A decimal number as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact {
    negative: bool,
    whole: String,
    part: String,
    /// It has an exponent.
    pub floating: bool,
}

impl Exact {
    pub fn of(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Number(number) => Self::parse(number),
            Literal::Text { text, .. } => Self::parse(text.trim_matches(' ')),
            _ => None,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (rest, None),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(part) || whole.len() + part.len() == 0 || whole.len() + part.len() > 400 {
            return None;
        }
        let (mut whole, mut part) = (whole.to_owned(), part.to_owned());
        if let Some(exponent) = exponent {
            let exponent: i32 = exponent.parse().ok().filter(|exponent: &i32| exponent.abs() <= 400)?;
            for _ in 0..exponent {
                whole.push(if part.is_empty() { '0' } else { part.remove(0) });
            }
            for _ in exponent..0 {
                part.insert(0, whole.pop().unwrap_or('0'));
            }
            part.truncate(part.trim_end_matches('0').len());
        }
        let whole = whole.trim_start_matches('0').to_owned();
        Some(Self { negative, whole, part, floating: exponent.is_some() })
    }

    pub fn scale(&self) -> usize {
        self.part.len()
    }

    /// With so many digits of fraction, halves away from zero.
    pub fn rounded(&self, scale: usize) -> Self {
        let mut rounded = self.clone();
        let up = rounded.part.as_bytes().get(scale).is_some_and(|digit| *digit >= b'5');
        rounded.part.truncate(scale);
        rounded.part = format!("{:0<scale$}", rounded.part);
        if up {
            let mut all: Vec<u8> = [rounded.whole.as_bytes(), rounded.part.as_bytes()].concat();
            let mut carry = true;
            for digit in all.iter_mut().rev() {
                carry = *digit == b'9';
                *digit = if carry { b'0' } else { *digit + 1 };
                if !carry {
                    break;
                }
            }
            if carry {
                all.insert(0, b'1');
            }
            let (whole, part) = all.split_at(all.len() - scale);
            rounded.whole = String::from_utf8_lossy(whole).into_owned();
            rounded.part = String::from_utf8_lossy(part).into_owned();
        }
        rounded
    }
}

impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zero = self.whole.bytes().chain(self.part.bytes()).all(|digit| digit == b'0');
        let sign = if self.negative && !zero { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        let point = if self.part.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{}", self.part)
    }
}
