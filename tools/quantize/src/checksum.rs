//! Checksums of tensors, kept in the file's metadata, so that damage on disk or on the way is found.
//!
//! XXH64 with seed 0 (github.com/Cyan4973/xxHash, `doc/xxhash_spec.md`): as fast as memory, and any accident is found but
//! for a chance of 2^-64. It is no protection against someone who changes a file on purpose.

use cchaha::gguf::{Array, Metadata, Value};

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

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 of bytes that come piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Checksum {
    lanes: [u64; 4],
    /// The last bytes, fewer than a stripe of 32.
    rest: [u8; 32],
    rest_len: usize,
    len: u64,
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn stripe(lanes: &mut [u64; 4], bytes: &[u8; 32]) {
    for (lane, word) in lanes.iter_mut().zip(bytes.as_chunks().0) {
        *lane = round(*lane, u64::from_le_bytes(*word));
    }
}

impl Checksum {
    /// Of no bytes yet.
    pub(crate) fn new() -> Checksum {
        let lanes = [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()];
        Checksum { lanes, rest: [0; 32], rest_len: 0, len: 0 }
    }

    /// Of all these bytes.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut sum = Checksum::new();
        sum.update(bytes);
        sum.finish()
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.rest_len > 0 {
            let taken = bytes.len().min(32 - self.rest_len);
            self.rest[self.rest_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.rest_len += taken;
            bytes = &bytes[taken..];
            if self.rest_len < 32 {
                return;
            }
            stripe(&mut self.lanes, &self.rest);
        }
        let (stripes, rest) = bytes.as_chunks();
        for bytes in stripes {
            stripe(&mut self.lanes, bytes);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    /// The sum of all bytes so far.
    pub(crate) fn finish(&self) -> u64 {
        let mut sum = if self.len < 32 {
            P5
        } else {
            let turned = self.lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
            let sum = turned.fold(0, u64::wrapping_add);
            let merge = |sum: u64, &lane: &u64| (sum ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
            self.lanes.iter().fold(sum, merge)
        };
        sum = sum.wrapping_add(self.len);
        let (words, rest) = self.rest[..self.rest_len].as_chunks::<8>();
        for word in words {
            sum ^= round(0, u64::from_le_bytes(*word));
            sum = sum.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (half, rest) = rest.as_chunks::<4>();
        for word in half {
            sum ^= u64::from(u32::from_le_bytes(*word)).wrapping_mul(P1);
            sum = sum.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for &byte in rest {
            sum = (sum ^ u64::from(byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        sum = (sum ^ sum >> 33).wrapping_mul(P2);
        sum = (sum ^ sum >> 29).wrapping_mul(P3);
        sum ^ sum >> 32
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
