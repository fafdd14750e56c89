//! Health and metrics over HTTP, on the address that `admin` gives.
//!
//! What the metrics are, the caller knows: this room only serves their text.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::config::Address;
use crate::error::{Error, Result};

/// Writes the metrics of this moment in Prometheus's text format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Binds the address; the future serves it.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: &Address, metrics: Metrics) -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: std::io::Error| {
        Error::server(format!("cannot listen: {error}")).at(address.to_string()).hint("choose another `admin`")
    };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { metrics() }));
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "the admin address is not served any more");
        }
    })
}
