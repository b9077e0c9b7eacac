//! Ways to all other members.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::peer::book::Book;
use super::peer::link::{Link, Road};
use super::peer::network::Network;
use super::peer::tls::Armour;
use super::peer::wire::Lane;
use super::types::MemberId;

pub struct Peers {
    pub cluster: u64,
    pub me: MemberId,
    pub network: Arc<dyn Network>,
    pub armour: Option<Armour>,
    pub book: Arc<Book>,
    links: Mutex<HashMap<(MemberId, Lane), Arc<Link>>>,
    last_session: AtomicU64,
    /// Others say that this member is none any more since this entry of the log; 0 when nobody says so.
    expelled: watch::Sender<u64>,
}

impl Peers {
    pub fn new(cluster: u64, me: MemberId, network: Arc<dyn Network>, armour: Option<Armour>) -> Self {
        let (book, links) = (Arc::default(), Mutex::default());
        let expelled = watch::Sender::new(0);
        Self { cluster, me, network, armour, book, links, last_session: AtomicU64::new(0), expelled }
    }

    /// Made when it is asked for the first time.
    pub fn link(&self, to: MemberId, lane: Lane) -> Arc<Link> {
        let mut links = self.links.lock();
        let link = links.entry((to, lane)).or_insert_with(|| {
            Arc::new(Link::new(Road {
                network: self.network.clone(),
                armour: self.armour.clone(),
                book: self.book.clone(),
                cluster: self.cluster,
                from: self.me,
                to,
                lane,
            }))
        });
        link.clone()
    }

    /// Never 0, ascending.
    pub fn next_session(&self) -> u64 {
        self.last_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn expel(&self, since: u64) {
        self.expelled.send_if_modified(|known| {
            let news = since > *known;
            *known = since.max(*known);
            news
        });
    }

    pub fn expelled(&self) -> watch::Receiver<u64> {
        self.expelled.subscribe()
    }

    /// Gives up the ways to all others.
    pub fn keep_only(&self, known: impl Fn(MemberId) -> bool) {
        self.links.lock().retain(|(id, _), _| known(*id));
        self.book.keep_only(known);
    }
}
