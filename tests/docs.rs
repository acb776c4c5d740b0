//! docs/types.md holds the tables that `schema::mapping` has. LAKEWARD_WRITE_DOCS=1 writes them.

use std::path::Path;

use lakeward::schema::mapping::{MYSQL, Mapping, POSTGRES};

fn rendered(table: &[Mapping]) -> String {
    let mut text = String::from("\n| IDs | source | lake | encoding | does not fit | may be |\n|--|--|--|--|--|--|\n");
    for row in table {
        let suffix = if row.unsigned { " unsigned" } else { "" };
        let names: Vec<String> = row.names.iter().map(|name| format!("`{name}{suffix}`")).collect();
        let overrides: Vec<&str> = row.overrides.iter().map(|possible| possible.words()).collect();
        text.push_str(&format!(
            "| {} | {} | `{}` | {} | {} | {} |\n",
            row.ids,
            names.join(", "),
            row.lake,
            row.encoding,
            row.beyond,
            overrides.join(", ")
        ));
    }
    text
}

/// The document with the tables of today between its marks.
fn with_tables(document: &str) -> String {
    let mut text = document.to_owned();
    for (mark, table) in [("<!-- mysql -->\n", MYSQL), ("<!-- postgres -->\n", POSTGRES)] {
        let begin = text.find(mark).unwrap_or_else(|| panic!("no {mark:?}")) + mark.len();
        let end = begin + text[begin..].find("<!-- end -->").expect("an end mark");
        text.replace_range(begin..end, &format!("{}\n", rendered(table)));
    }
    text
}

#[test]
fn the_document_of_types_is_the_table_of_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/types.md");
    let document = std::fs::read_to_string(&path).expect("docs/types.md");
    let expected = with_tables(&document);
    if std::env::var_os("LAKEWARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("writable");
    } else {
        assert_eq!(document, expected, "run LAKEWARD_WRITE_DOCS=1 cargo test --test docs");
    }
}

/// A row without IDs would be in no test.
#[test]
fn every_row_names_its_tests() {
    for (table, letter) in [(MYSQL, "M-"), (POSTGRES, "P-")] {
        for row in table {
            assert!(!row.names.is_empty() && row.ids.split(", ").all(|id| id.starts_with(letter)), "{row:?}");
        }
    }
    let ids: Vec<&str> = MYSQL.iter().flat_map(|row| row.ids.split(", ")).collect();
    for number in 1..=21 {
        assert!(ids.contains(&format!("M-{number}").as_str()), "M-{number} is in no row");
    }
}
