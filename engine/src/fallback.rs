//! What happens when the graphics device fails: the run goes on, on the processor, from the tokens evaluated so far.
//!
//! The runner below remembers the token behind every KV cell (`history.rs`). When the device is lost it prepares the same plan on
//! the processor, evaluates those tokens again, in the order of their positions, and then the batch that failed.
//! Nobody above notices but for one warning.

use std::collections::VecDeque;
use std::sync::Arc;

use cchaha_kernels::Cpu;
use cchaha_plan::{
    Backend, Batch, Cells, Error, ErrorKind, Footprint, Greedy, Limits, Observer, Plan, Result, Runner,
};

use self::history::History;

mod history;

/// A back end that may fail and the one that then goes on.
pub(crate) struct Fallback<B> {
    pub(crate) first: B,
    pub(crate) cpu: Cpu,
}

impl<B: Backend> Backend for Fallback<B> {
    fn name(&self) -> String {
        self.first.name()
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        self.first.footprint(plan, limits)
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        let first = match self.first.prepare(plan.clone(), limits) {
            Ok(runner) => runner,
            Err(error) if recoverable(&error) => {
                warn(&error, &self.cpu);
                return self.cpu.prepare(plan, limits);
            }
            Err(error) => return Err(error),
        };
        Ok(Box::new(FallbackRunner {
            first: Some(first),
            second: None,
            failed: None,
            history: History::new(&limits, plan.axes),
            unknown: VecDeque::with_capacity(2),
            under_way: 0,
            chosen: 0,
            cpu: self.cpu.clone(),
            plan,
            limits,
        }))
    }
}

fn recoverable(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Device | ErrorKind::DoesNotFit)
}

fn warn(error: &Error, cpu: &Cpu) {
    tracing::warn!("{}; going on with {}", error.message, cpu.name());
}

struct FallbackRunner {
    /// Until it has failed.
    first: Option<Box<dyn Runner>>,
    /// On the processor, once the first has failed.
    second: Option<Box<dyn Runner>>,
    /// Why the first is not to be used again, where a greedy step noticed.
    failed: Option<Error>,
    history: History,
    /// Cells of greedy steps whose token the device has not told yet.
    unknown: VecDeque<u32>,
    /// Greedy steps begun and not finished, and the token the last finished one led to.
    under_way: usize,
    chosen: u32,
    cpu: Cpu,
    plan: Arc<Plan>,
    limits: Limits,
}

/// The plan on the processor, with what the cells hold evaluated again.
fn take_over(
    cpu: &Cpu,
    plan: &Arc<Plan>,
    limits: Limits,
    history: &History,
    cells: &Cells,
    error: &Error,
) -> Result<Box<dyn Runner>> {
    warn(error, cpu);
    let mut runner = cpu.prepare(plan.clone(), limits)?;
    history.replay(cells, limits.batch, &mut *runner)?;
    Ok(runner)
}

impl Runner for FallbackRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        self.under_way = 0;
        self.unknown.clear();
        if let Some(error) = &self.failed {
            let second = take_over(&self.cpu, &self.plan, self.limits, &self.history, batch.cells, error)?;
            self.second = Some(second);
            self.failed = None;
        }
        if self.second.is_some() {
            self.first = None;
        }
        if let Some(first) = &mut self.first {
            // The first is not touched again here: where it succeeds, what it lent goes to the caller.
            let error = match first.run(batch) {
                Ok(logits) => {
                    self.history.remember(batch);
                    return Ok(logits);
                }
                Err(error) if recoverable(&error) => error,
                Err(error) => return Err(error),
            };
            let second = take_over(&self.cpu, &self.plan, self.limits, &self.history, batch.cells, &error)?;
            self.second = Some(second);
        }
        self.second.as_mut().expect("invariant: one of the two runs").run(batch)
    }

    /// What a failed device folded is not in the history: the processor keeps what those pages held first.
    fn fold(&mut self, pages: &[u32], old: usize, sinks: usize, keep: usize) -> Result<()> {
        let runner = self.second.as_mut().or(self.first.as_mut());
        runner.expect("invariant: one of the two runs").fold(pages, old, sinks, keep)
    }

    fn greedy(&mut self) -> Option<&mut dyn Greedy> {
        let able = self.failed.is_none() && self.second.is_none();
        let able = able && self.first.as_mut().is_some_and(|first| first.greedy().is_some());
        able.then_some(self as &mut dyn Greedy)
    }

    fn observe(&mut self, observer: Box<dyn Observer>) -> Result<()> {
        match (&mut self.second, &mut self.first) {
            (Some(runner), _) | (None, Some(runner)) => runner.observe(observer),
            (None, None) => Err(Error::usage("nothing runs yet")),
        }
    }
}

impl FallbackRunner {
    /// The first runner's steps, and a note where one fails.
    fn first<T>(&mut self, step: impl FnOnce(&mut dyn Greedy) -> Result<T>) -> Result<T> {
        let greedy = self.first.as_mut().and_then(|first| first.greedy());
        let outcome = step(greedy.ok_or_else(|| Error::usage("greedy steps run on no device"))?);
        if let Err(error) = &outcome
            && recoverable(error)
        {
            self.failed = Some(error.clone());
        }
        outcome
    }
}

