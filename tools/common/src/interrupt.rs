//! Ctrl-C. While work that can stop early is under way it asks that work to stop; a second one, or one at any other
//! time, ends the program at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cchaha::ErrorKind;

use crate::exit::{Failure, Result};

static STOPPABLE: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
pub fn listen() -> Result {
    ctrlc::set_handler(|| {
        if !STOPPABLE.load(SeqCst) || REQUESTED.swap(true, SeqCst) {
            std::process::exit(ErrorKind::Interrupted.exit_code().into());
        }
    })
    .map_err(|error| Failure::other(format!("cannot listen for Ctrl-C: {error}")))
}

/// Work that looks at [`requested`] and stops early; until it is dropped.
#[derive(Debug)]
pub struct Stoppable(());

impl Stoppable {
    /// Begins such work.
    pub fn begin() -> Stoppable {
        REQUESTED.store(false, SeqCst);
        STOPPABLE.store(true, SeqCst);
        Stoppable(())
    }

    /// Whether Ctrl-C came since the work began.
    pub fn requested(&self) -> bool {
        REQUESTED.load(SeqCst)
    }

    /// As the engine's progress callbacks want it.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        STOPPABLE.store(false, SeqCst);
    }
}
