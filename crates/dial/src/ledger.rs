use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Remotes that are told apart; beyond, those without a connection that were idle longest become one.
const MOST_REMOTES: usize = 256;

/// Whom a client connected to, and how much went each way: every byte that its sockets took and gave, TLS and all.
///
/// Clones are the same ledger. Its size is bounded, and no byte leaves it.
#[derive(Clone, Default)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
}

/// To whom a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// The host name that was asked for.
    pub name: String,
    /// The address that it was found at, or a proxy's.
    pub address: SocketAddr,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// What went to one remote and came from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whom it is about; `None` for all those that were idle so long that they became one.
    pub remote: Option<Remote>,
    /// Bytes that its sockets took.
    pub sent: u64,
    /// Bytes that its sockets gave.
    pub received: u64,
    /// When the first connection was opened.
    pub first: SystemTime,
    /// When the last byte passed, or a connection was opened.
    pub last: SystemTime,
    /// The connections that are open now, the oldest first.
    pub open: Vec<OpenConnection>,
}

/// A connection that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenConnection {
    /// The address of this end.
    pub local: SocketAddr,
    /// When it was opened.
    pub since: SystemTime,
}

#[derive(Debug, Default)]
struct Book {
    remotes: BTreeMap<Remote, Arc<Live>>,
    /// What became of the remotes that made room for others.
    others: Option<Arc<Live>>,
    opened: u64,
}

/// An account that connections write into.
#[derive(Debug)]
struct Live {
    sent: AtomicU64,
    received: AtomicU64,
    /// Milliseconds since 1970, as the next.
    first: AtomicU64,
    last: AtomicU64,
    /// By the number under which it was opened.
    open: Mutex<BTreeMap<u64, OpenConnection>>,
}

impl Ledger {
    /// Writes down what passes a connection from now on, which leads to this name.
    ///
    /// # Errors
    ///
    /// When the connection is over already, and so has no address.
    pub fn enter(&self, name: &str, tls: bool, stream: TcpStream) -> io::Result<Metered<TcpStream>> {
        let remote = Remote { name: name.to_owned(), address: stream.peer_addr()?, tls };
        let local = stream.local_addr()?;
        Ok(Metered { stream, meter: Some(self.open(remote, local)) })
    }

    /// All accounts, in the order of their remotes.
    pub fn accounts(&self) -> Vec<Account> {
        let book = lock(&self.book);
        let remotes = book.remotes.iter().map(|(remote, live)| live.account(Some(remote.clone())));
        remotes.chain(book.others.iter().map(|live| live.account(None))).collect()
    }

    fn open(&self, remote: Remote, local: SocketAddr) -> Meter {
        let now = SystemTime::now();
        let mut book = lock(&self.book);
        let number = book.opened;
        book.opened += 1;
        let account = book.account_of(remote, now);
        // A book that is held can't fold this account before the connection is in it.
        lock(&account.open).insert(number, OpenConnection { local, since: now });
        account.touch();
        Meter { account, number }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} remotes)", lock(&self.book).remotes.len())
    }
}

impl Book {
    fn account_of(&mut self, remote: Remote, now: SystemTime) -> Arc<Live> {
        if let Some(known) = self.remotes.get(&remote) {
            return known.clone();
        }
        if self.remotes.len() >= MOST_REMOTES && !self.fold() {
            return self.others.get_or_insert_with(|| Arc::new(Live::begun(now))).clone();
        }
        let live = Arc::new(Live::begun(now));
        self.remotes.insert(remote, live.clone());
        live
    }

    /// Makes room for one; false when every remote has a connection.
    fn fold(&mut self) -> bool {
        let closed = self.remotes.iter().filter(|(_, live)| lock(&live.open).is_empty());
        let Some(oldest) = closed.min_by_key(|(_, live)| live.last.load(Relaxed)).map(|(remote, _)| remote.clone())
        else {
            return false;
        };
        if let Some(old) = self.remotes.remove(&oldest) {
            let others = self.others.get_or_insert_with(|| Arc::new(Live::begun(moment(&old.first))));
            others.sent.fetch_add(old.sent.load(Relaxed), Relaxed);
            others.received.fetch_add(old.received.load(Relaxed), Relaxed);
            others.first.fetch_min(old.first.load(Relaxed), Relaxed);
            others.last.fetch_max(old.last.load(Relaxed), Relaxed);
        }
        true
    }
}

