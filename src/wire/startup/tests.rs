//! Opening packets, good and hostile.

use proptest::prelude::*;

use super::*;

fn packet(version: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
    packet.extend(version.to_be_bytes());
    packet.extend(body);
    packet
}

fn startup(body: &[u8]) -> Result<Startup, Refused> {
    match parse(&packet(196_608, body))? {
        Some((Opening::Startup(startup), _)) => Ok(startup),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_a_session() {
    let startup =
        startup(b"user\0bob\0options\0-c a.b=1 --search-path=x\\ y -cz=\0_pq_.x\0on\0TimeZone\0UTC\0\0").unwrap();
    assert_eq!((startup.user.as_str(), startup.database.as_str()), ("bob", "bob"));
    let settings: Vec<_> = startup.settings.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(settings, ["a.b=1", "search_path=x y", "z=", "TimeZone=UTC"]);
    assert_eq!(startup.protocol_options, ["_pq_.x"]);
}

#[test]
fn refuses_hostile_layouts() {
    for body in [&b"user\0bob\0"[..], b"user\0bob", b"user\0bob\0\0x", b"user", b""] {
        assert_eq!(startup(body).unwrap_err().code, "08P01", "{body:?}");
    }
    assert_eq!(startup(b"\0").unwrap_err().code, "28000");
    assert_eq!(startup(b"user\0\0\0").unwrap_err().code, "28000");
    assert_eq!(startup(b"user\0\xff\0\0").unwrap_err().code, "08P01");
    assert_eq!(startup(b"user\0a\0options\0-d 5\0\0").unwrap_err().code, "0A000");
    let many: Vec<u8> = (0..10_000 / 6).flat_map(|_| *b"aa\0bb\0").collect();
    assert_eq!(startup(&many[..6 * 300]).unwrap_err().code, "08P01");
    let long = [b"user\0".as_slice(), &[b'a'; 64], b"\0\0"].concat();
    assert_eq!(startup(&long).unwrap_err().code, "08P01");
}

#[test]
fn refuses_wrong_lengths_and_versions() {
    assert_eq!(parse(&[0, 0, 0]), Ok(None));
    for length in [0u32, 4, 7, 10_001, u32::MAX, 0x8000_0000] {
        assert_eq!(parse(&length.to_be_bytes()).unwrap_err().code, "08P01");
    }
    assert_eq!(parse(&packet(2 << 16, b"\0")).unwrap_err().code, "0A000");
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().code, "08P01");
    assert_eq!(parse(&packet(SSL, b"x")).unwrap_err().code, "08P01");
    assert_eq!(parse(&packet(SSL, b"")), Ok(Some((Opening::Ssl, 8))));
    assert_eq!(parse(&packet(CANCEL, b"")).unwrap_err().code, "08P01");
    assert_eq!(parse(&packet(CANCEL, &[0; 300])).unwrap_err().code, "08P01");
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&packet(196_608, &bytes));
    }
}
