//! Health and metrics over HTTP, on the address that `admin` gives.
//!
//! What the metrics are, and whether the proxy is ready, the caller knows: this room only serves it. A connection
//! lasts for one answer and a few seconds at most, see [`guard`].

mod guard;

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;

use crate::config::Address;
use crate::error::{Error, Result};

/// What is asked anew for each answer.
pub struct Pages {
    /// The metrics of this moment in Prometheus's text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Why clients should not be sent here now; nothing when they may come.
    pub unready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Binds the address.
///
/// # Errors
/// The address cannot be listened on.
pub fn bind(address: &Address) -> Result<TcpListener> {
    TcpListener::bind((address.host.as_str(), address.port)).map_err(|error| {
        Error::server(format!("cannot listen: {error}")).at(address.to_string()).hint("choose another `admin`")
    })
}

/// The future serves what comes to the socket.
///
/// # Errors
/// The system does not let it be watched.
pub fn serve(listener: TcpListener, pages: Pages) -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: std::io::Error| Error::internal(format!("health and metrics cannot be served: {error}"));
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let router = router(Arc::new(pages));
    Ok(async move {
        if let Err(error) = axum::serve(guard::Guarded::new(listener), router).await {
            tracing::warn!(%error, "the admin address is not served any more");
        }
    })
}

fn router(pages: Arc<Pages>) -> Router {
    const CLOSE: (HeaderName, &str) = (header::CONNECTION, "close");
    let ready = pages.clone();
    Router::new()
        .route("/healthz", get(|| async { ([CLOSE], "ok\n") }))
        .route(
            "/readyz",
            get(move || async move {
                let reasons = (ready.unready)();
                let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let body = serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons });
                (status, [(header::CONTENT_TYPE, "application/json"), CLOSE], format!("{body}\n"))
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
                ([kind, CLOSE], (pages.metrics)())
            }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, [CLOSE], "there are /healthz, /readyz and /metrics\n") })
}
