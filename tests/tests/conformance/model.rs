//! Plans of one or a few ops, and batches to run them on.
//!
//! Inputs come in through F32 embedding tables, one row per token id, so that they are exactly known. What comes out is
//! the logits buffer, which must be as wide as the vocabulary: a narrower result is widened by a matrix with a single 1
//! per column and zeros, which changes no finite value in any order of summation.

use std::sync::Arc;

use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, Cells, EMPTY, Error, Format, KvSlot, KvSpec, Limits, MaskId,
    MaskRule, Op, PAGE_CELLS, Plan, RopeId, RopeTable, Rows, Runner, Shape, Step, Weight, WeightId,
};

/// A plan being built.
pub(crate) struct Model(pub(crate) Plan);

impl Model {
    pub(crate) fn new(vocab: usize) -> Model {
        Model(Plan::new("test", vocab, 1 << 20))
    }

    pub(crate) fn buffer(&mut self, width: usize, rows: Rows) -> BufferId {
        self.0.buffers.push(BufferSpec { name: "b", width, rows });
        BufferId(self.0.buffers.len() as u32 - 1)
    }

    pub(crate) fn tokens(&mut self, width: usize) -> BufferId {
        self.buffer(width, Rows::Tokens)
    }

    pub(crate) fn weight(&mut self, format: Format, shape: Shape, bytes: Vec<u8>) -> WeightId {
        let name = format!("w{}", self.0.weights.len());
        self.0.weights.push(Weight { name, format, shape, bytes: Bytes::from(bytes) });
        WeightId(self.0.weights.len() as u32 - 1)
    }

    pub(crate) fn floats(&mut self, shape: Shape, values: &[f32]) -> WeightId {
        self.weight(Format::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(crate) fn vector(&mut self, values: &[f32]) -> WeightId {
        self.floats(Shape::vector(values.len()), values)
    }

    /// A buffer whose row for token `id` is row `id % rows` of `values`.
    pub(crate) fn input(&mut self, width: usize, values: &[f32]) -> BufferId {
        let vocab = self.0.vocab;
        let table: Vec<f32> = values.iter().copied().cycle().take(vocab * width).collect();
        let table = self.floats(Shape::matrix(vocab, width), &table);
        let out = self.tokens(width);
        self.step(Op::Embed { table, scale: 1.0, out });
        out
    }

    pub(crate) fn slot(&mut self, n_kv_heads: usize, head_dim: usize) -> KvSlot {
        self.0.kv.push(KvSpec { n_kv_heads, head_dim });
        KvSlot(self.0.kv.len() as u32 - 1)
    }

    pub(crate) fn mask(&mut self, mask: MaskRule) -> MaskId {
        self.0.masks.push(mask);
        MaskId(self.0.masks.len() as u32 - 1)
    }

    pub(crate) fn rope(&mut self, table: RopeTable) -> RopeId {
        self.0.ropes.push(table);
        RopeId(self.0.ropes.len() as u32 - 1)
    }

    pub(crate) fn step(&mut self, op: Op) {
        self.0.steps.push(Step { op, layer: None });
    }

    /// The plan whose logits are `out`, widened to the vocabulary.
    pub(crate) fn finish(mut self, out: BufferId) -> Arc<Plan> {
        let (vocab, spec) = (self.0.vocab, self.0.buffers[out.index()].clone());
        let mut last = out;
        if spec.rows == Rows::Tokens {
            last = self.buffer(spec.width, Rows::Logits);
            self.step(Op::TakeRows { x: out, out: last });
        }
        if spec.width != vocab {
            assert!(spec.width < vocab, "a result wider than the vocabulary cannot be looked at");
            let mut ones = vec![0.0; vocab * spec.width];
            (0..spec.width).for_each(|i| ones[i * spec.width + i] = 1.0);
            let weight = self.floats(Shape::matrix(vocab, spec.width), &ones);
            let x = last;
            last = self.buffer(vocab, Rows::Logits);
            self.step(Op::MatMul { weight, bias: None, residual: None, x, out: last });
        }
        self.0.logits = last;
        self.0.validate().expect("the test's plan is well formed");
        Arc::new(self.0)
    }
}

/// Tokens of one or more sequences in the order in which they are run, and their pages.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) tokens: Vec<u32>,
    /// `[n, axes]`; axis 0 is the place in the sequence.
    pub(crate) positions: Vec<i32>,
    pub(crate) sequence: Vec<u32>,
    pub(crate) cell: Vec<u32>,
    pub(crate) sequences: Vec<Vec<u32>>,
    pub(crate) pages: usize,
    pub(crate) pinned: Vec<u32>,
    /// Cells that are emptied before token number `.0` runs.
    pub(crate) forget: Vec<(usize, u32)>,
    pub(crate) fold: Option<Fold>,
}

/// A call of [`Runner::fold`] for the first sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    /// Before which token; a multiple of [`PAGE_CELLS`].
    pub(crate) when: usize,
    pub(crate) old: usize,
    pub(crate) sinks: usize,
    pub(crate) keep: usize,
}

