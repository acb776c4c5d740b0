//! Data files: Parquet objects, written once, read for key columns and for single values.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use delta_kernel::expressions::Scalar;
use delta_kernel::table_properties::DataSkippingNumIndexedCols;
use deltalake::datafile::DataFileWriter;
use deltalake::datafile::writer::{PartitionWriter, PartitionWriterConfig};
use deltalake::kernel::Add;
use deltalake::kernel::scalars::ScalarExt;
use futures::{Stream, TryStreamExt};
use indexmap::IndexMap;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection, RowSelectionPolicy, RowSelector};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, RowGroupMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use roaring::RoaringTreemap;

use super::Error;
use super::locator::KeyHash;
use super::object_reader::ObjectReader;
use crate::schema::{Column, LakeType, TableSchema};

/// Footer mark of files lakeward wrote: only these may be changed in place of a rewrite later on.
pub(super) const WRITER_MARK: &str = "lakeward.writer";

/// First loads and very large batches roll over to a new file at this size.
const SNAPSHOT_FILE_BYTES: NonZeroU64 = NonZeroU64::new(128 << 20).expect("not zero");

/// Rows read at a time.
pub(super) const READ_ROWS: usize = 8192;

/// Parts of a file (5 MiB each) on their way to the store at a time.
const UPLOADS_MAX: usize = 4;

/// Delta collects min and max for the first 32 columns by default, and so do we.
const STATISTICS_COLUMNS: DataSkippingNumIndexedCols = DataSkippingNumIndexedCols::NumColumns(32);

/// A live data file of an open table.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub add: Add,
    /// Physical rows, deleted ones counted.
    pub rows: u64,
    pub deleted: RoaringTreemap,
}

impl DataFile {
    pub fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(self.deleted.len())
    }
}

/// A file just written and its rows' keys in physical order, if the writer was told them.
#[derive(Debug)]
pub struct WrittenFile {
    pub add: Add,
    pub rows: u64,
    pub keys: Vec<KeyHash>,
}

/// When a writer begins another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// A partition's rows all go to one file.
    Never,
    /// Likewise, with a row group that many writers at once have room for.
    NeverInLittleMemory,
    /// At a size, and the row group being built stays within its own.
    At { file_bytes: NonZeroU64, row_group_bytes: usize },
}

impl Roll {
    /// For first loads.
    pub const SNAPSHOT: Self = Self::At { file_bytes: SNAPSHOT_FILE_BYTES, row_group_bytes: ROW_GROUP_BYTES };

    /// To files of this size, by a writer that may use so much memory.
    pub fn to_size(file_bytes: u64, memory_bytes: u64) -> Self {
        let file_bytes = NonZeroU64::new(file_bytes).unwrap_or(SNAPSHOT_FILE_BYTES);
        Self::At { file_bytes, row_group_bytes: row_group_within(memory_bytes) }
    }

    /// For a writer that may use so much memory.
    pub fn within(memory_bytes: u64) -> Self {
        Self::At { file_bytes: SNAPSHOT_FILE_BYTES, row_group_bytes: row_group_within(memory_bytes) }
    }
}

fn row_group_within(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / 8).unwrap_or(usize::MAX).clamp(1 << 20, ROW_GROUP_BYTES)
}

/// Encoded bytes of a row group, which the writer holds in memory until it is complete.
const ROW_GROUP_BYTES: usize = 64 << 20;

fn writer_properties(roll: Roll) -> WriterProperties {
    let row_group_bytes = match roll {
        Roll::Never => ROW_GROUP_BYTES,
        Roll::NeverInLittleMemory => ROW_GROUP_BYTES / 4,
        Roll::At { row_group_bytes, .. } => row_group_bytes,
    };
    encoding().set_max_row_group_bytes(Some(row_group_bytes)).build()
}

/// For a column of a row group that exists already.
pub(super) fn column_properties() -> WriterProperties {
    encoding().set_max_row_group_bytes(None).set_max_row_group_row_count(None).build()
}

fn encoding() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("lakeward version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(WRITER_MARK.to_owned(), env!("CARGO_PKG_VERSION").to_owned())]))
}

