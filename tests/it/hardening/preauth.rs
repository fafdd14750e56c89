//! P: bytes before authentication.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Watch, byte, refused, sent};
use crate::proxy::raw::{Raw, frame, query, startup};

const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// A startup packet with this body behind its version, and a length that is `more` off.
fn packet(body: &[u8], more: i32) -> Vec<u8> {
    let length = (body.len() as i32 + 8 + more) as u32;
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], body].concat()
}

fn cancel(secret: &[u8]) -> Vec<u8> {
    let length = (12 + secret.len()) as u32;
    [&length.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &[0, 0, 0, 7], secret].concat()
}

#[test]
fn p_openings_that_cannot_be() {
    let watch = Watch::new(2);
    let named = b"user\0app\0database\0app\0";
    let options = "-c a.b=c ".repeat(1100);
    let many: Vec<(&str, &str)> = vec![("a", "b"); 10_000];
    let some: Vec<(&str, &str)> = vec![("a", "b"); 400];
    for (what, bytes) in [
        ("a negative length", vec![0xff; 64]),
        ("the most negative length", vec![0x80, 0, 0, 0, 0, 3, 0, 0]),
        ("length 0", vec![0; 8]),
        ("length 3", vec![0, 0, 0, 3, 0, 3, 0, 0]),
        ("length 4", vec![0, 0, 0, 4, 0, 3, 0, 0]),
        ("length 7", vec![0, 0, 0, 7, 0, 3, 0, 0]),
        ("a huge length", vec![0x7f, 0xff, 0xff, 0xff]),
        ("10,001 bytes", packet(&[b'u'; 10_001], 0)),
        ("a length too short", packet(&[&named[..], b"\0"].concat(), -3)),
        ("no terminator", packet(named, 0)),
        ("a name without a value", packet(b"user\0", 0)),
        ("bytes behind the terminator", packet(&[&named[..], b"\0\0\0"].concat(), 0)),
        ("no user", packet(b"\0", 0)),
        ("an empty user", packet(b"user\0\0\0", 0)),
        ("only NULs", packet(&[0; 500], 0)),
        ("no text", packet(b"user\0\xff\xfe\0\0", 0)),
        ("10,000 options", startup("app", "app", &many)),
        ("400 options", startup("app", "app", &some)),
        ("10,000 bytes of options", startup("app", "app", &[("options", &options)])),
        ("options that are none", startup("app", "app", &[("options", "-x -y --")])),
        ("a user of 60 KB", startup(&"u".repeat(60_000), "app", &[])),
        ("a database of 60 KB", startup("app", &"d".repeat(60_000), &[])),
        ("a user of 9 KB", startup(&"u".repeat(9000), "app", &[])),
        ("a user of 64 bytes", startup(&"u".repeat(64), "app", &[])),
        ("protocol 1", vec![0, 0, 0, 8, 0, 1, 0, 0]),
        ("protocol 2", vec![0, 0, 0, 8, 0, 2, 0, 0]),
        ("protocol 4", vec![0, 0, 0, 8, 0, 4, 0, 0]),
        ("an unknown request", vec![0, 0, 0, 8, 4, 210, 22, 55]),
        ("a query behind SSLRequest", [&SSL[..], &startup("app", "app", &[])].concat()),
        ("a query behind GSSENCRequest", [&GSS[..], &startup("app", "app", &[])].concat()),
        ("SSLRequest twice", [SSL, SSL].concat()),
        ("an SSLRequest that is longer", [&[0, 0, 0, 9], &SSL[4..], b"x"].concat()),
        ("a cancel without a secret", cancel(b"")),
        ("a cancel with a secret of 300 bytes", cancel(&[1; 300])),
        ("TLS on a port without it", b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03".to_vec()),
        ("HTTP", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a query", query("select 1")),
        ("a password", frame(b'p', b"secret\0")),
        ("Terminate", frame(b'X', b"")),
        ("nothing", Vec::new()),
    ] {
        let raw = sent(watch.port(), &bytes);
        // Some may wait for the rest of what was announced: there is none. Others have hung up by now.
        let _ = raw.stream.shutdown(std::net::Shutdown::Write);
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | "0A000" | "28000" | ""), "{what}: {code}");
    }
    watch.finish();
}

#[test]
fn p_encryption_is_declined_and_plain_text_goes_on() {
    let watch = Watch::new(2);
    for order in [vec![SSL], vec![GSS], vec![SSL, GSS], vec![GSS, SSL]] {
        let mut raw = Raw::connect(watch.port());
        for request in order {
            raw.send(&request);
            assert_eq!(byte(&mut raw), b'N');
        }
        assert_eq!(raw.log_in("app", "secret", "app", &[]).unwrap().value("select 'in'"), "in");
    }
    // Once is enough of each.
    let mut raw = Raw::connect(watch.port());
    raw.send(&SSL);
    assert_eq!(byte(&mut raw), b'N');
    raw.send(&SSL);
    assert_eq!(refused(raw), "08P01");
    watch.finish();
}

#[test]
fn p_newer_protocols_are_negotiated() {
    let watch = Watch::new(2);
    for (minor, more) in [(2u8, &[][..]), (9, &[][..]), (0, &[("_pq_.unknown", "1")][..])] {
        let mut packet = startup("app", "app", more);
        packet[7] = minor;
        let mut raw = Raw::connect(watch.port());
        raw.send(&packet);
        let (tag, body) = raw.read();
        match (minor, more.len()) {
            (2, 0) => assert_eq!(tag, b'R'),
            (9, _) => assert_eq!((tag, &body[..]), (b'v', &[0, 3, 0, 2, 0, 0, 0, 0][..])),
            _ => assert_eq!((tag, &body[8..]), (b'v', &b"_pq_.unknown\0"[..])),
        }
    }
    watch.finish();
}

#[test]
fn p_messages_before_authentication_are_not_run() {
    let watch = Watch::new(2);
    let behind = |bytes: &[u8]| [&startup("app", "app", &[])[..], bytes].concat();
    let insert = "insert into t values (666, 'nobody')";
    for (what, bytes) in [
        ("a query", behind(&query(insert))),
        ("a query and a password", behind(&[query(insert), frame(b'p', b"secret\0")].concat())),
        ("a second startup packet", behind(&startup("app", "app", &[]))),
        ("a cancel", behind(&cancel(&[1, 2, 3, 4]))),
        ("an SSLRequest", behind(&SSL)),
        ("COPY data", behind(&frame(b'd', b"666\tnobody\n"))),
    ] {
        let raw = sent(watch.port(), &bytes);
        raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let code = refused(raw);
        assert!(matches!(code.as_str(), "08P01" | ""), "{what}: {code}");
    }
    assert_eq!(watch.server("select count(*) from t"), "0");
    watch.finish();
}

#[test]
fn p_slowloris_does_no_harm() {
    let watch = Watch::with(2, "limits: {login_timeout: 1s}\n");
    let packet = startup("app", "app", &[]);
    let since = Instant::now();
    let mut slow: Vec<Raw> = (0..300).map(|_| Raw::connect(watch.port())).collect();
    let mut open = slow.len();
    for byte in packet.iter().cycle() {
        open = slow.iter_mut().filter_map(|raw| raw.stream.write_all(&[*byte]).ok()).count();
        if open == 0 || since.elapsed() > Duration::from_secs(10) {
            break;
        }
        // Others come in all the same.
        let asked = Instant::now();
        assert_eq!(watch.client().value("select 1"), "1");
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(open, 0, "{open} may be slow for ever");
    watch.finish();
}
