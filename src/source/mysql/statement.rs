//! What a statement in the log means for captured tables.
//!
//! Rows come as row events; statements are left for transaction control, DDL, and for whoever writes in STATEMENT
//! format. This recogniser reads words, not grammar: it must never take a change of a captured table's rows for
//! nothing, so what it does not know inside a transaction counts as [`Statement::Other`], whose words are then searched
//! for captured names.

use std::collections::HashMap;

use super::xid;

/// A table as a statement names it; without a database the statement's default applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub schema: Option<String>,
    pub table: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Begin,
    Commit,
    Rollback,
    /// `ROLLBACK TO` a savepoint: rows behind it in the log are undone.
    RollbackTo(String),
    Savepoint(String),
    XaStart,
    XaEnd,
    /// `XA COMMIT` or `XA ROLLBACK` of what was prepared before; its name in the form of [`super::xid`].
    XaDecide {
        xid: String,
        commit: bool,
    },
    Truncate(Named),
    /// The tables' rows are changed by the statement itself; `what` says how.
    Replaced {
        tables: Vec<Named>,
        what: &'static str,
    },
    Drop(Vec<Named>),
    DropDatabase(String),
    /// From one name to the other, one after the other.
    Rename(Vec<(Named, Named)>),
    Create {
        table: Named,
        /// `OR REPLACE`: one that is there is dropped.
        replace: bool,
        /// `IF NOT EXISTS`: one that is there stays.
        if_not_exists: bool,
    },
    /// `CREATE TABLE … START TRANSACTION`: rows and a commit marker follow (MySQL's atomic CREATE … SELECT).
    CreateTransactional(Named),
    /// DDL without an effect on rows.
    Harmless,
    /// Anything else, DML among it.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A bare word; keywords compare without case.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string literal, or a double-quoted name.
    Text(String),
    Symbol(char),
}

/// Splits a statement into tokens; comments fall away, except that the content of `/*! … */` counts.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = rest.trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!")) {
            rest = comment.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else if let Some(after) = rest.strip_prefix("*/") {
            rest = after;
        } else if first == '#' || rest.starts_with("-- ") || rest.starts_with("--\t") || rest.starts_with("--\n") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if matches!(first, '`' | '\'' | '"') {
            let (content, after) = quoted(rest, first);
            tokens.push(if first == '`' { Token::Name(content) } else { Token::Text(content) });
            rest = after;
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            tokens.push(Token::Symbol(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '@') || character as u32 > 0x7F
}

/// A quoted piece without its quotes; doubled quotes and, in literals, backslashes stand for one character.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            if characters.peek().is_some_and(|(_, next)| *next == quote) {
                characters.next();
            } else {
                return (content, &text[at + character.len_utf8()..]);
            }
        } else if character == '\\' && quote != '`' {
            if let Some((_, escaped)) = characters.next() {
                content.push(escaped);
            }
            continue;
        }
        content.push(character);
    }
    (content, "")
}

struct Reader<'a> {
    tokens: &'a [Token],
}

