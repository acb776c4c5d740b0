//! Which keys came and went within a batch, so that no version of the table will ever show them. Of a table without a key:
//! of which rows there were more or fewer for a moment.

use std::collections::HashSet;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::super::Error;
use super::super::changes::ChangeSet;
use super::super::locator::KeyHash;
use super::super::vanished::{NAMES_MAX, Vanished};
use super::View;
use crate::schema::{Op, RowIdentity};

/// Keys that end a batch without a row and have none in the lake either; or contents of rows that came and went.
#[derive(Default)]
pub(super) struct Nowhere {
    count: u64,
    keys: Vec<KeyHash>,
}

impl Nowhere {
    pub fn add(&mut self, key: KeyHash) {
        self.count += 1;
        if self.keys.len() <= NAMES_MAX {
            self.keys.push(key);
        }
    }
}

impl View<'_> {
    /// Gives the keys their names, if they are few.
    pub(super) async fn vanished(&self, set: &ChangeSet<'_>, nowhere: &Nowhere) -> Result<Option<Vanished>, Error> {
        if self.schema.identity == RowIdentity::AppendOnly {
            return Ok(None);
        }
        if set.truncated {
            // What came before the truncate is not looked at.
            return Ok(Some(Vanished::unnamed(nowhere.count.max(1))));
        }
        if nowhere.count == 0 {
            return Ok(None);
        }
        if nowhere.keys.len() > NAMES_MAX {
            return Ok(Some(Vanished::unnamed(nowhere.count)));
        }
        let goes = |op: &Op| matches!(op, Op::Delete | Op::UpdateOldKey);
        let mut unnamed: HashSet<KeyHash> = nowhere.keys.iter().copied().collect();
        let mut names = Vec::with_capacity(unnamed.len());
        for part in 0..set.parts() {
            if unnamed.is_empty() {
                break;
            }
            let rows = set.load(part).await?;
            if !rows.ops.iter().any(goes) {
                continue;
            }
            let keys = self.hash(&rows.rows)?.into_iter().zip(&rows.ops).zip(0_u32..);
            let wanted: Vec<u32> =
                keys.filter(|((key, op), _)| goes(op) && unnamed.remove(key)).map(|(_, row)| row).collect();
            if !wanted.is_empty() {
                let wanted = take_record_batch(&rows.rows, &UInt32Array::from(wanted));
                names.extend(self.names(&wanted.map_err(|source| self.arrow(source))?)?);
            }
        }
        Ok(Some(if unnamed.is_empty() { Vanished::named(&names) } else { Vanished::unnamed(nowhere.count) }))
    }

    fn names(&self, rows: &RecordBatch) -> Result<Vec<u64>, Error> {
        self.hasher.names(rows).map_err(|source| self.arrow(source))
    }
}
