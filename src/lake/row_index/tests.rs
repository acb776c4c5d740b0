//! The index against a model, through everything that can happen to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use deltalake::kernel::Add;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roaring::RoaringTreemap;
use tempfile::TempDir;
use twox_hash::XxHash3_128;
use url::Url;

use super::*;
use crate::lake::key::KeyHasher;
use crate::lake::key::tests::keyed;
use crate::schema::{LakeType, TableName};

/// A layer of a few hundred keys is written.
const LITTLE: u64 = 64 << 10;

fn key(number: u64) -> KeyHash {
    XxHash3_128::oneshot(&number.to_le_bytes()).into()
}

fn url(table: &str) -> Url {
    Url::parse("file:///lake/").expect("a constant").join(table).expect("a name")
}

fn identity(table: &str) -> Identity {
    Identity::of(&url(table), &serde_json::json!({"id": "7"}), &keyed(LakeType::Long))
}

async fn open(cache: &Arc<IndexCache>, table: &str) -> Opened {
    Opened::from_cache(cache, &url(table), &TableName::new("a", "b"), &identity(table), KeyHasher::random_seed()).await
}

/// A table without data: its files and what is in them.
struct World {
    folder: TempDir,
    cache: Arc<IndexCache>,
    index: RowIndex,
    files: Files,
    /// Keys of all rows, by path.
    rows: HashMap<String, Vec<u64>>,
    next_file: FileId,
    paths: u32,
    model: HashMap<u64, RowAddress>,
}

impl World {
    async fn new(bytes_max: u64) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let cache = IndexCache::new(folder.path().join("cache"), bytes_max);
        let Opened { index, next_file, .. } = open(&cache, "t").await;
        let (files, rows, model) = Default::default();
        Self { folder, cache, index, files, rows, next_file, paths: 0, model }
    }

    /// A commit: these keys get rows in a new file, and those lose theirs.
    async fn commit(&mut self, written: &[u64], gone: &[u64]) {
        for number in written.iter().chain(gone) {
            let Some(at) = self.model.remove(number) else { continue };
            let file = self.files.get_mut(&at.file).expect("live");
            file.deleted.insert(at.row.into());
            if file.live_rows() == 0 {
                self.files.remove(&at.file);
            }
        }
        self.paths += 1;
        let path = format!("{}.parquet", self.paths);
        self.rows.insert(path.clone(), written.to_vec());
        self.take_in(path, RoaringTreemap::new());
        self.index.tend(&self.files).await.expect("a writable folder");
    }

    fn take_in(&mut self, path: String, deleted: RoaringTreemap) {
        let id = self.next_file;
        self.next_file += 1;
        let numbers = &self.rows[&path];
        for (&number, row) in numbers.iter().zip(0..).filter(|(_, row)| !deleted.contains(u64::from(*row))) {
            self.index.insert(key(number), RowAddress { file: id, row });
            self.model.insert(number, RowAddress { file: id, row });
        }
        let rows = numbers.len() as u64;
        self.files.insert(id, DataFile { add: Add { path, ..Add::default() }, rows, deleted });
        self.index.has_all_of(id);
    }

    /// A process ends, as it should or not, and the next one begins. Returns how many files it need not read.
    async fn reopen(&mut self, finish: bool) -> usize {
        if finish {
            self.index.finish(&self.files).await;
        }
        self.index = RowIndex::closed();
        let Opened { index, mut known, next_file, .. } = open(&self.cache, "t").await;
        (self.index, self.next_file) = (index, next_file);
        let (mut kept, mut unknown) = (0, Vec::new());
        self.model.clear();
        for (_, file) in std::mem::take(&mut self.files) {
            match known.remove(&file.add.path) {
                Some(known) if known.deleted.is_subset(&file.deleted) => {
                    kept += 1;
                    for (&number, row) in self.rows[&file.add.path].iter().zip(0..) {
                        if !file.deleted.contains(u64::from(row)) {
                            self.model.insert(number, RowAddress { file: known.id, row });
                        }
                    }
                    self.files.insert(known.id, file);
                }
                _ => unknown.push(file),
            }
        }
        for file in unknown {
            self.take_in(file.add.path, file.deleted);
        }
        assert_eq!(self.index.count_twice(&self.files).await.expect("readable"), 0);
        kept
    }

    async fn check(&self, numbers: std::ops::Range<u64>) {
        let keys: Vec<KeyHash> = numbers.clone().map(key).collect();
        let found = self.index.locate(&keys, &self.files).await.expect("readable");
        for number in numbers {
            assert_eq!(found.get(&key(number)), self.model.get(&number), "key {number}");
        }
    }

    fn table_folder(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.folder.path().join("cache")).expect("made");
        folders.next().expect("of one table").expect("readable").path()
    }
}

