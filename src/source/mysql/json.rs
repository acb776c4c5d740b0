//! MySQL's binary JSON, printed exactly as the server prints it for `SELECT json_column`.
//!
//! Public sources: the format comment of MySQL's `sql-common/json_binary.h` (type bytes, offsets, inlined values); the
//! printed form is the documented one of the manual's "The JSON Data Type": `", "` and `": "`, keys in stored order,
//! shortest doubles that always show a point or an exponent, `base64:typeN:` for what JSON has no type for.

use std::fmt::Write;

use super::charset::Charset;
use super::decimal;
use super::wire::{Fault, Wire, little_endian};

/// The server allows 100 levels.
const DEPTH_MAX: usize = 120;

const OBJECT_SMALL: u8 = 0x00;
const OBJECT_LARGE: u8 = 0x01;
const ARRAY_SMALL: u8 = 0x02;
const ARRAY_LARGE: u8 = 0x03;
const LITERAL: u8 = 0x04;
const INT16: u8 = 0x05;
const UINT16: u8 = 0x06;
const INT32: u8 = 0x07;
const UINT32: u8 = 0x08;
const INT64: u8 = 0x09;
const UINT64: u8 = 0x0A;
const DOUBLE: u8 = 0x0B;
const STRING: u8 = 0x0C;
const OPAQUE: u8 = 0x0F;

// Field types inside an opaque value.
const TIMESTAMP: u8 = 7;
const DATE: u8 = 10;
const TIME: u8 = 11;
const DATETIME: u8 = 12;
const NEWDECIMAL: u8 = 246;
const VAR_STRING: u8 = 253;

/// The document's text, and whether some of its strings were not UTF-8 and hold U+FFFD.
pub fn text(document: &[u8]) -> Result<(String, bool), Fault> {
    let mut out = String::with_capacity(document.len() + document.len() / 4);
    let mut left = Left { entries: document.len(), bytes: document.len(), broken: false };
    match document.split_first() {
        // `INSERT IGNORE` can leave nothing at all; the server reads it as null.
        None => out.push_str("null"),
        Some((kind, value)) => {
            print(*kind, value, &mut out, 0, &mut left)?;
        }
    }
    Ok((out, left.broken))
}

/// What the document can still hold. Every value has an entry and bytes of its own; entries that point back at others
/// would print without end, or a long string many times over.
struct Left {
    entries: usize,
    bytes: usize,
    /// A string was not UTF-8.
    broken: bool,
}

impl Left {
    fn take_entries(&mut self, count: usize) -> Result<(), Fault> {
        self.entries =
            self.entries.checked_sub(count).ok_or_else(|| Fault::new("JSON holds more entries than bytes"))?;
        Ok(())
    }

    fn take_bytes(&mut self, length: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.checked_sub(length).ok_or_else(|| Fault::new("JSON values share their bytes"))?;
        Ok(())
    }
}

fn print(kind: u8, value: &[u8], out: &mut String, depth: usize, left: &mut Left) -> Result<(), Fault> {
    let mut wire = Wire::new(value);
    match kind {
        OBJECT_SMALL => container(value, true, false, out, depth, left)?,
        OBJECT_LARGE => container(value, true, true, out, depth, left)?,
        ARRAY_SMALL => container(value, false, false, out, depth, left)?,
        ARRAY_LARGE => container(value, false, true, out, depth, left)?,
        LITERAL => out.push_str(match wire.u8()? {
            0 => "null",
            1 => "true",
            2 => "false",
            other => return Err(Fault(format!("JSON literal {other} is unknown"))),
        }),
        INT16 => push(out, wire.u16()? as i16),
        UINT16 => push(out, wire.u16()?),
        INT32 => push(out, wire.u32()? as i32),
        UINT32 => push(out, wire.u32()?),
        INT64 => push(out, wire.u64()? as i64),
        UINT64 => push(out, wire.u64()?),
        DOUBLE => double(f64::from_bits(wire.u64()?), out),
        STRING => {
            let length = variable_length(&mut wire)?;
            left.take_bytes(length)?;
            left.broken |= quoted(wire.take(length)?, out);
        }
        OPAQUE => opaque(&mut wire, out, left)?,
        other => return Err(Fault(format!("JSON type {other:#x} is unknown"))),
    }
    Ok(())
}

fn push(out: &mut String, number: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "{number}");
}

