//! Real packets through real taps: every test makes its own network namespaces, in which threads are the node, its
//! guests and the outside world. Namespaces, devices and rules go with the threads that made them.

mod crash;
mod egress;
mod lab;
mod lifecycle;
mod preflight;
mod reach;
mod spoof;
