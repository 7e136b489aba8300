//! Every kernel against the oracle, on every format it accepts and on ragged shapes and hostile values, at a tolerance that
//! is derived and not picked; and the promise that results have the same bits for any threads, batches and batch mates.
//!
//! Plans of one or a few ops (`model.rs`) run on a back end that prefers the row under test (`subjects.rs`) and on the
//! oracle. `bound.rs` carries values with error bounds; `elementwise.rs`, `matmul.rs`, `attention.rs` hold the cases,
//! `by_hand.rs` holds the oracle to results worked out on paper, `invariance.rs` and `rounding.rs` compare bits.
//!
//! `CCHAHA_ROWS=NAME` in the environment tests only rows whose name contains it, and all their cases, of which the large suites
//! otherwise run some where a row is slow. `CCHAHA_ONE_IN=N` makes that one in N for all rows, where the machine is slow.
//!
//! # Tolerances
//!
//! Let `u = 2^-24`, the relative error of one f32 rounding. A sum of `n` terms in any order and any blocking is off by at most
//! `n u sum|terms|` (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2), so with a few roundings around it:
//!
//! ```text
//! float matmul        (n + 8) u sum_c |w_c| |x_c|
//! quantized weights   |w_c| becomes |scale q_c| + |offset|: kernels add the two parts separately. Where there is no offset, it
//!                     becomes |scale| (|q_c| + 2 z), z the largest |q|: they may write scale q as scale (q + z) - scale z
//! rounded activations x is known to half a step of its group, a step being max|x| / 32639 over 32 to 256 values, of coarse tokens
//!                     max|x| / 127 over 32:  + sum_c |w_c| step / 2.  Groups below 1e-30 may count as zero.
//! half floats         weights and activations are cut to 11 bits, 2 u16, and may be zero below 2^-18 of the largest of their row or
//!                     token, W and X:  |w_c| dx + |x_c| dw,  dw = 2 u16 |w_c| + 2^-18 W,  dx alike.  Where products are half floats
//!                     too, in sums of 16:  + 16 u16 |w_c| |x_c| + 2^-21 W X.  What is a half float already loses nothing
//! scores              scale sum_d |q_d| |k_d| ((d + 8) u + u16),  u16 = 2^-11 where keys are half floats
//! softmax             scores off by e move all weights together by at most exp(2 e) - 1
//! attention           max|v| (exp(2 e) - 1 + u16 + (3 cells + 16) u): values in half floats, one rescaling per cell
//! norm                (n / 2 + 8) u |y|: n roundings in the sum of squares, halved by the root; with a mean its own error first
//! activations         exp to 4 u plus the error of its argument times its size; slopes at most 1.13
//! ```
//!
//! Below the least normal f32 precision is absolute. Errors of inputs go on through products by first and second
//! order terms. Worst-case bounds are wide where many random errors cancel; therefore each suite also has a grid: values
//! on which rounding activations or keys loses nothing, so that only `u` terms remain and any wrong term stands out.

mod attention;
mod bound;
mod by_hand;
mod elementwise;
mod gpu;
mod invariance;
mod matmul;
mod model;
mod random;
mod rounding;
mod subjects;
