//! What `ALTER TABLE` and its relatives make of a table's layout.
//!
//! The statement is cut into tokens by sqlparser's MySQL dialect and read spec by spec, as the server does. Whatever is not
//! known for certain makes the statement [`Unclear`]; the caller then has to find the new layout another way, and never by
//! guessing. Changes of existing rows that the log does not carry as rows (a shortened column, lost labels, fewer digits
//! of a fraction) are told too: the lake can't follow those.
//!
//! Public sources: MySQL manual 15.1.9 "ALTER TABLE", MariaDB KB "ALTER TABLE"; the order in which several specs of one
//! statement take effect is that of `mysql_prepare_alter_table` (sql_table.cc): drops, changes in place, then moved and added
//! columns in the order of the statement.

use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::schema::{ColumnDefault, Layout, LayoutColumn, PRIMARY, Period, UniqueKey};

use super::charset::{character_bytes_max, same_charset};
use super::column_definition::{Definition, Place, Target, definition};
use super::flavor::Vendor;
use super::statement::Named;

/// The statement, or its effect, is not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

/// A statement that may change a table's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Alter {
    pub table: Named,
    pub specs: Result<Vec<Spec>, Unclear>,
    /// `ALTER IGNORE`: rows that do not fit are dropped.
    pub ignore: bool,
}

/// One change among those of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    Add {
        definition: Definition,
        if_not_exists: bool,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    /// `MODIFY` and `CHANGE`.
    Change {
        old: String,
        definition: Definition,
        if_exists: bool,
    },
    Rename {
        old: String,
        new: String,
        if_exists: bool,
    },
    Default {
        column: String,
        default: ColumnDefault,
    },
    ConvertTo(Target),
    TableDefault(Target),
    Unique {
        name: Option<String>,
        columns: Vec<String>,
        partial: bool,
        hashed: bool,
    },
    DropUnique {
        name: String,
    },
    RenameUnique {
        old: String,
        new: String,
    },
}

/// Tokens of a statement with a cursor.
pub struct Tokens<'a> {
    tokens: &'a [Token],
}

impl<'a> Tokens<'a> {
    pub fn new(tokens: &'a [Token]) -> Self {
        Self { tokens }
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.first()
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let first = self.tokens.first();
        self.tokens = self.tokens.get(1..).unwrap_or(&[]);
        first
    }

    /// A word without quotes.
    pub fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
        if found {
            self.next();
        }
        found
    }

    pub fn words(&mut self, wanted: &[&str]) -> bool {
        let before = self.tokens;
        let found = wanted.iter().all(|word| self.word(word));
        if !found {
            self.tokens = before;
        }
        found
    }

    pub fn any_word(&mut self, wanted: &[&str]) -> bool {
        wanted.iter().any(|word| self.word(word))
    }

    pub fn take(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// A name, quoted or not.
    pub fn name(&mut self) -> Option<String> {
        let name = match self.peek()? {
            Token::Word(word) if word.quote_style.is_some() => word.value.replace("``", "`"),
            Token::Word(word) => word.value.clone(),
            Token::DoubleQuotedString(text) => text.replace("\"\"", "\""),
            _ => return None,
        };
        self.next();
        Some(name)
    }

    pub fn text(&mut self) -> Option<String> {
        let text = match self.peek()? {
            Token::SingleQuotedString(text) => text.replace("''", "'"),
            Token::DoubleQuotedString(text) => text.replace("\"\"", "\""),
            _ => return None,
        };
        self.next();
        Some(text)
    }

    pub fn number(&mut self) -> Option<String> {
        match self.peek()? {
            Token::Number(number, _) => {
                self.next();
                Some(number.clone())
            }
            _ => None,
        }
    }

    /// What is between a parenthesis here and its partner; `None` when there is none.
    pub fn parenthesis(&mut self) -> Option<Tokens<'a>> {
        if self.peek() != Some(&Token::LParen) {
            return None;
        }
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inner = &self.tokens[1..at];
                self.tokens = &self.tokens[at + 1..];
                return Some(Tokens::new(inner));
            }
        }
        None
    }

    /// The pieces between commas outside of parentheses.
    pub fn pieces(&self) -> Vec<Tokens<'a>> {
        let mut depth = 0_usize;
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Comma if depth == 0 => {
                    pieces.push(Tokens::new(&self.tokens[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
        pieces.push(Tokens::new(&self.tokens[start..]));
        pieces
    }

    fn table(&mut self) -> Option<Named> {
        let first = self.name()?;
        if self.take(&Token::Period) {
            return Some(Named { schema: Some(first), table: self.name()? });
        }
        Some(Named { schema: None, table: first })
    }
}

/// Reads a statement: `Ok(None)` when it changes no table's layout, [`Unclear`] when not even that is certain.
pub fn read(text: &str, vendor: Vendor) -> Result<Option<Alter>, Unclear> {
    let tokens = Tokenizer::new(&MySqlDialect {}, text).with_unescape(false).tokenize().map_err(|_| Unclear)?;
    let tokens: Vec<Token> = tokens
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF))
        .collect();
    let mut tokens = Tokens::new(&tokens);
    if tokens.words(&["SET", "STATEMENT"]) {
        while !tokens.is_empty() && !tokens.word("FOR") {
            tokens.next();
        }
    }
    if tokens.word("ALTER") {
        let _ = tokens.word("ONLINE");
        let ignore = tokens.word("IGNORE");
        if !tokens.word("TABLE") {
            return Ok(None);
        }
        let _ = tokens.words(&["IF", "EXISTS"]);
        let table = tokens.table().ok_or(Unclear)?;
        if tokens.word("WAIT") {
            tokens.number();
        } else {
            let _ = tokens.word("NOWAIT");
        }
        let specs = specs(&tokens, vendor);
        return Ok(Some(Alter { table, specs, ignore }));
    }
    if tokens.word("CREATE") {
        let _ = tokens.words(&["OR", "REPLACE"]);
        let _ = tokens.any_word(&["ONLINE", "OFFLINE"]);
        let unique = tokens.word("UNIQUE");
        let _ = tokens.any_word(&["FULLTEXT", "SPATIAL"]);
        if !tokens.word("INDEX") {
            return Ok(None);
        }
        let _ = tokens.words(&["IF", "NOT", "EXISTS"]);
        let name = tokens.name().ok_or(Unclear)?;
        while !tokens.is_empty() && !tokens.word("ON") {
            tokens.next();
        }
        let table = tokens.table().ok_or(Unclear)?;
        let specs = if unique { key_of(Some(name), &mut tokens, vendor).map(|key| vec![key]) } else { Ok(Vec::new()) };
        return Ok(Some(Alter { table, specs, ignore: false }));
    }
    if tokens.words(&["DROP", "INDEX"]) {
        let _ = tokens.words(&["IF", "EXISTS"]);
        let name = tokens.name().ok_or(Unclear)?;
        if !tokens.word("ON") {
            return Err(Unclear);
        }
        let table = tokens.table().ok_or(Unclear)?;
        return Ok(Some(Alter { table, specs: Ok(vec![Spec::DropUnique { name }]), ignore: false }));
    }
    Ok(None)
}

