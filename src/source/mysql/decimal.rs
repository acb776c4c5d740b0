//! `DECIMAL` values: the binlog's packed digits and the text of the binary protocol.
//!
//! Packed form (MySQL source, strings/decimal.c, `decimal2bin`): groups of nine decimal digits in four bytes big
//! endian, the partial groups at both ends in as few bytes as hold them, the highest bit inverted, and every bit
//! inverted when the number is negative.

use super::wire::Fault;

/// Bytes of a group of 0 to 9 digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// More digits than the lake's decimals hold.
pub const LAKE_DIGITS_MAX: u8 = 38;

/// Bytes of a packed `DECIMAL(precision, scale)`.
pub fn packed_size(precision: u8, scale: u8) -> usize {
    let integer = usize::from(precision.saturating_sub(scale));
    let scale = usize::from(scale);
    integer / 9 * 4 + GROUP_BYTES[integer % 9] + scale / 9 * 4 + GROUP_BYTES[scale % 9]
}

/// Tells the decimal digits of a packed value, integer part first, one group at a time as (digits, value); returns
/// whether it is negative.
fn groups(bytes: &[u8], precision: u8, scale: u8, mut each: impl FnMut(u32, u32)) -> Result<bool, Fault> {
    if scale > precision || bytes.len() != packed_size(precision, scale) || bytes.is_empty() {
        return Err(Fault(format!("{} bytes are not a packed decimal({precision},{scale})", bytes.len())));
    }
    let negative = bytes[0] & 0x80 == 0;
    let mask = if negative { 0xFF } else { 0 };
    let integer = usize::from(precision - scale);
    let scale = usize::from(scale);
    let sizes = std::iter::once(integer % 9)
        .chain(std::iter::repeat_n(9, integer / 9 + scale / 9))
        .chain(std::iter::once(scale % 9))
        .filter(|digits| *digits > 0);
    let mut at = 0;
    for digits in sizes {
        let size = GROUP_BYTES[digits];
        let mut value = 0_u32;
        for (index, byte) in bytes[at..at + size].iter().enumerate() {
            let first = if at + index == 0 { 0x80 } else { 0 };
            value = (value << 8) | u32::from(byte ^ mask ^ first);
        }
        if value >= 10_u32.pow(digits as u32) {
            return Err(Fault(format!("{value} is not {digits} decimal digits")));
        }
        each(digits as u32, value);
        at += size;
    }
    Ok(negative)
}

/// Packs a decimal's text; `None` when it has more digits than the column.
pub fn pack(text: &str, precision: u8, scale: u8) -> Option<Vec<u8>> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let integer = integer.trim_start_matches('0');
    let width = usize::from(precision.checked_sub(scale)?);
    if !(integer.bytes().chain(fraction.bytes())).all(|digit| digit.is_ascii_digit())
        || integer.len() > width
        || fraction.len() > usize::from(scale)
    {
        return None;
    }
    let scale = usize::from(scale);
    let all = format!("{integer:0>width$}{fraction:0<scale$}");
    let sizes = std::iter::once(width % 9)
        .chain(std::iter::repeat_n(9, width / 9 + scale / 9))
        .chain(std::iter::once(scale % 9))
        .filter(|digits| *digits > 0);
    let mut bytes: Vec<u8> = Vec::new();
    let mut at = 0;
    for size in sizes {
        let group: u32 = all.get(at..at + size)?.parse().ok()?;
        bytes.extend(&group.to_be_bytes()[4 - GROUP_BYTES[size]..]);
        at += size;
    }
    if negative && all.bytes().any(|digit| digit != b'0') {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if let Some(first) = bytes.first_mut() {
        *first ^= 0x80;
    }
    Some(bytes)
}

/// The unscaled value; for at most 38 digits.
pub fn packed_value(bytes: &[u8], precision: u8, scale: u8) -> Result<i128, Fault> {
    if precision > LAKE_DIGITS_MAX {
        return Err(Fault(format!("decimal({precision},{scale}) has more than {LAKE_DIGITS_MAX} digits")));
    }
    let mut value = 0_i128;
    let negative = groups(bytes, precision, scale, |digits, group| {
        value = value * 10_i128.pow(digits) + i128::from(group);
    })?;
    Ok(if negative { -value } else { value })
}

/// The canonical text (`-123.4500`), for any precision.
pub fn packed_text(bytes: &[u8], precision: u8, scale: u8) -> Result<String, Fault> {
    let mut digits = String::with_capacity(usize::from(precision));
    let negative = groups(bytes, precision, scale, |count, value| {
        digits.push_str(&format!("{value:0width$}", width = count as usize));
    })?;
    let (integer, fraction) = digits.split_at(usize::from(precision - scale));
    Ok(canonical(negative, integer, fraction))
}

fn canonical(negative: bool, integer: &str, fraction: &str) -> String {
    let integer = integer.trim_start_matches('0');
    let zero = integer.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    let mut text = String::with_capacity(integer.len() + fraction.len() + 3);
    if negative && !zero {
        text.push('-');
    }
    text.push_str(if integer.is_empty() { "0" } else { integer });
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

fn split_text(text: &str) -> Option<(bool, &str, &str)> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    (all_digits && !(integer.is_empty() && fraction.is_empty())).then_some((negative, integer, fraction))
}

