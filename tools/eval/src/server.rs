//! Another engine behind an OpenAI-compatible server (llama-server, for one), asked what our own engine would be asked.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use cchaha::Job;
use cchaha_cli::exit::{Failure, Result};
use serde_json::{Value, json};
use ureq::Agent;

/// An answer on a slow machine takes minutes.
const TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) struct Server {
    agent: Agent,
    url: String,
}

impl Server {
    /// The server whose API begins at `url`, as in `http://localhost:8080/v1`.
    pub(crate) fn new(url: &str) -> Server {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        let url = format!("{}/completions", url.trim_end_matches('/'));
        Server { agent: config.build().into(), url }
    }

    /// Answers to all jobs, `parallel` requests at a time, each given to `on_answer` (job, text, tokens) as it comes.
    pub(crate) fn answer_all(
        &self,
        jobs: &[Job],
        parallel: usize,
        on_answer: &mut dyn FnMut(usize, &str, usize) -> Result,
        flow: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (sender, answers) = mpsc::channel();
            for _ in 0..parallel.min(jobs.len()) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(index) else { break };
                        if sender.send((index, self.answer(job))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let go_on = || {
                for (index, answer) in answers {
                    let (text, tokens) = answer?;
                    on_answer(index, &text, tokens)?;
                    if flow().is_break() {
                        return Err(Failure::interrupted());
                    }
                }
                Ok(())
            };
            let result = go_on();
            // Requests under way end; no more begin.
            next.store(jobs.len(), Ordering::Relaxed);
            result
        })
    }

    /// The prompt goes as tokens: nothing depends on how the server reads text.
    fn answer(&self, job: &Job) -> Result<(String, usize)> {
        let request = &job.request;
        let body = json!({
            "prompt": job.prompt,
            "max_tokens": request.max_tokens,
            "temperature": request.sample.temperature,
            "seed": request.sample.seed,
            "stop": request.stop,
        });
        let problem = |problem: &dyn std::fmt::Display| Failure::other(format!("{}: {problem}", self.url));
        let sent = self.agent.post(&self.url).content_type("application/json").send(body.to_string());
        let mut response = sent.map_err(|error| problem(&format_args!("{error}; is the server running?")))?;
        let text = response.body_mut().read_to_string().map_err(|error| problem(&error))?;
        if !response.status().is_success() {
            return Err(problem(&format_args!("the server answers {}: {}", response.status(), text.trim())));
        }
        let answer: Value = serde_json::from_str(&text).map_err(|error| problem(&error))?;
        let completion = answer["choices"][0]["text"].as_str();
        let completion = completion.ok_or_else(|| problem(&"the answer has no choices[0].text"))?;
        let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        Ok((completion.to_owned(), tokens as usize))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use cchaha::GenerateRequest;

    use super::*;

    /// Reads one request and gives its path and body.
    fn request(stream: &TcpStream) -> (String, Value) {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).expect("a request line");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header");
            match line.trim().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().expect("a length"),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        (first, serde_json::from_slice(&body).expect("JSON"))
    }

    /// A server that answers with its prompt's first token, and after `good` answers with an error.
    fn serve(good: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1/", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for (served, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a connection");
                let (first, body) = request(&stream);
                assert!(first.starts_with("POST /v1/completions "), "{first}");
                assert_eq!((&body["temperature"], &body["stop"]), (&json!(0.0), &json!(["```"])));
                let (status, answer) = if served < good {
                    let text = format!("answer to {}", body["prompt"][0]);
                    ("200 OK", json!({"choices": [{"text": text}], "usage": {"completion_tokens": 3}}))
                } else {
                    ("400 Bad Request", json!({"error": "too long"}))
                };
                let answer = answer.to_string();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                )
                .expect("an answer");
            }
        });
        url
    }

    fn jobs(n: u32) -> Vec<Job> {
        let sample = cchaha::sample::SampleParams::greedy();
        let request = GenerateRequest { sample, stop: vec!["```".to_owned()], ..GenerateRequest::default() };
        (0..n).map(|i| Job { prompt: vec![i, 7], request: request.clone() }).collect()
    }

    fn ask(url: &str, n: u32) -> (Result, Vec<(usize, String, usize)>) {
        let mut seen = Vec::new();
        let mut on_answer = |job: usize, text: &str, tokens: usize| {
            seen.push((job, text.to_owned(), tokens));
            Ok(())
        };
        let result =
            Server::new(url).answer_all(&jobs(n), 3, &mut on_answer, &mut || ControlFlow::Continue(()));
        seen.sort();
        (result, seen)
    }

    #[test]
    fn every_job_gets_its_own_answer() {
        let (result, seen) = ask(&serve(usize::MAX), 10);
        result.expect("answers");
        let expected: Vec<_> = (0..10).map(|i| (i, format!("answer to {i}"), 3)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_refusal_says_which_server_and_what_it_said() {
        let (result, seen) = ask(&serve(2), 9);
        let message = format!("{:?}", result.expect_err("a refusal"));
        assert!(message.contains("/v1/completions") && message.contains("too long"), "{message}");
        assert!(seen.len() <= 2, "{seen:?}");
    }

    #[test]
    fn no_server_is_said() {
        let (result, _) = ask("http://127.0.0.1:9/v1", 1);
        assert!(format!("{:?}", result.expect_err("nothing there")).contains("is the server running?"));
    }
}
