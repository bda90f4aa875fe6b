//! Connections: how many, how long, how large. A stranger costs a bounded amount of each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::auth::Caller;
use super::routes::Site;
use crate::alarms;

/// Connections at a time, of one listener; others wait to be taken.
const CONNECTIONS_MAX: usize = 32;
/// How long a handshake, and the head of a request, may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last, whatever it is used for.
const LIFE: Duration = Duration::from_mins(1);
/// Bytes of a request's head, and the headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How soon an address is tried again that cannot be listened on.
const AGAIN: Duration = Duration::from_secs(10);

/// Serves on that address for ever, over TLS where it is given; what keeps it from listening is an
/// alarm of `name` meanwhile.
pub(super) async fn serve(
    name: &'static str,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    site: Arc<Site>,
) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                alarms::are(name, Vec::new());
                tracing::info!(%address, tls = tls.is_some(), "listens for metrics");
                accept(&listener, tls.as_ref(), &site).await;
            }
            Err(error) => {
                let alarm = format!(
                    "nobody can read metrics over {name}: cannot listen on TCP {address} ({error}); \
                     free the port, or name another one in [web]"
                );
                alarms::are(name, vec![alarm]);
                sleep(AGAIN).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, tls: Option<&TlsAcceptor>, site: &Arc<Site>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or of this process that has no more files: both pass.
                tracing::debug!(%error, "no connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, site) = (tls.cloned(), site.clone());
        tokio::spawn(async move {
            let talk = async {
                match tls {
                    None => talk(stream, Caller { from: from.ip(), certificate: None }, site).await,
                    Some(tls) => match timeout(HEAD, tls.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let certificates = stream.get_ref().1.peer_certificates();
                            let first = certificates.and_then(<[_]>::first);
                            let certificate = first.map(|first| first.to_vec());
                            talk(stream, Caller { from: from.ip(), certificate }, site).await
                        }
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(io::ErrorKind::TimedOut.into()),
                    },
                }
            };
            if let Ok(Err(error)) = timeout(LIFE, talk).await {
                tracing::debug!(%from, %error, "a connection ended");
            }
            drop(place);
        });
    }
}

async fn talk<S>(stream: S, caller: Caller, site: Arc<Site>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (site, caller) = (site.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(site.answer(&caller, &request).await) }
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
