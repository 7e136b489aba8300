//! The oracle against results worked out on paper, for what no golden model exercises.

use cchaha_plan::{Activation, MaskRule, Op, PAGE_CELLS, Routing, Rows, SelectionId, Shape};

use crate::model::{Model, Scene};
use crate::subjects::oracle;

fn close(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs().max(1.0), "{got} instead of {want}");
    }
}

/// One head of one value; keys are ln 1, ln 2, ln 3 against a query of 1, values 10, 20, 30.
fn attend(softcap: Option<f32>, sink: Option<f32>, mask: MaskRule) -> Vec<f32> {
    let mut model = Model::new(3);
    let q = model.input(1, &[1.0, 1.0, 1.0]);
    let k = model.input(1, &[0.0, 2f32.ln(), 3f32.ln()]);
    let v = model.input(1, &[10.0, 20.0, 30.0]);
    let (slot, mask) = (model.slot(1, 1), model.mask(mask));
    let sink_scores = sink.map(|sink| model.vector(&[sink]));
    let out = model.tokens(1);
    model.step(Op::KvStore { slot, k, v });
    model.step(Op::Attend {
        q,
        slot,
        n_heads: 1,
        scale: 1.0,
        softcap,
        mask,
        selection: None,
        sink_scores,
        out,
    });
    let plan = model.finish(out);
    let scene = Scene::line(3, 3);
    scene.on(&oracle(), &plan, &[3]).into_iter().step_by(3).collect()
}

#[test]
fn attention() {
    let two = (10.0 + 2.0 * 20.0) / 3.0;
    close(&attend(None, None, MaskRule::CAUSAL), &[10.0, two, (10.0 + 40.0 + 90.0) / 6.0]);
    close(&attend(None, None, MaskRule::sliding(1)), &[10.0, 20.0, 30.0]);
    let sinks = MaskRule { sinks: 1, ..MaskRule::sliding(1) };
    close(&attend(None, None, sinks), &[10.0, two, (10.0 + 90.0) / 4.0]);
    close(&attend(None, None, MaskRule::sliding(0)), &[0.0, 0.0, 0.0]);
    // A sink's score of ln 6 doubles the last denominator.
    close(&attend(None, Some(6f32.ln()), MaskRule::CAUSAL), &[10.0 / 7.0, 50.0 / 9.0, 140.0 / 12.0]);
    // 0.5 tanh(ln 2 / 0.5) = 0.5 (16 - 1) / (16 + 1)
    let e = (0.5f64 * 15.0 / 17.0).exp();
    close(&attend(Some(0.5), None, MaskRule::CAUSAL)[1..2], &[(10.0 + e * 20.0) / (1.0 + e)]);
}

/// Four pages of one sequence, one KV head of two values, two query heads; the last token chooses.
#[test]
fn select_pages() {
    let n = 4 * PAGE_CELLS;
    let mut model = Model::new(n);
    // The first head asks for d = 0 going down, the second for d = 1 going up.
    let q = model.input(4, &[-1.0, 0.0, 0.0, 1.0].repeat(n));
    // Page 0 reaches 3 downwards in d = 0, page 1 reaches 5 upwards in d = 0 (nobody asks) and 2 in d = 1, page 2 reaches 3 in d = 1.
    let mut k = vec![0.0; 2 * n];
    k[2 * 7] = -3.0;
    k[2 * 20] = 5.0;
    k[2 * 21 + 1] = 2.0;
    k[2 * 40 + 1] = 3.0;
    let k = model.input(2, &k);
    let page_of = |cell: usize| (cell / PAGE_CELLS) as f32;
    let v = model.input(2, &(0..n).flat_map(|cell| [2f32.powf(page_of(cell)), 0.0]).collect::<Vec<f32>>());
    // A query of zeros weighs all visible cells alike: which pages they are of shows in the mean.
    let blank = model.input(4, &vec![0.0; 4 * n]);
    let (slot, mask) = (model.slot(1, 2), model.mask(MaskRule::sliding(PAGE_CELLS as u32)));
    model.0.selections = 1;
    let out = model.tokens(4);
    model.step(Op::KvStore { slot, k, v });
    let at = model.0.steps.len();
    let attend = Op::Attend {
        q: blank,
        slot,
        n_heads: 2,
        scale: 1.0,
        softcap: None,
        mask,
        selection: Some(SelectionId(0)),
        sink_scores: None,
        out,
    };
    model.step(attend.clone());
    // The bounds are 3, 2 and 3; the tie goes to the earlier page.
    for (pages, mean) in
        [(0, 8.0), (1, (8.0 + 1.0) / 2.0), (2, (8.0 + 1.0 + 4.0) / 3.0), (3, 15.0 / 4.0), (9, 15.0 / 4.0)]
    {
        let mut model = Model(model.0.clone());
        model.0.steps.truncate(at);
        model.step(Op::SelectPages { q, slot, n_heads: 2, mask, pages, out: SelectionId(0) });
        model.step(attend.clone());
        let plan = model.finish(out);
        let got = Scene::line(n, n).on(&oracle(), &plan, &[n]);
        close(&got[(n - 1) * n..][..4], &[mean, 0.0, mean, 0.0]);
    }
}

/// Experts that multiply by 1, 2 and 3; silu(1) of a gate of ones.
#[test]
fn experts() {
    let silu = 1.0 / (1.0 + (-1f64).exp());
    for (routing, top_k, want) in [
        // Scores ln 1, ln 4, ln 3: of 8/8 the shares are 1, 4, 3.
        (Routing::SoftmaxThenTopKRenormalized, 2, (4.0 * 2.0 + 3.0 * 3.0) / 7.0),
        (Routing::TopKThenSoftmax, 2, (4.0 * 2.0 + 3.0 * 3.0) / 7.0),
        (Routing::TopKThenSoftmax, 1, 2.0),
        (Routing::SoftmaxThenTopKRenormalized, 3, (1.0 + 8.0 + 9.0) / 8.0),
    ] {
        let mut model = Model::new(3);
        let x = model.input(1, &[1.0]);
        let router = model.input(3, &[0.0, 4f32.ln(), 3f32.ln()]);
        let shape = Shape { cols: 1, rows: 1, experts: 3 };
        let [gate, up, down] =
            [[1.0; 3], [1.0, 2.0, 3.0], [1.0; 3]].map(|values| model.floats(shape, &values));
        let out = model.tokens(1);
        let activation = Activation::Silu;
        model.step(Op::Experts { router, routing, top_k, gate, up, down, activation, x, out });
        let plan = model.finish(out);
        close(&Scene::line(1, 3).on(&oracle(), &plan, &[1]), &[want * silu, 0.0, 0.0]);
    }
}

#[test]
fn top_k_and_softcap() {
    let mut model = Model::new(5);
    let x = model.input(5, &[1.0, 3.0, -2.0, 3.0, 0.0]);
    let (values, indices) = (model.buffer(3, Rows::Tokens), model.buffer(3, Rows::Tokens));
    model.step(Op::TopK { x, k: 3, values, indices });
    model.step(Op::Softcap { cap: 2.0, x: values });
    let plan = Model(model.0.clone()).finish(indices);
    close(&Scene::line(1, 5).on(&oracle(), &plan, &[1]), &[1.0, 3.0, 0.0, 0.0, 0.0]);
    let plan = model.finish(values);
    let cap = |x: f64| 2.0 * (x / 2.0).tanh();
    close(&Scene::line(1, 5).on(&oracle(), &plan, &[1]), &[cap(3.0), cap(3.0), cap(1.0), 0.0, 0.0]);
}
