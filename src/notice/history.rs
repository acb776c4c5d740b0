//! The history of all schema changes as a Delta table, `<lake>/_lakeward/schema_changes`: one row for each step.
//!
//! It is fed from the outboxes of all sources; each source counts the outbox entry it has come to in the table itself
//! (`txn`), so that an entry is there once, whatever happens. An entry that was made a second time after a crash has the
//! same id and is known by that.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use backon::ExponentialBackoff;
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::Error;
use super::delivery::{Pauses, growing};
use crate::lake::{self, AppendTable, Lake};
use crate::ledger::{self, FIRST, Outbox, OutboxEntry};
use crate::schema::{Column, ColumnView, LakeType, Policy, RowIdentity, StepRecord, TableName, TableSchema};

const FOLDERS: [&str; 2] = ["_lakeward", "schema_changes"];

/// Entries in one commit.
const ENTRIES_MAX: usize = 500;

/// How many entries before the first new one are looked at for one that was made twice: a crash makes again only what the
/// last commits told.
const LOOKED_BACK: u64 = 500;

/// Where the table is.
pub fn schema_changes_url(lake: &Lake) -> Result<Url, lake::Error> {
    Ok(table(lake)?.url().clone())
}

fn table(lake: &Lake) -> Result<AppendTable, lake::Error> {
    AppendTable::new(
        lake,
        &FOLDERS,
        Arc::new(schema()),
        "Changes of the tables' schemas, one row for each step, kept by lakeward",
    )
}

/// Name, type and meaning of each column.
const COLUMNS: [(&str, LakeType, &str); 19] = [
    ("id", LakeType::String, "id of the event, as in notices"),
    ("step", LakeType::Integer, "counts the steps of one change, from 1"),
    ("event", LakeType::String, "kind of the event, such as schema.changed"),
    ("source", LakeType::String, "name of the source"),
    ("table_name", LakeType::String, "database.table or schema.table"),
    ("kind", LakeType::String, "add, drop, rename, widen, change, key, truncate or drop_table"),
    ("column_name", LakeType::String, "the column as it was called before"),
    ("new_name", LakeType::String, "what it is called now, of a rename"),
    ("source_type_before", LakeType::String, "as the source declared it"),
    ("source_type_after", LakeType::String, "as the source declares it"),
    (
        "outcome",
        LakeType::String,
        "applied, kept, ignored, held, approved, rejected, refused or resync (the table is loaded again)",
    ),
    ("description", LakeType::String, "in words"),
    ("statement", LakeType::String, "the DDL, where the log tells it"),
    ("change", LakeType::String, "id of the change, as lakeward schema approve takes it"),
    ("position", LakeType::String, "where in the source's log"),
    ("changed_at", LakeType::Timestamp, "when, by the source's clock"),
    ("lake_version", LakeType::Long, "version of the Delta table that has it"),
    ("recorded_at", LakeType::Timestamp, "when lakeward entered it"),
    ("outbox_number", LakeType::Long, "its number in the source's outbox"),
];

fn schema() -> TableSchema {
    let column = |(name, lake_type, meaning): (&str, LakeType, &str)| Column {
        name: name.to_owned(),
        source_type: meaning.to_owned(),
        lake_type,
        nullable: true,
        policy: Policy::default(),
    };
    TableSchema {
        name: TableName::new(FOLDERS[0], FOLDERS[1]),
        columns: COLUMNS.into_iter().map(column).collect(),
        key: Vec::new(),
        partition_by: Vec::new(),
        identity: RowIdentity::AppendOnly,
    }
}

/// Feeds the table from one source's outbox.
pub struct Feed {
    lake: Lake,
    source: String,
    outbox: Outbox,
    passed: Arc<AtomicU64>,
    pauses: Pauses,
    pause: ExponentialBackoff,
    place: Option<Place>,
}

/// Known once the table and the outbox have been read.
struct Place {
    table: AppendTable,
    next: u64,
    /// Of entries before it.
    seen: HashSet<Uuid>,
}

