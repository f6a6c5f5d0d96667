//! Every form of a context, in every case. What is not here has a test of its own:
//!
//! | form | public | private, wrong credential | missing | empty | hostile |
//! |---|---|---|---|---|---|
//! | git over http, https, ssh, each with the default branch, a branch, a tag, a commit, a short commit, `pull/N/head`, `#ref:folder` | here | here | here | here | here, and `remote: hostile_git` |
//! | short commits in the history | `abbreviated` | `an_abbreviated_commit_of_a_private_repository_needs_its_token` | `digits_of_no_commit_are_refused_with_what_to_do` | here | `digits_of_several_commits_are_refused_with_what_to_do` |
//! | submodules | `submodules_in_submodules_are_those_of_a_recursive_clone_if_they_are_wanted` | `a_token_is_sent_to_the_host_of_the_source_alone_and_for_no_fork`, `the_key_is_used_for_submodules_on_the_same_host_alone` | `submodules_that_are_not_there_are_named_with_what_to_do` | `submodules_that_are_not_there_are_named_with_what_to_do` | `no_submodule_leads_past_the_guard_or_out_of_the_source`, `submodules_are_limited_in_number_depth_and_size_together` |
//! | files of Git LFS | `what_the_original_client_pushed_is_fetched_if_it_is_wanted` | `the_token_goes_to_the_server_of_the_repository_alone` | `a_server_that_has_no_lfs_or_not_the_file_is_named` | `only_pointers_that_the_attributes_name_are_replaced_and_lfsconfig_is_not_obeyed` | `no_answer_of_a_server_puts_anything_else_in_the_place_of_a_pointer`, `a_file_that_is_larger_than_the_limits_is_refused_before_it_is_asked_for` |
//! | an address of Azure DevOps | here | here | here | here | here |
//! | a tarball: gzip, zstd, xz, bzip2, none | here | here | here | here | here, and `archives` |
//! | `oci://` | `real: an_artifact_that_oras_has_pushed_is_built`, `an_artifact_has_its_files_and_its_unpacked_folders` | `the_credentials_stay_with_the_registry_and_a_redirect_stays_within_the_guard` | `an_absent_artifact_or_layer_is_not_found` | `an_artifact_that_breaks_a_rule_is_refused` | `an_artifact_that_breaks_a_rule_is_refused`, `a_layer_that_is_not_the_one_of_its_digest_is_refused`, `a_private_or_unlisted_registry_is_not_contacted` |
//! | an upload | `an_upload_is_built_only_as_it_was_uploaded` | `ingress: an_upload_is_only_usable_in_its_registry` | the same | here | `an_upload_is_built_only_as_it_was_uploaded`, `archives` |
//! | no files | here | | | | here |

use gantry_domain::source::{GitSource, Source};
use gantry_ops::secret::Credentials;
use gantry_worker::source::{Checkout, SourceError};

use super::archives::{archive, file, forms};
use super::ssh::{Host, key};
use super::tls::Tls;
use super::{TestSources, digest_of, git_source, soon, sources, token, web};
use crate::git_server::{GitServer, TestRepository};

/// What was expected of each cell, and what came. All cells are looked at before one fails the test.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn cell(&mut self, form: &str, case: &str, expected: &str, came: &str) {
        if expected != came {
            self.0.push(format!("{form}, {case}: expected {expected}, came {came}"));
        }
    }

    fn check(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// The content of `f`, or the name of the error.
fn outcome(fetched: &Result<Checkout, SourceError>) -> String {
    match fetched {
        Ok(checkout) => std::fs::read_to_string(checkout.root().join("f"))
            .unwrap_or_else(|_| "no file".to_owned()),
        Err(error) => {
            let told = format!("{error:?}");
            let name = told.strip_prefix("Git(").unwrap_or(&told);
            name.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
        }
    }
}

/// What reads a repository, and what is answered to somebody else.
struct Access<'a> {
    form: &'a str,
    rig: &'a TestSources,
    /// The address of a repository by its name.
    url: &'a dyn Fn(&str) -> String,
    host_key: Option<String>,
    right: Option<Credentials>,
    /// Other credentials, and the error.
    wrong: Vec<(Option<Credentials>, &'a str)>,
    /// The error for a repository that is not there.
    absent: &'a str,
}

impl Access<'_> {
    fn source(&self, text: &str) -> Result<GitSource, String> {
        let source: Source = text.parse().map_err(|error| format!("refused: {error}"))?;
        let git = source.git().cloned().ok_or("no repository")?;
        let host_keys = self.host_key.iter().map(|line| line.parse().unwrap()).collect();
        Ok(GitSource { host_keys, ..git })
    }

    async fn fetch(&self, text: &str, credentials: Option<&Credentials>) -> String {
        let source = match self.source(text) {
            Ok(source) => source,
            Err(refused) => return refused.split(':').next().unwrap_or_default().to_owned(),
        };
        outcome(&self.rig.sources.from_git(&source, credentials, soon()).await)
    }
}

