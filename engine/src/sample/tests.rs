//! Every rule against its definition written out naively, the draw against its distribution, and the stop
//! strings against every way to cut a text.

use super::*;

/// Random logits of about the spread of a language model's, some equal, some impossible.
fn random_logits(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n)
        .map(|_| match rng.uniform() {
            u if u < 0.05 => f32::NEG_INFINITY,
            u if u < 0.25 => 1.5,
            _ => (rng.uniform() * 16.0 - 8.0) as f32,
        })
        .collect()
}

/// (id, p) under softmax, likeliest first, equals by id.
fn ranked(logits: &[f32]) -> Vec<(u32, f64)> {
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let mut list: Vec<(u32, f64)> =
        logits.iter().zip(0..).map(|(&l, id)| (id, f64::from(l).exp() / sum)).collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    list
}

/// All filters off.
fn off() -> SampleParams {
    SampleParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SampleParams::default() }
}

/// The ids one rule leaves, ascending.
fn kept(rule: &Rule, params: &SampleParams, logits: &[f32]) -> Vec<u32> {
    let mut candidates = Candidates::with_capacity(logits.len());
    candidates.fill(logits);
    (rule.apply)(params, &mut History::new(0, false, logits.len()), &mut candidates);
    let mut ids = candidates.ids();
    ids.sort_unstable();
    ids
}

/// The shortest front of `list` whose p sum to `target`, ascending by id; and whether a sum is so near the target
/// that rounding decides (the two sides sum up to n terms in different orders, each rounding by half an ulp).
fn mass(list: &[(u32, f64)], target: f64) -> (Vec<u32>, bool) {
    let (mut sum, mut ids, mut near, mut done) = (0.0, Vec::new(), false, false);
    for &(id, p) in list {
        if !done {
            ids.push(id);
            sum += p;
            near |= (sum - target).abs() < 4.0 * list.len() as f64 * f64::EPSILON;
            done = sum >= target;
        }
    }
    ids.sort_unstable();
    (ids, near)
}

fn each_case(mut check: impl FnMut(&mut Rng, &[f32])) {
    let mut rng = Rng::from_seed(11);
    for case in 0..300 {
        let logits = random_logits(&mut rng, 1 + case * 3);
        if logits.iter().any(|l| l.is_finite()) {
            check(&mut rng, &logits);
        }
    }
}

#[test]
fn top_k_keeps_the_k_likeliest() {
    each_case(|rng, logits| {
        let k = 1 + (rng.uniform() * 1.2 * logits.len() as f64) as usize;
        let mut naive: Vec<u32> = ranked(logits).iter().take(k).map(|c| c.0).collect();
        naive.sort_unstable();
        assert_eq!(kept(&top_k::RULE, &SampleParams { top_k: k, ..off() }, logits), naive);
    });
}

#[test]
fn top_p_keeps_the_nucleus() {
    each_case(|rng, logits| {
        let top_p = rng.uniform() as f32;
        let (naive, near) = mass(&ranked(logits), f64::from(top_p));
        assert!(near || kept(&top_p::RULE, &SampleParams { top_p, ..off() }, logits) == naive);
    });
}

#[test]
fn min_p_keeps_the_near_likeliest() {
    each_case(|rng, logits| {
        let min_p = rng.uniform() as f32;
        let ranked = ranked(logits);
        let least = f64::from(min_p) * ranked[0].1;
        let mut naive: Vec<u32> = ranked.iter().filter(|c| c.1 >= least).map(|c| c.0).collect();
        naive.sort_unstable();
        let near = ranked.iter().any(|c| (c.1 / least - 1.0).abs() < 1e-14);
        assert!(near || kept(&min_p::RULE, &SampleParams { min_p, ..off() }, logits) == naive);
    });
}

#[test]
fn typical_keeps_the_least_surprising() {
    each_case(|rng, logits| {
        let typical_p = rng.uniform() as f32;
        let mut list = ranked(logits);
        let entropy: f64 = list.iter().filter(|c| c.1 > 0.0).map(|c| -c.1 * c.1.ln()).sum();
        let distance = |c: &(u32, f64)| (-c.1.ln() - entropy).abs();
        // Stable, so that equally likely tokens stay in the order of ids.
        list.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        let close = |w: &[(u32, f64)]| w[0].1 != w[1].1 && distance(&w[1]) - distance(&w[0]) < 1e-12;
        let (naive, near) = mass(&list, f64::from(typical_p));
        let near = near || list.windows(2).any(close);
        assert!(near || kept(&typical::RULE, &SampleParams { typical_p, ..off() }, logits) == naive);
    });
}

