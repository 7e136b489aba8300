//! Random numbers that are the same on every machine: SplitMix64 (Steele, Lea and Flood 2014).

/// A generator; its state is one number, so a checkpoint can keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// From a seed and what the numbers are for: streams of different purposes do not overlap in practice.
    pub fn new(seed: u64, purpose: u64) -> Rng {
        let mut rng = Rng(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        rng.bits();
        rng
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        // 2^64 is so much larger than any list that the bias of a product is nothing.
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Of the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Puts a list in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_distributions_they_should() {
        let mut rng = Rng::new(7, 1);
        let n = 100_000;
        let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        // Six standard errors: sqrt(1/n), sqrt(2/n).
        assert!(mean.abs() < 0.019 && (variance - 1.0).abs() < 0.027, "{mean} {variance}");
        let mut counts = [0; 5];
        (0..n).for_each(|_| counts[rng.below(5)] += 1);
        assert!(counts.iter().all(|&count| (19_000..21_000).contains(&count)), "{counts:?}");
        let mut list: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut list);
        assert!(!list.is_sorted());
        list.sort();
        assert!(list.into_iter().eq(0..100));
    }
}
