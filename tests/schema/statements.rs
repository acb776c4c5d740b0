//! The kinds of DDL, a table each: how it begins, the statement, and what is written afterwards.

use crate::support::source::Kind;

/// One kind of DDL. `{t}` is the table.
pub struct Ddl {
    pub name: &'static str,
    /// Columns after `id INT PRIMARY KEY`, `v INT`.
    pub columns: &'static str,
    /// Values of these for ids 1 to 3; ids 4 to 6 take them in another order.
    pub values: [&'static str; 3],
    /// Statements separated by `;`.
    pub ddl: &'static str,
    /// DML after it.
    pub after: &'static str,
}

const fn ddl(
    name: &'static str,
    columns: &'static str,
    values: [&'static str; 3],
    ddl: &'static str,
    after: &'static str,
) -> Ddl {
    Ddl { name, columns, values, ddl, after }
}

const MYSQL: &[Ddl] = &[
    ddl("add_null", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} ADD n VARCHAR(20)", "INSERT INTO {t} (id, n) VALUES (10, 'n')"),
    ddl(
        "add_default",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} ADD n INT NOT NULL DEFAULT 7 AFTER id",
        "INSERT INTO {t} (id) VALUES (10); UPDATE {t} SET n = 8 WHERE id = 2",
    ),
    ddl(
        "add_defaults",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} ADD s VARCHAR(20) DEFAULT '예약 🍣', ADD d DECIMAL(12,3) NOT NULL DEFAULT 1.5, ADD t DATETIME(3) DEFAULT '2024-02-29 12:13:14.5',
            ADD e ENUM('x','y') NOT NULL, ADD b BIGINT UNSIGNED DEFAULT 18446744073709551615, ADD f DOUBLE DEFAULT 0.1, ADD y VARBINARY(3) DEFAULT 'ab'",
        "INSERT INTO {t} (id, e) VALUES (10, 'y'); UPDATE {t} SET s = NULL WHERE id = 3",
    ),
    ddl("drop_last", "a INT, b INT", ["1, 2", "3, 4", "5, NULL"], "ALTER TABLE {t} DROP b", "INSERT INTO {t} (id, a) VALUES (10, 9)"),
    ddl("drop_first", "a INT, b INT", ["1, 2", "3, 4", "5, NULL"], "ALTER TABLE {t} DROP v", "INSERT INTO {t} (id, a) VALUES (10, 9)"),
    ddl(
        "drop_and_add_the_same",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} DROP a; ALTER TABLE {t} ADD a VARCHAR(10) DEFAULT 'new'",
        "INSERT INTO {t} (id) VALUES (10)",
    ),
    ddl(
        "rename_one",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} RENAME COLUMN a TO b",
        "INSERT INTO {t} (id, b) VALUES (10, 5); UPDATE {t} SET b = 6 WHERE id = 1",
    ),
    ddl(
        "rename_swapped",
        "a INT, b INT",
        ["1, 2", "3, 4", "5, NULL"],
        "ALTER TABLE {t} CHANGE a b INT, CHANGE b a INT",
        "INSERT INTO {t} (id, a, b) VALUES (10, 5, 6)",
    ),
    ddl("rename_key", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} CHANGE id no INT NOT NULL", "INSERT INTO {t} (no, a) VALUES (10, 5); DELETE FROM {t} WHERE no = 1"),
    ddl(
        "widen_int",
        "a SMALLINT",
        ["-32768", "32767", "NULL"],
        "ALTER TABLE {t} MODIFY a INT; ALTER TABLE {t} MODIFY a BIGINT",
        "INSERT INTO {t} (id, a) VALUES (10, 5000000000)",
    ),
    ddl("widen_key", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} MODIFY id BIGINT", "INSERT INTO {t} (id, a) VALUES (5000000000, 1); UPDATE {t} SET a = 3 WHERE id = 1; DELETE FROM {t} WHERE id = 2"),
    ddl("widen_float", "a FLOAT", ["0.1", "-3.5", "NULL"], "ALTER TABLE {t} MODIFY a DOUBLE", "INSERT INTO {t} (id, a) VALUES (10, 0.1)"),
    ddl(
        "widen_decimal",
        "a DECIMAL(8,2)",
        ["-999999.99", "0.01", "NULL"],
        "ALTER TABLE {t} MODIFY a DECIMAL(12,2); ALTER TABLE {t} MODIFY a DECIMAL(20,6)",
        "INSERT INTO {t} (id, a) VALUES (10, 12345678901234.123456)",
    ),
    ddl("widen_varchar", "a VARCHAR(5)", ["'a'", "'예약'", "NULL"], "ALTER TABLE {t} MODIFY a VARCHAR(300)", "INSERT INTO {t} (id, a) VALUES (10, REPEAT('x', 300))"),
    ddl("enum_label", "a ENUM('x','y')", ["'x'", "'y'", "NULL"], "ALTER TABLE {t} MODIFY a ENUM('x','y','z')", "INSERT INTO {t} (id, a) VALUES (10, 'z')"),
    ddl("reorder", "a INT, b INT", ["1, 2", "3, 4", "5, NULL"], "ALTER TABLE {t} MODIFY b INT FIRST, MODIFY v INT AFTER a", "INSERT INTO {t} (id, a, b) VALUES (10, 5, 6)"),
    ddl(
        "all_at_once",
        "a SMALLINT, b VARCHAR(5), c INT",
        ["1, 'b', 2", "3, '', 4", "NULL, NULL, NULL"],
        "ALTER TABLE {t} DROP v, CHANGE a aa BIGINT, MODIFY b VARCHAR(50) FIRST, ADD d INT DEFAULT 4, RENAME COLUMN c TO cc",
        "INSERT INTO {t} (id, aa, b, d, cc) VALUES (10, 5, 'x', 6, 7)",
    ),
    ddl("truncate_and_add", "a INT", ["1", "2", "NULL"], "TRUNCATE {t}; ALTER TABLE {t} ADD b INT DEFAULT 3", "INSERT INTO {t} (id, a) VALUES (10, 5)"),
];

