//! The fuzz targets as an ordinary test: the whole corpus, every input that once broke a promise, and a fixed number of
//! mutations of them, the same in every run.
//!
//! A failure prints how to see it again. `LAKEWARD_FUZZ_SEED` and `LAKEWARD_FUZZ_ITERATIONS` choose another run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{TARGETS, Target};

const SEED: u64 = 20_260_903;

/// Per target; all of them take some seconds of one core in an unoptimised build.
const ITERATIONS: u64 = 20_000;

/// Larger inputs say nothing new and take long.
const LENGTH_MAX: usize = 8192;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Inputs of one target in `fuzz/<kind>/<target>`, in the order of their names.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Some of what libFuzzer does, deterministic.
fn mutate(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    const INTERESTING: [u64; 12] =
        [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 63, u64::MAX];
    for _ in 0..random.random_range(1..=6) {
        let at = if input.is_empty() { 0 } else { random.random_range(0..input.len()) };
        match random.random_range(0..9) {
            0 if !input.is_empty() => input[at] ^= 1 << random.random_range(0..8),
            1 if !input.is_empty() => input[at] = random.random(),
            2 => {
                let value = INTERESTING[random.random_range(0..INTERESTING.len())];
                let size = [1, 2, 3, 4, 8][random.random_range(0..5)];
                let bytes = if random.random() { value.to_le_bytes() } else { value.to_be_bytes() };
                let bytes = if bytes[0] == 0 { &bytes[8 - size..] } else { &bytes[..size] };
                for (offset, byte) in bytes.iter().enumerate() {
                    if let Some(place) = input.get_mut(at + offset) {
                        *place = *byte;
                    }
                }
            }
            3 => input.insert(at, random.random()),
            4 if !input.is_empty() => {
                let end = (at + random.random_range(1..=16)).min(input.len());
                input.drain(at..end);
            }
            5 if !input.is_empty() => {
                let end = (at + random.random_range(1..=64)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                input.splice(to..to, piece);
            }
            6 => input.truncate(at),
            7 if !other.is_empty() => {
                let start = random.random_range(0..other.len());
                let end = (start + random.random_range(1..=128)).min(other.len());
                input.splice(at..at, other[start..end].iter().copied());
            }
            _ if !input.is_empty() => input[at] = input[at].wrapping_add(random.random_range(0..=4)).wrapping_sub(2),
            _ => {}
        }
    }
    input.truncate(LENGTH_MAX);
}

fn survives(target: Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target(input))).is_ok()
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    let corpus = inputs("corpus", name);
    assert!(corpus.len() >= 10, "fuzz/corpus/{name} is gone; make fuzz-seeds records it again");
    let regressions = inputs("regressions", name);
    for (path, input) in corpus.iter().chain(&regressions) {
        assert!(survives(*target, input), "{} breaks a promise (above)", path.display());
    }
    let seeds: Vec<&[u8]> = corpus.iter().chain(&regressions).map(|(_, input)| input.as_slice()).collect();
    let seed = setting("LAKEWARD_FUZZ_SEED", SEED);
    let mut random = StdRng::seed_from_u64(seed);
    for iteration in 0..setting("LAKEWARD_FUZZ_ITERATIONS", ITERATIONS) {
        let mut input = seeds[random.random_range(0..seeds.len())].to_vec();
        let other = seeds[random.random_range(0..seeds.len())];
        mutate(&mut random, &mut input, other);
        if !survives(*target, &input) {
            let found = std::env::temp_dir().join(format!("lakeward-{name}-{seed}-{iteration}"));
            std::fs::write(&found, &input).expect("writable");
            panic!(
                "{name}: mutation {iteration} with LAKEWARD_FUZZ_SEED={seed} breaks a promise (above); the input is in \
                 {} and belongs into fuzz/regressions/{name}/ once it is mended: {}",
                found.display(),
                hex(&input)
            );
        }
    }
}

#[test]
fn binlog_events_keep_their_promises_for_any_bytes() {
    run("binlog_events");
}

#[test]
fn row_images_keep_their_promises_for_any_bytes() {
    run("row_images");
}

#[test]
fn jsonb_keeps_its_promises_for_any_bytes() {
    run("jsonb");
}

#[test]
fn pgoutput_keeps_its_promises_for_any_bytes() {
    run("pgoutput");
}

#[test]
fn text_values_keep_their_promises_for_any_bytes() {
    run("text_values");
}

/// Every target that cargo-fuzz knows has its short run, and the other way round.
#[test]
fn every_fuzz_target_has_its_short_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .expect("fuzz/fuzz_targets")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(found, known);
}
