//! What is known of a user's password, and whether what a client shows fits it.

use crate::net::prove::{Secret, is_md5, md5_stored};
use crate::net::scram::{Verifier, equal};

/// Above this, a password in clear text is not checked on a thread that serves clients.
const QUICK_ITERATIONS: u32 = 10_000;

/// One user's password, in the forms that are known of it. Debug shows none of them.
#[derive(Debug, Clone)]
pub struct Account {
    /// For SCRAM; a mock where only an MD5 hash is known.
    pub verifier: Verifier,
    /// What is stored for MD5, where that is known.
    pub md5: Option<Hidden>,
    /// The password itself, where it is known.
    pub plain: Option<Hidden>,
}

/// Text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Account {
    /// The account of a stored secret: a SCRAM verifier, an MD5 hash or a plain password. `None` for what looks like one
    /// of the first two and is broken.
    pub fn of_secret(user: &str, secret: &str, mock: impl Fn() -> Verifier) -> Option<Self> {
        if secret.starts_with("SCRAM-SHA-256$") {
            return Some(Self { verifier: Verifier::parse(secret)?, md5: None, plain: None });
        }
        if is_md5(secret) {
            return Some(Self { verifier: mock(), md5: Some(Hidden(secret.to_owned())), plain: None });
        }
        let md5 = Some(Hidden(md5_stored(user, secret)));
        Some(Self { verifier: Verifier::of_password(secret)?, md5, plain: Some(Hidden(secret.to_owned())) })
    }

    /// Nobody's account: as much work, and nothing fits.
    pub fn nobody(verifier: Verifier) -> Self {
        Self { verifier, md5: None, plain: None }
    }

    /// Whether a password fits.
    pub async fn fits(&self, user: &str, password: &str) -> bool {
        let scram = if self.verifier.iterations() <= QUICK_ITERATIONS {
            self.verifier.matches(password)
        } else {
            let (verifier, password) = (self.verifier.clone(), password.to_owned());
            tokio::task::spawn_blocking(move || verifier.matches(&password)).await.ok().flatten()
        };
        let md5 =
            self.md5.as_ref().is_some_and(|stored| equal(stored.0.as_bytes(), md5_stored(user, password).as_bytes()));
        scram == Some(true) || md5
    }

    /// What to prove the user with to servers, where the client itself showed nothing that would.
    pub fn own_secret(&self, otherwise: &'static str) -> Secret {
        match (&self.plain, &self.md5) {
            (Some(password), _) => Secret::Password(password.0.clone()),
            (None, Some(hash)) => Secret::Md5(hash.0.clone()),
            (None, None) => Secret::Nothing(otherwise),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;

    fn mock() -> Verifier {
        Verifier::mock(&hmac::Key::new(hmac::HMAC_SHA256, b"instance"), "app")
    }

    #[tokio::test]
    async fn a_password_fits_every_form_of_itself() {
        let verifier = postgres_protocol::password::scram_sha_256(b"secret");
        for stored in ["secret", &verifier, &md5_stored("app", "secret")] {
            let account = Account::of_secret("app", stored, mock).unwrap();
            assert!(account.fits("app", "secret").await, "{stored}");
            assert!(!account.fits("app", "Secret").await, "{stored}");
            assert!(!format!("{account:?}").contains(stored), "{account:?}");
        }
        assert!(!Account::nobody(mock()).fits("app", "secret").await);
        assert!(Account::of_secret("app", "SCRAM-SHA-256$what", mock).is_none());
        // Whoever knows a hash only does not get in by showing it.
        let hash = md5_stored("app", "secret");
        assert!(!Account::of_secret("app", &hash, mock).unwrap().fits("app", &hash).await);
    }
}
