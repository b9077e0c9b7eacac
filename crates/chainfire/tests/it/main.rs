//! The embedded engine against the suite of the waist, and against kills, power cuts, full disks and damaged files.

mod damage;
mod disk;
mod door_etcdctl;
mod door_kv;
mod door_lease;
mod door_support;
mod door_watch;
mod folder;
mod full;
mod kill;
mod log_basics;
mod log_damage;
mod log_full;
mod log_kill;
mod log_power;
mod log_suite;
mod log_support;
mod power;
mod restart;
mod state;
mod suite;
mod workload;
