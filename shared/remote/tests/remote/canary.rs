//! An address inside that nobody may reach: it listens, and can tell that nobody came.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Where it stands: on this machine, and on no list of a test.
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

    /// The system completes a connection without our asking, so one that was made waits here.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Spellings of [`INSIDE`] and of its kin that a host part can have; `{}` is the port.
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

/// Names, by what the resolver that a test brings says of them.
#[derive(Debug, Default)]
pub(crate) struct Said {
    answers: std::sync::Mutex<Vec<Vec<IpAddr>>>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Said {
    /// Gives these answers in turn, then the last one for ever.
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
