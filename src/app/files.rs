//! File descriptors: connections must not take those that the store needs.
//!
//! A shell gives 1 024 to a process. Without care a rush of connections takes them all, and then
//! RocksDB cannot open the table that it has to write, which is a failed disk to it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What RocksDB may have open, the log files, listeners and the like.
const RESERVED: u64 = 640;
/// Connections that are served in any case.
const LEAST: u64 = 64;

/// How many of `wanted` connections may be open. Raises the process's own limit first, as far as the
/// system lets it.
pub(crate) fn connections(wanted: u32) -> usize {
    let needed = u64::from(wanted) + RESERVED;
    let limit = raise(needed);
    let allowed = allowed(u64::from(wanted), limit);
    if allowed < u64::from(wanted) {
        tracing::warn!(
            allowed,
            wanted,
            limit,
            "fewer connections than listen.max_connections, because of the limit of open files (ulimit -Hn)"
        );
    }
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

/// The limit of open files after raising it to `needed`, if it was lower.
fn raise(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is "without limit".
    let Some(soft) = current else { return u64::MAX };
    let reachable = maximum.map_or(needed, |hard| needed.min(hard));
    if soft >= reachable {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum }) {
        Ok(()) => reachable,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            soft
        }
    }
}

const fn allowed(wanted: u64, limit: u64) -> u64 {
    let left = limit.saturating_sub(RESERVED);
    let left = if left < LEAST { LEAST } else { left };
    if wanted < left { wanted } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_store() {
        assert_eq!(allowed(4096, 65_536), 4096);
        assert_eq!(allowed(4096, 1024), 384);
        assert_eq!(allowed(4096, 256), LEAST);
        assert_eq!(allowed(16, 1024), 16);
    }
}
