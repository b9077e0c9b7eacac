//! The key spaces that are open in this process: one [`Space`] for each row, so that one counter decides a quota.

use std::collections::HashMap;
use std::sync::Arc;

use model::Id;
use parking_lot::Mutex;
use store::Store;
use store::space::{Quota, Space};

/// Clones share the spaces.
#[derive(Clone, Default)]
pub struct Spaces {
    open: Arc<Mutex<HashMap<Id, Arc<Space>>>>,
}

impl std::fmt::Debug for Spaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spaces").field("open", &self.open.lock().len()).finish()
    }
}

/// Everything a key space holds lies below this. Ids end in no slash, so no root begins with another.
pub fn root(id: &Id) -> Vec<u8> {
    format!("space/{id}/").into_bytes()
}

impl Spaces {
    /// The space of a row that exists. A quota that changed holds from now on.
    pub fn open(&self, store: &Arc<dyn Store>, id: &Id, quota: Quota) -> Arc<Space> {
        let mut open = self.open.lock();
        let space =
            open.entry(id.clone()).or_insert_with(|| Arc::new(Space::new(store.clone(), &root(id), quota))).clone();
        space.set_quota(quota);
        space
    }

    /// Of a row that is gone.
    pub fn forget(&self, id: &Id) {
        self.open.lock().remove(id);
    }
}
