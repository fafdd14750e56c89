//! What is typed into the console, read as PgBouncer reads it: any case, comments, semicolons.

use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier, decode_string};
use crate::wire::message::Failure;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `SHOW x`.
    Show(Show),
    /// `PAUSE [db]`.
    Pause(Option<String>),
    /// `RESUME [db]`.
    Resume(Option<String>),
    /// `RECONNECT [db]`.
    Reconnect(Option<String>),
    /// `WAIT_CLOSE [db]`.
    WaitClose(Option<String>),
    /// `KILL [db]`.
    Kill(Option<String>),
    /// `KILL_CLIENT id`.
    KillClient(u64),
    /// `DISABLE db`.
    Disable(String),
    /// `ENABLE db`.
    Enable(String),
    /// `RELOAD`.
    Reload,
    /// `SAVE WORKLOAD`.
    SaveWorkload,
    /// `SUSPEND`.
    Suspend,
    /// `SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]`.
    Shutdown(Shutdown),
    /// `BEGIN`, `COMMIT`, `ROLLBACK`: drivers say them unasked. The transaction status afterwards.
    Block(&'static str, u8),
    /// `SET` of something that means nothing here, as drivers do when they connect.
    ClientSetting,
    /// `SET` of a setting of the proxy.
    Set(String),
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When no server connection is in use.
    WaitForServers,
    /// When the last client has left.
    WaitForClients,
}

/// What SHOW can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Sockets of both kinds that are in use.
    ActiveSockets,
    /// The clients.
    Clients,
    /// The settings.
    Config,
    /// The databases.
    Databases,
    /// Nothing: names are resolved by the system.
    DnsHosts,
    /// Nothing: as above.
    DnsZones,
    /// What rules found in statements.
    Findings,
    /// What can be said here.
    Help,
    /// Counts.
    Lists,
    /// The process's memory.
    Mem,
    /// Nothing: there are no peers.
    Peers,
    /// Clients that keep their server connection, by reason.
    Pins,
    /// The pools.
    Pools,
    /// The server connections.
    Servers,
    /// Sockets of both kinds.
    Sockets,
    /// Whether the proxy is active, paused or stopping.
    State,
    /// Totals and averages, by database.
    Stats,
    /// Averages, by database.
    StatsAverages,
    /// Totals, by database.
    StatsTotals,
    /// Templates of statements.
    Templates,
    /// Totals and averages of all databases.
    Totals,
    /// The users.
    Users,
    /// The version.
    Version,
}

const SHOWN: &[(&str, Show)] = &[
    ("active_sockets", Show::ActiveSockets),
    ("clients", Show::Clients),
    ("config", Show::Config),
    ("databases", Show::Databases),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("findings", Show::Findings),
    ("help", Show::Help),
    ("lists", Show::Lists),
    ("mem", Show::Mem),
    ("peers", Show::Peers),
    ("pins", Show::Pins),
    ("pools", Show::Pools),
    ("servers", Show::Servers),
    ("sockets", Show::Sockets),
    ("state", Show::State),
    ("stats", Show::Stats),
    ("stats_averages", Show::StatsAverages),
    ("stats_totals", Show::StatsTotals),
    ("templates", Show::Templates),
    ("totals", Show::Totals),
    ("users", Show::Users),
    ("version", Show::Version),
];

/// Everything there is, as `SHOW HELP` says it.
pub fn help() -> String {
    let shown: Vec<String> = SHOWN.iter().map(|(name, _)| name.to_ascii_uppercase()).collect();
    let lines = shown.chunks(7).map(|names| format!("\n\tSHOW {}", names.join("|")));
    lines.collect::<String>()
        + "\n\tRELOAD\n\tPAUSE [<db>]\n\tRESUME [<db>]\n\tDISABLE <db>\n\tENABLE <db>\n\tRECONNECT [<db>]\
           \n\tSAVE WORKLOAD\n\tKILL [<db>]\n\tKILL_CLIENT <client_id>\n\tWAIT_CLOSE [<db>]\
           \n\tSHUTDOWN\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS\n\t"
}

