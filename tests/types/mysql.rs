//! M-1 to M-27: the types of MySQL and MariaDB.
