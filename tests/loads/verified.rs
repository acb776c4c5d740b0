//! What a comparison of lake and source rests on: hashes of rows, where keys are, which keys changed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use lakeward::lake::{Place, RowAddress, TableChange, hash_rows};
use lakeward::schema::{ElementType, LakeType, Op, RowIdentity, Shape};
use serde_json::json;

use crate::cases::{World, row};
use crate::support::columns::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_lake_hashes_as_at_the_source() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let images: Vec<_> = (0..3000).map(|id| row(id, id * 7 % 11, &format!("값 {id}"))).collect();
    world.chunk(&images).await;
    world.change(&[(Op::Update, row(5, 5, "five")), (Op::Delete, row(6, 0, ""))]).await;
    let mut hashes = HashMap::new();
    let mut read = world.table.row_hashes();
    assert_eq!(read.version(), world.table.version());
    let mut live = 0;
    while let Some(file) = read.next().await.expect("readable") {
        live += file.hashes.len() as u64 - file.deleted.len();
        assert!(world.table.file_path(file.file).is_some());
        hashes.insert(file.file, file.hashes);
    }
    assert_eq!(live, world.table.live_rows());
    let mut source = images;
    source[5] = row(5, 5, "five");
    let source = world.rows(&source);
    let wanted = hash_rows(world.table.shape(), &source).expect("hashable");
    let found = world.table.find(&world.table.hasher().hash_batch(&source).expect("hashable"));
    for (id, (wanted, address)) in wanted.iter().zip(found).enumerate() {
        match address {
            Some(RowAddress { file, row }) => assert_eq!(hashes[&file][row as usize], *wanted, "row {id}"),
            None => assert_eq!(id, 6),
        }
    }
    let RowAddress { file, row } = world.table.find(&[world.key(5)])[0].expect("it is there");
    let read = read.rows(file, &[row]).await.expect("readable");
    assert_eq!(hash_rows(world.table.shape(), &read).expect("hashable"), [wanted[5]]);
}

fn shape(lake_type: LakeType) -> Shape {
    Shape::of(Arc::new(schema(&[("a", lake_type)], RowIdentity::WholeRow)))
}

fn hashes(shape: &Shape, values: ArrayRef) -> Vec<u64> {
    let batch = RecordBatch::try_from_iter_with_nullable([("a", values, true)]).expect("one column");
    hash_rows(shape, &batch).expect("hashable")
}

#[test]
fn equal_values_hash_alike_and_others_do_not() {
    let texts = StringArray::from(vec![Some("x"), Some(""), None, Some("x")]);
    let plain = hashes(&shape(LakeType::String), Arc::new(texts.clone()));
    assert_eq!(plain[0], plain[3]);
    assert!(plain[0] != plain[1] && plain[1] != plain[2], "NULL is not empty");
    let encoded: DictionaryArray<Int32Type> = texts.iter().collect();
    assert_eq!(hashes(&shape(LakeType::String), Arc::new(encoded)), plain);

    let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1);
    assert!(other_nan.is_nan());
    let doubles = Float64Array::from(vec![f64::NAN, other_nan, 0.0, -0.0]);
    let found = hashes(&shape(LakeType::Double), Arc::new(doubles.clone()));
    assert_eq!(found[0], found[1]);
    assert_ne!(found[2], found[3]);

    let element = Arc::new(Field::new("element", DataType::Float64, true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 1, 1, 0, 0, 1]);
    let values = Float64Array::from(vec![Some(f64::NAN), Some(other_nan), Some(1.0), None]);
    let nulls = arrow::buffer::NullBuffer::from(vec![true, true, true, true, false, true]);
    let lists = ListArray::try_new(element, offsets, Arc::new(values), Some(nulls)).expect("a list");
    let found = hashes(&shape(LakeType::Array(ElementType::Double)), Arc::new(lists));
    assert_eq!(found[0], found[1]);
    let different: std::collections::HashSet<u64> = found.into_iter().collect();
    assert_eq!(different.len(), 5, "an empty list, none, and one of NULL are three");

    let LakeType::Geometry = LakeType::Geometry else { return };
    let DataType::Struct(fields) = LakeType::Geometry.arrow() else { panic!("a struct") };
    let srids: ArrayRef = Arc::new(Int32Array::from(vec![Some(4326), None, None]));
    let shapes: ArrayRef = Arc::new(arrow::array::BinaryArray::from_opt_vec(vec![Some(b"x"), None, None]));
    let nulls = arrow::buffer::NullBuffer::from(vec![true, true, false]);
    let places = StructArray::try_new(fields, vec![srids, shapes], Some(nulls)).expect("a struct");
    assert_eq!(places.len(), 3);
    let found = hashes(&shape(LakeType::Geometry), Arc::new(places));
    assert!(found[0] != found[1] && found[1] != found[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_are_noted_while_somebody_asks() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    world.chunk(&[row(1, 1, "a"), row(2, 2, "b"), row(3, 3, "c"), row(4, 4, "d"), row(5, 5, "e")]).await;
    let touched = |world: &World| (1..=8).filter(|id| world.table.touched(world.key(*id))).collect::<Vec<_>>();
    world.change(&[(Op::Update, row(1, 2, "a"))]).await;
    assert_eq!(touched(&world), [] as [i64; 0]);
    world.table.touch(true);
    world.change(&[(Op::Update, row(2, 3, "b")), (Op::Delete, row(3, 0, ""))]).await;
    world.change(&[(Op::UpdateOldKey, row(4, 0, "")), (Op::UpdateNewKey, row(6, 4, "d"))]).await;
    world.change(&[(Op::Update, vec![json!(8), json!(2), json!(UNCHANGED)])]).await;
    assert_eq!(touched(&world), [2, 3, 4, 6, 8]);
    world.chunk(&[row(1, 1, "old"), row(7, 7, "g")]).await;
    assert_eq!(touched(&world), [2, 3, 4, 6, 7, 8]);
    world.table.touch(true);
    let added = evolution(world.table.shape(), vec![add("x", LakeType::Integer, None)], &[]);
    world.apply(&[TableChange::Evolve(added)]).await;
    assert!(
        world.table.touched(
            world
                .table
                .hasher()
                .hash_batch(&world.rows(&[vec![json!(1), json!(1), json!("a"), json!(null)]]))
                .expect("hashable")[0]
        )
    );
    world.table.touch(false);
}
