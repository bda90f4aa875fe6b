//! Peers that hold the right certificate and send what no link sends: they get an error, the
//! link says what was wrong, and goes on with the next connection.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use duolog_transport::ack::ACK_LEN;
use duolog_transport::control::{self, Message};
use duolog_transport::frame::{Content, Header};
use duolog_transport::{Ack, Hello, Identity, Link, Protocol, dial, listen};
use duolog_wal::{Cursor, Lsn};
use pair::{
    Node, Pair, Primary, Resync, Secondary, dial_config, identities, listen_config, loopback,
    noise, quick, wait_stats,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Believes anybody.
#[derive(Debug)]
struct Naive;

impl ServerCertVerifier for Naive {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Certificate and key, by way of the files.
fn certified(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("c"), directory.path().join("k"));
    identity.store(&certificate, &key).unwrap();
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_file(key).unwrap())
}

/// Speaks the oldest version, as whoever knows no other.
fn client() -> quinn::ClientConfig {
    client_of(Protocol::OLDEST.name())
}

fn client_of(protocol: Vec<u8>) -> quinn::ClientConfig {
    let (certificate, key) = certified(&identities()[0]);
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Naive))
        .with_client_auth_cert(certificate, key)
        .unwrap();
    tls.alpn_protocols = vec![protocol];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

fn server() -> quinn::ServerConfig {
    server_of(Protocol::OLDEST.name())
}

fn server_of(protocol: Vec<u8>) -> quinn::ServerConfig {
    let (certificate, key) = certified(&identities()[1]);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificate, key)
        .unwrap();
    tls.alpn_protocols = vec![protocol];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

fn endpoint(server: Option<quinn::ServerConfig>) -> Endpoint {
    let socket = UdpSocket::bind(loopback(0)).unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap()
}

fn hello(node: &Node, end: Cursor) -> Message {
    Message::Hello(Hello { end, ..node.state().hello.clone() })
}

async fn read(recv: &mut quinn::RecvStream) -> Message {
    let mut len = [0; 4];
    recv.read_exact(&mut len).await.unwrap();
    let mut bytes = vec![0; control::length(len).unwrap()];
    recv.read_exact(&mut bytes).await.unwrap();
    control::decode(&bytes).unwrap()
}

/// What a hostile primary sends on the control stream, and on a stream of its own once it is
/// ready.
struct Attack {
    name: &'static str,
    control: Vec<u8>,
    stream: Vec<u8>,
    /// Whether that stream is one of a resynchronisation.
    resync: bool,
    /// What the secondary says of it.
    cause: &'static str,
}

/// Runs the attack until the secondary ends the connection.
async fn attack(connection: &Connection, attack: &Attack) -> ConnectionError {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&attack.control).await.unwrap();
    if !attack.stream.is_empty() {
        assert!(matches!(read(&mut recv).await, Message::Hello(_)));
        if attack.resync {
            send.write_all(&control::encode(&Message::Resync)).await.unwrap();
            let (mut stream, _answers) = connection.open_bi().await.unwrap();
            stream.write_all(&attack.stream).await.ok();
            return connection.closed().await;
        }
        send.write_all(&control::encode(&Message::Start)).await.unwrap();
        assert!(matches!(read(&mut recv).await, Message::Ready { .. }));
        let mut log = connection.open_uni().await.unwrap();
        // The other end may close before all of it is taken.
        log.write_all(&attack.stream).await.ok();
        return connection.closed().await;
    }
    connection.closed().await
}