fn specs(tokens: &Tokens<'_>, vendor: Vendor) -> Result<Vec<Spec>, Unclear> {
    let mut specs = Vec::new();
    for mut piece in tokens.pieces() {
        spec(&mut piece, vendor, &mut specs)?;
    }
    Ok(specs)
}

fn spec(tokens: &mut Tokens<'_>, vendor: Vendor, specs: &mut Vec<Spec>) -> Result<(), Unclear> {
    if tokens.word("ADD") {
        return add(tokens, vendor, specs);
    }
    if tokens.word("DROP") {
        return drop_spec(tokens, specs);
    }
    if tokens.word("MODIFY") {
        let _ = tokens.word("COLUMN");
        let if_exists = tokens.words(&["IF", "EXISTS"]);
        let definition = definition(tokens, vendor)?;
        keys_of(&definition, specs);
        specs.push(Spec::Change { old: definition.name.clone(), definition, if_exists });
        return Ok(());
    }
    if tokens.word("CHANGE") {
        let _ = tokens.word("COLUMN");
        let if_exists = tokens.words(&["IF", "EXISTS"]);
        let old = tokens.name().ok_or(Unclear)?;
        let definition = definition(tokens, vendor)?;
        keys_of(&definition, specs);
        specs.push(Spec::Change { old, definition, if_exists });
        return Ok(());
    }
    if tokens.word("RENAME") {
        if tokens.word("COLUMN") {
            let if_exists = tokens.words(&["IF", "EXISTS"]);
            let (old, new) = renamed(tokens)?;
            specs.push(Spec::Rename { old, new, if_exists });
            return end(tokens);
        }
        if tokens.any_word(&["INDEX", "KEY"]) {
            let _ = tokens.words(&["IF", "EXISTS"]);
            let (old, new) = renamed(tokens)?;
            specs.push(Spec::RenameUnique { old, new });
            return end(tokens);
        }
        return Err(Unclear);
    }
    if tokens.word("ALTER") {
        if tokens.any_word(&["INDEX", "KEY", "CHECK", "CONSTRAINT"]) {
            return Ok(());
        }
        let _ = tokens.word("COLUMN");
        let _ = tokens.words(&["IF", "EXISTS"]);
        let column = tokens.name().ok_or(Unclear)?;
        if tokens.words(&["DROP", "DEFAULT"]) {
            specs.push(Spec::Default { column, default: ColumnDefault::None });
            return end(tokens);
        }
        if tokens.words(&["SET", "DEFAULT"]) {
            let default = super::column_definition::default(tokens)?;
            specs.push(Spec::Default { column, default });
            return end(tokens);
        }
        return if tokens.words(&["SET", "VISIBLE"]) || tokens.words(&["SET", "INVISIBLE"]) {
            end(tokens)
        } else {
            Err(Unclear)
        };
    }
    if tokens.words(&["CONVERT", "TO"]) {
        let target = target(tokens, vendor)?.ok_or(Unclear)?;
        specs.push(Spec::ConvertTo(target));
        return options(tokens, vendor, specs);
    }
    let neutral = [
        "FORCE",
        "ENABLE",
        "DISABLE",
        "ORDER",
        "PARTITION",
        "REMOVE",
        "COALESCE",
        "REORGANIZE",
        "ANALYZE",
        "CHECK",
        "OPTIMIZE",
        "REBUILD",
        "REPAIR",
        "SECONDARY_LOAD",
        "SECONDARY_UNLOAD",
    ];
    if tokens.any_word(&neutral) {
        return Ok(());
    }
    options(tokens, vendor, specs)
}

