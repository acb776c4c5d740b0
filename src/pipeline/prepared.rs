//! Transactions that are prepared and wait for their decision.
//!
//! Their changes are held in memory and, from the first ledger entry on whose position has the preparation, in an object
//! beside the ledger: written before that entry, listed by it, removed after the first entry whose position has the
//! decision. So a position and the transactions that are undecided at it always go together, and another machine finds
//! both. At the decision the changes join the deciding transaction for those tables that do not have it yet, in the shape
//! that each table's lake has then: a decision about a held column may have changed it meanwhile, though no statement can.
//!
//! An object is the length of a JSON head (four bytes, little-endian), the head, and one Arrow IPC stream per part.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::following::Following;
use crate::lake::TableChange;
use crate::ledger::{self, Entry, Ledger, PreparedEntry, PreparedObjects};
use crate::schema::{
    Column, LakeType, Op, Policy, RESYNC, Reason, RowIdentity, Shape, TableName, TableRows, TableSchema, Unfaithful,
};
use crate::source::Error;

const FORMAT: u32 = 1;

/// What one prepared transaction changed.
#[derive(Debug)]
pub struct PreparedSet {
    pub xid: String,
    id: String,
    changes: Vec<Kept>,
    /// Tables it changed whose rows are not here.
    unsent: Vec<TableName>,
}

#[derive(Debug)]
struct Kept {
    table: TableName,
    change: TableChange,
    /// In which the lake had the table then, and its rows are; `None`: as the source tells them.
    shape: Option<Arc<Shape>>,
}

impl Kept {
    /// Rows as the source told them; `None` for anything but rows.
    fn as_told(&self) -> Result<Option<TableRows>, String> {
        let rows = match &self.change {
            TableChange::Rows(rows) => rows.clone(),
            TableChange::Spilled(spilled) => spilled.read().map_err(|error| error.to_string())?,
            TableChange::Truncate | TableChange::Evolve(_) => return Ok(None),
        };
        match &self.shape {
            Some(shape) => shape.unproject(&rows).map(Some).map_err(|error| error.to_string()),
            None => Ok(Some(rows)),
        }
    }

    /// As a change of a table that has this shape now.
    fn in_shape(&self, now: &Arc<Shape>) -> Result<TableChange, String> {
        if self.shape.as_ref() == Some(now) {
            return Ok(self.change.clone());
        }
        let Some(rows) = self.as_told()? else { return Ok(self.change.clone()) };
        let columns = |schema: &TableSchema| {
            let left_out = |column: &&Column| !now.ignored.contains(&column.name);
            let mut columns: Vec<(String, LakeType)> =
                schema.columns.iter().filter(left_out).map(|column| (column.name.clone(), column.lake_type)).collect();
            columns.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            columns
        };
        if columns(&rows.schema) != columns(&now.source_schema()) {
            return Err("its columns changed while it was prepared".to_owned());
        }
        now.project(rows).map(TableChange::Rows).map_err(|error| error.to_string())
    }
}

/// Undecided transactions by name, as of one position.
pub type PreparedSets = BTreeMap<String, Arc<PreparedSet>>;

/// What a decision brings.
#[derive(Debug, Default)]
pub struct Decision {
    pub changes: Vec<(TableName, TableChange)>,
    /// Tables that need rows that nobody has.
    pub lost: Vec<(TableName, Error)>,
}

/// The undecided transactions at the point the stream has reached.
#[derive(Debug, Default)]
pub struct Prepared {
    sets: PreparedSets,
    changed: bool,
}

impl Prepared {
    pub fn new(sets: PreparedSets) -> Self {
        Self { sets, changed: false }
    }

    /// `changes` are in the shapes that `following` has.
    pub fn hold(
        &mut self,
        xid: String,
        changes: Vec<(TableName, TableChange)>,
        unsent: Vec<TableName>,
        following: &Following,
    ) {
        self.changed = true;
        let kept = |(table, change)| Kept { shape: following.shape(&table).cloned(), table, change };
        let changes = changes.into_iter().map(kept).collect();
        let set = PreparedSet { xid: xid.clone(), id: Uuid::new_v4().simple().to_string(), changes, unsent };
        self.sets.insert(xid, Arc::new(set));
    }

