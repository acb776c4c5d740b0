//! A table that was built out of sight takes the place of the one that readers see, with one commit on that one's log.
//!
//! The commit removes every file of the old state and adds every file of the new one by its path from the table's folder,
//! where the hidden build lies in a folder of its own; so no byte is moved. Older versions stay readable. A process that
//! dies leaves the old table or the new one.

use std::collections::BTreeMap;

use chrono::Utc;
use deltalake::kernel::{Action, Add, StorageType};
use deltalake::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::super::commit::{self, CommitNote, Outcome};
use super::super::data_file::DataFile;
use super::super::locator::FileId;
use super::super::row_index::forget;
use super::super::store::{Lake, cause_text, unreachable};
use super::super::{Error, delta_schema, protocol, step};
use super::place::{Place, folder};
use super::removal::remove;
use super::{REBASE_MAX, Table, find};
use crate::schema::TableName;

/// Where a Delta table's log is.
pub(in crate::lake) const LOG: &str = "_delta_log";

impl Table {
    /// Puts `hidden`, whose load is finished, in the place of `main`; `None` where there is no table yet. When this fails,
    /// it may or may not have happened: [`Table::loaded`] of the table tells the build that it holds.
    pub async fn swap(main: Option<Self>, mut hidden: Self, position: &str) -> Result<Self, Error> {
        let Place::Hidden(id) = hidden.place else { return Err(hidden.not_swappable("it is no hidden build")) };
        if hidden.load().is_some() {
            return Err(hidden.not_swappable("its load is not finished"));
        }
        let files = moved(&hidden.files, &folder(id));
        let mut main = main;
        for attempt in 0..=REBASE_MAX {
            if let Some(main) = main.as_mut().filter(|_| attempt > 0) {
                main.reload().await?;
            }
            let (note, metadata) = hidden.swapped(main.as_ref(), id, position)?;
            let mut actions = Vec::new();
            if let Some(main) = &main {
                let now = Utc::now().timestamp_millis();
                actions.extend(main.files.values().map(|file| Action::Remove(remove(&file.add, now))));
            }
            actions.extend(files.values().map(|file| Action::Add(file.add.clone())));
            step::reached("swap.staged").await;
            let outcome = match &mut main {
                Some(main) => {
                    let changed = (metadata != main.metadata).then_some(&metadata);
                    main.put(&note, "REPLACE TABLE AS SELECT", changed, &actions).await?
                }
                None => hidden.put_first(&note, &metadata, &actions).await?,
            };
            match outcome {
                Outcome::Landed => {
                    step::reached("swap.committed").await;
                    return hidden.take_place(main, files, note, metadata).await;
                }
                Outcome::Taken { theirs } => match &main {
                    Some(main) => main.give_way(&theirs)?,
                    None => return Err(Error::Fenced { table: hidden.name().to_string(), version: 0 }),
                },
            }
        }
        Err(main.as_ref().unwrap_or(&hidden).overtaken())
    }

    fn not_swappable(&self, why: &str) -> Error {
        Error::Table {
            table: self.name().to_string(),
            finding: format!("the table at {} cannot be swapped in: {why}", self.url),
            remedy: "report this as a defect of lakeward".to_owned(),
        }
    }

    /// Note and metadata of the commit that puts this table in the place of `main`.
    fn swapped(&self, main: Option<&Self>, id: Uuid, position: &str) -> Result<(CommitNote, Value), Error> {
        let mut note = CommitNote { load: None, loaded: Some(id), ..self.next_note(position) };
        let Some(main) = main else {
            note.batch = 0;
            return Ok((note, self.metadata.clone()));
        };
        note.batch = main.note.batch + 1;
        note.schema_version = main.note.schema_version + u64::from(main.shape != self.shape);
        let mut metadata = main.metadata.clone();
        delta_schema::encode(&self.shape, &mut metadata).map_err(|cause| Error::Table {
            table: self.name().to_string(),
            finding: format!("its shape cannot be written down: {cause}"),
            remedy: "report this as a defect of lakeward".to_owned(),
        })?;
        Ok((note, metadata))
    }

    /// Puts version 0 of the table's own log.
    async fn put_first(&mut self, note: &CommitNote, metadata: &Value, actions: &[Action]) -> Result<Outcome, Error> {
        let table = self.name().to_string();
        let id = Uuid::new_v4();
        let log_store = self.lake.log_store(&Place::Open.url(&self.lake, &self.source, self.name()))?;
        let entry = commit::entry(note, id, "CREATE TABLE AS SELECT", Some(metadata), actions, Utc::now())
            .map_err(|cause| Error::Commit { table: table.clone(), version: 0, cause: cause.to_string() })?;
        let lowest = protocol::lowest(&protocol::features(metadata, actions));
        let text = format!("{}\n{entry}", protocol::action(&lowest));
        let outcome = commit::put(&log_store, &table, 0, id, &text).await?;
        if outcome == Outcome::Landed {
            // From here on it is about the table's own log.
            (self.protocol, self.untold) = (lowest, false);
        }
        Ok(outcome)
    }