/// An object or array: counts, entries, then the values that the entries point to.
fn container(
    value: &[u8],
    object: bool,
    large: bool,
    out: &mut String,
    depth: usize,
    left: &mut Left,
) -> Result<(), Fault> {
    if depth >= DEPTH_MAX {
        return Err(Fault(format!("JSON is nested deeper than {DEPTH_MAX} levels")));
    }
    let offset_size = if large { 4 } else { 2 };
    let mut wire = Wire::new(value);
    let count = wire.unsigned(offset_size)? as usize;
    let size = wire.unsigned(offset_size)? as usize;
    let value = value.get(..size).ok_or_else(|| Fault(format!("JSON of {size} bytes is cut off")))?;
    let keys_at = wire.offset();
    let key_entry = if object { offset_size + 2 } else { 0 };
    let values_at = count
        .checked_mul(key_entry)
        .and_then(|keys| keys.checked_add(keys_at))
        .ok_or_else(|| Fault::new("JSON counts overflow"))?;
    let at = |offset: usize| value.get(offset..).map(Wire::new).ok_or_else(|| Fault::new("JSON offset is outside"));

    out.push(if object { '{' } else { '[' });
    left.take_entries(count)?;
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        if object {
            let mut entry = at(keys_at + index * key_entry)?;
            let key_at = entry.unsigned(offset_size)? as usize;
            let length = usize::from(entry.u16()?);
            left.take_bytes(length)?;
            left.broken |= quoted(at(key_at)?.take(length)?, out);
            out.push_str(": ");
        }
        let mut entry = at(values_at.saturating_add(index.saturating_mul(offset_size + 1)))?;
        let kind = entry.u8()?;
        let inlined = matches!(kind, LITERAL | INT16 | UINT16) || (large && matches!(kind, INT32 | UINT32));
        if inlined {
            print(kind, entry.take(offset_size)?, out, depth + 1, left)?;
        } else {
            let offset = entry.unsigned(offset_size)? as usize;
            print(kind, at(offset)?.rest(), out, depth + 1, left)?;
        }
    }
    out.push(if object { '}' } else { ']' });
    Ok(())
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn variable_length(wire: &mut Wire<'_>) -> Result<usize, Fault> {
    let mut length = 0_usize;
    for index in 0..5 {
        let byte = wire.u8()?;
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Fault::new("JSON length has more than five bytes"))
}

/// JSON text is utf8mb4 always; should it not be, the broken bytes stand as U+FFFD, and `true` says so.
fn quoted(bytes: &[u8], out: &mut String) -> bool {
    let (text, broken) = Charset::Utf8.decode(bytes);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{C}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    broken
}

/// Shortest digits that read back as the same double, arranged as the server does.
fn double(value: f64, out: &mut String) {
    // Both agree on the shortest digits; only their arrangement is the server's own.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        // Not finite: the server has no such JSON.
        out.push_str("null");
        return;
    };
    let Ok(exponent) = exponent.parse::<i32>() else { return };
    let mantissa = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.push('-');
            rest
        }
        None => mantissa,
    };
    let digits: String = mantissa.chars().filter(|character| *character != '.').collect();
    if digits == "0" {
        out.push_str("0.0");
        return;
    }
    // The point stands before digit `point`.
    let point = exponent + 1;
    // Whole numbers of more than fifteen digits, and what begins that far behind the point, get an exponent.
    if point < -14 || (point > 15 && digits.len() <= point as usize) {
        let (first, rest) = digits.split_at(1);
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        let _ = write!(out, "e{exponent}");
    } else if point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        out.push_str(&digits);
    } else {
        let point = point as usize;
        if digits.len() <= point {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', point - digits.len()));
            out.push_str(".0");
        } else {
            let (integer, fraction) = digits.split_at(point);
            out.push_str(integer);
            out.push('.');
            out.push_str(fraction);
        }
    }
}

/// A value of an SQL type that JSON does not have.
fn opaque(wire: &mut Wire<'_>, out: &mut String, left: &mut Left) -> Result<(), Fault> {
    let kind = wire.u8()?;
    let length = variable_length(wire)?;
    left.take_bytes(length)?;
    let bytes = wire.take(length)?;
    match kind {
        NEWDECIMAL => {
            let (head, packed) =
                bytes.split_at_checked(2).ok_or_else(|| Fault::new("JSON decimal without its precision"))?;
            out.push_str(&decimal::packed_text(packed, head[0], head[1])?);
        }
        DATE | TIME | DATETIME | TIMESTAMP => {
            if bytes.len() != 8 {
                return Err(Fault(format!("JSON date or time of {} bytes", bytes.len())));
            }
            temporal(kind, little_endian(bytes) as i64, out);
        }
        VAR_STRING => left.broken |= quoted(bytes, out),
        _ => {
            let mut encoded = format!("base64:type{kind}:");
            base64(bytes, &mut encoded);
            let _ = quoted(encoded.as_bytes(), out);
        }
    }
    Ok(())
}

/// The server's packed form: fraction in 24 bits, clock in 17, then day, and month and year as `year * 13 + month`.
fn temporal(kind: u8, packed: i64, out: &mut String) {
    let magnitude = packed.unsigned_abs();
    let (micro, whole) = (magnitude & 0xFF_FFFF, magnitude >> 24);
    let (second, minute) = (whole & 63, (whole >> 6) & 63);
    out.push('"');
    if packed < 0 {
        out.push('-');
    }
    let _ = match kind {
        TIME => write!(out, "{:02}:{minute:02}:{second:02}.{micro:06}", (whole >> 12) & 1023),
        _ => {
            let hour = (whole >> 12) & 31;
            let date = whole >> 17;
            let (day, month, year) = (date & 31, (date >> 5) % 13, (date >> 5) / 13);
            match kind {
                DATE => write!(out, "{year:04}-{month:02}-{day:02}"),
                _ => write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}"),
            }
        }
    };
    out.push('"');
}