impl Reader<'_> {
    fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(wanted));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn words(&mut self, wanted: &[&str]) -> bool {
        let before = self.tokens;
        let found = wanted.iter().all(|word| self.word(word));
        if !found {
            self.tokens = before;
        }
        found
    }

    fn symbol(&mut self, wanted: char) -> bool {
        let found = self.tokens.first() == Some(&Token::Symbol(wanted));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn name(&mut self) -> Option<String> {
        let name = match self.tokens.first()? {
            Token::Word(name) | Token::Name(name) | Token::Text(name) => name.clone(),
            Token::Symbol(_) => return None,
        };
        self.tokens = &self.tokens[1..];
        Some(name)
    }

    fn table(&mut self) -> Option<Named> {
        let first = self.name()?;
        if self.symbol('.') {
            Some(Named { schema: Some(first), table: self.name()? })
        } else {
            Some(Named { schema: None, table: first })
        }
    }

    fn tables(&mut self) -> Vec<Named> {
        let mut tables = Vec::new();
        while let Some(table) = self.table() {
            tables.push(table);
            if !self.symbol(',') {
                break;
            }
        }
        tables
    }

    /// `X'67',X'62',1`, or the parts in quotes; the last two may be missing.
    fn xid(&mut self) -> Option<String> {
        let mut part = || {
            let hex = self.word("X");
            let [Token::Text(text), rest @ ..] = self.tokens else { return None };
            self.tokens = rest;
            let bytes = if hex { xid::unhex(text)? } else { text.clone().into_bytes() };
            Some((bytes, self.symbol(',')))
        };
        let (global, more) = part()?;
        let (branch, more) = if more { part()? } else { (Vec::new(), false) };
        let mut format = 1;
        if more {
            let negative = self.symbol('-');
            let [Token::Word(number), ..] = self.tokens else { return None };
            let number: i64 = number.parse().ok()?;
            // The event has 32 bits of it, the text may show them with a sign.
            format = (if negative { -number } else { number }) as u32;
        }
        Some(xid::canonical(&global, &branch, format))
    }

    /// Whether these words stand next to each other anywhere in what is left.
    fn contains(&self, wanted: &[&str]) -> bool {
        self.tokens.windows(wanted.len()).any(|window| {
            window
                .iter()
                .zip(wanted)
                .all(|(token, word)| matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word)))
        })
    }
}

impl Statement {
    pub fn recognise(text: &str) -> Self {
        // Both servers log these two as they stand, once per transaction.
        match text {
            "BEGIN" => return Self::Begin,
            "COMMIT" => return Self::Commit,
            _ => {}
        }
        let tokens = tokens(text);
        let mut reader = Reader { tokens: &tokens };
        // MariaDB: SET STATEMENT variable=value FOR statement.
        if reader.words(&["SET", "STATEMENT"]) {
            while !reader.tokens.is_empty() && !reader.word("FOR") {
                reader.tokens = &reader.tokens[1..];
            }
        }
        Self::read(&mut reader)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        if reader.word("BEGIN") || reader.words(&["START", "TRANSACTION"]) {
            return Self::Begin;
        }
        if reader.word("COMMIT") {
            return Self::Commit;
        }
        if reader.word("ROLLBACK") {
            let _ = reader.word("WORK");
            if !reader.word("TO") {
                return Self::Rollback;
            }
            let _ = reader.word("SAVEPOINT");
            return reader.name().map_or(Self::Other, Self::RollbackTo);
        }
        if reader.word("SAVEPOINT") {
            return reader.name().map_or(Self::Other, Self::Savepoint);
        }
        if reader.word("RELEASE") {
            return Self::Harmless;
        }
        if reader.word("XA") {
            return if reader.word("START") || reader.word("BEGIN") {
                Self::XaStart
            } else if reader.word("COMMIT") {
                reader.xid().map_or(Self::Other, |xid| Self::XaDecide { xid, commit: true })
            } else if reader.word("ROLLBACK") {
                reader.xid().map_or(Self::Other, |xid| Self::XaDecide { xid, commit: false })
            } else {
                Self::XaEnd
            };
        }
        if reader.word("TRUNCATE") {
            let _ = reader.word("TABLE");
            return reader.table().map_or(Self::Other, Self::Truncate);
        }
        if reader.words(&["DELETE", "FROM"]) {
            // Servers write it for MEMORY tables that a restart has emptied. Anything behind the name makes it another.
            return match reader.table() {
                Some(table) if reader.tokens.is_empty() => Self::Truncate(table),
                _ => Self::Other,
            };
        }
        if reader.word("DROP") {
            if reader.word("TEMPORARY") {
                return Self::Harmless;
            }
            if reader.word("DATABASE") || reader.word("SCHEMA") {
                let _ = reader.words(&["IF", "EXISTS"]);
                return reader.name().map_or(Self::Other, Self::DropDatabase);
            }
            if reader.word("TABLE") || reader.word("TABLES") {
                let _ = reader.words(&["IF", "EXISTS"]);
                return Self::Drop(reader.tables());
            }
            return Self::Harmless;
        }
        if reader.word("RENAME") {
            if !(reader.word("TABLE") || reader.word("TABLES")) {
                return Self::Harmless;
            }
            let _ = reader.words(&["IF", "EXISTS"]);
            let mut pairs = Vec::new();
            while let Some(old) = reader.table() {
                // MariaDB: WAIT n, NOWAIT.
                while !reader.tokens.is_empty() && !reader.word("TO") {
                    reader.tokens = &reader.tokens[1..];
                }
                let Some(new) = reader.table() else { return Self::Other };
                pairs.push((old, new));
                if !reader.symbol(',') {
                    break;
                }
            }
            return Self::Rename(pairs);
        }
        if reader.word("ALTER") {
            return Self::alter(reader);
        }
        if reader.word("CREATE") {
            return Self::create(reader);
        }
        let harmless = [
            "ANALYZE",
            "CHECK",
            "COMMENT",
            "FLUSH",
            "GRANT",
            "INSTALL",
            "LOCK",
            "OPTIMIZE",
            "REPAIR",
            "RESET",
            "REVOKE",
            "SET",
            "UNINSTALL",
            "UNLOCK",
            "USE",
        ];
        if harmless.iter().any(|word| reader.word(word)) { Self::Harmless } else { Self::Other }
    }