    /// `wanting` are the tables that do not have the decision.
    pub fn decide(
        &mut self,
        xid: &str,
        commit: bool,
        wanting: &[TableName],
        place: &str,
        following: &Following,
    ) -> Decision {
        let set = self.sets.remove(xid);
        self.changed |= set.is_some();
        if !commit {
            return Decision::default();
        }
        let lost = |table: &TableName, finding: String| {
            let remedy = "load it again with `lakeward resync`".to_owned();
            (table.clone(), Error::Table { table: table.to_string(), finding, position: place.to_owned(), remedy })
        };
        let Some(set) = set else {
            let finding = format!(
                "XA transaction {xid} was committed, but prepared before lakeward read the log: which rows it changed can't \
                 be known"
            );
            return Decision {
                changes: Vec::new(),
                lost: wanting.iter().map(|table| lost(table, finding.clone())).collect(),
            };
        };
        let finding = format!("XA transaction {xid} changed it while it was not followed, and is committed now");
        let mut decision = Decision {
            changes: Vec::new(),
            lost: wanting
                .iter()
                .filter(|table| set.unsent.contains(table))
                .map(|table| lost(table, finding.clone()))
                .collect(),
        };
        for kept in set.changes.iter().filter(|kept| wanting.contains(&kept.table)) {
            // A table without a shape does not stream.
            let Some(shape) = following.shape(&kept.table) else { continue };
            match kept.in_shape(shape) {
                Ok(change) => decision.changes.push((kept.table.clone(), change)),
                Err(cause) => {
                    let finding = format!("rows of XA transaction {xid} do not fit it any more: {cause};");
                    let error = Error::Table {
                        table: kept.table.to_string(),
                        finding,
                        position: place.to_owned(),
                        remedy: RESYNC.to_owned(),
                    };
                    decision.lost.push((kept.table.clone(), error));
                }
            }
        }
        decision
    }

    /// The sets, if they are others than at the last call.
    pub fn take_changed(&mut self) -> Option<PreparedSets> {
        std::mem::take(&mut self.changed).then(|| self.sets.clone())
    }
}

/// Reads the transactions that the entry lists.
pub async fn load(ledger: &Ledger, entry: Option<&Entry>) -> Result<PreparedSets, ledger::Error> {
    let mut sets = PreparedSets::new();
    for listed in entry.iter().flat_map(|entry| &entry.prepared) {
        let objects = ledger.prepared();
        let bytes = objects.get(&listed.id).await?;
        let set = decode(&bytes, &listed.id).map_err(|cause| objects.unreadable(&listed.id, cause))?;
        sets.insert(listed.xid.clone(), Arc::new(set));
    }
    Ok(sets)
}

/// Writes what the entry does not list yet, and lists exactly `sets`; returns what may be forgotten once the entry is
/// appended.
pub async fn persist(
    objects: &PreparedObjects,
    sets: &PreparedSets,
    entry: &mut Entry,
) -> Result<Vec<String>, ledger::Error> {
    for set in sets.values() {
        if !entry.prepared.iter().any(|listed| listed.id == set.id) {
            let bytes = encode(set).map_err(|cause| objects.unreadable(&set.id, cause))?;
            objects.put(&set.id, bytes).await?;
        }
    }
    let listed: Vec<PreparedEntry> =
        sets.values().map(|set| PreparedEntry { xid: set.xid.clone(), id: set.id.clone() }).collect();
    let before = std::mem::replace(&mut entry.prepared, listed);
    let gone = before.into_iter().filter(|old| !entry.prepared.contains(old));
    Ok(gone.map(|old| old.id).collect())
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    xid: String,
    unsent: Vec<(String, String)>,
    parts: Vec<Part>,
}

