//! Small files and files with many dead rows become full ones, beside the commits.
//!
//! Three parts: a *plan* says which files ([`plan`](self::plan)); a *job* reads and writes rows in another task and owns all it
//! needs ([`Compaction`]); a *merge* puts the new files in the place of the old ones with one commit that changes no row.
//! Batches go on meanwhile. What they deleted in the old files since the job began is dead in the new ones from the start, by
//! deletion vectors; where an old file is gone or the table has another shape, the job is void. Copy-on-write, files that
//! batches have touched are given up.

mod job;
mod merge;
mod plan;

use super::super::Error;
use super::super::data_file::Roll;
use super::super::store::Lake;
use super::{Place, Table, find};
use crate::schema::TableName;
use job::Input;
pub use job::{Compacted, Compaction};
pub use merge::CompactionMerged;
use plan::{Candidate, plan};
pub use plan::{CompactionGroup, CompactionTerms, Eagerness};

impl Table {
    /// The files worth writing anew; nothing is read.
    pub fn worth_compacting(&self, terms: &CompactionTerms) -> Vec<CompactionGroup> {
        let mode = self.terms.mode;
        let files: Vec<Candidate<'_>> = self.files.iter().map(|(&id, file)| Candidate::of(id, file, mode)).collect();
        plan(&files, terms)
    }

    /// A job, if one is worth it now. Not for a table that is loading or out of sight, nor while rows are put right.
    pub fn begin_compaction(&self, terms: &CompactionTerms) -> Option<Compaction> {
        if !self.may_be_compacted() {
            return None;
        }
        let groups = plan::one_job(self.worth_compacting(terms), terms);
        if groups.is_empty() {
            return None;
        }
        let inputs = |group: &CompactionGroup| {
            let files = group.ids.iter().filter_map(|id| self.files.get(id));
            files
                .map(|file| Input { add: file.add.clone(), rows: file.rows, deleted: file.deleted.clone() })
                .collect::<Vec<_>>()
        };
        Some(Compaction {
            shape: self.shape.clone(),
            hasher: self.hasher.clone(),
            ticket: self.ticket(),
            log_store: self.log_store.clone(),
            roll: Roll::to_size(terms.target_bytes, terms.memory_bytes),
            groups: groups.into_iter().map(|group| (group.clone(), inputs(&group))).collect(),
        })
    }

    /// [`Table::worth_compacting`] for whoever has not opened the table: by what its log says. `None` where there is none.
    pub async fn compaction_plan(
        lake: &Lake,
        source: &str,
        name: &TableName,
        terms: &CompactionTerms,
    ) -> Result<Option<Vec<CompactionGroup>>, Error> {
        let found = find(lake, source, name, &lake.table_url(source, name)).await?;
        let mode = lake.write_terms(source, name).mode;
        Ok(found.map(|(_, loaded)| {
            let files: Vec<Candidate<'_>> =
                (0..).zip(&loaded.adds).filter_map(|(id, add)| Candidate::of_log(id, add, mode)).collect();
            plan(&files, terms)
        }))
    }

    fn may_be_compacted(&self) -> bool {
        self.place == Place::Open && self.loading.is_none() && self.watch.is_none()
    }
}
