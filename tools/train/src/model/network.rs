//! Forward and backward through all layers.

use cchaha::kernels::Pool;

use super::config::EPS;
use super::layout::Layer;
use super::{Batch, Config, Layout};
use crate::ops::attention::{self, Attention, Block, Inputs, Made, Means, Tokens};
use crate::ops::heads::Heads;
use crate::ops::linear::Linear;
use crate::ops::loss::{self, cross_entropy};
use crate::ops::rope::Angles;
use crate::ops::{embed, norm, swiglu};
use crate::real::Real;

/// What a layer's forward pass leaves for its backward pass. Lists are (token, value) unless they say otherwise.
#[derive(Debug, Default)]
struct Saved<T> {
    /// The residual stream before the layer, and between its halves.
    x: Vec<T>,
    x_mid: Vec<T>,
    normed: Vec<T>,
    normed_mid: Vec<T>,
    inverse_rms: Vec<T>,
    inverse_rms_mid: Vec<T>,
    /// Before their norms.
    q_raw: Vec<T>,
    k_raw: Vec<T>,
    q_inverse_rms: Vec<T>,
    k_inverse_rms: Vec<T>,
    /// By heads, turned.
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    /// By heads, and by tokens.
    attended: Vec<T>,
    attended_rows: Vec<T>,
    log_sum: Vec<T>,
    gate: Vec<T>,
    up: Vec<T>,
    gated: Vec<T>,
}

/// A model's network with its buffers, for batches of a fixed number of sequences.
#[derive(Debug)]
pub struct Network<T> {
    config: Config,
    layout: Layout,
    saved: Vec<Saved<T>>,
    /// The residual stream after the last layer, and its norm.
    x: Vec<T>,
    normed: Vec<T>,
    inverse_rms: Vec<T>,
    /// Loss of every token of the last batch.
    pub losses: Vec<T>,
    loss: loss::Scratch<T>,
    attention: attention::Scratch<T>,
    buffers: Buffers<T>,
}

/// What is used in passing.
#[derive(Debug, Default)]
struct Buffers<T> {
    dx: Vec<T>,
    d_normed: Vec<T>,
    a: Vec<T>,
    b: Vec<T>,
    d_q: Vec<T>,
    d_k: Vec<T>,
    d_v: Vec<T>,
    d_gated: Vec<T>,
}

/// What gradients are wanted: the factor on every token's loss, and where they are added.
#[derive(Debug)]
pub struct Step<'a, T> {
    /// One over the number of tokens that count in the whole step.
    pub scale: T,
    /// As the weights lie.
    pub gradients: &'a mut [T],
}

/// What all layers of one batch share.
struct Shared<'a, T> {
    pool: &'a Pool,
    weights: &'a [T],
    angles: Angles<T>,
    windowed: Vec<Vec<Block<T>>>,
    global: Vec<Vec<Block<T>>>,
}

impl<T> Shared<'_, T> {
    fn blocks(&self, windowed: bool) -> &[Vec<Block<T>>] {
        if windowed { &self.windowed } else { &self.global }
    }
}

/// `buffer` with `n` values.
fn sized<T: Real>(buffer: &mut Vec<T>, n: usize) -> &mut [T] {
    buffer.resize(n, T::ZERO);
    buffer
}

