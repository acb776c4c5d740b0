//! What the source's rows showed of a table without a key: how many rows of each content there are.
//!
//! Equal rows can't be told apart, but counted. What was said of rows with a key holds of contents: one of which no row came or
//! went between two versions had as many rows at every position between, and the source was read at a moment between.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use roaring::RoaringTreemap;

use super::Kind;
use super::sight::{Found, Open};
use crate::lake::{self, FileId, KeyHash, KeyMap, KeySet, Picture, RowAddress, Since};

/// Such a table comes in one chunk.
const CHUNK: u32 = 0;

/// See the module text.
pub struct Bags {
    /// Of the picture: rows, and which of them are gone.
    files: BTreeMap<FileId, (u32, RoaringTreemap)>,
    counts: KeyMap<Counts>,
    /// What is looked for; everything, when `None`.
    wanted: Option<Open>,
}

/// Rows of one content.
#[derive(Clone, Copy, Default)]
struct Counts {
    held: u32,
    seen: u32,
    /// What commits call it.
    name: u64,
}

impl Bags {
    pub fn new(picture: &Picture, wanted: Option<Open>) -> Self {
        let bags = Self { files: picture.files(), counts: KeyMap::default(), wanted };
        let mut counts = KeyMap::<Counts>::default();
        for (address, key) in bags.held(picture) {
            let counts = counts.entry(key).or_default();
            counts.held += 1;
            counts.name = picture.name(address).unwrap_or(0);
        }
        Self { counts, ..bags }
    }

    /// The rows of the picture that count, as it was at first.
    fn held<'a>(&'a self, picture: &'a Picture) -> impl Iterator<Item = (RowAddress, KeyHash)> + 'a {
        self.files.iter().flat_map(move |(&file, (rows, deleted))| {
            (0..*rows).filter(|row| !deleted.contains(u64::from(*row))).filter_map(move |row| {
                let address = RowAddress { file, row };
                let key = picture.row(address)?.key;
                self.is_wanted(key).then_some((address, key))
            })
        })
    }

    fn is_wanted(&self, key: KeyHash) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains_key(&key))
    }

    /// Rows of the source, with the columns of the lake.
    pub fn take(&mut self, picture: &Picture, rows: &RecordBatch) -> Result<(), lake::Error> {
        for (seen, name) in picture.prints(rows)?.into_iter().zip(picture.names(rows)?) {
            if self.is_wanted(seen.key) {
                let counts = self.counts.entry(seen.key).or_default();
                counts.seen += 1;
                counts.name = name;
            }
        }
        Ok(())
    }

    /// Nothing was seen yet: the source is read once more.
    pub fn forget(&mut self) {
        self.counts.retain(|_, counts| {
            counts.seen = 0;
            counts.held > 0
        });
    }

    /// How many rows were more or fewer than the picture has.
    pub fn different(&self) -> u64 {
        self.counts.values().map(|counts| u64::from(counts.held.abs_diff(counts.seen))).sum()
    }

    /// What is proven, and what is open still: see [`super::sight::Sight::judge`].
    pub fn judge(self, picture: &Picture, since: &Since, partial: bool) -> (Vec<Found>, Open) {
        let gone = self.held(picture).filter(|(address, _)| !picture.is_live(*address));
        let went: KeySet = gone.map(|(_, key)| key).collect();
        let (mut found, mut open) = (Vec::new(), Open::default());
        // Of contents that the lake has too many of.
        let mut extra = KeyMap::<u32>::default();
        for (&key, counts) in &self.counts {
            // All rows of a content meet a condition or none does.
            if partial && counts.seen == 0 {
                continue;
            }
            // What was equal and may have been otherwise for a moment is looked at again like the rest: by chance it is equal, too.
            if went.contains(&key) || since.may_have_come(key, counts.name) {
                open.insert(key, Some(CHUNK));
                continue;
            }
            let lacking = counts.seen.saturating_sub(counts.held);
            let missing =
                Found { kind: Kind::Missing, key, chunk: Some(CHUNK), name: Some(counts.name), address: None };
            found.extend(std::iter::repeat_n(missing, lacking as usize));
            if counts.held > counts.seen {
                extra.insert(key, counts.held - counts.seen);
            }
        }
        for (address, key) in self.held(picture) {
            let Some(left) = extra.get_mut(&key).filter(|left| **left > 0) else { continue };
            *left -= 1;
            found.push(Found { kind: Kind::Extra, key, chunk: None, name: None, address: Some(address) });
        }
        (found, open)
    }
}
