//! Sessions: what is reused, cut, forked, batched or computed by more threads gives the same logits bit for bit.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cchaha::plan::{Backend, Limits, PAGE_CELLS};
use cchaha::sample::SampleParams;
use cchaha::text::Special;
use cchaha::{
    Device, ErrorKind, FinishReason, GenerateRequest, Job, Listener, Model, Progress, Request, Scheduler,
    ScoreRequest, SequenceId, Session, SessionOptions, Wanted, generate, generate_all, heal, score,
};
use cchaha_kernels::{Cpu, CpuOptions, Oracle};

/// Full attention with grouped heads, five local layers to one global, a window on every layer; the windows (12)
/// are shorter than a page, so that they reach over its edge and hide whole pages.
const MODELS: [&str; 3] = ["llama", "gemma3", "starcoder2-window"];

fn open(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.gguf"));
    Arc::new(Model::open(&path).unwrap_or_else(|error| panic!("{error}")))
}

fn all_options() -> Vec<SessionOptions> {
    let of = |device, exact| SessionOptions { device, exact, threads: Some(2), ..SessionOptions::default() };
    vec![of(Device::Oracle, false), of(Device::Cpu, false), of(Device::Cpu, true)]
}

/// Runs `check` for every model on every device.
fn everywhere(check: impl Fn(&Arc<Model>, &SessionOptions)) {
    for name in MODELS {
        let model = open(name);
        all_options().iter().for_each(|options| check(&model, options));
    }
}