impl Live {
    fn begun(first: SystemTime) -> Self {
        let first = milliseconds(first);
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            first: AtomicU64::new(first),
            last: AtomicU64::new(first),
            open: Mutex::default(),
        }
    }

    fn touch(&self) {
        self.last.fetch_max(milliseconds(SystemTime::now()), Relaxed);
    }

    fn account(&self, remote: Option<Remote>) -> Account {
        Account {
            remote,
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            first: moment(&self.first),
            last: moment(&self.last),
            open: lock(&self.open).values().copied().collect(),
        }
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn moment(milliseconds: &AtomicU64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.load(Relaxed))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open connection's place in a ledger.
#[derive(Debug)]
struct Meter {
    account: Arc<Live>,
    number: u64,
}

impl Meter {
    fn count(&self, counter: impl Fn(&Live) -> &AtomicU64, bytes: usize) {
        if bytes > 0 {
            counter(&self.account).fetch_add(bytes as u64, Relaxed);
            self.account.touch();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        lock(&self.account.open).remove(&self.number);
    }
}

/// A stream whose bytes are written down in a [`Ledger`], or nowhere.
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    meter: Option<Meter>,
}

impl<S> Metered<S> {
    /// A stream that no ledger is kept of.
    pub fn unwritten(stream: S) -> Self {
        Self { stream, meter: None }
    }

    /// The stream itself; what passes it directly is not written down.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    fn note(&self, counter: impl Fn(&Live) -> &AtomicU64, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.count(counter, bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        self.note(|account| &account.received, out.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.note(|account| &account.sent, count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.note(|account| &account.sent, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn remote(number: u16) -> Remote {
        Remote { name: format!("host{number}"), address: SocketAddr::from(([192, 0, 2, 1], number)), tls: true }
    }

    fn local() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 2], 1))
    }

    #[tokio::test]
    async fn bytes_of_both_ways_are_counted_at_the_socket() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = Ledger::default();
        let stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap();
        let mut stream = ledger.enter("server.example", true, stream).unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        stream.write_all(&[1; 1000]).await.unwrap();
        far.read_exact(&mut [0; 1000]).await.unwrap();
        far.write_all(&[2; 30]).await.unwrap();
        stream.read_exact(&mut [0; 30]).await.unwrap();
        let accounts = ledger.accounts();
        let [account] = accounts.as_slice() else { panic!("one account, not {accounts:?}") };
        assert_eq!(account.remote, Some(Remote { name: "server.example".to_owned(), address, tls: true }));
        assert_eq!((account.sent, account.received), (1000, 30));
        assert_eq!(account.open.iter().map(|open| open.local).collect::<Vec<_>>(), [own]);
        assert!(account.last >= account.first && account.open[0].since >= account.first);
        drop(stream);
        let closed = ledger.accounts();
        assert_eq!((closed[0].sent, closed[0].open.len()), (1000, 0));
    }

    #[test]
    fn a_second_connection_to_a_remote_goes_on_in_its_account() {
        let ledger = Ledger::default();
        let meter = ledger.open(remote(1), local());
        meter.count(|account| &account.sent, 5);
        drop(meter);
        let meter = ledger.open(remote(1), local());
        meter.count(|account| &account.sent, 6);
        assert_eq!(ledger.accounts()[0].sent, 11);
        assert_eq!(ledger.accounts()[0].open.len(), 1);
    }

    #[test]
    fn no_byte_is_lost_when_remotes_are_too_many() {
        let ledger = Ledger::default();
        let stays = ledger.open(remote(0), local());
        for number in 1..1000 {
            ledger.open(remote(number), local()).count(|account| &account.received, 7);
        }
        stays.count(|account| &account.received, 7);
        let accounts = ledger.accounts();
        assert_eq!(accounts.len(), MOST_REMOTES + 1);
        assert_eq!(accounts.iter().map(|account| account.received).sum::<u64>(), 7 * 1000);
        assert!(accounts.iter().any(|account| account.remote == Some(remote(0)) && account.open.len() == 1));
    }

    #[test]
    fn connections_to_more_remotes_than_are_told_apart_are_counted_together() {
        let ledger = Ledger::default();
        let all: Vec<Meter> = (0..300).map(|number| ledger.open(remote(number), local())).collect();
        all.iter().for_each(|meter| meter.count(|account| &account.sent, 2));
        let accounts = ledger.accounts();
        let others = accounts.iter().find(|account| account.remote.is_none()).unwrap();
        assert_eq!((others.sent, others.open.len()), (2 * 44, 44));
        drop(all);
        assert!(ledger.accounts().iter().all(|account| account.open.is_empty()));
    }
}
