//! The decoders of this folder for any bytes (see `source::fuzz`).

use std::collections::HashMap;
use std::sync::Arc;

use super::pgoutput::{self, Message, OldKind, Relation, Tuple, Value};
use super::plan::Plan;
use super::text::{self, Decode, Outcome};
use super::types::{self, Element, ResolvedType};
use crate::schema::{Column, ColumnBuilder, LakeType, Policy, RowIdentity, TableName, TableSchema};
use crate::source::fuzz::check_rows;
use crate::source::{Collector, CollectorLimits, Position, RowSink};

/// Messages, each after its length in two bytes big endian.
pub fn pgoutput(mut input: &[u8]) {
    let (out, _kept) = tokio::sync::mpsc::channel(1);
    let mut collector = Collector::new(Position::Lsn(0), CollectorLimits::default(), out);
    let mut plans: HashMap<u32, (TableName, Plan)> = HashMap::new();
    // A table keeps one schema for the whole stream, whatever is announced later.
    let mut schemas: HashMap<TableName, Arc<TableSchema>> = HashMap::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, after) = rest.split_at(length);
        input = after;
        let Ok(decoded) = pgoutput::decode(message) else { continue };
        if let Some(encoded) = encode(&decoded) {
            assert_eq!(encoded, message, "{decoded:?} comes from the bytes that it makes");
        }
        match decoded {
            Message::Relation(relation) => {
                let (schema, types) = schema_of(&relation);
                let schema = schemas.entry(schema.name.clone()).or_insert(schema).clone();
                if let Ok(plan) = Plan::for_relation(&relation, &types, &schema, &[]) {
                    plans.insert(relation.id, (schema.name.clone(), plan));
                }
            }
            Message::Insert { relation, new } => {
                rows(&mut collector, &mut plans, relation, |plan, sink| plan.insert(sink, &new).map(|()| 1));
            }
            Message::Update { relation, old, new } => {
                rows(&mut collector, &mut plans, relation, |plan, sink| plan.update(sink, old, &new));
            }
            Message::Delete { relation, old: (kind, old) } => {
                rows(&mut collector, &mut plans, relation, |plan, sink| plan.delete(sink, (kind, &old)).map(|()| 1));
            }
            _ => {}
        }
    }
}

/// One message's rows into builders of their own: a refused row stops its table, so its half-filled builders are
/// thrown away by the stream too.
fn rows<E>(
    collector: &mut Collector,
    plans: &mut HashMap<u32, (TableName, Plan)>,
    relation: u32,
    append: impl FnOnce(&mut Plan, &mut RowSink) -> Result<usize, E>,
) {
    let Some((_, plan)) = plans.get_mut(&relation) else { return };
    let schema = plan.schema().clone();
    let sink = collector.rows(&schema);
    match append(plan, sink) {
        Ok(rows) => {
            let ops = std::mem::take(&mut sink.ops).len();
            let unchanged = std::mem::take(&mut sink.unchanged);
            assert_eq!(ops, rows, "every row has an operation");
            let batch = sink.builder.finish().unwrap_or_else(|error| panic!("decoded rows form no batch: {error}"));
            check_rows(&batch, ops, &unchanged);
        }
        Err(_) => {
            plans.remove(&relation);
            sink.builder = crate::schema::RowBuilder::new(schema);
            sink.ops.clear();
            sink.unchanged.clear();
        }
    }
}

/// The table that a relation could be of. Its name has the relation's id, so that each has builders of its own.
fn schema_of(relation: &Relation<'_>) -> (Arc<TableSchema>, Vec<ResolvedType>) {
    let types: Vec<ResolvedType> = relation
        .columns
        .iter()
        .map(|column| ResolvedType {
            name: format!("type {}", column.type_oid),
            base_oid: column.type_oid,
            base_typmod: column.typmod,
            element: ARRAYS.iter().find(|(array, _)| *array == column.type_oid).map(|(_, element)| Element {
                base_oid: *element,
                base_typmod: -1,
                delimiter: ',',
            }),
            dimensions: 0,
            kind: 'b',
            delimiter: ',',
        })
        .collect();
    let columns = relation.columns.iter().zip(&types).map(|(column, found)| Column {
        name: column.name.to_owned(),
        source_type: found.name.clone(),
        lake_type: types::natural(found).lake_type,
        nullable: !column.key,
        policy: Policy::default(),
    });
    let columns: Vec<Column> = columns.collect();
    let keys = relation.columns.iter().enumerate().filter(|(_, column)| column.key);
    let key = keys.map(|(index, _)| index).collect();
    let schema = TableSchema {
        name: TableName::new(relation.namespace, format!("{}", relation.id)),
        columns,
        key,
        partition_by: vec![],
        identity: RowIdentity::Key,
    };
    (Arc::new(schema), types)
}

