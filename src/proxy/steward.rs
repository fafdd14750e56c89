//! Looks after the process: where it listens, signals, orders, its end.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::config::{self, Listen, unlimited_if_zero};
use crate::error::{Error, Result};
use crate::net::channel::Channel;
use crate::net::listener::{Acceptor, Caller};
use crate::proxy::handover::{self, Heritage, Successor};
use crate::proxy::kin::Origin;
use crate::proxy::login::House;
use crate::proxy::place::{Place, Ports};
use crate::proxy::renew::Order;
use crate::proxy::system::{self, PidFile};
use crate::web;

/// How long a process that takes over waits for the connections that its pools are to keep. Longer, and servers that are
/// down would stand in its way.
const UNTIL_WARM: Duration = Duration::from_secs(5);

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
    ports: Ports,
    /// The configuration's file.
    file: Option<PathBuf>,
    orders: UnboundedReceiver<Order>,
    /// A process that wants to take over, while it gets ready.
    candidate: Option<JoinHandle<Option<Successor>>>,
    /// Hears what comes over the line to the process before.
    hearing: Option<JoinHandle<()>>,
}

/// Why nobody is accepted any more.
enum End {
    /// The process is to end: at once, or when transactions are finished.
    Stop { at_once: bool },
    /// Another one has taken these sockets over.
    Succeeded(Successor),
}

impl Steward {
    /// Looks after the process of `house`, which listens at `ports`.
    pub fn new(house: Arc<House>, ports: Ports, file: Option<PathBuf>) -> Result<Self> {
        let orders = house.orders().ok_or_else(|| Error::internal("the proxy runs twice"))?;
        Ok(Self { house, ports, file, orders, candidate: None, hearing: None })
    }

    /// Accepts clients until it is told to end, then lets them finish. Takes over from the process before first.
    ///
    /// # Errors
    /// The system refuses sockets or signals, or the process before does not let go.
    pub async fn run(mut self, heritage: Option<Heritage>) -> Result<Arc<House>> {
        let mut signals = Signals::new()?;
        let before = match heritage {
            Some(heritage) => self.prepare(heritage).await?,
            None => None,
        };
        // Nothing waits from here to `succeed`: nobody has been accepted when something of this fails.
        let mut admin = self.open()?;
        let pid_file = self.house.config.pid_file.as_deref().map(PidFile::write).transpose()?;
        if let Some(channel) = before {
            self.succeed(channel);
        }
        self.ports.own();
        for place in &self.ports.places {
            tracing::info!(address = place.listener.address(), "listening");
        }
        system::notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
        let at_once = loop {
            match self.serve(&mut signals).await? {
                End::Stop { at_once } => {
                    self.ports.let_go(&[]);
                    system::notify("STOPPING=1");
                    break at_once;
                }
                End::Succeeded((channel, taken)) => {
                    admin.iter().for_each(JoinHandle::abort);
                    self.ports.shut();
                    let ended = tokio::select! {
                        opened = handover::let_go(&channel) => !opened,
                        () = signals.end() => {
                            self.ports.let_go(&taken);
                            break false;
                        }
                    };
                    if ended {
                        tracing::warn!("the process that was about to take over has ended: this one goes on");
                        admin = self.open()?;
                        continue;
                    }
                    self.ports.let_go(&taken);
                    // The file is the other's from now on.
                    self.house.templates.iter().for_each(|templates| templates.save_at(None));
                    break self.linger(&mut signals, channel).await;
                }
            }
        };
        if !at_once {
            self.drain(&mut signals).await;
        }
        admin.iter().for_each(JoinHandle::abort);
        self.hearing.iter().for_each(JoinHandle::abort);
        self.house.clients.kin.bequeath().await;
        if let Some(Err(error)) = self.house.templates.as_ref().map(|templates| templates.save()) {
            tracing::warn!("{error}");
        }
        drop(pid_file);
        Ok(self.house)
    }

