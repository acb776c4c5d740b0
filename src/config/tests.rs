//! Whole configurations: what a good one becomes, and everything that is told about bad ones.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A folder with the files of a configuration.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            fs::write(path, text).expect("file");
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables: HashMap<String, OsString> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Config::load_with(&self.path().join("config.toml"), &|name| variables.get(name).cloned())
    }

    /// Each problem as `file:line: …`, the folder left out.
    fn problems(&self) -> Vec<String> {
        let error = self.load(&[]).expect_err("the configuration has problems");
        let folder = format!("{}/", self.path().display());
        error.problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

const SMALLEST: &str = r#"
[lake]
url = "lake"
[[source]]
name = "booking"
url = "mysql://cdc@db.example"
tables = ["booking.*"]
"#;

#[test]
fn the_smallest_configuration_gets_the_documented_defaults() {
    let folder = Folder::new(&[("config.toml", SMALLEST)]);
    let config = folder.load(&[]).expect("valid");
    assert_eq!(config.lake.url.to_file_path().ok(), Some(folder.path().join("lake")));
    assert!(config.lake.storage.is_empty() && config.lake.column_splice);
    assert_eq!(config.commit.interval, Duration::from_secs(10));
    assert_eq!(config.commit.rows_max, 1_000_000);
    assert_eq!(config.commit.bytes_max, 256 << 20);
    assert_eq!(config.memory.budget_bytes, 512 << 20);
    assert_eq!(config.snapshot, Snapshot::default());
    assert_eq!(config.maintenance, Maintenance::default());
    let source = &config.sources[0];
    assert_eq!(source.address(), "db.example:3306");
    assert_eq!((source.user.as_str(), source.tls), ("cdc", Tls::Prefer));
    assert!(source.password.is_none());
    assert_eq!(source.server_id, default_server_id("booking"));
    assert!((1_000_000_000..2_000_000_000).contains(&source.server_id));
    assert!(config.contracts.iter().next().is_none());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn every_key_is_read() {
    let folder = Folder::new(&[
        (
            "etc/config.toml",
            r#"
            schemas_dir = "../contracts"
            [lake]
            url = "s3://bucket/some/prefix/"
            column_splice = false
            write_mode = "copy_on_write"
            [lake.storage]
            aws_region = "eu-west-1"
            aws_allow_http = true
            pool = 7
            [commit]
            interval_seconds = 3
            rows_max = 20_000
            bytes_max = 1048576
            [memory]
            budget = "1GiB"
            spill_dir = "../waiting"
            spill_max = "2GiB"
            index_budget = "1GiB"
            index_dir = "../index"
            [maintenance]
            compact = false
            target_file_size = "64MiB"
            retention = "36h"
            vacuum = false
            vacuum_every = "2w"

            [snapshot]
            parallelism = 8
            chunk_rows = 500
            rows_per_second_max = 20_000
            running_max = 40
            replica_lag_seconds_max = 15
            during_snapshot = "hidden"
            [[source]]
            name = "shop-eu"
            url = "postgresql://c%40dc@[::1]:6000/sh%20op"
            password_file = "pw"
            tls = "verify-full"
            tls_ca_file = "ca.pem"
            tables = ["public.*", "!public.tmp_*"]
            slot = "mine"
            on_lost_position = "resync"
            [[source]]
            name = "booking"
            url = "mysql://cdc@127.0.0.1:3307/"
            password_env = "BOOKING"
            tables = ["booking.coupons"]
            server_id = 77
            "#,
        ),
        ("etc/pw", "top secret\r\n"),
        ("etc/ca.pem", ""),
        (
            "contracts/coupons.toml",
            r#"
            source = "booking"
            table = "booking.coupons"
            key = ["id"]
            partition_by = ["day"]
            exclude = ["note"]
            owners = ["coupons@example.org"]
            description = "Every coupon ever issued."
            during_snapshot = "partial"
            write_mode = "merge_on_read"
            target_file_size = "1GiB"
            retention = "30d"
            "#,
        ),
    ]);
    let environment = |name: &str| (name == "BOOKING").then(|| OsString::from("hidden"));
    let config = Config::load_with(&folder.path().join("etc/config.toml"), &environment).expect("valid");
    assert_eq!(config.lake.url.as_str(), "s3://bucket/some/prefix");
    assert!(!config.lake.column_splice);
    let storage: Vec<(&str, &str)> = config.lake.storage.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(storage, [("aws_allow_http", "true"), ("aws_region", "eu-west-1"), ("pool", "7")]);
    assert_eq!((config.commit.interval.as_secs(), config.commit.rows_max), (3, 20_000));
    assert_eq!((config.commit.bytes_max, config.memory.budget_bytes), (1 << 20, 1 << 30));
    assert_eq!((config.memory.spill_bytes_max, config.memory.index_bytes), (2 << 30, 1 << 30));
    assert!(config.memory.index_dir.is_absolute() && config.memory.index_dir.ends_with("index"));
    assert!(config.memory.spill_dir.is_absolute() && config.memory.spill_dir.ends_with("waiting"));
    let [shop, booking] = config.sources.as_slice() else { panic!("two sources") };
    assert_eq!((shop.user.as_str(), shop.database.as_str()), ("c@dc", "sh op"));
    assert_eq!((shop.host.as_str(), shop.port, shop.tls), ("::1", 6000, Tls::VerifyFull));
    assert_eq!(shop.password.as_ref().map(Secret::expose), Some("top secret"));
    assert_eq!(shop.tls_ca_file, Some(folder.path().join("etc/ca.pem")));
    assert_eq!((shop.on_lost_position, booking.on_lost_position), (OnLostPosition::Resync, OnLostPosition::Stop));
    assert_eq!((shop.slot.as_str(), shop.publication.as_str()), ("mine", "lakeward_shop_eu"));
    assert!(shop.tables.selects("public.points") && !shop.tables.selects("public.tmp_1"));
    assert_eq!(booking.password.as_ref().map(Secret::expose), Some("hidden"));
    assert_eq!((booking.port, booking.server_id), (3307, 77));
    let contract = config.contracts.get("booking", "booking.coupons").expect("a contract");
    assert_eq!(contract.key, ["id"]);
    assert_eq!(contract.owners, ["coupons@example.org"]);
    assert_eq!(contract.description.as_deref(), Some("Every coupon ever issued."));
    assert!(config.contracts.get("shop-eu", "booking.coupons").is_none());
    let snapshot = Snapshot {
        parallelism: 8,
        chunk_rows: 500,
        rows_per_second_max: 20_000,
        running_max: 40,
        replica_lag_max: Duration::from_secs(15),
        during_snapshot: DuringSnapshot::Hidden,
    };
    assert_eq!(config.snapshot, snapshot);
    let maintenance = Maintenance {
        compact: false,
        target_file_bytes: 64 << 20,
        vacuum: false,
        vacuum_every: Duration::from_secs(14 * 86_400),
        retention: Duration::from_secs(36 * 3600),
    };
    assert_eq!(config.maintenance, maintenance);
    assert_eq!(config.target_file_bytes("shop-eu", "public.points"), 64 << 20);
    assert_eq!(config.target_file_bytes("booking", "booking.coupons"), 1 << 30);
    let terms = config.write_terms();
    let read = |source, table| (terms.of(source, table).mode, terms.of(source, table).target_file_bytes);
    assert_eq!(read("shop-eu", "public.points"), (WriteMode::CopyOnWrite, 64 << 20));
    assert_eq!(read("booking", "booking.coupons"), (WriteMode::MergeOnRead, 1 << 30));
    assert_eq!(config.retention("shop-eu", "public.points").as_secs(), 36 * 3600);
    assert_eq!(config.retention("booking", "booking.coupons").as_secs(), 30 * 86_400);
    assert_eq!(config.during_snapshot("shop-eu", "public.points"), DuringSnapshot::Hidden);
    assert_eq!(config.during_snapshot("booking", "booking.coupons"), DuringSnapshot::Partial);
}

#[test]
fn every_problem_of_every_file_is_told_at_once_with_its_line() {
    let folder = Folder::new(&[
        (
            "config.toml",
            r#"schema_dir = "x"
[lake]
url = "gs://bucket"
[lake.storage]
aws_region = ["eu"]
[commit]
interval_seconds = 0
row_max = 5
bytes_max = "much"
[memory]
budget = "1MiB"
[[source]]
name = "Booking"
url = "mysql://cdc@h/booking"
tables = ["coupons", "booking.[x"]
tls = "verify_full"
[[source]]
name = "points"
url = "postgres://cdc@h/points"
password_file = "absent"
tables = []
server_id = 5
[[source]]
name = "points"
url = "postgres://h/points"
password_env = "ABSENT"
on_lost_position = "restart"
"#,
        ),
        ("schemas/a.toml", "table = \"points.ledger\"\nsource = \"point\"\nkeys = [\"id\"]\n"),
        ("schemas/b.toml", "key = \"id\"\nowners = [\"a\", 5]\n"),
        ("schemas/c.toml", "table = \"ledger\"\nexclude = [\"a\"]\npartition_by = [\"a\"]\n"),
        ("schemas/d.toml", "table = \n"),
        ("schemas/e.toml", "table = \"points.a\"\n"),
        ("schemas/f.toml", "# twice\ntable = \"points.a\"\n"),
    ]);
    let problems = folder.problems();
    let expected = [
        "config.toml:1: schema_dir: unknown key; expected one of",
        "config.toml:3: lake.url: has the scheme `gs`, which is not supported; expected",
        "config.toml:5: lake.storage.aws_region: is an array; expected a text, a number or a boolean",
        "config.toml:7: commit.interval_seconds: 0 is out of range; expected seconds from 1 to 3600",
        "config.toml:8: commit.row_max: unknown key; expected one of",
        "config.toml:9: commit.bytes_max: is not a size; expected",
        "config.toml:11: memory.budget: is too small; expected a size of at least 64MiB",
        "config.toml:13: source.name: `Booking` is not a source's name; expected small letters",
        "config.toml:14: source.url: names a database",
        "config.toml:15: source.tables: `coupons` needs the form database.table",
        "config.toml:15: source.tables: `booking.[x` is not a pattern",
        "config.toml:16: source.tls: unknown value `verify_full`; expected disable",
        "config.toml:20: source.password_file: can't read absent: No such file",
        "config.toml:21: source.tables: selects nothing",
        "config.toml:22: source.server_id: only a mysql source has one",
        "config.toml:23: source.tables: is missing",
        "config.toml:24: source.name: `points` is taken by another source in line 18",
        "config.toml:25: source.url: names no user",
        "config.toml:26: source.password_env: the variable ABSENT is not set",
        "config.toml:27: source.on_lost_position: unknown value `restart`; expected stop or resync",
        "schemas/a.toml:2: source: unknown value `point`; expected the name of a source; did you mean `points`?",
        "schemas/a.toml:3: keys: unknown key; expected one of",
        "schemas/b.toml: table: is missing; expected database.table or schema.table",
        "schemas/b.toml:1: key: is a text; expected an array of column names",
        "schemas/b.toml:2: owners: item 2 is a whole number",
        "schemas/c.toml:1: table: `ledger` names no database or schema",
        "schemas/c.toml:2: exclude: `a` also stands in `partition_by`",
        "schemas/d.toml:1: is not TOML:",
        "schemas/f.toml:2: table: points.a has a contract already, schemas/e.toml",
    ];
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "\n   found {problem}\nexpected {expected}\n\n{problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (line, near) in [(1, "`schemas_dir`"), (8, "`rows_max`"), (16, "`verify-full`")] {
        let told = problems.iter().find(|problem| problem.starts_with(&format!("config.toml:{line}:")));
        assert!(told.is_some_and(|told| told.ends_with(&format!("did you mean {near}?"))), "{told:?}");
    }
}

#[test]
fn an_empty_file_names_what_it_needs() {
    let folder = Folder::new(&[("config.toml", "")]);
    let problems = folder.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("lake: is missing") && problems[1].contains("source: is missing"));
}

