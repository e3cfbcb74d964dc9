//! One number that stands for a whole run: two runs with equal digests have delivered the same
//! events at the same times in the same order.
//!
//! Not for secrets: it is a quick multiply-and-fold hash, the same in every process.

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// A digest in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Takes in a number.
    pub(crate) fn add(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value ^ FACTOR, FACTOR | 1).wrapping_add(self.0.rotate_left(23));
    }

    /// What it has come to.
    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// A hash of bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut digest = Digest(bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        digest.add(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    digest.add(u64::from_le_bytes(last));
    digest.value()
}

/// Numbers well mixed into one: a source of fixed random values.
pub(crate) fn mix(values: [u64; 3]) -> u64 {
    let mut digest = Digest::default();
    for value in values {
        digest.add(value);
    }
    fold(digest.0 ^ FACTOR, 0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_the_order_count() {
        let base = vec![0u8; 41];
        let mut seen = std::collections::BTreeSet::from([hash(&base), hash(&base[1..])]);
        for bit in 0..41 * 8 {
            let mut other = base.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(hash(&other)), "{bit}");
        }
        assert_ne!(mix([1, 2, 3]), mix([2, 1, 3]));
        assert_eq!(hash(b"digest"), hash(b"digest"));
    }
}
