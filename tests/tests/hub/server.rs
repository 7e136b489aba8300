//! A hub on this machine that misbehaves as it is told.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does with one request, once; after that it serves what is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Sends so many bytes of the body and closes the connection.
    Cut(usize),
    /// Changes a byte of the body.
    WrongByte,
    /// Sends this much more or less than there is, and says so.
    WrongLength(isize),
    /// Sends everything, whatever range was asked for.
    NoRange,
    /// Answers this status, with these headers.
    Status(u16, &'static str),
    /// Sends the client to this address.
    Redirect(String),
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// First byte asked for.
    pub(crate) start: Option<usize>,
    pub(crate) token: Option<String>,
}

#[derive(Default)]
struct State {
    bodies: HashMap<String, Vec<u8>>,
    faults: HashMap<String, VecDeque<Fault>>,
    requests: Vec<Request>,
}

/// A server until the end of the test.
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A client that goes away is none of the server's business.
                std::thread::spawn(move || answer(stream, &state).ok());
            }
        });
        Server { address, state }
    }

    pub(crate) fn serve(&self, path: &str, body: &[u8]) {
        self.state.lock().expect("no panic").bodies.insert(path.to_owned(), body.to_vec());
    }

    /// Has the next requests of a path go wrong, each in its way.
    pub(crate) fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().expect("no panic").faults.entry(path.to_owned()).or_default().extend(faults);
    }

    /// All requests of a path since the last call.
    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        let mut state = self.state.lock().expect("no panic");
        let (these, others) = state.requests.drain(..).partition(|request| request.path == path);
        state.requests = others;
        these
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path: path.clone(), start: None, token: None };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                request.start = value
                    .trim()
                    .strip_prefix("bytes=")
                    .and_then(|range| range.split('-').next()?.parse().ok())
            }
            "authorization" => request.token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let (body, fault) = {
        let mut state = state.lock().expect("no panic");
        let fault = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
        state.requests.push(request.clone());
        (state.bodies.get(&path).cloned(), fault)
    };
    let head = |out: &mut TcpStream, status: &str, len: usize, more: &str| {
        write!(out, "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n{more}\r\n")
    };
    match (&fault, body) {
        (Some(Fault::Status(status, headers)), _) => head(&mut out, &format!("{status} No"), 0, headers)?,
        (Some(Fault::Redirect(to)), _) => head(&mut out, "302 Found", 0, &format!("Location: {to}\r\n"))?,
        (_, None) => head(&mut out, "404 Not Found", 0, "")?,
        (_, Some(mut body)) => {
            let whole = body.len();
            let start = request.start.filter(|_| !matches!(fault, Some(Fault::NoRange)));
            if start.is_some_and(|start| start >= whole) {
                head(
                    &mut out,
                    "416 Range Not Satisfiable",
                    0,
                    &format!("Content-Range: bytes */{whole}\r\n"),
                )?;
                return out.shutdown(Shutdown::Both);
            }
            body.drain(..start.unwrap_or(0));
            match fault {
                Some(Fault::WrongByte) => body[0] ^= 1,
                Some(Fault::WrongLength(more)) => body.resize(body.len().saturating_add_signed(more), 0),
                _ => {}
            }
            match start {
                Some(start) => {
                    let range = format!("Content-Range: bytes {start}-{}/{whole}\r\n", whole - 1);
                    head(&mut out, "206 Partial Content", body.len(), &range)?;
                }
                None => head(&mut out, "200 OK", body.len(), "")?,
            }
            let sent = if let Some(Fault::Cut(bytes)) = fault { bytes.min(body.len()) } else { body.len() };
            out.write_all(&body[..sent])?;
        }
    }
    out.flush()?;
    out.shutdown(Shutdown::Write)?;
    // Closing before the client has read everything would lose what is on the way.
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok(())
}
