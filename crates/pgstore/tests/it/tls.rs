//! TLS to the server, and who is believed.

use pgstore::{Address, OpenError, Postgres};

use crate::server;
use crate::several::server_or_skip;
use crate::workload::{get, open, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_trusting_the_server_works() {
    let server = server_or_skip!();
    let authority = server.authority();
    let authority = authority.display();
    for (mode, encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=require&sslrootcert={authority}"), true),
        (format!("sslmode=verify-ca&sslrootcert={authority}"), true),
        (format!("sslmode=verify-full&sslrootcert={authority}"), true),
    ] {
        let schema = server::schema();
        let store = open(&server.url_with(&format!("schema={schema}&application_name={schema}&{mode}"))).await;
        put(&*store, "k", &mode).await;
        assert_eq!(get(&*store, "k").await, Some(mode.clone()));
        let asked = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = $1";
        let row = server.admin().await.query_one(asked, &[&schema]).await.unwrap();
        let (all, with): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!((all > 0, with), (true, if encrypted { all } else { 0 }), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_who_it_should_be_is_refused() {
    let server = server_or_skip!();
    let refused = async |url: String| match Postgres::open(Address::parse(&url).unwrap()).await {
        Ok(_) => panic!("opened {url}"),
        Err(error) => error,
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stranger.pem");
    std::fs::write(&path, stranger.pem()).unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refused(server.url_with(&format!("sslmode={mode}&sslrootcert={}", path.display()))).await;
        assert!(error.to_string().contains("certificate"), "{mode}: {error}");
    }
    // Its certificate is for another name.
    let options = format!("sslrootcert={}", server.authority().display());
    let by_number = |mode: &str| {
        let schema = server::schema();
        let url = server.url_with(&format!("schema={schema}&sslmode={mode}&{options}"));
        url.replace("@localhost:", "@127.0.0.1:")
    };
    let error = refused(by_number("verify-full")).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    drop(open(&by_number("verify-ca")).await);
    let error = refused(server.url_with("sslmode=verify-full&sslrootcert=/nowhere.pem")).await;
    assert!(matches!(error, OpenError::Certificate { .. }), "{error}");
}
