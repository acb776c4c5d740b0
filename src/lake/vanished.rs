//! Keys that came and went within one commit: no version of the table shows that they were ever there. In a table without a
//! key a row's content is its key, and it is here if there were more or fewer such rows for a moment.
//!
//! A commit's note tells of them for whoever compares the table with its source: a row that the source had for a moment
//! in between is not missing. A key is called by a hash that is the same in every process. Two keys of one name do no
//! harm: one of them is looked at once more.

use serde::{Deserialize, Serialize};

/// Names that a note has room for; of more it tells their number only.
pub const NAMES_MAX: usize = 256;

/// See the module text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vanished {
    /// How many, as far as that is known.
    pub keys: u64,
    /// All of them, in hexadecimal; or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

impl Vanished {
    pub fn unnamed(keys: u64) -> Self {
        Self { keys, names: Vec::new() }
    }

    pub fn named(names: &[u64]) -> Self {
        Self { keys: names.len() as u64, names: names.iter().map(|name| format!("{name:016x}")).collect() }
    }

    /// Whether every one has its name here.
    pub fn is_named(&self) -> bool {
        self.names.len() as u64 >= self.keys && self.names().count() == self.names.len()
    }

    pub fn names(&self) -> impl Iterator<Item = u64> + '_ {
        self.names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_way_through_the_log() {
        let named = Vanished::named(&[7, u64::MAX]);
        let text = serde_json::to_string(&named).expect("writes");
        let back: Vanished = serde_json::from_str(&text).expect("reads");
        assert_eq!(back.names().collect::<Vec<_>>(), [7, u64::MAX]);
        assert!(back.is_named() && !Vanished::unnamed(3).is_named());
        let damaged: Vanished = serde_json::from_str(&text.replace("0007", "zzzz")).expect("reads");
        assert!(!damaged.is_named());
    }
}
