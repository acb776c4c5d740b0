//! The forms that a notice takes, and what `lakeward notify` does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lakeward::config::EVENT_KINDS;
use serde_json::{Value, json};

use crate::servers::{Server, make_certificate, validate};
use crate::{Place, entry};

const SECRET: &str = "PLANTED-71c4";

async fn append_every_kind(place: &Place) {
    let mut outbox = place.outbox("booking").await;
    for kind in EVENT_KINDS {
        outbox.append(&entry(kind, "booking", "booking.coupons")).await.expect("a folder");
    }
}

#[tokio::test]
async fn every_kind_arrives_signed_over_tls_and_fits_its_schema() {
    let mut place = Place::new("notice-webhook");
    if make_certificate(place.path()).is_none() {
        return;
    }
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let tls = ["--secret", SECRET, "--tls", cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8")];
    let mut server = Server::new("receiver.py", place.path(), &tls);
    server.start();
    fs::write(place.path().join("secret"), SECRET).expect("writable");
    place.contract("booking.coupons", &["marketing"]);
    place.configure(&format!(
        "[[notice]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"https://localhost:{}/in?key={SECRET}\"\n\
         secret_file = \"secret\"\ntls_ca_file = \"ca.pem\"\n",
        server.port
    ));
    let deliveries = place.start("booking").await;
    append_every_kind(&place).await;
    deliveries.finish(Duration::from_secs(30)).await;
    let took = server.took();
    let events: Vec<Value> = took.iter().map(|line| line["body"].clone()).collect();
    let mut kinds = EVENT_KINDS.map(str::to_owned);
    kinds.sort();
    assert_eq!(validate(&events), kinds);
    for line in &took {
        assert_eq!(line["signature"], "valid");
        assert_eq!(line["headers"]["content-type"], "application/cloudevents+json; charset=utf-8");
        assert_eq!(line["path"], format!("/in?key={SECRET}"));
    }
    let sequence: Vec<&str> = events.iter().filter_map(|event| event["sequence"].as_str()).collect();
    assert!(sequence.is_sorted() && sequence.len() == events.len(), "{sequence:?}");
    let changed = &events[0];
    assert_eq!(changed["source"], "lakeward/booking");
    assert_eq!(changed["subject"], "booking.coupons");
    assert_eq!(changed["data"]["owners"], json!(["marketing"]));
    assert_eq!(changed["data"]["after"][2]["source_type"], "varchar(20)");
    assert_eq!(changed["data"]["steps"][0]["outcome"], "applied");
    assert_eq!(changed["data"]["lake_version"], 42);
}

#[tokio::test]
async fn slack_gets_a_message_for_people() {
    let mut place = Place::new("notice-slack");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.contract("booking.coupons", &["marketing"]);
    place.configure(&format!(
        "[[notice]]\nname = \"team\"\nkind = \"slack\"\nurl = \"http://127.0.0.1:{}/services/{SECRET}\"\n\
         events = [\"schema.*\"]\ntimezone = \"Asia/Seoul\"\n",
        server.port
    ));
    let deliveries = place.start("booking").await;
    append_every_kind(&place).await;
    deliveries.finish(Duration::from_secs(30)).await;
    let got = server.got();
    assert_eq!(got.len(), 3);
    let message = &got[0]["body"];
    let title =
        "booking.coupons: column `grade` (varchar(20)) is new, with `bronze` in the old rows, and 1 change more";
    assert_eq!(message["text"], title);
    let blocks = message["blocks"].to_string();
    for told in [
        "marketing",
        "2026-03-02 10:20 KST",
        "Old rows have the same value in `grade`",
        "Write `amount` instead of `price`",
    ] {
        assert!(blocks.contains(told), "{told} in {blocks}");
    }
}

#[tokio::test]
async fn a_command_gets_events_on_stdin_and_is_run_again_until_it_succeeds() {
    let mut place = Place::new("notice-command");
    let script = place.path().join("take.sh");
    fs::write(
        &script,
        "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$1 $LAKEWARD_EVENT_TYPE\" >>tried\n[ -e allowed ] || exit 3\ncat >>taken\n",
    )
    .expect("writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("ours");
    place.configure(&format!(
        "[[notice]]\nname = \"script\"\nkind = \"command\"\ncommand = [{:?}, \"an argument\"]\n",
        script.to_str().expect("UTF-8")
    ));
    let deliveries = place.start("booking").await;
    let mut outbox = place.outbox("booking").await;
    let entered = entry("table.stopped", "booking", "booking.a");
    outbox.append(&entered).await.expect("a folder");
    let tried = place.path().join("tried");
    while fs::read_to_string(&tried).unwrap_or_default().lines().count() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!place.path().join("taken").exists());
    fs::write(place.path().join("allowed"), "").expect("writable");
    while !place.path().join("taken").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    deliveries.finish(Duration::from_secs(10)).await;
    let taken = fs::read_to_string(place.path().join("taken")).expect("just looked");
    let events: Vec<Value> = taken.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["id"], json!(entered.id));
    assert!(fs::read_to_string(&tried).expect("there").starts_with("an argument io.lakeward.table.stopped\n"));
}

