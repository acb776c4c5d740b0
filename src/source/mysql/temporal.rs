//! Dates and times as the binlog and the binary protocol carry them, in the lake's units.
//!
//! Public sources: MySQL internals manual "Date and Time Data Type Representation" (the *2 types of 5.6 and later: big
//! endian, a sign bit or offset, fraction bytes by precision) and "Rows event"; the value ranges are those of
//! the manual's chapter 13.2.
//!
//! A date that no calendar has (`0000-00-00`, `2024-02-31`; year 0 too, which no lake reader knows) is still a [`Civil`],
//! whose text is the server's, but has no days and no microseconds.

use super::wire::{Fault, big_endian, little_endian};

const DAY_MICROS: i64 = 86_400_000_000;

/// A date and a wall clock as written, possible or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub micro: u32,
}

impl Civil {
    /// Days since 1970-01-01, if the date exists.
    #[inline]
    pub fn days(&self) -> Option<i32> {
        days(self.year, self.month, self.day)
    }

    /// Microseconds since 1970-01-01 00:00:00, if date and clock exist.
    #[inline]
    pub fn micros(&self) -> Option<i64> {
        micros(self.year, self.month, self.day, self.hour, self.minute, self.second, self.micro)
    }

    /// The wall clock, in UTC, so many microseconds after 1970-01-01; for the years 1 to 9999.
    pub fn of_micros(micros: i64) -> Self {
        // Hinnant's `civil_from_days`.
        let shifted = micros.div_euclid(DAY_MICROS) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let clock = micros.rem_euclid(DAY_MICROS);
        let seconds = clock / 1_000_000;
        Self {
            year: u32::try_from(year_of_era + era * 400 + i64::from(month <= 2)).unwrap_or_default(),
            month: month as u32,
            day: (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32,
            hour: (seconds / 3600) as u32,
            minute: (seconds / 60 % 60) as u32,
            second: (seconds % 60) as u32,
            micro: (clock % 1_000_000) as u32,
        }
    }

    /// What the server prints of a DATETIME: `2020-01-02 03:04:05.678`.
    pub fn read(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let mut numbers = whole.split(['-', ' ', ':']).map(|number| number.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        let (year, month, day) = (next()?, next()?, next()?);
        let (hour, minute, second) = (next()?, next()?, next()?);
        let micro = format!("{part:0<6}").get(..6)?.parse().ok()?;
        Some(Self { year, month, day, hour, minute, second, micro })
    }

    /// As the server prints a DATE.
    pub fn date_text(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// As the server prints a DATETIME with so many digits of fraction.
    pub fn text(&self, digits: u8) -> String {
        let mut text = format!("{} {:02}:{:02}:{:02}", self.date_text(), self.hour, self.minute, self.second);
        push_fraction(&mut text, self.micro, digits);
        text
    }
}

/// As the server prints a TIME with so many digits of fraction.
pub fn time_text(micros: i64, digits: u8) -> String {
    let magnitude = micros.unsigned_abs();
    let seconds = magnitude / 1_000_000;
    let sign = if micros < 0 { "-" } else { "" };
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(&mut text, (magnitude % 1_000_000) as u32, digits);
    text
}

fn push_fraction(text: &mut String, micro: u32, digits: u8) {
    let digits = usize::from(digits.min(6));
    if digits > 0 {
        text.push('.');
        text.push_str(&format!("{micro:06}")[..digits]);
    }
}

/// Days since 1970-01-01 of a date that exists; the algorithm is Howard Hinnant's `days_from_civil`.
pub fn days(year: u32, month: u32, day: u32) -> Option<i32> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // At most 3.7 million: fits.
    Some((era * 146_097 + day_of_era) as i32 - 719_468)
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Microseconds since 1970-01-01 00:00:00 of a wall clock.
#[allow(clippy::too_many_arguments)]
pub fn micros(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32, micro: u32) -> Option<i64> {
    if hour > 23 || minute > 59 || second > 59 || micro > 999_999 {
        return None;
    }
    let date = i64::from(days(year, month, day)?);
    Some(date * DAY_MICROS + clock_micros(hour, minute, second, micro))
}

/// Microseconds of a time of day or a duration.
pub fn clock_micros(hour: u32, minute: u32, second: u32, micro: u32) -> i64 {
    ((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1_000_000 + i64::from(micro)
}

/// `DATE`: 3 bytes, day in 5 bits, month in 4, year.
#[inline]
pub fn date(bytes: &[u8]) -> Civil {
    let packed = little_endian(bytes) as u32;
    Civil { year: packed >> 9, month: (packed >> 5) & 15, day: packed & 31, ..Civil::default() }
}

/// `DATETIME(n)`: 5 bytes big endian, 2^39 added; then the fraction.
#[inline]
pub fn datetime2(bytes: &[u8], precision: u8) -> Result<Civil, Fault> {
    let (head, fraction) = split(bytes, 5)?;
    let packed = big_endian(head) & 0x7F_FFFF_FFFF;
    let year_month = (packed >> 22) as u32 & 0x1_FFFF;
    Ok(Civil {
        year: year_month / 13,
        month: year_month % 13,
        day: (packed >> 17) as u32 & 31,
        hour: (packed >> 12) as u32 & 31,
        minute: (packed >> 6) as u32 & 63,
        second: packed as u32 & 63,
        micro: fraction_micros(fraction, precision),
    })
}

/// `TIMESTAMP(n)`: 4 bytes big endian, unsigned (B4), then the fraction, in microseconds since 1970. All zero is how the
/// server stores `0000-00-00 00:00:00` (B5): `None`.
#[inline]
pub fn timestamp2(bytes: &[u8], precision: u8) -> Result<Option<i64>, Fault> {
    let (head, fraction) = split(bytes, 4)?;
    let micros = big_endian(head) as i64 * 1_000_000 + i64::from(fraction_micros(fraction, precision));
    Ok((micros != 0).then_some(micros))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Fault> {
    bytes.split_at_checked(at).ok_or_else(|| Fault(format!("{} bytes are no date and time", bytes.len())))
}

/// `TIME(n)` in signed microseconds: 3 bytes big endian and the fraction form one number with an offset, so that the
/// bytes sort; a negative time with a fraction borrows from the whole part (B3).
pub fn time2(bytes: &[u8], precision: u8) -> i64 {
    let fraction_bytes = fraction_bytes(precision);
    let offset = 1_i64 << (23 + 8 * fraction_bytes);
    let size = 3 + fraction_bytes;
    let packed = big_endian(&bytes[..size.min(bytes.len())]) as i64 - offset;
    let magnitude = packed.unsigned_abs();
    let whole = magnitude >> (8 * fraction_bytes);
    let fraction = magnitude & ((1_u64 << (8 * fraction_bytes)) - 1);
    let scale = 10_u64.pow(6 - 2 * fraction_bytes as u32);
    let clock = clock_micros((whole >> 12) as u32 & 1023, (whole >> 6) as u32 & 63, whole as u32 & 63, 0);
    let value = clock + (fraction * scale) as i64;
    if packed < 0 { -value } else { value }
}

/// `TIME` before 5.6: 3 bytes, signed, the digits hhmmss.
pub fn time_old(bytes: &[u8]) -> i64 {
    let raw = little_endian(bytes) as i32;
    let signed = (raw << 8) >> 8;
    let digits = signed.unsigned_abs();
    let value = clock_micros(digits / 10_000, digits / 100 % 100, digits % 100, 0);
    if signed < 0 { -value } else { value }
}

/// `DATETIME` before 5.6: 8 bytes, the digits yyyymmddhhmmss.
pub fn datetime_old(bytes: &[u8]) -> Civil {
    let digits = little_endian(bytes);
    let (date, clock) = (digits / 1_000_000, (digits % 1_000_000) as u32);
    let date = u32::try_from(date).unwrap_or(u32::MAX);
    Civil {
        year: date / 10_000,
        month: date / 100 % 100,
        day: date % 100,
        hour: clock / 10_000,
        minute: clock / 100 % 100,
        second: clock % 100,
        micro: 0,
    }
}

/// `TIMESTAMP` before 5.6: 4 bytes, seconds.
pub fn timestamp_old(bytes: &[u8]) -> Option<i64> {
    let seconds = little_endian(&bytes[..bytes.len().min(4)]);
    (seconds != 0).then(|| seconds as i64 * 1_000_000)
}

/// How many bytes hold the fraction of a precision of 0 to 6 digits.
pub fn fraction_bytes(precision: u8) -> usize {
    usize::from(precision.min(6)).div_ceil(2)
}

fn fraction_micros(bytes: &[u8], precision: u8) -> u32 {
    let size = fraction_bytes(precision);
    big_endian(&bytes[..size.min(bytes.len())]) as u32 * 10_u32.pow(6 - 2 * size as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_days_count_from_1970() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(9999, 12, 31), Some(2_932_896));
        assert_eq!(days(1, 1, 1), Some(-719_162));
    }

    #[test]
    fn instants_become_the_clock_they_came_from() {
        for micros in
            [0, -1, 1_700_000_000_250_000, -62_135_596_800_000_000, 253_402_300_799_999_999, 951_782_400_000_000]
        {
            assert_eq!(Civil::of_micros(micros).micros(), Some(micros), "{micros}");
        }
        assert_eq!(Civil::of_micros(951_782_400_000_000).text(1), "2000-02-29 00:00:00.0");
        assert_eq!(time_text(-1_500_000, 2), "-00:00:01.50");
        assert_eq!(time_text(clock_micros(838, 59, 59, 0), 0), "838:59:59");
    }

    /// M-9
    #[test]
    fn dates_that_do_not_exist_have_no_value() {
        for (year, month, day) in [(0, 0, 0), (2024, 0, 15), (2024, 2, 31), (2023, 2, 29), (0, 5, 5), (2024, 13, 1)] {
            assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
        }
    }

    /// M-8
    #[test]
    fn date_is_three_packed_bytes() {
        let packed: u32 = (2024 << 9) | (2 << 5) | 29;
        assert_eq!(date(&packed.to_le_bytes()[..3]).date_text(), "2024-02-29");
        assert_eq!(date(&[0, 0, 0]), Civil::default());
        assert_eq!(date(&[0, 0, 0]).days(), None);
    }

    /// M-8: 2024-03-02 13:05:06.123456
    #[test]
    fn datetime_carries_its_fraction() {
        let packed: u64 = (((2024 * 13 + 3) << 22) | (2 << 17) | (13 << 12) | (5 << 6) | 6) | (1 << 39);
        let mut bytes = packed.to_be_bytes()[3..].to_vec();
        bytes.extend(&123_456_u32.to_be_bytes()[1..]);
        let shown = |bytes: &[u8], digits| datetime2(bytes, digits).map(|time| (time.text(digits), time.micros()));
        let expected = micros(2024, 3, 2, 13, 5, 6, 123_456);
        assert_eq!(shown(&bytes, 6), Ok(("2024-03-02 13:05:06.123456".to_owned(), expected)));
        let expected = micros(2024, 3, 2, 13, 5, 6, 0);
        assert_eq!(shown(&bytes[..5], 0), Ok(("2024-03-02 13:05:06".to_owned(), expected)));
        assert_eq!(shown(&[0x80, 0, 0, 0, 0], 0), Ok(("0000-00-00 00:00:00".to_owned(), None)));
        assert!(datetime2(&[0x80], 0).is_err());
    }

    /// M-10, B4, B5
    #[test]
    fn timestamps_are_unsigned_and_zero_is_no_date() {
        assert_eq!(timestamp2(&[0, 0, 0, 0], 0), Ok(None));
        // MariaDB stores the first second's fractions.
        assert_eq!(timestamp2(&[0, 0, 0, 0, 50], 2), Ok(Some(500_000)));
        assert_eq!(timestamp2(&[0x7F, 0xFF, 0xFF, 0xFF, 0x0F, 0x42, 0x3F], 6), Ok(Some(2_147_483_647_999_999)));
        assert_eq!(timestamp2(&[0xFF, 0xFF, 0xFF, 0xFF], 0), Ok(Some(4_294_967_295_000_000)));
        assert_eq!(timestamp_old(&[1, 0, 0, 0]), Some(1_000_000));
    }

    /// M-11, B3: '-00:00:01.50' as TIME(2) is 0x7FFFFE CE.
    #[test]
    fn negative_times_with_a_fraction_keep_their_value() {
        assert_eq!(time2(&[0x7F, 0xFF, 0xFE, 0xCE], 2), -1_500_000);
        assert_eq!(time2(&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 6), -1);
        assert_eq!(time2(&[0x80, 0, 0], 0), 0);
        assert_eq!(time2(&[0xB4, 0x6E, 0xFB], 0), clock_micros(838, 59, 59, 0));
        assert_eq!(time2(&[0x4B, 0x91, 0x05], 0), -clock_micros(838, 59, 59, 0));
    }

    /// B8
    #[test]
    fn old_times_are_signed_digits() {
        assert_eq!(time_old(&(-8_385_959_i32).to_le_bytes()[..3]), -clock_micros(838, 59, 59, 0));
        assert_eq!(time_old(&10_203_i32.to_le_bytes()[..3]), clock_micros(1, 2, 3, 0));
        assert_eq!(datetime_old(&20_240_302_130_506_u64.to_le_bytes()).text(0), "2024-03-02 13:05:06");
        assert_eq!(datetime_old(&[0xFF; 8]).micros(), None);
    }
}