#[test]
fn a_missing_file_is_a_problem_not_a_panic() {
    let folder = Folder::new(&[]);
    assert!(folder.problems()[0].starts_with("config.toml: can't be read"));
}

#[test]
fn a_password_in_a_url_works_but_warns() {
    let text = SMALLEST.replace("cdc@", "cdc:hun%24ter@");
    let config = Folder::new(&[("config.toml", &text)]).load(&[]).expect("valid");
    assert_eq!(config.sources[0].password.as_ref().map(Secret::expose), Some("hun$ter"));
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(":6: source.url: a password stands in the url"));
}

#[test]
fn what_a_contract_says_about_values_is_read() {
    let contract = (
        "schemas/a.toml",
        r#"
        table = "booking.coupons"
        tinyint1 = "bool"
        value_policy = "string"
        value_policies = { day = "fail" }
        without_key = "append"
        [types]
        price = "decimal(20,4)"
        "#,
    );
    let config = Folder::new(&[("config.toml", SMALLEST), contract]).load(&[]).expect("valid");
    let contract = config.contracts.get("booking", "booking.coupons").expect("a contract");
    assert_eq!(contract.types.get("price").map(String::as_str), Some("decimal(20,4)"));
    assert!(contract.tinyint1_is_bool);
    assert_eq!(contract.value_policy_of("day"), ValuePolicy::Fail);
    assert_eq!(contract.value_policy_of("price"), ValuePolicy::String);
    assert_eq!(contract.without_key, WithoutKey::Append);
    let plain = Contract::default();
    assert_eq!((plain.tinyint1_is_bool, plain.value_policy_of("day")), (false, ValuePolicy::Null));
    assert_eq!(plain.without_key, WithoutKey::WholeRow);
}

