//! How long an I/O thread runs at a stretch when cores are short.
//!
//! Linux (6.12 and later) lets a thread of the ordinary policy choose its slice (`sched_setattr`,
//! field `sched_runtime`): one with a short slice is let in soon after it wakes, one with a long
//! slice waits longer and then runs longer. Both get the same share. A thread that serves small
//! messages takes 100 µs at the least possible delay; one that moves megabytes has time. Without it
//! a small message waits for the slice of whatever moves a large one, 3 ms by default.

use std::mem::size_of;
use std::time::Duration;

/// `struct sched_attr` in its first published size.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Chooses the slice of the calling thread; zero leaves it to the system. Linux takes 100 µs to
/// 100 ms, and the nearest of what lies beyond. Where the system knows no such thing nothing happens.
#[cfg(target_os = "linux")]
pub(crate) fn choose(slice: Duration) {
    if slice.is_zero() {
        return;
    }
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>() as libc::c_uint;
    let this_thread: libc::pid_t = 0;
    let flags: libc::c_uint = 0;
    // SAFETY: the system writes at most `size` bytes of a struct of that size, and reads as many.
    unsafe {
        let read = libc::syscall(
            libc::SYS_sched_getattr,
            this_thread,
            &raw mut attributes,
            size,
            flags,
        );
        if read != 0 || attributes.policy != libc::SCHED_OTHER as u32 {
            return;
        }
        attributes.runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        // Refused only by a sandbox.
        libc::syscall(
            libc::SYS_sched_setattr,
            this_thread,
            &raw const attributes,
            flags,
        );
    }
}

/// Other systems offer nothing of the kind.
#[cfg(not(target_os = "linux"))]
pub(crate) fn choose(_: Duration) {}
