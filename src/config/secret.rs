//! A secret: given as it is, or by where to find it. Never shown.

use std::fmt;

use super::define::{FromNode, Reader, scalar};
use super::tree::Node;
use crate::error::{Error, Result};

/// A password, or where it is: `env:NAME` or `file:PATH`.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// As it stands: a plain password, or a verifier `SCRAM-SHA-256$..`.
    Plain(String),
    /// In an environment variable.
    Env(String),
    /// In a file; one newline at its end does not belong to it.
    File(String),
}

impl Secret {
    /// A secret as it is written in a file.
    pub fn new(text: &str) -> Self {
        match text.split_once(':') {
            Some(("env", name)) => Self::Env(name.to_owned()),
            Some(("file", path)) => Self::File(path.to_owned()),
            _ => Self::Plain(text.to_owned()),
        }
    }

    /// Looks it up. An error names the variable or the file, never a part of the secret.
    pub fn resolve(&self) -> Result<String> {
        let secret = match self {
            Self::Plain(text) => text.clone(),
            Self::Env(name) => std::env::var(name).map_err(|_| {
                Error::config(format!("the environment variable {name} is not set, or not UTF-8"))
                    .hint("set it to the password, or write the password another way")
            })?,
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::config(format!("the password's file cannot be read: {error}")).at(path.as_str())
                })?;
                text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text).to_owned()
            }
        };
        if secret.is_empty() || secret.contains('\0') {
            return Err(Error::config(format!("the password is empty or holds a zero byte ({self})")));
        }
        Ok(secret)
    }
}

impl fmt::Display for Secret {
    /// Where it is, never what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("***"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromNode for Secret {
    fn what() -> String {
        "a verifier `SCRAM-SHA-256$..`, a plain password, `env:NAME` or `file:PATH`".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let secret = Self::new(text);
        match &secret {
            Self::Plain(name) | Self::Env(name) | Self::File(name) if name.is_empty() || name.contains('\0') => {
                reader.problem(node.at, format!("`{}` is empty", reader.path()), format!("write {}", Self::what()))
            }
            Self::Plain(text) if text.starts_with("SCRAM-SHA-256$") && !is_verifier(text) => {
                let said = format!("`{}` begins like a SCRAM verifier but is none", reader.path());
                let hint = "copy rolpassword from pg_authid: SCRAM-SHA-256$iterations:salt$stored key:server key";
                reader.problem(node.at, said, hint)
            }
            _ => Some(secret),
        }
    }
}

/// The form of `pg_authid.rolpassword`.
fn is_verifier(text: &str) -> bool {
    let Some((iterations, rest)) = text.strip_prefix("SCRAM-SHA-256$").and_then(|text| text.split_once(':')) else {
        return false;
    };
    let Some((salt, (stored, server))) =
        rest.split_once('$').and_then(|(salt, keys)| Some((salt, keys.split_once(':')?)))
    else {
        return false;
    };
    let base64 = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    iterations.parse::<u32>().is_ok_and(|n| n > 0)
        && !salt.is_empty()
        && base64(salt)
        && [stored, server].iter().all(|key| key.len() == 44 && base64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_secrets_and_never_shows_them() {
        assert_eq!(Secret::new("hunter2").resolve().unwrap(), "hunter2");
        assert_eq!(format!("{:?} {}", Secret::new("hunter2"), Secret::new("env:PW")), "*** env:PW");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, "s e c\r\n").unwrap();
        assert_eq!(Secret::new(&format!("file:{}", path.display())).resolve().unwrap(), "s e c");
        let error = Secret::new("env:PGWEIR_NO_SUCH_VARIABLE").resolve().unwrap_err();
        assert!(error.what.contains("PGWEIR_NO_SUCH_VARIABLE"));
        Secret::new("file:/no/such/file").resolve().unwrap_err();
    }

    #[test]
    fn knows_a_verifier() {
        let key = "A".repeat(43) + "=";
        assert!(is_verifier(&format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}")));
        assert!(!is_verifier(&format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}")));
        assert!(!is_verifier("SCRAM-SHA-256$4096:..."));
    }
}
