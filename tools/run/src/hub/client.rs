//! Requests to the hub: `HF_ENDPOINT` and `HF_TOKEN` are honoured, and a busy server is asked again.

use std::io::Read;
use std::time::Duration;

use cchaha::ErrorKind;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

use super::cache;
use crate::exit::{Failure, Result};

const HUB: &str = "https://huggingface.co";

/// Tries of one request, with this long before the second, and twice as long before each one after.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A transfer is cut here and resumed, so that a connection on which nothing arrives does not hang for good.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;
/// The longest list of files read.
const MAX_LISTING_BYTES: u64 = 32 << 20;

/// Where requests go and what they carry.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a repository holds now.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// Its path in the repository.
    pub(super) name: String,
    pub(super) size: u64,
    /// In lower-case hexadecimal digits.
    pub(super) sha256: String,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// The body of a response, with what its head says.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `Content-Range`: first byte and length of the whole.
    pub(super) range: Option<(u64, u64)>,
    pub(super) body: Box<dyn Read>,
}

impl Client {
    /// As the environment says.
    pub(super) fn new() -> Result<Client> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, so that the token goes to the hub and never to where it sends us for the data.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .user_agent(concat!("cchaha-run/", env!("CARGO_PKG_VERSION")));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        let token = match set("HF_TOKEN") {
            Some(token) => Some(token.trim().to_owned()),
            None => cache::cache()?.token(),
        };
        Ok(Client {
            agent: config.build().into(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The files of a repository that are stored by their hash, as all weights are.
    pub(super) fn list(&self, repo: &str) -> Result<Listing> {
        let url = format!("{}/api/models/{repo}/revision/main?blobs=true", self.endpoint);
        let mut body = Vec::new();
        let answer = self.get(&url, repo, None)?;
        let read = answer.body.take(MAX_LISTING_BYTES).read_to_end(&mut body);
        read.map_err(|error| Failure::other(format!("{url}: {error}; try again")))?;
        let damaged =
            |problem: &dyn std::fmt::Display| Failure::other(format!("{url}: the list of files {problem}"));
        let info: Info = serde_json::from_slice(&body)
            .map_err(|error| damaged(&format_args!("is not as expected: {error}")))?;
        let is_hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_hex(&info.sha, 40) {
            return Err(damaged(&format_args!(
                "names the commit {:?}, expected 40 hexadecimal digits",
                info.sha
            )));
        }
        let mut files = Vec::new();
        for Sibling { rfilename, lfs } in info.siblings {
            let Some(Lfs { sha256, size }) = lfs else { continue };
            // Both become parts of paths.
            if !is_hex(&sha256, 64) || !is_inside(&rfilename) {
                return Err(damaged(&format_args!(
                    "has {rfilename:?} with the hash {sha256:?}, which cannot be"
                )));
            }
            files.push(RemoteFile { name: rfilename, size, sha256 });
        }
        Ok(Listing { commit: info.sha, files })
    }

    /// The bytes of a file from `start` on, if the server can do that: what it sends says whether it did.
    pub(super) fn open(&self, repo: &str, commit: &str, name: &str, start: u64) -> Result<Answer> {
        let url = format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, escaped(name));
        self.get(&url, repo, (start > 0).then_some(start))
    }

    /// How long to wait before try number `n`, from 1.
    pub(super) fn wait(n: u32) -> Duration {
        (FIRST_WAIT * 2u32.saturating_pow(n - 1)).min(MAX_WAIT)
    }

    fn get(&self, url: &str, repo: &str, start: Option<u64>) -> Result<Answer> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (problem, wait) = match self.follow(url, start)? {
                Ok(response) => match response.status() {
                    status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                        return Ok(answer(response));
                    }
                    status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                        (format!("{url}: the server answers {status}"), asked_wait(&response))
                    }
                    status => return Err(self.refused(status, url, repo)),
                },
                Err(error) => (format!("{url}: {error}"), None),
            };
            if tries == TRIES {
                return Err(Failure::other(format!("{problem}, {TRIES} times; try again later")));
            }
            let wait = wait.unwrap_or_else(|| Client::wait(tries)).min(MAX_WAIT);
            tracing::warn!("{problem}; again in {:.0} s", wait.as_secs_f64());
            std::thread::sleep(wait);
        }
    }

    /// One request and all it is redirected to. The inner error is one that may pass.
    fn follow(
        &self,
        url: &str,
        start: Option<u64>,
    ) -> Result<std::result::Result<Response<ureq::Body>, ureq::Error>> {
        let home = origin(url);
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&at);
            if let Some(token) = self.token.as_ref().filter(|_| origin(&at) == home) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(start) = start {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let response = match request.call() {
                Ok(response) => response,
                Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                    return Err(Failure::other(format!("{at}: {error}; is HF_ENDPOINT right?")));
                }
                Err(error) => return Ok(Err(error)),
            };
            if !response.status().is_redirection() {
                return Ok(Ok(response));
            }
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.unwrap_or_default();
            // From an encrypted connection never to one that is not.
            let is_address =
                to.starts_with("https://") || (to.starts_with("http://") && !at.starts_with("https://"));
            at = if is_address {
                to.to_owned()
            } else if to.starts_with('/') && !to.starts_with("//") {
                format!("{}{to}", origin(&at))
            } else {
                return Err(Failure::other(format!(
                    "{at}: the server redirects to {to:?}, which is not followed"
                )));
            };
        }
        Err(Failure::other(format!("{url}: more than {MAX_REDIRECTS} redirects")))
    }

    fn refused(&self, status: StatusCode, url: &str, repo: &str) -> Failure {
        let model = |message: String| Failure::new(ErrorKind::Model, message);
        match status.as_u16() {
            401 | 403 if self.token.is_none() => model(format!("hf:{repo} is not there or not public ({status})"))
                .hint("If it is yours or gated, accept its terms on its page, then set HF_TOKEN to a token of your account."),
            401 | 403 => model(format!("hf:{repo} is not open to the token in use ({status})"))
                .hint("Accept the model's terms on its page, or set HF_TOKEN to a token that may read it."),
            404 => model(format!("hf:{repo} has no such model or file ({url})")),
            _ => Failure::other(format!("{url}: the server answers {status}")),
        }
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

fn answer(response: Response<ureq::Body>) -> Answer {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| {
        let (range, len) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, len.parse().ok()?))
    });
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, range, body: Box::new(body.into_reader()) }
}

/// `Retry-After` in seconds.
fn asked_wait(response: &Response<ureq::Body>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether a path stays in its folder, on every system.
fn is_inside(name: &str) -> bool {
    !name.contains(['\\', ':', '\0']) && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A path in an address.
fn escaped(name: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    name.bytes().map(byte).collect()
}
