//! The arguments that tell where the JSON of a sender of webhooks has what makes a push.

use gantry_api::{HookMapping, HookSignature};

/// Where the sender's JSON has what makes a push
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for --provider generic")]
pub(crate) struct MappingArgs {
    /// JSON pointer to the repository's URL
    #[arg(long, value_name = "POINTER", requires_all = ["ref_pointer", "commit_pointer"])]
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
    /// Header with the HMAC-SHA256 of the body, in hexadecimal digits or base64 [default: Standard Webhooks]
    #[arg(long, value_name = "HEADER", requires = "repository_pointer")]
    signature_header: Option<String>,
    /// What stands before the signature, like sha256=
    #[arg(long, value_name = "TEXT", requires = "signature_header")]
    signature_prefix: Option<String>,
}

impl MappingArgs {
    /// The mapping, if one was given.
    pub(crate) fn into_mapping(self) -> Option<HookMapping> {
        let prefix = self.signature_prefix;
        Some(HookMapping {
            repository: self.repository_pointer?,
            reference: self.ref_pointer?,
            commit: self.commit_pointer?,
            before: self.before_pointer,
            signature: self.signature_header.map(|header| HookSignature { header, prefix }),
        })
    }
}

/// A mapping for people, a line for each part.
pub(crate) fn mapping_lines(mapping: &HookMapping) -> Vec<String> {
    let mut lines = vec![
        format!("{}: the repository", mapping.repository),
        format!("{}: the branch or tag", mapping.reference),
        format!("{}: the commit", mapping.commit),
    ];
    lines.extend(mapping.before.iter().map(|before| format!("{before}: the commit before")));
    lines.push(match &mapping.signature {
        None => "webhook-signature: the signature, as Standard Webhooks says".to_owned(),
        Some(HookSignature { header, prefix }) => {
            let prefix = prefix.as_deref().unwrap_or_default();
            format!("{header}: {prefix}SIGNATURE, the HMAC-SHA256 of the body")
        }
    });
    lines
}
