//! Paths with slashes, as Go's `path` treats them.

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("base", 1, Some(1), base),
    Function::whole("dir", 1, Some(1), dir),
    Function::whole("clean", 1, Some(1), clean),
    Function::whole("ext", 1, Some(1), ext),
    Function::test("isAbs", 1, Some(1), is_abs),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

fn base(call: &mut Call<'_>) -> Result {
    let path = call.text(0)?;
    let base = match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    };
    Ok(base.into())
}

fn dir(call: &mut Call<'_>) -> Result {
    let path = call.text(0)?;
    let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
    Ok(cleaned(folder).into())
}

fn clean(call: &mut Call<'_>) -> Result {
    Ok(cleaned(call.text(0)?).into())
}

fn ext(call: &mut Call<'_>) -> Result {
    let path = call.text(0)?;
    let name = path.rsplit('/').next().unwrap_or(path);
    Ok(name.rfind('.').map_or("", |dot| &name[dot..]).into())
}

fn is_abs(call: &mut Call<'_>) -> Result {
    Ok(call.text(0)?.starts_with('/').into())
}

/// The shortest name of the same path.
fn cleaned(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut words: Vec<&str> = Vec::new();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." if words.last().is_some_and(|last| *last != "..") => {
                words.pop();
            }
            ".." if is_absolute => {}
            word => words.push(word),
        }
    }
    match (is_absolute, words.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}
