//! What `lakeward compact` and `lakeward vacuum` do: keeping single tables in shape because somebody asks.
//!
//! A vacuum may run beside whoever runs the source, for it removes only what no commit can need. A compaction commits, so
//! it needs the source's lease; a daemon that has it compacts by itself.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::commit::is_ahead;
use super::lake_to_write;
use super::leased::under_lease;
use super::schema_report::{Place, ReportError, question};
use super::upkeep::{merge_told, terms};
use crate::config::Config;
use crate::lake::{self, CompactionGroup, CompactionMerged, Eagerness, Lake, Table, VacuumTerms, Vacuumed};
use crate::ledger::{Entry, Holder, Lease, Ledger, TableState};
use crate::schema::TableName;

/// After so many jobs a table is left to the next call: whatever comes in meanwhile is not chased for ever.
const JOBS_MAX: usize = 1000;

/// What is, or was, worth writing anew of a table.
#[derive(Clone, Debug, Serialize)]
pub struct CompactionReport {
    pub source: String,
    pub table: String,
    /// By partition; what was there before.
    pub groups: Vec<CompactionGroup>,
    /// Commits that were made; none with `--dry-run`.
    pub commits: Vec<u64>,
    pub files_before: u64,
    /// `None` with `--dry-run`.
    pub files_after: Option<u64>,
    pub bytes_before: u64,
    pub bytes_after: Option<u64>,
    pub rows: u64,
    pub dead_rows: u64,
}

impl CompactionReport {
    fn new(place: &Place<'_>) -> Self {
        Self {
            source: place.source.name.clone(),
            table: place.name.to_string(),
            groups: Vec::new(),
            commits: Vec::new(),
            files_before: 0,
            files_after: None,
            bytes_before: 0,
            bytes_after: None,
            rows: 0,
            dead_rows: 0,
        }
    }

    fn take(&mut self, groups: impl IntoIterator<Item = CompactionGroup>) {
        for group in groups {
            self.files_before += group.files;
            self.bytes_before += group.bytes;
            self.rows += group.rows;
            self.dead_rows += group.dead_rows;
            self.groups.push(group);
        }
    }
}

/// What nothing needs of a table's folder, or needed.
#[derive(Clone, Debug, Serialize)]
pub struct VacuumReport {
    pub source: String,
    pub table: String,
    pub retention_seconds: u64,
    #[serde(flatten)]
    pub vacuumed: Vacuumed,
}

/// What a compaction would write anew, by what the tables' logs say.
pub async fn compaction_plans(config: &Config, tables: &[String]) -> Result<Vec<CompactionReport>, ReportError> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage).with_write_terms(config.write_terms());
    let mut reports = Vec::new();
    for text in tables {
        let place = Place::find(config, text)?;
        let (source, table) = (&place.source.name, &place.name);
        let terms = terms(config, source, table, Eagerness::Asked);
        let planned = Table::compaction_plan(&lake, source, table, &terms).await?;
        let mut report = CompactionReport::new(&place);
        report.take(planned.ok_or_else(|| nothing_there(source, table))?);
        reports.push(report);
    }
    Ok(reports)
}

/// Compacts tables whose sources nobody runs.
pub async fn compact(
    config: &Config,
    tables: &[String],
    stop: &CancellationToken,
) -> Result<Vec<CompactionReport>, ReportError> {
    let mut reports = Vec::new();
    for text in tables {
        let place = Place::find(config, text)?;
        let lake = lake_to_write(config);
        let store = lake.ledger_store(&place.source.name)?;
        let lease = Lease::acquire(store, &place.source.name, &Holder::this_process()).await?;
        let work = Box::pin(compact_table(config, &lake, &place, stop));
        reports.push(under_lease(lease, &place.source.name, work).await??);
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(reports)
}

async fn compact_table(
    config: &Config,
    lake: &Lake,
    place: &Place<'_>,
    stop: &CancellationToken,
) -> Result<CompactionReport, ReportError> {
    let (source, name) = (&place.source.name, &place.name);
    let entry = Ledger::read(lake.ledger_store(source)?).await?;
    let opened = Table::open(lake, source, name).await?;
    let mut table = opened.ok_or_else(|| nothing_there(source, name))?;
    check_state(entry.as_ref(), &table)?;
    let terms = terms(config, source, name, Eagerness::Asked);
    let mut report = CompactionReport::new(place);
    let (mut files_after, mut bytes_after) = (0, 0);
    for _ in 0..JOBS_MAX {
        let Some(job) = table.begin_compaction(&terms) else { break };
        let groups: Vec<CompactionGroup> = job.groups().cloned().collect();
        let Some(compacted) = job.run(stop).await? else { break };
        match merge_told(source, &mut table, compacted).await? {
            Some(CompactionMerged::Applied { version, files_after: files, bytes_after: bytes, .. }) => {
                report.take(groups);
                report.commits.push(version);
                files_after += files;
                bytes_after += bytes;
            }
            Some(CompactionMerged::Void) | None => break,
        }
    }
    table.finish().await;
    (report.files_after, report.bytes_after) = (Some(files_after), Some(bytes_after));
    Ok(report)
}

/// That a commit on top of the table's last one hides nothing that the next run of the source must tell.
fn check_state(entry: Option<&Entry>, table: &Table) -> Result<(), ReportError> {
    let name = table.name().to_string();
    let state = entry.and_then(|entry| entry.tables.get(&name));
    let word = state.map_or("not known to the ledger", TableState::word);
    let ahead = match entry {
        Some(entry) => is_ahead(table, entry.streamed())?,
        None => false,
    };
    if matches!(state, Some(TableState::Streaming)) && !ahead {
        return Ok(());
    }
    Err(question(if ahead {
        format!("{name} has a commit that its ledger does not know yet: run its source first (`lakeward run`)")
    } else {
        format!("{name} is {word}: only a table that streams is compacted")
    }))
}

/// Removes what nothing needs any more, or says what that is.
pub async fn vacuum(config: &Config, tables: &[String], dry_run: bool) -> Result<Vec<VacuumReport>, ReportError> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let mut reports = Vec::new();
    for text in tables {
        let place = Place::find(config, text)?;
        let (source, table) = (&place.source.name, &place.name);
        let retention = config.retention(source, &table.to_string());
        let terms = VacuumTerms { retention, young: VacuumTerms::YOUNG };
        let vacuumed = lake::vacuum(&lake, source, table, terms, dry_run).await?;
        reports.push(VacuumReport {
            source: source.clone(),
            table: table.to_string(),
            retention_seconds: retention.as_secs(),
            vacuumed: vacuumed.ok_or_else(|| nothing_there(source, table))?,
        });
    }
    Ok(reports)
}

fn nothing_there(source: &str, table: &TableName) -> ReportError {
    question(format!("the lake has no table {table} of source `{source}`; `lakeward tables` lists those it has"))
}
