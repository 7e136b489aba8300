//! What happens when the graphics device fails: the run goes on, on the processor, from the tokens evaluated so far.
//!
//! The runner below remembers the token behind every KV cell. When the device is lost it prepares the same plan on the
//! processor, evaluates those tokens again, in the order of their positions, and then the batch that failed. Nobody above
//! notices but for one warning.

use std::sync::Arc;

use cchaha_kernels::Cpu;
use cchaha_plan::{
    Backend, Batch, Cells, Error, ErrorKind, Footprint, Limits, Observer, PAGE_CELLS, Plan, Result, Runner,
};

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
        let runner = match self.first.prepare(plan.clone(), limits) {
            Ok(runner) => runner,
            Err(error) if recoverable(&error) => {
                warn(&error, &self.cpu);
                return self.cpu.prepare(plan, limits);
            }
            Err(error) => return Err(error),
        };
        let cells = limits.cells.next_multiple_of(PAGE_CELLS);
        Ok(Box::new(FallbackRunner {
            runner,
            cpu: Some(self.cpu.clone()),
            axes: plan.axes,
            plan,
            limits,
            written: vec![None; cells],
            logits: Vec::new(),
        }))
    }
}

fn recoverable(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Device | ErrorKind::DoesNotFit)
}

fn warn(error: &Error, cpu: &Cpu) {
    tracing::warn!("{}; going on with {}", error.message, cpu.name());
}

/// What was evaluated into a cell.
#[derive(Clone, Debug)]
struct Written {
    token: u32,
    positions: Box<[i32]>,
    /// Pages of its sequence at that time.
    pages: Arc<[u32]>,
}

struct FallbackRunner {
    runner: Box<dyn Runner>,
    /// Taken when the device failed.
    cpu: Option<Cpu>,
    plan: Arc<Plan>,
    limits: Limits,
    axes: usize,
    written: Vec<Option<Written>>,
    /// Of the last batch that succeeded: a copy, so that a failed one leaves no borrow behind.
    logits: Vec<f32>,
}

impl FallbackRunner {
    /// Moves to the processor and evaluates again what the cells hold.
    fn move_to_cpu(&mut self, cpu: &Cpu, cells: &Cells) -> Result<()> {
        self.runner = cpu.prepare(self.plan.clone(), self.limits)?;
        let mut live: Vec<(u32, Written)> = (0u32..)
            .zip(&self.written)
            .filter_map(|(cell, written)| Some((cell, written.clone()?)))
            .filter(|(cell, written)| cells.pos[*cell as usize] == written.positions[0])
            .collect();
        live.sort_by_key(|(_, written)| written.positions[0]);
        for chunk in live.chunks(self.limits.batch) {
            let mut lists: Vec<&[u32]> = Vec::new();
            let mut sequence = Vec::with_capacity(chunk.len());
            for (_, written) in chunk {
                let known = lists.iter().position(|list| **list == *written.pages);
                sequence.push(known.unwrap_or(lists.len()) as u32);
                if known.is_none() {
                    lists.push(&written.pages);
                }
            }
            let tokens: Vec<u32> = chunk.iter().map(|(_, written)| written.token).collect();
            let positions: Vec<i32> =
                chunk.iter().flat_map(|(_, written)| written.positions.iter().copied()).collect();
            let cell: Vec<u32> = chunk.iter().map(|(cell, _)| *cell).collect();
            self.runner.run(&Batch {
                tokens: &tokens,
                positions: &positions,
                sequence: &sequence,
                cell: &cell,
                logits: &[],
                sequences: &lists,
                cells,
            })?;
        }
        Ok(())
    }

    fn remember(&mut self, batch: &Batch<'_>) {
        let lists: Vec<Arc<[u32]>> = batch.sequences.iter().map(|list| Arc::from(*list)).collect();
        for t in 0..batch.tokens.len() {
            self.written[batch.cell[t] as usize] = Some(Written {
                token: batch.tokens[t],
                positions: batch.positions[t * self.axes..][..self.axes].into(),
                pages: lists[batch.sequence[t] as usize].clone(),
            });
        }
    }
}

impl Runner for FallbackRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        let Some(cpu) = self.cpu.take() else { return self.runner.run(batch) };
        match self.runner.run(batch) {
            Ok(logits) => {
                self.logits.clear();
                self.logits.extend_from_slice(logits);
                self.remember(batch);
                self.cpu = Some(cpu);
                Ok(&self.logits)
            }
            Err(error) if recoverable(&error) => {
                warn(&error, &cpu);
                self.move_to_cpu(&cpu, batch.cells)?;
                self.runner.run(batch)
            }
            Err(error) => {
                self.cpu = Some(cpu);
                Err(error)
            }
        }
    }

    fn observe(&mut self, observer: Box<dyn Observer>) -> Result<()> {
        self.runner.observe(observer)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cchaha_kernels::CpuOptions;
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
    fn greedy(backend: &dyn Backend, plan: &Arc<Plan>, mut before: impl FnMut(usize)) -> Vec<u32> {
        let mut runner = backend.prepare(plan.clone(), limits()).unwrap();
        let mut kv = KvTable::new(limits().cells);
        let sequence = kv.add();
        let (mut tokens, mut written): (Vec<u32>, Vec<u32>) = (vec![1, 403, 407, 261, 378], Vec::new());
        for step in 0..STEPS {
            before(step);
            let first = kv.len(sequence);
            kv.append(sequence, tokens.len()).unwrap();
            let positions: Vec<i32> = (first..first + tokens.len()).map(|p| p as i32).collect();
            let pages = kv.pages(sequence).to_vec();
            let place = |p: usize| pages[p / PAGE_CELLS] * PAGE_CELLS as u32 + (p % PAGE_CELLS) as u32;
            let batch = Batch {
                tokens: &tokens,
                positions: &positions,
                sequence: &vec![0; tokens.len()],
                cell: &(first..first + tokens.len()).map(place).collect::<Vec<_>>(),
                logits: &[tokens.len() as u32 - 1],
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
            let options = GpuOptions {
                decode: blocks,
                exact: true,
                adapter: None,
                kernel: None,
                checked: false,
                progress: None,
                reference: None,
            };
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
