//! B: servers that lie, flood, hang up, or mix up their answers.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Watch;
use super::fake::{Fake, Peer, Script, authentication, columns, done, echo, error, greeting, honest, ready, row};
use crate::proxy::raw::{Raw, bind, execute, field, frame, parse, query, shown, statement, sync};

/// A real server with its sentinels, and a database `bad` behind which something else stands.
struct Stage {
    watch: Watch,
    fake: Fake,
}

impl Stage {
    fn new(script: Script) -> Self {
        Self::with(script, "disable")
    }

    fn with(script: Script, sslmode: &str) -> Self {
        let fake = Fake::start(script);
        let more = format!(
            "  bad:\n    primary: \"postgres://postgres:hidden@127.0.0.1:{}/bad?sslmode={sslmode}\"\n    \
             pool: {{size: 2, wait_timeout: 400ms, connect_timeout: 1s}}\n",
            fake.port
        );
        Self { watch: Watch::with(2, &more), fake }
    }

    /// A client of the bad server, or the SQLSTATE that it was refused with.
    fn client(&self) -> Result<Raw, String> {
        let asked = Instant::now();
        let came = Raw::connect(self.watch.port()).log_in("app", "secret", "bad", &[]);
        assert!(asked.elapsed() < Duration::from_secs(8), "the login took {:?}", asked.elapsed());
        came.map_err(|body| field(&body, b'C'))
    }

    /// What a client hears to these messages until it is ready or the connection ends, as text.
    fn heard(&self, messages: &[Vec<u8>]) -> String {
        let mut raw = match self.client() {
            Ok(raw) => raw,
            Err(code) => return format!("login E:{code}"),
        };
        raw.send(&messages.concat());
        let mut frames = Vec::new();
        while let Some(frame) = raw.try_read() {
            let last = frame.0 == b'Z';
            if frame.0 == b'E' {
                eprintln!("heard {}", field(&frame.1, b'M'));
            }
            frames.push(frame);
            if last {
                break;
            }
        }
        shown(&frames)
    }

    /// With an honest server everything is well again.
    fn recovers(self) {
        self.fake.become_(honest());
        let since = Instant::now();
        while self.heard(&[query("select 'well'")]) != "T D:well C:SELECT_1 Z:I" {
            assert!(since.elapsed() < Duration::from_secs(10), "it is not used again");
        }
        self.watch.finish();
    }
}

/// Logs in honestly, and answers each query of a client with these bytes.
fn says(bytes: Vec<u8>) -> Script {
    Arc::new(move |peer| {
        peer.log_in()?;
        let bytes = bytes.clone();
        peer.serve(&mut move |peer, _| peer.send(&bytes))
    })
}

/// Answers the startup packet with these bytes and waits.
fn greets(bytes: Vec<u8>) -> Script {
    Arc::new(move |peer| {
        peer.startup()?;
        peer.send(&bytes)?;
        while peer.read().is_some() {}
        None
    })
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', format!("{name}\0{value}\0").as_bytes())
}

