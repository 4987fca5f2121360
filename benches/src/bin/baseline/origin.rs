//! The origin: reads a line `GIVE N`, answers with N bytes, closes. As little work as can be, and not HTTP: what is
//! measured is a tunnel, and HTTP inside a tunnel would be judged request by request.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// One write of bulk.
const BLOCK: usize = 256 * 1024;

/// A running origin.
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

pub(crate) async fn start() -> std::io::Result<Origin> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    // What goes wrong shows at the client.
                    let _ = answer(stream).await;
                });
            }
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(Origin {
        address,
        _tasks: tasks,
    })
}

async fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let wanted = line.trim_end().strip_prefix("GIVE ");
    let wanted = wanted.and_then(|number| number.parse::<usize>().ok());
    let mut left = wanted.ok_or(std::io::ErrorKind::InvalidData)?;
    let block = vec![0x5a; BLOCK];
    while left > 0 {
        let part = block.get(..left.min(BLOCK)).unwrap_or_default();
        stream.write_all(part).await?;
        left -= part.len();
    }
    stream.shutdown().await
}
