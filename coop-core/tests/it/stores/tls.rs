//! Connections to the database that are encrypted, as its address asks.

use coop_core::ErrorKind;
use coop_core::store::UserStore;
use coop_core::store::postgres::PostgresStore;
use coop_core::testing::postgres::{Cluster, shared};
use coop_core::testing::skipped;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// An authority, and a server's certificate by it.
struct Certificates {
    folder: tempfile::TempDir,
    authority: PathBuf,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = folder.path().join("authority.pem");
        fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        for (name, text) in [("server.pem", certificate.pem()), ("server.key", key.serialize_pem())] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        Self { folder, authority }
    }

    /// Gives what the server reads to the user that it runs as.
    fn hand_over(&self, owner: u32) {
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["server.pem", "server.key"] {
            chown(self.folder.path().join(name), Some(owner), None).unwrap();
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// The user that a server here runs as: the server refuses to run as root.
fn owner() -> u32 {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let postgres = users.lines().find_map(|line| line.strip_prefix("postgres:x:"));
    let own = fs::metadata("/proc/self").unwrap().uid();
    match postgres.and_then(|rest| rest.split(':').next()) {
        Some(postgres) if own == 0 => postgres.parse().unwrap(),
        _ => own,
    }
}

fn with(url: &str, mode: &str, authority: &Path) -> String {
    format!("{url}?sslmode={mode}&sslrootcert={}", authority.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_as_safe_as_its_address_asks() {
    let certificates = Certificates::new();
    certificates.hand_over(owner());
    let cluster = Cluster::start(&[
        "fsync=off",
        "ssl=on",
        &format!("ssl_cert_file={}", certificates.path("server.pem")),
        &format!("ssl_key_file={}", certificates.path("server.key")),
    ]);
    let Some(cluster) = cluster else {
        let test = "a_connection_is_as_safe_as_its_address_asks";
        return skipped(test, "there is no PostgreSQL here (no initdb)");
    };
    let url = cluster.database();
    let encrypted = || {
        cluster.run(
            "SELECT BOOL_AND(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = \
             'gemini-coop'",
        )
    };

    let store = PostgresStore::open(&with(&url, "verify-full", &certificates.authority))
        .await
        .unwrap();
    assert_eq!(store.user_by_name("anne").await.unwrap(), None);
    assert_eq!(encrypted(), "t");
    coop_core::store::RoomStore::close(&store).await;

    // Somebody in between, with a certificate of their own.
    let other = Certificates::new();
    let refused = PostgresStore::open(&with(&url, "verify-full", &other.authority)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    // The same certificate under a name that it is not for.
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let refused = PostgresStore::open(&with(&elsewhere, "verify-full", &certificates.authority)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let Some(cluster) = shared("a_server_without_tls_is_refused_where_it_is_required") else {
        return;
    };
    let refused = PostgresStore::open(&format!("{}?sslmode=require", cluster.database())).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("could not be secured"), "{error}");
}
