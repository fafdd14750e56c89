//! Lets clients in: which method a connection has to use, and whether it proves its user by it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ring::hmac;

use crate::config::{ClientTls, ClientTlsMode, ClientVerify, Config, HbaMethod, HbaRule, HbaType};
use crate::error::{Error, Result};
use crate::net::ask;
use crate::net::certificate::Names;
use crate::net::dialogue::Dialogue;
use crate::net::prove::Secret;
use crate::net::scram::{Channel, Verifier};
use crate::net::tls::{Door, DoorFiles, IdentityFiles, peer_certificate};
use crate::proxy::account::Account;
use crate::proxy::lookup::Lookup;
use crate::wire::message::Failure;
use crate::wire::startup::Startup;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// At a unix socket of ours.
    Local,
    /// At this address.
    Address(IpAddr),
}

/// A secret of this process, from which what unknown users see is made.
struct MockKey(hmac::Key);

impl std::fmt::Debug for MockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockKey(..)")
    }
}

/// The rules, the users of the configuration and the certificates.
#[derive(Debug)]
pub struct Gate {
    /// Without rules, all who know a password.
    rules: Vec<HbaRule>,
    accounts: HashMap<String, Arc<Account>>,
    /// TLS, where it is set up.
    pub door: Option<Door>,
    tls: ClientTlsMode,
    mock: Arc<MockKey>,
}

