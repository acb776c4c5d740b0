"""The servers of a measurement, one class for each way they are spoken to: a database of its own, SQL where they differ, the server's own
tool that reads its log to nowhere, and what goes into lakeward's configuration."""

import os
import subprocess
import sys
import time

import harness
import psycopg
import pymysql

sys.path.insert(0, f"{harness.ROOT}/tests/oracle")
import lake as reader  # noqa: E402


class Database:
    """What both have."""

    def compare(self, lake, table):
        """Every column of every row, by another reader."""
        harness.compare(self.oracle_url, lake, f"{self.schema}.{table}")

    def sums_of_lake(self, url, columns):
        """As the sources compute them: rows, bytes, and the sum over all rows of the first 32 bits of the MD5 of the row's text."""
        text = f"concat_ws('|', {', '.join(map(self.of_lake, columns))})"
        sql = f"SELECT count(*), sum(strlen({text}))::VARCHAR, sum(('0x' || left(md5({text}), 8))::BIGINT)::VARCHAR FROM {reader.scan(url)}"
        return reader.connect().execute(sql).fetchone()

    def compare_sums(self, lake, table, columns):
        """Every row of a table so large that a comparison row by row would take longer than the measurement."""
        mine, found = self.sums(table, columns), self.sums_of_lake(f"{lake}/{self.schema}/{table}", columns)
        if tuple(mine) != tuple(found):
            sys.exit(f"{self.kind}: source and lake differ, so the figures mean nothing: {mine} and {found}")

    @staticmethod
    def of_lake(column):
        return f"epoch_us({column})" if column == "at_time" else column


