//! PostgreSQL's text form of an array: `{1,NULL,"a, b"}`.
//!
//! Format: PostgreSQL manual, 8.15.6 "Array Input and Output Syntax", and `array_out` in arrayfuncs.c: an element is quoted
//! when it is empty, reads like NULL, or holds a brace, the delimiter, a quote, a backslash or white space; inside quotes
//! a backslash goes before quotes and backslashes. Several dimensions are nested braces, and bounds that do not begin at 1
//! stand in front: `[0:1]={1,2}`.

use super::text::Malformed;

/// What kind of array a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One dimension from 1 on, or empty.
    List,
    /// Several dimensions, or other bounds.
    Other,
}

pub fn shape(text: &[u8]) -> Result<Shape, Malformed> {
    if text.last() != Some(&b'}') {
        return Err(Malformed);
    }
    match text {
        [b'{', b'{', ..] => Ok(Shape::Other),
        [b'{', ..] => Ok(Shape::List),
        [b'[', ..] => {
            let bounds = text.iter().position(|&byte| byte == b'=').map(|end| text.split_at(end));
            let known = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b']' | b':' | b'-');
            match bounds {
                Some((bounds, [b'=', b'{', ..])) if bounds.iter().all(known) => Ok(Shape::Other),
                _ => Err(Malformed),
            }
        }
        _ => Err(Malformed),
    }
}

/// Calls `element` for each element of a [`Shape::List`], in order; `None` is NULL.
pub fn for_each(
    text: &[u8],
    delimiter: u8,
    mut element: impl FnMut(Option<&[u8]>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut rest = text.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).ok_or(Malformed)?;
    if rest.is_empty() {
        return Ok(());
    }
    let mut unescaped = Vec::new();
    loop {
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = unquote(quoted, &mut unescaped)?;
            element(Some(&unescaped))?;
        } else {
            let end = rest.iter().position(|&byte| byte == delimiter).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(end);
            if plain.is_empty() || plain.iter().any(|byte| b"{}\"\\".contains(byte)) {
                return Err(Malformed);
            }
            element((plain != b"NULL").then_some(plain))?;
            rest = after;
        }
        match rest.split_first() {
            None => return Ok(()),
            Some((&byte, after)) if byte == delimiter => rest = after,
            Some(_) => return Err(Malformed),
        }
    }
}

/// Reads up to the closing quote and gives back what follows it.
fn unquote<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    out.clear();
    let mut rest = text;
    loop {
        let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Malformed)?;
        out.extend_from_slice(&rest[..special]);
        let found = rest[special];
        rest = &rest[special + 1..];
        if found == b'"' {
            return Ok(rest);
        }
        let (&escaped, after) = rest.split_first().ok_or(Malformed)?;
        out.push(escaped);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(text: &str, delimiter: u8) -> Result<Vec<Option<String>>, Malformed> {
        let mut found = Vec::new();
        for_each(text.as_bytes(), delimiter, |element| {
            found.push(element.map(|element| String::from_utf8_lossy(element).into_owned()));
            Ok(())
        })?;
        Ok(found)
    }

    /// P-11
    #[test]
    fn null_quoted_null_empty_and_escapes_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(elements("{}", b','), Ok(vec![]));
        assert_eq!(elements("{1,NULL,-3}", b','), Ok(vec![some("1"), None, some("-3")]));
        assert_eq!(
            elements(r#"{"null",NULL,"a,b","q\"uote","back\\slash",""}"#, b','),
            Ok(vec![some("null"), None, some("a,b"), some("q\"uote"), some("back\\slash"), some("")])
        );
        assert_eq!(elements("{(1,1),(0,0);(2,2),(1,1)}", b';'), Ok(vec![some("(1,1),(0,0)"), some("(2,2),(1,1)")]));
        for text in
            ["", "{", "}", "{1", "{1,}", "{,1}", "{1,,2}", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{\"a\\\"}", "{1,{2}}"]
        {
            assert!(elements(text, b',').is_err(), "{text}");
        }
    }

    /// P-11
    #[test]
    fn other_shapes_are_told() {
        let shape = |text: &str| shape(text.as_bytes());
        for text in ["{}", "{1}", "{NULL}", "{\"{\"}"] {
            assert_eq!(shape(text), Ok(Shape::List), "{text}");
        }
        for text in ["{{1,2},{3,4}}", "[0:1]={1,NULL}", "[-2:-1][1:1]={{a},{b}}"] {
            assert_eq!(shape(text), Ok(Shape::Other), "{text}");
        }
        for text in ["", "1", "[0:1]", "[0:1]=1}", "[a]={1}", "{1"] {
            assert_eq!(shape(text), Err(Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = shape(&text);
            let _ = for_each(&text, b',', |_| Ok(()));
        }
    }
}
