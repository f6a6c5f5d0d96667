//! The arguments that tell where the JSON of a sender of webhooks has what makes a push.

use gantry_api::{HookMapping, HookSignature};

/// Where the sender's JSON has what makes a push
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for --provider generic")]
pub(crate) struct MappingArgs {
    /// JSON pointer to the repository's URL
    #[arg(long, value_name = "POINTER", group = "pushed", requires_all = ["ref_pointer", "commit_pointer"])]
    repository_pointer: Option<String>,
    /// JSON pointer to what moved: refs/heads/…, refs/tags/…, or a branch's name
    #[arg(long, value_name = "POINTER", requires = "repository_pointer")]
    ref_pointer: Option<String>,
    /// JSON pointer to the commit after; null or zeros if the branch or tag was deleted
    #[arg(long, value_name = "POINTER", requires = "repository_pointer")]
    commit_pointer: Option<String>,
    /// JSON pointer to the commit before [default: the git host is asked for the branch's head]
    #[arg(long, value_name = "POINTER", requires = "repository_pointer")]
    before_pointer: Option<String>,
    /// For pushes of images: JSON pointer to the image's name, maybe with tag and digest
    #[arg(long, value_name = "POINTER", group = "pushed")]
    image_pointer: Option<String>,
    /// JSON pointer to the image's tag [default: the one in the name]
    #[arg(long, value_name = "POINTER", requires = "image_pointer")]
    tag_pointer: Option<String>,
    /// JSON pointer to the image's digest
    #[arg(long, value_name = "POINTER", requires = "image_pointer")]
    digest_pointer: Option<String>,
    /// Header with the HMAC-SHA256 of the body, in hexadecimal digits or base64 [default: Standard Webhooks]
    #[arg(long, value_name = "HEADER", requires = "pushed")]
    signature_header: Option<String>,
    /// What stands before the signature, like sha256=
    #[arg(long, value_name = "TEXT", requires = "signature_header")]
    signature_prefix: Option<String>,
}

impl MappingArgs {
    /// The mapping, if one was given.
    pub(crate) fn into_mapping(self) -> Option<HookMapping> {
        if self.repository_pointer.is_none() && self.image_pointer.is_none() {
            return None;
        }
        let prefix = self.signature_prefix;
        Some(HookMapping {
            repository: self.repository_pointer,
            reference: self.ref_pointer,
            commit: self.commit_pointer,
            before: self.before_pointer,
            image: self.image_pointer,
            tag: self.tag_pointer,
            digest: self.digest_pointer,
            signature: self.signature_header.map(|header| HookSignature { header, prefix }),
        })
    }
}

/// A mapping for people, a line for each part.
pub(crate) fn mapping_lines(mapping: &HookMapping) -> Vec<String> {
    let parts = [
        (&mapping.repository, "the repository"),
        (&mapping.reference, "the branch or tag"),
        (&mapping.commit, "the commit"),
        (&mapping.before, "the commit before"),
        (&mapping.image, "the image"),
        (&mapping.tag, "its tag"),
        (&mapping.digest, "its digest"),
    ];
    let mut lines: Vec<String> = parts
        .into_iter()
        .filter_map(|(pointer, what)| Some(format!("{}: {what}", pointer.as_ref()?)))
        .collect();
    lines.push(match &mapping.signature {
        None => "webhook-signature: the signature, as Standard Webhooks says".to_owned(),
        Some(HookSignature { header, prefix }) => {
            let prefix = prefix.as_deref().unwrap_or_default();
            format!("{header}: {prefix}SIGNATURE, the HMAC-SHA256 of the body")
        }
    });
    lines
}
