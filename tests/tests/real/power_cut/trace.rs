//! Parses strace output: changes of files, syncs, and answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The relevant part of a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Write {
        file: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: PathBuf,
        length: u64,
    },
    /// Of a file, or of a directory and its names.
    Sync {
        path: PathBuf,
    },
    MakeFile {
        file: PathBuf,
    },
    MakeDirectory {
        directory: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        file: PathBuf,
    },
    /// A successful HTTP response, or a part of one: head and body may be written separately.
    Answer {
        text: String,
    },
}

/// A call, with the lines of the trace where it began and ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) began: usize,
    pub(crate) done: usize,
    pub(crate) call: Call,
}

/// The system calls to trace.
pub(crate) const CALLS: &str = "openat,write,pwrite64,writev,pwritev,sendto,sendmsg,lseek,ftruncate,fsync,fdatasync,\
                                mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

/// Parses a trace made with `-f -y -xx`: operations on files below `root`, and all answers.
pub(crate) fn read(trace: &str, root: &Path) -> Result<Vec<Event>> {
    let mut reader =
        Reader { root, positions: HashMap::new(), successes: HashMap::new(), events: Vec::new() };
    // The unfinished call of each thread.
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        // A call whose thread was killed has `?` as its result.
        let interrupted = rest.strip_suffix(" <unfinished ...>").or(rest.strip_suffix(" = ?"));
        if rest.starts_with("<... ") {
            // It stays unfinished.
            if interrupted.is_some() {
                continue;
            }
            let Some((began, begun)) = unfinished.remove(thread) else { continue };
            let (_, tail) = rest.split_once(" resumed>").context("a call that goes on")?;
            reader.call(began, number, &format!("{begun}{tail}"))?;
        } else if let Some(begun) = interrupted {
            unfinished.insert(thread, (number, begun));
        } else {
            reader.call(number, number, rest)?;
        }
    }
    // The end of a call that was interrupted by the kill is missing, but the client may have received the answer.
    let end = trace.lines().count();
    for (began, begun) in unfinished.into_values() {
        if let Some(("write" | "writev" | "sendto" | "sendmsg", arguments)) = begun.split_once('(')
            && let Some(answer) = reader.answer(&described(arguments), arguments)
        {
            reader.events.push(Event { began, done: end, call: answer });
        }
    }
    Ok(reader.events)
}

struct Reader<'a> {
    root: &'a Path,
    /// The offset of the next `write` to a file.
    positions: HashMap<PathBuf, u64>,
    /// Whether the current response on a socket is successful.
    successes: HashMap<PathBuf, bool>,
    events: Vec<Event>,
}

impl Reader<'_> {
    fn call(&mut self, began: usize, done: usize, line: &str) -> Result<()> {
        let Some((name, rest)) = line.split_once('(') else { return Ok(()) };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return Ok(()) };
        let Some(result) = number(result).filter(|result| *result >= 0) else { return Ok(()) };
        let arguments = arguments.trim_end().strip_suffix(')').unwrap_or(arguments);
        let call = match name {
            "write" | "pwrite64" | "writev" | "pwritev" | "sendto" | "sendmsg" => {
                self.written(name, arguments, result.cast_unsigned())?
            }
            "lseek" => {
                let file = described(arguments);
                self.positions.insert(file, result.cast_unsigned());
                None
            }
            "openat" if arguments.contains("O_CREAT") => {
                let file = quoted(arguments).next().map(path).unwrap_or_default();
                self.positions.insert(file.clone(), 0);
                self.ours(&file).then_some(Call::MakeFile { file })
            }
            "ftruncate" => {
                let file = described(arguments);
                let length = arguments.rsplit(", ").next().and_then(number).context("a length")?;
                let length = length.cast_unsigned();
                self.ours(&file).then_some(Call::Truncate { file, length })
            }
            "fsync" | "fdatasync" => {
                let path = described(arguments);
                self.ours(&path).then_some(Call::Sync { path })
            }
            "mkdir" | "mkdirat" => {
                let directory = quoted(arguments).next().map(path).unwrap_or_default();
                self.ours(&directory).then_some(Call::MakeDirectory { directory })
            }
            "unlink" | "unlinkat" => {
                let file = quoted(arguments).next().map(path).unwrap_or_default();
                self.ours(&file).then_some(Call::Unlink { file })
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let mut names = quoted(arguments).map(path);
                let (from, to) = names.next().zip(names.next()).context("two names")?;
                let call = if name.starts_with("rename") {
                    Call::Rename { from, to: to.clone() }
                } else {
                    Call::Link { from, to: to.clone() }
                };
                self.ours(&to).then_some(call)
            }
            _ => None,
        };
        self.events.extend(call.map(|call| Event { began, done, call }));
        Ok(())
    }

    fn written(&mut self, name: &str, arguments: &str, length: u64) -> Result<Option<Call>> {
        let target = described(arguments);
        if is_socket(&target) {
            return Ok(self.answer(&target, arguments));
        }
        if !self.ours(&target) {
            return Ok(None);
        }
        let mut bytes: Vec<u8> = quoted(arguments).flatten().collect();
        bytes.truncate(usize::try_from(length)?);
        anyhow::ensure!(bytes.len() as u64 == length, "the trace cuts what is written: {name}");
        let offset = if name.starts_with("pwrite") {
            let offset = arguments.rsplit(", ").next().and_then(number);
            offset.context("an offset")?.cast_unsigned()
        } else {
            let position = self.positions.entry(target.clone()).or_default();
            let offset = *position;
            *position += length;
            offset
        };
        Ok(Some(Call::Write { file: target, offset, bytes }))
    }

    /// The data of a successful response on a socket.
    fn answer(&mut self, target: &Path, arguments: &str) -> Option<Call> {
        if !is_socket(target) {
            return None;
        }
        let bytes: Vec<u8> = quoted(arguments).flatten().collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_success = self.successes.entry(target.to_owned()).or_default();
        if text.starts_with("HTTP/1.1 ") {
            *is_success = text.starts_with("HTTP/1.1 2");
        }
        is_success.then_some(Call::Answer { text })
    }

    fn ours(&self, path: &Path) -> bool {
        path.starts_with(self.root)
    }
}

