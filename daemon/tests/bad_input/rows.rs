//! The table.

use std::any::Any;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::site::Site;

/// What is held while a row is gone through.
pub(crate) type Held = Box<dyn Any>;

pub(crate) struct Row {
    /// What is wrong.
    pub(crate) what: &'static str,
    /// How the site is spoilt.
    pub(crate) spoil: fn(&Site) -> Held,
    /// What an operator runs then.
    pub(crate) command: &'static [&'static str],
    /// Cause and remedy, as they have to be said.
    pub(crate) said: &'static [&'static str],
}

const RUN: &[&str] = &["run"];
const ADOPT: &[&str] = &["adopt"];

/// A row where something else stands in the configuration.
macro_rules! instead {
    ($what:literal, $from:literal => $to:literal, $($said:literal),+) => {
        Row {
            what: $what,
            spoil: |site| {
                site.instead($from, $to);
                Box::new(())
            },
            command: RUN,
            said: &[$($said),+],
        }
    };
}

/// A row where more stands in the configuration.
macro_rules! further {
    ($what:literal, $more:literal, $($said:literal),+) => {
        Row {
            what: $what,
            spoil: |site| {
                site.further($more);
                Box::new(())
            },
            command: RUN,
            said: &[$($said),+],
        }
    };
}

/// A row where the site is spoilt in another way.
macro_rules! other {
    ($what:literal, $command:expr, $spoil:expr, $($said:literal),+) => {
        Row { what: $what, spoil: $spoil, command: $command, said: &[$($said),+] }
    };
}

fn done() -> Held {
    Box::new(())
}

