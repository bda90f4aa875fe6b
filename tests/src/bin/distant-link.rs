//! A link between two network namespaces whose round trip takes as long as it is told: for machines
//! whose kernel cannot delay packets.
//!
//! ```text
//! namespace a: device --tun-- [ waits half a round trip ] --tun-- device :namespace b
//! ```
//! `distant-link --device NAME --rtt-us N NAMESPACE-A NAMESPACE-B` makes a point-to-point device of
//! that name in both namespaces (files as in `/run/netns`), says `ready`, and carries packets until
//! it is killed; the devices end with it. It treats all packets alike, TCP and UDP, segments not cut
//! yet included, as a virtual cable does: it never drops, reorders or limits.

#![expect(clippy::unwrap_used, reason = "a link that cannot work says why by panicking")]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A device of IP packets, with what is left to do about checksums and segments before each.
const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// Checksums and segmentation that may be left undone.
const TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
const UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
/// The largest packet and what stands before it.
const PACKET_MAX: usize = (64 << 10) + 512;
/// Packets under way in one direction; then the sender's device fills, as a real one does.
const PACKETS_MAX: usize = 1 << 14;

/// `struct ifreq` as far as `TUNSETIFF` reads it.
#[repr(C)]
struct Wanted {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the device in a namespace. The calling thread stays there.
fn device(name: &str, namespace: &str) -> File {
    let namespace = File::open(namespace).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut wanted = Wanted { name: [0; 16], flags: u16::try_from(FLAGS).unwrap(), rest: [0; 22] };
    wanted.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq` of 40 bytes, which `Wanted` has the size of.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut wanted) };
    assert_eq!(made, 0, "no device {name}: {}", std::io::Error::last_os_error());
    // An older kernel does not know UDP's.
    let set = [TCP | UDP, TCP].into_iter().any(|offloads| {
        // SAFETY: the argument is a number; the kernel follows no pointer.
        unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) == 0 }
    });
    assert!(set, "no offloads: {}", std::io::Error::last_os_error());
    tun
}

fn take_in(from: &File, delay: Duration, to: &SyncSender<(Instant, Vec<u8>)>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        // A device that is not up yet answers an error.
        match (&*from).read(&mut packet) {
            Ok(len) => to.send((Instant::now() + delay, packet[..len].to_vec())).unwrap(),
            Err(_) => thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

fn give_out(from: &Receiver<(Instant, Vec<u8>)>, to: &File) {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).unwrap();
    for (due, packet) in from {
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        // Lost where the device is down, as on a cable that is not plugged in.
        (&*to).write_all(&packet).ok();
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name_option, name, rtt_option, rtt_us, first, second] = &arguments[..] else {
        panic!("distant-link --device NAME --rtt-us N NAMESPACE NAMESPACE");
    };
    assert_eq!((&**name_option, &**rtt_option), ("--device", "--rtt-us"));
    assert!(name.len() < 16, "a device has a name of at most 15 bytes");
    let delay = Duration::from_micros(rtt_us.parse().unwrap()) / 2;
    let [first, second] = [first, second].map(|namespace| Arc::new(device(name, namespace)));
    let mut threads = Vec::new();
    for (from, to) in [(&first, &second), (&second, &first)] {
        let (sender, receiver) = sync_channel(PACKETS_MAX);
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        threads.push(thread::spawn(move || take_in(&from, delay, &sender)));
        threads.push(thread::spawn(move || give_out(&receiver, &to)));
    }
    println!("ready");
    for thread in threads {
        thread.join().unwrap();
    }
}