#[test]
fn b_logins_that_cannot_be() {
    let stage = Stage::new(honest());
    let ok = authentication(0, b"");
    let many: Vec<u8> = (0..2000).flat_map(|at| parameter(&format!("p{at}"), "x")).collect();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("no frame", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a negative length", vec![b'R', 0xff, 0xff, 0xff, 0xff]),
        ("a short length", vec![b'R', 0, 0, 0, 3]),
        ("a huge length", vec![b'R', 0x3f, 0xff, 0xff, 0xff]),
        ("an authentication without a kind", frame(b'R', b"\0\0")),
        ("an unknown authentication", authentication(99, b"")),
        ("MD5 without a salt", authentication(5, b"")),
        ("SASL without a mechanism", authentication(10, b"\0")),
        ("SASL with another mechanism", authentication(10, b"PLAIN\0\0")),
        ("SASL without a terminator", authentication(10, b"SCRAM-SHA-256")),
        ("SASL that goes on before it began", authentication(11, b"r=abc,s=YQ==,i=4096")),
        ("SASL that is over before it began", authentication(12, b"v=YQ==")),
        ("an error without a field", error(&[])),
        ("an error without a SQLSTATE", error(&["SFATAL", "Mno"])),
        ("an error with a SQLSTATE of one letter", error(&["SFATAL", "CX", "Mno"])),
        ("an error of 60 KB", error(&["SFATAL", "C28000", &format!("M{}", "x".repeat(60_000))])),
        ("an error without a terminator", frame(b'E', b"SFATAL\0C28")),
        ("ready before authentication", ready(b'I')),
        ("a row before authentication", row("x")),
        ("ready in a transaction", [ok.clone(), ready(b'I'), ready(b'I')].concat()),
        ("a row behind the greeting", [greeting(), row("stale")].concat()),
        ("a parameter without a value", [ok.clone(), frame(b'S', b"a\0")].concat()),
        ("2,000 parameters", [ok.clone(), many].concat()),
        ("a key without a byte", [ok.clone(), frame(b'K', b"")].concat()),
        ("a message that does not belong", [ok.clone(), frame(b'G', b"\0\0\0")].concat()),
        ("silence after authentication", ok),
    ] {
        stage.fake.become_(greets(bytes));
        let code = stage.client().err();
        assert!(matches!(code.as_deref(), Some("08006" | "08P01" | "53300")), "{what}: {code:?}");
    }
    // Nobody can listen in between here, so that it may ask for the password itself; nothing else gets it.
    let heard = stage.fake.heard.lock().unwrap().clone();
    assert!(!heard.windows(6).any(|window| window == b"hidden"), "the password was given away");
    stage.recovers();
}

/// A SCRAM server that goes wrong in the way that these functions say.
fn scram(first: fn(&str) -> Vec<u8>, rest: fn(&mut Peer) -> Option<()>) -> Script {
    Arc::new(move |peer| {
        peer.startup()?;
        peer.send(&authentication(10, b"SCRAM-SHA-256\0\0"))?;
        let (_, body) = peer.read()?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let nonce = text.split("r=").nth(1).unwrap_or_default().to_owned();
        peer.send(&first(&nonce))?;
        peer.read()?;
        rest(peer)
    })
}

