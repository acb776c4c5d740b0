//! Columns encoded anew, and the part of a new file that holds them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FooterTail, ParquetMetaData};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;

use crate::lake::data_file::{READ_ROWS, column_properties};

/// One column of one row group.
#[derive(Clone)]
pub struct Encoded {
    bytes: Bytes,
    leaves: Vec<ColumnCloseResult>,
}

/// Encodes a column of a row group.
pub struct ColumnEncoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: Arc<Schema>,
    rows: u64,
}

impl ColumnEncoder {
    pub fn new(field: Field) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![field]));
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(column_properties()))?;
        Ok(Self { writer, schema, rows: 0 })
    }

    pub fn write(&mut self, values: ArrayRef) -> Result<()> {
        self.rows += values.len() as u64;
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), vec![values])?)
    }

    pub fn finish(mut self) -> Result<Encoded> {
        let metadata = self.writer.finish()?;
        let [group] = metadata.row_groups() else {
            return Err(ParquetError::General(format!("a column came out in {} parts", metadata.num_row_groups())));
        };
        let column_index = metadata.column_index().and_then(|groups| groups.first());
        let offset_index = metadata.offset_index().and_then(|groups| groups.first());
        let leaves = group
            .columns()
            .iter()
            .enumerate()
            .map(|(leaf, chunk)| ColumnCloseResult {
                bytes_written: chunk.compressed_size() as u64,
                rows_written: self.rows,
                metadata: chunk.clone(),
                bloom_filter: None,
                column_index: column_index.and_then(|leaves| leaves.get(leaf)).cloned(),
                offset_index: offset_index.and_then(|leaves| leaves.get(leaf)).cloned(),
            })
            .collect();
        Ok(Encoded { bytes: Bytes::from(std::mem::take(self.writer.inner_mut())), leaves })
    }
}

/// Columns that have one value in all rows. Row groups of the same number of rows share one encoding.
#[derive(Default)]
pub struct Constants {
    encoded: HashMap<(String, u64), Encoded>,
}

impl Constants {
    pub fn encode(&mut self, field: &Field, value: &ArrayRef, rows: u64) -> Result<Encoded> {
        let key = (field.name().clone(), rows);
        if let Some(encoded) = self.encoded.get(&key) {
            return Ok(encoded.clone());
        }
        let mut encoder = ColumnEncoder::new(field.clone())?;
        let block = repeated(value, rows.min(READ_ROWS as u64) as usize)?;
        let mut left = rows;
        while left > 0 {
            let count = left.min(block.len() as u64);
            encoder.write(block.slice(0, count as usize))?;
            left -= count;
        }
        let encoded = encoder.finish()?;
        self.encoded.insert(key, encoded.clone());
        Ok(encoded)
    }
}

/// The array's one value, `count` times.
pub fn repeated(value: &ArrayRef, count: usize) -> std::result::Result<ArrayRef, ArrowError> {
    take(value, &UInt32Array::from(vec![0; count]), None)
}

/// What follows the old file's bytes: column chunks and page indexes of the columns encoded anew, at their final offsets.
///
/// It is a Parquet file of these columns alone, written as if the old file's bytes were its beginning; of its own footer
/// only the description is used.
pub struct Tail {
    writer: SerializedFileWriter<Behind>,
}

impl Tail {
    pub fn new(prefix: u64, fields: Vec<Field>) -> Result<Self> {
        let schema = ArrowSchemaConverter::new().convert(&Schema::new(fields))?;
        let properties: WriterPropertiesPtr = Arc::new(column_properties());
        let sink = Behind { skip: prefix, kept: Vec::new() };
        let mut writer = SerializedFileWriter::new(sink, schema.root_schema_ptr(), properties)?;
        // Only counted: the sink keeps nothing of it.
        let zeros = vec![0; 1 << 20];
        let mut left = prefix - writer.bytes_written() as u64;
        while left > 0 {
            let count = left.min(zeros.len() as u64);
            writer.write_all(&zeros[..count as usize])?;
            left -= count;
        }
        Ok(Self { writer })
    }

    /// The next row group, all its new columns.
    pub fn write(&mut self, columns: Vec<Encoded>) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        for column in columns {
            for leaf in column.leaves {
                group.append_column(&column.bytes, leaf)?;
            }
        }
        group.close()?;
        Ok(())
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Result<Bytes> {
        self.writer.flush()?;
        Ok(Bytes::from(std::mem::take(&mut self.writer.inner_mut().kept)))
    }

    /// The rest, and what describes it all.
    pub fn finish(mut self) -> Result<(Bytes, ParquetMetaData)> {
        let metadata = self.writer.finish()?;
        let mut rest = std::mem::take(&mut self.writer.inner_mut().kept);
        const END_BYTES: usize = 8;
        let footer = FooterTail::try_from(rest.split_at(rest.len().saturating_sub(END_BYTES)).1)?;
        rest.truncate(rest.len().saturating_sub(END_BYTES + footer.metadata_length()));
        Ok((Bytes::from(rest), metadata))
    }
}

/// Forgets the first `skip` bytes.
struct Behind {
    skip: u64,
    kept: Vec<u8>,
}

impl Write for Behind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len() as u64) as usize;
        self.skip -= skipped as u64;
        self.kept.extend_from_slice(&bytes[skipped..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