#[test]
fn problems_of_what_a_contract_says_about_values_have_file_line_and_key() {
    let contract = (
        "schemas/a.toml",
        "table = \"booking.coupons\"\ntinyint1 = \"boolean\"\nvalue_policy = \"epoch\"\nwithout_key = \"skip\"\n\
         write_mode = \"copy_on_wrote\"\ntypes = \"long\"\n[value_policies]\nday = \"nil\"\nnight = [1]\n",
    );
    let smallest = format!("{SMALLEST}[snapshot]\nduring_snapshot = \"hiden\"\n");
    let problems = Folder::new(&[("config.toml", &smallest), contract]).problems();
    let policy = "expected \"null\", \"string\" or \"fail\"";
    let expected = [
        "schemas/a.toml:2: tinyint1: is `boolean`; expected \"bool\" or \"byte\"".to_owned(),
        format!("schemas/a.toml:3: value_policy: is `epoch`; {policy}"),
        "schemas/a.toml:4: without_key: is `skip`; expected \"whole_row\" or \"append\"".to_owned(),
        "schemas/a.toml:5: write_mode: unknown value `copy_on_wrote`; expected \"merge_on_read\" or \"copy_on_write\"; did you mean `copy_on_write`?"
            .to_owned(),
        "schemas/a.toml:6: types: is a text; expected a table, `[types]`".to_owned(),
        "snapshot.during_snapshot: unknown value `hiden`; expected \"partial\" or \"hidden\"; did you mean `hidden`?"
            .to_owned(),
        format!("schemas/a.toml:8: value_policies.day: is something else; {policy}"),
        format!("schemas/a.toml:9: value_policies.night: is something else; {policy}"),
    ];
    for line in &expected {
        assert!(problems.iter().any(|problem| problem.contains(line)), "{line}\nis not in {problems:#?}");
    }
}

