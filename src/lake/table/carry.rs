//! Carry: the rows to write, with the values that the log left out filled in.
//!
//! A left-out value is that of the row's previous image, which may have left it out too: the [`Trail`] is followed to an
//! image in the batch that has it, or to the row of the lake. It only leads backwards, so each part of the batch is looked
//! at once, from the last to the first, even when parts must be read from disk.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take};

use super::super::Error;
use super::super::changes::ChangeSet;
use super::super::data_file;
use super::super::locator::{FileId, KeyHash, KeyMap, RowAddress};
use super::super::merge::{Earlier, RowNumber, Trail};
use super::View;
use crate::schema::{Op, TableRows};

/// A value that is wanted: for which row of the output, in which column.
#[derive(Clone, Copy)]
struct Wanted {
    out: usize,
    column: u16,
}

/// Values found for one column, and the rows of the output they are for.
struct Found {
    values: ArrayRef,
    outs: Vec<usize>,
}

/// By column.
type Values = BTreeMap<u16, Vec<Found>>;

/// Rows with all the values that there are.
pub(super) struct Completed {
    pub rows: RecordBatch,
    /// Row and column of those that only a chunk to come can bring, sorted; NULL stands there. Only of a table that is
    /// loading.
    pub missing: Vec<(u32, u16)>,
}

