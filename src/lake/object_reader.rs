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

/// One data file. Its size is known from the log, so that the footer needs no extra request.
pub struct ObjectReader {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    pub size: u64,
    /// Counts the bytes fetched, for whoever wants to know.
    pub received: Option<Arc<AtomicU64>>,
}

impl ObjectReader {
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
        Box::pin(async {
            let bytes = self.store.get_range(&self.path, range).await.map_err(external)?;
            self.count(std::slice::from_ref(&bytes));
            Ok(bytes)
        })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        Box::pin(async move {
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
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        })
    }
}
