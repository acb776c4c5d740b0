//! Trouble of one table: the others go on.

use super::*;

on_each!(a_table_without_a_key_is_named_and_the_others_go_on, a_changed_table_stops_alone_and_the_readme_leads_back,);

async fn a_table_without_a_key_is_named_and_the_others_go_on(kind: Kind) {
    // MySQL logs whole rows: there it is followed (tests/keyless.rs).
    if kind != Kind::Postgres {
        return;
    }
    let Some(mut case) = Case::new(kind, "nokey").await else { return };
    case.session
        .run("CREATE TABLE keyless (a INT NOT NULL, b INT); INSERT INTO keyless VALUES (1, 1), (2, NULL)")
        .await;
    let keyless = case.database.table("keyless");

    let (status, log) = case.lakeward.try_catch_up();
    assert!(status.success(), "{log}");
    assert!(log.contains(&keyless) && log.contains("primary key"), "{log}");
    case.change(10).await;
    // Nothing of ours may stand in the application's way.
    case.session.run("UPDATE keyless SET b = 5 WHERE a = 1; DELETE FROM keyless WHERE a = 2").await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    assert!(!case.lake().join(keyless.replace('.', "/")).exists());

    let (code, report) = check(&case.lakeward);
    assert_eq!(code, 13, "{report:#}");
    let found = problems(&report);
    assert_eq!(found.len(), 1, "{report:#}");
    assert_eq!((found[0].kind.as_str(), found[0].subject.as_str()), ("table", format!("table {keyless}").as_str()));
    assert!(found[0].remedy.contains("primary key") && found[0].remedy.contains("contract"), "{found:?}");

    // As the remedy says.
    if kind == Kind::Postgres {
        case.session.run("ALTER TABLE keyless REPLICA IDENTITY FULL").await;
    }
    let contracts = case.scratch.path().join("schemas");
    fs::create_dir(&contracts).expect("writable");
    fs::write(contracts.join("keyless.toml"), format!("table = \"{keyless}\"\nkey = [\"a\"]\n")).expect("writable");
    let (code, report) = check(&case.lakeward);
    assert_eq!(code, 0, "{report:#}");
    case.lakeward.catch_up();
    let all = ["bookings", "coupons", "keyless"];
    case.assert_equal(&all);
    case.session
        .run("INSERT INTO keyless VALUES (3, 3), (4, 4); UPDATE keyless SET b = 9 WHERE a = 1; DELETE FROM keyless WHERE a = 3")
        .await;
    case.change(11).await;
    case.lakeward.catch_up();
    case.assert_equal(&all);
    case.database.drop().await;
}

/// README, "When a table stopped".
async fn a_changed_table_stops_alone_and_the_readme_leads_back(kind: Kind) {
    let Some(mut case) = Case::new(kind, "ddl").await else { return };
    case.configure("[schema_changes]\nchange = \"fail\"");
    case.lakeward.catch_up();
    let bookings = case.database.table("bookings");
    let folder = case.lake().join(bookings.replace('.', "/"));
    let before = contents(&folder);

    // Rounds what is there, which no log tells.
    case.session
        .run(match kind {
            Kind::Postgres => "ALTER TABLE bookings ALTER COLUMN price TYPE DECIMAL(10,1)",
            Kind::MariaDb | Kind::MySql => "ALTER TABLE bookings MODIFY price DECIMAL(10,1)",
        })
        .await;
    case.session.run("INSERT INTO bookings VALUES (10, 'Di', 1.5); INSERT INTO coupons VALUES ('D', 0.2)").await;
    for _ in 0..2 {
        // Again at the next start: whoever looks only then must see it too.
        let (status, log) = case.lakeward.try_catch_up();
        assert_eq!(status.code(), Some(13), "{log}");
        assert!(log.contains(&bookings) && log.contains("`price`"), "{log}");
        case.assert_equal(&["coupons"]);
        assert_eq!(contents(&folder), before, "the stopped table was touched");
        let tables = case.lakeward.tables();
        let state = |name: &str| {
            let tables = tables.as_array().expect("a list");
            let table = tables.iter().find(|table| table["table"] == case.database.table(name));
            table.unwrap_or_else(|| panic!("no {name}: {tables:#?}")).clone()
        };
        assert_eq!(state("coupons")["state"], "streaming");
        assert_eq!(state("bookings")["state"], "stopped");
        let reason = state("bookings")["error"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("`price`"), "{reason}");
        case.session.run("UPDATE coupons SET discount = discount + 1 WHERE code = 'D'").await;
    }

    fs::remove_dir_all(&folder).expect("the table's folder");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.session.run("UPDATE bookings SET price = 4 WHERE id = 10; INSERT INTO bookings VALUES (11, 'Ed', 2)").await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    let (code, text) = ended(&case.lakeward, &["tables"]);
    assert_eq!(code, 0);
    assert!(!text.contains("stopped"), "{text}");
    case.database.drop().await;
}

/// A session may leave row format, and no setting of the server keeps it from that.
async fn statement_in_the_log(kind: Kind) {
    let Some(mut case) = Case::new(kind, "statement").await else { return };
    case.lakeward.catch_up();
    case.session
        .run(
            "SET SESSION binlog_format = 'STATEMENT';
             UPDATE bookings SET price = 7 WHERE id = 2;
             SET SESSION binlog_format = 'ROW';
             INSERT INTO coupons VALUES ('after', 1)",
        )
        .await;
    let (status, log) = case.lakeward.try_catch_up();
    assert_eq!(status.code(), Some(13), "{log}");
    case.assert_equal(&["coupons"]);
    let bookings = case.database.table("bookings");
    assert!(log.contains(&bookings) && log.contains("binlog_format"), "{log}");

    fs::remove_dir_all(case.lake().join(bookings.replace('.', "/"))).expect("the table's folder");
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_in_the_log_stops_its_table_mariadb() {
    statement_in_the_log(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_in_the_log_stops_its_table_mysql() {
    statement_in_the_log(Kind::MySql).await;
}
