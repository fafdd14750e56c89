//! Signals to a server and its backends.

use std::process::Child;
use std::time::{Duration, Instant};

/// Sends `signal` to one process; one that is gone already is fine.
pub(super) fn signal(pid: u32, signal: i32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    if pid > 1 {
        // SAFETY: kill takes two integers; the pid is that of one process (positive, not a group) we started.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Waits until `child` has ended, at most `patience`. Says whether it has.
pub(super) fn wait(child: &mut Child, patience: Duration) -> bool {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if started.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => return false,
            // An error means that nothing is left to wait for.
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// The processes whose parent is `pid` now (Linux's `/proc`; none elsewhere).
pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|candidate| parent(*candidate) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold some.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
