//! The replicated state by itself: what Raft and members do around it is played here.

mod batches;
mod crash;
mod damage;
mod driver;
mod full;
mod install;
mod leases;
mod load;
mod raft;
mod space;
mod suite;
