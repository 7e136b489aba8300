//! Checksums of tensors, kept in the file's metadata, so that damage on disk or on the way is found.
//!
//! XXH64 with seed 0 (github.com/Cyan4973/xxHash, `doc/xxhash_spec.md`): as fast as memory, and any accident is found but
//! for a chance of 2^-64. It is no protection against someone who changes a file on purpose.

use std::hash::Hasher;

use cchaha::gguf::{Array, Metadata, Value};
use twox_hash::XxHash64;

/// Names the function.
pub(crate) const ALGORITHM_KEY: &str = "cchaha.checksum.algorithm";
/// One `u64` for each tensor, in the order of the whole model.
pub(crate) const TENSORS_KEY: &str = "cchaha.checksum.tensors";
/// The only function so far.
pub(crate) const ALGORITHM: &str = "xxh64";

/// Puts the sums into the metadata.
pub(crate) fn set(metadata: &mut Metadata, sums: &[u64]) {
    metadata.set(ALGORITHM_KEY, Value::Str(ALGORITHM.into()));
    metadata.set(TENSORS_KEY, Value::Array(Array::U64(sums.to_vec())));
}

/// XXH64 of bytes that come piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Checksum(XxHash64);

impl Checksum {
    /// Of no bytes yet.
    pub(crate) fn new() -> Checksum {
        Checksum(XxHash64::with_seed(0))
    }

    /// Of all these bytes.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        XxHash64::oneshot(0, bytes)
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The sum of all bytes so far.
    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_xxhash() {
        // From the reference program, xxhsum -H64.
        assert_eq!(Checksum::of(b""), 0xef46_db37_51d8_e999);
        assert_eq!(Checksum::of(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(Checksum::of(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(Checksum::of(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for cut in [0, 1, 31, 32, 33, 500, 999, 1000] {
            let mut sum = Checksum::new();
            sum.update(&bytes[..cut]);
            sum.update(&bytes[cut..]);
            assert_eq!(sum.finish(), Checksum::of(&bytes), "{cut}");
        }
    }
}
