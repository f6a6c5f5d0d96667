//! "Did you mean".

/// `: did you mean `x`?` if one of the names is similar, otherwise nothing.
pub(super) fn suggestion(name: &str, names: &[&str]) -> String {
    // The distance takes time that grows with the product of both lengths, for each name.
    if name.len() > 64 || names.len() > 200 {
        return String::new();
    }
    let begins_so = |other: &&&str| name.len() > 2 && other.starts_with(name);
    if let Some(other) = names.iter().filter(begins_so).min_by_key(|other| other.len()) {
        return format!(": did you mean `{other}`?");
    }
    let distance =
        |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let nearest = names.iter().map(|other| (distance(other), other)).min();
    match nearest {
        Some((distance, other)) if distance <= 1 + name.len() / 4 => {
            format!(": did you mean `{other}`?")
        }
        Some(_) | None => String::new(),
    }
}
