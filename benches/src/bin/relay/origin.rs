//! The service behind, as a process of its own: a stream's first byte says what it does.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What comes after it comes back.
pub(crate) const ECHO: u8 = b'e';
/// Nothing more is read.
pub(crate) const FREEZE: u8 = b'z';
/// Bytes come without end.
pub(crate) const FLOOD: u8 = b'f';

/// Prints its port, and serves until it is killed.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let mut visits = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        visits.spawn(async move {
            // What goes wrong shows at the client.
            let _ = visit(stream).await;
        });
        while visits.try_join_next().is_some() {}
    }
}

async fn visit(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.read_exact(&mut first).await?;
    match first {
        [ECHO] => {
            let mut buffer = [0; 4096];
            loop {
                let count = match stream.read(&mut buffer).await? {
                    0 => return stream.shutdown().await,
                    count => count,
                };
                let read = buffer.get(..count).unwrap_or_default();
                stream.write_all(read).await?;
            }
        }
        [FLOOD] => loop {
            stream.write_all(&[FLOOD; 16 * 1024]).await?;
        },
        _ => std::future::pending().await,
    }
}