fn end(tokens: &Tokens<'_>) -> Result<(), Unclear> {
    if tokens.is_empty() { Ok(()) } else { Err(Unclear) }
}

fn renamed(tokens: &mut Tokens<'_>) -> Result<(String, String), Unclear> {
    let old = tokens.name().ok_or(Unclear)?;
    if !tokens.word("TO") {
        return Err(Unclear);
    }
    Ok((old, tokens.name().ok_or(Unclear)?))
}

/// Keys that a column's definition makes.
fn keys_of(definition: &Definition, specs: &mut Vec<Spec>) {
    let columns = vec![definition.name.clone()];
    if definition.primary {
        let name = Some(PRIMARY.to_owned());
        specs.push(Spec::Unique { name, columns: columns.clone(), partial: false, hashed: false });
    }
    if definition.unique {
        specs.push(Spec::Unique { name: None, columns, partial: false, hashed: false });
    }
}

fn add(tokens: &mut Tokens<'_>, vendor: Vendor, specs: &mut Vec<Spec>) -> Result<(), Unclear> {
    if tokens.any_word(&["INDEX", "KEY", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK", "PARTITION"]) {
        return Ok(());
    }
    if tokens.any_word(&["PERIOD", "SYSTEM"]) {
        return Err(Unclear);
    }
    let mut name = None;
    let constraint = tokens.word("CONSTRAINT");
    if constraint {
        let _ = tokens.words(&["IF", "NOT", "EXISTS"]);
        let keyword = matches!(tokens.peek(), Some(Token::Word(word)) if word.quote_style.is_none()
            && ["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"].iter().any(|k| word.value.eq_ignore_ascii_case(k)));
        if !keyword {
            name = Some(tokens.name().ok_or(Unclear)?);
        }
        if tokens.any_word(&["FOREIGN", "CHECK"]) {
            return Ok(());
        }
    }
    if tokens.words(&["PRIMARY", "KEY"]) {
        specs.push(key_of(Some(PRIMARY.to_owned()), tokens, vendor)?);
        return Ok(());
    }
    if tokens.word("UNIQUE") {
        let _ = tokens.any_word(&["INDEX", "KEY"]);
        if tokens.words(&["IF", "NOT", "EXISTS"]) {
            return Err(Unclear);
        }
        if tokens.peek() != Some(&Token::LParen) && !tokens.word("USING") {
            name = Some(tokens.name().ok_or(Unclear)?);
        }
        specs.push(key_of(name, tokens, vendor)?);
        return Ok(());
    }
    if constraint {
        return Err(Unclear);
    }
    let _ = tokens.word("COLUMN");
    let if_not_exists = tokens.words(&["IF", "NOT", "EXISTS"]);
    if let Some(several) = tokens.parenthesis() {
        for mut piece in several.pieces() {
            let definition = definition(&mut piece, vendor)?;
            keys_of(&definition, specs);
            specs.push(Spec::Add { definition, if_not_exists });
        }
        return end(tokens);
    }
    let definition = definition(tokens, vendor)?;
    keys_of(&definition, specs);
    specs.push(Spec::Add { definition, if_not_exists });
    Ok(())
}

/// The columns of a primary or unique key.
fn key_of(name: Option<String>, tokens: &mut Tokens<'_>, vendor: Vendor) -> Result<Spec, Unclear> {
    let mut hashed = false;
    while !matches!(tokens.peek(), Some(Token::LParen)) {
        // USING BTREE, USING HASH
        hashed |= tokens.word("HASH");
        tokens.next().ok_or(Unclear)?;
    }
    let list = tokens.parenthesis().ok_or(Unclear)?;
    let mut columns = Vec::new();
    let mut partial = false;
    for mut piece in list.pieces() {
        if piece.parenthesis().is_some() {
            partial = true;
            continue;
        }
        columns.push(piece.name().ok_or(Unclear)?);
        partial |= piece.parenthesis().is_some();
        let _ = piece.any_word(&["ASC", "DESC"]);
        end(&piece)?;
    }
    while let Some(token) = tokens.next() {
        hashed |= matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("HASH"));
    }
    // Whether MariaDB keeps it by a hash depends on its version and on the lengths of the columns.
    if vendor == Vendor::MariaDb && hashed {
        return Err(Unclear);
    }
    let partial = partial && name.as_deref() != Some(PRIMARY);
    Ok(Spec::Unique { name, columns, partial, hashed: false })
}

