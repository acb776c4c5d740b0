//! Defaults as DDL writes them: constants of every spelling, kept as written, since what they mean depends on the column.

use sqlparser::tokenizer::Token;

use crate::schema::ColumnDefault;

use super::ddl::{Tokens, Unclear};

/// What stands behind `DEFAULT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Nothing: there is no `DEFAULT`.
    Absent,
    Null,
    /// Without quotes and escapes. The introducer is the character set before it: `_latin1'x'`.
    Text {
        text: String,
        introducer: Option<String>,
    },
    /// With its sign: `-1.50`, `1e3`.
    Number(String),
    /// `0x41`, `x'41'`, `b'101'`.
    Bytes {
        bytes: Vec<u8>,
        hex: bool,
    },
    /// `DATE'2020-01-02'`
    Date(String),
    /// `TIME'10:00:00'`
    Time(String),
    /// `TIMESTAMP'2020-01-02 10:00:00'`
    Datetime(String),
    /// The moment of the statement, or of each insert later on, with so many digits of fraction.
    Now {
        digits: u8,
    },
    /// An expression, or what this release does not read as a constant.
    Computed,
}

impl Literal {
    fn plain(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), introducer: None }
    }

    /// What a layout keeps of it.
    pub fn of_default(default: &ColumnDefault) -> Self {
        match default {
            ColumnDefault::None => Self::Absent,
            ColumnDefault::Computed => Self::Computed,
            ColumnDefault::Constant(text) => match text.strip_prefix("b'").and_then(|rest| rest.strip_suffix('\'')) {
                Some(digits) if !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0' | b'1')) => {
                    Self::Bytes { bytes: of_bits(digits), hex: false }
                }
                _ => Self::plain(text),
            },
        }
    }
}

/// Reads what follows `DEFAULT`: what the layout keeps, and the constant as written.
pub fn default(tokens: &mut Tokens<'_>) -> Result<(ColumnDefault, Literal), Unclear> {
    let mut plain = true;
    let literal = match tokens.parenthesis() {
        Some(mut inner) => {
            plain = false;
            let literal = constant(&mut inner).unwrap_or(Literal::Computed);
            if inner.is_empty() { literal } else { Literal::Computed }
        }
        None => match constant(tokens) {
            Some(literal) => literal,
            // CURRENT_TIMESTAMP, NOW(6), and whatever else is called.
            None => match tokens.next() {
                Some(Token::Word(word)) if word.quote_style.is_none() => called(&word.value, tokens),
                _ => return Err(Unclear),
            },
        },
    };
    let kept = match &literal {
        Literal::Null | Literal::Absent => ColumnDefault::None,
        Literal::Text { text, introducer: None } if plain && !text.contains(['\\', '\0']) => {
            ColumnDefault::Constant(text.clone())
        }
        Literal::Number(number) if plain && number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-')) => {
            ColumnDefault::Constant(number.clone())
        }
        _ => ColumnDefault::Computed,
    };
    Ok((kept, literal))
}

fn called(word: &str, tokens: &mut Tokens<'_>) -> Literal {
    let arguments = tokens.parenthesis();
    let now = ["CURRENT_TIMESTAMP", "NOW", "LOCALTIME", "LOCALTIMESTAMP"];
    if !now.iter().any(|name| word.eq_ignore_ascii_case(name)) {
        return Literal::Computed;
    }
    let digits = match arguments {
        None => Some(0),
        Some(inner) if inner.is_empty() => Some(0),
        Some(mut inner) => {
            let digits = inner.number().and_then(|digits| digits.parse().ok());
            digits.filter(|digits| *digits <= 6 && inner.is_empty())
        }
    };
    digits.map_or(Literal::Computed, |digits| Literal::Now { digits })
}

/// A constant at the cursor, which moves behind it; `None`, and it stays, when none is there.
fn constant(tokens: &mut Tokens<'_>) -> Option<Literal> {
    for (word, literal) in
        [("NULL", Literal::Null), ("TRUE", Literal::Number("1".to_owned())), ("FALSE", Literal::Number("0".to_owned()))]
    {
        if tokens.word(word) {
            return Some(literal);
        }
    }
    if let Some(mut text) = tokens.string() {
        // Literals next to each other are one.
        while let Some(more) = tokens.string() {
            text.push_str(&more);
        }
        return Some(Literal::plain(text));
    }
    match tokens.peek()? {
        Token::Minus | Token::Plus => {
            let mut ahead = tokens.clone();
            let minus = ahead.take(&Token::Minus) || !ahead.take(&Token::Plus);
            let number = ahead.number()?;
            *tokens = ahead;
            Some(Literal::Number(format!("{}{number}", if minus { "-" } else { "" })))
        }
        Token::Number(..) => tokens.number().map(Literal::Number),
        Token::HexStringLiteral(digits) => {
            let bytes = of_hex(digits)?;
            tokens.next();
            Some(Literal::Bytes { bytes, hex: true })
        }
        Token::SingleQuotedByteStringLiteral(digits) => {
            if !digits.bytes().all(|digit| matches!(digit, b'0' | b'1')) {
                return None;
            }
            let bytes = of_bits(digits);
            tokens.next();
            Some(Literal::Bytes { bytes, hex: false })
        }
        Token::NationalStringLiteral(text) => {
            let text = super::ddl::unescaped(text, '\'');
            tokens.next();
            Some(Literal::Text { text, introducer: Some("utf8mb3".to_owned()) })
        }
        Token::Word(word) if word.quote_style.is_none() => {
            let mut ahead = tokens.clone();
            ahead.next();
            let name = word.value.to_ascii_lowercase();
            let literal = match name.as_str() {
                "date" => Literal::Date(ahead.string()?),
                "time" => Literal::Time(ahead.string()?),
                "timestamp" => Literal::Datetime(ahead.string()?),
                // A name may begin with a digit, so it comes as a word.
                _ if name.starts_with("0b") => {
                    let digits = &name[2..];
                    let bits = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0' | b'1'));
                    bits.then(|| Literal::Bytes { bytes: of_bits(digits), hex: false })?
                }
                "json_object" | "json_array" => {
                    if !ahead.parenthesis()?.is_empty() {
                        return None;
                    }
                    Literal::plain(if name == "json_object" { "{}" } else { "[]" })
                }
                _ => {
                    let introducer = name.strip_prefix('_')?.to_owned();
                    Literal::Text { text: ahead.string()?, introducer: Some(introducer) }
                }
            };
            *tokens = ahead;
            Some(literal)
        }
        _ => None,
    }
}

