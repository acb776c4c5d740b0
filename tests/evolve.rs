//! The lake layer alone: tables whose columns change, against a model, read back by DuckDB.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lakeward::config::{ChangeKind, ChangePolicy};
use lakeward::lake::{Applied, Error, FirstLoad, IndexCache, Lake, Spill, Table, TableChange};
use lakeward::schema::{Column, LakeType, Op, Origin, RowIdentity, Shape, Step, TableSchema, Verdict, settle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::Scratch;
use support::columns::*;
use support::delta_log;
use support::oracle::Reader;
use support::parts::in_parts;
use url::Url;

/// A lake with one table.
struct World {
    scratch: Scratch,
    lake: Lake,
    /// The same without an index on disk.
    plain: Lake,
    index: Option<Arc<IndexCache>>,
    url: Url,
    table: Table,
    reader: Reader,
}

impl World {
    /// `None` without the reader.
    async fn new(schema: TableSchema, first: &[Vec<Value>]) -> Option<Self> {
        Self::with_index(schema, first, None).await
    }

    /// With so much memory for the key index; all there is otherwise, and nothing on disk.
    async fn with_index(schema: TableSchema, first: &[Vec<Value>], index_bytes: Option<u64>) -> Option<Self> {
        let reader = Reader::start(None)?;
        let scratch = Scratch::new("evolve");
        let plain = Lake::new(&Url::from_directory_path(scratch.path()).expect("absolute"), &BTreeMap::new());
        let index = index_bytes.map(|bytes| IndexCache::new(scratch.path().join("index"), bytes));
        let lake = match &index {
            Some(index) => plain.clone().with_index(index.clone()),
            None => plain.clone(),
        };
        let schema = Arc::new(schema);
        let mut load = FirstLoad::begin(&lake, "booking", schema.clone(), "pg:0/1".into()).expect("an empty folder");
        let first: Vec<(Op, Vec<Value>)> = first.iter().map(|values| (Op::Insert, values.clone())).collect();
        load.write(&rows(&schema, &first).rows).await.expect("written");
        let table = load.commit().await.expect("created");
        Some(Self { url: lake.table_url("booking", &schema.name), scratch, lake, plain, index, table, reader })
    }

    fn shape(&self) -> Arc<Shape> {
        self.table.shape().clone()
    }

    async fn apply(&mut self, changes: &[TableChange]) -> Applied {
        self.table.apply(changes, "pg:0/2").await.expect("applied")
    }

    async fn change(&mut self, changes: &[(Op, Vec<Value>)]) -> Applied {
        let rows = rows(self.table.schema(), changes);
        self.apply(&[TableChange::Rows(rows)]).await
    }

    async fn evolve(&mut self, steps: Vec<Step>, policies: &[(ChangeKind, ChangePolicy)]) -> Applied {
        let evolution = evolution(self.table.shape(), steps, policies);
        self.apply(&[TableChange::Evolve(evolution)]).await
    }

    fn seen(&mut self, sql: &str) -> Vec<Vec<Value>> {
        self.reader.rows(self.url.as_str(), None, sql)
    }

    fn all(&mut self) -> Vec<Vec<Value>> {
        self.seen("SELECT * FROM t ORDER BY 1")
    }

    /// A restart finds what was there.
    async fn restart(&mut self) {
        let (shape, rows, version) = (self.shape(), self.table.live_rows(), self.table.version());
        let (noted, changes) = self.table.last_changes();
        let (noted, changes) = (noted, changes.to_vec());
        self.table.finish().await;
        self.reopen().await;
        assert_eq!(self.table.shape(), &shape);
        assert_eq!((self.table.live_rows(), self.table.version()), (rows, version));
        assert_eq!(self.table.last_changes(), (noted, &changes[..]));
    }

    /// Opens the table again after the one that was open is gone, as a process would.
    async fn reopen(&mut self) {
        let name = self.table.name().clone();
        if self.index.is_some() {
            self.table = Table::open(&self.plain, "booking", &name).await.expect("readable").expect("a table");
        }
        self.table = Table::open(&self.lake, "booking", &name).await.expect("readable").expect("a table");
    }

    /// Things that may befall the index between two batches. None of them may change anything but time.
    async fn disturb_index(&mut self, random: &mut StdRng) {
        let cache = self.scratch.path().join("index");
        match random.random_range(0..8) {
            // Killed.
            0 => self.reopen().await,
            // Deleted while the table is open, before it is opened, and in part.
            1 => drop(std::fs::remove_dir_all(&cache)),
            2 => {
                self.table.finish().await;
                drop(std::fs::remove_dir_all(&cache));
                self.reopen().await;
            }
            3 | 4 => {
                self.table.finish().await;
                let folders = std::fs::read_dir(&cache).map(|folders| folders.flatten().collect::<Vec<_>>());
                for folder in folders.unwrap_or_default() {
                    let files = std::fs::read_dir(folder.path()).expect("a folder");
                    for file in files.flatten().collect::<Vec<_>>() {
                        if !random.random_bool(0.3) {
                            continue;
                        }
                        if random.random_bool(0.5) {
                            std::fs::remove_file(file.path()).expect("removable");
                        } else {
                            let mut bytes = std::fs::read(file.path()).expect("readable");
                            bytes.truncate(bytes.len() / 2);
                            std::fs::write(file.path(), bytes).expect("writable");
                        }
                    }
                }
                self.reopen().await;
            }
            5 => self.compact_elsewhere(random),
            _ => {}
        }
    }

    /// Another engine writes a file anew, rows at their places.
    fn compact_elsewhere(&self, random: &mut StdRng) {
        let mut live = BTreeMap::new();
        for version in 0..=self.table.version() {
            for removed in self.actions(version, "remove") {
                live.remove(removed["path"].as_str().expect("a path"));
            }
            for added in self.actions(version, "add") {
                live.insert(added["path"].as_str().expect("a path").to_owned(), added);
            }
        }
        // Where partitions are folders, the path has escapes; those files are left as they are.
        let mut live = live.into_iter().filter(|(path, _)| !path.contains('/')).collect::<Vec<_>>();
        if live.is_empty() {
            return;
        }
        let (path, mut add) = live.swap_remove(random.random_range(0..live.len()));
        let moved = format!("elsewhere-{}-{path}", self.table.version());
        std::fs::copy(self.folder().join(&path), self.folder().join(&moved)).expect("copied");
        let mut remove = json!({"path": path, "deletionTimestamp": 1, "dataChange": false});
        remove["deletionVector"] = add["deletionVector"].clone();
        if remove["deletionVector"].is_null() {
            remove.as_object_mut().expect("an object").remove("deletionVector");
        }
        add["path"] = json!(moved);
        add["dataChange"] = json!(false);
        let info = json!({"commitInfo": {"timestamp": 1, "operation": "OPTIMIZE"}});
        let entry = format!("{info}\n{}\n{}\n", json!({"remove": remove}), json!({"add": add}));
        let version = self.table.version() + 1;
        std::fs::write(delta_log::entry_path(&self.folder(), version), entry).expect("written");
    }

    fn folder(&self) -> PathBuf {
        self.url.to_file_path().expect("local")
    }

    /// The actions of a version, by kind.
    fn actions(&self, version: u64, kind: &str) -> Vec<Value> {
        delta_log::actions_at(&self.folder(), version, kind)
    }

    fn objects(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder()).expect("a folder");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

const COLUMNS: [(&str, LakeType); 4] = [
    ("id", LakeType::Integer),
    ("n", LakeType::Integer),
    ("s", LakeType::String),
    ("d", LakeType::Decimal { precision: 6, scale: 2 }),
];

fn row(id: i64, n: i64, s: &str, d: &str) -> Vec<Value> {
    vec![json!(id), json!(n), json!(s), json!(d)]
}

/// Three rows in two files, of which one has a deletion vector.
async fn small_world() -> Option<World> {
    let first = [row(1, 10, "a", "1.50"), row(2, 20, "b", "2.50"), row(3, 30, "c", "3.50")];
    let mut world = World::new(schema(&COLUMNS, RowIdentity::Key), &first).await?;
    world.change(&[(Op::Update, row(2, 21, "b", "2.50"))]).await;
    Some(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_alone_shows_in_every_row_and_the_next_batch_fits() {
    use LakeType::{Decimal, Integer, Long, String};
    type Case = (Vec<Step>, &'static [(ChangeKind, ChangePolicy)], &'static str, Value, Value);
    let keep = &[][..];
    // Steps and policies; the columns that readers see; what stands in row 1; a new image of row 3.
    let cases: Vec<Case> = vec![
        (
            vec![add("x", Integer, None)],
            keep,
            "id n s d x",
            json!([1, 10, "a", "1.50", null]),
            json!([3, 1, "c", "1.00", 7]),
        ),
        (
            vec![add("x", Integer, number(9))],
            keep,
            "id n s d x",
            json!([1, 10, "a", "1.50", 9]),
            json!([3, 1, "c", "1.00", null]),
        ),
        (
            vec![add("x", String, text("있음"))],
            keep,
            "id n s d x",
            json!([1, 10, "a", "1.50", "있음"]),
            json!([3, 1, "c", "1.00", ""]),
        ),
        (vec![drop_column("n")], DROP, "id s d", json!([1, "a", "1.50"]), json!([3, "c", "1.00"])),
        (vec![drop_column("n")], keep, "id n s d", json!([1, 10, "a", "1.50"]), json!([3, null, "c", "1.00"])),
        (vec![rename("s", "t")], keep, "id n t d", json!([1, 10, "a", "1.50"]), json!([3, 1, "z", "1.00"])),
        (vec![rename("id", "no")], keep, "no n s d", json!([1, 10, "a", "1.50"]), json!([3, 1, "z", "1.00"])),
        (
            vec![widen("n", Integer, Long)],
            keep,
            "id n s d",
            json!([1, 10, "a", "1.50"]),
            json!([3, 30_000_000_000_i64, "c", "1.00"]),
        ),
        (vec![widen("id", Integer, Long)], keep, "id n s d", json!([1, 10, "a", "1.50"]), json!([3, 1, "z", "1.00"])),
        (
            vec![widen("d", COLUMNS[3].1, Decimal { precision: 9, scale: 3 })],
            keep,
            "id n s d",
            json!([1, 10, "a", "1.500"]),
            json!([3, 1, "c", "1.001"]),
        ),
        (
            // The index hashes decimals otherwise than whole numbers.
            vec![widen("id", Integer, Decimal { precision: 12, scale: 2 })],
            keep,
            "id n s d",
            json!(["1.00", 10, "a", "1.50"]),
            json!(["3.00", 1, "z", "1.00"]),
        ),
        (
            vec![Step::Redeclare {
                column: "s".into(),
                to: Column { source_type: "varchar(20)".into(), ..column("s", String) },
            }],
            keep,
            "id n s d",
            json!([1, 10, "a", "1.50"]),
            json!([3, 1, "z", "1.00"]),
        ),
        (
            vec![
                rename("n", "aside"),
                rename("s", "n"),
                rename("aside", "s"),
                drop_column("d"),
                add("d", String, None),
            ],
            DROP,
            "id s n d",
            json!([1, 10, "a", null]),
            json!([3, 1, "z", "text"]),
        ),
    ];
    for (steps, policies, names, first, update) in cases {
        let told = format!("{steps:?}");
        let Some(mut world) = small_world().await else { return };
        let applied = world.evolve(steps, policies).await;
        assert!(applied.evolved && applied.version == Some(2), "{told}");
        let shown: Vec<std::string::String> =
            world.shape().shown().columns.iter().map(|column| column.name.clone()).collect();
        assert_eq!(shown.join(" "), names, "{told}");
        let quoted = shown.join(", ");
        let read = |world: &mut World| world.seen(&format!("SELECT {quoted} FROM t ORDER BY 1"));
        let seen = read(&mut world);
        assert_eq!((json!(seen[0]), seen.len()), (first, 3), "{told}");
        world.restart().await;
        let update: Vec<Value> = update.as_array().expect("a row").clone();
        let mut delete = update.clone();
        delete[0] = if delete[0].is_string() { json!("2.00") } else { json!(2) };
        world.change(&[(Op::Update, update.clone()), (Op::Delete, delete)]).await;
        let seen = read(&mut world);
        assert_eq!((seen.len(), &seen[1]), (2, &update), "{told}");
        assert_eq!(world.table.schema_version(), 2, "{told}");
        world.restart().await;
    }
}

/// Nothing moves that need not.
#[tokio::test(flavor = "multi_thread")]
async fn the_commit_says_all_and_touches_no_file_without_need() {
    let Some(mut world) = small_world().await else { return };
    let made = world.actions(0, "metaData").remove(0);
    world.evolve(vec![add("x", LakeType::Integer, None)], &[]).await;
    assert!(world.actions(2, "add").is_empty() && world.actions(2, "remove").is_empty());
    let metadata = world.actions(2, "metaData").remove(0);
    for same in ["id", "createdTime", "name", "description", "format"] {
        assert_eq!(metadata[same], made[same], "{same}");
    }
    assert!(world.actions(2, "protocol").is_empty());
    let told = &world.actions(2, "commitInfo")[0]["lakeward"];
    assert_eq!((&told["schemaVersion"], &told["changes"][0]["table"]), (&json!(2), &json!("booking.stays")));
    assert_eq!(told["changes"][0]["steps"][0]["outcome"], json!("applied"));
    assert_eq!(world.table.last_changes().0, 2);

    // A file that a change rewrites keeps its deletion vector; its bounds are no longer tight.
    world.evolve(vec![rename("s", "t")], &[]).await;
    let (added, removed) = (world.actions(3, "add"), world.actions(3, "remove"));
    assert_eq!((added.len(), removed.len()), (2, 2));
    let with_vector = added.iter().find(|add| !add["deletionVector"].is_null()).expect("one has a vector");
    let stats: Value = serde_json::from_str(with_vector["stats"].as_str().expect("stats")).expect("JSON");
    assert_eq!(
        (&stats["tightBounds"], &stats["numRecords"], &stats["maxValues"]["t"]),
        (&json!(false), &json!(3), &json!("c"))
    );
    assert!(removed.iter().any(|remove| remove["deletionVector"] == with_vector["deletionVector"]));

    // A commit without a change of columns has none to tell.
    world.change(&[(Op::Delete, vec![json!(1), json!(1), json!(null), json!(null), json!(null)])]).await;
    assert!(world.table.last_changes().1.is_empty() && world.actions(4, "metaData").is_empty());
    world.restart().await;
    let wanted = [json!([2, 21, "b", "2.50", null]), json!([3, 30, "c", "3.50", null])];
    assert_eq!(world.all().into_iter().map(|row| json!(row)).collect::<Vec<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_and_after_several_changes_land_in_one_commit() {
    use LakeType::{Integer, Long};
    let Some(mut world) = small_world().await else { return };
    let shape = world.shape();
    let first =
        rows(&shape.lake, &[(Op::Insert, row(4, 40, "d", "4.50")), (Op::Update, row(1, 11, UNCHANGED, "1.50"))]);
    let added = evolution(&shape, vec![add("x", Integer, number(9)), rename("s", "t")], &[]);
    let second = rows(
        &added.shape.lake,
        &[
            (Op::Update, vec![json!(3), json!(31), json!(UNCHANGED), json!("3.50"), json!(UNCHANGED)]),
            (Op::Update, vec![json!(4), json!(41), json!(UNCHANGED), json!("4.50"), json!(5)]),
        ],
    );
    let widened =
        evolution(&added.shape, vec![widen("x", Integer, Long), widen("id", Integer, Long), drop_column("d")], DROP);
    let third = rows(
        &widened.shape.lake,
        &[
            (Op::Insert, vec![json!(5_000_000_000_i64), json!(50), json!("e"), json!(6_000_000_000_i64)]),
            (Op::Update, vec![json!(1), json!(12), json!(UNCHANGED), json!(UNCHANGED)]),
            (Op::Delete, vec![json!(2), json!(null), json!(null), json!(null)]),
        ],
    );
    let changes = [
        TableChange::Rows(first),
        TableChange::Evolve(added),
        TableChange::Rows(second),
        TableChange::Evolve(widened),
        TableChange::Rows(third),
    ];
    let applied = world.apply(&changes).await;
    assert_eq!((applied.version, world.table.schema_version(), world.table.last_changes().1.len()), (Some(2), 3, 2));
    let wanted = [
        json!([1, 12, "a", 9]),
        json!([3, 31, "c", 9]),
        json!([4, 41, "d", 5]),
        json!([5_000_000_000_i64, 50, "e", 6_000_000_000_i64]),
    ];
    assert_eq!(world.all().into_iter().map(|row| json!(row)).collect::<Vec<_>>(), wanted);
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_before_or_after_a_change_takes_its_rows_only() {
    for truncate_first in [true, false] {
        let Some(mut world) = small_world().await else { return };
        let objects = world.objects().len();
        let evolution = evolution(&world.shape(), vec![add("x", LakeType::Integer, number(9))], &[]);
        let before = TableChange::Rows(rows(world.table.schema(), &[(Op::Insert, row(7, 70, "g", "7.50"))]));
        let mut last = row(8, 80, "h", "8.50");
        last.push(json!(1));
        let last = TableChange::Rows(rows(&evolution.shape.lake, &[(Op::Insert, last)]));
        let evolve = TableChange::Evolve(evolution);
        let changes = if truncate_first {
            [TableChange::Truncate, before, evolve, last]
        } else {
            [before, evolve, TableChange::Truncate, last]
        };
        world.apply(&changes).await;
        let mut wanted = vec![vec![json!(8), json!(80), json!("h"), json!("8.50"), json!(1)]];
        if truncate_first {
            wanted.insert(0, vec![json!(7), json!(70), json!("g"), json!("7.50"), json!(9)]);
        }
        assert_eq!(world.all(), wanted);
        assert_eq!(world.objects().len(), objects + 1, "files that go anyway are not spliced");
        world.restart().await;
        // All rows are gone, and the empty table changes as well.
        world.apply(&[TableChange::Truncate]).await;
        world.evolve(vec![widen("id", LakeType::Integer, LakeType::Long), rename("x", "y")], &[]).await;
        world.restart().await;
        world.change(&[(Op::Insert, vec![json!(1), json!(1), json!("i"), json!("1.00"), json!(2)])]).await;
        assert_eq!(world.seen("SELECT id, y FROM t"), [[json!(1), json!(2)]]);
    }
}

/// A held column fills up unseen and is shown with everything it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_column_is_shown_when_it_is_approved_and_gone_when_it_is_rejected() {
    for verdict in [Verdict::Approve, Verdict::Reject] {
        let Some(mut world) = small_world().await else { return };
        world.evolve(vec![add("x", LakeType::Integer, number(9))], HOLD_ADD).await;
        // Another one shows at once: it stands behind the hidden one.
        world.evolve(vec![add("y", LakeType::Integer, number(8))], &[]).await;
        world.restart().await;
        let mut update = row(1, 11, "a", "1.50");
        update.extend([json!(5), json!(6)]);
        world.change(&[(Op::Update, update)]).await;
        assert_eq!(world.shape().hidden, [false, false, false, false, true, false]);
        assert_eq!(world.seen("SELECT * FROM t ORDER BY 1")[0].len(), 5);
        assert_eq!(
            world.seen("SELECT id, y FROM t ORDER BY 1"),
            [[json!(1), json!(6)], [json!(2), json!(8)], [json!(3), json!(8)]]
        );
        for add in world.actions(2, "add").into_iter().chain(world.actions(4, "add")) {
            let stats = add["stats"].as_str().expect("stats").to_owned();
            assert!(!stats.contains("\"x\""), "{stats}");
        }
        let held = world.shape().held[0].id;
        let settled = settle(&world.shape(), held, verdict).expect("held");
        world.apply(&[TableChange::Evolve(Arc::new(settled))]).await;
        world.restart().await;
        let metadata = world.actions(5, "metaData").remove(0);
        let configuration = metadata["configuration"].as_object().expect("an object");
        assert!(!configuration.contains_key("lakeward.hidden") && !configuration.contains_key("lakeward.held"));
        if verdict == Verdict::Approve {
            assert!(world.actions(5, "add").is_empty(), "the files have it already");
            assert_eq!(
                world.seen("SELECT id, x FROM t ORDER BY 1"),
                [[json!(1), json!(5)], [json!(2), json!(9)], [json!(3), json!(9)]]
            );
            assert_eq!(world.seen("SELECT id FROM t WHERE x > 8 ORDER BY 1"), [[json!(2)], [json!(3)]]);
        } else {
            assert_eq!(world.shape().ignored, BTreeSet::from(["x".to_owned()]));
            assert_eq!(world.shape().lake.columns.len(), 5);
        }
    }
}

/// A splice that fails leaves nothing; the table in memory goes on as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_on_the_way_leaves_the_old_table() {
    let Some(mut world) = small_world().await else { return };
    let (objects, shape) = (world.objects(), world.shape());
    let evolve = TableChange::Evolve(evolution(&shape, vec![rename("s", "t")], &[]));

    // After the splices: rows that do not fit.
    let torn = rows(&shape.lake, &[(Op::UpdateOldKey, row(1, 1, "a", "1.50"))]);
    let refused = world.table.apply(&[TableChange::Rows(torn), evolve.clone()], "pg:0/3").await;
    assert!(matches!(refused, Err(Error::Table { .. })), "{refused:?}");
    assert_eq!((world.objects(), world.shape()), (objects.clone(), shape.clone()));

    // In the middle of them: a file is not there.
    let gone =
        world.actions(1, "add").iter().find(|add| add["deletionVector"].is_null()).expect("a new file")["path"].clone();
    let (gone, away) = (world.folder().join(gone.as_str().expect("a path")), world.scratch.path().join("away"));
    std::fs::rename(&gone, &away).expect("moved");
    let failed = world.table.apply(std::slice::from_ref(&evolve), "pg:0/3").await;
    assert!(failed.expect_err("a file is missing").to_string().contains("is gone"));
    std::fs::rename(&away, &gone).expect("moved back");
    assert_eq!((world.objects(), world.shape()), (objects.clone(), shape.clone()));

    // At the commit: it is not known whether it landed, so nothing is removed.
    let (log, away) = (world.folder().join("_delta_log"), world.scratch.path().join("log"));
    std::fs::rename(&log, &away).expect("moved");
    std::fs::write(&log, "in the way").expect("written");
    let failed = world.table.apply(std::slice::from_ref(&evolve), "pg:0/3").await;
    assert!(matches!(failed, Err(Error::Commit { .. })), "{failed:?}");
    std::fs::remove_file(&log).expect("removed");
    std::fs::rename(&away, &log).expect("moved back");
    assert_eq!((world.table.version(), world.shape()), (1, shape));
    assert_eq!(world.seen("SELECT id, s FROM t ORDER BY 1").len(), 3);

    let applied = world.apply(&[evolve]).await;
    assert_eq!(applied.version, Some(2));
    assert_eq!(world.seen("SELECT id, t FROM t ORDER BY 1")[1], [json!(2), json!("b")]);
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engines_commit_in_between_is_built_upon() {
    let Some(mut world) = small_world().await else { return };
    let before = world.objects().len();
    let entry = "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"OPTIMIZE\"}}\n";
    std::fs::write(world.folder().join("_delta_log/00000000000000000002.json"), entry).expect("written");
    let evolution = evolution(&world.shape(), vec![add("x", LakeType::Integer, number(9))], &[]);
    let mut update = row(2, 22, "b", "2.50");
    update.push(json!(1));
    let update = rows(&evolution.shape.lake, &[(Op::Update, update)]);
    let applied = world.apply(&[TableChange::Evolve(evolution), TableChange::Rows(update)]).await;
    assert_eq!((applied.version, world.table.schema_version()), (Some(3), 2));
    assert_eq!(
        world.seen("SELECT id, n, x FROM t ORDER BY 1"),
        [[1, 10, 9], [2, 22, 1], [3, 30, 9]].map(|row| row.map(|n| json!(n)))
    );
    // Of the two files one is spliced, one has lost its only row; a row was written.
    assert!(world.objects().len() <= before + 3, "{:?}", world.objects());
    // The records are found although the newest entry is not ours.
    std::fs::write(world.folder().join("_delta_log/00000000000000000004.json"), entry).expect("written");
    let table = Table::open(&world.lake, "booking", world.table.name()).await.expect("readable").expect("a table");
    assert_eq!((table.version(), table.last_changes().0, table.last_changes().1.len()), (4, 3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_shape_are_refused() {
    let Some(mut world) = small_world().await else { return };
    let old = rows(world.table.schema(), &[(Op::Insert, row(7, 70, "g", "7.50"))]);
    let evolution = evolution(&world.shape(), vec![add("x", LakeType::Integer, None)], &[]);
    let refused = world.table.apply(&[TableChange::Evolve(evolution), TableChange::Rows(old)], "pg:0/3").await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(world.table.version(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_table_evolves_without_an_index() {
    let columns = [("a", LakeType::Integer), ("s", LakeType::String)];
    let Some(mut world) = World::new(schema(&columns, RowIdentity::AppendOnly), &[vec![json!(1), json!("x")]]).await
    else {
        return;
    };
    let evolution = evolution(
        &world.shape(),
        vec![widen("a", LakeType::Integer, LakeType::Long), add("b", LakeType::String, text("y"))],
        &[],
    );
    let before = rows(world.table.schema(), &[(Op::Insert, vec![json!(2), json!("x")])]);
    let after = rows(&evolution.shape.lake, &[(Op::Insert, vec![json!(3), json!("x"), json!(null)])]);
    world.apply(&[TableChange::Rows(before), TableChange::Evolve(evolution), TableChange::Rows(after)]).await;
    world.restart().await;
    let wanted = [json!([1, "x", "y"]), json!([2, "x", "y"]), json!([3, "x", null])];
    assert_eq!(world.all().into_iter().map(|row| json!(row)).collect::<Vec<_>>(), wanted);
}

/// Random batches with changes of columns among them.
async fn walk(seed: u64, partitioned: bool, spilled: bool, index_bytes: Option<u64>) {
    let columns =
        [("id", LakeType::Integer), ("p", LakeType::Integer), ("n", LakeType::Integer), ("s", LakeType::String)];
    let mut layout = schema(&columns, RowIdentity::Key);
    layout.partition_by = if partitioned { vec![1] } else { vec![] };
    let Some(mut world) = World::with_index(layout, &[], index_bytes).await else { return };
    let spill = spilled.then(|| Spill::new(world.scratch.path().join("spill"), 1 << 30, 8 << 10));
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: BTreeMap<i64, ModelRow> = BTreeMap::new();
    let (mut next, mut evolutions) = (0, 0);
    for batch in 1..=40 {
        let mut changes = Vec::new();
        let mut shape = Shape::clone(&world.shape());
        for _ in 0..random.random_range(1..5) {
            match random.random_range(0..100) {
                0..3 => {
                    changes.push(TableChange::Truncate);
                    model.clear();
                }
                3..30 => {
                    let evolution = random_evolution(&mut random, &shape, &mut next, true);
                    shape = Shape::clone(&evolution.shape);
                    evolve_model(model.values_mut(), &evolution.ops);
                    changes.push(TableChange::Evolve(evolution));
                    evolutions += 1;
                }
                _ => {
                    let mut log = Vec::new();
                    for _ in 0..random.random_range(1..60) {
                        let id = random.random_range(0..80);
                        match (model.get(&id).cloned(), random.random_range(0..6)) {
                            (Some(old), 1) => {
                                let new = random.random_range(80..160);
                                if model.contains_key(&new) {
                                    continue;
                                }
                                log.push((Op::UpdateOldKey, random_row(&mut random, &shape, Some(id), None).0));
                                let (image, row) = random_row(&mut random, &shape, Some(new), Some(&old));
                                log.push((Op::UpdateNewKey, image));
                                model.remove(&id);
                                model.insert(new, row);
                            }
                            (_, kind) => log.push(random_change(&mut random, &shape, &mut model, id, kind == 0)),
                        }
                    }
                    let rows = rows(&shape.lake, &log);
                    changes.extend(in_parts(&mut random, spill.as_ref(), rows));
                }
            }
        }
        if index_bytes.is_some() {
            world.disturb_index(&mut random).await;
        }
        world.apply(&changes).await;
        assert_eq!(world.table.live_rows(), model.len() as u64, "seed {seed}, batch {batch}");
        if batch % 4 == 0 {
            world.restart().await;
        }
        if batch % 2 == 0 {
            let names = shown_names(&shape);
            let wanted: Vec<Vec<Value>> =
                model.values().map(|row| names.iter().map(|name| row[name].clone()).collect()).collect();
            let key = &shape.lake.columns[shape.lake.key[0]].name;
            let sql = format!("SELECT {} FROM t ORDER BY {key}", names.join(", "));
            assert_eq!(world.seen(&sql), wanted, "seed {seed}, batch {batch}");
        }
    }
    assert!(evolutions > 10, "{evolutions}");
    assert_index_used(&world, index_bytes);
}

/// Memory for next to nothing: every batch's keys go to disk.
const NO_MEMORY: u64 = 64;

fn assert_index_used(world: &World, index_bytes: Option<u64>) {
    let Some(index) = &world.index else { return };
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (segments, blocks) = (count(&index.counters.segments_written), count(&index.counters.blocks_read));
    assert!(segments > 10, "{segments} segments with {index_bytes:?} bytes");
    assert!(blocks > 10 || index_bytes != Some(NO_MEMORY), "{blocks} blocks");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_on_disk_and_whatever_befalls_it_change_nothing() {
    for (seed, partitioned, spilled) in [(31, false, false), (32, true, false), (33, false, true), (34, true, true)] {
        walk(seed, partitioned, spilled, Some(NO_MEMORY)).await;
    }
    walk(35, false, false, Some(1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_of_columns_leave_the_table_equal_to_a_model() {
    for seed in 1..=3 {
        walk(seed, false, false, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_of_columns_leave_a_partitioned_table_equal_to_a_model() {
    for seed in 11..=12 {
        walk(seed, true, false, None).await;
    }
}

///
#[tokio::test(flavor = "multi_thread")]
async fn rows_on_disk_go_through_changes_of_columns() {
    for (seed, partitioned) in [(21, false), (22, false), (23, true)] {
        walk(seed, partitioned, true, None).await;
    }
}

/// K-1: the source's row images have no value for a column that the lake keeps, and its rows are found all the same.
async fn walk_without_a_key(seed: u64, spilled: bool, index_bytes: Option<u64>) {
    let columns = [("a", LakeType::Integer), ("b", LakeType::Integer), ("s", LakeType::String)];
    let layout = schema(&columns, RowIdentity::WholeRow);
    let Some(mut world) = World::with_index(layout, &[], index_bytes).await else { return };
    let spill = spilled.then(|| Spill::new(world.scratch.path().join("spill"), 1 << 30, 8 << 10));
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: Vec<ModelRow> = Vec::new();
    let mut next = 0;
    for batch in 1..=30 {
        let mut changes = Vec::new();
        let mut shape = Shape::clone(&world.shape());
        for _ in 0..random.random_range(1..4) {
            if random.random_bool(0.25) {
                let evolution = random_evolution(&mut random, &shape, &mut next, true);
                shape = Shape::clone(&evolution.shape);
                evolve_model(model.iter_mut(), &evolution.ops);
                changes.push(TableChange::Evolve(evolution));
                continue;
            }
            let image = |row: &ModelRow| -> Vec<Value> {
                let columns = shape.lake.columns.iter().zip(&shape.origins);
                columns
                    .map(
                        |(column, origin)| {
                            if *origin == Origin::Dropped { Value::Null } else { row[&column.name].clone() }
                        },
                    )
                    .collect()
            };
            let mut log = Vec::new();
            for _ in 0..random.random_range(1..40) {
                if !model.is_empty() && random.random_bool(0.5) {
                    let gone = model.swap_remove(random.random_range(0..model.len()));
                    log.push((Op::Delete, image(&gone)));
                } else {
                    let (image, row) = random_row(&mut random, &shape, None, None);
                    log.push((Op::Insert, image));
                    model.push(row);
                }
            }
            changes.extend(in_parts(&mut random, spill.as_ref(), rows(&shape.lake, &log)));
        }
        if index_bytes.is_some() {
            world.disturb_index(&mut random).await;
        }
        world.apply(&changes).await;
        assert_eq!(world.table.live_rows(), model.len() as u64, "seed {seed}, batch {batch}");
        if batch % 3 == 0 {
            world.restart().await;
            // Rows that differ in kept columns only are one to the source: which of them went is not to be told.
            let kept = shape.lake.columns.iter().zip(&shape.origins).filter(|(_, origin)| **origin == Origin::Dropped);
            let kept: BTreeSet<&str> = kept.map(|(column, _)| column.name.as_str()).collect();
            let names: Vec<String> =
                shown_names(&shape).into_iter().filter(|name| !kept.contains(name.as_str())).collect();
            let sorted = |rows: Vec<Vec<Value>>| {
                let mut rows: Vec<String> = rows.into_iter().map(|row| json!(row).to_string()).collect();
                rows.sort_unstable();
                rows
            };
            let wanted = model.iter().map(|row| names.iter().map(|name| row[name].clone()).collect()).collect();
            let found = world.seen(&format!("SELECT {} FROM t", names.join(", ")));
            assert_eq!(sorted(found), sorted(wanted), "seed {seed}, batch {batch}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_finds_its_rows_through_changes_of_columns() {
    for (seed, spilled) in [(1, false), (2, false), (3, true)] {
        walk_without_a_key(seed, spilled, None).await;
    }
    for (seed, spilled) in [(4, false), (5, true)] {
        walk_without_a_key(seed, spilled, Some(NO_MEMORY)).await;
    }
}
