//! `TABLE_MAP_EVENT`: how the rows that follow are laid out, and, with `binlog_row_metadata=FULL`, what their columns
//! are called, which are unsigned, in which character set, and the labels of ENUM and SET.
//!
//! Public sources: MySQL's `libbinlogevents/include/rows_event.h` (the comment of `Table_map_event` describes body and
//! optional metadata); MariaDB writes the same with its own subset.

use super::flavor::Vendor;
use super::wire::{Fault, Wire, bit};

/// Column types of the log (`enum_field_types`).
pub mod kind {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    /// MariaDB: compressed blobs and texts, compressed strings.
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// One column of the log's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapColumn {
    /// One of [`kind`]; `ENUM` and `SET` are told from `STRING` already.
    pub kind: u8,
    /// Length in bytes of strings and of length prefixes, digits of fractions, by kind.
    pub length: u16,
    /// Digits after the point; of BIT the bits above whole bytes.
    pub scale: u8,
    pub unsigned: bool,
    /// The log told whether it is unsigned.
    pub sign_told: bool,
    pub collation: Option<u64>,
    /// Of ENUM and SET, in the column's character set.
    pub labels: Option<Vec<Vec<u8>>>,
    pub name: Option<String>,
    /// Only the log has this column, no catalog lists it.
    pub hidden: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub schema: String,
    pub table: String,
    pub columns: Vec<MapColumn>,
}

/// The number that row events name the table by; it comes first.
pub fn table_id(body: &[u8]) -> Result<u64, Fault> {
    Wire::new(body).unsigned(6)
}

impl TableMap {
    /// Database and table, without the columns: enough to know whether the rest matters.
    pub fn name(body: &[u8]) -> Result<(String, String), Fault> {
        let mut wire = Wire::new(body);
        wire.take(8)?;
        let name = names(&mut wire)?;
        Ok(name)
    }

    pub fn parse(body: &[u8], vendor: Vendor) -> Result<Self, Fault> {
        let mut wire = Wire::new(body);
        let table_id = wire.unsigned(6)?;
        wire.u16()?;
        let (schema, table) = names(&mut wire)?;
        let count = usize::try_from(wire.length_encoded()?).unwrap_or(usize::MAX);
        let kinds = wire.take(count)?;
        let mut metadata = Wire::new(wire.length_encoded_bytes()?);
        let mut columns =
            kinds.iter().map(|kind| layout(*kind, &mut metadata)).collect::<Result<Vec<MapColumn>, Fault>>()?;
        // Which columns may be NULL; a row's own bitmap says which are.
        wire.take(count.div_ceil(8))?;
        while !wire.is_empty() {
            let field = wire.u8()?;
            optional(field, Wire::new(wire.length_encoded_bytes()?), &mut columns, vendor)?;
        }
        Ok(Self { table_id, schema, table, columns })
    }

    /// Whether the log says what the columns are called (`binlog_row_metadata=FULL`).
    pub fn has_names(&self) -> bool {
        self.columns.iter().all(|column| column.name.is_some())
    }
}

fn names(wire: &mut Wire<'_>) -> Result<(String, String), Fault> {
    let mut name = || {
        let length = wire.u8()?;
        // Servers write names in UTF-8 always; what is not could hide the rows of a captured table.
        let name = std::str::from_utf8(wire.take(usize::from(length))?)
            .map_err(|_| Fault::new("a table's name is not UTF-8"))?
            .to_owned();
        wire.u8()?;
        Ok(name)
    };
    Ok((name()?, name()?))
}

/// Type and type-specific metadata of a column.
fn layout(kind: u8, metadata: &mut Wire<'_>) -> Result<MapColumn, Fault> {
    let mut column = MapColumn { kind, ..MapColumn::default() };
    match kind {
        kind::TINY
        | kind::SHORT
        | kind::LONG
        | kind::LONGLONG
        | kind::INT24
        | kind::TIMESTAMP
        | kind::DATE
        | kind::TIME
        | kind::DATETIME
        | kind::YEAR
        | kind::NEWDATE => {}
        kind::FLOAT
        | kind::DOUBLE
        | kind::TIMESTAMP2
        | kind::DATETIME2
        | kind::TIME2
        | kind::VECTOR
        | kind::JSON
        | kind::TINY_BLOB
        | kind::MEDIUM_BLOB
        | kind::LONG_BLOB
        | kind::BLOB
        | kind::GEOMETRY
        | kind::BLOB_COMPRESSED => column.length = u16::from(metadata.u8()?),
        kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED => column.length = metadata.u16()?,
        kind::NEWDECIMAL => {
            column.length = u16::from(metadata.u8()?);
            column.scale = metadata.u8()?;
        }
        kind::BIT => {
            column.scale = metadata.u8()?;
            column.length = u16::from(metadata.u8()?);
        }
        kind::STRING => {
            let (real, low) = (metadata.u8()?, metadata.u8()?);
            // Two bits of lengths above 255 are kept, inverted, in the real type's byte.
            column.kind = real | 0x30;
            column.length = u16::from(low) | (u16::from(!real & 0x30) << 4);
            if !matches!(column.kind, kind::STRING | kind::ENUM | kind::SET) {
                return Err(Fault(format!("string column of real type {real}")));
            }
        }
        other => return Err(Fault(format!("column type {other} is unknown"))),
    }
    Ok(column)
}

