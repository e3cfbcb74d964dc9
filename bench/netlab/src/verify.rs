//! Measures what the emulator carries, which is the ceiling of whatever is measured with it.

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use netlab::probe::{bulk, ping};
use netlab::{Lab, LinkChange, Nodes};

const ROUND_TRIPS_MS: [f64; 3] = [0.0, 1.0, 20.0];
const STREAMS: [usize; 2] = [1, 16];
const PINGS: u16 = 40;

pub(crate) fn run(lab: &Lab, time: Duration, json: bool) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    if !json {
        writeln!(
            out,
            "| RTT ms | streams | Gbit/s | emulator CPU | ping avg (min-max) ms |"
        )?;
        writeln!(out, "|---|---|---|---|---|")?;
    }
    for rtt in ROUND_TRIPS_MS {
        let delay = Some(Duration::from_secs_f64(rtt / 2000.0));
        lab.set(
            Nodes::All,
            Nodes::All,
            LinkChange {
                delay,
                ..Default::default()
            },
        )?;
        let echo = ping(lab, 0, 1, PINGS, Duration::from_secs(2))?;
        let Some((min, avg, max)) = echo.summary() else {
            return Err(format!("no ping was answered at {rtt} ms").into());
        };
        let [min, avg, max] = [min, avg, max].map(|time| time.as_secs_f64() * 1e3);
        for streams in STREAMS {
            // Slow start at the longest round trip takes less.
            let bulk = bulk(lab, 0, 1, streams, Duration::from_millis(700), time)?;
            let (gbit, cpu) = (bulk.bits_per_second / 1e9, bulk.emulator_cpus * 100.0);
            if json {
                writeln!(
                    out,
                    "{{\"rtt_ms\":{rtt},\"streams\":{streams},\"gbit_s\":{gbit:.3},\
                     \"emu_cpu_pct\":{cpu:.1},\"ping_avg_ms\":{avg:.3},\"ping_min_ms\":{min:.3},\
                     \"ping_max_ms\":{max:.3},\"ping_lost\":{}}}",
                    echo.lost
                )?;
            } else {
                writeln!(
                    out,
                    "| {rtt} | {streams} | {gbit:.2} | {cpu:.0} % | {avg:.2} ({min:.2}-{max:.2}) |"
                )?;
            }
        }
    }
    Ok(())
}
