//! Where the process listens: for clients, for questions about its health, and for the process after it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::{Config, Listen};
use crate::error::{Error, Result};
use crate::net::listener::{Acceptor, Listener};
use crate::proxy::crew::Crew;
use crate::proxy::handover::{self, Heritage, Sockets};
use crate::web;

/// Permissions of the socket where the next process asks.
const CONTROL_MODE: u32 = 0o600;

/// One place where the proxy listens.
#[derive(Debug)]
pub struct Place {
    /// As the configuration says it, and the path where it is a unix socket.
    pub said: (Listen, Option<PathBuf>),
    /// The socket.
    pub listener: Listener,
    accepting: Option<JoinHandle<()>>,
}

impl Place {
    /// Binds the socket, unless it came from the process before.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(listen: &Listen, config: &Config, heritage: Option<&mut Heritage>) -> Result<Self> {
        let path = listen.socket_path(&config.listen);
        let key = handover::key(&listen.to_string(), path.as_deref());
        let inherited = heritage.and_then(|heritage| heritage.take(&key));
        let bound = match (inherited, listen, &path) {
            (Some(socket), _, path) => Listener::inherited(socket, path.as_deref()),
            (None, Listen::Tcp(address), _) => Listener::tcp(&address.host, address.port),
            (None, Listen::Unix { .. }, path) => {
                Listener::unix(path.as_deref().unwrap_or("".as_ref()), config.unix_socket_permissions.0)
            }
        };
        let shown = path.as_ref().map_or_else(|| listen.to_string(), |path| path.display().to_string());
        let hint = "choose another `listen`, or stop what listens there";
        let listener = bound.map_err(|error| Error::server(format!("cannot listen: {error}")).at(shown).hint(hint))?;
        Ok(Self { said: (listen.clone(), path), listener, accepting: None })
    }

    /// What tells it apart from others where it is handed over.
    pub fn key(&self) -> String {
        handover::key(&self.said.0.to_string(), self.said.1.as_deref())
    }

    /// Accepts clients, on the event loop of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(&mut self, crew: &Arc<Crew>) -> Result<()> {
        let acceptor = self.listener.acceptor();
        let acceptor = acceptor.map_err(|error| Error::internal(format!("cannot accept: {error}")))?;
        self.accepting = Some(tokio::spawn(accept(acceptor, crew.clone())));
        Ok(())
    }

    /// Accepts nobody any more. Who has connected and was not accepted yet waits.
    pub fn shut(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shut();
    }
}

async fn accept(acceptor: Acceptor, crew: Arc<Crew>) {
    loop {
        match acceptor.accept().await {
            Ok(caller) => crew.deal(caller),
            Err(error) => {
                // Out of descriptors, most likely: those that are connected go on, and new ones wait.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// All sockets at which the process listens.
#[derive(Debug)]
pub struct Ports {
    /// For clients.
    pub places: Vec<Place>,
    /// For health and metrics, until it is served.
    admin: Option<(String, TcpListener)>,
    /// For the process that is to take over.
    control: Option<(String, Listener)>,
}

impl Ports {
    /// Binds what did not come from the process before.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn bind(config: &Config, mut heritage: Option<&mut Heritage>) -> Result<Self> {
        let bind = |listen| Place::bind(listen, config, heritage.as_deref_mut());
        let places = config.listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let admin = match &config.admin {
            None => None,
            Some(address) => {
                let key = handover::admin_key(&address.to_string());
                let inherited = heritage.as_deref_mut().and_then(|heritage| heritage.take(&key));
                let listener = match inherited {
                    Some(socket) => TcpListener::from(socket),
                    None => web::bind(address)?,
                };
                Some((key, listener))
            }
        };
        let control = match &config.takeover.socket {
            None => None,
            Some(path) => {
                let key = handover::control_key(path);
                let bound = match heritage.and_then(|heritage| heritage.take(&key)) {
                    Some(socket) => Listener::inherited(socket, Some(Path::new(path))),
                    None => Listener::control(Path::new(path)),
                };
                let hint = "choose another `takeover.socket`, or start with --takeover where a process listens there";
                let failed = |error| Error::server(format!("cannot listen: {error}")).at(path.clone()).hint(hint);
                Some((key, bound.map_err(failed)?))
            }
        };
        Ok(Self { places, admin, control })
    }

    /// Gives the files of sockets that were taken over the permissions that this configuration says.
    ///
    /// # Errors
    /// They cannot be changed.
    pub fn permit(&self, config: &Config) -> Result<()> {
        let places = self.places.iter().map(|place| (&place.listener, config.unix_socket_permissions.0));
        let control = self.control.iter().map(|(_, listener)| (listener, CONTROL_MODE));
        for (listener, mode) in places.chain(control) {
            let permitted = listener.permit(mode);
            permitted.map_err(|error| {
                let what = format!("the socket's permissions cannot be changed: {error}");
                Error::server(what).at(listener.address()).hint("run as the user that the process before runs as")
            })?;
        }
        Ok(())
    }

    /// Makes the files of sockets that were taken over this process's own.
    pub fn own(&mut self) {
        let places = self.places.iter_mut().map(|place| &mut place.listener);
        places.chain(self.control.iter_mut().map(|(_, listener)| listener)).for_each(Listener::own_file);
    }

    /// Accepts clients at every place, on the event loop of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(&mut self, crew: &Arc<Crew>) -> Result<()> {
        self.places.iter_mut().try_for_each(|place| place.open(crew))
    }

    /// Accepts nobody any more, until it is opened again; callers wait.
    pub fn shut(&mut self) {
        self.places.iter_mut().for_each(Place::shut);
    }

    /// A second descriptor of everything, for another process.
    ///
    /// # Errors
    /// The system has no descriptor left, most likely.
    pub fn duplicate(&self) -> std::io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for place in &self.places {
            sockets.add(place.key(), &place.listener)?;
        }
        if let Some((key, listener)) = &self.admin {
            sockets.add(key.clone(), listener)?;
        }
        if let Some((key, listener)) = &self.control {
            sockets.add(key.clone(), listener)?;
        }
        Ok(sockets)
    }

    /// Another descriptor of the socket for health and metrics.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn admin(&self) -> Result<Option<TcpListener>> {
        let listener = self.admin.as_ref().map(|(_, listener)| listener.try_clone());
        listener.transpose().map_err(|error| Error::internal(format!("a socket could not be shared: {error}")))
    }

    /// Accepts processes that want to take over, on the event loop of the calling thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn control(&self) -> Result<Option<Acceptor>> {
        let acceptor = self.control.as_ref().map(|(_, listener)| listener.acceptor());
        acceptor.transpose().map_err(|error| Error::internal(format!("cannot accept: {error}")))
    }

    /// Listens nowhere any more. The files of those sockets stay that another process has taken.
    pub fn let_go(&mut self, taken: &[String]) {
        for mut place in self.places.drain(..) {
            place.shut();
            if taken.contains(&place.key()) {
                place.listener.keep_file();
            }
        }
        if let Some((key, mut listener)) = self.control.take()
            && taken.contains(&key)
        {
            listener.keep_file();
        }
        self.admin = None;
    }
}
