//! A statement's changes applied to a layout, in the server's order; and what they mean for the lake.

use std::collections::BTreeMap;

use crate::schema::{LakeType, Layout, LayoutColumn, PRIMARY, Period, UniqueKey};

use super::super::charset::{character_bytes_max, same_charset};
use super::super::column_definition::{self, Definition, Place, Target, same_type};
use super::super::declared::Declared;
use super::super::flavor::Vendor;
use super::{Spec, Unclear};

/// A layout after a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub layout: Layout,
    /// What columns were called, and are called now.
    pub renamed: Vec<(String, String)>,
    /// Columns that are gone, though one of the same name may be there again.
    pub dropped: Vec<String>,
    /// Columns that are new, as they were defined.
    pub added: Vec<Definition>,
    /// Columns, as they are called now, whose values may have changed beyond what the layouts show, and why.
    pub recomputed: BTreeMap<String, String>,
}

/// What a statement's session makes of values that don't fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Session {
    /// The statement would have failed rather than lose values.
    pub strict: bool,
    /// CHAR is read with all its blanks.
    pub pads_char: bool,
}

/// The layout after these changes.
pub fn apply(old: &Layout, specs: &[Spec], vendor: Vendor) -> Result<Applied, Unclear> {
    let mut layout = old.clone();
    let mut recomputed = BTreeMap::new();
    let mut dropped = Vec::new();
    let mut added = Vec::new();
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
                    dropped.push(gone.name);
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
                    let mut new = definition.column(&layout)?;
                    if column.generated || definition.generated {
                        recomputed.insert(new.name.clone(), "it is generated anew".to_owned());
                    } else if new.auto_increment && !column.auto_increment {
                        recomputed.insert(new.name.clone(), "it counts by itself now".to_owned());
                    }
                    if same_type(&column.declaration, &new.declaration) {
                        // In the catalog's words, which may show a width that means nothing.
                        new.declaration.clone_from(&column.declaration);
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
                if *if_not_exists && layout.index(&definition.name).is_some() {
                    continue;
                }
                added.push(definition.clone());
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
    let mut names: Vec<String> = columns.iter().map(|column| column.name.to_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Unclear);
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
    // A primary key takes no NULL, whatever its columns' definitions say.
    let primary = layout.uniques.iter().find(|unique| unique.name == PRIMARY).map(|unique| unique.columns.clone());
    for name in primary.unwrap_or_default() {
        if let Some(at) = layout.index(&name) {
            layout.columns[at].nullable = false;
        }
    }
    Ok(Applied { layout, renamed: renames, dropped, added, recomputed })
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

/// Columns of both layouts, as they are called now, whose values may not be any more what the log told, and why. `former`
/// tells what a column was called, `lake` its types in the lake before and after; `None` when it is not in both.
pub fn rewritten(
    old: &Layout,
    new: &Layout,
    session: Session,
    former: impl Fn(&str) -> Option<String>,
    lake: impl Fn(&str, &str) -> Option<(LakeType, LakeType)>,
) -> BTreeMap<String, String> {
    let pairs: Vec<(&LayoutColumn, &LayoutColumn)> = new
        .columns
        .iter()
        .filter_map(|after| {
            let name = former(&after.name)?;
            Some((old.columns.iter().find(|before| before.name == name)?, after))
        })
        .collect();
    let as_before = |(before, after): &(&LayoutColumn, &LayoutColumn)| {
        before.generated
            || (same_type(&before.declaration, &after.declaration)
                && before.charset == after.charset
                && before.collation == after.collation)
    };
    // What is computed from a column that changed may come out otherwise.
    let base = pairs.iter().find(|pair| !as_before(pair)).map(|(_, after)| after.name.as_str());
    let found = pairs.iter().filter_map(|(before, after)| {
        let types = lake(&before.name, &after.name)?;
        let computed = base.filter(|_| before.generated && after.generated);
        let why = computed.map(|base| format!("it is generated, and `{base}` changed"));
        Some((after.name.clone(), why.or_else(|| column_definition::rewritten(before, after, types, session))?))
    });
    found.collect()
}

/// Whether every character of `old` has a place in `new`.
pub fn holds_all(old: &str, new: &str) -> bool {
    same_charset(old, new)
        || matches!(new, "utf8mb4" | "utf16" | "utf16le" | "utf32")
        || (old == "ascii" && !matches!(new, "binary"))
        || (matches!(new, "utf8mb3" | "utf8" | "ucs2") && matches!(old, "latin1" | "ucs2" | "utf8mb3" | "utf8"))
}
