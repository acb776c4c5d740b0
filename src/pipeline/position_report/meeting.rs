//! Where the versions of several tables meet: the latest point of their source at which every table has a version that is
//! exactly what it was there.
//!
//! Why that needs more than the newest version whose position is contained: the tables of a source commit at common
//! boundaries, but after a crash between two tables' commits the log is read again and may be cut elsewhere. A commit says
//! where its batch began, so that each version holds for a stretch of the log: from its own position up to where the next
//! commit's batch began, for nothing of the table was committed between the two. A cut is exact wherever the stretches of all
//! tables overlap.

use super::super::schema_report::ReportError;
use crate::source::Position;

/// How often is looked further back. Each time a table's commit was cut where another's was not, which takes a crash.
const ROUNDS_MAX: u32 = 100;

/// A stretch of the log through which a version is exactly what the table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub version: u64,
    /// The version's own position.
    pub from: Position,
    /// At or after `from`.
    pub until: Position,
}

/// Versions that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meeting {
    /// By table; `None` for one that has nothing to give there.
    pub spans: Vec<Option<Span>>,
    /// Where they overlap: the cut is exact at both, and anywhere between.
    pub from: Position,
    pub until: Position,
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met {
    At(Meeting),
    /// No table has anything up to there.
    Nothing,
    /// Not within reason: up to this point they never overlap.
    Apart(Position),
}

/// Finds where `tables` tables meet, at `point` or before. `find` gives a table's last span that begins at a point or before.
pub(super) async fn meet(
    tables: usize,
    mut point: Position,
    find: impl AsyncFn(usize, &Position) -> Result<Option<Span>, ReportError>,
) -> Result<Met, ReportError> {
    for _ in 0..ROUNDS_MAX {
        let mut spans = Vec::with_capacity(tables);
        for table in 0..tables {
            spans.push(find(table, &point).await?);
        }
        let Some(from) = latest(spans.iter().flatten().map(|span| &span.from)) else { return Ok(Met::Nothing) };
        let Some(until) = earliest(spans.iter().flatten().map(|span| &span.until)) else { return Ok(Met::Nothing) };
        if until.covers(from) {
            return Ok(Met::At(Meeting { from: from.clone(), until: until.clone(), spans }));
        }
        // The table that ends first has another version before `from` is reached, and cannot meet the others there.
        point = until.clone();
    }
    Ok(Met::Apart(point))
}

/// Positions of one log are a chain.
pub(super) fn latest<'p>(mut positions: impl Iterator<Item = &'p Position>) -> Option<&'p Position> {
    let first = positions.next()?;
    Some(positions.fold(first, |latest, position| if latest.covers(position) { latest } else { position }))
}

pub(super) fn earliest<'p>(mut positions: impl Iterator<Item = &'p Position>) -> Option<&'p Position> {
    let first = positions.next()?;
    Some(positions.fold(first, |earliest, position| if earliest.covers(position) { position } else { earliest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits of a table: where the batch began, and its position. And up to where the last one is known to hold.
    type Past = (&'static [(u64, u64)], u64);

    async fn met(pasts: &[Past], point: u64) -> Met {
        let find = async |table: usize, point: &Position| {
            let (commits, holds) = pasts[table];
            let Position::Lsn(point) = point else { panic!("an LSN") };
            let Some(index) = commits.iter().rposition(|(_, position)| position <= point) else { return Ok(None) };
            let from = commits[index].1;
            let until = commits.get(index + 1).map_or(holds, |(after, _)| *after).max(from);
            Ok(Some(Span { version: index as u64, from: Position::Lsn(from), until: Position::Lsn(until) }))
        };
        meet(pasts.len(), Position::Lsn(point), find).await.expect("it is found")
    }

    async fn versions(pasts: &[Past], point: u64) -> (Vec<Option<u64>>, u64, u64) {
        match met(pasts, point).await {
            Met::At(Meeting { spans, from: Position::Lsn(from), until: Position::Lsn(until) }) => {
                (spans.into_iter().map(|span| Some(span?.version)).collect(), from, until)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Batches end at 10, 20, 30, 40; a table that a batch does not touch has no commit of it.
    const BUSY: Past = (&[(0, 10), (10, 20), (20, 30), (30, 40)], 45);
    const QUIET: Past = (&[(0, 10), (30, 40)], 45);
    const NEW: Past = (&[(0, 22), (20, 30)], 45);

    #[tokio::test]
    async fn tables_meet_at_the_last_common_boundary() {
        assert_eq!(versions(&[BUSY, QUIET], 20).await, (vec![Some(1), Some(0)], 20, 20));
        assert_eq!(versions(&[BUSY, QUIET], 39).await, (vec![Some(2), Some(0)], 30, 30));
        assert_eq!(versions(&[BUSY, QUIET], 40).await, (vec![Some(3), Some(1)], 40, 45));
        assert_eq!(versions(&[BUSY, QUIET], 99).await, (vec![Some(3), Some(1)], 40, 45));
        assert_eq!(
            versions(&[QUIET], 25).await,
            (vec![Some(0)], 10, 30),
            "alone it holds up to the next batch's beginning"
        );
        assert_eq!(met(&[BUSY, QUIET], 9).await, Met::Nothing);
    }

    /// One table committed the batch up to 30, the other did not before the crash; then the log was cut at 25 and 40.
    #[tokio::test]
    async fn a_boundary_that_only_one_table_has_is_passed_over() {
        const AHEAD: Past = (&[(0, 10), (20, 30), (25, 40)], 40);
        const AGAIN: Past = (&[(0, 20), (20, 25), (25, 40)], 40);
        assert_eq!(versions(&[AHEAD, AGAIN], 40).await, (vec![Some(2), Some(2)], 40, 40));
        // At 30 the second has 25, and lacks what came between; at 25 the first has 10, which holds up to 20 only.
        assert_eq!(versions(&[AHEAD, AGAIN], 39).await, (vec![Some(0), Some(0)], 20, 20));
    }

    /// A first load is exact at its own position; the log is read from an earlier one.
    #[tokio::test]
    async fn a_table_that_was_loaded_later_is_not_there_before() {
        assert_eq!(versions(&[BUSY, NEW], 30).await, (vec![Some(2), Some(1)], 30, 30));
        assert_eq!(versions(&[BUSY, NEW], 21).await, (vec![Some(1), None], 20, 20));
        assert_eq!(
            versions(&[BUSY, NEW], 29).await,
            (vec![Some(1), None], 20, 20),
            "22 lies inside a batch of the other"
        );
    }

    #[tokio::test]
    async fn tables_that_never_overlap_are_told_apart() {
        // Commits of a lakeward that did not write down where its batches began.
        let odd: Vec<(u64, u64)> = (0..200).map(|batch| (0, batch * 10 + 5)).collect();
        let even: Vec<(u64, u64)> = (0..200).map(|batch| (0, batch * 10)).collect();
        let (odd, even): (&'static [_], &'static [_]) = (odd.leak(), even.leak());
        let met = met(&[(odd, 0), (even, 0)], 5000).await;
        assert!(matches!(met, Met::Apart(_)), "{met:?}");
    }
}
