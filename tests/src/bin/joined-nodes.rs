//! Both nodes in one process, joined without a network: a mount on the first, the log copied to
//! the second byte by byte. For what the daemon's configuration does not offer: FUSE features
//! masked, suid bits and device files honoured, small file systems below.
//!
//! `joined-nodes HOME [--state DIR] [--second-state DIR] [--mask BITS] [--suid-and-devices]`
//! serves `HOME/one/data`, with the nodes' logs in the given directories, until its standard input ends; then it stops both
//! nodes cleanly. It says `ready` once it serves. It never touches anything outside of these.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use duolog_engine::node::{self, Node, NodeConfig};
use duolog_engine::store::{Directory, LocalRules, Preset};
use duolog_tests::wire::Wire;
use duolog_wal::{ClusterId, NodeId};

const BOUND: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Options {
    home: PathBuf,
    state: Option<PathBuf>,
    second_state: Option<PathBuf>,
    mask: u64,
    suid_and_devices: bool,
}

fn options() -> Options {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--state" => options.state = Some(arguments.next().unwrap().into()),
            "--second-state" => options.second_state = Some(arguments.next().unwrap().into()),
            "--mask" => options.mask = arguments.next().unwrap().parse().unwrap(),
            "--suid-and-devices" => options.suid_and_devices = true,
            _ => options.home = argument.into(),
        }
    }
    options
}

fn config(options: &Options, name: &str, id: NodeId) -> NodeConfig {
    let root = options.home.join(name);
    fs::create_dir_all(&root).unwrap();
    let local = LocalRules::new(Preset::None, &["local*".to_owned()]).unwrap();
    let directory = Directory::of(&root.join("data"), local).unwrap();
    let given = if id == NodeId::Node1 { &options.state } else { &options.second_state };
    let state = given.clone().unwrap_or_else(|| root.join("state"));
    let mut config = NodeConfig::new(ClusterId(7), id, state, vec![directory]);
    config.log.segment_bytes = 4 << 20;
    config.checkpoint_bytes = 8 << 20;
    config.masked_fuse_flags = options.mask;
    config.suid_and_devices = options.suid_and_devices;
    config
}

fn open(options: &Options, name: &str, id: NodeId) -> Arc<Node> {
    let config = config(options, name, id);
    node::adopt(&config).unwrap();
    Node::open(config).unwrap()
}

fn main() {
    let options = options();
    assert_ne!(options.home, Path::new(""), "where to?");
    let first = open(&options, "one", NodeId::Node1);
    let second = open(&options, "two", NodeId::Node2);
    second.follow();
    let wire = Wire::join(&first, &second);
    first.lead(true).unwrap();
    assert!(first.wait_ready(BOUND).unwrap());
    first.mount().unwrap();
    println!("ready");

    let (told, stop) = mpsc::channel();
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        told.send(()).unwrap();
    });
    while stop.recv_timeout(Duration::from_millis(50)).is_err() {
        for node in [&first, &second] {
            if let Some(failure) = node.wait_failure(Duration::ZERO) {
                eprintln!("{failure}: {failure:?}");
                first.unmount();
                std::process::exit(1);
            }
        }
    }
    first.stop(BOUND).unwrap();
    drop(wire);
    second.stop(BOUND).unwrap();
}
