//! Passwords and privileges.

use super::*;

on_each!(a_wrong_password_is_told_and_never_printed, each_missing_privilege_is_named_with_the_statement_that_grants_it,);

async fn a_wrong_password_is_told_and_never_printed(kind: Kind) {
    let Some(mut case) = Case::new(kind, "password").await else { return };
    case.lakeward.catch_up();
    let before = contents(&case.lake());
    case.change(10).await;

    let wrong = "not-the-password-8163";
    fs::write(case.scratch.path().join("password"), wrong).expect("writable");
    for arguments in [&["check"][..], &["check", "--json"], &["run", "--until-caught-up", "--json"], &["run"]] {
        let (code, output) = ended(&case.lakeward, &[arguments, &["--log-level", "trace"]].concat());
        assert_eq!(code, 8, "{arguments:?}: {output}");
        assert!(output.contains("refused user `cdc`") && output.contains("password_file"), "{arguments:?}: {output}");
        assert!(!output.contains(wrong), "{arguments:?} prints the password: {output}");
    }
    assert_eq!(contents(&case.lake()), before);

    fs::write(case.scratch.path().join("password"), "cdc\n").expect("writable");
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.database.drop().await;
}

#[test]
fn a_password_file_that_is_not_there_is_a_wrong_configuration() {
    let scratch = Scratch::new("no-password");
    let source = "[[source]]\nname = \"src\"\nurl = \"mysql://cdc@127.0.0.1:1\"\npassword_file = \"nowhere\"\ntables = [\"a.*\"]\n";
    let lakeward = lakeward(scratch.path(), source);
    for arguments in [&["check"][..], &["check", "--json"], &["run"], &["tables"]] {
        let (code, output) = ended(&lakeward, arguments);
        assert_eq!(code, 2, "{arguments:?}: {output}");
        assert!(output.contains("password_file") && output.contains("nowhere"), "{arguments:?}: {output}");
    }
}

/// A user with some grants, and what `check` must say it lacks.
struct Lacking {
    grants: &'static [&'static str],
    /// Subject and the beginning of the statement, in any order.
    missing: &'static [(&'static str, &'static str)],
}

const fn lacking(grants: &'static [&'static str], missing: &'static [(&'static str, &'static str)]) -> Lacking {
    Lacking { grants, missing }
}

/// `@db` stands for the database.
const MARIADB: [Lacking; 4] = [
    lacking(
        &["BINLOG MONITOR ON *.*", "SELECT ON @db.*"],
        &[("privilege REPLICATION SLAVE", "GRANT REPLICATION SLAVE ON *.* TO '@user'@'%'")],
    ),
    lacking(
        &["REPLICATION SLAVE, BINLOG MONITOR ON *.*"],
        &[("pattern @db.*", "GRANT SELECT ON `@db`.* TO '@user'@'%'")],
    ),
    lacking(
        &["REPLICATION SLAVE, BINLOG MONITOR ON *.*", "SELECT ON @db.coupons", "INSERT ON @db.bookings"],
        &[("table @db.bookings", "GRANT SELECT ON `@db`.`bookings` TO '@user'@'%'")],
    ),
    lacking(
        &[],
        &[
            ("privilege REPLICATION SLAVE", "GRANT REPLICATION SLAVE ON *.* TO '@user'@'%'"),
            ("privilege BINLOG MONITOR", "GRANT BINLOG MONITOR ON *.* TO '@user'@'%'"),
            ("pattern @db.*", "GRANT SELECT ON `@db`.* TO '@user'@'%'"),
        ],
    ),
];

const MYSQL: [Lacking; 4] = [
    lacking(
        &["REPLICATION CLIENT, RELOAD ON *.*", "SELECT ON @db.*"],
        &[("privilege REPLICATION SLAVE", "GRANT REPLICATION SLAVE ON *.* TO '@user'@'%'")],
    ),
    lacking(
        &["REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, XA_RECOVER_ADMIN ON *.*"],
        &[("pattern @db.*", "GRANT SELECT ON `@db`.* TO '@user'@'%'")],
    ),
    lacking(
        &[
            "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, XA_RECOVER_ADMIN ON *.*",
            "SELECT ON @db.coupons",
            "INSERT ON @db.bookings",
        ],
        &[("table @db.bookings", "GRANT SELECT ON `@db`.`bookings` TO '@user'@'%'")],
    ),
    lacking(
        &[],
        &[
            ("privilege REPLICATION SLAVE", "GRANT REPLICATION SLAVE ON *.* TO '@user'@'%'"),
            ("privilege REPLICATION CLIENT", "GRANT REPLICATION CLIENT ON *.* TO '@user'@'%'"),
            ("privilege RELOAD", "GRANT RELOAD ON *.* TO '@user'@'%'"),
            ("pattern @db.*", "GRANT SELECT ON `@db`.* TO '@user'@'%'"),
        ],
    ),
];

