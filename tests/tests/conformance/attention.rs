//! KvStore, QueryStore, SelectPages and Attend.

use cchaha_plan::{BufferId, MaskRule, Op, PAGE_CELLS, Plan, SelectionId};
use std::sync::Arc;

use crate::bound::{TINY, U, U16, compare};
use crate::model::{Fold, Model, Scene};
use crate::random::Random;
use crate::subjects::{Ratios, fewer_cases, oracle, subjects, whole_backends};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ordinary,
    /// Exact in f16, so that a KV cache of half floats loses nothing.
    Grid,
    /// Exact in f16; scores of many hundreds, zero rows and equal keys.
    Hostile,
}

#[derive(Clone, Debug)]
struct Case {
    n_kv_heads: usize,
    group: usize,
    head_dim: usize,
    mask: MaskRule,
    pages: Option<usize>,
    folds: bool,
    softcap: Option<f32>,
    sinks: bool,
    kind: Kind,
}

impl Case {
    fn plain(n_kv_heads: usize, group: usize, head_dim: usize) -> Case {
        Case {
            n_kv_heads,
            group,
            head_dim,
            mask: MaskRule::CAUSAL,
            pages: None,
            folds: false,
            softcap: None,
            sinks: false,
            kind: Kind::Grid,
        }
    }

    fn n_heads(&self) -> usize {
        self.n_kv_heads * self.group
    }

    fn width(&self) -> usize {
        self.n_heads() * self.head_dim
    }
}

/// Rows of queries, keys and values.
const DISTINCT: usize = 64;

struct Built {
    plan: Arc<Plan>,
    /// Tolerance of value `i` of token `id` with a cache of half floats or of f32.
    error: Box<dyn Fn(usize, usize, bool) -> f64>,
}

fn values(random: &mut Random, kind: Kind, n: usize, width: usize, large: f32) -> Vec<f32> {
    (0..n)
        .flat_map(|row| match (kind, row % 6) {
            (Kind::Ordinary, _) => random.vec(width, Random::uniform),
            (Kind::Hostile, 0) => vec![0.0; width],
            (Kind::Hostile, 1 | 2) => vec![0.5; width],
            (Kind::Hostile, 3) => random.vec(width, |random| random.grid() * large),
            _ => random.vec(width, Random::grid),
        })
        .collect()
}

