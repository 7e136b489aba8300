//! Whole rows: embedding lookup, top k.

use cchaha_plan::Weight;

use crate::formats;

/// `out = scale * table[token, :]`.
pub(crate) fn embed(table: &Weight, token: usize, scale: f32, out: &mut [f32]) {
    let size = table.row_bytes();
    formats::dequantize(table.format, &table.bytes.as_slice()[token * size..][..size], out);
    if scale != 1.0 {
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

/// The `values.len()` largest of `x` in descending order and their indices; ties go to the lower index, NaN counts
/// as larger than every number (as in `f32::total_cmp`). Adding 0 makes the two zeros equal.
pub(crate) fn top_k(x: &[f32], values: &mut [f32], indices: &mut [f32]) {
    let order = |a: f32, b: f32| (a + 0.0).total_cmp(&(b + 0.0));
    let k = values.len();
    let mut held = 0;
    for (index, &value) in x.iter().enumerate() {
        if held == k && order(value, values[k - 1]).is_le() {
            continue;
        }
        let at = values[..held].partition_point(|&old| order(old, value).is_ge());
        held = (held + 1).min(k);
        values.copy_within(at..held - 1, at + 1);
        indices.copy_within(at..held - 1, at + 1);
        values[at] = value;
        indices[at] = index as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_sorts_and_breaks_ties_towards_the_lower_index() {
        let (mut values, mut indices) = ([0.0; 4], [0.0; 4]);
        top_k(&[1.0, 3.0, 2.0, 3.0, -1.0, 2.0], &mut values, &mut indices);
        assert_eq!(values, [3.0, 3.0, 2.0, 2.0]);
        assert_eq!(indices, [1.0, 3.0, 2.0, 5.0]);
    }
}
