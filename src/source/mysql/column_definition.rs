//! A column's definition in DDL text, in the catalog's words; and whether one definition holds all values of another.

use sqlparser::tokenizer::Token;

use crate::schema::{ColumnDefault, LakeType, Layout, LayoutColumn, widens};

use super::ddl::{Session, Tokens, Unclear, holds_all, target};
use super::declared::{Declared, Family};
use super::flavor::Vendor;
use super::layout::labels;
use super::literal::{self, Literal};

/// Where `ADD`, `MODIFY` or `CHANGE` puts a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    After(String),
}

/// A character set that a statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub charset: String,
    pub collation: Option<String>,
}

impl Target {
    pub fn of(charset: Option<String>, collation: Option<String>, vendor: Vendor) -> Result<Option<Self>, Unclear> {
        let lower = |name: String| name.to_ascii_lowercase();
        let (charset, collation) = (charset.map(lower), collation.map(lower));
        let charset = match (charset, &collation) {
            (Some(charset), _) => charset,
            (None, None) => return Ok(None),
            // Collations are named after their character set, but for MariaDB's newest, which go with several.
            (None, Some(collation)) => match collation.split_once('_') {
                Some((charset, _)) if !charset.starts_with("uca") => charset.to_owned(),
                _ => return Err(Unclear),
            },
        };
        match charset.as_str() {
            // The database's, which is not known here.
            "default" => Err(Unclear),
            // What it is an alias of depends on MariaDB's `old_mode`.
            "utf8" if vendor == Vendor::MariaDb => Err(Unclear),
            "utf8" => Ok(Some(Self { charset: "utf8mb3".to_owned(), collation })),
            _ => Ok(Some(Self { charset, collation })),
        }
    }
}

/// A column as DDL defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    pub declaration: String,
    family: Family,
    /// Of text columns; `None` is the table's default.
    target: Option<Target>,
    nullable: bool,
    /// `NULL` or `NOT NULL` stands there.
    pub nullable_told: bool,
    default: ColumnDefault,
    /// The default as written.
    pub literal: Literal,
    pub generated: bool,
    invisible: bool,
    auto_increment: bool,
    pub primary: bool,
    pub unique: bool,
    pub place: Option<Place>,
}

impl Definition {
    /// `TIMESTAMP` without more words, which means another where `explicit_defaults_for_timestamp` is off.
    pub fn is_bare_timestamp(&self) -> bool {
        self.family == Family::Timestamp && !(self.nullable_told && self.nullable)
    }

    /// The column in a table of this layout.
    pub fn column(&self, layout: &Layout) -> Result<LayoutColumn, Unclear> {
        let is_text = matches!(self.family, Family::Text | Family::Enum | Family::Set);
        let (charset, collation) = match (&self.target, is_text) {
            (_, false) => (None, None),
            (Some(target), true) => (Some(target.charset.clone()), target.collation.clone()),
            (None, true) if layout.charset.is_empty() => return Err(Unclear),
            (None, true) => (Some(layout.charset.clone()), Some(layout.collation.clone())),
        };
        // Texts of the set `binary` are declared as bytes in the catalog.
        if charset.as_deref() == Some("binary") {
            return Err(Unclear);
        }
        Ok(LayoutColumn {
            name: self.name.clone(),
            declaration: self.declaration.clone(),
            charset,
            collation,
            nullable: self.nullable && !self.primary,
            default: self.default.clone(),
            generated: self.generated,
            invisible: self.invisible,
            auto_increment: self.auto_increment,
        })
    }
}