/// A plan whose token `id` brings row `id` of random queries, keys and values. Rows repeat after `distinct`.
fn build(case: &Case, distinct: usize, cells: usize, random: &mut Random) -> Built {
    let (kv_width, width) = (case.n_kv_heads * case.head_dim, case.width());
    let vocab = width.max(distinct);
    let q = values(random, case.kind, distinct, width, 64.0);
    let k = values(random, case.kind, distinct, kv_width, 64.0);
    let v = values(random, case.kind, distinct, kv_width, 1024.0);
    let sinks = case.sinks.then(|| random.vec(case.n_heads(), |random| random.uniform() * 4.0));
    let scale = 1.0 / (case.head_dim as f32).sqrt();

    let mut model = Model::new(vocab);
    let [q_in, k_in, v_in] =
        [(width, &q), (kv_width, &k), (kv_width, &v)].map(|(width, x)| model.input(width, x));
    let slot = model.slot(case.n_kv_heads, case.head_dim);
    let mask = model.mask(case.mask);
    model.step(Op::KvStore { slot, k: k_in, v: v_in });
    let n_heads = case.n_heads();
    let selection = case.pages.map(|pages| {
        model.0.selections = 1;
        model.step(Op::SelectPages { q: q_in, slot, n_heads, mask, pages, out: SelectionId(0) });
        SelectionId(0)
    });
    if case.folds {
        model.step(Op::QueryStore { q: q_in, slot, n_heads, scale });
    }
    let sink_scores = sinks.as_ref().map(|sinks| model.vector(sinks));
    let out: BufferId = model.tokens(width);
    let softcap = case.softcap;
    model.step(Op::Attend { q: q_in, slot, n_heads, scale, softcap, mask, selection, sink_scores, out });

    // For every KV head the largest |k_d| and |v_d| of any cell.
    let largest = |x: &[f32]| -> Vec<f64> {
        (0..kv_width)
            .map(|d| x.iter().skip(d).step_by(kv_width).fold(0.0, |m: f64, x| m.max(f64::from(x.abs()))))
            .collect()
    };
    let (k_max, v_max, case) = (largest(&k), largest(&v), case.clone());
    let error = move |id: usize, i: usize, half_kv: bool| {
        let (h, d) = (i / case.head_dim, i % case.head_dim);
        let g = h / case.group;
        let q = &q[id % distinct * width + h * case.head_dim..][..case.head_dim];
        let k = &k_max[g * case.head_dim..][..case.head_dim];
        let terms: f64 = q.iter().zip(k).map(|(q, k)| f64::from(q.abs()) * k).sum::<f64>() * f64::from(scale);
        let (half, half_tiny) =
            if half_kv && case.kind == Kind::Ordinary { (U16, U16 * 2f64.powi(-14)) } else { (0.0, 0.0) };
        // A score: keys rounded to f16; a sum of head_dim products, scale, the greatest subtracted, the cap.
        let of_score = terms * (half + (case.head_dim as f64 + 8.0) * U)
            + half_tiny * q.iter().map(|q| f64::from(q.abs())).sum::<f64>() * f64::from(scale)
            + case.softcap.map_or(0.0, |cap| 10.0 * U * f64::from(cap));
        // Scores off by d each move the softmax by at most e^2d - 1; then values in f16, exp, and sums over cells
        // that may be rescaled once per cell.
        let v = v_max[g * case.head_dim + d];
        v * ((2.0 * of_score).exp_m1() + half + (3.0 * cells as f64 + 16.0) * U) + half_tiny + TINY
    };
    Built { plan: model.finish(out), error: Box::new(error) }
}

/// Several ways in which sequences lie in the cache.
fn scenes(vocab: usize, random: &mut Random) -> Vec<(&'static str, Scene)> {
    let mut scenes = vec![
        ("one token", Scene::line(1, vocab)),
        ("one page and a bit", Scene::line(17, vocab)),
        ("a long line", Scene::line(75, vocab)),
        ("three interleaved, pages backwards", Scene::interleaved(&[20, 33, 7], vocab, |page| 5 - page)),
        ("many short ones", Scene::interleaved(&[3, 1, 2, 5, 4, 1, 6], vocab, |page| (page * 3) % 7)),
    ];
    // A second and a third sequence go on from the first one's full pages; the first goes on as well.
    let mut shared = Scene::interleaved(&[36], vocab, |page| 6 - page);
    shared.pages = 8;
    let prefix = shared.sequences[0][..2].to_vec();
    for own in [0, 3] {
        let mut pages = prefix.clone();
        pages.push(own);
        shared.sequences.push(pages);
    }
    for pos in 32..44 {
        for sequence in 0..3 {
            if sequence > 0 || (36..44).contains(&pos) {
                let token = random.below(vocab) as u32;
                shared.push(sequence, pos, token);
            }
        }
    }
    scenes.push(("a shared prefix", shared));
    // Cells dropped in the middle and at the end of what there was, a page dropped whole, then more tokens.
    let mut holes = Scene::line(90, vocab);
    for cell in (5..9).chain(16..32).chain([40, 47, 48]) {
        holes.forget.push((70, cell));
    }
    scenes.push(("holes", holes));
    // Cells that are emptied and written again, with other keys at the same places, before more tokens come.
    let mut again = Scene::line(60, vocab);
    again.pages += 1;
    again.sequences[0].push(4);
    for pos in (3..12).chain(20..24).chain(60..70) {
        if pos < 60 {
            again.forget.push((60, pos as u32));
        }
        again.push(0, pos, random.below(vocab) as u32);
    }
    scenes.push(("cells written again", again));
    // Pages a sequence owns but has not written yet.
    let mut ahead = Scene::line(21, vocab);
    ahead.pages += 3;
    ahead.sequences[0].extend([4, 3]);
    scenes.push(("pages ahead", ahead));
    for (_, scene) in &mut scenes {
        scene.pinned =
            (0..scene.pages * PAGE_CELLS).filter(|_| random.below(5) == 0).map(|cell| cell as u32).collect();
    }
    scenes
}

