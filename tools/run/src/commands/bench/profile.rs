//! `bench --profile`: where the time of the graphics device goes, kernel by kernel.

use std::fmt::Write as _;

use cchaha::shaders::KernelTime;

use crate::exit::Result;
use crate::output::{Align, Out, Table, escape_xml};

/// The times of one test.
pub(super) struct Profile {
    /// As the table of rates calls it.
    pub(super) test: String,
    pub(super) tokens: usize,
    pub(super) times: Vec<KernelTime>,
    /// Bytes per second the device reads at best.
    pub(super) probe: f64,
    /// As measured without timing kernels, where tokens come one by one.
    pub(super) tokens_per_s: Option<f64>,
}

/// Pixels: width of the picture, height of a bar, and where bars begin and end.
const WIDTH: f64 = 760.0;
const BAR: f64 = 22.0;
const LEFT: f64 = 280.0;
const RIGHT: f64 = 600.0;

impl Profile {
    /// Sorted by time, the longest first.
    pub(super) fn new(test: String, tokens: usize, mut times: Vec<KernelTime>, probe: f64) -> Profile {
        times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Profile { test, tokens, times, probe, tokens_per_s: None }
    }

    /// How fast weights are read from one token to the next, with everything that takes time in between.
    fn reading(&self) -> Option<String> {
        let bytes: u64 = self.times.iter().map(|time| time.bytes).sum();
        let [rate, share] = self.rate(bytes, self.tokens as f64 / self.tokens_per_s?);
        Some(format!("{}: a token reads its weights at {rate} GB/s, {share} of the probe", self.test))
    }

    fn seconds(&self) -> f64 {
        self.times.iter().map(|time| time.seconds).sum()
    }

    /// Microseconds for each token.
    fn us(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.tokens as f64
    }

    /// Read rate in GB/s and its share of the probe's; dashes for kernels that read no weights.
    fn rate(&self, bytes: u64, seconds: f64) -> [String; 2] {
        if bytes == 0 || seconds == 0.0 {
            return ["-".into(), "-".into()];
        }
        let rate = bytes as f64 / seconds;
        [format!("{:.1}", rate / 1e9), format!("{:.0} %", 100.0 * rate / self.probe)]
    }

    pub(super) fn print(&self, out: &mut Out) -> Result {
        let dispatches: u64 = self.times.iter().map(|time| time.dispatches).sum();
        let (seconds, bytes) = (self.seconds(), self.times.iter().map(|time| time.bytes).sum());
        out.line("")?;
        self.reading().map_or(Ok(()), |line| out.line(line))?;
        out.line(format_args!("{}: time on the device", self.test))?;
        let mut table = Table::new(&[
            ("kernel", Align::Left),
            ("weights", Align::Left),
            ("dispatches/token", Align::Right),
            ("us/token", Align::Right),
            ("share", Align::Right),
            ("GB/s", Align::Right),
            ("of probe", Align::Right),
        ]);
        for time in &self.times {
            let [rate, share] = self.rate(time.bytes, time.seconds);
            table.row([
                time.kernel.to_owned(),
                time.format.map_or(String::new(), |format| format.name().to_owned()),
                format!("{:.2}", time.dispatches as f64 / self.tokens as f64),
                format!("{:.1}", self.us(time.seconds)),
                format!("{:.1} %", 100.0 * time.seconds / seconds),
                rate,
                share,
            ]);
        }
        let [rate, share] = self.rate(bytes, seconds);
        table.row([
            "all".into(),
            String::new(),
            format!("{:.2}", dispatches as f64 / self.tokens as f64),
            format!("{:.1}", self.us(seconds)),
            "100.0 %".into(),
            rate,
            share,
        ]);
        table.print(out)
    }

    /// Bars of time for each token, below a title; `y` is where it begins. Gives back where it ends.
    fn draw(&self, svg: &mut String, y: f64) -> f64 {
        let title = format!("{}: {:.0} us a token on the device", self.test, self.us(self.seconds()));
        let _ = writeln!(
            svg,
            r#"<text x="10" y="{}" font-weight="bold">{}</text>"#,
            y + 20.0,
            escape_xml(&title)
        );
        let longest = self.times.iter().map(|time| time.seconds).fold(f64::MIN_POSITIVE, f64::max);
        let mut y = y + 32.0;
        for time in &self.times {
            let name = match time.format {
                Some(format) => format!("{} {format}", time.kernel),
                None => time.kernel.to_owned(),
            };
            let [rate, share] = self.rate(time.bytes, time.seconds);
            let rate =
                if rate == "-" { String::new() } else { format!(", {rate} GB/s, {share} of the probe") };
            let length = (RIGHT - LEFT) * time.seconds / longest;
            let (middle, label) = (y + BAR * 0.65, format!("{:.1} us{rate}", self.us(time.seconds)));
            let _ = writeln!(
                svg,
                r##"<text x="{}" y="{middle:.1}" text-anchor="end">{}</text><rect x="{LEFT}" y="{y:.1}" width="{length:.1}" height="{:.1}" fill="#4878a8"/><text x="{:.1}" y="{middle:.1}">{}</text>"##,
                LEFT - 8.0,
                escape_xml(&name),
                BAR - 4.0,
                LEFT + length + 6.0,
                escape_xml(&label)
            );
            y += BAR;
        }
        y + 12.0
    }
}

/// All tests as one picture.
pub(super) fn svg(profiles: &[Profile]) -> String {
    let mut bars = String::new();
    let height = profiles.iter().fold(0.0, |y, profile| profile.draw(&mut bars, y));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use cchaha::plan::Format;

    use super::*;

    #[test]
    fn shares_and_rates_are_of_the_device_and_its_probe() {
        let time =
            |kernel, format, seconds, bytes| KernelTime { kernel, format, dispatches: 20, seconds, bytes };
        let times = vec![
            time("wgsl-f32-norm", None, 0.001, 0),
            time("wgsl-f32-gemv1", Some(Format::Q4_K), 0.003, 30_000_000),
        ];
        let mut profile = Profile::new("tg10".into(), 10, times, 20e9);
        assert_eq!(profile.reading(), None);
        // 3 MB a token.
        profile.tokens_per_s = Some(2000.0);
        let reading = "tg10: a token reads its weights at 6.0 GB/s, 30 % of the probe";
        assert_eq!(profile.reading().as_deref(), Some(reading));
        assert_eq!(profile.times[0].kernel, "wgsl-f32-gemv1");
        assert_eq!(profile.rate(30_000_000, 0.003), ["10.0", "50 %"]);
        assert_eq!(profile.rate(0, 1.0), ["-", "-"]);
        let picture = svg(&[profile]);
        assert!(
            picture.contains("tg10: 400 us a token")
                && picture.contains("300.0 us, 10.0 GB/s, 50 % of the probe")
        );
        assert_eq!(picture.matches("<rect").count(), 3);
    }
}