/// Settings that drivers make when they connect, and that mean nothing to the console.
const CLIENT_SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "extra_float_digits",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "session",
    "standard_conforming_strings",
    "statement_timeout",
    "time",
    "timezone",
    "transaction",
];

/// The commands of a text.
///
/// # Errors
/// One of them is not known, or lacks what it needs.
pub fn parse(sql: &str) -> Result<Vec<Command>, Failure> {
    let mut lexer = Lexer::new(sql.as_bytes(), LexOptions::default());
    let tokens: Vec<Token> = (&mut lexer).collect();
    if !lexer.is_complete() {
        return Err(Failure::error("42601", "a string, a quoted name or a comment is not closed"));
    }
    let statements = tokens.split(|token| token.kind == TokenKind::Semicolon);
    statements.filter(|tokens| !tokens.is_empty()).map(|tokens| Words { sql, tokens }.command()).collect()
}

/// One statement's words.
struct Words<'a> {
    sql: &'a str,
    tokens: &'a [Token],
}

impl Words<'_> {
    /// A word, a name in quotes, a string or a number; names without quotes in lower case.
    fn word(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at)?;
        let bytes = token.bytes(self.sql.as_bytes());
        let text = || String::from_utf8_lossy(bytes).into_owned();
        match token.kind {
            TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent => decode_identifier(bytes).ok(),
            TokenKind::String(_) => decode_string(bytes, LexOptions::default()).ok(),
            _ => Some(text()),
        }
    }

    fn command(&self) -> Result<Command, Failure> {
        let first = self.word(0).unwrap_or_default();
        let database = || self.argument();
        let plain = |command| self.at_most(1).map(|()| command);
        match first.as_str() {
            "show" => self.show(),
            "pause" => database().map(Command::Pause),
            "resume" => database().map(Command::Resume),
            "reconnect" => database().map(Command::Reconnect),
            "wait_close" => database().map(Command::WaitClose),
            "kill" => database().map(Command::Kill),
            "disable" => self.named().map(Command::Disable),
            "enable" => self.named().map(Command::Enable),
            "kill_client" => {
                let id = self.named()?;
                let wrong = || Failure::error("22023", format!("`{id}` is no client's number"));
                id.parse().map(Command::KillClient).map_err(|_| wrong().hint("SHOW CLIENTS has it as `id`"))
            }
            "reload" => plain(Command::Reload),
            "suspend" => plain(Command::Suspend),
            "save" if self.word(1).as_deref() == Some("workload") => self.at_most(2).map(|()| Command::SaveWorkload),
            "shutdown" => self.shutdown(),
            "begin" | "start" => Ok(Command::Block("BEGIN", b'T')),
            "commit" | "end" => Ok(Command::Block("COMMIT", b'I')),
            "rollback" | "abort" => Ok(Command::Block("ROLLBACK", b'I')),
            "set" | "reset" => {
                let setting = self.word(if self.word(1).as_deref() == Some("local") { 2 } else { 1 });
                let setting = setting.unwrap_or_default();
                let clients = CLIENT_SETTINGS.contains(&setting.as_str());
                Ok(if clients { Command::ClientSetting } else { Command::Set(setting) })
            }
            _ => Err(self.unknown()),
        }
    }

    fn show(&self) -> Result<Command, Failure> {
        self.at_most(2)?;
        let name = self.word(1).unwrap_or_else(|| "help".to_owned());
        // A driver may ask for one, and PgBouncer's short form is known too.
        let name = if name == "dns" { "dns_hosts" } else { &name };
        let found = SHOWN.iter().find(|(word, _)| *word == name);
        found.map(|(_, show)| Command::Show(*show)).ok_or_else(|| self.unknown())
    }

    fn shutdown(&self) -> Result<Command, Failure> {
        self.at_most(2)?;
        let how = match self.word(1).as_deref() {
            None => Shutdown::Now,
            Some("wait_for_servers") => Shutdown::WaitForServers,
            Some("wait_for_clients") => Shutdown::WaitForClients,
            Some(_) => return Err(self.unknown()),
        };
        Ok(Command::Shutdown(how))
    }

    /// The one word behind the command, if there is one. A name may hold `-` or `.` without quotes.
    fn argument(&self) -> Result<Option<String>, Failure> {
        let glued = self.tokens.windows(2).skip(1).all(|pair| matches!(pair, [a, b] if a.end == b.start));
        match (self.tokens.get(1), self.tokens.last()) {
            (Some(first), Some(last)) if self.tokens.len() > 2 && glued => {
                Ok(self.sql.get(first.start as usize..last.end as usize).map(str::to_owned))
            }
            _ => self.at_most(2).map(|()| self.word(1)),
        }
    }

    fn named(&self) -> Result<String, Failure> {
        self.argument()?.ok_or_else(|| {
            Failure::error("42601", format!("{} what?", self.shown())).hint("SHOW HELP lists what each command needs")
        })
    }

    fn at_most(&self, count: usize) -> Result<(), Failure> {
        if self.tokens.len() <= count { Ok(()) } else { Err(self.unknown()) }
    }

    /// The statement as it was typed, without what is around it.
    fn shown(&self) -> String {
        let bounds = self.tokens.first().zip(self.tokens.last());
        let text = bounds.and_then(|(first, last)| self.sql.get(first.start as usize..last.end as usize));
        text.unwrap_or_default().chars().take(200).collect()
    }

    fn unknown(&self) -> Failure {
        Failure::error("42601", format!("invalid command '{}', use SHOW HELP;", self.shown()))
            .detail(format!("There are:{}", help()))
            .hint("this is the console of pgweir; connect to one of your databases for SQL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str) -> Command {
        let mut commands = parse(sql).unwrap();
        assert_eq!(commands.len(), 1, "{sql}");
        commands.remove(0)
    }

    #[test]
    fn case_comments_and_semicolons_do_not_matter() {
        for sql in ["SHOW POOLS", "show pools;", " -- why\n/* a /* b */ */ ShOw\tPools ; ;", "show \"pools\""] {
            assert_eq!(one(sql), Command::Show(Show::Pools), "{sql}");
        }
        assert_eq!(parse("show version; show dns").unwrap().len(), 2);
        assert_eq!(parse(" ; -- nothing").unwrap(), []);
    }

    #[test]
    fn names_fold_as_in_sql() {
        assert_eq!(one("pause App"), Command::Pause(Some("app".into())));
        assert_eq!(one("pause \"App\""), Command::Pause(Some("App".into())));
        assert_eq!(one("kill 'My db'"), Command::Kill(Some("My db".into())));
        assert_eq!(one("PAUSE"), Command::Pause(None));
        assert_eq!(one("pause my-db.1"), Command::Pause(Some("my-db.1".into())));
        assert_eq!(one("kill_client 17"), Command::KillClient(17));
        assert_eq!(one("shutdown wait_for_clients"), Command::Shutdown(Shutdown::WaitForClients));
    }

    #[test]
    fn what_drivers_say_is_tolerated() {
        assert_eq!(one("SET extra_float_digits = 3"), Command::ClientSetting);
        assert_eq!(one("set local statement_timeout to 0"), Command::ClientSetting);
        assert_eq!(one("BEGIN TRANSACTION"), Command::Block("BEGIN", b'T'));
        assert_eq!(one("set pool_size = 3"), Command::Set("pool_size".into()));
    }

    #[test]
    fn what_is_unknown_is_answered_with_what_there_is() {
        for sql in ["foo", "select 1", "show foo", "show pools all", "pause a b", "shutdown later", "show $1"] {
            let failure = parse(sql).unwrap_err();
            assert_eq!(failure.code, "42601", "{sql}");
            assert!(failure.detail.unwrap().contains("KILL_CLIENT"), "{sql}");
        }
        for sql in ["disable", "kill_client", "kill_client -1", "kill_client x", "show 'pools"] {
            parse(sql).unwrap_err();
        }
    }
}
