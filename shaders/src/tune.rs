//! Which row multiplies fastest on this device: timed once, when a model is first loaded, on the largest of the model's own matrices
//! in each format, and kept on disk. Without it the first row of the table that fits is used. Exact arithmetic chooses among rows
//! that round nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cchaha_plan::{ErrorKind, Format, Limits, Result};

use crate::arena::row_limit;
use crate::device::Device;
use crate::gpu::Choice;
use crate::launch::Launch;
use crate::lower::{CLASSES, Lower, Stage};
use crate::profile::Stopwatch;
use crate::registry::{Kernel, registry};

/// When rows are chosen by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// Never.
    #[default]
    Never,
    /// On graphics hardware: a software adapter is for tests, and slow to time.
    Hardware,
    /// On every adapter that has timestamps.
    Always,
}

/// Ops that have rows to choose from.
const OPS: [&str; 2] = ["MatMul", "GatedMatMul"];

/// How many rows are timed for each of [`CLASSES`], where the limits allow as many.
const TIMED_ROWS: [usize; 3] = [1, 8, 256];

/// Times the work is repeated between two timestamps for each of them, and pairs of timestamps, of which the shortest counts.
const REPEATS: [usize; 3] = [8, 8, 1];
const PAIRS: usize = 4;

/// A choice that was made.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// Which op.
    pub op: &'static str,
    /// Format of the weights.
    pub format: Format,
    /// For up to so many rows (tokens).
    pub most_rows: usize,
    /// The row of [`crate::registry`].
    pub kernel: &'static Kernel,
    /// Bytes of weights it read in a second when it was timed.
    pub bytes_per_s: f64,
}

/// Times what was not timed yet; whether anything was.
pub(crate) fn tune(
    lower: &mut Lower<'_>,
    stages: &[Stage],
    frame: &wgpu::BindGroup,
    exact: bool,
    limits: &Limits,
) -> Result<bool> {
    let choice = lower.choice.clone();
    let stopwatch = Stopwatch::new(lower.device);
    let mut tuned = false;
    for op in OPS {
        for &format in Format::ALL {
            for (class, rows) in TIMED_ROWS.into_iter().enumerate() {
                let Some(largest) = largest(stages, op, format, class, limits) else { continue };
                if choice.tuned(op, format, rows).is_some() {
                    continue;
                }
                let rows = rows.min(row_limit(stages[largest].rows, limits));
                let mut best: Option<Chosen> = None;
                for kernel in candidates(&choice, op, format, CLASSES[class], exact) {
                    lower.choice = choice.preferring(kernel);
                    let timed = lower.stages().and_then(|mut stages| {
                        let launches = &stages.swap_remove(largest).launches[class];
                        let bytes: u64 = launches.iter().map(|launch| launch.weight_bytes).sum();
                        let seconds = time(lower.device, &stopwatch, frame, launches, rows, REPEATS[class])?;
                        Ok(bytes as f64 / seconds)
                    });
                    let rate = match timed {
                        Ok(rate) => rate,
                        // A driver that cannot do with one row may with others.
                        Err(error) if error.kind == ErrorKind::Device => {
                            tracing::warn!("GPU kernel {} on {format} is set aside: {error}", kernel.name);
                            choice.set_aside(kernel.name, format);
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    tracing::info!("{} on {format}, {rows} rows: {:.1} GB/s", kernel.name, rate / 1e9);
                    if best.is_none_or(|best| rate > best.bytes_per_s) {
                        best =
                            Some(Chosen { op, format, most_rows: CLASSES[class], kernel, bytes_per_s: rate });
                    }
                }
                if let Some(best) = best {
                    choice.add_tuned(best);
                    tuned = true;
                }
            }
        }
    }
    lower.choice = choice;
    Ok(tuned)
}

/// The stage that reads most weights of a format with rows of an op, of those that may have as many rows as a class is for.
fn largest(stages: &[Stage], op: &str, format: Format, class: usize, limits: &Limits) -> Option<usize> {
    let fewest = class.checked_sub(1).map_or(0, |class| CLASSES[class]);
    let bytes = |stage: &Stage| -> u64 {
        let of_op = |launch: &&Launch| {
            let row = registry().iter().find(|row| row.name == launch.kernel);
            launch.format == Some(format) && row.is_some_and(|row| row.op == op)
        };
        stage.launches[0].iter().filter(of_op).map(|launch| launch.weight_bytes).sum()
    };
    let sizes = stages.iter().enumerate().filter(|(_, stage)| row_limit(stage.rows, limits) > fewest);
    let sizes = sizes.map(|(i, stage)| (i, bytes(stage)));
    sizes.filter(|(_, bytes)| *bytes > 0).max_by_key(|(_, bytes)| *bytes).map(|(stage, _)| stage)
}

/// Rows made for exactly this class that work here.
fn candidates(
    choice: &Choice,
    op: &'static str,
    format: Format,
    most_rows: usize,
    exact: bool,
) -> impl Iterator<Item = &'static Kernel> {
    let choice = choice.clone();
    registry().iter().filter(move |row| {
        let rounds = row.rounds() || row.narrows();
        row.most_rows == most_rows && !(exact && rounds) && choice.fits(row, op, Some(format))
    })
}

/// Seconds the launches take on `rows` rows.
fn time(
    device: &Device,
    stopwatch: &Stopwatch,
    frame: &wgpu::BindGroup,
    launches: &[Launch],
    rows: usize,
    repeats: usize,
) -> Result<f64> {
    let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    // The first pair warms caches and clocks up and is not counted.
    for pair in 0..=PAIRS {
        let descriptor =
            wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(stopwatch.around(pair)) };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        for _ in 0..repeats {
            let mut bound = crate::runner::Bound::default();
            launches.iter().for_each(|launch| bound.dispatch(&mut pass, frame, launch, rows, 1));
        }
    }
    stopwatch.copy(&mut encoder, PAIRS + 1);
    device.queue.submit([encoder.finish()]);
    let seconds = stopwatch.seconds(device, PAIRS + 1)?;
    let shortest = seconds[1..].iter().copied().fold(f64::INFINITY, f64::min);
    // A clock too coarse for this finds nothing to choose by.
    Ok((shortest / repeats as f64).max(1e-9))
}

