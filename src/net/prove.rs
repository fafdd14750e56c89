//! Proves to a server who we are, by whatever it asks for and we have.
//!
//! | we have | trust, peer, cert | clear text | MD5 | SCRAM |
//! |---|---|---|---|---|
//! | nothing | yes | no | no | no |
//! | a password | yes | over TLS, or on this machine | yes | yes |
//! | an MD5 hash | yes | no | yes | no |
//! | keys of a SCRAM proof | yes | no | no | where the server's verifier is the same |

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use md5::{Digest, Md5};

use crate::net::certificate;
use crate::net::connect::{ConnectError, MAX_LOGIN_BODY, refusal, violation};
use crate::net::dialogue::Dialogue;
use crate::net::scram::client::{Channel, Exchange};
use crate::net::scram::{Keys, MECHANISM, MECHANISM_PLUS};
use crate::net::tls::peer_certificate;
use crate::wire::body::Reader;
use crate::wire::message;

/// Above this, keys are not computed on a thread that serves clients.
const QUICK_ITERATIONS: u32 = 10_000;
/// Most messages of a server before AuthenticationOk.
const MAX_MESSAGES: usize = 8;

/// What we can prove ourselves with.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// With nothing; the text says why, for whoever reads the error.
    Nothing(&'static str),
    /// A password.
    Password(String),
    /// `md5` and 32 digits, as `pg_authid` stores it.
    Md5(String),
    /// What a client proved its own password with.
    Keys(Arc<Keys>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing(_) => "Nothing",
            Self::Password(_) => "Password(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Keys(_) => "Keys(..)",
        })
    }
}

/// A secret that the connections of a pool share, and that a later login may replace.
pub struct Wallet {
    secret: ArcSwap<Secret>,
    /// The keys of the password under the salt the server asked for last.
    keys: Mutex<Option<Arc<Keys>>>,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wallet(..)")
    }
}

impl Wallet {
    /// A wallet with this secret.
    pub fn new(secret: Secret) -> Arc<Self> {
        Arc::new(Self { secret: ArcSwap::from_pointee(secret), keys: Mutex::default() })
    }

    /// Puts a secret in, where it is another one and no worse.
    pub fn renew(&self, secret: &Secret) {
        let known = self.secret.load();
        if **known != *secret && (!matches!(secret, Secret::Nothing(_)) || matches!(**known, Secret::Nothing(_))) {
            self.secret.store(Arc::new(secret.clone()));
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The keys for a server's challenge.
    async fn keys(&self, salt: &[u8], iterations: u32) -> Result<Arc<Keys>, ConnectError> {
        let password = match &**self.secret.load() {
            Secret::Password(password) => password.clone(),
            Secret::Keys(keys) if keys.are_for(salt, iterations) => return Ok(keys.clone()),
            Secret::Keys(_) => {
                let what = "the server's SCRAM verifier of this user is not the one that pgweir knows; \
                            give both the same (copy rolpassword), or give pgweir the password";
                return Err(ConnectError::new("28P01", what));
            }
            Secret::Md5(_) => {
                let what = "the server asks for SCRAM, and pgweir knows only an MD5 hash of the password";
                return Err(ConnectError::new("28P01", what));
            }
            Secret::Nothing(why) => return Err(nothing(why)),
        };
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(keys) = known.filter(|keys| keys.are_for(salt, iterations)) {
            return Ok(keys);
        }
        let keys = if iterations <= QUICK_ITERATIONS {
            Keys::of_password(&password, salt, iterations)
        } else {
            let salt = salt.to_vec();
            let computed = tokio::task::spawn_blocking(move || Keys::of_password(&password, &salt, iterations));
            computed.await.ok().flatten()
        };
        let keys = Arc::new(keys.ok_or_else(|| violation(()))?);
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
        Ok(keys)
    }
}

fn nothing(why: &str) -> ConnectError {
    ConnectError::new("28P01", format!("the server asks for a password and there is none to give: {why}"))
}

/// Whether SCRAM must be bound to the TLS connection (libpq's `channel_binding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// Where both sides can.
    #[default]
    Prefer,
    /// Never.
    Disable,
    /// Or there is no connection.
    Require,
}

/// Who is to be proven to a server, and how carefully.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The role.
    pub user: &'a str,
    /// What proves it.
    pub wallet: &'a Wallet,
    /// Whether SCRAM must be bound to TLS.
    pub binding: Binding,
    /// Nobody can listen in between: the server is on this machine.
    pub near: bool,
}

