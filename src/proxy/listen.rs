//! Accepts clients and deals them to workers; stops them all in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Listen};
use crate::error::{Error, Result};
use crate::net::listener::{Acceptor, Listener};
use crate::proxy::crew::{Arrival, Crew, Stopwatch};
use crate::proxy::functions::REFRESH_EVERY;
use crate::proxy::login::House;
use crate::web;

/// How often waiters and idle connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// A proxy that listens, and whose workers run.
pub struct Proxy {
    /// What its clients share.
    pub house: Arc<House>,
    listeners: Vec<Listener>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Binds the sockets and starts the workers.
    ///
    /// # Errors
    /// A setting, secret or certificate is wrong, or an address cannot be listened on.
    pub fn start(config: Config) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = config.workers.map_or(cores, |count| count as usize).max(1);
        let listeners = config.listen.iter().map(|listen| bind(listen, &config)).collect::<Result<Vec<_>>>()?;
        let house = Arc::new(House::new(config, count)?);
        let mut workers = Vec::new();
        for home in 0..count {
            let (runtime, house) = (runtime()?, house.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{home}"))
                .spawn(move || runtime.block_on(work(house, home)))
                .map_err(|error| Error::internal(format!("a thread could not be started: {error}")))?;
            workers.push(thread);
        }
        Ok(Self { house, listeners, workers })
    }

    /// Where it listens, for people.
    pub fn places(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// The TCP addresses where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::tcp_address).collect()
    }

    /// Accepts clients until SIGINT or SIGTERM, then lets them finish.
    ///
    /// # Errors
    /// The system refuses threads, sockets or signals.
    pub fn run(self) -> Result<()> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let failed = |error| Error::internal(format!("signals cannot be received: {error}"));
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let mut accepting = Vec::new();
            for listener in &self.listeners {
                let acceptor = listener.acceptor();
                let acceptor = acceptor.map_err(|error| Error::internal(format!("cannot accept: {error}")))?;
                accepting.push(tokio::spawn(accept(acceptor, self.house.crew.clone())));
            }
            let house = self.house.clone();
            let other = house.clone();
            let pages = web::Pages {
                metrics: Box::new(move || super::metrics::metrics(&house)),
                unready: Box::new(move || super::metrics::unready(&other)),
            };
            let admin = self.house.config.admin.as_ref().map(|address| web::serve(address, pages));
            let admin = admin.transpose()?.map(tokio::spawn);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            accepting.iter().for_each(|task| task.abort());
            tracing::info!(
                clients = self.house.clients.count(),
                "shutting down: no new clients, transactions may finish"
            );
            self.house.clients.stop();
            tokio::select! {
                () = drained(&self.house) => tracing::info!("all clients have left"),
                _ = interrupt.recv() => tracing::warn!("asked again: stopping at once"),
                _ = terminate.recv() => tracing::warn!("asked again: stopping at once"),
            }
            if let Some(admin) = admin {
                admin.abort();
            }
            Ok(())
        })?;
        self.house.pools().for_each(|(_, pool)| pool.close());
        drop(runtime);
        self.house.crew.stop();
        for worker in self.workers {
            // A worker that panicked has said so; there is nothing left to do for it.
            let _ = worker.join();
        }
        Ok(())
    }
}

/// Waits until no client is left, or the configured time is over.
async fn drained(house: &House) {
    let end = Instant::now() + house.config.limits.shutdown_timeout;
    while house.clients.count() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("an event loop could not be started: {error}")))
}

fn bind(listen: &Listen, config: &Config) -> Result<Listener> {
    let (bound, place) = match listen {
        Listen::Tcp(address) => (Listener::tcp(&address.host, address.port), address.to_string()),
        Listen::Unix { .. } => {
            let path = listen.socket_path(&config.listen).unwrap_or_default();
            (Listener::unix(&path, config.unix_socket_permissions.0), path.display().to_string())
        }
    };
    let hint = "choose another `listen`, or stop what listens there";
    bound.map_err(|error| Error::server(format!("cannot listen: {error}")).at(place).hint(hint))
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

/// One worker: serves the clients it is dealt, and looks after its part of the pools.
async fn work(house: Arc<House>, home: usize) {
    let Some(mut arrivals) = house.crew.arrivals(home) else { return };
    let mut tick = tokio::time::interval(TICK);
    let mut stopwatch = Stopwatch::start();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(Arrival::Fresh(caller)) => match caller.watch() {
                    Ok(stream) => drop(tokio::spawn(house.clone().serve(stream, home))),
                    Err(error) => tracing::warn!(%error, "a client's socket cannot be used"),
                },
                Some(Arrival::Moved(guest)) => match guest.settle(home) {
                    Ok(guest) => drop(tokio::spawn(guest.run(house.crew.clone(), home))),
                    Err(error) => tracing::warn!(%error, "a client's socket could not change its thread"),
                },
                Some(Arrival::Stop) | None => return,
            },
            _ = tick.tick() => {
                house.crew.tick(home, stopwatch.lap());
                for (database, pool) in house.pools() {
                    pool.tick(home);
                    // One worker does it, and only where connections are open anyway.
                    if home == 0 {
                        database.meter.tick();
                    }
                    if home == 0 && pool.counts().open > 0 {
                        database.watch_functions(&pool, home, REFRESH_EVERY);
                    }
                }
            }
        }
    }
}
