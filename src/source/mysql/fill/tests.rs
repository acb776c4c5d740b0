//! Definitions on the left, what old rows have on the right. tests/mysql_schema.rs asks the servers the same.

use arrow::util::display::array_value_to_string;

use super::*;
use crate::schema::{ColumnDefault, Policy};
use crate::source::mysql::column_definition::definition;
use crate::source::mysql::ddl::{Tokens, tokens_of};

fn collations() -> Collations {
    let sets = [(8, "latin1"), (45, "utf8mb4"), (33, "utf8mb3"), (63, "binary"), (101, "utf16")];
    Collations::new(sets.map(|(id, name)| (id, name.to_owned())), Default::default())
}

fn session() -> SessionState {
    SessionState {
        time_zone: Some("+02:00".to_owned()),
        micros: Some(123_456),
        client: Some(45),
        connection: Some(45),
        explicit_timestamps: Some(true),
    }
}

fn filled_in(text: &str, vendor: Vendor, session: &SessionState, policy: Policy) -> Fill {
    let text = format!("c {text}");
    let tokens = tokens_of(&text).expect("tokens");
    let definition = definition(&mut Tokens::new(&tokens), vendor).unwrap_or_else(|_| panic!("unclear: {text}"));
    let layout = crate::schema::Layout {
        charset: "utf8mb4".to_owned(),
        collation: "utf8mb4_general_ci".to_owned(),
        ..Default::default()
    };
    let known = definition.column(&layout).unwrap_or_else(|_| panic!("unclear: {text}"));
    let declared = Declared::parse(&known.declaration);
    let string = policy == Policy::String && declared.lake_type() == crate::schema::LakeType::TimestampNtz;
    let column = Column {
        name: "c".to_owned(),
        source_type: known.declaration.clone(),
        lake_type: if string { crate::schema::LakeType::String } else { declared.lake_type() },
        nullable: true,
        policy,
    };
    let moment = |moment: &Moment| match moment {
        Moment::Instant { zone, micros } if zone == "Asia/Tokyo" => Some(micros - 9 * 3_600_000_000),
        Moment::Clock { zone, micros } if zone == "Asia/Tokyo" => Some(micros + 9 * 3_600_000_000),
        _ => None,
    };
    let circumstances = Circumstances {
        vendor,
        sql_mode: STRICT,
        session: Some(session),
        now: Some(1_700_000_000),
        collations: &collations(),
        moment: &moment,
    };
    fill(&column, false, &known, &definition.literal, definition.nullable_told, &circumstances)
}

fn shown(fill: &Fill) -> String {
    match fill {
        Fill::Null => "NULL".to_owned(),
        Fill::Value(value) => array_value_to_string(value, 0).expect("a value"),
        Fill::Unknown(_) => "unknown".to_owned(),
    }
}

fn filled(text: &str) -> String {
    shown(&filled_in(text, Vendor::MySql, &session(), Policy::Null))
}

