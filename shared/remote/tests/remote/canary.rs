//! An internal address to which nothing may connect: a listener there detects connections.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// The address, which is on this machine and in no test's allow list.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub(crate) struct Canary(TcpListener);

impl Canary {
    pub(crate) fn start() -> Self {
        Self::at((INSIDE, 0).into()).unwrap()
    }

    pub(crate) fn at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The kernel completes connections without `accept`, so one that was made would be waiting here.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Spellings of [`INSIDE`] and similar addresses that the host part of a URL can have; `{}` is the port.
pub(crate) const SPELLINGS: [&str; 22] = [
    "127.0.0.2:{}",
    "127.0.0.2.:{}",
    "2130706434:{}",
    "0x7f000002:{}",
    "0x7F.0.0.2:{}",
    "0177.0.0.2:{}",
    "017700000002:{}",
    "127.2:{}",
    "0x7f.2:{}",
    "127.0.2:{}",
    "①②⑦.⓪.⓪.②:{}",
    "127。0。0。2:{}",
    "127%2e0%2e0%2e2:{}",
    "[::ffff:127.0.0.2]:{}",
    "[::ffff:7f00:2]:{}",
    "[0:0:0:0:0:ffff:7f00:0002]:{}",
    "[::7f00:2]:{}",
    "[64:ff9b::7f00:2]:{}",
    "[64:ff9b::a9fe:a9fe]:{}",
    "[2002:7f00:2::]:{}",
    "169.254.169.254:{}",
    "0:{}",
];

/// A scripted resolver.
#[derive(Debug, Default)]
pub(crate) struct Said {
    answers: std::sync::Mutex<Vec<Vec<IpAddr>>>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Said {
    /// Returns these answers in turn, and then repeats the last one.
    pub(crate) fn new<const N: usize>(answers: [&[Ipv4Addr]; N]) -> std::sync::Arc<Self> {
        let addresses = |answer: &[Ipv4Addr]| answer.iter().map(|it| IpAddr::V4(*it)).collect();
        let answers = answers.iter().rev().map(|answer| addresses(answer)).collect();
        std::sync::Arc::new(Self { answers: std::sync::Mutex::new(answers), ..Self::default() })
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl gantry_remote::guard::Names for Said {
    async fn addresses(&self, _host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        answer.ok_or_else(|| std::io::Error::other("no such name"))
    }
}
