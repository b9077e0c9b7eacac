//! The embedded engine against the suite of the waist, and against kills, power cuts, full disks and damaged files.

mod power;
mod suite;
