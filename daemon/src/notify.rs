//! Tells whoever started the node how it stands, as systemd understands it: a datagram to the
//! socket named by `NOTIFY_SOCKET`. Without that variable nothing is said.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the node serves, with the sentence that `systemctl status` shows.
pub(crate) fn ready(sentence: &str) {
    say(&format!("READY=1\nSTATUS={sentence}\n"));
}

/// Says what the node waits for.
pub(crate) fn waiting(sentence: &str) {
    say(&format!("STATUS={sentence}\n"));
}

/// Says that the node is about to end.
pub(crate) fn stopping() {
    say("STOPPING=1\nSTATUS=stopping\n");
}

fn say(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(%error, socket = %socket.display(), "NOTIFY_SOCKET cannot be told");
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_reaches_a_socket_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@{}", path.display());
        let named = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&named).unwrap(), name.into()),
        ] {
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            send(&address, "READY=1\n").unwrap();
            let mut message = [0; 64];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1\n");
        }
    }
}