#[test]
fn b_scram_that_cannot_be() {
    type First = fn(&str) -> Vec<u8>;
    type Rest = fn(&mut Peer) -> Option<()>;
    fn says(text: String) -> Vec<u8> {
        authentication(11, text.as_bytes())
    }
    let nothing: Rest = |_| None;
    let firsts: [(&str, First); 13] = [
        ("2 billion iterations", |nonce| says(format!("r={nonce}x,s=YQ==,i=2147483647"))),
        ("more iterations than a number holds", |nonce| says(format!("r={nonce}x,s=YQ==,i=99999999999999999999"))),
        ("no iterations", |nonce| says(format!("r={nonce}x,s=YQ==,i=0"))),
        ("a negative number of iterations", |nonce| says(format!("r={nonce}x,s=YQ==,i=-1"))),
        ("a nonce of its own", |_| says("r=abc,s=YQ==,i=4096".to_owned())),
        ("no nonce", |_| says("r=,s=YQ==,i=4096".to_owned())),
        ("a nonce of 60 KB", |nonce| says(format!("r={nonce}{},s=YQ==,i=4096", "x".repeat(60_000)))),
        ("a nonce of 1 MB", |nonce| says(format!("r={nonce}{},s=YQ==,i=4096", "x".repeat(1 << 20)))),
        ("salt that is no base64", |nonce| says(format!("r={nonce}x,s=!!,i=4096"))),
        ("nothing", |_| says(String::new())),
        ("an error", |_| says("e=other-error".to_owned())),
        ("NULs", |_| authentication(11, &[0; 64])),
        // Downgrades: the proof is not asked for.
        ("success instead of the exchange", |_| greeting()),
    ];
    let stage = Stage::new(honest());
    for (what, first) in firsts {
        stage.fake.become_(scram(first, nothing));
        let asked = Instant::now();
        let code = stage.client().err();
        assert!(matches!(code.as_deref(), Some("08006" | "08P01" | "53300")), "{what}: {code:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{what}: {:?}", asked.elapsed());
    }
    let honest_first: First = |nonce| says(format!("r={nonce}x,s=YWJjZGVmZ2g=,i=4096"));
    let rests: [(&str, Rest); 6] = [
        ("success without its own proof", |peer| peer.send(&greeting())),
        ("a wrong proof", |peer| peer.send(&[authentication(12, b"v=AAAA"), greeting()].concat())),
        ("no proof", |peer| peer.send(&[authentication(12, b""), greeting()].concat())),
        ("the exchange again", |peer| peer.send(&authentication(10, b"SCRAM-SHA-256\0\0"))),
        ("clear text after it", |peer| peer.send(&authentication(3, b""))),
        ("a proof of 60 KB", |peer| peer.send(&[authentication(12, &[b'v'; 60_000]), greeting()].concat())),
    ];
    for (what, rest) in rests {
        stage.fake.become_(scram(honest_first, rest));
        let code = stage.client().err();
        assert!(matches!(code.as_deref(), Some("08006" | "08P01" | "53300")), "{what}: {code:?}");
    }
    stage.recovers();
}

#[test]
fn b_bytes_before_its_tls() {
    let stuffed = |bytes: Vec<u8>| -> Script {
        Arc::new(move |peer| {
            peer.startup()?;
            peer.send(&bytes)?;
            let mut rest = Vec::new();
            let _ = peer.stream.read_to_end(&mut rest);
            None
        })
    };
    let stage = Stage::with(stuffed(Vec::new()), "require");
    for (what, bytes) in [
        ("a login behind S", [b"S".to_vec(), greeting()].concat()),
        ("an error behind S", [b"S".to_vec(), error(&["SFATAL", "C28P01", "Mno"])].concat()),
        ("no TLS", b"N".to_vec()),
        ("a login behind N", [b"N".to_vec(), greeting()].concat()),
        ("an error instead", error(&["SFATAL", "C28P01", "Mno"])),
        ("a login instead", greeting()),
        ("no answer that is one", b"?".to_vec()),
        ("nothing", Vec::new()),
    ] {
        stage.fake.become_(stuffed(bytes));
        let code = stage.client().err();
        assert!(matches!(code.as_deref(), Some("08006" | "08P01" | "08001" | "53300")), "{what}: {code:?}");
    }
    stage.watch.finish();
}

