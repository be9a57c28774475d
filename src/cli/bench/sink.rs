//! A push service on loopback that accepts everything at once and costs next to nothing.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::http1;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"id\":\"sunk\"}";

/// The push service; it closes when dropped.
#[derive(Debug)]
pub(super) struct Sink {
    address: SocketAddr,
    heard: Arc<Heard>,
    _listening: JoinSet<io::Result<()>>,
}

/// What it was told.
#[derive(Debug, Default)]
struct Heard {
    calls: AtomicU64,
    first: OnceLock<Vec<u8>>,
    /// Every body with the moment at which it had come, where that is asked for.
    bodies: Option<Mutex<Vec<Call>>>,
}

/// When a call had come, and what it said.
type Call = (Instant, Vec<u8>);

impl Sink {
    /// Listens on any port. With `keeps_bodies` it remembers every call, else only how many there were.
    pub(super) async fn open(keeps_bodies: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let heard = Heard { bodies: keeps_bodies.then(Mutex::default), ..Heard::default() };
        let heard = Arc::new(heard);
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, Arc::clone(&heard)));
        Ok(Self { address, heard, _listening: listening })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.heard.calls.load(Ordering::Acquire)
    }

    /// The body of the first call.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.heard.first.get().map(Vec::as_slice)
    }

    /// Every call since this was last asked.
    pub(super) fn take_bodies(&self) -> Vec<Call> {
        let bodies = self.heard.bodies.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        bodies.map(|mut it| std::mem::take(&mut *it)).unwrap_or_default()
    }
}

async fn listen(listener: TcpListener, heard: Arc<Heard>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(answer(stream, Arc::clone(&heard)));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers until the caller closes or breaks off, which is theirs to tell of.
async fn answer(mut stream: TcpStream, heard: Arc<Heard>) {
    let mut buffer = Vec::with_capacity(2048);
    while let Ok(Some(head)) = http1::read(&mut stream, &mut buffer).await {
        let at = Instant::now();
        let body = &buffer[head.size..head.size + head.body];
        heard.first.get_or_init(|| body.to_vec());
        if let Some(bodies) = &heard.bodies {
            bodies.lock().unwrap_or_else(PoisonError::into_inner).push((at, body.to_vec()));
        }
        heard.calls.fetch_add(1, Ordering::AcqRel);
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::http1::Client, *};

    #[tokio::test]
    async fn it_answers_every_call_on_a_connection_and_remembers_them() {
        let sink = Sink::open(true).await.unwrap();
        let mut client = Client::connect(sink.address()).await.unwrap();
        for body in ["one", "two"] {
            let (status, answer) = client.post("/push", body.as_bytes()).await.unwrap();
            assert_eq!((status, answer), (200, &br#"{"id":"sunk"}"#[..]));
        }
        assert_eq!(client.get("/").await.unwrap().0, 200);
        assert_eq!((sink.calls(), sink.first()), (3, Some(&b"one"[..])));
        let bodies: Vec<_> = sink.take_bodies().into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, [&b"one"[..], b"two", b""]);
        assert!(sink.take_bodies().is_empty());
    }
}
