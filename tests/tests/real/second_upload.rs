//! `gantry build DIR` a second time: what is sent, what is built, and what happens when the earlier upload is of no use.

use std::path::{Path, PathBuf};

use crate::service::{Gantry, text, unique};

/// A folder of 8 MiB that hardly compresses, and an image that has all of it.
struct Folder {
    context: String,
    image: String,
}

impl Folder {
    fn new(gantry: &Gantry) -> Self {
        let context =
            gantry.context("app", "FROM BASE\nCOPY . /app\nRUN md5sum /app/data-* /app/edited\n");
        let folder = Path::new(&context);
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let data: Vec<u8> = noise.take(8 << 20).collect();
        for (number, data) in data.chunks(1 << 20).enumerate() {
            std::fs::write(folder.join(format!("data-{number}")), data).unwrap();
        }
        std::fs::write(folder.join("edited"), "first").unwrap();
        Self { context, image: unique("upload") }
    }

    fn edit(&self, text: &str) {
        std::fs::write(Path::new(&self.context).join("edited"), text).unwrap();
    }

    /// Builds it. Returns what was printed.
    async fn build(&self, gantry: &Gantry) -> String {
        let image = format!("{}:{{{{.Run.ID}}}}", self.image);
        let built = gantry.run(&["build", "-t", &image, &self.context]).await;
        assert!(built.status.success(), "{}", text(&built));
        text(&built)
    }
}

/// The list of chunks that the client keeps.
fn kept(gantry: &Gantry) -> PathBuf {
    let folder = gantry.folder.path().join(".cache/gantry/uploads");
    std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

fn is_difference(said: &str) -> bool {
    said.contains("the rest was uploaded before")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_build_of_a_folder_sends_what_has_changed() {
    let gantry = Gantry::up().await;
    let folder = Folder::new(&gantry);
    let first = folder.build(&gantry).await;
    assert!(!is_difference(&first), "{first}");

    folder.edit("second");
    let second = folder.build(&gantry).await;
    let sent = second.lines().find(|line| is_difference(line)).expect("a difference");
    // One chunk of the eight MiB, and the list of the others.
    assert!(sent.contains("KiB") || sent.contains("1."), "{sent}");
    let md5 = "a9f0e61a137d86aa9db53465e0801612"; // of "second"
    assert!(second.contains(md5), "{second}");

    // Only the user may read the list, and it names no file.
    let list = kept(&gantry);
    let mode = std::os::unix::fs::PermissionsExt::mode(&list.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&list).unwrap().contains("data-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_usable_earlier_upload_everything_is_sent() {
    let gantry = Gantry::up().await;
    let folder = Folder::new(&gantry);
    folder.build(&gantry).await;
    let list = kept(&gantry);
    let whole = std::fs::read_to_string(&list).unwrap();
    let upload: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let id = upload["upload"].as_str().unwrap();
    let other_id = whole.replace(id, &"0".repeat(id.len()));
    let chunk = upload["chunks"][0][2].as_str().unwrap();
    let other_bytes = whole.replacen(chunk, &"0".repeat(chunk.len()), 1);
    for (n, damaged) in [other_id, other_bytes, "{".to_owned(), whole[..whole.len() / 2].to_owned()]
        .into_iter()
        .enumerate()
    {
        std::fs::write(&list, damaged).unwrap();
        folder.edit(&format!("again {n}"));
        let said = folder.build(&gantry).await;
        assert!(!is_difference(&said), "{n}: {said}");
    }
    folder.edit("last");
    assert!(is_difference(&folder.build(&gantry).await));
}
