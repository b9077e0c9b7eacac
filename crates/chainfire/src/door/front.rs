//! Whose the calls of a listener are.

use std::sync::Arc;

use http::{Request, Response};

use super::desk::{Desk, Peer};
use super::grpc::Reply;
use super::grpc::frame::Wire;
use super::http as plain;
use super::options::Options;
use super::route;
use super::tenants::Tenants;

#[derive(Clone)]
pub enum Front {
    One(Arc<Desk>),
    /// Health and metrics, and no calls.
    Plain(Arc<Desk>),
    Tenants(Arc<Tenants>),
}

impl Front {
    pub fn options(&self) -> &Options {
        match self {
            Self::One(desk) | Self::Plain(desk) => &desk.options,
            Self::Tenants(tenants) => tenants.options(),
        }
    }

    /// The same store without its calls.
    pub fn plain(&self) -> Self {
        match self {
            Self::One(desk) => Self::Plain(desk.clone()),
            Self::Plain(_) | Self::Tenants(_) => self.clone(),
        }
    }

    pub async fn answer(self, peer: Arc<Peer>, request: Request<Wire>) -> Response<Reply> {
        match self {
            Self::One(desk) => route::answer(desk, peer, request).await,
            Self::Plain(desk) => plain::answer(&desk, &request).await,
            // Boxed, so that it does not make the usual call's task larger.
            Self::Tenants(tenants) => Box::pin(async move { tenants.answer(peer, request).await }).await,
        }
    }
}