class MySql(Database):
    """MariaDB or MySQL."""

    is_postgres = False
    timestamp = "DATETIME(6)"

    def __init__(self, kind, port, server_id=77001):
        self.kind, self.port, self.server_id, self.name = kind, port, server_id, f"bench_{os.getpid()}"
        self.schema = self.name
        self.connection = self.connect()
        # Of numbers, out of the way of those who follow all tables of a database.
        self.helper = f"{self.name}_numbers"
        for name in (self.name, self.helper):
            self.run(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        self.connection.select_db(self.name)
        self.run(f"CREATE TABLE {self.helper}.thousand (n INT)",
                 f"INSERT INTO {self.helper}.thousand VALUES {','.join(f'({n})' for n in range(1000))}")
        self.version = self.one("SELECT version()")[0]
        self.oracle_url = f"mysql://app:app@127.0.0.1:{port}/"

    def connect(self):
        return pymysql.connect(host="127.0.0.1", port=self.port, user="app", password="app", autocommit=True)

    def run(self, *statements):
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def one(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def moment(self, seconds):
        return f"'2026-01-01' + INTERVAL {seconds} SECOND"

    def numbers(self, first, count):
        """Numbered rows, as `id`."""
        if self.kind == "mariadb":
            return f"(SELECT seq AS id FROM seq_{first}_to_{first + count - 1})"
        thousand = f"{self.helper}.thousand"
        return (f"(SELECT {first} + a.n * 1000 + b.n AS id FROM {thousand} a, {thousand} b"
                f" WHERE a.n < {-(-count // 1000)} AND a.n * 1000 + b.n < {count})")

    def procedure(self, name, transactions):
        """One that runs these transactions with `o` counting up."""
        body = "; ".join(f"START TRANSACTION; {'; '.join(statements)}; COMMIT" for statements in transactions)
        self.run(f"CREATE PROCEDURE {name}(start BIGINT, total BIGINT) BEGIN DECLARE o BIGINT DEFAULT start;"
                 f" WHILE o < start + total DO {body}; SET o = o + 1; END WHILE; END")

    def call(self, name, start, total):
        self.run(f"CALL {name}({start}, {total})")

    def sums(self, table, columns):
        expressions = [f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column})" if column == "at_time" else column for column in columns]
        text = f"CONCAT_WS('|', {', '.join(expressions)})"
        return self.one(f"SELECT count(*), CAST(sum(LENGTH({text})) AS CHAR), "
                        f"CAST(sum(CAST(CONV(LEFT(MD5({text}), 8), 16, 10) AS DECIMAL(30,0))) AS CHAR) FROM {table}")

    def source_toml(self, tables):
        names = ", ".join(f'"{self.name}.{table}"' for table in tables)
        return f'url = "mysql://cdc@127.0.0.1:{self.port}"\ntables = [{names}]\nserver_id = {self.server_id}\n'

    def client(self, tool):
        """A client program of the server's own, with the arguments that reach it."""
        if self.kind == "mariadb":
            command, more = [{"mysql": "mariadb", "mysqlbinlog": "mariadb-binlog"}[tool]], []
        else:
            root = os.environ["LAKEWARD_BENCH_MYSQL_ROOT"]
            libraries = f"{root}/usr/lib/x86_64-linux-gnu"
            command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{root}/usr/bin/{tool}"]
            more = ["--get-server-public-key"]
        return command + ["--no-defaults", "--host=127.0.0.1", f"--port={self.port}", "--user=cdc", "--password=cdc"] + more

    def prepare_backlog(self):
        self.run("FLUSH BINARY LOGS")
        self.start = self.one("SHOW MASTER STATUS" if self.kind == "mariadb" else "SHOW BINARY LOG STATUS")[0]

    def raw_backlog(self, folder):
        """Seconds that the server's own tool takes to stream the log since then to nowhere."""
        command = self.client("mysqlbinlog") + ["--read-from-remote-server", "--raw", f"--result-file={folder}/raw-", "--to-last-log", self.start]
        started = time.monotonic()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        for name in os.listdir(folder):
            if name.startswith("raw-"):
                os.remove(f"{folder}/{name}")
        return seconds

    def raw_table(self, table, format):
        """A command that reads a table; the text protocol is all that these clients speak."""
        return self.client("mysql") + ["--quick", "--batch", "--skip-column-names", "-e", f"SELECT * FROM {self.name}.{table}"]

    def forget(self):
        """Nothing of lakeward's stays at the server."""

    def close(self):
        self.run(f"DROP DATABASE {self.name}", f"DROP DATABASE {self.helper}")


class Postgres(Database):
    is_postgres = True
    timestamp = "TIMESTAMP"

    def __init__(self, kind, port):
        self.kind, self.port, self.name, self.schema = kind, port, f"bench_{os.getpid()}", "public"
        self.admin = psycopg.connect(self.url("postgres"), autocommit=True)
        self.admin.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        self.admin.execute(f"CREATE DATABASE {self.name}")
        self.admin.execute(f"GRANT CREATE ON DATABASE {self.name} TO cdc")
        self.connection = psycopg.connect(self.url(self.name), autocommit=True)
        self.run("GRANT CREATE ON SCHEMA public TO cdc", "SET ROLE cdc")
        self.version = self.one("SHOW server_version")[0]
        self.oracle_url = self.url(self.name)

    def url(self, database):
        return f"postgres://postgres:postgres@127.0.0.1:{self.port}/{database}"

    def run(self, *statements):
        for statement in statements:
            self.connection.execute(statement)

    def one(self, sql):
        return self.connection.execute(sql).fetchone()

    def moment(self, seconds):
        return f"timestamp '2026-01-01' + {seconds} * interval '1 second'"

    def numbers(self, first, count):
        return f"(SELECT generate_series({first}::bigint, {first + count - 1}) AS id)"

    def procedure(self, name, transactions):
        body = " ".join(f"{'; '.join(statements)}; COMMIT;" for statements in transactions)
        self.run(f"CREATE PROCEDURE {name}(start BIGINT, total BIGINT) LANGUAGE plpgsql AS $$ BEGIN"
                 f" FOR o IN start .. start + total - 1 LOOP {body} END LOOP; END $$")

    def call(self, name, start, total):
        # A procedure that commits may not run where the role was set.
        with psycopg.connect(self.url(self.name), autocommit=True) as connection:
            connection.execute(f"CALL {name}({start}, {total})")

    def sums(self, table, columns):
        expressions = [f"(extract(epoch FROM {column}) * 1000000)::bigint" if column == "at_time" else column for column in columns]
        text = f"concat_ws('|', {', '.join(expressions)})"
        return self.one(f"SELECT count(*), sum(octet_length({text}))::text, "
                        f"sum(('x' || left(md5({text}), 8))::bit(32)::bigint)::text FROM {table}")

    def source_toml(self, tables):
        names = ", ".join(f'"public.{table}"' for table in tables)
        return f'url = "postgres://cdc@127.0.0.1:{self.port}/{self.name}"\ntables = [{names}]\nslot = "{self.name}"\n'

    def prepare_backlog(self):
        self.with_rights("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", f"{self.name}_raw")

    def with_rights(self, sql, *values):
        with psycopg.connect(self.url(self.name), autocommit=True) as connection:
            connection.execute(sql, values)

    def raw_backlog(self, folder):
        end = self.one("SELECT pg_current_wal_flush_lsn()")[0]
        started = time.monotonic()
        subprocess.run(
            ["pg_recvlogical", "-d", self.url(self.name), "-S", f"{self.name}_raw", "--start", "-f", os.devnull,
             "--endpos", end, "-o", "proto_version=1", "-o", "publication_names=lakeward_bench", "--no-loop"],
            check=True, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        self.with_rights("SELECT pg_drop_replication_slot(%s)", f"{self.name}_raw")
        return seconds

    def raw_table(self, table, format):
        return ["psql", "-X", "-q", self.url(self.name), "-c", f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT {format})"]

    def forget(self):
        self.with_rights("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
                         " AND NOT active")
        for (name,) in self.connection.execute("SELECT pubname FROM pg_publication").fetchall():
            self.run(f'DROP PUBLICATION "{name}"')

    def close(self):
        self.connection.close()
        self.admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [self.name])
        self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


def each(kinds):
    """A way to open a database on each of these kinds of server that runs beside this."""
    for kind in kinds.split(","):
        port = harness.port(kind)
        if port:
            yield lambda kind=kind, port=port: (Postgres if kind == "postgres" else MySql)(kind, port)
