//! PgBouncer's own log holds no statements: it is known, so that it can be passed over without complaint.

use super::feed::{Context, End};
use super::stderr::trim_line;
use super::time::Clock;

/// True for a line such as `2026-11-22 22:41:36.123 UTC [42] LOG C-0x55d0: shop/app@10.0.0.1:5000 login attempt: ..`.
pub(super) fn wrote(line: &[u8]) -> bool {
    let rest = Clock::default().read(line).and_then(|(_, length)| line.get(length..));
    let Some(rest) = rest.map(<[u8]>::trim_ascii_start) else { return false };
    let rest = rest.strip_prefix(b"[").unwrap_or(rest);
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits..).unwrap_or_default();
    let rest = rest.strip_prefix(b"]").unwrap_or(rest);
    let Some(rest) = rest.strip_prefix(b" ").filter(|_| digits > 0) else { return false };
    let levels: [&[u8]; 6] = [b"LOG ", b"INFO ", b"WARNING ", b"ERROR ", b"FATAL ", b"DEBUG "];
    levels.iter().any(|level| rest.starts_with(level)) || rest.starts_with(b"NOISE ")
}

/// Counts lines and hands nothing on.
pub(super) fn feed(data: &[u8], end: End, context: &mut Context<'_>) -> usize {
    let whole = match memchr::memrchr(b'\n', data) {
        _ if end != End::More => data.len(),
        last => last.map_or(0, |at| at + 1),
    };
    for line in data.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
        let line = trim_line(line);
        if line.is_empty() || wrote(line) {
            context.report.lines += 1;
            context.report.understood += 1;
        } else {
            context.report.not_understood(context.line, line);
        }
        context.line += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_lines_from_the_servers() {
        assert!(wrote(b"2026-11-22 22:41:36.123 UTC [42] LOG C-0x55: shop/app@10.0.0.1:5000 closing because: x"));
        assert!(wrote(b"2026-11-22 22:41:36.123 42 WARNING tune_socket() failed"));
        assert!(!wrote(b"2026-11-22 22:41:36.123 UTC [42] LOG:  statement: SELECT 1"));
        assert!(!wrote(b"hello"));
    }
}