fn check(op: &str, ratios: &mut Ratios, case: &Case, random: &mut Random, only: Option<usize>) {
    let built = build(case, DISTINCT, 96, random);
    let vocab = built.plan.vocab;
    for (number, (name, scene)) in scenes(vocab, random).into_iter().enumerate() {
        if only.is_none_or(|only| only == number) {
            check_scene((op, name), ratios, (case, &built), &scene, random, only.is_some());
        }
    }
}

/// One scene, on every subject or on one in so many.
fn check_scene(
    (op, name): (&str, &str),
    ratios: &mut Ratios,
    (case, built): (&Case, &Built),
    scene: &Scene,
    random: &mut Random,
    every: bool,
) {
    let vocab = built.plan.vocab;
    let want = scene.on(&oracle(), &built.plan, &scene.whole());
    for subject in subjects(op) {
        if !every && random.below(subject.one_in) > 0 {
            continue;
        }
        let got = scene.on(&*subject.backend, &built.plan, &scene.whole());
        let what = format!("{name}, {case:?} on {}", subject.name);
        let error = |i: usize| match i % vocab {
            d if d < case.width() => (built.error)(scene.tokens[i / vocab] as usize, d, subject.half_kv),
            _ => 0.0,
        };
        ratios.note(&subject, compare(&what, &got, &want, error));
    }
}

#[test]
fn head_sizes_and_groups() {
    let (mut random, mut ratios) = (Random(41), Ratios::new("Attend"));
    for (n_kv_heads, group, head_dim) in [
        (1, 1, 8),
        (2, 2, 8),
        (1, 3, 16),
        (3, 1, 24),
        (2, 4, 40),
        (1, 7, 64),
        (2, 6, 64),
        (1, 5, 72),
        (1, 2, 80),
        (1, 8, 96),
        (2, 1, 128),
        (1, 2, 256),
    ] {
        for kind in [Kind::Grid, Kind::Ordinary] {
            let case = Case { kind, ..Case::plain(n_kv_heads, group, head_dim) };
            let scene = 1 + random.below(8);
            check("Attend", &mut ratios, &case, &mut random, Some(scene));
            check("KvStore", &mut ratios, &case, &mut random, Some(scene));
        }
    }
}

#[test]
fn masks() {
    let (mut random, mut ratios) = (Random(42), Ratios::new("Attend"));
    for window in [None, Some(1), Some(2), Some(16), Some(29)] {
        for (sinks, pins) in [(0, false), (3, false), (0, true), (20, true)] {
            let case = Case { mask: MaskRule { window, sinks, pins }, ..Case::plain(2, 2, 16) };
            check("Attend", &mut ratios, &case, &mut random, None);
        }
    }
}

#[test]
fn caps_sinks_and_hostile_scores() {
    let (mut random, mut ratios) = (Random(43), Ratios::new("Attend"));
    for softcap in [None, Some(50.0), Some(1.5)] {
        for sinks in [false, true] {
            for kind in [Kind::Grid, Kind::Ordinary, Kind::Hostile] {
                let case = Case { softcap, sinks, kind, ..Case::plain(1, 3, 32) };
                check("Attend", &mut ratios, &case, &mut random, None);
            }
        }
    }
}

