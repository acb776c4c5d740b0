//! Column splice: a data file under another schema, without its rows being read.
//!
//! Adding, dropping, renaming and widening columns leaves most of a Parquet file's bytes as they are. The new file begins
//! with the old file's bytes, copied by the store or the kernel; behind them come the columns that have to be encoded anew
//! and a new footer, which points to both ([`footer`]). The old file stays: older versions of the table refer to it.
//!
//! Only files that lakeward wrote are spliced, and only where the rules of [`footer`] can be kept; others are rewritten.
//! Both ways give the same rows in the same order, so deletion vectors and row numbers stay true.
//! Why, and what was measured: docs/decisions/009-splice.md.

mod column;
mod destination;
mod footer;
mod plan;
mod rewrite;
mod s3;
mod statistics;
#[cfg(test)]
mod tests;

pub use super::upgrade::upgrade;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::Utc;
use deltalake::kernel::Add;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use self::column::{ColumnEncoder, Constants, Encoded, Tail};
use self::destination::{Destination, Failure, Traffic};
use self::footer::{Footer, LaidColumn, Layout};
use self::plan::{PlannedColumn, Values, cast_exactly};
use self::s3::{PART_BYTES_MIN, PartCopier};
use super::Error;
use super::data_file::{READ_ROWS, damaged, parquet_error, record_count};
use super::object_reader::ObjectReader;
use super::store::{Lake, unreachable};
use crate::schema::{LakeOp, TableSchema};

/// How a file got its new schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It has it already: only columns were added that read NULL, which is what a missing column reads.
    Unchanged,
    Spliced,
    Rewritten,
}

/// What became of one data file.
#[derive(Clone, Debug)]
pub struct SplicedFile {
    /// The new file; the old one where it is [`How::Unchanged`].
    pub add: Add,
    /// Physical rows, deleted ones counted.
    pub rows: u64,
    pub how: How,
    /// By this process; what the store copies does not count.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// Splices files of one table.
pub struct Splicer {
    url: Url,
    store: Arc<dyn ObjectStore>,
    /// The table's folder, if it is local.
    folder: Option<PathBuf>,
    options: HashMap<String, String>,
    copier: OnceCell<Option<PartCopier>>,
    /// The store refused to copy parts: not asked again.
    no_copies: AtomicBool,
    rewrites_all: bool,
}

impl Splicer {
    /// For the table at `url`, a folder below the lake's.
    pub fn new(lake: &Lake, url: &Url) -> Result<Self, Error> {
        Ok(Self {
            store: lake.log_store(url)?.object_store(None),
            folder: url.to_file_path().ok(),
            options: lake.options().clone(),
            copier: OnceCell::new(),
            no_copies: AtomicBool::new(!matches!(url.scheme(), "s3" | "s3a")),
            rewrites_all: !lake.splices(),
            url: url.clone(),
        })
    }

