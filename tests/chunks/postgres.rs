//! PostgreSQL.

use std::time::Duration;

use lakeward::config::{Contract, Contracts};
use lakeward::schema::{LakeType, TableName};
use lakeward::source::postgres::PostgresSource;
use lakeward::source::{Chunk, Error, Source};

use super::support::postgres::{Bed, admin, run};
use super::{chunks_are_the_snapshot, conditions_hold, read, rows, schema, snapshot, walk};

/// Name, columns of the key, what each is for `i` from 1 to 100 (in this order).
struct Case(&'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    Case("whole", "k int", "(i - 50) * 1000"),
    Case("composite", "a text, b int8, c int2", "'t' || i / 30, i / 10, -i"),
    Case("accents", "k text COLLATE \"C\"", "(ARRAY['é','E','ß','Ö','z'])[i % 5 + 1] || i"),
    Case("ignorant", "k text COLLATE shop.ignorant", "(ARRAY['é','E','a','Ö','Z'])[i % 5 + 1] || i"),
    Case(
        "mixed",
        "a shop.citext, b int, c text COLLATE shop.ignorant",
        "(ARRAY['B','a'])[i % 2 + 1], i / 10, 'x' || i",
    ),
    Case("folded", "k shop.citext", "(ARRAY['B','a','C','d'])[i % 4 + 1] || i"),
    Case("quotes", "k varchar(50)", "(ARRAY['''','\\','\"',E'\\n','%_','🏨',' ',E'\\t'])[i % 8 + 1] || i || '\\'"),
    Case("fixed", "k char(5)", "(ARRAY['a','B'])[i % 2 + 1] || i"),
    Case("letters", "k \"char\", n int", "chr(65 + i % 26)::\"char\", i"),
    Case("names", "k name", "'n' || i"),
    Case(
        "decimals",
        "k numeric",
        "CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE (i - 50) * 123456789012345678901234567890.001 END",
    ),
    Case(
        "floats",
        "a float4, b float8",
        "(i / 10) / 10.0, CASE i WHEN 5 THEN 'NaN' WHEN 6 THEN '-Infinity' ELSE (i - 50) * 1.1e300 / 3 END",
    ),
    Case("flags", "a bool, b int", "i % 2 = 0, i"),
    Case(
        "bytes",
        "k bytea",
        "CASE i WHEN 1 THEN '' ELSE decode(lpad(to_hex(i * 2571), 8, '0'), 'hex') || '\\x00275c' END",
    ),
    Case("uuids", "k uuid", "md5(i::text)::uuid"),
    Case("dates", "k date", "CASE i WHEN 1 THEN '0001-01-01' WHEN 2 THEN '9999-12-31' ELSE '2024-01-01'::date + i END"),
    Case(
        "local",
        "k timestamp(3)",
        "CASE i WHEN 1 THEN '9999-12-31 23:59:59.999' ELSE '2024-01-01'::timestamp + i * interval '1.001 hours' END",
    ),
    Case(
        "instants",
        "k timestamptz",
        "CASE i WHEN 1 THEN '0001-01-01 00:00:00+00' WHEN 2 THEN '9999-12-31 23:59:59.999999+00' ELSE '2024-10-27'::timestamptz + i * interval '15.000001 minutes' END",
    ),
    Case("times", "k time", "'00:00'::time + i * interval '10.5 minutes'"),
    Case("zoned_times", "k timetz", "('00:00'::time + i * interval '10.5 minutes')::timetz"),
    Case("spans", "k interval", "(i - 50) * interval '1 month 2 days 00:00:03.5'"),
    Case("moods", "k shop.mood, n int", "(enum_range(NULL::shop.mood))[i % 3 + 1], i"),
    Case("codes", "k shop.code", "'code ' || i"),
    Case("bits", "k bit(9)", "i::bit(9)"),
    Case("more_bits", "k varbit", "i::bit(9)::varbit || B'0'"),
    Case("addresses", "k inet", "('10.0.' || i || '.7/' || 20 + i % 10)::inet"),
    Case("cards", "k macaddr", "('08:00:2b:01:02:' || lpad(to_hex(i), 2, '0'))::macaddr"),
    Case("ranges", "k int4range", "int4range(i, i + 5)"),
    Case("prices", "k money", "(i - 50)::money * 1000.5"),
    Case("pairs", "k shop.pair", "ROW(i / 10, 'x, \"' || i)::shop.pair"),
    Case("documents", "k jsonb", "jsonb_build_object('i', i)"),
];