impl Gate {
    /// Reads secrets and certificates, so that what is wrong with them is said before anybody connects.
    ///
    /// # Errors
    /// A secret or a certificate cannot be read or used.
    pub fn new(config: &Config) -> Result<Self> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        Self::build(config, Arc::new(MockKey(key)))
    }

    /// The same gate with secrets, certificates and rules read again. Clients that are in stay in.
    ///
    /// # Errors
    /// As [`Gate::new`]; the old gate can go on.
    pub fn renewed(&self, config: &Config) -> Result<Self> {
        Self::build(config, self.mock.clone())
    }

    fn build(config: &Config, mock: Arc<MockKey>) -> Result<Self> {
        let md5_asked = config.hba.iter().any(|rule| matches!(rule.method, HbaMethod::Md5 | HbaMethod::Password));
        let mut accounts = HashMap::new();
        for (name, user) in &config.users {
            let at = format!("users.{name}.password");
            let secret = user.password.resolve().map_err(|error| error.at(at.clone()))?;
            let account = Account::of_secret(name, &secret, || Verifier::mock(&mock.0, name)).ok_or_else(|| {
                Error::config("the password begins like a SCRAM verifier but is none")
                    .at(at.clone())
                    .hint("copy the verifier from pg_authid.rolpassword, or write the password")
            })?;
            if account.md5.is_some() && account.plain.is_none() && !md5_asked {
                return Err(Error::config("the password is an MD5 hash, by which no client is let in").at(at).hint(
                    "write a SCRAM-SHA-256 verifier or the password; or add a rule with `method: md5` to `hba`",
                ));
            }
            accounts.insert(name.clone(), Arc::new(account));
        }
        Ok(Self { rules: config.hba.clone(), accounts, door: door(&config.tls)?, tls: config.tls.mode, mock })
    }

    /// Has a client prove that it is who it says. Gives what it can be proven to servers with, or what to tell the client.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn admit(
        &self,
        dialogue: &mut Dialogue,
        startup: &Startup,
        origin: Origin,
        lookup: Option<&Lookup>,
    ) -> io::Result<Result<Secret, Failure>> {
        let encrypted = dialogue.stream.is_tls();
        if self.tls == ClientTlsMode::Require && !encrypted && origin != Origin::Local {
            let failure = Failure::fatal("28000", "this server takes TLS connections only");
            return Ok(Err(failure.hint("use sslmode=require")));
        }
        let method = match self.method(origin, encrypted, startup) {
            Ok(method) => method,
            Err(failure) => return Ok(Err(failure)),
        };
        let account = match self.account(&startup.user, method, lookup).await {
            Ok(account) => account,
            Err(failure) => return Ok(Err(failure)),
        };
        self.challenge(dialogue, &startup.user, method, account).await
    }

    /// The user's account. Who is let in without a password needs none, and is not looked up.
    async fn account(
        &self,
        user: &str,
        method: HbaMethod,
        lookup: Option<&Lookup>,
    ) -> Result<Option<Arc<Account>>, Failure> {
        match (self.accounts.get(user), lookup) {
            (Some(account), _) => Ok(Some(account.clone())),
            (None, Some(lookup)) if !matches!(method, HbaMethod::Trust | HbaMethod::Cert) => {
                lookup.find(user, || Verifier::mock(&self.mock.0, user)).await
            }
            _ => Ok(None),
        }
    }

    async fn challenge(
        &self,
        dialogue: &mut Dialogue,
        user: &str,
        method: HbaMethod,
        account: Option<Arc<Account>>,
    ) -> io::Result<Result<Secret, Failure>> {
        let nobody = account.is_none();
        let account = account.unwrap_or_else(|| Arc::new(Account::nobody(Verifier::mock(&self.mock.0, user))));
        // PostgreSQL, too, has those with a SCRAM verifier use SCRAM where a rule says md5.
        let by_md5 = method == HbaMethod::Md5 && (account.md5.is_some() || nobody);
        let proven = match method {
            HbaMethod::Trust => Ok(account.own_secret("the client was trusted and showed no password")),
            HbaMethod::Cert => certified(dialogue, user)
                .map(|()| account.own_secret("the client showed a certificate and no password")),
            HbaMethod::Password => ask::clear_text(dialogue).await?.map(Secret::Password),
            HbaMethod::Md5 if by_md5 => {
                let stored = account.md5.as_ref().map(|hash| hash.0.as_str());
                ask::md5(dialogue, user, stored).await?.map(|()| account.own_secret(""))
            }
            HbaMethod::Md5 | HbaMethod::ScramSha256 => {
                // The handshake is over, so the name that the client asked for stays what it is.
                let hash = self.door.as_ref().and_then(|door| door.end_point(&dialogue.stream)).map(<[u8]>::to_vec);
                let channel = hash.as_deref().map_or(Channel::Unbound, Channel::EndPoint);
                let keys = ask::scram(dialogue, user, account.verifier.clone(), channel).await?;
                return Ok(keys.map(|keys| match &account.plain {
                    Some(password) => Secret::Password(password.0.clone()),
                    None => Secret::Keys(Arc::new(keys)),
                }));
            }
            HbaMethod::Reject => Err(Failure::fatal("28000", "the connection is rejected")),
        };
        let proven = match proven {
            Ok(Secret::Password(given)) if method == HbaMethod::Password && !account.fits(user, &given).await => {
                Err(ask::wrong(user))
            }
            other => other,
        };
        if proven.is_ok() {
            ask::welcome(dialogue).await?;
        }
        Ok(proven)
    }

    /// The method of the first rule that fits.
    fn method(&self, origin: Origin, encrypted: bool, startup: &Startup) -> Result<HbaMethod, Failure> {
        if self.rules.is_empty() {
            return Ok(HbaMethod::ScramSha256);
        }
        let found = self.rules.iter().find(|rule| fits(rule, origin, encrypted, startup)).map(|rule| rule.method);
        let host = match origin {
            Origin::Local => "[local]".to_owned(),
            Origin::Address(address) => address.to_canonical().to_string(),
        };
        let encryption = if encrypted { "SSL encryption" } else { "no encryption" };
        let Startup { user, database, .. } = startup;
        let whom = format!("for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}");
        match found {
            Some(HbaMethod::Reject) => Err(Failure::fatal("28000", format!("pgweir's hba rejects connection {whom}"))),
            Some(method) => Ok(method),
            None => Err(Failure::fatal("28000", format!("no entry in pgweir's hba {whom}"))),
        }
    }
}

fn fits(rule: &HbaRule, origin: Origin, encrypted: bool, startup: &Startup) -> bool {
    let place = match (rule.r#type, origin) {
        (HbaType::Local, Origin::Local) => true,
        (HbaType::Local, _) | (_, Origin::Local) => false,
        (HbaType::HostSsl, _) if !encrypted => false,
        (HbaType::HostNoSsl, _) if encrypted => false,
        (_, Origin::Address(address)) => rule.address.holds(address),
    };
    let database = |name: &String| match name.as_str() {
        "all" => true,
        "sameuser" => startup.database == startup.user,
        name => name == startup.database,
    };
    place && rule.database.iter().any(database) && rule.user.iter().any(|name| name == "all" || *name == startup.user)
}

