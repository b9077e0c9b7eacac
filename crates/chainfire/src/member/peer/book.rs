//! Where the members are reached, and what went wrong on the way there.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::Address;
use crate::member::types::{Contact, MemberId};

/// Whoever has something to say to a member tries again sooner. Only a leader speaks to all: others that tried once, in an
/// election, would complain for ever.
const TROUBLE_MAX: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct Book {
    pages: Mutex<BTreeMap<MemberId, Page>>,
}

#[derive(Default)]
struct Page {
    addresses: Vec<Address>,
    /// Why it could not be reached the last time, and when that was; gone when it was reached.
    trouble: Option<(String, Instant)>,
}

impl Book {
    /// Addresses that cannot be read are left out; [`super::address`] says which when they are set.
    pub fn write(&self, id: MemberId, contact: &Contact) {
        let addresses = contact.peer_urls.iter().filter_map(|url| url.parse().ok()).collect();
        self.pages.lock().entry(id).or_default().addresses = addresses;
    }

    pub fn keep_only(&self, known: impl Fn(MemberId) -> bool) {
        self.pages.lock().retain(|id, _| known(*id));
    }

    pub fn addresses(&self, id: MemberId) -> Vec<Address> {
        self.pages.lock().get(&id).map(|page| page.addresses.clone()).unwrap_or_default()
    }

    /// Whether this is news.
    pub fn set_trouble(&self, id: MemberId, trouble: Option<String>) -> bool {
        let mut pages = self.pages.lock();
        let Some(page) = pages.get_mut(&id) else { return false };
        let news = page.trouble.as_ref().map(|(why, _)| why) != trouble.as_ref();
        page.trouble = trouble.map(|why| (why, Instant::now()));
        news
    }

    /// Those of the last seconds, by member, ascending.
    pub fn troubles(&self) -> Vec<(MemberId, String)> {
        let pages = self.pages.lock();
        let troubled = pages.iter().filter_map(|(id, page)| Some((*id, page.trouble.as_ref()?)));
        let fresh = troubled.filter(|(_, (_, at))| at.elapsed() < TROUBLE_MAX);
        fresh.map(|(id, (why, _))| (id, why.clone())).collect()
    }
}
