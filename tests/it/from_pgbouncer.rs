//! `pgweir check --from-pgbouncer`: what comes out is as in `fixtures/pgbouncer`, and valid.

use crate::support::{command, repository, stderr, stdout};

fn converted(name: &str) -> std::process::Output {
    let path = format!("fixtures/pgbouncer/{name}");
    command(&["check", "--from-pgbouncer", &path]).current_dir(repository("")).output().unwrap()
}

#[test]
fn what_comes_out_is_valid_and_as_before() {
    let mut seen = 0;
    for name in ["simple", "full", "cert", "trust"] {
        let output = converted(&format!("{name}.ini"));
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let golden = repository(&format!("fixtures/pgbouncer/{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &output.stdout).unwrap();
        }
        assert_eq!(stdout(&output), std::fs::read_to_string(&golden).unwrap(), "{name} (UPDATE_GOLDEN=1 writes it)");
        let checked = command(&["check", "-c", golden.to_str().unwrap()]).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", stderr(&checked));
        // Each note stands in both places.
        for note in stderr(&output).lines() {
            seen += 1;
            assert!(stdout(&output).contains(note.strip_prefix("note: ").unwrap()), "{note}");
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn what_is_no_configuration_is_said() {
    let output = converted("nothing.ini");
    assert_eq!(output.status.code(), Some(3));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ini");
    for (text, code, said) in [
        ("[pgbouncer]\nlisten_addr = 127.0.0.1\n", 2, "databases"),
        ("[databases\n", 3, "neither a section nor"),
        ("%include a.ini\n", 3, "too deeply"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = command(&["check", "--from-pgbouncer", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}