fn drop_spec(tokens: &mut Tokens<'_>, specs: &mut Vec<Spec>) -> Result<(), Unclear> {
    if tokens.any_word(&["FOREIGN", "CHECK"]) {
        return Ok(());
    }
    if tokens.any_word(&["PERIOD", "SYSTEM"]) {
        return Err(Unclear);
    }
    if tokens.words(&["PRIMARY", "KEY"]) {
        specs.push(Spec::DropUnique { name: PRIMARY.to_owned() });
        return end(tokens);
    }
    if tokens.any_word(&["INDEX", "KEY", "CONSTRAINT"]) {
        let _ = tokens.words(&["IF", "EXISTS"]);
        specs.push(Spec::DropUnique { name: tokens.name().ok_or(Unclear)? });
        return end(tokens);
    }
    let _ = tokens.word("COLUMN");
    let if_exists = tokens.words(&["IF", "EXISTS"]);
    let name = tokens.name().ok_or(Unclear)?;
    let _ = tokens.any_word(&["RESTRICT", "CASCADE"]);
    specs.push(Spec::Drop { name, if_exists });
    end(tokens)
}

/// `CHARACTER SET x`, `CHARSET x`, `COLLATE y`, both; `None` when neither stands here.
pub fn target(tokens: &mut Tokens<'_>, vendor: Vendor) -> Result<Option<Target>, Unclear> {
    let mut charset = None;
    let mut collation = None;
    loop {
        if tokens.words(&["CHARACTER", "SET"]) || tokens.word("CHARSET") {
            let _ = tokens.take(&Token::Eq);
            charset = Some(tokens.name().or_else(|| tokens.text()).ok_or(Unclear)?);
        } else if tokens.word("COLLATE") {
            let _ = tokens.take(&Token::Eq);
            collation = Some(tokens.name().or_else(|| tokens.text()).ok_or(Unclear)?);
        } else {
            break;
        }
    }
    Target::of(charset, collation, vendor)
}

/// Table options, with or without `=`.
fn options(tokens: &mut Tokens<'_>, vendor: Vendor, specs: &mut Vec<Spec>) -> Result<(), Unclear> {
    while !tokens.is_empty() {
        let _ = tokens.word("DEFAULT");
        if let Some(target) = target(tokens, vendor)? {
            specs.push(Spec::TableDefault(target));
            continue;
        }
        if tokens.word("PARTITION") || tokens.words(&["REMOVE", "PARTITIONING"]) {
            return Ok(());
        }
        let known = [
            "ENGINE",
            "AUTO_INCREMENT",
            "COMMENT",
            "ROW_FORMAT",
            "KEY_BLOCK_SIZE",
            "ALGORITHM",
            "LOCK",
            "COMPRESSION",
            "ENCRYPTION",
            "ENCRYPTED",
            "ENCRYPTION_KEY_ID",
            "STATS_AUTO_RECALC",
            "STATS_PERSISTENT",
            "STATS_SAMPLE_PAGES",
            "AVG_ROW_LENGTH",
            "MAX_ROWS",
            "MIN_ROWS",
            "CHECKSUM",
            "TABLE_CHECKSUM",
            "PAGE_CHECKSUM",
            "DELAY_KEY_WRITE",
            "PACK_KEYS",
            "TABLESPACE",
            "ENGINE_ATTRIBUTE",
            "SECONDARY_ENGINE",
            "SECONDARY_ENGINE_ATTRIBUTE",
            "AUTOEXTEND_SIZE",
            "PAGE_COMPRESSED",
            "PAGE_COMPRESSION_LEVEL",
            "TRANSACTIONAL",
        ];
        if !tokens.any_word(&known) {
            return Err(Unclear);
        }
        let _ = tokens.take(&Token::Eq);
        match tokens.next() {
            Some(Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) => {}
            _ => return Err(Unclear),
        }
    }
    Ok(())
}

/// A layout after a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub layout: Layout,
    /// Why values of existing rows may have changed beyond what the layouts show.
    pub recomputed: Option<String>,
}

