//! The `hearth` program: an allocator, and everything else in `hearth-app`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Also RocksDB's allocator: jemalloc takes over the C symbols.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Freed pages go back to the kernel within a second, by a thread of its own, so that memory after a
/// busy hour is what it was before; few arenas keep a small machine small.
const TUNING: &[u8] = b"background_thread:true,narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// What jemalloc reads before `main`: a C string.
#[expect(unsafe_code, reason = "the symbol's name is the interface; nothing else defines it")]
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; TUNING.len()] = match TUNING.first_chunk() {
    Some(text) => text,
    None => panic!("a slice begins with as many bytes as it has"),
};

fn main() -> ExitCode {
    hearth_app::main()
}
