//! Looks after the process: where it listens, signals, orders, its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::config::{self, Config, Listen};
use crate::error::{Error, Result};
use crate::net::listener::{Acceptor, Listener};
use crate::proxy::crew::Crew;
use crate::proxy::login::House;
use crate::proxy::renew::Order;
use crate::proxy::system;
use crate::web;

/// One place where the proxy listens.
#[derive(Debug)]
pub(super) struct Place {
    /// As the configuration says it, and the path where it is a unix socket.
    said: (Listen, Option<PathBuf>),
    /// The socket.
    pub listener: Listener,
    accepting: Option<JoinHandle<()>>,
}

impl Place {
    /// Binds the socket.
    pub fn bind(listen: &Listen, config: &Config) -> Result<Self> {
        let path = listen.socket_path(&config.listen);
        let bound = match (listen, &path) {
            (Listen::Tcp(address), _) => Listener::tcp(&address.host, address.port),
            (Listen::Unix { .. }, path) => {
                Listener::unix(path.as_deref().unwrap_or("".as_ref()), config.unix_socket_permissions.0)
            }
        };
        let shown = path.as_ref().map_or_else(|| listen.to_string(), |path| path.display().to_string());
        let hint = "choose another `listen`, or stop what listens there";
        let listener = bound.map_err(|error| Error::server(format!("cannot listen: {error}")).at(shown).hint(hint))?;
        Ok(Self { said: (listen.clone(), path), listener, accepting: None })
    }

    /// Accepts clients, on the event loop of the calling thread.
    fn open(&mut self, crew: &Arc<Crew>) -> Result<()> {
        let acceptor = self.listener.acceptor();
        let acceptor = acceptor.map_err(|error| Error::internal(format!("cannot accept: {error}")))?;
        self.accepting = Some(tokio::spawn(accept(acceptor, crew.clone())));
        Ok(())
    }

    /// Accepts nobody any more. Who has connected and was not accepted yet waits.
    fn shut(&mut self) {
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

/// The signals that the proxy heeds.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|error| Error::internal(format!("signals cannot be received: {error}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the order to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Whoever looks after the process.
pub(super) struct Steward {
    house: Arc<House>,
    places: Vec<Place>,
    /// The configuration's file.
    file: Option<PathBuf>,
    orders: UnboundedReceiver<Order>,
}

impl Steward {
    /// Looks after the process of `house`, which listens at `places`.
    pub fn new(house: Arc<House>, places: Vec<Place>, file: Option<PathBuf>) -> Result<Self> {
        let orders = house.orders().ok_or_else(|| Error::internal("the proxy runs twice"))?;
        Ok(Self { house, places, file, orders })
    }

    /// Accepts clients until it is told to end, then lets them finish.
    ///
    /// # Errors
    /// The system refuses sockets or signals.
    pub async fn run(mut self) -> Result<Arc<House>> {
        let mut signals = Signals::new()?;
        for place in &mut self.places {
            place.open(&self.house.crew)?;
        }
        let admin = self.admin()?;
        let at_once = self.serve(&mut signals).await;
        self.places.iter_mut().for_each(Place::shut);
        system::notify("STOPPING=1");
        if !at_once {
            self.drain(&mut signals).await;
        }
        if let Some(admin) = admin {
            admin.abort();
        }
        Ok(self.house)
    }

    /// Serves metrics and health, where an address is set.
    fn admin(&self) -> Result<Option<JoinHandle<()>>> {
        let (house, other) = (self.house.clone(), self.house.clone());
        let pages = web::Pages {
            metrics: Box::new(move || super::metrics::metrics(&house.current())),
            unready: Box::new(move || super::metrics::unready(&other.current())),
        };
        let admin = self.house.config.admin.as_ref().map(|address| web::serve(address, pages));
        Ok(admin.transpose()?.map(tokio::spawn))
    }

    /// Follows orders until one says to end; true when that is at once.
    async fn serve(&mut self, signals: &mut Signals) -> bool {
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return false,
                _ = signals.terminate.recv() => return false,
                _ = signals.hangup.recv() => drop(self.reload()),
                order = self.orders.recv() => match order {
                    Some(Order::Reload(reply)) => {
                        // Who asked may have left.
                        let _ = reply.send(self.reload());
                    }
                    Some(Order::Stop { at_once }) => return at_once,
                    None => return false,
                },
            }
        }
    }

    /// Lets clients finish their transactions.
    async fn drain(&mut self, signals: &mut Signals) {
        let house = self.house.clone();
        tracing::info!(clients = house.clients.count(), "shutting down: no new clients, transactions may finish");
        house.clients.stop();
        tokio::select! {
            () = drained(&house) => {}
            () = signals.end() => tracing::warn!("asked again: stopping at once"),
            () = self.told_at_once() => tracing::warn!("asked again: stopping at once"),
        }
    }

    async fn told_at_once(&mut self) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Stop { at_once: true } => return,
                Order::Stop { .. } => {}
                Order::Reload(reply) => {
                    let _ = reply.send(Err(Error::input("the proxy is shutting down")));
                }
            }
        }
        std::future::pending().await
    }

    /// Reads the configuration again and puts it in force. Gives what has changed, or what is wrong with it.
    fn reload(&mut self) -> Result<Vec<String>> {
        system::notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", system::monotonic_micros()));
        let done = self.renew();
        system::notify("READY=1");
        match &done {
            Ok(changes) if changes.is_empty() => tracing::info!("configuration read again: nothing has changed"),
            Ok(changes) => changes.iter().for_each(|change| tracing::info!(change, "configuration read again")),
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
        done
    }

    fn renew(&mut self) -> Result<Vec<String>> {
        let file = self.file.as_ref().ok_or_else(|| Error::input("the configuration came from no file"))?;
        let config = config::load(file)?;
        let next = self.house.renewed(config)?;
        // New sockets before old ones are given up: nothing has changed when one cannot be had.
        let mut fresh = Vec::new();
        let said = |listen: &Listen| (listen.clone(), listen.socket_path(&next.config.listen));
        for listen in &next.config.listen {
            if !self.places.iter().any(|place| place.said == said(listen)) {
                let mut place = Place::bind(listen, &next.config)?;
                place.open(&self.house.crew)?;
                fresh.push(place);
            }
        }
        self.places.retain(|place| next.config.listen.iter().any(|listen| place.said == said(listen)));
        self.places.extend(fresh);
        system::raise_descriptor_limit(&next.config);
        let (house, changes) = self.house.replace_by(next);
        self.house = house;
        Ok(changes)
    }
}

/// Waits until no client is left, or the configured time is over.
async fn drained(house: &House) {
    let end = Instant::now() + house.config.limits.shutdown_timeout;
    while house.clients.count() > 0 {
        if Instant::now() >= end {
            return tracing::warn!(clients = house.clients.count(), "limits.shutdown_timeout is over");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::info!("all clients have left");
}
