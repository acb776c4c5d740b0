#!/bin/bash
# Run once by the PostgreSQL image, on an empty data folder, before the schema (which makes cdc a member of the owner).
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d loyalty -v password="$POSTGRES_CDC_PASSWORD" <<'SQL'
CREATE ROLE cdc LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_data TO cdc;
SQL
