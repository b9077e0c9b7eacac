//! Clients that write down what they did and heard, and checks of what they wrote: for stores of which parts fail.
//!
//! ```text
//!   clients (workload) ──▶ store under faults        at the end: the whole log, by a watch from the first revision
//!        └──▶ history ─────────────────────▶ checker ◀───┘
//! ```

pub mod checker;
pub mod history;
pub mod workload;

pub use checker::{by_log, by_values};
pub use history::{Call, Heard, History};
pub use workload::{Client, Dice, LeaseWatch, follow, told_rightly, whole_log};
