//! Health and metrics over HTTP, on the address that `admin` gives.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use crate::config::Address;
use crate::error::{Error, Result};
use crate::proxy::login::House;

/// Binds the address; the future serves it.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: &Address, house: Arc<House>) -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: std::io::Error| {
        Error::server(format!("cannot listen: {error}")).at(address.to_string()).hint("choose another `admin`")
    };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(|State(house): State<Arc<House>>| async move { metrics(&house) }))
        .with_state(house);
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "the admin address is not served any more");
        }
    })
}

/// Prometheus's text format.
fn metrics(house: &House) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# TYPE pgweir_clients gauge\npgweir_clients {}", house.clients.count());
    let mut pools = Vec::new();
    for (name, database) in &house.databases {
        pools.extend(database.pools().into_iter().map(|pool| (name, pool.target.clone(), pool.counts())));
    }
    pools.sort_by_key(|(name, target, _)| ((*name).clone(), target.host.clone(), target.port, target.user.clone()));
    let kinds = [
        ("pgweir_server_connections", "gauge"),
        ("pgweir_server_connections_idle", "gauge"),
        ("pgweir_clients_waiting", "gauge"),
        ("pgweir_checkouts_total", "counter"),
    ];
    for (at, (metric, kind)) in kinds.into_iter().enumerate() {
        let _ = writeln!(text, "# TYPE {metric} {kind}");
        for (name, target, counts) in &pools {
            let values = [counts.open as u64, counts.idle as u64, counts.waiting as u64, counts.checkouts];
            let value = values.get(at).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "{metric}{{database=\"{name}\",server=\"{}:{}\",user=\"{}\"}} {value}",
                target.host, target.port, target.user
            );
        }
    }
    text
}
