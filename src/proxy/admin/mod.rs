//! The console: `psql -d pgweir`, in PgBouncer's dialect.
//!
//! ```text
//! command   text -> what it asks for
//! talk      messages -> commands to run, answers -> messages; without I/O
//! console   the socket of one client
//!   show    what SHOW shows of the house: tables of rows (`configured`, `stats`)
//!   act     what changes the house: PAUSE, KILL, RELOAD, ..
//! ```
//!
//! Users named in `admin_users` may do everything, those in `stats_users` may look; anybody else is
//! told that there is no such database, as PgBouncer's users would be of any other name.

mod act;
mod command;
mod configured;
mod console;
mod show;
mod stats;
mod table;
mod talk;

pub use console::{Console, Guest};

use crate::config::{CONSOLE, Config};
use crate::pool::settings::Reported;

/// What a user may do in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Admin,
    /// SHOW.
    Stats,
}

/// The rights of a user who asks for `database`, if that is the console and the user may use it.
pub fn rights(config: &Config, user: &str, database: &str) -> Option<Rights> {
    let named = |names: &[String]| names.iter().any(|name| name == user);
    match () {
        () if !CONSOLE.contains(&database) => None,
        () if named(&config.admin_users) => Some(Rights::Admin),
        () if named(&config.stats_users) => Some(Rights::Stats),
        () => None,
    }
}

/// What `SHOW VERSION` says.
fn version() -> String {
    format!("pgweir {} (PgBouncer 1.24's dialect)", env!("CARGO_PKG_VERSION"))
}

/// The parameters that a client of the console is told.
pub fn greeting() -> Reported {
    let parameters = [
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("client_encoding", "UTF8"),
        ("integer_datetimes", "on"),
        ("server_encoding", "UTF8"),
        ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/pgweir")),
        ("standard_conforming_strings", "on"),
    ];
    parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
