//! Packets of the distribution protocol: whatever one peer sends on one connection, signals come
//! out or errors, and a signal that came out goes in again as it is.

use partisan::wire::dist::{
    Chunks, Control, Decoder, DistError, DistLimits, Encoder, EncoderConfig,
};
use partisan::wire::flags::Flags;

use bytes::{Buf, Bytes};

use super::Input;

const CHOSEN: [Flags; 2] = [Flags::DIST_HDR_ATOM_CACHE, Flags::FRAGMENTS];

/// First byte: bit 0 atom cache, bit 1 fragments. Then packets with lengths of two bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let flags = CHOSEN
        .iter()
        .enumerate()
        .filter(|(bit, _)| mode >> bit & 1 == 1);
    let agreed = flags.fold(Flags(0), |all, (_, flag)| all.with(*flag));
    let limits = DistLimits {
        message_bytes: 1 << 20,
        open_sequences: 16,
        open_bytes: 1 << 20,
        ..DistLimits::default()
    };
    let mut decoder = Decoder::new(agreed, limits);
    let config = EncoderConfig { fragment_bytes: 64 };
    let mut encoder = Encoder::new(Flags::STOCK, config);
    let mut again = Decoder::new(Flags::STOCK, DistLimits::default());
    let mut out = Chunks::new();
    while !input.is_empty() {
        let packet = Bytes::copy_from_slice(input.piece());
        let signal = match decoder.packet(packet) {
            Ok(Some(signal)) => signal,
            Ok(None) => {
                assert!(decoder.open_sequences() <= 16);
                continue;
            }
            Err(error) => {
                // Formatting is where peers' bytes meet the log.
                let _ = error.to_string();
                return;
            }
        };
        match encoder.encode(&signal, 1, &mut out) {
            Ok(None) => {}
            Ok(Some(mut more)) => while more.next(&mut out) {},
            Err(DistError::Unsendable { .. }) => {
                let obsolete = matches!(
                    signal.control,
                    Control::Unlink { .. } | Control::Unknown { .. }
                );
                assert!(obsolete, "{signal:?}");
                continue;
            }
            Err(error) => panic!("{signal:?} can't be sent: {error}"),
        }
        let mut got = None;
        while out.has_remaining() {
            assert_eq!(got, None);
            let length = out.get_u32() as usize;
            got = again
                .packet(out.copy_to_bytes(length))
                .expect("our own packet");
        }
        assert_eq!(got.as_ref(), Some(&signal));
    }
}
