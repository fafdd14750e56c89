//! What the console can do to the house.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::proxy::admin::command::{Command, Shutdown};
use crate::proxy::admin::talk::Answer;
use crate::proxy::clients::Client;
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
        Command::Pause(name) => pause(&databases(house, name.as_deref())?).await,
        Command::Resume(name) => {
            databases(house, name.as_deref())?.iter().for_each(|database| database.resume());
            Ok(Answer::Tag("RESUME"))
        }
        Command::Kill(name) => {
            let chosen = databases(house, name.as_deref())?;
            // Nobody who comes meanwhile is served before RESUME.
            chosen.iter().for_each(|database| database.pause());
            let hit = |client: &Client| chosen.iter().any(|database| *database.name == *client.about.database);
            house.clients.all().iter().filter(|client| hit(client)).for_each(|client| client.kill());
            Ok(Answer::Tag("KILL"))
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
        Command::WaitClose(name) => wait_close(&databases(house, name.as_deref())?).await,
        Command::Set(name) => Err(Failure::error("0A000", format!("SET of \"{name}\" is not available here"))
            .hint("change pgweir.yaml, then RELOAD")),
        Command::Suspend => {
            Err(Failure::error("0A000", "SUSPEND is not available: a new process takes the sockets over")
                .hint("PAUSE holds new transactions back"))
        }
        Command::Reload => {
            let refused = |error: Error| {
                Failure::error("F0000", format!("the configuration stays as it was: {}", error.what))
                    .detail(error.to_string())
                    .hint("`pgweir check` says what is wrong with the file")
            };
            house.reload().await.map(|_| Answer::Tag("RELOAD")).map_err(refused)
        }
        Command::SaveWorkload => save_workload(house).await,
        Command::Shutdown(Shutdown::WaitForClients) => {
            let failure = Failure::error("0A000", "SHUTDOWN WAIT_FOR_CLIENTS is not available");
            Err(failure.hint("SHUTDOWN WAIT_FOR_SERVERS lets transactions finish, and no client begins another"))
        }
        Command::Shutdown(how) => {
            house.shut_down(how == Shutdown::Now);
            Ok(Answer::Tag("SHUTDOWN"))
        }
        // The session answers these itself.
        Command::Show(_) | Command::Block(..) | Command::ClientSetting => Ok(Answer::Tag("")),
    }
}

/// Writes the workload's file, on a thread of its own.
async fn save_workload(house: &House) -> Result<Answer, Failure> {
    let nowhere = || Failure::error("55000", "no file is configured for the workload").hint("set stats.workload");
    let templates = house.templates.clone().ok_or_else(nowhere)?;
    let saved = tokio::task::spawn_blocking(move || templates.save()).await;
    match saved {
        Ok(Ok(true)) => Ok(Answer::Tag("SAVE WORKLOAD")),
        Ok(Ok(false)) => Err(nowhere()),
        Ok(Err(error)) => Err(Failure::error("58030", error.what.clone()).detail(error.to_string())),
        Err(_) => Err(Failure::error("XX000", "the workload could not be saved")),
    }
}

/// Lets nobody have a connection any more, and waits until all are back.
async fn pause(chosen: &[Arc<Database>]) -> Result<Answer, Failure> {
    chosen.iter().for_each(|database| database.pause());
    // Whoever has a connection finishes with it first.
    while !chosen.iter().all(|database| database.pools().iter().all(|pool| pool.is_drained())) {
        tokio::time::sleep(POLL).await;
    }
    Ok(Answer::Tag("PAUSE"))
}

/// Waits until the connections from before the last RECONNECT are closed.
async fn wait_close(chosen: &[Arc<Database>]) -> Result<Answer, Failure> {
    let outdated = |database: &Arc<Database>| {
        database.pools().iter().any(|pool| pool.members().iter().any(|member| member.outdated))
    };
    while chosen.iter().any(outdated) {
        tokio::time::sleep(POLL).await;
    }
    Ok(Answer::Tag("WAIT_CLOSE"))
}

fn database(house: &House, name: &str) -> Result<Arc<Database>, Failure> {
    let found = house.database(name);
    found.ok_or_else(|| Failure::error("3D000", format!("no such database: {name}")).hint("SHOW DATABASES lists them"))
}

/// The database of that name, or all.
fn databases(house: &House, name: Option<&str>) -> Result<Vec<Arc<Database>>, Failure> {
    match name {
        Some(name) => Ok(vec![database(house, name)?]),
        // And those that are still to come.
        None => Ok(house.all_databases().into_iter().chain(house.any.clone()).collect()),
    }
}