/// A change; rows have their Arrow stream of `bytes` bytes behind the head.
#[derive(Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
enum Part {
    Truncate {
        table: (String, String),
    },
    Rows {
        schema: SchemaHead,
        /// A digit per row.
        ops: String,
        unchanged: Vec<(u32, u16)>,
        unfaithful: Vec<(u32, u16, Reason)>,
        bytes: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct SchemaHead {
    table: (String, String),
    /// Name, declaration, lake type, nullable.
    columns: Vec<(String, String, String, bool)>,
    key: Vec<usize>,
    partition_by: Vec<usize>,
    identity: Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Identity {
    Key,
    WholeRow,
    AppendOnly,
}

fn pair(name: &TableName) -> (String, String) {
    (name.schema.clone(), name.table.clone())
}

fn table_name((schema, table): (String, String)) -> TableName {
    TableName::new(schema, table)
}

fn encode(set: &PreparedSet) -> Result<Vec<u8>, String> {
    let mut streams = Vec::new();
    let mut parts = Vec::with_capacity(set.changes.len());
    for kept in &set.changes {
        let Some(rows) = kept.as_told()? else {
            if matches!(kept.change, TableChange::Evolve(_)) {
                return Err(format!("it changes columns of {}, which no XA transaction does", kept.table));
            }
            parts.push(Part::Truncate { table: pair(&kept.table) });
            continue;
        };
        let start = streams.len();
        let written = StreamWriter::try_new(&mut streams, &rows.rows.schema())
            .and_then(|mut writer| writer.write(&rows.rows).and_then(|()| writer.finish()));
        written.map_err(|error| error.to_string())?;
        let schema = &rows.schema;
        parts.push(Part::Rows {
            schema: SchemaHead {
                table: pair(&schema.name),
                columns: schema
                    .columns
                    .iter()
                    .map(|column| {
                        let lake_type = column.lake_type.to_string();
                        (column.name.clone(), column.source_type.clone(), lake_type, column.nullable)
                    })
                    .collect(),
                key: schema.key.clone(),
                partition_by: schema.partition_by.clone(),
                identity: match schema.identity {
                    RowIdentity::Key => Identity::Key,
                    RowIdentity::WholeRow => Identity::WholeRow,
                    RowIdentity::AppendOnly => Identity::AppendOnly,
                },
            },
            ops: rows.ops.iter().map(|op| char::from(b'0' + *op as u8)).collect(),
            unchanged: rows.unchanged.clone(),
            unfaithful: rows.unfaithful.iter().map(|value| (value.row, value.column, value.reason)).collect(),
            bytes: streams.len() - start,
        });
    }
    let unsent = set.unsent.iter().map(pair).collect();
    let head = Head { format: FORMAT, xid: set.xid.clone(), unsent, parts };
    let head = serde_json::to_vec(&head).map_err(|error| error.to_string())?;
    let length = u32::try_from(head.len()).map_err(|error| error.to_string())?;
    Ok([length.to_le_bytes().as_slice(), &head, &streams].concat())
}

fn decode(bytes: &[u8], id: &str) -> Result<PreparedSet, String> {
    let short = || "it is cut off".to_owned();
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (head, mut streams) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let head: Head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    if head.format != FORMAT {
        return Err(format!("its format is {}, not {FORMAT}", head.format));
    }
    let mut changes = Vec::with_capacity(head.parts.len());
    for part in head.parts {
        match part {
            Part::Truncate { table } => {
                changes.push(Kept { table: table_name(table), change: TableChange::Truncate, shape: None });
            }
            Part::Rows { schema, ops, unchanged, unfaithful, bytes } => {
                let (stream, rest) = streams.split_at_checked(bytes).ok_or_else(short)?;
                streams = rest;
                let schema = Arc::new(read_schema(schema)?);
                let batch = read_batch(stream)?;
                if batch.schema().fields() != schema.arrow().fields() || batch.num_rows() != ops.len() {
                    return Err(format!("rows of {} are not as its head says", schema.name));
                }
                let ops = ops.bytes().map(read_op).collect::<Option<Vec<Op>>>().ok_or("an unknown kind of change")?;
                let unfaithful =
                    unfaithful.into_iter().map(|(row, column, reason)| Unfaithful { row, column, reason }).collect();
                let table = schema.name.clone();
                let rows = TableRows { schema, rows: batch, ops, unchanged, unfaithful };
                changes.push(Kept { table, change: TableChange::Rows(rows), shape: None });
            }
        }
    }
    let unsent = head.unsent.into_iter().map(table_name).collect();
    Ok(PreparedSet { xid: head.xid, id: id.to_owned(), changes, unsent })
}

fn read_op(digit: u8) -> Option<Op> {
    let ops = [Op::Insert, Op::Update, Op::Delete, Op::UpdateOldKey, Op::UpdateNewKey];
    ops.into_iter().find(|op| *op as u8 + b'0' == digit)
}

fn read_batch(stream: &[u8]) -> Result<RecordBatch, String> {
    let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|error| error.to_string())?;
    let batch = reader.next().ok_or("a stream without rows")?;
    batch.map_err(|error| error.to_string())
}

fn read_schema(head: SchemaHead) -> Result<TableSchema, String> {
    let columns = head.columns.into_iter().map(|(name, source_type, lake_type, nullable)| {
        let lake_type: LakeType = lake_type.parse().map_err(|_| format!("lake type `{lake_type}` is unknown"))?;
        // The policy has done its work: these rows are decoded.
        Ok(Column { name, source_type, lake_type, nullable, policy: Policy::default() })
    });
    Ok(TableSchema {
        name: table_name(head.table),
        columns: columns.collect::<Result<Vec<Column>, String>>()?,
        key: head.key,
        partition_by: head.partition_by,
        identity: match head.identity {
            Identity::Key => RowIdentity::Key,
            Identity::WholeRow => RowIdentity::WholeRow,
            Identity::AppendOnly => RowIdentity::AppendOnly,
        },
    })
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::schema::{ColumnBuilder, ElementType, RowBuilder};

    fn name() -> TableName {
        TableName::new("booking", "coupons")
    }

    /// One row of every kind of change, with nested types.
    fn rows() -> TableRows {
        let column = |name: &str, lake_type, nullable| Column {
            name: name.to_owned(),
            source_type: "int(11)".to_owned(),
            lake_type,
            nullable,
            policy: Policy::default(),
        };
        let schema = Arc::new(TableSchema {
            name: name(),
            columns: vec![
                column("id", LakeType::Long, false),
                column("price", LakeType::Decimal { precision: 12, scale: 2 }, true),
                column("seen", LakeType::Timestamp, true),
                column("tags", LakeType::Array(ElementType::String), true),
                column("place", LakeType::Geometry, true),
            ],
            key: vec![0],
            partition_by: Vec::new(),
            identity: RowIdentity::Key,
        });
        let mut builder = RowBuilder::new(schema.clone());
        let ops = [Op::Insert, Op::Update, Op::Delete, Op::UpdateOldKey, Op::UpdateNewKey];
        for number in 0..ops.len() {
            match &mut builder.columns[0] {
                ColumnBuilder::Long(id) => id.append_value(number as i64),
                other => panic!("{other:?}"),
            }
            for column in &mut builder.columns[1..] {
                column.append_null();
            }
            builder.end_row().expect("whole");
        }
        TableRows {
            schema,
            rows: builder.finish().expect("whole"),
            ops: ops.to_vec(),
            unchanged: vec![(1, 2)],
            unfaithful: vec![Unfaithful { row: 4, column: 2, reason: Reason::OutOfRange }],
        }
    }

    /// The lake has the table as the source has it.
    fn following() -> Following {
        let mut following = Following::new("booking", Default::default());
        for table in [name(), TableName::new("booking", "new")] {
            let schema = TableSchema { name: table.clone(), ..TableSchema::clone(&rows().schema) };
            following.follow(table, Arc::new(Shape::of(Arc::new(schema))), Default::default());
        }
        following
    }

    fn only(decision: &Decision) -> &TableRows {
        match decision.changes.as_slice() {
            [(_, TableChange::Rows(rows))] => rows,
            other => panic!("{other:?}"),
        }
    }

    /// X-5, G6
    #[tokio::test]
    async fn prepared_changes_outlive_the_machine_and_go_with_their_decision() {
        let store: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
        let (mut ledger, _) = Ledger::open(store.clone()).await.expect("empty");
        let mut entry = Entry::new("booking", "MariaDB", "h", "mariadb:0-1-1".into());
        let mut prepared = Prepared::default();
        assert!(prepared.take_changed().is_none());
        prepared.hold("a".to_owned(), vec![(name(), TableChange::Rows(rows()))], Vec::new(), &following());
        prepared.hold(
            "b".to_owned(),
            vec![(name(), TableChange::Truncate)],
            vec![TableName::new("x", "y")],
            &following(),
        );
        let sets = prepared.take_changed().expect("two");
        let gone = persist(ledger.prepared(), &sets, &mut entry).await.expect("to memory");
        assert!(gone.is_empty() && prepared.take_changed().is_none());
        ledger.append(&entry).await.expect("to memory");

        let (mut ledger, read) = Ledger::open(store.clone()).await.expect("there");
        let mut entry = read.expect("there");
        assert_eq!(ledger.prepared().leftovers(&entry.prepared).await.expect("a list"), Vec::<String>::new());
        let mut prepared = Prepared::new(load(&ledger, Some(&entry)).await.expect("readable"));
        let decision = prepared.decide("a", true, &[name()], "here", &following());
        let (found, expected) = (only(&decision), rows());
        assert_eq!((&found.rows, &found.ops, &found.schema), (&expected.rows, &expected.ops, &expected.schema));
        assert_eq!((&found.unchanged, &found.unfaithful), (&expected.unchanged, &expected.unfaithful));
        assert!(prepared.decide("b", false, &[name()], "here", &following()).changes.is_empty());
        let sets = prepared.take_changed().expect("none is left");
        let gone = persist(ledger.prepared(), &sets, &mut entry).await.expect("to memory");
        assert_eq!((sets.len(), gone.len(), entry.prepared.len()), (0, 2, 0));
        ledger.append(&entry).await.expect("to memory");
        ledger.prepared().forget(&gone).await;
        assert!(ledger.prepared().leftovers(&[]).await.expect("a list").is_empty());
    }

    #[test]
    fn a_table_that_has_the_decision_gets_nothing_and_one_without_its_rows_stops() {
        let other = TableName::new("booking", "new");
        let mut prepared = Prepared::default();
        let hold = |prepared: &mut Prepared| {
            prepared.hold("a".to_owned(), vec![(name(), TableChange::Rows(rows()))], vec![other.clone()], &following());
        };
        hold(&mut prepared);
        let decision = prepared.decide("a", true, &[], "here", &following());
        assert!(decision.changes.is_empty() && decision.lost.is_empty());
        hold(&mut prepared);
        let decision = prepared.decide("a", true, &[name(), other.clone()], "here", &following());
        assert_eq!((only(&decision).ops.len(), decision.lost.len()), (5, 1));
        assert_eq!(decision.lost[0].0, other);
        // Nobody knows what it did.
        assert_eq!(prepared.decide("a", true, &[name()], "here", &following()).lost.len(), 1);
        assert!(prepared.decide("a", true, &[], "here", &following()).lost.is_empty());
        assert!(prepared.decide("a", false, &[name()], "here", &following()).lost.is_empty());
    }

    /// A decision about a held column changes the lake's shape though no statement can meanwhile.
    #[test]
    fn prepared_rows_come_in_the_shape_of_the_decision() {
        let hold = |now: &Following| {
            let mut prepared = Prepared::default();
            let changes = vec![(name(), TableChange::Rows(rows()))];
            prepared.hold("a".to_owned(), changes, Vec::new(), now);
            prepared
        };
        let shaped = |change: &dyn Fn(&mut Shape)| {
            let mut shape = Shape::of(rows().schema);
            change(&mut shape);
            let mut following = Following::new("booking", Default::default());
            following.follow(name(), Arc::new(shape), Default::default());
            following
        };
        let renamed = |shape: &mut Shape| {
            let mut lake = TableSchema::clone(&shape.lake);
            lake.columns[1].name = "cost".into();
            shape.lake = Arc::new(lake);
        };
        let decision = hold(&following()).decide("a", true, &[name()], "here", &shaped(&renamed));
        assert_eq!(only(&decision).schema.columns[1].name, "cost");
        let left_out = |shape: &mut Shape| {
            let mut lake = TableSchema::clone(&shape.lake);
            lake.columns.truncate(4);
            shape.lake = Arc::new(lake);
            shape.origins.truncate(4);
            shape.hidden.truncate(4);
            shape.ignored.insert("place".into());
        };
        let decision = hold(&following()).decide("a", true, &[name()], "here", &shaped(&left_out));
        assert_eq!(only(&decision).schema.columns.len(), 4);
        // If a statement came between after all, nobody guesses.
        let other = |shape: &mut Shape| {
            left_out(shape);
            shape.ignored.clear();
        };
        let decision = hold(&following()).decide("a", true, &[name()], "here", &shaped(&other));
        assert!(decision.changes.is_empty() && decision.lost.len() == 1);
    }

    #[test]
    fn damaged_objects_are_told() {
        let set = PreparedSet {
            xid: "a".to_owned(),
            id: "1".to_owned(),
            changes: vec![Kept { table: name(), change: TableChange::Rows(rows()), shape: None }],
            unsent: Vec::new(),
        };
        let bytes = encode(&set).expect("to memory");
        assert!(decode(&bytes, "1").is_ok());
        for end in 0..bytes.len() - 16 {
            assert!(decode(&bytes[..end], "1").is_err(), "{end}");
        }
    }
}
