//! A column's definition in DDL text, in the catalog's words; and whether one definition holds all values of another.

use sqlparser::tokenizer::Token;

use crate::schema::{ColumnDefault, Layout, LayoutColumn};

use super::ddl::{Effect, Tokens, Unclear, holds_all, target};
use super::declared::{Declared, Family};
use super::flavor::Vendor;
use super::layout::labels;

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
    default: ColumnDefault,
    pub generated: bool,
    invisible: bool,
    auto_increment: bool,
    pub primary: bool,
    pub unique: bool,
    pub place: Option<Place>,
}

impl Definition {
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
        default: ColumnDefault::None,
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
        } else if tokens.word("NULL") {
            made.nullable = true;
        } else if tokens.word("DEFAULT") {
            made.default = default(tokens)?;
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
            let unsigned = numeric_attributes(tokens)?;
            let boolean = name == "tinyint" && arguments == ["1"] && !unsigned;
            let width = if boolean { "(1)" } else { "" };
            return Ok((format!("{name}{width}{}", if unsigned { " unsigned" } else { "" }), None));
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
            let unsigned = numeric_attributes(tokens)?;
            return Ok((format!("{name}{digits}{}", if unsigned { " unsigned" } else { "" }), None));
        }
        ("decimal", _) => {
            let digits = match arguments.as_slice() {
                [] => "10,0".to_owned(),
                [precision] => format!("{precision},0"),
                [precision, scale] => format!("{precision},{scale}"),
                _ => return Err(Unclear),
            };
            let unsigned = numeric_attributes(tokens)?;
            return Ok((format!("decimal({digits}){}", if unsigned { " unsigned" } else { "" }), None));
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

/// Whether it is unsigned.
fn numeric_attributes(tokens: &mut Tokens<'_>) -> Result<bool, Unclear> {
    let mut unsigned = false;
    loop {
        if tokens.any_word(&["UNSIGNED", "ZEROFILL"]) {
            unsigned = true;
        } else if !tokens.word("SIGNED") {
            return Ok(unsigned);
        }
    }
}

/// What follows `DEFAULT`.
pub fn default(tokens: &mut Tokens<'_>) -> Result<ColumnDefault, Unclear> {
    if tokens.word("NULL") {
        return Ok(ColumnDefault::None);
    }
    for (word, value) in [("TRUE", "1"), ("FALSE", "0")] {
        if tokens.word(word) {
            return Ok(ColumnDefault::Constant(value.to_owned()));
        }
    }
    if let Some(text) = tokens.text() {
        let plain = !text.contains('\\');
        return Ok(if plain { ColumnDefault::Constant(text) } else { ColumnDefault::Computed });
    }
    let minus = tokens.take(&Token::Minus);
    let _ = !minus && tokens.take(&Token::Plus);
    if let Some(number) = tokens.number() {
        let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let sign = if minus { "-" } else { "" };
        return Ok(if plain { ColumnDefault::Constant(format!("{sign}{number}")) } else { ColumnDefault::Computed });
    }
    if minus {
        return Err(Unclear);
    }
    if tokens.parenthesis().is_some() {
        return Ok(ColumnDefault::Computed);
    }
    match tokens.next() {
        // CURRENT_TIMESTAMP, NOW(6), and whatever else is called.
        Some(Token::Word(_)) => {
            let _ = tokens.parenthesis();
            Ok(ColumnDefault::Computed)
        }
        // b'101', x'00'
        Some(Token::SingleQuotedByteStringLiteral(_) | Token::HexStringLiteral(_)) => Ok(ColumnDefault::Computed),
        _ => Err(Unclear),
    }
}

/// What a change of a column's definition does to the lake.
pub fn change(before: &LayoutColumn, after: &LayoutColumn, strict: bool) -> Effect {
    let name = &before.name;
    let (old, new) = (Declared::parse(&before.declaration), Declared::parse(&after.declaration));
    let (old_type, new_type) = (old.lake_type(), new.lake_type());
    if old_type != new_type {
        return Effect::Columns(format!("column `{name}` is {new_type} and was {old_type}"));
    }
    let values = |how: &str| {
        Effect::Values(format!(
            "column `{name}` became {} and was {}{}: {how}",
            after.declaration,
            before.declaration,
            if before.nullable == after.nullable { "" } else { ", and its nullability changed" }
        ))
    };
    if before.nullable && !after.nullable && !strict {
        return values("NULLs became other values");
    }
    let argument =
        |declared: &Declared, index: usize, default: u32| declared.arguments.get(index).copied().unwrap_or(default);
    let (old_family, new_family) = (old.family(), new.family());
    if old_family != new_family {
        return values("values may read differently");
    }
    match old_family {
        Family::Integer => {
            let size = |declared: &Declared| match declared.name.as_str() {
                "tinyint" => 1,
                "smallint" => 2,
                "mediumint" => 3,
                "bigint" => 8,
                _ => 4,
            };
            // Other signs have other lake types, except of MEDIUMINT.
            let fits = if old.unsigned == new.unsigned {
                size(&old) <= size(&new)
            } else {
                old.unsigned && size(&old) < size(&new)
            };
            if !fits && !strict {
                return values("numbers out of the new range were cut");
            }
        }
        // Rounding is no error in any mode.
        Family::Datetime | Family::Timestamp | Family::Time if argument(&new, 0, 0) < argument(&old, 0, 0) => {
            return values("fractions were rounded");
        }
        Family::Float | Family::Double if old.arguments != new.arguments && !new.arguments.is_empty() => {
            return values("numbers were rounded");
        }
        // Without digits of their own in the lake: decimals that are kept as text.
        Family::Decimal if old.decimal() != new.decimal() => return values("its digits changed"),
        Family::Bit if argument(&new, 0, 1) != argument(&old, 0, 1) => return values("its width changed"),
        Family::Binary
            if (old.name == "binary" || new.name == "binary")
                && (old.name != new.name || old.arguments != new.arguments) =>
        {
            return values("values were filled up or cut");
        }
        Family::Enum | Family::Set => {
            let (Some(had), Some(has)) = (labels(&before.declaration), labels(&after.declaration)) else {
                return values("its labels can't be read");
            };
            if had.iter().any(|label| !has.contains(label)) && !strict {
                return values("values whose label is gone became others");
            }
            if old_family == Family::Set {
                // The order of a value's labels is the declaration's.
                let mut at = has.iter().filter(|label| had.contains(*label));
                if had.iter().any(|label| at.next() != Some(label)) {
                    return values("the order of its labels changed");
                }
            }
        }
        Family::Text => {
            if (old.name == "char") != (new.name == "char") {
                return values("blanks at the end may have fallen off");
            }
            if room(after) < room(before) && !strict {
                return values("texts were cut");
            }
        }
        _ => {}
    }
    if let (Some(had), Some(has)) = (&before.charset, &after.charset)
        && !holds_all(had, has)
        && !strict
    {
        return values(&format!("its character set became {has} and was {had}, which has characters that {has} lacks"));
    }
    if before.generated != after.generated {
        return values("it is generated by the server, or no more");
    }
    Effect::None
}

/// Characters that a text column holds.
fn room(column: &LayoutColumn) -> u64 {
    let declared = Declared::parse(&column.declaration);
    let bytes_max = column.charset.as_deref().map_or(1, super::charset::character_bytes_max) as u64;
    match declared.name.as_str() {
        "tinytext" => 255 / bytes_max,
        "text" => 65_535 / bytes_max,
        "mediumtext" => 16_777_215 / bytes_max,
        "longtext" => u64::from(u32::MAX),
        _ => declared.arguments.first().copied().unwrap_or(1).into(),
    }
}
