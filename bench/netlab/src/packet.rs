//! What the emulator has to know about a packet: for whom it is, and what it would be on a wire.
//!
//! A frame is what a TUN device with `IFF_VNET_HDR` gives and takes: `struct virtio_net_hdr`
//! (Linux `include/uapi/linux/virtio_net.h`, 10 bytes, host byte order) and an IP packet, which may
//! be a super-packet of up to 64 KB that stands for many segments. The header says how to cut it and
//! where its checksum is still to be filled in; it is delivered unchanged with the packet.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Length of `struct virtio_net_hdr`.
pub const HEADER: usize = 10;
/// Largest frame: the header and the largest IP packet.
pub const MAX_FRAME: usize = HEADER + 65_535;
/// Most nodes: the last octet of their addresses counts from 1.
pub const MAX_NODES: usize = 254;

/// The IPv4 address of a node.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, (node + 1) as u8)
}

/// The IPv6 address of a node.
pub fn address6(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, (node + 1) as u16)
}

/// The node that a frame is for, if it is for one.
pub fn destination(frame: &[u8]) -> Option<usize> {
    let packet = frame.get(HEADER..)?;
    let last = match packet.first()? >> 4 {
        4 => match packet.get(16..20)? {
            [10, 77, 0, last] => *last,
            _ => return None,
        },
        6 => match packet.get(24..40)? {
            [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] => *last,
            _ => return None,
        },
        _ => return None,
    };
    usize::from(last)
        .checked_sub(1)
        .filter(|node| *node < MAX_NODES)
}

/// What a frame is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// IP packets.
    pub segments: u64,
    /// Their bytes, each with its own headers.
    pub bytes: u64,
}

/// Counts the packets that a super-packet stands for. A header that makes no sense counts as one.
pub fn wire(frame: &[u8]) -> Wire {
    let bytes = frame.len().saturating_sub(HEADER) as u64;
    segmented(frame).unwrap_or(Wire { segments: 1, bytes })
}

fn segmented(frame: &[u8]) -> Option<Wire> {
    const ECN: u8 = 0x80;
    const UDP_L4: u8 = 5;
    let (header, packet) = frame.split_at_checked(HEADER)?;
    let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (kind, size) = (header[1] & !ECN, u64::from(field(4)));
    if kind == 0 || size == 0 {
        return None;
    }
    // A super-packet leaves its checksum to the device, so this is where its transport begins.
    let transport = usize::from(field(6));
    let headers = match kind {
        UDP_L4 => transport + 8,
        _ => transport + usize::from(packet.get(transport + 12)? >> 4) * 4,
    };
    let payload = packet.len().checked_sub(headers)? as u64;
    let segments = payload.div_ceil(size).max(1);
    Some(Wire {
        segments,
        bytes: payload + segments * headers as u64,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, size: u16, transport: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, kind, 0, 0];
        frame.extend(size.to_ne_bytes());
        frame.extend(transport.to_ne_bytes());
        frame.extend([16, 0]);
        frame.extend(packet);
        frame
    }

    fn v4(to: [u8; 4], length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&to);
        packet
    }

    #[test]
    fn nodes_are_found_by_address() {
        for node in [0, 1, 253] {
            let v4 = v4(address(node).octets(), 40);
            assert_eq!(destination(&frame(0, 0, 0, &v4)), Some(node));
            let mut v6 = vec![0; 60];
            v6[0] = 0x60;
            v6[24..40].copy_from_slice(&address6(node).octets());
            assert_eq!(destination(&frame(0, 0, 0, &v6)), Some(node));
        }
        for other in [
            [10, 77, 0, 0],
            [10, 77, 0, 255],
            [10, 77, 1, 1],
            [224, 0, 0, 1],
        ] {
            assert_eq!(destination(&frame(0, 0, 0, &v4(other, 40))), None);
        }
        let cut = frame(0, 0, 0, &v4([10, 77, 0, 1], 40)[..19]);
        assert_eq!(destination(&cut), None);
    }

    #[test]
    fn super_packets_count_their_segments() {
        let mut tcp = v4([10, 77, 0, 1], 20 + 32 + 3 * 1448 + 1);
        tcp[32] = 8 << 4;
        assert_eq!(
            wire(&frame(1, 1448, 20, &tcp)),
            Wire {
                segments: 4,
                bytes: 3 * 1500 + 53
            }
        );
        assert_eq!(wire(&frame(0x81, 1448, 20, &tcp)).segments, 4);
        let udp = v4([10, 77, 0, 1], 28 + 2000);
        assert_eq!(
            wire(&frame(5, 1000, 20, &udp)),
            Wire {
                segments: 2,
                bytes: 2056
            }
        );
        assert_eq!(
            wire(&frame(0, 0, 0, &udp)),
            Wire {
                segments: 1,
                bytes: 2028
            }
        );
        assert_eq!(wire(&frame(1, 1448, 5000, &tcp)).segments, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = destination(&frame);
            prop_assert!(wire(&frame).segments >= 1);
        }
    }
}