/// A reference, what it builds, one that is missing, the error for an empty repository, and what is refused.
struct Reference {
    form: &'static str,
    text: String,
    built: &'static str,
    missing: Option<(&'static str, &'static str)>,
    empty: &'static str,
    hostile: &'static str,
}

/// A repository in which every form of a reference leads to another content of `f`.
fn references(repository: &TestRepository) -> Vec<Reference> {
    let old = repository.commit("old", &[("f", "old"), ("d/f", "old folder")]).unwrap();
    let tagged = repository.commit("other", &[("f", "branch")]).unwrap();
    std::fs::create_dir_all(repository.bare().join("refs/tags")).unwrap();
    std::fs::create_dir_all(repository.bare().join("refs/pull/1")).unwrap();
    std::fs::write(repository.bare().join("refs/tags/v1"), format!("{tagged}\n")).unwrap();
    let pulled = repository.commit("gone", &[("f", "pulled")]).unwrap();
    std::fs::write(repository.bare().join("refs/pull/1/head"), format!("{pulled}\n")).unwrap();
    std::fs::remove_file(repository.bare().join("refs/heads/gone")).unwrap();
    repository.commit("main", &[("f", "main"), ("d/f", "folder")]).unwrap();
    let none = "UnknownRef";
    vec![
        Reference {
            form: "the default branch",
            text: String::new(),
            built: "main",
            missing: None,
            empty: "Empty",
            hostile: "#@{u}",
        },
        Reference {
            form: "a branch",
            text: "#other".to_owned(),
            built: "branch",
            missing: Some(("#absent", none)),
            empty: none,
            hostile: "#--upload-pack=id",
        },
        Reference {
            form: "a tag",
            text: "#refs/tags/v1".to_owned(),
            built: "branch",
            missing: Some(("#refs/tags/v2", none)),
            empty: none,
            hostile: "#v1^{}",
        },
        Reference {
            form: "a commit",
            built: "old",
            missing: Some(("#1111111111111111111111111111111111111111", none)),
            empty: none,
            hostile: "#1111111111111111111111111111111111111111^",
            text: format!("#{old}"),
        },
        Reference {
            form: "a short commit",
            built: "old",
            missing: Some(("#1111111", none)),
            empty: none,
            hostile: "#-1111111",
            text: format!("#{}", &old[..10]),
        },
        Reference {
            form: "pull/N/head",
            text: "#pull/1/head".to_owned(),
            built: "pulled",
            missing: Some(("#pull/2/head", none)),
            empty: none,
            hostile: "#pull/../head",
        },
        Reference {
            form: "#ref:folder",
            text: "#main:d".to_owned(),
            built: "folder",
            missing: Some(("#main:absent", "NoFolder")),
            empty: none,
            hostile: "#main:../d",
        },
    ]
}

async fn look_at(table: &mut Table, access: &Access<'_>, references: &[Reference]) {
    let right = access.right.as_ref();
    let (app, empty) = ((access.url)("app"), (access.url)("empty"));
    for it in references {
        let form = format!("{}, {}", access.form, it.form);
        let text = format!("{app}{}", it.text);
        table.cell(&form, "readable", it.built, &access.fetch(&text, right).await);
        for (wrong, expected) in &access.wrong {
            let case = if wrong.is_some() { "wrong credential" } else { "no credential" };
            table.cell(&form, case, expected, &access.fetch(&text, wrong.as_ref()).await);
        }
        if let Some((missing, expected)) = it.missing {
            let came = access.fetch(&format!("{app}{missing}"), right).await;
            table.cell(&form, "missing", expected, &came);
        }
        let came = access.fetch(&format!("{empty}{}", it.text), right).await;
        table.cell(&form, "empty", it.empty, &came);
        let came = access.fetch(&format!("{app}{}", it.hostile), right).await;
        table.cell(&form, "hostile", "refused", &came);
    }
    let came = access.fetch(&(access.url)("absent"), right).await;
    table.cell(access.form, "no repository", access.absent, &came);
}

/// A host with a full and an empty repository.
async fn host() -> (GitServer, Vec<Reference>) {
    let server = GitServer::start().await.unwrap();
    let references = references(&server.repository("app").unwrap());
    server.repository("empty").unwrap();
    (server, references)
}

