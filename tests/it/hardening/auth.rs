//! A: authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::{Watch, refused, sent};
use crate::proxy::raw::{Raw, field, frame, query, startup};

/// SASLInitialResponse that claims this length.
fn first(length: u32, data: &[u8]) -> Vec<u8> {
    frame(b'p', &[b"SCRAM-SHA-256\0".as_slice(), &length.to_be_bytes(), data].concat())
}

fn honest(data: &[u8]) -> Vec<u8> {
    first(data.len() as u32, data)
}

/// A client that was asked for SCRAM.
fn asked(port: u16) -> Raw {
    let mut raw = sent(port, &startup("app", "app", &[]));
    assert_eq!(raw.read().0, b'R');
    raw
}

/// A client in the middle of SCRAM with the right password: its last message is not sent yet.
fn halfway(port: u16) -> (Raw, Vec<u8>) {
    let mut raw = asked(port);
    let mut scram = ScramSha256::new(b"secret", ChannelBinding::unsupported());
    raw.send(&honest(scram.message()));
    let (tag, body) = raw.read();
    assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 11][..]));
    scram.update(&body[4..]).unwrap();
    (raw, scram.message().to_vec())
}

#[test]
fn a_first_messages_that_cannot_be() {
    let watch = Watch::new(2);
    let long = [b"n,,n=,r=".as_slice(), &[b'x'; 60_003]].concat();
    for (what, bytes) in [
        ("a query instead", query("select 1")),
        ("an empty message", frame(b'p', b"")),
        ("a cleartext password", frame(b'p', b"secret\0")),
        ("another mechanism", frame(b'p', b"PLAIN\0\0\0\0\0")),
        ("the stronger mechanism that was not offered", frame(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x01n")),
        ("no length", frame(b'p', b"SCRAM-SHA-256\0")),
        ("a length of -1 with data", first(u32::MAX, b"n,,n=,r=abc")),
        ("a length of -1 and nothing else", first(u32::MAX, b"")),
        ("the largest length", first(0x7fff_ffff, b"n,,n=,r=abc")),
        ("the most negative length", first(0x8000_0000, b"n,,n=,r=abc")),
        ("a length that is too short", first(5, b"n,,n=,r=abc")),
        ("a length that is one too long", first(12, b"n,,n=,r=abc")),
        ("an empty first message", honest(b"")),
        ("no nonce", honest(b"n,,n=,r=")),
        ("no user", honest(b"n,,r=abc")),
        ("an authorization identity", honest(b"n,a=postgres,n=,r=abc")),
        ("a mandatory extension", honest(b"n,,m=x,n=,r=abc")),
        ("channel binding that was not offered", honest(b"p=tls-unique,,n=,r=abc")),
        ("NULs", honest(b"n,,n=\0,r=abc\0")),
        ("no text", honest(b"n,,n=,r=\xff\xfe")),
        ("a final message first", honest(b"c=biws,r=abc,p=AAAA")),
        ("a nonce of 60 KB", honest(&long)),
        ("a short frame", vec![b'p', 0, 0, 0, 3]),
        ("a negative frame", vec![b'p', 0xff, 0xff, 0xff, 0xff]),
        ("a huge frame", vec![b'p', 0x7f, 0xff, 0xff, 0xff]),
    ] {
        let mut raw = asked(watch.port());
        raw.send(&bytes);
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | "28P01" | "28000" | ""), "{what}: {code}");
    }
    watch.finish();
}

#[test]
fn a_last_messages_that_cannot_be() {
    let watch = Watch::new(2);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    // What a client says in its last message, made from the right one.
    type Spoil = fn(&str) -> Vec<u8>;
    let spoils: [(&str, Spoil); 14] = [
        ("nothing", |_| Vec::new()),
        ("NULs", |_| vec![0; 100]),
        ("no text", |_| vec![0xff; 100]),
        ("no proof", |last| last.split(",p=").next().unwrap().into()),
        ("an empty proof", |last| format!("{},p=", last.split(",p=").next().unwrap()).into()),
        ("a proof of zeros", |last| {
            format!("{},p={}", last.split(",p=").next().unwrap(), STANDARD.encode([0; 32])).into()
        }),
        ("a longer proof", |last| {
            format!("{},p={}", last.split(",p=").next().unwrap(), STANDARD.encode([7; 64])).into()
        }),
        ("two proofs", |last| format!("{last},p={}", STANDARD.encode([0; 32])).into()),
        ("another nonce", |last| last.replace(",r=", ",r=x").into()),
        ("a nonce cut short", |last| {
            let (head, proof) = last.split_once(",p=").unwrap();
            format!("{},p={proof}", &head[..head.len() - 1]).into()
        }),
        ("another binding", |last| last.replace("c=biws", "c=eSws").into()),
        ("no binding", |last| last.replace("c=biws,", "").into()),
        ("the first message again", |_| b"n,,n=,r=abc".to_vec()),
        ("60 KB behind it", |last| [last.as_bytes(), &[b','; 60_000]].concat()),
    ];
    for (what, spoil) in spoils {
        let (mut raw, last) = halfway(watch.port());
        raw.send(&frame(b'p', &spoil(&text(last))));
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | "28P01" | ""), "{what}: {code}");
    }
    // Another message in its place, or none.
    for (what, bytes) in [("a query", query("select 1")), ("Sync", frame(b'S', b"")), ("Terminate", frame(b'X', b""))] {
        let (mut raw, _) = halfway(watch.port());
        raw.send(&bytes);
        raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | ""), "{what}: {code}");
    }
    watch.finish();
}

