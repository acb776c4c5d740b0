//! Collapse: a batch of changes in log order becomes, per key, at most one row to write and one old row to remove.
//!
//! Rows are applied one after the other to a map from key to its newest image, exactly as a database would; so a key
//! change, a swap of keys, delete and insert again, or a hundred updates of one row all come out as their last state.
//! In a table without a key the map counts equal rows instead, and inserts and deletes of the same row cancel out.
//!
//! What happens to one key depends on no other key. So a batch too large for one map is collapsed in several passes, each
//! over its own part of the keys, with the same outcome. Only values the log left out ([`TableRows::unchanged`]) lead from
//! key to key, when a row changes its key; they are not resolved here: the [`Trail`] notes for each row which one held
//! its key before, and whoever writes the rows follows it.
//!
//! [`TableRows::unchanged`]: crate::schema::TableRows::unchanged

use super::Error;
use super::key::KeyHasher;
use super::locator::{KeyHash, KeyMap, RowAddress};
use super::row_index::{Files, IndexError, RowIndex};
use crate::schema::{Op, RowIdentity, TableSchema};

/// A row of the batch: its number in log order, counted from the last truncate.
pub type RowNumber = u32;

/// Rows a batch may have; the numbers above have meanings of their own.
pub const ROWS_MAX: u64 = u32::MAX as u64 - 1;

/// No row: gone, or never there.
const NOTHING: RowNumber = RowNumber::MAX;

/// The row that the lake holds under this key.
const IN_LAKE: RowNumber = RowNumber::MAX - 1;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This row is to be written under the key.
    Live(RowNumber, KeyHash),
    /// The lake's row of the key, if there is one, is replaced or gone.
    Touched(KeyHash, Option<RowAddress>),
    /// In a table with a key: no row is left under this one. Where the lake's was, if there was one.
    Gone(KeyHash, Option<RowAddress>),
    /// In a table without one: equal rows of this content were added and taken away, in whatever order.
    Wavered(KeyHash),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollapseError {
    #[error("a key change came without the row's new image")]
    TornKeyChange,
    #[error("rows are deleted or updated that the lake does not have")]
    NoSuchRow,
    #[error("values are left out as unchanged in a table that has no key to find them by")]
    NothingToFindBy,
    #[error("there are more than {ROWS_MAX} of them in one batch")]
    TooMany,
}

impl CollapseError {
    /// As the error of a table.
    pub fn of(&self, schema: &TableSchema) -> Error {
        Error::Table {
            table: schema.name.to_string(),
            finding: format!("the changes do not fit: {self}"),
            remedy: "load it again with `lakeward resync`".to_owned(),
        }
    }
}

/// Why a pass has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error(transparent)]
    Collapse(#[from] CollapseError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Where the previous image of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    Row(RowNumber),
    Lake,
    Nothing,
}

/// For each row, the one that held its key before (in a table without a key: the equal row before it that lives on). Four
/// bytes a row, and none where nobody will ask.
#[derive(Debug, Default)]
pub struct Trail(Vec<RowNumber>);

impl Trail {
    pub fn new(rows: usize) -> Self {
        Self(vec![NOTHING; rows])
    }

    /// The image before that of `row`.
    pub fn earlier(&self, row: RowNumber) -> Earlier {
        match self.0.get(row as usize) {
            None | Some(&NOTHING) => Earlier::Nothing,
            Some(&IN_LAKE) => Earlier::Lake,
            Some(&earlier) => Earlier::Row(earlier),
        }
    }

    fn note(&mut self, row: RowNumber, earlier: RowNumber) {
        if let Some(place) = self.0.get_mut(row as usize) {
            *place = earlier;
        }
    }
}

/// Whether every key change has both its images, side by side.
pub fn check_key_changes(ops: &[Op]) -> Result<(), CollapseError> {
    let mut moving = false;
    for &op in ops {
        if moving != (op == Op::UpdateNewKey) {
            return Err(CollapseError::TornKeyChange);
        }
        moving = op == Op::UpdateOldKey;
    }
    if moving { Err(CollapseError::TornKeyChange) } else { Ok(()) }
}

/// One pass over all keys or a part of them.
pub struct Pass {
    states: States,
    truncated: bool,
}