/// Bits, the highest first, in whole bytes.
fn of_bits(digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes();
    digits.rchunks(8).rev().map(|byte| byte.iter().fold(0, |value, digit| value << 1 | (digit - b'0'))).collect()
}

fn of_hex(digits: &str) -> Option<Vec<u8>> {
    // An odd number of digits is one with a zero before.
    let even = if digits.len().is_multiple_of(2) { digits.to_owned() } else { format!("0{digits}") };
    if !even.is_ascii() {
        return None;
    }
    (0..even.len() / 2).map(|at| u8::from_str_radix(&even[2 * at..2 * at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::ddl::tokens_of;

    fn read(text: &str) -> Result<(ColumnDefault, Literal), Unclear> {
        let tokens = tokens_of(text)?;
        let mut tokens = Tokens::new(&tokens);
        let read = default(&mut tokens)?;
        assert!(tokens.is_empty(), "{text} is not read to its end");
        Ok(read)
    }

    #[test]
    fn constants_are_read_in_every_spelling() {
        let number = |text: &str| Literal::Number(text.to_owned());
        let bytes = |bytes: &[u8], hex| Literal::Bytes { bytes: bytes.to_vec(), hex };
        let with = |text: &str, introducer: &str| Literal::Text {
            text: text.to_owned(),
            introducer: Some(introducer.to_owned()),
        };
        for (text, literal) in [
            ("NULL", Literal::Null),
            ("true", number("1")),
            ("-1.50", number("-1.50")),
            ("+7", number("7")),
            ("1e3", number("1e3")),
            ("'it''s'", Literal::plain("it's")),
            ("\"a\"\"b\"", Literal::plain("a\"b")),
            (r"'a\'b\\c\n\%\_\q\0'", Literal::plain("a'b\\c\n\\%\\_q\0")),
            ("'a' 'b'", Literal::plain("ab")),
            ("_latin1'a'", with("a", "latin1")),
            ("N'a'", with("a", "utf8mb3")),
            ("0x4142", bytes(b"AB", true)),
            ("x'0F1'", bytes(&[0, 0xF1], true)),
            ("b'100000001'", bytes(&[1, 1], false)),
            ("0b101", bytes(&[5], false)),
            ("DATE'2020-01-02'", Literal::Date("2020-01-02".to_owned())),
            ("TIMESTAMP '2020-01-02 03:04:05'", Literal::Datetime("2020-01-02 03:04:05".to_owned())),
            ("('abc')", Literal::plain("abc")),
            ("(-5)", number("-5")),
            ("(json_object())", Literal::plain("{}")),
            ("(1+1)", Literal::Computed),
            ("(uuid())", Literal::Computed),
            ("uuid()", Literal::Computed),
            ("CURRENT_TIMESTAMP", Literal::Now { digits: 0 }),
            ("now(6)", Literal::Now { digits: 6 }),
            ("current_timestamp()", Literal::Now { digits: 0 }),
        ] {
            assert_eq!(read(text).map(|(_, literal)| literal), Ok(literal), "{text}");
        }
        assert_eq!(read("@@x"), Ok((ColumnDefault::Computed, Literal::Computed)));
    }

    /// Only what the catalog would show in the same words.
    #[test]
    fn a_layout_keeps_plain_constants() {
        let constant = |text: &str| ColumnDefault::Constant(text.to_owned());
        for (text, kept) in [
            ("'a'", constant("a")),
            ("-5", constant("-5")),
            ("NULL", ColumnDefault::None),
            ("1e3", ColumnDefault::Computed),
            ("(5)", ColumnDefault::Computed),
            ("0x41", ColumnDefault::Computed),
            ("_latin1'a'", ColumnDefault::Computed),
            ("now()", ColumnDefault::Computed),
        ] {
            assert_eq!(read(text).map(|(kept, _)| kept), Ok(kept), "{text}");
        }
        assert_eq!(Literal::of_default(&constant("b'101'")), Literal::Bytes { bytes: vec![5], hex: false });
        assert_eq!(Literal::of_default(&constant("x")), Literal::plain("x"));
    }
}
