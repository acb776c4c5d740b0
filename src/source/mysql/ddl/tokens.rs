//! A statement in tokens, with a cursor.

use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::super::statement::Named;
use super::Unclear;

/// Tokens of a statement with a cursor.
#[derive(Clone)]
pub struct Tokens<'a> {
    tokens: &'a [Token],
}

impl<'a> Tokens<'a> {
    pub fn new(tokens: &'a [Token]) -> Self {
        Self { tokens }
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.first()
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let first = self.tokens.first();
        self.tokens = self.tokens.get(1..).unwrap_or(&[]);
        first
    }

    /// A word without quotes.
    pub fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
        if found {
            self.next();
        }
        found
    }

    pub fn words(&mut self, wanted: &[&str]) -> bool {
        let before = self.tokens;
        let found = wanted.iter().all(|word| self.word(word));
        if !found {
            self.tokens = before;
        }
        found
    }

    pub fn any_word(&mut self, wanted: &[&str]) -> bool {
        wanted.iter().any(|word| self.word(word))
    }

    pub fn take(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// A name, quoted or not.
    pub fn name(&mut self) -> Option<String> {
        let name = match self.peek()? {
            Token::Word(word) if word.quote_style.is_some() => word.value.replace("``", "`"),
            Token::Word(word) => word.value.clone(),
            Token::DoubleQuotedString(text) => text.replace("\"\"", "\""),
            _ => return None,
        };
        self.next();
        Some(name)
    }

    pub fn text(&mut self) -> Option<String> {
        let text = match self.peek()? {
            Token::SingleQuotedString(text) => text.replace("''", "'"),
            Token::DoubleQuotedString(text) => text.replace("\"\"", "\""),
            _ => return None,
        };
        self.next();
        Some(text)
    }

    /// A string literal's text: quotes and escapes are gone.
    pub fn string(&mut self) -> Option<String> {
        let text = match self.peek()? {
            Token::SingleQuotedString(text) => unescaped(text, '\''),
            Token::DoubleQuotedString(text) => unescaped(text, '"'),
            _ => return None,
        };
        self.next();
        Some(text)
    }

    pub fn number(&mut self) -> Option<String> {
        match self.peek()? {
            Token::Number(number, _) => {
                self.next();
                Some(number.clone())
            }
            _ => None,
        }
    }

    /// What is between a parenthesis here and its partner; `None` when there is none.
    pub fn parenthesis(&mut self) -> Option<Tokens<'a>> {
        if self.peek() != Some(&Token::LParen) {
            return None;
        }
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inner = &self.tokens[1..at];
                self.tokens = &self.tokens[at + 1..];
                return Some(Tokens::new(inner));
            }
        }
        None
    }

    /// The pieces between commas outside of parentheses.
    pub fn pieces(&self) -> Vec<Tokens<'a>> {
        let mut depth = 0_usize;
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Comma if depth == 0 => {
                    pieces.push(Tokens::new(&self.tokens[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
        pieces.push(Tokens::new(&self.tokens[start..]));
        pieces
    }

    pub fn table(&mut self) -> Option<Named> {
        let first = self.name()?;
        if self.take(&Token::Period) {
            return Some(Named { schema: Some(first), table: self.name()? });
        }
        Some(Named { schema: None, table: first })
    }
}

/// What a literal between quotes stands for (MySQL manual 11.1.1 "String Literals").
pub fn unescaped(text: &str, quote: char) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == quote {
            characters.next_if_eq(&quote);
        } else if character == '\\' {
            match characters.next() {
                Some('0') => plain.push('\0'),
                Some('b') => plain.push('\u{8}'),
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some('Z') => plain.push('\u{1A}'),
                // They matter where patterns are matched, and stay.
                Some(wildcard @ ('%' | '_')) => plain.extend(['\\', wildcard]),
                Some(other) => plain.push(other),
                None => {}
            }
            continue;
        }
        plain.push(character);
    }
    plain
}

/// A statement's tokens without blanks and comments; the content of `/*! … */` counts.
pub fn tokens_of(text: &str) -> Result<Vec<Token>, Unclear> {
    let tokens = Tokenizer::new(&MySqlDialect {}, text).with_unescape(false).tokenize().map_err(|_| Unclear)?;
    let blank = |token: &Token| matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF);
    Ok(tokens.into_iter().filter(|token| !blank(token)).collect())
}
