//! Before a client has proven who it is: little is read of it, for a short time, of few at once; and what it knows is not
//! written down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::Stage;
use crate::proxy::raw::{Raw, startup};
use crate::support::Proxy;

#[test]
fn those_who_never_finish_do_not_keep_others_out() {
    let mut stage = Stage::new(1);
    let text = format!("limits: {{max_logins: 8, login_timeout: 60s}}\n{}", super::super::config(&stage.cluster, 2));
    stage.proxy = Proxy::start(&text);
    let mut sentinel = stage.client();
    let packet = startup("app", "app", &[]);
    let mut slow: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", stage.proxy.port())).unwrap()).collect();
    let is_open = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    // Eight may stay; the others are closed without an answer.
    let started = Instant::now();
    while slow.iter_mut().map(is_open).filter(|open| *open).count() > 8 {
        assert!(started.elapsed() < Duration::from_secs(8), "they were not closed");
    }
    for byte in packet.iter().take(20) {
        for stream in &mut slow {
            // Those that were closed cannot be written to.
            let _ = stream.write_all(&[*byte]);
        }
        assert_eq!(sentinel.value("select 'me'"), "me");
        assert_eq!(Raw::login(stage.proxy.port(), "app", "secret", "app", &[]).value("select 'new'"), "new");
    }
}

#[test]
fn a_login_that_takes_too_long_is_over() {
    let mut stage = Stage::new(1);
    let text = format!("limits: {{login_timeout: 500ms}}\n{}", super::super::config(&stage.cluster, 2));
    stage.proxy = Proxy::start(&text);
    // Silent from the start, within the startup packet, and before the proof.
    for sent in [&b""[..], &[0, 0, 0, 50, 0], &startup("app", "app", &[])] {
        let mut raw = Raw::connect(stage.proxy.port());
        raw.send(sent);
        while raw.try_read().is_some() {}
    }
}

#[test]
fn passwords_are_not_written_down() {
    let mut stage = Stage::new(1);
    let text = super::super::config(&stage.cluster, 2).replace("secret", "hunter2").replace("other", "hunter3");
    stage.proxy = Proxy::start_with(&text, |command| {
        command.env("PGWEIR_LOG", "trace");
    });
    Raw::login(stage.proxy.port(), "app", "hunter2", "app", &[]).query("select 1");
    assert!(Raw::try_login(stage.proxy.port(), "app", "hunter4", "app", &[]).is_err());
    assert!(Raw::try_login(stage.proxy.port(), "eve", "hunter2", "app", &[]).is_err());
    let log = stage.proxy.log();
    assert!(log.contains("password authentication failed"), "{log}");
    // The servers' password is "postgres", as is the user there: its URL must not be in the log.
    for secret in ["hunter", "SCRAM-SHA-256$", "postgres:postgres"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
