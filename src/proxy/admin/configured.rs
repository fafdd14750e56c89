//! SHOW of what the configuration names: databases with their servers, and users.

use std::sync::atomic::Ordering;

use crate::pool::fleet::Health;
use crate::proxy::admin::show::all_pools;
use crate::proxy::admin::table::{Table, Value};
use crate::proxy::database::Database;
use crate::proxy::login::House;

/// What server number `number` is now, where there are several with the same data; else its name.
pub(super) fn role(database: &Database, number: usize) -> String {
    match &database.servers {
        Some(servers) if servers.fleet.primary() == Some(number) => "primary".to_owned(),
        Some(_) => "replica".to_owned(),
        None => database.config.servers().nth(number).map(|(name, _)| name.to_owned()).unwrap_or_default(),
    }
}

/// A word for a server's health.
fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    }
}

/// Each server of each database, and how it is where there are several with the same data.
pub(super) fn databases(house: &House) -> Table {
    let mut table = Table::new(&[
        "name",
        "host",
        "#port",
        "database",
        "force_user",
        "#pool_size",
        "#min_pool_size",
        "#reserve_pool_size",
        "#server_lifetime",
        "pool_mode",
        "load_balance_hosts",
        "#max_connections",
        "#current_connections",
        "#max_client_connections",
        "#current_client_connections",
        "#paused",
        "#disabled",
        "server",
        "role",
        "health",
        "#readable",
        "#lag_ms",
        "trouble",
    ]);
    let clients = house.clients.all();
    for database in house.all_databases() {
        let pools = database.numbered_pools();
        let count = clients.iter().filter(|client| *client.about.database == *database.name).count();
        let statuses = database.servers.as_ref().map(|servers| servers.status()).unwrap_or_default();
        for (number, (server, url)) in database.config.servers().enumerate() {
            let open: usize =
                pools.iter().filter(|(server, _)| *server == number).map(|(_, pool)| pool.counts().open).sum();
            let pool = &database.config.pool;
            let status = statuses.get(number);
            let lag = status.and_then(|status| status.lag);
            table.row([
                database.name.clone().into(),
                url.host.clone().into(),
                url.port.into(),
                url.database.clone().unwrap_or_else(|| database.name.clone()).into(),
                url.user.clone().into(),
                pool.size.into(),
                pool.min_size.into(),
                Value::Number(0),
                pool.lifetime.as_secs().into(),
                pool.mode.word().into(),
                Value::Null,
                database.config.max_connections.into(),
                open.into(),
                database.config.max_clients.unwrap_or_default().into(),
                count.into(),
                database.paused.load(Ordering::Relaxed).into(),
                database.disabled.load(Ordering::Relaxed).into(),
                server.into(),
                role(&database, number).into(),
                status.map(|status| health(status.health)).into(),
                status.map(|status| status.is_readable).into(),
                lag.map(|(time, _)| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).into(),
                status.and_then(|status| status.trouble.clone()).into(),
            ]);
        }
    }
    table
}

/// The users of the configuration.
pub(super) fn users(house: &House) -> Table {
    let mut table = Table::new(&[
        "name",
        "#pool_size",
        "#reserve_pool_size",
        "pool_mode",
        "#max_user_connections",
        "#current_connections",
        "#max_user_client_connections",
        "#current_client_connections",
        "console",
    ]);
    let clients = house.clients.all();
    let pools = all_pools(house);
    for (name, user) in &house.config.users {
        let open: usize =
            pools.iter().filter(|(_, _, pool)| pool.target.user == *name).map(|(_, _, pool)| pool.counts().open).sum();
        let console = match () {
            () if house.config.admin_users.contains(name) => "admin",
            () if house.config.stats_users.contains(name) => "stats",
            () => "",
        };
        table.row([
            name.clone().into(),
            Value::Null,
            Value::Null,
            Value::Null,
            user.max_connections.unwrap_or(house.config.limits.max_user_connections).into(),
            open.into(),
            user.max_clients.unwrap_or_default().into(),
            clients.iter().filter(|client| *client.about.user == **name).count().into(),
            console.into(),
        ]);
    }
    table
}