/// The layout after these changes.
pub fn apply(old: &Layout, specs: &[Spec], vendor: Vendor) -> Result<Applied, Unclear> {
    let mut layout = old.clone();
    let mut recomputed = None;
    for spec in specs {
        if let Spec::TableDefault(target) | Spec::ConvertTo(target) = spec {
            target.charset.clone_into(&mut layout.charset);
            layout.collation = target.collation.clone().unwrap_or_default();
        }
    }
    if old.period != Period::None && specs.iter().any(|spec| !matches!(spec, Spec::TableDefault(_))) {
        // Rules of their own, and system_versioning_alter_history besides.
        let plain =
            specs.iter().all(|spec| matches!(spec, Spec::Add { .. } | Spec::Default { .. } | Spec::TableDefault(_)));
        if !plain {
            return Err(Unclear);
        }
    }
    // Drops.
    for spec in specs {
        match spec {
            Spec::Drop { name, if_exists } => match layout.index(name) {
                Some(at) => {
                    let gone = layout.columns.remove(at);
                    let same = |column: &String| column.to_lowercase() == gone.name.to_lowercase();
                    // What becomes of a key that loses a column differs between servers.
                    if layout.uniques.iter().any(|unique| unique.columns.iter().any(same)) {
                        return Err(Unclear);
                    }
                }
                None if *if_exists => {}
                None => return Err(Unclear),
            },
            Spec::DropUnique { name } => {
                layout.uniques.retain(|unique| unique.name.to_lowercase() != name.to_lowercase());
            }
            _ => {}
        }
    }
    // Changes in place; moved ones wait for their turn.
    let mut waiting: Vec<(LayoutColumn, Option<Place>)> = Vec::new();
    let mut renames: Vec<(String, String)> = Vec::new();
    let mut columns: Vec<LayoutColumn> = Vec::new();
    let mut changed = 0;
    for column in &layout.columns {
        let names = |name: &String| name.to_lowercase() == column.name.to_lowercase();
        let mut kept = Some(column.clone());
        for spec in specs {
            match spec {
                Spec::Change { old: name, definition, .. } if names(name) => {
                    changed += 1;
                    if column.generated || definition.generated {
                        recomputed.get_or_insert(format!("column `{}` is generated anew", column.name));
                    }
                    let new = definition.column(&layout)?;
                    if new.auto_increment && !column.auto_increment {
                        recomputed.get_or_insert(format!("column `{}` counts by itself now", column.name));
                    }
                    if new.name != column.name {
                        renames.push((column.name.clone(), new.name.clone()));
                    }
                    kept = match &definition.place {
                        None => Some(new),
                        Some(place) => {
                            // The order of the statement decides where it goes.
                            waiting.push((new, Some(place.clone())));
                            None
                        }
                    };
                }
                Spec::Rename { old: name, new, .. } if names(name) => {
                    changed += 1;
                    renames.push((column.name.clone(), new.clone()));
                    kept = Some(LayoutColumn { name: new.clone(), ..column.clone() });
                }
                _ => {}
            }
        }
        columns.extend(kept);
    }
    let wanted = specs
        .iter()
        .filter(|spec| match spec {
            Spec::Change { old: name, if_exists, .. } | Spec::Rename { old: name, if_exists, .. } => {
                !(*if_exists && layout.index(name).is_none())
            }
            _ => false,
        })
        .count();
    if changed != wanted {
        return Err(Unclear);
    }
    let mut in_order: Vec<(LayoutColumn, Option<Place>)> = Vec::new();
    for spec in specs {
        match spec {
            Spec::Change { definition, .. } if definition.place.is_some() => {
                let at = waiting.iter().position(|(column, _)| column.name == definition.name);
                if let Some(at) = at {
                    in_order.push(waiting.remove(at));
                }
            }
            Spec::Add { definition, if_not_exists } => {
                if layout.index(&definition.name).is_some() {
                    if *if_not_exists {
                        continue;
                    }
                    return Err(Unclear);
                }
                in_order.push((definition.column(&layout)?, definition.place.clone()));
            }
            _ => {}
        }
    }
    if !waiting.is_empty() {
        return Err(Unclear);
    }
    for (column, place) in in_order {
        match place {
            None => columns.push(column),
            Some(Place::First) => columns.insert(0, column),
            Some(Place::After(name)) => {
                let name = name.to_lowercase();
                let at = columns.iter().position(|column| column.name.to_lowercase() == name).ok_or(Unclear)?;
                columns.insert(at + 1, column);
            }
        }
    }
    layout.columns = columns;
    for unique in &mut layout.uniques {
        for column in &mut unique.columns {
            let renamed = renames.iter().find(|(old, _)| old.to_lowercase() == column.to_lowercase());
            if let Some((_, new)) = renamed {
                new.clone_into(column);
            }
        }
    }
    for spec in specs {
        match spec {
            Spec::Default { column, default } => {
                let at = layout.index(column).ok_or(Unclear)?;
                default.clone_into(&mut layout.columns[at].default);
            }
            Spec::ConvertTo(target) => {
                for column in &mut layout.columns {
                    convert(column, target)?;
                }
            }
            Spec::Unique { name, columns, partial, hashed } => {
                let mut known = Vec::new();
                for column in columns {
                    let column = layout.column(column).ok_or(Unclear)?;
                    // Long texts make MariaDB keep the key by a hash.
                    let is_text = column.charset.is_some()
                        || column.declaration.contains("blob")
                        || column.declaration.contains("binary");
                    if vendor == Vendor::MariaDb && is_text && name.as_deref() != Some(PRIMARY) {
                        return Err(Unclear);
                    }
                    known.push(column.name.clone());
                }
                let name = match name {
                    Some(name) => name.clone(),
                    None => known.first().cloned().ok_or(Unclear)?,
                };
                if layout.uniques.iter().any(|unique| unique.name.to_lowercase() == name.to_lowercase()) {
                    return Err(Unclear);
                }
                if name == PRIMARY {
                    for column in &mut layout.columns {
                        if known.contains(&column.name) {
                            column.nullable = false;
                        }
                    }
                }
                layout.uniques.push(UniqueKey { name, columns: known, partial: *partial, hashed: *hashed });
            }
            Spec::RenameUnique { old, new } => {
                for unique in &mut layout.uniques {
                    if unique.name.to_lowercase() == old.to_lowercase() {
                        new.clone_into(&mut unique.name);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Applied { layout, recomputed })
}

/// `CONVERT TO CHARACTER SET`: every text column; texts keep room for as many characters as before.
fn convert(column: &mut LayoutColumn, target: &Target) -> Result<(), Unclear> {
    let Some(charset) = &column.charset else { return Ok(()) };
    // A check of its own keeps MariaDB's JSON in its character set; whether it does is not worth a guess.
    if target.charset == "binary" || column.generated {
        return Err(Unclear);
    }
    let texts =
        [("tinytext", 255_u64), ("text", 65_535), ("mediumtext", 16_777_215), ("longtext", u64::from(u32::MAX))];
    if let Some((_, bytes)) = texts.iter().find(|(name, _)| column.declaration.eq_ignore_ascii_case(name)) {
        let characters = bytes / character_bytes_max(charset) as u64;
        let needed = characters * character_bytes_max(&target.charset) as u64;
        let name = texts.iter().find(|(_, bytes)| *bytes >= needed).map_or("longtext", |(name, _)| *name);
        name.clone_into(&mut column.declaration);
    }
    if column.declaration.starts_with("varchar") {
        let length: u64 =
            super::declared::Declared::parse(&column.declaration).arguments.first().copied().unwrap_or(0).into();
        // Beyond that the server makes a text of it, where its mode lets it.
        if length * character_bytes_max(&target.charset) as u64 > 65_532 {
            return Err(Unclear);
        }
    }
    column.charset = Some(target.charset.clone());
    column.collation.clone_from(&target.collation);
    Ok(())
}

/// What a statement did to the table that the lake would have to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Only how rows lie in the log.
    None,
    /// The lake's columns or its key; how, in words.
    Columns(String),
    /// Values of existing rows, which the log does not tell; how, in words.
    Values(String),
}

/// Compares two layouts. `strict`: the statement would have failed rather than lose values. `excluded` columns are not in
/// the lake.
pub fn effect(old: &Layout, new: &Layout, strict: bool, excluded: impl Fn(&str) -> bool) -> Effect {
    for column in &new.columns {
        if old.columns.iter().all(|before| before.name != column.name) && !excluded(&column.name) {
            return Effect::Columns(format!("column `{}` is new", column.name));
        }
    }
    for before in &old.columns {
        if excluded(&before.name) {
            continue;
        }
        let Some(after) = new.columns.iter().find(|column| column.name == before.name) else {
            return Effect::Columns(format!("column `{}` is gone", before.name));
        };
        match super::column_definition::change(before, after, strict) {
            Effect::None => {}
            effect => return effect,
        }
    }
    let (before, after) = (old.key(), new.key());
    let same = before.len() == after.len()
        && before.iter().zip(&after).all(|(before, after)| before.to_lowercase() == after.to_lowercase());
    if !same {
        return Effect::Columns(format!("its key was {before:?} and is {after:?}"));
    }
    Effect::None
}

/// Whether every character of `old` has a place in `new`.
pub fn holds_all(old: &str, new: &str) -> bool {
    same_charset(old, new)
        || matches!(new, "utf8mb4" | "utf16" | "utf16le" | "utf32")
        || (old == "ascii" && !matches!(new, "binary"))
        || (matches!(new, "utf8mb3" | "utf8" | "ucs2") && matches!(old, "latin1" | "ucs2" | "utf8mb3" | "utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goods() -> Layout {
        let column = |name: &str, declaration: &str, charset: Option<&str>, nullable| LayoutColumn {
            name: name.to_owned(),
            declaration: declaration.to_owned(),
            charset: charset.map(str::to_owned),
            collation: charset.map(|charset| format!("{charset}_bin")),
            nullable,
            default: ColumnDefault::None,
            generated: false,
            invisible: false,
            auto_increment: false,
        };
        Layout {
            columns: vec![
                column("id", "int(11)", None, false),
                column("Name", "varchar(20)", Some("latin1"), true),
                column("kind", "enum('a','b')", Some("latin1"), true),
                column("note", "text", Some("latin1"), true),
            ],
            uniques: vec![UniqueKey {
                name: PRIMARY.to_owned(),
                columns: vec!["id".to_owned()],
                partial: false,
                hashed: false,
            }],
            charset: "latin1".to_owned(),
            collation: "latin1_swedish_ci".to_owned(),
            period: Period::None,
        }
    }

    fn applied(text: &str) -> Result<Layout, Unclear> {
        let alter = read(text, Vendor::MySql)?.ok_or(Unclear)?;
        assert_eq!(alter.table, Named { schema: None, table: "goods".to_owned() }, "{text}");
        Ok(apply(&goods(), &alter.specs?, Vendor::MySql)?.layout)
    }

    fn columns(text: &str) -> String {
        let layout = applied(text).unwrap_or_else(|Unclear| panic!("unclear: {text}"));
        let shown = layout.columns.iter().map(|column| match &column.charset {
            Some(charset) => format!("{} {} {charset}", column.name, column.declaration),
            None => format!("{} {}", column.name, column.declaration),
        });
        shown.collect::<Vec<String>>().join(", ")
    }

    /// D-1, D-3, D-4, D-5, D-6: statement on the left, the columns after it on the right.
    #[test]
    fn every_change_of_columns_is_applied_as_the_server_does() {
        let (id, name, kind, note) =
            ("id int(11)", "Name varchar(20) latin1", "kind enum('a','b') latin1", "note text latin1");
        for (text, expected) in [
            ("ALTER TABLE goods ADD x INT UNSIGNED", format!("{id}, {name}, {kind}, {note}, x int unsigned")),
            (
                "ALTER TABLE `goods` ADD COLUMN (x INT, y BOOL)",
                format!("{id}, {name}, {kind}, {note}, x int, y tinyint(1)"),
            ),
            (
                "ALTER TABLE goods ADD x DEC FIRST, ADD y DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) AFTER name",
                format!("x decimal(10,0), {id}, {name}, y datetime(3), {kind}, {note}"),
            ),
            (
                "alter table goods add x int after id, add y int after x",
                format!("{id}, x int, y int, {name}, {kind}, {note}"),
            ),
            ("ALTER TABLE goods DROP NAME, DROP COLUMN kind", format!("{id}, {note}")),
            ("ALTER TABLE goods DROP COLUMN IF EXISTS x", format!("{id}, {name}, {kind}, {note}")),
            (
                "ALTER TABLE goods MODIFY kind ENUM('b', 'it''s', 'a') FIRST",
                format!("kind enum('b','it''s','a') latin1, {id}, {name}, {note}"),
            ),
            (
                "ALTER TABLE goods CHANGE name note VARCHAR(30) CHARACTER SET utf8mb4, CHANGE note name TEXT COLLATE utf8mb4_bin",
                format!("{id}, note varchar(30) utf8mb4, {kind}, name text utf8mb4"),
            ),
            (
                "ALTER TABLE goods RENAME COLUMN name TO title",
                format!("{id}, title varchar(20) latin1, {kind}, {note}"),
            ),
            (
                "ALTER TABLE goods CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                format!("{id}, Name varchar(20) utf8mb4, kind enum('a','b') utf8mb4, note mediumtext utf8mb4"),
            ),
            (
                "ALTER TABLE goods CHARSET=utf8mb4, ADD x CHAR(3)",
                format!("{id}, {name}, {kind}, {note}, x char(3) utf8mb4"),
            ),
            (
                "ALTER TABLE goods ALTER name SET DEFAULT 'x', ADD INDEX (name), ENGINE=InnoDB COMMENT='a, b', ALGORITHM=INPLACE",
                format!("{id}, {name}, {kind}, {note}"),
            ),
            (
                "/* app */ ALTER TABLE goods /*!50000 ADD x INT */ -- end",
                format!("{id}, {name}, {kind}, {note}, x int"),
            ),
            (
                "SET STATEMENT max_statement_time=1 FOR ALTER TABLE goods ADD x INT",
                format!("{id}, {name}, {kind}, {note}, x int"),
            ),
            ("CREATE INDEX i ON goods (name)", format!("{id}, {name}, {kind}, {note}")),
        ] {
            assert_eq!(columns(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_follow_their_columns() {
        let key = |text: &str| {
            let layout = applied(text).unwrap_or_else(|Unclear| panic!("unclear: {text}"));
            layout.key().join(",")
        };
        assert_eq!(key("ALTER TABLE goods RENAME COLUMN id TO number"), "number");
        assert_eq!(key("ALTER TABLE goods DROP PRIMARY KEY, ADD PRIMARY KEY (kind, id)"), "kind,id");
        assert_eq!(key("ALTER TABLE goods ADD UNIQUE KEY u (name)"), "id");
        assert_eq!(key("ALTER TABLE goods DROP PRIMARY KEY"), "");
    }

    /// D-10: never a guess.
    #[test]
    fn what_is_not_certain_is_unclear() {
        for text in [
            "ALTER TABLE goods ADD x SERIAL",
            "ALTER TABLE goods ADD x NVARCHAR(3)",
            "ALTER TABLE goods MODIFY kind ENUM('a\\'b')",
            "ALTER TABLE goods MODIFY kind ENUM(_latin1'a')",
            "ALTER TABLE goods ADD x TEXT(300)",
            "ALTER TABLE goods DROP COLUMN id",
            "ALTER TABLE goods DROP COLUMN missing",
            "ALTER TABLE goods ADD x INT AFTER missing",
            "ALTER TABLE goods ADD SYSTEM VERSIONING",
            "ALTER TABLE goods CONVERT TO CHARACTER SET DEFAULT",
            "ALTER TABLE goods ADD x VARCHAR(9) CHARACTER SET binary",
            "ALTER TABLE goods SOMETHING NEW",
            "ALTER TABLE goods ADD x INT COMPRESSED",
        ] {
            assert_eq!(applied(text), Err(Unclear), "{text}");
        }
        assert_eq!(read("ALTER TABLE goods COMMENT 'open", Vendor::MySql), Err(Unclear));
        for text in ["CREATE TABLE goods (id int)", "DROP VIEW v", "GRANT SELECT ON goods TO a", "FLUSH TABLES"] {
            assert_eq!(read(text, Vendor::MySql), Ok(None), "{text}");
        }
    }

    /// D-5, D-6, D-7, M-15: what streams on, and what the lake can't follow.
    #[test]
    fn changes_of_the_lake_or_of_existing_rows_are_told_apart_from_others() {
        let effect = |text: &str, strict| {
            let new = applied(text).unwrap_or_else(|Unclear| panic!("unclear: {text}"));
            match effect(&goods(), &new, strict, |name| name == "secret") {
                Effect::None => String::new(),
                Effect::Columns(how) => format!("columns: {how}"),
                Effect::Values(how) => format!("values: {how}"),
            }
        };
        for text in [
            "ALTER TABLE goods MODIFY kind ENUM('b','a','c')",
            "ALTER TABLE goods MODIFY Name VARCHAR(40)",
            "ALTER TABLE goods CONVERT TO CHARACTER SET utf8mb4",
            "ALTER TABLE goods MODIFY note TEXT FIRST",
            "ALTER TABLE goods ADD secret INT FIRST",
            "ALTER TABLE goods ALTER name SET DEFAULT 'x'",
        ] {
            assert_eq!(effect(text, false), "", "{text}");
        }
        for (text, told) in [
            ("ALTER TABLE goods ADD x INT", "columns: column `x` is new"),
            ("ALTER TABLE goods DROP name", "columns: column `Name` is gone"),
            // The server takes the new spelling.
            ("ALTER TABLE goods MODIFY name VARCHAR(20)", "columns: column `name` is new"),
            ("ALTER TABLE goods MODIFY id BIGINT", "columns: column `id` is long"),
            ("ALTER TABLE goods DROP PRIMARY KEY", "columns: its key was"),
            ("ALTER TABLE goods MODIFY Name VARCHAR(5)", "values: column `Name`"),
            ("ALTER TABLE goods MODIFY kind ENUM('a')", "values: column `kind`"),
            ("ALTER TABLE goods MODIFY Name VARCHAR(20) NOT NULL", "values: column `Name`"),
            ("ALTER TABLE goods MODIFY id SMALLINT", "columns: column `id` is short"),
        ] {
            assert!(effect(text, false).starts_with(told), "{text}: {}", effect(text, false));
        }
        assert_eq!(effect("ALTER TABLE goods MODIFY Name VARCHAR(5) NOT NULL", true), "");
    }

    proptest::proptest! {
        #[test]
        fn any_statement_is_read_without_a_panic(
            text in "(ALTER TABLE goods |ADD |DROP |MODIFY |CHANGE |x |INT|\\(|\\)|,|'|`|\"|ENUM|UNIQUE |AFTER |DEFAULT |-|1|é){0,25}",
        ) {
            if let Ok(Some(alter)) = read(&text, Vendor::MariaDb)
                && let Ok(specs) = alter.specs
            {
                let _ = apply(&goods(), &specs, Vendor::MariaDb);
            }
        }
    }
}
