//! Which files of a table are worth writing anew, from what the log says of them; nothing is read.
//!
//! Small files are merged by tiers: as soon as there are [`FAN`] of about one size, they and all smaller ones become one. So
//! a row is written anew once a tier, about as often as the logarithm of the sizes between its first file and a full one,
//! and not with every few commits. Files of half the target size and more are left alone, unless many of their rows are
//! dead, or they have deletion vectors that readers of the table are not to need.

use std::collections::BTreeMap;

use deltalake::kernel::Add;

use super::super::super::data_file::{self, DataFile};
use super::super::super::locator::FileId;
use crate::config::WriteMode;

/// Files of a tier that are merged.
const FAN: usize = 8;

/// Tiers below half the target size; each is so many times as large as the one before.
const TIERS: u32 = 4;
const TIER_GROWTH: f64 = 8.0;

/// The share of dead rows from which on a file is written anew: routinely, and when somebody asks for it.
const DEAD_SHARE: f64 = 0.25;
const DEAD_SHARE_ASKED: f64 = 0.1;

/// Files below this part of the target are not written anew for their dead rows alone: that would go on with every batch.
const DEAD_MATTERS: f64 = 1.0 / 16.0;

/// What one job reads at most, as full files, and in bytes.
const JOB_MAX: f64 = 8.0;
const JOB_BYTES_MAX: u64 = 1 << 30;

/// How eagerly files are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// Where it pays in the long run.
    Routine,
    /// Somebody asks: whatever is small, and whatever has more than a few dead rows.
    Asked,
}

/// What files are to come to, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionTerms {
    pub target_bytes: u64,
    /// What a job may hold in memory: half of it for keys, the rest for rows that are read and written.
    pub memory_bytes: u64,
    pub eagerness: Eagerness,
}

impl CompactionTerms {
    /// Rows of a job: of each, 16 bytes are kept.
    fn job_rows(&self) -> u64 {
        (self.memory_bytes / 32).clamp(1 << 16, 8 << 20)
    }

    /// Rows that make a file full, however small they are.
    fn full_rows(&self) -> u64 {
        self.job_rows() / 2
    }
}

/// A file as the plan sees it.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub id: FileId,
    pub add: &'a Add,
    pub rows: u64,
    pub dead: u64,
    /// It has a deletion vector, and the table is to have none.
    pub unwanted: bool,
}

impl<'a> Candidate<'a> {
    pub fn of(id: FileId, file: &'a DataFile, mode: WriteMode) -> Self {
        Self { id, add: &file.add, rows: file.rows, dead: file.deleted.len(), unwanted: is_unwanted(&file.add, mode) }
    }

    /// Of a file of which nothing but the log has been read.
    pub fn of_log(id: FileId, add: &'a Add, mode: WriteMode) -> Option<Self> {
        let rows = data_file::record_count(add)?;
        let dead = rows.saturating_sub(data_file::live_rows_told(add));
        Some(Self { id, add, rows, dead, unwanted: is_unwanted(add, mode) })
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.add.size).unwrap_or(0)
    }

    fn dead_share(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.dead as f64 / self.rows as f64 }
    }

    /// How full the file is, dead rows counted.
    fn weight(&self, terms: &CompactionTerms) -> f64 {
        let (bytes, rows) = (self.bytes() as f64, self.rows as f64);
        (bytes / terms.target_bytes.max(1) as f64).max(rows / terms.full_rows() as f64)
    }

    /// How full a file of its live rows would be.
    fn live_weight(&self, terms: &CompactionTerms) -> f64 {
        self.weight(terms) * (1.0 - self.dead_share())
    }
}

/// Files of one partition that become others together.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CompactionGroup {
    /// The values that the partition has, as the log has them; empty for a table without partitions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Option<String>>,
    #[serde(skip)]
    pub(super) ids: Vec<FileId>,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    pub dead_rows: u64,
}

impl CompactionGroup {
    fn take(&mut self, file: &Candidate<'_>) {
        self.ids.push(file.id);
        self.files += 1;
        self.bytes += file.bytes();
        self.rows += file.rows;
        self.dead_rows += file.dead;
    }
}

