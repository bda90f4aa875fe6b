//! Sockets and QUIC's parameters: everything about a link that is decided before it connects.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::{self, HmacKey};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use rustix::net::sockopt;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::OkmBlock;

use crate::drive::Drive;
use crate::identity::{Identity, sha256};
use crate::settings::{MTU_MIN, MTU_PROBED, Tuning};

const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Control, a resynchronisation that has just ended, questions.
const BIDI_STREAMS: u32 = 5;
const _: () = assert!(2 * STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES, "see bulk");
/// The link is ours alone and short: begin with what a switch buffers, not with ten packets.
const INITIAL_CONGESTION_WINDOW_BYTES: u64 = 256 << 10;
/// Packets that may go unanswered: with fewer, a commit's packets would be answered by one of
/// QUIC's own, and the acknowledgement, which answers them as well, would follow in another.
const PACKETS_UNANSWERED: u32 = 32;
/// A first guess at the round trip: three times that until a lost first packet is sent again.
const INITIAL_RTT: Duration = Duration::from_millis(25);

/// Asks for larger buffers: past the system's limits where we may, up to them where not. What
/// comes in while the secondary's disk syncs waits there, and what does not fit is lost and sent
/// again.
fn grow_buffers(socket: &socket2::Socket, bytes: usize) {
    let forced = sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_ok();
    let received = forced || socket.set_recv_buffer_size(bytes).is_ok();
    let sent = socket.set_send_buffer_size(bytes).is_ok();
    if !forced {
        tracing::debug!(received, sent, "the socket's buffers end at net.core.rmem_max");
    }
}

/// A UDP socket with large buffers, as far as the system grants them.
pub(crate) fn socket(bind: SocketAddr, tuning: &Tuning) -> io::Result<UdpSocket> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(bind), socket2::Type::DGRAM, None)?;
    grow_buffers(&socket, tuning.socket_buffer_bytes);
    socket.bind(&bind.into())?;
    Ok(socket.into())
}

/// An endpoint on the socket of that drive, which runs it.
pub(crate) fn endpoint(
    drive: &Drive,
    identity: &Identity,
    tuning: &Tuning,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(identity)));
    config.cid_generator(|| Box::new(RandomIds));
    config.max_udp_payload_size(tuning.mtu_bytes.max(MTU_PROBED + 20)).map_err(io::Error::other)?;
    let runtime = Arc::new(drive.clone());
    quinn::Endpoint::new_with_abstract_socket(config, server, drive.socket(), runtime)
}

/// QUIC's parameters of a connection.
pub(crate) fn transport(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW_BYTES);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_UNANSWERED));
    let idle_ms = u32::try_from(tuning.idle_ms).unwrap_or(u32::MAX);
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(Duration::from_millis(tuning.keep_alive_ms)))
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .enable_segmentation_offload(true);
    if tuning.mtu_bytes > MTU_PROBED {
        // Pinned to what the operator verified: a smaller one would never be found missing.
        config.min_mtu(tuning.mtu_bytes).initial_mtu(tuning.mtu_bytes).mtu_discovery_config(None);
    } else {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(tuning.mtu_bytes);
        config.initial_mtu(MTU_MIN).mtu_discovery_config(Some(discovery));
    }
    Arc::new(config)
}

/// What stateless resets are signed with. Derived from the node's key, so that a restarted node
/// can still end the connections of its former life, and the peer learns within a packet that it
/// has to connect anew instead of waiting for `idle_ms`.
struct ResetKey(OkmBlock);

impl ResetKey {
    fn of(identity: &Identity) -> Self {
        let mut secret = b"duolog stateless reset".to_vec();
        secret.extend_from_slice(identity.key().secret_der());
        Self(OkmBlock::new(&sha256(&secret)))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
        let tag = suite.hkdf_provider.hmac_sign(&self.0, data);
        signature_out.copy_from_slice(tag.as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), crypto::CryptoError> {
        let mut expected = [0; 32];
        self.sign(data, &mut expected);
        let same = signature.len() == expected.len()
            && expected.iter().zip(signature).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0;
        same.then_some(()).ok_or(crypto::CryptoError)
    }
}

/// Connection ids without structure: those of a former life look like any other, and are
/// answered with a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut id)
            .expect("the system has random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
