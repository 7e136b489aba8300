//! A thread pool for short parallel regions, and the safe views through which a region's parts write one buffer.
//!
//! A region is a list of parts that do not overlap. Every thread begins with an equal run of neighbouring parts; who has none left takes the
//! second half of the longest run, so a core that is busy with something else does less and nobody waits for work it never started. What a
//! part computes may depend on its index only, so results do not depend on the number of threads.
//!
//! Runs, because weights are streamed: where two threads took parts in turn from one counter, each part was a new stream, and a fourth of
//! a thread's share was the best size for it; half of that decoded at 0.91 to 0.96 of the speed, the whole share at 1.04 to 1.10 (AMD EPYC Zen 5,
//! Qwen2.5-Coder Q4_K_M, 2026-11).
//!
//! ```text
//! state = epoch << 32 | OPEN | threads inside
//! caller:  store job, state = (epoch + 1) << 32 | OPEN      worker:  sees OPEN and a new epoch: state += 1 (CAS)
//!          takes parts until none is left                            takes parts until none is left
//!          clears OPEN, waits until nobody is inside                 state -= 1
//! ```
//!
//! A worker that never woke up is not waited for. Idle workers spin for [`SPIN`], then park: decoding runs some
//! hundred regions per token a few microseconds apart, and a futex wake costs more than most of them.
#![allow(unsafe_code)] // Lends the caller's stack to other threads for the length of a region.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker spins before it parks.
const SPIN: Duration = Duration::from_micros(50);

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

thread_local! {
    static IN_REGION: Cell<bool> = const { Cell::new(false) };
}

/// A buffer cut into parts that different threads may change at the same time.
///
/// # Safety
/// Parts of different indices below `count` must not overlap.
pub(crate) unsafe trait Parts: Sync {
    /// What a thread gets.
    type Part;

    /// How many parts.
    fn count(&self) -> usize;

    /// Part `index`.
    ///
    /// # Safety
    /// `index < count`, and each index at most once in the life of `self`.
    unsafe fn part(&self, index: usize) -> Self::Part;
}

/// A row-major matrix cut into tiles of `tile_rows` x `tile_cols`; tiles of one band of rows come one after the other.
///
/// ```text
///            cols
///      +----+----+--+
/// rows | 0  | 1  |2 |   tile_rows x tile_cols each, less at the edges
///      +----+----+--+
///      | 3  | 4  |5 |
///      +----+----+--+
/// ```
#[derive(Debug)]
pub(crate) struct Grid<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    tile_rows: usize,
    tile_cols: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a grid hands out disjoint `&mut [T]`, which may be sent where `T` may.
unsafe impl<T: Send> Sync for Grid<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// Cuts `data`, `rows` rows of `cols`.
    ///
    /// # Panics
    /// Where `data` is shorter or a tile has no size.
    pub(crate) fn new(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        tile_rows: usize,
        tile_cols: usize,
    ) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()), "grid larger than its data");
        assert!(tile_rows > 0 && tile_cols > 0, "tiles have a size");
        Grid { data: data.as_mut_ptr(), rows, cols, tile_rows, tile_cols, owner: PhantomData }
    }
}

// SAFETY: tiles are disjoint rectangles, and a tile's accessors stay inside it.
unsafe impl<'a, T: Send> Parts for Grid<'a, T> {
    type Part = Tile<'a, T>;

    fn count(&self) -> usize {
        self.rows.div_ceil(self.tile_rows) * self.cols.div_ceil(self.tile_cols)
    }

    unsafe fn part(&self, index: usize) -> Tile<'a, T> {
        let across = self.cols.div_ceil(self.tile_cols);
        let (down, right) = (index / across, index % across);
        let clip = |i: usize, tile: usize, len: usize| i * tile..((i + 1) * tile).min(len);
        Tile {
            data: self.data,
            stride: self.cols,
            rows: clip(down, self.tile_rows, self.rows),
            cols: clip(right, self.tile_cols, self.cols),
            owner: PhantomData,
        }
    }
}

