//! Statements on the left, layouts on the right.

use super::*;
use crate::schema::{Layout, LayoutColumn, Period, UniqueKey};
use crate::source::mysql::declared::Declared;

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

/// What was renamed, dropped, added; what reads anew, and why.
fn told(text: &str, strict: bool) -> Vec<String> {
    let alter = read(text, Vendor::MySql).expect("clear").expect("ALTER TABLE");
    let applied = apply(&goods(), &alter.specs.expect("clear"), Vendor::MySql).expect("clear");
    let former = |name: &str| {
        let renamed = applied.renamed.iter().find(|(_, to)| to == name);
        Some(renamed.map_or(name, |(from, _)| from).to_owned())
    };
    let natural =
        |layout: &Layout, name: &str| Declared::parse(&layout.column(name).expect("a column").declaration).lake_type();
    let lake =
        |had: &str, has: &str| (has != "secret").then(|| (natural(&goods(), had), natural(&applied.layout, has)));
    let session = Session { strict, pads_char: false };
    let rewritten = rewritten(&goods(), &applied.layout, session, former, lake);
    let mut told: Vec<String> = applied.renamed.iter().map(|(from, to)| format!("{from} is {to}")).collect();
    told.extend(applied.dropped.iter().map(|name| format!("{name} is gone")));
    told.extend(applied.added.iter().map(|added| format!("{} is new", added.name)));
    told.extend(applied.recomputed.iter().chain(&rewritten).map(|(name, why)| format!("{name}: {why}")));
    told
}

#[test]
fn what_happened_to_columns_is_told() {
    for (text, expected) in [
        ("ALTER TABLE goods ADD x INT, DROP note", vec!["note is gone", "x is new"]),
        ("ALTER TABLE goods DROP note, ADD note TEXT", vec!["note is gone", "note is new"]),
        ("ALTER TABLE goods CHANGE name note VARCHAR(20), CHANGE note name TEXT", vec!["Name is note", "note is name"]),
        ("ALTER TABLE goods RENAME COLUMN id TO number", vec!["id is number"]),
        // The server takes the new spelling.
        ("ALTER TABLE goods MODIFY name VARCHAR(20)", vec!["Name is name"]),
        ("ALTER TABLE goods ADD COLUMN IF NOT EXISTS note INT, ADD UNIQUE (name)", vec![]),
    ] {
        assert_eq!(told(text, true), expected, "{text}");
    }
}

/// D-5, D-6, M-15: values that are in the lake as they are, and such that the log does not tell.
#[test]
fn values_that_a_change_of_type_rewrites_are_told() {
    for text in [
        "ALTER TABLE goods MODIFY kind ENUM('b','a','c')",
        "ALTER TABLE goods MODIFY Name VARCHAR(40)",
        "ALTER TABLE goods CONVERT TO CHARACTER SET utf8mb4",
        "ALTER TABLE goods MODIFY note TEXT FIRST",
        "ALTER TABLE goods ALTER name SET DEFAULT 'x'",
        "ALTER TABLE goods MODIFY id BIGINT",
        "ALTER TABLE goods MODIFY id DECIMAL(12,2)",
        "ALTER TABLE goods MODIFY id DOUBLE",
        "ALTER TABLE goods MODIFY id INT(5)",
        // That it shrinks in the lake is told by its types.
        "ALTER TABLE goods MODIFY id SMALLINT",
    ] {
        assert!(told(text, false).is_empty(), "{text}: {:?}", told(text, false));
    }
    for (text, expected) in [
        ("ALTER TABLE goods MODIFY Name VARCHAR(5)", "Name: it became varchar(5) and was varchar(20): texts were cut"),
        ("ALTER TABLE goods MODIFY kind ENUM('a')", "whose label is gone"),
        ("ALTER TABLE goods MODIFY Name VARCHAR(20) NOT NULL", "its nullability changed: NULLs"),
        ("ALTER TABLE goods MODIFY Name VARCHAR(20) CHARACTER SET ascii", "its character set became ascii"),
        ("ALTER TABLE goods MODIFY id INT UNSIGNED", "id: it became int unsigned and was int(11): negative"),
    ] {
        let lax = told(text, false);
        assert!(lax.len() == 1 && lax[0].contains(expected), "{text}: {lax:?}");
        assert!(told(text, true).is_empty(), "{text}: {:?}", told(text, true));
    }
    for (text, expected) in [
        ("ALTER TABLE goods MODIFY Name CHAR(20)", "blanks at the end"),
        ("ALTER TABLE goods MODIFY id FLOAT(7,2)", ""),
        ("ALTER TABLE goods MODIFY id DOUBLE(9,2)", "were rounded"),
        ("ALTER TABLE goods MODIFY id INT GENERATED ALWAYS AS (7)", "generated anew"),
        ("ALTER TABLE goods MODIFY id INT AUTO_INCREMENT", "counts by itself"),
    ] {
        let strict = told(text, true);
        assert!(strict.iter().any(|told| told.contains(expected)) || expected.is_empty(), "{text}: {strict:?}");
    }
}

/// D-9: how gh-ost and pt-online-schema-change begin.
#[test]
fn tables_are_read_as_they_are_created() {
    let named =
        |schema: Option<&str>, table: &str| Named { schema: schema.map(str::to_owned), table: table.to_owned() };
    for text in [
        "create /* gh-ost */ table `shop`.`_goods_gho` like `shop`.`goods`",
        "CREATE TABLE IF NOT EXISTS shop._goods_new (LIKE shop.goods)",
    ] {
        assert_eq!(created(text, Vendor::MySql), Ok(Created::Like(named(Some("shop"), "goods"))), "{text}");
    }
    let text = "CREATE TABLE `shop`.`_goods_new` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `key` varchar(20) DEFAULT 'it''s',\n  \
                `at` timestamp NULL DEFAULT current_timestamp(),\n  `fine` enum('a','b') COLLATE latin1_bin NOT NULL,\n  \
                PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`fine`,`id`),\n  KEY `k` (`key`),\n  \
                CONSTRAINT `_fk` FOREIGN KEY (`id`) REFERENCES `other` (`id`)\n\
                ) ENGINE=InnoDB AUTO_INCREMENT=4 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='x'";
    let Ok(Created::Of(layout)) = created(text, Vendor::MySql) else { panic!("unclear: {text}") };
    let names: Vec<&str> = layout.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "key", "at", "fine"]);
    assert_eq!(layout.key(), ["id"]);
    assert_eq!(layout.columns[1].charset.as_deref(), Some("utf8mb4"));
    assert_eq!(layout.columns[1].default, ColumnDefault::Constant("it's".to_owned()));
    assert_eq!((layout.columns[3].charset.as_deref(), layout.columns[3].nullable), (Some("latin1"), false));
    assert!(layout.columns[0].auto_increment);
    for text in [
        "CREATE TABLE x AS SELECT 1",
        "CREATE TABLE x (a INT) SELECT 1 AS a",
        "CREATE TABLE x (a TEXT)",
        "CREATE TABLE x (a SERIAL)",
        "CREATE VIEW x AS SELECT 1",
    ] {
        assert_eq!(created(text, Vendor::MySql), Err(Unclear), "{text}");
    }
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
        let _ = created(&text.replace("ALTER", "CREATE"), Vendor::MySql);
    }
}