fn attacks(primary: &Node) -> Vec<Attack> {
    let good = control::encode(&hello(primary, Cursor::default()));
    let log = |frames: &[&[u8]]| [&[1][..], &frames.concat()].concat();
    let header = |content| Header { lsn: Lsn::ZERO, committed: Lsn::ZERO, content }.encode();
    let mut long = header(Content::Raw(1));
    long[8..16].fill(0xff);
    let zstd = header(Content::Zstd { raw_len: 1 << 16, wire_len: 1000 });
    let attack = |name, control: &[u8], stream: Vec<u8>, cause| Attack {
        name,
        control: control.to_vec(),
        stream,
        resync: false,
        cause,
    };
    let resync = |name, frames: &[u8], cause| {
        let stream = [&[3][..], frames].concat();
        Attack { resync: true, ..attack(name, &good, stream, cause) }
    };
    // 64 MiB of zeros in a few kilobytes.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let len = u32::try_from(1 + bomb.len()).unwrap().to_le_bytes();
    let bomb = [&len[..], &[1], &bomb].concat();
    vec![
        attack("a length of 4 GiB", &[0xff; 8], vec![], "a control message of 4294967295 bytes"),
        attack("another version", &[2, 0, 0, 0, 9, 0], vec![], "control messages of version 9"),
        attack(
            "noise",
            &[6, 0, 0, 0, control::WIRE_VERSION, 77, 3, 4, 5, 6],
            vec![],
            "a control message does not read",
        ),
        attack(
            "no Hello",
            &control::encode(&Message::Start),
            vec![],
            "the peer should have sent its Hello",
        ),
        attack("a stream of another kind", &good, vec![9], "a stream of kind 9"),
        attack("noise as log", &good, log(&[&noise(1, 5000)]), "no frame begins with"),
        attack("a frame of 4 GiB", &good, log(&[&long]), "a frame of 4294967295 bytes"),
        Attack {
            resync: true,
            ..attack("no such stream", &good, vec![9, 9], "a stream of kind 9")
        },
        resync("an empty frame", &[1, 0, 0, 0, 0], "a frame of 1 bytes"),
        resync("a frame of 4 GiB there", &[0xff; 9], "a frame of 4294967295 bytes in a resync"),
        resync("unknown flags", &[2, 0, 0, 0, 8, 8], "a message of unknown form"),
        resync("noise as a message", &[3, 0, 0, 0, 1, 8, 8], "does not unpack"),
        resync("a bomb", &bomb, "does not unpack"),
        attack("noise as zstd", &good, log(&[&zstd, &noise(2, 1000)]), "do not decompress"),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[track_caller]
fn says(link: &Link, name: &str, cause: &str) {
    wait_stats(link, &format!("{name}: {cause}"), |stats| {
        stats.last_error.as_ref().is_some_and(|why| why.contains(cause))
    });
}

#[test]
fn a_hostile_primary_is_closed_on_and_the_next_one_gets_in() {
    let (primary, secondary) = Pair::nodes();
    secondary.change(|state| state.resync = Resync::Whole(1000, None));
    let listener =
        listen(listen_config(loopback(0), &quick()), Secondary(secondary.clone())).unwrap();
    let addr = listener.local_addr();
    runtime().block_on(async {
        let endpoint = endpoint(None);
        for case in attacks(&primary) {
            let connection =
                endpoint.connect_with(client(), addr, "anything").unwrap().await.unwrap();
            let closed =
                tokio::time::timeout(pair::SOON, attack(&connection, &case)).await.unwrap();
            let ConnectionError::ApplicationClosed(close) = closed else {
                panic!("{}: {closed}", case.name)
            };
            // What a worker cannot read is its failure, not the link's.
            let code = if case.cause.contains("message of unknown") || case.cause.contains("unpack")
            {
                5
            } else {
                4
            };
            assert_eq!(u64::from(close.error_code), code, "{}: {close}", case.name);
            says(&listener, case.name, case.cause);
        }
        // One that says nothing at all is in nobody's way.
        let silent = endpoint.connect_with(client(), addr, "anything").unwrap().await.unwrap();
        let dialer = dial(dial_config(addr, &quick()), Primary(primary.clone())).unwrap();
        let end = primary.append(b"good", &dialer.waker());
        primary.wait("the acknowledgement", |state| state.acked == end);
        drop(silent);
        dialer.stop().unwrap();
    });
    assert_eq!(secondary.state().log.bytes, primary.state().log.bytes);
    listener.stop().unwrap();
}

/// Both ends say so, whoever dials; and who agreed on a version has to say what belongs to it.
#[test]
fn an_end_that_speaks_no_version_of_ours_is_named() {
    let (primary, secondary) = Pair::nodes();
    let listener =
        listen(listen_config(loopback(0), &quick()), Secondary(secondary.clone())).unwrap();
    let addr = listener.local_addr();
    runtime().block_on(async {
        let far = client_of(b"duolog/9".to_vec());
        let own = endpoint(None);
        own.connect_with(far, addr, "anything").unwrap().await.unwrap_err();
        says(&listener, "dialed by another version", "none of the versions of the link");

        let newest = client_of(Protocol::NEWEST.name());
        let connection = own.connect_with(newest, addr, "anything").unwrap().await.unwrap();
        let (mut send, _answers) = connection.open_bi().await.unwrap();
        let first = control::encode(&hello(&primary, Cursor::default()));
        send.write_all(&[first, control::encode(&Message::Start)].concat()).await.unwrap();
        connection.closed().await;
        says(&listener, "no release", "the peer should have sent its release");

        let other = endpoint(Some(server_of(b"duolog/9".to_vec())));
        let addr = other.local_addr().unwrap();
        let dialer = dial(dial_config(addr, &quick()), Primary(primary.clone())).unwrap();
        other.accept().await.unwrap().await.unwrap_err();
        says(&dialer, "dials another version", "none of the versions of the link");
        dialer.stop().unwrap();
    });
    listener.stop().unwrap();
}

/// Its first message, its second, its stream, and what the primary says of it.
type Impostor<'a> = (&'a [u8], &'a [u8], Vec<u8>, &'a str);

/// A secondary as the dialer meets it: answers as told, then sends `acks`.
async fn impostor(endpoint: &Endpoint, first: &[u8], second: &[u8], acks: &[u8]) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    assert!(matches!(read(&mut recv).await, Message::Hello(_)));
    send.write_all(first).await.unwrap();
    if !second.is_empty() {
        read(&mut recv).await;
        send.write_all(second).await.unwrap();
    }
    if !acks.is_empty() {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(acks).await.unwrap();
        connection.closed().await;
    }
    connection.closed().await;
}

