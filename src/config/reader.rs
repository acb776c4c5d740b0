//! Reads TOML tables by hand, so that one pass finds every problem and knows the line of each.
//!
//! A [`TableReader`] remembers which keys were asked for; [`TableReader::finish`] reports the others. A getter answers
//! `None` both for a key that is absent and for one whose value is no use, which it has reported by then: the caller
//! goes on with whatever is left to check.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Item, Table, TableLike, Value};

use super::problem::nearest;
use super::{ConfigError, ConfigProblem};

/// Problems and warnings as they are found, over all files.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<ConfigProblem>>,
    warnings: RefCell<Vec<ConfigProblem>>,
}

impl Findings {
    pub(super) fn problem(&self, problem: ConfigProblem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn warning(&self, warning: ConfigProblem) {
        self.warnings.borrow_mut().push(warning);
    }

    /// The warnings, or every problem.
    pub(super) fn into_result(self) -> Result<Vec<ConfigProblem>, ConfigError> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        // The sort is stable and a file's problems come together: files stay in the order in which they were read.
        let order: Vec<PathBuf> = problems.iter().map(|problem| problem.file.clone()).collect();
        let rank = |file: &Path| order.iter().position(|known| known == file);
        problems.sort_by_key(|problem| (rank(&problem.file), problem.line));
        Err(ConfigError { problems })
    }
}

/// A file's text, and where its problems go.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
    pub(super) findings: &'a Findings,
}

impl Source<'_> {
    pub(super) fn line_of(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    pub(super) fn describe(&self, line: Option<usize>, key: String, finding: String) -> ConfigProblem {
        ConfigProblem { file: self.file.to_owned(), line, key, finding, expected: None, nearest: None }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) line: Option<usize>,
}