/// Reads `name type attributes [FIRST | AFTER column]` to its end.
pub fn definition(tokens: &mut Tokens<'_>, vendor: Vendor) -> Result<Definition, Unclear> {
    let name = tokens.name().ok_or(Unclear)?;
    let (declaration, fixed) = data_type(tokens, vendor)?;
    let declared = Declared::parse(&declaration);
    let mut made = Definition {
        name,
        family: declared.family(),
        declaration,
        target: fixed.clone(),
        nullable: true,
        nullable_told: false,
        default: ColumnDefault::None,
        literal: Literal::Absent,
        generated: false,
        invisible: false,
        auto_increment: false,
        primary: false,
        unique: false,
        place: None,
    };
    // TIMESTAMP without words of its own may mean more, where explicit_defaults_for_timestamp is off.
    if declared.family() == Family::Timestamp {
        made.default = ColumnDefault::Computed;
    }
    while !tokens.is_empty() {
        if let Some(target) = target(tokens, vendor)? {
            if fixed.is_some() {
                return Err(Unclear);
            }
            made.target = Some(target);
        } else if tokens.words(&["NOT", "NULL"]) {
            made.nullable = false;
            made.nullable_told = true;
        } else if tokens.word("NULL") {
            made.nullable = true;
            made.nullable_told = true;
        } else if tokens.word("DEFAULT") {
            (made.default, made.literal) = literal::default(tokens)?;
        } else if tokens.words(&["ON", "UPDATE"]) {
            tokens.name().ok_or(Unclear)?;
            let _ = tokens.parenthesis();
        } else if tokens.word("AUTO_INCREMENT") {
            made.auto_increment = true;
            made.nullable = false;
        } else if tokens.words(&["PRIMARY", "KEY"]) || tokens.word("PRIMARY") {
            made.primary = true;
        } else if tokens.word("UNIQUE") {
            let _ = tokens.any_word(&["KEY", "INDEX"]);
            made.unique = true;
        } else if tokens.word("KEY") {
            made.primary = true;
        } else if tokens.word("COMMENT") {
            tokens.text().ok_or(Unclear)?;
        } else if tokens.any_word(&["COLUMN_FORMAT", "STORAGE"]) {
            tokens.name().ok_or(Unclear)?;
        } else if tokens.any_word(&["ENGINE_ATTRIBUTE", "SECONDARY_ENGINE_ATTRIBUTE"]) {
            let _ = tokens.take(&Token::Eq);
            tokens.text().ok_or(Unclear)?;
        } else if tokens.words(&["GENERATED", "ALWAYS", "AS"]) || tokens.word("AS") {
            tokens.parenthesis().ok_or(Unclear)?;
            let _ = tokens.any_word(&["VIRTUAL", "STORED", "PERSISTENT"]);
            made.generated = true;
        } else if tokens.word("INVISIBLE") {
            made.invisible = true;
        } else if tokens.word("VISIBLE") {
            made.invisible = false;
        } else if tokens.word("SRID") {
            tokens.number().ok_or(Unclear)?;
        } else if tokens.words(&["CONSTRAINT"]) {
            tokens.name().ok_or(Unclear)?;
            if !tokens.word("CHECK") {
                return Err(Unclear);
            }
            tokens.parenthesis().ok_or(Unclear)?;
        } else if tokens.word("CHECK") {
            tokens.parenthesis().ok_or(Unclear)?;
        } else if tokens.words(&["NOT", "ENFORCED"]) || tokens.word("ENFORCED") {
        } else if tokens.word("FIRST") {
            made.place = Some(Place::First);
        } else if tokens.word("AFTER") {
            made.place = Some(Place::After(tokens.name().ok_or(Unclear)?));
        } else {
            // COMPRESSED, REFERENCES, WITH SYSTEM VERSIONING and whatever comes.
            return Err(Unclear);
        }
    }
    Ok(made)
}