/// Writes rows to one data file per partition (more for a large first load) and remembers where each key lies.
pub struct TableWriter {
    table: String,
    store: Arc<dyn ObjectStore>,
    schema: Arc<TableSchema>,
    file_schema: SchemaRef,
    roll: Roll,
    partitions: HashMap<Box<[u8]>, Partition>,
    partition_rows: Option<RowConverter>,
}

struct Partition {
    writer: PartitionWriter,
    keys: Vec<KeyHash>,
}

impl TableWriter {
    pub fn new(schema: Arc<TableSchema>, store: Arc<dyn ObjectStore>, roll: Roll) -> Result<Self, Error> {
        let table = schema.name.to_string();
        let fields: Vec<Field> = file_columns(&schema).map(|index| schema.arrow().field(index).clone()).collect();
        let sort_fields: Vec<SortField> =
            schema.partition_by.iter().map(|&index| SortField::new(schema.columns[index].lake_type.arrow())).collect();
        let partition_rows = if sort_fields.is_empty() {
            None
        } else {
            Some(RowConverter::new(sort_fields).map_err(|source| Error::Arrow { table: table.clone(), source })?)
        };
        Ok(Self {
            table,
            store,
            file_schema: Arc::new(Schema::new(fields)),
            schema,
            roll,
            partitions: HashMap::new(),
            partition_rows,
        })
    }

    /// Writes rows that have all the table's columns; `keys` has one hash per row, or is empty when nobody will ask.
    pub async fn write(&mut self, rows: &RecordBatch, keys: &[KeyHash]) -> Result<(), Error> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let Some(converter) = &self.partition_rows else {
            return self.write_partition(Box::default(), rows, keys).await;
        };
        let columns: Vec<ArrayRef> = self.schema.partition_by.iter().map(|&index| rows.column(index).clone()).collect();
        let values = converter.convert_columns(&columns).map_err(|source| self.arrow(source))?;
        // Grouping by hand keeps the order of rows inside a partition, on which the key index rests.
        let mut groups: IndexMap<Box<[u8]>, Vec<u32>> = IndexMap::new();
        for (row, value) in values.iter().enumerate() {
            groups.entry(value.as_ref().into()).or_default().push(row as u32);
        }
        for (partition, indexes) in groups {
            let group_keys: Vec<KeyHash> = indexes.iter().filter_map(|&row| keys.get(row as usize)).copied().collect();
            let group = take_record_batch(rows, &UInt32Array::from(indexes)).map_err(|source| self.arrow(source))?;
            self.write_partition(partition, &group, &group_keys).await?;
        }
        Ok(())
    }

    async fn write_partition(
        &mut self,
        partition: Box<[u8]>,
        rows: &RecordBatch,
        keys: &[KeyHash],
    ) -> Result<(), Error> {
        let file_rows =
            rows.project(&file_columns(&self.schema).collect::<Vec<_>>()).map_err(|source| self.arrow(source))?;
        if !self.partitions.contains_key(&partition) {
            let writer = self.open_partition(rows)?;
            self.partitions.insert(partition.clone(), Partition { writer, keys: Vec::new() });
        }
        let table = self.table.clone();
        let open = self.partitions.get_mut(&partition).expect("inserted above");
        open.writer.write(&file_rows).await.map_err(|source| Error::Delta { table, source: Box::new(source) })?;
        open.keys.extend_from_slice(keys);
        Ok(())
    }

    fn open_partition(&self, rows: &RecordBatch) -> Result<PartitionWriter, Error> {
        let mut values = IndexMap::new();
        for &index in &self.schema.partition_by {
            let column = &self.schema.columns[index];
            let scalar = Scalar::from_array(rows.column(index).as_ref(), 0).ok_or_else(|| Error::Table {
                table: self.table.clone(),
                finding: format!("column `{}` of type {} cannot partition a table", column.name, column.lake_type),
                remedy: "choose another `partition_by` in its contract".to_owned(),
            })?;
            // Delta's log cannot tell an empty partition value from NULL.
            if matches!(&scalar, Scalar::String(text) if text.is_empty()) {
                return Err(Error::Table {
                    table: self.table.clone(),
                    finding: format!(
                        "partition column `{}` is empty text in a row, which Delta reads as NULL",
                        column.name
                    ),
                    remedy: "choose another `partition_by` in its contract and load the table again".to_owned(),
                });
            }
            values.insert(column.name.clone(), scalar);
        }
        let config = PartitionWriterConfig::try_new(
            self.file_schema.clone(),
            values,
            Some(writer_properties(self.roll)),
            match self.roll {
                Roll::Never | Roll::NeverInLittleMemory => None,
                Roll::At { file_bytes, .. } => Some(file_bytes),
            },
            None,
            Some(UPLOADS_MAX),
            None,
        )
        .and_then(|config| PartitionWriter::try_with_config(self.store.clone(), config, STATISTICS_COLUMNS, None));
        config.map_err(|source| self.delta(source))
    }

    /// Finishes all files.
    pub async fn close(mut self) -> Result<Vec<WrittenFile>, Error> {
        let mut files = Vec::new();
        for (_, partition) in std::mem::take(&mut self.partitions) {
            let adds = partition.writer.close().await.map_err(|source| self.delta(source))?;
            let mut keys = partition.keys;
            let without_count = |add: &Add| Error::Table {
                table: self.table.clone(),
                finding: format!("file {} came back without its row count", add.path),
                remedy: "report this as a defect of lakeward".to_owned(),
            };
            for mut add in adds {
                let rows = record_count(&add).ok_or_else(|| without_count(&add))?;
                let rest = match keys.len() {
                    0 => Vec::new(),
                    count if rows as usize <= count => keys.split_off(rows as usize),
                    _ => return Err(without_count(&add)),
                };
                drop_inexact_bounds(&mut add, &self.schema);
                files.push(WrittenFile { add, rows, keys: std::mem::replace(&mut keys, rest) });
            }
        }
        Ok(files)
    }

    /// Gives up: unfinished uploads are aborted, finished files stay behind unreferenced.
    pub async fn abort(mut self) {
        for (_, partition) in std::mem::take(&mut self.partitions) {
            if let Err(cause) = DataFileWriter::abort(Box::new(partition.writer)).await {
                tracing::warn!(table = self.table, %cause, "an unfinished upload could not be aborted");
            }
        }
    }

    fn arrow(&self, source: arrow::error::ArrowError) -> Error {
        Error::Arrow { table: self.table.clone(), source }
    }

    fn delta(&self, source: deltalake::DeltaTableError) -> Error {
        Error::Delta { table: self.table.clone(), source: Box::new(source) }
    }
}

