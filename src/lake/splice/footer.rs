//! A file's footer: read, and written anew for other columns over the same bytes.
//!
//! The footer is the only place that says where a column's bytes lie, so a file that begins with the old file's bytes can
//! name them differently, leave some out, and point to others further back. Two rules keep every reader right:
//!
//! * Spark's reader takes a row group in the split that holds the *middle* of it: the offset of the first column's bytes
//!   plus half the row group's size. Were the first column's bytes behind the others', that middle could lie past the end
//!   of the file, in no split at all, and the rows would be missing without a word. So the first column is the one whose
//!   bytes come first, in every row group, or the file is not spliced.
//! * Bytes that are carried over are described as they were: type, nullability and nesting must be the same.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, encode_arrow_schema, parquet_to_arrow_schema};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, FooterTail, KeyValue, ParquetMetaData, ParquetMetaDataBuilder,
    ParquetMetaDataOptions, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, SchemaDescPtr, SchemaDescriptor};

use super::plan::{PlannedColumn, Values};
use crate::lake::data_file::WRITER_MARK;

/// Read at once from a file's end; larger footers take a second read.
const TAIL_BYTES: u64 = 64 << 10;

/// The length of the footer and the magic number behind it.
const END_BYTES: u64 = 8;

/// What a file says about itself.
pub struct Footer {
    pub metadata: Arc<ParquetMetaData>,
    pub arrow: Schema,
    /// Bytes before the footer: column chunks and page indexes.
    pub prefix: u64,
}

impl Footer {
    pub async fn read(reader: &mut impl AsyncFileReader, size: u64) -> Result<Self> {
        let mut tail = reader.get_bytes(size.saturating_sub(TAIL_BYTES)..size).await?;
        let too_short = || ParquetError::General(format!("a file of {size} bytes is not Parquet"));
        let end = tail.len().checked_sub(END_BYTES as usize).ok_or_else(too_short)?;
        let end = FooterTail::try_from(&tail[end..])?;
        if end.is_encrypted_footer() {
            return Err(ParquetError::General("its footer is encrypted".to_owned()));
        }
        let length = end.metadata_length() as u64;
        let prefix = size.checked_sub(END_BYTES + length).ok_or_else(too_short)?;
        if (tail.len() as u64) < END_BYTES + length {
            tail = reader.get_bytes(prefix..size).await?;
        }
        let start = tail.len() - (END_BYTES + length) as usize;
        // The page indexes are not read: what the footer says of them stays as it is. The pages' encodings are, whole.
        let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
        let text = &tail[start..start + length as usize];
        let metadata = ParquetMetaDataReader::decode_metadata_with_options(text, Some(&options))?;
        let file = metadata.file_metadata();
        let arrow = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        Ok(Self { arrow, metadata: Arc::new(metadata), prefix })
    }

    pub fn rows(&self) -> u64 {
        self.metadata.file_metadata().num_rows().max(0) as u64
    }

    /// Whether lakeward wrote the file.
    pub fn is_ours(&self) -> bool {
        let notes = self.metadata.file_metadata().key_value_metadata();
        notes.is_some_and(|notes| notes.iter().any(|note| note.key == WRITER_MARK))
    }

    /// Row groups that have rows. The others are left out of new footers.
    pub fn row_groups(&self) -> impl Iterator<Item = (usize, &RowGroupMetaData)> {
        self.metadata.row_groups().iter().enumerate().filter(|(_, group)| group.num_rows() > 0)
    }

    /// The leaf columns of the top-level column `root`.
    fn leaves(&self, root: usize) -> Vec<usize> {
        leaves_of(self.metadata.file_metadata().schema_descr(), root)
    }
}

fn leaves_of(schema: &SchemaDescriptor, root: usize) -> Vec<usize> {
    (0..schema.num_columns()).filter(|&leaf| schema.get_column_root_idx(leaf) == root).collect()
}

/// A column of the new file.
pub struct LaidColumn {
    pub field: Field,
    pub values: Values,
    /// Leaf columns of the old file whose bytes it has; none where it is encoded anew.
    carried: Vec<usize>,
}

impl LaidColumn {
    pub fn is_new(&self) -> bool {
        !matches!(self.values, Values::Carried(_))
    }
}