enum States {
    /// The newest image of each key, or [`NOTHING`]; keys not in the map are as the lake has them.
    Keys(KeyMap<RowNumber>),
    Bags(KeyMap<Bag>),
}

/// Equal rows of a table without a key.
#[derive(Clone, Copy)]
struct Bag {
    /// The newest of those that the batch added and did not take away again; the [`Trail`] leads to the others.
    top: RowNumber,
    added: u32,
    /// Rows of the lake that the batch takes away.
    removed: u32,
    /// There were more or fewer of them for a moment than the batch's end shows.
    wavered: bool,
}

/// Bytes of memory that a pass needs for a key, at worst: just after its map has doubled.
pub const PASS_BYTES_PER_KEY: u64 = 64;

impl Pass {
    /// `truncated`: nothing of the lake's rows is left before the first change.
    pub fn new(identity: RowIdentity, truncated: bool) -> Self {
        let states = match identity {
            RowIdentity::Key => States::Keys(KeyMap::default()),
            RowIdentity::WholeRow | RowIdentity::AppendOnly => States::Bags(KeyMap::default()),
        };
        Self { states, truncated }
    }

    /// The next change of a key of this pass, in log order.
    pub fn take(&mut self, row: RowNumber, key: KeyHash, op: Op, trail: &mut Trail) {
        match &mut self.states {
            States::Keys(states) => {
                let state = if matches!(op, Op::Delete | Op::UpdateOldKey) { NOTHING } else { row };
                let in_lake = if self.truncated { NOTHING } else { IN_LAKE };
                let before = states.insert(key, state).unwrap_or(in_lake);
                // The new image under another key asks for the one before its old key's.
                if op != Op::UpdateNewKey {
                    trail.note(row, before);
                }
            }
            States::Bags(bags) => {
                let bag = bags.entry(key).or_insert(Bag { top: NOTHING, added: 0, removed: 0, wavered: false });
                match op {
                    Op::Insert | Op::Update | Op::UpdateNewKey => {
                        trail.note(row, bag.top);
                        bag.top = row;
                        bag.added += 1;
                    }
                    Op::Delete | Op::UpdateOldKey if bag.added > 0 => bag.cancel(trail),
                    Op::Delete | Op::UpdateOldKey => bag.removed += 1,
                }
            }
        }
    }

    /// Tells what becomes of every key of this pass, in no particular order. The lake's rows are looked up many at a time.
    pub async fn finish(
        self,
        trail: &Trail,
        hasher: &KeyHasher,
        index: &RowIndex,
        files: &Files,
        out: &mut (impl FnMut(Ending) + Send),
    ) -> Result<(), PassError> {
        match self.states {
            States::Keys(states) => {
                let mut states = states.into_iter();
                loop {
                    let some: Vec<(KeyHash, RowNumber)> = states.by_ref().take(KEYS_AT_ONCE).collect();
                    if some.is_empty() {
                        break;
                    }
                    let keys: Vec<KeyHash> = some.iter().map(|(key, _)| *key).collect();
                    let found = index.locate(&keys, files).await?;
                    for (key, row) in some {
                        let held = found.get(&key).copied();
                        out(Ending::Touched(key, held.filter(|_| !self.truncated)));
                        out(if row == NOTHING { Ending::Gone(key, held) } else { Ending::Live(row, key) });
                    }
                }
            }
            States::Bags(bags) => {
                let mut bags = bags.into_iter();
                loop {
                    let some: Vec<(KeyHash, Bag)> = bags.by_ref().take(KEYS_AT_ONCE).collect();
                    if some.is_empty() {
                        break;
                    }
                    let lake = if self.truncated { None } else { Some((index, files)) };
                    finish_bags(some, trail, hasher, lake, out).await?;
                }
            }
        }
        Ok(())
    }
}

/// Keys that are looked up at once: more would need memory, fewer would read more often.
const KEYS_AT_ONCE: usize = 1 << 16;

