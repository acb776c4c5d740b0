use super::*;
use crate::schema::{RowIdentity, TableSchema};
use crate::source::{Class, CollectorLimits, TableStart};

/// What must be in the message, and the events.
type Cases = Vec<(&'static str, Vec<(u8, Vec<u8>)>)>;

///
#[test]
fn offsets_go_on_where_the_logs_32_bits_start_over() {
    let gib = 1_u64 << 30;
    let mut offset = 4;
    for step in 1..=20 {
        let next = step * gib / 2 + step;
        offset = offset_after(offset, next as u32);
        assert_eq!(offset, next);
        assert_eq!(offset_after(offset, next as u32), next, "an event of no length");
    }
    assert_eq!(offset_after(0xFFFF_FFF0, 0x10), 0x1_0000_0010);
    assert_eq!(offset_after(0x1_0000_0010, 0x20), 0x1_0000_0020);
    assert_eq!(offset_after(0x2_FFFF_FFFF, 0), 0x3_0000_0000);
}

/// Follows `shop.goods` from the second transaction on.
fn reader() -> (Reader, mpsc::Receiver<Event>) {
    let from = Position::BinlogOffset { file: "binlog.000007".to_owned(), offset: 4 };
    let name = TableName::new("shop", "goods");
    let schema = TableSchema {
        name: name.clone(),
        columns: Vec::new(),
        key: Vec::new(),
        partition_by: Vec::new(),
        identity: RowIdentity::Key,
    };
    let position = Position::BinlogOffset { file: "binlog.000007".to_owned(), offset: 1000 };
    let start = TableStart { schema: Arc::new(schema), position, layout: None, ignored: Default::default() };
    let (out, events) = mpsc::channel(100);
    let collector = Collector::new(from, CollectorLimits::default(), out);
    let tables = HashMap::from([(name, Followed::new(start, Default::default()))]);
    let mut reader = Reader::new(collector, tables, Collations::default(), Vendor::MySql, false);
    reader.offset = 500;
    (reader, events)
}

fn head(kind: u8) -> Head {
    Head { kind, flags: 0, server_id: 1, timestamp: 0, log_pos: 0 }
}

fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend([4, 0, 0, 0, 0]);
    body.extend(b"shop\0");
    body.extend(text.as_bytes());
    body
}

/// Events of a compressed transaction, here without compression.
fn payload(events: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, body) in events {
        inner.extend([0, 0, 0, 0, *kind, 1, 0, 0, 0]);
        inner.extend((body.len() as u32 + 19).to_le_bytes());
        inner.extend([0; 6]);
        inner.extend(body);
    }
    let mut body = vec![2, 3, 0xFC, 255, 0, 1, 3, 0xFC];
    body.extend((inner.len() as u16).to_le_bytes());
    body.push(0);
    body.extend(inner);
    body
}

