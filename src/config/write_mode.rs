//! How changes get into the data files of a table.

use std::sync::Arc;

use super::reader::TableReader;
use super::{Config, Contracts};

const EXPECTED: &str = "\"merge_on_read\" or \"copy_on_write\"";
const WORDS: [(&str, WriteMode); 2] =
    [("merge_on_read", WriteMode::MergeOnRead), ("copy_on_write", WriteMode::CopyOnWrite)];

/// What becomes of a data file of which rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// It stays, with a deletion vector that says which.
    #[default]
    MergeOnRead,
    /// Its other rows are written anew, for readers without deletion vectors.
    CopyOnWrite,
}

/// How the files of one table are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteTerms {
    pub mode: WriteMode,
    /// What files come to where many rows are written anew.
    pub target_file_bytes: u64,
}

/// The terms of every table of a configuration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AllWriteTerms {
    contracts: Arc<Contracts>,
    /// Of tables whose contracts say nothing.
    others: WriteTerms,
}

impl AllWriteTerms {
    pub fn of(&self, source: &str, table: &str) -> WriteTerms {
        let (contracts, others) = (&self.contracts, self.others);
        let target_file_bytes = contracts.stated(source, table, |contract| contract.target_file_bytes);
        WriteTerms {
            mode: contracts.stated(source, table, |contract| contract.write_mode).unwrap_or(others.mode),
            target_file_bytes: target_file_bytes.unwrap_or(others.target_file_bytes),
        }
    }
}

impl From<WriteTerms> for AllWriteTerms {
    /// The same for all tables.
    fn from(terms: WriteTerms) -> Self {
        Self { contracts: Arc::default(), others: terms }
    }
}

impl Config {
    pub fn write_terms(&self) -> AllWriteTerms {
        let others = WriteTerms { mode: self.lake.write_mode, target_file_bytes: self.maintenance.target_file_bytes };
        AllWriteTerms { contracts: Arc::new(self.contracts.clone()), others }
    }
}

/// In `[lake]` and in a contract.
pub(super) fn read_write_mode(table: &TableReader) -> Option<WriteMode> {
    table.word("write_mode", EXPECTED, &WORDS)
}