fn is_socket(target: &Path) -> bool {
    target.to_string_lossy().starts_with("socket:")
}

/// The first number in a text.
fn number(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The path of the first descriptor: `12<\x2f\x74…>`.
fn described(arguments: &str) -> PathBuf {
    let described = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    described.map(|(escaped, _)| path(bytes(escaped))).unwrap_or_default()
}

/// The quoted strings, in order.
fn quoted(arguments: &str) -> impl Iterator<Item = Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(bytes)
}

fn path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Decodes `\x61\x62`: four characters per byte.
fn bytes(escaped: &str) -> Vec<u8> {
    let digit = |digit: u8| if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 };
    let escaped = escaped.as_bytes().chunks_exact(4);
    escaped.map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}

#[test]
fn calls_are_parsed_with_begin_and_end() {
    let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let trace = format!(
        "7 openat(AT_FDCWD<{cwd}>, \"{file}\", O_RDWR|O_CREAT, 0600) = 9<{file}>\n\
         7 write(9<{file}>, \"{ab}\", 2) = 2\n\
         8 fsync(9<{file}> <unfinished ...>\n\
         7 pwrite64(9<{file}>, \"{ab}\", 2, 4096) = 1\n\
         8 <... fsync resumed>) = 0\n\
         7 sendto(5<{socket}>, \"{answer}\", 14, MSG_NOSIGNAL, NULL, 0) = 14\n\
         7 sendto(5<{socket}>, \"{ab}\", 2, MSG_NOSIGNAL, NULL, 0) = 2\n\
         7 sendto(6<{elsewhere}>, \"{ab}\", 2, MSG_NOSIGNAL, NULL, 0) = 2\n\
         7 write(6<{other}>, \"{ab}\", 2) = 2\n\
         7 sendto(5<{socket}>, \"{answer}\", 14, MSG_NOSIGNAL, NULL, 0 <unfinished ...>\n\
         8 fsync(9<{file}> <unfinished ...>\n\
         7 <... sendto resumed>) = ?\n",
        cwd = hex("/"),
        file = hex("/d/f"),
        ab = hex("ab"),
        socket = hex("socket:[3]"),
        elsewhere = hex("socket:[4]"),
        answer = hex("HTTP/1.1 202 x"),
        other = hex("/e"),
    );
    let file = PathBuf::from("/d/f");
    let event = |began, done, call| Event { began, done, call };
    assert_eq!(
        read(&trace, Path::new("/d")).unwrap(),
        [
            event(0, 0, Call::MakeFile { file: file.clone() }),
            event(1, 1, Call::Write { file: file.clone(), offset: 0, bytes: b"ab".to_vec() }),
            event(3, 3, Call::Write { file: file.clone(), offset: 4096, bytes: b"a".to_vec() }),
            event(2, 4, Call::Sync { path: file }),
            event(5, 5, Call::Answer { text: "HTTP/1.1 202 x".to_owned() }),
            event(6, 6, Call::Answer { text: "ab".to_owned() }),
            event(9, 12, Call::Answer { text: "HTTP/1.1 202 x".to_owned() }),
        ]
    );
}