/// The file for an adapter and its driver; exact arithmetic has fewer rows to choose from.
pub(crate) fn path(folder: &Path, device: &Device, exact: bool) -> PathBuf {
    let exact = if exact { " exact" } else { "" };
    let name = format!("{} {} {}{exact}", device.info.name, device.info.api, device.info.driver);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    folder.join(format!("tuned-{name}-{}.tsv", env!("CARGO_PKG_VERSION")))
}

/// What a file says; lines that name no row or format of this version count for nothing.
pub(crate) fn load(file: &Path) -> Vec<Chosen> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let [op, format, most_rows, kernel, rate] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let op = OPS.into_iter().find(|known| *known == op)?;
        let format = Format::ALL.iter().copied().find(|known| known.name() == format)?;
        let kernel = registry().iter().find(|row| row.name == kernel && row.accepts(op, Some(format)))?;
        let most_rows = most_rows.parse().ok().filter(|rows| *rows == kernel.most_rows)?;
        Some(Chosen { op, format, most_rows, kernel, bytes_per_s: rate.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// Writes what was chosen, whole or not at all.
pub(crate) fn save(file: &Path, chosen: &[Chosen]) {
    let line = |c: &Chosen| {
        format!("{}\t{}\t{}\t{}\t{:.0}\n", c.op, c.format, c.most_rows, c.kernel.name, c.bytes_per_s)
    };
    let lines: String = chosen.iter().map(line).collect();
    if let Err(error) = crate::store::replace(file, lines.as_bytes()) {
        tracing::info!("the choice of kernels is not kept: {}: {error}", file.display());
    }
}

/// Choices kept in a folder, by the name of the file of each adapter.
pub fn kept_choices(folder: &Path) -> Vec<(String, Vec<Chosen>)> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut kept: Vec<_> = files
        .filter_map(|file| {
            let name = file.file_name()?.to_str()?.strip_prefix("tuned-")?.strip_suffix(".tsv")?.to_owned();
            Some((name, load(&file)))
        })
        .filter(|(_, chosen)| !chosen.is_empty())
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept
}

/// For [`Choice`]: shared by all runners of a device.
pub(crate) type Tuned = Arc<std::sync::Mutex<Vec<Chosen>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("cchaha-tuned-{}", std::process::id()));
        let file = folder.join("tuned-card.tsv");
        let row = |name: &str| registry().iter().find(|row| row.name == name).unwrap();
        let chosen = |kernel: &str, most_rows| Chosen {
            op: "MatMul",
            format: Format::Q4_K,
            most_rows,
            kernel: row(kernel),
            bytes_per_s: 5e9,
        };
        let all = [
            chosen("wgsl-dot-gemv1", 1),
            chosen("wgsl-f32-gemv4", 8),
            chosen("wgsl-f16-gemm128", usize::MAX),
        ];
        save(&file, &all);
        let names =
            |chosen: &[Chosen]| chosen.iter().map(|c| (c.kernel.name, c.most_rows)).collect::<Vec<_>>();
        assert_eq!(names(&load(&file)), names(&all));
        let text = std::fs::read_to_string(&file).unwrap();
        let broken = format!(
            "x\n{}MatMul\tF32\t1\twgsl-dot-gemv1\t5\nMatMul\tQ4_K\t8\twgsl-dot-gemv1\t5\nNorm\tQ4_K\t1\twgsl-f32-gemv1\t5\n",
            text.replace("\tQ4_K\t8", "\tQ4_K\tmany")
        );
        std::fs::write(&file, broken).unwrap();
        assert_eq!(names(&load(&file)), [("wgsl-dot-gemv1", 1), ("wgsl-f16-gemm128", usize::MAX)]);
        assert_eq!(kept_choices(&folder).iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["card"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