#[test]
fn a_hostile_secondary_is_closed_on_and_nothing_is_believed() {
    let (primary, secondary) = Pair::nodes();
    primary.change(|state| state.log.append(b"one record"));
    let end = primary.state().log.end();
    let good = control::encode(&hello(&secondary, Cursor::default()));
    let ready = control::encode(&Message::Ready { at: Cursor::default() });
    let ack =
        |durable: u64| Ack { durable: Lsn(durable), ..primary_ack() }.encode(Protocol::NEWEST);
    let acks = |acks: &[[u8; ACK_LEN]]| [&[2][..], &acks.concat()].concat();
    let cases: [Impostor<'_>; 7] = [
        (&[0xff; 8], &[], vec![], "a control message of 4294967295 bytes"),
        (&ready, &[], vec![], "the peer should have sent its Hello"),
        (&good, &control::encode(&Message::Ready { at: end }), vec![], "Ready at a position"),
        (&good, &ready, vec![1], "a stream of kind 1"),
        (&good, &ready, acks(&[[7; ACK_LEN]]), "is no acknowledgement"),
        (&good, &ready, acks(&[ack(0), ack(15)]), "acknowledged 0/0000000F, but was sent no more"),
        (&good, &ready, acks(&[ack(u64::MAX)]), "but was sent no more"),
    ];
    runtime().block_on(async {
        for (first, second, acks, cause) in cases {
            let endpoint = endpoint(Some(server()));
            let addr = endpoint.local_addr().unwrap();
            let dialer = dial(dial_config(addr, &quick()), Primary(primary.clone())).unwrap();
            let run = impostor(&endpoint, first, second, &acks);
            tokio::time::timeout(Duration::from_secs(10), run).await.unwrap();
            says(&dialer, "a hostile secondary", cause);
            assert_eq!(primary.state().acked, Lsn::ZERO, "{cause}");
            dialer.stop().unwrap();
        }
    });
}

fn primary_ack() -> Ack {
    Ack { view: duolog_wal::ViewNum(3), ..Ack::default() }
}
