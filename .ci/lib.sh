# Shared by the scripts of this folder and of the top level: sourced, never run.

set -euo pipefail

cache="${HEARTH_CACHE:-$HOME/.cache/hearth}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
# Rust and the tools that .ci/setup installs, whether or not the shell knows about them.
export PATH="$cache/tools/bin:$HOME/.cargo/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf '\n%s\n' "$*" >&2
  exit 1
}

# Builds with Cargo's own progress, and tells how far RocksDB is: its C++ is one step for Cargo, which takes 9 to
# 12 minutes on two cores and would look like nothing at all. Once in the cache it is not built again.
build_with_progress() {
  local files total watcher status=0
  (
    while sleep 10; do
      # Counted until the archive is made, which is when RocksDB is finished.
      for out in "$CARGO_TARGET_DIR"/release/build/librocksdb-sys-*/out; do
        [ -d "$out" ] && [ ! -e "$out/librocksdb.a" ] || continue
        files=$(find "$out" -name '*.o' | wc -l)
        total=${HEARTH_ROCKSDB_FILES:-343}
        [ "$files" -gt 0 ] && printf '   RocksDB: %d of about %d files compiled\n' "$files" "$total" >&2
      done
    done
  ) &
  watcher=$!
  cargo build --release "$@" || status=$?
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  return "$status"
}