/// The unscaled value of the server's text, at `scale`.
pub fn text_value(text: &str, precision: u8, scale: u8) -> Result<i128, Fault> {
    let fault = || Fault(format!("`{text}` is not a decimal({precision},{scale})"));
    let (negative, integer, fraction) = split_text(text).ok_or_else(fault)?;
    let integer = integer.trim_start_matches('0');
    if fraction.len() > usize::from(scale) || integer.len() > usize::from(precision.saturating_sub(scale)) {
        return Err(fault());
    }
    if precision > LAKE_DIGITS_MAX {
        return Err(fault());
    }
    let mut value = 0_i128;
    for digit in integer.bytes().chain(fraction.bytes()) {
        value = value * 10 + i128::from(digit - b'0');
    }
    value *= 10_i128.pow(u32::from(scale) - fraction.len() as u32);
    Ok(if negative { -value } else { value })
}

/// The unscaled value and scale of canonical text of any precision, without zeros at its end; `None` when even so it has
/// more digits than the lake's decimals.
pub fn text_value_any(text: &str) -> Option<(i128, u8)> {
    let (negative, integer, fraction) = split_text(text)?;
    let (integer, fraction) = (integer.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if integer.len() + fraction.len() > usize::from(LAKE_DIGITS_MAX) {
        return None;
    }
    let digits = integer.bytes().chain(fraction.bytes());
    let value = digits.fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    Some((if negative { -value } else { value }, fraction.len() as u8))
}

/// The same number at the scale of a decimal(precision,lake_scale), if it fits that without rounding.
#[inline]
pub fn rescaled(unscaled: i128, scale: u8, precision: u8, lake_scale: u8) -> Option<i128> {
    let value = if scale <= lake_scale {
        unscaled.checked_mul(10_i128.checked_pow(u32::from(lake_scale - scale))?)?
    } else {
        let divisor = 10_i128.checked_pow(u32::from(scale - lake_scale))?;
        (unscaled % divisor == 0).then(|| unscaled / divisor)?
    };
    (value.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(value)
}

/// The canonical text of an unscaled value.
pub fn unscaled_text(unscaled: i128, scale: u8) -> String {
    let width = usize::from(scale) + 1;
    let digits = format!("{:0width$}", unscaled.unsigned_abs());
    let (integer, fraction) = digits.split_at(digits.len() - usize::from(scale));
    canonical(unscaled < 0, integer, fraction)
}

/// The server's text without the zeros of `ZEROFILL`.
pub fn text_canonical(text: &str) -> Result<String, Fault> {
    let (negative, integer, fraction) = split_text(text).ok_or_else(|| Fault(format!("`{text}` is not a decimal")))?;
    Ok(canonical(negative, integer, fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-5: the examples of the MySQL source: 1234567890.1234 as DECIMAL(14,4), and its negative.
    #[test]
    fn what_is_packed_reads_back() {
        for (text, precision, scale) in [
            ("0.00", 5, 2),
            ("-999.99", 5, 2),
            ("12345678901.5", 20, 9),
            ("-0.000000001", 38, 9),
            ("7", 9, 0),
            ("0.5", 1, 1),
        ] {
            let bytes = pack(text, precision, scale).expect(text);
            let back = packed_text(&bytes, precision, scale).expect(text);
            assert_eq!(text_value(&back, precision, scale), text_value(text, precision, scale), "{text}");
        }
        assert_eq!(pack("1000", 5, 2), None);
        assert_eq!(pack("1e3", 9, 2), None);
    }

    #[test]
    fn packed_decimals_unpack() {
        let positive = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        assert_eq!(packed_value(&positive, 14, 4), Ok(12_345_678_901_234));
        let negative = [0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D];
        assert_eq!(packed_value(&negative, 14, 4), Ok(-12_345_678_901_234));
        assert_eq!(packed_text(&negative, 14, 4).as_deref(), Ok("-1234567890.1234"));
    }

    /// M-6
    #[test]
    fn wide_decimals_become_canonical_text() {
        let mut bytes = vec![0_u8; packed_size(65, 30)];
        bytes[0] = 0x80;
        assert_eq!(packed_text(&bytes, 65, 30).as_deref(), Ok("0.000000000000000000000000000000"));
        assert_eq!(text_canonical("-00123.4500").as_deref(), Ok("-123.4500"));
        assert_eq!(text_canonical("000").as_deref(), Ok("0"));
    }

    #[test]
    fn text_and_packed_agree_on_the_unscaled_value() {
        assert_eq!(text_value("-123.45", 10, 4), Ok(-1_234_500));
        assert_eq!(text_value("00000012.50", 10, 2), Ok(1250));
        assert_eq!(text_value(&"9".repeat(38), 38, 0), Ok(10_i128.pow(38) - 1));
        for wrong in ["", "-", ".", "1e5", "1.234", "123456789"] {
            assert!(text_value(wrong, 8, 2).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_move_to_another_scale_only_without_rounding() {
        assert_eq!(rescaled(-1250, 2, 10, 4), Some(-125_000));
        assert_eq!(rescaled(1250, 2, 3, 1), Some(125));
        assert_eq!(rescaled(1251, 2, 10, 1), None);
        assert_eq!(rescaled(1000, 0, 3, 0), None);
        assert_eq!(rescaled(i128::MAX, 0, 38, 38), None);
        assert_eq!(unscaled_text(-5, 3), "-0.005");
        assert_eq!(unscaled_text(120, 0), "120");
        assert_eq!(text_value_any("-1.2500"), Some((-125, 2)));
        assert_eq!(text_value_any(&"9".repeat(39)), None);
    }

    #[test]
    fn wrong_sizes_and_digits_are_faults() {
        assert!(packed_value(&[0x80], 14, 4).is_err());
        assert!(packed_value(&[0xFF], 1, 0).is_err());
        assert!(packed_value(&[], 0, 0).is_err());
        assert!(packed_value(&[0x80], 4, 5).is_err());
    }
}