#[test]
fn penalties_follow_their_formula() {
    let logits = [2.0, -2.0, 0.5, 0.0, f32::NEG_INFINITY, 1.0];
    let params = SampleParams {
        repeat_penalty: 1.25,
        frequency_penalty: 0.5,
        presence_penalty: -0.25,
        repeat_last_n: 4,
        ..SampleParams::greedy()
    };
    let mut sampler = Sampler::new(params, logits.len()).expect("valid");
    // The window of 4 forgets the 5 and the first 0; 77 is no token and takes no place in it.
    for token in [5, 0, 0, 1, 77, 4, 0] {
        sampler.accept(token);
    }
    sampler.sample(&logits).expect("a token");
    let shaped: Vec<f32> = sampler.candidates.as_slice().iter().map(|c| c.logit).collect();
    let zero = 2.0 / 1.25 - 2.0 * 0.5 + 0.25;
    assert_eq!(shaped, [zero, -2.0 * 1.25 - 0.5 + 0.25, 0.5, 0.0, f32::NEG_INFINITY, 1.0]);
}

#[test]
fn penalty_windows() {
    let counts = |last_n| {
        let mut history = History::new(last_n, false, 3);
        (0..100).for_each(|i| history.push(i % 3));
        history.counts().to_vec()
    };
    assert!(counts(0).is_empty());
    assert_eq!(counts(1), [1, 0, 0]);
    assert_eq!(counts(5), [2, 1, 2]);
    assert_eq!(counts(-1), [34, 33, 33]);
    assert_eq!(counts(1000), [34, 33, 33]);
}

/// As [`History::copies`], from its definition.
fn naive_copies(text: &[u32], shortest: u32) -> Vec<(u32, u32)> {
    let mut longest = std::collections::BTreeMap::new();
    for i in 1..text.len() {
        let same = |&k: &usize| text[i - 1 - k] == text[text.len() - 1 - k];
        let n = (0..i).take_while(same).count() as u32;
        if n >= shortest {
            let entry = longest.entry(text[i]).or_insert(0);
            *entry = n.max(*entry);
        }
    }
    longest.into_iter().collect()
}

#[test]
fn copies_are_found_as_defined() {
    let mut rng = Rng::from_seed(11);
    for round in 0..400 {
        let vocab = 1 + round % 5;
        let text: Vec<u32> = (0..round / 4).map(|_| (rng.uniform() * vocab as f64) as u32).collect();
        let mut history = History::new(0, true, vocab);
        text.iter().for_each(|&token| history.push(token));
        for (last_n, shortest) in [(-1, 1), (-1, 3), (7, 1), (1000, 2), (0, 1)] {
            let n = usize::try_from(last_n).map_or(text.len(), |n| n.min(text.len()));
            let mut found = Vec::new();
            history.copies(last_n, shortest, |token, n| found.push((token, n)));
            found.sort_unstable();
            assert_eq!(
                found,
                naive_copies(&text[text.len() - n..], shortest),
                "{text:?} {last_n} {shortest}"
            );
        }
    }
}