#[test]
fn sizes_and_spans_of_maintenance_are_checked() {
    let text = format!(
        "{SMALLEST}[maintenance]\ntarget_file_size = \"1kB\"\nretention = \"5m\"\nvacuum_every = \"weekly\"\ncompact = 1\n"
    );
    let contract = ("schemas/a.toml", "table = \"booking.coupons\"\nretention = 7\n");
    let problems = Folder::new(&[("config.toml", &text), contract]).problems();
    let expected = [
        "maintenance.target_file_size: is too small; expected a size of at least 1MiB",
        "maintenance.retention: is too short; expected a span of at least an hour",
        "maintenance.vacuum_every: `weekly` is not a span of time; expected a span of at least a minute",
        "maintenance.compact: is a whole number; expected true or false",
        "schemas/a.toml:2: retention: is a whole number; expected a span of at least an hour",
    ];
    for line in expected {
        assert!(problems.iter().any(|problem| problem.contains(line)), "{line}\nis not in {problems:#?}");
    }
}

#[test]
fn a_contract_that_no_source_selects_warns() {
    let contract = ("schemas/points.toml", "table = \"points.ledger\"\n");
    let config = Folder::new(&[("config.toml", SMALLEST), contract]).load(&[]).expect("valid");
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("points.toml:1: table: no source's"), "{warnings:?}");
}

