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

mod apply;
mod tokens;

pub use apply::{Applied, Session, apply, holds_all, rewritten};
pub use tokens::{Tokens, tokens_of, unescaped};

use sqlparser::tokenizer::Token;

use crate::schema::{ColumnDefault, Layout, PRIMARY};

use super::column_definition::{Definition, Target, definition};
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

/// How a table begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// As this one is.
    Like(Named),
    Of(Layout),
}

/// Reads what `CREATE TABLE` makes: with its rows from elsewhere, or with anything that is not certain, it is unclear.
pub fn created(text: &str, vendor: Vendor) -> Result<Created, Unclear> {
    let tokens = tokens_of(text)?;
    let mut tokens = Tokens::new(&tokens);
    skip_set_statement(&mut tokens);
    if !tokens.word("CREATE") {
        return Err(Unclear);
    }
    let _ = tokens.words(&["OR", "REPLACE"]);
    if !tokens.word("TABLE") {
        return Err(Unclear);
    }
    let _ = tokens.words(&["IF", "NOT", "EXISTS"]);
    tokens.table().ok_or(Unclear)?;
    let behind = tokens.clone();
    let inside = tokens.parenthesis();
    let mut like = inside.clone().unwrap_or(behind);
    if like.word("LIKE") {
        let named = like.table().ok_or(Unclear)?;
        end(&like)?;
        return Ok(Created::Like(named));
    }
    let mut specs = Vec::new();
    for mut piece in inside.ok_or(Unclear)?.pieces() {
        add(&mut piece, vendor, &mut specs)?;
    }
    options(&mut tokens, vendor, &mut specs)?;
    Ok(Created::Of(apply(&Layout::default(), &specs, vendor)?.layout))
}

fn skip_set_statement(tokens: &mut Tokens<'_>) {
    if tokens.words(&["SET", "STATEMENT"]) {
        while !tokens.is_empty() && !tokens.word("FOR") {
            tokens.next();
        }
    }
}

/// Reads a statement: `Ok(None)` when it changes no table's layout, [`Unclear`] when not even that is certain.
pub fn read(text: &str, vendor: Vendor) -> Result<Option<Alter>, Unclear> {
    let tokens = tokens_of(text)?;
    let mut tokens = Tokens::new(&tokens);
    skip_set_statement(&mut tokens);
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
            let (default, _) = super::literal::default(tokens)?;
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

#[cfg(test)]
mod tests;
