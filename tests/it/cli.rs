//! The command line itself: help, usage errors, exit codes.

use std::process::{Command, Output};

fn pgweir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgweir")).args(arguments).output().unwrap()
}

#[test]
fn help_teaches_and_succeeds() {
    let output = pgweir(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes:"));
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
    let output = pgweir(&["--version"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), concat!("pgweir ", env!("CARGO_PKG_VERSION"), "\n"));
}