#[test]
fn secrets_are_never_shown() {
    let bad = r#"
        [lake]
        url = "s3://key:PLANTED@bucket/p"
        [lake.storage]
        aws_secret_access_key = "PLANTED"
        [[source]]
        name = "a"
        url = "mysql://cdc:PLANTED@h/db"
        tables = ["a.*"]
        [[source]]
        name = "b"
        url = "mysql://cdc:PLANTED@h:99999"
        tables = ["a.*"]
        [[source]]
        name = "c"
        url = "PLANTED"
        tables = ["a.*"]
        password_file = "pw"
        "#;
    let folder = Folder::new(&[("config.toml", bad), ("pw", "PLANTED")]);
    let error = folder.load(&[]).expect_err("four problems");
    assert_eq!(error.problems.len(), 4, "{error}");
    let good = SMALLEST.replace("[[source]]", "[lake.storage]\naws_secret_access_key = \"PLANTED\"\n[[source]]");
    let good = good.replace("cdc@", "cdc:PLANTED@");
    let config = Folder::new(&[("config.toml", &good)]).load(&[]).expect("valid");
    let garbled = Folder::new(&[("config.toml", "url = \"mysql://cdc:PLANTED@h\" x")]).load(&[]).expect_err("no TOML");
    for text in [
        format!("{error} {error:?} {garbled} {garbled:?}"),
        format!("{config:?} {config:#?}"),
        serde_json::to_string(&error.problems).expect("json"),
        serde_json::to_string(&config.warnings).expect("json"),
    ] {
        assert!(!text.contains("PLANTED"), "{text}");
    }
    assert_eq!(config.warnings.len(), 2);
}

#[test]
fn a_missing_password_file_is_looked_for_among_systemds_credentials() {
    let credentials = Folder::new(&[("booking", "from systemd\n")]);
    let text = SMALLEST.replace("tables =", "password_file = \"/run/secrets.absent/booking\"\ntables =");
    let folder = Folder::new(&[("config.toml", &text)]);
    let directory = credentials.path().display().to_string();
    let config = folder.load(&[("CREDENTIALS_DIRECTORY", &directory)]).expect("valid");
    assert_eq!(config.sources[0].password.as_ref().map(Secret::expose), Some("from systemd"));
    let problem = folder.load(&[]).expect_err("no such file").to_string();
    assert!(problem.contains("can't read /run/secrets.absent/booking: No such file"), "{problem}");
}

