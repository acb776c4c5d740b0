//! A long random walk of DDL and DML, seeded and replayable: LAKEWARD_WALK_SEED, LAKEWARD_WALK_STATEMENTS (`make soak`).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::source::Kind;
use crate::{Case, FOLLOW};

/// Statements of a walk in `make test`.
const STATEMENTS: usize = 200;

/// How often source and lake are compared on the way.
const COMPARE_EVERY: usize = 50;

/// A type's name in each step of its growth, values for it, and a default.
struct Growing {
    mysql: &'static [&'static str],
    postgres: &'static [&'static str],
    values: &'static [&'static str],
    default: &'static str,
}

const TYPES: &[Growing] = &[
    Growing {
        mysql: &["TINYINT", "SMALLINT", "INT", "BIGINT"],
        postgres: &["SMALLINT", "INT", "BIGINT"],
        values: &["1", "-128", "127", "NULL"],
        default: "7",
    },
    Growing {
        mysql: &["VARCHAR(8)", "VARCHAR(40)", "VARCHAR(400)"],
        postgres: &["VARCHAR(8)", "VARCHAR(40)", "TEXT"],
        values: &["'a'", "''", "'예약'", "NULL"],
        default: "'d''x'",
    },
    Growing {
        mysql: &["DECIMAL(8,2)", "DECIMAL(12,2)", "DECIMAL(20,4)"],
        postgres: &["NUMERIC(8,2)", "NUMERIC(12,2)", "NUMERIC(20,2)"],
        values: &["1.25", "-999999.99", "0", "NULL"],
        default: "2.5",
    },
    Growing {
        mysql: &["FLOAT", "DOUBLE"],
        postgres: &["REAL", "DOUBLE PRECISION"],
        values: &["0.1", "-2.5", "NULL"],
        default: "0.25",
    },
    Growing {
        mysql: &["DATETIME(3)"],
        postgres: &["TIMESTAMP"],
        values: &["'2024-02-29 12:13:14.5'", "'1969-12-31 23:59:59'", "NULL"],
        default: "'2020-01-01 00:00:00'",
    },
    Growing {
        mysql: &["ENUM('x','y')", "ENUM('x','y','z')"],
        postgres: &["BOOLEAN"],
        values: &["'x'", "'y'", "NULL"],
        default: "'x'",
    },
];

impl Growing {
    fn steps(&self, kind: Kind) -> &'static [&'static str] {
        if kind == Kind::Postgres { self.postgres } else { self.mysql }
    }

    fn text(&self, kind: Kind, value: &str) -> String {
        // The one type whose values differ.
        if kind == Kind::Postgres && self.postgres == ["BOOLEAN"] {
            return match value {
                "'x'" => "true".to_owned(),
                "'y'" => "false".to_owned(),
                other => other.to_owned(),
            };
        }
        value.to_owned()
    }
}

struct Column {
    name: String,
    growing: &'static Growing,
    step: usize,
}

struct Walk {
    kind: Kind,
    random: StdRng,
    columns: Vec<Column>,
    names: usize,
    next_id: u32,
}

impl Walk {
    fn name(&mut self) -> String {
        self.names += 1;
        // Names come back after a while.
        format!("c{}", self.names % 12)
    }

    fn free_name(&mut self) -> String {
        loop {
            let name = self.name();
            if self.columns.iter().all(|column| column.name != name) {
                return name;
            }
        }
    }

    fn value(&mut self, column: usize) -> String {
        let growing = self.columns[column].growing;
        let value = growing.values[self.random.random_range(0..growing.values.len())];
        growing.text(self.kind, value)
    }

    /// One clause of an ALTER that touches no column twice.
    fn alter(&mut self) -> String {
        let postgres = self.kind == Kind::Postgres;
        let column = (!self.columns.is_empty()).then(|| self.random.random_range(0..self.columns.len()));
        match (self.random.random_range(0..10), column) {
            (4..=5, Some(index)) if self.columns.len() > 2 => {
                format!("DROP COLUMN {}", self.columns.remove(index).name)
            }
            (6..=7, Some(index)) => {
                let to = self.free_name();
                let from = std::mem::replace(&mut self.columns[index].name, to.clone());
                format!("RENAME COLUMN {from} TO {to}")
            }
            (8..=9, Some(index))
                if self.columns[index].step + 1 < self.columns[index].growing.steps(self.kind).len() =>
            {
                let column = &mut self.columns[index];
                column.step += 1;
                let declared = column.growing.steps(self.kind)[column.step];
                if postgres {
                    format!("ALTER COLUMN {} TYPE {declared}", column.name)
                } else {
                    format!("MODIFY {} {declared}", column.name)
                }
            }
            _ if self.columns.len() < 9 => {
                let name = self.free_name();
                let growing = &TYPES[self.random.random_range(0..TYPES.len())];
                let step = self.random.random_range(0..growing.steps(self.kind).len());
                let declared = growing.steps(self.kind)[step];
                let default = growing.text(self.kind, growing.default);
                let rest = match self.random.random_range(0..3) {
                    0 => String::new(),
                    // NULL is among the values that come later, and only PostgreSQL minds.
                    2 if !postgres => format!(" NOT NULL DEFAULT {default}"),
                    _ => format!(" DEFAULT {default}"),
                };
                let place = if !postgres && self.random.random_bool(0.3) { " FIRST" } else { "" };
                self.columns.push(Column { name: name.clone(), growing, step });
                format!("ADD COLUMN {name} {declared}{rest}{place}")
            }
            _ => String::new(),
        }
    }

