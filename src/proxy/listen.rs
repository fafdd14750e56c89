//! The proxy as a whole: its sockets, its workers, its run and its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy::about;
use crate::proxy::crew::{Arrival, Stopwatch};
use crate::proxy::handover::Heritage;
use crate::proxy::login::House;
use crate::proxy::place::Ports;
use crate::proxy::pulse;
use crate::proxy::steward::Steward;

/// How often waiters and idle connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// A proxy that listens, and whose workers run.
pub struct Proxy {
    /// What its clients share.
    pub house: Arc<House>,
    ports: Ports,
    heritage: Option<Heritage>,
    workers: Vec<std::thread::JoinHandle<()>>,
    file: Option<PathBuf>,
}

impl Proxy {
    /// Binds the sockets and starts the workers.
    ///
    /// # Errors
    /// A setting, secret or certificate is wrong, or an address cannot be listened on.
    pub fn start(config: Config) -> Result<Self> {
        Self::start_after(config, None)
    }

    /// The same with what was taken over from the process before.
    ///
    /// # Errors
    /// As [`Proxy::start`]; then the process before goes on.
    pub fn start_after(config: Config, mut heritage: Option<Heritage>) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = config.workers.map_or(cores, |count| count as usize).max(1);
        let ports = Ports::bind(&config, heritage.as_mut())?;
        let house = House::new(config, count)?.install();
        let mut workers = Vec::new();
        for home in 0..count {
            let (runtime, house) = (runtime()?, house.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{home}"))
                .spawn(move || runtime.block_on(work(house, home)))
                .map_err(|error| Error::internal(format!("a thread could not be started: {error}")))?;
            workers.push(thread);
        }
        Ok(Self { house, ports, heritage, workers, file: None })
    }

    /// Where the configuration is read again when it is to be.
    pub fn read_from(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The TCP addresses where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.places.iter().filter_map(|place| place.listener.tcp_address()).collect()
    }

    /// Accepts clients until SIGINT or SIGTERM, then lets them finish. SIGHUP reads the configuration again.
    ///
    /// # Errors
    /// The system refuses threads, sockets or signals.
    pub fn run(self) -> Result<()> {
        let runtime = runtime()?;
        let steward = Steward::new(self.house, self.ports, self.file)?;
        let house = runtime.block_on(steward.run(self.heritage))?;
        house.pools().for_each(|(_, pool)| pool.close());
        drop(runtime);
        house.crew.stop();
        for worker in self.workers {
            // A worker that panicked has said so; there is nothing left to do for it.
            let _ = worker.join();
        }
        Ok(())
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("an event loop could not be started: {error}")))
}

/// One worker: serves the clients it is dealt, and looks after its part of the pools.
async fn work(house: Arc<House>, home: usize) {
    let Some(mut arrivals) = house.crew.arrivals(home) else { return };
    let mut tick = tokio::time::interval(TICK);
    let mut stopwatch = Stopwatch::start();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(Arrival::Fresh(caller)) => {
                    match caller.watch() {
                        Ok(stream) => drop(tokio::spawn(house.current().serve(stream, home))),
                        Err(error) => tracing::warn!(%error, "a client's socket cannot be used"),
                    }
                    house.crew.seated();
                }
                Some(Arrival::Moved(guest)) => match guest.settle(home) {
                    Ok(guest) => drop(tokio::spawn(guest.run(house.crew.clone(), home))),
                    Err(error) => tracing::warn!(%error, "a client's socket could not change its thread"),
                },
                Some(Arrival::Stop) | None => return,
            },
            _ = tick.tick() => {
                house.crew.tick(home, stopwatch.lap());
                let house = house.current();
                house.old_pools().iter().for_each(|pool| pool.tick(home));
                if home == 0 {
                    house.sweep();
                    let limits = &house.config.limits;
                    if pulse::is_needed(limits) {
                        house.clients.check(about::clock() / 1000, limits);
                    }
                    house.databases.values().filter_map(|database| database.servers.as_ref()).for_each(|servers| servers.look_after());
                    let sharded = house.databases.values().filter_map(|database| database.sharded.as_ref());
                    for shared in sharded {
                        shared.recovery().into_iter().for_each(|recovery| recovery.look_after());
                        shared.deadlocks().look_after(&house.clients);
                        shared.watch();
                    }
                }
                for (database, pool) in house.pools() {
                    pool.tick(home);
                    // One worker does it, and only where connections are open anyway.
                    if home == 0 {
                        database.meter.tick();
                    }
                    if home == 0 && pool.counts().open > 0 {
                        database.watch_functions(&pool, home);
                    }
                }
            }
        }
    }
}
