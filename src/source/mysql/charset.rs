//! Character sets: text columns carry bytes in the column's own one, in the log and (because snapshots ask the server
//! not to convert) in snapshots alike, so that one decoder makes both and they can't differ.
//!
//! Public sources: MySQL manual chapter 12 "Character Sets, Collations, Unicode"; `latin1` is cp1252 with the five
//! undefined bytes mapped to control characters, as the manual's 12.10.2 says. Published tables of the others differ from
//! the servers' in places, and the servers' from each other. So the servers' own are used: which bytes form a character is
//! each set's structure ([`Shape`]), and which one it is the server itself is asked once per process (`CONVERT(… USING
//! utf32)` over the whole code space, see `catalog::collations`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

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
    /// By the server's own table.
    Table(Arc<Table>),
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
}

impl Charset {
    /// By the server's name; the others need the server's table, see [`Collations`].
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
                _ => chars(bytes.iter().map(|byte| byte.is_ascii().then(|| char::from(*byte)))),
            },
            Self::Latin1 => match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => (Cow::Borrowed(text), false),
                _ => {
                    // Never malformed: the Encoding Standard maps all 256 bytes.
                    let (text, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes);
                    (text, false)
                }
            },
            Self::Table(table) => table.decode(bytes),
            // No surrogate pairs there: each unit is a character of its own.
            Self::Ucs2 => chars(bytes.chunks(2).map(|chunk| {
                let code = <[u8; 2]>::try_from(chunk).ok().map(u16::from_be_bytes)?;
                char::from_u32(u32::from(code))
            })),
            Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => chars(bytes.chunks(4).map(|chunk| {
                let code = <[u8; 4]>::try_from(chunk).ok().map(u32::from_be_bytes)?;
                char::from_u32(code)
            })),
        }
    }
}

