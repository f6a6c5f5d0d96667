//! Parses who sends the deliveries of a new hook, or the body of a simulation.

use gantry_api::{HookMapping, HookSignature};
use gantry_domain::hook::{Provider, Sender};
use gantry_domain::mapping::{
    JsonPointer, MappedImage, MappedProof, MappedPush, MappedSource, Mapping, SignatureHeader,
};

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
    let is_of_source = [&asked.repository, &asked.reference, &asked.commit, &asked.before]
        .iter()
        .any(|pointer| pointer.is_some());
    let is_of_image =
        [&asked.image, &asked.tag, &asked.digest].iter().any(|pointer| pointer.is_some());
    let push = match (is_of_source, is_of_image) {
        (true, false) => source(mistakes, asked).map(MappedPush::Source),
        (false, true) => image(mistakes, asked).map(MappedPush::Image),
        (true, true) | (false, false) => {
            let message = "say where the JSON has repository, ref and commit, or where it has an image: one of them";
            mistakes.add("mapping", message);
            None
        }
    };
    let proof = match &asked.signature {
        Some(signature) => signature_header(mistakes, signature).map(MappedProof::Header),
        None => Some(MappedProof::StandardWebhooks),
    };
    Some(Mapping { push: push?, proof: proof? })
}

fn source(mistakes: &mut Mistakes, asked: &HookMapping) -> Option<MappedSource> {
    let repository = needed(mistakes, "mapping.repository", asked.repository.as_deref());
    let reference = needed(mistakes, "mapping.ref", asked.reference.as_deref());
    let commit = needed(mistakes, "mapping.commit", asked.commit.as_deref());
    let before = mistakes.parse_given("mapping.before", asked.before.as_deref());
    Some(MappedSource {
        repository: repository?,
        reference: reference?,
        commit: commit?,
        before: before?,
    })
}

fn image(mistakes: &mut Mistakes, asked: &HookMapping) -> Option<MappedImage> {
    let image = needed(mistakes, "mapping.image", asked.image.as_deref());
    let tag = mistakes.parse_given("mapping.tag", asked.tag.as_deref());
    let digest = mistakes.parse_given("mapping.digest", asked.digest.as_deref());
    Some(MappedImage { image: image?, tag: tag?, digest: digest? })
}

fn needed(mistakes: &mut Mistakes, target: &str, pointer: Option<&str>) -> Option<JsonPointer> {
    if pointer.is_none() {
        mistakes.add(target, "it is missing");
    }
    mistakes.parse(target, pointer?)
}

fn signature_header(mistakes: &mut Mistakes, asked: &HookSignature) -> Option<SignatureHeader> {
    let name = mistakes.parse("mapping.signature.header", &asked.header);
    let prefix = mistakes.parse_given("mapping.signature.prefix", asked.prefix.as_deref());
    Some(SignatureHeader { name: name?, prefix: prefix? })
}