/// One row.
struct Row<'a> {
    entry: &'a OutboxEntry,
    number: u64,
    /// Counted from 1; `None` for what happens to a whole table.
    step: Option<(i32, &'a StepRecord)>,
}

impl Feed {
    pub fn new(lake: &Lake, source: &str, outbox: Outbox, passed: Arc<AtomicU64>, pauses: Pauses) -> Self {
        Self {
            lake: lake.clone(),
            source: source.to_owned(),
            outbox,
            passed,
            pauses,
            pause: growing(pauses.away),
            place: None,
        }
    }

    pub async fn run(mut self, ending: CancellationToken, mut news: watch::Receiver<Option<u64>>) {
        loop {
            news.mark_unchanged();
            match self.pass().await {
                Ok(()) if ending.is_cancelled() => return,
                Ok(()) => {
                    self.pause = growing(self.pauses.away);
                    tokio::select! {
                        () = sleep(self.pauses.poll) => {}
                        _ = news.changed() => {}
                        () = ending.cancelled() => {}
                    }
                }
                Err(error) => {
                    let pause = self.pause.next().unwrap_or(Duration::from_secs(300));
                    tracing::warn!(
                        source = self.source, %error, seconds = pause.as_secs_f64(),
                        "the table of schema changes is not up to date; trying again"
                    );
                    // It may hold what was just tried.
                    self.place = None;
                    if ending.is_cancelled() {
                        sleep(pause).await;
                    } else {
                        tokio::select! {
                            () = sleep(pause) => {}
                            () = ending.cancelled() => {}
                        }
                    }
                }
            }
        }
    }

    /// Appends everything that is new.
    async fn pass(&mut self) -> Result<(), Error> {
        let mut place = match self.place.take() {
            Some(place) => place,
            None => self.find_place().await?,
        };
        let done = self.feed(&mut place).await;
        self.place = Some(place);
        done
    }

