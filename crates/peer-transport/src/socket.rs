//! A UDP socket that can take a burst.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use tracing::warn;

/// Binds a socket with buffers of `buffer_bytes` each way, as far as the system grants them.
///
/// An IPv6 socket takes IPv4 as well.
pub(crate) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A refusal is not fatal: the system's own size stays, and the warning below tells it.
    drop(socket.set_recv_buffer_size(buffer_bytes));
    drop(socket.set_send_buffer_size(buffer_bytes));
    let granted = usable(socket.recv_buffer_size()?.min(socket.send_buffer_size()?));
    if granted < buffer_bytes {
        warn!(
            asked = buffer_bytes,
            granted,
            "the system grants smaller socket buffers, so bursts lose packets; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&SockAddr::from(address))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Linux reports twice what can be used: the other half is for its own bookkeeping (socket(7), SO_RCVBUF).
fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_bind() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind(address.parse().unwrap(), 64 << 10).unwrap();
            assert_ne!(socket.local_addr().unwrap().port(), 0);
        }
    }
}
