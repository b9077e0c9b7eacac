use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const START_NS: u64 = 1_800_000_000_000_000_000;

fn day(count: u64) -> Duration {
    Duration::from_millis(count * DAY_MS)
}

/// Whether a client that trusts the file accepts the certificate in use under this name at this time.
fn trusted(ca: &Ca, certificate_file: &Path, name: &str, clock: &Clock) -> bool {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let key = ca.inner.live.key.read().0.clone();
    let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(clock.now_ms()));
    let name = name.to_owned().try_into().unwrap();
    use rustls::client::danger::ServerCertVerifier as _;
    verifier.verify_server_cert(&key.cert[0], &key.cert[1..], &name, &[], now).is_ok()
}

#[test]
fn a_new_authority_is_trusted_under_the_names_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START_NS);
    let ca = Ca::open_or_create(folder.path(), clock.clone()).unwrap();
    let file = ca.certificate_file();
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(trusted(&ca, &file, name, &clock), "{name}");
    }
    assert!(!trusted(&ca, &file, "example.com", &clock));
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem"), mode("server.pem")), (0o600, 0o644, 0o600));
    assert!(client_config(&file).is_ok());

    let other = tempfile::tempdir().unwrap();
    let stranger = Ca::open_or_create(other.path(), clock.clone()).unwrap();
    assert!(!trusted(&stranger, &file, "localhost", &clock), "another cloud's certificate");
}

#[test]
fn a_certificate_is_kept_until_half_its_life_and_then_renewed_while_running_and_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START_NS);
    let ca = Ca::open_or_create(folder.path(), clock.clone()).unwrap();
    let first = std::fs::read(folder.path().join("server.pem")).unwrap();
    clock.advance(day(44));
    assert!(!ca.renew_if_due().unwrap());
    drop(Ca::open_or_create(folder.path(), clock.clone()).unwrap());
    assert_eq!(std::fs::read(folder.path().join("server.pem")).unwrap(), first);
    clock.advance(day(2));
    let ends = ca.expires_ms();
    assert!(ca.renew_if_due().unwrap());
    assert!(ca.expires_ms() > ends && !ca.renew_if_due().unwrap());
    assert_ne!(std::fs::read(folder.path().join("server.pem")).unwrap(), first);
    clock.advance(day(46));
    let ca = Ca::open_or_create(folder.path(), clock.clone()).unwrap();
    assert!(ca.expires_ms() >= clock.now_ms() + 89 * DAY_MS);
    assert!(trusted(&ca, &ca.certificate_file(), "localhost", &clock));
}

#[test]
fn a_renewed_authority_is_still_trusted_by_those_who_know_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START_NS);
    drop(Ca::open_or_create(folder.path(), clock.clone()).unwrap());
    let old = folder.path().join("old.pem");
    std::fs::copy(folder.path().join("ca.pem"), &old).unwrap();
    clock.advance(day(CA_DAYS / 2 + 1));
    let ca = Ca::open_or_create(folder.path(), clock.clone()).unwrap();
    assert_ne!(std::fs::read(&old).unwrap(), std::fs::read(ca.certificate_file()).unwrap());
    assert!(trusted(&ca, &old, "localhost", &clock) && trusted(&ca, &ca.certificate_file(), "localhost", &clock));
}

#[test]
fn a_clock_far_off_is_an_error_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tls");
    assert!(matches!(Ca::open_or_create(&path, Clock::simulated(1_000)), Err(Error::Clock { .. })));
    assert!(!path.exists());
    drop(Ca::open_or_create(&path, Clock::simulated(START_NS)).unwrap());
    let behind = Clock::simulated(START_NS - 3 * DAY_MS * 1_000_000);
    assert!(matches!(Ca::open_or_create(&path, behind), Err(Error::Clock { .. })));
}

#[test]
fn torn_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START_NS);
    let open = || Ca::open_or_create(folder.path(), clock.clone());
    drop(open().unwrap());
    let file = |name: &str| folder.path().join(name);
    let key = std::fs::read(file("ca.key")).unwrap();

    std::fs::remove_file(file("ca.key")).unwrap();
    assert!(matches!(open(), Err(Error::KeyMissing { .. })));
    let other = tempfile::tempdir().unwrap();
    drop(Ca::open_or_create(other.path(), clock.clone()).unwrap());
    std::fs::copy(other.path().join("ca.key"), file("ca.key")).unwrap();
    assert!(matches!(open(), Err(Error::KeyMismatch { .. })));
    std::fs::write(file("ca.key"), b"junk").unwrap();
    assert!(matches!(open(), Err(Error::Malformed { .. })));

    // A crash between key and certificate: the certificate is made from the key.
    std::fs::write(file("ca.key"), key).unwrap();
    std::fs::remove_file(file("ca.pem")).unwrap();
    drop(open().unwrap());
    // A server certificate is never worth an error: it is made anew.
    std::fs::write(file("server.pem"), b"junk").unwrap();
    let ca = open().unwrap();
    assert!(trusted(&ca, &ca.certificate_file(), "localhost", &clock));
    // One of another authority is not used.
    std::fs::copy(other.path().join("server.pem"), file("server.pem")).unwrap();
    let ca = open().unwrap();
    assert!(trusted(&ca, &ca.certificate_file(), "localhost", &clock));
}
