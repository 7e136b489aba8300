//! The loss curve: one line per step in a text file, a few rows on the terminal, a picture.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One column of the curve's file.
const HEAD: &str = "step\ttokens\tloss\tgradient\n";
const HELDOUT_HEAD: &str = "step\ttokens\tbits_per_byte\n";
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Losses of a run, in memory and on disk.
#[derive(Debug)]
pub struct Curve {
    folder: PathBuf,
    /// (tokens seen, nats per token).
    losses: Vec<(f64, f64)>,
    /// (tokens seen, bits per byte).
    heldout: Vec<(f64, f64)>,
    file: fs::File,
}

/// The lines of a file that belong to the first `steps` steps, and their points.
fn keep(path: &Path, head: &str, steps: u64) -> (String, Vec<(f64, f64)>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (mut kept, mut points) = (head.to_owned(), Vec::new());
    for line in text.lines().skip(1) {
        let mut cells = line.split('\t').map(|cell| cell.parse::<f64>().ok());
        if let (Some(Some(step)), Some(Some(tokens)), Some(Some(y))) =
            (cells.next(), cells.next(), cells.next())
            && step <= steps as f64
        {
            kept.push_str(line);
            kept.push('\n');
            points.push((tokens, y));
        }
    }
    (kept, points)
}

impl Curve {
    /// The curve of a run's folder up to step `steps`: what a run that was killed had written after its checkpoint is cut off.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn open(folder: &Path, steps: u64) -> io::Result<Curve> {
        let path = folder.join("loss.tsv");
        let (text, losses) = keep(&path, HEAD, steps);
        super::replace_file(&path, |file| file.write_all(text.as_bytes()))?;
        let (text, heldout) = keep(&folder.join("heldout.tsv"), HELDOUT_HEAD, steps);
        super::replace_file(&folder.join("heldout.tsv"), |file| file.write_all(text.as_bytes()))?;
        let file = fs::OpenOptions::new().append(true).open(&path)?;
        Ok(Curve { folder: folder.to_owned(), losses, heldout, file })
    }

    /// A step was taken.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn step(&mut self, step: u64, tokens: u64, loss: f64, gradient: f64) -> io::Result<()> {
        self.losses.push((tokens as f64, loss));
        self.file.write_all(format!("{step}\t{tokens}\t{loss}\t{gradient}\n").as_bytes())
    }

    /// Held-out text was measured.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn heldout(&mut self, step: u64, tokens: u64, bits_per_byte: f64) -> io::Result<()> {
        self.heldout.push((tokens as f64, bits_per_byte));
        let mut file = fs::OpenOptions::new().append(true).open(self.folder.join("heldout.tsv"))?;
        file.write_all(format!("{step}\t{tokens}\t{bits_per_byte}\n").as_bytes())
    }

    /// The mean loss of the last steps.
    pub fn recent(&self) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(20)..];
        last.iter().map(|point| point.1).sum::<f64>() / last.len() as f64
    }

    /// The whole curve in one line of `width` characters, from its highest to its lowest value.
    pub fn line(&self, width: usize) -> String {
        let means = means(&self.losses, width);
        let (low, high) = range(means.iter().map(|point| point.1));
        let bar = |y: f64| BARS[(((y - low) / (high - low).max(1e-12) * 7.0).round() as usize).min(7)];
        let bars: String = means.iter().map(|point| bar(point.1)).collect();
        if means.is_empty() { bars } else { format!("{high:.2} {bars} {low:.2}") }
    }

    /// Draws the picture into the run's folder.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn draw(&self) -> io::Result<()> {
        let svg = self.svg();
        super::replace_file(&self.folder.join("loss.svg"), |file| file.write_all(svg.as_bytes()))
    }

    fn svg(&self) -> String {
        const WIDTH: f64 = 720.0;
        const HEIGHT: f64 = 300.0;
        const LEFT: f64 = 50.0;
        const TOP: f64 = 30.0;
        let losses = means(&self.losses, 600);
        let (_, most) = range(losses.iter().chain(&self.heldout).map(|point| point.0));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            WIDTH + 2.0 * LEFT,
            HEIGHT + TOP + 40.0
        );
        let series = [
            (&losses, "#4269d0", "training, nats per token", 0.0),
            (&self.heldout, "#c2410c", "held out, bits per byte", WIDTH),
        ];
        for (points, color, name, axis) in series {
            if points.is_empty() {
                continue;
            }
            let (low, high) = range(points.iter().map(|point| point.1));
            // The first steps would flatten everything after them.
            let (low, high) = (low * 0.98, high.min(low * 2.5));
            let x = |tokens: f64| LEFT + WIDTH * tokens / most.max(1.0);
            let y = |value: f64| TOP + HEIGHT * (high - value.min(high)) / (high - low).max(1e-12);
            let line: String = points.iter().map(|&(t, v)| format!("{:.1},{:.1} ", x(t), y(v))).collect();
            let _ =
                writeln!(svg, "<polyline fill=\"none\" stroke=\"{color}\" points=\"{}\"/>", line.trim_end());
            let anchor = if axis == 0.0 { "end" } else { "start" };
            let at = if axis == 0.0 { LEFT - 5.0 } else { LEFT + WIDTH + 5.0 };
            for part in 0..=4 {
                let value = low + (high - low) * f64::from(part) / 4.0;
                let _ = writeln!(
                    svg,
                    "<text x=\"{at}\" y=\"{:.1}\" fill=\"{color}\" text-anchor=\"{anchor}\">{value:.2}</text>",
                    y(value) + 4.0
                );
            }
            let at = LEFT + axis.min(WIDTH);
            let _ = writeln!(
                svg,
                "<text x=\"{at}\" y=\"18\" fill=\"{color}\" text-anchor=\"{}\">{name}</text>",
                if axis == 0.0 { "start" } else { "end" }
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{0}H{1}\" fill=\"none\" stroke=\"#888\"/>\n\
             <text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{3:.1} million tokens</text>\n</svg>",
            TOP + HEIGHT,
            LEFT + WIDTH,
            TOP + HEIGHT + 18.0,
            most / 1e6
        );
        svg
    }
}

/// At most `n` points: means of as many neighbours each.
fn means(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(n.max(1)).max(1);
    let mean = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        (group.iter().map(|p| p.0).sum::<f64>() / n, group.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(group).map(mean).collect()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_kept_up_to_a_step_and_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let mut curve = Curve::open(folder.path(), 0).unwrap();
        for step in 1..=10u64 {
            curve.step(step, step * 100, 5.0 / step as f64, 0.1).unwrap();
        }
        curve.heldout(8, 800, 1.25).unwrap();
        drop(curve);
        let curve = Curve::open(folder.path(), 5).unwrap();
        assert_eq!(curve.losses.len(), 5);
        assert!(curve.heldout.is_empty());
        assert_eq!(curve.losses[2], (300.0, 5.0 / 3.0), "to the last bit");
        assert!(curve.line(3).starts_with("3.75 █"), "{}", curve.line(3));
        curve.draw().unwrap();
        let svg = fs::read_to_string(folder.path().join("loss.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("<polyline") && svg.ends_with("</svg>\n"));
        let text = fs::read_to_string(folder.path().join("loss.tsv")).unwrap();
        assert_eq!(text.lines().count(), 6);
    }
}
