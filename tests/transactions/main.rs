//! Every form a transaction takes in the logs, on real servers: the source's SQL on the left, what the lake must hold on the
//! right. IDs (X-1, K-2, …) are those of the semantics checklist.

#[path = "../support/mod.rs"]
mod support;

mod mysql;
mod postgres;
