//! PostgreSQL as a source, on a real server; see `support::postgres`.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{concat_batches, sort_to_indices, take};
use arrow::datatypes::{Decimal128Type, Int64Type};
use lakeward::config::{Contract, Contracts, Secret, TableSelection, WithoutKey};
use lakeward::schema::{LakeType, Op, RowIdentity, Step, TableName, TableRows, TableSchema};
use lakeward::source::postgres::PostgresSource;
use lakeward::source::{Error, Event, Position, ProblemKind, Source};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use support::postgres::{Bed, PATIENCE, Stream, admin, cell, rows_of, run, snapshot, told};

fn by_id(batch: &RecordBatch) -> RecordBatch {
    let order = sort_to_indices(batch.column(0), None, None).expect("sortable");
    let columns = batch.columns().iter().map(|column| take(column, &order, None).expect("in range")).collect();
    RecordBatch::try_new(batch.schema(), columns).expect("same schema")
}

/// Every supported type, and edge values of it. `id` is the key.
const TYPES: &str = r#"
    CREATE EXTENSION IF NOT EXISTS citext;
    CREATE EXTENSION IF NOT EXISTS hstore;
    CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'ha"ppy, very');
    CREATE TYPE shop.point3 AS (x int, y float8, label text);
    CREATE DOMAIN shop.price AS numeric(12,2) CHECK (VALUE >= 0);
    CREATE DOMAIN shop.discounted AS shop.price;
    CREATE DOMAIN shop.code AS varchar(20);
    CREATE TABLE shop.types_a (
        id int8 PRIMARY KEY,
        c_bool bool, c_int2 int2, c_int4 int4, c_int8 int8, c_oid oid,
        c_float4 float4, c_float8 float8,
        c_decimal numeric(12,4), c_decimal38 numeric(38,10), c_hundreds numeric(5,-2), c_tiny numeric(2,5),
        c_numeric numeric, c_wide numeric(50,5), c_money money,
        c_text text, c_varchar varchar(40), c_char char(5), c_onechar "char", c_name name, c_citext citext,
        c_bytea bytea, c_date date, c_timestamp timestamp, c_timestamp3 timestamp(3), c_timestamptz timestamptz,
        c_time time, c_timetz timetz, c_interval interval, c_uuid uuid, c_json json, c_jsonb jsonb,
        c_mood shop.mood, c_price shop.price, c_discounted shop.discounted, c_code shop.code,
        c_int_array int[], c_text_array text[], c_float_array float8[], c_ts_array timestamptz[],
        c_range int4range, c_multirange tstzmultirange, c_bit bit(5), c_varbit varbit,
        c_inet inet, c_cidr cidr, c_macaddr macaddr, c_composite shop.point3, c_hstore hstore,
        c_point point, c_xml xml, c_tsvector tsvector, c_lsn pg_lsn, c_class regclass, c_bytea_array bytea[],
        "odd "" name, with; all" text,
        c_generated int8 GENERATED ALWAYS AS (id * 2) STORED
    );
    INSERT INTO shop.types_a VALUES
    (1, true, 32767, 2147483647, 9223372036854775807, 4294967295,
        'NaN', 'Infinity', 12345678.1234, 1234567890123456789012345678.0123456789, 1234500, 0.00012,
        123456789.000100, 123456789012345678901234567890.12345, '$1,234.56',
        E'tab\t newline\n return\r backslash\\ quote\' nul-ish \\N é 日本 🏨', 'plain', 'ab', 'x', 'a name', 'CiText',
        '\x00ff10275c', '2024-02-29', '2024-02-03 13:05:06.123456', '2024-02-03 13:05:06.789', '2024-02-03 13:05:06.5+09',
        '24:00:00', '12:00:00.5+05:30', '1 year 2 mons -3 days +04:05:06.789', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
        '{"a": 1, "a":  2, "t": "x\ny"}', '{"b": [1, null, "\u00e9"], "a": 1.50}',
        'ha"ppy, very', 10.5, 7.25, 'code 1',
        '{1,NULL,3}', '{"null",NULL,"a,b","q\"uote","back\\slash",""}', '{0.1,NaN,-0}', '{"2024-02-03 13:05:06+09"}',
        '[1,5]', '{["2024-01-01 00:00+00","2024-02-01 00:00+00")}', B'10101', B'1',
        '10.0.0.1/32', '10.0.0.0/8', '08:00:2b:01:02:03', '(1,2.5,"x, ""y""")', '"a"=>"1","b"=>NULL',
        '(1.5,-2)', '<a>é &amp;</a>', 'fat & cat'::text::tsvector, '16/B374D848', 'pg_class', '{"\\x00ff",NULL}', 'odd'),
    (2, false, -32768, -2147483648, -9223372036854775808, 0,
        '-Infinity', '-0', -99999999.9999, -9999999999999999999999999999.9999999999, -9999900, -0.00099,
        'NaN', 'NaN', '-$92,233,720,368,547,758.08',
        '', '', '', '', '', '', '', '0001-01-01', '0001-01-01 00:00:00', '9999-12-31 23:59:59.999', '0001-01-01 00:00:00+00',
        '00:00:00', '00:00:00-15:59', '-1 sec', '00000000-0000-0000-0000-000000000000', 'null', '"\\N"',
        'sad', 0, 0, '',
        '{}', '{{a,b},{c,d}}', '{}', '{}', 'empty', '{}', B'00000', B'',
        '::1', '::/0', '00:00:00:00:00:00', '(,,)', '', '(0,0)', '<a/>', '', '0/0', NULL, '{}', ''),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (4, true, 0, 0, 0, 1, 3.4028235e38, 1.7976931348623157e308, 'NaN', 'NaN', 0, 0, -0.00, 0.00001, 0,
        repeat('長', 3000), repeat('x', 40), 'abcde', 'z', repeat('n', 63), 'ÄÖ', decode(repeat('ab00', 5000), 'hex'),
        'infinity', '-infinity', 'infinity', 'infinity', '23:59:59.999999', '23:59:59.999999+00', '0', gen_random_uuid(),
        '[]', '{}', 'ok', 9999999999.99, 1, 'x', '[0:1]={1,NULL}', '{NULL}', '{Infinity}', '{infinity}', '(,)',
        '{(,)}', B'11111', B'0101010101010101', '1.2.3.4/24', '1.2.3.0/24', 'ff:ff:ff:ff:ff:ff',
        '(-1,1e-300,)', 'k=>"v\"v"', '(1e300,0)', NULL, 'a:1A b:2', 'FFFFFFFF/FFFFFFFF', NULL, NULL, 't'),
    (5, NULL, 1, 1, 1, 1, 1e-45, 5e-324, 0.0001, 0.0000000001, 100, 0.00001, '-Infinity', 1e40, '$0.01',
        E'\b\f\v', ' lead', ' a', '\', ' s ', 'ß', '\x5c6e', '4713-01-01 BC', '0044-03-15 12:00:00 BC', '0044-03-15 12:00:00 BC',
        '4713-01-01 00:00:00+00 BC', '12:34:56.7', '12:34:56.7-08', '178000000 years', gen_random_uuid(),
        '1', '1', 'ok', 1, 2, '\', '{{1,2},{3,4}}', '{"\\N"}', '{1e-300}', NULL, '[3,3]', NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, E'\\.'),
    (6, NULL, 1, 1, 1, 1, 0.1, 0.30000000000000004, 1, 1, 1, 0, 1, 1, 1, 'x', 'x', 'x', 'x', 'x', 'x', 'x',
        '5874897-12-31', '294276-12-31 23:59:59.999999', '10000-01-01', '294276-12-31 23:59:59.999999+00', '1:02', '1:02+00',
        '1 day', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE shop.types_b (LIKE shop.types_a INCLUDING ALL);
    -- PostgreSQL 18 refuses updates of a table whose identity holds a generated column.
    ALTER TABLE shop.types_b DROP c_generated;
    ALTER TABLE shop.types_b REPLICA IDENTITY FULL;
"#;

/// T-0, P-0 to P-16.
#[tokio::test]
async fn streamed_values_equal_snapshot_values_for_every_type_whatever_the_role_has_set() {
    let Some(mut bed) = Bed::new("types", TYPES).await else { return };
    let (from, tables) = bed.load().await;
    let name = |table: &str| TableName::new("shop", table);
    let loaded = &tables[&name("types_a")];
    assert_eq!(loaded.rows.num_rows(), 6);
    let expected = by_id(&loaded.rows);
    let mut stream = bed.stream(&from, &tables).await;

    for (statement, op) in [
        ("INSERT INTO shop.types_b SELECT (a).* FROM shop.types_a a", Op::Insert),
        ("UPDATE shop.types_b SET id = id", Op::Update),
        ("DELETE FROM shop.types_b", Op::Delete),
    ] {
        let statement = statement.replace("SELECT (a).*", &format!("SELECT {}", plain_columns(&loaded.schema)));
        let statement = if op == Op::Insert {
            statement.replace("types_b SELECT", &format!("types_b ({}) SELECT", plain_columns(&loaded.schema)))
        } else {
            statement
        };
        bed.sql(&statement).await;
        let (events, _) = stream.caught_up().await;
        let rows: Vec<&TableRows> = rows_of(&events);
        assert!(rows.iter().all(|rows| rows.ops.iter().all(|found| *found == op)), "{op:?}");
        assert!(rows.iter().all(|rows| rows.unchanged.is_empty()), "the old image of FULL has what is unchanged");
        let batches: Vec<&RecordBatch> = rows.iter().map(|rows| &rows.rows).collect();
        let streamed = by_id(&concat_batches(&expected.schema(), batches).expect("one schema"));
        for (index, field) in expected.schema().fields().iter().enumerate() {
            assert_eq!(streamed.column(index), expected.column(index), "{op:?}, column {}", field.name());
        }
    }
    stream.end().await.expect("ends well");

    // What a person expects to see, in a few places where both ways could be wrong alike.
    let column = |name: &str| expected.column_by_name(name).unwrap_or_else(|| panic!("column {name}")).clone();
    let text = |name: &str, row: usize| column(name).as_string::<i32>().value(row).to_owned();
    let lake = |name: &str| loaded.schema.columns[loaded.schema.column_index(name).expect("there")].lake_type;
    assert!(loaded.schema.column_index("c_generated").is_none(), "P-16");
    assert_eq!(loaded.schema.columns[1].source_type, "boolean");
    assert_eq!(text("c_text", 0), "tab\t newline\n return\r backslash\\ quote' nul-ish \\N é 日本 🏨");
    assert_eq!(text("c_char", 0), "ab   ", "P-7");
    assert_eq!(text("c_interval", 0), "P1Y2M-3DT4H5M6.789S", "P-6");
    assert_eq!(text("c_uuid", 0), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "P-7");
    assert_eq!(text("c_json", 0), "{\"a\": 1, \"a\":  2, \"t\": \"x\\ny\"}", "P-10");
    assert_eq!(text("c_timetz", 0), "12:00:00.5+05:30", "P-5");
    assert_eq!(text("c_numeric", 0), "123456789.000100", "P-3");
    assert_eq!(text("c_numeric", 1), "NaN", "P-3");
    assert_eq!(cell(&column("c_int_array"), 0), "[1, , 3]", "P-11");
    assert!(column("c_int_array").is_null(3) && column("c_text_array").is_null(1), "P-11: other shapes");
    assert_eq!(text("c_range", 0), "[1,6)", "P-12");
    assert_eq!(text("c_mood", 0), "ha\"ppy, very", "P-13");
    assert_eq!(text("c_class", 0), "pg_class");
    assert_eq!(cell(&column("c_ts_array"), 0), "[2024-02-03T04:05:06Z]", "P-0");
    assert_eq!(cell(&column("c_bytea_array"), 0), "[00ff, ]", "P-0");
    assert_eq!(text("odd \" name, with; all", 4), "\\.");
    assert_eq!(cell(&column("c_timestamptz"), 0), "2024-02-03T04:05:06.500Z", "P-0");
    assert_eq!(column("c_hundreds").as_primitive::<Decimal128Type>().value(0), 1_234_500, "P-2");
    assert_eq!(column("c_money").as_primitive::<Decimal128Type>().value(0), 123_456, "P-9");
    assert_eq!(column("c_time").as_primitive::<Int64Type>().value(0), 86_400_000_000, "P-5");
    assert_eq!(lake("c_discounted"), LakeType::Decimal { precision: 12, scale: 2 }, "P-14");
    assert_eq!(lake("c_tiny"), LakeType::Decimal { precision: 5, scale: 5 }, "P-2");
    assert_eq!(lake("c_wide"), LakeType::String, "P-3");
    assert!(column("c_decimal").is_null(3), "P-3");
    for (name, row) in [("c_date", 3), ("c_timestamp", 4), ("c_timestamptz", 5), ("c_timestamp3", 5)] {
        assert!(column(name).is_null(row), "P-4 {name}");
    }
}

fn plain_columns(schema: &TableSchema) -> String {
    let quoted: Vec<String> =
        schema.columns.iter().map(|column| format!("\"{}\"", column.name.replace('"', "\"\""))).collect();
    quoted.join(", ")
}

/// X-1, X-3, X-4, X-7, K-2
#[tokio::test]
async fn changes_arrive_in_commit_order_and_only_if_committed() {
    let setup = "CREATE TABLE shop.points (id int8 PRIMARY KEY, amount int4, note text);
        CREATE TABLE shop.other (id int8 PRIMARY KEY);
        INSERT INTO shop.points VALUES (1, 10, 'a'), (2, 20, 'b');";
    let Some(mut bed) = Bed::new("changes", setup).await else { return };
    let (from, tables) = bed.load().await;
    assert_eq!(tables[&TableName::new("shop", "points")].rows.num_rows(), 2);
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql("INSERT INTO shop.points VALUES (3, 30, NULL)").await;
    bed.sql("UPDATE shop.points SET amount = 11 WHERE id = 1").await;
    bed.sql("UPDATE shop.points SET id = 9 WHERE id = 2").await;
    bed.sql("DELETE FROM shop.points WHERE id = 3").await;
    bed.sql("BEGIN; INSERT INTO shop.points VALUES (4, 40, 'rolled back'); ROLLBACK").await;
    bed.sql(
        "BEGIN; INSERT INTO shop.points VALUES (5, 50, 'kept'); SAVEPOINT s;
        INSERT INTO shop.points VALUES (6, 60, 'undone'); ROLLBACK TO s; INSERT INTO shop.other VALUES (1); COMMIT",
    )
    .await;
    bed.sql("SELECT pg_logical_emit_message(true, 'x', 'y'); SELECT pg_logical_emit_message(false, 'x', 'y')").await;
    bed.sql("BEGIN; TRUNCATE shop.points, shop.other; INSERT INTO shop.points VALUES (7, 70, 'after'); COMMIT").await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(
        told(&events, "shop.points"),
        [
            "Insert: 3 | 30 | -",
            "Update: 1 | 11 | a",
            "UpdateOldKey: 2 | - | -",
            "UpdateNewKey: 9 | 20 | b",
            "Delete: 3 | - | -",
            "Insert: 5 | 50 | kept",
            "Truncate",
            "Insert: 7 | 70 | after",
        ]
    );
    assert_eq!(told(&events, "shop.other"), ["Insert: 1", "Truncate"]);
    let transactions: u64 = events
        .iter()
        .map(|event| if let Event::Boundary { transactions, .. } = event { *transactions } else { 0 })
        .sum();
    assert!((6..=7).contains(&transactions), "{transactions}");
    stream.end().await.expect("ends well");
}

/// P-22
#[tokio::test]
async fn unchanged_toast_values_are_named_not_invented() {
    let setup = "CREATE TABLE shop.docs (id int8 PRIMARY KEY, body text, n int4);
        CREATE TABLE shop.whole (id int8 PRIMARY KEY, body text, n int4);
        CREATE TABLE shop.longkey (id text PRIMARY KEY, n int4);
        ALTER TABLE shop.docs ALTER body SET STORAGE EXTERNAL;
        ALTER TABLE shop.whole ALTER body SET STORAGE EXTERNAL;
        ALTER TABLE shop.longkey ALTER id SET STORAGE EXTERNAL;
        ALTER TABLE shop.whole REPLICA IDENTITY FULL;
        INSERT INTO shop.docs VALUES (1, repeat('x', 10000), 1);
        INSERT INTO shop.whole VALUES (1, repeat('y', 10000), 1);
        INSERT INTO shop.longkey VALUES (repeat('k', 2500), 1);";
    let Some(mut bed) = Bed::new("toast", setup).await else { return };
    let (from, tables) = bed.load().await;
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql("UPDATE shop.docs SET n = 2; UPDATE shop.whole SET n = 2; UPDATE shop.longkey SET n = 2").await;
    bed.sql("UPDATE shop.docs SET id = 5; UPDATE shop.whole SET id = 5").await;
    bed.sql("UPDATE shop.docs SET body = 'short'").await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(
        told(&events, "shop.docs"),
        [
            "Update: 1 | unchanged | 2",
            "UpdateOldKey: 1 | - | -",
            "UpdateNewKey: 5 | unchanged | 2",
            "Update: 5 | short | 2",
        ]
    );
    assert_eq!(
        told(&events, "shop.whole"),
        [
            "Update: 1 | 10000 characters | 2",
            "UpdateOldKey: 1 | 10000 characters | 2",
            "UpdateNewKey: 5 | 10000 characters | 2",
        ]
    );
    assert_eq!(told(&events, "shop.longkey"), ["Update: 2500 characters | 2"]);
    stream.end().await.expect("ends well");
}

/// P-20: with USING INDEX the index is the merge key, and an update of the primary key is none of the key.
#[tokio::test]
async fn the_merge_key_is_the_replica_identity() {
    let setup = "CREATE TABLE shop.byindex (id int8 PRIMARY KEY, code text NOT NULL, n int4);
        CREATE UNIQUE INDEX byindex_code ON shop.byindex (code);
        ALTER TABLE shop.byindex REPLICA IDENTITY USING INDEX byindex_code;
        CREATE TABLE shop.contracted (a int4, b int4, secret text);
        ALTER TABLE shop.contracted REPLICA IDENTITY FULL;
        CREATE TABLE shop.nokey (a int4);
        CREATE TABLE shop.generated (id int8 PRIMARY KEY, a int4, twice int4 GENERATED ALWAYS AS (a * 2) STORED);
        CREATE TABLE shop.generated_key (id int8, g int8 GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, g));
        CREATE TABLE shop.generated_full (LIKE shop.generated INCLUDING ALL);
        ALTER TABLE shop.generated_full REPLICA IDENTITY FULL;
        INSERT INTO shop.generated (id, a) VALUES (1, 1); INSERT INTO shop.generated_full (id, a) VALUES (1, 1);
        INSERT INTO shop.byindex VALUES (1, 'x', 1); INSERT INTO shop.contracted VALUES (1, 1, 's');";
    let Some(mut bed) = Bed::new("identity", setup).await else { return };
    bed.contracts = Contracts::new(vec![
        Contract {
            table: "shop.contracted".into(),
            key: vec!["a".into()],
            exclude: vec!["secret".into()],
            ..Contract::default()
        },
        // P-21: no contract can give the log what it does not have.
        Contract { table: "shop.nokey".into(), key: vec!["a".into()], ..Contract::default() },
    ]);
    let source = bed.source();
    let schemas = source.discover().await.expect("discover");
    let key = |table: &str| {
        let schema = schemas.iter().find(|schema| schema.name.table == table);
        let names = |schema: &TableSchema| {
            schema.key.iter().map(|&index| schema.columns[index].name.clone()).collect::<Vec<_>>()
        };
        schema.map(names).unwrap_or_default()
    };
    assert_eq!((key("byindex"), key("contracted")), (vec!["code".into()], vec!["a".into()]));
    assert!(!schemas.iter().any(|schema| schema.name.table == "nokey"));
    let refused = source.prepare(&[TableName::new("shop", "nokey")], None).await;
    assert!(matches!(&refused, Err(Error::Table { table, .. }) if table == "shop.nokey"), "{refused:?}");
    bed.sql("UPDATE shop.nokey SET a = 1").await;

    // P-16: a generated column is not in the log, so it can't be part of the key.
    assert!(key("generated_key").is_empty());
    let refused = source.prepare(&[TableName::new("shop", "generated_key")], None).await;
    assert!(matches!(&refused, Err(Error::Table { .. })), "{refused:?}");

    let mut names = vec![
        TableName::new("shop", "byindex"),
        TableName::new("shop", "contracted"),
        TableName::new("shop", "generated"),
    ];
    // Refused from PostgreSQL 18 on, where it would break the application's updates.
    if !key("generated_full").is_empty() {
        names.push(TableName::new("shop", "generated_full"));
    }
    let from = source.prepare(&names, None).await.expect("prepare");
    let tables = snapshot(&source, &names).await.expect("snapshot");
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql("UPDATE shop.byindex SET id = 7").await;
    bed.sql("UPDATE shop.byindex SET code = 'y'").await;
    bed.sql("DELETE FROM shop.byindex").await;
    bed.sql("UPDATE shop.contracted SET b = 2; UPDATE shop.contracted SET a = 3; DELETE FROM shop.contracted").await;
    bed.sql("UPDATE shop.nokey SET a = 2").await;
    bed.sql("UPDATE shop.generated SET a = 2; UPDATE shop.generated_full SET a = 2").await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(
        told(&events, "shop.byindex"),
        ["Update: 7 | x | 1", "UpdateOldKey: - | x | -", "UpdateNewKey: 7 | y | 1", "Delete: - | y | -"]
    );
    assert_eq!(
        told(&events, "shop.contracted"),
        ["Update: 1 | 2", "UpdateOldKey: 1 | 2", "UpdateNewKey: 3 | 2", "Delete: 3 | 2"]
    );
    assert_eq!(told(&events, "shop.generated"), ["Update: 1 | 2"]);
    if names.len() == 4 {
        assert_eq!(told(&events, "shop.generated_full"), ["Update: 1 | 2"]);
    }
    stream.end().await.expect("ends well");
}

/// P-20: without any key the whole old row tells which one changed. P-22: what the new one leaves out is in the old one.
#[tokio::test]
async fn without_a_key_every_change_comes_with_the_whole_old_row() {
    let setup = "CREATE TABLE shop.bag (a int4, body text); ALTER TABLE shop.bag ALTER body SET STORAGE EXTERNAL;
        ALTER TABLE shop.bag REPLICA IDENTITY FULL;
        INSERT INTO shop.bag VALUES (1, repeat('x', 10000)), (1, repeat('x', 10000)), (NULL, NULL);";
    let Some(mut bed) = Bed::new("wholerow", setup).await else { return };
    let (from, tables) = bed.load().await;
    let loaded = &tables[&TableName::new("shop", "bag")];
    assert_eq!((loaded.schema.identity, loaded.schema.key.len()), (RowIdentity::WholeRow, 0));
    assert_eq!(loaded.rows.num_rows(), 3);
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql("UPDATE shop.bag SET a = 2 WHERE ctid = (SELECT ctid FROM shop.bag WHERE a = 1 LIMIT 1)").await;
    bed.sql("UPDATE shop.bag SET body = 'y' WHERE a IS NULL; DELETE FROM shop.bag WHERE a = 2").await;
    bed.sql("UPDATE shop.bag SET a = a WHERE a = 1").await;
    let (mut events, _) = stream.caught_up().await;
    assert_eq!(
        told(&events, "shop.bag"),
        [
            "UpdateOldKey: 1 | 10000 characters",
            "UpdateNewKey: 2 | 10000 characters",
            "UpdateOldKey: - | -",
            "UpdateNewKey: - | y",
            "Delete: 2 | 10000 characters",
            "UpdateOldKey: 1 | 10000 characters",
            "UpdateNewKey: 1 | 10000 characters",
        ]
    );
    bed.sql("ALTER TABLE shop.bag REPLICA IDENTITY NOTHING; INSERT INTO shop.bag VALUES (5, NULL)").await;
    events.extend(stream.caught_up().await.0);
    assert!(
        events.iter().any(|event| matches!(event, Event::TableStopped { error, .. }
            if error.to_string().contains("not FULL any more"))),
        "{events:?}"
    );
    stream.end().await.expect("ends well");
}

/// P-21
#[tokio::test]
async fn rows_are_only_added_where_contract_and_publication_say_so() {
    let setup = "CREATE TABLE shop.events (a int4, b text); INSERT INTO shop.events VALUES (1, 'a');
        CREATE PUBLICATION inserts FOR TABLE shop.events WITH (publish = 'insert, truncate');";
    let Some(mut bed) = Bed::new("append", setup).await else { return };
    bed.config.publication = "inserts".into();
    assert!(bed.source().discover().await.expect("discover").is_empty());
    let append = Contract { table: "shop.events".into(), without_key: WithoutKey::Append, ..Contract::default() };
    bed.contracts = Contracts::new(vec![append]);
    let problems = bed.source().preflight().await.expect("preflight");
    assert!(problems.iter().all(|problem| problem.kind == ProblemKind::Warning), "{problems:#?}");
    let (from, tables) = bed.load().await;
    assert_eq!(tables[&TableName::new("shop", "events")].schema.identity, RowIdentity::AppendOnly);
    let mut stream = bed.stream(&from, &tables).await;
    // The application is not hindered.
    bed.sql("INSERT INTO shop.events VALUES (1, 'a'); UPDATE shop.events SET b = 'changed'; TRUNCATE shop.events")
        .await;
    bed.sql("INSERT INTO shop.events VALUES (2, 'b')").await;
    let (mut events, _) = stream.caught_up().await;
    assert_eq!(told(&events, "shop.events"), ["Insert: 1 | a", "Truncate", "Insert: 2 | b"]);
    // What the contract rules out stops the table.
    bed.sql(
        "ALTER PUBLICATION inserts SET (publish = 'insert, update'); ALTER TABLE shop.events REPLICA IDENTITY FULL",
    )
    .await;
    bed.sql("UPDATE shop.events SET b = 'c'").await;
    events.extend(stream.caught_up().await.0);
    assert!(
        events.iter().any(|event| matches!(event, Event::TableStopped { error, .. }
            if error.to_string().contains("only ever added"))),
        "{events:?}"
    );
    stream.end().await.expect("ends well");
}

/// R-13, and the end of `--until-caught-up` on a database where nothing happens.
#[tokio::test]
async fn an_idle_database_moves_the_slot_and_is_caught_up_at_once() {
    let setup = "CREATE TABLE shop.quiet (id int8 PRIMARY KEY);
        CREATE TABLE public.unpublished (id int8, filler text);";
    let Some(mut bed) = Bed::new("idle", setup).await else { return };
    let (from, tables) = bed.load().await;
    // Twice, since the second start finds the slot where the log ends.
    let mut from = from;
    for _ in 0..2 {
        let mut stream = bed.stream(&from, &tables).await;
        let began = std::time::Instant::now();
        let (events, position) = stream.caught_up().await;
        assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
        assert!(rows_of(&events).is_empty());
        assert!(events.iter().any(|event| matches!(event, Event::Boundary { caught_up: true, .. })));
        stream.durable.send(position.clone()).expect("the stream listens");
        bed.confirmed_at_least(&position).await;
        // Traffic that is not published.
        bed.sql("INSERT INTO public.unpublished SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g").await;
        let (events, moved) = stream.caught_up().await;
        assert!(rows_of(&events).is_empty());
        assert!(moved.covers(&position) && moved != position);
        stream.durable.send(moved.clone()).expect("the stream listens");
        bed.confirmed_at_least(&moved).await;
        stream.end().await.expect("ends well");
        from = moved;
    }
}

impl Bed {
    /// Waits until the server may forget the log before `position`; it must never be told more than that.
    async fn confirmed_at_least(&mut self, position: &Position) {
        let Position::Lsn(wanted) = position else { panic!("an LSN") };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let confirmed = self.confirmed().await;
            assert!(confirmed <= *wanted, "acknowledged more than is durable");
            if confirmed == *wanted {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "the slot stays at {confirmed:X}, not {wanted:X}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn confirmed(&mut self) -> u64 {
        let (high, low): (String, String) = sqlx::query_as(
            "SELECT split_part(confirmed_flush_lsn::text, '/', 1), split_part(confirmed_flush_lsn::text, '/', 2)
             FROM pg_replication_slots WHERE slot_name = $1",
        )
        .bind(&self.config.slot)
        .fetch_one(&mut self.admin)
        .await
        .expect("the slot is there");
        let part = |text: &str| u64::from_str_radix(text, 16).expect("hex");
        part(&high) << 32 | part(&low)
    }

    async fn slot_is_free(&mut self) {
        for _ in 0..100 {
            let free: bool = sqlx::query_scalar("SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1")
                .bind(&self.config.slot)
                .fetch_one(&mut self.admin)
                .await
                .expect("the slot is there");
            if free {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the slot stays in use");
    }
}

/// R-11, R-12, R-14
#[tokio::test]
async fn a_slot_that_is_ahead_missing_or_taken_is_told_and_never_mended() {
    let setup = "CREATE TABLE shop.t (id int8 PRIMARY KEY);";
    let Some(mut bed) = Bed::new("slots", setup).await else { return };
    let (from, tables) = bed.load().await;
    let names: Vec<TableName> = tables.keys().cloned().collect();

    // In use.
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql("INSERT INTO shop.t VALUES (1); INSERT INTO shop.t VALUES (2)").await;
    let (events, durable) = stream.caught_up().await;
    assert_eq!(told(&events, "shop.t"), ["Insert: 1", "Insert: 2"]);
    let second = bed.stream(&from, &tables).await.refused().await;
    assert!(matches!(&second, Err(Error::SlotInUse { pid, .. }) if pid.parse::<u32>().is_ok()), "{second:?}");
    stream.end().await.expect("ends well");
    bed.slot_is_free().await;

    // Cut off by the server: worth another try, and the position is told.
    let mut stream = bed.stream(&from, &tables).await;
    stream.caught_up().await;
    bed.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'lakeward_slots'")
        .await;
    let cut = tokio::time::timeout(PATIENCE, stream.task).await.expect("ends soon").expect("no panic");
    assert!(matches!(&cut, Err(Error::Disconnected { cause, .. }) if cause.contains("terminat")), "{cut:?}");
    bed.slot_is_free().await;

    // Nothing was acknowledged: everything comes again from `from`, nothing from `durable`.
    let mut stream = bed.stream(&from, &tables).await;
    assert_eq!(told(&stream.caught_up().await.0, "shop.t"), ["Insert: 1", "Insert: 2"]);
    stream.end().await.expect("ends well");
    bed.slot_is_free().await;
    let mut stream = bed.stream(&durable, &tables).await;
    assert!(told(&stream.caught_up().await.0, "shop.t").is_empty());
    stream.end().await.expect("ends well");
    bed.slot_is_free().await;
    assert_eq!(bed.source().prepare(&names, Some(&durable)).await.ok(), Some(durable.clone()));

    // Ahead.
    bed.sql("INSERT INTO shop.t VALUES (3)").await;
    let slot = bed.config.slot.clone();
    bed.sql(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
    let ahead = bed.stream(&durable, &tables).await.refused().await;
    assert!(matches!(&ahead, Err(Error::PositionLost { .. })), "{ahead:?}");
    let ahead = bed.source().prepare(&names, Some(&durable)).await;
    assert!(matches!(&ahead, Err(Error::PositionLost { .. })), "{ahead:?}");

    // Missing.
    bed.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    let missing = bed.stream(&durable, &tables).await.refused().await;
    assert!(matches!(&missing, Err(Error::SlotLost { .. })), "{missing:?}");
    let missing = bed.source().prepare(&names, Some(&durable)).await;
    assert!(matches!(&missing, Err(Error::SlotLost { .. })), "{missing:?}");
    let slots: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1")
        .bind(&slot)
        .fetch_one(&mut bed.admin)
        .await
        .expect("countable");
    assert_eq!(slots, 0, "a lost slot is never made anew");

    // A publication that was dropped leaves a gap as well.
    bed.sql("DROP PUBLICATION lakeward_slots").await;
    bed.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
    let position = bed.source().head().await.expect("head");
    let gap = bed.source().prepare(&names, Some(&position)).await;
    assert!(matches!(&gap, Err(Error::PositionLost { .. })), "{gap:?}");
}

/// S-5, S-6: rows written around the hand-off come once.
#[tokio::test]
async fn the_hand_off_from_snapshot_to_log_is_exact() {
    let setup = "CREATE TABLE shop.counted (id int8 PRIMARY KEY, v int4);
        INSERT INTO shop.counted SELECT g, 0 FROM generate_series(1, 500) g;";
    let Some(mut bed) = Bed::new("handoff", setup).await else { return };
    let source = bed.source();
    let names = [TableName::new("shop", "counted")];
    let from = source.prepare(&names, None).await.expect("prepare");
    let port = bed.port;
    let database = bed.database.clone();
    let stop = CancellationToken::new();
    let writers: Vec<JoinHandle<()>> = (0..4)
        .map(|writer: i64| {
            let (stop, database) = (stop.clone(), database.clone());
            tokio::spawn(async move {
                let mut connection = admin(port, &database).await;
                let mut next = 1_000_000 * (writer + 1);
                while !stop.is_cancelled() {
                    next += 1;
                    let key = next % 500 + 1;
                    run(&mut connection, &format!(
                        "INSERT INTO shop.counted VALUES ({next}, 1); UPDATE shop.counted SET v = v + 1 WHERE id = {key};
                         DELETE FROM shop.counted WHERE id = {}", next - 3)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tables = snapshot(&source, &names).await.expect("snapshot");
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Apply strictly: an insert of a row that is there, or a change of one that is not, is a fault.
        let loaded = &tables[&names[0]];
        let mut model: HashMap<i64, String> = HashMap::new();
        let ids = loaded.rows.column(0).as_primitive::<Int64Type>();
        for row in 0..loaded.rows.num_rows() {
            assert!(model.insert(ids.value(row), cell(loaded.rows.column(1), row)).is_none());
        }
        let mut stream = bed.stream(&from, &tables).await;
        let (events, _) = stream.caught_up().await;
        for rows in rows_of(&events) {
            let ids = rows.rows.column(0).as_primitive::<Int64Type>();
            for (row, op) in rows.ops.iter().enumerate() {
                let (id, value) = (ids.value(row), cell(rows.rows.column(1), row));
                match op {
                    Op::Insert => assert!(model.insert(id, value).is_none(), "insert of {id} twice"),
                    Op::Update => {
                        let before = model.insert(id, value.clone()).unwrap_or_else(|| panic!("no row {id}"));
                        assert_eq!(before.parse::<i64>().map(|v| v + 1).ok(), value.parse().ok(), "row {id}");
                    }
                    Op::Delete => assert!(model.remove(&id).is_some(), "delete of {id} twice"),
                    other => panic!("{other:?}"),
                }
            }
        }
        stream.end().await.expect("ends well");
        bed.slot_is_free().await;
    }
    stop.cancel();
    for writer in writers {
        writer.await.expect("the writer lives");
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_replication_slots WHERE temporary")
        .fetch_one(&mut bed.admin)
        .await
        .expect("countable");
    // Other tests may hold one for a moment.
    assert!(left < 8, "temporary slots stay");
}

/// K-6: what is no change of the table itself. Changes of columns are in tests/postgres_schema.rs.
#[tokio::test]
async fn a_table_that_took_another_ones_name_stops_and_the_others_go_on() {
    let mut setup = String::new();
    for table in ["renamed", "remade", "same"] {
        setup.push_str(&format!("CREATE TABLE shop.{table} (id int8 PRIMARY KEY, a int4, b int4 NOT NULL UNIQUE);"));
    }
    let Some(mut bed) = Bed::new("ddl", &setup).await else { return };
    let (from, tables) = bed.load().await;
    let mut stream = bed.stream(&from, &tables).await;
    for table in ["renamed", "remade", "same"] {
        bed.sql(&format!("INSERT INTO shop.{table} VALUES (1, 1, 1)")).await;
    }
    let (mut events, _) = stream.caught_up().await;
    bed.sql(
        "ALTER TABLE shop.renamed RENAME TO renamed_away;
        DROP TABLE shop.remade; CREATE TABLE shop.remade (id int8 PRIMARY KEY, a int4, b int4);
        ALTER PUBLICATION lakeward_ddl ADD TABLE shop.remade; ALTER TABLE shop.same ALTER a SET DEFAULT 5",
    )
    .await;
    for table in ["renamed_away", "remade", "same"] {
        bed.sql(&format!("INSERT INTO shop.{table} (id, b) VALUES (2, 2)")).await;
    }
    events.extend(stream.caught_up().await.0);
    let stopped: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::TableStopped { table, error, .. } => Some(format!("{table}: {error}")),
            _ => None,
        })
        .collect();
    assert!(
        matches!(&*stopped, [only] if only.contains("shop.remade: ") && only.contains("it was dropped and created again")
            && only.contains("lakeward resync")),
        "{stopped:?}"
    );
    let gone =
        events.iter().any(|event| matches!(event, Event::TableDropped { table, .. } if table.table == "renamed"));
    assert!(gone, "{events:?}");
    assert_eq!(told(&events, "shop.renamed"), ["Insert: 1 | 1 | 1"]);
    assert_eq!(told(&events, "shop.same"), ["Insert: 1 | 1 | 1", "Insert: 2 | 5 | 2"]);
    let steps: Vec<&Step> = events
        .iter()
        .filter_map(|event| if let Event::SchemaChange(change) = event { Some(&change.steps) } else { None })
        .flatten()
        .collect();
    assert!(steps.is_empty(), "{steps:?}");
    stream.end().await.expect("ends well");
}

/// A table that was out of the publication for a while has a gap in its log.
#[tokio::test]
async fn a_table_that_was_not_published_for_a_while_is_not_followed() {
    let setup = "CREATE TABLE shop.kept (id int8 PRIMARY KEY); CREATE TABLE shop.away (id int8 PRIMARY KEY);";
    let Some(mut bed) = Bed::new("gap", setup).await else { return };
    let (from, tables) = bed.load().await;
    let names: Vec<TableName> = tables.keys().cloned().collect();
    bed.sql("ALTER PUBLICATION lakeward_gap DROP TABLE shop.away; INSERT INTO shop.away VALUES (1)").await;
    let mut stream = bed.stream(&from, &tables).await;
    let (events, _) = stream.caught_up().await;
    let stopped = |events: &[Event]| {
        events.iter().any(|event| matches!(event, Event::TableStopped { table, .. } if table.table == "away"))
    };
    assert!(stopped(&events));
    stream.end().await.expect("ends well");
    bed.slot_is_free().await;

    // Whoever prepares the source again must ask before, for afterwards nothing tells of the gap.
    let source = bed.source();
    let unpublished = source.unpublished(&names).await.expect("readable");
    assert_eq!(unpublished, [TableName::new("shop", "away")]);
    source.prepare(&names, Some(&from)).await.expect("adds the table again");
    assert_eq!(source.unpublished(&names).await.expect("readable"), []);

    // Loaded again it goes on.
    let tables = snapshot(&source, &names).await.expect("snapshot");
    bed.sql("INSERT INTO shop.away VALUES (3)").await;
    let mut stream = Stream::start(source, &from, &tables);
    assert_eq!(told(&stream.caught_up().await.0, "shop.away"), ["Insert: 3"]);
    stream.end().await.expect("ends well");
}

#[tokio::test]
async fn a_large_transaction_comes_in_pieces_with_one_boundary_at_its_end() {
    let setup = "CREATE TABLE shop.big (id int8 PRIMARY KEY, v text);";
    let Some(mut bed) = Bed::new("large", setup).await else { return };
    let (from, tables) = bed.load().await;
    bed.sql("INSERT INTO shop.big SELECT g, 'value ' || g FROM generate_series(1, 100000) g").await;
    let mut stream = bed.stream(&from, &tables).await;
    let (events, _) = stream.caught_up().await;
    let rows: usize = rows_of(&events).iter().map(|rows| rows.rows.num_rows()).sum();
    assert_eq!(rows, 100_000);
    let first_boundary = events.iter().position(|event| matches!(event, Event::Boundary { transactions: 1, .. }));
    let last_rows = events.iter().rposition(|event| matches!(event, Event::Rows(_)));
    assert!(first_boundary > last_rows, "a boundary inside a transaction");
    stream.end().await.expect("ends well");
}

/// Partitioned tables come under their root's name.
#[tokio::test]
async fn a_partitioned_table_is_one_table() {
    let setup = "CREATE TABLE shop.parted (id int8, region int4, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
        CREATE TABLE shop.parted_1 PARTITION OF shop.parted FOR VALUES IN (1);
        CREATE TABLE shop.parted_2 PARTITION OF shop.parted FOR VALUES IN (2);
        CREATE TABLE shop.parent (id int8 PRIMARY KEY);
        CREATE TABLE shop.child (PRIMARY KEY (id)) INHERITS (shop.parent);
        INSERT INTO shop.parted VALUES (1, 1), (2, 2); INSERT INTO shop.child VALUES (1);";
    let Some(mut bed) = Bed::new("partitions", setup).await else { return };
    let (from, tables) = bed.load().await;
    let mut names: Vec<&str> = tables.keys().map(|name| name.table.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["child", "parent", "parted"]);
    assert_eq!(tables[&TableName::new("shop", "parted")].rows.num_rows(), 2);
    assert_eq!(tables[&TableName::new("shop", "parent")].rows.num_rows(), 0);
    let mut stream = bed.stream(&from, &tables).await;
    bed.sql(
        "INSERT INTO shop.parted VALUES (3, 1); UPDATE shop.parted SET region = 2 WHERE id = 3;
        INSERT INTO shop.child VALUES (2); INSERT INTO shop.parent VALUES (3)",
    )
    .await;
    let (events, _) = stream.caught_up().await;
    assert_eq!(told(&events, "shop.parted"), ["Insert: 3 | 1", "Delete: 3 | 1", "Insert: 3 | 2"]);
    assert_eq!(told(&events, "shop.child"), ["Insert: 2"]);
    assert_eq!(told(&events, "shop.parent"), ["Insert: 3"]);
    stream.end().await.expect("ends well");
}

/// Preflight tells everything at once, each with its remedy.
#[tokio::test]
async fn preflight_finds_every_problem_at_once() {
    let setup = "CREATE TABLE shop.good (id int8 PRIMARY KEY);
        CREATE TABLE shop.nokey (a int4);
        CREATE TABLE shop.nothing (id int8 PRIMARY KEY); ALTER TABLE shop.nothing REPLICA IDENTITY NOTHING;
        CREATE TABLE shop.full_nokey (a int4); ALTER TABLE shop.full_nokey REPLICA IDENTITY FULL;
        CREATE UNLOGGED TABLE shop.unlogged (id int8 PRIMARY KEY);
        CREATE TABLE shop.twocase (id int8 PRIMARY KEY, \"A\" int4, a int4);
        CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int8 PRIMARY KEY);";
    let Some(mut bed) = Bed::new("preflight", setup).await else { return };
    bed.config.tables = TableSelection::parse(&["shop.*", "hidden.*", "absent.*"]).expect("valid");
    let problems = bed.source().preflight().await.expect("preflight");
    let about = |subject: &str| {
        let found: Vec<_> = problems.iter().filter(|problem| problem.subject == subject).collect();
        assert_eq!(found.len(), 1, "{subject} in {problems:#?}");
        found[0]
    };
    assert_eq!(about("table shop.nokey").kind, ProblemKind::Table);
    assert!(about("table shop.nokey").remedy.contains("ALTER TABLE \"shop\".\"nokey\" REPLICA IDENTITY"));
    assert!(about("table shop.nothing").finding.contains("NOTHING"));
    // P-20: whole rows tell its rows apart.
    assert!(!problems.iter().any(|problem| problem.subject == "table shop.full_nokey"), "{problems:#?}");
    assert!(about("table shop.unlogged").remedy.contains("SET LOGGED"));
    assert!(about("table shop.twocase").finding.contains("differ in case only"));
    assert_eq!(about("pattern absent.*").kind, ProblemKind::Warning);
    assert_eq!(about("publication lakeward_preflight").kind, ProblemKind::Privilege);
    assert!(
        about("publication lakeward_preflight").remedy.contains("CREATE PUBLICATION \"lakeward_preflight\" FOR TABLE")
    );
    assert_eq!(about("max_slot_wal_keep_size").kind, ProblemKind::Warning);
    assert!(!problems.iter().any(|problem| problem.subject == "table shop.good"));

    // What the remedies say makes it work.
    let remedy = about("publication lakeward_preflight").remedy.clone();
    let create = remedy.split("run: ").nth(1).and_then(|rest| rest.split("; or").next()).expect("a statement");
    bed.sql(create).await;
    bed.config.tables = TableSelection::parse(&["shop.good"]).expect("valid");
    let problems = bed.source().preflight().await.expect("preflight");
    assert!(problems.iter().all(|problem| problem.kind == ProblemKind::Warning), "{problems:#?}");
    bed.load().await;
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let Some(mut bed) = Bed::new("refusals", "CREATE TABLE shop.t (id int8 PRIMARY KEY);").await else { return };
    let identity = bed.source().identity().await.expect("identity");
    assert!(identity.server.starts_with("PostgreSQL ") && identity.history.contains('/'), "{identity:?}");

    let mut wrong = bed.config.clone();
    wrong.password = Some(Secret::new("not it"));
    let wrong = PostgresSource::new(wrong, Contracts::default()).expect("a source");
    let refused = wrong.discover().await;
    assert!(matches!(&refused, Err(Error::Authentication { user, .. }) if user == "cdc"), "{refused:?}");
    let refused = wrong.identity().await;
    assert!(matches!(&refused, Err(Error::Authentication { .. })), "{refused:?}");
    assert!(!format!("{refused:?}").contains("not it"));

    let mut closed = bed.config.clone();
    closed.port = 1;
    let closed = PostgresSource::new(closed, Contracts::default()).expect("a source");
    assert!(matches!(closed.discover().await, Err(Error::Connect { .. })));
    assert!(matches!(closed.identity().await, Err(Error::Connect { .. })));

    let mut absent = bed.config.clone();
    absent.database = "no_such_database".into();
    let absent = PostgresSource::new(absent, Contracts::default()).expect("a source");
    assert!(matches!(absent.head().await, Err(Error::Setting { .. })));

    bed.sql("DO $$ BEGIN CREATE ROLE lw_weak LOGIN PASSWORD 'weak'; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        .await;
    let mut weak = bed.config.clone();
    weak.user = "lw_weak".into();
    weak.password = Some(Secret::new("weak"));
    let weak = PostgresSource::new(weak, Contracts::default()).expect("a source");
    let problems = weak.preflight().await.expect("preflight");
    let remedies: Vec<&str> = problems.iter().map(|problem| problem.remedy.as_str()).collect();
    assert!(remedies.iter().any(|remedy| remedy.starts_with("ALTER ROLE \"lw_weak\" REPLICATION")), "{problems:#?}");
    assert!(remedies.contains(&"GRANT USAGE ON SCHEMA \"shop\" TO \"lw_weak\""), "{problems:#?}");
    assert!(remedies.contains(&"GRANT SELECT ON \"shop\".\"t\" TO \"lw_weak\""), "{problems:#?}");
    let refused = weak.identity().await;
    assert!(matches!(&refused, Err(Error::Privilege { .. })), "{refused:?}");
}
