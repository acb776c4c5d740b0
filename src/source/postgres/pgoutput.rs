//! The messages of PostgreSQL's `pgoutput` plugin, protocol version 1, decoded without copying values.
//!
//! Layout: PostgreSQL manual, 55.9 "Logical Replication Message Formats". Version 1 sends a transaction after its
//! commit only, text values, and every number in network order. All reads are bounds-checked: any prefix of a message
//! is an error, never a panic.

use std::fmt;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin {
        /// Where the commit record starts.
        final_lsn: u64,
        commit_time_micros: i64,
        xid: u32,
    },
    Commit {
        /// Where the commit record starts.
        commit_lsn: u64,
        /// Just after the commit record.
        end_lsn: u64,
        commit_time_micros: i64,
    },
    Origin,
    Relation(Relation<'a>),
    /// Names a user-defined type; the catalog tells more about it.
    Type,
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<(OldKind, Tuple<'a>)>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: (OldKind, Tuple<'a>),
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// From `pg_logical_emit_message`.
    Logical,
}

/// What an old row image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKind {
    /// The columns of the replica identity; the others are NULL.
    Key,
    /// The whole row: REPLICA IDENTITY FULL.
    Full,
}

/// A table, as the following rows of it are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub id: u32,
    pub namespace: &'a str,
    pub name: &'a str,
    pub replica_identity: u8,
    pub columns: Vec<RelationColumn<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub key: bool,
    pub name: &'a str,
    pub type_oid: u32,
    pub typmod: i32,
}

/// A row image whose lengths were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// One value of a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// A value stored out of line that the update did not touch; the log does not hold it.
    Unchanged,
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    pub fn values(&self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader { bytes: self.bytes, at: 0 };
        // `Reader::tuple` read the same bytes to their end, so no value is left out here.
        (0..self.columns).map_while(move |_| reader.value().ok())
    }
}

/// A message that ends too early, or holds what version 1 of the protocol does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub what: &'static str,
    pub offset: usize,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pgoutput message: {} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for Unreadable {}

/// Decodes one message, which has to end with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, Unreadable> {
    let mut reader = Reader { bytes, at: 0 };
    let message = match reader.u8("message type")? {
        b'B' => Message::Begin {
            final_lsn: reader.u64("final LSN")?,
            commit_time_micros: reader.u64("commit time")? as i64,
            xid: reader.u32("transaction id")?,
        },
        b'C' => {
            reader.u8("flags")?;
            Message::Commit {
                commit_lsn: reader.u64("commit LSN")?,
                end_lsn: reader.u64("end LSN")?,
                commit_time_micros: reader.u64("commit time")? as i64,
            }
        }
        b'O' => {
            reader.u64("origin LSN")?;
            reader.text("origin name")?;
            Message::Origin
        }
        b'R' => Message::Relation(reader.relation()?),
        b'Y' => {
            reader.u32("type oid")?;
            reader.text("type namespace")?;
            reader.text("type name")?;
            Message::Type
        }
        b'I' => {
            let relation = reader.u32("relation id")?;
            match reader.u8("tuple kind")? {
                b'N' => Message::Insert { relation, new: reader.tuple()? },
                _ => return Err(reader.unreadable("unknown tuple kind of an insert")),
            }
        }
        b'U' => {
            let relation = reader.u32("relation id")?;
            let mut kind = reader.u8("tuple kind")?;
            let mut old = None;
            if let Some(old_kind) = OldKind::of(kind) {
                old = Some((old_kind, reader.tuple()?));
                kind = reader.u8("tuple kind")?;
            }
            match kind {
                b'N' => Message::Update { relation, old, new: reader.tuple()? },
                _ => return Err(reader.unreadable("unknown tuple kind of an update")),
            }
        }
        b'D' => {
            let relation = reader.u32("relation id")?;
            let kind = reader.u8("tuple kind")?;
            match OldKind::of(kind) {
                Some(kind) => Message::Delete { relation, old: (kind, reader.tuple()?) },
                None => return Err(reader.unreadable("unknown tuple kind of a delete")),
            }
        }
        b'T' => {
            let count = reader.u32("relation count")?;
            reader.u8("truncate options")?;
            // Grows as the ids are read: a wrong count must not reserve memory.
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(reader.u32("relation id")?);
            }
            Message::Truncate { relations }
        }
        b'M' => {
            reader.u8("flags")?;
            reader.u64("message LSN")?;
            reader.text("prefix")?;
            let length = reader.u32("content length")?;
            reader.take(length as usize, "content")?;
            Message::Logical
        }
        _ => return Err(Unreadable { what: "unknown message type", offset: 0 }),
    };
    if reader.at != bytes.len() {
        return Err(reader.unreadable("bytes after the message's end"));
    }
    Ok(message)
}

