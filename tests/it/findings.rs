//! What `pgweir lint` says of the statements in `fixtures/lint`, word for word.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it findings` writes the files anew; read them before you commit them.

use crate::support::{pgweir, repository, stderr};

/// Runs lint in `fixtures/lint` and compares what it prints with the file of that name there.
fn assert_golden(arguments: &[&str], golden: &str, exit: i32) {
    let folder = repository("fixtures/lint");
    let mut all = vec!["lint".to_owned(), "--schema".to_owned(), folder.join("schema.sql").display().to_string()];
    all.extend(arguments.iter().map(|argument| match argument.strip_prefix('@') {
        Some(file) => folder.join(file).display().to_string(),
        None => (*argument).to_owned(),
    }));
    let output = pgweir(&all.iter().map(String::as_str).collect::<Vec<_>>());
    // Where the repository lies is not part of the answer.
    let printed = String::from_utf8(output.stdout.clone()).unwrap().replace(&format!("{}/", folder.display()), "");
    let path = folder.join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(printed, expected, "{golden} differs; stderr: {}", stderr(&output));
    assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
}

#[test]
fn statements_of_a_file_as_text() {
    assert_golden(&["@statements.sql"], "statements.txt", 1);
}

#[test]
fn statements_of_a_file_as_json() {
    assert_golden(&["--format", "json", "--fail-on", "never", "@statements.sql"], "statements.json", 0);
}

#[test]
fn statements_of_a_log_with_their_times() {
    assert_golden(&["@server.log"], "server.txt", 1);
}
