//! Reads one chunk of a table and puts it into files that nobody sees yet.
//!
//! The rows are of a short transaction of the chunk's own. They are brought into the shape that the table had when the chunk
//! was opened; whether it still has that shape is asked again when they are merged.

use std::sync::Arc;

use arrow::error::ArrowError;
use tokio::sync::mpsc;

use super::Error;
use super::throttle::Throttle;
use crate::lake::{self, ChunkWriter, StagedChunk};
use crate::schema::{Op, Shape, TableName, TableRows, TableSchema, ValueCounts};
use crate::source::{self, Chunk, ChunkEvent, ChunkRows, Position, Source};

/// Batches between the reader and the writer.
const CHANNEL_BATCHES: usize = 2;

/// A chunk that was read and written.
pub struct Staged {
    pub chunk: StagedChunk,
    pub rows: u64,
    /// What it sees is not beyond this position.
    pub high: Position,
    /// Values that have no faithful lake form.
    pub values: ValueCounts,
}

/// What came of reading one.
pub(super) enum Outcome {
    Staged(Staged),
    /// The source's table has other columns than those that the stream has reached: in front of this position they changed.
    OtherColumns {
        before: Position,
        finding: String,
    },
}

/// Reads a chunk. An error leaves nothing behind that anybody refers to.
pub(super) async fn read<S: Source>(
    source: &S,
    table: &TableName,
    chunk: &Chunk,
    mut writer: ChunkWriter,
    throttle: &Throttle,
) -> Result<Outcome, Error> {
    let shape = writer.shape().clone();
    let (sender, rows) = ChunkRowsInShape::new(&shape, throttle);
    let (read, written) = tokio::join!(source.read_chunk(table, chunk, None, sender), write(rows, &mut writer));
    let error: Error = match (read, written) {
        (Ok(read), Ok(Written::Rows(values))) => {
            let staged = writer.finish().await?;
            return Ok(Outcome::Staged(Staged { chunk: staged, rows: read.rows, high: read.high, values }));
        }
        (_, Ok(Written::OtherColumns(finding))) => {
            writer.abort().await;
            return Ok(Outcome::OtherColumns { before: source.head().await?, finding });
        }
        // The reader only notices that the writer is gone; the writer knows why.
        (_, Err(cause)) => cause,
        (Err(cause), _) => cause.into(),
    };
    writer.abort().await;
    Err(error)
}

enum Written {
    Rows(ValueCounts),
    OtherColumns(String),
}

async fn write(mut rows: ChunkRowsInShape<'_>, writer: &mut ChunkWriter) -> Result<Written, Error> {
    let mut values = ValueCounts::default();
    let table = writer.shape().lake.name.to_string();
    let misfit = |source| lake::Error::Arrow { table: table.clone(), source };
    loop {
        match rows.next().await.map_err(misfit)? {
            InShape::Rows(rows) => {
                values.add(&rows.schema, &rows.unfaithful);
                writer.write(&rows.rows).await?;
            }
            InShape::OtherColumns(finding) => return Ok(Written::OtherColumns(finding)),
            InShape::End => return Ok(Written::Rows(values)),
        }
    }
}

/// How chunks of a table are looked through, without being written.
pub(super) struct ChunkReader<'a, S> {
    pub source: &'a S,
    pub table: &'a TableName,
    pub shape: &'a Shape,
    pub throttle: &'a Throttle,
}

/// What came of looking through one.
pub(super) enum Reading {
    Done {
        high: Position,
        rows: u64,
    },
    /// The source's table has other columns than the shape.
    OtherColumns(String),
}

/// Rows that can't be arranged as the shape has them.
pub(super) struct Misfit {
    pub table: String,
    pub cause: ArrowError,
}

impl<S: Source> ChunkReader<'_, S> {
    /// Reads a chunk, or those of its rows that `filter` holds for, and hands them on.
    pub async fn read<E: From<source::Error> + From<Misfit>>(
        &self,
        chunk: &Chunk,
        filter: Option<&str>,
        mut take: impl FnMut(&TableRows) -> Result<(), E>,
    ) -> Result<Reading, E> {
        let (sender, mut rows) = ChunkRowsInShape::new(self.shape, self.throttle);
        let look = async move {
            loop {
                match rows.next().await.map_err(|cause| Misfit { table: self.table.to_string(), cause })? {
                    InShape::Rows(rows) => take(&rows)?,
                    InShape::OtherColumns(finding) => return Ok(Some(finding)),
                    InShape::End => return Ok::<_, E>(None),
                }
            }
        };
        let (read, looked) = tokio::join!(self.source.read_chunk(self.table, chunk, filter, sender), look);
        if let Some(difference) = looked? {
            return Ok(Reading::OtherColumns(difference));
        }
        let read = read?;
        Ok(Reading::Done { high: read.high, rows: read.rows })
    }
}

