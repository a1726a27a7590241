use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::{Client, Relay};
use crate::backends::Backends;

/// How long a backend may take to answer; less than a client waits for its own answer.
const CONNECT: Duration = Duration::from_secs(10);
/// How many addresses of one name are tried for a client.
const TRIES: usize = 3;
/// The buffer of each direction, in bytes.
const BUFFER: usize = 32 * 1024;

impl Relay {
    /// Serves one client: reaches the backend before the client gets an answer, and refuses it when there is none.
    pub(crate) async fn serve_client<C: Client>(self, client: C, backends: Backends) {
        let to = client.to();
        let mut backend = match connect(&backends.candidates(to.ip()), to.port()).await {
            Ok(backend) => backend,
            Err(error) => {
                tracing::debug!(%to, %error, "a client is refused");
                self.traffic.refused();
                client.refuse();
                return;
            }
        };
        let mut stream = match client.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%to, %error, "the client gave up");
                reset(&backend);
                return;
            }
        };
        let _open = self.traffic.opened();
        if let Err(error) = splice(&mut stream, &mut backend, &self).await {
            tracing::debug!(%to, %error, "a connection broke");
            reset(&backend);
            C::abort(stream);
        }
    }
}

/// Connects to the first of these addresses that answers.
async fn connect(candidates: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is nothing to send to in this family");
    let tries = async {
        for address in candidates.iter().take(TRIES) {
            match TcpStream::connect(SocketAddr::new(*address, port)).await {
                Ok(stream) => return Some(stream),
                Err(error) => failure = error,
            }
        }
        None
    };
    let connected = tokio::time::timeout(CONNECT, tries).await;
    match connected {
        Ok(Some(stream)) => {
            prepare(&stream);
            Ok(stream)
        }
        Ok(None) => Err(failure),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Passes bytes both ways until both sides are done; the end of one direction ends that direction only.
pub(crate) async fn splice<A, B>(tailnet: &mut A, cluster: &mut B, relay: &Relay) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (received, sent) = copy_bidirectional_with_sizes(tailnet, cluster, BUFFER, BUFFER).await?;
    relay.traffic.bytes(received, sent);
    Ok(())
}

/// Small packets leave at once, and an end that is gone is noticed.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    // A socket that takes neither works as well, a little slower.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Has a connection end with a reset when it is dropped.
pub(crate) fn reset(stream: &TcpStream) {
    // If that fails, the end is polite: nothing is lost.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;
    use crate::config::Destination;
    use crate::traffic::Traffic;

    #[derive(Debug, PartialEq)]
    enum Answer {
        Accepted,
        Refused,
    }

    struct Fake {
        to: SocketAddr,
        stream: DuplexStream,
        answer: oneshot::Sender<Answer>,
    }

    impl Client for Fake {
        type Stream = DuplexStream;

        fn to(&self) -> SocketAddr {
            self.to
        }

        async fn accept(self) -> io::Result<DuplexStream> {
            self.answer.send(Answer::Accepted).unwrap();
            Ok(self.stream)
        }

        fn refuse(self) {
            self.answer.send(Answer::Refused).unwrap();
        }

        fn abort(_: DuplexStream) {}
    }

    fn client(to: SocketAddr) -> (DuplexStream, oneshot::Receiver<Answer>, Relay, Fake) {
        let (ours, stream) = duplex(1024);
        let (answer, answered) = oneshot::channel();
        (ours, answered, Relay::new(Traffic::default()), Fake { to, stream, answer })
    }

    // Loopback is not a destination that a configuration can name; a test's backend has no other.
    fn local() -> Backends {
        Backends::fixed(&Destination::Addresses { v4: Some([127, 0, 0, 1].into()), v6: None })
    }

    fn own(port: u16) -> SocketAddr {
        SocketAddr::new([100, 64, 0, 7].into(), port)
    }

    #[tokio::test]
    async fn a_client_is_accepted_after_the_backend_and_speaks_with_it_on_the_same_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut ours, answered, relay, fake) = client(own(port));
        let served = tokio::spawn(relay.serve_client(fake, local()));
        let (mut backend, _) = listener.accept().await.unwrap();
        assert_eq!(answered.await.unwrap(), Answer::Accepted);

        ours.write_all(b"question").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut question = String::new();
        backend.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        // The client's half is closed, the backend's is not.
        backend.write_all(b"answer").await.unwrap();
        drop(backend);
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_is_refused_when_the_backend_refuses() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (_ours, answered, relay, fake) = client(own(port));
        relay.serve_client(fake, local()).await;
        assert_eq!(answered.await.unwrap(), Answer::Refused);
    }

    #[tokio::test]
    async fn a_family_without_a_destination_is_refused_and_sent_nowhere_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = SocketAddr::new("fd7a:115c:a1e0::7".parse().unwrap(), listener.local_addr().unwrap().port());
        let (_ours, answered, relay, fake) = client(to);
        relay.serve_client(fake, local()).await;
        assert_eq!(answered.await.unwrap(), Answer::Refused);
    }
}