/// On the grid all bounds are exact in f32, so that every kernel must choose the same pages, ties included. A wrong page
/// moves the result by far more than the tolerance.
#[test]
fn selected_pages() {
    let (mut random, mut ratios) = (Random(44), Ratios::new("SelectPages"));
    for (n_kv_heads, group, head_dim) in [(1, 1, 8), (2, 3, 16), (3, 2, 24), (1, 4, 64)] {
        for pages in [1, 2, 3, 100] {
            for (window, sinks, pins) in [(16, 0, false), (20, 2, false), (33, 0, true)] {
                for kind in [Kind::Grid, Kind::Hostile] {
                    let mask = MaskRule { window: Some(window), sinks, pins };
                    let case =
                        Case { mask, pages: Some(pages), kind, ..Case::plain(n_kv_heads, group, head_dim) };
                    check("SelectPages", &mut ratios, &case, &mut random, None);
                }
            }
        }
    }
}

#[test]
fn a_selection_without_a_window_changes_nothing() {
    let (mut random, mut ratios) = (Random(45), Ratios::new("SelectPages"));
    let case = Case { pages: Some(2), ..Case::plain(2, 2, 16) };
    check("SelectPages", &mut ratios, &case, &mut random, None);
}

/// Sequences longer than what a thread attends to at a time: right, and the same bits for many tokens at once, for few, and on any number
/// of threads.
#[test]
fn long_sequences() {
    let mut random = Random(47);
    let far = MaskRule { sinks: 4, ..MaskRule::sliding(1300) };
    let near = MaskRule { sinks: 4, ..MaskRule::sliding(64) };
    let cases = [(near, Some(70), 3), (MaskRule::CAUSAL, None, 3), (far, None, 2)];
    for (mask, pages, group) in cases.into_iter().step_by(fewer_cases()) {
        let op = if pages.is_some() { "SelectPages" } else { "Attend" };
        let mut ratios = Ratios::new(op);
        let case = Case { mask, pages, ..Case::plain(2, group, 16) };
        let built = build(&case, DISTINCT, 2100, &mut random);
        let scene = Scene::interleaved(&[2100, 40], built.plan.vocab, |page| (page * 7 + 3) % 135);
        check_scene((op, "long"), &mut ratios, (&case, &built), &scene, &mut random, true);
        // Backwards, so that of fewer some are of each kind.
        for row in whole_backends().into_iter().rev().step_by(fewer_cases().min(3)) {
            let want = scene.on(&*(row.make)(1), &built.plan, &scene.whole());
            for (threads, parts) in
                [(1, vec![scene.len() - 12, 1, 8, 3]), (3, vec![scene.len() - 12, 8, 3, 1])]
            {
                let got = scene.on(&*(row.make)(threads), &built.plan, &parts);
                let same = got.iter().zip(&want).all(|(got, want)| got.to_bits() == want.to_bits());
                assert!(same, "{}, {threads} threads, batches of {parts:?}, {case:?}", row.name);
            }
        }
    }
}

/// What is kept moves the result of every later token; a wrong cell by far more than the tolerance.
#[test]
fn folded_cells() {
    let (mut random, mut ratios) = (Random(46), Ratios::new("QueryStore"));
    for (n_kv_heads, group, head_dim) in [(1, 1, 8), (2, 3, 16), (3, 2, 24), (1, 4, 64), (1, 2, 96)] {
        for (old, sinks, keep) in [(3, 4, 16), (4, 0, 32), (5, 4, 64)] {
            let case = Case { folds: true, ..Case::plain(n_kv_heads, group, head_dim) };
            let built = build(&case, DISTINCT, 112, &mut random);
            let mut scene = Scene::interleaved(&[107], built.plan.vocab, |page| 6 - page);
            scene.fold = Some(Fold { when: 96, old, sinks, keep });
            check_scene(
                ("QueryStore", "folded"),
                &mut ratios,
                (&case, &built),
                &scene,
                &mut random,
                old == 5,
            );
        }
    }
}