    async fn find_place(&self) -> Result<Place, Error> {
        let table = table(&self.lake)?;
        let counted = table.counted(&self.writer()).await?.and_then(|count| u64::try_from(count).ok());
        let numbers = self.outbox.numbers().await?;
        let first = numbers.first().copied().unwrap_or(FIRST);
        let next = counted.map_or(first, |count| count + 1).max(first);
        let mut seen = HashSet::new();
        for number in next.saturating_sub(LOOKED_BACK).max(first)..next {
            match self.outbox.read(number).await {
                Ok(entry) => seen.extend(entry.map(|entry| entry.id)),
                Err(ledger::Error::Unreadable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.passed.store(next, Ordering::Relaxed);
        Ok(Place { table, next, seen })
    }

    fn writer(&self) -> String {
        format!("{}/notices", self.source)
    }

    async fn feed(&self, place: &mut Place) -> Result<(), Error> {
        loop {
            let mut entries: Vec<(u64, OutboxEntry)> = Vec::new();
            let mut number = place.next;
            while entries.len() < ENTRIES_MAX {
                match self.outbox.read(number).await {
                    Ok(Some(entry)) => {
                        // Other kinds are no schema changes.
                        let fits = entry.kind.starts_with("schema.") || entry.kind.starts_with("table.");
                        if fits && place.seen.insert(entry.id) {
                            entries.push((number, entry));
                        }
                    }
                    Ok(None) => break,
                    Err(error @ ledger::Error::Unreadable { .. }) => {
                        tracing::error!(source = self.source, %error, "a schema change is left out of the history");
                    }
                    Err(error) => return Err(error.into()),
                }
                number += 1;
            }
            if number == place.next {
                return Ok(());
            }
            // What is not for the table is passed by the next entry that is.
            if !entries.is_empty() {
                let rows: Vec<Row<'_>> = entries.iter().flat_map(|(number, entry)| rows_of(entry, *number)).collect();
                let batch =
                    record_batch(&rows).map_err(|source| lake::Error::Arrow { table: FOLDERS.join("/"), source })?;
                let count = i64::try_from(number - 1).unwrap_or(i64::MAX);
                place.table.append(&batch, &self.writer(), count).await?;
            }
            place.next = number;
            self.passed.store(number, Ordering::Relaxed);
        }
    }
}

fn rows_of(entry: &OutboxEntry, number: u64) -> Vec<Row<'_>> {
    let row = |step| Row { entry, number, step };
    match &entry.record {
        Some(record) if !record.steps.is_empty() => {
            record.steps.iter().zip(1..).map(|(step, count)| row(Some((count, step)))).collect()
        }
        _ => vec![row(None)],
    }
}

impl Row<'_> {
    fn text(&self, column: &str) -> Option<String> {
        let entry = self.entry;
        let record = entry.record.as_ref();
        let step = self.step.map(|(_, step)| step);
        let source_type = |columns: &[ColumnView], name: Option<&String>| {
            columns.iter().find(|column| Some(&column.name) == name).map(|column| column.source_type.clone())
        };
        match column {
            "id" => Some(entry.id.to_string()),
            "event" => Some(entry.kind.clone()),
            "source" => Some(entry.source.clone()),
            "table_name" => entry.table.clone(),
            "kind" => step.map(|step| step.kind.to_string()),
            "column_name" => step?.column.clone(),
            "new_name" => step?.new_name.clone(),
            "source_type_before" => source_type(&record?.before, step?.column.as_ref()),
            "source_type_after" => source_type(&record?.after, step?.new_name.as_ref().or(step?.column.as_ref())),
            "outcome" => serde_json::to_value(step?.outcome).ok()?.as_str().map(str::to_owned),
            "description" => match step {
                Some(step) => Some(step.description.clone()),
                None => entry.detail["reason"].as_str().map(str::to_owned),
            },
            "statement" => record.and_then(|record| record.statement.clone()),
            "change" => record.map(|record| record.id.to_string()),
            "position" => Some(entry.position.clone()),
            _ => None,
        }
    }

    fn number(&self, column: &str) -> Option<i64> {
        match column {
            "lake_version" => self.entry.lake_version.and_then(|version| i64::try_from(version).ok()),
            "outbox_number" => i64::try_from(self.number).ok(),
            _ => None,
        }
    }

    fn time(&self, column: &str) -> Option<DateTime<Utc>> {
        match column {
            "changed_at" => self.entry.record.as_ref().and_then(|record| record.at),
            "recorded_at" => Some(self.entry.at),
            _ => None,
        }
    }
}

fn record_batch(rows: &[Row<'_>]) -> Result<RecordBatch, ArrowError> {
    let arrays = COLUMNS.map(|(name, lake_type, _)| -> ArrayRef {
        match lake_type {
            LakeType::Integer => {
                Arc::new(rows.iter().map(|row| row.step.map(|(count, _)| count)).collect::<Int32Array>())
            }
            LakeType::Long => Arc::new(rows.iter().map(|row| row.number(name)).collect::<Int64Array>()),
            LakeType::Timestamp => {
                let micros = rows.iter().map(|row| row.time(name).map(|time| time.timestamp_micros()));
                Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            _ => Arc::new(rows.iter().map(|row| row.text(name)).collect::<StringArray>()),
        }
    });
    RecordBatch::try_new(schema().arrow(), arrays.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::sample;

    #[test]
    fn each_step_is_a_row_with_the_types_before_and_after() {
        let entry = sample::entry("schema.changed", "booking", "booking.coupons");
        let added = sample::entry("table.added", "booking", "booking.coupons");
        let rows: Vec<Row<'_>> = [rows_of(&entry, 7), rows_of(&added, 8)].into_iter().flatten().collect();
        let batch = record_batch(&rows).expect("every column has its type");
        assert_eq!((batch.num_rows(), batch.num_columns()), (3, COLUMNS.len()));
        let types = |row: &Row<'_>| (row.text("source_type_before"), row.text("source_type_after"));
        assert_eq!(types(&rows[0]), (None, Some("varchar(20)".to_owned())));
        assert_eq!(types(&rows[1]), (Some("int".to_owned()), Some("int".to_owned())));
        assert_eq!(rows[1].text("outcome").as_deref(), Some("applied"));
        assert_eq!((rows[2].text("kind"), rows[2].text("event")), (None, Some("table.added".to_owned())));
    }
}
