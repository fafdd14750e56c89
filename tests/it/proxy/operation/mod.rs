//! How the proxy is run: where it listens, its limits, new configurations and new processes.

mod caps;
mod limits;
mod reload;
mod sockets;
mod takeover;
