//! Lets the Parquet reader fetch byte ranges from an object store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// The end of a file is fetched by one request: its footer, mostly, and of a small file everything.
const TAIL_BYTES: u64 = 64 << 10;

/// One data file. Its size is known from the log, so that the footer needs no extra request.
pub struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// Counts the bytes fetched, for whoever wants to know.
    received: Option<Arc<AtomicU64>>,
    /// The file's end, once its footer was asked for.
    tail: Bytes,
}

impl ObjectReader {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64) -> Self {
        Self { store, path, size, received: None, tail: Bytes::new() }
    }

    /// One that counts the bytes fetched.
    pub fn counting(self, received: Arc<AtomicU64>) -> Self {
        Self { received: Some(received), ..self }
    }

    async fn fetch_tail(&mut self) -> Result<()> {
        if self.tail.is_empty() && self.size > 0 {
            let range = self.size.saturating_sub(TAIL_BYTES)..self.size;
            let wanted = range.end - range.start;
            let tail = self.store.get_range(&self.path, range).await.map_err(external)?;
            if tail.len() as u64 != wanted {
                return Err(ParquetError::EOF(format!("{} of the last {wanted} bytes are there", tail.len())));
            }
            self.count(std::slice::from_ref(&tail));
            self.tail = tail;
        }
        Ok(())
    }

    /// A range that lies in the tail.
    fn of_tail(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = self.size - self.tail.len() as u64;
        let fits = range.start >= start && range.end <= self.size && range.start <= range.end;
        fits.then(|| self.tail.slice((range.start - start) as usize..(range.end - start) as usize))
    }

    fn count(&self, bytes: &[Bytes]) {
        if let Some(received) = &self.received {
            let fetched: usize = bytes.iter().map(Bytes::len).sum();
            received.fetch_add(fetched as u64, Ordering::Relaxed);
        }
    }
}

fn external(cause: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(cause))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            if let Some(bytes) = self.of_tail(&range) {
                return Ok(bytes);
            }
            let bytes = self.store.get_range(&self.path, range).await.map_err(external)?;
            self.count(std::slice::from_ref(&bytes));
            Ok(bytes)
        })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        Box::pin(async move {
            let known: Option<Vec<Bytes>> = ranges.iter().map(|range| self.of_tail(range)).collect();
            if let Some(parts) = known {
                return Ok(parts);
            }
            let parts = self.store.get_ranges(&self.path, &ranges).await.map_err(external)?;
            self.count(&parts);
            Ok(parts)
        })
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        Box::pin(async move {
            self.fetch_tail().await?;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        })
    }
}