fn is_numeric(column: &MapColumn) -> bool {
    matches!(
        column.kind,
        kind::TINY
            | kind::SHORT
            | kind::INT24
            | kind::LONG
            | kind::LONGLONG
            | kind::NEWDECIMAL
            | kind::FLOAT
            | kind::DOUBLE
            | kind::YEAR
    )
}

fn is_character_or_geometry(column: &MapColumn) -> bool {
    column.kind == kind::GEOMETRY || is_character(column)
}

fn is_character(column: &MapColumn) -> bool {
    matches!(
        column.kind,
        kind::STRING
            | kind::VAR_STRING
            | kind::VARCHAR
            | kind::TINY_BLOB
            | kind::MEDIUM_BLOB
            | kind::LONG_BLOB
            | kind::BLOB
            | kind::BLOB_COMPRESSED
            | kind::VARCHAR_COMPRESSED
    )
}

fn is_labelled(column: &MapColumn) -> bool {
    matches!(column.kind, kind::ENUM | kind::SET)
}

/// One field of the optional metadata.
fn optional(field: u8, mut wire: Wire<'_>, columns: &mut [MapColumn], vendor: Vendor) -> Result<(), Fault> {
    // MariaDB gives geometries, which are blobs to it, a collation too.
    let is_character = match vendor {
        Vendor::MySql => is_character,
        Vendor::MariaDb => is_character_or_geometry,
    };
    match field {
        1 => {
            let bits = wire.rest();
            for (index, column) in columns.iter_mut().filter(|column| is_numeric(column)).enumerate() {
                let byte = bits.get(index / 8).ok_or_else(|| Fault::new("signedness is cut off"))?;
                column.unsigned = byte & (0x80 >> (index % 8)) != 0;
                column.sign_told = true;
            }
        }
        2 => default_collations(wire, columns, is_character)?,
        3 => collations(wire, columns, is_character)?,
        4 => {
            for column in columns {
                column.name = Some(String::from_utf8_lossy(wire.length_encoded_bytes()?).into_owned());
            }
        }
        5 => labels(wire, columns, kind::SET)?,
        6 => labels(wire, columns, kind::ENUM)?,
        10 => default_collations(wire, columns, is_labelled)?,
        11 => collations(wire, columns, is_labelled)?,
        // Geometry subtypes, primary keys, visibility, vector sizes: nothing of it changes how values are read.
        _ => {}
    }
    Ok(())
}

/// A collation for all, then pairs of index (among the columns of this group) and collation.
fn default_collations(
    mut wire: Wire<'_>,
    columns: &mut [MapColumn],
    group: fn(&MapColumn) -> bool,
) -> Result<(), Fault> {
    let default = wire.length_encoded()?;
    let mut others = std::collections::HashMap::new();
    while !wire.is_empty() {
        let index = wire.length_encoded()?;
        others.insert(index, wire.length_encoded()?);
    }
    for (index, column) in columns.iter_mut().filter(|column| group(column)).enumerate() {
        column.collation = Some(others.get(&(index as u64)).copied().unwrap_or(default));
    }
    Ok(())
}

fn collations(mut wire: Wire<'_>, columns: &mut [MapColumn], group: fn(&MapColumn) -> bool) -> Result<(), Fault> {
    for column in columns.iter_mut().filter(|column| group(column)) {
        column.collation = Some(wire.length_encoded()?);
    }
    Ok(())
}

fn labels(mut wire: Wire<'_>, columns: &mut [MapColumn], kind: u8) -> Result<(), Fault> {
    for column in columns.iter_mut().filter(|column| column.kind == kind) {
        let count = wire.length_encoded()?;
        let mut labels = Vec::new();
        for _ in 0..count {
            labels.push(wire.length_encoded_bytes()?.to_vec());
        }
        column.labels = Some(labels);
    }
    Ok(())
}

/// The head of a row event, and its rows.
#[derive(Clone, Copy, Debug)]
pub struct RowsEvent<'a> {
    pub table_id: u64,
    pub width: usize,
    /// Every column is in the rows (`binlog_row_image=FULL`).
    pub complete: bool,
    /// Bitmaps of the columns that are in the rows: of an update's images before and after; else twice the same.
    pub present: [&'a [u8]; 2],
    pub rows: &'a [u8],
}