/// `numRecords` of a file's statistics.
pub fn record_count(add: &Add) -> Option<u64> {
    let stats: serde_json::Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
    stats["numRecords"].as_u64()
}

/// Rows that the log says are live in the file.
pub fn live_rows_told(add: &Add) -> u64 {
    let deleted = add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality.max(0) as u64);
    record_count(add).unwrap_or(0).saturating_sub(deleted)
}

/// Statistics of a file that has a deletion vector: bounds may be wider than the live rows (Delta protocol,
/// "Per-file Statistics").
pub fn loosen_bounds(add: &mut Add) {
    let parsed = add.stats.as_deref().map(serde_json::from_str::<serde_json::Value>);
    if let Some(Ok(mut stats)) = parsed
        && stats.is_object()
    {
        stats["tightBounds"] = serde_json::Value::Bool(false);
        add.stats = Some(stats.to_string());
    }
}

/// Takes columns that readers must not see out of the statistics.
pub fn leave_out<'a>(add: &mut Add, mut hidden: impl Iterator<Item = &'a str>) {
    let Some(first) = hidden.next() else { return };
    let names: Vec<&str> = std::iter::once(first).chain(hidden).collect();
    change_statistics(add, &["minValues", "maxValues", "nullCount"], |name| !names.contains(&name));
}

