//! The transactions of MySQL and MariaDB.
