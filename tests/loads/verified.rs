//! What a comparison of lake and source rests on: hashes of rows, where keys are, which keys changed meanwhile.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use lakeward::lake::{Picture, Place, Since, TableChange, hash_rows};
use lakeward::schema::{ElementType, LakeType, Op, RowIdentity, Shape};

use crate::cases::{World, row};
use crate::support::columns::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_lake_hashes_as_at_the_source() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    let images: Vec<_> = (0..3000).map(|id| row(id, id * 7 % 11, &format!("값 {id}"))).collect();
    world.chunk(&images).await;
    world.change(&[(Op::Update, row(5, 5, "five")), (Op::Delete, row(6, 0, ""))]).await;
    let picture = world.picture().await;
    assert_eq!(picture.version(), world.table.version());
    assert_eq!(picture.live_rows(), world.table.live_rows());
    let mut source = images;
    source[5] = row(5, 5, "five");
    let source = world.rows(&source);
    let wanted = picture.prints(&source).expect("hashable");
    for (id, wanted) in wanted.iter().enumerate() {
        match picture.find(wanted.key) {
            Some(address) => assert_eq!(picture.row(address), Some(*wanted), "row {id}"),
            None => assert_eq!(id, 6),
        }
    }
    let address = picture.find(wanted[5].key).expect("it is there");
    let read = picture.read(address).await.expect("readable").expect("live");
    assert_eq!(picture.prints(&read).expect("hashable"), [wanted[5]]);
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

/// A row that lies where it lay was the same at every version between.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_have_another_place_or_came_in_between() {
    let Some(mut world) = World::new(Place::Open).await else { return };
    world.chunk(&[row(1, 1, "a"), row(2, 2, "b"), row(3, 3, "c"), row(4, 4, "d"), row(5, 5, "e")]).await;
    world.change(&[(Op::Update, row(1, 2, "a"))]).await;
    let mut picture = world.picture().await;
    let rows: Vec<_> = (1..=8).map(|id| row(id, 0, "")).collect();
    let keys: Vec<_> = picture.prints(&world.rows(&rows)).expect("hashable").iter().map(|print| print.key).collect();
    let names = picture.names(&world.rows(&rows)).expect("hashable");
    let places = |picture: &Picture| keys.iter().map(|key| picture.find(*key)).collect::<Vec<_>>();
    let before = places(&picture);
    let touched = |picture: &Picture, since: &Since| -> Vec<usize> {
        let after = places(picture);
        let moved =
            |id: usize| before[id] != after[id] || after[id].is_none() && since.may_have_come(keys[id], names[id]);
        (0..8).filter(|&id| moved(id)).map(|id| id + 1).collect()
    };
    let since = picture.advance().await.expect("readable");
    assert_eq!(touched(&picture, &since), [] as [usize; 0]);
    world.change(&[(Op::Update, row(2, 3, "b")), (Op::Delete, row(3, 0, ""))]).await;
    world.change(&[(Op::UpdateOldKey, row(4, 0, "")), (Op::UpdateNewKey, row(6, 4, "d"))]).await;
    // It comes and goes within one batch.
    world.change(&[(Op::Insert, row(8, 2, "x")), (Op::Delete, row(8, 0, ""))]).await;
    world.chunk(&[row(1, 1, "old"), row(7, 7, "g")]).await;
    let since = picture.advance().await.expect("readable");
    assert!(!since.unknown);
    assert_eq!(touched(&picture, &since), [2, 3, 4, 6, 7, 8]);
    let added = evolution(world.table.shape(), vec![add("x", LakeType::Integer, None)], &[]);
    world.apply(&[TableChange::Evolve(added)]).await;
    assert!(picture.advance().await.expect("readable").unknown, "nothing is said of rows with other columns");
}
