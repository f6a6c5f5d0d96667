//! Malicious archives: each is refused with the violated rule or limit, or unpacked as tar would unpack it, and nothing
//! outside of its folder is read, written or sent on.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_worker::source::{Checkout, ContextError, SourceError, UnpackLimits};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::{TestSources, at, soon, sources, sources_with};

const CANARY: &str = "nobody may read this";

/// Content padded to whole blocks.
fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(512), 0);
    padded
}

/// A header with its content, unchecked: `said` is the declared size.
fn entry_of(kind: u8, name: &[u8], link: &str, content: &[u8], said: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o6755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(said);
    header.set_mtime(u64::MAX >> 32);
    header.set_cksum();
    [header.as_bytes().as_slice(), &padded(content)].concat()
}

pub(super) fn entry(kind: u8, name: &str, link: &str, content: &str) -> Vec<u8> {
    entry_of(kind, name.as_bytes(), link, content.as_bytes(), content.len() as u64)
}

pub(super) fn file(name: &str, content: &str) -> Vec<u8> {
    entry(b'0', name, "", content)
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(b'2', name, target, "")
}

fn folder(name: &str) -> Vec<u8> {
    entry(b'5', name, "", "")
}

/// An extension header: `L` and `K` are a long name and target, `x` records for the next entry, `g` records for all
/// later ones.
fn about(kind: u8, content: &[u8]) -> Vec<u8> {
    entry_of(kind, b"about", "", content, content.len() as u64)
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn sparse(name: &str, size: u64) -> Vec<u8> {
    let mut block = entry(b'S', name, "", "");
    let octal = |bytes: &mut [u8], value: u64| {
        // The binary form, for numbers with too many digits.
        bytes.fill(0);
        bytes[0] = 0x80;
        let end = bytes.len();
        bytes[end - 8..].copy_from_slice(&value.to_be_bytes());
    };
    octal(&mut block[386..398], size);
    octal(&mut block[398..410], 0);
    octal(&mut block[483..495], size);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub(super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = entries.concat();
    archive.extend([0; 1024]);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A tar as it is, and in each format that is unpacked. What is packed already stays as it is.
pub(super) fn forms(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    if [b"\x1f\x8b".as_slice(), b"BZh", b"\x28\xb5", b"\xfd7zXZ"]
        .iter()
        .any(|it| bytes.starts_with(it))
    {
        return vec![bytes];
    }
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&bytes).unwrap();
    let zstd = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    vec![gzip(&bytes), zstd, xz.finish().unwrap(), bzip2.finish().unwrap(), bytes]
}

/// `mib` MiB of zeros, in pieces of 16 MiB that are separate gzip members.
fn zeros(mib: usize) -> Vec<u8> {
    gzip(&vec![0; 16 << 20]).repeat(mib / 16)
}

/// A start and then `mib` MiB of zeros, in frames of zstd.
fn zstd_zeros(start: &[u8], mib: usize) -> Vec<u8> {
    let zeros = zstd::encode_all(vec![0; 16 << 20].as_slice(), 1).unwrap();
    [zstd::encode_all(start, 1).unwrap(), zeros.repeat(mib / 16)].concat()
}

/// A rig with a file next to the checkouts that must not change.
fn guarded() -> TestSources {
    let rig = sources(0);
    std::fs::write(rig.folder.path().join("canary"), CANARY).unwrap();
    rig
}

fn is_unharmed(rig: &TestSources) -> bool {
    let names = std::fs::read_dir(rig.folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    names.sort();
    names == ["canary", "checkouts", "mirrors"]
        && std::fs::read_to_string(rig.folder.path().join("canary")).unwrap() == CANARY
}

async fn unpacked(rig: &TestSources, bytes: Vec<u8>) -> Result<Checkout, SourceError> {
    rig.sources.from_archive(std::io::Cursor::new(bytes), soon()).await
}

async fn holds_nothing(rig: &TestSources) {
    let checkouts = rig.folder.path().join("checkouts");
    let deadline = Instant::now() + std::time::Duration::from_secs(5);
    while std::fs::read_dir(&checkouts).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "what was refused is still on the disk");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Remedies in refusals: for an entry, a limit, or the whole archive.
const ONE_FOLDER: &str = ": pack only what is in one folder";
const LEAVE_OUT: &str = ": leave out what the build does not need, with .dockerignore";
const PACK_AGAIN: &str = ": pack it with `tar -czf`";
const SEND_AGAIN: &str = ": pack it again with `tar -czf`, and send all of it";

#[tokio::test]
async fn an_archive_that_breaks_a_rule_is_refused_by_its_name() {
    let rig = guarded();
    let canary = rig.folder.path().join("canary");
    let (out, canary) = (rig.folder.path().to_str().unwrap(), canary.to_str().unwrap());
    let deep = format!("{}f", "d/".repeat(129));
    let long = "n".repeat(64 << 10);
    let huge = vec![b'n'; 2 << 20];
    let whole = gzip(&archive(&[file("f", &"x".repeat(5000))]));
    let cut = |bytes: &[u8], end: usize| bytes[..end].to_vec();
    let mut wrong_sum = archive(&[file("f", "x"), file("g", "x")]);
    wrong_sum[1024] ^= 1;
    for (bytes, rule, remedy) in [
        (
            archive(&[file("../canary", "x")]),
            "`../canary` in the archive has `..` in it",
            ONE_FOLDER,
        ),
        (archive(&[file("a/../../canary", "x")]), "has `..` in it", ONE_FOLDER),
        (archive(&[file(canary, "x")]), "begins at the root of the machine", ONE_FOLDER),
        (archive(&[folder("../d")]), "has `..` in it", ONE_FOLDER),
        (archive(&[link("../l", "x")]), "has `..` in it", ONE_FOLDER),
        (archive(&[link("l", out), file("l/canary", "x")]), "lies behind a link", ONE_FOLDER),
        (archive(&[link("l", ".."), folder("l/d")]), "lies behind a link", ONE_FOLDER),
        (archive(&[link("l", out), link("l/m", "x")]), "lies behind a link", ONE_FOLDER),
        (
            archive(&[link("l", out), entry(b'1', "h", "l/canary", "")]),
            "lies behind a link",
            ONE_FOLDER,
        ),
        (archive(&[entry(b'1', "h", canary, "")]), "begins at the root of the machine", ONE_FOLDER),
        (archive(&[entry(b'1', "h", "../canary", "")]), "has `..` in it", ONE_FOLDER),
        (
            archive(&[entry(b'1', "h", "later", ""), file("later", "x")]),
            "is a link to no file before it",
            ONE_FOLDER,
        ),
        (archive(&[entry(b'1', "h", "h", "")]), "is a link to no file before it", ONE_FOLDER),
        (
            archive(&[folder("d"), entry(b'1', "h", "d", "")]),
            "is a link to no file before it",
            ONE_FOLDER,
        ),
        (
            archive(&[entry(b'V', "volume", "", "")]),
            "is no file, folder, link or device",
            ONE_FOLDER,
        ),
        (archive(&[entry(b'M', "part", "", "")]), "is no file, folder, link or device", ONE_FOLDER),
        (
            archive(&[about(b'x', &record("path", "../canary")), file("f", "x")]),
            "has `..` in it",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'x', &record("path", canary)), file("f", "x")]),
            "begins at the root",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'x', &record("linkpath", canary)), entry(b'1', "h", "f", "")]),
            "begins at the root",
            ONE_FOLDER,
        ),
        (archive(&[about(b'L', b"../canary\0"), file("f", "x")]), "has `..` in it", ONE_FOLDER),
        (
            archive(&[about(b'K', format!("{canary}\0").as_bytes()), entry(b'1', "h", "f", "")]),
            "begins at the root",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'x', &record("path", "a\0b")), file("f", "x")]),
            "has a NUL in its name",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'L', long.as_bytes()), file("f", "x")]),
            "has a longer name than this system takes",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'x', &record("path", &long)), file("f", "x")]),
            "has a longer name than this system takes",
            ONE_FOLDER,
        ),
        (
            archive(&[about(b'L', deep.as_bytes()), file("f", "x")]),
            "lies in more than 128 folders",
            ONE_FOLDER,
        ),
        (archive(&[folder("d"), file("d", "x")]), "is both a file and a folder", ONE_FOLDER),
        (archive(&[file("d", "x"), file("d/f", "x")]), "is both a file and a folder", ONE_FOLDER),
        (archive(&[file("d/f", "x"), link("d", out)]), "is both a file and a folder", ONE_FOLDER),
        (archive(&[link("d/l", out), link("d", out)]), "is both a file and a folder", ONE_FOLDER),
        (
            archive(&[file("../\u{1b}]0;x\u{7}\u{202e}", "x")]),
            "`../` in the archive has `..` in it",
            ONE_FOLDER,
        ),
        (
            gzip(&archive(&[about(b'L', &huge), file("f", "x")])),
            "more than 1 MiB of names and bytes outside of files",
            LEAVE_OUT,
        ),
        (
            gzip(&archive(&[about(b'x', &huge), file("f", "x")])),
            "more than 1 MiB of names and bytes outside of files",
            LEAVE_OUT,
        ),
        (
            gzip(&archive(&[about(b'g', &huge), file("f", "x")])),
            "more than 1 MiB of names and bytes outside of files",
            LEAVE_OUT,
        ),
        (
            gzip(&archive(&[entry_of(b'5', b"d", "", &huge, 2 << 20), file("f", "x")])),
            "more than 1 MiB of names",
            LEAVE_OUT,
        ),
        (
            gzip(&archive(&[file("f", &"x".repeat((1 << 20) + 1))])),
            "more than 1 MiB of bytes",
            LEAVE_OUT,
        ),
        (archive(&[sparse("s", 1 << 40)]), "more than 1 MiB of bytes", LEAVE_OUT),
        (
            archive(&vec![file("f", ""); 101]),
            "more than 100 of files, folders and links",
            LEAVE_OUT,
        ),
        (vec![b'x'; (1 << 20) + 1], "not a tar archive", PACK_AGAIN),
        (gzip(&gzip(&archive(&[file("f", "x")]))), "not a tar archive", PACK_AGAIN),
        (b"\x28\xb5\x2f\xfd\x04\x00".to_vec(), "the archive is damaged", SEND_AGAIN),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "the archive is damaged", SEND_AGAIN),
        (b"BZh91AY&SY".to_vec(), "the archive is damaged", SEND_AGAIN),
        (b"PK\x03\x04\x14".to_vec(), "packed with zip", PACK_AGAIN),
        (b"\x04\x22\x4d\x18".to_vec(), "packed with lz4", PACK_AGAIN),
        (b"7z\xbc\xaf\x27\x1c".to_vec(), "packed with 7z", PACK_AGAIN),
        (cut(&whole, 3), "the archive is damaged", SEND_AGAIN),
        (
            cut(&archive(&[file("f", &"x".repeat(5000))]), 3000),
            "the archive is damaged",
            SEND_AGAIN,
        ),
        (
            gzip(&archive(&[file("f", &"x".repeat(5000))])[..3000]),
            "the archive is damaged",
            SEND_AGAIN,
        ),
        (wrong_sum, "the archive is damaged", SEND_AGAIN),
        (
            archive(&[file("f", "x"), entry_of(b'0', b"g", "", b"", u64::MAX)]),
            "the archive is damaged",
            SEND_AGAIN,
        ),
    ] {
        // What is no archive stays none when it is packed, but says so in other words.
        let is_archive = bytes.len() % 512 == 0;
        for bytes in if is_archive { forms(bytes) } else { vec![bytes] } {
            let error = unpacked(&rig, bytes).await.unwrap_err();
            let told = error.to_string();
            assert!(told.contains(rule) && told.ends_with(remedy), "{rule}: {told}");
            assert!(
                !told.chars().any(|c| c.is_control() || c == '\u{202e}') && told.len() < 400,
                "{told:?}"
            );
            assert!(!error.is_transient() && is_unharmed(&rig), "{told}");
            holds_nothing(&rig).await;
        }
    }
}