#[test]
fn constants_are_what_the_server_makes_of_them() {
    for (text, expected) in [
        ("INT", "NULL"),
        ("INT DEFAULT NULL", "NULL"),
        ("INT DEFAULT '-5.5'", "-6"),
        ("INT DEFAULT 2.5e0", "unknown"),
        ("INT DEFAULT '2.5e0'", "3"),
        ("INT DEFAULT 0x10", "16"),
        ("BIGINT UNSIGNED DEFAULT 18446744073709551615", "18446744073709551615"),
        ("DECIMAL(10,2) DEFAULT 9.995", "10.00"),
        ("DECIMAL(10,2) DEFAULT -.005", "-0.01"),
        ("DECIMAL(65,30) DEFAULT 1.5", "1.500000000000000000000000000000"),
        ("FLOAT DEFAULT 0.1", "0.1"),
        ("FLOAT(7,3) DEFAULT 1.23456", "1.235"),
        ("DOUBLE DEFAULT 1e300", "1e300"),
        ("BIT DEFAULT 1", "true"),
        ("BIT(9) DEFAULT b'100000001'", "0101"),
        ("BIT(9) DEFAULT '1'", "0031"),
        ("VARCHAR(9) DEFAULT 007.50", "7.50"),
        ("VARCHAR(9) DEFAULT 1e3", "unknown"),
        ("VARCHAR(9) DEFAULT 0x4142", "AB"),
        ("CHAR(9) DEFAULT 'ab  '", "ab"),
        ("VARCHAR(9) DEFAULT 'ab  '", "ab  "),
        ("VARCHAR(9) DEFAULT _latin1'é'", "unknown"),
        ("VARCHAR(9) DEFAULT _utf8mb4'é'", "é"),
        ("VARCHAR(9) CHARACTER SET latin1 DEFAULT 'é'", "é"),
        ("BINARY(3) DEFAULT 'a'", "610000"),
        ("VARBINARY(3) DEFAULT 0x00FF", "00ff"),
        ("TEXT DEFAULT ('x')", "x"),
        ("JSON DEFAULT (JSON_ARRAY())", "[]"),
        ("JSON DEFAULT ('{\"b\": 1}')", "unknown"),
        ("ENUM('a','b') DEFAULT 'B'", "b"),
        ("SET('a','b','c') DEFAULT 'c,A'", "a,c"),
        ("DATE DEFAULT '2020-1-2'", "2020-01-02"),
        ("DATE DEFAULT 20200102", "2020-01-02"),
        ("DATE DEFAULT '0000-00-00'", "NULL"),
        ("DATE DEFAULT '20-01-02'", "unknown"),
        ("DATETIME DEFAULT '2020-01-02T03:04'", "2020-01-02T03:04:00"),
        ("DATETIME DEFAULT '2020-01-02 03:04:05.6'", "unknown"),
        ("DATETIME DEFAULT 20200102030405", "2020-01-02T03:04:05"),
        ("DATETIME(3) DEFAULT NOW(3)", "2023-11-15T00:13:20.123"),
        ("TIMESTAMP(6) NULL DEFAULT NOW(6)", "2023-11-14T22:13:20.123456Z"),
        ("TIMESTAMP DEFAULT '2020-01-02 03:04:05'", "2020-01-02T01:04:05Z"),
        ("TIMESTAMP", "NULL"),
        ("TIMESTAMP NOT NULL", "NULL"),
        ("TIME DEFAULT '-1:2:3'", "-3723000000"),
        ("TIME DEFAULT 101112", "unknown"),
        ("YEAR DEFAULT 0", "0"),
        ("YEAR DEFAULT '0'", "2000"),
        ("YEAR DEFAULT 70", "1970"),
        ("INT DEFAULT (1 + 1)", "unknown"),
        ("INT AUTO_INCREMENT", "unknown"),
        ("INT AS (5)", "unknown"),
        ("POINT NOT NULL", "unknown"),
    ] {
        assert_eq!(filled(text), expected, "{text}");
    }
}

#[test]
fn types_have_a_value_in_place_of_null() {
    for (text, expected) in [
        ("INT NOT NULL", "0"),
        ("DECIMAL(5,2) NOT NULL", "0.00"),
        ("BIT(9) NOT NULL", "0000"),
        ("VARCHAR(9) NOT NULL", ""),
        ("BINARY(2) NOT NULL", "0000"),
        ("ENUM('x','y') NOT NULL", "x"),
        ("SET('x','y') NOT NULL", ""),
        ("TIME NOT NULL", "0"),
        ("YEAR NOT NULL", "0"),
        ("JSON NOT NULL", "null"),
    ] {
        assert_eq!(filled(text), expected, "{text}");
    }
    assert_eq!(
        shown(&filled_in("UUID NOT NULL", Vendor::MariaDb, &session(), Policy::Null)),
        uuid::Uuid::nil().to_string()
    );
}

#[test]
fn a_session_decides_what_a_constant_means() {
    let nothing = SessionState::default();
    let of = |text: &str, session: &SessionState| shown(&filled_in(text, Vendor::MySql, session, Policy::Null));
    for text in [
        "TIMESTAMP",
        "TIMESTAMP NOT NULL",
        "TIMESTAMP DEFAULT '2020-01-02 03:04:05'",
        "DATETIME DEFAULT NOW()",
        "TIMESTAMP(6) NULL DEFAULT NOW(6)",
        "VARCHAR(9) DEFAULT 'é'",
        "VARBINARY(9) DEFAULT 'a'",
    ] {
        assert_eq!(of(text, &nothing), "unknown", "{text}");
    }
    assert_eq!(of("TIMESTAMP NULL", &nothing), "NULL");
    assert_eq!(of("TIMESTAMP NULL DEFAULT NOW()", &nothing), "2023-11-14T22:13:20Z");
    let tokyo = SessionState { time_zone: Some("Asia/Tokyo".to_owned()), ..session() };
    assert_eq!(of("TIMESTAMP DEFAULT '2020-01-02 03:04:05'", &tokyo), "2020-01-01T18:04:05Z");
    assert_eq!(of("DATETIME DEFAULT NOW()", &tokyo), "2023-11-15T07:13:20");
    let unknown = SessionState { time_zone: Some("SYSTEM".to_owned()), ..session() };
    assert_eq!(of("DATETIME DEFAULT NOW()", &unknown), "unknown");
    let narrow = SessionState { connection: Some(8), ..session() };
    assert_eq!(of("VARCHAR(9) DEFAULT 'é'", &narrow), "é");
    assert_eq!(of("VARCHAR(9) DEFAULT 'ł'", &narrow), "unknown");
    assert_eq!(of("VARBINARY(9) DEFAULT 'é'", &narrow), "unknown");
    let wide = SessionState { connection: Some(101), ..session() };
    assert_eq!(of("VARBINARY(9) DEFAULT 'a'", &wide), "unknown");
}