/// A rectangle of a [`Grid`].
#[derive(Debug)]
pub(crate) struct Tile<'a, T> {
    data: *mut T,
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    owner: PhantomData<&'a mut [T]>,
}

impl<'a, T> Tile<'a, T> {
    /// A whole matrix of `rows` rows of `cols`.
    ///
    /// # Panics
    /// Where `data` is shorter.
    pub(crate) fn whole(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()), "tile larger than its data");
        Tile { data: data.as_mut_ptr(), stride: cols, rows: 0..rows, cols: 0..cols, owner: PhantomData }
    }

    /// `R` rows of `C` columns from matrix row `row` and column `col` on.
    #[inline]
    pub(crate) fn block<const R: usize, const C: usize>(
        &mut self,
        row: usize,
        col: usize,
    ) -> [&mut [T; C]; R] {
        assert!(self.rows.start <= row && row + R <= self.rows.end, "rows outside the tile");
        assert!(self.cols.start <= col && col + C <= self.cols.end, "columns outside the tile");
        // SAFETY: the rectangle lies inside the tile, its rows do not overlap, and `&mut self` keeps these the only views.
        std::array::from_fn(|i| unsafe {
            &mut *self.data.add((row + i) * self.stride + col).cast::<[T; C]>()
        })
    }

    /// Which rows of the matrix it covers.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Which columns.
    pub(crate) fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// The tile's part of matrix row `row`.
    #[inline]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(self.rows.contains(&row), "row outside the tile");
        // SAFETY: the rectangle lies inside the grid's data, no other tile holds it, and `&mut self` keeps this the only view.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.data.add(row * self.stride + self.cols.start),
                self.cols.end - self.cols.start,
            )
        }
    }
}

// SAFETY: part `i` of a pair is part `i` of each, and both are disjoint.
unsafe impl<A: Parts, B: Parts> Parts for (A, B) {
    type Part = (A::Part, B::Part);

    fn count(&self) -> usize {
        assert_eq!(self.0.count(), self.1.count(), "a pair has as many parts on both sides");
        self.0.count()
    }

    unsafe fn part(&self, index: usize) -> Self::Part {
        // SAFETY: handed on unchanged.
        unsafe { (self.0.part(index), self.1.part(index)) }
    }
}

/// One region's work: takes parts until none is left. The argument is the thread's number.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// Parts that are some thread's to take: the next one, and in the upper half where they end. On a line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Share(AtomicU64);

impl Share {
    const END: u32 = 32;

    fn bits(parts: &Range<usize>) -> u64 {
        parts.start as u64 | (parts.end as u64) << Share::END
    }

    fn set(&self, parts: Range<usize>) {
        self.0.store(Share::bits(&parts), Ordering::Relaxed);
    }

    fn get(&self) -> Range<usize> {
        let bits = self.0.load(Ordering::Relaxed);
        bits as u32 as usize..(bits >> Share::END) as usize
    }

