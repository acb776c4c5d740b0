//! Batches in parts, as the pipeline hands them on: in memory and on disk.

use std::sync::Arc;

use lakeward::lake::{Spill, SpillFile, SpilledRows, TableChange};
use lakeward::schema::{Op, TableRows};
use rand::Rng;
use rand::rngs::StdRng;

/// The rows in a few parts, some or all of them on disk.
pub fn in_parts(random: &mut StdRng, spill: Option<&Arc<Spill>>, rows: TableRows) -> Vec<TableChange> {
    let Some(spill) = spill else { return vec![TableChange::Rows(rows)] };
    let file = Arc::new(SpillFile::create(spill).expect("a temporary file"));
    let mut changes = Vec::new();
    let mut rest = Some(rows);
    while let Some(rows) = rest {
        let mut at = random.random_range(1..=rows.ops.len().max(1));
        // A key change is never torn apart.
        at += usize::from(rows.ops.get(at) == Some(&Op::UpdateNewKey));
        let (head, tail) = rows.split_at(at);
        rest = tail;
        let Some(head) = head else { continue };
        changes.push(if random.random_bool(0.7) {
            TableChange::Spilled(SpilledRows::write(&file, &head).expect("written"))
        } else {
            TableChange::Rows(head)
        });
    }
    changes
}