    /// A new file that begins as `from` does.
    async fn begin(&self, from: &Path, to: &Path, prefix: u64) -> Result<Destination, Failure> {
        if let Some(folder) = &self.folder {
            let local = |path: &Path| folder.join(path.as_ref());
            return Ok(Destination::local(local(from), local(to), prefix).await?);
        }
        if prefix >= PART_BYTES_MIN && !self.no_copies.load(Ordering::Relaxed) {
            let copier = self.copier.get_or_init(|| PartCopier::connect(&self.url, &self.options)).await;
            if let Some(copier) = copier {
                return copier.begin(from, to, prefix).await.map(Destination::parts).map_err(Failure::Copy);
            }
        }
        Ok(Destination::stream(&self.store, from, to.clone(), prefix).await?)
    }
}

/// Makes of the data file of `add`, written under `before` (all columns of the files, hidden ones too), one that holds it
/// after `ops`, which lead to `after`. Rows keep their order and number.
///
/// The new [`Add`] has a path of its own in the same folder, statistics that follow the operations, and the old one's
/// deletion vector. Partition columns are not in the files: operations on them change only its partition values. After an
/// error nothing refers to what may have been written.
pub async fn splice_file(
    splicer: &Splicer,
    add: &Add,
    before: &TableSchema,
    after: &TableSchema,
    ops: &[LakeOp],
) -> Result<SplicedFile, Error> {
    let file = File { splicer, add, before, after, ops, received: Arc::new(AtomicU64::new(0)) };
    if ops.iter().all(|op| matches!(op, LakeOp::Add { fill: None, .. }))
        && let Some(rows) = record_count(add)
    {
        return Ok(file.unchanged(rows));
    }
    let footer = file.footer().await?;
    let places: HashMap<String, usize> = footer.arrow.fields().iter().map(|f| f.name().clone()).zip(0..).collect();
    let planned = plan::compose(before, ops, &places).map_err(|cause| file.defect(&cause))?;
    if !plan::reaches(&planned, after) {
        return Err(file.defect("they do not lead to the schema"));
    }
    let partition_values = plan::partition_values(before, ops, &add.partition_values)
        .map_err(|source| Error::Arrow { table: before.name.to_string(), source })?;
    if partition_values == add.partition_values && holds_already(&footer, &planned) {
        return Ok(file.unchanged(footer.rows()));
    }
    let layout = if splicer.rewrites_all {
        Err("column splices are switched off".to_owned())
    } else if !footer.is_ours() {
        Err("lakeward did not write it".to_owned())
    } else {
        Layout::of(&footer, &planned)
    };
    let mut done = match layout {
        Ok(layout) => file.splice(&footer, &layout).await?,
        Err(why) => {
            tracing::debug!(table = %before.name, file = add.path, why, "rewriting the file, a column splice won't do");
            file.rewrite().await?
        }
    };
    done.add.partition_values = partition_values;
    done.bytes_received += file.received.load(Ordering::Relaxed);
    Ok(done)
}

/// A name of its own beside the old file, as the log and as the store have it.
fn new_path(table: &TableSchema, old: &Add) -> Result<(String, Path), Error> {
    let name = format!("part-00000-{}-c000.zstd.parquet", Uuid::new_v4());
    let path = old.path.rsplit_once('/').map_or(name.clone(), |(folder, _)| format!("{folder}/{name}"));
    let object = Path::parse(&path).map_err(|cause| damaged(table, format!("file path `{path}`: {cause}")))?;
    Ok((path, object))
}

/// Whether the file has these columns, under these names and types, and no others.
fn holds_already(footer: &Footer, planned: &[PlannedColumn]) -> bool {
    let held = planned.iter().filter(|column| !matches!(column.values, Values::Missing));
    let same = |column: &PlannedColumn| matches!(column.values, Values::Carried(root) if *footer.arrow.field(root).name() == column.name);
    held.clone().all(same) && held.count() == footer.arrow.fields().len()
}

/// The work on one file.
struct File<'a> {
    splicer: &'a Splicer,
    add: &'a Add,
    before: &'a TableSchema,
    after: &'a TableSchema,
    ops: &'a [LakeOp],
    received: Arc<AtomicU64>,
}