#[tokio::test]
async fn a_mail_goes_to_the_owners_with_the_event_attached() {
    let mut place = Place::new("notice-email");
    if make_certificate(place.path()).is_none() {
        return;
    }
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let options = ["--tls", cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"), "--login", "lakeward", SECRET];
    let mut server = Server::new("mailbox.py", place.path(), &options);
    server.start();
    fs::write(place.path().join("password"), SECRET).expect("writable");
    place.contract("booking.coupons", &["kim@example.org", "the marketing team"]);
    place.configure(&format!(
        "[[notice]]\nname = \"post\"\nkind = \"email\"\nsmtp_url = \"smtp://lakeward@localhost:{}\"\n\
         password_file = \"password\"\ntls_ca_file = \"ca.pem\"\nfrom = \"lakeward <lakeward@example.org>\"\n\
         to = [\"Data <data@example.org>\"]\nto_owners = true\nevents = [\"schema.changed\"]\n",
        server.port
    ));
    server.answer(&json!({"answer": "451 later"}));
    let deliveries = place.start("booking").await;
    append_every_kind(&place).await;
    while server.got().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.answer(&Value::Null);
    let mails = server.wait_for(1).await;
    deliveries.finish(Duration::from_secs(10)).await;
    let mail = &mails[0];
    assert_eq!(mail["to"], json!(["data@example.org", "kim@example.org"]));
    assert_eq!((&mail["from"], &mail["tls"]), (&json!("lakeward@example.org"), &json!(true)));
    assert!(mail["subject"].as_str().unwrap_or_default().starts_with("[lakeward] booking.coupons: column `grade`"));
    assert!(mail["text"].as_str().unwrap_or_default().contains("What to do:"), "{mail}");
    let attached = &mail["attachments"][0];
    assert_eq!(
        (&attached["name"], &attached["type"]),
        (&json!("schema.changed.json"), &json!("application/cloudevents+json"))
    );
    let event: Value = serde_json::from_str(attached["content"].as_str().unwrap_or_default()).expect("JSON");
    assert_eq!(validate(std::slice::from_ref(&event)), ["schema.changed"]);
    let id = event["id"].as_str().unwrap_or_default();
    assert_eq!(mail["message_id"], format!("<{id}@example.org>"));
    assert_eq!(server.got()[0]["message_id"], mail["message_id"], "the same at every try");
}

fn notify(place: &Place, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_lakeward"))
        .args(["notify"])
        .args(arguments)
        .args(["--log-level", "trace,lakeward=trace"])
        .current_dir(place.path())
        .output()
        .expect("the command runs");
    for stream in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(stream).contains(SECRET), "{}", String::from_utf8_lossy(stream));
    }
    output
}

#[tokio::test]
async fn notify_test_sends_marked_samples_and_tells_what_came_back() {
    let mut place = Place::new("notice-test");
    let mut server = Server::new("receiver.py", place.path(), &["--secret", SECRET]);
    if server.start().is_none() {
        return;
    }
    place.contract("booking.coupons", &["marketing"]);
    place.configure(&format!(
        "[[notice]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/{SECRET}\"\nsecret = \"{SECRET}\"\n\
         events = [\"schema.*\"]\ndigest = \"09:00\"\n\
         [[notice]]\nname = \"gone\"\nkind = \"slack\"\nurl = \"http://127.0.0.1:{closed}/{SECRET}\"\n",
        port = server.port,
        closed = crate::servers::free_port(),
    ));
    let output = notify(&place, &["test", "hook", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let kinds: Vec<&Value> = report["sent"].as_array().expect("a list").iter().map(|sent| &sent["kind"]).collect();
    assert_eq!(kinds, ["schema.changed", "schema.held", "schema.refused", "digest"]);
    assert_eq!(report["sent"][0]["answer"], "200 OK: ok");
    let events: Vec<Value> = server.took().iter().map(|line| line["body"].clone()).collect();
    assert_eq!(validate(&events), ["digest", "schema.changed", "schema.held", "schema.refused"]);
    assert!(events.iter().all(|event| event["data"]["sample"] == json!(true)));
    assert_eq!(events[0]["subject"], "booking.coupons");

    let output = notify(&place, &["test", "hook", "--kind", "source.lagging"]);
    assert_eq!(output.status.code(), Some(0));
    server.answer(&json!({"status": 401}));
    let output = notify(&place, &["test", "hook"]);
    assert_eq!(output.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&output.stdout).contains("it answered 401 Unauthorized: not now"));
    let output = notify(&place, &["test", "gone", "--kind", "table.stopped"]);
    assert_eq!(output.status.code(), Some(14));
    for (arguments, told) in [
        (&["test", "nobody"][..], "there is no channel `nobody`; there are hook, gone"),
        (&["test", "hook", "--kind", "x"], "there is no kind `x`"),
    ] {
        let output = notify(&place, arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{}", String::from_utf8_lossy(&output.stderr));
    }

    let deliveries = place.start("booking").await;
    let mut outbox = place.outbox("booking").await;
    outbox.append(&entry("schema.held", "booking", "booking.coupons")).await.expect("a folder");
    let list = || {
        let output = notify(&place, &["list", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("one JSON document")
    };
    // Its receiver has answered, however busy the machine is.
    let begun = Instant::now();
    while list()[0]["refused"] != json!(1) && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    deliveries.finish(Duration::from_millis(1500)).await;
    let report = list();
    assert_eq!((&report[0]["waiting"], &report[0]["refused"]), (&json!(1), &json!(1)));
    assert_eq!((&report[1]["waiting"], &report[1]["refused"]), (&json!(1), &json!(0)));
    assert_eq!(report[0]["digest"], "09:00 UTC");
    let output = notify(&place, &["list"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("CHANNEL  KIND"), "{output:?}");
}
