//! The functions of sprig that a task file cannot use.

const RANDOM: &str = "a task file renders to the same text each time";
const CLOCK: &str = "a task file does not read the clock or a time zone: use `.Run.Date`, or a value given to the run";
const KEYS: &str = "a task file does not make keys or passwords: give them as secrets";
const NETWORK: &str = "a task file does not ask the network: give the address as a value";
const CALLS: &str = "no value is a function";

/// Why a function of this name cannot be used; `None` if sprig has none of this name.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    match name {
        "randAlpha" | "randAlphaNum" | "randAscii" | "randNumeric" | "shuffle" | "uuidv4" => {
            Some(RANDOM)
        }
        "ago" | "date" | "dateInZone" | "dateModify" | "date_in_zone" | "date_modify"
        | "htmlDate" | "htmlDateInZone" | "now" | "toDate" | "unixEpoch" => Some(CLOCK),
        "bcrypt" | "buildCustomCert" | "decryptAES" | "derivePassword" | "encryptAES" | "genCA"
        | "genPrivateKey" | "genSelfSignedCert" | "genSignedCert" | "htpasswd" => Some(KEYS),
        "getHostByName" => Some(NETWORK),
        "call" => Some(CALLS),
        _ => None,
    }
}