    fn statement(&mut self) -> String {
        match self.random.random_range(0..20) {
            0..=5 => {
                let clause = self.alter();
                if clause.is_empty() { self.insert() } else { format!("ALTER TABLE t {clause}") }
            }
            6..=12 => self.insert(),
            13..=16 if !self.columns.is_empty() => {
                let column = self.random.random_range(0..self.columns.len());
                let value = self.value(column);
                let (modulus, rest) = (self.random.random_range(2..9), self.random.random_range(0..2));
                format!("UPDATE t SET {} = {value} WHERE id % {modulus} = {rest}", self.columns[column].name)
            }
            17 => {
                let id = self.random.random_range(0..self.next_id.max(1));
                self.next_id += 1;
                format!("UPDATE t SET id = {} WHERE id = {id}", self.next_id)
            }
            18 if self.random.random_bool(0.1) => "TRUNCATE TABLE t".to_owned(),
            _ => {
                let (modulus, rest) = (self.random.random_range(5..30), self.random.random_range(0..5));
                format!("DELETE FROM t WHERE id % {modulus} = {rest}")
            }
        }
    }

    fn insert(&mut self) -> String {
        let count = self.random.random_range(1..20);
        let names: Vec<String> = self.columns.iter().map(|column| format!(", {}", column.name)).collect();
        let rows: Vec<String> = (0..count)
            .map(|_| {
                self.next_id += 1;
                let id = self.next_id;
                let values: Vec<String> =
                    (0..self.columns.len()).map(|column| format!(", {}", self.value(column))).collect();
                format!("({id}{})", values.concat())
            })
            .collect();
        format!("INSERT INTO t (id{}) VALUES {}", names.concat(), rows.join(", "))
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn walk(kind: Kind) {
    let Some(mut case) = Case::start(kind, "walk", FOLLOW).await else { return };
    let seed = number("LAKEWARD_WALK_SEED", 20_261_129) as u64;
    let statements = number("LAKEWARD_WALK_STATEMENTS", STATEMENTS);
    println!("walk on {}: LAKEWARD_WALK_SEED={seed} LAKEWARD_WALK_STATEMENTS={statements}", kind.word());
    if kind != Kind::Postgres {
        // A NULL for a NOT NULL column is its zero, as the walk does not keep track of it.
        case.session.run("SET SESSION sql_mode = ''").await;
    }
    if kind == Kind::Postgres {
        // Without it, statements that nobody read in time can't always be told apart, and the table stops, rightly.
        case.database.admin().await.run(lakeward::source::postgres::EVENT_TRIGGER).await;
    }
    case.session.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    let mut walk = Walk { kind, random: StdRng::seed_from_u64(seed), columns: Vec::new(), names: 0, next_id: 0 };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    let mut done = Vec::new();
    for number in 1..=statements {
        let statement = walk.statement();
        done.push(statement.clone());
        // Rows that a NOT NULL column refuses are refused alike in the lake: nothing of them is in the log.
        if let Err(error) = case.session.try_run(&statement).await
            && statement.starts_with("ALTER")
        {
            panic!("seed {seed}, statement {number}: {statement}: {error}");
        }
        if number % COMPARE_EVERY == 0 || number == statements {
            // Killed, so that restarts in the middle of everything are part of the walk.
            daemon.kill();
            case.lakeward.catch_up();
            let lake = case.lake().display().to_string();
            let table = case.database.table("t");
            if let Some(differences) = case.oracle.differences(&case.database.oracle_url(), &lake, &[&table]) {
                let last = done[done.len().saturating_sub(COMPARE_EVERY)..].join(";\n");
                panic!("seed {seed}, after statement {number}: {differences}\n{last}");
            }
            case.assert_equal(&["t"]);
            daemon = case.lakeward.start();
            daemon.wait_for_log("streaming");
        }
    }
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_walk_ends_equal_mariadb() {
    walk(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_walk_ends_equal_mysql() {
    walk(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_walk_ends_equal_postgres() {
    walk(Kind::Postgres).await;
}
