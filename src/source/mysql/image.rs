//! Row images that lack columns (`binlog_row_image=MINIMAL` and `NOBLOB`), and rows of the past in system-versioned tables.
//!
//! A column that is absent from an image is never NULL. From an update's image after it is absent because it did not
//! change: its value is the image before's, or else stays what the lake has. From an inserted row it is absent because the
//! statement gave none: the column's default of that time fills it, if it is a constant, else nothing may be guessed. What
//! identifies a row is always there; whatever is not there and cannot be known is a [`Fault`] that stops the table.
//!
//! MariaDB executes `REPLACE` over an existing row as an update, and under these settings its log leaves out the columns
//! that the statement thereby set to their defaults (seen on 10.11; its own replicas keep the old values). Such an update
//! can't be told from one that leaves them as they are when its image holds the whole key, so it is a fault too. So is a
//! virtual generated column of MariaDB: it is never in these images, whether or not it changed with others.
//!
//! A system-versioned table of MariaDB keeps the past: a delete is an update that ends the row's period, an update writes
//! the old row anew with its period ended. The lake has present rows only.

use crate::schema::{Layout, Period};

use super::flavor::Vendor;
use super::plan::RowsKind;
use super::wire::{Fault, bit};

/// What fills a column that an inserted row lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filler {
    Null,
    /// As the log would carry it.
    Bytes(Vec<u8>),
    /// Nothing can, and why.
    Unknown(&'static str),
    /// Nothing can: the server computes it from other columns.
    Generated,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Insert,
    Update,
    Delete,
    /// It is none of the present ones.
    Past,
}

/// See the module text. The default is for tables whose layout is unknown: every image must be whole.
#[derive(Clone, Debug, Default)]
pub struct Images {
    known: bool,
    /// Generated columns are in an image after whenever they may have changed (MySQL).
    generated_told: bool,
    /// By column of the log.
    fillers: Vec<Filler>,
    names: Vec<String>,
    /// The column with the end of each row's period.
    period_end: Option<usize>,
    /// Whether an update with all its key columns may be a `REPLACE` that reset the columns it lacks.
    replace: Replace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replace {
    /// The log is whole (MySQL).
    #[default]
    Told,
    /// Only where the key stays as it was: no other key could meet an existing row.
    SameKey,
    Any,
}

impl Images {
    /// `fillers` and `names` by column of the log.
    pub fn new(layout: &Layout, vendor: Vendor, names: Vec<String>, fillers: Vec<Filler>) -> Self {
        let period_end = match &layout.period {
            Period::None => None,
            Period::Implicit => Some(layout.columns.len() + 1),
            Period::Column(name) => layout.index(name),
        };
        let replace = match vendor {
            Vendor::MySql => Replace::Told,
            // Nothing that a REPLACE could meet.
            Vendor::MariaDb if layout.uniques.is_empty() => Replace::Told,
            // A text key may stay equal to the server and still have other bytes.
            Vendor::MariaDb => {
                let plain = layout.uniques.len() == 1
                    && layout
                        .key()
                        .iter()
                        .all(|name| layout.column(name).is_some_and(|column| column.charset.is_none()));
                if plain { Replace::SameKey } else { Replace::Any }
            }
        };
        let generated_told = vendor == Vendor::MySql;
        Self { known: true, generated_told, fillers, names, period_end, replace }
    }

    fn name(&self, column: usize) -> &str {
        self.names.get(column).map_or("?", String::as_str)
    }

    /// Images that lack columns can only be completed where the table's layout is known.
    pub fn check_known(&self) -> Result<(), Fault> {
        if self.known {
            return Ok(());
        }
        Err(Fault::new(
            "rows come without all their columns (binlog_row_image is not FULL), and the ledger has no schema history of \
             the table",
        ))
    }

    /// What a row event means for the present rows. `after` counts for updates only.
    pub fn fate(&self, kind: RowsKind, before: &[Option<&[u8]>], after: &[Option<&[u8]>]) -> Result<Fate, Fault> {
        let plain = match kind {
            RowsKind::Write => Fate::Insert,
            RowsKind::Update => Fate::Update,
            RowsKind::Delete => Fate::Delete,
        };
        let Some(column) = self.period_end else { return Ok(plain) };
        let present = |image: &[Option<&[u8]>]| match image.get(column).copied().flatten() {
            Some(end) => Ok(is_endless(end)),
            None => Err(Fault(format!("column `{}`: a row comes without the end of its period", self.name(column)))),
        };
        Ok(match (kind, present(before)?) {
            (RowsKind::Update, was_present) => match (was_present, present(after)?) {
                (true, true) => Fate::Update,
                (true, false) => Fate::Delete,
                (false, true) => Fate::Insert,
                (false, false) => Fate::Past,
            },
            (_, true) => plain,
            (_, false) => Fate::Past,
        })
    }

