//! The process as the system sees it, under the names that Prometheus's own clients use.

use std::fs::read_to_string;

use super::text::Exposition;

/// Clock ticks a second in /proc/PID/stat: Linux shows every program the same.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Fields of /proc/self/stat behind the name, which is in parentheses; the first is number 3 of proc(5).
fn stat() -> Vec<f64> {
    let text = read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()
}

fn boot() -> f64 {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or_default()
}

fn max_fds() -> f64 {
    let text = read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Adds what is known; nothing where there is no /proc.
pub(super) fn add(text: &mut Exposition) {
    let stat = stat();
    let field = |number: usize| stat.get(number - 3).copied().unwrap_or_default();
    if stat.is_empty() {
        return;
    }
    let mut one = |name, kind, help, value| {
        text.metric(name, kind, help);
        text.sample(&[], value);
    };
    let cpu = (field(14) + field(15)) / TICKS;
    one("process_cpu_seconds_total", "counter", "Processor time used, in user and system mode.", cpu);
    one("process_resident_memory_bytes", "gauge", "Memory in use.", field(24) * PAGE);
    one("process_virtual_memory_bytes", "gauge", "Memory addressed.", field(23));
    one("process_threads", "gauge", "Threads.", field(20));
    let start = boot() + field(22) / TICKS;
    one("process_start_time_seconds", "gauge", "When the process began, since 1970.", start);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    one("process_open_fds", "gauge", "Open file descriptors.", open as f64);
    one("process_max_fds", "gauge", "File descriptors that may be open.", max_fds());
}
