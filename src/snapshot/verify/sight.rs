//! What the source's rows showed beside one picture of the lake's table, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use roaring::RoaringTreemap;

use super::Kind;
use crate::lake::{self, FileId, KeyHash, KeyMap, Picture, RowAddress, Since};

/// Rows that are not settled: by key the chunk that each is in, where that is known.
pub type Open = KeyMap<Option<u32>>;

/// Whether the whole table has to be read for some of them.
pub fn needs_all(open: &Open) -> bool {
    open.values().any(Option::is_none)
}

/// The chunks to read for what is open; all of them at first.
pub fn chunks_of(open: Option<&Open>, whole: bool, chunks: usize) -> Vec<u32> {
    match open {
        Some(open) if !whole => open.values().copied().flatten().collect::<BTreeSet<u32>>().into_iter().collect(),
        Some(open) if open.is_empty() => Vec::new(),
        _ => (0..chunks as u32).collect(),
    }
}

/// A difference.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub kind: Kind,
    pub key: KeyHash,
    pub chunk: Option<u32>,
    /// What commits call the key, of a row that the source has.
    pub name: Option<u64>,
    /// Of the lake's row.
    pub address: Option<RowAddress>,
}

/// See the module text.
pub struct Sight {
    /// Of the picture: rows, and which of them are gone.
    files: BTreeMap<FileId, (u32, RoaringTreemap)>,
    /// By file, one number a row; see [`Mark`].
    marks: BTreeMap<FileId, Vec<u32>>,
    /// Rows of the source that the picture does not have: chunk and name.
    lacking: KeyMap<(u32, u64)>,
    /// Of rows that are not as the picture has them: their names.
    unlike: KeyMap<u64>,
    /// What is looked for; everything, when `None`.
    wanted: Option<Open>,
    /// Whether every row of the source was to be seen.
    whole: bool,
}

/// What was seen of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    Seen { chunk: u32, equal: bool },
}

impl Mark {
    fn pack(self) -> u32 {
        match self {
            Self::Unseen => 0,
            Self::Seen { chunk, equal } => (chunk + 1) << 1 | u32::from(equal),
        }
    }

    fn unpack(packed: u32) -> Self {
        match packed >> 1 {
            0 => Self::Unseen,
            chunk => Self::Seen { chunk: chunk - 1, equal: packed & 1 == 1 },
        }
    }

    fn chunk(self) -> Option<u32> {
        match self {
            Self::Unseen => None,
            Self::Seen { chunk, .. } => Some(chunk),
        }
    }
}

impl Sight {
    pub fn new(picture: &Picture, wanted: Option<Open>, whole: bool) -> Self {
        let files = picture.files();
        let marks = files.iter().map(|(&id, (rows, _))| (id, vec![0; *rows as usize])).collect();
        Self { files, marks, lacking: KeyMap::default(), unlike: KeyMap::default(), wanted, whole }
    }

    /// Rows of a chunk, with the columns of the lake.
    pub fn take(&mut self, picture: &Picture, chunk: u32, rows: &RecordBatch) -> Result<(), lake::Error> {
        let mut names: Option<Vec<u64>> = None;
        let mut name_of = |row: usize| -> Result<u64, lake::Error> {
            let names = match &mut names {
                Some(names) => names,
                None => names.insert(picture.names(rows)?),
            };
            Ok(names.get(row).copied().unwrap_or(0))
        };
        for (row, seen) in picture.prints(rows)?.into_iter().enumerate() {
            if self.wanted.as_ref().is_some_and(|wanted| !wanted.contains_key(&seen.key)) {
                continue;
            }
            let address = picture.find(seen.key);
            match address.and_then(|address| Some((address, picture.row(address)?))) {
                Some((address, held)) => {
                    let equal = held.print == seen.print;
                    if equal {
                        self.unlike.remove(&seen.key);
                    } else {
                        self.unlike.insert(seen.key, name_of(row)?);
                    }
                    let mark = Mark::Seen { chunk, equal };
                    if let Some(place) =
                        self.marks.get_mut(&address.file).and_then(|marks| marks.get_mut(address.row as usize))
                    {
                        *place = mark.pack();
                    }
                }
                None => drop(self.lacking.insert(seen.key, (chunk, name_of(row)?))),
            }
        }
        Ok(())
    }

