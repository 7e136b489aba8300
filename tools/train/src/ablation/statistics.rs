//! Paired bootstrap of differences in bits per byte.

use crate::evaluate::Cost;
use crate::rng::Rng;

/// Resamples.
const ROUNDS: usize = 4000;

/// A difference in bits per byte with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Difference {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Difference {
    /// Whether the first is better for sure.
    pub fn is_better(&self) -> bool {
        self.high < 0.0
    }
}

/// `a - b`. Both hold, for every seed, what every held-out document costs. Texts of one package are alike, so whole packages are
/// drawn again, and so are seeds; `groups` numbers every document's package.
///
/// # Panics
/// Where lists have different lengths, or there are none.
pub fn difference(a: &[Vec<Cost>], b: &[Vec<Cost>], groups: &[usize]) -> Difference {
    assert!(a.len() == b.len() && !a.is_empty() && !groups.is_empty(), "a pair of runs for every seed");
    let packages = groups.iter().max().map_or(0, |most| most + 1);
    // Bits of `a` less those of `b`, and bytes, by seed and package.
    let by_seed: Vec<Vec<f64>> = a
        .iter()
        .zip(b)
        .map(|(a, b)| {
            assert!(a.len() == groups.len() && b.len() == groups.len(), "a cost for every document");
            let mut bits = vec![0.0; packages];
            for ((a, b), &group) in a.iter().zip(b).zip(groups) {
                bits[group] += a.bits - b.bits;
            }
            bits
        })
        .collect();
    let mut bytes = vec![0.0; packages];
    for (cost, &group) in a[0].iter().zip(groups) {
        bytes[group] += cost.bytes as f64;
    }
    let of = |seeds: &[usize], packages: &[usize]| {
        let bits: f64 =
            seeds.iter().map(|&seed| packages.iter().map(|&p| by_seed[seed][p]).sum::<f64>()).sum();
        bits / seeds.len() as f64 / packages.iter().map(|&p| bytes[p]).sum::<f64>()
    };
    let all = |n: usize| (0..n).collect::<Vec<_>>();
    let mean = of(&all(a.len()), &all(packages));
    let mut rng = Rng::new(0, 6);
    let mut draw = |n: usize| (0..n).map(|_| rng.below(n)).collect::<Vec<_>>();
    let mut drawn: Vec<f64> = (0..ROUNDS).map(|_| of(&draw(a.len()), &draw(packages))).collect();
    drawn.sort_by(f64::total_cmp);
    let at = |part: f64| drawn[((ROUNDS - 1) as f64 * part).round() as usize];
    Difference { mean, low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(bits: impl Fn(usize) -> f64) -> Vec<Cost> {
        (0..60).map(|i| Cost { bytes: 100, tokens: 30, bits: bits(i) }).collect()
    }

    #[test]
    fn a_steady_difference_is_found_and_noise_is_not() {
        let groups: Vec<usize> = (0..60).map(|i| i / 3).collect();
        let mut rng = Rng::new(3, 3);
        let noise: Vec<f64> = (0..60).map(|_| rng.normal()).collect();
        let base: Vec<Vec<Cost>> = (0..3).map(|seed| costs(|i| 100.0 + seed as f64 + i as f64)).collect();
        let better: Vec<Vec<Cost>> =
            (0..3).map(|seed| costs(|i| 90.0 + seed as f64 + i as f64 + noise[i])).collect();
        let same: Vec<Vec<Cost>> =
            (0..3).map(|seed| costs(|i| 100.0 + seed as f64 + i as f64 + 5.0 * noise[i])).collect();
        let found = difference(&better, &base, &groups);
        assert!(found.is_better() && (found.mean + 0.1).abs() < 0.01, "{found:?}");
        assert!(found.low < found.mean && found.mean < found.high);
        let none = difference(&same, &base, &groups);
        assert!(!none.is_better() && none.low < 0.0 && none.high > 0.0, "{none:?}");
        assert_eq!(difference(&base, &base, &groups), Difference { mean: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn seeds_that_disagree_widen_the_interval() {
        let groups: Vec<usize> = (0..60).collect();
        let base: Vec<Vec<Cost>> = (0..3).map(|_| costs(|_| 100.0)).collect();
        let mixed: Vec<Vec<Cost>> = [-8.0, -1.0, 6.0].map(|by| costs(|_| 100.0 + by)).to_vec();
        assert!(!difference(&mixed, &base, &groups).is_better());
    }
}
