//! A statement's changes applied to a layout, in the server's order; and what they mean for the lake.

use crate::schema::{Layout, LayoutColumn, PRIMARY, Period, UniqueKey};

use super::super::charset::{character_bytes_max, same_charset};
use super::super::column_definition::{self, Place, Target};
use super::super::declared::Declared;
use super::super::flavor::Vendor;
use super::{Spec, Unclear};

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
        let length: u64 = Declared::parse(&column.declaration).arguments.first().copied().unwrap_or(0).into();
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
        match column_definition::change(before, after, strict) {
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
