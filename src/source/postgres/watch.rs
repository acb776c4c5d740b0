//! What changes a table without a trace in the log, found in the catalog.
//!
//! Some statements change what a table holds, or what of it is sent, and no message tells: a row filter of the publication
//! is changed (P-17); a label of an enum is renamed, and with it all values that have it (P-13); a partition that holds
//! rows is attached, detached, dropped or, where partitions come under their root's name, truncated (K-4, K-5). So notes
//! of these things are made before a table is loaded, kept in the ledger, and compared with the catalog when streaming
//! begins and every few seconds from then on. What differs stops the table, and says so.
//!
//! Why it neither misses nor invents:
//!
//! * A new partition that was made as one (its system columns and its place below the root were written by the same
//!   transaction) has all its rows in the log, but for rows that this very transaction put in before it was attached: they
//!   have a command number below that of the attachment. One that was attached later must be empty when it is found: what
//!   was in it before was then deleted, and the log has everything since.
//! * A partition with another file was truncated, or rewritten (VACUUM FULL, CLUSTER). A rewritten one still has rows that
//!   are older than the notes. One that has none was truncated, unless it was empty or all new: then it can't be told,
//!   and the message says so. An ALTER TABLE that rewrites makes every row new: it is one if the transaction that wrote the
//!   partition's catalog row changed the root's columns too, and a change was told that rewrites; this is believed only of a
//!   table that was in order at the last look. TRUNCATE of the root changes the files of all partitions and is in the log: the
//!   transaction that wrote a partition's catalog row tells whose it was, once the stream has come that far.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};
use tracing::warn;

use super::attributes::{Attributes, Description};
use super::catalog::{self, parse};
use super::connection::{connect, query_error, quote_identifier};
use super::newcomers::Newcomers;
use super::{publication, slot};
use crate::config::{Contracts, SourceConfig};
use crate::schema::{TableName, TableSchema};
use crate::source::Error;

const EVERY: Duration = Duration::from_secs(3);

/// Truncations of the root that are remembered; older ones have been compared long ago.
const TRUNCATIONS_MAX: usize = 64;

/// The notes of a source's tables by name, shared by whoever has to do with it.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<String, TableNotes>>>);

/// How a table was when it was last found in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableNotes {
    /// The publication names the table itself.
    member: bool,
    /// The publication's row filter, and those of partitions.
    filter: Option<String>,
    /// Labels of the enums that columns have, by oid.
    enums: BTreeMap<u32, String>,
    /// By oid.
    leaves: BTreeMap<u32, LeafNotes>,
    /// Transactions before this one had ended.
    before: u64,
    /// Transactions that truncated the root, as the log told.
    #[serde(default)]
    truncated_by: Vec<u32>,
    /// The publication's list of columns, by number; empty for none. `None`: not noted yet.
    #[serde(default)]
    list: Option<String>,
    /// Its columns by number, in the order of the log.
    #[serde(default)]
    versions: Vec<Version>,
}

/// The columns that a table has from a place of the log on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    from: u64,
    attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeafNotes {
    schema: String,
    table: String,
    file: u32,
}

/// A table as the catalog has it now.
#[derive(Debug, Deserialize)]
struct Seen {
    schema: String,
    table: String,
    member: bool,
    filter: Option<String>,
    enums: BTreeMap<u32, String>,
    leaves: Vec<SeenLeaf>,
    before: u64,
    list: String,
    /// The transactions that last changed its columns.
    altered_by: Vec<u32>,
    /// Differs when anything of the table's columns, key or files differs.
    print: String,
}

#[derive(Debug, Deserialize)]
struct SeenLeaf {
    oid: u32,
    schema: String,
    table: String,
    file: u32,
    /// The transaction that last changed the partition's row in pg_class.
    changed_by: u32,
    /// It and everything between it and the root was made as a partition.
    born: bool,
    attached_by: u32,
    attached_at: i64,
}