/// `WRITE_ROWS` and its relatives in version 1 (MariaDB, types 23 to 25) and 2 (MySQL, 30 to 32). An event without
/// columns only closes a statement.
pub fn rows_event(body: &[u8], version_2: bool, update: bool) -> Result<RowsEvent<'_>, Fault> {
    let mut wire = Wire::new(body);
    let table_id = wire.unsigned(6)?;
    wire.u16()?;
    if version_2 {
        let extra = usize::from(wire.u16()?);
        wire.take(extra.checked_sub(2).ok_or_else(|| Fault::new("length of the extra data"))?)?;
    }
    if wire.is_empty() {
        return Ok(RowsEvent { table_id, width: 0, complete: true, present: [&[], &[]], rows: &[] });
    }
    let width = usize::try_from(wire.length_encoded()?).unwrap_or(usize::MAX);
    let first = wire.take(width.div_ceil(8))?;
    let second = if update { wire.take(width.div_ceil(8))? } else { first };
    let present = [first, second];
    let complete = present.iter().all(|present| (0..width).all(|index| bit(present, index)));
    Ok(RowsEvent { table_id, width, complete, present, rows: wire.rest() })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn length_encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![bytes.len() as u8];
        out.extend(bytes);
        out
    }

    /// `shop.goods (id int unsigned, name varchar(50), kind enum('a','b'), price decimal(6,2), flag bit(9))`
    pub fn goods() -> Vec<u8> {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
        body.extend(b"\x04shop\0\x05goods\0");
        body.push(5);
        body.extend([kind::LONG, kind::VARCHAR, kind::STRING, kind::NEWDECIMAL, kind::BIT]);
        body.extend(length_encoded(&[200, 0, kind::ENUM, 1, 6, 2, 1, 1]));
        body.push(0b11110);
        for (field, value) in [
            (1_u8, vec![0b1000_0000]),
            (2, vec![45]),
            (4, b"\x02id\x04name\x04kind\x05price\x04flag".to_vec()),
            (6, b"\x02\x01a\x01b".to_vec()),
            (10, vec![8]),
            (8, vec![0]),
        ] {
            body.push(field);
            body.extend(length_encoded(&value));
        }
        body
    }

    #[test]
    fn optional_metadata_names_signs_and_labels_the_columns() {
        let map = TableMap::parse(&goods(), Vendor::MySql).expect("well formed");
        assert_eq!((map.table_id, map.schema.as_str(), map.table.as_str()), (7, "shop", "goods"));
        assert!(map.has_names());
        let id = &map.columns[0];
        assert!(id.unsigned && id.kind == kind::LONG && id.name.as_deref() == Some("id"));
        let name = &map.columns[1];
        assert!(name.length == 200 && name.collation == Some(45));
        let label = &map.columns[2];
        assert_eq!((label.kind, label.length, label.collation), (kind::ENUM, 1, Some(8)));
        assert_eq!(label.labels, Some(vec![b"a".to_vec(), b"b".to_vec()]));
        let price = &map.columns[3];
        assert!(!price.unsigned && price.length == 6 && price.scale == 2);
        assert_eq!((map.columns[4].length, map.columns[4].scale), (1, 1));
    }

    #[test]
    fn long_char_columns_keep_two_bits_in_the_type() {
        let mut metadata = Wire::new(&[0xEE, 0xFC]);
        let column = layout(kind::STRING, &mut metadata).expect("well formed");
        assert_eq!((column.kind, column.length), (kind::STRING, 0x1FC));
    }

    #[test]
    fn every_prefix_is_a_fault_or_less_metadata() {
        let body = goods();
        for end in 0..body.len() {
            let _ = TableMap::parse(&body[..end], Vendor::MariaDb);
            let _ = TableMap::name(&body[..end]);
            let _ = rows_event(&body[..end], true, true);
        }
        assert!(TableMap::parse(&body[..20], Vendor::MySql).is_err());
    }

    ///
    #[test]
    fn a_missing_column_is_told() {
        let body = [7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0b111, 0b101, 9];
        let rows = rows_event(&body, true, true).expect("well formed");
        assert!(!rows.complete && rows.width == 3 && rows.present == [&[0b111], &[0b101]] && rows.rows == [9]);
        let rows = rows_event(&[7, 0, 0, 0, 0, 0, 1, 0, 3, 0xFF, 9], false, false).expect("well formed");
        assert!(rows.complete && rows.rows == [9]);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = TableMap::parse(&bytes, Vendor::MariaDb);
            let _ = rows_event(&bytes, true, true);
            let _ = rows_event(&bytes, false, false);
        }

        #[test]
        fn damaged_maps_never_panic(at in 0..200_usize, byte in proptest::prelude::any::<u8>()) {
            let mut body = goods();
            let index = at % body.len();
            body[index] = byte;
            let _ = TableMap::parse(&body, Vendor::MySql);
        }
    }
}