impl OldKind {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            b'K' => Some(Self::Key),
            b'O' => Some(Self::Full),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn unreadable(&self, what: &'static str) -> Unreadable {
        Unreadable { what, offset: self.at }
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Unreadable> {
        let end = self.at.checked_add(length).ok_or_else(|| self.unreadable(what))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.unreadable(what))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Unreadable> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Unreadable> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, Unreadable> {
        self.array(what).map(u16::from_be_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Unreadable> {
        self.array(what).map(u32::from_be_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Unreadable> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// Up to the next zero byte.
    fn text(&mut self, what: &'static str) -> Result<&'a str, Unreadable> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == 0).ok_or_else(|| self.unreadable(what))?;
        let text = std::str::from_utf8(self.take(length, what)?).map_err(|_| self.unreadable(what))?;
        self.at += 1;
        Ok(text)
    }

    fn relation(&mut self) -> Result<Relation<'a>, Unreadable> {
        let id = self.u32("relation id")?;
        let namespace = self.text("namespace")?;
        let name = self.text("relation name")?;
        let replica_identity = self.u8("replica identity")?;
        let count = self.u16("column count")?;
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(RelationColumn {
                key: self.u8("column flags")? & 1 != 0,
                name: self.text("column name")?,
                type_oid: self.u32("type oid")?,
                typmod: self.u32("type modifier")? as i32,
            });
        }
        // The server sends an empty namespace for pg_catalog.
        Ok(Relation { id, namespace, name, replica_identity, columns })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Unreadable> {
        let columns = self.u16("column count")?;
        let start = self.at;
        for _ in 0..columns {
            self.value()?;
        }
        Ok(Tuple { columns, bytes: &self.bytes[start..self.at] })
    }

    fn value(&mut self) -> Result<Value<'a>, Unreadable> {
        match self.u8("value kind")? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => {
                let length = self.u32("value length")?;
                self.take(length as usize, "value").map(Value::Text)
            }
            // `binary` is never asked for.
            _ => Err(self.unreadable("unknown value kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Builds messages as the server writes them.
    #[derive(Default)]
    struct Wire(Vec<u8>);

    impl Wire {
        fn new(kind: u8) -> Self {
            Self(vec![kind])
        }
        fn bytes(mut self, bytes: &[u8]) -> Self {
            self.0.extend_from_slice(bytes);
            self
        }
        fn u16(self, value: u16) -> Self {
            self.bytes(&value.to_be_bytes())
        }
        fn u32(self, value: u32) -> Self {
            self.bytes(&value.to_be_bytes())
        }
        fn u64(self, value: u64) -> Self {
            self.bytes(&value.to_be_bytes())
        }
        fn text(self, text: &str) -> Self {
            self.bytes(text.as_bytes()).bytes(b"\0")
        }
        fn tuple(mut self, kind: u8, values: &[Value<'_>]) -> Self {
            self = self.bytes(&[kind]).u16(values.len() as u16);
            for value in values {
                self = match value {
                    Value::Null => self.bytes(b"n"),
                    Value::Unchanged => self.bytes(b"u"),
                    Value::Text(text) => self.bytes(b"t").u32(text.len() as u32).bytes(text),
                };
            }
            self
        }
    }

    const ROW: [Value<'_>; 4] = [Value::Text(b"1"), Value::Null, Value::Unchanged, Value::Text(b"")];

    /// One of every kind.
    fn messages() -> Vec<Vec<u8>> {
        vec![
            Wire::new(b'B').u64(0x16_B374_D848).u64(7).u32(733).0,
            Wire::new(b'C').bytes(&[0]).u64(0x100).u64(0x130).u64(7).0,
            Wire::new(b'O').u64(5).text("other").0,
            relation_wire().0,
            Wire::new(b'Y').u32(16_500).text("public").text("mood").0,
            Wire::new(b'I').u32(1).tuple(b'N', &ROW).0,
            Wire::new(b'U').u32(1).tuple(b'N', &ROW).0,
            Wire::new(b'U').u32(1).tuple(b'K', &ROW).tuple(b'N', &ROW).0,
            Wire::new(b'U').u32(1).tuple(b'O', &ROW).tuple(b'N', &ROW).0,
            Wire::new(b'D').u32(1).tuple(b'K', &ROW).0,
            Wire::new(b'D').u32(1).tuple(b'O', &ROW).0,
            Wire::new(b'T').u32(2).bytes(&[3]).u32(1).u32(2).0,
            Wire::new(b'M').bytes(&[1]).u64(9).text("prefix").u32(3).bytes(b"abc").0,
        ]
    }

    fn relation_wire() -> Wire {
        Wire::new(b'R')
            .u32(16_400)
            .text("booking")
            .text("points")
            .bytes(b"d")
            .u16(2)
            .bytes(&[1])
            .text("id")
            .u32(20)
            .u32(u32::MAX)
            .bytes(&[0])
            .text("amount")
            .u32(1700)
            .u32(786_438)
    }

    #[test]
    fn a_transaction_is_read_as_written() {
        let begin = Wire::new(b'B').u64(0x100).u64(7).u32(733).0;
        assert_eq!(decode(&begin), Ok(Message::Begin { final_lsn: 0x100, commit_time_micros: 7, xid: 733 }));
        let commit = Wire::new(b'C').bytes(&[0]).u64(0x100).u64(0x130).u64(7).0;
        assert_eq!(decode(&commit), Ok(Message::Commit { commit_lsn: 0x100, end_lsn: 0x130, commit_time_micros: 7 }));
    }

    #[test]
    fn a_relation_names_its_columns_and_key() {
        let wire = relation_wire().0;
        let Ok(Message::Relation(relation)) = decode(&wire) else { panic!("a relation") };
        assert_eq!((relation.namespace, relation.name, relation.replica_identity), ("booking", "points", b'd'));
        assert_eq!(
            relation.columns,
            [
                RelationColumn { key: true, name: "id", type_oid: 20, typmod: -1 },
                RelationColumn { key: false, name: "amount", type_oid: 1700, typmod: 786_438 },
            ]
        );
    }

    #[test]
    fn rows_keep_null_empty_and_unchanged_apart() {
        let wire = Wire::new(b'U').u32(9).tuple(b'K', &ROW[..1]).tuple(b'N', &ROW).0;
        let Ok(Message::Update { relation: 9, old: Some((OldKind::Key, old)), new }) = decode(&wire) else {
            panic!("an update")
        };
        assert_eq!(old.values().collect::<Vec<_>>(), ROW[..1]);
        assert_eq!(new.values().collect::<Vec<_>>(), ROW);
    }

    #[test]
    fn every_cut_message_is_an_error() {
        for message in messages() {
            assert!(decode(&message).is_ok(), "{message:?}");
            for length in 0..message.len() {
                assert!(decode(&message[..length]).is_err(), "{} of {message:?}", length);
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        for mut message in messages() {
            message.push(0);
            assert!(decode(&message).is_err(), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(which in 0usize..13, at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut message = messages().swap_remove(which);
            let index = at.index(message.len());
            message[index] = byte;
            if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = decode(&message) {
                prop_assert_eq!(new.values().count(), new.len());
            }
        }
    }
}
