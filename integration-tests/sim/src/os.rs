//! The two things a program asks its machine for and that make each run differ: the time and randomness. In a simulated run
//! both come from here, so that std, tokio and every library see the simulated clock of the process that is running and the
//! randomness of the seed, and the product needs no seam for either. Outside a run the system answers as ever.
//!
//! Works by defining `clock_gettime` and `getrandom` in the executable, which the linker prefers to the C library's.
#![allow(unsafe_code)] // two C functions and the system calls behind them

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What simulated clocks show at the beginning: 1 October 2026, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_790_812_800_000;

static SIMULATED: AtomicBool = AtomicBool::new(false);
static MONOTONIC: AtomicU64 = AtomicU64::new(0);
static WALL: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// From here on this whole process lives in simulated time with the randomness of `seed`.
pub fn enter(seed: u64) {
    RANDOM.store(seed, Relaxed);
    set_clocks(Duration::ZERO, Duration::ZERO);
    SIMULATED.store(true, Relaxed);
}

/// What the clocks show to whoever runs next: since boot, and since [`EPOCH_MS`].
pub fn set_clocks(monotonic: Duration, wall: Duration) {
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    // A boot some time ago: programs subtract from the monotonic clock.
    MONOTONIC.store(nanos(monotonic) + 1_000_000_000_000, Relaxed);
    WALL.store(nanos(wall) + EPOCH_MS * 1_000_000, Relaxed);
}

/// The next number of a splitmix sequence.
fn random() -> u64 {
    let mut z = RANDOM.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The C library's.
///
/// # Safety
/// `spec` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, spec: *mut libc::timespec) -> libc::c_int {
    let nanos = match clock {
        _ if !SIMULATED.load(Relaxed) => {
            // SAFETY: the same arguments as ours, under the same contract.
            return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, spec) } as libc::c_int;
        }
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL.load(Relaxed),
        _ => MONOTONIC.load(Relaxed),
    };
    // SAFETY: the caller's contract.
    unsafe {
        (*spec).tv_sec = (nanos / 1_000_000_000) as libc::time_t;
        (*spec).tv_nsec = (nanos % 1_000_000_000) as libc::c_long;
    }
    0
}

/// The C library's.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !SIMULATED.load(Relaxed) {
        // SAFETY: the same arguments as ours, under the same contract.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as libc::ssize_t;
    }
    // SAFETY: the caller's contract.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
    length as libc::ssize_t
}