/// The rows of a chunk, as rows of a table of the lake.
pub(super) struct ChunkRowsInShape<'a> {
    events: mpsc::Receiver<ChunkEvent>,
    shape: &'a Shape,
    throttle: &'a Throttle,
    schema: Option<Arc<TableSchema>>,
    /// Taken, and not paid for yet.
    taken: u64,
}

pub(super) enum InShape {
    Rows(TableRows),
    /// The source's table has other columns than the shape.
    OtherColumns(String),
    End,
}

impl<'a> ChunkRowsInShape<'a> {
    /// The sender is for [`Source::read_chunk`].
    pub fn new(shape: &'a Shape, throttle: &'a Throttle) -> (mpsc::Sender<ChunkEvent>, Self) {
        let (sender, events) = mpsc::channel(CHANNEL_BATCHES);
        (sender, Self { events, shape, throttle, schema: None, taken: 0 })
    }

    /// The next rows, at the throttle's pace.
    pub async fn next(&mut self) -> Result<InShape, ArrowError> {
        self.throttle.take(std::mem::take(&mut self.taken)).await;
        while let Some(event) = self.events.recv().await {
            match event {
                ChunkEvent::Schema(read) => {
                    if let Some(finding) = difference(self.shape, &read) {
                        return Ok(InShape::OtherColumns(finding));
                    }
                    self.schema = Some(read);
                }
                ChunkEvent::Rows(ChunkRows { rows, unfaithful }) => {
                    let Some(schema) = self.schema.clone() else { continue };
                    self.taken = rows.num_rows() as u64;
                    let ops = vec![Op::Insert; rows.num_rows()];
                    let rows = TableRows { schema, rows, ops, unchanged: Vec::new(), unfaithful };
                    return self.shape.project(rows).map(InShape::Rows);
                }
            }
        }
        Ok(InShape::End)
    }
}

/// Why rows of this schema have no place in the shape.
fn difference(shape: &Shape, read: &TableSchema) -> Option<String> {
    let ours = shape.source_schema();
    let mut theirs = read.columns.iter().filter(|column| !shape.ignored.contains(&column.name));
    let unknown = theirs.find_map(|column| match ours.columns.iter().find(|held| held.name == column.name) {
        None => Some(format!("column `{}` is not in the lake's table", column.name)),
        Some(held) if held.lake_type != column.lake_type => {
            Some(format!("column `{}` is {}, not {}", column.name, column.lake_type, held.lake_type))
        }
        Some(_) => None,
    });
    let gone = || {
        let column = ours.columns.iter().find(|held| read.column_index(&held.name).is_none())?;
        Some(format!("column `{}` is not there", column.name))
    };
    let key = |schema: &TableSchema| -> Vec<String> {
        schema.key.iter().map(|&index| schema.columns[index].name.clone()).collect()
    };
    let other_key = || (key(&ours) != key(read)).then(|| format!("its key is ({})", key(read).join(", ")));
    unknown.or_else(gone).or_else(other_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, LakeType, Policy, RowIdentity};

    fn schema(columns: &[(&str, LakeType)], key: &[usize]) -> TableSchema {
        let column = |(name, lake_type): &(&str, LakeType)| Column {
            name: (*name).into(),
            source_type: "as it may be declared".into(),
            lake_type: *lake_type,
            nullable: true,
            policy: Policy::Null,
        };
        TableSchema {
            name: TableName::new("shop", "goods"),
            columns: columns.iter().map(column).collect(),
            key: key.to_vec(),
            partition_by: vec![],
            identity: RowIdentity::Key,
        }
    }

    #[test]
    fn rows_of_other_columns_have_no_place_and_ignored_ones_do_not_count() {
        let (id, name) = (("id", LakeType::Long), ("name", LakeType::String));
        let mut shape = Shape::of(Arc::new(schema(&[id, name], &[0])));
        shape.ignored.insert("new".into());
        let told = |columns: &[(&str, LakeType)], key: &[usize]| difference(&shape, &schema(columns, key));
        assert_eq!(told(&[id, name], &[0]), None);
        assert_eq!(told(&[name, ("new", LakeType::Date), id], &[2]), None);
        for (columns, key, expected) in [
            (vec![id], vec![0], "`name` is not there"),
            (vec![id, name, ("x", LakeType::Date)], vec![0], "`x` is not in the lake's table"),
            (vec![("id", LakeType::Integer), name], vec![0], "`id` is integer, not long"),
            (vec![id, name], vec![0, 1], "its key is (id, name)"),
        ] {
            assert!(told(&columns, &key).is_some_and(|text| text.contains(expected)), "{expected}");
        }
    }
}
