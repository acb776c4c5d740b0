//! The transactions of PostgreSQL.