    /// Whether the share was `from`, and is `to` now.
    fn change(&self, from: &Range<usize>, to: &Range<usize>) -> bool {
        self.0
            .compare_exchange(Share::bits(from), Share::bits(to), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// The next part for `thread`, of its own share or half of another's.
fn take(shares: &[Share], thread: usize) -> Option<usize> {
    let own = &shares[thread];
    loop {
        let parts = own.get();
        if parts.is_empty() {
            break;
        }
        if own.change(&parts, &(parts.start + 1..parts.end)) {
            return Some(parts.start);
        }
    }
    loop {
        let longest = shares.iter().max_by_key(|share| share.get().len())?;
        let parts = longest.get();
        if parts.is_empty() {
            return None;
        }
        let middle = parts.start + parts.len() / 2;
        if longest.change(&parts, &(parts.start..middle)) {
            // Nobody else changes a share that is empty.
            own.set(middle + 1..parts.end);
            return Some(middle);
        }
    }
}

struct Shared {
    state: AtomicU64,
    shares: Box<[Share]>,
    job: UnsafeCell<Option<*const Job<'static>>>,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while no region is open and nobody is inside, and read only inside one.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never used outside a region.
unsafe impl Send for Shared {}

/// The threads. Regions of several callers run one after the other.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(Thread, JoinHandle<()>)>,
    region: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Pool {
    /// `threads` in all, the caller's included.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let others = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            shares: (0..=others).map(|_| Share::default()).collect(),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let mut pool =
            Pool { shared: shared.clone(), workers: Vec::with_capacity(others), region: Mutex::new(()) };
        for index in 0..others {
            let shared = shared.clone();
            let spawn = thread::Builder::new().name(format!("cchaha-{}", index + 1));
            let handle = spawn.spawn(move || shared.work(index))?;
            pool.workers.push((handle.thread().clone(), handle));
        }
        Ok(pool)
    }

    /// Runs `f` on every item, on all threads, and returns when all are done. What is written must not depend on the thread.
    ///
    /// # Panics
    /// Inside another region, and where `f` does.
    pub fn each<I: Send>(&self, items: impl IntoIterator<Item = I>, f: impl Fn(I) + Sync) {
        let mut items: Vec<Option<I>> = items.into_iter().map(Some).collect();
        let n = items.len();
        self.run(&mut vec![(); self.threads()], Grid::new(&mut items, n, 1, 1, 1), |(), index, mut tile| {
            f(tile.row(index)[0].take().expect("invariant: each item is taken once"));
        });
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(state, index, part)` for every part, each thread with its own element of `state`. Returns when all are
    /// done. A panic in `f` is passed on after the region has ended.
    ///
    /// # Panics
    /// Inside another region, and where `state` has fewer elements than there are threads.
    pub(crate) fn run<S: Send, P: Parts>(
        &self,
        state: &mut [S],
        parts: P,
        f: impl Fn(&mut S, usize, P::Part) + Sync,
    ) {
        assert!(state.len() >= self.threads(), "one state per thread");
        assert!(!IN_REGION.replace(true), "a parallel region inside another");
        let count = parts.count();
        let state = Grid::new(state, self.threads(), 1, 1, 1);
        let work = |thread: usize, indices: &mut dyn Iterator<Item = usize>| {
            // SAFETY: every thread of the region has its own number below `threads`.
            let mut state = unsafe { state.part(thread) };
            let state = &mut state.row(thread)[0];
            for index in indices {
                // SAFETY: each index below `count` comes once: it leaves a share by the change that saw it there.
                f(state, index, unsafe { parts.part(index) });
            }
        };
        let result = if count <= 1 || self.workers.is_empty() {
            catch_unwind(AssertUnwindSafe(|| work(0, &mut (0..count))))
        } else {
            let shares = &self.shared.shares;
            self.region(&|thread| work(thread, &mut std::iter::from_fn(|| take(shares, thread))), count)
        };
        IN_REGION.set(false);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    }

    fn region(&self, job: &Job<'_>, count: usize) -> thread::Result<()> {
        let _region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        assert!(u32::try_from(count).is_ok(), "a share's ends have 32 bits each");
        for (thread, share) in shared.shares.iter().enumerate() {
            share.set(count * thread / self.threads()..count * (thread + 1) / self.threads());
        }
        // SAFETY: only the lifetime changes; nobody uses the pointer after this function has seen everyone leave.
        let erased = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
        // SAFETY: no region is open and nobody is inside, so nobody reads.
        unsafe { *shared.job.get() = Some(erased) };
        let epoch = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.state.store(epoch << 32 | OPEN, Ordering::SeqCst);
        for (asleep, (thread, _)) in shared.asleep.iter().zip(&self.workers).take(count - 1) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        if own.is_err() {
            shared.shares.iter().for_each(|share| share.set(0..0));
        }
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while shared.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins.is_multiple_of(1 << 12) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        match shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(payload) => Err(payload),
            None => own,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (thread, handle) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches panics of its jobs, so there is no error to pass on.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        IN_REGION.set(true);
        let mut seen = 0;
        let mut idle: Option<Instant> = None;
        let mut spins = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state >> 32 != seen {
                let join =
                    self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if join.is_ok() {
                    seen = state >> 32;
                    // SAFETY: this thread is counted as inside an open region, so the job lives until it leaves.
                    let job = unsafe { &*(*self.job.get()).expect("an open region has a job") };
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(index + 1))) {
                        *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
                    }
                    self.state.fetch_sub(1, Ordering::AcqRel);
                    idle = None;
                }
                continue;
            }
            std::hint::spin_loop();
            spins = spins.wrapping_add(1);
            if !spins.is_multiple_of(64) || idle.get_or_insert_with(Instant::now).elapsed() < SPIN {
                continue;
            }
            self.asleep[index].store(true, Ordering::SeqCst);
            let state = self.state.load(Ordering::SeqCst);
            if !(state & OPEN != 0 && state >> 32 != seen || self.stop.load(Ordering::SeqCst)) {
                thread::park();
            }
            self.asleep[index].store(false, Ordering::SeqCst);
            idle = None;
        }
    }
}

/// Physical cores this process may use; 1 where that cannot be found out.
pub fn physical_cores() -> usize {
    let logical = thread::available_parallelism().map_or(1, usize::from);
    let mut cores = std::collections::BTreeSet::new();
    for cpu in 0.. {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        match std::fs::read_to_string(path) {
            Ok(siblings) => cores.insert(siblings),
            Err(_) => break,
        };
    }
    if cores.is_empty() { logical } else { cores.len().min(logical) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts without data: `n` indices.
    struct Indices(usize);

    // SAFETY: there is nothing to overlap.
    unsafe impl Parts for Indices {
        type Part = ();

        fn count(&self) -> usize {
            self.0
        }

        unsafe fn part(&self, _: usize) {}
    }

    #[test]
    fn every_part_runs_once_for_any_number_of_threads() {
        for threads in 1..=5 {
            let pool = Pool::new(threads).unwrap();
            let mut state = vec![0usize; threads];
            for (rows, cols, tile_rows, tile_cols) in [(1, 1, 1, 1), (7, 13, 2, 5), (3, 100, 3, 1)] {
                let mut data = vec![0u32; rows * cols];
                let grid = Grid::new(&mut data, rows, cols, tile_rows, tile_cols);
                pool.run(&mut state, grid, |done, _, mut tile| {
                    *done += 1;
                    for row in tile.rows() {
                        tile.row(row).iter_mut().for_each(|x| *x += 1);
                    }
                });
                assert!(data.iter().all(|&x| x == 1), "{threads} threads, {rows} x {cols}");
            }
            assert_eq!(state.iter().sum::<usize>(), 1 + 4 * 3 + 100, "{threads} threads");
        }
    }

    #[test]
    fn thousands_of_short_regions_with_pauses_lose_nothing() {
        let pool = Pool::new(3).unwrap();
        let mut state = [0u64; 3];
        for round in 0..3000 {
            pool.run(&mut state, Indices(4), |sum, index, ()| *sum += index as u64);
            if round % 500 == 0 {
                thread::sleep(2 * SPIN);
            }
        }
        assert_eq!(state.iter().sum::<u64>(), 3000 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for bad in 0..8 {
            let panics = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&mut [(), ()], Indices(8), |_, index, ()| assert_ne!(index, bad, "part {bad}"));
            }));
            assert!(panics.is_err());
            let mut state = [0, 0];
            pool.run(&mut state, Indices(8), |n, _, ()| *n += 1);
            assert_eq!(state[0] + state[1], 8);
        }
    }

    #[test]
    fn a_region_inside_another_is_refused() {
        let pool = Pool::new(2).unwrap();
        for parts in [1, 4] {
            let nested = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&mut [(), ()], Indices(parts), |_, _, ()| {
                    pool.run(&mut [(), ()], Indices(2), |_, _, ()| {});
                });
            }));
            let message = nested.unwrap_err();
            let message = message.downcast_ref::<&str>().unwrap();
            assert!(message.contains("inside another"), "{message}");
        }
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2).unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut state = [0, 0];
                        pool.run(&mut state, Indices(5), |n, _, ()| *n += 1);
                        assert_eq!(state[0] + state[1], 5);
                    }
                });
            }
        });
    }
}
