//! Names: of images, sources, platforms, and everything with an id.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use gantry_domain::id::{
    DeliveryId, EventId, HookId, PoolName, RegistryName, RunId, TaskName, TokenId, WorkerId,
};
use gantry_domain::image::{Digest, ImageReference, RegistryHost, Repository, Tag};
use gantry_domain::platform::Platform;
use gantry_domain::source::{CommitId, GitSource, GitUrl, RefName, Source, SourcePath, TarballUrl};
use gantry_domain::ssh::HostKey;
use gantry_domain::template::Template;
use gantry_domain::token::Scope;
use gantry_domain::trace::TraceParent;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "reference",
    run: read,
    words: &[
        "@sha256:",
        "docker.io/",
        "https://",
        "git@",
        "ssh://",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        "#",
        ":",
        "..",
        "//",
        "%2e",
        "[::1]",
        "{{.Run.ID}}",
        "linux/",
        ".git",
        "-",
    ],
};

fn read(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same::<ImageReference>(text);
    same::<Repository>(text);
    same::<Tag>(text);
    same::<Digest>(text);
    same::<RegistryHost>(text);
    // Printed without the parts that may be secret.
    same_record::<Source>(text);
    same_record::<TarballUrl>(text);
    same::<GitSource>(text);
    same::<GitUrl>(text);
    same::<HostKey>(text);
    same::<RefName>(text);
    same::<CommitId>(text);
    same::<SourcePath>(text);
    same::<Platform>(text);
    same::<Template>(text);
    same::<RunId>(text);
    same::<RegistryName>(text);
    same::<TaskName>(text);
    same::<HookId>(text);
    same::<DeliveryId>(text);
    same::<EventId>(text);
    same::<TokenId>(text);
    same::<WorkerId>(text);
    same::<PoolName>(text);
    same::<Scope>(text);
    same::<TraceParent>(text);
    let home: RegistryHost = "registry.test:5000".parse().unwrap();
    if let Ok(image) = ImageReference::parse_in(text, &home) {
        assert_eq!(image.to_string().parse(), Ok(image));
    }
    if let Ok(source) = text.parse::<Source>() {
        let shown = source.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}

/// A parsed value, printed and parsed again, is equal. An error message is short.
fn same<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            let again = written.parse::<T>();
            assert!(again.is_ok_and(|again| again == value), "{value:?} is written {written:?}");
        }
        Err(error) => assert!(error.to_string().len() < 4096, "{error}"),
    }
}

/// A parsed value, stored and read again, is equal.
fn same_record<T: FromStr + Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let stored = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&stored).unwrap(), value);
    }
}
