//! Maps object stores' errors.

use std::error::Error;
use std::io;

use gantry_seams::blobs::BlobError;

pub(crate) fn blob_error(path: &str, error: &object_store::Error) -> BlobError {
    let code = code(error);
    if matches!(error, object_store::Error::NotFound { .. }) && !is_bucket_absent(code.as_deref()) {
        return BlobError::Absent { path: path.to_owned() };
    }
    let message = format!("{path}: {}", reason(error));
    if has_no_room(error, code.as_deref()) {
        BlobError::Full { message }
    } else {
        BlobError::Unavailable { message }
    }
}

/// The bucket does not exist, as opposed to an object in it.
pub(crate) fn is_bucket_absent(code: Option<&str>) -> bool {
    matches!(code, Some("NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted"))
}

fn has_no_room(error: &object_store::Error, code: Option<&str>) -> bool {
    // MinIO's code; the clouds have none.
    code == Some("XMinioStorageFull")
        || causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
            matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
}

/// The server's error code. All three clouds answer `<Error><Code>…</Code>…`.
pub(crate) fn code(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}

/// A reason for people: the server's code if it answered, otherwise the innermost cause.
pub(crate) fn reason(error: &object_store::Error) -> String {
    match code(error) {
        Some(code) => format!("it answered {code}"),
        None => causes(error).last().map(ToString::to_string).unwrap_or_default(),
    }
}

fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_distinguished_from_an_unavailable_one() {
        let failed = |kind: io::ErrorKind| object_store::Error::Generic {
            store: "test",
            source: Box::new(io::Error::from(kind)),
        };
        let full = blob_error("a", &failed(io::ErrorKind::StorageFull));
        assert!(matches!(full, BlobError::Full { .. }), "{full:?}");
        let away = blob_error("a", &failed(io::ErrorKind::TimedOut));
        assert!(matches!(away, BlobError::Unavailable { .. }), "{away:?}");
    }

    #[test]
    fn an_absent_bucket_is_not_an_absent_object() {
        let absent = |code: &str| object_store::Error::NotFound {
            path: "a".to_owned(),
            source: format!("404: <Error><Code>{code}</Code></Error>").into(),
        };
        let object = blob_error("a", &absent("NoSuchKey"));
        assert!(matches!(object, BlobError::Absent { .. }), "{object:?}");
        for code in ["NoSuchBucket", "ContainerNotFound"] {
            let bucket = blob_error("a", &absent(code));
            assert!(matches!(bucket, BlobError::Unavailable { .. }), "{bucket:?}");
        }
    }
}
