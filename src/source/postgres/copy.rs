//! The text format of `COPY … TO STDOUT`: lines of values separated by tabs, `\N` for NULL, backslash escapes.
//!
//! Format: PostgreSQL manual, COPY, "Text Format". The server sends a line per message, but a reader must not rely on
//! it, so lines are put together here from whatever pieces arrive.

use bytes::{Buf, Bytes, BytesMut};

/// Data that is not in the text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("COPY data ends inside an escape sequence")]
    CutEscape,
    #[error("COPY data ends inside a line")]
    CutLine,
}

/// Puts pieces together and gives back whole lines without their newline.
#[derive(Debug, Default)]
pub struct Lines {
    /// The piece that lines are cut from, without copying.
    piece: Bytes,
    /// The beginning of a line whose end is in a later piece.
    begun: BytesMut,
}

impl Lines {
    /// Adds the next piece; every line of the one before must have been taken.
    pub fn push(&mut self, piece: Bytes) {
        if self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.begun.extend_from_slice(&self.piece);
            self.begun.extend_from_slice(&piece);
            self.piece = std::mem::take(&mut self.begun).freeze();
        }
    }

    /// The next whole line; `None` until another piece is pushed.
    pub fn next_line(&mut self) -> Option<Bytes> {
        // A newline inside a value is always escaped.
        let Some(end) = self.piece.iter().position(|&byte| byte == b'\n') else {
            self.begun.extend_from_slice(&self.piece);
            self.piece.clear();
            return None;
        };
        let mut line = self.piece.split_to(end);
        self.piece.advance(1);
        if !self.begun.is_empty() {
            self.begun.extend_from_slice(&line);
            line = std::mem::take(&mut self.begun).freeze();
        }
        Some(line)
    }

    /// No more pieces come: nothing may be left over.
    pub fn finish(self) -> Result<(), Unreadable> {
        if self.begun.is_empty() && self.piece.is_empty() { Ok(()) } else { Err(Unreadable::CutLine) }
    }
}

/// Calls `value` for each value of a line, in order; `None` is NULL.
pub fn for_each_value<E: From<Unreadable>>(
    line: &[u8],
    unescaped: &mut Vec<u8>,
    mut value: impl FnMut(usize, Option<&[u8]>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut count = 0;
    // A tab inside a value is always escaped.
    for field in line.split(|&byte| byte == b'\t') {
        if field == b"\\N" {
            value(count, None)?;
        } else if field.contains(&b'\\') {
            unescape(field, unescaped)?;
            value(count, Some(unescaped))?;
        } else {
            value(count, Some(field))?;
        }
        count += 1;
    }
    Ok(count)
}

fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    out.clear();
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().ok_or(Unreadable::CutEscape)?;
        rest = after;
        // The server writes the letters and the backslash only; the manual has the numbers as well.
        out.push(match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => number(escape - b'0', 8, &mut rest),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => number(0, 16, &mut rest),
            other => other,
        });
    }
    Ok(())
}

/// Reads at most two more digits of a byte's number.
fn number(first: u8, radix: u8, rest: &mut &[u8]) -> u8 {
    let mut number = first;
    for _ in 0..2 {
        let Some((&byte, after)) = rest.split_first() else { break };
        let Some(digit) = char::from(byte).to_digit(u32::from(radix)) else { break };
        *rest = after;
        // As the server: what does not fit a byte is cut off.
        number = number.wrapping_mul(radix).wrapping_add(digit as u8);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(line: &str) -> Vec<Option<String>> {
        let mut found = Vec::new();
        let count = for_each_value::<Unreadable>(line.as_bytes(), &mut Vec::new(), |index, value| {
            assert_eq!(index, found.len());
            found.push(value.map(|value| String::from_utf8_lossy(value).into_owned()));
            Ok(())
        })
        .expect("readable");
        assert_eq!(count, found.len());
        found
    }

    #[test]
    fn null_empty_and_backslash_n_are_three_things() {
        assert_eq!(values("\\N\t\t\\\\N"), [None, Some(String::new()), Some("\\N".into())]);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(values("a\\tb\\nc\\rd\\\\e\\bf\\fg\\vh"), [Some("a\tb\nc\rd\\e\u{8}f\u{c}g\u{b}h".into())]);
        assert_eq!(values("\\101\\x42\\.\\x4"), [Some("AB.\u{4}".into())]);
        assert_eq!(for_each_value::<Unreadable>(b"a\\", &mut Vec::new(), |_, _| Ok(())), Err(Unreadable::CutEscape));
    }

    #[test]
    fn an_empty_line_is_one_empty_value() {
        assert_eq!(values(""), [Some(String::new())]);
    }

    proptest! {
        #[test]
        fn lines_survive_any_cut(text in "[a\\t\\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..8)) {
            let text = format!("{text}\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(0);
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                lines.push(Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]]));
                while let Some(line) = lines.next_line() {
                    found.push(String::from_utf8_lossy(&line).into_owned());
                }
            }
            prop_assert_eq!(lines.finish(), Ok(()));
            prop_assert_eq!(found.join("\n") + "\n", text);
        }

        #[test]
        fn any_value_survives_the_escapes_the_server_writes(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut written = Vec::new();
            for &byte in &value {
                match byte {
                    8 => written.extend(b"\\b"),
                    9 => written.extend(b"\\t"),
                    10 => written.extend(b"\\n"),
                    11 => written.extend(b"\\v"),
                    12 => written.extend(b"\\f"),
                    13 => written.extend(b"\\r"),
                    b'\\' => written.extend(b"\\\\"),
                    other => written.push(other),
                }
            }
            let mut read = Vec::new();
            for_each_value::<Unreadable>(&written, &mut Vec::new(), |_, text| {
                read = text.unwrap_or_default().to_vec();
                Ok(())
            }).expect("readable");
            prop_assert_eq!(read, value);
        }

        #[test]
        fn random_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = for_each_value::<Unreadable>(&line, &mut Vec::new(), |_, _| Ok(()));
        }
    }
}
