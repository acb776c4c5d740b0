//! Every type of every kind of source, as a table: the source's SQL on the left, the lake's value on the right; through
//! first load, INSERT, UPDATE and DELETE on real servers, read back by DuckDB.

#[path = "../support/mod.rs"]
mod support;

mod mysql;
mod postgres;