    /// An image before an update or a delete identifies its row: by the key, or by all its values.
    pub fn check_old(&self, targets: &[Option<(usize, bool)>], whole_rows: bool, present: &[u8]) -> Result<(), Fault> {
        for (column, target) in targets.iter().enumerate() {
            let Some((_, key)) = target else { continue };
            if (*key || whole_rows) && !bit(present, column) {
                return Err(Fault(format!(
                    "column `{}` is not in the old image of a row (binlog_row_image is not FULL), and {}",
                    self.name(column),
                    if *key { "it is part of the key" } else { "the table has no key to find the row by" }
                )));
            }
        }
        Ok(())
    }

    /// Completes the image after an update from the image before it; columns that both lack are `unchanged`.
    pub fn carry<'a>(
        &self,
        targets: &[Option<(usize, bool)>],
        [first, second]: [&[u8]; 2],
        before: &[Option<&'a [u8]>],
        after: &mut [Option<&'a [u8]>],
        unchanged: &mut Vec<u16>,
    ) -> Result<(), Fault> {
        let mut lacking = None;
        let (mut key_told, mut key_moved) = (true, false);
        for (column, target) in targets.iter().enumerate() {
            let Some((target, key)) = *target else { continue };
            if bit(second, column) {
                key_moved |= key && before.get(column) != after.get(column);
                continue;
            }
            if !self.generated_told && self.fillers.get(column) == Some(&Filler::Generated) {
                return Err(Fault(format!(
                    "generated column `{}` is not in the new image of a row (binlog_row_image is not FULL), and the log of \
                     MariaDB does not tell whether it changed",
                    self.name(column)
                )));
            }
            if key {
                // A key column with a default may be left out by the very statement that resets it.
                key_told &= matches!(self.fillers.get(column), Some(Filler::Bytes(_)) | None);
            } else {
                lacking = Some(column);
            }
            if bit(first, column) {
                if let (Some(after), Some(before)) = (after.get_mut(column), before.get(column)) {
                    *after = *before;
                }
            } else {
                unchanged.push(u16::try_from(target).map_err(|error| Fault(error.to_string()))?);
            }
        }
        unchanged.sort_unstable();
        let ambiguous = match self.replace {
            Replace::Told => false,
            Replace::SameKey => key_told && !key_moved,
            Replace::Any => key_told,
        };
        match lacking {
            Some(column) if ambiguous => Err(Fault(format!(
                "column `{}` is not in the new image of a row (binlog_row_image is not FULL): it kept its value, or a \
                 REPLACE set it to its default, and the log of MariaDB does not tell which",
                self.name(column)
            ))),
            _ => Ok(()),
        }
    }

    /// Fills what an inserted row lacks with the columns' defaults.
    pub fn fill<'a>(
        &'a self,
        targets: &[Option<(usize, bool)>],
        present: &[u8],
        fields: &mut [Option<&'a [u8]>],
    ) -> Result<(), Fault> {
        for (column, (target, field)) in targets.iter().zip(fields).enumerate() {
            if target.is_none() || bit(present, column) {
                continue;
            }
            *field = match self.fillers.get(column) {
                Some(Filler::Null) => None,
                Some(Filler::Bytes(bytes)) => Some(bytes),
                Some(Filler::Generated) => return Err(self.absent(column, "it is generated")),
                Some(Filler::Unknown(why)) => return Err(self.absent(column, why)),
                None => return Err(self.absent(column, "no default of it is known")),
            };
        }
        Ok(())
    }

    fn absent(&self, column: usize, why: &str) -> Fault {
        Fault(format!(
            "column `{}` is not in the image of an inserted row (binlog_row_image is not FULL), and {why}",
            self.name(column)
        ))
    }
}

/// The end of a present row's period: the last `TIMESTAMP(6)` there is, of 31 bits or, since MariaDB 11.5, of 32.
fn is_endless(end: &[u8]) -> bool {
    matches!(end, [0x7F | 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x42, 0x3F])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{LayoutColumn, PRIMARY, UniqueKey};

    const KEY_NOTE_PRICE: [Option<(usize, bool)>; 3] = [Some((0, true)), Some((1, false)), Some((2, false))];

    fn images(vendor: Vendor, uniques: &[&str], period: Period) -> Images {
        let column = |name: &str| LayoutColumn {
            name: name.to_owned(),
            declaration: "int".to_owned(),
            charset: None,
            collation: None,
            nullable: name != "id",
            default: Default::default(),
            generated: false,
            invisible: false,
            auto_increment: false,
        };
        let unique = |name: &&str| UniqueKey {
            name: (*name).to_owned(),
            columns: vec!["id".to_owned()],
            partial: false,
            hashed: false,
        };
        let layout = Layout {
            columns: ["id", "note", "price"].map(column).to_vec(),
            uniques: uniques.iter().map(unique).collect(),
            period,
            ..Layout::default()
        };
        let fillers = vec![Filler::Unknown("it has no default"), Filler::Null, Filler::Bytes(vec![7])];
        Images::new(&layout, vendor, ["id", "note", "price"].map(str::to_owned).to_vec(), fillers)
    }

    /// what an image after lacks comes from the image before, or stays as the lake has it.
    #[test]
    fn an_absent_column_is_unchanged_and_never_null() {
        let images = images(Vendor::MySql, &[PRIMARY], Period::None);
        let before = [Some(&[1_u8][..]), Some(&[2]), None];
        let mut after = [None, None, Some(&[9_u8][..])];
        let mut unchanged = Vec::new();
        images.carry(&KEY_NOTE_PRICE, [&[0b011], &[0b100]], &before, &mut after, &mut unchanged).expect("told");
        assert_eq!((after, unchanged.as_slice()), ([Some(&[1][..]), Some(&[2][..]), Some(&[9][..])], &[][..]));
        let mut after = [None, None, None];
        images.carry(&KEY_NOTE_PRICE, [&[0b001], &[0]], &before, &mut after, &mut unchanged).expect("told");
        assert_eq!(unchanged, [1, 2]);
        assert!(images.check_old(&KEY_NOTE_PRICE, false, &[0b001]).is_ok());
        assert!(images.check_old(&KEY_NOTE_PRICE, false, &[0b110]).is_err());
        assert!(images.check_old(&KEY_NOTE_PRICE, true, &[0b011]).is_err());
    }

    ///
    #[test]
    fn an_inserted_row_gets_constant_defaults_and_nothing_else() {
        let images = images(Vendor::MySql, &[PRIMARY], Period::None);
        let mut fields = [Some(&[1_u8][..]), None, None];
        images.fill(&KEY_NOTE_PRICE, &[0b001], &mut fields).expect("known defaults");
        assert_eq!(fields, [Some(&[1][..]), None, Some(&[7][..])]);
        let fault = images.fill(&KEY_NOTE_PRICE, &[0b110], &mut fields).expect_err("no default");
        assert!(fault.0.contains("`id`") && fault.0.contains("binlog_row_image"), "{fault}");
        assert!(Images::default().check_known().is_err());
    }

    /// MariaDB's REPLACE.
    #[test]
    fn an_update_that_may_be_a_replace_is_a_fault() {
        let carry = |images: &Images, present: u8, key: u8| {
            let before = [Some(&[1_u8][..]), None, None];
            let key = [key];
            let mut after = [Some(&key[..]), None, None];
            images.carry(&KEY_NOTE_PRICE, [&[0b001], &[present]], &before, &mut after, &mut Vec::new())
        };
        let one = images(Vendor::MariaDb, &[PRIMARY], Period::None);
        assert!(carry(&one, 0b011, 1).is_err(), "same key");
        assert!(carry(&one, 0b011, 2).is_ok(), "another key, and no other could meet");
        assert!(carry(&one, 0b010, 1).is_ok(), "without its key");
        assert!(carry(&one, 0b111, 1).is_ok(), "whole");
        let two = images(Vendor::MariaDb, &[PRIMARY, "u"], Period::None);
        assert!(carry(&two, 0b011, 2).is_err(), "another key may have met");
        assert!(carry(&images(Vendor::MySql, &[PRIMARY], Period::None), 0b011, 1).is_ok());
    }

    /// X-13, M-22
    #[test]
    fn a_generated_column_that_mariadb_leaves_out_is_a_fault() {
        for (vendor, told) in [(Vendor::MySql, true), (Vendor::MariaDb, false)] {
            let mut images = images(vendor, &[PRIMARY], Period::None);
            images.fillers[2] = Filler::Generated;
            let mut after = [None, Some(&[9_u8][..]), None];
            let before = [Some(&[1_u8][..]), None, None];
            let carried = images.carry(&KEY_NOTE_PRICE, [&[0b001], &[0b010]], &before, &mut after, &mut Vec::new());
            assert_eq!(carried.is_ok(), told);
        }
    }

    /// K-8
    #[test]
    fn rows_of_the_past_are_told_by_the_end_of_their_period() {
        let images = images(Vendor::MariaDb, &[PRIMARY], Period::Column("price".to_owned()));
        let present = [None, None, Some(&[0x7F, 0xFF, 0xFF, 0xFF, 0x0F, 0x42, 0x3F][..])];
        let past = [None, None, Some(&[0x6B, 0x08, 0x10, 0xE6, 0x0B, 0x5A, 0xB5][..])];
        let fate =
            |kind, before: &[Option<&[u8]>], after: &[Option<&[u8]>]| images.fate(kind, before, after).expect("told");
        assert_eq!(fate(RowsKind::Write, &present, &[]), Fate::Insert);
        assert_eq!(fate(RowsKind::Write, &past, &[]), Fate::Past);
        assert_eq!(fate(RowsKind::Update, &present, &present), Fate::Update);
        assert_eq!(fate(RowsKind::Update, &present, &past), Fate::Delete);
        assert_eq!(fate(RowsKind::Delete, &past, &[]), Fate::Past);
        assert!(images.fate(RowsKind::Write, &[None, None, None], &[]).is_err());
    }
}
