//! Bits of a session's `sql_mode` that change what a statement means (MySQL manual 7.1.11 "Server SQL Modes"; the numbers are
//! those of sql_class.h and of the log).

use super::ddl::Session;
use super::flavor::Vendor;

/// MariaDB: types mean others, DATE for example.
const ORACLE: u64 = 1 << 9;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;
const STRICT_TRANS_TABLES: u64 = 1 << 21;
const STRICT_ALL_TABLES: u64 = 1 << 22;
pub const STRICT: u64 = STRICT_TRANS_TABLES | STRICT_ALL_TABLES;
const PAD_CHAR_TO_FULL_LENGTH: u64 = 1 << 31;
/// MariaDB: `''` is NULL.
pub const EMPTY_STRING_IS_NULL: u64 = 1 << 32;

/// What becomes of values that don't fit.
pub fn session(sql_mode: u64) -> Session {
    Session { strict: sql_mode & STRICT != 0, pads_char: sql_mode & PAD_CHAR_TO_FULL_LENGTH != 0 }
}

/// Whether the mode may make the statement's words mean others than they do here.
pub fn is_ambiguous(sql_mode: u64, text: &str, vendor: Vendor) -> bool {
    (sql_mode & NO_BACKSLASH_ESCAPES != 0 && text.contains('\\'))
        || (vendor == Vendor::MariaDb && sql_mode & ORACLE != 0)
}

/// The bits of those modes, from the words of `@@sql_mode`.
pub fn of_words(words: &str) -> u64 {
    let bits = [
        ("ORACLE", ORACLE),
        ("NO_BACKSLASH_ESCAPES", NO_BACKSLASH_ESCAPES),
        ("STRICT_TRANS_TABLES", STRICT_TRANS_TABLES),
        ("STRICT_ALL_TABLES", STRICT_ALL_TABLES),
        ("PAD_CHAR_TO_FULL_LENGTH", PAD_CHAR_TO_FULL_LENGTH),
        ("EMPTY_STRING_IS_NULL", EMPTY_STRING_IS_NULL),
    ];
    let has = |name: &str| words.split(',').any(|word| word.trim().eq_ignore_ascii_case(name));
    bits.iter().filter(|(name, _)| has(name)).map(|(_, bit)| bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_the_bits_that_the_log_has() {
        let mode = of_words("ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES");
        assert_eq!(mode, STRICT_TRANS_TABLES | NO_BACKSLASH_ESCAPES);
        assert!(session(mode).strict && !session(0).strict && !session(mode).pads_char);
        assert!(is_ambiguous(mode, "DEFAULT '\\n'", Vendor::MySql) && !is_ambiguous(mode, "x", Vendor::MySql));
    }
}
