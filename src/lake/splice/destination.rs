//! Where a new file grows: it begins with the first bytes of another, and the rest is written behind them.
//!
//! Nothing refers to the file until a commit does, so a half-written one is only waste. It is removed where that is
//! possible; the table's next vacuum takes what is left.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::s3::PartUpload;
use crate::lake::Error;

/// Bytes fetched or sent at a time where the store can't copy.
const BLOCK_BYTES: u64 = 8 << 20;

/// Blocks on their way to the store at a time.
const UPLOADS_MAX: usize = 2;

/// What went over the wire, or to the disk by our hands. What the store or the kernel copies does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

/// A new file under way.
pub struct Destination {
    target: Target,
    pub traffic: Traffic,
}

enum Target {
    Local { file: File, path: PathBuf },
    Parts(Box<PartUpload>),
    Stream { writer: BufWriter, path: Path },
}

/// Why a new file did not come to be.
#[derive(Debug)]
pub enum Failure {
    /// The store would not copy parts; another way may do.
    Copy(String),
    Lake(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lake(error)
    }
}

impl Destination {
    /// A local file that begins as `from` does. The kernel copies, or shares the blocks where the file system can.
    pub async fn local(from: PathBuf, to: PathBuf, prefix: u64) -> Result<Self, Error> {
        let failed = {
            let to = to.clone();
            move |cause: std::io::Error| local_error(&to, &cause)
        };
        let copy = {
            let to = to.clone();
            tokio::task::spawn_blocking(move || std::fs::copy(from, to)).await
        };
        copy.map_err(std::io::Error::other).and_then(|copied| copied).map_err(&failed)?;
        let open = async {
            let mut file = OpenOptions::new().write(true).open(&to).await?;
            file.set_len(prefix).await?;
            file.seek(SeekFrom::Start(prefix)).await?;
            Ok(file)
        };
        match open.await {
            Ok(file) => Ok(Self { target: Target::Local { file, path: to }, traffic: Traffic::default() }),
            Err(cause) => {
                remove_local(&to).await;
                Err(failed(cause))
            }
        }
    }

    /// An object whose first part the store copies.
    pub fn parts(upload: PartUpload) -> Self {
        Self { target: Target::Parts(Box::new(upload)), traffic: Traffic::default() }
    }

    /// An object for which the bytes of `from` are fetched and sent again.
    pub async fn stream(store: &Arc<dyn ObjectStore>, from: &Path, to: Path, prefix: u64) -> Result<Self, Error> {
        let writer = BufWriter::with_capacity(store.clone(), to.clone(), BLOCK_BYTES as usize);
        let writer = writer.with_max_concurrency(UPLOADS_MAX);
        let mut new = Self { target: Target::Stream { writer, path: to }, traffic: Traffic::default() };
        let mut start = 0;
        while start < prefix {
            let end = (start + BLOCK_BYTES).min(prefix);
            let copied = match store.get_range(from, start..end).await {
                Ok(bytes) => {
                    new.traffic.received += bytes.len() as u64;
                    new.write(bytes).await
                }
                Err(source) => Err(Failure::Lake(Error::Store { context: format!("reading {from}"), source })),
            };
            if let Err(cause) = copied {
                new.abort().await;
                return Err(match cause {
                    Failure::Lake(cause) => cause,
                    Failure::Copy(cause) => unreachable!("nothing is copied here: {cause}"),
                });
            }
            start = end;
        }
        Ok(new)
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.traffic.sent += bytes.len() as u64;
        match &mut self.target {
            Target::Local { file, path } => {
                file.write_all(&bytes).await.map_err(|cause| local_error(path, &cause))?;
            }
            Target::Parts(upload) => upload.write(bytes).await.map_err(Failure::Copy)?,
            Target::Stream { writer, path } => writer.put(bytes).await.map_err(|source| store_error(path, source))?,
        }
        Ok(())
    }

    /// The file is whole, `size` bytes.
    pub async fn finish(self, size: u64) -> Result<Traffic, Failure> {
        match self.target {
            Target::Local { mut file, path } => {
                if let Err(cause) = file.flush().await {
                    remove_local(&path).await;
                    return Err(local_error(&path, &cause).into());
                }
            }
            Target::Parts(upload) => upload.finish(size).await.map_err(Failure::Copy)?,
            Target::Stream { mut writer, path } => {
                writer.shutdown().await.map_err(|cause| {
                    store_error(&path, object_store::Error::Generic { store: "upload", source: Box::new(cause) })
                })?;
            }
        }
        Ok(self.traffic)
    }

    /// Takes back what is there, as far as that is possible.
    pub async fn abort(self) {
        match self.target {
            Target::Local { file, path } => {
                drop(file);
                remove_local(&path).await;
            }
            Target::Parts(upload) => upload.abort().await,
            Target::Stream { mut writer, path } => {
                if let Err(cause) = writer.abort().await {
                    tracing::warn!(file = %path, %cause, "an unfinished upload could not be aborted");
                }
            }
        }
    }
}

async fn remove_local(path: &PathBuf) {
    if let Err(cause) = tokio::fs::remove_file(path).await
        && cause.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %cause, "an unfinished file could not be removed");
    }
}

fn local_error(path: &std::path::Path, cause: &std::io::Error) -> Error {
    Error::Unreachable { url: path.display().to_string(), cause: cause.to_string() }
}

fn store_error(path: &Path, source: object_store::Error) -> Error {
    Error::Store { context: format!("writing {path}"), source }
}