pub(crate) const ROWS: &[Row] = &[
    other!(
        "no configuration",
        RUN,
        |site| {
            fs::remove_file(site.config()).unwrap();
            done()
        },
        "cannot read the configuration",
        "check the path and its permissions",
        "No such file"
    ),
    other!(
        "a directory in place of the configuration",
        RUN,
        |site| {
            fs::remove_file(site.config()).unwrap();
            fs::create_dir(site.config()).unwrap();
            done()
        },
        "cannot read the configuration",
        "check the path",
        "Is a directory"
    ),
    other!(
        "a configuration that is no text",
        RUN,
        |site| {
            fs::write(site.config(), [0xff, 0xfe, 0]).unwrap();
            done()
        },
        "cannot read the configuration",
        "valid UTF-8"
    ),
    instead!("a syntax error", "number = 1" => "number = ", "line 5: ", "see packaging/duolog.toml for the form"),
    instead!("an unknown key", "listen = " => "lissen = ", "node.lissen: is not a setting", "did you mean \"listen\"?"),
    further!(
        "an unknown table",
        "[peers]\nnumber = 1\n",
        "peers: is not a setting",
        "did you mean \"peer\"?"
    ),
    further!(
        "a table that is there twice",
        "[log]\n",
        "duplicate key",
        "see packaging/duolog.toml"
    ),
    instead!("a number out of its range", "number = 1" => "number = 3", "3 is not a node", "write 1 on the computer that was set up first"),
    instead!("a text in place of a number", "segment_bytes = 4194304" => "segment_bytes = \"4 MiB\"", "log.segment_bytes: is a value of the kind string", "write a whole number"),
    instead!("a role that there is not", "number = 1" => "number = 1\nrole = \"primary\"", "\"primary\" is not known", "write \"prim\" or \"second\""),
    instead!("a cluster's id that is cut", "00000000000000000000000000000007" => "0007", "is not 32 hex digits", "duolog keygen --cluster prints a new one"),
    instead!("a relative directory", "state_dir = \"" => "state_dir = \"relative\" #", "\"relative\" is not an absolute path", "begins with"),
    instead!("a name in place of an address", "address = \"127.0.0.2" => "address = \"node2.example", "is not an IP address with a port", "names are not resolved"),
    instead!("a fingerprint that is cut", "fingerprint = \"sha256:" => "fingerprint = \"sha256:00\" # ", "peer.fingerprint", "write what duolog keygen printed on the other node"),
    instead!("no key of the pair", "pair_key = " => "# pair_key = ", "node.pair_key: is missing", "duolog keygen --pair-key FILE makes one"),
    instead!("fence and stop above failover", "heartbeat_ms = 1000" => "fence_ms = 29000\nstop_services_ms = 5000\nfailover_ms = 30000", "34000 ms together, and failover_ms is 30000", "write failover_ms = 37401 or more"),
    instead!("a fence before the peer is lost", "heartbeat_ms = 1000" => "peer_lost_ms = 20000\nfence_ms = 15000", "is not longer than peer_lost_ms (20000)", "write fence_ms = 30000 or more"),
    instead!("a heartbeat too rare", "heartbeat_ms = 1000" => "heartbeat_ms = 1900", "less than two heartbeats of 1900 ms", "write peer_lost_ms = 3800 or more"),
    instead!("a log that is kept for nobody", "heartbeat_ms = 1000" => "retention_bytes = 4194304", "4194304 is less than two segments", "write at least 8388608"),
    instead!("a profile that there is not", "heartbeat_ms = 1000" => "profile = \"quick\"", "\"quick\" is not known", "write \"normal\" or \"fast\""),
    instead!("a command through a shell", "heartbeat_ms = 1000" => "notify = [\"tell\"]", "pair.notify: \"tell\" is not the path of a program", "no shell reads this"),
    instead!("a command without a word", "heartbeat_ms = 1000" => "drop_address = []", "pair.drop_address: holds no command", "or leave it out"),
    instead!("an instance past the last one", "number = 1" => "number = 1\ninstance = 100", "100 is out of range", "write 1 to 99"),
    further!(
        "a virtual IP without a prefix",
        "[[virtual_ip]]\naddress = \"10.0.0.9\"\n",
        "has no prefix",
        "such as \"10.0.0.9/24\""
    ),
    other!(
        "a virtual IP that a computer has",
        RUN,
        |site| {
            site.instead("address = \"127.0.0.2", "address = \"10.0.0.2");
            site.further("[[virtual_ip]]\naddress = \"10.0.0.2/24\"\n");
            done()
        },
        "10.0.0.2 is the address of [peer]",
        "write an address that no computer has of its own"
    ),
    further!(
        "a virtual IP that is the subnet's",
        "[[virtual_ip]]\naddress = \"10.0.0.255/24\"\n",
        "10.0.0.255 is the broadcast address",
        "write the address and the prefix"
    ),
    further!(
        "a virtual IP twice",
        "[[virtual_ip]]\naddress = \"10.0.0.9/24\"\n[[virtual_ip]]\naddress = \"10.0.0.9/16\"\n",
        "10.0.0.9 is there twice",
        "leave one of them out"
    ),
    further!(
        "a device that cannot be",
        "[[virtual_ip]]\naddress = \"10.0.0.9/24\"\ndevice = \"no such/device\"\n",
        "cannot be a network device",
        "`ip link` shows"
    ),
    further!(
        "a heartbeat path twice",
        "[[path]]\nlocal = \"127.0.0.1:HEARTBEATS\"\npeer = \"127.0.0.2:1\"\n",
        "is used by two paths",
        "give each path a local address or a port of its own"
    ),
    further!(
        "a gateway that is a name",
        "[gateway]\naddress = \"router\"\n",
        "\"router\" is not an IP address",
        "names are not resolved"
    ),
    further!(
        "a witness without its key",
        "[witness]\naddress = \"10.0.0.3:7432\"\n",
        "witness.key: is missing",
        "name the file with the key"
    ),
    instead!("a log inside of what it logs", "state_dir = \"" => "state_dir = \"SITE/data/log\" #", "overlap", "keep the log outside of what it replicates"),
    further!(
        "directories inside of each other",
        "[[directory]]\npath = \"SITE/data/base\"\n",
        "overlap",
        "name each directory once"
    ),
    further!(
        "a service without a start",
        "[[service]]\nname = \"sql\"\n",
        "service.start: is missing",
        "write the command that starts it"
    ),
    further!(
        "a service twice",
        "[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\n[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\n",
        "there are two called \"sql\"",
        "write a name of its own"
    ),
    further!(
        "a service in the background that nothing ends",
        "[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\nforeground = false\n",
        "is false and there is no stop",
        "add stop = [...]"
    ),
    further!(
        "a unit of systemd that is a template",
        "[[service]]\nname = \"sql\"\nunit = \"postgresql@.service\"\n",
        "service.unit: \"postgresql@.service\" is a template and no unit that runs",
        "such as \"postgresql@15-main.service\""
    ),
    further!(
        "a unit of systemd with a command",
        "[[service]]\nname = \"sql\"\nunit = \"postgresql@15-main.service\"\nstart = [\"/bin/true\"]\n",
        "service.start: is written beside unit",
        "leave it out"
    ),
    further!(
        "a checker of SQL without a client",
        "[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\n[[service.checker]]\nkind = \"sql\"\n",
        "nothing says which client asks",
        "give the service a preset"
    ),
    further!(
        "a checker that there is not",
        "[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\n[[service.checker]]\nkind = \"ping\"\n",
        "\"ping\" is not known",
        "write \"tcp\""
    ),
    further!(
        "a preset that there is not",
        "[[service]]\npreset = \"oracle\"\n",
        "\"oracle\" is not known",
        "write \"postgresql\" or \"mariadb\""
    ),
    other!(
        "a directory whose parent is missing",
        ADOPT,
        |site| {
            site.instead("/data\"\n\n[log]", "/nothing/data\"\n\n[log]");
            done()
        },
        "nothing does not exist",
        "make it first, or mend [[directory]] path"
    ),
    other!(
        "a file in place of a directory",
        ADOPT,
        |site| {
            fs::remove_dir_all(site.at("data")).unwrap();
            fs::write(site.at("data"), "").unwrap();
            done()
        },
        "is not a directory",
        "name the directory"
    ),
    other!(
        "a file system without extended attributes",
        &[
            "sh",
            "unshare -m sh -c 'mount -t ramfs none $SITE/data && $DUOLOG adopt --config $CONFIG'"
        ],
        |_| done(),
        "keeps no extended attributes",
        "use ext4 or XFS, or mount with user_xattr"
    ),
    other!(
        "no space for the log",
        &[
            "sh",
            "unshare -m sh -c 'mount -t tmpfs -o size=1m none $SITE/state && $DUOLOG adopt --config $CONFIG'"
        ],
        |site| {
            fs::create_dir(site.at("state")).unwrap();
            done()
        },
        "free, and a log needs 8 MiB",
        "make room"
    ),
    other!(
        "no adoption before the start",
        RUN,
        |_| done(),
        "this node was not set up",
        "run `duolog adopt --config FILE` first"
    ),
    other!(
        "a user that there is not",
        RUN,
        |site| {
            site.adopted();
            site.further(
                "[[service]]\nname = \"sql\"\nstart = [\"/bin/true\"]\nuser = \"no-such-user\"\n",
            );
            done()
        },
        "there is no user \"no-such-user\"",
        "add it, or mend [[service]] user"
    ),
    other!(
        "a key that is missing",
        RUN,
        |site| {
            site.adopted();
            fs::remove_file(site.at("etc/node1.key")).unwrap();
            done()
        },
        "node1.key: No such file",
        "duolog keygen makes one"
    ),
    other!(
        "a key that everybody reads",
        RUN,
        |site| {
            site.adopted();
            fs::set_permissions(site.at("etc/node1.key"), fs::Permissions::from_mode(0o644))
                .unwrap();
            done()
        },
        "has mode 644",
        "make it 600"
    ),
    other!(
        "a certificate that is none",
        RUN,
        |site| {
            site.adopted();
            fs::write(site.at("etc/node1.crt"), "mine").unwrap();
            done()
        },
        "no certificate in PEM form",
        "duolog keygen makes one"
    ),
    other!(
        "a key of the pair that is none",
        RUN,
        |site| {
            site.adopted();
            fs::write(site.at("etc/pair.key"), "secret").unwrap();
            done()
        },
        "pair.key is no key",
        "it holds 64 hexadecimal digits"
    ),
    other!(
        "the same node twice",
        RUN,
        |site| {
            site.adopted();
            Box::new(UnixListener::bind(site.at("sock")).unwrap())
        },
        "another node already listens on",
        "stop it, or give this one another instance"
    ),
    other!(
        "a log that another process has",
        RUN,
        |site| {
            site.adopted();
            let lock = fs::File::open(site.at("state/lock")).unwrap();
            lock.try_lock().unwrap();
            Box::new(lock)
        },
        "another process uses",
        "end it first"
    ),
    other!(
        "a control block that is damaged",
        RUN,
        |site| {
            site.adopted();
            fs::write(site.at("state/control"), "nothing").unwrap();
            done()
        },
        "the control block is damaged",
        "set this node up again from its peer"
    ),
    other!(
        "another cluster's log",
        RUN,
        |site| {
            site.adopted();
            site.instead("00000000000000000000000000000007", "00000000000000000000000000000008");
            done()
        },
        "belongs to node1 of pair 00000000000000000000000000000007",
        "use another state_dir"
    ),
    other!(
        "a control socket below a file",
        RUN,
        |site| {
            site.adopted();
            site.instead("control_socket = \"", "control_socket = \"SITE/etc/pair.key/sock\" #");
            done()
        },
        "cannot listen on the control socket",
        "check that its directory can be written"
    ),
    other!(
        "no FUSE",
        &[
            "sh",
            "exec unshare -m sh -c 'mount -t tmpfs none /dev && \
             mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec $DUOLOG init --name shop \
             --dir $SITE/data --etc $SITE/other --state-dir $SITE/other-state \
             --address 127.0.0.1:$PORT'",
        ],
        |_| done(),
        "cannot use FUSE",
        "modprobe fuse"
    ),
    other!(
        "something else in the place of FUSE",
        &[
            "sh",
            "exec unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/fuse c 1 3 && \
             mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec $DUOLOG init --name shop \
             --dir $SITE/data --etc $SITE/other --state-dir $SITE/other-state \
             --address 127.0.0.1:$PORT'",
        ],
        |_| done(),
        "/dev/fuse is not the device of FUSE",
        "modprobe fuse"
    ),
    other!(
        "a virtual IP of another subnet",
        &[
            "sh",
            "exec $DUOLOG init --name shop --dir $SITE/data --etc $SITE/other \
             --state-dir $SITE/other-state --address 127.0.0.1:$PORT --virtual-ip 203.0.113.9/24",
        ],
        |_| done(),
        "virtual IP 203.0.113.9/24 is in no subnet of this computer",
        "`ip address` shows"
    ),
    other!(
        "a virtual IP of another computer, before there is a pair",
        &[
            "sh",
            "exec unshare -n sh -c 'unshare -n sleep 60 & other=$!; net() { readlink /proc/$1/ns/net; }; \
             until [ \"$(net $other)\" != \"$(net self)\" ]; do :; done; \
             ip link add here type veth peer name there address 02:00:00:00:00:09 netns $other; \
             ip address add 10.9.0.1/24 dev here; ip link set here up; \
             nsenter -t $other -n sh -c \"ip address add 10.9.0.9/24 dev there; ip link set there up\"; \
             $DUOLOG init --name shop --dir $SITE/data --etc $SITE/other --state-dir $SITE/other-state \
             --address 10.9.0.1:$PORT --virtual-ip 10.9.0.9/24; code=$?; kill $other; exit $code'",
        ],
        |_| done(),
        "the computer with the hardware address 02:00:00:00:00:09 answers for it on here",
        "or this pair another virtual IP"
    ),
    other!(
        "a port that is taken, where roles are fixed",
        RUN,
        |site| {
            site.adopted();
            site.instead("number = 1", "number = 1\nrole = \"second\"");
            Box::new(UdpSocket::bind(("127.0.0.1", site.port())).unwrap())
        },
        "is another node on this address?",
        "Address already in use"
    ),
    other!(
        "an engine with fsync off",
        &["check"],
        |site| {
            site.instead("path = \"", "preset = \"postgresql\"\npath = \"");
            fs::write(site.at("data/PG_VERSION"), "15").unwrap();
            fs::write(site.at("data/postgresql.conf"), "fsync = off\n").unwrap();
            done()
        },
        "fsync",
        "FAILED"
    ),
    other!(
        "nobody who answers",
        &["status"],
        |_| done(),
        "no node runs here",
        "start it with duolog run --config FILE"
    ),
    other!(
        "a question to a node that does not run",
        &["swap", "--yes"],
        |_| done(),
        "swap was not done: no node runs here",
        "start it with duolog run"
    ),
    further!(
        "a user with a role that there is not",
        "[[user]]\nname = \"anna\"\nrole = \"root\"\n",
        "user.role: \"root\" is not known",
        "write \"viewer\" or \"operator\" or \"administrator\" or \"metrics\""
    ),
    further!(
        "the same user twice",
        "[[user]]\nname = \"anna\"\nrole = \"viewer\"\n[[user]]\nname = \"Anna\"\nrole = \"viewer\"\n",
        "user.name: the user \"Anna\" is there twice",
        "leave one of them out"
    ),
    further!(
        "a user's password in clear",
        "[[user]]\nname = \"anna\"\nrole = \"viewer\"\npassword = \"correct horse\"\n",
        "user.password: is no hash of a password",
        "set it with duolog users password NAME"
    ),
    further!(
        "a revoked certificate without its number",
        "[[revoked]]\nserial = \"anna's\"\n",
        "revoked.serial: \"anna's\" is no serial number",
        "as duolog certs user or openssl x509 -serial shows it"
    ),
    other!(
        "a weak password",
        &[
            "sh",
            "echo five5 | exec $DUOLOG users add anna --role viewer --password-file - --config $CONFIG"
        ],
        |_| done(),
        "the password has 5 characters",
        "take 6 to 128"
    ),
    other!(
        "a password that nobody can type",
        &["users", "add", "anna", "--role", "viewer"],
        |_| done(),
        "there is no terminal to type Password of anna at",
        "--password-file FILE"
    ),
    other!(
        "a name that leads out of the directory",
        &["certs", "user", "../anna", "--role", "viewer"],
        |_| done(),
        "\"../anna\" cannot name a user",
        "use 1 to 40 letters"
    ),
    other!(
        "a certificate where there is no authority",
        &["certs", "renew"],
        |_| done(),
        "ca.crt: the pair's authority is made by duolog init",
        "No such file"
    ),
    other!(
        "a file's password that is too short",
        &[
            "sh",
            "echo five5 | exec $DUOLOG certs user anna --role viewer --password-file - --out $SITE --config $CONFIG"
        ],
        authority,
        "the password of the file has 5 characters",
        "take 6 to 32"
    ),
    other!(
        "a file's password that is too long",
        &[
            "sh",
            "echo 012345678901234567890123456789012 | exec $DUOLOG certs user anna --role viewer \
             --password-file - --out $SITE --config $CONFIG",
        ],
        authority,
        "the password of the file has 33 characters",
        "take 6 to 32"
    ),
    other!(
        "a revocation of nobody",
        &["certs", "revoke", "anna"],
        |_| done(),
        "anna is neither a user nor the serial number of a certificate",
        "duolog users list shows"
    ),
];

fn authority(site: &Site) -> Held {
    let key = duolog_transport::new_key().unwrap();
    let certificate = duolog_transport::Authority::new("shop", &key).unwrap().certificate();
    fs::write(site.at("etc/ca.crt"), certificate.unwrap()).unwrap();
    fs::write(site.at("etc/ca.key"), key).unwrap();
    done()
}
