//! What the kernel says about a process, and what the machine is.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of a process so far, in nanoseconds, all threads.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid} is gone"))?;
    let mut sum = 0;
    for task in tasks {
        // A thread may end meanwhile; ends have a constant number of threads that matter.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let on_cpu = text.split_whitespace().next().unwrap_or("0");
        sum += on_cpu.parse::<u64>().context("schedstat")?;
    }
    if sum == 0 {
        return cpu_ticks(pid);
    }
    Ok(sum)
}

/// CPU time of this process so far, threads that have ended included.
pub(crate) fn own_cpu_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::ProcessCPUTime)
}

/// For kernels without scheduler statistics: hundredths of a second.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.map(|t| t.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks * 10_000_000)
}

/// Resident memory in MB, now and at most.
pub(crate) fn resident_mb(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let kb = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kb.unwrap_or(0.0) * 1024.0 / 1e6
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// Makes the peak of resident memory count from now on; where that isn't allowed it goes on.
pub(crate) fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The load average over one minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|t| t.parse().ok()).unwrap_or(0.0)
}

/// Kernel and cores, for the tables' headers.
pub(crate) fn machine() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {cores} cores", release.trim())
}

/// CLOCK_MONOTONIC, the same for all processes of the host.
pub(crate) fn clock_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::Monotonic)
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let pid = std::process::id();
        let before = cpu_ns(pid).unwrap();
        let start = clock_ns();
        while clock_ns() < start + 30_000_000 {}
        assert!(cpu_ns(pid).unwrap() > before);
        let (now, peak) = resident_mb(pid).unwrap();
        assert!(0.0 < now && now <= peak);
    }
}