/// `None` is what could not be decoded.
fn chars<'a>(decoded: impl Iterator<Item = Option<char>>) -> (Cow<'a, str>, bool) {
    let mut broken = false;
    let text = decoded
        .map(|decoded| {
            decoded.unwrap_or_else(|| {
                broken = true;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    (Cow::Owned(text), broken)
}

fn utf16<'a>(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> (Cow<'a, str>, bool) {
    // An odd byte at the end is half a surrogate pair: nothing.
    let units = bytes.chunks(2).map(|chunk| <[u8; 2]>::try_from(chunk).map_or(0xD800, unit));
    chars(char::decode_utf16(units).map(Result::ok))
}

/// Which bytes form one character in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    OneByte,
    /// `big5`
    Big5,
    /// `gbk`
    Gbk,
    /// `gb2312`
    Gb2312,
    /// `euckr`
    EucKr,
    /// `sjis` and `cp932`: katakana of one byte among the leading bytes.
    Sjis,
    /// `ujis` and `eucjpms`: 8E before katakana, 8F before three bytes.
    Ujis,
    /// `gb18030`: two bytes or, with a digit second, four.
    Gb18030,
}

/// The four bytes of GB18030 for U+10000; from there on they count on as the code points do.
const GB18030_SUPPLEMENTARY: u32 = gb18030_index([0x90, 0x30, 0x81, 0x30]);
/// After the last four bytes that stand for something below U+10000: 84 31 A4 39.
const GB18030_BASIC: u32 = gb18030_index([0x84, 0x31, 0xA4, 0x39]) + 1;

const fn gb18030_index(bytes: [u8; 4]) -> u32 {
    (((bytes[0] as u32 - 0x81) * 10 + (bytes[1] as u32 - 0x30)) * 126 + (bytes[2] as u32 - 0x81)) * 10
        + (bytes[3] as u32 - 0x30)
}

impl Shape {
    /// Of a set that needs a table; `None` for those that have a decoder of their own or are unknown here. `bytes_max` is
    /// how many bytes the server's characters have at most.
    pub fn of(name: &str, bytes_max: u32) -> Option<Self> {
        Some(match name {
            _ if Charset::by_name(name).is_some() => return None,
            "big5" => Self::Big5,
            "gbk" => Self::Gbk,
            "gb2312" => Self::Gb2312,
            "euckr" => Self::EucKr,
            "sjis" | "cp932" => Self::Sjis,
            "ujis" | "eucjpms" => Self::Ujis,
            "gb18030" => Self::Gb18030,
            _ if bytes_max == 1 => Self::OneByte,
            _ => return None,
        })
    }

    /// How many bytes the character has that these begin with; `None` when they begin none.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        let first = *bytes.first()?;
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let second = byte(1);
        let two = |lead: bool, trail: bool| (lead && trail).then_some(2);
        match self {
            Self::OneByte => Some(1),
            _ if first < 0x80 => Some(1),
            Self::Big5 => two(matches!(first, 0xA1..=0xF9), matches!(second, 0x40..=0x7E | 0xA1..=0xFE)),
            Self::Gbk => two(matches!(first, 0x81..=0xFE), matches!(second, 0x40..=0x7E | 0x80..=0xFE)),
            Self::Gb2312 => two(matches!(first, 0xA1..=0xF7), matches!(second, 0xA1..=0xFE)),
            Self::EucKr => two(matches!(first, 0x81..=0xFE), matches!(second, 0x41..=0x5A | 0x61..=0x7A | 0x81..=0xFE)),
            Self::Sjis if matches!(first, 0xA1..=0xDF) => Some(1),
            Self::Sjis => two(matches!(first, 0x81..=0x9F | 0xE0..=0xFC), matches!(second, 0x40..=0x7E | 0x80..=0xFC)),
            Self::Ujis => match first {
                0x8E => two(true, matches!(second, 0xA1..=0xDF)),
                0x8F => {
                    let trails = matches!(second, 0xA1..=0xFE) && matches!(byte(2), 0xA1..=0xFE);
                    trails.then_some(3)
                }
                _ => two(matches!(first, 0xA1..=0xFE), matches!(second, 0xA1..=0xFE)),
            },
            Self::Gb18030 => {
                let lead = matches!(first, 0x81..=0xFE);
                if lead && matches!(second, 0x30..=0x39) {
                    let trails = matches!(byte(2), 0x81..=0xFE) && matches!(byte(3), 0x30..=0x39);
                    return trails.then_some(4);
                }
                two(lead, matches!(second, 0x40..=0x7E | 0x80..=0xFE))
            }
        }
    }

    /// Every character of the set whose meaning the server is asked for, in order of [`Self::code`], as bytes.
    pub fn characters(self) -> Vec<Vec<u8>> {
        let mut characters = Vec::new();
        for first in 0..=255_u8 {
            if self.length(&[first]) == Some(1) {
                characters.push(vec![first]);
                continue;
            }
            for second in 0..=255_u8 {
                if self.length(&[first, second]) == Some(2) {
                    characters.push(vec![first, second]);
                }
                if self == Self::Ujis && first == 0x8F && matches!(second, 0xA1..=0xFE) {
                    characters.extend((0xA1..=0xFE).map(|third| vec![first, second, third]));
                }
            }
        }
        if self == Self::Gb18030 {
            let digit = |value: u32| 0x30 + (value % 10) as u8;
            characters.extend((0..GB18030_BASIC).map(|index| {
                let third = 0x81 + (index / 10 % 126) as u8;
                vec![0x81 + (index / 12_600) as u8, digit(index / 1260), third, digit(index)]
            }));
        }
        characters
    }

    /// The number of a character in a table of this set.
    fn code(self, character: &[u8]) -> u32 {
        match *character {
            [first, second, third, fourth] if self == Self::Gb18030 => {
                0x1_0000 + gb18030_index([first, second, third, fourth])
            }
            // Three bytes are only those that begin with 8F.
            [0x8F, second, third] => 0x1_0000 + (u32::from(second) << 8 | u32::from(third)),
            _ => character.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)),
        }
    }
}

/// A server's own table of one character set.
#[derive(Debug)]
pub struct Table {
    shape: Shape,
    /// By [`Shape::code`]; U+FFFD where the server has no character.
    characters: Vec<char>,
    /// Its first 128 characters are ASCII's.
    ascii: bool,
}

