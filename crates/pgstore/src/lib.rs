//! PostgreSQL as a store: one ordered table of revisions.