/// The type in the catalog's words, without display widths that mean nothing; and a character set that is fixed by it.
fn data_type(tokens: &mut Tokens<'_>, vendor: Vendor) -> Result<(String, Option<Target>), Unclear> {
    let Some(Token::Word(word)) = tokens.peek() else { return Err(Unclear) };
    if word.quote_style.is_some() {
        return Err(Unclear);
    }
    let written = word.value.to_ascii_lowercase();
    tokens.next();
    let name = match written.as_str() {
        "int1" => "tinyint",
        "int2" => "smallint",
        "int3" | "middleint" => "mediumint",
        "int4" | "integer" => "int",
        "int8" => "bigint",
        "bool" | "boolean" => return Ok(("tinyint(1)".to_owned(), None)),
        "dec" | "numeric" | "fixed" => "decimal",
        "character" => "char",
        "varcharacter" => "varchar",
        other => other,
    };
    let name = if name == "char" && tokens.word("VARYING") { "varchar" } else { name };
    let arguments = arguments(tokens)?;
    let declaration = match (name, arguments.as_slice()) {
        ("tinyint" | "smallint" | "mediumint" | "int" | "bigint", [] | [_]) => {
            let attributes = numeric_attributes(tokens);
            let width = match arguments.first() {
                // It means a boolean there, and how many zeros go before here; elsewhere nothing.
                Some(width)
                    if attributes == ZEROFILL || (name == "tinyint" && width == "1" && attributes.is_empty()) =>
                {
                    format!("({width})")
                }
                None if attributes == ZEROFILL => {
                    let digits = [("tinyint", 3), ("smallint", 5), ("mediumint", 8), ("int", 10)];
                    let digits = digits.iter().find(|(other, _)| *other == name).map_or(20, |(_, digits)| *digits);
                    format!("({digits})")
                }
                _ => String::new(),
            };
            return Ok((format!("{name}{width}{attributes}"), None));
        }
        ("float" | "double", _) => {
            if name == "double" {
                let _ = tokens.word("PRECISION");
            }
            let arguments = if arguments.is_empty() { self::arguments(tokens)? } else { arguments };
            let name = match arguments.as_slice() {
                // FLOAT(p) means bits.
                [bits] if name == "float" && bits.parse::<u32>().is_ok_and(|bits| bits > 24) => "double",
                [_] if name == "float" => "float",
                [] | [_, _] => name,
                _ => return Err(Unclear),
            };
            let digits = if arguments.len() == 2 { format!("({})", arguments.join(",")) } else { String::new() };
            return Ok((format!("{name}{digits}{}", numeric_attributes(tokens)), None));
        }
        ("decimal", _) => {
            let digits = match arguments.as_slice() {
                [] => "10,0".to_owned(),
                [precision] => format!("{precision},0"),
                [precision, scale] => format!("{precision},{scale}"),
                _ => return Err(Unclear),
            };
            return Ok((format!("decimal({digits}){}", numeric_attributes(tokens)), None));
        }
        ("bit" | "char" | "binary", []) => format!("{name}(1)"),
        ("bit" | "char" | "binary" | "varchar" | "varbinary", [length]) => format!("{name}({length})"),
        ("datetime" | "timestamp" | "time", []) => name.to_owned(),
        ("datetime" | "timestamp" | "time", [digits]) => {
            if digits == "0" {
                name.to_owned()
            } else {
                format!("{name}({digits})")
            }
        }
        ("vector", [dimensions]) => format!("vector({dimensions})"),
        ("year", [] | [_]) => "year".to_owned(),
        (
            "date" | "tinytext" | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob" | "mediumblob" | "longblob"
            | "uuid" | "inet4" | "inet6" | "geometry" | "point" | "linestring" | "polygon" | "multipoint"
            | "multilinestring" | "multipolygon" | "geometrycollection",
            [],
        ) => name.to_owned(),
        ("json", []) => match vendor {
            Vendor::MySql => "json".to_owned(),
            Vendor::MariaDb => {
                let target = Target { charset: "utf8mb4".to_owned(), collation: Some("utf8mb4_bin".to_owned()) };
                return Ok(("longtext".to_owned(), Some(target)));
            }
        },
        ("enum" | "set", labels) if !labels.is_empty() => format!("{name}({})", labels.join(",")),
        _ => return Err(Unclear),
    };
    Ok((declaration, None))
}

