//! Work in parallel, results in order: a bounded number of pieces is under way or waiting, whatever there is in all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Pieces that may be made before the one wanted next, for each thread.
const AHEAD: usize = 3;

/// Calls `consume` with a function that gives the results of `make(0)`, `make(1)` and so on up to `count`, each once, in
/// order, made by `threads` threads.
pub(crate) fn ordered<T: Send, R>(
    threads: usize,
    count: usize,
    make: impl Fn(usize) -> T + Sync,
    consume: impl FnOnce(&mut dyn FnMut() -> T) -> R,
) -> R {
    let shared =
        Shared { next: AtomicUsize::new(0), state: Mutex::new(State::new()), changed: Condvar::new() };
    let window = threads * AHEAD;
    std::thread::scope(|scope| {
        // Whatever ends `consume`, the threads must not wait for it any longer.
        let _stop = Stop(&shared);
        for _ in 0..threads {
            scope.spawn(|| {
                let _stop = StopOnPanic(&shared);
                loop {
                    let index = shared.next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || !shared.wait_for_room(index, window) {
                        return;
                    }
                    shared.put(index, make(index));
                }
            });
        }
        consume(&mut || shared.take())
    })
}

struct State<T> {
    done: BTreeMap<usize, T>,
    wanted: usize,
    stopped: bool,
}

impl<T> State<T> {
    fn new() -> State<T> {
        State { done: BTreeMap::new(), wanted: 0, stopped: false }
    }
}

struct Shared<T> {
    next: AtomicUsize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to go on.
    fn wait_for_room(&self, index: usize, window: usize) -> bool {
        let state = self.lock();
        let full = |state: &mut State<T>| !state.stopped && index >= state.wanted + window;
        let state = self.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }

    fn put(&self, index: usize, result: T) {
        self.lock().done.insert(index, result);
        self.changed.notify_all();
    }

    fn take(&self) -> T {
        let state = self.lock();
        let missing = |state: &mut State<T>| !state.done.contains_key(&state.wanted) && !state.stopped;
        let mut state = self.changed.wait_while(state, missing).unwrap_or_else(PoisonError::into_inner);
        let wanted = state.wanted;
        let result = state
            .done
            .remove(&wanted)
            .expect("invariant: taken at most `count` times, and no thread panicked");
        state.wanted += 1;
        drop(state);
        self.changed.notify_all();
        result
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

struct Stop<'a, T>(&'a Shared<T>);

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct StopOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_within_the_window() {
        let (made, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let make = |i| {
            made.fetch_add(1, Ordering::SeqCst);
            // A piece is only begun while there is room for it.
            assert!(i < taken.load(Ordering::SeqCst) + 3 * AHEAD + 1);
            i * i
        };
        let sum = ordered(3, 500, make, |next| {
            (0..500)
                .map(|i| {
                    let result = next();
                    taken.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(result, i * i);
                    result
                })
                .sum::<usize>()
        });
        assert_eq!(sum, (0..500).map(|i| i * i).sum::<usize>());
        assert_eq!(made.into_inner(), 500);
    }

    #[test]
    fn who_stops_early_is_not_waited_for() {
        assert_eq!(ordered(2, 1000, |i| i, |next| next() + next()), 1);
        assert_eq!(ordered(2, 0, |i| i, |_| 7), 7);
    }
}