/// Keeps those columns of each of the named parts of the statistics for which `keep` holds.
fn change_statistics(add: &mut Add, parts: &[&str], keep: impl Fn(&str) -> bool) {
    let parsed = add.stats.as_deref().map(serde_json::from_str::<serde_json::Value>);
    let Some(Ok(mut stats)) = parsed else { return };
    for part in parts {
        if let Some(values) = stats.get_mut(*part).and_then(serde_json::Value::as_object_mut) {
            values.retain(|name, _| keep(name));
        }
    }
    add.stats = Some(stats.to_string());
}

/// deltalake takes the bounds of decimals through an f64; beyond its 15 digits they may exclude rows that are there, and
/// a reader would skip the file. Without bounds it reads it.
pub(super) const BOUND_DIGITS_MAX: u8 = 15;

fn drop_inexact_bounds(add: &mut Add, schema: &TableSchema) {
    let inexact = |column: &&Column| matches!(column.lake_type, LakeType::Decimal { precision, .. } if precision > BOUND_DIGITS_MAX);
    let names: Vec<&str> = schema.columns.iter().filter(inexact).map(|column| column.name.as_str()).collect();
    if !names.is_empty() {
        change_statistics(add, &["minValues", "maxValues"], |name| !names.contains(&name));
    }
}

/// Columns stored in the file: all but the partition columns.
pub(super) fn file_columns(schema: &TableSchema) -> impl Iterator<Item = usize> {
    (0..schema.columns.len()).filter(|index| !schema.partition_by.contains(index))
}

/// Reads `columns` (indexes into the table's schema) of a file, whole or only `rows` (ascending physical numbers).
/// Partition columns are filled in from the file's partition values; columns the file lacks read NULL.
pub async fn read_columns(
    store: &Arc<dyn ObjectStore>,
    schema: &TableSchema,
    add: &Add,
    columns: &[usize],
    rows: Option<&[u32]>,
) -> Result<RecordBatch, Error> {
    let batches: Vec<RecordBatch> = stream_columns(store, schema, add, columns, rows).await?.try_collect().await?;
    concat_batches(&read_schema(schema, columns), &batches)
        .map_err(|source| Error::Arrow { table: schema.name.to_string(), source })
}

/// The rows of a file, counted; where the log tells, the file is not asked.
pub async fn count_rows(store: &Arc<dyn ObjectStore>, schema: &TableSchema, add: &Add) -> Result<u64, Error> {
    match record_count(add) {
        Some(rows) => Ok(rows),
        None => {
            Ok(open(store, schema, add, PageIndexPolicy::Skip).await?.metadata().file_metadata().num_rows().max(0)
                as u64)
        }
    }
}

async fn open(
    store: &Arc<dyn ObjectStore>,
    schema: &TableSchema,
    add: &Add,
    pages: PageIndexPolicy,
) -> Result<ParquetRecordBatchStreamBuilder<ObjectReader>, Error> {
    // The action's path is decoded already: `Path::from` would encode it a second time.
    let path = Path::parse(&add.path).map_err(|cause| damaged(schema, format!("file path `{}`: {cause}", add.path)))?;
    let reader = ObjectReader::new(store.clone(), path, add.size.max(0) as u64);
    let options = ArrowReaderOptions::new().with_offset_index_policy(pages);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await;
    builder.map_err(|cause| parquet_error(schema, add, cause))
}

pub(super) fn parquet_error(schema: &TableSchema, add: &Add, source: ParquetError) -> Error {
    let missing = matches!(&source, ParquetError::External(cause)
        if matches!(cause.downcast_ref(), Some(object_store::Error::NotFound { .. })));
    if missing {
        return damaged(schema, format!("its data file {} is gone", add.path));
    }
    Error::Parquet { table: schema.name.to_string(), file: add.path.clone(), source }
}

