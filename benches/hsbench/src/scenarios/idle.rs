//! Start-up time to the first answer on /versions, the resting memory, and the memory after the run.

use crate::client::{Fail, Res};
use crate::ctx::Ctx;
use crate::procstat::sample;
use reqwest::Method;
use serde_json::json;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) async fn idle(ctx: &Arc<Ctx>) -> Res<()> {
    let Some(cmd) = &ctx.args.start_cmd else {
        eprintln!("[idle] skipped: no --start-cmd");
        return Ok(());
    };
    let t = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {cmd}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Fail::Other(e.to_string()))?;
    let path = "/_matrix/client/versions";
    let mut up = false;
    while !up && t.elapsed().as_secs() < 60 {
        up = ctx.hs.raw(Method::GET, path, None, None).await.is_ok_and(|r| r.ok());
        if !up {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    let startup = t.elapsed().as_secs_f64() * 1e3;
    let pids = [child.id()];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let a = sample(&pids, &ctx.args.data_dir);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let b = sample(&pids, &ctx.args.data_dir);
    ctx.emit(json!({"scenario": "idle", "ops": 1, "seconds": 10, "errors": u8::from(!up),
        "startup_ms": startup.round(), "rss_mb": b.rss_mb.round(), "pss_mb": b.pss_mb.round(),
        "startup_cpu_s": a.cpu_s, "idle_cpu_percent": (b.cpu_s - a.cpu_s) * 10.0,
        "disk_mb": b.disk as f64 / 1e6}));
    // Asked politely, so that the store is closed before the next phase opens it.
    let asked = Command::new("kill").arg(child.id().to_string()).status();
    if !asked.is_ok_and(|s| s.success()) {
        let _ = child.kill();
    }
    let _ = child.wait();
    Ok(())
}

/// Memory and disk after everything else, when the server has rested for five seconds.
pub(crate) async fn after_run(ctx: &Arc<Ctx>) -> Res<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let s = sample(&ctx.args.pid, &ctx.args.data_dir);
    ctx.emit(json!({"scenario": "after_run", "ops": 1, "errors": 0, "rss_mb": s.rss_mb.round(),
        "pss_mb": s.pss_mb.round(), "cpu_s": s.cpu_s, "disk_mb": s.disk as f64 / 1e6}));
    Ok(())
}
