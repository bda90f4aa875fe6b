//! Connections: how many, how long, how large. A stranger costs a bounded amount of each.
//!
//! ```text
//!  accepted ── stranger: few places, a minute at most ── known who asks ──> more places, 12 h at most
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duolog_console::{Connection, Console};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::alarms;
use crate::users;

/// Connections at a time of those of whom nobody knows who they are, of one listener; others wait to be
/// taken.
const STRANGERS_MAX: usize = 64;
/// The same of one address; more are closed at once, so that one computer cannot have all of them.
const STRANGERS_OF_ONE_MAX: usize = 16;
/// Connections at a time of those who are known; past it one more is treated as a stranger.
const KNOWN_MAX: usize = 512;
/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection of a stranger may last, whatever it is used for.
const STRANGER_LIFE: Duration = Duration::from_mins(1);
/// The same of somebody who is known: no session lasts longer.
const KNOWN_LIFE: Duration = Duration::from_hours(12);
/// Bytes of a request's head, and the headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How soon an address is tried again that cannot be listened on.
const AGAIN: Duration = Duration::from_secs(10);
/// How often is looked whether it is known who is at the other end.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Serves on that address for ever, over TLS where it is given; what keeps it from listening is an
/// alarm of `name` meanwhile.
pub(super) async fn serve(
    name: &'static str,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    console: Console,
) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                alarms::are(name, Vec::new());
                tracing::info!(%address, tls = tls.is_some(), "listens for the console");
                if tls.is_none() {
                    tracing::warn!(%address, "passwords and sessions cross in clear ([web] http)");
                }
                accept(&listener, tls.as_ref(), &console).await;
            }
            Err(error) => {
                let alarm = format!(
                    "nobody can use the console over {name}: cannot listen on TCP {address} ({error}); \
                     free the port, or name another one in [web]"
                );
                alarms::are(name, vec![alarm]);
                sleep(AGAIN).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, tls: Option<&TlsAcceptor>, console: &Console) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let known = Arc::new(Semaphore::new(KNOWN_MAX));
    let places = Arc::<Mutex<HashMap<IpAddr, usize>>>::default();
    loop {
        let Ok(place) = strangers.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or of this process that has no more files: both pass.
                tracing::debug!(%error, "no connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&places, from.ip(), place) else {
            tracing::debug!(%from, "too many connections of one that nobody knows");
            continue;
        };
        // Events are small, and are to be there at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may wait");
        }
        let (tls, console, known) = (tls.cloned(), console.clone(), known.clone());
        tokio::spawn(async move {
            let is_known = Arc::new(AtomicBool::new(false));
            let talk = begin(stream, from.ip(), tls, console, is_known.clone());
            tokio::pin!(talk);
            let ended = tokio::select! {
                ended = &mut talk => ended,
                is_known = known_in_time(&is_known) => match known.try_acquire_owned() {
                    _ if !is_known => Err(io::ErrorKind::TimedOut.into()),
                    Ok(its) => {
                        drop(place);
                        let ended = timeout(KNOWN_LIFE, talk).await;
                        drop(its);
                        ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    }
                    // There are as many as there may be: it has a stranger's place, and time.
                    Err(_) => timeout(STRANGER_LIFE, talk)
                        .await
                        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection ended");
            }
        });
    }
}

/// A stranger's place, counted by address.
struct Place {
    places: Arc<Mutex<HashMap<IpAddr, usize>>>,
    from: IpAddr,
    _one: OwnedSemaphorePermit,
}

impl Place {
    fn take(
        places: &Arc<Mutex<HashMap<IpAddr, usize>>>,
        from: IpAddr,
        one: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let from = users::from(from);
        let mut taken = places.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(from).or_default();
        if *count >= STRANGERS_OF_ONE_MAX {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Self { places: places.clone(), from, _one: one })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.from);
            }
        }
    }
}

/// Waits until it is known who is there; `false`: a stranger's time is over before.
async fn known_in_time(known: &AtomicBool) -> bool {
    let until = tokio::time::Instant::now() + STRANGER_LIFE;
    while !known.load(Ordering::Relaxed) {
        if tokio::time::Instant::now() >= until {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

async fn begin(
    stream: tokio::net::TcpStream,
    from: IpAddr,
    tls: Option<TlsAcceptor>,
    console: Console,
    known: Arc<AtomicBool>,
) -> io::Result<()> {
    let connection = Connection { from, encrypted: tls.is_some(), certificate: None, known };
    let Some(tls) = tls else { return talk(stream, connection, console).await };
    let accepted = timeout(HEAD, tls.accept(stream)).await;
    let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first).map(|first| first.to_vec().into());
    talk(stream, Connection { certificate, ..connection }, console).await
}

async fn talk<S>(stream: S, connection: Connection, console: Console) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let console = console.clone();
        request.extensions_mut().insert(connection.clone());
        async move { Ok::<_, Infallible>(console.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}
