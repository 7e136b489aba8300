//! Nothing the GPU back end does is complained about, neither by wgpu's checks nor by the API's validation layer where that is
//! installed (Debian: vulkan-validationlayers). A test of its own, because what is logged belongs to a whole process.

use std::path::Path;
use std::sync::Mutex;

use cchaha::{KvTable, Model, blocks};
use cchaha_plan::{Backend, Batch, ErrorKind, Limits, PAGE_CELLS};
use cchaha_shaders::{Gpu, GpuOptions, Tune};

/// What the graphics libraries say at the level of warnings and above.
struct Messages(Mutex<Vec<String>>);

impl log::Log for Messages {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}: {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

static MESSAGES: Messages = Messages(Mutex::new(Vec::new()));

/// Prompts, single tokens, greedy steps, timed steps, and the choice of kernels by time.
fn exercise(gpu: &Gpu) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for name in ["stories260K-f32.gguf", "gemma3.gguf", "qwen3moe.gguf"] {
        let model = Model::open(&golden.join(name)).unwrap();
        let limits = Limits { cells: 64, batch: 40, logits: 1 };
        let mut runner = gpu.prepare(model.plan().clone(), limits).unwrap();
        let mut kv = KvTable::new(limits.cells);
        let sequence = kv.add();
        let mut first = 0;
        for (n, greedy) in [(40, None), (5, None), (1, None), (1, Some(false)), (1, Some(true)), (1, None)] {
            kv.append(sequence, n).unwrap();
            let pages = kv.pages(sequence);
            let place = |p: usize| pages[p / PAGE_CELLS] * PAGE_CELLS as u32 + (p % PAGE_CELLS) as u32;
            let batch = Batch {
                tokens: &vec![1; n],
                positions: &(first..first + n).map(|p| p as i32).collect::<Vec<_>>(),
                sequence: &vec![0; n],
                cell: &(first..first + n).map(place).collect::<Vec<_>>(),
                logits: &[n as u32 - 1],
                coarse: &[],
                sequences: &[pages],
                cells: kv.cells(),
            };
            match greedy {
                None => runner.run(&batch).map(|_| ()).unwrap(),
                Some(fed) => runner.greedy().unwrap().begin(&batch, fed).unwrap(),
            }
            first += n;
        }
    }
}

#[test]
fn nothing_is_complained_about() {
    log::set_logger(&MESSAGES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let options = GpuOptions { validation: true, tune: Tune::Always, ..GpuOptions::new(blocks) };
    let gpu = match Gpu::new(&options) {
        Ok(gpu) => gpu,
        Err(error) => {
            let required = std::env::var_os("CCHAHA_REQUIRE_GPU").is_some_and(|value| !value.is_empty());
            assert!(!required && error.kind == ErrorKind::Device, "{error}");
            eprintln!("not tested: {error}");
            return;
        }
    };
    exercise(&gpu);
    if gpu.adapter().features.contains(&"timestamps") {
        gpu.set_profile(true).unwrap();
        exercise(&gpu);
    }
    assert_eq!(gpu.counts().faults, 0);
    drop(gpu);
    let messages = MESSAGES.0.lock().unwrap();
    if messages.iter().any(|message| message.contains("unable to find layer")) {
        eprintln!("the validation layer is not installed; wgpu's own checks found nothing");
    }
    // Loaders and drivers talk about other things too; what the layer says is marked so.
    let complaints: Vec<_> = messages.iter().filter(|message| message.contains("VALIDATION [")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
