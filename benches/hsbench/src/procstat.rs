//! CPU, memory and disk use of the server, from /proc and the file system.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// USER_HZ, which is 100 on every Linux that /proc describes.
const TICKS_PER_S: f64 = 100.0;

/// Its parent, and CPU seconds: its own, and those of its children which have ended.
type Process = (u32, (f64, f64));

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu_s: f64,
    pub(crate) rss_mb: f64,
    pub(crate) pss_mb: f64,
    pub(crate) disk: u64,
    pub(crate) own_cpu_s: f64,
    /// Busy CPU seconds of the whole machine.
    pub(crate) machine_cpu_s: f64,
}

/// Sums over every given pid and all its descendants (a PostgreSQL postmaster
/// counts with its backends). CPU of children that already ended is included.
pub(crate) fn sample(pids: &[u32], dirs: &[String]) -> Sample {
    let mut s = Sample { own_cpu_s: own_cpu(), machine_cpu_s: machine_cpu(), ..Default::default() };
    if !pids.is_empty() {
        let mut stats: HashMap<u32, Process> = HashMap::new();
        for e in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = e.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(st) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some(rest) = st.rsplit_once(')').map(|x| x.1) else { continue };
            let f: Vec<&str> = rest.split_whitespace().collect();
            let n = |i: usize| f.get(i).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
            // utime + stime, and cutime + cstime: its own and that of its children which have ended.
            let own_and_ended = ((n(11) + n(12)) / TICKS_PER_S, (n(13) + n(14)) / TICKS_PER_S);
            stats.insert(pid, (n(1) as u32, own_and_ended));
        }
        for (&pid, &(_, (own, ended))) in &stats {
            if !in_tree(pid, pids, &stats) {
                continue;
            }
            s.cpu_s += cpu_clock(pid).unwrap_or(own) + ended;
            s.rss_mb += kb_of(&format!("/proc/{pid}/status"), "VmRSS:") / 1024.0;
            s.pss_mb += kb_of(&format!("/proc/{pid}/smaps_rollup"), "Pss:") / 1024.0;
        }
    }
    s.disk = dirs.iter().map(|d| disk(Path::new(d))).sum();
    s
}

/// CPU seconds of a process to the nanosecond: a short run is few of the ticks that /proc counts in.
fn cpu_clock(pid: u32) -> Option<f64> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let time = clock_gettime(clock_getcpuclockid(pid).ok()?).ok()?;
    Some(Duration::from(time).as_secs_f64())
}

fn in_tree(pid: u32, roots: &[u32], stats: &HashMap<u32, Process>) -> bool {
    let mut p = pid;
    loop {
        if roots.contains(&p) {
            return true;
        }
        match stats.get(&p) {
            Some(&(parent, _)) if parent > 1 => p = parent,
            _ => return false,
        }
    }
}

fn kb_of(path: &str, key: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Sum of file lengths (not blocks: RocksDB preallocates its log files).
fn disk(p: &Path) -> u64 {
    let Ok(m) = fs::symlink_metadata(p) else { return 0 };
    if m.is_dir() { fs::read_dir(p).into_iter().flatten().flatten().map(|e| disk(&e.path())).sum() } else { m.len() }
}

/// All but idle and iowait, from the first line of /proc/stat.
fn machine_cpu() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or("");
    let v: Vec<f64> = first.split_whitespace().skip(1).filter_map(|x| x.parse().ok()).collect();
    let busy: f64 = v.iter().take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|x| x.1).sum();
    busy / TICKS_PER_S
}

fn own_cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}
