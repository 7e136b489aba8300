//! Some layers on the graphics device, the rest on the processor: for graphics memory that does not hold a whole model.
//!
//! The plan is cut between two layers; each side holds the weights and the KV cache of its own layers, and what crosses is one
//! row of activations for each token (14 KiB for a 7B model, against gigabytes of weights). The device takes the last layers:
//! with them goes the output matrix, which every token reads whole, where with the first ones its memory would hold the table of
//! embeddings, of which a token reads one row. Steps cannot feed each other: each begins here, with the token of the last.

use std::sync::Arc;

use cchaha_kernels::Cpu;
use cchaha_plan::{Backend, Batch, BufferId, Error, ErrorKind, Footprint, Limits, Plan, Result, Runner};

/// Two back ends and where the cut is.
pub(crate) struct Offload<B> {
    pub(crate) device: B,
    pub(crate) cpu: Cpu,
    /// Layers on the device, the last ones and what comes after them; as many as fit where not given.
    pub(crate) layers: Option<usize>,
}

/// The largest number of layers tried where `layers` of `all` did not fit.
fn fewer(layers: usize, all: usize) -> usize {
    layers.saturating_sub(all.div_ceil(8))
}

impl<B: Backend> Offload<B> {
    fn prepare_with(&self, plan: &Arc<Plan>, limits: Limits, layers: usize) -> Result<Box<dyn Runner>> {
        if layers == 0 {
            return self.cpu.prepare(plan.clone(), limits);
        }
        if layers >= plan.layers() {
            return self.device.prepare(plan.clone(), limits);
        }
        let split = plan.split(plan.layers() - layers)?;
        let rest = self.device.prepare(Arc::new(split.rest), limits)?;
        let first = self.cpu.prepare(Arc::new(split.first), Limits { logits: limits.batch, ..limits })?;
        let rows = (0..limits.batch as u32).collect();
        Ok(Box::new(OffloadRunner { first, rest, handed: split.handed, rows }))
    }
}

impl<B: Backend> Backend for Offload<B> {
    fn name(&self) -> String {
        match self.layers {
            None => self.device.name(),
            Some(0) => self.cpu.name(),
            Some(layers) => format!("{}, last {layers} layers", self.device.name()),
        }
    }

    fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
        match self.layers.map(|layers| (layers, plan.split(plan.layers().saturating_sub(layers)))) {
            Some((0, _)) => self.cpu.footprint(plan, limits),
            Some((_, Ok(split))) => {
                let handing = Limits { logits: limits.batch, ..*limits };
                let a = self.cpu.footprint(&split.first, &handing);
                let b = self.device.footprint(&split.rest, limits);
                Footprint { kv_bytes: a.kv_bytes + b.kv_bytes, buffer_bytes: a.buffer_bytes + b.buffer_bytes }
            }
            _ => self.device.footprint(plan, limits),
        }
    }

    fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
        plan.validate()?;
        let all = plan.layers();
        let Some(layers) = self.layers else {
            let mut layers = all;
            loop {
                match self.prepare_with(&plan, limits, layers) {
                    Err(error) if error.kind == ErrorKind::DoesNotFit && layers > 0 => {
                        layers = fewer(layers, all);
                        tracing::warn!(
                            "{}; {layers} of {all} layers are tried on {}",
                            error.message,
                            self.device.name()
                        );
                    }
                    outcome => return outcome,
                }
            }
        };
        self.prepare_with(&plan, limits, layers)
    }
}

struct OffloadRunner {
    first: Box<dyn Runner>,
    rest: Box<dyn Runner>,
    handed: BufferId,
    /// All token indices: what is handed on is asked for as if it were logits.
    rows: Vec<u32>,
}

impl Runner for OffloadRunner {
    fn run(&mut self, batch: &Batch<'_>) -> Result<&[f32]> {
        let rows = self.rows.get(..batch.tokens.len());
        let rows = rows.ok_or_else(|| Error::usage("the batch holds more tokens than the limits allow"))?;
        let handed = self.first.run(&Batch { logits: rows, ..*batch })?;
        self.rest.fill(self.handed, handed)?;
        self.rest.run(batch)
    }

    fn fold(&mut self, pages: &[u32], old: usize, sinks: usize, keep: usize) -> Result<()> {
        self.first.fold(pages, old, sinks, keep)?;
        self.rest.fold(pages, old, sinks, keep)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use cchaha_kernels::CpuOptions;

    use super::*;
    use crate::Model;
    use crate::fallback::tests::greedy;

    fn cpu() -> Cpu {
        Cpu::new(CpuOptions { threads: Some(1), exact: true, ..CpuOptions::default() }).unwrap()
    }

    /// The processor with room for so many layers; notes what it was asked for.
    struct Small {
        room: usize,
        asked: Mutex<Vec<usize>>,
    }

    impl Backend for Small {
        fn name(&self) -> String {
            "small".into()
        }

        fn footprint(&self, plan: &Plan, limits: &Limits) -> Footprint {
            cpu().footprint(plan, limits)
        }

        fn prepare(&self, plan: Arc<Plan>, limits: Limits) -> Result<Box<dyn Runner>> {
            self.asked.lock().unwrap().push(plan.kv.len());
            if plan.kv.len() > self.room {
                return Err(Error::new(ErrorKind::DoesNotFit, "too much"));
            }
            cpu().prepare(plan, limits)
        }
    }

    #[test]
    fn wherever_the_cut_is_the_tokens_are_the_same() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        let mut cut = 0;
        for entry in std::fs::read_dir(golden).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "gguf") {
                continue;
            }
            let model = Model::open(&path).unwrap();
            let want = greedy(&cpu(), model.plan(), |_| {});
            for layers in 0..=model.plan().layers() {
                let offload = Offload { device: cpu(), cpu: cpu(), layers: Some(layers) };
                assert_eq!(greedy(&offload, model.plan(), |_| {}), want, "{} at {layers}", path.display());
                cut += 1;
            }
        }
        assert!(cut > 20, "{cut} cuts");
    }

    #[test]
    fn a_cut_gives_each_part_its_own_cache_and_lies_between_layers() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        let model = Model::open(&golden.join("stories260K-f32.gguf")).unwrap();
        let plan = model.plan();
        let split = plan.split(2).unwrap();
        assert_eq!((split.first.kv.len(), split.rest.kv.len()), (2, 3));
        assert_eq!(split.first.outputs(), plan.buffer(split.handed).width);
        assert_eq!((split.first.validate(), split.rest.validate()), (Ok(()), Ok(())));
        for layers in [0, 5, 6] {
            assert_eq!(plan.split(layers).unwrap_err().kind, ErrorKind::Unsupported, "{layers}");
        }
    }

    #[test]
    fn where_memory_is_short_fewer_layers_are_taken() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        let model = Model::open(&golden.join("stories260K-f32.gguf")).unwrap();
        let want = greedy(&cpu(), model.plan(), |_| {});
        for (room, asked) in [(5, vec![5]), (3, vec![5, 4, 3]), (0, vec![5, 4, 3, 2, 1])] {
            let device = Small { room, asked: Mutex::default() };
            let offload = Offload { device, cpu: cpu(), layers: None };
            assert_eq!(greedy(&offload, model.plan(), |_| {}), want);
            assert_eq!(*offload.device.asked.lock().unwrap(), asked);
        }
    }
}
