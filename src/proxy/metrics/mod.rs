//! What `/metrics` and `/readyz` say.

mod process;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::pool::fleet::{Health, ServerStatus};
use crate::pool::{Pool, PoolCounts};
use crate::proxy::database::Database;
use crate::proxy::findings::Tally;
use crate::proxy::login::House;
use crate::proxy::meter::histogram::{Counted, SHOWN};
use crate::proxy::meter::{Tier, Totals};
use text::Exposition;

/// Prometheus's text format.
pub(super) fn metrics(house: &House) -> String {
    let mut text = Exposition::default();
    let databases = house.all_databases();
    text.metric("pgweir_build_info", "gauge", "The version that runs.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    clients(house, &mut text);
    pools(&databases, &mut text);
    servers(&databases, &mut text);
    let totals: Vec<_> = databases.iter().map(|database| (database.name.as_str(), database.meter.totals())).collect();
    queries(&totals, &mut text);
    times(&totals, &mut text);
    errors(&databases, &mut text);
    findings(house, &mut text);
    rulings(&databases, &mut text);
    process::add(&mut text);
    text.finish()
}

fn clients(house: &House, text: &mut Exposition) {
    text.metric("pgweir_client_connections", "gauge", "Connections of clients, logged in or not.");
    text.sample(&[], house.clients.count() as f64);
    let mut counts: BTreeMap<(String, String, &str), u64> = BTreeMap::new();
    for client in house.clients.all() {
        let about = &client.about;
        *counts.entry((about.database.to_string(), about.user.to_string(), client.state())).or_default() += 1;
    }
    text.metric("pgweir_clients", "gauge", "Clients that are logged in, by what they are doing.");
    for ((database, user, state), count) in &counts {
        text.sample(&[("database", database), ("user", user), ("state", state)], *count as f64);
    }
    text.metric("pgweir_pinned_clients", "gauge", "Clients that keep their server connection, by reason.");
    for (reason, count) in house.clients.pin_counts() {
        text.sample(&[("reason", reason.name())], count as f64);
    }
}

fn pools(databases: &[Arc<Database>], text: &mut Exposition) {
    let mut pools: Vec<(&str, Arc<Pool>, PoolCounts)> = Vec::new();
    for database in databases {
        pools.extend(database.numbered_pools().into_iter().map(|(_, pool)| {
            let counts = pool.counts();
            (database.name.as_str(), pool, counts)
        }));
    }
    type Value = fn(&Pool, &PoolCounts) -> f64;
    let metrics: [(&str, &str, &str, Value); 8] = [
        ("pgweir_server_connections", "gauge", "Open server connections.", |_, counts| counts.open as f64),
        ("pgweir_server_connections_idle", "gauge", "Server connections that nobody uses.", |_, counts| {
            counts.idle as f64
        }),
        ("pgweir_server_connections_active", "gauge", "Server connections that a client uses.", |_, counts| {
            counts.open.saturating_sub(counts.idle + counts.opening) as f64
        }),
        ("pgweir_server_connections_opening", "gauge", "Server connections that are logging in.", |_, counts| {
            counts.opening as f64
        }),
        ("pgweir_pool_size", "gauge", "Server connections that there may be.", |pool, _| pool.size() as f64),
        ("pgweir_clients_waiting", "gauge", "Clients that wait for a server connection.", |_, counts| {
            counts.waiting as f64
        }),
        ("pgweir_longest_wait_seconds", "gauge", "How long the first of them has waited.", |_, counts| {
            counts.longest_wait.as_secs_f64()
        }),
        ("pgweir_checkouts_total", "counter", "How often a server connection was asked for.", |_, counts| {
            counts.checkouts as f64
        }),
    ];
    for (name, kind, help, value) in metrics {
        text.metric(name, kind, help);
        for (database, pool, counts) in &pools {
            let server = format!("{}:{}", pool.target.host, pool.target.port);
            let labels = [("database", *database), ("server", server.as_str()), ("user", pool.target.user.as_str())];
            text.sample(&labels, value(pool, counts));
        }
    }
}

/// The servers of databases that have replicas.
fn servers(databases: &[Arc<Database>], text: &mut Exposition) {
    let statuses = |database: &'_ Arc<Database>| database.servers.as_ref().map(|servers| servers.status());
    let all: Vec<(&str, Vec<ServerStatus>)> =
        databases.iter().filter_map(|database| Some((database.name.as_str(), statuses(database)?))).collect();
    type Value = fn(&ServerStatus) -> Option<f64>;
    let metrics: [(&str, &str, Value); 5] = [
        ("pgweir_server_up", "Whether a server answered when it was last asked.", |status| match status.health {
            Health::Unknown => None,
            Health::Up => Some(1.0),
            Health::Down => Some(0.0),
        }),
        ("pgweir_server_primary", "Whether writes go to a server.", |status| {
            Some(f64::from(u8::from(status.is_primary)))
        }),
        ("pgweir_server_readable", "Whether reads go to a server as a replica.", |status| {
            Some(f64::from(u8::from(status.is_readable)))
        }),
        ("pgweir_replica_lag_seconds", "How long a replica is behind.", |status| {
            status.lag.map(|(time, _)| time.as_secs_f64())
        }),
        ("pgweir_replica_lag_bytes", "How much of the log a replica has yet to replay.", |status| {
            status.lag.map(|(_, bytes)| bytes as f64)
        }),
    ];
    for (name, help, value) in metrics {
        text.metric(name, "gauge", help);
        for (database, statuses) in &all {
            for status in statuses {
                if let Some(value) = value(status) {
                    text.sample(&[("database", database), ("server", &status.address)], value);
                }
            }
        }
    }
}

fn queries(totals: &[(&str, Totals)], text: &mut Exposition) {
    text.metric("pgweir_queries_total", "counter", "Queries answered, by where they went and how it ended.");
    for (database, totals) in totals {
        for ((_, tier), (all, failed)) in Tier::ALL.iter().zip(totals.queries) {
            for (outcome, count) in [("ok", all.saturating_sub(failed)), ("error", failed)] {
                if all > 0 {
                    text.sample(&[("database", database), ("tier", tier), ("outcome", outcome)], count as f64);
                }
            }
        }
    }
    type Value = fn(&Totals) -> f64;
    let metrics: [(&'static str, &str, Value); 6] = [
        ("pgweir_transactions_total", "Transactions ended.", |totals| totals.transactions as f64),
        ("pgweir_transaction_seconds_total", "Time in transactions, with a server connection.", |totals| {
            totals.transaction_nanos as f64 / 1e9
        }),
        ("pgweir_server_assignments_total", "How often a client was given a server connection.", |totals| {
            totals.assignments as f64
        }),
        ("pgweir_client_parses_total", "Statements that clients prepared.", |totals| totals.client_parses as f64),
        ("pgweir_server_parses_total", "Statements that were prepared on servers.", |totals| {
            totals.server_parses as f64
        }),
        ("pgweir_binds_total", "Executions of prepared statements.", |totals| totals.binds as f64),
    ];
    for (name, help, value) in metrics {
        text.metric(name, "counter", help);
        for (database, totals) in totals {
            text.sample(&[("database", database)], value(totals));
        }
    }
    text.metric("pgweir_bytes_total", "counter", "Bytes read (in) and written (out), on either side.");
    for (database, totals) in totals {
        for (side, direction, bytes) in [
            ("client", "in", totals.from_clients),
            ("client", "out", totals.to_clients),
            ("server", "in", totals.from_servers),
            ("server", "out", totals.to_servers),
        ] {
            text.sample(&[("database", database), ("side", side), ("direction", direction)], bytes as f64);
        }
    }
}

fn times(totals: &[(&str, Totals)], text: &mut Exposition) {
    type Of = fn(&Totals) -> &Counted;
    let metrics: [(&'static str, &str, Of); 4] = [
        ("pgweir_query_seconds", "From a query's first byte to its answer's last.", |totals| &totals.client),
        ("pgweir_server_query_seconds", "The same without the wait for a server connection.", |totals| &totals.server),
        ("pgweir_wait_seconds", "Waits for a server connection.", |totals| &totals.wait),
        ("pgweir_own_seconds", "What the proxy itself took of a query, of one in 64.", |totals| &totals.own),
    ];
    for (name, help, of) in metrics {
        text.metric(name, "histogram", help);
        for (database, totals) in totals {
            let counted = of(totals);
            let buckets: Vec<_> = SHOWN.map(|power| counted.below(power)).map(|(count, at)| (at, count)).collect();
            let sum = counted.nanos as f64 / 1e9;
            text.histogram(&[("database", database)], &buckets, (sum, counted.count()));
        }
    }
}

fn errors(databases: &[Arc<Database>], text: &mut Exposition) {
    text.metric("pgweir_errors_total", "counter", "Errors that clients were told, by whose they are and SQLSTATE.");
    for database in databases {
        for (source, code, count) in database.meter.errors() {
            let labels = [("database", database.name.as_str()), ("source", source), ("sqlstate", code.as_str())];
            text.sample(&labels, count as f64);
        }
    }
}

/// What rules found in templates, and how often these ran.
fn findings(house: &House, text: &mut Exposition) {
    let tallies = house.templates.as_ref().map(|templates| templates.tallies()).unwrap_or_default();
    type Value = fn(&Tally) -> f64;
    let metrics: [(&'static str, &str, &str, Value); 3] = [
        ("pgweir_findings", "gauge", "Templates in which a rule found something.", |tally| tally.templates as f64),
        ("pgweir_findings_statements_total", "counter", "Executions of such templates.", |tally| tally.calls as f64),
        ("pgweir_findings_seconds_total", "counter", "Time of these.", |tally| tally.nanos as f64 / 1e9),
    ];
    for (name, kind, help, value) in metrics {
        text.metric(name, kind, help);
        for ((database, rule), tally) in &tallies {
            text.sample(&[("database", database), ("rule", rule)], value(tally));
        }
    }
}

fn rulings(databases: &[Arc<Database>], text: &mut Exposition) {
    text.metric("pgweir_guarded_total", "counter", "Statements that a guard's rule was about, by what became of them.");
    for database in databases {
        for ((rule, action), count) in database.meter.rulings() {
            let labels = [("database", database.name.as_str()), ("rule", &rule), ("action", action)];
            text.sample(&labels, count as f64);
        }
    }
}

/// Why clients should not be sent here now.
pub(super) fn unready(house: &House) -> Vec<String> {
    let mut reasons = Vec::new();
    if house.clients.is_stopping() {
        reasons.push("the proxy is shutting down".to_owned());
    }
    // Nobody has to be sent elsewhere since a database that somebody once asked for is away.
    for database in house.all_databases().into_iter().filter(|database| !database.is_automatic) {
        if let Some(servers) = &database.servers {
            // One of several that is away is no reason, as long as there is a primary.
            if servers.fleet.primary().is_none() {
                reasons.push(format!("{}: {}", database.name, servers.fleet.no_primary().message));
            }
            continue;
        }
        let pools = database.numbered_pools();
        for (number, (name, url)) in database.config.servers().enumerate() {
            let mine: Vec<_> = pools.iter().filter(|(server, _)| *server == number).map(|(_, pool)| pool).collect();
            let trouble: Vec<_> = mine.iter().filter_map(|pool| pool.trouble()).collect();
            // A server that nobody has tried yet may well be there.
            if trouble.len() == mine.len()
                && let Some(why) = trouble.first()
            {
                let server = if database.sharded.is_some() { format!("shard {name}") } else { "server".to_owned() };
                reasons.push(format!("{}: the {server} {} cannot be reached: {why}", database.name, url.address()));
            }
        }
    }
    reasons
}
