//! Making certificates, and reading back what they say.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use world::Clock;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::{CA_DAYS, CLOCK_BEHIND_MS_MAX, DAY_MS};
use crate::Error;

pub const CA_KEY: &str = "ca.key";
pub const CA_CERTIFICATE: &str = "ca.pem";
pub const SERVER: &str = "server.pem";
/// Certificates begin a little earlier than now, for clients whose clock is behind.
const BACKDATED_MS: u64 = 3_600_000;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub not_before_ms: u64,
    pub not_after_ms: u64,
    /// In the order in which they stand in it.
    pub names: Vec<String>,
    /// The id of the key that signed it; empty where it does not say.
    pub issuer_key: Vec<u8>,
    /// The DER form of its public key.
    public_key: Vec<u8>,
}

impl Facts {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
        let milliseconds = |time: x509_parser::time::ASN1Time| time.timestamp().max(0) as u64 * 1000;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect()).unwrap_or_default();
        let issuer_key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        });
        Ok(Self {
            not_before_ms: milliseconds(parsed.validity().not_before),
            not_after_ms: milliseconds(parsed.validity().not_after),
            names,
            issuer_key: issuer_key.unwrap_or_default(),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Past half its life.
    pub fn due(&self, now_ms: u64) -> bool {
        let life = self.not_after_ms.saturating_sub(self.not_before_ms);
        now_ms >= self.not_before_ms + life / 2
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => {
            let four = <[u8; 4]>::try_from(*octets).map(|octets| std::net::IpAddr::from(octets).to_string());
            four.or_else(|_| <[u8; 16]>::try_from(*octets).map(|octets| std::net::IpAddr::from(octets).to_string()))
                .ok()
        }
        _ => None,
    }
}

/// The authority's key, able to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key_id: Vec<u8>,
    /// Sent along with server certificates.
    certificate_pem: String,
}

impl Authority {
    pub fn open_or_create(folder: &Path, clock: &Clock) -> Result<Self, Error> {
        let (key_path, certificate_path) = (folder.join(CA_KEY), folder.join(CA_CERTIFICATE));
        let read = |path: &Path| {
            world::file::read_optional(path).map_err(|source| Error::Read { path: path.to_owned(), source })
        };
        let malformed = |path: &Path, what: String| Error::Malformed { path: path.to_owned(), what };
        let certificate = read(&certificate_path)?;
        // The key is written first: a crash in between leaves a key, and the certificate is made from it.
        let key = match read(&key_path)? {
            Some(pem) => {
                let pem = Zeroizing::new(pem);
                let text = std::str::from_utf8(&pem).map_err(|error| malformed(&key_path, error.to_string()))?;
                KeyPair::from_pem(text).map_err(|error| malformed(&key_path, error.to_string()))?
            }
            None if certificate.is_some() => {
                return Err(Error::KeyMissing { certificate: certificate_path, key: key_path });
            }
            None => {
                let key = KeyPair::generate().map_err(Error::Issue)?;
                let pem = Zeroizing::new(key.serialize_pem());
                world::file::write_atomic(&key_path, pem.as_bytes(), 0o600)
                    .map_err(|source| Error::Write { path: key_path.clone(), source })?;
                key
            }
        };
        let mut current = None;
        if let Some(pem) = certificate {
            let der = CertificateDer::from_pem_slice(&pem)
                .map_err(|error| malformed(&certificate_path, error.to_string()))?;
            let facts = Facts::of(&der).map_err(|what| malformed(&certificate_path, what))?;
            if facts.public_key != key.subject_public_key_info() {
                return Err(Error::KeyMismatch { certificate: certificate_path, key: key_path });
            }
            if facts.not_before_ms > clock.now_ms() + CLOCK_BEHIND_MS_MAX {
                return Err(super::behind(clock, &certificate_path));
            }
            if !facts.due(clock.now_ms()) {
                current = Some(String::from_utf8_lossy(&pem).into_owned());
            }
        }
        let params = ca_params(clock);
        let key_id = params.key_identifier(&key);
        let certificate_pem = match current {
            Some(pem) => pem,
            None => {
                // Same key, same name: who trusts the old certificate trusts what the new one signs.
                let pem = params.self_signed(&key).map_err(Error::Issue)?.pem();
                world::file::write_atomic(&certificate_path, pem.as_bytes(), 0o644)
                    .map_err(|source| Error::Write { path: certificate_path.clone(), source })?;
                pem
            }
        };
        Ok(Self { issuer: Issuer::new(params, key), key_id, certificate_pem })
    }

    /// As server certificates name the key that signed them.
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// A new key with its certificate, the authority's certificate after it.
    pub fn issue_server(&self, names: &[String], clock: &Clock, life_ms: u64) -> Result<Zeroizing<String>, Error> {
        let key = KeyPair::generate().map_err(Error::Issue)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(Error::Issue)?;
        params.distinguished_name = common_name("Photon server");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_life(&mut params, clock, life_ms);
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Issue)?;
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Zeroizing::new(format!("{}{}{}", certificate.pem(), self.certificate_pem, *key)))
    }
}

fn ca_params(clock: &Clock) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Photon authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, clock, CA_DAYS * DAY_MS);
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn set_life(params: &mut CertificateParams, clock: &Clock, life_ms: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let begin = clock.now_ms().saturating_sub(BACKDATED_MS);
    params.not_before = epoch + Duration::from_millis(begin);
    params.not_after = epoch + Duration::from_millis(begin + life_ms);
    let mut serial = world::random::bytes::<16>();
    // A serial number is positive and not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}
