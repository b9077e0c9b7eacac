//! Where the members are reached, and what went wrong on the way there.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::address::Address;
use crate::member::types::{Contact, MemberId};

#[derive(Default)]
pub struct Book {
    pages: Mutex<BTreeMap<MemberId, Page>>,
}

#[derive(Default)]
struct Page {
    addresses: Vec<Address>,
    /// Why it could not be reached the last time; gone when it was.
    trouble: Option<String>,
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
        let news = page.trouble != trouble;
        page.trouble = trouble;
        news
    }

    /// By member, ascending.
    pub fn troubles(&self) -> Vec<(MemberId, String)> {
        let pages = self.pages.lock();
        pages.iter().filter_map(|(id, page)| Some((*id, page.trouble.clone()?))).collect()
    }
}