/// The bytes of a message, where it has no part that decoding drops.
fn encode(message: &Message<'_>) -> Option<Vec<u8>> {
    fn tuple(out: &mut Vec<u8>, kind: u8, tuple: &Tuple<'_>) {
        out.push(kind);
        out.extend((tuple.len() as u16).to_be_bytes());
        for value in tuple.values() {
            match value {
                Value::Null => out.push(b'n'),
                Value::Unchanged => out.push(b'u'),
                Value::Text(text) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text);
                }
            }
        }
    }
    let old_kind = |kind: OldKind| if kind == OldKind::Key { b'K' } else { b'O' };
    let mut out = Vec::new();
    match message {
        Message::Begin { final_lsn, commit_time_micros, xid } => {
            out.push(b'B');
            out.extend(final_lsn.to_be_bytes());
            out.extend(commit_time_micros.to_be_bytes());
            out.extend(xid.to_be_bytes());
        }
        Message::Insert { relation, new } => {
            out.push(b'I');
            out.extend(relation.to_be_bytes());
            tuple(&mut out, b'N', new);
        }
        Message::Update { relation, old, new } => {
            out.push(b'U');
            out.extend(relation.to_be_bytes());
            if let Some((kind, old)) = old {
                tuple(&mut out, old_kind(*kind), old);
            }
            tuple(&mut out, b'N', new);
        }
        Message::Delete { relation, old: (kind, old) } => {
            out.push(b'D');
            out.extend(relation.to_be_bytes());
            tuple(&mut out, old_kind(*kind), old);
        }
        _ => return None,
    }
    Some(out)
}

/// Array types and what they hold (pg_type.dat): int4, text, numeric, timestamptz, bytea.
const ARRAYS: [(u32, u32); 5] = [(1007, 23), (1009, 25), (1231, 1700), (1185, 1184), (1001, 17)];

const DECODES: [(Decode, LakeType); 15] = [
    (Decode::Boolean, LakeType::Boolean),
    (Decode::Short, LakeType::Short),
    (Decode::Integer, LakeType::Integer),
    (Decode::Long, LakeType::Long),
    (Decode::Float, LakeType::Float),
    (Decode::Double, LakeType::Double),
    (Decode::Decimal { precision: 38, scale: 4 }, LakeType::Decimal { precision: 38, scale: 4 }),
    (Decode::Decimal { precision: 5, scale: 0 }, LakeType::Decimal { precision: 5, scale: 0 }),
    (Decode::Money, LakeType::Decimal { precision: 19, scale: 2 }),
    (Decode::Text, LakeType::String),
    (Decode::Bytea, LakeType::Binary),
    (Decode::Date, LakeType::Date),
    (Decode::Timestamp, LakeType::Timestamp),
    (Decode::Timestamp, LakeType::TimestampNtz),
    (Decode::Time, LakeType::Long),
];

/// The text of one value: one value is appended, or none and an error; the same text by `COPY` gives the same.
pub fn text_values(selector: u8, input: &[u8]) {
    let (decode, lake_type) = &DECODES[usize::from(selector) % DECODES.len()];
    // Behind them, lists of the same.
    let list = usize::from(selector) / DECODES.len() % 2 == 1;
    let (decode, lake_type) = match lake_type.element().filter(|_| list) {
        Some(element) => {
            (Decode::Array { element: Box::new(decode.clone()), delimiter: b',' }, LakeType::Array(element))
        }
        None => (decode.clone(), *lake_type),
    };
    let mut builder = ColumnBuilder::new(lake_type);
    let outcome = text::append(&decode, input, &mut builder);
    assert_eq!(builder.len(), usize::from(outcome.is_ok()), "one value or none for {outcome:?}");
    if let (Ok(Outcome::Exact), ColumnBuilder::Timestamp(values)) = (&outcome, &builder) {
        // An offset may move it a little out of the years that a date may have.
        let year = chrono::DateTime::from_timestamp_micros(values.values_slice()[0])
            .map(|time| chrono::Datelike::year(&time))
            .unwrap_or(i32::MAX);
        assert!((0..=10_000).contains(&year), "year {year}");
    }
    // The escapes of COPY go around the same text.
    let mut escaped = Vec::with_capacity(input.len() * 2);
    for byte in input {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            b'\t' => escaped.extend(b"\\t"),
            other => escaped.push(*other),
        }
    }
    let mut values = Vec::new();
    let mut unescaped = Vec::new();
    let read = super::copy::for_each_value::<super::copy::Unreadable>(&escaped, &mut unescaped, |_, value| {
        values.push(value.map(<[u8]>::to_vec));
        Ok(())
    });
    assert_eq!((read, values), (Ok(1), vec![Some(input.to_vec())]), "COPY gives the text back");
    // And any bytes are values, or an error.
    let _ = super::copy::for_each_value::<super::copy::Unreadable>(input, &mut unescaped, |_, _| Ok(()));
}