/// One table of a file.
pub(super) struct TableReader<'a> {
    source: Source<'a>,
    /// `source`, `lake.storage`; empty for the top of the file.
    prefix: String,
    table: &'a dyn TableLike,
    line: Option<usize>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> TableReader<'a> {
    pub(super) fn root(source: Source<'a>, table: &'a Table) -> Self {
        Self { source, prefix: String::new(), table, line: None, known: RefCell::default() }
    }

    fn child(&self, key: &str, table: &'a dyn TableLike, line: Option<usize>) -> Self {
        Self { source: self.source, prefix: self.path_of(key), table, line, known: RefCell::default() }
    }

    /// `prefix.key`
    fn path_of(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    fn line_of_key(&self, key: &str) -> Option<usize> {
        let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
        span.map(|span| self.source.line_of(span.start)).or(self.line)
    }

    fn get(&self, key: &'static str) -> Option<&'a Item> {
        self.known.borrow_mut().push(key);
        self.table.get(key).filter(|item| !item.is_none())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|item| !item.is_none())
    }

    /// The names of all keys, without marking them as known.
    pub(super) fn keys(&self) -> Vec<&'a str> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(super) fn problem(&self, key: &str, finding: impl Into<String>, expected: &str) {
        self.report(self.line_of_key(key), key, finding.into(), expected, None);
    }

    /// A problem whose nearest valid word among `known` is worth telling.
    pub(super) fn problem_near<'k>(
        &self,
        key: &str,
        found: &str,
        expected: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let finding = format!("unknown value `{found}`");
        self.report(self.line_of_key(key), key, finding, expected, nearest(found, known));
    }

    /// One of some words, each of which stands for a value.
    pub(super) fn word<T: Copy>(&self, key: &'static str, expected: &str, words: &[(&str, T)]) -> Option<T> {
        let found = self.text(key, expected)?.value;
        let meant = words.iter().find(|(word, _)| *word == found).map(|(_, value)| *value);
        if meant.is_none() {
            self.problem_near(key, &found, expected, words.iter().map(|(word, _)| *word));
        }
        meant
    }

    pub(super) fn missing(&self, key: &'static str, expected: &str) {
        self.known.borrow_mut().push(key);
        self.report(self.line, key, "is missing".to_owned(), expected, None);
    }

    pub(super) fn warning(&self, key: &str, finding: impl Into<String>) {
        let warning = self.source.describe(self.line_of_key(key), self.path_of(key), finding.into());
        self.source.findings.warning(warning);
    }

    fn report(&self, line: Option<usize>, key: &str, finding: String, expected: &str, nearest: Option<String>) {
        let expected = (!expected.is_empty()).then(|| expected.to_owned());
        let problem = ConfigProblem { expected, nearest, ..self.source.describe(line, self.path_of(key), finding) };
        self.source.findings.problem(problem);
    }

    fn wrong_type(&self, key: &str, item: &Item, expected: &str) {
        self.problem(key, format!("is {}", kind_of(item)), expected);
    }

    pub(super) fn text(&self, key: &'static str, expected: &str) -> Option<Found<String>> {
        let item = self.get(key)?;
        match item.as_str() {
            Some("") => self.problem(key, "is empty", expected),
            Some(text) => return Some(Found { value: text.to_owned(), line: self.line_of_key(key) }),
            None => self.wrong_type(key, item, expected),
        }
        None
    }

    pub(super) fn required_text(&self, key: &'static str, expected: &str) -> Option<Found<String>> {
        if !self.has(key) {
            self.missing(key, expected);
            return None;
        }
        self.text(key, expected)
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let item = self.get(key)?;
        let flag = item.as_bool();
        if flag.is_none() {
            self.wrong_type(key, item, "true or false");
        }
        flag
    }

    /// A whole number of `range`.
    pub(super) fn integer(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        expected: &str,
    ) -> Option<u64> {
        let item = self.get(key)?;
        let Some(number) = item.as_integer() else {
            self.wrong_type(key, item, expected);
            return None;
        };
        let inside = u64::try_from(number).ok().filter(|number| range.contains(number));
        if inside.is_none() {
            self.problem(key, format!("{number} is out of range"), expected);
        }
        inside
    }

    pub(super) fn boolean(&self, key: &'static str, expected: &str) -> Option<bool> {
        let item = self.get(key)?;
        if item.as_bool().is_none() {
            self.wrong_type(key, item, expected);
        }
        item.as_bool()
    }

    /// Bytes, as a number or as text with a unit (`"256MiB"`).
    pub(super) fn bytes(&self, key: &'static str, least: u64, expected: &str) -> Option<u64> {
        let item = self.get(key)?;
        let bytes = match (item.as_integer(), item.as_str()) {
            (Some(number), _) => u64::try_from(number).ok(),
            (None, Some(text)) => text.trim().parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()),
            (None, None) => {
                self.wrong_type(key, item, expected);
                return None;
            }
        };
        match bytes {
            Some(bytes) if bytes >= least => return Some(bytes),
            Some(_) => self.problem(key, "is too small", expected),
            None => self.problem(key, "is not a size", expected),
        }
        None
    }

    /// A span of time as text with a unit: `"90s"`, `"30m"`, `"36h"`, `"7d"`, `"2w"`.
    pub(super) fn span(&self, key: &'static str, least: Duration, expected: &str) -> Option<Duration> {
        let item = self.get(key)?;
        let Some(text) = item.as_str() else {
            self.wrong_type(key, item, expected);
            return None;
        };
        match span_of(text) {
            Some(span) if span >= least => return Some(span),
            Some(_) => self.problem(key, "is too short", expected),
            None => self.problem(key, format!("`{text}` is not a span of time"), expected),
        }
        None
    }

    /// An array of texts, none of them empty. `None` when absent or partly unreadable.
    pub(super) fn texts(&self, key: &'static str, expected: &str) -> Option<Found<Vec<String>>> {
        let item = self.get(key)?;
        let Some(array) = item.as_array() else {
            self.wrong_type(key, item, expected);
            return None;
        };
        let mut texts = Vec::with_capacity(array.len());
        for (index, value) in array.iter().enumerate() {
            let line = value.span().map(|span| self.source.line_of(span.start)).or_else(|| self.line_of_key(key));
            match value.as_str() {
                Some(text) if !text.is_empty() => texts.push(text.to_owned()),
                Some(_) => self.report(line, key, format!("item {} is empty", index + 1), expected, None),
                None => {
                    let finding = format!("item {} is {}", index + 1, kind_of_value(value));
                    self.report(line, key, finding, expected, None);
                }
            }
        }
        (texts.len() == array.len()).then(|| Found { value: texts, line: self.line_of_key(key) })
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str) -> Option<TableReader<'a>> {
        let item = self.get(key)?;
        let Some(table) = item.as_table_like() else {
            self.wrong_type(key, item, &format!("a table, `[{}]`", self.path_of(key)));
            return None;
        };
        Some(self.child(key, table, self.line_of_item(key, item)))
    }

    /// The `[[key]]` tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<TableReader<'a>> {
        let Some(item) = self.get(key) else { return Vec::new() };
        if let Some(array) = item.as_array_of_tables() {
            let child = |table: &'a Table| {
                let line = table.span().map(|span| self.source.line_of(span.start));
                self.child(key, table, line)
            };
            return array.iter().map(child).collect();
        }
        self.wrong_type(key, item, &format!("`[[{}]]`, one for each", self.path_of(key)));
        Vec::new()
    }

    fn line_of_item(&self, key: &str, item: &Item) -> Option<usize> {
        item.span().map(|span| self.source.line_of(span.start)).or_else(|| self.line_of_key(key))
    }

    /// The value of any key as text, numbers and booleans included; used where the keys are the user's own.
    pub(super) fn any_text(&self, key: &str) -> Option<String> {
        let item = self.table.get(key)?;
        let expected = "a text, a number or a boolean";
        match item.as_value() {
            Some(Value::String(text)) => Some(text.value().clone()),
            Some(Value::Integer(number)) => Some(number.value().to_string()),
            Some(Value::Float(number)) => Some(number.value().to_string()),
            Some(Value::Boolean(boolean)) => Some(boolean.value().to_string()),
            _ => {
                self.wrong_type(key, item, expected);
                None
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for key in self.keys() {
            if known.contains(&key) {
                continue;
            }
            let near = nearest(key, known.iter().copied());
            let mut names: Vec<&str> = known.to_vec();
            names.sort_unstable();
            names.dedup();
            let expected = format!("one of {}", names.join(", "));
            self.report(self.line_of_key(key), key, "unknown key".to_owned(), &expected, near);
        }
    }
}

fn span_of(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].trim_end().parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

/// The kind of a value in words.
fn kind_of(item: &Item) -> &'static str {
    match item {
        Item::None => "absent",
        Item::Value(value) => kind_of_value(value),
        Item::Table(_) => "a table",
        Item::ArrayOfTables(_) => "an array of tables",
    }
}

fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a decimal number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::InlineTable(_) => "a table",
    }
}
