#!/bin/bash
# Run once by the MySQL image, on an empty data folder.
set -eu
mysql -uroot -p"$MYSQL_ROOT_PASSWORD" <<SQL
CREATE USER cdc@'%' IDENTIFIED BY '$MYSQL_CDC_PASSWORD';
GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, LOCK TABLES, SHOW VIEW ON *.* TO cdc@'%';
SQL