fn read_schema(schema: &TableSchema, columns: &[usize]) -> SchemaRef {
    let full = schema.arrow();
    let fields: Vec<Field> = columns.iter().map(|&index| full.field(index).clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// [`read_columns`] a few thousand rows at a time.
pub async fn stream_columns<'a>(
    store: &Arc<dyn ObjectStore>,
    schema: &'a TableSchema,
    add: &'a Add,
    columns: &[usize],
    rows: Option<&[u32]>,
) -> Result<impl Stream<Item = Result<RecordBatch, Error>> + Unpin + use<'a>, Error> {
    // Where single rows are wanted, only their pages are fetched.
    let pages = if rows.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let builder = open(store, schema, add, pages).await?;
    let in_file: Vec<usize> =
        columns.iter().filter_map(|&index| builder.schema().index_of(&schema.columns[index].name).ok()).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), in_file);
    let mut builder = builder.with_projection(mask).with_batch_size(READ_ROWS);
    if let Some(rows) = rows {
        // By default the reader would decode every row between scattered ones, all at once, and drop them again.
        builder = builder.with_row_selection(select(rows)).with_row_selection_policy(RowSelectionPolicy::Selectors);
    }
    filled(builder, schema, add, columns)
}

/// All columns of a file's rows, as many at a time as come to about so many bytes by the file's own account.
pub async fn stream_rows<'a>(
    store: &Arc<dyn ObjectStore>,
    schema: &'a TableSchema,
    add: &'a Add,
    batch_bytes: u64,
) -> Result<impl Stream<Item = Result<RecordBatch, Error>> + Unpin + use<'a>, Error> {
    let builder = open(store, schema, add, PageIndexPolicy::Skip).await?;
    let row_bytes = |group: &RowGroupMetaData| group.total_byte_size().max(0) / group.num_rows().max(1);
    let widest = builder.metadata().row_groups().iter().map(row_bytes).max().unwrap_or(0).max(1);
    let rows = (batch_bytes / widest as u64).clamp(1, READ_ROWS as u64);
    let columns: Vec<usize> = (0..schema.columns.len()).collect();
    filled(builder.with_batch_size(rows as usize), schema, add, &columns)
}

/// What a file gives, with the partition's values and columns that it lacks.
fn filled<'a>(
    builder: ParquetRecordBatchStreamBuilder<ObjectReader>,
    schema: &'a TableSchema,
    add: &'a Add,
    columns: &[usize],
) -> Result<impl Stream<Item = Result<RecordBatch, Error>> + Unpin + use<'a>, Error> {
    let stream = builder.build().map_err(|cause| parquet_error(schema, add, cause))?;
    let (columns, wanted) = (columns.to_vec(), read_schema(schema, columns));
    Ok(stream.map_err(|cause| parquet_error(schema, add, cause)).and_then(move |read| {
        let filled = fill(schema, add, &columns, &wanted, &read)
            .map_err(|source| Error::Arrow { table: schema.name.to_string(), source });
        futures::future::ready(filled)
    }))
}

/// What a file gave, as columns of the table.
fn fill(
    schema: &TableSchema,
    add: &Add,
    columns: &[usize],
    wanted: &SchemaRef,
    read: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let count = read.num_rows();
    let arrays = columns
        .iter()
        .zip(wanted.fields())
        .map(|(index, field)| {
            if schema.partition_by.contains(index) {
                let value = add.partition_values.get(field.name()).cloned().flatten();
                let text: ArrayRef = Arc::new(StringArray::from(vec![value.as_deref(); count]));
                return cast(&text, field.data_type());
            }
            match read.column_by_name(field.name()) {
                Some(array) if array.data_type() == field.data_type() => Ok(array.clone()),
                Some(array) => cast(array, field.data_type()),
                None => Ok(new_null_array(field.data_type(), count)),
            }
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(wanted.clone(), arrays)
}

/// The table is not as lakeward left it.
pub(super) fn damaged(schema: &TableSchema, finding: String) -> Error {
    Error::Table { table: schema.name.to_string(), finding, remedy: "load it again with `lakeward resync`".to_owned() }
}

/// Ascending row numbers as runs to skip and to read.
fn select(rows: &[u32]) -> RowSelection {
    let mut selectors = Vec::with_capacity(rows.len() * 2);
    let mut next = 0;
    for &row in rows {
        if row > next {
            selectors.push(RowSelector::skip((row - next) as usize));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    RowSelection::from(selectors)
}
