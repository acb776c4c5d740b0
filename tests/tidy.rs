//! The tree's own order: rooms import downwards only, files stay readable, nothing unfinished is left behind.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down; rooms on one line do not know each other.
const LAYERS: [&[&str]; 6] =
    [&["cli"], &["pipeline"], &["notice", "snapshot"], &["lake", "ledger", "source"], &["schema"], &["config"]];

const LINES_MAX: usize = 700;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// (path below src, text) of every source file.
fn tree() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            (path.strip_prefix(&root).expect("below src").to_owned(), text)
        })
        .collect()
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn rooms_import_downwards_only() {
    let mut wrong = Vec::new();
    for (path, text) in tree() {
        let room = path.iter().next().and_then(|room| room.to_str()).unwrap_or_default().to_owned();
        let Some(mine) = layer(&room) else { continue };
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut rest = code;
            while let Some(at) = rest.find("crate::") {
                rest = &rest[at + "crate::".len()..];
                // `use crate::{lake, ledger}` names several.
                let names = match rest.strip_prefix('{') {
                    Some(list) => list.split('}').next().unwrap_or_default(),
                    None => rest.split([':', ';', ' ', ')', '<']).next().unwrap_or_default(),
                };
                for name in names.split(',').map(|name| name.trim().split("::").next().unwrap_or_default()) {
                    if let Some(theirs) = layer(name)
                        && name != room
                        && theirs <= mine
                    {
                        wrong.push(format!("src/{}:{}: {room} names {name}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point downwards:\n{}", wrong.join("\n"));
}

#[test]
fn the_two_kinds_of_source_do_not_know_each_other() {
    for (path, text) in tree() {
        let path = path.display().to_string();
        assert!(!(path.starts_with("source/mysql") && text.contains("source::postgres")), "src/{path}");
        assert!(!(path.starts_with("source/postgres") && text.contains("source::mysql")), "src/{path}");
        let lake = path.starts_with("lake") || path.starts_with("ledger");
        assert!(!(lake && (text.contains("source::mysql") || text.contains("source::postgres"))), "src/{path}");
    }
}

#[test]
fn a_file_is_one_noun() {
    let long: Vec<String> = tree()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("src/{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "files over {LINES_MAX} lines, split them by noun:\n{}", long.join("\n"));
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let words = [["to", "do!("].concat(), ["unimpl", "emented!("].concat(), ["FIX", "ME"].concat()];
    for (path, text) in tree() {
        for word in &words {
            assert!(!text.contains(word.as_str()), "src/{} has {word}", path.display());
        }
    }
}
