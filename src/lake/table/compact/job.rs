//! The work of a compaction: live rows of some files, read and written anew, beside everything the table does meanwhile.
//!
//! What the files' deletion vectors say when the job begins is what is left out. So the n-th row written is the n-th row that
//! was live then, in the order of the files, and which old row a new one was can be told without writing it down.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use deltalake::kernel::Add;
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use super::super::super::Error;
use super::super::super::data_file::{self, Roll, TableWriter, WrittenFile};
use super::super::super::key::KeyHasher;
use super::super::chunk::Ticket;
use super::super::copy::{self, BATCH_BYTES, hashes, staying};
use super::super::evolve::remove_objects;
use super::super::removal::paths;
use super::plan::CompactionGroup;
use crate::schema::Shape;

/// For every second of work so much of a pause: a job takes half a core at most, and half of what the store gives it.
const PAUSE: f64 = 1.0;

/// A file to be replaced, as it was when the job began.
#[derive(Debug)]
pub(super) struct Input {
    pub add: Add,
    pub rows: u64,
    pub deleted: RoaringTreemap,
}

impl Input {
    pub fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(self.deleted.len())
    }
}

/// A job to do. It belongs to nobody and may run in another task; what becomes of the table meanwhile is noticed when its
/// result is merged ([`Table::merge_compaction`](super::super::Table::merge_compaction)).
pub struct Compaction {
    pub(super) shape: Arc<Shape>,
    pub(super) hasher: Arc<KeyHasher>,
    pub(super) ticket: Ticket,
    pub(super) log_store: LogStoreRef,
    pub(super) roll: Roll,
    pub(super) groups: Vec<(CompactionGroup, Vec<Input>)>,
}

/// Files written in the place of others, which nothing refers to yet, with the keys of their rows: 16 bytes each.
#[derive(Debug)]
pub struct Compacted {
    shape: Arc<Shape>,
    log_store: LogStoreRef,
    pub(super) ticket: Ticket,
    pub(super) groups: Vec<(Vec<Input>, Vec<WrittenFile>)>,
}

impl Compacted {
    /// What is to be removed when it is not merged.
    pub(super) fn paths(&self) -> Vec<String> {
        self.groups.iter().flat_map(|(_, files)| paths(files)).collect()
    }

    /// Leaves out the groups for which `keep` does not hold, and removes what was written of them.
    pub(super) async fn retain(&mut self, keep: &[bool]) {
        let groups = std::mem::take(&mut self.groups);
        let (kept, left_out): (Vec<_>, Vec<_>) = groups.into_iter().zip(keep).partition(|(_, keep)| **keep);
        self.groups = kept.into_iter().map(|(group, _)| group).collect();
        let left_out: Vec<String> = left_out.into_iter().flat_map(|((_, files), _)| paths(&files)).collect();
        remove_objects(&self.log_store, &self.shape.lake.name.to_string(), &left_out).await;
    }

    /// Removes what was written, where it is not to be merged.
    pub async fn discard(self) {
        remove_objects(&self.log_store, &self.shape.lake.name.to_string(), &self.paths()).await;
    }
}

impl Compaction {
    /// What it takes.
    pub fn groups(&self) -> impl Iterator<Item = &CompactionGroup> {
        self.groups.iter().map(|(group, _)| group)
    }

    /// Does the work; `None` when it was told to stop. Whatever does not come to an end leaves nothing behind.
    pub async fn run(self, stop: &CancellationToken) -> Result<Option<Compacted>, Error> {
        let Self { shape, hasher, ticket, log_store, roll, groups } = self;
        let groups_max = groups.len();
        let mut done = Compacted {
            shape: shape.clone(),
            log_store: log_store.clone(),
            ticket,
            groups: Vec::with_capacity(groups_max),
        };
        let work = Work { shape: &shape, hasher: &hasher, log_store: &log_store, roll, stop };
        for (_, inputs) in groups {
            let (written, ended) = work.write_group(&inputs).await;
            done.groups.push((inputs, written));
            if !matches!(ended, Ok(true)) {
                done.discard().await;
                return ended.map(|_| None);
            }
        }
        Ok(Some(done))
    }
}

struct Work<'a> {
    shape: &'a Shape,
    hasher: &'a KeyHasher,
    log_store: &'a LogStoreRef,
    roll: Roll,
    stop: &'a CancellationToken,
}

impl Work<'_> {
    /// The files written, and whether they are all that was to be.
    async fn write_group(&self, inputs: &[Input]) -> (Vec<WrittenFile>, Result<bool, Error>) {
        let store = self.log_store.object_store(None);
        let mut writer = match TableWriter::new(self.shape.lake.clone(), store, self.roll) {
            Ok(writer) => writer,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let copied = self.copy(inputs, &mut writer).await;
        // Only closing the writer tells which files there are.
        match (writer.close().await, copied) {
            (Ok(written), Ok(true)) => {
                let live = inputs.iter().map(Input::live_rows).sum();
                let checked = copy::check(live, inputs.len(), &written);
                (written, checked.map(|()| true).map_err(|finding| self.defect(finding)))
            }
            (Ok(written), copied) => (written, copied),
            (Err(_), Err(error)) | (Err(error), Ok(_)) => (Vec::new(), Err(error)),
        }
    }

    /// Whether every live row was copied; not when it was told to stop.
    async fn copy(&self, inputs: &[Input], writer: &mut TableWriter) -> Result<bool, Error> {
        let store = self.log_store.object_store(None);
        for input in inputs {
            let mut stream = data_file::stream_rows(&store, &self.shape.lake, &input.add, BATCH_BYTES).await?;
            let mut first = 0;
            loop {
                if self.stop.is_cancelled() {
                    return Ok(false);
                }
                let began = Instant::now();
                let Some(batch) = stream.try_next().await? else { break };
                let count = batch.num_rows() as u64;
                let live = staying(&self.shape.lake, &batch, first, &input.deleted);
                self.write(live.map_err(|source| self.arrow(source))?, writer).await?;
                first += count;
                let pause = began.elapsed().mul_f64(PAUSE);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.stop.cancelled() => {}
                }
            }
            if first != input.rows {
                let told = input.rows;
                return Err(self.defect(format!("file {} has {first} rows, and not {told}", input.add.path)));
            }
        }
        Ok(true)
    }

    async fn write(&self, rows: RecordBatch, writer: &mut TableWriter) -> Result<(), Error> {
        let keys = hashes(self.hasher, &rows).map_err(|source| self.arrow(source))?;
        writer.write(&rows, &keys).await
    }

    fn arrow(&self, source: arrow::error::ArrowError) -> Error {
        Error::Arrow { table: self.shape.lake.name.to_string(), source }
    }

    fn defect(&self, finding: String) -> Error {
        Error::Table {
            table: self.shape.lake.name.to_string(),
            finding: format!("its files could not be compacted: {finding}"),
            remedy: "it stays as it is; report this as a defect of lakeward".to_owned(),
        }
    }
}