impl Table {
    /// `hex`: what the server made of [`Shape::characters`], as UTF-32 in hex. A character it does not know comes as a
    /// question mark.
    pub fn new(shape: Shape, hex: &str) -> Option<Self> {
        let asked = shape.characters();
        if hex.len() != asked.len() * 8 || !hex.is_ascii() {
            return None;
        }
        let mut characters = Vec::new();
        for (index, bytes) in asked.iter().enumerate() {
            let code = u32::from_str_radix(&hex[index * 8..index * 8 + 8], 16).ok()?;
            let unknown = code == u32::from(b'?') && *bytes != [b'?'];
            let place = shape.code(bytes) as usize;
            if characters.len() <= place {
                characters.resize(place + 1, char::REPLACEMENT_CHARACTER);
            }
            characters[place] = char::from_u32(code).filter(|_| !unknown).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        let ascii = characters.iter().zip('\0'..'\u{80}').all(|(found, ascii)| *found == ascii);
        Some(Self { shape, characters, ascii })
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> (Cow<'a, str>, bool) {
        if self.ascii
            && let Ok(text) = std::str::from_utf8(bytes)
            && text.is_ascii()
        {
            return (Cow::Borrowed(text), false);
        }
        let mut rest = bytes;
        let decoded = std::iter::from_fn(|| {
            let length = match self.shape.length(rest) {
                Some(length) => length,
                None if rest.is_empty() => return None,
                // Bytes that begin no character: the next one may.
                None => {
                    rest = &rest[1..];
                    return Some(None);
                }
            };
            let (character, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            Some(self.character(character))
        });
        chars(decoded)
    }

    fn holds(&self, text: &str) -> bool {
        text.chars().all(|character| {
            (self.ascii && character.is_ascii())
                || (character != char::REPLACEMENT_CHARACTER && self.characters.contains(&character))
        })
    }

    fn character(&self, bytes: &[u8]) -> Option<char> {
        let code = self.shape.code(bytes);
        if self.shape == Shape::Gb18030
            && bytes.len() == 4
            && let Some(above) = code.checked_sub(0x1_0000 + GB18030_SUPPLEMENTARY)
        {
            return char::from_u32(0x1_0000 + above);
        }
        self.characters.get(code as usize).copied().filter(|found| *found != char::REPLACEMENT_CHARACTER)
    }
}

/// Tables by the name of their character set.
pub type Tables = HashMap<String, Arc<Table>>;

/// The server's collations: the log names a column's character set by a collation's id.
#[derive(Clone, Debug, Default)]
pub struct Collations {
    charset_of_id: HashMap<u64, String>,
    tables: Arc<Tables>,
}

impl Collations {
    /// `collations`: id and character set of each.
    pub fn new(collations: impl IntoIterator<Item = (u64, String)>, tables: Arc<Tables>) -> Self {
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

impl Collations {
    /// Whether this set has every character of the text.
    pub fn can_hold(&self, charset: &str, text: &str) -> bool {
        let basic = |text: &str| text.chars().all(|character| u32::from(character) <= 0xFFFF);
        match self.by_name(charset) {
            Ok(Charset::Utf8) => charset.eq_ignore_ascii_case("utf8mb4") || basic(text),
            Ok(Charset::Ucs2) => basic(text),
            Ok(Charset::Utf16 | Charset::Utf16Le | Charset::Utf32) => true,
            Ok(Charset::Latin1) => !encoding_rs::WINDOWS_1252.encode(text).2,
            Ok(Charset::Table(table)) => table.holds(text),
            Ok(Charset::Binary | Charset::Ascii) | Err(_) => text.is_ascii(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(charset: Charset, bytes: &[u8]) -> (String, bool) {
        let (text, broken) = charset.decode(bytes);
        (text.into_owned(), broken)
    }

    #[test]
    fn which_characters_a_set_has_is_known() {
        let collations = Collations::default();
        for (set, text, holds) in [
            ("utf8mb4", "é🍣", true),
            ("utf8mb3", "é예", true),
            ("utf8mb3", "🍣", false),
            ("latin1", "é€\u{81}", true),
            ("latin1", "ł", false),
            ("ascii", "é", false),
            ("ucs2", "예", true),
            ("ucs2", "🍣", false),
            ("utf16", "🍣", true),
            ("no such set", "a", true),
            ("no such set", "é", false),
        ] {
            assert_eq!(collations.can_hold(set, text), holds, "{text} in {set}");
        }
    }

    /// M-13: the column's character set decides, and latin1 is cp1252.
    #[test]
    fn text_is_decoded_by_its_character_set() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("utf8mb4", "é🍣".as_bytes(), "é🍣"),
            ("latin1", b"caf\xE9 \x80\x81", "café €\u{81}"),
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
            (Charset::Ucs2, b"\xD8\x3C\xDF\x63"),
            (Charset::Ucs2, b"\x00"),
            (Charset::Utf32, b"\x00\x01"),
        ] {
            let (text, broken) = decoded(charset, bytes);
            assert!(broken && text.contains('\u{FFFD}'), "{text}");
        }
    }

    /// A table whose characters count up from U+4000, but for ASCII and what `unknown` says.
    fn table(shape: Shape, unknown: impl Fn(&[u8]) -> bool) -> Charset {
        let hex: String = shape
            .characters()
            .iter()
            .enumerate()
            .map(|(index, bytes)| match bytes[..] {
                [ascii @ 0..0x80] => format!("{ascii:08X}"),
                _ if unknown(bytes) => format!("{:08X}", u32::from(b'?')),
                _ => format!("{:08X}", 0x4000 + index),
            })
            .collect();
        Charset::Table(Arc::new(Table::new(shape, &hex).expect("well formed")))
    }

    #[test]
    fn every_character_of_a_table_is_found_by_its_bytes() {
        for shape in [Shape::OneByte, Shape::Big5, Shape::Gbk, Shape::Gb2312, Shape::EucKr, Shape::Sjis, Shape::Ujis] {
            let charset = table(shape, |_| false);
            let characters = shape.characters();
            let expected: String = characters
                .iter()
                .enumerate()
                .map(|(index, bytes)| match bytes[..] {
                    [ascii @ 0..0x80] => char::from(ascii),
                    _ => char::from_u32(0x4000 + index as u32).expect("below the surrogates"),
                })
                .collect();
            assert_eq!(decoded(charset.clone(), &characters.concat()), (expected, false), "{shape:?}");
            // A lead byte alone begins nothing and takes nothing with it.
            if shape != Shape::OneByte {
                assert_eq!(decoded(charset, b"\xE0"), ("\u{FFFD}".to_owned(), true), "{shape:?}");
            }
        }
        let unknown = table(Shape::Sjis, |bytes| bytes == b"\x81\x5C");
        assert_eq!(decoded(unknown, b"a\x81\x5Cb\xFFc"), ("a\u{FFFD}b\u{FFFD}c".to_owned(), true));
    }

    #[test]
    fn gb18030_counts_on_above_the_basic_plane() {
        assert_eq!(GB18030_BASIC, 39_420);
        let hex: String =
            Shape::Gb18030.characters().iter().map(|bytes| format!("{:08X}", bytes.len() * 0x100)).collect();
        let charset = Charset::Table(Arc::new(Table::new(Shape::Gb18030, &hex).expect("well formed")));
        let bytes = b"a\xB0\xA1\x81\x30\x81\x30\x84\x31\xA4\x39\x90\x30\x81\x30\xE3\x32\x9A\x35";
        let text = "\u{100}\u{200}\u{400}\u{400}\u{10000}\u{10FFFF}".to_owned();
        assert_eq!(decoded(charset.clone(), bytes), (text, false));
        for nothing in [b"\x84\x31\xA5\x30".as_slice(), b"\xE3\x32\x9A\x36", b"\x90\x30\x81"] {
            assert!(decoded(charset.clone(), nothing).1, "{nothing:?}");
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
        assert!(Table::new(Shape::OneByte, &hex[8..]).is_none());
        let table = Table::new(Shape::OneByte, &hex).expect("well formed");
        let tables = HashMap::from([("cp1250".to_owned(), Arc::new(table))]);
        let collations = Collations::new([(26, "cp1250".to_owned())], Arc::new(tables));
        let charset = collations.by_id(26).expect("listed above");
        assert_eq!(decoded(charset.clone(), b"a?\x80"), ("a?€".to_owned(), false));
        assert_eq!(decoded(charset, b"\x81"), ("\u{FFFD}".to_owned(), true));
        assert!(collations.by_id(9999).is_err());
        assert!(collations.by_name("klingon").is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            for shape in [Shape::Big5, Shape::EucKr, Shape::Sjis, Shape::Ujis, Shape::Gb18030] {
                let table = Table { shape, characters: vec!['x'; 300], ascii: false };
                let _ = table.decode(&bytes);
            }
        }
    }
}