impl Greedy for FallbackRunner {
    fn begin(&mut self, batch: &Batch<'_>, fed: bool) -> Result<()> {
        self.first(|first| first.begin(batch, fed))?;
        self.history.remember(batch);
        let cell = batch.cell[0];
        if fed && self.under_way > 0 {
            self.unknown.push_back(cell);
        } else if fed {
            self.history.set_token(cell, self.chosen);
        }
        self.under_way += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<u32> {
        self.chosen = self.first(|first| first.finish())?;
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(cell) = self.unknown.pop_front() {
            self.history.set_token(cell, self.chosen);
        }
        Ok(self.chosen)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cchaha_kernels::CpuOptions;
    use cchaha_plan::PAGE_CELLS;
    use cchaha_shaders::{Gpu, GpuOptions};

    use super::*;
    use crate::kv::KvTable;
    use crate::{Model, blocks};

    const STEPS: usize = 24;

    fn cpu() -> Cpu {
        Cpu::new(CpuOptions { threads: Some(1), exact: true, ..CpuOptions::default() }).unwrap()
    }

    fn model() -> Model {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        Model::open(&golden.join("stories260K-f32.gguf")).unwrap()
    }

    fn limits() -> Limits {
        Limits { cells: 64, batch: 8, logits: 1 }
    }

    /// The likeliest token after each of [`STEPS`] batches: five tokens, then one at a time. `before(step)` may do harm.
    pub(crate) fn greedy(backend: &dyn Backend, plan: &Arc<Plan>, mut before: impl FnMut(usize)) -> Vec<u32> {
        let mut runner = backend.prepare(plan.clone(), limits()).unwrap();
        let mut kv = KvTable::new(limits().cells);
        let sequence = kv.add();
        let (mut tokens, mut written): (Vec<u32>, Vec<u32>) =
            ([1, 403, 407, 261, 378].map(|token| token % plan.vocab as u32).to_vec(), Vec::new());
        for step in 0..STEPS {
            before(step);
            let first = kv.len(sequence);
            kv.append(sequence, tokens.len()).unwrap();
            let positions: Vec<i32> =
                (first..first + tokens.len()).flat_map(|p| vec![p as i32; plan.axes]).collect();
            let pages = kv.pages(sequence).to_vec();
            let place = |p: usize| pages[p / PAGE_CELLS] * PAGE_CELLS as u32 + (p % PAGE_CELLS) as u32;
            let batch = Batch {
                tokens: &tokens,
                positions: &positions,
                sequence: &vec![0; tokens.len()],
                cell: &(first..first + tokens.len()).map(place).collect::<Vec<_>>(),
                logits: &[tokens.len() as u32 - 1],
                coarse: &[],
                sequences: &[&pages],
                cells: kv.cells(),
            };
            let logits = runner.run(&batch).unwrap();
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i as u32);
            tokens = vec![best.unwrap()];
            written.extend(&tokens);
        }
        written
    }

    /// Fails at one call of `run`, or to prepare at all.
    struct Failing {
        at: Option<usize>,
        kind: ErrorKind,
    }

    struct FailingRunner {
        runner: Box<dyn Runner>,
        calls: AtomicUsize,
        at: usize,
        kind: ErrorKind,
    }

    impl Backend for Failing {
        fn name(&self) -> String {
            "failing".into()
        }

        fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
            cpu().footprint(plan, limits)
        }

        fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
            let Some(at) = self.at else { return Err(Error::new(self.kind, "refused")) };
            let runner = cpu().prepare(plan, limits)?;
            Ok(Box::new(FailingRunner { runner, calls: AtomicUsize::new(0), at, kind: self.kind }))
        }
    }

    impl Runner for FailingRunner {
        fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
            if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
                return Err(Error::new(self.kind, "lost"));
            }
            self.runner.run(batch)
        }
    }

    #[test]
    fn a_run_goes_on_from_its_history_wherever_the_device_fails() {
        let (model, cpu) = (model(), cpu());
        let want = greedy(&cpu, model.plan(), |_| {});
        for kind in [ErrorKind::Device, ErrorKind::DoesNotFit] {
            for at in [None, Some(0), Some(1), Some(5), Some(13), Some(STEPS - 1)] {
                let fallback = Fallback { first: Failing { at, kind }, cpu: cpu.clone() };
                assert_eq!(greedy(&fallback, model.plan(), |_| {}), want, "{kind:?} at {at:?}");
            }
        }
    }

    #[test]
    fn a_mistake_of_the_caller_is_no_failure_of_the_device() {
        let fallback = Fallback { first: Failing { at: None, kind: ErrorKind::Usage }, cpu: cpu() };
        let error = fallback.prepare(model().plan().clone(), limits()).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Usage);
    }

    #[test]
    fn a_destroyed_gpu_is_left_behind() {
        let (model, cpu) = (model(), cpu());
        let want = greedy(&cpu, model.plan(), |_| {});
        for at in [0, 1, 9, 20] {
            let options = GpuOptions { exact: true, ..GpuOptions::new(blocks) };
            let gpu = match Gpu::new(&options) {
                Ok(gpu) => gpu,
                Err(error) => {
                    let required =
                        std::env::var_os("CCHAHA_REQUIRE_GPU").is_some_and(|value| !value.is_empty());
                    assert!(!required && error.kind == ErrorKind::Device, "{error}");
                    eprintln!("not tested: a GPU that is destroyed ({error})");
                    return;
                }
            };
            let fallback = Fallback { first: gpu.clone(), cpu: cpu.clone() };
            let harm = |step| {
                if step == at {
                    gpu.destroy();
                }
            };
            assert_eq!(greedy(&fallback, model.plan(), harm), want, "destroyed before step {at}");
        }
    }
}
