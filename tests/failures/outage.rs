//! What is out of reach for a while.

use super::*;

on_each!(a_daemon_outlives_the_restart_of_its_server);

async fn a_daemon_outlives_the_restart_of_its_server(kind: Kind) {
    let Some(server) = OwnServer::start(kind, "restart", &[]) else { return };
    let Some(mut case) = Case::on(&server, "restart").await else { return };
    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("streaming");
    case.change(10).await;
    server.stop();
    std::thread::sleep(Duration::from_secs(2));
    server.start_again(&[]);
    case.session = case.database.session().await;
    case.change(11).await;

    case.becomes_equal(&mut daemon);
    let log = daemon.log();
    assert!(log.contains("trying again after a pause"), "{log}");
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

#[test]
fn a_source_that_does_not_answer_is_told() {
    for scheme in ["mysql", "postgres"] {
        let scratch = Scratch::new("no-source");
        let port = closed_port();
        let source = format!(
            "[[source]]\nname = \"src\"\nurl = \"{scheme}://cdc@127.0.0.1:{port}/a\"\npassword_file = \"password\"\ntables = [\"a.*\"]\n"
        )
        .replace(if scheme == "mysql" { "/a\"" } else { "\0" }, "\"");
        let lakeward = lakeward(scratch.path(), &source);
        for arguments in [&["check"][..], &["check", "--json"], &["run", "--until-caught-up"]] {
            let (code, output) = ended(&lakeward, arguments);
            assert_eq!(code, 7, "{arguments:?}: {output}");
            let text = format!("cannot connect to 127.0.0.1:{port}");
            assert!(output.contains(&text), "{arguments:?}: {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_does_not_answer_is_told_at_the_start() {
    let Some(case) = Case::new(Kind::Postgres, "nolake").await else { return };
    let config = format!(
        "[lake]\nurl = \"s3://lake/nowhere\"\n[lake.storage]\naws_endpoint_url = \"http://127.0.0.1:{}\"\n\
         aws_allow_http = \"true\"\naws_region = \"us-east-1\"\naws_access_key_id = \"key-5521\"\n\
         aws_secret_access_key = \"secret-5521\"\n{}",
        closed_port(),
        case.database.source_toml()
    );
    let lakeward = Lakeward::new(case.scratch.path(), &config);
    for arguments in [&["check"][..], &["run"], &["run", "--until-caught-up"]] {
        let started = Instant::now();
        let (code, output) = ended(&lakeward, arguments);
        assert_eq!(code, 12, "{arguments:?}: {output}");
        assert!(output.contains("s3://lake/nowhere") && output.contains("[lake.storage]"), "{arguments:?}: {output}");
        assert!(!output.contains("-5521"), "{arguments:?} prints credentials: {output}");
        assert!(started.elapsed() < Duration::from_secs(60), "{arguments:?} took {:?}", started.elapsed());
    }
    case.database.drop().await;
}

/// A source in trouble ends alone; the process says so when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_source_does_not_keep_the_others_from_the_lake() {
    let Some(mut case) = Case::new(Kind::MariaDb, "good").await else { return };
    let Some(bad) = Database::create(Kind::Postgres, "bad").await else { return };
    let bad = bad.source_toml().replace("\"src\"", "\"bad\"").replace("//cdc@", "//nobody@");
    case.lakeward = lakeward(case.scratch.path(), &format!("{}{bad}", case.database.source_toml()));

    let (code, report) = check(&case.lakeward);
    assert_eq!(code, 8, "{report:#}");
    assert_eq!((&report["sources"][0]["ok"], &report["sources"][1]["ok"]), (&true.into(), &false.into()), "{report:#}");
    let (status, log) = case.lakeward.try_catch_up();
    assert_eq!(status.code(), Some(8), "{log}");
    case.assert_equal(&BOTH);

    let mut daemon = case.lakeward.start();
    daemon.wait_for_log("refused user `nobody`");
    daemon.wait_for_log("streaming");
    case.change(10).await;
    case.becomes_equal(&mut daemon);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(8), "{log}");
}