const SEEN: &str = "
    SELECT json_build_object(
        'schema', n.nspname, 'table', c.relname,
        'member', EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = $3 AND r.prrelid = c.oid),
        'filter', (
            SELECT string_agg(pg_get_expr(r.prqual, r.prrelid), '; ' ORDER BY r.prrelid)
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = $3 AND r.prqual IS NOT NULL
                AND (r.prrelid = c.oid OR r.prrelid IN (SELECT relid FROM pg_partition_tree(c.oid)))),
        'enums', coalesce((
            SELECT json_object_agg(e.oid::int8, e.enumlabel) FROM pg_enum e
            WHERE e.enumtypid IN (
                SELECT unnest(ARRAY[t.oid, t.typelem, b.oid, b.typelem])
                FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)), '{}'),
        'leaves', coalesce((
            SELECT json_agg(json_build_object('oid', leaf.oid::int8, 'schema', ln.nspname, 'table', leaf.relname,
                'file', leaf.relfilenode::int8, 'changed_by', leaf.xmin::text::int8,
                'attached_by', i.xmin::text::int8, 'attached_at', i.cmin::text::int8,
                'born', (
                    SELECT bool_and(ui.xmin = ua.xmin)
                    FROM pg_partition_ancestors(leaf.oid) AS up(oid)
                    JOIN pg_inherits ui ON ui.inhrelid = up.oid
                    JOIN pg_attribute ua ON ua.attrelid = up.oid AND ua.attnum = -1
                    WHERE up.oid NOT IN (SELECT relid FROM pg_partition_ancestors(c.oid)))))
            FROM pg_partition_tree(c.oid) tree JOIN pg_class leaf ON leaf.oid = tree.relid
            JOIN pg_namespace ln ON ln.oid = leaf.relnamespace JOIN pg_inherits i ON i.inhrelid = leaf.oid
            WHERE c.relkind = 'p' AND tree.isleaf), '[]'),
        'list', coalesce((
            SELECT string_agg(r.prattrs::text, '; ' ORDER BY r.prrelid)
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = $3 AND r.prrelid = c.oid AND r.prattrs IS NOT NULL), ''),
        'altered_by', coalesce((
            SELECT json_agg(DISTINCT a.xmin::text::int8) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
            '[]'),
        'print', md5(concat_ws('|', c.oid, c.relnatts, c.relreplident, c.relfilenode,
            (SELECT string_agg(f.relfilenode::text, ',' ORDER BY f.oid)
                FROM pg_partition_tree(c.oid) tree JOIN pg_class f ON f.oid = tree.relid WHERE c.relkind = 'p'),
            (SELECT string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped,
                    a.atthasmissing, a.attgenerated, format_type(a.atttypid, a.atttypmod)), ';' ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
            (SELECT string_agg(concat_ws(',', i.indexrelid, i.indkey::text, i.indisprimary, i.indisreplident,
                    i.indisvalid), ';' ORDER BY i.indexrelid)
                FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)))),
        'before', pg_snapshot_xmin(pg_current_snapshot())::text::int8
    )::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN unnest($1::text[], $2::text[]) AS wanted(schema, name) ON n.nspname = wanted.schema AND c.relname = wanted.name
    WHERE c.relkind IN ('r', 'p')";

/// What a look at a table found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In order; what to compare with next time.
    Fine(TableNotes),
    /// In words what is not.
    Changed(String),
    /// It is in the publication no more.
    Unpublished(String),
    /// Partitions lost their rows. In order only if the root was truncated by all of these transactions, or if each rewrote the
    /// partition as it altered the root's columns (`altered`).
    Emptied { notes: TableNotes, by: Vec<u32>, altered: bool, finding: String },
}

/// What was found at one moment.
#[derive(Debug)]
pub struct Look {
    pub verdicts: Vec<(TableName, Verdict)>,
    /// Tables that look otherwise than at the look before the last one; all at the first two. So what is passed over because
    /// the log told of the table just then is described once more.
    pub described: Vec<(TableName, Description)>,
    /// The log's end when they looked like this: whatever they show is in the log before it.
    pub described_at: u64,
    /// A change that the log has at or after this may not show yet: a transaction is in the log before it can be seen, for as
    /// long as it waits for standbys.
    pub shows_before: u64,
    /// Tables that are gone, and what they are called now if they were renamed.
    pub gone: Vec<(TableName, Option<TableName>)>,
    /// Tables that came and can be followed.
    pub appeared: Vec<TableName>,
    /// An event trigger tells DDL.
    pub told: bool,
    /// Everything the verdicts are about is in the log before this.
    pub log_end: u64,
}

impl Notes {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, TableNotes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the ledger.
    pub fn written(&self) -> BTreeMap<String, String> {
        let notes = self.lock();
        // Structs of numbers and texts always have a JSON form.
        notes.iter().filter_map(|(name, notes)| Some((name.clone(), serde_json::to_string(notes).ok()?))).collect()
    }

