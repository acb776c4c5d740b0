#!/usr/bin/env bash
# Fuzzes the decoders, guided by coverage, one target after the other. Ends at the first input that breaks a promise:
# mend it, keep the input in fuzz/regressions/TARGET/, and it is part of `make test` from then on.
#
#   fuzz.sh SECONDS [TARGET...]    for each target; all of them when none is named
#
# What libFuzzer finds interesting is kept below $CARGO_TARGET_DIR, and is where the next run begins.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"
export PATH=$CACHE/cargo-fuzz/bin:$PATH

seconds=$1
shift
targets=("$@")
((${#targets[@]} > 0)) || for source in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$source" .rs)"); done

# No sanitizer: the code is safe Rust, and stable Rust has none.
cargo fuzz build --sanitizer none --target-dir "$CARGO_TARGET_DIR/fuzz"
programs=$(ls -d "$CARGO_TARGET_DIR"/fuzz/*/release)

for target in "${targets[@]}"; do
    work=$CARGO_TARGET_DIR/fuzz/corpus/$target
    found=$CARGO_TARGET_DIR/fuzz/found/$target
    mkdir -p "$work" "$found" "fuzz/regressions/$target"
    echo "fuzz: $target for $seconds s"
    # The bound on memory also catches what grows by small steps.
    "$programs/$target" "$work" "fuzz/corpus/$target" "fuzz/regressions/$target" \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$found/" \
        -print_final_stats=1 -verbosity=0 ||
        die "$target: an input breaks a promise; it is in $found"
done