/// `n` tokens that differ from seed to seed (a linear congruential generator; the high bits are the good ones).
fn tokens(model: &Model, n: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % model.plan().vocab as u64) as u32
    };
    (0..n).map(|_| next()).collect()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn session(model: &Arc<Model>, options: &SessionOptions) -> Session {
    Session::new(model, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Bits of the logits after `tokens`, evaluated from nothing.
fn fresh(model: &Arc<Model>, options: &SessionOptions, tokens: &[u32]) -> Vec<u32> {
    let mut session = session(model, options);
    session.set_prompt(tokens, &mut go_on).expect("the prompt fits");
    bits(session.logits())
}

fn bits(logits: &[f32]) -> Vec<u32> {
    assert!(!logits.is_empty() && logits.iter().all(|logit| logit.is_finite()));
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn a_reused_beginning_changes_nothing() {
    everywhere(|model, options| {
        let (a, b) = (tokens(model, 45, 1), tokens(model, 40, 2));
        for common in [1, 15, 16, 17, 32, 44] {
            let mut session = session(model, options);
            session.set_prompt(&a, &mut go_on).expect("fits");
            let changed = [&a[..common], &b[..]].concat();
            assert!(a[common] != b[0]);
            assert_eq!(session.set_prompt(&changed, &mut go_on).expect("fits"), common);
            assert_eq!(session.tokens(), changed);
            assert_eq!(bits(session.logits()), fresh(model, options, &changed), "{common} in common");
        }
    });
}

#[test]
fn a_prompt_that_is_there_already_costs_nothing_or_one_token() {
    everywhere(|model, options| {
        let a = tokens(model, 40, 1);
        let mut session = session(model, options);
        session.set_prompt(&a, &mut go_on).expect("fits");
        assert_eq!(session.set_prompt(&a, &mut go_on).expect("fits"), 40);
        assert_eq!(session.set_prompt(&a[..30], &mut go_on).expect("fits"), 29);
        assert_eq!(bits(session.logits()), fresh(model, options, &a[..30]));
    });
}

#[test]
fn a_cut_forgets_what_came_after() {
    everywhere(|model, options| {
        let (a, b) = (tokens(model, 50, 3), tokens(model, 9, 4));
        let mut session = session(model, options);
        session.feed(&a, &mut go_on).expect("fits");
        for len in [49, 48, 33, 32, 31, 16, 7, 1, 0] {
            session.truncate(len);
            assert_eq!(session.tokens(), &a[..len]);
            assert!(session.logits().is_empty());
            session.feed(&b, &mut go_on).expect("fits");
            assert_eq!(
                bits(session.logits()),
                fresh(model, options, &[&a[..len], &b[..]].concat()),
                "{len} kept"
            );
            session.truncate(len);
        }
    });
}

#[test]
fn the_size_of_batches_does_not_matter() {
    everywhere(|model, options| {
        let a = tokens(model, 70, 5);
        let whole = fresh(model, options, &a);
        for batch in [1, 5, 16, 33] {
            let options = SessionOptions { batch, ..options.clone() };
            assert_eq!(fresh(model, &options, &a), whole, "batches of {batch}");
        }
        let options = SessionOptions { response: None, ..options.clone() };
        assert_eq!(fresh(model, &options, &a), whole, "one batch");
        let mut session = session(model, &options);
        a.iter().for_each(|&token| session.feed(&[token], &mut go_on).expect("fits"));
        assert_eq!(bits(session.logits()), whole, "token by token");
    });
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for name in MODELS {
        let model = open(name);
        let a = tokens(&model, 70, 6);
        for options in all_options() {
            let with = |threads| SessionOptions { threads: Some(threads), ..options.clone() };
            assert_eq!(
                fresh(&model, &with(1), &a),
                fresh(&model, &with(2), &a),
                "{name} on {:?}",
                options.device
            );
        }
    }
}

/// Keeps the logits of every request's last token.
#[derive(Default)]
struct Last(Vec<Vec<u32>>);

impl Listener for Last {
    fn logits(&mut self, request: usize, _token: usize, logits: &[f32]) -> Result<(), cchaha::Error> {
        self.0.resize(self.0.len().max(request + 1), Vec::new());
        self.0[request] = bits(logits);
        Ok(())
    }

    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

fn scheduler(model: &Model, options: &SessionOptions, limits: Limits) -> Scheduler {
    let backend: Box<dyn Backend> = match options.device {
        Device::Oracle => Box::new(Oracle::default()),
        _ => {
            let cpu = CpuOptions { threads: options.threads, exact: options.exact, ..CpuOptions::default() };
            Box::new(Cpu::new(cpu).expect("a processor"))
        }
    };
    Scheduler::new(model.plan().clone(), backend.as_ref(), limits, None).expect("a scheduler")
}

fn run(scheduler: &mut Scheduler, work: &[(SequenceId, &[u32])]) -> Vec<Vec<u32>> {
    let requests: Vec<Request<'_>> = work
        .iter()
        .map(|&(sequence, tokens)| Request { sequence, tokens, logits: Wanted::Last, further: &[] })
        .collect();
    let mut last = Last::default();
    assert!(scheduler.run(&requests, &mut last).expect("room").is_continue());
    last.0
}

#[test]
fn sequences_in_one_batch_do_not_disturb_each_other() {
    everywhere(|model, options| {
        let texts: Vec<Vec<u32>> =
            [(37, 7), (1, 8), (64, 9), (16, 10)].iter().map(|&(n, seed)| tokens(model, n, seed)).collect();
        // 118 tokens in batches of 50, so that requests are cut in the middle; two logits rows for four requests.
        for limits in [
            Limits { cells: 12 * PAGE_CELLS, batch: 118, logits: 4 },
            Limits { cells: 12 * PAGE_CELLS, batch: 50, logits: 2 },
        ] {
            let mut scheduler = scheduler(model, options, limits);
            let work: Vec<(SequenceId, &[u32])> =
                texts.iter().map(|text| (scheduler.kv_mut().add(), &text[..])).collect();
            let found = run(&mut scheduler, &work);
            for (text, found) in texts.iter().zip(&found) {
                assert_eq!(*found, fresh(model, options, text), "{} tokens, {limits:?}", text.len());
            }
            // And one more token each, as in decoding for several users.
            let next: Vec<(SequenceId, &[u32])> = work.iter().map(|&(id, _)| (id, &[5u32][..])).collect();
            for (text, found) in texts.iter().zip(run(&mut scheduler, &next)) {
                assert_eq!(found, fresh(model, options, &[&text[..], &[5]].concat()));
            }
        }
    });
}

#[test]
fn a_fork_shares_full_pages_and_goes_its_own_way() {
    everywhere(|model, options| {
        let (a, b, c) = (tokens(model, 41, 11), tokens(model, 20, 12), tokens(model, 20, 13));
        let limits = Limits { cells: 8 * PAGE_CELLS, batch: 64, logits: 2 };
        let mut scheduler = scheduler(model, options, limits);
        let first = scheduler.kv_mut().add();
        run(&mut scheduler, &[(first, &a)]);
        let (second, kept) = scheduler.kv_mut().fork(first);
        assert_eq!(kept, 32);
        assert_eq!(scheduler.kv().pages(second), &scheduler.kv().pages(first)[..2]);
        let rest = [&a[kept..], &c[..]].concat();
        let found = run(&mut scheduler, &[(first, &b), (second, &rest)]);
        assert_eq!(found[0], fresh(model, options, &[&a[..], &b[..]].concat()));
        assert_eq!(found[1], fresh(model, options, &[&a[..], &c[..]].concat()));

        // Cutting inside a shared page gives the page up; the other sequence keeps it.
        let kept = scheduler.kv_mut().truncate(second, 20);
        assert_eq!(kept, 16);
        let found = run(&mut scheduler, &[(first, &c), (second, &a[kept..20])]);
        assert_eq!(found[0], fresh(model, options, &[&a[..], &b[..], &c[..]].concat()));
        assert_eq!(found[1], fresh(model, options, &a[..20]));
        scheduler.kv_mut().remove(first);
        assert_eq!(
            run(&mut scheduler, &[(second, &b)])[0],
            fresh(model, options, &[&a[..20], &b[..]].concat())
        );
    });
}

#[test]
fn a_full_cache_is_an_error_that_changes_nothing() {
    let model = open("llama");
    let limits = Limits { cells: 2 * PAGE_CELLS, batch: 64, logits: 1 };
    let mut scheduler = scheduler(&model, &all_options()[0], limits);
    let a = scheduler.kv_mut().add();
    run(&mut scheduler, &[(a, &tokens(&model, 20, 1))]);
    let much = tokens(&model, 13, 2);
    let request = Request { sequence: a, tokens: &much, logits: Wanted::Last, further: &[] };
    let error = scheduler.run(&[request], &mut Last::default()).expect_err("33 tokens in 32 cells");
    assert_eq!(error.kind(), ErrorKind::DoesNotFit);
    assert!(error.to_string().contains("--ctx"), "{error}");
    assert_eq!(scheduler.kv().len(a), 20);
}

#[test]
fn an_interruption_keeps_what_is_evaluated() {
    everywhere(|model, options| {
        let a = tokens(model, 60, 14);
        let mut session = session(model, &SessionOptions { batch: 16, ..options.clone() });
        let mut calls = Vec::new();
        let error = session.feed(&a, &mut |progress| {
            calls.push(progress);
            if progress.done >= 32 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(error.expect_err("stopped").kind(), ErrorKind::Interrupted);
        assert_eq!(calls, [16, 32].map(|done| Progress { done, total: 60 }));
        assert_eq!(session.tokens(), &a[..32]);
        assert_eq!(session.set_prompt(&a, &mut go_on).expect("fits"), 32);
        assert_eq!(bits(session.logits()), fresh(model, options, &a));
    });
}

fn usage_error(result: Result<impl Sized, cchaha::Error>, words: &[&str]) {
    let error = result.map(|_| ()).expect_err("out of range");
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Usage, 2), "{error}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error} does not say {word:?}"));
}

#[test]
fn what_does_not_fit_is_said_with_both_numbers() {
    let model = open("llama");
    let options = SessionOptions { ctx: Some(40), ..all_options().remove(1) };
    let mut session = session(&model, &options);
    assert_eq!(session.context(), 40);
    usage_error(session.set_prompt(&tokens(&model, 41, 1), &mut go_on), &["41", "40", "--ctx", "256"]);
    session.set_prompt(&tokens(&model, 40, 1), &mut go_on).expect("just fits");
    usage_error(session.feed(&[1], &mut go_on), &["41", "40"]);
    assert_eq!(session.tokens().len(), 40);
    usage_error(session.set_prompt(&[], &mut go_on), &["empty"]);
    usage_error(session.set_prompt(&[1, 9999], &mut go_on), &["9999"]);
    assert_eq!(session.tokens().len(), 40, "a refused prompt changes nothing");

    let with = |change: fn(&mut SessionOptions)| {
        let mut options = options.clone();
        change(&mut options);
        Session::new(&model, &options)
    };
    usage_error(with(|o| o.ctx = Some(0)), &["0"]);
    usage_error(with(|o| o.ctx = Some(257)), &["257", "256"]);
    usage_error(with(|o| o.batch = 0), &["batch"]);
    usage_error(with(|o| o.threads = Some(0)), &["threads"]);
}

#[test]
fn windows_score_what_they_see() {
    everywhere(|model, options| {
        let a = tokens(model, 60, 15);
        let of =
            |tokens: &[u32], request| score(model, options, tokens, &request, &mut go_on).expect("scores");
        let whole = of(&a, ScoreRequest { top: 3, ..ScoreRequest::default() });
        assert_eq!(whole.logprobs[0], None);
        let mut session = session(model, options);
        session.set_prompt(&a[..59], &mut go_on).expect("fits");
        let last = cchaha::sample::logprob(session.logits(), a[59]).expect("logits");
        assert_eq!(whole.logprobs[59], Some(last));
        for top in &whole.top[1..] {
            assert!(top.len() == 3 && top.is_sorted_by(|a, b| a.1 >= b.1));
        }

        // Windows 0..24, 16..40, 32..56, 48..60: tokens 25 to 40 are scored with what follows token 16 as context.
        let request = ScoreRequest { window: Some(24), overlap: Some(8), top: 0 };
        let mut calls = Vec::new();
        let windows = score(model, options, &a, &request, &mut |progress| {
            calls.push(progress);
            ControlFlow::Continue(())
        })
        .expect("scores");
        assert_eq!(windows.logprobs[..25], whole.logprobs[..25]);
        for (start, scored) in [(16, 25..41), (32, 41..57), (48, 57..60)] {
            let window = of(&a[start..(start + 25).min(60)], ScoreRequest::default());
            for i in scored {
                assert_eq!(windows.logprobs[i], window.logprobs[i - start], "token {i}");
            }
        }
        assert_eq!(calls.last().copied(), Some(Progress { done: 84, total: 84 }));
        assert!(calls.is_sorted_by(|a, b| a.done < b.done));
    });
}

#[test]
fn windows_out_of_range_are_refused() {
    let model = open("llama");
    let options = all_options().remove(1);
    let a = tokens(&model, 60, 15);
    let with = |window, overlap| {
        let request = ScoreRequest { window: Some(window), overlap: Some(overlap), top: 0 };
        score(&model, &options, &a, &request, &mut go_on)
    };
    usage_error(with(1, 0), &["window of 1"]);
    usage_error(with(300, 0), &["300", "256"]);
    usage_error(with(16, 16), &["16", "15"]);
    let stopped = score(&model, &options, &a, &ScoreRequest::default(), &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.expect_err("stopped").kind(), ErrorKind::Interrupted);
    assert_eq!(
        score(&model, &options, &[], &ScoreRequest::default(), &mut go_on).expect("nothing"),
        Default::default()
    );
}

/// Generates greedily after `prompt`; the tokens, the text, and how it ended.
fn answer(session: &mut Session, request: &GenerateRequest) -> (Vec<u32>, String, cchaha::Finish) {
    let (mut ids, mut text) = (Vec::new(), String::new());
    let finish = generate(session, request, &mut |piece| {
        ids.extend(piece.token);
        text.push_str(piece.text);
        ControlFlow::Continue(())
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ids.len(), finish.tokens);
    (ids, text, finish)
}

fn greedy(max_tokens: usize) -> GenerateRequest {
    GenerateRequest { max_tokens, sample: SampleParams::greedy(), ..GenerateRequest::default() }
}

#[test]
fn generation_ends_where_it_should() {
    let model = open("stories260K-f32");
    let options = SessionOptions { ctx: Some(100), ..all_options().remove(1) };
    let prompt = model.tokenizer().encode_prompt("Once upon a time", cchaha::text::Special::Plain);
    let mut session = session(&model, &options);
    let start = |session: &mut Session| session.set_prompt(&prompt, &mut go_on).map(|_| ()).expect("fits");

    start(&mut session);
    let (ids, text, finish) = answer(&mut session, &greedy(30));
    assert_eq!((finish.reason, finish.tokens), (FinishReason::Length, 30));
    assert!(text.starts_with(", there was a little girl named"), "{text:?}");

    // Continuing an answer is the same as a longer one.
    let all = [&prompt[..], &ids].concat();
    session.set_prompt(&all, &mut go_on).expect("fits");
    let (more, ..) = answer(&mut session, &greedy(5));
    start(&mut session);
    assert_eq!(answer(&mut session, &greedy(35)).0, [&ids[..], &more].concat());

    start(&mut session);
    let stop = GenerateRequest { stop: vec!["little girl".to_owned()], ..greedy(30) };
    let (_, stopped, finish) = answer(&mut session, &stop);
    assert_eq!((finish.reason, finish.stop_text.as_deref()), (FinishReason::Stop, Some("little girl")));
    assert_eq!(stopped, ", there was a ");

    start(&mut session);
    let (found, _, finish) =
        answer(&mut session, &GenerateRequest { stop_tokens: vec![ids[7]], ..greedy(30) });
    let first = ids.iter().position(|&id| id == ids[7]).expect("it is there");
    assert_eq!((finish.reason, finish.stop_token), (FinishReason::Stop, Some(ids[7])));
    assert_eq!(found, ids[..first]);

    start(&mut session);
    let (_, _, finish) = answer(&mut session, &greedy(usize::MAX));
    assert_eq!(finish.reason, FinishReason::Context);
    assert_eq!(session.tokens().len(), 100);
    assert_eq!(finish.tokens, 100 - prompt.len() + 1, "the last token needs no room of its own");

    start(&mut session);
    let mut left = 3;
    let finish = generate(&mut session, &greedy(30), &mut |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let finish = finish.expect("no error");
    assert_eq!((finish.reason, finish.tokens), (FinishReason::Interrupted, 3));

    start(&mut session);
    let (none, text, finish) = answer(&mut session, &greedy(0));
    assert_eq!((none.len(), text.as_str(), finish.reason), (0, "", FinishReason::Length));
}

#[test]
fn end_tokens_end_an_answer_unless_ignored() {
    // With random weights the likeliest token is as good as any: call it the end token.
    let model = open("llama");
    let eos = model.tokenizer().eos().expect("an end token");
    let options = all_options().remove(0);
    let wanted = SampleParams { logit_bias: vec![(eos, 1e3)], ..SampleParams::greedy() };
    let mut session = session(&model, &options);
    session.set_prompt(&tokens(&model, 9, 1), &mut go_on).expect("fits");
    let request = GenerateRequest { sample: wanted, ..greedy(4) };
    let (ids, _, finish) = answer(&mut session, &request);
    assert_eq!((ids.len(), finish.reason, finish.stop_token), (0, FinishReason::Stop, Some(eos)));
    let (ids, _, finish) = answer(&mut session, &GenerateRequest { ignore_eos: true, ..request });
    assert_eq!((ids.len(), finish.reason), (4, FinishReason::Length));
    assert!(!ids.contains(&eos));
}

#[test]
fn reported_probabilities_are_the_models() {
    let model = open("qwen2");
    let options = all_options().remove(1);
    let prompt = tokens(&model, 9, 1);
    let mut session = session(&model, &options);
    session.set_prompt(&prompt, &mut go_on).expect("fits");
    let sample = SampleParams { temperature: 1.5, seed: 7, ..SampleParams::default() };
    let request = GenerateRequest { sample, logprobs: true, top: 4, ignore_eos: true, ..greedy(12) };
    let (mut ids, mut logprobs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    generate(&mut session, &request, &mut |piece| {
        if let Some(id) = piece.token {
            ids.push(id);
            logprobs.push(piece.logprob);
            tops.push(piece.top.to_vec());
        }
        ControlFlow::Continue(())
    })
    .expect("no error");
    let all = [&prompt[..], &ids].concat();
    let scores =
        score(&model, &options, &all, &ScoreRequest { top: 4, ..ScoreRequest::default() }, &mut go_on)
            .expect("scores");
    assert_eq!(scores.logprobs[9..], logprobs);
    assert_eq!(scores.top[9..], tops);

    let mut again = Session::new(&model, &options).expect("a session");
    again.set_prompt(&prompt, &mut go_on).expect("fits");
    assert_eq!(answer(&mut again, &request).0, ids, "the same seed draws the same tokens");
}

#[test]
fn chunks_follow_the_response_time() {
    // However short the response time is asked to be, chunks stay large enough to be worth it.
    let model = open("llama");
    let options = SessionOptions { response: Some(Duration::from_nanos(1)), ..all_options().remove(0) };
    let mut sizes = Vec::new();
    let mut done = 0;
    session(&model, &options)
        .feed(&tokens(&model, 100, 1), &mut |progress| {
            sizes.push(progress.done - done);
            done = progress.done;
            ControlFlow::Continue(())
        })
        .expect("fits");
    assert_eq!(sizes, [32, 32, 32, 4]);
}

/// Wherever a prompt is cut, the answer goes on there: the prompt's last tokens are taken back, and come again as part of others.
#[test]
fn healed_prompts_go_on_where_they_end() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/run/assets/cchaha-tiny.gguf");
    let model = Arc::new(Model::open(&path).unwrap());
    let tokenizer = model.tokenizer();
    let text = "import os\n\n\nclass Bär:\n    def join(self, path):\n        return os.path.join(path, 'ä', self.x)\n";
    let mut session = session(&model, &all_options()[1]);
    let (mut taken_back, mut chosen_anew) = (0, 0);
    for cut in (1..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        let whole = tokenizer.encode_prompt(&text[..cut], Special::Plain);
        let mut prompt = whole.clone();
        let healed = heal(tokenizer, &mut prompt);
        assert_eq!([&prompt[..], &healed[..]].concat(), whole, "cut at {cut}");
        taken_back += healed.len();
        for temperature in [0.0, 1.0] {
            let request = GenerateRequest {
                max_tokens: 12,
                healed: healed.clone(),
                sample: SampleParams { temperature, ..SampleParams::default() },
                ignore_eos: true,
                ..GenerateRequest::default()
            };
            session.set_prompt(&prompt, &mut go_on).unwrap();
            let (mut written, mut pieces) = (String::new(), Vec::new());
            let finish = generate(&mut session, &request, &mut |piece| {
                written.push_str(piece.text);
                pieces.extend(piece.token);
                ControlFlow::Continue(())
            });
            // What comes again is no part of the answer's length.
            assert_eq!((finish.unwrap().tokens, pieces.len()), (12, 12));
            // All but the last joined the session, and stand for the prompt and what was written.
            let mut tokens = session.tokens().to_vec();
            assert!(tokens.ends_with(&pieces[..11]), "cut at {cut}");
            chosen_anew += usize::from(!tokens.starts_with(&whole));
            tokens.push(pieces[11]);
            let all = String::from_utf8_lossy(&tokenizer.decode(&tokens, false)).into_owned();
            assert_eq!(all, text[..cut].to_owned() + &written, "cut at {cut}, temperature {temperature}");
        }
    }
    // Where everything is banned that could come in their place, the prompt's tokens stay.
    let mut prompt = tokenizer.encode_prompt("def f(", Special::Plain);
    let whole = prompt.clone();
    let healed = heal(tokenizer, &mut prompt);
    let ban = |id| (id, f32::NEG_INFINITY);
    let logit_bias = (0..tokenizer.vocab_len() as u32).filter(|&id| id != whole[0]).map(ban).collect();
    let sample = SampleParams { logit_bias, ..SampleParams::greedy() };
    let request = GenerateRequest { max_tokens: 1, healed, sample, ..GenerateRequest::default() };
    session.set_prompt(&prompt, &mut go_on).unwrap();
    let _ = generate(&mut session, &request, &mut |_| ControlFlow::Continue(()));
    assert_eq!(session.tokens(), whole);
    assert!(taken_back > text.len() / 2 && chosen_anew > 10, "{taken_back} taken back, {chosen_anew} anew");
    // Other vocabularies are left alone.
    let other = open("llama");
    let mut prompt = other.tokenizer().encode_prompt("def f(", Special::Plain);
    let before = prompt.clone();
    assert!(heal(other.tokenizer(), &mut prompt).is_empty() && prompt == before);
}

#[test]
fn an_answer_does_not_depend_on_those_written_with_it() {
    everywhere(|model, options| {
        let options = SessionOptions { ctx: Some(96), ..options.clone() };
        let jobs: Vec<Job> = [5, 33, 1, 90, 17]
            .into_iter()
            .zip(0..)
            .map(|(n, seed)| {
                let sample = match seed % 2 {
                    0 => SampleParams::greedy(),
                    _ => SampleParams { seed, temperature: 1.0, ..SampleParams::default() },
                };
                let request = GenerateRequest { max_tokens: 12, sample, ..GenerateRequest::default() };
                Job { prompt: tokens(model, n, seed), request }
            })
            .collect();
        let alone: Vec<_> = jobs
            .iter()
            .map(|job| {
                let (mut session, mut text) = (session(model, &options), String::new());
                session.set_prompt(&job.prompt, &mut go_on).expect("it fits");
                let finish = generate(&mut session, &job.request, &mut |piece| {
                    text.push_str(piece.text);
                    ControlFlow::Continue(())
                });
                let finish = finish.expect("it answers");
                (text, finish.tokens, finish.reason)
            })
            .collect();
        assert!(
            alone.iter().any(|(_, _, reason)| *reason == FinishReason::Context),
            "90 + 12 tokens do not fit"
        );
        for at_once in [1, 3, 8] {
            let mut together = vec![None; jobs.len()];
            let mut on_answer = |job: usize, text, finish: cchaha::Finish| {
                assert!(together[job].is_none(), "once each");
                together[job] = Some((text, finish.tokens, finish.reason));
                ControlFlow::Continue(())
            };
            generate_all(model, &options, &jobs, at_once, &mut on_answer, &mut || ControlFlow::Continue(()))
                .expect("they answer");
            assert_eq!(together.into_iter().flatten().collect::<Vec<_>>(), alone, "{at_once} at once");
        }
        let nothing =
            Job { prompt: vec![1], request: GenerateRequest { max_tokens: 0, ..GenerateRequest::default() } };
        let mut on_answer = |_, text: String, finish: cchaha::Finish| {
            assert_eq!((text.as_str(), finish.tokens, finish.reason), ("", 0, FinishReason::Length));
            ControlFlow::Continue(())
        };
        generate_all(model, &options, &[nothing], 1, &mut on_answer, &mut || ControlFlow::Continue(()))
            .expect("nothing");
        let stop = &mut || ControlFlow::Break(());
        let stopped = generate_all(model, &options, &jobs, 2, &mut |_, _, _| ControlFlow::Continue(()), stop);
        assert_eq!(stopped.expect_err("it was told to").kind(), ErrorKind::Interrupted);
    });
}