    /// The commit has landed.
    async fn take_place(
        mut self,
        main: Option<Self>,
        files: BTreeMap<FileId, DataFile>,
        note: CommitNote,
        metadata: Value,
    ) -> Result<Self, Error> {
        // Its checkpoint would be written into a log that goes.
        self.finish().await;
        remove_all(&self.log_store, &self.url, Some(LOG)).await;
        let url = Place::Open.url(&self.lake, &self.source, self.name());
        let (before, checkpoint, protocol, untold) = match main {
            Some(main) => (Some(main.version), main.checkpoint, main.protocol, main.untold),
            None => (None, None, std::mem::take(&mut self.protocol), self.untold),
        };
        let mut table = Self {
            place: Place::Open,
            log_store: self.lake.log_store(&url)?,
            url,
            session: Uuid::new_v4(),
            version: before.unwrap_or(0),
            noted: 0,
            files,
            metadata,
            untold,
            protocol,
            checkpoint,
            loading: None,
            ..self
        };
        match before {
            Some(_) => table.landed(note),
            None => table.note = note,
        }
        let identity = table.index_identity();
        table.locator.move_to(&table.url, &table.shape.lake.name, &identity);
        table.locator.finish(&table.files).await;
        Ok(table)
    }

    /// Removes a hidden build. What the table's own log refers to stays, and only the build's log goes.
    pub async fn discard_hidden(lake: &Lake, source: &str, name: &TableName, id: Uuid) -> Result<(), Error> {
        let url = Place::Hidden(id).url(lake, source, name);
        if let Some(cache) = lake.index() {
            forget(cache, &url, name);
        }
        // Looking at a folder must not make it.
        if url.to_file_path().is_ok_and(|folder| !folder.exists()) {
            return Ok(());
        }
        let kept = is_referred_to(lake, source, name, id).await?;
        let log_store = lake.log_store(&url)?;
        remove_all(&log_store, &url, kept.then_some(LOG)).await;
        Ok(())
    }
}

/// The files of a hidden build, by their paths from the table's folder.
fn moved(files: &BTreeMap<FileId, DataFile>, folder: &str) -> BTreeMap<FileId, DataFile> {
    let moved = |(id, file): (&FileId, &DataFile)| {
        let mut add = Add { path: format!("{folder}/{}", file.add.path), data_change: true, ..file.add.clone() };
        if let Some(vector) = &mut add.deletion_vector
            && vector.storage_type == StorageType::UuidRelativePath
        {
            // Delta protocol, "Derived Fields": a prefix before the id's twenty characters is a folder.
            vector.path_or_inline_dv.insert_str(0, folder);
        }
        (*id, DataFile { add, ..file.clone() })
    };
    files.iter().map(moved).collect()
}

/// Whether the table's own log has files of a hidden build, be it only for older versions.
async fn is_referred_to(lake: &Lake, source: &str, name: &TableName, id: Uuid) -> Result<bool, Error> {
    let url = Place::Open.url(lake, source, name);
    let Some((log_store, loaded)) = find(lake, source, name, &url).await? else { return Ok(false) };
    let prefix = format!("{}/", folder(id));
    if loaded.note.loaded == Some(id) || loaded.adds.iter().any(|add| add.path.starts_with(&prefix)) {
        return Ok(true);
    }
    let table = lake.builder(&url)?.load().await.map_err(|cause| unreachable(&url, &cause))?;
    let state = table.snapshot().map_err(|cause| unreachable(&url, &cause))?;
    let mut removed = state.all_tombstones(log_store.as_ref());
    while let Some(removed) = removed.try_next().await.map_err(|cause| unreachable(&url, &cause))? {
        if removed.path().starts_with(&prefix) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes every object of a folder, or of one inside it, as far as that is possible.
async fn remove_all(log_store: &LogStoreRef, url: &Url, inside: Option<&str>) {
    let store = log_store.object_store(None);
    let prefix = inside.map(Path::from);
    let removed = async {
        let objects: Vec<Path> = store.list(prefix.as_ref()).map_ok(|object| object.location).try_collect().await?;
        for object in objects {
            store.delete(&object).await?;
        }
        Ok::<(), object_store::Error>(())
    };
    if let Err(cause) = removed.await {
        tracing::warn!(%url, cause = cause_text(&cause), "objects of a hidden build are left behind");
        return;
    }
    // An object store has no empty folders.
    if let Ok(local) = url.to_file_path() {
        let local = inside.map_or_else(|| local.clone(), |inside| local.join(inside));
        if let Err(cause) = std::fs::remove_dir_all(&local) {
            tracing::debug!(folder = %local.display(), %cause, "an empty folder is left behind");
        }
    }
}