/// The columns of a new file in their physical order.
pub struct Layout {
    pub columns: Vec<LaidColumn>,
    schema: SchemaDescPtr,
}

impl Layout {
    /// Columns stay in the order they have in the file, new ones follow; then the rules of the module text. The error
    /// says which of them can't be kept.
    pub fn of(footer: &Footer, planned: &[PlannedColumn]) -> std::result::Result<Self, String> {
        let mut columns: Vec<(usize, LaidColumn)> = Vec::with_capacity(planned.len());
        for column in planned {
            let (place, field, carried) = match column.values {
                Values::Missing => continue,
                Values::Carried(root) => {
                    let field = footer.arrow.field(root);
                    if *field.data_type() != column.lake_type.arrow() {
                        return Err(format!("column `{}` is {} in the file", field.name(), field.data_type()));
                    }
                    (root, field.clone().with_name(&column.name), footer.leaves(root))
                }
                Values::Widened(root) => {
                    let nullable = footer.arrow.field(root).is_nullable();
                    (root, Field::new(&column.name, column.lake_type.arrow(), nullable), Vec::new())
                }
                Values::Constant(_) => {
                    (usize::MAX, Field::new(&column.name, column.lake_type.arrow(), column.nullable), Vec::new())
                }
            };
            columns.push((place, LaidColumn { field, values: column.values.clone(), carried }));
        }
        columns.sort_by_key(|(place, _)| *place);
        let mut columns: Vec<LaidColumn> = columns.into_iter().map(|(_, column)| column).collect();
        if columns.is_empty() {
            return Err("no column is left in it".to_owned());
        }
        let first = first_column(footer, &columns)?;
        columns[..=first].rotate_right(1);
        let fields: Vec<Field> = columns.iter().map(|column| column.field.clone()).collect();
        let schema = ArrowSchemaConverter::new().convert(&Schema::new(fields)).map_err(|cause| cause.to_string())?;
        let layout = Self { columns, schema: Arc::new(schema) };
        layout.check_carried(footer)?;
        Ok(layout)
    }

    fn check_carried(&self, footer: &Footer) -> std::result::Result<(), String> {
        let old = footer.metadata.file_metadata().schema_descr();
        for (root, column) in self.columns.iter().enumerate().filter(|(_, column)| !column.is_new()) {
            let leaves = leaves_of(&self.schema, root);
            let alike = leaves.len() == column.carried.len()
                && leaves
                    .iter()
                    .zip(&column.carried)
                    .all(|(&new, &carried)| same_encoding(&self.schema.column(new), &old.column(carried)));
            if !alike {
                return Err(format!("column `{}` is encoded otherwise than lakeward does", column.field.name()));
            }
        }
        Ok(())
    }

    /// Fields of the columns that are encoded anew.
    pub fn new_fields(&self) -> Vec<Field> {
        self.columns.iter().filter(|column| column.is_new()).map(|column| column.field.clone()).collect()
    }

    /// The new file's footer, with its length and the magic number. `tail` describes the columns encoded anew.
    pub fn footer(&self, footer: &Footer, tail: Option<&ParquetMetaData>) -> Result<Vec<u8>> {
        let mut groups = Vec::new();
        for (number, (_, group)) in footer.row_groups().enumerate() {
            let mut chunks: Vec<ColumnChunkMetaData> = Vec::with_capacity(self.schema.num_columns());
            let mut new = tail.map(|tail| tail.row_group(number).columns()).unwrap_or_default().iter();
            for (root, column) in self.columns.iter().enumerate() {
                for (place, leaf) in leaves_of(&self.schema, root).into_iter().enumerate() {
                    let chunk = if column.is_new() { new.next() } else { Some(group.column(column.carried[place])) };
                    let missing = || ParquetError::General(format!("column `{}` was not encoded", column.field.name()));
                    chunks.push(relabel(chunk.ok_or_else(missing)?, self.schema.column(leaf))?);
                }
            }
            let first = chunks.iter().map(start).min().unwrap_or_default();
            if chunks.first().map(start) != Some(first) {
                return Err(ParquetError::General(format!("row group {number} does not begin with its first column")));
            }
            let bytes = chunks.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
            groups.push(
                RowGroupMetaData::builder(self.schema.clone())
                    .set_num_rows(group.num_rows())
                    .set_total_byte_size(bytes)
                    .set_file_offset(first as i64)
                    .set_ordinal(number as i16)
                    .set_column_metadata(chunks)
                    .build()?,
            );
        }
        let old = footer.metadata.file_metadata();
        let fields: Vec<Field> = self.columns.iter().map(|column| column.field.clone()).collect();
        let mut notes = old.key_value_metadata().cloned().unwrap_or_default();
        notes.retain(|note| note.key != ARROW_SCHEMA_META_KEY);
        notes.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&Schema::new(fields))));
        let file = FileMetaData::new(
            old.version(),
            old.num_rows(),
            old.created_by().map(str::to_owned),
            Some(notes),
            self.schema.clone(),
            None,
        );
        let metadata = ParquetMetaDataBuilder::new(file).set_row_groups(groups).build();
        let mut text = Vec::new();
        ParquetMetaDataWriter::new(&mut text, &metadata).finish()?;
        Ok(text)
    }
}