impl View<'_> {
    /// `rows` of the batch (ascending), as complete as they can be.
    pub(super) async fn complete_rows(
        &self,
        set: &ChangeSet<'_>,
        trail: &Trail,
        rows: &[RowNumber],
    ) -> Result<Completed, Error> {
        let arrow_schema = self.schema.arrow();
        if rows.is_empty() {
            return Ok(Completed { rows: RecordBatch::new_empty(arrow_schema), missing: Vec::new() });
        }
        let mut parts: Vec<Cow<TableRows>> = Vec::new();
        let mut indices: Vec<(usize, usize)> = Vec::with_capacity(rows.len());
        let mut wanted: Vec<(RowNumber, Wanted)> = Vec::new();
        let mut part_end = 0;
        let mut part_start = 0;
        let mut unchanged = 0;
        for (out, &row) in rows.iter().enumerate() {
            if row >= part_end || parts.is_empty() {
                let (part, _) = set.place(row);
                let range = set.range(part);
                (part_start, part_end) = (range.start, range.end);
                parts.push(set.load(part).await?);
                unchanged = 0;
            }
            let Some(part) = parts.last() else { continue };
            let place = row - part_start;
            indices.push((parts.len() - 1, place as usize));
            while let Some(&(of, column)) = part.unchanged.get(unchanged).filter(|(of, _)| *of <= place) {
                if of == place {
                    wanted.push((row, Wanted { out, column }));
                }
                unchanged += 1;
            }
        }
        let mut missing = Vec::new();
        let found =
            if wanted.is_empty() { Values::new() } else { self.follow(set, trail, wanted, &mut missing).await? };
        missing.sort_unstable();

        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.columns.len());
        for index in 0..self.schema.columns.len() {
            let mut arrays: Vec<&dyn Array> = parts.iter().map(|part| part.rows.column(index).as_ref()).collect();
            let column = match found.get(&(index as u16)) {
                None => interleave(&arrays, &indices),
                Some(found) => {
                    let mut indices = indices.clone();
                    for Found { values, outs } in found {
                        for (place, &out) in outs.iter().enumerate() {
                            indices[out] = (arrays.len(), place);
                        }
                        arrays.push(values.as_ref());
                    }
                    interleave(&arrays, &indices)
                }
            };
            columns.push(column.map_err(|source| self.arrow(source))?);
        }
        let rows = RecordBatch::try_new(arrow_schema, columns).map_err(|source| self.arrow(source))?;
        Ok(Completed { rows, missing })
    }

    /// Finds values that the given rows of the batch left out.
    async fn follow(
        &self,
        set: &ChangeSet<'_>,
        trail: &Trail,
        wanted: Vec<(RowNumber, Wanted)>,
        missing: &mut Vec<(u32, u16)>,
    ) -> Result<Values, Error> {
        // By part: the row to look at.
        let mut open: BTreeMap<usize, Vec<(RowNumber, Wanted)>> = BTreeMap::new();
        for (row, wanted) in wanted {
            open.entry(set.place(row).0).or_default().push((row, wanted));
        }
        let mut found = Values::new();
        let mut in_lake: Vec<(KeyHash, Wanted)> = Vec::new();
        while let Some((part, mut looking)) = open.pop_last() {
            let rows = set.load(part).await?;
            let start = set.range(part).start;
            let mut keys: Option<Vec<KeyHash>> = None;
            let mut here: BTreeMap<u16, (Vec<u32>, Vec<usize>)> = BTreeMap::new();
            while let Some((row, wanted)) = looking.pop() {
                let place = row - start;
                if rows.unchanged.binary_search(&(place, wanted.column)).is_err() {
                    let (places, outs) = here.entry(wanted.column).or_default();
                    places.push(place);
                    outs.push(wanted.out);
                    continue;
                }
                // The image before a key change is that of the old key, which is told just before.
                let moved = rows.ops.get(place as usize) == Some(&Op::UpdateNewKey);
                let asked = if moved { row.saturating_sub(1) } else { row };
                match trail.earlier(asked) {
                    Earlier::Nothing => return Err(self.nothing_to_carry(wanted.column)),
                    Earlier::Row(earlier) if earlier >= start => looking.push((earlier, wanted)),
                    Earlier::Row(earlier) => {
                        open.entry(set.place(earlier).0).or_default().push((earlier, wanted));
                    }
                    Earlier::Lake => {
                        let keys = match &mut keys {
                            Some(keys) => keys,
                            none => none.insert(self.hash(&rows.rows)?),
                        };
                        let key = keys.get(asked.saturating_sub(start) as usize);
                        in_lake.push((*key.ok_or_else(|| self.nothing_to_carry(wanted.column))?, wanted));
                    }
                }
            }
            for (column, (places, outs)) in here {
                found.entry(column).or_default().push(self.pick(rows.rows.column(column.into()), places, outs)?);
            }
        }
        let keys: Vec<KeyHash> = in_lake.iter().map(|(key, _)| *key).collect();
        let places = self.locate(&keys).await?;
        let in_lake = self.take_waiting(in_lake, &places, &mut found, missing)?;
        self.read_carried(in_lake, &places, &mut found).await?;
        Ok(found)
    }

    /// Values of rows that the lake does not have yet: those that the log told before come from the update that waits, and
    /// others are missing. What is left is the lake's to give.
    fn take_waiting(
        &self,
        mut wanted: Vec<(KeyHash, Wanted)>,
        places: &KeyMap<RowAddress>,
        found: &mut Values,
        missing: &mut Vec<(u32, u16)>,
    ) -> Result<Vec<(KeyHash, Wanted)>, Error> {
        let Some(waiting) = self.waiting else { return Ok(wanted) };
        let mut told: BTreeMap<(usize, u16), (Vec<u32>, Vec<usize>)> = BTreeMap::new();
        wanted.retain(|&(key, wanted)| {
            if places.contains_key(&key) {
                return true;
            }
            match waiting.place(key).filter(|place| waiting.column(*place, wanted.column).is_some()) {
                Some((part, row)) => {
                    let (places, outs) = told.entry((part, wanted.column)).or_default();
                    places.push(row);
                    outs.push(wanted.out);
                }
                None => missing.push((wanted.out as u32, wanted.column)),
            }
            false
        });
        for ((part, column), (places, outs)) in told {
            if let Some(values) = places.first().and_then(|&row| waiting.column((part, row), column)) {
                found.entry(column).or_default().push(self.pick(values, places, outs)?);
            }
        }
        Ok(wanted)
    }

    /// Reads the lake rows whose values live on, file by file.
    async fn read_carried(
        &self,
        wanted: Vec<(KeyHash, Wanted)>,
        places: &KeyMap<RowAddress>,
        found: &mut Values,
    ) -> Result<(), Error> {
        let mut columns: Vec<usize> = wanted.iter().map(|(_, wanted)| wanted.column.into()).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut by_file: BTreeMap<FileId, Vec<(u32, Wanted)>> = BTreeMap::new();
        for (key, wanted) in wanted {
            let address = places.get(&key).ok_or_else(|| self.nothing_to_carry(wanted.column))?;
            by_file.entry(address.file).or_default().push((address.row, wanted));
        }
        let store = self.log_store.object_store(None);
        for (id, rows) in by_file {
            let mut numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let file = self.file(id)?;
            let batch = data_file::read_columns(&store, self.schema, &file.add, &columns, Some(&numbers)).await?;
            for (place, &column) in columns.iter().enumerate() {
                let of_column = rows.iter().filter(|(_, wanted)| usize::from(wanted.column) == column);
                let (places, outs) = of_column
                    .map(|(row, wanted)| (numbers.partition_point(|number| number < row) as u32, wanted.out))
                    .unzip();
                found.entry(column as u16).or_default().push(self.pick(batch.column(place), places, outs)?);
            }
        }
        Ok(())
    }

    fn pick(&self, values: &ArrayRef, places: Vec<u32>, outs: Vec<usize>) -> Result<Found, Error> {
        let values = take(values, &UInt32Array::from(places), None);
        Ok(Found { values: values.map_err(|source| self.arrow(source))?, outs })
    }

    fn nothing_to_carry(&self, column: u16) -> Error {
        let column = self.schema.columns.get(usize::from(column)).map_or("", |column| column.name.as_str());
        Error::Table {
            table: self.schema.name.to_string(),
            finding: format!(
                "an update leaves column `{column}` out as unchanged, but neither the batch nor the lake has a row with that key"
            ),
            remedy: "load it again with `lakeward resync`".to_owned(),
        }
    }
}