impl Scene {
    /// Tokens `0..n` of one sequence in neighbouring cells.
    pub(crate) fn line(n: usize, vocab: usize) -> Scene {
        Scene::interleaved(&[n], vocab, |page| page)
    }

    /// Several sequences, of these lengths, that take turns; `place` permutes the pages.
    pub(crate) fn interleaved(lengths: &[usize], vocab: usize, place: impl Fn(u32) -> u32) -> Scene {
        let mut pages = 0;
        let mut sequences = Vec::new();
        for length in lengths {
            let n_pages = length.div_ceil(PAGE_CELLS) as u32;
            sequences.push((pages..pages + n_pages).map(&place).collect::<Vec<u32>>());
            pages += n_pages;
        }
        let mut scene = Scene {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequence: Vec::new(),
            cell: Vec::new(),
            sequences,
            pages: pages as usize,
            pinned: Vec::new(),
            forget: Vec::new(),
            fold: None,
        };
        for pos in 0..lengths.iter().copied().max().unwrap_or(0) {
            for s in (0..lengths.len()).filter(|&s| pos < lengths[s]) {
                scene.push(s, pos as i32, scene.tokens.len() as u32 % vocab as u32);
            }
        }
        scene
    }

    /// One more token, at its usual place among its sequence's pages.
    pub(crate) fn push(&mut self, sequence: usize, pos: i32, token: u32) {
        let page = self.sequences[sequence][pos as usize / PAGE_CELLS];
        self.tokens.push(token);
        self.positions.push(pos);
        self.sequence.push(sequence as u32);
        self.cell.push(page * PAGE_CELLS as u32 + pos as u32 % PAGE_CELLS as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { cells: self.pages * PAGE_CELLS, batch: self.len(), logits: self.len() }
    }

    /// Runs the tokens in batches of these sizes; the logits of all tokens.
    pub(crate) fn run(
        &self,
        runner: &mut dyn Runner,
        axes: usize,
        parts: &[usize],
    ) -> Result<Vec<f32>, Error> {
        self.run_wanting(runner, axes, parts, |_| true)
    }

    /// Runs the tokens in batches of these sizes; the logits of those that `wants` says.
    pub(crate) fn run_wanting(
        &self,
        runner: &mut dyn Runner,
        axes: usize,
        parts: &[usize],
        wants: impl Fn(usize) -> bool,
    ) -> Result<Vec<f32>, Error> {
        assert_eq!(parts.iter().sum::<usize>(), self.len());
        let mut cells = Cells::new(self.pages * PAGE_CELLS);
        let mut sequences = self.sequences.clone();
        let (mut start, mut logits) = (0, Vec::new());
        for &part in parts {
            let range = start..start + part;
            for &(when, cell) in &self.forget {
                assert!(when <= start || when >= range.end, "cells are forgotten between batches");
                if when == start {
                    cells.pos[cell as usize] = EMPTY;
                }
            }
            if let Some(Fold { when, old, sinks, keep }) = self.fold.filter(|fold| fold.when == start) {
                runner.fold(&sequences[0][..when / PAGE_CELLS], old, sinks, keep)?;
                for page in sequences[0].drain(keep / PAGE_CELLS..old) {
                    cells.pos[page as usize * PAGE_CELLS..][..PAGE_CELLS].fill(EMPTY);
                }
            }
            let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            for t in range.clone() {
                cells.pos[self.cell[t] as usize] = self.positions[t * axes];
                cells.pinned[self.cell[t] as usize] = self.pinned.contains(&self.cell[t]);
            }
            let wanted: Vec<u32> = (0..part as u32).filter(|&t| wants(start + t as usize)).collect();
            logits.extend_from_slice(runner.run(&Batch {
                tokens: &self.tokens[range.clone()],
                positions: &self.positions[range.start * axes..range.end * axes],
                sequence: &self.sequence[range.clone()],
                cell: &self.cell[range.clone()],
                logits: &wanted,
                coarse: &[],
                sequences: &sequences,
                cells: &cells,
            })?);
            start = range.end;
        }
        Ok(logits)
    }

    /// Everything in as few batches as the scene allows.
    pub(crate) fn whole(&self) -> Vec<usize> {
        let mut cuts: Vec<usize> = self.forget.iter().map(|(when, _)| *when).collect();
        cuts.extend(self.fold.map(|fold| fold.when));
        cuts.extend([0, self.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// All tokens through a fresh runner of `backend`.
    pub(crate) fn on(&self, backend: &dyn Backend, plan: &Arc<Plan>, parts: &[usize]) -> Vec<f32> {
        let mut runner = backend.prepare(plan.clone(), self.limits()).unwrap_or_else(|e| panic!("{e}"));
        self.run(&mut *runner, plan.axes, parts).unwrap_or_else(|e| panic!("{e}"))
    }
}
