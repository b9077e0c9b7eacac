//! A guest: a namespace with a stack of its own, whose card is wired to the engine's tap the way a hypervisor wires it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use novanet::{Handle, PortAddresses};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Space;

/// `struct virtio_net_hdr`: what stands before each frame.
const HEADER: usize = 10;
/// Of one read.
const FRAME_BYTES_MAX: usize = 65_536;

pub struct Guest {
    pub space: Space,
    pub at: PortAddresses,
    port: Arc<OwnedFd>,
    seen: mpsc::Receiver<Vec<u8>>,
    stop: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    /// Boots a guest on a port that was applied: card, addresses, routes.
    pub async fn boot(handle: &Handle, network: u16, offset: u8) -> Self {
        let at = handle.prefixes().port(network, offset).unwrap();
        let of = handle.prefixes().network(network).unwrap();
        let port = Arc::new(handle.attach(network, offset).await.unwrap());
        let space = Space::new();
        let card = space.run(|| novanet::tap::attach("eth0")).unwrap();
        space.set_sysctl("ipv6/conf/eth0/accept_dad", "0");
        space.ip(&format!("link set eth0 address {} mtu 1420", at.mac));
        space.ip(&format!("addr add {}/24 dev eth0", at.v4));
        space.ip(&format!("-6 addr add {}/64 dev eth0 nodad", at.v6));
        space.ip("link set eth0 up");
        space.ip(&format!("route add default via {}", of.gateway_v4));
        space.ip(&format!("-6 route add default via {} dev eth0", of.gateway_link_local));
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, seen) = mpsc::channel();
        let pump = std::thread::spawn({
            let (port, stop) = (port.clone(), stop.clone());
            move || pump(&port, &card, &stop, &sender)
        });
        Self { space, at, port, seen, stop, pump: Some(pump) }
    }

    /// Puts a frame on the wire as the guest's hypervisor would, whatever the guest's stack thinks of it.
    pub fn inject(&self, frame: &[u8]) {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(frame);
        let written = rustix::io::write(&*self.port, &bytes).expect("the tap takes the frame");
        assert_eq!(written, bytes.len());
    }

    /// Whether a frame holding `mark` comes from the network within the time that an answer takes.
    pub fn receives(&self, mark: &[u8], expect: bool) -> bool {
        let patience = std::time::Duration::from_millis(if expect { 10_000 } else { 700 });
        while let Ok(frame) = self.seen.recv_timeout(patience) {
            if frame.windows(mark.len()).any(|window| window == mark) {
                return true;
            }
        }
        false
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

/// Carries frames both ways with their headers, and shows those from the network to the test.
fn pump(port: &OwnedFd, card: &OwnedFd, stop: &AtomicBool, seen: &mpsc::Sender<Vec<u8>>) {
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(port, PollFlags::IN), PollFd::new(card, PollFlags::IN)];
        if poll(&mut ready, Some(&tick)).is_err() {
            continue;
        }
        let gone = ready[0].revents().contains(PollFlags::ERR);
        while let Ok(read) = rustix::io::read(port, &mut buffer) {
            let _ = seen.send(buffer[HEADER.min(read)..read].to_vec());
            let _ = rustix::io::write(card, &buffer[..read]);
        }
        while let Ok(read) = rustix::io::read(card, &mut buffer) {
            let _ = rustix::io::write(port, &buffer[..read]);
        }
        if gone {
            return;
        }
    }
}
