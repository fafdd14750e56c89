//! What the console can do to the house.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::proxy::admin::command::Command;
use crate::proxy::admin::talk::Answer;
use crate::proxy::database::Database;
use crate::proxy::login::House;
use crate::wire::message::Failure;

/// How often is looked whether what is waited for has happened.
const POLL: Duration = Duration::from_millis(50);

/// Runs one command; answers when it has done its work.
///
/// # Errors
/// It cannot be done; the console says why.
pub async fn act(house: &Arc<House>, command: Command) -> Result<Answer, Failure> {
    match command {
        Command::KillClient(id) => {
            let client = house.clients.all().into_iter().find(|client| client.id == id);
            let client = client.ok_or_else(|| Failure::error("22023", format!("there is no client {id}")))?;
            client.kill();
            Ok(Answer::Tag("KILL_CLIENT"))
        }
        Command::Disable(name) => {
            database(house, &name)?.disabled.store(true, Ordering::Relaxed);
            Ok(Answer::Tag("DISABLE"))
        }
        Command::Enable(name) => {
            database(house, &name)?.disabled.store(false, Ordering::Relaxed);
            Ok(Answer::Tag("ENABLE"))
        }
        Command::Reconnect(name) => {
            for database in databases(house, name.as_deref())? {
                database.pools().iter().for_each(|pool| pool.reconnect());
            }
            Ok(Answer::Tag("RECONNECT"))
        }
        Command::WaitClose(name) => {
            let chosen = databases(house, name.as_deref())?;
            let outdated = |database: &Arc<Database>| {
                database.pools().iter().any(|pool| pool.members().iter().any(|member| member.outdated))
            };
            while chosen.iter().any(outdated) {
                tokio::time::sleep(POLL).await;
            }
            Ok(Answer::Tag("WAIT_CLOSE"))
        }
        Command::Set(name) => Err(Failure::error("0A000", format!("SET of \"{name}\" is not available here"))
            .hint("change pgweir.yaml, then RELOAD")),
        Command::Suspend => {
            Err(Failure::error("0A000", "SUSPEND is not available: a new process takes the sockets over")
                .hint("PAUSE holds new transactions back"))
        }
        other => Err(Failure::error("0A000", format!("{other:?} is not available"))),
    }
}

fn database(house: &House, name: &str) -> Result<Arc<Database>, Failure> {
    let found = house.databases.get(name).cloned();
    found.ok_or_else(|| Failure::error("3D000", format!("no such database: {name}")).hint("SHOW DATABASES lists them"))
}

/// The database of that name, or all.
fn databases(house: &House, name: Option<&str>) -> Result<Vec<Arc<Database>>, Failure> {
    match name {
        Some(name) => Ok(vec![database(house, name)?]),
        None => Ok(house.databases.values().cloned().collect()),
    }
}
