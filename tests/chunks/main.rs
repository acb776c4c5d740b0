//! Loads in chunks on real servers, through the public `Source` trait: the chunks' rows together are the snapshot's, whatever
//! the key is made of; and what chunks see is within what `visible` and `high` say.

#[path = "../support/mod.rs"]
mod support;

mod mysql;
mod postgres;
mod visibility;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use lakeward::schema::{TableName, TableSchema};
use lakeward::source::{Chunk, ChunkEvent, ChunkRead, Class, Error, SnapshotEvent, Source};
use tokio::sync::mpsc;

/// Each row as text, in the order of the texts.
pub fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let formatters: Vec<ArrayFormatter> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("every type has a text"))
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> =
                formatters.iter().map(|column| format!("{:?}", column.value(row).to_string())).collect();
            rows.push(values.join("|"));
        }
    }
    rows.sort();
    rows
}

pub async fn snapshot<S: Source>(source: &S, table: &TableName) -> RecordBatch {
    let (out, mut events) = mpsc::channel(4);
    let tables = [table.clone()];
    let gather = async {
        let mut found: Option<(Arc<TableSchema>, Vec<RecordBatch>)> = None;
        while let Some(event) = events.recv().await {
            match event {
                SnapshotEvent::Table { schema, .. } => found = Some((schema, Vec::new())),
                SnapshotEvent::Rows { rows, .. } => found.as_mut().expect("its table first").1.push(rows),
                SnapshotEvent::TableDone => {}
            }
        }
        found
    };
    let (loaded, found) = tokio::join!(source.snapshot(&tables, out), gather);
    loaded.unwrap_or_else(|error| panic!("{table}: {error}"));
    let (schema, batches) = found.expect("a table was told");
    concat_batches(&schema.arrow(), &batches).expect("one schema")
}

pub async fn read<S: Source>(
    source: &S,
    table: &TableName,
    chunk: &Chunk,
    filter: Option<&str>,
) -> Result<(ChunkRead, RecordBatch), Error> {
    let (out, mut events) = mpsc::channel(4);
    let gather = async {
        let mut found: Option<(Arc<TableSchema>, Vec<RecordBatch>)> = None;
        while let Some(event) = events.recv().await {
            match event {
                ChunkEvent::Schema(schema) => {
                    assert!(found.is_none(), "the schema comes once");
                    found = Some((schema, Vec::new()));
                }
                ChunkEvent::Rows(rows) => found.as_mut().expect("the schema first").1.push(rows.rows),
            }
        }
        found
    };
    let (read, found) = tokio::join!(source.read_chunk(table, chunk, filter, out), gather);
    let read = read?;
    let (schema, batches) = found.expect("a schema was told");
    assert_eq!(schema, read.schema);
    let batch = concat_batches(&schema.arrow(), &batches).expect("one schema");
    assert_eq!(batch.num_rows() as u64, read.rows);
    Ok((read, batch))
}

/// As discovery finds it.
pub async fn schema<S: Source>(source: &S, table: &TableName) -> TableSchema {
    let found = source.discover().await.expect("discovery");
    found.into_iter().find(|schema| schema.name == *table).unwrap_or_else(|| panic!("{table} is not discovered"))
}

/// All chunks of a table, each of `size` rows, as they are told: every bound through the text that the lake keeps of it.
pub async fn walk<S: Source>(source: &S, table: &TableSchema, size: u64) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut after = None;
    loop {
        let chunk = source.next_chunk(table, after.as_ref(), size).await;
        let chunk = chunk.unwrap_or_else(|error| panic!("{}: {error}", table.name));
        assert_eq!(chunk.after, after);
        let kept = serde_json::to_string(&chunk).expect("writes");
        assert_eq!(serde_json::from_str::<Chunk>(&kept).expect("reads"), chunk);
        after.clone_from(&chunk.to);
        chunks.push(chunk);
        if after.is_none() {
            return chunks;
        }
        assert!(chunks.len() < 1000, "{}: the chunks have no end", table.name);
    }
}

/// In a chunk: few, so that there are many bounds.
const ROWS: u64 = 11;

/// Walks the table and compares with what a snapshot reads. Chunks of 11 rows, save the last.
pub async fn chunks_are_the_snapshot<S: Source>(source: &S, name: &TableName) {
    let table = schema(source, name).await;
    let expected = snapshot(source, name).await;
    let chunks = walk(source, &table, ROWS).await;
    let full = expected.num_rows() / ROWS as usize;
    assert_eq!(chunks.len(), full + 1, "{name}: {} rows in chunks of {ROWS}", expected.num_rows());
    let mut found = Vec::new();
    for (place, chunk) in chunks.iter().enumerate() {
        let (read, batch) = read(source, name, chunk, None).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(*read.schema, table, "{name}");
        if place < full {
            assert_eq!(batch.num_rows() as u64, ROWS, "{name}: chunk {place} ({:?})", chunk.to);
        }
        found.push(batch);
    }
    assert_eq!(rows(&found), rows(&[expected]), "{name}");
}

/// Conditions, and which of the numbers from 1 to 100 in column `n` they leave.
pub async fn conditions_hold<S: Source>(source: &S, name: &TableName, unusable: &[&str]) {
    let table = schema(source, name).await;
    let all = rows(&[snapshot(source, name).await]);
    let chunks = walk(source, &table, 40).await;
    assert_eq!(chunks.len(), 3);
    for (filter, wanted) in [
        ("n > 90", (91..=100).collect::<Vec<i64>>()),
        ("n = 1 OR n = 50", vec![1, 50]),
        ("n <= 3 -- the first", vec![1, 2, 3]),
        ("n IN (99, 200) /* few */", vec![99]),
        ("note = 'it''s 7'", vec![7]),
    ] {
        let mut found = Vec::new();
        for chunk in &chunks {
            found.push(
                read(source, name, chunk, Some(filter)).await.unwrap_or_else(|error| panic!("{filter}: {error}")).1,
            );
        }
        let wanted: Vec<String> =
            all.iter().filter(|row| wanted.iter().any(|n| row.starts_with(&format!("\"{n}\"|")))).cloned().collect();
        assert_eq!(rows(&found), wanted, "{filter}");
    }
    for filter in unusable {
        let error = read(source, name, &chunks[1], Some(filter)).await.expect_err(filter);
        assert!(matches!(&error, Error::Setting { .. }), "{filter}: {error}");
        assert_eq!(error.class(), Class::Definite);
        let told = error.to_string();
        assert!(told.contains(filter) && told.contains(&name.to_string()), "{told}");
    }
    assert_eq!(rows(&[snapshot(source, name).await]), all, "nothing was changed");
}
