//! The reader of the log for any events (see `source::fuzz`).

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{Event as BinlogEvent, FormatDescriptionEvent};
use tokio::sync::mpsc;

use super::super::declared::Declared;
use super::super::flavor::Vendor;
use super::super::fuzz::collations;
use super::{Followed, Reader};
use crate::schema::{
    Column, ColumnDefault, Layout, LayoutColumn, PRIMARY, Period, Policy, RowIdentity, TableName, TableSchema,
    UniqueKey,
};
use crate::source::fuzz::check_rows;
use crate::source::{Collector, CollectorLimits, Error, Event, Position, TableStart};

/// More events than one log event can cause.
const CHANNEL: usize = 1024;

/// `seed.plain`, which the corpus has rows of.
fn plain() -> Arc<TableSchema> {
    let columns = [("id", "int"), ("name", "varchar(20)"), ("price", "decimal(10,2)"), ("at", "datetime(3)")];
    let columns = columns.iter().map(|(name, source_type)| Column {
        name: (*name).to_owned(),
        source_type: (*source_type).to_owned(),
        lake_type: Declared::parse(source_type).lake_type(),
        nullable: *name != "id",
        policy: Policy::default(),
    });
    Arc::new(TableSchema {
        name: TableName::new("seed", "plain"),
        columns: columns.collect(),
        key: vec![0],
        partition_by: vec![],
        identity: RowIdentity::Key,
    })
}

/// What the catalog says of `seed.plain`.
fn layout(schema: &TableSchema) -> Layout {
    let columns = schema.columns.iter().map(|column| {
        let text = column.source_type.starts_with("varchar");
        LayoutColumn {
            name: column.name.clone(),
            declaration: column.source_type.clone(),
            charset: text.then(|| "utf8mb4".to_owned()),
            collation: text.then(|| "utf8mb4_general_ci".to_owned()),
            nullable: column.nullable,
            default: ColumnDefault::None,
            generated: false,
            invisible: false,
            auto_increment: false,
        }
    });
    Layout {
        columns: columns.collect(),
        uniques: vec![UniqueKey {
            name: PRIMARY.to_owned(),
            columns: vec!["id".to_owned()],
            partial: false,
            hashed: false,
        }],
        charset: "utf8mb4".to_owned(),
        collation: "utf8mb4_general_ci".to_owned(),
        period: Period::None,
    }
}

pub(super) fn reader(flags: u8, out: mpsc::Sender<Event>) -> Reader {
    let vendor = if flags & 1 == 0 { Vendor::MySql } else { Vendor::MariaDb };
    let by_offset = flags & 2 != 0;
    let from = match (by_offset, vendor) {
        (true, _) => Position::BinlogOffset { file: "binlog.000001".to_owned(), offset: 4 },
        (false, Vendor::MySql) => Position::MySqlGtid(Default::default()),
        (false, Vendor::MariaDb) => Position::MariaDbGtid(Default::default()),
    };
    let schema = plain();
    let name = schema.name.clone();
    let layout = (flags & 4 != 0).then(|| Arc::new(layout(&schema)));
    let start = TableStart { schema, position: from.clone(), layout, ignored: Default::default() };
    // Small limits: what they cause belongs to what is tested.
    let limits = CollectorLimits { rows_max: 8, bytes_max: 4096, ..CollectorLimits::default() };
    let tables = HashMap::from([(name, Followed::new(start, Default::default()))]);
    Reader::new(Collector::new(from, limits, out), tables, collations(), vendor, false)
}

/// A log of MySQL or MariaDB (bit 0 of the first byte), read by GTIDs or by offsets (bit 1), without or with the
/// table's layout (bit 2), which DDL then changes: whole events as in a
/// binlog file, without checksums. A length in a header that is not so is made so: the transport does not hand on others.
pub fn binlog_events(input: &[u8]) {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let format = FormatDescriptionEvent::new(BinlogVersion::Version4);
    let (out, mut events) = mpsc::channel(CHANNEL);
    let mut reader = reader(flags, out);
    let mut told: Option<Position> = None;
    while rest.len() >= 19 {
        let declared = u32::from_le_bytes([rest[9], rest[10], rest[11], rest[12]]) as usize;
        let (event, after) = rest.split_at(declared.clamp(19, rest.len()));
        rest = after;
        let mut bytes = event.to_vec();
        bytes[9..13].copy_from_slice(&(event.len() as u32).to_le_bytes());
        let Ok(event) = BinlogEvent::read(&format, bytes.as_slice()) else { continue };
        let handled = drive(&mut reader, &event, &mut events, &mut told);
        if let Err(error) = handled {
            let text = error.to_string();
            assert!(!text.is_empty());
            if let Error::Protocol { position, finding } = &error {
                assert!(!position.is_empty() && !finding.is_empty(), "an error names its place: {text}");
            }
            return;
        }
    }
}

fn drive(
    reader: &mut Reader,
    event: &BinlogEvent,
    events: &mut mpsc::Receiver<Event>,
    told: &mut Option<Position>,
) -> Result<(), Error> {
    let mut handling = Box::pin(reader.handle(event));
    loop {
        let handled = (&mut handling).now_or_never();
        let mut progress = handled.is_some();
        while let Ok(event) = events.try_recv() {
            progress = true;
            check(event, told);
        }
        match handled {
            Some(result) => return result,
            // It waits for room, which there is now.
            None => assert!(progress, "the reader waits for something else than room for its events"),
        }
    }
}

fn check(event: Event, told: &mut Option<Position>) {
    match event {
        Event::Rows(rows) => check_rows(&rows.rows, rows.ops.len(), &rows.unchanged),
        Event::Boundary { position, .. } => {
            // Offsets go where the server's rotations say.
            if let Some(before) = told.as_ref()
                && !matches!(position, Position::BinlogOffset { .. })
            {
                assert!(position.covers(before), "{position} is behind {before}");
            }
            let again: Position = position.to_string().parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again, position, "a position survives its text");
            *told = Some(position);
        }
        Event::TableStopped { error: Error::Table { position, finding, remedy, .. }, .. } => {
            assert!(!position.is_empty() && !finding.is_empty() && !remedy.is_empty());
        }
        _ => {}
    }
}