#[test]
fn values_without_a_lake_form_follow_the_policy() {
    let of = |policy| filled_in("DATETIME NOT NULL", Vendor::MySql, &session(), policy);
    assert_eq!(of(Policy::Null), Fill::Null);
    assert_eq!(shown(&of(Policy::String)), "0000-00-00 00:00:00");
    let Fill::Unknown(why) = of(Policy::Fail) else { panic!("no doubt") };
    assert!(why.contains("0000-00-00") && why.contains("fail"), "{why}");
}

/// In MariaDB x'3136' is a text.
#[test]
fn servers_differ_in_hex() {
    let of = |text: &str| shown(&filled_in(text, Vendor::MariaDb, &session(), Policy::Null));
    assert_eq!(of("INT DEFAULT 0x3136"), "unknown");
    assert_eq!(of("INT DEFAULT 0x10"), "16");
    assert_eq!(of("VARCHAR(5) DEFAULT x'3136'"), "16");
    assert_eq!(of("JSON DEFAULT '{\"b\": 1}'"), "{\"b\": 1}");
    assert_eq!(of("INET6 DEFAULT '::1'"), "::1");
}

/// A default of the catalog has no session: what would need one is not known.
#[test]
fn defaults_of_the_catalog_are_read_too() {
    let known = |declaration: &str, charset: Option<&str>, default: ColumnDefault, nullable| LayoutColumn {
        name: "c".to_owned(),
        declaration: declaration.to_owned(),
        charset: charset.map(str::to_owned),
        collation: None,
        nullable,
        default,
        generated: false,
        invisible: false,
        auto_increment: false,
    };
    let constant = |text: &str| ColumnDefault::Constant(text.to_owned());
    for (known, expected) in [
        (known("int", None, constant("5"), true), "5"),
        (known("bit(8)", None, constant("b'101'"), true), "05"),
        (known("varchar(5)", Some("latin1"), constant("é"), true), "é"),
        (known("timestamp", None, ColumnDefault::None, true), "NULL"),
        (known("timestamp", None, constant("0000-00-00 00:00:00"), false), "NULL"),
        (known("timestamp", None, constant("2020-01-01 00:00:00"), false), "unknown"),
        (known("varbinary(5)", None, constant("a"), true), "unknown"),
        (known("int", None, ColumnDefault::Computed, true), "unknown"),
        (known("int", None, ColumnDefault::None, false), "0"),
    ] {
        let column = Column {
            name: "c".to_owned(),
            source_type: known.declaration.clone(),
            lake_type: Declared::parse(&known.declaration).lake_type(),
            nullable: true,
            policy: Policy::Null,
        };
        let circumstances = Circumstances {
            vendor: Vendor::MySql,
            sql_mode: 0,
            session: None,
            now: None,
            collations: &collations(),
            moment: &|_| None,
        };
        let fill = fill(&column, false, &known, &Literal::of_default(&known.default), true, &circumstances);
        assert_eq!(shown(&fill), expected, "{} {:?}", known.declaration, known.default);
    }
}

proptest::proptest! {
    #[test]
    fn numbers_round_as_text(digits in "[0-9]{0,12}", part in "[0-9]{0,12}", negative: bool, scale in 0_usize..14) {
        let text = format!("{}{digits}.{part}0", if negative { "-" } else { "" });
        let exact = Exact::parse(&text).expect("a number").rounded(scale).to_string();
        let factor = 10_i128.pow(14);
        let value = |text: &str| {
            let (whole, part) = text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
            format!("{:0>1}{part:0<14}", whole)[..].parse::<i128>().expect("digits")
        };
        let step = 10_i128.pow(14 - scale as u32);
        let rounded = (value(&text) + step / 2) / step * step;
        proptest::prop_assert_eq!(value(&exact), rounded, "{} at {} with {}", text, scale, factor);
    }

    #[test]
    fn any_literal_lands_or_is_unknown(
        text in "(INT|YEAR|DATE|DATETIME\\(3\\)|TIME|TIMESTAMP|BIT\\(9\\)|CHAR\\(3\\)|BINARY\\(3\\)|DECIMAL\\(5,2\\)|FLOAT\\(7,3\\)|ENUM\\('a','b'\\)|SET\\('a'\\)|JSON)",
        value in "('[-0-9:. TaebA,é]{0,12}'|-?[0-9.e]{1,8}|0x[0-9A-F]{1,8}|DATE'[0-9-]{0,9}'|NOW\\([0-9]\\))",
    ) {
        let text = format!("c {text} DEFAULT {value}");
        if let Ok(tokens) = tokens_of(&text)
            && let Ok(definition) = definition(&mut Tokens::new(&tokens), Vendor::MySql)
            && definition.column(&crate::schema::Layout { charset: "utf8mb4".into(), ..Default::default() }).is_ok()
        {
            let _ = filled(&text[2..]);
        }
    }
}
