//! Encodings and digests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("b64enc", 1, Some(1), b64enc),
    Function::whole("b64dec", 1, Some(1), b64dec),
    Function::whole("b32enc", 1, Some(1), b32enc),
    Function::whole("b32dec", 1, Some(1), b32dec),
    Function::whole("sha1sum", 1, Some(1), sha1sum),
    Function::whole("sha256sum", 1, Some(1), sha256sum),
    Function::whole("adler32sum", 1, Some(1), adler32sum),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

/// Of nil, it is nothing: ACR Tasks replaces sprig's own function, so that a secret may be missing.
fn b64enc(call: &mut Call<'_>) -> Result {
    if call.any(0).is_nil() {
        return Ok("".into());
    }
    Ok(STANDARD.encode(call.text(0)?).into())
}

fn b64dec(call: &mut Call<'_>) -> Result {
    // Go ignores line ends in the encoded text.
    let encoded = call.text(0)?.replace(['\r', '\n'], "");
    decoded(call, STANDARD.decode(encoded).ok(), "Base64")
}

fn b32enc(call: &mut Call<'_>) -> Result {
    Ok(BASE32.encode(call.text(0)?.as_bytes()).into())
}

fn b32dec(call: &mut Call<'_>) -> Result {
    let encoded = call.text(0)?.replace(['\r', '\n'], "");
    decoded(call, BASE32.decode(encoded.as_bytes()).ok(), "Base32")
}

/// sprig returns the message of an error as the decoded text. That would only fail later, and elsewhere.
fn decoded(call: &Call<'_>, bytes: Option<Vec<u8>>, encoding: &str) -> Result {
    let bytes = bytes.ok_or_else(|| call.fails(format!("the text is not {encoding}")))?;
    let text = String::from_utf8(bytes);
    Ok(text.map_err(|_| call.fails("the decoded bytes are not UTF-8"))?.into())
}

fn sha1sum(call: &mut Call<'_>) -> Result {
    Ok(hex::encode(Sha1::digest(call.text(0)?)).into())
}

fn sha256sum(call: &mut Call<'_>) -> Result {
    Ok(hex::encode(Sha256::digest(call.text(0)?)).into())
}

fn adler32sum(call: &mut Call<'_>) -> Result {
    Ok(adler2::adler32_slice(call.text(0)?.as_bytes()).to_string().into())
}
