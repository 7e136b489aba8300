//! Repeatable randomness (SplitMix64) and random weights of every format.

use cchaha_plan::Format;

pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in -1..1.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A small whole number divided by 16: exact in f16, and so are sums of a few products of two.
    pub(crate) fn grid(&mut self) -> f32 {
        (self.below(33) as f32 - 16.0) / 16.0
    }

    /// A whole number of at most `most`, either sign.
    pub(crate) fn steps(&mut self, most: f64) -> f32 {
        self.below(2 * most as usize + 1) as f32 - most as f32
    }

    pub(crate) fn vec(&mut self, n: usize, mut value: impl FnMut(&mut Random) -> f32) -> Vec<f32> {
        (0..n).map(|_| value(self)).collect()
    }

    /// `n` parts of 1..=largest that add up to `total`.
    pub(crate) fn parts(&mut self, total: usize, largest: usize) -> Vec<usize> {
        let (mut parts, mut left) = (Vec::new(), total);
        while left > 0 {
            let part = (1 + self.below(largest)).min(left);
            parts.push(part);
            left -= part;
        }
        parts
    }

    /// `n_blocks` random blocks of a format with scales of ordinary sizes and both signs.
    pub(crate) fn blocks(&mut self, format: Format, n_blocks: usize) -> Vec<u8> {
        self.filled_blocks(format, n_blocks, |random, _| random.bits() as u8)
    }

    /// The same with every byte of a block alike, one of the extremes: quants and integer scales as large as they get.
    pub(crate) fn extreme_blocks(&mut self, format: Format, n_blocks: usize) -> Vec<u8> {
        self.filled_blocks(format, n_blocks, |_, block| [0x00, 0xFF, 0x80, 0x7F][block % 4])
    }

    /// The same as ordinary ones with scales that are powers of two, and values that are half floats.
    pub(crate) fn plain_blocks(&mut self, format: Format, n_blocks: usize) -> Vec<u8> {
        let mut bytes = self.blocks(format, n_blocks);
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &at in scales_at(format) {
                let scale = u16::from_le_bytes([block[at], block[at + 1]]) & 0xFC00;
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
            if format == Format::F32 {
                block.copy_from_slice(&self.grid().to_le_bytes());
            }
        }
        bytes
    }

    fn filled_blocks(
        &mut self,
        format: Format,
        n_blocks: usize,
        mut fill: impl FnMut(&mut Random, usize) -> u8,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in 0..n_blocks {
            let start = bytes.len();
            match format {
                Format::F32 => bytes.extend(self.uniform().to_le_bytes()),
                Format::F16 => bytes.extend((0x2C00 | (self.bits() as u16 & 0x8BFF)).to_le_bytes()),
                Format::BF16 => bytes.extend((0x3D00 | (self.bits() as u16 & 0x80FF)).to_le_bytes()),
                _ => {
                    let byte = |_| fill(self, block);
                    bytes.extend((0..format.block_bytes()).map(byte));
                    for &at in scales_at(format) {
                        // f16 between 2^-8 and 2^-6, either sign.
                        let scale = (0x1C00 + (self.bits() as u16 & 0x07FF)) | (self.bits() as u16 & 0x8000);
                        bytes[start + at..start + at + 2].copy_from_slice(&scale.to_le_bytes());
                    }
                    if format == Format::MXFP4 {
                        bytes[start] = 120 + self.below(6) as u8;
                    }
                }
            }
        }
        bytes
    }
}

/// Where a block keeps its f16 scales and offsets.
fn scales_at(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::F16 | Format::BF16 | Format::MXFP4 => &[],
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::IQ4_NL | Format::IQ4_XS => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
    }
}