    fn alter(reader: &mut Reader<'_>) -> Self {
        let _ = reader.word("ONLINE");
        let _ = reader.word("IGNORE");
        if !reader.word("TABLE") {
            return Self::Harmless;
        }
        let _ = reader.words(&["IF", "EXISTS"]);
        let Some(table) = reader.table() else { return Self::Other };
        for verb in ["DROP", "TRUNCATE", "EXCHANGE", "CONVERT"] {
            if reader.contains(&[verb, "PARTITION"]) {
                return Self::Replaced { tables: vec![table], what: "had rows changed by partition" };
            }
        }
        // Partitions that come from or become tables, MariaDB 10.7 and later.
        if reader.contains(&["CONVERT", "TABLE"]) {
            return Self::Replaced { tables: vec![table], what: "had rows changed by partition" };
        }
        if reader.contains(&["DISCARD", "TABLESPACE"]) || reader.contains(&["IMPORT", "TABLESPACE"]) {
            return Self::Replaced { tables: vec![table], what: "had its tablespace replaced" };
        }
        let mut rest = Reader { tokens: reader.tokens };
        while !rest.tokens.is_empty() {
            if rest.word("RENAME") {
                if ["COLUMN", "INDEX", "KEY", "CONSTRAINT"].iter().any(|what| rest.word(what)) {
                    continue;
                }
                let _ = rest.word("TO") || rest.word("AS") || rest.symbol('=');
                return rest.table().map_or(Self::Other, |new| Self::Rename(vec![(table, new)]));
            }
            rest.tokens = &rest.tokens[1..];
        }
        Self::Harmless
    }

    fn create(reader: &mut Reader<'_>) -> Self {
        let replace = reader.words(&["OR", "REPLACE"]);
        if reader.word("TEMPORARY") {
            return Self::Harmless;
        }
        if !reader.word("TABLE") {
            return Self::Harmless;
        }
        let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
        let Some(table) = reader.table() else { return Self::Other };
        if reader.tokens.len() >= 2
            && (Reader { tokens: &reader.tokens[reader.tokens.len() - 2..] }).words(&["START", "TRANSACTION"])
        {
            return Self::CreateTransactional(table);
        }
        Self::Create { table, replace, if_not_exists }
    }
}

