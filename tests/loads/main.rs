//! The lake layer alone: tables that are loaded in chunks while their changes go on, and hidden builds that are swapped in,
//! against a model, read back by DuckDB.

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod database;
mod swaps;
mod verified;
mod walk;