/// The column whose bytes come first in every row group. New columns lie behind all others, row group by row group in
/// their own order.
fn first_column(footer: &Footer, columns: &[LaidColumn]) -> std::result::Result<usize, String> {
    let mut first: Option<usize> = None;
    for (number, group) in footer.row_groups() {
        let starts = columns.iter().enumerate().flat_map(|(index, column)| {
            column.carried.iter().enumerate().map(move |(place, &leaf)| (start(group.column(leaf)), index, place))
        });
        // Only new columns: the first of them it is.
        let Some((_, index, place)) = starts.min() else { return Ok(0) };
        if place != 0 {
            return Err(format!("column `{}` does not begin with its first part", columns[index].field.name()));
        }
        if first.is_some_and(|first| first != index) {
            return Err(format!("row group {number} begins with another column than those before it"));
        }
        first = Some(index);
    }
    Ok(first.unwrap_or(0))
}

/// Where a column chunk begins.
fn start(chunk: &ColumnChunkMetaData) -> u64 {
    chunk.byte_range().0
}

fn same_encoding(new: &ColumnDescriptor, old: &ColumnDescriptor) -> bool {
    new.physical_type() == old.physical_type()
        && new.logical_type_ref() == old.logical_type_ref()
        && new.converted_type() == old.converted_type()
        && new.max_def_level() == old.max_def_level()
        && new.max_rep_level() == old.max_rep_level()
        && new.self_type().get_basic_info().repetition() == old.self_type().get_basic_info().repetition()
        && (new.type_length(), new.type_precision(), new.type_scale())
            == (old.type_length(), old.type_precision(), old.type_scale())
}

/// The same bytes as another column.
fn relabel(chunk: &ColumnChunkMetaData, column: ColumnDescPtr) -> Result<ColumnChunkMetaData> {
    let mut builder = ColumnChunkMetaData::builder(column)
        .set_encodings_mask(*chunk.encodings_mask())
        .set_num_values(chunk.num_values())
        .set_compression_codec(chunk.compression_codec())
        .set_total_compressed_size(chunk.compressed_size())
        .set_total_uncompressed_size(chunk.uncompressed_size())
        .set_data_page_offset(chunk.data_page_offset())
        .set_dictionary_page_offset(chunk.dictionary_page_offset())
        .set_index_page_offset(chunk.index_page_offset())
        .set_bloom_filter_offset(chunk.bloom_filter_offset())
        .set_bloom_filter_length(chunk.bloom_filter_length())
        .set_offset_index_offset(chunk.offset_index_offset())
        .set_offset_index_length(chunk.offset_index_length())
        .set_column_index_offset(chunk.column_index_offset())
        .set_column_index_length(chunk.column_index_length())
        .set_unencoded_byte_array_data_bytes(chunk.unencoded_byte_array_data_bytes())
        .set_repetition_level_histogram(chunk.repetition_level_histogram().cloned())
        .set_definition_level_histogram(chunk.definition_level_histogram().cloned());
    if let Some(statistics) = chunk.statistics() {
        builder = builder.set_statistics(statistics.clone());
    }
    if let Some(statistics) = chunk.page_encoding_stats() {
        builder = builder.set_page_encoding_stats(statistics.clone());
    }
    builder.build()
}