    /// Takes the ledger's back. Unreadable ones are left out: the table is then taken as it is.
    pub fn read(&self, written: &BTreeMap<String, String>) {
        *self.lock() = written
            .iter()
            .filter_map(|(name, text)| match serde_json::from_str(text) {
                Ok(notes) => Some((name.clone(), notes)),
                Err(error) => {
                    warn!(table = name, %error, "the ledger's notes of a table are unreadable and are made anew");
                    None
                }
            })
            .collect();
    }

    pub fn set(&self, name: &TableName, notes: TableNotes) {
        let mut all = self.lock();
        let (truncated_by, versions) = match all.get_mut(&name.to_string()) {
            Some(before) => (std::mem::take(&mut before.truncated_by), std::mem::take(&mut before.versions)),
            None => (Vec::new(), Vec::new()),
        };
        all.insert(name.to_string(), TableNotes { truncated_by, versions, ..notes });
    }

    /// The table has these columns from this place of the log on. Versions that no start from `durable` on needs are
    /// forgotten.
    pub fn record(&self, name: &TableName, from: u64, attributes: &Attributes, durable: u64) {
        let mut all = self.lock();
        // Without notes it is not watched either.
        let Some(notes) = all.get_mut(&name.to_string()) else { return };
        let columns_alike = |version: &Version| {
            let Attributes { oid, width, identity, key, files: _, columns } = &version.attributes;
            (oid, width, identity, key, columns)
                == (&attributes.oid, &attributes.width, &attributes.identity, &attributes.key, &attributes.columns)
        };
        match notes.versions.last_mut() {
            Some(last) if columns_alike(last) => last.attributes.files.clone_from(&attributes.files),
            _ => {
                notes.versions.retain(|version| version.from < from);
                notes.versions.push(Version { from, attributes: attributes.clone() });
            }
        }
        let needed = notes.versions.iter().rposition(|version| version.from <= durable).unwrap_or_default();
        notes.versions.drain(..needed);
    }

    /// The columns it had at this place, if they are those of the schema that the lake has.
    pub fn in_force(&self, name: &TableName, at: u64, schema: &TableSchema) -> Option<Attributes> {
        let all = self.lock();
        let versions = &all.get(&name.to_string())?.versions;
        let version = versions.iter().rev().find(|version| version.from <= at)?;
        version.attributes.fit(schema).then(|| version.attributes.clone())
    }

    /// The oid that it had last.
    fn oid(&self, name: &TableName) -> Option<u32> {
        self.lock().get(&name.to_string())?.versions.last().map(|version| version.attributes.oid)
    }

    pub fn forget(&self, name: &TableName) {
        self.lock().remove(&name.to_string());
    }

    /// The log told that this transaction truncates the whole table.
    pub fn truncated(&self, name: &TableName, by: u32) {
        if let Some(notes) = self.lock().get_mut(&name.to_string()) {
            notes.truncated_by.push(by);
            let excess = notes.truncated_by.len().saturating_sub(TRUNCATIONS_MAX);
            notes.truncated_by.drain(..excess);
        }
    }

    pub fn was_truncated_by(&self, name: &TableName, by: &[u32]) -> bool {
        self.lock().get(&name.to_string()).is_some_and(|notes| by.iter().all(|xid| notes.truncated_by.contains(xid)))
    }

    /// Whether the table was known to have this partition.
    pub fn has_leaf(&self, name: &TableName, leaf: &TableName) -> bool {
        self.lock().get(&name.to_string()).is_some_and(|notes| {
            notes.leaves.values().any(|known| known.schema == leaf.schema && known.table == leaf.table)
        })
    }

    fn of(&self, name: &TableName) -> Option<TableNotes> {
        self.lock().get(&name.to_string()).cloned()
    }
}

