//! Which tables a source captures: globs over `database.table` or `schema.table`, `!` excludes.

use globset::{GlobBuilder, GlobMatcher};

/// Patterns in the order of the file; the last one that matches a table decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSelection {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    include: bool,
    matcher: GlobMatcher,
}

/// By their texts: the matchers are made of these.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl TableSelection {
    /// `patterns` as in `tables = […]`. The error is the pattern's problem in words.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        let parse = |text: &str| {
            let (include, glob) = match text.strip_prefix('!') {
                Some(rest) => (false, rest),
                None => (true, text),
            };
            if !glob.contains('.') {
                return Err(format!("`{text}` needs the form database.table or schema.table, for example `{glob}.*`"));
            }
            let matcher = GlobBuilder::new(glob)
                .backslash_escape(true)
                .build()
                .map_err(|error| format!("`{text}` is not a pattern: {}", error.kind()))?
                .compile_matcher();
            Ok(Pattern { text: text.to_owned(), include, matcher })
        };
        let patterns = patterns.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// `table` as `database.table` or `schema.table`.
    pub fn selects(&self, table: &str) -> bool {
        self.patterns.iter().rev().find(|pattern| pattern.matcher.is_match(table)).is_some_and(|p| p.include)
    }

    /// The patterns as written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_pattern_decides() {
        let selection = TableSelection::parse(&["booking.*", "!booking.tmp_*", "booking.tmp_keep"]).expect("valid");
        assert!(selection.selects("booking.coupons"));
        assert!(!selection.selects("booking.tmp_x"));
        assert!(selection.selects("booking.tmp_keep"));
        assert!(!selection.selects("other.coupons"));
    }

    #[test]
    fn a_pattern_names_its_problem() {
        assert!(TableSelection::parse(&["coupons"]).is_err_and(|e| e.contains("database.table")));
        assert!(TableSelection::parse(&["booking.[a"]).is_err());
    }
}
