//! Big-endian fields off the front of a slice.
//!
//! Each function advances the slice past what it took, or returns `None` and leaves it alone, so
//! that parsers of peers' bytes neither index nor panic.

pub(super) fn array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

pub(super) fn u8(input: &mut &[u8]) -> Option<u8> {
    array::<1>(input).map(|[byte]| byte)
}

pub(super) fn u16(input: &mut &[u8]) -> Option<u16> {
    array(input).map(u16::from_be_bytes)
}

pub(super) fn u32(input: &mut &[u8]) -> Option<u32> {
    array(input).map(u32::from_be_bytes)
}

pub(super) fn u64(input: &mut &[u8]) -> Option<u64> {
    array(input).map(u64::from_be_bytes)
}

pub(super) fn bytes<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(head)
}