/// Malformed, cut off, out of place, unknown: each is a definite error that says where, or is known to be harmless.
#[tokio::test]
async fn events_that_make_no_sense_are_told_with_their_place() {
    let goods = super::super::table_map::tests::goods;
    let cases: Cases = vec![
        ("event type 99 is unknown", vec![(99, vec![1, 2, 3])]),
        ("a table map: ", vec![(event::TABLE_MAP, goods()[..9].to_vec())]),
        (
            "has no table map",
            vec![(event::GTID, Vec::new()), (event::WRITE_ROWS, vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 1, 9])],
        ),
        (
            "rows outside of a transaction",
            vec![(event::TABLE_MAP, goods()), (event::WRITE_ROWS_V1, vec![7, 0, 0, 0, 0, 0, 1, 0, 1, 1, 9])],
        ),
        ("a row event: ", vec![(event::WRITE_ROWS, vec![7, 0])]),
        ("a compressed row event: ", vec![(event::WRITE_ROWS_COMPRESSED_V1, vec![7, 0])]),
        ("a compressed statement: ", vec![(event::QUERY_COMPRESSED, query("BEGIN"))]),
        ("a commit marker without", vec![(event::XID, vec![0; 8])]),
        ("an incident", vec![(event::INCIDENT, vec![1, 0])]),
        ("XA PREPARE: ", vec![(event::XA_PREPARE, vec![0; 5])]),
        ("ends no XA transaction", vec![(event::XA_PREPARE, vec![0; 13])]),
        ("without its preparation", vec![(event::QUERY, query("XA START X'67',X'',1")), (event::XID, vec![0; 8])]),
    ];
    for (wanted, events) in cases {
        let (mut reader, _told) = reader();
        let mut ended = Ok(());
        for (kind, body) in &events {
            let event = if *kind == event::GTID { event::ANONYMOUS_GTID } else { *kind };
            ended = reader.event(head(event), body).await;
        }
        let error = ended.expect_err(wanted);
        assert_eq!(error.class(), Class::Definite);
        let text = error.to_string();
        assert!(text.contains(wanted) && text.contains("binlog.000007:500"), "{wanted}: {text}");
    }
    let (mut reader, _told) = reader();
    let ignorable = Head { flags: event::FLAG_IGNORABLE, ..head(99) };
    reader.event(ignorable, &[1, 2, 3]).await.expect("its writer says that it may be passed over");
}

/// Compressed transactions hold whole transactions and nothing else.
#[tokio::test]
async fn a_compressed_transaction_must_be_whole() {
    let begin = (event::QUERY, query("BEGIN"));
    let end = (event::XID, vec![0; 8]);
    let cases: Cases = vec![
        ("its end is missing", vec![begin.clone()]),
        ("follows its end", vec![begin.clone(), end.clone(), begin.clone()]),
        ("an event of type 33 is in it", vec![begin.clone(), (event::GTID, vec![0; 42])]),
        ("an event of type 40 is in it", vec![(event::TRANSACTION_PAYLOAD, Vec::new())]),
        ("an event of type 4 is in it", vec![(event::ROTATE, vec![0; 9])]),
    ];
    for (wanted, events) in cases {
        let (mut reader, _told) = reader();
        reader.event(head(event::ANONYMOUS_GTID), &[]).await.expect("a transaction begins");
        let error = reader.payload(&payload(&events)).await.expect_err(wanted);
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
    }
    let (mut reader, _told) = reader();
    assert!(reader.payload(&payload(&[begin.clone(), end.clone()])).await.is_err(), "no GTID event before it");
    reader.event(head(event::ANONYMOUS_GTID), &[]).await.expect("a transaction begins");
    reader.payload(&payload(&[begin, end])).await.expect("whole");
    assert!(reader.open.is_none());
}

/// a table that has a decision gets none, one that has not gets it, whichever side the preparation was on.
#[tokio::test]
async fn a_decision_names_the_tables_that_do_not_have_it() {
    for (offset, wanting) in [(900, 0), (1100, 1)] {
        let (mut reader, mut told) = reader();
        for (kind, body) in [
            (event::ANONYMOUS_GTID, Vec::new()),
            (event::QUERY, query("XA START X'67',X'',1")),
            (event::QUERY, query("XA END X'67',X'',1")),
            (event::XA_PREPARE, [&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], b"g"].concat()),
        ] {
            reader.event(head(kind), &body).await.expect("a preparation");
        }
        reader.offset = offset;
        reader.event(head(event::ANONYMOUS_GTID), &[]).await.expect("a transaction begins");
        reader.event(head(event::QUERY), &query("XA COMMIT X'67',X'',1")).await.expect("a decision");
        let mut found = Vec::new();
        while let Ok(event) = told.try_recv() {
            match event {
                Event::Prepared { xid, .. } => found.push(format!("prepared {xid}")),
                Event::Decided { xid, commit, wanting, .. } => found.push(format!("{xid} {commit} {}", wanting.len())),
                Event::Boundary { .. } => found.push("boundary".to_owned()),
                other => panic!("{other:?}"),
            }
        }
        let decided = format!("X'67',X'',1 true {wanting}");
        assert_eq!(found, ["prepared X'67',X'',1", "boundary", &decided, "boundary"], "at {offset}");
    }
}

