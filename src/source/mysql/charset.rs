//! Character sets: text columns carry bytes in the column's own one, in the log and (because snapshots ask the server
//! not to convert) in snapshots alike, so that one decoder makes both and they can't differ.
//!
//! Public sources: MySQL manual chapter 12 "Character Sets, Collations, Unicode"; `latin1` is cp1252 with the five
//! undefined bytes mapped to control characters, as the manual's 12.10.2 says. The tables of the other one-byte sets
//! are asked from the server itself (`CONVERT(… USING utf32)`). Of the multi-byte ones those are decoded whose table in the
//! Encoding Standard is the server's, character by character (a test compares them); big5, sjis, ujis, eucjpms,
//! gb2312 and gb18030 differ in some, so their tables are refused rather than decoded nearly right.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use encoding_rs::Encoding;

use super::wire::Fault;

/// The id of the `binary` collation: the column holds bytes, not text.
pub const BINARY_COLLATION: u64 = 63;

/// How bytes become text.
#[derive(Clone, Debug)]
pub enum Charset {
    Binary,
    /// `utf8mb4` and `utf8mb3`.
    Utf8,
    Ascii,
    Latin1,
    /// A one-byte set: the character of each byte.
    Table(Arc<[char]>),
    /// A multi-byte set of the Encoding Standard.
    Encoding(&'static Encoding),
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
}

impl Charset {
    /// By the server's name; one-byte sets other than these need the server's table, see [`Collations`].
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "binary" => Self::Binary,
            "utf8mb4" | "utf8mb3" | "utf8" => Self::Utf8,
            "ascii" => Self::Ascii,
            "latin1" => Self::Latin1,
            "ucs2" => Self::Ucs2,
            "utf16" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf32" => Self::Utf32,
            "gbk" => Self::Encoding(encoding_rs::GBK),
            "euckr" => Self::Encoding(encoding_rs::EUC_KR),
            "cp932" => Self::Encoding(encoding_rs::SHIFT_JIS),
            _ => return None,
        })
    }

    /// The text, and whether some of it could not be decoded and stands as U+FFFD.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> (Cow<'a, str>, bool) {
        match self {
            Self::Utf8 => match std::str::from_utf8(bytes) {
                Ok(text) => (Cow::Borrowed(text), false),
                Err(_) => (String::from_utf8_lossy(bytes), true),
            },
            Self::Binary | Self::Ascii => match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => (Cow::Borrowed(text), false),
                _ => chars(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '\u{FFFD}' })),
            },
            Self::Latin1 => match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => (Cow::Borrowed(text), false),
                _ => {
                    // Never malformed: the Encoding Standard maps all 256 bytes.
                    let (text, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes);
                    (text, false)
                }
            },
            Self::Table(table) => {
                chars(bytes.iter().map(|byte| table.get(usize::from(*byte)).copied().unwrap_or('\u{FFFD}')))
            }
            Self::Encoding(encoding) => encoding.decode_without_bom_handling(bytes),
            Self::Ucs2 | Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => {
                let (text, broken) = chars(bytes.chunks(4).map(|chunk| {
                    let code = <[u8; 4]>::try_from(chunk).map(u32::from_be_bytes).unwrap_or(u32::MAX);
                    char::from_u32(code).unwrap_or('\u{FFFD}')
                }));
                (text, broken)
            }
        }
    }
}

fn chars<'a>(decoded: impl Iterator<Item = char>) -> (Cow<'a, str>, bool) {
    let text: String = decoded.collect();
    let broken = text.contains('\u{FFFD}');
    (Cow::Owned(text), broken)
}

fn utf16<'a>(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> (Cow<'a, str>, bool) {
    let units = bytes.chunks(2).map(|chunk| <[u8; 2]>::try_from(chunk).map(unit).unwrap_or(0xFFFD));
    let mut broken = false;
    let text = char::decode_utf16(units)
        .map(|decoded| {
            decoded.unwrap_or_else(|_| {
                broken = true;
                '\u{FFFD}'
            })
        })
        .collect();
    (Cow::Owned(text), broken || !bytes.len().is_multiple_of(2))
}

/// The server's collations: the log names a column's character set by a collation's id.
#[derive(Clone, Debug, Default)]
pub struct Collations {
    charset_of_id: HashMap<u64, String>,
    tables: HashMap<String, Arc<[char]>>,
}

impl Collations {
    /// `collations`: id and character set of each. `tables`: of one-byte sets, the 256 characters as UTF-32 in hex.
    pub fn new(
        collations: impl IntoIterator<Item = (u64, String)>,
        tables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let tables = tables.into_iter().filter_map(|(name, hex)| Some((name, byte_table(&hex)?))).collect();
        Self { charset_of_id: collations.into_iter().collect(), tables }
    }

