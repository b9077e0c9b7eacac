//! The door to the key spaces of projects: any etcd client, with a key space's id as its user and a token as its password.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chainfire::door::tenants::{Keyring, Outside, Use};
use chainfire::door::{self, TlsFiles};
use iam::Verb;
use kinds::{Spaces, keyspace};
use model::{Code, Error, Id};
use reconcile::Door;
use reconcile::kind::read;
use store::Store;

struct Keys {
    door: Door,
    spaces: Spaces,
}

#[async_trait]
impl Keyring for Keys {
    async fn enter(&self, space: &str, token: &str, to: Use) -> Result<Arc<dyn Store>, Outside> {
        let outside = |error: Error| match error.code {
            Code::Unavailable => Outside::Unavailable,
            Code::Denied => Outside::ReadOnly,
            _ => Outside::Unknown,
        };
        let principal = iam::token::authenticate(&self.door, token).await.map_err(outside)?;
        let id: Id = space.parse().map_err(|_| Outside::Unknown)?;
        let row = self.door.get(&id).await.map_err(outside)?;
        let row = row.filter(|row| row.kind == keyspace::contract().name && !row.deleting()).ok_or(Outside::Unknown)?;
        // Before anything else is said about it, as for every row.
        iam::authorise_row(&principal, Verb::Read, &row).map_err(outside)?;
        if to == Use::Write {
            iam::authorise_row(&principal, Verb::Write, &row).map_err(outside)?;
        }
        let spec: keyspace::Spec = read("spec", &row.spec).map_err(outside)?;
        Ok(self.spaces.open(self.door.store(), &id, spec.quota()))
    }
}

/// Opens the door with the cloud's own certificate.
pub async fn serve(listen: SocketAddr, tls: &Path, door: Door, spaces: Spaces) -> Result<door::Handle, door::Error> {
    let certificate = tls.join("server.pem");
    let tls = TlsFiles { key: certificate.clone(), certificate, trusted_ca: None, client_cert_auth: false };
    let options = door::Options { tls: Some(tls), ..door::Options::new([format!("https://{listen}")]) };
    door::serve_tenants(options, Arc::new(Keys { door, spaces })).await
}