/// What a statement in `seed` comes to.
async fn statement(reader: &mut Reader, text: &str) -> Result<(), Error> {
    reader.event(head(event::ANONYMOUS_GTID), &[]).await?;
    let mut body = vec![0; 8];
    body.extend([4, 0, 0, 0, 0]);
    body.extend(b"seed\0");
    body.extend(text.as_bytes());
    reader.event(head(event::QUERY), &body).await
}

/// Without a catalog to ask, a ghost that was not seen from its beginning on is not trusted.
#[tokio::test]
async fn only_a_ghost_of_this_log_takes_a_tables_place() {
    let rename = "RENAME TABLE plain TO _plain_del, _plain_gho TO plain";
    for (before, expected) in [
        (vec![], "is not known"),
        (vec!["CREATE TABLE _plain_gho LIKE plain"], ""),
        (vec!["CREATE TABLE IF NOT EXISTS _plain_gho LIKE plain"], "is not known"),
        (vec!["CREATE TABLE _plain_gho LIKE plain", "ALTER TABLE _plain_gho ADD n SERIAL"], "is not known"),
        (vec!["CREATE TABLE _plain_gho LIKE plain", "DROP TABLE _plain_gho"], "is not known"),
        (vec!["CREATE TABLE _plain_gho LIKE plain", "ALTER TABLE _plain_gho ADD n INT NOT NULL DEFAULT 5"], "`5`"),
        (vec!["CREATE TABLE _x_gho LIKE plain", "RENAME TABLE _x_gho TO _plain_gho"], "is not known"),
    ] {
        let (out, mut events) = mpsc::channel(100);
        let mut reader = fuzz::reader(6, out);
        for text in before.iter().chain([&rename]) {
            statement(&mut reader, text).await.expect("a statement");
        }
        let mut told = String::new();
        while let Ok(event) = events.try_recv() {
            match event {
                Event::SchemaChange(change) => told.push_str(&change.steps[0].to_string()),
                Event::TableStopped { error, .. } => told.push_str(&error.to_string()),
                Event::TableDropped { .. } | Event::TableAppeared { .. } => panic!("{event:?}"),
                _ => {}
            }
        }
        assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{before:?}: {told}");
    }
}

proptest::proptest! {
    /// Whatever is written: each change begins where the last one ended, and says something.
    #[test]
    fn changes_follow_from_each_other(
        texts in proptest::collection::vec(
            "(ALTER TABLE (plain|_plain_gho) |RENAME TABLE |CREATE TABLE |DROP TABLE )?\
             ((ADD|DROP|MODIFY|CHANGE|RENAME COLUMN) (name|price|a|b)( TO | )?(a|b|name|price)?\
             ( INT| BIGINT| VARCHAR\\(20\\)| VARCHAR\\(3\\)| DECIMAL\\(12,4\\))?( NOT NULL)?( DEFAULT '?5'?)?\
             (, | FIRST, | AFTER id, )?|plain TO _plain_del, _plain_gho TO plain|_plain_gho LIKE plain|plain|IF EXISTS ){1,4}",
            1..8,
        ),
    ) {
        use futures::FutureExt;
        let (out, mut events) = mpsc::channel(1000);
        let mut reader = fuzz::reader(6, out);
        let mut now: Option<Arc<TableSchema>> = None;
        for text in texts {
            let text = text.trim_end_matches([',', ' ']);
            statement(&mut reader, text).now_or_never().expect("room for events").expect("it is read");
            while let Ok(event) = events.try_recv() {
                let Event::SchemaChange(change) = event else { continue };
                assert!(!change.steps.is_empty(), "{text}");
                if let Some(now) = now {
                    assert_eq!(now, change.before, "{text}");
                }
                let mut names: Vec<&str> = change.after.columns.iter().map(|column| column.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), change.after.columns.len(), "{text}");
                now = Some(change.after);
            }
        }
    }
}
