//! A database in memory: its state after each transaction, and the log that tells them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use lakeward::lake::{Spill, TableChange};
use lakeward::schema::{LakeType, Op, RowIdentity, Shape, TableSchema};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::support::columns::*;
use crate::support::parts::in_parts;

pub const IDS: i64 = 160;

/// The table after some transactions.
#[derive(Clone)]
pub struct State {
    pub shape: Arc<Shape>,
    pub rows: BTreeMap<i64, ModelRow>,
    pub evolutions: usize,
    pub truncates: usize,
}

pub struct Database {
    /// The first one is that of the load's start; then one for each transaction.
    pub states: Vec<State>,
    pub log: Vec<Vec<TableChange>>,
    pub spill: Option<Arc<Spill>>,
    evolves: bool,
    next: u32,
}

impl State {
    /// Rows of some ids as a chunk brings them.
    pub fn chunk(&self, ids: &Range<i64>) -> RecordBatch {
        let image = |row: &ModelRow| -> Vec<Value> {
            self.shape.lake.columns.iter().map(|column| row[&column.name].clone()).collect()
        };
        let inserts: Vec<(Op, Vec<Value>)> =
            self.rows.range(ids.clone()).map(|(_, row)| (Op::Insert, image(row))).collect();
        rows(&self.shape.lake, &inserts).rows
    }
}

impl Database {
    pub fn new(random: &mut StdRng, partitioned: bool, evolves: bool, spill: Option<Arc<Spill>>) -> Self {
        let columns =
            [("id", LakeType::Integer), ("p", LakeType::Integer), ("n", LakeType::Integer), ("s", LakeType::String)];
        let mut layout: TableSchema = schema(&columns, RowIdentity::Key);
        layout.partition_by = if partitioned { vec![1] } else { vec![] };
        let shape = Arc::new(Shape::of(Arc::new(layout)));
        let mut first = BTreeMap::new();
        for id in 0..IDS {
            if random.random_bool(0.6) {
                first.insert(id, random_row(random, &shape, Some(id), None).1);
            }
        }
        let states = vec![State { shape, rows: first, evolutions: 0, truncates: 0 }];
        Self { states, log: Vec::new(), spill, evolves, next: 0 }
    }

    pub fn newest(&self) -> &State {
        self.states.last().expect("there is a first one")
    }

    /// One more transaction.
    pub fn commit(&mut self, random: &mut StdRng) {
        let mut state = self.newest().clone();
        let mut changes = Vec::new();
        match random.random_range(0..100) {
            0..2 => {
                state.rows.clear();
                state.truncates += 1;
                changes.push(TableChange::Truncate);
            }
            2..10 if self.evolves => {
                let evolution = random_evolution(random, &state.shape, &mut self.next, false);
                state.shape = evolution.shape.clone();
                evolve_model(state.rows.values_mut(), &evolution.ops);
                state.evolutions += 1;
                changes.push(TableChange::Evolve(evolution));
            }
            _ => {
                let rows = change_rows(random, &mut state);
                changes.extend(in_parts(random, self.spill.as_ref(), rows));
            }
        }
        self.states.push(state);
        self.log.push(changes);
    }
}

/// Inserts, updates that leave values out, deletes, key changes.
fn change_rows(random: &mut StdRng, state: &mut State) -> lakeward::schema::TableRows {
    let (shape, model) = (state.shape.clone(), &mut state.rows);
    let mut log = Vec::new();
    for _ in 0..random.random_range(1..12) {
        let id = random.random_range(0..IDS);
        match (model.get(&id).cloned(), random.random_range(0..8)) {
            (None, _) => {
                let (image, row) = random_row(random, &shape, Some(id), None);
                log.push((Op::Insert, image));
                model.insert(id, row);
            }
            (Some(_), 0 | 1) => {
                log.push((Op::Delete, random_row(random, &shape, Some(id), None).0));
                model.remove(&id);
            }
            (Some(old), 2) => {
                let new = random.random_range(0..IDS);
                if model.contains_key(&new) {
                    continue;
                }
                log.push((Op::UpdateOldKey, random_row(random, &shape, Some(id), None).0));
                let (image, row) = random_row(random, &shape, Some(new), Some(&old));
                log.push((Op::UpdateNewKey, image));
                model.remove(&id);
                model.insert(new, row);
            }
            (Some(old), _) => {
                let (image, row) = random_row(random, &shape, Some(id), Some(&old));
                log.push((Op::Update, image));
                model.insert(id, row);
            }
        }
    }
    rows(&shape.lake, &log)
}