const POSTGRES: &[Ddl] = &[
    ddl("add_null", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} ADD n VARCHAR(20)", "INSERT INTO {t} (id, n) VALUES (10, 'n')"),
    ddl(
        "add_default",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} ADD n INT NOT NULL DEFAULT 7",
        "INSERT INTO {t} (id) VALUES (10); UPDATE {t} SET n = 8 WHERE id = 2",
    ),
    ddl(
        "add_defaults",
        "a INT",
        ["1", "2", "NULL"],
        "ALTER TABLE {t} ADD s TEXT DEFAULT '예약 🍣', ADD d NUMERIC(12,3) NOT NULL DEFAULT 1.5, ADD t TIMESTAMPTZ DEFAULT '2024-02-29 12:13:14.5+09',
            ADD u UUID DEFAULT '12345678-2e1b-11eb-9a9d-0242ac130000', ADD f FLOAT8 DEFAULT 0.1, ADD y BYTEA DEFAULT '\\xff00', ADD l TEXT[] DEFAULT '{a,b}',
            ADD w TIMESTAMPTZ DEFAULT now(), ADD k BOOL DEFAULT true, ADD j JSONB DEFAULT '{\"a\": 1}'",
        "INSERT INTO {t} (id) VALUES (10); UPDATE {t} SET s = NULL WHERE id = 3",
    ),
    ddl("drop_last", "a INT, b INT", ["1, 2", "3, 4", "5, NULL"], "ALTER TABLE {t} DROP b", "INSERT INTO {t} (id, a) VALUES (10, 9)"),
    ddl("drop_first", "a INT, b INT", ["1, 2", "3, 4", "5, NULL"], "ALTER TABLE {t} DROP v", "INSERT INTO {t} (id, a) VALUES (10, 9)"),
    ddl("rename_one", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} RENAME a TO b", "INSERT INTO {t} (id, b) VALUES (10, 5); UPDATE {t} SET b = 6 WHERE id = 1"),
    ddl("rename_key", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} RENAME id TO no", "INSERT INTO {t} (no, a) VALUES (10, 5); DELETE FROM {t} WHERE no = 1"),
    ddl("widen_int", "a SMALLINT", ["-32768", "32767", "NULL"], "ALTER TABLE {t} ALTER a TYPE BIGINT", "INSERT INTO {t} (id, a) VALUES (10, 5000000000)"),
    ddl("widen_key", "a INT", ["1", "2", "NULL"], "ALTER TABLE {t} ALTER id TYPE BIGINT", "INSERT INTO {t} (id, a) VALUES (5000000000, 1); UPDATE {t} SET a = 3 WHERE id = 1; DELETE FROM {t} WHERE id = 2"),
    ddl("widen_float", "a REAL", ["0.1", "-3.5", "NULL"], "ALTER TABLE {t} ALTER a TYPE DOUBLE PRECISION", "INSERT INTO {t} (id, a) VALUES (10, 0.1)"),
    ddl("widen_numeric", "a NUMERIC(8,2)", ["-999999.99", "0.01", "NULL"], "ALTER TABLE {t} ALTER a TYPE NUMERIC(12,2)", "INSERT INTO {t} (id, a) VALUES (10, 1234567890.12)"),
    ddl("widen_varchar", "a VARCHAR(5)", ["'a'", "'예약'", "NULL"], "ALTER TABLE {t} ALTER a TYPE VARCHAR(300)", "INSERT INTO {t} (id, a) VALUES (10, repeat('x', 300))"),
    ddl(
        "all_at_once",
        "a SMALLINT, b VARCHAR(5), c INT",
        ["1, 'b', 2", "3, '', 4", "NULL, NULL, NULL"],
        "ALTER TABLE {t} DROP v, ALTER b TYPE VARCHAR(50), ADD d INT DEFAULT 4",
        "INSERT INTO {t} (id, a, b, c, d) VALUES (10, 5, 'x', 6, 7)",
    ),
];

/// Those of a server.
pub fn of(kind: Kind) -> &'static [Ddl] {
    match kind {
        Kind::MariaDb | Kind::MySql => MYSQL,
        Kind::Postgres => POSTGRES,
    }
}

impl Ddl {
    /// Creates the table and its first rows.
    pub fn create(&self, table: &str) -> String {
        format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT, {}); {}", self.columns, self.insert(table, 0))
    }

    /// Three more rows, with ids from `3 * round + 1`; and something happens to earlier ones.
    pub fn before(&self, table: &str, round: usize) -> String {
        format!(
            "{}; UPDATE {table} SET v = v + 100 WHERE id = {}; DELETE FROM {table} WHERE id = {}",
            self.insert(table, round),
            3 * round - 1,
            3 * round
        )
    }

    fn insert(&self, table: &str, round: usize) -> String {
        let rows: Vec<String> =
            (0..3).map(|row| format!("({}, {row}, {})", 3 * round + row + 1, self.values[(row + round) % 3])).collect();
        format!("INSERT INTO {table} VALUES {}", rows.join(", "))
    }

    pub fn statement(&self, table: &str) -> String {
        self.ddl.replace("{t}", table)
    }

    pub fn after(&self, table: &str) -> String {
        self.after.replace("{t}", table)
    }
}