impl SeenLeaf {
    fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

impl Seen {
    fn notes(&self) -> TableNotes {
        let note =
            |leaf: &SeenLeaf| LeafNotes { schema: leaf.schema.clone(), table: leaf.table.clone(), file: leaf.file };
        TableNotes {
            member: self.member,
            filter: self.filter.clone(),
            enums: self.enums.clone(),
            leaves: self.leaves.iter().map(|leaf| (leaf.oid, note(leaf))).collect(),
            before: self.before,
            truncated_by: Vec::new(),
            list: Some(self.list.clone()),
            versions: Vec::new(),
        }
    }
}

/// Makes notes of tables that are about to be loaded.
pub async fn observe(
    connection: &mut PgConnection,
    config: &SourceConfig,
    notes: &Notes,
    tables: &[TableName],
) -> Result<(), Error> {
    let seen = see(connection, config, tables).await?;
    let (described, _) = describe(connection, config, tables).await?;
    for seen in seen {
        let name = TableName::new(&seen.schema, &seen.table);
        let versions = described.iter().filter(|description| description.name == name);
        let versions = versions.map(|description| Version { from: 0, attributes: description.attributes.clone() });
        let fresh = TableNotes { versions: versions.collect(), ..seen.notes() };
        notes.lock().insert(name.to_string(), fresh);
    }
    Ok(())
}

/// Tables as the catalog has them now, with what of them the publication sends.
/// Tables as they all look at one moment, and where the log ended then.
async fn describe(
    connection: &mut PgConnection,
    config: &SourceConfig,
    tables: &[TableName],
) -> Result<(Vec<Description>, u64), Error> {
    let transaction = |error| query_error("reading the catalog as of one moment", &error);
    // Columns and the publication's lists of them must be of the same moment.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut moment = connection.begin_with(begin).await.map_err(transaction)?;
    let (_, at) = slot::log_ends(&mut moment).await?;
    let mut described = Vec::new();
    if !tables.is_empty() {
        described = publication::described(&mut moment, config, tables).await?;
    }
    moment.commit().await.map_err(transaction)?;
    Ok((described.iter().map(Description::from).collect(), at))
}

async fn see(connection: &mut PgConnection, config: &SourceConfig, tables: &[TableName]) -> Result<Vec<Seen>, Error> {
    let (schemas, names): (Vec<_>, Vec<_>) =
        tables.iter().map(|name| (name.schema.clone(), name.table.clone())).unzip();
    let rows: Vec<String> = sqlx::query_scalar(SEEN)
        .bind(schemas)
        .bind(names)
        .bind(&config.publication)
        .fetch_all(connection)
        .await
        .map_err(|error| query_error("reading partitions, enums and row filters", &error))?;
    rows.iter().map(|row| parse("partitions, enums and row filters", row)).collect()
}

/// Looks at the tables of a stream again and again.
#[derive(Debug)]
pub struct Watch {
    pub config: SourceConfig,
    pub contracts: Contracts,
    pub notes: Notes,
    pub tables: Vec<TableName>,
    pub newcomers: Newcomers,
    /// Of the tables as they were described at two looks.
    pub prints: HashMap<TableName, String>,
    /// As they were described at the last look only.
    pub fresh: HashMap<TableName, String>,
    /// Where the log ended at the last look.
    pub last: u64,
}

const TOLD: &str = "
    SELECT EXISTS (
        SELECT FROM pg_event_trigger e
        JOIN pg_proc f ON f.oid = e.evtfoid JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE n.nspname = 'lakeward' AND f.proname = 'tell_ddl' AND e.evtevent = 'ddl_command_end'
            AND e.evtenabled IN ('O', 'A'))";

/// Whether an event trigger tells the log about DDL.
pub async fn is_told(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar(TOLD).fetch_one(connection).await.map_err(|error| query_error("reading event triggers", &error))
}

impl Watch {
    /// Compares the tables with their notes; one without notes is taken as it is.
    pub async fn look(&mut self, connection: &mut PgConnection) -> Result<Look, Error> {
        let seen = see(connection, &self.config, &self.tables).await?;
        let mut verdicts = Vec::new();
        let mut changed = Vec::new();
        for seen in &seen {
            let name = TableName::new(&seen.schema, &seen.table);
            let verdict = match self.notes.of(&name) {
                Some(known) => compare(connection, &self.config, &known, seen).await?,
                None => Verdict::Fine(seen.notes()),
            };
            if self.prints.get(&name) != Some(&seen.print) {
                changed.push((name.clone(), seen.print.clone()));
            }
            verdicts.push((name, verdict));
        }
        let names: Vec<TableName> = changed.iter().map(|(name, _)| name.clone()).collect();
        let (described, described_at) = describe(connection, &self.config, &names).await?;
        let mut gone = Vec::new();
        for name in &self.tables {
            if seen.iter().any(|seen| (&seen.schema, &seen.table) == (&name.schema, &name.table)) {
                continue;
            }
            let now = match self.notes.oid(name) {
                Some(oid) => catalog::described_by_oid(connection, oid).await?.map(|table| table.name()),
                None => None,
            };
            self.prints.remove(name);
            gone.push((name.clone(), now));
        }
        let appeared = self.newcomers.look(connection, &self.config, &self.contracts).await?;
        let told = is_told(connection).await?;
        let (_, log_end) = slot::log_ends(connection).await?;
        for (name, print) in changed {
            if self.fresh.remove(&name).as_ref() == Some(&print) {
                self.prints.insert(name, print);
            } else {
                self.fresh.insert(name, print);
            }
        }
        let shows_before = std::mem::replace(&mut self.last, described_at);
        let described = described.into_iter().map(|description| (description.name.clone(), description)).collect();
        Ok(Look { verdicts, described, described_at, shows_before, gone, appeared, told, log_end })
    }