#[test]
fn b_answers_that_cannot_be() {
    let stage = Stage::new(honest());
    let good = [columns(), row("x"), done("SELECT 1")].concat();
    let broken = "08P01";
    for (what, bytes, ends) in [
        ("ready without an answer", ready(b'I'), broken),
        ("ready without a status", [good.clone(), frame(b'Z', b"")].concat(), broken),
        ("an unknown status", [good.clone(), ready(b'?')].concat(), broken),
        ("a long ready", [good.clone(), frame(b'Z', b"II")].concat(), broken),
        ("an unknown message", frame(b'~', b""), broken),
        ("a negative length", vec![b'D', 0xff, 0xff, 0xff, 0xff], broken),
        ("a short length", vec![b'D', 0, 0, 0, 2], broken),
        ("a length above a gigabyte", vec![b'D', 0x7f, 0xff, 0xff, 0xff], broken),
        ("a request for a password", authentication(3, b""), broken),
        ("a key", frame(b'K', &[0; 8]), broken),
        ("an answer to Parse", frame(b'1', b""), broken),
        ("an answer to Bind", frame(b'2', b""), broken),
        ("parameters of nothing", frame(b't', b"\0\0"), broken),
        ("a parameter of 100 KB", parameter("a", &"x".repeat(100_000)), broken),
        ("a parameter without a value", frame(b'S', b"abc\0"), broken),
        ("5,000 parameters", (0..5000).flat_map(|at| parameter(&format!("p{at:05}"), "x")).collect(), broken),
    ] {
        stage.fake.become_(says(bytes));
        let heard = stage.heard(&[query("select 'x'")]);
        assert!(heard.ends_with(&format!("E:{ends}")), "{what}: {heard}");
    }
    for (what, bytes, answer) in [
        ("an error without a field", [error(&[]), ready(b'I')].concat(), "E: Z:I"),
        ("an error without a SQLSTATE", [error(&["SERROR", "Mno"]), ready(b'I')].concat(), "E: Z:I"),
        (
            "a flood of notices",
            [frame(b'N', b"SNOTICE\0Mx\0\0").repeat(20_000), good.clone(), ready(b'I')].concat(),
            "T D:x C:SELECT_1 Z:I",
        ),
        (
            "a flood of notifications",
            [frame(b'A', b"\0\0\0\x01a\0b\0").repeat(20_000), good.clone(), ready(b'I')].concat(),
            "T D:x C:SELECT_1 Z:I",
        ),
        (
            "one parameter 20,000 times",
            [parameter("a", "x").repeat(20_000), good.clone(), ready(b'I')].concat(),
            "T D:x C:SELECT_1 Z:I",
        ),
    ] {
        stage.fake.become_(says(bytes));
        // Connections of the case before may be left.
        let mut heard = String::new();
        for _ in 0..20 {
            heard = stage.heard(&[query("select 'x'")]);
            if heard == answer {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(heard, answer, "{what}");
    }
    stage.recovers();
}

#[test]
fn b_a_gigabyte_that_never_comes() {
    let script: Script = Arc::new(|peer| {
        peer.log_in()?;
        peer.serve(&mut |peer, _| {
            peer.send(&columns())?;
            peer.send(&[b'D', 0x3f, 0xff, 0xff, 0xff, 0, 1])?;
            peer.send(&vec![b'x'; 1 << 20])?;
            None
        })
    });
    let mut stage = Stage::new(script);
    let resident = |stage: &mut Stage| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", stage.watch.proxy.child().id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = resident(&mut stage);
    for _ in 0..5 {
        let mut raw = stage.client().unwrap();
        raw.send(&query("select 'x'"));
        let mut bytes = Vec::new();
        let _ = raw.stream.read_to_end(&mut bytes);
        // Nothing of ours stands behind the beginning of a row: it would be taken for the row's rest.
        assert_eq!(bytes.len(), columns().len() + 7 + (1 << 20));
        assert!(bytes.ends_with(b"xxxx"));
    }
    let after = resident(&mut stage);
    assert!(after < before + 20_000, "{before} KiB became {after} KiB");
    stage.recovers();
}

#[test]
fn b_a_close_at_any_byte() {
    let answer: Vec<u8> = echo(b"select 'a row that is long enough'");
    let allowance = Arc::new(AtomicUsize::new(usize::MAX));
    let shared = allowance.clone();
    let script: Script = Arc::new(move |peer| {
        peer.log_in()?;
        let allowance = shared.clone();
        peer.serve(&mut move |peer, sql| {
            peer.limit(allowance.clone());
            peer.send(&echo(sql))
        })
    });
    let stage = Stage::new(script);
    for count in (0..answer.len()).step_by(5).chain([answer.len()]) {
        // What the proxy itself asks is answered whole.
        allowance.store(usize::MAX, Ordering::SeqCst);
        let mut tries = 0;
        let mut raw = loop {
            if let Ok(raw) = stage.client() {
                break raw;
            }
            tries += 1;
            assert!(tries < 100, "nobody is let in any more after {count} bytes");
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        allowance.store(count, Ordering::SeqCst);
        raw.send(&query("select 'a row that is long enough'"));
        if count == answer.len() {
            assert_eq!(shown(&raw.until_ready(1)), "T D:a row that is long enough C:SELECT_1 Z:I");
            break;
        }
        let mut bytes = Vec::new();
        let _ = raw.stream.read_to_end(&mut bytes);
        // What it hears is a beginning of the answer, and after whole messages perhaps an error.
        let (mut whole, mut frames) = (0, &answer[..]);
        while let Some(length) =
            frames.get(1..5).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()) as usize + 1)
        {
            if whole + length > count {
                break;
            }
            whole += length;
            frames = &frames[length..];
        }
        if bytes.len() > count || bytes.get(whole) == Some(&b'E') {
            assert!(answer.starts_with(&bytes[..whole]), "after {count} bytes");
            assert_eq!(bytes.get(whole), Some(&b'E'), "after {count} bytes");
            assert_eq!(field(&bytes[whole + 5..], b'C'), "08006");
        } else {
            assert!(answer.starts_with(&bytes), "after {count} bytes");
        }
    }
    // The same while it logs in; a client is refused or served, and never hangs.
    let hello = greeting().len();
    for count in (0..hello).step_by(97) {
        let script: Script = Arc::new(move |peer| {
            peer.limit(Arc::new(AtomicUsize::new(count)));
            peer.log_in()
        });
        stage.fake.become_(script);
        if let Ok(mut raw) = stage.client() {
            // Its greeting was known from before.
            raw.send(&query("select 'x'"));
            let (tag, body) = raw.read();
            assert_eq!(tag, b'E');
            assert!(matches!(field(&body, b'C').as_str(), "08006" | "53300"));
        }
    }
    stage.recovers();
}

#[test]
fn b_answers_in_pieces() {
    // A pipeline with answers of the server and of the proxy itself in turns, cut at every byte.
    let cut = Arc::new(AtomicUsize::new(0));
    let shared = cut.clone();
    let script: Script = Arc::new(move |peer| {
        peer.log_in()?;
        let mut held = Vec::new();
        loop {
            let (tag, body) = peer.read()?;
            match tag {
                b'X' => return None,
                b'Q' => held.extend([done("SELECT 0"), ready(b'I')].concat()),
                b'P' => held.extend(frame(b'1', b"")),
                b'B' => held.extend(frame(b'2', b"")),
                b'C' => held.extend(frame(b'3', b"")),
                b'E' => held.extend([row("a value"), done("SELECT 1")].concat()),
                b'S' => held.extend(ready(b'I')),
                b'D' if body.starts_with(b"S") => held.extend([frame(b't', b"\0\0"), columns()].concat()),
                _ => {}
            }
            if matches!(tag, b'Q' | b'S' | b'H') {
                let at = shared.load(Ordering::SeqCst).min(held.len());
                peer.send(&held[..at])?;
                std::thread::sleep(Duration::from_millis(2));
                peer.send(&held[at..])?;
                held.clear();
            }
        }
    });
    let stage = Stage::new(script);
    let mut raw = stage.client().unwrap();
    let messages = [
        parse("s", "select 'a value'"),
        statement(b'D', "s"),
        bind("s", &[]),
        execute(),
        statement(b'C', "s"),
        parse("s", "select 'a value'"),
        bind("s", &[]),
        execute(),
        statement(b'C', "s"),
        sync(),
    ];
    for at in 0..140 {
        cut.store(at, Ordering::SeqCst);
        let heard = raw.talk(&messages, 1);
        assert_eq!(heard, "1 t T 2 D:a value C:SELECT_1 3 1 2 D:a value C:SELECT_1 3 Z:I", "cut at {at}");
    }
    stage.recovers();
}