/// The paths in a folder, with content or target.
fn listed(root: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_symlink() {
                found.push(format!("{name} -> {}", path.read_link().unwrap().display()));
            } else if path.is_dir() {
                found.push(format!("{name}/"));
                walk(root, &path, found);
            } else {
                let mode = path.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o7000, 0, "{name} kept {mode:o}");
                found.push(format!(
                    "{name}={}",
                    String::from_utf8_lossy(&std::fs::read(&path).unwrap())
                ));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// The result of the system's tar.
fn by_tar(bytes: &[u8]) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let mut tar = Command::new("tar")
        // `P`: links are created in order, and not last.
        .args(["-xP", "--no-same-permissions", "--no-same-owner", "-f", "-", "-C"])
        .arg(folder.path())
        .args(bytes.starts_with(b"\x1f\x8b").then_some("-z"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tar must be installed");
    tar.stdin.take().unwrap().write_all(bytes).unwrap();
    tar.wait().unwrap();
    listed(folder.path())
}

#[tokio::test]
async fn odd_archives_unpack_as_with_tar() {
    let rig = guarded();
    let canary = rig.folder.path().join("canary");
    let canary = canary.to_str().unwrap();
    let smuggled = file("smuggled", "x");
    let said = |size: usize| about(b'x', &record("size", &size.to_string()));
    let whole = archive(&[file("a", "1"), file("b", "2")]);
    let members = [gzip(&whole[..1000]), gzip(&whole[1000..])].concat();
    let mut differing = Vec::new();
    for bytes in [
        // The size in a record takes precedence over the one in the header.
        archive(&[said(smuggled.len()), entry_of(b'0', b"f", "", &smuggled, 0), file("g", "x")]),
        archive(&[
            said(0),
            entry_of(b'0', b"f", "", &smuggled, smuggled.len() as u64),
            file("g", "x"),
        ]),
        archive(&[said(3), file("f", "x"), file("g", "x")]),
        // The last entry with a name counts, and an entry that it replaces is not followed.
        archive(&[file("f", "1"), link("f", canary), file("f", "2")]),
        archive(&[link("f", canary), file("f", "2")]),
        archive(&[file("f", "1"), entry(b'1', "h", "f", ""), file("h", "2")]),
        archive(&[folder("d"), link("d/l", canary), file("d/f", "x"), folder("d")]),
        archive(&[about(b'g', &record("comment", "x")), file("f", "x")]),
        archive(&[
            file("-rf", "x"),
            file("--checkpoint-action=exec=sh", "x"),
            file("a b\nc", "x"),
            file("*", "x"),
        ]),
        archive(&[file("f", "x"), entry(b'7', "g", "", "x")]),
        [archive(&[file("f", "x")]), b"garbage".repeat(1000)].concat(),
        [gzip(&archive(&[file("f", "x")])), b"garbage".to_vec()].concat(),
        members,
        archive(&[link("up", "../../../etc"), link("round", "round"), link("empty", ".")]),
    ] {
        let tars = by_tar(&bytes);
        for bytes in forms(bytes) {
            let checkout = unpacked(&rig, bytes).await.unwrap();
            let ours = listed(checkout.root());
            if ours != tars {
                differing.push((ours, tars.clone()));
            }
            let mut sent = Vec::new();
            let context = checkout.pack(checkout.ignore(&at("Dockerfile")).unwrap());
            { context }.read_to_end(&mut sent).await.unwrap();
            assert!(!sent.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
            assert!(is_unharmed(&rig));
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
}

#[tokio::test]
async fn a_build_reads_nothing_outside_its_source() {
    let rig = guarded();
    let canary = rig.folder.path().join("canary");
    let canary = canary.to_str().unwrap();
    let large = format!("FROM scratch\n{}", "#".repeat(1 << 20));
    let limits = UnpackLimits { archive_bytes: 4 << 20, unpacked_bytes: 4 << 20, entries: 100 };
    let roomy = sources_with(0, limits);
    let checkout =
        unpacked(&roomy, archive(&[file("Dockerfile", &large), file(".dockerignore", &large)]))
            .await
            .unwrap();
    let error = checkout.dockerfile(&at("Dockerfile")).unwrap_err();
    assert_eq!(error.to_string(), "`Dockerfile` is larger than 1 MiB: is it the right file?");
    let error = checkout.ignore(&at("Dockerfile")).unwrap_err();
    assert_eq!(error.to_string(), "`.dockerignore` is larger than 1 MiB: is it the right file?");

    for (path, entries) in [
        ("Dockerfile", vec![link("Dockerfile", canary)]),
        ("Dockerfile", vec![link("Dockerfile", "../../canary")]),
        ("Dockerfile", vec![link("Dockerfile", "a"), link("a", "b"), link("b", "../../canary")]),
        ("d/Dockerfile", vec![link("d", "../.."), file("f", "x")]),
        ("d/canary", vec![link("d", "../.."), file("f", "x")]),
        ("d/self/status", vec![link("d", "/proc"), file("f", "x")]),
        ("Dockerfile", vec![link("Dockerfile", "/dev/zero")]),
        ("Dockerfile", vec![link("Dockerfile", "Dockerfile")]),
    ] {
        let checkout = unpacked(&rig, archive(&entries)).await.unwrap();
        let error = checkout.dockerfile(&at(path)).unwrap_err();
        let is_refused = matches!(
            error,
            ContextError::Outside { .. } | ContextError::Missing { .. } | ContextError::Loop { .. }
        );
        assert!(is_refused, "{path}: {error}");
    }
    for name in [".dockerignore", "Dockerfile.dockerignore"] {
        let checkout =
            unpacked(&rig, archive(&[file("Dockerfile", "x"), link(name, canary)])).await.unwrap();
        let error = checkout.ignore(&at("Dockerfile")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{name}` is a link that leads out of the source: copy the file into the source"
            )
        );
    }
}

/// The peak memory of this process, in MiB. It is this test's own only if each test has its own process.
fn held() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn a_bomb_takes_no_more_than_its_limit() {
    let limits = UnpackLimits { archive_bytes: 8 << 20, unpacked_bytes: 16 << 20, entries: 20_000 };
    let rig = sources_with(0, limits);
    let bomb = zeros(512);
    let before = held();
    let head = |kind: u8, size: u64| gzip(&entry_of(kind, b"f", "", b"", size));
    for (bytes, limit) in [
        // 512 MiB as a file, as a long name, as a record, and as content of a folder entry.
        ([head(b'0', 512 << 20), bomb.clone()].concat(), "16 MiB of bytes"),
        (
            [head(b'L', 512 << 20), bomb.clone()].concat(),
            "1 MiB of names and bytes outside of files",
        ),
        (
            [head(b'x', 512 << 20), bomb.clone()].concat(),
            "1 MiB of names and bytes outside of files",
        ),
        (
            [head(b'5', 512 << 20), bomb.clone()].concat(),
            "1 MiB of names and bytes outside of files",
        ),
        (gzip(&archive(&vec![file("f", ""); 20_001])), "20000 of files, folders and links"),
        (zstd_zeros(&entry_of(b'0', b"f", "", b"", 512 << 20), 512), "16 MiB of bytes"),
        (
            zstd_zeros(&entry_of(b'L', b"f", "", b"", 512 << 20), 512),
            "1 MiB of names and bytes outside of files",
        ),
    ] {
        assert!((bytes.len() as u64) < limits.archive_bytes);
        let checkouts = rig.folder.path().join("checkouts");
        let refused = unpacked(&rig, bytes);
        let error = refused.await.unwrap_err().to_string();
        assert!(error.contains(&format!("more than {limit}")), "{error}");
        holds_nothing(&rig).await;
        assert!(checkouts.exists());
    }
    let grown = held() - before;
    assert!(grown < 150, "{grown} MiB");
}
