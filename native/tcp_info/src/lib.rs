//! What the kernel knows of a TCP connection.
//!
//! A crate of its own because no library has a safe `TCP_INFO`, and the node itself does without
//! `unsafe`.

use std::os::fd::AsFd;
use std::time::Duration;

/// The least round trip of a connection in the last minutes (`tcpi_min_rtt`, Linux 4.6 and later),
/// in whole microseconds. The kernel takes it from acknowledgements, the handshake's among them, so it
/// is there at once, and neither process takes part in it. None if the kernel doesn't say, or if
/// that is no TCP connection.
///
/// Source: `struct tcp_info` of `linux/tcp.h`.
pub fn min_rtt(socket: impl AsFd) -> Option<Duration> {
    imp::min_rtt_micros(socket.as_fd())
        .filter(|micros| (1..u32::MAX).contains(micros))
        .map(|micros| Duration::from_micros(micros.into()))
}

#[cfg(target_os = "linux")]
mod imp {
    use std::mem::{MaybeUninit, offset_of, size_of};
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub(crate) fn min_rtt_micros(socket: BorrowedFd<'_>) -> Option<u32> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to where `info` has as many, and the
        // descriptor is borrowed for the call.
        let failed = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        // SAFETY: integers only, all of them written: zeroes at first.
        let info = unsafe { info.assume_init() };
        // Older kernels know fewer fields.
        let end = offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>();
        (failed == 0 && length as usize >= end).then_some(info.tcpi_min_rtt)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(crate) fn min_rtt_micros(_: std::os::fd::BorrowedFd<'_>) -> Option<u32> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn both_ends_of_a_connection_know_it_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (b, _) = listener.accept().unwrap();
        for end in [&a, &b] {
            let rtt = min_rtt(end);
            if cfg!(target_os = "linux") {
                assert!(
                    rtt.is_some_and(|rtt| rtt < Duration::from_secs(1)),
                    "{rtt:?}"
                );
            }
        }
    }

    #[test]
    fn others_have_none() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(min_rtt(&socket), None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(min_rtt(&listener), None);
    }
}