/// The credentials that a host of these tests takes, and others.
fn tokens() -> (Option<Credentials>, Vec<(Option<Credentials>, &'static str)>) {
    let wrong = vec![(None, "CredentialsWanted"), (Some(token("bad")), "Unauthorized")];
    (Some(token("good")), wrong)
}

#[tokio::test]
async fn every_reference_is_read_over_http() {
    let (server, references) = host().await;
    let (rig, mut table) = (sources(1 << 30), Table::default());
    let url = |name: &str| server.url(name);
    let (right, wrong) = tokens();
    let (form, rig) = ("http", &rig);
    let public = Access {
        form,
        rig,
        url: &url,
        host_key: None,
        right: None,
        wrong: Vec::new(),
        absent: "NotFound",
    };
    look_at(&mut table, &public, &references).await;
    server.require("x-access-token", "good");
    let private = Access { form: "http, private", right, wrong, ..public };
    look_at(&mut table, &private, &references).await;
    table.check();
}

#[tokio::test]
async fn every_reference_is_read_over_https_from_a_host_with_a_valid_certificate() {
    let (server, references) = host().await;
    let tls = Tls::before(server.address()).await;
    let (rig, mut table) = (tls.trusting(), Table::default());
    let url = |name: &str| format!("https://{}/{name}.git", tls.address);
    let (right, wrong) = tokens();
    let (form, rig) = ("https", &rig);
    let public = Access {
        form,
        rig,
        url: &url,
        host_key: None,
        right: None,
        wrong: Vec::new(),
        absent: "NotFound",
    };
    look_at(&mut table, &public, &references).await;
    server.require("x-access-token", "good");
    let private = Access { form: "https, private", right, wrong, ..public };
    look_at(&mut table, &private, &references).await;
    table.check();

    // To any other worker, the certificate is a stranger's, and it is told no token.
    let before = server.requests().len();
    let source = git_source(&url("app"));
    let stranger = sources(0).sources.from_git(&source, Some(&token("good")), soon()).await;
    let error = stranger.map(drop).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(server.requests().len(), before);
}

#[tokio::test]
async fn every_reference_is_read_over_ssh() {
    let host = Host::start().await;
    let references = references(&host.repository);
    host.git.repository("empty").unwrap();
    let (rig, mut table) = (sources(1 << 30), Table::default());
    let unknown = key(&host.ssh.unknown_key().unwrap());
    let access = Access {
        form: "ssh",
        rig: &rig,
        url: &|name: &str| host.ssh.url(name),
        host_key: Some(host.ssh.host_key().unwrap()),
        right: Some(key(&host.ssh.deploy_key().unwrap())),
        wrong: vec![(None, "KeyWanted"), (Some(unknown), "KeyRefused")],
        absent: "NotFound",
    };
    look_at(&mut table, &access, &references).await;
    let impostor = Access {
        host_key: Some(host.ssh.another_host_key().unwrap()),
        form: "ssh, impostor",
        ..access
    };
    let came = impostor.fetch(&host.ssh.url("app"), impostor.right.as_ref()).await;
    table.cell(impostor.form, "hostile", "OtherHostKey", &came);
    table.check();
}

#[tokio::test]
async fn a_repository_has_an_address_of_azure_devops() {
    let server = GitServer::start().await.unwrap();
    let references = references(&server.repository("o/p/_git/app").unwrap());
    server.repository("o/p/_git/empty").unwrap();
    let (rig, mut table) = (sources(1 << 30), Table::default());
    let url = |name: &str| format!("http://{}/o/p/_git/{name}", server.address());
    server.require("x-access-token", "good");
    let (right, wrong) = tokens();
    let access = Access {
        form: "Azure DevOps",
        rig: &rig,
        url: &url,
        host_key: None,
        right,
        wrong,
        absent: "NotFound",
    };
    look_at(&mut table, &access, &references).await;
    table.check();
}

#[tokio::test]
async fn an_archive_is_read_in_every_format() {
    let (rig, mut table) = (sources(1 << 30), Table::default());
    let names = ["gzip", "zstd", "xz", "bzip2", "tar"];
    let good = forms(archive(&[file("f", "archived")]));
    let none = forms(archive(&[]));
    let out = forms(archive(&[file("../f", "out")]));
    for (at, form) in names.into_iter().enumerate() {
        for (case, status, body, expected) in [
            ("public", 200, good[at].clone(), "archived"),
            ("wrong credential", 403, Vec::new(), "Status"),
            ("missing", 404, Vec::new(), "Status"),
            ("empty", 200, none[at].clone(), "Unpack"),
            ("cut off", 200, good[at][..good[at].len() / 4 + 4].to_vec(), "Unpack"),
            ("hostile", 200, out[at].clone(), "Unpack"),
        ] {
            let url = web(move |_| (status, body.clone())).await;
            let came = outcome(&rig.sources.from_tarball(&url, soon()).await);
            table.cell(form, case, expected, &came);
        }
        let digest = digest_of(&none[at]);
        let empty = std::io::Cursor::new(none[at].clone());
        let came = outcome(&rig.sources.from_upload(empty, &digest, soon()).await);
        table.cell(&format!("an upload, {form}"), "empty", "Unpack", &came);
    }
    table.check();
}

#[test]
fn what_names_no_files_is_written_in_one_way() {
    assert_eq!("/dev/null".parse::<Source>().unwrap(), Source::Nothing);
    for other in ["/dev/zero", "/dev/null/", "/dev/null#main", "file:///dev/null", ""] {
        assert!(other.parse::<Source>().is_err(), "{other}");
    }
}
