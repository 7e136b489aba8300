//! Estimates and how sure they are.

/// Chance that at least one of `k` samples passes, estimated without bias from `passed` of `n`:
/// `1 - C(n - passed, k) / C(n, k)` (arXiv 2107.03374).
pub(crate) fn pass_at_k(n: usize, passed: usize, k: usize) -> f64 {
    if n - passed < k {
        return 1.0;
    }
    1.0 - (n - passed + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Mean of a sample.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// 95% percentile bootstrap interval of the mean (Efron 1979), the same every time.
pub(crate) fn bootstrap(values: &[f64]) -> (f64, f64) {
    let pairs: Vec<(f64, f64)> = values.iter().map(|&value| (value, 1.0)).collect();
    bootstrap_ratio(&pairs)
}

/// The same of the sum of the first by the sum of the second, as bits by bytes over files of different lengths.
pub(crate) fn bootstrap_ratio(pairs: &[(f64, f64)]) -> (f64, f64) {
    const ROUNDS: usize = 4000;
    if pairs.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize
    };
    let mut ratio = || {
        let drawn = (0..pairs.len()).map(|_| pairs[next() % pairs.len()]);
        let (above, below) = drawn.fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        above / below
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(|_| ratio()).collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[ROUNDS / 40], ratios[ROUNDS - 1 - ROUNDS / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_counts_subsets() {
        // Of the 10 pairs of 5 samples, 3 have none of the 2 that pass.
        assert!((pass_at_k(5, 2, 2) - 0.7).abs() < 1e-12);
        assert_eq!(pass_at_k(1, 1, 1), 1.0);
        assert_eq!(pass_at_k(1, 0, 1), 0.0);
        assert!((pass_at_k(10, 3, 1) - 0.3).abs() < 1e-12);
        assert_eq!(pass_at_k(10, 8, 3), 1.0);
    }

    #[test]
    fn the_interval_holds_the_mean() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let (low, high) = bootstrap(&values);
        // Standard error of the mean: 14.43 / sqrt(50) = 2.04.
        assert!(
            (24.5 - 1.96 * 2.04 - low).abs() < 0.5 && (24.5 + 1.96 * 2.04 - high).abs() < 0.5,
            "{low} {high}"
        );
        // One long file among short ones: its ratio weighs as much as its length.
        let pairs: Vec<(f64, f64)> =
            (0..50).map(|i| if i == 0 { (900.0, 1000.0) } else { (2.0, 1.0) }).collect();
        let (low, high) = bootstrap_ratio(&pairs);
        assert!(low < 0.95 && high <= 2.0 && low > 0.9, "{low} {high}");
    }
}
