//! The command line itself: help, usage errors, exit codes, readers that leave.

use std::process::Stdio;

use crate::support::{command, pgweir, stderr, stdout};

#[test]
fn help_teaches_and_succeeds() {
    let output = pgweir(&["--help"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("Exit codes:"));
}

#[test]
fn a_wrong_command_line_exits_2() {
    for arguments in [&["--no-such-flag"][..], &["no-such-command"], &[]] {
        let output = pgweir(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn the_version_is_the_package_s() {
    assert_eq!(stdout(&pgweir(&["--version"])), concat!("pgweir ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_error_says_what_where_and_what_to_do() {
    let output = pgweir(&["check", "-c", "/no/such/file.yaml"]);
    let text = stderr(&output);
    assert!(text.starts_with("error: "), "{text}");
    assert!(text.contains("/no/such/file.yaml"), "{text}");
    assert!(matches!(output.status.code(), Some(2 | 3)), "{:?}", output.status);
}

#[test]
fn a_reader_that_leaves_at_once_is_no_panic() {
    let mut child = command(&["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
}
