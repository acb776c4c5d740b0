-- The demo's PostgreSQL database "loyalty": points and settlements. Run in that database by a superuser.
-- lakeward's role `cdc` reads all, and makes its own publication: for that it needs CREATE on the database and to own the
-- tables, which it does as a member of their owner.
CREATE ROLE loyalty_owner NOLOGIN;
GRANT loyalty_owner TO cdc;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO cdc', current_database()); END $$;
GRANT CREATE, USAGE ON SCHEMA public TO loyalty_owner;

CREATE TYPE point_reason AS ENUM ('stay', 'review', 'event', 'use', 'expiry');
CREATE TYPE settlement_state AS ENUM ('open', 'closed', 'paid');

CREATE TABLE points (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    member_id   uuid NOT NULL,
    member_name text NOT NULL,
    reason      point_reason NOT NULL,
    points      integer NOT NULL,
    balance     numeric(14, 2) NOT NULL,
    tags        text[] NOT NULL DEFAULT '{}',
    context     jsonb,
    expires_on  date,
    accrued_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE settlements (
    host_code   varchar(12) NOT NULL,
    period      date NOT NULL,
    host_name   varchar(80) NOT NULL,
    state       settlement_state NOT NULL DEFAULT 'open',
    bookings    smallint NOT NULL DEFAULT 0,
    gross       numeric(16, 2) NOT NULL DEFAULT 0,
    fee_rate    real NOT NULL,
    fee         numeric(16, 2) NOT NULL DEFAULT 0,
    exchange    double precision,
    is_domestic boolean NOT NULL,
    cutoff      time NOT NULL DEFAULT '18:00',
    country     char(3) NOT NULL,
    note        text,
    document    bytea,
    closed_at   timestamp,
    PRIMARY KEY (host_code, period)
);

ALTER TABLE points OWNER TO loyalty_owner;
ALTER TABLE settlements OWNER TO loyalty_owner;
