//! Which segments of a folder are in force, and which data files they cover.
//!
//! A file is covered when every row of it has an entry that was not deleted by then (`deleted`): so it is covered as long
//! as at least those rows are deleted, and a foreign RESTORE that brings rows back is noticed. Paths may change under a file
//! (a splice leaves rows at their places); segments know files by number only.
//!
//! On disk: a checksum of all that follows; the length of the head; the head, JSON; deleted rows as roaring bitmaps.

use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::super::locator::FileId;

/// What the layout of manifests and segments, and the making of hashes, is called. Another one is not read.
const VERSION: u32 = 1;
const SUM_BYTES: usize = 16;
const LENGTH_BYTES: usize = 8;

/// See the module text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    /// Of the table whose keys these are.
    pub identity: u128,
    /// Shared by all segments of one index.
    pub lineage: u128,
    /// Of the hashes. Secret.
    pub seed: u64,
    pub next_file: FileId,
    pub segments: Vec<u128>,
    pub files: Vec<CoveredFile>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct CoveredFile {
    pub id: FileId,
    pub path: String,
    pub rows: u64,
    pub deleted: RoaringTreemap,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    identity: String,
    lineage: String,
    seed: String,
    next_file: FileId,
    segments: Vec<String>,
    files: Vec<HeadFile>,
}

#[derive(Serialize, Deserialize)]
struct HeadFile {
    id: FileId,
    path: String,
    rows: u64,
    deleted_bytes: usize,
}

fn hex(number: u128) -> String {
    format!("{number:032x}")
}

impl Manifest {
    pub fn to_bytes(&self) -> Result<Vec<u8>, std::io::Error> {
        let mut deleted = Vec::new();
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let start = deleted.len();
            file.deleted.serialize_into(&mut deleted)?;
            let deleted_bytes = deleted.len() - start;
            files.push(HeadFile { id: file.id, path: file.path.clone(), rows: file.rows, deleted_bytes });
        }
        let head = serde_json::to_vec(&Head {
            version: VERSION,
            identity: hex(self.identity),
            lineage: hex(self.lineage),
            seed: hex(self.seed.into()),
            next_file: self.next_file,
            segments: self.segments.iter().map(|id| hex(*id)).collect(),
            files,
        })?;
        let mut bytes = vec![0; SUM_BYTES];
        bytes.extend((head.len() as u64).to_be_bytes());
        bytes.extend(head);
        bytes.append(&mut deleted);
        let sum = XxHash3_128::oneshot(&bytes[SUM_BYTES..]);
        bytes[..SUM_BYTES].copy_from_slice(&sum.to_be_bytes());
        Ok(bytes)
    }

    /// `None` where these bytes are not a whole manifest of this version.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (sum, told) = bytes.split_at_checked(SUM_BYTES)?;
        if sum != XxHash3_128::oneshot(told).to_be_bytes() {
            return None;
        }
        let (length, rest) = told.split_at_checked(LENGTH_BYTES)?;
        let length = length.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        let (head, mut rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        if head.version != VERSION {
            return None;
        }
        let number = |text: &String| u128::from_str_radix(text, 16).ok();
        let mut files = Vec::with_capacity(head.files.len());
        for file in head.files {
            let (deleted, after) = rest.split_at_checked(file.deleted_bytes)?;
            rest = after;
            let deleted = RoaringTreemap::deserialize_from(deleted).ok()?;
            files.push(CoveredFile { id: file.id, path: file.path, rows: file.rows, deleted });
        }
        Some(Self {
            identity: number(&head.identity)?,
            lineage: number(&head.lineage)?,
            seed: u64::try_from(number(&head.seed)?).ok()?,
            next_file: head.next_file,
            segments: head.segments.iter().map(number).collect::<Option<_>>()?,
            files,
        })
    }
}