impl<T: Real> Network<T> {
    /// Buffers are allocated when the first batch comes.
    pub fn new(config: &Config) -> Network<T> {
        Network {
            layout: Layout::new(config),
            saved: (0..config.layers).map(|_| Saved::default()).collect(),
            config: config.clone(),
            x: Vec::new(),
            normed: Vec::new(),
            inverse_rms: Vec::new(),
            losses: Vec::new(),
            loss: loss::Scratch::default(),
            attention: attention::Scratch::default(),
            buffers: Buffers::default(),
        }
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sum of the losses of all tokens that count, in nats; adds to the gradients where they are wanted.
    ///
    /// # Panics
    /// Where a sequence is not as long as the context, a token is not in the vocabulary, or `weights` are not as the layout says.
    pub fn run(&mut self, pool: &Pool, weights: &[T], batch: &Batch, step: Option<Step<'_, T>>) -> f64 {
        assert_eq!(weights.len(), self.layout.len(), "weights are as the layout says");
        let len = self.config.context;
        assert!(batch.sequences.iter().all(|sequence| sequence.tokens.len() == len), "sequences are full");
        let tokens = batch.all(|sequence| &sequence.tokens);
        let targets = batch.all(|sequence| &sequence.targets);
        let positions = batch.all(|sequence| &sequence.positions);
        let scopes = batch.all(|sequence| &sequence.scopes);
        let blocks = |windowed: bool| {
            let sight = self.config.sight(windowed);
            let needed = (0..self.config.layers).any(|layer| self.config.windowed(layer) == windowed);
            let sequences = batch.sequences.iter().filter(|_| needed);
            let tokens = sequences.map(|s| Tokens { document: &s.document, pinned: &s.pinned });
            tokens.map(|tokens| Block::all(sight, tokens)).collect()
        };
        let shared = Shared {
            pool,
            weights,
            angles: Angles::new(self.config.rope(), &positions, &scopes),
            windowed: blocks(true),
            global: blocks(false),
        };

        let (n, width) = (tokens.len(), self.config.width);
        let first = self.saved.first_mut().map_or(&mut self.x, |saved| &mut saved.x);
        embed::forward(&weights[self.layout.embedding.clone()], &tokens, width, sized(first, n * width));
        for layer in 0..self.config.layers {
            self.forward(layer, n, &shared);
        }
        let w = &weights[self.layout.output_norm.clone()];
        let normed = sized(&mut self.normed, n * width);
        norm::forward(pool, T::of(EPS), &self.x, w, normed, sized(&mut self.inverse_rms, n));

        let table = &weights[self.layout.embedding.clone()];
        let output = loss::Output { hidden: normed, table, width };
        let losses = sized(&mut self.losses, n);
        match step {
            None => cross_entropy(pool, output, &targets, losses, None, &mut self.loss),
            Some(step) => {
                let gradients = loss::Gradients {
                    scale: step.scale,
                    hidden: sized(&mut self.buffers.d_normed, n * width),
                    table: &mut step.gradients[self.layout.embedding.clone()],
                };
                cross_entropy(pool, output, &targets, losses, Some(gradients), &mut self.loss);
                let back = norm::Backward {
                    x: &self.x,
                    w,
                    inverse_rms: &self.inverse_rms,
                    dy: &self.buffers.d_normed,
                };
                let dw = &mut step.gradients[self.layout.output_norm.clone()];
                back.write_to(pool, sized(&mut self.buffers.dx, n * width), dw);
                for layer in (0..self.config.layers).rev() {
                    self.backward(layer, n, &shared, step.gradients);
                }
                let table = &mut step.gradients[self.layout.embedding.clone()];
                embed::backward(&self.buffers.dx, &tokens, width, table);
            }
        }
        self.losses.iter().map(|loss| loss.f64()).sum()
    }

    fn sizes(&self) -> (Attention, Heads, Heads) {
        let attention = self.config.attention();
        let heads = |heads| Heads { len: attention.len, heads, head_dim: attention.head_dim };
        (attention, heads(attention.heads), heads(attention.kv_heads))
    }

    fn forward(&mut self, layer: usize, n: usize, shared: &Shared<'_, T>) {
        let (attention, q_heads, kv_heads) = self.sizes();
        let (d, width, hidden) = (attention.head_dim, self.config.width, self.config.hidden);
        let (q_width, kv_width) = (attention.heads * d, attention.kv_heads * d);
        let (pool, eps) = (shared.pool, T::of(EPS));
        let w = |range: &std::ops::Range<usize>| &shared.weights[range.clone()];
        let at: &Layer = &self.layout.layers[layer];
        let (before, after) = self.saved.split_at_mut(layer + 1);
        let s = &mut before[layer];
        let out = after.first_mut().map_or(&mut self.x, |next| &mut next.x);
        let Buffers { a, b, .. } = &mut self.buffers;

        let normed = sized(&mut s.normed, n * width);
        norm::forward(pool, eps, &s.x, w(&at.attn_norm), normed, sized(&mut s.inverse_rms, n));
        let from_width = |outputs| Linear { inputs: width, outputs };
        from_width(q_width).forward(pool, normed, w(&at.q), sized(&mut s.q_raw, n * q_width), false);
        from_width(kv_width).forward(pool, normed, w(&at.k), sized(&mut s.k_raw, n * kv_width), false);
        let v = sized(a, n * kv_width);
        from_width(kv_width).forward(pool, normed, w(&at.v), v, false);
        kv_heads.split(pool, v, sized(&mut s.v, n * kv_width));

        let turned = sized(a, n * q_width);
        let inverse_rms = sized(&mut s.q_inverse_rms, n * attention.heads);
        norm::forward(pool, eps, &s.q_raw, w(&at.q_norm), turned, inverse_rms);
        shared.angles.turn(pool, d, turned, q_width);
        q_heads.split(pool, turned, sized(&mut s.q, n * q_width));
        let turned = sized(b, n * kv_width);
        let inverse_rms = sized(&mut s.k_inverse_rms, n * attention.kv_heads);
        norm::forward(pool, eps, &s.k_raw, w(&at.k_norm), turned, inverse_rms);
        shared.angles.turn(pool, d, turned, kv_width);
        kv_heads.split(pool, turned, sized(&mut s.k, n * kv_width));

        let given = Inputs { q: &s.q, k: &s.k, v: &s.v };
        let blocks = shared.blocks(self.config.windowed(layer));
        let means = Means { pool, blocks, scratch: &self.attention };
        let attended = sized(&mut s.attended, n * q_width);
        let log_sum = sized(&mut s.log_sum, n * attention.heads);
        attention.forward(means, given, attended, log_sum);
        let rows = sized(&mut s.attended_rows, n * q_width);
        q_heads.join(pool, attended, rows);
        s.x_mid.clone_from(&s.x);
        Linear { inputs: q_width, outputs: width }.forward(pool, rows, w(&at.output), &mut s.x_mid, true);

        let normed = sized(&mut s.normed_mid, n * width);
        norm::forward(pool, eps, &s.x_mid, w(&at.ffn_norm), normed, sized(&mut s.inverse_rms_mid, n));
        from_width(hidden).forward(pool, normed, w(&at.gate), sized(&mut s.gate, n * hidden), false);
        from_width(hidden).forward(pool, normed, w(&at.up), sized(&mut s.up, n * hidden), false);
        swiglu::forward(pool, &s.gate, &s.up, sized(&mut s.gated, n * hidden));
        out.clone_from(&s.x_mid);
        Linear { inputs: hidden, outputs: width }.forward(pool, &s.gated, w(&at.down), out, true);
    }

    /// From the gradient of what the layer made, in `buffers.dx`, to that of what it was given.
    fn backward(&mut self, layer: usize, n: usize, shared: &Shared<'_, T>, gradients: &mut [T]) {
        let (attention, q_heads, kv_heads) = self.sizes();
        let (d, width, hidden) = (attention.head_dim, self.config.width, self.config.hidden);
        let (q_width, kv_width) = (attention.heads * d, attention.kv_heads * d);
        let pool = shared.pool;
        let w = |range: &std::ops::Range<usize>| &shared.weights[range.clone()];
        let at: &Layer = &self.layout.layers[layer];
        let s = &mut self.saved[layer];
        let Buffers { dx, d_normed, a, b, d_q, d_k, d_v, d_gated } = &mut self.buffers;
        let from_width = |outputs| Linear { inputs: width, outputs };

        let down = Linear { inputs: hidden, outputs: width };
        down.backward_weight(pool, dx, &s.gated, &mut gradients[at.down.clone()]);
        let d_gated = sized(d_gated, n * hidden);
        down.backward_input(pool, dx, w(&at.down), d_gated, false);
        // Now the gradients of gate and up.
        swiglu::backward(pool, d_gated, &mut s.gate, &mut s.up);
        let d_normed = sized(d_normed, n * width);
        for (range, dy, add) in [(&at.gate, &s.gate, false), (&at.up, &s.up, true)] {
            from_width(hidden).backward_weight(pool, dy, &s.normed_mid, &mut gradients[range.clone()]);
            from_width(hidden).backward_input(pool, dy, w(range), d_normed, add);
        }
        let (x, inverse_rms) = (&s.x_mid, &s.inverse_rms_mid);
        norm::Backward { x, w: w(&at.ffn_norm), inverse_rms, dy: d_normed }.add_to(
            pool,
            dx,
            &mut gradients[at.ffn_norm.clone()],
        );

        let output = Linear { inputs: q_width, outputs: width };
        output.backward_weight(pool, dx, &s.attended_rows, &mut gradients[at.output.clone()]);
        let rows = sized(a, n * q_width);
        output.backward_input(pool, dx, w(&at.output), rows, false);
        let d_attended = sized(b, n * q_width);
        q_heads.split(pool, rows, d_attended);
        let into = attention::Gradients {
            q: sized(d_q, n * q_width),
            k: sized(d_k, n * kv_width),
            v: sized(d_v, n * kv_width),
        };
        let given = Inputs { q: &s.q, k: &s.k, v: &s.v };
        let made = Made { out: &s.attended, log_sum: &s.log_sum };
        let blocks = shared.blocks(self.config.windowed(layer));
        let means = Means { pool, blocks, scratch: &self.attention };
        attention.backward(means, given, made, d_attended, into);

        let turned = sized(a, n * q_width);
        q_heads.join(pool, d_q, turned);
        shared.angles.turn_back(pool, d, turned, q_width);
        norm::Backward { x: &s.q_raw, w: w(&at.q_norm), inverse_rms: &s.q_inverse_rms, dy: turned }.write_to(
            pool,
            d_q,
            &mut gradients[at.q_norm.clone()],
        );
        let turned = sized(a, n * kv_width);
        kv_heads.join(pool, d_k, turned);
        shared.angles.turn_back(pool, d, turned, kv_width);
        norm::Backward { x: &s.k_raw, w: w(&at.k_norm), inverse_rms: &s.k_inverse_rms, dy: turned }.write_to(
            pool,
            d_k,
            &mut gradients[at.k_norm.clone()],
        );
        let rows = sized(a, n * kv_width);
        kv_heads.join(pool, d_v, rows);

        let d_v: &[T] = rows;
        for (range, outputs, dy, add) in [
            (&at.q, q_width, &d_q[..], false),
            (&at.k, kv_width, &d_k[..], true),
            (&at.v, kv_width, d_v, true),
        ] {
            from_width(outputs).backward_weight(pool, dy, &s.normed, &mut gradients[range.clone()]);
            from_width(outputs).backward_input(pool, dy, w(range), d_normed, add);
        }
        norm::Backward { x: &s.x, w: w(&at.attn_norm), inverse_rms: &s.inverse_rms, dy: d_normed }.add_to(
            pool,
            dx,
            &mut gradients[at.attn_norm.clone()],
        );
    }
}
