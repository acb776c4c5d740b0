//! What can be wrong with a configuration.
//!
//! A problem names file, line and key, says what was found and what was expected. It never holds a value that could be
//! a secret: no url, no password, no storage option.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// One finding in config.toml or in a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    #[serde(serialize_with = "as_text")]
    pub file: PathBuf,
    /// Counted from 1; `None` when it concerns the file as a whole.
    pub line: Option<usize>,
    /// `commit.rows_max`; empty when it concerns the file as a whole.
    pub key: String,
    pub finding: String,
    pub expected: Option<String>,
    /// The nearest valid word, when one is near.
    pub nearest: Option<String>,
}

fn as_text<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.display().to_string())
}

impl fmt::Display for ConfigProblem {
    /// `file:line: key: what is wrong; expected …; did you mean …?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.finding)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

/// Every problem of config.toml and of all contracts, in the order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The one of `known` that `word` was most likely meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.84)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["interval_seconds", "rows_max", "bytes_max"];
        assert_eq!(nearest("row_max", known).as_deref(), Some("rows_max"));
        assert_eq!(nearest("intervall_second", known).as_deref(), Some("interval_seconds"));
        assert_eq!(nearest("colour", known), None);
    }
}
