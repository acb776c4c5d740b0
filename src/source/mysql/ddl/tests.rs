//! Statements on the left, layouts on the right.

use super::*;
use crate::schema::{Layout, LayoutColumn, Period, UniqueKey};

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
        ("ALTER TABLE goods RENAME COLUMN name TO title", format!("{id}, title varchar(20) latin1, {kind}, {note}")),
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
        ("/* app */ ALTER TABLE goods /*!50000 ADD x INT */ -- end", format!("{id}, {name}, {kind}, {note}, x int")),
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
