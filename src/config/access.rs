//! Who may come in from where, and how they prove who they are.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::define::{FromNode, Reader, bad_value, choices, scalar, settings};
use super::secret::Secret;
use super::tree::Node;

choices! {
    /// Which connections a rule is about.
    pub enum HbaType {
        /// Unix sockets.
        Local = "local",
        /// TCP, with TLS or without.
        Host = "host",
        /// TCP with TLS.
        HostSsl = "hostssl",
        /// TCP without TLS.
        HostNoSsl = "hostnossl",
    }
}

choices! {
    /// How a client proves who it is.
    pub enum HbaMethod {
        /// SCRAM, bound to the TLS connection where the client can.
        ScramSha256 = "scram-sha-256",
        /// MD5 for users whose password or MD5 hash is known, SCRAM for those with a SCRAM verifier.
        Md5 = "md5",
        /// The password itself. Only for `hostssl` and `local`.
        Password = "password",
        /// A certificate of `tls.client_ca` that was issued to the user: its common name or one of its DNS names is the
        /// user's name. Only for `hostssl`.
        Cert = "cert",
        /// Not at all.
        Trust = "trust",
        /// It is refused.
        Reject = "reject",
    }
}

settings! {
    /// One rule, as a line of pg_hba.conf. The first one that fits a connection decides, and no other is tried. A connection
    /// that none fits is refused with SQLSTATE 28000.
    pub struct HbaRule {
        /// Which connections it is about.
        r#type: HbaType = required,
        /// The databases, by the names that clients use: `all`, `sameuser` for the one named like the user, or names.
        database: Vec<String> = "all",
        /// The users: `all`, or names.
        user: Vec<String> = "all",
        /// Where the client is.
        address: AddressRange = "all",
        /// How it proves who it is.
        method: HbaMethod = required,
    }
    check check_rule;
}

settings! {
    /// Users who are not in the file are looked up on the server (the first shard's, where there are several). Their
    /// passwords expire there, too (VALID UNTIL).
    pub struct AuthQuery {
        /// Who looks them up; the user of the server's URL unless given. It needs no more than the right to run the query.
        user: Option<String> = absent,
        /// Its password; the one in the server's URL unless given.
        password: Option<Secret> = absent,
        /// The database in which the query runs; the one of the server's URL unless given.
        database: Option<String> = absent,
        /// Gives the name and the secret of the user `$1`: a SCRAM verifier, an MD5 hash or a password; NULL or no row for
        /// nobody. It runs with `search_path` set to `pg_catalog, pg_temp`: write the schema before every name of yours.
        query: String = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin",
        /// How long an answer is good for. A changed or expired password is noticed that much later; `0`: each login asks.
        cache: Duration = "10s",
    }
}

/// Addresses of clients: `all`, one address, or a range in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// Every address.
    All,
    /// Those that agree with this one in the leading bits.
    Net(IpAddr, u8),
}

impl AddressRange {
    /// Reads `all`, `10.0.0.0/8`, `::1/128` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok().filter(|bits| *bits <= most)?,
            Some(_) => return None,
            None => most,
        };
        Some(Self::Net(address, bits))
    }

    /// Whether it holds this address. An IPv4 address is the same one when it comes mapped into IPv6.
    pub fn holds(&self, address: IpAddr) -> bool {
        let Self::Net(net, bits) = *self else { return true };
        match (net.to_canonical(), address.to_canonical(), net) {
            // `::ffff:10.0.0.0/104` counts the 96 bits before the IPv4 address.
            (IpAddr::V4(net), IpAddr::V4(address), IpAddr::V6(_)) if bits >= 96 => {
                agree(net.into(), address.into(), bits - 96)
            }
            (IpAddr::V4(net), IpAddr::V4(address), IpAddr::V4(_)) => agree(net.into(), address.into(), bits),
            (IpAddr::V6(net), IpAddr::V6(address), _) => {
                let (net, address) = (u128::from(net), u128::from(address));
                net.checked_shr(128 - u32::from(bits)) == address.checked_shr(128 - u32::from(bits))
            }
            _ => false,
        }
    }
}

fn agree(a: u32, b: u32, bits: u8) -> bool {
    a.checked_shr(32 - u32::from(bits)) == b.checked_shr(32 - u32::from(bits))
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Net(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

impl FromNode for AddressRange {
    fn what() -> String {
        "`all`, an address, or a range (`10.0.0.0/8`, `::1/128`)".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        Self::parse(text).or_else(|| bad_value(node, text, &Self::what(), reader))
    }
}

fn check_rule(rule: &HbaRule, node: &Node, reader: &mut Reader) -> bool {
    let at = |name: &str| node.get(name).map_or(node.at, |node| node.at);
    let path = reader.path();
    if rule.r#type == HbaType::Local && node.get("address").is_some() {
        let hint = "remove it, or write `type: host`";
        return reader
            .problem(at("address"), format!("`{path}` is about unix sockets, which have no address"), hint)
            .unwrap_or(false);
    }
    let fits = match rule.method {
        HbaMethod::Cert => rule.r#type == HbaType::HostSsl,
        HbaMethod::Password => matches!(rule.r#type, HbaType::HostSsl | HbaType::Local),
        _ => true,
    };
    if !fits {
        let why = if rule.method == HbaMethod::Cert {
            "a certificate is shown over TLS only"
        } else {
            "a password in clear text can be listened to"
        };
        let what = format!("`{path}` has `method: {}` for `type: {}`: {why}", rule.method.word(), rule.r#type.word());
        return reader.problem(at("method"), what, "write `type: hostssl`").unwrap_or(false);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let holds = |range: &str, address: &str| AddressRange::parse(range).unwrap().holds(address.parse().unwrap());
        for (range, address, expected) in [
            ("all", "10.0.0.1", true),
            ("all", "::1", true),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("0.0.0.0/0", "255.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "10.0.0.1", false),
            ("::1/128", "::1", true),
            ("fe80::/10", "febf::1", true),
            ("fe80::/10", "fec0::1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "11.1.1.1", false),
        ] {
            assert_eq!(holds(range, address), expected, "{range} {address}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "localhost", "All"] {
            assert_eq!(AddressRange::parse(bad), None, "{bad}");
        }
    }
}