/// Answers the server's requests up to AuthenticationOk.
pub(super) async fn prove(claim: Claim<'_>, dialogue: &mut Dialogue) -> Result<(), ConnectError> {
    let (mut asked, mut bound) = (false, false);
    for _ in 0..MAX_MESSAGES {
        let (tag, body) = dialogue.frame(MAX_LOGIN_BODY).await?;
        match tag {
            b'E' => return Err(refusal(&body)),
            b'N' => continue,
            b'R' => {}
            _ => return Err(violation(())),
        }
        let mut reader = Reader::new(&body);
        let method = reader.u32().map_err(violation)?;
        if method == 0 {
            return if bound || claim.binding != Binding::Require { Ok(()) } else { Err(unbound()) };
        }
        // One question, one proof: a server that asks again in another way is after something.
        if std::mem::replace(&mut asked, true) {
            return Err(violation(()));
        }
        match method {
            3 | 5 if claim.binding == Binding::Require => return Err(unbound()),
            3 => {
                let password = clear_text(claim, dialogue)?;
                respond(dialogue, password.as_bytes(), true).await?;
            }
            5 => {
                let salt = reader.bytes(4).map_err(violation)?;
                let hash = md5_hash(claim)?;
                respond(dialogue, md5_response(&hash, salt).as_bytes(), true).await?;
            }
            10 => bound = scram(claim, dialogue, reader).await?,
            method => {
                let message = format!("the server wants authentication method {method}, which is not supported");
                return Err(ConnectError::new("28000", message));
            }
        }
    }
    Err(violation(()))
}

fn unbound() -> ConnectError {
    let what = "the server does not authenticate with channel binding, but channel_binding=require asks for it";
    ConnectError::new("28000", what)
}

fn clear_text(claim: Claim<'_>, dialogue: &Dialogue) -> Result<String, ConnectError> {
    if !dialogue.stream.is_tls() && !claim.near {
        return Err(ConnectError::new("28000", "the server wants the password in clear text without TLS"));
    }
    match &**claim.wallet.secret.load() {
        Secret::Password(password) => Ok(password.clone()),
        Secret::Nothing(why) => Err(nothing(why)),
        Secret::Md5(_) | Secret::Keys(_) => {
            let what = "the server asks for the password itself, and pgweir knows only what proves it";
            Err(ConnectError::new("28P01", what))
        }
    }
}

fn md5_hash(claim: Claim<'_>) -> Result<String, ConnectError> {
    match &**claim.wallet.secret.load() {
        Secret::Password(password) => Ok(md5_stored(claim.user, password)),
        Secret::Md5(hash) => Ok(hash.clone()),
        Secret::Nothing(why) => Err(nothing(why)),
        Secret::Keys(_) => {
            let what = "the server asks for MD5, and pgweir knows only a SCRAM proof of the password";
            Err(ConnectError::new("28P01", what))
        }
    }
}

async fn respond(dialogue: &mut Dialogue, data: &[u8], terminated: bool) -> Result<(), ConnectError> {
    let mut out = Vec::new();
    message::frame(&mut out, b'p', |out| {
        out.extend_from_slice(data);
        if terminated {
            out.push(0);
        }
    });
    Ok(dialogue.send(&out).await?)
}