/// The first grant of each is the role's attribute. The publication is there, made by a superuser.
const POSTGRES: [Lacking; 4] = [
    lacking(
        &["NOREPLICATION", "SELECT ON ALL TABLES IN SCHEMA public"],
        &[("user @user", "ALTER ROLE \"@user\" REPLICATION")],
    ),
    lacking(
        &["REPLICATION"],
        &[("tables of schema public", "GRANT SELECT ON \"public\".\"bookings\", \"public\".\"coupons\" TO \"@user\"")],
    ),
    lacking(
        &["REPLICATION", "SELECT ON coupons"],
        &[("tables of schema public", "GRANT SELECT ON \"public\".\"bookings\" TO \"@user\"")],
    ),
    lacking(
        &["NOREPLICATION"],
        &[
            ("user @user", "ALTER ROLE \"@user\" REPLICATION"),
            ("tables of schema public", "GRANT SELECT ON \"public\".\"bookings\", \"public\".\"coupons\" TO \"@user\""),
        ],
    ),
];

async fn create_user(case: &Case, admin: &mut Session, user: &str, grants: &[&str]) {
    let mut statements = match case.database.kind {
        Kind::MariaDb | Kind::MySql => vec![format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'cdc'")],
        Kind::Postgres => vec![format!("CREATE ROLE {user} LOGIN {} PASSWORD 'cdc'", grants[0])],
    };
    let rest = if case.database.kind == Kind::Postgres { &grants[1..] } else { grants };
    for grant in rest {
        let to = if case.database.kind == Kind::Postgres { user.to_owned() } else { format!("'{user}'@'%'") };
        statements.push(format!("GRANT {} TO {to}", grant.replace("@db", &case.database.name)));
    }
    admin.run(&statements.join(";")).await;
}

async fn each_missing_privilege_is_named_with_the_statement_that_grants_it(kind: Kind) {
    let Some(mut case) = Case::new(kind, "grants").await else { return };
    let mut admin = case.database.admin().await;
    if kind == Kind::Postgres {
        admin.run("CREATE PUBLICATION lakeward_src FOR TABLE ONLY public.bookings, ONLY public.coupons").await;
    }
    let users = match kind {
        Kind::MariaDb => &MARIADB,
        Kind::MySql => &MYSQL,
        Kind::Postgres => &POSTGRES,
    };
    for (number, lacking) in users.iter().enumerate() {
        let user = format!("u{number}_{}", &case.database.name["grants_".len()..]);
        let fill = |text: &str| text.replace("@db", &case.database.name).replace("@user", &user);
        create_user(&case, &mut admin, &user, lacking.grants).await;
        // A lake, and on PostgreSQL a slot, for each.
        case.scratch = Scratch::new("grants");
        let source = case.database.source_toml().replace("//cdc@", &format!("//{user}@"));
        let slot = format!("slot = \"{}", case.database.name);
        case.lakeward = lakeward(case.scratch.path(), &source.replace(&slot, &format!("{slot}_{number}")));

        let wanted: Vec<(String, String)> =
            lacking.missing.iter().map(|(subject, remedy)| (fill(subject), fill(remedy))).collect();
        let remedies: Vec<&str> = wanted.iter().map(|(_, remedy)| remedy.as_str()).collect();
        every_command_says(&case.lakeward, 6, &remedies);
        assert!(!case.lake().exists(), "nothing is loaded before all is right");

        let (_, report) = check(&case.lakeward);
        let found = problems(&report);
        let mut subjects: Vec<&str> = found.iter().map(|problem| problem.subject.as_str()).collect();
        let mut expected: Vec<&str> = wanted.iter().map(|(subject, _)| subject.as_str()).collect();
        subjects.sort_unstable();
        expected.sort_unstable();
        assert_eq!(subjects, expected, "{report:#}");
        for problem in &found {
            assert_eq!(problem.kind, "privilege", "{problem:?}");
            admin.run(&problem.remedy).await;
        }

        let (code, report) = check(&case.lakeward);
        assert_eq!(code, 0, "{report:#}");
        case.lakeward.catch_up();
        case.assert_equal(&BOTH);
    }
    case.database.drop().await;
}

/// README: either a superuser makes the publication, or lakeward is given what it needs to make it itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_cannot_be_made_is_named_with_both_ways_out() {
    let Some(mut case) = Case::new(Kind::Postgres, "publish").await else { return };
    let mut admin = case.database.admin().await;
    let user = format!("u_{}", case.database.name);
    admin
        .run(&format!(
            "CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'cdc'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"
        ))
        .await;
    let source = case.database.source_toml().replace("//cdc@", &format!("//{user}@"));
    case.lakeward = lakeward(case.scratch.path(), &source);
    every_command_says(&case.lakeward, 6, &["may not create it", "CREATE PUBLICATION \"lakeward_src\""]);
    let (_, report) = check(&case.lakeward);
    let found = problems(&report);
    assert_eq!(found.len(), 1, "{report:#}");
    let remedy = &found[0].remedy;
    let (create, grants) = remedy.split_once("; or let lakeward manage it: ").unwrap_or_else(|| panic!("{remedy}"));
    assert!(create.starts_with("as a superuser run: CREATE PUBLICATION"), "{remedy}");
    admin.run(grants).await;
    case.lakeward.catch_up();
    case.change(10).await;
    case.lakeward.catch_up();
    case.assert_equal(&BOTH);
    case.database.drop().await;
}
