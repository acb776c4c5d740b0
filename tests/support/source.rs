//! The databases of the test run, as an application sees them.

use mysql_async::prelude::Queryable;

use super::setting;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MariaDb,
    MySql,
    Postgres,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::MariaDb, Self::MySql, Self::Postgres];

    /// As scripts/server.sh names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }

    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::MariaDb => "LAKEWARD_TEST_MARIADB_PORT",
            Self::MySql => "LAKEWARD_TEST_MYSQL_PORT",
            Self::Postgres => "LAKEWARD_TEST_POSTGRES_PORT",
        }
    }
}

/// A database of one test: on MySQL and MariaDB a database, on PostgreSQL too, with the tables in schema `public`.
pub struct Database {
    pub kind: Kind,
    pub name: String,
    pub port: u16,
}

/// One application's session.
pub enum Session {
    MySql(mysql_async::Conn),
    Postgres(tokio_postgres::Client),
}

impl Database {
    /// Creates it, or says `SKIPPED` when the server is missing.
    pub async fn create(kind: Kind, test: &str) -> Option<Self> {
        let port = setting(kind.variable())?.parse().expect("a port");
        Some(Self::create_on(kind, port, test).await)
    }

    /// The same on a server that a test started for itself.
    pub async fn create_on(kind: Kind, port: u16, test: &str) -> Self {
        let name = format!("{test}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        Self::create_as(kind, port, name).await
    }

    /// The same under a name of the caller's.
    pub async fn create_as(kind: Kind, port: u16, name: String) -> Self {
        let database = Self { kind, name, port };
        match kind {
            Kind::MariaDb | Kind::MySql => {
                let mut session = mysql_async::Conn::new(database.mysql_options(None)).await.expect("the server runs");
                let create = format!("CREATE DATABASE `{}` CHARACTER SET utf8mb4", database.name);
                session.query_drop(create).await.expect("app may create databases");
            }
            Kind::Postgres => {
                let admin = database.postgres_client("postgres").await;
                admin.batch_execute(&format!("CREATE DATABASE {}", database.name)).await.expect("superuser");
                let grant = format!("GRANT CREATE ON DATABASE {} TO cdc", database.name);
                admin.batch_execute(&grant).await.expect("superuser");
                let inside = database.postgres_client(&database.name).await;
                inside.batch_execute("GRANT CREATE ON SCHEMA public TO cdc").await.expect("superuser");
            }
        }
        database
    }

    fn mysql_options(&self, database: Option<&str>) -> mysql_async::Opts {
        mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("app"))
            .pass(Some("app"))
            .db_name(database)
            .into()
    }

    async fn postgres_client(&self, database: &str) -> tokio_postgres::Client {
        let options = format!("host=127.0.0.1 port={} user=postgres password=postgres dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&options, tokio_postgres::NoTls).await.expect("it runs");
        tokio::spawn(connection);
        client
    }

    pub async fn session(&self) -> Session {
        match self.kind {
            Kind::MariaDb | Kind::MySql => Session::MySql(
                mysql_async::Conn::new(self.mysql_options(Some(&self.name))).await.expect("the server runs"),
            ),
            Kind::Postgres => {
                let session = self.postgres_client(&self.name).await;
                // A publication can only be made by the owner of its tables.
                session.batch_execute("SET ROLE cdc").await.expect("superuser");
                Session::Postgres(session)
            }
        }
    }

    /// A session that may do everything in this database and at the server.
    pub async fn admin(&self) -> Session {
        match self.kind {
            Kind::MariaDb | Kind::MySql => self.session().await,
            Kind::Postgres => Session::Postgres(self.postgres_client(&self.name).await),
        }
    }

    /// `table` as lakeward and the oracle name it.
    pub fn table(&self, table: &str) -> String {
        match self.kind {
            Kind::MariaDb | Kind::MySql => format!("{}.{table}", self.name),
            Kind::Postgres => format!("public.{table}"),
        }
    }

    /// The url by which the oracle reads it.
    pub fn oracle_url(&self) -> String {
        match self.kind {
            Kind::MariaDb | Kind::MySql => format!("mysql://app:app@127.0.0.1:{}/", self.port),
            Kind::Postgres => format!("postgres://postgres:postgres@127.0.0.1:{}/{}", self.port, self.name),
        }
    }

    /// Its `[[source]]` for config.toml, named `src`, capturing all its tables; the password comes from
    /// LAKEWARD_TEST_PASSWORD.
    pub fn source_toml(&self) -> String {
        let (url, tables) = match self.kind {
            Kind::MariaDb | Kind::MySql => (format!("mysql://cdc@127.0.0.1:{}", self.port), format!("{}.*", self.name)),
            Kind::Postgres => (format!("postgres://cdc@127.0.0.1:{}/{}", self.port, self.name), "public.*".to_owned()),
        };
        // Two readers of one server need ids of their own, and slots are named per server, not per database.
        let unique = match self.kind {
            Kind::MariaDb | Kind::MySql => format!("server_id = {}", 1_000_000 + rand::random::<u32>() % 1_000_000),
            Kind::Postgres => format!("slot = \"{}\"", self.name),
        };
        format!(
            "[[source]]\nname = \"src\"\nurl = \"{url}\"\npassword_file = \"password\"\ntables = [\"{tables}\"]\n{unique}\n"
        )
    }

    /// Removes what would burden the server's other tests: PostgreSQL's slot.
    pub async fn drop(self) {
        if self.kind == Kind::Postgres {
            let admin = self.postgres_client("postgres").await;
            let drop_slot = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE database = '{}' AND NOT active",
                self.name
            );
            let _ = admin.batch_execute(&drop_slot).await;
        }
    }
}

impl Session {
    /// Runs statements separated by `;` (none inside strings).
    pub async fn run(&mut self, sql: &str) {
        if let Err(error) = self.try_run(sql).await {
            panic!("{sql}: {error}");
        }
    }

    pub async fn try_run(&mut self, sql: &str) -> Result<(), String> {
        match self {
            Self::MySql(session) => {
                for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
                    session.query_drop(statement).await.map_err(|error| error.to_string())?;
                }
                Ok(())
            }
            Self::Postgres(session) => session.batch_execute(sql).await.map_err(|error| match error.as_db_error() {
                Some(database) => database.to_string(),
                None => error.to_string(),
            }),
        }
    }

    /// The first value of the first row, as text.
    pub async fn value(&mut self, sql: &str) -> Option<String> {
        match self {
            Self::MySql(session) => {
                let row: Option<mysql_async::Row> =
                    session.query_first(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                row?.get(0)
            }
            Self::Postgres(session) => {
                let answer = session.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                answer.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
            }
        }
    }
}
