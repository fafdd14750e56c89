//! What people see: text on standard output, errors on standard error, colour only where it helps.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};

/// Writes `text` to standard output as it is.
///
/// A reader that went away (`pgweir rules list | head`) is no error: the text is dropped.
///
/// # Errors
/// Anything else that keeps standard output from being written, such as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes `text` and a newline to standard output; see [`print`].
///
/// # Errors
/// As [`print`].
pub fn print_line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::input(format!("cannot write the output: {error}")).at("standard output"))
        }
        _ => Ok(()),
    }
}

/// A bar on a terminal, nothing elsewhere.
pub fn progress_bar(template: &str, length: u64) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Writes an error to standard error: `error: what`, then `at:` and `hint:` where known.
pub fn print_error(error: &Error) {
    // Where standard error is gone too, the exit code still tells.
    let _ = io::stderr().lock().write_all(render_error(error, colour_on(&io::stderr())).as_bytes());
}

/// Writes a note to standard error.
pub fn print_note(note: &str) {
    // As with errors, nobody is left to tell.
    let _ = io::stderr().lock().write_all(format!("note: {note}\n").as_bytes());
}

/// Whether to colour what goes to `stream`: a terminal, and `NO_COLOR` unset or empty
/// (<https://no-color.org>), and `TERM` not `dumb`.
pub fn colour_on(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !unwanted && !dumb
}

fn render_error(error: &Error, colour: bool) -> String {
    let (red, blue, cyan, reset) = match colour {
        true => ("\x1b[1;31m", "\x1b[1;34m", "\x1b[1;36m", "\x1b[0m"),
        false => ("", "", "", ""),
    };
    let mut text = format!("{red}error{reset}: {}\n", error.what);
    if let Some(place) = &error.place {
        text.push_str(&format!("  {blue}at{reset}: {place}\n"));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  {cyan}hint{reset}: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error = Error::config("unknown setting").at("pgweir.yaml:3:5").hint("remove it");
        assert_eq!(render_error(&error, false), "error: unknown setting\n  at: pgweir.yaml:3:5\n  hint: remove it\n");
        assert!(render_error(&error, true).starts_with("\x1b[1;31merror\x1b[0m: unknown"));
    }

    #[test]
    fn a_reader_that_left_is_no_error_and_a_full_disk_is() {
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(written(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
