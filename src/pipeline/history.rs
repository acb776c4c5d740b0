//! Which layout of the ledger's history is in force where.
//!
//! A version holds from its position on. A start reads the log from the ledger's position, skipping for each table what the
//! table's own position contains; so the version in force is the newest that one of the two covers. Later ones were written
//! by a run that ended before its position moved: their statements are still ahead in the log and will be met again.

use std::sync::Arc;

use super::Error;
use super::source_run::parse_position;
use crate::ledger::{History, Version};
use crate::schema::{Layout, TableName};
use crate::source::Position;

/// The layout of a table that stands at `table_position`, where the log is read after `from`.
pub fn in_force(
    history: &History,
    table: &TableName,
    table_position: &Position,
    from: &Position,
) -> Result<Option<Arc<Layout>>, Error> {
    let mut found = None;
    for version in history.versions(&table.to_string()) {
        let position = parse_position(&version.position)?;
        if table_position.covers(&position) || from.covers(&position) {
            found = Some(Arc::new(version.layout.clone()));
        }
    }
    Ok(found)
}

/// Forgets versions that were written ahead of where the log is read from: they will come again.
pub fn forget_later(history: &mut History, table: &TableName, known: impl Fn(&Position) -> bool) -> Result<(), Error> {
    let name = table.to_string();
    let mut error = None;
    history.retain(|table, versions| {
        if table != name {
            return versions;
        }
        let holds = |version: &Version| match parse_position(&version.position) {
            Ok(position) => known(&position),
            Err(cause) => {
                error.get_or_insert(cause);
                true
            }
        };
        versions.into_iter().filter(holds).collect()
    });
    error.map_or(Ok(()), Err)
}

/// Writes the batch's new versions, which hold from `position` on, and forgets those that no start can need any more
/// because a newer one holds at `durable` already.
pub async fn append(
    history: &mut History,
    layouts: Vec<(TableName, Arc<Layout>, String)>,
    position: &str,
    durable: &str,
) -> Result<(), Error> {
    if layouts.is_empty() {
        return Ok(());
    }
    for (table, layout, statement) in layouts {
        let statement = Some(statement);
        let version = Version { position: position.to_owned(), statement, layout: Layout::clone(&layout) };
        history.push(&table.to_string(), version);
    }
    let durable = parse_position(durable)?;
    history.retain(|_, mut versions| {
        let covered = |version: &Version| parse_position(&version.position).is_ok_and(|at| durable.covers(&at));
        if let Some(newest) = versions.iter().rposition(covered) {
            versions.drain(..newest);
        }
        versions
    });
    Ok(history.write().await?)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn layout(charset: &str) -> Arc<Layout> {
        Arc::new(Layout { charset: charset.to_owned(), ..Layout::default() })
    }

    fn at(sequence: u64) -> Position {
        format!("mariadb:0-1-{sequence}").parse().expect("valid")
    }

    /// D-15: a start before, at and after a statement; a statement written ahead of the position; pruning.
    #[tokio::test]
    async fn the_version_in_force_is_the_newest_that_is_covered() {
        let mut history = History::open(Arc::new(InMemory::new())).await.expect("empty");
        let name = TableName::new("shop", "goods");
        let version = Version { position: at(5).to_string(), statement: None, layout: Layout::clone(&layout("first")) };
        history.begin("shop.goods", version);
        for (sequence, charset) in [(10, "second"), (20, "third")] {
            let change = vec![(name.clone(), layout(charset), "ALTER".to_owned())];
            append(&mut history, change, &at(sequence).to_string(), &at(5).to_string()).await.expect("written");
        }
        let charset = |history: &History, table: u64, from: u64| {
            let found = in_force(history, &name, &at(table), &at(from)).expect("positions");
            found.map(|layout| layout.charset.clone())
        };
        assert_eq!(charset(&history, 1, 2), None);
        assert_eq!(charset(&history, 5, 2).as_deref(), Some("first"));
        assert_eq!(charset(&history, 5, 9).as_deref(), Some("first"));
        assert_eq!(charset(&history, 12, 9).as_deref(), Some("second"));
        assert_eq!(charset(&history, 5, 25).as_deref(), Some("third"));
        forget_later(&mut history, &name, |position| at(12).covers(position)).expect("positions");
        assert_eq!(history.versions("shop.goods").len(), 2);
        let change = vec![(name.clone(), layout("again"), "ALTER".to_owned())];
        append(&mut history, change, &at(21).to_string(), &at(15).to_string()).await.expect("written");
        let kept: Vec<&str> =
            history.versions("shop.goods").iter().map(|version| version.layout.charset.as_str()).collect();
        assert_eq!(kept, ["second", "again"]);
    }
}
