//! Table contracts: what the team states about a table that the database can't say.

/// One `schemas/*.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// The source it is for; every source when `None`.
    pub source: Option<String>,
    pub table: String,
    /// Merge key, only where the source has none.
    pub key: Vec<String>,
    pub partition_by: Vec<String>,
    /// Columns that never reach the lake.
    pub exclude: Vec<String>,
    pub owners: Vec<String>,
    pub description: Option<String>,
}

/// All contracts of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Contracts {
    contracts: Vec<Contract>,
}

impl Contracts {
    pub fn new(contracts: Vec<Contract>) -> Self {
        Self { contracts }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Contract> {
        self.contracts.iter()
    }

    /// The contract of a table: one that names the source goes before one that does not.
    pub fn get(&self, source: &str, table: &str) -> Option<&Contract> {
        let matching = |contract: &&Contract| contract.table == table;
        self.contracts
            .iter()
            .filter(matching)
            .find(|contract| contract.source.as_deref() == Some(source))
            .or_else(|| self.contracts.iter().filter(matching).find(|contract| contract.source.is_none()))
    }
}
