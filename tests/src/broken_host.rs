//! A git host on raw sockets that misbehaves.

use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How the host misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It accepts connections and sends nothing.
    Silent,
    /// It sends its response head one byte per second.
    Trickle,
    /// It answers every request with this status.
    Status(u16),
    /// It sends endless references.
    EndlessRefs,
    /// It sends an endless file.
    EndlessPack,
    /// It resets the connection in the middle of a file.
    ResetInPack,
}

/// A host. Dropping it closes its connections.
#[derive(Debug)]
pub struct BrokenHost {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl BrokenHost {
    /// Starts a host on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start(fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(listener, fault, Arc::clone(&connections)));
        Ok(Self { address, connections, serving })
    }

    /// `http://127.0.0.1:PORT/NAME.git`
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// The number of accepted connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The number of processes on this machine with the host's address in their arguments: those that git started.
    #[must_use]
    pub fn programs(&self) -> usize {
        let address = self.address.to_string();
        let named = |entry: &std::fs::DirEntry| {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&address)
        };
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(named).count()
    }
}

impl Drop for BrokenHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, fault: Fault, connections: Arc<AtomicUsize>) {
    let mut serving = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        serving.spawn(async move {
            // Clients are expected to disconnect.
            let _gone = answer(stream, fault).await;
        });
    }
}

async fn answer(mut stream: TcpStream, fault: Fault) -> Result<()> {
    if fault == Fault::Silent {
        return std::future::pending().await;
    }
    while let Some(request) = read_request(&mut stream).await? {
        match fault {
            Fault::Silent => {}
            Fault::Trickle => trickle(&mut stream).await?,
            Fault::Status(status) => {
                let text = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).await?;
            }
            Fault::EndlessRefs | Fault::EndlessPack | Fault::ResetInPack => {
                speak_git(&mut stream, &request, fault).await?;
            }
        }
    }
    Ok(())
}

/// Reads head and body as one text; `None` at the end of the connection. Git's requests are short and not compressed
/// here.
async fn read_request(stream: &mut TcpStream) -> Result<Option<String>> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
            return Ok(Some(text.into_owned()));
        }
    }
}

async fn trickle(stream: &mut TcpStream) -> Result<()> {
    for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(std::iter::repeat(&b'x')) {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

const HEAD: &str = "1111111111111111111111111111111111111111";

async fn speak_git(stream: &mut TcpStream, request: &str, fault: Fault) -> Result<()> {
    if request.starts_with("GET ") {
        let words = [
            "version 2\n",
            "agent=broken\n",
            "ls-refs\n",
            "fetch=shallow\n",
            "object-format=sha1\n",
        ];
        let mut body: Vec<u8> = words.iter().flat_map(|word| packet(word.as_bytes())).collect();
        body.extend_from_slice(b"0000");
        return whole(stream, "advertisement", &body).await;
    }
    if request.contains("command=ls-refs") && fault != Fault::EndlessRefs {
        let head = format!("{HEAD} HEAD symref-target:refs/heads/main\n");
        let main = format!("{HEAD} refs/heads/main\n");
        let body = [packet(head.as_bytes()), packet(main.as_bytes()), b"0000".to_vec()].concat();
        return whole(stream, "result", &body).await;
    }
    begin(stream, "result").await?;
    if fault == Fault::EndlessRefs {
        let long = "x".repeat(60_000);
        for number in 0_u64.. {
            chunk(stream, &packet(format!("{HEAD} refs/heads/{number}{long}\n").as_bytes()))
                .await?;
        }
    }
    chunk(stream, &packet(b"packfile\n")).await?;
    chunk(stream, &band(&beginning_of_pack())).await?;
    let (head, noise): (_, Vec<u8>) = ([0, 0xff, 0xff, 0, 0], vec![b'n'; 0xffff]);
    for number in 0_u64.. {
        if fault == Fault::ResetInPack && number == 64 {
            stream.set_zero_linger()?;
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        // A stored block of the compressed stream, so that every byte counts.
        chunk(stream, &band(&head)).await?;
        for part in noise.chunks(32 << 10) {
            chunk(stream, &band(part)).await?;
        }
    }
    Ok(())
}

/// The beginning of a pack with one file of 1 TiB.
fn beginning_of_pack() -> Vec<u8> {
    let mut bytes = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    let mut size = 1_u64 << 40;
    bytes.push(0x80 | 3 << 4 | (size & 0xf) as u8);
    size >>= 4;
    while size >= 0x80 {
        bytes.push(0x80 | (size & 0x7f) as u8);
        size >>= 7;
    }
    bytes.extend_from_slice(&[size.to_le_bytes()[0], 0x78, 0x01]);
    bytes
}

fn packet(bytes: &[u8]) -> Vec<u8> {
    [format!("{:04x}", bytes.len() + 4).as_bytes(), bytes].concat()
}

fn band(bytes: &[u8]) -> Vec<u8> {
    packet(&[&[1], bytes].concat())
}

async fn whole(stream: &mut TcpStream, kind: &str, body: &[u8]) -> Result<()> {
    begin(stream, kind).await?;
    chunk(stream, body).await?;
    stream.write_all(b"0\r\n\r\n").await
}

async fn begin(stream: &mut TcpStream, kind: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await
}

async fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&chunk).await
}