impl File<'_> {
    fn unchanged(&self, rows: u64) -> SplicedFile {
        SplicedFile {
            add: self.add.clone(),
            rows,
            how: How::Unchanged,
            bytes_sent: 0,
            bytes_received: self.received.load(Ordering::Relaxed),
        }
    }

    fn path(&self) -> Result<Path, Error> {
        // The action's path is decoded already: `Path::from` would encode it a second time.
        Path::parse(&self.add.path)
            .map_err(|cause| damaged(self.before, format!("file path `{}`: {cause}", self.add.path)))
    }

    fn size(&self) -> u64 {
        self.add.size.max(0) as u64
    }

    fn reader(&self) -> Result<ObjectReader, Error> {
        Ok(ObjectReader::new(self.splicer.store.clone(), self.path()?, self.size()).counting(self.received.clone()))
    }

    async fn footer(&self) -> Result<Footer, Error> {
        Footer::read(&mut self.reader()?, self.size()).await.map_err(|cause| self.parquet(cause))
    }

    /// A copy of the old bytes, then new columns, then the new footer.
    async fn splice(&self, footer: &Footer, layout: &Layout) -> Result<SplicedFile, Error> {
        let from = self.path()?;
        let (path, to) = new_path(self.before, self.add)?;
        let written = match self.write(footer, layout, &from, &to).await {
            Err(Failure::Copy(cause)) => {
                // Not a reason to stop: it only costs more this way.
                tracing::warn!(
                    table = %self.before.name, cause,
                    "the object store does not copy parts of objects; they are fetched and sent instead"
                );
                self.splicer.no_copies.store(true, Ordering::Relaxed);
                self.write(footer, layout, &from, &to).await
            }
            other => other,
        };
        let (size, traffic) = written.map_err(|failure| match failure {
            Failure::Lake(cause) => cause,
            Failure::Copy(cause) => unreachable(&self.splicer.url, &ParquetError::General(cause)),
        })?;
        let add = Add {
            path,
            size: size as i64,
            modification_time: Utc::now().timestamp_millis(),
            data_change: true,
            stats: Some(statistics::after(self.add, footer.rows(), self.before, self.ops).await?),
            ..self.add.clone()
        };
        Ok(SplicedFile {
            add,
            rows: footer.rows(),
            how: How::Spliced,
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
        })
    }

    async fn write(&self, footer: &Footer, layout: &Layout, from: &Path, to: &Path) -> Result<(u64, Traffic), Failure> {
        let mut destination = self.splicer.begin(from, to, footer.prefix).await?;
        match self.write_tail(footer, layout, &mut destination).await {
            Ok(size) => Ok((size, destination.finish(size).await?)),
            Err(cause) => {
                destination.abort().await;
                Err(cause)
            }
        }
    }

    /// Writes all that follows the old bytes. Gives back the size of the whole.
    async fn write_tail(&self, footer: &Footer, layout: &Layout, out: &mut Destination) -> Result<u64, Failure> {
        let parquet = |cause: ParquetError| Failure::Lake(self.parquet(cause));
        let mut size = footer.prefix;
        let fields = layout.new_fields();
        let mut described = None;
        if !fields.is_empty() {
            let mut tail = Tail::new(footer.prefix, fields).map_err(parquet)?;
            let mut constants = Constants::default();
            for (number, group) in footer.row_groups() {
                let mut encoded = Vec::new();
                for column in layout.columns.iter().filter(|column| column.is_new()) {
                    let rows = group.num_rows().max(0) as u64;
                    encoded.push(self.encode(footer, column, number, rows, &mut constants).await?);
                }
                tail.write(encoded).map_err(parquet)?;
                let bytes = tail.take().map_err(parquet)?;
                size += bytes.len() as u64;
                out.write(bytes).await?;
            }
            let (rest, metadata) = tail.finish().map_err(parquet)?;
            size += rest.len() as u64;
            out.write(rest).await?;
            described = Some(metadata);
        }
        let text = layout.footer(footer, described.as_ref()).map_err(parquet)?;
        size += text.len() as u64;
        out.write(text.into()).await?;
        Ok(size)
    }

    /// One column of one row group.
    async fn encode(
        &self,
        footer: &Footer,
        column: &LaidColumn,
        group: usize,
        rows: u64,
        constants: &mut Constants,
    ) -> Result<Encoded, Error> {
        let parquet = |cause: ParquetError| self.parquet(cause);
        let root = match &column.values {
            Values::Constant(value) => return constants.encode(&column.field, value, rows).map_err(parquet),
            Values::Carried(root) | Values::Widened(root) => *root,
            Values::Missing => return Err(self.defect("a missing column is to be encoded")),
        };
        let metadata =
            ArrowReaderMetadata::try_new(footer.metadata.clone(), ArrowReaderOptions::new()).map_err(parquet)?;
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader()?, metadata);
        let mask = ProjectionMask::roots(builder.parquet_schema(), [root]);
        let builder = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(READ_ROWS);
        let mut stream = builder.build().map_err(parquet)?;
        let mut encoder = ColumnEncoder::new(column.field.clone()).map_err(parquet)?;
        while let Some(batch) = stream.try_next().await.map_err(parquet)? {
            let values = cast_exactly(batch.column(0), column.field.data_type())
                .map_err(|source| Error::Arrow { table: self.before.name.to_string(), source })?;
            encoder.write(values).map_err(parquet)?;
        }
        encoder.finish().map_err(parquet)
    }

    async fn rewrite(&self) -> Result<SplicedFile, Error> {
        let (add, rows) = rewrite::rewrite(&self.splicer.store, self.add, self.before, self.after, self.ops).await?;
        let (bytes_sent, bytes_received) = (add.size.max(0) as u64, self.add.size.max(0) as u64);
        Ok(SplicedFile { add, rows, how: How::Rewritten, bytes_sent, bytes_received })
    }

    fn parquet(&self, cause: ParquetError) -> Error {
        parquet_error(self.before, self.add, cause)
    }

    fn defect(&self, finding: &str) -> Error {
        Error::Table {
            table: self.before.name.to_string(),
            finding: format!("operations on its columns do not fit: {finding}"),
            remedy: "report this as a defect of lakeward".to_owned(),
        }
    }
}
