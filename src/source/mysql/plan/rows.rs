//! Row events cut into rows, and what each row means: an insert, an update with or without its key, a delete, nothing.

use crate::schema::{Op, RowIdentity};
use crate::source::RowSink;

use super::super::image::Fate;
use super::super::table_map::RowsEvent;
use super::super::wire::{Fault, Wire, bit};
use super::{Extent, Plan, RowsKind};

impl Plan {
    /// Decodes a whole row event; returns the number of rows appended.
    pub fn decode(&self, kind: RowsKind, event: &RowsEvent<'_>, sink: &mut RowSink) -> Result<usize, Fault> {
        if event.width != self.steps.len() {
            return Err(Fault(format!("rows of {} columns, the table map has {}", event.width, self.steps.len())));
        }
        if self.steps.is_empty() && !event.rows.is_empty() {
            return Err(Fault(format!("{} bytes of rows without columns", event.rows.len())));
        }
        let mut wire = Wire::new(event.rows);
        let mut before = Vec::with_capacity(event.width);
        let mut after = Vec::with_capacity(event.width);
        let mut rows = 0;
        let [first, second] = if event.complete { [None, None] } else { event.present.map(Some) };
        if !event.complete {
            self.images.check_known()?;
        }
        let whole_rows = self.schema.identity == RowIdentity::WholeRow;
        // Columns whose values the images do not tell: they keep what the lake has.
        let mut unchanged = Vec::new();
        while !wire.is_empty() {
            self.cut(&mut wire, first, &mut before)?;
            if kind == RowsKind::Update {
                self.cut(&mut wire, second, &mut after)?;
            }
            let mut row = |fields: &[Option<&[u8]>], unchanged: &[u16], op| {
                let number = u32::try_from(sink.ops.len()).map_err(|error| Fault(error.to_string()))?;
                self.append(fields, &mut sink.builder)?;
                rows += 1;
                sink.unchanged.extend(unchanged.iter().map(|column| (number, *column)));
                sink.end_row(op).map_err(|error| Fault(error.to_string()))
            };
            let fate = self.images.fate(kind, &before, &after)?;
            match fate {
                Fate::Past => {}
                Fate::Insert => {
                    let fields = if kind == RowsKind::Update { &mut after } else { &mut before };
                    match first {
                        Some(present) if kind == RowsKind::Write => {
                            self.images.fill(&self.targets(), present, fields)?;
                        }
                        Some(_) => {
                            return Err(Fault::new("a row of the past became a present one, without its columns"));
                        }
                        None => {}
                    }
                    row(fields, &[], Op::Insert)?;
                }
                Fate::Delete => {
                    if let Some(present) = first {
                        self.images.check_old(&self.targets(), whole_rows, present)?;
                    }
                    row(&before, &[], Op::Delete)?;
                }
                Fate::Update => {
                    unchanged.clear();
                    if let (Some(first), Some(second)) = (first, second) {
                        let targets = self.targets();
                        self.images.check_old(&targets, whole_rows, first)?;
                        self.images.carry(&targets, [first, second], &before, &mut after, &mut unchanged)?;
                    }
                    let same_key =
                        self.steps.iter().zip(before.iter().zip(&after)).all(|(step, (b, a))| !step.key || b == a);
                    if same_key && !whole_rows {
                        row(&after, &unchanged, Op::Update)?;
                    } else {
                        row(&before, &[], Op::UpdateOldKey)?;
                        row(&after, &unchanged, Op::UpdateNewKey)?;
                    }
                }
            }
        }
        Ok(rows)
    }

    /// For each column of the log: the lake's column, and whether it belongs to the key.
    fn targets(&self) -> Vec<Option<(usize, bool)>> {
        self.steps.iter().map(|step| step.cell.as_ref().map(|cell| (cell.index, step.key))).collect()
    }

    /// Cuts one row image into its fields. `present` tells which columns it has, `None` that it has all; one that is
    /// absent comes out like NULL.
    fn cut<'a>(
        &self,
        wire: &mut Wire<'a>,
        present: Option<&[u8]>,
        fields: &mut Vec<Option<&'a [u8]>>,
    ) -> Result<(), Fault> {
        let has = |index| present.is_none_or(|present| bit(present, index));
        let count = match present {
            None => self.steps.len(),
            Some(_) => (0..self.steps.len()).filter(|index| has(*index)).count(),
        };
        let nulls = wire.take(count.div_ceil(8))?;
        fields.clear();
        let mut place = 0;
        for (index, step) in self.steps.iter().enumerate() {
            if !has(index) {
                fields.push(None);
                continue;
            }
            let field = if bit(nulls, place) {
                None
            } else {
                let size = match step.extent {
                    Extent::Fixed(size) => size,
                    Extent::Prefixed(size) => wire.unsigned(size)? as usize,
                };
                Some(wire.take(size)?)
            };
            place += 1;
            fields.push(field);
        }
        Ok(())
    }
}
