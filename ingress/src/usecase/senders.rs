//! Parses who sends the deliveries of a new hook, or the body of a simulation.

use gantry_api::{HookMapping, HookSignature};
use gantry_domain::hook::{Provider, Sender};
use gantry_domain::mapping::{MappedProof, Mapping, SignatureHeader};

use crate::refusal::Mistakes;

/// Parses a provider, and the mapping that some need. `None` if something is wrong, which is then among the mistakes.
pub(super) fn parse_sender(
    mistakes: &mut Mistakes,
    provider: &str,
    asked: Option<&HookMapping>,
) -> Option<Sender> {
    let provider = mistakes.parse::<Provider>("provider", provider);
    let mapping = match asked {
        Some(asked) => Some(mapping(mistakes, asked)?),
        None => None,
    };
    mistakes.check("mapping", Sender::new(provider?, mapping))
}

fn mapping(mistakes: &mut Mistakes, asked: &HookMapping) -> Option<Mapping> {
    let repository = mistakes.parse("mapping.repository", &asked.repository);
    let reference = mistakes.parse("mapping.ref", &asked.reference);
    let commit = mistakes.parse("mapping.commit", &asked.commit);
    let before = mistakes.parse_given("mapping.before", asked.before.as_deref());
    let proof = match &asked.signature {
        Some(signature) => signature_header(mistakes, signature).map(MappedProof::Header),
        None => Some(MappedProof::StandardWebhooks),
    };
    Some(Mapping {
        repository: repository?,
        reference: reference?,
        commit: commit?,
        before: before?,
        proof: proof?,
    })
}

fn signature_header(mistakes: &mut Mistakes, asked: &HookSignature) -> Option<SignatureHeader> {
    let name = mistakes.parse("mapping.signature.header", &asked.header);
    let prefix = mistakes.parse_given("mapping.signature.prefix", asked.prefix.as_deref());
    Some(SignatureHeader { name: name?, prefix: prefix? })
}