    /// The rows of the picture that count.
    fn held(&self) -> impl Iterator<Item = (RowAddress, Mark)> + '_ {
        self.files.iter().flat_map(|(&file, (rows, deleted))| {
            let marks = self.marks.get(&file).map_or(&[][..], Vec::as_slice);
            (0..*rows)
                .zip(marks)
                .filter(|(row, _)| !deleted.contains(u64::from(*row)))
                .map(move |(row, &mark)| (RowAddress { file, row }, Mark::unpack(mark)))
        })
    }

    /// Whether it would have been seen, had the source had a row of this key.
    fn looked_for(&self, key: KeyHash) -> bool {
        match &self.wanted {
            None => self.whole,
            Some(wanted) => self.whole || wanted.get(&key).is_some_and(Option::is_some),
        }
    }

    fn is_wanted(&self, key: KeyHash) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains_key(&key))
    }

    /// How many rows were not as the picture has them.
    pub fn different(&self, picture: &Picture) -> u64 {
        let held = self.held().filter(|(address, mark)| {
            let Some(row) = picture.row(*address).filter(|row| self.is_wanted(row.key)) else { return false };
            match mark {
                Mark::Unseen => self.looked_for(row.key),
                Mark::Seen { equal, .. } => !equal,
            }
        });
        held.count() as u64 + self.lacking.len() as u64
    }

    /// What is proven, and what is open still. `picture` has moved on since, and `since` says how. `partial`: a row that was
    /// not seen may be there all the same, as it does not meet a condition any more.
    pub fn judge(self, picture: &Picture, since: &Since, partial: bool) -> (Vec<Found>, Open) {
        let mut found = Vec::new();
        let mut open = Open::default();
        let mut rest = self.wanted.clone().unwrap_or_default();
        for (address, mark) in self.held() {
            let Some(row) = picture.row(address).filter(|row| self.is_wanted(row.key)) else { continue };
            let key = row.key;
            let known = self.wanted.as_ref().and_then(|wanted| wanted.get(&key).copied().flatten());
            rest.remove(&key);
            let chunk = mark.chunk().or(known);
            let untouched = picture.is_live(address);
            let name = self.unlike.get(&key).copied();
            let found_as = |kind| Found { kind, key, chunk, name, address: Some(address) };
            match mark {
                Mark::Seen { equal: true, .. } if untouched => {}
                Mark::Seen { .. } if untouched => found.push(found_as(Kind::Differs)),
                Mark::Seen { .. } => {
                    open.insert(key, chunk);
                }
                Mark::Unseen if partial => {}
                Mark::Unseen if self.looked_for(key) && untouched => found.push(found_as(Kind::Extra)),
                // At first only rows that could have been seen are of interest.
                Mark::Unseen if self.looked_for(key) || self.wanted.is_some() => {
                    open.insert(key, chunk);
                }
                Mark::Unseen => {}
            }
        }
        for (&key, &(chunk, name)) in &self.lacking {
            rest.remove(&key);
            if picture.find(key).is_some() || since.may_have_come(key, name) {
                open.insert(key, Some(chunk));
            } else {
                found.push(Found { kind: Kind::Missing, key, chunk: Some(chunk), name: Some(name), address: None });
            }
        }
        // Neither source nor picture had them.
        for (key, chunk) in rest {
            if !partial && (picture.find(key).is_some() || !self.looked_for(key)) {
                open.insert(key, chunk);
            }
        }
        (found, open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_packing() {
        for mark in [
            Mark::Unseen,
            Mark::Seen { chunk: 0, equal: false },
            Mark::Seen { chunk: 0, equal: true },
            Mark::Seen { chunk: 70_000, equal: true },
        ] {
            assert!(Mark::unpack(mark.pack()) == mark);
        }
    }

    #[test]
    fn only_chunks_with_open_rows_are_read_again() {
        let mut open = Open::default();
        assert_eq!(chunks_of(None, true, 3), [0, 1, 2]);
        assert!(chunks_of(Some(&open), false, 3).is_empty() && chunks_of(Some(&open), true, 3).is_empty());
        open.insert(KeyHash::from(1), Some(2));
        open.insert(KeyHash::from(2), Some(2));
        assert!(!needs_all(&open));
        assert_eq!(chunks_of(Some(&open), false, 3), [2]);
        open.insert(KeyHash::from(3), None);
        assert!(needs_all(&open));
        assert_eq!(chunks_of(Some(&open), true, 3), [0, 1, 2]);
    }
}