/// Whether the client showed a certificate of the user's.
fn certified(dialogue: &Dialogue, user: &str) -> Result<(), Failure> {
    let Some(certificate) = peer_certificate(&dialogue.stream) else {
        return Err(Failure::fatal("28000", "connection requires a valid client certificate"));
    };
    let names = Names::of(certificate);
    if names.include(user) {
        return Ok(());
    }
    tracing::info!(user, ?names, "the certificate was issued to somebody else");
    Err(Failure::fatal("28000", format!("certificate authentication failed for user \"{user}\"")))
}

fn door(tls: &ClientTls) -> Result<Option<Door>> {
    let identity = match (&tls.mode, &tls.certificate, &tls.key) {
        (ClientTlsMode::Disable, ..) => return Ok(None),
        (_, Some(certificate), Some(key)) => IdentityFiles { certificate: certificate.as_ref(), key: key.as_ref() },
        _ => return Err(Error::config("TLS needs a certificate and a key").at("tls")),
    };
    let hosts = tls.hosts.iter().map(|(name, host)| {
        (name.as_str(), IdentityFiles { certificate: host.certificate.as_ref(), key: host.key.as_ref() })
    });
    let files = DoorFiles {
        identity,
        hosts: hosts.collect(),
        client_ca: tls.client_ca.as_deref().map(Path::new),
        client_required: tls.verify == ClientVerify::Required,
    };
    Door::open(&files).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(rules: &str) -> Gate {
        let text = format!(
            "hba: {rules}\nusers: {{app: {{password: secret}}}}\ndatabases: {{shop: {{primary: \"postgres://h/d\"}}}}\n"
        );
        Gate::new(&crate::config::parse(&text, "f").unwrap()).unwrap()
    }

    fn method(gate: &Gate, origin: &str, user: &str, database: &str) -> Result<HbaMethod, String> {
        let startup = Startup { user: user.to_owned(), database: database.to_owned(), ..Startup::default() };
        let origin = if origin == "local" { Origin::Local } else { Origin::Address(origin.parse().unwrap()) };
        gate.method(origin, false, &startup).map_err(|failure| format!("{} {}", failure.code, failure.message))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let gate = gate(
            "[{type: host, user: eve, method: reject}, {type: host, database: [shop, x], address: 10.0.0.0/8, method: md5}, \
             {type: hostnossl, database: sameuser, method: scram-sha-256}, {type: local, method: trust}]",
        );
        assert_eq!(method(&gate, "10.1.1.1", "app", "shop"), Ok(HbaMethod::Md5));
        assert_eq!(method(&gate, "::ffff:10.1.1.1", "app", "shop"), Ok(HbaMethod::Md5));
        assert_eq!(method(&gate, "11.1.1.1", "app", "app"), Ok(HbaMethod::ScramSha256));
        assert_eq!(method(&gate, "local", "eve", "shop"), Ok(HbaMethod::Trust));
        let rejected = method(&gate, "10.1.1.1", "eve", "shop").unwrap_err();
        assert!(rejected.starts_with("28000 pgweir's hba rejects connection for host \"10.1.1.1\", user \"eve\""));
        let none = method(&gate, "11.1.1.1", "app", "shop").unwrap_err();
        assert!(none.starts_with("28000 no entry in pgweir's hba for host \"11.1.1.1\""), "{none}");
    }

    #[test]
    fn without_rules_there_are_passwords() {
        let config = "users: {app: {password: secret}}\ndatabases: {shop: {primary: \"postgres://h/d\"}}\n";
        let gate = Gate::new(&crate::config::parse(config, "f").unwrap()).unwrap();
        assert_eq!(method(&gate, "11.1.1.1", "app", "shop"), Ok(HbaMethod::ScramSha256));
    }

    #[test]
    fn a_hash_that_lets_nobody_in_is_said_at_once() {
        let config = "users: {app: {password: md54d45974e13472b5a0be3533de4666414}}\ndatabases: {shop: {primary: \"postgres://h/d\"}}\n";
        let error = Gate::new(&crate::config::parse(config, "f").unwrap()).unwrap_err();
        assert!(error.to_string().contains("users.app.password") && !error.to_string().contains("4d45974e"), "{error}");
    }
}