    /// Waits for the process before to accept nobody any more, when all that takes time is done. Gives the line to it, if it
    /// still lives.
    async fn prepare(&mut self, heritage: Heritage) -> Result<Option<Channel>> {
        let house = self.house.clone();
        let warm = async {
            while !house.pools().all(|(_, pool)| pool.is_warm()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(UNTIL_WARM, warm).await.is_err() {
            tracing::warn!("not all connections of pool.min_size could be opened: taking over without them");
        }
        let process = heritage.process;
        let channel = heritage.finish().await?;
        self.ports.permit(&self.house.config)?;
        tracing::info!(process, "taking over from the process that ran before");
        Ok(channel)
    }

    /// Tells the process before that this one accepts, and keeps the line to it.
    fn succeed(&mut self, channel: Channel) {
        handover::open(&channel);
        let hears = self.house.clients.clone().keep_line(channel, Origin::Before);
        self.hearing = Some(tokio::spawn(async move {
            hears.await;
            tracing::info!("all processes that ran before have ended");
        }));
    }

    /// Accepts clients, and serves health and metrics.
    fn open(&mut self) -> Result<Option<JoinHandle<()>>> {
        self.ports.open(&self.house.crew)?;
        self.admin()
    }

    /// Serves metrics and health, where an address is set.
    fn admin(&self) -> Result<Option<JoinHandle<()>>> {
        let (house, other) = (self.house.clone(), self.house.clone());
        let pages = web::Pages {
            metrics: Box::new(move || super::metrics::metrics(&house.current())),
            unready: Box::new(move || super::metrics::unready(&other.current())),
        };
        let served = self.ports.admin()?.map(|listener| web::serve(listener, pages));
        Ok(served.transpose()?.map(tokio::spawn))
    }

    /// Follows orders until one says to end, or another process has taken over.
    async fn serve(&mut self, signals: &mut Signals) -> Result<End> {
        let control = self.ports.control()?;
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return Ok(End::Stop { at_once: false }),
                _ = signals.terminate.recv() => return Ok(End::Stop { at_once: false }),
                _ = signals.hangup.recv() => drop(self.reload()),
                caller = asked(control.as_ref()) => self.consider(caller),
                ready = readied(&mut self.candidate) => {
                    self.candidate = None;
                    if let Some(successor) = ready {
                        return Ok(End::Succeeded(successor));
                    }
                }
                order = self.orders.recv() => match order {
                    Some(Order::Reload(reply)) => {
                        // Who asked may have left.
                        let _ = reply.send(self.reload());
                    }
                    Some(Order::Stop { at_once }) => return Ok(End::Stop { at_once }),
                    None => return Ok(End::Stop { at_once: false }),
                },
            }
        }
    }

    /// Offers the sockets to a process that asks for them; one at a time.
    fn consider(&mut self, caller: Channel) {
        if self.candidate.is_some() {
            return tracing::warn!("two processes want to take over at once: the second one was turned away");
        }
        match self.ports.duplicate() {
            Ok(sockets) => self.candidate = Some(tokio::spawn(sockets.offer(caller))),
            Err(error) => tracing::warn!(%error, "the sockets could not be handed over"),
        }
    }

    /// Serves the clients that are left, and whoever has taken over with their cancel requests. True when nobody is left to be waited for.
    async fn linger(&mut self, signals: &mut Signals, channel: Channel) -> bool {
        let house = self.house.clone();
        tracing::info!(clients = house.clients.count(), "another process has taken over: no new clients come here");
        tokio::spawn(house.clients.clone().keep_line(channel, Origin::After));
        tokio::select! {
            () = deserted(&house) => {
                tracing::info!("all clients have left");
                true
            }
            () = tokio::time::sleep(unlimited_if_zero(house.config.takeover.timeout)) => {
                tracing::info!("takeover.timeout is over");
                false
            }
            () = signals.end() => false,
            at_once = self.told_to_stop("another process has taken over") => at_once,
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
        while !self.told_to_stop("the proxy is shutting down").await {}
    }

    /// The next order to end: true when that is at once. Every other is refused.
    async fn told_to_stop(&mut self, why_not: &str) -> bool {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Stop { at_once } => return at_once,
                Order::Reload(reply) => {
                    let _ = reply.send(Err(Error::input(why_not)));
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
            if !self.ports.places.iter().any(|place| place.said == said(listen)) {
                let mut place = Place::bind(listen, &next.config, None)?;
                place.open(&self.house.crew)?;
                fresh.push(place);
            }
        }
        self.ports.places.retain(|place| next.config.listen.iter().any(|listen| place.said == said(listen)));
        self.ports.places.extend(fresh);
        system::raise_descriptor_limit(&next.config);
        let (house, changes) = self.house.replace_by(next);
        self.house = house;
        Ok(changes)
    }
}

/// A process that asks to take over.
async fn asked(control: Option<&Acceptor>) -> Channel {
    loop {
        let Some(control) = control else { return std::future::pending().await };
        match control.accept().await {
            Ok(Caller::Unix(stream)) => return Channel::from(OwnedFd::from(stream)),
            Ok(Caller::Tcp(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot hear a process that wants to take over");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What has become of the process that wanted to take over.
async fn readied<T>(candidate: &mut Option<JoinHandle<Option<T>>>) -> Option<T> {
    match candidate {
        Some(candidate) => candidate.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Waits until no client is left.
async fn deserted(house: &House) {
    while house.crew.arriving() > 0 || house.clients.count() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no client is left, or the configured time is over.
async fn drained(house: &House) {
    match tokio::time::timeout(house.config.limits.shutdown_timeout, deserted(house)).await {
        Ok(()) => tracing::info!("all clients have left"),
        Err(_) => tracing::warn!(clients = house.clients.count(), "limits.shutdown_timeout is over"),
    }
}