/// What a statement could name, to be searched for tables: its text is read once, however many tables there are.
pub struct Words {
    /// In lower case, and how often.
    words: HashMap<String, usize>,
}

impl Words {
    /// `default_schema` is where names without a database belong.
    pub fn of(text: &str, default_schema: &str) -> Self {
        let mut words = HashMap::from([(default_schema.to_lowercase(), 0)]);
        for token in tokens(text) {
            if let Token::Word(name) | Token::Name(name) | Token::Text(name) = token {
                *words.entry(name.to_lowercase()).or_default() += 1;
            }
        }
        Self { words }
    }

    /// How often this one is among them.
    pub fn count(&self, word: &str) -> usize {
        self.words.get(&word.to_lowercase()).copied().unwrap_or(0)
    }

    /// Whether they name the table. Any word that equals its name counts.
    pub fn mention(&self, schema: &str, table: &str) -> bool {
        self.words.contains_key(&table.to_lowercase()) && self.words.contains_key(&schema.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Named {
        match text.split_once('.') {
            Some((schema, table)) => Named { schema: Some(schema.to_owned()), table: table.to_owned() },
            None => Named { schema: None, table: text.to_owned() },
        }
    }

    #[test]
    fn transaction_control_is_recognised() {
        for (text, statement) in [
            ("BEGIN", Statement::Begin),
            ("START TRANSACTION", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("commit /* x */", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO `s`", Statement::RollbackTo("s".to_owned())),
            ("ROLLBACK WORK TO SAVEPOINT s", Statement::RollbackTo("s".to_owned())),
            ("SAVEPOINT `a b`", Statement::Savepoint("a b".to_owned())),
            ("RELEASE SAVEPOINT `s`", Statement::Harmless),
            ("XA START X'67',X'',1", Statement::XaStart),
            ("XA END X'67',X'',1", Statement::XaEnd),
            ("XA COMMIT X'67',X'',1", Statement::XaDecide { xid: "X'67',X'',1".to_owned(), commit: true }),
            (
                "XA ROLLBACK X'00FF',X'62',-1",
                Statement::XaDecide { xid: "X'00ff',X'62',4294967295".to_owned(), commit: false },
            ),
            ("xa commit 'g'", Statement::XaDecide { xid: "X'67',X'',1".to_owned(), commit: true }),
            ("XA COMMIT nonsense", Statement::Other),
        ] {
            assert_eq!(Statement::recognise(text), statement, "{text}");
        }
    }

    /// K-2, D-14
    #[test]
    fn truncate_finds_its_table_however_it_is_written() {
        for (text, table) in [
            ("TRUNCATE TABLE orders", "orders"),
            ("truncate orders", "orders"),
            ("TRUNCATE `shop` . `orders`", "shop.orders"),
            ("/* app */ TRUNCATE /*!50000 TABLE */ shop.orders -- done\n", "shop.orders"),
            ("SET STATEMENT lock_wait_timeout=1 FOR TRUNCATE TABLE orders", "orders"),
            ("# x\nTRUNCATE TABLE `a``b`", "a`b"),
            ("TRUNCATE TABLE \"orders\"", "orders"),
            ("TRUNCATE TABLE 예약", "예약"),
            ("TRUNCATE TABLE orders NOWAIT", "orders"),
            (
                "DELETE FROM `shop`.`orders` /* generated by server, implicitly emptying in-memory table */",
                "shop.orders",
            ),
        ] {
            assert_eq!(Statement::recognise(text), Statement::Truncate(named(table)), "{text}");
        }
    }

    /// K-3, K-6, D-8
    #[test]
    fn statements_that_change_rows_of_a_table_as_a_whole_are_recognised() {
        let replaced =
            |tables: &[&str], what| Statement::Replaced { tables: tables.iter().copied().map(named).collect(), what };
        let renamed = |pairs: &[(&str, &str)]| {
            Statement::Rename(pairs.iter().map(|(old, new)| (named(old), named(new))).collect())
        };
        let create =
            |table: &str, replace, if_not_exists| Statement::Create { table: named(table), replace, if_not_exists };
        for (text, statement) in [
            (
                "DROP TABLE IF EXISTS `a`,shop.b /* generated by server */",
                Statement::Drop(vec![named("a"), named("shop.b")]),
            ),
            ("RENAME TABLE a TO b, c NOWAIT TO shop.d", renamed(&[("a", "b"), ("c", "shop.d")])),
            ("rename /* gh-ost */ table `shop`.`a` to shop._a_del, shop._a_gho to shop.a", {
                renamed(&[("shop.a", "shop._a_del"), ("shop._a_gho", "shop.a")])
            }),
            ("ALTER TABLE a RENAME TO b", renamed(&[("a", "b")])),
            ("ALTER TABLE a ADD x int, RENAME AS shop.b", renamed(&[("a", "shop.b")])),
            ("ALTER TABLE a DROP PARTITION p1", replaced(&["a"], "had rows changed by partition")),
            ("ALTER TABLE a TRUNCATE PARTITION ALL", replaced(&["a"], "had rows changed by partition")),
            ("ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b", replaced(&["a"], "had rows changed by partition")),
            ("CREATE TABLE a (id int)", create("a", false, false)),
            ("CREATE OR REPLACE TABLE a (id int)", create("a", true, false)),
            ("create table if not exists shop.a like b", create("shop.a", false, true)),
            ("DROP DATABASE IF EXISTS `shop`", Statement::DropDatabase("shop".to_owned())),
        ] {
            assert_eq!(Statement::recognise(text), statement, "{text}");
        }
    }

    #[test]
    fn ddl_without_effect_on_rows_is_harmless() {
        for text in [
            "ALTER TABLE a ADD COLUMN `rename` int",
            "ALTER TABLE a RENAME COLUMN x TO y",
            "ALTER TABLE a RENAME INDEX x TO y",
            "ALTER TABLE a ADD PARTITION (PARTITION p3 VALUES LESS THAN (9))",
            "CREATE TEMPORARY TABLE a (id int)",
            "CREATE INDEX i ON a (b)",
            "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.b = 1",
            "DROP TEMPORARY TABLE a",
            "DROP VIEW a",
            "GRANT SELECT ON a TO b",
            "ANALYZE TABLE a",
        ] {
            assert_eq!(Statement::recognise(text), Statement::Harmless, "{text}");
        }
        assert_eq!(
            Statement::recognise("CREATE TABLE `t2` (\n  `id` int\n) START TRANSACTION"),
            Statement::CreateTransactional(named("t2"))
        );
    }

    ///
    #[test]
    fn dml_is_searched_for_captured_names() {
        for (text, mentioned) in [
            ("insert into orders values (1)", true),
            ("UPDATE `Orders` SET a = 1", true),
            ("LOAD DATA INFILE 'x' INTO TABLE shop.orders", true),
            ("insert into other values ('order')", false),
            ("call archive()", false),
        ] {
            assert_eq!(Statement::recognise(text), Statement::Other, "{text}");
            assert_eq!(Words::of(text, "shop").mention("shop", "orders"), mentioned, "{text}");
        }
        assert!(!Words::of("insert into orders values (1)", "archive").mention("shop", "orders"));
        assert!(Words::of("insert into shop.orders values (1)", "archive").mention("shop", "orders"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}") {
            let _ = Statement::recognise(&text);
            let _ = Words::of(&text, "a").mention("a", "b");
        }

        #[test]
        fn any_quoting_is_read_without_a_panic(text in "(TRUNCATE|ALTER TABLE|DROP TABLE|`|'|\"|/\\*|\\*/|\\\\|--|\\.| |é|a){0,20}") {
            let _ = Statement::recognise(&text);
        }
    }
}