/// How SCRAM is bound, given what the server offers.
fn channel(claim: Claim<'_>, dialogue: &Dialogue, mut mechanisms: Reader<'_>) -> Result<Channel, ConnectError> {
    let (mut plain, mut plus) = (false, false);
    while let Ok(name) = mechanisms.cstr() {
        plain |= name == MECHANISM.as_bytes();
        plus |= name == MECHANISM_PLUS.as_bytes();
    }
    if plus && !dialogue.stream.is_tls() {
        return Err(ConnectError::new("08P01", "the server offers channel binding without TLS"));
    }
    let hash = peer_certificate(&dialogue.stream).and_then(certificate::end_point);
    match (claim.binding, hash) {
        (Binding::Prefer | Binding::Require, Some(hash)) if plus => Ok(Channel::EndPoint(hash)),
        (Binding::Require, _) => Err(unbound()),
        (Binding::Prefer, Some(_)) if plain => Ok(Channel::NotOffered),
        _ if plain => Ok(Channel::Unbound),
        _ => Err(ConnectError::new("28000", "the server offers no SASL mechanism that is supported")),
    }
}

/// Gives whether the exchange was bound to TLS.
async fn scram(claim: Claim<'_>, dialogue: &mut Dialogue, mechanisms: Reader<'_>) -> Result<bool, ConnectError> {
    let fault = |what| ConnectError::new("08P01", what);
    let channel = channel(claim, dialogue, mechanisms)?;
    let bound = matches!(channel, Channel::EndPoint(_));
    let mut first = Vec::new();
    message::cstr(&mut first, channel.mechanism().as_bytes());
    let (exchange, text) = Exchange::start(channel).map_err(fault)?;
    first.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    first.extend_from_slice(text.as_bytes());
    respond(dialogue, &first, false).await?;
    let challenge = exchange.challenge(&sasl(dialogue, 11).await?).map_err(fault)?;
    let keys = claim.wallet.keys(&challenge.salt, challenge.iterations).await?;
    let (awaiting, last) = exchange.answer(&challenge, &keys);
    respond(dialogue, last.as_bytes(), false).await?;
    awaiting.finish(&sasl(dialogue, 12).await?).map_err(fault)?;
    Ok(bound)
}

/// The next SASL message, which must be of this kind.
async fn sasl(dialogue: &mut Dialogue, kind: u32) -> Result<Vec<u8>, ConnectError> {
    let (tag, body) = dialogue.frame(MAX_LOGIN_BODY).await?;
    let mut reader = Reader::new(&body);
    match tag {
        b'E' => Err(refusal(&body)),
        b'R' if reader.u32() == Ok(kind) => Ok(reader.rest().to_vec()),
        _ => Err(violation(())),
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `pg_authid` stores of a password under `password_encryption = md5`.
pub fn md5_stored(user: &str, password: &str) -> String {
    format!("md5{}", hex(&Md5::new().chain_update(password).chain_update(user).finalize()))
}

/// The answer to a salt: `md5` + md5(md5(password + user) + salt), from what is stored.
pub fn md5_response(stored: &str, salt: &[u8]) -> String {
    let inner = stored.strip_prefix("md5").unwrap_or(stored);
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

/// Whether a text has the form of a stored MD5 hash.
pub fn is_md5(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_postgresqls() {
        // select 'md5' || md5(md5('secret' || 'bob') || E'\\001\\002\\003\\004')
        let theirs = postgres_protocol::authentication::md5_hash(b"bob", b"secret", [1, 2, 3, 4]);
        let stored = md5_stored("bob", "secret");
        assert!(is_md5(&stored) && !is_md5("md5secret"));
        assert_eq!(md5_response(&stored, &[1, 2, 3, 4]), theirs);
    }

    #[test]
    fn a_wallet_does_not_lose_its_secret_to_nothing() {
        let wallet = Wallet::new(Secret::Nothing("nobody said one"));
        wallet.renew(&Secret::Password("a".into()));
        wallet.renew(&Secret::Nothing("nobody said one"));
        assert_eq!(**wallet.secret.load(), Secret::Password("a".into()));
        wallet.renew(&Secret::Password("b".into()));
        assert_eq!(**wallet.secret.load(), Secret::Password("b".into()));
        let shown = format!("{wallet:?} {:?} {:?}", wallet.secret.load(), Secret::Md5("m".into()));
        assert_eq!(shown, "Wallet(..) Password(..) Md5(..)");
    }
}