const SETUP: &str = "
    CREATE EXTENSION citext SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('sad', 'Ok', 'ha''ppy');
    CREATE TYPE shop.pair AS (a int, b text);
    CREATE DOMAIN shop.code AS varchar(20) COLLATE \"C\" CHECK (VALUE LIKE 'code%');
    CREATE COLLATION shop.ignorant (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    GRANT USAGE ON SCHEMA shop TO public;";

/// S-7, P-0: the role's own settings are of another kind, see `Bed`.
#[tokio::test]
async fn chunks_hold_each_row_once_whatever_the_key_is_made_of() {
    let mut setup = SETUP.to_owned();
    for Case(name, columns, values) in CASES {
        let names: Vec<&str> = columns.split(", ").filter_map(|column| column.split(' ').next()).collect();
        setup += &format!(
            "SET search_path = shop, public;
             CREATE TABLE shop.{name} ({columns}, payload text, PRIMARY KEY ({}));
             INSERT INTO shop.{name} SELECT {values}, 'row ' || i FROM generate_series(1, 100) i;",
            names.join(", ")
        );
    }
    // Other indexes that identify rows.
    setup += "
        CREATE TABLE shop.backwards (a int NOT NULL, b text NOT NULL, PRIMARY KEY (b));
        CREATE UNIQUE INDEX backwards_key ON shop.backwards (a DESC, b text_pattern_ops);
        ALTER TABLE shop.backwards REPLICA IDENTITY USING INDEX backwards_key;
        INSERT INTO shop.backwards SELECT i / 10, 'Ä' || i FROM generate_series(1, 100) i;
        CREATE TABLE shop.patterns (k text NOT NULL COLLATE \"C\");
        CREATE UNIQUE INDEX patterns_key ON shop.patterns (k COLLATE shop.ignorant);
        ALTER TABLE shop.patterns REPLICA IDENTITY USING INDEX patterns_key;
        INSERT INTO shop.patterns SELECT (ARRAY['é','E','a'])[i % 3 + 1] || i FROM generate_series(1, 100) i;
        CREATE TABLE shop.full_row (k int PRIMARY KEY, v text);
        ALTER TABLE shop.full_row REPLICA IDENTITY FULL;
        INSERT INTO shop.full_row SELECT i, 'v' FROM generate_series(1, 100) i;
        CREATE TABLE shop.nothing (k int PRIMARY KEY);";
    let Some(bed) = Bed::new("chunks", &setup).await else { return };
    let source = bed.source();
    let tables = CASES.iter().map(|case| case.0).chain(["backwards", "patterns", "full_row", "nothing"]);
    for table in tables {
        chunks_are_the_snapshot(&source, &TableName::new("shop", table)).await;
    }
}

#[tokio::test]
async fn what_a_publication_leaves_out_is_in_no_chunk() {
    let setup = "
        CREATE TABLE shop.parted (k int, region text, v int, PRIMARY KEY (k, region)) PARTITION BY LIST (region);
        CREATE TABLE shop.parted_a PARTITION OF shop.parted FOR VALUES IN ('a');
        CREATE TABLE shop.parted_b (v int, region text NOT NULL, k int NOT NULL);
        ALTER TABLE shop.parted ATTACH PARTITION shop.parted_b FOR VALUES IN ('b');
        INSERT INTO shop.parted SELECT i, (ARRAY['a','b'])[i % 2 + 1], i * 10 FROM generate_series(1, 100) i;
        CREATE TABLE shop.partly (k int PRIMARY KEY, v int, secret text);
        INSERT INTO shop.partly SELECT i, i, 'hush' FROM generate_series(1, 100) i;
        CREATE TABLE shop.parent (k int PRIMARY KEY);
        CREATE TABLE shop.child () INHERITS (shop.parent);
        INSERT INTO shop.parent SELECT generate_series(1, 20);
        INSERT INTO shop.child SELECT generate_series(101, 120);";
    for via_root in [true, false] {
        let Some(mut bed) = Bed::new(&format!("chunks_published_{via_root}"), setup).await else { return };
        let publication = format!("theirs_{via_root}");
        bed.sql(&format!(
            "CREATE PUBLICATION {publication} FOR TABLE shop.parted, shop.partly (k, v) WHERE (k % 3 = 0 OR v < 10), \
             ONLY shop.parent WITH (publish_via_partition_root = {via_root})"
        ))
        .await;
        bed.config.publication = publication;
        let source = bed.source();
        let name = |table: &str| TableName::new("shop", table);
        chunks_are_the_snapshot(&source, &name("parted")).await;
        chunks_are_the_snapshot(&source, &name("parent")).await;
        // Bounds are found among all rows.
        let partly = schema(&source, &name("partly")).await;
        let chunks = walk(&source, &partly, 7).await;
        let mut found = Vec::new();
        for chunk in &chunks {
            found.push(read(&source, &name("partly"), chunk, Some("v <> 30")).await.expect("reads").1);
        }
        let wanted = (1..=100).filter(|k| (k % 3 == 0 || *k < 10) && *k != 30);
        let mut wanted: Vec<String> = wanted.map(|k| format!("\"{k}\"|\"{k}\"")).collect();
        wanted.sort();
        assert_eq!(rows(&found), wanted);
    }
}

#[tokio::test]
async fn rows_with_a_null_in_their_contracts_key_are_not_passed_over() {
    let setup = "
        CREATE TABLE shop.named (a int, b date, payload int);
        ALTER TABLE shop.named REPLICA IDENTITY FULL;
        INSERT INTO shop.named SELECT nullif(i / 10, 3), CASE WHEN i % 5 > 0 THEN '2024-01-01'::date + i END, i
            FROM generate_series(1, 100) i;
        CREATE TABLE shop.unordered (k json, payload int);
        ALTER TABLE shop.unordered REPLICA IDENTITY FULL;
        INSERT INTO shop.unordered SELECT json_build_object('i', i), i FROM generate_series(1, 100) i;";
    let Some(mut bed) = Bed::new("chunks_named", setup).await else { return };
    let contract = |table: &str, key: &[&str]| Contract {
        table: table.into(),
        key: key.iter().map(|&column| column.into()).collect(),
        ..Contract::default()
    };
    bed.contracts = Contracts::new(vec![contract("shop.named", &["a", "b"]), contract("shop.unordered", &["k"])]);
    let source = bed.source();
    let name = TableName::new("shop", "named");
    let chunks = walk(&source, &schema(&source, &name).await, 7).await;
    assert!(chunks.len() > 5);
    let error = read(&source, &name, &chunks[0], None).await.expect_err("a key is never NULL");
    assert!(matches!(&error, Error::Table { finding, .. } if finding.contains("NULL")), "{error}");
    for chunk in &chunks[1..] {
        read(&source, &name, chunk, None).await.expect("reads");
    }
    bed.sql("DELETE FROM shop.named WHERE a IS NULL OR b IS NULL").await;
    chunks_are_the_snapshot(&source, &name).await;

    // JSON has no order, so there is one chunk.
    let name = TableName::new("shop", "unordered");
    let known = schema(&source, &name).await;
    assert_eq!((known.key.len(), walk(&source, &known, 7).await), (1, vec![Chunk::default()]));
    let (_, batch) = read(&source, &name, &Chunk::default(), None).await.expect("reads");
    assert_eq!(rows(&[batch]), rows(&[snapshot(&source, &name).await]));
}

#[tokio::test]
async fn a_condition_is_one_condition_or_refused() {
    let setup = "
        CREATE TABLE shop.numbers (n int PRIMARY KEY, note text);
        INSERT INTO shop.numbers SELECT i, 'it''s ' || i FROM generate_series(1, 100) i;";
    let Some(bed) = Bed::new("chunks_filter", setup).await else { return };
    let unusable = [
        "n >",
        "nowhere = 1",
        "1 = 1) OR (1 = 1",
        "true; DROP TABLE shop.numbers",
        "true; SELECT 1",
        "true) TO STDOUT; DROP TABLE shop.numbers; --",
        "n = $1",
        "true LIMIT 3",
        "true UNION SELECT 1",
        "true /*",
        "1 / 0 = 1",
        "n",
        "",
    ];
    conditions_hold(&bed.source(), &TableName::new("shop", "numbers"), &unusable).await;
}

#[tokio::test]
async fn a_table_that_changes_between_bounds_and_rows_is_read_as_it_is() {
    let setup = "
        CREATE TABLE shop.goods (k int PRIMARY KEY, v int);
        INSERT INTO shop.goods SELECT i, i FROM generate_series(1, 100) i;";
    let Some(mut bed) = Bed::new("chunks_ddl", setup).await else { return };
    let source = bed.source();
    let name = TableName::new("shop", "goods");
    let names = [name.clone()];
    source.prepare(&names, None).await.expect("prepares");
    let start = source.begin_load(&names).await.expect("a beginning");
    assert_eq!(start[0].schema.columns.len(), 2);
    let before = source.next_chunk(&start[0].schema, None, 10).await.expect("a chunk");
    bed.sql("ALTER TABLE shop.goods ADD COLUMN w int NOT NULL DEFAULT 5; ALTER TABLE shop.goods RENAME COLUMN v TO x")
        .await;
    let (told, batch) = read(&source, &name, &before, None).await.expect("reads");
    let columns: Vec<&str> = told.schema.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["k", "x", "w"]);
    let mut wanted: Vec<String> = (1..=10).map(|k| format!("\"{k}\"|\"{k}\"|\"5\"")).collect();
    wanted.sort();
    assert_eq!(rows(&[batch]), wanted);

    bed.sql("ALTER TABLE shop.goods ALTER k TYPE text").await;
    let error = read(&source, &name, &before, None).await.expect_err("other bounds");
    assert!(matches!(error, Error::BoundsVoid { .. }), "{error}");
    let table = schema(&source, &name).await;
    assert_eq!(table.columns[0].lake_type, LakeType::String);
    let error = source.next_chunk(&table, before.to.as_ref(), 10).await.expect_err("other bounds");
    assert!(matches!(error, Error::BoundsVoid { .. }), "{error}");

    // A rewrite makes the table look empty to a snapshot from before it.
    let (port, database) = (bed.port, bed.database.clone());
    let altering = tokio::spawn(async move {
        let mut admin = admin(port, &database).await;
        for round in 0..40 {
            let kind = if round % 2 == 0 { "int8" } else { "int4" };
            run(&mut admin, &format!("ALTER TABLE shop.goods ALTER w TYPE {kind}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut wanted: Vec<String> = (1..=100).map(|k| format!("\"{k}\"|\"{k}\"|\"5\"")).collect();
    wanted.sort();
    let mut both = [0, 0];
    while !altering.is_finished() {
        let (told, batch) = read(&source, &name, &Chunk::default(), None).await.expect("reads");
        both[usize::from(told.schema.columns[2].lake_type == LakeType::Long)] += 1;
        assert_eq!(rows(&[batch]), wanted);
    }
    altering.await.expect("alters");
    eprintln!("read as int4 and as int8: {both:?}");
    bed.sql("DROP TABLE shop.goods").await;
    let error = read(&source, &name, &Chunk::default(), None).await.expect_err("gone");
    assert!(matches!(error, Error::Table { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_privilege_names_its_grant() {
    let Some(mut bed) = Bed::new("chunks_poor", "").await else { return };
    bed.sql(
        "DO $$ BEGIN CREATE ROLE chunkspoor LOGIN PASSWORD 'cdc'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE TABLE shop.hidden (k int PRIMARY KEY); GRANT USAGE ON SCHEMA shop TO chunkspoor",
    )
    .await;
    let mut config = bed.config.clone();
    config.user = "chunkspoor".into();
    let source = PostgresSource::new(config, Contracts::default()).expect("a source");
    let error = read(&source, &TableName::new("shop", "hidden"), &Chunk::default(), None).await.expect_err("refused");
    assert!(matches!(&error, Error::Privilege { .. }), "{error}");
    assert!(error.to_string().contains("GRANT SELECT ON \"shop\".\"hidden\" TO \"chunkspoor\""), "{error}");
}