    /// Looks every few seconds until nobody wants to know any more.
    pub async fn keep_looking(mut self, out: mpsc::Sender<Look>) {
        let mut session: Option<PgConnection> = None;
        while !out.is_closed() {
            sleep(EVERY).await;
            let looked = async {
                let connection = match &mut session {
                    Some(connection) => connection,
                    None => {
                        let mut fresh = connect(&self.config).await?;
                        // Whoever truncates or rewrites holds the strongest lock, and may for long.
                        sqlx::query("SET lock_timeout = '2s'")
                            .execute(&mut fresh)
                            .await
                            .map_err(|error| query_error("SET lock_timeout", &error))?;
                        session.insert(fresh)
                    }
                };
                self.look(connection).await
            };
            match looked.await {
                Ok(look) => {
                    if out.send(look).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(source = self.config.name, %error, "could not look for what the log does not tell; trying again");
                    session = None;
                }
            }
        }
    }
}

async fn compare(
    connection: &mut PgConnection,
    config: &SourceConfig,
    known: &TableNotes,
    seen: &Seen,
) -> Result<Verdict, Error> {
    if known.is_taken_out(seen) {
        return Ok(Verdict::Unpublished(format!("it was taken out of publication `{}`", config.publication)));
    }
    if let Some(finding) = settings_changed(known, seen, &config.publication) {
        return Ok(Verdict::Changed(finding));
    }
    for (oid, leaf) in &known.leaves {
        if !seen.leaves.iter().any(|other| other.oid == *oid) {
            return Ok(Verdict::Changed(format!(
                "its partition {}.{} was detached or dropped, and the log does not tell which rows went with it",
                leaf.schema, leaf.table
            )));
        }
    }
    let mut emptied: Vec<&SeenLeaf> = Vec::new();
    for leaf in &seen.leaves {
        match known.leaves.get(&leaf.oid) {
            None => {
                let rows = if leaf.born {
                    // Row versions that the partition's own transaction wrote before it attached it.
                    format!("xmin::text = '{}' AND cmin::text::int8 < {}", leaf.attached_by, leaf.attached_at)
                } else {
                    "true".to_owned()
                };
                match holds(connection, config, leaf, &rows).await? {
                    Ok(false) => {}
                    Ok(true) => {
                        return Ok(Verdict::Changed(format!(
                            "partition {} was attached with rows in it, which are not in the log",
                            leaf.name()
                        )));
                    }
                    Err(finding) => return Ok(Verdict::Changed(finding)),
                }
            }
            Some(before) if before.file != leaf.file => {
                let older = format!("age(xmin) > age('{}'::xid)", known.before as u32);
                match holds(connection, config, leaf, &older).await? {
                    // Rewritten: its rows are still there.
                    Ok(true) => {}
                    Ok(false) => emptied.push(leaf),
                    Err(finding) => return Ok(Verdict::Changed(finding)),
                }
            }
            Some(_) => {}
        }
    }
    if emptied.is_empty() {
        return Ok(Verdict::Fine(seen.notes()));
    }
    let names: Vec<String> = emptied.iter().map(|leaf| leaf.name().to_string()).collect();
    Ok(Verdict::Emptied {
        notes: seen.notes(),
        by: emptied.iter().map(|leaf| leaf.changed_by).collect(),
        altered: emptied.iter().all(|leaf| seen.altered_by.contains(&leaf.changed_by)),
        finding: format!(
            "its partition {} was truncated, or rewritten (VACUUM FULL, CLUSTER) while it held no older row; which of both \
             can't be told, and the log does not tell which rows are gone",
            names.join(", ")
        ),
    })
}

impl TableNotes {
    fn is_taken_out(&self, seen: &Seen) -> bool {
        self.member && !seen.member
    }
}

/// What needs no look into the tables.
fn settings_changed(known: &TableNotes, seen: &Seen, publication: &str) -> Option<String> {
    if known.filter != seen.filter {
        let filter = |filter: &Option<String>| filter.clone().unwrap_or_else(|| "none".into());
        return Some(format!(
            "its row filter in publication `{publication}` changed from {} to {}: rows from before went by the old one",
            filter(&known.filter),
            filter(&seen.filter)
        ));
    }
    if let Some(list) = &known.list
        && *list != seen.list
    {
        return Some(format!(
            "its list of columns in publication `{publication}` was changed: rows from before went by the old one"
        ));
    }
    known.enums.iter().find_map(|(oid, label)| {
        let now = seen.enums.get(oid).filter(|now| *now != label)?;
        Some(format!("enum value `{label}` was renamed to `{now}`, which changed rows without a trace in the log"))
    })
}

/// Whether the partition holds such a row; the inner error says in words why that can't be seen.
async fn holds(
    connection: &mut PgConnection,
    config: &SourceConfig,
    leaf: &SeenLeaf,
    condition: &str,
) -> Result<Result<bool, String>, Error> {
    let quoted = format!("{}.{}", quote_identifier(&leaf.schema), quote_identifier(&leaf.table));
    let statement = format!("SELECT EXISTS (SELECT FROM ONLY {quoted} WHERE {condition})");
    match sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(connection).await {
        Ok(found) => Ok(Ok(found)),
        Err(error) => match query_error(&format!("looking into partition {}", leaf.name()), &error) {
            Error::Privilege { .. } => Ok(Err(format!(
                "its partition {} is new or has another file, and user `{}` may not look into it (GRANT SELECT ON {quoted} \
                 TO {})",
                leaf.name(),
                config.user,
                quote_identifier(&config.user)
            ))),
            other => Err(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(json: &str) -> Seen {
        serde_json::from_str(json).expect("a table")
    }

    const PLAIN: &str = r#"{"schema":"shop","table":"t","member":true,"filter":null,"enums":{"7":"ok"},
        "leaves":[{"oid":9,"schema":"shop","table":"t_1","file":11,"changed_by":5,"born":true,"attached_by":5,
        "attached_at":2}],"before":100,"list":"","altered_by":[5],"print":"p"}"#;

    #[test]
    fn notes_survive_the_ledger_and_keep_their_truncations() {
        let notes = Notes::default();
        let name = TableName::new("shop", "t.x");
        notes.set(&name, seen(PLAIN).notes());
        notes.truncated(&name, 77);
        let read = Notes::default();
        read.read(&notes.written());
        assert_eq!(read.of(&name), notes.of(&name));
        read.set(&name, seen(PLAIN).notes());
        assert!(read.was_truncated_by(&name, &[77, 77]) && !read.was_truncated_by(&name, &[77, 78]));
        assert!(read.has_leaf(&name, &TableName::new("shop", "t_1")) && !read.has_leaf(&name, &name));
        for xid in 0..1000 {
            read.truncated(&name, xid);
        }
        assert_eq!(read.of(&name).map(|notes| notes.truncated_by.len()), Some(TRUNCATIONS_MAX));
        read.forget(&name);
        assert!(read.written().is_empty());
        read.read(&BTreeMap::from([("shop.t".to_owned(), "{".to_owned())]));
        assert!(read.written().is_empty());
    }

    /// P-13, P-17
    #[test]
    fn filters_and_labels_are_compared() {
        let known = seen(PLAIN).notes();
        let changed = |json: String| settings_changed(&known, &seen(&json), "p");
        assert_eq!(changed(PLAIN.to_owned()), None);
        assert_eq!(changed(PLAIN.replace(r#"{"7":"ok"}"#, r#"{"7":"ok","8":"new"}"#)), None);
        let renamed = changed(PLAIN.replace("\"ok\"", "\"fine\"")).expect("told");
        assert!(renamed.contains("`ok` was renamed to `fine`"), "{renamed}");
        let filtered = changed(PLAIN.replace("\"filter\":null", "\"filter\":\"(a > 1)\"")).expect("told");
        assert!(filtered.contains("from none to (a > 1)"), "{filtered}");
        assert!(known.is_taken_out(&seen(&PLAIN.replace("\"member\":true", "\"member\":false"))));
        assert!(!known.is_taken_out(&seen(PLAIN)));
        assert!(changed(PLAIN.replace("\"list\":\"\"", "\"list\":\"1 2\"")).is_some());
        // Notes of before this was noted.
        assert_eq!(settings_changed(&TableNotes { list: None, ..known.clone() }, &seen(PLAIN), "p"), None);
    }
}
