//! One run: set up, warm up, measure, verify.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::contestant::{Contestant, Route};
use crate::end::{Answer, EndProcess, ROUND, SOON};
use crate::histogram;
use crate::pair::Pair;
use crate::point::{PING_BYTES, Point, Work};
use crate::process;
use crate::record::Run;

/// How long a measured round should take. A round in progress is never cut short.
pub(crate) const TARGET: Duration = Duration::from_millis(1000);
/// The same for `quick`.
pub(crate) const QUICK_TARGET: Duration = Duration::from_millis(700);

/// Requests and streams run side by side for this many targets: enough requests for a p99.
const HOL_TARGETS: u32 = 2;

/// Measures one contestant at one point.
pub(crate) fn measure(
    point: &Point,
    contestant: &Contestant,
    pair: &mut Pair,
    emulator: Option<u32>,
    target: Duration,
) -> Result<Run> {
    let route = contestant.route(point);
    let outcome = rounds(point, &route, pair, emulator, target);
    // Also after a failure, so that the ends can be used again if they are alive.
    let closed = [0, 1].map(|i| pair.ends[i].tell("close", SOON));
    let mut run = outcome?;
    for answer in closed {
        answer?;
    }
    run.point = point.to_string();
    run.contestant = contestant.to_string();
    Ok(run)
}

fn rounds(
    point: &Point,
    route: &Route,
    pair: &mut Pair,
    emulator: Option<u32>,
    target: Duration,
) -> Result<Run> {
    let (kind, work) = match point.work {
        Work::Flood => ("counter", "flood"),
        Work::Loop | Work::Idle => ("partner", "loop"),
        Work::Hol => ("partner", "hol"),
    };
    let ping = match point.work {
        Work::Hol => format!(" ping_link={} ping_size={PING_BYTES}", route.ping_link),
        _ => String::new(),
    };
    let what = format!("size={} link={}{ping}", point.size, route.link);
    let [a, b] = &mut pair.ends;
    b.tell(&format!("sink kind={kind} n={} {what}", point.actors), SOON)?;
    a.tell(
        &format!("source work={work} peer={} {what}", pair.peer),
        SOON,
    )?;

    let warm_up = match point.work {
        Work::Hol => Amount::Time(target / 3),
        _ => Amount::Count(warm_up_count(point)),
    };
    let (warm, _) = round(pair, warm_up)?;
    let amount = match point.work {
        Work::Hol => Amount::Time(target * HOL_TARGETS),
        _ => Amount::Count(measured_count(point, &warm, target)?),
    };

    for end in &mut pair.ends {
        end.tell("gc", SOON)?;
    }
    let pids = [pair.ends[0].pid, pair.ends[1].pid];
    for pid in pids {
        process::forget_peak(pid);
    }
    let cpu = |ends: &mut [EndProcess; 2]| -> Result<[u64; 3]> {
        let emulator = emulator.map_or(Ok(0), process::cpu_ns)?;
        Ok([ends[0].cpu_ns()?, ends[1].cpu_ns()?, emulator])
    };
    let load = process::load();
    let before = cpu(&mut pair.ends)?;
    let (sent, seen) = round_then(pair, amount, cpu)?;
    let (seen, after) = seen;

    let mut run = Run {
        seconds: sent.number("ns")? as f64 / 1e9,
        messages: sent.number("messages")?,
        bytes: sent.number("bytes")?,
        cpu_a_ns: after[0] - before[0],
        cpu_b_ns: after[1] - before[1],
        emulator_cpu_ns: after[2] - before[2],
        queued: sent.number("queued").ok(),
        load,
        ..Run::default()
    };
    run.set_round_trip(histogram::parse(sent.text("rt"))?);
    if point.work != Work::Hol {
        run.set_one_way(histogram::parse(seen.text("ow"))?);
    }
    (run.rss_a_mb, run.peak_a_mb) = process::resident_mb(pids[0])?;
    (run.rss_b_mb, run.peak_b_mb) = process::resident_mb(pids[1])?;
    Ok(run)
}

/// How much a round is.
#[derive(Clone, Copy, Debug)]
enum Amount {
    /// Messages of each actor.
    Count(u64),
    Time(Duration),
}

fn round(pair: &mut Pair, amount: Amount) -> Result<(Answer, Answer)> {
    let (sent, (seen, ())) = round_then(pair, amount, |_| Ok(()))?;
    Ok((sent, seen))
}

/// A round; `look` is called when the clock has stopped and before anything is verified.
fn round_then<T>(
    pair: &mut Pair,
    amount: Amount,
    look: impl Fn(&mut [EndProcess; 2]) -> Result<T>,
) -> Result<(Answer, (Answer, T))> {
    let command = match amount {
        Amount::Count(count) => format!("round count={count}"),
        Amount::Time(time) => format!("round ms={}", time.as_millis()),
    };
    let sent = pair.ends[0].tell(&command, ROUND)?;
    let looked = look(&mut pair.ends)?;
    let seen = pair.ends[1].tell("verdict", SOON)?;
    verify(&sent, &seen)?;
    Ok((sent, (seen, looked)))
}

/// Everything arrived, once and unchanged.
fn verify(sent: &Answer, seen: &Answer) -> Result<()> {
    let (went, came) = (sent.number("sent")?, seen.number("messages")?);
    ensure!(went == came, "{went} messages were sent, {came} arrived");
    let (went, came) = (sent.number("sum")?, seen.number("sum")?);
    ensure!(
        went == came,
        "the check sums differ: {went} sent, {came} arrived"
    );
    let bad = seen.number("bad")?;
    if bad > 0 {
        bail!("{bad} messages did not arrive as they were sent");
    }
    Ok(())
}

/// Messages of each actor in the round that opens windows, fills caches and tells the rate.
fn warm_up_count(point: &Point) -> u64 {
    let actors = u64::from(point.actors);
    let most = match (point.work, point.rtt_ms) {
        (Work::Flood, _) => 20_000,
        // At most a few hundred milliseconds of waiting for replies.
        (_, 20..) => 10 * actors,
        (_, 1..) => 100 * actors,
        _ => 4_000,
    };
    let total = most.min((128 << 20) / point.size as u64);
    (total / actors).max(1)
}

/// So many that the round takes the target's time at the rate of the warm-up.
fn measured_count(point: &Point, warm: &Answer, target: Duration) -> Result<u64> {
    let seconds = warm.number("ns")? as f64 / 1e9;
    let rate = warm.number("messages")? as f64 / seconds.max(1e-6);
    let count = rate * target.as_secs_f64() / f64::from(point.actors);
    Ok((count as u64).clamp(2, 5_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_ups_are_short() {
        let count = |text: &str| warm_up_count(&text.parse().unwrap());
        assert_eq!(count("flood size=64 senders=1"), 20_000);
        assert_eq!(count("loop size=8M actors=128 rtt=20"), 1);
        assert_eq!(count("loop size=64 actors=16"), 250);
        assert_eq!(count("loop size=64 actors=1 rtt=20"), 10);
    }
}
