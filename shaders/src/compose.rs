//! Puts WGSL modules together. Two directives, each on a line of its own:
//!
//! ```text
//! #import lib/frame        the text of a module, once, before everything that imports it
//! #unroll T 4 .. #end      the lines between them four times, with 0, 1, 2, 3 for the word T (also in names: sum_T)
//! ```
//!
//! WGSL's own `enable` directives go to the top. A module name or a count may be a parameter, which the kernel's registry row gives. Sizes that need no change of the text are
//! `override` constants instead.

use std::collections::BTreeSet;

macro_rules! modules {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../wgsl/", $name, ".wgsl")))),*]
    };
}

/// Every WGSL module by name.
pub(crate) const MODULES: &[(&str, &str)] = modules! {
    "formats/bf16" "formats/f16" "formats/f32" "formats/i8" "formats/iq4_nl" "formats/iq4_xs" "formats/mxfp4" "formats/q2_k" "formats/q3_k" "formats/q4_0" "formats/q4_1" "formats/q4_k" "formats/q5_0" "formats/q5_1" "formats/q5_k" "formats/q6_k" "formats/q8_0"
    "lib/activation" "lib/attention" "lib/best" "lib/bits" "lib/codebook" "lib/coded" "lib/coop" "lib/coop16" "lib/coop8" "lib/coop_plain" "lib/floats" "lib/frame" "lib/group" "lib/halves" "lib/kv_f16" "lib/kv_f32" "lib/lanes" "lib/lanes_subgroup" "lib/mask"
    "lib/math" "lib/matmul" "lib/narrow" "lib/packed" "lib/panels" "lib/queries" "lib/queries_raw" "lib/rotary" "lib/rounded" "lib/run" "lib/run8" "lib/tile" "lib/turns"
    "ops/arg_max" "ops/attend" "ops/attend_merge" "ops/attend_tiled" "ops/elementwise" "ops/embed" "ops/expert_gemv" "ops/expert_sum" "ops/fold" "ops/gated"
    "ops/gemm" "ops/gemm_coop" "ops/gemm_f16" "ops/gemv" "ops/heads" "ops/kv_store" "ops/norm" "ops/probe" "ops/quantize" "ops/query_store" "ops/rope" "ops/select_pages" "ops/take_rows" "ops/top_k"
};

/// A parameter of a kernel and its value: the name of a module or a count.
pub(crate) type Parameter = (&'static str, String);

/// The text of module `name` with everything it imports.
///
/// # Panics
/// Where a module or a count is unknown; the tests compose every row of the registry.
pub(crate) fn compose(name: &str, parameters: &[Parameter]) -> String {
    let mut composer = Composer { parameters, seen: BTreeSet::new(), text: String::new() };
    composer.import(name);
    let (enables, rest): (Vec<&str>, Vec<&str>) =
        composer.text.split_inclusive('\n').partition(|line| line.starts_with("enable "));
    enables.concat() + &rest.concat()
}

struct Composer<'a> {
    parameters: &'a [Parameter],
    seen: BTreeSet<String>,
    text: String,
}

impl Composer<'_> {
    fn value<'b>(&'b self, name: &'b str) -> &'b str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or(name, |(_, value)| value)
    }

    fn import(&mut self, name: &str) {
        let name = self.value(name).to_owned();
        if !self.seen.insert(name.clone()) {
            return;
        }
        let source = MODULES.iter().find(|(known, _)| *known == name);
        let (_, source) = source.unwrap_or_else(|| panic!("no WGSL module is called {name:?}"));
        let lines: Vec<&str> = source.lines().collect();
        for line in &lines {
            if let Some(other) = line.strip_prefix("#import ") {
                self.import(other.trim());
            }
        }
        let rest: Vec<&str> = lines.into_iter().filter(|line| !line.starts_with("#import ")).collect();
        let mut text = self.unroll(&rest);
        for (parameter, value) in self.parameters.iter().filter(|(_, value)| value.parse::<u32>().is_ok()) {
            text = substitute(&text, parameter, &format!("{value}u"));
        }
        self.text.push_str(&text);
    }

    fn unroll(&self, lines: &[&str]) -> String {
        let (mut text, mut at) = (String::new(), 0);
        while at < lines.len() {
            let Some(header) = lines[at].strip_prefix("#unroll ") else {
                text.push_str(lines[at]);
                text.push('\n');
                at += 1;
                continue;
            };
            let mut depth = 1;
            let end = (at + 1..lines.len()).find(|&i| {
                depth += usize::from(lines[i].starts_with("#unroll "));
                depth -= usize::from(lines[i] == "#end");
                depth == 0
            });
            let end = end.expect("invariant: every #unroll has its #end");
            let (variable, count) = header.split_once(' ').expect("invariant: #unroll NAME COUNT");
            let count: u32 = self.value(count.trim()).parse().expect("invariant: a count is a number");
            let body = self.unroll(&lines[at + 1..end]);
            for i in 0..count {
                text.push_str(&substitute(&body, variable, &i.to_string()));
            }
            at = end + 1;
        }
        text
    }
}

/// `text` with `value` for every `word` that stands alone or between underscores. A number that stands alone becomes u32.
fn substitute(text: &str, word: &str, value: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let before = out.chars().last().filter(|_| at == 0).or(rest[..at].chars().last());
        let after = rest[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
        out.push_str(&rest[..at]);
        if joins(before) || joins(after) || before == Some('.') {
            out.push_str(word);
        } else {
            out.push_str(value);
            if before != Some('_') && value.bytes().all(|b| b.is_ascii_digit()) {
                out.push('u');
            }
        }
        rest = &rest[at + word.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_where_they_stand_alone_or_between_underscores() {
        assert_eq!(substitute("a_T = f(T, TT, aT) + T_T;", "T", "3"), "a_3 = f(3u, TT, aT) + 3u_3;");
        assert_eq!(substitute("x.T", "T", "3"), "x.T");
    }

    #[test]
    fn unrolled_loops_nest() {
        let composer =
            Composer { parameters: &[("N", "2".into())], seen: BTreeSet::new(), text: String::new() };
        let lines = ["#unroll A N", "#unroll B 2", "x_A_B", "#end", "#end"];
        assert_eq!(composer.unroll(&lines), "x_0_0\nx_0_1\nx_1_0\nx_1_1\n");
    }

    #[test]
    fn every_file_is_a_module() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("wgsl");
        let mut files = Vec::new();
        for folder in ["formats", "lib", "ops"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let stem = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
                files.push(format!("{folder}/{stem}"));
            }
        }
        files.sort();
        let names: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, files);
    }
}
