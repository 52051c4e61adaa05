//! What processes cost while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

/// Clock ticks per second in `/proc/PID/stat` (`sysconf(_SC_CLK_TCK)`, 100 on every Linux).
const TICKS: f64 = 100.0;

/// Prints memory and CPU use of processes.
pub async fn watch(pids: &[u32], seconds: u64) -> Result<()> {
    let before: Vec<u64> = pids.iter().map(|pid| ticks(*pid)).collect::<Result<_>>()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    for (pid, before) in pids.iter().zip(before) {
        #[allow(clippy::cast_precision_loss)]
        let used = (ticks(*pid)? - before) as f64 / TICKS;
        #[allow(clippy::cast_precision_loss)]
        let percent = used / seconds as f64 * 100.0;
        println!(
            "{}",
            json!({"scenario": "idle", "pid": pid, "rss_mb": rss_mb(*pid)?, "cpu_percent": percent})
        );
    }
    Ok(())
}

fn ticks(pid: u32) -> Result<u64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let after_name = stat.rsplit_once(')').context("stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).context("stat");
    Ok(field(11)? + field(12)?)
}

fn rss_mb(pid: u32) -> Result<u64> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kb = line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).context("VmRSS")?;
    Ok(kb / 1024)
}
