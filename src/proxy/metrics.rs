//! What `/metrics` says of clients and pools.

use std::fmt::Write as _;

use super::login::House;

/// Prometheus's text format.
pub(super) fn metrics(house: &House) -> String {
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