/// `(12,2)`, `('a','b')`: labels stay in quotes, as the catalog writes them.
fn arguments(tokens: &mut Tokens<'_>) -> Result<Vec<String>, Unclear> {
    let Some(list) = tokens.parenthesis() else { return Ok(Vec::new()) };
    let mut arguments = Vec::new();
    for mut piece in list.pieces() {
        if let Some(number) = piece.number() {
            arguments.push(number);
        } else {
            let label = piece.text().ok_or(Unclear)?;
            // How backslashes read depends on the session's mode; blanks at the end fall off.
            if label.contains('\\') {
                return Err(Unclear);
            }
            arguments.push(format!("'{}'", label.trim_end_matches(' ').replace('\'', "''")));
        }
        if !piece.is_empty() {
            return Err(Unclear);
        }
    }
    Ok(arguments)
}

const ZEROFILL: &str = " unsigned zerofill";

/// Sign and zeros in the catalog's words, with a blank before.
fn numeric_attributes(tokens: &mut Tokens<'_>) -> &'static str {
    let mut words = "";
    loop {
        if tokens.word("ZEROFILL") {
            words = ZEROFILL;
        } else if tokens.word("UNSIGNED") {
            words = if words.is_empty() { " unsigned" } else { words };
        } else if !tokens.word("SIGNED") {
            return words;
        }
    }
}

/// Whether both are the same type, so that the catalog would not show another.
pub fn same_type(one: &str, other: &str) -> bool {
    let (one_type, other_type) = (Declared::parse(one), Declared::parse(other));
    match one_type.family() {
        // Their arguments are not parsed, and they have names of their own.
        Family::Enum | Family::Set | Family::Other => one == other,
        Family::Integer if !one_type.zerofill && !one_type.is_tinyint1() && !other_type.is_tinyint1() => {
            one_type.name == other_type.name
                && one_type.unsigned == other_type.unsigned
                && !other_type.zerofill
                && one_type.compressed == other_type.compressed
        }
        Family::Year => one_type.name == other_type.name,
        _ => one_type == other_type,
    }
}

/// Why values that were there may not be any more what the log told, after a column's definition changed; `None` when they
/// are. `lake` are its types in the lake before and after.
pub fn rewritten(
    before: &LayoutColumn,
    after: &LayoutColumn,
    lake: (LakeType, LakeType),
    session: Session,
) -> Option<String> {
    let strict = session.strict;
    let (old, new) = (Declared::parse(&before.declaration), Declared::parse(&after.declaration));
    let why = |how: &str| {
        let nullability = if before.nullable == after.nullable { "" } else { ", and its nullability changed" };
        Some(format!("it became {} and was {}{nullability}: {how}", after.declaration, before.declaration))
    };
    if before.nullable && !after.nullable && !strict {
        return why("NULLs became other values");
    }
    if before.generated != after.generated {
        return why("it is generated by the server, or no more");
    }
    let text = lake.1 == LakeType::String;
    let grows = lake.0 != lake.1;
    if grows && !widens(lake.0, lake.1) {
        // That it changes is told already.
        return None;
    }
    let argument =
        |declared: &Declared, index: usize, default: u32| declared.arguments.get(index).copied().unwrap_or(default);
    let (old_family, new_family) = (old.family(), new.family());
    let numbers = [Family::Integer, Family::Float, Family::Double, Family::Decimal];
    if new.unsigned && !old.unsigned && !strict && numbers.contains(&new_family) {
        return why("negative numbers were cut");
    }
    match (old_family, new_family) {
        (Family::Integer, Family::Integer) => {
            // Other signs have other lake types, except of MEDIUMINT.
            let fits = if old.unsigned == new.unsigned {
                integer_size(&old) <= integer_size(&new)
            } else {
                old.unsigned && integer_size(&old) < integer_size(&new)
            };
            if !fits && !strict {
                return why("numbers out of the new range were cut");
            }
            if text && (old.zerofill || new.zerofill) && !same_type(&before.declaration, &after.declaration) {
                return why("it reads with other zeros");
            }
        }
        // Exact where the lake's type grows. Rounding is no error in any mode.
        (Family::Integer | Family::Float, Family::Float | Family::Double) if grows && !new.arguments.is_empty() => {
            return why("numbers were rounded");
        }
        (Family::Integer | Family::Float, Family::Float | Family::Double | Family::Decimal) if grows => {}
        _ if old_family != new_family => return why("values may read differently"),
        (Family::Datetime | Family::Timestamp | Family::Time, _) => {
            let (had, has) = (argument(&old, 0, 0), argument(&new, 0, 0));
            if has < had {
                return why("fractions were rounded");
            }
            if text && has != had {
                return why("it reads with more digits");
            }
        }
        (Family::Float | Family::Double, _) if old.arguments != new.arguments && !new.arguments.is_empty() => {
            return why("numbers were rounded");
        }
        (Family::Decimal, _) => {
            let ((old_digits, old_scale), (new_digits, new_scale)) = (old.decimal(), new.decimal());
            if new_scale < old_scale || (text && new_scale > old_scale) {
                return why("its digits changed");
            }
            if text && (old.zerofill || new.zerofill) && old != new {
                return why("it reads with other zeros");
            }
            let whole = |digits: u8, scale: u8| digits.saturating_sub(scale);
            if whole(new_digits, new_scale) < whole(old_digits, old_scale) && !strict {
                return why("numbers out of the new range were cut");
            }
        }
        (Family::Bit, _) if argument(&new, 0, 1) != argument(&old, 0, 1) => return why("its width changed"),
        (Family::Binary, _) => {
            let padded = old.name == "binary" || new.name == "binary";
            if padded && (old.name != new.name || old.arguments != new.arguments) {
                return why("values were filled up or cut");
            }
            if room(after) < room(before) && !strict {
                return why("values were cut");
            }
        }
        (Family::Enum | Family::Set, _) => {
            let (Some(had), Some(has)) = (labels(&before.declaration), labels(&after.declaration)) else {
                return why("its labels can't be read");
            };
            if had.iter().any(|label| !has.contains(label)) && !strict {
                return why("values whose label is gone became others");
            }
            if old_family == Family::Set {
                // The order of a value's labels is the declaration's.
                let mut at = has.iter().filter(|label| had.contains(*label));
                if had.iter().filter(|label| has.contains(*label)).any(|label| at.next() != Some(label)) {
                    return why("the order of its labels changed");
                }
            }
        }
        (Family::Text, _) => {
            // CHAR has no blanks at its end, unless the session reads it with all of them.
            let blanks = match (old.name.as_str(), new.name.as_str()) {
                ("char", "char") => false,
                ("char", _) => session.pads_char,
                (_, "char") => true,
                _ => false,
            };
            if blanks {
                return why("blanks at the end came or fell off");
            }
            if room(after) < room(before) && !strict {
                return why("texts were cut");
            }
        }
        _ => {}
    }
    if let (Some(had), Some(has)) = (&before.charset, &after.charset)
        && !holds_all(had, has)
        && !strict
    {
        return why(&format!("its character set became {has} and was {had}, which has characters that {has} lacks"));
    }
    None
}

fn integer_size(declared: &Declared) -> u8 {
    match declared.name.as_str() {
        "tinyint" => 1,
        "smallint" => 2,
        "mediumint" => 3,
        "bigint" => 8,
        _ => 4,
    }
}

/// Characters that a text column holds, bytes of one that holds bytes.
fn room(column: &LayoutColumn) -> u64 {
    let declared = Declared::parse(&column.declaration);
    let bytes_max = column.charset.as_deref().map_or(1, super::charset::character_bytes_max) as u64;
    match declared.name.as_str() {
        "tinytext" => 255 / bytes_max,
        "text" => 65_535 / bytes_max,
        "mediumtext" => 16_777_215 / bytes_max,
        "longtext" | "longblob" => u64::from(u32::MAX),
        "tinyblob" => 255,
        "blob" => 65_535,
        "mediumblob" => 16_777_215,
        _ => declared.arguments.first().copied().unwrap_or(1).into(),
    }
}
