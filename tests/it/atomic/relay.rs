//! A wire between pgweir and a shard that can be cut at a word.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// What happens when the word comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    Never,
    /// The server never hears it.
    Before,
    /// The server hears it, and its answer is lost.
    After,
}

/// Passes connections on to a server.
pub struct Relay {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    server: AtomicU16,
    word: Mutex<Vec<u8>>,
    cut: AtomicU8,
    /// Nothing gets through, and nobody gets in.
    is_down: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            server: AtomicU16::new(server),
            word: Mutex::default(),
            cut: AtomicU8::new(Cut::Never as u8),
            is_down: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.is_down.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server.load(Ordering::SeqCst))) else {
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    shared.open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let state = shared.clone();
                std::thread::spawn(move || pass(client, server, &state));
                std::thread::spawn(move || back(from_server, to_client));
            }
        });
        Self { port, state }
    }

    /// At the next statement from pgweir that is `word` the connection is cut; with `stays_down` all are, until [`Relay::up`].
    pub fn cut_at(&self, word: &str, cut: Cut, stays_down: bool) {
        self.cut_at_start(&format!("{word}\0"), cut, stays_down);
    }

    /// The same at one that contains it.
    pub fn cut_at_start(&self, word: &str, cut: Cut, stays_down: bool) {
        *self.state.word.lock().unwrap() = [word.as_bytes(), if stays_down { b"!" } else { b"" }].concat();
        self.state.cut.store(cut as u8, Ordering::SeqCst);
    }

    pub fn down(&self) {
        self.state.down_but(None);
    }

    /// Another server is there from now on.
    pub fn up_with(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
        self.up();
    }

    pub fn up(&self) {
        self.state.is_down.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn down_but(&self, kept: Option<SocketAddr>) {
        self.is_down.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            if kept.is_none() || stream.local_addr().ok() != kept {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn back(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let armed = state.word.lock().unwrap().clone();
        let word = armed.strip_suffix(b"!").unwrap_or(&armed);
        let comes_by = !word.is_empty() && bytes[..count].windows(word.len()).any(|window| window == word);
        let cut = state.cut.load(Ordering::SeqCst);
        if comes_by && cut != Cut::Never as u8 {
            state.cut.store(Cut::Never as u8, Ordering::SeqCst);
            if armed.ends_with(b"!") {
                // All but this one, on which the server is to hear it.
                state.down_but(to.local_addr().ok());
            }
            let _ = from.shutdown(Shutdown::Both);
            if cut == Cut::After as u8 {
                let _ = to.write_all(&bytes[..count]);
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
