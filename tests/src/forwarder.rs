//! A proxy as an operator may have one: CONNECT and SOCKS5 on one port, with a log of what it was asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::tasks::Tasks;

/// What it does with who asks.
#[derive(Clone, Debug, Default)]
enum Manner {
    /// What is asked for; names are on loopback.
    #[default]
    Serve,
    /// These bytes, then the end; what is said after them is nobody's.
    Say(Vec<u8>),
    /// Nothing.
    Silence,
}

#[derive(Default)]
struct Book {
    asked: Vec<String>,
    manner: Manner,
}

/// A running proxy. It stops when dropped.
pub struct Forwarder {
    /// Where it listens.
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    _tasks: Arc<Tasks>,
}

impl Forwarder {
    /// Listens on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let book: Arc<Mutex<Book>> = Arc::default();
        let tasks = Arc::new(Tasks::default());
        let (weak, shared) = (Arc::downgrade(&tasks), Arc::clone(&book));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(tasks) = weak.upgrade() else { return };
                let book = Arc::clone(&shared);
                tasks.spawn(async move {
                    // Its client may go whenever it likes.
                    let _ = serve(stream, &book).await;
                });
            }
        });
        Self {
            address,
            book,
            _tasks: tasks,
        }
    }

    /// Everything it was asked for so far, as `host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.book.lock().unwrap().asked.clone()
    }

    /// From now on it says this to everybody.
    pub fn says(&self, bytes: &[u8]) {
        self.book.lock().unwrap().manner = Manner::Say(bytes.to_vec());
    }

    /// From now on it says nothing.
    pub fn silent(&self) {
        self.book.lock().unwrap().manner = Manner::Silence;
    }
}

async fn serve(mut stream: TcpStream, book: &Mutex<Book>) -> std::io::Result<()> {
    let manner = book.lock().unwrap().manner.clone();
    match manner {
        Manner::Serve => {}
        Manner::Say(bytes) => {
            stream.write_all(&bytes).await?;
            if !bytes.windows(4).any(|four| four == b" 200") {
                stream.shutdown().await?;
            }
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        Manner::Silence => {
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
    }
    let mut first = [0];
    stream.peek(&mut first).await?;
    let target = if first == [5] {
        by_socks(&mut stream).await?
    } else {
        by_connect(&mut stream).await?
    };
    book.lock().unwrap().asked.push(target.clone());
    let (_, port) = target.rsplit_once(':').unwrap();
    let mut upstream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await?;
    let opened: &[u8] = if first == [5] {
        &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    } else {
        b"HTTP/1.1 200 OK\r\n\r\n"
    };
    stream.write_all(opened).await?;
    copy_bidirectional(&mut stream, &mut upstream).await?;
    Ok(())
}

async fn by_connect(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap();
    let target = line.strip_prefix("CONNECT ").unwrap();
    Ok(target.strip_suffix(" HTTP/1.1").unwrap().to_owned())
}

async fn by_socks(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(greeting, [5, 1, 0]);
    stream.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap()
        }
        other => panic!("address type {other}"),
    };
    Ok(format!("{host}:{}", stream.read_u16().await?))
}