/// How many files no start had to read.
async fn walk(seed: u64) -> usize {
    let mut world = World::new(LITTLE).await;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut kept, mut segments) = (0, 0);
    for step in 0..300 {
        match random.random_range(0..100) {
            0..2 => {
                world.index.clear();
                world.files.clear();
                world.model.clear();
            }
            2..5 => kept += world.reopen(random.random_bool(0.5)).await,
            5..7 => {
                // A splice: every file has another path, and rows stay at their places.
                for file in world.files.values_mut() {
                    let rows = world.rows[&file.add.path].clone();
                    world.paths += 1;
                    file.add.path = format!("{}.parquet", world.paths);
                    world.rows.insert(file.add.path.clone(), rows);
                }
                world.index.belongs_to(&identity("t"));
            }
            7 => drop(std::fs::remove_dir_all(world.folder.path().join("cache"))),
            8 => {
                // Another engine brings rows back that were deleted.
                let back = world.files.values().find(|file| !file.deleted.is_empty()).map(|file| file.add.path.clone());
                let Some(path) = back else { continue };
                world.index.finish(&world.files).await;
                let file = world.files.values_mut().find(|file| file.add.path == path).expect("just seen");
                let free: Vec<u64> = file
                    .deleted
                    .iter()
                    .filter(|row| !world.model.contains_key(&world.rows[&path][*row as usize]))
                    .collect();
                for row in free {
                    file.deleted.remove(row);
                }
                // A key may be in the file twice, as nobody restores it.
                let mut numbers = world.rows[&path].clone();
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), world.rows[&path].len());
                world.reopen(false).await;
            }
            _ => {
                let count = random.random_range(1..200);
                let mut written: Vec<u64> = (0..count).map(|_| random.random_range(0..5000)).collect();
                written.sort_unstable();
                written.dedup();
                let gone: Vec<u64> = (0..random.random_range(0..30)).map(|_| random.random_range(0..5000)).collect();
                world.commit(&written, &gone).await;
            }
        }
        segments = segments.max(world.index.segments());
        if step % 5 == 0 {
            world.check(0..5000).await;
        }
    }
    world.check(0..5200).await;
    assert!((2..=16).contains(&segments), "{segments} segments");
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_equals_a_model_through_writes_merges_and_restarts() {
    let mut kept = 0;
    for seed in 0..6 {
        kept += walk(seed).await;
    }
    assert!(kept > 20, "{kept} files were kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_no_file_that_the_cache_covers() {
    let mut world = World::new(LITTLE).await;
    for batch in 0..20 {
        world.commit(&(batch * 100..batch * 100 + 150).collect::<Vec<u64>>(), &[]).await;
    }
    assert_eq!(world.reopen(true).await, world.files.len());
    world.check(0..3000).await;
    // What was written since the layer last went to disk is read again after a crash, and nothing else.
    world.commit(&[1, 2, 9000], &[3]).await;
    assert_eq!(world.reopen(false).await, world.files.len() - 1);
    world.check(0..9010).await;
    // The number of a file that is gone is not given to another one: its entries are still there.
    world.commit(&(20_000..20_300).collect::<Vec<u64>>(), &[]).await;
    world.index.finish(&world.files).await;
    world.commit(&[], &(20_000..20_300).collect::<Vec<u64>>()).await;
    let last = world.next_file;
    world.reopen(true).await;
    assert!(world.next_file >= last - 1, "{} after {last}", world.next_file);
    world.commit(&(30_000..30_300).collect::<Vec<u64>>(), &[]).await;
    world.check(0..31_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_rows_with_one_key_are_counted() {
    for bytes_max in [LITTLE, 1 << 30] {
        let mut world = World::new(bytes_max).await;
        let keys: Vec<u64> = (0..2000).collect();
        let mut twice = 0;
        for numbers in [&keys[..], &keys[1900..], &keys[..300]] {
            world.paths += 1;
            let path = format!("{}.parquet", world.paths);
            let id = world.next_file;
            world.next_file += 1;
            let file = DataFile { add: Add { path, ..Add::default() }, rows: 2000, deleted: RoaringTreemap::new() };
            world.files.insert(id, file);
            for (&number, row) in numbers.iter().zip(0..) {
                let before = world.index.insert(key(number), RowAddress { file: id, row });
                twice += u64::from(before.is_some_and(|before| is_live(&world.files, before)));
            }
            world.index.has_all_of(id);
            world.index.tend(&world.files).await.expect("writable");
        }
        twice += world.index.count_twice(&world.files).await.expect("readable");
        assert_eq!(twice, 400, "with {bytes_max} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_folder_in_use_makes_an_index_of_its_own() {
    let mut world = World::new(LITTLE).await;
    world.commit(&(0..1500).collect::<Vec<u64>>(), &[]).await;
    world.index.finish(&world.files).await;
    let mut second = open(&world.cache, "t").await;
    assert!(second.known.is_empty());
    for number in 0..3000_u64 {
        second.index.insert(key(number), RowAddress { file: 0, row: number as u32 });
        second.index.tend(&world.files).await.expect("writable");
    }
    second.index.take_up(true).await.expect("written");
    assert!(second.index.segments() > 0);
    second.index.finish(&world.files).await;
    drop(second);
    assert_eq!(world.reopen(true).await, 1, "the owner's index is as it was");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("readable").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("writable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tables_index_is_not_taken() {
    let mut world = World::new(LITTLE).await;
    world.commit(&(0..1500).collect::<Vec<u64>>(), &[]).await;
    world.index.finish(&world.files).await;
    drop(open(&world.cache, "other").await);
    let ours = world.table_folder();
    let folders = std::fs::read_dir(world.folder.path().join("cache")).expect("made");
    let paths: Vec<PathBuf> = folders.map(|entry| entry.expect("readable").path()).collect();
    let [one, other] = paths.as_slice() else { panic!("two tables: {paths:?}") };
    let (from, to) = if one.join("manifest").exists() { (one, other) } else { (other, one) };
    assert!(ours == *one || ours == *other);
    copy(from, to);
    assert!(open(&world.cache, "other").await.known.is_empty());
    // A segment of another index of the same table does not fit its manifest either.
    world.index = RowIndex::closed();
    let manifest = Manifest::of_bytes(&std::fs::read(from.join("manifest")).expect("there")).expect("whole");
    let changed = Manifest { lineage: manifest.lineage + 1, ..manifest };
    std::fs::write(from.join("manifest"), changed.to_bytes().expect("bytes")).expect("writable");
    assert!(open(&world.cache, "t").await.known.is_empty());
}

/// What is done to a file of the cache.
#[derive(Clone, Debug)]
enum Harm {
    Flip { at: f64, bit: u8 },
    Cut { at: f64 },
    Zero { at: f64 },
    Swap,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (0.0..1.0, 0..8_u8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        (0.0..1.0).prop_map(|at| Harm::Cut { at }),
        (0.0..1.0).prop_map(|at| Harm::Zero { at }),
        Just(Harm::Swap),
    ]
}

/// Harms one file; says whether it is another one than before.
fn do_harm(path: &Path, harm: &Harm) -> bool {
    // What a merge that was given up has begun may be empty, and gone by now.
    let Some(before) = std::fs::read(path).ok().filter(|bytes| !bytes.is_empty()) else { return false };
    let mut bytes = before.clone();
    let place = |at: f64| ((bytes.len() as f64 * at) as usize).min(bytes.len() - 1);
    match *harm {
        Harm::Flip { at, bit } => {
            let place = place(at);
            bytes[place] ^= 1 << bit;
        }
        Harm::Cut { at } => {
            let place = place(at);
            bytes.truncate(place);
        }
        Harm::Zero { at } => {
            let place = place(at) / 512 * 512;
            let end = (place + 512).min(bytes.len());
            bytes[place..end].fill(0);
        }
        // Two blocks of entries change places.
        Harm::Swap if bytes.len() > 5 * 4096 => {
            let (one, other) = bytes.split_at_mut(3 * 4096);
            one[2 * 4096..].swap_with_slice(&mut other[..4096]);
        }
        Harm::Swap => {}
    }
    std::fs::write(path, &bytes).expect("writable");
    bytes != before
}

async fn harmed(file: usize, harm: Harm, filters: bool) {
    // With little memory no filter is loaded, and a damaged one is nobody's business.
    let mut world = World::new(LITTLE).await;
    for batch in 0..12 {
        world.commit(&(batch * 300..batch * 300 + 400).collect::<Vec<u64>>(), &[batch * 7]).await;
    }
    world.index.finish(&world.files).await;
    world.index = RowIndex::closed();
    let folder = world.table_folder();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("made")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "lock"))
        .collect();
    paths.sort();
    assert!(paths.len() > 1);
    let path = &paths[file % paths.len()];
    let changed = do_harm(path, &harm);
    if filters {
        world.cache = IndexCache::new(world.folder.path().join("cache"), 1 << 30);
    }
    let opened = open(&world.cache, "t").await;
    if opened.known.is_empty() {
        assert!(changed, "an index that is whole was not taken");
        return;
    }
    if filters {
        // So that what they hide would be seen.
        for segment in &opened.index.segments {
            if let Err(error) = segment.load_filter(&world.cache) {
                assert!(matches!(error, IndexError::Damaged { .. }) && !segment.has_filter());
            }
        }
    }
    let keys: Vec<KeyHash> = (0..5000).map(key).collect();
    match opened.index.locate(&keys, &world.files).await {
        Ok(found) => {
            for number in 0..5000 {
                assert_eq!(found.get(&key(number)), world.model.get(&number), "{harm:?} of {}", path.display());
            }
        }
        Err(IndexError::Damaged { .. }) => {
            assert!(changed);
            drop(opened);
            assert!(open(&world.cache, "t").await.known.is_empty(), "what is damaged is not opened again");
        }
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_is_noticed_or_harmless(file in 0..8_usize, harm in harm(), filters in any::<bool>()) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(harmed(file, harm, filters));
    }

    #[test]
    fn a_manifest_comes_back_or_is_refused(
        segments in proptest::collection::vec(any::<u128>(), 0..5),
        files in proptest::collection::vec((any::<u32>(), ".{0,40}", any::<u64>(), proptest::collection::vec(0..100_000_u64, 0..50)), 0..5),
        at in 0.0..1.0,
        bit in 0..8_u8,
    ) {
        let files = files.into_iter().map(|(id, path, rows, deleted)| {
            CoveredFile { id, path, rows, deleted: deleted.into_iter().collect() }
        });
        let manifest =
            Manifest { identity: 1 << 127, lineage: 77, seed: u64::MAX, next_file: 9, segments, files: files.collect() };
        let mut bytes = manifest.to_bytes().expect("bytes");
        prop_assert_eq!(Manifest::of_bytes(&bytes), Some(manifest));
        let place = (bytes.len() as f64 * at) as usize;
        bytes[place] ^= 1 << bit;
        prop_assert_eq!(Manifest::of_bytes(&bytes), None);
        prop_assert_eq!(Manifest::of_bytes(&bytes[..place]), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_tables_share_one_budget() {
    const BUDGET: u64 = 4 << 20;
    let folder = TempDir::new().expect("a temporary folder");
    let cache = IndexCache::new(folder.path().join("cache"), BUDGET);
    let file = DataFile { add: Add::default(), rows: 1 << 30, deleted: RoaringTreemap::new() };
    let files = Files::from([(0, file)]);
    let mut tables = Vec::new();
    for table in 0..64 {
        tables.push(open(&cache, &format!("t{table}")).await.index);
    }
    // One that was large when it was alone goes on beside all others.
    let mut most = 0;
    for round in 0..40_u64 {
        for (table, index) in (0..).zip(&mut tables) {
            let count = if round == 0 && table == 0 { 20_000 } else { 100 };
            for number in 0..count {
                let row = (round * 20_000 + number) as u32;
                index.insert(key(u64::from(row)), RowAddress { file: 0, row });
            }
            index.tend(&files).await.expect("writable");
            most = most.max(cache.bytes());
        }
    }
    assert!(most < BUDGET, "{most} bytes");
    for index in &tables {
        let found = index.locate(&[key(20_000 * 39), key(20_000), key(19_999_999)], &files).await.expect("readable");
        assert_eq!(found.len(), 2);
    }
}

/// Numbers for the README: `cargo test --release --lib row_index -- --ignored --nocapture measure`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and gigabytes of disk; prints numbers"]
async fn measure_memory_and_lookups() {
    let millions = std::env::var("LAKEWARD_INDEX_MILLIONS").unwrap_or_else(|_| "1,10,20".to_owned());
    let budget_mib: u64 = std::env::var("LAKEWARD_INDEX_MIB").map_or(64, |text| text.parse().expect("MiB"));
    for millions in millions.split(',').map(|text| text.parse::<u64>().expect("millions")) {
        let folder = tempfile::tempdir_in(std::env::var("LAKEWARD_INDEX_DIR").unwrap_or_else(|_| "/tmp".to_owned()));
        let folder = folder.expect("a temporary folder");
        let cache = IndexCache::new(folder.path().join("cache"), budget_mib << 20);
        let mut index = open(&cache, "t").await.index;
        let mut files = Files::new();
        let keys = millions * 1_000_000;
        let (mut most, start) = (0, std::time::Instant::now());
        for id in 0..(keys / 100_000) as u32 {
            let file = DataFile {
                add: Add { path: id.to_string(), ..Add::default() },
                rows: 100_000,
                deleted: RoaringTreemap::new(),
            };
            files.insert(id, file);
            for row in 0..100_000 {
                index.insert(key(u64::from(id) * 100_000 + u64::from(row)), RowAddress { file: id, row });
            }
            index.has_all_of(id);
            index.tend(&files).await.expect("writable");
            most = most.max(cache.bytes());
        }
        assert!(most < budget_mib << 20, "{most} bytes of {budget_mib} MiB");
        let built = start.elapsed();
        index.take_up(true).await.expect("written");
        let before = cache.counters.blocks_read.load(Ordering::Relaxed);
        let mut random = StdRng::seed_from_u64(1);
        let (mut looked_up, start) = (0, std::time::Instant::now());
        for _ in 0..20 {
            let keys: Vec<KeyHash> = (0..10_000).map(|_| key(random.random_range(0..keys))).collect();
            let found = index.locate(&keys, &files).await.expect("readable");
            assert!(keys.iter().all(|key| found.contains_key(key)));
            looked_up += keys.len();
        }
        let elapsed = start.elapsed().as_secs_f64();
        let blocks = cache.counters.blocks_read.load(Ordering::Relaxed) - before;
        let start = std::time::Instant::now();
        for batch in 0..20 {
            let strangers: Vec<KeyHash> = (0..10_000).map(|number| key(keys + batch * 10_000 + number)).collect();
            assert!(index.locate(&strangers, &files).await.expect("readable").is_empty());
        }
        println!(
            "{millions} M keys: built in {:.1} s, {} segments, {} MiB on disk, at most {:.1} MiB in memory (and now {:.1}); \
             {:.0} lookups/s of keys that are there ({:.2} blocks each), {:.0} of others",
            built.as_secs_f64(),
            index.segments(),
            index.disk_bytes() >> 20,
            most as f64 / 1048576.0,
            cache.bytes() as f64 / 1048576.0,
            looked_up as f64 / elapsed,
            blocks as f64 / looked_up as f64,
            200_000.0 / start.elapsed().as_secs_f64(),
        );
        let start = std::time::Instant::now();
        index.finish(&files).await;
        drop(index);
        let opened = open(&cache, "t").await;
        assert_eq!(opened.known.len(), files.len());
        println!("  closed and opened again in {:.2} s", start.elapsed().as_secs_f64());
    }
}
