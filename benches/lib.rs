//! What the criterion benches in `benches/` share: plans around one op, prepared for one row of the kernel registry, and the share of
//! this machine's roofs ([`Roofs`]) a row reaches.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cchaha_kernels::{Cpu, CpuOptions, Kernel, Pool, Roofs, physical_cores};
use cchaha_plan::{
    Backend, Batch, BufferId, BufferSpec, Bytes, Cells, Format, Limits, Op, PAGE_CELLS, Plan, Rows, Runner,
    Shape, Step, Weight, WeightId,
};

/// Tokens of a prompt that are computed at once.
pub const PREFILL: usize = 64;

/// Threads: `CCHAHA_ARG_THREADS`, or as many as there are cores.
///
/// # Panics
/// Where threads cannot be started.
pub fn pool() -> Pool {
    let threads = std::env::var("CCHAHA_ARG_THREADS").ok().and_then(|n| n.parse().ok());
    Pool::new(threads.unwrap_or_else(physical_cores)).expect("threads can be started")
}

/// The roofs of this machine with these threads, measured once.
pub fn roofs() -> Roofs {
    static ROOFS: OnceLock<Roofs> = OnceLock::new();
    *ROOFS.get_or_init(|| Roofs::measure(&pool()))
}

/// What one run does, as a rate is told of it.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Bytes read and written.
    Bytes(usize),
    /// Multiplications and additions, each counted.
    Ops(usize),
}

/// The fastest time of a run.
#[derive(Debug, Default)]
pub struct Fastest(Option<f64>);

impl Fastest {
    /// Runs `f` `n` times and gives back how long that took, as criterion's `iter_custom` wants it.
    pub fn time<R>(&mut self, n: u64, mut f: impl FnMut() -> R) -> Duration {
        let started = Instant::now();
        for _ in 0..n {
            black_box(f());
        }
        let time = started.elapsed();
        let one = time.as_secs_f64() / n as f64;
        self.0 = Some(self.0.map_or(one, |least| least.min(one)));
        time
    }

    /// Prints the rate and its share of the roof below what criterion printed; nothing where a filter left the bench out.
    pub fn print(&self, work: Work) {
        let roofs = roofs();
        match work {
            Work::Bytes(bytes) => self.print_of(bytes, "GB/s", roofs.bytes_per_s, "read from memory"),
            Work::Ops(ops) => self.print_of(ops, "GOP/s", roofs.ops_per_s, "in 8 bits"),
        }
    }

    /// The same for a roof of one's own.
    #[expect(clippy::print_stdout, reason = "criterion's own results go there")]
    pub fn print_of(&self, work: usize, unit: &str, roof: f64, of: &str) {
        if let Some(seconds) = self.0 {
            let rate = work as f64 / seconds;
            let (share, rate, roof) = (rate / roof, rate / 1e9, roof / 1e9);
            println!("{:24}roof:   {share:.3} ({rate:.2} of {roof:.1} {unit} {of})", "");
        }
    }
}

/// A weight of bytes below 0x40: whatever they are scales or values of, they are finite and not large.
///
/// # Panics
/// Where `cols` are no whole blocks.
pub fn weight(name: &str, format: Format, shape: Shape) -> Weight {
    let n = shape.rows * format.row_bytes(shape.cols).expect("rows are whole blocks");
    let mut state = 1u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    });
    Weight { name: name.into(), format, shape, bytes: Bytes::from(bytes.take(n).collect::<Vec<_>>()) }
}

/// Numbers of the buffers [`plan`] begins with.
pub const X: BufferId = BufferId(0);
/// See [`X`].
pub const Y: BufferId = BufferId(1);
/// The first weight after the table.
pub const WEIGHT: WeightId = WeightId(1);

/// Embeds tokens from a table of `format` in [`X`], of `widths.0` values, does `op` `repeats` times, and takes rows of [`Y`], of
/// `widths.1`. The first weight is the table; others, buffers and whatever the op names are the caller's to add.
pub fn plan(format: Format, widths: (usize, usize), op: Op, repeats: usize) -> Plan {
    let buffer = |name, width, rows| BufferSpec { name, width, rows };
    let mut ops = vec![Op::Embed { table: WeightId(0), scale: 1.0, out: X }];
    ops.extend(std::iter::repeat_n(op, repeats));
    let logits = BufferId(2);
    ops.push(Op::TakeRows { x: Y, out: logits });
    Plan {
        steps: ops.into_iter().map(|op| Step { op, layer: None }).collect(),
        buffers: vec![
            buffer("x", widths.0, Rows::Tokens),
            buffer("y", widths.1, Rows::Tokens),
            buffer("logits", widths.1, Rows::Logits),
        ],
        weights: vec![weight("table", format, Shape::matrix(PREFILL, widths.0))],
        logits,
        hands_on: true,
        ..Plan::new("bench", PREFILL, PREFILL)
    }
}

/// A plan prepared for a row of the registry, with a batch for it.
pub struct Prepared {
    runner: Box<dyn Runner>,
    cells: Cells,
    pages: Vec<u32>,
    ids: Vec<u32>,
    at: Vec<u32>,
    positions: Vec<i32>,
    coarse: Vec<bool>,
}

impl Prepared {
    /// `tokens` tokens of one sequence behind `depth` others. All of them are coarse, or none. Weights are packed by the first
    /// run of one token, where `pack` and the row can.
    ///
    /// # Panics
    /// Where the row does not run here or the plan is inconsistent.
    pub fn new(
        kernel: &'static Kernel,
        plan: &Arc<Plan>,
        (depth, tokens): (usize, usize),
        coarse: bool,
        pack: bool,
    ) -> Prepared {
        let options = CpuOptions {
            threads: Some(pool().threads()),
            exact: false,
            isa: Some(kernel.isa),
            kernel: Some(kernel.name),
            pack: if pack { usize::MAX } else { 0 },
        };
        let cpu = Cpu::new(options).expect("the row runs on this machine");
        let limits = Limits { cells: depth + tokens, batch: tokens, logits: tokens };
        let runner = cpu.prepare(plan.clone(), limits).expect("the plan is consistent");
        let mut cells = Cells::new(depth + tokens);
        for (i, pos) in cells.pos[..depth + tokens].iter_mut().enumerate() {
            *pos = i as i32;
        }
        let at = depth as u32..(depth + tokens) as u32;
        Prepared {
            runner,
            pages: (0..(cells.pos.len() / PAGE_CELLS) as u32).collect(),
            cells,
            ids: (0..tokens as u32).collect(),
            positions: at.clone().map(|i| i as i32).collect(),
            at: at.collect(),
            coarse: vec![coarse; tokens],
        }
    }

    /// One run of the plan, with `rows` rows of logits; gives back a value of them.
    ///
    /// # Panics
    /// Where there are more rows than tokens, or none.
    pub fn run(&mut self, rows: usize) -> f32 {
        let batch = Batch {
            tokens: &self.ids,
            positions: &self.positions,
            sequence: &vec![0; self.ids.len()],
            cell: &self.at,
            logits: &self.ids[..rows],
            coarse: &self.coarse,
            sequences: &[&self.pages],
            cells: &self.cells,
        };
        self.runner.run(&batch).expect("the batch is valid")[0]
    }
}