/// `lake` is `None` where nothing is left of it.
async fn finish_bags(
    bags: Vec<(KeyHash, Bag)>,
    trail: &Trail,
    hasher: &KeyHasher,
    lake: Option<(&RowIndex, &Files)>,
    out: &mut (impl FnMut(Ending) + Send),
) -> Result<(), PassError> {
    let held = match lake {
        Some((index, files)) => hasher.occurrences(bags.iter().map(|(key, _)| *key), index, files).await?,
        None => KeyMap::default(),
    };
    let mut gone = Vec::new();
    for (key, mut bag) in bags {
        let held = held.get(&key).copied().unwrap_or(0);
        if bag.removed > held {
            return Err(CollapseError::NoSuchRow.into());
        }
        // Taken away first and added later: the lake's row stays instead.
        while bag.added > 0 && bag.removed > 0 {
            bag.removed -= 1;
            bag.cancel(trail);
        }
        if bag.wavered {
            out(Ending::Wavered(key));
        }
        gone.extend((held - bag.removed..held).map(|number| hasher.occurrence(key, number)));
        for number in held..held.saturating_add(bag.added) {
            out(Ending::Live(bag.top, hasher.occurrence(key, number)));
            bag.drop_top(trail);
        }
    }
    if let Some((index, files)) = lake {
        let found = index.locate(&gone, files).await?;
        for key in gone {
            out(Ending::Touched(key, found.get(&key).copied()));
        }
    }
    Ok(())
}

impl Bag {
    /// A row that was added is taken away, or the other way round.
    fn cancel(&mut self, trail: &Trail) {
        self.wavered = true;
        self.drop_top(trail);
    }

