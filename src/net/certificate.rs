//! What is read from a certificate beyond what TLS itself checks: whose it is, and its hash for channel binding.

use ring::digest;

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// `[3]` of TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// `[0]` of TBSCertificate.
const VERSION: u8 = 0xa0;
/// `[2]` of GeneralName.
const DNS_NAME: u8 = 0x82;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The elements of a DER value, one after the other; ends where they stop making sense.
#[derive(Clone, Copy)]
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            ..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

impl<'a> Elements<'a> {
    fn tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// The certificate's parts: what is signed, and by which algorithm.
fn parts(certificate: &[u8]) -> Option<(Elements<'_>, &[u8])> {
    let mut outer = Elements(Elements(certificate).tagged(SEQUENCE)?);
    let signed = Elements(outer.tagged(SEQUENCE)?);
    let algorithm = Elements(outer.tagged(SEQUENCE)?).tagged(OID)?;
    Some((signed, algorithm))
}

/// `tls-server-end-point` of a server's certificate (RFC 5929): its hash by the function of its signature. `None` where
/// that is not defined, as for Ed25519.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, algorithm) = parts(certificate)?;
    let function = match algorithm {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1: taken as SHA-256, as the RFC says.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => {
            &digest::SHA256
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] => &digest::SHA512,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(function, certificate).as_ref().to_vec())
}

/// The names a certificate was issued to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The common name; the certificate of two has none that could be meant.
    pub common: Option<String>,
    /// The DNS names among the subject's alternative names.
    pub alternative: Vec<String>,
}

impl Names {
    /// Reads them from a certificate whose signature was checked.
    pub fn of(certificate: &[u8]) -> Self {
        let mut names = Self::default();
        let Some((signed, _)) = parts(certificate) else { return names };
        // Serial number, signature, issuer, validity, subject, key; then what is optional.
        let mut fields = signed.filter(|(tag, _)| *tag != VERSION);
        let Some((SEQUENCE, subject)) = fields.nth(4) else { return names };
        let mut common = common_names(subject);
        names.common = common.next().filter(|_| common.next().is_none());
        if let Some((_, extensions)) = fields.find(|(tag, _)| *tag == EXTENSIONS) {
            names.alternative = dns_names(extensions).unwrap_or_default();
        }
        names
    }

    /// Whether one of them is exactly this user.
    pub fn include(&self, user: &str) -> bool {
        self.common.iter().chain(&self.alternative).any(|name| name == user)
    }
}

fn common_names(subject: &[u8]) -> impl Iterator<Item = String> {
    let attributes = Elements(subject).flat_map(|(_, set)| Elements(set));
    attributes.filter_map(|(_, attribute)| {
        let mut attribute = Elements(attribute);
        if attribute.tagged(OID)? != COMMON_NAME {
            return None;
        }
        match attribute.next()? {
            (UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text) => name(text),
            _ => None,
        }
    })
}

fn dns_names(extensions: &[u8]) -> Option<Vec<String>> {
    let list = Elements(Elements(extensions).tagged(SEQUENCE)?);
    let found = list.filter_map(|(_, extension)| {
        let mut extension = Elements(extension);
        if extension.tagged(OID)? != SUBJECT_ALT_NAME {
            return None;
        }
        // The flag whether it is critical may stand before the value.
        extension.find(|(tag, _)| *tag == OCTET_STRING).map(|(_, value)| value)
    });
    let names = found.filter_map(|value| Elements(value).tagged(SEQUENCE)).flat_map(Elements);
    Some(names.filter(|(tag, _)| *tag == DNS_NAME).filter_map(|(_, text)| name(text)).collect())
}

/// A name that is all of the text: a zero byte in it has been a way to be somebody else.
fn name(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn certificate(common: &str, alternative: &[&str], key: &KeyPair) -> Vec<u8> {
        let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "eve");
        params.distinguished_name.push(DnType::CommonName, common);
        params.self_signed(key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_the_whole_of_a_name() {
        let key = KeyPair::generate().unwrap();
        let names = Names::of(&certificate("app", &["reports.example", "other"], &key));
        assert_eq!(names.common.as_deref(), Some("app"));
        assert!(names.include("app") && names.include("other"));
        assert!(!names.include("eve") && !names.include("ap") && !names.include("App") && !names.include(""));
        assert!(!Names::of(&certificate("app\0.eve", &[], &key)).include("app"));
        assert_eq!(Names::of(&certificate("a", &[], &key)).alternative, Vec::<String>::new());
    }

    #[test]
    fn the_hash_is_the_signatures() {
        let p256 = certificate("x", &[], &KeyPair::generate().unwrap());
        assert_eq!(end_point(&p256).unwrap(), digest::digest(&digest::SHA256, &p256).as_ref());
        let p384 = certificate("x", &[], &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
        assert_eq!(end_point(&p384).unwrap().len(), 48);
        assert_eq!(end_point(&certificate("x", &[], &KeyPair::generate_for(&PKCS_ED25519).unwrap())), None);
    }

    #[test]
    fn nonsense_has_no_names() {
        let good = certificate("app", &["other"], &KeyPair::generate().unwrap());
        for cut in 0..good.len() {
            let part = good.get(..cut).unwrap();
            assert_eq!((Names::of(part), end_point(part)), (Names::default(), None), "{cut}");
        }
        assert_eq!(Names::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Names::default());
    }
}
