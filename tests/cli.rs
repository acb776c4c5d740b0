//! The command line as scripts see it: output, exit codes, and no secret anywhere.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const SECRET: &str = "PLANTED-5f2c";

fn lakeward(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lakeward"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("LAKEWARD_LOG")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env("PLANTED", SECRET)
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn assert_exit(output: &Output, code: i32) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}

fn assert_no_secret(output: &Output) {
    for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        assert!(!text(stream).contains(SECRET), "{name} holds the secret:\n{}", text(stream));
    }
}

fn folder_with(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.toml"), config).expect("config.toml");
    folder
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Two sources that nobody serves, and the secret in every place that can hold one.
fn unreachable_sources() -> String {
    let port = closed_port();
    format!(
        r#"
        [lake]
        url = "lake"
        [lake.storage]
        aws_secret_access_key = "{SECRET}"
        [[source]]
        name = "booking"
        url = "mysql://cdc:{SECRET}@127.0.0.1:{port}"
        tables = ["booking.*"]
        [[source]]
        name = "points"
        url = "postgres://cdc@127.0.0.1:{port}/points"
        password_env = "PLANTED"
        tables = ["public.*"]
        "#
    )
}

#[test]
fn help_lists_the_commands_and_the_exit_codes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = lakeward(folder.path(), &["--help"]);
    assert_exit(&output, 0);
    let help = text(&output.stdout);
    for word in
        ["check", "run", "init", "tables", "position", "notify", "schema", "--config", "Exit codes:", "conditional put"]
    {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    for command in ["check", "run", "init", "tables", "position"] {
        assert_exit(&lakeward(folder.path(), &[command, "--help"]), 0);
    }
    for question in ["show", "history", "diff", "plan", "approve", "reject"] {
        let output = lakeward(folder.path(), &["schema", question, "--help"]);
        assert_exit(&output, 0);
        assert!(text(&output.stdout).contains("--json"), "{question}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_exit(&lakeward(folder.path(), &["chekc"]), 2);
    assert_exit(&lakeward(folder.path(), &["run", "--json"]), 2);
    assert_exit(&lakeward(folder.path(), &["schema", "show"]), 2);
    assert_exit(&lakeward(folder.path(), &["schema", "show", "a.b", "--at", "yesterday"]), 2);
    assert_exit(&lakeward(folder.path(), &["schema", "diff", "a.b", "--to", "3"]), 2);
    assert_exit(&lakeward(folder.path(), &["position", "a.b"]), 2);
    let output = lakeward(folder.path(), &["position", "--at", "yesterday"]);
    assert_exit(&output, 2);
    let told = text(&output.stderr);
    assert!(told.contains("`yesterday` is neither a time") && told.contains("1A/16B3748"), "{told}");
    assert_exit(&lakeward(folder.path(), &["--log-level", "a=b=c", "check"]), 2);
}

#[test]
fn a_missing_configuration_names_both_places() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if Path::new("/etc/lakeward/config.toml").exists() {
        eprintln!("SKIPPED: this machine has a /etc/lakeward/config.toml");
        return;
    }
    for command in ["check", "run", "tables"] {
        let output = lakeward(folder.path(), &[command]);
        assert_exit(&output, 2);
        let told = text(&output.stderr);
        assert!(told.contains("./config.toml") && told.contains("/etc/lakeward/config.toml"), "{told}");
    }
    let output = lakeward(folder.path(), &["check", "--config", "absent.toml"]);
    assert_exit(&output, 2);
    assert!(text(&output.stderr).contains("absent.toml"), "{}", text(&output.stderr));
}

#[test]
fn every_problem_of_a_bad_configuration_is_told_and_exits_with_2() {
    let config = format!(
        r#"[lake]
urll = "lake"
[commit]
interval_seconds = "ten"
[[source]]
name = "Booking"
url = "mysql://cdc:{SECRET}@host/database"
tables = ["coupons"]
"#
    );
    let folder = folder_with(&config);
    for command in [&["check"][..], &["run"], &["tables"]] {
        let output = lakeward(folder.path(), command);
        assert_exit(&output, 2);
        assert_no_secret(&output);
        let told = text(&output.stderr);
        for expected in [
            "config.toml:1: lake.url: is missing",
            "config.toml:2: lake.urll: unknown key; expected one of column_splice, storage, url, write_mode; did you mean `url`?",
            "config.toml:4: commit.interval_seconds: is a text; expected seconds from 1 to 3600",
            "config.toml:6: source.name: `Booking`",
            "config.toml:7: source.url: names a database",
            "config.toml:8: source.tables: `coupons` needs the form",
        ] {
            assert_eq!(told.matches(expected).count(), 1, "{expected} in:\n{told}");
        }
    }
    let output = lakeward(folder.path(), &["check", "--json"]);
    assert_exit(&output, 2);
    assert_no_secret(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["exit_code"], 2);
    assert_eq!(report["config"]["problems"].as_array().map(Vec::len), Some(6));
    assert_eq!(report["config"]["problems"][1]["nearest"], "url");
}

#[test]
fn check_of_a_closed_port_exits_with_7_and_tells_all_sources() {
    let folder = folder_with(&unreachable_sources());
    let output = lakeward(folder.path(), &["check"]);
    assert_exit(&output, 7);
    assert_no_secret(&output);
    let told = text(&output.stdout);
    assert_eq!(told.matches("cannot connect to 127.0.0.1").count(), 2, "{told}");
    assert!(told.contains("booking (127.0.0.1:") && told.contains("points (127.0.0.1:"), "{told}");
    assert!(told.starts_with("lake (file://") && told.contains("\n  ok\n"), "{told}");
    assert!(text(&output.stderr).contains("warning: "), "{}", text(&output.stderr));

    let output = lakeward(folder.path(), &["check", "--json"]);
    assert_exit(&output, 7);
    assert_no_secret(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((&report["ok"], &report["exit_code"]), (&false.into(), &7.into()));
    assert_eq!(report["lake"]["ok"], true);
    assert_eq!(report["sources"][1]["name"], "points");
    assert_eq!(report["config"]["warnings"].as_array().map(Vec::len), Some(2));
}

/// Even with everything logged.
#[test]
fn no_command_ever_shows_a_secret() {
    let folder = folder_with(&unreachable_sources());
    for format in ["text", "json"] {
        for command in [&["check"][..], &["check", "--json"], &["tables"], &["tables", "--json"]] {
            let output = lakeward(
                folder.path(),
                &[command, &["--log-level", "trace,lakeward=trace", "--log-format", format]].concat(),
            );
            assert_no_secret(&output);
        }
    }
    let port = closed_port();
    for url in [
        format!("mysql://cdc:{SECRET}@127.0.0.1:{port}"),
        format!("postgres://cdc:{SECRET}@127.0.0.1:{port}/points"),
        format!("mysql://cdc:{SECRET}@127.0.0.1:99999"),
        format!("oracle://cdc:{SECRET}@127.0.0.1"),
        SECRET.to_owned(),
    ] {
        for more in [&[][..], &["--log-level", "trace,lakeward=trace"], &["--no-such-option"]] {
            let output = lakeward(folder.path(), &[&["init", "--source", &url, "--lake", "lake"], more].concat());
            assert!(!output.status.success());
            assert_no_secret(&output);
        }
    }
}

#[test]
fn a_table_that_is_not_there_is_told_and_exits_with_2() {
    let folder = folder_with(&unreachable_sources());
    for (arguments, expected) in [
        (&["schema", "show", "booking.coupons"][..], "the lake has no table booking.coupons of source `booking`"),
        (&["schema", "history", "points/public.ledger"], "the lake has no table public.ledger of source `points`"),
        (&["schema", "approve", "booking.coupons"], "the lake has no table"),
        (&["schema", "plan", "booking.coupons", "ALTER TABLE coupons ADD a int"], "the lake has no table"),
        (&["schema", "plan", "booking.coupons", " ; "], "there is no statement"),
        (&["schema", "diff", "other.t"], "no source selects other.t"),
        (&["schema", "diff", "cupons"], "database.table"),
    ] {
        let output = lakeward(folder.path(), arguments);
        assert_exit(&output, 2);
        assert_no_secret(&output);
        assert!(text(&output.stderr).contains(expected), "{arguments:?}:\n{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    assert!(!folder.path().join("lake").join("booking").exists(), "asking makes no folders");
}

#[test]
fn positions_of_sources_that_nobody_serves_are_told_as_far_as_the_lake_knows() {
    let folder = folder_with(&unreachable_sources());
    let output = lakeward(folder.path(), &["position"]);
    assert_exit(&output, 7);
    assert_no_secret(&output);
    let told = text(&output.stdout);
    assert_eq!(told.matches("cannot connect to 127.0.0.1").count(), 2, "{told}");
    assert_eq!(told.matches("nothing yet: lakeward has not run for this source").count(), 2, "{told}");

    let output = lakeward(folder.path(), &["position", "--source", "points", "--json"]);
    assert_exit(&output, 7);
    assert_no_secret(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((&report["exit_code"], &report["sources"][0]["source"]), (&7.into(), &"points".into()));
    assert_eq!(report["sources"].as_array().map(Vec::len), Some(1));

    for (arguments, expected) in [
        (&["--source", "other"][..], "there is no source `other` in the configuration; there are: booking, points"),
        (&["--at", "1A/16B3748"], "no source has a log with positions such as pg:1A/16B3748"),
        (&["--at", "2026-01-31 14:00", "--source", "points"], "the lake has nothing of source `points` yet"),
        (
            &["--at", "2026-01-31 14:00", "booking.a", "--source", "points"],
            "the lake has nothing of source `points` yet",
        ),
        (
            &["--at", "2026-01-31 14:00", "points/a.b", "--source", "booking"],
            "points/a.b is no table of source `booking`",
        ),
        (&["--at", "2026-01-31", "booking.a"], "may be a day or a GTID"),
        (&["--at", "2026-01-31 14:00", "cupons"], "database.table"),
    ] {
        let output = lakeward(folder.path(), &[&["position"], arguments].concat());
        assert_exit(&output, 2);
        assert_no_secret(&output);
        assert!(text(&output.stderr).contains(expected), "{arguments:?}:\n{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn init_of_a_closed_port_exits_with_7_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("mysql://cdc@127.0.0.1:{}", closed_port());
    let output = lakeward(folder.path(), &["init", "--source", &url, "--lake", "lake"]);
    assert_exit(&output, 7);
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
}