    fn drop_top(&mut self, trail: &Trail) {
        self.top = match trail.earlier(self.top) {
            Earlier::Row(row) => row,
            Earlier::Lake | Earlier::Nothing => NOTHING,
        };
        self.added -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::data_file::DataFile;
    use super::*;
    use crate::schema::{Column, LakeType, Policy, Shape, TableName};
    use deltalake::kernel::Add;
    use roaring::RoaringTreemap;
    use std::sync::Arc;

    fn hasher(identity: RowIdentity) -> KeyHasher {
        let column = Column {
            name: "id".into(),
            source_type: String::new(),
            lake_type: LakeType::Long,
            nullable: identity != RowIdentity::Key,
            policy: Policy::default(),
        };
        let schema = TableSchema {
            name: TableName::new("public", "points"),
            columns: vec![column],
            key: if identity == RowIdentity::Key { vec![0] } else { vec![] },
            partition_by: vec![],
            identity,
        };
        KeyHasher::new(&Shape::of(Arc::new(schema))).expect("longs are hashable")
    }

    fn key(id: u128) -> KeyHash {
        KeyHash::from(id)
    }

    struct Outcome {
        live: Vec<RowNumber>,
        touched: usize,
        wavered: Vec<KeyHash>,
        trail: Trail,
    }

    /// Collapses changes in `passes` passes over a lake that holds `held` rows of each key.
    fn collapse(
        identity: RowIdentity,
        changes: &[(Op, u128)],
        held: u32,
        passes: usize,
    ) -> Result<Outcome, CollapseError> {
        let hasher = hasher(identity);
        let mut index = RowIndex::default();
        let add = Add { path: "a".into(), ..Add::default() };
        let files = Files::from([(0, DataFile { add, rows: 1, deleted: RoaringTreemap::new() })]);
        for (_, id) in changes {
            for number in 0..held {
                index.insert(hasher.occurrence(key(*id), number), RowAddress { file: 0, row: 0 });
            }
        }
        let mut outcome =
            Outcome { live: Vec::new(), touched: 0, wavered: Vec::new(), trail: Trail::new(changes.len()) };
        check_key_changes(&changes.iter().map(|(op, _)| *op).collect::<Vec<_>>())?;
        for number in 0..passes {
            let mut pass = Pass::new(identity, false);
            for (row, (op, id)) in changes.iter().enumerate().filter(|(_, (_, id))| *id as usize % passes == number) {
                pass.take(row as u32, key(*id), *op, &mut outcome.trail);
            }
            let Outcome { live, touched, wavered, trail } = &mut outcome;
            let mut end = |ending| match ending {
                Ending::Live(row, _) => live.push(row),
                Ending::Touched(..) => *touched += 1,
                Ending::Gone(..) => {}
                Ending::Wavered(key) => wavered.push(key),
            };
            match futures::executor::block_on(pass.finish(trail, &hasher, &index, &files, &mut end)) {
                Ok(()) => {}
                Err(PassError::Collapse(cause)) => return Err(cause),
                Err(PassError::Index(cause)) => panic!("in memory: {cause}"),
            }
        }
        outcome.live.sort_unstable();
        outcome.wavered.sort_unstable();
        Ok(outcome)
    }

    fn of_keys(changes: &[(Op, u128)]) -> Outcome {
        collapse(RowIdentity::Key, changes, 1, 1).expect("consistent changes")
    }

    ///
    #[test]
    fn the_last_state_of_a_key_wins() {
        let result = of_keys(&[
            (Op::Insert, 1),
            (Op::Update, 1),
            (Op::Insert, 2),
            (Op::Delete, 2),
            (Op::Insert, 3),
            (Op::Delete, 1),
            (Op::Insert, 1),
        ]);
        assert_eq!((result.live, result.touched), (vec![4, 6], 3));
    }

    /// 1→9, 2→1, 9→2 swaps two rows, in one pass or in many.
    #[test]
    fn swapped_keys_keep_their_own_rows() {
        let changes = [
            (Op::UpdateOldKey, 1),
            (Op::UpdateNewKey, 9),
            (Op::UpdateOldKey, 2),
            (Op::UpdateNewKey, 1),
            (Op::UpdateOldKey, 9),
            (Op::UpdateNewKey, 2),
        ];
        for passes in 1..=4 {
            let result = collapse(RowIdentity::Key, &changes, 1, passes).expect("consistent changes");
            assert_eq!((result.live, result.touched), (vec![3, 5], 3));
            // The row that is now 2 was 9, which was 1, which the lake has.
            let trail = [4, 0].map(|row| result.trail.earlier(row));
            assert_eq!(trail, [Earlier::Row(1), Earlier::Lake]);
        }
    }

    /// P-22
    #[test]
    fn the_trail_leads_from_image_to_image_to_the_lake() {
        let result = of_keys(&[(Op::Update, 1), (Op::UpdateOldKey, 1), (Op::UpdateNewKey, 2), (Op::Update, 2)]);
        assert_eq!(result.live, [3]);
        let trail = [3, 1, 0].map(|row| result.trail.earlier(row));
        assert_eq!(trail, [Earlier::Row(2), Earlier::Row(0), Earlier::Lake]);
    }

    #[test]
    fn a_row_that_is_gone_leaves_no_trail() {
        let result = of_keys(&[(Op::Delete, 1), (Op::Update, 1)]);
        assert_eq!(result.trail.earlier(1), Earlier::Nothing);
    }

    #[test]
    fn torn_key_changes_are_refused() {
        for torn in [&[Op::UpdateOldKey][..], &[Op::UpdateNewKey], &[Op::UpdateOldKey, Op::Insert]] {
            assert_eq!(check_key_changes(torn), Err(CollapseError::TornKeyChange));
        }
    }

    /// K-1
    #[test]
    fn equal_rows_cancel_out_and_the_last_ones_go() {
        let result = collapse(
            RowIdentity::WholeRow,
            &[
                (Op::Insert, 1),
                (Op::Insert, 1),
                (Op::Delete, 1), // takes the second insert back
                (Op::Delete, 2),
                (Op::Delete, 2),
                (Op::Insert, 2), // one of the two deleted rows is there again
                (Op::Insert, 3),
                (Op::Insert, 3),
            ],
            2,
            1,
        );
        let result = result.expect("the lake has two of each");
        assert_eq!((result.live, result.touched), (vec![0, 6, 7], 1));
        assert_eq!(result.wavered, [key(1), key(2)]);
    }

    /// K-1
    #[test]
    fn more_deletes_than_rows_are_refused_even_if_inserts_follow() {
        for held in 0..2 {
            let mut changes = vec![(Op::Delete, 1); held as usize + 1];
            changes.push((Op::Insert, 1));
            let refused = collapse(RowIdentity::WholeRow, &changes, held, 1).map(|_| ());
            assert_eq!(refused, Err(CollapseError::NoSuchRow));
        }
    }
}
