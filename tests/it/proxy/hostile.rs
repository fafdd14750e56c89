//! Bytes that no honest client sends; a sentinel must not notice.

use std::io::Read;

use super::Stage;
use super::raw::{Raw, field, frame, startup};

/// Whether the other side closes, or says an error and closes; gives the error's SQLSTATE.
fn refused(mut raw: Raw) -> String {
    let mut code = String::new();
    while let Some((tag, body)) = raw.try_read() {
        if tag == b'E' {
            code = field(&body, b'C');
        }
        assert_ne!(tag, b'Z', "it was let in");
    }
    code
}

fn sent(port: u16, bytes: &[u8]) -> Raw {
    let mut raw = Raw::connect(port);
    raw.send(bytes);
    raw
}

#[test]
fn before_authentication() {
    let stage = Stage::new(1);
    let port = stage.proxy.port();
    let mut sentinel = stage.client();
    let ssl = [0, 0, 0, 8, 4, 210, 22, 47];
    let long = startup(&"u".repeat(9000), "app", &[]);
    let many: Vec<(&str, &str)> = vec![("a", "b"); 400];
    for (what, bytes) in [
        ("negative length", vec![0xff; 64]),
        ("short length", vec![0, 0, 0, 3, 0, 3, 0, 0]),
        ("huge length", vec![0x7f, 0xff, 0xff, 0xff]),
        ("http", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("no terminator", [&[0u8, 0, 0, 17, 0, 3, 0, 0][..], b"user\0app\0"].concat()),
        ("old protocol", vec![0, 0, 0, 8, 0, 2, 0, 0]),
        ("a long user", long),
        ("many options", startup("app", "app", &many)),
        ("a query behind SSLRequest", [&ssl[..], &startup("app", "app", &[])].concat()),
        ("SSLRequest twice", [ssl, ssl].concat()),
    ] {
        let code = refused(sent(port, &bytes));
        assert!(matches!(code.as_str(), "08P01" | "0A000" | ""), "{what}: {code}");
        assert_eq!(sentinel.value("select 'me'"), "me", "{what}");
    }
    // Without TLS configured, SSLRequest and GSSENCRequest are declined and the session goes on in plain text.
    for code in [47u8, 48] {
        let mut raw = sent(port, &[0, 0, 0, 8, 4, 210, 22, code]);
        let mut answer = [0; 1];
        raw.stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N");
        raw.send(&startup("app", "app", &[]));
        assert_eq!(raw.read().0, b'R');
    }
}

#[test]
fn during_authentication() {
    let stage = Stage::new(1);
    let port = stage.proxy.port();
    let mut sentinel = stage.client();
    let mechanism =
        |length: u32, data: &[u8]| frame(b'p', &[b"SCRAM-SHA-256\0".as_slice(), &length.to_be_bytes(), data].concat());
    for (what, bytes) in [
        ("a query instead", frame(b'Q', b"select 1\0")),
        ("an empty message", frame(b'p', b"")),
        ("another mechanism", frame(b'p', b"PLAIN\0\0\0\0\0")),
        ("a negative length", mechanism(u32::MAX, b"n,,n=,r=abc")),
        ("a length that lies", mechanism(5, b"n,,n=,r=abc")),
        ("no nonce", mechanism(8, b"n,,n=,r=")),
        ("channel binding that was not offered", mechanism(20, b"p=tls-unique,,n=,r=a")),
        ("a nonce of 60 KB", mechanism(60_011, &[b"n,,n=,r=".as_slice(), &[b'x'; 60_003]].concat())),
        ("a frame with a short length", vec![b'p', 0, 0, 0, 1]),
    ] {
        let mut raw = sent(port, &startup("app", "app", &[]));
        assert_eq!(raw.read().0, b'R');
        raw.send(&bytes);
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | ""), "{what}: {code}");
        assert_eq!(sentinel.value("select 'me'"), "me", "{what}");
    }
}

#[test]
fn an_unknown_user_looks_like_a_wrong_password() {
    let stage = Stage::new(1);
    let error = |user: &str, password: &str| {
        let body = Raw::try_login(stage.proxy.port(), user, password, "app", &[]).err().expect("it was let in");
        (field(&body, b'C'), field(&body, b'M').replace(user, "USER"))
    };
    let wrong = error("app", "wrong");
    assert_eq!(wrong.0, "28P01");
    assert_eq!(error("nobody", "secret"), wrong);
    // A wrong password stays wrong on a warm pool; another user's is no better.
    stage.client().query("select 1");
    assert_eq!(error("app", "other"), wrong);
    let missing = Raw::try_login(stage.proxy.port(), "app", "secret", "nowhere", &[]).err().unwrap();
    assert_eq!(field(&missing, b'C'), "3D000");
}

#[test]
fn after_authentication() {
    let stage = Stage::new(1);
    let mut sentinel = stage.client();
    for (what, bytes) in [
        ("an unknown type", frame(b'~', b"x")),
        ("a password", frame(b'p', b"x\0")),
        ("a short length", vec![b'Q', 0, 0, 0, 2]),
        ("a huge length", vec![b'Q', 0x7f, 0xff, 0xff, 0xff]),
        ("a query without terminator", frame(b'Q', b"select 1")),
        ("an empty Query", frame(b'Q', b"")),
        ("a Parse without types", frame(b'P', b"a\0select 1\0")),
        ("a Parse that promises types", frame(b'P', b"a\0select 1\0\xff\xff")),
        ("a Bind without names", frame(b'B', b"abc")),
        ("an empty Bind", frame(b'B', b"")),
        ("a Describe of nothing", frame(b'D', b"")),
        ("a Describe of a what", frame(b'D', b"Xa\0")),
        ("a Close without terminator", frame(b'C', b"Sabc")),
        ("a large Bind without names", frame(b'B', &vec![b'x'; 100_000])),
    ] {
        let mut raw = stage.client();
        raw.send(&bytes);
        assert_eq!(refused(raw), "08P01", "{what}");
        assert_eq!(sentinel.value("select 'me'"), "me", "{what}");
    }
    // What the server itself objects to leaves the client connected.
    let mut raw = stage.client();
    assert_eq!(raw.talk(&[frame(b'E', b"nope\0\0\0\0\0"), super::raw::sync()], 1), "E:34000 Z:I");
    assert_eq!(raw.talk(&[frame(b'B', b"\0\0\0\0\0\x05\0\0"), super::raw::sync()], 1), "E:26000 Z:I");
    assert_eq!(raw.query(""), "I Z:I");
}