    pub fn by_id(&self, id: u64) -> Result<Charset, Fault> {
        match self.charset_of_id.get(&id) {
            Some(name) => self.by_name(name),
            None => Err(Fault(format!("collation {id} is unknown to the server"))),
        }
    }

    /// The character set of a collation.
    pub fn charset_name(&self, id: u64) -> Option<&str> {
        self.charset_of_id.get(&id).map(String::as_str)
    }

    /// Some collation of this character set.
    pub fn id_of(&self, charset: &str) -> Option<u64> {
        self.charset_of_id.iter().filter(|(_, name)| same_charset(name, charset)).map(|(id, _)| *id).min()
    }

    pub fn by_name(&self, name: &str) -> Result<Charset, Fault> {
        Charset::by_name(name)
            .or_else(|| self.tables.get(name).cloned().map(Charset::Table))
            .ok_or_else(|| Fault(format!("character set `{name}` can't be decoded")))
    }
}

/// `utf8` is an older name of `utf8mb3`.
pub fn same_charset(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        let name = name.to_ascii_lowercase();
        if name == "utf8" { "utf8mb3".to_owned() } else { name }
    };
    plain(one) == plain(other)
}

/// Bytes that a character of this set may take, at most.
pub fn character_bytes_max(charset: &str) -> usize {
    match charset.to_ascii_lowercase().as_str() {
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
        "utf8mb3" | "utf8" | "ujis" | "eucjpms" => 3,
        "ucs2" | "gbk" | "big5" | "euckr" | "gb2312" | "cp932" | "sjis" => 2,
        _ => 1,
    }
}

/// A byte the set does not define comes from the server as a question mark.
fn byte_table(hex: &str) -> Option<Arc<[char]>> {
    if hex.len() != 256 * 8 || !hex.is_ascii() {
        return None;
    }
    (0..256_usize)
        .map(|byte| {
            let code = u32::from_str_radix(&hex[byte * 8..byte * 8 + 8], 16).ok()?;
            let undefined = code == u32::from(b'?') && byte != usize::from(b'?');
            Some(if undefined { '\u{FFFD}' } else { char::from_u32(code).unwrap_or('\u{FFFD}') })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(charset: Charset, bytes: &[u8]) -> (String, bool) {
        let (text, broken) = charset.decode(bytes);
        (text.into_owned(), broken)
    }

    /// M-13: the column's character set decides, and latin1 is cp1252.
    #[test]
    fn text_is_decoded_by_its_character_set() {
        let cases: [(&str, &[u8], &str); 9] = [
            ("utf8mb4", "é🍣".as_bytes(), "é🍣"),
            ("latin1", b"caf\xE9 \x80\x81", "café €\u{81}"),
            ("euckr", b"\xBF\xB9\xBE\xE0", "예약"),
            ("gbk", b"\xD4\xA4\xB6\xA9", "预订"),
            ("cp932", b"\x97\x5C\x96\xF1", "予約"),
            ("ucs2", b"\xC6\x08\xC5\x7D", "예약"),
            ("utf16", b"\xD8\x3C\xDF\x63", "🍣"),
            ("utf16le", b"\x3C\xD8\x63\xDF", "🍣"),
            ("utf32", b"\x00\x01\xF3\x63", "🍣"),
        ];
        let collations = Collations::default();
        for (name, bytes, text) in cases {
            let charset = collations.by_name(name).expect(name);
            assert_eq!(decoded(charset, bytes), (text.to_owned(), false), "{name}");
        }
    }

    #[test]
    fn undecodable_text_is_marked_never_mojibake() {
        for (charset, bytes) in [
            (Charset::Utf8, b"a\xFF".as_slice()),
            (Charset::Ascii, b"a\xE9"),
            (Charset::Utf16, b"\xD8\x3C"),
            (Charset::Utf16, b"\x00"),
            (Charset::Utf32, b"\x00\x01"),
            (Charset::Encoding(encoding_rs::EUC_KR), b"\xFF"),
        ] {
            let (text, broken) = decoded(charset, bytes);
            assert!(broken && text.contains('\u{FFFD}'), "{text}");
        }
    }

    #[test]
    fn one_byte_sets_use_the_servers_table() {
        let mut hex = String::new();
        for byte in 0..256_u32 {
            let code = match byte {
                0x80 => 0x20AC,
                0x81 => 0x3F,
                other => other,
            };
            hex.push_str(&format!("{code:08X}"));
        }
        let collations = Collations::new([(26, "cp1250".to_owned())], [("cp1250".to_owned(), hex)]);
        let charset = collations.by_id(26).expect("listed above");
        assert_eq!(decoded(charset.clone(), b"a?\x80"), ("a?€".to_owned(), false));
        assert_eq!(decoded(charset, b"\x81"), ("\u{FFFD}".to_owned(), true));
        assert!(collations.by_id(9999).is_err());
        assert!(collations.by_name("klingon").is_err());
    }
}
