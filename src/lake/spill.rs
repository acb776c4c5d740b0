//! Changes that wait on disk because their transaction is larger than memory.
//!
//! A [`SpillFile`] has no name in its folder: it is gone with the last handle on it, when its batch is done and when the
//! process dies alike, so no start ever finds what an earlier one left. Its format is nobody else's business: per part the
//! operations, the left-out values, and the rows as an Arrow IPC stream. All files together stay below a limit.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tokio::sync::{Mutex, MutexGuard};

use crate::schema::{Op, TableRows, TableSchema, ValueCounts};

#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error(
        "a transaction needs more than the {bytes_max} bytes of disk that `[memory] spill_max` allows in {folder}; raise `spill_max`, or name a larger disk by `[memory] spill_dir`"
    )]
    Full { folder: String, bytes_max: u64 },
    #[error(
        "a transaction larger than memory cannot wait in {folder}: {source}; make room there, or name another folder by `[memory] spill_dir`"
    )]
    Io { folder: String, source: std::io::Error },
    #[error("changes that waited on disk cannot be read back: {0}")]
    Arrow(#[from] ArrowError),
    #[error("changes that waited on disk came back damaged")]
    Damaged,
}

/// Where one process's changes wait, and how much of what they may use.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    bytes_max: u64,
    /// What applying a spilled batch may use.
    memory_bytes: u64,
    used: AtomicU64,
    /// Held by the one table that applies a spilled batch.
    turn: Mutex<()>,
}

impl Spill {
    /// `folder` need not exist yet.
    pub fn new(folder: PathBuf, bytes_max: u64, memory_bytes: u64) -> Arc<Self> {
        Arc::new(Self { folder, bytes_max, memory_bytes, used: AtomicU64::new(0), turn: Mutex::new(()) })
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes on disk at present.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Waits until no other table applies a spilled batch: the memory is for one.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn io(&self, source: std::io::Error) -> SpillError {
        SpillError::Io { folder: self.folder.display().to_string(), source }
    }

    fn take(&self, bytes: u64) -> Result<(), SpillError> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.bytes_max {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(SpillError::Full { folder: self.folder.display().to_string(), bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

/// A file without a name that is only appended to.
#[derive(Debug)]
pub struct SpillFile {
    spill: Arc<Spill>,
    file: File,
    length: AtomicU64,
}

impl SpillFile {
    pub fn create(spill: &Arc<Spill>) -> Result<Self, SpillError> {
        let create = || {
            std::fs::create_dir_all(&spill.folder)?;
            tempfile::tempfile_in(&spill.folder)
        };
        let file = create().map_err(|cause| spill.io(cause))?;
        Ok(Self { spill: spill.clone(), file, length: AtomicU64::new(0) })
    }

    pub fn spill(&self) -> &Arc<Spill> {
        &self.spill
    }

    /// Writes at the end; returns where that was. One writer at a time.
    pub fn append(&self, bytes: &[u8]) -> Result<u64, SpillError> {
        self.spill.take(bytes.len() as u64)?;
        let offset = self.length.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset).map_err(|cause| self.spill.io(cause))?;
        Ok(offset)
    }

    /// Fills `bytes` from `offset` on.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SpillError> {
        self.file.read_exact_at(bytes, offset).map_err(|cause| self.spill.io(cause))
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.spill.used.fetch_sub(self.length(), Ordering::Relaxed);
    }
}

/// [`TableRows`] on disk.
#[derive(Clone, Debug)]
pub struct SpilledRows {
    file: Arc<SpillFile>,
    schema: Arc<TableSchema>,
    offset: u64,
    rows: u32,
    unchanged: u32,
    ipc_bytes: u64,
    /// What their `unfaithful` came to.
    pub values: ValueCounts,
}

/// Row and column of a left-out value on disk.
const UNCHANGED_BYTES: usize = 6;

impl SpilledRows {
    /// Appends `rows` to the file. Blocks.
    pub fn write(file: &Arc<SpillFile>, rows: &TableRows) -> Result<Self, SpillError> {
        let mut bytes = Vec::with_capacity(rows.rows.get_array_memory_size());
        bytes.extend(rows.ops.iter().map(|op| *op as u8));
        for (row, column) in &rows.unchanged {
            bytes.extend_from_slice(&row.to_le_bytes());
            bytes.extend_from_slice(&column.to_le_bytes());
        }
        let head = bytes.len();
        let mut writer = StreamWriter::try_new(&mut bytes, &rows.rows.schema())?;
        writer.write(&rows.rows)?;
        writer.finish()?;
        drop(writer);
        let mut values = ValueCounts::default();
        values.add(&rows.schema, &rows.unfaithful);
        Ok(Self {
            offset: file.append(&bytes)?,
            file: file.clone(),
            schema: rows.schema.clone(),
            rows: rows.ops.len() as u32,
            unchanged: rows.unchanged.len() as u32,
            ipc_bytes: (bytes.len() - head) as u64,
            values,
        })
    }

    pub fn spill(&self) -> &Arc<Spill> {
        self.file.spill()
    }

    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub fn has_unchanged(&self) -> bool {
        self.unchanged > 0
    }

    /// Memory they will need, about.
    pub fn bytes(&self) -> u64 {
        self.ipc_bytes
    }

    /// Reads them back, without their `unfaithful`. Blocks.
    pub fn read(&self) -> Result<TableRows, SpillError> {
        let mut head = vec![0; self.rows as usize + self.unchanged as usize * UNCHANGED_BYTES];
        self.file.read(self.offset, &mut head)?;
        let (ops, unchanged) = head.split_at(self.rows as usize);
        let ops = ops.iter().map(|byte| Op::from_byte(*byte).ok_or(SpillError::Damaged)).collect::<Result<_, _>>()?;
        let unchanged = unchanged
            .chunks_exact(UNCHANGED_BYTES)
            .map(|pair| {
                let row = u32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]);
                (row, u16::from_le_bytes([pair[4], pair[5]]))
            })
            .collect();
        let mut ipc = vec![0; self.ipc_bytes as usize];
        self.file.read(self.offset + head.len() as u64, &mut ipc)?;
        let rows = StreamReader::try_new(Cursor::new(ipc), None)?.next().ok_or(SpillError::Damaged)??;
        if rows.num_rows() != self.rows as usize {
            return Err(SpillError::Damaged);
        }
        Ok(TableRows { schema: self.schema.clone(), rows, ops, unchanged, unfaithful: Vec::new() })
    }
}