#[test]
fn a_proof_serves_once() {
    let watch = Watch::new(2);
    // Two exchanges side by side: the proof of one is nothing to the other.
    let (mut one, last_of_one) = halfway(watch.port());
    let (mut other, last_of_other) = halfway(watch.port());
    one.send(&frame(b'p', &last_of_other));
    assert_eq!(refused(one), "08P01");
    // Said twice, the second is a message that does not belong into a session.
    let twice = [frame(b'p', &last_of_other), frame(b'p', &last_of_other)].concat();
    other.send(&twice);
    let mut heard = Vec::new();
    while let Some((tag, body)) = other.try_read() {
        heard.push((tag, field(&body, b'C')));
    }
    assert_eq!(heard.last(), Some(&(b'E', "08P01".to_owned())));
    let mut late = halfway(watch.port()).0;
    late.send(&frame(b'p', &last_of_one));
    assert_eq!(refused(late), "08P01");
    watch.finish();
}

#[test]
fn a_password_after_its_turn() {
    let watch = Watch::new(2);
    for state in ["", "begin"] {
        let mut raw = watch.client();
        raw.query(state);
        raw.send(&frame(b'p', b"secret\0"));
        assert_eq!(refused(raw), "08P01");
    }
    watch.calms();
    watch.finish();
}

#[test]
fn a_wrong_password_stays_wrong_on_a_warm_pool() {
    let watch = Watch::new(2);
    let error = |user: &str, password: &str, database: &str| {
        let body = Raw::try_login(watch.port(), user, password, database, &[]).err().expect("it was let in");
        (field(&body, b'C'), field(&body, b'M').replace(user, "USER"))
    };
    let wrong = error("app", "wrong", "app");
    assert_eq!(wrong.0, "28P01");
    for _ in 0..3 {
        assert_eq!(watch.client().value("select 1"), "1");
        for password in ["", "other", "Secret", "secret ", "secre", "postgres"] {
            assert_eq!(error("app", password, "app"), wrong, "{password}");
        }
        // An unknown user looks like one with a wrong password, whatever else is wrong with it.
        for user in ["nobody", "postgres", "APP", "app\u{a0}"] {
            assert_eq!(error(user, "secret", "app"), wrong, "{user}");
            assert_eq!(error(user, "secret", "nowhere"), wrong, "{user}");
        }
        assert_eq!(error("app", "wrong", "nowhere"), wrong);
    }
    let missing = Raw::try_login(watch.port(), "app", "secret", "nowhere", &[]).err().unwrap();
    assert_eq!(field(&missing, b'C'), "3D000");
    watch.finish();
}

#[test]
fn a_role_that_may_not_log_in_does_not() {
    let databases = |port: u16| {
        format!(
            "  own:\n    primary: \"postgres://127.0.0.1:{port}/postgres?sslmode=disable\"\n    \
             pool: {{size: 2, wait_timeout: 3s}}\n"
        )
    };
    let watch = Watch::new(2);
    let port = watch.cluster.port();
    let more =
        format!("users: {{late: {{password: late}}, gone: {{password: gone}}}}\ndatabases:\n{}", databases(port));
    let proxy = crate::support::Proxy::start(&more);
    watch.cluster.query("postgres", "create role late login password 'late' valid until '2001-01-01'").unwrap();
    watch.cluster.query("postgres", "create role gone login password 'another'").unwrap();
    for user in ["late", "gone"] {
        let body = Raw::try_login(proxy.port(), user, user, "own", &[]).err().expect("it was let in");
        assert_eq!(field(&body, b'C'), "08006", "{user}");
        assert!(field(&body, b'D').contains("28P01"), "{user}: {}", field(&body, b'D'));
    }
    watch.cluster.query("postgres", "alter role late valid until 'infinity'").unwrap();
    let mut late = Raw::login(proxy.port(), "late", "late", "own", &[]);
    assert_eq!(late.value("select current_user"), "late");
    watch.finish();
}

#[test]
fn a_startup_setting_cannot_change_who_one_is() {
    let watch = Watch::new(2);
    watch.cluster.query("postgres", "create role plain").unwrap();
    for settings in [&[("role", "plain")][..], &[("session_authorization", "plain")], &[("options", "-c role=plain")]] {
        // Refused, or the client's own: the sentinels see whether it reaches anybody else.
        if let Ok(mut raw) = Raw::try_login(watch.port(), "app", "secret", "app", settings) {
            assert_eq!(raw.value("select current_user"), "plain");
        }
        watch.sentinels[0].served_again();
    }
    for (name, value) in [("search_path", "evil, pg_catalog"), ("default_transaction_read_only", "on")] {
        let mut raw = Raw::login(watch.port(), "app", "secret", "app", &[(name, value)]);
        assert_eq!(raw.value(&format!("select replace(current_setting('{name}'), ' ', '')")), value.replace(' ', ""));
    }
    watch.sentinels[1].served_again();
    let refused = Raw::try_login(watch.port(), "app", "secret", "app", &[("no_such_setting", "1")]).err().unwrap();
    assert_eq!(field(&refused, b'C'), "42704");
    watch.finish();
}