/// Standard base64 in lines of 76, as the server's encoder makes them.
fn base64(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (index, chunk) in bytes.chunks(3).enumerate() {
        if index > 0 && index.is_multiple_of(19) {
            out.push('\n');
        }
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled(value: f64) -> String {
        let mut out = String::new();
        double(value, &mut out);
        out
    }

    /// M-17
    #[test]
    fn scalars_print_as_the_server_does() {
        let cases: [(&[u8], &str); 10] = [
            (&[4, 0], "null"),
            (&[4, 1], "true"),
            (&[5, 0xFF, 0xFF], "-1"),
            (&[6, 0xFF, 0xFF], "65535"),
            (&[9, 0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808"),
            (&[10, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
            (&[11, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F], "1.0"),
            (&[12, 4, b'a', b'"', b'\n', 1], "\"a\\\"\\n\\u0001\""),
            (&[15, 246, 4, 3, 1, 0x80 | 12, 5], "12.5"),
            (&[], "null"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(text(bytes), Ok((expected.to_owned(), false)), "{bytes:?}");
        }
    }

    /// M-17: `{"a": [1, "x"], "b": null}`
    #[test]
    fn small_objects_and_arrays_nest() {
        let array = [
            2, 0, 12, 0, // two elements, 12 bytes
            INT16, 1, 0, STRING, 10, 0, // inlined 1, then the offset of "x"
            1, b'x',
        ];
        let mut object = vec![
            OBJECT_SMALL,
            2,
            0,
            32,
            0, // two members, 32 bytes
            18,
            0,
            1,
            0,
            19,
            0,
            1,
            0, // keys
            ARRAY_SMALL,
            20,
            0,
            LITERAL,
            0,
            0, // values
            b'a',
            b'b',
        ];
        object.extend(array);
        assert_eq!(text(&object), Ok(("{\"a\": [1, \"x\"], \"b\": null}".to_owned(), false)));
        for end in 1..object.len() {
            assert!(text(&object[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn doubles_keep_a_point_or_an_exponent() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (-2_131_932_181_818_069.5, "-2131932181818069.5"),
            (2_131_932_181_818_069.0, "2.131932181818069e15"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.5e300, "1.5e300"),
            (-2.5e-200, "-2.5e-200"),
        ];
        for (value, expected) in cases {
            assert_eq!(doubled(value), expected);
        }
    }

    #[test]
    fn dates_and_times_inside_json_have_six_decimals() {
        let packed = |year: u64, month: u64, day: u64, clock: u64, micro: u64| {
            let date = ((year * 13 + month) << 5) | day;
            ((((date << 17) | clock) << 24) | micro) as i64
        };
        let clock = (23 << 12) | (24 << 6) | 25;
        let mut out = String::new();
        temporal(DATETIME, packed(2015, 1, 15, clock, 500), &mut out);
        temporal(DATE, packed(2015, 1, 15, 0, 0), &mut out);
        temporal(TIME, -(((clock << 24) | 120_000) as i64), &mut out);
        assert_eq!(out, "\"2015-01-15 23:24:25.000500\"\"2015-01-15\"\"-23:24:25.120000\"");
    }

    #[test]
    fn opaque_bytes_are_base64_in_lines() {
        let mut out = String::new();
        base64(b"any carnal pleas", &mut out);
        assert_eq!(out, "YW55IGNhcm5hbCBwbGVhcw==");
        out.clear();
        base64(&[0; 58], &mut out);
        assert_eq!(out.find('\n'), Some(76));
    }

    /// M-17: a value, a key.
    #[test]
    fn text_that_is_not_utf8_is_told() {
        assert_eq!(text(&[STRING, 2, b'a', 0xFF]), Ok(("\"a\u{FFFD}\"".to_owned(), true)));
        let object = [OBJECT_SMALL, 1, 0, 12, 0, 11, 0, 1, 0, LITERAL, 1, 0, 0xFF];
        assert_eq!(text(&object), Ok(("{\"\u{FFFD}\": true}".to_owned(), true)));
    }

    #[test]
    fn nesting_without_end_is_a_fault() {
        // An array whose only element is itself, by its offset.
        let bytes = [ARRAY_SMALL, 1, 0, 7, 0, ARRAY_SMALL, 0, 0];
        assert!(text(&bytes).is_err());
    }

    /// Forty bytes must not become megabytes.
    #[test]
    fn values_that_share_their_bytes_are_a_fault() {
        let mut bytes = vec![ARRAY_SMALL, 4, 0, 36, 0];
        for _ in 0..4 {
            bytes.extend([STRING, 16, 0]);
        }
        bytes.push(19);
        bytes.extend([b'x'; 19]);
        assert!(text(&bytes).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = text(&bytes);
        }
    }
}
