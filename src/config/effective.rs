//! What of a configuration concerns one source: two that are equal follow it alike, so that a source whose part of an
//! edited configuration is the same is not disturbed.

use super::{
    ChangePolicies, Commit, Config, Contract, Maintenance, Memory, NoticeChannel, Notices, Snapshot, SourceConfig,
};

/// See the module text.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    source: SourceConfig,
    /// Of the tables that the source selects.
    contracts: Vec<Contract>,
    commit: Commit,
    memory: Memory,
    snapshot: Snapshot,
    maintenance: Maintenance,
    schema_changes: ChangePolicies,
    notices: Notices,
    channels: Vec<NoticeChannel>,
}

impl Effective {
    pub fn of(config: &Config, source: &SourceConfig) -> Self {
        let concerns = |contract: &&Contract| {
            contract.source.as_ref().is_none_or(|name| *name == source.name) && source.tables.selects(&contract.table)
        };
        Self {
            source: source.clone(),
            contracts: config.contracts.iter().filter(concerns).cloned().collect(),
            commit: config.commit.clone(),
            memory: config.memory.clone(),
            snapshot: config.snapshot.clone(),
            maintenance: config.maintenance.clone(),
            schema_changes: config.schema_changes.clone(),
            notices: config.notices.clone(),
            channels: config.channels.clone(),
        }
    }

    /// What differs, in the words of config.toml; for the log.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut note = |differs: bool, what: &str| {
            if differs {
                differences.push(what.to_owned());
            }
        };
        note(self.source.tables != other.source.tables, "tables");
        let tables = self.source.tables.clone();
        note(self.source != SourceConfig { tables, ..other.source.clone() }, "connection");
        note(self.commit != other.commit, "commit");
        note(self.memory != other.memory, "memory");
        note(self.snapshot != other.snapshot, "snapshot");
        note(self.maintenance != other.maintenance, "maintenance");
        note(self.schema_changes != other.schema_changes, "schema_changes");
        note(self.notices != other.notices || self.channels != other.channels, "notices");
        let only_in = |ours: &[Contract], theirs: &[Contract]| -> Vec<String> {
            ours.iter().filter(|contract| !theirs.contains(contract)).map(|contract| contract.table.clone()).collect()
        };
        let mut tables = only_in(&self.contracts, &other.contracts);
        tables.extend(only_in(&other.contracts, &self.contracts));
        tables.sort_unstable();
        tables.dedup();
        differences.extend(tables.into_iter().map(|table| format!("contract of {table}")));
        differences
    }
}
