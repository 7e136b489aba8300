//! The knapsack: which option of each tensor, so that all together fit and the sum of their costs is least.
//!
//! Every tensor starts with its smallest option. Then, again and again, the step up that saves the most cost per byte is
//! taken, along the lower convex hull of each tensor's options: the solution of the Lagrangian relaxation, which is
//! optimal for the bytes it uses. What is left over goes to any step that still fits.

/// One way to store a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) bytes: u64,
    pub(crate) cost: f64,
}

/// The index of the chosen option for every tensor, or `None` where even the smallest do not fit.
pub(crate) fn allocate(tensors: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let hulls: Vec<Vec<usize>> = tensors.iter().map(|options| hull(options)).collect();
    let mut at = vec![0; tensors.len()];
    let mut left = budget;
    for (options, hull) in tensors.iter().zip(&hulls) {
        left = left.checked_sub(options[*hull.first()?].bytes)?;
    }
    loop {
        let mut best: Option<(f64, usize, u64)> = None;
        for (t, (options, hull)) in tensors.iter().zip(&hulls).enumerate() {
            let Some(&next) = hull.get(at[t] + 1) else { continue };
            let (from, to) = (options[hull[at[t]]], options[next]);
            let bytes = to.bytes - from.bytes;
            let gain = (from.cost - to.cost) / bytes as f64;
            if bytes <= left && best.is_none_or(|best| gain > best.0) {
                best = Some((gain, t, bytes));
            }
        }
        let Some((_, t, bytes)) = best else { break };
        at[t] += 1;
        left -= bytes;
    }
    Some(at.iter().zip(&hulls).map(|(&at, hull)| hull[at]).collect())
}

/// The options on the lower convex hull of cost over bytes, smallest first.
fn hull(options: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (options[a], options[b]);
        a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost))
    });
    let mut hull: Vec<usize> = Vec::new();
    for i in order {
        let next = options[i];
        // More bytes must buy something.
        if hull.last().is_some_and(|&last| options[last].cost <= next.cost) {
            continue;
        }
        while let [.., a, b] = hull[..] {
            let (a, b) = (options[a], options[b]);
            let slope = |from: Choice, to: Choice| (from.cost - to.cost) / (to.bytes - from.bytes) as f64;
            if slope(a, b) > slope(b, next) {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(list: &[(u64, f64)]) -> Vec<Choice> {
        list.iter().map(|&(bytes, cost)| Choice { bytes, cost }).collect()
    }

    #[test]
    fn options_above_the_hull_are_never_chosen() {
        // (3, 9) costs as much as (1, 9); (2, 8) lies above the line from (1, 9) to (4, 0).
        let options = choices(&[(3, 9.0), (1, 9.0), (4, 0.0), (2, 8.0), (9, 1.0)]);
        assert_eq!(hull(&options), [1, 2]);
    }

    #[test]
    fn as_good_as_trying_everything() {
        // Three tensors of four options on hulls: compared with the best of all 64 that use as many bytes.
        let mut seed = 1u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let tensors: Vec<Vec<Choice>> = (0..3)
                .map(|_| {
                    let scale = 1.0 + random(100) as f64;
                    let unit = 1 + random(5);
                    (0..4)
                        .map(|i| Choice { bytes: unit * (i + 2), cost: scale * 0.25f64.powi(i as i32) })
                        .collect()
                })
                .collect();
            let budget = 12 + random(60);
            let cost = |chosen: &[usize]| chosen.iter().zip(&tensors).map(|(&i, t)| t[i].cost).sum::<f64>();
            let size = |chosen: &[usize]| chosen.iter().zip(&tensors).map(|(&i, t)| t[i].bytes).sum::<u64>();
            let Some(chosen) = allocate(&tensors, budget) else {
                assert!(size(&[0, 0, 0]) > budget);
                continue;
            };
            assert!(size(&chosen) <= budget);
            let all = (0..64).map(|i| [i % 4, i / 4 % 4, i / 16]);
            let best = all.filter(|c| size(c) <= budget).map(|c| cost(&c)).fold(f64::INFINITY, f64::min);
            // Greedy can miss by the last step that did not fit; nothing else.
            let largest_step = tensors.iter().map(|t| t[0].cost).fold(0.0, f64::max);
            assert!(cost(&chosen) <= best + largest_step);
            let relaxed = all_that_fit(&tensors, size(&chosen));
            assert!(cost(&chosen) <= relaxed + largest_step);
        }
    }

    fn all_that_fit(tensors: &[Vec<Choice>], bytes: u64) -> f64 {
        let mut best = f64::INFINITY;
        for i in 0..64usize {
            let c = [i % 4, i / 4 % 4, i / 16];
            let size: u64 = c.iter().zip(tensors).map(|(&i, t)| t[i].bytes).sum();
            if size <= bytes {
                best = best.min(c.iter().zip(tensors).map(|(&i, t)| t[i].cost).sum());
            }
        }
        best
    }
}