#[test]
fn copies_cost_linear_time() {
    let mut history = History::new(0, true, 2);
    (0..1_000_000).for_each(|_| history.push(1));
    let begun = std::time::Instant::now();
    history.copies(-1, 2, |token, n| assert_eq!((token, n), (1, 999_999)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn dry_follows_its_formula_and_ends_loops() {
    let params =
        SampleParams { dry_multiplier: 0.5, dry_base: 2.0, dry_allowed_length: 2, ..SampleParams::greedy() };
    let mut sampler = Sampler::new(params.clone(), 5).expect("valid");
    assert!(!sampler.takes_the_likeliest());
    // Behind 1 2 3 stood 4, behind 2 3 also 0; behind 3 alone, 1.
    for token in [1, 2, 3, 4, 2, 3, 0, 3, 1, 2, 3] {
        sampler.accept(token);
    }
    let logits = [1.0, 1.0, f32::NEG_INFINITY, 1.0, 1.0];
    sampler.sample(&logits).expect("a token");
    let shaped: Vec<f32> = sampler.candidates.as_slice().iter().map(|c| c.logit).collect();
    assert_eq!(shaped, [1.0 - 0.5, 1.0, f32::NEG_INFINITY, 1.0, 1.0 - 0.5 * 2.0]);

    // A model that always wants the next of 0 1 2, however much it wants it, gets out of that loop; bans stay bans.
    let mut sampler = Sampler::new(params, 5).expect("valid");
    let mut last = 0;
    let mut written = vec![];
    for _ in 0..200 {
        let mut logits = [0.0, 0.0, 0.0, -1.0, f32::NEG_INFINITY];
        logits[(last as usize + 1) % 3] = 50.0;
        last = sampler.sample(&logits).expect("a token").id;
        sampler.accept(last);
        written.push(last);
    }
    assert!(written.contains(&3) && !written.contains(&4), "{written:?}");
}

#[test]
fn bias_moves_and_bans() {
    let with =
        |logit_bias| Sampler::new(SampleParams { logit_bias, ..SampleParams::greedy() }, 3).expect("valid");
    let logits = [1.0, 3.0, 2.0];
    assert_eq!(with(vec![]).sample(&logits).map(|s| s.id), Ok(1));
    assert_eq!(with(vec![(0, 2.5)]).sample(&logits).map(|s| s.id), Ok(0));
    let banned = with(vec![(1, f32::NEG_INFINITY)]).sample(&logits).expect("others are left");
    assert_eq!(banned.id, 2);
    let all = (0..3).map(|id| (id, f32::NEG_INFINITY)).collect();
    assert_eq!(with(all).sample(&logits), Err(SampleError::NothingLeft));
    assert_eq!(with(vec![(0, f32::MAX)]).sample(&[f32::MAX, 0.0, 0.0]).map(|s| s.id), Ok(0));
}

#[test]
fn ties_break_to_the_lowest_id() {
    let mut greedy = Sampler::new(SampleParams::greedy(), 5).expect("valid");
    assert_eq!(greedy.sample(&[0.0, 4.0, 1.0, 4.0, 4.0]).map(|s| s.id), Ok(1));
    assert_eq!(greedy.sample(&[-0.0, 0.0, 0.0, -1.0, -1.0]).map(|s| s.id), Ok(0));
    assert_eq!(kept(&top_k::RULE, &SampleParams { top_k: 2, ..off() }, &[0.0, 4.0, 1.0, 4.0, 4.0]), [1, 3]);
    assert_eq!(kept(&top_p::RULE, &SampleParams { top_p: 0.0, ..off() }, &[1.0, 4.0, 4.0]), [1]);
}

/// Pearson's statistic of `n` draws against the distribution they should follow.
fn chi_square(params: SampleParams, logits: &[f32], expected: &[f64]) -> f64 {
    let n = 100_000;
    let mut sampler = Sampler::new(params, logits.len()).expect("valid");
    let mut counts = vec![0u32; logits.len()];
    for _ in 0..n {
        counts[sampler.sample(logits).expect("a token").id as usize] += 1;
    }
    counts
        .iter()
        .zip(expected)
        .map(|(&count, &p)| {
            if p == 0.0 {
                assert_eq!(count, 0, "a token that was filtered out");
                return 0.0;
            }
            (f64::from(count) - n as f64 * p).powi(2) / (n as f64 * p)
        })
        .sum()
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [1.0, 0.0, -1.0, 2.0, f32::NEG_INFINITY, 0.5];
    let softmax = |keep: &[usize], temperature: f64| {
        let weight =
            |i: usize| if keep.contains(&i) { (f64::from(logits[i]) / temperature).exp() } else { 0.0 };
        let sum: f64 = (0..6).map(weight).sum();
        (0..6).map(|i| weight(i) / sum).collect::<Vec<f64>>()
    };
    // 99.99% quantiles of chi-square: 23.51 for 4 degrees of freedom, 18.42 for 2, 15.14 for 1.
    let all = [0, 1, 2, 3, 5];
    for seed in [1, 2, 3] {
        let params = SampleParams { seed, ..off() };
        assert!(chi_square(params.clone(), &logits, &softmax(&all, 1.0)) < 23.51);
        let hot = SampleParams { temperature: 2.5, ..params.clone() };
        assert!(chi_square(hot, &logits, &softmax(&all, 2.5)) < 23.51);
        let cold = SampleParams { temperature: 0.5, top_k: 3, ..params.clone() };
        assert!(chi_square(cold, &logits, &softmax(&[3, 0, 5], 0.5)) < 18.42);
        // The filters see the model's probabilities, whatever the temperature: p(3) + p(0) is 0.72.
        let nucleus = SampleParams { temperature: 3.0, top_p: 0.7, ..params };
        assert!(chi_square(nucleus, &logits, &softmax(&[3, 0], 3.0)) < 15.14);
    }
}

#[test]
fn a_wrong_distribution_is_noticed() {
    let expected = [0.52, 0.48];
    assert!(chi_square(off(), &[0.0, 0.0], &expected) > 15.14);
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let run = |seed| {
        let mut rng = Rng::from_seed(99);
        let mut sampler = Sampler::new(SampleParams { seed, ..SampleParams::default() }, 500).expect("valid");
        (0..50)
            .map(|_| sampler.sample(&random_logits(&mut rng, 500)).expect("a token").id)
            .collect::<Vec<u32>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_is_reallocated() {
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
    let params =
        SampleParams { top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.1, ..SampleParams::default() };
    let mut sampler = Sampler::new(params, logits.len()).expect("valid");
    let before = sampler.candidates.as_slice().as_ptr();
    for _ in 0..100 {
        let id = sampler.sample(&logits).expect("a token").id;
        sampler.accept(id);
    }
    assert_eq!(sampler.candidates.as_slice().as_ptr(), before);
}

#[test]
fn logprobs_are_those_of_the_raw_softmax() {
    each_case(|_, logits| {
        let ranked = ranked(logits);
        let top = top_logprobs(logits, 5).expect("logits");
        assert_eq!(top.len(), logits.len().min(5));
        for (&(id, lp), &(naive_id, p)) in top.iter().zip(&ranked) {
            assert_eq!(id, naive_id);
            // |logit| <= 8 and sums of n terms: each side is exact to (n + 16) ulp.
            assert!(lp == p.ln() || (lp - p.ln()).abs() < (logits.len() + 16) as f64 * f64::EPSILON * 16.0);
            assert_eq!(logprob(logits, id), Ok(lp));
        }
    });
    assert_eq!(top_logprobs(&[1.0], 0), Ok(vec![]));
    assert_eq!(log_sum_exp(&[1000.0, 1000.0]), Ok(1000.0 + std::f64::consts::LN_2), "no overflow");
    assert_eq!(logprob(&[0.0], 1), Err(SampleError::UnknownToken { token: 1, vocab_len: 1 }));
}

#[test]
fn broken_logits_are_errors_that_name_the_token() {
    let mut sampler = Sampler::new(SampleParams::default(), 3).expect("valid");
    for bad in [f32::NAN, f32::INFINITY] {
        let error = sampler.sample(&[0.0, 1.0, bad]).expect_err("no logit");
        assert!(
            matches!(error, SampleError::NotALogit { token: 2, .. }) && error.to_string().contains("token 2")
        );
    }
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3]), Err(SampleError::NothingLeft));
    assert_eq!(sampler.sample(&[0.0; 2]), Err(SampleError::Length { vocab_len: 3, got: 2 }));
    assert_eq!(Sampler::new(off(), 0).expect("valid").sample(&[]), Err(SampleError::NothingLeft));
    assert!(sampler.sample(&[0.0; 3]).is_ok(), "an error leaves the sampler usable");
}

#[test]
fn parameters_out_of_range_are_named() {
    let check = |name: &str, params: SampleParams| {
        let error = Sampler::new(params, 10).expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    };
    check("temperature", SampleParams { temperature: f32::NAN, ..off() });
    check("temperature", SampleParams { temperature: f32::INFINITY, ..off() });
    check("top_p", SampleParams { top_p: 1.01, ..off() });
    check("min_p", SampleParams { min_p: -0.1, ..off() });
    check("typical_p", SampleParams { typical_p: f32::NAN, ..off() });
    check("repeat_penalty", SampleParams { repeat_penalty: 0.0, ..off() });
    check("repeat_last_n", SampleParams { repeat_last_n: -2, ..off() });
    check("frequency_penalty", SampleParams { frequency_penalty: f32::INFINITY, ..off() });
    check("presence_penalty", SampleParams { presence_penalty: f32::NAN, ..off() });
    check("dry_multiplier", SampleParams { dry_multiplier: -0.1, ..off() });
    check("dry_base", SampleParams { dry_base: 0.9, ..off() });
    check("dry_penalty_last_n", SampleParams { dry_penalty_last_n: -2, ..off() });
    check("token 10", SampleParams { logit_bias: vec![(10, 0.0)], ..off() });
    check("logit bias of token 3", SampleParams { logit_bias: vec![(3, f32::INFINITY)], ..off() });
    assert!(Sampler::new(SampleParams { temperature: -1.0, ..off() }, 10).is_ok());
}

#[test]
fn rules_run_only_when_they_have_an_effect() {
    let names = |params| Sampler::new(params, 10).expect("valid").active_rules().collect::<Vec<_>>();
    assert_eq!(names(SampleParams::default()), ["top_k", "top_p", "min_p"]);
    assert_eq!(names(off()), [""; 0]);
    assert_eq!(names(SampleParams { repeat_penalty: 1.1, ..SampleParams::greedy() }), ["penalties"]);
    let shaping = CHAIN.iter().take_while(|rule| rule.shapes_logits).count();
    assert!(CHAIN[shaping..].iter().all(|rule| !rule.shapes_logits), "they index the candidates by id");
}

/// Feeds the pieces; the text shown and the stop found.
fn stream(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
    let mut matcher = StopStrings::new(stops.iter().map(|s| (*s).to_owned()).collect()).expect("none empty");
    let (mut shown, mut stop) = (String::new(), None);
    for piece in pieces {
        let streamed = matcher.push(piece);
        shown += &streamed.text;
        stop = streamed.stop;
    }
    (shown + &matcher.finish(), stop)
}

#[test]
fn stop_strings_do_not_depend_on_the_cuts() {
    for (stops, text, shown, stop) in [
        (["\n\n"].as_slice(), "a\nb\n\nc", "a\nb", Some(0)),
        (&["</s>", "<|end|>"], "x < y <|e</s>", "x < y <|e", Some(0)),
        (&["abcd", "bc"], "xabcd", "xa", Some(1)),
        (&["bc", "abc"], "xabc", "x", Some(1)),
        (&["aab"], "aaaab", "aa", Some(0)),
        (&["ab", "ab"], "zab", "z", Some(0)),
        (&["🦀é"], "a🦀🦀é!", "a🦀", Some(0)),
        (&["stop"], "sto", "sto", None),
        (&["🦀🦀"], "é🦀", "é🦀", None),
        (&[], "anything", "anything", None),
        (&["a"], "", "", None),
    ] {
        let cuts: Vec<usize> = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).collect();
        for &i in &cuts {
            for &j in cuts.iter().filter(|&&j| j >= i) {
                let pieces = [&text[..i], &text[i..j], &text[j..]];
                assert_eq!(stream(stops, &pieces), (shown.to_owned(), stop), "{stops:?} in {pieces:?}");
            }
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(stream(stops, &single), (shown.to_owned(), stop));
    }
}

#[test]
fn stop_strings_hold_back_no_more_than_they_must() {
    let mut matcher = StopStrings::new(vec!["abc".to_owned()]).expect("not empty");
    assert_eq!(matcher.push("xab").text, "x");
    assert_eq!(matcher.push("d").text, "abd");
    assert_eq!(matcher.push("abc!"), Streamed { text: String::new(), stop: Some(0) });
    assert_eq!(matcher.push("more"), Streamed { text: String::new(), stop: Some(0) });
    assert_eq!(matcher.finish(), "");
    assert_eq!(
        StopStrings::new(vec!["a".into(), String::new()]).err(),
        Some(SampleError::EmptyStop { index: 1 })
    );
}

#[test]
fn random_text_is_never_lost() {
    let mut rng = Rng::from_seed(5);
    for _ in 0..2000 {
        let mut word =
            |n: usize| (0..n).map(|_| if rng.uniform() < 0.5 { 'a' } else { 'é' }).collect::<String>();
        let (stops, text) = ([word(2), word(3), word(5)], word(12));
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let single: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<&str> = single.iter().map(String::as_str).collect();
        let (shown, stop) = stream(&stops, &pieces);
        assert_eq!((shown.clone(), stop), stream(&stops, &[&text]));
        match stop {
            None => assert!(shown == text && stops.iter().all(|stop| !text.contains(stop))),
            Some(index) => assert!(text[shown.len()..].starts_with(stops[index]) && text.starts_with(&shown)),
        }
    }
}

#[test]
fn stop_tokens() {
    let stops = StopTokens::new([9, 2, 9]);
    assert!(stops.contains(2) && stops.contains(9) && !stops.contains(3));
    assert!(!StopTokens::default().contains(0));
}
