//! Parses `objects.url`.

use std::path::PathBuf;

use object_store::path::Path as Location;
use url::Url;

/// A parsed `objects.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StorageUrl {
    /// A local folder.
    Folder(PathBuf),
    /// A bucket, and a prefix in it.
    Bucket { cloud: Cloud, name: String, prefix: Location },
}

/// The provider of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    S3,
    Azure,
    Google,
}

/// An `objects.url` was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum InvalidStorageUrl {
    /// The scheme is not supported.
    #[error(
        "objects cannot be stored at `{scheme}://`: use s3://bucket/prefix, az://container/prefix, gs://bucket/prefix or file:///folder"
    )]
    Scheme { scheme: String },
    /// The URL contains credentials, which the message does not repeat.
    #[error("a URL must not hold credentials: remove them, and set {instead} in the environment")]
    Credentials {
        /// Where credentials belong.
        instead: &'static str,
    },
    /// The URL has more than a bucket and a prefix.
    #[error("`{url}` has more than a bucket and a prefix: leave out its {part}")]
    TooMuch {
        url: Url,
        /// The part to leave out.
        part: &'static str,
    },
    /// The URL has no bucket.
    #[error("`{url}` names no bucket: write {example}")]
    NoBucket {
        url: Url,
        /// A valid example.
        example: &'static str,
    },
    /// The prefix or folder is not a plain path.
    #[error("the path of `{url}` is not plain: use names with single slashes between them")]
    Path { url: Url },
}

impl StorageUrl {
    pub(crate) fn parse(url: &Url) -> Result<Self, InvalidStorageUrl> {
        let cloud = match url.scheme() {
            "s3" => Cloud::S3,
            "az" => Cloud::Azure,
            "gs" => Cloud::Google,
            "file" => return folder(url),
            scheme => return Err(InvalidStorageUrl::Scheme { scheme: scheme.to_owned() }),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidStorageUrl::Credentials { instead: cloud.credentials() });
        }
        refuse_more(url)?;
        let path = || InvalidStorageUrl::Path { url: url.clone() };
        let prefix = url.path().strip_prefix('/').unwrap_or_default();
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let prefix = Location::from_url_path(prefix).map_err(|_| path())?;
        let name = url.host_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| InvalidStorageUrl::NoBucket {
            url: url.clone(),
            example: cloud.example(),
        })?;
        Ok(Self::Bucket { cloud, name: name.to_owned(), prefix })
    }
}

fn folder(url: &Url) -> Result<StorageUrl, InvalidStorageUrl> {
    refuse_more(url)?;
    url.to_file_path()
        .map(StorageUrl::Folder)
        .map_err(|()| InvalidStorageUrl::Path { url: url.clone() })
}

fn refuse_more(url: &Url) -> Result<(), InvalidStorageUrl> {
    let part = if url.port().is_some() {
        "port (another server is named by `objects.endpoint`)"
    } else if url.query().is_some() || url.fragment().is_some() {
        // Azure's shared access signatures are queries, so the message must not repeat it.
        return Err(InvalidStorageUrl::Credentials { instead: Cloud::Azure.credentials() });
    } else {
        return Ok(());
    };
    Err(InvalidStorageUrl::TooMuch { url: url.clone(), part })
}

impl Cloud {
    /// Where the cloud's own tools look for credentials.
    pub(crate) fn credentials(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::S3 => "s3://bucket/prefix",
            Self::Azure => "az://container/prefix",
            Self::Google => "gs://bucket/prefix",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<StorageUrl, InvalidStorageUrl> {
        StorageUrl::parse(&url.parse().unwrap())
    }

    #[test]
    fn a_url_is_a_bucket_with_a_prefix_or_a_folder() {
        for (url, cloud, name, prefix) in [
            ("s3://builds", Cloud::S3, "builds", ""),
            ("s3://builds/", Cloud::S3, "builds", ""),
            ("s3://My_builds.eu/gantry/a", Cloud::S3, "My_builds.eu", "gantry/a"),
            ("az://builds/gantry/", Cloud::Azure, "builds", "gantry"),
            ("gs://builds/gantry", Cloud::Google, "builds", "gantry"),
        ] {
            let prefix = Location::from(prefix);
            let place = StorageUrl::Bucket { cloud, name: name.to_owned(), prefix };
            assert_eq!(parse(url), Ok(place), "{url}");
        }
        assert_eq!(parse("file:///srv/a%20b"), Ok(StorageUrl::Folder("/srv/a b".into())));
    }

    #[test]
    fn other_urls_are_refused_with_the_remedy() {
        let refused = |url| parse(url).unwrap_err().to_string();
        assert!(refused("http://minio.lan/builds").contains("s3://bucket/prefix"));
        assert!(refused("s3:///prefix").contains("names no bucket: write s3://bucket/prefix"));
        assert!(refused("s3://builds:9000/a").contains("objects.endpoint"));
        assert!(refused("s3://builds/a//b").contains("single slashes"));
        assert!(refused("file://server/share").contains("file://server/share"));
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for (url, instead) in [
            ("s3://AKIA:hushhush@builds/a", "AWS_SECRET_ACCESS_KEY"),
            ("az://builds?sig=hushhush", "AZURE_STORAGE_ACCOUNT_KEY"),
        ] {
            let refused = parse(url).unwrap_err().to_string();
            assert!(refused.contains(instead) && !refused.contains("hushhush"), "{refused}");
        }
    }
}