#[test]
fn sources_of_one_server_do_not_share_a_reader() {
    let source = |name: &str, url: &str, more: &str| {
        format!("[[source]]\nname = \"{name}\"\nurl = \"{url}\"\ntables = [\"a.*\"]\n{more}\n")
    };
    let text = [
        "[lake]\nurl = \"/tmp/lake\"".to_owned(),
        source("a", "mysql://c@h", "server_id = 5"),
        source("b", "mysql://c@h", "server_id = 5"),
        source("c", "mysql://c@other", "server_id = 5"),
        source("d", "postgres://c@h/x", "slot = \"s\""),
        source("e", "postgres://c@h/y", "slot = \"s\""),
    ]
    .join("\n");
    let problems = Folder::new(&[("config.toml", &text)]).problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("server_id: 5 is also that of source `a`"));
    assert!(problems[1].contains("slot: `s` is also that of source `d`"));
}

#[test]
fn a_lake_url_is_made_absolute_and_loses_its_trailing_slash() {
    let folder = Path::new("/etc/lakeward");
    let as_text = |text: &str| lake_url(text, folder).map(|url| url.to_string());
    for (text, expected) in [
        ("lake", "file:///etc/lakeward/lake"),
        ("./a/../lake/", "file:///etc/lakeward/lake"),
        ("../my lake", "file:///etc/my%20lake"),
        ("/var/lib/lake/", "file:///var/lib/lake"),
        ("file:///var/lib/lake/", "file:///var/lib/lake"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ] {
        assert_eq!(as_text(text).as_deref(), Ok(expected), "{text}");
    }
    for text in ["file://var/lib", "/", "s3:///prefix", "http://h/x", "s3://u:p@bucket/x", "s3://bucket/x?region=y"] {
        assert!(as_text(text).is_err(), "{text}");
    }
}

#[test]
fn every_kind_of_channel_is_read() {
    let folder = Folder::new(&[
        (
            "config.toml",
            &format!(
                r#"{SMALLEST}
[notices]
lag_seconds = 60
[[notice]]
name = "ops"
kind = "webhook"
url = "https://hooks.example/x?token=abc"
secret_file = "signing"
timeout_seconds = 5
[[notice]]
name = "team"
kind = "slack"
url_env = "SLACK"
digest = "09:00"
digest_when_empty = true
timezone = "Asia/Seoul"
owners = ["marketing"]
[[notice]]
name = "script"
kind = "command"
command = ["/usr/bin/notify", "--json"]
events = ["schema.*", "table.stopped"]
sources = ["book*"]
tables = ["booking.*", "!booking.tmp_*"]
[[notice]]
name = "post"
kind = "email"
smtp_url = "smtp://mail.example"
user = "lakeward"
password_file = "signing"
from = "lakeward <lakeward@example.org>"
to = ["ops@example.org"]
to_owners = true
"#
            ),
        ),
        ("signing", "PLANTED\n"),
    ]);
    let config = folder.load(&[("SLACK", "https://hooks.slack.example/services/PLANTED")]).expect("valid");
    assert_eq!(config.notices.lag, Duration::from_secs(60));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let [ops, team, script, post] = config.channels.as_slice() else { panic!("{:?}", config.channels) };

    assert_eq!((ops.transport.kind(), ops.timeout), ("webhook", Duration::from_secs(5)));
    assert_eq!(ops.transport.address(), "https://hooks.example");
    assert!(ops.route.events.matches("source.lagging") && ops.digest.is_none());
    assert!(ops.route.covers("any", None, &[]));

    assert_eq!(team.timezone, chrono_tz::Asia::Seoul);
    let nine = chrono::NaiveTime::from_hms_opt(9, 0, 0).expect("a time");
    assert_eq!(team.digest, Some(Digest { at: nine, when_empty: true }));
    assert!(team.route.events.is_empty(), "a channel with a digest is told of nothing else unless it says so");
    assert!(team.route.covers("booking", Some("booking.a"), &["marketing".to_owned(), "x".to_owned()]));
    assert!(!team.route.covers("booking", Some("booking.a"), &[]));

    assert!(script.route.events.matches("schema.held") && !script.route.events.matches("table.added"));
    assert!(script.route.covers("booking", Some("booking.a"), &[]));
    for (source, table) in [("booking", Some("booking.tmp_a")), ("booking", None), ("other", Some("booking.a"))] {
        assert!(!script.route.covers(source, table, &[]), "{source} {table:?}");
    }

    let Transport::Email(email) = &post.transport else { panic!("{post:?}") };
    assert_eq!((email.host.as_str(), email.port, email.security), ("mail.example", 587, SmtpSecurity::StartTls));
    assert_eq!(email.password.as_ref().map(Secret::expose), Some("PLANTED"));
    assert!(!format!("{config:?}").contains("PLANTED"), "{config:?}");
}

#[test]
fn problems_of_channels_are_told_at_once() {
    let folder = Folder::new(&[(
        "config.toml",
        r#"[lake]
url = "lake"
[[source]]
name = "booking"
url = "mysql://cdc@db.example"
tables = ["booking.*"]
[notices]
lag_second = 5
[[notice]]
name = "A b"
kind = "webhok"
[[notice]]
name = "a"
kind = "webhook"
url = "ftp://secret.example/PLANTED"
events = ["schema.chnged"]
channel = "x"
[[notice]]
name = "a"
kind = "slack"
url = "https://hooks.example"
url_env = "UNSET"
digest = "9 o'clock"
timezone = "Asia/Soul"
[[notice]]
name = "c"
kind = "command"
command = []
events = []
[[notice]]
name = "d"
kind = "email"
smtp_url = "smtps://u:PLANTED@h"
starttls = "required"
from = "nobody"
"#,
    )]);
    let problems = folder.problems();
    let expected = [
        "config.toml:8: notices.lag_second: unknown key; expected one of lag_seconds; did you mean `lag_seconds`?",
        "config.toml:10: notice.name: `A b` is not a channel's name; expected small letters, digits, `_` and `-`",
        "config.toml:11: notice.kind: unknown value `webhok`; expected \"webhook\", \"slack\", \"command\" or \"email\"; did you mean `webhook`?",
        "config.toml:15: notice.url: has the scheme `ftp`; expected an http:// or https:// url",
        "config.toml:16: notice.events: unknown value `schema.chnged`; expected one of schema.changed, schema.held, schema.refused, table.added, table.dropped, table.stopped, table.resynced, value.policy_applied, source.lagging; did you mean `schema.changed`?",
        "config.toml:17: notice.channel: unknown key; expected one of digest, digest_when_empty, events, kind, name, owners, secret, secret_env, secret_file, sources, tables, timeout_seconds, timezone, tls_ca_file, url, url_env, url_file",
        "config.toml:19: notice.name: `a` is taken by another channel in line 13; expected a name of its own",
        "config.toml:22: notice.url_env: stands beside `url`; expected only one of them",
        "config.toml:23: notice.digest: `9 o'clock` is not a time of day; expected a time of day such as \"09:00\"",
        "config.toml:24: notice.timezone: unknown value `Asia/Soul`; expected the name of a time zone such as \"Asia/Seoul\"; did you mean `Asia/Seoul`?",
        "config.toml:28: notice.command: is empty; expected a list: the program, then its arguments",
        "config.toml:29: notice.events: is empty: nothing would ever be sent; expected a list of kinds of events, `*` stands for anything: \"schema.*\"",
        "config.toml:30: notice.to: is missing; expected a list of mail addresses, or `to_owners = true`",
        "config.toml:34: notice.starttls: smtps:// is TLS from the first byte; expected no such key here",
        "config.toml:35: notice.from: `nobody` is not a mail address; expected a mail address, name@host or \"Name <name@host>\"",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_tables_contract_goes_before_the_policies_of_all_tables_and_these_before_the_defaults() {
    let folder = Folder::new(&[
        ("config.toml", &format!("{SMALLEST}[schema_changes]\nadd = \"hold\"\ndrop = \"apply\"\nwiden = \"fail\"\n")),
        ("schemas/a.toml", "table = \"booking.coupons\"\n[schema_changes]\nadd = \"ignore\"\ndrop_table = \"fail\"\n"),
    ]);
    let config = folder.load(&[]).unwrap_or_else(|error| panic!("{error}"));
    let of = |table: &str| {
        let policies = config.change_policies("booking", table);
        ChangeKind::ALL.map(|kind| policies.of(kind).key())
    };
    assert_eq!(of("booking.coupons"), ["ignore", "apply", "apply", "fail", "apply", "apply", "apply", "fail"]);
    assert_eq!(of("booking.other"), ["hold", "apply", "apply", "fail", "apply", "apply", "apply", "keep"]);
}

#[test]
fn problems_of_change_policies_have_file_line_and_key() {
    let folder = Folder::new(&[
        (
            "config.toml",
            &format!(
                "{SMALLEST}[schema_changes]\nadd = \"aply\"\nkey = \"ignore\"\ntruncate = \"hold\"\nwidening = \"hold\"\n"
            ),
        ),
        ("schemas/a.toml", "table = \"booking.coupons\"\n[schema_changes]\nadd = \"keep\"\ndrop = 5\n"),
    ]);
    let expected = [
        "config.toml:9: schema_changes.add: unknown value `aply`; expected \"apply\", \"hold\", \"ignore\", \"fail\"; did you mean `apply`?",
        "config.toml:10: schema_changes.key: can't be ignored, for the lake would be wrong; expected \"apply\", \"hold\", \"fail\"",
        "config.toml:11: schema_changes.truncate: unknown value `hold`; expected \"apply\", \"keep\", \"fail\"",
        "config.toml:12: schema_changes.widening: unknown key; expected one of",
        "schemas/a.toml:3: schema_changes.add: unknown value `keep`; expected \"apply\", \"hold\", \"ignore\", \"fail\"",
        "schemas/a.toml:4: schema_changes.drop: is a whole number; expected \"keep\"",
    ];
    let problems = folder.problems();
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n  should begin with\n{expected}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn a_sources_part_of_the_configuration_is_told_apart_from_the_others() {
    let with = |more: &str, contract: &str| {
        let folder = Folder::new(&[("config.toml", &format!("{SMALLEST}{more}")), ("schemas/a.toml", contract)]);
        folder.load(&[]).unwrap_or_else(|error| panic!("{error}"))
    };
    let contract = "table = \"booking.coupons\"\n";
    let base = with("", contract);
    let differences = |more: &str, contract: &str| {
        let other = with(more, contract);
        Effective::of(&base, &base.sources[0]).differences(&Effective::of(&other, &other.sources[0]))
    };
    assert!(differences("", contract).is_empty());
    assert!(differences("[[source]]\nname = \"b\"\nurl = \"mysql://u@b\"\ntables = [\"b.*\"]\n", contract).is_empty());
    assert_eq!(differences("tls = \"require\"\n", contract), ["connection"]);
    assert_eq!(differences("[commit]\nrows_max = 7\n", contract), ["commit"]);
    assert_eq!(differences("[memory]\nbudget = \"1GiB\"\n", contract), ["memory"]);
    assert_eq!(differences("[schema_changes]\nadd = \"hold\"\n", contract), ["schema_changes"]);
    let owned = format!("{contract}owners = [\"ann\"]\n");
    assert_eq!(differences("", &owned), ["contract of booking.coupons"]);
    // Of a table that the source does not select.
    assert_eq!(differences("", "table = \"other.t\"\n"), ["contract of booking.coupons"]);
}
