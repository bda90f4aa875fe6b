//! A base copy of a node in service, under load, and the log replayed over it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duolog_engine::store::compare::{self, Except};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::{json, log, refused, said};

const BOUND: Duration = Duration::from_secs(30);

/// A node's process and its mount; gone with the test.
struct Node(Option<Child>, PathBuf);

impl Node {
    fn start(place: &Path, config: &Path) -> Self {
        let notify = place.join("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_duolog"))
            .args(["run", "--config"])
            .arg(config)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stderr(fs::File::create(place.join("log.txt")).unwrap())
            .spawn()
            .unwrap();
        let node = Self(Some(child), place.join("data"));
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).unwrap();
            if String::from_utf8_lossy(&message[..length]).contains("READY=1") {
                return node;
            }
        }
    }

    fn stop(mut self) {
        let mut child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().ok();
            child.wait().ok();
            rustix::mount::unmount(&self.1, UnmountFlags::DETACH).ok();
        }
    }
}

/// Makes, writes, renames and removes files until it is told to stop, and counts.
fn load(mount: &Path, over: &AtomicBool, done: &AtomicU64) {
    let mut round = 0_u64;
    while !over.load(Ordering::Relaxed) {
        let path = |number: u64| mount.join(format!("file-{}", number % 50));
        let file = fs::File::options().create(true).truncate(false).write(true).open(path(round));
        let file = file.unwrap();
        let block = round.to_le_bytes().repeat(1000);
        file.write_all_at(&block, (round % 7) * 8000).unwrap();
        match round % 5 {
            0 => rustix::fs::fsync(&file).unwrap(),
            1 => rustix::fs::rename(path(round), path(round + 17)).unwrap(),
            2 => file.set_len(round % 9000).unwrap(),
            3 => fs::remove_file(path(round)).unwrap(),
            _ => {}
        }
        round += 1;
        done.store(round, Ordering::Relaxed);
    }
}

fn wait_for(done: &AtomicU64, rounds: u64, worker: &std::thread::JoinHandle<()>) {
    let target = done.load(Ordering::Relaxed) + rounds;
    while done.load(Ordering::Relaxed) < target {
        assert!(!worker.is_finished(), "the load ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_base_under_load_and_the_log_are_the_node_as_it_stopped() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let duolog = || Command::new(env!("CARGO_BIN_EXE_duolog"));
    let keys = duolog().args(["keygen", "--out"]).arg(place.path()).output().unwrap();
    assert!(keys.status.success(), "{}", said(&keys));
    fs::create_dir(path("data")).unwrap();
    fs::write(path("data/before"), vec![7; 3 << 20]).unwrap();
    let config = format!(
        "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = 1\nrole = \"prim\"\n\
         state_dir = \"{0}/state\"\ncontrol_socket = \"{0}/sock\"\ncertificate = \"node.crt\"\n\
         key = \"node.key\"\n[[directory]]\npath = \"{0}/data\"\n[log]\n\
         segment_bytes = 4194304\nrecovery_window_bytes = 1073741824\n",
        place.path().display()
    );
    fs::write(path("duolog.toml"), config).unwrap();
    let adopted = duolog().args(["adopt", "--config"]).arg(path("duolog.toml")).output().unwrap();
    assert!(adopted.status.success(), "{}", said(&adopted));
    let node = Node::start(place.path(), &path("duolog.toml"));

    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let worker = {
        let (over, done, mount) = (over.clone(), done.clone(), path("data"));
        std::thread::spawn(move || load(&mount, &over, &done))
    };
    wait_for(&done, 50, &worker);
    let base = |dest: &Path| {
        let mut command = log("base");
        command.arg(dest).arg("--socket").arg(path("sock"));
        command
    };
    refused(&mut base(Path::new("relative")), &["absolute"]);
    refused(&mut base(&path("data/inside")), &["part of what is copied"]);
    refused(&mut base(&path(".data.duolog/inside")), &["part of what is copied"]);
    let taken = json(&mut base(&path("base")), 0);
    assert_eq!(taken["segments"], path("state").to_str().unwrap());
    refused(&mut base(&path("base")), &["exists"]);
    wait_for(&done, 200, &worker);
    // Beside the node: the log is read while it is written.
    json(log("verify").arg(path("state")), 0);
    json(log("ls").arg(path("state")), 0);
    over.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    node.stop();

    let replay = || {
        let mut command = log("replay");
        command.arg(path("base")).arg("--segments").arg(path("state"));
        command
    };
    let least = taken["consistent_from"].as_str().unwrap();
    let first = json(replay().args(["--until", least]), 0);
    assert_eq!(first["to"], least);
    let last = json(&mut replay(), 0);
    assert!(last["records"].as_u64().unwrap() > 200, "{last}");
    let different =
        compare::trees(&path(".data.duolog/data"), &path("base/data-0"), Except::default());
    let different: Vec<_> = different.unwrap().iter().map(ToString::to_string).collect();
    assert!(different.is_empty(), "{different:#?}");
}