/// What is worth writing anew.
pub(super) fn plan(files: &[Candidate<'_>], terms: &CompactionTerms) -> Vec<CompactionGroup> {
    let mut partitions: BTreeMap<BTreeMap<&str, Option<&str>>, Vec<&Candidate<'_>>> = BTreeMap::new();
    for file in files {
        let values = file.add.partition_values.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        partitions.entry(values).or_default().push(file);
    }
    let mut groups = Vec::new();
    for (values, files) in partitions {
        let partition: BTreeMap<String, Option<String>> =
            values.into_iter().map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect();
        for chosen in split(choose(&files, terms), terms) {
            let mut group = CompactionGroup { partition: partition.clone(), ..CompactionGroup::default() };
            chosen.iter().for_each(|file| group.take(file));
            groups.push(group);
        }
    }
    groups
}

/// As many of the groups as one job takes; at least one.
pub(super) fn one_job(groups: Vec<CompactionGroup>, terms: &CompactionTerms) -> Vec<CompactionGroup> {
    let (mut bytes, mut rows) = (0, 0);
    let mut job = Vec::new();
    for group in groups {
        bytes += group.bytes;
        rows += group.rows - group.dead_rows;
        if !job.is_empty() && (bytes > JOB_BYTES_MAX || rows > terms.job_rows()) {
            break;
        }
        job.push(group);
    }
    job
}

fn is_unwanted(add: &Add, mode: WriteMode) -> bool {
    mode == WriteMode::CopyOnWrite && add.deletion_vector.is_some()
}

/// Whether the file is worth writing anew alone.
fn is_due(file: &Candidate<'_>, terms: &CompactionTerms) -> bool {
    file.unwanted || is_dead_heavy(file, terms)
}

fn is_dead_heavy(file: &Candidate<'_>, terms: &CompactionTerms) -> bool {
    match terms.eagerness {
        Eagerness::Routine => file.dead_share() > DEAD_SHARE && file.weight(terms) >= DEAD_MATTERS,
        Eagerness::Asked => file.dead_share() > DEAD_SHARE_ASKED,
    }
}

/// The tier of a small file, or `None` for one that is not.
fn tier(file: &Candidate<'_>, terms: &CompactionTerms) -> Option<u32> {
    let weight = file.live_weight(terms);
    let bound = |tier: u32| 0.5 / TIER_GROWTH.powi((TIERS - 1 - tier) as i32);
    (0..TIERS).find(|&tier| weight < bound(tier))
}

/// The files of one partition to write anew, oldest first.
fn choose<'f, 'a>(files: &[&'f Candidate<'a>], terms: &CompactionTerms) -> Vec<&'f Candidate<'a>> {
    let tiers: Vec<Option<u32>> = files.iter().map(|file| tier(file, terms)).collect();
    let of_tier = |wanted: u32| tiers.iter().filter(|tier| **tier == Some(wanted)).count();
    let merged_up_to = match terms.eagerness {
        Eagerness::Routine => (0..TIERS).rev().find(|&tier| of_tier(tier) >= FAN),
        Eagerness::Asked => (tiers.iter().flatten().count() > 1).then_some(TIERS - 1),
    };
    let merged = |tier: Option<u32>| tier.is_some_and(|tier| merged_up_to.is_some_and(|up_to| tier <= up_to));
    let chosen = files.iter().zip(&tiers);
    let chosen = chosen.filter(|(file, tier)| merged(**tier) || is_due(file, terms));
    let mut chosen: Vec<&'f Candidate<'a>> = chosen.map(|(file, _)| *file).collect();
    chosen.sort_unstable_by_key(|file| file.id);
    chosen
}

/// Cuts what was chosen into groups that one job can take.
fn split<'f, 'a>(chosen: Vec<&'f Candidate<'a>>, terms: &CompactionTerms) -> Vec<Vec<&'f Candidate<'a>>> {
    let mut groups: Vec<Vec<&'f Candidate<'a>>> = Vec::new();
    let (mut weight, mut bytes, mut rows) = (0.0, 0, 0);
    for file in chosen {
        weight += file.live_weight(terms);
        bytes += file.bytes();
        rows += file.rows - file.dead;
        match groups.last_mut() {
            Some(group) if weight <= JOB_MAX && bytes <= JOB_BYTES_MAX && rows <= terms.job_rows() => group.push(file),
            _ => {
                groups.push(vec![file]);
                (weight, bytes, rows) = (file.live_weight(terms), file.bytes(), file.rows - file.dead);
            }
        }
    }
    // A file alone is written anew for its dead rows only.
    groups.retain(|group| group.len() > 1 || group.iter().all(|file| is_due(file, terms)));
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TARGET: u64 = 1 << 20;

    fn terms(eagerness: Eagerness) -> CompactionTerms {
        CompactionTerms { target_bytes: TARGET, memory_bytes: 256 << 20, eagerness }
    }

    fn add(bytes: u64, partition: Option<&str>) -> Add {
        let values = partition.map(|value| ("p".to_owned(), Some(value.to_owned())));
        Add { size: bytes as i64, partition_values: values.into_iter().collect::<HashMap<_, _>>(), ..Add::default() }
    }

    fn planned(files: &[(u64, u64, u64)], eagerness: Eagerness) -> Vec<Vec<FileId>> {
        let adds: Vec<Add> = files.iter().map(|(bytes, ..)| add(*bytes, None)).collect();
        let candidates: Vec<Candidate<'_>> = (0..)
            .zip(&adds)
            .zip(files)
            .map(|((id, add), &(_, rows, dead))| Candidate { id, add, rows, dead, unwanted: false })
            .collect();
        plan(&candidates, &terms(eagerness)).into_iter().map(|group| group.ids).collect()
    }

    #[test]
    fn few_small_files_and_full_ones_are_left_alone() {
        assert!(planned(&[(1000, 10, 0); 7], Eagerness::Routine).is_empty());
        assert!(planned(&[(TARGET / 2, 10, 0); 40], Eagerness::Routine).is_empty());
        assert!(planned(&[], Eagerness::Asked).is_empty());
        assert!(planned(&[(1000, 10, 0)], Eagerness::Asked).is_empty(), "one file stays one");
        assert_eq!(planned(&[(1000, 10, 0); 2], Eagerness::Asked), [[0, 1]]);
    }

    #[test]
    fn eight_of_a_size_take_the_smaller_ones_with_them_and_no_larger_one() {
        let mut files = vec![(1000, 10, 0); 8];
        assert_eq!(planned(&files, Eagerness::Routine), [(0..8).collect::<Vec<FileId>>()]);
        files.insert(3, (TARGET / 4, 10, 0));
        assert_eq!(planned(&files, Eagerness::Routine), [[0, 1, 2, 4, 5, 6, 7, 8]]);
        let mut files = vec![(TARGET / 4, 10, 0); 8];
        files.push((1000, 10, 0));
        let all: Vec<FileId> = planned(&files, Eagerness::Routine).concat();
        assert_eq!(all, (0..9).collect::<Vec<FileId>>());
    }

    #[test]
    fn dead_rows_are_a_reason_where_they_weigh_something() {
        assert_eq!(planned(&[(TARGET, 100, 26), (TARGET, 100, 25)], Eagerness::Routine), [[0]]);
        assert!(planned(&[(TARGET / 20, 100, 90)], Eagerness::Routine).is_empty(), "too small to bother");
        assert_eq!(planned(&[(TARGET / 20, 100, 90)], Eagerness::Asked), [[0]]);
    }

    #[test]
    fn a_vector_that_readers_are_not_to_need_is_a_reason_by_itself() {
        let (full, small) = (add(TARGET, None), add(1000, None));
        let plan = |unwanted| {
            let candidate = |id, add| Candidate { id, add, rows: 100, dead: 1, unwanted };
            let groups = plan(&[candidate(0, &full), candidate(1, &small)], &terms(Eagerness::Routine));
            groups.into_iter().map(|group| group.ids).collect::<Vec<_>>()
        };
        assert_eq!((plan(true), plan(false)), (vec![vec![0, 1]], vec![]));
    }

    #[test]
    fn narrow_rows_fill_a_file_by_their_number() {
        assert!(planned(&[(1000, 4 << 20, 0); 20], Eagerness::Routine).is_empty());
    }

    #[test]
    fn partitions_stay_apart_and_jobs_are_bounded() {
        let adds: Vec<Add> = (0..16).map(|n| add(1000, Some(if n % 2 == 0 { "a" } else { "b" }))).collect();
        let candidates: Vec<Candidate<'_>> =
            (0..).zip(&adds).map(|(id, add)| Candidate { id, add, rows: 10, dead: 1, unwanted: false }).collect();
        let groups = plan(&candidates, &terms(Eagerness::Routine));
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].partition["p"].as_deref(), Some("a"));
        assert_eq!((groups[0].files, groups[0].rows, groups[0].dead_rows, groups[0].bytes), (8, 80, 8, 8000));
        assert_eq!(groups[1].ids, [1, 3, 5, 7, 9, 11, 13, 15]);
        // Forty files of a quarter: eight full ones at a time.
        let groups = planned(&[(TARGET / 4, 10, 0); 40], Eagerness::Routine);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [32, 8]);
        let group = |rows| CompactionGroup { rows, ..CompactionGroup::default() };
        let terms = terms(Eagerness::Routine);
        let most = terms.job_rows();
        assert_eq!(one_job(vec![group(most), group(1)], &terms).len(), 1);
        assert_eq!(one_job(vec![group(most + 1)], &terms).len(), 1);
        assert_eq!(one_job(vec![group(1), group(1)], &terms).len(), 2);
    }

    /// A row is written anew about once a tier, however many commits there are.
    #[test]
    fn rows_are_written_anew_a_logarithm_of_times() {
        const COMMIT: u64 = TARGET / 2000;
        let (mut files, mut written, commits): (Vec<u64>, u64, u64) = (Vec::new(), 0, 20_000);
        let mut most = 0;
        for _ in 0..commits {
            files.push(COMMIT);
            let adds: Vec<Add> = files.iter().map(|bytes| add(*bytes, None)).collect();
            let candidates: Vec<Candidate<'_>> =
                (0..).zip(&adds).map(|(id, add)| Candidate { id, add, rows: 10, dead: 0, unwanted: false }).collect();
            for group in plan(&candidates, &terms(Eagerness::Routine)) {
                let mut left = group.bytes;
                written += left;
                let mut kept: Vec<u64> =
                    (0..).zip(&files).filter(|(id, _)| !group.ids.contains(id)).map(|(_, bytes)| *bytes).collect();
                while left > 0 {
                    let bytes = left.min(TARGET);
                    kept.push(bytes);
                    left -= bytes;
                }
                files = kept;
            }
            most = most.max(files.iter().filter(|bytes| **bytes < TARGET / 2).count());
        }
        let times = written as f64 / (COMMIT * commits) as f64;
        assert!(times < 6.0, "each row is written anew {times} times");
        assert!(most <= 30, "{most} small files at a time");
    }
}
